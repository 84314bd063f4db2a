/* The ledger's part of the postgres engine: rows, groups, reads, and the operations for the table of ops. */
#ifndef STORE_POSTGRES_JOURNAL_H
#define STORE_POSTGRES_JOURNAL_H

#include "store/book/book.h"
#include "store/postgres/internal.h"

/* ---- rows (rows.c) ---- */

/* Of a journal row under the alias j, and its resolver under r: LEFT JOIN resolution r ON r.seq = j.seq. */
#define PG_ENTRY_COLUMNS                                                                                               \
    "j.seq, j.ts, j.kind, j.uuid, j.debit, j.credit, j.amount, j.currency, j.debit_balance, j.credit_balance,"         \
    " j.debit_prev, j.credit_prev, j.ref, j.actor, j.expires_us, j.description, j.origin"
enum { PG_ENTRY_N = 17 };
/* From the first columns of q's row; strings are borrowed until pg_q_end. */
void pg_entry_read(const struct pg_q *q, struct ledger_entry *ret);

/* Of an account row under the alias a. */
#define PG_ACCOUNT_COLUMNS                                                                                             \
    "a.id, a.owner, a.currency, a.flags, a.balance, a.held, a.head, a.entries, a.moves, a.time_us, a.updated_us"
enum { PG_ACCOUNT_N = 11 };
void pg_account_read(const struct pg_q *q, struct book_account *ret);

#define PG_MARK_COLUMNS "m.account, m.n, m.seq, m.ts, m.balance, m.moves"
void pg_mark_read(const struct pg_q *q, struct book_mark *ret);

/* On c, or when that is NULL on a connection of the pool's. */
void pg_q_on(struct pg_q *q, struct postgres_store *s, struct pg_conn *c, const char *sql);
/* One row by id, and the ledger's lag, which covers every entry up to the row's head. PFE_NOT_FOUND. */
enum pf_err pg_account_snapshot(struct postgres_store *s, struct pg_conn *c, int64_t id, struct book_account *ret,
                                int64_t *ret_lag_us) MUSTCHECK;

/* Each binds and sends one statement over all rows. false: there was nothing to send. */
void pg_send_entries(struct pg_q *q, struct pg_conn *c, const struct ledger_entry *e, size_t n);
bool pg_send_resolutions(struct pg_q *q, struct pg_conn *c, const struct ledger_entry *e, size_t n);
bool pg_send_holds(struct pg_q *q, struct pg_conn *c, const struct ledger_entry *e, size_t n);
bool pg_send_holds_ended(struct pg_q *q, struct pg_conn *c, const struct ledger_entry *e, size_t n);
void pg_send_account_updates(struct pg_q *q, struct pg_conn *c, const struct book_account *const *a, size_t n);
void pg_send_account_inserts(struct pg_q *q, struct pg_conn *c, const struct book_account *const *a, size_t n,
                             int64_t now_us);
void pg_send_marks(struct pg_q *q, struct pg_conn *c, const struct book_mark *m, size_t n);

struct pg_stat {
    int64_t kind, currency, minute, count, volume;
};
struct pg_stats {
    struct pg_stat *v;
    size_t n, cap;
    bool nomem;
};
/* What the book's statistics have changed by. v is kept from call to call; free it. */
enum pf_err pg_stats_gather(struct pg_stats *t, const struct book *b) MUSTCHECK;
/* Adds them to what is stored. */
void pg_send_stats(struct pg_q *q, struct pg_conn *c, const struct pg_stats *t);

/* ---- chains (chain.c): an account's entries, newest first, a block of them at a time ---- */

struct pg_chain {
    struct postgres_store *s;
    struct pg_conn *c; /* NULL: each block is read on a connection of the pool's, given back before it is walked */
    int64_t account;
    const char *sql;
    struct pg_q q; /* the block under the cursor */
    unsigned block;
    int64_t prev; /* where pg_chain_back leads; 0: the end */
    /* of the entry under the cursor; ref_amount: of the hold that it ends; owners: -1 unknown */
    int64_t resolved_by, ref_amount, debit_owner, credit_owner;
    bool open;
    enum pf_err err;
};

/* block: entries a round trip; grows as the walk goes on. fold: resolved_by and the owners are left out. */
void pg_chain_begin(struct pg_chain *w, struct postgres_store *s, struct pg_conn *c, int64_t account, unsigned block,
                    bool fold);
/* To entry seq, which must be the account's; false: seq is 0, or the chain is broken. Strings are borrowed until the
   next move. */
bool pg_chain_from(struct pg_chain *w, int64_t seq, struct ledger_entry *ret);
bool pg_chain_back(struct pg_chain *w, struct ledger_entry *ret);
/* The first error of all. PFE_INTERNAL: the chain is broken. */
enum pf_err pg_chain_end(struct pg_chain *w) MUSTCHECK;

