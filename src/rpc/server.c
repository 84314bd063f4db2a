/*
 * The life of the server. Loop 0 accepts and hands each connection to the thread that has the fewest.
 *
 *   start ─▶ serving ─▶ drain: no listener, GOAWAY ─▶ cut: calls cancelled, connections closed ─▶ stop
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/listen.h"
#include "base/log.h"
#include "base/rand.h"
#include "rpc/internal.h"

enum { ACCEPTS = 64, ACCEPT_PAUSE_US = 100000 };

/* ---- accepting */

struct handover {
    struct task task;
    struct io *io;
    int fd;
    char peer[46];
};

static void on_handover(struct task *t)
{
    struct handover *h = (struct handover *)t;
    conn_accept(h->io->server, h->io, h->fd, h->peer);
    free(h);
}

static void peer_text(const struct sockaddr_storage *from, char peer[46])
{
    const struct sockaddr_in6 *six = (const void *)from;
    peer[0] = '\0';
    if (from->ss_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)from)->sin_addr, peer, 46);
    else if (from->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
        inet_ntop(AF_INET, &six->sin6_addr.s6_addr[12], peer, 46);
    else if (from->ss_family == AF_INET6)
        inet_ntop(AF_INET6, &six->sin6_addr, peer, 46);
}

/* To the thread with the fewest connections. */
static void hand_over(struct rpc_server *s, int fd, const char peer[46])
{
    struct io *least = &s->io[0];
    for (unsigned i = 1; i < s->n_io; i++)
        if (atomic_load(&s->io[i].n_conns) < atomic_load(&least->n_conns))
            least = &s->io[i];
    atomic_fetch_add(&least->n_conns, 1);
    if (least == &s->io[0]) {
        conn_accept(s, least, fd, peer);
        return;
    }
    struct handover *h = malloc(sizeof *h);
    if (!h) {
        close(fd);
        atomic_fetch_sub(&least->n_conns, 1);
        atomic_fetch_sub(&s->connections, 1);
        return;
    }
    *h = (struct handover){.task = {.run = on_handover}, .io = least, .fd = fd};
    memcpy(h->peer, peer, sizeof h->peer);
    loop_post(&least->loop, &h->task);
}

static void listen_again(struct rpc_server *s, bool on)
{
    struct epoll_event e = {.events = on ? EPOLLIN : 0, .data.ptr = &s->listener};
    s->listen_again_us = on ? 0 : s->io[0].loop.now + ACCEPT_PAUSE_US;
    epoll_ctl(s->io[0].loop.ep, EPOLL_CTL_MOD, s->listen_fd, &e);
}

static void on_accept(struct watcher *w, uint32_t events)
{
    struct rpc_server *s = (struct rpc_server *)((char *)w - offsetof(struct rpc_server, listener));
    (void)events;
    for (int i = 0; i < ACCEPTS && s->listen_fd >= 0; i++) {
        struct sockaddr_storage from;
        socklen_t n = sizeof from;
        int on = 1, fd = accept4(s->listen_fd, (struct sockaddr *)&from, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                listen_again(s, false); /* the socket stays readable: without a pause this would spin */
            else if (errno == ECONNABORTED || errno == EINTR)
                continue;
            return;
        }
        if (atomic_load(&s->connections) >= s->config.max_connections) {
            metric_inc(s->c_refused, 1);
            close(fd);
            continue;
        }
        atomic_fetch_add(&s->connections, 1);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        char peer[46];
        peer_text(&from, peer);
        hand_over(s, fd, peer);
    }
}

static void on_tick(struct loop *l)
{
    struct io *io = l->owner;
    struct rpc_server *s = io->server;
    if (io == &s->io[0] && s->listen_again_us && s->listen_fd >= 0 && l->now >= s->listen_again_us)
        listen_again(s, true);
    for (struct conn *n = io->conns, *next; n; n = next) {
        next = n->next;
        conn_tick(n);
    }
}

/* ---- draining and stopping */

static void on_drain(struct task *t)
{
    struct io *io = (struct io *)((char *)t - offsetof(struct io, drain));
    struct rpc_server *s = io->server;
    if (io == &s->io[0] && s->listen_fd >= 0) {
        close(s->listen_fd);
        s->listen_fd = -1;
    }
    health_tell(io);
    for (struct conn *n = io->conns; n; n = n->next) {
        for (struct call *c = n->calls; c; c = c->next)
            if (c->phase == PHASE_STREAM) /* would go on as long as the client likes */
                answer_finish(c, RPC_UNAVAILABLE, STR("the server is going down"));
        conn_notice(n, GOAWAY_DRAIN);
    }
}

