#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store/sqlite/journal.h"
#include "store/sqlite/schema.h"

/* ---- the directory ---- */

enum pf_err sqlite_dir_make(const char *dir, char ret_why[SQLITE_WHY])
{
    if (mkdir(dir, 0700) == 0) {
        char parent[4096];
        snprintf(parent, sizeof parent, "%s/..", dir);
        return sqlite_sync(parent, ret_why);
    }
    struct stat st;
    if (errno == EEXIST && stat(dir, &st) == 0 && S_ISDIR(st.st_mode))
        return PFE_OK;
    int os = errno;
    snprintf(ret_why, SQLITE_WHY, "cannot create the directory %.180s: %s", dir, strerror(os));
    return os == ENOSPC || os == EDQUOT ? PFE_DISK_FULL : PFE_UNAVAILABLE;
}

enum pf_err sqlite_sync(const char *path, char ret_why[SQLITE_WHY])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fsync(fd) == 0) {
        close(fd);
        return PFE_OK;
    }
    snprintf(ret_why, SQLITE_WHY, "cannot sync %.180s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return PFE_UNAVAILABLE;
}

enum pf_err sqlite_dir_lock(const char *dir, int *ret_fd, char ret_why[SQLITE_WHY])
{
    char path[4096];
    snprintf(path, sizeof path, "%s/lock", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        snprintf(ret_why, SQLITE_WHY, "cannot open %.180s: %s", path, strerror(errno));
        return errno == ENOSPC || errno == EDQUOT ? PFE_DISK_FULL : PFE_UNAVAILABLE;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        *ret_fd = fd;
        return PFE_OK;
    }
    bool taken = errno == EWOULDBLOCK;
    snprintf(ret_why, SQLITE_WHY, taken ? "%.180s is in use by another process" : "cannot lock %.180s", dir);
    close(fd);
    return taken ? PFE_WRONG_STATE : PFE_UNAVAILABLE;
}

char *sqlite_db_path(const char *dir)
{
    char *path;
    return asprintf(&path, "%s/payflow.db", dir) < 0 ? NULL : path;
}

enum pf_err sqlite_open_writer(struct sqlite_conn *c, const char *path, char ret_why[SQLITE_WHY])
{
    static const char pragmas[] = "PRAGMA journal_mode = WAL;"
                                  "PRAGMA synchronous = FULL;"
                                  "PRAGMA wal_autocheckpoint = 0;" /* sqlite_write_commit does it and sees errors */
                                  "PRAGMA journal_size_limit = 16777216;"
                                  "PRAGMA cache_size = -8192;"
                                  "PRAGMA temp_store = MEMORY;"
                                  "PRAGMA secure_delete = FAST;" /* else each message that goes is written over first */
                                  "PRAGMA foreign_keys = ON;";
    int rc = sqlite_conn_open(c, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(c->db, pragmas, NULL, NULL, NULL);
    if (rc == SQLITE_OK && chmod(path, 0600) != 0)
        rc = SQLITE_PERM;
    if (rc == SQLITE_OK)
        return PFE_OK;
    snprintf(ret_why, SQLITE_WHY, "cannot open %.150s: %s", path, c->db ? sqlite3_errmsg(c->db) : sqlite3_errstr(rc));
    return sqlite_err(c->db, rc);
}

/* ---- what is in memory ---- */

static enum pf_err load_projection(struct sqlite_store *s, struct sqlite_conn *c, int64_t *ret_stat_seq,
                                   int64_t *ret_indexed)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c, "SELECT name, value FROM projection");
    while (sqlite_q_next(&q)) {
        struct str name = sqlite_col_str(&q, 0);
        int64_t v = sqlite_col_i64(&q, 1);
        if (str_is(name, "account"))
            atomic_store(&s->projected_seq, v);
        else if (str_is(name, "stat"))
            *ret_stat_seq = v;
        else if (str_is(name, "idempotency"))
            *ret_indexed = v;
        else if (str_is(name, "time"))
            s->book.time_us = v;
        else if (str_is(name, "lag"))
            s->book.lag_us = v;
    }
    return sqlite_q_end(&q);
}

