/* Calls that come over HTTP. */
#include "api/call.h"
#include "api/platform/platform.h"

static struct str header(const struct api_call *c, const char *name)
{
    return http_header(c->r, name);
}

static unsigned header_count(const struct api_call *c, const char *name)
{
    return http_header_count(c->r, name);
}

static void set_header(struct api_call *c, const char *name, struct str value)
{
    http_set_header(c->r, name, value);
}

static void resumed(struct http_req *r)
{
    struct api_call *c = r->user;
    c->resumed(c);
}

static void suspend(struct api_call *c)
{
    http_suspend(c->r, resumed);
}

static void resume(struct api_call *c)
{
    http_resume(c->r);
}

static void answer(struct api_call *c)
{
    struct http_req *r = c->r;
    if (c->p.code != PFE_OK) {
        buf_clear(&r->out);
        http_reply_problem(r, &c->p);
        return;
    }
    if (c->idem.replayed) {
        http_set_header(r, "Idempotency-Replayed", STR("true"));
        buf_clear(&r->out);
        buf_str(&r->out, c->idem.body);
        http_reply_out(r, c->idem.status, http_json);
        return;
    }
    if (c->file) {
        http_reply_static(r, c->status, c->file->content_type, "gzip", c->file->etag,
                          (struct str){(const char *)c->file->start, (size_t)(c->file->end - c->file->start)});
        return;
    }
    http_reply_out(r, c->status, c->content_type ? c->content_type : http_json);
}

/* HTTP has no deadlines, and a client that is gone may well come back for what it asked. */
static bool gone(const struct api_call *c)
{
    (void)c;
    return false;
}

static const struct api_transport over_http = {header, header_count, set_header, suspend, resume, answer, gone};

enum pf_err api_early(const struct http_req *r, const char **ret_detail)
{
    const struct api *a = r->ctx;
    const struct api_route *route = r->route->data;
    return app_presents(a->cfg.app, &route->rule, http_header(r, "X-API-Key"), http_header(r, "Authorization"),
                        ret_detail);
}

void api_handle(struct http_req *r)
{
    struct api *a = r->ctx;
    struct api_call *c = arena_zalloc(&r->arena, sizeof *c);
    if (!c) {
        struct problem p = {.code = PFE_NOMEM};
        http_reply_problem(r, &p);
        return;
    }
    r->user = c;
    c->api = a;
    c->app = a->cfg.app;
    c->transport = &over_http;
    c->r = r;
    c->route = r->route->data;
    c->caller.address = str_c(r->peer);
    c->caller.request_id = r->request_id;
    api_begin(c);
}
