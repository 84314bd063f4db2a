/* The ledger in the sqlite engine: what a crash leaves, what tampering looks like, copies, and a second process. */
#include "contract/store_kit.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct kit *sqlite_kit(void)
{
    return kit_open(KIT_SQLITE);
}

static char *fresh_dir(char out[64])
{
    strcpy(out, "/tmp/payflow-store-XXXXXX");
    assert_non_null(mkdtemp(out));
    return out;
}

/* Some of everything: marks, open and closed holds, rollbacks, two currencies, keys. */
static void fill(struct kit *k, int64_t a, int64_t b, int groups)
{
    for (int i = 0; i < groups; i++) {
        struct kit_move m[] = {
            {.kind = LEDGER_DEPOSIT, .to = a, .amount = 1000},
            {.kind = LEDGER_TRANSFER, .from = a, .to = b, .amount = 10},
            {.kind = LEDGER_HOLD, .from = a, .to = b, .amount = 5, .expires_us = k->now + 5000},
            {.kind = LEDGER_DEPOSIT, .to = b, .amount = 3, .currency = KIT_JPY},
        };
        char key[24];
        snprintf(key, sizeof key, "fill-%d", i);
        struct store_idem idem = {.principal = a, .key = str_c(key), .status = 201, .body = STR("{}")};
        k->now += 1000;
        assert_int_equal(kit_group(k, m, 4, &idem, 1), PFE_OK);
        if (i % 2) {
            kit_post(k, (struct kit_move){.kind = LEDGER_CAPTURE, .ref = m[2].seq, .amount = 4});
            kit_post(k, (struct kit_move){.kind = LEDGER_ROLLBACK, .ref = m[1].seq});
        }
    }
}

static enum pf_err open_at(const char *dir, enum sqlite_mode mode, struct store **ret)
{
    char why[256];
    return store_sqlite_open(&(struct sqlite_options){.dir = dir, .mode = mode, .flush_entries = 100}, ret, why);
}

static void assert_same_accounts(struct store *x, struct store *y, int64_t owner)
{
    struct ledger_account a[8], b[8];
    unsigned n, m;
    assert_int_equal(store_account_list(x, owner, a, 8, &n), PFE_OK);
    assert_int_equal(store_account_list(y, owner, b, 8, &m), PFE_OK);
    assert_int_equal(n, m);
    for (unsigned i = 0; i < n; i++)
        assert_memory_equal(&a[i], &b[i], sizeof a[i]);
}

static void assert_same_stats(struct store *x, struct store *y, int64_t now)
{
    struct store_stat a[128], b[128];
    unsigned n, m;
    assert_int_equal(store_stats(x, STORE_WINDOW_DAY, now, a, 128, &n), PFE_OK);
    assert_int_equal(store_stats(y, STORE_WINDOW_DAY, now, b, 128, &m), PFE_OK);
    assert_int_equal(n, m);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(a[i].count, b[i].count);
        assert_int_equal(a[i].volume, b[i].volume);
    }
}

/* After every commit the files, as a crash would leave them, must come up as the store stands. */
static void a_crash_at_any_commit_loses_nothing(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob"), replayed = 0;
    for (int i = 0; i < 60; i++) {
        fill(k, a, b, 1 + i % 7);
        char dir[64];
        kit_copy_dir(k->dir, fresh_dir(dir));
        struct store *s;
        assert_int_equal(open_at(dir, SQLITE_SERVE, &s), PFE_OK);
        assert_same_accounts(k->s, s, a);
        assert_same_accounts(k->s, s, b);
        assert_same_accounts(k->s, s, 0);
        assert_same_stats(k->s, s, k->now);
        struct store_info x, y;
        assert_int_equal(store_info(k->s, &x), PFE_OK);
        assert_int_equal(store_info(s, &y), PFE_OK);
        assert_int_equal(x.head_seq, y.head_seq);
        assert_true(y.projected_seq <= y.head_seq);
        replayed += y.replayed;
        struct store_idem idem;
        assert_int_equal(store_idem_get(s, &k->arena, a, STR("fill-0"), &idem), PFE_OK);
        struct store_verify v;
        assert_int_equal(store_verify(s, &v), PFE_OK);
        assert_string_equal(v.what, "");
        store_close(s);
        kit_remove_dir(dir);
        a = kit_user(k, (char[]){'u', (char)('A' + i % 26), (char)('A' + i / 26), 0});
    }
    assert_true(replayed > 0);
    kit_close(k);
}

