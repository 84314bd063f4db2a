/* Schedules: each due time moves money once, whatever happens in between. */
#include "fixture.h"

#define NOON (FIX_START + 12 * 3600 * SECOND)

static void no_answer(void *ctx, const struct store_schedule *d, struct app_idem *idem)
{
    (void)ctx, (void)d;
    idem->status = 201;
    idem->body = STR("{}");
}

static enum pf_err create(struct fix *f, int64_t owner, struct store_schedule in, struct store_schedule *ret)
{
    struct caller c = fix_caller(owner, IDENT_USER);
    struct app_idem none = {0};
    struct problem p = {0};
    if (!in.amount)
        in.amount = 100;
    in.currency = USD;
    if (!in.kind)
        in.kind = LEDGER_DEPOSIT;
    enum pf_err e = app_schedule_create(f->app, &c, &in, &none, no_answer, NULL, ret, &p);
    assert_int_equal(p.code, e);
    return e;
}

static int64_t created(struct fix *f, int64_t owner, struct store_schedule in)
{
    struct store_schedule d;
    OK(create(f, owner, in, &d));
    assert_int_equal(d.status, SCHED_PENDING);
    assert_int_equal(d.next_us, in.anchor_us);
    return d.id;
}

static struct store_schedule get(struct fix *f, int64_t id)
{
    struct store_schedule d;
    OK(store_schedule_get(f->box.store, &f->arena, id, &d));
    return d;
}

static unsigned runs(struct fix *f, int64_t id, struct store_run out[64])
{
    unsigned n = 0;
    OK(app_schedule_runs(f->app, &f->arena, id, 64, out, &n));
    return n;
}

static unsigned count(struct fix *f, int64_t id, enum store_run_outcome what)
{
    struct store_run r[64];
    unsigned n = runs(f, id, r), hits = 0;
    for (unsigned i = 0; i < n; i++)
        hits += r[i].outcome == what;
    return hits;
}

static int64_t run_at(struct fix *f, int64_t at)
{
    fix_advance(f, at - fix_wall(f));
    return app_schedules_run_due(f->app);
}

static void what_makes_no_sense_is_refused(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct store_schedule d;
    assert_int_equal(create(f, ann, (struct store_schedule){.anchor_us = FIX_START}, &d), PFE_INVALID);
    assert_int_equal(create(f, ann, (struct store_schedule){.anchor_us = NOON, .end_us = NOON - 1}, &d), PFE_INVALID);
    assert_int_equal(create(f, ann, (struct store_schedule){.anchor_us = NOON, .recurrence = STR("hourly")}, &d),
                     PFE_INVALID);
    struct store_schedule to = {.anchor_us = NOON, .kind = LEDGER_TRANSFER, .to_user = ann};
    assert_int_equal(create(f, ann, to, &d), PFE_SAME_ACCOUNT);
    to.to_user = 99;
    assert_int_equal(create(f, ann, to, &d), PFE_NOT_FOUND);
}

static void once_is_once(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), id = created(f, ann, (struct store_schedule){.anchor_us = NOON});
    struct store_run r[64];
    assert_int_equal(app_schedules_run_due(f->app), NOON);
    assert_int_equal(run_at(f, NOON - 1), NOON);
    assert_int_equal(get(f, id).status, SCHED_PENDING);
    assert_int_equal(run_at(f, NOON), 0);
    assert_int_equal(run_at(f, NOON + DAY), 0);
    assert_int_equal(fix_balance(f, ann), 100);
    assert_int_equal(get(f, id).status, SCHED_COMPLETED);
    assert_int_equal(get(f, id).runs, 1);
    assert_int_equal(runs(f, id, r), 1);
    assert_int_equal(r[0].outcome, STORE_RUN_DONE);
    assert_int_equal(r[0].due_us, NOON);
    struct app_tx t;
    OK(app_transaction(f->app, &(struct principal){.user = ann}, &f->arena, r[0].seq, true, &t));
    assert_true(str_starts(t.e.origin, STR("schedule:")));
    assert_int_equal(t.e.actor, ann);
}

