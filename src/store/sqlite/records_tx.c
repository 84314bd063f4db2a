#include <stdlib.h>

#include "store/sqlite/records.h"

enum pf_err sqlite_rec_tx_begin(struct store *s, struct store_tx **ret)
{
    struct store_tx *tx = malloc(sizeof *tx);
    if (!tx)
        return PFE_NOMEM;
    enum pf_err e = sqlite_write_begin(sqlite_of(s));
    if (e != PFE_OK) {
        free(tx);
        return e;
    }
    tx->store = s;
    *ret = tx;
    return PFE_OK;
}

struct sqlite_conn *sqlite_rec_conn(struct store_tx *tx)
{
    struct sqlite_conn *w = &sqlite_of(tx->store)->w;
    return sqlite3_get_autocommit(w->db) ? NULL : w;
}

enum pf_err sqlite_rec_tx_commit(struct store_tx *tx)
{
    struct sqlite_store *s = sqlite_of(tx->store);
    bool open = sqlite_rec_conn(tx) != NULL;
    free(tx);
    if (open)
        return sqlite_write_commit(s);
    sqlite_write_rollback(s);
    return PFE_UNAVAILABLE;
}

void sqlite_rec_tx_rollback(struct store_tx *tx)
{
    struct sqlite_store *s = sqlite_of(tx->store);
    free(tx);
    sqlite_write_rollback(s);
}
