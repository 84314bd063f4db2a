/*
 * Cuts off clients that take too long to say what they want.
 *
 * MHD counts a connection's timeout from the last byte, so a client that sends one byte at a time keeps its place for
 * hours. Here every connection that waits for its client has a deadline, which single bytes do not move, and a thread
 * that looks at all of them once a second. It only ends the reading: MHD finds the end and closes; a request that has
 * become whole in that very moment is still answered. So it is with answers that are taken a few bytes at a time: their
 * connection is ended both ways.
 *
 * It also ends the reading of clients that have closed their side in the middle of a request: MHD looks no further when
 * a read has not filled its buffer, and where the end had come by then it would not hear of it again.
 *
 * The same thread gives every I/O thread a pulse: MHD takes up to 128 events from epoll, and if there are exactly so
 * many it waits for more, without a time limit, before it looks at any of them.
 */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "http/internal.h"

/* What a body must come at, or an answer be taken at, in bytes a second, beyond its idle_timeout; and the most seconds
 * that are earned so: 16 MiB would earn more than an hour, and each of them holds memory. */
enum { RATE = 4096, EARNED_MAX_S = 120 };
/* In a connection's deadline: it is for the end of an answer. */
#define WATCH_TAKES ((uint64_t)1 << 63)
enum { PULSE_NS = 100000000, POLL_AT_ONCE = 256 };

void watch_add(struct http_server *s, struct connection *c, int fd)
{
    c->fd = fd;
    watch_expect(s, c, 1);
    pthread_mutex_lock(&s->watch.lock);
    c->next = s->watch.all;
    if (c->next)
        c->next->prev = c;
    s->watch.all = c;
    pthread_mutex_unlock(&s->watch.lock);
}

void watch_remove(struct http_server *s, struct connection *c)
{
    pthread_mutex_lock(&s->watch.lock);
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->watch.all = c->next;
    pthread_mutex_unlock(&s->watch.lock);
}

static void set(struct connection *c, uint64_t deadline)
{
    atomic_store_explicit(&c->deadline, deadline, memory_order_relaxed);
}

void watch_expect(struct http_server *s, struct connection *c, unsigned turns)
{
    if (c) /* one more, for the second that has begun */
        set(c, atomic_load_explicit(&s->watch.now, memory_order_relaxed) + (uint64_t)turns * s->watch.idle_s + 1);
}

static uint64_t earned(size_t bytes)
{
    return bytes / RATE < EARNED_MAX_S ? bytes / RATE : EARNED_MAX_S;
}

void watch_body(struct request *r)
{
    if (r->client)
        set(r->client, r->body_deadline + earned(r->body_seen));
}

void watch_answer(struct request *r, size_t bytes)
{
    const struct http_server *s = r->server;
    if (r->client)
        set(r->client,
            (atomic_load_explicit(&s->watch.now, memory_order_relaxed) + s->watch.idle_s + 1 + earned(bytes)) |
                WATCH_TAKES);
}

void watch_pause(struct connection *c)
{
    if (c)
        set(c, 0);
}

bool watch_pulse_daemon(struct http_io *io, struct MHD_Daemon *mine)
{
    int set = MHD_get_daemon_info(mine, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    /* MHD passes over events whose pointer is NULL. */
    struct epoll_event each_write = {.events = EPOLLIN | EPOLLET};
    if (fd >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &each_write) == 0) {
        atomic_store(&io->pulse, fd);
        return true;
    }
    if (fd >= 0)
        close(fd);
    return false;
}

void watch_pulse(struct http_io *io, struct MHD_Connection *conn)
{
    if (atomic_load_explicit(&io->pulse, memory_order_relaxed) >= 0)
        return;
    /* Of a pool, each thread is a daemon of its own here. */
    (void)watch_pulse_daemon(io, MHD_get_connection_info(conn, MHD_CONNECTION_INFO_DAEMON)->daemon);
}

