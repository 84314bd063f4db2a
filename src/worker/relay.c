#include "worker/relay.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "app/bookings.h"
#include "app/lease.h"
#include "app/messages.h"
#include "base/log.h"

enum {
    ALONE_US = 1000000,  /* look by itself: in a store of its own, */
    SHARED_US = 100000,  /* and in one that other processes write to */
    BACKOFF_US = 100000, /* after a refusal, and twice as long after each further one, */
    BACKOFF_MAX_US = 5000000,
    COUNT_MAX = 10000, /* messages that are counted when they do not go away */
    WHOLE_US = 1000000 /* between looks from the very first number on */
};
static const int64_t purge_us = 3600 * INT64_C(1000000), day_us = 86400 * INT64_C(1000000);

struct relay {
    struct app *a;
    struct bus *b;
    pthread_t thread;
    _Atomic bool stop;

    /* the thread's own */
    char text[BUS_BATCH_MAX * 512]; /* what most batches need */
    struct store_message m[BUS_BATCH_MAX];
    struct bus_message out[BUS_BATCH_MAX];
    struct store_outbox_ref gone[BUS_BATCH_MAX];
    bool taken[BUS_BATCH_MAX];
    /* Up to here all are gone: a shared store takes long to step over the rows that are deleted but not yet swept. From
       the first on all the same now and then, for a replica that takes over may give numbers out again. */
    int64_t gone_to, whole_at_us;
    int64_t backoff_us;               /* 0: nothing was refused */
    int64_t purge_at_us;              /* monotonic */
    _Atomic int64_t depth, oldest_us; /* as it was left; 0: it is empty */
    struct metric_counter *delivered;
};

/* One batch behind after_id: *ret_last is the last one's id, *ret_n how many there were, *ret_taken how many are gone.
 */
static enum pf_err relay_batch(struct relay *r, bool first, int64_t after_id, int64_t *ret_last, unsigned *ret_n,
                               size_t *ret_taken)
{
    struct arena arena;
    unsigned n = 0;
    size_t gone = 0;
    arena_init(&arena, r->text, sizeof r->text, (size_t)BUS_BATCH_MAX * (STORE_MESSAGE_MAX + 256));
    enum pf_err e = app_outbox_next(r->a, &arena, after_id, BUS_BATCH_MAX, r->m, &n);
    for (unsigned i = 0; e == PFE_OK && i < n; i++) {
        r->out[i] =
            (struct bus_message){.type = r->m[i].type, .payload = r->m[i].payload, .created_us = r->m[i].created_us};
        memcpy(r->out[i].id, r->m[i].uuid, sizeof r->out[i].id);
        memcpy(r->out[i].key, r->m[i].key, sizeof r->out[i].key);
        r->taken[i] = false;
    }
    if (e == PFE_OK && n && first)
        r->oldest_us = r->m[0].created_us;
    if (e == PFE_OK && n)
        e = bus_publish(r->b, r->out, n, r->taken);
    for (unsigned i = 0; e == PFE_OK && i < n; i++)
        if (r->taken[i]) {
            r->gone[gone].id = r->m[i].id;
            memcpy(r->gone[gone++].uuid, r->m[i].uuid, sizeof r->m[i].uuid);
        }
    if (e == PFE_OK)
        e = app_outbox_delivered(r->a, r->gone, gone);
    if (e == PFE_OK) {
        *ret_last = n ? r->m[n - 1].id : after_id;
        *ret_n = n;
        *ret_taken = gone;
        metric_inc(r->delivered, gone);
    }
    arena_reset(&arena);
    return e;
}

/* What stays behind, for whoever watches. */
static void count_left(struct relay *r)
{
    struct arena arena;
    int64_t depth = 0, last = 0;
    unsigned n = BUS_BATCH_MAX;
    arena_init(&arena, r->text, sizeof r->text, (size_t)BUS_BATCH_MAX * (STORE_MESSAGE_MAX + 256));
    while (n == BUS_BATCH_MAX && depth < COUNT_MAX) {
        n = 0;
        if (app_outbox_next(r->a, &arena, last, BUS_BATCH_MAX, r->m, &n) != PFE_OK)
            break;
        if (n && !depth)
            r->oldest_us = r->m[0].created_us;
        if (n)
            last = r->m[n - 1].id;
        depth += n;
        arena_reset(&arena);
    }
    arena_reset(&arena);
    r->depth = depth;
    if (!depth)
        r->oldest_us = 0;
}

