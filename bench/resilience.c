/*
 * What retry, breaker and balancer add to a call, in ns: the bare call beside the call inside all three, in turns, the
 * medians of nine rounds; alone and with a second thread on the same objects. Prints the row of a table; exits 1 if the
 * addition is over 1 µs in either.
 *
 *     meson setup b -Dbuildtype=release -Doptimization=2 && meson test -C b --benchmark resilience --verbose
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "resilience/balancer.h"
#include "resilience/breaker.h"
#include "resilience/retry.h"

enum { ROUNDS = 9, CALLS = 300000, BACKENDS = 3 };

struct setting {
    struct retry retry;
    struct breaker *breaker;
    struct balancer *balancer;
    _Atomic bool over;
};

static __attribute__((noinline)) int empty(int i)
{
    __asm__ volatile("" : "+r"(i));
    return i;
}

/* As a caller does it: the clock is read before and after, which the bare call does as well. */
static void bare(void)
{
    const struct clock *clock = clock_system();
    int64_t took = clock_mono(clock);

    empty(1);
    took = clock_mono(clock) - took;
    __asm__ volatile("" : : "r"(took));
}

static bool guarded(struct setting *s, uint64_t random)
{
    const struct clock *clock = clock_system();
    int64_t now = clock_mono(clock);
    struct retry_call call;
    struct breaker_permit permit;
    struct balancer_lease lease;
    bool ok;

    retry_begin(&s->retry, &call, true, now);
    ok = breaker_try(s->breaker, now, &permit) &&
         balancer_pick(s->balancer, STR_NONE, NULL, random, now, &lease) == BALANCER_PICKED;
    if (ok) {
        empty(1);
        now = clock_mono(clock);
        balancer_release(s->balancer, &lease, BALANCER_SUCCESS, now);
        breaker_done(s->breaker, &permit, BREAKER_SUCCESS, now);
        ok = !retry_next(&call, RETRY_SUCCESS, 0, random, now).again;
    }
    retry_end(&call);
    return ok;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof *v, by_value);
    return v[ROUNDS / 2];
}

static double ns_per_call(int64_t from_us)
{
    return (double)(clock_mono(clock_system()) - from_us) * 1000 / CALLS;
}

/* ns that all three add to a call; *ret_bare: the bare call. < 0: a call was refused. */
static double added(struct setting *s, double *ret_bare)
{
    double bares[ROUNDS], guardeds[ROUNDS];

    for (int r = 0; r < ROUNDS; r++) {
        int64_t from = clock_mono(clock_system());
        for (int i = 0; i < CALLS; i++)
            bare();
        bares[r] = ns_per_call(from);
        from = clock_mono(clock_system());
        for (int i = 0; i < CALLS; i++)
            if (!guarded(s, (uint64_t)i * 0x9e3779b97f4a7c15u))
                return -1;
        guardeds[r] = ns_per_call(from);
    }
    *ret_bare = median(bares);
    return median(guardeds) - *ret_bare;
}

static void *second_thread(void *ctx)
{
    struct setting *s = ctx;

    for (uint64_t i = 0; !atomic_load_explicit(&s->over, memory_order_relaxed); i++)
        guarded(s, i);
    return NULL;
}

static bool set_up(struct setting *s, enum balancer_algorithm algorithm)
{
    static const char *const names[BACKENDS] = {"primary", "replica-1", "replica-2"};
    struct balancer_config balancer = balancer_defaults();
    const struct retry_config retry = retry_defaults();
    const struct breaker_config breaker = breaker_defaults();
    const int64_t now = clock_mono(clock_system());

    balancer.algorithm = algorithm;
    s->breaker = breaker_new(&breaker, now);
    s->balancer = balancer_new(&balancer, now);
    atomic_init(&s->over, false);
    if (!s->breaker || !s->balancer || !retry_init(&s->retry, &retry))
        return false;
    for (unsigned i = 0; i < BACKENDS; i++)
        if (!balancer_add(s->balancer, &(struct balancer_backend){.name = str_c(names[i]), .weight = i + 1}, now))
            return false;
    return true;
}

static bool measure(enum balancer_algorithm algorithm, const char *name)
{
    struct setting s = {0};
    pthread_t t;
    double bare_ns = 0, ns = -1, shared_ns = -1, unused;

    if (set_up(&s, algorithm)) {
        ns = added(&s, &bare_ns);
        if (pthread_create(&t, NULL, second_thread, &s) == 0) {
            shared_ns = added(&s, &unused);
            atomic_store(&s.over, true);
            pthread_join(t, NULL);
        }
    }
    balancer_free(s.balancer);
    breaker_free(s.breaker);
    const bool reached = ns >= 0 && ns <= 1000 && shared_ns >= 0 && shared_ns <= 1000;
    printf("| breaker + retry + balancer (%s, %d backends), added to a call, ns | %.0f; %.0f beside a second thread | "
           "%.0f | ≤ 1,000 | %s |\n",
           name, BACKENDS, ns, shared_ns, bare_ns, reached ? "reached" : "**missed**");
    return reached;
}

int main(void)
{
    bool ok = true;

    puts("| work | added | the bare call | to reach | |\n|---|---|---|---|---|");
    ok &= measure(BALANCER_ROUND_ROBIN, "round robin");
    ok &= measure(BALANCER_LEAST_CONNECTIONS, "least connections");
    ok &= measure(BALANCER_RANDOM, "random");
    return ok ? 0 : 1;
}
