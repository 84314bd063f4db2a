/*
 * echo: the service of echo.proto, for the tests of src/rpc and its benchmark. Later runs on threads of its own.
 */
#ifndef TESTS_UNIT_RPC_ECHO_H
#define TESTS_UNIT_RPC_ECHO_H

#include <stdatomic.h>

#include "rpc/rpc.h"

struct pool;

struct echo {
    struct rpc_server *server;
    struct metrics *metrics;
    struct pool *pool;
    atomic_uint_fast64_t cancelled;
};

extern const struct rpc_method echo_methods[];
extern const size_t echo_methods_n;

/* Fills in methods, files, ctx, metrics and clock, starts; exits with a message on failure. */
void echo_start(struct echo *e, struct rpc_config *c);
void echo_stop(struct echo *e, unsigned wait_ms);

#endif
