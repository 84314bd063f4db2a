/* What became of a group whose COMMIT had no answer; and of writers that went silent. */
#include <time.h>

#include "base/clock.h"
#include "store/postgres/journal.h"

void pg_head_free(struct pg_conn *c)
{
    struct pg_q q;
    /* A writer stopped while it was sending: the server waits for the rest, and for that it knows no timeout. */
    pg_q_begin(&q, c,
               "SELECT pg_terminate_backend(l.pid) FROM ledger_head h JOIN pg_locks l ON l.transactionid = h.xmax"
               " JOIN pg_stat_activity a ON a.pid = l.pid"
               " WHERE l.locktype = 'transactionid' AND l.granted AND l.mode = 'ExclusiveLock'"
               " AND a.wait_event = 'ClientRead' AND a.state_change < clock_timestamp() - $1 * interval '1 ms'");
    pg_q_i64(&q, c->store->timeout_ms / 10 * 6);
    (void)!pg_q_run(&q); /* in vain: the lock is waited for again */
}

/* Under the lock nobody who could still commit the group is left: who was at it when the connection broke held it. What
   is found there is acknowledged only after the look itself was committed (stall.c): it has locked a row, so its COMMIT
   is in the log. */
static enum pf_err look(struct pg_conn *c, const struct pg_witness *w, int64_t deadline_us, bool *ret_there)
{
    struct pg_q begin, lock, find;
    bool there = false;
    pg_q_begin(&begin, c, pg_begin);
    pg_q_send(&begin);
    pg_q_begin(&lock, c, "SELECT FROM ledger_head FOR UPDATE");
    pg_q_send(&lock);
    if (w->last_seq) {
        pg_q_begin(&find, c, "SELECT FROM seal WHERE last_seq = $1 AND hash = $2");
        pg_q_i64(&find, w->last_seq);
        pg_q_blob(&find, w->seal, sizeof w->seal);
    } else {
        pg_q_begin(&find, c, "SELECT FROM receipt WHERE id = $1");
        pg_q_blob(&find, w->receipt, sizeof w->receipt);
    }
    pg_q_send(&find);
    c->yields = true;
    enum pf_err e = pg_sync(c);
    c->yields = false;
    there = pg_q_next(&find);
    (void)!pg_q_end(&begin);
    (void)!pg_q_end(&lock);
    (void)!pg_q_end(&find);
    if (e == PFE_OK && there)
        e = pg_commit_by(c, deadline_us);
    pg_abandon(c);
    if (e == PFE_BUSY)
        pg_head_free(c);
    if (e == PFE_OK)
        *ret_there = there;
    return e;
}

enum pf_err pg_settle(struct postgres_store *s, const struct pg_witness *w, int64_t deadline_us)
{
    enum { PAUSE_US = 20000 };
    while (clock_mono(clock_system()) < deadline_us) {
        struct pg_conn *c = pg_stalled(s) || pg_primary_down(s) ? NULL : pg_writer(s);
        bool there;
        if (c) {
            unsigned usual = c->timeout_ms;
            int64_t left = (deadline_us - clock_mono(clock_system())) / 1000;
            c->timeout_ms = left < 1 ? 1 : left < usual ? (unsigned)left : usual;
            enum pf_err e = look(c, w, deadline_us, &there);
            c->timeout_ms = usual;
            if (e == PFE_OK)
                return there ? PFE_OK : PFE_UNAVAILABLE;
        }
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_US * 1000}, NULL);
    }
    return PFE_INTERNAL;
}
