#include "store/memory/records.h"

static const struct store_schedule *schedule_at(const struct rec_rows *rows, size_t i)
{
    return rows->v[i];
}

static const struct store_schedule *find_schedule(const struct rec_rows *rows, const uint8_t uuid[16])
{
    for (size_t i = 0; i < rows->n; i++) {
        if (memcmp(schedule_at(rows, i)->uuid, uuid, 16) == 0)
            return schedule_at(rows, i);
    }
    return NULL;
}

enum pf_err memory_rec_schedule_insert(struct store_tx *tx, struct store_schedule *d)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_SCHEDULE);
    if (!rows)
        return PFE_NOMEM;
    if (find_schedule(rows, d->uuid))
        return PFE_WRONG_STATE;
    struct store_schedule fresh = *d;
    fresh.id = (int64_t)rows->n + 1;
    enum pf_err e = memory_rec_add(tx, REC_SCHEDULE, &fresh);
    if (e == PFE_OK)
        d->id = fresh.id;
    return e;
}

enum pf_err memory_rec_schedule_update(struct store_tx *tx, const struct store_schedule *d)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_SCHEDULE);
    if (!rows)
        return PFE_NOMEM;
    const struct store_schedule *old = memory_rec_by_id(rows, d->id);
    if (!old)
        return PFE_NOT_FOUND;
    struct store_schedule next = *old;
    next.next_us = d->next_us;
    next.last_us = d->last_us;
    next.runs = d->runs;
    next.refusals = d->refusals;
    next.status = d->status;
    next.last_error = d->last_error;
    next.updated_us = d->updated_us;
    return memory_rec_replace(tx, REC_SCHEDULE, (size_t)d->id - 1, &next);
}

static enum pf_err schedule_give(struct store *s, struct arena *a, const struct store_schedule *d,
                                 struct store_schedule *ret)
{
    enum pf_err e = d ? memory_rec_copy(REC_SCHEDULE, d, a, ret) : PFE_NOT_FOUND;
    memory_rec_read_end(s);
    return e;
}

enum pf_err memory_rec_schedule_get(struct store *s, struct arena *a, int64_t id, struct store_schedule *ret)
{
    return schedule_give(s, a, memory_rec_by_id(memory_rec_read(s, REC_SCHEDULE), id), ret);
}

enum pf_err memory_rec_schedule_by_uuid(struct store *s, struct arena *a, const uint8_t uuid[16],
                                        struct store_schedule *ret)
{
    return schedule_give(s, a, find_schedule(memory_rec_read(s, REC_SCHEDULE), uuid), ret);
}

enum pf_err memory_rec_schedule_list(struct store *s, struct arena *a, int64_t owner, int64_t before_id, int64_t offset,
                                     unsigned limit, struct store_schedule *out, unsigned *ret_n)
{
    const struct rec_rows *rows = memory_rec_read(s, REC_SCHEDULE);
    enum pf_err e = PFE_OK;
    unsigned n = 0;
    for (size_t i = memory_rec_before(rows, before_id); i-- > 0 && n < limit && e == PFE_OK;) {
        if (owner && schedule_at(rows, i)->owner != owner)
            continue;
        if (offset > 0)
            offset--;
        else
            e = memory_rec_copy(REC_SCHEDULE, schedule_at(rows, i), a, &out[n++]);
    }
    memory_rec_read_end(s);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

static bool is_waiting(const struct store_schedule *d)
{
    return (d->status == SCHED_PENDING || d->status == SCHED_ACTIVE) && d->next_us > 0;
}

/* The first waiting schedule after `last` in the order (next_us, id); NULL: none. last NULL: the very first. */
static const struct store_schedule *next_waiting(const struct rec_rows *rows, const struct store_schedule *last)
{
    const struct store_schedule *best = NULL;
    for (size_t i = 0; i < rows->n; i++) {
        const struct store_schedule *d = schedule_at(rows, i);
        bool later = !last || d->next_us > last->next_us || (d->next_us == last->next_us && d->id > last->id);
        if (is_waiting(d) && later && (!best || d->next_us < best->next_us))
            best = d;
    }
    return best;
}

enum pf_err memory_rec_schedule_due(struct store *s, struct arena *a, int64_t now_us, unsigned limit,
                                    struct store_schedule *out, unsigned *ret_n, int64_t *ret_next_us)
{
    const struct rec_rows *rows = memory_rec_read(s, REC_SCHEDULE);
    enum pf_err e = PFE_OK;
    unsigned n = 0;
    const struct store_schedule *d = next_waiting(rows, NULL);
    while (d && d->next_us <= now_us && e == PFE_OK) {
        if (n < limit)
            e = memory_rec_copy(REC_SCHEDULE, d, a, &out[n++]);
        d = next_waiting(rows, d);
    }
    int64_t next = d ? d->next_us : 0;
    memory_rec_read_end(s);
    if (e == PFE_OK) {
        *ret_n = n;
        *ret_next_us = next;
    }
    return e;
}

/* ---- runs ---- */

enum pf_err memory_rec_run_insert(struct store_tx *tx, const struct store_run *r)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_RUN);
    if (!rows)
        return PFE_NOMEM;
    for (size_t i = 0; i < rows->n; i++) {
        const struct store_run *old = rows->v[i];
        if (old->schedule == r->schedule && old->due_us == r->due_us)
            return old->outcome == STORE_RUN_DONE ? PFE_WRONG_STATE : memory_rec_replace(tx, REC_RUN, i, r);
    }
    return memory_rec_add(tx, REC_RUN, r);
}

/* The run of the schedule with the latest due_us before `before`, or at any time. */
static const struct store_run *latest_run(const struct rec_rows *rows, int64_t schedule, const struct store_run *before)
{
    const struct store_run *best = NULL;
    for (size_t i = 0; i < rows->n; i++) {
        const struct store_run *r = rows->v[i];
        if (r->schedule == schedule && (!before || r->due_us < before->due_us) && (!best || r->due_us > best->due_us))
            best = r;
    }
    return best;
}

enum pf_err memory_rec_run_list(struct store *s, struct arena *a, int64_t schedule, unsigned limit,
                                struct store_run *out, unsigned *ret_n)
{
    const struct rec_rows *rows = memory_rec_read(s, REC_RUN);
    enum pf_err e = PFE_OK;
    unsigned n = 0;
    const struct store_run *r = latest_run(rows, schedule, NULL);
    for (; r && n < limit && e == PFE_OK; r = latest_run(rows, schedule, r))
        e = memory_rec_copy(REC_RUN, r, a, &out[n++]);
    memory_rec_read_end(s);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}
