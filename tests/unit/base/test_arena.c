#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/arena.h"

static bool aligned(const void *p)
{
    return p && (uintptr_t)p % 16 == 0;
}

static void aligns_and_keeps_apart(void **state)
{
    struct arena a;
    unsigned char *p[64];

    (void)state;
    arena_init(&a, NULL, 0, 1 << 20);
    for (size_t i = 0; i < 64; i++) {
        p[i] = arena_alloc(&a, i * 7);
        assert_true(aligned(p[i]));
        memset(p[i], (int)i, i * 7);
    }
    for (size_t i = 0; i < 64; i++)
        for (size_t k = 0; k < i * 7; k++)
            assert_int_equal(p[i][k], i);
    arena_reset(&a);
    assert_int_equal(a.used, 0);
    arena_reset(&a);
}

static void empty_allocations_are_distinct(void **state)
{
    struct arena a;

    (void)state;
    arena_init(&a, NULL, 0, 1024);
    void *x = arena_alloc(&a, 0), *y = arena_alloc(&a, 0);
    assert_true(aligned(x) && aligned(y));
    assert_ptr_not_equal(x, y);
    arena_reset(&a);
}

static void borrows_the_first_block(void **state)
{
    char block[256];
    struct arena a;

    (void)state;
    arena_init(&a, block + 1, sizeof block - 1, 1 << 16);
    char *p = arena_alloc(&a, 32);
    assert_true(aligned(p));
#ifndef ARENA_MALLOC
    assert_true(p >= block && p + 32 <= block + sizeof block);
    assert_null(a.head);
#endif
    char *big = arena_alloc(&a, 4000);
    assert_true(aligned(big));
    memset(big, 1, 4000);
    arena_reset(&a);
    assert_null(a.head);

    /* too small to hold even one aligned byte */
    arena_init(&a, block + 1, 3, 1 << 16);
    assert_true(aligned(arena_alloc(&a, 1)));
    arena_reset(&a);
}

static void honours_the_limit(void **state)
{
    struct arena a;

    (void)state;
    arena_init(&a, NULL, 0, 100);
    assert_non_null(arena_alloc(&a, 64));
    assert_null(arena_alloc(&a, 64));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 8));
    assert_non_null(arena_alloc(&a, 32));
    assert_null(arena_alloc(&a, 1));
    assert_null(arena_strdup(&a, STR("x")).p);
    arena_reset(&a);
    assert_non_null(arena_alloc(&a, 96));
    arena_reset(&a);
}

static void zeroes_and_copies(void **state)
{
    struct arena a;
    static const char zero[100];

    (void)state;
    arena_init(&a, NULL, 0, 1 << 16);
    struct arena_mark m = arena_mark(&a);
    memset(arena_alloc(&a, 100), 0xff, 100);
    arena_rewind(&a, m);
    assert_memory_equal(arena_zalloc(&a, 100), zero, 100);
    struct str s = arena_strdup(&a, STR("abc"));
    assert_string_equal(s.p, "abc");
    assert_int_equal(s.n, 3);
    assert_string_equal(arena_strdup(&a, STR_NONE).p, "");
    arena_reset(&a);
}

static void rewinds_over_chunks(void **state)
{
    char block[128];
    struct arena a;

    (void)state;
    arena_init(&a, block, sizeof block, 1 << 20);
    char *kept = arena_alloc(&a, 16);
    memcpy(kept, "kept", 5);
    struct arena_mark m = arena_mark(&a);
    size_t used = a.used;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++)
            memset(arena_alloc(&a, 777), round, 777);
        struct arena_mark inner = arena_mark(&a);
        memset(arena_alloc(&a, 100000), 9, 100000);
        arena_rewind(&a, inner);
        assert_int_equal(a.used, used + 100 * 784);
        arena_rewind(&a, m);
        assert_int_equal(a.used, used);
        memset(arena_alloc(&a, 16), round, 16);
        assert_string_equal(kept, "kept");
        arena_rewind(&a, m);
    }
    arena_reset(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligns_and_keeps_apart),  cmocka_unit_test(empty_allocations_are_distinct),
        cmocka_unit_test(borrows_the_first_block), cmocka_unit_test(honours_the_limit),
        cmocka_unit_test(zeroes_and_copies),       cmocka_unit_test(rewinds_over_chunks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
