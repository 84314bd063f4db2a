/* What the gateway says of itself: /health and metrics. */
#include <stdio.h>
#include <stdlib.h>

#include "codec/json_out.h"
#include "gateway/internal.h"

enum { SHOWN_MAX = 256 }; /* backends of a group */

static void part(struct jw *w, const char *name, const char *status)
{
    jw_key(w, name);
    jw_obj(w);
    jw_kz(w, "status", status);
}

static void write_backend(struct jw *w, const struct balancer_backend_figures *f, const char *url)
{
    jw_obj(w);
    jw_kz(w, "name", f->name);
    jw_kz(w, "url", url);
    jw_kz(w, "state", balancer_state_name(f->state));
    jw_kuint(w, "weight", f->weight);
    jw_kuint(w, "max_connections", f->max_connections);
    jw_kuint(w, "active", f->active);
    jw_kuint(w, "queued", f->queued);
    jw_kuint(w, "requests", f->picks);
    jw_kuint(w, "successes", f->successes);
    jw_kuint(w, "failures", f->failures);
    jw_kuint(w, "failures_in_a_row", f->failures_in_a_row);
    jw_kuint(w, "ejections", f->ejections);
    jw_end_obj(w);
}

static const char *url_of(struct gateway *g, uint64_t id, enum gateway_group group)
{
    for (const struct backend *b = g->backends; b; b = b->next) {
        if (b->id == id && b->group == group)
            return b->url;
    }
    return "";
}

static const char *group_status(const struct balancer_figures *f)
{
    return f->in == 0 ? "DOWN" : f->in < f->backends ? "DEGRADED" : "UP";
}

/* Returns whether the group can serve. */
static bool write_group(struct jw *w, struct group *group, int64_t now, bool *ret_all)
{
    struct balancer_figures f;
    struct balancer_backend_figures *list = calloc(SHOWN_MAX, sizeof *list);
    balancer_read(group->balancer, now, &f, list, list ? SHOWN_MAX : 0);
    *ret_all = f.in == f.backends && f.in > 0;
    part(w, gateway_group_name(group->id), group_status(&f));
    jw_kuint(w, "in", f.in);
    jw_kbool(w, "panic", f.panic);
    jw_kuint(w, "active", f.active);
    jw_kuint(w, "queued", f.queued);
    jw_kuint(w, "refused", f.full + f.none + f.timed_out);
    if (group->service) {
        jw_kz(w, "service", group->service);
        jw_kuint(w, "generation", group->generation);
    }
    jw_key(w, "backends");
    jw_arr(w);
    for (unsigned i = 0; list && i < f.backends && i < SHOWN_MAX; i++)
        write_backend(w, &list[i], url_of(group->g, list[i].id, group->id));
    jw_end_arr(w);
    jw_end_obj(w);
    free(list);
    return f.in > 0 || f.panic;
}

static unsigned write_groups(struct jw *w, struct gateway *g, int64_t now, bool *ret_all)
{
    unsigned serving = 0;
    *ret_all = true;
    pthread_mutex_lock(&g->lock);
    for (unsigned i = 0; i < GATEWAY_GROUPS; i++) {
        bool all;
        serving += write_group(w, &g->groups[i], now, &all);
        *ret_all &= all;
    }
    pthread_mutex_unlock(&g->lock);
    return serving;
}

static void write_breakers(struct jw *w, struct gateway *g, int64_t now)
{
    part(w, "circuit_breakers", "UP");
    jw_key(w, "breakers");
    jw_obj(w);
    for (unsigned i = 0; i < g->n_guards; i++) {
        struct breaker_figures f;
        breaker_read(g->guards[i].breaker, now, &f);
        jw_key(w, g->guards[i].name);
        jw_obj(w);
        jw_kz(w, "state", breaker_state_name(f.state));
        jw_kuint(w, "calls", f.calls);
        jw_kuint(w, "failures", f.failures);
        jw_kuint(w, "total_requests", f.total_permitted + f.total_rejected);
        jw_kuint(w, "total_successes", f.total_successes);
        jw_kuint(w, "total_failures", f.total_failures);
        jw_kuint(w, "total_rejected", f.total_rejected);
        jw_kint(w, "retry_in_ms", f.retry_in_us / 1000);
        jw_end_obj(w);
    }
    jw_end_obj(w);
    jw_end_obj(w);
}

