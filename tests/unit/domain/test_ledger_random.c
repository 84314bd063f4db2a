/*
 * Random commands over a few accounts in three currencies. A small model with balances of its own, in 128 bits,
 * says what each command must answer and what the balances are afterwards; the invariants are checked after each entry.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "domain/ledger/ledger.h"
#include "prng.h"

enum { COMMANDS = 200000, CURRENCIES = 3, SLOTS = 20, ACCOUNTS_MAX = COMMANDS + SLOTS, RECENT = 400 };
static const money_currency currencies[CURRENCIES] = {840, 392, 414};

typedef __int128 wide;

struct model {
    wide balance, held;
    bool frozen, closed;
    int64_t last; /* entry */
};

struct record {
    struct ledger_entry e;
    bool resolved;
};

static struct world {
    struct prng rng;
    struct ledger_account external[CURRENCIES], user[ACCOUNTS_MAX];
    struct model external_model[CURRENCIES], user_model[ACCOUNTS_MAX];
    struct ledger_account external_snapshot[CURRENCIES], user_snapshot[ACCOUNTS_MAX];
    int slot[SLOTS]; /* index of the user account in use */
    int users;
    struct record journal[COMMANDS + 1]; /* by seq */
    int64_t entries;
    unsigned answers[PFE_COUNT], done[LEDGER_KIND_MAX + 1];
} w;

static unsigned below(unsigned n)
{
    return prng_below(&w.rng, n);
}

static bool chance(unsigned one_in)
{
    return below(one_in) == 0;
}

static int currency_index(money_currency c)
{
    int i = 0;

    while (currencies[i] != c)
        i++;
    return i;
}

static struct ledger_account *by_id(int64_t id)
{
    return id < LEDGER_FIRST_USER_ACCOUNT ? &w.external[currency_index((money_currency)id)]
                                          : &w.user[id - LEDGER_FIRST_USER_ACCOUNT];
}

static struct model *model_of(int64_t id)
{
    return id < LEDGER_FIRST_USER_ACCOUNT ? &w.external_model[currency_index((money_currency)id)]
                                          : &w.user_model[id - LEDGER_FIRST_USER_ACCOUNT];
}

static struct ledger_account new_user(int index)
{
    return (struct ledger_account){
        .id = LEDGER_FIRST_USER_ACCOUNT + index, .owner = index + 1, .currency = currencies[index % CURRENCIES]};
}

static void open_account(int slot)
{
    w.slot[slot] = w.users;
    w.user[w.users] = new_user(w.users);
    w.users++;
}

static struct ledger_account *some_user(void)
{
    return &w.user[w.slot[below(SLOTS)]];
}

/* Most often of the same currency, now and then of any. */
static struct ledger_account *some_peer(money_currency currency)
{
    struct ledger_account *a = some_user();

    while (a->currency != currency && !chance(40))
        a = some_user();
    return a;
}

static int64_t some_amount(const struct ledger_account *payer)
{
    switch (below(12)) {
    case 0:
        return -(int64_t)below(3);
    case 1:
        return INT64_MAX - below(1000);
    case 2:
        return INT64_MAX / 3;
    case 3:
        return ledger_available(payer);
    case 4:
        return ledger_available(payer) + 1;
    default:
        return 1 + (int64_t)below(1000);
    }
}

static struct ledger_command some_command(struct ledger_account **d, struct ledger_account **c)
{
    static const char text[] = "a description and an origin";
    struct ledger_command cmd = {.kind = (enum ledger_kind)(1 + below(LEDGER_KIND_MAX)),
                                 .seq = w.entries + 1,
                                 .ts = 1000000 + w.entries - (int64_t)below(50),
                                 .actor = below(5),
                                 .description = {text, below(sizeof text)},
                                 .origin = {text, below(sizeof text)}};
    int64_t debit, credit, back;

