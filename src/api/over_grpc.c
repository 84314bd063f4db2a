/*
 * Calls that come over gRPC: booking.v1.BookingService (proto/booking/v1). Each method is a route of HTTP's table: the
 * call is made a request of it, its message a body, and what the route answers, in JSON, is made a message. So rights,
 * limits, fields, idempotency keys with the answers that are kept for them, and words are the same by both ways.
 */
#include <booking/v1/booking.pb-c.h>
#include <booking/v1/booking_files.h>
#include <stdio.h>
#include <string.h>

#include "api/call.h"
#include "base/log.h"
#include "codec/decimal.h"
#include "domain/money/money.h"
#include "http/proxies.h"

/* Bytes. PROBLEM_MAX has room for all fields that a problem may name; a longer one has a path of a client's making. */
enum { ARENA_MAX = 8 << 20, REASON_MAX = 255, PROBLEM_MAX = 4096 };

/* What is made of a call, in its arena. */
struct grpc {
    struct rpc_call *call;
    struct api_call c;
    struct http_req r;
    struct json body, field[3];
    struct str key, reason; /* .p == NULL: none */
    char digits[STR_U64_MAX + 2];
};

struct method {
    const char *route; /* its id */
    bool (*take)(struct grpc *g);
};

static struct grpc *of(const struct api_call *c)
{
    return c->over;
}

/* ---- the request ---- */

static void add_field(struct grpc *g, const char *name, enum json_type type, struct str value)
{
    struct json *f = &g->field[g->body.n], **end = &g->body.child;
    *f = (struct json){.type = type, .key = str_c(name), .s = value};
    while (*end)
        end = &(*end)->next;
    *end = f;
    g->body.n++;
}

static bool take_create(struct grpc *g)
{
    const Booking__V1__CreateBookingRequest *q = (const void *)g->call->request;
    g->body.type = JSON_OBJECT;
    if (q->user_id[0])
        add_field(g, "user_id", q->user_number ? JSON_NUMBER : JSON_STRING, str_c(q->user_id));
    if (q->event_id[0])
        add_field(g, "event_id", JSON_STRING, str_c(q->event_id));
    snprintf(g->digits, sizeof g->digits, "%d", q->ticket_count);
    add_field(g, "ticket_count", JSON_NUMBER, str_c(g->digits));
    g->c.json = &g->body;
    g->r.path = STR("/api/bookings");
    if (q->idempotency_key[0])
        g->key = str_c(q->idempotency_key);
    return true;
}

static bool take_id(struct grpc *g, const char *id)
{
    static const char prefix[] = "/api/bookings/";
    size_t n = strlen(id);
    char *path = arena_alloc(&g->r.arena, sizeof prefix + n);
    if (!path)
        return false;
    memcpy(path, prefix, sizeof prefix - 1);
    memcpy(path + sizeof prefix - 1, id, n + 1);
    g->r.path = str_c(path);
    g->r.params[0] = str_c(id);
    return true;
}

static bool take_get(struct grpc *g)
{
    return take_id(g, ((const Booking__V1__GetBookingRequest *)g->call->request)->booking_id);
}

static bool take_cancel(struct grpc *g)
{
    const Booking__V1__CancelBookingRequest *q = (const void *)g->call->request;
    if (q->reason[0])
        g->reason = str_c(q->reason);
    if (g->reason.n > REASON_MAX)
        problem_field(&g->c.p, "body", "reason", "length", "must be at most %d bytes", REASON_MAX);
    return take_id(g, q->booking_id);
}

static struct str header(const struct api_call *c, const char *name)
{
    const struct grpc *g = of(c);
    struct str want = str_c(name);
    if (g->key.n && str_is(want, "Idempotency-Key"))
        return g->key;
    for (unsigned i = 0; i < g->call->n_metadata; i++)
        if (str_eq_nocase(g->call->metadata[i].name, want))
            return g->call->metadata[i].value;
    return STR_NONE;
}

static unsigned header_count(const struct api_call *c, const char *name)
{
    const struct grpc *g = of(c);
    unsigned n = 0;
    if (g->key.n && strcmp(name, "Idempotency-Key") == 0)
        return 1;
    for (unsigned i = 0; i < g->call->n_metadata; i++)
        n += str_eq_nocase(g->call->metadata[i].name, str_c(name));
    return n;
}

