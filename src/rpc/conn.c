/* A connection of the server: how long it lives, and what it may not do. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "rpc/internal.h"

enum {
    RESETS_BURST = 200,
    RESETS_RATE = 50,
    NOISE_BURST = 2000,
    NOISE_RATE = 200,
    YOUNG_US = 250000, /* a call reset before that age was not meant */
    QUEUE_MAX = 1000,  /* frames that wait beside answers */
    /* gRPC's defaults for servers, https://github.com/grpc/grpc/blob/master/doc/keepalive.md */
    PING_STRIKES = 2,
    PING_IDLE_US = 300000000,
    PING_BUSY_US = 10000000
};

/* ---- buckets */

static void bucket_fill(struct bucket *b, double burst, int64_t now)
{
    b->tokens = burst;
    b->at = now;
}

static void bucket_put(struct bucket *b, double burst, double n)
{
    b->tokens = b->tokens + n < burst ? b->tokens + n : burst;
}

static bool bucket_take(struct bucket *b, double burst, double rate, double n, int64_t now)
{
    bucket_put(b, burst, (double)(now - b->at) * rate / 1e6);
    b->at = now;
    b->tokens -= n;
    return b->tokens >= 0;
}

/* ---- telling it to go */

void conn_notice(struct conn *n, enum goaway why)
{
    if (n->noticed || n->ending || n->link.state == LINK_CLOSED)
        return;
    if (n->link.state != LINK_OPEN) {
        link_close(&n->link, "told to go");
        return;
    }
    n->noticed = true;
    n->noticed_us = n->link.loop->now;
    metric_inc(n->server->c_goaways[why], 1);
    /* The answer to the PING says that the client has read the notice: calls that it began before have come by then. */
    nghttp2_submit_shutdown_notice(n->link.session);
    nghttp2_submit_ping(n->link.session, NGHTTP2_FLAG_NONE, (const uint8_t *)"goodbye.");
    link_touch(&n->link);
}

/* The second GOAWAY: what comes after it is not handled, and the client knows. */
static void tell(struct conn *n)
{
    n->told = true;
    nghttp2_submit_goaway(n->link.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(n->link.session),
                          NGHTTP2_NO_ERROR, NULL, 0);
    link_touch(&n->link);
}

void conn_calm(struct conn *n, enum goaway why)
{
    static const char *const text[GOAWAYS] = {"too old",
                                              "idle",
                                              "going down",
                                              "too many resets",
                                              "too many empty frames",
                                              "too_many_pings",
                                              "headers too large",
                                              "frames are not read"};
    if (n->ending || n->link.state != LINK_OPEN)
        return;
    n->ending = true;
    metric_inc(n->server->c_goaways[why], 1);
    log_msg(LOG_WARN, "grpc: a client is told to calm down", LOG_S("peer", n->peer), LOG_S("reason", text[why]));
    nghttp2_submit_goaway(n->link.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(n->link.session),
                          NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *)text[why], strlen(text[why]));
    link_linger(&n->link, text[why]);
}

/* ---- what it may not do */

void conn_credit(struct conn *n, double weight)
{
    bucket_put(&n->noise, NOISE_BURST, weight);
}

bool conn_noise(struct conn *n, double weight)
{
    if (bucket_take(&n->noise, NOISE_BURST, NOISE_RATE, weight, n->link.loop->now))
        return true;
    conn_calm(n, GOAWAY_NOISE);
    return false;
}

bool conn_reset(struct conn *n, const struct call *c)
{
    int64_t now = n->link.loop->now;
    if (now - c->pub.start_us >= YOUNG_US || bucket_take(&n->resets, RESETS_BURST, RESETS_RATE, 1, now))
        return true;
    conn_calm(n, GOAWAY_RESETS);
    return false;
}

void conn_ping(struct conn *n, bool ack)
{
    int64_t now = n->link.loop->now, least = n->n_calls ? PING_BUSY_US : PING_IDLE_US;
    if (ack) {
        if (n->noticed && !n->told)
            tell(n);
        return;
    }
    if (n->last_ping_us && now - n->last_ping_us < least && ++n->ping_strikes > PING_STRIKES)
        conn_calm(n, GOAWAY_PINGS);
    n->last_ping_us = now;
}

/* ---- its life */

