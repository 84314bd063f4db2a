/* The breaker's promises one by one; test_breaker_model.c has their combinations. */
#include "fixture.h"

#include "resilience/breaker.h"

static int64_t now;

static struct breaker_config small(void)
{
    struct breaker_config c = breaker_defaults();

    c.window_size = 4;
    c.minimum_calls = 4;
    c.slow_call_us = SECOND;
    c.wait_open_us = 10 * SECOND;
    c.half_open_calls = 2;
    c.lease_us = 5 * SECOND;
    return c;
}

static struct breaker *fresh(struct breaker_config c)
{
    struct breaker *b;

    now = HOUR;
    b = breaker_new(&c, now);
    assert_non_null(b);
    return b;
}

static struct breaker_permit permit(struct breaker *b)
{
    struct breaker_permit p;

    assert_true(breaker_try(b, now, &p));
    return p;
}

static enum breaker_state call(struct breaker *b, enum breaker_result r)
{
    struct breaker_permit p = permit(b);

    return breaker_done(b, &p, r, now);
}

static struct breaker_figures figures(struct breaker *b)
{
    struct breaker_figures f;

    breaker_read(b, now, &f);
    return f;
}

static void judged_from_the_minimum_on(void **state)
{
    struct breaker *b = fresh(small());

    (void)state;
    assert_int_equal(call(b, BREAKER_FAILURE), BREAKER_CLOSED);
    assert_int_equal(call(b, BREAKER_FAILURE), BREAKER_CLOSED);
    assert_int_equal(call(b, BREAKER_FAILURE), BREAKER_CLOSED);
    assert_true(figures(b).failure_rate < 0);
    assert_int_equal(figures(b).consecutive_failures, 3);
    assert_int_equal(call(b, BREAKER_SUCCESS), BREAKER_OPEN);
    assert_true(figures(b).failure_rate > 74.9 && figures(b).failure_rate < 75.1);
    assert_int_equal(figures(b).consecutive_failures, 0);
    breaker_free(b);
}

static void what_says_nothing_is_not_counted(void **state)
{
    struct breaker *b = fresh(small());

    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(call(b, BREAKER_IGNORED), BREAKER_CLOSED);
    assert_int_equal(figures(b).calls, 0);
    assert_int_equal(figures(b).total_ignored, 100);
    breaker_free(b);
}

static void slow_calls_open_it(void **state)
{
    struct breaker_config c = small();
    struct breaker *b;

    (void)state;
    c.slow_rate = 50;
    b = fresh(c);
    for (int i = 0; i < 4; i++) {
        struct breaker_permit p = permit(b);
        now += SECOND + (i >= 2); /* a second is not yet slow */
        assert_int_equal(breaker_done(b, &p, BREAKER_SUCCESS, now), i < 3 ? BREAKER_CLOSED : BREAKER_OPEN);
    }
    assert_int_equal(figures(b).slow, 2);
    breaker_free(b);
}

static void a_time_window_forgets(void **state)
{
    struct breaker_config c = small();
    struct breaker *b;

    (void)state;
    c.window = BREAKER_TIME_BASED;
    c.window_size = 10;
    b = fresh(c);
    for (int i = 0; i < 3; i++)
        call(b, BREAKER_FAILURE);
    now += 10 * SECOND - 1;
    assert_int_equal(figures(b).calls, 3);
    now += 1;
    assert_int_equal(figures(b).calls, 0);
    assert_int_equal(call(b, BREAKER_FAILURE), BREAKER_CLOSED);
    breaker_free(b);
}

static struct breaker *opened(void)
{
    struct breaker *b = fresh(small());

    for (int i = 0; i < 4; i++)
        call(b, BREAKER_FAILURE);
    return b;
}

static void open_rejects_and_says_how_long(void **state)
{
    struct breaker *b = opened();
    struct breaker_permit p;

    (void)state;
    now += 3 * SECOND;
    assert_false(breaker_try(b, now, &p));
    assert_int_equal(p.retry_in_us, 7 * SECOND);
    assert_int_equal(figures(b).total_rejected, 1);
    assert_int_equal(figures(b).changed_us, HOUR);
    now += 7 * SECOND;
    assert_true(breaker_try(b, now, &p));
    assert_int_equal(figures(b).state, BREAKER_HALF_OPEN);
    assert_int_equal(figures(b).permits_out, 1);
    breaker_free(b);
}

