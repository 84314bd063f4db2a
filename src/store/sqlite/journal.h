/* The ledger's part of the sqlite engine: rows, the write path, reads, and the operations for the table of ops. */
#ifndef STORE_SQLITE_JOURNAL_H
#define STORE_SQLITE_JOURNAL_H

#include "store/book/proof.h"
#include "store/sqlite/internal.h"

/* ---- rows (rows.c) ---- */

#define SQLITE_ENTRY_COLUMNS                                                                                           \
    "seq, ts, kind, uuid, debit, credit, amount, currency, debit_balance, credit_balance, debit_prev, credit_prev, "   \
    "ref, actor, expires_us, description, origin"
enum { SQLITE_ENTRY_N = 17 };
/* From the first columns of q's row; strings are borrowed until the next step. */
void sqlite_entry_read(const struct sqlite_q *q, struct ledger_entry *ret);

#define SQLITE_ACCOUNTS                                                                                                \
    "SELECT id, owner, currency, flags, balance, held, head, entries, moves, time_us, updated_us FROM account "        \
    "ORDER BY id"
void sqlite_account_read(const struct sqlite_q *q, struct book_account *ret);

enum pf_err sqlite_account_insert(struct sqlite_conn *w, const struct book_account *a, int64_t now_us) MUSTCHECK;
/* Overwrites the projection of an account's row. */
enum pf_err sqlite_account_write(struct sqlite_conn *w, const struct book_account *a) MUSTCHECK;
enum pf_err sqlite_mark_insert(struct sqlite_conn *w, const struct book_mark *m) MUSTCHECK;
enum pf_err sqlite_hold_insert(struct sqlite_conn *w, const struct ledger_entry *e) MUSTCHECK;
/* The row in resolution, and a hold that is no longer open. PFE_WRONG_STATE: resolved already. */
enum pf_err sqlite_resolution_insert(struct sqlite_conn *w, const struct ledger_entry *e) MUSTCHECK;
/* The entry that resolves that one; 0: none. */
enum pf_err sqlite_resolved_by(struct sqlite_conn *c, int64_t seq, int64_t *ret) MUSTCHECK;
/* All changed statistics, and that they and the clock's figures reflect the book's head. */
enum pf_err sqlite_stats_write(struct sqlite_conn *w, const struct book *b) MUSTCHECK;
/* Of a row of projection: "account", "stat", "time", "lag", "idempotency". */
enum pf_err sqlite_projection_write(struct sqlite_conn *w, const char *name, int64_t value) MUSTCHECK;

/* One entry over the book, the hold that it ends looked up through c. w: writes the marks that fall due, NULL: does
   not. PFE_INTERNAL: it names an account or a hold that does not exist. */
enum pf_err sqlite_replay_entry(struct book *b, struct sqlite_conn *c, const struct ledger_entry *e,
                                struct sqlite_conn *w) MUSTCHECK;

/* ---- the index of idempotency keys (idem.c) ---- */

void sqlite_idem_init(struct idem_index *x);
void sqlite_idem_free(struct idem_index *x);
/* indexed: the projection "idempotency". */
enum pf_err sqlite_idem_load(struct idem_index *x, struct sqlite_conn *c, int64_t indexed) MUSTCHECK;
/* What is recent starts to leave; nothing may be leaving still. */
void sqlite_idem_leave(struct idem_index *x);
/* Writes up to `most` places that leave; *ret_last: none is left. After the commit: sqlite_idem_slice_done. */
enum pf_err sqlite_idem_slice(struct sqlite_store *s, size_t most, size_t *ret_at, bool *ret_last) MUSTCHECK;
void sqlite_idem_slice_done(struct idem_index *x, size_t at, bool last);

/* ---- ticketing (ticketing.c) ---- */

/* The group's part, inside the write. */
enum pf_err sqlite_tickets_load(struct sqlite_store *s, const struct store_group_ask *ask,
                                struct store_group *g) MUSTCHECK;
/* PFE_SOLD_OUT, PFE_WRONG_STATE, PFE_IN_FLIGHT as store_group_commit says: none of them is a defect of the store. */
enum pf_err sqlite_tickets_write(struct sqlite_store *s, const struct store_commit *c) MUSTCHECK;
/* Whether stock, bookings and money agree. *ret_paid: confirmed bookings that cost something. */
enum pf_err sqlite_tickets_judge(struct proof *p, struct sqlite_conn *c, int64_t *ret_paid) MUSTCHECK;