enum pg_mark_key { PG_MARK_SEQ, PG_MARK_TS, PG_MARK_MOVES };
/* The account's first mark with a key of at least that value; *ret_found false: none. O(log n), one round trip. */
enum pf_err pg_mark_find(struct postgres_store *s, const struct book_account *a, enum pg_mark_key key, int64_t value,
                         struct book_mark *ret, bool *ret_found) MUSTCHECK;

/* ---- ticketing (ticketing.c) ---- */

struct pg_tickets { /* a group's reads of events, bookings, inbox, ids, and which of them were sent */
    struct pg_q q[4];
    bool events, bookings, inbox, ids;
};
void pg_tickets_send(struct pg_tickets *t, struct pg_conn *c, const struct store_group_ask *ask);
/* After pg_sync, whatever came of it. */
enum pf_err pg_tickets_read(struct pg_tickets *t, const struct store_group_ask *ask, struct store_group *g) MUSTCHECK;
/* Is what was loaded anew what the commit was decided on? */
bool pg_tickets_same(const struct store_commit *c, const struct store_group *g);

/* Each binds and sends one statement over all rows, as those above. When a row is not as it was loaded, or the stock
   would leave its bounds, the first two end in SQLSTATE PG_GUARD. */
#define PG_GUARD "22012"
bool pg_send_stock(struct pg_q *q, struct pg_conn *c, const struct store_event_slot *e, size_t n);
bool pg_send_booking_moves(struct pg_q *q, struct pg_conn *c, const struct store_booking_slot *b, size_t n);
/* guests: of each booking its guest's name. */
void pg_send_bookings(struct pg_q *q, struct pg_conn *c, const struct ticket_booking *b, const struct str *guests,
                      size_t n);
void pg_send_outbox(struct pg_q *q, struct pg_conn *c, const struct store_message *m, size_t n);
void pg_send_inbox(struct pg_q *q, struct pg_conn *c, const struct store_inbox_ref *r, size_t n);
void pg_send_delivered(struct pg_q *q, struct pg_conn *c, const struct store_outbox_ref *m, size_t n);
/* After the rows that it numbers. */
void pg_send_ticket_ids(struct pg_q *q, struct pg_conn *c, const struct store_commit *k);

struct pg_tickets_found {
    int64_t bad_event, bad_booking; /* the first at fault; 0: none */
    int64_t paid;                   /* confirmed bookings that cost something */
};
/* Whether stock, bookings and money agree, in one snapshot. */
enum pf_err pg_tickets_judge(struct pg_conn *c, struct pg_tickets_found *ret) MUSTCHECK;

enum pf_err pg_event_insert(struct store_tx *tx, struct ticket_event *e);
enum pf_err pg_event_status(struct store_tx *tx, int64_t id, enum ticket_event_status status);
enum pf_err pg_inbox_purge(struct store_tx *tx, int64_t before_us, int64_t *ret_n);
enum pf_err pg_events_get(struct store *s, const struct store_ref *refs, size_t n, struct ticket_event *out);
enum pf_err pg_bookings_get(struct store *s, const struct store_ref *refs, size_t n, struct ticket_booking *out);
enum pf_err pg_booking_list(struct store *s, const struct store_booking_query *b, struct ticket_booking *out,
                            unsigned *ret_n);
enum pf_err pg_bookings_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_ids, unsigned *ret_n);
enum pf_err pg_outbox_list(struct store *s, struct arena *a, int64_t after_id, unsigned limit,
                           struct store_message *out, unsigned *ret_n);

/* ---- groups (group.c, write.c, settle.c) ---- */

enum {
    PG_LONG_MS = 3600000 /* of a round trip that looks through the whole journal */
};

/* What proves that a group was committed: its seal, or of one without entries a receipt. */
struct pg_witness {
    int64_t last_seq; /* 0: there are no entries */
    uint8_t seal[SHA256_LEN];
    uint8_t receipt[16];
};

/* Those before a UUIDv7, the oldest first: their ids are in order of time, so that the key finds them. */
#define PG_RECEIPTS_SWEEP                                                                                              \
    "DELETE FROM receipt WHERE ctid = ANY (ARRAY(SELECT ctid FROM receipt WHERE id < $1 ORDER BY id LIMIT 10000))"

struct pg_head { /* the row of ledger_head */
    int64_t seq, next_account, accounts, time_us, lag_us;
    uint8_t seal[SHA256_LEN];
};

