/* Reading balances and transactions. */
#include "app/accounts.h"
#include "app/internal.h"

#include "codec/uuid.h"

enum pf_err app_balance(struct app *a, int64_t user, money_currency currency, bool may_block,
                        struct ledger_account *ret)
{
    char key[CACHE_KEY_MAX];
    struct str k = app_key_balance(key, user, currency);
    struct ledger_account acc;
    size_t n;
    uint64_t token;
    if (app_cached(a, k, may_block, &acc, sizeof acc, &n, &token) && n == sizeof acc) {
        *ret = acc;
        return PFE_OK;
    }
    if (!may_block && store_shared(a->d.store))
        return PFE_BUSY;
    enum pf_err e = store_account_get(a->d.store, user, currency, &acc);
    if (e != PFE_OK) {
        cache_forgo(a->d.cache, token);
        return e;
    }
    app_cache_fill(a, k, (struct str){(const char *)&acc, sizeof acc}, TTL_BALANCE_US, token);
    *ret = acc;
    return PFE_OK;
}

enum pf_err app_balances(struct app *a, int64_t user, bool may_block, struct ledger_account *out, unsigned *ret_n)
{
    if (!may_block && store_shared(a->d.store))
        return PFE_BUSY;
    return store_account_list(a->d.store, user, out, APP_ACCOUNTS_MAX, ret_n);
}

enum pf_err app_balance_at(struct app *a, int64_t user, money_currency currency, int64_t at_us, int64_t *ret,
                           struct problem *p)
{
    if (at_us > app_now(a))
        return problem_field(p, "query", "timestamp", "range", "must not be in the future");
    struct ledger_account acc;
    enum pf_err e = store_account_get(a->d.store, user, currency, &acc);
    if (e == PFE_NOT_FOUND) {
        *ret = 0;
        return PFE_OK;
    }
    if (e == PFE_OK)
        e = store_balance_at(a->d.store, acc.id, at_us, ret);
    return e == PFE_OK ? PFE_OK : problem_set(p, e, "%s", "");
}

enum pf_err app_replay(struct app *a, int64_t user, money_currency currency, struct ledger_account *ret_stored,
                       struct store_replay *ret)
{
    /* movements may arrive between the reads: the account counts as it stood at the entry that the replay ended with */
    for (unsigned tries = 0;; tries++) {
        struct ledger_account before, after;
        enum pf_err e = store_account_get(a->d.store, user, currency, &before);
        if (e == PFE_OK)
            e = store_replay(a->d.store, before.id, ret);
        if (e == PFE_OK)
            e = store_account_get(a->d.store, user, currency, &after);
        if (e != PFE_OK)
            return e;
        *ret_stored = ret->head == before.head ? before : after;
        if (ret->head == ret_stored->head || before.entries == after.entries || tries == 8)
            return PFE_OK;
    }
}

/* ---- transactions ---- */

enum { PACKED_MAX = sizeof(struct app_tx) + LEDGER_DESCRIPTION_MAX + 64 };

static size_t pack(const struct app_tx *t, char out[PACKED_MAX])
{
    struct app_tx fixed = *t;
    size_t n = sizeof fixed;
    if (t->e.description.n + t->e.origin.n > PACKED_MAX - n)
        return 0;
    fixed.e.description.p = fixed.e.origin.p = NULL;
    memcpy(out, &fixed, n);
    if (t->e.description.n)
        memcpy(out + n, t->e.description.p, t->e.description.n);
    n += t->e.description.n;
    if (t->e.origin.n)
        memcpy(out + n, t->e.origin.p, t->e.origin.n);
    return n + t->e.origin.n;
}

static bool unpack(struct arena *arena, const char *in, size_t n, struct app_tx *ret)
{
    struct app_tx t;
    if (n < sizeof t)
        return false;
    memcpy(&t, in, sizeof t);
    if (sizeof t + t.e.description.n + t.e.origin.n != n)
        return false;
    char *text = arena_alloc(arena, n - sizeof t);
    if (!text)
        return false;
    memcpy(text, in + sizeof t, n - sizeof t);
    t.e.description.p = text;
    t.e.origin.p = text + t.e.description.n;
    *ret = t;
    return true;
}

