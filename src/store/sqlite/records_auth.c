#include "store/sqlite/records.h"

/* ---- API keys ---- */

enum pf_err sqlite_rec_apikey_insert(struct store_tx *tx, struct store_apikey *k)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx),
                   "INSERT INTO api_key (user, hash, prefix, created_us, last_used_us, revoked_us)"
                   " VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
    sqlite_q_i64(&q, k->user);
    sqlite_q_blob(&q, k->hash, sizeof k->hash);
    sqlite_q_str(&q, str_c(k->prefix));
    sqlite_q_i64(&q, k->created_us);
    sqlite_q_i64(&q, k->last_used_us);
    sqlite_q_i64(&q, k->revoked_us);
    return sqlite_rec_inserted(&q, &k->id);
}

enum pf_err sqlite_rec_apikey_revoke(struct store_tx *tx, int64_t user, int64_t id, int64_t now_us, int64_t *ret_n)
{
    struct sqlite_q q;
    if (id == 0) {
        sqlite_q_begin(&q, sqlite_rec_conn(tx),
                       "UPDATE api_key SET revoked_us = ?1 WHERE user = ?2 AND revoked_us = 0");
        sqlite_q_i64(&q, now_us);
        sqlite_q_i64(&q, user);
    } else {
        sqlite_q_begin(&q, sqlite_rec_conn(tx),
                       "UPDATE api_key SET revoked_us = ?1 WHERE id = ?2 AND user = ?3 AND revoked_us = 0");
        sqlite_q_i64(&q, now_us);
        sqlite_q_i64(&q, id);
        sqlite_q_i64(&q, user);
    }
    enum pf_err e = sqlite_rec_run(&q);
    if (e == PFE_OK && ret_n)
        *ret_n = sqlite3_changes64(q.c->db);
    return e;
}

enum pf_err sqlite_rec_apikey_touch(struct store_tx *tx, int64_t id, int64_t now_us)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx), "UPDATE api_key SET last_used_us = ?1 WHERE id = ?2");
    sqlite_q_i64(&q, now_us);
    sqlite_q_i64(&q, id);
    return sqlite_rec_hit(&q, PFE_NOT_FOUND);
}

enum pf_err sqlite_rec_apikey_by_hash(struct store *s, const uint8_t hash[32], struct store_apikey *ret)
{
    struct sqlite_q q;
    struct store_apikey k = {0};
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT id, user, prefix, created_us, last_used_us, revoked_us FROM api_key WHERE hash = ?1");
    sqlite_q_blob(&q, hash, sizeof k.hash);
    bool found = sqlite_q_next(&q);
    if (found) {
        k.id = sqlite_col_i64(&q, 0);
        k.user = sqlite_col_i64(&q, 1);
        memcpy(k.hash, hash, sizeof k.hash);
        str_copy(k.prefix, sizeof k.prefix, sqlite_col_str(&q, 2));
        k.created_us = sqlite_col_i64(&q, 3);
        k.last_used_us = sqlite_col_i64(&q, 4);
        k.revoked_us = sqlite_col_i64(&q, 5);
    }
    enum pf_err e = sqlite_rec_one(&q, found);
    if (e == PFE_OK)
        *ret = k;
    return e;
}

enum pf_err sqlite_rec_apikey_list(struct store *s, int64_t user, int64_t before_id, unsigned limit,
                                   struct store_apikey *out, unsigned *ret_n)
{
    struct sqlite_q q;
    unsigned n = 0;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT id, prefix, created_us, last_used_us FROM api_key"
                   " WHERE user = ?1 AND revoked_us = 0 AND (?2 = 0 OR id < ?2) ORDER BY id DESC LIMIT ?3");
    sqlite_q_i64(&q, user);
    sqlite_q_i64(&q, before_id);
    sqlite_q_i64(&q, limit);
    while (n < limit && sqlite_q_next(&q)) {
        struct store_apikey k = {.id = sqlite_col_i64(&q, 0),
                                 .user = user,
                                 .created_us = sqlite_col_i64(&q, 2),
                                 .last_used_us = sqlite_col_i64(&q, 3)};
        str_copy(k.prefix, sizeof k.prefix, sqlite_col_str(&q, 1));
        out[n++] = k;
    }
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- sessions ---- */

