#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/cidr.h"

static bool has(const char *list, const char *address)
{
    struct cidr_list l;
    struct cidr_address a;
    struct str bad;
    if (!cidr_list_parse(str_c(list), &l, &bad))
        fail_msg("%s: %.*s", list, (int)bad.n, bad.p);
    assert_true(cidr_address_parse(str_c(address), &a));
    return cidr_list_has(&l, &a);
}

static void contains(void **state)
{
    (void)state;
    static const struct {
        const char *list, *in, *out;
    } c[] = {
        {"10.0.0.0/8", "10.255.255.255", "11.0.0.0"},
        {"192.0.2.1", "192.0.2.1", "192.0.2.2"},
        {"192.0.2.128/25", "192.0.2.255", "192.0.2.127"},
        {"192.0.2.4/31", "192.0.2.5", "192.0.2.6"},
        {"0.0.0.0/0", "203.0.113.9", "2001:db8::1"}, /* IPv6 is no part of it */
        {"::1", "::1", "::2"},
        {"2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"},
        {"10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"},
        {"::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"},
        {" 127.0.0.1 ,::1,\t10.0.0.0/8", "10.0.0.1", "192.0.2.1"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        if (!has(c[i].list, c[i].in) || has(c[i].list, c[i].out))
            fail_msg("%s, %s, %s", c[i].list, c[i].in, c[i].out);
    }
    assert_true(has("::/0", "127.0.0.1")); /* everything */
    assert_false(has("", "127.0.0.1"));
    assert_false(has("  ", "::"));
}

/* Every prefix length against a plain comparison of bits, on addresses that differ in one. */
static void prefixes(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits <= 128; bits++)
        for (unsigned flip = 0; flip < 128; flip++) {
            struct cidr_list l = {.n = 1, .at[0] = {.bits = bits}};
            struct cidr_address a = {{0}};
            a.b[flip / 8] = (uint8_t)(0x80 >> flip % 8);
            assert_int_equal(cidr_list_has(&l, &a), flip >= bits);
        }
}

static void refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "10.0.0.0/33", "10.0.0.0/",      "10.0.0.0/-1",         "10.0.0.0/8x",
        "10.0.0.1/8",  "10.0.0",         "300.0.0.1",           "localhost",
        "::1/129",     "2001:db8::1/32", "::ffff:10.0.0.1/104", "10.0.0.1,",
        ",10.0.0.1",   "10.0.0.1,,::1",  "fe80::1%eth0",        "[::1]",
        "/8",          "10.0.0.1:80",    "010.0.0.1",           "*",
    };
    struct cidr_list l;
    struct str at;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (cidr_list_parse(str_c(bad[i]), &l, &at))
            fail_msg("taken: %s", bad[i]);
    assert_false(cidr_list_parse(STR("10.0.0.1, x ,10.0.0.2"), &l, &at));
    assert_true(str_is(at, "x"));
    char many[16 * (CIDR_LIST_MAX + 1)] = "";
    for (unsigned i = 0; i < CIDR_LIST_MAX; i++)
        sprintf(many + strlen(many), "%s10.0.0.%u", i ? "," : "", i);
    assert_true(cidr_list_parse(str_c(many), &l, &at));
    assert_int_equal(l.n, CIDR_LIST_MAX);
    strcat(many, ",10.0.1.0");
    assert_false(cidr_list_parse(str_c(many), &l, &at));
    assert_true(str_is(at, "10.0.1.0"));
    struct cidr_address a;
    assert_false(cidr_address_parse(STR_NONE, &a));
    assert_false(cidr_address_parse((struct str){"1.2.3.4\0", 8}, &a));
}

static void formats(void **state)
{
    (void)state;
    static const char *const c[][2] = {
        {"192.0.2.1", "192.0.2.1"},
        {"::ffff:192.0.2.1", "192.0.2.1"},
        {"2001:DB8:0:0::1", "2001:db8::1"},
        {"::", "::"},
        {"1111:2222:3333:4444:5555:6666:7777:8888", "1111:2222:3333:4444:5555:6666:7777:8888"}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        struct cidr_address a;
        char out[CIDR_ADDRESS_MAX];
        assert_true(cidr_address_parse(str_c(c[i][0]), &a));
        cidr_address_format(&a, out);
        assert_string_equal(out, c[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contains),
        cmocka_unit_test(prefixes),
        cmocka_unit_test(refuses),
        cmocka_unit_test(formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
