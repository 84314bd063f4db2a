/* The disk fails the sqlite engine: a full disk is survived, an unknown outcome kills the store, and what is on disk at
   any write comes up whole. A shim in front of SQLite's file layer makes the nth operation fail. */
#include "contract/store_kit.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

enum op { NONE, WAL_WRITE, WAL_SYNC, DB_WRITE, DB_SYNC };

static struct {
    enum op op;
    int after; /* operations of the kind that still succeed */
    int rc;
    bool failed;
    void (*watch)(void); /* called before every write to the database or its WAL */
} plan;

/* ---- the shim ---- */

struct shim_file {
    sqlite3_file base;
    bool wal, db;
    sqlite3_file *real; /* follows this struct */
};

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((struct shim_file *)f)->real;
}

static int meet(sqlite3_file *f, enum op wal, enum op db)
{
    const struct shim_file *s = (struct shim_file *)f;
    enum op op = s->wal ? wal : s->db ? db : NONE;
    if (op == NONE || op != plan.op || plan.after-- > 0)
        return SQLITE_OK;
    plan.failed = true;
    plan.op = NONE;
    return plan.rc;
}

static int shim_close(sqlite3_file *f)
{
    return real_of(f)->pMethods->xClose(real_of(f));
}

static int shim_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    return real_of(f)->pMethods->xRead(real_of(f), p, n, at);
}

static int shim_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    const struct shim_file *s = (struct shim_file *)f;
    if (plan.watch && (s->wal || s->db)) {
        void (*watch)(void) = plan.watch;
        plan.watch = NULL;
        watch();
        plan.watch = watch;
    }
    int rc = meet(f, WAL_WRITE, DB_WRITE);
    return rc ? rc : real_of(f)->pMethods->xWrite(real_of(f), p, n, at);
}

static int shim_truncate(sqlite3_file *f, sqlite3_int64 n)
{
    return real_of(f)->pMethods->xTruncate(real_of(f), n);
}

static int shim_sync(sqlite3_file *f, int flags)
{
    int rc = meet(f, WAL_SYNC, DB_SYNC);
    return rc ? rc : real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int shim_size(sqlite3_file *f, sqlite3_int64 *n)
{
    return real_of(f)->pMethods->xFileSize(real_of(f), n);
}

static int shim_lock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xLock(real_of(f), level);
}

static int shim_unlock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), level);
}

static int shim_reserved(sqlite3_file *f, int *out)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}

static int shim_control(sqlite3_file *f, int op, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int shim_sector(sqlite3_file *f)
{
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int shim_device(sqlite3_file *f)
{
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int shim_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);
}

static int shim_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    return real_of(f)->pMethods->xShmLock(real_of(f), at, n, flags);
}

static void shim_shm_barrier(sqlite3_file *f)
{
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int shim_shm_unmap(sqlite3_file *f, int del)
{
    return real_of(f)->pMethods->xShmUnmap(real_of(f), del);
}

static const sqlite3_io_methods shim_methods = {
    .iVersion = 2,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_reserved,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector,
    .xDeviceCharacteristics = shim_device,
    .xShmMap = shim_shm_map,
    .xShmLock = shim_shm_lock,
    .xShmBarrier = shim_shm_barrier,
    .xShmUnmap = shim_shm_unmap,
};

static sqlite3_vfs *real_vfs;
static sqlite3_vfs shim_vfs;

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
    (void)vfs;
    struct shim_file *s = (struct shim_file *)f;
    *s = (struct shim_file){.wal = (flags & SQLITE_OPEN_WAL) != 0, .db = (flags & SQLITE_OPEN_MAIN_DB) != 0};
    s->real = (sqlite3_file *)(void *)(s + 1);
    int rc = real_vfs->xOpen(real_vfs, name, s->real, flags, out);
    if (rc == SQLITE_OK)
        s->base.pMethods = &shim_methods;
    return rc;
}

static int install(void **state)
{
    (void)state;
    real_vfs = sqlite3_vfs_find(NULL);
    shim_vfs = *real_vfs;
    shim_vfs.zName = "faulty";
    shim_vfs.szOsFile = real_vfs->szOsFile + (int)sizeof(struct shim_file);
    shim_vfs.xOpen = shim_open;
    return sqlite3_vfs_register(&shim_vfs, 1);
}

/* ---- the cases ---- */

static void fail_at(enum op op, int after, int rc)
{
    plan.op = op;
    plan.after = after;
    plan.rc = rc;
    plan.failed = false;
}

static enum pf_err one(struct kit *k, int64_t user, int64_t *ret_seq)
{
    struct kit_move m = {.kind = LEDGER_DEPOSIT, .to = user, .amount = 10};
    enum pf_err e = kit_group(k, &m, 1, NULL, 0);
    if (ret_seq)
        *ret_seq = m.seq;
    return e;
}

static void a_full_disk_is_survived(void **state)
{
    (void)state;
    for (int n = 0; n < 12; n++) {
        struct kit *k = kit_open(KIT_SQLITE);
        int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob"), seq;
        kit_deposit(k, a, 10);
        struct store_info i;
        fail_at(WAL_WRITE, n, SQLITE_FULL);
        enum pf_err e = PFE_OK;
        int64_t made = 1;
        for (int t = 0; t < 40 && e == PFE_OK; t++) {
            e = one(k, t % 2 ? b : a, &seq);
            made += e == PFE_OK;
        }
        assert_true(plan.failed);
        assert_int_equal(e, PFE_DISK_FULL);
        assert_int_equal(store_info(k->s, &i), PFE_OK);
        assert_false(i.writable);
        assert_false(i.fatal);
        assert_int_equal(i.head_seq, made);
        kit_verify(k);
        assert_int_equal(one(k, b, &seq), PFE_OK);
        assert_int_equal(seq, made + 1);
        assert_int_equal(store_info(k->s, &i), PFE_OK);
        assert_true(i.writable);
        kit_verify(k);
        kit_reopen(k);
        kit_verify(k);
        kit_close(k);
    }
}

