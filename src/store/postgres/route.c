#include "store/postgres/route.h"

#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/rand.h"

enum { NEAR_NS = 300000 /* what a commit takes to be replayed near by */ };

static _Thread_local bool stale_allowed;
static _Thread_local int64_t stale_us; /* of this thread's reads, the worst */

static int64_t now_us(void)
{
    return clock_mono(clock_system());
}

int64_t pg_stale(struct store *s, enum store_stale step)
{
    int64_t us = stale_us;
    (void)s;
    if (step == STORE_STALE_LOOK)
        return us;
    stale_allowed = step == STORE_STALE_ALLOW;
    stale_us = 0;
    return us;
}

enum pg_from pg_from_shown(void)
{
    return stale_allowed ? PG_FROM_ANY : PG_FROM_PRIMARY;
}

/* ---- choosing ---- */

static bool primary_gone(struct postgres_store *s)
{
    pthread_mutex_lock(&s->lock);
    bool reachable = s->stats.reachable;
    pthread_mutex_unlock(&s->lock);
    return !reachable || pg_primary_down(s);
}

static struct pg_conn *take_primary(struct postgres_store *s)
{
    atomic_fetch_add(&s->guard->primary_reads, 1);
    return pg_take(s, PG_READ);
}

/* The replica whose turn it is, of those that may have come so far. */
static struct pg_conn *take_replica(struct pg_guard *g, const struct pg_position *p, struct pg_route *ret)
{
    for (unsigned i = 0; i < g->n_replicas; i++) {
        struct balancer_lease lease;
        int64_t now = now_us();
        bool failed = false;
        if (balancer_pick(g->balancer, STR_NONE, NULL, rand_u64(), now, &lease) != BALANCER_PICKED) {
            balancer_release(g->balancer, &lease, BALANCER_IGNORED, now);
            return NULL;
        }
        struct pg_replica *r = lease.data;
        struct breaker_permit permit = {0};
        bool may = atomic_load(&r->up) && atomic_load(&r->timeline) == p->timeline &&
                   now >= atomic_load(&r->rest_until_us) && breaker_try(r->breaker, now, &permit);
        struct pg_conn *c = may ? pg_replica_take(r, p->timeline, &failed) : NULL;
        if (c) {
            ret->permit = permit;
            ret->lease = lease;
            ret->index = p->lsn;
            return c;
        }
        if (failed)
            atomic_fetch_add(&r->failed, 1);
        breaker_done(r->breaker, &permit, failed ? BREAKER_FAILURE : BREAKER_IGNORED, now_us());
        balancer_release(g->balancer, &lease, failed ? BALANCER_FAILURE : BALANCER_IGNORED, now_us());
    }
    return NULL;
}

/* Without the primary: the replica that had replayed most, of those not tried yet. */
static struct pg_conn *take_stale(struct pg_guard *g, struct pg_route *ret)
{
    ret->stale = true;
    while (stale_allowed) {
        unsigned best = PG_REPLICAS_MAX;
        bool failed;
        pthread_mutex_lock(&g->lock);
        for (unsigned i = 0; i < g->n_replicas; i++) {
            const struct pg_replica *r = &g->replicas[i];
            if (ret->tried & 1u << i || !atomic_load(&r->up) || !r->fresh_us)
                continue;
            if (best == PG_REPLICAS_MAX || r->replay > g->replicas[best].replay)
                best = i;
        }
        if (best < PG_REPLICAS_MAX) {
            ret->tried |= 1u << best;
            ret->index = g->replicas[best].replay;
            ret->fresh_us = g->replicas[best].fresh_us;
        }
        pthread_mutex_unlock(&g->lock);
        if (best == PG_REPLICAS_MAX)
            return NULL;
        struct pg_conn *c = pg_replica_take(&g->replicas[best], g->timeline, &failed);
        if (c)
            return c;
        if (failed) /* not tried again before the next good check */
            atomic_store(&g->replicas[best].up, false);
    }
    return NULL;
}

struct pg_conn *pg_route_take(struct postgres_store *s, struct pg_route *ret)
{
    struct pg_guard *g = s->guard;
    *ret = (struct pg_route){.any = g && g->n_replicas && !pg_in_write(s)};
    if (!ret->any)
        return pg_take(s, PG_READ);
    if (!pg_primary_down(s) && g->spare) {
        struct pg_conn *c = take_primary(s);
        if (c || !primary_gone(s))
            return c;
    } else if (!pg_primary_down(s)) {
        atomic_fetch_add(&g->indexes, 1);
        struct pg_position p = pg_read_index(g);
        if (!p.ok && !pg_primary_down(s)) /* that connection may have been lost for a reason of its own */
            p = pg_read_index(g);
        struct pg_conn *c = p.ok ? take_replica(g, &p, ret) : NULL;
        if (!c && p.ok)
            c = take_primary(s);
        if (c || (p.ok && !primary_gone(s)))
            return c;
    }
    return take_stale(g, ret);
}

