/* records: what the contract tests of the record half share: a store per case, transactions in one line, samples. */
#ifndef TESTS_CONTRACT_RECORDS_H
#define TESTS_CONTRACT_RECORDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "contract/engines.h"

#define assert_ok(e) assert_int_equal(e, PFE_OK)
#define assert_str(s, z) assert_true(str_eq(s, str_c(z)))
#define CASE(f) cmocka_unit_test_setup_teardown(f, records_setup, records_teardown)
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static const struct engine *records_engine;
static struct engine_box box;
static struct arena arena;

static int records_setup(void **state)
{
    (void)state;
    arena_init(&arena, NULL, 0, 8u << 20);
    return engine_open(records_engine, &box) ? 0 : -1;
}

static int records_teardown(void **state)
{
    (void)state;
    arena_reset(&arena);
    engine_close(&box);
    return 0;
}

static inline int records_run(const struct CMUnitTest *tests, size_t n)
{
    int failed = 0;
    for (size_t i = 0; i < ENGINE_COUNT; i++) {
        records_engine = &engine_list[i];
        failed += _cmocka_run_group_tests(records_engine->name, tests, n, NULL, NULL);
    }
    return failed;
}

static inline struct store_tx *tx_begin(void)
{
    struct store_tx *tx = NULL;
    assert_ok(store_tx_begin(box.store, &tx));
    assert_non_null(tx);
    return tx;
}

/* Evaluates call (which uses tx) in a transaction of its own: committed when it gives PFE_OK, else rolled back. */
#define IN_TX(call)                                                                                                    \
    __extension__({                                                                                                    \
        struct store_tx *tx = tx_begin();                                                                              \
        enum pf_err in_tx_err = (call);                                                                                \
        if (in_tx_err == PFE_OK)                                                                                       \
            in_tx_err = store_tx_commit(tx);                                                                           \
        else                                                                                                           \
            store_tx_rollback(tx);                                                                                     \
        in_tx_err;                                                                                                     \
    })

static inline struct store_user sample_user(const char *name, const char *email)
{
    static uint8_t next;
    struct store_user u = {.role = IDENT_USER, .created_us = 1000, .updated_us = 2000};
    snprintf(u.username, sizeof u.username, "%s", name);
    snprintf(u.email, sizeof u.email, "%s", email);
    snprintf(u.password_hash, sizeof u.password_hash, "$2b$04$%s", name);
    memset(u.uuid, 0xa0, sizeof u.uuid);
    u.uuid[0] = ++next;
    return u;
}

static inline struct store_user add_user(const char *name, const char *email)
{
    struct store_user u = sample_user(name, email);
    assert_ok(IN_TX(store_user_insert(tx, &u)));
    return u;
}

static inline void assert_user(const struct store_user *a, const struct store_user *b)
{
    assert_int_equal(a->id, b->id);
    assert_memory_equal(a->uuid, b->uuid, sizeof a->uuid);
    assert_string_equal(a->username, b->username);
    assert_string_equal(a->email, b->email);
    assert_string_equal(a->password_hash, b->password_hash);
    assert_int_equal(a->role, b->role);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->created_us, b->created_us);
    assert_int_equal(a->updated_us, b->updated_us);
}

static inline struct store_schedule sample_schedule(int64_t owner, uint8_t tag)
{
    struct store_schedule d = {
        .owner = owner,
        .kind = LEDGER_TRANSFER,
        .to_user = 77,
        .amount = INT64_MAX,
        .currency = 840,
        .description = STR("rent"),
        .recurrence = STR("monthly"),
        .anchor_us = 100,
        .next_us = 200,
        .end_us = 900,
        .last_us = 50,
        .max_runs = 12,
        .runs = 1,
        .refusals = 2,
        .status = SCHED_PENDING,
        .last_error = STR("insufficient-funds"),
        .created_us = 10,
        .updated_us = 11,
    };
    memset(d.uuid, 0x50, sizeof d.uuid);
    d.uuid[15] = tag;
    return d;
}

static inline void assert_schedule(const struct store_schedule *a, const struct store_schedule *b)
{
    assert_int_equal(a->id, b->id);
    assert_memory_equal(a->uuid, b->uuid, sizeof a->uuid);
    assert_int_equal(a->owner, b->owner);
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->to_user, b->to_user);
    assert_true(a->amount == b->amount);
    assert_int_equal(a->currency, b->currency);
    assert_true(str_eq(a->description, b->description));
    assert_true(str_eq(a->recurrence, b->recurrence));
    assert_int_equal(a->anchor_us, b->anchor_us);
    assert_int_equal(a->next_us, b->next_us);
    assert_int_equal(a->end_us, b->end_us);
    assert_int_equal(a->last_us, b->last_us);
    assert_int_equal(a->max_runs, b->max_runs);
    assert_int_equal(a->runs, b->runs);
    assert_int_equal(a->refusals, b->refusals);
    assert_int_equal(a->status, b->status);
    assert_true(str_eq(a->last_error, b->last_error));
    assert_int_equal(a->created_us, b->created_us);
    assert_int_equal(a->updated_us, b->updated_us);
}

#endif
