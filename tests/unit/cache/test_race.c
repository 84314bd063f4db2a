/* The cache under threads: no reader may see a value older than the last acknowledged write; bounds and counters hold.
 * Runs under ThreadSanitizer too. */
#include "fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { KEYS = 8, READERS = 3, WRITES = 4000, WRITES_MAX = 100 * WRITES, LEAST_HITS = 1000 };

struct book {
    struct cache *cache;
    _Atomic uint64_t stored[KEYS]; /* the store: what a read of it gives */
    _Atomic uint64_t acked[KEYS];  /* what the writer has been told is done */
    _Atomic uint64_t stale, hits, fills;
    _Atomic bool done;
};

/* Writes each key in turn, with a del, or now and then a glob, before it acknowledges. Goes on until the readers have
 * had their share, however the machine schedules them. */
static void *write_book(void *ctx)
{
    struct book *b = ctx;
    for (uint64_t v = 1; v <= WRITES || (v <= WRITES_MAX && atomic_load(&b->hits) < LEAST_HITS); v++) {
        for (unsigned k = 0; k < KEYS; k++) {
            atomic_store(&b->stored[k], v);
            if (v % 64 == k)
                cache_del_glob(b->cache, KEY("key:%u*", k));
            else
                cache_del(b->cache, KEY("key:%u", k));
            atomic_store(&b->acked[k], v);
        }
        if (v % 4 == 0)
            sched_yield();
    }
    atomic_store(&b->done, true);
    return NULL;
}

static void *read_book(void *ctx)
{
    struct book *b = ctx;
    for (unsigned i = 0; !atomic_load(&b->done); i++) {
        const unsigned k = i % KEYS;
        const struct str key = KEY("key:%u", k);
        const uint64_t least = atomic_load(&b->acked[k]);
        uint64_t v, token;
        size_t n;
        if (cache_get(b->cache, key, &v, sizeof v, &n, &token)) {
            atomic_fetch_add(&b->hits, 1);
            if (n != sizeof v || v < least)
                atomic_fetch_add(&b->stale, 1);
        } else {
            v = atomic_load(&b->stored[k]);
            if (i % 3 == 0)
                sched_yield();
            cache_put(b->cache, key, (struct str){(const char *)&v, sizeof v}, 3600 * SECOND, token);
            atomic_fetch_add(&b->fills, 1);
        }
    }
    return NULL;
}

static void never_older_than_acknowledged(void **state)
{
    (void)state;
    struct cache *c = cache_local_new(
        &(struct cache_local_options){.max_entries = 100, .max_bytes = 1 << 20, .clock = clock_system()});
    assert_non_null(c);
    struct book b = {.cache = c};
    pthread_t writer, readers[READERS];
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_book, &b), 0);
    assert_int_equal(pthread_create(&writer, NULL, write_book, &b), 0);
    pthread_join(writer, NULL);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);

    assert_int_equal(atomic_load(&b.stale), 0);
    assert_true(atomic_load(&b.hits) >= LEAST_HITS);
    assert_true(atomic_load(&b.fills) > 0);
    for (unsigned k = 0; k < KEYS; k++) {
        uint64_t v, token;
        size_t n;
        if (cache_get(c, KEY("key:%u", k), &v, sizeof v, &n, &token))
            assert_int_equal(v, atomic_load(&b.acked[k]));
    }
    cache_close(c);
}

enum { CROWD = 3, CROWD_KEYS = 2000, CROWD_STEPS = 20000, CROWD_ENTRIES = 300, CROWD_BYTES = 300000 };

struct crowd {
    struct cache *cache;
    _Atomic unsigned next, broken;
    _Atomic bool done;
};

static bool listed_ok(void *ctx, struct str key, int64_t ttl_us)
{
    struct crowd *w = ctx;
    if (!str_starts(key, STR("k:")) || ttl_us <= 0)
        atomic_fetch_add(&w->broken, 1);
    return true;
}

