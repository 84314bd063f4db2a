#include "resilience/fallback.h"

#include <pthread.h>
#include <stdlib.h>

struct entry {
    struct entry *chain;       /* next in the bucket */
    struct entry *prev, *next; /* by use, a ring through struct fallback: next of it is the latest used */
    uint64_t hash;
    int64_t kept_us;
    size_t principal_n, request_n, value_n;
    char data[]; /* principal, request, value */
};

_Static_assert(sizeof(struct entry) + 2 * sizeof(struct entry *) + 32 <= FALLBACK_OVERHEAD,
               "an entry, its share of the table, malloc's own");

struct fallback {
    pthread_mutex_t lock;
    struct fallback_config c;
    char *default_copy;
    struct entry used; /* the ring's start; holds no data */
    struct entry **table;
    size_t mask;
    struct fallback_figures n;
};

struct fallback_config fallback_defaults(void)
{
    return (struct fallback_config){
        .should_cache = true,
        .cache_timeout_us = (int64_t)600 * 1000000,
        .max_entries = 10000,
        .max_bytes = (size_t)16 << 20,
    };
}

const char *fallback_fault(const struct fallback_config *c)
{
    if (c->cache_timeout_us < 0 || c->cache_timeout_us > (int64_t)30 * 86400 * 1000000)
        return "cacheTimeout must be 0 to 30 days";
    if (c->max_entries < 1 || c->max_entries > 1000000)
        return "maxEntries must be 1..1000000";
    if (c->max_bytes < 1 || c->max_bytes > (size_t)1 << 40)
        return "maxBytes must be 1 byte to 1 TiB";
    return NULL;
}

struct fallback *fallback_new(const struct fallback_config *c)
{
    struct fallback *f;
    size_t slots = 1;

    if (fallback_fault(c) || !(f = calloc(1, sizeof *f)))
        return NULL;
    f->c = *c;
    while (slots < c->max_entries)
        slots *= 2;
    f->mask = slots - 1;
    f->table = calloc(slots, sizeof(struct entry *));
    f->default_copy = malloc(c->default_response.n + 1);
    if (!f->table || !f->default_copy || pthread_mutex_init(&f->lock, NULL) != 0) {
        free(f->table);
        free(f->default_copy);
        free(f);
        return NULL;
    }
    if (c->default_response.n)
        memcpy(f->default_copy, c->default_response.p, c->default_response.n);
    if (c->default_response.p)
        f->c.default_response.p = f->default_copy;
    f->used.prev = f->used.next = &f->used;
    return f;
}

void fallback_free(struct fallback *f)
{
    if (!f)
        return;
    for (struct entry *e = f->used.next, *next; e != &f->used; e = next) {
        next = e->next;
        free(e);
    }
    pthread_mutex_destroy(&f->lock);
    free(f->table);
    free(f->default_copy);
    free(f);
}

/* Both parts hashed apart: ("ab", "c") and ("a", "bc") are two keys. */
static uint64_t hash_of(struct str principal, struct str request)
{
    return str_hash(principal) * 0x9e3779b97f4a7c15u ^ str_hash(request);
}

static struct entry *find(struct fallback *f, uint64_t hash, struct str principal, struct str request)
{
    struct entry *e = f->table[hash & f->mask];

    while (e && (e->hash != hash || !str_eq((struct str){e->data, e->principal_n}, principal) ||
                 !str_eq((struct str){e->data + e->principal_n, e->request_n}, request)))
        e = e->chain;
    return e;
}

static size_t bytes_of(const struct entry *e)
{
    return FALLBACK_OVERHEAD + e->principal_n + e->request_n + e->value_n;
}

static void ring_out(struct entry *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
}

static void ring_in(struct fallback *f, struct entry *e)
{
    e->prev = &f->used;
    e->next = f->used.next;
    e->prev->next = e->next->prev = e;
}

static void drop(struct fallback *f, struct entry *e)
{
    struct entry **link = &f->table[e->hash & f->mask];

    while (*link != e)
        link = &(*link)->chain;
    *link = e->chain;
    ring_out(e);
    f->n.entries--;
    f->n.bytes -= bytes_of(e);
    free(e);
}

