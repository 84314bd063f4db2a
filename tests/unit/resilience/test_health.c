#include "fixture.h"

#include "resilience/health.h"

static int add(struct health *h, const char *name, bool critical)
{
    return health_add(h, &(struct health_check){str_c(name), critical, 10 * SECOND, 2 * SECOND});
}

static struct health_result result(struct health *h, int check, int64_t now)
{
    struct health_result r;

    assert_true(health_result(h, (unsigned)check, now, &r));
    return r;
}

static enum health_status overall(struct health *h, int64_t now)
{
    struct health_overall o;

    health_read(h, now, &o);
    assert_int_equal(o.up + o.down + o.unknown, o.checks);
    return o.status;
}

/* Starts whatever is due and reports these, one per check in order of ids. */
static void run(struct health *h, const enum health_status *s, size_t n, int64_t now)
{
    struct health_run runs[8];

    assert_int_equal(health_due(h, now, runs, 8), n);
    for (size_t i = 0; i < n; i++)
        assert_true(health_report(h, &runs[i], s[runs[i].check], STR(""), now));
}

/* All 27 states of a critical check and two others. */
static void the_worst_that_matters(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 27; i++) {
        struct health *h = health_new();
        const enum health_status s[] = {i % 3, i / 3 % 3, i / 9};
        const enum health_status want = s[0] == HEALTH_DOWN ? HEALTH_DOWN
                                        : s[0] == HEALTH_UNKNOWN || s[1] == HEALTH_UNKNOWN || s[2] == HEALTH_UNKNOWN
                                            ? HEALTH_UNKNOWN
                                            : HEALTH_UP;
        add(h, "database", true);
        add(h, "cache", false);
        add(h, "queue", false);
        assert_int_equal(overall(h, 0), HEALTH_UNKNOWN); /* none has answered */
        run(h, s, 3, 0);
        assert_int_equal(overall(h, 0), want);
        health_free(h);
    }
    struct health *h = health_new();
    assert_int_equal(overall(h, 0), HEALTH_UP);
    health_free(h);
}

static void due_by_interval(void **state)
{
    struct health *h = health_new();
    struct health_run runs[4];
    const int a = add(h, "a", true), b = add(h, "b", false);

    (void)state;
    assert_true(a >= 0 && b >= 0 && a != b);
    assert_int_equal(health_next_us(h, SECOND), SECOND);
    assert_int_equal(health_due(h, SECOND, runs, 1), 1);
    assert_int_equal(health_due(h, SECOND, runs + 1, 4), 1);
    assert_int_equal(health_due(h, SECOND, runs + 2, 2), 0);
    assert_true(result(h, a, SECOND).running);
    assert_int_equal(health_next_us(h, SECOND), 3 * SECOND); /* the timeouts */
    assert_true(health_report(h, &runs[0], HEALTH_UP, STR("{\"ms\":1}"), 2 * SECOND));
    assert_true(health_report(h, &runs[1], HEALTH_UP, STR(""), 2 * SECOND));
    assert_false(health_report(h, &runs[0], HEALTH_DOWN, STR(""), 2 * SECOND));
    assert_string_equal(result(h, a, 2 * SECOND).details, "{\"ms\":1}");
    assert_string_equal(result(h, b, 2 * SECOND).details, "{}");
    assert_int_equal(result(h, a, 5 * SECOND).at_us, 2 * SECOND);
    assert_int_equal(result(h, a, 5 * SECOND).age_us, 3 * SECOND);
    assert_int_equal(health_due(h, 11 * SECOND - 1, runs, 4), 0);
    assert_int_equal(health_next_us(h, 9 * SECOND), 11 * SECOND);
    assert_int_equal(health_due(h, 11 * SECOND, runs, 4), 2);
    health_free(h);
}

