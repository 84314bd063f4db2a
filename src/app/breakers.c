#include "app/breakers.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "app/internal.h"

static const char *const names[TRIALS] = {
    [TRIAL_SUCCESS] = "test-success-service",
    [TRIAL_FAILURE] = "test-failure-service",
    [TRIAL_TIMEOUT] = "test-timeout-service",
};

bool breakers_init(struct app *a)
{
    struct breaker_config c = breaker_defaults();
    c.window_size = c.minimum_calls = 2;
    c.failure_rate = 100;
    c.wait_open_us = 10 * 1000000;
    c.half_open_calls = 1;
    c.lease_us = 5 * 1000000;
    for (int t = 0; t < TRIALS && a->cfg.trials; t++) {
        a->trial[t] = breaker_new(&c, clock_mono(a->d.clock));
        if (!a->trial[t])
            return false;
    }
    return true;
}

void breakers_free(struct app *a)
{
    for (int t = 0; t < TRIALS; t++)
        breaker_free(a->trial[t]);
}

const char *app_trial_name(enum app_trial t)
{
    return names[t];
}

enum pf_err app_trial_call(struct app *a, enum app_trial t)
{
    struct breaker *b = a->trial[t];
    struct breaker_permit permit;
    if (!b)
        return PFE_NOT_FOUND;
    if (!breaker_try(b, clock_mono(a->d.clock), &permit))
        return PFE_BREAKER_OPEN;
    if (t == TRIAL_TIMEOUT)
        nanosleep(&(struct timespec){.tv_nsec = APP_TRIAL_US * 1000}, NULL);
    enum breaker_result r = t == TRIAL_SUCCESS ? BREAKER_SUCCESS : BREAKER_FAILURE;
    if (breaker_done(b, &permit, r, clock_mono(a->d.clock)) == BREAKER_OPEN)
        return PFE_BREAKER_OPEN;
    return t == TRIAL_SUCCESS ? PFE_OK : t == TRIAL_FAILURE ? PFE_INTERNAL : PFE_TIMEOUT;
}

static void figures(const struct port_breaker *b, struct breaker_figures *ret)
{
    *ret = (struct breaker_figures){.total_permitted = b->permitted,
                                    .total_rejected = b->rejected,
                                    .total_successes = b->successes,
                                    .total_failures = b->failures,
                                    .consecutive_failures = b->consecutive_failures};
    while (ret->state < BREAKER_DISABLED && strcmp(breaker_state_name(ret->state), b->state) != 0)
        ret->state++;
}

/* Of the store's (its primary first, then the replicas), or of the cache's tiers that have one. */
static bool engine_breaker(struct app *a, unsigned i, char ret_name[APP_BREAKER_NAME_MAX], struct breaker_figures *ret)
{
    enum { TIERS = 4 };
    struct store_cluster c;
    struct cache_stats tier[TIERS];
    if (store_cluster(a->d.store, &c)) {
        if (i <= c.n) {
            snprintf(ret_name, APP_BREAKER_NAME_MAX, i ? "replica-%u" : "database", i);
            figures(i ? &c.replicas[i - 1].breaker : &c.primary, ret);
            return true;
        }
        i -= c.n + 1;
    }
    unsigned n = cache_stats(a->d.cache, tier, TIERS);
    for (unsigned k = 0; k < n; k++) {
        if (!tier[k].breaker.state || i--)
            continue;
        snprintf(ret_name, APP_BREAKER_NAME_MAX, "%s", tier[k].tier);
        figures(&tier[k].breaker, ret);
        return true;
    }
    return false;
}

bool app_breaker_read(struct app *a, unsigned i, char ret_name[APP_BREAKER_NAME_MAX], struct breaker_figures *ret)
{
    unsigned trials = a->cfg.trials ? TRIALS : 0;
    if (i >= trials)
        return engine_breaker(a, i - trials, ret_name, ret);
    snprintf(ret_name, APP_BREAKER_NAME_MAX, "%s", names[i]);
    breaker_read(a->trial[i], clock_mono(a->d.clock), ret);
    return true;
}
