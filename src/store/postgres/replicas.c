#include "store/postgres/replicas.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "store/postgres/route.h"

static int64_t now_us(void)
{
    return clock_mono(clock_system());
}

static unsigned at_most(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* ---- the primary ---- */

static void primary_changed(void *ctx, enum breaker_state from, enum breaker_state to, int64_t at_us)
{
    struct pg_guard *g = ctx;
    (void)from, (void)at_us;
    atomic_store(&g->down, to != BREAKER_CLOSED);
}

bool pg_primary_down(const struct postgres_store *s)
{
    return s->guard && atomic_load(&s->guard->down);
}

void pg_primary_report(struct postgres_store *s, bool ok)
{
    struct breaker_permit p;
    int64_t now = now_us();
    if (!s->guard || !breaker_try(s->guard->breaker, now, &p))
        return;
    breaker_done(s->guard->breaker, &p, ok ? BREAKER_SUCCESS : BREAKER_FAILURE, now);
    if (ok || !pg_primary_down(s))
        return;
    pthread_mutex_lock(&s->lock); /* who waits for a connection need not wait on */
    pthread_cond_broadcast(&s->freed);
    pthread_mutex_unlock(&s->lock);
}

/* false: not to be had, or it is an older history's or another cluster's. */
static bool known_primary(struct pg_guard *g)
{
    struct pg_q q;
    struct pg_conn *c = &g->index;
    c->timeout_ms = at_most(g->store->timeout_ms, PG_GUARD_MS);
    pg_q_begin(&q, c, "SELECT system_identifier FROM pg_control_system()");
    int64_t system = pg_q_next(&q) ? pg_col_i64(&q, 0) : 0;
    if (pg_q_end(&q) != PFE_OK || (g->system && g->system != system))
        return false;
    g->system = system;
    return true;
}

static bool ask_position(struct pg_guard *g, struct pg_position *p)
{
    struct pg_q q;
    pg_q_begin(&q, &g->index,
               "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::int8,"
               " ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int8");
    if (pg_q_next(&q))
        *p = (struct pg_position){.lsn = pg_col_i64(&q, 0), .timeline = pg_col_i64(&q, 1)};
    /* A server of an older timeline was the primary once. */
    if (pg_q_end(&q) != PFE_OK || p->timeline < g->timeline)
        return false;
    g->timeline = p->timeline;
    return true;
}

/* The leader's, outside the lock. */
static struct pg_position ask(struct pg_guard *g)
{
    struct pg_position p = {0};
    atomic_fetch_add(&g->asks, 1);
    bool there =
        (!pg_outlived(&g->index) && pg_alive(&g->index)) || (pg_connect(&g->index, NULL) == PFE_OK && known_primary(g));
    p.ok = there && ask_position(g, &p);
    if (!p.ok)
        pg_disconnect(&g->index);
    return p;
}

struct pg_position pg_read_index(struct pg_guard *g)
{
    pthread_mutex_lock(&g->lock);
    uint64_t mine = g->forming; /* one under way may have been sent before this read came */
    while (g->asked < mine) {
        if (g->asking) {
            pthread_cond_wait(&g->changed, &g->lock);
            continue;
        }
        g->asking = true;
        g->forming++;
        pthread_mutex_unlock(&g->lock);
        struct pg_position p = ask(g);
        pthread_mutex_lock(&g->lock);
        g->last = p;
        g->asked = mine;
        g->asking = false;
        pthread_cond_broadcast(&g->changed);
    }
    struct pg_position p = g->last;
    pthread_mutex_unlock(&g->lock);
    return p;
}

/* With the leader's connection, when no leader has it. */
static void look_for_stall(struct pg_guard *g)
{
    pthread_mutex_lock(&g->lock);
    while (g->asking)
        pthread_cond_wait(&g->changed, &g->lock);
    g->asking = true;
    pthread_mutex_unlock(&g->lock);
    if (pg_outlived(&g->index) || !pg_alive(&g->index) || !pg_stall_look(&g->index))
        pg_disconnect(&g->index);
    pthread_mutex_lock(&g->lock);
    g->asking = false;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

/* ---- replicas ---- */

/* What a server says of itself. */
struct state {
    bool standby;
    int64_t replay, timeline, system;
};

static bool ask_state(struct pg_conn *c, struct state *ret)
{
    struct pg_q q;
    pg_q_begin(&q, c,
               "SELECT pg_is_in_recovery(), coalesce((pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::int8, -1),"
               " greatest((SELECT timeline_id FROM pg_control_checkpoint()),"
               " (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::int8,"
               " (SELECT system_identifier FROM pg_control_system())");
    if (pg_q_next(&q))
        *ret = (struct state){pg_col_bool(&q, 0), pg_col_i64(&q, 1), pg_col_i64(&q, 2), pg_col_i64(&q, 3)};
    return pg_q_end(&q) == PFE_OK;
}

static bool ours(const struct pg_guard *g, const struct state *x)
{
    bool history = x->timeline == g->timeline || (atomic_load(&g->down) && x->timeline > g->timeline);
    return x->standby && x->replay >= 0 && x->system == g->system && history;
}

enum check { CHECK_GOOD, CHECK_SILENT, CHECK_FOREIGN };

static enum check look_at(struct pg_guard *g, struct pg_conn *c, struct state *ret)
{
    return !ask_state(c, ret) ? CHECK_SILENT : ours(g, ret) ? CHECK_GOOD : CHECK_FOREIGN;
}

static enum check connect_replica(struct pg_replica *r, struct pg_conn *c, unsigned ms, struct state *ret)
{
    struct postgres_store *s = r->store;
    c->store = s;
    c->replica = r;
    pg_disconnect(c);
    if (pg_connect_to(c, r->host, r->port, true, at_most(s->connect_ms, ms)) != PFE_OK)
        return CHECK_SILENT;
    c->timeout_ms = at_most(s->timeout_ms / 2, PG_REPLICA_MS);
    enum check found = look_at(s->guard, c, ret);
    c->timeline = found == CHECK_GOOD ? ret->timeline : 0;
    return found;
}

static struct pg_conn *pop(struct pg_replica *r, bool *ret_room)
{
    struct pg_guard *g = r->store->guard;
    pthread_mutex_lock(&g->lock);
    struct pg_conn *c = r->idle;
    if (c) {
        r->idle = c->next;
        r->n_idle--;
    }
    *ret_room = c || r->n_open < r->store->max_open;
    r->n_open += !c && *ret_room;
    pthread_mutex_unlock(&g->lock);
    return c;
}

static void drop(struct pg_replica *r, struct pg_conn *c)
{
    struct pg_guard *g = r->store->guard;
    if (c)
        pg_disconnect(c);
    free(c);
    pthread_mutex_lock(&g->lock);
    r->n_open--;
    pthread_mutex_unlock(&g->lock);
}

struct pg_conn *pg_replica_take(struct pg_replica *r, int64_t timeline, bool *ret_failed)
{
    struct pg_conn *c;
    struct state x;
    bool room;
    *ret_failed = false;
    while ((c = pop(r, &room)) != NULL) {
        bool old = r->store->max_lifetime_us && now_us() - c->born_us > r->store->max_lifetime_us;
        if (!old && c->timeline >= timeline && pg_alive(c))
            return c;
        drop(r, c);
    }
    if (!room)
        return NULL;
    c = calloc(1, sizeof *c);
    if (c && connect_replica(r, c, PG_GUARD_MS, &x) == CHECK_GOOD && c->timeline >= timeline)
        return c;
    *ret_failed = c != NULL;
    drop(r, c);
    return NULL;
}

void pg_replica_give(struct pg_conn *c)
{
    struct pg_replica *r = c->replica;
    struct pg_guard *g = r->store->guard;
    bool keep = c->pg && !c->broken && PQtransactionStatus(c->pg) == PQTRANS_IDLE;
    if (keep) {
        pthread_mutex_lock(&g->lock);
        keep = r->n_idle < r->store->max_idle;
        if (keep) {
            c->next = r->idle;
            r->idle = c;
            r->n_idle++;
        }
        pthread_mutex_unlock(&g->lock);
    }
    if (!keep)
        drop(r, c);
}

/* ---- checks ---- */

/* Since when all that was acknowledged is in there; 0: not known. */
static int64_t fresh_since(const struct pg_guard *g, const struct state *x)
{
    unsigned n = g->n_samples < PG_SAMPLES ? g->n_samples : PG_SAMPLES;
    for (unsigned i = 1; i <= n; i++) {
        unsigned at = (g->n_samples - i) % PG_SAMPLES;
        if (g->samples[at].lsn <= x->replay && g->samples[at].timeline == x->timeline)
            return g->samples[at].at_us;
    }
    return 0;
}

static bool check_replica(struct pg_guard *g, struct pg_replica *r)
{
    struct state x;
    unsigned ms = (unsigned)((g->checks.timeout_us + 999) / 1000);
    bool alive = pg_alive(&r->check);
    r->check.timeout_ms = at_most(g->store->timeout_ms, ms);
    enum check found = alive ? look_at(g, &r->check, &x) : connect_replica(r, &r->check, ms, &x);
    bool ok = found == CHECK_GOOD;
    if (ok) {
        pthread_mutex_lock(&g->lock);
        int64_t fresh = fresh_since(g, &x);
        if (fresh || x.replay < r->replay) /* older than the samples: what was known holds, unless it fell back */
            r->fresh_us = fresh;
        r->replay = x.replay;
        r->timeline = x.timeline;
        pthread_mutex_unlock(&g->lock);
    }
    r->unanswered = found == CHECK_SILENT ? r->unanswered + 1 : 0;
    if (ok || found == CHECK_FOREIGN || r->unanswered >= g->checks.unhealthy_threshold)
        atomic_store(&r->up, ok);
    return ok;
}

static bool check_all(struct pg_guard *g)
{
    struct balancer_check due[PG_REPLICAS_MAX];
    int64_t at = now_us();
    struct pg_position p = pg_read_index(g);
    if (p.ok) {
        unsigned i = g->n_samples++ % PG_SAMPLES;
        g->samples[i].lsn = p.lsn;
        g->samples[i].timeline = p.timeline;
        g->samples[i].at_us = at;
        look_for_stall(g);
    } else if (atomic_load(&g->down)) {
        atomic_store(&g->store->stalled, false); /* the breaker says it all, and the next primary is another */
    }
    size_t n = balancer_checks_due(g->balancer, now_us(), due, PG_REPLICAS_MAX);
    for (size_t i = 0; i < n; i++) {
        bool ok = check_replica(g, due[i].data);
        balancer_checked(g->balancer, &due[i], ok, now_us());
        if (p.ok && !ok) /* it may be the one that a commit waits for, and the next may take as long to fail */
            look_for_stall(g);
    }
    return p.ok || atomic_load(&g->down);
}

static void *watch(void *ctx)
{
    struct pg_guard *g = ctx;
    pthread_mutex_lock(&g->lock);
    while (!g->stop) {
        pthread_mutex_unlock(&g->lock);
        int64_t ms = at_most(g->check_ms, (unsigned)((g->checks.interval_us + 999) / 1000));
        /* is it gone, or was that one connection? are the replicas there again? */
        if ((!check_all(g) || pg_stalled(g->store)) && ms > PG_SOON_MS)
            ms = PG_SOON_MS;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(ms % 1000) * 1000000;
        until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_lock(&g->lock);
        for (int rc = 0; !g->stop && rc == 0;)
            rc = pthread_cond_clockwait(&g->changed, &g->lock, CLOCK_MONOTONIC, &until);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

/* ---- starting and stopping ---- */

struct breaker_config store_postgres_breaker(void)
{
    struct breaker_config c = breaker_defaults();
    c.window_size = 4;
    c.minimum_calls = 2; /* one connection may be lost for a reason of its own */
    c.failure_rate = 50;
    c.wait_open_us = PG_OPEN_MS * 1000;
    c.half_open_calls = 1;
    return c;
}

static struct breaker_config breaker_settings(const struct breaker_config *given)
{
    struct breaker_config c = given ? *given : store_postgres_breaker();
    c.on_transition = NULL;
    return c;
}

static enum pf_err add(struct pg_guard *g, const struct postgres_options *all, const struct postgres_replica *o,
                       char ret_why[PG_WHY])
{
    char name[BALANCER_NAME_MAX];
    struct pg_replica *r = &g->replicas[g->n_replicas++];
    const char *port = o->port && *o->port ? o->port : "5432";
    r->store = g->store;
    r->host = strdup(o->host);
    r->port = strdup(port);
    r->weight = o->weight ? o->weight : 1;
    r->check.store = g->store;
    r->check.replica = r;
    struct breaker_config bc = breaker_settings(all->replica_breaker);
    r->breaker = breaker_new(&bc, now_us());
    if (!r->host || !r->port || !r->breaker)
        return PFE_NOMEM;
    size_t n = strlen(o->host); /* of a long one the end, where names of sockets differ */
    snprintf(name, sizeof name, "%.50s:%.10s", o->host + (n > 50 ? n - 50 : 0), port);
    struct balancer_backend b = {.name = str_c(name), .weight = r->weight, .data = r};
    r->id = balancer_add(g->balancer, &b, now_us());
    if (r->id)
        return PFE_OK;
    snprintf(ret_why, PG_WHY, "replica %.100s is named twice, or its weight is over 1000", name);
    return PFE_WRONG_STATE;
}

static struct balancer_config balancer_settings(const struct pg_guard *g, enum balancer_algorithm algorithm)
{
    struct balancer_config c = balancer_defaults();
    c.algorithm = algorithm;
    c.check_interval_us = g->checks.interval_us / 10 * 9; /* not missed by a hair when the thread comes by */
    c.check_timeout_us = 10000000;                        /* they have deadlines of their own */
    c.healthy_threshold = g->checks.healthy_threshold;
    c.unhealthy_threshold = g->checks.unhealthy_threshold;
    c.eject_after = 1;
    c.eject_us = (int64_t)g->check_ms * 1000;
    c.eject_max_us = 10 * c.eject_us;
    c.max_ejected = 100;
    c.panic = 0; /* the primary is there */
    return c;
}

/* The thread that checks replicas also looks at the primary: it cannot wait longer for one. */
static struct store_checks checks_settings(const struct pg_guard *g, const struct store_checks *given)
{
    struct store_checks c = *given;
    if (c.interval_us <= 0)
        c.interval_us = (int64_t)g->check_ms * 1000;
    if (c.interval_us < PG_CHECK_LEAST_US)
        c.interval_us = PG_CHECK_LEAST_US;
    if (c.timeout_us <= 0 || c.timeout_us > PG_GUARD_MS * 1000)
        c.timeout_us = PG_GUARD_MS * 1000;
    if (c.healthy_threshold == 0)
        c.healthy_threshold = 1;
    if (c.unhealthy_threshold == 0)
        c.unhealthy_threshold = 1;
    return c;
}

enum pf_err pg_guard_start(struct postgres_store *s, const struct postgres_options *o, char ret_why[PG_WHY])
{
    if (s->mode != POSTGRES_SERVE || (!o->guard && o->n_replicas == 0))
        return PFE_OK;
    snprintf(ret_why, PG_WHY, "out of memory");
    struct pg_guard *g = s->guard = calloc(1, sizeof *g);
    if (!g)
        return PFE_NOMEM;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    g->store = g->index.store = s;
    g->index.probe = true;
    g->index.connect_ms = at_most(s->connect_ms, PG_GUARD_MS);
    g->check_ms = o->check_ms ? o->check_ms : PG_CHECK_MS;
    g->checks = checks_settings(g, &o->checks);
    g->forming = 1;
    g->spare = o->spare;
    g->algorithm = o->algorithm;
    struct breaker_config bc = breaker_settings(o->primary_breaker);
    bc.on_transition = primary_changed;
    bc.ctx = g;
    struct balancer_config lc = balancer_settings(g, o->algorithm);
    g->breaker = breaker_new(&bc, now_us());
    g->balancer = balancer_new(&lc, now_us());
    enum pf_err e = g->breaker && g->balancer ? PFE_OK : PFE_NOMEM;
    if (e == PFE_OK && o->n_replicas > PG_REPLICAS_MAX) {
        snprintf(ret_why, PG_WHY, "there are more than %d replicas", PG_REPLICAS_MAX);
        e = PFE_WRONG_STATE;
    }
    for (unsigned i = 0; i < o->n_replicas && e == PFE_OK; i++)
        e = add(g, o, &o->replicas[i], ret_why);
    if (e == PFE_OK && o->metrics)
        pg_guard_gauges(g, o->metrics);
    if (e == PFE_OK) {
        check_all(g); /* so that reads go their ways from the first one on */
        g->running = pthread_create(&g->thread, NULL, watch, g) == 0;
        e = g->running ? PFE_OK : PFE_NOMEM;
    }
    return e;
}

void pg_guard_stop(struct postgres_store *s)
{
    struct pg_guard *g = s->guard;
    if (!g)
        return;
    if (g->running) {
        pthread_mutex_lock(&g->lock);
        g->stop = true;
        pthread_cond_broadcast(&g->changed);
        pthread_mutex_unlock(&g->lock);
        pthread_join(g->thread, NULL);
    }
    for (unsigned i = 0; i < g->n_replicas; i++) {
        struct pg_replica *r = &g->replicas[i];
        while (r->idle) {
            struct pg_conn *c = r->idle;
            r->idle = c->next;
            pg_disconnect(c);
            free(c);
        }
        pg_disconnect(&r->check);
        breaker_free(r->breaker);
        free(r->host);
        free(r->port);
    }
    pg_disconnect(&g->index);
    breaker_free(g->breaker);
    balancer_free(g->balancer);
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
    free(g);
    s->guard = NULL;
}
