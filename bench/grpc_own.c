/* noop.proto on src/rpc: prints its port, serves until it is killed. The counterpart of grpc_peer.cc. */
#include <noop.pb-c.h>
#include <stdio.h>
#include <unistd.h>

#include "rpc/rpc.h"

static void answer(struct rpc_call *c)
{
    rpc_reply(c, c->request); /* question and answer are of one type */
}

int main(void)
{
    static const struct rpc_method methods[] = {
        {"noop.Noop", "Say", &noop__text__descriptor, &noop__text__descriptor, answer, NULL}};
    char why[256];
    struct rpc_config c = {.host = "127.0.0.1",
                           .threads = 2,
                           .methods = methods,
                           .n_methods = 1,
                           .metrics = metrics_new(),
                           .clock = clock_system()};
    struct rpc_server *s = rpc_server_start(&c, why);
    if (!s) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    printf("%u\n", rpc_server_port(s));
    fflush(stdout);
    pause();
    return 0;
}