enum pf_err sqlite_event_insert(struct store_tx *tx, struct ticket_event *e);
enum pf_err sqlite_event_status(struct store_tx *tx, int64_t id, enum ticket_event_status status);
enum pf_err sqlite_inbox_purge(struct store_tx *tx, int64_t before_us, int64_t *ret_n);
enum pf_err sqlite_events_get(struct store *s, const struct store_ref *refs, size_t n, struct ticket_event *out);
enum pf_err sqlite_bookings_get(struct store *s, const struct store_ref *refs, size_t n, struct ticket_booking *out);
enum pf_err sqlite_booking_list(struct store *s, const struct store_booking_query *b, struct ticket_booking *out,
                                unsigned *ret_n);
enum pf_err sqlite_bookings_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_ids, unsigned *ret_n);
enum pf_err sqlite_outbox_list(struct store *s, struct arena *a, int64_t after_id, unsigned limit,
                               struct store_message *out, unsigned *ret_n);

/* ---- the directory (open.c) ---- */

enum pf_err sqlite_dir_make(const char *dir, char ret_why[256]) MUSTCHECK;
enum pf_err sqlite_dir_lock(const char *dir, int *ret_fd, char ret_why[256]) MUSTCHECK;
enum pf_err sqlite_sync(const char *path, char ret_why[256]) MUSTCHECK; /* fsync of a file or a directory */
char *sqlite_db_path(const char *dir);                                  /* NULL: out of memory; caller frees */
enum pf_err sqlite_open_writer(struct sqlite_conn *c, const char *path, char ret_why[256]) MUSTCHECK;

/* Takes the lock, then opens for writing (copy.c). create false: PFE_NOT_FOUND when there is no database. Whatever it
   returns, the caller closes both (*ret_lock is -1 before). */
enum pf_err sqlite_open_locked(const char *dir, bool create, struct sqlite_conn *c, int *ret_lock,
                               char ret_why[256]) MUSTCHECK;

/* ---- operations ---- */

/* Makes s->wal_frames follow the WAL. */
void sqlite_watch_wal(struct sqlite_store *s);

enum pf_err sqlite_group_begin(struct store *s, const struct store_group_ask *ask, struct store_group *g);
enum pf_err sqlite_group_commit(struct store *s, const struct store_commit *c);
void sqlite_group_abort(struct store *s);
enum pf_err sqlite_flush(struct store *s);
enum pf_err sqlite_account_rebuild(struct store *s, int64_t account, struct store_replay *ret);

enum pf_err sqlite_account_get(struct store *s, int64_t owner, money_currency currency, struct ledger_account *ret);
enum pf_err sqlite_account_by_id(struct store *s, int64_t id, struct ledger_account *ret);
enum pf_err sqlite_account_list(struct store *s, int64_t owner, struct ledger_account *out, unsigned cap,
                                unsigned *ret_n);
enum pf_err sqlite_entry_get(struct store *s, struct arena *a, int64_t seq, struct ledger_entry *ret,
                             int64_t *ret_resolved_by);
enum pf_err sqlite_entry_list(struct store *s, const struct store_entry_query *q, store_entry_fn fn, void *ctx,
                              int64_t *ret_cursor);
enum pf_err sqlite_journal_scan(struct store *s, int64_t after_seq, int64_t limit, store_entry_fn fn, void *ctx);
enum pf_err sqlite_balance_at(struct store *s, int64_t account, int64_t at_us, int64_t *ret_balance);
enum pf_err sqlite_holds_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_seq, unsigned *ret_n);
enum pf_err sqlite_replay(struct store *s, int64_t account, struct store_replay *ret);
enum pf_err sqlite_stats(struct store *s, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                         unsigned *ret_n);
enum pf_err sqlite_trial(struct store *s, struct store_trial *out, unsigned cap, unsigned *ret_n);
enum pf_err sqlite_verify(struct store *s, struct store_verify *ret);

/* Proves the database behind c in one snapshot (verify.c). PFE_OK whether or not it holds: see ret->ok. */
enum pf_err sqlite_prove(struct sqlite_conn *c, struct store_verify *ret) MUSTCHECK;

#endif
