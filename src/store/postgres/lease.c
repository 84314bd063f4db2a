/*
 * Leases, by the server's clock. Every statement looks at one row, and clock_timestamp() is what the time is once the
 * row's lock is had. A fence locks the row for sharing until its transaction ends: who takes the lease waits for that,
 * and finds what was done under it.
 */
#include "store/postgres/journal.h"
#include "store/postgres/records.h"

/* A row to lock, changed by nobody who comes second; what may be taken is; then who has it. One transaction, and none
   of it writes when another has the lease. */
enum pf_err pg_lease_take(struct store *st, struct str name, struct str holder, int64_t ttl_us, struct store_lease *ret)
{
    struct postgres_store *s = pg_of(st);
    if (s->mode == POSTGRES_INSPECT)
        return PFE_UNAVAILABLE;
    struct pg_conn *c = pg_take(s, PG_READ);
    if (!c)
        return PFE_UNAVAILABLE;
    struct pg_q make, take, look;
    pg_q_begin(&make, c,
               "INSERT INTO lease (name, holder, token, expires) VALUES ($1, '', 0, '-infinity')"
               " ON CONFLICT (name) DO NOTHING");
    pg_q_str(&make, name);
    pg_q_send(&make);
    pg_q_begin(&take, c,
               "UPDATE lease SET token = token + (holder <> $2)::int, holder = $2,"
               " expires = clock_timestamp() + $3 * interval '1 microsecond'"
               " WHERE name = $1 AND (holder = $2 OR expires <= clock_timestamp()"
               /* the clock went back, or it is another host's */
               " OR expires > clock_timestamp() + $3 * interval '1 microsecond')");
    pg_q_str(&take, name);
    pg_q_str(&take, holder);
    pg_q_i64(&take, ttl_us);
    pg_q_send(&take);
    pg_q_begin(&look, c,
               "SELECT holder, token, CASE WHEN expires = '-infinity' THEN 0"
               " ELSE (extract(epoch FROM expires - clock_timestamp()) * 1000000)::bigint END"
               " FROM lease WHERE name = $1");
    pg_q_str(&look, name);
    pg_q_send(&look);
    enum pf_err e = pg_sync(c);
    struct store_lease got = {0};
    if (e == PFE_OK && pg_q_next(&look)) {
        str_copy(got.holder, sizeof got.holder, pg_col_str(&look, 0));
        got.token = pg_col_i64(&look, 1);
        got.left_us = pg_col_i64(&look, 2);
        got.mine = str_eq(str_c(got.holder), holder);
    } else if (e == PFE_OK) {
        e = PFE_UNAVAILABLE;
    }
    (void)!pg_q_end(&make);
    (void)!pg_q_end(&take);
    (void)!pg_q_end(&look);
    if (e == PFE_OK && c->broken)
        e = PFE_UNAVAILABLE;
    pg_give(c);
    if (e == PFE_OK)
        *ret = got;
    return e;
}

enum pf_err pg_lease_drop(struct store *st, struct str name, struct str holder)
{
    struct postgres_store *s = pg_of(st);
    if (s->mode == POSTGRES_INSPECT)
        return PFE_UNAVAILABLE;
    struct pg_conn *c = pg_take(s, PG_READ);
    struct pg_q q;
    int64_t n = 0;
    pg_q_begin(&q, c, "UPDATE lease SET holder = '', expires = '-infinity' WHERE name = $1 AND holder = $2");
    pg_q_str(&q, name);
    pg_q_str(&q, holder);
    enum pf_err e = pg_q_hits(&q, &n);
    pg_give(c);
    return e == PFE_OK && n == 0 ? PFE_NOT_FOUND : e;
}

/* ---- fences ---- */

void pg_fences_send(struct pg_q *q, struct pg_conn *c, const struct store_fence *fences, size_t n)
{
    pg_q_begin(q, c,
               "SELECT f.at FROM unnest($1::text[], $2::text[], $3::int8[]) WITH ORDINALITY f(name, holder, token, at)"
               " JOIN lease l ON l.name = f.name AND l.holder = f.holder AND l.token = f.token FOR SHARE OF l");
    pg_q_strs(q, &fences->name, sizeof *fences, n);
    pg_q_strs(q, &fences->holder, sizeof *fences, n);
    pg_q_i64s(q, &fences->token, sizeof *fences, n);
    pg_q_send(q);
}

enum pf_err pg_fences_read(struct pg_q *q, struct store_fence *fences, size_t n, bool again)
{
    size_t held = 0, were = 0;
    for (size_t i = 0; i < n; i++) {
        were += fences[i].ok;
        fences[i].ok = fences[i].ok && again;
    }
    while (pg_q_next(q)) {
        int64_t at = pg_col_i64(q, 0);
        if (at < 1 || (size_t)at > n)
            continue;
        held += fences[at - 1].ok;
        fences[at - 1].ok |= !again;
    }
    return q->err ? q->err : again && held < were ? PFE_UNAVAILABLE : PFE_OK;
}

enum pf_err pg_rec_tx_fence(struct store_tx *tx, const struct store_fence *f)
{
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx), "SELECT FROM lease WHERE name = $1 AND holder = $2 AND token = $3 FOR SHARE");
    pg_q_str(&q, f->name);
    pg_q_str(&q, f->holder);
    pg_q_i64(&q, f->token);
    bool there = pg_q_next(&q);
    enum pf_err e = pg_q_end(&q);
    return e == PFE_OK && !there ? PFE_FENCED : e;
}
