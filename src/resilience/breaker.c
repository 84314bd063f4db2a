#include "resilience/breaker.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const int64_t SECOND = 1000000;
static const int64_t LONGEST = (int64_t)30 * 86400 * 1000000; /* of any setting: sums of times stay far from overflow */

/* Marks in the ring of the count window; a bucket of the time window holds how many of each. */
enum { MARK_FAILED = 1, MARK_SLOW = 2 };

struct tally {
    unsigned calls, failures, slow;
};

struct lease {
    uint64_t serial; /* 0: free */
    int64_t ends_us;
};

struct breaker {
    pthread_mutex_t lock;
    struct breaker_config c;
    enum breaker_state state;
    uint64_t generation, serial;
    int64_t now_us; /* the latest seen */
    int64_t changed_us;
    struct tally window;  /* over all of marks or buckets */
    unsigned char *marks; /* count window: a ring, next is the oldest once it is full */
    unsigned next;
    struct tally *buckets; /* time window: one a second, second % window_size */
    int64_t second;        /* of the newest bucket */
    struct tally probes;   /* half-open: results so far */
    struct lease *leases;  /* half-open: half_open_calls of them */
    unsigned leased;
    uint64_t permitted, rejected, successes, failures, slow, ignored, stale, lost, in_a_row;
};

struct breaker_config breaker_defaults(void)
{
    return (struct breaker_config){
        .window = BREAKER_COUNT_BASED,
        .window_size = 100,
        .minimum_calls = 10,
        .failure_rate = 50,
        .slow_rate = 100,
        .slow_call_us = 60 * SECOND,
        .wait_open_us = 60 * SECOND,
        .half_open_calls = 10,
        .lease_us = 60 * SECOND,
    };
}

const char *breaker_fault(const struct breaker_config *c)
{
    if (c->window != BREAKER_COUNT_BASED && c->window != BREAKER_TIME_BASED)
        return "slidingWindowType must be COUNT_BASED or TIME_BASED";
    if (c->window == BREAKER_COUNT_BASED && (c->window_size < 1 || c->window_size > 100000))
        return "slidingWindowSize must be 1..100000 calls";
    if (c->window == BREAKER_TIME_BASED && (c->window_size < 1 || c->window_size > 3600))
        return "slidingWindowSize must be 1..3600 seconds";
    if (c->minimum_calls < 1 || c->minimum_calls > 1000000)
        return "minimumNumberOfCalls must be 1..1000000";
    if (c->failure_rate < 1 || c->failure_rate > 100)
        return "failureRateThreshold must be 1..100 percent";
    if (c->slow_rate < 1 || c->slow_rate > 100)
        return "slowCallRateThreshold must be 1..100 percent";
    if (c->slow_call_us < 0 || c->slow_call_us > LONGEST)
        return "slowCallDurationThreshold must be 0 to 30 days";
    if (c->wait_open_us < 0 || c->wait_open_us > LONGEST)
        return "waitDurationInOpenState must be 0 to 30 days";
    if (c->half_open_calls < 1 || c->half_open_calls > 1000)
        return "permittedNumberOfCallsInHalfOpenState must be 1..1000";
    if (c->lease_us < 1 || c->lease_us > LONGEST)
        return "permitLease must be over 0, up to 30 days";
    return NULL;
}

const char *breaker_state_name(enum breaker_state s)
{
    static const char *const names[] = {"closed", "open", "half-open", "forced-open", "disabled"};

    return names[s];
}

struct breaker *breaker_new(const struct breaker_config *c, int64_t now_us)
{
    struct breaker *b;

    if (breaker_fault(c) || !(b = calloc(1, sizeof *b)))
        return NULL;
    b->c = *c;
    b->leases = calloc(c->half_open_calls, sizeof *b->leases);
    if (c->window == BREAKER_COUNT_BASED)
        b->marks = calloc(c->window_size, sizeof *b->marks);
    else
        b->buckets = calloc(c->window_size, sizeof *b->buckets);
    if (!b->leases || (!b->marks && !b->buckets) || pthread_mutex_init(&b->lock, NULL) != 0) {
        free(b->leases);
        free(b->marks);
        free(b->buckets);
        free(b);
        return NULL;
    }
    if (c->window == BREAKER_COUNT_BASED && b->c.minimum_calls > c->window_size)
        b->c.minimum_calls = c->window_size;
    b->generation = 1;
    b->now_us = b->changed_us = now_us;
    b->second = now_us / SECOND;
    return b;
}

void breaker_free(struct breaker *b)
{
    if (!b)
        return;
    pthread_mutex_destroy(&b->lock);
    free(b->leases);
    free(b->marks);
    free(b->buckets);
    free(b);
}

