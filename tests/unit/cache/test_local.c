#include "fixture.h"

#include <stdlib.h>

enum { ROOMY = 64 << 20 };

static struct fake_time now;

static int setup(void **state)
{
    (void)state;
    fake_init(&now);
    return 0;
}

static void miss_fill_hit(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 1000, ROOMY, 0);
    char out[16] = "untouched";
    size_t n = 77;
    uint64_t token = 0;

    assert_false(cache_get(c, STR("user:1"), out, sizeof out, &n, &token));
    assert_int_equal(n, 77);
    assert_string_equal(out, "untouched");
    assert_int_not_equal(token, 0);
    cache_put(c, STR("user:1"), STR("a\0b"), SECOND, token);

    token = 99;
    assert_true(cache_get(c, STR("user:1"), out, sizeof out, &n, &token));
    assert_int_equal(n, 3);
    assert_memory_equal(out, "a\0b", 3);
    assert_int_equal(token, 99);
    assert_false(has(c, STR("user:2")));
    assert_false(has(c, STR("user:")));

    fill(c, STR("user:1"), STR("second"), SECOND);
    assert_true(has_value(c, STR("user:1"), STR("second")));
    assert_int_equal(stats_of(c).entries, 1);
    cache_close(c);
}

static void empty_key_and_value(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 1000, ROOMY, 0);
    fill(c, STR_NONE, STR("v"), SECOND);
    assert_true(has_value(c, STR(""), STR("v")));
    fill(c, STR("k"), STR_NONE, SECOND);
    size_t n = 5;
    uint64_t token;
    assert_true(cache_get(c, STR("k"), NULL, 0, &n, &token));
    assert_int_equal(n, 0);
    cache_close(c);
}

static void long_value_is_a_miss(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 1000, ROOMY, 0);
    char out[4];
    size_t n;
    uint64_t token = 0;
    fill(c, STR("k"), STR("12345"), SECOND);
    assert_false(cache_get(c, STR("k"), out, sizeof out, &n, &token));
    cache_put(c, STR("k"), STR("1234"), SECOND, token);
    assert_true(cache_get(c, STR("k"), out, sizeof out, &n, &token));
    assert_int_equal(n, 4);
    cache_close(c);
}

static void sizes_at_the_limits(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 1000, ROOMY, 0);
    char key[CACHE_KEY_MAX + 1], *value = malloc(CACHE_VALUE_MAX + 1);
    assert_non_null(value);
    memset(key, 'k', sizeof key);
    memset(value, 'v', CACHE_VALUE_MAX + 1);
    const struct str longest = {key, CACHE_KEY_MAX}, too_long = {key, CACHE_KEY_MAX + 1};

    fill(c, longest, (struct str){value, CACHE_VALUE_MAX}, SECOND);
    assert_true(has_value(c, longest, (struct str){value, CACHE_VALUE_MAX}));
    fill(c, too_long, STR("v"), SECOND);
    assert_false(has(c, too_long));
    assert_false(cache_del(c, too_long));
    fill(c, STR("big"), (struct str){value, CACHE_VALUE_MAX + 1}, SECOND);
    assert_false(has(c, STR("big")));
    assert_int_equal(stats_of(c).puts, 1);
    assert_int_equal(stats_of(c).refused_puts, 2);
    free(value);
    cache_close(c);
}

static void time_to_live(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 1000, ROOMY, 0);
    fill(c, STR("none"), STR("v"), 0);
    fill(c, STR("less"), STR("v"), -1);
    assert_int_equal(stats_of(c).entries, 0);

    fill(c, STR("k"), STR("v"), 10 * SECOND);
    fill(c, STR("ever"), STR("v"), INT64_MAX);
    now.now_us += 10 * SECOND - 1;
    assert_true(has(c, STR("k")));
    now.now_us += 1;
    assert_false(has(c, STR("k")));
    assert_int_equal(stats_of(c).expirations, 1);
    assert_int_equal(stats_of(c).entries, 1);

    now.now_us += (int64_t)1 << 60;
    assert_true(has(c, STR("ever")));
    cache_close(c);
}

