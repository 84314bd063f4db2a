#include "base/map.h"

#include <assert.h>
#include <stdlib.h>

enum { CAP_MIN = 16 };

static const uint64_t EMPTY = UINT64_MAX;

/* The finalizer of MurmurHash3: neighbouring ids land far apart. */
static uint64_t mix(uint64_t k)
{
    k ^= k >> 33;
    k *= 0xff51afd7ed558ccdu;
    k ^= k >> 33;
    k *= 0xc4ceb9fe1a85ec53u;
    return k ^ k >> 33;
}

static bool needs_growth(size_t n, size_t cap)
{
    return n + 1 > cap / 4 * 3;
}

/* Twice cap, or 0 if bytes_each times that does not fit. */
static size_t next_cap(size_t cap, size_t bytes_each)
{
    size_t next = cap ? cap * 2 : CAP_MIN;

    return next > SIZE_MAX / 2 / bytes_each ? 0 : next;
}

void map_u64_init(struct map_u64 *m)
{
    *m = (struct map_u64){0};
}

void map_u64_free(struct map_u64 *m)
{
    free(m->keys); /* vals share the block */
    map_u64_init(m);
}

void map_u64_clear(struct map_u64 *m)
{
    if (m->n)
        memset(m->keys, 0xff, m->cap * sizeof *m->keys);
    m->n = 0;
}

/* Where k is, or the free slot where it belongs. The table must have memory. */
static size_t u64_slot(const struct map_u64 *m, uint64_t k)
{
    size_t mask = m->cap - 1, i = mix(k) & mask;

    while (m->keys[i] != EMPTY && m->keys[i] != k)
        i = (i + 1) & mask;
    return i;
}

bool map_u64_get(const struct map_u64 *m, uint64_t k, uint64_t *ret)
{
    size_t i;

    if (m->n == 0)
        return false;
    i = u64_slot(m, k);
    if (m->keys[i] == EMPTY)
        return false;
    *ret = m->vals[i];
    return true;
}

static bool u64_grow(struct map_u64 *m)
{
    struct map_u64 bigger = {.n = m->n, .cap = next_cap(m->cap, 2 * sizeof *m->keys)};

    if (bigger.cap == 0)
        return false;
    bigger.keys = malloc(bigger.cap * 2 * sizeof *bigger.keys);
    if (!bigger.keys)
        return false;
    bigger.vals = bigger.keys + bigger.cap;
    memset(bigger.keys, 0xff, bigger.cap * sizeof *bigger.keys);
    for (size_t i = 0; i < m->cap; i++) {
        if (m->keys[i] == EMPTY)
            continue;
        size_t to = u64_slot(&bigger, m->keys[i]);
        bigger.keys[to] = m->keys[i];
        bigger.vals[to] = m->vals[i];
    }
    free(m->keys);
    *m = bigger;
    return true;
}

bool map_u64_put(struct map_u64 *m, uint64_t k, uint64_t v)
{
    size_t i = 0;

    assert(k != EMPTY);
    if (m->cap) {
        i = u64_slot(m, k);
        if (m->keys[i] == k) {
            m->vals[i] = v;
            return true;
        }
    }
    if (needs_growth(m->n, m->cap)) {
        if (!u64_grow(m))
            return false;
        i = u64_slot(m, k);
    }
    m->keys[i] = k;
    m->vals[i] = v;
    m->n++;
    return true;
}

bool map_u64_del(struct map_u64 *m, uint64_t k)
{
    size_t mask = m->cap - 1, hole;

    if (m->n == 0)
        return false;
    hole = u64_slot(m, k);
    if (m->keys[hole] == EMPTY)
        return false;
    /* close the gap: whatever probed past it moves back, so that no tombstones are needed */
    for (size_t i = (hole + 1) & mask; m->keys[i] != EMPTY; i = (i + 1) & mask) {
        size_t home = mix(m->keys[i]) & mask;
        if (((i - home) & mask) < ((i - hole) & mask))
            continue;
        m->keys[hole] = m->keys[i];
        m->vals[hole] = m->vals[i];
        hole = i;
    }
    m->keys[hole] = EMPTY;
    m->n--;
    return true;
}

