#include "store/sqlite/chain.h"

enum pf_err sqlite_account_get(struct store *s, int64_t owner, money_currency currency, struct ledger_account *ret)
{
    return book_get(&sqlite_of(s)->book, owner, currency, ret);
}

enum pf_err sqlite_account_by_id(struct store *s, int64_t id, struct ledger_account *ret)
{
    return book_by_id(&sqlite_of(s)->book, id, ret);
}

enum pf_err sqlite_account_list(struct store *s, int64_t owner, struct ledger_account *out, unsigned cap,
                                unsigned *ret_n)
{
    book_list(&sqlite_of(s)->book, owner, out, cap, ret_n);
    return PFE_OK;
}

enum pf_err sqlite_stats(struct store *s, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                         unsigned *ret_n)
{
    book_stats(&sqlite_of(s)->book, w, now_us, out, cap, ret_n);
    return PFE_OK;
}

enum pf_err sqlite_trial(struct store *s, struct store_trial *out, unsigned cap, unsigned *ret_n)
{
    book_trial(&sqlite_of(s)->book, out, cap, ret_n);
    return PFE_OK;
}

enum pf_err sqlite_entry_get(struct store *s, struct arena *a, int64_t seq, struct ledger_entry *ret,
                             int64_t *ret_resolved_by)
{
    struct sqlite_q q;
    struct ledger_entry e;
    int64_t by = 0;
    bool found = false;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT " SQLITE_ENTRY_COLUMNS ", (SELECT resolver FROM resolution r WHERE r.seq = j.seq)"
                   " FROM journal j WHERE j.seq = ?1");
    sqlite_q_i64(&q, seq);
    if (sqlite_q_next(&q)) {
        sqlite_entry_read(&q, &e);
        by = sqlite_col_i64(&q, SQLITE_ENTRY_N);
        found = sqlite_col_dup(&q, 15, a, &e.description) && sqlite_col_dup(&q, 16, a, &e.origin);
    }
    enum pf_err err = sqlite_q_end(&q);
    if (err || !found)
        return err ? err : PFE_NOT_FOUND;
    *ret = e;
    *ret_resolved_by = by;
    return PFE_OK;
}

enum pf_err sqlite_journal_scan(struct store *s, int64_t after_seq, int64_t limit, store_entry_fn fn, void *ctx)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT " SQLITE_ENTRY_COLUMNS " FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2");
    sqlite_q_i64(&q, after_seq);
    sqlite_q_i64(&q, limit > 0 ? limit : -1);
    bool on = true;
    while (on && sqlite_q_next(&q)) {
        struct ledger_entry e;
        sqlite_entry_read(&q, &e);
        on = fn(ctx, &e, 0);
    }
    return sqlite_q_end(&q);
}

enum pf_err sqlite_holds_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_seq, unsigned *ret_n)
{
    struct sqlite_q q;
    unsigned n = 0;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT seq FROM open_hold WHERE expires_us > 0 AND expires_us <= ?1 ORDER BY seq LIMIT ?2");
    sqlite_q_i64(&q, now_us);
    sqlite_q_i64(&q, limit);
    while (n < limit && sqlite_q_next(&q))
        out_seq[n++] = sqlite_col_i64(&q, 0);
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- the balance at a time ---- */

enum pf_err sqlite_balance_at(struct store *st, int64_t account, int64_t at_us, int64_t *ret_balance)
{
    struct sqlite_store *s = sqlite_of(st);
    struct book_account a;
    enum pf_err e = book_snapshot(&s->book, account, &a);
    if (e)
        return e;
    struct chain c;
    e = chain_begin(&c, sqlite_reader(s), &a);
    if (e)
        return e;

