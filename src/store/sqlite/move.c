/* The embedded store as a source: locked, proven, and read table by table in one snapshot. */
#include "store/move.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/sqlite/journal.h"
#include "store/sqlite/schema.h"

struct sqlite_source {
    struct store *store; /* INSPECT: the accounts and statistics in memory reflect the whole journal */
    struct sqlite_store *s;
    struct sqlite_conn *c;
};

/* Columns in the order of move_tables. Accounts and statistics lag behind in their tables: they come from memory. */
static const char *const selects[MOVE_TABLES] = {
    [MOVE_JOURNAL] = "SELECT seq, ts, debit, credit, amount, debit_balance, credit_balance, debit_prev, credit_prev,"
                     " ref, actor, expires_us, kind, currency, uuid, description, origin FROM journal ORDER BY seq",
    [MOVE_SEAL] = "SELECT last_seq, first_seq, ts, hash FROM seal ORDER BY last_seq",
    [MOVE_RESOLUTION] = "SELECT seq, resolver FROM resolution ORDER BY seq",
    [MOVE_OPEN_HOLD] = "SELECT seq, account, amount, expires_us FROM open_hold ORDER BY seq",
    [MOVE_ACCOUNT] = "SELECT id, created_us FROM account ORDER BY id",
    [MOVE_MARK] = "SELECT account, n, seq, ts, balance, moves FROM mark ORDER BY account, n",
    [MOVE_IDEMPOTENCY] = "SELECT principal, key, request, status, seq, body FROM idempotency ORDER BY id",
    [MOVE_USERS] = "SELECT id, uuid, username, username_fold, email, email_fold, password_hash, role, status,"
                   " created_us, updated_us FROM user ORDER BY id",
    [MOVE_API_KEY] = "SELECT id, user, hash, prefix, created_us, last_used_us, revoked_us FROM api_key ORDER BY id",
    [MOVE_SESSION] = "SELECT family, user, created_us, expires_us, revoked_us FROM session ORDER BY family",
    [MOVE_REFRESH] = "SELECT hash, family, created_us, expires_us, used_us FROM refresh ORDER BY hash",
    [MOVE_SCHEDULE] = "SELECT id, uuid, owner, kind, to_user, amount, currency, description, recurrence, anchor_us,"
                      " next_us, end_us, last_us, max_runs, runs, refusals, status, last_error, created_us, updated_us"
                      " FROM schedule ORDER BY id",
    [MOVE_SCHEDULE_RUN] = "SELECT schedule, due_us, outcome, seq, ts, error FROM schedule_run"
                          " ORDER BY schedule, due_us",
    [MOVE_AUDIT] = "SELECT id, ts, actor, action, entity, entity_id, outcome, address, request_id, detail FROM audit"
                   " ORDER BY id",
    [MOVE_EVENT] = "SELECT id, uuid, organiser, capacity, held, sold, price, currency, status, starts_us,"
                   " created_us FROM event ORDER BY id",
    [MOVE_BOOKING] = "SELECT id, uuid, event, buyer, user_id, guest, tickets, amount, currency, state, reason,"
                     " version, hold_seq, paid_seq, expires_us, created_us, updated_us FROM booking ORDER BY id",
    [MOVE_OUTBOX] = "SELECT id, uuid, type, key, payload, created_us FROM outbox ORDER BY id",
    [MOVE_INBOX] = "SELECT message, consumer FROM inbox ORDER BY message, consumer",
    [MOVE_EVENT_DOCUMENT] = "SELECT id, created_us, date_us, search, body FROM event_document ORDER BY id",
};

static enum pf_err unreadable(struct sqlite_source *f, enum pf_err e, char ret_why[SQLITE_WHY])
{
    snprintf(ret_why, SQLITE_WHY, "cannot read the embedded store: %s", sqlite3_errmsg(f->c->db));
    return e;
}

/* ---- opening ---- */

