/*
 * What the files of this room share.
 *
 * gateway.c    start, reload, end; the handler
 * request.c    an exchange from a request
 * backends.c   groups and their backends: from settings and registry, checks
 * loop.c       an I/O thread's turns: its epoll set and libcurl's handles
 * exchange.c   a request's way: attempts, judgement, answer
 * transfer.c   one attempt over HTTP: what libcurl is told and tells
 * answer.c     what the client gets
 * bookings.c   one attempt as a gRPC call
 * status.c     /health and metrics
 *
 * An exchange belongs to the I/O thread that makes it, then to its loop, then (once it is announced) to the I/O thread
 * that answers. While an answer streams both have it: the loop its transfer, the I/O thread what stands under `head`,
 * which does not change any more.
 */
#ifndef GATEWAY_INTERNAL_H
#define GATEWAY_INTERNAL_H

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "gateway/gateway.h"
#include "gateway/routes.h"
#include "http/relay.h"
#include "http/turn.h"

enum {
    LOOPS_MAX = 64,
    URL_MAX = 300,
    HEAD_PAIRS_MAX = 100, /* headers of an answer */
    HEAD_BYTES_MAX = 32 << 10,
    WHOLE_MAX = HTTP_RELAY_WHOLE, /* an answer that is longer streams */
    EXCHANGE_INLINE = 3072,       /* most requests' headers and path fit */
    EXCHANGE_ARENA = 256 << 10,
    ROWS_MAX = 16,
    CHECKS_AT_ONCE = 64
};
enum { /* µs */
       TICK_US = 20000,
       CONNECT_US = 3000000, /* until a backend has taken a connection */
       HELD_US = 100000,     /* an answer that is not whole by then is passed on as it comes */
       STALL_US = 60000000,  /* a stream in which nothing moves for so long is ended; so is one that has no room */
       QUIET_US = 5000000,   /* a client without a backend is kept so long: far beyond the step that begins a call */
       IDLE_CONN_S = 15 /* a connection that nobody used for so long is not used again: shorter than backends' own */
};

struct ask;
struct gateway;
struct loop;
struct rpc_client;

/* ---- backends */

struct backend_metrics {
    struct metric_counter *codes[6]; /* [1..5] by class; [0]: no answer */
    struct metric_histogram *duration;
    struct metric_counter *retried;
};

/* Lives until gateway_free, for leases outlive a removal. */
struct backend {
    struct backend *next; /* in gateway.backends */
    enum gateway_group group;
    char name[BALANCER_NAME_MAX], url[URL_MAX];
    unsigned weight, max_connections;
    uint64_t id;               /* in the group's balancer; 0: not in it */
    atomic_bool leaving;       /* drains, then goes: takes nothing new, also of those that stick to it */
    bool discovered;           /* by the registry */
    bool wanted;               /* while the list is compared */
    struct balancer *balancer; /* the group's */
    struct rpc_client *rpc;    /* NULL: HTTP, or out for a while */
    int64_t quiet_us;          /* since when it is out and has no calls */
    struct backend_metrics m;
};

struct group {
    enum gateway_group id;
    struct gateway *g;
    struct balancer *balancer;
    const char *service; /* NULL: none */
    bool sticky;
    uint64_t generation; /* of the registry's list */
};

struct guard {
    char name[32];
    struct breaker *breaker;
};

/* ---- requests */

enum exchange_state {
    X_NEW,
    X_WAITING, /* for a backend */
    X_BACKOFF, /* for its next attempt */
    X_RUNNING, /* an attempt is under way */
    X_OVER
};

enum exchange_end { /* how an attempt ended, before it is judged */
                    END_ANSWER,
                    END_NOT_SENT, /* no connection */
                    END_LOST,     /* sent, at least in part, and no answer, or half of one */
                    END_GARBAGE,
                    END_DEADLINE,
                    END_CANCELLED,
                    END_BREAKER,
                    END_FULL,
                    END_NONE,
                    END_NOMEM,
                    END_STOPPING
};

struct exchange {
    struct gateway *g;
    struct loop *loop;
    const struct gateway_row *row;
    atomic_uint holders;

    /* as asked; made by the I/O thread */
    struct http_req *r; /* the loop uses it to announce the answer only */
    enum http_method method;
    bool head_only, safe; /* safe: doing it twice does no more than once */
    struct str target;    /* NUL-terminated */
    struct str body;      /* the request's own memory */
    struct http_stream *up;
    int64_t up_length;
    struct curl_slist *sent; /* headers, in the arena */
    char cookie[BALANCER_COOKIE_MAX];
    bool sticky;               /* the client is told its backend */
    struct str key, principal; /* of its fallback; .p == NULL: none */
    struct arena arena;

    /* the loop's */
    struct exchange *prev, *next, *posted_next, *done_next;
    unsigned posted; /* under loop.lock */
    bool dead;       /* is over; the posted one that is still to come frees it. Under loop.lock */
    enum exchange_state state;
    int64_t start_us, due_us, attempt_us, moved_us, head_us;
    int64_t full_us; /* since when the client's stream has had no room; 0: it has */
    struct retry_call call;
    bool calling; /* between retry_begin and retry_end */
    struct breaker_permit permit;
    struct balancer_lease lease;
    struct backend *backend, *failed; /* of this attempt, of the one before */
    CURL *easy;
    struct ask *ask; /* of a gRPC call; NULL: HTTP */
    uint64_t ticket;
    enum exchange_end rpc_end;
    struct problem *refusal; /* by the gRPC service; NULL: none */
    unsigned requests;       /* that have begun in this attempt */
    bool maybe_done;         /* an attempt may have done what a write asks for, and nobody has said so */
    bool consumed;           /* some of `up` is gone: there is no second attempt */
    bool paused_up, paused_down, up_ended;
    bool streaming; /* the answer has been announced while it comes */
    bool in_head, garbage, head_done, chunked;
    uint64_t body_seen;

