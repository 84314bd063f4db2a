/* Whole-database operations that need no open store: migrations, backup, restore. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/sqlite/journal.h"
#include "store/sqlite/schema.h"

/* ---- opening ---- */

static enum pf_err must_exist(const char *path, char ret_why[SQLITE_WHY])
{
    if (access(path, F_OK) == 0)
        return PFE_OK;
    snprintf(ret_why, SQLITE_WHY, "there is no database at %.180s", path);
    return PFE_NOT_FOUND;
}

enum pf_err sqlite_open_locked(const char *dir, bool create, struct sqlite_conn *c, int *ret_lock,
                               char ret_why[SQLITE_WHY])
{
    char *path = sqlite_db_path(dir);
    if (!path) {
        snprintf(ret_why, SQLITE_WHY, "out of memory");
        return PFE_NOMEM;
    }
    enum pf_err e = create ? sqlite_dir_make(dir, ret_why) : must_exist(path, ret_why);
    if (e == PFE_OK)
        e = sqlite_dir_lock(dir, ret_lock, ret_why);
    if (e == PFE_OK)
        e = sqlite_open_writer(c, path, ret_why);
    free(path);
    return e;
}

static enum pf_err open_reader(const char *path, struct sqlite_conn *c, char ret_why[SQLITE_WHY])
{
    enum pf_err e = must_exist(path, ret_why);
    if (e)
        return e;
    int rc = sqlite_conn_open(c, path, SQLITE_OPEN_READONLY);
    if (rc == SQLITE_OK)
        return PFE_OK;
    snprintf(ret_why, SQLITE_WHY, "cannot open %.150s: %s", path, sqlite3_errstr(rc));
    return sqlite_err(c->db, rc);
}

/* ---- migrations ---- */

enum pf_err store_sqlite_migrations(const char *dir, struct sqlite_migration *out, unsigned cap, unsigned *ret_n,
                                    char ret_why[SQLITE_WHY])
{
    struct sqlite_conn c = {0};
    char *path = sqlite_db_path(dir);
    if (!path)
        return PFE_NOMEM;
    enum pf_err e = open_reader(path, &c, ret_why);
    if (e == PFE_OK) {
        e = schema_list(&c, out, cap, ret_n, ret_why);
        if (e && e != PFE_WRONG_STATE)
            snprintf(ret_why, SQLITE_WHY, "cannot read %.150s: %s", path, sqlite3_errmsg(c.db));
    }
    sqlite_conn_close(&c);
    free(path);
    return e;
}

enum pf_err store_sqlite_migrate(const char *dir, int to, char ret_why[SQLITE_WHY])
{
    struct sqlite_conn c = {0};
    int lock = -1;
    enum pf_err e = sqlite_open_locked(dir, true, &c, &lock, ret_why);
    if (e == PFE_OK)
        e = schema_migrate(&c, to, ret_why);
    sqlite_conn_close(&c);
    if (lock >= 0)
        close(lock);
    return e;
}

/* ---- backup ---- */

static enum pf_err sync_with_dir(const char *file, char ret_why[SQLITE_WHY])
{
    char dir[4096];
    const char *slash = strrchr(file, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - file + 1) : 1, slash ? file : ".");
    enum pf_err e = sqlite_sync(file, ret_why);
    return e ? e : sqlite_sync(dir, ret_why);
}

