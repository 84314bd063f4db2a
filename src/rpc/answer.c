/* What goes back: header block, messages, status. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "rpc/internal.h"

enum { FIELDS_MAX = RPC_SET_MAX + 8, ANSWER_SMALL = 16 << 10 };

/* Names and values are literals or stand in the call, which outlives them. */
static nghttp2_nv field(const char *name, size_t name_n, struct str value)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value.p,
                        .namelen = name_n,
                        .valuelen = value.n,
                        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}
#define FIELD(name, value) field(name, sizeof(name) - 1, value)
#define UNIQUE(name, value) unique(field(name, sizeof(name) - 1, value))

/* Not worth a place in the compression table. */
static nghttp2_nv unique(nghttp2_nv nv)
{
    nv.flags |= NGHTTP2_NV_FLAG_NO_INDEX;
    return nv;
}

static struct str code_text(enum rpc_code code)
{
    static const char *const text[RPC_CODES] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                                "9", "10", "11", "12", "13", "14", "15", "16"};
    return str_c(text[(unsigned)code < RPC_CODES ? code : RPC_UNKNOWN]);
}

static size_t put_head(struct call *c, nghttp2_nv *nv, size_t n)
{
    nv[n++] = FIELD(":status", STR("200"));
    nv[n++] = FIELD("content-type", STR("application/grpc"));
    nv[n++] = FIELD("grpc-accept-encoding", STR("identity"));
    nv[n++] = UNIQUE("x-request-id", c->pub.request_id);
    return n;
}

static size_t put_status(struct call *c, nghttp2_nv *nv, size_t n)
{
    nv[n++] = FIELD("grpc-status", code_text(c->code));
    if (c->text.n)
        nv[n++] = UNIQUE("grpc-message", c->text);
    for (unsigned i = 0; i < c->n_set; i++)
        nv[n++] = unique(field(c->set[i].name.p, c->set[i].name.n, c->set[i].value));
    return n;
}

bool answer_trailers(struct call *c)
{
    nghttp2_nv nv[FIELDS_MAX];
    return nghttp2_submit_trailer(c->conn->link.session, c->stream, nv, put_status(c, nv, 0)) == 0;
}

/* ---- what is recorded */

static struct metric_histogram *duration_of(struct call *c, enum rpc_code code)
{
    _Atomic(struct metric_histogram *) *cell = c->route ? &c->route->durations[code] : &c->io->server->unknown[code];
    struct metric_histogram *h = atomic_load_explicit(cell, memory_order_acquire);
    if (h)
        return h;
    struct buf labels = {0};
    buf_puts(&labels, "method=\"");
    if (c->route) {
        metric_label(&labels, str_c(c->route->row->service));
        buf_putc(&labels, '/');
        metric_label(&labels, str_c(c->route->row->name));
    } else {
        buf_puts(&labels, "none");
    }
    buf_puts(&labels, "\",code=\"");
    buf_puts(&labels, rpc_code_name(code));
    buf_puts(&labels, "\"");
    buf_putc(&labels, '\0');
    if (!labels.failed)
        h = metric_histogram(c->io->server->config.metrics, "payflow_grpc_request_duration_seconds",
                             "Time from a gRPC call's header block to its status.", labels.p, metric_bounds_us,
                             metric_bounds_us_n, 1000000);
    buf_free(&labels);
    if (h)
        atomic_store_explicit(cell, h, memory_order_release);
    return h;
}

static void log_access(const struct call *c, enum rpc_code code, int64_t us)
{
    struct log_field f[10];
    unsigned n = 0;
    char method[256] = "none";
    if (c->route)
        snprintf(method, sizeof method, "%s/%s", c->route->row->service, c->route->row->name);
    f[n++] = LOG_STR("request_id", c->pub.request_id);
    if (c->pub.log_principal)
        f[n++] = LOG_I("principal", c->pub.log_principal);
    f[n++] = LOG_S("method", method);
    f[n++] = LOG_S("code", rpc_code_name(code));
    f[n++] = LOG_I("duration_us", us);
    f[n++] = LOG_S("peer", c->pub.peer);
    if (c->pub.traceparent.n)
        f[n++] = LOG_STR("trace_id", ((struct str){c->pub.traceparent.p + 3, 32}));
    f[n] = LOG_END;
    log_write(LOG_INFO, "call", f);
}

