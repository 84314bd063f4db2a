#include "domain/ledger/ledger.h"

/* What may stand on each side of an entry. A kind that resolves takes its sides from the entry it resolves. */
enum party { ANYONE, USER, EXTERNAL };

static const struct rule {
    uint8_t debit, credit; /* enum party */
    bool resolves, state;
} rules[LEDGER_KIND_MAX + 1] = {
    [LEDGER_DEPOSIT] = {.debit = EXTERNAL, .credit = USER},
    [LEDGER_WITHDRAW] = {.debit = USER, .credit = EXTERNAL},
    [LEDGER_TRANSFER] = {.debit = USER, .credit = USER},
    [LEDGER_ROLLBACK] = {.resolves = true},
    [LEDGER_HOLD] = {.debit = USER, .credit = ANYONE},
    [LEDGER_CAPTURE] = {.debit = USER, .credit = ANYONE, .resolves = true},
    [LEDGER_RELEASE] = {.debit = USER, .credit = ANYONE, .resolves = true},
    [LEDGER_FREEZE] = {.state = true},
    [LEDGER_UNFREEZE] = {.state = true},
    [LEDGER_CLOSE] = {.state = true},
};

static bool is_party(const struct ledger_account *a, uint8_t party)
{
    return party == ANYONE || ledger_is_external(a) == (party == EXTERNAL);
}

enum pf_err ledger_sides(const struct ledger_command *c, int64_t *ret_debit, int64_t *ret_credit)
{
    const struct ledger_entry *ref = c->ref;

    if (!ref)
        return PFE_WRONG_STATE;
    if (c->kind == LEDGER_ROLLBACK) {
        if (!ledger_kind_moves(ref->kind) || ref->kind == LEDGER_ROLLBACK)
            return PFE_WRONG_STATE;
        *ret_debit = ref->credit;
        *ret_credit = ref->debit;
        return PFE_OK;
    }
    if ((c->kind != LEDGER_CAPTURE && c->kind != LEDGER_RELEASE) || ref->kind != LEDGER_HOLD)
        return PFE_WRONG_STATE;
    *ret_debit = ref->debit;
    *ret_credit = ref->credit;
    return PFE_OK;
}

/* The entry to resolve: may it be, and by these accounts? */
static enum pf_err check_ref(const struct ledger_account *debit, const struct ledger_account *credit,
                             const struct ledger_command *c)
{
    int64_t debit_id, credit_id;
    enum pf_err e = ledger_sides(c, &debit_id, &credit_id);

    if (e != PFE_OK)
        return e;
    if (debit->id != debit_id || credit->id != credit_id)
        return PFE_INTERNAL;
    if (c->ref_resolved)
        return c->kind == LEDGER_ROLLBACK ? PFE_ALREADY_ROLLED_BACK : PFE_WRONG_STATE;
    if (c->kind == LEDGER_CAPTURE) {
        if (c->ref->expires_us != 0 && c->ts >= c->ref->expires_us)
            return PFE_WRONG_STATE;
        if (c->amount > c->ref->amount)
            return PFE_WRONG_STATE;
    }
    if (c->kind != LEDGER_ROLLBACK && debit->held < c->ref->amount)
        return PFE_INTERNAL;
    return PFE_OK;
}

static enum pf_err check_open(const struct ledger_account *debit, const struct ledger_account *credit)
{
    uint8_t flags = debit->flags | credit->flags;

    if (flags & LEDGER_CLOSED)
        return PFE_ACCOUNT_CLOSED;
    return flags & LEDGER_FROZEN ? PFE_ACCOUNT_FROZEN : PFE_OK;
}

static enum pf_err check_state(const struct ledger_account *a, enum ledger_kind kind)
{
    if (ledger_is_external(a) || (a->flags & LEDGER_CLOSED))
        return PFE_WRONG_STATE;
    if (kind == LEDGER_CLOSE)
        return a->balance != 0 || a->held != 0 ? PFE_HOLDS_MONEY : PFE_OK;
    return !(a->flags & LEDGER_FROZEN) == (kind == LEDGER_FREEZE) ? PFE_OK : PFE_WRONG_STATE;
}

