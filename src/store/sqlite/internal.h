/*
 * Inside the sqlite engine: the store, its connections, statements and the one translation of SQLite's errors.
 *
 * Connections. `w` writes; whoever uses it holds `wlock` (sqlite_write_begin … sqlite_write_commit | _rollback, by one
 * thread). Reads go through sqlite_reader(), the calling thread's own read-only connection: it sees the newest
 * committed state at its first step and keeps that snapshot until the query ends, so end every query.
 *
 * Queries. A statement is prepared once per connection and found again by the address of its text (pass literals or
 * other static strings). Errors stick: bind, step, and look at what sqlite_q_end or sqlite_q_run returns.
 *
 *     struct sqlite_q q;
 *     sqlite_q_begin(&q, conn, "SELECT a, b FROM t WHERE id = ?1");
 *     sqlite_q_i64(&q, id);
 *     if (sqlite_q_next(&q))
 *         out = sqlite_col_i64(&q, 0), found = true;
 *     enum pf_err e = sqlite_q_end(&q);      PFE_OK although there was no row
 *
 * Bound strings and blobs are borrowed until sqlite_q_end / sqlite_q_run. One statement runs once at a time per
 * connection: no nesting of the same text.
 */
#ifndef STORE_SQLITE_INTERNAL_H
#define STORE_SQLITE_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "codec/crypt.h"
#include "port/store.h"
#include "store/book/book.h"
#include "store/book/lease.h"
#include "store/sqlite/names.h"
#include "store/sqlite/sqlite.h"

enum {
    SQLITE_READERS_MAX = 64,       /* threads that read at once: I/O, workers, jobs; far fewer in practice */
    SQLITE_STMTS_MAX = 256,        /* slots per connection, a power of two; the engine has about 80 statements */
    SQLITE_CHECKPOINT_PAGES = 512, /* of 4 KiB: bounds how long a commit may take (docs/decisions) */
    SQLITE_BUSY_MS = 5000,         /* only another process's recovery of the WAL can make us wait */
    SQLITE_FLUSH_ENTRIES = 65536,
    SQLITE_FLUSH_SLICE = 256 /* accounts written behind per commit: under 1 ms */
};

struct sqlite_conn {
    sqlite3 *db;
    struct sqlite_store *store;
    bool in_use; /* readers: claimed by a thread */
    struct {
        const char *sql;
        sqlite3_stmt *st;
    } stmts[SQLITE_STMTS_MAX];
    unsigned n_stmts;
};

struct sqlite_q {
    struct sqlite_conn *c;
    sqlite3_stmt *st;
    int rc; /* SQLITE_OK, SQLITE_ROW, SQLITE_DONE or the first error, extended */
    int bound;
};

struct idem_slot {
    int64_t hash, id; /* id 0: empty */
};
struct idem_table {
    struct idem_slot *slots;
    unsigned bits;
    size_t n;
};
struct idem_index {                    /* idem.c */
    pthread_rwlock_t lock;             /* over the tables; the rest is guarded by wlock */
    struct idem_table recent, leaving; /* not in the stored index yet; being written into it */
    int64_t next_id;
    size_t leaving_at;  /* next slot to write */
    int64_t leaving_id; /* every id up to here is in the stored index once `leaving` is */
};

struct sqlite_documents {
    struct documents base;
    struct sqlite_store *store;
};

struct sqlite_store {
    struct store base;
    struct sqlite_documents documents;
    enum sqlite_mode mode;
    char *path;  /* of the database file */
    int lock_fd; /* DIR/lock; -1 in INSPECT */

    pthread_mutex_t wlock;
    struct sqlite_conn w; /* guarded by wlock; db is NULL in INSPECT */
    int wal_frames;       /* after the last commit; guarded by wlock */
    int checkpoint_at;    /* frames at which the next checkpoint runs; guarded by wlock */
    atomic_bool fatal;    /* a commit's outcome is unknown */
    atomic_bool full;     /* the last write failed for want of room */

    pthread_key_t reader_key; /* struct sqlite_conn * */
    pthread_mutex_t readers_lock;
    struct sqlite_conn *readers[SQLITE_READERS_MAX];
    unsigned n_readers;

    struct book book; /* accounts and statistics; its own lock; changes only under wlock, after a commit */
    struct idem_index idem;
    uint8_t seal[SHA256_LEN];
    struct sha256 *sha;
    int64_t flush_entries;
    struct metric_histogram *h_commit; /* NULL: not measured */
    int64_t epoch_seq;                 /* write-behind under way up to here; 0: none */
    int64_t epoch_started;             /* head when the last one started */
    atomic_llong projected_seq;
    int64_t replayed;
    int schema;
    struct lease_book leases; /* its own lock */
    struct names names;       /* SERVE only */
};

