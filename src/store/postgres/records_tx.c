#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "store/postgres/journal.h"
#include "store/postgres/records.h"

static _Thread_local unsigned under_way; /* transactions of this thread's */

bool pg_in_write(struct postgres_store *s)
{
    return under_way || pg_group_conn(s);
}

static enum pf_err wrote(struct postgres_store *s, enum pf_err e)
{
    if (e == PFE_DISK_FULL)
        atomic_store(&s->full, true);
    return e;
}

enum pf_err pg_rec_run(struct pg_q *q)
{
    struct pg_conn *c = q->c;
    enum pf_err e = pg_q_run(q);
    return c ? wrote(c->store, e) : e;
}

enum pf_err pg_rec_hits(struct pg_q *q, int64_t *ret)
{
    struct pg_conn *c = q->c;
    enum pf_err e = pg_q_hits(q, ret);
    return c ? wrote(c->store, e) : e;
}

enum pf_err pg_rec_hit(struct pg_q *q, enum pf_err none)
{
    int64_t n;
    enum pf_err e = pg_rec_hits(q, &n);
    return e == PFE_OK && n == 0 ? none : e;
}

enum pf_err pg_rec_inserted(struct pg_q *q, int64_t *ret_id)
{
    if (pg_q_next(q))
        *ret_id = pg_col_i64(q, 0);
    return pg_rec_run(q);
}

/* ---- transactions ---- */

#define TIMELINE "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"

/* One at a time, of all processes: what the caller reads before it writes holds until it commits, as in the embedded
   engines. Who holds that row and is not heard of is cut off by the server. */
enum pf_err pg_rec_tx_begin(struct store *st, struct store_tx **ret)
{
    struct postgres_store *s = pg_of(st);
    if (s->mode == POSTGRES_INSPECT)
        return PFE_UNAVAILABLE;
    struct pg_tx *tx = malloc(sizeof *tx);
    if (!tx)
        return PFE_NOMEM;
    *tx = (struct pg_tx){.base.store = st, .c = pg_stalled(s) ? NULL : pg_take(s, PG_TX)};
    enum pf_err e = tx->c ? PFE_OK : PFE_UNAVAILABLE;
    if (e == PFE_OK) {
        struct pg_q begin, id;
        pg_q_begin(&begin, tx->c, pg_begin);
        pg_q_send(&begin);
        pg_q_begin(&id, tx->c, "SELECT pg_current_xact_id()::text::bigint, " TIMELINE " FROM record_ids FOR UPDATE");
        pg_q_send(&id);
        tx->c->yields = true;
        e = pg_sync(tx->c);
        tx->c->yields = false;
        if (pg_q_next(&id)) {
            tx->xid = pg_col_i64(&id, 0);
            str_copy(tx->timeline, sizeof tx->timeline, pg_col_str(&id, 1));
        }
        (void)!pg_q_end(&begin);
        (void)!pg_q_end(&id);
    }
    if (e != PFE_OK) {
        pg_abandon(tx->c);
        pg_give(tx->c);
        free(tx);
        return e;
    }
    under_way++;
    *ret = &tx->base;
    return PFE_OK;
}

/* PFE_OK: committed; PFE_UNAVAILABLE: not, and it never will be; PFE_BUSY: ask again. A transaction of another timeline
   may have the same number: then nobody can tell. */
static enum pf_err ask(struct postgres_store *s, const struct pg_tx *tx, int64_t deadline_us)
{
    struct pg_q q;
    enum pf_err e = PFE_BUSY;
    pg_read_begin(&q, s, PG_FROM_PRIMARY, "SELECT " TIMELINE " = $2, pg_xact_status($1::text::xid8)");
    pg_q_i64(&q, tx->xid);
    pg_q_str(&q, str_c(tx->timeline));
    if (pg_q_next(&q)) {
        struct str status = pg_col_str(&q, 1);
        e = !pg_col_bool(&q, 0)           ? PFE_INTERNAL
            : str_is(status, "committed") ? PFE_OK
            : str_is(status, "aborted")   ? PFE_UNAVAILABLE
                                          : PFE_BUSY;
    }
    (void)!pg_q_end(&q);
    if (e == PFE_OK && pg_assure(s, deadline_us) != PFE_OK)
        e = PFE_BUSY;
    return e;
}

/* The answer to COMMIT did not come. The server that got it may still be at it. */
static enum pf_err settle(struct postgres_store *s, const struct pg_tx *tx, int64_t deadline_us)
{
    enum pf_err e = PFE_BUSY;
    while (clock_mono(clock_system()) < deadline_us && (e = ask(s, tx, deadline_us)) == PFE_BUSY)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    return e == PFE_BUSY ? PFE_INTERNAL : e;
}

enum pf_err pg_rec_tx_commit(struct store_tx *base)
{
    struct pg_tx *tx = (struct pg_tx *)base;
    struct postgres_store *s = pg_of(base->store);
    under_way--;
    int64_t deadline = pg_commit_deadline(s);
    enum pf_err e = pg_commit_by(tx->c, deadline);
    pg_abandon(tx->c);
    pg_give(tx->c);
    if (e == PFE_INTERNAL)
        e = settle(s, tx, deadline);
    if (e == PFE_OK)
        atomic_store(&s->full, false);
    free(tx);
    return wrote(s, e);
}

void pg_rec_tx_rollback(struct store_tx *base)
{
    struct pg_tx *tx = (struct pg_tx *)base;
    under_way--;
    pg_abandon(tx->c);
    pg_give(tx->c);
    free(tx);
}
