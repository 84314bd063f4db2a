#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "store/sqlite/internal.h"

enum pf_err sqlite_err(sqlite3 *db, int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return PFE_OK;
    case SQLITE_FULL:
        return PFE_DISK_FULL;
    case SQLITE_CONSTRAINT:
        return PFE_WRONG_STATE;
    case SQLITE_NOMEM:
        return PFE_NOMEM;
    case SQLITE_IOERR: {
        int os = db ? sqlite3_system_errno(db) : 0;
        bool room = os == ENOSPC || os == EDQUOT;
        return room && rc != SQLITE_IOERR_FSYNC && rc != SQLITE_IOERR_DIR_FSYNC ? PFE_DISK_FULL : PFE_UNAVAILABLE;
    }
    default:
        return PFE_UNAVAILABLE;
    }
}

/* ---- statements ---- */

static sqlite3_stmt *conn_statement(struct sqlite_conn *c, const char *sql, int *ret_rc)
{
    size_t i = (size_t)(((uintptr_t)sql * UINT64_C(0x9e3779b97f4a7c15)) >> 40) & (SQLITE_STMTS_MAX - 1);
    while (c->stmts[i].sql && c->stmts[i].sql != sql)
        i = (i + 1) & (SQLITE_STMTS_MAX - 1);
    if (c->stmts[i].sql)
        return c->stmts[i].st;
    if (c->n_stmts == SQLITE_STMTS_MAX - 1) {
        *ret_rc = SQLITE_INTERNAL;
        return NULL;
    }
    sqlite3_stmt *st;
    *ret_rc = sqlite3_prepare_v3(c->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL);
    if (*ret_rc != SQLITE_OK)
        return NULL;
    c->stmts[i].sql = sql;
    c->stmts[i].st = st;
    c->n_stmts++;
    return st;
}

void sqlite_q_begin(struct sqlite_q *q, struct sqlite_conn *c, const char *sql)
{
    *q = (struct sqlite_q){.c = c, .rc = SQLITE_OK};
    if (c)
        q->st = conn_statement(c, sql, &q->rc);
    else
        q->rc = SQLITE_CANTOPEN;
}

static void bound(struct sqlite_q *q, int rc)
{
    if (rc != SQLITE_OK)
        q->rc = rc;
}

void sqlite_q_i64(struct sqlite_q *q, int64_t v)
{
    q->bound++;
    if (q->rc == SQLITE_OK)
        bound(q, sqlite3_bind_int64(q->st, q->bound, v));
}

void sqlite_q_str(struct sqlite_q *q, struct str v)
{
    q->bound++;
    if (q->rc == SQLITE_OK)
        bound(q, sqlite3_bind_text64(q->st, q->bound, v.p ? v.p : "", v.n, SQLITE_STATIC, SQLITE_UTF8));
}

void sqlite_q_blob(struct sqlite_q *q, const void *p, size_t n)
{
    q->bound++;
    if (q->rc == SQLITE_OK)
        bound(q, sqlite3_bind_blob64(q->st, q->bound, p ? p : "", n, SQLITE_STATIC));
}

bool sqlite_q_next(struct sqlite_q *q)
{
    if (q->rc == SQLITE_OK || q->rc == SQLITE_ROW)
        q->rc = sqlite3_step(q->st);
    return q->rc == SQLITE_ROW;
}

enum pf_err sqlite_q_end(struct sqlite_q *q)
{
    enum pf_err e = sqlite_err(q->c ? q->c->db : NULL, q->rc);
    if (q->st)
        sqlite3_reset(q->st);
    return e;
}

enum pf_err sqlite_q_run(struct sqlite_q *q)
{
    while (sqlite_q_next(q))
        ;
    return sqlite_q_end(q);
}

struct str sqlite_col_str(const struct sqlite_q *q, int i)
{
    const char *p = sqlite3_column_blob(q->st, i);
    return (struct str){p, (size_t)sqlite3_column_bytes(q->st, i)};
}

bool sqlite_col_dup(struct sqlite_q *q, int i, struct arena *a, struct str *ret)
{
    struct str s = arena_strdup(a, sqlite_col_str(q, i));
    if (!s.p) {
        q->rc = SQLITE_NOMEM;
        return false;
    }
    *ret = s;
    return true;
}

void sqlite_col_blob(const struct sqlite_q *q, int i, void *out, size_t n)
{
    const void *p = sqlite3_column_blob(q->st, i);
    if (p && (size_t)sqlite3_column_bytes(q->st, i) == n)
        memcpy(out, p, n);
    else
        memset(out, 0, n);
}

/* ---- connections ---- */

const char sqlite_begin[] = "BEGIN", sqlite_begin_write[] = "BEGIN IMMEDIATE", sqlite_commit[] = "COMMIT",
           sqlite_rollback[] = "ROLLBACK";

