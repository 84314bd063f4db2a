/*
 * A loop: one epoll set, one libcurl multi handle with its connections. An I/O thread of the http room drives it by
 * turns, so that both sides of a request are on one thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/internal.h"

enum { EVENTS = 128, SPARE_MAX = 256, CONNECTIONS_KEPT = 256, LAST_TURNS = 100 };

int64_t gateway_now(void)
{
    return clock_mono(clock_system());
}

static _Thread_local struct loop *mine; /* in a turn */

struct loop *gateway_loop_mine(void)
{
    return mine;
}

void gateway_loop_post(struct exchange *x, unsigned what)
{
    struct loop *l = x->loop;
    pthread_mutex_lock(&l->lock);
    if (!x->posted) {
        x->posted_next = NULL;
        if (l->last)
            l->last->posted_next = x;
        else
            l->first = x;
        l->last = x;
    }
    x->posted |= what;
    bool wake = l->asleep;
    l->asleep = false;
    pthread_mutex_unlock(&l->lock);
    if (wake)
        (void)eventfd_write(l->wakeup, 1);
}

CURL *gateway_loop_easy(struct loop *l)
{
    if (l->n_spare)
        return l->spare[--l->n_spare];
    CURL *easy = curl_easy_init();
    if (easy) {
        transfer_prepare(easy);
        gateway_loop_watch_sockets(l, easy);
    }
    return easy;
}

void gateway_loop_easy_back(struct loop *l, CURL *easy)
{
    if (l->n_spare < SPARE_MAX)
        l->spare[l->n_spare++] = easy;
    else
        curl_easy_cleanup(easy);
}

/* ---- libcurl's wishes */

static struct socket_state *state_of(struct loop *l, int fd)
{
    if ((unsigned)fd >= l->n_sockets) {
        unsigned n = l->n_sockets ? l->n_sockets : 1024;
        while (n <= (unsigned)fd)
            n *= 2;
        struct socket_state *more = realloc(l->sockets, n * sizeof *more);
        if (!more)
            return NULL;
        memset(more + l->n_sockets, 0, (n - l->n_sockets) * sizeof *more);
        l->sockets = more;
        l->n_sockets = n;
    }
    return &l->sockets[fd];
}

/* libcurl takes its interest in a kept connection back after each answer, and renews it with the next request. To spare
 * two system calls each, the set keeps the descriptor; what it tells when nobody is interested takes it out. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *known)
{
    (void)easy;
    (void)known;
    struct loop *l = ctx;
    struct socket_state *s = state_of(l, fd);
    if (!s)
        return -1;
    s->wanted = what == CURL_POLL_REMOVE
                    ? 0
                    : (uint8_t)((what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0));
    if (!s->wanted && s->set && !s->kept) {
        (void)epoll_ctl(l->epoll, EPOLL_CTL_DEL, fd, NULL);
        s->set = 0;
    }
    if (!s->wanted || s->wanted == s->set)
        return 0;
    struct epoll_event e = {.events = s->wanted, .data.fd = fd};
    if (epoll_ctl(l->epoll, s->set ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e) != 0)
        return -1;
    s->set = s->wanted;
    return 0;
}

/* As libcurl would, but that the socket's number, which may have been a resolver's, begins anew. */
static curl_socket_t on_open(void *ctx, curlsocktype purpose, struct curl_sockaddr *a)
{
    (void)purpose;
    int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
    struct socket_state *s = fd < 0 ? NULL : state_of(ctx, fd);
    if (s)
        *s = (struct socket_state){.kept = true};
    return fd;
}

/* libcurl closes a connection, whereupon the kernel forgets the descriptor. */
static int on_close(void *ctx, curl_socket_t fd)
{
    struct socket_state *s = state_of(ctx, fd);
    if (s)
        *s = (struct socket_state){0};
    return close(fd);
}

void gateway_loop_watch_sockets(struct loop *l, CURL *easy)
{
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, l);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, l);
}

/* True: it is for libcurl. */
static bool wanted(struct loop *l, int fd)
{
    struct socket_state *s = state_of(l, fd);
    if (!s || s->wanted)
        return s != NULL;
    (void)epoll_ctl(l->epoll, EPOLL_CTL_DEL, fd, NULL);
    s->set = 0;
    return false;
}

static int on_timer(CURLM *multi, long ms, void *ctx)
{
    (void)multi;
    struct loop *l = ctx;
    l->curl_due_us = ms < 0 ? INT64_MAX : gateway_now() + (int64_t)ms * 1000;
    return 0;
}

static void collect(struct loop *l)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(l->multi, &left))) {
        if (m->msg != CURLMSG_DONE)
            continue;
        CURL *easy = m->easy_handle;
        CURLcode code = m->data.result;
        struct exchange *x = NULL;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&x);
        if (x)
            exchange_done(x, code);
        else
            backends_checked(l, easy, code);
    }
}

/* ---- turns */

static struct exchange *posts(struct loop *l, bool sleep, bool *ret_abort)
{
    pthread_mutex_lock(&l->lock);
    struct exchange *x = l->first;
    l->first = l->last = NULL;
    l->asleep = sleep && !x;
    *ret_abort = l->abort;
    pthread_mutex_unlock(&l->lock);
    return x;
}

