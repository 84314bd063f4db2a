#include "fixture.h"

#include "resilience/fallback.h"

/* The room's str_hash, so that all keys can be made to collide: what tells them apart then is the comparison. */
static bool collide;

uint64_t __real_str_hash(struct str s);
uint64_t __wrap_str_hash(struct str s);

uint64_t __wrap_str_hash(struct str s)
{
    return collide ? 7 : __real_str_hash(s);
}

static struct fallback_config plain(void)
{
    struct fallback_config c = fallback_defaults();

    c.cache_timeout_us = 10 * SECOND;
    return c;
}

static struct fallback *fresh(struct fallback_config c)
{
    struct fallback *f = fallback_new(&c);

    assert_non_null(f);
    return f;
}

/* What is given: "stale:VALUE@AGE", "default:VALUE", "none". */
static const char *given(struct fallback *f, const char *who, const char *what, int64_t now)
{
    static char text[128];
    struct buf out;
    int64_t age;
    enum fallback_source s;

    buf_init(&out, 0);
    s = fallback_get(f, FALLBACK_READ, str_c(who), str_c(what), now, &out, &age);
    assert_false(out.failed);
    if (s == FALLBACK_STALE)
        snprintf(text, sizeof text, "stale:%.*s@%lld", (int)out.n, out.p, (long long)age);
    else
        snprintf(text, sizeof text, s == FALLBACK_DEFAULT ? "default:%.*s" : "none", (int)out.n, out.p ? out.p : "");
    buf_free(&out);
    return text;
}

static bool keep(struct fallback *f, const char *who, const char *what, const char *value, int64_t now)
{
    return fallback_keep(f, FALLBACK_READ, str_c(who), str_c(what), str_c(value), now);
}

static struct fallback_figures figures(struct fallback *f)
{
    struct fallback_figures n;

    fallback_read(f, &n);
    return n;
}

static void last_value_then_default_then_error(void **state)
{
    struct fallback_config c = plain();
    struct fallback *f = fresh(c);

    (void)state;
    assert_string_equal(given(f, "ada", "GET /b", 0), "none");
    assert_true(keep(f, "ada", "GET /b", "1", SECOND));
    assert_true(keep(f, "ada", "GET /b", "2", 2 * SECOND));
    assert_string_equal(given(f, "ada", "GET /b", 2 * SECOND), "stale:2@0");
    assert_string_equal(given(f, "ada", "GET /b", SECOND), "stale:2@0");
    assert_string_equal(given(f, "ada", "GET /b", 12 * SECOND), "stale:2@10000000");
    assert_string_equal(given(f, "ada", "GET /b", 12 * SECOND + 1), "none");
    assert_int_equal(figures(f).entries, 0);
    assert_int_equal(figures(f).bytes, 0);
    fallback_free(f);

    c.default_response = STR("{}");
    f = fresh(c);
    assert_true(keep(f, "ada", "GET /b", "1", 0));
    assert_string_equal(given(f, "ada", "GET /b", 0), "stale:1@0");
    assert_string_equal(given(f, "ada", "GET /b", 11 * SECOND), "default:{}");
    assert_int_equal(figures(f).stale, 1);
    assert_int_equal(figures(f).defaults, 1);
    fallback_free(f);
}

static void nobody_gets_what_is_anothers(void **state)
{
    struct fallback *f = fresh(plain());

    (void)state;
    assert_true(keep(f, "ada", "GET /b", "ada's", 0));
    assert_true(keep(f, "ab", "c", "ab-c", 0));
    assert_string_equal(given(f, "bob", "GET /b", 0), "none");
    assert_string_equal(given(f, "ada", "GET /c", 0), "none");
    assert_string_equal(given(f, "", "adaGET /b", 0), "none");
    assert_string_equal(given(f, "a", "bc", 0), "none");
    assert_string_equal(given(f, "ab", "c", 0), "stale:ab-c@0");
    fallback_forget(f, str_c("ab"), str_c("c"));
    fallback_forget(f, str_c("ab"), str_c("d"));
    assert_string_equal(given(f, "ab", "c", 0), "none");
    assert_string_equal(given(f, "ada", "GET /b", 0), "stale:ada's@0");
    fallback_free(f);
}

static void equal_hashes_are_not_equal_keys(void **state)
{
    collide = true;
    nobody_gets_what_is_anothers(state);
    collide = false;
}

