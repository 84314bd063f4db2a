/* The app under threads: every answer true, no balance older than the last acknowledged movement, a revoked key
 * refused from then on. Runs under ThreadSanitizer too. */
#include "fixture.h"

#include <sched.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 250, USERS = 12, KEYS = 40, START = 10000 };

struct worker {
    struct fix *f;
    const int64_t *user;
    uint64_t seed;
    int64_t change[USERS]; /* what the answers say it did to each user */
    int64_t seq[ROUNDS];   /* entries that it was told of */
    unsigned n, replays, in_flight;
};

static unsigned below(struct worker *w, unsigned n)
{
    w->seed = w->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(w->seed >> 33) % n;
}

static void render(struct job *j)
{
    j->idem.status = 201;
    j->idem.body = STR("done");
}

static void *move_about(void *ctx)
{
    struct worker *w = ctx;
    struct arena arena;
    arena_init(&arena, NULL, 0, 1 << 20);
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned from = below(w, USERS), to = below(w, USERS), k = below(w, KEYS);
        struct movement m = fix_transfer(w->user[from], w->user[to], 1 + below(w, 3000));
        struct job j = MOVE(&m);
        char key[16];
        arena_reset(&arena);
        j.arena = &arena;
        j.render = render;
        if (i % 3 == 0) { /* a key that others use too, for the same request */
            int n = snprintf(key, sizeof key, "key-%u", k);
            j.idem.key = (struct str){key, (size_t)n};
            m = fix_transfer(w->user[k % USERS], w->user[(k + 1) % USERS], 1);
            from = k % USERS;
            to = (k + 1) % USERS;
        }
        if (app_idem_begin(w->f->app, &j.idem) != PFE_OK) {
            w->in_flight++;
            continue;
        }
        enum pf_err e = app_submit_wait(w->f->app, &j);
        app_idem_end(w->f->app, &j.idem);
        if (e == PFE_OK && j.idem.replayed) {
            w->replays++;
        } else if (e == PFE_OK) {
            w->change[from] -= m.amount;
            w->change[to] += m.amount;
            w->seq[w->n++] = m.entry.seq;
        }
    }
    arena_reset(&arena);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void answers_add_up(void **state)
{
    struct fix *f = *state;
    struct worker *w = calloc(THREADS, sizeof *w);
    int64_t user[USERS], seq[THREADS * ROUNDS], sum = 0;
    size_t n = 0;
    pthread_t t[THREADS];
    char name[16];
    assert_non_null(w);
    for (int i = 0; i < USERS; i++) {
        snprintf(name, sizeof name, "u%d", i);
        user[i] = fix_user(f, name);
        fix_post(f, fix_deposit_of(user[i], START));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct worker){.f = f, .user = user, .seed = i + 1};
        assert_int_equal(pthread_create(&t[i], NULL, move_about, &w[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    for (int u = 0; u < USERS; u++) {
        int64_t want = START;
        for (int i = 0; i < THREADS; i++)
            want += w[i].change[u];
        assert_int_equal(fix_balance(f, user[u]), want);
        sum += want;
    }
    assert_int_equal(sum, (int64_t)USERS * START);
    /* each entry was told to one caller, and none is left over */
    for (int i = 0; i < THREADS; i++)
        for (unsigned k = 0; k < w[i].n; k++)
            seq[n++] = w[i].seq[k];
    qsort(seq, n, sizeof *seq, ascending);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(seq[i], USERS + 1 + (int64_t)i);
    struct store_info info;
    OK(store_info(f->box.store, &info));
    assert_int_equal(info.head_seq, USERS + (int64_t)n);
    fix_verify(f);
    free(w);
}

/* ---- balances ---- */

struct ledger_race {
    struct fix *f;
    int64_t user;
    _Atomic int64_t acked;
    _Atomic uint64_t reads, stale;
    _Atomic bool done;
};

static void *read_balance(void *ctx)
{
    struct ledger_race *r = ctx;
    while (!atomic_load(&r->done)) {
        struct ledger_account acc;
        int64_t least = atomic_load(&r->acked);
        if (app_balance(r->f->app, r->user, USD, true, &acc) != PFE_OK || acc.balance < least)
            atomic_fetch_add(&r->stale, 1);
        atomic_fetch_add(&r->reads, 1);
    }
    return NULL;
}

static void a_balance_is_never_older_than_its_answer(void **state)
{
    enum { READERS = 3, DEPOSITS = 2000, LEAST_READS = 2000, DEPOSITS_MAX = 100000 };
    struct fix *f = *state;
    struct ledger_race r = {.f = f, .user = fix_user(f, "ann")};
    pthread_t t[READERS];
    fix_post(f, fix_deposit_of(r.user, 1));
    atomic_store(&r.acked, 1);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, read_balance, &r), 0);
    for (int i = 0; i < DEPOSITS || (atomic_load(&r.reads) < LEAST_READS && i < DEPOSITS_MAX); i++) {
        struct movement m = fix_deposit_of(r.user, 1);
        OK(fix_move(f, &m));
        atomic_store(&r.acked, m.entry.credit_balance);
    }
    atomic_store(&r.done, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&r.stale), 0);
    assert_true(atomic_load(&r.reads) >= LEAST_READS);
}

