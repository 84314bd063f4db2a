#include "port/store.h"

enum pf_err store_info(struct store *s, struct store_info *ret)
{
    return s->ops->info(s, ret);
}

bool store_cluster(struct store *s, struct store_cluster *ret)
{
    return s->ops->cluster && s->ops->cluster(s, ret);
}

bool store_shared(const struct store *s)
{
    return s->ops->shared;
}

enum pf_err store_word_say(struct store *s, const char *process, const char *word, struct store_words *ret)
{
    if (s->ops->word_say)
        return s->ops->word_say(s, process, word, ret);
    *ret = (struct store_words){0};
    return PFE_OK;
}

void store_word_end(struct store *s, const char *process)
{
    if (s->ops->word_end)
        s->ops->word_end(s, process);
}

int64_t store_stale(struct store *s, enum store_stale step)
{
    return s->ops->stale ? s->ops->stale(s, step) : 0;
}

struct documents *store_documents(struct store *s)
{
    return s->ops->documents ? s->ops->documents(s) : NULL;
}

enum pf_err store_lease_take(struct store *s, struct str name, struct str holder, int64_t ttl_us,
                             struct store_lease *ret)
{
    return s->ops->lease_take(s, name, holder, ttl_us, ret);
}

enum pf_err store_lease_drop(struct store *s, struct str name, struct str holder)
{
    return s->ops->lease_drop(s, name, holder);
}

enum pf_err store_tx_fence(struct store_tx *tx, const struct store_fence *f)
{
    return tx->store->ops->tx_fence(tx, f);
}

enum pf_err store_group_begin(struct store *s, const struct store_group_ask *ask, struct store_group *g)
{
    return s->ops->group_begin(s, ask, g);
}

enum pf_err store_group_commit(struct store *s, const struct store_commit *c)
{
    return s->ops->group_commit(s, c);
}

void store_group_abort(struct store *s)
{
    s->ops->group_abort(s);
}

enum pf_err store_flush(struct store *s)
{
    return s->ops->flush(s);
}

enum pf_err store_account_rebuild(struct store *s, int64_t account, struct store_replay *ret)
{
    return s->ops->account_rebuild(s, account, ret);
}

enum pf_err store_tx_begin(struct store *s, struct store_tx **ret)
{
    return s->ops->tx_begin(s, ret);
}

enum pf_err store_tx_commit(struct store_tx *tx)
{
    return tx->store->ops->tx_commit(tx);
}

enum pf_err store_user_insert(struct store_tx *tx, struct store_user *u)
{
    return tx->store->ops->user_insert(tx, u);
}

enum pf_err store_user_update(struct store_tx *tx, const struct store_user *u)
{
    return tx->store->ops->user_update(tx, u);
}

enum pf_err store_apikey_insert(struct store_tx *tx, struct store_apikey *k)
{
    return tx->store->ops->apikey_insert(tx, k);
}

enum pf_err store_apikey_revoke(struct store_tx *tx, int64_t user, int64_t id, int64_t now_us, int64_t *ret_n)
{
    return tx->store->ops->apikey_revoke(tx, user, id, now_us, ret_n);
}

enum pf_err store_apikey_touch(struct store_tx *tx, int64_t id, int64_t now_us)
{
    return tx->store->ops->apikey_touch(tx, id, now_us);
}

enum pf_err store_session_insert(struct store_tx *tx, const struct store_session *f)
{
    return tx->store->ops->session_insert(tx, f);
}

enum pf_err store_session_revoke(struct store_tx *tx, int64_t user, const uint8_t family[16], int64_t now_us)
{
    return tx->store->ops->session_revoke(tx, user, family, now_us);
}

enum pf_err store_refresh_insert(struct store_tx *tx, const struct store_refresh *r)
{
    return tx->store->ops->refresh_insert(tx, r);
}

enum pf_err store_refresh_use(struct store_tx *tx, const uint8_t hash[32], int64_t now_us)
{
    return tx->store->ops->refresh_use(tx, hash, now_us);
}

enum pf_err store_schedule_insert(struct store_tx *tx, struct store_schedule *d)
{
    return tx->store->ops->schedule_insert(tx, d);
}

enum pf_err store_schedule_update(struct store_tx *tx, const struct store_schedule *d)
{
    return tx->store->ops->schedule_update(tx, d);
}

enum pf_err store_run_insert(struct store_tx *tx, const struct store_run *r)
{
    return tx->store->ops->run_insert(tx, r);
}

