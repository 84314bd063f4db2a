#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "base/clock.h"

static const int64_t DAY = 86400000000;

static void the_machines_clocks(void **state)
{
    const struct clock *c = clock_system();
    int64_t wall = clock_wall(c), mono = clock_mono(c);

    (void)state;
    assert_true(wall / 1000000 - (int64_t)time(NULL) <= 1 && (int64_t)time(NULL) - wall / 1000000 <= 1);
    for (int i = 0; i < 1000; i++) {
        int64_t now = clock_mono(c);
        assert_true(now >= mono);
        mono = now;
    }
}

/* Every day of 1600 to 2500 follows the one before, as the rules of the calendar say. */
static void days_in_a_row(void **state)
{
    struct civil at = {.year = 1600, .month = 1, .day = 1}, c;
    int64_t us = civil_to_us(&at);
    int wday = 6; /* 1600-01-01 was a Saturday */

    (void)state;
    while (at.year < 2500) {
        civil_from_us(us + 1, &c);
        assert_int_equal(c.year, at.year);
        assert_int_equal(c.month, at.month);
        assert_int_equal(c.day, at.day);
        assert_int_equal(c.wday, wday);
        assert_int_equal(c.usec, 1);
        assert_true(civil_to_us(&c) == us + 1);
        us += DAY;
        wday = (wday + 1) % 7;
        if (++at.day > civil_days_in_month(at.year, at.month)) {
            at.day = 1;
            if (++at.month > 12) {
                at.month = 1;
                at.year++;
            }
        }
    }
    assert_int_equal(civil_days_in_month(2000, 2), 29);
    assert_int_equal(civil_days_in_month(1900, 2), 28);
    assert_int_equal(civil_days_in_month(2024, 2), 29);
    assert_int_equal(civil_days_in_month(2023, 2), 28);
}

static void agrees_with_libc(void **state)
{
    static const int64_t seconds[] = {0,           -1,           1,           951782400, 1709164800, 4102444800,
                                      -2208988800, 253402300799, -62167219200};

    (void)state;
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        time_t t = (time_t)seconds[i];
        struct civil c;
        struct tm tm;
        gmtime_r(&t, &tm);
        civil_from_us(seconds[i] * 1000000 + 999999, &c);
        assert_int_equal(c.year, tm.tm_year + 1900);
        assert_int_equal(c.month, tm.tm_mon + 1);
        assert_int_equal(c.day, tm.tm_mday);
        assert_int_equal(c.hour, tm.tm_hour);
        assert_int_equal(c.min, tm.tm_min);
        assert_int_equal(c.sec, tm.tm_sec);
        assert_int_equal(c.wday, tm.tm_wday);
        assert_int_equal(c.usec, 999999);
    }
}

static void survives_the_ends_of_int64(void **state)
{
    struct civil c;

    (void)state;
    civil_from_us(INT64_MAX, &c);
    assert_int_equal(c.year, 294247);
    civil_from_us(INT64_MIN, &c);
    assert_int_equal(c.year, -290308);
    assert_true(c.wday >= 0 && c.wday < 7);
}

static void formats(void **state)
{
    char out[TIME_RFC3339_MAX];

    (void)state;
    assert_int_equal(time_format(0, out), 27);
    assert_string_equal(out, "1970-01-01T00:00:00.000000Z");
    time_format(1795241726123456, out);
    assert_string_equal(out, "2026-11-21T06:15:26.123456Z");
    time_format(-1, out);
    assert_string_equal(out, "1969-12-31T23:59:59.999999Z");
    assert_int_equal(time_format(INT64_MAX, out), 27);
    assert_string_equal(out, "9999-12-31T23:59:59.999999Z");
    assert_int_equal(time_format(INT64_MIN, out), 27);
    assert_string_equal(out, "0000-01-01T00:00:00.000000Z");
}

static void parses(void **state)
{
    static const struct {
        const char *text;
        int64_t us;
    } good[] = {
        {"2026-11-21T06:15:26.123456Z", 1795241726123456},
        {"2026-11-21t06:15:26.123456z", 1795241726123456},
        {"2026-11-21T06:15:26Z", 1795241726000000},
        {"2026-11-21T06:15:26.1Z", 1795241726100000},
        {"2026-11-21T06:15:26.123456789Z", 1795241726123456},
        {"2026-11-21T08:15:26+02:00", 1795241726000000},
        {"2026-11-21T08:15:26 02:00", 1795241726000000},
        {"2026-11-21T00:45:26-05:30", 1795241726000000},
        {"2026-11-21T06:15:26-00:00", 1795241726000000},
        {"2026-11-21", 1795219200000000},
        {"1970-01-01T00:00:00Z", 0},
        {"2024-02-29", 1709164800000000},
        {"9999-12-31T23:59:59.999999999Z", 253402300799999999},
        {"1969-12-31T23:59:59Z", -1000000},
        {"0001-01-01T00:00:00Z", -62135596800000000},
        {"2016-12-31T23:59:60Z", 1483228800000000},
        {"2017-01-01T05:29:60.25+05:30", 1483228800250000},
    };
    static const char *const bad[] = {
        "",
        "2026",
        "2026-11",
        "2026-11-21T",
        "2026-11-21T06:15Z",
        "2026-11-21T06:15:26",
        "2026-11-21 06:15:26Z",
        "2026-11-21T06:15:26.Z",
        "2026-11-21T06:15:26.1234567890Z",
        "2026-11-21T06:15:60Z",
        "2016-12-31T23:59:60+01:00",
        "2016-12-31T23:59:61Z",
        "2026-11-21T24:00:00Z",
        "2026-11-21T06:60:00Z",
        "2026-11-31",
        "2026-02-29",
        "2026-00-01",
        "2026-13-01",
        "2026-01-00",
        "9999-12-31T23:59:59-00:01",
        "2026-11-21T06:15:26Zx",
        "2026-11-21T06:15:26+2:00",
        "2026-11-21T06:15:26+24:00",
        "2026-11-21T06:15:26+02:60",
        "2026-11-21T06:15:26+0200",
        "+026-11-21",
        "26-11-21",
        "2026-11-2x",
        "2026/11/21",
        " 2026-11-21",
        "2026-11-21Z",
        "2026-11-21T06:15:26,5Z",
        "2026-11-21T-6:15:26Z",
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t us = -1;
        assert_true(time_parse(str_c(good[i].text), &us));
        assert_true(us == good[i].us);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t us = -7;
        if (time_parse(str_c(bad[i]), &us))
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(us, -7);
    }
}

static void parses_what_it_formats(void **state)
{
    char out[TIME_RFC3339_MAX];

    (void)state;
    for (int64_t us = 0; us < 253402300799999999; us += 123456789012345) {
        int64_t back;
        size_t n = time_format(us, out);
        assert_true(time_parse((struct str){out, n}, &back));
        assert_true(back == us);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_machines_clocks),
        cmocka_unit_test(days_in_a_row),
        cmocka_unit_test(agrees_with_libc),
        cmocka_unit_test(survives_the_ends_of_int64),
        cmocka_unit_test(formats),
        cmocka_unit_test(parses),
        cmocka_unit_test(parses_what_it_formats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
