/*
 * Replicas of the postgres engine, on a primary and two streaming replicas: reads are shared out by weight and never
 * older than what was acknowledged, by whichever instance; servers die, stop and lag without a failed read; without the
 * primary reads are stale and say so, and writes fail at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/postgres/postgres.h"
#include "support/pg_cluster.h"

enum { CONNECT_MS = 500, TIMEOUT_MS = 1500, CHECK_MS = 100, READERS = 3 };

static struct pg_cluster primary, replica[2];
static struct store *w, *r; /* two instances: one writes, one reads with replicas */
static struct store_user user;

static int64_t now_us(void)
{
    return clock_mono(clock_system());
}

static struct store_checks checks; /* of the next store to be opened */

static struct store *opened(const struct pg_cluster *on, const struct postgres_replica *list, unsigned n)
{
    struct postgres_options o = {.url = pg_cluster_url(on),
                                 .connect_ms = CONNECT_MS,
                                 .timeout_ms = TIMEOUT_MS,
                                 .check_ms = CHECK_MS,
                                 .checks = checks,
                                 .guard = true,
                                 .replicas = list,
                                 .n_replicas = n};
    struct store *s = NULL;
    char why[256];
    if (store_postgres_open(&o, &s, why) != PFE_OK)
        fail_msg("%s", why);
    return s;
}

static struct store_cluster stats(void)
{
    struct store_cluster x;
    assert_true(store_cluster(r, &x));
    return x;
}

/* Writes a version of the one user. */
static enum pf_err write_version(int64_t version)
{
    struct store_user u = user;
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(w, &tx);
    if (e)
        return e;
    u.updated_us = version;
    e = store_user_update(tx, &u);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

static int64_t version_now(void)
{
    struct store_user u;
    assert_int_equal(store_user_get(r, user.id, &u), PFE_OK);
    return u.updated_us;
}

/* Until all of them are in use and have come so far, at most 10 s. */
static void settled(unsigned n)
{
    int64_t end = now_us() + 10000000;
    unsigned good;
    do {
        struct store_cluster x = stats();
        good = 0;
        for (unsigned i = 0; i < x.n; i++)
            good += strcmp(x.replicas[i].state, "up") == 0 && x.replicas[i].lag_us >= 0 &&
                    x.replicas[i].lag_us < 3 * CHECK_MS * 1000;
        if (good >= n && strcmp(x.primary.state, "closed") == 0)
            return;
        usleep(20000);
    } while (now_us() < end);
    fail_msg("%u of %u replicas are there after 10 s", good, n);
}

static int set_up(void **state)
{
    (void)state;
    pg_cluster_start(&primary, 0);
    for (int i = 0; i < 2; i++)
        pg_cluster_replica(&replica[i], &primary);
    w = opened(&primary, NULL, 0);
    r = opened(&primary, (struct postgres_replica[]){{replica[0].host, NULL, 3}, {replica[1].host, "5432", 1}}, 2);
    user = (struct store_user){.role = IDENT_USER, .uuid = {1}, .created_us = 1};
    strcpy(user.username, "ann");
    strcpy(user.email, "ann@example.org");
    strcpy(user.password_hash, "x");
    struct store_tx *tx;
    assert_int_equal(store_tx_begin(w, &tx), PFE_OK);
    assert_int_equal(store_user_insert(tx, &user), PFE_OK);
    assert_int_equal(store_tx_commit(tx), PFE_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    store_close(r);
    store_close(w);
    for (int i = 0; i < 2; i++)
        pg_cluster_stop(&replica[i]);
    pg_cluster_stop(&primary);
    return 0;
}

/* ---- load: one instance writes, readers of another look ---- */

struct load {
    atomic_bool stop;
    _Atomic int64_t acked, reads, older, failed, slowest_us;
    bool writes;
    pthread_t threads[READERS + 1];
};

static void *write_on(void *ctx)
{
    struct load *l = ctx;
    for (int64_t v = l->acked + 1; !l->stop; v++) {
        if (write_version(v) == PFE_OK)
            l->acked = v;
        usleep(500);
    }
    return NULL;
}

static void *read_on(void *ctx)
{
    struct load *l = ctx;
    while (!l->stop) {
        struct store_user u;
        int64_t acked = l->acked, t0 = now_us();
        enum pf_err e = store_user_get(r, user.id, &u);
        int64_t took = now_us() - t0, slowest = l->slowest_us;
        while (took > slowest && !atomic_compare_exchange_weak(&l->slowest_us, &slowest, took))
            ;
        l->reads++;
        l->failed += e != PFE_OK;
        l->older += e == PFE_OK && u.updated_us < acked;
    }
    return NULL;
}

static void load_start(struct load *l, bool writes)
{
    memset(l, 0, sizeof *l);
    l->writes = writes;
    l->acked = version_now();
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&l->threads[i], NULL, read_on, l), 0);
    if (writes)
        assert_int_equal(pthread_create(&l->threads[READERS], NULL, write_on, l), 0);
}

