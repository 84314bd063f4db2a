/* The headers of an answer: what every answer carries, what the request calls for, what the handler set. */
#include <stdio.h>
#include <strings.h>

#include "http/internal.h"

static void add(struct answer *a, const char *name, const char *value)
{
    if (a->n_headers < ANSWER_HEADERS_MAX)
        a->headers[a->n_headers++] = (struct set_header){name, value};
}

static bool is_set(const struct request *r, const char *name)
{
    for (unsigned i = 0; i < r->n_set; i++) {
        if (strcasecmp(r->set[i].name, name) == 0)
            return true;
    }
    return false;
}

static void add_default(struct request *r, struct answer *a, const char *name, const char *value)
{
    if ((r->n_set == 0 || !is_set(r, name)) && !(a->relay && relay_has(a->relay, name)))
        add(a, name, value);
}

static bool origin_allowed(const struct http_server *s, struct str origin)
{
    for (struct str list = str_c(s->origins); list.n > 0;) {
        const char *comma = memchr(list.p, ',', list.n);
        struct str one = {list.p, comma ? (size_t)(comma - list.p) : list.n};
        list = comma ? (struct str){comma + 1, list.n - one.n - 1} : STR_NONE;
        if (str_eq_nocase(str_trim(one), origin))
            return true;
    }
    return false;
}

/* The Fetch standard's CORS protocol. Credentials travel in headers, never in cookies, so there is no
 * Access-Control-Allow-Credentials. */
static void add_cors(struct request *r, struct answer *a)
{
    const struct http_server *s = r->server;
    struct str origin = r->known[H_ORIGIN];
    if (a->relay && relay_has(a->relay, "Access-Control-Allow-Origin"))
        return;
    if (!s->origins || origin.n == 0 || r->known_n[H_ORIGIN] != 1 || !(s->any_origin || origin_allowed(s, origin)))
        return;
    const char *allow = s->any_origin ? "*" : arena_strdup(&r->pub.arena, origin).p;
    if (!allow)
        return;
    add(a, "Access-Control-Allow-Origin", allow);
    if (r->verb == VERB_OPTIONS && r->known_n[H_AC_REQUEST_METHOD]) {
        add(a, "Access-Control-Allow-Methods", answer_allow(r));
        add(a, "Access-Control-Allow-Headers",
            "Authorization, Content-Type, Idempotency-Key, If-None-Match, X-API-Key, X-Request-Id, traceparent");
        add(a, "Access-Control-Max-Age", "600");
    } else {
        add(a, "Access-Control-Expose-Headers",
            "ETag, Idempotency-Replayed, Location, Retry-After, WWW-Authenticate, X-Request-Id, traceparent");
    }
}

const char *answer_allow(struct request *r)
{
    char text[64] = "";
    size_t n = 0;
    for (int m = 0; m < HTTP_METHODS; m++) {
        if (r->routes && r->routes[m])
            n += (size_t)snprintf(text + n, sizeof text - n, m == HTTP_GET ? "%s, HEAD, " : "%s, ",
                                  http_method_name((enum http_method)m));
    }
    snprintf(text + n, sizeof text - n, "OPTIONS");
    const char *copy = arena_strdup(&r->pub.arena, str_c(text)).p;
    return copy ? copy : "OPTIONS";
}

void answer_headers(struct request *r, struct answer *a)
{
    const struct http_server *s = r->server;
    a->n_headers = 0;
    if (a->content_type)
        add(a, "Content-Type", a->content_type);
    if (a->content_encoding)
        add(a, "Content-Encoding", a->content_encoding);
    if (a->etag)
        add(a, "ETag", a->etag);
    add(a, "X-Request-Id", r->id_text);
    if (r->pub.traceparent.n)
        add(a, "traceparent", r->trace_text);
    if (!a->relay) /* what may be kept is for its origin to say */
        add_default(r, a, "Cache-Control", a->cache_control ? a->cache_control : "no-store");
    add_default(r, a, "X-Content-Type-Options", "nosniff");
    add_default(r, a, "X-Frame-Options", "DENY");
    add_default(r, a, "Referrer-Policy", "no-referrer");
    add_default(r, a, "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
    if (r->pub.https)
        add_default(r, a, "Strict-Transport-Security", "max-age=31536000");
    bool vary_origin = s->origins && !s->any_origin;
    if (vary_origin || a->vary_encoding)
        add(a, "Vary", !vary_origin ? "Accept-Encoding" : a->vary_encoding ? "Origin, Accept-Encoding" : "Origin");
    add_cors(r, a);
    for (unsigned i = 0; i < r->n_set; i++)
        add(a, r->set[i].name, r->set[i].value);
    if (r->close || atomic_load_explicit(&s->draining, memory_order_relaxed))
        add(a, "Connection", "close");
}
