/* The balancer's promises one by one; test_balancer_model.c has their combinations. */
#include "fixture.h"

#include "resilience/balancer.h"

static int64_t now;

static struct balancer_config plain(void)
{
    struct balancer_config c = balancer_defaults();

    c.eject_after = 0;
    c.panic = 0;
    return c;
}

static struct balancer *fresh(struct balancer_config c)
{
    struct balancer *b;

    now = HOUR;
    b = balancer_new(&c, now);
    assert_non_null(b);
    return b;
}

static uint64_t add(struct balancer *b, const char *name, unsigned weight, unsigned max)
{
    const uint64_t id =
        balancer_add(b, &(struct balancer_backend){.name = str_c(name), .weight = weight, .max_connections = max}, now);

    assert_int_not_equal(id, 0);
    return id;
}

static struct balancer_lease picked(struct balancer *b)
{
    struct balancer_lease l;

    assert_int_equal(balancer_pick(b, STR_NONE, NULL, 0, now, &l), BALANCER_PICKED);
    return l;
}

static uint64_t one_call(struct balancer *b, enum balancer_result r)
{
    struct balancer_lease l = picked(b);
    const uint64_t id = l.backend;

    balancer_release(b, &l, r, now);
    return id;
}

static enum balancer_answer answer(struct balancer *b, struct balancer_lease *ret)
{
    return balancer_pick(b, STR_NONE, NULL, 0, now, ret);
}

static struct balancer_figures figures(struct balancer *b)
{
    struct balancer_figures f;

    balancer_read(b, now, &f, NULL, 0);
    return f;
}

static enum balancer_state state_of(struct balancer *b, uint64_t id)
{
    struct balancer_figures f;
    struct balancer_backend_figures list[8];

    balancer_read(b, now, &f, list, 8);
    for (unsigned i = 0; i < f.backends; i++)
        if (list[i].id == id)
            return list[i].state;
    fail();
    return BALANCER_UP;
}

/* ---- round robin ---- */

static void cycle_is_exact(struct balancer *b, const uint64_t ids[4], const unsigned weights[4], bool keep)
{
    unsigned got[4] = {0}, sum = weights[0] + weights[1] + weights[2] + weights[3];

    for (unsigned i = 0; i < sum; i++) {
        struct balancer_lease l = picked(b);
        for (int k = 0; k < 4; k++)
            got[k] += l.backend == ids[k];
        if (!keep)
            balancer_release(b, &l, BALANCER_SUCCESS, now);
    }
    for (int k = 0; k < 4; k++)
        assert_int_equal(got[k], weights[k]);
}

/* All weights of four backends up to 5, and again after one has changed. */
static void shares_are_exact_in_every_cycle(void **state)
{
    static const char *const names[] = {"a", "b", "c", "d"};

    (void)state;
    for (unsigned w = 1; w < 6 * 6 * 6 * 6; w++) {
        unsigned weights[4] = {w % 6, w / 6 % 6, w / 36 % 6, w / 216};
        struct balancer *b = fresh(plain());
        uint64_t ids[4];
        for (int i = 0; i < 4; i++)
            ids[i] = add(b, names[i], weights[i], 0);
        for (int cycle = 0; cycle < 3; cycle++)
            cycle_is_exact(b, ids, weights, cycle == 1);
        one_call(b, BALANCER_SUCCESS); /* the change comes in the middle of a cycle */
        weights[w % 4] = 3;
        assert_true(balancer_set(b, ids[w % 4], 3, 0, now));
        cycle_is_exact(b, ids, weights, false);
        balancer_free(b);
    }
}

static void turns_are_spread_out(void **state)
{
    struct balancer *b = fresh(plain());
    const uint64_t x = add(b, "x", 5, 0), y = add(b, "y", 1, 0), z = add(b, "z", 1, 0);
    const uint64_t want[] = {x, x, y, x, z, x, x};

    (void)state;
    for (int i = 0; i < 21; i++)
        assert_int_equal(one_call(b, BALANCER_SUCCESS), want[i % 7]);
    balancer_free(b);
}

