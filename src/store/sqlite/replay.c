/* One account recomputed from the journal, and its projection put right. */
#include <stdlib.h>

#include "store/sqlite/chain.h"

/* Arithmetic that wraps: a journal that was tampered with must not be undefined behaviour. */
static int64_t negated(int64_t v)
{
    return (int64_t)(0 - (uint64_t)v);
}

static void add_wrapping(int64_t *v, int64_t by)
{
    *v = (int64_t)((uint64_t)*v + (uint64_t)by);
}

/* What an entry does to one account's balance and hold. */
static enum pf_err effect(struct sqlite_conn *c, const struct ledger_entry *e, int64_t account, int64_t *ret_balance,
                          int64_t *ret_held)
{
    bool debit = e->debit == account;
    *ret_balance = !ledger_kind_moves(e->kind) ? 0 : debit ? negated(e->amount) : e->amount;
    *ret_held = 0;
    if (debit && e->kind == LEDGER_HOLD)
        *ret_held = e->amount;
    if (!debit || (e->kind != LEDGER_CAPTURE && e->kind != LEDGER_RELEASE))
        return PFE_OK;
    struct sqlite_q q;
    sqlite_q_begin(&q, c, "SELECT -amount FROM journal WHERE seq = ?1");
    sqlite_q_i64(&q, e->ref);
    if (sqlite_q_next(&q))
        *ret_held = sqlite_col_i64(&q, 0);
    return sqlite_q_end(&q);
}

static enum pf_err replay_chain(struct sqlite_conn *conn, const struct book_account *a, struct store_replay *ret)
{
    struct chain c;
    enum pf_err e = chain_begin(&c, conn, a);
    if (e)
        return e;
    struct store_replay r = {.head = a->a.head, .intact = true};
    struct ledger_entry x;
    int64_t expected = 0; /* the balance that this entry must have left, by the one after it */
    for (bool more = chain_from(&c, a->a.head, &x); more && e == PFE_OK; more = chain_back(&c, &x)) {
        int64_t after = x.debit == a->a.id ? x.debit_balance : x.credit_balance, moved, held;
        r.intact &= r.events == 0 || after == expected;
        e = effect(conn, &x, a->a.id, &moved, &held);
        add_wrapping(&r.balance, moved);
        add_wrapping(&r.held, held);
        expected = after;
        add_wrapping(&expected, negated(moved));
        r.events++;
    }
    r.intact &= expected == 0;
    enum pf_err end = chain_end(&c);
    if (end == PFE_INTERNAL)
        r.intact = false;
    else if (e == PFE_OK)
        e = end;
    if (e == PFE_OK)
        *ret = r;
    return e;
}

enum pf_err sqlite_replay(struct store *st, int64_t account, struct store_replay *ret)
{
    struct sqlite_store *s = sqlite_of(st);
    struct book_account a;
    enum pf_err e = book_snapshot(&s->book, account, &a);
    return e ? e : replay_chain(sqlite_reader(s), &a, ret);
}

/* ---- rebuild ---- */

/* The newest entry that names the account, by looking through the journal: for when the chain cannot be trusted. */
static enum pf_err find_head(struct sqlite_conn *c, int64_t account, int64_t *ret)
{
    struct sqlite_q q;
    *ret = 0;
    sqlite_q_begin(&q, c, "SELECT seq FROM journal WHERE debit = ?1 OR credit = ?1 ORDER BY seq DESC LIMIT 1");
    sqlite_q_i64(&q, account);
    if (sqlite_q_next(&q))
        *ret = sqlite_col_i64(&q, 0);
    return sqlite_q_end(&q);
}

/* One entry in 64, in order of age, gathered while the chain is walked from its head. `block` is the newest entry time
   of the entries since the mark before; prefix maxima follow. */
static void note_mark(struct book_mark *marks, int64_t n, const struct ledger_entry *x, const struct book_account *now)
{
    struct book_mark *m = &marks[(n - 1) / BOOK_MARK_EVERY];
    if (x->ts > m->ts)
        m->ts = x->ts;
    if (n % BOOK_MARK_EVERY != 0)
        return;
    m->account = now->a.id;
    m->n = n;
    m->seq = x->seq;
    m->balance = x->debit == now->a.id ? x->debit_balance : x->credit_balance;
    m->moves = now->moves;
}

