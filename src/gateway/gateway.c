#include "gateway/gateway.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>

#include "gateway/bookings.h"
#include "gateway/headers.h"
#include "gateway/internal.h"

enum own { OWN_HEALTH = 1, OWN_LIVE, OWN_READY, OWN_METRICS };
static const enum own owns[] = {OWN_HEALTH, OWN_LIVE, OWN_READY, OWN_METRICS};

static const struct http_route routes[] = {
    {HTTP_GET, "/health", 0, &owns[0], false},      {HTTP_GET, "/healthz", 0, &owns[0], false},
    {HTTP_GET, "/health/live", 0, &owns[1], false}, {HTTP_GET, "/health/ready", 0, &owns[2], false},
    {HTTP_GET, "/metrics", 0, &owns[3], false},     {HTTP_GET, "/{rest...}", 0, NULL, true},
    {HTTP_POST, "/{rest...}", 0, NULL, true},       {HTTP_PUT, "/{rest...}", 0, NULL, true},
    {HTTP_DELETE, "/{rest...}", 0, NULL, true},     {HTTP_PATCH, "/{rest...}", 0, NULL, true},
};

const struct http_route *gateway_routes(const struct gateway *g, size_t *ret_n)
{
    (void)g;
    *ret_n = sizeof routes / sizeof *routes;
    return routes;
}

/* ---- the handler */

static void refuse(struct http_req *r, enum pf_err e, const char *detail)
{
    struct problem p = {0};
    problem_set(&p, e, "%s", detail);
    http_reply_problem(r, &p);
}

static void on_stream(void *ctx)
{
    gateway_loop_post(ctx, POST_WAKE);
}

static void pass_on(struct gateway *g, struct http_req *r, const struct gateway_row *row, struct str path)
{
    const size_t at = (size_t)(row - gateway_rows);
    struct exchange *x = NULL;
    atomic_fetch_add(&g->live, 1);
    if (atomic_fetch_add(&g->in_flight[at], 1) >= row->most) {
        metric_inc(g->refused[at], 1);
        refuse(r, PFE_BUSY, "As many requests as are allowed are under way on this path; nothing was done.");
    } else if (atomic_load(&g->closed)) {
        refuse(r, PFE_DRAINING, "Nothing was done.");
    } else if (!(x = request_exchange(g, r, row, path))) {
        refuse(r, PFE_NOMEM, "");
    }
    struct problem p = {0};
    if (x && row->grpc && !bookings_take(x, r, path, &p)) {
        http_reply_problem(r, &p);
        atomic_store(&x->holders, 1); /* nobody else has seen it */
        exchange_unref(x);
        return;
    }
    if (!x) {
        atomic_fetch_sub(&g->in_flight[at], 1);
        atomic_fetch_sub(&g->live, 1);
        return;
    }
    r->user = x;
    if (r->up)
        x->up = http_relay_later(r, answer_ready, on_stream, x);
    else
        http_suspend(r, answer_ready);
    exchange_start(x);
}

void gateway_turn(void *ctx, struct http_io *io)
{
    struct gateway *g = ctx;
    gateway_loop_turn(&g->loops[http_io_index(io)], io);
}

void gateway_handle(struct http_req *r)
{
    struct gateway *g = r->ctx;
    struct str path;
    if (r->route->data) {
        switch (*(const enum own *)r->route->data) {
        case OWN_LIVE:
            status_live(r);
            break;
        case OWN_METRICS:
            status_metrics(r);
            break;
        case OWN_HEALTH:
            status_health(r, true);
            break;
        case OWN_READY:
            status_health(r, false);
            break;
        }
        return;
    }
    if (!path_normalise(&r->arena, r->path, &path)) {
        refuse(r, PFE_BAD_REQUEST, "The path leads above the root.");
        return;
    }
    if (!path.p) {
        refuse(r, PFE_NOMEM, "");
        return;
    }
    if (r->head && (r->up || r->body.n > 0)) { /* libcurl would make a PUT of it */
        refuse(r, PFE_BAD_REQUEST, "HEAD takes no body.");
        return;
    }
    const struct gateway_row *row = gateway_row_find(path);
    if (!row) {
        refuse(r, PFE_NOT_FOUND, "No service is behind this path.");
        return;
    }
    if (row->grpc && bookings_are_http(r, path, row))
        row = gateway_row_find(STR("/api"));
    r->pattern = str_c(row->prefix); /* for the log */
    if (row->grpc && !bookings_method_ok(r, path, row))
        refuse(r, PFE_METHOD, "");
    else if (row->grpc && r->up)
        refuse(r, PFE_TOO_LARGE, "A booking takes a body of at most 64 KiB, with a Content-Length.");
    else
        pass_on(g, r, row, path);
}

/* ---- start and end */

