/*
 * api: the HTTP surfaces (PayFlow, Banking, Ticketing, Platform) over the use cases of app/, and gRPC's bookings over
 * the same rows. Route tables and the shapes of requests and answers, nothing else.
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
#include "rpc/rpc.h"

struct api;

/* What of the routes is answered; /health* and /metrics* are in any case. */
enum api_surface {
    API_ALL = 0,      /* everything */
    API_IDENTITY = 1, /* bits: /api/auth/, */
    API_EVENT = 2,    /* /api/events, */
    API_BOOKING = 4,  /* /api/bookings, */
    API_NONE = 8      /* nothing else */
};

struct api_config {
    struct app *app;      /* borrowed, all of them */
    struct pool *workers; /* store reads and writes */
    struct pool *hashers; /* passwords */
    struct metrics *metrics;
    const char *version;
    unsigned surfaces;           /* of enum api_surface */
    const char *trusted_proxies; /* whose x-forwarded-for counts in gRPC's metadata, as in struct http_config */
    bool (*draining)(void *ctx); /* readiness fails first */
    void *ctx;
};

/* NULL: out of memory, or trusted_proxies is malformed. */
struct api *api_new(const struct api_config *c);
void api_free(struct api *a);
/* For struct http_config: the table, and the handler, whose ctx must be the api. */
const struct http_route *api_routes(const struct api *a, size_t *ret_n);
void api_handle(struct http_req *r);
/* For struct http_config: refuses what comes without a credential, or one of no known form, where one is needed. */
enum pf_err api_early(const struct http_req *r, const char **ret_detail);

/* The methods of booking.v1.BookingService and their limits, into c; its ctx must be the api. */
void api_rpc_methods(struct rpc_config *c);

#endif