static enum pf_err load_accounts(struct book *b, struct sqlite_conn *c)
{
    struct sqlite_q q;
    enum pf_err e = PFE_OK;
    sqlite_q_begin(&q, c, SQLITE_ACCOUNTS);
    while (e == PFE_OK && sqlite_q_next(&q)) {
        struct book_account a;
        sqlite_account_read(&q, &a);
        e = book_reserve(b, 1);
        if (e == PFE_OK)
            book_add(b, &a);
    }
    enum pf_err end = sqlite_q_end(&q);
    return e ? e : end;
}

static enum pf_err load_stats(struct book *b, struct sqlite_conn *c)
{
    struct sqlite_q q;
    enum pf_err e = PFE_OK;
    sqlite_q_begin(&q, c, "SELECT kind, currency, minute, count, volume FROM stat");
    while (e == PFE_OK && sqlite_q_next(&q))
        e = book_stat_load(b, (enum ledger_kind)sqlite_col_i64(&q, 0), (money_currency)sqlite_col_i64(&q, 1),
                           sqlite_col_i64(&q, 2), sqlite_col_i64(&q, 3), sqlite_col_i64(&q, 4));
    enum pf_err end = sqlite_q_end(&q);
    return e ? e : end;
}

static enum pf_err load_ends(struct sqlite_store *s, struct sqlite_conn *c, int64_t *ret_sealed)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c, "SELECT max(seq) FROM journal");
    if (sqlite_q_next(&q))
        s->book.head_seq = sqlite_col_i64(&q, 0);
    enum pf_err e = sqlite_q_end(&q);
    if (e)
        return e;
    sqlite_q_begin(&q, c, "SELECT last_seq, hash FROM seal ORDER BY last_seq DESC LIMIT 1");
    if (sqlite_q_next(&q)) {
        *ret_sealed = sqlite_col_i64(&q, 0);
        sqlite_col_blob(&q, 1, s->seal, sizeof s->seal);
    }
    return sqlite_q_end(&q);
}

/* A journal that was tampered with must still open for inspection, so that it can be examined. */
static enum pf_err replay_tail(struct sqlite_store *s, struct sqlite_conn *c, int64_t stat_seq)
{
    int64_t account_seq = atomic_load(&s->projected_seq), head = s->book.head_seq;
    struct sqlite_q q;
    enum pf_err e = PFE_OK;
    sqlite_q_begin(&q, c, "SELECT " SQLITE_ENTRY_COLUMNS " FROM journal WHERE seq > ?1 ORDER BY seq");
    sqlite_q_i64(&q, account_seq < stat_seq ? account_seq : stat_seq);
    while (e == PFE_OK && sqlite_q_next(&q)) {
        struct ledger_entry x;
        sqlite_entry_read(&q, &x);
        if (x.seq > stat_seq) {
            e = book_stat_reserve(&s->book, x.kind, x.currency);
            if (e == PFE_OK)
                book_stat_add(&s->book, &x);
        }
        if (e == PFE_OK)
            e = sqlite_replay_entry(&s->book, c, &x, NULL);
        if (e == PFE_INTERNAL && s->mode == SQLITE_INSPECT)
            e = PFE_OK;
        s->replayed++;
    }
    s->book.head_seq = head;
    enum pf_err end = sqlite_q_end(&q);
    return e ? e : end;
}

static enum pf_err load(struct sqlite_store *s, struct sqlite_conn *c, char ret_why[SQLITE_WHY])
{
    int64_t stat_seq = 0, sealed = 0, indexed = 0;
    enum pf_err e = load_projection(s, c, &stat_seq, &indexed);
    if (e == PFE_OK)
        e = sqlite_idem_load(&s->idem, c, indexed);
    if (e == PFE_OK)
        e = load_accounts(&s->book, c);
    if (e == PFE_OK)
        e = load_stats(&s->book, c);
    if (e == PFE_OK)
        e = load_ends(s, c, &sealed);
    if (e == PFE_OK && sealed != s->book.head_seq && s->mode == SQLITE_SERVE) {
        snprintf(ret_why, SQLITE_WHY, "the journal ends at entry %lld, its seals at %lld: entries are missing",
                 (long long)s->book.head_seq, (long long)sealed);
        return PFE_WRONG_STATE;
    }
    if (e == PFE_OK)
        e = replay_tail(s, c, stat_seq);
    if (e == PFE_INTERNAL) {
        snprintf(ret_why, SQLITE_WHY, "an entry of the journal names an account or a hold that does not exist");
        return PFE_WRONG_STATE;
    }
    if (e)
        snprintf(ret_why, SQLITE_WHY, "cannot read the database: %s", sqlite3_errmsg(c->db));
    s->epoch_started = atomic_load(&s->projected_seq);
    return e;
}

