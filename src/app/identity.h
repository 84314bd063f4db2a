/*
 * identity: users, passwords, API keys, sessions. Everything here is blocking unless it says otherwise, and writes its
 * own audit rows in the commit of its effect.
 */
#ifndef APP_IDENTITY_H
#define APP_IDENTITY_H

#include "app/app.h"

enum { APP_APIKEY_LEN = 3 + 43, APP_TOKEN_MAX = 1024 };
enum { APP_ACCESS_TTL_S = 15 * 60, APP_REFRESH_TTL_S = 7 * 24 * 3600 };

struct app_registration {
    struct str username, email, password;
    enum ident_role role;
};

/* Called inside the transaction when idem->key is set: fills idem->status and ->body from the user. */
typedef void (*app_user_render)(void *ctx, const struct store_user *u, struct app_idem *idem);

/* Role admin: only while there is no admin, or by an admin with a credential. PFE_INVALID, PFE_DUP_*, PFE_FORBIDDEN. */
enum pf_err app_register(struct app *a, const struct caller *c, const struct app_registration *in,
                         struct app_idem *idem, app_user_render render, void *ctx, struct store_user *ret,
                         struct problem *p) MUSTCHECK;

/* Username or email (whichever .n > 0) and password. PFE_BAD_CREDENTIALS, and PFE_RATE_LIMITED from the sixth try a
   minute per address and account. count_all: successes count too (Banking); else failures only. The same time for
   unknown names. */
enum pf_err app_login(struct app *a, const struct caller *c, struct str username, struct str email, struct str password,
                      bool count_all, struct store_user *ret, struct problem *p) MUSTCHECK;

/* Logins refused by the limit since start. */
uint64_t app_logins_limited(const struct app *a);

/* A fresh key for a user who just logged in. */
enum pf_err app_apikey_issue(struct app *a, const struct caller *c, int64_t user,
                             char ret[APP_APIKEY_LEN + 1]) MUSTCHECK;
/* Replaces the key that was sent (with a token: adds one). */
enum pf_err app_apikey_replace(struct app *a, const struct caller *c, char ret[APP_APIKEY_LEN + 1],
                               struct problem *p) MUSTCHECK;
/* Live keys, newest first; hashes are left zero. */
enum pf_err app_apikeys(struct app *a, int64_t user, int64_t before_id, unsigned limit, struct store_apikey *out,
                        unsigned *ret_n) MUSTCHECK;
/* PFE_NOT_FOUND: the user has no such live key. */
enum pf_err app_apikey_revoke(struct app *a, const struct caller *c, int64_t user, int64_t id) MUSTCHECK;

struct app_tokens {
    char access[APP_TOKEN_MAX];
    char refresh[APP_TOKEN_MAX];
    int64_t expires_in_s;
};
enum pf_err app_session_start(struct app *a, const struct caller *c, const struct store_user *u,
                              struct app_tokens *ret) MUSTCHECK;
/* Single use: reuse revokes the whole family. PFE_BAD_CREDENTIALS. */
enum pf_err app_session_refresh(struct app *a, const struct caller *c, struct str refresh, struct store_user *ret_user,
                                struct app_tokens *ret, struct problem *p) MUSTCHECK;
/* The session of the caller's token, or that of a refresh token of the caller's (refresh.n > 0). */
enum pf_err app_session_end(struct app *a, const struct caller *c, struct str refresh, struct problem *p) MUSTCHECK;

/* Users that are not deleted. From the cache when it is there; may_block false gives PFE_BUSY on a miss. The password
 * hash is left empty. */
enum pf_err app_user(struct app *a, int64_t id, bool may_block, struct store_user *ret) MUSTCHECK;
/* The UUID of any user that ever was, deleted ones too. As app_user otherwise. */
enum pf_err app_user_uuid(struct app *a, int64_t id, bool may_block, uint8_t ret[16]) MUSTCHECK;
/* "17", or a UUID. PFE_NOT_FOUND; PFE_BUSY as above; PFE_INVALID: neither form. */
enum pf_err app_user_ref(struct app *a, struct str ref, bool may_block, int64_t *ret) MUSTCHECK;
/* A user that is there, by number, UUID or username, whichever fits first. PFE_NOT_FOUND: nobody; PFE_BUSY as above. */
enum pf_err app_user_find(struct app *a, struct str ref, bool may_block, int64_t *ret) MUSTCHECK;
/* Newest first. */
enum pf_err app_users(struct app *a, int64_t before_id, int64_t offset, unsigned limit, struct store_user *out,
                      unsigned *ret_n) MUSTCHECK;

struct app_user_change {
    struct str username, email, password; /* .p == NULL: unchanged */
    bool set_role;
    enum ident_role role;
};
/* role only by an admin; the last admin stays one (PFE_LAST_ADMIN). A new password ends all sessions of the user. */
enum pf_err app_user_change(struct app *a, const struct caller *c, int64_t id, const struct app_user_change *in,
                            struct store_user *ret, struct problem *p) MUSTCHECK;
/* Closes the accounts, revokes keys and sessions. PFE_HOLDS_MONEY, PFE_LAST_ADMIN, PFE_NOT_FOUND. PFE_INTERNAL: it is
   not known, or other instances could not be told; app_users_close_due sees to the rest. */
enum pf_err app_user_delete(struct app *a, const struct caller *c, int64_t id, struct problem *p) MUSTCHECK;
/* Deletions that stopped half-way at least so long ago, µs, are finished, or taken back if an account holds money. For
   the scheduler's thread alone; looks once a minute, and under the lease of the schedules only. */
enum { APP_CLOSING_US = 60 * 1000000 };
void app_users_close_due(struct app *a);

#endif
