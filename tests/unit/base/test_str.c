#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/str.h"

static struct str hex(const char *z, char *out)
{
    size_t n = 0;

    for (; z[0]; z += 2) {
        unsigned v = 0;
        for (int i = 0; i < 2; i++)
            v = v * 16 + (unsigned)(z[i] <= '9' ? z[i] - '0' : z[i] - 'A' + 10);
        out[n++] = (char)v;
    }
    return (struct str){out, n};
}

static void compares(void **state)
{
    (void)state;
    assert_true(str_eq(STR(""), STR_NONE));
    assert_true(str_is(STR("ab"), "ab"));
    assert_false(str_is(STR("ab"), "abc"));
    assert_true(str_is(STR_NONE, NULL));
    assert_true(str_eq_nocase(STR("Content-TYPE"), STR("content-type")));
    assert_false(str_eq_nocase(STR("a"), STR("ab")));
    assert_false(str_eq_nocase(STR("@"), STR("`")));
    assert_false(str_eq_nocase(STR("\xC4"), STR("\xE4")));
    assert_true(str_starts(STR("pf_abc"), STR("pf_")));
    assert_true(str_starts(STR("x"), STR("")));
    assert_false(str_starts(STR("pf"), STR("pf_")));
}

static void trims(void **state)
{
    (void)state;
    assert_true(str_is(str_trim(STR(" \t a b\r\n")), "a b"));
    assert_int_equal(str_trim(STR(" \t ")).n, 0);
    assert_int_equal(str_trim(STR_NONE).n, 0);
}

static void globs(void **state)
{
    (void)state;
    assert_true(str_glob(STR("user:*"), STR("user:1")));
    assert_true(str_glob(STR("user:*"), STR("user:")));
    assert_false(str_glob(STR("user:*"), STR("users")));
    assert_true(str_glob(STR("*"), STR("")));
    assert_true(str_glob(STR(""), STR("")));
    assert_false(str_glob(STR(""), STR("a")));
    assert_false(str_glob(STR("?"), STR("")));
    assert_true(str_glob(STR("a?c"), STR("abc")));
    assert_true(str_glob(STR("*:1:*:USD"), STR("balance:1:1:USD")));
    assert_false(str_glob(STR("*:1:*:USD"), STR("balance:1:USDX")));
    assert_true(str_glob(STR("**a**"), STR("bab")));
    assert_true(str_glob(STR("user:[2]"), STR("user:2")));
    assert_false(str_glob(STR("user:[2]"), STR("user:3")));
    assert_true(str_glob(STR("*[0-9a]"), STR("x7")));
    assert_false(str_glob(STR("*[0-9a]"), STR("xb")));
    assert_true(str_glob(STR("[!a-c]x"), STR("dx")));
    assert_false(str_glob(STR("[^a-c]x"), STR("bx")));
    assert_true(str_glob(STR("[]]"), STR("]")));
    assert_true(str_glob(STR("[a-]"), STR("-")));
    assert_true(str_glob(STR("[ab"), STR("[ab"))); /* no class without its end */
    assert_true(str_glob(STR("["), STR("[")));
    assert_false(str_glob(STR("[a]"), STR("")));
    assert_false(str_glob(STR("[a]"), STR("[a]")));
}

/* A backtracker that tries every star at every place would not come back from this. */
static void glob_does_not_explode(void **state)
{
    char text[20000];

    (void)state;
    memset(text, 'a', sizeof text);
    assert_false(str_glob(STR("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"), (struct str){text, sizeof text}));
}