/* ---- least connections, random ---- */

static void the_least_loaded_by_weight(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b;
    struct balancer_lease l[9];
    unsigned got = 0;

    (void)state;
    c.algorithm = BALANCER_LEAST_CONNECTIONS;
    b = fresh(c);
    const uint64_t big = add(b, "big", 2, 0);
    add(b, "small", 1, 0);
    for (int i = 0; i < 9; i++) {
        l[i] = picked(b);
        got += l[i].backend == big;
    }
    assert_int_equal(got, 6);
    for (int i = 0; i < 9; i++)
        if (l[i].backend == big)
            balancer_release(b, &l[i], BALANCER_SUCCESS, now);
    for (int i = 0; i < 6; i++)
        assert_int_equal(picked(b).backend, big);
    balancer_free(b);
}

/* A request that waits for its own backend is load of that one. */
static void those_who_wait_count(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b;
    struct balancer_lease first, waits;

    (void)state;
    c.algorithm = BALANCER_LEAST_CONNECTIONS;
    c.sticky = true;
    b = fresh(c);
    const uint64_t x = add(b, "x", 10, 1), y = add(b, "y", 10, 9);
    first = picked(b);
    assert_int_equal(first.backend, x);
    for (int i = 0; i < 3; i++)
        assert_int_equal(balancer_pick(b, str_c(first.cookie), NULL, 0, now, &waits), BALANCER_QUEUED);
    assert_true(balancer_set(b, x, 10, 5, now)); /* room: they are served, and x has four */
    assert_int_equal(figures(b).queued, 0);
    assert_int_equal(figures(b).active, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(picked(b).backend, y);
    balancer_free(b);
}

static void two_draws_prefer_the_idle(void **state)
{
    struct balancer_config c = plain();
    struct prng r = prng_seeded("random");
    struct balancer *b;
    unsigned got[3] = {0};
    struct balancer_lease l;

    (void)state;
    c.algorithm = BALANCER_RANDOM;
    b = fresh(c);
    uint64_t ids[3] = {[2] = add(b, "busy", 1, 0)};
    for (int i = 0; i < 10; i++)
        picked(b);
    ids[0] = add(b, "x", 1, 0);
    ids[1] = add(b, "y", 1, 0);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(balancer_pick(b, STR_NONE, NULL, prng_next(&r), now, &l), BALANCER_PICKED);
        for (int k = 0; k < 3; k++)
            got[k] += l.backend == ids[k];
        balancer_release(b, &l, BALANCER_SUCCESS, now);
    }
    assert_int_equal(got[2], 0); /* whoever is drawn beside it is better */
    assert_true(got[0] > 1300 && got[1] > 1300);
    balancer_free(b);
}

/* ---- the queue ---- */

static unsigned woken[4];

static void note(void *ctx, void *waiter)
{
    assert_ptr_equal(ctx, woken);
    ++*(unsigned *)waiter;
}

static void full_ones_make_a_bounded_queue(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b;
    struct balancer_lease l, q[3], no;

    (void)state;
    c.max_queue = 2;
    c.wake = note;
    c.ctx = woken;
    b = fresh(c);
    const uint64_t x = add(b, "x", 1, 1);
    l = picked(b);
    for (int i = 0; i < 2; i++)
        assert_int_equal(balancer_pick(b, STR_NONE, &woken[i], 0, now, &q[i]), BALANCER_QUEUED);
    assert_int_equal(balancer_pick(b, STR_NONE, &woken[2], 0, now, &q[2]), BALANCER_FULL);
    assert_int_equal(q[2].serial, 0);
    assert_int_equal(balancer_poll(b, &q[0], now), BALANCER_QUEUED);
    balancer_release(b, &l, BALANCER_SUCCESS, now);
    assert_true(woken[0] == 1 && woken[1] == 0);
    assert_int_equal(balancer_poll(b, &q[0], now), BALANCER_PICKED); /* first come, first served */
    assert_int_equal(q[0].backend, x);
    assert_int_equal(balancer_poll(b, &q[1], now), BALANCER_QUEUED);
    balancer_release(b, &q[1], BALANCER_SUCCESS, now); /* gives up */
    assert_int_equal(balancer_pick(b, STR_NONE, &woken[3], 0, now, &q[1]), BALANCER_QUEUED);
    now += c.queue_timeout_us;
    assert_int_equal(balancer_poll(b, &q[1], now), BALANCER_OVER);
    assert_int_equal(woken[3], 1);
    assert_int_equal(figures(b).active, 1);
    assert_int_equal(figures(b).given_up, 1);
    assert_int_equal(figures(b).timed_out, 1);
    assert_int_equal(figures(b).full, 1);
    assert_int_equal(figures(b).waited, 1);
    no = q[1];
    balancer_release(b, &no, BALANCER_FAILURE, now); /* an empty one */
    balancer_free(b);
}