static enum pf_err copy_pages(struct sqlite_conn *from, struct sqlite_conn *to, char ret_why[SQLITE_WHY])
{
    sqlite3_backup *b = sqlite3_backup_init(to->db, "main", from->db, "main");
    int rc = b ? sqlite3_backup_step(b, -1) : sqlite3_errcode(to->db);
    if (b && (rc == SQLITE_DONE || rc == SQLITE_OK))
        rc = sqlite3_backup_finish(b);
    else if (b)
        sqlite3_backup_finish(b);
    /* One file, that opens without a WAL beside it. */
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(to->db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        return PFE_OK;
    snprintf(ret_why, SQLITE_WHY, "cannot copy the database: %s", sqlite3_errstr(rc));
    return sqlite_err(to->db, rc);
}

enum pf_err store_sqlite_backup(const char *dir, const char *file, char ret_why[SQLITE_WHY])
{
    struct sqlite_conn from = {0}, to = {0};
    char *path = sqlite_db_path(dir);
    if (!path)
        return PFE_NOMEM;
    enum pf_err e = open_reader(path, &from, ret_why);
    free(path);
    int fd = e == PFE_OK ? open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    if (fd < 0) {
        if (e == PFE_OK) {
            snprintf(ret_why, SQLITE_WHY, "cannot create %.180s: %s", file, strerror(errno));
            e = errno == EEXIST ? PFE_WRONG_STATE : errno == ENOSPC ? PFE_DISK_FULL : PFE_UNAVAILABLE;
        }
        sqlite_conn_close(&from);
        return e;
    }
    close(fd);
    int rc = sqlite_conn_open(&to, file, SQLITE_OPEN_READWRITE);
    if (rc == SQLITE_OK) {
        e = copy_pages(&from, &to, ret_why);
    } else {
        snprintf(ret_why, SQLITE_WHY, "cannot open %.180s: %s", file, sqlite3_errstr(rc));
        e = sqlite_err(to.db, rc);
    }
    sqlite_conn_close(&to);
    sqlite_conn_close(&from);
    if (e == PFE_OK)
        e = sync_with_dir(file, ret_why);
    if (e)
        unlink(file);
    return e;
}

/* ---- restore ---- */

static enum pf_err copy_file(const char *from, const char *to, char ret_why[SQLITE_WHY])
{
    enum { BLOCK = 1 << 16 };
    static const char failed[] = "cannot copy to %.180s: %s";
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
    if (in < 0) {
        snprintf(ret_why, SQLITE_WHY, "cannot read %.180s: %s", from, strerror(errno));
        return errno == ENOENT ? PFE_NOT_FOUND : PFE_UNAVAILABLE;
    }
    char *block = malloc(BLOCK);
    if (block)
        out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n = -1;
    bool ok = out >= 0;
    while (ok && (n = read(in, block, BLOCK)) > 0)
        for (ssize_t at = 0; ok && at < n;) {
            ssize_t w = write(out, block + at, (size_t)(n - at));
            ok = w > 0;
            at += w;
        }
    ok = ok && n == 0 && fsync(out) == 0;
    int os = errno;
    free(block);
    close(in);
    if (out >= 0)
        close(out);
    if (ok)
        return PFE_OK;
    snprintf(ret_why, SQLITE_WHY, failed, to, strerror(os));
    return os == ENOSPC || os == EDQUOT ? PFE_DISK_FULL : PFE_UNAVAILABLE;
}

/* Is it a database of ours that this program can open, and does it prove? */
static enum pf_err judge_copy(const char *path, bool verify, struct store_verify *ret, char ret_why[SQLITE_WHY])
{
    struct sqlite_conn c = {0};
    int version = 0;
    enum pf_err e = open_reader(path, &c, ret_why);
    if (e == PFE_OK)
        e = schema_check(&c, &version, ret_why);
    if (e == PFE_OK && version == 0) {
        snprintf(ret_why, SQLITE_WHY, "the file is not a backup of this program");
        e = PFE_WRONG_STATE;
    }
    if (e == PFE_OK && verify && version < (int)sqlite_migration_texts_n) {
        snprintf(ret_why, SQLITE_WHY, "the backup is at migration %d: only migration %u can be verified", version,
                 sqlite_migration_texts_n);
        e = PFE_WRONG_STATE;
    }
    struct store_verify found = {.ok = true};
    if (e == PFE_OK && verify) {
        e = sqlite_prove(&c, &found);
        if (e)
            snprintf(ret_why, SQLITE_WHY, "cannot verify the backup: %s", sqlite3_errmsg(c.db));
    }
    sqlite_conn_close(&c);
    if (e == PFE_OK && !found.ok) {
        snprintf(ret_why, SQLITE_WHY, "the backup does not verify: %s", found.what);
        e = PFE_WRONG_STATE;
    }
    if (ret && verify && (e == PFE_OK || !found.ok))
        *ret = found;
    return e;
}

static enum pf_err put_in_place(const char *copy, const char *path, char ret_why[SQLITE_WHY])
{
    if (rename(copy, path) != 0) {
        snprintf(ret_why, SQLITE_WHY, "cannot put the copy in place: %s", strerror(errno));
        return PFE_UNAVAILABLE;
    }
    return sync_with_dir(path, ret_why);
}

/* NULL: out of memory, or a is NULL. */
static char *joined(const char *a, const char *b)
{
    char *s;
    return a && asprintf(&s, "%s%s", a, b) >= 0 ? s : NULL;
}

enum pf_err store_sqlite_restore(const char *file, const char *dir, bool verify, struct store_verify *ret,
                                 char ret_why[SQLITE_WHY])
{
    char *path = sqlite_db_path(dir), *copy = joined(path, ".restore"), *wal = joined(path, "-wal");
    int lock = -1;
    enum pf_err e = PFE_OK;
    if (!copy || !wal) {
        snprintf(ret_why, SQLITE_WHY, "out of memory");
        e = PFE_NOMEM;
    }
    if (e == PFE_OK)
        e = sqlite_dir_make(dir, ret_why);
    if (e == PFE_OK)
        e = sqlite_dir_lock(dir, &lock, ret_why);
    /* A WAL that was left behind would be read as the copy's. */
    if (e == PFE_OK && (access(path, F_OK) == 0 || access(wal, F_OK) == 0)) {
        snprintf(ret_why, SQLITE_WHY, "there is a database in %.180s already: restore into an empty directory", dir);
        e = PFE_WRONG_STATE;
    }
    if (e == PFE_OK) {
        e = copy_file(file, copy, ret_why);
        if (e == PFE_OK)
            e = judge_copy(copy, verify, ret, ret_why);
        if (e == PFE_OK)
            e = put_in_place(copy, path, ret_why);
        if (e)
            unlink(copy);
    }
    if (lock >= 0)
        close(lock);
    free(wal);
    free(copy);
    free(path);
    return e;
}
