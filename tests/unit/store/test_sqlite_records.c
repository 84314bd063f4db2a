/* What only the sqlite engine can get wrong about records: plans, room, memory, the append-only audit. */
#include "contract/records.h"
#include "store/sqlite/internal.h"

static struct sqlite_store *engine(void)
{
    return sqlite_of(box.store);
}

/* ---- plans ---- */

static void call_everything(void)
{
    struct store_user u = sample_user("anna", "anna@example.org"), users[2];
    struct store_apikey k = {.user = 1};
    struct store_session f = {.user = 1};
    struct store_refresh r = {.created_us = 1};
    struct store_schedule d = sample_schedule(1, 1), schedules[2];
    struct store_run run = {.schedule = 1};
    struct store_audit a = {.actor = 1, .action = STR("login"), .entity = STR("user")};
    struct store_idem i = {.key = STR("k")};
    unsigned n;
    int64_t count;
    struct store_tx *tx = tx_begin();
    assert_ok(store_user_insert(tx, &u));
    assert_ok(store_user_update(tx, &u));
    assert_ok(store_apikey_insert(tx, &k));
    assert_ok(store_apikey_touch(tx, 1, 5));
    assert_ok(store_apikey_revoke(tx, 1, 1, 5, NULL));
    assert_ok(store_apikey_revoke(tx, 1, 0, 5, NULL));
    assert_ok(store_session_insert(tx, &f));
    assert_ok(store_session_revoke(tx, 1, f.family, 5));
    assert_ok(store_session_revoke(tx, 1, NULL, 5));
    assert_ok(store_refresh_insert(tx, &r));
    assert_ok(store_refresh_use(tx, r.hash, 5));
    assert_ok(store_schedule_insert(tx, &d));
    assert_ok(store_schedule_update(tx, &d));
    assert_ok(store_run_insert(tx, &run));
    assert_ok(store_audit_append(tx, &a));
    assert_ok(store_idem_put(tx, &i));
    assert_ok(store_tx_commit(tx));

    assert_ok(store_user_get(box.store, 1, &u));
    assert_ok(store_user_by_uuid(box.store, u.uuid, &u));
    assert_ok(store_user_by_name(box.store, STR("anna"), &u));
    assert_ok(store_user_by_email(box.store, STR("anna@example.org"), &u));
    assert_ok(store_user_list(box.store, 0, 0, 2, users, &n));
    assert_ok(store_admin_count(box.store, &count));
    assert_ok(store_apikey_by_hash(box.store, k.hash, &k));
    assert_ok(store_session_get(box.store, f.family, &f));
    assert_ok(store_refresh_get(box.store, r.hash, &r));
    assert_ok(store_schedule_get(box.store, &arena, 1, &d));
    assert_ok(store_schedule_by_uuid(box.store, &arena, d.uuid, &d));
    assert_ok(store_schedule_list(box.store, &arena, 0, 0, 0, 2, schedules, &n));
    assert_ok(store_schedule_list(box.store, &arena, 1, 0, 0, 2, schedules, &n));
    assert_ok(store_schedule_due(box.store, &arena, 1000, 2, schedules, &n, &count));
    assert_ok(store_run_list(box.store, &arena, 1, 1, &run, &n));
    assert_ok(store_idem_get(box.store, &arena, 0, STR("k"), &i));
    static const struct store_audit_query queries[] = {
        {.actor = -1, .limit = 1},
        {.actor = 1, .limit = 1, .action = {"login", 5}, .entity = {"user", 4}},
        {.actor = -1, .limit = 1, .action = {"login", 5}, .entity = {"user", 4}},
        {.actor = -1, .limit = 1, .action = {"login*", 6}, .entity = {"user", 4}},
    };
    for (size_t q = 0; q < COUNT(queries); q++) {
        assert_ok(store_audit_list(box.store, &arena, &queries[q], &a, &n));
        assert_int_equal(n, 1);
    }
}

static bool is_about_records(const char *sql)
{
    static const char *const tables[] = {" user ",     " api_key ",      " session ", " refresh ",
                                         " schedule ", " schedule_run ", " audit ",   " idempotency "};
    for (size_t i = 0; i < COUNT(tables); i++) {
        if (strstr(sql, tables[i]))
            return true;
    }
    return false;
}

/* Fills the filter of names once, when the store opens. */
static const char at_open[] = "SELECT username_fold FROM user WHERE status <> 2";

