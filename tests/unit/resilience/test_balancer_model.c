/* The balancer against a model that keeps every request in one list and counts anew for each question: on random traces
 * of everything that can happen to it.
 *
 *     test_balancer_model [TRACES]      100,000 by default */
#include "fixture.h"

#include "clocks.h"
#include "resilience/balancer.h"

enum { MEMBERS = 8, REQUESTS = 128, NAMES = 6, STEP = 250 * MS, NOBODY = -1, ANYBODY = -1 };

static long traces = 100000;
static unsigned saw_panic, saw_ejected, saw_slow, saw_queued, saw_stuck, saw_lost, saw_over;

/* ---- the model ---- */

struct one {
    bool there;
    uint64_t id;
    char name[8], cookie[BALANCER_COOKIE_MAX];
    unsigned weight, max, failed, times, good, bad, epoch;
    bool down, ejected, draining, in, checking;
    int64_t slow_from, out_until, back, due, check_from;
    struct balancer_check check;
    int64_t earned, paid; /* in this cycle of the round robin */
    uint64_t picks, successes, failures, ignored, stale, lost, ejections;
};

struct request {
    enum { WAITS, LEASED, ENDED } state;
    int with;  /* leased: the member. Waiting: the only one that will do */
    bool held; /* the caller has not given it back */
    unsigned epoch;
    int64_t since;
    unsigned nth; /* of all placings and grants, for those of one moment */
    uint64_t random;
    struct balancer_lease lease;
};

struct model {
    struct balancer_config c;
    int64_t now;
    struct one who[MEMBERS]; /* in order of adding */
    struct request req[REQUESTS];
    unsigned n_req, nth;
    bool panic;
    uint64_t waited, full, none, given_up, timed_out, lost, picks;
};

static unsigned leases_of(const struct model *m, int who)
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->n_req; i++)
        n += m->req[i].state == LEASED && m->req[i].with == who;
    return n;
}

static unsigned waiting_for(const struct model *m, int who)
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->n_req; i++)
        n += m->req[i].state == WAITS && m->req[i].with == who;
    return n;
}

static unsigned waiting(const struct model *m)
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->n_req; i++)
        n += m->req[i].state == WAITS;
    return n;
}

static bool is_in(const struct one *o)
{
    return o->there && !o->down && !o->ejected && !o->draining;
}

static bool reachable(const struct model *m, const struct one *o)
{
    return o->there && (m->panic || (!o->down && !o->ejected));
}

static bool may(const struct model *m, const struct one *o)
{
    return reachable(m, o) && !o->draining && o->weight > 0;
}

static bool has_room(const struct model *m, int i)
{
    return m->who[i].max == 0 || leases_of(m, i) < m->who[i].max;
}

static bool anyone(const struct model *m)
{
    for (int i = 0; i < MEMBERS; i++)
        if (may(m, &m->who[i]))
            return true;
    return false;
}

static int64_t weight_of(const struct model *m, const struct one *o)
{
    int64_t full = 256 * (int64_t)o->weight, part;

    if (o->slow_from < 0)
        return full;
    part = full * (m->now - o->slow_from) / m->c.slow_start_us;
    return part < full / 10 ? full / 10 : part;
}

/* Load per weight if it had one more, to be compared exactly: a fraction. */
struct load {
    int64_t up, down;
};

static struct load load_of(const struct model *m, int i)
{
    return (struct load){(int64_t)leases_of(m, i) + waiting_for(m, i) + 1, weight_of(m, &m->who[i])};
}

static int by_load(struct load a, struct load b)
{
    return a.up * b.down < b.up * a.down ? -1 : a.up * b.down > b.up * a.down;
}

static int model_round_robin(struct model *m, const bool plays[MEMBERS])
{
    int64_t pot = 0;
    int best = NOBODY;

    for (int i = 0; i < MEMBERS; i++)
        if (plays[i])
            m->who[i].earned += weight_of(m, &m->who[i]), pot += weight_of(m, &m->who[i]);
    for (int i = MEMBERS - 1; i >= 0; i--)
        if (plays[i] &&
            (best == NOBODY || m->who[i].earned - m->who[i].paid >= m->who[best].earned - m->who[best].paid))
            best = i;
    if (best != NOBODY)
        m->who[best].paid += pot;
    return best;
}

