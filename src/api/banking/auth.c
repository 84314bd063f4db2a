/* Banking: sessions, and users by UUID. */
#include "api/banking/banking.h"

static void write_tokens(struct api_call *c, const struct app_tokens *t, const struct store_user *u)
{
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kz(&w, "access_token", t->access);
    jw_kz(&w, "refresh_token", t->refresh);
    jw_kz(&w, "token_type", "Bearer");
    jw_kint(&w, "expires_in", t->expires_in_s);
    jw_key(&w, "user");
    dto_user(&w, u, true);
    jw_end_obj(&w);
}

enum api_step banking_login(struct api_call *c)
{
    struct store_user u;
    struct app_tokens t;
    if (!c->body[0].set && !c->body[1].set) {
        problem_field(&c->p, "body", "email", "missing", "email or username is required");
        return API_DONE;
    }
    if (app_login(c->app, &c->caller, c->body[0].s, c->body[1].s, c->body[2].s, true, &u, &c->p) != PFE_OK)
        return API_DONE;
    struct caller who = c->caller;
    who.who.user = u.id;
    c->r->log_principal = u.id;
    enum pf_err e = app_session_start(c->app, &who, &u, &t);
    if (e != PFE_OK)
        return api_fail(c, e, "");
    write_tokens(c, &t, &u);
    return api_ok(c, 200);
}

enum api_step banking_refresh(struct api_call *c)
{
    struct store_user u;
    struct app_tokens t;
    if (app_session_refresh(c->app, &c->caller, c->body[0].s, &u, &t, &c->p) != PFE_OK)
        return API_DONE;
    c->r->log_principal = u.id;
    write_tokens(c, &t, &u);
    return api_ok(c, 200);
}

enum api_step banking_logout(struct api_call *c)
{
    if (app_session_end(c->app, &c->caller, c->body[0].s, &c->p) != PFE_OK)
        return API_DONE;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kz(&w, "message", "logged out");
    jw_end_obj(&w);
    return api_ok(c, 200);
}

enum api_step banking_users(struct api_call *c)
{
    return api_user_page(c, 0);
}
