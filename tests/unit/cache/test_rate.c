#include "fixture.h"

static struct fake_time now;

static int setup(void **state)
{
    (void)state;
    fake_init(&now);
    return 0;
}

static struct cache_rate rate(struct cache *c, struct str key, int64_t limit, int64_t cost)
{
    struct cache_rate r;
    cache_rate(c, key, limit, 60 * SECOND, cost, &r);
    return r;
}

/* What is left of the key's 10 a minute, counting nothing. */
static int64_t left(struct cache *c, struct str key)
{
    return rate(c, key, 10, 0).remaining;
}

static void window_counts_and_resets(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 10, 1 << 20, 0);
    for (int i = 0; i < 3; i++) {
        const struct cache_rate r = rate(c, STR("k"), 3, 1);
        assert_true(r.allowed);
        assert_int_equal(r.remaining, 2 - i);
        assert_int_equal(r.reset_us, 60 * SECOND - i);
        now.now_us += 1;
    }
    struct cache_rate r = rate(c, STR("k"), 3, 1);
    assert_false(r.allowed);
    assert_int_equal(r.remaining, 0);
    assert_true(rate(c, STR("other"), 3, 1).allowed);

    now.now_us += r.reset_us - 1;
    assert_false(rate(c, STR("k"), 3, 1).allowed);
    now.now_us += 1;
    r = rate(c, STR("k"), 3, 1);
    assert_true(r.allowed);
    assert_int_equal(r.remaining, 2);
    assert_int_equal(r.reset_us, 60 * SECOND);
    cache_close(c);
}

static void looking_counts_nothing(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 10, 1 << 20, 0);
    for (int i = 0; i < 20; i++) {
        const struct cache_rate r = rate(c, STR("k"), 2, 0);
        assert_true(r.allowed);
        assert_int_equal(r.remaining, 2);
        assert_int_equal(r.reset_us, 0);
    }
    rate(c, STR("k"), 2, 1);
    now.now_us += SECOND;
    assert_true(rate(c, STR("k"), 2, 0).allowed);
    assert_true(rate(c, STR("k"), 2, 1).allowed);
    const struct cache_rate full = rate(c, STR("k"), 2, 0);
    assert_false(full.allowed);
    assert_int_equal(full.reset_us, 59 * SECOND);

    now.now_us += 59 * SECOND;
    assert_int_equal(rate(c, STR("k"), 2, 0).reset_us, 0);
    assert_true(rate(c, STR("k"), 2, 0).allowed);
    cache_close(c);
}

static void cost_counts_whole(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 10, 1 << 20, 0);
    assert_int_equal(rate(c, STR("k"), 10, 7).remaining, 3);
    struct cache_rate r = rate(c, STR("k"), 10, 3);
    assert_true(r.allowed);
    assert_int_equal(r.remaining, 0);
    assert_false(rate(c, STR("over"), 10, 11).allowed);
    assert_true(rate(c, STR("exact"), 10, 10).allowed);

    rate(c, STR("huge"), 10, INT64_MAX);
    r = rate(c, STR("huge"), 10, INT64_MAX);
    assert_false(r.allowed);
    assert_int_equal(r.remaining, 0);
    cache_close(c);
}

static void window_length_cannot_overflow(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 10, 1 << 20, 0);
    struct cache_rate r;
    cache_rate(c, STR("k"), 1, INT64_MAX, 1, &r);
    assert_true(r.allowed);
    assert_int_equal(r.reset_us, INT64_MAX - now.now_us);
    cache_rate(c, STR("k"), 1, INT64_MAX, 1, &r);
    assert_false(r.allowed);
    cache_close(c);
}

static void oldest_window_gives_way(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 10, 1 << 20, 3);
    for (int i = 1; i <= 3; i++, now.now_us++)
        rate(c, KEY("k%d", i), 10, i);
    for (int i = 1; i <= 3; i++)
        assert_int_equal(left(c, KEY("k%d", i)), 10 - i);
    rate(c, STR("k1"), 10, 1); /* using a window does not make it younger */
    rate(c, STR("k4"), 10, 4);
    assert_int_equal(left(c, STR("k1")), 10);
    assert_int_equal(left(c, STR("k2")), 8);
    assert_int_equal(left(c, STR("k3")), 7);
    assert_int_equal(left(c, STR("k4")), 6);
    cache_close(c);
}