static int model_draw(const struct model *m, const bool plays[MEMBERS], int but, uint32_t random)
{
    uint64_t pot = 0, at = 0, mark;

    for (int i = 0; i < MEMBERS; i++)
        pot += plays[i] && i != but ? (uint64_t)weight_of(m, &m->who[i]) : 0;
    mark = (uint64_t)((unsigned __int128)pot * random >> 32);
    for (int i = 0; i < MEMBERS; i++) {
        at += plays[i] && i != but ? (uint64_t)weight_of(m, &m->who[i]) : 0;
        if (mark < at)
            return i;
    }
    return NOBODY;
}

static int model_choose(struct model *m, uint64_t random)
{
    bool plays[MEMBERS];
    int n = 0, one, two;

    for (int i = 0; i < MEMBERS; i++)
        n += plays[i] = may(m, &m->who[i]) && has_room(m, i);
    if (n == 0)
        return NOBODY;
    if (m->c.algorithm == BALANCER_ROUND_ROBIN)
        return model_round_robin(m, plays);
    if (m->c.algorithm == BALANCER_RANDOM) {
        one = model_draw(m, plays, NOBODY, (uint32_t)random);
        two = model_draw(m, plays, one, (uint32_t)(random >> 32));
        return two != NOBODY && by_load(load_of(m, two), load_of(m, one)) < 0 ? two : one;
    }
    bool least[MEMBERS];
    for (int i = 0; i < MEMBERS; i++) {
        least[i] = plays[i];
        for (int j = 0; j < MEMBERS && least[i]; j++)
            least[i] = !plays[j] || by_load(load_of(m, i), load_of(m, j)) <= 0;
    }
    return model_round_robin(m, least);
}

static void model_lease(struct model *m, struct request *q, int who)
{
    q->state = LEASED;
    q->with = who;
    q->epoch = m->who[who].epoch;
    q->since = m->now;
    q->nth = m->nth++;
    m->who[who].picks++;
    m->picks++;
}

static void model_serve(struct model *m)
{
    for (struct request *q = m->req; q < m->req + m->n_req; q++) {
        int who;
        if (q->state != WAITS)
            continue;
        if (q->with != ANYBODY && !reachable(m, &m->who[q->with]))
            q->with = ANYBODY;
        if (q->with == ANYBODY && !anyone(m)) {
            q->state = ENDED;
            m->timed_out++;
            continue;
        }
        who = q->with == ANYBODY ? model_choose(m, q->random) : has_room(m, q->with) ? q->with : NOBODY;
        if (who != NOBODY) {
            model_lease(m, q, who);
            m->waited++;
        }
    }
}

static void model_changed(struct model *m)
{
    int n_in = 0, n = 0;

    for (struct one *o = m->who; o < m->who + MEMBERS; o++) {
        if (!o->there)
            continue;
        if (is_in(o) != o->in)
            o->slow_from = is_in(o) && m->c.slow_start_us ? m->now : -1;
        o->in = is_in(o);
        o->earned = o->paid = 0;
        n += !o->draining;
        n_in += o->in;
    }
    m->panic = n_in * 100.0 < (double)m->c.panic * n;
    model_serve(m);
}

static bool model_check_ends(struct model *m, struct one *o, bool ok)
{
    const bool was = o->down;

    o->checking = false;
    o->due = o->check_from + m->c.check_interval_us > m->now ? o->check_from + m->c.check_interval_us : m->now;
    o->good = ok ? o->good + 1 : 0;
    o->bad = ok ? 0 : o->bad + 1;
    if (!was && o->bad >= m->c.unhealthy_threshold)
        o->down = true;
    if (was && o->good >= m->c.healthy_threshold)
        o->down = false;
    if (o->down == was)
        return false;
    o->epoch++;
    o->failed = 0;
    return true;
}

static int64_t first_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t member_next(const struct model *m)
{
    int64_t t = INT64_MAX;

    for (const struct one *o = m->who; o < m->who + MEMBERS; o++) {
        if (!o->there)
            continue;
        t = o->ejected ? first_of(t, o->out_until) : t;
        t = o->slow_from >= 0 ? first_of(t, o->slow_from + m->c.slow_start_us) : t;
        t = o->checking ? first_of(t, o->check_from + m->c.check_timeout_us) : t;
    }
    return t;
}

