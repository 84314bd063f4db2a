#include "store/book/refold.h"

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
static enum pf_err effect(const struct refold_walk *w, const struct ledger_entry *e, int64_t account,
                          int64_t *ret_balance, int64_t *ret_held)
{
    bool debit = e->debit == account;
    int64_t ended = 0;
    *ret_balance = !ledger_kind_moves(e->kind) ? 0 : debit ? negated(e->amount) : e->amount;
    *ret_held = debit && e->kind == LEDGER_HOLD ? e->amount : 0;
    if (!debit || (e->kind != LEDGER_CAPTURE && e->kind != LEDGER_RELEASE))
        return PFE_OK;
    enum pf_err err = w->held(w->ctx, e, &ended);
    *ret_held = negated(ended);
    return err;
}

enum pf_err refold_replay(const struct refold_walk *w, int64_t account, int64_t head, struct store_replay *ret)
{
    struct store_replay r = {.head = head, .intact = true};
    struct ledger_entry x;
    enum pf_err e = PFE_OK;
    int64_t expected = 0; /* the balance that this entry must have left, by the one after it */
    for (bool more = w->from(w->ctx, head, &x); more && e == PFE_OK; more = w->back(w->ctx, &x)) {
        int64_t after = x.debit == account ? x.debit_balance : x.credit_balance, moved, held;
        r.intact &= r.events == 0 || after == expected;
        e = effect(w, &x, account, &moved, &held);
        add_wrapping(&r.balance, moved);
        add_wrapping(&r.held, held);
        expected = after;
        add_wrapping(&expected, negated(moved));
        r.events++;
    }
    r.intact &= expected == 0;
    if (e == PFE_OK)
        *ret = r;
    return e;
}

/* One entry in 64, in order of age, gathered while the chain is walked from its head. ts is the newest entry time of
   the entries since the mark before; prefix maxima follow. moves: counted from the head here, turned round after. */
static void note_mark(struct book_mark *marks, int64_t n, const struct ledger_entry *x, int64_t account, int64_t moves)
{
    struct book_mark *m = &marks[(n - 1) / BOOK_MARK_EVERY];
    if (x->ts > m->ts)
        m->ts = x->ts;
    if (n % BOOK_MARK_EVERY != 0)
        return;
    m->account = account;
    m->n = n;
    m->seq = x->seq;
    m->balance = x->debit == account ? x->debit_balance : x->credit_balance;
    m->moves = moves;
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

void refold_account(const struct refold_walk *w, const struct store_replay *r, struct book_account *a,
                    struct book_mark *marks)
{
    struct ledger_entry x;
    int64_t n = r->events, moves = 0, time = 0;
    bool frozen_decided = false;
    memset(marks, 0, ((size_t)n / BOOK_MARK_EVERY + 1) * sizeof *marks);
    a->a = (struct ledger_account){.id = a->a.id,
                                   .owner = a->a.owner,
                                   .currency = a->a.currency,
                                   .balance = r->balance,
                                   .held = r->held,
                                   .head = r->head,
                                   .entries = r->events,
                                   .updated_us = a->a.updated_us};
    for (bool more = w->from(w->ctx, r->head, &x); more && n > 0; more = w->back(w->ctx, &x), n--) {
        if (n == r->events)
            a->a.updated_us = x.ts;
        note_mark(marks, n, &x, a->a.id, moves);
        moves += ledger_kind_moves(x.kind);
        apply_flags(&a->a, &x, &frozen_decided);
    }
    for (int64_t i = 0; i <= (r->events - 1) / BOOK_MARK_EVERY && r->events; i++) {
        time = marks[i].ts > time ? marks[i].ts : time;
        marks[i].ts = time;
        marks[i].moves = moves - marks[i].moves;
    }
    a->moves = moves;
    a->time_us = time;
}
