#include "store/memory/records.h"

enum pf_err memory_rec_audit_append(struct store_tx *tx, struct store_audit *a)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_AUDIT);
    if (!rows)
        return PFE_NOMEM;
    struct store_audit fresh = *a;
    fresh.id = (int64_t)rows->n + 1;
    enum pf_err e = memory_rec_add(tx, REC_AUDIT, &fresh);
    if (e == PFE_OK)
        a->id = fresh.id;
    return e;
}

static bool action_matches(struct str pattern, struct str action)
{
    if (pattern.n == 0)
        return true;
    if (pattern.p[pattern.n - 1] == '*')
        return str_starts(action, (struct str){pattern.p, pattern.n - 1});
    return str_eq(pattern, action);
}

static bool audit_matches(const struct store_audit_query *q, const struct store_audit *a)
{
    return (q->actor == -1 || a->actor == q->actor) && action_matches(q->action, a->action) &&
           (q->entity.n == 0 || str_eq(q->entity, a->entity)) && (q->from_us == 0 || a->ts >= q->from_us) &&
           (q->to_us == 0 || a->ts < q->to_us);
}

enum pf_err memory_rec_audit_list(struct store *s, struct arena *a, const struct store_audit_query *q,
                                  struct store_audit *out, unsigned *ret_n)
{
    const struct rec_rows *rows = memory_rec_read(s, REC_AUDIT);
    enum pf_err e = PFE_OK;
    int64_t skip = q->offset;
    unsigned n = 0;
    for (size_t i = memory_rec_before(rows, q->before_id); i-- > 0 && n < q->limit && e == PFE_OK;) {
        if (!audit_matches(q, rows->v[i]))
            continue;
        if (skip > 0)
            skip--;
        else
            e = memory_rec_copy(REC_AUDIT, rows->v[i], a, &out[n++]);
    }
    memory_rec_read_end(s);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- idempotency ---- */

enum pf_err memory_rec_idem_put(struct store_tx *tx, const struct store_idem *i)
{
    struct memory_store *m = memory_of(tx->store);
    const struct rec_rows *rows = memory_rec_open(tx, REC_IDEM);
    if (!rows)
        return PFE_NOMEM;
    for (size_t k = 0; k < rows->n; k++) {
        const struct store_idem *mine = rows->v[k];
        if (mine->principal == i->principal && str_eq(mine->key, i->key))
            return PFE_IN_FLIGHT;
    }
    pthread_rwlock_rdlock(&m->lock);
    bool taken = memory_idem_find(m, i->principal, i->key) != NULL;
    pthread_rwlock_unlock(&m->lock);
    return taken ? PFE_IN_FLIGHT : memory_rec_add(tx, REC_IDEM, i);
}

enum pf_err memory_rec_idem_get(struct store *s, struct arena *a, int64_t principal, struct str key,
                                struct store_idem *ret)
{
    struct memory_store *m = memory_of(s);
    pthread_rwlock_rdlock(&m->lock);
    const struct store_idem *i = memory_idem_find(m, principal, key);
    enum pf_err e = i ? memory_rec_copy(REC_IDEM, i, a, ret) : PFE_NOT_FOUND;
    pthread_rwlock_unlock(&m->lock);
    return e;
}
