#include "store/postgres/records.h"
#include "store/folded.h"

#define USER_COLUMNS "id, uuid, username, email, password_hash, role, status, created_us, updated_us"

static void user_read(const struct pg_q *q, struct store_user *ret)
{
    *ret = (struct store_user){
        .id = pg_col_i64(q, 0),
        .role = (enum ident_role)pg_col_i64(q, 5),
        .status = (enum store_user_status)pg_col_i64(q, 6),
        .created_us = pg_col_i64(q, 7),
        .updated_us = pg_col_i64(q, 8),
    };
    pg_col_blob(q, 1, ret->uuid, sizeof ret->uuid);
    str_copy(ret->username, sizeof ret->username, pg_col_str(q, 2));
    str_copy(ret->email, sizeof ret->email, pg_col_str(q, 3));
    str_copy(ret->password_hash, sizeof ret->password_hash, pg_col_str(q, 4));
}

static enum pf_err user_one(struct pg_q *q, struct store_user *ret)
{
    struct store_user u;
    bool found = pg_q_next(q);
    if (found)
        user_read(q, &u);
    enum pf_err e = pg_rec_one(q, found);
    if (e == PFE_OK)
        *ret = u;
    return e;
}

/* Asked before the write rather than read from its failure, so that the username goes before the email and the
   transaction stays in order. id 0: of a new user. */
static enum pf_err user_unique(struct pg_conn *w, const struct store_user *u, int64_t id, const struct user_folded *f,
                               bool *ret_known)
{
    struct pg_q q;
    bool name = false, email = false;
    pg_q_begin(&q, w,
               "SELECT EXISTS (SELECT 1 FROM users WHERE id = $3),"
               " EXISTS (SELECT 1 FROM users WHERE username_fold = $1 AND status <> 2 AND id <> $3),"
               " EXISTS (SELECT 1 FROM users WHERE email_fold = $2 AND status <> 2 AND id <> $3)");
    pg_q_str(&q, str_c(f->username));
    pg_q_str(&q, str_c(f->email));
    pg_q_i64(&q, id);
    if (pg_q_next(&q)) {
        *ret_known = pg_col_bool(&q, 0);
        name = pg_col_bool(&q, 1);
        email = pg_col_bool(&q, 2);
    }
    enum pf_err e = pg_q_end(&q);
    if (e != PFE_OK || u->status == STORE_USER_DELETED)
        return e;
    return name ? PFE_DUP_USERNAME : email ? PFE_DUP_EMAIL : PFE_OK;
}

enum pf_err pg_rec_user_insert(struct store_tx *tx, struct store_user *u)
{
    struct pg_conn *w = pg_rec_conn(tx);
    struct user_folded f;
    struct pg_q q;
    bool known;
    int64_t id = 0;
    user_fold(u, &f);
    enum pf_err e = user_unique(w, u, 0, &f, &known);
    if (e != PFE_OK)
        return e;

    pg_q_begin(&q, w,
               "WITH next AS (UPDATE record_ids SET users = users + 1 RETURNING users AS id)"
               " INSERT INTO users (id, uuid, username, username_fold, email, email_fold, password_hash, role, status,"
               " created_us, updated_us) SELECT id, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM next"
               " ON CONFLICT DO NOTHING RETURNING id");
    pg_q_blob(&q, u->uuid, sizeof u->uuid);
    pg_q_str(&q, str_c(u->username));
    pg_q_str(&q, str_c(f.username));
    pg_q_str(&q, str_c(u->email));
    pg_q_str(&q, str_c(f.email));
    pg_q_str(&q, str_c(u->password_hash));
    pg_q_i64(&q, u->role);
    pg_q_i64(&q, u->status);
    pg_q_i64(&q, u->created_us);
    pg_q_i64(&q, u->updated_us);
    e = pg_rec_inserted(&q, &id);
    if (e != PFE_OK)
        return e;
    if (id == 0) { /* somebody else was faster, or the uuid is not new */
        e = user_unique(w, u, 0, &f, &known);
        return e == PFE_OK ? PFE_WRONG_STATE : e;
    }
    u->id = id;
    return PFE_OK;
}

enum pf_err pg_rec_user_update(struct store_tx *tx, const struct store_user *u)
{
    struct pg_conn *w = pg_rec_conn(tx);
    struct user_folded f;
    struct pg_q q;
    bool known = false;
    user_fold(u, &f);
    enum pf_err e = user_unique(w, u, u->id, &f, &known);
    if (e == PFE_OK && !known)
        e = PFE_NOT_FOUND;
    /* A group that took the user for active ends first; the next one sees that it is not. */
    if (e == PFE_OK && u->status != STORE_USER_ACTIVE)
        e = pg_exec(w, "SELECT head_seq FROM ledger_head FOR UPDATE");
    if (e != PFE_OK)
        return e;