static void apply_flags(struct ledger_account *a, const struct ledger_entry *x, bool *decided)
{
    if (x->kind == LEDGER_CLOSE)
        a->flags |= LEDGER_CLOSED;
    if (!*decided && (x->kind == LEDGER_FREEZE || x->kind == LEDGER_UNFREEZE)) {
        a->flags |= x->kind == LEDGER_FREEZE ? LEDGER_FROZEN : 0;
        *decided = true;
    }
}

/* Second walk: the account's row and its marks, from what the first walk found. marks: events / 64 + 1 of them. */
static enum pf_err gather(struct sqlite_conn *conn, const struct store_replay *r, struct book_account *a,
                          struct book_mark *marks)
{
    struct chain c;
    enum pf_err e = chain_begin(&c, conn, a);
    if (e)
        return e;
    struct ledger_entry x;
    int64_t n = r->events;
    bool frozen_decided = false;
    int64_t moves = 0;
    for (bool more = chain_from(&c, r->head, &x); more && n > 0; more = chain_back(&c, &x), n--) {
        if (n == r->events)
            a->a.updated_us = x.ts;
        a->moves = moves; /* counted from the head here, turned round below */
        note_mark(marks, n, &x, a);
        moves += ledger_kind_moves(x.kind);
        apply_flags(&a->a, &x, &frozen_decided);
    }
    a->moves = moves;
    int64_t time = 0;
    for (int64_t i = 0; i <= (r->events - 1) / BOOK_MARK_EVERY && r->events; i++) {
        time = marks[i].ts > time ? marks[i].ts : time;
        marks[i].ts = time;
        marks[i].moves = moves - marks[i].moves;
    }
    a->time_us = time;
    return chain_end(&c);
}

static enum pf_err write_projection(struct sqlite_store *s, const struct book_account *a, const struct book_mark *marks)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, &s->w, "DELETE FROM mark WHERE account = ?1");
    sqlite_q_i64(&q, a->a.id);
    enum pf_err e = sqlite_q_run(&q);
    for (int64_t i = 0; i < a->a.entries / BOOK_MARK_EVERY && e == PFE_OK; i++)
        e = sqlite_mark_insert(&s->w, &marks[i]);
    return e ? e : sqlite_account_write(&s->w, a);
}

static enum pf_err rebuild(struct sqlite_store *s, int64_t account, struct book_account *a, struct store_replay *ret)
{
    struct sqlite_conn *conn = sqlite_reader(s);
    enum pf_err e = book_snapshot(&s->book, account, a);
    if (e == PFE_OK)
        e = replay_chain(conn, a, ret);
    if (e)
        return e;
    bool agrees = ret->intact && ret->events == a->a.entries && ret->balance == a->a.balance && ret->held == a->a.held;
    if (!agrees) {
        e = find_head(conn, account, &a->a.head);
        if (e == PFE_OK)
            e = replay_chain(conn, a, ret);
        if (e || !ret->intact)
            return e;
    }
    struct book_mark *marks = calloc((size_t)ret->events / BOOK_MARK_EVERY + 1, sizeof *marks);
    if (!marks)
        return PFE_NOMEM;
    a->a = (struct ledger_account){.id = a->a.id,
                                   .owner = a->a.owner,
                                   .currency = a->a.currency,
                                   .balance = ret->balance,
                                   .held = ret->held,
                                   .head = ret->head,
                                   .entries = ret->events,
                                   .updated_us = a->a.updated_us};
    e = gather(conn, ret, a, marks);
    if (e == PFE_OK)
        e = write_projection(s, a, marks);
    free(marks);
    return e;
}

enum pf_err sqlite_account_rebuild(struct store *st, int64_t account, struct store_replay *ret)
{
    struct sqlite_store *s = sqlite_of(st);
    struct book_account a;
    struct store_replay r;
    enum pf_err e = sqlite_write_begin(s);
    if (e)
        return e;
    e = rebuild(s, account, &a, &r);
    if (e)
        return sqlite_write_failed(s, e);
    if (!r.intact) {
        sqlite_write_rollback(s);
        *ret = r;
        return PFE_OK;
    }
    e = sqlite_write_commit_locked(s);
    if (e == PFE_OK) {
        pthread_rwlock_wrlock(&s->book.lock);
        uint32_t i = book_find(&s->book, account);
        a.next = book_at(&s->book, i)->next;
        *book_at(&s->book, i) = a;
        pthread_rwlock_unlock(&s->book.lock);
        *ret = r;
    }
    pthread_mutex_unlock(&s->wlock);
    return e;
}
