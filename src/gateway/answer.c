/* What the client gets: an answer as it came, one that stands in for it, or a problem. */
#include <stdio.h>

#include "gateway/headers.h"
#include "gateway/internal.h"

/* Walks "name\0value\0" pairs. */
static bool next_pair(const char **at, const char *end, struct http_pair *ret)
{
    const char *name_end = *at && *at < end ? memchr(*at, '\0', (size_t)(end - *at)) : NULL;
    const char *value = name_end ? name_end + 1 : NULL;
    const char *value_end = value && value < end ? memchr(value, '\0', (size_t)(end - value)) : NULL;
    if (!value_end)
        return false;
    *ret = (struct http_pair){{*at, (size_t)(name_end - *at)}, {value, (size_t)(value_end - value)}};
    *at = value_end + 1;
    return true;
}

/* What the Connection header names goes no further. */
static bool named_by_connection(const struct exchange *x, struct str name)
{
    struct http_pair p;
    for (const char *at = x->head.p, *end = x->head.p + x->head.n; next_pair(&at, end, &p);) {
        if (p.name.n == 10 && str_eq_nocase(p.name, STR("connection")) && header_lists(p.value, name))
            return true;
    }
    return false;
}

static bool has_connection(const struct exchange *x)
{
    struct http_pair p;
    for (const char *at = x->head.p, *end = x->head.p + x->head.n; next_pair(&at, end, &p);) {
        if (p.name.n == 10 && str_eq_nocase(p.name, STR("connection")))
            return true;
    }
    return false;
}

static void relay(struct http_req *r, struct exchange *x)
{
    enum { OWN = 4 };
    struct http_pair *out = arena_alloc(&r->arena, (x->n_head + OWN) * sizeof *out), p;
    char age[24], cookie[256]; /* a name of 63 bytes, a value of 16, a path of ours */
    unsigned n = 0;
    if (!out) {
        http_stream_leave(x->down);
        http_reply_problem(r, &(struct problem){.code = PFE_NOMEM});
        return;
    }
    bool named = has_connection(x);
    for (const char *at = x->head.p, *end = x->head.p + x->head.n; next_pair(&at, end, &p);) {
        bool ours = (p.name.n == 12 && str_eq_nocase(p.name, STR("x-request-id"))) ||
                    (p.name.n == 11 && str_eq_nocase(p.name, STR("traceparent"))) ||
                    (x->stale_us >= 0 && p.name.n == 3 && str_eq_nocase(p.name, STR("age")));
        if (!ours && p.value.n > 0 && !header_is_hop(p.name) && !(named && named_by_connection(x, p.name)))
            out[n++] = p;
    }
    out[n++] = (struct http_pair){STR("Via"), str_c(x->g->via)};
    if (x->sticky) {
        /* each group has a cookie of its own: the longest path that fits comes first in a request */
        int len = snprintf(cookie, sizeof cookie, "%s=%s; Path=%s; HttpOnly; SameSite=Lax%s", x->g->cookie_name,
                           x->cookie, x->row->prefix, r->https ? "; Secure" : "");
        out[n++] = (struct http_pair){STR("Set-Cookie"), {cookie, (size_t)len}};
    }
    if (x->stale_us >= 0) {
        int len = snprintf(age, sizeof age, "%lld", (long long)(x->stale_us / 1000000));
        out[n++] = (struct http_pair){STR("X-PayFlow-Stale"), STR("true")};
        out[n++] = (struct http_pair){STR("Age"), {age, (size_t)len}};
    }
    if (!x->down) { /* the exchange's bytes become the request's */
        buf_free(&r->out);
        r->out = x->body_in;
        x->body_in = (struct buf){0};
    }
    bool whole = !x->down && !x->head_only;
    http_reply_relay(r, &(struct http_relay){.status = x->status,
                                             .headers = out,
                                             .n_headers = n,
                                             .down = x->down,
                                             .length = whole ? (int64_t)r->out.n : x->length});
}

static const char unknown[] = "Whether the request was carried out is not known.";

/* Said 503, where another attempt before may have done it. */
static bool not_to_be_had(const struct exchange *x)
{
    switch (x->end) {
    case END_ANSWER:
        return x->maybe_done && x->status == 503;
    case END_NOT_SENT:
    case END_BREAKER:
    case END_FULL:
    case END_NONE:
        return x->maybe_done;
    default:
        return false;
    }
}

