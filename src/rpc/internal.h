/*
 * What the files of the server share. Threads: all about a connection and its calls happens on its I/O thread, but
 * rpc_resume, rpc_call_cancelled and the fields that say so.
 */
#ifndef RPC_INTERNAL_H
#define RPC_INTERNAL_H

#include "base/buf.h"
#include "base/map.h"
#include "rpc/link.h"
#include "rpc/rpc.h"
#include "rpc/wire.h"

enum {
    THREADS_MAX = 64,
    INLINE_BYTES = 3072,    /* most calls fit: metadata, the request */
    KEEP_CALLS = 512,       /* idle call objects an I/O thread keeps, about 4 KiB each */
    KEEP_BUF_BYTES = 16384, /* a larger buffer is not kept */
    ARENA_BYTES = 8 << 20,
    NOTICE_US = 1000000,        /* from the first GOAWAY to the one that counts: a client's requests under way arrive */
    STREAM_QUEUE_MAX = 64 << 10 /* of a streaming call's answers; more wait until the client reads */
};

/* A token bucket: so much at once, then so much a second. */
struct bucket {
    double tokens;
    int64_t at;
};

/* Why a connection is told to go: a label of payflow_grpc_goaways_total. */
enum goaway {
    GOAWAY_AGE,
    GOAWAY_IDLE,
    GOAWAY_DRAIN,
    GOAWAY_RESETS,
    GOAWAY_NOISE,
    GOAWAY_PINGS,
    GOAWAY_HEADERS,
    GOAWAY_QUEUE,
    GOAWAYS
};

struct call;
struct conn;

/* How a call is served. Unary calls of the caller's table have none of the functions: method->handler gets them. */
struct route {
    const struct rpc_method *row;
    /* For streaming calls. All may be NULL but message. */
    void (*message)(struct call *c, const ProtobufCMessage *m); /* each message of the client */
    void (*half_closed)(struct call *c);                        /* there will be no more */
    void (*over)(struct call *c);                               /* the stream is gone or finished */
    _Atomic(struct metric_histogram *) durations[RPC_CODES];
};

/* One per I/O thread. */
struct io {
    struct loop loop; /* first */
    struct rpc_server *server;
    struct conn *conns;
    struct call *idle;
    unsigned n_idle;
    struct call *watchers; /* of health */
    atomic_uint n_conns;
    struct task drain, cut, health;
    atomic_bool health_posted;
    uint64_t id[2]; /* state of the id generator */
};

struct rpc_server {
    struct rpc_config config; /* with the defaults filled in */
    SSL_CTX *tls;
    int listen_fd;
    uint16_t port;
    struct watcher listener;
    int64_t listen_again_us; /* no descriptors were left: accept again then; 0: accepting */
    struct route *routes;
    size_t n_routes;
    struct map_str paths; /* "service/method" -> struct route */
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *options;
    atomic_bool draining, cutting;
    atomic_uint connections;
    atomic_uint calls; /* objects in use: their handler is not done or their stream is open */
    atomic_size_t memory;
    struct {
        pthread_mutex_t lock;
        const char **names; /* "" and the services */
        bool *serving;
        size_t n;
    } health;
    _Atomic(struct metric_histogram *) unknown[RPC_CODES]; /* calls without a route */
    struct metric_gauge *g_connections, *g_calls;
    struct metric_counter *c_resets[2], *c_goaways[GOAWAYS], *c_refused;
    unsigned n_io;
    struct io io[];
};

struct conn {
    struct link link; /* first */
    struct io *io;
    struct rpc_server *server;
    struct conn *prev, *next;
    struct call *calls;
    unsigned n_calls; /* those too whose stream is gone and whose handler is not done */
    char peer[46];
    bool greeted;       /* the client's SETTINGS are there */
    bool noticed, told; /* the first and the second GOAWAY are out */
    int64_t born_us, idle_us, noticed_us, pinged_us, age_us;
    int64_t header_us; /* since when a header block is open; 0: none is */
    size_t memory;
    struct bucket resets, noise;
    int64_t last_ping_us;
    unsigned ping_strikes;
    bool ending; /* told to go at once */
};

enum phase {
    PHASE_HEADERS,   /* the header block arrives */
    PHASE_MESSAGE,   /* the request's messages arrive */
    PHASE_RUNNING,   /* the handler, or `resumed`, has it */
    PHASE_SUSPENDED, /* another thread has it */
    PHASE_STREAM,    /* a streaming call lives */
    PHASE_ANSWERED   /* the answer is with nghttp2 */
};

