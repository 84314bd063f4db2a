/* The guard before a store of documents whose server fails: how many calls still reach it, and what health is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "documents/guard/guard.h"
#include "documents/memory/memory.h"

static int64_t now_us;
static enum pf_err says; /* what the server answers; PFE_OK: what it should */
static unsigned asked;
static struct documents *memory;

static int64_t now(void *ctx)
{
    (void)ctx;
    return now_us;
}

static void flaky_close(struct documents *d)
{
    (void)d;
    documents_close(memory);
}

static enum pf_err flaky_insert(struct documents *d, const struct document *doc)
{
    (void)d;
    asked++;
    return says == PFE_OK ? documents_insert(memory, doc) : says;
}

static enum pf_err flaky_remove(struct documents *d, const uint8_t id[16])
{
    (void)d;
    asked++;
    return says == PFE_OK ? documents_remove(memory, id) : says;
}

static enum pf_err flaky_get(struct documents *d, struct arena *a, const uint8_t id[16], struct document *ret)
{
    (void)d;
    asked++;
    return says == PFE_OK ? documents_get(memory, a, id, ret) : says;
}

static enum pf_err flaky_list(struct documents *d, struct arena *a, const struct documents_query *q,
                              struct document *out, unsigned *ret_n)
{
    (void)d;
    asked++;
    return says == PFE_OK ? documents_list(memory, a, q, out, ret_n) : says;
}

static enum pf_err flaky_probe(struct documents *d)
{
    (void)d;
    asked++;
    return says;
}

static const struct documents_ops flaky_ops = {.engine = "flaky",
                                               .close = flaky_close,
                                               .insert = flaky_insert,
                                               .remove = flaky_remove,
                                               .get = flaky_get,
                                               .list = flaky_list,
                                               .probe = flaky_probe};
static struct documents flaky = {&flaky_ops}, *guard;
static const struct clock clock_ = {now, now, NULL};
static struct arena arena;
static const struct document sample = {.id = {7}, .created_us = 1, .date_us = 2, .body = {"{}", 2}};

static int start(void **state)
{
    (void)state;
    now_us = 1000000;
    says = PFE_OK;
    asked = 0;
    arena_init(&arena, NULL, 0, 1 << 20);
    memory = documents_memory_open();
    guard = documents_guard_new(&flaky, &clock_);
    return memory && guard ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    documents_close(guard);
    arena_reset(&arena);
    return 0;
}

static enum pf_err get(void)
{
    struct document back;
    return documents_get(guard, &arena, sample.id, &back);
}

static void what_works_goes_through(void **state)
{
    (void)state;
    struct document back[2];
    struct documents_query q = {.limit = 2};
    unsigned n = 0;
    assert_string_equal(documents_engine(guard), "flaky");
    assert_int_equal(get(), PFE_NOT_FOUND);
    assert_int_equal(documents_insert(guard, &sample), PFE_OK);
    assert_int_equal(documents_insert(guard, &sample), PFE_WRONG_STATE);
    assert_int_equal(get(), PFE_OK);
    assert_int_equal(documents_list(guard, &arena, &q, back, &n), PFE_OK);
    assert_int_equal(n, 1);
    assert_int_equal(documents_remove(guard, sample.id), PFE_OK);
    for (int i = 0; i < 20; i++) /* refusals are no word on the server's health */
        assert_int_equal(get(), PFE_NOT_FOUND);
}

static void a_server_that_fails_is_soon_left_alone(void **state)
{
    (void)state;
    struct documents_query q = {.limit = 1};
    struct document back;
    unsigned n;
    says = PFE_UNAVAILABLE;
    for (int i = 0; i < 100; i++)
        assert_int_equal(get(), PFE_UNAVAILABLE);
    assert_int_equal(asked, 4);
    assert_int_equal(documents_insert(guard, &sample), PFE_UNAVAILABLE);
    assert_int_equal(documents_remove(guard, sample.id), PFE_UNAVAILABLE);
    assert_int_equal(documents_list(guard, &arena, &q, &back, &n), PFE_UNAVAILABLE);
    assert_int_equal(asked, 4);
    says = PFE_OK;
    assert_int_equal(documents_guard_look(guard), DOCUMENTS_GUARD_LOOK_US); /* not its time yet */
    assert_int_equal(get(), PFE_UNAVAILABLE);
    now_us += 6 * 1000000;
    (void)documents_guard_look(guard); /* its success is the one that decides */
    assert_int_equal(documents_insert(guard, &sample), PFE_OK);
    assert_int_equal(get(), PFE_OK);
}

static void health_is_what_was_last_seen(void **state)
{
    (void)state;
    assert_int_equal(documents_probe(guard), PFE_OK);
    says = PFE_UNAVAILABLE;
    assert_int_equal(documents_probe(guard), PFE_OK);
    assert_int_equal(asked, 0);
    (void)documents_guard_look(guard);
    assert_int_equal(asked, 1);
    assert_int_equal(documents_probe(guard), PFE_UNAVAILABLE);
    for (int i = 0; i < 10; i++)
        (void)documents_guard_look(guard); /* also while the breaker is open */
    assert_int_equal(asked, 11);
    says = PFE_OK;
    (void)documents_guard_look(guard);
    assert_int_equal(documents_probe(guard), PFE_OK);
    assert_int_equal(asked, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_works_goes_through, start, stop),
        cmocka_unit_test_setup_teardown(a_server_that_fails_is_soon_left_alone, start, stop),
        cmocka_unit_test_setup_teardown(health_is_what_was_last_seen, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