void call_observe(struct call *c, enum rpc_code code)
{
    const struct rpc_server *s = c->io->server;
    if ((unsigned)code >= RPC_CODES)
        code = RPC_UNKNOWN;
    int64_t us = clock_mono(s->config.clock) - c->pub.start_us;
    struct metric_histogram *h = duration_of(c, code);
    if (h)
        metric_observe(h, us);
    if (s->config.access_log && log_enabled(LOG_INFO))
        log_access(c, code, us);
}

/* ---- answers */

/* The stream is to be ended; false: there is nobody to tell. */
static bool begin(struct call *c, enum rpc_code code)
{
    if (c->answered)
        return false;
    c->answered = true;
    c->code = code;
    call_observe(c, code);
    if (c->conn)
        link_touch(&c->conn->link);
    return c->stream != 0;
}

static void submit(struct call *c, const nghttp2_nv *nv, size_t n, bool data)
{
    nghttp2_data_provider provider = {.read_callback = session_read};
    nghttp2_session *session = c->conn->link.session;
    if (nghttp2_submit_response(session, c->stream, nv, n, data ? &provider : NULL) != 0)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, c->stream, NGHTTP2_INTERNAL_ERROR);
    c->headers_sent = true;
}

static void only_status(struct call *c)
{
    nghttp2_nv nv[FIELDS_MAX];
    submit(c, nv, put_status(c, nv, put_head(c, nv, 0)), false);
}

static void set_text(struct call *c, struct str text)
{
    struct buf b;
    buf_init(&b, 3 * RPC_MESSAGE_TEXT_MAX);
    wire_escape(&b, wire_cut(text, RPC_MESSAGE_TEXT_MAX));
    struct str copy = b.n && !b.failed ? arena_strdup(&c->pub.arena, buf_as_str(&b)) : STR_NONE;
    buf_free(&b);
    c->text = copy.p ? copy : STR_NONE;
}

void answer_status(struct call *c, enum rpc_code code, struct str text)
{
    if (!begin(c, code))
        return;
    c->phase = PHASE_ANSWERED;
    set_text(c, text);
    only_status(c);
}

void answer_bare(struct call *c, enum rpc_code code, const char *text)
{
    if (!begin(c, code))
        return;
    const nghttp2_nv nv[] = {
        FIELD(":status", STR("200")),
        FIELD("content-type", STR("application/grpc")),
        UNIQUE("x-request-id", c->pub.request_id),
        FIELD("grpc-status", code_text(code)),
        FIELD("grpc-message", str_c(text)),
    };
    submit(c, nv, sizeof nv / sizeof nv[0], false);
}

void answer_http(struct call *c, const char *status)
{
    if (!begin(c, RPC_UNKNOWN))
        return;
    c->phase = PHASE_ANSWERED;
    const nghttp2_nv nv[] = {FIELD(":status", str_c(status)), UNIQUE("x-request-id", c->pub.request_id)};
    submit(c, nv, sizeof nv / sizeof nv[0], false);
}