static void start_replays_only_the_tail(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob");
    fill(k, a, b, 200);
    struct store_info i;
    assert_int_equal(store_info(k->s, &i), PFE_OK);
    assert_true(i.head_seq - i.projected_seq <= 300);
    kit_reopen(k);
    assert_int_equal(store_info(k->s, &i), PFE_OK);
    assert_int_equal(i.replayed, 0);
    assert_int_equal(i.projected_seq, i.head_seq);
    kit_verify(k);
    kit_close(k);
}

struct key_row {
    char name[24];
    struct store_idem row;
};

static struct store_idem *key_of(struct key_row *k, const char *what, int n)
{
    snprintf(k->name, sizeof k->name, "%s-%d", what, n);
    k->row = (struct store_idem){.principal = 1, .key = str_c(k->name), .status = 201, .body = STR("{}")};
    return &k->row;
}

static void assert_key(struct kit *k, struct store *s, const char *what, int n)
{
    struct key_row key;
    struct store_idem found;
    if (store_idem_get(s, &k->arena, 1, key_of(&key, what, n)->key, &found) != PFE_OK)
        fail_msg("the key %s is lost", key.name);
}

/* So many accounts and keys that storing them takes several commits, which go on changing what is stored already. */
static void a_crash_amid_write_behind_loses_nothing(void **state)
{
    (void)state;
    enum { USERS = 10, ACCOUNTS = 100, MANY = USERS * ACCOUNTS };
    static struct key_row keys[ACCOUNTS];
    struct kit *k = sqlite_kit();
    int64_t user[USERS], seen = 0;
    struct store_info before, after;
    unsigned currencies;
    const struct money_currency_info *currency = money_list(&currencies);
    assert_true(currencies >= ACCOUNTS);
    k->flush_entries = MANY;
    kit_reopen(k);
    for (int u = 0; u < USERS; u++)
        user[u] = kit_user(k, (char[]){'u', (char)('A' + u), 0});
    for (int g = 0; g < 2 * USERS; g++) { /* once to make them, and once to change them */
        struct kit_move m[ACCOUNTS];
        for (int i = 0; i < ACCOUNTS; i++)
            m[i] = (struct kit_move){
                .kind = LEDGER_DEPOSIT, .to = user[g % USERS], .amount = 10, .currency = currency[i].num};
        struct store_idem idem[ACCOUNTS] = {0};
        for (int i = 0; i < ACCOUNTS && g >= USERS; i++)
            idem[i] = *key_of(&keys[i], "early", (g - USERS) * ACCOUNTS + i);
        assert_int_equal(kit_group(k, m, ACCOUNTS, idem, g >= USERS ? ACCOUNTS : 0), PFE_OK);
    }
    assert_int_equal(store_info(k->s, &before), PFE_OK);
    assert_int_equal(before.projected_seq, MANY);
    for (int i = 0; i < 12; i++) {
        struct kit_move m = {.kind = LEDGER_DEPOSIT, .to = user[i % USERS], .amount = 1, .currency = currency[0].num};
        assert_int_equal(kit_group(k, &m, 1, key_of(&keys[0], "late", i), 1), PFE_OK);
        char dir[64];
        kit_copy_dir(k->dir, fresh_dir(dir));
        struct store *s;
        assert_int_equal(open_at(dir, SQLITE_SERVE, &s), PFE_OK);
        for (int u = 0; u < USERS; u++)
            assert_same_accounts(k->s, s, user[u]);
        assert_same_stats(k->s, s, k->now);
        for (int n = 0; n < MANY; n += 7)
            assert_key(k, s, "early", n);
        for (int n = 0; n <= i; n++)
            assert_key(k, s, "late", n);
        assert_int_equal(store_info(s, &after), PFE_OK);
        seen += after.projected_seq == before.projected_seq;
        store_close(s);
        kit_remove_dir(dir);
    }
    assert_true(seen >= 4); /* commits that wrote a part of them */
    assert_int_equal(after.projected_seq, 2 * MANY);
    kit_verify(k);
    kit_close(k);
}

