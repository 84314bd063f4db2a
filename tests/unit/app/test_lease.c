/* Leases of jobs: when an instance may work, by its own clock, and what becomes of what it does too late. */
#include "fixture.h"

#include "app/lease.h"

#define OTHER STR("elsewhere:1:0")
enum { LONG_US = 600000000 };

/* The fixture's store as a shared one, whose leases the test rules over. */
static struct {
    unsigned asked;    /* for the lease of schedules */
    enum pf_err fail;  /* instead of asking the store */
    int64_t answer_us; /* the answer takes as long */
} store;

static enum pf_err lease_take(struct store *s, struct str name, struct str holder, int64_t ttl_us,
                              struct store_lease *ret)
{
    store.asked += str_is(name, "schedules");
    enum pf_err e = store.fail ? store.fail : fix_current->real->lease_take(s, name, holder, ttl_us, ret);
    fix_advance(fix_current, str_is(name, "schedules") ? store.answer_us : 0);
    return e;
}

static void share(struct fix *f)
{
    store.asked = 0;
    store.fail = PFE_OK;
    store.answer_us = 0;
    f->ops.shared = true;
    f->ops.lease_take = lease_take;
}

static bool held(struct fix *f)
{
    struct store_fence fence;
    struct app_lease_state s;
    bool may = app_lease_fence(f->app, APP_LEASE_SCHEDULES, &fence);
    app_lease_state(f->app, APP_LEASE_SCHEDULES, &s);
    assert_int_equal(s.held, may);
    assert_string_equal(s.job, "schedules");
    if (may) {
        assert_true(str_is(fence.name, "schedules"));
        assert_true(str_eq(fence.holder, str_c(s.holder)));
        assert_int_equal(fence.token, s.token);
    }
    return may;
}

/* The lease of schedules goes to somebody else behind the app's back. Returns the token that it had. */
static int64_t lose(struct fix *f, struct store_fence *ret_old)
{
    struct store_lease l;
    assert_true(app_lease_fence(f->app, APP_LEASE_SCHEDULES, ret_old));
    OK(store_lease_drop(f->box.store, ret_old->name, ret_old->holder));
    OK(f->real->lease_take(f->box.store, ret_old->name, OTHER, LONG_US, &l));
    assert_true(l.mine);
    assert_int_equal(l.token, ret_old->token + 1);
    return ret_old->token;
}

static void an_embedded_store_grants_at_once(void **state)
{
    struct fix *f = *state;
    struct store_fence fence;
    struct app_lease_state s;
    assert_true(held(f));
    fix_advance(f, 3600 * SECOND);
    assert_true(held(f));
    app_lease_state(f->app, APP_LEASE_SCHEDULES, &s);
    assert_int_equal(s.token, 1);
    app_lease_state(f->app, APP_LEASE_HOLDS, &s);
    assert_int_equal(s.token, 0); /* not asked for yet */
    assert_true(app_lease_fence(f->app, APP_LEASE_HOLDS, &fence));
    assert_true(str_is(fence.name, "holds"));
    app_leases_drop(f->app);
    assert_false(held(f));
    assert_false(app_lease_fence(f->app, APP_LEASE_HOLDS, &fence));
    (void)app_leases_step(f->app);
    assert_false(held(f)); /* given back for good */
}

static void of_a_shared_one_it_is_kept_by_renewing(void **state)
{
    struct fix *f = *state;
    share(f);
    assert_false(held(f));
    assert_int_equal(app_leases_step(f->app), APP_LEASE_RENEW_US);
    assert_true(held(f));
    assert_int_equal(store.asked, 1);
    assert_int_equal(app_leases_step(f->app), APP_LEASE_RENEW_US); /* not due */
    assert_int_equal(store.asked, 1);
    for (unsigned i = 2; i < 20; i++) {
        fix_advance(f, APP_LEASE_RENEW_US);
        (void)app_leases_step(f->app);
        assert_int_equal(store.asked, i);
        assert_true(held(f));
    }
    fix_advance(f, APP_LEASE_TTL_US - APP_LEASE_MARGIN_US - 1);
    assert_true(held(f));
    fix_advance(f, 1); /* not renewed: it stops before the lease ends */
    assert_false(held(f));
    (void)app_leases_step(f->app);
    assert_true(held(f));
}

