/* The ledger writer: what a group of jobs comes to. */
#include "fixture.h"

static void a_movement_is_answered_with_its_entry(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    struct movement m = fix_deposit_of(ann, 1000);
    m.description = STR("first");
    struct job j = {.kind = JOB_MOVE, .actor = bob, .m = &m, .n = 1, .atomic = true};
    OK(app_submit_wait(f->app, &j));
    assert_int_equal(m.entry.seq, 1);
    assert_int_equal(m.entry.ts, FIX_START);
    assert_int_equal(m.entry.actor, bob);
    assert_int_equal(m.entry.debit, USD);
    assert_int_equal(m.entry.credit_balance, 1000);
    assert_int_equal(m.entry.debit_balance, -1000);
    assert_true(str_eq(m.entry.description, STR("first")));
    struct uuid id;
    memcpy(id.b, m.entry.uuid, sizeof id.b);
    assert_int_equal(uuid_seq(&id), 1);

    m = fix_transfer(ann, bob, 300);
    OK(fix_move(f, &m));
    assert_int_equal(m.entry.seq, 2);
    assert_int_equal(m.entry.debit_prev, 1);
    m = fix_withdrawal(bob, 100);
    OK(fix_move(f, &m));
    assert_int_equal(fix_balance(f, ann), 700);
    assert_int_equal(fix_balance(f, bob), 200);
    fix_verify(f);
}

/* Nobody else in the group, and no account at all to lock: still a refusal, not a success with nothing in it. */
static void a_lone_refusal_is_a_refusal(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct movement m = fix_transfer(ann, ann, 100);
    struct job j = MOVE(&m);
    assert_int_equal(app_submit_wait(f->app, &j), PFE_SAME_ACCOUNT);
    assert_true(j.refusal);
    m = fix_resolve(LEDGER_ROLLBACK, 77);
    assert_int_equal(fix_move(f, &m), PFE_NOT_FOUND);
    m = fix_resolve(LEDGER_CAPTURE, 77);
    assert_int_equal(fix_move(f, &m), PFE_NOT_FOUND);
    m = fix_deposit_of(99, 1);
    assert_int_equal(fix_move(f, &m), PFE_NOT_FOUND);
    m = fix_withdrawal(ann, 1);
    assert_int_equal(fix_move(f, &m), PFE_INSUFFICIENT_FUNDS);
    m = fix_deposit_of(ann, 0);
    assert_int_equal(fix_move(f, &m), PFE_INVALID);
    m = fix_deposit_of(ann, 1);
    m.currency = 1;
    assert_int_equal(fix_move(f, &m), PFE_NOT_FOUND);
    struct ledger_account acc;
    assert_int_equal(app_balance(f->app, ann, USD, true, &acc), PFE_NOT_FOUND);
    struct store_info info;
    OK(store_info(f->box.store, &info));
    assert_int_equal(info.head_seq, 0);
}

/* 2^54 + id, shifted, would be id; 2^54 the external account. */
static void a_huge_number_is_nobody(void **state)
{
    struct fix *f = *state;
    const int64_t beyond = INT64_C(1) << 54;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    fix_post(f, fix_deposit_of(ann, 1000));
    struct movement m[] = {
        fix_transfer(ann, beyond + bob, 10), fix_transfer(ann, bob, 20), fix_transfer(ann, beyond, 30),
        fix_deposit_of(INT64_MAX, 1),        fix_deposit_of(-1, 1),      fix_deposit_of(INT64_MAX >> 10, 1)};
    enum pf_err want[] = {PFE_NOT_FOUND, PFE_OK, PFE_NOT_FOUND, PFE_NOT_FOUND, PFE_NOT_FOUND, PFE_NOT_FOUND};
    struct job j[6];
    for (unsigned i = 0; i < 6; i++)
        j[i] = MOVE(&m[i]);
    fix_group(f, j, 6);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(j[i].err, want[i]);
    assert_int_equal(fix_balance(f, bob), 20);
    struct job open = {.kind = JOB_OPEN, .user = beyond + bob, .currency = EUR};
    assert_int_equal(app_submit_wait(f->app, &open), PFE_NOT_FOUND);
    fix_verify(f);
}

