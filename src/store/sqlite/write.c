#include "store/sqlite/journal.h"

static int note_wal(void *ctx, sqlite3 *db, const char *name, int frames)
{
    (void)db, (void)name;
    ((struct sqlite_store *)ctx)->wal_frames = frames;
    return SQLITE_OK;
}

void sqlite_watch_wal(struct sqlite_store *s)
{
    sqlite3_wal_hook(s->w.db, note_wal, s);
}

/* ---- write-behind: parts of the epochs of accounts and of idempotency keys inside the write under way ---- */

struct slice {
    bool accounts, idem; /* did this write have a part of it? */
    size_t accounts_at, idem_at;
    bool accounts_last, idem_last;
};

static enum pf_err accounts_write(struct sqlite_store *s, size_t most, struct slice *x)
{
    size_t at = s->book.epoch_at;
    uint32_t i = 0;
    for (size_t k = 0; k < most && (i = book_epoch_next(&s->book, &at)) != BOOK_NONE; k++) {
        enum pf_err e = sqlite_account_write(&s->w, book_at(&s->book, i));
        if (e)
            return e;
    }
    x->accounts = true;
    x->accounts_at = at;
    x->accounts_last = i == BOOK_NONE;
    if (!x->accounts_last)
        return PFE_OK;
    enum pf_err e = sqlite_projection_write(&s->w, "account", s->epoch_seq);
    return e ? e : sqlite_stats_write(&s->w, &s->book);
}

static enum pf_err slice_write(struct sqlite_store *s, size_t most, struct slice *ret)
{
    *ret = (struct slice){0};
    enum pf_err e = s->epoch_seq ? accounts_write(s, most, ret) : PFE_OK;
    if (e || s->idem.leaving.n == 0)
        return e;
    ret->idem = true;
    return sqlite_idem_slice(s, most, &ret->idem_at, &ret->idem_last);
}

/* After the commit. */
static void slice_done(struct sqlite_store *s, const struct slice *x)
{
    if (x->idem)
        sqlite_idem_slice_done(&s->idem, x->idem_at, x->idem_last);
    if (!x->accounts)
        return;
    s->book.epoch_at = x->accounts_at;
    if (!x->accounts_last)
        return;
    book_epoch_end(&s->book);
    book_stat_clean(&s->book);
    atomic_store(&s->projected_seq, s->epoch_seq);
    s->epoch_seq = 0;
}

static void accounts_begin(struct sqlite_store *s)
{
    book_epoch_begin(&s->book);
    s->epoch_seq = s->epoch_started = s->book.head_seq;
}

/* Starts the epochs that are due. */
static void epochs_begin(struct sqlite_store *s, int64_t due)
{
    if (!s->epoch_seq && s->book.head_seq - s->epoch_started >= due)
        accounts_begin(s);
    if (s->idem.leaving.n == 0 && (int64_t)s->idem.recent.n >= due)
        sqlite_idem_leave(&s->idem);
}

enum pf_err sqlite_flush(struct store *st)
{
    enum { ROWS_PER_COMMIT = 8192 };
    struct sqlite_store *s = sqlite_of(st);
    for (;;) {
        enum pf_err e = sqlite_write_begin(s);
        if (e)
            return e;
        epochs_begin(s, 1);
        struct slice x;
        e = slice_write(s, ROWS_PER_COMMIT, &x);
        if (e)
            return sqlite_write_failed(s, e);
        if (!x.accounts && !x.idem) {
            sqlite_write_rollback(s);
            return PFE_OK;
        }
        e = sqlite_write_commit_locked(s);
        if (e == PFE_OK)
            slice_done(s, &x);
        pthread_mutex_unlock(&s->wlock);
        if (e)
            return e;
    }
}

/* ---- groups ---- */

static enum pf_err owner_ok(void *ctx, int64_t user, bool *ret_ok)
{
    struct sqlite_store *s = ctx;
    return sqlite_rec_owner_ok(&s->w, user, ret_ok);
}

enum pf_err sqlite_group_begin(struct store *st, const struct store_group_ask *ask, struct store_group *g)
{
    struct sqlite_store *s = sqlite_of(st);
    enum pf_err e = sqlite_write_begin(s);
    if (e)
        return e;
    e = book_group_begin(&s->book, ask->keys, ask->n_keys, g->slots, owner_ok, s);
    if (e == PFE_OK)
        e = sqlite_tickets_load(s, ask, g);
    for (size_t i = 0; i < ask->n_refs && e == PFE_OK; i++)
        e = sqlite_resolved_by(&s->w, ask->refs[i], &g->resolved_by[i]);
    if (e)
        return sqlite_write_failed(s, e);
    lease_book_group_begin(&s->leases, ask->fences, ask->n_fences);
    g->first_seq = s->book.head_seq + 1;
    return PFE_OK;
}

void sqlite_group_abort(struct store *st)
{
    lease_book_group_end(&sqlite_of(st)->leases);
    sqlite_write_rollback(sqlite_of(st));
}