/* The route's own, else its group's, else the one for all. */
static const struct breaker_config *config_of(const struct gateway_config *c, const struct gateway_row *row)
{
    const char *const names[] = {row->breaker, gateway_group_name(row->group), "default"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        for (size_t i = 0; i < c->n_breakers; i++)
            if (strcmp(c->breakers[i].name, names[n]) == 0)
                return &c->breakers[i].config;
    return NULL;
}

static struct guard *guard_of(struct gateway *g, const struct gateway_config *c, const struct gateway_row *row,
                              char why[256])
{
    const char *name = row->breaker;
    for (unsigned i = 0; i < g->n_guards; i++) {
        if (strcmp(g->guards[i].name, name) == 0)
            return &g->guards[i];
    }
    const struct breaker_config *given = config_of(c, row);
    struct breaker_config bc = given ? *given : breaker_defaults();
    for (size_t i = 0; i < gateway_n_rows; i++) { /* no call may outlive its permit */
        if (bc.lease_us < 2 * gateway_rows[i].deadline_us)
            bc.lease_us = 2 * gateway_rows[i].deadline_us;
    }
    const char *fault = breaker_fault(&bc);
    struct guard *guard = &g->guards[g->n_guards];
    guard->breaker = fault ? NULL : breaker_new(&bc, gateway_now());
    if (!guard->breaker) {
        snprintf(why, 256, "resilience4j: breaker %s: %s", name, fault ? fault : "out of memory");
        return NULL;
    }
    (void)str_copy(guard->name, sizeof guard->name, str_c(name));
    g->n_guards++;
    return guard;
}

static bool rows_init(struct gateway *g, const struct gateway_config *c, char why[256])
{
    for (size_t i = 0; i < gateway_n_rows; i++) {
        struct retry_config rc = c->retry;
        rc.deadline_us = gateway_rows[i].deadline_us;
        if (!retry_init(&g->retries[i], &rc)) {
            snprintf(why, 256, "retry: %s", retry_fault(&rc));
            return false;
        }
        g->guard_of[i] = guard_of(g, c, &gateway_rows[i], why);
        if (!g->guard_of[i])
            return false;
    }
    return true;
}

static bool start(struct gateway *g, const struct gateway_config *c, char why[256])
{
    if (c->threads < 1 || c->threads > LOOPS_MAX || gateway_n_rows > ROWS_MAX ||
        !str_copy(g->cookie_name, sizeof g->cookie_name, str_c(c->cookie_name)) ||
        !header_name_ok(str_c(g->cookie_name)) ||
        !str_copy(g->health_path, sizeof g->health_path, str_c(c->health_path)) || g->health_path[0] != '/') {
        snprintf(why, 256, "threads, cookie name or health path are out of range");
        return false;
    }
    snprintf(g->via, sizeof g->via, "1.1 %s", c->name);
    (void)str_copy(g->version, sizeof g->version, str_c(c->version));
    if (!rows_init(g, c, why))
        return false;
    const char *fault = c->fallback ? fallback_fault(&c->fallback_config) : NULL;
    g->fallback = c->fallback && !fault ? fallback_new(&c->fallback_config) : NULL;
    if (c->fallback && !g->fallback) {
        snprintf(why, 256, "fallback: %s", fault ? fault : "out of memory");
        return false;
    }
    status_init(g);
    if (!backends_init(g, c, why))
        return false;
    g->loops = calloc(c->threads, sizeof *g->loops);
    if (!g->loops) {
        snprintf(why, 256, "out of memory");
        return false;
    }
    for (g->n_loops = 0; g->n_loops < c->threads;) {
        struct loop *l = &g->loops[g->n_loops++];
        l->epoll = l->wakeup = l->clients = -1;
        if (!gateway_loop_start(l, g, why))
            return false;
    }
    return true;
}

struct gateway *gateway_new(const struct gateway_config *c, char why[256])
{
    struct gateway *g = calloc(1, sizeof *g);
    if (!g || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        snprintf(why, 256, "out of memory");
        free(g);
        return NULL;
    }
    pthread_mutex_init(&g->lock, NULL);
    g->metrics = c->metrics;
    g->registry = c->registry;
    g->draining = c->draining;
    g->ctx = c->ctx;
    if (start(g, c, why))
        return g;
    gateway_free(g);
    return NULL;
}

void gateway_reload(struct gateway *g, const struct gateway_config *c)
{
    backends_apply(g, c);
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void gateway_drain(struct gateway *g, unsigned wait_ms)
{
    int64_t until = gateway_now() + (int64_t)wait_ms * 1000;
    atomic_store(&g->closed, true);
    while (atomic_load(&g->live) > 0 && gateway_now() < until)
        nap();
    for (unsigned i = 0; i < g->n_loops; i++) {
        struct loop *l = &g->loops[i];
        pthread_mutex_lock(&l->lock);
        l->abort = true;
        pthread_mutex_unlock(&l->lock);
        (void)eventfd_write(l->wakeup, 1);
    }
}

void gateway_free(struct gateway *g)
{
    if (!g)
        return;
    for (unsigned i = 0; i < g->n_loops; i++)
        gateway_loop_stop(&g->loops[i]);
    free(g->loops);
    backends_free(g);
    for (unsigned i = 0; i < g->n_guards; i++)
        breaker_free(g->guards[i].breaker);
    fallback_free(g->fallback);
    pthread_mutex_destroy(&g->lock);
    free(g);
    curl_global_cleanup();
}
