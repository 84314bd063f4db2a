/* Ticketing: registration by email address, and a token at login. */
#include "api/ticketing/ticketing.h"

#include <stdio.h>

#include "base/rand.h"

enum { TRIES = 8, SUFFIX = 6 };

static void render_user(void *ctx, const struct store_user *u, struct app_idem *idem)
{
    struct api_call *c = ctx;
    struct jw w = api_out(c);
    dto_user(&w, u, false);
    idem->status = c->r->out.failed ? 0 : 201;
    idem->body = buf_as_str(&c->r->out);
}

/* A username that nobody has, of the email's local part; what looks like a number is not taken for one. */
static bool make_username(struct api_call *c, struct str email, char out[IDENT_USERNAME_MAX + 1])
{
    const char *at = memrchr(email.p, '@', email.n);
    struct str local = {email.p, (size_t)(at - email.p)};
    int64_t number, nobody;
    if (local.n > IDENT_USERNAME_MAX - SUFFIX - 1)
        local.n = IDENT_USERNAME_MAX - SUFFIX - 1;
    struct problem p = {0};
    bool plain = !str_to_i64(local, &number) && ident_username_ok(local, &p);
    for (unsigned i = 0; i < TRIES; i++) {
        if (i || !plain)
            snprintf(out, IDENT_USERNAME_MAX + 1, "%.*s-%06x", plain || str_to_i64(local, &number) ? (int)local.n : 4,
                     plain || str_to_i64(local, &number) ? local.p : "user", (unsigned)(rand_u64() & 0xffffff));
        else
            str_copy(out, IDENT_USERNAME_MAX + 1, local);
        enum pf_err e = app_user_find(c->app, str_c(out), true, &nobody);
        if (e == PFE_NOT_FOUND)
            return true;
        if (e != PFE_OK) {
            problem_set(&c->p, e, "%s", "");
            return false;
        }
    }
    problem_set(&c->p, PFE_DUP_USERNAME, "no free username could be made of the email address: send one");
    return false;
}

enum api_step ticketing_register(struct api_call *c)
{
    char username[IDENT_USERNAME_MAX + 1];
    struct app_registration in = {.username = c->body[2].s, .email = c->body[0].s, .password = c->body[1].s};
    struct store_user u;
    if (!c->body[2].set) {
        if (!make_username(c, in.email, username))
            return API_DONE;
        in.username = str_c(username);
    }
    if (app_register(c->app, &c->caller, &in, &c->idem, render_user, c, &u, &c->p) != PFE_OK)
        return API_DONE;
    if (c->r->out.n == 0)
        render_user(c, &u, &(struct app_idem){0});
    return api_ok(c, 201);
}

enum api_step ticketing_login(struct api_call *c)
{
    struct store_user u;
    struct app_tokens t;
    if (app_login(c->app, &c->caller, STR_NONE, c->body[0].s, c->body[1].s, true, &u, &c->p) != PFE_OK)
        return API_DONE;
    struct caller who = c->caller;
    who.who.user = u.id;
    c->r->log_principal = u.id;
    enum pf_err e = app_session_start(c->app, &who, &u, &t);
    if (e != PFE_OK)
        return api_fail(c, e, "");
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kz(&w, "token", t.access);
    jw_kz(&w, "refresh_token", t.refresh);
    jw_kz(&w, "token_type", "Bearer");
    jw_kint(&w, "expires_in", t.expires_in_s);
    jw_key(&w, "user");
    dto_user(&w, &u, false);
    jw_end_obj(&w);
    return api_ok(c, 200);
}
