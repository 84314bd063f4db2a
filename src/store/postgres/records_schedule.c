#include "store/postgres/records.h"

#define SCHEDULE_COLUMNS                                                                                               \
    "id, uuid, owner, kind, to_user, amount, currency, description, recurrence, anchor_us, next_us, end_us, last_us,"  \
    " max_runs, runs, refusals, status, last_error, created_us, updated_us"

static bool schedule_read(struct pg_q *q, struct arena *a, struct store_schedule *ret)
{
    *ret = (struct store_schedule){
        .id = pg_col_i64(q, 0),
        .owner = pg_col_i64(q, 2),
        .kind = (enum ledger_kind)pg_col_i64(q, 3),
        .to_user = pg_col_i64(q, 4),
        .amount = pg_col_i64(q, 5),
        .currency = (money_currency)pg_col_i64(q, 6),
        .anchor_us = pg_col_i64(q, 9),
        .next_us = pg_col_i64(q, 10),
        .end_us = pg_col_i64(q, 11),
        .last_us = pg_col_i64(q, 12),
        .max_runs = pg_col_i64(q, 13),
        .runs = pg_col_i64(q, 14),
        .refusals = pg_col_i64(q, 15),
        .status = (enum sched_status)pg_col_i64(q, 16),
        .created_us = pg_col_i64(q, 18),
        .updated_us = pg_col_i64(q, 19),
    };
    pg_col_blob(q, 1, ret->uuid, sizeof ret->uuid);
    return pg_col_dup(q, 7, a, &ret->description) && pg_col_dup(q, 8, a, &ret->recurrence) &&
           pg_col_dup(q, 17, a, &ret->last_error);
}

static enum pf_err schedule_one(struct pg_q *q, struct arena *a, struct store_schedule *ret)
{
    struct store_schedule d;
    bool found = pg_q_next(q) && schedule_read(q, a, &d);
    enum pf_err e = pg_rec_one(q, found);
    if (e == PFE_OK)
        *ret = d;
    return e;
}

static enum pf_err schedule_many(struct pg_q *q, struct arena *a, struct store_schedule *out, unsigned *ret_n)
{
    unsigned n = 0;
    while (pg_q_next(q) && schedule_read(q, a, &out[n]))
        n++;
    enum pf_err e = pg_q_end(q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err pg_rec_schedule_insert(struct store_tx *tx, struct store_schedule *d)
{
    struct pg_q q;
    pg_q_begin(
        &q, pg_rec_conn(tx),
        "WITH next AS (UPDATE record_ids SET schedule = schedule + 1 RETURNING schedule AS id)"
        " INSERT INTO schedule (id, uuid, owner, kind, to_user, amount, currency, description, recurrence, anchor_us, "
        "next_us, end_us, last_us, max_runs, runs, refusals, status, last_error, created_us, updated_us)"
        " SELECT id, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19 FROM next "
        "RETURNING id");
    pg_q_blob(&q, d->uuid, sizeof d->uuid);
    pg_q_i64(&q, d->owner);
    pg_q_i64(&q, d->kind);
    pg_q_i64(&q, d->to_user);
    pg_q_i64(&q, d->amount);
    pg_q_i64(&q, d->currency);
    pg_q_str(&q, d->description);
    pg_q_str(&q, d->recurrence);
    pg_q_i64(&q, d->anchor_us);
    pg_q_i64(&q, d->next_us);
    pg_q_i64(&q, d->end_us);
    pg_q_i64(&q, d->last_us);
    pg_q_i64(&q, d->max_runs);
    pg_q_i64(&q, d->runs);
    pg_q_i64(&q, d->refusals);
    pg_q_i64(&q, d->status);
    pg_q_str(&q, d->last_error);
    pg_q_i64(&q, d->created_us);
    pg_q_i64(&q, d->updated_us);
    return pg_rec_inserted(&q, &d->id);
}

enum pf_err pg_rec_schedule_update(struct store_tx *tx, const struct store_schedule *d)
{
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx),
               "UPDATE schedule SET next_us = $2, last_us = $3, runs = $4, refusals = $5, status = $6,"
               " last_error = $7, updated_us = $8 WHERE id = $1");
    pg_q_i64(&q, d->id);
    pg_q_i64(&q, d->next_us);
    pg_q_i64(&q, d->last_us);
    pg_q_i64(&q, d->runs);
    pg_q_i64(&q, d->refusals);
    pg_q_i64(&q, d->status);
    pg_q_str(&q, d->last_error);
    pg_q_i64(&q, d->updated_us);
    return pg_rec_hit(&q, PFE_NOT_FOUND);
}

