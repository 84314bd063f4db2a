#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "codec/json_out.h"

#define WRITES(want, ...)                                                                                              \
    do {                                                                                                               \
        struct buf b;                                                                                                  \
        struct jw w;                                                                                                   \
        buf_init(&b, 0);                                                                                               \
        jw_init(&w, &b);                                                                                               \
        __VA_ARGS__;                                                                                                   \
        buf_putc(&b, '\0');                                                                                            \
        assert_false(b.failed);                                                                                        \
        assert_string_equal(b.p, (want));                                                                              \
        buf_free(&b);                                                                                                  \
    } while (0)

static void commas(void **state)
{
    (void)state;
    WRITES("{}", jw_obj(&w); jw_end_obj(&w));
    WRITES("[]", jw_arr(&w); jw_end_arr(&w));
    WRITES("{\"a\":{},\"b\":[],\"c\":1}", jw_obj(&w); jw_key(&w, "a"); jw_obj(&w); jw_end_obj(&w); jw_key(&w, "b");
           jw_arr(&w); jw_end_arr(&w); jw_kint(&w, "c", 1); jw_end_obj(&w));
    WRITES("[[1,2],[3],[],{\"k\":[4,{\"l\":5}],\"m\":6},7]", jw_arr(&w); jw_arr(&w); jw_int(&w, 1); jw_int(&w, 2);
           jw_end_arr(&w); jw_arr(&w); jw_int(&w, 3); jw_end_arr(&w); jw_arr(&w); jw_end_arr(&w); jw_obj(&w);
           jw_key(&w, "k"); jw_arr(&w); jw_int(&w, 4); jw_obj(&w); jw_kint(&w, "l", 5); jw_end_obj(&w); jw_end_arr(&w);
           jw_kint(&w, "m", 6); jw_end_obj(&w); jw_int(&w, 7); jw_end_arr(&w));
}

static void values(void **state)
{
    (void)state;
    WRITES("{\"s\":\"x\",\"z\":\"y\",\"nz\":null,\"ns\":null,\"e\":\"\",\"i\":-9223372036854775808,"
           "\"u\":18446744073709551615,\"t\":true,\"f\":false,\"n\":null,\"a\":100.50,\"at\":"
           "\"2026-11-21T06:15:26.123456Z\",\"r\":[1,2]}",
           jw_obj(&w);
           jw_kstr(&w, "s", STR("x")); jw_kz(&w, "z", "y"); jw_kz(&w, "nz", NULL); jw_kstr(&w, "ns", STR_NONE);
           jw_kstr(&w, "e", STR("")); jw_kint(&w, "i", INT64_MIN); jw_kuint(&w, "u", UINT64_MAX);
           jw_kbool(&w, "t", true); jw_kbool(&w, "f", false); jw_knull(&w, "n"); jw_kamount(&w, "a", 10050, 2);
           jw_ktime(&w, "at", 1795241726123456); jw_key(&w, "r"); jw_raw(&w, STR("[1,2]")); jw_end_obj(&w));
    WRITES("[-0.05,0,0.000,-92233720368547758.08]", jw_arr(&w); jw_amount(&w, -5, 2); jw_amount(&w, 0, 0);
           jw_amount(&w, 0, 3); jw_amount(&w, INT64_MIN, 2); jw_end_arr(&w));
}

static void ratios(void **state)
{
    (void)state;
    WRITES("[0.0000,0.0000,0.5000,0.6667,0.3333,1.0000,1.0000,2.5000,18446744073709551615.0000,1.0000,0.0000]",
           jw_arr(&w);
           jw_ratio(&w, 5, 0); jw_ratio(&w, 0, 5); jw_ratio(&w, 1, 2); jw_ratio(&w, 2, 3); jw_ratio(&w, 1, 3);
           jw_ratio(&w, 7, 7); jw_ratio(&w, 99999, 100000); jw_ratio(&w, 5, 2); jw_ratio(&w, UINT64_MAX, 1);
           jw_ratio(&w, UINT64_MAX, UINT64_MAX); jw_ratio(&w, 1, UINT64_MAX); jw_end_arr(&w));
}

static void escapes(void **state)
{
    (void)state;
    WRITES("\"a\\\"b\\\\c/d\\b\\f\\n\\r\\te\"", jw_str(&w, STR("a\"b\\c/d\b\f\n\r\te")));
    WRITES("\"\\u0000\\u0001\\u000b\\u001f \x7f\"", jw_str(&w, STR("\0\x01\x0b\x1f \x7f")));
    WRITES("\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"", jw_str(&w, STR("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80")));
    WRITES("\"\\u2028x\\u2029\xE2\x80\xA7\xE2\x80\xAA\"",
           jw_str(&w, STR("\xE2\x80\xA8x\xE2\x80\xA9\xE2\x80\xA7\xE2\x80\xAA")));
    WRITES("{\"a\\\"\\n\":1,\"\":2}", jw_obj(&w); jw_key_str(&w, STR("a\"\n")); jw_int(&w, 1); jw_key_str(&w, STR(""));
           jw_int(&w, 2); jw_end_obj(&w));
}

/* A string that ends where an escape of three bytes would begin is not read beyond. */
static void stays_within_the_string(void **state)
{
    (void)state;
    WRITES("\"a\xE2\"", jw_str(&w, (struct str){"a\xE2\x80\xA8", 2}));
    WRITES("\"a\xE2\x80\"", jw_str(&w, (struct str){"a\xE2\x80\xA8", 3}));
}

static void errors_stick(void **state)
{
    struct buf b;
    struct jw w;

    (void)state;
    buf_init(&b, 10);
    jw_init(&w, &b);
    jw_obj(&w);
    jw_kz(&w, "name", "too long for it");
    assert_true(b.failed);
    jw_kint(&w, "x", 1);
    jw_end_obj(&w);
    assert_true(b.failed);
    assert_true(b.n <= 10);
    buf_free(&b);
}

static void depth_is_bounded(void **state)
{
    struct buf b;
    struct jw w;

    (void)state;
    buf_init(&b, 0);
    jw_init(&w, &b);
    for (int i = 0; i < 63; i++)
        jw_arr(&w);
    jw_int(&w, 1);
    jw_int(&w, 2);
    for (int i = 0; i < 63; i++)
        jw_end_arr(&w);
    assert_false(b.failed);
    assert_int_equal(b.n, 63 + 3 + 63);
    jw_end_arr(&w);
    assert_true(b.failed);

    buf_clear(&b);
    jw_init(&w, &b);
    for (int i = 0; i < 64; i++)
        jw_arr(&w);
    assert_true(b.failed);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas),
        cmocka_unit_test(values),
        cmocka_unit_test(ratios),
        cmocka_unit_test(escapes),
        cmocka_unit_test(errors_stick),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(stays_within_the_string),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
