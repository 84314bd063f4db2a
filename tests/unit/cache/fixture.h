/* What the cache's tests share: a clock that is set by hand and short ways to put and to look. */
#ifndef TEST_CACHE_FIXTURE_H
#define TEST_CACHE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "cache/local/local.h"

#define SECOND INT64_C(1000000)
#define LONG (1800 * SECOND)

struct fake_time {
    int64_t now_us;
    struct clock clock;
};

static inline int64_t fake_now(void *ctx)
{
    return ((struct fake_time *)ctx)->now_us;
}

static inline void fake_init(struct fake_time *t)
{
    *t = (struct fake_time){.now_us = SECOND, .clock = {fake_now, fake_now, t}};
}

static inline struct cache *cache_with(const struct fake_time *t, uint64_t entries, uint64_t bytes, uint64_t counters)
{
    struct cache *c = cache_local_new(&(struct cache_local_options){
        .max_entries = entries, .max_bytes = bytes, .max_counters = counters, .clock = &t->clock});
    assert_non_null(c);
    return c;
}

struct key {
    char text[CACHE_KEY_MAX];
    struct str s;
};

#define KEY(fmt, ...) key_of(&(struct key){0}, fmt, __VA_ARGS__)

static inline __attribute__((format(printf, 2, 3))) struct str key_of(struct key *k, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(k->text, sizeof k->text, fmt, ap);
    va_end(ap);
    assert_in_range(n, 0, sizeof k->text - 1);
    return k->s = (struct str){k->text, (size_t)n};
}

static inline bool has(struct cache *c, struct str key)
{
    static char out[CACHE_VALUE_MAX];
    size_t n;
    uint64_t token;
    return cache_get(c, key, out, sizeof out, &n, &token);
}

static inline bool has_value(struct cache *c, struct str key, struct str value)
{
    static char out[CACHE_VALUE_MAX];
    size_t n;
    uint64_t token;
    return cache_get(c, key, out, sizeof out, &n, &token) && str_eq((struct str){out, n}, value);
}

/* A token for the key, as a miss gives it: cap 0 makes a miss of any hit but an empty value. */
static inline uint64_t token_of(struct cache *c, struct str key)
{
    size_t n;
    uint64_t token = 0;
    assert_false(cache_get(c, key, NULL, 0, &n, &token));
    return token;
}

static inline void fill(struct cache *c, struct str key, struct str value, int64_t ttl_us)
{
    cache_put(c, key, value, ttl_us, token_of(c, key));
}

static inline struct cache_stats stats_of(struct cache *c)
{
    struct cache_stats st;
    assert_int_equal(cache_stats(c, &st, 1), 1);
    return st;
}

#endif
