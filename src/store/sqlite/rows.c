#include "store/sqlite/journal.h"

void sqlite_entry_read(const struct sqlite_q *q, struct ledger_entry *ret)
{
    *ret = (struct ledger_entry){.seq = sqlite_col_i64(q, 0),
                                 .ts = sqlite_col_i64(q, 1),
                                 .kind = (uint8_t)sqlite_col_i64(q, 2),
                                 .debit = sqlite_col_i64(q, 4),
                                 .credit = sqlite_col_i64(q, 5),
                                 .amount = sqlite_col_i64(q, 6),
                                 .currency = (money_currency)sqlite_col_i64(q, 7),
                                 .debit_balance = sqlite_col_i64(q, 8),
                                 .credit_balance = sqlite_col_i64(q, 9),
                                 .debit_prev = sqlite_col_i64(q, 10),
                                 .credit_prev = sqlite_col_i64(q, 11),
                                 .ref = sqlite_col_i64(q, 12),
                                 .actor = sqlite_col_i64(q, 13),
                                 .expires_us = sqlite_col_i64(q, 14),
                                 .description = sqlite_col_str(q, 15),
                                 .origin = sqlite_col_str(q, 16)};
    sqlite_col_blob(q, 3, ret->uuid, sizeof ret->uuid);
}

void sqlite_account_read(const struct sqlite_q *q, struct book_account *ret)
{
    *ret = (struct book_account){.a = {.id = sqlite_col_i64(q, 0),
                                       .owner = sqlite_col_i64(q, 1),
                                       .currency = (money_currency)sqlite_col_i64(q, 2),
                                       .flags = (uint8_t)sqlite_col_i64(q, 3),
                                       .balance = sqlite_col_i64(q, 4),
                                       .held = sqlite_col_i64(q, 5),
                                       .head = sqlite_col_i64(q, 6),
                                       .entries = sqlite_col_i64(q, 7),
                                       .updated_us = sqlite_col_i64(q, 10)},
                                 .moves = sqlite_col_i64(q, 8),
                                 .time_us = sqlite_col_i64(q, 9)};
}

/* flags … updated_us, as both statements below have them. */
static void bind_projection(struct sqlite_q *q, const struct book_account *a)
{
    sqlite_q_i64(q, a->a.flags);
    sqlite_q_i64(q, a->a.balance);
    sqlite_q_i64(q, a->a.held);
    sqlite_q_i64(q, a->a.head);
    sqlite_q_i64(q, a->a.entries);
    sqlite_q_i64(q, a->moves);
    sqlite_q_i64(q, a->time_us);
    sqlite_q_i64(q, a->a.updated_us);
}

enum pf_err sqlite_account_insert(struct sqlite_conn *w, const struct book_account *a, int64_t now_us)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w,
                   "INSERT INTO account (id, owner, currency, created_us, flags, balance, held, head, entries, moves,"
                   " time_us, updated_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)");
    sqlite_q_i64(&q, a->a.id);
    sqlite_q_i64(&q, a->a.owner);
    sqlite_q_i64(&q, a->a.currency);
    sqlite_q_i64(&q, now_us);
    bind_projection(&q, a);
    return sqlite_q_run(&q);
}

enum pf_err sqlite_account_write(struct sqlite_conn *w, const struct book_account *a)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w,
                   "UPDATE account SET flags = ?1, balance = ?2, held = ?3, head = ?4, entries = ?5, moves = ?6,"
                   " time_us = ?7, updated_us = ?8 WHERE id = ?9");
    bind_projection(&q, a);
    sqlite_q_i64(&q, a->a.id);
    return sqlite_q_run(&q);
}

enum pf_err sqlite_mark_insert(struct sqlite_conn *w, const struct book_mark *m)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w, "INSERT INTO mark (account, n, seq, ts, balance, moves) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
    sqlite_q_i64(&q, m->account);
    sqlite_q_i64(&q, m->n);
    sqlite_q_i64(&q, m->seq);
    sqlite_q_i64(&q, m->ts);
    sqlite_q_i64(&q, m->balance);
    sqlite_q_i64(&q, m->moves);
    return sqlite_q_run(&q);
}

