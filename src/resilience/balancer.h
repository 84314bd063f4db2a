/*
 * balancer: which of several backends takes a request. Pure: the clock and the random numbers are passed in; the caller
 * connects, runs the checks and does the waiting. Pick, use the lease, release it with how it went:
 *
 *     switch (balancer_pick(b, STR_NONE, NULL, rand_u64(), now, &lease)) {
 *     case BALANCER_PICKED: … call lease.data …; balancer_release(b, &lease, BALANCER_SUCCESS, now); break;
 *     case BALANCER_QUEUED: … wait until `wake`, or a while; then balancer_poll, or balancer_release to give up …
 *     case BALANCER_FULL, BALANCER_NONE: 503
 *     }
 *
 * Algorithms, over the backends that can take a request now:
 *
 *   round robin        smooth and weighted: over every sum-of-weights picks each backend gets exactly its weight,
 *                      spread out. A change of the set begins a new cycle
 *
 *   least connections  the least (leases + requests waiting for it + 1) / weight; a tie goes round robin
 *
 *   random             two are drawn by weight; the better of them by that measure takes it
 *
 * A backend with max_connections leases takes no more. When all are full, requests wait in one bounded queue, first
 * come first served; whatever frees a place hands it to the first who can use it. A sticky request whose backend is
 * full waits for that one, and counts as its connection meanwhile.
 *
 * A backend takes requests if it is neither down, ejected nor draining:
 *
 *   down      unhealthy_threshold failed checks in a row, until healthy_threshold good ones; it starts as up. A check
 *             without an answer after check_timeout_us has failed
 *
 *   ejected   eject_after failed requests in a row: for eject_us, then twice, three times … that, up to eject_max_us;
 *             from one again after eject_max_us without. At most max_ejected of all at once, but always one. Results
 *             of leases from before it changed between in and out are dropped
 *
 *   draining  finishes what it has; takes only requests that stick to it
 *
 * One that has come (back) in starts slowly: from a tenth of its weight up to all of it in slow_start_us.
 *
 * Panic: when less than `panic` percent of those not draining are in, down and ejected ones take requests as well, for
 * the few that are left would not survive the load of all.
 *
 * Sticky: lease.cookie is an opaque id of the backend, the same in every process that gives it the same name and salt.
 * A request that brings it goes to that backend, round every algorithm, unless that cannot take it.
 *
 * A lease that does not come back within lease_us is taken back; what it brings later is dropped.
 *
 * Times are microseconds of a monotonic clock, >= 0; a time before the latest one seen counts as that one. Thread-safe:
 * a mutex inside, held for a walk over the backends.
 */
#ifndef RESILIENCE_BALANCER_H
#define RESILIENCE_BALANCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

enum balancer_algorithm { BALANCER_ROUND_ROBIN, BALANCER_LEAST_CONNECTIONS, BALANCER_RANDOM };

enum { BALANCER_NAME_MAX = 64, BALANCER_COOKIE_MAX = 17, BALANCER_BACKENDS_MAX = 1024 }; /* texts with their NUL */

struct balancer_config {
    enum balancer_algorithm algorithm;
    int64_t check_interval_us;    /* 0..30 days, from one start to the next; 0: no active checks */
    int64_t check_timeout_us;     /* 1..30 days */
    unsigned healthy_threshold;   /* 1..1000 good checks in a row */
    unsigned unhealthy_threshold; /* 1..1000 failed ones */
    unsigned max_queue;           /* 0..1000000 requests waiting, in all */
    int64_t queue_timeout_us;     /* 1..30 days that one waits */
    unsigned eject_after;         /* 0..1000 failed requests in a row; 0: never */
    int64_t eject_us;             /* 1..30 days */
    int64_t eject_max_us;         /* eject_us..30 days */
    unsigned max_ejected;         /* percent, 0..100 */
    int64_t slow_start_us;        /* 0..30 days; 0: at once */
    unsigned panic;               /* percent, 0..100; 0: never */
    int64_t lease_us;             /* 0..30 days; 0: a lease has no end */
    bool sticky;
    uint64_t sticky_salt;
    /* May be NULL. A waiting request, known by the pointer given to balancer_pick, has got a backend or waits in vain:
     * balancer_poll says which. Called under the balancer's mutex: be brief and do not call the balancer. */
    void (*wake)(void *ctx, void *waiter);
    void *ctx;
};

struct balancer_backend {
    struct str name;          /* 1..63 bytes, unique */
    unsigned weight;          /* 0..1000; 0: only requests that stick to it */
    unsigned max_connections; /* 0: no bound */
    void *data;               /* the caller's, handed out with each lease; leases may outlive balancer_remove */
};

