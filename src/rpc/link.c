#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/link.h"

enum { READS = 4, LINGER_US = 1000000, LINGER_BYTES = 1 << 20 };

static void want(struct link *k, uint32_t events)
{
    if (k->events == events || k->state == LINK_CLOSED)
        return;
    struct epoll_event e = {.events = events, .data.ptr = &k->watcher};
    if (epoll_ctl(k->loop->ep, k->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, k->fd, &e) != 0)
        link_close(k, "epoll");
    else
        k->events = events;
}

/* ---- bytes. > 0: so many; 0: the end; -1: not now; -2: broken */

static ssize_t tls_result(struct link *k, int n)
{
    int e = SSL_get_error(k->ssl, n);
    ERR_clear_error();
    if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
        return -1;
    return e == SSL_ERROR_ZERO_RETURN ? 0 : -2;
}

static ssize_t plain_result(ssize_t n)
{
    return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? -1 : -2;
}

static ssize_t take(struct link *k, char *p, size_t n)
{
    if (!k->ssl)
        return plain_result(recv(k->fd, p, n, 0));
    int got = SSL_read(k->ssl, p, (int)n);
    return got > 0 ? got : tls_result(k, got);
}

static ssize_t give(struct link *k, const char *p, size_t n)
{
    if (!k->ssl)
        return plain_result(send(k->fd, p, n, MSG_NOSIGNAL));
    int sent = SSL_write(k->ssl, p, (int)n);
    return sent > 0 ? sent : tls_result(k, sent);
}

/* ---- reading */

static void linger_read(struct link *k)
{
    ssize_t n = take(k, k->loop->in, LOOP_BYTES);
    k->lingered += n > 0 ? (size_t)n : 0;
    if ((n < 0 && n != -1) || n == 0 || k->lingered > LINGER_BYTES)
        link_close(k, k->why);
}

static void read_some(struct link *k)
{
    for (int i = 0; i < READS && k->state == LINK_OPEN; i++) {
        ssize_t n = take(k, k->loop->in, LOOP_BYTES);
        if (n == -1)
            break;
        if (n <= 0) {
            link_close(k, n == 0 ? "closed by the peer" : "connection lost");
            return;
        }
        k->read_us = k->loop->now;
        ssize_t used = nghttp2_session_mem_recv(k->session, (const uint8_t *)k->loop->in, (size_t)n);
        if (used < 0) {
            if (used == NGHTTP2_ERR_FLOODED)
                nghttp2_session_terminate_session(k->session, NGHTTP2_ENHANCE_YOUR_CALM);
            link_linger(k, used == NGHTTP2_ERR_FLOODED            ? "flooded"
                           : used == NGHTTP2_ERR_BAD_CLIENT_MAGIC ? "not HTTP/2"
                                                                  : "broken HTTP/2");
            return;
        }
        if (!k->ssl && n < LOOP_BYTES)
            break;
    }
    if (k->state != LINK_OPEN)
        return;
    k->ops->received(k);
    link_touch(k);
}

/* ---- opening */

static void opened(struct link *k)
{
    k->state = LINK_OPEN;
    if (!k->ops->opened(k)) {
        link_close(k, "no memory");
        return;
    }
    want(k, EPOLLIN);
    link_touch(k);
}

static void handshake(struct link *k)
{
    int n = SSL_do_handshake(k->ssl);
    const unsigned char *proto = NULL;
    unsigned proto_n = 0;
    if (n != 1) {
        int e = SSL_get_error(k->ssl, n);
        ERR_clear_error();
        if (e == SSL_ERROR_WANT_WRITE)
            want(k, EPOLLIN | EPOLLOUT);
        else if (e == SSL_ERROR_WANT_READ)
            want(k, EPOLLIN);
        else
            link_close(k, "TLS handshake failed");
        return;
    }
    SSL_get0_alpn_selected(k->ssl, &proto, &proto_n);
    if (proto_n != 2 || memcmp(proto, "h2", 2) != 0) /* RFC 9113, 3.3 */
        link_close(k, "TLS without ALPN h2");
    else
        opened(k);
}

static void connected(struct link *k)
{
    int e = 0;
    socklen_t n = sizeof e;
    if (getsockopt(k->fd, SOL_SOCKET, SO_ERROR, &e, &n) != 0 || e != 0) {
        link_close(k, e == ECONNREFUSED ? "connection refused" : "cannot connect");
    } else if (k->ssl) {
        k->state = LINK_TLS;
        handshake(k);
    } else {
        opened(k);
    }
}

static void on_event(struct watcher *w, uint32_t events)
{
    struct link *k = (struct link *)w;
    switch (k->state) {
    case LINK_CONNECTING:
        connected(k);
        break;
    case LINK_TLS:
        handshake(k);
        break;
    case LINK_OPEN:
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            read_some(k);
        if (events & EPOLLOUT)
            link_touch(k);
        break;
    case LINK_LINGER:
        if (events & EPOLLOUT)
            link_touch(k);
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            linger_read(k);
        break;
    case LINK_CLOSED:
        break;
    }
}

