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

/* ---- write-behind: part of an epoch inside the write under way ---- */

static enum pf_err slice_write(struct sqlite_store *s, size_t most, size_t *ret_at, bool *ret_last)
{
    size_t at = s->book.epoch_at;
    uint32_t i = 0;
    for (size_t k = 0; k < most && (i = book_epoch_next(&s->book, &at)) != BOOK_NONE; k++) {
        enum pf_err e = sqlite_account_write(&s->w, book_at(&s->book, i));
        if (e)
            return e;
    }
    *ret_at = at;
    *ret_last = i == BOOK_NONE;
    if (!*ret_last)
        return PFE_OK;
    enum pf_err e = sqlite_projection_write(&s->w, "account", s->epoch_seq);
    return e ? e : sqlite_stats_write(&s->w, &s->book);
}

/* After the commit. */
static void slice_done(struct sqlite_store *s, size_t at, bool last)
{
    s->book.epoch_at = at;
    if (!last)
        return;
    book_epoch_end(&s->book);
    book_stat_clean(&s->book);
    atomic_store(&s->projected_seq, s->epoch_seq);
    s->epoch_seq = 0;
}

static void epoch_begin(struct sqlite_store *s)
{
    book_epoch_begin(&s->book);
    s->epoch_seq = s->epoch_started = s->book.head_seq;
}

enum pf_err sqlite_flush(struct store *st)
{
    enum { ACCOUNTS_PER_COMMIT = 8192 };
    struct sqlite_store *s = sqlite_of(st);
    if (s->mode == SQLITE_INSPECT)
        return PFE_UNAVAILABLE;
    bool begun = false;
    while (s->epoch_seq || (!begun && atomic_load(&s->projected_seq) < s->book.head_seq)) {
        enum pf_err e = sqlite_write_begin(s);
        if (e)
            return e;
        if (!s->epoch_seq) {
            epoch_begin(s);
            begun = true;
        }
        size_t at;
        bool last;
        e = slice_write(s, ACCOUNTS_PER_COMMIT, &at, &last);
        if (e)
            return sqlite_write_failed(s, e);
        e = sqlite_write_commit(s);
        if (e)
            return e;
        slice_done(s, at, last);
    }
    return PFE_OK;
}

/* ---- groups ---- */

static enum pf_err owner_ok(void *ctx, int64_t user, bool *ret_ok)
{
    struct sqlite_store *s = ctx;
    return sqlite_rec_owner_ok(&s->w, user, ret_ok);
}

enum pf_err sqlite_group_begin(struct store *st, const struct store_key *keys, size_t n, struct store_slot *slots,
                               int64_t *ret_first_seq)
{
    struct sqlite_store *s = sqlite_of(st);
    enum pf_err e = sqlite_write_begin(s);
    if (e)
        return e;
    e = book_group_begin(&s->book, keys, n, slots, owner_ok, s);
    if (e)
        return sqlite_write_failed(s, e);
    *ret_first_seq = s->book.head_seq + 1;
    return PFE_OK;
}

void sqlite_group_abort(struct store *st)
{
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
    for (size_t i = 0; i < c->n_idem && e == PFE_OK; i++)
        e = sqlite_idem_insert(s, &c->idem[i]);
    return e;
}

static bool nothing_to_write(const struct store_commit *c)
{
    bool any = c->n_entries || c->n_idem;
    for (size_t i = 0; i < c->n_slots && !any; i++)
        any = c->slots[i].used && c->slots[i].state == STORE_SLOT_NEW;
    return !any;
}

enum pf_err sqlite_group_commit(struct store *st, const struct store_commit *c)
{
    struct sqlite_store *s = sqlite_of(st);
    if (nothing_to_write(c)) {
        sqlite_write_rollback(s);
        return PFE_OK;
    }
    uint8_t seal[SHA256_LEN];
    size_t at = 0;
    bool last = false;
    enum pf_err e = book_group_check(&s->book, c);
    if (e == PFE_OK)
        e = write_group(s, c, seal);
    if (e == PFE_OK && !s->epoch_seq && s->book.head_seq - s->epoch_started >= s->flush_entries)
        epoch_begin(s);
    bool slice = s->epoch_seq != 0;
    if (e == PFE_OK && slice)
        e = slice_write(s, SQLITE_FLUSH_SLICE + c->n_entries * 4, &at, &last);
    if (e) {
        if (e == PFE_INTERNAL)
            atomic_store(&s->fatal, true);
        return sqlite_write_failed(s, e);
    }
    e = sqlite_write_commit_locked(s);
    if (e == PFE_OK) {
        if (slice)
            slice_done(s, at, last);
        if (c->n_entries)
            memcpy(s->seal, seal, sizeof seal);
        book_group_apply(&s->book, c);
    }
    pthread_mutex_unlock(&s->wlock);
    return e;
}
