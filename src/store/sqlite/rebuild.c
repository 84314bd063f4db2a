/* Offline: every stored projection overwritten with what the journal says, in one transaction. */
#include <stdio.h>
#include <unistd.h>

#include "store/sqlite/journal.h"
#include "store/sqlite/schema.h"

static enum pf_err fresh_accounts(struct book *b, struct sqlite_conn *w)
{
    struct sqlite_q q;
    enum pf_err e = PFE_OK;
    sqlite_q_begin(&q, w, SQLITE_ACCOUNTS);
    while (e == PFE_OK && sqlite_q_next(&q)) {
        struct book_account a;
        sqlite_account_read(&q, &a);
        struct book_account fresh = {
            .a = {.id = a.a.id, .owner = a.a.owner, .currency = a.a.currency, .updated_us = a.a.updated_us}};
        e = book_reserve(b, 1);
        if (e == PFE_OK)
            book_touch(b, book_add(b, &fresh));
    }
    enum pf_err end = sqlite_q_end(&q);
    return e ? e : end;
}

static enum pf_err replay_one(struct book *b, struct sqlite_conn *w, const struct ledger_entry *x)
{
    enum pf_err e = book_stat_reserve(b, x->kind, x->currency);
    if (e)
        return e;
    book_stat_add(b, x);
    e = sqlite_replay_entry(b, w, x, w);
    if (e == PFE_OK && x->ref)
        e = sqlite_resolution_insert(w, x);
    if (e == PFE_OK && x->kind == LEDGER_HOLD)
        e = sqlite_hold_insert(w, x);
    return e;
}

static enum pf_err replay_all(struct book *b, struct sqlite_conn *w, int64_t *ret_entries, int64_t *ret_seq)
{
    struct sqlite_q q;
    enum pf_err e = PFE_OK;
    *ret_entries = 0;
    sqlite_q_begin(&q, w, "SELECT " SQLITE_ENTRY_COLUMNS " FROM journal ORDER BY seq");
    while (e == PFE_OK && sqlite_q_next(&q)) {
        struct ledger_entry x;
        sqlite_entry_read(&q, &x);
        *ret_seq = x.seq;
        e = replay_one(b, w, &x);
        ++*ret_entries;
    }
    enum pf_err end = sqlite_q_end(&q);
    return e ? e : end;
}

static enum pf_err write_all(struct book *b, struct sqlite_conn *w)
{
    size_t at = 0;
    enum pf_err e = PFE_OK;
    book_epoch_begin(b);
    for (uint32_t i; e == PFE_OK && (i = book_epoch_next(b, &at)) != BOOK_NONE;)
        e = sqlite_account_write(w, book_at(b, i));
    if (e == PFE_OK)
        e = sqlite_projection_write(w, "account", b->head_seq);
    return e ? e : sqlite_stats_write(w, b);
}

static enum pf_err rebuild(struct book *b, struct sqlite_conn *w, int64_t *ret_entries, char ret_why[SQLITE_WHY])
{
    int64_t seq = 0;
    int rc = sqlite3_exec(w->db,
                          "BEGIN IMMEDIATE; DELETE FROM mark; DELETE FROM resolution; DELETE FROM open_hold;"
                          "DELETE FROM stat;",
                          NULL, NULL, NULL);
    enum pf_err e = sqlite_err(w->db, rc);
    if (e == PFE_OK)
        e = fresh_accounts(b, w);
    if (e == PFE_OK) {
        e = replay_all(b, w, ret_entries, &seq);
        if (e == PFE_INTERNAL || e == PFE_WRONG_STATE) {
            snprintf(ret_why, SQLITE_WHY,
                     "entry %lld names an account or an entry that is not there, or resolves one twice",
                     (long long)seq);
            return PFE_WRONG_STATE;
        }
    }
    if (e == PFE_OK)
        e = write_all(b, w);
    if (e == PFE_OK)
        e = sqlite_exec(w, sqlite_commit);
    if (e)
        snprintf(ret_why, SQLITE_WHY, "cannot rebuild: %s", sqlite3_errmsg(w->db));
    return e;
}

enum pf_err store_sqlite_rebuild(const char *dir, int64_t *ret_entries, char ret_why[SQLITE_WHY])
{
    struct sqlite_conn w = {0};
    struct book b;
    int lock = -1, version;
    int64_t entries = 0;
    snprintf(ret_why, SQLITE_WHY, "out of memory");
    if (book_init(&b) != PFE_OK)
        return PFE_NOMEM;
    enum pf_err e = sqlite_open_locked(dir, false, &w, &lock, ret_why);
    if (e == PFE_OK)
        e = schema_check(&w, &version, ret_why);
    if (e == PFE_OK && version < (int)sqlite_migration_texts_n) {
        snprintf(ret_why, SQLITE_WHY, "the database is at migration %d, this program needs %u: migrate first", version,
                 sqlite_migration_texts_n);
        e = PFE_WRONG_STATE;
    }
    if (e == PFE_OK)
        e = rebuild(&b, &w, &entries, ret_why);
    sqlite_conn_close(&w);
    book_free(&b);
    if (lock >= 0)
        close(lock);
    if (e == PFE_OK)
        *ret_entries = entries;
    return e;
}
