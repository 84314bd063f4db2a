#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rpc/link.h"
#include "rpc/loop.h"

enum { EVENTS = 256 };

/* ---- timers */

static struct timer *meld(struct timer *a, struct timer *b)
{
    if (!a || !b)
        return a ? a : b;
    if (b->at < a->at) {
        struct timer *t = a;
        a = b;
        b = t;
    }
    b->prev = a;
    b->next = a->child;
    if (b->next)
        b->next->prev = b;
    a->child = b;
    a->next = a->prev = NULL;
    return a;
}

static struct timer *meld_all(struct timer *first)
{
    struct timer *pairs = NULL, *root = NULL;
    while (first) {
        struct timer *a = first, *b = a->next;
        first = b ? b->next : NULL;
        a->next = a->prev = NULL;
        if (b)
            b->next = b->prev = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs) {
        struct timer *a = pairs;
        pairs = a->next;
        a->next = NULL;
        root = meld(root, a);
    }
    return root;
}

void loop_timer_clear(struct loop *l, struct timer *t)
{
    if (!t->armed)
        return;
    t->armed = false;
    if (t == l->timers) {
        l->timers = meld_all(t->child);
    } else {
        if (t->prev->child == t)
            t->prev->child = t->next;
        else
            t->prev->next = t->next;
        if (t->next)
            t->next->prev = t->prev;
        l->timers = meld(l->timers, meld_all(t->child));
    }
    t->child = t->next = t->prev = NULL;
}

void loop_timer_set(struct loop *l, struct timer *t, int64_t at)
{
    loop_timer_clear(l, t);
    t->at = at;
    t->child = t->next = t->prev = NULL;
    t->armed = true;
    l->timers = meld(l->timers, t);
}

/* ---- mailbox: a stack that is taken whole and turned round */

void loop_post(struct loop *l, struct task *t)
{
    struct task *old = atomic_load_explicit(&l->mail, memory_order_relaxed);
    do {
        t->next = old;
    } while (!atomic_compare_exchange_weak_explicit(&l->mail, &old, t, memory_order_release, memory_order_relaxed));
    uint64_t one = 1;
    if (!old) /* else the loop has been woken and has not looked yet */
        while (write(l->wake, &one, sizeof one) < 0 && errno == EINTR)
            ;
}

static void read_mail(struct loop *l)
{
    struct task *t = atomic_exchange_explicit(&l->mail, NULL, memory_order_acquire), *first = NULL;
    while (t) {
        struct task *next = t->next;
        t->next = first;
        first = t;
        t = next;
    }
    while (first) {
        t = first;
        first = t->next;
        t->run(t);
    }
}

static void on_wake(struct watcher *w, uint32_t events)
{
    struct loop *l = (struct loop *)((char *)w - offsetof(struct loop, waker));
    uint64_t n;
    (void)events;
    while (read(l->wake, &n, sizeof n) < 0 && errno == EINTR)
        ;
    read_mail(l);
}

/* ---- the loop */

bool loop_init(struct loop *l, const struct clock *clock)
{
    *l = (struct loop){.clock = clock, .waker = {on_wake}};
    l->ep = epoll_create1(EPOLL_CLOEXEC);
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->in = malloc(LOOP_BYTES);
    l->out = malloc(LOOP_BYTES);
    l->now = clock_mono(clock);
    return l->ep >= 0 && l->wake >= 0 && l->in && l->out &&
           epoll_ctl(l->ep, EPOLL_CTL_ADD, l->wake, &(struct epoll_event){.events = EPOLLIN, .data.ptr = &l->waker}) ==
               0;
}

void loop_fini(struct loop *l)
{
    if (l->ep >= 0)
        close(l->ep);
    if (l->wake >= 0)
        close(l->wake);
    free(l->in);
    free(l->out);
    l->in = l->out = NULL;
    l->ep = l->wake = -1;
}

/* What the step has touched is written out, and what it has closed goes: not before, for its events may still stand in
 * the list that epoll gave. */
static void settle(struct loop *l)
{
    while (l->dirty || l->dead) { /* the end of one can begin calls on another */
        struct link *k = l->dirty;
        if (k) {
            l->dirty = k->next_dirty;
            link_flush(k);
        } else {
            k = l->dead;
            l->dead = k->next_dead;
            k->ops->closed(k);
        }
    }
}

/* Up to the next timer or tick. */
static int wait_for(const struct loop *l, int most_ms)
{
    int64_t at = l->tick ? l->next_tick : INT64_MAX;
    if (l->timers && l->timers->at < at)
        at = l->timers->at;
    if (at == INT64_MAX)
        return most_ms;
    int64_t ms = at <= l->now ? 0 : (at - l->now + 999) / 1000;
    return most_ms >= 0 && ms > most_ms ? most_ms : (int)(ms < 60000 ? ms : 60000);
}

void loop_step(struct loop *l, int wait_ms)
{
    struct epoll_event events[EVENTS];
    l->now = clock_mono(l->clock);
    int n = epoll_wait(l->ep, events, EVENTS, wait_for(l, wait_ms));
    l->now = clock_mono(l->clock);
    for (int i = 0; i < n; i++) {
        struct watcher *w = events[i].data.ptr;
        w->event(w, events[i].events);
    }
    while (l->timers && l->timers->at <= l->now) {
        struct timer *t = l->timers;
        loop_timer_clear(l, t);
        t->fire(t);
    }
    if (l->tick && l->now >= l->next_tick) {
        l->next_tick = l->now + LOOP_TICK_US;
        l->tick(l);
    }
    settle(l);
}

static void *run(void *arg)
{
    struct loop *l = arg;
    while (!atomic_load(&l->quit))
        loop_step(l, -1);
    read_mail(l);
    settle(l);
    return NULL;
}

/* All signals are for other threads; OpenSSL's writes to a closed socket must not end the process. */
bool loop_start(struct loop *l)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int e = pthread_create(&l->thread, NULL, run, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    l->running = e == 0;
    errno = e;
    return l->running;
}

static void nothing(struct task *t)
{
    (void)t;
}

void loop_stop(struct loop *l)
{
    if (!l->running)
        return;
    struct task t = {.run = nothing};
    atomic_store(&l->quit, true);
    loop_post(l, &t);
    pthread_join(l->thread, NULL);
    l->running = false;
}
