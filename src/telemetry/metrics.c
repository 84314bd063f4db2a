#include "telemetry/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/map.h"

const int64_t metric_bounds_us[] = {50,    100,    250,    500,    1000,    2500,    5000,    10000,   25000,
                                    50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};
const unsigned metric_bounds_us_n = sizeof metric_bounds_us / sizeof metric_bounds_us[0];
const int64_t metric_bounds_pow2[] = {1,   2,    4,    8,    16,   32,    64,    128,  256,
                                      512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};
const unsigned metric_bounds_pow2_n = sizeof metric_bounds_pow2 / sizeof metric_bounds_pow2[0];

enum kind { COUNTER, GAUGE, HISTOGRAM };

struct metric_counter {
    atomic_uint_fast64_t v;
};

struct metric_gauge {
    atomic_int_fast64_t v;
};

struct metric_histogram {
    const int64_t *bounds;
    unsigned n_bounds;
    atomic_int_fast64_t sum;
    atomic_uint_fast64_t bucket[]; /* n_bounds + 1, not cumulative */
};

struct series {
    struct series *next; /* of the family, by labels */
    int64_t (*fn)(void *ctx);
    void *ctx;
    struct metric_histogram *histogram;
    union {
        struct metric_counter counter;
        struct metric_gauge gauge;
    };
    char labels[];
};

struct family {
    struct family *next; /* by name */
    const char *name, *help;
    enum kind kind;
    int64_t scale;
    struct series *series;
};

struct metrics {
    pthread_mutex_t lock;
    struct map_str index; /* "name{labels" -> struct series */
    struct family *families;
    size_t n_series;
    /* What callers get when there is no room; never shown. */
    struct metric_counter spare_counter;
    struct metric_gauge spare_gauge;
    struct metric_histogram *spare_histogram;
};

static struct metric_histogram *histogram_new(const int64_t *bounds, unsigned n)
{
    struct metric_histogram *h = calloc(1, sizeof *h + (n + 1) * sizeof h->bucket[0]);
    if (h) {
        h->bounds = bounds;
        h->n_bounds = n;
    }
    return h;
}