static void refuse(struct http_req *r, const struct exchange *x)
{
    struct problem p = {0};
    int64_t wait = (x->retry_after_us + 999999) / 1000000;
    bool harmless = !x->maybe_done;
    if (not_to_be_had(x)) {
        problem_set(&p, PFE_BAD_GATEWAY, "The service behind this path gave no answer, and then took no more. %s",
                    unknown);
        http_reply_problem(r, &p);
        return;
    }
    switch (x->end) {
    case END_NOT_SENT:
        problem_set(&p, PFE_UNAVAILABLE,
                    "No connection to the service behind this path could be made; nothing was done.");
        break;
    case END_LOST:
        problem_set(&p, PFE_BAD_GATEWAY, "The service behind this path broke off before its answer was whole. %s",
                    harmless ? "" : unknown);
        break;
    case END_GARBAGE:
        problem_set(&p, PFE_BAD_GATEWAY, "The service behind this path gave an answer that is none. %s",
                    harmless ? "" : unknown);
        break;
    case END_DEADLINE:
        problem_set(&p, PFE_TIMEOUT, "The service behind this path gave no answer in time. %s",
                    harmless ? "" : unknown);
        break;
    case END_BREAKER:
        problem_set(&p, PFE_BREAKER_OPEN, "The service behind this path has failed too often; nothing was done.");
        break;
    case END_FULL:
        problem_set(&p, PFE_BUSY, "The service behind this path has all hands full; nothing was done.");
        break;
    case END_NONE:
        problem_set(&p, PFE_UNAVAILABLE, "No instance of the service behind this path is there; nothing was done.");
        break;
    case END_STOPPING:
        if (x->requests == 0 && harmless)
            problem_set(&p, PFE_DRAINING, "Nothing was done.");
        else
            problem_set(&p, PFE_BAD_GATEWAY, "The gateway is shutting down. %s", harmless ? "" : unknown);
        break;
    default:
        p.code = harmless ? PFE_NOMEM : PFE_INTERNAL;
        break;
    }
    p.retry_after_s = err_info(p.code)->http == 503 ? (int)(wait > 0 ? wait : 1) : 0;
    http_reply_problem(r, &p);
}

void answer_ready(struct http_req *r)
{
    struct exchange *x = r->user;
    if (x->stood_in) {
        http_set_header(r, "X-PayFlow-Fallback", STR("default"));
        http_reply(r, 200, http_json, buf_as_str(&x->body_in));
    } else if (not_to_be_had(x)) {
        refuse(r, x);
    } else if (x->end == END_ANSWER && x->refusal) {
        struct http_pair p;
        for (const char *at = x->head.p, *end = x->head.p + x->head.n; next_pair(&at, end, &p);)
            http_set_header(r, p.name.p, p.value); /* a NUL is behind the name */
        http_reply_problem(r, x->refusal);
    } else if (x->end == END_ANSWER) {
        relay(r, x);
    } else {
        refuse(r, x);
    }
    exchange_unref(x);
}

/* ---- old answers */

void answer_keep(struct exchange *x)
{
    struct buf v = {0};
    if (x->status == 401 || x->status == 403 || x->status == 404 || x->status == 410)
        fallback_forget(x->g->fallback, x->principal, x->key);
    if (x->status != 200)
        return;
    buf_put(&v, &x->n_head, sizeof x->n_head);
    buf_put(&v, &x->head.n, sizeof x->head.n);
    buf_str(&v, buf_as_str(&x->head));
    buf_str(&v, buf_as_str(&x->body_in));
    if (!v.failed)
        (void)fallback_keep(x->g->fallback, FALLBACK_READ, x->principal, x->key, buf_as_str(&v), gateway_now());
    buf_free(&v);
}

bool answer_stand_in(struct exchange *x)
{
    struct buf v = {0};
    int64_t age = 0;
    bool done = false;
    enum fallback_source s = fallback_get(x->g->fallback, FALLBACK_READ, x->principal, x->key, gateway_now(), &v, &age);
    if (s == FALLBACK_DEFAULT && !v.failed) {
        buf_free(&x->body_in);
        x->body_in = v;
        x->stood_in = true;
        return true;
    }
    size_t fixed = sizeof x->n_head + sizeof x->head.n, head_n = 0;
    if (s == FALLBACK_STALE && !v.failed && v.n >= fixed) {
        buf_clear(&x->head);
        buf_clear(&x->body_in);
        memcpy(&x->n_head, v.p, sizeof x->n_head);
        memcpy(&head_n, v.p + sizeof x->n_head, sizeof head_n);
        buf_put(&x->head, v.p + fixed, head_n);
        buf_put(&x->body_in, v.p + fixed + head_n, v.n - fixed - head_n);
        x->end = x->head.failed || x->body_in.failed ? END_NOMEM : END_ANSWER;
        x->status = 200;
        x->stale_us = age;
        done = true;
    }
    buf_free(&v);
    return done;
}