/* Any call in any order; a value is its key, so that a torn or exchanged one shows. */
static void *crowd_member(void *ctx)
{
    struct crowd *w = ctx;
    uint32_t x = atomic_fetch_add(&w->next, 1) + 1;
    for (unsigned i = 0; i < CROWD_STEPS; i++) {
        x = x * 1664525 + 1013904223;
        const struct str key = KEY("k:%u", (x >> 10) % CROWD_KEYS);
        char out[CACHE_KEY_MAX];
        size_t n;
        uint64_t token;
        if (x >> 20 == 0)
            cache_del_glob(w->cache, STR("k:1*"));
        else if (x >> 20 == 1)
            (void)cache_keys(w->cache, STR("k:*"), 100, listed_ok, w);
        else if (x >> 28 == 1)
            cache_del(w->cache, key);
        else if (!cache_get(w->cache, key, out, sizeof out, &n, &token))
            cache_put(w->cache, key, key, x >> 28 == 2 ? 1 : 60 * SECOND, token);
        else if (!str_eq((struct str){out, n}, key))
            atomic_fetch_add(&w->broken, 1);
    }
    return NULL;
}

static void *crowd_watch(void *ctx)
{
    struct crowd *w = ctx;
    while (!atomic_load(&w->done)) {
        struct cache_stats st;
        cache_stats(w->cache, &st, 1);
        if (st.entries > CROWD_ENTRIES || st.bytes > CROWD_BYTES)
            atomic_fetch_add(&w->broken, 1);
    }
    return NULL;
}

static void bounds_hold_in_a_crowd(void **state)
{
    (void)state;
    struct cache *c = cache_local_new(
        &(struct cache_local_options){.max_entries = CROWD_ENTRIES, .max_bytes = CROWD_BYTES, .clock = clock_system()});
    assert_non_null(c);
    struct crowd w = {.cache = c};
    pthread_t members[CROWD], watch;
    assert_int_equal(pthread_create(&watch, NULL, crowd_watch, &w), 0);
    for (int i = 0; i < CROWD; i++)
        assert_int_equal(pthread_create(&members[i], NULL, crowd_member, &w), 0);
    for (int i = 0; i < CROWD; i++)
        pthread_join(members[i], NULL);
    atomic_store(&w.done, true);
    pthread_join(watch, NULL);

    assert_int_equal(atomic_load(&w.broken), 0);
    const struct cache_stats st = stats_of(c);
    assert_true(st.evictions > 0);
    assert_true(st.expirations > 0);
    assert_int_equal(st.puts >= st.entries + st.evictions + st.expirations + st.invalidations, 1);
    cache_del_glob(c, STR("*"));
    assert_int_equal(stats_of(c).bytes, 0);
    cache_close(c);
}

enum { LIMIT = 10000, TRIES = 5000, RATE_KEYS = 4 };

struct gate {
    struct cache *cache;
    _Atomic unsigned allowed[RATE_KEYS];
};

static void *gate_try(void *ctx)
{
    struct gate *g = ctx;
    for (unsigned i = 0; i < TRIES * RATE_KEYS; i++) {
        struct cache_rate r;
        cache_rate(g->cache, KEY("rate:%u", i % RATE_KEYS), LIMIT, 3600 * SECOND, 1, &r);
        if (r.allowed)
            atomic_fetch_add(&g->allowed[i % RATE_KEYS], 1);
    }
    return NULL;
}

static void rate_admits_exactly_the_limit(void **state)
{
    (void)state;
    struct cache *c = cache_local_new(
        &(struct cache_local_options){.max_entries = 100, .max_bytes = 1 << 20, .clock = clock_system()});
    assert_non_null(c);
    struct gate g = {.cache = c};
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, gate_try, &g), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    for (int k = 0; k < RATE_KEYS; k++)
        assert_int_equal(atomic_load(&g.allowed[k]), LIMIT);
    cache_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_older_than_acknowledged),
        cmocka_unit_test(bounds_hold_in_a_crowd),
        cmocka_unit_test(rate_admits_exactly_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
