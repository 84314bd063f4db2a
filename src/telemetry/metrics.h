/*
 * metrics: counters, gauges and histograms in the Prometheus text exposition format 0.0.4.
 *
 * Series are made at start-up or on first use (metric_* look a series up by name and labels, under a lock: keep the
 * pointer), live as long as the registry, and are updated with relaxed atomics: cheap and callable from any thread. A
 * registry holds at most METRICS_SERIES_MAX series; beyond it metric_* return a shared series that is not shown, so
 * callers need not check.
 *
 *     struct metric_counter *c = metric_counter(m, "payflow_logins_total", "Logins.", "outcome=\"ok\"");
 *     metric_inc(c, 1);
 */
#ifndef TELEMETRY_METRICS_H
#define TELEMETRY_METRICS_H

#include <stdint.h>

#include "base/buf.h"

struct metrics;
struct metric_counter;
struct metric_gauge;
struct metric_histogram;

enum { METRICS_SERIES_MAX = 8192 };

struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);

/* name, help: literals (borrowed). labels: `k="v",k2="v2"` with values escaped by metric_label, or "" (copied). */
struct metric_counter *metric_counter(struct metrics *m, const char *name, const char *help, const char *labels);
struct metric_gauge *metric_gauge(struct metrics *m, const char *name, const char *help, const char *labels);
/* Read at scrape time instead of stored. fn must be quick and thread-safe. scale divides the value (1000000: µs shown
 * as seconds). */
void metric_gauge_fn(struct metrics *m, const char *name, const char *help, const char *labels,
                     int64_t (*fn)(void *ctx), void *ctx, int64_t scale);
void metric_counter_fn(struct metrics *m, const char *name, const char *help, const char *labels,
                       int64_t (*fn)(void *ctx), void *ctx, int64_t scale);
/* bounds: ascending upper bounds (borrowed, static); values and bounds share a unit; shown divided by scale. */
struct metric_histogram *metric_histogram(struct metrics *m, const char *name, const char *help, const char *labels,
                                          const int64_t *bounds, unsigned n_bounds, int64_t scale);
/* Ready-made bounds: 50 µs … 10 s, in µs (for scale 1000000); powers of two 1 … 65536 (for scale 1). */
extern const int64_t metric_bounds_us[];
extern const unsigned metric_bounds_us_n;
extern const int64_t metric_bounds_pow2[];
extern const unsigned metric_bounds_pow2_n;

void metric_inc(struct metric_counter *c, uint64_t by);
uint64_t metric_counter_value(const struct metric_counter *c);
void metric_set(struct metric_gauge *g, int64_t v);
void metric_add(struct metric_gauge *g, int64_t by);
int64_t metric_gauge_value(const struct metric_gauge *g);
void metric_observe(struct metric_histogram *h, int64_t v);
uint64_t metric_histogram_count(const struct metric_histogram *h);
int64_t metric_histogram_sum(const struct metric_histogram *h);
/* An upper estimate of the q-th quantile (0 < q_permille < 1000) from the buckets, in the unit of the values; 0 when
 * empty. Beyond the last bound it is the last bound. */
int64_t metric_histogram_quantile(const struct metric_histogram *h, unsigned q_permille);

/* Appends a label value with \, " and newline escaped. */
void metric_label(struct buf *b, struct str value);
/* All families, each with HELP and TYPE once, in order of name. */
void metrics_render(struct metrics *m, struct buf *out);
/* Process figures (process_resident_memory_bytes, process_cpu_seconds_total, process_open_fds,
 * process_start_time_seconds, threads), registered once. */
void metrics_add_process(struct metrics *m);

#endif