static void daily_monthly_and_cron_go_on(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob"), cat = fix_user(f, "cat");
    int64_t daily = created(f, ann, (struct store_schedule){.anchor_us = NOON, .recurrence = STR("daily")});
    int64_t monthly = created(
        f, bob, (struct store_schedule){.anchor_us = NOON + 30 * DAY, .recurrence = STR("monthly"), .max_runs = 2});
    int64_t cron = created(
        f, cat, (struct store_schedule){.anchor_us = NOON, .recurrence = STR("30 6 * * 1"), .end_us = NOON + 20 * DAY});
    assert_int_equal(run_at(f, NOON), NOON + DAY);
    for (int64_t at = NOON + DAY; at <= NOON + 89 * DAY; at += DAY)
        run_at(f, at);
    assert_int_equal(fix_balance(f, ann), 9000);
    assert_int_equal(get(f, daily).status, SCHED_ACTIVE);
    assert_int_equal(get(f, daily).next_us, NOON + 90 * DAY);
    assert_int_equal(fix_balance(f, bob), 200); /* 31 January and 28 February */
    assert_int_equal(get(f, monthly).status, SCHED_COMPLETED);
    assert_int_equal(get(f, monthly).last_us, NOON + 58 * DAY);
    assert_int_equal(fix_balance(f, cat), 400); /* the anchor, then the Mondays 5, 12, 19 January */
    assert_int_equal(get(f, cron).status, SCHED_COMPLETED);
    assert_int_equal(count(f, cron, STORE_RUN_SKIPPED), 0);
    fix_verify(f);
}

static void of_missed_times_the_latest_is_made_up(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    int64_t id = created(f, ann, (struct store_schedule){.anchor_us = NOON, .recurrence = STR("daily")});
    int64_t ended = created(
        f, bob, (struct store_schedule){.anchor_us = NOON, .recurrence = STR("daily"), .end_us = NOON + 3 * DAY});
    struct store_run r[64];
    run_at(f, NOON);
    fix_restart(f);
    assert_int_equal(run_at(f, NOON + 5 * DAY + SECOND), NOON + 6 * DAY);
    assert_int_equal(fix_balance(f, ann), 200);
    assert_int_equal(runs(f, id, r), 6);
    assert_int_equal(r[0].outcome, STORE_RUN_DONE);
    assert_int_equal(r[0].due_us, NOON + 5 * DAY);
    assert_int_equal(count(f, id, STORE_RUN_SKIPPED), 4);
    assert_int_equal(get(f, id).next_us, NOON + 6 * DAY);
    assert_int_equal(get(f, id).runs, 2);

    assert_int_equal(fix_balance(f, bob), 200);
    assert_int_equal(runs(f, ended, r), 4);
    assert_int_equal(r[0].due_us, NOON + 3 * DAY);
    assert_int_equal(get(f, ended).status, SCHED_COMPLETED);
}

static void a_refusal_is_noted_and_five_in_a_row_are_the_end(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    int64_t id = created(f, ann,
                         (struct store_schedule){
                             .anchor_us = NOON, .recurrence = STR("daily"), .kind = LEDGER_TRANSFER, .to_user = bob});
    int64_t once = created(f, ann, (struct store_schedule){.anchor_us = NOON, .kind = LEDGER_WITHDRAW});
    struct store_run r[64];
    for (int i = 0; i < 4; i++)
        run_at(f, NOON + i * DAY);
    assert_int_equal(get(f, once).status, SCHED_FAILED);
    assert_int_equal(get(f, id).refusals, 4);
    assert_int_equal(get(f, id).runs, 0);
    assert_true(str_eq(get(f, id).last_error, STR("insufficient-funds")));
    runs(f, id, r);
    assert_int_equal(r[0].outcome, STORE_RUN_REFUSED);
    assert_true(str_eq(r[0].error, STR("insufficient-funds")));
    assert_int_equal(r[0].seq, 0);

    fix_post(f, fix_deposit_of(ann, 100)); /* one success and the count begins anew */
    run_at(f, NOON + 4 * DAY);
    assert_int_equal(get(f, id).refusals, 0);
    assert_int_equal(get(f, id).last_error.n, 0);
    assert_int_equal(get(f, id).status, SCHED_ACTIVE);
    for (int i = 5; i < 10; i++) {
        assert_int_equal(get(f, id).status, SCHED_ACTIVE);
        run_at(f, NOON + i * DAY);
    }
    assert_int_equal(get(f, id).status, SCHED_FAILED);
    assert_int_equal(get(f, id).next_us, 0);
    fix_post(f, fix_deposit_of(ann, 1000));
    run_at(f, NOON + 10 * DAY);
    assert_int_equal(fix_balance(f, bob), 100);
}

