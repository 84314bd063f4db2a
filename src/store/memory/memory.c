#include <stdlib.h>

#include "store/memory/internal.h"

static void memory_close(struct store *st)
{
    struct memory_store *s = memory_of(st);
    for (size_t i = 0; i < s->n_journal; i++)
        free((char *)s->journal[i].description.p);
    free(s->journal);
    free(s->seals);
    size_t pos = 0;
    struct str key;
    void *row;
    while (map_str_next(&s->idem, &pos, &key, &row))
        free(row);
    map_str_free(&s->idem);
    map_u64_free(&s->resolved);
    memory_rec_free(s->rec);
    memory_tickets_free(s->tickets);
    sha256_free(s->sha);
    book_free(&s->book);
    pthread_rwlock_destroy(&s->lock);
    pthread_mutex_destroy(&s->wlock);
    lease_book_fini(&s->leases);
    free(s);
}

static enum pf_err memory_info(struct store *st, struct store_info *ret)
{
    struct memory_store *s = memory_of(st);
    struct store_info i = {.engine = "memory", .writable = true};
    pthread_rwlock_rdlock(&s->book.lock);
    i.head_seq = i.projected_seq = s->book.head_seq;
    i.accounts = (int64_t)s->book.n;
    pthread_rwlock_unlock(&s->book.lock);
    *ret = i;
    return PFE_OK;
}

/* ---- groups ---- */

static enum pf_err owner_ok(void *ctx, int64_t user, bool *ret_ok)
{
    *ret_ok = memory_rec_owner_ok(ctx, user);
    return PFE_OK;
}

static enum pf_err memory_group_begin(struct store *st, const struct store_group_ask *ask, struct store_group *g)
{
    struct memory_store *s = memory_of(st);
    pthread_mutex_lock(&s->wlock);
    enum pf_err e = book_group_begin(&s->book, ask->keys, ask->n_keys, g->slots, owner_ok, s);
    if (e == PFE_OK)
        e = memory_tickets_load(s, ask, g);
    if (e == PFE_OK) {
        memory_resolved(s, ask->refs, ask->n_refs, g->resolved_by);
        lease_book_group_begin(&s->leases, ask->fences, ask->n_fences);
        g->first_seq = s->book.head_seq + 1;
    } else {
        pthread_mutex_unlock(&s->wlock);
    }
    return e;
}

static void memory_group_abort(struct store *st)
{
    lease_book_group_end(&memory_of(st)->leases);
    pthread_mutex_unlock(&memory_of(st)->wlock);
}

static bool grow(void **v, size_t *cap, size_t want, size_t size)
{
    if (want <= *cap)
        return true;
    size_t n = *cap ? *cap : 64;
    while (n < want)
        n *= 2;
    void *p = realloc(*v, n * size);
    if (!p)
        return false;
    *v = p;
    *cap = n;
    return true;
}

static bool copy_entry(struct ledger_entry *to, const struct ledger_entry *from)
{
    char *text = malloc(from->description.n + from->origin.n + 1);
    if (!text)
        return false;
    if (from->description.n)
        memcpy(text, from->description.p, from->description.n);
    if (from->origin.n)
        memcpy(text + from->description.n, from->origin.p, from->origin.n);
    *to = *from;
    to->description.p = text;
    to->origin.p = text + from->description.n;
    return true;
}

/* How far a commit got, so that it can be taken back. */
struct progress {
    size_t entries, resolved, idem; /* resolved: entries looked at for it */
};

