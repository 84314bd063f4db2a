/*
 * fixture: the whole app room over a real store engine, the in-process cache and a clock that the test moves.
 *
 * The store's group_commit goes through a gate. While it is shut the ledger writer waits inside a commit, so that what
 * is submitted meanwhile is decided as one group; and it can be told to fail instead of committing.
 */
#ifndef TESTS_APP_FIXTURE_H
#define TESTS_APP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "app/accounts.h"
#include "app/admin.h"
#include "app/identity.h"
#include "app/lease.h"
#include "app/movement.h"
#include "app/schedules.h"
#include "cache/local/local.h"
#include "codec/crypt.h"
#include "codec/uuid.h"
#include "contract/engines.h"

#define OK(e) assert_int_equal((e), PFE_OK)

enum { USD = 840, EUR = 978, JPY = 392 };
enum { FIX_CAPACITY = 1000, FIX_FATAL_MAX = 8 };
#define SECOND INT64_C(1000000)
#define DAY (86400 * SECOND)
#define FIX_START (INT64_C(1767225600) * SECOND) /* 2026-01-01T00:00:00Z */

struct fix {
    struct engine_box box;
    struct cache *cache;
    struct metrics *metrics;
    struct documents *documents; /* a test's own; NULL: none */
    struct clock clock;
    _Atomic int64_t wall, mono;
    struct app *app;
    struct arena arena;
    struct app_config cfg;
    _Atomic int fatal; /* calls of on_fatal */

    const struct store_ops *real;
    struct store_ops ops;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool shut, inside;
    unsigned fail_n; /* commits to fail from now on */
    enum pf_err fail;
    unsigned done; /* jobs that came back */
    _Atomic int aborts;
    int64_t plug_user;
    struct job plug;
    struct movement plug_move;
};

static struct fix *fix_current;

static inline int64_t fix_wall(void *ctx)
{
    return atomic_load(&((struct fix *)ctx)->wall);
}

static inline int64_t fix_mono(void *ctx)
{
    return atomic_load(&((struct fix *)ctx)->mono);
}

static inline void fix_advance(struct fix *f, int64_t us)
{
    atomic_fetch_add(&f->wall, us);
    atomic_fetch_add(&f->mono, us);
}

static inline enum pf_err fix_commit(struct store *s, const struct store_commit *c)
{
    struct fix *f = fix_current;
    pthread_mutex_lock(&f->lock);
    f->inside = true;
    pthread_cond_broadcast(&f->moved);
    while (f->shut)
        pthread_cond_wait(&f->moved, &f->lock);
    f->inside = false;
    enum pf_err e = f->fail_n ? f->fail : PFE_OK;
    f->fail_n -= f->fail_n > 0;
    pthread_mutex_unlock(&f->lock);
    if (e == PFE_OK)
        return f->real->group_commit(s, c);
    f->real->group_abort(s);
    return e;
}

static inline void fix_abort(struct store *s)
{
    atomic_fetch_add(&fix_current->aborts, 1);
    fix_current->real->group_abort(s);
}

static inline void fix_fatal(void *ctx)
{
    atomic_fetch_add(&((struct fix *)ctx)->fatal, 1);
}

static inline void fix_start(struct fix *f)
{
    f->real = f->box.store->ops;
    f->ops = *f->real;
    f->ops.group_commit = fix_commit;
    f->ops.group_abort = fix_abort;
    f->box.store->ops = &f->ops;
    f->app = app_new(&f->cfg, &(struct app_deps){.store = f->box.store,
                                                 .cache = f->cache,
                                                 .clock = &f->clock,
                                                 .metrics = f->metrics,
                                                 .documents = f->documents,
                                                 .on_fatal = fix_fatal,
                                                 .fatal_ctx = f});
    assert_non_null(f->app);
}

