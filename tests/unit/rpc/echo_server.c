/*
 * The echo service as a program, for clients that are not ours: echo_server [SETTING=NUMBER | tls_cert=FILE |
 * tls_key=FILE]… prints its port, serves until SIGTERM, and then has five seconds to drain.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "echo.h"

static bool set(struct rpc_config *c, const char *arg)
{
    static const struct {
        const char *name;
        size_t at;
        bool wide;
    } numbers[] = {
#define N(field) {#field, offsetof(struct rpc_config, field), sizeof(c->field) == sizeof(size_t)}
        N(threads),      N(max_connections), N(max_streams),       N(max_calls), N(receive_max),
        N(send_max),     N(header_max),      N(connection_memory), N(memory),    N(deadline_max_ms),
        N(handshake_ms), N(header_ms),       N(write_ms),          N(idle_s),    N(age_s),
        N(grace_s),      N(keepalive_s),     N(keepalive_ms),
#undef N
    };
    const char *value = strchr(arg, '=');
    if (!value)
        return false;
    size_t n = (size_t)(value++ - arg);
    if (strncmp(arg, "tls_cert", n) == 0)
        c->tls_cert = value;
    else if (strncmp(arg, "tls_key", n) == 0)
        c->tls_key = value;
    else if (strncmp(arg, "port", n) == 0)
        c->port = (uint16_t)atoi(value);
    else
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
            if (strlen(numbers[i].name) == n && strncmp(arg, numbers[i].name, n) == 0) {
                void *at = (char *)c + numbers[i].at;
                if (numbers[i].wide)
                    *(size_t *)at = strtoul(value, NULL, 10);
                else
                    *(unsigned *)at = (unsigned)strtoul(value, NULL, 10);
                return true;
            } else if (i + 1 == sizeof numbers / sizeof numbers[0]) {
                return false;
            }
    return true;
}

int main(int argc, char **argv)
{
    struct rpc_config c = {.access_log = false};
    struct echo e;
    sigset_t stop;
    int got;
    for (int i = 1; i < argc; i++)
        if (!set(&c, argv[i])) {
            fprintf(stderr, "echo_server: what is %s?\n", argv[i]);
            return 2;
        }
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL); /* before there are threads */
    log_set_level(LOG_DEBUG);
    echo_start(&e, &c);
    printf("%u\n", rpc_server_port(e.server));
    fflush(stdout);
    sigwait(&stop, &got);
    echo_stop(&e, 5000);
    return 0;
}