/* ---- tampering ---- */

static void raw(const char *dir, const char *sql)
{
    char path[128], *msg = NULL;
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/payflow.db", dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &msg) != SQLITE_OK)
        fail_msg("%s: %s", sql, msg);
    sqlite3_close(db);
}

/* Earlier versions left a place in the stored index for every failed commit under a key, all in front of its row's. */
static void a_key_is_found_behind_any_number_of_dead_places(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann");
    struct kit_move m = {.kind = LEDGER_DEPOSIT, .to = a, .amount = 10};
    struct key_row key;
    assert_int_equal(kit_group(k, &m, 1, key_of(&key, "early", 0), 1), PFE_OK);
    store_close(k->s);
    raw(k->dir, "UPDATE idempotency SET id = 101;"
                "WITH RECURSIVE dead(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM dead LIMIT 101)"
                " INSERT OR IGNORE INTO idempotency_index SELECT hash, dead.id FROM idempotency, dead;"
                "UPDATE projection SET value = 101 WHERE name = 'idempotency'");
    assert_int_equal(open_at(k->dir, SQLITE_SERVE, &k->s), PFE_OK);
    assert_key(k, k->s, "early", 0);
    assert_int_equal(kit_group(k, &m, 1, &key.row, 1), PFE_IN_FLIGHT);
    assert_int_equal(kit_balance(k, a), 10);
    kit_close(k);
}

/* The tables themselves take no row that cannot be, whoever writes it. */
static void rows_that_cannot_be_are_refused(void **state)
{
    (void)state;
#define ENTRY "INSERT INTO journal SELECT 100, ts, kind, "
    static const char *const cases[] = {
        ENTRY "uuid, debit, credit, -1, currency, debit_balance, credit_balance, 0, 0, 0, 0, 0, '', '' FROM journal",
        ENTRY "x'00', debit, credit, 1, currency, debit_balance, credit_balance, 0, 0, 0, 0, 0, '', '' FROM journal",
        ENTRY "uuid, 1000, debit, 1, currency, -1, 0, 0, 0, 0, 0, 0, '', '' FROM journal",
        ENTRY "uuid, debit, 1000, 1, currency, 0, -1, 0, 0, 0, 0, 0, '', '' FROM journal",
        "INSERT INTO seal VALUES (100, 2, 1, x'00')",
        "INSERT INTO idempotency VALUES (100, 1, 1, 'k', x'00', 201, 1, x'')",
    };
    static const char fine[] = ENTRY "uuid, debit, 1000, 0, currency, -9, 0, 0, 0, 0, 0, 0, '', '' FROM journal";
#undef ENTRY
    struct kit *k = sqlite_kit();
    char path[128];
    sqlite3 *db;
    kit_deposit(k, kit_user(k, "ann"), 5);
    kit_reopen(k);
    snprintf(path, sizeof path, "%s/payflow.db", k->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sqlite3_exec(db, cases[i], NULL, NULL, NULL);
        if (sqlite3_extended_errcode(db) != SQLITE_CONSTRAINT_TRIGGER)
            fail_msg("%s: %s", cases[i], sqlite3_errmsg(db));
    }
    sqlite3_close(db);
    raw(k->dir, fine);
    kit_close(k);
}

static void the_journal_is_append_only(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    kit_deposit(k, kit_user(k, "ann"), 5);
    char path[128];
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/payflow.db", k->dir);
    store_close(k->s);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    static const char *const forbidden[] = {"UPDATE journal SET amount = 1", "DELETE FROM journal",
                                            "UPDATE seal SET ts = 1", "DELETE FROM seal"};
    for (int i = 0; i < 4; i++)
        assert_int_equal(sqlite3_exec(db, forbidden[i], NULL, NULL, NULL), SQLITE_CONSTRAINT);
    sqlite3_close(db);
    assert_int_equal(open_at(k->dir, SQLITE_SERVE, &k->s), PFE_OK);
    kit_verify(k);
    kit_close(k);
}