static void refill_renews_the_time(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 1000, ROOMY, 0);
    fill(c, STR("k"), STR("1"), 10 * SECOND);
    now.now_us += 9 * SECOND;
    fill(c, STR("k"), STR("2"), 10 * SECOND);
    now.now_us += 9 * SECOND;
    assert_true(has_value(c, STR("k"), STR("2")));
    cache_close(c);
}

static void expired_is_not_there_to_delete(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 1000, ROOMY, 0);
    fill(c, STR("a"), STR("v"), SECOND);
    fill(c, STR("b"), STR("v"), SECOND);
    fill(c, STR("c"), STR("v"), 2 * SECOND);
    now.now_us += SECOND;
    assert_false(cache_del(c, STR("a")));
    assert_int_equal(cache_del_glob(c, STR("*")), 1);
    const struct cache_stats st = stats_of(c);
    assert_int_equal(st.expirations, 2);
    assert_int_equal(st.invalidations, 1);
    assert_int_equal(st.entries, 0);
    assert_int_equal(st.bytes, 0);
    cache_close(c);
}

static void puts_sweep(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 200, ROOMY, 0);
    for (int i = 0; i < 100; i++)
        fill(c, KEY("old:%d", i), STR("v"), SECOND);
    now.now_us += SECOND;
    for (int i = 0; i < 100; i++)
        fill(c, KEY("new:%d", i), STR("v"), LONG);
    const struct cache_stats st = stats_of(c);
    assert_int_equal(st.expirations, 100);
    assert_int_equal(st.evictions, 0);
    assert_int_equal(st.entries, 100);
    cache_close(c);
}

static void watching_sweeps(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 20000, ROOMY, 0);
    for (int i = 0; i < 10000; i++)
        fill(c, KEY("k:%d", i), STR("v"), SECOND);
    assert_int_equal(stats_of(c).entries, 10000);
    now.now_us += SECOND;
    for (int i = 0; i < 20; i++)
        stats_of(c);
    assert_int_equal(stats_of(c).entries, 0);
    assert_int_equal(stats_of(c).bytes, 0);
    assert_int_equal(stats_of(c).expirations, 10000);
    cache_close(c);
}

static void bound_of_entries(void **state)
{
    (void)state;
    static const uint64_t bounds[] = {1, 2, 3, 7, 127, 255, 257, 1000, 5001};
    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
        struct cache *c = cache_with(&now, bounds[b], ROOMY, 0);
        for (unsigned i = 0; i < 4 * bounds[b]; i++) {
            fill(c, KEY("k:%u", i), STR("v"), LONG);
            assert_true(has(c, KEY("k:%u", i)));
            assert_true(stats_of(c).entries <= bounds[b]);
        }
        const struct cache_stats st = stats_of(c);
        assert_int_equal(st.puts, 4 * bounds[b]);
        assert_int_equal(st.entries, bounds[b]);
        assert_int_equal(st.evictions, 3 * bounds[b]);
        assert_int_equal(st.max_entries, bounds[b]);
        cache_close(c);
    }
}

static void bound_of_bytes(void **state)
{
    (void)state;
    static const uint64_t bounds[] = {200, 1000, 70000, 300001, 5000000};
    static char value[CACHE_VALUE_MAX];
    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
        struct cache *c = cache_with(&now, 100000, bounds[b], 0);
        uint32_t x = 12345;
        for (unsigned i = 0; i < 3000; i++) {
            x = x * 1664525 + 1013904223;
            const size_t n = (x >> 8) % (i % 16 ? 200 : sizeof value);
            fill(c, KEY("k:%u", i), (struct str){value, n}, LONG);
            assert_true(stats_of(c).bytes <= bounds[b]);
        }
        const struct cache_stats st = stats_of(c);
        assert_true(st.evictions > 0);
        assert_true(st.bytes > bounds[b] / 4);
        assert_int_equal(st.puts + st.refused_puts, 3000);
        assert_int_equal(cache_del_glob(c, STR("*")), st.entries);
        assert_int_equal(stats_of(c).bytes, 0);
        assert_int_equal(stats_of(c).entries, 0);
        cache_close(c);
    }
}

