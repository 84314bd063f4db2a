/*
 * gateway: one address before the services. It passes requests on to backends, over HTTP/1.1 (libcurl) or as gRPC
 * calls, and keeps answering while some of them do not.
 *
 *   http                          a loop                                       backends
 *   route · headers · suspend ──▶ retry ▷ breaker ▷ balancer ▷ curl ───────────▶
 *   answer            ◀── resume ── whole answers, or streams of bounded size ◀──
 *
 * Each of the http server's I/O threads has a loop, which takes its turns (gateway_turn): a request stays on the thread
 * that has read it. Only gRPC calls are made on another one (rpc/client.h).
 *
 * A route (routes.c) says which group of backends serves a path, how long that may take, whether it is tried again,
 * which breaker guards it, and whether an old answer may stand in. Nothing is sent twice that may have had an effect:
 * libcurl's own repetition is held to the same rule.
 *
 * The handler and gateway_turn are called by the http room; gateway_reload, _drain and _free by one thread.
 */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include "http/http.h"
#include "port/registry.h"
#include "resilience/balancer.h"
#include "resilience/breaker.h"
#include "resilience/fallback.h"
#include "resilience/retry.h"

enum gateway_group { GATEWAY_API, GATEWAY_IDENTITY, GATEWAY_EVENT, GATEWAY_BOOKING, GATEWAY_GROUPS };
/* "api", "identity", "event", "booking" */
const char *gateway_group_name(enum gateway_group g);
bool gateway_group_parse(struct str s, enum gateway_group *ret);

struct gateway_backend {
    const char *name; /* 1..63 bytes, unique within its group */
    const char *url;  /* "http://HOST:PORT", nothing behind it */
    enum gateway_group group;
    unsigned weight;          /* 0..1000 */
    unsigned max_connections; /* requests at a time; 0: no bound */
};
enum { GATEWAY_CONNECTIONS_USUAL = 1000 }; /* max_connections where nobody says it, as of the registry's backends */

struct gateway_breaker {
    const char *name; /* of a route (routes.c), of a group, or "default" */
    struct breaker_config config;
};

/* Borrowed during the call. */
struct gateway_config {
    unsigned threads;                                /* the http server's, 1..64 */
    struct balancer_config balancer[GATEWAY_GROUPS]; /* wake, ctx and sticky_salt are the gateway's own */
    const char *cookie_name;                         /* of sticky sessions; a token of at most 63 bytes */
    const char *health_path;                         /* of active checks */
    const struct gateway_backend *backends;
    size_t n_backends;
    const char *service[GATEWAY_GROUPS]; /* instances of this service are backends as well; NULL: none */
    struct registry *registry;           /* may be NULL; outlives the gateway's watches: close it before gateway_free */
    const struct gateway_breaker *breakers;
    size_t n_breakers;
    struct retry_config retry; /* the deadline is each route's own */
    bool fallback;             /* whether old answers may stand in at all */
    struct fallback_config fallback_config;
    const char *version;
    const char *name; /* in Via */
    struct metrics *metrics;
    bool (*draining)(void *ctx);
    void *ctx;
};

struct gateway;

/* On failure NULL and one line in why. */
struct gateway *gateway_new(const struct gateway_config *c, char why[256]);
const struct http_route *gateway_routes(const struct gateway *g, size_t *ret_n);
void gateway_handle(struct http_req *r); /* ctx: the gateway, here and below */
void gateway_turn(void *ctx, struct http_io *io);
/* Backends, weights and bounds anew: what is gone finishes what it has. Of a new configuration all else needs a
 * restart.
 */
void gateway_reload(struct gateway *g, const struct gateway_config *c);
/* Takes nothing new; waits until all that is under way has ended, at most wait_ms, then ends it. */
void gateway_drain(struct gateway *g, unsigned wait_ms);
/* After the http server and the registry. NULL is allowed. */
void gateway_free(struct gateway *g);

#endif
