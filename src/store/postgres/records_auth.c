#include "store/postgres/records.h"

/* ---- API keys ---- */

enum pf_err pg_rec_apikey_insert(struct store_tx *tx, struct store_apikey *k)
{
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx),
               "WITH next AS (UPDATE record_ids SET api_key = api_key + 1 RETURNING api_key AS id)"
               " INSERT INTO api_key (id, user_id, hash, prefix, created_us, last_used_us, revoked_us)"
               " SELECT id, $1, $2, $3, $4, $5, $6 FROM next RETURNING id");
    pg_q_i64(&q, k->user);
    pg_q_blob(&q, k->hash, sizeof k->hash);
    pg_q_str(&q, str_c(k->prefix));
    pg_q_i64(&q, k->created_us);
    pg_q_i64(&q, k->last_used_us);
    pg_q_i64(&q, k->revoked_us);
    return pg_rec_inserted(&q, &k->id);
}

enum pf_err pg_rec_apikey_revoke(struct store_tx *tx, int64_t user, int64_t id, int64_t now_us, int64_t *ret_n)
{
    struct pg_q q;
    if (id == 0) {
        pg_q_begin(&q, pg_rec_conn(tx), "UPDATE api_key SET revoked_us = $1 WHERE user_id = $2 AND revoked_us = 0");
        pg_q_i64(&q, now_us);
        pg_q_i64(&q, user);
    } else {
        pg_q_begin(&q, pg_rec_conn(tx),
                   "UPDATE api_key SET revoked_us = $1 WHERE id = $2 AND user_id = $3 AND revoked_us = 0");
        pg_q_i64(&q, now_us);
        pg_q_i64(&q, id);
        pg_q_i64(&q, user);
    }
    int64_t n;
    enum pf_err e = pg_rec_hits(&q, &n);
    if (e == PFE_OK && ret_n)
        *ret_n = n;
    return e;
}

enum pf_err pg_rec_apikey_touch(struct store_tx *tx, int64_t id, int64_t now_us)
{
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx), "UPDATE api_key SET last_used_us = $1 WHERE id = $2");
    pg_q_i64(&q, now_us);
    pg_q_i64(&q, id);
    return pg_rec_hit(&q, PFE_NOT_FOUND);
}

enum pf_err pg_rec_apikey_by_hash(struct store *s, const uint8_t hash[32], struct store_apikey *ret)
{
    struct pg_q q;
    struct store_apikey k = {0};
    pg_read_begin(&q, pg_of(s), pg_from_shown(),
                  "SELECT id, user_id, prefix, created_us, last_used_us, revoked_us FROM api_key WHERE hash = $1");
    pg_q_blob(&q, hash, sizeof k.hash);
    bool found = pg_q_next(&q);
    if (found) {
        k.id = pg_col_i64(&q, 0);
        k.user = pg_col_i64(&q, 1);
        memcpy(k.hash, hash, sizeof k.hash);
        str_copy(k.prefix, sizeof k.prefix, pg_col_str(&q, 2));
        k.created_us = pg_col_i64(&q, 3);
        k.last_used_us = pg_col_i64(&q, 4);
        k.revoked_us = pg_col_i64(&q, 5);
    }
    enum pf_err e = pg_rec_one(&q, found);
    if (e == PFE_OK)
        *ret = k;
    return e;
}

enum pf_err pg_rec_apikey_list(struct store *s, int64_t user, int64_t before_id, unsigned limit,
                               struct store_apikey *out, unsigned *ret_n)
{
    struct pg_q q;
    unsigned n = 0;
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY,
                  "SELECT id, prefix, created_us, last_used_us FROM api_key"
                  " WHERE user_id = $1 AND revoked_us = 0 AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3");
    pg_q_i64(&q, user);
    pg_q_i64(&q, before_id);
    pg_q_i64(&q, limit);
    while (n < limit && pg_q_next(&q)) {
        struct store_apikey k = {
            .id = pg_col_i64(&q, 0), .user = user, .created_us = pg_col_i64(&q, 2), .last_used_us = pg_col_i64(&q, 3)};
        str_copy(k.prefix, sizeof k.prefix, pg_col_str(&q, 1));
        out[n++] = k;
    }
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- sessions ---- */

