/* The store port's transactions: all or nothing, seen by nobody before the commit, one at a time, and true to the
   bytes. */
#include <pthread.h>

#include "contract/records.h"

/* One of everything, as it must be found or not found afterwards. */
struct everything {
    struct store_user user;
    struct store_apikey key;
    struct store_session session;
    struct store_refresh refresh;
    struct store_schedule schedule;
    struct store_run run;
    struct store_audit audit;
    struct store_idem idem;
};

static struct everything sample_everything(uint8_t tag)
{
    struct everything x = {
        .key = {.user = 1, .prefix = "pf_abcdef"},
        .session = {.user = 1, .expires_us = 1000},
        .refresh = {.expires_us = 1000},
        .schedule = sample_schedule(1, tag),
        .run = {.schedule = tag, .due_us = 1, .outcome = STORE_RUN_DONE},
        .audit = {.ts = 1, .actor = tag, .action = STR("login")},
        .idem = {.principal = tag, .key = STR("key"), .body = STR("body")},
    };
    char name[32];
    snprintf(name, sizeof name, "user%d", tag);
    x.user = sample_user(name, name);
    memset(x.key.hash, tag, sizeof x.key.hash);
    memset(x.session.family, tag, sizeof x.session.family);
    memset(x.refresh.hash, tag, sizeof x.refresh.hash);
    return x;
}

static void insert_everything(struct store_tx *tx, struct everything *x)
{
    assert_ok(store_user_insert(tx, &x->user));
    assert_ok(store_apikey_insert(tx, &x->key));
    assert_ok(store_session_insert(tx, &x->session));
    assert_ok(store_refresh_insert(tx, &x->refresh));
    assert_ok(store_schedule_insert(tx, &x->schedule));
    assert_ok(store_run_insert(tx, &x->run));
    assert_ok(store_audit_append(tx, &x->audit));
    assert_ok(store_idem_put(tx, &x->idem));
}

static void assert_everything(const struct everything *x, enum pf_err want)
{
    struct store_user u;
    struct store_apikey k;
    struct store_session f;
    struct store_refresh r;
    struct store_schedule d;
    struct store_run run;
    struct store_audit a;
    struct store_idem i;
    struct store_audit_query q = {.actor = x->audit.actor, .limit = 1};
    unsigned n, some = want == PFE_OK;
    assert_int_equal(store_user_by_uuid(box.store, x->user.uuid, &u), want);
    assert_int_equal(store_apikey_by_hash(box.store, x->key.hash, &k), want);
    assert_int_equal(store_session_get(box.store, x->session.family, &f), want);
    assert_int_equal(store_refresh_get(box.store, x->refresh.hash, &r), want);
    assert_int_equal(store_schedule_by_uuid(box.store, &arena, x->schedule.uuid, &d), want);
    assert_ok(store_run_list(box.store, &arena, x->run.schedule, 1, &run, &n));
    assert_int_equal(n, some);
    assert_ok(store_audit_list(box.store, &arena, &q, &a, &n));
    assert_int_equal(n, some);
    assert_int_equal(store_idem_get(box.store, &arena, x->idem.principal, x->idem.key, &i), want);
}

static void rollback_leaves_nothing(void **state)
{
    (void)state;
    struct everything x = sample_everything(1), y = sample_everything(2);
    struct store_tx *tx = tx_begin();
    insert_everything(tx, &x);
    assert_everything(&x, PFE_NOT_FOUND);
    store_tx_rollback(tx);
    assert_everything(&x, PFE_NOT_FOUND);

    /* numbers that were not committed are given again */
    tx = tx_begin();
    insert_everything(tx, &y);
    assert_int_equal(y.user.id, 1);
    assert_int_equal(y.key.id, 1);
    assert_int_equal(y.schedule.id, 1);
    assert_int_equal(y.audit.id, 1);
    assert_ok(store_tx_commit(tx));
    assert_everything(&y, PFE_OK);
    assert_everything(&x, PFE_NOT_FOUND);
    tx = tx_begin();
    insert_everything(tx, &x);
    assert_int_equal(x.user.id, 2);
    assert_ok(store_tx_commit(tx));
    assert_everything(&x, PFE_OK);
    assert_everything(&y, PFE_OK);
    store_tx_rollback(NULL);
}