static void too_big_for_the_bound(void **state)
{
    (void)state;
    static char value[2000];
    struct cache *c = cache_with(&now, 100, 1000, 0);
    fill(c, STR("small"), STR("v"), LONG);
    fill(c, STR("big"), (struct str){value, sizeof value}, LONG);
    assert_true(has(c, STR("small")));
    assert_false(has(c, STR("big")));
    assert_int_equal(stats_of(c).evictions, 0);
    assert_int_equal(stats_of(c).refused_puts, 1);
    cache_close(c);
}

static void unused_goes_first(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 3, ROOMY, 0);
    fill(c, STR("a"), STR("v"), LONG);
    fill(c, STR("b"), STR("v"), LONG);
    fill(c, STR("c"), STR("v"), LONG);
    assert_true(has(c, STR("a")));
    fill(c, STR("d"), STR("v"), LONG);
    assert_false(has(c, STR("b")));
    assert_true(has(c, STR("c")));
    fill(c, STR("e"), STR("v"), LONG);
    assert_true(has(c, STR("c")));
    assert_true(has(c, STR("e")));
    assert_int_equal(stats_of(c).entries, 3);
    cache_close(c);
}

static void oldest_goes_first_when_none_is_used(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 100, ROOMY, 0);
    for (int i = 0; i < 150; i++)
        fill(c, KEY("k:%d", i), STR("v"), LONG);
    for (int i = 0; i < 150; i++)
        assert_int_equal(has(c, KEY("k:%d", i)), i >= 50);
    cache_close(c);
}

static void hot_keys_outlive_a_scan(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 100, ROOMY, 0);
    for (int i = 0; i < 20; i++)
        fill(c, KEY("hot:%d", i), STR("v"), LONG);
    for (int i = 0; i < 2000; i++) {
        fill(c, KEY("scan:%d", i), STR("v"), LONG);
        assert_true(has(c, KEY("hot:%d", i % 20)));
    }
    cache_close(c);
}

static void all_used_still_makes_room(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 200, ROOMY, 0);
    for (int i = 0; i < 200; i++) {
        fill(c, KEY("k:%d", i), STR("v"), LONG);
        assert_true(has(c, KEY("k:%d", i)));
    }
    fill(c, STR("new"), STR("v"), LONG);
    assert_true(has(c, STR("new")));
    assert_true(has(c, STR("k:0"))); /* the search gave up before it came round */
    assert_int_equal(stats_of(c).entries, 200);
    assert_int_equal(stats_of(c).evictions, 1);
    cache_close(c);
}

static void expired_goes_before_live(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 3, ROOMY, 0);
    fill(c, STR("a"), STR("v"), SECOND);
    fill(c, STR("b"), STR("v"), LONG);
    fill(c, STR("c"), STR("v"), LONG);
    now.now_us += SECOND;
    fill(c, STR("d"), STR("v"), LONG);
    assert_int_equal(stats_of(c).evictions, 0);
    assert_int_equal(stats_of(c).expirations, 1);
    assert_true(has(c, STR("b")) && has(c, STR("c")) && has(c, STR("d")));
    cache_close(c);
}

static void deleted_key_refuses_older_tokens(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 1000, ROOMY, 0);
    const uint64_t before = token_of(c, STR("k"));
    assert_false(cache_del(c, STR("k")));
    cache_put(c, STR("k"), STR("old"), LONG, before);
    assert_false(has(c, STR("k")));
    assert_int_equal(stats_of(c).refused_puts, 1);

    const uint64_t after = token_of(c, STR("k"));
    cache_put(c, STR("k"), STR("new"), LONG, after);
    assert_true(has_value(c, STR("k"), STR("new")));
    assert_true(cache_del(c, STR("k")));
    cache_put(c, STR("k"), STR("new"), LONG, after);
    assert_false(has(c, STR("k")));
    assert_false(cache_del(c, STR("k")));
    assert_int_equal(stats_of(c).invalidations, 1);

    cache_put(c, STR("never asked"), STR("v"), LONG, 0);
    assert_false(has(c, STR("never asked")));
    cache_close(c);
}

static void other_keys_tokens_mostly_stay(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 100000, ROOMY, 0);
    uint64_t tokens[1000];
    for (int i = 0; i < 1000; i++)
        tokens[i] = token_of(c, KEY("k:%d", i));
    cache_del(c, STR("another"));
    for (int i = 0; i < 1000; i++)
        cache_put(c, KEY("k:%d", i), STR("v"), LONG, tokens[i]);
    assert_true(stats_of(c).puts > 980);
    cache_close(c);
}

