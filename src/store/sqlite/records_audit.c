#include "store/sqlite/records.h"

enum pf_err sqlite_rec_audit_append(struct store_tx *tx, struct store_audit *a)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx),
                   "INSERT INTO audit (ts, actor, action, entity, entity_id, outcome, address, request_id, detail)"
                   " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
    sqlite_q_i64(&q, a->ts);
    sqlite_q_i64(&q, a->actor);
    sqlite_q_str(&q, a->action);
    sqlite_q_str(&q, a->entity);
    sqlite_q_str(&q, a->entity_id);
    sqlite_q_str(&q, a->outcome);
    sqlite_q_str(&q, a->address);
    sqlite_q_str(&q, a->request_id);
    sqlite_q_str(&q, a->detail);
    return sqlite_rec_inserted(&q, &a->id);
}

/* Every filter is in every statement; what differs is which index leads. ?4: exact action; ?5: its prefix. */
#define AUDIT_SELECT                                                                                                   \
    "SELECT id, ts, actor, action, entity, entity_id, outcome, address, request_id, detail FROM audit WHERE id < ?1"   \
    " AND ts >= ?2 AND ts < ?3 AND (?4 = '' OR action = ?4) AND substr(action, 1, length(?5)) = ?5"
#define AUDIT_ORDER " ORDER BY id DESC LIMIT ?8 OFFSET ?9"
static const char audit_of_actor[] = AUDIT_SELECT " AND actor = ?6 AND (?7 = '' OR entity = ?7)" AUDIT_ORDER;
static const char audit_of_action[] =
    AUDIT_SELECT " AND action = ?4 AND (?6 = -1 OR actor = ?6) AND (?7 = '' OR entity = ?7)" AUDIT_ORDER;
static const char audit_of_entity[] = AUDIT_SELECT " AND (?6 = -1 OR actor = ?6) AND entity = ?7" AUDIT_ORDER;
static const char audit_of_any[] = AUDIT_SELECT " AND (?6 = -1 OR actor = ?6) AND (?7 = '' OR entity = ?7)" AUDIT_ORDER;

static bool audit_read(struct sqlite_q *q, struct arena *a, struct store_audit *ret)
{
    *ret = (struct store_audit){
        .id = sqlite_col_i64(q, 0),
        .ts = sqlite_col_i64(q, 1),
        .actor = sqlite_col_i64(q, 2),
    };
    return sqlite_col_dup(q, 3, a, &ret->action) && sqlite_col_dup(q, 4, a, &ret->entity) &&
           sqlite_col_dup(q, 5, a, &ret->entity_id) && sqlite_col_dup(q, 6, a, &ret->outcome) &&
           sqlite_col_dup(q, 7, a, &ret->address) && sqlite_col_dup(q, 8, a, &ret->request_id) &&
           sqlite_col_dup(q, 9, a, &ret->detail);
}

enum pf_err sqlite_rec_audit_list(struct store *s, struct arena *a, const struct store_audit_query *query,
                                  struct store_audit *out, unsigned *ret_n)
{
    struct str exact = query->action, prefix = STR("");
    if (exact.n && exact.p[exact.n - 1] == '*') {
        prefix = (struct str){exact.p, exact.n - 1};
        exact = STR("");
    }

    struct sqlite_q q;
    unsigned n = 0;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   query->actor != -1 ? audit_of_actor
                   : exact.n          ? audit_of_action
                   : query->entity.n  ? audit_of_entity
                                      : audit_of_any);
    sqlite_q_i64(&q, sqlite_rec_before(query->before_id));
    sqlite_q_i64(&q, query->from_us ? query->from_us : INT64_MIN);
    sqlite_q_i64(&q, query->to_us ? query->to_us : INT64_MAX);
    sqlite_q_str(&q, exact);
    sqlite_q_str(&q, prefix);
    sqlite_q_i64(&q, query->actor);
    sqlite_q_str(&q, query->entity);
    sqlite_q_i64(&q, query->limit);
    sqlite_q_i64(&q, query->offset);
    while (sqlite_q_next(&q) && audit_read(&q, a, &out[n]))
        n++;
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- idempotency ---- */

enum pf_err sqlite_rec_idem_put(struct store_tx *tx, const struct store_idem *i)
{
    struct sqlite_conn *w = sqlite_rec_conn(tx);
    if (!w)
        return PFE_UNAVAILABLE;
    enum pf_err e = sqlite_idem_insert(w->store, i);
    if (e == PFE_DISK_FULL)
        atomic_store(&w->store->full, true);
    return e;
}

enum pf_err sqlite_rec_idem_get(struct store *s, struct arena *a, int64_t principal, struct str key,
                                struct store_idem *ret)
{
    struct sqlite_q q;
    struct store_idem i = {.principal = principal};
    struct sqlite_conn *c = sqlite_reader(sqlite_of(s));
    int64_t id;
    enum pf_err e = sqlite_idem_find(sqlite_of(s), c, principal, key, &id);
    if (e)
        return e;
    sqlite_q_begin(&q, c, "SELECT request, status, body, seq, key FROM idempotency WHERE id = ?1");
    sqlite_q_i64(&q, id);
    bool found = sqlite_q_next(&q);
    if (found) {
        sqlite_col_blob(&q, 0, i.request, sizeof i.request);
        i.status = (int)sqlite_col_i64(&q, 1);
        i.seq = sqlite_col_i64(&q, 3);
        found = sqlite_col_dup(&q, 2, a, &i.body) && sqlite_col_dup(&q, 4, a, &i.key);
    }
    e = sqlite_rec_one(&q, found);
    if (e == PFE_OK)
        *ret = i;
    return e;
}
