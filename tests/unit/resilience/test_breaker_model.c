/* The breaker against a model that keeps every call it has ever seen and judges by looking through them: on random
 * traces, and on all short sequences of events from half-open.
 *
 *     test_breaker_model [TRACES]      100,000 by default */
#include "fixture.h"

#include "clocks.h"
#include "resilience/breaker.h"

enum { CALLS_MAX = 128, STEP = 250 * MS, LONGEST = 8 };

static long traces = 100000;

/* ---- the model ---- */

enum fate { OUT, GOOD, BAD, LET_GO, LOST, DROPPED };

struct call {
    enum fate fate;
    unsigned period; /* of the state it began in */
    int64_t began, ended;
    unsigned nth; /* of all that ended */
    bool slow;
    struct breaker_permit permit; /* what the breaker gave */
    bool held;                    /* the caller still has it */
};

struct model {
    struct breaker_config c;
    enum breaker_state state;
    unsigned period;
    int64_t now, since;
    struct call calls[CALLS_MAX];
    unsigned n, ended;
    uint64_t rejected, stale, lost;
    /* the closed state's verdict is kept for show until the next closed state */
    unsigned judged_period;
    int64_t judged_at;
};

static void model_go(struct model *m, enum breaker_state to, int64_t at)
{
    if (m->state == BREAKER_CLOSED)
        m->judged_at = at;
    m->state = to;
    m->since = at;
    m->period++;
    if (to == BREAKER_CLOSED)
        m->judged_period = m->period;
}

struct sums {
    unsigned calls, bad, slow, out;
};

/* The calls of a period that count for its window as seen at a time. */
static struct sums model_window(const struct model *m, unsigned period, int64_t at)
{
    struct sums s = {0};

    for (const struct call *k = m->calls; k < m->calls + m->n; k++) {
        unsigned later = 0;
        if (k->period != period || (k->fate != GOOD && k->fate != BAD))
            continue;
        for (const struct call *o = m->calls; o < m->calls + m->n; o++)
            later += o->period == period && (o->fate == GOOD || o->fate == BAD) && o->nth > k->nth;
        if (m->c.window == BREAKER_COUNT_BASED ? later >= m->c.window_size
                                               : k->ended / SECOND <= at / SECOND - (int64_t)m->c.window_size)
            continue;
        s.calls++;
        s.bad += k->fate == BAD;
        s.slow += k->slow;
    }
    return s;
}

static struct sums model_probes(const struct model *m)
{
    struct sums s = {0};

    for (unsigned i = 0; i < m->n; i++) {
        const struct call *k = &m->calls[i];
        if (k->period != m->period)
            continue;
        s.calls += k->fate == GOOD || k->fate == BAD || k->fate == LOST;
        s.bad += k->fate == BAD || k->fate == LOST;
        s.slow += k->slow && (k->fate == GOOD || k->fate == BAD);
        s.out += k->fate == OUT;
    }
    return s;
}

static bool model_over(const struct model *m, struct sums s, unsigned of)
{
    return 100.0 * s.bad / of >= m->c.failure_rate || 100.0 * s.slow / of >= m->c.slow_rate;
}

static void model_judge_probes(struct model *m, int64_t at)
{
    const struct sums s = model_probes(m);

    if (model_over(m, s, m->c.half_open_calls))
        model_go(m, BREAKER_OPEN, at);
    else if (s.calls == m->c.half_open_calls)
        model_go(m, BREAKER_CLOSED, at);
}

static void model_time(struct model *m, int64_t now)
{
    if (now > m->now)
        m->now = now;
    for (bool again = true; again;) {
        again = false;
        if (m->state == BREAKER_OPEN && m->since + m->c.wait_open_us <= m->now) {
            model_go(m, BREAKER_HALF_OPEN, m->since + m->c.wait_open_us);
            again = true;
        }
        /* calls are in order of their beginning, so the first that is out is the first whose lease ends */
        for (unsigned i = 0; i < m->n && m->state == BREAKER_HALF_OPEN && !again; i++) {
            struct call *k = &m->calls[i];
            if (k->period != m->period || k->fate != OUT || k->began + m->c.lease_us > m->now)
                continue;
            k->fate = LOST;
            m->lost++;
            model_judge_probes(m, k->began + m->c.lease_us);
            again = true;
        }
    }
}

