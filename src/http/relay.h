/*
 * relay: requests and answers that are passed on to and from another server, as they are.
 *
 * A route with `relayed` takes any media type, any query and a body of any length. A body that is chunked or longer
 * than HTTP_RELAY_WHOLE is not gathered: the handler is called when its first bytes are there, r->up holds what
 * arrives, and the request's answer is announced with http_stream_answer; the handler must have called
 * http_relay_later. Any other request is as on every route: r->body is whole, and the handler suspends.
 */
#ifndef HTTP_RELAY_H
#define HTTP_RELAY_H

#include "http/http.h"
#include "http/stream.h"

enum { HTTP_RELAY_WHOLE = 64 << 10 };

/* All headers in their order; names and values live as long as the request. */
unsigned http_headers(const struct http_req *r, const struct http_pair **ret);

/* Judges the query of a relayed request as that of any other is judged. PFE_OK: it is read into r->query. Else what the
   refusal is, and *ret_detail says why, or is NULL. */
enum pf_err http_check_query(struct http_req *r, const char **ret_detail) MUSTCHECK;

/* With r->up: `resumed` answers, once http_stream_answer has been called. `wake` as in stream.h. Returns the other
 * thread's reference of r->up. */
struct http_stream *http_relay_later(struct http_req *r, void (*resumed)(struct http_req *r), void (*wake)(void *ctx),
                                     void *ctx);

struct http_relay {
    int status;                      /* 200..599 */
    const struct http_pair *headers; /* end-to-end ones, checked, NUL-terminated; borrowed for the call */
    unsigned n_headers;
    struct http_stream *down; /* NULL: the body is r->out. The connection's reference is taken. */
    int64_t length;           /* of the body: of `down`, or that of the answer to a HEAD; -1: not known */
};

/* The answer as it is, with what every answer carries where it lacks it, and X-Request-Id and traceparent in any case.
 */
void http_reply_relay(struct http_req *r, const struct http_relay *a);

#endif
