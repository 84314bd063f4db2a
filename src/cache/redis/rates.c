/* Rate windows that all instances count in: kept here as far as known, exchanged with Redis in batches. */
#include "cache/redis/internal.h"

#include <stdlib.h>

enum {
    RATE_SHARDS = 16,
    RATE_SETS = 256, /* of a shard; 32768 windows in all, at about 200 bytes once they are used */
    RATE_WAYS = 8,
    RATE_QUEUE = 8192,
    RATE_SLICE = 128,
};

struct window {
    uint64_t hash;
    int64_t end_us; /* 0: free */
    int64_t window_us;
    int64_t mine;   /* counted here */
    int64_t sent;   /* of those, in Redis */
    int64_t others; /* counted elsewhere, as of the last exchange */
    bool queued;
    uint8_t key_n;
    char key[CACHE_KEY_MAX];
};

struct rate_shard {
    pthread_mutex_t lock;
    struct window at[RATE_SETS][RATE_WAYS];
};

struct rates {
    pthread_mutex_t lock; /* of the queue; taken inside a shard's */
    unsigned first, n;
    struct window *queue[RATE_QUEUE];
    struct rate_shard shards[RATE_SHARDS];
};

/* What is sent of a window, and found again by when the answer comes. */
struct portion {
    uint64_t hash;
    int64_t cost, window_us;
    size_t key_n;
    char key[5 + CACHE_KEY_MAX]; /* "rate:" */
};

static int64_t now_us(void)
{
    return clock_mono(clock_system());
}

struct rates *rates_new(void)
{
    struct rates *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    pthread_mutex_init(&r->lock, NULL);
    for (unsigned i = 0; i < RATE_SHARDS; i++)
        pthread_mutex_init(&r->shards[i].lock, NULL);
    return r;
}

