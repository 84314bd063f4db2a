/*
 * cache: what the application needs of a cache and of shared counters. Nothing about money is ever decided on what it
 * says.
 *
 * Keys are the contract's: user:{id}, balance:{user_id}:{currency}, transaction:{id}; values are small byte strings.
 * Tiers: one in-process (cache/local). All calls are thread-safe; get, put, del and rate are quick enough for I/O
 * threads.
 *
 * A filled value must never be older than an invalidation: a miss hands out a token, and cache_put with that token is
 * refused if the key was deleted since. So: get → miss(token) → read the store → put(token).
 */
#ifndef PORT_CACHE_H
#define PORT_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { CACHE_KEY_MAX = 128, CACHE_VALUE_MAX = 65536 };

struct cache;

struct cache_stats {
    const char *tier; /* "local" */
    bool up;
    uint64_t hits, misses, puts, evictions, expirations, invalidations, refused_puts;
    uint64_t entries, bytes;         /* live now; bytes with overhead */
    uint64_t max_entries, max_bytes; /* bounds */
};

/* A fixed window counter: `limit` requests in each window of `window_us`. */
struct cache_rate {
    bool allowed;
    int64_t remaining;
    int64_t reset_us; /* until the window ends */
};

struct cache_ops {
    void (*close)(struct cache *c);
    bool (*get)(struct cache *c, struct str key, void *out, size_t cap, size_t *ret_n, uint64_t *ret_token);
    void (*put)(struct cache *c, struct str key, struct str value, int64_t ttl_us, uint64_t token);
    bool (*del)(struct cache *c, struct str key);
    uint64_t (*del_glob)(struct cache *c, struct str pattern);
    enum pf_err (*keys)(struct cache *c, struct str pattern, uint64_t limit,
                        bool (*fn)(void *ctx, struct str key, int64_t ttl_us), void *ctx);
    void (*rate)(struct cache *c, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                 struct cache_rate *ret);
    unsigned (*stats)(struct cache *c, struct cache_stats *out, unsigned cap);
};

/* Engines embed this as their first member. */
struct cache {
    const struct cache_ops *ops;
};

static inline void cache_close(struct cache *c)
{
    if (c)
        c->ops->close(c);
}

/* true: a hit, *ret_n bytes copied to out (a value longer than cap is a miss). false: *ret_token is for the put that
 * follows. */
static inline bool cache_get(struct cache *c, struct str key, void *out, size_t cap, size_t *ret_n, uint64_t *ret_token)
{
    return c->ops->get(c, key, out, cap, ret_n, ret_token);
}

/* Best effort: may be dropped for bounds or a stale token. ttl_us > 0. Key and value are copied. */
static inline void cache_put(struct cache *c, struct str key, struct str value, int64_t ttl_us, uint64_t token)
{
    c->ops->put(c, key, value, ttl_us, token);
}

/* Removes the key and makes every token handed out for it before stale, also when it was not there. true: it was there.
 */
static inline bool cache_del(struct cache *c, struct str key)
{
    return c->ops->del(c, key);
}

/* Removes all keys that match (str_glob) and makes all tokens stale. Returns how many. */
static inline uint64_t cache_del_glob(struct cache *c, struct str pattern)
{
    return c->ops->del_glob(c, pattern);
}

/* Live keys that match, in no order, at most limit. fn runs without locks held on copies; false stops. */
static inline enum pf_err cache_keys(struct cache *c, struct str pattern, uint64_t limit,
                                     bool (*fn)(void *ctx, struct str key, int64_t ttl_us), void *ctx)
{
    return c->ops->keys(c, pattern, limit, fn, ctx);
}

/* Counts `cost` requests against the key's window and says whether the count so far, these included, is within the
   limit (cost 0: counts nothing; allowed if one more would be). limit > 0. Counters live apart from the cached values
   (no eviction by values) but are bounded too: when the table is full the oldest window gives way. */
static inline void cache_rate(struct cache *c, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                              struct cache_rate *ret)
{
    c->ops->rate(c, key, limit, window_us, cost, ret);
}

/* One per tier; returns how many were written. */
static inline unsigned cache_stats(struct cache *c, struct cache_stats *out, unsigned cap)
{
    return c->ops->stats(c, out, cap);
}

#endif
