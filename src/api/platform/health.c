/* Health, liveness, readiness, metrics. */
#include "api/platform/platform.h"

#include <string.h>

#include "app/lastgood.h"
#include "app/lease.h"

static void part(struct jw *w, const char *name, const char *status)
{
    jw_key(w, name);
    jw_obj(w);
    jw_kz(w, "status", status);
}

/* One that a check stands behind. */
static void checked(struct jw *w, const char *name, const struct app_part *p)
{
    part(w, name, app_health_name(p->state));
    jw_ktime(w, "timestamp", p->at_us);
    jw_key(w, "details");
    jw_raw(w, str_c(p->details));
}

static void write_connections(struct jw *w, const struct store_pool *p)
{
    jw_kbool(w, "reachable", p->reachable);
    jw_kuint(w, "max_open", p->max_open);
    jw_kuint(w, "open", p->open);
    jw_kuint(w, "in_use", p->in_use);
    jw_kuint(w, "idle", p->idle);
    jw_kint(w, "waits", p->waits);
    jw_kint(w, "timeouts", p->timeouts);
    jw_kint(w, "connects", p->connects);
    jw_kint(w, "failures", p->failures);
}

/* What answers in the place of the store: replicas without their primary, then the last good answers. */
static void write_fallback(struct api_call *c, struct jw *w, const struct store_cluster *cluster)
{
    struct fallback_figures f;
    bool keeps = app_lastgood_read(c->app, &f);
    part(w, "fallback_manager", "UP");
    jw_kbool(w, "enabled", keeps);
    if (cluster)
        jw_kuint(w, "stale_reads", cluster->stale_reads);
    if (keeps) {
        jw_kuint(w, "entries", f.entries);
        jw_kuint(w, "bytes", f.bytes);
        jw_kuint(w, "last_good_answers", f.stale);
        jw_kuint(w, "default_answers", f.defaults);
        jw_kuint(w, "without_answer", f.none);
    }
    jw_end_obj(w);
}

/* Reads over the replicas; c NULL: one process, one store, nothing to balance. */
static void write_balancer(struct jw *w, const struct store_cluster *c)
{
    unsigned up = 0;
    for (unsigned i = 0; c && i < c->n; i++)
        up += strcmp(c->replicas[i].state, "up") == 0;
    part(w, "load_balancer", !c || up == c->n ? "UP" : up ? "DEGRADED" : "DOWN");
    jw_kbool(w, "enabled", c && c->n > 0);
    if (c && c->n > 0) {
        jw_kz(w, "algorithm", c->algorithm);
        jw_kuint(w, "primary_reads", c->primary_reads);
        jw_key(w, "health_check");
        jw_obj(w);
        jw_kint(w, "interval_ms", c->checks.interval_us / 1000);
        jw_kint(w, "timeout_ms", c->checks.timeout_us / 1000);
        jw_kuint(w, "healthy_threshold", c->checks.healthy_threshold);
        jw_kuint(w, "unhealthy_threshold", c->checks.unhealthy_threshold);
        jw_end_obj(w);
        jw_key(w, "backends");
        jw_arr(w);
        for (unsigned i = 0; i < c->n; i++) {
            const struct store_replica *r = &c->replicas[i];
            jw_obj(w);
            jw_kz(w, "name", r->name);
            jw_kz(w, "state", r->state);
            jw_kuint(w, "weight", r->weight);
            jw_kuint(w, "active", r->active);
            jw_kuint(w, "connections", r->open);
            jw_kint(w, "lag_us", r->lag_us);
            jw_kuint(w, "reads", r->served);
            jw_kuint(w, "behind", r->behind);
            jw_kuint(w, "failures", r->failed);
            jw_end_obj(w);
        }
        jw_end_arr(w);
    }
    jw_end_obj(w);
}