/* ---- crashes ---- */

/* The movement of the due time is made and the note of it is not: what a crash in between leaves. */
static int64_t move_without_note(struct fix *f, int64_t id, int64_t due, int64_t to)
{
    char key[64];
    struct movement m = fix_deposit_of(to, 100);
    int n = snprintf(key, sizeof key, "schedule:%lld:%lld", (long long)id, (long long)due);
    struct store_idem row = {
        .principal = STORE_PRINCIPAL_SCHEDULER, .key = {key, (size_t)n}, .status = 201, .body = STR("{}")};
    sha256_of(row.key, row.request);
    OK(fix_move(f, &m));
    row.seq = m.entry.seq;
    struct store_tx *tx;
    OK(store_tx_begin(f->box.store, &tx));
    OK(store_idem_put(tx, &row));
    OK(store_tx_commit(tx));
    return m.entry.seq;
}

static void a_crash_before_the_note_moves_nothing_twice(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), id = created(f, ann, (struct store_schedule){.anchor_us = NOON});
    struct store_run r[64];
    fix_advance(f, NOON - FIX_START);
    int64_t seq = move_without_note(f, id, NOON, ann);
    fix_restart(f);
    app_schedules_run_due(f->app);
    assert_int_equal(fix_balance(f, ann), 100);
    assert_int_equal(get(f, id).status, SCHED_COMPLETED);
    assert_int_equal(runs(f, id, r), 1);
    assert_int_equal(r[0].seq, seq);
    assert_int_equal(r[0].outcome, STORE_RUN_DONE);
}

/* Down for days after that crash: the run that was made counts as made, not as skipped, and against max_runs. */
static void a_run_made_before_a_long_crash_counts(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    int64_t id = created(f, ann, (struct store_schedule){.anchor_us = NOON, .recurrence = STR("daily")});
    int64_t last =
        created(f, ann, (struct store_schedule){.anchor_us = NOON, .recurrence = STR("daily"), .max_runs = 1});
    fix_advance(f, NOON - FIX_START);
    int64_t seq = move_without_note(f, id, NOON, ann);
    move_without_note(f, last, NOON, ann);
    fix_restart(f);
    run_at(f, NOON + 3 * DAY);
    struct store_run r[64];
    assert_int_equal(runs(f, id, r), 4);
    assert_int_equal(r[0].outcome, STORE_RUN_DONE); /* the latest, made up */
    assert_int_equal(r[3].outcome, STORE_RUN_DONE);
    assert_int_equal(r[3].seq, seq);
    assert_int_equal(count(f, id, STORE_RUN_SKIPPED), 2);
    assert_int_equal(get(f, id).runs, 2);
    assert_int_equal(get(f, last).runs, 1);
    assert_int_equal(get(f, last).status, SCHED_COMPLETED);
    assert_int_equal(fix_balance(f, ann), 300);
}

/* The same with a time that was itself being made up when the crash came. */
static void a_made_up_run_before_a_crash_counts(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    int64_t id = created(f, ann, (struct store_schedule){.anchor_us = NOON, .recurrence = STR("daily")});
    fix_advance(f, NOON + 2 * DAY - FIX_START);
    /* the skipped ones are noted first, in a commit of their own; then the movement; then nothing more */
    f->fail = PFE_DISK_FULL;
    f->fail_n = 1;
    int64_t next = app_schedules_run_due(f->app);
    assert_int_equal(next, fix_wall(f) + SECOND); /* to be tried again */
    assert_int_equal(count(f, id, STORE_RUN_SKIPPED), 2);
    assert_int_equal(get(f, id).next_us, NOON + 2 * DAY);
    assert_int_equal(get(f, id).status, SCHED_PENDING);
    move_without_note(f, id, NOON + 2 * DAY, ann);
    fix_restart(f);
    run_at(f, NOON + 4 * DAY);
    assert_int_equal(count(f, id, STORE_RUN_SKIPPED), 3);
    assert_int_equal(count(f, id, STORE_RUN_DONE), 2);
    assert_int_equal(get(f, id).runs, 2);
    assert_int_equal(fix_balance(f, ann), 200);
}

