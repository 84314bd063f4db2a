/* PayFlow: users, logins, API keys. */
#include "api/payflow/payflow.h"

static void render_user(void *ctx, const struct store_user *u, struct app_idem *idem)
{
    struct api_call *c = ctx;
    struct jw w = api_out(c);
    dto_user(&w, u, c->route->banking);
    idem->status = c->r->out.failed ? 0 : 201;
    idem->body = buf_as_str(&c->r->out);
}

enum api_step api_register(struct api_call *c)
{
    enum ident_role role = IDENT_USER;
    if (c->body[3].set)
        ident_role_parse(c->body[3].s, &role);
    struct app_registration in = {c->body[0].s, c->body[1].s, c->body[2].s, role};
    struct store_user u;
    if (app_register(c->app, &c->caller, &in, &c->idem, render_user, c, &u, &c->p) != PFE_OK)
        return API_DONE;
    if (c->r->out.n == 0)
        render_user(c, &u, &(struct app_idem){0});
    return api_ok(c, 201);
}

enum api_step payflow_login(struct api_call *c)
{
    struct store_user u;
    char key[APP_APIKEY_LEN + 1];
    if (!c->body[0].set && !c->body[1].set) {
        problem_field(&c->p, "body", "username", "missing", "username or email is required");
        return API_DONE;
    }
    if (app_login(c->app, &c->caller, c->body[0].s, c->body[1].s, c->body[2].s, false, &u, &c->p) != PFE_OK)
        return API_DONE;
    struct caller who = c->caller;
    who.who.user = u.id;
    c->r->log_principal = u.id;
    enum pf_err e = app_apikey_issue(c->app, &who, u.id, key);
    if (e != PFE_OK)
        return api_fail(c, e, "");
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kz(&w, "api_key", key);
    jw_key(&w, "user");
    dto_user(&w, &u, false);
    jw_end_obj(&w);
    return api_ok(c, 200);
}

enum api_step payflow_key_replace(struct api_call *c)
{
    char key[APP_APIKEY_LEN + 1];
    if (app_apikey_replace(c->app, &c->caller, key, &c->p) != PFE_OK)
        return API_DONE;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kz(&w, "api_key", key);
    jw_end_obj(&w);
    return api_ok(c, 200);
}

static enum api_step show_user(struct api_call *c, int64_t id)
{
    struct store_user u;
    enum api_step step;
    if (api_failed(c, app_user(c->app, id, c->may_block, &u), "there is no such user", &step))
        return step;
    struct jw w = api_out(c);
    dto_user(&w, &u, c->route->banking);
    return api_ok(c, 200);
}

enum api_step api_user_get(struct api_call *c)
{
    return show_user(c, c->subject);
}

enum api_step api_user_page(struct api_call *c, unsigned at)
{
    struct api_page page;
    if (!api_page(c, at, &page))
        return API_DONE;
    struct store_user *u = arena_alloc(&c->r->arena, (page.limit + 1) * sizeof *u);
    unsigned n = 0;
    enum pf_err e = u ? app_users(c->app, page.cursor, page.offset, page.limit + 1, u, &n) : PFE_NOMEM;
    if (e != PFE_OK)
        return api_fail(c, e, "");
    unsigned shown = n < page.limit ? n : page.limit;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_key(&w, "data");
    jw_arr(&w);
    for (unsigned i = 0; i < shown; i++)
        dto_user(&w, &u[i], c->route->banking);
    api_page_end(&w, &page, n > page.limit ? u[shown - 1].id : 0);
    return api_ok(c, 200);
}

/* One path, two uses: ?id= is one user (the owner's or an admin's), without it the admin's list. */
enum api_step payflow_users_query(struct api_call *c)
{
    if (c->query[0].set)
        return app_require_owner(&c->caller.who, c->query[0].i, &c->p) == PFE_OK ? show_user(c, c->query[0].i)
                                                                                 : API_DONE;
    if (c->caller.who.role != IDENT_ADMIN)
        return api_fail(c, PFE_FORBIDDEN, "only an administrator can list the users");
    return api_user_page(c, 1);
}

/* Fields from c->body[at]: username, email, role, password. */
static enum api_step change_user(struct api_call *c, int64_t id, unsigned at)
{
    const struct api_value *v = &c->body[at];
    struct app_user_change in = {0};
    if (v[0].set)
        in.username = v[0].s;
    if (v[1].set)
        in.email = v[1].s;
    if (v[2].set)
        in.set_role = ident_role_parse(v[2].s, &in.role);
    if (v[3].set)
        in.password = v[3].s;
    struct store_user u;
    if (app_user_change(c->app, &c->caller, id, &in, &u, &c->p) != PFE_OK)
        return API_DONE;
    struct jw w = api_out(c);
    dto_user(&w, &u, c->route->banking);
    return api_ok(c, 200);
}

enum api_step payflow_user_put(struct api_call *c)
{
    return change_user(c, c->subject, 1);
}

enum api_step api_user_put_path(struct api_call *c)
{
    return change_user(c, c->subject, 0);
}

enum api_step api_user_delete(struct api_call *c)
{
    if (app_user_delete(c->app, &c->caller, c->subject, &c->p) != PFE_OK)
        return API_DONE;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kz(&w, "message", "user deleted");
    uint8_t uuid[16];
    if (!c->route->banking)
        jw_kint(&w, "id", c->subject);
    else if (app_user_uuid(c->app, c->subject, true, uuid) == PFE_OK)
        dto_uuid(&w, "id", uuid);
    jw_end_obj(&w);
    return api_ok(c, 200);
}

enum api_step payflow_keys(struct api_call *c)
{
    struct api_page page;
    if (!api_page(c, 0, &page))
        return API_DONE;
    if (page.offset) {
        problem_field(&c->p, "query", "offset", "range", "is not taken here; use cursor");
        return API_DONE;
    }
    struct store_apikey *k = arena_alloc(&c->r->arena, (page.limit + 1) * sizeof *k);
    unsigned n = 0;
    enum pf_err e = k ? app_apikeys(c->app, c->subject, page.cursor, page.limit + 1, k, &n) : PFE_NOMEM;
    if (e != PFE_OK)
        return api_fail(c, e, "");
    unsigned shown = n < page.limit ? n : page.limit;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_key(&w, "data");
    jw_arr(&w);
    for (unsigned i = 0; i < shown; i++) {
        jw_obj(&w);
        jw_kint(&w, "id", k[i].id);
        jw_kz(&w, "prefix", k[i].prefix);
        jw_ktime(&w, "created_at", k[i].created_us);
        k[i].last_used_us ? jw_ktime(&w, "last_used_at", k[i].last_used_us) : jw_knull(&w, "last_used_at");
        jw_end_obj(&w);
    }
    api_page_end(&w, &page, n > page.limit ? k[shown - 1].id : 0);
    return api_ok(c, 200);
}

enum api_step payflow_key_revoke(struct api_call *c)
{
    int64_t id;
    enum pf_err e = PFE_NOT_FOUND;
    if (str_to_i64(c->r->params[1], &id) && id > 0)
        e = app_apikey_revoke(c->app, &c->caller, c->subject, id);
    if (e != PFE_OK)
        return api_fail(c, e, e == PFE_NOT_FOUND ? "there is no such key" : "");
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kz(&w, "message", "key revoked");
    jw_kint(&w, "id", id);
    jw_end_obj(&w);
    return api_ok(c, 200);
}