/* What the ticketing surface needs besides the database. */
static void write_tickets(struct jw *w, const struct app_health *h)
{
    const struct bus_stats *b = &h->messages;
    if (h->documents_engine[0]) { /* not every role has them */
        checked(w, "documents", &h->parts[APP_CHECK_DOCUMENTS]);
        jw_kz(w, "engine", h->documents_engine);
        jw_end_obj(w);
    }
    if (!b->engine)
        return;
    checked(w, "bus", &h->parts[APP_CHECK_BUS]);
    jw_kz(w, "engine", b->engine);
    jw_kuint(w, "published", b->published);
    jw_kuint(w, "taken", b->taken);
    jw_kuint(w, "refused", b->refused);
    jw_kuint(w, "delivered", b->delivered);
    jw_kuint(w, "done", b->done);
    jw_kuint(w, "again", b->again);
    jw_kuint(w, "dead", b->dead);
    jw_kuint(w, "unsettled", b->unsettled);
    jw_kuint(w, "connects", b->connects);
    jw_end_obj(w);
}

/* Which instance does each background job. */
static void write_jobs(struct api_call *c, struct jw *w)
{
    part(w, "jobs", "UP");
    for (unsigned i = 0; i < APP_LEASES; i++) {
        struct app_lease_state l;
        app_lease_state(c->app, (enum app_lease)i, &l);
        jw_key(w, l.job);
        jw_obj(w);
        jw_kbool(w, "held", l.held);
        jw_kz(w, "holder", l.holder);
        jw_kint(w, "token", l.token);
        jw_end_obj(w);
    }
    jw_end_obj(w);
}

static void write_services(struct api_call *c, struct jw *w, const struct app_health *h)
{
    struct app_writer_stats ws;
    struct pool_stats ps[2];
    struct store_cluster cluster;
    app_writer_stats(c->app, &ws);
    pool_stats(c->api->cfg.workers, &ps[0]);
    pool_stats(c->api->cfg.hashers, &ps[1]);
    jw_key(w, "services");
    jw_obj(w);
    checked(w, "database", &h->parts[APP_CHECK_DATABASE]);
    jw_kz(w, "engine", h->store.engine);
    jw_kint(w, "schema", h->store.schema);
    jw_kbool(w, "writable", h->store.writable);
    jw_kint(w, "journal_entries", h->store.head_seq);
    jw_kint(w, "journal_lag", h->journal_lag);
    jw_kint(w, "database_bytes", h->store.db_bytes);
    jw_kint(w, "wal_bytes", h->store.wal_bytes);
    jw_end_obj(w);
    checked(w, "ledger_writer", &h->parts[APP_CHECK_WRITER]);
    jw_kuint(w, "queued", ws.queued);
    jw_kuint(w, "capacity", ws.capacity);
    jw_kuint(w, "groups", ws.groups);
    jw_kuint(w, "entries", ws.entries);
    jw_kint(w, "last_commit_us", ws.last_commit_us);
    jw_end_obj(w);
    checked(w, "cache", &h->parts[APP_CHECK_CACHE]);
    api_cache_stats_write(c, w);
    jw_end_obj(w);
    const bool shared = app_cluster(c->app, &cluster);
    part(w, "connection_manager", shared && !cluster.pool.reachable ? "DOWN" : "UP");
    jw_kz(w, "mode", shared ? "pooled" : "embedded");
    if (shared) {
        write_connections(w, &cluster.pool);
        jw_kuint(w, "read_retries", cluster.retries);
        jw_kuint(w, "group_retries", cluster.group_retries);
        jw_kbool(w, "commits_stalled", cluster.stalled);
    }
    for (unsigned i = 0; i < 2; i++) {
        jw_key(w, ps[i].name);
        jw_obj(w);
        jw_kuint(w, "threads", ps[i].threads);
        jw_kuint(w, "busy", ps[i].busy);
        jw_kuint(w, "queued", ps[i].depth);
        jw_kuint(w, "capacity", ps[i].capacity);
        jw_kuint(w, "done", ps[i].done);
        jw_kuint(w, "refused", ps[i].refused);
        jw_end_obj(w);
    }
    jw_end_obj(w);
    write_tickets(w, h);
    write_jobs(c, w);
    write_balancer(w, shared ? &cluster : NULL);
    write_fallback(c, w, shared ? &cluster : NULL);
    part(w, "circuit_breakers", "UP");
    api_breakers_write(c, w);
    jw_end_obj(w);
    jw_end_obj(w);
}

