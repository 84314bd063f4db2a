#include "app/internal.h"

#include <stdlib.h>

#include "base/map.h"
#include "codec/crypt.h"

/* Keys in use right now, in shards so that I/O threads rarely meet. */
enum { SHARDS = 16 };

struct inflight {
    struct {
        pthread_mutex_t lock;
        struct map_str keys;
    } shard[SHARDS];
};

struct inflight *inflight_new(void)
{
    struct inflight *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    for (unsigned i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&f->shard[i].lock, NULL);
        map_str_init(&f->shard[i].keys);
    }
    return f;
}

void inflight_free(struct inflight *f)
{
    if (!f)
        return;
    for (unsigned i = 0; i < SHARDS; i++) {
        map_str_free(&f->shard[i].keys);
        pthread_mutex_destroy(&f->shard[i].lock);
    }
    free(f);
}

struct scoped_key {
    char b[8 + 256];
    struct str s;
    unsigned shard;
};

static void scope(const struct app_idem *i, struct scoped_key *k)
{
    size_t n = i->key.n < 256 ? i->key.n : 256;
    memcpy(k->b, &i->principal, 8);
    memcpy(k->b + 8, i->key.p, n);
    k->s = (struct str){k->b, 8 + n};
    k->shard = (unsigned)(str_hash(k->s) % SHARDS);
}

enum pf_err app_idem_begin(struct app *a, struct app_idem *i)
{
    if (i->key.n == 0)
        return PFE_OK;
    struct scoped_key k;
    scope(i, &k);
    enum pf_err e = PFE_OK;
    pthread_mutex_lock(&a->inflight->shard[k.shard].lock);
    struct map_str *m = &a->inflight->shard[k.shard].keys;
    if (map_str_get(m, k.s))
        e = PFE_IN_FLIGHT;
    else if (!map_str_put(m, k.s, a))
        e = PFE_NOMEM;
    pthread_mutex_unlock(&a->inflight->shard[k.shard].lock);
    i->reserved = e == PFE_OK;
    return e;
}

void app_idem_end(struct app *a, struct app_idem *i)
{
    if (!i->reserved)
        return;
    struct scoped_key k;
    scope(i, &k);
    pthread_mutex_lock(&a->inflight->shard[k.shard].lock);
    map_str_del(&a->inflight->shard[k.shard].keys, k.s);
    pthread_mutex_unlock(&a->inflight->shard[k.shard].lock);
    i->reserved = false;
}

enum pf_err app_idem_lookup(struct app *a, struct arena *arena, struct app_idem *i)
{
    i->replayed = false;
    if (i->key.n == 0)
        return PFE_OK;
    struct store_idem found;
    enum pf_err e = store_idem_get(a->d.store, arena, i->principal, i->key, &found);
    if (e == PFE_NOT_FOUND)
        return PFE_OK;
    if (e != PFE_OK)
        return e;
    if (!crypt_equal(found.request, i->request, sizeof found.request))
        return PFE_KEY_REUSED;
    i->status = found.status;
    i->body = found.body;
    i->replayed = true;
    return PFE_OK;
}

enum pf_err app_idem_store(struct store_tx *tx, const struct app_idem *i)
{
    if (i->status == 0)
        return PFE_NOMEM;
    struct store_idem row = {.principal = i->principal, .key = i->key, .status = i->status, .body = i->body};
    memcpy(row.request, i->request, sizeof row.request);
    return store_idem_put(tx, &row);
}