/* ---- the window of the closed state ---- */

static void window_clear(struct breaker *b)
{
    b->window = (struct tally){0};
    b->next = 0;
    if (b->buckets)
        memset(b->buckets, 0, b->c.window_size * sizeof *b->buckets);
}

/* Forgets the seconds that have left a time window. */
static void window_roll(struct breaker *b)
{
    const int64_t second = b->now_us / SECOND;

    if (!b->buckets)
        return;
    if (second - b->second >= b->c.window_size) {
        window_clear(b);
        b->second = second;
    }
    while (b->second < second) {
        struct tally *gone = &b->buckets[++b->second % b->c.window_size];
        b->window.calls -= gone->calls;
        b->window.failures -= gone->failures;
        b->window.slow -= gone->slow;
        *gone = (struct tally){0};
    }
}

static void tally_add(struct tally *t, bool failed, bool slow)
{
    t->calls++;
    t->failures += failed;
    t->slow += slow;
}

static void window_add(struct breaker *b, bool failed, bool slow)
{
    if (b->buckets) {
        tally_add(&b->buckets[b->second % b->c.window_size], failed, slow);
    } else {
        unsigned char *mark = &b->marks[b->next];
        if (b->window.calls == b->c.window_size) {
            b->window.calls--;
            b->window.failures -= (*mark & MARK_FAILED) != 0;
            b->window.slow -= (*mark & MARK_SLOW) != 0;
        }
        *mark = (unsigned char)((failed ? MARK_FAILED : 0) | (slow ? MARK_SLOW : 0));
        b->next = (b->next + 1) % b->c.window_size;
    }
    tally_add(&b->window, failed, slow);
}

/* Whether the failed or the slow ones of t are too many for that many calls. */
static bool too_many(const struct breaker *b, const struct tally *t, unsigned of)
{
    return (uint64_t)t->failures * 100 >= (uint64_t)b->c.failure_rate * of ||
           (uint64_t)t->slow * 100 >= (uint64_t)b->c.slow_rate * of;
}

/* ---- states ---- */

static void enter(struct breaker *b, enum breaker_state to, int64_t at_us)
{
    const enum breaker_state from = b->state;

    if (from == BREAKER_CLOSED)
        window_roll(b); /* it is shown as it was at this moment */
    b->state = to;
    b->generation++;
    b->changed_us = at_us;
    if (to == BREAKER_CLOSED) {
        window_clear(b);
        b->second = at_us / SECOND;
    }
    b->probes = (struct tally){0};
    memset(b->leases, 0, b->c.half_open_calls * sizeof *b->leases);
    b->leased = 0;
    if (from != to && b->c.on_transition)
        b->c.on_transition(b->c.ctx, from, to, at_us);
}

/* The moves that the breaker makes by itself. */
static void move(struct breaker *b, enum breaker_state to, int64_t at_us)
{
    static const unsigned moves[] = {
        [BREAKER_CLOSED] = 1u << BREAKER_OPEN,
        [BREAKER_OPEN] = 1u << BREAKER_HALF_OPEN,
        [BREAKER_HALF_OPEN] = 1u << BREAKER_OPEN | 1u << BREAKER_CLOSED,
        [BREAKER_FORCED_OPEN] = 0,
        [BREAKER_DISABLED] = 0,
    };

    assert(moves[b->state] & 1u << to);
    enter(b, to, at_us);
}

static void probe_add(struct breaker *b, struct lease *l, bool failed, bool slow, int64_t at_us)
{
    l->serial = 0;
    b->leased--;
    tally_add(&b->probes, failed, slow);
    if (too_many(b, &b->probes, b->c.half_open_calls))
        move(b, BREAKER_OPEN, at_us);
    else if (b->probes.calls == b->c.half_open_calls)
        move(b, BREAKER_CLOSED, at_us);
}

static struct lease *first_to_end(struct breaker *b)
{
    struct lease *first = NULL;

    for (unsigned i = 0; i < b->c.half_open_calls && b->leased; i++)
        if (b->leases[i].serial && (!first || b->leases[i].ends_us < first->ends_us))
            first = &b->leases[i];
    return first;
}

/* Brings the state to `now_us`. What time alone changes happens at its own moment, however late somebody looks. */
static void advance(struct breaker *b, int64_t now_us)
{
    if (now_us > b->now_us)
        b->now_us = now_us;
    for (;;) {
        if (b->state == BREAKER_OPEN && b->now_us - b->changed_us >= b->c.wait_open_us) {
            move(b, BREAKER_HALF_OPEN, b->changed_us + b->c.wait_open_us);
        } else if (b->state == BREAKER_HALF_OPEN) {
            struct lease *l = first_to_end(b);
            if (!l || l->ends_us > b->now_us)
                return;
            b->lost++;
            probe_add(b, l, true, false, l->ends_us);
        } else {
            return;
        }
    }
}

