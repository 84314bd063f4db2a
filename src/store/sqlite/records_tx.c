#include <stdlib.h>

#include "store/sqlite/records.h"

struct sqlite_tx {
    struct store_tx base;
    struct lease_row *fence; /* what it is written under; NULL: nothing */
};

enum pf_err sqlite_rec_tx_begin(struct store *s, struct store_tx **ret)
{
    struct sqlite_tx *tx = calloc(1, sizeof *tx);
    if (!tx)
        return PFE_NOMEM;
    enum pf_err e = sqlite_write_begin(sqlite_of(s));
    if (e != PFE_OK) {
        free(tx);
        return e;
    }
    tx->base.store = s;
    *ret = &tx->base;
    return PFE_OK;
}

struct sqlite_conn *sqlite_rec_conn(struct store_tx *tx)
{
    struct sqlite_conn *w = &sqlite_of(tx->store)->w;
    return sqlite3_get_autocommit(w->db) ? NULL : w;
}

enum pf_err sqlite_rec_tx_fence(struct store_tx *tx, const struct store_fence *f)
{
    return lease_book_pin(&sqlite_of(tx->store)->leases, f, &((struct sqlite_tx *)tx)->fence);
}

static void tx_end(struct store_tx *tx)
{
    lease_book_unpin(&sqlite_of(tx->store)->leases, ((struct sqlite_tx *)tx)->fence);
    free(tx);
}

enum pf_err sqlite_rec_tx_commit(struct store_tx *tx)
{
    struct sqlite_store *s = sqlite_of(tx->store);
    enum pf_err e = PFE_UNAVAILABLE;
    if (sqlite_rec_conn(tx))
        e = sqlite_write_commit(s);
    else
        sqlite_write_rollback(s);
    tx_end(tx);
    return e;
}

void sqlite_rec_tx_rollback(struct store_tx *tx)
{
    sqlite_write_rollback(sqlite_of(tx->store));
    tx_end(tx);
}