enum pf_err sqlite_rec_session_insert(struct store_tx *tx, const struct store_session *f)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx),
                   "INSERT INTO session (family, user, created_us, expires_us, revoked_us)"
                   " VALUES (?1, ?2, ?3, ?4, ?5)");
    sqlite_q_blob(&q, f->family, sizeof f->family);
    sqlite_q_i64(&q, f->user);
    sqlite_q_i64(&q, f->created_us);
    sqlite_q_i64(&q, f->expires_us);
    sqlite_q_i64(&q, f->revoked_us);
    return sqlite_rec_run(&q);
}

enum pf_err sqlite_rec_session_revoke(struct store_tx *tx, int64_t user, const uint8_t family[16], int64_t now_us)
{
    struct sqlite_q q;
    if (!family) {
        sqlite_q_begin(&q, sqlite_rec_conn(tx),
                       "UPDATE session SET revoked_us = ?1 WHERE user = ?2 AND revoked_us = 0");
        sqlite_q_i64(&q, now_us);
        sqlite_q_i64(&q, user);
    } else {
        sqlite_q_begin(&q, sqlite_rec_conn(tx),
                       "UPDATE session SET revoked_us = ?1"
                       " WHERE family = ?2 AND (?3 = 0 OR user = ?3) AND revoked_us = 0");
        sqlite_q_i64(&q, now_us);
        sqlite_q_blob(&q, family, 16);
        sqlite_q_i64(&q, user);
    }
    return sqlite_rec_run(&q);
}

enum pf_err sqlite_rec_session_get(struct store *s, const uint8_t family[16], struct store_session *ret)
{
    struct sqlite_q q;
    struct store_session f = {0};
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT user, created_us, expires_us, revoked_us FROM session WHERE family = ?1");
    sqlite_q_blob(&q, family, sizeof f.family);
    bool found = sqlite_q_next(&q);
    if (found) {
        memcpy(f.family, family, sizeof f.family);
        f.user = sqlite_col_i64(&q, 0);
        f.created_us = sqlite_col_i64(&q, 1);
        f.expires_us = sqlite_col_i64(&q, 2);
        f.revoked_us = sqlite_col_i64(&q, 3);
    }
    enum pf_err e = sqlite_rec_one(&q, found);
    if (e == PFE_OK)
        *ret = f;
    return e;
}

/* ---- refresh tokens ---- */

enum pf_err sqlite_rec_refresh_insert(struct store_tx *tx, const struct store_refresh *r)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx),
                   "INSERT INTO refresh (hash, family, created_us, expires_us, used_us) VALUES (?1, ?2, ?3, ?4, ?5)");
    sqlite_q_blob(&q, r->hash, sizeof r->hash);
    sqlite_q_blob(&q, r->family, sizeof r->family);
    sqlite_q_i64(&q, r->created_us);
    sqlite_q_i64(&q, r->expires_us);
    sqlite_q_i64(&q, r->used_us);
    return sqlite_rec_run(&q);
}

enum pf_err sqlite_rec_refresh_use(struct store_tx *tx, const uint8_t hash[32], int64_t now_us)
{
    struct sqlite_conn *w = sqlite_rec_conn(tx);
    struct sqlite_q q;
    sqlite_q_begin(&q, w, "SELECT 1 FROM refresh WHERE hash = ?1");
    sqlite_q_blob(&q, hash, 32);
    bool found = sqlite_q_next(&q);
    enum pf_err e = sqlite_rec_one(&q, found);
    if (e != PFE_OK)
        return e;
    sqlite_q_begin(&q, w, "UPDATE refresh SET used_us = ?1 WHERE hash = ?2 AND used_us = 0");
    sqlite_q_i64(&q, now_us);
    sqlite_q_blob(&q, hash, 32);
    return sqlite_rec_hit(&q, PFE_WRONG_STATE);
}

enum pf_err sqlite_rec_refresh_get(struct store *s, const uint8_t hash[32], struct store_refresh *ret)
{
    struct sqlite_q q;
    struct store_refresh r = {0};
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT family, created_us, expires_us, used_us FROM refresh WHERE hash = ?1");
    sqlite_q_blob(&q, hash, sizeof r.hash);
    bool found = sqlite_q_next(&q);
    if (found) {
        memcpy(r.hash, hash, sizeof r.hash);
        sqlite_col_blob(&q, 0, r.family, sizeof r.family);
        r.created_us = sqlite_col_i64(&q, 1);
        r.expires_us = sqlite_col_i64(&q, 2);
        r.used_us = sqlite_col_i64(&q, 3);
    }
    enum pf_err e = sqlite_rec_one(&q, found);
    if (e == PFE_OK)
        *ret = r;
    return e;
}