static enum api_step answer(struct api_call *c, bool draining, bool services)
{
    struct app_health h;
    if (app_health_blocks(c->app) && !c->may_block)
        return API_BLOCK;
    app_health(c->app, &h);
    bool down = h.state == APP_DOWN || draining;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kz(&w, "status", down ? "DOWN" : app_health_name(h.state));
    jw_ktime(&w, "timestamp", clock_wall(app_clock(c->app)));
    jw_kz(&w, "version", c->api->cfg.version);
    if (draining)
        jw_kbool(&w, "draining", true);
    if (services)
        write_services(c, &w, &h);
    jw_end_obj(&w);
    if (down)
        http_set_header(c->r, "Retry-After", STR("1"));
    return api_ok(c, down ? 503 : 200);
}

enum api_step platform_health(struct api_call *c)
{
    return answer(c, false, true);
}

enum api_step platform_live(struct api_call *c)
{
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kz(&w, "status", "UP");
    jw_ktime(&w, "timestamp", clock_wall(app_clock(c->app)));
    jw_kz(&w, "version", c->api->cfg.version);
    jw_end_obj(&w);
    return api_ok(c, 200);
}

enum api_step platform_ready(struct api_call *c)
{
    return answer(c, c->api->cfg.draining(c->api->cfg.ctx), false);
}

enum api_step platform_metrics(struct api_call *c)
{
    if (app_shared(c->app) && !c->may_block) /* some gauges look into the store */
        return API_BLOCK;
    metrics_render(c->api->cfg.metrics, &c->r->out);
    c->content_type = "text/plain; version=0.0.4; charset=utf-8";
    return api_ok(c, 200);
}

static void write_pool(struct jw *w, struct pool *p)
{
    struct pool_stats s;
    pool_stats(p, &s);
    jw_key(w, s.name);
    jw_obj(w);
    jw_kuint(w, "threads", s.threads);
    jw_kuint(w, "busy", s.busy);
    jw_kuint(w, "queue_depth", s.depth);
    jw_kuint(w, "done", s.done);
    jw_kuint(w, "refused", s.refused);
    jw_end_obj(w);
}

enum api_step platform_metrics_basic(struct api_call *c)
{
    struct app_writer_stats ws;
    struct http_totals t;
    app_writer_stats(c->app, &ws);
    http_totals(c->r, &t);
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_key(&w, "requests");
    jw_obj(&w);
    jw_kuint(&w, "total", t.requests);
    jw_kuint(&w, "client_errors", t.client_errors);
    jw_kuint(&w, "server_errors", t.server_errors);
    jw_kint(&w, "in_flight", t.in_flight);
    jw_kint(&w, "connections", t.connections);
    jw_end_obj(&w);
    jw_key(&w, "latency_us");
    jw_obj(&w);
    jw_kint(&w, "p50", t.p50_us);
    jw_kint(&w, "p95", t.p95_us);
    jw_kint(&w, "p99", t.p99_us);
    jw_end_obj(&w);
    jw_key(&w, "cache");
    jw_obj(&w);
    api_cache_stats_write(c, &w);
    jw_end_obj(&w);
    struct cache_stats tiers[2];
    const bool redis = cache_stats(app_cache(c->app), tiers, 2) == 2;
    jw_key(&w, "redis");
    jw_obj(&w);
    jw_kbool(&w, "configured", redis);
    jw_kbool(&w, "connected", redis && tiers[1].up);
    jw_end_obj(&w);
    jw_key(&w, "rate_limit");
    jw_obj(&w);
    jw_kuint(&w, "refused", metric_counter_value(c->api->rate_limited));
    jw_kuint(&w, "logins_refused", app_logins_limited(c->app));
    jw_end_obj(&w);
    jw_key(&w, "ledger");
    jw_obj(&w);
    jw_kuint(&w, "queue_depth", ws.queued);
    jw_kuint(&w, "queue_capacity", ws.capacity);
    jw_kuint(&w, "groups", ws.groups);
    jw_kuint(&w, "entries", ws.entries);
    jw_kuint(&w, "refused", ws.refused);
    jw_kint(&w, "last_commit_us", ws.last_commit_us);
    jw_end_obj(&w);
    jw_key(&w, "pools");
    jw_obj(&w);
    write_pool(&w, c->api->cfg.workers);
    write_pool(&w, c->api->cfg.hashers);
    jw_end_obj(&w);
    jw_end_obj(&w);
    return api_ok(c, 200);
}