/* No statement about records that is prepared on db walks a whole table or sorts. Returns how many steps were seen. */
static int assert_plans(sqlite3 *db)
{
    int n = 0;
    for (sqlite3_stmt *st = sqlite3_next_stmt(db, NULL); st; st = sqlite3_next_stmt(db, st)) {
        char sql[2048];
        sqlite3_stmt *plan;
        snprintf(sql, sizeof sql, "EXPLAIN QUERY PLAN %s", sqlite3_sql(st));
        if (sqlite3_stmt_isexplain(st) || !is_about_records(sqlite3_sql(st)) || strcmp(sqlite3_sql(st), at_open) == 0)
            continue;
        assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &plan, NULL), SQLITE_OK);
        while (sqlite3_step(plan) == SQLITE_ROW) {
            const char *line = (const char *)sqlite3_column_text(plan, 3);
            if (strncmp(line, "SCAN ", 5) == 0 || strstr(line, "TEMP B-TREE"))
                fail_msg("%s: %s", sqlite3_sql(st), line);
            n++;
        }
        sqlite3_finalize(plan);
    }
    return n;
}

static bool plan_names(sqlite3 *db, const char *in_sql, const char *index)
{
    bool found = false;
    for (sqlite3_stmt *st = sqlite3_next_stmt(db, NULL); st; st = sqlite3_next_stmt(db, st)) {
        char sql[2048];
        sqlite3_stmt *plan;
        if (!strstr(sqlite3_sql(st), in_sql) || sqlite3_stmt_isexplain(st))
            continue;
        snprintf(sql, sizeof sql, "EXPLAIN QUERY PLAN %s", sqlite3_sql(st));
        assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &plan, NULL), SQLITE_OK);
        while (sqlite3_step(plan) == SQLITE_ROW)
            found |= strstr((const char *)sqlite3_column_text(plan, 3), index) != NULL;
        sqlite3_finalize(plan);
    }
    return found;
}

static void every_statement_has_an_index(void **state)
{
    (void)state;
    call_everything();
    sqlite3 *r = sqlite_reader(engine())->db;
    assert_true(assert_plans(engine()->w.db) >= 8);
    assert_true(assert_plans(r) >= 18);
    assert_true(plan_names(r, "AND actor = ?6 AND (", "audit_actor"));
    assert_true(plan_names(r, "AND action = ?4 AND (", "audit_action"));
    assert_true(plan_names(r, "AND entity = ?7 ORDER", "audit_entity"));
    assert_true(plan_names(r, "next_us <= ?1", "schedule_due"));
    assert_true(plan_names(r, "username_fold = ?1", "user_username"));
    assert_true(plan_names(r, "email_fold = ?1", "user_email"));
}

/* ---- the audit only grows ---- */

static void audit_rows_cannot_be_changed(void **state)
{
    (void)state;
    call_everything();
    static const char *const attempts[] = {
        "UPDATE audit SET outcome = 'ok'",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT id, 0, actor, action, entity, entity_id, outcome, address, request_id,"
        " detail FROM audit",
    };
    for (size_t i = 0; i < COUNT(attempts); i++)
        assert_int_equal(sqlite3_exec(engine()->w.db, attempts[i], NULL, NULL, NULL), SQLITE_CONSTRAINT_TRIGGER);
}

/* ---- no room ---- */

static void set_room(const char *pragma)
{
    assert_int_equal(sqlite3_exec(engine()->w.db, pragma, NULL, NULL, NULL), SQLITE_OK);
}

static void want_of_room_undoes_the_transaction(void **state)
{
    (void)state;
    char big[20000];
    memset(big, 'x', sizeof big);
    add_user("anna", "anna@example.org");
    struct store_info info;
    struct store_user u = sample_user("bob", "bob@example.org"), got;
    struct store_audit a = {.action = STR("a"), .detail = {big, sizeof big}};

    set_room("PRAGMA max_page_count = 1"); /* that is: as large as it is now */
    struct store_tx *full = tx_begin();
    enum pf_err e = store_user_insert(full, &u);
    for (int i = 0; e == PFE_OK && i < 1000; i++)
        e = store_audit_append(full, &a);
    assert_int_equal(e, PFE_DISK_FULL);
    store_tx_rollback(full);
    assert_ok(store_info(box.store, &info));
    assert_false(info.writable);
    assert_false(info.fatal);
    assert_int_equal(store_user_get(box.store, 2, &got), PFE_NOT_FOUND);
    assert_ok(store_user_get(box.store, 1, &got));

    set_room("PRAGMA max_page_count = 1000000");
    assert_ok(IN_TX(store_user_insert(tx, &u)));
    assert_int_equal(u.id, 2);
    assert_ok(IN_TX(store_audit_append(tx, &a)));
    assert_ok(store_info(box.store, &info));
    assert_true(info.writable);
}