static void a_new_backend_serves_who_waits(void **state)
{
    struct balancer *b = fresh(plain());
    struct balancer_lease l, q;

    (void)state;
    const uint64_t x = add(b, "x", 1, 1);
    l = picked(b);
    assert_int_equal(answer(b, &q), BALANCER_QUEUED);
    const uint64_t y = add(b, "y", 1, 1);
    assert_int_equal(balancer_poll(b, &q, now), BALANCER_PICKED);
    assert_int_equal(q.backend, y);
    /* all gone: who waits is told at once */
    struct balancer_lease waits;
    assert_int_equal(answer(b, &waits), BALANCER_QUEUED);
    assert_true(balancer_remove(b, x, now) && balancer_remove(b, y, now));
    assert_int_equal(balancer_poll(b, &waits, now), BALANCER_OVER);
    assert_int_equal(answer(b, &waits), BALANCER_NONE);
    balancer_release(b, &l, BALANCER_SUCCESS, now);
    balancer_release(b, &q, BALANCER_SUCCESS, now);
    assert_int_equal(figures(b).active, 0);
    balancer_free(b);
}

static void a_lost_lease_is_taken_back(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b;
    struct balancer_lease lost, next;

    (void)state;
    c.lease_us = 5 * SECOND;
    c.queue_timeout_us = HOUR;
    b = fresh(c);
    add(b, "x", 1, 1);
    lost = picked(b);
    assert_int_equal(answer(b, &next), BALANCER_QUEUED);
    now += 5 * SECOND;
    assert_int_equal(balancer_poll(b, &next, now), BALANCER_PICKED);
    balancer_release(b, &lost, BALANCER_FAILURE, now);
    assert_int_equal(figures(b).active, 1); /* the late one frees nothing */
    assert_int_equal(figures(b).lost, 1);
    balancer_free(b);
}

/* ---- who is in ---- */

static bool check(struct balancer *b, uint64_t id, bool ok)
{
    struct balancer_check due[8];
    const size_t n = balancer_checks_due(b, now, due, 8);

    for (size_t i = 0; i < n; i++)
        assert_true(balancer_checked(b, &due[i], due[i].backend != id || ok, now));
    now += 10 * SECOND;
    return n > 0;
}

static void checks_have_two_thresholds(void **state)
{
    struct balancer *b = fresh(plain());
    const uint64_t x = add(b, "x", 1, 0), y = add(b, "y", 1, 0);
    static const struct {
        bool ok;
        enum balancer_state then;
    } steps[] = {{false, BALANCER_UP},  {false, BALANCER_UP},   {true, BALANCER_UP},   {false, BALANCER_UP},
                 {false, BALANCER_UP},  {false, BALANCER_DOWN}, {true, BALANCER_DOWN}, {false, BALANCER_DOWN},
                 {true, BALANCER_DOWN}, {true, BALANCER_UP}};

    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        assert_true(check(b, x, steps[i].ok));
        assert_int_equal(state_of(b, x), steps[i].then);
        assert_int_equal(state_of(b, y), BALANCER_UP);
        if (steps[i].then == BALANCER_DOWN)
            assert_int_equal(one_call(b, BALANCER_SUCCESS), y);
    }
    balancer_free(b);
}