static void one_bad_command_refuses_itself_only(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    fix_post(f, fix_deposit_of(ann, 100));
    struct movement m[] = {fix_transfer(ann, bob, 60), fix_transfer(ann, bob, 60), fix_transfer(bob, ann, 60),
                           fix_transfer(ann, bob, 60), fix_deposit_of(99, 5)};
    enum pf_err want[] = {PFE_OK, PFE_INSUFFICIENT_FUNDS, PFE_OK, PFE_OK, PFE_NOT_FOUND};
    struct job j[5];
    for (unsigned i = 0; i < 5; i++)
        j[i] = MOVE(&m[i]);
    fix_group(f, j, 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(j[i].err, want[i]);
        assert_int_equal(j[i].refusal, want[i] != PFE_OK);
    }
    assert_int_equal(m[2].entry.seq, m[0].entry.seq + 1);
    assert_int_equal(fix_balance(f, ann), 40);
    assert_int_equal(fix_balance(f, bob), 60);
    fix_verify(f);
}

static void an_atomic_batch_leaves_no_trace(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob"), cat = fix_user(f, "cat");
    int64_t first = fix_post(f, fix_deposit_of(ann, 100));
    fix_post(f, fix_deposit_of(bob, 5));
    /* ann's account twice, cat's made on the way, an entry resolved; the last item is refused */
    struct movement batch[] = {fix_transfer(ann, bob, 60),          fix_transfer(bob, ann, 65),
                               fix_transfer(ann, cat, 1),           fix_transfer(cat, bob, 1),
                               fix_resolve(LEDGER_ROLLBACK, first), fix_transfer(bob, cat, 500)};
    struct movement all = fix_transfer(ann, bob, 100), back = fix_resolve(LEDGER_ROLLBACK, first);
    struct movement poor = fix_withdrawal(cat, 1), refill = fix_transfer(bob, ann, 100);
    struct job j[] = {
        {.kind = JOB_MOVE, .m = batch, .n = 6, .atomic = true}, MOVE(&all), MOVE(&poor), MOVE(&refill), MOVE(&back)};
    fix_group(f, j, 5);
    assert_int_equal(j[0].err, PFE_INSUFFICIENT_FUNDS);
    assert_true(j[0].refusal);
    assert_int_equal(j[0].failed, 5);
    OK(j[1].err); /* all that ann had, to the cent */
    assert_int_equal(j[2].err, PFE_INSUFFICIENT_FUNDS);
    OK(j[3].err);
    OK(j[4].err); /* not resolved by the batch */
    assert_int_equal(fix_balance(f, ann), 0);
    assert_int_equal(fix_balance(f, bob), 5);
    struct ledger_account acc;
    assert_int_equal(app_balance(f->app, cat, USD, true, &acc), PFE_NOT_FOUND);
    fix_verify(f);

    struct movement good[] = {fix_transfer(bob, cat, 5), fix_transfer(cat, ann, 2)};
    struct job g = {.kind = JOB_MOVE, .m = good, .n = 2, .atomic = true};
    OK(app_submit_wait(f->app, &g));
    assert_int_equal(fix_balance(f, cat), 3);
    fix_verify(f);
}

static void a_loose_batch_lets_each_item_stand_alone(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    fix_post(f, fix_deposit_of(ann, 100));
    struct movement m[] = {fix_transfer(ann, ann, 1), fix_transfer(ann, bob, 70), fix_transfer(ann, bob, 70),
                           fix_transfer(ann, 99, 1), fix_transfer(ann, bob, 30)};
    struct job j = {.kind = JOB_MOVE, .m = m, .n = 5};
    OK(app_submit_wait(f->app, &j));
    assert_int_equal(m[0].err, PFE_SAME_ACCOUNT);
    OK(m[1].err);
    assert_int_equal(m[2].err, PFE_INSUFFICIENT_FUNDS);
    assert_int_equal(m[3].err, PFE_NOT_FOUND);
    OK(m[4].err);
    assert_int_equal(fix_balance(f, bob), 100);

    struct movement none[] = {fix_transfer(bob, bob, 1), fix_resolve(LEDGER_ROLLBACK, 99)};
    struct job n = {.kind = JOB_MOVE, .m = none, .n = 2};
    OK(app_submit_wait(f->app, &n));
    assert_int_equal(none[0].err, PFE_SAME_ACCOUNT);
    assert_int_equal(none[1].err, PFE_NOT_FOUND);
    fix_verify(f);
}