static void verify_names_what_was_tampered_with(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        int64_t bad_seq;
    } cases[] = {
        {"UPDATE journal SET amount = amount + 1 WHERE seq = 6", 6},
        {"UPDATE journal SET description = 'x' WHERE seq = 6", 6},
        {"UPDATE journal SET description = 'tent' WHERE seq = 11", 11}, /* as long as it was: rent */
        {"UPDATE journal SET actor = 9 WHERE seq = 6", 6},
        {"UPDATE journal SET ts = ts + 1 WHERE seq = 6", 6},
        {"UPDATE journal SET kind = 3 WHERE seq = 6", 6},
        {"UPDATE journal SET kind = 77 WHERE seq = 6", 6},
        {"UPDATE journal SET uuid = randomblob(16) WHERE seq = 6", 6},
        {"UPDATE journal SET debit_balance = debit_balance + 1, credit_balance = credit_balance - 1 WHERE seq = 6", 6},
        {"UPDATE journal SET credit_prev = 1 WHERE seq = 6", 6},
        {"UPDATE journal SET credit = 4711 WHERE seq = 6", 6},
        {"UPDATE journal SET ref = 6 WHERE seq = 6", 6},
        {"UPDATE journal SET currency = 392 WHERE seq = 6", 6},
        {"UPDATE journal SET amount = -9223372036854775807 - 1 WHERE seq = 6", 6},
        {"DELETE FROM journal WHERE seq = 6", 6},
        {"DELETE FROM journal WHERE seq = 1", 1},
        {"DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal)", -1},
        {"DELETE FROM journal; ", 1},
        {"UPDATE journal SET seq = 100000 WHERE seq = 6; UPDATE journal SET seq = 6 WHERE seq = 7;"
         "UPDATE journal SET seq = 7 WHERE seq = 100000",
         6},
        {"UPDATE seal SET hash = zeroblob(32) WHERE last_seq = 6", 6},
        {"DELETE FROM seal WHERE last_seq = 6", 6},
        {"DELETE FROM seal WHERE last_seq = (SELECT max(seq) FROM journal)", -1},
        {"UPDATE account SET balance = balance + 1 WHERE id = 1000", -1},
        {"UPDATE account SET held = held + 1 WHERE id = 1000", -1},
        {"UPDATE account SET head = head - 1, balance = 0 WHERE id = 1000", -1},
        {"UPDATE account SET head = head + 100000 WHERE id = 1000", 0},
        {"UPDATE account SET flags = 1 WHERE id = 1000", -1},
        {"DELETE FROM account WHERE id = 1000", -1},
        {"UPDATE mark SET balance = balance + 1 WHERE n = 64 AND account = 1000", -1},
        {"DELETE FROM mark WHERE n = 64 AND account = 1000", -1},
        {"INSERT INTO mark VALUES (840, 65, 1, 1, 1, 1)", 0},
        {"DELETE FROM resolution WHERE seq = (SELECT min(seq) FROM resolution)", -1},
        {"INSERT INTO resolution VALUES (1, 2)", 0},
        {"UPDATE resolution SET resolver = 6 WHERE seq = (SELECT min(seq) FROM resolution)", -1},
        {"DELETE FROM open_hold WHERE seq = (SELECT min(seq) FROM open_hold)", 0},
        {"UPDATE open_hold SET amount = 1 WHERE seq = (SELECT min(seq) FROM open_hold)", -1},
    };
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob");
    for (int i = 0; i < 10; i++)
        kit_deposit(k, a, 10);
    kit_post(k, (struct kit_move){.kind = LEDGER_TRANSFER, .from = a, .to = b, .amount = 1, .description = "rent"});
    fill(k, a, b, 40);
    kit_reopen(k);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dir[64];
        kit_copy_dir(k->dir, fresh_dir(dir));
        raw(dir, "DROP TRIGGER journal_no_update; DROP TRIGGER journal_no_delete; DROP TRIGGER seal_no_update;"
                 "DROP TRIGGER seal_no_delete");
        raw(dir, cases[i].sql);
        struct store *s;
        struct store_verify v;
        assert_int_equal(open_at(dir, SQLITE_INSPECT, &s), PFE_OK);
        assert_int_equal(store_verify(s, &v), PFE_OK);
        if (v.ok || v.what[0] == '\0')
            fail_msg("not found: %s", cases[i].sql);
        if (cases[i].bad_seq >= 0 && v.bad_seq != cases[i].bad_seq)
            fail_msg("%s: found at %lld: %s", cases[i].sql, (long long)v.bad_seq, v.what);
        store_close(s);
        kit_remove_dir(dir);
    }
    kit_verify(k);
    kit_close(k);
}

