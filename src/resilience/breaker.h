/*
 * breaker: a circuit breaker around calls to one dependency. A pure state machine: the clock is passed in, it does no
 * I/O and has no thread of its own; all of its state is a function of the calls made to it and their times.
 *
 *                 rate reached              wait over
 *       ┌────────┐ ─────────▶ ┌──────┐ ───────────────▶ ┌───────────┐       ┌─────────────┐  ┌──────────┐
 *       │ closed │            │ open │                  │ half-open │       │ forced-open │  │ disabled │
 *       └────────┘            └──────┘ ◀─────────────── └───────────┘       └─────────────┘  └──────────┘
 *            ▲                           rate reached         │                entered and left by breaker_force only
 *            └────────────────────────────────────────────────┘
 *                      all permitted calls answered, rate not reached
 *
 * Before a call: breaker_try. After it: breaker_done with the permit and how it went. What is no word on the
 * dependency's health (rejected here, cancelled by the caller, a 4xx) is BREAKER_IGNORED: the permit goes back and
 * nothing is counted. Every change of state starts a new generation; the result of a call that began in an older one
 * is dropped.
 *
 * Half-open lets exactly half_open_calls through until their results have decided. Their permits are leased: one that
 * does not come back within lease_us counts as a failed call and what it brings later is dropped, so a lost permit
 * cannot hold the breaker. It reopens as soon as the failures are too many, and closes when all results are in.
 *
 * Times are microseconds of a monotonic clock, >= 0; a time before the latest one seen counts as that one. Wall time
 * plays no part. Thread-safe: a mutex inside, held for well under a microsecond and never across a call of yours but
 * on_transition.
 */
#ifndef RESILIENCE_BREAKER_H
#define RESILIENCE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum breaker_state {
    BREAKER_CLOSED,
    BREAKER_OPEN,
    BREAKER_HALF_OPEN,
    BREAKER_FORCED_OPEN, /* lets nothing through */
    BREAKER_DISABLED,    /* lets everything through, judges nothing */
};

/* What the rates are judged over: the last window_size calls, or the calls that ended in the last window_size seconds
 * (in steps of whole seconds, the running one included). */
enum breaker_window { BREAKER_COUNT_BASED, BREAKER_TIME_BASED };

enum breaker_result { BREAKER_SUCCESS, BREAKER_FAILURE, BREAKER_IGNORED };

struct breaker_config {
    enum breaker_window window;
    unsigned window_size;     /* calls, 1..100000; or seconds, 1..3600 */
    unsigned minimum_calls;   /* 1..1000000; fewer in the window are not judged. Over window_size calls: that */
    unsigned failure_rate;    /* percent, 1..100; at or over it the breaker opens */
    unsigned slow_rate;       /* the same for slow calls, failed or not */
    int64_t slow_call_us;     /* 0..30 days; a call that takes longer is slow */
    int64_t wait_open_us;     /* 0..30 days; from open to half-open */
    unsigned half_open_calls; /* 1..1000 */
    int64_t lease_us;         /* 1..30 days; more than a call may take */
    /* May be NULL. Called in order, under the breaker's mutex: be brief and do not call the breaker. at_us may lie
     * before the call that brought it out: time passes without calls. */
    void (*on_transition)(void *ctx, enum breaker_state from, enum breaker_state to, int64_t at_us);
    void *ctx;
};

/* Filled by breaker_try, emptied by breaker_done. Moves between threads; not to be copied. */
struct breaker_permit {
    uint64_t generation; /* 0: none */
    uint64_t serial;
    int64_t since_us;
    int64_t retry_in_us; /* if rejected: when to ask again; 0: not known */
    unsigned slot;
};

struct breaker_figures {
    enum breaker_state state;
    int64_t changed_us; /* when the state was entered */
    /* The window that the state judges: in open and forced-open the one that was there before. */
    unsigned calls, failures, slow;
    double failure_rate, slow_rate; /* percent; -1: too few calls to judge */
    unsigned permits_out;           /* half-open only */
    int64_t retry_in_us;            /* as in struct breaker_permit; 0 also if calls pass */
    /* Since breaker_new. */
    uint64_t total_permitted, total_rejected;
    uint64_t total_successes, total_failures, total_slow, total_ignored;
    uint64_t total_stale; /* results dropped: of an older generation, or after their lease */
    uint64_t total_lost;  /* leases that ran out; not in total_failures, although the half-open state counts them so */
    uint64_t consecutive_failures;
};

struct breaker;

/* Window of 100 calls, judged from 10; 50 % failures; 100 % slower than 60 s; 60 s open; 10 calls half-open, 60 s each.
 */
struct breaker_config breaker_defaults(void);
/* NULL if all is in range, else one line that names the setting at fault; static. */
const char *breaker_fault(const struct breaker_config *c);
/* Closed. The configuration is copied. NULL: out of memory, or breaker_fault has something to say. */
struct breaker *breaker_new(const struct breaker_config *c, int64_t now_us);
void breaker_free(struct breaker *b); /* NULL is allowed */

/* Whether a call may go out now. false: rejected, *ret holds retry_in_us only and need not be given back. */
bool breaker_try(struct breaker *b, int64_t now_us, struct breaker_permit *ret) __attribute__((warn_unused_result));
/* Gives the permit back and empties it; an empty one is ignored. Returns the state after that. */
enum breaker_state breaker_done(struct breaker *b, struct breaker_permit *p, enum breaker_result r, int64_t now_us);
/* Goes to any state, from any. CLOSED begins with an empty window, OPEN and HALF_OPEN go on from there by themselves;
 * FORCED_OPEN and DISABLED stay until the next breaker_force. */
void breaker_force(struct breaker *b, enum breaker_state to, int64_t now_us);
void breaker_read(struct breaker *b, int64_t now_us, struct breaker_figures *ret);
const char *breaker_state_name(enum breaker_state s); /* "closed", "open", "half-open", "forced-open", "disabled" */

#endif