static inline struct sqlite_store *sqlite_of(struct store *s)
{
    return (struct sqlite_store *)s;
}

/* ---- connections and statements (conn.c) ---- */

/* The one translation. rc is an extended result code; db may be NULL (its errno is then not asked).
   SQLITE_FULL, or a write refused with ENOSPC or EDQUOT: PFE_DISK_FULL. A constraint: PFE_WRONG_STATE (look at q.rc
   before). SQLITE_NOMEM: PFE_NOMEM. Anything else: PFE_UNAVAILABLE. */
enum pf_err sqlite_err(sqlite3 *db, int rc);

/* flags: SQLITE_OPEN_*. Returns an SQLite code; close in either case. Read-only connections never checkpoint. */
int sqlite_conn_open(struct sqlite_conn *c, const char *path, int flags);
/* Also on a zeroed or half-open connection. */
void sqlite_conn_close(struct sqlite_conn *c);
/* A statement without parameters and rows. */
enum pf_err sqlite_exec(struct sqlite_conn *c, const char *sql) MUSTCHECK;
/* Prepares the statements that end transactions, for a connection that could not end one for want of memory would be
   lost. Call it once the connection is set up: PRAGMAs and changes of the schema undo it. */
enum pf_err sqlite_conn_ready(struct sqlite_conn *c) MUSTCHECK;
/* What begins and ends transactions on such a connection: statements are found by these addresses. */
extern const char sqlite_begin[], sqlite_begin_write[], sqlite_commit[], sqlite_rollback[];

/* NULL when the machine or SQLITE_READERS_MAX refuses: answer PFE_UNAVAILABLE. */
struct sqlite_conn *sqlite_reader(struct sqlite_store *s);
void sqlite_reader_release(void *conn); /* the destructor of reader_key */

/* c may be NULL: the query then ends in PFE_UNAVAILABLE. */
void sqlite_q_begin(struct sqlite_q *q, struct sqlite_conn *c, const char *sql);
/* Bind the next parameter (?1, ?2 … in order). */
void sqlite_q_i64(struct sqlite_q *q, int64_t v);
void sqlite_q_str(struct sqlite_q *q, struct str v);
void sqlite_q_blob(struct sqlite_q *q, const void *p, size_t n);
bool sqlite_q_next(struct sqlite_q *q);
enum pf_err sqlite_q_end(struct sqlite_q *q);
/* For statements without rows: steps and ends. */
enum pf_err sqlite_q_run(struct sqlite_q *q);

static inline int64_t sqlite_col_i64(const struct sqlite_q *q, int i)
{
    return sqlite3_column_int64(q->st, i);
}
/* Valid until the next step or end. */
struct str sqlite_col_str(const struct sqlite_q *q, int i);
/* false, and q's error set to PFE_NOMEM, when the arena is exhausted. */
bool sqlite_col_dup(struct sqlite_q *q, int i, struct arena *a, struct str *ret);
/* Copies exactly n bytes; a blob of another length reads as zeros. */
void sqlite_col_blob(const struct sqlite_q *q, int i, void *out, size_t n);

/* ---- writing (conn.c) ---- */

/* Takes wlock and opens a transaction on s->w. PFE_UNAVAILABLE in INSPECT, PFE_INTERNAL when the store is dead.
   On failure the lock is not held. */
enum pf_err sqlite_write_begin(struct sqlite_store *s) MUSTCHECK;
/* Ends the transaction and frees wlock in every case. PFE_INTERNAL: outcome unknown, the store is dead. */
enum pf_err sqlite_write_commit(struct sqlite_store *s) MUSTCHECK;
/* The same, but keeps wlock: for what has to change with the commit. The caller unlocks. */
enum pf_err sqlite_write_commit_locked(struct sqlite_store *s) MUSTCHECK;
void sqlite_write_rollback(struct sqlite_store *s);
/* Rolls back after error e inside a write, notes a full disk, and gives what to return. */
enum pf_err sqlite_write_failed(struct sqlite_store *s, enum pf_err e) MUSTCHECK;

/* The row's id, if c sees it. PFE_NOT_FOUND. */
enum pf_err sqlite_idem_find(struct sqlite_store *s, struct sqlite_conn *c, int64_t principal, struct str key,
                             int64_t *ret_id) MUSTCHECK;
/* Inserts on s->w, inside a write. PFE_IN_FLIGHT: the principal has used the key already. */
enum pf_err sqlite_idem_insert(struct sqlite_store *s, const struct store_idem *i) MUSTCHECK;

/* ---- records (records_*.c) ---- */

/* Does the user exist, and is it active (neither being deleted nor deleted)? */
enum pf_err sqlite_rec_owner_ok(struct sqlite_conn *c, int64_t user, bool *ret) MUSTCHECK;