static enum pf_err write_entry(struct sqlite_store *s, const struct ledger_entry *e)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, &s->w,
                   "INSERT INTO journal (" SQLITE_ENTRY_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,"
                   " ?11, ?12, ?13, ?14, ?15, ?16, ?17)");
    sqlite_q_i64(&q, e->seq);
    sqlite_q_i64(&q, e->ts);
    sqlite_q_i64(&q, e->kind);
    sqlite_q_blob(&q, e->uuid, sizeof e->uuid);
    sqlite_q_i64(&q, e->debit);
    sqlite_q_i64(&q, e->credit);
    sqlite_q_i64(&q, e->amount);
    sqlite_q_i64(&q, e->currency);
    sqlite_q_i64(&q, e->debit_balance);
    sqlite_q_i64(&q, e->credit_balance);
    sqlite_q_i64(&q, e->debit_prev);
    sqlite_q_i64(&q, e->credit_prev);
    sqlite_q_i64(&q, e->ref);
    sqlite_q_i64(&q, e->actor);
    sqlite_q_i64(&q, e->expires_us);
    sqlite_q_str(&q, e->description);
    sqlite_q_str(&q, e->origin);
    return sqlite_q_run(&q);
}

/* The rows, the seal over them in ret_seal. *ret_resolved: a PFE_WRONG_STATE is about an entry resolved before, not a
   defect. */
static enum pf_err write_entries(struct sqlite_store *s, const struct store_commit *c, uint8_t ret_seal[SHA256_LEN],
                                 bool *ret_resolved)
{
    uint8_t bytes[LEDGER_CANONICAL_MAX];
    enum pf_err err = PFE_OK;
    sha256_begin(s->sha);
    sha256_add(s->sha, s->seal, sizeof s->seal);
    for (size_t i = 0; i < c->n_entries && err == PFE_OK; i++) {
        const struct ledger_entry *e = &c->entries[i];
        size_t n = ledger_canonical(e, bytes, sizeof bytes);
        if (n > sizeof bytes)
            return PFE_INTERNAL;
        sha256_add(s->sha, bytes, n);
        err = write_entry(s, e);
        if (err == PFE_OK && e->ref) {
            err = sqlite_resolution_insert(&s->w, e);
            *ret_resolved = err == PFE_WRONG_STATE;
        }
        if (err == PFE_OK && e->kind == LEDGER_HOLD)
            err = sqlite_hold_insert(&s->w, e);
    }
    sha256_end(s->sha, ret_seal);
    return err;
}

static enum pf_err write_seal(struct sqlite_store *s, const struct store_commit *c, const uint8_t hash[SHA256_LEN])
{
    struct sqlite_q q;
    sqlite_q_begin(&q, &s->w, "INSERT INTO seal (last_seq, first_seq, ts, hash) VALUES (?1, ?2, ?3, ?4)");
    sqlite_q_i64(&q, c->entries[c->n_entries - 1].seq);
    sqlite_q_i64(&q, c->entries[0].seq);
    sqlite_q_i64(&q, c->ts);
    sqlite_q_blob(&q, hash, SHA256_LEN);
    return sqlite_q_run(&q);
}

static enum pf_err write_accounts(struct sqlite_store *s, const struct store_commit *c)
{
    enum pf_err e = PFE_OK;
    for (size_t i = 0; i < c->n_slots && e == PFE_OK; i++) {
        const struct store_slot *slot = &c->slots[i];
        if (!slot->used || slot->state != STORE_SLOT_NEW)
            continue;
        const struct book_side *side = &s->book.group.sides[i];
        struct book_account a = {.a = slot->acc, .moves = side->moves, .time_us = side->time_us};
        if (a.a.head == 0)
            a.a.updated_us = c->ts;
        e = sqlite_account_insert(&s->w, &a, c->ts);
    }
    const struct book_group *g = &s->book.group;
    for (size_t i = 0; i < g->n_marks && e == PFE_OK; i++)
        e = sqlite_mark_insert(&s->w, &g->marks[i]);
    return e;
}

static enum pf_err write_group(struct sqlite_store *s, const struct store_commit *c, uint8_t ret_seal[SHA256_LEN])
{
    bool resolved = false;
    enum pf_err e = PFE_OK;
    if (c->n_entries) {
        e = write_entries(s, c, ret_seal, &resolved);
        if (e == PFE_OK)
            e = write_seal(s, c, ret_seal);
    }
    if (e == PFE_OK)
        e = write_accounts(s, c);
    /* No other row of a group can be there already, unless memory and disk have parted. */
    if (e == PFE_WRONG_STATE && !resolved)
        e = PFE_INTERNAL;
    if (e == PFE_OK)
        e = sqlite_tickets_write(s, c);
    for (size_t i = 0; i < c->n_idem && e == PFE_OK; i++)
        e = sqlite_idem_insert(s, &c->idem[i]);
    return e;
}

static enum pf_err commit(struct sqlite_store *s, const struct store_commit *c)
{
    if (book_group_empty(c)) {
        sqlite_write_rollback(s);
        return PFE_OK;
    }
    uint8_t seal[SHA256_LEN];
    struct slice slice = {0};
    enum pf_err e = book_group_check(&s->book, c);
    if (e == PFE_OK)
        e = write_group(s, c, seal);
    if (e == PFE_OK) {
        epochs_begin(s, s->flush_entries);
        e = slice_write(s, SQLITE_FLUSH_SLICE + c->n_entries * 4, &slice);
    }
    if (e) {
        if (e == PFE_INTERNAL)
            atomic_store(&s->fatal, true);
        return sqlite_write_failed(s, e);
    }
    e = sqlite_write_commit_locked(s);
    if (e == PFE_OK) {
        slice_done(s, &slice);
        if (c->n_entries)
            memcpy(s->seal, seal, sizeof seal);
        book_group_apply(&s->book, c);
    }
    pthread_mutex_unlock(&s->wlock);
    return e;
}

enum pf_err sqlite_group_commit(struct store *st, const struct store_commit *c)
{
    enum pf_err e = commit(sqlite_of(st), c);
    lease_book_group_end(&sqlite_of(st)->leases);
    return e;
}
