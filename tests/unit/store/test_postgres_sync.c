/*
 * A primary that waits for one of two synchronous replicas: while none is there commits end in "unknown" in time and
 * later ones fail at once, reads go on; with one back all goes on by itself. What a commit left behind that was cut off
 * is not acknowledged before a replica has it, so that a promotion does not lose it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/postgres/internal.h"
#include "support/pg_cluster.h"

enum { TIMEOUT_MS = 4000, COMMIT_MS = 1500, CHECK_MS = 100, SLACK_MS = 2000 /* less than TIMEOUT_MS all together */ };

static struct pg_cluster primary, replica[2];
static unsigned serial;

static int64_t now_ms(void)
{
    return clock_mono(clock_system()) / 1000;
}

static struct store *opened(const struct pg_cluster *on)
{
    struct postgres_options o = {.url = pg_cluster_url(on),
                                 .timeout_ms = TIMEOUT_MS,
                                 .commit_ms = COMMIT_MS,
                                 .check_ms = CHECK_MS,
                                 .guard = true};
    struct store *s = NULL;
    char why[256];
    if (store_postgres_open(&o, &s, why) != PFE_OK)
        fail_msg("%s", why);
    return s;
}

/* A user with an answer under a key of the same name. */
static enum pf_err add(struct store *s, const char *name)
{
    struct store_user u = {.role = IDENT_USER, .created_us = 1};
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(s, &tx);
    if (e)
        return e;
    snprintf((char *)u.uuid, sizeof u.uuid, "%u", ++serial);
    snprintf(u.username, sizeof u.username, "%s", name);
    snprintf(u.email, sizeof u.email, "%s@example.org", name);
    strcpy(u.password_hash, "x");
    e = store_user_insert(tx, &u);
    struct store_idem i = {.key = str_c(name), .status = 201, .body = STR("{}")};
    if (e == PFE_OK)
        e = store_idem_put(tx, &i);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

static enum pf_err answer_of(struct store *s, const char *name)
{
    struct arena a;
    struct store_idem i;
    arena_init(&a, NULL, 0, 1 << 16);
    enum pf_err e = store_idem_get(s, &a, 0, str_c(name), &i);
    arena_reset(&a);
    return e;
}

static enum pf_err read_user(struct store *s, const char *name)
{
    struct store_user u;
    return store_user_by_name(s, str_c(name), &u);
}

static void works_within(struct store *s, const char *name, int64_t ms)
{
    int64_t end = now_ms() + ms;
    enum pf_err e;
    bool unknown = false; /* whether a try before has done it */
    while ((e = add(s, name)) != PFE_OK && !(unknown && e == PFE_DUP_USERNAME) && now_ms() < end) {
        unknown |= e == PFE_INTERNAL;
        usleep(20000);
    }
    assert_true(e == PFE_OK || (unknown && e == PFE_DUP_USERNAME));
}

/* Fails at once, now that the stall is known. */
static void refused_at_once(struct store *s)
{
    int64_t end = now_ms() + 5000, t0;
    enum pf_err e;
    while (!pg_stalled(pg_of(s)) && now_ms() < end)
        usleep(10000);
    assert_true(pg_stalled(pg_of(s)));
    t0 = now_ms();
    e = add(s, "refused");
    assert_int_equal(e, PFE_UNAVAILABLE);
    assert_in_range(now_ms() - t0, 0, COMMIT_MS - 300);
}

static void freeze(bool on)
{
    for (int i = 0; i < 2; i++)
        pg_cluster_freeze(&replica[i], on);
}

static bool superuser(const char *sql)
{
    return pg_cluster_sql(&primary, sql);
}

static void commits_have_a_deadline(void **state)
{
    (void)state;
    struct store *s = opened(&primary), *other = opened(&primary);
    assert_int_equal(add(s, "ann"), PFE_OK);
    freeze(true);
    int64_t t0 = now_ms();
    assert_int_equal(add(s, "bob"), PFE_INTERNAL);
    assert_in_range(now_ms() - t0, COMMIT_MS - 100, COMMIT_MS + SLACK_MS);
    refused_at_once(s);
    refused_at_once(other); /* whose commit it is does not matter */
    for (int i = 0; i < 5; i++)
        assert_int_equal(read_user(s, "ann"), PFE_OK);
    struct store_cluster x;
    assert_true(store_cluster(s, &x));
    assert_string_equal(x.primary.state, "closed");
    freeze(false);
    works_within(s, "cid", 10000);
    works_within(other, "dan", 10000);
    assert_int_equal(answer_of(s, "bob"), PFE_OK); /* it was not cancelled */
    store_close(s);
    store_close(other);
}

static void killed_replicas_are_the_same(void **state)
{
    (void)state;
    struct store *s = opened(&primary);
    for (int i = 0; i < 2; i++)
        pg_cluster_kill(&replica[i]);
    assert_int_equal(add(s, "eve"), PFE_INTERNAL);
    refused_at_once(s);
    pg_cluster_up(&replica[0]);
    works_within(s, "fay", 10000);
    assert_int_equal(answer_of(s, "eve"), PFE_OK);
    pg_cluster_up(&replica[1]);
    store_close(s);
}

#define WAITING "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

static void what_was_cut_off_is_not_acknowledged(void **state)
{
    (void)state;
    struct store *s = opened(&primary);
    freeze(true);
    assert_int_equal(add(s, "gil"), PFE_INTERNAL);
    assert_true(superuser("SELECT pg_terminate_backend(pid) " WAITING));
    int64_t end = now_ms() + 5000;
    while (read_user(s, "gil") != PFE_OK && now_ms() < end) /* visible, and on no replica */
        usleep(20000);
    assert_int_equal(read_user(s, "gil"), PFE_OK);
    assert_int_not_equal(answer_of(s, "gil"), PFE_OK);
    freeze(false);
    end = now_ms() + 5000;
    enum pf_err e;
    while ((e = answer_of(s, "gil")) != PFE_OK && now_ms() < end)
        usleep(20000);
    assert_int_equal(e, PFE_OK);
    store_close(s);
}

/* A group that changes nothing because all of it was done before: it acknowledges that all the same. */
static void what_was_done_before_is_not_acknowledged_alone(void **state)
{
    (void)state;
    struct store *s = opened(&primary);
    int64_t booking = 1;
    struct store_booking_slot slot;
    const struct store_group_ask ask = {.bookings = &booking, .n_bookings = 1};
    struct store_group g = {.bookings = &slot};
    const struct store_commit nothing = {.ts = 1, .bookings = &slot, .n_bookings = 1};
    assert_int_equal(store_group_begin(s, &ask, &g), PFE_OK);
    freeze(true);
    assert_int_equal(store_group_commit(s, &nothing), PFE_INTERNAL);
    freeze(false);
    works_within(s, "gus", 10000);
    assert_int_equal(store_group_begin(s, &ask, &g), PFE_OK);
    assert_int_equal(store_group_commit(s, &nothing), PFE_OK);
    store_close(s);
}

static enum pf_err outbox(struct store *s, unsigned *ret_n)
{
    struct arena a;
    struct store_message m[4];
    arena_init(&a, NULL, 0, 1 << 16);
    *ret_n = 0;
    enum pf_err e = store_outbox_list(s, &a, 0, 4, m, ret_n);
    arena_reset(&a);
    return e;
}

/* Whoever is told of something that a promotion then loses has been told wrong. */
static void messages_are_not_given_out_before_a_replica_has_them(void **state)
{
    (void)state;
    struct store *s = opened(&primary);
    struct store_message m = {.uuid = {1}, .type = STR("BookingCreated"), .payload = STR("{}")};
    const struct store_group_ask ask = {.n_keys = 0};
    struct store_group g = {.slots = NULL};
    unsigned n;
    assert_int_equal(store_group_begin(s, &ask, &g), PFE_OK);
    freeze(true);
    assert_int_equal(store_group_commit(s, &(struct store_commit){.ts = 1, .outbox = &m, .n_outbox = 1}), PFE_INTERNAL);
    assert_true(superuser("SELECT pg_terminate_backend(pid) " WAITING));
    int64_t end = now_ms() + 5000;
    enum pf_err e;
    while ((e = outbox(s, &n)) == PFE_OK && n == 0 && now_ms() < end) /* it becomes visible */
        usleep(20000);
    assert_int_equal(e, PFE_UNAVAILABLE);
    assert_int_equal(n, 0);
    freeze(false);
    end = now_ms() + 5000;
    while ((e = outbox(s, &n)) != PFE_OK && now_ms() < end)
        usleep(20000);
    assert_int_equal(e, PFE_OK);
    assert_int_equal(n, 1);
    store_close(s);
}

/* The server answers COMMIT then, and only remarks that no replica has it: also to a role that wants to hear nothing.
 */
static void a_cancelled_wait_is_no_commit(void **state)
{
    (void)state;
    assert_true(superuser("ALTER ROLE payflow SET client_min_messages = 'error'"));
    struct store *s = opened(&primary);
    PGconn *pg;
    char at[128];
    snprintf(at, sizeof at, "host=%s user=postgres dbname=payflow", primary.dir);
    pg = PQconnectdb(at);
    assert_int_equal(PQstatus(pg), CONNECTION_OK);
    assert_int_equal(PQsendQuery(pg, "DO $$ BEGIN FOR i IN 1..500 LOOP PERFORM pg_cancel_backend(pid) " WAITING
                                     "; PERFORM pg_sleep(0.01); PERFORM pg_stat_clear_snapshot(); END LOOP; END $$"),
                     1);
    freeze(true);
    assert_int_equal(add(s, "hal"), PFE_INTERNAL);
    freeze(false);
    PQfinish(pg);
    works_within(s, "ida", 10000);
    assert_int_equal(answer_of(s, "hal"), PFE_OK);
    assert_true(superuser("ALTER ROLE payflow RESET client_min_messages"));
    store_close(s);
}

/* Last: the primary is not the same afterwards. */
static void a_promotion_keeps_what_was_acknowledged(void **state)
{
    (void)state;
    struct store *s = opened(&primary);
    freeze(true);
    assert_int_equal(add(s, "jan"), PFE_INTERNAL);
    pg_cluster_kill(&primary); /* as it comes back, it shows what it has written */
    pg_cluster_up(&primary);
    int64_t end = now_ms() + 8000;
    while (read_user(s, "jan") != PFE_OK && now_ms() < end)
        usleep(20000);
    assert_int_equal(read_user(s, "jan"), PFE_OK);
    assert_int_not_equal(answer_of(s, "jan"), PFE_OK);
    pg_cluster_freeze(&replica[0], false); /* the other one never gets it */
    end = now_ms() + 20000;
    enum pf_err e;
    while ((e = answer_of(s, "jan")) != PFE_OK && now_ms() < end)
        usleep(20000);
    assert_int_equal(e, PFE_OK);
    pg_cluster_kill(&primary);
    store_close(s);
    assert_true(pg_cluster_sql(&replica[0], "SELECT pg_promote(true, 30)"));
    s = opened(&replica[0]);
    assert_int_equal(read_user(s, "jan"), PFE_OK);
    store_close(s);
    freeze(false);
}

static int set_up(void **state)
{
    (void)state;
    pg_cluster_start(&primary, 0);
    for (int i = 0; i < 2; i++)
        pg_cluster_replica(&replica[i], &primary);
    /* those that are promoted wait for nobody: there is nobody left */
    assert_true(superuser("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'"));
    assert_true(superuser("SELECT pg_reload_conf()"));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        pg_cluster_stop(&replica[i]);
    pg_cluster_stop(&primary);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commits_have_a_deadline),
        cmocka_unit_test(killed_replicas_are_the_same),
        cmocka_unit_test(what_was_cut_off_is_not_acknowledged),
        cmocka_unit_test(what_was_done_before_is_not_acknowledged_alone),
        cmocka_unit_test(messages_are_not_given_out_before_a_replica_has_them),
        cmocka_unit_test(a_cancelled_wait_is_no_commit),
        cmocka_unit_test(a_promotion_keeps_what_was_acknowledged),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