static void a_check_without_answer_has_failed(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b;
    struct balancer_check due;

    (void)state;
    c.unhealthy_threshold = 1;
    b = fresh(c);
    const uint64_t x = add(b, "x", 1, 0);
    assert_int_equal(balancer_checks_due(b, now, &due, 1), 1);
    assert_int_equal(balancer_checks_due(b, now, &due, 0), 0);
    now += 5 * SECOND - 1;
    assert_int_equal(state_of(b, x), BALANCER_UP);
    now += 1;
    assert_int_equal(state_of(b, x), BALANCER_DOWN);
    assert_false(balancer_checked(b, &due, true, now));
    struct balancer_lease none;
    assert_int_equal(answer(b, &none), BALANCER_NONE); /* no panic here */
    balancer_free(b);
}

static void failures_in_a_row_eject(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b;

    (void)state;
    c.eject_after = 2;
    c.eject_us = 10 * SECOND;
    c.eject_max_us = 25 * SECOND;
    b = fresh(c);
    const uint64_t x = add(b, "x", 1, 0), y = add(b, "y", 0, 0);
    static const int out_s[] = {10, 20, 25, 25};
    for (int i = 0; i < 4; i++) {
        struct balancer_lease stale = picked(b);
        one_call(b, BALANCER_FAILURE);
        one_call(b, BALANCER_SUCCESS); /* breaks the row */
        one_call(b, BALANCER_FAILURE);
        one_call(b, BALANCER_IGNORED); /* says nothing */
        assert_int_equal(state_of(b, x), BALANCER_UP);
        one_call(b, BALANCER_FAILURE);
        assert_int_equal(state_of(b, x), BALANCER_EJECTED);
        now += out_s[i] * (int64_t)SECOND - 1;
        assert_int_equal(state_of(b, x), BALANCER_EJECTED);
        now += 1;
        assert_int_equal(state_of(b, x), BALANCER_UP);
        balancer_release(b, &stale, BALANCER_FAILURE, now);
        one_call(b, BALANCER_FAILURE);
        assert_int_equal(state_of(b, x), BALANCER_UP); /* one of its own; the stale one does not count */
        one_call(b, BALANCER_SUCCESS);
    }
    now += 26 * SECOND; /* a good while: it begins anew */
    one_call(b, BALANCER_FAILURE);
    one_call(b, BALANCER_FAILURE);
    now += 10 * SECOND;
    assert_int_equal(state_of(b, x), BALANCER_UP);
    assert_int_equal(state_of(b, y), BALANCER_UP);
    balancer_free(b);
}

static void not_all_are_ejected(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b;
    unsigned n = 0;

    (void)state;
    c.eject_after = 1;
    c.max_ejected = 50;
    b = fresh(c);
    uint64_t ids[4];
    static const char *const names[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++)
        ids[i] = add(b, names[i], 1, 0);
    for (int i = 0; i < 40; i++)
        one_call(b, BALANCER_FAILURE);
    for (int i = 0; i < 4; i++)
        n += state_of(b, ids[i]) == BALANCER_EJECTED;
    assert_int_equal(n, 2);
    balancer_free(b);
}

static void panic_when_most_are_down(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b;
    struct balancer_check due[4];
    unsigned got[4] = {0};

    (void)state;
    c.unhealthy_threshold = c.healthy_threshold = 1;
    c.panic = 50;
    b = fresh(c);
    uint64_t ids[4];
    static const char *const names[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++)
        ids[i] = add(b, names[i], 1, 0);
    assert_int_equal(balancer_checks_due(b, now, due, 4), 4);
    assert_true(balancer_checked(b, &due[0], false, now));
    assert_true(balancer_checked(b, &due[1], false, now));
    assert_false(figures(b).panic); /* half is not most */
    assert_int_equal(one_call(b, BALANCER_SUCCESS), ids[2]);
    assert_true(balancer_checked(b, &due[2], false, now));
    assert_true(figures(b).panic);
    for (int i = 0; i < 400; i++) {
        const uint64_t id = one_call(b, BALANCER_SUCCESS);
        for (int k = 0; k < 4; k++)
            got[k] += id == ids[k];
    }
    assert_true(got[0] == 100 && got[1] == 100 && got[2] == 100 && got[3] == 100);
    /* a drained one is not asked even then, nor counted */
    assert_true(balancer_drain(b, ids[0], true, now));
    for (int i = 0; i < 20; i++)
        assert_int_not_equal(one_call(b, BALANCER_SUCCESS), ids[0]);
    balancer_free(b);
}