enum pf_err pg_rec_schedule_get(struct store *s, struct arena *a, int64_t id, struct store_schedule *ret)
{
    struct pg_q q;
    pg_read_begin(&q, pg_of(s), PG_FROM_ANY, "SELECT " SCHEDULE_COLUMNS " FROM schedule WHERE id = $1");
    pg_q_i64(&q, id);
    return schedule_one(&q, a, ret);
}

enum pf_err pg_rec_schedule_by_uuid(struct store *s, struct arena *a, const uint8_t uuid[16],
                                    struct store_schedule *ret)
{
    struct pg_q q;
    pg_read_begin(&q, pg_of(s), PG_FROM_ANY, "SELECT " SCHEDULE_COLUMNS " FROM schedule WHERE uuid = $1");
    pg_q_blob(&q, uuid, 16);
    return schedule_one(&q, a, ret);
}

enum pf_err pg_rec_schedule_list(struct store *s, struct arena *a, int64_t owner, int64_t before_id, int64_t offset,
                                 unsigned limit, struct store_schedule *out, unsigned *ret_n)
{
    struct pg_q q;
    if (owner)
        pg_read_begin(&q, pg_of(s), PG_FROM_ANY,
                      "SELECT " SCHEDULE_COLUMNS
                      " FROM schedule WHERE id < $1 AND owner = $4 ORDER BY id DESC LIMIT $2 OFFSET $3");
    else
        pg_read_begin(&q, pg_of(s), PG_FROM_ANY,
                      "SELECT " SCHEDULE_COLUMNS " FROM schedule WHERE id < $1 ORDER BY id DESC LIMIT $2 OFFSET $3");
    pg_q_i64(&q, pg_rec_before(before_id));
    pg_q_i64(&q, limit);
    pg_q_i64(&q, offset);
    if (owner)
        pg_q_i64(&q, owner);
    return schedule_many(&q, a, out, ret_n);
}

enum pf_err pg_rec_schedule_due(struct store *s, struct arena *a, int64_t now_us, unsigned limit,
                                struct store_schedule *out, unsigned *ret_n, int64_t *ret_next_us)
{
    struct pg_q q;
    int64_t next = 0;
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY,
                  "SELECT min(next_us) FROM schedule WHERE status <= 1 AND next_us > 0 AND next_us > $1");
    pg_q_i64(&q, now_us);
    if (pg_q_next(&q))
        next = pg_col_i64(&q, 0);
    enum pf_err e = pg_q_end(&q);
    if (e != PFE_OK)
        return e;

    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY,
                  "SELECT " SCHEDULE_COLUMNS " FROM schedule WHERE status <= 1 AND next_us > 0 AND next_us <= $1"
                  " ORDER BY next_us, id LIMIT $2");
    pg_q_i64(&q, now_us);
    pg_q_i64(&q, limit);
    e = schedule_many(&q, a, out, ret_n);
    if (e == PFE_OK)
        *ret_next_us = next;
    return e;
}

/* ---- runs ---- */

enum pf_err pg_rec_run_insert(struct store_tx *tx, const struct store_run *r)
{
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx),
               "INSERT INTO schedule_run (schedule, due_us, outcome, seq, ts, error)"
               " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (schedule, due_us) DO UPDATE SET"
               " outcome = excluded.outcome, seq = excluded.seq, ts = excluded.ts, error = excluded.error"
               " WHERE schedule_run.outcome <> 0");
    pg_q_i64(&q, r->schedule);
    pg_q_i64(&q, r->due_us);
    pg_q_i64(&q, r->outcome);
    pg_q_i64(&q, r->seq);
    pg_q_i64(&q, r->ts);
    pg_q_str(&q, r->error);
    return pg_rec_hit(&q, PFE_WRONG_STATE);
}

enum pf_err pg_rec_run_list(struct store *s, struct arena *a, int64_t schedule, unsigned limit, struct store_run *out,
                            unsigned *ret_n)
{
    struct pg_q q;
    unsigned n = 0;
    pg_read_begin(&q, pg_of(s), PG_FROM_ANY,
                  "SELECT due_us, outcome, seq, ts, error FROM schedule_run WHERE schedule = $1"
                  " ORDER BY due_us DESC LIMIT $2");
    pg_q_i64(&q, schedule);
    pg_q_i64(&q, limit);
    while (pg_q_next(&q)) {
        struct store_run *r = &out[n];
        *r = (struct store_run){
            .schedule = schedule,
            .due_us = pg_col_i64(&q, 0),
            .outcome = (enum store_run_outcome)pg_col_i64(&q, 1),
            .seq = pg_col_i64(&q, 2),
            .ts = pg_col_i64(&q, 3),
        };
        if (!pg_col_dup(&q, 4, a, &r->error))
            break;
        n++;
    }
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}