static void a_holder_that_cannot_renew_stops(void **state)
{
    struct fix *f = *state;
    share(f);
    (void)app_leases_step(f->app);
    store.fail = PFE_UNAVAILABLE;
    int64_t begin = fix_mono(f);
    while (fix_mono(f) - begin < APP_LEASE_TTL_US - APP_LEASE_MARGIN_US) {
        assert_true(held(f));
        fix_advance(f, app_leases_step(f->app));
    }
    assert_false(held(f));
    assert_in_range(store.asked, 5, 12); /* again and again, not all the time */
    store.fail = PFE_OK;
    fix_advance(f, APP_LEASE_LOOK_US);
    (void)app_leases_step(f->app);
    assert_true(held(f));
}

static void time_counts_from_before_it_was_asked_for(void **state)
{
    struct fix *f = *state;
    share(f);
    store.answer_us = 5 * SECOND;
    (void)app_leases_step(f->app);
    assert_false(held(f));
    fix_advance(f, APP_LEASE_RENEW_US);
    store.answer_us = SECOND / 2;
    (void)app_leases_step(f->app);
    assert_true(held(f)); /* half a second of five is gone */
    fix_advance(f, 9 * SECOND / 2 - 1);
    assert_true(held(f));
    fix_advance(f, 1);
    assert_false(held(f));
}

static void others_wait_and_take_over(void **state)
{
    struct fix *f = *state;
    struct store_lease l;
    struct app_lease_state s;
    share(f);
    for (unsigned i = 0; i < APP_LEASES; i++)
        OK(f->real->lease_take(f->box.store, i ? STR("holds") : STR("schedules"), OTHER, LONG_US, &l));
    assert_int_equal(app_leases_step(f->app), APP_LEASE_LOOK_US);
    assert_false(held(f));
    app_lease_state(f->app, APP_LEASE_SCHEDULES, &s);
    assert_string_equal(s.holder, "elsewhere:1:0");
    assert_int_equal(s.token, 1);
    OK(store_lease_drop(f->box.store, STR("schedules"), OTHER));
    fix_advance(f, APP_LEASE_LOOK_US);
    (void)app_leases_step(f->app);
    assert_true(held(f));
    app_lease_state(f->app, APP_LEASE_SCHEDULES, &s);
    assert_int_equal(s.token, 2);
    app_lease_state(f->app, APP_LEASE_HOLDS, &s);
    assert_false(s.held); /* each by itself */

    struct store_fence old;
    int64_t token = lose(f, &old);
    fix_advance(f, APP_LEASE_RENEW_US);
    (void)app_leases_step(f->app);
    assert_false(held(f)); /* it heard of it when it renewed */
    app_lease_state(f->app, APP_LEASE_SCHEDULES, &s);
    assert_int_equal(s.token, token + 1);
    app_leases_drop(f->app);
    OK(f->real->lease_take(f->box.store, STR("schedules"), OTHER, LONG_US, &l));
    assert_true(l.mine && l.token == token + 1); /* what another has is not given back */
}

/* ---- too late ---- */

static void a_late_movement_is_refused_and_its_neighbours_are_not(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    struct store_fence old, now;
    assert_true(app_lease_fence(f->app, APP_LEASE_HOLDS, &now));
    lose(f, &old);
    struct movement m[] = {fix_deposit_of(ann, 1), fix_deposit_of(ann, 10), fix_deposit_of(bob, 100),
                           fix_deposit_of(bob, 1000)};
    struct job j[] = {MOVE(&m[0]), MOVE(&m[1]), MOVE(&m[2]), MOVE(&m[3])};
    j[1].fence = &old;
    j[2].fence = &now;
    j[3].fence = &old;
    fix_group(f, j, 4);
    assert_int_equal(j[0].err, PFE_OK);
    assert_int_equal(j[1].err, PFE_FENCED);
    assert_int_equal(j[2].err, PFE_OK);
    assert_int_equal(j[3].err, PFE_FENCED);
    assert_int_equal(fix_balance(f, ann), 1);
    assert_int_equal(fix_balance(f, bob), 100);
    fix_verify(f);
}

static void no_answer(void *ctx, const struct store_schedule *d, struct app_idem *idem)
{
    (void)ctx, (void)d, (void)idem;
}