    while (cmd.kind == LEDGER_FREEZE && !chance(3))
        cmd.kind = (enum ledger_kind)(1 + below(LEDGER_KIND_MAX));
    *d = some_user();
    switch (cmd.kind) {
    case LEDGER_DEPOSIT:
        *c = *d;
        *d = &w.external[currency_index((*c)->currency)];
        break;
    case LEDGER_WITHDRAW:
        *c = &w.external[currency_index((*d)->currency)];
        break;
    case LEDGER_TRANSFER:
        *c = some_peer((*d)->currency);
        break;
    case LEDGER_HOLD:
        *c = chance(5) ? &w.external[currency_index((*d)->currency)] : some_peer((*d)->currency);
        if (chance(2))
            cmd.expires_us = cmd.ts + below(300);
        break;
    case LEDGER_ROLLBACK:
    case LEDGER_CAPTURE:
    case LEDGER_RELEASE:
        back = below(RECENT);
        *c = *d;
        if (w.entries > back)
            cmd.ref = &w.journal[w.entries - back].e;
        for (int tries = 0; cmd.kind != LEDGER_ROLLBACK && cmd.ref && cmd.ref->kind != LEDGER_HOLD && tries < 20;
             tries++)
            cmd.ref = &w.journal[w.entries - (int64_t)below((unsigned)(w.entries < RECENT ? w.entries : RECENT))].e;
        if (cmd.ref)
            cmd.ref_resolved = w.journal[cmd.ref->seq].resolved;
        if (ledger_sides(&cmd, &debit, &credit) == PFE_OK) {
            *d = by_id(debit);
            *c = by_id(credit);
        }
        break;
    default:
        if (chance(20))
            *d = &w.external[below(CURRENCIES)];
        *c = *d;
        break;
    }
    cmd.currency = chance(100) ? currencies[below(CURRENCIES)] : (*d)->currency;
    cmd.amount = cmd.ref && chance(2) ? (int64_t)below((unsigned)(cmd.ref->amount % 1000) + 2) : some_amount(*d);
    return cmd;
}

static bool is_refund(int kind)
{
    return kind == LEDGER_DEPOSIT || kind == LEDGER_WITHDRAW || kind == LEDGER_TRANSFER || kind == LEDGER_CAPTURE;
}

static bool in_range(wide v)
{
    return v >= -(wide)INT64_MAX && v <= INT64_MAX;
}

/* What moves, what is set aside and what is let go when the command is done; or why it is not. */
struct expected {
    enum pf_err err;
    wide amount, moved, held;
};

static struct expected refused(enum pf_err err)
{
    return (struct expected){.err = err};
}

static struct expected expect_state(const struct ledger_command *cmd, const struct ledger_account *a)
{
    const struct model *m = model_of(a->id);

    if (a->currency != cmd->currency)
        return refused(PFE_CURRENCY_MISMATCH);
    if (a->owner == 0 || m->closed)
        return refused(PFE_WRONG_STATE);
    if (cmd->kind == LEDGER_CLOSE)
        return refused(m->balance || m->held ? PFE_HOLDS_MONEY : PFE_OK);
    return refused(m->frozen == (cmd->kind == LEDGER_FREEZE) ? PFE_WRONG_STATE : PFE_OK);
}

