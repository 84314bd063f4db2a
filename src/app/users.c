/* Users: reading, changing, deleting. */
#include "app/identity.h"
#include "app/internal.h"
#include "app/lease.h"
#include "base/log.h"

#include "codec/crypt.h"
#include "codec/uuid.h"

/* A look reads all users. */
enum { CLOSING_EVERY_US = 60 * 1000000, CLOSING_BATCH = 64 };

enum pf_err app_user(struct app *a, int64_t id, bool may_block, struct store_user *ret)
{
    char key[CACHE_KEY_MAX];
    struct str k = app_key_user(key, id);
    size_t n;
    uint64_t token;
    if (id <= 0)
        return PFE_NOT_FOUND;
    if (app_cached(a, k, may_block, ret, sizeof *ret, &n, &token) && n == sizeof *ret)
        return PFE_OK;
    if (!may_block)
        return PFE_BUSY;
    struct store_user u;
    enum pf_err e = store_user_get(a->d.store, id, &u);
    if (e == PFE_OK && u.status == STORE_USER_DELETED)
        e = PFE_NOT_FOUND;
    if (e != PFE_OK) {
        cache_forgo(a->d.cache, token);
        return e;
    }
    explicit_bzero(u.password_hash, sizeof u.password_hash);
    app_cache_fill(a, k, (struct str){(const char *)&u, sizeof u}, TTL_USER_US, token);
    *ret = u;
    return PFE_OK;
}

enum pf_err app_user_uuid(struct app *a, int64_t id, bool may_block, uint8_t ret[16])
{
    struct store_user u;
    enum pf_err e = app_user(a, id, may_block, &u);
    if (e == PFE_NOT_FOUND && may_block)
        e = store_user_get(a->d.store, id, &u);
    if (e == PFE_OK)
        memcpy(ret, u.uuid, 16);
    return e;
}

enum pf_err app_user_ref(struct app *a, struct str ref, bool may_block, int64_t *ret)
{
    struct uuid id;
    int64_t n;
    if (str_to_i64(ref, &n)) {
        if (n <= 0)
            return PFE_NOT_FOUND;
        *ret = n;
        return PFE_OK;
    }
    if (!uuid_parse(ref, &id))
        return PFE_INVALID;
    if (!may_block)
        return PFE_BUSY;
    struct store_user u;
    enum pf_err e = store_user_by_uuid(a->d.store, id.b, &u);
    if (e == PFE_OK)
        *ret = u.id;
    return e;
}

enum pf_err app_user_find(struct app *a, struct str ref, bool may_block, int64_t *ret)
{
    struct store_user u;
    struct uuid id;
    int64_t n;
    enum pf_err e;
    if (str_to_i64(ref, &n))
        e = n > 0 ? app_user(a, n, may_block, &u) : PFE_NOT_FOUND;
    else if (!may_block && (uuid_parse(ref, &id) || !store_user_name_free(a->d.store, ref)))
        return PFE_BUSY;
    else if (!may_block)
        e = PFE_NOT_FOUND;
    else if (uuid_parse(ref, &id))
        e = store_user_by_uuid(a->d.store, id.b, &u);
    else if (ref.n <= IDENT_USERNAME_MAX)
        e = store_user_by_name(a->d.store, ref, &u);
    else
        e = PFE_NOT_FOUND;
    if (e == PFE_OK && u.status == STORE_USER_DELETED)
        e = PFE_NOT_FOUND;
    if (e == PFE_OK)
        *ret = u.id;
    return e;
}

enum pf_err app_users(struct app *a, int64_t before_id, int64_t offset, unsigned limit, struct store_user *out,
                      unsigned *ret_n)
{
    return store_user_list(a->d.store, before_id, offset, limit, out, ret_n);
}

/* Inside a write transaction: is this user the only active administrator? */
static enum pf_err guard_last_admin(struct app *a, const struct store_user *u)
{
    int64_t admins = 0;
    if (u->role != IDENT_ADMIN)
        return PFE_OK;
    enum pf_err e = store_admin_count(a->d.store, &admins);
    return e == PFE_OK && admins <= 1 ? PFE_LAST_ADMIN : e;
}