static void a_store_in_trouble_is_no_refusal(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), id = created(f, ann, (struct store_schedule){.anchor_us = NOON});
    fix_advance(f, NOON - FIX_START);
    static const enum pf_err trouble[] = {PFE_DISK_FULL, PFE_IN_FLIGHT, PFE_WRONG_STATE, PFE_UNAVAILABLE};
    struct store_run r[64];
    for (size_t i = 0; i < sizeof trouble / sizeof *trouble; i++) {
        f->fail = trouble[i];
        f->fail_n = 1;
        assert_int_equal(app_schedules_run_due(f->app), fix_wall(f) + SECOND);
        assert_int_equal(runs(f, id, r), 0);
        assert_int_equal(get(f, id).refusals, 0);
    }
    app_schedules_run_due(f->app);
    assert_int_equal(get(f, id).status, SCHED_COMPLETED);
    assert_int_equal(fix_balance(f, ann), 100);
}

/* ---- cancelling ---- */

static enum pf_err cancel(struct fix *f, struct caller c, int64_t id)
{
    struct store_schedule d;
    struct problem p = {0};
    char ref[24];
    int n = snprintf(ref, sizeof ref, "%lld", (long long)id);
    return app_schedule_cancel(f->app, &c, &f->arena, (struct str){ref, (size_t)n}, &d, &p);
}

static void what_is_cancelled_does_not_run(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    int64_t id = created(f, ann, (struct store_schedule){.anchor_us = NOON, .recurrence = STR("daily")});
    struct caller a = fix_caller(ann, IDENT_USER), b = fix_caller(bob, IDENT_USER);
    struct store_schedule d;
    assert_int_equal(cancel(f, b, id), PFE_NOT_FOUND);
    assert_int_equal(app_schedule_get(f->app, &b.who, &f->arena, STR("1"), &d), PFE_NOT_FOUND);
    OK(app_schedule_get(f->app, &a.who, &f->arena, STR("1"), &d));
    run_at(f, NOON);
    fix_advance(f, DAY); /* due, and cancelled before anybody looked */
    OK(cancel(f, a, id));
    assert_int_equal(run_at(f, NOON + 2 * DAY), 0);
    assert_int_equal(fix_balance(f, ann), 100);
    assert_int_equal(get(f, id).status, SCHED_CANCELLED);
    assert_int_equal(cancel(f, a, id), PFE_WRONG_STATE);
    assert_int_equal(fix_audits(f, "schedule.cancel"), 1);
}

struct cancelling {
    struct fix *f;
    int64_t owner, id;
    enum pf_err err;
    _Atomic bool back;
};

static void *cancel_thread(void *ctx)
{
    struct cancelling *c = ctx;
    struct arena arena;
    struct store_schedule d;
    struct problem p = {0};
    struct caller who = fix_caller(c->owner, IDENT_USER);
    char ref[24];
    arena_init(&arena, NULL, 0, 1 << 20);
    int n = snprintf(ref, sizeof ref, "%lld", (long long)c->id);
    c->err = app_schedule_cancel(c->f->app, &who, &arena, (struct str){ref, (size_t)n}, &d, &p);
    c->back = true;
    arena_reset(&arena);
    return NULL;
}

static void *run_thread(void *ctx)
{
    app_schedules_run_due(((struct cancelling *)ctx)->f->app);
    return NULL;
}

/* While the first of two due schedules moves its money, the second is cancelled: once that is acknowledged it is so. */
static void a_cancellation_amid_a_round_holds(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    created(f, ann, (struct store_schedule){.anchor_us = NOON});
    struct cancelling c = {.f = f, .owner = bob};
    c.id = created(f, bob, (struct store_schedule){.anchor_us = NOON + 1, .recurrence = STR("daily")});
    pthread_t round, other;
    fix_advance(f, NOON + 1 - FIX_START);
    pthread_mutex_lock(&f->lock);
    f->shut = true;
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(pthread_create(&round, NULL, run_thread, &c), 0);
    pthread_mutex_lock(&f->lock);
    while (!f->inside)
        pthread_cond_wait(&f->moved, &f->lock);
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(pthread_create(&other, NULL, cancel_thread, &c), 0);
    usleep(20000);
    assert_false(c.back);
    fix_open(f);
    pthread_join(round, NULL);
    pthread_join(other, NULL);
    OK(c.err);
    assert_int_equal(fix_balance(f, ann), 100);
    struct store_schedule d = get(f, c.id);
    assert_int_equal(d.status, SCHED_CANCELLED);
    assert_int_equal(d.next_us, 0);
    assert_int_equal(fix_account(f, bob, USD).balance, 100 * d.runs); /* it had its turn before, or not at all */
    run_at(f, NOON + 5 * DAY);
    assert_int_equal(fix_account(f, bob, USD).balance, 100 * d.runs);
}