enum pf_err sqlite_hold_insert(struct sqlite_conn *w, const struct ledger_entry *e)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w, "INSERT INTO open_hold (seq, account, amount, expires_us) VALUES (?1, ?2, ?3, ?4)");
    sqlite_q_i64(&q, e->seq);
    sqlite_q_i64(&q, e->debit);
    sqlite_q_i64(&q, e->amount);
    sqlite_q_i64(&q, e->expires_us);
    return sqlite_q_run(&q);
}

enum pf_err sqlite_resolution_insert(struct sqlite_conn *w, const struct ledger_entry *e)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w, "INSERT INTO resolution (seq, resolver) VALUES (?1, ?2)");
    sqlite_q_i64(&q, e->ref);
    sqlite_q_i64(&q, e->seq);
    enum pf_err err = sqlite_q_run(&q);
    if (err || e->kind == LEDGER_ROLLBACK)
        return err;
    sqlite_q_begin(&q, w, "DELETE FROM open_hold WHERE seq = ?1");
    sqlite_q_i64(&q, e->ref);
    return sqlite_q_run(&q);
}

enum pf_err sqlite_projection_write(struct sqlite_conn *w, const char *name, int64_t value)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w, "UPDATE projection SET value = ?1 WHERE name = ?2");
    sqlite_q_i64(&q, value);
    sqlite_q_str(&q, str_c(name));
    return sqlite_q_run(&q);
}

struct stat_writer {
    struct sqlite_conn *w;
    enum pf_err err;
};

static void write_stat(void *ctx, const struct book_series *s, int64_t minute, int64_t count, int64_t volume)
{
    struct stat_writer *t = ctx;
    if (t->err)
        return;
    struct sqlite_q q;
    sqlite_q_begin(&q, t->w,
                   "INSERT INTO stat (kind, currency, minute, count, volume) VALUES (?1, ?2, ?3, ?4, ?5)"
                   " ON CONFLICT DO UPDATE SET count = excluded.count, volume = excluded.volume");
    sqlite_q_i64(&q, s->kind);
    sqlite_q_i64(&q, s->currency);
    sqlite_q_i64(&q, minute);
    sqlite_q_i64(&q, count);
    sqlite_q_i64(&q, volume);
    t->err = sqlite_q_run(&q);
    if (t->err || minute == 0)
        return;
    /* The bucket's former minute. */
    sqlite_q_begin(
        &q, t->w,
        "DELETE FROM stat WHERE kind = ?1 AND currency = ?2 AND minute BETWEEN 1 AND ?3 AND minute % ?4 = ?5");
    sqlite_q_i64(&q, s->kind);
    sqlite_q_i64(&q, s->currency);
    sqlite_q_i64(&q, minute - 1);
    sqlite_q_i64(&q, BOOK_MINUTES);
    sqlite_q_i64(&q, minute % BOOK_MINUTES);
    t->err = sqlite_q_run(&q);
}

enum pf_err sqlite_stats_write(struct sqlite_conn *w, const struct book *b)
{
    struct stat_writer t = {.w = w};
    book_stat_dirty(b, write_stat, &t);
    if (t.err == PFE_OK)
        t.err = sqlite_projection_write(w, "stat", b->head_seq);
    if (t.err == PFE_OK)
        t.err = sqlite_projection_write(w, "time", b->time_us);
    if (t.err == PFE_OK)
        t.err = sqlite_projection_write(w, "lag", b->lag_us);
    return t.err;
}

enum pf_err sqlite_replay_entry(struct book *b, struct sqlite_conn *c, const struct ledger_entry *e,
                                struct sqlite_conn *w)
{
    int64_t held = 0;
    if (e->kind == LEDGER_CAPTURE || e->kind == LEDGER_RELEASE) {
        struct sqlite_q q;
        bool found = false;
        sqlite_q_begin(&q, c, "SELECT amount FROM journal WHERE seq = ?1");
        sqlite_q_i64(&q, e->ref);
        if (sqlite_q_next(&q)) {
            held = sqlite_col_i64(&q, 0);
            found = true;
        }
        enum pf_err err = sqlite_q_end(&q);
        if (err || !found)
            return err ? err : PFE_INTERNAL;
    }
    struct book_mark marks[2];
    unsigned n;
    enum pf_err err = book_replay(b, e, held, marks, &n);
    for (unsigned i = 0; i < n && w && err == PFE_OK; i++)
        err = sqlite_mark_insert(w, &marks[i]);
    return err;
}
