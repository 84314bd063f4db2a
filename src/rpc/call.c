/*
 * The life of a call.
 *
 *   HEADERS ─▶ MESSAGE ─▶ RUNNING ─▶ ANSWERED ─▶ stream closed, freed
 *                 │        │   ▲ ▲
 *                 │        ▼   │ │ rpc_resume
 *                 │     SUSPENDED       (its stream may be closed meanwhile: freed once `resumed` has returned)
 *                 └─▶ STREAM ─▶ ANSWERED
 *
 * Any of them but the last two may be answered early, by an error or the deadline.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/internal.h"

enum {
    COUNT_LEAST = 16 << 10, /* smaller calls are not accounted for: max_calls bounds them */
    WORTH_MESSAGE = 4       /* frames without content that a message may bring along */
};

/* splitmix64 (Steele, Lea, Flood 2014): every state gives another word. Ids have to be unique, not secret. */
uint64_t rpc_next_word(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* ---- making and freeing */

static void on_deadline(struct timer *t);

static void on_resume(struct task *t);

struct call *call_new(struct conn *n, int32_t stream)
{
    struct io *io = n->io;
    struct call *c = io->idle;
    if (c) {
        io->idle = c->next;
        io->n_idle--;
    } else if ((c = malloc(sizeof *c)) != NULL) {
        buf_init(&c->out, 0);
        buf_init(&c->in.body, 0);
    } else {
        return NULL;
    }
    /* The large blocks at the end are not zeroed: nothing reads them before it writes them. */
    struct buf out = c->out, in = c->in.body;
    memset(c, 0, offsetof(struct call, set));
    memset(&c->text, 0, offsetof(struct call, id_text) - offsetof(struct call, text));
    c->out = out;
    c->in.body = in;
    c->conn = n;
    c->io = io;
    c->stream = stream;
    c->timer.fire = on_deadline;
    c->task.run = on_resume;
    c->pub.metadata = c->metadata;
    c->pub.server = n->server;
    c->pub.ctx = n->server->config.ctx;
    c->pub.start_us = io->loop.now;
    memcpy(c->pub.peer, n->peer, sizeof c->pub.peer);
    arena_init(&c->pub.arena, c->inline_block, sizeof c->inline_block, ARENA_BYTES + n->server->config.receive_max);
    c->next = n->calls;
    if (c->next)
        c->next->prev = c;
    n->calls = c;
    n->n_calls++;
    atomic_fetch_add(&n->server->calls, 1);
    metric_add(n->server->g_calls, 1);
    return c;
}

void call_free(struct call *c)
{
    arena_reset(&c->pub.arena);
    buf_free(&c->out);
    buf_free(&c->in.body);
    free(c);
}

static void count_as(struct call *c, size_t bytes)
{
    if (bytes == c->counted)
        return;
    atomic_fetch_add(&c->io->server->memory, bytes - c->counted); /* modulo 2^n: may be negative */
    if (c->conn)
        c->conn->memory += bytes - c->counted;
    c->counted = bytes;
}

bool call_room(const struct call *c, size_t more)
{
    const struct rpc_server *s = c->io->server;
    return (!c->conn || c->conn->memory + more <= s->config.connection_memory) &&
           atomic_load(&s->memory) + more <= s->config.memory;
}

bool call_count(struct call *c)
{
    size_t bytes = c->in.body.cap + c->out.cap + (c->phase == PHASE_SUSPENDED ? 0 : c->pub.arena.used);
    count_as(c, bytes < COUNT_LEAST ? 0 : bytes);
    return c->counted == 0 || call_room(c, 0);
}

/* Nobody has it any more. */
static void call_done(struct call *c)
{
    struct io *io = c->io;
    struct rpc_server *s = io->server;
    struct conn *n = c->conn;
    loop_timer_clear(&io->loop, &c->timer);
    count_as(c, 0);
    if (n) {
        if (c->prev)
            c->prev->next = c->next;
        else
            n->calls = c->next;
        if (c->next)
            c->next->prev = c->prev;
        if (--n->n_calls == 0)
            n->idle_us = io->loop.now;
    }
    if (c->out.cap > KEEP_BUF_BYTES)
        buf_free(&c->out);
    if (c->in.body.cap > KEEP_BUF_BYTES)
        buf_free(&c->in.body);
    buf_clear(&c->out);
    buf_clear(&c->in.body);
    arena_reset(&c->pub.arena);
    if (io->n_idle < KEEP_CALLS) {
        c->next = io->idle;
        io->idle = c;
        io->n_idle++;
    } else {
        call_free(c);
    }
    metric_add(s->g_calls, -1);
    atomic_fetch_sub(&s->calls, 1);
}

/* ---- handling */

static void after_run(struct call *c)
{
    if (c->phase == PHASE_SUSPENDED)
        return;
    if (c->answered)
        c->phase = PHASE_ANSWERED;
    if (!c->answered && c->phase == PHASE_RUNNING)
        answer_status(c, RPC_INTERNAL, STR("the method has not answered"));
    if (!c->stream)
        call_done(c);
}

static void run(struct call *c, void (*fn)(struct rpc_call *c))
{
    c->phase = PHASE_RUNNING;
    fn(&c->pub);
    after_run(c);
}

static void on_resume(struct task *t)
{
    struct call *c = (struct call *)((char *)t - offsetof(struct call, task));
    if (c->conn)
        link_touch(&c->conn->link);
    run(c, c->resumed);
}

void rpc_suspend(struct rpc_call *pub, void (*resumed)(struct rpc_call *c))
{
    struct call *c = (struct call *)pub;
    c->resumed = resumed;
    c->phase = PHASE_SUSPENDED;
}

void rpc_resume(struct rpc_call *pub)
{
    struct call *c = (struct call *)pub;
    loop_post(&c->io->loop, &c->task);
}

bool rpc_call_cancelled(const struct rpc_call *pub)
{
    const struct call *c = (const struct call *)pub;
    return atomic_load_explicit(&c->cancelled, memory_order_relaxed);
}

struct str rpc_metadata(const struct rpc_call *c, const char *name)
{
    struct str want = str_c(name);
    for (unsigned i = 0; i < c->n_metadata; i++)
        if (str_eq(c->metadata[i].name, want))
            return c->metadata[i].value;
    return STR_NONE;
}

/* ---- deadlines */

static void on_deadline(struct timer *t)
{
    struct call *c = (struct call *)((char *)t - offsetof(struct call, timer));
    struct loop *l = &c->io->loop;
    struct conn *n = c->conn;
    if (!c->stream || !n)
        return;
    bool write_over = c->answered || l->now < c->pub.deadline_us;
    if (write_over) { /* the client does not take the answer */
        nghttp2_submit_rst_stream(n->link.session, NGHTTP2_FLAG_NONE, c->stream, NGHTTP2_CANCEL);
    } else {
        atomic_store(&c->cancelled, true);
        if (c->phase == PHASE_SUSPENDED)
            answer_bare(c, RPC_DEADLINE_EXCEEDED, "the deadline is over");
        else if (c->phase == PHASE_STREAM)
            answer_finish(c, RPC_DEADLINE_EXCEEDED, STR("the deadline is over"));
        else
            answer_status(c, RPC_DEADLINE_EXCEEDED, STR("the deadline is over"));
        loop_timer_set(l, t, l->now + (int64_t)n->server->config.write_ms * 1000);
    }
    link_touch(&n->link);
}

void call_drained(struct call *c)
{
    if (c->pub.deadline_us == INT64_MAX)
        loop_timer_clear(&c->io->loop, &c->timer);
    else
        loop_timer_set(&c->io->loop, &c->timer, c->pub.deadline_us);
}

/* ---- the header block */

/* Pseudo-headers and what gRPC itself means; the rest, and the ids, is metadata. */
static struct str *known(struct call *c, struct str name)
{
    switch (name.n) {
    case 2:
        return str_is(name, "te") ? &c->ignored : NULL;
    case 5:
        return str_is(name, ":path") ? &c->path : NULL;
    case 7:
        return str_is(name, ":method") ? &c->http_method : str_is(name, ":scheme") ? &c->ignored : NULL;
    case 10:
        return str_is(name, ":authority") ? &c->pub.authority : NULL;
    case 12:
        return str_is(name, "content-type") ? &c->content_type : str_is(name, "grpc-timeout") ? &c->timeout : NULL;
    case 13:
        return str_is(name, "grpc-encoding") ? &c->encoding : NULL;
    default:
        return NULL;
    }
}

void call_header(struct call *c, struct str name, struct str value)
{
    if (c->phase != PHASE_HEADERS || c->crowded) /* trailers of a request are none of gRPC */
        return;
    struct str *to = known(c, name);
    if (c->header_bytes > c->io->server->config.header_max || (!to && c->pub.n_metadata == RPC_METADATA_MAX)) {
        c->crowded = true;
        return;
    }
    struct str copy = arena_strdup(&c->pub.arena, value), name_copy = to ? name : arena_strdup(&c->pub.arena, name);
    if (!copy.p || !name_copy.p)
        c->crowded = true;
    else if (to)
        *to = copy;
    else
        c->metadata[c->pub.n_metadata++] = (struct rpc_pair){name_copy, copy};
}

static void make_ids(struct call *c)
{
    struct str id = rpc_metadata(&c->pub, "x-request-id"), trace = rpc_metadata(&c->pub, "traceparent");
    if (wire_request_id_ok(id)) {
        c->pub.request_id = id;
    } else {
        snprintf(c->id_text, sizeof c->id_text, "%016llx%016llx", (unsigned long long)rpc_next_word(&c->io->id[0]),
                 (unsigned long long)rpc_next_word(&c->io->id[1]));
        c->pub.request_id = (struct str){c->id_text, 32};
    }
    if (wire_traceparent_ok(trace))
        c->pub.traceparent = trace;
}

static bool is_grpc(struct str type)
{
    static const struct str base = {"application/grpc", 16};
    if (!str_starts(type, base))
        return false;
    struct str rest = {type.p + base.n, type.n - base.n};
    return rest.n == 0 || rest.p[0] == ';' || str_is(rest, "+proto") || str_starts(rest, STR("+proto;"));
}

static void answer_unknown(struct call *c)
{
    char text[200];
    snprintf(text, sizeof text, "there is no method %.*s", (int)(c->path.n < 120 ? c->path.n : 120),
             c->path.n ? c->path.p : "");
    answer_status(c, RPC_UNIMPLEMENTED, str_c(text));
}

/* False: the time-out is none. */
static bool set_deadline(struct call *c)
{
    int64_t most = (int64_t)c->io->server->config.deadline_max_ms * 1000, left = most;
    if (c->timeout.p && !wire_timeout(c->timeout, &left))
        return false;
    bool endless = !c->timeout.p && c->route->message; /* streams live as long as both like */
    c->pub.deadline_us = endless ? INT64_MAX : c->pub.start_us + (left < most || c->route->message ? left : most);
    if (!endless)
        loop_timer_set(&c->io->loop, &c->timer, c->pub.deadline_us);
    return true;
}

void call_headers_done(struct call *c, bool end)
{
    struct rpc_server *s = c->io->server;
    c->phase = PHASE_MESSAGE;
    c->remote_done = end;
    c->pub.deadline_us = c->pub.start_us + (int64_t)s->config.deadline_max_ms * 1000;
    make_ids(c);
    if (!str_is(c->http_method, "POST")) {
        answer_http(c, "405");
    } else if (!is_grpc(c->content_type)) {
        answer_http(c, "415");
    } else if (c->crowded) {
        answer_status(c, RPC_RESOURCE_EXHAUSTED, STR("the metadata is too large"));
    } else if (c->path.n < 2 || c->path.p[0] != '/' ||
               !(c->route = map_str_get(&s->paths, (struct str){c->path.p + 1, c->path.n - 1}))) {
        answer_unknown(c);
    } else if (c->route->message && atomic_load(&s->draining)) {
        answer_status(c, RPC_UNAVAILABLE, STR("the server is going down"));
    } else if (!set_deadline(c)) {
        answer_status(c, RPC_INTERNAL, STR("grpc-timeout is malformed"));
    } else if (c->encoding.p && !str_is(c->encoding, "identity")) {
        answer_status(c, RPC_UNIMPLEMENTED, STR("messages are taken without compression only"));
    } else if (c->pub.deadline_us <= c->pub.start_us) {
        answer_status(c, RPC_DEADLINE_EXCEEDED, STR("the deadline was over on arrival"));
    } else {
        c->pub.method = c->route->row;
        if (c->route->message)
            c->phase = PHASE_STREAM;
        if (end)
            call_remote_done(c);
        return;
    }
    /* The answer must leave in time. */
    loop_timer_set(&c->io->loop, &c->timer, c->io->loop.now + (int64_t)s->config.write_ms * 1000);
}

/* ---- messages */

/* The message in c->in; NULL: it is none, and the call is answered. */
static ProtobufCMessage *understand(struct call *c)
{
    struct str bytes = buf_as_str(&c->in.body);
    const ProtobufCMessageDescriptor *d = c->route->row->request;
    ProtobufCMessage *m = NULL;
    switch (wire_check(d, bytes)) {
    case WIRE_OK:
        m = wire_unpack(d, bytes, &c->pub.arena);
        if (!m)
            answer_finish(c, c->pub.arena.used + bytes.n > ARENA_BYTES ? RPC_RESOURCE_EXHAUSTED : RPC_INTERNAL,
                          STR("the request cannot be read"));
        break;
    case WIRE_TEXT:
        answer_finish(c, RPC_INVALID_ARGUMENT, STR("a string in the request is not UTF-8 or holds a NUL"));
        break;
    case WIRE_MALFORMED:
    case WIRE_DEEP:
        answer_finish(c, RPC_INTERNAL, STR("the request is not a message of its type"));
        break;
    }
    return m;
}

static void stream_message(struct call *c)
{
    struct arena_mark mark = arena_mark(&c->pub.arena);
    ProtobufCMessage *m = understand(c);
    if (m)
        c->route->message(c, m);
    arena_rewind(&c->pub.arena, mark);
    frame_next(&c->in);
}

static void refuse_frame(struct call *c, enum frame_result r)
{
    switch (r) {
    case FRAME_COMPRESSED:
        answer_finish(c, RPC_INTERNAL, STR("a message is compressed without grpc-encoding"));
        break;
    case FRAME_BAD_FLAG:
        answer_finish(c, RPC_INTERNAL, STR("a message has an unknown flag"));
        break;
    case FRAME_TOO_LARGE:
        answer_finish(c, RPC_RESOURCE_EXHAUSTED, STR("the message is larger than this server takes"));
        break;
    default:
        answer_finish(c, RPC_RESOURCE_EXHAUSTED, STR("out of memory"));
        break;
    }
}

void call_data(struct call *c, const uint8_t *p, size_t n)
{
    while (n > 0 && !c->answered) {
        if (c->messages > 0 && !c->route->message) {
            answer_status(c, RPC_UNIMPLEMENTED, STR("the method takes one message only"));
            return;
        }
        enum frame_result r = frame_feed(&c->in, &p, &n, c->io->server->config.receive_max);
        if (r == FRAME_MORE || r == FRAME_READY) {
            if (!call_count(c)) {
                answer_finish(c, RPC_RESOURCE_EXHAUSTED, STR("too much memory is in use"));
                break;
            }
            if (r == FRAME_MORE)
                return;
            c->messages++;
            conn_credit(c->conn, WORTH_MESSAGE);
            if (c->route->message)
                stream_message(c);
        } else {
            refuse_frame(c, r);
        }
    }
    if (c->answered) { /* others may have its room at once */
        buf_free(&c->in.body);
        call_count(c);
    }
}

void call_remote_done(struct call *c)
{
    c->remote_done = true;
    if (c->answered)
        return;
    if (frame_partial(&c->in) && (c->messages == 0 || c->route->message)) {
        answer_finish(c, RPC_INTERNAL, STR("the message is cut short"));
    } else if (c->route->message) {
        if (c->route->half_closed)
            c->route->half_closed(c);
    } else if (c->messages == 0) {
        answer_status(c, RPC_UNIMPLEMENTED, STR("the method takes one message, and there was none"));
    } else {
        ProtobufCMessage *m = understand(c);
        buf_free(&c->in.body); /* protobuf-c has copied it */
        if (!m)
            return;
        c->pub.request = m;
        /* Not even a small call while others of its connection hold too much: its answer may be large. */
        if (call_count(c) && call_room(c, 0))
            run(c, c->route->row->handler);
        else
            answer_status(c, RPC_RESOURCE_EXHAUSTED, STR("too much memory is in use"));
    }
}

/* ---- the end */

bool call_stream_gone(struct call *c)
{
    enum phase was = c->phase;
    c->stream = 0;
    loop_timer_clear(&c->io->loop, &c->timer);
    if (!c->answered) { /* reset by the client, or with its connection */
        c->answered = true;
        call_observe(c, RPC_CANCELLED);
    }
    if (c->route && c->route->over && c->started)
        c->route->over(c);
    c->started = false;
    if (!c->local_done)
        atomic_store(&c->cancelled, true);
    bool held = was == PHASE_SUSPENDED || was == PHASE_RUNNING;
    if (!held)
        call_done(c);
    return held;
}

void call_conn_gone(struct call *c)
{
    struct conn *n = c->conn;
    if (c->stream && !call_stream_gone(c))
        return;
    /* Its handler goes on without the connection. */
    if (c->prev)
        c->prev->next = c->next;
    else
        n->calls = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->prev = c->next = NULL;
    n->n_calls--;
    n->memory -= c->counted;
    c->conn = NULL;
}
