/*
 * The life of a call.
 *
 *   POSTED ─▶ WAITING ─▶ OPEN ─▶ DONE (freed, once a cancel that was posted has run)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rand.h"
#include "rpc/client_internal.h"

enum { ARENA_ABOVE = 8 << 20, DEADLINE_DEFAULT_US = 60000000 };

/* ---- results */

static void count(struct rpc_client *c, enum rpc_code code)
{
    if (!c->config.metrics)
        return;
    struct metric_counter *m = atomic_load_explicit(&c->c_calls[code], memory_order_acquire);
    if (!m) {
        char labels[40];
        snprintf(labels, sizeof labels, "code=\"%s\"", rpc_code_name(code));
        m = metric_counter(c->config.metrics, "payflow_grpc_client_calls_total", "gRPC calls made, by their end.",
                           labels);
        atomic_store_explicit(&c->c_calls[code], m, memory_order_release);
    }
    metric_inc(m, 1);
}

static void call_free(struct ccall *q)
{
    arena_reset(&q->arena);
    buf_free(&q->out);
    buf_free(&q->in.body);
    free(q);
}

/* The one place where a call ends, on the loop. */
static void finish(struct ccall *q, const struct rpc_result *r)
{
    struct rpc_client *c = q->client;
    loop_timer_clear(&c->loop, &q->timer);
    q->phase = C_DONE;
    pthread_mutex_lock(&c->lock);
    map_u64_del(&c->open, q->ticket);
    bool later = q->cancelling && !q->cancel_ran;
    pthread_mutex_unlock(&c->lock);
    atomic_fetch_sub(&c->in_flight, 1);
    if (c->g_in_flight)
        metric_add(c->g_in_flight, -1);
    count(c, r->code);
    q->done(q->user, r);
    if (!later)
        call_free(q);
}

void client_decide(struct ccall *q, enum rpc_code code, const char *text)
{
    if (q->decided)
        return;
    q->decided = true;
    q->code = code;
    q->text = text;
}

/* https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md */
static enum rpc_code of_http(unsigned status)
{
    switch (status) {
    case 400:
        return RPC_INTERNAL;
    case 401:
        return RPC_UNAUTHENTICATED;
    case 403:
        return RPC_PERMISSION_DENIED;
    case 404:
        return RPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return RPC_UNAVAILABLE;
    default:
        return RPC_UNKNOWN;
    }
}

/* https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#http2-transport-mapping */
static enum rpc_code of_error(uint32_t error)
{
    switch (error) {
    case NGHTTP2_REFUSED_STREAM:
        return RPC_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return RPC_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return RPC_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return RPC_PERMISSION_DENIED;
    default:
        return RPC_INTERNAL;
    }
}

static void read_answer(struct ccall *q, struct rpc_result *r)
{
    struct str bytes = buf_as_str(&q->in.body);
    if (q->messages == 1 && wire_check(q->answer, bytes) == WIRE_OK)
        r->answer = wire_unpack(q->answer, bytes, &q->arena);
    if (r->answer)
        return;
    r->code = RPC_INTERNAL;
    r->text = q->messages == 1 ? STR("the answer is not a message of its type") : STR("the answer has not one message");
}

void client_end(struct ccall *q, uint32_t error)
{
    struct rpc_result r = {.text = STR(""), .metadata = q->got, .n_metadata = q->n_got};
    r.took_us = clock_mono(q->client->config.clock) - q->start_us;
    if (q->decided) {
        r.code = q->code;
        r.text = str_c(q->text);
        r.not_sent = !q->sent;
    } else if (q->grpc_status >= 0) {
        r.code = q->grpc_status < RPC_CODES ? (enum rpc_code)q->grpc_status : RPC_UNKNOWN;
        r.text = q->grpc_message.p ? q->grpc_message : STR("");
        r.from_server = true;
        if (r.code == RPC_OK)
            read_answer(q, &r);
    } else if (q->http_status && q->http_status != 200) {
        r.code = of_http(q->http_status);
        r.text = STR("the answer is not gRPC");
    } else if (error == NGHTTP2_NO_ERROR) {
        r.code = RPC_INTERNAL;
        r.text = STR("the answer has no status");
    } else {
        r.code = q->sent ? of_error(error) : RPC_UNAVAILABLE;
        r.text = STR("the stream was reset");
        r.not_sent = !q->sent || error == NGHTTP2_REFUSED_STREAM;
    }
    finish(q, &r);
}

