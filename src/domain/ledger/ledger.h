/*
 * ledger: double-entry rules as pure functions. No I/O, no clock, no threads.
 *
 *     command + the accounts it names --ledger_decide--> one journal entry, or a refusal
 *     accounts + entry                --ledger_evolve--> the accounts after it
 *
 * The journal is the sequence of entries; every balance is what ledger_evolve makes of it, and live operation and
 * replay use the same function. An entry debits one account and credits another by the same amount, so the sum over
 * a currency stays 0. User accounts never go below 0; the external account of a currency (what is outside the
 * system) has no floor.
 *
 * Conventions: a user's account is credited when its balance grows. debit: balance falls. Amounts > 0, minor units.
 *
 *   kind       debit             credit            balance   held
 *   DEPOSIT    external          user              moves     -
 *   WITHDRAW   user              external          moves     -
 *   TRANSFER   user              user              moves     -
 *   ROLLBACK   original credit   original debit    moves     -             resolves ref
 *   HOLD       payer             payee             -         debit +amt
 *   CAPTURE    payer             payee             moves     debit -hold   resolves ref
 *   RELEASE    payer             payee             -         debit -amt    resolves ref
 *
 *   FREEZE, UNFREEZE, CLOSE: debit = credit = the account, amount 0, no money moves.
 *
 * The payer is a user account, the payee may be external. A capture takes at most the hold and releases the rest;
 * amount 0 takes the whole hold. ROLLBACK and RELEASE are for the whole of ref: the command's amount is not read.
 *
 * A frozen or closed account, on either side, takes no movement and no hold, but a hold is released whatever the state
 * of its accounts. External accounts are never frozen or closed and stay within +-INT64_MAX.
 *
 * "Resolves": an entry is resolved by at most one later entry; the store guards it too (primary key).
 */
#ifndef DOMAIN_LEDGER_H
#define DOMAIN_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "domain/money/money.h"

enum ledger_kind {
    LEDGER_DEPOSIT = 1,
    LEDGER_WITHDRAW = 2,
    LEDGER_TRANSFER = 3,
    LEDGER_ROLLBACK = 4,
    LEDGER_HOLD = 5,
    LEDGER_CAPTURE = 6,
    LEDGER_RELEASE = 7,
    LEDGER_FREEZE = 8,
    LEDGER_UNFREEZE = 9,
    LEDGER_CLOSE = 10,
    LEDGER_KIND_MAX = 10
};

/* "deposit", "withdraw", "transfer", "rollback", "hold", "capture", "release", "freeze", "unfreeze", "close"; NULL if
 * unknown. */
const char *ledger_kind_name(enum ledger_kind k);
/* false: no such name. "credit" and "debit" are taken as deposit and withdraw. */
bool ledger_kind_parse(struct str s, enum ledger_kind *ret);
/* Does an entry of this kind change balances? */
static inline bool ledger_kind_moves(enum ledger_kind k)
{
    return (k >= LEDGER_DEPOSIT && k <= LEDGER_ROLLBACK) || k == LEDGER_CAPTURE;
}

enum { LEDGER_FROZEN = 1u << 0, LEDGER_CLOSED = 1u << 1 };
/* Account ids below this are external accounts: the id is the currency's ISO number. */
enum { LEDGER_FIRST_USER_ACCOUNT = 1000 };
enum { LEDGER_DESCRIPTION_MAX = 500, LEDGER_ORIGIN_MAX = 64 }; /* bytes */

struct ledger_account {
    int64_t id;
    int64_t owner; /* user id; 0: external */
    money_currency currency;
    uint8_t flags; /* LEDGER_FROZEN | LEDGER_CLOSED */
    int64_t balance;
    int64_t held;       /* 0 <= held <= balance for user accounts */
    int64_t head;       /* seq of its newest entry, 0: none */
    int64_t entries;    /* how many entries name it */
    int64_t updated_us; /* ts of the newest entry, or of its creation */
};

