/*
 * loop: one thread around an epoll set, with timers and a mailbox. Everything of a loop happens on its thread, but
 * loop_post.
 */
#ifndef RPC_LOOP_H
#define RPC_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"

enum { LOOP_BYTES = 65536, LOOP_TICK_US = 100000 };

/* A job for the loop's thread; the caller's memory, linked until it runs. */
struct task {
    struct task *next;
    void (*run)(struct task *t);
};

/* A node of a pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986): needs no memory of its own, so that setting a
 * timer cannot fail. */
struct timer {
    struct timer *child, *next, *prev;
    int64_t at; /* monotonic µs */
    void (*fire)(struct timer *t);
    bool armed;
};

/* Who gets events: the first member of what stands behind an epoll entry. */
struct watcher {
    void (*event)(struct watcher *w, uint32_t events);
};

struct link;

struct loop {
    int ep, wake;
    struct watcher waker;
    pthread_t thread;
    bool running;
    atomic_bool quit;
    _Atomic(struct task *) mail;
    struct timer *timers; /* the root: the earliest */
    int64_t now;          /* as of the last wait; good enough for time-outs */
    int64_t next_tick;
    void (*tick)(struct loop *l); /* about ten times a second */
    void *owner;
    const struct clock *clock;
    struct link *dirty, *dead; /* to be flushed, to be freed: at the end of a step */
    char *in, *out;            /* LOOP_BYTES each, for whoever reads or writes just now */
};

/* False with errno. loop_fini in any case. */
bool loop_init(struct loop *l, const struct clock *clock);
void loop_fini(struct loop *l); /* closes what it opened; runs no tasks */
bool loop_start(struct loop *l);
/* The thread ends after the tasks that are there; joins it. */
void loop_stop(struct loop *l);
/* Waits for events up to wait_ms and handles them, on the thread that runs the loop. */
void loop_step(struct loop *l, int wait_ms);

/* From any thread. t->run is set. In order for one poster. */
void loop_post(struct loop *l, struct task *t);
void loop_timer_set(struct loop *l, struct timer *t, int64_t at); /* moves it if it is armed */
void loop_timer_clear(struct loop *l, struct timer *t);

#endif
