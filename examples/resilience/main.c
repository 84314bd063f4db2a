/*
 * The parts of src/resilience/ together, around a call to one of three made-up servers: retry outside, the breaker and
 * the balancer inside, the fallback behind, the health registry beside. The time is made up too, so that it runs at
 * once and says the same each time. Exits 0 if it all went as the comments say.
 *
 *     cc -std=gnu17 -D_GNU_SOURCE -Isrc examples/resilience/main.c src/resilience/[a-z]*.c src/base/[a-z]*.c -pthread
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "resilience/balancer.h"
#include "resilience/breaker.h"
#include "resilience/fallback.h"
#include "resilience/health.h"
#include "resilience/retry.h"

struct server {
    const char *name;
    bool works;
};

struct client {
    struct balancer *balancer;
    struct breaker *breaker;
    struct fallback *fallback;
    struct retry retry;
    int64_t now_us; /* of a monotonic clock, in a real program: clock_gettime(CLOCK_MONOTONIC) */
};

/* The real work. It takes 2 ms. */
static bool call(struct client *c, const struct server *s)
{
    c->now_us += 2000;
    return s->works;
}

/* One attempt: the breaker is asked, then the balancer; both hear how it went. */
static enum retry_outcome attempt(struct client *c)
{
    struct breaker_permit permit;
    struct balancer_lease lease;
    bool ok;

    if (!breaker_try(c->breaker, c->now_us, &permit))
        return RETRY_REJECTED;
    if (balancer_pick(c->balancer, STR_NONE, NULL, (uint64_t)random(), c->now_us, &lease) != BALANCER_PICKED) {
        balancer_release(c->balancer, &lease, BALANCER_IGNORED, c->now_us); /* a program with threads would wait */
        breaker_done(c->breaker, &permit, BREAKER_IGNORED, c->now_us);
        return RETRY_REJECTED;
    }
    ok = call(c, lease.data);
    balancer_release(c->balancer, &lease, ok ? BALANCER_SUCCESS : BALANCER_FAILURE, c->now_us);
    breaker_done(c->breaker, &permit, ok ? BREAKER_SUCCESS : BREAKER_FAILURE, c->now_us);
    return ok ? RETRY_SUCCESS : RETRY_FAILURE;
}

/* A read: tried again while that may help, then answered from what is known. */
static enum fallback_source get(struct client *c, struct buf *ret)
{
    const struct str who = STR("ada"), what = STR("GET /balance");
    enum fallback_source from = FALLBACK_NONE;
    struct retry_verdict v = {0};
    struct retry_call r;
    enum retry_outcome outcome;
    int64_t age_us = 0;

    retry_begin(&c->retry, &r, true, c->now_us);
    do {
        c->now_us += v.wait_us; /* a real program sleeps, or comes back later */
        outcome = attempt(c);
        v = retry_next(&r, outcome, 0, (uint64_t)random() << 33, c->now_us);
    } while (v.again);
    buf_clear(ret);
    if (outcome == RETRY_SUCCESS) {
        buf_puts(ret, "100.50");
        fallback_keep(c->fallback, FALLBACK_READ, who, what, buf_as_str(ret), c->now_us);
    } else {
        from = fallback_get(c->fallback, FALLBACK_READ, who, what, c->now_us, ret, &age_us);
    }
    printf("%8.3f s  %-8.*s %s, %u attempts, %.3f s old\n", (double)c->now_us / 1e6, (int)ret->n, ret->p,
           outcome == RETRY_SUCCESS ? "live"
           : from == FALLBACK_STALE ? "stale"
                                    : "default",
           r.attempt, (double)age_us / 1e6);
    retry_end(&r);
    return from;
}

static void tell(void *ctx, enum breaker_state from, enum breaker_state to, int64_t at_us)
{
    (void)ctx;
    printf("%8.3f s  breaker: %s -> %s\n", (double)at_us / 1e6, breaker_state_name(from), breaker_state_name(to));
}

static bool set_up(struct client *c, struct server servers[3])
{
    struct breaker_config breaker = breaker_defaults();
    struct balancer_config balancer = balancer_defaults();
    struct fallback_config fallback = fallback_defaults();
    struct retry_config retry = retry_defaults();

    breaker.window_size = breaker.minimum_calls = 6;
    breaker.wait_open_us = 5000000;
    breaker.half_open_calls = 2;
    breaker.on_transition = tell;
    balancer.eject_after = 2;
    fallback.cache_timeout_us = 3000000;
    fallback.default_response = STR("unknown");
    c->breaker = breaker_new(&breaker, c->now_us);
    c->balancer = balancer_new(&balancer, c->now_us);
    c->fallback = fallback_new(&fallback);
    if (!c->breaker || !c->balancer || !c->fallback || !retry_init(&c->retry, &retry))
        return false;
    for (int i = 0; i < 3; i++)
        if (!balancer_add(c->balancer,
                          &(struct balancer_backend){.name = str_c(servers[i].name), .weight = 1, .data = &servers[i]},
                          c->now_us))
            return false;
    return true;
}

/* The checks that are due, asked and reported. */
static enum health_status health(struct health *h, const struct server *s, int64_t now_us)
{
    struct health_run run;
    struct health_overall o;

    while (health_due(h, now_us, &run, 1))
        health_report(h, &run, s->works ? HEALTH_UP : HEALTH_DOWN, STR("{\"via\":\"example\"}"), now_us);
    health_read(h, now_us, &o);
    printf("%8.3f s  health: %s\n", (double)now_us / 1e6, health_status_name(o.status));
    return o.status;
}

static bool story(struct client *c, struct server servers[3], struct health *h, struct buf *out)
{
    bool ok = true;

    ok &= health(h, &servers[0], c->now_us) == HEALTH_UP;
    for (int i = 0; i < 6; i++) /* one server fails: its calls are tried again on others, then it is ejected */
        ok &= get(c, out) == FALLBACK_NONE;
    for (int i = 0; i < 3; i++)
        servers[i].works = false;
    for (int i = 0; i < 3; i++) /* all fail: the last good answer, and the breaker opens */
        ok &= get(c, out) == FALLBACK_STALE;
    c->now_us += 3500000; /* too old */
    ok &= get(c, out) == FALLBACK_DEFAULT;
    ok &= health(h, &servers[0], c->now_us + 10000000) == HEALTH_DOWN;
    for (int i = 0; i < 3; i++)
        servers[i].works = true;
    c->now_us += 5000000; /* half-open; two good calls close it */
    for (int i = 0; i < 3; i++)
        ok &= get(c, out) == FALLBACK_NONE;
    return ok;
}

int main(void)
{
    struct server servers[3] = {{"db1", true}, {"db2", false}, {"db3", true}};
    struct client c = {.now_us = 0};
    struct health *h = health_new();
    struct buf out;
    bool ok;

    buf_init(&out, 0);
    ok = h && set_up(&c, servers) && health_add(h, &(struct health_check){STR("db1"), true, 10000000, 1000000}) >= 0 &&
         story(&c, servers, h, &out);
    puts(ok ? "as it should be" : "NOT as it should be");
    buf_free(&out);
    health_free(h);
    fallback_free(c.fallback);
    balancer_free(c.balancer);
    breaker_free(c.breaker);
    return ok ? 0 : 1;
}
