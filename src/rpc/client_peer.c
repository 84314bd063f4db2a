/* A connection of the client: nghttp2's callbacks, and when it opens, serves and ends. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rpc/client_internal.h"

enum {
    WINDOW = 1 << 20,
    CONNECTION_WINDOW = 4 << 20,
    PAUSE_LEAST_US = 100000,
    PAUSE_MOST_US = 5000000,
    WRITE_US = 20000000,
    FIELDS_MAX = REQUEST_METADATA_MAX + 8
};

static void detach(struct ccall *q)
{
    struct peer *p = q->peer;
    if (q->prev)
        q->prev->next = q->next;
    else
        p->calls = q->next;
    if (q->next)
        q->next->prev = q->prev;
    q->prev = q->next = NULL;
    q->peer = NULL;
    p->n_calls--;
}

static struct ccall *call_of(nghttp2_session *session, int32_t stream)
{
    return stream > 0 ? nghttp2_session_get_stream_user_data(session, stream) : NULL;
}

/* ---- what comes */

/* Ends the call here; what still comes for it is dropped. */
static void give_up(nghttp2_session *session, struct ccall *q, enum rpc_code code, const char *text)
{
    client_decide(q, code, text);
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, q->stream, NGHTTP2_CANCEL);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name_p, size_t name_n,
                     const uint8_t *value_p, size_t value_n, uint8_t flags, void *arg)
{
    struct ccall *q = call_of(session, frame->hd.stream_id);
    struct str name = {(const char *)name_p, name_n}, value = {(const char *)value_p, value_n};
    uint64_t number;
    (void)flags;
    (void)arg;
    if (!q || q->decided)
        return 0;
    q->header_bytes += name_n + value_n + 32;
    struct str copy = q->header_bytes <= RESULT_HEADER_BYTES ? arena_strdup(&q->arena, value) : STR_NONE;
    struct str name_copy = copy.p ? arena_strdup(&q->arena, name) : STR_NONE;
    if (!name_copy.p) {
        give_up(session, q, RPC_RESOURCE_EXHAUSTED, "the answer's metadata is too large");
    } else if (str_is(name, ":status")) {
        q->http_status = str_to_u64(value, &number) && number < 1000 ? (unsigned)number : 999;
    } else if (str_is(name, "grpc-status")) {
        q->grpc_status = str_to_u64(value, &number) && number < RPC_CODES ? (int)number : RPC_CODES;
    } else if (str_is(name, "grpc-message")) {
        copy.n = wire_unescape((char *)(uintptr_t)copy.p, copy.n);
        q->grpc_message = str_utf8_ok(copy) ? copy : STR_NONE;
    } else if (q->n_got < RESULT_METADATA_MAX) {
        q->got[q->n_got++] = (struct rpc_pair){name_copy, copy};
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t n, void *arg)
{
    struct ccall *q = call_of(session, stream);
    struct peer *p = arg;
    (void)flags;
    while (q && n > 0 && !q->decided) {
        enum frame_result r =
            q->messages ? FRAME_BAD_FLAG : frame_feed(&q->in, &bytes, &n, p->client->config.receive_max);
        if (r == FRAME_READY)
            q->messages++;
        else if (r == FRAME_TOO_LARGE || r == FRAME_NOMEM)
            give_up(session, q, RPC_RESOURCE_EXHAUSTED, "the answer is too large");
        else if (r != FRAME_MORE)
            give_up(session, q, RPC_INTERNAL, "the answer is not one plain message");
    }
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct peer *p = arg;
    (void)session;
    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK) && !p->greeted) {
        p->greeted = true;
        p->client->pause_us = p->client->retry_us = 0;
        if (p->client->c_connects[1])
            metric_inc(p->client->c_connects[1], 1);
    } else if (frame->hd.type == NGHTTP2_GOAWAY) {
        p->going = true;
    }
    return 0;
}

