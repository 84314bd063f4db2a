/*
 * /api/bookings as calls of booking.v1.BookingService. An exchange like any other, but that its attempts are gRPC
 * calls: balancer, breaker, retries and deadline are the same. What gRPC has no method for, the list of a user's
 * bookings, goes to the API role.
 *
 * The result comes on a thread of the rpc room, which has the exchange until it posts POST_RPC.
 */
#include <booking/v1/booking.pb-c.h>
#include <grpc/health/v1/health.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/json_in.h"
#include "codec/json_out.h"
#include "domain/money/money.h"
#include "domain/ticketing/ticketing.h"
#include "gateway/bookings.h"
#include "gateway/headers.h"
#include "gateway/internal.h"
#include "rpc/client.h"

enum { ID_MAX = 64, CONNECTIONS = 2, METADATA = 6 };

static const char service[] = "booking.v1.BookingService";

enum ask_kind { ASK_CREATE, ASK_GET, ASK_CANCEL };

struct ask {
    enum ask_kind kind;
    char *user_id, *event_id, *booking_id, *key;
    int32_t count;
    bool user_number; /* user_id was a number */
    struct rpc_entry metadata[METADATA];
    unsigned n_metadata;
};

/* ---- clients */

bool bookings_connect(struct gateway *g, struct backend *b)
{
    char host[64], why[256];
    struct str s = str_c(b->url);
    const char *colon = memrchr(s.p, ':', s.n);
    uint64_t port = 0;
    s = (struct str){s.p + 7, s.n - 7}; /* behind http:// */
    struct str name = {s.p, colon > s.p ? (size_t)(colon - s.p) : 0};
    if (name.n > 2 && name.p[0] == '[')
        name = (struct str){name.p + 1, name.n - 2};
    if (str_is(name, "localhost"))
        name = STR("127.0.0.1");
    if (!name.n || !str_to_u64(str_c(colon + 1), &port) || port < 1 || port > 65535 ||
        !str_copy(host, sizeof host, name))
        return false;
    b->rpc = rpc_client_new(&(struct rpc_client_config){.host = host,
                                                        .port = (uint16_t)port,
                                                        .connections = CONNECTIONS,
                                                        .metrics = g->metrics,
                                                        .clock = clock_system()},
                            why);
    return b->rpc != NULL;
}

struct probe {
    struct balancer *balancer;
    struct balancer_check check;
};

/* A service without grpc.health.v1 has answered, which has to do. */
static void probed(void *user, const struct rpc_result *r)
{
    struct probe *p = user;
    const Grpc__Health__V1__HealthCheckResponse *a = (const Grpc__Health__V1__HealthCheckResponse *)r->answer;
    bool ok = r->code == RPC_OK ? a->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                                : r->code == RPC_UNIMPLEMENTED && r->from_server;
    (void)balancer_checked(p->balancer, &p->check, ok, gateway_now());
    free(p);
}

void bookings_check(struct backend *b, struct balancer *balancer, const struct balancer_check *check,
                    int64_t timeout_us)
{
    char name[sizeof service];
    Grpc__Health__V1__HealthCheckRequest q = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct probe *p = malloc(sizeof *p);
    if (!p)
        return;
    *p = (struct probe){balancer, *check};
    memcpy(name, service, sizeof name);
    q.service = name;
    (void)rpc_client_call(b->rpc,
                          &(struct rpc_request){.service = "grpc.health.v1.Health",
                                                .method = "Check",
                                                .message = &q.base,
                                                .answer = &grpc__health__v1__health_check_response__descriptor,
                                                .deadline_us = gateway_now() + timeout_us},
                          probed, p);
}

/* ---- the result */