static void looking_pushes_nobody_out(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 10, 1 << 20, 3);
    for (int i = 1; i <= 3; i++)
        rate(c, KEY("k%d", i), 10, i);
    for (int i = 0; i < 1000; i++)
        left(c, KEY("nobody:%d", i));
    for (int i = 1; i <= 3; i++)
        assert_int_equal(left(c, KEY("k%d", i)), 10 - i);
    cache_close(c);
}

static void new_window_is_young_again(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 10, 1 << 20, 3);
    rate(c, STR("k1"), 10, 1);
    now.now_us += 30 * SECOND;
    rate(c, STR("k2"), 10, 2);
    rate(c, STR("k3"), 10, 3);
    now.now_us += 30 * SECOND;
    rate(c, STR("k1"), 10, 5);
    rate(c, STR("k4"), 10, 4);
    assert_int_equal(left(c, STR("k1")), 5);
    assert_int_equal(left(c, STR("k2")), 10);
    assert_int_equal(left(c, STR("k3")), 7);
    assert_int_equal(left(c, STR("k4")), 6);
    cache_close(c);
}

static void one_counter(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 10, 1 << 20, 1);
    assert_int_equal(rate(c, STR("a"), 10, 1).remaining, 9);
    assert_int_equal(rate(c, STR("a"), 10, 1).remaining, 8);
    assert_int_equal(rate(c, STR("b"), 10, 1).remaining, 9);
    assert_int_equal(rate(c, STR("a"), 10, 1).remaining, 9);
    cache_close(c);
}

static unsigned counted(struct cache *c, unsigned n)
{
    unsigned k = 0;
    for (unsigned i = 0; i < n; i++)
        k += left(c, KEY("k:%u", i)) < 10;
    return k;
}

static void counters_are_bounded(void **state)
{
    (void)state;
    static const unsigned bounds[] = {2, 3, 100, 129, 3001, 65536};
    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
        struct cache *c = cache_with(&now, 10, 1 << 20, bounds[b] == 65536 ? 0 : bounds[b]);
        const unsigned n = 3 * bounds[b];
        for (unsigned i = 0; i < n; i++, now.now_us++)
            rate(c, KEY("k:%u", i), 10, 1);
        assert_int_equal(counted(c, n), bounds[b]);
        now.now_us += 60 * SECOND;
        assert_int_equal(counted(c, n), 0);
        cache_close(c);
    }
}

static bool list_none(void *ctx, struct str key, int64_t ttl_us)
{
    (void)ctx, (void)key, (void)ttl_us;
    fail_msg("a counter was listed");
    return true;
}

static void counters_live_apart(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 3, 1 << 20, 0);
    rate(c, STR("k"), 10, 4);
    assert_int_equal(cache_keys(c, STR("*"), 100, list_none, NULL), PFE_OK);
    assert_int_equal(stats_of(c).entries, 0);
    assert_false(has(c, STR("k")));
    assert_false(cache_del(c, STR("k")));
    assert_int_equal(cache_del_glob(c, STR("*")), 0);
    for (int i = 0; i < 100; i++)
        fill(c, KEY("v:%d", i), STR("v"), LONG);
    assert_int_equal(left(c, STR("k")), 6);
    cache_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(window_counts_and_resets, setup),
        cmocka_unit_test_setup(looking_counts_nothing, setup),
        cmocka_unit_test_setup(cost_counts_whole, setup),
        cmocka_unit_test_setup(window_length_cannot_overflow, setup),
        cmocka_unit_test_setup(oldest_window_gives_way, setup),
        cmocka_unit_test_setup(looking_pushes_nobody_out, setup),
        cmocka_unit_test_setup(new_window_is_young_again, setup),
        cmocka_unit_test_setup(one_counter, setup),
        cmocka_unit_test_setup(counters_are_bounded, setup),
        cmocka_unit_test_setup(counters_live_apart, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
