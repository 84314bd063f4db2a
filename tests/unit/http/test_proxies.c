/* Whose request it is behind proxies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "http/proxies.h"

enum { LINES = 4 };

/* The client as found; lines of X-Forwarded-For, in order. */
static const char *found(const char *trusted, const char *peer, const char *const lines[LINES])
{
    static char out[CIDR_ADDRESS_MAX];
    struct cidr_list l;
    struct str bad;
    struct http_pair h[LINES + 1] = {{STR("Host"), STR("x")}};
    unsigned n = 1;
    bool https;
    assert_true(cidr_list_parse(str_c(trusted), &l, &bad));
    for (unsigned i = 0; i < LINES && lines[i]; i++)
        h[n++] = (struct http_pair){i % 2 ? STR("x-forwarded-for") : STR("X-Forwarded-For"), str_c(lines[i])};
    snprintf(out, sizeof out, "%s", peer);
    proxies_resolve(&l, h, n, out, &https);
    assert_false(https);
    return out;
}

#define FOUND(trusted, peer, ...) found(trusted, peer, (const char *const[LINES]){__VA_ARGS__})

static void client(void **state)
{
    (void)state;
    static const char local[] = "127.0.0.1,10.0.0.0/8,2001:db8::/32";
    assert_string_equal(FOUND(local, "127.0.0.1", "203.0.113.9"), "203.0.113.9");
    /* the client wrote the first ones itself */
    assert_string_equal(FOUND(local, "127.0.0.1", "6.6.6.6, 203.0.113.9"), "203.0.113.9");
    assert_string_equal(FOUND(local, "127.0.0.1", "garbage \"' , 203.0.113.9"), "203.0.113.9");
    assert_string_equal(FOUND(local, "127.0.0.1", "6.6.6.6", "203.0.113.9"), "203.0.113.9");
    assert_string_equal(FOUND(local, "127.0.0.1", "6.6.6.6,", "203.0.113.9"), "203.0.113.9");
    /* through two proxies */
    assert_string_equal(FOUND(local, "127.0.0.1", "6.6.6.6, 203.0.113.9, 10.1.1.1"), "203.0.113.9");
    assert_string_equal(FOUND(local, "127.0.0.1", "6.6.6.6, 203.0.113.9", "10.1.1.1", "2001:db8::7"), "203.0.113.9");
    assert_string_equal(FOUND(local, "2001:db8::5", "2001:0DB9:0::1"), "2001:db9::1");
    /* forms */
    assert_string_equal(FOUND(local, "127.0.0.1", "203.0.113.9:4711"), "203.0.113.9");
    assert_string_equal(FOUND(local, "127.0.0.1", "[2001:db9::1]"), "2001:db9::1");
    assert_string_equal(FOUND(local, "127.0.0.1", "[2001:db9::1]:80 "), "2001:db9::1");
    assert_string_equal(FOUND(local, "127.0.0.1", "::ffff:203.0.113.9"), "203.0.113.9");
    /* all trusted: the one furthest away */
    assert_string_equal(FOUND(local, "127.0.0.1", "10.1.1.1, 10.1.1.2"), "10.1.1.1");
}

static void peer_itself(void **state)
{
    (void)state;
    static const char local[] = "127.0.0.1,10.0.0.0/8";
    assert_string_equal(FOUND("", "127.0.0.1", "203.0.113.9"), "127.0.0.1");
    assert_string_equal(FOUND(local, "192.0.2.1", "203.0.113.9"), "192.0.2.1"); /* not trusted */
    assert_string_equal(FOUND(local, "127.0.0.1"), "127.0.0.1");
    static const char *const malformed[] = {"",
                                            " ",
                                            "unknown",
                                            "203.0.113.9,",
                                            "203.0.113.9, ,10.0.0.1",
                                            "1.2.3",
                                            "_hidden",
                                            "203.0.113.9:x",
                                            "[::1",
                                            "[203.0.113.9]",
                                            "[::1]x",
                                            "[::1]:99999",
                                            "203.0.113.9 10.1",
                                            "for=1.2.3.4",
                                            "fe80::1%eth0",
                                            "1.2.3.4:80:",
                                            "\"203.0.113.9\""};
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
        if (strcmp(FOUND(local, "127.0.0.1", malformed[i]), "127.0.0.1") != 0)
            fail_msg("believed: %s", malformed[i]);
    char chain[512] = "203.0.113.9";
    for (unsigned i = 0; i < PROXIES_HOPS_MAX - 1; i++)
        strcat(chain, ", 10.0.0.1");
    assert_string_equal(FOUND(local, "127.0.0.1", chain), "203.0.113.9");
    strcat(chain, ", 10.0.0.1");
    assert_string_equal(FOUND(local, "127.0.0.1", chain), "127.0.0.1");
}

static void scheme(void **state)
{
    (void)state;
    static const struct {
        const char *peer, *proto;
        bool https;
    } c[] = {{"127.0.0.1", "https", true},       {"127.0.0.1", "HTTPS", true},
             {"127.0.0.1", "http", false},       {"127.0.0.1", "https, http", false},
             {"127.0.0.1", "http, https", true}, {"127.0.0.1", "gopher", false},
             {"127.0.0.1", "", false},           {"192.0.2.1", "https", false}};
    struct cidr_list l;
    struct str bad;
    assert_true(cidr_list_parse(STR("127.0.0.1"), &l, &bad));
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        struct http_pair h = {STR("X-Forwarded-Proto"), str_c(c[i].proto)};
        char peer[CIDR_ADDRESS_MAX];
        bool https = true;
        snprintf(peer, sizeof peer, "%s", c[i].peer);
        proxies_resolve(&l, &h, 1, peer, &https);
        assert_int_equal(https, c[i].https);
        assert_string_equal(peer, c[i].peer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(client), cmocka_unit_test(peer_itself),
                                       cmocka_unit_test(scheme)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
