#include "support/pg_proxy.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LINES_MAX = 4096, PORT = 5432 };

struct way { /* one direction of a connection */
    enum pg_proxy_cut cut;
    bool first; /* the client's first message has no type */
    uint8_t head[5];
    unsigned have;
    uint32_t body; /* bytes to come */
};

struct line {
    struct pg_proxy *p;
    pthread_t thread;
    int client, server;
};

struct pg_proxy {
    char dir[64], url[256];
    char target[128]; /* the server's socket */
    int fd;
    pthread_t thread;
    struct line *lines;
    unsigned n_lines;
    pthread_mutex_t lock;
    enum pg_proxy_cut cut;
    int left;
    atomic_bool tripped, released, stop;
};

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    abort();
}

static int unix_socket(const char *path, struct sockaddr_un *a)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(a->sun_path, sizeof a->sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0, "socket");
    return fd;
}

/* Is it time? done: another message is complete. */
static bool due(struct line *l, const struct way *w, bool done)
{
    struct pg_proxy *p = l->p;
    pthread_mutex_lock(&p->lock);
    bool mine = p->cut == w->cut || (p->cut == PG_PROXY_STALL && w->cut == PG_PROXY_REQUEST);
    if (mine && done && p->left > 0)
        p->left--;
    bool yes = mine && p->left == 0;
    pthread_mutex_unlock(&p->lock);
    return yes;
}

/* How many of n bytes may pass; less than all: this is the end. */
static size_t pass(struct line *l, struct way *w, const uint8_t *b, size_t n, bool *ret_cut)
{
    size_t i = 0;
    while (i < n) {
        if (w->have == 0 && w->body == 0 && due(l, w, false)) {
            *ret_cut = true;
            return i;
        }
        if (w->body) {
            uint32_t step = w->body < n - i ? w->body : (uint32_t)(n - i);
            w->body -= step;
            i += step;
        } else {
            unsigned need = w->first ? 4 : 5;
            w->head[w->have++] = b[i++];
            if (w->have < need)
                continue;
            const uint8_t *z = w->head + need - 4;
            w->body = ((uint32_t)z[0] << 24 | (uint32_t)z[1] << 16 | (uint32_t)z[2] << 8 | z[3]) - 4;
            w->have = 0;
            w->first = false;
        }
        if (w->body == 0 && w->have == 0 && due(l, w, true)) {
            *ret_cut = true;
            return i;
        }
    }
    return n;
}

static bool forward(int to, const uint8_t *b, size_t n)
{
    for (ssize_t k; n > 0; b += k, n -= (size_t)k)
        if ((k = send(to, b, n, MSG_NOSIGNAL)) <= 0)
            return false;
    return true;
}

static bool move(struct line *l, struct way *w, int from, int to)
{
    uint8_t b[4096];
    bool cut = false;
    ssize_t n = recv(from, b, sizeof b, 0);
    if (n <= 0)
        return false;
    size_t k = pass(l, w, b, (size_t)n, &cut);
    if (!cut)
        return forward(to, b, k);
    pthread_mutex_lock(&l->p->lock);
    bool stall = l->p->cut == PG_PROXY_STALL;
    l->p->cut = PG_PROXY_NONE;
    pthread_mutex_unlock(&l->p->lock);
    /* of the next message a little more, so that the server waits in the midst of it */
    forward(to, b, stall && k + 2 < (size_t)n ? k + 2 : k);
    atomic_store(&l->p->tripped, true);
    while (stall && !atomic_load(&l->p->stop) && !atomic_load(&l->p->released))
        poll(NULL, 0, 20);
    return false;
}

static void *run(void *arg)
{
    struct line *l = arg;
    struct way there = {.cut = PG_PROXY_REQUEST, .first = true}, back = {.cut = PG_PROXY_ANSWER};
    struct pollfd p[2] = {{.fd = l->client, .events = POLLIN}, {.fd = l->server, .events = POLLIN}};
    bool on = true;
    while (on && !atomic_load(&l->p->stop)) {
        if (poll(p, 2, 20) <= 0)
            continue;
        if (p[0].revents)
            on = move(l, &there, l->client, l->server);
        if (on && p[1].revents)
            on = move(l, &back, l->server, l->client);
    }
    close(l->client);
    close(l->server);
    return NULL;
}

static void *listener(void *arg)
{
    struct pg_proxy *p = arg;
    struct pollfd f = {.fd = p->fd, .events = POLLIN};
    while (!atomic_load(&p->stop)) {
        if (poll(&f, 1, 20) <= 0)
            continue;
        struct sockaddr_un a;
        struct line *l = &p->lines[p->n_lines];
        must(p->n_lines < LINES_MAX, "pg_proxy: connections");
        *l = (struct line){.p = p, .client = accept(p->fd, NULL, NULL), .server = unix_socket(p->target, &a)};
        if (l->client < 0 || connect(l->server, (struct sockaddr *)&a, sizeof a) != 0) {
            if (l->client >= 0)
                close(l->client);
            close(l->server);
            continue;
        }
        must(pthread_create(&l->thread, NULL, run, l) == 0, "pg_proxy: thread");
        p->n_lines++;
    }
    return NULL;
}

struct pg_proxy *pg_proxy_start(const struct pg_cluster *c)
{
    struct pg_proxy *p = calloc(1, sizeof *p);
    must(p != NULL, "pg_proxy");
    p->lines = calloc(LINES_MAX, sizeof *p->lines);
    must(p->lines != NULL, "pg_proxy");
    strcpy(p->dir, "/tmp/payflow-proxy-XXXXXX");
    must(mkdtemp(p->dir) != NULL, "mkdtemp");
    snprintf(p->target, sizeof p->target, "%s/.s.PGSQL.%d", c->host, c->port);
    snprintf(p->url, sizeof p->url, "postgres://payflow@/payflow?host=%s&port=%d", p->dir, PORT);
    char path[96];
    struct sockaddr_un a;
    snprintf(path, sizeof path, "%s/.s.PGSQL.%d", p->dir, PORT);
    p->fd = unix_socket(path, &a);
    must(bind(p->fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(p->fd, 64) == 0, "pg_proxy: listen");
    pthread_mutex_init(&p->lock, NULL);
    must(pthread_create(&p->thread, NULL, listener, p) == 0, "pg_proxy: thread");
    return p;
}

void pg_proxy_stop(struct pg_proxy *p)
{
    char path[96];
    atomic_store(&p->stop, true);
    pthread_join(p->thread, NULL);
    for (unsigned i = 0; i < p->n_lines; i++)
        pthread_join(p->lines[i].thread, NULL);
    close(p->fd);
    snprintf(path, sizeof path, "%s/.s.PGSQL.%d", p->dir, PORT);
    unlink(path);
    rmdir(p->dir);
    pthread_mutex_destroy(&p->lock);
    free(p->lines);
    free(p);
}

const char *pg_proxy_url(const struct pg_proxy *p)
{
    return p->url;
}

void pg_proxy_arm(struct pg_proxy *p, enum pg_proxy_cut cut, int n)
{
    pthread_mutex_lock(&p->lock);
    p->cut = cut;
    p->left = n;
    atomic_store(&p->tripped, false);
    pthread_mutex_unlock(&p->lock);
}

void pg_proxy_release(struct pg_proxy *p)
{
    atomic_store(&p->released, true);
}

bool pg_proxy_tripped(struct pg_proxy *p)
{
    return atomic_load(&p->tripped);
}