void rates_free(struct rates *r)
{
    if (!r)
        return;
    for (unsigned i = 0; i < RATE_SHARDS; i++)
        pthread_mutex_destroy(&r->shards[i].lock);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static struct rate_shard *shard_of(struct rates *r, uint64_t hash)
{
    return &r->shards[hash >> 60];
}

static struct window *window_find(struct rate_shard *s, uint64_t hash)
{
    struct window *set = s->at[hash % RATE_SETS];
    for (unsigned i = 0; i < RATE_WAYS; i++)
        if (set[i].end_us && set[i].hash == hash)
            return &set[i];
    return NULL;
}

/* The key's running window, or a new one in the place of the one that ends first. Redis still knows that one's count,
   and the local tier its own. NULL: all places wait to be sent. */
static struct window *window_open(struct rate_shard *s, uint64_t hash, struct str key, int64_t window_us)
{
    const int64_t now = now_us();
    struct window *w = window_find(s, hash), *set = s->at[hash % RATE_SETS];
    if (w && w->end_us > now)
        return w;
    for (unsigned i = 0; !w && i < RATE_WAYS; i++)
        if (!set[i].queued)
            w = &set[i];
    for (unsigned i = 0; w && w->hash != hash && i < RATE_WAYS; i++)
        if (!set[i].queued && set[i].end_us < w->end_us)
            w = &set[i];
    if (!w)
        return NULL;
    const bool queued = w->queued;
    *w = (struct window){.hash = hash,
                         .end_us = window_us > INT64_MAX - now ? INT64_MAX : now + window_us,
                         .window_us = window_us,
                         .queued = queued,
                         .key_n = (uint8_t)key.n};
    memcpy(w->key, key.p, key.n);
    return w;
}

static void judge(const struct window *w, int64_t limit, int64_t cost, struct cache_rate *ret)
{
    const int64_t count = w->others > INT64_MAX - w->mine ? INT64_MAX : w->mine + w->others;
    const int64_t left = count < limit ? limit - count : 0;
    if (left < ret->remaining) {
        ret->remaining = left;
        ret->reset_us = w->end_us - now_us();
    }
    if (cost > 0 ? count > limit : count >= limit) {
        ret->allowed = false;
        ret->reset_us = w->end_us - now_us();
    }
    if (ret->reset_us < 0)
        ret->reset_us = 0;
}

static bool enqueue(struct rates *r, struct window *w)
{
    bool first = false;
    pthread_mutex_lock(&r->lock);
    if (r->n < RATE_QUEUE) {
        first = r->n == 0;
        r->queue[(r->first + r->n++) % RATE_QUEUE] = w;
        w->queued = true;
    }
    pthread_mutex_unlock(&r->lock);
    return first;
}

static int64_t add(int64_t a, int64_t b)
{
    return b > INT64_MAX / 2 - a ? INT64_MAX / 2 : a + b;
}

bool rates_count(struct rates *r, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                 struct cache_rate *ret)
{
    const uint64_t hash = str_hash(key);
    struct rate_shard *s = shard_of(r, hash);
    bool first = false;
    if (key.n > CACHE_KEY_MAX)
        return false;
    pthread_mutex_lock(&s->lock);
    struct window *w = window_open(s, hash, key, window_us);
    if (w) {
        /* once the limit is passed nothing more needs to be known elsewhere */
        const bool news = w->sent + w->others <= limit;
        w->mine = add(w->mine, cost);
        judge(w, limit, cost, ret);
        if (news && !w->queued && w->mine > w->sent)
            first = enqueue(r, w);
    }
    pthread_mutex_unlock(&s->lock);
    return first;
}

/* With the shard's lock held: what of w Redis has not seen counts as sent from now on. */
static void portion_take(struct window *w, struct portion *ret)
{
    *ret =
        (struct portion){.hash = w->hash, .cost = w->mine - w->sent, .window_us = w->window_us, .key_n = 5u + w->key_n};
    memcpy(ret->key, "rate:", 5);
    memcpy(ret->key + 5, w->key, w->key_n);
    w->sent = w->mine;
}

static void portion_send(struct link *l, struct conn *c, const struct portion *p)
{
    char cost[STR_U64_MAX], ms[STR_U64_MAX];
    const int64_t window_ms = (p->window_us + 999) / 1000;
    const struct str args[] = {
        {p->key, p->key_n}, {cost, str_from_u64((uint64_t)p->cost, cost)}, {ms, str_from_u64((uint64_t)window_ms, ms)}};
    conn_script(l, c, SCRIPT_RATE, 1, args, 3);
}

/* What Redis says about a window after p was added to it. false: nothing that makes sense. */
static bool portion_answered(struct window *w, const struct portion *p, const redisReply *a)
{
    if (!a || a->type != REDIS_REPLY_ARRAY || a->elements != 2 || a->element[0]->type != REDIS_REPLY_INTEGER ||
        a->element[1]->type != REDIS_REPLY_INTEGER)
        return false;
    const int64_t total = a->element[0]->integer, ms = a->element[1]->integer;
    if (total < w->sent) { /* its window is a newer one: what was sent before this does not count there */
        w->mine -= w->sent - p->cost;
        w->sent = p->cost;
    }
    w->others = total > w->sent ? total - w->sent : 0;
    if (ms >= 0 && ms <= w->window_us / 1000 + 1)
        w->end_us = now_us() + ms * 1000;
    return true;
}

static void portion_done(struct rates *r, const struct portion *p, const redisReply *a)
{
    struct rate_shard *s = shard_of(r, p->hash);
    pthread_mutex_lock(&s->lock);
    struct window *w = window_find(s, p->hash);
    if (w && w->sent >= p->cost && !portion_answered(w, p, a))
        w->sent -= p->cost;
    pthread_mutex_unlock(&s->lock);
}

/* Redis itself has said that the limit is passed: until the window ends there is nothing more to ask. */
static bool passed(struct rate_shard *s, uint64_t hash, int64_t limit)
{
    pthread_mutex_lock(&s->lock);
    const struct window *w = window_find(s, hash);
    const bool yes = w && w->end_us > now_us() && w->sent + w->others > limit;
    pthread_mutex_unlock(&s->lock);
    return yes;
}

void rates_count_exact(struct rates *r, struct link *l, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                       struct cache_rate *ret)
{
    const uint64_t hash = str_hash(key);
    struct rate_shard *s = shard_of(r, hash);
    struct conn *c = key.n <= CACHE_KEY_MAX && !passed(s, hash, limit) ? link_take(l) : NULL;
    struct portion p;
    if (!c) {
        (void)rates_count(r, key, limit, window_us, cost, ret);
        return;
    }
    pthread_mutex_lock(&s->lock);
    struct window *w = window_open(s, hash, key, window_us);
    if (w) {
        w->mine = add(w->mine, cost);
        portion_take(w, &p);
    }
    pthread_mutex_unlock(&s->lock);
    if (w) {
        redisReply *a;
        portion_send(l, c, &p);
        (void)conn_exchange(c, 1, &a);
        portion_done(r, &p, a);
        replies_free(&a, 1);
        pthread_mutex_lock(&s->lock);
        w = window_find(s, hash);
        if (w)
            judge(w, limit, cost, ret);
        pthread_mutex_unlock(&s->lock);
    }
    link_give(l, c);
}

static unsigned take_slice(struct rates *r, struct portion *out)
{
    struct window *waiting[RATE_SLICE];
    unsigned n = 0;
    pthread_mutex_lock(&r->lock);
    for (; n < RATE_SLICE && r->n; n++, r->n--) {
        waiting[n] = r->queue[r->first];
        r->first = (r->first + 1) % RATE_QUEUE;
    }
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < n; i++) {
        /* a window that is queued keeps its place, so its shard is where it is */
        struct rate_shard *s = &r->shards[((size_t)((char *)waiting[i] - (char *)r->shards)) / sizeof *s];
        pthread_mutex_lock(&s->lock);
        portion_take(waiting[i], &out[i]);
        waiting[i]->queued = false;
        pthread_mutex_unlock(&s->lock);
    }
    return n;
}

void rates_send(struct rates *r, struct link *l)
{
    struct portion p[RATE_SLICE];
    redisReply *a[RATE_SLICE];
    for (unsigned n; (n = take_slice(r, p)) > 0;) {
        struct conn *c = link_take(l);
        memset(a, 0, sizeof a);
        for (unsigned i = 0; c && i < n; i++)
            portion_send(l, c, &p[i]);
        if (c)
            (void)conn_exchange(c, n, a);
        for (unsigned i = 0; i < n; i++)
            portion_done(r, &p[i], a[i]);
        replies_free(a, n);
        if (c)
            link_give(l, c);
    }
}