void pg_route_give(struct pg_q *q)
{
    struct pg_conn *c = q->c;
    struct pg_replica *r = c ? c->replica : NULL;
    if (!r) {
        pg_give(c);
        return;
    }
    if (c->broken)
        atomic_fetch_add(&r->failed, 1);
    breaker_done(r->breaker, &q->route.permit, c->broken ? BREAKER_FAILURE : BREAKER_SUCCESS, now_us());
    balancer_release(r->store->guard->balancer, &q->route.lease, c->broken ? BALANCER_FAILURE : BALANCER_SUCCESS,
                     now_us());
    pg_replica_give(c);
}

/* ---- running ---- */

enum outcome { DONE, BEHIND, LOST };

static void rest(struct pg_replica *r)
{
    int64_t us = atomic_load(&r->rest_us);
    us = us < PG_REST_LEAST_US ? PG_REST_LEAST_US : us * 2 > PG_REST_MOST_US ? PG_REST_MOST_US : us * 2;
    atomic_store(&r->rest_us, us);
    atomic_store(&r->rest_until_us, now_us() + us);
    atomic_fetch_add(&r->behind, 1);
}

static enum outcome on_replica(struct pg_q *q)
{
    struct pg_conn *c = q->c;
    struct pg_replica *r = c->replica;
    struct pg_q replayed;
    pg_q_begin(&replayed, c, "SELECT coalesce((pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::int8, -1)");
    pg_q_send(&replayed);
    pg_q_send(q);
    enum pf_err e = pg_sync(c);
    int64_t at = pg_q_next(&replayed) ? pg_col_i64(&replayed, 0) : -1;
    (void)!pg_q_end(&replayed);
    if (e || q->err)
        return LOST; /* also to a conflict with what is replayed */
    if (at < q->route.index)
        return BEHIND;
    atomic_fetch_add(&r->served, 1);
    if (!q->route.stale) {
        atomic_store(&r->rest_us, 0);
        return DONE;
    }
    int64_t age = now_us() - q->route.fresh_us;
    stale_us = age > stale_us ? age : stale_us;
    atomic_fetch_add(&r->store->guard->stale, 1);
    return DONE;
}

static enum outcome on_primary(struct pg_q *q)
{
    pg_q_send(q);
    if (pg_sync(q->c) != PFE_OK && q->err == PFE_OK)
        q->err = PFE_UNAVAILABLE;
    return q->err && q->c->broken ? LOST : DONE;
}

/* As it was before it was sent. */
static void rewind_q(struct pg_q *q)
{
    PQclear(q->res);
    q->res = NULL;
    q->row = -1;
    q->rows = 0;
    q->err = PFE_OK;
    q->state[0] = 0;
    q->sent = q->done = q->prepares = false;
}

/* A replica that follows closely is there in a moment. */
static bool is_near(struct pg_q *q)
{
    if (q->route.stale || q->route.waited || atomic_load(&q->c->replica->rest_us))
        return false;
    q->route.waited = true;
    nanosleep(&(struct timespec){.tv_nsec = NEAR_NS}, NULL);
    rewind_q(q);
    return true;
}

/* Moves the query, as it is bound, to another connection. */
static void move(struct pg_q *q, struct postgres_store *s, enum outcome why, unsigned try)
{
    struct pg_conn *old = q->c, *c;
    char *scratch = old->scratch;
    size_t cap = old->scratch_cap;
    bool was_replica = old->replica != NULL;
    struct pg_route route = q->route;
    old->scratch = NULL;
    old->scratch_n = old->scratch_cap = 0;
    pg_route_give(q);
    if (!route.any)
        c = pg_take(s, PG_READ);
    else if (route.stale)
        c = take_stale(s->guard, &route);
    else if (was_replica && (why == BEHIND || try > 1))
        c = take_primary(s);
    else
        c = pg_route_take(s, &route);
    if (!c && route.any && !route.stale && primary_gone(s))
        c = take_stale(s->guard, &route);
    rewind_q(q);
    q->c = c;
    q->route = route;
    q->pooled = c != NULL;
    q->err = c ? PFE_OK : PFE_UNAVAILABLE;
    if (!c) {
        free(scratch);
        return;
    }
    free(c->scratch);
    c->scratch = scratch;
    c->scratch_cap = cap;
}

/* After a lost connection: whether to try again, once the wait for that is over. */
static bool again(struct retry_call *call)
{
    struct retry_verdict v = retry_next(call, RETRY_FAILURE, 0, rand_u64(), now_us());
    if (v.wait_us)
        nanosleep(&(struct timespec){v.wait_us / 1000000, v.wait_us % 1000000 * 1000}, NULL);
    return v.again;
}

void pg_route_run(struct pg_q *q)
{
    struct postgres_store *s = q->c->store;
    struct retry_call call;
    retry_begin(&s->reads, &call, true, now_us());
    for (unsigned try = 1; q->c; try++) {
        enum outcome o = q->c->replica ? on_replica(q) : on_primary(q);
        if (o == DONE)
            break;
        if (o == BEHIND && is_near(q))
            continue;
        if (o == LOST && q->route.stale)
            atomic_store(&q->c->replica->up, false);
        if (o == BEHIND) { /* that is no failure: the primary answers */
            rest(q->c->replica);
        } else if (!again(&call)) {
            q->err = q->err ? q->err : PFE_UNAVAILABLE;
            break;
        }
        move(q, s, o, try);
    }
    retry_end(&call);
}