static void take_up(struct loop *l, struct exchange *x)
{
    while (x) {
        pthread_mutex_lock(&l->lock);
        struct exchange *next = x->posted_next;
        unsigned what = x->posted;
        x->posted = 0;
        bool dead = x->dead;
        pthread_mutex_unlock(&l->lock);
        if (dead)
            exchange_unref(x);
        else if (what & POST_RPC)
            exchange_rpc(x);
        else if (what & POST_WAKE)
            exchange_wake(x);
        x = next;
    }
}

static void tick(struct loop *l, int64_t now)
{
    l->tick_us = now;
    for (struct exchange *x = l->live, *next; x; x = next) {
        next = x->next;
        exchange_tick(x, now);
    }
    if (l == &l->g->loops[0])
        backends_tick(l, now);
}

static int wait_ms(const struct loop *l, int64_t now, bool idle)
{
    /* Without requests only checks are due, in whole seconds. */
    int64_t us = l->tick_us + (l->n_live ? TICK_US : idle ? 500000 : TICK_US) - now;
    if (l->curl_due_us != INT64_MAX && l->curl_due_us - now < us)
        us = l->curl_due_us - now;
    return us <= 0 ? 0 : (int)((us + 999) / 1000);
}

/* True: the clients want something. */
static bool sockets(struct loop *l, const struct epoll_event *events, int n)
{
    bool clients = false;
    int running;
    for (int i = 0; i < n; i++) {
        int fd = events[i].data.fd;
        clients |= fd == l->clients;
        if (fd == l->clients || fd == l->wakeup) /* that is edge-triggered, so never read: 2^64 writes do not happen */
            continue;
        if (!wanted(l, fd))
            continue;
        unsigned e = events[i].events;
        int mask = (e & EPOLLIN ? CURL_CSELECT_IN : 0) | (e & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                   (e & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
        curl_multi_socket_action(l->multi, fd, mask, &running);
    }
    return clients;
}

static void timers(struct loop *l)
{
    int running;
    int64_t now = gateway_now();
    if (l->curl_due_us <= now) {
        l->curl_due_us = INT64_MAX;
        curl_multi_socket_action(l->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    collect(l);
    if (now - l->tick_us >= TICK_US)
        tick(l, now);
}

static bool adopt(struct loop *l, struct http_io *io)
{
    struct epoll_event e = {.events = EPOLLIN, .data.fd = http_io_fd(io)};
    mine = l;
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, e.data.fd, &e) != 0)
        return false;
    l->clients = e.data.fd;
    return true;
}

/* What backends have said comes first, so that their answers go out in the same round of the clients in which new
 * requests come in; then these go on to the backends. */
void gateway_loop_turn(struct loop *l, struct http_io *io)
{
    struct epoll_event events[EVENTS];
    bool aborting = false;
    if (io && l->clients < 0 && !adopt(l, io))
        abort(); /* out of kernel memory before the first request */
    int ms = wait_ms(l, gateway_now(), l != &l->g->loops[0] || l->n_live == 0);
    int clients_ms = io ? http_io_wait_ms(io) : -1;
    if (clients_ms >= 0 && clients_ms < ms)
        ms = clients_ms;
    struct exchange *x = posts(l, ms > 0, &aborting);
    int n = epoll_wait(l->epoll, events, EVENTS, x || (aborting && l->live) ? 0 : ms);
    pthread_mutex_lock(&l->lock);
    l->asleep = false;
    pthread_mutex_unlock(&l->lock);
    bool clients = sockets(l, events, n);
    take_up(l, x);
    collect(l);
    exchange_announce(l);
    if (io && (clients || http_io_wait_ms(io) == 0))
        http_io_run(io);
    timers(l);
    for (struct exchange *y = aborting ? l->live : NULL, *next; y; y = next) {
        next = y->next;
        exchange_abort(y);
    }
    exchange_announce(l);
}

bool gateway_loop_start(struct loop *l, struct gateway *g, char why[256])
{
    l->g = g;
    l->curl_due_us = INT64_MAX;
    l->done_end = &l->done;
    pthread_mutex_init(&l->lock, NULL);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->multi = curl_multi_init();
    l->spare = calloc(SPARE_MAX, sizeof *l->spare);
    struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.fd = l->wakeup};
    if (l->epoll < 0 || l->wakeup < 0 || !l->multi || !l->spare ||
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->wakeup, &e) != 0) {
        snprintf(why, 256, "the gateway's loop cannot start: out of memory or files");
        return false;
    }
    curl_multi_setopt(l->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(l->multi, CURLMOPT_SOCKETDATA, l);
    curl_multi_setopt(l->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(l->multi, CURLMOPT_TIMERDATA, l);
    curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_KEPT);
    curl_multi_setopt(l->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    return true;
}

void gateway_loop_stop(struct loop *l)
{
    l->abort = true;
    /* The threads are gone. What their last turns have left are streams whose clients are gone too. */
    for (int i = 0; i < LAST_TURNS && l->n_live > 0; i++)
        gateway_loop_turn(l, NULL);
    if (l->multi && l == &l->g->loops[0])
        backends_stop(l);
    for (unsigned i = 0; i < l->n_spare; i++)
        curl_easy_cleanup(l->spare[i]);
    free(l->spare);
    if (l->multi)
        curl_multi_cleanup(l->multi);
    free(l->sockets);
    if (l->epoll >= 0)
        close(l->epoll);
    if (l->wakeup >= 0)
        close(l->wakeup);
    pthread_mutex_destroy(&l->lock);
}
