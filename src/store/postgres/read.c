#include "store/postgres/journal.h"

/* ---- accounts ---- */

static enum pf_err one_account(struct pg_q *q, struct ledger_account *ret)
{
    struct book_account a;
    bool found = pg_q_next(q);
    if (found)
        pg_account_read(q, &a);
    enum pf_err e = pg_q_end(q);
    if (e || !found)
        return e ? e : PFE_NOT_FOUND;
    *ret = a.a;
    return PFE_OK;
}

enum pf_err pg_account_get(struct store *st, int64_t owner, money_currency currency, struct ledger_account *ret)
{
    struct postgres_store *s = pg_of(st);
    struct pg_q q;
    pg_q_on(&q, s, pg_group_conn(s),
            "SELECT " PG_ACCOUNT_COLUMNS " FROM account a WHERE a.owner = $1 AND a.currency = $2::int8::int2");
    pg_q_i64(&q, owner);
    pg_q_i64(&q, currency);
    return one_account(&q, ret);
}

enum pf_err pg_account_by_id(struct store *st, int64_t id, struct ledger_account *ret)
{
    struct postgres_store *s = pg_of(st);
    struct pg_q q;
    pg_q_on(&q, s, pg_group_conn(s), "SELECT " PG_ACCOUNT_COLUMNS " FROM account a WHERE a.id = $1");
    pg_q_i64(&q, id);
    return one_account(&q, ret);
}

