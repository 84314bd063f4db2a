/* Two instances under threads, over one Redis that is now and then cut off: on the instance that writes no reader sees
 * a value older than the last acknowledged write; on the other, none older than a local copy may be; in the end nothing
 * old is left anywhere. Runs under ThreadSanitizer too. */
#include "redis_fixture.h"

#include <sched.h>

enum { KEYS = 6, READERS = 2, SECONDS = 6, HISTORY = 4096 };

/* A local copy's life, a message's way, and room for a busy machine. */
#define STALE_US (2500 * INT64_C(1000))

struct book {
    struct cache *writer, *other;
    _Atomic uint64_t stored[KEYS], acked[KEYS];
    /* the newest version that was acknowledged STALE_US ago */
    _Atomic uint64_t settled[KEYS];
    _Atomic uint64_t stale, stale_other, hits, hits_other, fills;
    _Atomic bool done;
};

static void *write_book(void *ctx)
{
    struct book *b = ctx;
    static struct {
        int64_t at_us;
        uint64_t version;
    } history[HISTORY];
    unsigned first = 0, n = 0;
    for (uint64_t v = 1; !b->done; v++) {
        for (unsigned k = 0; k < KEYS; k++)
            b->stored[k] = v;
        if (v % 64 == 0) {
            cache_del_glob(b->writer, STR("key:*"));
        } else if (v % 2) {
            struct key text[KEYS];
            struct str keys[KEYS];
            for (unsigned k = 0; k < KEYS; k++)
                keys[k] = key_of(&text[k], "key:%u", k);
            cache_del_many(b->writer, keys, KEYS);
        } else {
            for (unsigned k = 0; k < KEYS; k++)
                cache_del(b->writer, KEY("key:%u", k));
        }
        for (unsigned k = 0; k < KEYS; k++)
            b->acked[k] = v;
        if (n < HISTORY) {
            history[(first + n) % HISTORY].at_us = real_us();
            history[(first + n++) % HISTORY].version = v;
        }
        for (; n && history[first].at_us < real_us() - STALE_US; n--, first = (first + 1) % HISTORY)
            for (unsigned k = 0; k < KEYS; k++)
                b->settled[k] = history[first].version;
        usleep(v % 8 ? 2000 : 20000);
    }
    return NULL;
}

static void read_one(struct book *b, struct cache *c, unsigned i, const _Atomic uint64_t *least_of,
                     _Atomic uint64_t *hits, _Atomic uint64_t *stale)
{
    const unsigned k = i % KEYS;
    const struct str key = KEY("key:%u", k);
    const uint64_t least = least_of[k];
    uint64_t v = 0, token = 0;
    size_t n;
    if ((i % 5 ? cache_fetch : cache_get)(c, key, &v, sizeof v, &n, &token)) {
        atomic_fetch_add(hits, 1);
        if (n != sizeof v || v < least)
            atomic_fetch_add(stale, 1);
        return;
    }
    v = b->stored[k];
    if (i % 3 == 0)
        usleep(i % 1000);
    if (i % 97 == 0)
        cache_forgo(c, token);
    else
        cache_put(c, key, (struct str){(const char *)&v, sizeof v}, LONG, token);
    atomic_fetch_add(&b->fills, 1);
}

static void *read_writer(void *ctx)
{
    struct book *b = ctx;
    for (unsigned i = 0; !b->done; i++) {
        read_one(b, b->writer, i, b->acked, &b->hits, &b->stale);
        if (i % 16 == 0)
            usleep(500);
    }
    return NULL;
}

static void *read_other(void *ctx)
{
    struct book *b = ctx;
    for (unsigned i = 0; !b->done; i++) {
        read_one(b, b->other, i, b->settled, &b->hits_other, &b->stale_other);
        struct cache_rate r;
        (i % 8 ? cache_rate : cache_rate_exact)(b->other, KEY("r:%u", i % 50), 100, SECOND, 1, &r);
        if (i % 16 == 0)
            usleep(500);
    }
    return NULL;
}

static void nothing_old_whatever_happens(void **state)
{
    (void)state;
    struct redis_server s;
    redis_server_start(&s, NULL);
    struct book b = {.writer = tiers_up(&s), .other = tiers_up(&s)};
    pthread_t writer, readers[2 * READERS];
    assert_int_equal(pthread_create(&writer, NULL, write_book, &b), 0);
    for (unsigned i = 0; i < 2 * READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, i % 2 ? read_other : read_writer, &b), 0);
    for (unsigned i = 0; i < SECONDS; i++) {
        sleep(1);
        if (i == 1)
            redis_server_do(&s, "CLIENT KILL TYPE normal");
        if (i == 2) {
            redis_server_freeze(&s, true);
            usleep(700000);
            redis_server_freeze(&s, false);
        }
        if (i == 3)
            redis_server_do(&s, "CLIENT KILL TYPE pubsub");
        if (i == 4)
            redis_server_do(&s, "FLUSHALL");
    }
    EVENTUALLY(up(b.writer) && up(b.other), 10000);
    b.done = true;
    pthread_join(writer, NULL);
    for (unsigned i = 0; i < 2 * READERS; i++)
        pthread_join(readers[i], NULL);

    printf("# hits %lu and %lu, fills %lu\n", b.hits, b.hits_other, b.fills);
    assert_int_equal(b.stale, 0);
    assert_int_equal(b.stale_other, 0);
    assert_true(b.hits > 100 && b.hits_other > 100 && b.fills > 100);
    usleep(1100000);
    unsigned left = 0;
    for (unsigned k = 0; k < KEYS; k++) {
        uint64_t v = 0, token = 0;
        size_t n;
        struct cache *c = k % 2 ? b.writer : b.other;
        if (cache_fetch(c, KEY("key:%u", k), &v, sizeof v, &n, &token)) {
            assert_int_equal(v, b.acked[k]);
            left++;
        } else {
            cache_forgo(c, token);
        }
    }
    printf("# left in Redis: %u\n", left);
    cache_close(b.writer);
    cache_close(b.other);
    redis_server_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_old_whatever_happens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
