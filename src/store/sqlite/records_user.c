#include "store/sqlite/records.h"
#include "store/folded.h"

#define USER_COLUMNS "id, uuid, username, email, password_hash, role, status, created_us, updated_us"

static void user_read(const struct sqlite_q *q, struct store_user *ret)
{
    *ret = (struct store_user){
        .id = sqlite_col_i64(q, 0),
        .role = (enum ident_role)sqlite_col_i64(q, 5),
        .status = (enum store_user_status)sqlite_col_i64(q, 6),
        .created_us = sqlite_col_i64(q, 7),
        .updated_us = sqlite_col_i64(q, 8),
    };
    sqlite_col_blob(q, 1, ret->uuid, sizeof ret->uuid);
    str_copy(ret->username, sizeof ret->username, sqlite_col_str(q, 2));
    str_copy(ret->email, sizeof ret->email, sqlite_col_str(q, 3));
    str_copy(ret->password_hash, sizeof ret->password_hash, sqlite_col_str(q, 4));
}

static enum pf_err user_one(struct sqlite_q *q, struct store_user *ret)
{
    struct store_user u;
    bool found = sqlite_q_next(q);
    if (found)
        user_read(q, &u);
    enum pf_err e = sqlite_rec_one(q, found);
    if (e == PFE_OK)
        *ret = u;
    return e;
}

/* Asked before the write rather than read from its failure, so that the username goes before the email. */
static enum pf_err user_unique(struct sqlite_conn *w, const struct store_user *u, const struct user_folded *f)
{
    struct sqlite_q q;
    if (u->status == STORE_USER_DELETED)
        return PFE_OK;
    sqlite_q_begin(&q, w, "SELECT 1 FROM user WHERE username_fold = ?1 AND status <> 2 AND id <> ?2");
    sqlite_q_str(&q, str_c(f->username));
    sqlite_q_i64(&q, u->id);
    bool taken = sqlite_q_next(&q);
    enum pf_err e = sqlite_q_end(&q);
    if (e != PFE_OK || taken)
        return e != PFE_OK ? e : PFE_DUP_USERNAME;

    sqlite_q_begin(&q, w, "SELECT 1 FROM user WHERE email_fold = ?1 AND status <> 2 AND id <> ?2");
    sqlite_q_str(&q, str_c(f->email));
    sqlite_q_i64(&q, u->id);
    taken = sqlite_q_next(&q);
    e = sqlite_q_end(&q);
    return e == PFE_OK && taken ? PFE_DUP_EMAIL : e;
}

enum pf_err sqlite_rec_user_insert(struct store_tx *tx, struct store_user *u)
{
    struct sqlite_conn *w = sqlite_rec_conn(tx);
    struct store_user fresh = *u;
    struct user_folded f;
    fresh.id = 0;
    user_fold(u, &f);
    enum pf_err e = user_unique(w, &fresh, &f);
    if (e != PFE_OK)
        return e;

    names_add(&w->store->names, str_c(f.username));
    struct sqlite_q q;
    sqlite_q_begin(&q, w,
                   "INSERT INTO user (uuid, username, username_fold, email, email_fold, password_hash, role, status,"
                   " created_us, updated_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
    sqlite_q_blob(&q, u->uuid, sizeof u->uuid);
    sqlite_q_str(&q, str_c(u->username));
    sqlite_q_str(&q, str_c(f.username));
    sqlite_q_str(&q, str_c(u->email));
    sqlite_q_str(&q, str_c(f.email));
    sqlite_q_str(&q, str_c(u->password_hash));
    sqlite_q_i64(&q, u->role);
    sqlite_q_i64(&q, u->status);
    sqlite_q_i64(&q, u->created_us);
    sqlite_q_i64(&q, u->updated_us);
    return sqlite_rec_inserted(&q, &u->id);
}

enum pf_err sqlite_rec_user_update(struct store_tx *tx, const struct store_user *u)
{
    struct sqlite_conn *w = sqlite_rec_conn(tx);
    struct sqlite_q q;
    sqlite_q_begin(&q, w, "SELECT 1 FROM user WHERE id = ?1");
    sqlite_q_i64(&q, u->id);
    bool found = sqlite_q_next(&q);
    enum pf_err e = sqlite_rec_one(&q, found);
    if (e != PFE_OK)
        return e;

    struct user_folded f;
    user_fold(u, &f);
    e = user_unique(w, u, &f);
    if (e != PFE_OK)
        return e;

