/*
 * cache: what the application needs of a cache, of shared counters, and of locks for taking turns. Nothing about money
 * is ever decided on what it says.
 *
 * Keys are the contract's: user:{id}, balance:{user_id}:{currency}, transaction:{id}; values are small byte strings.
 * Tiers: one in-process (cache/local), and perhaps one that instances share behind it (cache/redis). All calls are
 * thread-safe. get, rate and stats are quick enough for I/O threads, and so is a put with a token of get; the others
 * may wait for the shared tier, about 0.1 s in all should it hang.
 *
 * A filled value must never be older than an invalidation: a miss hands out a token, and cache_put with that token is
 * refused if the key was deleted since. So: get or fetch → miss(token) → read the store → put(token), or forgo(token).
 *
 * A cache that instances share (cache_shared) may hold what another instance has changed a moment ago. Who looks into
 * it for somebody asks cache_confirm first: once it has said yes, get and fetch answer nothing older than what any
 * instance had acknowledged when cache_confirm was called.
 */
#ifndef PORT_CACHE_H
#define PORT_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "port/breaker.h"

enum { CACHE_KEY_MAX = 128, CACHE_VALUE_MAX = 65536 };

struct cache;

struct cache_stats {
    const char *tier; /* "local", "redis" */
    bool up;
    uint64_t hits, misses, puts, evictions, expirations, invalidations, refused_puts;
    uint64_t entries, bytes;         /* live now; bytes with overhead */
    uint64_t max_entries, max_bytes; /* bounds */
    struct port_breaker breaker;     /* before the tier, if there is one */
};

/* A fixed window counter: `limit` requests in each window of `window_us`. */
struct cache_rate {
    bool allowed;
    int64_t remaining;
    int64_t reset_us; /* until the window ends */
};

/* What became of a lock that was asked for. */
enum cache_lock {
    CACHE_LOCK_NONE,  /* there are none: no shared tier, or it is gone */
    CACHE_LOCK_MINE,  /* until its time is over, or it is given back */
    CACHE_LOCK_TAKEN, /* another has it */
};
enum { CACHE_LOCK_LEN = 16 }; /* of a holder's name */

/* A question to cache_confirm; the caller's memory, to be left alone until fn is called. */
struct cache_confirm {
    void (*fn)(struct cache_confirm *q, bool good);
    struct cache_confirm *next;
};