static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct ccall *q = frame->hd.type == NGHTTP2_HEADERS ? call_of(session, frame->hd.stream_id) : NULL;
    (void)arg;
    if (q)
        q->sent = true;
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *arg)
{
    struct ccall *q = call_of(session, stream);
    (void)arg;
    if (!q)
        return 0;
    nghttp2_session_set_stream_user_data(session, stream, NULL);
    detach(q);
    client_end(q, error);
    return 0;
}

static ssize_t read_request(nghttp2_session *session, int32_t stream, uint8_t *p, size_t n, uint32_t *flags,
                            nghttp2_data_source *source, void *arg)
{
    struct ccall *q = call_of(session, stream);
    (void)source;
    (void)arg;
    if (!q)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    size_t left = q->out.n - q->out_at, take = left < n ? left : n;
    memcpy(p, q->out.p + q->out_at, take);
    q->out_at += take;
    if (q->out_at == q->out.n)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)take;
}

bool peer_setup(struct rpc_client *c)
{
    if (nghttp2_session_callbacks_new(&c->callbacks) != 0 || nghttp2_option_new(&c->options) != 0)
        return false;
    nghttp2_session_callbacks_set_on_header_callback(c->callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c->callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c->callbacks, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(c->callbacks, on_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(c->callbacks, on_stream_close);
    nghttp2_option_set_max_continuations(c->options, 8);
    return true;
}

/* ---- calls */

static nghttp2_nv field(struct str name, struct str value)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.p,
                        .value = (uint8_t *)(uintptr_t)value.p,
                        .namelen = name.n,
                        .valuelen = value.n};
}

bool peer_submit(struct peer *p, struct ccall *q)
{
    struct rpc_client *c = p->client;
    nghttp2_nv nv[FIELDS_MAX];
    nghttp2_data_provider provider = {.read_callback = read_request};
    char timeout[WIRE_TIMEOUT_MAX];
    int64_t left = q->deadline_us - c->loop.now;
    size_t n = 0;
    nv[n++] = field(STR(":method"), STR("POST"));
    nv[n++] = field(STR(":scheme"), c->tls ? STR("https") : STR("http"));
    nv[n++] = field(STR(":path"), q->path);
    nv[n++] = field(STR(":authority"), str_c(c->authority));
    nv[n++] = field(STR("content-type"), STR("application/grpc"));
    nv[n++] = field(STR("te"), STR("trailers"));
    nv[n] = field(STR("grpc-timeout"), (struct str){timeout, wire_timeout_put(left > 0 ? left : 1, timeout)});
    nv[n++].flags = NGHTTP2_NV_FLAG_NO_INDEX;
    for (unsigned i = 0; i < q->n_metadata; i++)
        nv[n++] = field(q->metadata[i].name, q->metadata[i].value);
    q->stream = nghttp2_submit_request(p->link.session, NULL, nv, n, &provider, q);
    if (q->stream < 0) {
        p->going = true; /* out of stream ids, at the latest after a thousand million calls */
        return false;
    }
    q->phase = C_OPEN;
    q->peer = p;
    q->prev = NULL;
    q->next = p->calls;
    if (q->next)
        q->next->prev = q;
    p->calls = q;
    p->n_calls++;
    link_touch(&p->link);
    return true;
}

void peer_drop(struct ccall *q)
{
    struct peer *p = q->peer;
    nghttp2_session_set_stream_user_data(p->link.session, q->stream, NULL);
    nghttp2_submit_rst_stream(p->link.session, NGHTTP2_FLAG_NONE, q->stream, NGHTTP2_CANCEL);
    link_touch(&p->link);
    detach(q);
}

/* ---- connections */

static bool on_opened(struct link *k)
{
    struct peer *p = (struct peer *)k;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, RESULT_HEADER_BYTES},
    };
    return nghttp2_session_client_new2(&k->session, p->client->callbacks, p, p->client->options) == 0 &&
           nghttp2_submit_settings(k->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) ==
               0 &&
           nghttp2_session_set_local_window_size(k->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) == 0;
}

