#include "store/sqlite/records.h"

#define SCHEDULE_COLUMNS                                                                                               \
    "id, uuid, owner, kind, to_user, amount, currency, description, recurrence, anchor_us, next_us, end_us, last_us,"  \
    " max_runs, runs, refusals, status, last_error, created_us, updated_us"

static bool schedule_read(struct sqlite_q *q, struct arena *a, struct store_schedule *ret)
{
    *ret = (struct store_schedule){
        .id = sqlite_col_i64(q, 0),
        .owner = sqlite_col_i64(q, 2),
        .kind = (enum ledger_kind)sqlite_col_i64(q, 3),
        .to_user = sqlite_col_i64(q, 4),
        .amount = sqlite_col_i64(q, 5),
        .currency = (money_currency)sqlite_col_i64(q, 6),
        .anchor_us = sqlite_col_i64(q, 9),
        .next_us = sqlite_col_i64(q, 10),
        .end_us = sqlite_col_i64(q, 11),
        .last_us = sqlite_col_i64(q, 12),
        .max_runs = sqlite_col_i64(q, 13),
        .runs = sqlite_col_i64(q, 14),
        .refusals = sqlite_col_i64(q, 15),
        .status = (enum sched_status)sqlite_col_i64(q, 16),
        .created_us = sqlite_col_i64(q, 18),
        .updated_us = sqlite_col_i64(q, 19),
    };
    sqlite_col_blob(q, 1, ret->uuid, sizeof ret->uuid);
    return sqlite_col_dup(q, 7, a, &ret->description) && sqlite_col_dup(q, 8, a, &ret->recurrence) &&
           sqlite_col_dup(q, 17, a, &ret->last_error);
}

static enum pf_err schedule_one(struct sqlite_q *q, struct arena *a, struct store_schedule *ret)
{
    struct store_schedule d;
    bool found = sqlite_q_next(q) && schedule_read(q, a, &d);
    enum pf_err e = sqlite_rec_one(q, found);
    if (e == PFE_OK)
        *ret = d;
    return e;
}

static enum pf_err schedule_many(struct sqlite_q *q, struct arena *a, struct store_schedule *out, unsigned *ret_n)
{
    unsigned n = 0;
    while (sqlite_q_next(q) && schedule_read(q, a, &out[n]))
        n++;
    enum pf_err e = sqlite_q_end(q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err sqlite_rec_schedule_insert(struct store_tx *tx, struct store_schedule *d)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx),
                   "INSERT INTO schedule (uuid, owner, kind, to_user, amount, currency, description, recurrence,"
                   " anchor_us, next_us, end_us, last_us, max_runs, runs, refusals, status, last_error, created_us,"
                   " updated_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,"
                   " ?18, ?19)");
    sqlite_q_blob(&q, d->uuid, sizeof d->uuid);
    sqlite_q_i64(&q, d->owner);
    sqlite_q_i64(&q, d->kind);
    sqlite_q_i64(&q, d->to_user);
    sqlite_q_i64(&q, d->amount);
    sqlite_q_i64(&q, d->currency);
    sqlite_q_str(&q, d->description);
    sqlite_q_str(&q, d->recurrence);
    sqlite_q_i64(&q, d->anchor_us);
    sqlite_q_i64(&q, d->next_us);
    sqlite_q_i64(&q, d->end_us);
    sqlite_q_i64(&q, d->last_us);
    sqlite_q_i64(&q, d->max_runs);
    sqlite_q_i64(&q, d->runs);
    sqlite_q_i64(&q, d->refusals);
    sqlite_q_i64(&q, d->status);
    sqlite_q_str(&q, d->last_error);
    sqlite_q_i64(&q, d->created_us);
    sqlite_q_i64(&q, d->updated_us);
    return sqlite_rec_inserted(&q, &d->id);
}

enum pf_err sqlite_rec_schedule_update(struct store_tx *tx, const struct store_schedule *d)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx),
                   "UPDATE schedule SET next_us = ?2, last_us = ?3, runs = ?4, refusals = ?5, status = ?6,"
                   " last_error = ?7, updated_us = ?8 WHERE id = ?1");
    sqlite_q_i64(&q, d->id);
    sqlite_q_i64(&q, d->next_us);
    sqlite_q_i64(&q, d->last_us);
    sqlite_q_i64(&q, d->runs);
    sqlite_q_i64(&q, d->refusals);
    sqlite_q_i64(&q, d->status);
    sqlite_q_str(&q, d->last_error);
    sqlite_q_i64(&q, d->updated_us);
    return sqlite_rec_hit(&q, PFE_NOT_FOUND);
}