enum pf_err app_tx_owners(struct app *a, struct app_tx *t)
{
    struct ledger_account acc;
    enum pf_err e = store_account_by_id(a->d.store, t->e.debit, &acc);
    if (e != PFE_OK)
        return e;
    t->debit_owner = acc.owner;
    e = store_account_by_id(a->d.store, t->e.credit, &acc);
    if (e == PFE_OK)
        t->credit_owner = acc.owner;
    return e;
}

static enum pf_err load(struct app *a, struct arena *arena, int64_t seq, bool may_block, struct app_tx *ret)
{
    char key[CACHE_KEY_MAX], packed[PACKED_MAX];
    struct str k = app_key_transaction(key, seq);
    size_t n;
    uint64_t token;
    if (seq <= 0)
        return PFE_NOT_FOUND;
    if (app_cached(a, k, may_block, packed, sizeof packed, &n, &token) && unpack(arena, packed, n, ret))
        return PFE_OK;
    if (!may_block)
        return PFE_BUSY;
    struct app_tx t = {0};
    enum pf_err e = store_entry_get(a->d.store, arena, seq, &t.e, &t.resolved_by);
    if (e == PFE_OK)
        e = app_tx_owners(a, &t);
    n = e == PFE_OK ? pack(&t, packed) : 0;
    if (n)
        app_cache_fill(a, k, (struct str){packed, n}, TTL_TRANSACTION_US, token);
    else
        cache_forgo(a->d.cache, token);
    if (e != PFE_OK)
        return e;
    *ret = t;
    return PFE_OK;
}

enum pf_err app_transaction(struct app *a, const struct principal *who, struct arena *arena, int64_t seq,
                            bool may_block, struct app_tx *ret)
{
    struct app_tx t;
    enum pf_err e = load(a, arena, seq, may_block, &t);
    if (e != PFE_OK)
        return e;
    if (who->role != IDENT_ADMIN && (!who->user || (t.debit_owner != who->user && t.credit_owner != who->user)))
        return PFE_NOT_FOUND;
    *ret = t;
    return PFE_OK;
}

enum pf_err app_transaction_seq(struct app *a, struct arena *arena, const uint8_t uuid[16], int64_t *ret)
{
    struct uuid id;
    struct app_tx t;
    memcpy(id.b, uuid, sizeof id.b);
    enum pf_err e = load(a, arena, uuid_seq(&id), true, &t);
    if (e != PFE_OK)
        return e;
    if (memcmp(t.e.uuid, uuid, sizeof t.e.uuid) != 0)
        return PFE_NOT_FOUND;
    *ret = t.e.seq;
    return PFE_OK;
}

enum pf_err app_rollback_check(struct app *a, const struct principal *who, int64_t seq, struct problem *p)
{
    char block[2048];
    struct arena arena;
    arena_init(&arena, block, sizeof block, 1 << 16);
    struct app_tx t;
    enum pf_err e = app_transaction(a, who, &arena, seq, true, &t);
    arena_reset(&arena);
    if (e == PFE_NOT_FOUND)
        return problem_set(p, e, "there is no such transaction");
    if (e != PFE_OK)
        return problem_set(p, e, "%s", "");
    if (who->role == IDENT_ADMIN ||
        (t.credit_owner && t.credit_owner == who->user)) /* the rollback debits what was credited */
        return PFE_OK;
    return problem_set(p, PFE_FORBIDDEN, "only the receiver or an administrator can roll this back");
}

void app_movement_problem(const struct movement *m, struct problem *p)
{
    switch (m->err) {
    case PFE_NOT_FOUND:
        problem_set(p, m->err, m->ref ? "there is no such transaction" : "there is no such user");
        break;
    case PFE_INSUFFICIENT_FUNDS:
        problem_set(p, m->err, "the available balance is smaller than the amount");
        break;
    case PFE_SAME_ACCOUNT:
        problem_set(p, m->err, "sender and receiver are the same");
        break;
    case PFE_WRONG_STATE:
        problem_set(p, m->err, m->kind == LEDGER_ROLLBACK ? "this kind of transaction cannot be rolled back" : "%s",
                    "");
        break;
    default:
        problem_set(p, m->err, "%s", "");
    }
}
