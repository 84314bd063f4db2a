/* The API's description, its viewer, and a page for each kind of problem. */
#include "api/platform/platform.h"

#include <stdio.h>

enum api_step platform_openapi(struct api_call *c)
{
    buf_str(&c->r->out, c->api->openapi);
    return api_ok(c, 200);
}

static enum api_step file(struct api_call *c, struct str name)
{
    for (unsigned i = 0; i < web_files_n; i++) {
        const struct web_file *f = &web_files[i];
        if (!str_is(name, f->name))
            continue;
        if (str_is(name, "index.html"))
            http_set_header(
                c->r, "Content-Security-Policy",
                STR("default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
                    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"));
        c->file = f;
        return api_ok(c, 200);
    }
    return api_fail(c, PFE_NOT_FOUND, "");
}

enum api_step platform_docs(struct api_call *c)
{
    return file(c, STR("index.html"));
}

enum api_step platform_docs_asset(struct api_call *c)
{
    return file(c, c->r->params[0]);
}

enum api_step platform_problem(struct api_call *c)
{
    enum pf_err e = err_by_slug(c->r->params[0].p, c->r->params[0].n);
    if (e == PFE_OK)
        return api_fail(c, PFE_NOT_FOUND, "");
    const struct err_info *i = err_info(e);
    buf_printf(&c->r->out,
               "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>%s</title>"
               "<h1>%s</h1><p>HTTP status %d. Type <code>/problems/%s</code>.</p><p>%s</p></html>\n",
               i->title, i->title, i->http, i->slug, i->text);
    c->content_type = "text/html; charset=utf-8";
    return api_ok(c, 200);
}