/* From the oldest to the newest. Ends early where nothing of a batch is taken. true: nothing is left. */
static bool relay_all(struct relay *r)
{
    int64_t now = clock_mono(clock_system()), last = r->gone_to;
    unsigned n = BUS_BATCH_MAX;
    bool all = true;
    if (now >= r->whole_at_us) {
        r->whole_at_us = now + WHOLE_US;
        last = 0;
    }
    for (bool first = true; n == BUS_BATCH_MAX && !r->stop; first = false) {
        size_t taken = 0;
        n = 0;
        enum pf_err e = relay_batch(r, first, last, &last, &n, &taken);
        all &= e == PFE_OK && taken == n;
        if (e != PFE_OK || (n && !taken))
            break;
    }
    r->gone_to = all ? last : 0;
    return all;
}

static void purge(struct relay *r)
{
    int64_t now = clock_mono(app_clock(r->a)), n = 0;
    if (now < r->purge_at_us)
        return;
    r->purge_at_us = now + purge_us;
    if (app_inbox_purge(r->a, clock_wall(app_clock(r->a)) - RELAY_INBOX_DAYS * day_us, &n) == PFE_OK && n)
        log_msg(LOG_INFO, "old messages forgotten", LOG_I("messages", n));
}

static void look(struct relay *r)
{
    struct store_fence f;
    if (!app_lease_fence(r->a, APP_LEASE_RELAY, &f)) {
        r->depth = r->oldest_us = r->gone_to = 0; /* the one that has the lease says */
        r->backoff_us = 0;
        return;
    }
    if (relay_all(r)) {
        if (r->backoff_us)
            log_msg(LOG_INFO, "messages are taken again");
        r->depth = r->oldest_us = 0;
        r->backoff_us = 0;
    } else if (!r->stop) {
        if (!r->backoff_us)
            log_msg(LOG_WARN, "messages are not taken; they stay in the outbox");
        r->backoff_us = !r->backoff_us                       ? BACKOFF_US
                        : r->backoff_us * 2 < BACKOFF_MAX_US ? r->backoff_us * 2
                                                             : BACKOFF_MAX_US;
        count_left(r);
    }
    purge(r);
}

static void *run(void *arg)
{
    struct relay *r = arg;
    pthread_setname_np(pthread_self(), "relay");
    while (!r->stop) {
        look(r);
        int64_t until = clock_mono(clock_system()) + r->backoff_us;
        for (int64_t left = r->backoff_us; left > 0 && !r->stop; left = until - clock_mono(clock_system()))
            app_messages_wait(r->a, left); /* new messages do not make a refused one any better */
        if (!r->backoff_us && !r->stop)
            app_messages_wait(r->a, app_shared(r->a) ? SHARED_US : ALONE_US);
    }
    return NULL;
}

static int64_t gauge_depth(void *ctx)
{
    return ((struct relay *)ctx)->depth;
}

static int64_t gauge_lag(void *ctx)
{
    struct relay *r = ctx;
    int64_t oldest = r->oldest_us, now = clock_wall(app_clock(r->a));
    return oldest && now > oldest ? now - oldest : 0;
}

struct relay *relay_start(struct app *a, struct bus *b)
{
    struct relay *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    struct metrics *m = app_metrics(a);
    r->a = a;
    r->b = b;
    r->delivered = metric_counter(m, "payflow_outbox_delivered_total", "Messages taken by the bus.", "");
    metric_gauge_fn(m, "payflow_outbox_depth", "Messages that the bus has not taken at the last try, 10,000 at most.",
                    "", gauge_depth, r, 1);
    metric_gauge_fn(m, "payflow_outbox_lag_seconds", "Age of the oldest message in the outbox; 0: it is empty.", "",
                    gauge_lag, r, 1000000);
    if (pthread_create(&r->thread, NULL, run, r) != 0) {
        free(r);
        return NULL;
    }
    return r;
}

void relay_stop(struct relay *r)
{
    if (!r || atomic_exchange(&r->stop, true))
        return;
    app_messages_wake(r->a);
    pthread_join(r->thread, NULL);
}

void relay_free(struct relay *r)
{
    relay_stop(r);
    free(r);
}