/* ---- waiting */

static void wait_remove(struct rpc_client *c, struct ccall *q)
{
    struct ccall **at = &c->waiting;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    if (!*at)
        c->waiting_end = at;
    q->next = NULL;
}

void client_pump(struct rpc_client *c)
{
    struct peer *p;
    while (c->waiting && (p = peer_pick(c))) {
        struct ccall *q = c->waiting;
        wait_remove(c, q);
        if (!peer_submit(p, q)) {
            client_decide(q, RPC_UNAVAILABLE, "out of memory");
            client_end(q, 0);
        }
    }
    if (!c->n_peers)
        client_fail_waiting(c);
}

void client_fail_waiting(struct rpc_client *c)
{
    while (c->waiting) {
        struct ccall *q = c->waiting;
        wait_remove(c, q);
        client_decide(q, c->closing ? RPC_CANCELLED : RPC_UNAVAILABLE, c->why ? c->why : "no connection");
        client_end(q, 0);
    }
}

static void end_early(struct ccall *q, enum rpc_code code, const char *text)
{
    client_decide(q, code, text);
    if (q->phase == C_WAITING)
        wait_remove(q->client, q);
    else if (q->phase == C_OPEN)
        peer_drop(q);
    client_end(q, NGHTTP2_CANCEL);
}

static void on_deadline(struct timer *t)
{
    end_early((struct ccall *)((char *)t - offsetof(struct ccall, timer)), RPC_DEADLINE_EXCEEDED,
              "the deadline is over");
}

static void on_begin(struct task *t)
{
    struct ccall *q = (struct ccall *)((char *)t - offsetof(struct ccall, begin));
    struct rpc_client *c = q->client;
    q->phase = C_WAITING;
    q->next = NULL;
    *c->waiting_end = q;
    c->waiting_end = &q->next;
    if (c->closing) {
        end_early(q, RPC_CANCELLED, "the client is closed");
    } else if (q->deadline_us <= c->loop.now) {
        end_early(q, RPC_DEADLINE_EXCEEDED, "the deadline is over");
    } else {
        loop_timer_set(&c->loop, &q->timer, q->deadline_us);
        client_pump(c);
    }
}

static void on_cancel(struct task *t)
{
    struct ccall *q = (struct ccall *)((char *)t - offsetof(struct ccall, cancel));
    q->cancel_ran = true;
    if (q->phase == C_DONE)
        call_free(q);
    else
        end_early(q, RPC_CANCELLED, "cancelled");
}

/* ---- from any thread */