struct cache_ops {
    void (*close)(struct cache *c);
    /* NULL, all three, in a cache of one process */
    bool (*sound)(struct cache *c);
    void (*confirm)(struct cache *c, struct cache_confirm *q);
    int64_t (*heard)(struct cache *c);
    bool (*get)(struct cache *c, struct str key, void *out, size_t cap, size_t *ret_n, uint64_t *ret_token);
    /* NULL in a cache of one tier: get, nothing, a del each, rate, nothing */
    bool (*fetch)(struct cache *c, struct str key, void *out, size_t cap, size_t *ret_n, uint64_t *ret_token);
    void (*forgo)(struct cache *c, uint64_t token);
    bool (*del_many)(struct cache *c, const struct str *keys, size_t n);
    void (*rate_exact)(struct cache *c, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                       struct cache_rate *ret);
    void (*watch)(struct cache *c, void (*fn)(void *ctx, struct str pattern), void *ctx);
    /* NULL, both: CACHE_LOCK_NONE */
    enum cache_lock (*lock)(struct cache *c, struct str key, int64_t ttl_us, char ret_holder[CACHE_LOCK_LEN + 1]);
    void (*unlock)(struct cache *c, struct str key, const char holder[CACHE_LOCK_LEN + 1]);

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

/* The same over all tiers. When several threads miss one key at once, one of them gets a token and the others wait for
 * its put, or until it forgoes, for a bounded time: so a token must be given back, by put or forgo. */
static inline bool cache_fetch(struct cache *c, struct str key, void *out, size_t cap, size_t *ret_n,
                               uint64_t *ret_token)
{
    return (c->ops->fetch ? c->ops->fetch : c->ops->get)(c, key, out, cap, ret_n, ret_token);
}

/* There will be no put with this token. Any token, also 0. */
static inline void cache_forgo(struct cache *c, uint64_t token)
{
    if (c->ops->forgo)
        c->ops->forgo(c, token);
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

/* The same for many keys at once, each of CACHE_KEY_MAX bytes at most, for what was committed and is now to be
   acknowledged: true once no instance answers anything older from its cache (to who has asked cache_confirm after
   that). Where the others cannot be told, that takes until they have noticed, about a second and a half. false: not
   even that was possible within seconds; what was committed must not be acknowledged as such. */
static inline bool cache_del_many(struct cache *c, const struct str *keys, size_t n)
{
    if (c->ops->del_many)
        return c->ops->del_many(c, keys, n);
    for (size_t i = 0; i < n; i++)
        c->ops->del(c, keys[i]);
    return true;
}

/* Do other instances change what is cached here, and say so? */
static inline bool cache_shared(const struct cache *c)
{
    return c->ops->confirm != NULL;
}

/* Would cache_confirm say yes, as far as is known now? Quick. */
static inline bool cache_sound(struct cache *c)
{
    return !c->ops->sound || c->ops->sound(c);
}

/* Of a shared cache. fn is called exactly once, on this or on another thread, within 0.3 s and usually as soon as a
   message to the shared tier and back; good: see above. Not good: look elsewhere. fn must be quick, and not call the
   cache (but for a confirmation, sound and heard). */
static inline void cache_confirm(struct cache *c, struct cache_confirm *q)
{
    c->ops->confirm(c, q);
}

/* Of a shared cache: the moment (monotonic) before which all that was acknowledged has been heard of here. */
static inline int64_t cache_heard(struct cache *c)
{
    return c->ops->heard(c);
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
   (no eviction by values) but are bounded too: when the table is full the oldest window gives way. Over several
   instances it may let through a little more, see cache/redis. */
static inline void cache_rate(struct cache *c, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                              struct cache_rate *ret)
{
    c->ops->rate(c, key, limit, window_us, cost, ret);
}

/* The same, exact over all instances as long as they reach the shared tier; waits for it. */
static inline void cache_rate_exact(struct cache *c, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                                    struct cache_rate *ret)
{
    (c->ops->rate_exact ? c->ops->rate_exact : c->ops->rate)(c, key, limit, window_us, cost, ret);
}

/* fn gets each key or pattern that another instance invalidated ("*" also when that is not known any more), on a thread
 * of the cache's, after it is gone from this one; it must not call the cache. NULL ends it: on return no call is under
 * way. */
static inline void cache_watch(struct cache *c, void (*fn)(void *ctx, struct str pattern), void *ctx)
{
    if (c->ops->watch)
        c->ops->watch(c, fn, ctx);
}

/* A lock for taking turns with other instances, at key of 1..CACHE_KEY_MAX bytes, for ttl_us > 0. It makes nothing
   safe: it is over after its time whatever its holder does, and with the shared tier. Does not wait for another holder.
 */
static inline enum cache_lock cache_lock(struct cache *c, struct str key, int64_t ttl_us,
                                         char ret_holder[CACHE_LOCK_LEN + 1])
{
    return c->ops->lock ? c->ops->lock(c, key, ttl_us, ret_holder) : CACHE_LOCK_NONE;
}

/* Gives back what was CACHE_LOCK_MINE; nothing if it has run out and another has it. */
static inline void cache_unlock(struct cache *c, struct str key, const char holder[CACHE_LOCK_LEN + 1])
{
    if (c->ops->unlock)
        c->ops->unlock(c, key, holder);
}

/* One per tier; returns how many were written. */
static inline unsigned cache_stats(struct cache *c, struct cache_stats *out, unsigned cap)
{
    return c->ops->stats(c, out, cap);
}

#endif
