#include "cache/local/local.h"

#include <assert.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/buf.h"
#include "cache/local/rate.h"

enum {
    SHARDS_MAX = 32,
    /* Keys spread by chance: below this many entries a shard would evict long before the whole cache is full. */
    SHARD_ENTRIES_LEAST = 128,
    /* Invalidation counters of a shard: with SHARDS_MAX 2048 in all, so that a put is refused for another key's
       deletion once in 2000 times; 16 KiB. */
    GENS = 64,
    TABLE_LEAST = 16,
    SWEEP_PUT = 2,      /* more than one, so that a put cleans up faster than it fills */
    SWEEP_STATS = 64,   /* for a cache that is watched but not written to */
    SCAN_BUCKETS = 128, /* a listing or del_glob holds a shard for about 10 µs at a time */
    /* Entries used since the hand passed them that one eviction spares before it takes the next, used or not: it
       bounds the time that a put holds the lock. */
    SECOND_CHANCES = 64,
    COUNTERS_DEFAULT = 65536,
};

struct entry {
    struct entry *chain;       /* next in the bucket; next of the dead once removed */
    struct entry *prev, *next; /* the clock's ring */
    uint64_t hash;
    int64_t expires_us;
    uint32_t value_n;
    uint8_t key_n;
    bool used;   /* since the hand passed */
    char data[]; /* key, value */
};

enum {
    /* An entry's share of the bucket array (one to two pointers) and malloc's header. */
    ENTRY_OVERHEAD = sizeof(struct entry) + 24,
    /* The smallest share of bytes: two of the largest entries. */
    SHARD_BYTES_LEAST = 2 * (ENTRY_OVERHEAD + CACHE_KEY_MAX + CACHE_VALUE_MAX),
};

/* Written with the lock held, read without. */
struct counts {
    _Atomic uint64_t hits, misses, puts, evictions, expirations, invalidations, refused_puts;
    _Atomic uint64_t entries, bytes;
};

struct shard {
    alignas(64) pthread_mutex_t lock;
    struct entry **table; /* NULL until the first put; a power of two, never shrinks */
    size_t table_n;
    struct entry *hand;  /* eviction looks here next; new entries come last before it */
    struct entry *broom; /* the sweep for expired entries looks here next */
    uint64_t max_entries, max_bytes;
    struct counts counts;
    uint64_t gens[GENS]; /* a token is its key's generation; from 1, so that 0 is never a token */
};

struct local {
    struct cache cache;
    const struct clock *clock;
    struct rate_table *rates;
    uint64_t max_entries, max_bytes;
    unsigned n_shards;
    struct shard shards[];
};

static struct local *local_of(struct cache *c)
{
    return (struct local *)c;
}