static void write_rest(struct jw *w, struct gateway *g)
{
    part(w, "fallback_manager", "UP");
    jw_kbool(w, "enabled", g->fallback != NULL);
    if (g->fallback) {
        struct fallback_figures f;
        fallback_read(g->fallback, &f);
        jw_kuint(w, "entries", f.entries);
        jw_kuint(w, "bytes", f.bytes);
        jw_kuint(w, "stale", f.stale);
        jw_kuint(w, "defaults", f.defaults);
    }
    jw_end_obj(w);
    if (g->registry) {
        struct registry_figures f;
        registry_figures(g->registry, &f);
        part(w, "discovery", f.reachable ? "UP" : "DEGRADED");
        jw_kz(w, "engine", f.engine);
        jw_kuint(w, "changes", f.changes);
        jw_kuint(w, "errors", f.errors);
        jw_end_obj(w);
    }
    part(w, "routes", "UP");
    jw_key(w, "routes");
    jw_arr(w);
    for (size_t i = 0; i < gateway_n_rows; i++) {
        jw_obj(w);
        jw_kz(w, "prefix", gateway_rows[i].prefix);
        jw_kz(w, "group", gateway_group_name(gateway_rows[i].group));
        jw_kuint(w, "in_flight", atomic_load(&g->in_flight[i]));
        jw_kuint(w, "most", gateway_rows[i].most);
        jw_end_obj(w);
    }
    jw_end_arr(w);
    jw_end_obj(w);
}

void status_health(struct http_req *r, bool parts)
{
    struct gateway *g = r->ctx;
    struct buf services = {0};
    struct jw s, w;
    int64_t now = gateway_now();
    bool all, draining = g->draining(g->ctx) || atomic_load(&g->closed);
    jw_init(&s, &services);
    jw_obj(&s);
    jw_key(&s, "load_balancer");
    jw_obj(&s);
    jw_kz(&s, "status", "UP");
    unsigned serving = write_groups(&s, g, now, &all);
    jw_end_obj(&s);
    write_breakers(&s, g, now);
    write_rest(&s, g);
    jw_end_obj(&s);
    bool down = draining || serving == 0;
    jw_init(&w, &r->out);
    jw_obj(&w);
    jw_kz(&w, "status", down ? "DOWN" : all ? "UP" : "DEGRADED");
    jw_ktime(&w, "timestamp", clock_wall(clock_system()));
    jw_kz(&w, "version", g->version);
    jw_kz(&w, "role", "gateway");
    if (draining)
        jw_kbool(&w, "draining", true);
    if (parts) {
        jw_key(&w, "services");
        jw_raw(&w, buf_as_str(&services));
    }
    jw_end_obj(&w);
    r->out.failed |= services.failed;
    buf_free(&services);
    if (down)
        http_set_header(r, "Retry-After", STR("1"));
    http_reply_out(r, down ? 503 : 200, http_json);
}

void status_live(struct http_req *r)
{
    struct gateway *g = r->ctx;
    struct jw w;
    jw_init(&w, &r->out);
    jw_obj(&w);
    jw_kz(&w, "status", "UP");
    jw_ktime(&w, "timestamp", clock_wall(clock_system()));
    jw_kz(&w, "version", g->version);
    jw_end_obj(&w);
    http_reply_out(r, 200, http_json);
}

/* ---- metrics */

void status_metrics(struct http_req *r)
{
    struct gateway *g = r->ctx;
    metrics_render(g->metrics, &r->out);
    http_reply_out(r, 200, "text/plain; version=0.0.4");
}