struct ledger_entry {
    int64_t seq;           /* 1, 2, 3 … */
    int64_t ts;            /* wall µs at commit; not monotonic */
    uint8_t kind;          /* enum ledger_kind */
    uint8_t uuid[16];      /* version 7, carries seq (codec/uuid.h) */
    int64_t debit, credit; /* account ids */
    int64_t amount;        /* minor units; 0 only for the account states */
    money_currency currency;
    int64_t debit_balance, credit_balance; /* after this entry */
    int64_t debit_prev, credit_prev; /* the account's previous entry, 0: none. When debit == credit both are equal. */
    int64_t ref;                     /* entry that it resolves; 0: none */
    int64_t actor;                   /* user id of who asked; 0: system or anonymous */
    int64_t expires_us;     /* HOLD: wall µs from when it may no longer be captured; 0: never, and for other kinds */
    struct str description; /* UTF-8 without NUL, borrowed */
    /* what caused it when not a request: "schedule:<id>:<due>" …; ASCII, <= LEDGER_ORIGIN_MAX; usually empty. Borrowed.
     */
    struct str origin;
};

struct ledger_command {
    enum ledger_kind kind;
    int64_t amount;
    money_currency currency;
    int64_t seq; /* what the entry will carry */
    int64_t ts;
    uint8_t uuid[16];
    int64_t actor;
    int64_t expires_us;
    struct str description, origin;
    /* for ROLLBACK, CAPTURE, RELEASE: the entry to resolve (borrowed) and whether it already is */
    const struct ledger_entry *ref;
    bool ref_resolved;
};

static inline bool ledger_is_external(const struct ledger_account *a)
{
    return a->id < LEDGER_FIRST_USER_ACCOUNT;
}

static inline int64_t ledger_available(const struct ledger_account *a)
{
    return a->balance - a->held;
}

/* For a command with ref: which accounts it debits and credits. PFE_WRONG_STATE if an entry of that kind
   cannot be resolved so (only deposit, withdraw, transfer and capture roll back; only a hold is captured or released).
 */
enum pf_err ledger_sides(const struct ledger_command *c, int64_t *ret_debit, int64_t *ret_credit) MUSTCHECK;

/*
 * Decides one command on the accounts as they stand. debit and credit are the accounts by the table above (the same
 * pointer for the account states). On PFE_OK *ret is the whole entry; description and origin are borrowed
 * from the command. Refusals, the first that holds:
 *   PFE_INTERNAL            no such kind, or the accounts are not those of the table: a defect of the caller
 *   PFE_WRONG_STATE         entry of the wrong kind; hold resolved, or expired and to be captured; capture over the
 * hold PFE_ALREADY_ROLLED_BACK PFE_INVALID             amount <= 0 (CAPTURE: < 0), description or origin too long
 *   PFE_SAME_ACCOUNT, PFE_CURRENCY_MISMATCH, PFE_ACCOUNT_CLOSED, PFE_ACCOUNT_FROZEN
 *   PFE_INSUFFICIENT_FUNDS  the debited account's available balance is below the amount
 *   PFE_OVERFLOW
 * and for the account states: PFE_CURRENCY_MISMATCH, PFE_WRONG_STATE (external or closed account, freeze when frozen,
 * unfreeze when not frozen), PFE_HOLDS_MONEY (close with a balance or a hold).
 */
enum pf_err ledger_decide(const struct ledger_account *debit, const struct ledger_account *credit,
                          const struct ledger_command *c, struct ledger_entry *ret) MUSTCHECK;

/*
 * Applies one entry to one side; an account that it does not name is left alone. Idempotent per account: an entry with
 * seq <= account->head is skipped (replay over a newer snapshot). ref: the entry that this one resolves, needed for
 * CAPTURE and RELEASE (how much was held), else NULL. Balances are made from amounts, never taken from the entry, so
 * that comparing them with the entry's is a check of the journal.
 */
void ledger_evolve(struct ledger_account *a, const struct ledger_entry *e, const struct ledger_entry *ref);

/*
 * The canonical bytes of an entry, for seals: every field above in declaration order, integers as little-endian
 * two's complement of their width, strings as a 32-bit length and the bytes. Returns the length; writes nothing if it
 * exceeds cap.
 */
enum { LEDGER_CANONICAL_MAX = 123 + LEDGER_DESCRIPTION_MAX + LEDGER_ORIGIN_MAX };
size_t ledger_canonical(const struct ledger_entry *e, uint8_t *out, size_t cap);

#endif
