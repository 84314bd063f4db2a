/* Threads on one breaker, one balancer, one retry policy, one fallback and one registry: their bounds hold, their sums
 * come out. Runs under ThreadSanitizer too. */
#include "fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "resilience/balancer.h"
#include "resilience/breaker.h"
#include "resilience/fallback.h"
#include "resilience/health.h"
#include "resilience/retry.h"

enum { THREADS = 4, CALLS = 4000, PERMITTED = 3, PLACES = 2 };

struct shared {
    struct breaker *breaker;
    struct balancer *balancer;
    struct fallback *fallback;
    struct health *health;
    struct retry retry;
    _Atomic unsigned seed, in[2], broken, permitted, picks;
};

static int64_t now(void)
{
    return clock_mono(clock_system());
}

static uint64_t next(uint64_t *x)
{
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return *x >> 33;
}

/* Never more than PLACES at once on a backend. */
static void use_backend(struct shared *s, uint64_t *x)
{
    struct balancer_lease l;
    enum balancer_answer a = balancer_pick(s->balancer, STR_NONE, NULL, *x, now(), &l);
    atomic_uint *in;

    for (int i = 0; a == BALANCER_QUEUED && i < 10; i++)
        a = balancer_poll(s->balancer, &l, now());
    if (a == BALANCER_PICKED) {
        in = l.data;
        if (atomic_fetch_add(in, 1) >= PLACES)
            atomic_fetch_add(&s->broken, 1);
        atomic_fetch_add(&s->picks, 1);
        atomic_fetch_sub(in, 1);
    }
    balancer_release(s->balancer, &l, next(x) % 4 ? BALANCER_SUCCESS : BALANCER_FAILURE, now());
}

static void use_rest(struct shared *s, uint64_t *x)
{
    struct buf out;
    struct health_run run;
    int64_t age;
    const char who = (char)('a' + next(x) % 8);

    buf_init(&out, 0);
    fallback_keep(s->fallback, FALLBACK_READ, (struct str){&who, 1}, STR("r"), (struct str){&who, 1}, now());
    if (fallback_get(s->fallback, FALLBACK_READ, (struct str){&who, 1}, STR("r"), now(), &out, &age) ==
            FALLBACK_STALE &&
        (out.n != 1 || out.p[0] != who))
        atomic_fetch_add(&s->broken, 1);
    buf_free(&out);
    while (health_due(s->health, now(), &run, 1))
        health_report(s->health, &run, next(x) % 3, STR("{}"), now());
}

static void *work(void *ctx)
{
    struct shared *s = ctx;
    uint64_t x = atomic_fetch_add(&s->seed, 1);

    for (int i = 0; i < CALLS; i++) {
        struct breaker_permit p;
        struct retry_call call;
        struct retry_verdict v;
        retry_begin(&s->retry, &call, true, now());
        do {
            const bool ok = breaker_try(s->breaker, now(), &p);
            if (ok) {
                atomic_fetch_add(&s->permitted, 1);
                use_backend(s, &x);
                breaker_done(s->breaker, &p, next(&x) % 4 ? BREAKER_SUCCESS : BREAKER_FAILURE, now());
            }
            v = retry_next(&call, ok && next(&x) % 2 ? RETRY_FAILURE : RETRY_SUCCESS, 0, x, now());
            struct retry_figures f;
            retry_read(&s->retry, &f);
            if (f.retries_live > 1) /* of four calls at most, and at least 1 */
                atomic_fetch_add(&s->broken, 1);
        } while (v.again);
        retry_end(&call);
        use_rest(s, &x);
    }
    return NULL;
}

/* Opens and half-opens the breaker, changes the set of backends, looks. */
static void stir(struct shared *s)
{
    static _Atomic unsigned extra;

    for (int i = 0; i < 300; i++) {
        struct breaker_figures f;
        struct balancer_figures g;
        struct balancer_backend_figures list[3];
        breaker_force(s->breaker, i % 3 ? BREAKER_HALF_OPEN : BREAKER_CLOSED, now());
        const uint64_t id = balancer_add(
            s->balancer, &(struct balancer_backend){STR("extra"), 1 + (unsigned)i % 3, PLACES, &extra}, now());
        breaker_read(s->breaker, now(), &f);
        balancer_read(s->balancer, now(), &g, list, 3);
        for (unsigned k = 0; k < g.backends && k < 3; k++)
            if (list[k].active > PLACES)
                atomic_fetch_add(&s->broken, 1);
        if (f.state == BREAKER_HALF_OPEN && f.permits_out + f.calls > PERMITTED)
            atomic_fetch_add(&s->broken, 1);
        sched_yield();
        balancer_drain(s->balancer, id, true, now());
        /* its leases must be back before the next one of its name may fill its places */
        for (bool out = true; out;) {
            balancer_read(s->balancer, now(), &g, list, 3);
            out = list[2].active > 0;
        }
        balancer_remove(s->balancer, id, now());
    }
}

static void set_up(struct shared *s)
{
    struct breaker_config breaker = breaker_defaults();
    struct balancer_config balancer = balancer_defaults();
    struct retry_config retry = retry_defaults();
    struct fallback_config fallback = fallback_defaults();

    breaker.half_open_calls = PERMITTED;
    breaker.wait_open_us = 100;
    balancer.max_queue = 2;
    balancer.eject_after = 3;
    balancer.eject_us = 200;
    balancer.eject_max_us = 1000;
    retry.budget_least = 1;
    retry.budget_percent = 10;
    fallback.max_entries = 4;
    s->breaker = breaker_new(&breaker, now());
    s->balancer = balancer_new(&balancer, now());
    s->fallback = fallback_new(&fallback);
    s->health = health_new();
    assert_true(s->breaker && s->balancer && s->fallback && s->health && retry_init(&s->retry, &retry));
    for (unsigned i = 0; i < 2; i++)
        assert_int_not_equal(balancer_add(s->balancer,
                                          &(struct balancer_backend){i ? STR("b") : STR("a"), i + 1, PLACES, &s->in[i]},
                                          now()),
                             0);
    assert_true(health_add(s->health, &(struct health_check){STR("x"), true, 50, 1000}) >= 0);
}

static void bounds_hold_among_threads(void **state)
{
    static struct shared s;
    pthread_t t[THREADS];
    struct breaker_figures f;
    struct balancer_figures g;
    struct retry_figures r;

    (void)state;
    set_up(&s);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, work, &s), 0);
    stir(&s);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);

    assert_int_equal(atomic_load(&s.broken), 0);
    breaker_read(s.breaker, now(), &f);
    assert_int_equal(f.total_permitted, atomic_load(&s.permitted));
    assert_int_equal(f.total_successes + f.total_failures + f.total_ignored + f.total_stale, f.total_permitted);
    balancer_read(s.balancer, now(), &g, NULL, 0);
    assert_int_equal(g.active, 0);
    assert_int_equal(g.queued, 0);
    assert_true(g.picks >= atomic_load(&s.picks) && atomic_load(&s.picks) > 0);
    retry_read(&s.retry, &r);
    assert_int_equal(r.calls_live, 0);
    assert_int_equal(r.retries_live, 0);
    assert_true(r.retries > 0);
    breaker_free(s.breaker);
    balancer_free(s.balancer);
    fallback_free(s.fallback);
    health_free(s.health);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_hold_among_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