static int64_t schedule(struct fix *f, int64_t owner, struct str recurrence)
{
    struct caller c = fix_caller(owner, IDENT_USER);
    struct app_idem none = {0};
    struct problem p = {0};
    struct store_schedule in = {.kind = LEDGER_DEPOSIT,
                                .amount = 100,
                                .currency = USD,
                                .anchor_us = fix_wall(f) + SECOND,
                                .recurrence = recurrence},
                          d;
    OK(app_schedule_create(f->app, &c, &in, &none, no_answer, NULL, &d, &p));
    return d.id;
}

/* Its own clock says that it may, and the store knows better: no movement, no run, no skipped time. */
static void a_late_scheduler_does_nothing(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    int64_t ids[] = {schedule(f, ann, STR("daily")), schedule(f, ann, STR_NONE)};
    struct store_schedule before[2], after;
    struct store_run run;
    struct store_fence old;
    struct ledger_account acc;
    unsigned n;
    for (unsigned i = 0; i < 2; i++)
        OK(store_schedule_get(f->box.store, &f->arena, ids[i], &before[i]));
    share(f); /* the lease is not looked after meanwhile */
    (void)app_leases_step(f->app);
    atomic_fetch_add(&f->wall, 3 * DAY); /* the wall clock alone: the first one has missed some */
    lose(f, &old);
    assert_true(held(f));
    assert_int_equal(app_schedules_run_due(f->app), fix_wall(f) + SECOND);
    assert_int_equal(store_account_get(f->box.store, ann, USD, &acc), PFE_NOT_FOUND);
    for (unsigned i = 0; i < 2; i++) {
        OK(store_schedule_get(f->box.store, &f->arena, ids[i], &after));
        assert_int_equal(after.next_us, before[i].next_us);
        assert_int_equal(after.runs, 0);
        OK(store_run_list(f->box.store, &f->arena, ids[i], 1, &run, &n));
        assert_int_equal(n, 0);
    }
    /* and once it has the lease again it does all of it */
    OK(store_lease_drop(f->box.store, STR("schedules"), OTHER));
    fix_advance(f, APP_LEASE_RENEW_US);
    (void)app_leases_step(f->app);
    (void)app_schedules_run_due(f->app);
    assert_int_equal(fix_balance(f, ann), 200);
    fix_verify(f);
}

static void a_hold_is_not_released_too_late(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    fix_post(f, fix_deposit_of(ann, 100));
    fix_post(f, (struct movement){.kind = LEDGER_HOLD,
                                  .from_user = ann,
                                  .to_user = bob,
                                  .amount = 60,
                                  .currency = USD,
                                  .expires_us = fix_wall(f) + SECOND});
    struct store_fence old;
    struct store_lease l;
    assert_true(app_lease_fence(f->app, APP_LEASE_HOLDS, &old));
    OK(store_lease_drop(f->box.store, old.name, old.holder));
    OK(store_lease_take(f->box.store, old.name, OTHER, LONG_US, &l));
    fix_advance(f, SECOND);
    assert_int_equal(app_holds_release_due(f->app), 0);
    assert_int_equal(fix_account(f, ann, USD).held, 60);
    OK(store_lease_drop(f->box.store, old.name, OTHER));
    fix_advance(f, APP_LEASE_RENEW_US);
    assert_int_equal(app_holds_release_due(f->app), 1);
    assert_int_equal(fix_account(f, ann, USD).held, 0);
}

/* ---- borrowed: deletions ---- */

static struct {
    unsigned take_at; /* another one takes the turn at the group's or transaction's begin of that number */
    enum pf_err fail; /* of group_begin */
} turn;

static void maybe_take(struct fix *f)
{
    struct store_lease l;
    if (turn.take_at == 0 || --turn.take_at)
        return;
    OK(f->real->lease_take(f->box.store, STR("deletions"), OTHER, LONG_US, &l));
    if (l.mine)
        return;
    OK(f->real->lease_drop(f->box.store, STR("deletions"), str_c(l.holder)));
    OK(f->real->lease_take(f->box.store, STR("deletions"), OTHER, LONG_US, &l));
    assert_true(l.mine);
}

static enum pf_err tx_begin(struct store *s, struct store_tx **ret)
{
    maybe_take(fix_current);
    return fix_current->real->tx_begin(s, ret);
}

static enum pf_err group_begin(struct store *s, const struct store_group_ask *ask, struct store_group *g)
{
    maybe_take(fix_current);
    return turn.fail ? turn.fail : fix_current->real->group_begin(s, ask, g);
}

