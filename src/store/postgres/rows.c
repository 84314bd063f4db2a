#include <stdlib.h>

#include "store/postgres/journal.h"

void pg_entry_read(const struct pg_q *q, struct ledger_entry *ret)
{
    *ret = (struct ledger_entry){.seq = pg_col_i64(q, 0),
                                 .ts = pg_col_i64(q, 1),
                                 .kind = (uint8_t)pg_col_i64(q, 2),
                                 .debit = pg_col_i64(q, 4),
                                 .credit = pg_col_i64(q, 5),
                                 .amount = pg_col_i64(q, 6),
                                 .currency = (money_currency)pg_col_i64(q, 7),
                                 .debit_balance = pg_col_i64(q, 8),
                                 .credit_balance = pg_col_i64(q, 9),
                                 .debit_prev = pg_col_i64(q, 10),
                                 .credit_prev = pg_col_i64(q, 11),
                                 .ref = pg_col_i64(q, 12),
                                 .actor = pg_col_i64(q, 13),
                                 .expires_us = pg_col_i64(q, 14),
                                 .description = pg_col_str(q, 15),
                                 .origin = pg_col_str(q, 16)};
    pg_col_blob(q, 3, ret->uuid, sizeof ret->uuid);
}

void pg_account_read(const struct pg_q *q, struct book_account *ret)
{
    memset(ret, 0, sizeof *ret); /* the gaps too: accounts are compared as bytes */
    ret->a.id = pg_col_i64(q, 0);
    ret->a.owner = pg_col_i64(q, 1);
    ret->a.currency = (money_currency)pg_col_i64(q, 2);
    ret->a.flags = (uint8_t)pg_col_i64(q, 3);
    ret->a.balance = pg_col_i64(q, 4);
    ret->a.held = pg_col_i64(q, 5);
    ret->a.head = pg_col_i64(q, 6);
    ret->a.entries = pg_col_i64(q, 7);
    ret->moves = pg_col_i64(q, 8);
    ret->time_us = pg_col_i64(q, 9);
    ret->a.updated_us = pg_col_i64(q, 10);
    ret->next = BOOK_NONE;
}

void pg_mark_read(const struct pg_q *q, struct book_mark *ret)
{
    *ret = (struct book_mark){.account = pg_col_i64(q, 0),
                              .n = pg_col_i64(q, 1),
                              .seq = pg_col_i64(q, 2),
                              .ts = pg_col_i64(q, 3),
                              .balance = pg_col_i64(q, 4),
                              .moves = pg_col_i64(q, 5)};
}

void pg_q_on(struct pg_q *q, struct postgres_store *s, struct pg_conn *c, const char *sql)
{
    if (c)
        pg_q_begin(q, c, sql);
    else
        pg_read_begin(q, s, PG_FROM_ANY, sql);
}

enum pf_err pg_account_snapshot(struct postgres_store *s, struct pg_conn *c, int64_t id, struct book_account *ret,
                                int64_t *ret_lag_us)
{
    struct pg_q q;
    bool found = false;
    pg_q_on(&q, s, c,
            "SELECT " PG_ACCOUNT_COLUMNS ", h.lag_us FROM account a CROSS JOIN ledger_head h WHERE a.id = $1");
    pg_q_i64(&q, id);
    if (pg_q_next(&q)) {
        pg_account_read(&q, ret);
        *ret_lag_us = pg_col_i64(&q, PG_ACCOUNT_N);
        found = true;
    }
    enum pf_err e = pg_q_end(&q);
    return e == PFE_OK && !found ? PFE_NOT_FOUND : e;
}

/* One parameter: the member of each of n pointers. */
#define BIND_EACH(q, v, n, member)                                                                                     \
    do {                                                                                                               \
        pg_q_i64s_begin((q), (n));                                                                                     \
        for (size_t at_ = 0; at_ < (n); at_++)                                                                         \
            pg_q_i64s_put((q), (int64_t)(v)[at_]->member);                                                             \
    } while (0)

static void bind_projections(struct pg_q *q, const struct book_account *const *a, size_t n)
{
    BIND_EACH(q, a, n, a.id);
    BIND_EACH(q, a, n, a.flags);
    BIND_EACH(q, a, n, a.balance);
    BIND_EACH(q, a, n, a.held);
    BIND_EACH(q, a, n, a.head);
    BIND_EACH(q, a, n, a.entries);
    BIND_EACH(q, a, n, moves);
    BIND_EACH(q, a, n, time_us);
    BIND_EACH(q, a, n, a.updated_us);
}