static void unknown_outcome(enum op op, int rc)
{
    struct kit *k = kit_open(KIT_SQLITE);
    int64_t a = kit_user(k, "ann"), seq;
    kit_deposit(k, a, 10);
    fail_at(op, 0, rc);
    assert_int_equal(one(k, a, &seq), PFE_INTERNAL);
    assert_true(plan.failed);
    struct store_info i;
    assert_int_equal(store_info(k->s, &i), PFE_OK);
    assert_true(i.fatal);
    assert_false(i.writable);
    assert_int_equal(i.head_seq, 1);

    struct store_key key = {.owner = a, .currency = KIT_USD};
    struct store_slot slot;
    struct store_tx *tx;
    assert_int_equal(store_group_begin(k->s, &key, 1, &slot, &seq), PFE_INTERNAL);
    assert_int_equal(store_tx_begin(k->s, &tx), PFE_INTERNAL);
    assert_int_equal(store_flush(k->s), PFE_INTERNAL);
    assert_int_equal(kit_balance(k, a), 10);

    /* Start-up decides from what is on disk: with the commit or without it, but whole. */
    kit_reopen(k);
    int64_t balance = kit_balance(k, a);
    assert_true(balance == 10 || balance == 20);
    kit_verify(k);
    kit_deposit(k, a, 1);
    kit_verify(k);
    kit_close(k);
}

static void a_failed_fsync_kills_the_store(void **state)
{
    (void)state;
    unknown_outcome(WAL_SYNC, SQLITE_IOERR_FSYNC);
}

static void a_failed_write_at_commit_kills_the_store(void **state)
{
    (void)state;
    unknown_outcome(WAL_WRITE, SQLITE_IOERR_WRITE);
}

static void a_failed_fsync_of_a_checkpoint_kills_the_store_after_the_commit(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_SQLITE);
    int64_t a = kit_user(k, "ann"), made = 0;
    fail_at(DB_SYNC, 0, SQLITE_IOERR_FSYNC);
    while (!plan.failed && made < 1000) {
        assert_int_equal(one(k, a, NULL), PFE_OK);
        made++;
    }
    assert_true(plan.failed);
    struct store_info i;
    assert_int_equal(store_info(k->s, &i), PFE_OK);
    assert_true(i.fatal);
    assert_int_equal(i.head_seq, made);
    kit_reopen(k);
    assert_int_equal(kit_balance(k, a), 10 * made);
    kit_verify(k);
    kit_close(k);
}

static void a_full_disk_in_a_checkpoint_changes_nothing(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_SQLITE);
    int64_t a = kit_user(k, "ann"), made = 0;
    fail_at(DB_WRITE, 0, SQLITE_FULL);
    while (!plan.failed && made < 1000) {
        assert_int_equal(one(k, a, NULL), PFE_OK);
        made++;
    }
    assert_true(plan.failed);
    for (int i = 0; i < 200; i++)
        assert_int_equal(one(k, a, NULL), PFE_OK);
    kit_verify(k);
    kit_reopen(k);
    assert_int_equal(kit_balance(k, a), 10 * (made + 200));
    kit_verify(k);
    kit_close(k);
}

/* ---- a crash before every single write ---- */

static struct kit *watched;
static int64_t watched_user, balance_before, crashes;

static void crash_here(void)
{
    char dir[64] = "/tmp/payflow-store-XXXXXX", why[256];
    assert_non_null(mkdtemp(dir));
    kit_copy_dir(watched->dir, dir);
    struct store *s;
    struct ledger_account acc;
    struct store_verify v;
    if (store_sqlite_open(&(struct sqlite_options){.dir = dir}, &s, why) != PFE_OK)
        fail_msg("after a crash: %s", why);
    assert_int_equal(store_account_get(s, watched_user, KIT_USD, &acc), PFE_OK);
    assert_true(acc.balance == balance_before || acc.balance == balance_before + 10);
    assert_int_equal(store_verify(s, &v), PFE_OK);
    assert_string_equal(v.what, "");
    store_close(s);
    kit_remove_dir(dir);
    crashes++;
}

static void a_crash_before_any_write_leaves_all_or_nothing(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_SQLITE);
    watched = k;
    watched_user = kit_user(k, "ann");
    kit_deposit(k, watched_user, 10);
    for (int i = 0; i < 130; i++) {
        balance_before = kit_balance(k, watched_user);
        plan.watch = i % 3 == 0 || i > 90 ? crash_here : NULL; /* epochs and checkpoints fall among the later ones */
        assert_int_equal(one(k, watched_user, NULL), PFE_OK);
        plan.watch = NULL;
    }
    assert_true(crashes > 300);
    kit_verify(k);
    kit_close(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_disk_is_survived),
        cmocka_unit_test(a_failed_fsync_kills_the_store),
        cmocka_unit_test(a_failed_write_at_commit_kills_the_store),
        cmocka_unit_test(a_failed_fsync_of_a_checkpoint_kills_the_store_after_the_commit),
        cmocka_unit_test(a_full_disk_in_a_checkpoint_changes_nothing),
        cmocka_unit_test(a_crash_before_any_write_leaves_all_or_nothing),
    };
    return cmocka_run_group_tests_name("sqlite faults", tests, install, NULL);
}