    /* head: read by the I/O thread once announced */
    enum exchange_end end;
    int status;
    int64_t length; /* Content-Length; -1: none */
    int64_t retry_after_us;
    struct buf head; /* "name\0value\0" … */
    unsigned n_head;
    struct buf body_in; /* a whole answer, or what of it has come */
    struct http_stream *down;
    int64_t stale_us; /* age of an old answer that stands in; -1: it is the real one */
    bool stood_in;    /* the default answer does */
    _Alignas(16) char block[EXCHANGE_INLINE];
};

/* ---- loops */

enum { POST_WAKE = 1, POST_RPC = 2 };

struct check {
    struct balancer_check check;
    struct group *group;
    CURL *easy; /* NULL: free */
};

/* What the epoll set has of a descriptor, and what libcurl wants, as epoll's events. */
struct socket_state {
    uint8_t set, wanted;
    bool kept; /* a connection, of whose end on_close hears; a resolver's own sockets close without a word */
};

struct loop {
    struct gateway *g;
    int epoll, wakeup;
    int clients; /* http_io_fd of the thread that drives it, in the set; -1: none yet */
    CURLM *multi;
    struct socket_state *sockets; /* by descriptor */
    unsigned n_sockets;
    CURL **spare; /* easy handles */
    unsigned n_spare;
    int64_t curl_due_us; /* when libcurl wants to be called; INT64_MAX: not */
    struct exchange *live;
    struct exchange *done, **done_end; /* to be announced */
    unsigned n_live;
    int64_t tick_us;
    struct check checks[CHECKS_AT_ONCE]; /* the first loop's */

    pthread_mutex_t lock; /* of the posts */
    struct exchange *first, *last;
    bool asleep, abort;
};

struct gateway {
    unsigned n_loops, n_guards;
    struct loop *loops;
    struct group groups[GATEWAY_GROUPS];
    pthread_mutex_t lock; /* of the list of backends */
    struct backend *backends;
    struct guard guards[ROWS_MAX];
    struct guard *guard_of[ROWS_MAX]; /* by row */
    struct retry retries[ROWS_MAX];
    atomic_uint in_flight[ROWS_MAX];
    struct metric_counter *refused[ROWS_MAX];
    struct fallback *fallback; /* NULL: off */
    int64_t check_timeout_us[GATEWAY_GROUPS];
    char cookie_name[64], health_path[256], via[80], version[64];
    struct registry *registry;
    struct metrics *metrics;
    bool (*draining)(void *ctx);
    void *ctx;
    atomic_bool closed; /* takes nothing new */
    atomic_uint live;   /* exchanges, all loops */
};

int64_t gateway_now(void); /* monotonic */

/* ---- request.c, on the I/O thread. NULL: out of memory. */
struct exchange *request_exchange(struct gateway *g, struct http_req *r, const struct gateway_row *row,
                                  struct str path);

/* ---- loop.c */
bool gateway_loop_start(struct loop *l, struct gateway *g, char why[256]);
void gateway_loop_stop(struct loop *l);
void gateway_loop_turn(struct loop *l, struct http_io *io); /* NULL: without clients */
struct loop *gateway_loop_mine(void);                       /* of this I/O thread */
void gateway_loop_post(struct exchange *x, unsigned what);
CURL *gateway_loop_easy(struct loop *l); /* NULL: no memory */
void gateway_loop_easy_back(struct loop *l, CURL *easy);
void gateway_loop_watch_sockets(struct loop *l, CURL *easy); /* for every handle that is made otherwise */

/* ---- exchange.c: on the loop's thread */
void exchange_start(struct exchange *x);
void exchange_announce(struct loop *l);
void exchange_wake(struct exchange *x);
void exchange_rpc(struct exchange *x); /* a gRPC call has ended */
void exchange_tick(struct exchange *x, int64_t now);
void exchange_abort(struct exchange *x); /* the gateway ends */
void exchange_done(struct exchange *x, CURLcode code);
/* The answer begins: pass on what is there, and the rest as it comes. False: out of memory. */
bool exchange_stream(struct exchange *x);
void exchange_unref(struct exchange *x);

/* ---- transfer.c */
void transfer_prepare(CURL *easy); /* what holds for all */
/* False: out of memory. */
bool transfer_start(struct exchange *x);
void transfer_reset(struct exchange *x); /* forgets the answer */
enum exchange_end transfer_end(const struct exchange *x, CURLcode code);

/* ---- answer.c: on the I/O thread */
void answer_ready(struct http_req *r); /* the `resumed` of all exchanges */
/* What stands in for a failed GET, into x. */
bool answer_stand_in(struct exchange *x);
void answer_keep(struct exchange *x);

/* ---- backends.c */
bool backends_init(struct gateway *g, const struct gateway_config *c, char why[256]);
void backends_apply(struct gateway *g, const struct gateway_config *c);
void backends_tick(struct loop *l, int64_t now); /* first loop: checks, and those that leave */
void backends_checked(struct loop *l, CURL *easy, CURLcode code);
void backends_stop(struct loop *l);
void backends_free(struct gateway *g);
void backends_wake(void *ctx, void *waiter);

/* ---- status.c */
void status_health(struct http_req *r, bool parts);
void status_live(struct http_req *r);
void status_metrics(struct http_req *r);
void status_backend_metrics(struct gateway *g, struct backend *b);
void status_init(struct gateway *g);

#endif