static void one_of_two_rollbacks_wins(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    int64_t seq = fix_post(f, fix_deposit_of(ann, 100));
    fix_post(f, fix_deposit_of(ann, 100));
    struct movement m[] = {fix_resolve(LEDGER_ROLLBACK, seq), fix_resolve(LEDGER_ROLLBACK, seq)};
    struct job j[] = {MOVE(&m[0]), MOVE(&m[1])};
    fix_group(f, j, 2);
    OK(j[0].err);
    assert_int_equal(j[1].err, PFE_ALREADY_ROLLED_BACK);
    struct movement again = fix_resolve(LEDGER_ROLLBACK, seq), of_it = fix_resolve(LEDGER_ROLLBACK, m[0].entry.seq);
    assert_int_equal(fix_move(f, &again), PFE_ALREADY_ROLLED_BACK);
    assert_int_equal(fix_move(f, &of_it), PFE_WRONG_STATE);
    assert_int_equal(fix_balance(f, ann), 100);
    fix_verify(f);
}

static void a_rollback_needs_the_money(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    int64_t seq = fix_post(f, fix_deposit_of(ann, 100));
    fix_post(f, fix_withdrawal(ann, 1));
    struct movement m = fix_resolve(LEDGER_ROLLBACK, seq);
    assert_int_equal(fix_move(f, &m), PFE_INSUFFICIENT_FUNDS);
    fix_post(f, fix_deposit_of(ann, 1));
    OK(fix_move(f, &m));
    assert_int_equal(fix_balance(f, ann), 0);
}

static void an_account_is_opened_once(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct movement m = fix_deposit_of(ann, 7);
    m.currency = EUR;
    struct job j[] = {{.kind = JOB_OPEN, .user = ann, .currency = EUR},
                      {.kind = JOB_OPEN, .user = ann, .currency = EUR},
                      MOVE(&m),
                      {.kind = JOB_OPEN, .user = ann, .currency = EUR},
                      {.kind = JOB_OPEN, .user = 99, .currency = EUR}};
    fix_group(f, j, 5);
    for (unsigned i = 0; i < 4; i++)
        OK(j[i].err);
    assert_true(j[0].created);
    assert_false(j[1].created);
    assert_false(j[3].created);
    assert_int_equal(j[0].account.id, j[1].account.id);
    assert_int_equal(j[0].account.updated_us, FIX_START);
    assert_int_equal(j[3].account.balance, 7);
    assert_int_equal(j[4].err, PFE_NOT_FOUND);
    struct job again = {.kind = JOB_OPEN, .user = ann, .currency = EUR};
    OK(app_submit_wait(f->app, &again));
    assert_false(again.created);
    assert_int_equal(fix_account(f, ann, EUR).balance, 7);
    fix_verify(f);
}

static void accounts_close_only_when_empty(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob"), cat = fix_user(f, "cat");
    struct job open = {.kind = JOB_OPEN, .user = ann, .currency = JPY};
    OK(app_submit_wait(f->app, &open));
    fix_post(f, fix_deposit_of(ann, 100));
    struct job close = {.kind = JOB_CLOSE, .user = ann};
    assert_int_equal(app_submit_wait(f->app, &close), PFE_HOLDS_MONEY);
    assert_false(close.created);
    assert_int_equal(fix_account(f, ann, JPY).flags, 0); /* all or none */

    fix_post(f, fix_transfer(ann, bob, 100));
    close = (struct job){.kind = JOB_CLOSE, .user = ann};
    OK(app_submit_wait(f->app, &close));
    assert_true(close.created);
    assert_int_equal(fix_account(f, ann, JPY).flags, LEDGER_CLOSED);
    assert_int_equal(fix_account(f, ann, USD).flags, LEDGER_CLOSED);
    struct movement m = fix_transfer(bob, ann, 1);
    assert_int_equal(fix_move(f, &m), PFE_ACCOUNT_CLOSED);

    struct job again = {.kind = JOB_CLOSE, .user = ann}, none = {.kind = JOB_CLOSE, .user = cat};
    OK(app_submit_wait(f->app, &again));
    assert_false(again.created);
    OK(app_submit_wait(f->app, &none));
    assert_false(none.created);

    struct movement hold = {.kind = LEDGER_HOLD, .from_user = bob, .amount = 100, .currency = USD};
    fix_post(f, hold);
    struct job held = {.kind = JOB_CLOSE, .user = bob};
    assert_int_equal(app_submit_wait(f->app, &held), PFE_HOLDS_MONEY);
    fix_verify(f);
}