static void load_stop(struct load *l)
{
    l->stop = true;
    for (int i = 0; i < READERS + l->writes; i++)
        pthread_join(l->threads[i], NULL);
    printf("%lld reads, %lld writes, slowest read %lld us\n", (long long)l->reads, (long long)l->acked,
           (long long)l->slowest_us);
    assert_int_equal(l->older, 0);
    assert_int_equal(l->failed, 0);
}

/* ---- tests ---- */

static bool in_proportion(int64_t first, int64_t second, int64_t n)
{
    return llabs(first - n * 3 / 4) <= 20 && llabs(second - n / 4) <= 20;
}

static void reads_go_by_weight(void **state)
{
    (void)state;
    enum { N = 400 };
    struct store_cluster a, b;
    int64_t first = 0, second = 0;
    settled(2);
    assert_int_equal(write_version(1), PFE_OK);
    usleep(3 * CHECK_MS * 1000);
    for (int i = 0; i < 6 && !in_proportion(first, second, N); i++) { /* a late check takes a replica out for a while */
        settled(2);
        a = stats();
        for (int j = 0; j < N; j++)
            assert_int_equal(version_now(), 1);
        b = stats();
        first = (int64_t)(b.replicas[0].served - a.replicas[0].served);
        second = (int64_t)(b.replicas[1].served - a.replicas[1].served);
    }
    assert_true(in_proportion(first, second, N));
    assert_int_equal(b.stale_reads, a.stale_reads);

    /* Inside a transaction the primary is asked. */
    struct store_tx *tx;
    struct store_user u;
    assert_int_equal(store_tx_begin(r, &tx), PFE_OK);
    assert_int_equal(store_user_get(r, user.id, &u), PFE_OK);
    store_tx_rollback(tx);
    assert_int_equal(stats().indexes, b.indexes);
}

static void a_read_is_never_older_than_a_write(void **state)
{
    (void)state;
    struct load l;
    settled(2);
    struct store_cluster a = stats();
    load_start(&l, true);
    usleep(700000);
    for (int i = 0; i < 2; i++) {
        assert_true(pg_cluster_sql(&replica[i], "SELECT pg_wal_replay_pause()"));
        usleep(700000);
        assert_true(pg_cluster_sql(&replica[i], "SELECT pg_wal_replay_resume()"));
        usleep(300000);
    }
    for (int i = 0; i < 2; i++)
        assert_true(pg_cluster_sql(&replica[i], "SELECT pg_wal_replay_pause()"));
    usleep(700000);
    for (int i = 0; i < 2; i++)
        assert_true(pg_cluster_sql(&replica[i], "SELECT pg_wal_replay_resume()"));
    usleep(300000);
    load_stop(&l);
    struct store_cluster b = stats();
    assert_true(l.reads > 200);
    assert_true(l.acked > 20);
    printf("served by replicas %llu and %llu, found behind %llu and %llu, positions asked for %llu\n",
           (unsigned long long)(b.replicas[0].served - a.replicas[0].served),
           (unsigned long long)(b.replicas[1].served - a.replicas[1].served),
           (unsigned long long)(b.replicas[0].behind - a.replicas[0].behind),
           (unsigned long long)(b.replicas[1].behind - a.replicas[1].behind), (unsigned long long)(b.asks - a.asks));
    for (int i = 0; i < 2; i++) {
        assert_true(b.replicas[i].served > a.replicas[i].served);
        assert_true(b.replicas[i].behind > a.replicas[i].behind);
    }
    assert_int_equal(b.stale_reads, a.stale_reads);
}

static void a_replica_may_die(void **state)
{
    (void)state;
    struct load l;
    settled(2);
    load_start(&l, true);
    usleep(300000);
    pg_cluster_kill(&replica[0]);
    usleep(1000000);
    assert_string_not_equal(stats().replicas[0].state, "up");
    pg_cluster_up(&replica[0]);
    settled(2);
    uint64_t served = stats().replicas[0].served;
    usleep(1000000);
    assert_true(stats().replicas[0].served > served);
    load_stop(&l);
    assert_in_range(l.slowest_us, 0, (CONNECT_MS + TIMEOUT_MS) * 1000);
}