static bool model_try(struct model *m, int64_t now)
{
    bool ok;

    model_time(m, now);
    const struct sums s = model_probes(m);
    ok = m->state == BREAKER_CLOSED || m->state == BREAKER_DISABLED ||
         (m->state == BREAKER_HALF_OPEN && s.calls + s.out < m->c.half_open_calls);
    if (ok)
        m->calls[m->n++] = (struct call){.period = m->period, .began = m->now, .held = true};
    else
        m->rejected++;
    return ok;
}

static void model_done(struct model *m, struct call *k, enum breaker_result r, int64_t now)
{
    static const enum fate fates[] = {[BREAKER_SUCCESS] = GOOD, [BREAKER_FAILURE] = BAD, [BREAKER_IGNORED] = LET_GO};

    model_time(m, now);
    k->held = false;
    if (k->period != m->period || k->fate != OUT) {
        m->stale++;
        if (k->fate == OUT)
            k->fate = DROPPED;
        return;
    }
    k->fate = fates[r];
    k->ended = m->now;
    k->nth = ++m->ended;
    k->slow = r != BREAKER_IGNORED && m->now - k->began > m->c.slow_call_us;
    if (r == BREAKER_IGNORED)
        return;
    if (m->state == BREAKER_HALF_OPEN) {
        model_judge_probes(m, m->now);
    } else if (m->state == BREAKER_CLOSED) {
        const struct sums s = model_window(m, m->period, m->now);
        const unsigned most = m->c.window == BREAKER_COUNT_BASED ? m->c.window_size : UINT32_MAX;
        if (s.calls >= (m->c.minimum_calls < most ? m->c.minimum_calls : most) && model_over(m, s, s.calls))
            model_go(m, BREAKER_OPEN, m->now);
    }
}

/* ---- both ---- */

static unsigned transitions_seen;

static void seen(void *ctx, enum breaker_state from, enum breaker_state to, int64_t at_us)
{
    (void)ctx;
    (void)at_us;
    assert_int_not_equal(from, to);
    transitions_seen++;
}

static struct sums model_shown(const struct model *m)
{
    if (m->state == BREAKER_HALF_OPEN)
        return model_probes(m);
    return model_window(m, m->judged_period, m->state == BREAKER_CLOSED ? m->now : m->judged_at);
}

static void compare(struct model *m, struct breaker *b, int64_t now)
{
    struct breaker_figures f;
    uint64_t good = 0, bad = 0, let_go = 0;

    model_time(m, now);
    breaker_read(b, now, &f);
    const struct sums s = model_shown(m);
    assert_int_equal(f.state, m->state);
    assert_int_equal(f.changed_us, m->since);
    assert_int_equal(f.calls, s.calls);
    assert_int_equal(f.failures, s.bad);
    assert_int_equal(f.slow, s.slow);
    assert_int_equal(f.permits_out, m->state == BREAKER_HALF_OPEN ? model_probes(m).out : 0);
    assert_int_equal(f.total_permitted, m->n);
    assert_int_equal(f.total_rejected, m->rejected);
    assert_int_equal(f.total_stale, m->stale);
    assert_int_equal(f.total_lost, m->lost);
    for (unsigned i = 0; i < m->n; i++) {
        good += m->calls[i].fate == GOOD;
        bad += m->calls[i].fate == BAD;
        let_go += m->calls[i].fate == LET_GO;
    }
    assert_int_equal(f.total_successes, good);
    assert_int_equal(f.total_failures, bad);
    assert_int_equal(f.total_ignored, let_go);
}

/* The most that the contract allows: of one half-open period, calls that are out, lost or have counted. */
static void within_permitted(const struct model *m)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->n; i++)
        n += m->calls[i].period == m->period && m->calls[i].fate != LET_GO;
    if (m->state == BREAKER_HALF_OPEN)
        assert_true(n <= m->c.half_open_calls);
}