static void slow_start(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b;
    static const struct {
        int at_s;
        unsigned least, most; /* of 1000, beside one of the same weight */
    } steps[] = {{0, 80, 100}, {5, 80, 100}, {50, 320, 345}, {99, 490, 500}, {100, 500, 500}};

    (void)state;
    c.slow_start_us = 100 * SECOND;
    b = fresh(c);
    add(b, "old", 1, 0);
    now += HOUR;
    const uint64_t x = add(b, "new", 1, 0);
    const int64_t from = now;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        unsigned got = 0;
        now = from + steps[i].at_s * (int64_t)SECOND;
        assert_int_equal(state_of(b, x), steps[i].at_s < 100 ? BALANCER_SLOW_START : BALANCER_UP);
        for (int k = 0; k < 1000; k++)
            got += one_call(b, BALANCER_SUCCESS) == x;
        assert_true(got >= steps[i].least && got <= steps[i].most);
    }
    balancer_free(b);
}

static void drained_then_removed(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b;
    struct balancer_lease l, stuck;

    (void)state;
    c.sticky = true;
    b = fresh(c);
    const uint64_t x = add(b, "x", 1, 0);
    l = picked(b);
    const uint64_t y = add(b, "y", 1, 0);
    assert_true(balancer_drain(b, x, true, now));
    assert_int_equal(state_of(b, x), BALANCER_DRAINING);
    for (int i = 0; i < 10; i++)
        assert_int_equal(one_call(b, BALANCER_SUCCESS), y);
    assert_int_equal(balancer_pick(b, str_c(l.cookie), NULL, 0, now, &stuck), BALANCER_PICKED);
    assert_int_equal(stuck.backend, x);
    assert_true(balancer_remove(b, x, now));
    assert_false(balancer_remove(b, x, now));
    assert_false(balancer_drain(b, x, true, now));
    assert_false(balancer_set(b, x, 1, 0, now));
    assert_false(balancer_set(b, y, 1001, 0, now));
    balancer_release(b, &l, BALANCER_FAILURE, now);
    balancer_release(b, &stuck, BALANCER_SUCCESS, now);
    assert_int_equal(figures(b).active, 0);
    balancer_free(b);
}

static void sticky_falls_over(void **state)
{
    struct balancer_config c = plain();
    struct balancer *b, *other;
    struct balancer_check due[2];
    struct balancer_lease l, s;

    (void)state;
    c.sticky = true;
    c.sticky_salt = 7;
    c.unhealthy_threshold = 1;
    b = fresh(c);
    const uint64_t x = add(b, "x", 1, 0), y = add(b, "y", 100, 0);
    l = picked(b);
    assert_int_equal(l.backend, y);
    s = picked(b);
    while (s.backend != x)
        s = picked(b);
    assert_int_equal(strlen(s.cookie), 16);
    assert_string_not_equal(s.cookie, l.cookie);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(balancer_pick(b, str_c(s.cookie), NULL, 0, now, &l), BALANCER_PICKED);
        assert_int_equal(l.backend, x);
    }
    assert_int_equal(balancer_pick(b, STR("not-a-known-one!"), NULL, 0, now, &l), BALANCER_PICKED);
    assert_int_equal(balancer_checks_due(b, now, due, 2), 2);
    assert_true(balancer_checked(b, &due[0], false, now));
    assert_int_equal(balancer_pick(b, str_c(s.cookie), NULL, 0, now, &l), BALANCER_PICKED);
    assert_int_equal(l.backend, y); /* and the new cookie is y's */

    other = balancer_new(&c, 0); /* another process knows the same name */
    add(other, "y", 1, 0);
    assert_string_equal(picked(other).cookie, l.cookie);
    balancer_free(other);
    c.sticky_salt = 8;
    other = balancer_new(&c, 0);
    add(other, "y", 1, 0);
    assert_string_not_equal(picked(other).cookie, l.cookie);
    balancer_free(other);
    balancer_free(b);
}

