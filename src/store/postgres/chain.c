#include "store/postgres/journal.h"

enum { BLOCK_MAX = 1000 };

/* Entry $1 and up to $3 - 1 of account $2 before it. Each with what is asked of it: who
   resolved it, the hold that it ends, the owners of both accounts. */
static const char walk_sql[] =
    "WITH RECURSIVE c AS (SELECT 1::int8 AS at, " PG_ENTRY_COLUMNS " FROM journal j WHERE j.seq = $1"
    " UNION ALL SELECT c.at + 1, " PG_ENTRY_COLUMNS " FROM c JOIN journal j"
    " ON j.seq = CASE WHEN c.debit = $2 THEN c.debit_prev ELSE c.credit_prev END WHERE c.at < $3)"
    " SELECT " PG_ENTRY_COLUMNS ", (SELECT r.resolver FROM resolution r WHERE r.seq = j.seq),"
    " CASE WHEN j.kind IN (6, 7) THEN (SELECT h.amount FROM journal h WHERE h.seq = j.ref) END,"
    " (SELECT a.owner FROM account a WHERE a.id = j.debit), (SELECT a.owner FROM account a WHERE a.id = j.credit)"
    " FROM c j ORDER BY j.at";

/* The same without what a recomputation has no use for. */
static const char fold_sql[] =
    "WITH RECURSIVE c AS (SELECT 1::int8 AS at, " PG_ENTRY_COLUMNS " FROM journal j WHERE j.seq = $1"
    " UNION ALL SELECT c.at + 1, " PG_ENTRY_COLUMNS " FROM c JOIN journal j"
    " ON j.seq = CASE WHEN c.debit = $2 THEN c.debit_prev ELSE c.credit_prev END WHERE c.at < $3)"
    " SELECT " PG_ENTRY_COLUMNS ", NULL::int8,"
    " CASE WHEN j.kind IN (6, 7) THEN (SELECT h.amount FROM journal h WHERE h.seq = j.ref) END, NULL::int8, NULL::int8"
    " FROM c j ORDER BY j.at";

void pg_chain_begin(struct pg_chain *w, struct postgres_store *s, struct pg_conn *c, int64_t account, unsigned block,
                    bool fold)
{
    *w = (struct pg_chain){.s = s,
                           .c = c,
                           .account = account,
                           .block = block < 1           ? 1
                                    : block > BLOCK_MAX ? BLOCK_MAX
                                                        : block,
                           .sql = fold ? fold_sql : walk_sql};
}

static void leave(struct pg_chain *w)
{
    if (w->open) {
        enum pf_err e = pg_q_end(&w->q);
        if (w->err == PFE_OK)
            w->err = e;
    }
    w->open = false;
}

/* The entry in q's row, if it is the one that the chain leads to. */
static bool take(struct pg_chain *w, int64_t seq, struct ledger_entry *ret)
{
    pg_entry_read(&w->q, ret);
    if (ret->seq != seq || (ret->debit != w->account && ret->credit != w->account))
        return false;
    w->resolved_by = pg_col_i64(&w->q, PG_ENTRY_N);
    w->ref_amount = pg_col_i64(&w->q, PG_ENTRY_N + 1);
    w->debit_owner = pg_col_null(&w->q, PG_ENTRY_N + 2) ? -1 : pg_col_i64(&w->q, PG_ENTRY_N + 2);
    w->credit_owner = pg_col_null(&w->q, PG_ENTRY_N + 3) ? -1 : pg_col_i64(&w->q, PG_ENTRY_N + 3);
    w->prev = ret->debit == w->account ? ret->debit_prev : ret->credit_prev;
    return w->prev < seq;
}

static bool fetch(struct pg_chain *w, int64_t seq)
{
    leave(w);
    if (w->err)
        return false;
    pg_q_on(&w->q, w->s, w->c, w->sql);
    pg_q_i64(&w->q, seq);
    pg_q_i64(&w->q, w->account);
    pg_q_i64(&w->q, w->block);
    w->open = true;
    w->block = w->block * 4 < BLOCK_MAX ? w->block * 4 : BLOCK_MAX;
    return pg_q_next(&w->q);
}

bool pg_chain_back(struct pg_chain *w, struct ledger_entry *ret)
{
    int64_t seq = w->prev;
    if (seq <= 0 || w->err)
        return false;
    bool there = (w->open && pg_q_next(&w->q)) || fetch(w, seq);
    if (there && take(w, seq, ret))
        return true;
    leave(w);
    w->prev = 0;
    if (w->err == PFE_OK)
        w->err = PFE_INTERNAL;
    return false;
}

bool pg_chain_from(struct pg_chain *w, int64_t seq, struct ledger_entry *ret)
{
    leave(w);
    w->prev = seq;
    return pg_chain_back(w, ret);
}

enum pf_err pg_chain_end(struct pg_chain *w)
{
    leave(w);
    return w->err;
}

/* ---- marks ---- */

/* Binary search among the marks numbered 1 .. $2 of account $1, on the server. */
#define MARK_SEARCH(key)                                                                                               \
    "WITH RECURSIVE b(lo, hi) AS (SELECT 1::int8, $2::int8 + 1 UNION ALL"                                              \
    " SELECT CASE WHEN m." key " >= $3 THEN b.lo ELSE (b.lo + b.hi) / 2 + 1 END,"                                      \
    " CASE WHEN m." key " >= $3 THEN (b.lo + b.hi) / 2 ELSE b.hi END"                                                  \
    " FROM b JOIN mark m ON m.account = $1 AND m.n = (b.lo + b.hi) / 2 * 64 WHERE b.lo < b.hi)"                        \
    " SELECT " PG_MARK_COLUMNS " FROM b JOIN mark m ON m.account = $1 AND m.n = b.hi * 64 WHERE b.lo >= b.hi"
_Static_assert(BOOK_MARK_EVERY == 64, "as the statement has it");

enum pf_err pg_mark_find(struct postgres_store *s, const struct book_account *a, enum pg_mark_key key, int64_t value,
                         struct book_mark *ret, bool *ret_found)
{
    static const char *const sql[] = {
        [PG_MARK_SEQ] = MARK_SEARCH("seq"), [PG_MARK_TS] = MARK_SEARCH("ts"), [PG_MARK_MOVES] = MARK_SEARCH("moves")};
    struct pg_q q;
    *ret_found = false;
    if (a->a.entries < BOOK_MARK_EVERY)
        return PFE_OK;
    pg_read_begin(&q, s, PG_FROM_ANY, sql[key]);
    pg_q_i64(&q, a->a.id);
    pg_q_i64(&q, a->a.entries / BOOK_MARK_EVERY);
    pg_q_i64(&q, value);
    if (pg_q_next(&q)) {
        pg_mark_read(&q, ret);
        *ret_found = true;
    }
    return pg_q_end(&q);
}
