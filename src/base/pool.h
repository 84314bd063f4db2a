/*
 * pool: a bounded worker pool. A job is a caller-owned node; the pool links it, runs it once, forgets it.
 * pool_submit never blocks: full means false, and the caller says 503. Thread-safe.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool;

struct pool_job {
    void (*run)(struct pool_job *job); /* may free or reuse the node */
    struct pool_job *next;             /* the pool's */
    int64_t queued_us;                 /* the pool's; monotonic */
};

struct pool_stats {
    const char *name;
    unsigned threads, busy;
    size_t depth, capacity;
    uint64_t done, refused;
    uint64_t wait_us_total, run_us_total;
};

/* name is borrowed (a literal). capacity: jobs that may wait. NULL: no memory or no threads. */
struct pool *pool_new(const char *name, unsigned threads, size_t capacity);
bool pool_submit(struct pool *p, struct pool_job *job);
void pool_stats(struct pool *p, struct pool_stats *ret);
/* Runs what is queued, then joins the threads. NULL is allowed. */
void pool_free(struct pool *p);

#endif