struct metrics *metrics_new(void)
{
    struct metrics *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->spare_histogram = histogram_new(NULL, 0);
    if (!m->spare_histogram) {
        free(m);
        return NULL;
    }
    pthread_mutex_init(&m->lock, NULL);
    map_str_init(&m->index);
    return m;
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    for (struct family *f = m->families, *next; f; f = next) {
        next = f->next;
        for (struct series *s = f->series, *after; s; s = after) {
            after = s->next;
            free(s->histogram);
            free(s);
        }
        free(f);
    }
    map_str_free(&m->index);
    free(m->spare_histogram);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static struct family *family_get(struct metrics *m, const char *name, const char *help, enum kind kind, int64_t scale)
{
    struct family **at = &m->families;
    while (*at && strcmp((*at)->name, name) < 0)
        at = &(*at)->next;
    if (*at && strcmp((*at)->name, name) == 0)
        return (*at)->kind == kind && (*at)->scale == scale ? *at : NULL;
    struct family *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    *f = (struct family){.next = *at, .name = name, .help = help, .kind = kind, .scale = scale};
    *at = f;
    return f;
}

static struct series *series_new(struct metrics *m, const char *name, const char *help, const char *labels,
                                 enum kind kind, int64_t scale, struct str key)
{
    if (m->n_series >= METRICS_SERIES_MAX)
        return NULL;
    struct family *f = family_get(m, name, help, kind, scale);
    if (!f)
        return NULL;
    size_t n = strlen(labels);
    struct series *s = calloc(1, sizeof *s + n + 1);
    if (!s || !map_str_put(&m->index, key, s)) {
        free(s);
        return NULL;
    }
    memcpy(s->labels, labels, n);
    struct series **at = &f->series;
    while (*at && strcmp((*at)->labels, labels) < 0)
        at = &(*at)->next;
    s->next = *at;
    *at = s;
    m->n_series++;
    return s;
}

/* With the lock held. The series of that name and those labels, made if need be; NULL: no room, or the name is taken
 * by a family of another kind or scale. */
static struct series *series_get(struct metrics *m, const char *name, const char *help, const char *labels,
                                 enum kind kind, int64_t scale)
{
    struct buf key = {0};
    buf_putc(&key, (char)('0' + (int)kind));
    buf_i64(&key, scale);
    buf_putc(&key, ' ');
    buf_puts(&key, name);
    buf_putc(&key, '{');
    buf_puts(&key, labels);
    struct series *s = NULL;
    if (!key.failed) {
        s = map_str_get(&m->index, buf_as_str(&key));
        if (!s)
            s = series_new(m, name, help, labels, kind, scale, buf_as_str(&key));
    }
    buf_free(&key);
    return s;
}

struct metric_counter *metric_counter(struct metrics *m, const char *name, const char *help, const char *labels)
{
    pthread_mutex_lock(&m->lock);
    struct series *s = series_get(m, name, help, labels, COUNTER, 1);
    pthread_mutex_unlock(&m->lock);
    return s ? &s->counter : &m->spare_counter;
}

struct metric_gauge *metric_gauge(struct metrics *m, const char *name, const char *help, const char *labels)
{
    pthread_mutex_lock(&m->lock);
    struct series *s = series_get(m, name, help, labels, GAUGE, 1);
    pthread_mutex_unlock(&m->lock);
    return s ? &s->gauge : &m->spare_gauge;
}

static void fn_set(struct metrics *m, const char *name, const char *help, const char *labels, enum kind kind,
                   int64_t (*fn)(void *ctx), void *ctx, int64_t scale)
{
    pthread_mutex_lock(&m->lock);
    struct series *s = series_get(m, name, help, labels, kind, scale);
    if (s) {
        s->fn = fn;
        s->ctx = ctx;
    }
    pthread_mutex_unlock(&m->lock);
}

void metric_gauge_fn(struct metrics *m, const char *name, const char *help, const char *labels,
                     int64_t (*fn)(void *ctx), void *ctx, int64_t scale)
{
    fn_set(m, name, help, labels, GAUGE, fn, ctx, scale);
}

void metric_counter_fn(struct metrics *m, const char *name, const char *help, const char *labels,
                       int64_t (*fn)(void *ctx), void *ctx, int64_t scale)
{
    fn_set(m, name, help, labels, COUNTER, fn, ctx, scale);
}

struct metric_histogram *metric_histogram(struct metrics *m, const char *name, const char *help, const char *labels,
                                          const int64_t *bounds, unsigned n_bounds, int64_t scale)
{
    pthread_mutex_lock(&m->lock);
    struct series *s = series_get(m, name, help, labels, HISTOGRAM, scale);
    if (s && !s->histogram)
        s->histogram = histogram_new(bounds, n_bounds);
    struct metric_histogram *h = s && s->histogram ? s->histogram : m->spare_histogram;
    pthread_mutex_unlock(&m->lock);
    return h;
}

void metric_inc(struct metric_counter *c, uint64_t by)
{
    atomic_fetch_add_explicit(&c->v, by, memory_order_relaxed);
}

uint64_t metric_counter_value(const struct metric_counter *c)
{
    return atomic_load_explicit(&c->v, memory_order_relaxed);
}

void metric_set(struct metric_gauge *g, int64_t v)
{
    atomic_store_explicit(&g->v, v, memory_order_relaxed);
}

void metric_add(struct metric_gauge *g, int64_t by)
{
    atomic_fetch_add_explicit(&g->v, by, memory_order_relaxed);
}

int64_t metric_gauge_value(const struct metric_gauge *g)
{
    return atomic_load_explicit(&g->v, memory_order_relaxed);
}

void metric_observe(struct metric_histogram *h, int64_t v)
{
    unsigned lo = 0, hi = h->n_bounds;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (v <= h->bounds[mid])
            hi = mid;
        else
            lo = mid + 1;
    }
    atomic_fetch_add_explicit(&h->bucket[lo], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum, v, memory_order_relaxed);
}

static uint64_t bucket_at(const struct metric_histogram *h, unsigned i)
{
    return atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
}

uint64_t metric_histogram_count(const struct metric_histogram *h)
{
    uint64_t n = 0;
    for (unsigned i = 0; i <= h->n_bounds; i++)
        n += bucket_at(h, i);
    return n;
}

int64_t metric_histogram_sum(const struct metric_histogram *h)
{
    return atomic_load_explicit(&h->sum, memory_order_relaxed);
}