static void change_everything(struct store_tx *tx, const struct everything *x)
{
    struct store_user u = x->user;
    struct store_schedule d = x->schedule;
    int64_t n = 0;
    snprintf(u.username, sizeof u.username, "changed");
    u.status = STORE_USER_DELETED;
    d.status = SCHED_FAILED;
    d.last_error = STR("changed");
    assert_ok(store_user_update(tx, &u));
    assert_ok(store_user_update(tx, &u));
    assert_ok(store_apikey_touch(tx, x->key.id, 77));
    assert_ok(store_apikey_revoke(tx, x->key.user, 0, 77, &n));
    assert_int_equal(n, 1);
    assert_ok(store_session_revoke(tx, 1, NULL, 77));
    assert_ok(store_refresh_use(tx, x->refresh.hash, 77));
    assert_ok(store_schedule_update(tx, &d));
}

static void assert_changed(const struct everything *x, bool changed)
{
    struct store_user u;
    struct store_apikey k;
    struct store_session f;
    struct store_refresh r;
    struct store_schedule d;
    int64_t stamp = changed ? 77 : 0;
    assert_ok(store_user_get(box.store, x->user.id, &u));
    assert_string_equal(u.username, changed ? "changed" : x->user.username);
    assert_ok(store_apikey_by_hash(box.store, x->key.hash, &k));
    assert_int_equal(k.last_used_us, stamp);
    assert_int_equal(k.revoked_us, stamp);
    assert_ok(store_session_get(box.store, x->session.family, &f));
    assert_int_equal(f.revoked_us, stamp);
    assert_ok(store_refresh_get(box.store, x->refresh.hash, &r));
    assert_int_equal(r.used_us, stamp);
    assert_ok(store_schedule_get(box.store, &arena, x->schedule.id, &d));
    assert_str(d.last_error, changed ? "changed" : "insufficient-funds");
}

static void rollback_undoes_changes(void **state)
{
    (void)state;
    struct everything x = sample_everything(1);
    struct store_tx *tx = tx_begin();
    insert_everything(tx, &x);
    assert_ok(store_tx_commit(tx));

    tx = tx_begin();
    change_everything(tx, &x);
    assert_changed(&x, false);
    store_tx_rollback(tx);
    assert_changed(&x, false);

    tx = tx_begin();
    change_everything(tx, &x);
    assert_ok(store_tx_commit(tx));
    assert_changed(&x, true);
}

static void a_transaction_sees_its_own_writes(void **state)
{
    (void)state;
    struct store_user a = sample_user("anna", "a@example.org"), again = sample_user("Anna", "b@example.org");
    struct store_apikey k = {.user = 1};
    struct store_schedule d = sample_schedule(1, 1), got;
    int64_t n;
    struct store_tx *tx = tx_begin();
    assert_ok(store_user_insert(tx, &a));
    assert_int_equal(store_user_insert(tx, &again), PFE_DUP_USERNAME);
    a.status = STORE_USER_DELETED;
    assert_ok(store_user_update(tx, &a));
    assert_ok(store_user_insert(tx, &again));
    assert_ok(store_apikey_insert(tx, &k));
    assert_ok(store_apikey_touch(tx, k.id, 5));
    assert_ok(store_apikey_revoke(tx, 1, k.id, 6, &n));
    assert_int_equal(n, 1);
    assert_ok(store_schedule_insert(tx, &d));
    d.runs = 9;
    assert_ok(store_schedule_update(tx, &d));
    d.last_error = STR("twice");
    assert_ok(store_schedule_update(tx, &d));
    assert_ok(store_tx_commit(tx));
    assert_ok(store_apikey_by_hash(box.store, k.hash, &k));
    assert_int_equal(k.last_used_us, 5);
    assert_int_equal(k.revoked_us, 6);
    assert_ok(store_schedule_get(box.store, &arena, d.id, &got));
    assert_schedule(&got, &d);
}

static void an_empty_transaction_is_fine(void **state)
{
    (void)state;
    assert_ok(store_tx_commit(tx_begin()));
    store_tx_rollback(tx_begin());
    add_user("anna", "anna@example.org");
}

struct reader {
    const struct everything *x;
    enum pf_err user, schedule, idem;
    unsigned n_users;
};

static void *read_beside(void *ctx)
{
    struct reader *r = ctx;
    struct store_user u, list[4];
    struct store_schedule d;
    struct store_idem i;
    struct arena a;
    arena_init(&a, NULL, 0, 1u << 16);
    r->user = store_user_by_uuid(box.store, r->x->user.uuid, &u);
    r->schedule = store_schedule_by_uuid(box.store, &a, r->x->schedule.uuid, &d);
    r->idem = store_idem_get(box.store, &a, r->x->idem.principal, r->x->idem.key, &i);
    if (store_user_list(box.store, 0, 0, 4, list, &r->n_users) != PFE_OK)
        r->n_users = 99;
    arena_reset(&a);
    return NULL;
}

static struct reader read_in_another_thread(const struct everything *x)
{
    struct reader r = {.x = x};
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, read_beside, &r), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
    return r;
}