static void half_open_decides_on_the_permitted_calls(void **state)
{
    struct breaker *b = opened();
    struct breaker_permit one, two, three;

    (void)state;
    now += 10 * SECOND;
    one = permit(b);
    two = permit(b);
    assert_false(breaker_try(b, now, &three));
    assert_int_equal(breaker_done(b, &one, BREAKER_IGNORED, now), BREAKER_HALF_OPEN);
    three = permit(b); /* the ignored one's place */
    assert_int_equal(breaker_done(b, &two, BREAKER_SUCCESS, now), BREAKER_HALF_OPEN);
    assert_int_equal(breaker_done(b, &three, BREAKER_SUCCESS, now), BREAKER_CLOSED);
    assert_int_equal(figures(b).calls, 0);
    breaker_free(b);
}

static void a_lost_permit_is_a_failure(void **state)
{
    struct breaker *b = opened();
    struct breaker_permit lost, late;

    (void)state;
    now += 10 * SECOND;
    lost = permit(b);
    now += 5 * SECOND - 1;
    assert_int_equal(figures(b).state, BREAKER_HALF_OPEN);
    now += 1;
    assert_int_equal(figures(b).state, BREAKER_OPEN);
    assert_int_equal(figures(b).total_lost, 1);
    now += 10 * SECOND;
    late = permit(b);
    assert_int_equal(breaker_done(b, &lost, BREAKER_SUCCESS, now), BREAKER_HALF_OPEN);
    assert_int_equal(figures(b).total_stale, 1);
    assert_int_equal(figures(b).calls, 0);
    assert_int_equal(breaker_done(b, &late, BREAKER_SUCCESS, now), BREAKER_HALF_OPEN);
    breaker_free(b);
}