static struct balancer_backend_figures of_backend(const struct backend *b, struct balancer *balancer)
{
    struct balancer_figures all;
    struct balancer_backend_figures *list = calloc(SHOWN_MAX, sizeof *list), one = {0};
    one.state = BALANCER_DOWN;
    if (list) {
        balancer_read(balancer, gateway_now(), &all, list, SHOWN_MAX);
        for (unsigned i = 0; i < all.backends && i < SHOWN_MAX; i++) {
            if (strcmp(list[i].name, b->name) == 0) /* at whatever address it is now */
                one = list[i];
        }
    }
    free(list);
    return one;
}

static int64_t backend_active(void *ctx)
{
    const struct backend *b = ctx;
    return of_backend(b, b->balancer).active;
}

static int64_t backend_ejections(void *ctx)
{
    const struct backend *b = ctx;
    return (int64_t)of_backend(b, b->balancer).ejections;
}

static int64_t backend_in(void *ctx)
{
    const struct backend *b = ctx;
    enum balancer_state s = of_backend(b, b->balancer).state;
    return s == BALANCER_UP || s == BALANCER_SLOW_START;
}

void status_backend_metrics(struct gateway *g, struct backend *b)
{
    static const char *const codes[6] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    struct buf labels = {0};
    b->balancer = g->groups[b->group].balancer;
    buf_printf(&labels, "group=\"%s\",backend=\"", gateway_group_name(b->group));
    metric_label(&labels, str_c(b->name));
    buf_puts(&labels, "\"");
    size_t n = labels.n;
    for (unsigned i = 0; i < 6; i++) {
        labels.n = n;
        buf_printf(&labels, ",code=\"%s\"", codes[i]);
        buf_putc(&labels, '\0');
        b->m.codes[i] =
            metric_counter(g->metrics, "payflow_gateway_requests_total",
                           "Requests sent to a backend, by the class of its answer; none: no answer, or half of one.",
                           labels.failed ? "" : labels.p);
    }
    labels.n = n;
    buf_putc(&labels, '\0');
    const char *l = labels.failed ? "" : labels.p;
    b->m.duration = metric_histogram(g->metrics, "payflow_gateway_request_duration_seconds",
                                     "Time from a request to a backend to the end of its answer.", l, metric_bounds_us,
                                     metric_bounds_us_n, 1000000);
    b->m.retried = metric_counter(g->metrics, "payflow_gateway_retries_total",
                                  "Requests that were tried again after this backend had failed them.", l);
    metric_gauge_fn(g->metrics, "payflow_gateway_backend_in_flight", "Requests that a backend has.", l, backend_active,
                    b, 1);
    metric_gauge_fn(g->metrics, "payflow_gateway_backend_in", "1: takes requests; 0: down, ejected or draining.", l,
                    backend_in, b, 1);
    metric_counter_fn(g->metrics, "payflow_gateway_ejections_total", "How often a backend was ejected.", l,
                      backend_ejections, b, 1);
    buf_free(&labels);
}

static int64_t breaker_state(void *ctx)
{
    struct breaker_figures f;
    breaker_read(ctx, gateway_now(), &f);
    return (int64_t)f.state;
}

static int64_t route_in_flight(void *ctx)
{
    return atomic_load((atomic_uint *)ctx);
}

void status_init(struct gateway *g)
{
    char labels[96];
    for (unsigned i = 0; i < g->n_guards; i++) {
        snprintf(labels, sizeof labels, "breaker=\"%s\"", g->guards[i].name);
        metric_gauge_fn(g->metrics, "payflow_gateway_breaker_state",
                        "0: closed, 1: open, 2: half-open, 3: forced open, 4: disabled.", labels, breaker_state,
                        g->guards[i].breaker, 1);
    }
    for (size_t i = 0; i < gateway_n_rows; i++) {
        snprintf(labels, sizeof labels, "route=\"%s\"", gateway_rows[i].prefix);
        g->refused[i] = metric_counter(g->metrics, "payflow_gateway_route_refused_total",
                                       "Requests refused because a route had all that it may have.", labels);
        metric_gauge_fn(g->metrics, "payflow_gateway_route_in_flight", "Requests under way, by route.", labels,
                        route_in_flight, &g->in_flight[i], 1);
    }
}