/* ---- opening and closing ---- */

static void store_free(struct sqlite_store *s)
{
    pthread_key_delete(s->reader_key);
    for (unsigned i = 0; i < s->n_readers; i++) {
        sqlite_conn_close(s->readers[i]);
        free(s->readers[i]);
    }
    sqlite_conn_close(&s->w);
    book_free(&s->book);
    sqlite_idem_free(&s->idem);
    names_free(&s->names);
    sha256_free(s->sha);
    pthread_mutex_destroy(&s->wlock);
    lease_book_fini(&s->leases);
    pthread_mutex_destroy(&s->readers_lock);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    free(s->path);
    free(s);
}

static void sqlite_close(struct store *st)
{
    struct sqlite_store *s = sqlite_of(st);
    /* What cannot be written now is replayed at the next start. */
    if (s->mode == SQLITE_SERVE && !atomic_load(&s->fatal) && sqlite_flush(st) != PFE_OK)
        s->epoch_seq = 0;
    store_free(s);
}

static int64_t file_bytes(const char *path, const char *suffix)
{
    char name[4096];
    struct stat st;
    snprintf(name, sizeof name, "%s%s", path, suffix);
    return stat(name, &st) == 0 ? (int64_t)st.st_size : 0;
}

/* Room for some commits to come: less is as good as none. */
static bool has_room(const char *path)
{
    enum { ROOM_LEAST = 4 << 20 };
    struct statvfs v;
    return access(path, W_OK) == 0 && statvfs(path, &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize >= ROOM_LEAST;
}

static enum pf_err sqlite_info(struct store *st, struct store_info *ret)
{
    struct sqlite_store *s = sqlite_of(st);
    struct store_info i = {.engine = "sqlite",
                           .schema = s->schema,
                           .projected_seq = atomic_load(&s->projected_seq),
                           .db_bytes = file_bytes(s->path, ""),
                           .wal_bytes = file_bytes(s->path, "-wal"),
                           .replayed = s->replayed,
                           .writable = s->mode == SQLITE_SERVE && !atomic_load(&s->full) && !atomic_load(&s->fatal) &&
                                       has_room(s->path),
                           .fatal = atomic_load(&s->fatal)};
    pthread_rwlock_rdlock(&s->book.lock);
    i.head_seq = s->book.head_seq;
    i.accounts = (int64_t)s->book.n;
    pthread_rwlock_unlock(&s->book.lock);
    *ret = i;
    return PFE_OK;
}

/* What an earlier process wrote to the log and did not sync, or in vain, is read from the system's memory and would be
   answered from: first it is made durable. A sync alone is not enough, as after one that failed the system takes the
   pages for written; and a checkpoint would put new pages under an old end of the log. So the log is written over with
   its own bytes. */
static int log_rewrite(sqlite3 *db)
{
    uint8_t block[1 << 16];
    sqlite3_file *f = NULL;
    sqlite3_int64 n = 0;
    int rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &f);
    if (rc != SQLITE_OK || !f || !f->pMethods)
        return rc;
    rc = f->pMethods->xFileSize(f, &n);
    for (sqlite3_int64 at = 0; rc == SQLITE_OK && at < n; at += (sqlite3_int64)sizeof block) {
        int part = n - at < (sqlite3_int64)sizeof block ? (int)(n - at) : (int)sizeof block;
        rc = f->pMethods->xRead(f, block, part, at);
        if (rc == SQLITE_OK)
            rc = f->pMethods->xWrite(f, block, part, at);
    }
    return rc == SQLITE_OK && n > 0 ? f->pMethods->xSync(f, SQLITE_SYNC_NORMAL) : rc;
}

static enum pf_err make_durable(struct sqlite_conn *c, char ret_why[SQLITE_WHY])
{
    enum pf_err e = sqlite_err(NULL, log_rewrite(c->db));
    if (e)
        snprintf(ret_why, SQLITE_WHY, "cannot make the log of the database durable");
    return e;
}

