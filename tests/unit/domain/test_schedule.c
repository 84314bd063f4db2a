#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/clock.h"
#include "domain/schedule/schedule.h"

static int64_t at(const char *text)
{
    int64_t us;

    if (!time_parse(str_c(text), &us))
        fail_msg("not a time: %s", text);
    return us;
}

static void assert_time(int64_t us, const char *text)
{
    char got[TIME_RFC3339_MAX] = "none", want[TIME_RFC3339_MAX] = "none";

    if (us)
        time_format(us, got);
    if (text)
        time_format(at(text), want);
    assert_string_equal(got, want);
}

static struct sched_rule rule(const char *recurrence, const char *anchor)
{
    struct sched_rule r;
    struct problem p = {0};

    if (sched_rule_parse(str_c(recurrence), at(anchor), &r, &p) != PFE_OK)
        fail_msg("refused: %s: %s", recurrence, p.fields[0].msg);
    assert_int_equal(p.code, PFE_OK);
    return r;
}

/* The due times from the anchor on are exactly these. */
static void assert_series(const char *recurrence, const char *const *due, unsigned n)
{
    struct sched_rule r = rule(recurrence, due[0]);
    int64_t t = at(due[0]) - 1, count;

    for (unsigned i = 0; i < n; i++) {
        t = sched_next(&r, t);
        assert_time(t, due[i]);
        assert_time(sched_latest(&r, at(due[0]) - 1, t, &count), due[i]);
        assert_int_equal(count, i + 1);
        assert_time(sched_latest(&r, at(due[0]) - 1, t - 1, NULL), i ? due[i - 1] : NULL);
        assert_time(sched_latest(&r, t, t, &count), NULL);
        assert_int_equal(count, 0);
    }
}
#define assert_due(recurrence, ...)                                                                                    \
    assert_series(recurrence, (const char *const[]){__VA_ARGS__},                                                      \
                  sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void refused(const char *recurrence, const char *msg)
{
    struct sched_rule r = {.anchor_us = -7};
    struct problem p = {0};

    if (sched_rule_parse(str_c(recurrence), at("2026-01-01"), &r, &p) != PFE_INVALID)
        fail_msg("accepted: %s", recurrence);
    assert_int_equal(p.code, PFE_INVALID);
    assert_int_equal(p.n_fields, 1);
    assert_string_equal(p.fields[0].in, "body");
    assert_string_equal(p.fields[0].name, "recurrence");
    assert_string_equal(p.fields[0].msg, msg);
    assert_int_equal(r.anchor_us, -7);
}

static void once(void **state)
{
    struct sched_rule r = rule("", "2026-05-01T12:00:00.5Z");
    int64_t a = r.anchor_us, count;

    (void)state;
    assert_int_equal(r.recur, SCHED_ONCE);
    assert_int_equal(sched_next(&r, INT64_MIN), a);
    assert_int_equal(sched_next(&r, a - 1), a);
    assert_int_equal(sched_next(&r, a), 0);
    assert_int_equal(sched_next(&r, INT64_MAX), 0);
    assert_int_equal(sched_latest(&r, a - 1, INT64_MAX, &count), a);
    assert_int_equal(count, 1);
    assert_int_equal(sched_latest(&r, a, INT64_MAX, &count), 0);
    assert_int_equal(count, 0);
    assert_int_equal(sched_latest(&r, INT64_MIN, a - 1, &count), 0);
    assert_int_equal(count, 0);
    assert_int_equal(sched_latest(&r, a + 5, a - 5, &count), 0);
    assert_int_equal(count, 0);
}

static void daily_and_weekly(void **state)
{
    (void)state;
    assert_due("daily", "2024-02-28T23:59:59.999999Z", "2024-02-29T23:59:59.999999Z", "2024-03-01T23:59:59.999999Z");
    assert_due("daily", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z");
    /* the nights in which Europe and America change their clocks are like any other */
    assert_due("daily", "2026-03-28T02:30:00Z", "2026-03-29T02:30:00Z", "2026-03-30T02:30:00Z");
    assert_due("daily", "2026-10-31T01:30:00Z", "2026-11-01T01:30:00Z", "2026-11-02T01:30:00Z");
    assert_due("weekly", "2026-02-23T08:00:00Z", "2026-03-02T08:00:00Z", "2026-03-09T08:00:00Z");
}

static void monthly_keeps_its_day(void **state)
{
    (void)state;
    assert_due("monthly", "2026-01-31T10:00:00.25Z", "2026-02-28T10:00:00.25Z", "2026-03-31T10:00:00.25Z",
               "2026-04-30T10:00:00.25Z", "2026-05-31T10:00:00.25Z");
    assert_due("monthly", "2027-12-31T10:00:00Z", "2028-01-31T10:00:00Z", "2028-02-29T10:00:00Z",
               "2028-03-31T10:00:00Z");
    assert_due("monthly", "2026-11-30T00:00:00Z", "2026-12-30T00:00:00Z", "2027-01-30T00:00:00Z",
               "2027-02-28T00:00:00Z", "2027-03-30T00:00:00Z");
    assert_due("monthly", "2100-01-29T00:00:00Z", "2100-02-28T00:00:00Z", "2100-03-29T00:00:00Z");
    assert_due("monthly", "2026-01-15T00:00:00Z", "2026-02-15T00:00:00Z");
}

static void end_of_time(void **state)
{
    static const char *const rules[] = {"daily", "weekly", "monthly", "* * * * *"};

    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        struct sched_rule r = rule(rules[i], "2026-01-01T00:00:00Z");
        int64_t last = sched_latest(&r, r.anchor_us, INT64_MAX, NULL);

        assert_int_equal(sched_next(&r, INT64_MIN), r.anchor_us);
        assert_int_equal(sched_next(&r, INT64_MAX), 0);
        assert_int_equal(sched_next(&r, last), 0);
        assert_int_equal(sched_next(&r, last - 1), last);
        assert_true(last > at("9999-11-30") && last <= at("9999-12-31T23:59:59Z"));
    }
}

static void counts_are_capped(void **state)
{
    struct sched_rule r = rule("* * * * *", "2026-01-01T00:00:00Z");
    int64_t count;

    (void)state;
    assert_time(sched_latest(&r, at("2026-01-01"), at("2026-03-11T10:39:59Z"), &count), "2026-03-11T10:39:00Z");
    assert_int_equal(count, 99999);
    assert_time(sched_latest(&r, at("2026-01-01"), at("2026-03-11T10:40:00Z"), &count), "2026-03-11T10:40:00Z");
    assert_int_equal(count, 100000);
    assert_time(sched_latest(&r, at("2026-01-01"), at("2036-07-01T00:00:30Z"), &count), "2036-07-01T00:00:00Z");
    assert_int_equal(count, 100000);
    r = rule("daily", "1970-01-01T00:00:01Z");
    assert_time(sched_latest(&r, 0, at("9000-01-01"), &count), "8999-12-31T00:00:01Z");
    assert_int_equal(count, 100000);
}

static void cron_fields(void **state)
{
    static const struct {
        const char *text;
        uint64_t minute;
        uint32_t hour, mday, month;
        uint8_t wday;
        bool mday_star, wday_star;
    } rows[] = {
        {"* * * * *", (1ull << 60) - 1, (1u << 24) - 1, 0xFFFFFFFE, 0x1FFE, 0x7F, true, true},
        {"0 0 1 1 0", 1, 1, 2, 2, 1, false, false},
        {"0 0 1 1 7", 1, 1, 2, 2, 1, false, false},
        {"59 23 31 12 6", 1ull << 59, 1u << 23, 1u << 31, 1u << 12, 1 << 6, false, false},
        {"0,30 9-11 */10 jan,Mar,DEC mon-FRI", 1 | 1ull << 30, 7u << 9, 2 | 1u << 11 | 1u << 21 | 1u << 31,
         1u << 1 | 1u << 3 | 1u << 12, 0x3E, true, false},
        {"*/20 1-10/3 * * *", 1 | 1ull << 20 | 1ull << 40, 2 | 1u << 4 | 1u << 7 | 1u << 10, 0xFFFFFFFE, 0x1FFE, 0x7F,
         true, true},
        {"5,1-3,3 0 1 1 5-7", 0x2E, 1, 2, 2, 1 | 1 << 5 | 1 << 6, false, false},
        {"0 0 1 1 fri-sun", 1, 1, 2, 2, 1 | 1 << 5 | 1 << 6, false, false},
        {"0 0 1 1 sun-tue", 1, 1, 2, 2, 7, false, false},
        {"0 0 1 1 */2", 1, 1, 2, 2, 0x55, false, true},
        {"0 0 1 1 0-7", 1, 1, 2, 2, 0x7F, false, false},
        {"\t 00  007 1 1\t7 ", 1, 1u << 7, 2, 2, 1, false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sched_rule r = rule(rows[i].text, "2026-01-01");

        assert_int_equal(r.recur, SCHED_CRON);
        assert_int_equal(r.minute, rows[i].minute);
        assert_int_equal(r.hour, rows[i].hour);
        assert_int_equal(r.mday, rows[i].mday);
        assert_int_equal(r.month, rows[i].month);
        assert_int_equal(r.wday, rows[i].wday);
        assert_int_equal(r.mday_star, rows[i].mday_star);
        assert_int_equal(r.wday_star, rows[i].wday_star);
    }
}

static void bad_recurrences(void **state)
{
    static const char form[] = "is not daily, weekly, monthly or five cron fields";
    static const char minutes[] = "minute field: values are 0 to 59";

    (void)state;
    refused("yearly", form);
    refused("Daily", form);
    refused("daily ", form);
    refused(" ", form);
    refused("* * * *", form);
    refused("* * * * * *", form);
    refused("@daily", form);
    refused("60 * * * *", minutes);
    refused("-1 * * * *", minutes);
    refused("+1 * * * *", minutes);
    refused("1.5 * * * *", minutes);
    refused("a * * * *", minutes);
    refused("*5 * * * *", minutes);
    refused("1- * * * *", minutes);
    refused("1-2-3 * * * *", minutes);
    refused("*-5 * * * *", minutes);
    refused("99999999999999999999 * * * *", minutes);
    refused("* 24 * * *", "hour field: values are 0 to 23");
    refused("* * 0 * *", "day of month field: values are 1 to 31");
    refused("* * 32 * *", "day of month field: values are 1 to 31");
    refused("* * mon * *", "day of month field: values are 1 to 31");
    refused("* * * 0 *", "month field: values are 1 to 12 or three-letter names");
    refused("* * * 13 *", "month field: values are 1 to 12 or three-letter names");
    refused("* * * january *", "month field: values are 1 to 12 or three-letter names");
    refused("* * * * 8", "day of week field: values are 0 to 7 or three-letter names");
    refused("* * * * mo", "day of week field: values are 0 to 7 or three-letter names");
    refused("1,,2 * * * *", "minute field: a value is missing");
    refused(", * * * *", "minute field: a value is missing");
    refused("1, * * * *", "minute field: a value is missing");
    refused("/5 * * * *", "minute field: a value is missing");
    refused("30-10 * * * *", "minute field: a range runs backwards");
    refused("* * * * wed-mon", "day of week field: a range runs backwards");
    refused("5/10 * * * *", "minute field: a step needs * or a range before it");
    refused("*/0 * * * *", "minute field: steps are 1 to 59");
    refused("*/60 * * * *", "minute field: steps are 1 to 59");
    refused("*/ * * * *", "minute field: steps are 1 to 59");
    refused("*/2/2 * * * *", "minute field: steps are 1 to 59");
    refused("* */24 * * *", "hour field: steps are 1 to 23");
    refused("0 0 30 2 *", "is never due within eight years");
    refused("0 0 31 2,4,6,9,11 *", "is never due within eight years");
}

static void cron_days(void **state)
{
    (void)state;
    assert_due("30 9 * * 1-5", "2026-01-02T09:30:00Z", "2026-01-05T09:30:00Z", "2026-01-06T09:30:00Z");
    assert_due("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z",
               "2026-07-31T00:00:00Z", "2026-08-31T00:00:00Z", "2026-10-31T00:00:00Z", "2026-12-31T00:00:00Z");
    assert_due("0 0 29 2 *", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z");
    assert_due("0 0 29 2 *", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"); /* 2100 has none */
    assert_due("59 23 31 12 *", "2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z");
    /* either matches: Friday, or the 13th */
    assert_due("0 0 13 * 5", "2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z",
               "2026-02-27T00:00:00Z", "2026-03-06T00:00:00Z", "2026-03-13T00:00:00Z", "2026-03-20T00:00:00Z",
               "2026-03-27T00:00:00Z", "2026-04-03T00:00:00Z", "2026-04-10T00:00:00Z", "2026-04-13T00:00:00Z");
    /* a field that begins with a star restricts, it does not add: odd days that are Mondays */
    assert_due("0 0 */2 * 1", "2026-06-01T00:00:00Z", "2026-06-15T00:00:00Z", "2026-06-29T00:00:00Z",
               "2026-07-13T00:00:00Z", "2026-07-27T00:00:00Z");
    assert_due("30 2 * * 7", "2026-03-22T02:30:00Z", "2026-03-29T02:30:00Z", "2026-04-05T02:30:00Z");
    /* the anchor is due though it does not fit */
    assert_due("0 12 1 * *", "2026-04-10T07:01:02.000003Z", "2026-05-01T12:00:00Z", "2026-06-01T12:00:00Z");
}

static void cron_within_the_minute(void **state)
{
    struct sched_rule r = rule("0 * * * *", "2026-01-01T00:00:00Z");

    (void)state;
    assert_time(sched_next(&r, at("2026-01-01T00:59:59.999999Z")), "2026-01-01T01:00:00Z");
    assert_time(sched_next(&r, at("2026-01-01T01:00:00Z")), "2026-01-01T02:00:00Z");
    assert_time(sched_next(&r, at("2026-01-01T01:00:00.000001Z")), "2026-01-01T02:00:00Z");
    assert_time(sched_latest(&r, at("2026-01-01T01:00:00Z"), at("2026-01-01T01:00:59Z"), NULL), NULL);
    assert_time(sched_latest(&r, at("2026-01-01T00:59:59.999999Z"), at("2026-01-01T01:00:00Z"), NULL),
                "2026-01-01T01:00:00Z");
}

static void statuses(void **state)
{
    static const char *const names[] = {"pending", "active", "completed", "cancelled", "failed"};
    static const char moves[5][6] = {"-ACXF", "--CXF", "-----", "-----", "-----"};
    enum sched_status s = SCHED_FAILED;

    (void)state;
    for (int i = 0; i < 5; i++) {
        assert_string_equal(sched_status_name((enum sched_status)i), names[i]);
        assert_true(sched_status_parse(str_c(names[i]), &s));
        assert_int_equal(s, i);
        for (int j = 0; j < 5; j++)
            assert_int_equal(sched_may_move((enum sched_status)i, (enum sched_status)j), moves[i][j] != '-');
    }
    assert_null(sched_status_name((enum sched_status)5));
    assert_null(sched_status_name((enum sched_status) - 1));
    assert_false(sched_status_parse(STR("done"), &s));
    assert_false(sched_status_parse(STR_NONE, &s));
    assert_false(sched_may_move((enum sched_status)5, SCHED_ACTIVE));
    assert_false(sched_may_move(SCHED_ACTIVE, (enum sched_status)5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(once),
        cmocka_unit_test(daily_and_weekly),
        cmocka_unit_test(monthly_keeps_its_day),
        cmocka_unit_test(end_of_time),
        cmocka_unit_test(counts_are_capped),
        cmocka_unit_test(cron_fields),
        cmocka_unit_test(bad_recurrences),
        cmocka_unit_test(cron_days),
        cmocka_unit_test(cron_within_the_minute),
        cmocka_unit_test(statuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