void answer_message(struct call *c, const ProtobufCMessage *m)
{
    nghttp2_nv nv[FIELDS_MAX];
    if (c->answered)
        return;
    if (!c->stream) { /* nobody is there */
        begin(c, RPC_CANCELLED);
        return;
    }
    size_t n = protobuf_c_message_get_packed_size(m);
    buf_clear(&c->out);
    if (n > c->io->server->config.send_max) {
        answer_status(c, RPC_RESOURCE_EXHAUSTED, STR("the answer is larger than this server sends"));
        return;
    }
    /* What it answers may be done: a small answer is given in any case, and for a large one there is no "try again". */
    if ((n > ANSWER_SMALL && !call_room(c, n)) || !frame_put(&c->out, m, n)) {
        buf_free(&c->out);
        call_count(c);
        answer_status(c, RPC_INTERNAL, STR("there is no memory for the answer: what was asked for may have been done"));
        return;
    }
    (void)!call_count(c);
    begin(c, RPC_OK);
    c->phase = PHASE_ANSWERED;
    c->finishing = true;
    c->text = STR_NONE;
    submit(c, nv, put_head(c, nv, 0), true);
}

/* ---- streaming */

bool answer_push(struct call *c, const ProtobufCMessage *m)
{
    nghttp2_nv nv[FIELDS_MAX];
    struct loop *l = &c->io->loop;
    if (c->answered || !c->stream)
        return false;
    bool idle = c->out.n == c->out_at;
    size_t n = protobuf_c_message_get_packed_size(m);
    if (c->out.n + n > STREAM_QUEUE_MAX || !frame_put(&c->out, m, n) || !call_count(c)) {
        answer_finish(c, RPC_RESOURCE_EXHAUSTED, STR("too many answers wait to be read"));
        return false;
    }
    if (!c->headers_sent)
        submit(c, nv, put_head(c, nv, 0), true);
    else if (idle)
        nghttp2_session_resume_data(c->conn->link.session, c->stream);
    if (idle && l->now + (int64_t)c->io->server->config.write_ms * 1000 < c->pub.deadline_us)
        loop_timer_set(l, &c->timer, l->now + (int64_t)c->io->server->config.write_ms * 1000);
    link_touch(&c->conn->link);
    return true;
}

void answer_finish(struct call *c, enum rpc_code code, struct str text)
{
    if (!c->headers_sent) {
        answer_status(c, code, text);
        return;
    }
    if (!begin(c, code))
        return;
    set_text(c, text);
    c->phase = PHASE_ANSWERED;
    c->finishing = true;
    nghttp2_session_resume_data(c->conn->link.session, c->stream);
}

/* ---- the handler's */

static bool name_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.'))
            return false;
    }
    return s.n > 0 && !str_starts(s, STR("grpc-"));
}

static bool value_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] > 0x7e)
            return false;
    return true;
}

void rpc_set_trailer(struct rpc_call *pub, const char *name, struct str value)
{
    struct call *c = (struct call *)pub;
    if (c->n_set == RPC_SET_MAX || !name_ok(str_c(name)) || !value_ok(value))
        return;
    struct rpc_pair p = {arena_strdup(&pub->arena, str_c(name)), arena_strdup(&pub->arena, value)};
    if (p.name.p && p.value.p)
        c->set[c->n_set++] = p;
}

void rpc_reply(struct rpc_call *pub, const ProtobufCMessage *m)
{
    answer_message((struct call *)pub, m);
}

void rpc_reply_status(struct rpc_call *pub, enum rpc_code code, struct str text)
{
    answer_status((struct call *)pub, code, text);
}

void rpc_reply_problem(struct rpc_call *pub, const struct problem *p)
{
    const struct err_info *e = err_info(p->code);
    char text[80];
    struct str usual = str_c(e->text), detail = str_c(p->detail);
    size_t n = strlen(e->slug);
    if (n < sizeof text - 10) {
        memcpy(text, "/problems/", 10);
        memcpy(text + 10, e->slug, n);
        rpc_set_trailer(pub, "problem-type", (struct str){text, n + 10});
    }
    if (p->retry_after_s > 0 || e->http == 429 || e->http == 503) {
        char digits[STR_U64_MAX];
        size_t k = str_from_u64(p->retry_after_s > 0 ? (uint64_t)p->retry_after_s : 1, digits);
        rpc_set_trailer(pub, "retry-after", (struct str){digits, k});
    }
    rpc_reply_status(pub, (enum rpc_code)e->grpc, detail.n ? detail : usual);
}
