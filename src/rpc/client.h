/*
 * client: unary gRPC calls to one address, on nghttp2 and protobuf-c, from one I/O thread.
 *
 * A client keeps up to `connections` connections, opened when they are first needed and opened again after a failure
 * (0.1 s later, then twice that each time, up to 5 s, with jitter; meanwhile calls fail at once). Which of several
 * addresses to use, retries and breakers are the caller's: rpc_result tells what they need to know.
 *
 *     static void done(void *user, const struct rpc_result *r) { … r->code, r->answer … }
 *
 *     uint64_t ticket = rpc_client_call(c, &(struct rpc_request){.service = "booking.v1.BookingService",
 *         .method = "GetBooking", .message = &q.base, .answer = &booking__v1__booking__descriptor,
 *         .deadline_us = clock_mono(clock_system()) + 2000000}, done, user);
 *
 * `done` runs exactly once for every call, on the client's I/O thread (or inside rpc_client_call when the call cannot
 * begin); it must be quick and may begin further calls. Everything is thread-safe but rpc_client_free.
 */
#ifndef RPC_CLIENT_H
#define RPC_CLIENT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/str.h"
#include "rpc/types.h"
#include "telemetry/metrics.h"

/* 0 means the default that stands in brackets. */
struct rpc_client_config {
    const char *host; /* a numeric IPv4 or IPv6 address: nothing here waits for name resolution */
    uint16_t port;
    const char *authority;   /* :authority, and the name that the certificate must have [host:port; host] */
    bool tls;                /* TLS 1.2 and newer, ALPN h2 */
    const char *tls_ca;      /* PEM file; NULL: the machine's */
    unsigned connections;    /* 1..64 [2] */
    unsigned max_in_flight;  /* calls a connection at a time; the server may allow fewer [100] */
    unsigned max_waiting;    /* calls that wait for a free place [1000] */
    unsigned connect_ms;     /* until the server's SETTINGS are there [3000] */
    unsigned keepalive_s;    /* nothing received for so long with calls open: PING [20] */
    unsigned keepalive_ms;   /* no answer to that for so long: the connection is lost [5000] */
    size_t receive_max;      /* bytes of an answer [4 MiB] */
    size_t send_max;         /* bytes of a request [4 MiB] */
    struct metrics *metrics; /* borrowed; NULL: none */
    const struct clock *clock;
};

struct rpc_client;

struct rpc_entry {
    const char *name; /* lower case */
    struct str value; /* printable ASCII */
};

struct rpc_request {
    const char *service, *method;
    const ProtobufCMessage *message; /* written out before rpc_client_call returns */
    const ProtobufCMessageDescriptor *answer;
    const struct rpc_entry *metadata; /* copied */
    unsigned n_metadata;
    int64_t deadline_us; /* monotonic; 0: 60 s from now. The server is told what is left of it. */
};

/* Borrowed during `done`. */
struct rpc_result {
    enum rpc_code code;
    /* With a code other than OK: the server has surely not begun the call (never sent, stream refused, GOAWAY before
     * it), so that anything may be sent again. False: it may have happened. */
    bool not_sent;
    bool from_server;                /* the code is the server's own, not made here */
    struct str text;                 /* the status message, UTF-8, decoded; "" if there is none */
    const ProtobufCMessage *answer;  /* with RPC_OK; else NULL */
    const struct rpc_pair *metadata; /* initial and trailing */
    unsigned n_metadata;
    int64_t took_us;
};

typedef void rpc_done(void *user, const struct rpc_result *r);

/* On failure NULL and one line in why. Nothing is connected yet. */
struct rpc_client *rpc_client_new(const struct rpc_client_config *c, char why[256]);
/* Calls that are open end with CANCELLED, then the thread ends. Not from `done`. NULL is allowed. */
void rpc_client_free(struct rpc_client *c);
/* A ticket for rpc_client_cancel, never 0; that of a call which could not begin means nothing to it. */
uint64_t rpc_client_call(struct rpc_client *c, const struct rpc_request *q, rpc_done *done, void *user);
/* The call ends with CANCELLED soon, and the server is told, unless it has ended already. */
void rpc_client_cancel(struct rpc_client *c, uint64_t ticket);
/* Of a result; absent: .p == NULL. */
struct str rpc_result_metadata(const struct rpc_result *r, const char *name);
unsigned rpc_client_in_flight(const struct rpc_client *c); /* also those that wait */

#endif
