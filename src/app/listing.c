/* Lists of transactions: one account's chain, the whole journal, or all accounts of a user merged. */
#include "app/accounts.h"
#include "app/internal.h"

#include <stdlib.h>

struct walk {
    struct app *a;
    app_tx_fn fn;
    void *ctx;
    enum pf_err err;
};

static bool visit(void *ctx, const struct ledger_entry *e, int64_t resolved_by)
{
    struct walk *w = ctx;
    struct app_tx t = {.e = *e, .resolved_by = resolved_by};
    w->err = app_tx_owners(w->a, &t);
    return w->err == PFE_OK && w->fn(w->ctx, &t);
}

struct found {
    struct ledger_entry e;
    int64_t resolved_by;
};

struct collect {
    struct arena arena;
    struct found *v;
    size_t n, cap;
    bool nomem;
};

static bool keep(void *ctx, const struct ledger_entry *e, int64_t resolved_by)
{
    struct collect *c = ctx;
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 256;
        struct found *v = realloc(c->v, cap * sizeof *v);
        if (!v) {
            c->nomem = true;
            return false;
        }
        c->v = v;
        c->cap = cap;
    }
    struct found f = {*e, resolved_by};
    f.e.description = arena_strdup(&c->arena, e->description);
    f.e.origin = arena_strdup(&c->arena, e->origin);
    c->nomem = (e->description.n && !f.e.description.p) || (e->origin.n && !f.e.origin.p);
    c->v[c->n++] = f;
    return !c->nomem;
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = ((const struct found *)a)->e.seq, y = ((const struct found *)b)->e.seq;
    return (x < y) - (x > y);
}

/*
 * Each account gives its newest offset + limit matches; merged, the page is among them. An account that stopped early
 * (its scan bound) leaves a frontier: what is older than that is not known yet and waits for the next page.
 */
static enum pf_err merge(struct app *a, const struct store_entry_query *q, const struct ledger_account *acc, unsigned n,
                         struct collect *c, struct walk *w, int64_t *ret_cursor)
{
    int64_t frontier = 0;
    for (unsigned i = 0; i < n; i++) {
        struct store_entry_query one = *q;
        int64_t cursor = 0;
        one.account = acc[i].id;
        one.offset = 0;
        one.limit = q->limit + (unsigned)q->offset;
        enum pf_err e = store_entry_list(a->d.store, &one, keep, c, &cursor);
        if (e != PFE_OK || c->nomem)
            return e != PFE_OK ? e : PFE_NOMEM;
        if (cursor > frontier)
            frontier = cursor;
    }
    if (c->n)
        qsort(c->v, c->n, sizeof *c->v, newest_first);
    size_t known = 0;
    while (known < c->n && c->v[known].e.seq >= frontier)
        known++;
    size_t from = (size_t)q->offset < known ? (size_t)q->offset : known;
    size_t to = known - from > q->limit ? from + q->limit : known;
    for (size_t i = from; i < to; i++)
        if (!visit(w, &c->v[i].e, c->v[i].resolved_by))
            break;
    *ret_cursor = to < c->n && to > from ? c->v[to - 1].e.seq : frontier;
    return w->err;
}

enum pf_err app_transactions(struct app *a, const struct store_entry_query *q, int64_t owner, app_tx_fn fn, void *ctx,
                             int64_t *ret_cursor)
{
    struct walk w = {a, fn, ctx, PFE_OK};
    struct ledger_account acc[APP_ACCOUNTS_MAX];
    struct store_entry_query one = *q;
    unsigned n = 1;
    enum pf_err e = PFE_OK;
    if (owner && q->currency) {
        e = store_account_get(a->d.store, owner, q->currency, &acc[0]);
        if (e == PFE_NOT_FOUND)
            n = 0, e = PFE_OK;
    } else if (owner) {
        e = store_account_list(a->d.store, owner, acc, APP_ACCOUNTS_MAX, &n);
    }
    if (e != PFE_OK)
        return e;
    if (n == 0) {
        *ret_cursor = 0;
        return PFE_OK;
    }
    if (n == 1) {
        if (owner)
            one.account = acc[0].id;
        e = store_entry_list(a->d.store, &one, visit, &w, ret_cursor);
        return e != PFE_OK ? e : w.err;
    }
    if (q->offset > APP_MERGE_MAX)
        return PFE_INVALID;
    struct collect c = {0};
    arena_init(&c.arena, NULL, 0, 64 << 20);
    e = merge(a, q, acc, n, &c, &w, ret_cursor);
    arena_reset(&c.arena);
    free(c.v);
    return e;
}