static void readers_beside_a_transaction_see_committed_rows_only(void **state)
{
    (void)state;
    add_user("anna", "anna@example.org");
    struct everything x = sample_everything(2);
    struct store_tx *tx = tx_begin();
    insert_everything(tx, &x);
    struct reader r = read_in_another_thread(&x);
    assert_int_equal(r.user, PFE_NOT_FOUND);
    assert_int_equal(r.schedule, PFE_NOT_FOUND);
    assert_int_equal(r.idem, PFE_NOT_FOUND);
    assert_int_equal(r.n_users, 1);
    assert_everything(&x, PFE_NOT_FOUND);
    assert_ok(store_tx_commit(tx));
    assert_everything(&x, PFE_OK);
    r = read_in_another_thread(&x);
    assert_int_equal(r.user, PFE_OK);
    assert_int_equal(r.schedule, PFE_OK);
    assert_int_equal(r.idem, PFE_OK);
    assert_int_equal(r.n_users, 2);
}

enum { ROUNDS = 60 };

struct writer {
    int id;
    int failed;
};

/* Adds one to a user's counter and inserts a user of its own, in one transaction; every third is rolled back. */
static void *write_beside(void *ctx)
{
    struct writer *w = ctx;
    for (int i = 0; i < ROUNDS; i++) {
        struct store_tx *tx;
        struct store_user counter, u = {.created_us = 1};
        if (store_tx_begin(box.store, &tx) != PFE_OK) {
            w->failed++;
            continue;
        }
        bool ok = store_user_get(box.store, 1, &counter) == PFE_OK;
        counter.updated_us++;
        snprintf(u.username, sizeof u.username, "w%d-%d", w->id, i);
        snprintf(u.email, sizeof u.email, "w%d-%d@example.org", w->id, i);
        u.uuid[0] = (uint8_t)(100 + w->id);
        u.uuid[1] = (uint8_t)i;
        ok = ok && store_user_update(tx, &counter) == PFE_OK && store_user_insert(tx, &u) == PFE_OK;
        if (i % 3 == 2)
            store_tx_rollback(tx);
        else
            ok = store_tx_commit(tx) == PFE_OK && ok;
        w->failed += !ok;
    }
    return NULL;
}

static void transactions_of_two_threads_do_not_mix(void **state)
{
    (void)state;
    struct store_user counter = sample_user("counter", "counter@example.org"), u;
    counter.updated_us = 0;
    assert_ok(IN_TX(store_user_insert(tx, &counter)));
    struct writer w[2] = {{.id = 0}, {.id = 1}};
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, write_beside, &w[i]), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(t[i], NULL), 0);
        assert_int_equal(w[i].failed, 0);
    }
    int64_t committed = 2 * (ROUNDS - ROUNDS / 3);
    assert_ok(store_user_get(box.store, 1, &u));
    assert_int_equal(u.updated_us, committed);
    for (int64_t id = 2; id <= committed + 1; id++)
        assert_ok(store_user_get(box.store, id, &u));
    assert_int_equal(store_user_get(box.store, committed + 2, &u), PFE_NOT_FOUND);
    assert_ok(store_user_by_name(box.store, STR("w0-0"), &u));
    assert_ok(store_user_by_name(box.store, STR("w1-58"), &u));
    assert_int_equal(store_user_by_name(box.store, STR("w1-2"), &u), PFE_NOT_FOUND);
}

/* Whatever the bytes, they are data: stored and found unchanged, and nothing else happens. */
static const char *const hostile[] = {
    "'",
    "\"",
    "';--",
    "'; DROP TABLE user; --",
    "x' OR '1'='1",
    "\\",
    "\\'",
    "%",
    "_",
    "?1",
    "$1",
    ":name",
    "*",
    "a\r\nb\tc\x01\x7f",
    "\xc3\xa9\xc3\x89\xe2\x82\xac\xf0\x9f\x92\xb6",
    "\xef\xbf\xbf\xef\xbb\xbf",
    "{\"a\":[1,null]}",
    "NULL",
    "0x41",
    "1e3",
    "  spaces  ",
};

