#include "cache/local/rate.h"

#include <assert.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdlib.h>

enum {
    RATE_SHARDS_MAX = 16,
    /* Below this many counters a shard would fill up by bad luck long before the table does. */
    RATE_SHARD_LEAST = 128,
};

/* Links are indices into the shard's slots; slot 0 is the sentinel of the list by age and the end of chains. */
struct counter {
    uint64_t hash;
    int64_t end_us;
    int64_t count;
    uint32_t chain;
    uint32_t older, newer;
};

struct rate_shard {
    alignas(64) pthread_mutex_t lock;
    struct counter *slots;
    uint32_t *heads;
    uint32_t n, max, mask;
};

struct rate_table {
    struct counter *slots;
    uint32_t *heads;
    unsigned n_shards;
    struct rate_shard shards[];
};

struct rate_table *rate_table_new(uint64_t max_counters)
{
    unsigned n_shards = RATE_SHARDS_MAX;
    while (n_shards > 1 && max_counters / n_shards < RATE_SHARD_LEAST)
        n_shards /= 2;

    const uint64_t shard_max = max_counters / n_shards + (max_counters % n_shards != 0);
    if (shard_max > UINT32_MAX / 4)
        return NULL;
    size_t n_heads = 1;
    while (n_heads < shard_max)
        n_heads *= 2;

    const size_t size = sizeof(struct rate_table) + n_shards * sizeof(struct rate_shard);
    struct rate_table *t = aligned_alloc(alignof(struct rate_table), size);
    if (!t)
        return NULL;
    memset(t, 0, size);
    t->slots = calloc(max_counters + n_shards, sizeof *t->slots);
    t->heads = calloc(n_heads * n_shards, sizeof *t->heads);
    if (!t->slots || !t->heads) {
        rate_table_free(t);
        return NULL;
    }
    t->n_shards = n_shards;

    struct counter *next = t->slots;
    for (unsigned i = 0; i < n_shards; i++) {
        struct rate_shard *s = &t->shards[i];
        pthread_mutex_init(&s->lock, NULL);
        s->max = (uint32_t)(max_counters / n_shards + (i < max_counters % n_shards));
        s->mask = (uint32_t)(n_heads - 1);
        s->slots = next;
        s->heads = t->heads + i * n_heads;
        next += s->max + 1;
    }
    return t;
}

void rate_table_free(struct rate_table *t)
{
    if (!t)
        return;
    for (unsigned i = 0; i < t->n_shards; i++)
        pthread_mutex_destroy(&t->shards[i].lock);
    free(t->slots);
    free(t->heads);
    free(t);
}

static void age_unlink(struct rate_shard *s, uint32_t at)
{
    const struct counter *c = &s->slots[at];
    s->slots[c->older].newer = c->newer;
    s->slots[c->newer].older = c->older;
}

static void age_append(struct rate_shard *s, uint32_t at)
{
    const uint32_t newest = s->slots[0].older;
    s->slots[at].older = newest;
    s->slots[at].newer = 0;
    s->slots[newest].newer = at;
    s->slots[0].older = at;
}

static uint32_t counter_find(const struct rate_shard *s, uint64_t hash)
{
    uint32_t at = s->heads[hash & s->mask];
    while (at && s->slots[at].hash != hash)
        at = s->slots[at].chain;
    return at;
}

static void chain_unlink(struct rate_shard *s, uint32_t at)
{
    uint32_t *link = &s->heads[s->slots[at].hash & s->mask];
    while (*link != at)
        link = &s->slots[*link].chain;
    *link = s->slots[at].chain;
}

/* The oldest slot is used again once its window is over, before a fresh one: the table stays as small as its use. */
static uint32_t counter_take(struct rate_shard *s, uint64_t hash, int64_t now_us)
{
    uint32_t at = s->slots[0].newer;
    if (s->n < s->max && (at == 0 || s->slots[at].end_us > now_us)) {
        at = ++s->n;
    } else {
        chain_unlink(s, at);
        age_unlink(s, at);
    }
    uint32_t *head = &s->heads[hash & s->mask];
    s->slots[at].hash = hash;
    s->slots[at].chain = *head;
    *head = at;
    return at;
}

/* The key's running window; with none, one is started if there is something to count. 0: none. */
static uint32_t counter_open(struct rate_shard *s, uint64_t hash, int64_t window_us, int64_t cost, int64_t now_us)
{
    uint32_t at = counter_find(s, hash);
    if (at && s->slots[at].end_us > now_us)
        return at;
    if (cost == 0)
        return 0;
    if (at)
        age_unlink(s, at);
    else
        at = counter_take(s, hash, now_us);
    age_append(s, at);
    s->slots[at].count = 0;
    s->slots[at].end_us = window_us > INT64_MAX - now_us ? INT64_MAX : now_us + window_us;
    return at;
}

void rate_table_count(struct rate_table *t, uint64_t hash, int64_t limit, int64_t window_us, int64_t cost,
                      int64_t now_us, struct cache_rate *ret)
{
    assert(cost >= 0);
    /* The top bits choose the shard, the low bits the chain. */
    struct rate_shard *s = &t->shards[(hash >> 56) & (t->n_shards - 1)];
    int64_t count = 0, end_us = now_us;

    pthread_mutex_lock(&s->lock);
    const uint32_t at = counter_open(s, hash, window_us, cost, now_us);
    if (at) {
        struct counter *c = &s->slots[at];
        c->count = cost > INT64_MAX - c->count ? INT64_MAX : c->count + cost;
        count = c->count;
        end_us = c->end_us;
    }
    pthread_mutex_unlock(&s->lock);

    ret->allowed = cost > 0 ? count <= limit : count < limit;
    ret->remaining = count < limit ? limit - count : 0;
    ret->reset_us = end_us - now_us;
}
