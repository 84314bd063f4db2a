/* The records of the postgres engine: what its files share, and the operations for the table of ops. */
#ifndef STORE_POSTGRES_RECORDS_H
#define STORE_POSTGRES_RECORDS_H

#include "store/postgres/internal.h"

struct documents *pg_documents(struct store *s);

struct pg_tx {
    struct store_tx base;
    struct pg_conn *c;   /* the pool's */
    uint8_t receipt[16]; /* written by its commit: to find out what became of it */
};

/* The connection that tx writes through. */
static inline struct pg_conn *pg_rec_conn(struct store_tx *tx)
{
    return ((struct pg_tx *)tx)->c;
}

/* Ends a query that reads one row. */
static inline enum pf_err pg_rec_one(struct pg_q *q, bool found)
{
    enum pf_err e = pg_q_end(q);
    return e == PFE_OK && !found ? PFE_NOT_FOUND : e;
}

/* Runs a write. Want of room shows in store_info, as it does for groups. */
enum pf_err pg_rec_run(struct pg_q *q);
/* The same. *ret: rows that it hit. */
enum pf_err pg_rec_hits(struct pg_q *q, int64_t *ret);
/* Runs a write that must hit a row, or else gives `none`. */
enum pf_err pg_rec_hit(struct pg_q *q, enum pf_err none);
/* Runs an INSERT … RETURNING id. *ret_id is left alone when nothing was inserted. */
enum pf_err pg_rec_inserted(struct pg_q *q, int64_t *ret_id);

static inline int64_t pg_rec_before(int64_t before_id)
{
    return before_id ? before_id : INT64_MAX;
}

enum pf_err pg_rec_tx_begin(struct store *s, struct store_tx **ret);
enum pf_err pg_rec_tx_commit(struct store_tx *tx);
void pg_rec_tx_rollback(struct store_tx *tx);
enum pf_err pg_rec_tx_fence(struct store_tx *tx, const struct store_fence *f);
enum pf_err pg_rec_user_insert(struct store_tx *tx, struct store_user *u);
enum pf_err pg_rec_user_update(struct store_tx *tx, const struct store_user *u);
enum pf_err pg_rec_apikey_insert(struct store_tx *tx, struct store_apikey *k);
enum pf_err pg_rec_apikey_revoke(struct store_tx *tx, int64_t user, int64_t id, int64_t now_us, int64_t *ret_n);
enum pf_err pg_rec_apikey_touch(struct store_tx *tx, int64_t id, int64_t now_us);
enum pf_err pg_rec_session_insert(struct store_tx *tx, const struct store_session *f);
enum pf_err pg_rec_session_revoke(struct store_tx *tx, int64_t user, const uint8_t family[16], int64_t now_us);
enum pf_err pg_rec_refresh_insert(struct store_tx *tx, const struct store_refresh *r);
enum pf_err pg_rec_refresh_use(struct store_tx *tx, const uint8_t hash[32], int64_t now_us);
enum pf_err pg_rec_schedule_insert(struct store_tx *tx, struct store_schedule *d);
enum pf_err pg_rec_schedule_update(struct store_tx *tx, const struct store_schedule *d);
enum pf_err pg_rec_run_insert(struct store_tx *tx, const struct store_run *r);
enum pf_err pg_rec_audit_append(struct store_tx *tx, struct store_audit *a);
enum pf_err pg_rec_idem_put(struct store_tx *tx, const struct store_idem *i);
enum pf_err pg_rec_user_get(struct store *s, int64_t id, struct store_user *ret);
enum pf_err pg_rec_user_by_uuid(struct store *s, const uint8_t uuid[16], struct store_user *ret);
enum pf_err pg_rec_user_by_name(struct store *s, struct str username, struct store_user *ret);
enum pf_err pg_rec_user_by_email(struct store *s, struct str email, struct store_user *ret);
enum pf_err pg_rec_user_list(struct store *s, int64_t before_id, int64_t offset, unsigned limit, struct store_user *out,
                             unsigned *ret_n);
enum pf_err pg_rec_admin_count(struct store *s, int64_t *ret);
enum pf_err pg_rec_users_closing(struct store *s, int64_t before_us, unsigned limit, int64_t *out, unsigned *ret_n);
enum pf_err pg_rec_apikey_by_hash(struct store *s, const uint8_t hash[32], struct store_apikey *ret);
enum pf_err pg_rec_apikey_list(struct store *s, int64_t user, int64_t before_id, unsigned limit,
                               struct store_apikey *out, unsigned *ret_n);
enum pf_err pg_rec_session_get(struct store *s, const uint8_t family[16], struct store_session *ret);
enum pf_err pg_rec_refresh_get(struct store *s, const uint8_t hash[32], struct store_refresh *ret);
enum pf_err pg_rec_schedule_get(struct store *s, struct arena *a, int64_t id, struct store_schedule *ret);
enum pf_err pg_rec_schedule_by_uuid(struct store *s, struct arena *a, const uint8_t uuid[16],
                                    struct store_schedule *ret);
enum pf_err pg_rec_schedule_list(struct store *s, struct arena *a, int64_t owner, int64_t before_id, int64_t offset,
                                 unsigned limit, struct store_schedule *out, unsigned *ret_n);
enum pf_err pg_rec_schedule_due(struct store *s, struct arena *a, int64_t now_us, unsigned limit,
                                struct store_schedule *out, unsigned *ret_n, int64_t *ret_next_us);
enum pf_err pg_rec_run_list(struct store *s, struct arena *a, int64_t schedule, unsigned limit, struct store_run *out,
                            unsigned *ret_n);
enum pf_err pg_rec_audit_list(struct store *s, struct arena *a, const struct store_audit_query *q,
                              struct store_audit *out, unsigned *ret_n);
enum pf_err pg_rec_idem_get(struct store *s, struct arena *a, int64_t principal, struct str key,
                            struct store_idem *ret);

#endif