static inline struct fix *fix_new(const struct engine *engine)
{
    struct fix *f = calloc(1, sizeof *f);
    assert_non_null(f);
    fix_current = f;
    f->wall = FIX_START;
    f->mono = SECOND;
    f->clock = (struct clock){fix_wall, fix_mono, f};
    f->cfg = (struct app_config){.dev = true,
                                 .bcrypt_cost = 4,
                                 .password_min = 8,
                                 .jwt_secret = STR("a secret of at least thirty-two bytes"),
                                 .currency = USD,
                                 .queue_capacity = FIX_CAPACITY,
                                 .group_max = 512};
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->moved, NULL);
    arena_init(&f->arena, NULL, 0, 256 << 20);
    assert_true(engine_open(engine, &f->box));
    f->cache =
        cache_local_new(&(struct cache_local_options){.max_entries = 10000, .max_bytes = 16 << 20, .clock = &f->clock});
    f->metrics = metrics_new();
    assert_non_null(f->cache);
    assert_non_null(f->metrics);
    fix_start(f);
    return f;
}

static inline void fix_stop(struct fix *f)
{
    if (f->app && !f->box.engine->durable)
        app_leases_drop(f->app); /* here the store outlives what in earnest is its only process */
    app_free(f->app);
    f->app = NULL;
    f->box.store->ops = f->real;
}

static inline void fix_open(struct fix *f)
{
    pthread_mutex_lock(&f->lock);
    f->shut = false;
    pthread_cond_broadcast(&f->moved);
    pthread_mutex_unlock(&f->lock);
}