static void members_happen(struct model *m)
{
    bool changed = false;

    for (struct one *o = m->who; o < m->who + MEMBERS; o++) {
        if (!o->there)
            continue;
        if (o->ejected && o->out_until <= m->now) {
            o->ejected = false, o->back = m->now, o->epoch++, o->failed = 0;
            changed = true;
        }
        if (o->slow_from >= 0 && o->slow_from + m->c.slow_start_us <= m->now) {
            o->slow_from = -1;
            changed = true;
        }
        if (o->checking && o->check_from + m->c.check_timeout_us <= m->now)
            changed |= model_check_ends(m, o, false);
    }
    if (changed)
        model_changed(m);
}

/* The oldest of those that wait or are leased. */
static struct request *oldest(struct model *m, int state)
{
    struct request *first = NULL;

    for (struct request *q = m->req; q < m->req + m->n_req; q++)
        if ((int)q->state == state && (!first || q->nth < first->nth))
            first = q;
    return first;
}

static void model_time(struct model *m, int64_t now)
{
    for (;;) {
        struct request *l = m->c.lease_us ? oldest(m, LEASED) : NULL, *w = oldest(m, WAITS);
        const int64_t at_l = l ? l->since + m->c.lease_us : INT64_MAX;
        const int64_t at_w = w ? w->since + m->c.queue_timeout_us : INT64_MAX, at_m = member_next(m);
        const int64_t at = first_of(at_m, first_of(at_l, at_w));
        if (at > now)
            break;
        m->now = m->now > at ? m->now : at;
        if (at_m == at) {
            members_happen(m);
        } else if (at_l == at) {
            l->state = ENDED;
            m->lost++;
            if (l->with != NOBODY)
                m->who[l->with].lost++;
            model_serve(m);
        } else {
            w->state = ENDED;
            m->timed_out++;
        }
    }
    m->now = m->now > now ? m->now : now;
}

static enum balancer_answer model_pick(struct model *m, int stuck, uint64_t random)
{
    struct request q = {.state = WAITS, .with = ANYBODY, .held = true, .since = m->now, .random = random};
    const bool may_wait = waiting(m) < m->c.max_queue;
    int who = NOBODY;

    if (stuck != NOBODY && !reachable(m, &m->who[stuck]))
        stuck = NOBODY;
    if (stuck != NOBODY && has_room(m, stuck))
        who = stuck;
    else if (stuck != NOBODY && may_wait)
        q.with = stuck;
    else if (stuck == NOBODY && !anyone(m))
        return m->none++, BALANCER_NONE;
    else
        who = model_choose(m, random);
    if (who == NOBODY && !may_wait)
        return m->full++, BALANCER_FULL;
    if (who != NOBODY)
        model_lease(m, &q, who);
    if (who == NOBODY)
        q.nth = m->nth++;
    m->req[m->n_req++] = q;
    return who == NOBODY ? BALANCER_QUEUED : BALANCER_PICKED;
}

static void model_result(struct model *m, struct one *o, unsigned epoch, enum balancer_result r)
{
    unsigned out = 0, all = 0;

    o->successes += r == BALANCER_SUCCESS;
    o->failures += r == BALANCER_FAILURE;
    o->ignored += r == BALANCER_IGNORED;
    if (r == BALANCER_IGNORED)
        return;
    if (epoch != o->epoch) {
        o->stale++;
        return;
    }
    o->failed = r == BALANCER_SUCCESS ? 0 : o->failed + 1;
    for (const struct one *x = m->who; x < m->who + MEMBERS; x++)
        all += x->there, out += x->there && x->ejected;
    if (!m->c.eject_after || o->failed < m->c.eject_after || o->down || o->ejected ||
        (out > 0 && 100.0 * (out + 1) > (double)m->c.max_ejected * all))
        return;
    if (o->back >= 0 && m->now - o->back > m->c.eject_max_us)
        o->times = 0;
    o->times++;
    o->ejected = true;
    o->ejections++;
    o->out_until = m->now + first_of(o->times * m->c.eject_us, m->c.eject_max_us);
    o->epoch++;
    o->failed = 0;
    model_changed(m);
}

static void model_release(struct model *m, struct request *q, enum balancer_result r)
{
    const int was = q->state;

    q->held = false;
    q->state = ENDED;
    m->given_up += was == WAITS;
    if (was != LEASED)
        return;
    if (q->with != NOBODY)
        model_result(m, &m->who[q->with], q->epoch, r);
    model_serve(m);
}

/* ---- both ---- */