static void a_rebuild_says_what_it_found(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    for (int i = 1; i <= 5; i++)
        fix_post(f, fix_deposit_of(ann, i));
    struct job j = {.kind = JOB_REBUILD, .user = ann, .currency = USD};
    OK(app_submit_wait(f->app, &j));
    assert_int_equal(j.stored_balance, 15);
    assert_int_equal(j.account.balance, 15);
    assert_int_equal(j.replay.events, 5);
    assert_true(j.replay.intact);
    struct job none = {.kind = JOB_REBUILD, .user = ann, .currency = EUR};
    assert_int_equal(app_submit_wait(f->app, &none), PFE_NOT_FOUND);

    struct movement m = fix_deposit_of(ann, 10);
    struct job mixed[] = {MOVE(&m), {.kind = JOB_REBUILD, .user = ann, .currency = USD}};
    fix_group(f, mixed, 2);
    OK(mixed[0].err);
    OK(mixed[1].err);
    assert_int_equal(fix_balance(f, ann), 25);

    struct ledger_account stored;
    struct store_replay r;
    OK(app_replay(f->app, ann, USD, &stored, &r));
    assert_int_equal(stored.balance, 25);
    assert_int_equal(r.balance, 25);
    assert_int_equal(r.events, 6);
    assert_int_equal(app_replay(f->app, ann, EUR, &stored, &r), PFE_NOT_FOUND);
    fix_verify(f);
}

/* ---- queue and end ---- */

static void a_full_queue_is_busy(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    fix_stop(f);
    f->cfg.queue_capacity = 4;
    fix_start(f);
    static struct movement m[6], batch[10]; /* static: if this fails, the writer still has them */
    static struct job j[6];
    for (unsigned i = 0; i < 10; i++)
        batch[i] = fix_deposit_of(ann, 1);
    fix_shut(f);
    for (unsigned i = 0; i < 4; i++) {
        m[i] = fix_deposit_of(ann, 1);
        j[i] = MOVE(&m[i]);
        OK(fix_submit(f, &j[i]));
    }
    m[4] = fix_deposit_of(ann, 1);
    j[4] = MOVE(&m[4]);
    assert_int_equal(fix_submit(f, &j[4]), PFE_BUSY);
    struct app_writer_stats s;
    app_writer_stats(f->app, &s);
    assert_int_equal(s.queued, 4);
    assert_int_equal(s.capacity, 4);
    fix_open(f);
    fix_wait(f, 5);
    assert_int_equal(fix_balance(f, ann), 4);

    struct job big = {.kind = JOB_MOVE, .m = batch, .n = 10, .atomic = true}; /* larger than the queue, alone */
    OK(app_submit_wait(f->app, &big));
    assert_int_equal(fix_balance(f, ann), 14);
}

static void *free_app(void *ctx)
{
    struct fix *f = ctx;
    app_free(f->app);
    return NULL;
}

