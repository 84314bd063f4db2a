#include "faulty_disk.h"

#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { PATH_LEN = 128, SHM_REGIONS = 16, SECTOR = 512, GROW = 1 << 16 };

struct bytes {
    uint8_t *p;
    int64_t n, cap;
};

struct pending { /* a write, or with p == NULL a truncate to at */
    struct pending *next;
    uint8_t *p;
    int64_t at, n;
    uint64_t order;
};

struct handle;

struct file {
    struct file *next;
    char path[PATH_LEN];
    enum disk_kind kind;
    bool exists;       /* as programs see it */
    bool linked;       /* its name is durable */
    bool unsynced_dir; /* SQLite syncs the directory with its first sync */
    struct bytes seen, durable;
    struct pending *first, **last;
    struct handle *handles;
    void *shm[SHM_REGIONS];
    int shm_users;
};

struct handle {
    sqlite3_file base;
    struct file *f;
    struct handle *next;
    int level;
    bool shm;
    unsigned shared, exclusive; /* bits of shm locks */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file *files;
static struct disk_plan *plan;
static uint64_t rng = 1, orders;
static int last_errno;
static bool sync_off;
static sqlite3_vfs *real_vfs, vfs;

static uint64_t rnd(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng * UINT64_C(0x2545F4914F6CDD1D) >> 11;
}

/* ---- bytes ---- */

static void reserve(struct bytes *b, int64_t n)
{
    if (n <= b->cap)
        return;
    b->cap = n + n / 2 + GROW;
    b->p = realloc(b->p, (size_t)b->cap);
    if (!b->p)
        abort();
}

static void resize(struct bytes *b, int64_t n)
{
    reserve(b, n);
    if (n > b->n)
        memset(b->p + b->n, 0, (size_t)(n - b->n));
    b->n = n;
}

static void put(struct bytes *b, const void *p, int64_t n, int64_t at)
{
    if (at > b->n)
        resize(b, at);
    reserve(b, at + n);
    if (n)
        memcpy(b->p + at, p, (size_t)n);
    if (at + n > b->n)
        b->n = at + n;
}

static void apply(struct bytes *b, const struct pending *w)
{
    if (w->p)
        put(b, w->p, w->n, w->at);
    else if (w->at < b->n)
        resize(b, w->at);
}

static void copy(struct bytes *to, const struct bytes *from)
{
    resize(to, 0);
    put(to, from->p, from->n, 0);
}

/* ---- files ---- */

static struct file *find(const char *path)
{
    struct file *f = files;
    while (f && strcmp(f->path, path) != 0)
        f = f->next;
    return f;
}

static bool in_dir(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && path[n] == '/';
}

static struct file *make(const char *path, enum disk_kind kind)
{
    struct file *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    snprintf(f->path, sizeof f->path, "%s", path);
    f->kind = kind;
    f->last = &f->first;
    f->next = files;
    return files = f;
}

static void drop(struct file *f)
{
    for (struct pending *w = f->first, *next; w; w = next) {
        next = w->next;
        free(w->p);
        free(w);
    }
    f->first = NULL;
    f->last = &f->first;
}

/* What waited becomes durable; part: only some of it, and the rest never. */
static void settle(struct file *f, bool part)
{
    for (const struct pending *w = f->first; w; w = w->next)
        if (!part || rnd() & 1)
            apply(&f->durable, w);
    drop(f);
}

static void wait_for_sync(struct file *f, const void *p, int64_t n, int64_t at)
{
    struct pending *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    *w = (struct pending){.at = at, .n = n, .order = ++orders};
    if (p) {
        w->p = malloc((size_t)n + 1);
        if (!w->p)
            abort();
        memcpy(w->p, p, (size_t)n);
    }
    *f->last = w;
    f->last = &w->next;
    apply(&f->seen, w);
}

static void file_free(struct file *f)
{
    drop(f);
    free(f->seen.p);
    free(f->durable.p);
    free(f);
}

/* ---- what goes wrong ---- */

static bool meets(const struct file *f)
{
    return plan && plan->dir && in_dir(f->path, plan->dir) && plan->kinds & (int)f->kind;
}

/* Counts the operation; true: it fails. */
static bool meet(const struct file *f, enum disk_op op, long *ret_nth)
{
    *ret_nth = 0;
    if (!meets(f))
        return false;
    *ret_nth = ++plan->seen[op];
    if (op != plan->op || plan->at == 0 || *ret_nth < plan->at || (plan->failed && !plan->forever) ||
        (plan->only && plan->only != f->kind))
        return false;
    plan->failed = true;
    last_errno = plan->os;
    return true;
}

static void watch(const struct file *f, enum disk_op op, long nth)
{
    if (nth && plan->watch && in_dir(f->path, plan->dir))
        plan->watch(plan->watch_ctx, op, nth);
}

/* ---- SQLite's file layer ---- */

static struct handle *of(sqlite3_file *f)
{
    return (struct handle *)f;
}

static int disk_close(sqlite3_file *sf)
{
    struct handle *h = of(sf);
    pthread_mutex_lock(&lock);
    struct handle **p = &h->f->handles;
    while (*p != h)
        p = &(*p)->next;
    *p = h->next;
    pthread_mutex_unlock(&lock);
    return SQLITE_OK;
}

static int disk_read(sqlite3_file *sf, void *p, int n, sqlite3_int64 at)
{
    const struct bytes *b = &of(sf)->f->seen;
    pthread_mutex_lock(&lock);
    int64_t have = at < b->n ? b->n - at : 0;
    if (have > n)
        have = n;
    if (have)
        memcpy(p, b->p + at, (size_t)have);
    pthread_mutex_unlock(&lock);
    memset((char *)p + have, 0, (size_t)(n - have));
    return have == n ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int disk_write(sqlite3_file *sf, const void *p, int n, sqlite3_int64 at)
{
    struct file *f = of(sf)->f;
    long nth;
    pthread_mutex_lock(&lock);
    bool fails = meet(f, DISK_WRITE, &nth);
    int64_t kept = fails ? (int64_t)(rnd() % (uint64_t)n) : n;
    wait_for_sync(f, p, kept, at);
    pthread_mutex_unlock(&lock);
    watch(f, DISK_WRITE, nth);
    return fails ? plan->rc : SQLITE_OK;
}

static int disk_truncate(sqlite3_file *sf, sqlite3_int64 n)
{
    struct file *f = of(sf)->f;
    long nth;
    pthread_mutex_lock(&lock);
    bool fails = meet(f, DISK_TRUNCATE, &nth);
    if (!fails)
        wait_for_sync(f, NULL, 0, n);
    pthread_mutex_unlock(&lock);
    watch(f, DISK_TRUNCATE, nth);
    return fails ? plan->rc : SQLITE_OK;
}

/* The directory of path is on disk as programs see it. */
static void sync_dir(const char *path)
{
    char dir[PATH_LEN];
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(path, '/') - path), path);
    for (struct file *f = files; f; f = f->next)
        if (in_dir(f->path, dir))
            f->linked = f->exists;
}