static uint64_t count_get(const _Atomic uint64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

/* The lock makes the writer the only one: no locked instruction is needed. */
static void count_add(_Atomic uint64_t *v, uint64_t n)
{
    atomic_store_explicit(v, count_get(v) + n, memory_order_relaxed);
}

/* Shard, generation and bucket each take bits of the hash that the others do not. */
static struct shard *shard_of(struct local *l, uint64_t hash)
{
    return &l->shards[(hash >> 58) & (l->n_shards - 1)];
}

static uint64_t *gen_of(struct shard *s, uint64_t hash)
{
    return &s->gens[(hash >> 52) % GENS];
}

static struct str entry_key(const struct entry *e)
{
    return (struct str){e->data, e->key_n};
}

static uint64_t entry_bytes(size_t key_n, size_t value_n)
{
    return ENTRY_OVERHEAD + key_n + value_n;
}

static struct entry *entry_find(const struct shard *s, uint64_t hash, struct str key)
{
    struct entry *e = s->table ? s->table[hash & (s->table_n - 1)] : NULL;
    while (e && (e->hash != hash || !str_eq(entry_key(e), key)))
        e = e->chain;
    return e;
}

static struct entry *ring_after(const struct entry *e)
{
    return e->next == e ? NULL : e->next;
}

/* Takes the entry out of the shard and hands it to the dead, who are freed once the lock is released. */
static void entry_remove(struct shard *s, struct entry *e, struct entry **dead)
{
    struct entry **link = &s->table[e->hash & (s->table_n - 1)];
    while (*link != e)
        link = &(*link)->chain;
    *link = e->chain;

    if (s->hand == e)
        s->hand = ring_after(e);
    if (s->broom == e)
        s->broom = ring_after(e);
    e->prev->next = e->next;
    e->next->prev = e->prev;

    count_add(&s->counts.entries, UINT64_MAX);
    count_add(&s->counts.bytes, -entry_bytes(e->key_n, e->value_n));
    e->chain = *dead;
    *dead = e;
}

static void entry_insert(struct shard *s, struct entry *e)
{
    struct entry **head = &s->table[e->hash & (s->table_n - 1)];
    e->chain = *head;
    *head = e;

    if (s->hand) {
        e->next = s->hand;
        e->prev = s->hand->prev;
        e->prev->next = e;
        e->next->prev = e;
    } else {
        e->prev = e->next = e;
        s->hand = s->broom = e;
    }
    count_add(&s->counts.entries, 1);
    count_add(&s->counts.bytes, entry_bytes(e->key_n, e->value_n));
}

static void dead_free(struct entry *dead)
{
    while (dead) {
        struct entry *next = dead->chain;
        free(dead);
        dead = next;
    }
}

static void sweep(struct shard *s, int64_t now_us, unsigned n, struct entry **dead)
{
    for (; n > 0 && s->broom; n--) {
        struct entry *e = s->broom;
        s->broom = e->next;
        if (e->expires_us <= now_us) {
            entry_remove(s, e, dead);
            count_add(&s->counts.expirations, 1);
        }
    }
}

/* bytes <= s->max_bytes: an empty shard has room. */
static void make_room(struct shard *s, uint64_t bytes, int64_t now_us, struct entry **dead)
{
    unsigned chances = SECOND_CHANCES;
    while (count_get(&s->counts.entries) >= s->max_entries || count_get(&s->counts.bytes) > s->max_bytes - bytes) {
        struct entry *e = s->hand;
        if (e->expires_us <= now_us) {
            entry_remove(s, e, dead);
            count_add(&s->counts.expirations, 1);
        } else if (e->used && chances > 0) {
            chances--;
            e->used = false;
            s->hand = e->next;
        } else {
            entry_remove(s, e, dead);
            count_add(&s->counts.evictions, 1);
        }
    }
}

/* One entry a bucket at most, on average; if there is no memory to grow, longer chains must do. false: no table. */
static bool table_grow(struct shard *s)
{
    if (s->table && count_get(&s->counts.entries) < s->table_n)
        return true;
    const size_t n = s->table ? s->table_n * 2 : TABLE_LEAST;
    struct entry **table = calloc(n, sizeof(struct entry *));
    if (!table)
        return s->table != NULL;
    for (size_t i = 0; i < s->table_n; i++) {
        for (struct entry *e = s->table[i], *next; e; e = next) {
            next = e->chain;
            e->chain = table[e->hash & (n - 1)];
            table[e->hash & (n - 1)] = e;
        }
    }
    free(s->table);
    s->table = table;
    s->table_n = n;
    return true;
}

static bool local_get(struct cache *c, struct str key, void *out, size_t cap, size_t *ret_n, uint64_t *ret_token)
{
    struct local *l = local_of(c);
    const uint64_t hash = str_hash(key);
    const int64_t now_us = clock_mono(l->clock);
    struct shard *s = shard_of(l, hash);
    struct entry *dead = NULL;

    pthread_mutex_lock(&s->lock);
    struct entry *e = entry_find(s, hash, key);
    if (e && e->expires_us <= now_us) {
        entry_remove(s, e, &dead);
        count_add(&s->counts.expirations, 1);
        e = NULL;
    }
    const bool hit = e && e->value_n <= cap;
    if (hit) {
        if (e->value_n > 0)
            memcpy(out, e->data + e->key_n, e->value_n);
        *ret_n = e->value_n;
        e->used = true;
        count_add(&s->counts.hits, 1);
    } else {
        *ret_token = *gen_of(s, hash);
        count_add(&s->counts.misses, 1);
    }
    pthread_mutex_unlock(&s->lock);
    dead_free(dead);
    return hit;
}

static struct entry *entry_new(uint64_t hash, struct str key, struct str value, int64_t expires_us)
{
    struct entry *e = malloc(sizeof *e + key.n + value.n);
    if (!e)
        return NULL;
    *e = (struct entry){.hash = hash, .expires_us = expires_us, .value_n = (uint32_t)value.n, .key_n = (uint8_t)key.n};
    if (key.n > 0)
        memcpy(e->data, key.p, key.n);
    if (value.n > 0)
        memcpy(e->data + key.n, value.p, value.n);
    return e;
}

static void local_put(struct cache *c, struct str key, struct str value, int64_t ttl_us, uint64_t token)
{
    struct local *l = local_of(c);
    const uint64_t hash = str_hash(key);
    const int64_t now_us = clock_mono(l->clock);
    struct shard *s = shard_of(l, hash);
    struct entry *dead = NULL;

    struct entry *e = NULL;
    if (key.n <= CACHE_KEY_MAX && value.n <= CACHE_VALUE_MAX && ttl_us > 0 &&
        entry_bytes(key.n, value.n) <= s->max_bytes)
        e = entry_new(hash, key, value, ttl_us > INT64_MAX - now_us ? INT64_MAX : now_us + ttl_us);

    pthread_mutex_lock(&s->lock);
    if (e && token == *gen_of(s, hash) && table_grow(s)) {
        struct entry *old = entry_find(s, hash, key);
        if (old)
            entry_remove(s, old, &dead);
        sweep(s, now_us, SWEEP_PUT, &dead);
        make_room(s, entry_bytes(key.n, value.n), now_us, &dead);
        entry_insert(s, e);
        count_add(&s->counts.puts, 1);
        e = NULL;
    } else {
        count_add(&s->counts.refused_puts, 1);
    }
    pthread_mutex_unlock(&s->lock);
    free(e);
    dead_free(dead);
}

static bool local_del(struct cache *c, struct str key)
{
    struct local *l = local_of(c);
    const uint64_t hash = str_hash(key);
    const int64_t now_us = clock_mono(l->clock);
    struct shard *s = shard_of(l, hash);
    struct entry *dead = NULL;

    pthread_mutex_lock(&s->lock);
    ++*gen_of(s, hash);
    struct entry *e = entry_find(s, hash, key);
    const bool live = e && e->expires_us > now_us;
    if (e) {
        entry_remove(s, e, &dead);
        count_add(live ? &s->counts.invalidations : &s->counts.expirations, 1);
    }
    pthread_mutex_unlock(&s->lock);
    dead_free(dead);
    return live;
}

/* The bucket after this one, counting from the high bit down; 0 after the last. In this order a table that doubles
   between two steps neither hides an entry that was there at the start nor shows one twice (Redis's SCAN does the
   same). */
static size_t bucket_after(size_t at, size_t table_n)
{
    size_t bit = table_n / 2;
    while (at & bit) {
        at ^= bit;
        bit /= 2;
    }
    return at | bit;
}

static uint64_t shard_del_glob(struct shard *s, struct str pattern, int64_t now_us)
{
    uint64_t removed = 0;
    size_t at = 0;
    bool first = true;
    do {
        struct entry *dead = NULL;
        uint64_t live = 0;
        pthread_mutex_lock(&s->lock);
        for (unsigned i = 0; first && i < GENS; i++)
            s->gens[i]++;
        first = false;
        for (unsigned i = 0; s->table && i < SCAN_BUCKETS; i++) {
            for (struct entry *e = s->table[at], *next; e; e = next) {
                next = e->chain;
                if (!str_glob(pattern, entry_key(e)))
                    continue;
                if (e->expires_us > now_us)
                    live++;
                else
                    count_add(&s->counts.expirations, 1);
                entry_remove(s, e, &dead);
            }
            at = bucket_after(at, s->table_n);
            if (at == 0)
                break;
        }
        count_add(&s->counts.invalidations, live);
        pthread_mutex_unlock(&s->lock);
        dead_free(dead);
        removed += live;
    } while (at != 0);
    return removed;
}

static uint64_t local_del_glob(struct cache *c, struct str pattern)
{
    struct local *l = local_of(c);
    const int64_t now_us = clock_mono(l->clock);
    uint64_t removed = 0;
    for (unsigned i = 0; i < l->n_shards; i++)
        removed += shard_del_glob(&l->shards[i], pattern, now_us);
    return removed;
}

/* A key on its way out of the lock; its bytes follow. */
struct found {
    int64_t ttl_us;
    size_t key_n;
};

/* Copies the live keys of up to SCAN_BUCKETS buckets that match. Returns where to go on, 0 at the end. */
static size_t shard_find(struct shard *s, size_t at, struct str pattern, int64_t now_us, struct buf *ret_found)
{
    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; s->table && i < SCAN_BUCKETS; i++) {
        for (const struct entry *e = s->table[at]; e; e = e->chain) {
            if (e->expires_us <= now_us || !str_glob(pattern, entry_key(e)))
                continue;
            const struct found f = {e->expires_us - now_us, e->key_n};
            if (!buf_reserve(ret_found, sizeof f + f.key_n))
                break;
            buf_put(ret_found, &f, sizeof f);
            buf_str(ret_found, entry_key(e));
        }
        at = bucket_after(at, s->table_n);
        if (at == 0)
            break;
    }
    pthread_mutex_unlock(&s->lock);
    return at;
}

