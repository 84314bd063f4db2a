#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "codec/json_in.h"

static struct arena arena;

static int set_up(void **state)
{
    (void)state;
    arena_init(&arena, NULL, 0, (size_t)64 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_reset(&arena);
    return 0;
}

static struct json *parse(struct str text)
{
    struct json *v = NULL;
    struct problem p = {0};

    if (json_parse(&arena, text, &v, &p) != PFE_OK)
        fail_msg("%.*s: %s", (int)text.n, text.p, p.detail);
    assert_int_equal(p.code, PFE_OK);
    assert_non_null(v);
    return v;
}

static void refuse(struct str text, const char *reason)
{
    struct json *v = NULL;
    struct problem p = {0};
    size_t used = arena.used;

    if (json_parse(&arena, text, &v, &p) != PFE_BAD_JSON)
        fail_msg("taken: %.*s", (int)text.n, text.p);
    assert_null(v);
    assert_int_equal(p.code, PFE_BAD_JSON);
    assert_int_equal(arena.used, used);
    assert_memory_equal(p.detail, "malformed JSON at byte ", 23);
    if (!strstr(p.detail, reason))
        fail_msg("%.*s: \"%s\" does not say \"%s\"", (int)text.n, text.p, p.detail, reason);
    assert_null(strchr(p.detail, '\n'));
}

static void scalars(void **state)
{
    (void)state;
    assert_int_equal(parse(STR("null"))->type, JSON_NULL);
    assert_int_equal(parse(STR(" true "))->type, JSON_TRUE);
    assert_int_equal(parse(STR("false\n"))->type, JSON_FALSE);
    assert_true(str_is(parse(STR("\"x\""))->s, "x"));
    assert_int_equal(parse(STR("\"\""))->s.n, 0);
    assert_true(str_is(parse(STR("17"))->s, "17"));
}

static void numbers_keep_their_digits(void **state)
{
    static const char *const t[] = {
        "0",   "-0",  "100.50", "1e400", "1E-400", "-1.50e+07", "123456789012345678901234567890.123456789",
        "0.1", "1.0", "-0.0e0"};

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char text[100];
        struct json *v = parse(str_c(t[i]));
        assert_int_equal(v->type, JSON_NUMBER);
        assert_true(str_is(v->s, t[i]));
        snprintf(text, sizeof text, "{\"amount\":%s}", t[i]);
        assert_true(str_is(json_get(parse(str_c(text)), "amount")->s, t[i]));
    }
}

static void trees(void **state)
{
    (void)state;
    struct json *v = parse(STR("{ \"a\" : [1, {\"b\":null}, []], \"c\":{}, \"d\":\"e\" }"));
    assert_int_equal(v->type, JSON_OBJECT);
    assert_int_equal(v->n, 3);
    struct json *a = v->child;
    assert_true(str_is(a->key, "a"));
    assert_int_equal(a->type, JSON_ARRAY);
    assert_int_equal(a->n, 3);
    assert_true(str_is(a->child->s, "1"));
    assert_int_equal(a->child->key.n, 0);
    assert_true(str_is(a->child->next->child->key, "b"));
    assert_int_equal(a->child->next->child->type, JSON_NULL);
    assert_int_equal(a->child->next->next->n, 0);
    assert_null(a->child->next->next->child);
    assert_null(a->child->next->next->next);
    assert_true(str_is(a->next->key, "c"));
    assert_int_equal(a->next->type, JSON_OBJECT);
    assert_ptr_equal(json_get(v, "d"), a->next->next);
    assert_true(str_is(json_get(v, "d")->s, "e"));
    assert_null(json_get(v, "e"));
    assert_null(json_get(v, ""));
    assert_null(json_get(a, "a"));
    assert_null(json_get(NULL, "a"));
    assert_null(a->next->next->next);
}

