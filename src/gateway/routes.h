/* routes: which group serves a path, and under which terms. One table. */
#ifndef GATEWAY_ROUTES_H
#define GATEWAY_ROUTES_H

#include "gateway/gateway.h"

struct gateway_row {
    const char *prefix; /* whole segments: "/api/events" takes that path and all below it */
    enum gateway_group group;
    bool grpc;           /* JSON from and to gRPC calls, see bookings.h */
    int64_t deadline_us; /* until the answer begins; for the whole of it where it is short */
    bool retry;          /* a request that may be repeated is, see exchange.c */
    const char *breaker; /* rows with the same name share it */
    bool fallback;       /* a GET's old answer may stand in, if that is switched on at all */
    unsigned most;       /* requests at a time; what hangs behind one route takes no room from the others */
};

extern const struct gateway_row gateway_rows[];
extern const size_t gateway_n_rows;

/* The first row whose prefix fits; NULL: none. */
const struct gateway_row *gateway_row_find(struct str path);
/* The services look at no Idempotency-Key here, and doing it twice is not doing it once: so a POST with one is not
 * repeated either. */
bool gateway_keyless(struct str path);

#endif
