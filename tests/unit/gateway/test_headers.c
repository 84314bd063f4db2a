/* Headers, paths and routes of the gateway. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
/* cmocka.h wants those four first */
#include <cmocka.h>

#include "gateway/headers.h"
#include "gateway/routes.h"

static void hop_by_hop(void **state)
{
    (void)state;
    static const char *const hop[] = {"Connection",
                                      "KEEP-ALIVE",
                                      "te",
                                      "Trailer",
                                      "Transfer-Encoding",
                                      "upgrade",
                                      "Proxy-Authorization",
                                      "Content-Length",
                                      "Proxy-Connection",
                                      "HTTP2-Settings"};
    static const char *const end[] = {"Host", "Cookie", "Content-Type", "X-Connection", "Connectio", "Content-Lengths"};
    for (size_t i = 0; i < sizeof hop / sizeof *hop; i++)
        assert_true(header_is_hop(str_c(hop[i])));
    for (size_t i = 0; i < sizeof end / sizeof *end; i++)
        assert_false(header_is_hop(str_c(end[i])));
}

static void lists(void **state)
{
    (void)state;
    assert_true(header_lists(STR("close"), STR("Close")));
    assert_true(header_lists(STR("keep-alive,  X-Foo ,bar"), STR("x-foo")));
    assert_false(header_lists(STR("x-foobar, foo"), STR("x-foo")));
    assert_false(header_lists(STR(""), STR("x")));
    assert_false(header_lists(STR(",,"), STR("x")));
}

static void names_and_values(void **state)
{
    (void)state;
    assert_true(header_name_ok(STR("X-A_b.1!#$%&'*+^`|~")));
    static const char *const bad[] = {"", "a b", "a:", "a\r", "a\n", "a(", "\xc3\xa4", "a\t"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(header_name_ok(str_c(bad[i])));
    assert_true(header_value_ok(STR("a b\tc \xff")));
    assert_true(header_value_ok(STR("")));
    assert_false(header_value_ok(STR("a\rb")));
    assert_false(header_value_ok(STR("a\nb")));
    assert_false(header_value_ok(STR("a\0b")));
    assert_false(header_value_ok(STR("a\x7f")));
}

static void cookies(void **state)
{
    (void)state;
    const struct http_pair h[] = {{STR("Accept"), STR("SERVERID=no")},
                                  {STR("cookie"), STR("a=1; XSERVERID=2;SERVERID=")},
                                  {STR("Cookie"), STR("b; SERVERID=abc; SERVERID=later")}};
    struct str v = header_cookie(h, 3, STR("SERVERID"));
    assert_true(v.p && v.n == 0);
    v = header_cookie(h + 2, 1, STR("SERVERID"));
    assert_true(str_is(v, "abc"));
    assert_null(header_cookie(h, 1, STR("SERVERID")).p);
    assert_true(str_is(header_cookie(h + 1, 1, STR("a")), "1"));
}

static const struct {
    const char *sent, *seen; /* NULL: refused */
} paths[] = {
    {"/", "/"},
    {"/a/b", "/a/b"},
    {"/a/./b", "/a/b"},
    {"/./", "/"},
    {"/.", "/"},
    {"/a/.", "/a/"},
    {"/a/..", "/"},
    {"/a/../b", "/b"},
    {"/a/b/../../c", "/c"},
    {"/a//../b", "/a/b"},
    {"//a", "//a"},
    {"/...", "/..."},
    {"/a/..b/.c", "/a/..b/.c"},
    {"/%2e", "/"},
    {"/a/%2E%2e/b", "/b"},
    {"/a/.%2e/b", "/b"},
    {"/a%2fb", "/a%2fb"},
    {"/a%2F..%2Fb", "/a%2F..%2Fb"},
    {"/%7Euser/%61%5F-%2D", "/~user/a_--"},
    {"/%zz%4", "/%zz%4"},
    {"/%252e%252e/", "/%252e%252e/"},
    {"/..", NULL},
    {"/../a", NULL},
    {"/a/../..", NULL},
    {"/a/../../b", NULL},
    {"/%2e%2e/a", NULL},
};

static void paths_are_resolved(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct arena a;
        struct str got;
        arena_init(&a, NULL, 0, 65536);
        bool ok = path_normalise(&a, str_c(paths[i].sent), &got);
        if (ok != (paths[i].seen != NULL) || (ok && !str_is(got, paths[i].seen)))
            fail_msg("%s became %s", paths[i].sent, ok ? got.p : "a refusal");
        if (ok)
            assert_int_equal(got.p[got.n], '\0');
        arena_reset(&a);
    }
    struct arena small;
    struct str got = STR("x");
    arena_init(&small, NULL, 0, 2);
    assert_true(path_normalise(&small, STR("/abcdef"), &got));
    assert_null(got.p);
    arena_reset(&small);
}

/* What comes out is stable, holds no dot segment, and is not longer. */
static void any_path(void **state)
{
    (void)state;
    static const char *const parts[] = {"/", ".", "..", "a", "%2e", "%2F", "%41", "%", "~"};
    for (unsigned seed = 0; seed < 59049; seed++) {
        char text[32] = "/";
        for (unsigned i = 0, v = seed; i < 5; i++, v /= 9)
            strcat(text, parts[v % 9]);
        struct arena a;
        struct str once, twice;
        arena_init(&a, NULL, 0, 65536);
        if (path_normalise(&a, str_c(text), &once)) {
            assert_true(once.p && once.n <= strlen(text) && once.n > 0 && once.p[0] == '/');
            assert_null(strstr(once.p, "/../"));
            assert_null(strstr(once.p, "/./"));
            assert_true(path_normalise(&a, once, &twice));
            if (!strchr(once.p, '%')) /* "%%41" gives an escape that was none */
                assert_true(str_eq(once, twice));
        }
        arena_reset(&a);
    }
}

static void routes(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum gateway_group group;
        const char *prefix;
    } rows[] = {
        {"/api/auth/login", GATEWAY_IDENTITY, "/api/auth"},
        {"/api/events", GATEWAY_EVENT, "/api/events"},
        {"/api/events/7", GATEWAY_EVENT, "/api/events"},
        {"/api/eventsx", GATEWAY_API, "/api"},
        {"/api/bookings", GATEWAY_BOOKING, "/api/bookings"},
        {"/api/transactions/batch", GATEWAY_API, "/api/transactions/batch"},
        {"/api/transactions/transfer", GATEWAY_API, "/api"},
        {"/api/v1/auth/login", GATEWAY_API, "/api"},
        {"/api", GATEWAY_API, "/api"},
        {"/docs", GATEWAY_API, "/docs"},
        {"/problems/x", GATEWAY_API, "/problems"},
    };
    static const char *const none[] = {"/", "/apix", "/API/users", "", "/metrics", "/openapi.jsonx"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct gateway_row *r = gateway_row_find(str_c(rows[i].path));
        assert_non_null(r);
        assert_string_equal(r->prefix, rows[i].prefix);
        assert_int_equal(r->group, rows[i].group);
    }
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_null(gateway_row_find(str_c(none[i])));
    for (size_t i = 0; i < gateway_n_rows; i++)
        assert_true(gateway_rows[i].deadline_us > 0 && gateway_rows[i].most > 0 && gateway_rows[i].breaker[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hop_by_hop),
        cmocka_unit_test(lists),
        cmocka_unit_test(names_and_values),
        cmocka_unit_test(cookies),
        cmocka_unit_test(paths_are_resolved),
        cmocka_unit_test(any_path),
        cmocka_unit_test(routes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
