/*
 * What the files of this room share. Threads: everything about a request happens on the I/O thread of its connection,
 * except http_resume.
 */
#ifndef HTTP_INTERNAL_H
#define HTTP_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/cidr.h"
#include "http/http.h"
#include "http/relay.h"
#include "http/router.h"
#include "http/turn.h"

enum {
    INLINE_BYTES = 8192, /* most requests fit: a body, its JSON tree, a few headers */
    HEADERS_SET_MAX = 16,
    ANSWER_HEADERS_MAX = HEADERS_SET_MAX + 20,
    KEEP_REQUESTS = 512,    /* idle request objects an I/O thread keeps (about 20 KiB each) */
    KEEP_BUF_BYTES = 65536, /* a larger answer buffer is not kept */
    LINGER_BYTES = 1 << 20, /* read off after a 413, so that the client gets to read the answer */
    GZIP_LEAST = 1024,
    UNMATCHED_ROWS = HTTP_METHODS + 1 /* metric rows for requests without a route, by method; last: other methods */
};

enum phase {
    PHASE_NEW,     /* request line seen */
    PHASE_READING, /* checked; the body arrives */
    PHASE_LINGER,  /* answered before its body was read: the rest is read off, then the connection closes */
    PHASE_RUNNING, /* the handler, or `resumed`, has it */
    PHASE_SUSPENDED,
    PHASE_REPLIED
};

/* What a request asks for beside the route's method. */
enum verb { VERB_ROUTE, VERB_HEAD, VERB_OPTIONS, VERB_OTHER };

/* Headers that this room reads itself. */
enum known_header {
    H_ACCEPT_ENCODING,
    H_AC_REQUEST_METHOD,
    H_CONTENT_ENCODING,
    H_CONTENT_LENGTH,
    H_CONTENT_TYPE,
    H_EXPECT,
    H_HOST,
    H_IF_NONE_MATCH,
    H_ORIGIN,
    H_REQUEST_ID,
    H_TRACEPARENT,
    H_TRANSFER_ENCODING,
    H_KNOWN
};

/* One per I/O thread; written only by it. Counters are read by others. */
struct http_io {
    _Alignas(64) atomic_uint_fast64_t requests; /* answered */
    atomic_int_fast64_t arriving;               /* headers seen, handler not yet entered */
    atomic_int_fast64_t handling;               /* handler entered, answer not yet queued */
    atomic_int_fast64_t in_flight;              /* handler entered, answer not yet sent */
    atomic_int pulse;                           /* eventfd in this thread's epoll set; -1: none yet */
    struct http_server *server;
    struct request *idle;
    unsigned n_idle;
    uint64_t id[2]; /* state of the id generator */
    void *deflater; /* z_stream, made on first use */

    /* with http_config.turn, else unused: turn.c */
    struct MHD_Daemon *daemon;
    pthread_t thread;
    bool started;
    atomic_bool resumed; /* a connection, since the last http_io_run */
    atomic_uint wakers;  /* other threads in server_resume */
    int listen_fd;       /* its own descriptor of the one socket; MHD closes it */
};

/* The thread that owns the counter is the only one to write it, so no locked instruction is needed. */
static inline void count_add(atomic_int_fast64_t *c, int64_t by)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + by, memory_order_release);
}

struct http_server {
    struct MHD_Daemon *daemon; /* NULL with `turn`: each thread has one */
    void (*turn)(void *ctx, struct http_io *io);
    atomic_bool halted; /* no more turns */
    const struct http_route *routes;
    size_t n_routes;
    struct router *router;
    void (*handler)(struct http_req *r);
    enum pf_err (*early)(const struct http_req *r, const char **ret_detail);
    void *ctx;
    struct metrics *metrics;
    const struct clock *clock;
    char *origins;            /* allowed_origins; NULL: none */
    struct cidr_list proxies; /* whose X-Forwarded-* count */
    bool any_origin, tls, access_log;
    unsigned max_connections;
    int listen_fd; /* MHD closes it, or with `turn` we */
    uint16_t port;
    pthread_t starter;
    char mhd_says[160]; /* while starting */
    atomic_bool draining;
    atomic_bool stopping; /* requests that begin now are refused */
    atomic_bool cutting;  /* so are those that have begun and have not come to their handler; nobody sends any more */
    atomic_uint connections;
    atomic_int_fast64_t orphans;
    size_t bodies_max;
    atomic_size_t bodies; /* bytes, the sum of all body_booked */
    pthread_mutex_t plain_lock;
    struct plain *plain; /* under it */
    struct {
        pthread_mutex_t lock; /* of the list and stop */
        pthread_cond_t wake;
        pthread_t thread;
        struct connection *all;
        atomic_uint_fast64_t now; /* monotonic seconds */
        unsigned idle_s;
        bool stop;
    } watch;
    struct metric_histogram *all; /* every answer, whatever its route */
    struct metric_gauge *g_in_flight, *g_connections;
    /* [n_routes + UNMATCHED_ROWS][500] by status - 100, filled as they occur */
    _Atomic(struct metric_histogram *) *durations;
    atomic_uint next_io;
    unsigned n_io;
    struct http_io io[];
};

