/* Figures that are read when they are asked for: pools, cache, store. */
#include "main/main.h"

#include <pthread.h>
#include <stdio.h>

#include "app/admin.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"
#include "port/cache.h"
#include "telemetry/metrics.h"

static struct pool_stats of_pool(void *ctx)
{
    struct pool_stats s;
    pool_stats(ctx, &s);
    return s;
}

static int64_t pool_depth(void *ctx)
{
    return (int64_t)of_pool(ctx).depth;
}

static int64_t pool_busy(void *ctx)
{
    return of_pool(ctx).busy;
}

static int64_t pool_done(void *ctx)
{
    return (int64_t)of_pool(ctx).done;
}

static int64_t pool_refused(void *ctx)
{
    return (int64_t)of_pool(ctx).refused;
}

static int64_t pool_run_us(void *ctx)
{
    return (int64_t)of_pool(ctx).run_us_total;
}

void main_pool_gauges(struct metrics *m, struct pool *p)
{
    char labels[64];
    snprintf(labels, sizeof labels, "pool=\"%s\"", of_pool(p).name);
    metric_gauge_fn(m, "payflow_pool_queue_depth", "Jobs that wait for a worker.", labels, pool_depth, p, 1);
    metric_gauge_fn(m, "payflow_pool_busy", "Workers that run a job.", labels, pool_busy, p, 1);
    metric_counter_fn(m, "payflow_pool_jobs_total", "Jobs done.", labels, pool_done, p, 1);
    metric_counter_fn(m, "payflow_pool_refused_total", "Jobs refused because the queue was full.", labels, pool_refused,
                      p, 1);
    metric_counter_fn(m, "payflow_pool_run_seconds_total", "Time spent on jobs.", labels, pool_run_us, p, 1000000);
}

/* All tiers together. */
static struct cache_stats of_cache(void *ctx)
{
    struct cache_stats s[4], all = {0};
    unsigned n = cache_stats(ctx, s, 4);
    for (unsigned i = 0; i < n; i++) {
        all.hits += s[i].hits;
        all.misses = s[i].misses;
        all.entries += s[i].entries;
        all.bytes += s[i].bytes;
        all.evictions += s[i].evictions;
    }
    return all;
}

static int64_t cache_hits(void *ctx)
{
    return (int64_t)of_cache(ctx).hits;
}

static int64_t cache_misses(void *ctx)
{
    return (int64_t)of_cache(ctx).misses;
}

static int64_t cache_entries(void *ctx)
{
    return (int64_t)of_cache(ctx).entries;
}

static int64_t cache_bytes(void *ctx)
{
    return (int64_t)of_cache(ctx).bytes;
}

static int64_t cache_evictions(void *ctx)
{
    return (int64_t)of_cache(ctx).evictions;
}

static int64_t redis_up(void *ctx)
{
    struct cache_stats s[2];
    return cache_stats(ctx, s, 2) == 2 && s[1].up;
}

void main_cache_gauges(struct metrics *m, struct cache *c)
{
    metric_counter_fn(m, "payflow_cache_hits_total", "Cache hits, all tiers.", "", cache_hits, c, 1);
    metric_counter_fn(m, "payflow_cache_misses_total", "Look-ups that no tier could answer.", "", cache_misses, c, 1);
    metric_counter_fn(m, "payflow_cache_evictions_total", "Values dropped for want of room.", "", cache_evictions, c,
                      1);
    metric_gauge_fn(m, "payflow_cache_entries", "Values held.", "", cache_entries, c, 1);
    metric_gauge_fn(m, "payflow_cache_bytes", "Bytes held.", "", cache_bytes, c, 1);
    struct cache_stats s[2];
    if (cache_stats(c, s, 2) == 2)
        metric_gauge_fn(m, "payflow_cache_tier_up", "1: in use; 0: it is gone, and the others carry on.",
                        "tier=\"redis\"", redis_up, c, 1);
}

static struct store_info look(void *ctx)
{
    struct store_info i = {0};
    if (store_info(ctx, &i) != PFE_OK)
        i = (struct store_info){.fatal = true};
    return i;
}