/* NULL: no memory, or the message is too large (*ret_code). */
static struct ccall *call_make(struct rpc_client *c, const struct rpc_request *r, enum rpc_code *ret_code)
{
    *ret_code = RPC_RESOURCE_EXHAUSTED;
    struct ccall *q = malloc(sizeof *q);
    if (!q)
        return NULL;
    memset(q, 0, offsetof(struct ccall, metadata));
    memset(&q->out, 0, offsetof(struct ccall, got) - offsetof(struct ccall, out));
    buf_init(&q->out, 0);
    buf_init(&q->in.body, 0);
    arena_init(&q->arena, q->inline_block, sizeof q->inline_block, ARENA_ABOVE + c->config.receive_max);
    q->client = c;
    q->begin.run = on_begin;
    q->cancel.run = on_cancel;
    q->timer.fire = on_deadline;
    q->grpc_status = -1;
    q->answer = r->answer;
    q->start_us = clock_mono(c->config.clock);
    q->deadline_us = r->deadline_us ? r->deadline_us : q->start_us + DEADLINE_DEFAULT_US;
    struct buf path;
    buf_init(&path, 512);
    buf_putc(&path, '/');
    buf_puts(&path, r->service);
    buf_putc(&path, '/');
    buf_puts(&path, r->method);
    q->path = path.failed ? STR_NONE : arena_strdup(&q->arena, buf_as_str(&path));
    buf_free(&path);
    size_t n = protobuf_c_message_get_packed_size(r->message);
    bool ok = q->path.p && r->n_metadata <= REQUEST_METADATA_MAX && n <= c->config.send_max &&
              frame_put(&q->out, r->message, n);
    for (unsigned i = 0; ok && i < r->n_metadata; i++) {
        q->metadata[i].name = arena_strdup(&q->arena, str_c(r->metadata[i].name));
        q->metadata[i].value = arena_strdup(&q->arena, r->metadata[i].value);
        ok = q->metadata[i].name.p && q->metadata[i].value.p;
    }
    q->n_metadata = r->n_metadata;
    if (ok)
        return q;
    call_free(q);
    return NULL;
}

static bool enter(struct rpc_client *c, struct ccall *q)
{
    pthread_mutex_lock(&c->lock);
    q->ticket = ++c->tickets;
    bool ok = map_u64_put(&c->open, q->ticket, (uint64_t)(uintptr_t)q);
    pthread_mutex_unlock(&c->lock);
    return ok;
}

uint64_t rpc_client_call(struct rpc_client *c, const struct rpc_request *r, rpc_done *done, void *user)
{
    unsigned most = c->config.connections * c->config.max_in_flight + c->config.max_waiting;
    struct rpc_result refusal = {.code = RPC_RESOURCE_EXHAUSTED, .not_sent = true};
    struct ccall *q = NULL;
    refusal.text = STR("too many calls are open");
    if (atomic_fetch_add(&c->in_flight, 1) < most) {
        q = call_make(c, r, &refusal.code);
        refusal.text = STR("the request is too large, or there is no memory");
    }
    if (q && !enter(c, q)) {
        call_free(q);
        q = NULL;
    }
    if (!q) {
        atomic_fetch_sub(&c->in_flight, 1);
        count(c, refusal.code);
        done(user, &refusal);
        return UINT64_MAX;
    }
    if (c->g_in_flight)
        metric_add(c->g_in_flight, 1);
    q->done = done;
    q->user = user;
    uint64_t ticket = q->ticket; /* q may be gone right after the post */
    loop_post(&c->loop, &q->begin);
    return ticket;
}

void rpc_client_cancel(struct rpc_client *c, uint64_t ticket)
{
    uint64_t found;
    pthread_mutex_lock(&c->lock);
    if (ticket != UINT64_MAX && map_u64_get(&c->open, ticket, &found)) {
        struct ccall *q = (struct ccall *)(uintptr_t)found;
        if (!q->cancelling) {
            q->cancelling = true;
            loop_post(&c->loop, &q->cancel);
        }
    }
    pthread_mutex_unlock(&c->lock);
}

unsigned rpc_client_in_flight(const struct rpc_client *c)
{
    return atomic_load(&c->in_flight);
}

struct str rpc_result_metadata(const struct rpc_result *r, const char *name)
{
    struct str want = str_c(name);
    for (unsigned i = 0; i < r->n_metadata; i++)
        if (str_eq(r->metadata[i].name, want))
            return r->metadata[i].value;
    return STR_NONE;
}

/* ---- the client */

static void on_tick(struct loop *l)
{
    struct rpc_client *c = l->owner;
    for (struct peer *p = c->peers, *next; p; p = next) {
        next = p->next;
        peer_tick(p);
    }
}

static void on_close(struct task *t)
{
    struct rpc_client *c = (struct rpc_client *)((char *)t - offsetof(struct rpc_client, close));
    c->closing = true;
    c->why = "the client is closed";
    client_fail_waiting(c);
    for (struct peer *p = c->peers; p; p = p->next)
        link_close(&p->link, c->why);
}

