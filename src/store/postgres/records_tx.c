#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "codec/uuid.h"
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
        struct pg_q begin, lock;
        pg_q_begin(&begin, tx->c, pg_begin);
        pg_q_send(&begin);
        pg_q_begin(&lock, tx->c, "SELECT FROM record_ids FOR UPDATE");
        pg_q_send(&lock);
        tx->c->yields = true;
        e = pg_sync(tx->c);
        tx->c->yields = false;
        (void)!pg_q_end(&begin);
        (void)!pg_q_end(&lock);
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

/* Leaves a receipt: a number of the transaction's would not do, which after a crash another one may be given. */
static enum pf_err commit(struct pg_tx *tx, int64_t deadline_us)
{
    struct pg_q note, end;
    struct pg_conn *c = tx->c;
    int64_t ts = clock_wall(clock_system()), left = (deadline_us - clock_mono(clock_system())) / 1000;
    struct uuid id = uuid_v7(ts);
    unsigned usual = c->timeout_ms;
    memcpy(tx->receipt, id.b, sizeof tx->receipt);
    pg_q_begin(&note, c, "INSERT INTO receipt (ts, id) VALUES ($1, $2)");
    pg_q_i64(&note, ts);
    pg_q_blob(&note, tx->receipt, sizeof tx->receipt);
    pg_q_send(&note);
    pg_q_begin(&end, c, pg_commit_sql);
    pg_q_send(&end);
    c->timeout_ms = left < 1 ? 1 : left < usual ? (unsigned)left : usual;
    enum pf_err e = pg_sync(c);
    c->timeout_ms = usual;
    (void)!pg_q_end(&note);
    enum pf_err ended = pg_committed(&end);
    return ended == PFE_OK || ended == PFE_INTERNAL ? ended : e ? e : ended;
}

/* PFE_OK: committed; PFE_UNAVAILABLE: not, and it never will be, for under the lock nobody who could still do it is
   left; PFE_BUSY: look again. What is found is acknowledged only after the look itself was committed (stall.c): it has
   locked a row, so its COMMIT is in the log. */
static enum pf_err look(struct postgres_store *s, const struct pg_tx *tx, int64_t deadline_us)
{
    struct pg_q begin, lock, find;
    struct pg_conn *c = pg_stalled(s) ? NULL : pg_take(s, PG_READ);
    if (!c)
        return PFE_BUSY;
    int64_t left = (deadline_us - clock_mono(clock_system())) / 1000;
    c->timeout_ms = left < 1 ? 1 : left < s->timeout_ms ? (unsigned)left : s->timeout_ms;
    pg_q_begin(&begin, c, pg_begin);
    pg_q_send(&begin);
    pg_q_begin(&lock, c, "SELECT FROM record_ids FOR UPDATE");
    pg_q_send(&lock);
    pg_q_begin(&find, c, "SELECT FROM receipt WHERE id = $1");
    pg_q_blob(&find, tx->receipt, sizeof tx->receipt);
    pg_q_send(&find);
    c->yields = true;
    enum pf_err e = pg_sync(c);
    c->yields = false;
    bool there = pg_q_next(&find);
    (void)!pg_q_end(&begin);
    (void)!pg_q_end(&lock);
    (void)!pg_q_end(&find);
    if (e == PFE_OK && there)
        e = pg_commit_by(c, deadline_us);
    pg_abandon(c);
    pg_give(c);
    return e ? PFE_BUSY : there ? PFE_OK : PFE_UNAVAILABLE;
}

/* The answer to COMMIT did not come. The server that got it may still be at it. */
static enum pf_err settle(struct postgres_store *s, const struct pg_tx *tx, int64_t deadline_us)
{
    enum pf_err e = PFE_BUSY;
    while (clock_mono(clock_system()) < deadline_us && (e = look(s, tx, deadline_us)) == PFE_BUSY)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    return e == PFE_BUSY ? PFE_INTERNAL : e;
}

enum pf_err pg_rec_tx_commit(struct store_tx *base)
{
    struct pg_tx *tx = (struct pg_tx *)base;
    struct postgres_store *s = pg_of(base->store);
    under_way--;
    int64_t deadline = pg_commit_deadline(s);
    enum pf_err e = commit(tx, deadline);
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
