/* The disk fails the sqlite engine: a full disk is survived, an unknown outcome kills the store, and what is on disk at
   any write of the making or use of a database comes up whole. */
#include "contract/store_kit.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "support/faulty_disk.h"

static struct disk_plan plan;

static int install(void **state)
{
    (void)state;
    return disk_install();
}

/* The next operation after so many of its kind fails, once. */
static void fail_at(struct kit *k, enum disk_op op, enum disk_kind kind, int after, int rc)
{
    plan = (struct disk_plan){
        .dir = k->dir, .op = op, .kinds = (int)kind, .at = after + 1, .rc = rc, .os = rc == SQLITE_FULL ? ENOSPC : EIO};
    disk_set_plan(&plan);
}

static void close_kit(struct kit *k)
{
    char dir[sizeof k->dir];
    memcpy(dir, k->dir, sizeof dir);
    kit_close(k);
    disk_set_plan(NULL);
    disk_forget(dir);
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
        fail_at(k, DISK_WRITE, DISK_WAL, n, SQLITE_FULL);
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
        close_kit(k);
    }
}

/* The places that failed commits leave in the index of keys, be it in memory or stored, do not hide the key's row. */
static void a_key_is_found_however_often_its_commit_failed(void **state)
{
    (void)state;
    enum { TRIES = 20, FILL = 200 };
    struct kit *k = kit_open(KIT_SQLITE);
    k->flush_entries = 100;
    kit_reopen(k);
    int64_t a = kit_user(k, "ann");
    struct store_idem key = {.principal = a, .key = STR("again"), .status = 201, .body = STR("{}")}, found;
    struct kit_move m = {.kind = LEDGER_DEPOSIT, .to = a, .amount = 10};
    int64_t others = 0;
    for (int round = 0; round < 2; round++) {
        for (int t = 0; t < TRIES; t++) {
            fail_at(k, DISK_WRITE, DISK_WAL, 0, SQLITE_FULL);
            assert_int_equal(kit_group(k, &m, 1, &key, 1), PFE_DISK_FULL);
        }
        disk_set_plan(NULL);
        for (int i = 0; round == 0 && i < FILL; i++, others++) { /* until the places are in the stored index */
            char name[24];
            snprintf(name, sizeof name, "other-%d", i);
            struct store_idem other = {.principal = a, .key = str_c(name), .status = 201, .body = STR("{}")};
            assert_int_equal(kit_group(k, &m, 1, &other, 1), PFE_OK);
        }
    }
    assert_int_equal(kit_group(k, &m, 1, &key, 1), PFE_OK);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(store_idem_get(k->s, &k->arena, a, key.key, &found), PFE_OK);
        assert_int_equal(kit_group(k, &m, 1, &key, 1), PFE_IN_FLIGHT);
        if (round == 0)
            kit_reopen(k);
        else
            assert_int_equal(store_flush(k->s), PFE_OK);
    }
    assert_int_equal(kit_balance(k, a), 10 * (others + 1));
    kit_verify(k);
    close_kit(k);
}

static void unknown_outcome(enum disk_op op, int rc)
{
    struct kit *k = kit_open(KIT_SQLITE);
    int64_t a = kit_user(k, "ann"), seq;
    kit_deposit(k, a, 10);
    fail_at(k, op, DISK_WAL, 0, rc);
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
    assert_int_equal(kit_begin(k->s, &key, 1, NULL, 0, &slot, &seq), PFE_INTERNAL);
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
    close_kit(k);
}

static void a_failed_fsync_kills_the_store(void **state)
{
    (void)state;
    unknown_outcome(DISK_SYNC, SQLITE_IOERR_FSYNC);
}

static void a_failed_write_at_commit_kills_the_store(void **state)
{
    (void)state;
    unknown_outcome(DISK_WRITE, SQLITE_IOERR_WRITE);
}

static void a_failed_fsync_of_a_checkpoint_kills_the_store_after_the_commit(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_SQLITE);
    int64_t a = kit_user(k, "ann"), made = 0;
    fail_at(k, DISK_SYNC, DISK_DB, 0, SQLITE_IOERR_FSYNC);
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
    close_kit(k);
}

