/* One Idempotency-Key, one effect, one answer. */
#include "fixture.h"

static unsigned renders;

static void render(struct job *j)
{
    char *text = arena_alloc(j->arena, 64);
    int n = snprintf(text, 64, "answer %u: %lld", ++renders, (long long)(j->n ? j->m[0].entry.seq : j->account.id));
    j->idem.status = 201;
    j->idem.body = (struct str){text, (size_t)n};
}

static struct app_idem key_of(int64_t principal, const char *key, const char *request)
{
    struct app_idem i = {.principal = principal, .key = str_c(key)};
    sha256_of(str_c(request), i.request);
    return i;
}

/* As the api does it: reserve, ask, give up again. */
static enum pf_err ask(struct fix *f, struct job *j, const char *key, const char *request)
{
    j->idem = key_of(1, key, request);
    j->arena = &f->arena;
    j->render = render;
    enum pf_err e = app_idem_begin(f->app, &j->idem);
    if (e != PFE_OK)
        return e;
    e = app_submit_wait(f->app, j);
    app_idem_end(f->app, &j->idem);
    assert_false(j->idem.reserved);
    return e;
}

static void the_first_answer_comes_again(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct movement m = fix_deposit_of(ann, 10), n = fix_deposit_of(ann, 10), other = fix_deposit_of(ann, 11);
    struct job first = MOVE(&m), again = MOVE(&n), changed = MOVE(&other), restarted = MOVE(&n);
    OK(ask(f, &first, "k", "deposit 10"));
    assert_false(first.idem.replayed);
    OK(ask(f, &again, "k", "deposit 10"));
    assert_true(again.idem.replayed);
    assert_int_equal(again.idem.status, 201);
    assert_true(str_eq(again.idem.body, first.idem.body));
    assert_int_equal(ask(f, &changed, "k", "deposit 11"), PFE_KEY_REUSED);
    assert_int_equal(fix_balance(f, ann), 10);

    fix_restart(f);
    OK(ask(f, &restarted, "k", "deposit 10"));
    assert_true(restarted.idem.replayed);
    assert_true(str_eq(restarted.idem.body, first.idem.body));
    assert_int_equal(fix_balance(f, ann), 10);

    struct job mine = MOVE(&n); /* another principal's key of the same name is another key */
    mine.idem = key_of(2, "k", "deposit 10");
    mine.render = render;
    mine.arena = &f->arena;
    OK(app_submit_wait(f->app, &mine));
    assert_false(mine.idem.replayed);
    assert_int_equal(fix_balance(f, ann), 20);
}

static void a_refusal_is_not_kept(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct movement m = fix_withdrawal(ann, 10), n = m;
    struct job poor = MOVE(&m), rich = MOVE(&n);
    assert_int_equal(ask(f, &poor, "k", "withdraw 10"), PFE_INSUFFICIENT_FUNDS);
    fix_post(f, fix_deposit_of(ann, 10));
    OK(ask(f, &rich, "k", "withdraw 10"));
    assert_false(rich.idem.replayed);
    assert_int_equal(fix_balance(f, ann), 0);
}

/* Opening an account that is there changes nothing, alone in its group too: the answer is kept all the same. */
static void a_success_without_effect_is_kept(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct job open = {.kind = JOB_OPEN, .user = ann, .currency = EUR}, a = open, b = open, c = open;
    OK(app_submit_wait(f->app, &open));
    OK(ask(f, &a, "again", "open"));
    assert_false(a.idem.replayed);
    OK(ask(f, &b, "again", "open"));
    assert_true(b.idem.replayed);
    assert_true(str_eq(a.idem.body, b.idem.body));
    assert_int_equal(ask(f, &c, "again", "open another"), PFE_KEY_REUSED);
}