static void a_stopping_writer_takes_nothing_and_finishes_all(void **state)
{
    enum { MOST = 10000 };
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct movement *m = calloc(MOST, sizeof *m);
    struct job *j = calloc(MOST, sizeof *j);
    pthread_t t;
    assert_non_null(m);
    assert_non_null(j);
    fix_shut(f);
    m[0] = fix_deposit_of(ann, 1);
    j[0] = MOVE(&m[0]);
    enum pf_err e = fix_submit(f, &j[0]);
    unsigned n = 1;
    OK(e);
    assert_int_equal(pthread_create(&t, NULL, free_app, f), 0);
    while (e == PFE_OK || e == PFE_BUSY) {
        assert_true(n < MOST);
        m[n] = fix_deposit_of(ann, 1);
        j[n] = MOVE(&m[n]);
        e = fix_submit(f, &j[n]);
        n += e == PFE_OK;
        usleep(100);
    }
    assert_int_equal(e, PFE_DRAINING);
    fix_open(f);
    pthread_join(t, NULL);
    assert_int_equal(f->done, n + 1); /* nothing that was taken is lost */
    for (unsigned i = 0; i < n; i++)
        OK(j[i].err);
    f->box.store->ops = f->real;
    fix_start(f);
    assert_int_equal(fix_balance(f, ann), n);
    free(j);
    free(m);
}

/* ---- holds ---- */

static int64_t hold(struct fix *f, int64_t from, int64_t to, int64_t amount, int64_t expires_us)
{
    return fix_post(f, (struct movement){.kind = LEDGER_HOLD,
                                         .from_user = from,
                                         .to_user = to,
                                         .amount = amount,
                                         .currency = USD,
                                         .expires_us = expires_us});
}

static void a_hold_is_captured_or_released_once(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), shop = fix_user(f, "shop");
    fix_post(f, fix_deposit_of(ann, 100));
    int64_t h = hold(f, ann, shop, 80, 0);
    assert_int_equal(fix_account(f, ann, USD).held, 80);
    struct movement m = fix_withdrawal(ann, 21);
    assert_int_equal(fix_move(f, &m), PFE_INSUFFICIENT_FUNDS);
    struct movement over = fix_resolve(LEDGER_CAPTURE, h);
    over.amount = 81;
    assert_int_equal(fix_move(f, &over), PFE_WRONG_STATE);

    struct movement part = fix_resolve(LEDGER_CAPTURE, h), late = fix_resolve(LEDGER_RELEASE, h);
    part.amount = 50;
    struct job j[] = {MOVE(&part), MOVE(&late)};
    fix_group(f, j, 2);
    OK(j[0].err);
    assert_int_equal(j[1].err, PFE_WRONG_STATE);
    assert_int_equal(fix_account(f, ann, USD).held, 0);
    assert_int_equal(fix_balance(f, ann), 50);
    assert_int_equal(fix_balance(f, shop), 50);

    int64_t g = hold(f, ann, 0, 50, 0);
    fix_post(f, fix_resolve(LEDGER_RELEASE, g));
    struct movement again = fix_resolve(LEDGER_CAPTURE, g);
    assert_int_equal(fix_move(f, &again), PFE_WRONG_STATE);
    assert_int_equal(fix_account(f, ann, USD).held, 0);
    fix_verify(f);
}

static void an_expired_hold_is_released(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), shop = fix_user(f, "shop");
    fix_post(f, fix_deposit_of(ann, 1000));
    int64_t soon = hold(f, ann, shop, 10, fix_wall(f) + SECOND);
    hold(f, ann, shop, 20, fix_wall(f) + 2 * SECOND);
    hold(f, ann, shop, 40, 0);
    assert_int_equal(app_holds_release_due(f->app), 0);
    fix_advance(f, SECOND);
    struct movement m = fix_resolve(LEDGER_CAPTURE, soon);
    assert_int_equal(fix_move(f, &m), PFE_WRONG_STATE);
    assert_int_equal(app_holds_release_due(f->app), 1);
    assert_int_equal(fix_account(f, ann, USD).held, 60);
    assert_int_equal(app_holds_release_due(f->app), 0);
    fix_advance(f, DAY);
    assert_int_equal(app_holds_release_due(f->app), 1);
    assert_int_equal(fix_account(f, ann, USD).held, 40);
    struct app_tx t;
    struct principal admin = {.role = IDENT_ADMIN};
    OK(app_transaction(f->app, &admin, &f->arena, soon, true, &t));
    assert_true(t.resolved_by > soon);
    OK(app_transaction(f->app, &admin, &f->arena, t.resolved_by, true, &t));
    assert_true(str_eq(t.e.origin, STR("expired")));
    fix_verify(f);
}