/* Whose call it is, when a proxy that is trusted (the gateway) makes it for somebody. */
static void find_peer(struct grpc *g)
{
    struct http_pair forwarded[RPC_METADATA_MAX];
    const struct api *a = g->c.api;
    unsigned n = 0;
    bool https;
    memcpy(g->r.peer, g->call->peer, sizeof g->r.peer);
    for (unsigned i = 0; a->proxies.n && i < g->call->n_metadata && n < RPC_METADATA_MAX; i++)
        if (str_is(g->call->metadata[i].name, "x-forwarded-for"))
            forwarded[n++] = (struct http_pair){g->call->metadata[i].name, g->call->metadata[i].value};
    if (n)
        proxies_resolve(&a->proxies, forwarded, n, g->r.peer, &https);
}

/* ---- the answer ---- */

static char *text(struct arena *arena, const struct json *v, const char *name, bool *ok)
{
    static char none[1];
    const struct json *m = json_get(v, name);
    if (!m)
        return none;
    struct str s = arena_strdup(arena, m->s);
    *ok &= s.p != NULL;
    return (char *)s.p;
}

static Booking__V1__BookingStatus status_of(struct str s)
{
    return str_is(s, "PENDING")     ? BOOKING__V1__BOOKING_STATUS__BOOKING_STATUS_PENDING
           : str_is(s, "CONFIRMED") ? BOOKING__V1__BOOKING_STATUS__BOOKING_STATUS_CONFIRMED
           : str_is(s, "CANCELLED") ? BOOKING__V1__BOOKING_STATUS__BOOKING_STATUS_CANCELLED
           : str_is(s, "EXPIRED")   ? BOOKING__V1__BOOKING_STATUS__BOOKING_STATUS_EXPIRED
                                    : BOOKING__V1__BOOKING_STATUS__BOOKING_STATUS_UNSPECIFIED;
}

/* A booking as HTTP shows it (ticketing/bookings.c), now or when its key came first. false: out of memory. */
static bool read_booking(struct arena *a, struct str shown, Booking__V1__Booking *ret)
{
    struct json *v;
    bool ok = true;
    int64_t count = 0;
    if (json_parse(a, shown, &v, NULL) != PFE_OK)
        return false;
    const struct json *user = json_get(v, "user_id"), *n = json_get(v, "ticket_count"), *status = json_get(v, "status"),
                      *amount = json_get(v, "amount");
    booking__v1__booking__init(ret);
    ret->booking_id = text(a, v, "booking_id", &ok);
    ret->event_id = text(a, v, "event_id", &ok);
    ret->user_id = text(a, v, "user_id", &ok);
    ret->guest = user && user->type == JSON_STRING;
    if (n && str_to_i64(n->s, &count))
        ret->ticket_count = (int32_t)count;
    ret->status = status_of(status ? status->s : STR_NONE);
    ret->reason = text(a, v, "reason", &ok);
    ret->currency = text(a, v, "currency", &ok);
    ret->created_at = text(a, v, "created_at", &ok);
    ret->updated_at = text(a, v, "updated_at", &ok);
    ret->expires_at = text(a, v, "expires_at", &ok);
    const struct money_currency_info *currency = ok ? money_by_code(str_c(ret->currency)) : NULL;
    if (amount && currency && decimal_parse(amount->s, currency->scale, &ret->amount_minor) != DECIMAL_OK)
        ret->amount_minor = 0;
    return ok;
}

static void set_header(struct api_call *c, const char *name, struct str value)
{
    char lower[64];
    size_t n = 0;
    for (; name[n] && n + 1 < sizeof lower; n++)
        lower[n] = (char)(name[n] >= 'A' && name[n] <= 'Z' ? name[n] + ('a' - 'A') : name[n]);
    lower[n] = 0;
    rpc_set_trailer(of(c)->call, lower, value);
}

/* The problem as HTTP would say it, for who passes it on there; and as a status has one text, that says which fields
   are wrong, and how, as far as there is room. */
static void put_fields(struct grpc *g, struct problem *p)
{
    struct buf b;
    size_t at = 0;
    bool said = p->detail[0];
    buf_init(&b, PROBLEM_MAX);
    http_problem_json(&b, p, g->r.path, g->call->request_id);
    if (!b.failed)
        rpc_set_trailer(g->call, "problem-json", buf_as_str(&b));
    buf_free(&b);
    for (int i = 0; !said && i < p->n_fields && at < sizeof p->detail; i++) {
        const struct problem_field *f = &p->fields[i];
        at += (size_t)snprintf(p->detail + at, sizeof p->detail - at, "%s%s %s", i ? "; " : "", f->name, f->msg);
    }
}

