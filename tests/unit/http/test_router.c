#include "fixture.h"

#include "http/router.h"

static struct arena arena;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, NULL, 0, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_reset(&arena);
    return 0;
}

static const struct http_route routes[] = {
    {HTTP_GET, "/", 0, NULL},
    {HTTP_GET, "/users", 0, NULL},
    {HTTP_POST, "/users", 0, NULL},
    {HTTP_GET, "/users/{id}", 0, NULL},
    {HTTP_POST, "/users/key", 0, NULL},
    {HTTP_GET, "/users/{id}/friends/{friend}", 0, NULL},
    {HTTP_GET, "/users/key/friends/{friend}/since", 0, NULL},
    {HTTP_GET, "/files/{path...}", 0, NULL},
    {HTTP_GET, "/files/index", 0, NULL},
    {HTTP_GET, "/files/{name}/meta", 0, NULL},
};

/* The pattern that GET (or else POST) of the path meets; NULL: none. */
static const char *find(const struct router *r, const char *path, struct router_match *m)
{
    if (!router_find(r, &arena, str_c(path), m))
        return NULL;
    return m->routes[HTTP_GET] ? m->routes[HTTP_GET]->pattern : m->routes[HTTP_POST]->pattern;
}

static void expect(const struct router *r, const char *path, const char *pattern, const char *first, const char *second)
{
    struct router_match m;
    const char *hit = find(r, path, &m);
    assert_false(m.bad);
    if (!pattern) {
        assert_null(hit);
        return;
    }
    assert_non_null(hit);
    assert_string_equal(hit, pattern);
    assert_true(first ? str_is(m.params[0], first) : !m.params[0].p);
    assert_true(second ? str_is(m.params[1], second) : !m.params[1].p);
}

static void test_paths(void **state)
{
    (void)state;
    char why[256];
    struct router *r = router_new(routes, sizeof routes / sizeof routes[0], why);
    assert_non_null(r);
    expect(r, "/", "/", NULL, NULL);
    expect(r, "/users", "/users", NULL, NULL);
    expect(r, "/users/7", "/users/{id}", "7", NULL);
    expect(r, "/users/key", "/users/key", NULL, NULL);
    expect(r, "/users/key/friends/b", "/users/{id}/friends/{friend}", "key", "b");
    expect(r, "/users/key/friends/b/since", "/users/key/friends/{friend}/since", "b", NULL);
    expect(r, "/users/a%2Fb", "/users/{id}", "a/b", NULL);
    expect(r, "/users/%2541", "/users/{id}", "%41", NULL); /* decoded once */
    expect(r, "/users/a+b", "/users/{id}", "a+b", NULL);
    expect(r, "/%75sers", "/users", NULL, NULL);
    expect(r, "/users/\xc3\xa9", "/users/{id}", "\xc3\xa9", NULL);
    expect(r, "/files/a/b%20c/d", "/files/{path...}", "a/b c/d", NULL);
    expect(r, "/files/index", "/files/index", NULL, NULL);
    expect(r, "/files/x/meta", "/files/{name}/meta", "x", NULL);
    expect(r, "/files/x/meta/y", "/files/{path...}", "x/meta/y", NULL);
    expect(r, "/users/", NULL, NULL, NULL);
    expect(r, "/users//", NULL, NULL, NULL);
    expect(r, "//", NULL, NULL, NULL);
    expect(r, "/users/7/", NULL, NULL, NULL);
    expect(r, "/users/7/friends", NULL, NULL, NULL);
    expect(r, "/Users", NULL, NULL, NULL);
    expect(r, "/files", NULL, NULL, NULL);
    expect(r, "/files/", NULL, NULL, NULL);
    expect(r, "/nothing/at/all", NULL, NULL, NULL);
    router_free(r);
}

static void test_bad_escapes(void **state)
{
    (void)state;
    static const char *const bad[] = {"/users/%",    "/users/%4",  "/users/%zz", "/users/%00",
                                      "/users/\xff", "/%c3/users", "/users/%c3", "/users/%ed%a0%80"};
    char why[256];
    struct router *r = router_new(routes, sizeof routes / sizeof routes[0], why);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct router_match m;
        assert_null(find(r, bad[i], &m));
        assert_true(m.bad);
    }
    router_free(r);
}

static void test_deep(void **state)
{
    (void)state;
    char why[256], path[500] = "/files";
    struct router *r = router_new(routes, sizeof routes / sizeof routes[0], why);
    for (int i = 0; i < 200; i++)
        strcat(path, "/x");
    expect(r, path, "/files/{path...}", path + 7, NULL);
    memcpy(path, "/filez", 6);
    expect(r, path, NULL, NULL, NULL);
    router_free(r);
}

static void test_bad_patterns(void **state)
{
    (void)state;
    static const struct http_route bad[][2] = {
        {{HTTP_GET, "users", 0, NULL}},          {{HTTP_GET, "", 0, NULL}},
        {{HTTP_GET, "/a//b", 0, NULL}},          {{HTTP_GET, "/a/x{id}", 0, NULL}},
        {{HTTP_GET, "/a/{rest...}/b", 0, NULL}}, {{HTTP_GET, "/{a}/{b}/{c}/{d}/{e}", 0, NULL}},
        {{HTTP_METHODS, "/a", 0, NULL}},         {{HTTP_GET, "/a/{x}", 0, NULL}, {HTTP_GET, "/a/{y}", 0, NULL}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char why[256] = "";
        assert_null(router_new(bad[i], bad[i][1].pattern ? 2 : 1, why));
        assert_true(strlen(why) > 0);
    }
}

static void test_decode(void **state)
{
    (void)state;
    struct str s;
    assert_true(url_decode(&arena, STR("a+b%20c%2B"), true, &s));
    assert_true(str_is(s, "a b c+"));
    assert_true(url_decode(&arena, STR("a+b"), false, &s));
    assert_true(str_is(s, "a+b"));
    assert_true(url_decode(&arena, STR(""), true, &s));
    assert_int_equal(s.n, 0);
    assert_false(url_decode(&arena, STR("abc%"), true, &s));
    assert_false(url_decode(&arena, STR("abc%2"), true, &s));
    assert_false(url_decode(&arena, STR("%g0"), true, &s));
    assert_false(url_decode(&arena, STR("a\0b"), true, &s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_escapes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_patterns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_decode, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