/* A second instance over the same store cancels just before a transaction of the first one begins: the nth from now. */
static struct {
    struct app *app;
    int64_t owner, id;
    unsigned at;
} elsewhere;

static enum pf_err begin_too_late(struct store *s, struct store_tx **ret)
{
    struct fix *f = fix_current;
    if (elsewhere.at && --elsewhere.at == 0) {
        struct app *here = f->app;
        f->app = elsewhere.app;
        enum pf_err e = cancel(f, fix_caller(elsewhere.owner, IDENT_USER), elsewhere.id);
        f->app = here;
        OK(e);
    }
    return f->real->tx_begin(s, ret);
}

static void cancelled_elsewhere(struct fix *f, const char *owner, int missed, unsigned at)
{
    struct metrics *metrics = metrics_new();
    struct app_deps deps = {.store = f->box.store, .cache = f->cache, .clock = &f->clock, .metrics = metrics};
    int64_t user = fix_user(f, owner), due = fix_wall(f) + SECOND;
    int64_t id = created(f, user, (struct store_schedule){.anchor_us = due, .recurrence = STR("daily")});
    elsewhere.app = app_new(&f->cfg, &deps);
    assert_non_null(elsewhere.app);
    elsewhere.owner = user;
    elsewhere.id = id;
    elsewhere.at = at;
    f->ops.tx_begin = begin_too_late;
    run_at(f, due + missed * DAY);
    assert_int_equal(elsewhere.at, 0);
    app_free(elsewhere.app);
    metrics_free(metrics);
    for (int day = 1; day <= 3; day++)
        run_at(f, due + (missed + day) * DAY);
    struct store_schedule d = get(f, id);
    assert_int_equal(d.status, SCHED_CANCELLED);
    assert_int_equal(d.next_us, 0);
    assert_int_equal(count(f, id, STORE_RUN_DONE), d.runs);
    struct ledger_account acc = {0};
    enum pf_err e = store_account_get(f->box.store, user, USD, &acc);
    assert_int_equal(e, d.runs ? PFE_OK : PFE_NOT_FOUND);
    assert_int_equal(acc.balance, 100 * d.runs);
    if (at == 1 && missed) /* not begun: nothing is moved, nothing noted */
        assert_int_equal(d.runs + count(f, id, STORE_RUN_SKIPPED), 0);
    else
        assert_int_equal(d.last_us, due + missed * DAY);
}

/* Of several instances one runs and another cancels: what was acknowledged as cancelled does not come back to life. */
static void a_cancellation_by_another_instance_holds(void **state)
{
    struct fix *f = *state;
    cancelled_elsewhere(f, "ann", 0, 1); /* moved, and to be noted */
    cancelled_elsewhere(f, "bob", 2, 1); /* the missed ones are to be noted */
    cancelled_elsewhere(f, "cat", 2, 2);
    fix_verify(f);
}

static void many_due_at_once_all_run(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    for (int i = 0; i < 150; i++)
        created(f, ann, (struct store_schedule){.anchor_us = NOON + i, .recurrence = STR("daily")});
    assert_int_equal(run_at(f, NOON + SECOND), NOON + DAY);
    assert_int_equal(fix_balance(f, ann), 15000);
    fix_verify(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_MEMORY(what_makes_no_sense_is_refused),
        ON_BOTH(once_is_once),
        ON_MEMORY(daily_monthly_and_cron_go_on),
        ON_BOTH(of_missed_times_the_latest_is_made_up),
        ON_BOTH(a_refusal_is_noted_and_five_in_a_row_are_the_end),
        ON_BOTH(a_crash_before_the_note_moves_nothing_twice),
        ON_BOTH(a_run_made_before_a_long_crash_counts),
        ON_BOTH(a_made_up_run_before_a_crash_counts),
        ON_MEMORY(a_store_in_trouble_is_no_refusal),
        ON_BOTH(what_is_cancelled_does_not_run),
        ON_BOTH(a_cancellation_amid_a_round_holds),
        ON_BOTH(a_cancellation_by_another_instance_holds),
        ON_MEMORY(many_due_at_once_all_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