enum pf_err pg_account_list(struct store *st, int64_t owner, struct ledger_account *out, unsigned cap, unsigned *ret_n)
{
    struct postgres_store *s = pg_of(st);
    struct pg_q q;
    unsigned n = 0;
    pg_q_on(&q, s, pg_group_conn(s),
            "SELECT " PG_ACCOUNT_COLUMNS " FROM account a WHERE a.owner = $1 ORDER BY a.id LIMIT $2");
    pg_q_i64(&q, owner);
    pg_q_i64(&q, cap);
    while (n < cap && pg_q_next(&q)) {
        struct book_account a;
        pg_account_read(&q, &a);
        out[n++] = a.a;
    }
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- entries ---- */

enum pf_err pg_entry_get(struct store *st, struct arena *a, int64_t seq, struct ledger_entry *ret,
                         int64_t *ret_resolved_by)
{
    struct postgres_store *s = pg_of(st);
    struct pg_q q;
    struct ledger_entry e;
    int64_t by = 0;
    bool found = false;
    pg_q_on(&q, s, pg_group_conn(s),
            "SELECT " PG_ENTRY_COLUMNS ", (SELECT r.resolver FROM resolution r WHERE r.seq = j.seq)"
            " FROM journal j WHERE j.seq = $1");
    pg_q_i64(&q, seq);
    if (pg_q_next(&q)) {
        pg_entry_read(&q, &e);
        by = pg_col_i64(&q, PG_ENTRY_N);
        found = pg_col_dup(&q, 15, a, &e.description) && pg_col_dup(&q, 16, a, &e.origin);
    }
    enum pf_err err = pg_q_end(&q);
    if (err || !found)
        return err ? err : PFE_NOT_FOUND;
    *ret = e;
    *ret_resolved_by = by;
    return PFE_OK;
}

enum pf_err pg_journal_scan(struct store *st, int64_t after_seq, int64_t limit, store_entry_fn fn, void *ctx)
{
    enum { BLOCK = 1000 };
    bool on = true;
    while (on) {
        int64_t most = limit > 0 && limit < BLOCK ? limit : BLOCK, n = 0;
        struct pg_q q;
        pg_read_begin(&q, pg_of(st), PG_FROM_ANY,
                      "SELECT " PG_ENTRY_COLUMNS " FROM journal j WHERE j.seq > $1 ORDER BY j.seq LIMIT $2");
        pg_q_i64(&q, after_seq);
        pg_q_i64(&q, most);
        for (; on && pg_q_next(&q); n++) {
            struct ledger_entry e;
            pg_entry_read(&q, &e);
            after_seq = e.seq;
            on = fn(ctx, &e, 0);
        }
        enum pf_err err = pg_q_end(&q);
        if (err)
            return err;
        on = on && n == most && (limit <= 0 || (limit -= n) > 0);
    }
    return PFE_OK;
}

enum pf_err pg_holds_due(struct store *st, int64_t now_us, unsigned limit, int64_t *out_seq, unsigned *ret_n)
{
    struct pg_q q;
    unsigned n = 0;
    pg_read_begin(&q, pg_of(st), PG_FROM_PRIMARY,
                  "SELECT seq FROM open_hold WHERE expires_us > 0 AND expires_us <= $1 ORDER BY seq LIMIT $2");
    pg_q_i64(&q, now_us);
    pg_q_i64(&q, limit);
    while (n < limit && pg_q_next(&q))
        out_seq[n++] = pg_col_i64(&q, 0);
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- the balance at a time ---- */

static enum pf_err mark_at(struct postgres_store *s, int64_t account, int64_t n, struct book_mark *ret)
{
    struct pg_q q;
    bool found = false;
    pg_read_begin(&q, s, PG_FROM_ANY, "SELECT " PG_MARK_COLUMNS " FROM mark m WHERE m.account = $1 AND m.n = $2");
    pg_q_i64(&q, account);
    pg_q_i64(&q, n);
    if (pg_q_next(&q)) {
        pg_mark_read(&q, ret);
        found = true;
    }
    enum pf_err e = pg_q_end(&q);
    return e == PFE_OK && !found ? PFE_INTERNAL : e;
}

enum pf_err pg_balance_at(struct store *st, int64_t account, int64_t at_us, int64_t *ret_balance)
{
    struct postgres_store *s = pg_of(st);
    struct book_account a;
    /* The first mark after the time, or the head; from there back to the mark before it, in which time runs forward
       again. */
    struct book_mark after, before = {0};
    bool bounded = false;
    int64_t lag;
    enum pf_err e = pg_account_snapshot(s, NULL, account, &a, &lag);
    if (e == PFE_OK && at_us < INT64_MAX)
        e = pg_mark_find(s, &a, PG_MARK_TS, at_us + 1, &after, &bounded);
    int64_t n = bounded ? after.n : a.a.entries;
    bool based = e == PFE_OK && n > BOOK_MARK_EVERY;
    if (based)
        e = mark_at(s, account, (n - 1) / BOOK_MARK_EVERY * BOOK_MARK_EVERY, &before);
    if (e)
        return e;

