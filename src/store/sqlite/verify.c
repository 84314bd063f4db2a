/* The proof (store/book/proof.h) fed from one snapshot of a database. */
#include "store/book/proof.h"
#include "store/sqlite/journal.h"

static enum pf_err one_row(struct sqlite_q *q, bool found)
{
    enum pf_err e = sqlite_q_end(q);
    return e == PFE_OK && !found ? PFE_NOT_FOUND : e;
}

static enum pf_err find_entry(void *ctx, int64_t seq, struct ledger_entry *ret)
{
    struct sqlite_q q;
    bool found = false;
    sqlite_q_begin(&q, ctx, "SELECT " SQLITE_ENTRY_COLUMNS " FROM journal WHERE seq = ?1");
    sqlite_q_i64(&q, seq);
    if (sqlite_q_next(&q)) {
        sqlite_entry_read(&q, ret);
        ret->description = ret->origin = STR_NONE;
        found = true;
    }
    return one_row(&q, found);
}

static enum pf_err find_resolver(void *ctx, int64_t seq, int64_t *ret)
{
    struct sqlite_q q;
    bool found = false;
    sqlite_q_begin(&q, ctx, "SELECT resolver FROM resolution WHERE seq = ?1");
    sqlite_q_i64(&q, seq);
    if (sqlite_q_next(&q)) {
        *ret = sqlite_col_i64(&q, 0);
        found = true;
    }
    return one_row(&q, found);
}

static enum pf_err find_mark(void *ctx, int64_t account, int64_t n, struct book_mark *ret)
{
    struct sqlite_q q;
    bool found = false;
    sqlite_q_begin(&q, ctx, "SELECT seq, ts, balance, moves FROM mark WHERE account = ?1 AND n = ?2");
    sqlite_q_i64(&q, account);
    sqlite_q_i64(&q, n);
    if (sqlite_q_next(&q)) {
        *ret = (struct book_mark){
            account, n, sqlite_col_i64(&q, 0), sqlite_col_i64(&q, 1), sqlite_col_i64(&q, 2), sqlite_col_i64(&q, 3)};
        found = true;
    }
    return one_row(&q, found);
}

static enum pf_err feed_accounts(struct proof *p, struct sqlite_conn *c)
{
    struct sqlite_q q;
    enum pf_err e = PFE_OK;
    sqlite_q_begin(&q, c, SQLITE_ACCOUNTS);
    while (e == PFE_OK && proof_ok(p) && sqlite_q_next(&q)) {
        struct book_account a;
        sqlite_account_read(&q, &a);
        e = proof_account(p, &a);
    }
    enum pf_err end = sqlite_q_end(&q);
    return e ? e : end;
}

/* Entries and seals side by side, each by seq. */
static enum pf_err feed_journal(struct proof *p, struct sqlite_conn *c)
{
    struct sqlite_q q, s;
    enum pf_err e = PFE_OK;
    sqlite_q_begin(&q, c, "SELECT " SQLITE_ENTRY_COLUMNS " FROM journal ORDER BY seq");
    sqlite_q_begin(&s, c, "SELECT first_seq, last_seq, hash FROM seal ORDER BY last_seq");
    bool seal = sqlite_q_next(&s);
    while (e == PFE_OK && proof_ok(p) && sqlite_q_next(&q)) {
        struct ledger_entry x;
        sqlite_entry_read(&q, &x);
        e = proof_entry(p, &x);
        for (; e == PFE_OK && proof_ok(p) && seal && sqlite_col_i64(&s, 1) <= x.seq; seal = sqlite_q_next(&s)) {
            uint8_t hash[SHA256_LEN];
            sqlite_col_blob(&s, 2, hash, sizeof hash);
            proof_seal(p, sqlite_col_i64(&s, 0), sqlite_col_i64(&s, 1), hash);
        }
    }
    if (e == PFE_OK && proof_ok(p) && seal)
        proof_fault(p, sqlite_col_i64(&s, 0), "entries up to %lld are sealed but missing",
                    (long long)sqlite_col_i64(&s, 1));
    enum pf_err end_q = sqlite_q_end(&q), end_s = sqlite_q_end(&s);
    return e ? e : end_q ? end_q : end_s;
}

static enum pf_err judge_holds(struct proof *p, struct sqlite_conn *c)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c,
                   "SELECT h.seq FROM open_hold h LEFT JOIN journal j ON j.seq = h.seq"
                   " LEFT JOIN resolution r ON r.seq = h.seq WHERE j.kind IS NOT 5 OR r.seq IS NOT NULL"
                   " OR h.account <> j.debit OR h.amount <> j.amount OR h.expires_us <> j.expires_us LIMIT 1");
    if (sqlite_q_next(&q))
        proof_fault(p, sqlite_col_i64(&q, 0), "the stored open hold %lld is not what the journal says",
                    (long long)sqlite_col_i64(&q, 0));
    return sqlite_q_end(&q);
}

static enum pf_err count(struct sqlite_conn *c, const char *sql, int64_t *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c, sql);
    if (sqlite_q_next(&q))
        *ret = sqlite_col_i64(&q, 0);
    return sqlite_q_end(&q);
}

static enum pf_err prove(struct proof *p, struct sqlite_conn *c, struct store_verify *ret)
{
    struct proof_counts n = {0};
    enum pf_err e = feed_accounts(p, c);
    if (e == PFE_OK)
        e = feed_journal(p, c);
    if (e == PFE_OK && proof_ok(p))
        e = judge_holds(p, c);
    if (e == PFE_OK && proof_ok(p))
        e = sqlite_tickets_judge(p, c, &n.payments);
    if (e == PFE_OK)
        e = count(c, "SELECT count(*) FROM resolution", &n.resolutions);
    if (e == PFE_OK)
        e = count(c, "SELECT count(*) FROM mark", &n.marks);
    if (e == PFE_OK)
        e = count(c, "SELECT count(*) FROM open_hold", &n.open_holds);
    if (e && (sqlite3_errcode(c->db) & 0xff) == SQLITE_CORRUPT) {
        proof_fault(p, 0, "the database file is damaged: %s", sqlite3_errmsg(c->db));
        e = PFE_OK;
    }
    if (e == PFE_OK)
        proof_end(p, &n, ret);
    return e;
}

enum pf_err sqlite_prove(struct sqlite_conn *c, struct store_verify *ret)
{
    struct proof *p = proof_new(&(struct proof_source){c, find_entry, find_resolver, find_mark});
    if (!p)
        return PFE_NOMEM;
    enum pf_err e = sqlite_exec(c, sqlite_begin);
    if (e == PFE_OK) {
        e = prove(p, c, ret);
        enum pf_err end = sqlite_exec(c, sqlite_commit);
        e = e ? e : end;
    }
    proof_free(p);
    return e;
}

enum pf_err sqlite_verify(struct store *st, struct store_verify *ret)
{
    struct sqlite_conn *c = sqlite_reader(sqlite_of(st));
    return c ? sqlite_prove(c, ret) : PFE_UNAVAILABLE;
}