static void a_replica_may_stop(void **state)
{
    (void)state;
    struct load l;
    settled(2);
    load_start(&l, true);
    usleep(300000);
    pg_cluster_freeze(&replica[0], true);
    usleep(2500000);
    assert_string_not_equal(stats().replicas[0].state, "up");
    pg_cluster_freeze(&replica[0], false);
    settled(2);
    load_stop(&l);
    assert_in_range(l.slowest_us, 0, (CONNECT_MS + TIMEOUT_MS) * 1000);
}

/* Until the first replica's state is that, at most 10 s; since when. */
static int64_t turned(const char *state)
{
    int64_t since = now_us();
    while (strcmp(stats().replicas[0].state, state) != 0 && now_us() - since < 10000000)
        usleep(5000);
    assert_string_equal(stats().replicas[0].state, state);
    return now_us() - since;
}

/* Nobody reads meanwhile: only the checks find it. */
static void replicas_are_checked_as_often_as_is_said(void **state)
{
    (void)state;
    struct store *usual = r;
    const struct postgres_replica list[] = {{replica[0].host, NULL, 1}};
    checks = (struct store_checks){
        .interval_us = 300000, .timeout_us = 200000, .healthy_threshold = 3, .unhealthy_threshold = 5};
    r = opened(&primary, list, 1);
    struct store_checks used = stats().checks;
    assert_memory_equal(&used, &checks, sizeof used);
    turned("up");
    pg_cluster_kill(&replica[0]);
    assert_true(turned("down") >= 3 * 300000); /* the first may come at once, and they are due a little early */
    pg_cluster_up(&replica[0]);
    assert_true(turned("up") >= 300000);
    store_close(r);

    checks = (struct store_checks){.interval_us = INT64_C(3600000000), .timeout_us = INT64_C(60000000)};
    r = opened(&primary, list, 1);
    assert_int_equal(stats().checks.timeout_us, 1000000); /* the same thread looks at the primary */
    assert_int_equal(stats().checks.healthy_threshold, 1);
    pg_cluster_kill(&replica[0]);
    usleep(10 * CHECK_MS * 1000);
    assert_string_equal(stats().replicas[0].state, "up"); /* as far as anybody has seen */
    (void)version_now();
    assert_true(stats().replicas[0].failed > 0); /* a read has */
    pg_cluster_up(&replica[0]);
    store_close(r);
    checks = (struct store_checks){0};
    r = usual;
    settled(2);
}

static void without_replicas_the_primary_reads(void **state)
{
    (void)state;
    struct load l;
    settled(2);
    load_start(&l, true);
    usleep(200000);
    pg_cluster_kill(&replica[0]);
    pg_cluster_kill(&replica[1]);
    usleep(500000);
    uint64_t before = stats().primary_reads;
    usleep(500000);
    assert_true(stats().primary_reads > before);
    pg_cluster_up(&replica[0]);
    pg_cluster_up(&replica[1]);
    settled(2);
    load_stop(&l);
}

/* Once the breaker is open: writes fail at once, reads are stale where that is allowed. */
static void degraded(int64_t at_least, int64_t not_before_us)
{
    struct store_user u;
    struct store_tx *tx;
    int64_t end = now_us() + 8000000, spent = 0;
    while (strcmp(stats().primary.state, "closed") == 0 && now_us() < end)
        usleep(10000);
    for (int i = 0; i < 50; i++) {
        int64_t t0 = now_us();
        assert_int_equal(store_tx_begin(r, &tx), PFE_UNAVAILABLE);
        assert_int_equal(store_user_get(r, user.id, &u), PFE_UNAVAILABLE);
        spent += now_us() - t0;

        store_stale(r, STORE_STALE_ALLOW);
        assert_int_equal(store_user_get(r, user.id, &u), PFE_OK);
        int64_t age = store_stale(r, STORE_STALE_END);
        assert_in_range(u.updated_us, at_least, at_least);
        assert_true(age > 0);
        /* what is not there was acknowledged within the age */
        assert_true(now_us() - age <= not_before_us);
        assert_int_equal(store_stale(r, STORE_STALE_LOOK), 0);
        /* not what decides */
        assert_int_equal(store_user_by_name(r, STR("ann"), &u), PFE_UNAVAILABLE);
    }
    assert_in_range(spent, 0, CONNECT_MS * 1000); /* all of them: less than one that would wait for the primary */
}