struct connection {
    struct connection *prev, *next; /* in watch.all */
    int fd;
    /* as watch.now, for what the client has to send, or, with WATCH_TAKES, to take; 0: it is not its turn */
    atomic_uint_fast64_t deadline;
    char peer[46];
};

/* An embedded file as it is without gzip. */
struct plain {
    struct plain *next;
    const char *gzipped; /* where it begins: its name */
    char *p;
    size_t n;
};

struct set_header {
    const char *name, *value;
};

struct request {
    struct http_req pub; /* first: http_req * and request * are the same address */
    struct MHD_Connection *conn;
    struct connection *client; /* NULL: there was no memory for it */
    struct http_io *io;
    struct http_server *server;
    struct request *next; /* in io->idle */
    enum phase phase;
    enum verb verb;
    bool gone;              /* the client is; an answer goes nowhere */
    bool orphan;            /* suspended while gone: http_resume runs `resumed` itself */
    bool failed;            /* could not be answered: close the connection */
    bool close;             /* close after the answer */
    bool late;              /* begun when the server was stopping already */
    bool arriving, counted; /* in io->arriving, io->in_flight */
    bool uploading;         /* the handler has been called, and the body still arrives */
    bool answered;          /* and is not wanted any more */
    uint64_t paused;        /* when the body had to wait, as watch.now; 0: it does not */
    void (*resumed)(struct http_req *r);

    /* what has been sent */
    char *target;
    char *query_mark; /* the '?' in it, or NULL */
    char query_first; /* the byte behind that, overwritten to keep MHD from parsing the query */
    size_t target_n;
    struct str raw; /* request line and headers, with NULs where MHD has cut them */
    struct http_pair headers[HTTP_HEADERS_MAX];
    unsigned n_headers;
    struct str known[H_KNOWN];
    uint16_t known_n[H_KNOWN];              /* how often it occurs */
    const struct http_route *const *routes; /* of the path; NULL: no such path */
    uint64_t content_length;                /* 0 if there is none */
    size_t body_max, body_cap, body_seen;
    size_t body_booked;          /* in server->bodies */
    struct arena_mark body_mark; /* before its first block */
    uint64_t body_deadline;      /* for its first bytes; more give more time */
    bool chunked;
    /* why it will not reach the handler; detail is a literal */
    enum pf_err refusal;
    const char *refusal_detail;

    /* the answer */
    struct set_header set[HEADERS_SET_MAX];
    unsigned n_set;
    char id_text[65], trace_text[56], retry_text[12];
    struct buf zip; /* (de)compressed body */
    _Alignas(16) char inline_block[INLINE_BYTES];
};

/* parse.c: fills the request from what MHD has parsed and finds the route; sets refusal. False: the framing is in
 * doubt, so it must be answered at once and the connection closed. */
bool request_parse(struct request *r, const char *method, const char *version);
/* Copies what still lies in the connection's memory, before that is freed. */
void request_detach(struct request *r);
bool request_is_json(const struct request *r);

/* trace.c */
void request_make_id(struct request *r);
void request_make_trace(struct request *r);
void io_seed(struct http_io *io);

/* server.c: stop does not have to wait for the rest of it any more. */
void request_arrived(struct request *r);

/* body.c: one piece of body, 0 < n. False: close the connection. */
bool request_body(struct request *r, const char *p, size_t n);
/* The request holds its body no more. */
void request_body_drop(struct request *r);
/* Answers a body that is too long now, and lingers. */
void request_too_large(struct request *r);

/* reply.c */
void reply_refusal(struct request *r, enum pf_err e, const char *detail);
void reply_options(struct request *r);
/* What MHD cannot say by itself: the whole answer as bytes, to a socket on which nothing else is being sent. False: no
 * memory, or the client does not take it all at once. */
bool reply_as_bytes(struct request *r, enum pf_err e, const char *detail, int fd);