    /* The first mark after the time, or the head; from there back to the mark before it, in which time runs forward
       again. */
    struct book_mark after, before = {0};
    bool bounded = at_us < INT64_MAX && chain_mark(&c, CHAIN_TS, at_us + 1, &after);
    int64_t n = bounded ? after.n : a.a.entries, ts[BOOK_MARK_EVERY], balance[BOOK_MARK_EVERY];
    bool based = n > BOOK_MARK_EVERY && chain_mark_at(&c, (n - 1) / BOOK_MARK_EVERY * BOOK_MARK_EVERY, &before);
    if (n > BOOK_MARK_EVERY && !based && c.err == PFE_OK)
        c.err = PFE_INTERNAL;
    struct chain_point x = {.prev = bounded ? after.seq : a.a.head};
    unsigned k = 0;
    while (k < BOOK_MARK_EVERY && x.prev > before.seq && chain_point(&c, x.prev, &x)) {
        ts[k] = x.ts;
        balance[k++] = x.balance;
    }
    int64_t found = based ? before.balance : 0, time = based ? before.ts : INT64_MIN;
    while (k-- > 0) {
        time = ts[k] > time ? ts[k] : time;
        if (time > at_us)
            break;
        found = balance[k];
    }
    e = chain_end(&c);
    if (e == PFE_OK)
        *ret_balance = found;
    return e;
}

/* ---- listing ---- */

struct lister {
    struct sqlite_conn *conn;
    struct book_listing l;
    store_entry_fn fn;
    void *ctx;
};

enum pf_err sqlite_resolved_by(struct sqlite_conn *c, int64_t seq, int64_t *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c, "SELECT resolver FROM resolution WHERE seq = ?1");
    sqlite_q_i64(&q, seq);
    *ret = sqlite_q_next(&q) ? sqlite_col_i64(&q, 0) : 0;
    return sqlite_q_end(&q);
}

/* false: stop, or *ret_err. */
static bool offer(struct lister *t, const struct ledger_entry *e, enum pf_err *ret_err)
{
    int64_t by = 0;
    bool asked = t->l.q->status != STORE_STATUS_ANY; /* else only for what is given */
    if (asked)
        *ret_err = sqlite_resolved_by(t->conn, e->seq, &by);
    if (*ret_err != PFE_OK)
        return false;
    switch (book_listing_offer(&t->l, e, by)) {
    case BOOK_SKIP:
        return true;
    case BOOK_STOP:
        return false;
    case BOOK_GIVE:
        break;
    }
    if (!asked)
        *ret_err = sqlite_resolved_by(t->conn, e->seq, &by);
    return *ret_err == PFE_OK && t->fn(t->ctx, e, by);
}

/* Far enough in the future not to matter. */
static int64_t after_lag(int64_t us, int64_t lag_us)
{
    int64_t r;
    return __builtin_add_overflow(us, lag_us, &r) ? INT64_MAX : r;
}

static void lower(int64_t *start, int64_t seq)
{
    if (seq < *start)
        *start = seq;
}

/* May the offset be jumped over? Marks count the entries that move money, so the listing must be of just those. */
static bool plain(const struct store_entry_query *q, const struct book_account *a)
{
    return q->kinds == 0 && q->status == STORE_STATUS_ANY && (q->currency == 0 || q->currency == a->a.currency) &&
           q->from_us == 0 && q->to_us == 0 && q->before_seq == 0 && q->min_amount == 0 && q->max_amount == 0 &&
           q->counterparty < 0;
}

static int64_t chain_start(struct chain *c, const struct store_entry_query *q, struct book_listing *l)
{
    const struct book_account *a = c->a;
    int64_t start = a->a.head;
    struct book_mark m;
    struct ledger_entry x;
    if (q->before_seq && q->before_seq <= start) {
        if (chain_go(c, q->before_seq, &x) && (x.debit == a->a.id || x.credit == a->a.id))
            start = x.seq;
        else if (chain_mark(c, CHAIN_SEQ, q->before_seq, &m))
            lower(&start, m.seq);
    }
    if (q->to_us && chain_mark(c, CHAIN_TS, after_lag(q->to_us, l->lag_us), &m))
        lower(&start, m.seq);
    if (q->offset && plain(q, a)) {
        if (q->offset >= a->moves)
            return 0;
        if (!chain_mark(c, CHAIN_MOVES, a->moves - q->offset, &m))
            return start;
        lower(&start, m.seq);
        l->skipped = a->moves - m.moves;
    }
    return start;
}