enum pf_err sqlite_rec_schedule_get(struct store *s, struct arena *a, int64_t id, struct store_schedule *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)), "SELECT " SCHEDULE_COLUMNS " FROM schedule WHERE id = ?1");
    sqlite_q_i64(&q, id);
    return schedule_one(&q, a, ret);
}

enum pf_err sqlite_rec_schedule_by_uuid(struct store *s, struct arena *a, const uint8_t uuid[16],
                                        struct store_schedule *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)), "SELECT " SCHEDULE_COLUMNS " FROM schedule WHERE uuid = ?1");
    sqlite_q_blob(&q, uuid, 16);
    return schedule_one(&q, a, ret);
}

enum pf_err sqlite_rec_schedule_list(struct store *s, struct arena *a, int64_t owner, int64_t before_id, int64_t offset,
                                     unsigned limit, struct store_schedule *out, unsigned *ret_n)
{
    struct sqlite_q q;
    if (owner)
        sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                       "SELECT " SCHEDULE_COLUMNS
                       " FROM schedule WHERE id < ?1 AND owner = ?4 ORDER BY id DESC LIMIT ?2 OFFSET ?3");
    else
        sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                       "SELECT " SCHEDULE_COLUMNS " FROM schedule WHERE id < ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3");
    sqlite_q_i64(&q, sqlite_rec_before(before_id));
    sqlite_q_i64(&q, limit);
    sqlite_q_i64(&q, offset);
    if (owner)
        sqlite_q_i64(&q, owner);
    return schedule_many(&q, a, out, ret_n);
}

enum pf_err sqlite_rec_schedule_due(struct store *s, struct arena *a, int64_t now_us, unsigned limit,
                                    struct store_schedule *out, unsigned *ret_n, int64_t *ret_next_us)
{
    /* Both conditions are spelt as the index schedule_due has them, or SQLite would not use it. */
    struct sqlite_conn *c = sqlite_reader(sqlite_of(s));
    struct sqlite_q q;
    int64_t next = 0;
    sqlite_q_begin(&q, c,
                   "SELECT next_us FROM schedule WHERE status <= 1 AND next_us > 0 AND next_us > ?1"
                   " ORDER BY next_us LIMIT 1");
    sqlite_q_i64(&q, now_us);
    if (sqlite_q_next(&q))
        next = sqlite_col_i64(&q, 0);
    enum pf_err e = sqlite_q_end(&q);
    if (e != PFE_OK)
        return e;

    sqlite_q_begin(&q, c,
                   "SELECT " SCHEDULE_COLUMNS " FROM schedule WHERE status <= 1 AND next_us > 0 AND next_us <= ?1"
                   " ORDER BY next_us, id LIMIT ?2");
    sqlite_q_i64(&q, now_us);
    sqlite_q_i64(&q, limit);
    e = schedule_many(&q, a, out, ret_n);
    if (e == PFE_OK)
        *ret_next_us = next;
    return e;
}

/* ---- runs ---- */

enum pf_err sqlite_rec_run_insert(struct store_tx *tx, const struct store_run *r)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx),
                   "INSERT INTO schedule_run (schedule, due_us, outcome, seq, ts, error)"
                   " VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (schedule, due_us) DO UPDATE SET"
                   " outcome = excluded.outcome, seq = excluded.seq, ts = excluded.ts, error = excluded.error"
                   " WHERE outcome <> 0");
    sqlite_q_i64(&q, r->schedule);
    sqlite_q_i64(&q, r->due_us);
    sqlite_q_i64(&q, r->outcome);
    sqlite_q_i64(&q, r->seq);
    sqlite_q_i64(&q, r->ts);
    sqlite_q_str(&q, r->error);
    return sqlite_rec_hit(&q, PFE_WRONG_STATE);
}

enum pf_err sqlite_rec_run_list(struct store *s, struct arena *a, int64_t schedule, unsigned limit,
                                struct store_run *out, unsigned *ret_n)
{
    struct sqlite_q q;
    unsigned n = 0;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT due_us, outcome, seq, ts, error FROM schedule_run WHERE schedule = ?1"
                   " ORDER BY due_us DESC LIMIT ?2");
    sqlite_q_i64(&q, schedule);
    sqlite_q_i64(&q, limit);
    while (sqlite_q_next(&q)) {
        struct store_run *r = &out[n];
        *r = (struct store_run){
            .schedule = schedule,
            .due_us = sqlite_col_i64(&q, 0),
            .outcome = (enum store_run_outcome)sqlite_col_i64(&q, 1),
            .seq = sqlite_col_i64(&q, 2),
            .ts = sqlite_col_i64(&q, 3),
        };
        if (!sqlite_col_dup(&q, 4, a, &r->error))
            break;
        n++;
    }
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}