/* A rollback is seen in its original as soon as it is answered, cached or not. */
static void *read_transaction(void *ctx)
{
    struct ledger_race *r = ctx;
    const struct principal admin = {.role = IDENT_ADMIN};
    while (!atomic_load(&r->done)) {
        char block[2048];
        struct arena arena;
        struct app_tx t;
        int64_t seq = atomic_load(&r->acked);
        arena_init(&arena, block, sizeof block, 1 << 16);
        if (app_transaction(r->f->app, &admin, &arena, seq, true, &t) != PFE_OK || t.resolved_by == 0)
            atomic_fetch_add(&r->stale, 1);
        /* and the one that may be on its way: fills the cache with what is not so for long */
        if (app_transaction(r->f->app, &admin, &arena, seq + 2, true, &t) == PFE_OK)
            atomic_fetch_add(&r->reads, 1);
        arena_reset(&arena);
    }
    return NULL;
}

static void a_rollback_shows_at_once(void **state)
{
    enum { READERS = 3, ROLLBACKS = 500 };
    struct fix *f = *state;
    struct ledger_race r = {.f = f, .user = fix_user(f, "ann")};
    pthread_t t[READERS];
    int64_t seq = fix_post(f, fix_deposit_of(r.user, 1));
    fix_post(f, fix_resolve(LEDGER_ROLLBACK, seq));
    atomic_store(&r.acked, seq);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, read_transaction, &r), 0);
    for (int i = 0; i < ROLLBACKS; i++) {
        seq = fix_post(f, fix_deposit_of(r.user, 1));
        sched_yield();
        fix_post(f, fix_resolve(LEDGER_ROLLBACK, seq));
        atomic_store(&r.acked, seq);
    }
    atomic_store(&r.done, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&r.stale), 0);
}

/* ---- credentials ---- */

struct key_race {
    struct fix *f;
    char key[64][APP_APIKEY_LEN + 1];
    _Atomic unsigned revoked; /* keys below this are revoked for certain */
    _Atomic uint64_t wrong;
    _Atomic bool done;
};

static void *use_keys(void *ctx)
{
    struct key_race *r = ctx;
    while (!atomic_load(&r->done))
        for (unsigned i = 0; i < 64; i++) {
            struct principal who;
            struct problem p = {0};
            bool must_fail = i < atomic_load(&r->revoked);
            enum app_auth a = app_authenticate(r->f->app, str_c(r->key[i]), STR_NONE, i % 2, &who, &p);
            if (must_fail && a == APP_AUTH_OK)
                atomic_fetch_add(&r->wrong, 1);
        }
    return NULL;
}

static void a_revoked_key_stays_out(void **state)
{
    enum { USERS_OF_KEYS = 3 };
    struct fix *f = *state;
    struct key_race r = {.f = f};
    int64_t user = fix_user(f, "ann");
    struct caller c = fix_caller(user, IDENT_USER);
    pthread_t t[USERS_OF_KEYS];
    for (unsigned i = 0; i < 64; i++)
        OK(app_apikey_issue(f->app, &c, user, r.key[i]));
    for (int i = 0; i < USERS_OF_KEYS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, use_keys, &r), 0);
    for (unsigned i = 0; i < 64; i++) {
        OK(app_apikey_revoke(f->app, &c, user, (int64_t)i + 1));
        atomic_store(&r.revoked, i + 1);
        usleep(500);
    }
    atomic_store(&r.done, true);
    for (int i = 0; i < USERS_OF_KEYS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&r.wrong), 0);
}

/* ---- deleting ---- */

struct delete_race {
    struct fix *f;
    int64_t user;
    _Atomic int deleted, gone, money;
};

static void *delete_user(void *ctx)
{
    struct delete_race *r = ctx;
    struct caller admin = fix_caller(0, IDENT_ADMIN);
    struct problem p = {0};
    enum pf_err e = app_user_delete(r->f->app, &admin, r->user, &p);
    atomic_fetch_add(e == PFE_OK ? &r->deleted : e == PFE_NOT_FOUND ? &r->gone : &r->money, 1);
    return NULL;
}

