/*
 * retry: whether a failed call is tried again, and when. Pure: the clock and the random number are passed in; the
 * caller makes the calls and does the waiting.
 *
 *     retry_begin(r, &call, safe, now);
 *     do {
 *         … wait v.wait_us; ask the breaker; call, for at most retry_left_us …
 *         v = retry_next(&call, how it went, Retry-After or 0, rand_u64(), now);
 *     } while (v.again);
 *     retry_end(&call);
 *
 * It sits outside the breaker: each attempt asks the breaker anew, and the breaker's rejection is RETRY_REJECTED, which
 * is not tried again. A call that is not safe to repeat (a POST without an idempotency key) is tried once.
 *
 * The wait before attempt n + 1 is min(period · multiplier^(n-1), max), less a random part of up to `jitter` of it.
 * A Retry-After that is longer is kept to, plus that random part. One deadline covers all attempts and waits: a retry
 * that could only begin at or after it is not made.
 *
 * The budget: at any moment the retries under way, from the decision to retry until the attempt's end (its wait
 * included), are at most budget_percent of the calls under way (retry_begin to retry_end, this one included), or
 * budget_least if that is more. So retries cannot multiply the load on a dependency that is down. There is no time
 * window: what has ended does not count.
 *
 * Times are microseconds of a monotonic clock. A struct retry is lock-free and shared between threads; a struct
 * retry_call belongs to one thread at a time.
 */
#ifndef RESILIENCE_RETRY_H
#define RESILIENCE_RETRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct retry_config {
    unsigned max_attempts;   /* 1..100, the first included */
    int64_t backoff_us;      /* 0..30 days */
    double multiplier;       /* 1..100 */
    int64_t max_backoff_us;  /* backoff_us..30 days */
    unsigned jitter;         /* percent, 0..100 */
    int64_t deadline_us;     /* 1..30 days, from retry_begin */
    unsigned budget_percent; /* 0..100 of the calls under way */
    unsigned budget_least;   /* 0..1000000 retries */
};

enum retry_outcome {
    RETRY_SUCCESS,
    RETRY_FAILURE,   /* may go better another time: no connection, a time-out, 5xx, 429 */
    RETRY_PERMANENT, /* will not: 4xx, a refusal */
    RETRY_REJECTED,  /* by an open breaker or another local limit; nothing was sent */
    RETRY_CANCELLED, /* by the caller */
};

enum retry_stop {
    RETRY_AGAIN, /* does not stop */
    RETRY_STOP_OUTCOME,
    RETRY_STOP_UNSAFE,
    RETRY_STOP_ATTEMPTS,
    RETRY_STOP_DEADLINE,
    RETRY_STOP_BUDGET,
    RETRY_STOPS
};

struct retry_verdict {
    bool again;
    int64_t wait_us; /* before the next attempt; 0 unless again */
    enum retry_stop why;
};

/* Initialised by retry_init; nothing to free. Fields are private. */
struct retry {
    struct retry_config c;
    _Atomic uint64_t live; /* retries under way << 32 | calls under way: one word, so that the budget is exact */
    _Atomic uint64_t stops[RETRY_STOPS];
};

/* Private but for `attempt`. */
struct retry_call {
    struct retry *r; /* NULL: ended */
    int64_t deadline_us;
    unsigned attempt; /* the one under way or about to be, from 1 */
    bool safe, budgeted;
};

struct retry_figures {
    unsigned calls_live, retries_live;
    uint64_t retries;            /* attempts after the first */
    uint64_t stops[RETRY_STOPS]; /* failed calls not tried again, by reason; [RETRY_AGAIN] is the retries */
};

/* 3 attempts, 100 ms · 2^n up to 2 s, jitter 50 %, deadline 30 s, budget 20 % and at least 3. */
struct retry_config retry_defaults(void);
/* NULL if all is in range, else one line that names the setting at fault; static. */
const char *retry_fault(const struct retry_config *c);
/* false: retry_fault has something to say. The configuration is copied. */
bool retry_init(struct retry *r, const struct retry_config *c) __attribute__((warn_unused_result));

/* safe: repeating the call cannot do its effect twice. Every begin needs its retry_end. */
void retry_begin(struct retry *r, struct retry_call *call, bool safe, int64_t now_us);
/* How the attempt under way went, and what now. retry_after_us: what the answer asked for; <= 0: nothing. random: any
 * 64 random bits. After a verdict that is not `again` only retry_end may follow. */
struct retry_verdict retry_next(struct retry_call *call, enum retry_outcome o, int64_t retry_after_us, uint64_t random,
                                int64_t now_us);
/* The time left until the call's deadline, the most that its attempt may take; 0: none. */
int64_t retry_left_us(const struct retry_call *call, int64_t now_us);
/* Also gives up between attempts. A second call does nothing. */
void retry_end(struct retry_call *call);
void retry_read(struct retry *r, struct retry_figures *ret);

#endif
