/* The store port's records, other half: schedules, runs, audit, idempotency outside groups. */
#include "contract/records.h"

/* ---- schedules ---- */

static void schedule_is_found_by_id_and_uuid(void **state)
{
    (void)state;
    struct store_schedule a = sample_schedule(3, 1), b = sample_schedule(4, 2), got = {.id = 55};
    b.description = b.recurrence = b.last_error = STR_NONE;
    b.end_us = b.max_runs = b.next_us = 0;
    assert_ok(IN_TX(store_schedule_insert(tx, &a)));
    assert_ok(IN_TX(store_schedule_insert(tx, &b)));
    assert_int_equal(a.id, 1);
    assert_int_equal(b.id, 2);
    assert_ok(store_schedule_get(box.store, &arena, 1, &got));
    assert_schedule(&got, &a);
    assert_ok(store_schedule_by_uuid(box.store, &arena, b.uuid, &got));
    assert_schedule(&got, &b);

    struct store_schedule other = sample_schedule(3, 9);
    assert_int_equal(store_schedule_by_uuid(box.store, &arena, other.uuid, &got), PFE_NOT_FOUND);
    assert_int_equal(store_schedule_get(box.store, &arena, 3, &got), PFE_NOT_FOUND);
    assert_int_equal(store_schedule_get(box.store, &arena, 0, &got), PFE_NOT_FOUND);
    assert_schedule(&got, &b);
    assert_int_equal(IN_TX(store_schedule_insert(tx, &b)), PFE_WRONG_STATE);
}

static void schedule_update_moves_only_its_progress(void **state)
{
    (void)state;
    struct store_schedule a = sample_schedule(3, 1), got;
    assert_ok(IN_TX(store_schedule_insert(tx, &a)));
    struct store_schedule want = a;
    want.next_us = 0;
    want.last_us = 201;
    want.runs = 7;
    want.refusals = 0;
    want.status = SCHED_COMPLETED;
    want.last_error = STR_NONE;
    want.updated_us = 202;
    struct store_schedule given = sample_schedule(9, 9);
    given.id = a.id;
    given.kind = LEDGER_DEPOSIT;
    given.to_user = given.amount = given.anchor_us = given.end_us = given.max_runs = given.created_us = 1;
    given.currency = 978;
    given.description = given.recurrence = STR("other");
    given.next_us = want.next_us;
    given.last_us = want.last_us;
    given.runs = want.runs;
    given.refusals = want.refusals;
    given.status = want.status;
    given.last_error = want.last_error;
    given.updated_us = want.updated_us;
    assert_ok(IN_TX(store_schedule_update(tx, &given)));
    assert_ok(store_schedule_get(box.store, &arena, a.id, &got));
    assert_schedule(&got, &want);
    given.id = 2;
    assert_int_equal(IN_TX(store_schedule_update(tx, &given)), PFE_NOT_FOUND);
}

