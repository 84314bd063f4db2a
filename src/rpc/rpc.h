/*
 * rpc: a gRPC server over HTTP/2, on nghttp2 and protobuf-c. It knows methods, messages, metadata, deadlines and
 * status; nothing of payments. The client is rpc/client.h.
 *
 * A method is one row: service, name, the descriptors of its request and answer, and a handler. The handler is called
 * on an I/O thread when the whole request is there and understood. It either
 *   - answers (rpc_reply, rpc_reply_status, rpc_reply_problem) and returns, or
 *   - calls rpc_suspend(c, resumed), hands c to another thread, and touches c no more. That thread leaves its result in
 * c->user and calls rpc_resume(c) exactly once; `resumed` then runs on the connection's I/O thread and answers (or
 * suspends again). A call is owned by whoever handles it; there is no locking inside. It lives until `resumed` has
 * answered, even if the client is gone or the deadline is over: rpc_call_cancelled then says so, from any thread, and
 * the answer goes nowhere. So `resumed` runs in any case and can free what hangs on c->user.
 *
 *     #include <booking/v1/booking.pb-c.h>
 *     #include <booking/v1/booking_files.h>
 *
 *     static void get_booking(struct rpc_call *c)
 *     {
 *         const Booking__V1__GetBookingRequest *q = (const void *)c->request;
 *         Booking__V1__Booking b = BOOKING__V1__BOOKING__INIT;
 *         struct problem p = {0};
 *         if (find(c->ctx, str_c(q->booking_id), &b, &p) == PFE_OK)
 *             rpc_reply(c, &b.base);
 *         else
 *             rpc_reply_problem(c, &p);
 *     }
 *
 *     static const struct rpc_method methods[] = {
 *         {"booking.v1.BookingService", "GetBooking", &booking__v1__get_booking_request__descriptor,
 *          &booking__v1__booking__descriptor, get_booking, &(const struct right){…}},
 *     };
 *     const struct rpc_files *const files[] = {&booking_files};
 *     struct rpc_server *s = rpc_server_start(
 *         &(struct rpc_config){.host = "127.0.0.1", .port = 50051, .methods = methods, .n_methods = 1,
 *                              .files = files, .n_files = 1, .metrics = m, .clock = clock_system()}, why);
 *
 * By itself it answers grpc.health.v1.Health (Check, Watch) and grpc.reflection.v1 and v1alpha.ServerReflection,
 * x-request-id in the initial metadata of every answer, UNIMPLEMENTED for other methods, messages with compression and
 * calls with more than one message, INTERNAL for bytes that are not the message, INVALID_ARGUMENT for strings that are
 * not UTF-8 or hold a NUL (protobuf-c would cut them there), RESOURCE_EXHAUSTED for what is too large, 405 and 415 for
 * what is not gRPC; an access log line; metrics by method and code. Unknown fields are ignored.
 *
 * Against abuse. nghttp2 itself (Debian's 1.52.0-1+deb12u3) ends a connection for: more than 8 CONTINUATION frames a
 * block (CVE-2024-28182), SETTINGS of more than 32 entries, 1,000 unsent acknowledgements of PING or SETTINGS, frames
 * above 16 KiB, broken HPACK and flow control, 1,000 RST_STREAM at once or 33 a second for long (CVE-2023-44487), and
 * it refuses streams beyond SETTINGS_MAX_CONCURRENT_STREAMS. It does not bound the size of decoded headers, the memory
 * of what it is given to send, time, or frames that lead to nothing. This room adds:
 *   - at most max_connections and max_calls, and max_streams calls a connection, those that were cancelled included
 *     until their handler is done;
 *   - GOAWAY ENHANCE_YOUR_CALM for
 *       - over 200 calls reset within 250 ms of their opening (then 50 a second), by the client or because of it;
 *       - over 2,000 frames that carry nothing (then 200 a second, and 8 for each call): PING, SETTINGS, PRIORITY,
 *         WINDOW_UPDATE, empty DATA; frames of unknown types cost nothing and are passed over;
 *       - a PING too many by gRPC's rule: the third that comes within 5 minutes of the one before (10 s with calls
 *         open), with no answer sent between them;
 *       - decoded headers above 4 times header_max (above header_max the call is RESOURCE_EXHAUSTED);
 *       - more than 1,000 frames that wait to be sent beside answers;
 *   - memory of requests and answers: connection_memory each, memory in all; a request beyond is RESOURCE_EXHAUSTED, an
 *     answer of over 16 KiB INTERNAL, for what was asked may be done;
 *   - time: handshake_ms to the first SETTINGS, header_ms for a header block, deadlines that include sending the
 *     answer, write_ms for a socket that takes nothing, idle_s, keep-alive pings, age_s.
 *
 * Threads: rpc_server_* from any one thread; rpc_resume, rpc_call_cancelled and rpc_health_set from any; the rest from
 * whoever owns the call.
 */
#ifndef RPC_RPC_H
#define RPC_RPC_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"
#include "rpc/files.h"
#include "rpc/types.h"
#include "telemetry/metrics.h"

enum { RPC_METADATA_MAX = 64, RPC_SET_MAX = 16, RPC_MESSAGE_TEXT_MAX = 512 };

struct rpc_call;
struct rpc_server;

struct rpc_method {
    const char *service; /* "booking.v1.BookingService" */
    const char *name;    /* "CreateBooking" */
    const ProtobufCMessageDescriptor *request, *answer;
    void (*handler)(struct rpc_call *c);
    const void *data; /* the caller's row: rights and the like */
};

