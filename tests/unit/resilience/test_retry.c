#include "fixture.h"

#include <math.h>

#include "resilience/retry.h"

static struct retry fresh(struct retry_config c)
{
    struct retry r;

    assert_true(retry_init(&r, &c));
    return r;
}

static struct retry_config plain(void)
{
    struct retry_config c = retry_defaults();

    c.max_attempts = 5;
    c.jitter = 0;
    c.deadline_us = HOUR;
    return c;
}

static void waits_grow_up_to_the_most(void **state)
{
    struct retry_config c = plain();
    struct retry r;
    struct retry_call call;
    struct retry_verdict v;
    const int64_t waits[] = {100 * MS, 250 * MS, 625 * MS, SECOND};

    (void)state;
    c.multiplier = 2.5;
    c.max_backoff_us = SECOND;
    r = fresh(c);
    retry_begin(&r, &call, true, 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(call.attempt, i + 1);
        v = retry_next(&call, RETRY_FAILURE, 0, UINT64_MAX, 0);
        assert_true(v.again);
        assert_int_equal(v.wait_us, waits[i]);
    }
    v = retry_next(&call, RETRY_FAILURE, 0, 0, 0); /* the first try is one of the five */
    assert_false(v.again);
    assert_int_equal(v.why, RETRY_STOP_ATTEMPTS);
    assert_int_equal(v.wait_us, 0);
    retry_end(&call);
}

static void only_failures_of_safe_calls(void **state)
{
    const enum retry_outcome others[] = {RETRY_SUCCESS, RETRY_PERMANENT, RETRY_REJECTED, RETRY_CANCELLED};
    struct retry r = fresh(plain());
    struct retry_call call;
    struct retry_figures f;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        retry_begin(&r, &call, true, 0);
        assert_int_equal(retry_next(&call, others[i], SECOND, 0, 0).why, RETRY_STOP_OUTCOME);
        retry_end(&call);
    }
    retry_begin(&r, &call, false, 0);
    assert_int_equal(retry_next(&call, RETRY_FAILURE, 0, 0, 0).why, RETRY_STOP_UNSAFE);
    retry_end(&call);
    retry_end(&call);
    retry_read(&r, &f);
    assert_int_equal(f.calls_live, 0);
    assert_int_equal(f.stops[RETRY_STOP_OUTCOME], 3); /* a success is not a stop */
    assert_int_equal(f.stops[RETRY_STOP_UNSAFE], 1);
    assert_int_equal(f.retries, 0);
}

static void one_deadline_over_all(void **state)
{
    struct retry_config c = plain();
    struct retry r;
    struct retry_call call;

    (void)state;
    c.deadline_us = SECOND;
    r = fresh(c);
    retry_begin(&r, &call, true, HOUR);
    assert_int_equal(retry_left_us(&call, HOUR + 400 * MS), 600 * MS);
    assert_true(retry_next(&call, RETRY_FAILURE, 0, 0, HOUR + 400 * MS).again);
    assert_int_equal(retry_next(&call, RETRY_FAILURE, 0, 0, HOUR + 800 * MS).why, RETRY_STOP_DEADLINE); /* 200 left */
    assert_int_equal(retry_left_us(&call, HOUR + SECOND + 1), 0);
    retry_end(&call);
}

static void retry_after_is_honoured(void **state)
{
    struct retry_config c = plain();
    struct retry r;
    struct retry_call call;
    struct retry_verdict v;

    (void)state;
    c.jitter = 50;
    c.deadline_us = 10 * SECOND;
    r = fresh(c);
    retry_begin(&r, &call, true, 0);
    v = retry_next(&call, RETRY_FAILURE, 3 * SECOND, (uint64_t)1 << 63, 0); /* over max_backoff */
    assert_int_equal(v.wait_us, 3 * SECOND + 25 * MS);
    v = retry_next(&call, RETRY_FAILURE, 1, 0, 3 * SECOND); /* shorter than the back-off */
    assert_int_equal(v.wait_us, 200 * MS);
    v = retry_next(&call, RETRY_FAILURE, 7 * SECOND, 0, 3 * SECOND);
    assert_int_equal(v.why, RETRY_STOP_DEADLINE);
    v = retry_next(&call, RETRY_FAILURE, INT64_MAX, UINT64_MAX, 3 * SECOND);
    assert_int_equal(v.why, RETRY_STOP_DEADLINE);
    retry_end(&call);
}

