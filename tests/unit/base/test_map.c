#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "base/map.h"

enum { KEYS = 512 };

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static void empty_u64(void **state)
{
    struct map_u64 m;
    uint64_t v = 5, k;
    size_t pos = 0;

    (void)state;
    map_u64_init(&m);
    assert_false(map_u64_get(&m, 0, &v));
    assert_false(map_u64_get(&m, UINT64_MAX, &v));
    assert_false(map_u64_del(&m, 0));
    assert_false(map_u64_next(&m, &pos, &k, &v));
    assert_int_equal(v, 5);
    map_u64_clear(&m);
    map_u64_free(&m);
    map_u64_free(&m);
}

/* Random puts and deletes on a small key space, checked step by step against an array. */
static void u64_against_a_model(void **state)
{
    struct map_u64 m;
    uint64_t model[KEYS] = {0}, seed = 88172645463325252u, v;
    size_t n = 0;

    (void)state;
    map_u64_init(&m);
    for (int step = 0; step < 200000; step++) {
        uint64_t r = next_random(&seed), k = r % KEYS;
        /* swings between growing and shrinking */
        if (r >> 32 & 1 || step / 5000 % 2 == 0) {
            assert_true(map_u64_put(&m, k, r | 1));
            n += model[k] == 0;
            model[k] = r | 1;
        } else {
            assert_int_equal(map_u64_del(&m, k), model[k] != 0);
            n -= model[k] != 0;
            model[k] = 0;
        }
        uint64_t probe = next_random(&seed) % KEYS;
        assert_int_equal(map_u64_get(&m, probe, &v), model[probe] != 0);
        if (model[probe])
            assert_true(v == model[probe]);
        assert_int_equal(m.n, n);
        assert_true(m.n * 4 <= m.cap * 3);
    }
    uint64_t k;
    size_t pos = 0, seen = 0;
    while (map_u64_next(&m, &pos, &k, &v)) {
        assert_true(k < KEYS && model[k] == v);
        seen++;
    }
    assert_int_equal(seen, n);
    size_t cap = m.cap;
    map_u64_clear(&m);
    assert_int_equal(m.n, 0);
    assert_int_equal(m.cap, cap);
    for (k = 0; k < KEYS; k++)
        assert_false(map_u64_get(&m, k, &v));
    assert_true(map_u64_put(&m, UINT64_MAX - 1, 1));
    assert_false(map_u64_get(&m, UINT64_MAX, &v));
    assert_false(map_u64_del(&m, UINT64_MAX));
    map_u64_free(&m);
}

static void str_against_a_model(void **state)
{
    struct map_str m;
    char *model[KEYS] = {0};
    static char cells[1024];
    uint64_t seed = 0x9E3779B97F4A7C15u;
    size_t n = 0;
    struct str key;
    void *v;

    (void)state;
    map_str_init(&m);
    assert_null(map_str_get(&m, STR("none")));
    assert_null(map_str_del(&m, STR("none")));
    for (int step = 0; step < 100000; step++) {
        uint64_t r = next_random(&seed);
        size_t k = r % KEYS;
        char name[32];
        struct str s = {name, (size_t)snprintf(name, sizeof name, "user:%zu", k)};
        if (r >> 32 & 1 || step / 5000 % 2 == 0) {
            char *cell = &cells[r >> 40 & 1023];
            assert_true(map_str_put(&m, s, cell));
            n += !model[k];
            model[k] = cell;
        } else {
            assert_ptr_equal(map_str_del(&m, s), model[k]);
            n -= model[k] != NULL;
            model[k] = NULL;
        }
        memset(name, '#', sizeof name);
        k = next_random(&seed) % KEYS;
        s.n = (size_t)snprintf(name, sizeof name, "user:%zu", k);
        assert_ptr_equal(map_str_get(&m, s), model[k]);
        assert_int_equal(m.n, n);
    }
    size_t pos = 0, seen = 0;
    while (map_str_next(&m, &pos, &key, &v)) {
        assert_true(str_starts(key, STR("user:")));
        assert_ptr_equal(map_str_get(&m, key), v);
        seen++;
    }
    assert_int_equal(seen, n);
    map_str_free(&m);
    map_str_free(&m);
}

static void str_keys_are_bytes(void **state)
{
    struct map_str m;
    char a, b, c;

    (void)state;
    map_str_init(&m);
    assert_true(map_str_put(&m, STR(""), &a));
    assert_true(map_str_put(&m, STR("\0"), &b));
    assert_true(map_str_put(&m, STR("\0\0"), &c));
    assert_ptr_equal(map_str_get(&m, STR_NONE), &a);
    assert_ptr_equal(map_str_get(&m, STR("\0")), &b);
    assert_ptr_equal(map_str_get(&m, STR("\0\0")), &c);
    assert_int_equal(m.n, 3);
    map_str_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_u64),
        cmocka_unit_test(u64_against_a_model),
        cmocka_unit_test(str_against_a_model),
        cmocka_unit_test(str_keys_are_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
