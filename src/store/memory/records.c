#include <stdlib.h>

#include "store/memory/records.h"

enum { ROW_STRINGS_MAX = 7 };

/* Where each kind of row has its strings. */
static const struct {
    size_t size, n_strings, strings[ROW_STRINGS_MAX];
} row_shapes[REC_TABLES] = {
    [REC_USER] = {sizeof(struct store_user), 0, {0}},
    [REC_APIKEY] = {sizeof(struct store_apikey), 0, {0}},
    [REC_SESSION] = {sizeof(struct store_session), 0, {0}},
    [REC_REFRESH] = {sizeof(struct store_refresh), 0, {0}},
    [REC_SCHEDULE] = {sizeof(struct store_schedule),
                      3,
                      {offsetof(struct store_schedule, description), offsetof(struct store_schedule, recurrence),
                       offsetof(struct store_schedule, last_error)}},
    [REC_RUN] = {sizeof(struct store_run), 1, {offsetof(struct store_run, error)}},
    [REC_AUDIT] = {sizeof(struct store_audit),
                   7,
                   {offsetof(struct store_audit, action), offsetof(struct store_audit, entity),
                    offsetof(struct store_audit, entity_id), offsetof(struct store_audit, outcome),
                    offsetof(struct store_audit, address), offsetof(struct store_audit, request_id),
                    offsetof(struct store_audit, detail)}},
    [REC_EVENT] = {sizeof(struct ticket_event), 0, {0}},
    [REC_FORGET] = {sizeof(int64_t), 0, {0}},
    [REC_IDEM] = {sizeof(struct store_idem), 2, {offsetof(struct store_idem, key), offsetof(struct store_idem, body)}},
};

struct memory_tx {
    struct store_tx base;
    struct lease_row *fence; /* what it is written under; NULL: nothing */
    bool open[REC_TABLES];
    struct rec_rows t[REC_TABLES];
};

static struct memory_tx *tx_of(struct store_tx *tx)
{
    return (struct memory_tx *)tx;
}

static struct str *row_string(enum rec_table t, void *row, size_t k)
{
    return (struct str *)(void *)((char *)row + row_shapes[t].strings[k]);
}

static void *row_new(enum rec_table t, const void *rec)
{
    struct str from[ROW_STRINGS_MAX];
    size_t size = row_shapes[t].size;
    for (size_t k = 0; k < row_shapes[t].n_strings; k++) {
        memcpy(&from[k], (const char *)rec + row_shapes[t].strings[k], sizeof from[k]);
        size += from[k].n;
    }
    char *row = malloc(size);
    if (!row)
        return NULL;
    memcpy(row, rec, row_shapes[t].size);
    char *text = row + row_shapes[t].size;
    for (size_t k = 0; k < row_shapes[t].n_strings; k++) {
        if (from[k].n)
            memcpy(text, from[k].p, from[k].n);
        *row_string(t, row, k) = (struct str){text, from[k].n};
        text += from[k].n;
    }
    return row;
}

enum pf_err memory_rec_copy(enum rec_table t, const void *row, struct arena *a, void *ret)
{
    struct str copies[ROW_STRINGS_MAX];
    for (size_t k = 0; k < row_shapes[t].n_strings; k++) {
        struct str from;
        memcpy(&from, (const char *)row + row_shapes[t].strings[k], sizeof from);
        copies[k] = arena_strdup(a, from);
        if (!copies[k].p)
            return PFE_NOMEM;
    }
    memcpy(ret, row, row_shapes[t].size);
    for (size_t k = 0; k < row_shapes[t].n_strings; k++)
        *row_string(t, ret, k) = copies[k];
    return PFE_OK;
}

struct memory_records *memory_rec_new(void)
{
    return calloc(1, sizeof(struct memory_records));
}

void memory_rec_free(struct memory_records *r)
{
    if (!r)
        return;
    for (int t = 0; t < REC_TABLES; t++) {
        for (size_t i = 0; i < r->t[t].n; i++)
            free(r->t[t].v[i]);
        free(r->t[t].v);
    }
    free(r);
}

const struct rec_rows *memory_rec_rows(const struct memory_store *s, enum rec_table t)
{
    return &s->rec->t[t];
}

const struct rec_rows *memory_rec_read(struct store *s, enum rec_table t)
{
    struct memory_store *m = memory_of(s);
    pthread_rwlock_rdlock(&m->lock);
    return &m->rec->t[t];
}

void memory_rec_read_end(struct store *s)
{
    pthread_rwlock_unlock(&memory_of(s)->lock);
}

/* ---- transactions ---- */

