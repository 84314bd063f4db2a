#include "resilience/retry.h"

#include <string.h>

static const int64_t LONGEST = (int64_t)30 * 86400 * 1000000; /* of any setting: sums of times stay far from overflow */
static const uint64_t ONE_CALL = 1, ONE_RETRY = (uint64_t)1 << 32;

struct retry_config retry_defaults(void)
{
    return (struct retry_config){
        .max_attempts = 3,
        .backoff_us = 100000,
        .multiplier = 2,
        .max_backoff_us = 2000000,
        .jitter = 50,
        .deadline_us = 30000000,
        .budget_percent = 20,
        .budget_least = 3,
    };
}

const char *retry_fault(const struct retry_config *c)
{
    if (c->max_attempts < 1 || c->max_attempts > 100)
        return "maxAttempts must be 1..100";
    if (c->backoff_us < 0 || c->backoff_us > LONGEST)
        return "backoffPeriod must be 0 to 30 days";
    if (!(c->multiplier >= 1 && c->multiplier <= 100))
        return "backoffMultiplier must be 1..100";
    if (c->max_backoff_us < c->backoff_us || c->max_backoff_us > LONGEST)
        return "maxBackoffPeriod must be backoffPeriod to 30 days";
    if (c->jitter > 100)
        return "jitter must be 0..100 percent";
    if (c->deadline_us < 1 || c->deadline_us > LONGEST)
        return "deadline must be over 0, up to 30 days";
    if (c->budget_percent > 100)
        return "budgetPercent must be 0..100";
    if (c->budget_least > 1000000)
        return "budgetLeast must be 0..1000000";
    return NULL;
}

bool retry_init(struct retry *r, const struct retry_config *c)
{
    if (retry_fault(c))
        return false;
    memset(r, 0, sizeof *r);
    r->c = *c;
    return true;
}

void retry_begin(struct retry *r, struct retry_call *call, bool safe, int64_t now_us)
{
    *call = (struct retry_call){.r = r, .deadline_us = now_us + r->c.deadline_us, .attempt = 1, .safe = safe};
    atomic_fetch_add_explicit(&r->live, ONE_CALL, memory_order_relaxed);
}

static bool budget_take(struct retry *r)
{
    uint64_t live = atomic_load_explicit(&r->live, memory_order_relaxed);
    uint64_t most;

    do {
        most = (live & UINT32_MAX) * r->c.budget_percent / 100;
        if (most < r->c.budget_least)
            most = r->c.budget_least;
        if (live / ONE_RETRY >= most)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&r->live, &live, live + ONE_RETRY, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static void budget_return(struct retry_call *call)
{
    if (call->budgeted)
        atomic_fetch_sub_explicit(&call->r->live, ONE_RETRY, memory_order_relaxed);
    call->budgeted = false;
}

/* The wait after attempt n, without jitter. */
static int64_t backoff(const struct retry_config *c, unsigned n)
{
    double us = (double)c->backoff_us;

    while (--n && us < (double)c->max_backoff_us)
        us *= c->multiplier;
    return us < (double)c->max_backoff_us ? (int64_t)us : c->max_backoff_us;
}

static int64_t wait_for(const struct retry_config *c, unsigned n, int64_t retry_after_us, uint64_t random)
{
    const int64_t wait = backoff(c, n);
    const double part = (double)(random >> 11) / 9007199254740992.0; /* 53 bits: 0 <= part < 1 */
    const int64_t off = (int64_t)(part * (double)wait * c->jitter / 100);

    /* capped, so that what a server asks for cannot overflow; the deadline is shorter anyway */
    if (retry_after_us > LONGEST)
        retry_after_us = LONGEST;
    return retry_after_us > wait - off ? retry_after_us + off : wait - off;
}

static enum retry_stop decide(struct retry_call *call, enum retry_outcome o, int64_t wait_us, int64_t now_us)
{
    if (o != RETRY_FAILURE)
        return RETRY_STOP_OUTCOME;
    if (!call->safe)
        return RETRY_STOP_UNSAFE;
    if (call->attempt >= call->r->c.max_attempts)
        return RETRY_STOP_ATTEMPTS;
    if (wait_us >= retry_left_us(call, now_us))
        return RETRY_STOP_DEADLINE;
    return budget_take(call->r) ? RETRY_AGAIN : RETRY_STOP_BUDGET;
}

struct retry_verdict retry_next(struct retry_call *call, enum retry_outcome o, int64_t retry_after_us, uint64_t random,
                                int64_t now_us)
{
    struct retry_verdict v = {0};

    budget_return(call);
    if (o == RETRY_SUCCESS) {
        v.why = RETRY_STOP_OUTCOME;
        return v;
    }
    v.wait_us = wait_for(&call->r->c, call->attempt, retry_after_us, random);
    v.why = decide(call, o, v.wait_us, now_us);
    v.again = v.why == RETRY_AGAIN;
    if (v.again) {
        call->attempt++;
        call->budgeted = true;
    } else {
        v.wait_us = 0;
    }
    atomic_fetch_add_explicit(&call->r->stops[v.why], 1, memory_order_relaxed);
    return v;
}

int64_t retry_left_us(const struct retry_call *call, int64_t now_us)
{
    return now_us < call->deadline_us ? call->deadline_us - now_us : 0;
}

void retry_end(struct retry_call *call)
{
    if (!call->r)
        return;
    budget_return(call);
    atomic_fetch_sub_explicit(&call->r->live, ONE_CALL, memory_order_relaxed);
    call->r = NULL;
}

void retry_read(struct retry *r, struct retry_figures *ret)
{
    const uint64_t live = atomic_load_explicit(&r->live, memory_order_relaxed);

    *ret = (struct retry_figures){.calls_live = (unsigned)(live & UINT32_MAX), .retries_live = (unsigned)(live >> 32)};
    for (int i = 0; i < RETRY_STOPS; i++)
        ret->stops[i] = atomic_load_explicit(&r->stops[i], memory_order_relaxed);
    ret->retries = ret->stops[RETRY_AGAIN];
}