static void on_received(struct link *k)
{
    struct conn *n = (struct conn *)k;
    n->pinged_us = 0;
    if (nghttp2_session_get_outbound_queue_size(k->session) > QUEUE_MAX + 4 * (size_t)n->server->config.max_streams)
        conn_calm(n, GOAWAY_QUEUE);
}

static void on_closed(struct link *k)
{
    struct conn *n = (struct conn *)k;
    struct rpc_server *s = n->server;
    if (k->why && log_enabled(LOG_DEBUG))
        log_msg(LOG_DEBUG, "grpc: connection closed", LOG_S("peer", n->peer), LOG_S("why", k->why));
    while (n->calls)
        call_conn_gone(n->calls);
    rpc_link_fini(k);
    if (n->prev)
        n->prev->next = n->next;
    else
        n->io->conns = n->next;
    if (n->next)
        n->next->prev = n->prev;
    atomic_fetch_sub(&n->io->n_conns, 1);
    metric_add(s->g_connections, -1);
    free(n);
    atomic_fetch_sub(&s->connections, 1);
}

static bool on_opened(struct link *k)
{
    return session_open((struct conn *)k);
}

static const struct link_ops ops = {on_opened, on_received, on_closed};

void conn_accept(struct rpc_server *s, struct io *io, int fd, const char peer[46])
{
    struct conn *n = calloc(1, sizeof *n);
    SSL *ssl = n && s->tls ? tls_accept(s->tls, fd) : NULL;
    if (!n || (s->tls && !ssl)) {
        close(fd);
        free(n);
        atomic_fetch_sub(&io->n_conns, 1);
        atomic_fetch_sub(&s->connections, 1);
        return;
    }
    int64_t now = io->loop.now;
    n->io = io;
    n->server = s;
    memcpy(n->peer, peer, sizeof n->peer);
    n->born_us = n->idle_us = now;
    /* Up to a tenth earlier, so that connections made together do not come back together. */
    n->age_us = (int64_t)s->config.age_s * (1000000 - (int64_t)(rpc_next_word(&io->id[0]) % 100001));
    bucket_fill(&n->resets, RESETS_BURST, now);
    bucket_fill(&n->noise, NOISE_BURST, now);
    n->next = io->conns;
    if (n->next)
        n->next->prev = n;
    io->conns = n;
    metric_add(s->g_connections, 1);
    /* What goes wrong from here on ends in on_closed. */
    if (!rpc_link_init(&n->link, &io->loop, &ops, fd, ssl, false))
        return;
    if (atomic_load(&s->cutting))
        link_close(&n->link, "the server stops");
    else if (atomic_load(&s->draining))
        conn_notice(n, GOAWAY_DRAIN);
}

static void keepalive(struct conn *n, int64_t now)
{
    const struct rpc_config *c = &n->server->config;
    if (n->pinged_us) {
        if (now - n->pinged_us >= (int64_t)c->keepalive_ms * 1000)
            link_close(&n->link, "does not answer a PING");
    } else if (now - n->link.read_us >= (int64_t)c->keepalive_s * 1000000) {
        n->pinged_us = now;
        nghttp2_submit_ping(n->link.session, NGHTTP2_FLAG_NONE, NULL);
        link_touch(&n->link);
    }
}

void conn_tick(struct conn *n)
{
    const struct rpc_config *c = &n->server->config;
    int64_t now = n->link.loop->now;
    if (!link_tick(&n->link, (int64_t)c->write_ms * 1000) || n->link.state == LINK_LINGER)
        return;
    if (!n->greeted) {
        if (now - n->born_us >= (int64_t)c->handshake_ms * 1000)
            link_close(&n->link, "no handshake in time");
        return;
    }
    if (n->header_us && now - n->header_us >= (int64_t)c->header_ms * 1000) {
        link_close(&n->link, "no whole header block in time");
        return;
    }
    if (n->noticed) {
        if (!n->told && now - n->noticed_us >= NOTICE_US)
            tell(n);
        if (now - n->noticed_us >= (int64_t)c->grace_s * 1000000)
            link_close(&n->link, "told to go");
    } else if (n->n_calls == 0 && now - n->idle_us >= (int64_t)c->idle_s * 1000000) {
        conn_notice(n, GOAWAY_IDLE);
    } else if (now - n->born_us >= n->age_us) {
        conn_notice(n, GOAWAY_AGE);
    }
    keepalive(n, now);
}