static void never_for_money(void **state)
{
    struct fallback_config c = plain();
    struct fallback *f;
    struct buf out;
    int64_t age = 1;

    (void)state;
    c.default_response = STR("{}");
    f = fresh(c);
    buf_init(&out, 0);
    assert_true(keep(f, "ada", "POST /t", "read", 0));
    assert_false(fallback_keep(f, FALLBACK_MONEY, STR("ada"), STR("POST /t"), STR("moved"), 0));
    assert_int_equal(fallback_get(f, FALLBACK_MONEY, STR("ada"), STR("POST /t"), 0, &out, &age), FALLBACK_NONE);
    assert_int_equal(out.n, 0);
    assert_int_equal(age, 0);
    assert_int_equal(figures(f).refused, 1);
    assert_string_equal(given(f, "ada", "POST /t", 0), "stale:read@0");
    buf_free(&out);
    fallback_free(f);
}

static void least_recently_used_gives_way(void **state)
{
    struct fallback_config c = plain();
    struct fallback *f;

    (void)state;
    c.max_entries = 3;
    f = fresh(c);
    keep(f, "p", "1", "a", 0);
    keep(f, "p", "2", "b", 0);
    keep(f, "p", "3", "c", 0);
    assert_string_equal(given(f, "p", "1", 0), "stale:a@0");
    keep(f, "p", "4", "d", 0);
    assert_string_equal(given(f, "p", "2", 0), "none");
    keep(f, "p", "3", "C", 0);
    keep(f, "p", "5", "e", 0);
    assert_string_equal(given(f, "p", "1", 0), "none");
    assert_string_equal(given(f, "p", "3", 0), "stale:C@0");
    assert_int_equal(figures(f).entries, 3);
    assert_int_equal(figures(f).evicted, 2);
    fallback_free(f);
}

static void bounded_in_bytes(void **state)
{
    struct prng r = prng_seeded("fallback");
    struct fallback_config c = plain();
    struct fallback *f;
    static char value[2000];

    (void)state;
    c.max_bytes = 1500;
    f = fresh(c);
    for (int i = 0; i < 20000; i++) {
        char key[8];
        const struct str v = {value, prng_below(&r, sizeof value)};
        snprintf(key, sizeof key, "%u", prng_below(&r, 20));
        const bool fits = FALLBACK_OVERHEAD + 1 + strlen(key) + v.n <= c.max_bytes;
        assert_true(fallback_keep(f, FALLBACK_READ, STR("p"), str_c(key), v, i) == fits);
        assert_true(figures(f).bytes <= c.max_bytes);
        assert_true(figures(f).entries <= c.max_bytes / FALLBACK_OVERHEAD);
    }
    assert_true(figures(f).evicted > 0 && figures(f).refused > 0);
    fallback_free(f);
}

/* What is too large to keep leaves nothing older behind. */
static void a_refused_value_takes_the_old_one_along(void **state)
{
    struct fallback_config c = plain();
    struct fallback *f;
    static const char big[1000];

    (void)state;
    c.max_bytes = 500;
    f = fresh(c);
    assert_true(keep(f, "p", "1", "a", 0));
    assert_false(fallback_keep(f, FALLBACK_READ, STR("p"), STR("1"), (struct str){big, sizeof big}, 0));
    assert_string_equal(given(f, "p", "1", 0), "none");
    fallback_free(f);
}

static void keeps_nothing_when_told_so(void **state)
{
    struct fallback_config c = plain();
    struct fallback *f;

    (void)state;
    c.should_cache = false;
    c.default_response = STR("");
    f = fresh(c);
    assert_false(keep(f, "p", "1", "a", 0));
    assert_string_equal(given(f, "p", "1", 0), "default:");
    assert_int_equal(figures(f).refused, 0);
    fallback_free(f);
    fallback_free(NULL);
}

static void faulty_settings_are_named(void **state)
{
    struct fallback_config c = plain();

    (void)state;
    assert_null(fallback_fault(&c));
#define REFUSED(field, value, name)                                                                                    \
    c = plain(), c.field = (value), assert_non_null(strstr(fallback_fault(&c), name)), assert_null(fallback_new(&c))
    REFUSED(cache_timeout_us, -1, "cacheTimeout");
    REFUSED(max_entries, 0, "maxEntries");
    REFUSED(max_bytes, 0, "maxBytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_value_then_default_then_error),
        cmocka_unit_test(nobody_gets_what_is_anothers),
        cmocka_unit_test(equal_hashes_are_not_equal_keys),
        cmocka_unit_test(never_for_money),
        cmocka_unit_test(least_recently_used_gives_way),
        cmocka_unit_test(bounded_in_bytes),
        cmocka_unit_test(a_refused_value_takes_the_old_one_along),
        cmocka_unit_test(keeps_nothing_when_told_so),
        cmocka_unit_test(faulty_settings_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