    pg_q_begin(&q, w,
               "UPDATE users SET username = $2, username_fold = $3, email = $4, email_fold = $5, password_hash = $6,"
               " role = $7, status = $8, updated_us = $9 WHERE id = $1");
    pg_q_i64(&q, u->id);
    pg_q_str(&q, str_c(u->username));
    pg_q_str(&q, str_c(f.username));
    pg_q_str(&q, str_c(u->email));
    pg_q_str(&q, str_c(f.email));
    pg_q_str(&q, str_c(u->password_hash));
    pg_q_i64(&q, u->role);
    pg_q_i64(&q, u->status);
    pg_q_i64(&q, u->updated_us);
    bool ran = !pg_q_next(&q);
    bool name = ran && strcmp(pg_q_constraint(&q), "users_username") == 0;
    bool email = ran && strcmp(pg_q_constraint(&q), "users_email") == 0;
    e = pg_rec_run(&q);
    return name ? PFE_DUP_USERNAME : email ? PFE_DUP_EMAIL : e;
}

enum pf_err pg_rec_user_get(struct store *s, int64_t id, struct store_user *ret)
{
    struct pg_q q;
    pg_read_begin(&q, pg_of(s), PG_FROM_ANY, "SELECT " USER_COLUMNS " FROM users WHERE id = $1");
    pg_q_i64(&q, id);
    return user_one(&q, ret);
}

enum pf_err pg_rec_user_by_uuid(struct store *s, const uint8_t uuid[16], struct store_user *ret)
{
    struct pg_q q;
    pg_read_begin(&q, pg_of(s), PG_FROM_ANY, "SELECT " USER_COLUMNS " FROM users WHERE uuid = $1");
    pg_q_blob(&q, uuid, 16);
    return user_one(&q, ret);
}

enum pf_err pg_rec_user_by_name(struct store *s, struct str username, struct store_user *ret)
{
    char folded[IDENT_USERNAME_MAX + 1];
    if (!ident_fold(username, folded, sizeof folded))
        return PFE_NOT_FOUND;
    struct pg_q q;
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY,
                  "SELECT " USER_COLUMNS " FROM users WHERE username_fold = $1 AND status <> 2");
    pg_q_str(&q, str_c(folded));
    return user_one(&q, ret);
}

enum pf_err pg_rec_user_by_email(struct store *s, struct str email, struct store_user *ret)
{
    char folded[IDENT_EMAIL_MAX + 1];
    if (!ident_fold(email, folded, sizeof folded))
        return PFE_NOT_FOUND;
    struct pg_q q;
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY,
                  "SELECT " USER_COLUMNS " FROM users WHERE email_fold = $1 AND status <> 2");
    pg_q_str(&q, str_c(folded));
    return user_one(&q, ret);
}

enum pf_err pg_rec_user_list(struct store *s, int64_t before_id, int64_t offset, unsigned limit, struct store_user *out,
                             unsigned *ret_n)
{
    struct pg_q q;
    unsigned n = 0;
    pg_read_begin(&q, pg_of(s), PG_FROM_ANY,
                  "SELECT " USER_COLUMNS
                  " FROM users WHERE id < $1 AND status <> 2 ORDER BY id DESC LIMIT $2 OFFSET $3");
    pg_q_i64(&q, pg_rec_before(before_id));
    pg_q_i64(&q, limit);
    pg_q_i64(&q, offset);
    while (pg_q_next(&q))
        user_read(&q, &out[n++]);
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err pg_rec_admin_count(struct store *s, int64_t *ret)
{
    struct pg_q q;
    int64_t n = 0;
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY, "SELECT count(*) FROM users WHERE role = 1 AND status = 0");
    if (pg_q_next(&q))
        n = pg_col_i64(&q, 0);
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret = n;
    return e;
}

enum pf_err pg_rec_users_closing(struct store *s, int64_t before_us, unsigned limit, int64_t *out, unsigned *ret_n)
{
    struct pg_q q;
    unsigned n = 0;
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY,
                  "SELECT id FROM users WHERE status = 1 AND updated_us < $1 ORDER BY id LIMIT $2");
    pg_q_i64(&q, before_us);
    pg_q_i64(&q, limit);
    while (pg_q_next(&q))
        out[n++] = pg_col_i64(&q, 0);
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}