void pg_send_account_updates(struct pg_q *q, struct pg_conn *c, const struct book_account *const *a, size_t n)
{
    pg_q_begin(q, c,
               "UPDATE account a SET flags = k.flags::int2, balance = k.balance, held = k.held, head = k.head,"
               " entries = k.entries, moves = k.moves, time_us = k.time_us, updated_us = k.updated_us"
               " FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[],"
               " $8::int8[], $9::int8[]) k(id, flags, balance, held, head, entries, moves, time_us, updated_us)"
               " WHERE a.id = k.id");
    bind_projections(q, a, n);
    pg_q_send(q);
}

void pg_send_account_inserts(struct pg_q *q, struct pg_conn *c, const struct book_account *const *a, size_t n,
                             int64_t now_us)
{
    pg_q_begin(q, c,
               "INSERT INTO account (id, flags, balance, held, head, entries, moves, time_us, updated_us, owner,"
               " currency, created_us)"
               " SELECT k.id, k.flags::int2, k.balance, k.held, k.head, k.entries, k.moves, k.time_us, k.updated_us,"
               " k.owner, k.currency::int2, $12"
               " FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[],"
               " $8::int8[], $9::int8[], $10::int8[], $11::int8[])"
               " k(id, flags, balance, held, head, entries, moves, time_us, updated_us, owner, currency)");
    bind_projections(q, a, n);
    BIND_EACH(q, a, n, a.owner);
    BIND_EACH(q, a, n, a.currency);
    pg_q_i64(q, now_us);
    pg_q_send(q);
}

void pg_send_marks(struct pg_q *q, struct pg_conn *c, const struct book_mark *m, size_t n)
{
    pg_q_begin(q, c,
               "INSERT INTO mark (account, n, seq, ts, balance, moves)"
               " SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])");
    pg_q_i64s(q, &m->account, sizeof *m, n);
    pg_q_i64s(q, &m->n, sizeof *m, n);
    pg_q_i64s(q, &m->seq, sizeof *m, n);
    pg_q_i64s(q, &m->ts, sizeof *m, n);
    pg_q_i64s(q, &m->balance, sizeof *m, n);
    pg_q_i64s(q, &m->moves, sizeof *m, n);
    pg_q_send(q);
}

/* ---- entries and what goes with them: the statement takes those of n entries that pick() picks ---- */

static bool any(const struct ledger_entry *e)
{
    (void)e;
    return true;
}

static bool resolves(const struct ledger_entry *e)
{
    return e->ref != 0;
}

static bool holds(const struct ledger_entry *e)
{
    return e->kind == LEDGER_HOLD;
}

static bool ends_hold(const struct ledger_entry *e)
{
    return e->kind == LEDGER_CAPTURE || e->kind == LEDGER_RELEASE;
}

static size_t count(const struct ledger_entry *e, size_t n, bool (*pick)(const struct ledger_entry *))
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += pick(&e[i]);
    return k;
}

#define BIND_PICKED(q, e, n, k, pick, member)                                                                          \
    do {                                                                                                               \
        pg_q_i64s_begin((q), (k));                                                                                     \
        for (size_t at_ = 0; at_ < (n); at_++)                                                                         \
            if (pick(&(e)[at_]))                                                                                       \
                pg_q_i64s_put((q), (int64_t)(e)[at_].member);                                                          \
    } while (0)

void pg_send_entries(struct pg_q *q, struct pg_conn *c, const struct ledger_entry *e, size_t n)
{
    pg_q_begin(q, c,
               "INSERT INTO journal (seq, ts, kind, uuid, debit, credit, amount, currency, debit_balance,"
               " credit_balance, debit_prev, credit_prev, ref, actor, expires_us, description, origin)"
               " SELECT k.seq, k.ts, k.kind::int2, k.uuid, k.debit, k.credit, k.amount, k.currency::int2,"
               " k.debit_balance, k.credit_balance, k.debit_prev, k.credit_prev, k.ref, k.actor, k.expires_us,"
               " k.description, k.origin"
               " FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::bytea[], $5::int8[], $6::int8[], $7::int8[],"
               " $8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::int8[],"
               " $15::int8[], $16::text[], $17::text[])"
               " k(seq, ts, kind, uuid, debit, credit, amount, currency, debit_balance, credit_balance, debit_prev,"
               " credit_prev, ref, actor, expires_us, description, origin)");
    BIND_PICKED(q, e, n, n, any, seq);
    BIND_PICKED(q, e, n, n, any, ts);
    BIND_PICKED(q, e, n, n, any, kind);
    pg_q_blobs_fixed(q, e->uuid, sizeof *e, sizeof e->uuid, n);
    BIND_PICKED(q, e, n, n, any, debit);
    BIND_PICKED(q, e, n, n, any, credit);
    BIND_PICKED(q, e, n, n, any, amount);
    BIND_PICKED(q, e, n, n, any, currency);
    BIND_PICKED(q, e, n, n, any, debit_balance);
    BIND_PICKED(q, e, n, n, any, credit_balance);
    BIND_PICKED(q, e, n, n, any, debit_prev);
    BIND_PICKED(q, e, n, n, any, credit_prev);
    BIND_PICKED(q, e, n, n, any, ref);
    BIND_PICKED(q, e, n, n, any, actor);
    BIND_PICKED(q, e, n, n, any, expires_us);
    pg_q_strs(q, &e->description, sizeof *e, n);
    pg_q_strs(q, &e->origin, sizeof *e, n);
    pg_q_send(q);
}