static enum pf_err lock(const char *dir, int *ret_fd, char ret_why[SQLITE_WHY])
{
    char *path = sqlite_db_path(dir);
    bool there = path && access(path, F_OK) == 0;
    snprintf(ret_why, SQLITE_WHY, "there is no database at %.180s", path ? path : dir);
    free(path);
    return there ? sqlite_dir_lock(dir, ret_fd, ret_why) : PFE_NOT_FOUND;
}

static enum pf_err prove(struct sqlite_source *f, struct store_verify *ret, char ret_why[SQLITE_WHY])
{
    enum { CURRENCIES = 200 };
    struct store_trial t[CURRENCIES];
    unsigned n = 0;
    enum pf_err e = sqlite_prove(f->c, ret);
    if (e)
        return unreadable(f, e, ret_why);
    book_trial(&f->s->book, t, CURRENCIES, &n);
    for (unsigned i = 0; i < n && ret->ok; i++)
        if (t[i].sum != 0) {
            ret->ok = false;
            snprintf(ret->what, sizeof ret->what, "the accounts of currency %03u do not add up to 0", t[i].currency);
        }
    if (ret->ok)
        return PFE_OK;
    snprintf(ret_why, SQLITE_WHY, "the embedded store does not verify: %s", ret->what);
    return PFE_UNAVAILABLE;
}

enum pf_err store_sqlite_source_open(const char *dir, struct sqlite_source **ret, struct store_verify *ret_verify,
                                     char ret_why[SQLITE_WHY])
{
    struct sqlite_options o = {.dir = dir, .mode = SQLITE_INSPECT};
    struct sqlite_source *f = calloc(1, sizeof *f);
    int fd = -1;
    if (!f) {
        snprintf(ret_why, SQLITE_WHY, "out of memory");
        return PFE_NOMEM;
    }
    enum pf_err e = lock(dir, &fd, ret_why);
    if (e == PFE_OK)
        e = store_sqlite_open(&o, &f->store, ret_why);
    if (e) {
        if (fd >= 0)
            close(fd);
        free(f);
        return e;
    }
    f->s = sqlite_of(f->store);
    f->s->lock_fd = fd;
    f->c = sqlite_reader(f->s); /* the one that it was opened with: this is the same thread */
    e = prove(f, ret_verify, ret_why);
    if (e == PFE_OK && (e = sqlite_exec(f->c, sqlite_begin)) != PFE_OK)
        (void)!unreadable(f, e, ret_why);
    if (e)
        store_sqlite_source_close(f);
    else
        *ret = f;
    return e;
}

void store_sqlite_source_close(struct sqlite_source *f)
{
    if (!f)
        return;
    store_close(f->store); /* ends the snapshot and frees the lock */
    free(f);
}

/* ---- what is in no table ---- */

/* AUTOINCREMENT's own figure, or the newest row if that is above it. */
static const char newest_ids[] =
    "SELECT (SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'user'), 0),"
    "                   coalesce((SELECT max(id) FROM user), 0))),"
    "       (SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'api_key'), 0),"
    "                   coalesce((SELECT max(id) FROM api_key), 0))),"
    "       (SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'schedule'), 0),"
    "                   coalesce((SELECT max(id) FROM schedule), 0))),"
    "       coalesce((SELECT max(id) FROM audit), 0),"
    "       (SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0),"
    "                   coalesce((SELECT max(id) FROM event), 0))),"
    "       (SELECT booking FROM ticket_ids), (SELECT outbox FROM ticket_ids)";

