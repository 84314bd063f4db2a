/* Reading balances and transactions; the cache, health and reconciliation. */
#include "fixture.h"

#include <unistd.h>

static void a_balance_is_cached_until_it_changes(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct ledger_account acc;
    struct cache_stats s;
    fix_post(f, fix_deposit_of(ann, 5));
    OK(app_balance(f->app, ann, USD, true, &acc));
    cache_stats(f->cache, &s, 1);
    uint64_t hits = s.hits;
    OK(app_balance(f->app, ann, USD, true, &acc));
    cache_stats(f->cache, &s, 1);
    assert_int_equal(s.hits, hits + 1);
    fix_post(f, fix_withdrawal(ann, 2));
    OK(app_balance(f->app, ann, USD, true, &acc));
    assert_int_equal(acc.balance, 3);
    int64_t h = fix_post(f, (struct movement){.kind = LEDGER_HOLD, .from_user = ann, .amount = 3, .currency = USD});
    OK(app_balance(f->app, ann, USD, true, &acc));
    assert_int_equal(acc.held, 3);
    fix_post(f, fix_resolve(LEDGER_RELEASE, h));
    OK(app_balance(f->app, ann, USD, true, &acc));
    assert_int_equal(acc.held, 0);
}

struct reader {
    struct fix *f;
    int64_t user;
    struct ledger_account read;
    enum pf_err err;
};

static void read_balance(struct job *j)
{
    struct reader *r = j->ctx;
    r->err = app_balance(r->f->app, r->user, USD, true, &r->read);
    j->ctx = r->f;
    fix_done(j);
}

/* As a client that reads the moment it hears. */
static void what_is_answered_can_be_read(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct ledger_account acc;
    fix_post(f, fix_deposit_of(ann, 5));
    fix_post(f, fix_deposit_of(fix_user(f, "bob"), 1)); /* the writer is done with ann: what is cached now stays */
    OK(app_balance(f->app, ann, USD, true, &acc));
    struct reader r = {.f = f, .user = ann};
    struct movement m = fix_withdrawal(ann, 2);
    struct job j = MOVE(&m);
    j.arena = &f->arena;
    j.ctx = &r;
    j.done = read_balance;
    OK(app_submit(f->app, &j));
    fix_wait(f, 1);
    OK(j.err);
    OK(r.err);
    assert_int_equal(r.read.balance, 3);
}

static void a_balance_as_it_stood(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), at;
    struct problem p = {0};
    OK(app_balance_at(f->app, ann, USD, FIX_START, &at, &p));
    assert_int_equal(at, 0);
    for (int i = 0; i < 5; i++) {
        fix_post(f, fix_deposit_of(ann, 10));
        fix_advance(f, 2 * SECOND);
    }
    for (int i = 0; i < 10; i++) {
        OK(app_balance_at(f->app, ann, USD, FIX_START + i * SECOND, &at, &p));
        assert_int_equal(at, 10 * (i / 2 + 1));
    }
    OK(app_balance_at(f->app, ann, USD, FIX_START - 1, &at, &p));
    assert_int_equal(at, 0);
    OK(app_balance_at(f->app, ann, USD, fix_wall(f), &at, &p));
    assert_int_equal(at, 50);
    assert_int_equal(app_balance_at(f->app, ann, USD, fix_wall(f) + 1, &at, &p), PFE_INVALID);
}