/* After SQLite has ended a transaction by itself, nothing may be written one by one and no commit may succeed. */
static void a_transaction_that_sqlite_ended_stays_ended(void **state)
{
    (void)state;
    struct store_user a = sample_user("anna", "anna@example.org"), b = sample_user("bob", "bob@example.org"), got;
    struct store_idem i = {.key = STR("k")}, answer;
    struct store_tx *tx = tx_begin();
    assert_ok(store_user_insert(tx, &a));
    assert_int_equal(sqlite3_exec(engine()->w.db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(store_user_insert(tx, &b), PFE_UNAVAILABLE);
    assert_int_equal(store_idem_put(tx, &i), PFE_UNAVAILABLE);
    assert_int_equal(store_tx_commit(tx), PFE_UNAVAILABLE);
    assert_int_equal(store_user_get(box.store, 1, &got), PFE_NOT_FOUND);
    assert_int_equal(store_idem_get(box.store, &arena, 0, STR("k"), &answer), PFE_NOT_FOUND);
    add_user("anna", "anna@example.org");
}

/* ---- no memory ---- */

static sqlite3_mem_methods real_memory;
static long allocations_left = -1; /* below 0: without end */

static bool allocation_fails(void)
{
    return allocations_left >= 0 && allocations_left-- == 0;
}

static void *failing_malloc(int n)
{
    return allocation_fails() ? NULL : real_memory.xMalloc(n);
}

static void *failing_realloc(void *p, int n)
{
    return allocation_fails() ? NULL : real_memory.xRealloc(p, n);
}

/* The nth allocation of SQLite fails, for every n, in a transaction and the reads after it. */
static void want_of_memory_is_an_error_and_leaves_nothing(void **state)
{
    (void)state;
    int refused = 0;
    bool finished = false;
    for (long n = 0; !finished; n++) {
        assert_true(n < 20000);
        assert_true(engine_reopen(&box));
        char name[32];
        snprintf(name, sizeof name, "user%ld", n);
        struct store_user u = sample_user(name, name), got;
        struct store_schedule d = sample_schedule(1, 0), sched;
        memcpy(u.uuid, &n, sizeof n);
        memcpy(d.uuid, &n, sizeof n);
        struct store_tx *tx;

        allocations_left = n;
        enum pf_err e = store_tx_begin(box.store, &tx);
        if (e == PFE_OK) {
            e = store_user_insert(tx, &u);
            if (e == PFE_OK)
                e = store_schedule_insert(tx, &d);
            if (e == PFE_OK)
                e = store_tx_commit(tx);
            else
                store_tx_rollback(tx);
        }
        enum pf_err r = e == PFE_OK ? store_schedule_by_uuid(box.store, &arena, d.uuid, &sched) : PFE_OK;
        finished = allocations_left >= 0;
        allocations_left = -1;
        refused += e != PFE_OK;

        if (e == PFE_INTERNAL) { /* the commit's outcome is unknown: all or nothing, to be seen after a restart */
            assert_true(engine_reopen(&box));
            enum pf_err user = store_user_by_name(box.store, str_c(name), &got);
            assert_true(user == PFE_OK || user == PFE_NOT_FOUND);
            assert_int_equal(store_schedule_by_uuid(box.store, &arena, d.uuid, &sched), user);
            continue;
        }
        assert_true(e == PFE_OK || e == PFE_NOMEM || e == PFE_UNAVAILABLE);
        assert_true(r == PFE_OK || r == PFE_NOMEM || r == PFE_UNAVAILABLE);
        enum pf_err want = e == PFE_OK ? PFE_OK : PFE_NOT_FOUND;
        assert_int_equal(store_user_by_name(box.store, str_c(name), &got), want);
        assert_int_equal(store_schedule_by_uuid(box.store, &arena, d.uuid, &sched), want);
    }
    assert_true(refused > 20);
}

static int install_failing_memory(void **state)
{
    (void)state;
    sqlite3_mem_methods m;
    records_engine = &engine_list[1];
    if (strcmp(records_engine->name, "sqlite") != 0 || sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory))
        return -1;
    m = real_memory;
    m.xMalloc = failing_malloc;
    m.xRealloc = failing_realloc;
    /* lookaside would hide most allocations */
    return sqlite3_config(SQLITE_CONFIG_MALLOC, &m) || sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0) ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(every_statement_has_an_index),
        CASE(audit_rows_cannot_be_changed),
        CASE(want_of_room_undoes_the_transaction),
        CASE(a_transaction_that_sqlite_ended_stays_ended),
        CASE(want_of_memory_is_an_error_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, install_failing_memory, NULL);
}
