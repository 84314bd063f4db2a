/*
 * http: the HTTP/1.1 server, on libmicrohttpd. It knows methods, paths, headers, bodies, problems; nothing of payments.
 *
 * One handler answers every request, called on an I/O thread when the whole body is there. It either
 *   - replies (http_reply, http_reply_problem …) and returns, or
 *   - calls http_suspend(r, resumed), hands r to another thread, and touches r no more. That thread fills in what it
 * likes in r->user and calls http_resume(r) exactly once; `resumed` then runs on an I/O thread and replies (or suspends
 * again). A request is owned by whoever handles it; there is no locking inside. It lives until the answer is sent or
 * the client is gone: a suspended request is never freed, so the other thread may always resume it, and `resumed` runs
 * in any case, so it can free what hangs on r->user. Is the client gone by then, its answer goes nowhere, and if it
 * suspends again, http_resume itself calls `resumed`, on the thread that resumes.
 *
 * A client has limited time: idle_timeout_s for the headers; for a body, and for taking an answer, as much again and a
 * second for every 4 KiB, at most 120 of them. Then the connection is cut. (Bodies that are passed on while they arrive
 * have pauses that do not count; answers that are passed on so are the business of who passes them on.)
 *
 * What it does by itself, for every answer: X-Request-Id, security headers, CORS, traceparent, gzip, Content-Length,
 * HEAD, OPTIONS, 404, 405 with Allow, 413, 415, 431, malformed-request checks; problem+json bodies; an access log line;
 * request metrics by route.
 */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"
#include "telemetry/metrics.h"

enum http_method { HTTP_GET, HTTP_POST, HTTP_PUT, HTTP_DELETE, HTTP_PATCH, HTTP_METHODS };
const char *http_method_name(enum http_method m);

enum { HTTP_PARAMS_MAX = 4, HTTP_QUERY_MAX = 64, HTTP_HEADERS_MAX = 100, HTTP_HEADER_BYTES_MAX = 16384 };
enum { HTTP_BODY_DEFAULT = 1 << 20, HTTP_BODY_BATCH = 16 << 20 };
/* Bytes. What all requests of a server may hold together of bodies that are being gathered or handled, without the
 * first HTTP_BODY_SMALL of each: beyond it a longer body is refused with 503. Short ones are bounded by the number of
 * connections, so long ones cannot crowd them out. The least room is for 16 of the longest. */
enum { HTTP_BODY_SMALL = 64 << 10, HTTP_BODIES_MAX = 256 << 20 };

struct http_route {
    enum http_method method;
    const char *pattern; /* "/api/users/{id}"; "{rest...}" as the last segment takes all that follows */
    size_t body_max;     /* bytes; 0: HTTP_BODY_DEFAULT */
    const void *data;    /* the caller's row */
    bool relayed;        /* see http/relay.h */
};

struct http_pair {
    struct str name, value;
};

struct http_req {
    /* the request */
    enum http_method method; /* HEAD arrives as HTTP_GET */
    struct str path;         /* as sent, without the query */
    struct str pattern;      /* the matched route's pattern */
    const struct http_route *route;
    struct str params[HTTP_PARAMS_MAX]; /* path parameters in order, percent-decoded, valid UTF-8 without NUL */
    const struct http_pair *query;      /* percent-decoded, valid UTF-8, '+' is a space; a name occurs once */
    unsigned n_query;
    struct str body;
    struct str target;      /* path and query as sent */
    bool head;              /* HEAD */
    struct http_stream *up; /* a relayed body that still arrives; else NULL */
    int64_t body_length;    /* of `up`; -1: chunked */
    struct str request_id;  /* <= 64 safe bytes */
    struct str traceparent; /* valid W3C trace context, with our own span id; or empty */
    char peer[46];          /* client address text, without the port: as a trusted proxy says, else the connection's */
    bool https;             /* the client speaks HTTPS, to us or to a trusted proxy */
    int64_t start_us;       /* monotonic */
    struct arena arena;     /* for the request; limit 64 MiB for large bodies, 8 MiB otherwise */

    /* the caller's */
    void *ctx;             /* from struct http_config */
    void *user;            /* for the handler */
    int64_t log_principal; /* user id for the access log; 0: none */

    /* the answer */
    struct buf out; /* body; write here, then http_reply_out */
};

struct http_io;

