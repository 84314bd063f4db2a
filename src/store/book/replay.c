#include "store/book/book.h"

static void replay_side(struct book *b, uint32_t i, const struct ledger_entry *e, const struct ledger_entry *ref,
                        struct book_mark *marks, unsigned *n)
{
    struct book_account *x = book_at(b, i);
    if (e->seq <= x->a.head)
        return;
    ledger_evolve(&x->a, e, ref);
    x->moves += ledger_kind_moves(e->kind);
    if (e->ts > x->time_us)
        x->time_us = e->ts;
    book_touch(b, i);
    if (x->a.entries % BOOK_MARK_EVERY == 0)
        marks[(*n)++] = (struct book_mark){x->a.id, x->a.entries, e->seq, x->time_us, x->a.balance, x->moves};
}

enum pf_err book_replay(struct book *b, const struct ledger_entry *e, int64_t ref_amount, struct book_mark ret_marks[2],
                        unsigned *ret_n)
{
    uint32_t debit = book_find(b, e->debit), credit = book_find(b, e->credit);
    if (debit == BOOK_NONE || credit == BOOK_NONE)
        return PFE_INTERNAL;
    struct ledger_entry ref = {.seq = e->ref, .kind = LEDGER_HOLD, .amount = ref_amount};
    const struct ledger_entry *r = e->kind == LEDGER_CAPTURE || e->kind == LEDGER_RELEASE ? &ref : NULL;
    *ret_n = 0;
    replay_side(b, debit, e, r, ret_marks, ret_n);
    if (credit != debit)
        replay_side(b, credit, e, r, ret_marks, ret_n);
    if (e->ts > b->time_us)
        b->time_us = e->ts;
    else if (b->time_us - e->ts > b->lag_us)
        b->lag_us = b->time_us - e->ts;
    if (e->seq > b->head_seq)
        b->head_seq = e->seq;
    return PFE_OK;
}
