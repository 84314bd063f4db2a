/*
 * book: what the embedded engines keep in memory of the ledger: every account as it stands, statistics, and the rules
 * of a group that do not depend on how rows are stored. Fed by committed entries only.
 *
 * One writer (whoever holds the engine's write lock) and any number of readers. The writer reads freely and takes
 * `lock` for writing while it changes anything; others take it for reading (book_get and book_list do so themselves).
 *
 * A group:  book_group_begin → (decide) → book_group_check → the engine writes and commits → book_group_apply.
 * Everything that may fail, memory included, happens before the commit.
 *
 * Write-behind: accounts changed since the last epoch began are dirty. book_epoch_begin turns them into the epoch's
 * set, book_epoch_next walks it in order of index (about the order of ids: neighbours share pages), book_epoch_end
 * forgets it.
 */
#ifndef STORE_BOOK_H
#define STORE_BOOK_H

#include <pthread.h>

#include "port/store.h"

enum {
    BOOK_CHUNK = 1024,      /* accounts per block of memory (96 KiB): blocks never move */
    BOOK_MARK_EVERY = 64,   /* entries of an account per mark: a mark's page is dirtied by 1 entry in 64 */
    BOOK_MINUTES = 24 * 60, /* buckets of statistics */
    BOOK_NONE = UINT32_MAX
};

struct book_account {
    struct ledger_account a;
    int64_t moves;   /* entries that moved money */
    int64_t time_us; /* running maximum of its entries' ts */
    uint32_t next;   /* the owner's next account, by id; BOOK_NONE at the end */
};

struct book_index { /* open addressing; slots hold index + 1 */
    uint32_t *slots;
    size_t cap;
};

struct book_bucket {
    int64_t minute; /* since 1970; 0: unused */
    int64_t count, volume;
    bool dirty;
};

struct book_series { /* of one kind and currency */
    enum ledger_kind kind;
    money_currency currency;
    bool dirty;
    int64_t count, volume;
    struct book_series *next;
    struct book_bucket minutes[BOOK_MINUTES]; /* minute m at m % BOOK_MINUTES */
};

struct book_mark {
    int64_t account, n, seq, ts, balance, moves;
};

struct book_side { /* a slot's account as the entries of the group move it on */
    int64_t id, head, balance, entries, moves, time_us;
};

struct book_group {
    uint32_t *table;           /* account id -> slot + 1 */
    size_t table_n, table_cap; /* in use by this group (a power of two); allocated */
    struct book_side *sides;
    size_t n, cap;
    struct book_mark *marks; /* set by book_group_check */
    size_t n_marks, marks_cap;
};

struct book {
    pthread_rwlock_t lock;
    struct book_account **chunks;
    size_t n_chunks, n;                /* accounts */
    struct book_index by_id, by_owner; /* by_owner: the owner's first account */
    int64_t next_id;
    int64_t head_seq;
    int64_t time_us;              /* newest entry time seen */
    int64_t lag_us;               /* how far an entry's time ever lay behind the newest before it */
    struct book_series *series;   /* list */
    struct book_series **by_kind; /* [kind * 1000 + currency] */
    uint64_t *dirty, *epoch;      /* bit per account */
    size_t epoch_at;              /* next index of the epoch to write */
    struct book_group group;
};

enum pf_err book_init(struct book *b) MUSTCHECK;
void book_free(struct book *b);
/* Forgets all but the memory: for who fills a book anew for each group. Nobody else may be using it. */
void book_clear(struct book *b);

static inline struct book_account *book_at(const struct book *b, size_t i)
{
    return &b->chunks[i / BOOK_CHUNK][i % BOOK_CHUNK];
}
/* BOOK_NONE when there is none. Writer, or under the lock. */
uint32_t book_find(const struct book *b, int64_t id);
uint32_t book_find_owner(const struct book *b, int64_t owner, money_currency currency);

/* Room for n more accounts: the next n book_add cannot fail. Writer. */
enum pf_err book_reserve(struct book *b, size_t n) MUSTCHECK;
/* Writer; at start, or under the lock. The id must be new. Returns the index; the account is not dirty. */
uint32_t book_add(struct book *b, const struct book_account *a);
static inline void book_touch(struct book *b, uint32_t i)
{
    b->dirty[i / 64] |= UINT64_C(1) << (i % 64);
}