static enum pf_err change_in(struct app *a, struct store_tx *tx, const struct caller *c, int64_t id,
                             const struct app_user_change *in, const char *new_hash, struct store_user *u)
{
    enum pf_err e = store_user_get(a->d.store, id, u);
    if (e == PFE_OK && u->status != STORE_USER_ACTIVE)
        e = PFE_NOT_FOUND;
    if (e == PFE_OK && in->set_role && in->role != u->role && c->who.role != IDENT_ADMIN)
        e = PFE_FORBIDDEN; /* judged on the row itself: a cached role may be that of a moment ago */
    if (e == PFE_OK && in->set_role && in->role != IDENT_ADMIN)
        e = guard_last_admin(a, u);
    if (e != PFE_OK)
        return e;
    if (in->username.p)
        str_copy(u->username, sizeof u->username, in->username);
    if (in->email.p)
        str_copy(u->email, sizeof u->email, in->email);
    if (in->set_role)
        u->role = in->role;
    if (in->password.p)
        memcpy(u->password_hash, new_hash, sizeof u->password_hash);
    u->updated_us = app_now(a);
    e = store_user_update(tx, u);
    if (e == PFE_OK && in->password.p)
        e = store_session_revoke(tx, id, NULL, u->updated_us);
    if (e == PFE_OK)
        e = app_audit_add_id(a, tx, c, "user.update", "user", id, "ok");
    return e;
}

enum pf_err app_user_change(struct app *a, const struct caller *c, int64_t id, const struct app_user_change *in,
                            struct store_user *ret, struct problem *p)
{
    bool ok = !in->username.p || ident_username_ok(in->username, p);
    ok &= !in->email.p || ident_email_ok(in->email, p);
    ok &= !in->password.p || ident_password_ok(in->password, a->cfg.password_min, p);
    if (!ok)
        return problem_set(p, PFE_INVALID, "%s", "");
    struct store_user u;
    enum pf_err e = app_user(a, id, true, &u);
    char hash[PASSWORD_HASH_MAX] = "";
    if (e == PFE_OK && in->password.p)
        e = password_hash(in->password, a->cfg.bcrypt_cost, hash);
    struct store_tx *tx;
    if (e == PFE_OK)
        e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return problem_set(p, e, "%s", "");
    e = change_in(a, tx, c, id, in, hash, &u);
    if (e == PFE_OK)
        e = store_tx_commit(tx);
    else
        store_tx_rollback(tx);
    e = app_user_touched(a, id, e);
    if (e != PFE_OK)
        return problem_set(p, e, "%s", e == PFE_FORBIDDEN ? "only an administrator can change a role" : "");
    explicit_bzero(u.password_hash, sizeof u.password_hash);
    *ret = u;
    return PFE_OK;
}

/* fence: NULL, or what it is done under. */
static enum pf_err set_status(struct app *a, const struct caller *c, int64_t id, enum store_user_status from,
                              enum store_user_status to, const struct store_fence *fence)
{
    struct store_user u;
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return e;
    int64_t now = app_now(a);
    e = fence ? store_tx_fence(tx, fence) : PFE_OK;
    if (e == PFE_OK)
        e = store_user_get(a->d.store, id, &u);
    if (e == PFE_OK && u.status != from)
        e = PFE_NOT_FOUND;
    if (e == PFE_OK && to == STORE_USER_CLOSING)
        e = guard_last_admin(a, &u);
    if (e == PFE_OK) {
        u.status = to;
        u.updated_us = now;
        e = store_user_update(tx, &u);
    }
    if (e == PFE_OK && to == STORE_USER_DELETED) {
        e = store_apikey_revoke(tx, id, 0, now, NULL);
        if (e == PFE_OK)
            e = store_session_revoke(tx, id, NULL, now);
        if (e == PFE_OK)
            e = app_audit_add_id(a, tx, c, "user.delete", "user", id, "ok");
    }
    if (e == PFE_OK)
        e = store_tx_commit(tx);
    else
        store_tx_rollback(tx);
    return e;
}