bool map_u64_next(const struct map_u64 *m, size_t *pos, uint64_t *k, uint64_t *v)
{
    for (; *pos < m->cap; ++*pos) {
        if (m->keys[*pos] == EMPTY)
            continue;
        *k = m->keys[*pos];
        *v = m->vals[*pos];
        ++*pos;
        return true;
    }
    return false;
}

struct map_str_slot {
    uint64_t hash;
    char *key;
    size_t key_n;
    void *val; /* NULL: free */
};

void map_str_init(struct map_str *m)
{
    *m = (struct map_str){0};
}

void map_str_free(struct map_str *m)
{
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].val)
            free(m->slots[i].key);
    free(m->slots);
    map_str_init(m);
}

static size_t str_slot(const struct map_str *m, struct str k, uint64_t hash)
{
    size_t mask = m->cap - 1, i = hash & mask;

    for (;; i = (i + 1) & mask) {
        const struct map_str_slot *s = &m->slots[i];
        if (!s->val || (s->hash == hash && str_eq((struct str){s->key, s->key_n}, k)))
            return i;
    }
}

void *map_str_get(const struct map_str *m, struct str k)
{
    return m->n ? m->slots[str_slot(m, k, str_hash(k))].val : NULL;
}

static bool str_grow(struct map_str *m)
{
    struct map_str bigger = {.n = m->n, .cap = next_cap(m->cap, sizeof *m->slots)};

    if (bigger.cap == 0)
        return false;
    bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots)
        return false;
    for (size_t i = 0; i < m->cap; i++) {
        const struct map_str_slot *s = &m->slots[i];
        if (s->val)
            bigger.slots[str_slot(&bigger, (struct str){s->key, s->key_n}, s->hash)] = *s;
    }
    free(m->slots);
    *m = bigger;
    return true;
}

bool map_str_put(struct map_str *m, struct str k, void *v)
{
    uint64_t hash = str_hash(k);
    char *key;

    assert(v);
    if (m->n) {
        struct map_str_slot *s = &m->slots[str_slot(m, k, hash)];
        if (s->val) {
            s->val = v;
            return true;
        }
    }
    if (needs_growth(m->n, m->cap) && !str_grow(m))
        return false;
    key = malloc(k.n ? k.n : 1);
    if (!key)
        return false;
    if (k.n)
        memcpy(key, k.p, k.n);
    m->slots[str_slot(m, k, hash)] = (struct map_str_slot){hash, key, k.n, v};
    m->n++;
    return true;
}

void *map_str_del(struct map_str *m, struct str k)
{
    size_t mask = m->cap - 1, hole;
    void *old;

    if (m->n == 0)
        return NULL;
    hole = str_slot(m, k, str_hash(k));
    old = m->slots[hole].val;
    if (!old)
        return NULL;
    free(m->slots[hole].key);
    for (size_t i = (hole + 1) & mask; m->slots[i].val; i = (i + 1) & mask) {
        size_t home = m->slots[i].hash & mask;
        if (((i - home) & mask) < ((i - hole) & mask))
            continue;
        m->slots[hole] = m->slots[i];
        hole = i;
    }
    m->slots[hole] = (struct map_str_slot){0};
    m->n--;
    return old;
}

bool map_str_next(const struct map_str *m, size_t *pos, struct str *k, void **v)
{
    for (; *pos < m->cap; ++*pos) {
        const struct map_str_slot *s = &m->slots[*pos];
        if (!s->val)
            continue;
        *k = (struct str){s->key, s->key_n};
        *v = s->val;
        ++*pos;
        return true;
    }
    return false;
}