static void hostile_strings_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(hostile); i++) {
        struct str s = str_c(hostile[i]);
        struct store_user u = sample_user(hostile[i], hostile[i]), got;
        struct store_schedule d = sample_schedule(1, (uint8_t)i), sched;
        struct store_run r = {(int64_t)i + 1, 1, STORE_RUN_REFUSED, 0, 1, s}, run;
        struct store_audit a = {.actor = (int64_t)i,
                                .action = s,
                                .entity = s,
                                .entity_id = s,
                                .outcome = s,
                                .address = s,
                                .request_id = s,
                                .detail = s},
                           line;
        struct store_idem idem = {.principal = 1, .key = s, .body = s}, answer;
        struct store_audit_query q = {.actor = -1, .action = s, .entity = s, .limit = 1};
        unsigned n;
        snprintf(u.password_hash, sizeof u.password_hash, "%s", hostile[i]);
        d.description = d.recurrence = d.last_error = s;

        struct store_tx *tx = tx_begin();
        assert_ok(store_user_insert(tx, &u));
        assert_ok(store_schedule_insert(tx, &d));
        assert_ok(store_run_insert(tx, &r));
        assert_ok(store_audit_append(tx, &a));
        assert_ok(store_idem_put(tx, &idem));
        assert_ok(store_tx_commit(tx));

        assert_ok(store_user_by_name(box.store, s, &got));
        assert_user(&got, &u);
        assert_ok(store_user_by_email(box.store, s, &got));
        assert_user(&got, &u);
        assert_ok(store_schedule_get(box.store, &arena, d.id, &sched));
        assert_schedule(&sched, &d);
        assert_ok(store_run_list(box.store, &arena, r.schedule, 1, &run, &n));
        assert_int_equal(n, 1);
        assert_true(str_eq(run.error, s));
        assert_ok(store_audit_list(box.store, &arena, &q, &line, &n));
        assert_int_equal(n, 1);
        assert_int_equal(line.id, a.id);
        assert_true(str_eq(line.action, s));
        assert_true(str_eq(line.entity, s));
        assert_true(str_eq(line.detail, s));
        assert_ok(store_idem_get(box.store, &arena, 1, s, &answer));
        assert_true(str_eq(answer.key, s));
        assert_true(str_eq(answer.body, s));
    }
}

static void long_strings_and_binary_answers_round_trip(void **state)
{
    (void)state;
    enum { LONG = 200000 };
    char *p = malloc(LONG);
    assert_non_null(p);
    for (size_t i = 0; i + 1 < LONG; i += 2)
        memcpy(p + i, "\xc3\xa9", 2);
    struct str s = {p, LONG};
    struct store_user u = sample_user("", ""), got;
    memset(u.username, 'x', IDENT_USERNAME_MAX);
    memset(u.email, 'y', IDENT_EMAIL_MAX);
    u.username[IDENT_USERNAME_MAX] = u.email[IDENT_EMAIL_MAX] = '\0';
    memset(u.password_hash, 'h', sizeof u.password_hash - 1);
    struct store_schedule d = sample_schedule(1, 1), sched;
    d.description = s;
    char all[256];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)i;
    struct store_idem i = {.principal = 1, .key = {p, 255}, .body = {all, sizeof all}}, answer;

    struct store_tx *tx = tx_begin();
    assert_ok(store_user_insert(tx, &u));
    assert_ok(store_schedule_insert(tx, &d));
    assert_ok(store_idem_put(tx, &i));
    assert_ok(store_tx_commit(tx));
    assert_ok(store_user_by_name(box.store, str_c(u.username), &got));
    assert_user(&got, &u);
    assert_ok(store_user_by_email(box.store, str_c(u.email), &got));
    assert_user(&got, &u);
    assert_ok(store_schedule_get(box.store, &arena, 1, &sched));
    assert_schedule(&sched, &d);
    assert_ok(store_idem_get(box.store, &arena, 1, i.key, &answer));
    assert_true(str_eq(answer.key, i.key));
    assert_true(str_eq(answer.body, i.body));
    free(p);
}

static void commits_survive_a_restart(void **state)
{
    (void)state;
    if (!box.engine->durable)
        skip();
    struct everything x = sample_everything(1), y = sample_everything(2);
    struct store_tx *tx = tx_begin();
    insert_everything(tx, &x);
    assert_ok(store_tx_commit(tx));
    tx = tx_begin();
    insert_everything(tx, &y);
    store_tx_rollback(tx);
    assert_true(engine_reopen(&box));
    assert_everything(&x, PFE_OK);
    assert_everything(&y, PFE_NOT_FOUND);
    tx = tx_begin();
    insert_everything(tx, &y);
    assert_int_equal(y.user.id, 2);
    assert_int_equal(y.audit.id, 2);
    assert_ok(store_tx_commit(tx));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(rollback_leaves_nothing),
        CASE(rollback_undoes_changes),
        CASE(a_transaction_sees_its_own_writes),
        CASE(an_empty_transaction_is_fine),
        CASE(readers_beside_a_transaction_see_committed_rows_only),
        CASE(transactions_of_two_threads_do_not_mix),
        CASE(hostile_strings_round_trip),
        CASE(long_strings_and_binary_answers_round_trip),
        CASE(commits_survive_a_restart),
    };
    return records_run(tests, COUNT(tests));
}