static void both_try(struct model *m, struct breaker *b, int64_t now)
{
    struct breaker_permit p;
    const bool want = model_try(m, now);

    assert_int_equal(breaker_try(b, now, &p), want);
    if (want)
        m->calls[m->n - 1].permit = p;
    else
        assert_true(p.generation == 0 && p.retry_in_us >= 0);
    within_permitted(m);
}

static void both_done(struct model *m, struct breaker *b, struct call *k, enum breaker_result r, int64_t now)
{
    struct breaker_permit p = k->permit;

    model_done(m, k, r, now);
    assert_int_equal(breaker_done(b, &p, r, now), m->state);
    assert_int_equal(p.generation, 0);
}

/* Whoever never gives back any permit cannot keep the breaker shut. */
static void not_stuck(struct model *m, struct breaker *b, int64_t now)
{
    struct breaker_permit p;

    if (m->state == BREAKER_FORCED_OPEN)
        return;
    assert_true(breaker_try(b, now + m->c.lease_us + m->c.wait_open_us, &p));
}

static struct call *held(struct model *m, unsigned nth)
{
    for (unsigned i = 0; i < m->n; i++)
        if (m->calls[i].held && nth-- == 0)
            return &m->calls[i];
    return NULL;
}

static unsigned n_held(const struct model *m)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->n; i++)
        n += m->calls[i].held;
    return n;
}

/* ---- random traces ---- */

static struct breaker_config random_config(struct prng *r)
{
    static const unsigned rates[] = {1, 25, 34, 50, 67, 100};
    struct breaker_config c = breaker_defaults();

    c.window = prng_below(r, 2) ? BREAKER_TIME_BASED : BREAKER_COUNT_BASED;
    c.window_size = 1 + prng_below(r, 5);
    c.minimum_calls = 1 + prng_below(r, 6);
    c.failure_rate = rates[prng_below(r, 6)];
    c.slow_rate = rates[prng_below(r, 6)];
    c.slow_call_us = prng_below(r, 5) * STEP;
    c.wait_open_us = prng_below(r, 6) * STEP;
    c.half_open_calls = 1 + prng_below(r, 4);
    c.lease_us = (1 + prng_below(r, 8)) * STEP;
    c.on_transition = seen;
    return c;
}

/* Time passes, or seems to go back as it does for a thread that read the clock before another. Somebody may look at
 * the breaker, but not at the model, on the way. */
static int64_t pass(struct prng *r, struct breaker *b, int64_t now)
{
    static const int64_t steps[] = {0, 0, 1, STEP, STEP, 2 * STEP, 4 * STEP, -STEP, 10 * SECOND};
    const int64_t d = steps[prng_below(r, sizeof steps / sizeof *steps)];
    struct breaker_figures f;

    if (now + d < 0)
        return now;
    if (d > 1 && prng_below(r, 4) == 0)
        breaker_read(b, now + d / 2, &f);
    return now + d;
}

/* false: the breaker has not seen this time. */
static bool step(struct prng *r, struct model *m, struct breaker *b, int64_t now)
{
    const unsigned what = prng_below(r, 100);
    struct call *k = n_held(m) ? held(m, prng_below(r, n_held(m))) : NULL;

    if (what < 45) {
        both_try(m, b, now);
    } else if (what < 92 && k) {
        both_done(m, b, k, what < 65 ? BREAKER_SUCCESS : what < 85 ? BREAKER_FAILURE : BREAKER_IGNORED, now);
    } else if (what < 96 && k) {
        k->held = false; /* its caller has died */
        return false;
    } else if (what == 99) {
        const enum breaker_state to = prng_below(r, 5);
        model_time(m, now);
        model_go(m, to, m->now);
        breaker_force(b, to, now);
    } else {
        return false;
    }
    return true;
}

