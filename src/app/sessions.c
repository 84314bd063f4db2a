/* API keys, access and refresh tokens. */
#include "app/identity.h"
#include "app/internal.h"

#include <stdio.h>

#include "base/rand.h"
#include "codec/crypt.h"
#include "codec/jwt.h"
#include "codec/uuid.h"

/* ---- API keys ---- */

static enum pf_err insert_key(struct app *a, struct store_tx *tx, const struct caller *c, int64_t user,
                              char ret[APP_APIKEY_LEN + 1])
{
    memcpy(ret, "pf_", 3);
    base62_random32(ret + 3);
    struct store_apikey k = {.user = user, .created_us = app_now(a)};
    sha256_of((struct str){ret, APP_APIKEY_LEN}, k.hash);
    memcpy(k.prefix, ret, sizeof k.prefix - 1);
    enum pf_err e = store_apikey_insert(tx, &k);
    return e == PFE_OK ? app_audit_add_id(a, tx, c, "api_key.create", "api_key", k.id, "ok") : e;
}

static enum pf_err finish(struct store_tx *tx, enum pf_err e)
{
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

enum pf_err app_apikey_issue(struct app *a, const struct caller *c, int64_t user, char ret[APP_APIKEY_LEN + 1])
{
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return e;
    e = insert_key(a, tx, c, user, ret);
    if (e == PFE_OK)
        e = app_audit_add_id(a, tx, c, "login", "user", user, "ok");
    return finish(tx, e);
}

enum pf_err app_apikey_replace(struct app *a, const struct caller *c, char ret[APP_APIKEY_LEN + 1], struct problem *p)
{
    if (!c->who.user)
        return problem_set(p, PFE_UNAUTHENTICATED, "send the key to replace in X-API-Key");
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return problem_set(p, e, "%s", "");
    int64_t live = 1;
    if (c->who.by == CRED_APIKEY) {
        e = store_apikey_revoke(tx, c->who.user, c->who.key_id, app_now(a), &live);
        if (e == PFE_OK && live == 0) /* two replacements of one key at once: the second loses */
            e = PFE_BAD_CREDENTIALS;
        if (e == PFE_OK)
            e = app_audit_add_id(a, tx, c, "api_key.revoke", "api_key", c->who.key_id, "ok");
    }
    if (e == PFE_OK)
        e = insert_key(a, tx, c, c->who.user, ret);
    e = app_user_touched(a, c->who.user, finish(tx, e));
    return e == PFE_OK ? PFE_OK : problem_set(p, e, "%s", "");
}

enum pf_err app_apikey_revoke(struct app *a, const struct caller *c, int64_t user, int64_t id)
{
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return e;
    int64_t live = 0;
    e = store_apikey_revoke(tx, user, id, app_now(a), &live);
    if (e == PFE_OK && live == 0)
        e = PFE_NOT_FOUND;
    if (e == PFE_OK)
        e = app_audit_add_id(a, tx, c, "api_key.revoke", "api_key", id, "ok");
    return app_user_touched(a, user, finish(tx, e));
}

enum pf_err app_apikeys(struct app *a, int64_t user, int64_t before_id, unsigned limit, struct store_apikey *out,
                        unsigned *ret_n)
{
    return store_apikey_list(a->d.store, user, before_id, limit, out, ret_n);
}

/* ---- sessions ---- */

/* A token of the session. jti: its family, '-', and 128 random bits. */
static bool sign(const struct app *a, const uint8_t family[16], const struct store_user *u, const char *typ,
                 int64_t now_s, int64_t ttl_s, char out[APP_TOKEN_MAX])
{
    char jti[32 + 1 + 32 + 1];
    uint8_t random[16];
    rand_bytes(random, sizeof random);
    hex_encode(family, 16, jti);
    jti[32] = '-';
    hex_encode(random, sizeof random, jti + 33);
    struct jwt_claims c = {.sub = u->id,
                           .role = str_c(ident_role_name(u->role)),
                           .iss = APP_TOKEN_ISSUER,
                           .aud = APP_TOKEN_AUDIENCE,
                           .jti = str_c(jti),
                           .typ = str_c(typ),
                           .iat = now_s,
                           .exp = now_s + ttl_s};
    return jwt_sign(a->cfg.jwt_secret, &c, out) > 0;
}

static enum pf_err issue(struct app *a, struct store_tx *tx, const uint8_t family[16], const struct store_user *u,
                         int64_t now, struct app_tokens *ret)
{
    ret->expires_in_s = APP_ACCESS_TTL_S;
    if (!sign(a, family, u, "access", now / 1000000, APP_ACCESS_TTL_S, ret->access) ||
        !sign(a, family, u, "refresh", now / 1000000, APP_REFRESH_TTL_S, ret->refresh))
        return PFE_INTERNAL;
    struct store_refresh r = {.created_us = now, .expires_us = now + APP_REFRESH_TTL_S * 1000000LL};
    sha256_of(str_c(ret->refresh), r.hash);
    memcpy(r.family, family, 16);
    return store_refresh_insert(tx, &r);
}

/* Is it a refresh token of ours, by its signature and claims? Whether it was used, the store knows. */
static enum pf_err check_refresh(struct app *a, struct str token)
{
    char block[8192];
    struct arena arena;
    struct jwt_claims c;
    arena_init(&arena, block, sizeof block, sizeof block);
    enum jwt_err e = jwt_verify(&arena, a->cfg.jwt_secret, token, APP_TOKEN_ISSUER, APP_TOKEN_AUDIENCE, STR("refresh"),
                                app_now(a) / 1000000, &c);
    arena_reset(&arena);
    return e == JWT_OK ? PFE_OK : e == JWT_NOMEM ? PFE_NOMEM : PFE_BAD_CREDENTIALS;
}

enum pf_err app_session_start(struct app *a, const struct caller *c, const struct store_user *u, struct app_tokens *ret)
{
    int64_t now = app_now(a);
    struct uuid family = uuid_v7(now);
    struct store_session s = {.user = u->id, .created_us = now, .expires_us = now + APP_REFRESH_TTL_S * 1000000LL};
    memcpy(s.family, family.b, 16);
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return e;
    e = store_session_insert(tx, &s);
    if (e == PFE_OK)
        e = issue(a, tx, s.family, u, now, ret);
    if (e == PFE_OK)
        e = app_audit_add_id(a, tx, c, "login", "user", u->id, "ok");
    return finish(tx, e);
}

static enum pf_err revoke_family(struct app *a, const struct caller *c, int64_t user, const uint8_t family[16],
                                 const char *action, const char *outcome)
{
    char hex[33];
    hex_encode(family, 16, hex);
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return e;
    e = store_session_revoke(tx, user, family, app_now(a));
    if (e == PFE_OK)
        e = app_audit_add(a, tx, c, action, "session", str_c(hex), outcome);
    return app_user_touched(a, user, finish(tx, e));
}

static enum pf_err refresh_in(struct app *a, struct store_tx *tx, const struct caller *c, const uint8_t hash[32],
                              const uint8_t family[16], const struct store_user *u, struct app_tokens *ret)
{
    int64_t now = app_now(a);
    enum pf_err e = store_refresh_use(tx, hash, now);
    if (e == PFE_OK)
        e = issue(a, tx, family, u, now, ret);
    if (e == PFE_OK)
        e = app_audit_add_id(a, tx, c, "session.refresh", "user", u->id, "ok");
    return e;
}

enum pf_err app_session_refresh(struct app *a, const struct caller *c, struct str refresh, struct store_user *ret_user,
                                struct app_tokens *ret, struct problem *p)
{
    static const char invalid[] = "the refresh token is not valid";
    uint8_t hash[32];
    struct store_refresh r;
    struct store_session s;
    enum pf_err e = check_refresh(a, refresh);
    if (e != PFE_OK)
        return problem_set(p, e, "%s", e == PFE_BAD_CREDENTIALS ? invalid : "");
    sha256_of(refresh, hash);
    e = store_refresh_get(a->d.store, hash, &r);
    if (e == PFE_OK)
        e = store_session_get(a->d.store, r.family, &s);
    if (e == PFE_NOT_FOUND)
        return problem_set(p, PFE_BAD_CREDENTIALS, invalid);
    if (e != PFE_OK)
        return problem_set(p, e, "%s", "");
    struct caller who = *c;
    who.who.user = s.user;
    e = store_user_get(a->d.store, s.user, ret_user);
    if (e != PFE_OK && e != PFE_NOT_FOUND)
        return problem_set(p, e, "%s", "");
    if (e != PFE_OK || ret_user->status != STORE_USER_ACTIVE || s.revoked_us || r.expires_us <= app_now(a))
        return problem_set(p, PFE_BAD_CREDENTIALS, invalid);
    struct store_tx *tx;
    e = r.used_us ? PFE_WRONG_STATE : store_tx_begin(a->d.store, &tx);
    if (e == PFE_OK)
        e = finish(tx, refresh_in(a, tx, &who, hash, r.family, ret_user, ret));
    if (e == PFE_WRONG_STATE) { /* used before: somebody has a copy */
        e = revoke_family(a, &who, s.user, r.family, "session.reuse", err_info(PFE_BAD_CREDENTIALS)->slug);
        return problem_set(p, e == PFE_OK ? PFE_BAD_CREDENTIALS : e, invalid);
    }
    explicit_bzero(ret_user->password_hash, sizeof ret_user->password_hash);
    return e == PFE_OK ? PFE_OK : problem_set(p, e, "%s", "");
}

enum pf_err app_session_end(struct app *a, const struct caller *c, struct str refresh, struct problem *p)
{
    uint8_t family[16];
    if (refresh.n) {
        uint8_t hash[32];
        struct store_refresh r;
        struct store_session s;
        sha256_of(refresh, hash);
        enum pf_err e = store_refresh_get(a->d.store, hash, &r);
        if (e == PFE_OK)
            e = store_session_get(a->d.store, r.family, &s);
        if (e == PFE_NOT_FOUND || (e == PFE_OK && s.user != c->who.user))
            return problem_set(p, PFE_BAD_CREDENTIALS, "the refresh token is not valid");
        if (e != PFE_OK)
            return problem_set(p, e, "%s", "");
        memcpy(family, r.family, 16);
    } else if (c->who.by == CRED_TOKEN) {
        memcpy(family, c->who.family, 16);
    } else {
        return problem_field(p, "body", "refresh_token", "missing", "is required without an access token");
    }
    enum pf_err e = revoke_family(a, c, c->who.user, family, "logout", "ok");
    return e == PFE_OK ? PFE_OK : problem_set(p, e, "%s", "");
}
