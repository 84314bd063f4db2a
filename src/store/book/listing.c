#include "store/book/book.h"

void book_listing_init(struct book_listing *l, const struct store_entry_query *q, struct book *b)
{
    *l = (struct book_listing){.q = q, .book = b, .lag_us = book_lag(b), .kinds = q->kinds};
    for (int k = 1; k <= LEDGER_KIND_MAX && !q->kinds; k++)
        if (ledger_kind_moves((enum ledger_kind)k))
            l->kinds |= 1u << k;
}

static bool matches(const struct book_listing *l, const struct ledger_entry *e)
{
    const struct store_entry_query *q = l->q;
    if (!(l->kinds >> e->kind & 1u) || (q->currency && e->currency != q->currency))
        return false;
    if ((q->from_us && e->ts < q->from_us) || (q->to_us && e->ts >= q->to_us))
        return false;
    if ((q->min_amount && e->amount < q->min_amount) || (q->max_amount && e->amount > q->max_amount))
        return false;
    if (q->counterparty < 0)
        return true;
    if (q->account)
        return book_owner(l->book, e->debit == q->account ? e->credit : e->debit) == q->counterparty;
    return book_owner(l->book, e->debit) == q->counterparty || book_owner(l->book, e->credit) == q->counterparty;
}

enum book_offer book_listing_offer(struct book_listing *l, const struct ledger_entry *e, int64_t resolved_by)
{
    const struct store_entry_query *q = l->q;
    /* No entry lies further than the lag behind a newer-stamped one before it, so none before this can match. */
    if (q->from_us && e->ts < q->from_us - l->lag_us) {
        l->cursor = 0;
        return BOOK_STOP;
    }
    if (matches(l, e) &&
        (q->status == STORE_STATUS_ANY || (q->status == STORE_STATUS_RESOLVED) == (resolved_by != 0))) {
        if (l->given == q->limit)
            return BOOK_STOP;
        if (l->skipped == q->offset) {
            l->given++;
            l->cursor = e->seq;
            l->looked++;
            return BOOK_GIVE;
        }
        l->skipped++;
    }
    if (++l->looked >= STORE_SCAN_MAX) {
        l->cursor = e->seq;
        return BOOK_STOP;
    }
    return BOOK_SKIP;
}