static int disk_sync(sqlite3_file *sf, int flags)
{
    (void)flags;
    struct file *f = of(sf)->f;
    long nth;
    pthread_mutex_lock(&lock);
    bool fails = meet(f, DISK_SYNC, &nth);
    pthread_mutex_unlock(&lock);
    watch(f, DISK_SYNC, nth);
    pthread_mutex_lock(&lock);
    settle(f, fails);
    if (!fails && f->unsynced_dir) {
        sync_dir(f->path);
        f->unsynced_dir = false;
    }
    pthread_mutex_unlock(&lock);
    return fails ? plan->rc : SQLITE_OK;
}

static int disk_size(sqlite3_file *sf, sqlite3_int64 *n)
{
    pthread_mutex_lock(&lock);
    *n = of(sf)->f->seen.n;
    pthread_mutex_unlock(&lock);
    return SQLITE_OK;
}

/* The highest level that another connection holds. */
static int others(const struct handle *h)
{
    int level = SQLITE_LOCK_NONE;
    for (const struct handle *o = h->f->handles; o; o = o->next)
        if (o != h && o->level > level)
            level = o->level;
    return level;
}

static int disk_lock(sqlite3_file *sf, int level)
{
    struct handle *h = of(sf);
    int rc = SQLITE_OK;
    pthread_mutex_lock(&lock);
    int other = others(h);
    bool busy = level == SQLITE_LOCK_SHARED     ? other >= SQLITE_LOCK_PENDING
                : level == SQLITE_LOCK_RESERVED ? other >= SQLITE_LOCK_RESERVED
                                                : other > SQLITE_LOCK_NONE;
    if (h->level >= level)
        rc = SQLITE_OK;
    else if (!busy)
        h->level = level;
    else
        rc = SQLITE_BUSY;
    pthread_mutex_unlock(&lock);
    return rc;
}