static struct entry *entry_new(uint64_t hash, struct str principal, struct str request, struct str value)
{
    struct entry *e = malloc(sizeof *e + principal.n + request.n + value.n);
    char *to;

    if (!e)
        return NULL;
    *e = (struct entry){.hash = hash, .principal_n = principal.n, .request_n = request.n, .value_n = value.n};
    to = e->data;
    for (struct str parts[] = {principal, request, value}, *p = parts; p < parts + 3; to += p->n, p++)
        if (p->n)
            memcpy(to, p->p, p->n);
    return e;
}

/* Takes e in, and lets the least recently used give way. */
static void put(struct fallback *f, struct entry *e)
{
    while (f->n.entries == f->c.max_entries || f->n.bytes + bytes_of(e) > f->c.max_bytes) {
        drop(f, f->used.prev);
        f->n.evicted++;
    }
    e->chain = f->table[e->hash & f->mask];
    f->table[e->hash & f->mask] = e;
    ring_in(f, e);
    f->n.entries++;
    f->n.bytes += bytes_of(e);
    f->n.kept++;
}

bool fallback_keep(struct fallback *f, enum fallback_use use, struct str principal, struct str request,
                   struct str value, int64_t now_us)
{
    const uint64_t hash = hash_of(principal, request);
    const bool wanted = use == FALLBACK_READ && f->c.should_cache;
    struct entry *e = NULL, *old;

    /* one by one, so that no sum can wrap */
    if (wanted && principal.n <= f->c.max_bytes && request.n <= f->c.max_bytes && value.n <= f->c.max_bytes &&
        FALLBACK_OVERHEAD + principal.n + request.n + value.n <= f->c.max_bytes)
        e = entry_new(hash, principal, request, value);
    pthread_mutex_lock(&f->lock);
    if (wanted && (old = find(f, hash, principal, request)))
        drop(f, old);
    if (e) {
        e->kept_us = now_us;
        put(f, e);
    } else if (f->c.should_cache) {
        f->n.refused++;
    }
    pthread_mutex_unlock(&f->lock);
    return e;
}

enum fallback_source fallback_get(struct fallback *f, enum fallback_use use, struct str principal, struct str request,
                                  int64_t now_us, struct buf *ret, int64_t *ret_age_us)
{
    const uint64_t hash = hash_of(principal, request);
    enum fallback_source source = FALLBACK_NONE;
    struct entry *e;

    *ret_age_us = 0;
    pthread_mutex_lock(&f->lock);
    if (use == FALLBACK_READ && (e = find(f, hash, principal, request))) {
        /* another thread may have kept it after this one had read the clock */
        const int64_t age = now_us > e->kept_us ? now_us - e->kept_us : 0;
        if (age <= f->c.cache_timeout_us) {
            source = FALLBACK_STALE;
            buf_put(ret, e->data + e->principal_n + e->request_n, e->value_n);
            *ret_age_us = age;
            ring_out(e);
            ring_in(f, e);
        } else {
            drop(f, e);
        }
    }
    if (use == FALLBACK_READ && source == FALLBACK_NONE && f->c.default_response.p) {
        source = FALLBACK_DEFAULT;
        buf_str(ret, f->c.default_response);
    }
    f->n.stale += source == FALLBACK_STALE;
    f->n.defaults += source == FALLBACK_DEFAULT;
    f->n.none += source == FALLBACK_NONE;
    pthread_mutex_unlock(&f->lock);
    return source;
}

void fallback_forget(struct fallback *f, struct str principal, struct str request)
{
    const uint64_t hash = hash_of(principal, request);
    struct entry *e;

    pthread_mutex_lock(&f->lock);
    if ((e = find(f, hash, principal, request)))
        drop(f, e);
    pthread_mutex_unlock(&f->lock);
}

void fallback_read(struct fallback *f, struct fallback_figures *ret)
{
    pthread_mutex_lock(&f->lock);
    *ret = f->n;
    pthread_mutex_unlock(&f->lock);
}