/* false: the limit is reached or fn wants no more. */
static bool found_report(const struct buf *found, uint64_t *left, bool (*fn)(void *ctx, struct str key, int64_t ttl_us),
                         void *ctx)
{
    for (size_t at = 0; at < found->n;) {
        struct found f;
        memcpy(&f, found->p + at, sizeof f);
        at += sizeof f;
        if (*left == 0)
            return false;
        --*left;
        if (!fn(ctx, (struct str){found->p + at, f.key_n}, f.ttl_us))
            return false;
        at += f.key_n;
    }
    return *left > 0;
}

static enum pf_err local_keys(struct cache *c, struct str pattern, uint64_t limit,
                              bool (*fn)(void *ctx, struct str key, int64_t ttl_us), void *ctx)
{
    struct local *l = local_of(c);
    enum pf_err err = PFE_OK;
    bool more = limit > 0;
    struct buf found;
    buf_init(&found, 0);
    for (unsigned i = 0; more && i < l->n_shards; i++) {
        size_t at = 0;
        do {
            buf_clear(&found);
            at = shard_find(&l->shards[i], at, pattern, clock_mono(l->clock), &found);
            if (found.failed)
                err = PFE_NOMEM;
            more = !found.failed && found_report(&found, &limit, fn, ctx);
        } while (more && at != 0);
    }
    buf_free(&found);
    return err;
}