static void a_shortened_journal_does_not_serve(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 10);
    kit_deposit(k, a, 10);
    store_close(k->s);
    raw(k->dir, "DROP TRIGGER journal_no_delete; DELETE FROM journal WHERE seq = 2;");
    assert_int_equal(open_at(k->dir, SQLITE_SERVE, &k->s), PFE_WRONG_STATE);
    assert_int_equal(open_at(k->dir, SQLITE_INSPECT, &k->s), PFE_OK);
    kit_close(k);
}

/* ---- putting right ---- */

static void rebuild_offline(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob"), n;
    char why[256];
    fill(k, a, b, 60);
    struct ledger_account before;
    assert_int_equal(store_account_get(k->s, a, KIT_USD, &before), PFE_OK);
    assert_int_equal(store_sqlite_rebuild(k->dir, &n, why), PFE_WRONG_STATE); /* in use */
    store_close(k->s);
    raw(k->dir, "UPDATE account SET balance = 1, held = 2, entries = 3, flags = 1, head = 4, moves = 5, time_us = 6;"
                "DELETE FROM mark; DELETE FROM stat; DELETE FROM open_hold; DELETE FROM resolution WHERE seq % 2 = 0;"
                "INSERT INTO mark VALUES (840, 65, 1, 1, 1, 1); UPDATE projection SET value = 0 WHERE name <> 'stat'");
    assert_int_equal(store_sqlite_rebuild(k->dir, &n, why), PFE_OK);
    assert_int_equal(n, 60 * 5);
    assert_int_equal(open_at(k->dir, SQLITE_SERVE, &k->s), PFE_OK);
    struct ledger_account after;
    assert_int_equal(store_account_get(k->s, a, KIT_USD, &after), PFE_OK);
    assert_memory_equal(&before, &after, sizeof before);
    struct store_stat s[16];
    unsigned kinds;
    assert_int_equal(store_stats(k->s, STORE_WINDOW_ALL, k->now, s, 16, &kinds), PFE_OK);
    int64_t count = 0;
    for (unsigned i = 0; i < kinds; i++)
        count += s[i].count;
    assert_int_equal(count, n);
    struct store_info i;
    assert_int_equal(store_info(k->s, &i), PFE_OK);
    assert_int_equal(i.replayed, 0);
    kit_verify(k);
    fill(k, b, a, 5);
    kit_verify(k);
    kit_close(k);
    assert_int_equal(store_sqlite_rebuild("/tmp/payflow-store-none", &n, why), PFE_NOT_FOUND);
}

static void rebuild_one_account(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob");
    fill(k, a, b, 60);
    struct ledger_account before, after;
    assert_int_equal(store_account_get(k->s, a, KIT_USD, &before), PFE_OK);
    store_close(k->s);
    char sql[256];
    snprintf(sql, sizeof sql,
             "UPDATE account SET balance = 1, held = 2, entries = 3, head = 4 WHERE id = %lld;"
             "DELETE FROM mark WHERE account = %lld",
             (long long)before.id, (long long)before.id);
    raw(k->dir, sql);
    assert_int_equal(open_at(k->dir, SQLITE_SERVE, &k->s), PFE_OK);
    struct store_replay r;
    assert_int_equal(store_account_rebuild(k->s, before.id, &r), PFE_OK);
    assert_true(r.intact);
    assert_int_equal(r.balance, before.balance);
    assert_int_equal(r.held, before.held);
    assert_int_equal(r.events, before.entries);
    for (int round = 0; round < 2; round++, kit_reopen(k)) {
        assert_int_equal(store_account_get(k->s, a, KIT_USD, &after), PFE_OK);
        assert_memory_equal(&before, &after, sizeof before);
        kit_verify(k);
    }
    kit_close(k);
}

static void a_broken_chain_is_not_rebuilt(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann");
    for (int i = 0; i < 5; i++)
        kit_deposit(k, a, 10);
    int64_t account = kit_account(k, a);
    store_close(k->s);
    raw(k->dir, "DROP TRIGGER journal_no_update; UPDATE journal SET credit_prev = 1 WHERE seq = 4");
    assert_int_equal(open_at(k->dir, SQLITE_SERVE, &k->s), PFE_OK);
    struct store_replay r;
    assert_int_equal(store_replay(k->s, account, &r), PFE_OK);
    assert_false(r.intact);
    assert_int_equal(store_account_rebuild(k->s, account, &r), PFE_OK);
    assert_false(r.intact);
    assert_int_equal(kit_balance(k, a), 50);
    kit_close(k);
}