static enum balancer_state state_of(const struct one *o)
{
    return o->draining         ? BALANCER_DRAINING
           : o->down           ? BALANCER_DOWN
           : o->ejected        ? BALANCER_EJECTED
           : o->slow_from >= 0 ? BALANCER_SLOW_START
                               : BALANCER_UP;
}

static void compare_one(const struct model *m, int i, const struct balancer_backend_figures *f)
{
    const struct one *o = &m->who[i];

    assert_int_equal(f->id, o->id);
    assert_string_equal(f->name, o->name);
    assert_int_equal(f->state, state_of(o));
    assert_int_equal(f->weight, o->weight);
    assert_int_equal(f->max_connections, o->max);
    assert_int_equal(f->active, leases_of(m, i));
    assert_int_equal(f->queued, waiting_for(m, i));
    assert_int_equal(f->failures_in_a_row, o->failed);
    assert_int_equal(f->picks, o->picks);
    assert_int_equal(f->successes, o->successes);
    assert_int_equal(f->failures, o->failures);
    assert_int_equal(f->ignored, o->ignored);
    assert_int_equal(f->stale, o->stale);
    assert_int_equal(f->lost, o->lost);
    assert_int_equal(f->ejections, o->ejections);
    saw_ejected += f->state == BALANCER_EJECTED;
    saw_slow += f->state == BALANCER_SLOW_START;
    saw_stuck += f->queued > 0;
}

/* No backend has room while somebody waits whom it may serve. */
static void nobody_waits_in_vain(const struct model *m)
{
    for (int i = 0; i < MEMBERS; i++) {
        if (!m->who[i].there || !has_room(m, i))
            continue;
        assert_int_equal(waiting_for(m, i), 0);
        if (may(m, &m->who[i]))
            assert_int_equal(waiting_for(m, ANYBODY), 0);
    }
    assert_true(waiting(m) <= m->c.max_queue);
}

static void compare(struct model *m, struct balancer *b, int64_t now)
{
    struct balancer_figures f;
    struct balancer_backend_figures each[MEMBERS];
    unsigned n = 0, n_in = 0, active = 0;

    model_time(m, now);
    balancer_read(b, now, &f, each, MEMBERS);
    for (int i = 0; i < MEMBERS; i++) {
        if (m->who[i].there)
            compare_one(m, i, &each[n++]);
        n_in += is_in(&m->who[i]);
    }
    for (unsigned i = 0; i < m->n_req; i++)
        active += m->req[i].state == LEASED;
    assert_int_equal(f.backends, n);
    assert_int_equal(f.in, n_in);
    assert_int_equal(f.panic, m->panic);
    assert_int_equal(f.active, active);
    assert_int_equal(f.queued, waiting(m));
    assert_int_equal(f.picks, m->picks);
    assert_int_equal(f.waited, m->waited);
    assert_int_equal(f.full, m->full);
    assert_int_equal(f.none, m->none);
    assert_int_equal(f.given_up, m->given_up);
    assert_int_equal(f.timed_out, m->timed_out);
    assert_int_equal(f.lost, m->lost);
    nobody_waits_in_vain(m);
    saw_panic += f.panic;
    saw_queued += f.queued > 0;
    saw_lost += f.lost > 0;
}

static void same_lease(struct model *m, struct request *q)
{
    if (q->state != LEASED)
        return;
    if (q->with == NOBODY) {
        assert_int_equal(q->lease.backend, 0);
        return;
    }
    struct one *o = &m->who[q->with];
    assert_int_equal(q->lease.backend, o->id);
    assert_ptr_equal(q->lease.data, o);
    memcpy(o->cookie, q->lease.cookie, sizeof o->cookie);
}

static void both_pick(struct prng *r, struct model *m, struct balancer *b, int64_t now)
{
    const int stuck = (int)prng_below(r, MEMBERS);
    const bool sticks = m->c.sticky && m->who[stuck].there && m->who[stuck].cookie[0] && prng_below(r, 2);
    const uint64_t random = prng_next(r);
    struct balancer_lease lease;
    enum balancer_answer want;

    if (m->n_req == REQUESTS)
        return;
    model_time(m, now);
    want = model_pick(m, sticks ? stuck : NOBODY, random);
    assert_int_equal(balancer_pick(b, sticks ? str_c(m->who[stuck].cookie) : STR_NONE, NULL, random, now, &lease),
                     want);
    assert_true((lease.serial != 0) == (want == BALANCER_PICKED || want == BALANCER_QUEUED));
    if (lease.serial) {
        m->req[m->n_req - 1].lease = lease;
        same_lease(m, &m->req[m->n_req - 1]);
    }
}