bool rpc_link_init(struct link *k, struct loop *loop, const struct link_ops *ops, int fd, SSL *ssl, bool connecting)
{
    *k = (struct link){.watcher = {on_event}, .loop = loop, .ops = ops, .fd = fd, .ssl = ssl, .read_us = loop->now};
    k->state = connecting ? LINK_CONNECTING : ssl ? LINK_TLS : LINK_OPEN;
    if (k->state == LINK_OPEN && !ops->opened(k)) {
        link_close(k, "no memory");
        return false;
    }
    want(k, connecting ? EPOLLOUT : EPOLLIN);
    link_touch(k);
    return k->state != LINK_CLOSED;
}

/* ---- writing */

void link_touch(struct link *k)
{
    if (k->dirty || k->state < LINK_OPEN || k->state == LINK_CLOSED)
        return;
    k->dirty = true;
    k->next_dirty = k->loop->dirty;
    k->loop->dirty = k;
}

/* Takes a copy of what could not be sent. */
static bool keep(struct link *k, const char *p, size_t n)
{
    if (n > k->rest_cap - k->rest_n) {
        size_t cap = k->rest_n + n;
        char *grown = realloc(k->rest, cap);
        if (!grown) {
            link_close(k, "no memory");
            return false;
        }
        k->rest = grown;
        k->rest_cap = cap;
    }
    memcpy(k->rest + k->rest_n, p, n);
    k->rest_n += n;
    return true;
}

/* False: the socket takes no more, or is closed now. */
static bool send_rest(struct link *k)
{
    while (k->rest_at < k->rest_n) {
        ssize_t n = give(k, k->rest + k->rest_at, k->rest_n - k->rest_at);
        if (n == -1) {
            if (!k->blocked_us)
                k->blocked_us = k->loop->now;
            want(k, EPOLLIN | EPOLLOUT);
            return false;
        }
        if (n <= 0) {
            link_close(k, "connection lost");
            return false;
        }
        k->rest_at += (size_t)n;
        k->blocked_us = 0;
    }
    free(k->rest);
    k->rest = NULL;
    k->rest_at = k->rest_n = k->rest_cap = 0;
    return true;
}

/* Gathers frames and sends them; *ret_done: there are none left. False: the socket takes no more, or is closed. */
static bool send_frames(struct link *k, bool *ret_done)
{
    size_t n = 0;
    const uint8_t *p;
    *ret_done = false;
    while (n < LOOP_BYTES) {
        ssize_t got = nghttp2_session_mem_send(k->session, &p);
        if (got < 0) {
            link_close(k, "no memory");
            return false;
        }
        if (got == 0) {
            *ret_done = true;
            break;
        }
        if ((size_t)got > LOOP_BYTES - n) { /* a frame cannot be given back */
            if (!keep(k, k->loop->out, n) || !keep(k, (const char *)p, (size_t)got))
                return false;
            return send_rest(k);
        }
        memcpy(k->loop->out + n, p, (size_t)got);
        n += (size_t)got;
    }
    if (n == 0)
        return true;
    ssize_t sent = give(k, k->loop->out, n);
    if (sent == 0 || sent == -2) {
        link_close(k, "connection lost");
        return false;
    }
    size_t done = sent > 0 ? (size_t)sent : 0;
    return done == n || (keep(k, k->loop->out + done, n - done) && send_rest(k));
}

void link_flush(struct link *k)
{
    bool done = false;
    k->dirty = false;
    if (k->state != LINK_OPEN && k->state != LINK_LINGER)
        return;
    while (!done)
        if (!send_rest(k) || !send_frames(k, &done))
            return;
    if (k->state == LINK_LINGER) {
        if (!k->linger_us) {
            k->linger_us = k->loop->now;
            if (k->ssl)
                SSL_shutdown(k->ssl);
            shutdown(k->fd, SHUT_WR);
        }
        want(k, EPOLLIN);
        return;
    }
    want(k, EPOLLIN);
    if (!nghttp2_session_want_read(k->session) && !nghttp2_session_want_write(k->session))
        link_linger(k, "told to go");
}

/* ---- the end */

void link_linger(struct link *k, const char *why)
{
    if (k->state != LINK_OPEN)
        return;
    k->state = LINK_LINGER;
    k->why = why;
    link_touch(k);
}

void link_close(struct link *k, const char *why)
{
    if (k->state == LINK_CLOSED)
        return;
    k->state = LINK_CLOSED;
    k->why = why;
    if (k->ssl)
        SSL_free(k->ssl); /* without a word: the peer has lost interest, or our patience */
    k->ssl = NULL;
    close(k->fd); /* leaves the epoll set by itself */
    k->fd = -1;
    k->next_dead = k->loop->dead;
    k->loop->dead = k;
}

bool link_tick(struct link *k, int64_t write_us)
{
    int64_t now = k->loop->now;
    if (k->blocked_us && now - k->blocked_us >= write_us)
        link_close(k, "takes nothing");
    else if (k->linger_us && now - k->linger_us >= LINGER_US)
        link_close(k, k->why);
    return k->state != LINK_CLOSED;
}

void rpc_link_fini(struct link *k)
{
    nghttp2_session_del(k->session);
    k->session = NULL;
    free(k->rest);
    k->rest = NULL;
}