static void a_transaction_is_shown_to_its_parties(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob"), eve = fix_user(f, "eve"), found;
    fix_post(f, fix_deposit_of(ann, 100));
    struct movement m = fix_transfer(ann, bob, 40);
    m.description = STR("rent");
    int64_t seq = fix_post(f, m);
    struct app_tx t;
    struct principal a = {.user = ann}, b = {.user = bob}, e = {.user = eve}, none = {0}, admin = {.role = IDENT_ADMIN};
    assert_int_equal(app_transaction(f->app, &a, &f->arena, seq, false, &t), PFE_BUSY);
    assert_int_equal(app_transaction(f->app, &e, &f->arena, seq, true, &t), PFE_NOT_FOUND);
    assert_int_equal(app_transaction(f->app, &none, &f->arena, seq, true, &t), PFE_NOT_FOUND);
    assert_int_equal(app_transaction(f->app, &none, &f->arena, 1, true, &t), PFE_NOT_FOUND); /* a side is external */
    OK(app_transaction(f->app, &a, &f->arena, seq, false, &t));                              /* from the cache now */
    assert_true(str_eq(t.e.description, STR("rent")));
    assert_int_equal(t.debit_owner, ann);
    assert_int_equal(t.credit_owner, bob);
    OK(app_transaction(f->app, &b, &f->arena, seq, true, &t));
    OK(app_transaction(f->app, &admin, &f->arena, seq, true, &t));
    assert_int_equal(t.resolved_by, 0);
    assert_int_equal(app_transaction(f->app, &admin, &f->arena, 99, true, &t), PFE_NOT_FOUND);
    assert_int_equal(app_transaction(f->app, &admin, &f->arena, 0, true, &t), PFE_NOT_FOUND);
    assert_int_equal(app_transaction(f->app, &admin, &f->arena, -1, true, &t), PFE_NOT_FOUND);

    uint8_t uuid[16];
    memcpy(uuid, t.e.uuid, 16);
    OK(app_transaction_seq(f->app, &f->arena, uuid, &found));
    assert_int_equal(found, seq);
    uuid[6] ^= 1; /* the number is right, the rest is not */
    assert_int_equal(app_transaction_seq(f->app, &f->arena, uuid, &found), PFE_NOT_FOUND);

    struct problem p = {0};
    assert_int_equal(app_rollback_check(f->app, &a, seq, &p), PFE_FORBIDDEN);
    assert_int_equal(app_rollback_check(f->app, &e, seq, &p), PFE_NOT_FOUND);
    OK(app_rollback_check(f->app, &b, seq, &p));
    OK(app_rollback_check(f->app, &admin, seq, &p));
    OK(app_rollback_check(f->app, &a, 1, &p)); /* a deposit: its receiver gives it back */
    fix_post(f, fix_resolve(LEDGER_ROLLBACK, seq));
    OK(app_transaction(f->app, &a, &f->arena, seq, true, &t)); /* not what was cached */
    assert_int_equal(t.resolved_by, seq + 1);
}

static bool name_key(void *ctx, struct str key, int64_t ttl_us)
{
    unsigned *n = ctx;
    assert_true(ttl_us > 0);
    *n += str_starts(key, STR("user:")) || str_starts(key, STR("balance:"));
    return true;
}

static void the_cache_is_warmed_and_dropped(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    struct caller c = fix_caller(0, IDENT_ADMIN);
    uint64_t n = 0;
    unsigned keys = 0;
    struct movement m = fix_deposit_of(ann, 1);
    fix_post(f, m);
    m.currency = EUR;
    fix_post(f, m);
    fix_post(f, fix_deposit_of(bob, 1));
    assert_int_equal(app_cache_warmup(f->app, &c, 99, &n), PFE_NOT_FOUND);
    OK(app_cache_warmup(f->app, &c, ann, &n));
    assert_int_equal(n, 3);
    struct store_user u;
    OK(app_user(f->app, ann, false, &u));
    assert_int_equal(app_user(f->app, bob, false, &u), PFE_BUSY);
    OK(app_cache_warmup(f->app, &c, 0, &n));
    assert_int_equal(n, 5);
    OK(cache_keys(f->cache, STR("*"), 100, name_key, &keys));
    assert_int_equal(keys, 5);
    OK(app_cache_invalidate(f->app, &c, ann, STR_NONE, &n));
    assert_int_equal(n, 3);
    assert_int_equal(app_user(f->app, ann, false, &u), PFE_BUSY);
    OK(app_user(f->app, bob, false, &u));
    OK(app_cache_invalidate(f->app, &c, 0, STR("balance:*"), &n));
    assert_int_equal(n, 1);
    assert_int_equal(fix_audits(f, "cache.invalidate"), 2);
    assert_int_equal(fix_audits(f, "cache.*"), 4);
    for (int i = 0; i < 230; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%d", i);
        fix_user(f, name);
    }
    OK(app_cache_warmup(f->app, &c, 0, &n)); /* over several pages */
    assert_int_equal(n, 235);
}