bool pg_send_resolutions(struct pg_q *q, struct pg_conn *c, const struct ledger_entry *e, size_t n)
{
    size_t k = count(e, n, resolves);
    if (k == 0)
        return false;
    pg_q_begin(q, c, "INSERT INTO resolution (seq, resolver) SELECT * FROM unnest($1::int8[], $2::int8[])");
    BIND_PICKED(q, e, n, k, resolves, ref);
    BIND_PICKED(q, e, n, k, resolves, seq);
    pg_q_send(q);
    return true;
}

bool pg_send_holds(struct pg_q *q, struct pg_conn *c, const struct ledger_entry *e, size_t n)
{
    size_t k = count(e, n, holds);
    if (k == 0)
        return false;
    pg_q_begin(q, c,
               "INSERT INTO open_hold (seq, account, amount, expires_us)"
               " SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[])");
    BIND_PICKED(q, e, n, k, holds, seq);
    BIND_PICKED(q, e, n, k, holds, debit);
    BIND_PICKED(q, e, n, k, holds, amount);
    BIND_PICKED(q, e, n, k, holds, expires_us);
    pg_q_send(q);
    return true;
}

bool pg_send_holds_ended(struct pg_q *q, struct pg_conn *c, const struct ledger_entry *e, size_t n)
{
    size_t k = count(e, n, ends_hold);
    if (k == 0)
        return false;
    pg_q_begin(q, c, "DELETE FROM open_hold h USING unnest($1::int8[]) k(seq) WHERE h.seq = k.seq");
    BIND_PICKED(q, e, n, k, ends_hold, ref);
    pg_q_send(q);
    return true;
}

/* ---- statistics ---- */

static void add_stat(void *ctx, const struct book_series *s, int64_t minute, int64_t count, int64_t volume)
{
    struct pg_stats *t = ctx;
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        struct pg_stat *v = realloc(t->v, cap * sizeof *v);
        if (!v) {
            t->nomem = true;
            return;
        }
        t->v = v;
        t->cap = cap;
    }
    t->v[t->n++] = (struct pg_stat){s->kind, s->currency, minute, count, volume};
}

enum pf_err pg_stats_gather(struct pg_stats *t, const struct book *b)
{
    t->n = 0;
    t->nomem = false;
    book_stat_dirty(b, add_stat, t);
    return t->nomem ? PFE_NOMEM : PFE_OK;
}

void pg_send_stats(struct pg_q *q, struct pg_conn *c, const struct pg_stats *t)
{
    pg_q_begin(q, c,
               "INSERT INTO stat AS s (kind, currency, minute, count, volume)"
               " SELECT k.kind::int2, k.currency::int2, k.minute, k.count, k.volume"
               " FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[])"
               " k(kind, currency, minute, count, volume)"
               " ON CONFLICT (kind, currency, minute) DO UPDATE SET count = s.count + excluded.count,"
               " volume = CASE WHEN s.volume > 9223372036854775807 - excluded.volume THEN 9223372036854775807"
               " ELSE s.volume + excluded.volume END");
    static const struct pg_stat none;
    const struct pg_stat *v = t->v ? t->v : &none;
    pg_q_i64s(q, &v->kind, sizeof *v, t->n);
    pg_q_i64s(q, &v->currency, sizeof *v, t->n);
    pg_q_i64s(q, &v->minute, sizeof *v, t->n);
    pg_q_i64s(q, &v->count, sizeof *v, t->n);
    pg_q_i64s(q, &v->volume, sizeof *v, t->n);
    pg_q_send(q);
}