enum pf_err store_sqlite_source_ends(struct sqlite_source *f, struct move_ends *ret, char ret_why[SQLITE_WHY])
{
    const struct book *b = &f->s->book;
    struct move_ends m = {.head_seq = b->head_seq,
                          .next_account = b->next_id,
                          .accounts = (int64_t)b->n,
                          .time_us = b->time_us,
                          .lag_us = b->lag_us};
    struct sqlite_q q;
    memcpy(m.seal, f->s->seal, sizeof m.seal);
    sqlite_q_begin(&q, f->c, newest_ids);
    if (sqlite_q_next(&q)) {
        m.user_id = sqlite_col_i64(&q, 0);
        m.api_key_id = sqlite_col_i64(&q, 1);
        m.schedule_id = sqlite_col_i64(&q, 2);
        m.audit_id = sqlite_col_i64(&q, 3);
        m.event_id = sqlite_col_i64(&q, 4);
        m.next_booking = sqlite_col_i64(&q, 5);
        m.next_outbox = sqlite_col_i64(&q, 6);
    }
    enum pf_err e = sqlite_q_end(&q);
    if (e)
        return unreadable(f, e, ret_why);
    *ret = m;
    return PFE_OK;
}

enum pf_err store_sqlite_source_trial(struct sqlite_source *f, struct store_trial *out, unsigned cap, unsigned *ret_n)
{
    return store_trial(f->store, out, cap, ret_n);
}

/* ---- rows ---- */

static void stored_row(const struct sqlite_q *q, const char *columns, struct move_value *row)
{
    for (int i = 0; columns[i]; i++)
        if (columns[i] == 'i' || columns[i] == 's')
            row[i].i = sqlite_col_i64(q, i);
        else
            row[i].s = sqlite_col_str(q, i);
}

/* false: memory does not know it, which the proof excludes. */
static bool account_row(const struct sqlite_source *f, const struct sqlite_q *q, struct move_value *row)
{
    uint32_t i = book_find(&f->s->book, sqlite_col_i64(q, 0));
    if (i == BOOK_NONE)
        return false;
    const struct book_account *b = book_at(&f->s->book, i);
    const int64_t values[] = {b->a.id,    b->a.owner,      sqlite_col_i64(q, 1), b->a.balance,
                              b->a.held,  b->a.head,       b->a.entries,         b->moves,
                              b->time_us, b->a.updated_us, b->a.currency,        b->a.flags};
    for (size_t k = 0; k < sizeof values / sizeof *values; k++)
        row[k].i = values[k];
    return true;
}

static enum pf_err stat_row(const struct book_series *s, int64_t minute, int64_t count, int64_t volume, move_row_fn fn,
                            void *ctx)
{
    const struct move_value row[] = {{.i = s->kind}, {.i = s->currency}, {.i = minute}, {.i = count}, {.i = volume}};
    return fn(ctx, row);
}

static enum pf_err stat_rows(const struct book *b, move_row_fn fn, void *ctx)
{
    enum pf_err e = PFE_OK;
    for (const struct book_series *s = b->series; s && e == PFE_OK; s = s->next) {
        e = stat_row(s, 0, s->count, s->volume, fn, ctx);
        for (size_t i = 0; i < BOOK_MINUTES && e == PFE_OK; i++)
            if (s->minutes[i].minute)
                e = stat_row(s, s->minutes[i].minute, s->minutes[i].count, s->minutes[i].volume, fn, ctx);
    }
    return e;
}

enum pf_err store_sqlite_source_rows(struct sqlite_source *f, enum move_table_id table, move_row_fn fn, void *ctx,
                                     char ret_why[SQLITE_WHY])
{
    struct move_value row[MOVE_COLUMNS_MAX];
    struct sqlite_q q;
    enum pf_err e = PFE_OK;
    if (table == MOVE_STAT)
        return stat_rows(&f->s->book, fn, ctx);
    sqlite_q_begin(&q, f->c, selects[table]);
    while (e == PFE_OK && sqlite_q_next(&q)) {
        if (table != MOVE_ACCOUNT) {
            stored_row(&q, move_tables[table].columns, row);
        } else if (!account_row(f, &q, row)) {
            e = PFE_INTERNAL;
            snprintf(ret_why, SQLITE_WHY, "account %lld of the embedded store cannot be read",
                     (long long)sqlite_col_i64(&q, 0));
            break;
        }
        e = fn(ctx, row);
    }
    enum pf_err end = sqlite_q_end(&q);
    if (e == PFE_OK && end)
        return unreadable(f, end, ret_why);
    return e;
}
