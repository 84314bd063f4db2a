/* Registration and passwords. */
#include "app/admin.h"
#include "app/identity.h"
#include "app/internal.h"

#include "codec/crypt.h"
#include "codec/uuid.h"

enum { LOGIN_TRIES = 5, LOGIN_WINDOW_US = 60 * 1000000 };

static enum pf_err insert_user(struct app *a, struct store_tx *tx, const struct caller *c, struct app_idem *idem,
                               app_user_render render, void *ctx, struct store_user *u)
{
    bool by_admin = c->who.role == IDENT_ADMIN;
    int64_t admins = 0;
    enum pf_err e = PFE_OK;
    if (u->role == IDENT_ADMIN && !by_admin)
        e = store_admin_count(a->d.store, &admins); /* inside the write transaction: two cannot both be the first */
    if (e == PFE_OK && admins)
        e = PFE_FORBIDDEN;
    if (e == PFE_OK)
        e = store_user_insert(tx, u);
    if (e == PFE_OK)
        e = app_audit_add_id(a, tx, c, "user.create", "user", u->id, "ok");
    if (e == PFE_OK && idem->key.n) {
        render(ctx, u, idem);
        e = app_idem_store(tx, idem);
    }
    return e;
}

enum pf_err app_register(struct app *a, const struct caller *c, const struct app_registration *in,
                         struct app_idem *idem, app_user_render render, void *ctx, struct store_user *ret,
                         struct problem *p)
{
    bool ok = ident_username_ok(in->username, p);
    ok &= ident_email_ok(in->email, p);
    ok &= ident_password_ok(in->password, a->cfg.password_min, p);
    if (!ok)
        return problem_set(p, PFE_INVALID, "%s", "");
    struct store_user u = {.role = in->role, .created_us = app_now(a), .updated_us = app_now(a)};
    struct uuid id = uuid_v7(u.created_us);
    memcpy(u.uuid, id.b, sizeof u.uuid);
    str_copy(u.username, sizeof u.username, in->username);
    str_copy(u.email, sizeof u.email, in->email);
    enum pf_err e = password_hash(in->password, a->cfg.bcrypt_cost, u.password_hash);
    if (e != PFE_OK)
        return problem_set(p, e, "%s", "");
    struct store_tx *tx;
    e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return problem_set(p, e, "%s", "");
    e = insert_user(a, tx, c, idem, render, ctx, &u);
    if (e == PFE_OK) {
        e = store_tx_commit(tx);
    } else {
        store_tx_rollback(tx);
    }
    if (e == PFE_FORBIDDEN) {
        app_audit(a, c, "user.create", "user", STR_NONE, err_info(e)->slug);
        return problem_set(p, e, "there is an administrator already; only an administrator can make another");
    }
    if (e != PFE_OK)
        return problem_set(p, e, "%s", "");
    metric_inc(a->registrations, 1);
    *ret = u;
    explicit_bzero(ret->password_hash, sizeof ret->password_hash);
    return PFE_OK;
}

static struct str login_key(char out[CACHE_KEY_MAX], const char *what, struct str address, struct str account)
{
    /* hashed: bounded, and free of what people type as names */
    char text[64 + IDENT_EMAIL_MAX + 2];
    uint8_t h[SHA256_LEN];
    size_t an = address.n < 63 ? address.n : 63;
    memcpy(text, address.p, an);
    text[an] = ' ';
    if (!ident_fold(account, text + an + 1, sizeof text - an - 1))
        text[an + 1] = 0;
    sha256_of((struct str){text, an + 1 + strlen(text + an + 1)}, h);
    size_t n = strlen(what);
    memcpy(out, what, n);
    hex_encode(h, 16, out + n);
    return (struct str){out, n + 32};
}

static enum pf_err refuse_login(struct app *a, const struct caller *c, struct str account, enum pf_err e)
{
    metric_inc(a->logins_refused, 1);
    struct str shown = {account.p, account.n < IDENT_USERNAME_MAX ? account.n : IDENT_USERNAME_MAX};
    while (shown.n && !str_utf8_ok(shown)) /* cut at a whole character */
        shown.n--;
    app_audit(a, c, "login.refused", "user", shown, err_info(e)->slug);
    return e;
}

enum pf_err app_login(struct app *a, const struct caller *c, struct str username, struct str email, struct str password,
                      bool count_all, struct store_user *ret, struct problem *p)
{
    struct str account = username.n ? username : email;
    struct store_user u;
    enum pf_err e =
        username.n ? store_user_by_name(a->d.store, username, &u) : store_user_by_email(a->d.store, email, &u);
    if (e != PFE_OK && e != PFE_NOT_FOUND)
        return problem_set(p, e, "%s", "");
    if (e == PFE_OK) /* by either name it is one account, with one count */
        account = str_c(u.username);
    char key[CACHE_KEY_MAX];
    struct str k = login_key(key, "login:", c->address, account);
    struct cache_rate r;
    /* successes count where the surface says so; otherwise look only, and count the failure below */
    cache_rate_exact(a->d.cache, k, LOGIN_TRIES, LOGIN_WINDOW_US, count_all ? 1 : 0, &r);
    if (!r.allowed) {
        metric_inc(a->logins_limited, 1);
        char once[CACHE_KEY_MAX];
        struct cache_rate first;
        cache_rate(a->d.cache, login_key(once, "login-refused:", c->address, account), 1, LOGIN_WINDOW_US, 1, &first);
        if (first.allowed) /* one row a window: a flood of refused tries must not become a flood of writes */
            (void)refuse_login(a, c, account, PFE_RATE_LIMITED);
        p->retry_after_s = (int)((r.reset_us + 999999) / 1000000);
        return problem_set(p, PFE_RATE_LIMITED, "too many login attempts; %d a minute are allowed", LOGIN_TRIES);
    }
    bool known = e == PFE_OK && u.status == STORE_USER_ACTIVE;
    e = password_check(password, known ? u.password_hash : a->dummy_hash);
    if (e == PFE_NOMEM) /* says nothing about the password, so it is no failed try either */
        return problem_set(p, e, "%s", "");
    if (!known || e != PFE_OK) {
        if (!count_all)
            cache_rate_exact(a->d.cache, k, LOGIN_TRIES, LOGIN_WINDOW_US, 1, &r);
        return problem_set(p, refuse_login(a, c, account, PFE_BAD_CREDENTIALS), "the name or the password is wrong");
    }
    metric_inc(a->logins_ok, 1);
    *ret = u;
    explicit_bzero(ret->password_hash, sizeof ret->password_hash);
    return PFE_OK;
}

uint64_t app_logins_limited(const struct app *a)
{
    return metric_counter_value(a->logins_limited);
}