static struct expected expect(const struct ledger_command *cmd, const struct ledger_account *d,
                              const struct ledger_account *c)
{
    const struct model *dm = model_of(d->id), *cm = model_of(c->id);
    struct expected x = {.amount = cmd->amount};
    bool undo = cmd->kind == LEDGER_ROLLBACK, capture = cmd->kind == LEDGER_CAPTURE, free = cmd->kind == LEDGER_RELEASE;

    if (cmd->kind >= LEDGER_FREEZE)
        return expect_state(cmd, d);
    if (undo || capture || free) {
        if (!cmd->ref || (undo ? !is_refund(cmd->ref->kind) : cmd->ref->kind != LEDGER_HOLD))
            return refused(PFE_WRONG_STATE);
        if (cmd->ref_resolved)
            return refused(undo ? PFE_ALREADY_ROLLED_BACK : PFE_WRONG_STATE);
        if (capture && cmd->ref->expires_us && cmd->ref->expires_us <= cmd->ts)
            return refused(PFE_WRONG_STATE);
        if (capture && cmd->amount > cmd->ref->amount)
            return refused(PFE_WRONG_STATE);
        if (!capture || cmd->amount == 0)
            x.amount = cmd->ref->amount;
    }
    if (x.amount <= 0)
        return refused(PFE_INVALID);
    if (d == c)
        return refused(PFE_SAME_ACCOUNT);
    if (d->currency != c->currency || d->currency != cmd->currency)
        return refused(PFE_CURRENCY_MISMATCH);
    if (!free && (dm->closed || cm->closed))
        return refused(PFE_ACCOUNT_CLOSED);
    if (!free && (dm->frozen || cm->frozen))
        return refused(PFE_ACCOUNT_FROZEN);
    if (!free && !capture && d->owner && dm->balance - dm->held < x.amount)
        return refused(PFE_INSUFFICIENT_FUNDS);
    x.moved = free || cmd->kind == LEDGER_HOLD ? 0 : x.amount;
    x.held = cmd->kind == LEDGER_HOLD ? x.amount : free || capture ? -(wide)cmd->ref->amount : 0;
    if (!in_range(dm->balance - x.moved) || !in_range(cm->balance + x.moved))
        return refused(PFE_OVERFLOW);
    return x;
}

static void check_account(const struct ledger_account *a)
{
    const struct model *m = model_of(a->id);

    assert_true(a->balance == m->balance);
    assert_true(a->held == m->held);
    assert_int_equal(a->head, m->last);
    assert_int_equal(a->flags, (m->frozen ? LEDGER_FROZEN : 0) | (m->closed ? LEDGER_CLOSED : 0));
    if (a->owner)
        assert_true(a->balance >= 0 && a->held >= 0 && a->held <= a->balance);
    else
        assert_true(a->held == 0 && a->flags == 0 && a->balance >= -INT64_MAX);
}

/* A closed account is empty, so those in use and the external ones are all that counts. */
static void check_sums(void)
{
    wide sum[CURRENCIES];

    for (int i = 0; i < CURRENCIES; i++)
        sum[i] = w.external[i].balance;
    for (int i = 0; i < SLOTS; i++) {
        const struct ledger_account *a = &w.user[w.slot[i]];

        sum[currency_index(a->currency)] += a->balance;
    }
    for (int i = 0; i < CURRENCIES; i++)
        assert_true(sum[i] == 0);
}

static void step(void)
{
    struct ledger_account *d, *c;
    struct ledger_command cmd = some_command(&d, &c);
    struct expected x = expect(&cmd, d, c);
    struct ledger_entry e;
    enum pf_err err = ledger_decide(d, c, &cmd, &e);

    if (err != x.err)
        fail_msg("entry %" PRId64 ", %s: %s, not %s", cmd.seq, ledger_kind_name(cmd.kind),
                 err ? err_info(err)->slug : "ok", x.err ? err_info(x.err)->slug : "ok");
    w.answers[err]++;
    if (err != PFE_OK)
        return;
    w.done[cmd.kind]++;
    w.entries++;
    w.journal[w.entries] = (struct record){.e = e};

    struct model *dm = model_of(d->id), *cm = model_of(c->id);
    assert_int_equal(e.seq, w.entries);
    assert_int_equal(e.debit_prev, dm->last);
    assert_int_equal(e.credit_prev, cm->last);
    assert_true(e.amount == x.amount * (cmd.kind < LEDGER_FREEZE));
    if (cmd.ref) {
        assert_int_equal(e.ref, cmd.ref->seq);
        assert_false(w.journal[e.ref].resolved);
        w.journal[e.ref].resolved = true;
    }
    dm->last = cm->last = e.seq;
    dm->balance -= x.moved;
    cm->balance += x.moved;
    dm->held += x.held;
    dm->frozen = cmd.kind == LEDGER_FREEZE || (dm->frozen && cmd.kind != LEDGER_UNFREEZE);
    dm->closed |= cmd.kind == LEDGER_CLOSE;
    assert_true(e.debit_balance == dm->balance && e.credit_balance == cm->balance);

    ledger_evolve(d, &e, cmd.ref);
    ledger_evolve(c, &e, cmd.ref);
    check_account(d);
    check_account(c);
    check_sums();
}

