/* The main figures of a server, summed over its routes. */
#include "http/internal.h"

void http_totals(const struct http_req *r, struct http_totals *ret)
{
    const struct http_server *s = ((const struct request *)r)->server;
    *ret = (struct http_totals){0};
    for (size_t row = 0; row < s->n_routes + UNMATCHED_ROWS; row++)
        for (size_t status = 100; status < 600; status++) {
            struct metric_histogram *h =
                atomic_load_explicit(&s->durations[row * 500 + status - 100], memory_order_acquire);
            if (!h)
                continue;
            uint64_t n = metric_histogram_count(h);
            ret->requests += n;
            ret->client_errors += status / 100 == 4 ? n : 0;
            ret->server_errors += status / 100 == 5 ? n : 0;
        }
    for (unsigned i = 0; i < s->n_io; i++)
        ret->in_flight += atomic_load_explicit(&s->io[i].in_flight, memory_order_relaxed);
    ret->connections = (int64_t)atomic_load_explicit(&s->connections, memory_order_relaxed);
    ret->p50_us = metric_histogram_quantile(s->all, 500);
    ret->p95_us = metric_histogram_quantile(s->all, 950);
    ret->p99_us = metric_histogram_quantile(s->all, 990);
}
