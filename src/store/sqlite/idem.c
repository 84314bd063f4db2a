/*
 * Idempotency rows. Keys are random, so an index on them written in the commit would dirty a page per key (measured:
 * 4.7 k rows/s instead of 65 k). Instead the commit appends the row, and its place in the index (hash of principal and
 * key -> id) is kept in memory until a few ten thousand can be written behind in order of hash; start-up reads back the
 * hashes of the rows since. A place whose row was rolled back stays, and leads nowhere until its key comes again: that
 * row then takes the same id, so that a key has one place however often its commit failed. An id is never used for two
 * rows.
 *
 * A look-up asks memory first, then the stored index: what leaves memory was committed to the index before.
 */
#include <stdlib.h>

#include "store/sqlite/journal.h"

enum { BITS_MIN = 10, CANDIDATES_MAX = 8 };

struct candidates {
    int64_t id[CANDIDATES_MAX];
    unsigned n;
};

static int64_t hash_of(int64_t principal, struct str key)
{
    uint8_t text[8 + 256], sum[SHA256_LEN];
    int64_t h;
    size_t n = key.n < 256 ? key.n : 256;
    memcpy(text, &principal, 8);
    if (n)
        memcpy(text + 8, key.p, n);
    sha256_of((struct str){(const char *)text, n + 8}, sum);
    memcpy(&h, sum, sizeof h);
    return h & INT64_MAX;
}

/* ---- a table in memory: slots in order of hash, so that walking them is nearly walking the index ---- */

static size_t home(const struct idem_table *t, int64_t hash)
{
    return (size_t)((uint64_t)hash >> (63 - t->bits));
}

static size_t capacity(const struct idem_table *t)
{
    return t->slots ? (size_t)1 << t->bits : 0;
}

static void put(struct idem_table *t, int64_t hash, int64_t id)
{
    size_t i = home(t, hash);
    while (t->slots[i].id)
        i = (i + 1) & (capacity(t) - 1);
    t->slots[i] = (struct idem_slot){hash, id};
    t->n++;
}

static bool grow(struct idem_table *t)
{
    if ((t->n + 1) * 4 <= capacity(t) * 3)
        return true;
    struct idem_table bigger = {.bits = t->slots ? t->bits + 1 : BITS_MIN};
    bigger.slots = calloc((size_t)1 << bigger.bits, sizeof *bigger.slots);
    if (!bigger.slots)
        return false;
    for (size_t i = 0; i < capacity(t); i++)
        if (t->slots[i].id)
            put(&bigger, t->slots[i].hash, t->slots[i].id);
    free(t->slots);
    *t = bigger;
    return true;
}

static void find(const struct idem_table *t, int64_t hash, struct candidates *c)
{
    if (t->n == 0)
        return;
    for (size_t i = home(t, hash); t->slots[i].id; i = (i + 1) & (capacity(t) - 1))
        if (t->slots[i].hash == hash && c->n < CANDIDATES_MAX)
            c->id[c->n++] = t->slots[i].id;
}

void sqlite_idem_init(struct idem_index *x)
{
    *x = (struct idem_index){.next_id = 1};
    pthread_rwlock_init(&x->lock, NULL);
}

void sqlite_idem_free(struct idem_index *x)
{
    free(x->recent.slots);
    free(x->leaving.slots);
    pthread_rwlock_destroy(&x->lock);
}

static enum pf_err remember(struct idem_index *x, int64_t hash, int64_t id)
{
    pthread_rwlock_wrlock(&x->lock);
    bool ok = grow(&x->recent);
    if (ok)
        put(&x->recent, hash, id);
    pthread_rwlock_unlock(&x->lock);
    return ok ? PFE_OK : PFE_NOMEM;
}

enum pf_err sqlite_idem_load(struct idem_index *x, struct sqlite_conn *c, int64_t indexed)
{
    struct sqlite_q q;
    enum pf_err e = PFE_OK;
    x->next_id = indexed + 1;
    sqlite_q_begin(&q, c, "SELECT id, hash FROM idempotency WHERE id > ?1 ORDER BY id");
    sqlite_q_i64(&q, indexed);
    while (e == PFE_OK && sqlite_q_next(&q)) {
        x->next_id = sqlite_col_i64(&q, 0) + 1;
        e = remember(x, sqlite_col_i64(&q, 1), sqlite_col_i64(&q, 0));
    }
    enum pf_err end = sqlite_q_end(&q);
    return e ? e : end;
}

/* ---- look-ups ---- */

struct place {
    int64_t id;     /* of the row of that key */
    int64_t vacant; /* if there is none: the least id that belongs to its hash and to no row yet; 0: none */
};

static void vacate(struct place *p, int64_t id)
{
    if (!p->vacant || id < p->vacant)
        p->vacant = id;
}

/* Where a place in memory leads. */
static enum pf_err follow(struct sqlite_conn *c, int64_t id, int64_t principal, struct str key, struct place *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c, "SELECT principal = ?2 AND key = ?3 FROM idempotency WHERE id = ?1");
    sqlite_q_i64(&q, id);
    sqlite_q_i64(&q, principal);
    sqlite_q_str(&q, key);
    if (!sqlite_q_next(&q))
        vacate(ret, id);
    else if (sqlite_col_i64(&q, 0))
        ret->id = id;
    return sqlite_q_end(&q);
}