static void a_full_disk_in_a_checkpoint_changes_nothing(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_SQLITE);
    int64_t a = kit_user(k, "ann"), made = 0;
    fail_at(k, DISK_WRITE, DISK_DB, 0, SQLITE_FULL);
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
    close_kit(k);
}

/* ---- making a database, cut short anywhere ---- */

static enum pf_err open_at(const char *dir, struct store **ret, char why[256])
{
    return store_sqlite_open(&(struct sqlite_options){.dir = dir}, ret, why);
}

static void assert_opens(const char *dir, const char *what, long n)
{
    struct store *s;
    struct store_verify v;
    char why[256];
    if (open_at(dir, &s, why) != PFE_OK)
        fail_msg("%s %ld: %s", what, n, why);
    assert_int_equal(store_verify(s, &v), PFE_OK);
    assert_string_equal(v.what, "");
    store_close(s);
}

struct cut {
    char image[64];
    long n[DISK_LOSSES];
};

static void cut_here(void *ctx, enum disk_op op, long nth)
{
    (void)op;
    struct cut *c = ctx;
    for (int loss = DISK_KEEP; loss < DISK_LOSSES; loss++) {
        disk_crash(plan.dir, c->image, (enum disk_loss)loss);
        assert_opens(c->image, "power lost while making it, at", nth);
        c->n[loss]++;
    }
}

static void a_database_half_made_is_made_at_the_next_start(void **state)
{
    (void)state;
    char dir[64] = "/tmp/payflow-store-XXXXXX", why[256];
    struct cut c = {.image = "/tmp/payflow-store-XXXXXX"};
    struct store *s;
    assert_non_null(mkdtemp(dir));
    assert_non_null(mkdtemp(c.image));
    plan = (struct disk_plan){.dir = dir, .kinds = DISK_ANY, .watch = cut_here, .watch_ctx = &c};
    disk_set_plan(&plan);
    assert_int_equal(open_at(dir, &s, why), PFE_OK);
    store_close(s);
    assert_true(c.n[DISK_KEEP] > 100);

    static const struct {
        enum disk_op op;
        int rc, os;
    } kinds[] = {{DISK_WRITE, SQLITE_IOERR_WRITE, EIO},
                 {DISK_WRITE, SQLITE_FULL, ENOSPC},
                 {DISK_SYNC, SQLITE_IOERR_FSYNC, EIO},
                 {DISK_TRUNCATE, SQLITE_IOERR_TRUNCATE, EIO}};
    for (size_t i = 0; i < 2 * sizeof kinds / sizeof *kinds; i++) {
        bool met = true;
        for (long n = 1; met; n++) {
            disk_forget(dir);
            plan = (struct disk_plan){.dir = dir,
                                      .op = kinds[i / 2].op,
                                      .kinds = DISK_ANY,
                                      .at = n,
                                      .forever = i % 2,
                                      .rc = kinds[i / 2].rc,
                                      .os = kinds[i / 2].os};
            if (open_at(dir, &s, why) == PFE_OK)
                store_close(s);
            else
                assert_true(plan.failed && why[0]);
            met = plan.failed;
            disk_set_plan(NULL);
            assert_opens(dir, "after a failure of operation", n);
            disk_set_plan(&plan);
        }
    }
    disk_set_plan(NULL);
    disk_forget(dir);
    disk_forget(c.image);
    kit_remove_dir(dir);
    kit_remove_dir(c.image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_disk_is_survived),
        cmocka_unit_test(a_key_is_found_however_often_its_commit_failed),
        cmocka_unit_test(a_failed_fsync_kills_the_store),
        cmocka_unit_test(a_failed_write_at_commit_kills_the_store),
        cmocka_unit_test(a_failed_fsync_of_a_checkpoint_kills_the_store_after_the_commit),
        cmocka_unit_test(a_full_disk_in_a_checkpoint_changes_nothing),
        cmocka_unit_test(a_database_half_made_is_made_at_the_next_start),
    };
    return cmocka_run_group_tests_name("sqlite faults", tests, install, NULL);
}