static enum pf_err load_names(struct sqlite_store *s, char ret_why[SQLITE_WHY])
{
    struct sqlite_q q;
    names_init(&s->names);
    sqlite_q_begin(&q, &s->w, "SELECT username_fold FROM user WHERE status <> 2");
    while (sqlite_q_next(&q))
        names_add(&s->names, sqlite_col_str(&q, 0));
    enum pf_err e = sqlite_q_end(&q);
    if (e)
        snprintf(ret_why, SQLITE_WHY, "cannot read the users: %s", sqlite3_errmsg(s->w.db));
    return e;
}

static enum pf_err open_serve(struct sqlite_store *s, const char *dir, char ret_why[SQLITE_WHY])
{
    enum pf_err e = sqlite_dir_make(dir, ret_why);
    if (e == PFE_OK)
        e = sqlite_dir_lock(dir, &s->lock_fd, ret_why);
    if (e == PFE_OK)
        e = sqlite_open_writer(&s->w, s->path, ret_why);
    if (e == PFE_OK)
        e = schema_migrate(&s->w, -1, ret_why);
    if (e == PFE_OK)
        e = make_durable(&s->w, ret_why);
    if (e == PFE_OK)
        e = load(s, &s->w, ret_why);
    if (e == PFE_OK)
        e = load_names(s, ret_why);
    s->schema = (int)sqlite_migration_texts_n;
    return e;
}

static enum pf_err open_inspect(struct sqlite_store *s, char ret_why[SQLITE_WHY])
{
    if (access(s->path, F_OK) != 0) {
        snprintf(ret_why, SQLITE_WHY, "there is no database at %.180s", s->path);
        return PFE_NOT_FOUND;
    }
    struct sqlite_conn *c = sqlite_reader(s);
    enum pf_err e = c ? sqlite_exec(c, sqlite_begin) : PFE_UNAVAILABLE;
    if (e) {
        snprintf(ret_why, SQLITE_WHY, "cannot open %.180s for reading", s->path);
        return e;
    }
    e = schema_check(c, &s->schema, ret_why);
    if (e == PFE_OK && s->schema < (int)sqlite_migration_texts_n) {
        snprintf(ret_why, SQLITE_WHY, "the database is at migration %d, this program needs %u: migrate first",
                 s->schema, sqlite_migration_texts_n);
        e = PFE_WRONG_STATE;
    }
    if (e == PFE_OK)
        e = load(s, c, ret_why);
    enum pf_err end = sqlite_exec(c, sqlite_commit);
    return e ? e : end;
}

static enum pf_err lease_take(struct store *st, struct str name, struct str holder, int64_t ttl_us,
                              struct store_lease *ret)
{
    return lease_book_take(&sqlite_of(st)->leases, name, holder, ttl_us, ret);
}

static enum pf_err lease_drop(struct store *st, struct str name, struct str holder)
{
    return lease_book_drop(&sqlite_of(st)->leases, name, holder);
}

