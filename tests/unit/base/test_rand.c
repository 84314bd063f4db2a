#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rand.h"

enum { DRAWS = 20000 };

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void *draw(void *arg)
{
    uint64_t *out = arg;

    for (int i = 0; i < DRAWS; i++)
        out[i] = rand_u64();
    return NULL;
}

/* 40,000 draws of 64 bits by two threads: a repeat has a chance of 4e-11. */
static void never_repeats(void **state)
{
    static uint64_t all[2 * DRAWS];
    pthread_t t;

    (void)state;
    assert_int_equal(pthread_create(&t, NULL, draw, all + DRAWS), 0);
    draw(all);
    pthread_join(t, NULL);
    qsort(all, 2 * DRAWS, sizeof *all, by_value);
    for (int i = 1; i < 2 * DRAWS; i++)
        assert_true(all[i] != all[i - 1]);
}

static void bits_are_even(void **state)
{
    int ones[64] = {0};

    (void)state;
    for (int i = 0; i < DRAWS; i++) {
        uint64_t v = rand_u64();
        for (int b = 0; b < 64; b++)
            ones[b] += (int)(v >> b & 1);
    }
    /* standard deviation 71: beyond seven of them */
    for (int b = 0; b < 64; b++)
        assert_in_range(ones[b], DRAWS / 2 - 500, DRAWS / 2 + 500);
}

/* Every size, over and under what is buffered, fills its bytes and no others. */
static void fills_exactly(void **state)
{
    static unsigned char p[9000];
    static const size_t sizes[] = {0, 1, 7, 16, 32, 1000, 1024, 1025, 4096, 4097, 8192};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i], changed = 0;
        for (int round = 0; round < 12; round++) {
            memset(p, 0xA5, sizeof p);
            rand_bytes(p + 1, n);
            assert_int_equal(p[0], 0xA5);
            assert_int_equal(p[n + 1], 0xA5);
            for (size_t k = 0; k < n; k++)
                changed += p[k + 1] != 0xA5;
        }
        assert_true(changed >= n * 11);
    }
}

static void differs_across_fork(void **state)
{
    uint64_t childs = 0;
    int p[2], status;

    (void)state;
    (void)rand_u64();
    assert_int_equal(pipe(p), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        uint64_t v = rand_u64();
        _exit(write(p[1], &v, sizeof v) != sizeof v);
    }
    assert_int_equal(read(p[0], &childs, sizeof childs), sizeof childs);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(childs != rand_u64());
    close(p[0]);
    close(p[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_repeats),
        cmocka_unit_test(bits_are_even),
        cmocka_unit_test(fills_exactly),
        cmocka_unit_test(differs_across_fork),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
