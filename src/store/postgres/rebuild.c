/* Every stored projection overwritten with what the journal says, in one transaction. */
#include <stdio.h>
#include <stdlib.h>

#include "store/postgres/journal.h"

enum { BLOCK = 2000 };

static const char lock_sql[] = "SELECT head_seq FROM ledger_head FOR UPDATE";

struct rebuilder {
    struct pg_conn *c;
    struct book b;
    int64_t seq; /* newest entry replayed */
    struct pg_stats stats;
};

static enum pf_err fresh_accounts(struct rebuilder *r)
{
    int64_t after = 0, n = BLOCK;
    enum pf_err e = PFE_OK;
    while (e == PFE_OK && n == BLOCK) {
        struct pg_q q;
        pg_q_begin(&q, r->c, "SELECT " PG_ACCOUNT_COLUMNS " FROM account a WHERE a.id > $1 ORDER BY a.id LIMIT $2");
        pg_q_i64(&q, after);
        pg_q_i64(&q, BLOCK);
        for (n = 0; e == PFE_OK && pg_q_next(&q); n++) {
            struct book_account a;
            pg_account_read(&q, &a);
            after = a.a.id;
            struct book_account fresh = {
                .a = {.id = a.a.id, .owner = a.a.owner, .currency = a.a.currency, .updated_us = a.a.updated_us}};
            e = book_reserve(&r->b, 1);
            if (e == PFE_OK)
                book_touch(&r->b, book_add(&r->b, &fresh));
        }
        enum pf_err end = pg_q_end(&q);
        e = e ? e : end;
    }
    return e;
}

struct made { /* by one block */
    struct ledger_entry entries[BLOCK];
    struct book_mark marks[2 * BLOCK];
    size_t n, n_marks;
};

static enum pf_err replay_one(struct rebuilder *r, struct made *m, const struct ledger_entry *x, int64_t held)
{
    unsigned n = 0;
    enum pf_err e =
        x->kind < 1 || x->kind > LEDGER_KIND_MAX ? PFE_INTERNAL : book_stat_reserve(&r->b, x->kind, x->currency);
    if (e == PFE_OK)
        e = book_replay(&r->b, x, held, m->marks + m->n_marks, &n);
    if (e)
        return e;
    book_stat_add(&r->b, x);
    m->n_marks += n;
    m->entries[m->n] = *x;
    m->entries[m->n++].description = STR_NONE;
    return PFE_OK;
}

/* What a block of entries makes, added in one round trip. */
static enum pf_err write_block(struct rebuilder *r, const struct made *m)
{
    struct pg_q q[4];
    unsigned n = 0;
    n += pg_send_resolutions(&q[n], r->c, m->entries, m->n);
    n += pg_send_holds(&q[n], r->c, m->entries, m->n);
    n += pg_send_holds_ended(&q[n], r->c, m->entries, m->n);
    if (m->n_marks)
        pg_send_marks(&q[n++], r->c, m->marks, m->n_marks);
    enum pf_err e = pg_sync(r->c);
    while (n > 0)
        (void)!pg_q_end(&q[--n]);
    return e;
}

static enum pf_err replay_block(struct rebuilder *r, struct made *m)
{
    struct pg_q q;
    enum pf_err e = PFE_OK;
    m->n = m->n_marks = 0;
    pg_q_begin(&q, r->c,
               "SELECT " PG_ENTRY_COLUMNS ", CASE WHEN j.kind IN (6, 7) THEN"
               " (SELECT h.amount FROM journal h WHERE h.seq = j.ref) ELSE 0 END"
               " FROM journal j WHERE j.seq > $1 ORDER BY j.seq LIMIT $2");
    pg_q_i64(&q, r->seq);
    pg_q_i64(&q, BLOCK);
    while (e == PFE_OK && pg_q_next(&q)) {
        struct ledger_entry x;
        pg_entry_read(&q, &x);
        r->seq = x.seq;
        e = pg_col_null(&q, PG_ENTRY_N) ? PFE_INTERNAL : replay_one(r, m, &x, pg_col_i64(&q, PG_ENTRY_N));
    }
    enum pf_err end = pg_q_end(&q);
    e = e ? e : end;
    return e ? e : write_block(r, m);
}

