/*
 * accounts: reading balances and transactions. Rights are checked by the caller with app_require_owner, except where a
 * function says that it checks them.
 */
#ifndef APP_ACCOUNTS_H
#define APP_ACCOUNTS_H

#include "app/app.h"

/* PFE_NOT_FOUND: no such account. From the cache or the store's memory; a shared store has to be asked: may_block false
 * gives PFE_BUSY then. */
enum pf_err app_balance(struct app *a, int64_t user, money_currency currency, bool may_block,
                        struct ledger_account *ret) MUSTCHECK;
enum { APP_ACCOUNTS_MAX = 200 };
/* may_block as above. */
enum pf_err app_balances(struct app *a, int64_t user, bool may_block, struct ledger_account *out,
                         unsigned *ret_n) MUSTCHECK;
/* Blocking. As it stood after the last entry at or before at_us; 0 before the first entry or without an account.
 * PFE_INVALID: in the future. */
enum pf_err app_balance_at(struct app *a, int64_t user, money_currency currency, int64_t at_us, int64_t *ret,
                           struct problem *p) MUSTCHECK;
/* Blocking. From the journal; writes nothing. */
enum pf_err app_replay(struct app *a, int64_t user, money_currency currency, struct ledger_account *ret_stored,
                       struct store_replay *ret) MUSTCHECK;

/* A transaction as callers see it. Strings live in the arena it was read into. */
struct app_tx {
    struct ledger_entry e;
    int64_t resolved_by;               /* rolled back, captured or released by; 0: no */
    int64_t debit_owner, credit_owner; /* user ids; 0: external */
};

/* Blocking on a miss: may_block false gives PFE_BUSY then. PFE_NOT_FOUND also when the caller is neither party nor
 * admin. */
enum pf_err app_transaction(struct app *a, const struct principal *who, struct arena *arena, int64_t seq,
                            bool may_block, struct app_tx *ret) MUSTCHECK;
/* The number of a transaction's UUID, after comparing all of it with the row. Blocking. */
enum pf_err app_transaction_seq(struct app *a, struct arena *arena, const uint8_t uuid[16], int64_t *ret) MUSTCHECK;

/* Newest first; q as in the store, and owner > 0 (with q->account 0): over all accounts of that user. fn gets each with
   owners; strings live for the call only. Blocking. *ret_cursor 0: no more. PFE_INVALID: an offset too deep to merge
   several accounts (over APP_MERGE_MAX); cursors have no such bound. */
enum { APP_MERGE_MAX = 10000 };
typedef bool (*app_tx_fn)(void *ctx, const struct app_tx *t);
enum pf_err app_transactions(struct app *a, const struct store_entry_query *q, int64_t owner, app_tx_fn fn, void *ctx,
                             int64_t *ret_cursor) MUSTCHECK;

#endif
