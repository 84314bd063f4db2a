/* bookings: what an exchange of /api/bookings does in place of HTTP; see bookings.c. Everything about gRPC is there. */
#ifndef GATEWAY_BOOKINGS_H
#define GATEWAY_BOOKINGS_H

#include "gateway/internal.h"

/* A client for a new backend. False: its address is not numeric, or out of memory. */
bool bookings_connect(struct gateway *g, struct backend *b);
/* No calls are under way, and none can begin; without a client it does nothing. */
void bookings_disconnect(struct backend *b);
bool bookings_under_way(const struct backend *b); /* it has a client */
/* Asks its grpc.health.v1; the balancer hears how it went, and nothing if there is no memory to ask. The balancer lives
   until the client is gone. */
void bookings_check(struct backend *b, struct balancer *balancer, const struct balancer_check *check,
                    int64_t timeout_us);

/* I/O thread: whether it is for the API role; whether the method fits (else Allow is set); what is asked (else *p). */
bool bookings_are_http(const struct http_req *r, struct str path, const struct gateway_row *row);
bool bookings_method_ok(struct http_req *r, struct str path, const struct gateway_row *row);
bool bookings_take(struct exchange *x, struct http_req *r, struct str path, struct problem *p);

/* Loop: an attempt, which ends with POST_RPC in any case; its end may be hurried. */
bool bookings_start(struct exchange *x);
void bookings_cancel(struct exchange *x);

#endif
