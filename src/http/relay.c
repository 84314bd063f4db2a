/*
 * Bodies that are passed on while they arrive.
 *
 * The life of such a request:  READING ─ first bytes ─▶ RUNNING (handler, http_relay_later) ─▶ READING, `uploading` ─
 * the end ─▶ SUSPENDED until http_stream_answer ─▶ RUNNING (`resumed`). An answer that is there before the end of the
 * body waits for it if that is near, or with TLS; else it is written as bytes and the body read off for a while, as
 * with a 413. For what comes behind its answer a client has one idle_timeout, whatever it sends.
 */
#include "http/relay.h"

#include "http/internal.h"

static struct request *of(struct http_req *r)
{
    return (struct request *)r;
}

unsigned http_headers(const struct http_req *pub, const struct http_pair **ret)
{
    const struct request *r = (const struct request *)pub;
    *ret = r->headers;
    return r->n_headers;
}

bool relay_streams(const struct request *r)
{
    return r->refusal == PFE_OK && r->pub.route && r->pub.route->relayed &&
           (r->chunked || r->content_length > HTTP_RELAY_WHOLE);
}

struct http_stream *http_relay_later(struct http_req *pub, void (*resumed)(struct http_req *r), void (*wake)(void *ctx),
                                     void *ctx)
{
    struct request *r = of(pub);
    r->resumed = resumed;
    r->phase = PHASE_READING;
    stream_waker(pub->up, wake, ctx);
    return pub->up;
}

/* How long the client may take does not count while it has to wait for us. */
static void watch_again(struct request *r)
{
    if (r->paused)
        r->body_deadline += atomic_load_explicit(&r->server->watch.now, memory_order_relaxed) - r->paused;
    r->paused = 0;
    watch_body(r);
}

static bool begin(struct request *r)
{
    r->pub.up = http_stream_new(NULL, NULL);
    if (!r->pub.up)
        return false;
    stream_attach(r->pub.up, r);
    r->pub.body_length = r->chunked ? -1 : (int64_t)r->content_length;
    r->uploading = true;
    request_dispatch(r);
    if (r->phase == PHASE_READING)
        return true;
    http_stream_leave(r->pub.up); /* nobody has taken the other end */
    return !r->failed;
}

bool relay_body(struct request *r, const char *p, size_t *n)
{
    bool answered = false;
    if (!r->pub.up) {
        bool ok = begin(r);
        if (r->phase != PHASE_READING) {
            r->body_seen += *n;
            *n = 0;
            return ok;
        }
    }
    if (!r->answered)
        watch_again(r);
    size_t took = stream_put(r->pub.up, p, *n, &answered);
    r->body_seen += took;
    *n -= took;
    if (*n > 0) {
        r->paused = atomic_load_explicit(&r->server->watch.now, memory_order_relaxed);
        r->paused += r->paused == 0;
        watch_pause(r->client);
    }
    if (answered && !r->answered)
        watch_expect(r->server, r->client, 1);
    r->answered = answered;
    bool near = !r->chunked && r->content_length - r->body_seen <= LINGER_BYTES;
    if (answered && !near && !r->server->tls)
        request_run(r, r->resumed);
    return !r->failed;
}

void relay_body_end(struct request *r)
{
    watch_pause(r->client);
    r->phase = PHASE_SUSPENDED;
    r->uploading = false;
    if (!stream_put_end(r->pub.up))
        return;
    request_run(r, r->resumed);
}

bool relay_close(struct request *r)
{
    if (!r->pub.up)
        return false;
    bool answered = stream_close(r->pub.up);
    r->pub.up = NULL;
    bool owed = answered && r->uploading && r->phase == PHASE_READING;
    r->uploading = r->uploading && !owed;
    return owed;
}

bool relay_has(const struct http_relay *relay, const char *name)
{
    struct str want = str_c(name);
    for (unsigned i = 0; i < relay->n_headers; i++) {
        if (relay->headers[i].name.n == want.n && str_eq_nocase(relay->headers[i].name, want))
            return true;
    }
    return false;
}

static void on_free(void *cls)
{
    (void)stream_close(cls);
}

static ssize_t no_body(void *cls, uint64_t pos, char *out, size_t max)
{
    (void)cls;
    (void)pos;
    (void)out;
    (void)max;
    return MHD_CONTENT_READER_END_WITH_ERROR; /* an answer to HEAD is never read */
}

struct MHD_Response *relay_response(const struct request *r, const struct answer *a)
{
    enum { BLOCK = 16384 };
    const struct http_relay *relay = a->relay;
    uint64_t length = relay->length < 0 ? MHD_SIZE_UNKNOWN : (uint64_t)relay->length;
    if (relay->down) {
        stream_attach(relay->down, r);
        struct MHD_Response *m = MHD_create_response_from_callback(length, BLOCK, stream_read, relay->down, on_free);
        if (!m)
            (void)stream_close(relay->down);
        return m;
    }
    if (r->pub.head && a->status != 204 && a->status != 304) {
        struct MHD_Response *m = MHD_create_response_from_callback(length, 1, no_body, NULL, NULL);
        /* MHD would take it for chunked, and send the last chunk even so: into the next answer, if it may */
        if (m && relay->length < 0 &&
            MHD_set_response_options(m, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END) != MHD_YES) {
            MHD_destroy_response(m);
            return NULL;
        }
        return m;
    }
    return MHD_create_response_from_buffer(a->body.n, (void *)(a->body.n ? a->body.p : ""), MHD_RESPMEM_PERSISTENT);
}

void http_reply_relay(struct http_req *pub, const struct http_relay *relay)
{
    struct request *r = of(pub);
    struct answer a = {.status = relay->status, .relay = relay};
    if (!relay->down && relay->status != 204 && relay->status != 304)
        a.body = buf_as_str(&pub->out);
    bool to_be_read = relay->down && !r->gone && !r->orphan && !r->uploading;
    reply_finish(r, &a);
    if (relay->down && !to_be_read)
        (void)stream_close(relay->down); /* nobody will read it */
}