/* To the last of the places: earlier versions stored one for every failed commit under the key. */
static enum pf_err follow_stored(struct sqlite_conn *c, int64_t hash, int64_t principal, struct str key,
                                 struct place *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c,
                   "SELECT x.id, coalesce(i.principal = ?2 AND i.key = ?3, -1) FROM idempotency_index x"
                   " LEFT JOIN idempotency i ON i.id = x.id WHERE x.hash = ?1");
    sqlite_q_i64(&q, hash);
    sqlite_q_i64(&q, principal);
    sqlite_q_str(&q, key);
    while (!ret->id && sqlite_q_next(&q)) {
        int64_t id = sqlite_col_i64(&q, 0), is = sqlite_col_i64(&q, 1);
        if (is < 0)
            vacate(ret, id);
        else if (is)
            ret->id = id;
    }
    return sqlite_q_end(&q);
}

/* PFE_OK: ret->id. PFE_NOT_FOUND: ret->vacant. */
static enum pf_err find_hash(struct sqlite_store *s, struct sqlite_conn *c, int64_t hash, int64_t principal,
                             struct str key, struct place *ret)
{
    struct candidates k = {.n = 0};
    enum pf_err e = PFE_OK;
    *ret = (struct place){0};
    pthread_rwlock_rdlock(&s->idem.lock);
    find(&s->idem.recent, hash, &k);
    find(&s->idem.leaving, hash, &k);
    pthread_rwlock_unlock(&s->idem.lock);
    for (unsigned i = 0; i < k.n && e == PFE_OK && !ret->id; i++)
        e = follow(c, k.id[i], principal, key, ret);
    if (e == PFE_OK && !ret->id)
        e = follow_stored(c, hash, principal, key, ret);
    return e != PFE_OK ? e : ret->id ? PFE_OK : PFE_NOT_FOUND;
}

enum pf_err sqlite_idem_find(struct sqlite_store *s, struct sqlite_conn *c, int64_t principal, struct str key,
                             int64_t *ret_id)
{
    struct place at;
    enum pf_err e = find_hash(s, c, hash_of(principal, key), principal, key, &at);
    if (e == PFE_OK)
        *ret_id = at.id;
    return e;
}

enum pf_err sqlite_idem_insert(struct sqlite_store *s, const struct store_idem *i)
{
    int64_t hash = hash_of(i->principal, i->key);
    struct place at;
    enum pf_err e = find_hash(s, &s->w, hash, i->principal, i->key, &at);
    if (e != PFE_NOT_FOUND)
        return e == PFE_OK ? PFE_IN_FLIGHT : e;
    int64_t id = at.vacant;
    /* A number yet to be given is of a crash amid a write-behind: it may go to another key. */
    if (!id || id >= s->idem.next_id) {
        id = s->idem.next_id++;
        e = remember(&s->idem, hash, id);
        if (e)
            return e;
    }
    struct sqlite_q q;
    sqlite_q_begin(&q, &s->w,
                   "INSERT INTO idempotency (id, hash, principal, key, request, status, seq, body)"
                   " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    sqlite_q_i64(&q, id);
    sqlite_q_i64(&q, hash);
    sqlite_q_i64(&q, i->principal);
    sqlite_q_str(&q, i->key);
    sqlite_q_blob(&q, i->request, sizeof i->request);
    sqlite_q_i64(&q, i->status);
    sqlite_q_i64(&q, i->seq);
    sqlite_q_blob(&q, i->body.p, i->body.n);
    return sqlite_q_run(&q);
}

/* ---- write-behind ---- */

void sqlite_idem_leave(struct idem_index *x)
{
    pthread_rwlock_wrlock(&x->lock);
    x->leaving = x->recent;
    x->recent = (struct idem_table){0};
    pthread_rwlock_unlock(&x->lock);
    x->leaving_at = 0;
    x->leaving_id = x->next_id - 1;
}

enum pf_err sqlite_idem_slice(struct sqlite_store *s, size_t most, size_t *ret_at, bool *ret_last)
{
    struct idem_table *t = &s->idem.leaving;
    size_t at = s->idem.leaving_at;
    enum pf_err e = PFE_OK;
    for (; at < capacity(t) && most > 0 && e == PFE_OK; at++) {
        if (!t->slots[at].id)
            continue;
        struct sqlite_q q;
        sqlite_q_begin(&q, &s->w, "INSERT OR IGNORE INTO idempotency_index (hash, id) VALUES (?1, ?2)");
        sqlite_q_i64(&q, t->slots[at].hash);
        sqlite_q_i64(&q, t->slots[at].id);
        e = sqlite_q_run(&q);
        most--;
    }
    *ret_at = at;
    *ret_last = at == capacity(t);
    return e == PFE_OK && *ret_last ? sqlite_projection_write(&s->w, "idempotency", s->idem.leaving_id) : e;
}

void sqlite_idem_slice_done(struct idem_index *x, size_t at, bool last)
{
    x->leaving_at = at;
    if (!last)
        return;
    pthread_rwlock_wrlock(&x->lock);
    free(x->leaving.slots);
    x->leaving = (struct idem_table){0};
    pthread_rwlock_unlock(&x->lock);
}