static void comes_back(int64_t version)
{
    int64_t t0 = now_us();
    while (write_version(version) != PFE_OK)
        assert_true(now_us() - t0 < 20000000);
    while (strcmp(stats().primary.state, "closed") != 0)
        assert_true(now_us() - t0 < 20000000);
    printf("writes again after %lld ms\n", (long long)(now_us() - t0) / 1000);
    store_stale(r, STORE_STALE_ALLOW);
    assert_int_equal(version_now(), version);
    assert_int_equal(store_stale(r, STORE_STALE_END), 0);
    settled(2);
}

static void without_the_primary_reads_are_stale(void **state)
{
    (void)state;
    settled(2);
    assert_int_equal(write_version(1000), PFE_OK);
    settled(2);
    usleep(3 * CHECK_MS * 1000);
    /* The first replica misses 1001, both miss 1002: the second is the one to read from. */
    assert_true(pg_cluster_sql(&replica[0], "SELECT pg_wal_replay_pause()"));
    assert_int_equal(write_version(1001), PFE_OK);
    usleep(3 * CHECK_MS * 1000);
    assert_true(pg_cluster_sql(&replica[1], "SELECT pg_wal_replay_pause()"));
    assert_int_equal(write_version(1002), PFE_OK);
    int64_t missed_us = now_us();
    usleep(3 * CHECK_MS * 1000);
    pg_cluster_kill(&primary);
    degraded(1001, missed_us);
    for (int i = 0; i < 2; i++)
        assert_true(pg_cluster_sql(&replica[i], "SELECT pg_wal_replay_resume()"));
    pg_cluster_up(&primary);
    comes_back(1003);
}

static void a_primary_that_stops_is_as_good_as_gone(void **state)
{
    (void)state;
    settled(2);
    assert_int_equal(write_version(2000), PFE_OK);
    settled(2);
    usleep(3 * CHECK_MS * 1000);
    pg_cluster_freeze(&primary, true);
    degraded(2000, now_us());
    pg_cluster_freeze(&primary, false);
    comes_back(2001);
}

static void a_promoted_replica_is_none(void **state)
{
    (void)state;
    struct load l;
    settled(2);
    load_start(&l, true);
    usleep(200000);
    assert_true(pg_cluster_sql(&replica[0], "SELECT pg_promote()"));
    int64_t end = now_us() + 5000000;
    while (strcmp(stats().replicas[0].state, "up") == 0 && now_us() < end)
        usleep(10000);
    usleep(500000);
    uint64_t served = stats().replicas[0].served;
    usleep(500000);
    assert_int_equal(stats().replicas[0].served, served);
    load_stop(&l);
}

/* What the promoted one acknowledges is not in the other one's history, however far that has come. */
static void a_replica_of_another_history_is_none(void **state)
{
    (void)state;
    store_close(w);
    store_close(r);
    w = opened(&replica[0], NULL, 0);
    r = opened(&replica[0], (struct postgres_replica[]){{replica[1].host, NULL, 1}}, 1);
    for (int i = 0; i < 3; i++) { /* each is 16 MB further on */
        assert_true(pg_cluster_sql(&primary, "CREATE TABLE IF NOT EXISTS junk (i int)"));
        assert_true(pg_cluster_sql(&primary, "INSERT INTO junk VALUES (1)"));
        assert_true(pg_cluster_sql(&primary, "SELECT pg_switch_wal()"));
    }
    for (int64_t v = 5000; v < 5200; v++) {
        assert_int_equal(write_version(v), PFE_OK);
        assert_int_equal(version_now(), v);
        usleep(5000);
    }
    assert_string_equal(stats().replicas[0].state, "down");
    assert_int_equal(stats().replicas[0].served, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_go_by_weight),
        cmocka_unit_test(a_read_is_never_older_than_a_write),
        cmocka_unit_test(a_replica_may_die),
        cmocka_unit_test(a_replica_may_stop),
        cmocka_unit_test(replicas_are_checked_as_often_as_is_said),
        cmocka_unit_test(without_replicas_the_primary_reads),
        cmocka_unit_test(without_the_primary_reads_are_stale),
        cmocka_unit_test(a_primary_that_stops_is_as_good_as_gone),
        cmocka_unit_test(a_promoted_replica_is_none), /* and stays that: the next one goes on from there */
        cmocka_unit_test(a_replica_of_another_history_is_none),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