static void pulse(struct http_server *s)
{
    for (unsigned i = 0; i < s->n_io; i++) {
        int fd = atomic_load(&s->io[i].pulse);
        if (fd >= 0)
            (void)eventfd_write(fd, 1); /* never read: 2^64 of them do not happen */
    }
}

static uint64_t seconds(void)
{
    return (uint64_t)clock_mono(clock_system()) / 1000000;
}

/* Ends the reading of those that have ended their sending; what has come before is still read. */
static void cut_ended(struct pollfd *fds, nfds_t n)
{
    if (poll(fds, n, 0) <= 0)
        return;
    for (nfds_t i = 0; i < n; i++) {
        if (fds[i].revents & (POLLRDHUP | POLLHUP | POLLERR))
            shutdown(fds[i].fd, SHUT_RD);
    }
}

/* Listed connections are open. */
static int64_t cut_late(struct http_server *s)
{
    struct pollfd waiting[POLL_AT_ONCE];
    nfds_t n_waiting = 0;
    uint64_t now = seconds();
    int64_t n = 0;
    if (now == atomic_load_explicit(&s->watch.now, memory_order_relaxed))
        return 0;
    atomic_store_explicit(&s->watch.now, now, memory_order_relaxed);
    for (struct connection *c = s->watch.all; c; c = c->next) {
        uint64_t deadline = atomic_load_explicit(&c->deadline, memory_order_relaxed);
        if (!deadline)
            continue;
        bool takes = deadline & WATCH_TAKES;
        if (now > (deadline & ~WATCH_TAKES) || (!takes && atomic_load(&s->cutting))) {
            shutdown(c->fd, takes ? SHUT_RDWR : SHUT_RD);
            n++;
            continue;
        }
        if (takes)
            continue;
        waiting[n_waiting++] = (struct pollfd){.fd = c->fd, .events = POLLRDHUP};
        if (n_waiting == POLL_AT_ONCE) {
            cut_ended(waiting, n_waiting);
            n_waiting = 0;
        }
    }
    cut_ended(waiting, n_waiting);
    return n;
}

static void *watch(void *ctx)
{
    struct http_server *s = ctx;
    pthread_setname_np(pthread_self(), "http-watch");
    pthread_mutex_lock(&s->watch.lock);
    while (!s->watch.stop) {
        int64_t n = cut_late(s);
        if (n > 0)
            log_msg(LOG_DEBUG, "http: slow clients cut off", LOG_I("connections", n));
        pulse(s);
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        at.tv_nsec += PULSE_NS;
        if (at.tv_nsec >= 1000000000) {
            at.tv_nsec -= 1000000000;
            at.tv_sec++;
        }
        pthread_cond_timedwait(&s->watch.wake, &s->watch.lock, &at);
    }
    pthread_mutex_unlock(&s->watch.lock);
    return NULL;
}

bool watch_start(struct http_server *s, unsigned idle_s)
{
    pthread_condattr_t monotonic;
    s->watch.idle_s = idle_s;
    atomic_store(&s->watch.now, seconds());
    if (pthread_condattr_init(&monotonic) != 0)
        return false;
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->watch.lock, NULL);
    pthread_cond_init(&s->watch.wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int e = pthread_create(&s->watch.thread, NULL, watch, s);
    if (e == 0)
        return true;
    pthread_cond_destroy(&s->watch.wake);
    pthread_mutex_destroy(&s->watch.lock);
    errno = e;
    return false;
}

void watch_end(struct http_server *s)
{
    pthread_mutex_lock(&s->watch.lock);
    s->watch.stop = true;
    pthread_cond_signal(&s->watch.wake);
    pthread_mutex_unlock(&s->watch.lock);
    pthread_join(s->watch.thread, NULL);
}

void watch_free(struct http_server *s)
{
    pthread_cond_destroy(&s->watch.wake);
    pthread_mutex_destroy(&s->watch.lock);
}