static struct request *some_held(struct prng *r, struct model *m)
{
    unsigned n = 0, nth;

    for (unsigned i = 0; i < m->n_req; i++)
        n += m->req[i].held;
    nth = n ? prng_below(r, n) : 0;
    for (unsigned i = 0; i < m->n_req; i++)
        if (m->req[i].held && nth-- == 0)
            return &m->req[i];
    return NULL;
}

static void both_poll(struct model *m, struct balancer *b, struct request *q, int64_t now)
{
    static const enum balancer_answer answers[] = {
        [WAITS] = BALANCER_QUEUED, [LEASED] = BALANCER_PICKED, [ENDED] = BALANCER_OVER};

    model_time(m, now);
    assert_int_equal(balancer_poll(b, &q->lease, now), answers[q->state]);
    same_lease(m, q);
    if (q->state == ENDED) {
        assert_int_equal(q->lease.serial, 0);
        q->held = false;
        saw_over++;
    }
}

static void both_release(struct model *m, struct balancer *b, struct request *q, enum balancer_result r, int64_t now)
{
    model_time(m, now);
    model_release(m, q, r);
    balancer_release(b, &q->lease, r, now);
    assert_int_equal(q->lease.serial, 0);
}

static void both_add(struct prng *r, struct model *m, struct balancer *b, int64_t now)
{
    struct one *o = m->who, fresh = {.there = true, .slow_from = -1, .back = -1};
    bool taken = false;

    /* the model's places are in order of adding, so one that has gone is not given out again */
    while (o < m->who + MEMBERS && o->id)
        o++;
    if (o == m->who + MEMBERS)
        return;
    snprintf(fresh.name, sizeof fresh.name, "db%u", prng_below(r, NAMES));
    for (const struct one *x = m->who; x < o; x++)
        taken |= x->there && strcmp(x->name, fresh.name) == 0;
    fresh.weight = prng_below(r, 5);
    fresh.max = prng_below(r, 4);
    model_time(m, now);
    fresh.id =
        balancer_add(b,
                     &(struct balancer_backend){
                         .name = str_c(fresh.name), .weight = fresh.weight, .max_connections = fresh.max, .data = o},
                     now);
    assert_true((fresh.id == 0) == taken);
    if (taken)
        return;
    fresh.due = m->now;
    *o = fresh;
    model_changed(m);
}

static void model_remove(struct model *m, int i)
{
    m->who[i].there = false;
    for (struct request *q = m->req; q < m->req + m->n_req; q++)
        if (q->with == i)
            q->with = NOBODY;
    model_changed(m);
}

static void both_change(struct prng *r, struct model *m, struct balancer *b, int64_t now)
{
    const int i = (int)prng_below(r, MEMBERS);
    struct one *o = &m->who[i];
    const bool there = o->there;

    if (!o->id)
        return;
    model_time(m, now);
    switch (prng_below(r, 3)) {
    case 0:
        if (there)
            model_remove(m, i);
        assert_int_equal(balancer_remove(b, o->id, now), there);
        break;
    case 1: {
        const bool on = prng_below(r, 2);
        if (there && o->draining != on) {
            o->draining = on;
            model_changed(m);
        }
        assert_int_equal(balancer_drain(b, o->id, on, now), there);
        break;
    }
    default: {
        const unsigned weight = prng_below(r, 5), max = prng_below(r, 4);
        if (there) {
            o->weight = weight;
            o->max = max;
            model_changed(m);
        }
        assert_int_equal(balancer_set(b, o->id, weight, max, now), there);
    }
    }
}

static void both_checks(struct prng *r, struct model *m, struct balancer *b, int64_t now)
{
    struct balancer_check due[MEMBERS];
    const size_t cap = prng_below(r, MEMBERS), n = balancer_checks_due(b, now, due, cap);
    size_t want = 0;

    model_time(m, now);
    for (; want < cap && m->c.check_interval_us; want++) {
        struct one *first = NULL;
        for (struct one *o = m->who; o < m->who + MEMBERS; o++)
            if (o->there && !o->checking && o->due <= m->now && (!first || o->due < first->due))
                first = o;
        if (!first)
            break;
        assert_true(want < n);
        assert_int_equal(due[want].backend, first->id);
        assert_ptr_equal(due[want].data, first);
        first->checking = true;
        first->check_from = m->now;
        first->check = due[want];
    }
    assert_int_equal(n, want);
}