static const char *status_name(Booking__V1__BookingStatus s)
{
    switch (s) {
    case BOOKING__V1__BOOKING_STATUS__BOOKING_STATUS_PENDING:
        return "PENDING";
    case BOOKING__V1__BOOKING_STATUS__BOOKING_STATUS_CONFIRMED:
        return "CONFIRMED";
    case BOOKING__V1__BOOKING_STATUS__BOOKING_STATUS_CANCELLED:
        return "CANCELLED";
    case BOOKING__V1__BOOKING_STATUS__BOOKING_STATUS_EXPIRED:
        return "EXPIRED";
    default:
        return "UNKNOWN";
    }
}

static void text(struct jw *w, const char *key, const char *value)
{
    if (value && value[0])
        jw_kz(w, key, value);
}

/* Byte for byte what the service answers over HTTP: a key may be used by both ways. */
static void write_booking(struct buf *out, const Booking__V1__Booking *b)
{
    int64_t user;
    const struct money_currency_info *currency = money_by_code(str_c(b->currency));
    struct jw w;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kz(&w, "booking_id", b->booking_id);
    jw_kz(&w, "status", status_name(b->status));
    jw_kz(&w, "event_id", b->event_id);
    if (!b->guest && str_to_i64(str_c(b->user_id), &user))
        jw_kint(&w, "user_id", user);
    else
        jw_kz(&w, "user_id", b->user_id);
    jw_kint(&w, "ticket_count", b->ticket_count);
    if (currency) {
        jw_kamount(&w, "amount", b->amount_minor, currency->scale);
        jw_kz(&w, "currency", currency->code);
    }
    text(&w, "reason", b->reason);
    text(&w, "expires_at", b->expires_at);
    text(&w, "created_at", b->created_at);
    text(&w, "updated_at", b->updated_at);
    jw_end_obj(&w);
}

static void add_head(struct exchange *x, const char *name, struct str value)
{
    buf_puts(&x->head, name);
    buf_putc(&x->head, '\0');
    buf_str(&x->head, value);
    buf_putc(&x->head, '\0');
    x->n_head++;
}

/* For a service that names no problem of ours. */
static enum pf_err problem_of(enum rpc_code code)
{
    switch (code) {
    case RPC_INVALID_ARGUMENT:
    case RPC_OUT_OF_RANGE:
        return PFE_INVALID;
    case RPC_NOT_FOUND:
        return PFE_NOT_FOUND;
    case RPC_ALREADY_EXISTS:
    case RPC_FAILED_PRECONDITION:
    case RPC_ABORTED:
        return PFE_WRONG_STATE;
    case RPC_PERMISSION_DENIED:
        return PFE_FORBIDDEN;
    case RPC_UNAUTHENTICATED:
        return PFE_UNAUTHENTICATED;
    case RPC_RESOURCE_EXHAUSTED:
        return PFE_RATE_LIMITED;
    case RPC_DEADLINE_EXCEEDED:
        return PFE_TIMEOUT;
    case RPC_UNAVAILABLE:
        return PFE_UNAVAILABLE;
    default:
        return PFE_BAD_GATEWAY;
    }
}

/* Which fields are wrong, by the problem as the service would have said it over HTTP. */
static void take_fields(struct exchange *x, struct str said)
{
    struct json *problem;
    char in[8], name[64];
    if (!said.n || json_parse(&x->arena, said, &problem, NULL) != PFE_OK)
        return;
    const struct json *errors = json_get(problem, "errors"), *detail = json_get(problem, "detail");
    for (const struct json *e = errors && errors->type == JSON_ARRAY ? errors->child : NULL; e; e = e->next) {
        const struct json *loc = json_get(e, "loc"), *msg = json_get(e, "msg"), *type = json_get(e, "type");
        const struct json *first = loc && loc->type == JSON_ARRAY ? loc->child : NULL;
        struct str kind = type ? type->s : STR_NONE, words = msg ? msg->s : STR_NONE;
        char kind_text[32];
        if (first && first->next && str_copy(in, sizeof in, first->s) && str_copy(name, sizeof name, first->next->s) &&
            str_copy(kind_text, sizeof kind_text, kind))
            problem_field(x->refusal, in, name, kind_text, "%.*s", (int)words.n, words.n ? words.p : "");
    }
    if (detail)
        str_copy(x->refusal->detail, sizeof x->refusal->detail, detail->s);
}