/*
 * Three steps, each durable: from CLOSING on nobody can open a further account for the user; then the ledger closes all
 * accounts, or refuses because one holds money; then the user is gone. Whoever is CLOSING is let in nowhere and cannot
 * ask again: what stops half-way, by a crash or because an outcome is not known, app_users_close_due takes up. That the
 * other instances cannot be told of a step is no reason to stop behind it; it is said at the end.
 *
 * Of several instances one does it at a time, and each step is refused to the one whose turn is over (fence): else one
 * could close the accounts behind the back of another, which was told that they hold money and makes the user active.
 */
static enum pf_err delete_user(struct app *a, const struct caller *c, int64_t id, const struct store_fence *fence)
{
    bool begun = false; /* by somebody, earlier: the accounts may be closed already */
    enum pf_err e = set_status(a, c, id, STORE_USER_ACTIVE, STORE_USER_CLOSING, fence);
    if (e == PFE_NOT_FOUND) {
        struct store_user u;
        enum pf_err left = store_user_get(a->d.store, id, &u);
        begun = left == PFE_OK && u.status == STORE_USER_CLOSING;
        if (begun)
            e = PFE_OK;
    }
    (void)!app_user_touched(a, id, e); /* the last step tells the same */
    if (e != PFE_OK)
        return e;
    struct job j = {.kind = JOB_CLOSE, .actor = c->who.user, .user = id, .fence = fence};
    e = app_submit_wait(a, &j);
    if (e == PFE_INTERNAL || e == PFE_FENCED)
        return PFE_INTERNAL;
    if (begun && e != PFE_OK && e != PFE_HOLDS_MONEY)
        return e; /* not a step further, nor back */
    enum store_user_status to = e == PFE_OK ? STORE_USER_DELETED : STORE_USER_ACTIVE;
    enum pf_err last = set_status(a, c, id, STORE_USER_CLOSING, to, fence);
    /* stuck half-way: not an error that says that nothing was done */
    return app_user_touched(a, id, last) == PFE_OK ? e : PFE_INTERNAL;
}

enum pf_err app_user_delete(struct app *a, const struct caller *c, int64_t id, struct problem *p)
{
    /* one at a time: two of the same user must not undo each other's steps */
    struct store_fence fence;
    pthread_mutex_lock(&a->delete_lock);
    bool shared = store_shared(a->d.store);
    enum pf_err e = shared ? app_lease_borrow(a, &fence) : PFE_OK;
    bool turn = e == PFE_OK;
    if (turn)
        e = delete_user(a, c, id, shared ? &fence : NULL);
    if (turn && shared)
        app_lease_return(a, &fence);
    pthread_mutex_unlock(&a->delete_lock);
    if (e == PFE_OK)
        return PFE_OK;
    return problem_set(p, e, "%s",
                       e == PFE_HOLDS_MONEY     ? "the user's accounts are not empty"
                       : e == PFE_BUSY && !turn ? "another instance is deleting a user"
                                                : "");
}

void app_users_close_due(struct app *a)
{
    const struct caller nobody = {0};
    int64_t id[CLOSING_BATCH], now = clock_mono(a->d.clock);
    struct store_fence f;
    unsigned n = 0;
    if (now < a->closing_next_us || !app_lease_fence(a, APP_LEASE_SCHEDULES, &f))
        return;
    a->closing_next_us = now + CLOSING_EVERY_US;
    if (store_users_closing(a->d.store, app_now(a) - APP_CLOSING_US, CLOSING_BATCH, id, &n) != PFE_OK)
        return;
    for (unsigned i = 0; i < n; i++) {
        struct problem p = {0};
        enum pf_err e = app_user_delete(a, &nobody, id[i], &p);
        log_msg(LOG_WARN, "the deletion of a user had stopped half-way", LOG_I("user", id[i]),
                LOG_S("outcome", e == PFE_OK ? "deleted" : err_info(e)->slug));
        if (e == PFE_BUSY) /* another instance deletes; due schedules are not to wait for it */
            return;
    }
}