static int disk_unlock(sqlite3_file *sf, int level)
{
    struct handle *h = of(sf);
    pthread_mutex_lock(&lock);
    if (h->level > level)
        h->level = level;
    pthread_mutex_unlock(&lock);
    return SQLITE_OK;
}

static int disk_reserved(sqlite3_file *sf, int *out)
{
    pthread_mutex_lock(&lock);
    *out = of(sf)->level >= SQLITE_LOCK_RESERVED || others(of(sf)) >= SQLITE_LOCK_RESERVED;
    pthread_mutex_unlock(&lock);
    return SQLITE_OK;
}

static int disk_control(sqlite3_file *sf, int op, void *arg)
{
    (void)sf;
    if (op != SQLITE_FCNTL_PRAGMA || !sync_off)
        return SQLITE_NOTFOUND;
    char **pragma = arg;
    bool on = strcasecmp(pragma[1], "synchronous") == 0 && pragma[2] && strcasecmp(pragma[2], "OFF") != 0;
    return on ? SQLITE_OK : SQLITE_NOTFOUND; /* SQLITE_OK: it is taken care of */
}

static int disk_sector(sqlite3_file *sf)
{
    (void)sf;
    return 4096;
}

static int disk_device(sqlite3_file *sf)
{
    (void)sf;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE; /* as SQLite assumes of Linux */
}

static int disk_shm_map(sqlite3_file *sf, int region, int size, int extend, void volatile **out)
{
    struct handle *h = of(sf);
    pthread_mutex_lock(&lock);
    if (!h->shm) {
        h->shm = true;
        h->f->shm_users++;
    }
    int rc = region < SHM_REGIONS ? SQLITE_OK : SQLITE_IOERR_SHMMAP;
    if (rc == SQLITE_OK && !h->f->shm[region] && extend)
        h->f->shm[region] = calloc(1, (size_t)size);
    *out = rc == SQLITE_OK ? h->f->shm[region] : NULL;
    pthread_mutex_unlock(&lock);
    return rc;
}