static void the_books_are_shown_to_balance(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct app_reconciliation *r = calloc(1, sizeof *r);
    struct movement yen = {.kind = LEDGER_DEPOSIT, .to_user = ann, .amount = 700, .currency = JPY};
    assert_non_null(r);
    fix_post(f, fix_deposit_of(ann, 100));
    fix_post(f, fix_withdrawal(ann, 30));
    fix_post(f, yen);
    OK(app_reconcile(f->app, &(struct caller){.who = {.role = IDENT_ADMIN}}, r));
    assert_true(r->verify.ok);
    assert_int_equal(r->verify.entries, 3);
    assert_int_equal(r->n_trial, 2);
    for (unsigned i = 0; i < r->n_trial; i++) {
        assert_int_equal(r->trial[i].sum, 0);
        assert_int_equal(r->trial[i].user_balance, r->trial[i].currency == USD ? 70 : 700);
    }
    OK(app_reconcile(f->app, &(struct caller){.who = {.role = IDENT_ADMIN}}, r)); /* and again: not busy for ever */
    free(r);

    struct store_stat s[16];
    unsigned n = 0;
    OK(app_stats(f->app, STORE_WINDOW_ALL, s, 16, &n));
    assert_int_equal(n, 3);
    fix_advance(f, 2 * DAY);
    OK(app_stats(f->app, STORE_WINDOW_DAY, s, 16, &n));
    assert_int_equal(n, 0);
}

static void a_rebuild_is_audited(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct caller c = fix_caller(0, IDENT_ADMIN);
    struct job j;
    fix_post(f, fix_deposit_of(ann, 100));
    OK(app_rebuild(f->app, &c, ann, USD, &j));
    assert_int_equal(j.account.balance, 100);
    assert_int_equal(j.replay.events, 1);
    assert_int_equal(app_rebuild(f->app, &c, ann, EUR, &j), PFE_NOT_FOUND);
    assert_int_equal(fix_audits(f, "balance.rebuild"), 2);
    assert_int_equal(fix_balance(f, ann), 100);
}

static enum pf_err ill_info(struct store *s, struct store_info *ret)
{
    enum pf_err e = fix_current->real->info(s, ret);
    ret->writable = false;
    ret->fatal = fix_current->fail == PFE_INTERNAL;
    return e;
}

static enum pf_err no_info(struct store *s, struct store_info *ret)
{
    (void)s, (void)ret;
    return PFE_UNAVAILABLE;
}

static void health_says_how_it_is(void **state)
{
    struct fix *f = *state;
    struct app_health h;
    int64_t ann = fix_user(f, "ann");
    fix_post(f, fix_deposit_of(ann, 1));
    app_health(f->app, &h);
    assert_int_equal(h.state, APP_UP);
    assert_string_equal(app_health_name(h.state), "UP");
    assert_int_equal(h.store.head_seq, 1);
    f->ops.info = ill_info;
    app_health(f->app, &h);
    assert_int_equal(h.parts[APP_CHECK_DATABASE].state, APP_DEGRADED);
    assert_int_equal(h.state, APP_DEGRADED);
    f->fail = PFE_INTERNAL;
    app_health(f->app, &h);
    assert_int_equal(h.state, APP_DOWN);
    f->fail = PFE_OK;
    f->ops.info = no_info;
    app_health(f->app, &h);
    assert_int_equal(h.state, APP_DOWN);
    f->ops.info = f->real->info;

    struct movement *m = calloc(FIX_CAPACITY, sizeof *m);
    assert_non_null(m);
    for (int i = 0; i < FIX_CAPACITY; i++)
        m[i] = fix_deposit_of(ann, 1);
    struct job j = {.kind = JOB_MOVE, .m = m, .n = FIX_CAPACITY};
    fix_shut(f);
    OK(fix_submit(f, &j));
    app_health(f->app, &h);
    assert_int_equal(h.parts[APP_CHECK_WRITER].state, APP_DEGRADED);
    fix_open(f);
    fix_wait(f, 2);
    app_health(f->app, &h);
    assert_int_equal(h.state, APP_UP);
    free(m);
}

