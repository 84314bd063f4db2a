/* What is told of the primary's state and the replicas. */
#include <stdio.h>

#include "base/clock.h"
#include "store/postgres/route.h"

static void view(struct breaker *b, int64_t now, struct port_breaker *ret)
{
    struct breaker_figures f;
    breaker_read(b, now, &f);
    *ret = (struct port_breaker){.state = breaker_state_name(f.state),
                                 .permitted = f.total_permitted,
                                 .rejected = f.total_rejected,
                                 .successes = f.total_successes,
                                 .failures = f.total_failures,
                                 .consecutive_failures = f.consecutive_failures};
}

static const char *const algorithms[] = {[BALANCER_ROUND_ROBIN] = "round_robin",
                                         [BALANCER_LEAST_CONNECTIONS] = "least_connections",
                                         [BALANCER_RANDOM] = "random"};

bool pg_cluster_read(struct store *st, struct store_cluster *ret)
{
    struct pg_guard *g = pg_of(st)->guard;
    struct retry_figures reads, groups;
    struct balancer_figures all;
    struct balancer_backend_figures list[PG_REPLICAS_MAX];
    int64_t now = clock_mono(clock_system());
    *ret = (struct store_cluster){.primary.state = breaker_state_name(BREAKER_CLOSED)};
    pg_pool_read(pg_of(st), &ret->pool);
    retry_read(&pg_of(st)->reads, &reads);
    retry_read(&pg_of(st)->groups, &groups);
    ret->retries = reads.retries;
    ret->group_retries = groups.retries;
    ret->stalled = pg_stalled(pg_of(st));
    if (!g)
        return true;
    view(g->breaker, now, &ret->primary);
    balancer_read(g->balancer, now, &all, list, PG_REPLICAS_MAX);
    ret->algorithm = g->spare ? "spare" : algorithms[g->algorithm];
    ret->indexes = atomic_load(&g->indexes);
    ret->asks = atomic_load(&g->asks);
    ret->primary_reads = atomic_load(&g->primary_reads);
    ret->stale_reads = atomic_load(&g->stale);
    ret->checks = g->checks;
    ret->n = g->n_replicas;
    pthread_mutex_lock(&g->lock);
    for (unsigned i = 0; i < g->n_replicas; i++) {
        struct pg_replica *r = &g->replicas[i];
        struct store_replica *x = &ret->replicas[i];
        str_copy(x->name, sizeof x->name, str_c(list[i].name));
        x->state = balancer_state_name(list[i].state);
        x->weight = r->weight;
        x->active = list[i].active;
        x->open = r->n_open;
        x->lag_us = r->fresh_us ? now - r->fresh_us : -1;
        x->picks = list[i].picks;
        x->served = atomic_load(&r->served);
        x->failed = atomic_load(&r->failed);
        x->behind = atomic_load(&r->behind);
        view(r->breaker, now, &x->breaker);
    }
    pthread_mutex_unlock(&g->lock);
    return true;
}

static int64_t primary_up(void *ctx)
{
    const struct pg_guard *g = ctx;
    return !atomic_load(&g->down);
}

static int64_t stalled(void *ctx)
{
    const struct pg_guard *g = ctx;
    return pg_stalled(g->store);
}

static int64_t primary_reads(void *ctx)
{
    struct pg_guard *g = ctx;
    return (int64_t)atomic_load(&g->primary_reads);
}

static int64_t stale_reads(void *ctx)
{
    struct pg_guard *g = ctx;
    return (int64_t)atomic_load(&g->stale);
}

static int64_t replica_up(void *ctx)
{
    struct pg_replica *r = ctx;
    return atomic_load(&r->up);
}

static int64_t replica_lag(void *ctx)
{
    struct pg_replica *r = ctx;
    int64_t fresh = atomic_load(&r->fresh_us);
    return fresh ? clock_mono(clock_system()) - fresh : -1000000;
}

static int64_t replica_reads(void *ctx)
{
    struct pg_replica *r = ctx;
    return (int64_t)atomic_load(&r->served);
}

static int64_t replica_behind(void *ctx)
{
    struct pg_replica *r = ctx;
    return (int64_t)atomic_load(&r->behind);
}

static int64_t replica_failed(void *ctx)
{
    struct pg_replica *r = ctx;
    return (int64_t)atomic_load(&r->failed);
}

void pg_guard_gauges(struct pg_guard *g, struct metrics *m)
{
    metric_gauge_fn(m, "payflow_db_primary_up", "1 if the primary answers.", "", primary_up, g, 1);
    metric_gauge_fn(m, "payflow_db_commits_stalled",
                    "1 while commits wait for synchronous replicas that do not answer; writes fail at once then.", "",
                    stalled, g, 1);
    metric_counter_fn(m, "payflow_db_primary_reads_total", "Reads that the primary answered for want of a replica.", "",
                      primary_reads, g, 1);
    metric_counter_fn(m, "payflow_db_stale_reads_total", "Reads served without the primary.", "", stale_reads, g, 1);
    for (unsigned i = 0; i < g->n_replicas; i++) {
        struct pg_replica *r = &g->replicas[i];
        char labels[64];
        snprintf(labels, sizeof labels, "replica=\"%u\"", i + 1);
        metric_gauge_fn(m, "payflow_db_replica_up", "1 if it answered the last check.", labels, replica_up, r, 1);
        metric_gauge_fn(m, "payflow_db_replica_lag_seconds",
                        "What was acknowledged that long ago is there for certain; -1: not known.", labels, replica_lag,
                        r, 1000000);
        metric_counter_fn(m, "payflow_db_replica_reads_total", "Reads answered.", labels, replica_reads, r, 1);
        metric_counter_fn(m, "payflow_db_replica_behind_total", "Reads left to the primary because it was behind.",
                          labels, replica_behind, r, 1);
        metric_counter_fn(m, "payflow_db_replica_failures_total", "Reads and connections that failed.", labels,
                          replica_failed, r, 1);
    }
}
