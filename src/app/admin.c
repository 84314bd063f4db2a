/* Audit, statistics, cache management. */
#include "app/admin.h"
#include "app/accounts.h"
#include "app/identity.h"
#include "app/internal.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

enum pf_err app_audit_add(struct app *a, struct store_tx *tx, const struct caller *c, const char *action,
                          const char *entity, struct str entity_id, const char *outcome)
{
    struct store_audit row = {.ts = app_now(a),
                              .actor = c->who.user,
                              .action = str_c(action),
                              .entity = str_c(entity),
                              .entity_id = entity_id,
                              .outcome = str_c(outcome),
                              .address = c->address,
                              .request_id = c->request_id};
    return store_audit_append(tx, &row);
}

enum pf_err app_audit_add_id(struct app *a, struct store_tx *tx, const struct caller *c, const char *action,
                             const char *entity, int64_t entity_id, const char *outcome)
{
    char id[24];
    int n = snprintf(id, sizeof id, "%lld", (long long)entity_id);
    return app_audit_add(a, tx, c, action, entity, (struct str){id, (size_t)n}, outcome);
}

void app_audit(struct app *a, const struct caller *c, const char *action, const char *entity, struct str entity_id,
               const char *outcome)
{
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e == PFE_OK) {
        e = app_audit_add(a, tx, c, action, entity, entity_id, outcome);
        if (e == PFE_OK)
            e = store_tx_commit(tx);
        else
            store_tx_rollback(tx);
    }
    if (e != PFE_OK)
        log_msg(LOG_ERROR, "audit row not written", LOG_S("action", action), LOG_S("error", err_info(e)->slug),
                LOG_STR("request_id", c->request_id));
}

void app_audit_refusal(struct app *a, const struct caller *c, const char *action, const char *entity, struct str path)
{
    char key[CACHE_KEY_MAX];
    struct cache_rate r;
    int n = snprintf(key, sizeof key, "refusals:%lld", (long long)c->who.user);
    cache_rate(a->d.cache, (struct str){key, (size_t)n}, APP_REFUSALS_AUDITED, 60 * 1000000LL, 1, &r);
    if (r.allowed)
        app_audit(a, c, action, entity, path, err_info(PFE_FORBIDDEN)->slug);
}

static uint64_t warm_user(struct app *a, int64_t user)
{
    struct store_user u;
    struct ledger_account acc[APP_ACCOUNTS_MAX], one;
    unsigned n = 0;
    uint64_t put = 0;
    if (app_user(a, user, true, &u) != PFE_OK)
        return 0;
    put++;
    if (app_balances(a, user, true, acc, &n) != PFE_OK)
        return put;
    for (unsigned i = 0; i < n; i++)
        put += app_balance(a, user, acc[i].currency, true, &one) == PFE_OK;
    return put;
}

enum pf_err app_cache_warmup(struct app *a, const struct caller *c, int64_t user, uint64_t *ret_n)
{
    enum { PAGE = 100, USERS_MAX = 1000 };
    uint64_t put = 0;
    enum pf_err e = PFE_OK;
    app_trust(true); /* of what is there already nothing is shown */
    if (user) {
        struct store_user u;
        e = app_user(a, user, true, &u);
        if (e == PFE_OK)
            put = warm_user(a, user);
    } else {
        struct store_user *page = NULL;
        struct arena arena;
        arena_init(&arena, NULL, 0, PAGE * sizeof *page + 4096);
        page = arena_alloc(&arena, PAGE * sizeof *page);
        int64_t before = 0;
        unsigned n = PAGE;
        e = page ? PFE_OK : PFE_NOMEM;
        for (unsigned done = 0; e == PFE_OK && done < USERS_MAX && n == PAGE; done += n) {
            e = app_users(a, before, 0, PAGE, page, &n);
            for (unsigned i = 0; e == PFE_OK && i < n; i++)
                put += warm_user(a, before = page[i].id);
        }
        arena_reset(&arena);
    }
    app_trust(false);
    if (e == PFE_OK) {
        app_audit(a, c, "cache.warmup", "cache", STR_NONE, "ok");
        *ret_n = put;
    }
    return e;
}

enum pf_err app_cache_invalidate(struct app *a, const struct caller *c, int64_t user, struct str pattern,
                                 uint64_t *ret_n)
{
    char key[CACHE_KEY_MAX];
    uint64_t n;
    if (user) {
        n = cache_del(a->d.cache, app_key_user(key, user));
        int len = snprintf(key, sizeof key, "balance:%lld:*", (long long)user);
        n += cache_del_glob(a->d.cache, (struct str){key, (size_t)len});
        len = snprintf(key, sizeof key, "%lld", (long long)user);
        app_audit(a, c, "cache.invalidate", "user", (struct str){key, (size_t)len}, "ok");
    } else {
        n = cache_del_glob(a->d.cache, pattern);
        app_audit(a, c, "cache.invalidate", "pattern", pattern, "ok");
    }
    *ret_n = n;
    return PFE_OK;
}

enum pf_err app_rebuild(struct app *a, const struct caller *c, int64_t user, money_currency currency, struct job *j)
{
    char id[CACHE_KEY_MAX];
    *j = (struct job){.kind = JOB_REBUILD, .user = user, .currency = currency};
    enum pf_err e = app_submit_wait(a, j);
    app_audit(a, c, "balance.rebuild", "balance", app_key_balance(id, user, currency),
              e == PFE_OK ? "ok" : err_info(e)->slug);
    return e;
}

enum pf_err app_stats(struct app *a, enum store_window w, struct store_stat *out, unsigned cap, unsigned *ret_n)
{
    return store_stats(a->d.store, w, app_now(a), out, cap, ret_n);
}

enum pf_err app_audit_page(struct app *a, struct arena *arena, const struct store_audit_query *q,
                           struct store_audit *out, unsigned *ret_n)
{
    return store_audit_list(a->d.store, arena, q, out, ret_n);
}

enum pf_err app_journal_page(struct app *a, int64_t after_seq, unsigned limit, store_entry_fn fn, void *ctx)
{
    return store_journal_scan(a->d.store, after_seq, limit, fn, ctx);
}

enum pf_err app_reconcile(struct app *a, const struct caller *c, struct app_reconciliation *ret)
{
    bool idle = false;
    if (!atomic_compare_exchange_strong(&a->reconciling, &idle, true))
        return PFE_BUSY;
    enum pf_err e = store_trial(a->d.store, ret->trial, 200, &ret->n_trial);
    if (e == PFE_OK)
        e = store_verify(a->d.store, &ret->verify);
    atomic_store(&a->reconciling, false);
    app_audit(a, c, "admin.reconciliation", "journal", STR_NONE, e == PFE_OK ? "ok" : err_info(e)->slug);
    return e;
}

bool app_cluster(struct app *a, struct store_cluster *ret)
{
    return store_cluster(a->d.store, ret);
}