static void many_come_and_go(void **state)
{
    struct balancer *b = fresh(plain());
    char name[BALANCER_NAME_MAX + 1];
    uint64_t last = 0;

    (void)state;
    for (int i = 0; i < BALANCER_BACKENDS_MAX; i++) {
        snprintf(name, sizeof name, "n%d", i);
        const uint64_t id = add(b, name, 1, 0);
        assert_true(id > last);
        last = id;
        assert_int_equal(balancer_add(b, &(struct balancer_backend){.name = str_c(name), .weight = 1}, now), 0);
    }
    assert_int_equal(balancer_add(b, &(struct balancer_backend){.name = STR("more"), .weight = 1}, now), 0);
    assert_true(balancer_remove(b, last, now));
    assert_true(balancer_add(b, &(struct balancer_backend){.name = STR("more"), .weight = 1}, now) > last);
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(balancer_add(b, &(struct balancer_backend){.name = str_c(name), .weight = 1}, now), 0);
    assert_int_equal(balancer_add(b, &(struct balancer_backend){.name = STR(""), .weight = 1}, now), 0);
    assert_int_equal(balancer_add(b, &(struct balancer_backend){.name = STR("w"), .weight = 1001}, now), 0);
    balancer_free(b);
}

static void faulty_settings_are_named(void **state)
{
    struct balancer_config c = balancer_defaults();

    (void)state;
    assert_null(balancer_fault(&c));
#define REFUSED(field, value, name)                                                                                    \
    c = balancer_defaults(), c.field = (value), assert_non_null(strstr(balancer_fault(&c), name)),                     \
    assert_null(balancer_new(&c, 0))
    REFUSED(algorithm, 3, "algorithm");
    REFUSED(check_interval_us, -1, "interval");
    REFUSED(check_timeout_us, 0, "timeout");
    REFUSED(healthy_threshold, 0, "healthy_threshold");
    REFUSED(unhealthy_threshold, 0, "unhealthy_threshold");
    REFUSED(max_queue, 1000001, "max_queue");
    REFUSED(queue_timeout_us, 0, "queue_timeout");
    REFUSED(eject_after, 1001, "consecutive_failures");
    REFUSED(eject_us, 0, "base_time");
    REFUSED(eject_max_us, 1, "max_time");
    REFUSED(max_ejected, 101, "max_percent");
    REFUSED(slow_start_us, -1, "slow_start");
    REFUSED(panic, 101, "panic_threshold");
    REFUSED(lease_us, -1, "lease");
    assert_string_equal(balancer_state_name(BALANCER_SLOW_START), "slow-start");
    balancer_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_exact_in_every_cycle),
        cmocka_unit_test(turns_are_spread_out),
        cmocka_unit_test(the_least_loaded_by_weight),
        cmocka_unit_test(those_who_wait_count),
        cmocka_unit_test(two_draws_prefer_the_idle),
        cmocka_unit_test(full_ones_make_a_bounded_queue),
        cmocka_unit_test(a_new_backend_serves_who_waits),
        cmocka_unit_test(a_lost_lease_is_taken_back),
        cmocka_unit_test(checks_have_two_thresholds),
        cmocka_unit_test(a_check_without_answer_has_failed),
        cmocka_unit_test(failures_in_a_row_eject),
        cmocka_unit_test(not_all_are_ejected),
        cmocka_unit_test(panic_when_most_are_down),
        cmocka_unit_test(slow_start),
        cmocka_unit_test(drained_then_removed),
        cmocka_unit_test(sticky_falls_over),
        cmocka_unit_test(many_come_and_go),
        cmocka_unit_test(faulty_settings_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
