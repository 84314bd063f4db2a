/*
 * redis: two cache tiers as one cache: a local one in front, Redis behind it, shared by all instances. Values, leases,
 * rate windows, locks and invalidations are Redis's; nothing else of it is used. A Redis that is gone costs speed only.
 *
 * get        the local tier alone: quick. Its token fills the local tier only.
 * fetch      local, then Redis; threads that miss one key at once wait for the first of them, 100 ms at most.
 * put        both tiers. The local copy lives for three seconds at most, whatever its lifetime in Redis.
 * del        Redis first (DEL, PUBLISH), then the local tier.
 * del_many   the same, and comes back once it may be acknowledged, see below.
 * confirm    a PING on the subscription, which any number of callers share: its answer comes behind all that was
 *            published before it. What was heard by then is gone from the local tier.
 * rate       see below.
 * lock       SET NX PX with a random name; unlock is a script that deletes the lock only where that name stands.
 *
 * A filled value is never older than an invalidation:
 *  - A miss in Redis leaves a lease there: the key's place, holding a random name. A put is a script that stores the
 *    value only where that lease still stands. Any del, by whichever instance, removes it; so does an eviction or a
 *    FLUSHALL. What is lost refuses, it never admits. del runs after the commit that it is for, a reader reads the
 *    store after it got the lease: a lease that survived means that no such del came in between.
 *  - A local copy is put with the local tier's own token, taken before Redis was asked. del removes the local copy
 *    after the one in Redis, so what was read from Redis before is refused here; what another instance's del overtook
 *    is dropped when its message comes, and a confirmation waits for that message.
 *  - A del that Redis did not confirm takes the tier out of use in this instance. On its return, as on every
 *    (re)connect, the epoch is deleted: a random name that every value and lease carries, so that all that was there is
 *    void, and the others are told to forget theirs. It begins with the server's run id: a snapshot that came back
 * after a crash, or a replica that was promoted without the last deletions, is void as well.
 *  - An instance that was killed between its commit and its del acknowledged nothing, but leaves no word either. Each
 *    beats once a second; while one that did not say good-bye has been silent for over 3 s, the others delete the epoch
 *    and forget their copies every second, for ten minutes. Who repeats the killed instance's request under its key
 *    elsewhere has the values it touched deleted before the kept answer is given.
 *
 * Nobody is answered from a cache what is older than what any instance had acknowledged to him:
 *  - While all instances speak and listen through one server, PUBLISH precedes the acknowledgement, that precedes the
 *    reader's request, that its PING; so its answer finds the copy gone.
 *  - That they do, they agree on through the store (accord.c). Each says durably, four times a second, which server it
 *    tells and hears through, or that it can do neither, and reads what the others say. It looks into its cache only
 *    while the last round in which all said the same began less than a second ago.
 *  - A change that was told through Redis is acknowledged if our own word for that server was confirmed less than a
 *    second ago: then nobody listens elsewhere and uses its cache. If it could not be told, we say so first, and
 *    acknowledge when everybody has said the same or after 1.2 s, when all agreements from before have run out. From
 * then on nobody is waited for, and nobody uses its cache, until we can be heard again or have been silent for half a
 * minute (STORE_WORD_US). If it cannot even be said, the change is not acknowledged.
 *  - Two rounds of the same word come before a cache is used, for two who say their words at the same moment may not
 * have seen each other's. When it comes into use all that was kept is made void. So there is no staleness to bound as
 * long as clocks run at the same rate to within a fifth and the store keeps what it has committed. Without `say`, no
 * other process has the same store.
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
 * a background thread has found the server well; it tries every 0.1 to 1 s. Threads: two of its own, and one that says
 * the words.
 */
#ifndef CACHE_REDIS_H
#define CACHE_REDIS_H

#include "port/cache.h"
#include "resilience/breaker.h"

enum { CACHE_REDIS_POOL_MAX = 256 };

struct cache_words { /* as struct store_words */
    unsigned apart, speaking;
    bool fresh;
};

struct cache_redis_options {
    const char *host; /* a name, an address, or the absolute path of a Unix socket; all strings are copied */
    int port;
    const char *user, *password; /* "": none */
    int db;
    unsigned pool_size; /* connections for commands, 1..CACHE_REDIS_POOL_MAX; one more listens */
    unsigned min_idle;  /* opened at once; the others when threads wait for one */
    uint8_t secret[32];
    struct cache *local; /* closed with the whole */
    /* The store's store_word_say and store_word_end, on a thread of the cache's; false: not durable, or not known to
       be. NULL, both: no other process uses the same store. */
    bool (*say)(void *ctx, const char *process, const char *word, struct cache_words *ret);
    void (*end)(void *ctx, const char *process);
    void *ctx;
    const struct breaker_config *breaker; /* NULL: cache_redis_breaker(); on_transition is not looked at */
};

/* Its own settings, to change some of. */
struct breaker_config cache_redis_breaker(void);
/* Never waits for Redis: it comes into use once it answers. NULL: out of memory or threads; local stays the caller's.
 */
struct cache *cache_redis_new(const struct cache_redis_options *o);

#endif