int64_t metric_histogram_quantile(const struct metric_histogram *h, unsigned q_permille)
{
    uint64_t total = metric_histogram_count(h);
    if (total == 0 || h->n_bounds == 0)
        return 0;
    uint64_t rank = (uint64_t)(((unsigned __int128)total * q_permille + 999) / 1000);
    uint64_t seen = 0;
    for (unsigned i = 0; i < h->n_bounds; i++) {
        seen += bucket_at(h, i);
        if (seen >= rank)
            return h->bounds[i];
    }
    return h->bounds[h->n_bounds - 1];
}

void metric_label(struct buf *b, struct str value)
{
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];
        if (c == '\n') {
            buf_puts(b, "\\n");
            continue;
        }
        if (c == '\\' || c == '"')
            buf_putc(b, '\\');
        buf_putc(b, c);
    }
}

/* v / scale in decimal, exact to nine places. */
static void put_scaled(struct buf *b, int64_t v, int64_t scale)
{
    if (scale <= 1) {
        buf_i64(b, v);
        return;
    }
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v, per = (uint64_t)scale;
    if (v < 0)
        buf_putc(b, '-');
    buf_u64(b, u / per);
    uint64_t frac = (uint64_t)((unsigned __int128)(u % per) * 1000000000u / per);
    if (frac == 0)
        return;
    char d[9];
    size_t n = sizeof d;
    for (size_t i = n; i-- > 0; frac /= 10)
        d[i] = (char)('0' + frac % 10);
    while (d[n - 1] == '0')
        n--;
    buf_putc(b, '.');
    buf_put(b, d, n);
}

static void put_name(struct buf *b, const struct family *f, const char *suffix, const struct series *s)
{
    buf_puts(b, f->name);
    buf_puts(b, suffix);
    if (s->labels[0]) {
        buf_putc(b, '{');
        buf_puts(b, s->labels);
        buf_putc(b, '}');
    }
    buf_putc(b, ' ');
}

static void render_histogram(struct buf *b, const struct family *f, const struct series *s)
{
    const struct metric_histogram *h = s->histogram;
    if (!h)
        return;
    uint64_t seen = 0;
    for (unsigned i = 0; i <= h->n_bounds; i++) {
        seen += bucket_at(h, i);
        buf_puts(b, f->name);
        buf_puts(b, "_bucket{");
        if (s->labels[0]) {
            buf_puts(b, s->labels);
            buf_putc(b, ',');
        }
        buf_puts(b, "le=\"");
        if (i == h->n_bounds)
            buf_puts(b, "+Inf");
        else
            put_scaled(b, h->bounds[i], f->scale);
        buf_puts(b, "\"} ");
        buf_u64(b, seen);
        buf_putc(b, '\n');
    }
    put_name(b, f, "_sum", s);
    put_scaled(b, metric_histogram_sum(h), f->scale);
    buf_putc(b, '\n');
    put_name(b, f, "_count", s);
    buf_u64(b, seen);
    buf_putc(b, '\n');
}

static void render_series(struct buf *b, const struct family *f, const struct series *s)
{
    if (f->kind == HISTOGRAM) {
        render_histogram(b, f, s);
        return;
    }
    put_name(b, f, "", s);
    if (s->fn)
        put_scaled(b, s->fn(s->ctx), f->scale);
    else if (f->kind == COUNTER)
        buf_u64(b, metric_counter_value(&s->counter));
    else
        buf_i64(b, metric_gauge_value(&s->gauge));
    buf_putc(b, '\n');
}

void metrics_render(struct metrics *m, struct buf *out)
{
    static const char *const type[] = {[COUNTER] = " counter\n", [GAUGE] = " gauge\n", [HISTOGRAM] = " histogram\n"};
    pthread_mutex_lock(&m->lock);
    for (const struct family *f = m->families; f; f = f->next) {
        buf_puts(out, "# HELP ");
        buf_puts(out, f->name);
        buf_putc(out, ' ');
        for (const char *c = f->help; *c; c++) {
            if (*c == '\n')
                buf_puts(out, "\\n");
            else if (*c == '\\')
                buf_puts(out, "\\\\");
            else
                buf_putc(out, *c);
        }
        buf_puts(out, "\n# TYPE ");
        buf_puts(out, f->name);
        buf_puts(out, type[f->kind]);
        for (const struct series *s = f->series; s; s = s->next)
            render_series(out, f, s);
    }
    pthread_mutex_unlock(&m->lock);
}