static void glob_refuses_every_older_token(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 100000, ROOMY, 0);
    uint64_t tokens[1000];
    for (int i = 0; i < 1000; i++)
        tokens[i] = token_of(c, KEY("k:%d", i));
    assert_int_equal(cache_del_glob(c, STR("no such key")), 0);
    for (int i = 0; i < 1000; i++)
        cache_put(c, KEY("k:%d", i), STR("v"), LONG, tokens[i]);
    assert_int_equal(stats_of(c).puts, 0);
    assert_int_equal(stats_of(c).refused_puts, 1000);
    cache_close(c);
}

static void glob_removes_what_matches(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 100000, ROOMY, 0);
    for (int i = 0; i < 3000; i++) {
        fill(c, KEY("user:%d", i), STR("v"), LONG);
        fill(c, KEY("balance:%d:USD", i), STR("v"), LONG);
    }
    assert_int_equal(cache_del_glob(c, STR("balance:7:*")), 1);
    assert_int_equal(cache_del_glob(c, STR("user:??")), 90);
    assert_int_equal(cache_del_glob(c, STR("user:*")), 2910);
    assert_int_equal(cache_del_glob(c, STR("user:*")), 0);
    assert_int_equal(stats_of(c).entries, 2999);
    assert_int_equal(stats_of(c).invalidations, 3001);
    assert_false(has(c, STR("balance:7:USD")));
    assert_true(has(c, STR("balance:8:USD")));
    cache_close(c);
}

enum { LISTED = 5000 };

struct listing {
    struct cache *c;
    unsigned calls, stop_after;
    bool fills, deletes;
    uint8_t seen[LISTED];
    int64_t ttl_us;
};

static bool list_one(void *ctx, struct str key, int64_t ttl_us)
{
    struct listing *l = ctx;
    uint64_t i;
    l->calls++;
    l->ttl_us = ttl_us;
    assert_true(str_starts(key, STR("k:")));
    assert_true(str_to_u64((struct str){key.p + 2, key.n - 2}, &i));
    assert_in_range(i, 0, LISTED - 1);
    l->seen[i]++;
    if (l->fills)
        for (unsigned j = 0; j < 4; j++)
            fill(l->c, KEY("more:%u:%u", l->calls, j), STR("v"), LONG);
    if (l->deletes)
        assert_true(cache_del(l->c, key));
    return l->calls != l->stop_after;
}

static void keys_lists_each_once(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 100000, ROOMY, 0);
    struct listing *l = test_calloc(1, sizeof *l);
    l->c = c;
    assert_int_equal(cache_keys(c, STR("*"), 10, list_one, l), PFE_OK);
    assert_int_equal(l->calls, 0);

    for (int i = 0; i < LISTED; i++)
        fill(c, KEY("k:%d", i), STR("v"), i == 4321 ? 5 * SECOND : LONG);
    fill(c, STR("other"), STR("v"), LONG);
    now.now_us += 2 * SECOND;
    assert_int_equal(cache_keys(c, STR("k:*"), UINT64_MAX, list_one, l), PFE_OK);
    assert_int_equal(l->calls, LISTED);
    for (int i = 0; i < LISTED; i++)
        assert_int_equal(l->seen[i], 1);

    assert_int_equal(cache_keys(c, STR("k:4321"), 10, list_one, l), PFE_OK);
    assert_int_equal(l->calls, LISTED + 1);
    assert_int_equal(l->ttl_us, 3 * SECOND);
    now.now_us += 3 * SECOND;
    assert_int_equal(cache_keys(c, STR("k:4321"), 10, list_one, l), PFE_OK);
    assert_int_equal(l->calls, LISTED + 1);
    test_free(l);
    cache_close(c);
}

