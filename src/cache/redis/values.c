/* Values as they stand in Redis, and what looks at all of them. */
#include "cache/redis/internal.h"

#include <stdlib.h>

#include "base/map.h"
#include "base/rand.h"
#include "codec/crypt.h"

enum {
    MAC_LEN = 16,
    SCAN_COUNT = 1000,
    /* Beyond this a walk gives up: about 2 s of Redis's time, in slices of 0.5 ms. */
    SCAN_SLICES_MAX = 4000,
    DROP_SLICE = 256,
};

void random_name(char out[RUN_LEN + 1])
{
    uint8_t raw[RUN_LEN / 2];
    rand_bytes(raw, sizeof raw);
    hex_encode(raw, sizeof raw, out);
}

/* Lengths first, so that no two (key, epoch, value) make the same text. */
static bool mac(const struct tiers *t, struct str key, const char *epoch, struct str value, uint8_t out[SHA256_LEN])
{
    struct buf b;
    buf_init(&b, 0);
    buf_putc(&b, (char)key.n);
    buf_str(&b, key);
    buf_put(&b, epoch, EPOCH_LEN);
    buf_str(&b, value);
    const bool ok = !b.failed;
    if (ok)
        hmac_sha256((struct str){(const char *)t->secret, sizeof t->secret}, buf_as_str(&b), out);
    buf_free(&b);
    return ok;
}

bool value_pack(const struct tiers *t, struct str key, const char *epoch, struct str value, struct buf *ret)
{
    uint8_t m[SHA256_LEN];
    if (!mac(t, key, epoch, value, m))
        return false;
    buf_putc(ret, 'V');
    buf_put(ret, epoch, EPOCH_LEN);
    buf_put(ret, m, MAC_LEN);
    buf_str(ret, value);
    return !ret->failed;
}

bool value_unpack(const struct tiers *t, struct str key, const char *epoch, struct str text, struct str *ret)
{
    uint8_t m[SHA256_LEN];
    if (text.n < VALUE_HEAD || text.p[0] != 'V' || memcmp(text.p + 1, epoch, EPOCH_LEN) != 0)
        return false;
    const struct str value = {text.p + VALUE_HEAD, text.n - VALUE_HEAD};
    if (!mac(t, key, epoch, value, m) || !crypt_equal(m, text.p + 1 + EPOCH_LEN, MAC_LEN))
        return false;
    *ret = value;
    return true;
}

/* ---- walks ---- */

/* The literal head of a pattern, as Redis's own MATCH: str_glob and it differ beyond that. */
static void match_of(struct str pattern, char out[2 * CACHE_KEY_MAX + 2])
{
    size_t n = 0;
    for (size_t i = 0; i < pattern.n && i < CACHE_KEY_MAX; i++) {
        if (strchr("*?[", pattern.p[i]))
            break;
        if (strchr("\\]^-", pattern.p[i]))
            out[n++] = '\\';
        out[n++] = pattern.p[i];
    }
    out[n++] = '*';
    out[n] = '\0';
}

static bool reserved(struct str key)
{
    return str_starts(key, STR("rate:")) || str_starts(key, STR("payflow:"));
}

struct walk {
    struct tiers *t;
    struct str pattern;
    /* Keys that match; true: go on. */
    bool (*fn)(struct walk *w, struct conn *c, const struct str *keys, unsigned n);
    void *ctx;
    uint64_t n;
};

static bool walk_slice(struct walk *w, struct conn *c, const redisReply *keys)
{
    struct str found[DROP_SLICE];
    unsigned n = 0;
    for (size_t i = 0; i < keys->elements; i++) {
        const redisReply *k = keys->element[i];
        const struct str key = {k->str, k->len};
        if (k->type != REDIS_REPLY_STRING || key.n > CACHE_KEY_MAX || reserved(key) || !str_glob(w->pattern, key))
            continue;
        found[n++] = key;
        if (n == DROP_SLICE) {
            if (!w->fn(w, c, found, n))
                return false;
            n = 0;
        }
    }
    return n == 0 || w->fn(w, c, found, n);
}

/* Every key that was there all the time, perhaps more than once. A connection is taken for each slice, so that a long
   walk does not keep one from others. false: not all of it. */
