/*
 * api: the HTTP surfaces (PayFlow, Banking, Platform) over the use cases of app/. Route tables and the shapes of
 * requests and answers, nothing else.
 *
 * One row of a route table (call.h) says everything about a route: method, path, right, whether it is open in dev, whom
 * it is about, its fields, where it runs. The dispatcher, the OpenAPI document and the tests of who-may-do-what all
 * read that row.
 */
#ifndef API_API_H
#define API_API_H

#include "app/app.h"
#include "base/pool.h"
#include "http/http.h"

struct api;

struct api_config {
    struct app *app;      /* borrowed, all of them */
    struct pool *workers; /* store reads and writes */
    struct pool *hashers; /* passwords */
    struct metrics *metrics;
    const char *version;
    bool (*draining)(void *ctx); /* readiness fails first */
    void *ctx;
};

/* NULL: out of memory. */
struct api *api_new(const struct api_config *c);
void api_free(struct api *a);
/* For struct http_config: the table, and the handler, whose ctx must be the api. */
const struct http_route *api_routes(const struct api *a, size_t *ret_n);
void api_handle(struct http_req *r);
/* For struct http_config: refuses what comes without a credential, or one of no known form, where one is needed. */
enum pf_err api_early(const struct http_req *r, const char **ret_detail);

#endif
