#include "store/memory/records.h"

/* ---- API keys ---- */

static const struct store_apikey *find_key(const struct rec_rows *rows, const uint8_t hash[32])
{
    for (size_t i = 0; i < rows->n; i++) {
        const struct store_apikey *k = rows->v[i];
        if (memcmp(k->hash, hash, sizeof k->hash) == 0)
            return k;
    }
    return NULL;
}

enum pf_err memory_rec_apikey_insert(struct store_tx *tx, struct store_apikey *k)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_APIKEY);
    if (!rows)
        return PFE_NOMEM;
    if (find_key(rows, k->hash))
        return PFE_WRONG_STATE;
    struct store_apikey fresh = *k;
    fresh.id = (int64_t)rows->n + 1;
    enum pf_err e = memory_rec_add(tx, REC_APIKEY, &fresh);
    if (e == PFE_OK)
        k->id = fresh.id;
    return e;
}

enum pf_err memory_rec_apikey_revoke(struct store_tx *tx, int64_t user, int64_t id, int64_t now_us, int64_t *ret_n)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_APIKEY);
    if (!rows)
        return PFE_NOMEM;
    int64_t n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        const struct store_apikey *k = rows->v[i];
        if (k->user != user || (id && k->id != id) || k->revoked_us)
            continue;
        struct store_apikey next = *k;
        next.revoked_us = now_us;
        enum pf_err e = memory_rec_replace(tx, REC_APIKEY, i, &next);
        if (e != PFE_OK)
            return e;
        n++;
    }
    if (ret_n)
        *ret_n = n;
    return PFE_OK;
}

enum pf_err memory_rec_apikey_touch(struct store_tx *tx, int64_t id, int64_t now_us)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_APIKEY);
    if (!rows)
        return PFE_NOMEM;
    const struct store_apikey *k = memory_rec_by_id(rows, id);
    if (!k)
        return PFE_NOT_FOUND;
    struct store_apikey next = *k;
    next.last_used_us = now_us;
    return memory_rec_replace(tx, REC_APIKEY, (size_t)id - 1, &next);
}

enum pf_err memory_rec_apikey_by_hash(struct store *s, const uint8_t hash[32], struct store_apikey *ret)
{
    const struct store_apikey *k = find_key(memory_rec_read(s, REC_APIKEY), hash);
    if (k)
        *ret = *k;
    memory_rec_read_end(s);
    return k ? PFE_OK : PFE_NOT_FOUND;
}

enum pf_err memory_rec_apikey_list(struct store *s, int64_t user, int64_t before_id, unsigned limit,
                                   struct store_apikey *out, unsigned *ret_n)
{
    const struct rec_rows *rows = memory_rec_read(s, REC_APIKEY);
    unsigned n = 0;
    for (size_t i = rows->n; i > 0 && n < limit; i--) {
        const struct store_apikey *k = rows->v[i - 1];
        if (k->user != user || k->revoked_us || (before_id && k->id >= before_id))
            continue;
        out[n] = *k;
        memset(out[n++].hash, 0, sizeof k->hash);
    }
    memory_rec_read_end(s);
    *ret_n = n;
    return PFE_OK;
}

/* ---- sessions ---- */

static const struct store_session *find_session(const struct rec_rows *rows, const uint8_t family[16])
{
    for (size_t i = 0; i < rows->n; i++) {
        const struct store_session *f = rows->v[i];
        if (memcmp(f->family, family, sizeof f->family) == 0)
            return f;
    }
    return NULL;
}

enum pf_err memory_rec_session_insert(struct store_tx *tx, const struct store_session *f)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_SESSION);
    if (!rows)
        return PFE_NOMEM;
    return find_session(rows, f->family) ? PFE_WRONG_STATE : memory_rec_add(tx, REC_SESSION, f);
}

enum pf_err memory_rec_session_revoke(struct store_tx *tx, int64_t user, const uint8_t family[16], int64_t now_us)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_SESSION);
    if (!rows)
        return PFE_NOMEM;
    for (size_t i = 0; i < rows->n; i++) {
        const struct store_session *f = rows->v[i];
        bool theirs = f->user == user || (user == 0 && family);
        bool meant = !family || memcmp(f->family, family, sizeof f->family) == 0;
        if (!theirs || !meant || f->revoked_us)
            continue;
        struct store_session next = *f;
        next.revoked_us = now_us;
        enum pf_err e = memory_rec_replace(tx, REC_SESSION, i, &next);
        if (e != PFE_OK)
            return e;
    }
    return PFE_OK;
}

enum pf_err memory_rec_session_get(struct store *s, const uint8_t family[16], struct store_session *ret)
{
    const struct store_session *f = find_session(memory_rec_read(s, REC_SESSION), family);
    if (f)
        *ret = *f;
    memory_rec_read_end(s);
    return f ? PFE_OK : PFE_NOT_FOUND;
}

/* ---- refresh tokens ---- */

/* rows->n: none. */
static size_t find_refresh(const struct rec_rows *rows, const uint8_t hash[32])
{
    size_t i = 0;
    while (i < rows->n && memcmp(((const struct store_refresh *)rows->v[i])->hash, hash, 32) != 0)
        i++;
    return i;
}

enum pf_err memory_rec_refresh_insert(struct store_tx *tx, const struct store_refresh *r)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_REFRESH);
    if (!rows)
        return PFE_NOMEM;
    return find_refresh(rows, r->hash) < rows->n ? PFE_WRONG_STATE : memory_rec_add(tx, REC_REFRESH, r);
}

enum pf_err memory_rec_refresh_use(struct store_tx *tx, const uint8_t hash[32], int64_t now_us)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_REFRESH);
    if (!rows)
        return PFE_NOMEM;
    size_t i = find_refresh(rows, hash);
    if (i == rows->n)
        return PFE_NOT_FOUND;
    struct store_refresh next = *(const struct store_refresh *)rows->v[i];
    if (next.used_us)
        return PFE_WRONG_STATE;
    next.used_us = now_us;
    return memory_rec_replace(tx, REC_REFRESH, i, &next);
}

enum pf_err memory_rec_refresh_get(struct store *s, const uint8_t hash[32], struct store_refresh *ret)
{
    const struct rec_rows *rows = memory_rec_read(s, REC_REFRESH);
    size_t i = find_refresh(rows, hash);
    bool found = i < rows->n;
    if (found)
        *ret = *(const struct store_refresh *)rows->v[i];
    memory_rec_read_end(s);
    return found ? PFE_OK : PFE_NOT_FOUND;
}