static const struct store_ops sqlite_ops = {
    .close = sqlite_close,
    .info = sqlite_info,
    .documents = sqlite_documents,

    .lease_take = lease_take,
    .lease_drop = lease_drop,
    .group_begin = sqlite_group_begin,
    .group_commit = sqlite_group_commit,
    .group_abort = sqlite_group_abort,
    .flush = sqlite_flush,
    .account_rebuild = sqlite_account_rebuild,

    .tx_begin = sqlite_rec_tx_begin,
    .tx_commit = sqlite_rec_tx_commit,
    .tx_rollback = sqlite_rec_tx_rollback,
    .tx_fence = sqlite_rec_tx_fence,

    .user_insert = sqlite_rec_user_insert,
    .user_update = sqlite_rec_user_update,
    .apikey_insert = sqlite_rec_apikey_insert,
    .apikey_revoke = sqlite_rec_apikey_revoke,
    .apikey_touch = sqlite_rec_apikey_touch,
    .session_insert = sqlite_rec_session_insert,
    .session_revoke = sqlite_rec_session_revoke,
    .refresh_insert = sqlite_rec_refresh_insert,
    .refresh_use = sqlite_rec_refresh_use,
    .schedule_insert = sqlite_rec_schedule_insert,
    .schedule_update = sqlite_rec_schedule_update,
    .run_insert = sqlite_rec_run_insert,
    .audit_append = sqlite_rec_audit_append,
    .idem_put = sqlite_rec_idem_put,
    .event_insert = sqlite_event_insert,
    .event_status = sqlite_event_status,
    .inbox_purge = sqlite_inbox_purge,

    .user_get = sqlite_rec_user_get,
    .user_by_uuid = sqlite_rec_user_by_uuid,
    .user_by_name = sqlite_rec_user_by_name,
    .user_name_free = sqlite_rec_user_name_free,
    .user_by_email = sqlite_rec_user_by_email,
    .user_list = sqlite_rec_user_list,
    .admin_count = sqlite_rec_admin_count,
    .users_closing = sqlite_rec_users_closing,
    .apikey_by_hash = sqlite_rec_apikey_by_hash,
    .apikey_list = sqlite_rec_apikey_list,
    .session_get = sqlite_rec_session_get,
    .refresh_get = sqlite_rec_refresh_get,
    .schedule_get = sqlite_rec_schedule_get,
    .schedule_by_uuid = sqlite_rec_schedule_by_uuid,
    .schedule_list = sqlite_rec_schedule_list,
    .schedule_due = sqlite_rec_schedule_due,
    .run_list = sqlite_rec_run_list,
    .audit_list = sqlite_rec_audit_list,
    .idem_get = sqlite_rec_idem_get,
    .events_get = sqlite_events_get,
    .bookings_get = sqlite_bookings_get,
    .booking_list = sqlite_booking_list,
    .bookings_due = sqlite_bookings_due,
    .outbox_list = sqlite_outbox_list,

    .account_get = sqlite_account_get,
    .account_by_id = sqlite_account_by_id,
    .account_list = sqlite_account_list,
    .entry_get = sqlite_entry_get,
    .entry_list = sqlite_entry_list,
    .journal_scan = sqlite_journal_scan,
    .balance_at = sqlite_balance_at,
    .holds_due = sqlite_holds_due,
    .replay = sqlite_replay,
    .stats = sqlite_stats,
    .trial = sqlite_trial,
    .verify = sqlite_verify,
};

static void configure_library(void)
{
    /* Statistics would make every allocation of every connection take one lock. Fails, harmlessly, when the process
       used SQLite before. */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

enum pf_err store_sqlite_open(const struct sqlite_options *o, struct store **ret, char ret_why[SQLITE_WHY])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, configure_library);

    snprintf(ret_why, SQLITE_WHY, "out of memory");
    struct sqlite_store *s = calloc(1, sizeof *s);
    if (!s)
        return PFE_NOMEM;
    if (pthread_key_create(&s->reader_key, sqlite_reader_release) != 0) {
        free(s);
        return PFE_NOMEM;
    }
    if (book_init(&s->book) != PFE_OK) {
        pthread_key_delete(s->reader_key);
        free(s);
        return PFE_NOMEM;
    }
    s->base.ops = &sqlite_ops;
    s->mode = o->mode;
    s->lock_fd = -1;
    s->checkpoint_at = SQLITE_CHECKPOINT_PAGES;
    s->flush_entries = o->flush_entries > 0 ? o->flush_entries : SQLITE_FLUSH_ENTRIES;
    if (o->metrics)
        s->h_commit = metric_histogram(o->metrics, "payflow_fsync_duration_seconds",
                                       "Duration of a SQLite COMMIT: writing the log and its fsync.", "",
                                       metric_bounds_us, metric_bounds_us_n, 1000000);
    s->w.store = s;
    sqlite_idem_init(&s->idem);
    pthread_mutex_init(&s->wlock, NULL);
    lease_book_init(&s->leases);
    pthread_mutex_init(&s->readers_lock, NULL);
    s->sha = sha256_new();
    s->path = sqlite_db_path(o->dir);

    enum pf_err e = PFE_NOMEM;
    if (s->sha && s->path)
        e = o->mode == SQLITE_SERVE ? open_serve(s, o->dir, ret_why) : open_inspect(s, ret_why);
    if (e == PFE_OK && s->w.db) {
        e = sqlite_conn_ready(&s->w);
        if (e)
            snprintf(ret_why, SQLITE_WHY, "cannot use %.150s: %s", s->path, sqlite3_errmsg(s->w.db));
    }
    if (e) {
        store_free(s);
        return e;
    }
    if (s->w.db)
        sqlite_watch_wal(s);
    ret_why[0] = '\0';
    *ret = &s->base;
    return PFE_OK;
}