static bool address_of(struct rpc_client *c, char why[256])
{
    struct sockaddr_in *four = (void *)&c->address;
    struct sockaddr_in6 *six = (void *)&c->address;
    if (inet_pton(AF_INET, c->config.host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(c->config.port);
        c->address_n = sizeof *four;
    } else if (inet_pton(AF_INET6, c->config.host, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(c->config.port);
        c->address_n = sizeof *six;
    } else {
        snprintf(why, 256, "gRPC: %.100s is no numeric address", c->config.host);
    }
    return c->address_n != 0;
}

/* The certificate's name is the authority without its port. */
static bool names_of(struct rpc_client *c)
{
    char text[300];
    const char *given = c->config.authority, *host = c->config.host;
    snprintf(text, sizeof text, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, c->config.port);
    c->authority = strdup(given ? given : text);
    c->name = strdup(given ? given : host);
    char *port = c->name && given ? strrchr(c->name, ':') : NULL;
    if (port && !strchr(port, ']'))
        *port = '\0';
    return c->authority && c->name;
}

static void defaults(struct rpc_client_config *c)
{
#define DEFAULT(field, value)                                                                                          \
    if (!c->field)                                                                                                     \
    c->field = (value)
    DEFAULT(connections, 2);
    DEFAULT(max_in_flight, 100);
    DEFAULT(max_waiting, 1000);
    DEFAULT(connect_ms, 3000);
    DEFAULT(keepalive_s, 20);
    DEFAULT(keepalive_ms, 5000);
    DEFAULT(receive_max, 4 << 20);
    DEFAULT(send_max, 4 << 20);
#undef DEFAULT
    if (c->connections > CONNECTIONS_MAX)
        c->connections = CONNECTIONS_MAX;
}

static void client_destroy(struct rpc_client *c)
{
    loop_fini(&c->loop);
    nghttp2_session_callbacks_del(c->callbacks);
    nghttp2_option_del(c->options);
    SSL_CTX_free(c->tls);
    map_u64_free(&c->open);
    pthread_mutex_destroy(&c->lock);
    free(c->authority);
    free(c->name);
    free(c);
}

struct rpc_client *rpc_client_new(const struct rpc_client_config *config, char why[256])
{
    struct rpc_client *c = calloc(1, sizeof *c);
    snprintf(why, 256, "no memory");
    if (!c)
        return NULL;
    c->config = *config;
    defaults(&c->config);
    pthread_mutex_init(&c->lock, NULL);
    map_u64_init(&c->open);
    c->waiting_end = &c->waiting;
    c->close.run = on_close;
    c->random = rand_u64();
    c->loop.ep = c->loop.wake = -1;
    if (c->config.metrics) {
        c->g_in_flight =
            metric_gauge(c->config.metrics, "payflow_grpc_client_in_flight", "gRPC calls made and not ended.", "");
        for (unsigned i = 0; i < 2; i++)
            c->c_connects[i] =
                metric_counter(c->config.metrics, "payflow_grpc_client_connects_total",
                               "Attempts to connect to a gRPC server.", i ? "outcome=\"ok\"" : "outcome=\"failed\"");
    }
    bool ok = address_of(c, why) && names_of(c) && peer_setup(c);
    if (ok && c->config.tls)
        ok = (c->tls = tls_client(c->config.tls_ca, why)) != NULL;
    if (ok) {
        ok = loop_init(&c->loop, c->config.clock);
        c->loop.owner = c;
        c->loop.tick = on_tick;
        ok = ok && loop_start(&c->loop);
        if (!ok)
            snprintf(why, 256, "gRPC: cannot start the client's thread: %s", strerror(errno));
    }
    if (ok)
        return c;
    client_destroy(c);
    return NULL;
}

void rpc_client_free(struct rpc_client *c)
{
    if (!c)
        return;
    loop_post(&c->loop, &c->close);
    loop_stop(&c->loop);
    client_destroy(c);
}