static int disk_shm_lock(sqlite3_file *sf, int at, int n, int flags)
{
    struct handle *h = of(sf);
    unsigned bits = ((1u << n) - 1) << at, shared = 0, exclusive = 0;
    int rc = SQLITE_OK;
    pthread_mutex_lock(&lock);
    for (const struct handle *o = h->f->handles; o; o = o->next) {
        shared |= o == h ? 0 : o->shared;
        exclusive |= o == h ? 0 : o->exclusive;
    }
    if (flags & SQLITE_SHM_UNLOCK) {
        h->shared &= ~bits;
        h->exclusive &= ~bits;
    } else if (exclusive & bits || (flags & SQLITE_SHM_EXCLUSIVE && shared & bits)) {
        rc = SQLITE_BUSY;
    } else if (flags & SQLITE_SHM_EXCLUSIVE) {
        h->exclusive |= bits;
    } else {
        h->shared |= bits;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

static void disk_shm_barrier(sqlite3_file *sf)
{
    (void)sf;
    __sync_synchronize();
}

static int disk_shm_unmap(sqlite3_file *sf, int del)
{
    (void)del;
    struct handle *h = of(sf);
    pthread_mutex_lock(&lock);
    if (h->shm && --h->f->shm_users == 0) /* the next one recovers, as after the last process has gone */
        for (int i = 0; i < SHM_REGIONS; i++) {
            free(h->f->shm[i]);
            h->f->shm[i] = NULL;
        }
    h->shm = false;
    h->shared = h->exclusive = 0;
    pthread_mutex_unlock(&lock);
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = disk_close,
    .xRead = disk_read,
    .xWrite = disk_write,
    .xTruncate = disk_truncate,
    .xSync = disk_sync,
    .xFileSize = disk_size,
    .xLock = disk_lock,
    .xUnlock = disk_unlock,
    .xCheckReservedLock = disk_reserved,
    .xFileControl = disk_control,
    .xSectorSize = disk_sector,
    .xDeviceCharacteristics = disk_device,
    .xShmMap = disk_shm_map,
    .xShmLock = disk_shm_lock,
    .xShmBarrier = disk_shm_barrier,
    .xShmUnmap = disk_shm_unmap,
};

static int disk_open(sqlite3_vfs *v, const char *name, sqlite3_file *sf, int flags, int *out)
{
    (void)v;
    enum disk_kind kind = flags & SQLITE_OPEN_MAIN_DB ? DISK_DB : flags & SQLITE_OPEN_WAL ? DISK_WAL : DISK_JOURNAL;
    if (!name || strlen(name) >= PATH_LEN)
        return SQLITE_CANTOPEN; /* the engine keeps temporary files in memory */
    pthread_mutex_lock(&lock);
    struct file *f = find(name);
    int rc = SQLITE_OK;
    if (!f || !f->exists) {
        if (flags & SQLITE_OPEN_CREATE) {
            f = f ? f : make(name, kind);
            drop(f);
            resize(&f->durable, 0);
            f->exists = true;
            f->unsynced_dir = kind != DISK_DB;
            if (kind == DISK_DB)
                close(open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        } else {
            rc = SQLITE_CANTOPEN;
        }
    }
    if (rc == SQLITE_OK) {
        struct handle *h = of(sf);
        *h = (struct handle){.base.pMethods = &methods, .f = f, .next = f->handles};
        f->handles = h;
        if (out)
            *out = flags;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

static int disk_delete(sqlite3_vfs *v, const char *name, int sync)
{
    (void)v;
    pthread_mutex_lock(&lock);
    struct file *f = find(name);
    bool there = f && f->exists;
    if (there) { /* its bytes stay for as long as its name may come back */
        f->exists = false;
        resize(&f->seen, 0);
        if (sync)
            sync_dir(name);
    }
    pthread_mutex_unlock(&lock);
    return there ? SQLITE_OK : SQLITE_IOERR_DELETE_NOENT;
}

static int disk_access(sqlite3_vfs *v, const char *name, int flags, int *out)
{
    (void)v, (void)flags;
    pthread_mutex_lock(&lock);
    const struct file *f = find(name);
    *out = f && f->exists;
    pthread_mutex_unlock(&lock);
    return SQLITE_OK;
}

static int disk_last_error(sqlite3_vfs *v, int n, char *out)
{
    (void)v, (void)n, (void)out;
    return last_errno;
}

/* What SQLite draws (the salts of its log) comes from the seed too. */
static int disk_randomness(sqlite3_vfs *v, int n, char *out)
{
    (void)v;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n; i++)
        out[i] = (char)rnd();
    pthread_mutex_unlock(&lock);
    return n;
}

static int begin_off(sqlite3 *db, char **why, const struct sqlite3_api_routines *api)
{
    (void)why, (void)api;
    return sync_off ? sqlite3_exec(db, "PRAGMA synchronous = OFF", NULL, NULL, NULL) : SQLITE_OK;
}

int disk_install(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    vfs = *real_vfs;
    vfs.zName = "faulty";
    vfs.szOsFile = (int)sizeof(struct handle);
    vfs.xOpen = disk_open;
    vfs.xDelete = disk_delete;
    vfs.xAccess = disk_access;
    vfs.xGetLastError = disk_last_error;
    vfs.xRandomness = disk_randomness;
    sqlite3_auto_extension((void (*)(void))begin_off);
    return sqlite3_vfs_register(&vfs, 1);
}

/* ---- for the tests ---- */

void disk_set_plan(struct disk_plan *p)
{
    plan = p;
}

void disk_sync_off(bool off)
{
    sync_off = off;
}

void disk_seed(uint64_t seed)
{
    rng = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    for (int i = 0; i < 4; i++)
        (void)rnd();
    sqlite3_randomness(0, NULL); /* SQLite asks again when it needs the next */
}

static void forget(const char *dir)
{
    for (struct file **p = &files; *p;) {
        struct file *f = *p;
        if (in_dir(f->path, dir)) {
            *p = f->next;
            file_free(f);
        } else {
            p = &f->next;
        }
    }
}

void disk_forget(const char *dir)
{
    pthread_mutex_lock(&lock);
    forget(dir);
    pthread_mutex_unlock(&lock);
}

static bool name_survives(const struct file *f, enum disk_loss loss)
{
    if (f->exists == f->linked || loss == DISK_KEEP || loss == DISK_TORN)
        return f->exists;
    return loss == DISK_SUBSET ? rnd() & 1 : f->linked;
}

static uint64_t newest(const char *dir)
{
    uint64_t order = 0;
    for (const struct file *f = files; f; f = f->next)
        for (const struct pending *w = in_dir(f->path, dir) ? f->first : NULL; w; w = w->next)
            order = w->order > order ? w->order : order;
    return order;
}

/* A write of which the device kept any of its sectors. */
static void apply_some(struct bytes *to, const struct pending *w)
{
    for (int64_t at = 0; at < w->n; at += SECTOR) {
        struct pending part = {.p = w->p + at, .at = w->at + at, .n = w->n - at < SECTOR ? w->n - at : SECTOR};
        if (rnd() & 1)
            apply(to, &part);
    }
}

static void bytes_that_survive(const struct file *f, enum disk_loss loss, uint64_t last, struct bytes *to)
{
    copy(to, &f->durable);
    for (const struct pending *w = f->first; w && loss != DISK_DROP; w = w->next) {
        struct pending part = *w;
        unsigned fate = loss == DISK_SUBSET ? (unsigned)(rnd() & 3) : 0;
        if (fate == 1 || fate == 2)
            continue;
        if (fate == 3 && w->p) {
            apply_some(to, w);
            continue;
        }
        if (loss == DISK_TORN && w->order == last && w->p && w->n)
            part.n = (int64_t)(rnd() % (uint64_t)(w->n / SECTOR + 1)) * SECTOR;
        apply(to, &part);
    }
}

void disk_crash(const char *from, const char *to, enum disk_loss loss)
{
    pthread_mutex_lock(&lock);
    forget(to);
    uint64_t last = newest(from);
    for (struct file *f = files; f; f = f->next) {
        if (!in_dir(f->path, from) || !name_survives(f, loss))
            continue;
        char path[PATH_LEN];
        snprintf(path, sizeof path, "%s%s", to, f->path + strlen(from));
        struct file *t = make(path, f->kind);
        t->exists = t->linked = true;
        if (loss == DISK_KEEP)
            copy(&t->durable, &f->durable);
        else
            bytes_that_survive(f, loss, last, &t->durable);
        copy(&t->seen, &t->durable);
        if (loss == DISK_KEEP) /* what was not synced still is not, whatever becomes of it */
            for (const struct pending *w = f->first; w; w = w->next)
                wait_for_sync(t, w->p, w->n, w->at);
        if (loss == DISK_KEEP)
            copy(&t->seen, &f->seen);
        if (f->kind == DISK_DB)
            close(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    }
    pthread_mutex_unlock(&lock);
}
