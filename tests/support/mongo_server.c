#include "support/mongo_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool find(const char *name, char *out, size_t cap)
{
    const char *path = getenv("PATH");
    for (const char *p = path ? path : ""; *p;) {
        size_t n = strcspn(p, ":");
        snprintf(out, cap, "%.*s/%s", (int)n, p, name);
        if (access(out, X_OK) == 0)
            return true;
        p += n + (p[n] == ':');
    }
    return false;
}

static bool program(char *out, size_t cap)
{
    const char *named = getenv("PAYFLOW_TEST_FERRETDB");
    if (named && *named)
        return snprintf(out, cap, "%s", named) < (int)cap;
    return find("mongod", out, cap) || find("ferretdb", out, cap);
}

void mongo_server_up(struct daemon *d)
{
    char bin[4096], at[64], port[16], files[96];
    if (!program(bin, sizeof bin))
        exit(99);
    snprintf(at, sizeof at, "--listen-addr=127.0.0.1:%d", d->port);
    snprintf(port, sizeof port, "%d", d->port);
    snprintf(files, sizeof files, "--sqlite-url=file:%s/", d->dir);
    const char *name = strrchr(bin, '/');
    if (name && strcmp(name, "/mongod") == 0)
        daemon_up(d, (const char *const[]){bin, "--dbpath", d->dir, "--port", port, "--bind_ip", "127.0.0.1", NULL});
    else
        daemon_up(d, (const char *const[]){bin, at, "--handler=sqlite", files, "--telemetry=disable", "--debug-addr=-",
                                           "--log-level=error", "--state-dir=.", NULL});
}

bool mongo_server_start(struct daemon *d)
{
    char bin[4096];
    if (!program(bin, sizeof bin))
        return false;
    daemon_init(d, 1);
    mongo_server_up(d);
    return true;
}