/* stream.c: the connection's end of a stream, on its I/O thread. _put takes less than n after it has suspended the
 * connection; _put_end suspends it unless the answer is there; _close returns whether it is. _read is a content reader
 * of MHD. */
void stream_attach(struct http_stream *s, const struct request *r);
void stream_waker(struct http_stream *s, void (*wake)(void *ctx), void *ctx);
size_t stream_put(struct http_stream *s, const char *p, size_t n, bool *ret_answered);
bool stream_put_end(struct http_stream *s);
bool stream_close(struct http_stream *s);
ssize_t stream_read(void *cls, uint64_t pos, char *out, size_t max);

/* relay.c. Whether the body is handed on as it comes; one piece of it, with what is left for later in *n (false: close
 * the connection); its end. */
bool relay_streams(const struct request *r);
bool relay_body(struct request *r, const char *p, size_t *n);
void relay_body_end(struct request *r);
/* The request is over. True: its `resumed` has still to run. */
bool relay_close(struct request *r);
struct answer;
struct MHD_Response *relay_response(const struct request *r, const struct answer *a);
bool relay_has(const struct http_relay *relay, const char *name);

/* server.c: a daemon with a thread for each of ours, or with none (`driven`); NULL: errno and mhd_says. */
struct MHD_Daemon *server_daemon(struct http_server *s, const struct http_config *c, const char *cert, const char *key,
                                 int listen_fd, bool driven);
/* The calling thread is that of io from now on. */
void server_take_place(struct http_io *io);
/* Any thread; in place of MHD_resume_connection. */
void server_resume(struct http_io *io, struct MHD_Connection *conn);

/* turn.c: the threads that take turns, in place of MHD's. On failure errno, and nothing is left. */
bool turn_start(struct http_server *s, const struct http_config *c, const char *cert, const char *key);
void turn_stop(struct http_server *s);

/* server.c: calls the handler, or answers in its place. */
void request_dispatch(struct request *r);
void request_run(struct request *r, void (*fn)(struct http_req *r));

/* answer.c: the headers that go with an answer. content_type NULL: none. */
struct answer {
    int status;
    const char *content_type, *content_encoding, *etag, *cache_control;
    bool vary_encoding;
    struct str body;
    const struct http_relay *relay; /* NULL: it is our own */
    struct set_header headers[ANSWER_HEADERS_MAX];
    unsigned n_headers;
};
/* reply.c: hands it over, and books it. */
void reply_finish(struct request *r, struct answer *a);
void answer_headers(struct request *r, struct answer *a);
/* "GET, HEAD, POST, OPTIONS": what the path takes. */
const char *answer_allow(struct request *r);

/* gzip.c */
bool accepts_gzip(struct str accept_encoding);
/* Into r->zip. False: no memory, or not shorter. */
bool request_deflate(struct request *r, struct str body);
/* What gzipped is without it, for the server's life; PFE_NOMEM, PFE_INTERNAL (it is not gzip, or too long). Any thread.
 */
enum pf_err server_plain(struct http_server *s, struct str gzipped, struct str *ret);
void server_plain_free(struct http_server *s);
void io_deflater_free(struct http_io *io);

/* observe.c: log line and metrics of an answer. */
void observe(struct request *r, int status, size_t bytes);

/* watch.c. A connection is listed from its start to its end, in which its fd is open. watch_end before MHD stops;
 * watch_free when no connection is left. */
bool watch_start(struct http_server *s, unsigned idle_s);
void watch_end(struct http_server *s);
void watch_free(struct http_server *s);
void watch_add(struct http_server *s, struct connection *c, int fd);
void watch_remove(struct http_server *s, struct connection *c);
/* It is the client's turn, and it has so many idle_timeouts for it. c may be NULL, here and below. */
void watch_expect(struct http_server *s, struct connection *c, unsigned turns);
/* A piece of body has come. */
void watch_body(struct request *r);
/* An answer of so many bytes is the client's to take. */
void watch_answer(struct request *r, size_t bytes);
void watch_pause(struct connection *c);
/* On the I/O thread of conn: from now on that thread's wait ends ten times a second. */
void watch_pulse(struct http_io *io, struct MHD_Connection *conn);
/* The same for a daemon, from any thread. False: no descriptor is left. */
bool watch_pulse_daemon(struct http_io *io, struct MHD_Daemon *mine);

/* pem.c */
/* NUL-terminated, from malloc; NULL and why. */
char *pem_read(const char *path, char why[256]);

#endif