static void follow_chain(const struct ledger_account *a)
{
    int64_t n = 0;

    for (int64_t seq = a->head; seq; n++) {
        const struct ledger_entry *e = &w.journal[seq].e;
        int64_t prev = e->debit == a->id ? e->debit_prev : e->credit_prev;

        assert_true(e->debit == a->id || e->credit == a->id);
        assert_true(prev < seq);
        seq = prev;
    }
    assert_int_equal(n, a->entries);
}

/* Folds the whole journal over the snapshots; accounts that were taken later skip what they have seen. */
static void fold_and_compare(void)
{
    for (int64_t seq = 1; seq <= w.entries; seq++) {
        const struct ledger_entry *e = &w.journal[seq].e, *ref = e->ref ? &w.journal[e->ref].e : NULL;
        const int64_t ids[] = {e->debit, e->credit};

        for (int i = 0; i < 2; i++)
            ledger_evolve(ids[i] < LEDGER_FIRST_USER_ACCOUNT
                              ? &w.external_snapshot[currency_index((money_currency)ids[i])]
                              : &w.user_snapshot[ids[i] - LEDGER_FIRST_USER_ACCOUNT],
                          e, ref);
    }
    assert_memory_equal(w.external_snapshot, w.external, sizeof w.external);
    assert_memory_equal(w.user_snapshot, w.user, (size_t)w.users * sizeof w.user[0]);
}

static void empty_snapshots(void)
{
    memset(w.user_snapshot, 0, sizeof w.user_snapshot);
    for (int i = 0; i < CURRENCIES; i++)
        w.external_snapshot[i] = (struct ledger_account){.id = currencies[i], .currency = currencies[i]};
    for (int i = 0; i < ACCOUNTS_MAX; i++)
        w.user_snapshot[i] = new_user(i);
}

static void random_commands(void **state)
{
    static const enum pf_err refusals[] = {PFE_INVALID,        PFE_SAME_ACCOUNT,        PFE_CURRENCY_MISMATCH,
                                           PFE_ACCOUNT_FROZEN, PFE_ACCOUNT_CLOSED,      PFE_INSUFFICIENT_FUNDS,
                                           PFE_OVERFLOW,       PFE_ALREADY_ROLLED_BACK, PFE_WRONG_STATE,
                                           PFE_HOLDS_MONEY};

    (void)state;
    w.rng = prng_seeded("random_commands");
    empty_snapshots();
    memcpy(w.external, w.external_snapshot, sizeof w.external);
    for (int i = 0; i < SLOTS; i++)
        open_account(i);
    for (int i = 0; i < COMMANDS; i++) {
        int slot = (int)below(SLOTS);

        if ((w.user[w.slot[slot]].flags & LEDGER_CLOSED) && chance(30))
            open_account(slot);
        step();
        /* each account's snapshot is of another moment of the second quarter */
        if (i >= COMMANDS / 4 && i < COMMANDS / 2 && chance(50)) {
            int k = w.slot[slot], x = (int)below(CURRENCIES);

            w.user_snapshot[k] = w.user[k];
            w.external_snapshot[x] = w.external[x];
        }
    }
    for (int kind = LEDGER_DEPOSIT; kind <= LEDGER_KIND_MAX; kind++)
        assert_true(w.done[kind] > 100);
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++)
        assert_true(w.answers[refusals[i]] > 100);
    assert_true(w.answers[PFE_OK] > COMMANDS / 10);
    for (int i = 0; i < CURRENCIES; i++)
        follow_chain(&w.external[i]);
    for (int i = 0; i < w.users; i++) {
        check_account(&w.user[i]);
        follow_chain(&w.user[i]);
    }
    fold_and_compare();
    empty_snapshots();
    fold_and_compare();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_commands)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
