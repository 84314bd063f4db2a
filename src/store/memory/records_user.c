#include "store/memory/records.h"

static const struct store_user *user_at(const struct rec_rows *rows, size_t i)
{
    return rows->v[i];
}

static const struct store_user *find_name(const struct rec_rows *rows, struct str username)
{
    for (size_t i = 0; i < rows->n; i++) {
        const struct store_user *u = user_at(rows, i);
        if (u->status != STORE_USER_DELETED && str_eq_nocase(str_c(u->username), username))
            return u;
    }
    return NULL;
}

static const struct store_user *find_email(const struct rec_rows *rows, struct str email)
{
    for (size_t i = 0; i < rows->n; i++) {
        const struct store_user *u = user_at(rows, i);
        if (u->status != STORE_USER_DELETED && str_eq_nocase(str_c(u->email), email))
            return u;
    }
    return NULL;
}

static const struct store_user *find_uuid(const struct rec_rows *rows, const uint8_t uuid[16])
{
    for (size_t i = 0; i < rows->n; i++) {
        if (memcmp(user_at(rows, i)->uuid, uuid, 16) == 0)
            return user_at(rows, i);
    }
    return NULL;
}

static enum pf_err user_unique(const struct rec_rows *rows, const struct store_user *u)
{
    if (u->status == STORE_USER_DELETED)
        return PFE_OK;
    const struct store_user *other = find_name(rows, str_c(u->username));
    if (other && other->id != u->id)
        return PFE_DUP_USERNAME;
    other = find_email(rows, str_c(u->email));
    return other && other->id != u->id ? PFE_DUP_EMAIL : PFE_OK;
}

enum pf_err memory_rec_user_insert(struct store_tx *tx, struct store_user *u)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_USER);
    if (!rows)
        return PFE_NOMEM;
    struct store_user fresh = *u;
    fresh.id = (int64_t)rows->n + 1;
    enum pf_err e = user_unique(rows, &fresh);
    if (e == PFE_OK && find_uuid(rows, u->uuid))
        e = PFE_WRONG_STATE;
    if (e == PFE_OK)
        e = memory_rec_add(tx, REC_USER, &fresh);
    if (e == PFE_OK)
        u->id = fresh.id;
    return e;
}

enum pf_err memory_rec_user_update(struct store_tx *tx, const struct store_user *u)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_USER);
    if (!rows)
        return PFE_NOMEM;
    const struct store_user *old = memory_rec_by_id(rows, u->id);
    if (!old)
        return PFE_NOT_FOUND;
    enum pf_err e = user_unique(rows, u);
    if (e != PFE_OK)
        return e;
    struct store_user next = *u;
    memcpy(next.uuid, old->uuid, sizeof next.uuid);
    next.created_us = old->created_us;
    return memory_rec_replace(tx, REC_USER, (size_t)u->id - 1, &next);
}

/* Ends the read that found u, or did not. */
static enum pf_err user_give(struct store *s, const struct store_user *u, struct store_user *ret)
{
    if (u)
        *ret = *u;
    memory_rec_read_end(s);
    return u ? PFE_OK : PFE_NOT_FOUND;
}

enum pf_err memory_rec_user_get(struct store *s, int64_t id, struct store_user *ret)
{
    return user_give(s, memory_rec_by_id(memory_rec_read(s, REC_USER), id), ret);
}

enum pf_err memory_rec_user_by_uuid(struct store *s, const uint8_t uuid[16], struct store_user *ret)
{
    return user_give(s, find_uuid(memory_rec_read(s, REC_USER), uuid), ret);
}

enum pf_err memory_rec_user_by_name(struct store *s, struct str username, struct store_user *ret)
{
    return user_give(s, find_name(memory_rec_read(s, REC_USER), username), ret);
}

enum pf_err memory_rec_user_by_email(struct store *s, struct str email, struct store_user *ret)
{
    return user_give(s, find_email(memory_rec_read(s, REC_USER), email), ret);
}

enum pf_err memory_rec_user_list(struct store *s, int64_t before_id, int64_t offset, unsigned limit,
                                 struct store_user *out, unsigned *ret_n)
{
    const struct rec_rows *rows = memory_rec_read(s, REC_USER);
    unsigned n = 0;
    for (size_t i = memory_rec_before(rows, before_id); i-- > 0 && n < limit;) {
        if (user_at(rows, i)->status == STORE_USER_DELETED)
            continue;
        if (offset > 0)
            offset--;
        else
            out[n++] = *user_at(rows, i);
    }
    memory_rec_read_end(s);
    *ret_n = n;
    return PFE_OK;
}

enum pf_err memory_rec_admin_count(struct store *s, int64_t *ret)
{
    const struct rec_rows *rows = memory_rec_read(s, REC_USER);
    int64_t n = 0;
    for (size_t i = 0; i < rows->n; i++)
        n += user_at(rows, i)->role == IDENT_ADMIN && user_at(rows, i)->status == STORE_USER_ACTIVE;
    memory_rec_read_end(s);
    *ret = n;
    return PFE_OK;
}

enum pf_err memory_rec_users_closing(struct store *s, int64_t before_us, unsigned limit, int64_t *out, unsigned *ret_n)
{
    const struct rec_rows *rows = memory_rec_read(s, REC_USER);
    unsigned n = 0;
    for (size_t i = 0; i < rows->n && n < limit; i++)
        if (user_at(rows, i)->status == STORE_USER_CLOSING && user_at(rows, i)->updated_us < before_us)
            out[n++] = user_at(rows, i)->id;
    memory_rec_read_end(s);
    *ret_n = n;
    return PFE_OK;
}

bool memory_rec_owner_ok(struct memory_store *s, int64_t user)
{
    const struct store_user *u = memory_rec_by_id(memory_rec_read(&s->base, REC_USER), user);
    bool ok = u && u->status == STORE_USER_ACTIVE;
    memory_rec_read_end(&s->base);
    return ok;
}