/* What the service says beside an answer. */
static const struct {
    const char *trailer, *header;
} told[] = {{"idempotency-replayed", "Idempotency-Replayed"},
            {"x-payflow-stale", "X-PayFlow-Stale"},
            {"age", "Age"},
            {"ratelimit", "RateLimit"},
            {"ratelimit-policy", "RateLimit-Policy"}};

static void pass_on(struct exchange *x, const struct rpc_result *r)
{
    for (unsigned i = 0; i < sizeof told / sizeof *told; i++) {
        struct str v = rpc_result_metadata(r, told[i].trailer);
        if (v.n)
            add_head(x, told[i].header, v);
    }
}

static enum exchange_end refused(struct exchange *x, const struct rpc_result *r)
{
    static const char prefix[] = "/problems/";
    struct str type = rpc_result_metadata(r, "problem-type"), after = rpc_result_metadata(r, "retry-after");
    uint64_t seconds = 0;
    x->refusal = arena_zalloc(&x->arena, sizeof *x->refusal);
    if (!x->refusal)
        return END_NOMEM;
    enum pf_err e = PFE_OK;
    if (str_starts(type, str_c(prefix)))
        e = err_by_slug(type.p + sizeof prefix - 1, type.n - (sizeof prefix - 1));
    problem_set(x->refusal, e == PFE_OK ? problem_of(r->code) : e, "%.*s",
                (int)(r->text.n < sizeof x->refusal->detail ? r->text.n : sizeof x->refusal->detail - 1),
                r->text.n ? r->text.p : "");
    take_fields(x, rpc_result_metadata(r, "problem-json"));
    if (after.n && str_to_u64(after, &seconds) && seconds < 86400) {
        x->refusal->retry_after_s = (int)seconds;
        x->retry_after_us = (int64_t)seconds * 1000000;
    }
    x->status = err_info(x->refusal->code)->http;
    pass_on(x, r);
    return x->head.failed ? END_NOMEM : END_ANSWER;
}

static enum exchange_end judged(struct exchange *x, const struct rpc_result *r)
{
    if (r->code == RPC_OK) {
        const struct ask *ask = x->ask;
        x->status = ask->kind == ASK_CREATE ? 201 : 200;
        add_head(x, "Content-Type", str_c(http_json));
        add_head(x, "Cache-Control", STR("no-store"));
        pass_on(x, r);
        write_booking(&x->body_in, (const Booking__V1__Booking *)r->answer);
        x->length = (int64_t)x->body_in.n;
        return x->head.failed || x->body_in.failed ? END_NOMEM : END_ANSWER;
    }
    if (r->from_server)
        return refused(x, r);
    if (r->not_sent)
        return END_NOT_SENT;
    switch (r->code) {
    case RPC_DEADLINE_EXCEEDED:
        return END_DEADLINE;
    case RPC_CANCELLED:
        return END_STOPPING;
    case RPC_INTERNAL:
        return END_GARBAGE;
    default:
        return END_LOST;
    }
}

static void done(void *user, const struct rpc_result *r)
{
    struct exchange *x = user;
    x->requests = r->not_sent ? 0 : 1;
    x->rpc_end = judged(x, r);
    gateway_loop_post(x, POST_RPC);
}

/* ---- the call */

static char *or_empty(char *s)
{
    static char empty[1];
    return s ? s : empty;
}

