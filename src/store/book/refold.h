/*
 * refold: one account recomputed from its entries, which a walk gives from the newest back to the first.
 */
#ifndef STORE_REFOLD_H
#define STORE_REFOLD_H

#include "store/book/book.h"

/* A walk along the account's chain. from goes to an entry, back to the one before; false: there is none, or the chain
   is broken, which the caller of refold_* finds out. held: amount of the hold that the entry under the cursor ends. */
struct refold_walk {
    void *ctx;
    bool (*from)(void *ctx, int64_t seq, struct ledger_entry *ret);
    bool (*back)(void *ctx, struct ledger_entry *ret);
    enum pf_err (*held)(void *ctx, const struct ledger_entry *e, int64_t *ret);
};

/* From entry head back to the first, by amounts; the balances in the entries are compared with it. */
enum pf_err refold_replay(const struct refold_walk *w, int64_t account, int64_t head,
                          struct store_replay *ret) MUSTCHECK;
/* a becomes what the entries that r counted say; id, owner, currency and, without entries, updated_us stay. marks has
   room for r->events / BOOK_MARK_EVERY + 1; those that fall due come first in it. */
void refold_account(const struct refold_walk *w, const struct store_replay *r, struct book_account *a,
                    struct book_mark *marks);

#endif