static enum pf_err append(struct memory_store *s, const struct store_commit *c, struct progress *p)
{
    uint64_t by;
    if (!grow((void **)&s->journal, &s->cap_journal, s->n_journal + c->n_entries, sizeof *s->journal) ||
        !grow((void **)&s->seals, &s->cap_seals, s->n_seals + 1, sizeof *s->seals))
        return PFE_NOMEM;
    for (; p->entries < c->n_entries; p->entries++)
        if (!copy_entry(&s->journal[s->n_journal + p->entries], &c->entries[p->entries]))
            return PFE_NOMEM;
    for (; p->resolved < c->n_entries; p->resolved++) {
        const struct ledger_entry *e = &c->entries[p->resolved];
        if (!e->ref)
            continue;
        if (map_u64_get(&s->resolved, (uint64_t)e->ref, &by))
            return PFE_WRONG_STATE;
        if (!map_u64_put(&s->resolved, (uint64_t)e->ref, (uint64_t)e->seq))
            return PFE_NOMEM;
    }
    for (; p->idem < c->n_idem; p->idem++) {
        enum pf_err e = memory_idem_insert(s, &c->idem[p->idem]);
        if (e)
            return e;
    }
    return PFE_OK;
}

static void take_back(struct memory_store *s, const struct store_commit *c, const struct progress *p)
{
    for (size_t i = 0; i < p->entries; i++)
        free((char *)s->journal[s->n_journal + i].description.p);
    for (size_t i = 0; i < p->resolved; i++)
        if (c->entries[i].ref)
            map_u64_del(&s->resolved, (uint64_t)c->entries[i].ref);
    for (size_t i = 0; i < p->idem; i++)
        memory_idem_remove(s, c->idem[i].principal, c->idem[i].key);
}

static void seal(struct memory_store *s, const struct store_commit *c)
{
    static const uint8_t none[SHA256_LEN];
    uint8_t bytes[LEDGER_CANONICAL_MAX];
    if (c->n_entries == 0)
        return;
    sha256_begin(s->sha);
    sha256_add(s->sha, s->n_seals ? s->seals[s->n_seals - 1].hash : none, SHA256_LEN);
    for (size_t i = 0; i < c->n_entries; i++)
        sha256_add(s->sha, bytes, ledger_canonical(&c->entries[i], bytes, sizeof bytes));
    struct memory_seal *x = &s->seals[s->n_seals++];
    x->first_seq = c->entries[0].seq;
    x->last_seq = c->entries[c->n_entries - 1].seq;
    sha256_end(s->sha, x->hash);
}

static enum pf_err memory_group_commit(struct store *st, const struct store_commit *c)
{
    struct memory_store *s = memory_of(st);
    struct progress p = {0};
    enum pf_err e = book_group_check(&s->book, c);
    pthread_rwlock_wrlock(&s->lock);
    if (e == PFE_OK)
        e = append(s, c, &p);
    if (e == PFE_OK)
        e = memory_tickets_commit(s, c); /* the last that may fail */
    if (e == PFE_OK) {
        s->n_journal += c->n_entries;
        seal(s, c);
        book_group_apply(&s->book, c);
    } else {
        take_back(s, c, &p);
    }
    pthread_rwlock_unlock(&s->lock);
    lease_book_group_end(&s->leases);
    pthread_mutex_unlock(&s->wlock);
    return e;
}

static enum pf_err memory_lease_take(struct store *st, struct str name, struct str holder, int64_t ttl_us,
                                     struct store_lease *ret)
{
    return lease_book_take(&memory_of(st)->leases, name, holder, ttl_us, ret);
}

static enum pf_err memory_lease_drop(struct store *st, struct str name, struct str holder)
{
    return lease_book_drop(&memory_of(st)->leases, name, holder);
}

static enum pf_err memory_flush(struct store *st)
{
    (void)st;
    return PFE_OK;
}

static enum pf_err memory_account_rebuild(struct store *st, int64_t account, struct store_replay *ret)
{
    struct memory_store *s = memory_of(st);
    struct book_account a;
    pthread_mutex_lock(&s->wlock);
    enum pf_err e = book_snapshot(&s->book, account, &a);
    if (e == PFE_OK) {
        memory_fold(s, &a, ret);
        pthread_rwlock_wrlock(&s->book.lock);
        *book_at(&s->book, book_find(&s->book, account)) = a;
        pthread_rwlock_unlock(&s->book.lock);
    }
    pthread_mutex_unlock(&s->wlock);
    return e;
}