enum balancer_answer {
    BALANCER_PICKED,
    BALANCER_QUEUED,
    BALANCER_FULL, /* so is the queue; or out of memory */
    BALANCER_NONE, /* no backend that could take it, now or later */
    BALANCER_OVER, /* balancer_poll: waited too long, none is left, or the lease was taken back */
};

enum balancer_result { BALANCER_SUCCESS, BALANCER_FAILURE, BALANCER_IGNORED };

/* A place in the queue, then a lease. Filled by balancer_pick and balancer_poll, emptied by balancer_release. Moves
 * between threads; not to be copied. */
struct balancer_lease {
    uint64_t serial; /* 0: none */
    uint64_t backend;
    void *data;
    char cookie[BALANCER_COOKIE_MAX];
    unsigned slot;
};

/* An active check, as balancer_checks_due hands it out. Plain value. */
struct balancer_check {
    uint64_t backend, serial;
    void *data;
};

enum balancer_state { BALANCER_UP, BALANCER_SLOW_START, BALANCER_DOWN, BALANCER_EJECTED, BALANCER_DRAINING };

struct balancer_backend_figures {
    uint64_t id;
    char name[BALANCER_NAME_MAX];
    enum balancer_state state; /* draining before down before ejected */
    unsigned weight, max_connections;
    unsigned active, queued; /* leases out; requests waiting for just this one */
    unsigned failures_in_a_row;
    uint64_t picks, successes, failures, ignored, stale, lost, ejections;
};

struct balancer_figures {
    unsigned backends, in; /* in: neither down, ejected nor draining */
    bool panic;
    unsigned active, queued;
    uint64_t picks, waited;                   /* requests that got a backend; those of them that waited */
    uint64_t full, none, given_up, timed_out; /* that did not; given_up: released while waiting */
    uint64_t lost;                            /* leases taken back */
};

struct balancer;

/* Round robin; checks each 10 s, 5 s, thresholds 2 and 3; queue of 1024 for 1 s; ejected after 5 for 30 s to 5 min, at
 * most 50 %; no slow start; panic under 50 %; leases without end; not sticky. */
struct balancer_config balancer_defaults(void);
/* NULL if all is in range, else one line that names the setting at fault; static. */
const char *balancer_fault(const struct balancer_config *c);
/* NULL: out of memory, or balancer_fault has something to say. */
struct balancer *balancer_new(const struct balancer_config *c, int64_t now_us);
void balancer_free(struct balancer *b); /* NULL is allowed; leases out are forgotten */

/* Returns its id, never given out again; 0: out of range, the name is taken, too many, or out of memory. */
uint64_t balancer_add(struct balancer *b, const struct balancer_backend *backend, int64_t now_us);
/* These return false if there is no such backend, or a value is out of range. Removing leaves its leases to their
 * holders; to be rid of them first, drain and wait for active == 0. Fewer max_connections end no lease. */
bool balancer_remove(struct balancer *b, uint64_t id, int64_t now_us);
bool balancer_drain(struct balancer *b, uint64_t id, bool on, int64_t now_us);
bool balancer_set(struct balancer *b, uint64_t id, unsigned weight, unsigned max_connections, int64_t now_us);

/* cookie: what the request brought, or nothing. waiter: for `wake`, if it has to wait. random: any 64 random bits.
 * *ret is a lease if PICKED, a place in the queue if QUEUED, else empty. */
enum balancer_answer balancer_pick(struct balancer *b, struct str cookie, void *waiter, uint64_t random, int64_t now_us,
                                   struct balancer_lease *ret) __attribute__((warn_unused_result));
/* PICKED: a lease now. QUEUED: waits still. OVER: emptied. */
enum balancer_answer balancer_poll(struct balancer *b, struct balancer_lease *lease, int64_t now_us);
/* Gives back a lease or a place in the queue (the result is not looked at then), and empties it. */
void balancer_release(struct balancer *b, struct balancer_lease *lease, enum balancer_result r, int64_t now_us);

/* The active checks that are due, at most cap; they run from now. A new backend is checked at once. */
size_t balancer_checks_due(struct balancer *b, int64_t now_us, struct balancer_check *ret, size_t cap);
/* false: dropped, its time was out or the backend is gone. */
bool balancer_checked(struct balancer *b, const struct balancer_check *check, bool ok, int64_t now_us);

/* Fills at most cap of `list`, in the order of their adding. */
void balancer_read(struct balancer *b, int64_t now_us, struct balancer_figures *ret,
                   struct balancer_backend_figures *list, size_t cap);
const char *balancer_state_name(enum balancer_state s); /* "up", "slow-start", "down", "ejected", "draining" */

#endif