static void random_traces(void **state)
{
    struct prng r = prng_seeded("breaker");

    (void)state;
    for (long t = 0; t < traces; t++) {
        struct model m = {.c = random_config(&r), .period = 1, .judged_period = 1};
        int64_t now = prng_below(&r, 3) * (int64_t)SECOND + prng_below(&r, 2) * HOUR;
        struct breaker *b = breaker_new(&m.c, now);
        const unsigned steps = 10 + prng_below(&r, 30);
        m.now = m.since = now;
        assert_non_null(b);
        for (unsigned i = 0; i < steps; i++) {
            now = pass(&r, b, now);
            if (!step(&r, &m, b, now) || prng_below(&r, 3) == 0 || i + 1 == steps)
                compare(&m, b, now);
        }
        not_stuck(&m, b, m.now);
        breaker_free(b);
    }
    assert_true(transitions_seen > (unsigned)traces / 2);
    assert_int_equal(clocks_read, 0);
}

/* ---- all short sequences ---- */

enum event { TRY, OLDEST_GOOD, OLDEST_BAD, NEWEST_GOOD, LET_OLDEST_GO, LOSE_OLDEST, HALF_A_LEASE, WAIT, EVENTS };

static int64_t sequences;

static bool happen(struct model *m, struct breaker *b, enum event e, int64_t *now)
{
    struct call *oldest = held(m, 0), *newest = n_held(m) > 1 ? held(m, n_held(m) - 1) : NULL;

    if ((e >= OLDEST_GOOD && e <= LOSE_OLDEST && !oldest) || (e == NEWEST_GOOD && !newest))
        return false;
    if (e == TRY)
        both_try(m, b, *now);
    else if (e == OLDEST_GOOD || e == OLDEST_BAD)
        both_done(m, b, oldest, e == OLDEST_GOOD ? BREAKER_SUCCESS : BREAKER_FAILURE, *now);
    else if (e == NEWEST_GOOD)
        both_done(m, b, newest, BREAKER_SUCCESS, *now);
    else if (e == LET_OLDEST_GO)
        both_done(m, b, oldest, BREAKER_IGNORED, *now);
    else if (e == LOSE_OLDEST)
        oldest->held = false;
    else
        *now += e == HALF_A_LEASE ? m->c.lease_us / 2 : m->c.wait_open_us;
    return true;
}

/* Plays the sequence from half-open; false: its last event could not happen, so that none that goes on from it can. */
static bool play(const struct breaker_config *c, const enum event *events, unsigned n)
{
    struct model m = {.c = *c, .period = 1, .judged_period = 1};
    struct breaker *b = breaker_new(c, 0);
    int64_t now = 0;
    bool ok = true;

    model_go(&m, BREAKER_HALF_OPEN, 0);
    breaker_force(b, BREAKER_HALF_OPEN, 0);
    for (unsigned i = 0; i < n && ok; i++)
        ok = happen(&m, b, events[i], &now);
    if (ok) {
        compare(&m, b, now);
        not_stuck(&m, b, now);
        sequences++;
    }
    breaker_free(b);
    return ok;
}

static void extend(const struct breaker_config *c, enum event *events, unsigned n, unsigned most)
{
    for (events[n] = 0; events[n] < EVENTS; events[n]++)
        if (play(c, events, n + 1) && n + 1 < most)
            extend(c, events, n + 1, most);
}

static void all_sequences(void **state)
{
    (void)state;
    for (unsigned permitted = 1; permitted <= 3; permitted++) {
        enum event events[LONGEST];
        struct breaker_config c = breaker_defaults();
        c.half_open_calls = permitted;
        c.failure_rate = 50;
        c.window_size = c.minimum_calls = 2;
        c.lease_us = 4 * STEP;
        c.wait_open_us = 3 * STEP;
        extend(&c, events, 0, LONGEST);
    }
    printf("breaker: %lld sequences of up to %d events\n", (long long)sequences, LONGEST);
    assert_true(sequences > 500000);
    assert_int_equal(clocks_read, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_traces),
        cmocka_unit_test(all_sequences),
    };

    if (argc > 1)
        traces = atol(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