static const struct store_ops memory_ops = {
    .close = memory_close,
    .info = memory_info,

    .lease_take = memory_lease_take,
    .lease_drop = memory_lease_drop,
    .group_begin = memory_group_begin,
    .group_commit = memory_group_commit,
    .group_abort = memory_group_abort,
    .flush = memory_flush,
    .account_rebuild = memory_account_rebuild,

    .tx_begin = memory_rec_tx_begin,
    .tx_commit = memory_rec_tx_commit,
    .tx_rollback = memory_rec_tx_rollback,
    .tx_fence = memory_rec_tx_fence,

    .user_insert = memory_rec_user_insert,
    .user_update = memory_rec_user_update,
    .apikey_insert = memory_rec_apikey_insert,
    .apikey_revoke = memory_rec_apikey_revoke,
    .apikey_touch = memory_rec_apikey_touch,
    .session_insert = memory_rec_session_insert,
    .session_revoke = memory_rec_session_revoke,
    .refresh_insert = memory_rec_refresh_insert,
    .refresh_use = memory_rec_refresh_use,
    .schedule_insert = memory_rec_schedule_insert,
    .schedule_update = memory_rec_schedule_update,
    .run_insert = memory_rec_run_insert,
    .audit_append = memory_rec_audit_append,
    .idem_put = memory_rec_idem_put,
    .event_insert = memory_event_insert,
    .event_status = memory_event_status,
    .inbox_purge = memory_inbox_purge,

    .user_get = memory_rec_user_get,
    .user_by_uuid = memory_rec_user_by_uuid,
    .user_by_name = memory_rec_user_by_name,
    .user_by_email = memory_rec_user_by_email,
    .user_list = memory_rec_user_list,
    .admin_count = memory_rec_admin_count,
    .users_closing = memory_rec_users_closing,
    .apikey_by_hash = memory_rec_apikey_by_hash,
    .apikey_list = memory_rec_apikey_list,
    .session_get = memory_rec_session_get,
    .refresh_get = memory_rec_refresh_get,
    .schedule_get = memory_rec_schedule_get,
    .schedule_by_uuid = memory_rec_schedule_by_uuid,
    .schedule_list = memory_rec_schedule_list,
    .schedule_due = memory_rec_schedule_due,
    .run_list = memory_rec_run_list,
    .audit_list = memory_rec_audit_list,
    .idem_get = memory_rec_idem_get,
    .events_get = memory_events_get,
    .bookings_get = memory_bookings_get,
    .booking_list = memory_booking_list,
    .bookings_due = memory_bookings_due,
    .outbox_list = memory_outbox_list,

    .account_get = memory_account_get,
    .account_by_id = memory_account_by_id,
    .account_list = memory_account_list,
    .entry_get = memory_entry_get,
    .entry_list = memory_entry_list,
    .journal_scan = memory_journal_scan,
    .balance_at = memory_balance_at,
    .holds_due = memory_holds_due,
    .replay = memory_replay,
    .stats = memory_stats,
    .trial = memory_trial,
    .verify = memory_verify,
};

struct store *store_memory_open(void)
{
    struct memory_store *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    if (book_init(&s->book) != PFE_OK) {
        free(s);
        return NULL;
    }
    s->base.ops = &memory_ops;
    pthread_mutex_init(&s->wlock, NULL);
    lease_book_init(&s->leases);
    pthread_rwlock_init(&s->lock, NULL);
    map_u64_init(&s->resolved);
    map_str_init(&s->idem);
    s->sha = sha256_new();
    s->rec = memory_rec_new();
    s->tickets = memory_tickets_new();
    if (s->sha && s->rec && s->tickets)
        return &s->base;
    memory_close(&s->base);
    return NULL;
}
