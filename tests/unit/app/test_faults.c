/* A store whose commit fails: nothing is acknowledged that did not happen. */
#include "fixture.h"

static void a_full_disk_undoes_the_whole_group(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    fix_post(f, fix_deposit_of(ann, 100));
    int64_t seq = fix_post(f, fix_deposit_of(bob, 50));
    struct movement m[] = {fix_withdrawal(ann, 100), fix_withdrawal(ann, 1), fix_resolve(LEDGER_ROLLBACK, seq),
                           fix_resolve(LEDGER_ROLLBACK, seq), fix_transfer(bob, bob, 1)};
    struct job j[6];
    for (unsigned i = 0; i < 5; i++)
        j[i] = MOVE(&m[i]);
    j[5] = (struct job){.kind = JOB_OPEN, .user = ann, .currency = EUR};
    fix_shut(f);
    for (unsigned i = 0; i < 6; i++)
        OK(fix_submit(f, &j[i]));
    f->fail = PFE_DISK_FULL;
    f->fail_n = 2; /* the group in the gate, and ours */
    fix_open(f);
    fix_wait(f, 7);
    assert_int_equal(f->plug.err, PFE_DISK_FULL);
    /* also what was refused on the strength of something that then did not happen */
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(j[i].err, PFE_DISK_FULL);
        assert_false(j[i].refusal);
    }
    assert_int_equal(atomic_load(&f->fatal), 0);
    assert_int_equal(fix_balance(f, ann), 100);
    assert_int_equal(fix_balance(f, bob), 50);
    struct ledger_account acc;
    assert_int_equal(app_balance(f->app, ann, EUR, true, &acc), PFE_NOT_FOUND);
    struct app_health h;
    app_health(f->app, &h);
    assert_int_equal(h.parts[APP_CHECK_WRITER].state, APP_UP);

    fix_post(f, fix_resolve(LEDGER_ROLLBACK, seq)); /* there is room again */
    assert_int_equal(fix_balance(f, bob), 0);
    fix_verify(f);
}

/* A key that another instance used meanwhile, or a row that it changed, is one job's doing: none of the others is at
   fault. */
static void a_group_lost_to_one_of_its_jobs_is_nobodys_fault(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    static const enum pf_err lost[] = {PFE_IN_FLIGHT, PFE_WRONG_STATE, PFE_SOLD_OUT};
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++) {
        struct movement m = fix_deposit_of(ann, 1);
        struct job open = {.kind = JOB_OPEN, .user = ann, .currency = EUR};
        f->fail = lost[i];
        f->fail_n = 2;
        assert_int_equal(fix_move(f, &m), PFE_UNAVAILABLE);
        assert_int_equal(app_submit_wait(f->app, &open), PFE_UNAVAILABLE);
    }
    fix_post(f, fix_deposit_of(ann, 1));
    assert_int_equal(fix_balance(f, ann), 1);
    fix_verify(f);
}

/* store_group_commit ends the group whatever it returns: no abort after it. */
static void a_commit_without_memory_ends_its_group_once(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct movement m = fix_deposit_of(ann, 1);
    f->fail = PFE_NOMEM;
    f->fail_n = 1;
    assert_int_equal(fix_move(f, &m), PFE_NOMEM);
    assert_int_equal(atomic_load(&f->aborts), 0);
    fix_post(f, fix_deposit_of(ann, 2));
    assert_int_equal(fix_balance(f, ann), 2);
    m = fix_withdrawal(ann, 3);
    assert_int_equal(fix_move(f, &m), PFE_INSUFFICIENT_FUNDS); /* nothing to commit */
    assert_int_equal(atomic_load(&f->aborts), 1);
}

static void an_unknown_outcome_is_the_end(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    fix_post(f, fix_deposit_of(ann, 100));
    struct movement m[] = {fix_deposit_of(ann, 1), fix_withdrawal(ann, 500), fix_deposit_of(ann, 1)};
    struct job j[] = {MOVE(&m[0]), MOVE(&m[1]), MOVE(&m[2])};
    struct job rebuild = {.kind = JOB_REBUILD, .user = ann, .currency = USD};
    fix_shut(f);
    f->fail = PFE_INTERNAL;
    f->fail_n = 1;
    for (unsigned i = 0; i < 3; i++)
        OK(fix_submit(f, &j[i]));
    OK(fix_submit(f, &rebuild));
    fix_open(f);
    fix_wait(f, 5);
    assert_int_equal(f->plug.err, PFE_INTERNAL);
    for (unsigned i = 0; i < 3; i++) /* they waited behind it: surely not done */
        assert_int_equal(j[i].err, PFE_UNAVAILABLE);
    assert_int_equal(rebuild.err, PFE_UNAVAILABLE);
    struct movement late = fix_deposit_of(ann, 1);
    assert_int_equal(fix_move(f, &late), PFE_UNAVAILABLE);
    struct app_health h;
    app_health(f->app, &h);
    assert_int_equal(h.parts[APP_CHECK_WRITER].state, APP_DOWN);
    assert_int_equal(h.parts[APP_CHECK_DATABASE].state, APP_DOWN);
    assert_int_equal(h.state, APP_DOWN);
    struct app_writer_stats s;
    app_writer_stats(f->app, &s);
    assert_true(s.dead);
    fix_stop(f); /* the writer has had its last word */
    assert_int_equal(atomic_load(&f->fatal), 1);
    fix_start(f);
    assert_int_equal(fix_balance(f, ann), 100);
}

static void a_user_is_not_lost_when_closing_fails(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct job open = {.kind = JOB_OPEN, .user = ann, .currency = USD};
    OK(app_submit_wait(f->app, &open));
    struct caller admin = fix_caller(0, IDENT_ADMIN);
    struct problem p = {0};
    f->fail = PFE_DISK_FULL;
    f->fail_n = 1;
    assert_int_equal(app_user_delete(f->app, &admin, ann, &p), PFE_DISK_FULL);
    struct store_user u;
    OK(store_user_get(f->box.store, ann, &u));
    assert_int_equal(u.status, STORE_USER_ACTIVE);
    fix_post(f, fix_deposit_of(ann, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_full_disk_undoes_the_whole_group),          ON_BOTH(a_group_lost_to_one_of_its_jobs_is_nobodys_fault),
        ON_BOTH(a_commit_without_memory_ends_its_group_once), ON_MEMORY(an_unknown_outcome_is_the_end),
        ON_MEMORY(a_user_is_not_lost_when_closing_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