int sqlite_conn_open(struct sqlite_conn *c, const char *path, int flags)
{
    int rc = sqlite3_open_v2(path, &c->db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_timeout(c->db, SQLITE_BUSY_MS);
    if (rc == SQLITE_OK && flags & SQLITE_OPEN_READONLY)
        rc = sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return rc;
}

enum pf_err sqlite_conn_ready(struct sqlite_conn *c)
{
    const char *const cycle[] = {sqlite_begin, sqlite_rollback, sqlite_begin, sqlite_commit};
    enum pf_err e = PFE_OK;
    for (size_t i = 0; i < sizeof cycle / sizeof cycle[0] && e == PFE_OK; i++)
        e = sqlite_exec(c, cycle[i]);
    return e;
}

void sqlite_conn_close(struct sqlite_conn *c)
{
    for (size_t i = 0; i < SQLITE_STMTS_MAX; i++)
        if (c->stmts[i].sql)
            sqlite3_finalize(c->stmts[i].st);
    sqlite3_close_v2(c->db);
    memset(c->stmts, 0, sizeof c->stmts);
    c->n_stmts = 0;
    c->db = NULL;
}

void sqlite_reader_release(void *conn)
{
    struct sqlite_conn *c = conn;
    pthread_mutex_lock(&c->store->readers_lock);
    c->in_use = false;
    pthread_mutex_unlock(&c->store->readers_lock);
}

static struct sqlite_conn *reader_claim(struct sqlite_store *s)
{
    for (unsigned i = 0; i < s->n_readers; i++)
        if (!s->readers[i]->in_use)
            return s->readers[i];
    if (s->n_readers == SQLITE_READERS_MAX)
        return NULL;
    struct sqlite_conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->store = s;
    int rc = sqlite_conn_open(c, s->path, SQLITE_OPEN_READONLY);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(c->db, "PRAGMA cache_size = -512; PRAGMA query_only = ON;", NULL, NULL, NULL);
    if (rc != SQLITE_OK || sqlite_conn_ready(c) != PFE_OK) {
        sqlite_conn_close(c);
        free(c);
        return NULL;
    }
    s->readers[s->n_readers++] = c;
    return c;
}

struct sqlite_conn *sqlite_reader(struct sqlite_store *s)
{
    struct sqlite_conn *c = pthread_getspecific(s->reader_key);
    if (c)
        return c;
    pthread_mutex_lock(&s->readers_lock);
    c = reader_claim(s);
    if (c && pthread_setspecific(s->reader_key, c) == 0)
        c->in_use = true;
    else
        c = NULL;
    pthread_mutex_unlock(&s->readers_lock);
    return c;
}

enum pf_err sqlite_exec(struct sqlite_conn *c, const char *sql)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c, sql);
    return sqlite_q_run(&q);
}

/* ---- writing ---- */

enum pf_err sqlite_write_begin(struct sqlite_store *s)
{
    if (s->mode == SQLITE_INSPECT)
        return PFE_UNAVAILABLE;
    pthread_mutex_lock(&s->wlock);
    enum pf_err e = atomic_load(&s->fatal) ? PFE_INTERNAL : sqlite_exec(&s->w, sqlite_begin_write);
    if (e)
        pthread_mutex_unlock(&s->wlock);
    return e;
}

/* Moves the WAL into the database. The commits in it are durable already, so want of room is no failure; but a failed
   fsync is never tried again. */
static void checkpoint(struct sqlite_store *s)
{
    if (s->wal_frames < s->checkpoint_at) {
        if (s->wal_frames < SQLITE_CHECKPOINT_PAGES)
            s->checkpoint_at = SQLITE_CHECKPOINT_PAGES;
        return;
    }
    int rc = sqlite3_wal_checkpoint_v2(s->w.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    s->checkpoint_at = s->wal_frames + SQLITE_CHECKPOINT_PAGES;
    if (rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC || (rc & 0xff) == SQLITE_CORRUPT)
        atomic_store(&s->fatal, true);
}

static void rollback(struct sqlite_store *s)
{
    /* SQLite rolls back by itself after some errors. */
    if (!sqlite3_get_autocommit(s->w.db) && sqlite_exec(&s->w, sqlite_rollback) != PFE_OK)
        atomic_store(&s->fatal, true);
}

void sqlite_write_rollback(struct sqlite_store *s)
{
    rollback(s);
    pthread_mutex_unlock(&s->wlock);
}

enum pf_err sqlite_write_failed(struct sqlite_store *s, enum pf_err e)
{
    if (e == PFE_DISK_FULL)
        atomic_store(&s->full, true);
    sqlite_write_rollback(s);
    return atomic_load(&s->fatal) ? PFE_INTERNAL : e;
}

enum pf_err sqlite_write_commit_locked(struct sqlite_store *s)
{
    struct sqlite_q q;
    int64_t t0 = s->h_commit ? clock_mono(clock_system()) : 0;
    sqlite_q_begin(&q, &s->w, sqlite_commit);
    enum pf_err e = sqlite_q_run(&q);
    if (s->h_commit)
        metric_observe(s->h_commit, clock_mono(clock_system()) - t0);
    if (e == PFE_OK) {
        atomic_store(&s->full, false);
        checkpoint(s);
        return PFE_OK;
    }
    /* The last frame, which would have made it a commit, is not whole. Other failures may come after it was. */
    bool known = e == PFE_DISK_FULL && (q.rc == SQLITE_FULL || q.rc == SQLITE_IOERR_WRITE);
    atomic_store(&s->full, known);
    if (!known)
        atomic_store(&s->fatal, true);
    rollback(s);
    return atomic_load(&s->fatal) ? PFE_INTERNAL : e;
}

enum pf_err sqlite_write_commit(struct sqlite_store *s)
{
    enum pf_err e = sqlite_write_commit_locked(s);
    pthread_mutex_unlock(&s->wlock);
    return e;
}
