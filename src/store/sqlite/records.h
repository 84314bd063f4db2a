/* What the record files of the sqlite engine share. */
#ifndef STORE_SQLITE_RECORDS_H
#define STORE_SQLITE_RECORDS_H

#include "store/sqlite/internal.h"

/* The connection that tx writes through. NULL when SQLite has ended the transaction by itself (no room, I/O error, no
   memory): queries then end in PFE_UNAVAILABLE instead of committing one by one. */
struct sqlite_conn *sqlite_rec_conn(struct store_tx *tx);

/* Ends a query that reads one row. */
static inline enum pf_err sqlite_rec_one(struct sqlite_q *q, bool found)
{
    enum pf_err e = sqlite_q_end(q);
    return e == PFE_OK && !found ? PFE_NOT_FOUND : e;
}

/* Runs a write. Want of room shows in store_info, as it does for groups. */
static inline enum pf_err sqlite_rec_run(struct sqlite_q *q)
{
    enum pf_err e = sqlite_q_run(q);
    if (e == PFE_DISK_FULL)
        atomic_store(&q->c->store->full, true);
    return e;
}

/* Runs a write that must hit a row, or else gives `none`. */
static inline enum pf_err sqlite_rec_hit(struct sqlite_q *q, enum pf_err none)
{
    enum pf_err e = sqlite_rec_run(q);
    return e == PFE_OK && sqlite3_changes64(q->c->db) == 0 ? none : e;
}

/* Runs an insert. *ret_id: the row's id. */
static inline enum pf_err sqlite_rec_inserted(struct sqlite_q *q, int64_t *ret_id)
{
    enum pf_err e = sqlite_rec_run(q);
    if (e == PFE_OK)
        *ret_id = sqlite3_last_insert_rowid(q->c->db);
    return e;
}

static inline int64_t sqlite_rec_before(int64_t before_id)
{
    return before_id ? before_id : INT64_MAX;
}

#endif
