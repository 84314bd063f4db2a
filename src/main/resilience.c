/* What the settings say of breakers, retries, fallback and balancing, over what each part has of its own. */
#include "main/main.h"

#include <stdio.h>

#include "base/log.h"
#include "cache/redis/redis.h"
#include "store/postgres/postgres.h"

#define INSTANCES "resilience4j.circuitbreaker.instances"

static int64_t of(const struct conf *c, const char *instance, const char *key, int64_t own)
{
    char path[256];
    snprintf(path, sizeof path, INSTANCES ".%s.%s", instance, key);
    return conf_tree_number(c, path, own);
}

struct breaker_config main_breaker(const struct conf *c, const char *instance, struct breaker_config own)
{
    own.window = (enum breaker_window)of(c, instance, "slidingWindowType", own.window);
    own.window_size = (unsigned)of(c, instance, "slidingWindowSize", own.window_size);
    own.minimum_calls = (unsigned)of(c, instance, "minimumNumberOfCalls", own.minimum_calls);
    own.failure_rate = (unsigned)of(c, instance, "failureRateThreshold", own.failure_rate);
    own.slow_rate = (unsigned)of(c, instance, "slowCallRateThreshold", own.slow_rate);
    own.slow_call_us = of(c, instance, "slowCallDurationThreshold", own.slow_call_us);
    own.wait_open_us = of(c, instance, "waitDurationInOpenState", own.wait_open_us);
    own.half_open_calls = (unsigned)of(c, instance, "permittedNumberOfCallsInHalfOpenState", own.half_open_calls);
    own.lease_us = of(c, instance, "permitLease", own.lease_us);
    return own;
}

struct retry_config main_retry(const struct conf *c, struct retry_config own)
{
    own.max_attempts = (unsigned)conf_tree_number(c, "retry.maxAttempts", own.max_attempts);
    own.backoff_us = conf_tree_number(c, "retry.backoffPeriod", own.backoff_us);
    own.multiplier = (double)conf_tree_number(c, "retry.backoffMultiplier", (int64_t)(own.multiplier * 1000)) / 1000;
    own.max_backoff_us = conf_tree_number(c, "retry.maxBackoffPeriod", own.max_backoff_us);
    own.jitter = (unsigned)conf_tree_number(c, "retry.jitter", own.jitter);
    own.deadline_us = conf_tree_number(c, "retry.deadline", own.deadline_us);
    own.budget_percent = (unsigned)conf_tree_number(c, "retry.budgetPercent", own.budget_percent);
    own.budget_least = (unsigned)conf_tree_number(c, "retry.budgetLeast", own.budget_least);
    if (own.max_backoff_us < own.backoff_us && !conf_tree(c, "retry.maxBackoffPeriod"))
        own.max_backoff_us = own.backoff_us;
    if (own.backoff_us > own.max_backoff_us && !conf_tree(c, "retry.backoffPeriod"))
        own.backoff_us = own.max_backoff_us;
    return own;
}

struct fallback_config main_fallback(const struct conf *c)
{
    struct fallback_config own = fallback_defaults();
    const char *text = conf_tree(c, "fallback.defaultResponse");
    own.should_cache = conf_tree_number(c, "fallback.shouldCache", own.should_cache);
    own.cache_timeout_us = conf_tree_number(c, "fallback.cacheTimeout", own.cache_timeout_us);
    own.max_entries = (unsigned)conf_tree_number(c, "fallback.maxEntries", own.max_entries);
    own.max_bytes = (size_t)conf_tree_number(c, "fallback.maxBytes", (int64_t)own.max_bytes);
    if (text)
        own.default_response = str_c(text);
    return own;
}

enum balancer_algorithm main_algorithm(const struct conf *c)
{
    bool set = c->values[CONF_LB_ALGORITHM].source != CONF_DEFAULT;
    return (enum balancer_algorithm)(set ? c->lb_algorithm
                                         : conf_tree_number(c, "load_balancer.algorithm", BALANCER_ROUND_ROBIN));
}

/* ---- whether they fit ---- */

static bool fits(const char *part, const char *fault, char why[256])
{
    if (fault)
        snprintf(why, 256, "%.80s: %.150s", part, fault);
    return !fault;
}

/* Of the gateway: its routes', or for those that have none of their own. */
static bool is_gateways(const char *name)
{
    static const char *const names[] = {"api", "batch", "pages", "identity", "event", "booking", "default"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static bool breakers_fit(const struct conf *c, char why[256])
{
    const struct {
        const char *name;
        struct breaker_config own;
    } known[] = {{"database", store_postgres_breaker()},
                 {"replica", store_postgres_breaker()},
                 {"redis", cache_redis_breaker()}};
    char name[CONF_TREE_NAME];
    size_t pos = 0;
    while (conf_tree_child(c, INSTANCES, &pos, name)) {
        struct breaker_config b = breaker_defaults();
        bool found = is_gateways(name);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            if (strcmp(known[i].name, name) == 0) {
                found = true;
                b = known[i].own;
            }
        }
        if (!found) /* a file may be shared with other programs, as the names in it are free */
            log_msg(LOG_WARN, "nothing here uses this breaker", LOG_S("instance", name));
        b = main_breaker(c, name, b);
        if (!fits(name, breaker_fault(&b), why))
            return false;
    }
    return true;
}

bool main_resilience_fits(const struct conf *c, char why[256])
{
    struct retry_config r = main_retry(c, store_postgres_retry(3));
    struct fallback_config f = main_fallback(c);
    return breakers_fit(c, why) && fits("retry", retry_fault(&r), why) && fits("fallback", fallback_fault(&f), why);
}
