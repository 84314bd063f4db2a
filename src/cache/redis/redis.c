#include "cache/redis/redis.h"

#include <stdio.h>
#include <stdlib.h>

#include "cache/redis/internal.h"

enum {
    FLIGHT_WAIT_US = 100 * 1000,
    LEASE_MS = 10 * 1000,    /* a reader that takes longer fills nothing */
    TELLING_US = 500 * 1000, /* a server that takes longer for one change is as good as none */
};

static int64_t now_us(void)
{
    return clock_mono(clock_system());
}

static struct tiers *tiers_of(struct cache *c)
{
    return (struct tiers *)c;
}

static void count(_Atomic uint64_t *v, uint64_t n)
{
    atomic_fetch_add_explicit(v, n, memory_order_relaxed);
}

static uint64_t count_get(const _Atomic uint64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

static int64_t local_lifetime(int64_t ttl_us)
{
    return ttl_us < LOCAL_LIFETIME_US ? ttl_us : LOCAL_LIFETIME_US;
}

/* ---- reading ---- */

static bool tiers_get(struct cache *c, struct str key, void *out, size_t cap, size_t *ret_n, uint64_t *ret_token)
{
    return cache_get(tiers_of(c)->local, key, out, cap, ret_n, ret_token);
}

enum found { FOUND, LEASED, NOTHING };

/* What stands in Redis under a key, if it is of the server's epoch: a value goes to out, a lease to ret_lease. */
static enum found judge(const struct tiers *t, const struct conn *c, struct str key, const char *epoch, struct str text,
                        struct buf *out, char *ret_lease)
{
    struct str value;
    if (memcmp(epoch, c->run, RUN_LEN) != 0)
        return NOTHING;
    if (value_unpack(t, key, epoch, text, &value)) {
        buf_str(out, value);
        return out->failed ? NOTHING : FOUND;
    }
    if (text.n != LEASE_LEN || text.p[0] != 'L' || memcmp(text.p + 1, epoch, EPOCH_LEN) != 0)
        return NOTHING;
    memcpy(ret_lease, text.p, LEASE_LEN);
    return LEASED;
}

static enum found look(struct tiers *t, struct conn *c, struct str key, struct buf *out, char *ret_lease)
{
    redisReply *r;
    enum found f = NOTHING;
    conn_command(c, "MGET %b " EPOCH_KEY, key.p, key.n);
    if (!conn_exchange(c, 1, &r))
        return NOTHING;
    if (r->type == REDIS_REPLY_ARRAY && r->elements == 2 && r->element[0]->type == REDIS_REPLY_STRING &&
        r->element[1]->type == REDIS_REPLY_STRING && r->element[1]->len == EPOCH_LEN)
        f = judge(t, c, key, r->element[1]->str, (struct str){r->element[0]->str, r->element[0]->len}, out, ret_lease);
    replies_free(&r, 1);
    return f;
}

static enum found look_or_lease(struct tiers *t, struct conn *c, struct str key, struct buf *out, char *ret_lease)
{
    char name[RUN_LEN + 1], epoch[EPOCH_LEN + 1], ms[STR_U64_MAX];
    redisReply *r;
    enum found f = look(t, c, key, out, ret_lease);
    if (f != NOTHING || c->broken)
        return f;
    random_name(name);
    memcpy(epoch, c->run, RUN_LEN);
    random_name(epoch + RUN_LEN);
    const struct str args[] = {
        key, STR(EPOCH_KEY), {name, RUN_LEN}, {epoch, EPOCH_LEN}, {ms, str_from_u64(LEASE_MS, ms)}};
    conn_script(&t->link, c, SCRIPT_LEASE, 2, args, 5);
    if (!conn_exchange(c, 1, &r))
        return NOTHING;
    if (r->type == REDIS_REPLY_STRING && r->len > EPOCH_LEN)
        f = judge(t, c, key, r->str + 1, (struct str){r->str, r->len}, out, ret_lease);
    replies_free(&r, 1);
    return f;
}

/* The first thread that misses a key: asks Redis, and leaves with the value or with the duty to fill. */
static bool lead(struct tiers *t, struct str key, uint64_t flight, void *out, size_t cap, size_t *ret_n)
{
    char lease[LEASE_LEN];
    uint64_t local_token = 0;
    enum found f = NOTHING;
    struct buf value;
    /* again, and for a token from before Redis is asked: another flight may just have landed */
    if (cache_get(t->local, key, out, cap, ret_n, &local_token)) {
        flight_end(&t->flights, flight, true);
        return true;
    }
    buf_init(&value, CACHE_VALUE_MAX);
    struct conn *c = key.n <= CACHE_KEY_MAX ? link_take(&t->link) : NULL;
    if (c) {
        f = look_or_lease(t, c, key, &value, lease);
        link_give(&t->link, c);
    }
    const bool hit = f == FOUND && value.n <= cap;
    count(hit ? &t->counts.hits : &t->counts.misses, 1);
    if (hit) {
        if (value.n)
            memcpy(out, value.p, value.n);
        *ret_n = value.n;
        cache_put(t->local, key, buf_as_str(&value), LOCAL_LIFETIME_US, local_token);
        flight_end(&t->flights, flight, true);
    } else {
        flight_set(&t->flights, flight, local_token, f == LEASED ? lease : NULL);
    }
    buf_free(&value);
    return hit;
}

static bool tiers_fetch(struct cache *c, struct str key, void *out, size_t cap, size_t *ret_n, uint64_t *ret_token)
{
    struct tiers *t = tiers_of(c);
    const int64_t deadline = now_us() + FLIGHT_WAIT_US;
    for (;;) {
        uint64_t flight;
        if (cache_get(t->local, key, out, cap, ret_n, ret_token))
            return true;
        switch (flight_join(&t->flights, str_hash(key), deadline, &flight)) {
        case FLIGHT_ALONE:
            return false;
        case FLIGHT_LEAD:
            *ret_token = flight;
            return lead(t, key, flight, out, cap, ret_n);
        case FLIGHT_AGAIN:
            if (now_us() >= deadline)
                return false;
        }
    }
}

/* ---- filling ---- */

enum stored { STORED, REFUSED, FAILED };

static enum stored fill_redis(struct tiers *t, struct str key, struct str value, int64_t ttl_us, const char *lease)
{
    char ms[STR_U64_MAX];
    enum stored s = FAILED;
    struct buf packed;
    redisReply *r;
    struct conn *c = link_take(&t->link);
    if (!c)
        return FAILED;
    buf_init(&packed, 0);
    if (value_pack(t, key, lease + 1, value, &packed)) {
        const struct str args[] = {
            key, {lease, LEASE_LEN}, buf_as_str(&packed), {ms, str_from_u64((uint64_t)(ttl_us + 999) / 1000, ms)}};
        conn_script(&t->link, c, SCRIPT_PUT, 1, args, 4);
        if (conn_exchange(c, 1, &r)) {
            if (r->type == REDIS_REPLY_INTEGER)
                s = r->integer == 1 ? STORED : REFUSED;
            replies_free(&r, 1);
        }
    }
    buf_free(&packed);
    link_give(&t->link, c);
    return s;
}

static void tiers_put(struct cache *c, struct str key, struct str value, int64_t ttl_us, uint64_t token)
{
    struct tiers *t = tiers_of(c);
    struct flight f;
    if (!(token & FLIGHT_TOKEN)) {
        count(&t->counts.misses, 1); /* this look-up did not get as far as Redis */
        cache_put(t->local, key, value, local_lifetime(ttl_us), token);
        return;
    }
    enum stored s = REFUSED;
    if (flight_read(&t->flights, token, &f) && f.hash == str_hash(key) && value.n <= CACHE_VALUE_MAX && ttl_us > 0)
        s = f.leased ? fill_redis(t, key, value, ttl_us, f.lease) : FAILED;
    if (s != REFUSED)
        cache_put(t->local, key, value, local_lifetime(ttl_us), f.local_token);
    count(s == STORED ? &t->counts.puts : &t->counts.refused_puts, 1);
    flight_end(&t->flights, token, true);
}

static void tiers_forgo(struct cache *c, uint64_t token)
{
    if (token & FLIGHT_TOKEN)
        flight_end(&tiers_of(c)->flights, token, false);
}

/* ---- invalidating ---- */

/* Up to MESSAGE_KEYS keys: removed from Redis, and the others told. *ret_there: the first had a value. */
static bool del_redis(struct tiers *t, const struct str *keys, size_t n, bool *ret_there, char ret_run[RUN_LEN + 1])
{
    const char *argv[1 + MESSAGE_KEYS];
    size_t lens[1 + MESSAGE_KEYS];
    unsigned at = 0;
    redisReply *r[3] = {0};
    struct buf message;
    bool ok = false;
    struct conn *c = link_take(&t->link);
    if (!c)
        return false;
    buf_init(&message, 0);
    buf_put(&message, t->id, RUN_LEN);
    buf_putc(&message, 'k');
    argv[at] = "DEL", lens[at++] = 3;
    for (size_t i = 0; i < n; i++) {
        argv[at] = keys[i].p, lens[at++] = keys[i].n;
        buf_putc(&message, (char)keys[i].n);
        buf_str(&message, keys[i]);
    }
    if (!message.failed) {
        conn_command(c, "GETRANGE %b 0 0", keys[0].p, keys[0].n);
        conn_argv(c, at, argv, lens);
        conn_command(c, "PUBLISH %s %b", t->channel, message.p, message.n);
        ok = conn_exchange(c, 3, r) && r[1]->type == REDIS_REPLY_INTEGER && r[2]->type == REDIS_REPLY_INTEGER;
        *ret_there = ok && r[0]->type == REDIS_REPLY_STRING && r[0]->len == 1 && r[0]->str[0] == 'V';
        if (ok && r[1]->integer > 0)
            count(&t->counts.invalidations, (uint64_t)r[1]->integer);
    }
    memcpy(ret_run, c->run, RUN_LEN + 1);
    replies_free(r, 3);
    buf_free(&message);
    link_give(&t->link, c);
    return ok;
}

static void missed(struct tiers *t, const char *why)
{
    link_missed(&t->link, why);
    accord_hurry(t);
}

static bool tiers_del_many(struct cache *c, const struct str *keys, size_t n)
{
    struct tiers *t = tiers_of(c);
    char run[RUN_LEN + 1] = "";
    const int64_t until = now_us() + TELLING_US;
    bool there;
    for (size_t i = 0; i < n; i += MESSAGE_KEYS) {
        char through[RUN_LEN + 1];
        const bool told =
            now_us() < until && del_redis(t, keys + i, n - i < MESSAGE_KEYS ? n - i : MESSAGE_KEYS, &there, through);
        if (!told || (i > 0 && strcmp(run, through) != 0)) {
            missed(t, "an invalidation was not confirmed");
            run[0] = '\0';
            break;
        }
        memcpy(run, through, sizeof run);
    }
    /* after Redis: what another thread read there before finds its token stale */
    for (size_t i = 0; i < n; i++)
        cache_del(t->local, keys[i]);
    return accord_settle(t, run);
}

static bool tiers_del(struct cache *c, struct str key)
{
    struct tiers *t = tiers_of(c);
    char run[RUN_LEN + 1];
    bool there = false;
    if (key.n > CACHE_KEY_MAX)
        return false;
    if (!del_redis(t, &key, 1, &there, run))
        missed(t, "an invalidation was not confirmed");
    return cache_del(t->local, key) || there;
}

static bool publish_glob(struct tiers *t, struct str pattern)
{
    redisReply *r;
    struct conn *c = link_take(&t->link);
    if (!c)
        return false;
    struct buf m;
    buf_init(&m, 0);
    buf_put(&m, t->id, RUN_LEN);
    buf_putc(&m, 'g');
    buf_str(&m, pattern);
    bool ok = !m.failed;
    if (ok)
        conn_command(c, "PUBLISH %s %b", t->channel, m.p, m.n);
    ok = ok && conn_exchange(c, 1, &r);
    if (ok) {
        ok = r->type == REDIS_REPLY_INTEGER;
        replies_free(&r, 1);
    }
    buf_free(&m);
    link_give(&t->link, c);
    return ok;
}

static uint64_t tiers_del_glob(struct cache *c, struct str pattern)
{
    struct tiers *t = tiers_of(c);
    uint64_t shared = 0;
    if (!tiers_redis_del_glob(t, pattern, &shared) || !publish_glob(t, pattern))
        missed(t, "an invalidation by pattern was not confirmed");
    count(&t->counts.invalidations, shared);
    const uint64_t local = cache_del_glob(t->local, pattern);
    return local > shared ? local : shared; /* most are in both */
}

/* ---- the rest ---- */

static void rate(struct tiers *t, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                 struct cache_rate *ret, bool exact)
{
    struct link *l = &t->link;
    cache_rate(t->local, key, limit, window_us, cost, ret);
    if (!ret->allowed || !link_up(l))
        return;
    if (exact) {
        rates_count_exact(t->rates, l, key, limit, window_us, cost, ret);
    } else if (rates_count(t->rates, key, limit, window_us, cost, ret)) {
        pthread_mutex_lock(&l->lock);
        l->rates_wait = true;
        pthread_cond_signal(&l->wanted);
        pthread_mutex_unlock(&l->lock);
    }
}

static void tiers_rate(struct cache *c, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                       struct cache_rate *ret)
{
    rate(tiers_of(c), key, limit, window_us, cost, ret, false);
}

static void tiers_rate_exact(struct cache *c, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                             struct cache_rate *ret)
{
    rate(tiers_of(c), key, limit, window_us, cost, ret, true);
}

static unsigned tiers_stats(struct cache *c, struct cache_stats *out, unsigned cap)
{
    struct tiers *t = tiers_of(c);
    unsigned n = cache_stats(t->local, out, cap);
    if (n >= cap)
        return n;
    struct breaker_figures f;
    breaker_read(t->link.breaker, clock_mono(clock_system()), &f);
    out[n] = (struct cache_stats){
        .tier = "redis",
        .up = link_up(&t->link) && accord_sound(t),
        .hits = count_get(&t->counts.hits),
        .misses = count_get(&t->counts.misses),
        .puts = count_get(&t->counts.puts),
        .refused_puts = count_get(&t->counts.refused_puts),
        .invalidations = count_get(&t->counts.invalidations),
        .evictions = count_get(&t->evictions),
        .expirations = count_get(&t->expirations),
        .entries = count_get(&t->entries),
        .bytes = count_get(&t->bytes),
        .max_bytes = count_get(&t->max_bytes),
        .breaker = {.state = breaker_state_name(f.state),
                    .permitted = f.total_permitted,
                    .rejected = f.total_rejected,
                    .successes = f.total_successes,
                    .failures = f.total_failures,
                    .consecutive_failures = f.consecutive_failures},
    };
    return n + 1;
}

static void tiers_watch(struct cache *c, void (*fn)(void *ctx, struct str pattern), void *ctx)
{
    struct tiers *t = tiers_of(c);
    pthread_mutex_lock(&t->watch_lock);
    t->watch = fn;
    t->watch_ctx = ctx;
    pthread_mutex_unlock(&t->watch_lock);
}

static bool tiers_sound(struct cache *c)
{
    struct tiers *t = tiers_of(c);
    return link_up(&t->link) && accord_sound(t);
}

static int64_t tiers_heard(struct cache *c)
{
    return atomic_load_explicit(&tiers_of(c)->ears.heard_us, memory_order_acquire);
}

static void tiers_free(struct tiers *t)
{
    accord_fini(t);
    ears_fini(&t->ears);
    link_fini(&t->link);
    flights_fini(&t->flights);
    rates_free(t->rates);
    pthread_mutex_destroy(&t->watch_lock);
    explicit_bzero(t->secret, sizeof t->secret);
    free(t);
}

static void tiers_close(struct cache *c)
{
    struct tiers *t = tiers_of(c);
    accord_stop(t);
    keeper_stop(t);
    cache_close(t->local);
    tiers_free(t);
}

static const struct cache_ops tiers_ops = {
    .close = tiers_close,
    .sound = tiers_sound,
    .confirm = tiers_confirm,
    .heard = tiers_heard,
    .get = tiers_get,
    .fetch = tiers_fetch,
    .put = tiers_put,
    .forgo = tiers_forgo,
    .del = tiers_del,
    .del_many = tiers_del_many,
    .del_glob = tiers_del_glob,
    .keys = tiers_keys,
    .rate = tiers_rate,
    .rate_exact = tiers_rate_exact,
    .stats = tiers_stats,
    .watch = tiers_watch,
    .lock = tiers_lock,
    .unlock = tiers_unlock,
};

struct cache *cache_redis_new(const struct cache_redis_options *o)
{
    struct tiers *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->cache.ops = &tiers_ops;
    t->local = o->local;
    memcpy(t->secret, o->secret, sizeof t->secret);
    random_name(t->id);
    snprintf(t->channel, sizeof t->channel, "payflow:%d:invalidated", o->db);
    pthread_mutex_init(&t->watch_lock, NULL);
    flights_init(&t->flights);
    ears_init(&t->ears);
    t->rates = rates_new();
    accord_init(t, o);
    const bool kept = link_init(&t->link, o) && t->rates && keeper_start(t);
    if (!kept || !accord_start(t)) {
        if (kept)
            keeper_stop(t);
        tiers_free(t);
        return NULL;
    }
    return &t->cache;
}
