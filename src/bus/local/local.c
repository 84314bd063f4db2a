#include "bus/local/local.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "codec/uuid.h"

enum { SUBSCRIPTIONS_MAX = 8, WAIT_US = 5000000 };

struct local;

/* One publish: what its messages have come to. Lives until the last of its deliveries is settled. */
struct round {
    unsigned refs; /* deliveries not settled, and one of publish itself */
    bool again[BUS_BATCH_MAX];
};

struct delivery {
    struct bus_delivery base;
    struct round *round;
    size_t at; /* in the round */
    unsigned subscription;
    struct bus_message m;
    char text[]; /* of its strings */
};

struct tries {
    uint8_t id[16];
    unsigned n;
};

struct local {
    struct bus base;
    int64_t wait_us;
    pthread_mutex_t lock; /* over all below */
    pthread_cond_t settled;
    const struct bus_subscription *subs[SUBSCRIPTIONS_MAX];
    unsigned unsettled[SUBSCRIPTIONS_MAX];
    unsigned n_subs;
    bool quiet;
    struct tries tries[BUS_BATCH_MAX]; /* of what had to come again; the oldest gives way */
    unsigned tries_at, trying;         /* trying: those that have n */
    struct bus_stats stats;
};

static struct local *local_of(struct bus *b)
{
    return (struct local *)b;
}

static bool wants(const struct bus_subscription *s, struct str type)
{
    for (unsigned i = 0; i < s->n_types; i++)
        if (str_is(type, s->types[i]))
            return true;
    return false;
}

/* Caller holds lock, as for all below. */
static struct tries *tries_of(struct local *l, const uint8_t id[16], bool make)
{
    for (unsigned i = 0; l->trying && i < BUS_BATCH_MAX; i++)
        if (l->tries[i].n && memcmp(l->tries[i].id, id, 16) == 0)
            return &l->tries[i];
    if (!make)
        return NULL;
    struct tries *t = &l->tries[l->tries_at++ % BUS_BATCH_MAX];
    l->trying -= t->n > 0;
    t->n = 0;
    memcpy(t->id, id, 16);
    return t;
}

static void round_leave(struct round *r)
{
    if (--r->refs == 0)
        free(r);
}

static void bury(const struct bus_message *m)
{
    char id[UUID_TEXT_LEN + 1];
    struct uuid u;
    memcpy(u.b, m->id, sizeof u.b);
    uuid_format(&u, id);
    log_msg(LOG_ERROR, "a message is dead", LOG_S("id", id), LOG_STR("type", m->type));
}

static void local_settle(struct bus_delivery *base, enum bus_verdict v)
{
    struct delivery *d = (struct delivery *)base;
    struct local *l = local_of(base->bus);
    pthread_mutex_lock(&l->lock);
    struct tries *t = v == BUS_AGAIN ? tries_of(l, d->m.id, true) : NULL;
    if (t && t->n++ == 0)
        l->trying++;
    if (t && t->n >= BUS_TRIES_MAX)
        v = BUS_DEAD;
    if (v == BUS_AGAIN) {
        l->stats.again++;
    } else {
        d->round->again[d->at] = false;
        t = tries_of(l, d->m.id, false);
        if (t) {
            t->n = 0;
            l->trying--;
        }
        if (v == BUS_DONE)
            l->stats.done++;
        else
            l->stats.dead++;
    }
    if (v == BUS_DEAD)
        bury(&d->m);
    l->unsettled[d->subscription]--;
    l->stats.unsettled--;
    round_leave(d->round);
    pthread_cond_broadcast(&l->settled);
    pthread_mutex_unlock(&l->lock);
    free(d);
}

/* false: the deadline is over. */
static bool wait_until(struct local *l, int64_t deadline)
{
    struct timespec t = {.tv_sec = deadline / 1000000, .tv_nsec = deadline % 1000000 * 1000};
    return pthread_cond_clockwait(&l->settled, &l->lock, CLOCK_MONOTONIC, &t) == 0;
}

