/* What is recorded of an answer: one line in the access log, one observation in the route's histogram. */
#include "base/log.h"
#include "http/internal.h"

static struct metric_histogram *duration_of(struct request *r, int status)
{
    struct http_server *s = r->server;
    size_t row = r->pub.route                                       ? (size_t)(r->pub.route - s->routes)
                 : r->verb == VERB_OTHER || r->verb == VERB_OPTIONS ? s->n_routes + HTTP_METHODS
                                                                    : s->n_routes + r->pub.method;
    if (status < 100 || status > 599)
        status = 500;
    _Atomic(struct metric_histogram *) *cell = &s->durations[row * 500 + (size_t)(status - 100)];
    struct metric_histogram *h = atomic_load_explicit(cell, memory_order_acquire);
    if (h)
        return h;
    struct buf labels = {0};
    buf_puts(&labels, "method=\"");
    buf_puts(&labels, row == s->n_routes + HTTP_METHODS ? "other" : http_method_name(r->pub.method));
    buf_puts(&labels, "\",route=\"");
    metric_label(&labels, r->pub.route ? r->pub.pattern : STR("none"));
    buf_puts(&labels, "\",status=\"");
    buf_i64(&labels, status);
    buf_puts(&labels, "\"");
    buf_putc(&labels, '\0');
    if (!labels.failed)
        h = metric_histogram(s->metrics, "payflow_http_request_duration_seconds",
                             "Time from a request's headers to its answer.", labels.p, metric_bounds_us,
                             metric_bounds_us_n, 1000000);
    buf_free(&labels);
    if (h)
        atomic_store_explicit(cell, h, memory_order_release);
    return h;
}

static const char *method_text(const struct request *r)
{
    switch (r->verb) {
    case VERB_HEAD:
        return "HEAD";
    case VERB_OPTIONS:
        return "OPTIONS";
    case VERB_OTHER:
        return "other";
    case VERB_ROUTE:
        break;
    }
    return http_method_name(r->pub.method);
}

static void log_access(const struct request *r, int status, size_t bytes, int64_t us)
{
    struct log_field f[11];
    unsigned n = 0;
    f[n++] = LOG_STR("request_id", r->pub.request_id);
    if (r->pub.log_principal)
        f[n++] = LOG_I("principal", r->pub.log_principal);
    f[n++] = LOG_S("method", method_text(r));
    f[n++] = LOG_STR("route", r->pub.route ? r->pub.pattern : STR("none"));
    f[n++] = LOG_I("status", status);
    f[n++] = LOG_I("duration_us", us);
    f[n++] = LOG_I("bytes", bytes);
    f[n++] = LOG_S("peer", r->pub.peer);
    if (r->pub.traceparent.n)
        f[n++] = LOG_STR("trace_id", ((struct str){r->pub.traceparent.p + 3, 32}));
    if (r->gone)
        f[n++] = LOG_I("client_gone", 1);
    f[n] = LOG_END;
    log_write(LOG_INFO, "request", f);
}

void observe(struct request *r, int status, size_t bytes)
{
    struct http_server *s = r->server;
    int64_t us = clock_mono(s->clock) - r->pub.start_us;
    struct metric_histogram *h = duration_of(r, status);
    if (h)
        metric_observe(h, us);
    metric_observe(s->all, us);
    if (s->access_log && log_enabled(LOG_INFO))
        log_access(r, status, bytes, us);
}