enum pf_err pg_rec_session_insert(struct store_tx *tx, const struct store_session *f)
{
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx),
               "INSERT INTO session (family, user_id, created_us, expires_us, revoked_us)"
               " VALUES ($1, $2, $3, $4, $5)");
    pg_q_blob(&q, f->family, sizeof f->family);
    pg_q_i64(&q, f->user);
    pg_q_i64(&q, f->created_us);
    pg_q_i64(&q, f->expires_us);
    pg_q_i64(&q, f->revoked_us);
    return pg_rec_run(&q);
}

enum pf_err pg_rec_session_revoke(struct store_tx *tx, int64_t user, const uint8_t family[16], int64_t now_us)
{
    struct pg_q q;
    if (!family) {
        pg_q_begin(&q, pg_rec_conn(tx), "UPDATE session SET revoked_us = $1 WHERE user_id = $2 AND revoked_us = 0");
        pg_q_i64(&q, now_us);
        pg_q_i64(&q, user);
    } else {
        pg_q_begin(&q, pg_rec_conn(tx),
                   "UPDATE session SET revoked_us = $1"
                   " WHERE family = $2 AND ($3 = 0 OR user_id = $3) AND revoked_us = 0");
        pg_q_i64(&q, now_us);
        pg_q_blob(&q, family, 16);
        pg_q_i64(&q, user);
    }
    return pg_rec_run(&q);
}

enum pf_err pg_rec_session_get(struct store *s, const uint8_t family[16], struct store_session *ret)
{
    struct pg_q q;
    struct store_session f = {0};
    pg_read_begin(&q, pg_of(s), pg_from_shown(),
                  "SELECT user_id, created_us, expires_us, revoked_us FROM session WHERE family = $1");
    pg_q_blob(&q, family, sizeof f.family);
    bool found = pg_q_next(&q);
    if (found) {
        memcpy(f.family, family, sizeof f.family);
        f.user = pg_col_i64(&q, 0);
        f.created_us = pg_col_i64(&q, 1);
        f.expires_us = pg_col_i64(&q, 2);
        f.revoked_us = pg_col_i64(&q, 3);
    }
    enum pf_err e = pg_rec_one(&q, found);
    if (e == PFE_OK)
        *ret = f;
    return e;
}

/* ---- refresh tokens ---- */

enum pf_err pg_rec_refresh_insert(struct store_tx *tx, const struct store_refresh *r)
{
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx),
               "INSERT INTO refresh (hash, family, created_us, expires_us, used_us) VALUES ($1, $2, $3, $4, $5)");
    pg_q_blob(&q, r->hash, sizeof r->hash);
    pg_q_blob(&q, r->family, sizeof r->family);
    pg_q_i64(&q, r->created_us);
    pg_q_i64(&q, r->expires_us);
    pg_q_i64(&q, r->used_us);
    return pg_rec_run(&q);
}

enum pf_err pg_rec_refresh_use(struct store_tx *tx, const uint8_t hash[32], int64_t now_us)
{
    struct pg_conn *w = pg_rec_conn(tx);
    struct pg_q q;
    int64_t n;
    pg_q_begin(&q, w, "UPDATE refresh SET used_us = $1 WHERE hash = $2 AND used_us = 0");
    pg_q_i64(&q, now_us);
    pg_q_blob(&q, hash, 32);
    enum pf_err e = pg_rec_hits(&q, &n);
    if (e != PFE_OK || n > 0)
        return e;
    pg_q_begin(&q, w, "SELECT 1 FROM refresh WHERE hash = $1");
    pg_q_blob(&q, hash, 32);
    bool found = pg_q_next(&q);
    e = pg_rec_one(&q, found);
    return e == PFE_OK ? PFE_WRONG_STATE : e;
}

enum pf_err pg_rec_refresh_get(struct store *s, const uint8_t hash[32], struct store_refresh *ret)
{
    struct pg_q q;
    struct store_refresh r = {0};
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY,
                  "SELECT family, created_us, expires_us, used_us FROM refresh WHERE hash = $1");
    pg_q_blob(&q, hash, sizeof r.hash);
    bool found = pg_q_next(&q);
    if (found) {
        memcpy(r.hash, hash, sizeof r.hash);
        pg_col_blob(&q, 0, r.family, sizeof r.family);
        r.created_us = pg_col_i64(&q, 1);
        r.expires_us = pg_col_i64(&q, 2);
        r.used_us = pg_col_i64(&q, 3);
    }
    enum pf_err e = pg_rec_one(&q, found);
    if (e == PFE_OK)
        *ret = r;
    return e;
}