/* The caller's text may go away. */
static void borrows_nothing(void **state)
{
    static const char text[] = "{\"key\":\"value\",\"esc\\u0061pe\":\"a\\nb\",\"n\":12.50}";
    char *copy = malloc(sizeof text);

    (void)state;
    memcpy(copy, text, sizeof text);
    struct json *v = parse((struct str){copy, sizeof text - 1});
    memset(copy, '#', sizeof text);
    free(copy);
    assert_true(str_is(json_get(v, "key")->s, "value"));
    assert_true(str_is(json_get(v, "escape")->s, "a\nb"));
    assert_true(str_is(json_get(v, "n")->s, "12.50"));
}

static void decodes_escapes(void **state)
{
    (void)state;
    assert_true(str_is(parse(STR("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""))->s, "\"\\/\b\f\n\r\t"));
    assert_true(str_is(parse(STR("\"\\u0041\\u00e9\\u20AC\""))->s, "A\xC3\xA9\xE2\x82\xAC"));
    assert_true(str_is(parse(STR("\"\\uD83D\\uDE00\\ud83d\\ude00\""))->s, "\xF0\x9F\x98\x80\xF0\x9F\x98\x80"));
    assert_true(str_is(parse(STR("\"\\uDBFF\\uDFFF\\uD800\\uDC00\""))->s, "\xF4\x8F\xBF\xBF\xF0\x90\x80\x80"));
    assert_true(str_is(parse(STR("\"\\\\ud800\""))->s, "\\ud800"));
    assert_true(str_is(parse(STR("\"\\\\\\\\u0000\""))->s, "\\\\u0000"));
    assert_true(str_is(parse(STR("\"\xC3\xA9\x7f\""))->s, "\xC3\xA9\x7f"));
}

static void refuses_malformed_text(void **state)
{
    static const char *const t[] = {
        "",
        " ",
        "{",
        "[",
        "\"",
        "\"abc",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "[1,",
        "[1",
        "tru",
        "nul",
        "-",
        "1.",
        "1.e1",
        ".5",
        "+1",
        "01",
        "-01",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "-Infinity",
        "'a'",
        "{a:1}",
        "{\"a\":1,}",
        "[1,]",
        "[,1]",
        "{,}",
        "[1 2]",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{1:2}",
        "]",
        "}",
        "[1}",
        "{]",
        "\"\\x41\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\'\"",
        "\"\t\"",
        "\"\n\"",
        "\"\x01\"",
        "// c\n1",
        "1 // c",
        "/* c */ 1",
        "[1] /* c */",
        "\xEF\xBB\xBF{}",
        "True",
        "nulll",
        "truefalse",
        "\\u0041",
        "undefined",
        "[\"a\\",
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        refuse(str_c(t[i]), "error: ");
    refuse(STR_NONE, "premature EOF");
    refuse(STR("\0"), "");
    refuse(STR("[1]\0"), "trailing");
    refuse(STR("\"a\0b\""), "");
    refuse(STR("{} {}"), "trailing garbage");
    refuse(STR("1 1"), "trailing garbage");
    refuse(STR("[1]x"), "");
    refuse(STR("[1],"), "trailing");
    refuse(STR("4\""), "trailing garbage");
    refuse(STR("{\"a\":1}\"x"), "trailing garbage");
    refuse(STR("null \"\\"), "trailing garbage");
    refuse(STR("\"open"), "premature EOF");
    refuse(STR("[\v1]"), "at byte 1: unescaped control character");
    refuse(STR("[1]\f"), "at byte 3: unescaped control character");
    refuse(STR("\"a\fb\""), "control character");
}

static void refuses_bad_utf8(void **state)
{
    (void)state;
    refuse(STR("\"\x80\""), "byte 1: not UTF-8");
    refuse(STR("\"\xC0\x80\""), "byte 1: not UTF-8");
    refuse(STR("\"abc\xE2\x82\""), "byte 4: not UTF-8");
    refuse(STR("\"\xED\xA0\x80\""), "byte 1: not UTF-8");
    refuse(STR("\"\xF5\x80\x80\x80\""), "byte 1: not UTF-8");
    refuse(STR("{\"\xFF\":1}"), "byte 2: not UTF-8");
    refuse(STR("\"\xC3\xA9\xC3"), "byte 3: not UTF-8");
}

static void refuses_what_yajl_would_mend(void **state)
{
    (void)state;
    refuse(STR("\"\\u0000\""), "byte 1: U+0000");
    refuse(STR("{\"a\\u0000\":1}"), "byte 3: U+0000");
    refuse(STR("\"\\ud800\""), "byte 1: lone surrogate");
    refuse(STR("\"\\uDBFFx\""), "lone surrogate");
    refuse(STR("\"ab\\udc00\""), "byte 3: lone surrogate");
    refuse(STR("\"\\ud800\\u0041\""), "lone surrogate");
    refuse(STR("\"\\ud800\\ud800\""), "lone surrogate");
    refuse(STR("\"\\ud800\\n\""), "lone surrogate");
    refuse(STR("\"\\ud83d\\ude00\\ude00\""), "byte 13: lone surrogate");
    refuse(STR("\"\\ud800\\u"), "lone surrogate");
}

static void bounds_the_depth(void **state)
{
    char text[200];

    (void)state;
    for (size_t depth = 1; depth < 60; depth++) {
        for (size_t i = 0; i < depth; i++) {
            text[i] = '[';
            text[2 * depth - 1 - i] = ']';
        }
        if (depth <= JSON_DEPTH_MAX)
            assert_int_equal(parse((struct str){text, 2 * depth})->type, JSON_ARRAY);
        else
            refuse((struct str){text, 2 * depth}, "byte 33: nested over 32 levels");
    }
    /* back at the top the levels are free again */
    assert_int_equal(parse(STR("[[[]],[[]],{\"a\":{}}]"))->n, 3);
}

static void refuses_duplicate_keys(void **state)
{
    (void)state;
    refuse(STR("{\"a\":1,\"a\":1}"), "duplicate key");
    refuse(STR("{\"a\":1,\"b\":2,\"\\u0061\":3}"), "duplicate key");
    refuse(STR("{\"\":1,\"\":2}"), "duplicate key");
    refuse(STR("[{\"x\":{\"a\":1,\"a\":1}}]"), "duplicate key");
    assert_int_equal(parse(STR("{\"a\":{\"a\":{\"a\":1}},\"b\":[{\"a\":1},{\"a\":1}]}"))->n, 2);
    assert_int_equal(parse(STR("{\"a\":1,\"A\":1,\"\":1}"))->n, 3);
}

static void object_of(struct buf *b, int keys, int twice)
{
    buf_clear(b);
    buf_putc(b, '{');
    for (int i = 0; i < keys; i++)
        buf_printf(b, "\"key%d\":%d,", i, i);
    buf_printf(b, "\"key%d\":0}", twice);
}

/* Sizes on both sides of where hashing begins, and the duplicate at each place. */
static void finds_duplicates_in_large_objects(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    for (int keys = 1; keys < 40; keys++) {
        for (int twice = 0; twice < keys; twice++) {
            object_of(&b, keys, twice);
            refuse(buf_as_str(&b), "duplicate key");
        }
        object_of(&b, keys, keys);
        assert_int_equal(parse(buf_as_str(&b))->n, keys + 1);
    }
    buf_free(&b);
}

static void large_objects_are_not_quadratic(void **state)
{
    const struct clock *c = clock_system();
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    object_of(&b, 100000, 100000);
    int64_t start = clock_mono(c);
    struct json *v = parse(buf_as_str(&b));
    /* comparing each with each would take 5e9 steps */
    assert_true(clock_mono(c) - start < 5000000);
    assert_int_equal(v->n, 100001);
    assert_true(str_is(json_get(v, "key99999")->s, "99999"));
    object_of(&b, 100000, 50000);
    refuse(buf_as_str(&b), "duplicate key");
    buf_free(&b);
}

/* Every limit from nothing to enough: out of memory or the tree, and the arena is as before. */
static void every_allocation_may_fail(void **state)
{
    static const char text[] =
        "{\"a\":[1,2.50,\"x\\n\\u20ac\"],\"b\":{\"c\":null,\"d\":true},\"k1\":1,\"k2\":1,\"k3\":1,"
        "\"k4\":1,\"k5\":1,\"k6\":1,\"k7\":1,\"k8\":1,\"k9\":1,\"k10\":1,\"k11\":1,\"k12\":1,"
        "\"k13\":1,\"k14\":1,\"k15\":1,\"k16\":1}";
    bool done = false;
    int failures = 0;

    (void)state;
    for (size_t limit = 0; !done; limit += 16) {
        struct arena a;
        struct json *v = NULL;
        struct problem p = {0};
        arena_init(&a, NULL, 0, limit);
        enum pf_err e = json_parse(&a, str_c(text), &v, &p);
        done = e == PFE_OK;
        if (!done) {
            assert_int_equal(e, PFE_NOMEM);
            assert_int_equal(p.code, PFE_NOMEM);
            assert_null(v);
            assert_int_equal(a.used, 0);
            failures++;
        } else {
            assert_int_equal(v->n, 18);
        }
        arena_reset(&a);
        assert_true(limit < 100000);
    }
    assert_true(failures > 100);

    /* and while an error is put into words */
    done = false;
    for (size_t limit = 0; !done; limit += 16) {
        struct arena a;
        struct json *v = NULL;
        arena_init(&a, NULL, 0, limit);
        enum pf_err e = json_parse(&a, STR("[1,2,\"abc\\n\",}"), &v, NULL);
        done = e == PFE_BAD_JSON;
        assert_true(done || e == PFE_NOMEM);
        arena_reset(&a);
        assert_true(limit < 100000);
    }
}

static void long_strings(void **state)
{
    struct buf b, want;

    (void)state;
    buf_init(&b, 0);
    buf_init(&want, 0);
    buf_putc(&b, '"');
    for (int i = 0; i < 50000; i++) {
        buf_printf(&b, "%d\\n", i);
        buf_printf(&want, "%d\n", i);
    }
    buf_putc(&b, '"');
    assert_true(str_eq(parse(buf_as_str(&b))->s, buf_as_str(&want)));
    refuse((struct str){b.p, b.n - 1}, "premature EOF");
    buf_free(&b);
    buf_free(&want);
}

/* No prefix and no single changed byte of a good text crashes, and what is taken is a whole tree. */
static void survives_damage(void **state)
{
    static const char text[] =
        "{\"a\":[1,-2.5e3,\"x\\n\\u20ac\\ud83d\\ude00\"],\"b\":{\"c\":null,\"d\":true},\"e\":false}";
    char copy[sizeof text];
    struct json *v;

    (void)state;
    for (size_t n = 0; n < sizeof text - 1; n++)
        refuse((struct str){text, n}, "");
    for (size_t i = 0; i < sizeof text - 1; i++) {
        for (int c = 0; c < 256; c++) {
            memcpy(copy, text, sizeof text);
            copy[i] = (char)c;
            struct arena_mark m = arena_mark(&arena);
            enum pf_err e = json_parse(&arena, (struct str){copy, sizeof text - 1}, &v, NULL);
            assert_true(e == PFE_OK || e == PFE_BAD_JSON);
            if (e == PFE_OK)
                assert_true(v->type == JSON_OBJECT && v->n == 3);
            arena_rewind(&arena, m);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(scalars, set_up, tear_down),
        cmocka_unit_test_setup_teardown(numbers_keep_their_digits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(trees, set_up, tear_down),
        cmocka_unit_test_setup_teardown(borrows_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decodes_escapes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_malformed_text, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_bad_utf8, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_what_yajl_would_mend, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bounds_the_depth, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_duplicate_keys, set_up, tear_down),
        cmocka_unit_test_setup_teardown(finds_duplicates_in_large_objects, set_up, tear_down),
        cmocka_unit_test_setup_teardown(large_objects_are_not_quadratic, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_allocation_may_fail, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_strings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(survives_damage, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
