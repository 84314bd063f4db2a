/*
 * A promotion that a store sees: the primary hangs, its replica takes over, and then the former primary wakes up, which
 * still takes writes. No connection that was made to it before is used again, and nothing that ended there is told as
 * done.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/postgres/internal.h"
#include "support/pg_cluster.h"

enum { CONNECT_MS = 500, TIMEOUT_MS = 1000, COMMIT_MS = 8000 };

static struct pg_cluster primary, replica;

static int64_t now_ms(void)
{
    return clock_mono(clock_system()) / 1000;
}

static struct store *opened_by(unsigned start_ms)
{
    char hosts[192], why[256];
    snprintf(hosts, sizeof hosts, "%s,%s", primary.host, replica.host);
    struct postgres_options o = {.hosts = hosts,
                                 .user = "payflow",
                                 .password = PG_CLUSTER_PASSWORD,
                                 .dbname = "payflow",
                                 .connect_ms = CONNECT_MS,
                                 .timeout_ms = TIMEOUT_MS,
                                 .commit_ms = COMMIT_MS,
                                 .start_ms = start_ms};
    struct store *s = NULL;
    if (store_postgres_open(&o, &s, why) != PFE_OK)
        fail_msg("%s", why);
    return s;
}

static struct store *opened(void)
{
    return opened_by(0);
}

static enum pf_err begin_user(struct store *s, const char *name, struct store_tx **ret)
{
    struct store_user u = {.role = IDENT_USER, .created_us = 1};
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(s, &tx);
    if (e)
        return e;
    snprintf((char *)u.uuid, sizeof u.uuid, "%s", name);
    snprintf(u.username, sizeof u.username, "%s", name);
    snprintf(u.email, sizeof u.email, "%s@example.org", name);
    strcpy(u.password_hash, "x");
    e = store_user_insert(tx, &u);
    if (e)
        store_tx_rollback(tx);
    else
        *ret = tx;
    return e;
}

static enum pf_err add(struct store *s, const char *name)
{
    struct store_tx *tx;
    enum pf_err e = begin_user(s, name, &tx);
    return e ? e : store_tx_commit(tx);
}

static enum pf_err read_user(struct store *s, const char *name)
{
    struct store_user u;
    return store_user_by_name(s, str_c(name), &u);
}

static bool added_in_time(struct store *s, const char *name)
{
    int64_t end = now_ms() + 20000;
    enum pf_err e;
    bool unknown = false; /* whether a try before has done it */
    while ((e = add(s, name)) != PFE_OK && !(unknown && e == PFE_DUP_USERNAME) && now_ms() < end) {
        unknown |= e == PFE_INTERNAL;
        usleep(20000);
    }
    return e == PFE_OK || (unknown && e == PFE_DUP_USERNAME);
}

static void what_was_connected_before_is_not_used_again(void **state)
{
    enum { N = 4 };
    (void)state;
    struct store *s = opened();
    struct postgres_store *p = pg_of(s);
    struct pg_conn *c[N];
    assert_int_equal(add(s, "ann"), PFE_OK);
    for (int i = 0; i < N; i++)
        assert_non_null(c[i] = pg_take(p, PG_READ));
    for (int i = 0; i < N; i++) {
        assert_int_equal(c[i]->timeline, 1);
        pg_give(c[i]);
    }
    assert_non_null(pg_writer(p));

    assert_true(pg_cluster_followed(&primary));
    pg_cluster_freeze(&primary, true);
    assert_true(pg_cluster_sql(&replica, "SELECT pg_promote(true, 30)"));
    assert_true(added_in_time(s, "bob"));
    pg_cluster_freeze(&primary, false); /* those that nobody has used meanwhile are as good as ever */

    for (int i = 0; i < N; i++) {
        assert_non_null(c[i] = pg_take(p, PG_READ));
        assert_int_equal(c[i]->timeline, 2);
    }
    for (int i = 0; i < N; i++)
        pg_give(c[i]);
    struct pg_conn *w = pg_writer(p);
    assert_non_null(w);
    assert_int_equal(w->timeline, 2);
    for (int i = 0; i < 2 * N; i++)
        assert_int_equal(read_user(s, "bob"), PFE_OK);
    store_close(s);
}