static struct {
    _Atomic int infos, looks;
    _Atomic bool inside, go;
} probe;

static enum pf_err slow_info(struct store *s, struct store_info *ret)
{
    atomic_fetch_add(&probe.infos, 1);
    atomic_store(&probe.inside, true);
    while (!atomic_load(&probe.go))
        usleep(1000);
    return fix_current->real->info(s, ret);
}

static int64_t counted_wall(void *ctx)
{
    atomic_fetch_add(&probe.looks, 1);
    return fix_wall(ctx);
}

static void *ask_health(void *ctx)
{
    app_health(fix_current->app, ctx);
    return NULL;
}

/* Who asks while somebody else does waits for that answer, and has its time and its reason. */
static void health_is_asked_for_once(void **state)
{
    struct fix *f = *state;
    struct app_health h[2];
    pthread_t t[2];
    memset(&probe, 0, sizeof probe);
    f->ops.info = slow_info;
    f->clock.wall_us = counted_wall;
    assert_int_equal(pthread_create(&t[0], NULL, ask_health, &h[0]), 0);
    for (int i = 0; i < 10000 && !atomic_load(&probe.inside); i++)
        usleep(1000);
    assert_int_equal(pthread_create(&t[1], NULL, ask_health, &h[1]), 0);
    for (int i = 0; i < 5000 && !atomic_load(&probe.looks); i++)
        usleep(1000); /* the second one looks whether there are results; the first one has none yet */
    fix_advance(f, 5 * SECOND);
    atomic_store(&probe.go, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(h[i].state, APP_UP);
        assert_in_range(h[i].parts[APP_CHECK_DATABASE].at_us, fix_wall(f) - SECOND, fix_wall(f));
        assert_string_equal(h[i].parts[APP_CHECK_DATABASE].details, "{}");
        assert_string_equal(h[i].store.engine, "memory");
    }
    assert_int_equal(probe.infos, 1);
    f->ops.info = no_info;
    app_health(f->app, &h[0]);
    assert_int_equal(h[0].parts[APP_CHECK_DATABASE].state, APP_DOWN);
    assert_string_equal(h[0].parts[APP_CHECK_DATABASE].details, "{\"reason\":\"it does not answer\"}");
    assert_int_equal(h[0].parts[APP_CHECK_WRITER].state, APP_UP);
}

struct page {
    int64_t seq[64];
    unsigned n;
};

static bool keep(void *ctx, const struct ledger_entry *e, int64_t resolved_by)
{
    struct page *p = ctx;
    (void)resolved_by;
    p->seq[p->n++] = e->seq;
    return true;
}

static void the_journal_is_read_in_order(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct page p = {0};
    for (int i = 0; i < 10; i++)
        fix_post(f, fix_deposit_of(ann, 1));
    OK(app_journal_page(f->app, 3, 4, keep, &p));
    assert_int_equal(p.n, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(p.seq[i], 4 + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_balance_is_cached_until_it_changes),
        ON_BOTH(what_is_answered_can_be_read),
        ON_BOTH(a_balance_as_it_stood),
        ON_BOTH(a_transaction_is_shown_to_its_parties),
        ON_MEMORY(the_cache_is_warmed_and_dropped),
        ON_BOTH(the_books_are_shown_to_balance),
        ON_BOTH(a_rebuild_is_audited),
        ON_MEMORY(health_says_how_it_is),
        ON_MEMORY(health_is_asked_for_once),
        ON_MEMORY(the_journal_is_read_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