static void keys_stops(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 100000, ROOMY, 0);
    for (int i = 0; i < LISTED; i++)
        fill(c, KEY("k:%d", i), STR("v"), LONG);
    static const struct {
        unsigned limit, stop_after, calls;
    } cases[] = {{0, 0, 0}, {1, 0, 1}, {77, 0, 77}, {4999, 0, 4999}, {5000, 0, 5000}, {5001, 0, 5000}, {100, 3, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct listing *l = test_calloc(1, sizeof *l);
        l->stop_after = cases[i].stop_after;
        assert_int_equal(cache_keys(c, STR("*"), cases[i].limit, list_one, l), PFE_OK);
        assert_int_equal(l->calls, cases[i].calls);
        test_free(l);
    }
    cache_close(c);
}

/* Fills while listing: the tables double under the listing's feet. */
static void keys_survives_changes(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 100000, ROOMY, 0);
    struct listing *l = test_calloc(1, sizeof *l);
    l->c = c;
    l->fills = true;
    for (int i = 0; i < LISTED; i++)
        fill(c, KEY("k:%d", i), STR("v"), LONG);
    assert_int_equal(cache_keys(c, STR("k:*"), UINT64_MAX, list_one, l), PFE_OK);
    for (int i = 0; i < LISTED; i++)
        assert_int_equal(l->seen[i], 1);
    assert_int_equal(stats_of(c).entries, 5 * LISTED);

    l->fills = false;
    l->deletes = true;
    assert_int_equal(cache_keys(c, STR("k:*"), UINT64_MAX, list_one, l), PFE_OK);
    assert_int_equal(stats_of(c).entries, 4 * LISTED);
    test_free(l);
    cache_close(c);
}

static void statistics_add_up(void **state)
{
    (void)state;
    struct cache *c = cache_with(&now, 50, ROOMY, 0);
    uint32_t x = 1;
    for (int i = 0; i < 20000; i++) {
        x = x * 1664525 + 1013904223;
        const struct str k = KEY("k:%u", x >> 24);
        if (x % 7 == 0)
            cache_del(c, k);
        else if (!has(c, k))
            cache_put(c, k, STR("v"), (int64_t)(1 + x % 9) * SECOND, token_of(c, k));
        if (x % 5 == 0)
            now.now_us += SECOND / 10;
    }
    const struct cache_stats st = stats_of(c);
    assert_string_equal(st.tier, "local");
    assert_true(st.up);
    assert_true(st.hits > 0 && st.evictions > 0 && st.expirations > 0 && st.invalidations > 0);
    assert_int_equal(st.puts, st.entries + st.evictions + st.expirations + st.invalidations);
    assert_int_equal(cache_stats(c, NULL, 0), 0);
    cache_close(c);
    cache_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(miss_fill_hit, setup),
        cmocka_unit_test_setup(empty_key_and_value, setup),
        cmocka_unit_test_setup(long_value_is_a_miss, setup),
        cmocka_unit_test_setup(sizes_at_the_limits, setup),
        cmocka_unit_test_setup(time_to_live, setup),
        cmocka_unit_test_setup(refill_renews_the_time, setup),
        cmocka_unit_test_setup(expired_is_not_there_to_delete, setup),
        cmocka_unit_test_setup(puts_sweep, setup),
        cmocka_unit_test_setup(watching_sweeps, setup),
        cmocka_unit_test_setup(bound_of_entries, setup),
        cmocka_unit_test_setup(bound_of_bytes, setup),
        cmocka_unit_test_setup(too_big_for_the_bound, setup),
        cmocka_unit_test_setup(unused_goes_first, setup),
        cmocka_unit_test_setup(oldest_goes_first_when_none_is_used, setup),
        cmocka_unit_test_setup(hot_keys_outlive_a_scan, setup),
        cmocka_unit_test_setup(all_used_still_makes_room, setup),
        cmocka_unit_test_setup(expired_goes_before_live, setup),
        cmocka_unit_test_setup(deleted_key_refuses_older_tokens, setup),
        cmocka_unit_test_setup(other_keys_tokens_mostly_stay, setup),
        cmocka_unit_test_setup(glob_refuses_every_older_token, setup),
        cmocka_unit_test_setup(glob_removes_what_matches, setup),
        cmocka_unit_test_setup(keys_lists_each_once, setup),
        cmocka_unit_test_setup(keys_stops, setup),
        cmocka_unit_test_setup(keys_survives_changes, setup),
        cmocka_unit_test_setup(statistics_add_up, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
