#include "store/sqlite/chain.h"

enum pf_err chain_begin(struct chain *c, struct sqlite_conn *conn, const struct book_account *a)
{
    *c = (struct chain){.conn = conn, .a = a};
    return sqlite_exec(conn, sqlite_begin);
}

static void leave(struct chain *c)
{
    if (c->open) {
        enum pf_err e = sqlite_q_end(&c->q);
        if (c->err == PFE_OK)
            c->err = e;
    }
    c->open = false;
}

bool chain_go(struct chain *c, int64_t seq, struct ledger_entry *ret)
{
    leave(c);
    c->prev = 0;
    if (seq <= 0 || c->err)
        return false;
    sqlite_q_begin(&c->q, c->conn, "SELECT " SQLITE_ENTRY_COLUMNS " FROM journal WHERE seq = ?1");
    sqlite_q_i64(&c->q, seq);
    c->open = true;
    if (!sqlite_q_next(&c->q)) {
        leave(c);
        return false;
    }
    sqlite_entry_read(&c->q, ret);
    c->prev = ret->debit == c->a->a.id ? ret->debit_prev : ret->credit_prev;
    if (c->prev >= seq)
        c->prev = -1;
    return true;
}

bool chain_back(struct chain *c, struct ledger_entry *ret)
{
    int64_t prev = c->prev;
    if (prev == 0)
        return false;
    if (prev > 0 && chain_go(c, prev, ret) && (ret->debit == c->a->a.id || ret->credit == c->a->a.id))
        return true;
    if (c->err == PFE_OK)
        c->err = PFE_INTERNAL;
    return false;
}

bool chain_point(struct chain *c, int64_t seq, struct chain_point *ret)
{
    struct sqlite_q q;
    bool found = false;
    if (seq <= 0 || c->err)
        return false;
    sqlite_q_begin(&q, c->conn,
                   "SELECT ts, debit, credit, debit_balance, credit_balance, debit_prev, credit_prev"
                   " FROM journal WHERE seq = ?1");
    sqlite_q_i64(&q, seq);
    if (sqlite_q_next(&q)) {
        bool out = sqlite_col_i64(&q, 1) == c->a->a.id;
        ret->seq = seq;
        ret->ts = sqlite_col_i64(&q, 0);
        ret->balance = sqlite_col_i64(&q, out ? 3 : 4);
        ret->prev = sqlite_col_i64(&q, out ? 5 : 6);
        found = (out || sqlite_col_i64(&q, 2) == c->a->a.id) && ret->prev < seq;
    }
    c->err = sqlite_q_end(&q);
    if (c->err == PFE_OK && !found)
        c->err = PFE_INTERNAL;
    return found && c->err == PFE_OK;
}

bool chain_from(struct chain *c, int64_t seq, struct ledger_entry *ret)
{
    c->prev = seq;
    return chain_back(c, ret);
}

enum pf_err chain_end(struct chain *c)
{
    leave(c);
    enum pf_err e = sqlite_exec(c->conn, sqlite_commit);
    return c->err ? c->err : e;
}

bool chain_mark_at(struct chain *c, int64_t n, struct book_mark *ret)
{
    struct sqlite_q q;
    bool found = false;
    sqlite_q_begin(&q, c->conn, "SELECT seq, ts, balance, moves FROM mark WHERE account = ?1 AND n = ?2");
    sqlite_q_i64(&q, c->a->a.id);
    sqlite_q_i64(&q, n);
    if (sqlite_q_next(&q)) {
        *ret = (struct book_mark){.account = c->a->a.id,
                                  .n = n,
                                  .seq = sqlite_col_i64(&q, 0),
                                  .ts = sqlite_col_i64(&q, 1),
                                  .balance = sqlite_col_i64(&q, 2),
                                  .moves = sqlite_col_i64(&q, 3)};
        found = true;
    }
    enum pf_err e = sqlite_q_end(&q);
    if (c->err == PFE_OK)
        c->err = e;
    return found && e == PFE_OK;
}

bool chain_mark(struct chain *c, enum chain_key key, int64_t value, struct book_mark *ret)
{
    int64_t lo = 1, hi = c->a->a.entries / BOOK_MARK_EVERY + 1; /* in marks */
    struct book_mark m, best = {0};
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (!chain_mark_at(c, mid * BOOK_MARK_EVERY, &m))
            return false;
        int64_t v = key == CHAIN_SEQ ? m.seq : key == CHAIN_TS ? m.ts : m.moves;
        if (v >= value) {
            hi = mid;
            best = m;
        } else {
            lo = mid + 1;
        }
    }
    if (best.n)
        *ret = best;
    return best.n != 0;
}
