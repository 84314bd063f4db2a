/* The nth allocation fails, for every n: the cache forgets, it never breaks. */
#include "fixture.h"

#include <stdlib.h>

static struct fake_time now;
static long fail_at; /* counts down to the allocation that fails, and all after it if `fail_rest`; < 0: none */
static bool fail_rest;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

static bool fails(void)
{
    if (fail_at < 0)
        return false;
    if (fail_at == 0) {
        if (!fail_rest)
            fail_at = -1;
        return true;
    }
    fail_at--;
    return false;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return fails() ? NULL : __real_aligned_alloc(align, n);
}

static void making_one(void **state)
{
    (void)state;
    const struct cache_local_options o = {.max_entries = 1000, .max_bytes = 1 << 20, .clock = &now.clock};
    struct cache *c = NULL;
    int n = 0;
    for (; !c; n++) {
        assert_true(n < 100);
        fail_at = n;
        c = cache_local_new(&o);
    }
    fail_at = -1;
    assert_true(n > 1);
    fill(c, STR("k"), STR("v"), LONG);
    assert_true(has(c, STR("k")));
    cache_close(c);
}

static bool count_key(void *ctx, struct str key, int64_t ttl_us)
{
    (void)key, (void)ttl_us;
    ++*(unsigned *)ctx;
    return true;
}

static void filling(void **state)
{
    (void)state;
    for (int rest = 0; rest < 2; rest++) {
        for (long n = 0; n < 150; n++) {
            struct cache *c = cache_with(&now, 100, 1 << 20, 0);
            fail_rest = rest;
            fail_at = n;
            for (int i = 0; i < 100; i++)
                fill(c, KEY("k:%d", i), KEY("v:%d", i), LONG);
            fail_at = -1;
            const struct cache_stats st = stats_of(c);
            assert_int_equal(st.puts + st.refused_puts, 100);
            assert_int_equal(st.puts, st.entries);
            if (!rest)
                assert_true(st.refused_puts <= 1);
            unsigned found = 0;
            for (int i = 0; i < 100; i++)
                found += has_value(c, KEY("k:%d", i), KEY("v:%d", i));
            assert_int_equal(found, st.entries);
            assert_int_equal(cache_del_glob(c, STR("k:*")), st.entries);
            assert_int_equal(stats_of(c).bytes, 0);
            cache_close(c);
        }
    }
}

static void listing(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 100, 1 << 20, 0);
    for (int i = 0; i < 100; i++)
        fill(c, KEY("k:%d", i), STR("v"), LONG);
    enum pf_err err = PFE_NOMEM;
    for (long n = 0; err != PFE_OK; n++) {
        unsigned calls = 0;
        fail_at = n;
        fail_rest = false;
        err = cache_keys(c, STR("*"), 1000, count_key, &calls);
        fail_at = -1;
        if (err == PFE_OK)
            assert_int_equal(calls, 100);
        else
            assert_int_equal(err, PFE_NOMEM);
        assert_true(n > 0 || err == PFE_NOMEM);
    }
    cache_close(c);
}

int main(void)
{
    fail_at = -1;
    fake_init(&now);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(making_one),
        cmocka_unit_test(filling),
        cmocka_unit_test(listing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