struct pg_ledger {
    struct book book; /* the accounts of the group under way, and nothing else */
    struct pg_head head;
    struct sha256 *sha;
    atomic_ulong thread;        /* whose group is under way; 0: none */
    struct store_group_ask ask; /* as named to group_begin */
    struct store_slot *loaded;  /* as they were given to the caller */
    size_t cap_loaded;
    int64_t *owners; /* of accounts to be made: those that may have one, ascending */
    size_t n_owners, cap_owners;
    const struct store_idem_ref *idem; /* as named to group_begin */
    uint32_t *idem_row;                /* of idem_q + 1; 0: not stored */
    size_t n_idem, cap_idem, idem_at;
    struct pg_q idem_q;
    bool fenced;        /* the group was begun, and the fences that were ok then must still be */
    struct str *guests; /* scratch */
    size_t cap_guests;
    const struct book_account **rows; /* scratch */
    size_t cap_rows;
    struct pg_stats stats;
    int64_t swept_hour, swept_receipts; /* when old statistics, and receipts (in 10 s), were last thrown away */
};

/* The connection of the group under way when the calling thread runs it, else NULL: what is read inside a group is read
   under its lock. */
struct pg_conn *pg_group_conn(struct postgres_store *s);
/* Whether a group that ended in e is tried again (PFE_BUSY, PFE_UNAVAILABLE: nothing was done). */
bool pg_again(struct retry_call *call, enum pf_err e);
/* Begins the group's transaction, locks the head and reads what the group needs, into l->book, l->head and g. */
enum pf_err pg_group_load(struct postgres_store *s, const struct store_group_ask *ask, struct store_group *g) MUSTCHECK;

/* After a COMMIT without an answer: PFE_OK, the group is there; PFE_UNAVAILABLE, it is not and never will be;
   PFE_INTERNAL: nobody could say in time. */
enum pf_err pg_settle(struct postgres_store *s, const struct pg_witness *w, int64_t deadline_us) MUSTCHECK;
/* After a lock on ledger_head was not to be had: cuts off its holder if that one has not been heard of for so long that
   it must be gone. The server does so by itself between round trips, but not in the midst of one. */
void pg_head_free(struct pg_conn *c);

/* ---- operations ---- */

enum pf_err pg_group_begin(struct store *s, const struct store_group_ask *ask, struct store_group *g);
enum pf_err pg_group_commit(struct store *s, const struct store_commit *c);
void pg_group_abort(struct store *s);
enum pf_err pg_flush(struct store *s);
enum pf_err pg_account_rebuild(struct store *s, int64_t account, struct store_replay *ret);

enum pf_err pg_account_get(struct store *s, int64_t owner, money_currency currency, struct ledger_account *ret);
enum pf_err pg_account_by_id(struct store *s, int64_t id, struct ledger_account *ret);
enum pf_err pg_account_list(struct store *s, int64_t owner, struct ledger_account *out, unsigned cap, unsigned *ret_n);
enum pf_err pg_entry_get(struct store *s, struct arena *a, int64_t seq, struct ledger_entry *ret,
                         int64_t *ret_resolved_by);
enum pf_err pg_entry_list(struct store *s, const struct store_entry_query *q, store_entry_fn fn, void *ctx,
                          int64_t *ret_cursor);
enum pf_err pg_journal_scan(struct store *s, int64_t after_seq, int64_t limit, store_entry_fn fn, void *ctx);
enum pf_err pg_balance_at(struct store *s, int64_t account, int64_t at_us, int64_t *ret_balance);
enum pf_err pg_holds_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_seq, unsigned *ret_n);
enum pf_err pg_replay(struct store *s, int64_t account, struct store_replay *ret);
enum pf_err pg_stats(struct store *s, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                     unsigned *ret_n);
enum pf_err pg_trial(struct store *s, struct store_trial *out, unsigned cap, unsigned *ret_n);
enum pf_err pg_verify(struct store *s, struct store_verify *ret);
/* The same of what c sees; inside: in the transaction that is open on it. */
enum pf_err pg_prove(struct pg_conn *c, bool inside, struct store_verify *ret) MUSTCHECK;
/* As pg_trial; on c, or when that is NULL wherever reads go. */
enum pf_err pg_trial_on(struct postgres_store *s, struct pg_conn *c, struct store_trial *out, unsigned cap,
                        unsigned *ret_n) MUSTCHECK;
enum pf_err pg_info(struct store *s, struct store_info *ret);

/* Every stored projection overwritten with what the journal says, in one transaction that holds the head
   (rebuild.c). *ret_entries: replayed. PFE_WRONG_STATE: the journal is at fault, nothing is changed. */
enum pf_err pg_ledger_rebuild(struct postgres_store *s, int64_t *ret_entries, char ret_why[PG_WHY]) MUSTCHECK;

#endif