/* Nothing of it was on the disk, and another transaction is given its number. */
static void a_transaction_lost_in_a_crash_is_not_told_as_done(void **state)
{
    (void)state;
    struct store *s = opened();
    struct store_tx *tx;
    assert_int_equal(add(s, "ann"), PFE_OK);
    assert_int_equal(begin_user(s, "bob", &tx), PFE_OK);
    pg_cluster_kill(&primary);
    pg_cluster_up(&primary);
    for (int i = 0; i < 4; i++)
        assert_true(pg_cluster_sql(&primary, "SELECT pg_current_xact_id()"));
    assert_int_equal(store_tx_commit(tx), PFE_UNAVAILABLE);
    assert_int_equal(read_user(s, "bob"), PFE_NOT_FOUND);
    assert_int_equal(read_user(s, "ann"), PFE_OK);
    store_close(s);
}

static void *promote(void *ctx)
{
    (void)ctx;
    return pg_cluster_sql(&replica, "SELECT pg_promote(true, 30)") ? &replica : NULL;
}

static void a_promotion_settles_what_it_lost(void **state)
{
    (void)state;
    struct store *s = opened();
    struct store_tx *tx;
    pthread_t t;
    void *promoted;
    assert_int_equal(add(s, "ann"), PFE_OK);
    assert_int_equal(begin_user(s, "bob", &tx), PFE_OK);
    assert_true(pg_cluster_followed(&primary));
    pg_cluster_freeze(&primary, true); /* for good: the COMMIT is sent there and never read */
    assert_int_equal(pthread_create(&t, NULL, promote, NULL), 0);
    enum pf_err e = store_tx_commit(tx);
    pthread_join(t, &promoted);
    assert_non_null(promoted);
    assert_int_equal(e, PFE_UNAVAILABLE);
    assert_int_equal(read_user(s, "bob"), PFE_NOT_FOUND);
    assert_int_equal(add(s, "bob"), PFE_OK);
    store_close(s);
    pg_cluster_freeze(&primary, false);
}

/* The old one is back and takes writes; the new one is slow to say that it is there. An instance that has slept through
   all of it asks the old one first. */
static void silence_is_no_consent(void **state)
{
    (void)state;
    struct store *s = opened_by(60000);
    assert_int_equal(add(s, "ann"), PFE_OK);
    assert_true(pg_cluster_followed(&primary));
    pg_cluster_kill(&primary);
    assert_true(pg_cluster_sql(&replica, "SELECT pg_promote(true, 30)"));
    pg_cluster_up(&primary);
    pg_cluster_freeze(&replica, true);
    for (int64_t end = now_ms() + 1500; now_ms() < end; usleep(20000))
        assert_int_equal(add(s, "bob"), PFE_UNAVAILABLE);
    pg_cluster_freeze(&replica, false);
    assert_true(added_in_time(s, "bob"));
    assert_true(pg_cluster_sql(&primary, "SELECT 1 / (count(*) = 0)::int FROM users WHERE username = 'bob'"));
    assert_true(pg_cluster_sql(&replica, "SELECT 1 / count(*) FROM users WHERE username = 'bob'"));
    store_close(s);
}

/* Who never answers does not keep everybody out. */
static void silence_does_not_count_for_ever(void **state)
{
    (void)state;
    struct store *s = opened_by(60000);
    assert_int_equal(add(s, "ann"), PFE_OK);
    pg_cluster_freeze(&replica, true);
    pg_cluster_kill(&primary);
    pg_cluster_up(&primary);
    assert_true(added_in_time(s, "bob"));
    pg_cluster_freeze(&replica, false);
    store_close(s);
}

static int set_up(void **state)
{
    (void)state;
    pg_cluster_start(&primary, 0);
    pg_cluster_replica(&replica, &primary);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pg_cluster_stop(&replica);
    pg_cluster_stop(&primary);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_connected_before_is_not_used_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_transaction_lost_in_a_crash_is_not_told_as_done, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_promotion_settles_what_it_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(silence_is_no_consent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(silence_does_not_count_for_ever, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