static struct delivery *delivery_new(struct local *l, unsigned k, const struct bus_message *m, struct round *r,
                                     size_t at)
{
    struct delivery *d = malloc(sizeof *d + m->type.n + m->payload.n);
    if (!d)
        return NULL;
    *d = (struct delivery){.base.bus = &l->base, .round = r, .at = at, .subscription = k, .m = *m};
    memcpy(d->text, m->type.p, m->type.n);
    memcpy(d->text + m->type.n, m->payload.p, m->payload.n);
    d->m.type.p = d->text;
    d->m.payload.p = d->text + m->type.n;
    const struct tries *t = tries_of(l, m->id, false);
    d->m.tries = t ? t->n : 0;
    return d;
}

/* One message to one subscriber; false: not now. */
static bool deliver(struct local *l, unsigned k, const struct bus_message *m, struct round *r, size_t at,
                    int64_t deadline)
{
    const struct bus_subscription *s = l->subs[k];
    while (!l->quiet && l->unsettled[k] >= s->prefetch)
        if (!wait_until(l, deadline))
            return false;
    struct delivery *d = l->quiet ? NULL : delivery_new(l, k, m, r, at);
    if (!d)
        return false;
    r->again[at] = true;
    r->refs++;
    l->unsettled[k]++;
    l->stats.unsettled++;
    l->stats.delivered++;
    pthread_mutex_unlock(&l->lock);
    s->fn(s->ctx, &d->base, &d->m);
    pthread_mutex_lock(&l->lock);
    return true;
}

static enum pf_err local_publish(struct bus *b, const struct bus_message *m, size_t n, bool *ret_taken)
{
    struct local *l = local_of(b);
    struct round *r = calloc(1, sizeof *r);
    if (!r)
        return PFE_NOMEM;
    int64_t deadline = clock_mono(clock_system()) + l->wait_us;
    size_t told = 0;
    r->refs = 1;
    pthread_mutex_lock(&l->lock);
    for (bool ok = true; ok && told < n; told += ok)
        for (unsigned k = 0; ok && k < l->n_subs; k++)
            if (wants(l->subs[k], m[told].type))
                ok = deliver(l, k, &m[told], r, told, deadline);
    while (r->refs > 1 && wait_until(l, deadline))
        ;
    for (size_t i = 0; i < n; i++) {
        ret_taken[i] = i < told && !r->again[i];
        if (ret_taken[i])
            l->stats.taken++;
        else
            l->stats.refused++;
    }
    l->stats.published += n;
    round_leave(r);
    pthread_mutex_unlock(&l->lock);
    return PFE_OK;
}

static enum pf_err local_subscribe(struct bus *b, const struct bus_subscription *s)
{
    struct local *l = local_of(b);
    pthread_mutex_lock(&l->lock);
    bool room = l->n_subs < SUBSCRIPTIONS_MAX;
    if (room)
        l->subs[l->n_subs++] = s;
    pthread_mutex_unlock(&l->lock);
    return room ? PFE_OK : PFE_NOMEM;
}

static void local_quiesce(struct bus *b)
{
    struct local *l = local_of(b);
    pthread_mutex_lock(&l->lock);
    l->quiet = true;
    pthread_cond_broadcast(&l->settled);
    pthread_mutex_unlock(&l->lock);
}

static void local_stats(struct bus *b, struct bus_stats *ret)
{
    struct local *l = local_of(b);
    pthread_mutex_lock(&l->lock);
    *ret = l->stats;
    pthread_mutex_unlock(&l->lock);
}

static void local_close(struct bus *b)
{
    struct local *l = local_of(b);
    pthread_cond_destroy(&l->settled);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static const struct bus_ops ops = {.close = local_close,
                                   .publish = local_publish,
                                   .subscribe = local_subscribe,
                                   .settle = local_settle,
                                   .quiesce = local_quiesce,
                                   .stats = local_stats};

struct bus *bus_local_open(int64_t wait_us)
{
    struct local *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->base.ops = &ops;
    l->wait_us = wait_us ? wait_us : WAIT_US;
    l->stats = (struct bus_stats){.engine = "local", .up = true};
    if (pthread_mutex_init(&l->lock, NULL) != 0) {
        free(l);
        return NULL;
    }
    if (pthread_cond_init(&l->settled, NULL) != 0) {
        pthread_mutex_destroy(&l->lock);
        free(l);
        return NULL;
    }
    return &l->base;
}
