/* What the files of the client share. Everything on the client's loop, but rpc_client_call and rpc_client_cancel. */
#ifndef RPC_CLIENT_INTERNAL_H
#define RPC_CLIENT_INTERNAL_H

#include <sys/socket.h>

#include "base/arena.h"
#include "base/map.h"
#include "rpc/client.h"
#include "rpc/link.h"
#include "rpc/wire.h"

enum {
    CONNECTIONS_MAX = 64,
    RESULT_METADATA_MAX = 64,
    RESULT_HEADER_BYTES = 32 << 10,
    REQUEST_METADATA_MAX = 32,
    CLIENT_INLINE = 1024
};

struct peer; /* a connection */

struct rpc_client {
    struct loop loop; /* first */
    struct rpc_client_config config;
    SSL_CTX *tls;
    struct sockaddr_storage address;
    socklen_t address_n;
    char *authority, *name; /* :authority, and the certificate's */
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *options;
    struct peer *peers;
    unsigned n_peers;
    struct ccall *waiting, **waiting_end;
    int64_t retry_us, pause_us; /* connect again then; how long it was last */
    const char *why;            /* what ended the last attempt */
    bool closing;
    struct task close;
    uint64_t random;
    atomic_uint in_flight;
    pthread_mutex_t lock; /* of the following */
    struct map_u64 open;  /* ticket -> struct ccall */
    uint64_t tickets;
    _Atomic(struct metric_counter *) c_calls[RPC_CODES];
    struct metric_gauge *g_in_flight;
    struct metric_counter *c_connects[2];
};

struct peer {
    struct link link; /* first */
    struct rpc_client *client;
    struct peer *next;
    struct ccall *calls;
    unsigned n_calls;
    bool greeted; /* the server's SETTINGS are there */
    bool going;   /* no new calls */
    int64_t born_us, pinged_us;
};

enum cphase { C_POSTED, C_WAITING, C_OPEN, C_DONE };

struct ccall {
    struct task begin, cancel;
    struct rpc_client *client;
    enum cphase phase;
    bool cancelling; /* under the client's lock: `cancel` is in the mailbox or has been there */
    bool cancel_ran;
    struct peer *peer;
    struct ccall *prev, *next; /* in peer->calls, or client->waiting */
    int32_t stream;
    bool sent; /* its header block is on its way */
    struct timer timer;
    int64_t start_us, deadline_us;
    uint64_t ticket;
    rpc_done *done;
    void *user;
    const ProtobufCMessageDescriptor *answer;
    struct str path;
    unsigned n_metadata;
    struct rpc_pair metadata[REQUEST_METADATA_MAX];
    struct buf out;
    size_t out_at;

    /* what came back */
    bool decided; /* here: code and text are ours */
    enum rpc_code code;
    const char *text;
    unsigned http_status;
    int grpc_status; /* -1: none */
    struct str grpc_message;
    struct frame_in in;
    unsigned messages;
    size_t header_bytes;
    unsigned n_got;
    struct rpc_pair got[RESULT_METADATA_MAX];
    struct arena arena;
    _Alignas(16) char inline_block[CLIENT_INLINE];
};

/* client_peer.c */
bool peer_setup(struct rpc_client *c);
/* A connection with room, or NULL; one more may be under way then. */
struct peer *peer_pick(struct rpc_client *c);
bool peer_submit(struct peer *p, struct ccall *q);
/* Takes q off its connection and tells the server. */
void peer_drop(struct ccall *q);
void peer_tick(struct peer *p);

/* client.c */
void client_pump(struct rpc_client *c); /* gives what waits to connections with room */
/* No connection is there or under way: what waits has nothing to wait for. */
void client_fail_waiting(struct rpc_client *c);
/* Decides the result and calls `done`. error: HTTP/2's, when the stream has ended. */
void client_end(struct ccall *q, uint32_t error);
void client_decide(struct ccall *q, enum rpc_code code, const char *text);

#endif
