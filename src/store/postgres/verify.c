/*
 * The proof (store/book/proof.h) fed from a server that goes on working. What changes (accounts, open holds, counts) is
 * read in one short snapshot, with the head as it was then; the journal up to that head never changes, so it is read a
 * block at a time, without a snapshot that would keep the server from cleaning up behind the writers for as long.
 */
#include <stdlib.h>

#include "store/book/proof.h"
#include "store/postgres/journal.h"

enum { BLOCK = 2000, PAGE = 5000 };

struct block { /* entries from .. to, and all that goes with them */
    struct pg_q entries, seals, refs, marks;
};

struct feed {
    struct pg_conn *c;
    struct proof *p;
    struct pg_head head;
    struct proof_counts counts;
    struct pg_tickets_found tickets;
    int64_t bad_hold; /* the first open hold that is not what the journal says; 0: none */
    struct block b;
};

/* ---- look-ups: in what was read with the block, asked for in about the order of its rows ---- */

/* The next row, round in a circle, for which is() holds; false: none. */
static bool seek(struct pg_q *q, bool (*is)(const struct pg_q *q, int64_t a, int64_t b), int64_t a, int64_t b)
{
    for (int k = 0; k < q->rows; k++) {
        q->row = q->row < 0 || q->row + (k > 0) >= q->rows ? 0 : q->row + (k > 0);
        if (is(q, a, b))
            return true;
    }
    return false;
}

static bool is_entry(const struct pg_q *q, int64_t seq, int64_t unused)
{
    (void)unused;
    return pg_col_i64(q, 0) == seq;
}

static bool is_mark(const struct pg_q *q, int64_t account, int64_t n)
{
    return pg_col_i64(q, 0) == account && pg_col_i64(q, 1) == n;
}

static enum pf_err find_entry(void *ctx, int64_t seq, struct ledger_entry *ret)
{
    struct pg_q *q = &((struct feed *)ctx)->b.refs;
    if (!seek(q, is_entry, seq, 0))
        return PFE_NOT_FOUND;
    pg_entry_read(q, ret);
    ret->description = ret->origin = STR_NONE;
    return PFE_OK;
}

static enum pf_err find_resolver(void *ctx, int64_t seq, int64_t *ret)
{
    struct pg_q *q = &((struct feed *)ctx)->b.refs;
    if (!seek(q, is_entry, seq, 0) || pg_col_null(q, PG_ENTRY_N))
        return PFE_NOT_FOUND;
    *ret = pg_col_i64(q, PG_ENTRY_N);
    return PFE_OK;
}

static enum pf_err find_mark(void *ctx, int64_t account, int64_t n, struct book_mark *ret)
{
    struct pg_q *q = &((struct feed *)ctx)->b.marks;
    if (!seek(q, is_mark, account, n))
        return PFE_NOT_FOUND;
    pg_mark_read(q, ret);
    return PFE_OK;
}

/* ---- the snapshot ---- */

