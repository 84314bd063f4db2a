#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "codec/decimal.h"

#define ZEROS_20 "00000000000000000000"

static void parses(void **state)
{
    static const struct {
        const char *text;
        unsigned scale;
        int64_t minor;
    } t[] = {
        {"100.5", 2, 10050},
        {"100.50", 2, 10050},
        {"100", 2, 10000},
        {"0.01", 2, 1},
        {"0.5", 2, 50},
        {"7", 0, 7},
        {"1.234", 3, 1234},
        {"0.0001", 4, 1},
        {"9223372036854775807", 0, INT64_MAX},
        {"92233720368547758.07", 2, INT64_MAX},
        {"922337203685477.5807", 4, INT64_MAX},
        {"1e-2", 2, 1},
        {"1E-2", 2, 1},
        {"1.50e1", 2, 1500},
        {"1.5e1", 0, 15},
        {"1.5e+1", 2, 1500},
        {"1e18", 0, 1000000000000000000},
        {"1e16", 2, 1000000000000000000},
        {"10e-1", 1, 10},
        {"100.500e1", 2, 100500},
        {"0.0" ZEROS_20 "1e22", 0, 1},
        {"1e000", 2, 100},
        {"1e-0", 2, 100},
        {"1e00000000000000000000000000000001", 2, 1000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        int64_t v = -1;
        enum decimal_err e = decimal_parse(str_c(t[i].text), t[i].scale, &v);
        if (e != DECIMAL_OK || v != t[i].minor)
            fail_msg("%s at %u: error %d, value %lld", t[i].text, t[i].scale, e, (long long)v);
    }
}

static void refuses(void **state)
{
    static const struct {
        const char *text;
        unsigned scale;
        enum decimal_err e;
    } t[] = {
        {"", 2, DECIMAL_SYNTAX},
        {" 1", 2, DECIMAL_SYNTAX},
        {"1 ", 2, DECIMAL_SYNTAX},
        {"+5", 2, DECIMAL_SYNTAX},
        {"01", 2, DECIMAL_SYNTAX},
        {"00", 2, DECIMAL_SYNTAX},
        {"-01", 2, DECIMAL_SYNTAX},
        {".5", 2, DECIMAL_SYNTAX},
        {"5.", 2, DECIMAL_SYNTAX},
        {"5.e1", 2, DECIMAL_SYNTAX},
        {"-", 2, DECIMAL_SYNTAX},
        {"-.5", 2, DECIMAL_SYNTAX},
        {"--5", 2, DECIMAL_SYNTAX},
        {"e5", 2, DECIMAL_SYNTAX},
        {"1e", 2, DECIMAL_SYNTAX},
        {"1e+", 2, DECIMAL_SYNTAX},
        {"1e-", 2, DECIMAL_SYNTAX},
        {"1e5.0", 2, DECIMAL_SYNTAX},
        {"1e+-5", 2, DECIMAL_SYNTAX},
        {"1.2.3", 2, DECIMAL_SYNTAX},
        {"1,5", 2, DECIMAL_SYNTAX},
        {"1_000", 2, DECIMAL_SYNTAX},
        {"0x10", 2, DECIMAL_SYNTAX},
        {"NaN", 2, DECIMAL_SYNTAX},
        {"Infinity", 2, DECIMAL_SYNTAX},
        {"\xD9\xA1\xD9\xA2", 2, DECIMAL_SYNTAX}, /* Arabic-Indic 12 */
        {"\xEF\xBC\x91", 2, DECIMAL_SYNTAX},     /* full-width 1 */
        {"0", 2, DECIMAL_ZERO},
        {"-0", 2, DECIMAL_ZERO},
        {"0.00", 2, DECIMAL_ZERO},
        {"0.000", 2, DECIMAL_ZERO},
        {"0e9", 2, DECIMAL_ZERO},
        {"0e-400", 2, DECIMAL_ZERO},
        {"-1", 2, DECIMAL_NEGATIVE},
        {"-0.01", 2, DECIMAL_NEGATIVE},
        {"-1.555", 2, DECIMAL_NEGATIVE},
        {"-9223372036854775808", 0, DECIMAL_NEGATIVE},
        {"0.001", 2, DECIMAL_SCALE},
        {"100.500", 2, DECIMAL_SCALE},
        {"1.5", 0, DECIMAL_SCALE},
        {"1.0", 0, DECIMAL_SCALE},
        {"1e-3", 2, DECIMAL_SCALE},
        {"1e-400", 2, DECIMAL_SCALE},
        {"1e-99999999999999999999", 2, DECIMAL_SCALE},
        {"100e-2", 0, DECIMAL_SCALE},
        {"9223372036854775808", 0, DECIMAL_RANGE},
        {"92233720368547758.08", 2, DECIMAL_RANGE},
        {"92233720368547759", 2, DECIMAL_RANGE},
        {"1e400", 2, DECIMAL_RANGE},
        {"1e99999999999999999999", 2, DECIMAL_RANGE},
        {"1e17", 2, DECIMAL_RANGE},
        {"1e19", 0, DECIMAL_RANGE},
        {"99999999999999999999999", 2, DECIMAL_RANGE},
        {"18446744073709551617", 0, DECIMAL_RANGE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        int64_t v = -7;
        enum decimal_err e = decimal_parse(str_c(t[i].text), t[i].scale, &v);
        if (e != t[i].e)
            fail_msg("%s at %u: %d, not %d", t[i].text, t[i].scale, e, t[i].e);
        assert_int_equal(v, -7);
    }
    int64_t v = -7;
    assert_int_equal(decimal_parse(STR_NONE, 2, &v), DECIMAL_SYNTAX);
    assert_int_equal(decimal_parse(STR("1\0"), 2, &v), DECIMAL_SYNTAX);
}

static void bounds_the_length(void **state)
{
    char text[65];
    int64_t v;

    (void)state;
    memset(text, '0', sizeof text);
    memcpy(text, "5e", 2);
    assert_int_equal(decimal_parse((struct str){text, 64}, 2, &v), DECIMAL_OK);
    assert_int_equal(v, 500);
    assert_int_equal(decimal_parse((struct str){text, 65}, 2, &v), DECIMAL_RANGE);
    text[64] = 'x';
    assert_int_equal(decimal_parse((struct str){text, 65}, 2, &v), DECIMAL_SYNTAX);
}

static void formats(void **state)
{
    static const struct {
        int64_t minor;
        unsigned scale;
        const char *text;
    } t[] = {
        {10050, 2, "100.50"},
        {-5, 2, "-0.05"},
        {0, 2, "0.00"},
        {0, 0, "0"},
        {7, 0, "7"},
        {-7, 0, "-7"},
        {1, 4, "0.0001"},
        {10, 1, "1.0"},
        {99, 2, "0.99"},
        {100, 2, "1.00"},
        {INT64_MAX, 0, "9223372036854775807"},
        {INT64_MAX, 2, "92233720368547758.07"},
        {INT64_MIN, 0, "-9223372036854775808"},
        {INT64_MIN, 4, "-922337203685477.5808"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char out[DECIMAL_TEXT_MAX];
        assert_int_equal(decimal_format(t[i].minor, t[i].scale, out), strlen(t[i].text));
        assert_string_equal(out, t[i].text);
    }
}

static void parses_what_it_formats(void **state)
{
    (void)state;
    for (unsigned scale = 0; scale <= 4; scale++) {
        for (int64_t v = 1; v > 0 && v < INT64_MAX / 3; v = v * 3 + (int64_t)scale) {
            char out[DECIMAL_TEXT_MAX];
            int64_t back = 0;
            size_t n = decimal_format(v, scale, out);
            assert_int_equal(decimal_parse((struct str){out, n}, scale, &back), DECIMAL_OK);
            assert_true(back == v);
        }
    }
}

static void gives_reasons(void **state)
{
    (void)state;
    assert_string_equal(decimal_reason(DECIMAL_SCALE, 2), "must have at most 2 decimals");
    assert_string_equal(decimal_reason(DECIMAL_SCALE, 1), "must have at most 1 decimal");
    assert_string_equal(decimal_reason(DECIMAL_SCALE, 0), "must be a whole number");
    assert_string_equal(decimal_reason(DECIMAL_ZERO, 2), "must be greater than 0");
    assert_string_equal(decimal_reason(DECIMAL_NEGATIVE, 2), "must be greater than 0");
    assert_true(strlen(decimal_reason(DECIMAL_SYNTAX, 2)) > 0);
    assert_true(strlen(decimal_reason(DECIMAL_RANGE, 2)) > 0);
    assert_non_null(decimal_reason(DECIMAL_SCALE, 99));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses),
        cmocka_unit_test(refuses),
        cmocka_unit_test(formats),
        cmocka_unit_test(parses_what_it_formats),
        cmocka_unit_test(bounds_the_length),
        cmocka_unit_test(gives_reasons),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
