#include "domain/ledger/ledger.h"

#include <assert.h>

/* Wraps instead of being undefined: a journal that was tampered with must reach the check that finds it. */
static void add(int64_t *v, int64_t by)
{
    *v = (int64_t)((uint64_t)*v + (uint64_t)by);
}

static void subtract(int64_t *v, int64_t by)
{
    *v = (int64_t)((uint64_t)*v - (uint64_t)by);
}

void ledger_evolve(struct ledger_account *a, const struct ledger_entry *e, const struct ledger_entry *ref)
{
    bool debited = a->id == e->debit, credited = a->id == e->credit;

    if ((!debited && !credited) || e->seq <= a->head)
        return;
    a->head = e->seq;
    a->entries++;
    a->updated_us = e->ts;

    if (ledger_kind_moves(e->kind)) {
        if (debited)
            subtract(&a->balance, e->amount);
        if (credited)
            add(&a->balance, e->amount);
    }
    switch ((enum ledger_kind)e->kind) {
    case LEDGER_HOLD:
        if (debited)
            add(&a->held, e->amount);
        break;
    case LEDGER_CAPTURE:
    case LEDGER_RELEASE:
        if (debited) {
            assert(ref && ref->seq == e->ref);
            subtract(&a->held, ref->amount);
        }
        break;
    case LEDGER_FREEZE:
        a->flags |= LEDGER_FROZEN;
        break;
    case LEDGER_UNFREEZE:
        a->flags = (uint8_t)(a->flags & ~LEDGER_FROZEN);
        break;
    case LEDGER_CLOSE:
        a->flags |= LEDGER_CLOSED;
        break;
    case LEDGER_DEPOSIT:
    case LEDGER_WITHDRAW:
    case LEDGER_TRANSFER:
    case LEDGER_ROLLBACK:
        break;
    }
}