static enum store_user_status status_of(struct fix *f, int64_t user)
{
    struct store_user u;
    OK(store_user_get(f->box.store, user, &u));
    return u.status;
}

/* Whoever lost its turn does not go on: neither forth nor back. */
static void a_late_deletion_stops(void **state)
{
    struct fix *f = *state;
    struct caller admin = fix_caller(0, IDENT_ADMIN);
    struct problem p = {0};
    static const struct {
        unsigned at;
        enum pf_err e;
        enum store_user_status status;
        bool closed;
    } steps[] = {
        {1, PFE_FENCED, STORE_USER_ACTIVE, false},
        {2, PFE_INTERNAL, STORE_USER_CLOSING, false},
        {3, PFE_INTERNAL, STORE_USER_CLOSING, true},
    };
    share(f);
    f->ops.tx_begin = tx_begin;
    f->ops.group_begin = group_begin;
    turn.fail = PFE_OK;
    for (unsigned i = 0; i < 3; i++) {
        int64_t user = fix_user(f, (const char *[]){"ann", "bob", "cat"}[i]);
        struct job open = {.kind = JOB_OPEN, .user = user, .currency = USD};
        OK(app_submit_wait(f->app, &open));
        turn.take_at = steps[i].at;
        assert_int_equal(app_user_delete(f->app, &admin, user, &p), steps[i].e);
        assert_int_equal(status_of(f, user), steps[i].status);
        assert_int_equal(fix_account(f, user, USD).flags, steps[i].closed ? LEDGER_CLOSED : 0);
        OK(store_lease_drop(f->box.store, STR("deletions"), OTHER));
        OK(app_user_delete(f->app, &admin, user, &p)); /* and the next one ends it */
        assert_int_equal(status_of(f, user), STORE_USER_DELETED);
    }
    struct store_lease l;
    OK(f->real->lease_take(f->box.store, STR("deletions"), OTHER, LONG_US, &l));
    assert_true(l.mine); /* given back */
    int64_t dan = fix_user(f, "dan");
    assert_int_equal(app_user_delete(f->app, &admin, dan, &p), PFE_BUSY);
    assert_int_equal(status_of(f, dan), STORE_USER_ACTIVE);
}

/* What failed for another reason than money is taken back only by who began it: else the accounts may be closed. */
static void a_deletion_is_taken_back_by_who_began_it(void **state)
{
    struct fix *f = *state;
    struct caller admin = fix_caller(0, IDENT_ADMIN);
    struct problem p = {0};
    int64_t ann = fix_user(f, "ann");
    struct job open = {.kind = JOB_OPEN, .user = ann, .currency = USD};
    OK(app_submit_wait(f->app, &open));
    f->ops.group_begin = group_begin;
    turn.take_at = 0;
    turn.fail = PFE_UNAVAILABLE;
    assert_int_equal(app_user_delete(f->app, &admin, ann, &p), PFE_UNAVAILABLE);
    assert_int_equal(status_of(f, ann), STORE_USER_ACTIVE);
    struct store_user u;
    struct store_tx *tx;
    OK(store_user_get(f->box.store, ann, &u));
    u.status = STORE_USER_CLOSING;
    OK(store_tx_begin(f->box.store, &tx));
    OK(store_user_update(tx, &u));
    OK(store_tx_commit(tx));
    assert_int_equal(app_user_delete(f->app, &admin, ann, &p), PFE_UNAVAILABLE);
    assert_int_equal(status_of(f, ann), STORE_USER_CLOSING);
    turn.fail = PFE_OK;
    OK(app_user_delete(f->app, &admin, ann, &p));
    assert_int_equal(status_of(f, ann), STORE_USER_DELETED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(an_embedded_store_grants_at_once),
        ON_MEMORY(of_a_shared_one_it_is_kept_by_renewing),
        ON_MEMORY(a_holder_that_cannot_renew_stops),
        ON_MEMORY(time_counts_from_before_it_was_asked_for),
        ON_MEMORY(others_wait_and_take_over),
        ON_BOTH(a_late_movement_is_refused_and_its_neighbours_are_not),
        ON_BOTH(a_late_scheduler_does_nothing),
        ON_BOTH(a_hold_is_not_released_too_late),
        ON_BOTH(a_late_deletion_stops),
        ON_BOTH(a_deletion_is_taken_back_by_who_began_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