static void assert_schedule_ids(int64_t owner, int64_t before, int64_t offset, unsigned limit, const char *want)
{
    struct store_schedule out[8];
    char got[32] = "";
    unsigned n = 99;
    assert_ok(store_schedule_list(box.store, &arena, owner, before, offset, limit, out, &n));
    assert_true(n <= limit);
    for (unsigned i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%d ", (int)out[i].id);
    assert_string_equal(got, want);
}

static void schedules_are_listed_newest_first(void **state)
{
    (void)state;
    assert_schedule_ids(0, 0, 0, 8, "");
    for (uint8_t i = 1; i <= 6; i++) {
        struct store_schedule d = sample_schedule(i % 2 ? 3 : 4, i);
        assert_ok(IN_TX(store_schedule_insert(tx, &d)));
    }
    assert_schedule_ids(0, 0, 0, 8, "6 5 4 3 2 1 ");
    assert_schedule_ids(3, 0, 0, 8, "5 3 1 ");
    assert_schedule_ids(4, 6, 1, 8, "2 ");
    assert_schedule_ids(0, 5, 1, 2, "3 2 ");
    assert_schedule_ids(5, 0, 0, 8, "");
    assert_schedule_ids(0, 0, 6, 8, "");
    assert_schedule_ids(0, 0, 0, 0, "");
}

static void assert_due(int64_t now, unsigned limit, const char *want, int64_t want_next)
{
    struct store_schedule out[8];
    char got[32] = "";
    unsigned n = 99;
    int64_t next = -1;
    assert_ok(store_schedule_due(box.store, &arena, now, limit, out, &n, &next));
    assert_true(n <= limit);
    for (unsigned i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%d ", (int)out[i].id);
    assert_string_equal(got, want);
    assert_int_equal(next, want_next);
}

static void due_schedules_come_earliest_first(void **state)
{
    (void)state;
    assert_due(1000, 8, "", 0);
    static const struct {
        int64_t next_us;
        enum sched_status status;
    } rows[] = {
        {300, SCHED_PENDING},   {100, SCHED_ACTIVE}, {300, SCHED_ACTIVE},   {0, SCHED_ACTIVE},
        {100, SCHED_CANCELLED}, {50, SCHED_FAILED},  {20, SCHED_COMPLETED}, {500, SCHED_PENDING},
    };
    for (uint8_t i = 0; i < COUNT(rows); i++) {
        struct store_schedule d = sample_schedule(3, i);
        d.next_us = rows[i].next_us;
        d.status = rows[i].status;
        assert_ok(IN_TX(store_schedule_insert(tx, &d)));
    }
    assert_due(99, 8, "", 100);
    assert_due(100, 8, "2 ", 300);
    assert_due(300, 8, "2 1 3 ", 500);
    assert_due(300, 2, "2 1 ", 500);
    assert_due(300, 0, "", 500);
    assert_due(INT64_MAX, 8, "2 1 3 8 ", 0);
    assert_due(-1, 8, "", 100);

    struct store_schedule d;
    assert_ok(store_schedule_get(box.store, &arena, 2, &d));
    d.next_us = 400;
    assert_ok(IN_TX(store_schedule_update(tx, &d)));
    assert_due(300, 8, "1 3 ", 400);
    d.status = SCHED_CANCELLED;
    assert_ok(IN_TX(store_schedule_update(tx, &d)));
    assert_due(300, 8, "1 3 ", 500);
}

static void a_due_run_is_done_once(void **state)
{
    (void)state;
    struct store_run out[8];
    unsigned n = 99;
    assert_ok(store_run_list(box.store, &arena, 1, 8, out, &n));
    assert_int_equal(n, 0);

    struct store_run r = {1, 100, STORE_RUN_REFUSED, 0, 101, STR("insufficient-funds")};
    assert_ok(IN_TX(store_run_insert(tx, &r)));
    r.outcome = STORE_RUN_SKIPPED;
    r.ts = 102;
    r.error = STR("late");
    assert_ok(IN_TX(store_run_insert(tx, &r)));
    assert_ok(store_run_list(box.store, &arena, 1, 8, out, &n));
    assert_int_equal(n, 1);
    assert_int_equal(out[0].outcome, STORE_RUN_SKIPPED);
    assert_int_equal(out[0].ts, 102);
    assert_str(out[0].error, "late");

    r = (struct store_run){1, 100, STORE_RUN_DONE, 42, 103, STR_NONE};
    assert_ok(IN_TX(store_run_insert(tx, &r)));
    struct store_run again = {1, 100, STORE_RUN_DONE, 43, 104, STR_NONE};
    assert_int_equal(IN_TX(store_run_insert(tx, &again)), PFE_WRONG_STATE);
    again.outcome = STORE_RUN_REFUSED;
    assert_int_equal(IN_TX(store_run_insert(tx, &again)), PFE_WRONG_STATE);

    struct store_run other = {2, 100, STORE_RUN_DONE, 44, 105, STR_NONE};
    assert_ok(IN_TX(store_run_insert(tx, &other)));
    static const int64_t due[] = {300, 200, 400};
    for (size_t i = 0; i < COUNT(due); i++) {
        struct store_run later = {1, due[i], STORE_RUN_DONE, 50, 106, STR_NONE};
        assert_ok(IN_TX(store_run_insert(tx, &later)));
    }
    assert_ok(store_run_list(box.store, &arena, 1, 8, out, &n));
    assert_int_equal(n, 4);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(out[i].due_us, 400 - 100 * (int)i);
    assert_int_equal(out[3].schedule, 1);
    assert_int_equal(out[3].outcome, STORE_RUN_DONE);
    assert_int_equal(out[3].seq, 42);
    assert_int_equal(out[3].ts, 103);
    assert_int_equal(out[3].error.n, 0);
    assert_ok(store_run_list(box.store, &arena, 1, 2, out, &n));
    assert_int_equal(n, 2);
    assert_int_equal(out[1].due_us, 300);

    struct store_tx *both = tx_begin();
    struct store_run fresh = {9, 1, STORE_RUN_DONE, 1, 1, STR_NONE};
    assert_ok(store_run_insert(both, &fresh));
    assert_int_equal(store_run_insert(both, &fresh), PFE_WRONG_STATE);
    store_tx_rollback(both);
}

/* ---- audit ---- */

static void add_audit(int64_t ts, int64_t actor, const char *action, const char *entity)
{
    struct store_audit a = {
        .ts = ts, .actor = actor, .action = str_c(action), .entity = str_c(entity), .outcome = STR("ok")};
    assert_ok(IN_TX(store_audit_append(tx, &a)));
}

static void assert_audit(struct store_audit_query q, const char *want)
{
    struct store_audit out[16];
    char got[64] = "";
    unsigned n = 99;
    if (!q.limit)
        q.limit = COUNT(out);
    assert_ok(store_audit_list(box.store, &arena, &q, out, &n));
    assert_true(n <= q.limit);
    for (unsigned i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%d ", (int)out[i].id);
    assert_string_equal(got, want);
}

static void audit_line_round_trips(void **state)
{
    (void)state;
    struct store_audit a = {
        .ts = -5,
        .actor = 7,
        .action = STR("user.update"),
        .entity = STR("user"),
        .entity_id = STR("12"),
        .outcome = STR("duplicate-email"),
        .address = STR("2001:db8::1"),
        .request_id = STR("r-1"),
        .detail = STR("{\"fields\":[\"email\"]}"),
    };
    struct store_audit_query any = {.actor = -1, .limit = 1};
    struct store_audit got;
    unsigned n;
    assert_ok(IN_TX(store_audit_append(tx, &a)));
    assert_int_equal(a.id, 1);
    assert_ok(store_audit_list(box.store, &arena, &any, &got, &n));
    assert_int_equal(n, 1);
    assert_int_equal(got.id, 1);
    assert_int_equal(got.ts, -5);
    assert_int_equal(got.actor, 7);
    assert_true(str_eq(got.action, a.action));
    assert_true(str_eq(got.entity, a.entity));
    assert_true(str_eq(got.entity_id, a.entity_id));
    assert_true(str_eq(got.outcome, a.outcome));
    assert_true(str_eq(got.address, a.address));
    assert_true(str_eq(got.request_id, a.request_id));
    assert_true(str_eq(got.detail, a.detail));
    any.limit = 0;
    assert_ok(store_audit_list(box.store, &arena, &any, &got, &n));
    assert_int_equal(n, 0);
}

static void audit_is_filtered_newest_first(void **state)
{
    (void)state;
    assert_audit((struct store_audit_query){.actor = -1}, "");
    add_audit(100, 1, "login", "user");             /* 1 */
    add_audit(110, 2, "login.refused", "user");     /* 2 */
    add_audit(105, 0, "login.refused", "user");     /* 3: the clock went back */
    add_audit(120, 1, "user.update", "user");       /* 4 */
    add_audit(130, 1, "cache.invalidate", "cache"); /* 5 */
    add_audit(140, 2, "login", "user");             /* 6 */
    add_audit(150, 2, "logi%", "cache");            /* 7 */

    assert_audit((struct store_audit_query){.actor = -1}, "7 6 5 4 3 2 1 ");
    assert_audit((struct store_audit_query){.actor = 1}, "5 4 1 ");
    assert_audit((struct store_audit_query){.actor = 0}, "3 ");
    assert_audit((struct store_audit_query){.actor = 9}, "");
    assert_audit((struct store_audit_query){.actor = -1, .action = STR("login")}, "6 1 ");
    assert_audit((struct store_audit_query){.actor = -1, .action = STR("login*")}, "6 3 2 1 ");
    assert_audit((struct store_audit_query){.actor = -1, .action = STR("login.*")}, "3 2 ");
    assert_audit((struct store_audit_query){.actor = -1, .action = STR("*")}, "7 6 5 4 3 2 1 ");
    assert_audit((struct store_audit_query){.actor = -1, .action = STR("Login*")}, "");
    assert_audit((struct store_audit_query){.actor = -1, .action = STR("logi%")}, "7 ");
    assert_audit((struct store_audit_query){.actor = -1, .action = STR("logi_*")}, "");
    assert_audit((struct store_audit_query){.actor = -1, .action = STR("*in")}, "");
    assert_audit((struct store_audit_query){.actor = -1, .entity = STR("cache")}, "7 5 ");
    assert_audit((struct store_audit_query){.actor = 2, .action = STR("login*"), .entity = STR("user")}, "6 2 ");
    assert_audit((struct store_audit_query){.actor = 2, .entity = STR("cache")}, "7 ");
    assert_audit((struct store_audit_query){.actor = 1, .action = STR("login")}, "1 ");
    assert_audit((struct store_audit_query){.actor = -1, .action = STR("login"), .entity = STR("cache")}, "");

    assert_audit((struct store_audit_query){.actor = -1, .from_us = 105, .to_us = 130}, "4 3 2 ");
    assert_audit((struct store_audit_query){.actor = -1, .from_us = 130}, "7 6 5 ");
    assert_audit((struct store_audit_query){.actor = -1, .to_us = 105}, "1 ");
    assert_audit((struct store_audit_query){.actor = 2, .from_us = 111, .entity = STR("user")}, "6 ");

    assert_audit((struct store_audit_query){.actor = -1, .limit = 2}, "7 6 ");
    assert_audit((struct store_audit_query){.actor = -1, .limit = 2, .before_id = 6}, "5 4 ");
    assert_audit((struct store_audit_query){.actor = -1, .limit = 2, .before_id = 6, .offset = 3}, "2 1 ");
    assert_audit((struct store_audit_query){.actor = 1, .before_id = 5, .offset = 1}, "1 ");
    assert_audit((struct store_audit_query){.actor = -1, .action = STR("login*"), .offset = 1, .limit = 2}, "3 2 ");
    assert_audit((struct store_audit_query){.actor = -1, .before_id = 1}, "");
    assert_audit((struct store_audit_query){.actor = -1, .before_id = 100}, "7 6 5 4 3 2 1 ");
}

/* ---- idempotency ---- */

static void an_idempotency_key_is_taken_once_per_principal(void **state)
{
    (void)state;
    struct store_idem i = {.principal = 7, .key = STR("k"), .status = 201, .body = STR("{\"a\":\n1}"), .seq = 42};
    struct store_idem got = {.status = 55};
    memset(i.request, 0xc3, sizeof i.request);
    assert_int_equal(store_idem_get(box.store, &arena, 7, STR("k"), &got), PFE_NOT_FOUND);
    assert_int_equal(got.status, 55);

    struct store_tx *both = tx_begin();
    assert_ok(store_idem_put(both, &i));
    assert_int_equal(store_idem_put(both, &i), PFE_IN_FLIGHT);
    assert_int_equal(store_idem_get(box.store, &arena, 7, STR("k"), &got), PFE_NOT_FOUND);
    assert_ok(store_tx_commit(both));

    assert_ok(store_idem_get(box.store, &arena, 7, STR("k"), &got));
    assert_int_equal(got.principal, 7);
    assert_str(got.key, "k");
    assert_memory_equal(got.request, i.request, sizeof got.request);
    assert_int_equal(got.status, 201);
    assert_str(got.body, "{\"a\":\n1}");
    assert_int_equal(got.seq, 42);
    assert_int_equal(store_idem_get(box.store, &arena, 8, STR("k"), &got), PFE_NOT_FOUND);
    assert_int_equal(store_idem_get(box.store, &arena, 7, STR("K"), &got), PFE_NOT_FOUND);
    assert_int_equal(store_idem_get(box.store, &arena, 7, STR("k "), &got), PFE_NOT_FOUND);

    struct store_idem other = i;
    other.status = 200;
    struct store_tx *taken = tx_begin();
    assert_int_equal(store_idem_put(taken, &other), PFE_IN_FLIGHT);
    assert_ok(store_tx_commit(taken));
    other.principal = STORE_PRINCIPAL_SCHEDULER;
    other.body = STR_NONE;
    other.seq = 0;
    assert_ok(IN_TX(store_idem_put(tx, &other)));
    assert_ok(store_idem_get(box.store, &arena, STORE_PRINCIPAL_SCHEDULER, STR("k"), &got));
    assert_int_equal(got.status, 200);
    assert_int_equal(got.body.n, 0);
    assert_ok(store_idem_get(box.store, &arena, 7, STR("k"), &got));
    assert_int_equal(got.status, 201);
}

/* ---- memory ---- */

static void an_exhausted_arena_is_an_error(void **state)
{
    (void)state;
    struct store_schedule d = sample_schedule(3, 1), sched = {.id = 55}, list[2];
    struct store_run r = {1, 100, STORE_RUN_REFUSED, 0, 101, STR("insufficient-funds")};
    struct store_idem i = {.principal = 7, .key = STR("k"), .body = STR("{}")}, idem = {.status = 55};
    struct store_run run;
    struct store_audit line;
    struct store_audit_query any = {.actor = -1, .limit = 1};
    unsigned n = 99;
    int64_t next = 99;
    assert_ok(IN_TX(store_schedule_insert(tx, &d)));
    assert_ok(IN_TX(store_run_insert(tx, &r)));
    assert_ok(IN_TX(store_idem_put(tx, &i)));
    add_audit(1, 1, "login", "user");

    struct arena none;
    arena_init(&none, NULL, 0, 0);
    assert_int_equal(store_schedule_get(box.store, &none, 1, &sched), PFE_NOMEM);
    assert_int_equal(store_schedule_by_uuid(box.store, &none, d.uuid, &sched), PFE_NOMEM);
    assert_int_equal(sched.id, 55);
    assert_int_equal(store_schedule_list(box.store, &none, 0, 0, 0, 2, list, &n), PFE_NOMEM);
    assert_int_equal(store_schedule_due(box.store, &none, 1000, 2, list, &n, &next), PFE_NOMEM);
    assert_int_equal(store_run_list(box.store, &none, 1, 1, &run, &n), PFE_NOMEM);
    assert_int_equal(store_audit_list(box.store, &none, &any, &line, &n), PFE_NOMEM);
    assert_int_equal(store_idem_get(box.store, &none, 7, STR("k"), &idem), PFE_NOMEM);
    assert_int_equal(idem.status, 55);
    assert_int_equal(n, 99);
    assert_int_equal(next, 99);
    arena_reset(&none);
    assert_ok(store_schedule_get(box.store, &arena, 1, &sched));
    assert_schedule(&sched, &d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(schedule_is_found_by_id_and_uuid),
        CASE(schedule_update_moves_only_its_progress),
        CASE(schedules_are_listed_newest_first),
        CASE(due_schedules_come_earliest_first),
        CASE(a_due_run_is_done_once),
        CASE(audit_line_round_trips),
        CASE(audit_is_filtered_newest_first),
        CASE(an_idempotency_key_is_taken_once_per_principal),
        CASE(an_exhausted_arena_is_an_error),
    };
    return records_run(tests, COUNT(tests));
}