struct rpc_call {
    /* the request */
    const struct rpc_method *method;
    const ProtobufCMessage *request; /* of method->request; strings are UTF-8 without NUL */
    const struct rpc_pair *metadata; /* as sent, names in lower case; "-bin" values still in base64 */
    unsigned n_metadata;
    struct str authority;
    struct str request_id;  /* x-request-id, <= 64 safe bytes, or made */
    struct str traceparent; /* valid W3C trace context as sent; or empty */
    char peer[46];          /* client address text, without the port */
    int64_t start_us;       /* monotonic */
    int64_t deadline_us;    /* monotonic; the client's, at most deadline_max_ms from the start */
    struct arena arena;     /* for the call; limit 8 MiB above the size of a request */

    struct rpc_server *server;

    /* the caller's */
    void *ctx;             /* from struct rpc_config */
    void *user;            /* for the handler */
    int64_t log_principal; /* user id for the access log; 0: none */
};

/* 0 means the default that stands in brackets. */
struct rpc_config {
    const char *host;                 /* address to bind; borrowed during start */
    uint16_t port;                    /* 0: any free one, see rpc_server_port */
    unsigned threads;                 /* I/O threads, 1..64 [one a core] */
    unsigned max_connections;         /* further ones are closed at accept [4096] */
    unsigned max_streams;             /* calls a connection at a time [100] */
    unsigned max_calls;               /* calls of all connections, until their handlers are done [10000] */
    const char *tls_cert, *tls_key;   /* PEM files; both or neither. TLS 1.2 and newer, ALPN h2. Neither: h2c */
    const struct rpc_method *methods; /* borrowed for the server's life */
    size_t n_methods;
    const struct rpc_files *const *files; /* for reflection, borrowed; health's and reflection's own are added */
    size_t n_files;
    bool no_reflection;
    void *ctx;
    struct metrics *metrics; /* borrowed */
    const struct clock *clock;
    bool access_log;

    size_t receive_max;       /* bytes of a request [4 MiB] */
    size_t send_max;          /* bytes of an answer [4 MiB] */
    size_t header_max;        /* bytes of a header list, 32 more an entry [16 KiB] */
    size_t connection_memory; /* bytes of requests and answers of a connection [16 MiB] */
    size_t memory;            /* of all connections [256 MiB] */
    unsigned deadline_max_ms; /* also that of calls without one [60000] */
    unsigned handshake_ms;    /* [10000] */
    unsigned header_ms;       /* [10000] */
    unsigned write_ms;        /* [20000] */
    unsigned idle_s;          /* a connection without calls is told to go [300] */
    unsigned age_s;           /* a connection is told to go, up to a tenth earlier [3600] */
    unsigned grace_s;         /* for its calls after either [30] */
    unsigned keepalive_s;     /* nothing received for so long: PING [120] */
    unsigned keepalive_ms;    /* no answer to that for so long: closed [20000] */
};

struct rpc_server;

/* On failure NULL and one line in why. */
struct rpc_server *rpc_server_start(const struct rpc_config *c, char why[256]);
uint16_t rpc_server_port(const struct rpc_server *s);
unsigned rpc_server_connections(const struct rpc_server *s);
unsigned
rpc_server_in_flight(const struct rpc_server *s); /* calls whose handler is not done or whose answer is not sent */
/* Stops accepting; every service reads NOT_SERVING; clients are told to go (GOAWAY) once what they have begun is
 * answered. */
void rpc_server_drain(struct rpc_server *s);
/* Drains, waits up to wait_ms for the calls, cancels the rest and waits until their handlers are done; frees s. All
 * suspended calls must be resumed. */
void rpc_server_stop(struct rpc_server *s, unsigned wait_ms);

/* What health answers for a service of the table, or for "" (the whole server); SERVING from the start. False: no such
 * service. */
bool rpc_health_set(struct rpc_server *s, const char *service, bool serving);

/* Of the request; absent: .p == NULL. Names in lower case. The first of several. */
struct str rpc_metadata(const struct rpc_call *c, const char *name);
/* The client has cancelled or is gone, the deadline is over, or the server does not wait any more: work that nobody
 * will see may stop. From any thread while the call is owned. */
bool rpc_call_cancelled(const struct rpc_call *c);

void rpc_suspend(struct rpc_call *c, void (*resumed)(struct rpc_call *c));
void rpc_resume(struct rpc_call *c);

/* Answers. Exactly one per call. Before it, up to RPC_SET_MAX entries may be added to the metadata that comes with the
 * status (copied; a name must be lower case and a value printable ASCII, else it is dropped). */
void rpc_set_trailer(struct rpc_call *c, const char *name, struct str value);
/* OK with m, of method->answer; m is written out at once. RESOURCE_EXHAUSTED instead if it is larger than send_max. */
void rpc_reply(struct rpc_call *c, const ProtobufCMessage *m);
/* A status without a message; text is UTF-8, copied, cut at RPC_MESSAGE_TEXT_MAX bytes. */
void rpc_reply_status(struct rpc_call *c, enum rpc_code code, struct str text);
/* The status of p's code with its detail (or title), and as trailers `problem-type` ("/problems/<slug>") and, where the
 * contract asks for it, `retry-after` in seconds. */
void rpc_reply_problem(struct rpc_call *c, const struct problem *p);

#endif