static enum pf_err feed_head(struct feed *f)
{
    struct pg_q q;
    bool found = false;
    int64_t beyond = 0, accounts = 0;
    uint8_t last_seal[SHA256_LEN] = {0};
    pg_q_begin(&q, f->c,
               "SELECT h.head_seq, h.seal, h.accounts, h.next_account,"
               " (SELECT min(seq) FROM journal WHERE seq > h.head_seq),"
               " (SELECT hash FROM seal ORDER BY last_seq DESC LIMIT 1),"
               " (SELECT count(*) FROM resolution), (SELECT count(*) FROM mark), (SELECT count(*) FROM open_hold),"
               " (SELECT count(*) FROM account), (SELECT coalesce(max(id), 0) FROM account) FROM ledger_head h");
    if (pg_q_next(&q)) {
        found = true;
        f->head = (struct pg_head){
            .seq = pg_col_i64(&q, 0), .accounts = pg_col_i64(&q, 2), .next_account = pg_col_i64(&q, 3)};
        pg_col_blob(&q, 1, f->head.seal, sizeof f->head.seal);
        beyond = pg_col_i64(&q, 4);
        if (!pg_col_null(&q, 5))
            pg_col_blob(&q, 5, last_seal, sizeof last_seal);
        f->counts = (struct proof_counts){
            .resolutions = pg_col_i64(&q, 6), .marks = pg_col_i64(&q, 7), .open_holds = pg_col_i64(&q, 8)};
        accounts = pg_col_i64(&q, 9);
        if (pg_col_i64(&q, 10) >= f->head.next_account)
            proof_fault(f->p, 0, "the next account's number, %lld, is taken", (long long)f->head.next_account);
    }
    enum pf_err e = pg_q_end(&q);
    if (e)
        return e;
    if (!found)
        proof_fault(f->p, 0, "the ledger's head is missing");
    else if (beyond)
        proof_fault(f->p, beyond, "entry %lld lies beyond the ledger's head, %lld", (long long)beyond,
                    (long long)f->head.seq);
    else if (memcmp(last_seal, f->head.seal, sizeof last_seal) != 0)
        proof_fault(f->p, 0, "the seal in the ledger's head is not the newest one");
    else if (accounts != f->head.accounts)
        proof_fault(f->p, 0, "%lld accounts are stored, the ledger's head counts %lld", (long long)accounts,
                    (long long)f->head.accounts);
    return PFE_OK;
}

static enum pf_err feed_accounts(struct feed *f)
{
    int64_t after = 0, n = PAGE;
    enum pf_err e = PFE_OK;
    while (e == PFE_OK && n == PAGE && proof_ok(f->p)) {
        struct pg_q q;
        pg_q_begin(&q, f->c, "SELECT " PG_ACCOUNT_COLUMNS " FROM account a WHERE a.id > $1 ORDER BY a.id LIMIT $2");
        pg_q_i64(&q, after);
        pg_q_i64(&q, PAGE);
        for (n = 0; e == PFE_OK && proof_ok(f->p) && pg_q_next(&q); n++) {
            struct book_account a;
            pg_account_read(&q, &a);
            after = a.a.id;
            e = proof_account(f->p, &a);
        }
        enum pf_err end = pg_q_end(&q);
        e = e ? e : end;
    }
    return e;
}

static enum pf_err judge_holds(struct feed *f)
{
    struct pg_q q;
    pg_q_begin(&q, f->c,
               "SELECT h.seq FROM open_hold h LEFT JOIN journal j ON j.seq = h.seq"
               " LEFT JOIN resolution r ON r.seq = h.seq WHERE j.kind IS DISTINCT FROM 5 OR r.seq IS NOT NULL"
               " OR h.account <> j.debit OR h.amount <> j.amount OR h.expires_us <> j.expires_us"
               " ORDER BY h.seq LIMIT 1");
    if (pg_q_next(&q))
        f->bad_hold = pg_col_i64(&q, 0);
    return pg_q_end(&q);
}

static enum pf_err feed_snapshot(struct feed *f, bool inside)
{
    enum pf_err e = inside ? PFE_OK : pg_exec(f->c, pg_begin_snapshot);
    if (e == PFE_OK && !inside)
        e = pg_exec(f->c, "SET LOCAL statement_timeout = 0");
    if (e == PFE_OK)
        e = feed_head(f);
    if (e == PFE_OK)
        e = feed_accounts(f);
    if (e == PFE_OK && proof_ok(f->p))
        e = judge_holds(f);
    if (e == PFE_OK && proof_ok(f->p))
        e = pg_tickets_judge(f->c, &f->tickets);
    f->counts.payments = f->tickets.paid;
    if (!inside)
        pg_abandon(f->c);
    return e;
}

/* ---- the journal ---- */

static void send_range(struct pg_q *q, struct pg_conn *c, const char *sql, int64_t from, int64_t to)
{
    pg_q_begin(q, c, sql);
    pg_q_i64(q, from);
    pg_q_i64(q, to);
    pg_q_send(q);
}

