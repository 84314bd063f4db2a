/* An account's chain of entries, walked backwards in one snapshot, with its marks to jump by. */
#ifndef STORE_SQLITE_CHAIN_H
#define STORE_SQLITE_CHAIN_H

#include "store/sqlite/journal.h"

struct chain {
    struct sqlite_conn *conn;
    const struct book_account *a; /* borrowed */
    struct sqlite_q q;            /* holds the entry under the cursor */
    int64_t prev;                 /* where chain_back leads; 0: the end */
    bool open;                    /* q has to be ended */
    enum pf_err err;
};

/* Opens the snapshot. conn NULL: PFE_UNAVAILABLE. On PFE_OK end it with chain_end. */
enum pf_err chain_begin(struct chain *c, struct sqlite_conn *conn, const struct book_account *a) MUSTCHECK;
/* To an entry of the account; false: seq is 0, or the chain is broken. Strings are borrowed until the next move. */
bool chain_from(struct chain *c, int64_t seq, struct ledger_entry *ret);
/* To any entry by seq; false: none there. */
bool chain_go(struct chain *c, int64_t seq, struct ledger_entry *ret);
/* To the account's previous entry; false at the end. */
bool chain_back(struct chain *c, struct ledger_entry *ret);
/* What a balance at a time needs of an entry, for half the work of reading all of it. */
struct chain_point {
    int64_t seq, ts, balance; /* after the entry */
    int64_t prev;             /* the account's entry before it; 0: none */
};
/* Entry seq, which must be the account's; false: seq is 0, or the chain is broken. */
bool chain_point(struct chain *c, int64_t seq, struct chain_point *ret);
/* The first error of all. PFE_INTERNAL: the chain is broken. */
enum pf_err chain_end(struct chain *c) MUSTCHECK;

enum chain_key { CHAIN_SEQ, CHAIN_TS, CHAIN_MOVES };
/* The account's first mark with a key of at least that value; false: none (or one is missing). O(log n). */
bool chain_mark(struct chain *c, enum chain_key key, int64_t value, struct book_mark *ret);
/* The mark of entry number n. */
bool chain_mark_at(struct chain *c, int64_t n, struct book_mark *ret);

#endif