enum pf_err memory_rec_tx_begin(struct store *s, struct store_tx **ret)
{
    struct memory_tx *tx = calloc(1, sizeof *tx);
    if (!tx)
        return PFE_NOMEM;
    tx->base.store = s;
    pthread_mutex_lock(&memory_of(s)->wlock);
    *ret = &tx->base;
    return PFE_OK;
}

/* Only the holder of wlock changes the tables, so the originals may be read here without the lock. */
const struct rec_rows *memory_rec_open(struct store_tx *tx, enum rec_table t)
{
    struct memory_tx *x = tx_of(tx);
    if (x->open[t])
        return &x->t[t];
    const struct rec_rows *from = &memory_of(tx->store)->rec->t[t];
    struct rec_rows copy = {.n = from->n, .cap = from->n + 8};
    copy.v = malloc(copy.cap * sizeof *copy.v);
    if (!copy.v)
        return NULL;
    if (from->n)
        memcpy(copy.v, from->v, from->n * sizeof *copy.v);
    x->t[t] = copy;
    x->open[t] = true;
    return &x->t[t];
}

enum pf_err memory_rec_add(struct store_tx *tx, enum rec_table t, const void *rec)
{
    struct rec_rows *rows = &tx_of(tx)->t[t];
    if (rows->n == rows->cap) {
        void **more = realloc(rows->v, 2 * rows->cap * sizeof *more);
        if (!more)
            return PFE_NOMEM;
        rows->v = more;
        rows->cap *= 2;
    }
    void *row = row_new(t, rec);
    if (!row)
        return PFE_NOMEM;
    rows->v[rows->n++] = row;
    return PFE_OK;
}

/* Is row i of the copy the transaction's own, and not a committed one? */
static bool row_is_fresh(const struct memory_tx *x, enum rec_table t, size_t i)
{
    const struct rec_rows *committed = &memory_of(x->base.store)->rec->t[t];
    return i >= committed->n || x->t[t].v[i] != committed->v[i];
}

enum pf_err memory_rec_replace(struct store_tx *tx, enum rec_table t, size_t i, const void *rec)
{
    struct memory_tx *x = tx_of(tx);
    void *row = row_new(t, rec);
    if (!row)
        return PFE_NOMEM;
    if (row_is_fresh(x, t, i))
        free(x->t[t].v[i]);
    x->t[t].v[i] = row;
    return PFE_OK;
}

enum pf_err memory_rec_tx_fence(struct store_tx *tx, const struct store_fence *f)
{
    return lease_book_pin(&memory_of(tx->store)->leases, f, &tx_of(tx)->fence);
}

void memory_rec_tx_rollback(struct store_tx *tx)
{
    struct memory_store *m = memory_of(tx->store);
    struct memory_tx *x = tx_of(tx);
    lease_book_unpin(&m->leases, x->fence);
    for (int t = 0; t < REC_TABLES; t++) {
        for (size_t i = 0; i < x->t[t].n; i++) {
            if (row_is_fresh(x, (enum rec_table)t, i))
                free(x->t[t].v[i]);
        }
        free(x->t[t].v);
    }
    free(x);
    pthread_mutex_unlock(&m->wlock);
}

static enum pf_err idem_publish(struct memory_store *m, const struct rec_rows *rows)
{
    for (size_t i = 0; i < rows->n; i++) {
        enum pf_err e = memory_idem_insert(m, rows->v[i]);
        if (e == PFE_OK)
            continue;
        while (i-- > 0) {
            const struct store_idem *done = rows->v[i];
            memory_idem_remove(m, done->principal, done->key);
        }
        return e;
    }
    return PFE_OK;
}

enum pf_err memory_rec_tx_commit(struct store_tx *tx)
{
    struct memory_store *m = memory_of(tx->store);
    struct memory_tx *x = tx_of(tx);
    pthread_rwlock_wrlock(&m->lock);
    enum pf_err e = idem_publish(m, &x->t[REC_IDEM]);
    if (e == PFE_OK)
        memory_tickets_publish(m, &x->t[REC_FORGET]);
    for (int t = 0; e == PFE_OK && t < REC_IDEM; t++) {
        if (!x->open[t])
            continue;
        struct rec_rows old = m->rec->t[t];
        for (size_t i = 0; i < old.n; i++) {
            if (x->t[t].v[i] != old.v[i])
                free(old.v[i]);
        }
        free(old.v);
        m->rec->t[t] = x->t[t];
        x->t[t] = (struct rec_rows){0};
    }
    pthread_rwlock_unlock(&m->lock);
    memory_rec_tx_rollback(tx);
    return e;
}