static inline void fix_free(struct fix *f)
{
    fix_open(f); /* a test that failed with the gate shut is to end, not to hang */
    fix_stop(f);
    engine_close(&f->box);
    cache_close(f->cache);
    metrics_free(f->metrics);
    arena_reset(&f->arena);
    pthread_cond_destroy(&f->moved);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* As after a crash of the process (sqlite) or a restart: all that was not committed is forgotten. */
static inline void fix_restart(struct fix *f)
{
    fix_stop(f);
    if (f->box.engine->durable)
        assert_true(engine_reopen(&f->box));
    cache_del_glob(f->cache, STR("*"));
    fix_start(f);
}

/* ---- cmocka ---- */

static inline int fix_memory(void **state)
{
    *state = fix_new(&engine_list[0]);
    return 0;
}

static inline int fix_sqlite(void **state)
{
    *state = fix_new(&engine_list[1]);
    return 0;
}

static inline int fix_end(void **state)
{
    fix_free(*state);
    return 0;
}

#define ON_MEMORY(t)                                                                                                   \
    {                                                                                                                  \
#t, t, fix_memory, fix_end, NULL                                                                               \
    }
#define ON_BOTH(t)                                                                                                     \
    ON_MEMORY(t),                                                                                                      \
    {                                                                                                                  \
#t " (sqlite)", t, fix_sqlite, fix_end, NULL                                                                   \
    }

/* ---- users ---- */

static inline int64_t fix_user_as(struct fix *f, const char *name, enum ident_role role, const char *password)
{
    struct store_user u = {.role = role, .created_us = fix_wall(f), .updated_us = fix_wall(f)};
    struct uuid id = uuid_v7(fix_wall(f));
    struct store_tx *tx;
    memcpy(u.uuid, id.b, sizeof u.uuid);
    snprintf(u.username, sizeof u.username, "%s", name);
    snprintf(u.email, sizeof u.email, "%s@example.com", name);
    if (password)
        OK(password_hash(str_c(password), 4, u.password_hash));
    OK(store_tx_begin(f->box.store, &tx));
    OK(store_user_insert(tx, &u));
    OK(store_tx_commit(tx));
    return u.id;
}

static inline int64_t fix_user(struct fix *f, const char *name)
{
    return fix_user_as(f, name, IDENT_USER, NULL);
}

static inline struct caller fix_caller(int64_t user, enum ident_role role)
{
    return (struct caller){.who = {.user = user, .role = role}, .address = STR("192.0.2.1"), .request_id = STR("test")};
}

/* How many audit rows of that action there are. */
static inline unsigned fix_audits(struct fix *f, const char *action)
{
    struct store_audit row[64];
    unsigned n = 0;
    OK(app_audit_page(f->app, &f->arena, &(struct store_audit_query){.actor = -1, .action = str_c(action), .limit = 64},
                      row, &n));
    return n;
}

/* ---- money ---- */

static inline struct movement fix_deposit_of(int64_t to, int64_t amount)
{
    return (struct movement){.kind = LEDGER_DEPOSIT, .to_user = to, .amount = amount, .currency = USD};
}

static inline struct movement fix_withdrawal(int64_t from, int64_t amount)
{
    return (struct movement){.kind = LEDGER_WITHDRAW, .from_user = from, .amount = amount, .currency = USD};
}

static inline struct movement fix_transfer(int64_t from, int64_t to, int64_t amount)
{
    return (struct movement){
        .kind = LEDGER_TRANSFER, .from_user = from, .to_user = to, .amount = amount, .currency = USD};
}

static inline struct movement fix_resolve(enum ledger_kind kind, int64_t seq)
{
    return (struct movement){.kind = kind, .ref = seq};
}

/* A job of one movement, alone. */
static inline enum pf_err fix_move(struct fix *f, struct movement *m)
{
    struct job j = {.kind = JOB_MOVE, .m = m, .n = 1, .atomic = true, .arena = &f->arena};
    return app_submit_wait(f->app, &j);
}

/* One that must go through; returns its seq. */
static inline int64_t fix_post(struct fix *f, struct movement m)
{
    OK(fix_move(f, &m));
    return m.entry.seq;
}

static inline struct ledger_account fix_account(struct fix *f, int64_t user, money_currency currency)
{
    struct ledger_account stored = {0}, shown = {0};
    enum pf_err e = store_account_get(f->box.store, user, currency, &stored);
    assert_int_equal(app_balance(f->app, user, currency, true, &shown), e);
    assert_int_equal(shown.balance, stored.balance);
    assert_int_equal(shown.held, stored.held);
    return stored;
}

static inline int64_t fix_balance(struct fix *f, int64_t user)
{
    return fix_account(f, user, USD).balance;
}

static inline void fix_verify(struct fix *f)
{
    struct store_verify v;
    OK(store_verify(f->box.store, &v));
    if (!v.ok)
        fail_msg("%s", v.what);
}

/* ---- groups ---- */

static inline void fix_done(struct job *j)
{
    struct fix *f = j->ctx;
    pthread_mutex_lock(&f->lock);
    f->done++;
    pthread_cond_broadcast(&f->moved);
    pthread_mutex_unlock(&f->lock);
}

static inline enum pf_err fix_submit(struct fix *f, struct job *j)
{
    j->ctx = f;
    j->done = fix_done;
    if (!j->arena)
        j->arena = &f->arena;
    return app_submit(f->app, j);
}

/* The writer stands inside the commit of a deposit of 1 to a user of the fixture's own. */
static inline void fix_shut(struct fix *f)
{
    if (!f->plug_user)
        f->plug_user = fix_user(f, "plug");
    f->plug_move = fix_deposit_of(f->plug_user, 1);
    f->plug = (struct job){.kind = JOB_MOVE, .m = &f->plug_move, .n = 1, .atomic = true};
    pthread_mutex_lock(&f->lock);
    f->shut = true;
    f->done = 0;
    pthread_mutex_unlock(&f->lock);
    OK(fix_submit(f, &f->plug));
    pthread_mutex_lock(&f->lock);
    while (!f->inside)
        pthread_cond_wait(&f->moved, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

/* Until n jobs have come back since fix_shut, its own included. */
static inline void fix_wait(struct fix *f, unsigned n)
{
    pthread_mutex_lock(&f->lock);
    while (f->done < n)
        pthread_cond_wait(&f->moved, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

/* All of them in one group. */
static inline void fix_group(struct fix *f, struct job *j, unsigned n)
{
    struct app_writer_stats before, after;
    fix_shut(f);
    app_writer_stats(f->app, &before);
    for (unsigned i = 0; i < n; i++)
        OK(fix_submit(f, &j[i]));
    fix_open(f);
    fix_wait(f, n + 1);
    app_writer_stats(f->app, &after);
    assert_int_equal(after.groups, before.groups + 1);
}

#define MOVE(mv) ((struct job){.kind = JOB_MOVE, .m = (mv), .n = 1, .atomic = true})

#endif