static enum pf_err list_account(struct sqlite_store *s, struct lister *t, const struct store_entry_query *q,
                                int64_t *ret_cursor)
{
    struct book_account a;
    struct chain c;
    enum pf_err e = book_snapshot(&s->book, q->account, &a);
    book_listing_init(&t->l, q, &s->book); /* after: the lag covers every entry up to the head */
    if (e == PFE_OK)
        e = chain_begin(&c, t->conn, &a);
    if (e)
        return e;
    bool on = true;
    struct ledger_entry x;
    bool more = chain_from(&c, chain_start(&c, q, &t->l), &x);
    for (; more && on; more = on && chain_back(&c, &x))
        if (!q->before_seq || x.seq < q->before_seq)
            on = offer(t, &x, &e);
    enum pf_err end = chain_end(&c);
    *ret_cursor = on ? 0 : t->l.cursor;
    return e ? e : end;
}

/* Everything from the entry found on is too new: its time is the limit or later by more than the lag. */
static enum pf_err journal_start(struct sqlite_conn *c, int64_t head, int64_t not_before, int64_t *ret)
{
    int64_t lo = 1, hi = head + 1;
    enum pf_err e = PFE_OK;
    while (e == PFE_OK && lo < hi) {
        int64_t mid = lo + (hi - lo) / 2, ts = 0;
        struct sqlite_q q;
        sqlite_q_begin(&q, c, "SELECT ts FROM journal WHERE seq = ?1");
        sqlite_q_i64(&q, mid);
        if (sqlite_q_next(&q))
            ts = sqlite_col_i64(&q, 0);
        e = sqlite_q_end(&q);
        if (ts >= not_before)
            hi = mid;
        else
            lo = mid + 1;
    }
    *ret = hi;
    return e;
}

static enum pf_err list_journal(struct sqlite_store *s, struct lister *t, const struct store_entry_query *q,
                                int64_t *ret_cursor)
{
    int64_t start = book_head(&s->book) + 1, at = 0;
    enum pf_err e = PFE_OK;
    book_listing_init(&t->l, q, &s->book);
    if (q->to_us) {
        e = journal_start(t->conn, start - 1, after_lag(q->to_us, t->l.lag_us), &at);
        lower(&start, at);
    }
    if (q->before_seq)
        lower(&start, q->before_seq);
    struct sqlite_q r;
    sqlite_q_begin(&r, t->conn, "SELECT " SQLITE_ENTRY_COLUMNS " FROM journal WHERE seq < ?1 ORDER BY seq DESC");
    sqlite_q_i64(&r, start);
    bool on = true;
    while (e == PFE_OK && on && sqlite_q_next(&r)) {
        struct ledger_entry x;
        sqlite_entry_read(&r, &x);
        on = offer(t, &x, &e);
    }
    enum pf_err end = sqlite_q_end(&r);
    *ret_cursor = on ? 0 : t->l.cursor;
    return e ? e : end;
}

enum pf_err sqlite_entry_list(struct store *st, const struct store_entry_query *q, store_entry_fn fn, void *ctx,
                              int64_t *ret_cursor)
{
    struct sqlite_store *s = sqlite_of(st);
    struct lister t = {.conn = sqlite_reader(s), .fn = fn, .ctx = ctx};
    int64_t cursor = 0;
    enum pf_err e = q->account ? list_account(s, &t, q, &cursor) : list_journal(s, &t, q, &cursor);
    if (e == PFE_OK)
        *ret_cursor = cursor;
    return e;
}
