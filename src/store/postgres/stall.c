/* Commits that synchronous replicas have to confirm, while these are not there. */
#include "base/clock.h"
#include "store/postgres/internal.h"

enum { STALL_PART = 3 }; /* a commit that waits for a third of its time is not just slow */

bool pg_stalled(const struct postgres_store *s)
{
    return atomic_load(&s->stalled);
}

int64_t pg_commit_deadline(const struct postgres_store *s)
{
    return clock_mono(clock_system()) + (int64_t)s->commit_ms * 1000;
}

bool pg_stall_look(struct pg_conn *c)
{
    struct pg_q q;
    bool stalled = false;
    pg_q_begin(&q, c,
               "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname ="
               " current_database() AND state_change < clock_timestamp() - $1 * interval '1 ms')");
    pg_q_i64(&q, c->store->commit_ms / STALL_PART);
    if (pg_q_next(&q))
        stalled = pg_col_bool(&q, 0);
    if (pg_q_end(&q) != PFE_OK)
        return false;
    atomic_store(&c->store->stalled, stalled);
    return true;
}

enum pf_err pg_assure(struct postgres_store *s, int64_t deadline_us)
{
    struct pg_q begin, mark;
    struct pg_conn *c = pg_stalled(s) ? NULL : pg_take(s, PG_READ);
    if (!c)
        return PFE_UNAVAILABLE;
    pg_q_begin(&begin, c, pg_begin);
    pg_q_send(&begin);
    /* what has no effect but to be in the log: without it COMMIT would have nothing to wait for */
    pg_q_begin(&mark, c, "SELECT pg_logical_emit_message(true, 'payflow', '')::text");
    pg_q_send(&mark);
    enum pf_err e = pg_sync(c);
    (void)!pg_q_end(&begin);
    (void)!pg_q_end(&mark);
    if (e == PFE_OK)
        e = pg_commit_by(c, deadline_us);
    else
        e = PFE_UNAVAILABLE;
    pg_abandon(c);
    pg_give(c);
    return e;
}
