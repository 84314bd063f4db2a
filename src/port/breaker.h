/* breaker: what a circuit breaker inside an engine tells of itself. */
#ifndef PORT_BREAKER_H
#define PORT_BREAKER_H

#include <stdint.h>

struct port_breaker {
    const char *state; /* "closed", "open", "half-open"; NULL: there is none */
    uint64_t permitted, rejected, successes, failures, consecutive_failures;
};

#endif