/* ---- copies ---- */

static void backup_and_restore(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob");
    fill(k, a, b, 30);
    char file[96], why[256], dir[64], sub[96];
    snprintf(file, sizeof file, "%s.backup", k->dir);
    assert_int_equal(store_sqlite_backup(k->dir, file, why), PFE_OK);
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(store_sqlite_backup(k->dir, file, why), PFE_WRONG_STATE);
    assert_int_equal(store_sqlite_backup("/tmp/payflow-store-none", file, why), PFE_NOT_FOUND);

    struct store_verify v = {0};
    snprintf(sub, sizeof sub, "%s/data", fresh_dir(dir));
    assert_int_equal(store_sqlite_restore(file, sub, true, &v, why), PFE_OK);
    assert_true(v.ok);
    assert_int_equal(v.entries, 150);
    struct store *s;
    assert_int_equal(open_at(sub, SQLITE_SERVE, &s), PFE_OK);
    assert_same_accounts(k->s, s, a);
    assert_int_equal(store_sqlite_restore(file, sub, false, NULL, why), PFE_WRONG_STATE); /* in use */
    store_close(s);
    assert_int_equal(store_sqlite_restore(file, sub, false, NULL, why), PFE_WRONG_STATE); /* not empty */
    kit_remove_dir(sub);

    /* a backup that was altered is not put in place */
    sqlite3 *db;
    assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "DROP TRIGGER journal_no_update; UPDATE journal SET actor = 99 WHERE seq = 6",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(store_sqlite_restore(file, sub, true, &v, why), PFE_WRONG_STATE);
    assert_false(v.ok);
    assert_int_not_equal(v.bad_seq, 0);
    assert_int_equal(open_at(sub, SQLITE_INSPECT, &s), PFE_NOT_FOUND);
    kit_remove_dir(sub);

    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    fputs("not a database, but long enough to be looked at as if it were one\n", f);
    fclose(f);
    assert_int_not_equal(store_sqlite_restore(file, sub, false, NULL, why), PFE_OK);
    assert_int_equal(open_at(sub, SQLITE_INSPECT, &s), PFE_NOT_FOUND);
    kit_remove_dir(sub);
    unlink(file);
    assert_int_equal(store_sqlite_restore(file, sub, false, NULL, why), PFE_NOT_FOUND);
    kit_remove_dir(sub);
    rmdir(dir);
    kit_close(k);
}

/* ---- beside a writer ---- */

/* What a thread returns instead of NULL. */
static void *failure(const char *what)
{
    return (void *)(uintptr_t)what;
}

struct beside {
    const char *dir;
    atomic_bool stop;
    int rounds;
};

static void *inspect_loop(void *ctx)
{
    struct beside *b = ctx;
    while (!atomic_load(&b->stop) || b->rounds == 0) {
        struct store *s;
        struct store_verify v;
        if (open_at(b->dir, SQLITE_INSPECT, &s) != PFE_OK)
            return failure("open");
        if (store_verify(s, &v) != PFE_OK || !v.ok)
            return failure("verify");
        store_close(s);
        b->rounds++;
    }
    return NULL;
}

static void inspecting_beside_a_writer(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann"), c = kit_user(k, "bob");
    fill(k, a, c, 1);
    struct beside b = {.dir = k->dir};
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, inspect_loop, &b), 0);
    for (int i = 0; i < 40; i++)
        kit_deposit(k, a, 1);
    atomic_store(&b.stop, true);
    void *failed;
    pthread_join(t, &failed);
    if (failed)
        fail_msg("inspecting failed: %s", (const char *)failed);
    kit_verify(k);

    struct store *s;
    assert_int_equal(open_at(k->dir, SQLITE_INSPECT, &s), PFE_OK);
    struct store_key key = {.owner = a, .currency = KIT_USD};
    struct store_slot slot;
    struct store_replay r;
    struct store_tx *tx;
    int64_t first;
    assert_int_equal(kit_begin(s, &key, 1, NULL, 0, &slot, &first), PFE_UNAVAILABLE);
    assert_int_equal(store_tx_begin(s, &tx), PFE_UNAVAILABLE);
    assert_int_equal(store_flush(s), PFE_UNAVAILABLE);
    assert_int_equal(store_account_rebuild(s, 1000, &r), PFE_UNAVAILABLE);
    assert_same_accounts(k->s, s, a);
    struct store_info i;
    assert_int_equal(store_info(s, &i), PFE_OK);
    assert_false(i.writable);
    store_close(s);
    kit_close(k);
}

