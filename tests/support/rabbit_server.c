#include "support/rabbit_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* RABBIT_SERVER: the script, by the build. */
static void end_epmd(const struct daemon *d)
{
    char port[16];
    snprintf(port, sizeof port, "%d", d->port);
    pid_t pid = fork();
    if (pid == 0) {
        execl(RABBIT_SERVER, RABBIT_SERVER, d->dir, port, "stop", (char *)NULL);
        _exit(98);
    }
    waitpid(pid, NULL, 0);
}

void rabbit_server_up(struct daemon *d)
{
    char port[16];
    snprintf(port, sizeof port, "%d", d->port);
    daemon_up(d, (const char *const[]){RABBIT_SERVER, d->dir, port, NULL});
}

void rabbit_server_start(struct daemon *d)
{
    daemon_init(d, 3);
    rabbit_server_up(d);
}

void rabbit_server_stop(struct daemon *d)
{
    daemon_kill(d);
    end_epmd(d);
    daemon_free(d);
}

const char *rabbit_server_url(const struct daemon *d)
{
    static char url[64];
    snprintf(url, sizeof url, "amqp://guest:guest@127.0.0.1:%d/", d->port);
    return url;
}
