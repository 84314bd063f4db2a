/*
 * link: a non-blocking socket, TLS on it or not, and an nghttp2 session on that: bytes in, frames out. Server and
 * client connections begin with one. Everything on the loop's thread.
 */
#ifndef RPC_LINK_H
#define RPC_LINK_H

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>

#include "rpc/loop.h"

enum link_state { LINK_CONNECTING, LINK_TLS, LINK_OPEN, LINK_LINGER, LINK_CLOSED };

struct link_ops {
    /* Bytes may flow: make the session. False: close. */
    bool (*opened)(struct link *k);
    /* Bytes have come and the session has seen them. */
    void (*received)(struct link *k);
    /* It is over, at the end of a step: free what stands around the link. */
    void (*closed)(struct link *k);
};

struct link {
    struct watcher watcher;
    struct loop *loop;
    const struct link_ops *ops;
    int fd;
    SSL *ssl;                 /* NULL: plain */
    nghttp2_session *session; /* from opened on */
    enum link_state state;
    uint32_t events; /* in the epoll set */
    bool dirty;
    char *rest; /* what the socket did not take */
    size_t rest_at, rest_n, rest_cap;
    int64_t read_us;    /* when bytes last came */
    int64_t blocked_us; /* since when the socket takes nothing; 0: it does */
    int64_t linger_us;
    size_t lingered;
    const char *why; /* a literal: what closed it, for the log and for callers */
    struct link *next_dirty, *next_dead;
};

/* fd and ssl are taken, also on failure, which closes them. connecting: connect() has said EINPROGRESS. */
bool rpc_link_init(struct link *k, struct loop *loop, const struct link_ops *ops, int fd, SSL *ssl, bool connecting);
/* Written out at the end of the step. */
void link_touch(struct link *k);
void link_flush(struct link *k);
/* At once, but for `closed`. Safe to call twice. why: a literal. */
void link_close(struct link *k, const char *why);
/* After what is queued has been sent, and the other side has had a second to read it. */
void link_linger(struct link *k, const char *why);
/* In each tick. False: it has just been closed. */
bool link_tick(struct link *k, int64_t write_us);
/* Frees the session and buffers; the fd is closed by then. */
void rpc_link_fini(struct link *k);

/* tls.c. NULL and one line in why. */
SSL_CTX *tls_server(const char *cert, const char *key, char why[256]);
SSL_CTX *tls_client(const char *ca, char why[256]);
/* NULL: no memory. name: what the certificate must have, an address or a host name. */
SSL *tls_accept(SSL_CTX *ctx, int fd);
SSL *tls_connect(SSL_CTX *ctx, int fd, const char *name);

#endif
