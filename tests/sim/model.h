/*
 * model: the books as they must be, kept apart from src/: plain arrays, one movement after the other, the rules as
 * docs/api.md and the table in domain/ledger/ledger.h say them. No money is decided with the code under test.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "domain/ledger/ledger.h" /* the names of the kinds, and struct ledger_entry to compare with */

enum {
    M_USERS = 16, /* ids 1 .. M_USERS - 1; 0 is the outside */
    M_CURRENCIES = 3,
    M_ENTRIES = 2500,
    M_KEYS = 600,
    M_TEXT = 520,
    M_BODY = 200
};

extern const money_currency m_currency[M_CURRENCIES];

enum m_user { M_NOBODY, M_ACTIVE, M_CLOSING, M_GONE };

struct m_account {
    bool exists, frozen, closed;
    bool was_frozen; /* ever */
    int64_t balance, held;
};

/* What is asked; sides are users. */
struct m_move {
    enum ledger_kind kind;
    int64_t from, to; /* as in struct movement */
    int64_t amount;
    int currency; /* index */
    int64_t ref;
    int64_t expires_us;
    char text[M_TEXT]; /* tells every movement that is asked for from every other */
};

struct m_entry {
    int64_t seq, ts, debit, credit, amount, debit_balance, credit_balance, ref, expires_us, resolved_by;
    enum ledger_kind kind;
    int currency;
    char text[M_TEXT], origin[LEDGER_ORIGIN_MAX + 1];
};

struct m_key {
    int64_t principal;
    char key[24];
    uint8_t request[32];
    char body[M_BODY];
};

struct model {
    enum m_user user[M_USERS];
    struct m_account account[M_USERS][M_CURRENCIES];
    int n; /* entries; entry[i].seq is i + 1 */
    struct m_entry *entry;
    int n_keys;
    struct m_key *key;
};

bool model_init(struct model *m);
void model_free(struct model *m);

/* What the ledger must say to it now; PFE_OK: it may be posted. ts: when it is decided. */
enum pf_err model_judge(const struct model *m, const struct m_move *v, int64_t ts);
/* Appends the entry, which model_judge found good. Returns it, NULL: no room. */
struct m_entry *model_post(struct model *m, const struct m_move *v, const char *origin, int64_t ts);

/* To undo a batch: accounts and the number of entries. */
struct m_mark {
    struct m_account account[M_USERS][M_CURRENCIES];
    int n;
};
void model_mark(const struct model *m, struct m_mark *ret);
void model_undo(struct model *m, const struct m_mark *to);

/* An account that is asked for by name. PFE_NOT_FOUND. */
enum pf_err model_open(struct model *m, int64_t user, int currency, bool *ret_created);

const struct m_key *model_key(const struct model *m, int64_t principal, const char *key);
void model_keep(struct model *m, int64_t principal, const char *key, const uint8_t request[32], const char *body);

/* Is the stored entry this one? NULL: yes; else what differs. */
const char *model_differs(const struct m_entry *e, const struct ledger_entry *x, int64_t debit_owner,
                          int64_t credit_owner);
/* The balance after the last entry of the account before or at t, time never going back from entry to entry. */
int64_t model_balance_at(const struct model *m, int64_t user, int currency, int64_t t);
bool model_names(const struct m_entry *e, int64_t user, int currency);
int model_currency(money_currency c); /* index; -1 */

#endif