static enum pf_err read_block(struct feed *f, int64_t from, int64_t to)
{
    send_range(&f->b.entries, f->c,
               "SELECT " PG_ENTRY_COLUMNS " FROM journal j WHERE j.seq BETWEEN $1 AND $2 ORDER BY j.seq", from, to);
    send_range(&f->b.seals, f->c,
               "SELECT first_seq, last_seq, hash FROM seal WHERE last_seq BETWEEN $1 AND $2 ORDER BY last_seq", from,
               to);
    send_range(&f->b.refs, f->c,
               "SELECT " PG_ENTRY_COLUMNS ", r.resolver FROM journal e JOIN journal j ON j.seq = e.ref"
               " LEFT JOIN resolution r ON r.seq = j.seq WHERE e.seq BETWEEN $1 AND $2 AND e.ref <> 0 ORDER BY e.seq",
               from, to);
    send_range(&f->b.marks, f->c, "SELECT " PG_MARK_COLUMNS " FROM mark m WHERE m.seq BETWEEN $1 AND $2 ORDER BY m.seq",
               from, to);
    return pg_sync(f->c);
}

/* Entries and seals side by side, each by seq. */
static enum pf_err feed_block(struct feed *f, int64_t to)
{
    struct pg_q *s = &f->b.seals;
    enum pf_err e = PFE_OK;
    bool seal = pg_q_next(s);
    int64_t last = 0;
    while (e == PFE_OK && proof_ok(f->p) && pg_q_next(&f->b.entries)) {
        struct ledger_entry x;
        pg_entry_read(&f->b.entries, &x);
        last = x.seq;
        e = proof_entry(f->p, &x);
        for (; e == PFE_OK && proof_ok(f->p) && seal && pg_col_i64(s, 1) <= x.seq; seal = pg_q_next(s)) {
            uint8_t hash[SHA256_LEN];
            pg_col_blob(s, 2, hash, sizeof hash);
            proof_seal(f->p, pg_col_i64(s, 0), pg_col_i64(s, 1), hash);
        }
    }
    if (e == PFE_OK && proof_ok(f->p) && last != to)
        proof_fault(f->p, last + 1, "entry %lld and those up to %lld are missing", (long long)(last + 1),
                    (long long)to);
    return e;
}

static enum pf_err feed_journal(struct feed *f)
{
    enum pf_err e = PFE_OK;
    for (int64_t from = 1; e == PFE_OK && proof_ok(f->p) && from <= f->head.seq; from += BLOCK) {
        int64_t to = f->head.seq - from < BLOCK ? f->head.seq : from + BLOCK - 1;
        e = read_block(f, from, to);
        if (e == PFE_OK)
            e = feed_block(f, to);
        (void)!pg_q_end(&f->b.entries);
        (void)!pg_q_end(&f->b.seals);
        (void)!pg_q_end(&f->b.refs);
        (void)!pg_q_end(&f->b.marks);
    }
    return e;
}

enum pf_err pg_prove(struct pg_conn *c, bool inside, struct store_verify *ret)
{
    struct feed *f = calloc(1, sizeof *f);
    if (!f)
        return PFE_NOMEM;
    f->c = c;
    f->p = proof_new(&(struct proof_source){f, find_entry, find_resolver, find_mark});
    if (!f->p) {
        free(f);
        return PFE_NOMEM;
    }
    enum pf_err e = feed_snapshot(f, inside);
    if (e == PFE_OK)
        e = feed_journal(f);
    if (f->bad_hold) /* the journal comes first */
        proof_fault(f->p, f->bad_hold, "the stored open hold %lld is not what the journal says",
                    (long long)f->bad_hold);
    if (f->tickets.bad_event)
        proof_fault(f->p, 0, PROOF_STOCK, (long long)f->tickets.bad_event);
    if (f->tickets.bad_booking)
        proof_fault(f->p, 0, PROOF_BOOKING, (long long)f->tickets.bad_booking);
    if (e == PFE_OK)
        proof_end(f->p, &f->counts, ret);
    proof_free(f->p);
    free(f);
    return e;
}

enum pf_err pg_verify(struct store *st, struct store_verify *ret)
{
    struct pg_conn *c = pg_take(pg_of(st), PG_READ);
    if (!c)
        return PFE_UNAVAILABLE;
    c->timeout_ms = PG_LONG_MS;
    enum pf_err e = pg_prove(c, false, ret);
    pg_give(c);
    return e;
}