    names_add(&w->store->names, str_c(f.username));
    sqlite_q_begin(&q, w,
                   "UPDATE user SET username = ?2, username_fold = ?3, email = ?4, email_fold = ?5, password_hash = ?6,"
                   " role = ?7, status = ?8, updated_us = ?9 WHERE id = ?1");
    sqlite_q_i64(&q, u->id);
    sqlite_q_str(&q, str_c(u->username));
    sqlite_q_str(&q, str_c(f.username));
    sqlite_q_str(&q, str_c(u->email));
    sqlite_q_str(&q, str_c(f.email));
    sqlite_q_str(&q, str_c(u->password_hash));
    sqlite_q_i64(&q, u->role);
    sqlite_q_i64(&q, u->status);
    sqlite_q_i64(&q, u->updated_us);
    return sqlite_rec_run(&q);
}

enum pf_err sqlite_rec_user_get(struct store *s, int64_t id, struct store_user *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)), "SELECT " USER_COLUMNS " FROM user WHERE id = ?1");
    sqlite_q_i64(&q, id);
    return user_one(&q, ret);
}

enum pf_err sqlite_rec_user_by_uuid(struct store *s, const uint8_t uuid[16], struct store_user *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)), "SELECT " USER_COLUMNS " FROM user WHERE uuid = ?1");
    sqlite_q_blob(&q, uuid, 16);
    return user_one(&q, ret);
}

enum pf_err sqlite_rec_user_by_name(struct store *s, struct str username, struct store_user *ret)
{
    char folded[IDENT_USERNAME_MAX + 1];
    if (!ident_fold(username, folded, sizeof folded))
        return PFE_NOT_FOUND;
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT " USER_COLUMNS " FROM user WHERE username_fold = ?1 AND status <> 2");
    sqlite_q_str(&q, str_c(folded));
    return user_one(&q, ret);
}

bool sqlite_rec_user_name_free(struct store *s, struct str username)
{
    char folded[IDENT_USERNAME_MAX + 1];
    return !ident_fold(username, folded, sizeof folded) || names_lack(&sqlite_of(s)->names, str_c(folded));
}

enum pf_err sqlite_rec_user_by_email(struct store *s, struct str email, struct store_user *ret)
{
    char folded[IDENT_EMAIL_MAX + 1];
    if (!ident_fold(email, folded, sizeof folded))
        return PFE_NOT_FOUND;
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT " USER_COLUMNS " FROM user WHERE email_fold = ?1 AND status <> 2");
    sqlite_q_str(&q, str_c(folded));
    return user_one(&q, ret);
}

enum pf_err sqlite_rec_user_list(struct store *s, int64_t before_id, int64_t offset, unsigned limit,
                                 struct store_user *out, unsigned *ret_n)
{
    struct sqlite_q q;
    unsigned n = 0;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT " USER_COLUMNS
                   " FROM user WHERE id < ?1 AND status <> 2 ORDER BY id DESC LIMIT ?2 OFFSET ?3");
    sqlite_q_i64(&q, sqlite_rec_before(before_id));
    sqlite_q_i64(&q, limit);
    sqlite_q_i64(&q, offset);
    while (sqlite_q_next(&q))
        user_read(&q, &out[n++]);
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err sqlite_rec_admin_count(struct store *s, int64_t *ret)
{
    struct sqlite_q q;
    int64_t n = 0;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)), "SELECT count(*) FROM user WHERE role = 1 AND status = 0");
    if (sqlite_q_next(&q))
        n = sqlite_col_i64(&q, 0);
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret = n;
    return e;
}

enum pf_err sqlite_rec_users_closing(struct store *s, int64_t before_us, unsigned limit, int64_t *out, unsigned *ret_n)
{
    struct sqlite_q q;
    unsigned n = 0;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT id FROM user WHERE status = 1 AND updated_us < ?1 ORDER BY id LIMIT ?2");
    sqlite_q_i64(&q, before_us);
    sqlite_q_i64(&q, limit);
    while (sqlite_q_next(&q))
        out[n++] = sqlite_col_i64(&q, 0);
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err sqlite_rec_owner_ok(struct sqlite_conn *c, int64_t user, bool *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c, "SELECT 1 FROM user WHERE id = ?1 AND status = 0");
    sqlite_q_i64(&q, user);
    bool ok = sqlite_q_next(&q);
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret = ok;
    return e;
}
