#include "app/breakers.h"

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

static bool database(struct app *a, const char **ret_name, struct breaker_figures *ret)
{
    struct store_cluster c;
    if (!store_cluster(a->d.store, &c))
        return false;
    *ret_name = "database";
    *ret = (struct breaker_figures){.total_permitted = c.primary.permitted,
                                    .total_rejected = c.primary.rejected,
                                    .total_successes = c.primary.successes,
                                    .total_failures = c.primary.failures,
                                    .consecutive_failures = c.primary.consecutive_failures};
    while (ret->state < BREAKER_DISABLED && strcmp(breaker_state_name(ret->state), c.primary.state) != 0)
        ret->state++;
    return true;
}

bool app_breaker_read(struct app *a, unsigned i, const char **ret_name, struct breaker_figures *ret)
{
    unsigned trials = a->cfg.trials ? TRIALS : 0;
    if (i == trials)
        return database(a, ret_name, ret);
    if (i > trials)
        return false;
    *ret_name = names[i];
    breaker_read(a->trial[i], clock_mono(a->d.clock), ret);
    return true;
}