static void both_checked(struct prng *r, struct model *m, struct balancer *b, int64_t now)
{
    struct one *o = &m->who[prng_below(r, MEMBERS)];
    const bool ok = prng_below(r, 2);

    if (!o->check.serial)
        return;
    model_time(m, now);
    const bool want = o->there && o->checking;
    if (want && model_check_ends(m, o, ok))
        model_changed(m);
    assert_int_equal(balancer_checked(b, &o->check, ok, now), want);
}

static bool step(struct prng *r, struct model *m, struct balancer *b, int64_t now)
{
    const unsigned what = prng_below(r, 100);
    struct request *q = some_held(r, m);

    if (what < 45)
        both_pick(r, m, b, now);
    else if (what < 70 && q)
        both_release(m, b, q, what < 55 ? BALANCER_SUCCESS : what < 68 ? BALANCER_FAILURE : BALANCER_IGNORED, now);
    else if (what < 76 && q)
        both_poll(m, b, q, now);
    else if (what < 78 && q)
        q->held = false; /* its caller has died */
    else if (what < 82)
        both_add(r, m, b, now);
    else if (what < 86)
        both_change(r, m, b, now);
    else if (what < 92)
        both_checks(r, m, b, now);
    else
        both_checked(r, m, b, now);
    return prng_below(r, 3) == 0;
}

static struct balancer_config random_config(struct prng *r)
{
    static const unsigned percents[] = {0, 10, 34, 50, 100};
    struct balancer_config c = balancer_defaults();

    c.algorithm = prng_below(r, 3);
    c.check_interval_us = prng_below(r, 4) * STEP;
    c.check_timeout_us = (1 + prng_below(r, 4)) * STEP;
    c.healthy_threshold = 1 + prng_below(r, 2);
    c.unhealthy_threshold = 1 + prng_below(r, 2);
    c.max_queue = prng_below(r, 4);
    c.queue_timeout_us = (1 + prng_below(r, 6)) * STEP;
    c.eject_after = prng_below(r, 3);
    c.eject_us = (1 + prng_below(r, 4)) * STEP;
    c.eject_max_us = c.eject_us + prng_below(r, 8) * STEP;
    c.max_ejected = percents[prng_below(r, 5)];
    c.slow_start_us = prng_below(r, 3) * 3 * STEP;
    c.panic = percents[prng_below(r, 5)];
    c.lease_us = prng_below(r, 3) * 5 * STEP;
    c.sticky = prng_below(r, 2);
    return c;
}

static int64_t pass(struct prng *r, int64_t now)
{
    static const int64_t steps[] = {0, 0, 0, 1, STEP, STEP, 2 * STEP, -STEP, 5 * SECOND};
    const int64_t d = steps[prng_below(r, sizeof steps / sizeof *steps)];

    return now + d < 0 ? now : now + d;
}

static void random_traces(void **state)
{
    struct prng r = prng_seeded("balancer");

    (void)state;
    for (long t = 0; t < traces; t++) {
        static struct model m;
        int64_t now = prng_below(&r, 3) * (int64_t)SECOND + prng_below(&r, 2) * HOUR;
        const unsigned steps = 10 + prng_below(&r, 40);
        struct balancer *b;
        m = (struct model){.c = random_config(&r), .now = now};
        b = balancer_new(&m.c, now);
        assert_non_null(b);
        for (unsigned i = prng_below(&r, 4); i; i--)
            both_add(&r, &m, b, now);
        for (unsigned i = 0; i < steps; i++) {
            now = pass(&r, now);
            if (step(&r, &m, b, now))
                compare(&m, b, now);
        }
        compare(&m, b, now);
        balancer_free(b);
    }
    printf("balancer: panic %u, ejected %u, slow %u, queued %u, stuck and queued %u, lost %u, over %u times\n",
           saw_panic, saw_ejected, saw_slow, saw_queued, saw_stuck, saw_lost, saw_over);
    assert_true(saw_panic && saw_ejected && saw_slow && saw_queued && saw_stuck && saw_lost && saw_over);
    assert_int_equal(clocks_read, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_traces),
    };

    if (argc > 1)
        traces = atol(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