static void local_rate(struct cache *c, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                       struct cache_rate *ret)
{
    struct local *l = local_of(c);
    rate_table_count(l->rates, str_hash(key), limit, window_us, cost, clock_mono(l->clock), ret);
}

static unsigned local_stats(struct cache *c, struct cache_stats *out, unsigned cap)
{
    struct local *l = local_of(c);
    if (cap == 0)
        return 0;
    const int64_t now_us = clock_mono(l->clock);
    struct cache_stats st = {.tier = "local", .up = true, .max_entries = l->max_entries, .max_bytes = l->max_bytes};
    for (unsigned i = 0; i < l->n_shards; i++) {
        struct shard *s = &l->shards[i];
        if (pthread_mutex_trylock(&s->lock) == 0) {
            struct entry *dead = NULL;
            sweep(s, now_us, SWEEP_STATS, &dead);
            pthread_mutex_unlock(&s->lock);
            dead_free(dead);
        }
        st.hits += count_get(&s->counts.hits);
        st.misses += count_get(&s->counts.misses);
        st.puts += count_get(&s->counts.puts);
        st.evictions += count_get(&s->counts.evictions);
        st.expirations += count_get(&s->counts.expirations);
        st.invalidations += count_get(&s->counts.invalidations);
        st.refused_puts += count_get(&s->counts.refused_puts);
        st.entries += count_get(&s->counts.entries);
        st.bytes += count_get(&s->counts.bytes);
    }
    out[0] = st;
    return 1;
}

static void local_close(struct cache *c)
{
    struct local *l = local_of(c);
    for (unsigned i = 0; i < l->n_shards; i++) {
        struct shard *s = &l->shards[i];
        for (size_t at = 0; at < s->table_n; at++)
            dead_free(s->table[at]);
        free(s->table);
        pthread_mutex_destroy(&s->lock);
    }
    rate_table_free(l->rates);
    free(l);
}

static const struct cache_ops local_ops = {
    .close = local_close,
    .get = local_get,
    .put = local_put,
    .del = local_del,
    .del_glob = local_del_glob,
    .keys = local_keys,
    .rate = local_rate,
    .stats = local_stats,
};

struct cache *cache_local_new(const struct cache_local_options *o)
{
    assert(o->max_entries > 0 && o->max_bytes > 0);
    unsigned n = SHARDS_MAX;
    while (n > 1 && (o->max_entries / n < SHARD_ENTRIES_LEAST || o->max_bytes / n < SHARD_BYTES_LEAST))
        n /= 2;

    const size_t size = sizeof(struct local) + n * sizeof(struct shard);
    struct local *l = aligned_alloc(alignof(struct local), size);
    if (!l)
        return NULL;
    memset(l, 0, size);
    l->cache.ops = &local_ops;
    l->clock = o->clock;
    l->max_entries = o->max_entries;
    l->max_bytes = o->max_bytes;
    l->rates = rate_table_new(o->max_counters ? o->max_counters : COUNTERS_DEFAULT);
    if (!l->rates) {
        free(l);
        return NULL;
    }
    l->n_shards = n;
    for (unsigned i = 0; i < n; i++) {
        struct shard *s = &l->shards[i];
        pthread_mutex_init(&s->lock, NULL);
        s->max_entries = o->max_entries / n + (i < o->max_entries % n);
        s->max_bytes = o->max_bytes / n + (i < o->max_bytes % n);
        for (unsigned g = 0; g < GENS; g++)
            s->gens[g] = 1;
    }
    return &l->cache;
}
