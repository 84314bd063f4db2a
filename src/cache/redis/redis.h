/*
 * redis: two cache tiers as one cache: a local one in front, Redis behind it, shared by all instances. Values, leases,
 * rate windows and invalidations are Redis's; nothing else of it is used. A Redis that is gone costs speed only.
 *
 * get        the local tier alone: quick. Its token fills the local tier only.
 * fetch      local, then Redis; threads that miss one key at once wait for the first of them, 100 ms at most.
 * put        both tiers. The local copy lives for a second at most, whatever its lifetime in Redis.
 * del        Redis first (DEL, PUBLISH), then the local tier; on return no other instance can read the old value from
 *            Redis, and those that hold a copy have been sent the word to drop it.
 * rate       see below.
 *
 * A filled value is never older than an invalidation:
 *  - A miss in Redis leaves a lease there: the key's place, holding a random name. A put is a script that stores the
 *    value only where that lease still stands. Any del, by whichever instance, removes it; so does an eviction or a
 *    FLUSHALL. What is lost refuses, it never admits. del runs after the commit that it is for, a reader reads the
 *    store after it got the lease: a lease that survived means that no such del came in between.
 *  - A local copy is put with the local tier's own token, taken before Redis was asked. del removes the local copy
 * after the one in Redis, so what was read from Redis before is refused here; what another instance's del overtook is
 *    dropped when its message comes.
 *  - A del that Redis did not confirm takes the tier out of use in this instance. On its return, as on every
 * (re)connect, the epoch is deleted: a random name that every value and lease carries, so that all that was there is
 * void. It begins with the server's run id: a snapshot that came back after a crash, or a replica that was promoted
 *    without the last deletions, is void as well.
 *  - An instance that is cut off from Redis, or was killed between its commit and its del, leaves no word. Each beats
 *    once a second; while one that did not say good-bye has been silent for over 3 s, the others delete the epoch every
 *    second, for ten minutes.
 * So on the instance that wrote, a cached answer is never older than the acknowledged write. On the others it may be
 * for as long as a message travels, at worst (Redis or the link to it broken) for the second that a local copy lives;
 * if the writing instance alone lost Redis, for 5 s at most.
 *
 * Values carry a MAC over key, epoch and bytes, keyed with `secret`: who can write to Redis can make the cache forget,
 * or give back an earlier value of the same key and epoch, but cannot make one up. `secret` must differ between builds
 * whose values differ in layout.
 *
 * Rates: each instance counts in its local tier, and refuses there without asking anybody. What it admits goes to Redis
 * within 10 ms, in one batch, which brings back what the others admitted: so all instances together exceed a limit by
 * no more than what arrives during those 10 ms and a round trip, and never admit more than limit times instances.
 * rate_exact asks Redis before it answers: windows counted that way alone are exact. Without Redis, each instance
 * limits for itself.
 *
 * Deadlines: 200 ms to connect (and on the cache's own threads only), 100 ms for a command, all replies of a pipeline
 * together. A breaker stands before them: half of at least 5 calls failed, or slower than 50 ms, and nobody asks until
 * a background thread has found the server well; it tries every 0.1 to 1 s. Threads: two of its own.
 */
#ifndef CACHE_REDIS_H
#define CACHE_REDIS_H

#include "port/cache.h"

enum { CACHE_REDIS_POOL_MAX = 256 };

struct cache_redis_options {
    const char *host; /* a name, an address, or the absolute path of a Unix socket; all strings are copied */
    int port;
    const char *user, *password; /* "": none */
    int db;
    unsigned pool_size; /* connections for commands, 1..CACHE_REDIS_POOL_MAX; one more listens */
    unsigned min_idle;  /* opened at once; the others when threads wait for one */
    uint8_t secret[32];
    struct cache *local; /* closed with the whole */
};

/* Never waits for Redis: it comes into use once it answers. NULL: out of memory or threads; local stays the caller's.
 */
struct cache *cache_redis_new(const struct cache_redis_options *o);

#endif
