/*
 * rate: the counters behind cache_rate: fixed windows in a bounded, sharded table. Private to cache/local.
 *
 * A window starts with its key's first counted request; looking (cost 0) starts none, and finds reset_us 0 when none
 * runs. When a shard is full, its window that started first gives way. The table's address space is reserved at once,
 * its memory becomes resident only as counters are used. Thread-safe.
 */
#ifndef CACHE_LOCAL_RATE_H
#define CACHE_LOCAL_RATE_H

#include "port/cache.h"

struct rate_table;

struct rate_table *rate_table_new(uint64_t max_counters); /* max_counters > 0; NULL: out of memory */
void rate_table_free(struct rate_table *t);               /* NULL is allowed */

/* hash: str_hash of the key, and all that is kept of it: 64 keyed bits do not collide by chance or by design.
 * cost >= 0. */
void rate_table_count(struct rate_table *t, uint64_t hash, int64_t limit, int64_t window_us, int64_t cost,
                      int64_t now_us, struct cache_rate *ret);

#endif