static void no_answer_is_down(void **state)
{
    struct health *h = health_new();
    struct health_run late, again;
    const int a = add(h, "a", true);

    (void)state;
    run(h, (const enum health_status[]){HEALTH_UP}, 1, 0);
    assert_int_equal(health_due(h, 10 * SECOND, &late, 1), 1);
    assert_int_equal(overall(h, 12 * SECOND - 1), HEALTH_UP); /* the last answer stands meanwhile */
    assert_int_equal(overall(h, 12 * SECOND), HEALTH_DOWN);
    assert_string_equal(result(h, a, 13 * SECOND).details, "{\"error\":\"no answer in 2000 ms\"}");
    assert_int_equal(result(h, a, 13 * SECOND).at_us, 12 * SECOND);
    assert_false(health_report(h, &late, HEALTH_UP, STR(""), 13 * SECOND));
    assert_int_equal(health_due(h, 20 * SECOND, &again, 1), 1);
    assert_false(health_report(h, &late, HEALTH_UP, STR(""), 20 * SECOND));
    assert_true(health_report(h, &again, HEALTH_UP, STR(""), 20 * SECOND));
    assert_int_equal(overall(h, 20 * SECOND), HEALTH_UP);
    health_free(h);
}

static void an_old_result_is_no_result(void **state)
{
    struct health *h = health_new();
    const int a = add(h, "a", true);

    (void)state;
    run(h, (const enum health_status[]){HEALTH_UP}, 1, 0);
    assert_int_equal(result(h, a, 32 * SECOND).status, HEALTH_UP);
    assert_int_equal(result(h, a, 32 * SECOND + 1).status, HEALTH_UNKNOWN);
    assert_int_equal(overall(h, 32 * SECOND + 1), HEALTH_UNKNOWN);
    health_free(h);
}

static void long_details_are_left_out(void **state)
{
    struct health *h = health_new();
    struct health_run r;
    char text[HEALTH_DETAILS_MAX];
    const int a = add(h, "a", true);

    (void)state;
    memset(text, ' ', sizeof text);
    assert_int_equal(health_due(h, 0, &r, 1), 1);
    assert_true(health_report(h, &r, HEALTH_DOWN, (struct str){text, sizeof text}, 0));
    assert_int_equal(result(h, a, 0).status, HEALTH_DOWN);
    assert_non_null(strstr(result(h, a, 0).details, "too long"));
    health_free(h);
}

static void checks_come_and_go(void **state)
{
    struct health *h = health_new();
    struct health_run r;
    struct health_result res;
    char name[HEALTH_NAME_MAX + 1];

    (void)state;
    assert_int_equal(add(h, "", true), -1);
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(add(h, name, true), -1);
    assert_int_equal(health_add(h, &(struct health_check){STR("x"), true, 0, 1}), -1);
    assert_int_equal(health_add(h, &(struct health_check){STR("x"), true, 1, 0}), -1);
    for (int i = 0; i < HEALTH_CHECKS_MAX; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(add(h, name, false), i);
        assert_int_equal(add(h, name, false), -1);
    }
    assert_int_equal(add(h, "one more", false), -1);
    assert_int_equal(health_due(h, 0, &r, 1), 1);
    health_remove(h, r.check);
    health_remove(h, HEALTH_CHECKS_MAX);
    assert_false(health_report(h, &r, HEALTH_UP, STR(""), 0));
    assert_false(health_result(h, r.check, 0, &res));
    assert_false(health_result(h, HEALTH_CHECKS_MAX, 0, &res));
    assert_int_equal(add(h, "one more", false), r.check);
    assert_false(health_report(h, &r, HEALTH_UP, STR(""), 0)); /* not of this check */
    r.check = HEALTH_CHECKS_MAX;
    assert_false(health_report(h, &r, HEALTH_UP, STR(""), 0));
    assert_string_equal(health_status_name(HEALTH_UNKNOWN), "UNKNOWN");
    health_free(h);
    health_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_worst_that_matters),    cmocka_unit_test(due_by_interval),
        cmocka_unit_test(no_answer_is_down),         cmocka_unit_test(an_old_result_is_no_result),
        cmocka_unit_test(long_details_are_left_out), cmocka_unit_test(checks_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