static void results_of_an_older_state_are_dropped(void **state)
{
    struct breaker *b = fresh(small());
    struct breaker_permit early[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        early[i] = permit(b);
    for (int i = 0; i < 4; i++)
        call(b, BREAKER_FAILURE);
    now += 10 * SECOND;
    assert_int_equal(call(b, BREAKER_SUCCESS), BREAKER_HALF_OPEN);
    for (int i = 0; i < 4; i++)
        assert_int_equal(breaker_done(b, &early[i], i % 2 ? BREAKER_SUCCESS : BREAKER_FAILURE, now), BREAKER_HALF_OPEN);
    assert_int_equal(figures(b).total_stale, 4);
    assert_int_equal(call(b, BREAKER_SUCCESS), BREAKER_CLOSED);
    breaker_free(b);
}

static void a_permit_goes_back_once(void **state)
{
    struct breaker *b = fresh(small());
    struct breaker_permit p = permit(b);

    (void)state;
    breaker_done(b, &p, BREAKER_FAILURE, now);
    for (int i = 0; i < 10; i++)
        assert_int_equal(breaker_done(b, &p, BREAKER_FAILURE, now), BREAKER_CLOSED);
    assert_int_equal(figures(b).total_failures, 1);
    assert_int_equal(figures(b).total_stale, 0);
    breaker_free(b);
}

static void forced_states_stay(void **state)
{
    struct breaker *b = fresh(small());
    struct breaker_permit p;

    (void)state;
    breaker_force(b, BREAKER_FORCED_OPEN, now);
    now += 24 * HOUR;
    assert_false(breaker_try(b, now, &p));
    assert_int_equal(p.retry_in_us, 0);
    breaker_force(b, BREAKER_DISABLED, now);
    for (int i = 0; i < 50; i++)
        assert_int_equal(call(b, BREAKER_FAILURE), BREAKER_DISABLED);
    breaker_force(b, BREAKER_CLOSED, now);
    assert_int_equal(figures(b).calls, 0);
    assert_int_equal(figures(b).total_failures, 50);
    assert_int_equal(call(b, BREAKER_SUCCESS), BREAKER_CLOSED);
    breaker_free(b);
}

static char said[256];

static void say(void *ctx, enum breaker_state from, enum breaker_state to, int64_t at_us)
{
    char line[64];

    assert_ptr_equal(ctx, said);
    snprintf(line, sizeof line, "%s>%s@%lld ", breaker_state_name(from), breaker_state_name(to),
             (long long)((at_us - HOUR) / SECOND));
    strncat(said, line, sizeof said - strlen(said) - 1);
}

static void transitions_are_told_at_their_own_time(void **state)
{
    struct breaker_config c = small();
    struct breaker *b;

    (void)state;
    c.on_transition = say;
    c.ctx = said;
    c.half_open_calls = 1;
    b = fresh(c);
    for (int i = 0; i < 4; i++)
        call(b, BREAKER_FAILURE);
    now += 10 * SECOND;
    permit(b);           /* never given back */
    now += 100 * SECOND; /* nobody looks meanwhile */
    assert_int_equal(call(b, BREAKER_SUCCESS), BREAKER_CLOSED);
    breaker_force(b, BREAKER_CLOSED, now);
    breaker_force(b, BREAKER_FORCED_OPEN, now);
    assert_string_equal(said, "closed>open@0 open>half-open@10 half-open>open@15 open>half-open@25 "
                              "half-open>closed@110 closed>forced-open@110 ");
    breaker_free(b);
}

/* The banking seed's /failure: two failures open it, and the call that opens it knows. */
static void two_failures_in_a_row(void **state)
{
    struct breaker_config c = small();
    struct breaker *b;

    (void)state;
    c.window_size = c.minimum_calls = 2;
    c.failure_rate = 100;
    b = fresh(c);
    assert_int_equal(call(b, BREAKER_FAILURE), BREAKER_CLOSED);
    assert_int_equal(call(b, BREAKER_SUCCESS), BREAKER_CLOSED);
    assert_int_equal(call(b, BREAKER_FAILURE), BREAKER_CLOSED);
    assert_int_equal(call(b, BREAKER_FAILURE), BREAKER_OPEN);
    breaker_free(b);
}

static void faulty_settings_are_named(void **state)
{
    struct breaker_config c = small();

    (void)state;
    assert_null(breaker_fault(&c));
#define REFUSED(field, value, name)                                                                                    \
    c = small(), c.field = (value), assert_non_null(breaker_fault(&c)),                                                \
    assert_non_null(strstr(breaker_fault(&c), name)), assert_null(breaker_new(&c, 0))
    REFUSED(window, 7, "slidingWindowType");
    REFUSED(window_size, 0, "slidingWindowSize");
    REFUSED(window_size, 100001, "slidingWindowSize");
    REFUSED(minimum_calls, 0, "minimumNumberOfCalls");
    REFUSED(failure_rate, 101, "failureRateThreshold");
    REFUSED(slow_rate, 0, "slowCallRateThreshold");
    REFUSED(slow_call_us, -1, "slowCallDurationThreshold");
    REFUSED(wait_open_us, INT64_MAX, "waitDurationInOpenState");
    REFUSED(half_open_calls, 0, "permittedNumberOfCallsInHalfOpenState");
    REFUSED(lease_us, 0, "permitLease");
    c = small(), c.window = BREAKER_TIME_BASED, c.window_size = 3601;
    assert_non_null(breaker_fault(&c));
    breaker_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judged_from_the_minimum_on),
        cmocka_unit_test(what_says_nothing_is_not_counted),
        cmocka_unit_test(slow_calls_open_it),
        cmocka_unit_test(a_time_window_forgets),
        cmocka_unit_test(open_rejects_and_says_how_long),
        cmocka_unit_test(half_open_decides_on_the_permitted_calls),
        cmocka_unit_test(a_lost_permit_is_a_failure),
        cmocka_unit_test(results_of_an_older_state_are_dropped),
        cmocka_unit_test(a_permit_goes_back_once),
        cmocka_unit_test(forced_states_stay),
        cmocka_unit_test(transitions_are_told_at_their_own_time),
        cmocka_unit_test(two_failures_in_a_row),
        cmocka_unit_test(faulty_settings_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