enum pf_err store_audit_append(struct store_tx *tx, struct store_audit *a)
{
    return tx->store->ops->audit_append(tx, a);
}

enum pf_err store_idem_put(struct store_tx *tx, const struct store_idem *i)
{
    return tx->store->ops->idem_put(tx, i);
}

enum pf_err store_user_get(struct store *s, int64_t id, struct store_user *ret)
{
    return s->ops->user_get(s, id, ret);
}

enum pf_err store_user_by_uuid(struct store *s, const uint8_t uuid[16], struct store_user *ret)
{
    return s->ops->user_by_uuid(s, uuid, ret);
}

enum pf_err store_user_by_name(struct store *s, struct str username, struct store_user *ret)
{
    return s->ops->user_by_name(s, username, ret);
}

bool store_user_name_free(struct store *s, struct str username)
{
    return s->ops->user_name_free && s->ops->user_name_free(s, username);
}

enum pf_err store_user_by_email(struct store *s, struct str email, struct store_user *ret)
{
    return s->ops->user_by_email(s, email, ret);
}

enum pf_err store_user_list(struct store *s, int64_t before_id, int64_t offset, unsigned limit, struct store_user *out,
                            unsigned *ret_n)
{
    return s->ops->user_list(s, before_id, offset, limit, out, ret_n);
}

enum pf_err store_admin_count(struct store *s, int64_t *ret)
{
    return s->ops->admin_count(s, ret);
}

enum pf_err store_users_closing(struct store *s, int64_t before_us, unsigned limit, int64_t *out, unsigned *ret_n)
{
    return s->ops->users_closing(s, before_us, limit, out, ret_n);
}

enum pf_err store_apikey_by_hash(struct store *s, const uint8_t hash[32], struct store_apikey *ret)
{
    return s->ops->apikey_by_hash(s, hash, ret);
}

enum pf_err store_apikey_list(struct store *s, int64_t user, int64_t before_id, unsigned limit,
                              struct store_apikey *out, unsigned *ret_n)
{
    return s->ops->apikey_list(s, user, before_id, limit, out, ret_n);
}

enum pf_err store_session_get(struct store *s, const uint8_t family[16], struct store_session *ret)
{
    return s->ops->session_get(s, family, ret);
}

enum pf_err store_refresh_get(struct store *s, const uint8_t hash[32], struct store_refresh *ret)
{
    return s->ops->refresh_get(s, hash, ret);
}

enum pf_err store_schedule_get(struct store *s, struct arena *a, int64_t id, struct store_schedule *ret)
{
    return s->ops->schedule_get(s, a, id, ret);
}

enum pf_err store_schedule_by_uuid(struct store *s, struct arena *a, const uint8_t uuid[16], struct store_schedule *ret)
{
    return s->ops->schedule_by_uuid(s, a, uuid, ret);
}

enum pf_err store_schedule_list(struct store *s, struct arena *a, int64_t owner, int64_t before_id, int64_t offset,
                                unsigned limit, struct store_schedule *out, unsigned *ret_n)
{
    return s->ops->schedule_list(s, a, owner, before_id, offset, limit, out, ret_n);
}

enum pf_err store_schedule_due(struct store *s, struct arena *a, int64_t now_us, unsigned limit,
                               struct store_schedule *out, unsigned *ret_n, int64_t *ret_next_us)
{
    return s->ops->schedule_due(s, a, now_us, limit, out, ret_n, ret_next_us);
}

enum pf_err store_run_list(struct store *s, struct arena *a, int64_t schedule, unsigned limit, struct store_run *out,
                           unsigned *ret_n)
{
    return s->ops->run_list(s, a, schedule, limit, out, ret_n);
}

enum pf_err store_audit_list(struct store *s, struct arena *a, const struct store_audit_query *q,
                             struct store_audit *out, unsigned *ret_n)
{
    return s->ops->audit_list(s, a, q, out, ret_n);
}

enum pf_err store_idem_get(struct store *s, struct arena *a, int64_t principal, struct str key, struct store_idem *ret)
{
    return s->ops->idem_get(s, a, principal, key, ret);
}

enum pf_err store_account_get(struct store *s, int64_t owner, money_currency currency, struct ledger_account *ret)
{
    return s->ops->account_get(s, owner, currency, ret);
}

enum pf_err store_account_by_id(struct store *s, int64_t id, struct ledger_account *ret)
{
    return s->ops->account_by_id(s, id, ret);
}

