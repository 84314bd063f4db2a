/*
 * The record tables of the memory engine, and transactions over them.
 *
 * A table is an array of pointers to rows; a row is one heap block, strings included, and never changes. A transaction
 * copies the array of each table that it touches, adds and replaces rows in the copy, and on commit puts the copies in
 * the place of the originals, all at once. So readers see committed rows only, and a rollback has nothing to undo.
 *
 * Users, API keys, schedules and audit lines are numbered 1, 2, 3 …: row i has id i + 1.
 */
#ifndef STORE_MEMORY_RECORDS_H
#define STORE_MEMORY_RECORDS_H

#include "store/memory/internal.h"

enum rec_table {
    REC_USER,
    REC_APIKEY,
    REC_SESSION,
    REC_REFRESH,
    REC_SCHEDULE,
    REC_RUN,
    REC_AUDIT,
    REC_EVENT,
    /* only what a transaction is to do: */
    REC_IDEM,   /* rows to insert into memory_store.idem */
    REC_FORGET, /* int64_t: inbox rows before that time */
    REC_TABLES
};

struct rec_rows {
    void **v; /* struct store_user *, struct store_apikey * … */
    size_t n, cap;
};

struct memory_records {
    struct rec_rows t[REC_TABLES]; /* guarded by memory_store.lock */
};

/* The table as the transaction sees it, ready to be changed. NULL: out of memory. */
const struct rec_rows *memory_rec_open(struct store_tx *tx, enum rec_table t);
/* Adds a copy of rec to an opened table, or puts one in the place of row i. PFE_NOMEM: unchanged. */
enum pf_err memory_rec_add(struct store_tx *tx, enum rec_table t, const void *rec) MUSTCHECK;
enum pf_err memory_rec_replace(struct store_tx *tx, enum rec_table t, size_t i, const void *rec) MUSTCHECK;

/* Committed rows, for who holds wlock or lock. */
const struct rec_rows *memory_rec_rows(const struct memory_store *s, enum rec_table t);
/* Committed rows, locked for reading until memory_rec_read_end. */
const struct rec_rows *memory_rec_read(struct store *s, enum rec_table t);
void memory_rec_read_end(struct store *s);

/* Copies a row into *ret, strings into the arena (not looked at for rows without strings). PFE_NOMEM: unchanged. */
enum pf_err memory_rec_copy(enum rec_table t, const void *row, struct arena *a, void *ret) MUSTCHECK;

/* The row with that id, NULL if there is none. */
static inline const void *memory_rec_by_id(const struct rec_rows *rows, int64_t id)
{
    return id >= 1 && (uint64_t)id <= rows->n ? rows->v[id - 1] : NULL;
}

/* Of a table by id: how many rows have id < before_id (0: all). */
static inline size_t memory_rec_before(const struct rec_rows *rows, int64_t before_id)
{
    if (before_id == 0)
        return rows->n;
    if (before_id < 1)
        return 0;
    return (uint64_t)before_id - 1 < rows->n ? (size_t)before_id - 1 : rows->n;
}

/* What a transaction did to outbox and inbox; under lock for writing (ticketing.c). */
void memory_tickets_publish(struct memory_store *s, const struct rec_rows *forget);

#endif
