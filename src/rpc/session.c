/* nghttp2's callbacks, for the server: frames become calls. A call is its stream's user data while both live. */
#include "rpc/internal.h"

enum {
    STREAM_WINDOW = 256 << 10,
    CONNECTION_WINDOW = 1 << 20,
    FLOOD_HEADERS = 4, /* times header_max: the client does not mean us well */
    WORTH_CALL = 8,    /* frames without content that a call may bring along */
    WORTH_BYTES = 512, /* and one for so many bytes of a message */
    WEIGHT_SETTINGS = 10
};

static struct call *call_of(nghttp2_session *session, int32_t stream)
{
    return stream > 0 ? nghttp2_session_get_stream_user_data(session, stream) : NULL;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
    struct conn *n = arg;
    (void)session;
    if (n->ending)
        return 0;
    if (hd->type == NGHTTP2_HEADERS)
        conn_credit(n, WORTH_CALL);
    else if (hd->type == NGHTTP2_DATA)
        conn_noise(n, 1.0 - (double)(hd->length < 16384 ? hd->length : 16384) / WORTH_BYTES);
    else
        conn_noise(n, hd->type == NGHTTP2_SETTINGS ? WEIGHT_SETTINGS : 1);
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct conn *n = arg;
    struct rpc_server *s = n->server;
    n->header_us = n->link.loop->now;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct call *c = NULL;
    /* Calls that were cancelled count until their handlers are done: a reset does not make room for another call. */
    bool room = n->n_calls < s->config.max_streams && atomic_load(&s->calls) < s->config.max_calls;
    if (room && !n->ending)
        c = call_new(n, frame->hd.stream_id);
    if (!c) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, c);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct conn *n = arg;
    struct call *c = call_of(session, frame->hd.stream_id);
    (void)flags;
    if (n->ending || !c)
        return 0;
    c->header_bytes += name_n + value_n + 32;
    if (c->header_bytes > FLOOD_HEADERS * n->server->config.header_max)
        conn_calm(n, GOAWAY_HEADERS);
    else
        call_header(c, (struct str){(const char *)name, name_n}, (struct str){(const char *)value, value_n});
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct conn *n = arg;
    struct call *c = call_of(session, frame->hd.stream_id);
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        n->header_us = 0;
        if (c && !n->ending && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            call_headers_done(c, end);
        else if (c && !n->ending && end)
            call_remote_done(c);
        break;
    case NGHTTP2_DATA:
        if (c && !n->ending && end)
            call_remote_done(c);
        break;
    case NGHTTP2_RST_STREAM:
        metric_inc(n->server->c_resets[0], 1);
        if (c)
            conn_reset(n, c);
        break;
    case NGHTTP2_SETTINGS:
        n->greeted = true;
        break;
    case NGHTTP2_PING:
        conn_ping(n, frame->hd.flags & NGHTTP2_FLAG_ACK);
        break;
    default:
        break;
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *p, size_t len, void *arg)
{
    struct conn *n = arg;
    struct call *c = call_of(session, stream);
    (void)flags;
    if (c && !n->ending)
        call_data(c, p, len);
    /* What is kept of it is bounded by the call, not by the window. */
    nghttp2_session_consume(session, stream, len);
    return 0;
}

static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct conn *n = arg;
    struct call *c = call_of(session, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        metric_inc(n->server->c_resets[1], 1);
        if (c && !n->ending && frame->rst_stream.error_code != NGHTTP2_NO_ERROR)
            conn_reset(n, c); /* what it makes us reset costs as much as what it resets */
        return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    n->ping_strikes = 0;
    n->last_ping_us = 0;
    if (!c || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    c->local_done = true;
    if (!c->remote_done) /* answered before it has sent all: it need not go on (RFC 9113, 8.1) */
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, c->stream, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *arg)
{
    struct call *c = call_of(session, stream);
    (void)error;
    (void)arg;
    if (c)
        call_stream_gone(c);
    return 0;
}

/* As much of an answer as fits into a frame; then its status. */
ssize_t session_read(nghttp2_session *session, int32_t stream, uint8_t *p, size_t n, uint32_t *flags,
                     nghttp2_data_source *source, void *arg)
{
    struct call *c = call_of(session, stream);
    (void)source;
    (void)arg;
    if (!c)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    size_t left = c->out.n - c->out_at, take = left < n ? left : n;
    memcpy(p, c->out.p + c->out_at, take);
    c->out_at += take;
    if (c->out_at == c->out.n) {
        buf_clear(&c->out);
        c->out_at = 0;
        if (c->finishing) {
            *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (!answer_trailers(c))
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* a reset, not an answer without an end */
        } else {
            call_drained(c);
            if (take == 0)
                return NGHTTP2_ERR_DEFERRED;
        }
    }
    return (ssize_t)take;
}

bool session_setup(struct rpc_server *s)
{
    if (nghttp2_session_callbacks_new(&s->callbacks) != 0 || nghttp2_option_new(&s->options) != 0)
        return false;
    nghttp2_session_callbacks_set_on_begin_frame_callback(s->callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(s->callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(s->callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(s->callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(s->callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(s->callbacks, on_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(s->callbacks, on_stream_close);
    nghttp2_option_set_no_auto_window_update(s->options, 1);
    nghttp2_option_set_no_closed_streams(s->options, 1); /* they serve priorities, of which gRPC has none */
    nghttp2_option_set_max_continuations(s->options, 8);
    return true;
}

bool session_open(struct conn *n)
{
    const struct rpc_config *c = &n->server->config;
    /* Not NO_RFC7540_PRIORITIES: without memory, nghttp2 1.52 then frees a frame that its stream still has. */
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->max_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)c->header_max},
    };
    nghttp2_session **session = &n->link.session;
    return nghttp2_session_server_new2(session, n->server->callbacks, n, n->server->options) == 0 &&
           nghttp2_submit_settings(*session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) == 0 &&
           nghttp2_session_set_local_window_size(*session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) == 0;
}