bool bookings_start(struct exchange *x)
{
    struct ask *ask = x->ask;
    Booking__V1__CreateBookingRequest create = BOOKING__V1__CREATE_BOOKING_REQUEST__INIT;
    Booking__V1__GetBookingRequest get = BOOKING__V1__GET_BOOKING_REQUEST__INIT;
    Booking__V1__CancelBookingRequest cancel = BOOKING__V1__CANCEL_BOOKING_REQUEST__INIT;
    struct rpc_request q = {.service = service,
                            .answer = &booking__v1__booking__descriptor,
                            .metadata = ask->metadata,
                            .n_metadata = ask->n_metadata};
    int64_t now = gateway_now();
    transfer_reset(x);
    x->refusal = NULL;
    x->attempt_us = x->moved_us = now;
    q.deadline_us = now + retry_left_us(&x->call, now);
    switch (ask->kind) {
    case ASK_CREATE:
        create.user_id = or_empty(ask->user_id);
        create.event_id = ask->event_id;
        create.ticket_count = ask->count;
        create.idempotency_key = or_empty(ask->key);
        create.user_number = ask->user_number;
        q.method = "CreateBooking";
        q.message = &create.base;
        break;
    case ASK_GET:
        get.booking_id = ask->booking_id;
        q.method = "GetBooking";
        q.message = &get.base;
        break;
    case ASK_CANCEL:
        cancel.booking_id = ask->booking_id;
        q.method = "CancelBooking";
        q.message = &cancel.base;
        break;
    }
    x->ticket = rpc_client_call(x->backend->rpc, &q, done, x);
    return true;
}

void bookings_cancel(struct exchange *x)
{
    rpc_client_cancel(x->backend->rpc, x->ticket);
}

void bookings_disconnect(struct backend *b)
{
    rpc_client_free(b->rpc);
    b->rpc = NULL;
}

bool bookings_under_way(const struct backend *b)
{
    return rpc_client_in_flight(b->rpc) > 0;
}

/* ---- the question */

static char *copy(struct exchange *x, struct str s)
{
    return (char *)arena_strdup(&x->arena, s).p;
}

/* A string, or the digits of a whole number. */
static struct str id_of(const struct json *v)
{
    if (!v || (v->type != JSON_STRING && v->type != JSON_NUMBER))
        return STR_NONE;
    uint64_t n;
    return v->type == JSON_STRING || str_to_u64(v->s, &n) ? v->s : STR_NONE;
}

static void check_id(struct problem *p, const struct json *body, const char *name, bool needed, bool number,
                     struct str *ret)
{
    const struct json *v = json_get(body, name);
    if (v && v->type == JSON_NULL)
        v = NULL;
    *ret = id_of(v);
    if (!v && needed)
        problem_field(p, "body", name, "missing", "is required");
    else if (v && (!ret->p || (v->type == JSON_NUMBER && !number)))
        problem_field(p, "body", name, "type", "must be a string");
    else if (v && ret->n == 0)
        problem_field(p, "body", name, "length", "must not be empty");
    else if (v && ret->n > ID_MAX)
        problem_field(p, "body", name, "length", "must be at most %d bytes", ID_MAX);
}

static void check_count(struct problem *p, const struct json *body, int32_t *ret)
{
    const struct json *v = json_get(body, "ticket_count");
    int64_t n = 0;
    if (!v || v->type == JSON_NULL)
        problem_field(p, "body", "ticket_count", "missing", "is required");
    else if (v->type != JSON_NUMBER || !str_to_i64(v->s, &n))
        problem_field(p, "body", "ticket_count", "type", "must be an integer");
    else if (n < 1 || n > TICKET_COUNT_MAX)
        problem_field(p, "body", "ticket_count", "range", "must be from 1 to %d", TICKET_COUNT_MAX);
    *ret = (int32_t)n;
}

