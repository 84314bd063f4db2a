/*
 * local: the in-process cache tier. Sharded hash tables with CLOCK eviction, bounded in entries and bytes.
 * Each shard keeps its share of the bounds; small caches have fewer shards, down to one.
 *
 * Statistics: hits + misses are all gets, puts + refused_puts all puts (refused: stale token, bad size or time to live,
 * no memory). invalidations counts the live entries that del and del_glob removed. Expired entries are swept by puts
 * and by cache_stats, up to 64 a shard each time: until then they count as entries.
 */
#ifndef CACHE_LOCAL_H
#define CACHE_LOCAL_H

#include "base/clock.h"
#include "port/cache.h"

struct cache_local_options {
    uint64_t max_entries, max_bytes; /* > 0; over all shards */
    uint64_t max_counters;           /* rate windows kept; 0: 65536 */
    const struct clock *clock;       /* borrowed; only the monotonic clock is read */
};

struct cache *cache_local_new(const struct cache_local_options *o); /* NULL: out of memory */

#endif