static void jitter_takes_off_its_part(void **state)
{
    struct prng rng = prng_seeded("retry");
    struct retry_config c = plain();
    int64_t least = INT64_MAX, most = 0;

    (void)state;
    for (c.jitter = 0; c.jitter <= 100; c.jitter += 25) {
        struct retry r = fresh(c);
        least = INT64_MAX, most = 0;
        for (int i = 0; i < 2000; i++) {
            struct retry_call call;
            retry_begin(&r, &call, true, 0);
            const int64_t w = retry_next(&call, RETRY_FAILURE, 0, prng_next(&rng), 0).wait_us;
            least = w < least ? w : least;
            most = w > most ? w : most;
            retry_end(&call);
        }
        assert_true(most <= 100 * MS && most > 99 * MS);
        assert_true(least >= (100 - c.jitter) * MS && least < (100 - c.jitter + 1) * MS);
    }
}

static void budget_by_calls_under_way(void **state)
{
    enum { CALLS = 40 };
    struct retry r = fresh(plain());
    struct retry_call calls[CALLS];
    struct retry_figures f;
    unsigned again = 0;

    (void)state;
    for (int i = 0; i < 10; i++)
        retry_begin(&r, &calls[i], true, 0);
    for (int i = 0; i < 10; i++)
        again += retry_next(&calls[i], RETRY_FAILURE, 0, 0, 0).again;
    assert_int_equal(again, 3); /* 20 % of 10 is 2; at least 3 */
    for (int i = 10; i < CALLS; i++)
        retry_begin(&r, &calls[i], true, 0);
    for (int i = 10; i < CALLS; i++)
        again += retry_next(&calls[i], RETRY_FAILURE, 0, 0, 0).again;
    assert_int_equal(again, 8); /* of 40 */
    retry_read(&r, &f);
    assert_int_equal(f.calls_live, CALLS);
    assert_int_equal(f.retries_live, 8);
    assert_int_equal(f.stops[RETRY_STOP_BUDGET], CALLS - 8);
    /* a second retry of one call takes its own place again; one that ends well frees it */
    assert_true(retry_next(&calls[0], RETRY_FAILURE, 0, 0, 0).again);
    assert_false(retry_next(&calls[1], RETRY_SUCCESS, 0, 0, 0).again);
    retry_read(&r, &f);
    assert_int_equal(f.retries_live, 7);
    for (int i = 0; i < CALLS; i++)
        retry_end(&calls[i]);
    retry_read(&r, &f);
    assert_int_equal(f.retries_live, 0);
    assert_int_equal(f.calls_live, 0);
}

static void no_budget_no_retry(void **state)
{
    struct retry_config c = plain();
    struct retry r;
    struct retry_call call;

    (void)state;
    c.budget_percent = c.budget_least = 0;
    r = fresh(c);
    retry_begin(&r, &call, true, 0);
    assert_int_equal(retry_next(&call, RETRY_FAILURE, 0, 0, 0).why, RETRY_STOP_BUDGET);
    retry_end(&call);
}

static void faulty_settings_are_named(void **state)
{
    struct retry_config c = plain();
    struct retry r;

    (void)state;
    assert_null(retry_fault(&c));
#define REFUSED(field, value, name)                                                                                    \
    c = plain(), c.field = (value), assert_non_null(retry_fault(&c)), assert_non_null(strstr(retry_fault(&c), name)),  \
    assert_false(retry_init(&r, &c))
    REFUSED(max_attempts, 0, "maxAttempts");
    REFUSED(backoff_us, -1, "backoffPeriod");
    REFUSED(multiplier, 0.5, "backoffMultiplier");
    REFUSED(multiplier, NAN, "backoffMultiplier");
    REFUSED(max_backoff_us, 1, "maxBackoffPeriod");
    REFUSED(jitter, 101, "jitter");
    REFUSED(deadline_us, 0, "deadline");
    REFUSED(budget_percent, 101, "budgetPercent");
    REFUSED(budget_least, 1000001, "budgetLeast");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_grow_up_to_the_most), cmocka_unit_test(only_failures_of_safe_calls),
        cmocka_unit_test(one_deadline_over_all),     cmocka_unit_test(retry_after_is_honoured),
        cmocka_unit_test(jitter_takes_off_its_part), cmocka_unit_test(budget_by_calls_under_way),
        cmocka_unit_test(no_budget_no_retry),        cmocka_unit_test(faulty_settings_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
