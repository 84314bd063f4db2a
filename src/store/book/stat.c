#include "store/book/book.h"

#include <stdlib.h>

enum { MINUTE_US = 60 * 1000000 };

static int64_t minute_of(int64_t ts)
{
    return ts / MINUTE_US;
}

static int64_t add_saturating(int64_t a, int64_t b)
{
    int64_t r;
    return __builtin_add_overflow(a, b, &r) ? INT64_MAX : r;
}

static struct book_series **series_at(const struct book *b, enum ledger_kind kind, money_currency currency)
{
    return &b->by_kind[(size_t)kind * 1000 + currency];
}

enum pf_err book_stat_reserve(struct book *b, enum ledger_kind kind, money_currency currency)
{
    if (kind < 1 || kind > LEDGER_KIND_MAX || currency >= 1000)
        return PFE_INTERNAL;
    struct book_series **at = series_at(b, kind, currency);
    if (*at)
        return PFE_OK;
    struct book_series *s = calloc(1, sizeof *s);
    if (!s)
        return PFE_NOMEM;
    s->kind = kind;
    s->currency = currency;
    pthread_rwlock_wrlock(&b->lock);
    s->next = b->series;
    b->series = s;
    *at = s;
    pthread_rwlock_unlock(&b->lock);
    return PFE_OK;
}

/* The bucket of a minute, taken over from an older one; NULL when a newer minute has it. */
static struct book_bucket *bucket_of(struct book_series *s, int64_t minute)
{
    if (minute <= 0)
        return NULL;
    struct book_bucket *k = &s->minutes[minute % BOOK_MINUTES];
    if (k->minute > minute)
        return NULL;
    if (k->minute < minute)
        *k = (struct book_bucket){.minute = minute};
    return k;
}

void book_stat_add(struct book *b, const struct ledger_entry *e)
{
    struct book_series *s = *series_at(b, e->kind, e->currency);
    s->count++;
    s->volume = add_saturating(s->volume, e->amount);
    s->dirty = true;
    struct book_bucket *k = bucket_of(s, minute_of(e->ts));
    if (k) {
        k->count++;
        k->volume = add_saturating(k->volume, e->amount);
        k->dirty = true;
    }
}

enum pf_err book_stat_load(struct book *b, enum ledger_kind kind, money_currency currency, int64_t minute,
                           int64_t count, int64_t volume)
{
    enum pf_err e = book_stat_reserve(b, kind, currency);
    if (e)
        return e;
    struct book_series *s = *series_at(b, kind, currency);
    if (minute == 0) {
        s->count = count;
        s->volume = volume;
        return PFE_OK;
    }
    struct book_bucket *k = bucket_of(s, minute);
    if (k) {
        k->count = count;
        k->volume = volume;
    }
    return PFE_OK;
}

void book_stat_dirty(const struct book *b, book_stat_fn fn, void *ctx)
{
    for (const struct book_series *s = b->series; s; s = s->next) {
        if (!s->dirty)
            continue;
        fn(ctx, s, 0, s->count, s->volume);
        for (size_t i = 0; i < BOOK_MINUTES; i++)
            if (s->minutes[i].dirty)
                fn(ctx, s, s->minutes[i].minute, s->minutes[i].count, s->minutes[i].volume);
    }
}

void book_stat_clean(struct book *b)
{
    for (struct book_series *s = b->series; s; s = s->next) {
        if (!s->dirty)
            continue;
        s->dirty = false;
        for (size_t i = 0; i < BOOK_MINUTES; i++)
            s->minutes[i].dirty = false;
    }
}

void book_stat_reset(struct book *b)
{
    for (struct book_series *s = b->series; s; s = s->next) {
        if (!s->dirty)
            continue;
        s->dirty = false;
        s->count = s->volume = 0;
        for (size_t i = 0; i < BOOK_MINUTES; i++)
            if (s->minutes[i].dirty)
                s->minutes[i] = (struct book_bucket){0};
    }
}

/* Insertion by currency, then kind: what there is to sort is a handful. */
static void sort_stats(struct store_stat *v, unsigned n)
{
    for (unsigned i = 1; i < n; i++)
        for (unsigned k = i; k > 0 && (v[k].currency < v[k - 1].currency ||
                                       (v[k].currency == v[k - 1].currency && v[k].kind < v[k - 1].kind));
             k--) {
            struct store_stat t = v[k];
            v[k] = v[k - 1];
            v[k - 1] = t;
        }
}

void book_stats(struct book *b, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                unsigned *ret_n)
{
    int64_t until = minute_of(now_us), since = until - (w == STORE_WINDOW_HOUR ? 60 : BOOK_MINUTES);
    unsigned n = 0;
    pthread_rwlock_rdlock(&b->lock);
    for (const struct book_series *s = b->series; s && n < cap; s = s->next) {
        struct store_stat t = {.kind = s->kind, .currency = s->currency};
        if (w == STORE_WINDOW_ALL) {
            t.count = s->count;
            t.volume = s->volume;
        } else {
            for (size_t i = 0; i < BOOK_MINUTES; i++) {
                const struct book_bucket *k = &s->minutes[i];
                if (k->minute > since && k->minute <= until) {
                    t.count += k->count;
                    t.volume = add_saturating(t.volume, k->volume);
                }
            }
        }
        if (t.count)
            out[n++] = t;
    }
    pthread_rwlock_unlock(&b->lock);
    sort_stats(out, n);
    *ret_n = n;
}