static bool walk(struct walk *w)
{
    char match[2 * CACHE_KEY_MAX + 2], cursor[32] = "0";
    match_of(w->pattern, match);
    for (unsigned i = 0; i < SCAN_SLICES_MAX; i++) {
        redisReply *r = NULL;
        struct conn *c = link_take(&w->t->link);
        if (!c)
            return false;
        conn_command(c, "SCAN %s MATCH %s COUNT %d TYPE string", cursor, match, SCAN_COUNT);
        bool ok = conn_exchange(c, 1, &r) && r->type == REDIS_REPLY_ARRAY && r->elements == 2 &&
                  r->element[0]->type == REDIS_REPLY_STRING && r->element[1]->type == REDIS_REPLY_ARRAY &&
                  str_copy(cursor, sizeof cursor, (struct str){r->element[0]->str, r->element[0]->len});
        if (ok)
            ok = walk_slice(w, c, r->element[1]);
        else
            c->broken = true;
        replies_free(&r, 1);
        link_give(&w->t->link, c);
        if (!ok)
            return false;
        if (strcmp(cursor, "0") == 0)
            return true;
    }
    return false;
}

static bool drop(struct walk *w, struct conn *c, const struct str *keys, unsigned n)
{
    redisReply *r;
    conn_script(&w->t->link, c, SCRIPT_DROP, n, keys, n);
    if (!conn_exchange(c, 1, &r))
        return false;
    const bool ok = r->type == REDIS_REPLY_INTEGER;
    if (ok && r->integer > 0)
        w->n += (uint64_t)r->integer;
    replies_free(&r, 1);
    return ok;
}

bool tiers_redis_del_glob(struct tiers *t, struct str pattern, uint64_t *ret_n)
{
    struct walk w = {.t = t, .pattern = pattern, .fn = drop};
    const bool all = walk(&w);
    *ret_n = w.n;
    return all;
}

struct listing {
    uint64_t left;
    struct map_u64 seen;
    bool (*fn)(void *ctx, struct str key, int64_t ttl_us);
    void *ctx;
    enum pf_err err;
    bool stopped;
};

static bool list_one(struct listing *l, struct str key, int64_t ttl_us)
{
    const uint64_t hash = str_hash(key) >> 1; /* any but UINT64_MAX */
    uint64_t seen;
    if (map_u64_get(&l->seen, hash, &seen))
        return true;
    if (!map_u64_put(&l->seen, hash, 1))
        l->err = PFE_NOMEM;
    if (l->err != PFE_OK || l->left == 0 || !l->fn(l->ctx, key, ttl_us))
        l->stopped = true;
    else
        l->left--;
    return !l->stopped && l->left > 0;
}

static bool list_local(void *ctx, struct str key, int64_t ttl_us)
{
    return list_one(ctx, key, ttl_us);
}

static bool list_slice(struct walk *w, struct conn *c, const struct str *keys, unsigned n)
{
    redisReply *r[1 + 2 * DROP_SLICE];
    bool more = true;
    conn_command(c, "GET " EPOCH_KEY);
    for (unsigned i = 0; i < n; i++) {
        conn_command(c, "GETRANGE %b 0 %d", keys[i].p, keys[i].n, EPOCH_LEN);
        conn_command(c, "PTTL %b", keys[i].p, keys[i].n);
    }
    if (!conn_exchange(c, 1 + 2 * n, r))
        return false;
    const bool epoch = r[0]->type == REDIS_REPLY_STRING && r[0]->len == EPOCH_LEN;
    for (unsigned i = 0; epoch && more && i < n; i++) {
        const redisReply *head = r[1 + 2 * i], *ttl = r[2 + 2 * i];
        if (head->type == REDIS_REPLY_STRING && head->len == 1 + EPOCH_LEN && head->str[0] == 'V' &&
            memcmp(head->str + 1, r[0]->str, EPOCH_LEN) == 0 && ttl->type == REDIS_REPLY_INTEGER && ttl->integer > 0)
            more = list_one(w->ctx, keys[i], ttl->integer * 1000);
    }
    replies_free(r, 1 + 2 * n);
    return more;
}

enum pf_err tiers_keys(struct cache *c, struct str pattern, uint64_t limit,
                       bool (*fn)(void *ctx, struct str key, int64_t ttl_us), void *ctx)
{
    struct tiers *t = (struct tiers *)c;
    struct listing l = {.left = limit, .fn = fn, .ctx = ctx};
    struct walk w = {.t = t, .pattern = pattern, .fn = list_slice, .ctx = &l};
    map_u64_init(&l.seen);
    /* Redis first: its lifetimes are the whole ones. What it does not have is local. */
    if (limit > 0)
        (void)walk(&w);
    if (l.err == PFE_OK && !l.stopped && l.left > 0) {
        enum pf_err e = cache_keys(t->local, pattern, UINT64_MAX, list_local, &l);
        if (l.err == PFE_OK)
            l.err = e;
    }
    map_u64_free(&l.seen);
    return l.err;
}