static void on_cut(struct task *t)
{
    struct io *io = (struct io *)((char *)t - offsetof(struct io, cut));
    for (struct conn *n = io->conns, *next; n; n = next) {
        next = n->next;
        link_close(&n->link, "the server stops");
    }
}

void rpc_server_drain(struct rpc_server *s)
{
    if (atomic_exchange(&s->draining, true))
        return;
    for (unsigned i = 0; i < s->n_io; i++)
        loop_post(&s->io[i].loop, &s->io[i].drain);
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void server_free(struct rpc_server *s)
{
    for (unsigned i = 0; i < s->n_io; i++) {
        struct io *io = &s->io[i];
        while (io->idle) {
            struct call *c = io->idle;
            io->idle = c->next;
            call_free(c);
        }
        loop_fini(&io->loop);
    }
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    health_fini(s);
    map_str_free(&s->paths);
    nghttp2_session_callbacks_del(s->callbacks);
    nghttp2_option_del(s->options);
    SSL_CTX_free(s->tls);
    free(s->routes);
    free(s);
}

void rpc_server_stop(struct rpc_server *s, unsigned wait_ms)
{
    const struct clock *clock = clock_system();
    int64_t deadline = clock_mono(clock) + (int64_t)wait_ms * 1000;
    rpc_server_drain(s);
    while ((atomic_load(&s->calls) > 0 || atomic_load(&s->connections) > 0) && clock_mono(clock) < deadline)
        nap();
    atomic_store(&s->cutting, true);
    for (unsigned i = 0; i < s->n_io; i++)
        loop_post(&s->io[i].loop, &s->io[i].cut);
    while (atomic_load(&s->connections) > 0)
        nap();
    if (atomic_load(&s->calls) > 0)
        log_msg(LOG_WARN, "grpc: calls are still being handled; waiting for them",
                LOG_I("calls", atomic_load(&s->calls)));
    while (atomic_load(&s->calls) > 0)
        nap();
    for (unsigned i = 0; i < s->n_io; i++)
        loop_stop(&s->io[i].loop);
    server_free(s);
}

/* ---- starting */

static void defaults(struct rpc_config *c)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
#define DEFAULT(field, value)                                                                                          \
    if (!c->field)                                                                                                     \
    c->field = (value)
    DEFAULT(threads, cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : (unsigned)cores);
    DEFAULT(max_connections, 4096);
    DEFAULT(max_streams, 100);
    DEFAULT(max_calls, 10000);
    DEFAULT(receive_max, 4 << 20);
    DEFAULT(send_max, 4 << 20);
    DEFAULT(header_max, 16 << 10);
    DEFAULT(connection_memory, 16 << 20);
    DEFAULT(memory, 256 << 20);
    DEFAULT(deadline_max_ms, 60000);
    DEFAULT(handshake_ms, 10000);
    DEFAULT(header_ms, 10000);
    DEFAULT(write_ms, 20000);
    DEFAULT(idle_s, 300);
    DEFAULT(age_s, 3600);
    DEFAULT(grace_s, 30);
    DEFAULT(keepalive_s, 120);
    DEFAULT(keepalive_ms, 20000);
#undef DEFAULT
}

static bool add_route(struct rpc_server *s, struct route *r, char why[256])
{
    char path[256];
    int n = snprintf(path, sizeof path, "%s/%s", r->row->service, r->row->name);
    if (n < 0 || (size_t)n >= sizeof path)
        snprintf(why, 256, "gRPC: the method name %.100s is too long", r->row->name);
    else if (map_str_get(&s->paths, str_c(path)))
        snprintf(why, 256, "gRPC: the method %.200s stands in the table twice", path);
    else if (!map_str_put(&s->paths, str_c(path), r))
        snprintf(why, 256, "no memory");
    else
        return true;
    return false;
}

static bool make_routes(struct rpc_server *s, char why[256])
{
    size_t own = HEALTH_ROUTES + (s->config.no_reflection ? 0 : REFLECTION_ROUTES);
    s->n_routes = s->config.n_methods + own;
    s->routes = calloc(s->n_routes, sizeof *s->routes);
    if (!s->routes) {
        snprintf(why, 256, "no memory");
        return false;
    }
    for (size_t i = 0; i < s->config.n_methods; i++)
        s->routes[i].row = &s->config.methods[i];
    health_routes(s->routes + s->config.n_methods);
    if (!s->config.no_reflection)
        reflection_routes(s->routes + s->config.n_methods + HEALTH_ROUTES);
    for (size_t i = 0; i < s->n_routes; i++)
        if (!add_route(s, &s->routes[i], why))
            return false;
    return true;
}