    int64_t ts[BOOK_MARK_EVERY], balance[BOOK_MARK_EVERY];
    unsigned k = 0;
    struct pg_chain w;
    struct ledger_entry x;
    pg_chain_begin(&w, s, NULL, account, BOOK_MARK_EVERY, true);
    bool more = pg_chain_from(&w, bounded ? after.seq : a.a.head, &x);
    for (; more && k < BOOK_MARK_EVERY && x.seq > before.seq; more = w.prev > before.seq && pg_chain_back(&w, &x)) {
        ts[k] = x.ts;
        balance[k++] = x.debit == account ? x.debit_balance : x.credit_balance;
    }
    e = pg_chain_end(&w);
    if (e)
        return e;
    int64_t found = based ? before.balance : 0, time = based ? before.ts : INT64_MIN;
    while (k-- > 0) {
        time = ts[k] > time ? ts[k] : time;
        if (time > at_us)
            break;
        found = balance[k];
    }
    *ret_balance = found;
    return PFE_OK;
}

/* ---- figures ---- */

enum pf_err pg_stats(struct store *st, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                     unsigned *ret_n)
{
    /* Minute 0 is the total. */
    int64_t until = now_us / (60 * 1000000), since = until - (w == STORE_WINDOW_HOUR ? 60 : BOOK_MINUTES);
    struct pg_q q;
    unsigned n = 0;
    pg_read_begin(&q, pg_of(st), PG_FROM_ANY,
                  "SELECT kind, currency, sum(count)::int8, least(sum(volume), 9223372036854775807)::int8 FROM stat"
                  " WHERE minute BETWEEN $1 AND $2 GROUP BY kind, currency HAVING sum(count) > 0"
                  " ORDER BY currency, kind LIMIT $3");
    pg_q_i64(&q, w == STORE_WINDOW_ALL ? 0 : since < 0 ? 1 : since + 1);
    pg_q_i64(&q, w == STORE_WINDOW_ALL ? 0 : until);
    pg_q_i64(&q, cap);
    while (n < cap && pg_q_next(&q))
        out[n++] = (struct store_stat){.kind = (enum ledger_kind)pg_col_i64(&q, 0),
                                       .currency = (money_currency)pg_col_i64(&q, 1),
                                       .count = pg_col_i64(&q, 2),
                                       .volume = pg_col_i64(&q, 3)};
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err pg_trial_on(struct postgres_store *s, struct pg_conn *c, struct store_trial *out, unsigned cap,
                        unsigned *ret_n)
{
    static const char sql[] = "SELECT currency, count(*),"
                              " least(coalesce(sum(balance) FILTER (WHERE owner <> 0), 0), 9223372036854775807)::int8,"
                              " coalesce(max(balance) FILTER (WHERE owner = 0), 0),"
                              " greatest(least(sum(balance), 9223372036854775807), -9223372036854775808)::int8"
                              " FROM account GROUP BY currency ORDER BY currency LIMIT $1";
    struct pg_q q;
    unsigned n = 0;
    if (c)
        pg_q_begin(&q, c, sql);
    else
        pg_read_begin(&q, s, PG_FROM_ANY, sql);
    pg_q_i64(&q, cap);
    while (n < cap && pg_q_next(&q))
        out[n++] = (struct store_trial){.currency = (money_currency)pg_col_i64(&q, 0),
                                        .accounts = pg_col_i64(&q, 1),
                                        .user_balance = pg_col_i64(&q, 2),
                                        .external = pg_col_i64(&q, 3),
                                        .sum = pg_col_i64(&q, 4)};
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err pg_trial(struct store *st, struct store_trial *out, unsigned cap, unsigned *ret_n)
{
    return pg_trial_on(pg_of(st), NULL, out, cap, ret_n);
}

enum pf_err pg_info(struct store *st, struct store_info *ret)
{
    struct postgres_store *s = pg_of(st);
    struct pg_q q;
    pg_read_begin(&q, s, PG_FROM_PRIMARY,
                  "SELECT head_seq, accounts, pg_database_size(current_database()), pg_is_in_recovery()"
                  " FROM ledger_head");
    bool row = pg_q_next(&q);
    struct store_info i = {.engine = "postgres", .schema = s->schema, .fatal = atomic_load(&s->fatal)};
    if (row) {
        i.head_seq = i.projected_seq = pg_col_i64(&q, 0);
        i.accounts = pg_col_i64(&q, 1);
        i.db_bytes = pg_col_i64(&q, 2);
        i.writable = s->mode == POSTGRES_SERVE && !atomic_load(&s->full) && !pg_col_bool(&q, 3);
    }
    enum pf_err e = pg_q_end(&q);
    if (e || !row)
        return e ? e : PFE_UNAVAILABLE;
    *ret = i;
    return PFE_OK;
}

/* ---- listing ---- */

enum { BLOCK_LEAST = 16, BLOCK_MOST = 1000 };

struct lister {
    struct postgres_store *s;
    struct book_listing l;
    struct book book; /* the owners of counterparties, and the lag: what book_listing asks for */
    store_entry_fn fn;
    void *ctx;
    enum pf_err err;
};

/* Entries that the first round trip is likely to need. */
static unsigned first_block(const struct store_entry_query *q)
{
    int64_t n = q->offset < BLOCK_MOST ? q->offset + q->limit + 1 : BLOCK_MOST;
    return n < BLOCK_LEAST ? BLOCK_LEAST : n > BLOCK_MOST ? BLOCK_MOST : (unsigned)n;
}

static void know_owner(struct lister *t, int64_t account, int64_t owner)
{
    struct book_account a = {.a = {.id = account, .owner = owner}};
    if (t->err || owner < 0 || book_find(&t->book, account) != BOOK_NONE)
        return;
    t->err = book_reserve(&t->book, 1);
    if (t->err == PFE_OK)
        book_add(&t->book, &a);
}

static bool offer(struct lister *t, const struct ledger_entry *e, int64_t debit_owner, int64_t credit_owner,
                  int64_t resolved_by)
{
    if (t->l.q->counterparty >= 0) {
        know_owner(t, e->debit, debit_owner);
        know_owner(t, e->credit, credit_owner);
    }
    if (t->err)
        return false;
    enum book_offer o = book_listing_offer(&t->l, e, resolved_by);
    return o == BOOK_SKIP || (o == BOOK_GIVE && t->fn(t->ctx, e, resolved_by));
}

static void lower(int64_t *start, int64_t seq)
{
    if (seq < *start)
        *start = seq;
}

static int64_t after_lag(int64_t at_us, int64_t lag_us)
{
    int64_t t;
    return __builtin_add_overflow(at_us, lag_us, &t) ? INT64_MAX : t;
}

/* Does every entry that moves money match? Then an offset can be jumped by the count of them. */
static bool plain(const struct store_entry_query *q, const struct book_account *a)
{
    return !q->before_seq && !q->kinds && (!q->currency || q->currency == a->a.currency) && !q->from_us && !q->to_us &&
           !q->min_amount && !q->max_amount && q->counterparty < 0 && q->status == STORE_STATUS_ANY;
}

static int64_t chain_start(struct lister *t, const struct book_account *a)
{
    const struct store_entry_query *q = t->l.q;
    int64_t start = a->a.head;
    struct book_mark m;
    bool found;
    if (q->before_seq) {
        t->err = pg_mark_find(t->s, a, PG_MARK_SEQ, q->before_seq, &m, &found);
        if (t->err == PFE_OK && found)
            lower(&start, m.seq);
    }
    if (q->to_us && t->err == PFE_OK) {
        t->err = pg_mark_find(t->s, a, PG_MARK_TS, after_lag(q->to_us, t->l.lag_us), &m, &found);
        if (t->err == PFE_OK && found)
            lower(&start, m.seq);
    }
    if (q->offset && t->err == PFE_OK && plain(q, a)) {
        if (q->offset >= a->moves)
            return 0;
        t->err = pg_mark_find(t->s, a, PG_MARK_MOVES, a->moves - q->offset, &m, &found);
        if (t->err || !found)
            return start;
        lower(&start, m.seq);
        t->l.skipped = a->moves - m.moves;
    }
    return start;
}

static enum pf_err list_account(struct lister *t, const struct store_entry_query *q, int64_t *ret_cursor)
{
    struct book_account a;
    struct pg_chain w;
    struct ledger_entry x;
    enum pf_err e = pg_account_snapshot(t->s, NULL, q->account, &a, &t->book.lag_us);
    if (e)
        return e;
    book_listing_init(&t->l, q, &t->book);
    int64_t start = chain_start(t, &a);
    if (t->err)
        return t->err;
    bool on = true;
    pg_chain_begin(&w, t->s, NULL, q->account, first_block(q), false);
    for (bool more = pg_chain_from(&w, start, &x); more && on; more = on && pg_chain_back(&w, &x))
        if (!q->before_seq || x.seq < q->before_seq)
            on = offer(t, &x, w.debit_owner, w.credit_owner, w.resolved_by);
    e = pg_chain_end(&w);
    *ret_cursor = on ? 0 : t->l.cursor;
    return t->err ? t->err : e;
}

/* Where to start looking: the head, and when only what was before a time is wanted, no later than an entry from which
   on everything is too new. */
static enum pf_err journal_start(struct lister *t, const struct store_entry_query *q, int64_t *ret)
{
    struct pg_q r;
    pg_read_begin(&r, t->s, PG_FROM_ANY, "SELECT head_seq, lag_us FROM ledger_head");
    bool row = pg_q_next(&r);
    int64_t head = row ? pg_col_i64(&r, 0) : 0;
    t->book.lag_us = row ? pg_col_i64(&r, 1) : 0;
    enum pf_err e = pg_q_end(&r);
    *ret = head + 1;
    if (e || !q->to_us)
        return e;
    pg_read_begin(&r, t->s, PG_FROM_ANY,
                  "WITH RECURSIVE b(lo, hi) AS (SELECT 1::int8, $1::int8 UNION ALL"
                  " SELECT CASE WHEN j.ts >= $2 THEN b.lo ELSE j.seq + 1 END,"
                  " CASE WHEN j.ts >= $2 THEN j.seq ELSE b.hi END"
                  " FROM b JOIN journal j ON j.seq = (b.lo + b.hi) / 2 WHERE b.lo < b.hi)"
                  " SELECT hi FROM b WHERE lo >= hi");
    pg_q_i64(&r, head + 1);
    pg_q_i64(&r, after_lag(q->to_us, t->book.lag_us));
    if (pg_q_next(&r))
        *ret = pg_col_i64(&r, 0);
    return pg_q_end(&r);
}

static enum pf_err list_journal(struct lister *t, const struct store_entry_query *q, int64_t *ret_cursor)
{
    int64_t start = 0;
    enum pf_err e = journal_start(t, q, &start);
    book_listing_init(&t->l, q, &t->book);
    if (q->before_seq)
        lower(&start, q->before_seq);
    unsigned block = first_block(q);
    bool on = true, more = e == PFE_OK;
    while (on && more) {
        struct pg_q r;
        unsigned n = 0;
        pg_read_begin(&r, t->s, PG_FROM_ANY,
                      "SELECT " PG_ENTRY_COLUMNS ", (SELECT x.resolver FROM resolution x WHERE x.seq = j.seq),"
                      " coalesce((SELECT a.owner FROM account a WHERE a.id = j.debit), -1),"
                      " coalesce((SELECT a.owner FROM account a WHERE a.id = j.credit), -1)"
                      " FROM journal j WHERE j.seq < $1 ORDER BY j.seq DESC LIMIT $2");
        pg_q_i64(&r, start);
        pg_q_i64(&r, block);
        for (; on && pg_q_next(&r); n++) {
            struct ledger_entry x;
            pg_entry_read(&r, &x);
            start = x.seq;
            on = offer(t, &x, pg_col_i64(&r, PG_ENTRY_N + 1), pg_col_i64(&r, PG_ENTRY_N + 2),
                       pg_col_i64(&r, PG_ENTRY_N));
        }
        more = n == block;
        block = block * 4 < BLOCK_MOST ? block * 4 : BLOCK_MOST;
        e = pg_q_end(&r);
        more = more && e == PFE_OK;
    }
    *ret_cursor = on ? 0 : t->l.cursor;
    return t->err ? t->err : e;
}

enum pf_err pg_entry_list(struct store *st, const struct store_entry_query *q, store_entry_fn fn, void *ctx,
                          int64_t *ret_cursor)
{
    struct lister t = {.s = pg_of(st), .fn = fn, .ctx = ctx};
    int64_t cursor = 0;
    enum pf_err e = book_init(&t.book);
    if (e)
        return e;
    e = q->account ? list_account(&t, q, &cursor) : list_journal(&t, q, &cursor);
    book_free(&t.book);
    if (e == PFE_OK)
        *ret_cursor = cursor;
    return e;
}
