/* One account recomputed from the journal, and its projection put right. */
#include <stdlib.h>

#include "store/book/refold.h"
#include "store/postgres/journal.h"

enum { BLOCK = 256 };

static bool walk_from(void *ctx, int64_t seq, struct ledger_entry *ret)
{
    return pg_chain_from(ctx, seq, ret);
}

static bool walk_back(void *ctx, struct ledger_entry *ret)
{
    return pg_chain_back(ctx, ret);
}

static enum pf_err walk_held(void *ctx, const struct ledger_entry *e, int64_t *ret)
{
    (void)e;
    *ret = ((struct pg_chain *)ctx)->ref_amount;
    return PFE_OK;
}

/* A chain that is broken is a finding. */
static enum pf_err replay(struct pg_chain *w, int64_t head, struct store_replay *ret)
{
    enum pf_err e = refold_replay(&(struct refold_walk){w, walk_from, walk_back, walk_held}, w->account, head, ret);
    enum pf_err end = pg_chain_end(w);
    if (e == PFE_OK && end == PFE_INTERNAL) {
        ret->intact = false;
        return PFE_OK;
    }
    return e ? e : end;
}

enum pf_err pg_replay(struct store *st, int64_t account, struct store_replay *ret)
{
    struct postgres_store *s = pg_of(st);
    struct book_account a;
    struct pg_chain w;
    struct store_replay r;
    int64_t lag;
    enum pf_err e = pg_account_snapshot(s, NULL, account, &a, &lag);
    if (e)
        return e;
    pg_chain_begin(&w, s, NULL, account, BLOCK, true);
    e = replay(&w, a.a.head, &r);
    if (e == PFE_OK)
        *ret = r;
    return e;
}

/* ---- rebuild ---- */

/* The newest entry that names the account, by looking through the journal: for when the chain cannot be trusted. */
static enum pf_err find_head(struct pg_conn *c, int64_t account, int64_t *ret)
{
    struct pg_q q;
    *ret = 0;
    pg_q_begin(&q, c, "SELECT seq FROM journal WHERE debit = $1 OR credit = $1 ORDER BY seq DESC LIMIT 1");
    pg_q_i64(&q, account);
    if (pg_q_next(&q))
        *ret = pg_col_i64(&q, 0);
    return pg_q_end(&q);
}

static enum pf_err write_projection(struct pg_conn *c, const struct book_account *a, const struct book_mark *marks)
{
    enum { MARKS_MOST = 10000 }; /* a statement: 1 MB */
    size_t n = (size_t)(a->a.entries / BOOK_MARK_EVERY);
    struct pg_q q;
    pg_q_begin(&q, c, "DELETE FROM mark WHERE account = $1");
    pg_q_i64(&q, a->a.id);
    enum pf_err e = pg_q_run(&q);
    for (size_t i = 0; i < n && e == PFE_OK; i += MARKS_MOST) {
        pg_send_marks(&q, c, marks + i, n - i < MARKS_MOST ? n - i : MARKS_MOST);
        e = pg_sync(c);
        (void)!pg_q_end(&q);
    }
    if (e)
        return e;
    pg_send_account_updates(&q, c, (const struct book_account *const[]){a}, 1);
    e = pg_sync(c);
    (void)!pg_q_end(&q);
    return e;
}

static enum pf_err rebuild(struct pg_conn *c, int64_t account, struct store_replay *ret)
{
    struct book_account a;
    struct pg_chain w;
    int64_t lag;
    enum pf_err e = pg_account_snapshot(c->store, c, account, &a, &lag);
    if (e)
        return e;
    pg_chain_begin(&w, c->store, c, account, BLOCK, true);
    e = replay(&w, a.a.head, ret);
    bool agrees = ret->intact && ret->events == a.a.entries && ret->balance == a.a.balance && ret->held == a.a.held;
    if (e == PFE_OK && !agrees) {
        e = find_head(c, account, &a.a.head);
        pg_chain_begin(&w, c->store, c, account, BLOCK, true);
        if (e == PFE_OK)
            e = replay(&w, a.a.head, ret);
    }
    if (e || !ret->intact)
        return e;
    struct book_mark *marks = malloc(((size_t)ret->events / BOOK_MARK_EVERY + 1) * sizeof *marks);
    if (!marks)
        return PFE_NOMEM;
    pg_chain_begin(&w, c->store, c, account, BLOCK, true);
    refold_account(&(struct refold_walk){&w, walk_from, walk_back, walk_held}, ret, &a, marks);
    e = pg_chain_end(&w);
    if (e == PFE_OK)
        e = write_projection(c, &a, marks);
    free(marks);
    return e;
}

enum pf_err pg_account_rebuild(struct store *st, int64_t account, struct store_replay *ret)
{
    struct postgres_store *s = pg_of(st);
    struct store_replay r = {0};
    enum pf_err e = PFE_UNAVAILABLE;
    struct pg_conn *c = pg_writer(s);
    if (!c)
        return e;
    e = pg_exec(c, pg_begin);
    /* long chains and, for a lost head, the whole journal */
    if (e == PFE_OK)
        e = pg_exec(c, "SET LOCAL statement_timeout = 0");
    if (e == PFE_OK)
        e = pg_exec(c, "SELECT FROM ledger_head FOR UPDATE");
    unsigned usual = c->timeout_ms;
    c->timeout_ms = PG_LONG_MS;
    if (e == PFE_OK)
        e = rebuild(c, account, &r);
    /* Unknown or undone, the projection is as it was or as it should be: both may be tried again. */
    if (e == PFE_OK && r.intact && pg_commit(c) != PFE_OK)
        e = PFE_UNAVAILABLE;
    c->timeout_ms = usual;
    pg_abandon(c);
    if (e == PFE_OK)
        *ret = r;
    return e;
}