enum pf_err store_account_list(struct store *s, int64_t owner, struct ledger_account *out, unsigned cap,
                               unsigned *ret_n)
{
    return s->ops->account_list(s, owner, out, cap, ret_n);
}

enum pf_err store_entry_get(struct store *s, struct arena *a, int64_t seq, struct ledger_entry *ret,
                            int64_t *ret_resolved_by)
{
    return s->ops->entry_get(s, a, seq, ret, ret_resolved_by);
}

enum pf_err store_entry_list(struct store *s, const struct store_entry_query *q, store_entry_fn fn, void *ctx,
                             int64_t *ret_cursor)
{
    return s->ops->entry_list(s, q, fn, ctx, ret_cursor);
}

enum pf_err store_journal_scan(struct store *s, int64_t after_seq, int64_t limit, store_entry_fn fn, void *ctx)
{
    return s->ops->journal_scan(s, after_seq, limit, fn, ctx);
}

enum pf_err store_balance_at(struct store *s, int64_t account, int64_t at_us, int64_t *ret_balance)
{
    return s->ops->balance_at(s, account, at_us, ret_balance);
}

enum pf_err store_holds_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_seq, unsigned *ret_n)
{
    return s->ops->holds_due(s, now_us, limit, out_seq, ret_n);
}

enum pf_err store_replay(struct store *s, int64_t account, struct store_replay *ret)
{
    return s->ops->replay(s, account, ret);
}

enum pf_err store_stats(struct store *s, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                        unsigned *ret_n)
{
    return s->ops->stats(s, w, now_us, out, cap, ret_n);
}

enum pf_err store_trial(struct store *s, struct store_trial *out, unsigned cap, unsigned *ret_n)
{
    return s->ops->trial(s, out, cap, ret_n);
}

enum pf_err store_verify(struct store *s, struct store_verify *ret)
{
    return s->ops->verify(s, ret);
}

void store_close(struct store *s)
{
    if (s)
        s->ops->close(s);
}

void store_tx_rollback(struct store_tx *tx)
{
    if (tx)
        tx->store->ops->tx_rollback(tx);
}

enum pf_err store_event_insert(struct store_tx *tx, struct ticket_event *e)
{
    return tx->store->ops->event_insert(tx, e);
}

enum pf_err store_event_status(struct store_tx *tx, int64_t id, enum ticket_event_status status)
{
    return tx->store->ops->event_status(tx, id, status);
}

enum pf_err store_inbox_purge(struct store_tx *tx, int64_t before_us, int64_t *ret_n)
{
    return tx->store->ops->inbox_purge(tx, before_us, ret_n);
}

enum pf_err store_events_get(struct store *s, const struct store_ref *refs, size_t n, struct ticket_event *out)
{
    return s->ops->events_get(s, refs, n, out);
}

enum pf_err store_bookings_get(struct store *s, const struct store_ref *refs, size_t n, struct ticket_booking *out)
{
    return s->ops->bookings_get(s, refs, n, out);
}

enum pf_err store_event_get(struct store *s, const struct store_ref *ref, struct ticket_event *ret)
{
    struct ticket_event e;
    enum pf_err err = store_events_get(s, ref, 1, &e);
    if (err == PFE_OK && e.id == 0)
        err = PFE_NOT_FOUND;
    if (err == PFE_OK)
        *ret = e;
    return err;
}

enum pf_err store_booking_get(struct store *s, const struct store_ref *ref, struct ticket_booking *ret)
{
    struct ticket_booking b;
    enum pf_err err = store_bookings_get(s, ref, 1, &b);
    if (err == PFE_OK && b.id == 0)
        err = PFE_NOT_FOUND;
    if (err == PFE_OK)
        *ret = b;
    return err;
}

enum pf_err store_booking_list(struct store *s, const struct store_booking_query *q, struct ticket_booking *out,
                               unsigned *ret_n)
{
    return s->ops->booking_list(s, q, out, ret_n);
}

enum pf_err store_bookings_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_ids, unsigned *ret_n)
{
    return s->ops->bookings_due(s, now_us, limit, out_ids, ret_n);
}

enum pf_err store_outbox_list(struct store *s, struct arena *a, int64_t after_id, unsigned limit,
                              struct store_message *out, unsigned *ret_n)
{
    return s->ops->outbox_list(s, a, after_id, limit, out, ret_n);
}
