/* The nth allocation fails, for every n: a transaction of the memory engine is refused whole or done whole, and a read
   either answers or leaves its outputs alone. Linked with --wrap for malloc, calloc and realloc. */
#include "contract/records.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t k, size_t n);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t k, size_t n);
void *__wrap_realloc(void *p, size_t n);

static long allocations_left = -1; /* below 0: without end */

static bool allocation_fails(void)
{
    return allocations_left >= 0 && allocations_left-- == 0;
}

void *__wrap_malloc(size_t n)
{
    return allocation_fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t k, size_t n)
{
    return allocation_fails() ? NULL : __real_calloc(k, n);
}

void *__wrap_realloc(void *p, size_t n)
{
    return allocation_fails() ? NULL : __real_realloc(p, n);
}

/* Enough users that the table's array must grow within a transaction. */
enum { USERS = 20 };

static enum pf_err write_much(struct store_tx *tx)
{
    struct store_schedule d = sample_schedule(1, 1);
    struct store_run r = {.schedule = 1, .due_us = 1, .error = STR("why")};
    struct store_audit a = {.actor = 1, .action = STR("login")};
    struct store_idem i = {.principal = 1, .key = STR("a"), .body = STR("b")}, j = i;
    struct store_session f = {.user = 1};
    enum pf_err e = PFE_OK;
    for (int k = 0; k < USERS && e == PFE_OK; k++) {
        char name[32];
        snprintf(name, sizeof name, "user%d", k);
        struct store_user u = sample_user(name, name);
        e = store_user_insert(tx, &u);
        u.role = IDENT_ADMIN;
        if (e == PFE_OK)
            e = store_user_update(tx, &u);
    }
    j.key = STR("b");
    if (e == PFE_OK)
        e = store_schedule_insert(tx, &d);
    if (e == PFE_OK)
        e = store_run_insert(tx, &r);
    if (e == PFE_OK)
        e = store_audit_append(tx, &a);
    if (e == PFE_OK)
        e = store_idem_put(tx, &i);
    if (e == PFE_OK)
        e = store_idem_put(tx, &j);
    if (e == PFE_OK)
        e = store_session_insert(tx, &f);
    if (e == PFE_OK)
        e = store_session_revoke(tx, 1, NULL, 5);
    return e;
}

static void assert_much(bool there)
{
    struct store_schedule d;
    struct store_idem i;
    struct store_session f;
    uint8_t family[16] = {0};
    int64_t n;
    enum pf_err want = there ? PFE_OK : PFE_NOT_FOUND;
    assert_ok(store_admin_count(box.store, &n));
    assert_int_equal(n, there ? USERS : 0);
    assert_int_equal(store_schedule_get(box.store, &arena, 1, &d), want);
    assert_int_equal(store_idem_get(box.store, &arena, 1, STR("a"), &i), want);
    assert_int_equal(store_idem_get(box.store, &arena, 1, STR("b"), &i), want);
    assert_int_equal(store_session_get(box.store, family, &f), want);
}

static void a_transaction_without_memory_leaves_nothing(void **state)
{
    (void)state;
    bool done = false;
    for (long n = 0; !done; n++) {
        struct store_tx *tx;
        allocations_left = n;
        enum pf_err e = store_tx_begin(box.store, &tx);
        if (e == PFE_OK) {
            e = write_much(tx);
            if (e == PFE_OK)
                e = store_tx_commit(tx);
            else
                store_tx_rollback(tx);
        }
        done = allocations_left >= 0;
        allocations_left = -1;
        assert_int_equal(e, done ? PFE_OK : PFE_NOMEM);
        assert_much(done);
        assert_true(!done || n > 2 * USERS);
    }
}

static void a_read_without_memory_leaves_its_outputs(void **state)
{
    (void)state;
    assert_ok(IN_TX(write_much(tx)));
    bool done = false;
    for (long n = 0; !done; n++) {
        struct store_schedule d = {.id = 55}, list[2];
        struct store_idem i = {.status = 55};
        struct store_run run;
        struct store_audit line;
        struct store_audit_query q = {.actor = -1, .limit = 1};
        unsigned n_list = 99, n_runs = 99, n_lines = 99;
        struct arena a;
        arena_init(&a, NULL, 0, 1u << 20);
        allocations_left = n;
        enum pf_err one = store_schedule_get(box.store, &a, 1, &d);
        enum pf_err many = store_schedule_list(box.store, &a, 0, 0, 0, 2, list, &n_list);
        enum pf_err runs = store_run_list(box.store, &a, 1, 1, &run, &n_runs);
        enum pf_err lines = store_audit_list(box.store, &a, &q, &line, &n_lines);
        enum pf_err idem = store_idem_get(box.store, &a, 1, STR("a"), &i);
        done = allocations_left >= 0;
        allocations_left = -1;
        assert_int_equal(d.id, one == PFE_OK ? 1 : 55);
        assert_int_equal(n_list, many == PFE_OK ? 1 : 99);
        assert_int_equal(n_runs, runs == PFE_OK ? 1 : 99);
        assert_int_equal(n_lines, lines == PFE_OK ? 1 : 99);
        assert_int_equal(i.status, idem == PFE_OK ? 0 : 55);
        int refused = (one != PFE_OK) + (many != PFE_OK) + (runs != PFE_OK) + (lines != PFE_OK) + (idem != PFE_OK);
        assert_int_equal(refused, done ? 0 : 1);
        arena_reset(&a);
    }
}

static int choose_memory(void **state)
{
    (void)state;
    records_engine = &engine_list[0];
    return strcmp(records_engine->name, "memory") == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_transaction_without_memory_leaves_nothing),
        CASE(a_read_without_memory_leaves_its_outputs),
    };
    return cmocka_run_group_tests(tests, choose_memory, NULL);
}