struct reading {
    struct kit *k;
    int64_t user, account;
    atomic_bool stop;
};

static bool count_entry(void *ctx, const struct ledger_entry *e, int64_t by)
{
    (void)e, (void)by;
    ++*(int *)ctx;
    return true;
}

/* Balance and history must agree at any moment: the newest entry listed is never older than the account read before. */
static void *read_loop(void *ctx)
{
    struct reading *r = ctx;
    do {
        struct ledger_account acc;
        int64_t cursor, at;
        int n = 0;
        struct store_entry_query q = {.account = r->account, .limit = 1000, .counterparty = -1};
        if (store_account_get(r->k->s, r->user, KIT_USD, &acc) != PFE_OK)
            return failure("account");
        if (store_entry_list(r->k->s, &q, count_entry, &n, &cursor) != PFE_OK || n < acc.entries)
            return failure("list");
        if (store_balance_at(r->k->s, r->account, INT64_MAX - 1, &at) != PFE_OK || at < acc.balance)
            return failure("balance");
    } while (!atomic_load(&r->stop));
    return NULL;
}

static void many_readers_beside_the_writer(void **state)
{
    (void)state;
    enum { READERS = 4 };
    struct kit *k = sqlite_kit();
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 1);
    struct reading r = {.k = k, .user = a, .account = kit_account(k, a)};
    pthread_t t[READERS];
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, read_loop, &r), 0);
    for (int i = 0; i < 150; i++)
        kit_deposit(k, a, 1);
    atomic_store(&r.stop, true);
    for (int i = 0; i < READERS; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        if (failed)
            fail_msg("reading failed: %s", (const char *)failed);
    }
    kit_close(k);
}

static void *read_once(void *ctx)
{
    struct reading *r = ctx;
    struct ledger_entry e;
    struct arena arena;
    int64_t by;
    arena_init(&arena, NULL, 0, 1 << 16);
    bool ok = store_entry_get(r->k->s, &arena, 1, &e, &by) == PFE_OK;
    arena_reset(&arena);
    return ok ? NULL : failure("read");
}

/* A thread that ends gives its connection back. */
static void threads_come_and_go(void **state)
{
    (void)state;
    struct kit *k = sqlite_kit();
    kit_deposit(k, kit_user(k, "ann"), 1);
    struct reading r = {.k = k};
    for (int i = 0; i < 200; i++) {
        pthread_t t;
        void *failed;
        assert_int_equal(pthread_create(&t, NULL, read_once, &r), 0);
        pthread_join(t, &failed);
        assert_null(failed);
    }
    kit_close(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_at_any_commit_loses_nothing),
        cmocka_unit_test(a_crash_amid_write_behind_loses_nothing),
        cmocka_unit_test(a_key_is_found_behind_any_number_of_dead_places),
        cmocka_unit_test(start_replays_only_the_tail),
        cmocka_unit_test(rows_that_cannot_be_are_refused),
        cmocka_unit_test(the_journal_is_append_only),
        cmocka_unit_test(verify_names_what_was_tampered_with),
        cmocka_unit_test(a_shortened_journal_does_not_serve),
        cmocka_unit_test(rebuild_offline),
        cmocka_unit_test(rebuild_one_account),
        cmocka_unit_test(a_broken_chain_is_not_rebuilt),
        cmocka_unit_test(backup_and_restore),
        cmocka_unit_test(inspecting_beside_a_writer),
        cmocka_unit_test(many_readers_beside_the_writer),
        cmocka_unit_test(threads_come_and_go),
    };
    return cmocka_run_group_tests_name("sqlite ledger", tests, NULL, NULL);
}
