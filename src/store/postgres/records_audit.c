#include "store/postgres/records.h"

enum pf_err pg_rec_audit_append(struct store_tx *tx, struct store_audit *a)
{
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx),
               "WITH next AS (UPDATE record_ids SET audit = audit + 1 RETURNING audit AS id)"
               " INSERT INTO audit (id, ts, actor, action, entity, entity_id, outcome, address, request_id, detail)"
               " SELECT id, $1, $2, $3, $4, $5, $6, $7, $8, $9 FROM next RETURNING id");
    pg_q_i64(&q, a->ts);
    pg_q_i64(&q, a->actor);
    pg_q_str(&q, a->action);
    pg_q_str(&q, a->entity);
    pg_q_str(&q, a->entity_id);
    pg_q_str(&q, a->outcome);
    pg_q_str(&q, a->address);
    pg_q_str(&q, a->request_id);
    pg_q_str(&q, a->detail);
    return pg_rec_inserted(&q, &a->id);
}

/* Every filter is in every statement; what differs is which index leads. $4: exact action; $5: its prefix. */
#define AUDIT_SELECT                                                                                                   \
    "SELECT id, ts, actor, action, entity, entity_id, outcome, address, request_id, detail FROM audit WHERE id < $1"   \
    " AND ts >= $2 AND ts < $3 AND ($4 = '' OR action = $4) AND starts_with(action, $5)"
#define AUDIT_ORDER " ORDER BY id DESC LIMIT $8 OFFSET $9"
static const char audit_of_actor[] = AUDIT_SELECT " AND actor = $6 AND ($7 = '' OR entity = $7)" AUDIT_ORDER;
static const char audit_of_action[] =
    AUDIT_SELECT " AND action = $4 AND ($6 = -1 OR actor = $6) AND ($7 = '' OR entity = $7)" AUDIT_ORDER;
static const char audit_of_entity[] = AUDIT_SELECT " AND ($6 = -1 OR actor = $6) AND entity = $7" AUDIT_ORDER;
static const char audit_of_any[] = AUDIT_SELECT " AND ($6 = -1 OR actor = $6) AND ($7 = '' OR entity = $7)" AUDIT_ORDER;

static bool audit_read(struct pg_q *q, struct arena *a, struct store_audit *ret)
{
    *ret = (struct store_audit){
        .id = pg_col_i64(q, 0),
        .ts = pg_col_i64(q, 1),
        .actor = pg_col_i64(q, 2),
    };
    return pg_col_dup(q, 3, a, &ret->action) && pg_col_dup(q, 4, a, &ret->entity) &&
           pg_col_dup(q, 5, a, &ret->entity_id) && pg_col_dup(q, 6, a, &ret->outcome) &&
           pg_col_dup(q, 7, a, &ret->address) && pg_col_dup(q, 8, a, &ret->request_id) &&
           pg_col_dup(q, 9, a, &ret->detail);
}

enum pf_err pg_rec_audit_list(struct store *s, struct arena *a, const struct store_audit_query *query,
                              struct store_audit *out, unsigned *ret_n)
{
    struct str exact = query->action, prefix = STR("");
    if (exact.n && exact.p[exact.n - 1] == '*') {
        prefix = (struct str){exact.p, exact.n - 1};
        exact = STR("");
    }

    struct pg_q q;
    unsigned n = 0;
    pg_read_begin(&q, pg_of(s), PG_FROM_ANY,
                  query->actor != -1 ? audit_of_actor
                  : exact.n          ? audit_of_action
                  : query->entity.n  ? audit_of_entity
                                     : audit_of_any);
    pg_q_i64(&q, pg_rec_before(query->before_id));
    pg_q_i64(&q, query->from_us ? query->from_us : INT64_MIN);
    pg_q_i64(&q, query->to_us ? query->to_us : INT64_MAX);
    pg_q_str(&q, exact);
    pg_q_str(&q, prefix);
    pg_q_i64(&q, query->actor);
    pg_q_str(&q, query->entity);
    pg_q_i64(&q, query->limit);
    pg_q_i64(&q, query->offset);
    while (pg_q_next(&q) && audit_read(&q, a, &out[n]))
        n++;
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- idempotency ---- */

enum pf_err pg_rec_idem_put(struct store_tx *tx, const struct store_idem *i)
{
    struct pg_q q;
    int64_t n;
    /* waits for another's transaction that used the key and is not at its end */
    pg_q_begin(&q, pg_rec_conn(tx),
               "INSERT INTO idempotency (principal, key, request, status, seq, body) VALUES ($1, $2, $3, $4, $5, $6)"
               " ON CONFLICT DO NOTHING");
    pg_q_i64(&q, i->principal);
    pg_q_blob(&q, i->key.p, i->key.n);
    pg_q_blob(&q, i->request, sizeof i->request);
    pg_q_i64(&q, i->status);
    pg_q_i64(&q, i->seq);
    pg_q_blob(&q, i->body.p, i->body.n);
    enum pf_err e = pg_rec_hits(&q, &n);
    return e == PFE_OK && n == 0 ? PFE_IN_FLIGHT : e;
}

enum pf_err pg_rec_idem_get(struct store *s, struct arena *a, int64_t principal, struct str key, struct store_idem *ret)
{
    struct pg_q q;
    struct store_idem i = {.principal = principal};
    enum pf_err e;
    if (pg_group_idem(pg_of(s), a, principal, key, ret, &e))
        return e;
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY,
                  "SELECT request, status, body, seq, key FROM idempotency WHERE principal = $1 AND key = $2");
    pg_q_i64(&q, principal);
    pg_q_blob(&q, key.p, key.n);
    bool found = pg_q_next(&q);
    if (found) {
        pg_col_blob(&q, 0, i.request, sizeof i.request);
        i.status = (int)pg_col_i64(&q, 1);
        i.seq = pg_col_i64(&q, 3);
        found = pg_col_dup(&q, 2, a, &i.body) && pg_col_dup(&q, 4, a, &i.key);
    }
    e = pg_rec_one(&q, found);
    if (e == PFE_OK && !pg_in_write(pg_of(s))) /* it will be acknowledged once more */
        e = pg_assure(pg_of(s), pg_commit_deadline(pg_of(s)));
    if (e == PFE_OK)
        *ret = i;
    return e;
}