static int64_t retry_in(struct breaker *b)
{
    if (b->state == BREAKER_OPEN)
        return b->changed_us + b->c.wait_open_us - b->now_us;
    if (b->state == BREAKER_HALF_OPEN && b->leased && b->leased + b->probes.calls == b->c.half_open_calls)
        return first_to_end(b)->ends_us - b->now_us;
    return 0;
}

static unsigned lease_out(struct breaker *b)
{
    unsigned i = 0;

    while (b->leases[i].serial)
        i++;
    b->leases[i] = (struct lease){b->serial, b->now_us + b->c.lease_us};
    b->leased++;
    return i;
}

static bool permits(const struct breaker *b)
{
    return b->state == BREAKER_CLOSED || b->state == BREAKER_DISABLED ||
           (b->state == BREAKER_HALF_OPEN && b->leased + b->probes.calls < b->c.half_open_calls);
}

bool breaker_try(struct breaker *b, int64_t now_us, struct breaker_permit *ret)
{
    bool ok;

    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    ok = permits(b);
    if (ok) {
        b->permitted++;
        *ret = (struct breaker_permit){.generation = b->generation, .serial = ++b->serial, .since_us = b->now_us};
        if (b->state == BREAKER_HALF_OPEN)
            ret->slot = lease_out(b);
    } else {
        b->rejected++;
        *ret = (struct breaker_permit){.retry_in_us = retry_in(b)};
    }
    pthread_mutex_unlock(&b->lock);
    return ok;
}

static void count(struct breaker *b, bool failed, bool slow)
{
    if (failed) {
        b->failures++;
        b->in_a_row++;
    } else {
        b->successes++;
        b->in_a_row = 0;
    }
    b->slow += slow;
}

static void settle(struct breaker *b, const struct breaker_permit *p, enum breaker_result r)
{
    struct lease *l = b->state == BREAKER_HALF_OPEN ? &b->leases[p->slot] : NULL;
    const bool failed = r == BREAKER_FAILURE, slow = b->now_us - p->since_us > b->c.slow_call_us;

    if (p->generation != b->generation || (l && l->serial != p->serial)) {
        b->stale++;
        return;
    }
    if (r == BREAKER_IGNORED) {
        b->ignored++;
        if (l) {
            l->serial = 0;
            b->leased--;
        }
        return;
    }
    count(b, failed, slow);
    if (l) {
        probe_add(b, l, failed, slow, b->now_us);
    } else if (b->state == BREAKER_CLOSED) {
        window_roll(b);
        window_add(b, failed, slow);
        if (b->window.calls >= b->c.minimum_calls && too_many(b, &b->window, b->window.calls))
            move(b, BREAKER_OPEN, b->now_us);
    }
}

enum breaker_state breaker_done(struct breaker *b, struct breaker_permit *p, enum breaker_result r, int64_t now_us)
{
    enum breaker_state state;

    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    if (p->generation)
        settle(b, p, r);
    state = b->state;
    pthread_mutex_unlock(&b->lock);
    *p = (struct breaker_permit){0};
    return state;
}

void breaker_force(struct breaker *b, enum breaker_state to, int64_t now_us)
{
    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    enter(b, to, b->now_us);
    pthread_mutex_unlock(&b->lock);
}

void breaker_read(struct breaker *b, int64_t now_us, struct breaker_figures *ret)
{
    const struct tally *t;
    unsigned least;

    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    if (b->state == BREAKER_CLOSED)
        window_roll(b);
    t = b->state == BREAKER_HALF_OPEN ? &b->probes : &b->window;
    least = b->state == BREAKER_HALF_OPEN ? b->c.half_open_calls : b->c.minimum_calls;
    *ret = (struct breaker_figures){
        .state = b->state,
        .changed_us = b->changed_us,
        .calls = t->calls,
        .failures = t->failures,
        .slow = t->slow,
        .failure_rate = t->calls < least ? -1 : 100.0 * t->failures / t->calls,
        .slow_rate = t->calls < least ? -1 : 100.0 * t->slow / t->calls,
        .permits_out = b->leased,
        .retry_in_us = retry_in(b),
        .total_permitted = b->permitted,
        .total_rejected = b->rejected,
        .total_successes = b->successes,
        .total_failures = b->failures,
        .total_slow = b->slow,
        .total_ignored = b->ignored,
        .total_stale = b->stale,
        .total_lost = b->lost,
        .consecutive_failures = b->in_a_row,
    };
    pthread_mutex_unlock(&b->lock);
}