/* Text that every engine stores as it is: one entry that its database refuses would fail its whole group. */
static bool is_text(struct str s, size_t max)
{
    return s.n <= max && (s.n == 0 || (!memchr(s.p, '\0', s.n) && str_utf8_ok(s)));
}

static bool texts_fit(const struct ledger_command *c)
{
    return is_text(c->description, LEDGER_DESCRIPTION_MAX) && is_text(c->origin, LEDGER_ORIGIN_MAX);
}

static int64_t amount_of(const struct ledger_command *c)
{
    switch (c->kind) {
    case LEDGER_ROLLBACK:
    case LEDGER_RELEASE:
        return c->ref->amount;
    case LEDGER_CAPTURE:
        return c->amount == 0 ? c->ref->amount : c->amount;
    default:
        return c->amount;
    }
}

/* Symmetric: INT64_MIN is no balance, so that any balance can be negated. */
static bool shift(int64_t balance, int64_t by, int64_t *ret)
{
    return !__builtin_add_overflow(balance, by, ret) && *ret != INT64_MIN;
}

static enum pf_err check_amount(const struct ledger_account *debit, const struct ledger_account *credit,
                                const struct ledger_command *c, int64_t amount, struct ledger_entry *e)
{
    if (c->kind == LEDGER_RELEASE)
        return PFE_OK;
    /* what a capture takes is already set aside */
    if (c->kind != LEDGER_CAPTURE && !ledger_is_external(debit) && ledger_available(debit) < amount)
        return PFE_INSUFFICIENT_FUNDS;
    if (c->kind == LEDGER_HOLD)
        return PFE_OK;
    return shift(debit->balance, -amount, &e->debit_balance) && shift(credit->balance, amount, &e->credit_balance)
               ? PFE_OK
               : PFE_OVERFLOW;
}

enum pf_err ledger_decide(const struct ledger_account *debit, const struct ledger_account *credit,
                          const struct ledger_command *c, struct ledger_entry *ret)
{
    enum pf_err err = PFE_OK;
    const struct rule *rule = &rules[(unsigned)c->kind <= LEDGER_KIND_MAX ? c->kind : 0];
    int64_t amount = 0;
    struct ledger_entry e;

    if (!ledger_kind_name(c->kind) || !is_party(debit, rule->debit) || !is_party(credit, rule->credit) ||
        (rule->state && debit->id != credit->id))
        return PFE_INTERNAL;
    if (rule->resolves)
        err = check_ref(debit, credit, c);
    if (err != PFE_OK)
        return err;
    if (!texts_fit(c))
        return PFE_INVALID;
    if (!rule->state) {
        amount = amount_of(c);
        if (amount <= 0)
            return PFE_INVALID;
        if (debit->id == credit->id)
            return PFE_SAME_ACCOUNT;
    }
    if (debit->currency != c->currency || credit->currency != c->currency)
        return PFE_CURRENCY_MISMATCH;

    e = (struct ledger_entry){
        .seq = c->seq,
        .ts = c->ts,
        .kind = (uint8_t)c->kind,
        .debit = debit->id,
        .credit = credit->id,
        .amount = amount,
        .currency = c->currency,
        .debit_balance = debit->balance,
        .credit_balance = credit->balance,
        .debit_prev = debit->head,
        .credit_prev = credit->head,
        .ref = rule->resolves ? c->ref->seq : 0,
        .actor = c->actor,
        .expires_us = c->kind == LEDGER_HOLD ? c->expires_us : 0,
        .description = c->description,
        .origin = c->origin,
    };
    memcpy(e.uuid, c->uuid, sizeof e.uuid);

    if (rule->state)
        err = check_state(debit, c->kind);
    else if (c->kind != LEDGER_RELEASE)
        err = check_open(debit, credit);
    if (err == PFE_OK && !rule->state)
        err = check_amount(debit, credit, c, amount, &e);
    if (err == PFE_OK)
        *ret = e;
    return err;
}