/* On a server it is a round trip, and a vain one takes seconds: one does for all gauges of a scrape. */
static struct store_info of_store(void *ctx)
{
    enum { FRESH_US = 500000 };
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct store_info last;
    static int64_t until;
    if (!store_shared(ctx))
        return look(ctx);
    pthread_mutex_lock(&lock);
    if (clock_mono(clock_system()) >= until) {
        last = look(ctx);
        until = clock_mono(clock_system()) + FRESH_US;
    }
    struct store_info i = last;
    pthread_mutex_unlock(&lock);
    return i;
}

static int64_t store_head(void *ctx)
{
    return of_store(ctx).head_seq;
}

static int64_t store_lag(void *ctx)
{
    struct store_info i = of_store(ctx);
    return i.head_seq - i.projected_seq;
}

static int64_t store_accounts(void *ctx)
{
    return of_store(ctx).accounts;
}

static int64_t store_bytes(void *ctx)
{
    return of_store(ctx).db_bytes;
}

static int64_t store_wal(void *ctx)
{
    return of_store(ctx).wal_bytes;
}

static int64_t store_writable(void *ctx)
{
    return of_store(ctx).writable;
}

void main_store_gauges(struct metrics *m, struct store *s)
{
    metric_gauge_fn(m, "payflow_journal_entries", "The newest entry's number.", "", store_head, s, 1);
    metric_gauge_fn(m, "payflow_journal_lag", "Entries that stored projections do not reflect yet.", "", store_lag, s,
                    1);
    metric_gauge_fn(m, "payflow_accounts", "Accounts, external ones included.", "", store_accounts, s, 1);
    metric_gauge_fn(m, "payflow_store_bytes", "Size of the database file.", "", store_bytes, s, 1);
    metric_gauge_fn(m, "payflow_store_wal_bytes", "Size of the write-ahead log.", "", store_wal, s, 1);
    metric_gauge_fn(m, "payflow_store_writable", "1 if writes are taken.", "", store_writable, s, 1);
}

static struct bus_stats of_bus(void *ctx)
{
    struct bus_stats s = {0};
    bus_stats(ctx, &s);
    return s;
}

static int64_t bus_up(void *ctx)
{
    return of_bus(ctx).up;
}

static int64_t bus_taken(void *ctx)
{
    return (int64_t)of_bus(ctx).taken;
}

static int64_t bus_refused(void *ctx)
{
    return (int64_t)of_bus(ctx).refused;
}

static int64_t bus_done(void *ctx)
{
    return (int64_t)of_bus(ctx).done;
}

static int64_t bus_again(void *ctx)
{
    return (int64_t)of_bus(ctx).again;
}

static int64_t bus_dead(void *ctx)
{
    return (int64_t)of_bus(ctx).dead;
}

static int64_t bus_unsettled(void *ctx)
{
    return (int64_t)of_bus(ctx).unsettled;
}

void main_bus_gauges(struct metrics *m, struct bus *b)
{
    static const char published[] = "Messages handed to the bus, by outcome.";
    static const char delivered[] = "Messages delivered to this process, by what became of them.";
    metric_gauge_fn(m, "payflow_bus_up", "1: the bus is connected.", "", bus_up, b, 1);
    metric_counter_fn(m, "payflow_bus_published_total", published, "outcome=\"taken\"", bus_taken, b, 1);
    metric_counter_fn(m, "payflow_bus_published_total", published, "outcome=\"refused\"", bus_refused, b, 1);
    metric_counter_fn(m, "payflow_bus_delivered_total", delivered, "outcome=\"done\"", bus_done, b, 1);
    metric_counter_fn(m, "payflow_bus_delivered_total", delivered, "outcome=\"again\"", bus_again, b, 1);
    metric_counter_fn(m, "payflow_bus_delivered_total", delivered, "outcome=\"dead\"", bus_dead, b, 1);
    metric_gauge_fn(m, "payflow_bus_unsettled", "Deliveries at work.", "", bus_unsettled, b, 1);
}

static int64_t lines_dropped(void *ctx)
{
    (void)ctx;
    return (int64_t)log_dropped();
}

void main_log_gauges(struct metrics *m)
{
    metric_counter_fn(m, "payflow_log_dropped_total", "Log lines dropped because their reader stalled.", "",
                      lines_dropped, NULL, 1);
}