/* Of several at once one deletes, or all say that there is money; the user is never left without accounts. */
static void deletions_do_not_undo_each_other(void **state)
{
    enum { ROUNDS_OF = 60, AT_ONCE = 4 };
    struct fix *f = *state;
    for (int i = 0; i < ROUNDS_OF; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%d", i);
        struct delete_race r = {.f = f, .user = fix_user(f, name)};
        pthread_t t[AT_ONCE];
        fix_post(f, fix_deposit_of(r.user, 1));
        for (int k = 0; k < AT_ONCE; k++)
            assert_int_equal(pthread_create(&t[k], NULL, delete_user, &r), 0);
        fix_post(f, fix_withdrawal(r.user, 1));
        for (int k = 0; k < AT_ONCE; k++)
            pthread_join(t[k], NULL);
        struct store_user u;
        OK(store_user_get(f->box.store, r.user, &u));
        bool closed = fix_account(f, r.user, USD).flags & LEDGER_CLOSED;
        assert_int_equal(u.status, r.deleted ? STORE_USER_DELETED : STORE_USER_ACTIVE);
        assert_int_equal(closed, r.deleted != 0);
        assert_true(r.deleted <= 1);
        assert_int_equal(r.gone > 0 && !r.deleted, false);
        assert_int_equal(r.deleted + r.gone + r.money, AT_ONCE);
    }
    fix_verify(f);
}

/* Two instances over one store. The second one's deletion is refused, and before it takes its first step back the money
   leaves and the first one deletes too. */
static struct {
    struct app *first, *second;
    int64_t user;
    pthread_t thread;
    _Atomic bool refused, asked, closed, back;
    enum pf_err e;
} two;

static void *delete_at_the_first(void *ctx)
{
    struct movement m = fix_withdrawal(two.user, 1);
    struct job j = {.kind = JOB_MOVE, .m = &m, .n = 1, .atomic = true};
    struct caller admin = fix_caller(0, IDENT_ADMIN);
    struct problem p = {0};
    OK(app_submit_wait(two.first, &j));
    two.e = app_user_delete(two.first, &admin, two.user, &p);
    return ctx;
}

static void until(_Atomic bool *a, _Atomic bool *b)
{
    for (int i = 0; i < 10000 && !atomic_load(a) && !atomic_load(b); i++)
        usleep(1000);
    assert_true(atomic_load(a) || atomic_load(b));
}

static void abort_late(struct store *s)
{
    fix_current->real->group_abort(s);
    if (atomic_exchange(&two.refused, true))
        return;
    assert_int_equal(pthread_create(&two.thread, NULL, delete_at_the_first, NULL), 0);
    until(&two.asked, &two.closed);
}

static enum pf_err take_while_refused(struct store *s, struct str name, struct str holder, int64_t ttl_us,
                                      struct store_lease *ret)
{
    enum pf_err e = fix_current->real->lease_take(s, name, holder, ttl_us, ret);
    if (atomic_load(&two.refused))
        atomic_store(&two.asked, true);
    return e;
}

static enum pf_err commit_close_late(struct store *s, const struct store_commit *c)
{
    bool close = c->n_entries && c->entries[0].kind == LEDGER_CLOSE;
    enum pf_err e = fix_current->real->group_commit(s, c);
    if (close) {
        atomic_store(&two.closed, true);
        until(&two.back, &two.back);
    }
    return e;
}

static void deletions_of_two_instances_take_turns(void **state)
{
    struct fix *f = *state;
    struct caller admin = fix_caller(0, IDENT_ADMIN);
    struct problem p = {0};
    struct store_user u;
    struct cache *cache =
        cache_local_new(&(struct cache_local_options){.max_entries = 100, .max_bytes = 1 << 20, .clock = &f->clock});
    memset(&two, 0, sizeof two);
    two.user = fix_user(f, "ann");
    fix_post(f, fix_deposit_of(two.user, 1));
    f->ops.shared = true;
    f->ops.group_abort = abort_late;
    f->ops.group_commit = commit_close_late;
    f->ops.lease_take = take_while_refused;
    two.first = f->app;
    two.second = app_new(&f->cfg, &(struct app_deps){.store = f->box.store,
                                                     .cache = cache,
                                                     .clock = &f->clock,
                                                     .metrics = f->metrics,
                                                     .on_fatal = fix_fatal,
                                                     .fatal_ctx = f});
    assert_non_null(two.second);
    assert_int_equal(app_user_delete(two.second, &admin, two.user, &p), PFE_HOLDS_MONEY);
    atomic_store(&two.back, true);
    pthread_join(two.thread, NULL);
    OK(two.e);
    OK(store_user_get(f->box.store, two.user, &u));
    assert_int_equal(u.status, STORE_USER_DELETED);
    assert_true(fix_account(f, two.user, USD).flags & LEDGER_CLOSED);

    app_free(two.second);
    cache_close(cache);
    fix_verify(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(answers_add_up),
        ON_MEMORY(a_balance_is_never_older_than_its_answer),
        ON_BOTH(a_rollback_shows_at_once),
        ON_MEMORY(a_revoked_key_stays_out),
        ON_BOTH(deletions_do_not_undo_each_other),
        ON_MEMORY(deletions_of_two_instances_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