/* For any thread; they lock. */
enum pf_err book_get(struct book *b, int64_t owner, money_currency currency, struct ledger_account *ret) MUSTCHECK;
enum pf_err book_by_id(struct book *b, int64_t id, struct ledger_account *ret) MUSTCHECK;
enum pf_err book_snapshot(struct book *b, int64_t id, struct book_account *ret) MUSTCHECK;
void book_list(struct book *b, int64_t owner, struct ledger_account *out, unsigned cap, unsigned *ret_n);
/* The owner of an account; -1 when unknown. */
int64_t book_owner(struct book *b, int64_t id);
void book_trial(struct book *b, struct store_trial *out, unsigned cap, unsigned *ret_n);
void book_stats(struct book *b, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                unsigned *ret_n);
int64_t book_head(struct book *b);
int64_t book_lag(struct book *b);

/* ---- groups (group.c); the writer ---- */

typedef enum pf_err (*book_owner_fn)(void *ctx, int64_t user, bool *ret_ok);
enum pf_err book_group_begin(struct book *b, const struct store_key *keys, size_t n, struct store_slot *slots,
                             book_owner_fn owner_ok, void *ctx) MUSTCHECK;
/* A group that writes nothing. */
bool book_group_empty(const struct store_commit *c);
/* Follows the entries over the slots: sequence numbers without gaps, every side a slot, chains unbroken, slots as the
   entries leave them. PFE_INTERNAL: the caller is wrong. Sets group.marks and makes room for the new. */
enum pf_err book_group_check(struct book *b, const struct store_commit *c) MUSTCHECK;
/* After the commit; takes the lock. */
void book_group_apply(struct book *b, const struct store_commit *c);

/* ---- statistics (stat.c); the writer ---- */

/* Makes the series if need be, so that book_stat_add cannot fail. */
enum pf_err book_stat_reserve(struct book *b, enum ledger_kind kind, money_currency currency) MUSTCHECK;
void book_stat_add(struct book *b, const struct ledger_entry *e);
/* Puts back what was stored: minute 0 is the total. */
enum pf_err book_stat_load(struct book *b, enum ledger_kind kind, money_currency currency, int64_t minute,
                           int64_t count, int64_t volume) MUSTCHECK;
/* Calls fn for each changed total and bucket; clearing is apart, for after the commit. */
typedef void (*book_stat_fn)(void *ctx, const struct book_series *s, int64_t minute, int64_t count, int64_t volume);
void book_stat_dirty(const struct book *b, book_stat_fn fn, void *ctx);
void book_stat_clean(struct book *b);
/* Back to nothing: what is dirty afterwards is what was added since. Whatever was added must still be dirty. */
void book_stat_reset(struct book *b);

/* ---- replay (replay.c) ---- */

/* Applies one entry to the accounts that it names and that are older than it, and touches them. ref_amount: of the hold
   that a CAPTURE or RELEASE resolves, else 0. PFE_INTERNAL: an account is missing. *ret_marks (2): the marks that fall
   due; *ret_n of them. Statistics are apart. */
enum pf_err book_replay(struct book *b, const struct ledger_entry *e, int64_t ref_amount, struct book_mark ret_marks[2],
                        unsigned *ret_n) MUSTCHECK;

/* ---- write-behind (book.c); the writer ---- */

void book_epoch_begin(struct book *b);
/* The next index of the epoch at or after *at, which moves past it; BOOK_NONE: no more. */
uint32_t book_epoch_next(const struct book *b, size_t *at);
void book_epoch_end(struct book *b);

/* ---- listing (listing.c): the filter, offset, limit and cursor of store_entry_list ---- */

struct book_listing {
    const struct store_entry_query *q;
    struct book *book; /* for the owners of counterparties */
    int64_t lag_us;
    unsigned kinds;
    int64_t looked, skipped;
    unsigned given;
    int64_t cursor;
};

enum book_offer { BOOK_SKIP, BOOK_GIVE, BOOK_STOP };

void book_listing_init(struct book_listing *l, const struct store_entry_query *q, struct book *b);
/* Offer entries newest first. GIVE: hand it to the caller. STOP: look no further; cursor is set. When the entries run
   out without a STOP, there is nothing more: cursor 0. */
/* resolved_by: needed when the query asks for a status, else ignored. */
enum book_offer book_listing_offer(struct book_listing *l, const struct ledger_entry *e, int64_t resolved_by);

#endif