static enum pf_err replay_all(struct rebuilder *r, int64_t *ret_entries)
{
    struct made *m = malloc(sizeof *m);
    if (!m)
        return PFE_NOMEM;
    enum pf_err e;
    *ret_entries = 0;
    do {
        e = replay_block(r, m);
        *ret_entries += (int64_t)m->n;
    } while (e == PFE_OK && m->n == BLOCK);
    free(m);
    return e;
}

static enum pf_err write_accounts(struct rebuilder *r)
{
    const struct book_account *rows[BLOCK];
    size_t at = 0, n = BLOCK;
    enum pf_err e = PFE_OK;
    book_epoch_begin(&r->b);
    while (e == PFE_OK && n == BLOCK) {
        uint32_t i;
        for (n = 0; n < BLOCK && (i = book_epoch_next(&r->b, &at)) != BOOK_NONE; n++)
            rows[n] = book_at(&r->b, i);
        if (n == 0)
            break;
        struct pg_q q;
        pg_send_account_updates(&q, r->c, rows, n);
        e = pg_sync(r->c);
        (void)!pg_q_end(&q);
    }
    return e;
}

static enum pf_err write_rest(struct rebuilder *r)
{
    struct pg_q stats, head;
    enum pf_err e = pg_stats_gather(&r->stats, &r->b);
    if (e)
        return e;
    pg_send_stats(&stats, r->c, &r->stats);
    /* The newest seal as it stands: if the journal does not go with it, verification says so. */
    pg_q_begin(&head, r->c,
               "UPDATE ledger_head SET head_seq = $1, time_us = $2, lag_us = $3, next_account = $4, accounts = $5,"
               " seal = coalesce((SELECT hash FROM seal ORDER BY last_seq DESC LIMIT 1), seal)");
    pg_q_i64(&head, r->b.head_seq);
    pg_q_i64(&head, r->b.time_us);
    pg_q_i64(&head, r->b.lag_us);
    pg_q_i64(&head, r->b.next_id);
    pg_q_i64(&head, (int64_t)r->b.n);
    pg_q_send(&head);
    e = pg_sync(r->c);
    (void)!pg_q_end(&stats);
    (void)!pg_q_end(&head);
    return e;
}

static enum pf_err rebuild(struct rebuilder *r, int64_t *ret_entries)
{
    static const char *const first[] = {pg_begin,
                                        "SET LOCAL statement_timeout = 0",
                                        "SET LOCAL idle_in_transaction_session_timeout = 0",
                                        lock_sql,
                                        "DELETE FROM mark",
                                        "DELETE FROM resolution",
                                        "DELETE FROM open_hold",
                                        "DELETE FROM stat"};
    enum pf_err e = PFE_OK;
    for (size_t i = 0; i < sizeof first / sizeof *first && e == PFE_OK; i++)
        e = pg_exec(r->c, first[i]);
    if (e == PFE_OK)
        e = fresh_accounts(r);
    if (e == PFE_OK)
        e = replay_all(r, ret_entries);
    if (e == PFE_OK)
        e = write_accounts(r);
    if (e == PFE_OK)
        e = write_rest(r);
    if (e == PFE_OK && pg_commit(r->c) != PFE_OK)
        e = PFE_UNAVAILABLE; /* undone, or unknown and to be done again */
    return e;
}

enum pf_err pg_ledger_rebuild(struct postgres_store *s, int64_t *ret_entries, char ret_why[PG_WHY])
{
    struct rebuilder r = {.c = pg_writer(s)};
    int64_t entries = 0;
    snprintf(ret_why, PG_WHY, "out of memory");
    if (book_init(&r.b) != PFE_OK)
        return PFE_NOMEM;
    enum pf_err e = PFE_UNAVAILABLE;
    if (r.c) {
        r.c->timeout_ms = PG_LONG_MS;
        e = rebuild(&r, &entries);
        r.c->timeout_ms = s->timeout_ms;
        pg_abandon(r.c);
    }
    if (e == PFE_INTERNAL || e == PFE_WRONG_STATE) {
        snprintf(ret_why, PG_WHY,
                 "entry %lld or one after it names an account or an entry that is not there, or"
                 " resolves one twice",
                 (long long)r.seq);
        e = PFE_WRONG_STATE;
    } else if (e) {
        snprintf(ret_why, PG_WHY, "cannot rebuild: %.230s", s->w.why);
    }
    book_free(&r.b);
    free(r.stats.v);
    if (e == PFE_OK)
        *ret_entries = entries;
    return e;
}