static void reads_numbers(void **state)
{
    uint64_t u = 7;
    int64_t i = 7;

    (void)state;
    assert_true(str_to_u64(STR("18446744073709551615"), &u));
    assert_true(u == UINT64_MAX);
    assert_false(str_to_u64(STR("18446744073709551616"), &u));
    assert_false(str_to_u64(STR("99999999999999999999"), &u));
    assert_true(u == UINT64_MAX);
    assert_true(str_to_u64(STR("007"), &u) && u == 7);
    assert_false(str_to_u64(STR(""), &u));
    assert_false(str_to_u64(STR("-1"), &u));
    assert_false(str_to_u64(STR("+1"), &u));
    assert_false(str_to_u64(STR("1 "), &u));
    assert_false(str_to_u64(STR("\xD9\xA1"), &u));

    assert_true(str_to_i64(STR("9223372036854775807"), &i) && i == INT64_MAX);
    assert_true(str_to_i64(STR("-9223372036854775808"), &i) && i == INT64_MIN);
    assert_false(str_to_i64(STR("9223372036854775808"), &i));
    assert_false(str_to_i64(STR("-9223372036854775809"), &i));
    assert_true(i == INT64_MIN);
    assert_true(str_to_i64(STR("-0"), &i) && i == 0);
    assert_false(str_to_i64(STR("-"), &i));
    assert_false(str_to_i64(STR("--1"), &i));
    assert_false(str_to_i64(STR(""), &i));
}

static void writes_numbers(void **state)
{
    static const struct {
        uint64_t v;
        const char *text;
    } t[] = {{0, "0"},     {9, "9"},     {10, "10"},     {99, "99"},
             {100, "100"}, {101, "101"}, {9999, "9999"}, {UINT64_MAX, "18446744073709551615"}};
    char out[STR_U64_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        assert_true(str_is((struct str){out, str_from_u64(t[i].v, out)}, t[i].text));
}

static void knows_utf8(void **state)
{
    static const char *const good[] = {
        "",
        "41",
        "7F",
        "C280",
        "DFBF",
        "E0A080",
        "ED9FBF",
        "EE8080",
        "EFBFBF",
        "F0908080",
        "F48FBFBF",
        "E282AC",
        "4142434445464748C3A9",
        "F09F98804142434445464748",
    };
    static const char *const bad[] = {
        "80",
        "BF",
        "C080",
        "C1BF",
        "C2",
        "C241",
        "E08080",
        "E09FBF",
        "EDA080",
        "EDBFBF",
        "E282",
        "E28241",
        "F0808080",
        "F08FBFBF",
        "F4908080",
        "F5808080",
        "FF",
        "FE",
        "F09F98",
        "41424344454647C3",
        "4142434445464748FF",
        "F8888080",
    };
    char tmp[64];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(str_utf8_ok(hex(good[i], tmp)));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(str_utf8_ok(hex(bad[i], tmp)));
    assert_int_equal(str_utf8_seq(hex("E282AC41", tmp)), 3);
    assert_int_equal(str_utf8_seq(hex("F09F9880", tmp)), 4);
    assert_int_equal(str_utf8_seq(hex("C3A9", tmp)), 2);
    assert_int_equal(str_utf8_seq(hex("41C3", tmp)), 1);
    assert_int_equal(str_utf8_seq(STR_NONE), 0);
}

static void copies(void **state)
{
    char dst[4] = "xxx";

    (void)state;
    assert_true(str_copy(dst, sizeof dst, STR("abc")));
    assert_string_equal(dst, "abc");
    assert_false(str_copy(dst, sizeof dst, STR("abcd")));
    assert_string_equal(dst, "");
    assert_true(str_copy(dst, sizeof dst, STR_NONE));
    assert_string_equal(dst, "");
    assert_false(str_copy(dst, 0, STR("")));
}

/* Every length around a word: equal bytes hash alike wherever they lie, and each bit of each byte counts. */
static void hashes(void **state)
{
    char a[40], b[41];

    (void)state;
    for (size_t i = 0; i < sizeof a; i++)
        a[i] = (char)i;
    memcpy(b + 1, a, sizeof a);
    for (size_t n = 0; n <= sizeof a; n++) {
        uint64_t h = str_hash((struct str){a, n});
        assert_true(h == str_hash((struct str){b + 1, n}));
        for (size_t i = 0; i < n; i++) {
            a[i] ^= 1;
            assert_true(h != str_hash((struct str){a, n}));
            a[i] ^= 1;
        }
        if (n)
            assert_true(h != str_hash((struct str){a, n - 1}));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compares),      cmocka_unit_test(trims),
        cmocka_unit_test(globs),         cmocka_unit_test(glob_does_not_explode),
        cmocka_unit_test(reads_numbers), cmocka_unit_test(writes_numbers),
        cmocka_unit_test(knows_utf8),    cmocka_unit_test(copies),
        cmocka_unit_test(hashes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