struct http_config {
    const char *host;                /* address to bind; borrowed during start */
    uint16_t port;                   /* 0: any free one, see http_server_port */
    unsigned threads;                /* I/O threads, 1..64 */
    unsigned max_connections;        /* further ones are refused at accept */
    unsigned idle_timeout_s;         /* for headers, bodies, answers and idle keep-alive */
    size_t bodies_max;               /* bytes, see HTTP_BODIES_MAX, which 0 stands for */
    const char *tls_cert, *tls_key;  /* PEM files; both or neither. TLS 1.2 and newer. */
    const char *allowed_origins;     /* comma-separated, "*" for all, "" for none; copied */
    const char *trusted_proxies;     /* addresses and networks as base/cidr.h reads them; "" or NULL for none */
    const struct http_route *routes; /* borrowed for the server's life */
    size_t n_routes;
    void (*handler)(struct http_req *r);
    /* NULL, or called when the headers are there and a body is to follow, on the I/O thread: other than PFE_OK refuses
     * the request without keeping its body. *ret_detail: a literal, or NULL. It must not block, suspend or answer. */
    enum pf_err (*early)(const struct http_req *r, const char **ret_detail);
    /* NULL: the I/O threads have nothing but their clients. Else what they do again and again: see http/turn.h. */
    void (*turn)(void *ctx, struct http_io *io);
    void *ctx;
    struct metrics *metrics; /* borrowed */
    const struct clock *clock;
    bool access_log;
};

struct http_server;

/* On failure NULL and one line in why. */
struct http_server *http_server_start(const struct http_config *c, char why[256]);
uint16_t http_server_port(const struct http_server *s);
unsigned http_server_connections(const struct http_server *s);
uint64_t http_server_requests(const struct http_server *s); /* answered since start */
/* Stops accepting; answers carry Connection: close from now on. */
void http_server_drain(struct http_server *s);
/* Waits for the requests whose headers are there, those whose body still arrives included, and refuses new ones; after
 * wait_ms only for those that are being handled; then closes everything. All suspended requests must be resumed. */
void http_server_stop(struct http_server *s, unsigned wait_ms);

struct http_totals {
    uint64_t requests, client_errors, server_errors; /* answered since start */
    int64_t in_flight, connections;
    int64_t p50_us, p95_us, p99_us; /* upper estimates over all routes */
};
/* The figures of the server that has this request. */
void http_totals(const struct http_req *r, struct http_totals *ret);

/* Request access. Header names are case-insensitive. Absent: .p == NULL. */
struct str http_header(const struct http_req *r, const char *name);
/* How often the header occurs. */
unsigned http_header_count(const struct http_req *r, const char *name);
/* Content-Type and Content-Encoding of a body of JSON that is not compressed. */
bool http_is_json(struct str type, struct str coding);
/* What the value of an Idempotency-Key header says: 1 to 255 printable ASCII bytes, which may stand in quotes. false:
 * *p. */
bool http_idempotency_key(struct str value, struct problem *p, struct str *ret);
struct str http_query(const struct http_req *r, const char *name);

void http_suspend(struct http_req *r, void (*resumed)(struct http_req *r));
void http_resume(struct http_req *r);

/* Answers. Exactly one per request. A header may be added before (copied); at most 16. */
void http_set_header(struct http_req *r, const char *name, struct str value);
/* body: copied. content_type: a literal. */
void http_reply(struct http_req *r, int status, const char *content_type, struct str body);
/* Sends r->out (taken); PFE_NOMEM's problem instead if the buffer failed. */
void http_reply_out(struct http_req *r, int status, const char *content_type);
/* Bytes that outlive the server (embedded files, few). encoding: "gzip" if they are compressed, else NULL; a client
   that does not take gzip gets them inflated, which is done once and kept until the server ends. etag: a literal in
   quotes, or NULL; If-None-Match answers 304. */
void http_reply_static(struct http_req *r, int status, const char *content_type, const char *encoding, const char *etag,
                       struct str bytes);
/* problem+json per the contract; adds WWW-Authenticate on 401 and Retry-After when p says so (always on 429 and 503: 1
 * if 0). */
void http_reply_problem(struct http_req *r, const struct problem *p);
/* The same object, for problems inside other bodies (batch items): appended to out. request_id, instance may be empty.
 */
void http_problem_json(struct buf *out, const struct problem *p, struct str instance, struct str request_id);

extern const char http_json[]; /* "application/json" */

#endif