/* A shared store, whose every answer may take a round trip, and in which an entry is resolved by another process after
   this one looked. */
static struct {
    int64_t by; /* what the first entry asked for is resolved by */
    size_t asked;
    unsigned inside; /* reads under the lock */
    bool locked;
} other;

static enum pf_err begin_behind_another(struct store *s, const struct store_group_ask *ask, struct store_group *g)
{
    enum pf_err e = fix_current->real->group_begin(s, ask, g);
    other.locked = true;
    other.asked = ask->n_refs;
    if (ask->n_refs && other.by)
        g->resolved_by[0] = other.by;
    return e;
}

static enum pf_err commit_and_unlock(struct store *s, const struct store_commit *c)
{
    other.locked = false;
    return fix_current->real->group_commit(s, c);
}

static enum pf_err count_entry_get(struct store *s, struct arena *a, int64_t seq, struct ledger_entry *ret, int64_t *by)
{
    other.inside += other.locked;
    return fix_current->real->entry_get(s, a, seq, ret, by);
}

static enum pf_err count_account_by_id(struct store *s, int64_t id, struct ledger_account *ret)
{
    other.inside += other.locked;
    return fix_current->real->account_by_id(s, id, ret);
}

static void what_others_resolved_is_asked_for_once(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), seq[4];
    for (unsigned i = 0; i < 4; i++)
        seq[i] = fix_post(f, fix_deposit_of(ann, 100 + i));
    f->ops.shared = true;
    f->ops.group_begin = begin_behind_another;
    f->ops.group_commit = commit_and_unlock;
    f->ops.entry_get = count_entry_get;
    f->ops.account_by_id = count_account_by_id;
    memset(&other, 0, sizeof other);
    other.by = 77;
    struct movement m[] = {fix_resolve(LEDGER_ROLLBACK, seq[0]), fix_resolve(LEDGER_ROLLBACK, seq[1]),
                           fix_resolve(LEDGER_ROLLBACK, 99), fix_resolve(LEDGER_ROLLBACK, seq[2])};
    struct job j = {.kind = JOB_MOVE, .m = m, .n = 4, .arena = &f->arena};
    OK(app_submit_wait(f->app, &j));
    assert_int_equal(m[0].err, PFE_ALREADY_ROLLED_BACK);
    OK(m[1].err);
    assert_int_equal(m[2].err, PFE_NOT_FOUND);
    OK(m[3].err);
    assert_int_equal(other.asked, 3);
    assert_int_equal(other.inside, 0);

    other.by = 0; /* and the next group starts afresh */
    struct movement again[] = {fix_resolve(LEDGER_ROLLBACK, seq[1]), fix_resolve(LEDGER_ROLLBACK, seq[3])};
    j = (struct job){.kind = JOB_MOVE, .m = again, .n = 2, .arena = &f->arena};
    OK(app_submit_wait(f->app, &j));
    assert_int_equal(again[0].err, PFE_ALREADY_ROLLED_BACK);
    OK(again[1].err);
    assert_int_equal(other.asked, 2);
    assert_int_equal(other.inside, 0);
    assert_int_equal(fix_balance(f, ann), 100);
    fix_verify(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_movement_is_answered_with_its_entry),
        ON_BOTH(a_lone_refusal_is_a_refusal),
        ON_MEMORY(a_huge_number_is_nobody),
        ON_MEMORY(one_bad_command_refuses_itself_only),
        ON_BOTH(an_atomic_batch_leaves_no_trace),
        ON_BOTH(a_loose_batch_lets_each_item_stand_alone),
        ON_BOTH(one_of_two_rollbacks_wins),
        ON_MEMORY(a_rollback_needs_the_money),
        ON_BOTH(an_account_is_opened_once),
        ON_BOTH(accounts_close_only_when_empty),
        ON_BOTH(a_rebuild_says_what_it_found),
        ON_MEMORY(a_full_queue_is_busy),
        ON_MEMORY(a_stopping_writer_takes_nothing_and_finishes_all),
        ON_BOTH(a_hold_is_captured_or_released_once),
        ON_BOTH(an_expired_hold_is_released),
        ON_BOTH(what_others_resolved_is_asked_for_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