static void the_row_names_the_first_entry(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    fix_post(f, fix_deposit_of(ann, 10));
    struct movement m[] = {fix_transfer(ann, bob, 11), fix_transfer(ann, bob, 3), fix_transfer(ann, bob, 4)};
    struct job j = {.kind = JOB_MOVE, .m = m, .n = 3};
    OK(ask(f, &j, "batch", "batch"));
    struct store_idem row;
    OK(store_idem_get(f->box.store, &f->arena, 1, STR("batch"), &row));
    assert_int_equal(row.seq, m[1].entry.seq);
}

static void a_key_in_use_is_in_flight(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct movement m = fix_deposit_of(ann, 10), n = m;
    struct job first = MOVE(&m), second = MOVE(&n);
    first.idem = key_of(1, "k", "x");
    first.render = render;
    OK(app_idem_begin(f->app, &first.idem));
    assert_true(first.idem.reserved);
    struct app_idem twice = key_of(1, "k", "x");
    assert_int_equal(app_idem_begin(f->app, &twice), PFE_IN_FLIGHT);
    fix_shut(f);
    OK(fix_submit(f, &first));
    assert_int_equal(ask(f, &second, "k", "x"), PFE_IN_FLIGHT);
    assert_int_equal(ask(f, &second, "k", "another body"), PFE_IN_FLIGHT);
    assert_false(second.idem.reserved);
    struct app_idem elsewhere = key_of(2, "k", "x");
    OK(app_idem_begin(f->app, &elsewhere)); /* not of this principal */
    app_idem_end(f->app, &elsewhere);
    fix_open(f);
    fix_wait(f, 2);
    app_idem_end(f->app, &first.idem);
    app_idem_end(f->app, &first.idem); /* twice is once */
    OK(ask(f, &second, "k", "x"));
    assert_true(second.idem.replayed);
    assert_int_equal(fix_balance(f, ann), 10);
}

static void without_a_key_nothing_is_kept(void **state)
{
    struct fix *f = *state;
    struct app_idem none = {.principal = 1};
    OK(app_idem_begin(f->app, &none));
    assert_false(none.reserved);
    OK(app_idem_lookup(f->app, &f->arena, &none));
    assert_false(none.replayed);
    app_idem_end(f->app, &none);
}

/* A commit that fails keeps no key: the retry does it. */
static void a_failed_commit_keeps_no_key(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct movement m = fix_deposit_of(ann, 10), n = m;
    struct job first = MOVE(&m), second = MOVE(&n);
    f->fail = PFE_DISK_FULL;
    f->fail_n = 1;
    assert_int_equal(ask(f, &first, "k", "x"), PFE_DISK_FULL);
    OK(ask(f, &second, "k", "x"));
    assert_false(second.idem.replayed);
    assert_int_equal(fix_balance(f, ann), 10);
}

static void render_nothing(struct job *j)
{
    j->idem.status = 0;
}

/* An answer that could not be written is not kept in part, and its movement does not happen. */
static void no_memory_for_the_answer_is_no_movement(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct movement m = fix_deposit_of(ann, 10), n = m;
    struct job first = MOVE(&m), second = MOVE(&n);
    first.idem = key_of(1, "k", "x");
    first.render = render_nothing;
    first.arena = &f->arena;
    assert_int_equal(app_submit_wait(f->app, &first), PFE_NOMEM);
    assert_int_equal(atomic_load(&f->aborts), 1);
    OK(ask(f, &second, "k", "x"));
    assert_false(second.idem.replayed);
    assert_int_equal(fix_balance(f, ann), 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(the_first_answer_comes_again),     ON_MEMORY(a_refusal_is_not_kept),
        ON_BOTH(a_success_without_effect_is_kept), ON_MEMORY(the_row_names_the_first_entry),
        ON_MEMORY(a_key_in_use_is_in_flight),      ON_MEMORY(without_a_key_nothing_is_kept),
        ON_BOTH(a_failed_commit_keeps_no_key),     ON_BOTH(no_memory_for_the_answer_is_no_movement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