static void on_received(struct link *k)
{
    struct peer *p = (struct peer *)k;
    p->pinged_us = 0;
    if (p->greeted)
        client_pump(p->client); /* there may be room, or the connection is new */
}

static void failed(struct rpc_client *c)
{
    c->pause_us = c->pause_us ? 2 * c->pause_us : PAUSE_LEAST_US;
    if (c->pause_us > PAUSE_MOST_US)
        c->pause_us = PAUSE_MOST_US;
    c->random = c->random * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX; for jitter */
    c->retry_us = c->loop.now + c->pause_us * (int64_t)(80 + (c->random >> 33) % 41) / 100;
    if (c->c_connects[0])
        metric_inc(c->c_connects[0], 1);
}

static void on_closed(struct link *k)
{
    struct peer *p = (struct peer *)k, **at;
    struct rpc_client *c = p->client;
    for (at = &c->peers; *at != p; at = &(*at)->next)
        ;
    *at = p->next;
    c->n_peers--;
    c->why = k->why;
    if (!p->greeted && !c->closing)
        failed(c);
    while (p->calls) {
        struct ccall *q = p->calls;
        detach(q);
        client_decide(q, c->closing ? RPC_CANCELLED : RPC_UNAVAILABLE, k->why);
        client_end(q, 0);
    }
    rpc_link_fini(k);
    free(p);
    client_pump(c);
}

static const struct link_ops ops = {on_opened, on_received, on_closed};

static void open_one(struct rpc_client *c)
{
    int on = 1, fd = socket(c->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct peer *p = fd >= 0 ? calloc(1, sizeof *p) : NULL;
    SSL *ssl = p && c->tls ? tls_connect(c->tls, fd, c->name) : NULL;
    bool started = p && (!c->tls || ssl) &&
                   (connect(fd, (const struct sockaddr *)&c->address, c->address_n) == 0 || errno == EINPROGRESS);
    if (!started) {
        c->why = fd >= 0 && errno == ECONNREFUSED ? "connection refused" : "cannot connect";
        SSL_free(ssl);
        if (fd >= 0)
            close(fd);
        free(p);
        failed(c);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    p->client = c;
    p->born_us = c->loop.now;
    p->next = c->peers;
    c->peers = p;
    c->n_peers++;
    rpc_link_init(&p->link, &c->loop, &ops, fd, ssl, true); /* a failure ends in on_closed */
}

static bool usable(const struct peer *p)
{
    return p->greeted && !p->going && p->link.state == LINK_OPEN;
}

struct peer *peer_pick(struct rpc_client *c)
{
    struct peer *best = NULL;
    unsigned opening = 0, live = 0;
    for (struct peer *p = c->peers; p; p = p->next) {
        if (!usable(p)) {
            opening += !p->greeted && p->link.state != LINK_CLOSED;
            continue;
        }
        live++;
        uint32_t allowed =
            nghttp2_session_get_remote_settings(p->link.session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
        if (p->n_calls < c->config.max_in_flight && p->n_calls < allowed && (!best || p->n_calls < best->n_calls))
            best = p;
    }
    if (!best && !opening && live < c->config.connections && c->loop.now >= c->retry_us && !c->closing)
        open_one(c);
    return best;
}

void peer_tick(struct peer *p)
{
    struct rpc_client *c = p->client;
    int64_t now = c->loop.now;
    if (!link_tick(&p->link, WRITE_US) || p->link.state == LINK_LINGER)
        return;
    if (!p->greeted) {
        if (now - p->born_us >= (int64_t)c->config.connect_ms * 1000)
            link_close(&p->link, "no connection in time");
    } else if (p->pinged_us) {
        if (now - p->pinged_us >= (int64_t)c->config.keepalive_ms * 1000)
            link_close(&p->link, "the server does not answer a PING");
    } else if (p->n_calls > 0 && now - p->link.read_us >= (int64_t)c->config.keepalive_s * 1000000) {
        p->pinged_us = now;
        nghttp2_submit_ping(p->link.session, NGHTTP2_FLAG_NONE, NULL);
        link_touch(&p->link);
    }
}
