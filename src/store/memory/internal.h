/*
 * Inside the memory engine.
 *
 * Locks, taken in this order: wlock (a group or a transaction, from begin to end) > lock (everything below it but the
 * book: journal, resolutions, idempotency, records; readers share it, writers take it for each change) > the book's.
 */
#ifndef STORE_MEMORY_INTERNAL_H
#define STORE_MEMORY_INTERNAL_H

#include <pthread.h>

#include "base/map.h"
#include "codec/crypt.h"
#include "port/store.h"
#include "store/book/book.h"
#include "store/book/lease.h"
#include "store/book/proof.h"
#include "store/memory/memory.h"

struct memory_records; /* records.c: users, keys, sessions … */
struct memory_tickets; /* ticketing.c: bookings, outbox, inbox */

struct memory_seal {
    int64_t first_seq, last_seq;
    uint8_t hash[SHA256_LEN];
};

struct memory_store {
    struct store base;
    pthread_mutex_t wlock;
    pthread_rwlock_t lock;

    struct book book;
    struct ledger_entry *journal; /* entry seq is journal[seq - 1]; its strings are one heap block at .description.p */
    size_t n_journal, cap_journal;
    struct map_u64 resolved; /* seq -> seq of what resolves it */
    struct memory_seal *seals;
    size_t n_seals, cap_seals;
    struct sha256 *sha;
    struct map_str idem; /* principal and key -> struct store_idem * */
    struct memory_records *rec;
    struct lease_book leases; /* its own lock, the innermost */
    struct memory_tickets *tickets;
};

static inline struct memory_store *memory_of(struct store *s)
{
    return (struct memory_store *)s;
}

/* Idempotency rows (idem.c). Caller holds lock: for writing to insert and remove, for reading to find.
   Insert copies; PFE_IN_FLIGHT when the key is there already. find: NULL or the row, borrowed while lock is held. */
enum pf_err memory_idem_insert(struct memory_store *s, const struct store_idem *i) MUSTCHECK;
void memory_idem_remove(struct memory_store *s, int64_t principal, struct str key);
const struct store_idem *memory_idem_find(const struct memory_store *s, int64_t principal, struct str key);

/* ---- reads of the journal (read.c) ---- */

enum pf_err memory_account_get(struct store *s, int64_t owner, money_currency currency, struct ledger_account *ret);
enum pf_err memory_account_by_id(struct store *s, int64_t id, struct ledger_account *ret);
enum pf_err memory_account_list(struct store *s, int64_t owner, struct ledger_account *out, unsigned cap,
                                unsigned *ret_n);
enum pf_err memory_entry_get(struct store *s, struct arena *a, int64_t seq, struct ledger_entry *ret,
                             int64_t *ret_resolved_by);
/* Of each of n entries, by seq, which resolves it; 0: none. */
void memory_resolved(struct memory_store *s, const int64_t *seq, size_t n, int64_t *ret);
enum pf_err memory_entry_list(struct store *s, const struct store_entry_query *q, store_entry_fn fn, void *ctx,
                              int64_t *ret_cursor);
enum pf_err memory_journal_scan(struct store *s, int64_t after_seq, int64_t limit, store_entry_fn fn, void *ctx);
enum pf_err memory_balance_at(struct store *s, int64_t account, int64_t at_us, int64_t *ret_balance);
enum pf_err memory_holds_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_seq, unsigned *ret_n);
enum pf_err memory_replay(struct store *s, int64_t account, struct store_replay *ret);
enum pf_err memory_stats(struct store *s, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                         unsigned *ret_n);
enum pf_err memory_trial(struct store *s, struct store_trial *out, unsigned cap, unsigned *ret_n);
enum pf_err memory_verify(struct store *s, struct store_verify *ret);
/* The account as the journal makes it. Caller holds lock. */
void memory_fold(const struct memory_store *s, struct book_account *a, struct store_replay *ret);

/* ---- ticketing (ticketing.c) ---- */

struct memory_tickets *memory_tickets_new(void);    /* NULL: out of memory */
void memory_tickets_free(struct memory_tickets *t); /* NULL is allowed */
/* The group's part. Caller holds wlock; for the commit also lock for writing. A commit that fails has done nothing. */
enum pf_err memory_tickets_load(struct memory_store *s, const struct store_group_ask *ask,
                                struct store_group *g) MUSTCHECK;
enum pf_err memory_tickets_commit(struct memory_store *s, const struct store_commit *c) MUSTCHECK;
/* Whether stock, bookings and the journal agree. Caller holds lock. *ret_paid: confirmed bookings that cost something.
 */
void memory_tickets_judge(const struct memory_store *s, struct proof *p, int64_t *ret_paid);

enum pf_err memory_event_insert(struct store_tx *tx, struct ticket_event *e);
enum pf_err memory_event_status(struct store_tx *tx, int64_t id, enum ticket_event_status status);
enum pf_err memory_inbox_purge(struct store_tx *tx, int64_t before_us, int64_t *ret_n);
enum pf_err memory_events_get(struct store *s, const struct store_ref *refs, size_t n, struct ticket_event *out);
enum pf_err memory_bookings_get(struct store *s, const struct store_ref *refs, size_t n, struct ticket_booking *out);
enum pf_err memory_booking_list(struct store *s, const struct store_booking_query *q, struct ticket_booking *out,
                                unsigned *ret_n);