static void make_metrics(struct rpc_server *s)
{
    static const char *const labels[GOAWAYS] = {"reason=\"age\"",     "reason=\"idle\"",  "reason=\"drain\"",
                                                "reason=\"resets\"",  "reason=\"noise\"", "reason=\"pings\"",
                                                "reason=\"headers\"", "reason=\"queue\""};
    struct metrics *m = s->config.metrics;
    s->g_connections = metric_gauge(m, "payflow_grpc_connections", "Open gRPC connections.", "");
    s->g_calls = metric_gauge(m, "payflow_grpc_in_flight", "gRPC calls being handled or answered.", "");
    for (unsigned i = 0; i < 2; i++)
        s->c_resets[i] = metric_counter(m, "payflow_grpc_resets_total", "gRPC streams reset, by whom.",
                                        i ? "by=\"server\"" : "by=\"client\"");
    for (unsigned i = 0; i < GOAWAYS; i++)
        s->c_goaways[i] =
            metric_counter(m, "payflow_grpc_goaways_total", "gRPC connections told to go, by reason.", labels[i]);
    s->c_refused = metric_counter(m, "payflow_grpc_refused_connections_total",
                                  "gRPC connections closed at accept, for there were too many.", "");
}

static bool start_loops(struct rpc_server *s, char why[256])
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &s->listener};
    s->listener.event = on_accept;
    for (unsigned i = 0; i < s->n_io; i++) {
        struct io *io = &s->io[i];
        io->server = s;
        io->drain.run = on_drain;
        io->cut.run = on_cut;
        io->health.run = health_task;
        io->id[0] = rand_u64();
        io->id[1] = rand_u64();
        bool ok = loop_init(&io->loop, s->config.clock);
        io->loop.owner = io;
        io->loop.tick = on_tick;
        if (!ok || (i == 0 && epoll_ctl(io->loop.ep, EPOLL_CTL_ADD, s->listen_fd, &e) != 0)) {
            snprintf(why, 256, "gRPC: cannot make an I/O thread: %s", strerror(errno));
            return false;
        }
    }
    for (unsigned i = s->n_io; i-- > 0;) /* loop 0 accepts: last */
        if (!loop_start(&s->io[i].loop)) {
            snprintf(why, 256, "gRPC: cannot start an I/O thread: %s", strerror(errno));
            return false;
        }
    return true;
}

static bool config_ok(const struct rpc_config *c, char why[256])
{
    if (c->threads > THREADS_MAX)
        snprintf(why, 256, "the number of gRPC I/O threads must be 1 to %d", THREADS_MAX);
    else if (!c->tls_cert != !c->tls_key)
        snprintf(why, 256, "TLS needs both a certificate and a key");
    else if (c->receive_max > INT32_MAX || c->send_max > INT32_MAX)
        snprintf(why, 256, "gRPC messages have less than 2 GiB");
    else
        return true;
    return false;
}

struct rpc_server *rpc_server_start(const struct rpc_config *c, char why[256])
{
    struct rpc_config config = *c;
    why[0] = '\0';
    if (!config_ok(c, why))
        return NULL;
    defaults(&config);
    struct rpc_server *s = NULL;
    if (posix_memalign((void **)&s, 64, sizeof *s + config.threads * sizeof s->io[0]) != 0) {
        snprintf(why, 256, "no memory");
        return NULL;
    }
    memset(s, 0, sizeof *s + config.threads * sizeof s->io[0]);
    s->config = config;
    s->n_io = config.threads;
    s->listen_fd = -1;
    for (unsigned i = 0; i < s->n_io; i++)
        s->io[i].loop.ep = s->io[i].loop.wake = -1;
    map_str_init(&s->paths);
    pthread_mutex_init(&s->health.lock, NULL);
    make_metrics(s);
    bool ok = make_routes(s, why);
    if (ok && (!session_setup(s) || !health_init(s))) {
        snprintf(why, 256, "no memory");
        ok = false;
    }
    if (ok && config.tls_cert)
        ok = (s->tls = tls_server(config.tls_cert, config.tls_key, why)) != NULL;
    ok = ok && (s->listen_fd = listen_open(config.host, config.port, &s->port, why)) >= 0 && start_loops(s, why);
    if (ok)
        return s;
    for (unsigned i = 0; i < s->n_io; i++)
        loop_stop(&s->io[i].loop);
    server_free(s);
    return NULL;
}

uint16_t rpc_server_port(const struct rpc_server *s)
{
    return s->port;
}

unsigned rpc_server_connections(const struct rpc_server *s)
{
    return atomic_load(&s->connections);
}

unsigned rpc_server_in_flight(const struct rpc_server *s)
{
    return atomic_load(&s->calls);
}