enum pf_err sqlite_rec_tx_begin(struct store *s, struct store_tx **ret);
enum pf_err sqlite_rec_tx_commit(struct store_tx *tx);
void sqlite_rec_tx_rollback(struct store_tx *tx);
enum pf_err sqlite_rec_tx_fence(struct store_tx *tx, const struct store_fence *f);
enum pf_err sqlite_rec_user_insert(struct store_tx *tx, struct store_user *u);
enum pf_err sqlite_rec_user_update(struct store_tx *tx, const struct store_user *u);
enum pf_err sqlite_rec_apikey_insert(struct store_tx *tx, struct store_apikey *k);
enum pf_err sqlite_rec_apikey_revoke(struct store_tx *tx, int64_t user, int64_t id, int64_t now_us, int64_t *ret_n);
enum pf_err sqlite_rec_apikey_touch(struct store_tx *tx, int64_t id, int64_t now_us);
enum pf_err sqlite_rec_session_insert(struct store_tx *tx, const struct store_session *f);
enum pf_err sqlite_rec_session_revoke(struct store_tx *tx, int64_t user, const uint8_t family[16], int64_t now_us);
enum pf_err sqlite_rec_refresh_insert(struct store_tx *tx, const struct store_refresh *r);
enum pf_err sqlite_rec_refresh_use(struct store_tx *tx, const uint8_t hash[32], int64_t now_us);
enum pf_err sqlite_rec_schedule_insert(struct store_tx *tx, struct store_schedule *d);
enum pf_err sqlite_rec_schedule_update(struct store_tx *tx, const struct store_schedule *d);
enum pf_err sqlite_rec_run_insert(struct store_tx *tx, const struct store_run *r);
enum pf_err sqlite_rec_audit_append(struct store_tx *tx, struct store_audit *a);
enum pf_err sqlite_rec_idem_put(struct store_tx *tx, const struct store_idem *i);
enum pf_err sqlite_rec_user_get(struct store *s, int64_t id, struct store_user *ret);
enum pf_err sqlite_rec_user_by_uuid(struct store *s, const uint8_t uuid[16], struct store_user *ret);
enum pf_err sqlite_rec_user_by_name(struct store *s, struct str username, struct store_user *ret);
bool sqlite_rec_user_name_free(struct store *s, struct str username);
enum pf_err sqlite_rec_user_by_email(struct store *s, struct str email, struct store_user *ret);
enum pf_err sqlite_rec_user_list(struct store *s, int64_t before_id, int64_t offset, unsigned limit,
                                 struct store_user *out, unsigned *ret_n);
enum pf_err sqlite_rec_admin_count(struct store *s, int64_t *ret);
enum pf_err sqlite_rec_users_closing(struct store *s, int64_t before_us, unsigned limit, int64_t *out, unsigned *ret_n);
enum pf_err sqlite_rec_apikey_by_hash(struct store *s, const uint8_t hash[32], struct store_apikey *ret);
enum pf_err sqlite_rec_apikey_list(struct store *s, int64_t user, int64_t before_id, unsigned limit,
                                   struct store_apikey *out, unsigned *ret_n);
enum pf_err sqlite_rec_session_get(struct store *s, const uint8_t family[16], struct store_session *ret);
enum pf_err sqlite_rec_refresh_get(struct store *s, const uint8_t hash[32], struct store_refresh *ret);
enum pf_err sqlite_rec_schedule_get(struct store *s, struct arena *a, int64_t id, struct store_schedule *ret);
enum pf_err sqlite_rec_schedule_by_uuid(struct store *s, struct arena *a, const uint8_t uuid[16],
                                        struct store_schedule *ret);
enum pf_err sqlite_rec_schedule_list(struct store *s, struct arena *a, int64_t owner, int64_t before_id, int64_t offset,
                                     unsigned limit, struct store_schedule *out, unsigned *ret_n);
enum pf_err sqlite_rec_schedule_due(struct store *s, struct arena *a, int64_t now_us, unsigned limit,
                                    struct store_schedule *out, unsigned *ret_n, int64_t *ret_next_us);
enum pf_err sqlite_rec_run_list(struct store *s, struct arena *a, int64_t schedule, unsigned limit,
                                struct store_run *out, unsigned *ret_n);
enum pf_err sqlite_rec_audit_list(struct store *s, struct arena *a, const struct store_audit_query *q,
                                  struct store_audit *out, unsigned *ret_n);
enum pf_err sqlite_rec_idem_get(struct store *s, struct arena *a, int64_t principal, struct str key,
                                struct store_idem *ret);

/* Of the table of ops (documents.c). */
struct documents *sqlite_documents(struct store *s);

#endif