static bool take_create(struct exchange *x, struct ask *ask, struct http_req *r, struct problem *p)
{
    struct json *body = NULL;
    struct str user, event, key = http_header(r, "idempotency-key");
    if (!http_is_json(http_header(r, "content-type"), http_header(r, "content-encoding"))) {
        p->code = PFE_MEDIA_TYPE;
        return false;
    }
    if (key.p && !http_idempotency_key(key, p, &key))
        return false;
    p->code = json_parse(&r->arena, r->body.n ? r->body : STR("{}"), &body, p);
    if (p->code != PFE_OK)
        return false;
    if (body->type != JSON_OBJECT) {
        problem_field(p, "body", "", "type", "must be a JSON object");
        return false;
    }
    bool known = http_header(r, "authorization").p || http_header(r, "x-api-key").p;
    check_id(p, body, "user_id", !known, true, &user);
    const struct json *id = json_get(body, "user_id");
    ask->user_number = id && id->type == JSON_NUMBER;
    check_id(p, body, "event_id", true, false, &event);
    check_count(p, body, &ask->count);
    if (p->code != PFE_OK)
        return false;
    ask->user_id = copy(x, user);
    ask->event_id = copy(x, event);
    ask->key = copy(x, key);
    if (!ask->user_id || !ask->event_id || !ask->key)
        p->code = PFE_NOMEM;
    return p->code == PFE_OK;
}

static bool take_metadata(struct exchange *x, struct ask *ask, const struct http_req *r, struct problem *p)
{
    static const char *const names[] = {"authorization", "x-api-key", "idempotency-key"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        struct str v = http_header(r, names[i]);
        if (http_header_count(r, names[i]) > 1) {
            problem_set(p, PFE_BAD_HEADER, "%s must be sent once.", names[i]);
            return false;
        }
        if (v.p) /* an empty one is sent, too, and is wrong */
            ask->metadata[ask->n_metadata++] = (struct rpc_entry){names[i], arena_strdup(&x->arena, v)};
    }
    const struct rpc_entry ours[] = {
        {"x-request-id", r->request_id}, {"traceparent", r->traceparent}, {"x-forwarded-for", str_c(r->peer)}};
    for (unsigned i = 0; i < sizeof ours / sizeof *ours; i++) {
        if (ours[i].value.n)
            ask->metadata[ask->n_metadata++] = (struct rpc_entry){ours[i].name, arena_strdup(&x->arena, ours[i].value)};
    }
    return true;
}

bool bookings_take(struct exchange *x, struct http_req *r, struct str path, struct problem *p)
{
    struct str prefix = str_c(x->row->prefix);
    struct str id = path.n > prefix.n ? (struct str){path.p + prefix.n + 1, path.n - prefix.n - 1} : STR_NONE;
    struct ask *ask = arena_zalloc(&x->arena, sizeof *ask);
    if (!ask) {
        p->code = PFE_NOMEM;
        return false;
    }
    x->ask = ask;
    const char *detail = NULL;
    enum pf_err e = http_check_query(r, &detail);
    if (e != PFE_OK) {
        problem_set(p, e, "%s", detail ? detail : "");
        return false;
    }
    if (!take_metadata(x, ask, r, p))
        return false;
    if (id.n == 0)
        return take_create(x, ask, r, p);
    ask->kind = r->method == HTTP_DELETE ? ASK_CANCEL : ASK_GET;
    if (id.n > ID_MAX || memchr(id.p, '/', id.n) || memchr(id.p, '%', id.n)) {
        p->code = PFE_NOT_FOUND;
        return false;
    }
    ask->booking_id = copy(x, id);
    if (!ask->booking_id)
        p->code = PFE_NOMEM;
    return p->code == PFE_OK;
}

bool bookings_are_http(const struct http_req *r, struct str path, const struct gateway_row *row)
{
    return r->method == HTTP_GET && path.n <= strlen(row->prefix) + 1;
}

bool bookings_method_ok(struct http_req *r, struct str path, const struct gateway_row *row)
{
    bool one = path.n > strlen(row->prefix) + 1;
    if (one ? r->method == HTTP_GET || r->method == HTTP_DELETE : r->method == HTTP_POST)
        return true;
    http_set_header(r, "Allow", one ? STR("GET, HEAD, DELETE, OPTIONS") : STR("GET, HEAD, POST, OPTIONS"));
    return false;
}
