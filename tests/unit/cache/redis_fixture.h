/* Two caches over one Redis, as two instances have them. */
#ifndef TEST_CACHE_REDIS_FIXTURE_H
#define TEST_CACHE_REDIS_FIXTURE_H

#include "fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "cache/redis/redis.h"
#include "redis_server.h"

static inline int64_t real_us(void)
{
    return clock_mono(clock_system());
}

#define EVENTUALLY(cond, ms)                                                                                           \
    do {                                                                                                               \
        const int64_t until_ = real_us() + (ms)*INT64_C(1000);                                                         \
        while (!(cond) && real_us() < until_)                                                                          \
            usleep(2000);                                                                                              \
        assert_true(cond);                                                                                             \
    } while (0)

static inline struct cache *tiers_with(const char *host, int port, const char *password)
{
    struct cache *local = cache_local_new(
        &(struct cache_local_options){.max_entries = 1000, .max_bytes = 1 << 20, .clock = clock_system()});
    assert_non_null(local);
    struct cache *c = cache_redis_new(&(struct cache_redis_options){.host = host,
                                                                    .port = port,
                                                                    .user = "",
                                                                    .password = password,
                                                                    .pool_size = 4,
                                                                    .min_idle = 1,
                                                                    .secret = "a secret of the tests",
                                                                    .local = local});
    assert_non_null(c);
    return c;
}

static inline struct cache_stats tier_of(struct cache *c, unsigned i)
{
    struct cache_stats st[2];
    assert_int_equal(cache_stats(c, st, 2), 2);
    assert_string_equal(st[1].tier, "redis");
    return st[i];
}

static inline bool up(struct cache *c)
{
    return tier_of(c, 1).up;
}

static inline struct cache *tiers_up(const struct redis_server *s)
{
    struct cache *c = tiers_with(s->socket, 0, s->password ? s->password : "");
    EVENTUALLY(up(c), 5000);
    return c;
}

/* A miss of all tiers; the token is to be given back. */
static inline uint64_t miss(struct cache *c, struct str key)
{
    char out[CACHE_KEY_MAX];
    size_t n;
    uint64_t token = 0;
    assert_false(cache_fetch(c, key, out, sizeof out, &n, &token));
    return token;
}

static inline void fill_all(struct cache *c, struct str key, struct str value)
{
    cache_put(c, key, value, LONG, miss(c, key));
}

/* Whether any tier has that value. */
static inline bool fetches(struct cache *c, struct str key, struct str value)
{
    char out[256];
    size_t n;
    uint64_t token = 0;
    if (cache_fetch(c, key, out, sizeof out, &n, &token))
        return str_eq((struct str){out, n}, value);
    cache_forgo(c, token);
    return false;
}

/* Fills a key through one cache until the other has it too: one that comes back a moment later makes void what was
 * filled just before. */
#define SHARE(from, to, key, value)                                                                                    \
    EVENTUALLY((cache_del(from, key), fill_all(from, key, value), fetches(to, key, value)), 5000)

#endif