struct call {
    struct rpc_call pub; /* first: rpc_call * and call * are the same address */
    struct conn *conn;   /* NULL: gone */
    struct io *io;
    struct call *prev, *next; /* in conn->calls; next: in io->idle */
    struct route *route;
    int32_t stream; /* 0: gone */
    enum phase phase;
    bool remote_done; /* the client has sent all */
    bool local_done;  /* END_STREAM is sent */
    bool answered;    /* a status is decided */
    bool crowded;     /* more metadata than there is room for */
    bool started;     /* route->over is due */
    atomic_bool cancelled;
    void (*resumed)(struct rpc_call *c);
    struct task task;
    struct timer timer;

    /* what has been sent */
    struct str path, content_type, timeout, encoding, http_method, ignored;
    size_t header_bytes;
    struct frame_in in;
    unsigned messages;
    size_t counted; /* bytes of this call in conn->memory and server->memory */

    /* the answer */
    enum rpc_code code;
    struct buf out; /* framed messages */
    size_t out_at;
    bool finishing; /* the status follows what is in out */
    bool headers_sent;
    unsigned n_set;
    struct str text;                      /* grpc-message, encoded */
    struct call *watch_prev, *watch_next; /* health: in io->watchers */
    struct str watched;                   /* the service */
    int watch_state;                      /* as sent last */
    struct rpc_pair set[RPC_SET_MAX];
    char id_text[65];
    struct rpc_pair metadata[RPC_METADATA_MAX];
    _Alignas(16) char inline_block[INLINE_BYTES];
};

/* session.c: nghttp2's callbacks */
ssize_t session_read(nghttp2_session *session, int32_t stream, uint8_t *p, size_t n, uint32_t *flags,
                     nghttp2_data_source *source, void *arg);
bool session_setup(struct rpc_server *s);
bool session_open(struct conn *n);

/* conn.c */
void conn_accept(struct rpc_server *s, struct io *io, int fd, const char peer[46]);
void conn_tick(struct conn *n);
void conn_notice(struct conn *n, enum goaway why);     /* GOAWAY, gracefully */
void conn_calm(struct conn *n, enum goaway why);       /* GOAWAY ENHANCE_YOUR_CALM, now */
void conn_credit(struct conn *n, double weight);       /* something useful has come */
bool conn_noise(struct conn *n, double weight);        /* a frame that carries nothing; false: too many */
bool conn_reset(struct conn *n, const struct call *c); /* a stream was reset; false: too many young ones */
void conn_ping(struct conn *n, bool ack);

/* call.c: the life of a call */
uint64_t rpc_next_word(uint64_t *state);
struct call *call_new(struct conn *n, int32_t stream);
void call_header(struct call *c, struct str name, struct str value);
void call_headers_done(struct call *c, bool end);
void call_data(struct call *c, const uint8_t *p, size_t n);
void call_remote_done(struct call *c);
bool call_stream_gone(struct call *c); /* true: a handler still has it; false: it is freed */
void call_drained(struct call *c);     /* a streaming call's answers have been taken */
void call_conn_gone(struct call *c);
void call_free(struct call *c);
/* Accounts for the call's buffers; false: too much memory. */
bool call_count(struct call *c);
/* False: so many bytes more would be too much. */
bool call_room(const struct call *c, size_t more);

/* answer.c */
void answer_status(struct call *c, enum rpc_code code, struct str text);
void answer_message(struct call *c, const ProtobufCMessage *m);
/* HTTP's own words, for what is not gRPC. */
void answer_http(struct call *c, const char *status);
/* Of a streaming call: false: gone, or it does not fit. */
bool answer_push(struct call *c, const ProtobufCMessage *m);
void answer_finish(struct call *c, enum rpc_code code, struct str text);
/* The status only, touching nothing that another thread may have in hand. */
void answer_bare(struct call *c, enum rpc_code code, const char *text);
bool answer_trailers(struct call *c); /* false: no memory */
void call_observe(struct call *c, enum rpc_code code);

/* Health's and reflection's own. */
extern const struct rpc_files rpc_files;

/* health.c, reflection.c: their rows. */
enum { HEALTH_ROUTES = 2, REFLECTION_ROUTES = 2 };
bool health_init(struct rpc_server *s);
void health_fini(struct rpc_server *s);
void health_routes(struct route routes[HEALTH_ROUTES]);
void health_tell(struct io *io); /* what has changed, to those who watch */
void health_task(struct task *t);
void reflection_routes(struct route routes[REFLECTION_ROUTES]);

#endif