static void send(struct grpc *g)
{
    struct api_call *c = &g->c;
    Booking__V1__Booking booking;
    if (c->p.code == PFE_OK &&
        (c->r->out.failed ||
         !read_booking(&c->r->arena, c->idem.replayed ? c->idem.body : buf_as_str(&c->r->out), &booking)))
        problem_set(&c->p, c->r->method == HTTP_GET ? PFE_NOMEM : PFE_INTERNAL, "%s", "");
    if (c->p.code != PFE_OK) {
        if (c->p.n_fields)
            put_fields(g, &c->p);
        rpc_reply_problem(g->call, &c->p);
        return;
    }
    if (c->idem.replayed)
        rpc_set_trailer(g->call, "idempotency-replayed", STR("true"));
    if (g->reason.n)
        log_msg(LOG_INFO, "booking cancelled by its caller", LOG_STR("request_id", g->call->request_id),
                LOG_S("booking", booking.booking_id), LOG_STR("reason", g->reason));
    rpc_reply(g->call, &booking.base);
}

static void answer(struct api_call *c)
{
    struct grpc *g = of(c);
    g->call->log_principal = c->r->log_principal;
    send(g);
    buf_free(&g->r.out);
    arena_reset(&g->r.arena);
}

/* ---- the way ---- */

static void resumed(struct rpc_call *call)
{
    struct grpc *g = call->user;
    g->c.resumed(&g->c);
}

static void suspend(struct api_call *c)
{
    rpc_suspend(of(c)->call, resumed);
}

static void resume(struct api_call *c)
{
    rpc_resume(of(c)->call);
}

static bool gone(const struct api_call *c)
{
    const struct rpc_call *call = of(c)->call;
    return rpc_call_cancelled(call) || clock_mono(clock_system()) >= call->deadline_us;
}

static const struct api_transport over_grpc = {header, header_count, set_header, suspend, resume, answer, gone};

static const struct api_route *route_of(const char *id)
{
    for (size_t i = 0; i < api_ticketing_routes_n; i++)
        if (strcmp(api_ticketing_routes[i].id, id) == 0)
            return &api_ticketing_routes[i];
    return NULL;
}

static void handle(struct rpc_call *call)
{
    const struct method *m = call->method->data;
    const struct api_route *route = route_of(m->route);
    struct grpc *g = arena_zalloc(&call->arena, sizeof *g);
    if (!g || !route) {
        rpc_reply_problem(call, &(struct problem){.code = route ? PFE_NOMEM : PFE_INTERNAL});
        return;
    }
    struct api_call *c = &g->c;
    g->call = call;
    call->user = g;
    arena_init(&g->r.arena, NULL, 0, ARENA_MAX);
    buf_init(&g->r.out, 0);
    c->api = call->ctx;
    c->app = c->api->cfg.app;
    c->transport = &over_grpc;
    c->over = g;
    c->r = &g->r;
    c->route = route;
    g->r.method = route->method;
    g->r.request_id = call->request_id;
    g->r.start_us = call->start_us;
    find_peer(g);
    c->caller.address = str_c(g->r.peer);
    c->caller.request_id = call->request_id;
    if (!m->take(g))
        problem_set(&c->p, PFE_NOMEM, "%s", "");
    if (c->p.code != PFE_OK)
        answer(c);
    else
        api_begin(c);
}

static const struct method create = {"createBooking", take_create}, get = {"getBooking", take_get},
                           cancel = {"cancelBooking", take_cancel};
static const char service[] = "booking.v1.BookingService";
static const struct rpc_method methods[] = {
    {service, "CreateBooking", &booking__v1__create_booking_request__descriptor, &booking__v1__booking__descriptor,
     handle, &create},
    {service, "GetBooking", &booking__v1__get_booking_request__descriptor, &booking__v1__booking__descriptor, handle,
     &get},
    {service, "CancelBooking", &booking__v1__cancel_booking_request__descriptor, &booking__v1__booking__descriptor,
     handle, &cancel},
};
static const struct rpc_files *const files[] = {&booking_files};

void api_rpc_methods(struct rpc_config *c)
{
    c->methods = methods;
    c->n_methods = sizeof methods / sizeof methods[0];
    c->files = files;
    c->n_files = sizeof files / sizeof files[0];
    c->receive_max = HTTP_BODY_DEFAULT;
}