enum pf_err memory_bookings_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_ids, unsigned *ret_n);
enum pf_err memory_outbox_list(struct store *s, struct arena *a, int64_t after_id, unsigned limit,
                               struct store_message *out, unsigned *ret_n);

/* ---- records (records_*.c) ---- */

struct memory_records *memory_rec_new(void);    /* NULL: out of memory */
void memory_rec_free(struct memory_records *r); /* NULL is allowed */
/* Does the user exist, and is it active (neither being deleted nor deleted)? Takes lock for reading. */
bool memory_rec_owner_ok(struct memory_store *s, int64_t user);

enum pf_err memory_rec_tx_begin(struct store *s, struct store_tx **ret);
enum pf_err memory_rec_tx_commit(struct store_tx *tx);
void memory_rec_tx_rollback(struct store_tx *tx);
enum pf_err memory_rec_tx_fence(struct store_tx *tx, const struct store_fence *f);
enum pf_err memory_rec_user_insert(struct store_tx *tx, struct store_user *u);
enum pf_err memory_rec_user_update(struct store_tx *tx, const struct store_user *u);
enum pf_err memory_rec_apikey_insert(struct store_tx *tx, struct store_apikey *k);
enum pf_err memory_rec_apikey_revoke(struct store_tx *tx, int64_t user, int64_t id, int64_t now_us, int64_t *ret_n);
enum pf_err memory_rec_apikey_touch(struct store_tx *tx, int64_t id, int64_t now_us);
enum pf_err memory_rec_session_insert(struct store_tx *tx, const struct store_session *f);
enum pf_err memory_rec_session_revoke(struct store_tx *tx, int64_t user, const uint8_t family[16], int64_t now_us);
enum pf_err memory_rec_refresh_insert(struct store_tx *tx, const struct store_refresh *r);
enum pf_err memory_rec_refresh_use(struct store_tx *tx, const uint8_t hash[32], int64_t now_us);
enum pf_err memory_rec_schedule_insert(struct store_tx *tx, struct store_schedule *d);
enum pf_err memory_rec_schedule_update(struct store_tx *tx, const struct store_schedule *d);
enum pf_err memory_rec_run_insert(struct store_tx *tx, const struct store_run *r);
enum pf_err memory_rec_audit_append(struct store_tx *tx, struct store_audit *a);
enum pf_err memory_rec_idem_put(struct store_tx *tx, const struct store_idem *i);
enum pf_err memory_rec_user_get(struct store *s, int64_t id, struct store_user *ret);
enum pf_err memory_rec_user_by_uuid(struct store *s, const uint8_t uuid[16], struct store_user *ret);
enum pf_err memory_rec_user_by_name(struct store *s, struct str username, struct store_user *ret);
enum pf_err memory_rec_user_by_email(struct store *s, struct str email, struct store_user *ret);
enum pf_err memory_rec_user_list(struct store *s, int64_t before_id, int64_t offset, unsigned limit,
                                 struct store_user *out, unsigned *ret_n);
enum pf_err memory_rec_admin_count(struct store *s, int64_t *ret);
enum pf_err memory_rec_users_closing(struct store *s, int64_t before_us, unsigned limit, int64_t *out, unsigned *ret_n);
enum pf_err memory_rec_apikey_by_hash(struct store *s, const uint8_t hash[32], struct store_apikey *ret);
enum pf_err memory_rec_apikey_list(struct store *s, int64_t user, int64_t before_id, unsigned limit,
                                   struct store_apikey *out, unsigned *ret_n);
enum pf_err memory_rec_session_get(struct store *s, const uint8_t family[16], struct store_session *ret);
enum pf_err memory_rec_refresh_get(struct store *s, const uint8_t hash[32], struct store_refresh *ret);
enum pf_err memory_rec_schedule_get(struct store *s, struct arena *a, int64_t id, struct store_schedule *ret);
enum pf_err memory_rec_schedule_by_uuid(struct store *s, struct arena *a, const uint8_t uuid[16],
                                        struct store_schedule *ret);
enum pf_err memory_rec_schedule_list(struct store *s, struct arena *a, int64_t owner, int64_t before_id, int64_t offset,
                                     unsigned limit, struct store_schedule *out, unsigned *ret_n);
enum pf_err memory_rec_schedule_due(struct store *s, struct arena *a, int64_t now_us, unsigned limit,
                                    struct store_schedule *out, unsigned *ret_n, int64_t *ret_next_us);
enum pf_err memory_rec_run_list(struct store *s, struct arena *a, int64_t schedule, unsigned limit,
                                struct store_run *out, unsigned *ret_n);
enum pf_err memory_rec_audit_list(struct store *s, struct arena *a, const struct store_audit_query *q,
                                  struct store_audit *out, unsigned *ret_n);
enum pf_err memory_rec_idem_get(struct store *s, struct arena *a, int64_t principal, struct str key,
                                struct store_idem *ret);

#endif
