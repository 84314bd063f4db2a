/* What verification finds on a server, and what a rebuild puts right. */
#include "contract/store_kit.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/postgres/journal.h"
#include "support/pg_cluster.h"

struct world {
    struct kit *k;
    PGconn *pg;
    int64_t ann, bob;
};

static void sql(struct world *w, const char *text)
{
    PGresult *r = PQexec(w->pg, text);
    ExecStatusType st = PQresultStatus(r);
    if (st != PGRES_COMMAND_OK && st != PGRES_TUPLES_OK)
        fail_msg("%s: %s", text, PQerrorMessage(w->pg));
    PQclear(r);
}

/* Some of everything, marks included. */
static void world_open(struct world *w)
{
    char path[64];
    *w = (struct world){.k = kit_open(KIT_POSTGRES), .pg = PQconnectdb(pg_cluster_url(pg_cluster_shared()))};
    snprintf(path, sizeof path, "SET search_path = \"%s\"", pg_cluster_schema(pg_cluster_shared(), w->k->dir));
    sql(w, path);
    w->ann = kit_user(w->k, "ann");
    w->bob = kit_user(w->k, "bob");
    kit_deposit(w->k, w->ann, 10000); /* 1 */
    kit_deposit(w->k, w->bob, 100);   /* 2 */
    struct kit_move m[50];
    for (int i = 0; i < 4; i++) { /* 3 .. 202 */
        for (int j = 0; j < 50; j++)
            m[j] = (struct kit_move){.kind = LEDGER_TRANSFER, .from = w->ann, .to = w->bob, .amount = 1 + j};
        assert_int_equal(kit_group(w->k, m, 50, NULL, 0), PFE_OK);
    }
    kit_post(w->k, (struct kit_move){.kind = LEDGER_ROLLBACK, .ref = 200});                            /* 203 */
    kit_post(w->k, (struct kit_move){.kind = LEDGER_HOLD, .from = w->ann, .to = w->bob, .amount = 7}); /* 204 */
    kit_post(w->k, (struct kit_move){.kind = LEDGER_HOLD, .from = w->ann, .to = w->bob, .amount = 8}); /* 205 */
    kit_post(w->k, (struct kit_move){.kind = LEDGER_CAPTURE, .ref = 204, .amount = 5});                /* 206 */
    kit_verify(w->k);
}

static void world_close(struct world *w)
{
    PQfinish(w->pg);
    kit_close(w->k);
}

/* Changed behind the engine's back, each in a transaction that is then undone. */
static const struct {
    const char *sql;
    int64_t bad_seq;
    const char *what;
} damage[] = {
    {"UPDATE journal SET amount = 2 WHERE seq = 3", 3, "balances"},
    {"UPDATE journal SET description = 'x' WHERE seq = 60", 53, "seal"},
    {"UPDATE journal SET debit_prev = 5 WHERE seq = 100", 100, "chain"},
    {"DELETE FROM journal WHERE seq = 77", 77, "missing"},
    {"DELETE FROM journal WHERE seq = 206", 206, "missing"},
    {"DELETE FROM journal WHERE seq > 204", 205, "missing"},
    {"INSERT INTO journal SELECT 207, ts, debit, credit, amount, debit_balance, credit_balance, debit_prev,"
     " credit_prev, 0, actor, 0, 3, currency, uuid, '', '' FROM journal WHERE seq = 202",
     207, "beyond"},
    {"DELETE FROM seal WHERE last_seq = 52", 3, "seal"},
    {"UPDATE seal SET hash = decode(repeat('11', 32), 'hex') WHERE last_seq = 1", 1, "seal"},
    {"UPDATE seal SET first_seq = 2 WHERE last_seq = 1", 1, "seal"},
    {"DELETE FROM seal WHERE last_seq = 206", 0, "seal"},
    {"UPDATE ledger_head SET seal = decode(repeat('11', 32), 'hex')", 0, "seal"},
    {"UPDATE ledger_head SET accounts = 4", 0, "accounts"},
    {"UPDATE ledger_head SET next_account = 1001", 0, "next account"},
    {"DELETE FROM ledger_head", 0, "head"},
    {"UPDATE account SET balance = balance + 1 WHERE id = 1001", 206, "stored row"},
    {"UPDATE account SET moves = moves + 1 WHERE id = 1001", 206, "stored row"},
    {"UPDATE account SET head = 150 WHERE id = 1001", 150, "stored row"},
    {"UPDATE account SET head = 999 WHERE id = 1001", 0, "head"},
    {"DELETE FROM account WHERE id = 1001; UPDATE ledger_head SET accounts = 2", 2, "does not exist"},
    {"DELETE FROM mark WHERE n = 128 AND account = 1000", 129, "mark"},
    {"UPDATE mark SET balance = balance + 1 WHERE n = 64 AND account = 1001", 65, "mark"},
    {"UPDATE mark SET seq = seq + 1 WHERE n = 64 AND account = 1001", 65, "mark"},
    {"INSERT INTO mark VALUES (1001, 640, 3, 1, 1, 1)", 0, "marks"},
    {"DELETE FROM resolution WHERE seq = 200", 203, "resolves"},
    {"UPDATE resolution SET resolver = 3 WHERE seq = 200", 203, "resolves"},
    {"INSERT INTO resolution VALUES (5, 6)", 0, "resolutions"},
    {"DELETE FROM open_hold", 0, "open holds"},
    {"UPDATE open_hold SET amount = 9", 205, "open hold"},
    {"INSERT INTO open_hold VALUES (204, 1000, 7, 0)", 204, "open hold"},
};

static void finds_damage(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        struct store_verify v;
        /* a copy of the schema's tables to go back to: verification sees what is committed only */
        sql(&w, "BEGIN; ALTER TABLE journal DISABLE TRIGGER ALL; ALTER TABLE seal DISABLE TRIGGER ALL;"
                "CREATE TABLE journal_k AS TABLE journal; CREATE TABLE seal_k AS TABLE seal;"
                "CREATE TABLE account_k AS TABLE account; CREATE TABLE mark_k AS TABLE mark;"
                "CREATE TABLE resolution_k AS TABLE resolution; CREATE TABLE open_hold_k AS TABLE open_hold;"
                "CREATE TABLE ledger_head_k AS TABLE ledger_head; COMMIT");
        sql(&w, damage[i].sql);
        assert_int_equal(store_verify(w.k->s, &v), PFE_OK);
        if (v.ok || !strstr(v.what, damage[i].what) || v.bad_seq != damage[i].bad_seq)
            fail_msg("%s: %s (entry %lld)", damage[i].sql, v.ok ? "not found" : v.what, (long long)v.bad_seq);
        static const char *const tables[] = {"journal",    "seal",      "account",    "mark",
                                             "resolution", "open_hold", "ledger_head"};
        for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
            char text[256];
            snprintf(text, sizeof text,
                     "BEGIN; DELETE FROM %s; INSERT INTO %s SELECT * FROM %s_k; DROP TABLE %s_k; COMMIT", tables[t],
                     tables[t], tables[t], tables[t]);
            sql(&w, text);
        }
        sql(&w, "ALTER TABLE journal ENABLE TRIGGER ALL; ALTER TABLE seal ENABLE TRIGGER ALL");
        kit_verify(w.k);
    }
    world_close(&w);
}

static void journal_is_append_only(void **state)
{
    (void)state;
    static const char *const tries[] = {"UPDATE journal SET amount = 2 WHERE seq = 3",
                                        "DELETE FROM journal",
                                        "TRUNCATE journal",
                                        "UPDATE seal SET ts = 0",
                                        "DELETE FROM seal",
                                        "TRUNCATE seal"};
    struct world w;
    world_open(&w);
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        PGresult *r = PQexec(w.pg, tries[i]);
        assert_int_equal(PQresultStatus(r), PGRES_FATAL_ERROR);
        assert_non_null(strstr(PQresultErrorMessage(r), "append-only"));
        PQclear(r);
    }
    world_close(&w);
}

/* Every projection gone wrong at once; what goes on afterwards is as if nothing had been. */
static void rebuild_mends_projections(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    struct store_stat before[16], after[16];
    struct ledger_account a, b;
    unsigned n, m;
    assert_int_equal(store_stats(w.k->s, STORE_WINDOW_ALL, w.k->now, before, 16, &n), PFE_OK);
    assert_int_equal(store_account_get(w.k->s, w.ann, KIT_USD, &a), PFE_OK);
    sql(&w, "UPDATE account SET balance = 5, held = 0, head = 3, entries = 1, moves = 1, flags = 1 WHERE id >= 1000;"
            "DELETE FROM mark; INSERT INTO mark VALUES (1001, 640, 3, 1, 1, 1); DELETE FROM resolution;"
            "DELETE FROM open_hold; DELETE FROM stat; UPDATE ledger_head SET head_seq = 2, accounts = 9, lag_us = 5");
    struct postgres_options o = {.url = pg_cluster_url(pg_cluster_shared()),
                                 .schema = pg_cluster_schema(pg_cluster_shared(), w.k->dir)};
    int64_t entries;
    char why[256];
    if (store_postgres_rebuild(&o, &entries, why) != PFE_OK)
        fail_msg("rebuild: %s", why);
    assert_int_equal(entries, 206);
    kit_verify(w.k);
    assert_int_equal(store_account_get(w.k->s, w.ann, KIT_USD, &b), PFE_OK);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(store_stats(w.k->s, STORE_WINDOW_ALL, w.k->now, after, 16, &m), PFE_OK);
    assert_int_equal(n, m);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(before[i].count, after[i].count);
        assert_int_equal(before[i].volume, after[i].volume);
    }
    assert_int_equal(kit_deposit(w.k, w.bob, 1), 207);
    kit_verify(w.k);
    world_close(&w);
}

/* A journal that does not hold is not rebuilt from. */
static void rebuild_refuses_a_broken_journal(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    sql(&w, "ALTER TABLE journal DISABLE TRIGGER ALL; UPDATE journal SET credit = 4711 WHERE seq = 90;"
            "UPDATE account SET balance = 5, held = 0 WHERE id = 1001");
    struct postgres_options o = {.url = pg_cluster_url(pg_cluster_shared()),
                                 .schema = pg_cluster_schema(pg_cluster_shared(), w.k->dir)};
    int64_t entries = -1;
    char why[256] = "";
    assert_int_equal(store_postgres_rebuild(&o, &entries, why), PFE_WRONG_STATE);
    assert_non_null(strstr(why, "entry 90"));
    assert_int_equal(entries, -1);
    assert_int_equal(kit_balance(w.k, w.bob), 5); /* nothing was changed */
    world_close(&w);
}

static void account_rebuild(void **state)
{
    (void)state;
    struct world w;
    struct store_replay r;
    world_open(&w);
    int64_t bob = kit_account(w.k, w.bob), right = kit_balance(w.k, w.bob);
    sql(&w, "UPDATE account SET balance = 5, head = 3, entries = 1, moves = 1, flags = 1 WHERE id = 1001;"
            "DELETE FROM mark WHERE account = 1001");
    assert_int_equal(store_account_rebuild(w.k->s, bob, &r), PFE_OK);
    assert_true(r.intact);
    assert_int_equal(r.balance, right);
    assert_int_equal(kit_balance(w.k, w.bob), right);
    kit_verify(w.k);
    /* a chain that does not hold: it is said, and nothing is written */
    sql(&w, "ALTER TABLE journal DISABLE TRIGGER ALL; UPDATE journal SET amount = amount + 1 WHERE seq = 90");
    assert_int_equal(store_replay(w.k->s, bob, &r), PFE_OK);
    assert_false(r.intact);
    assert_int_equal(store_account_rebuild(w.k->s, bob, &r), PFE_OK);
    assert_false(r.intact);
    assert_int_equal(kit_balance(w.k, w.bob), right);
    world_close(&w);
}

static int64_t number(struct world *w, const char *text)
{
    PGresult *r = PQexec(w->pg, text);
    if (PQresultStatus(r) != PGRES_TUPLES_OK || PQntuples(r) != 1)
        fail_msg("%s: %s", text, PQerrorMessage(w->pg));
    int64_t n = strtoll(PQgetvalue(r, 0, 0), NULL, 10);
    PQclear(r);
    return n;
}

/* Receipts of a day ago go, some at a time, and are found without reading the others. */
static void old_receipts_are_swept_by_their_key(void **state)
{
    (void)state;
    struct world w;
    char text[512];
    const int64_t day_ms = 86400000, now_ms = KIT_START / 1000;
    world_open(&w);
    sql(&w, "DELETE FROM receipt");
    for (int i = 0; i < 2; i++) { /* from two days ago, and from now on */
        snprintf(text, sizeof text,
                 "INSERT INTO receipt SELECT decode(lpad(to_hex(%lld + i), 12, '0') || repeat('0', 20), 'hex'),"
                 " (%lld + i) * 1000 FROM generate_series(1, 15000) i",
                 (long long)(now_ms - (1 - i) * 2 * day_ms), (long long)(now_ms - (1 - i) * 2 * day_ms));
        sql(&w, text);
    }
    sql(&w, "ANALYZE receipt");
    snprintf(text, sizeof text, "SELECT count(*) FROM receipt WHERE ts < %lld", (long long)(now_ms - day_ms) * 1000);
    assert_int_equal(number(&w, text), 15000);
    for (int i = 1; i <= 3; i++) {
        w.k->now = KIT_START + i * INT64_C(10000000);
        kit_deposit(w.k, w.ann, 1);
        assert_int_equal(number(&w, text), i == 1 ? 5000 : 0);
    }
    assert_int_equal(number(&w, "SELECT count(*) FROM receipt"), 15000);

    sql(&w, "PREPARE sweep (bytea) AS " PG_RECEIPTS_SWEEP);
    PGresult *r = PQexec(w.pg, "EXPLAIN EXECUTE sweep ('\\x00000000000000000000000000000000')");
    assert_int_equal(PQresultStatus(r), PGRES_TUPLES_OK);
    for (int i = 0; i < PQntuples(r); i++)
        assert_null(strstr(PQgetvalue(r, i, 0), "Seq Scan"));
    PQclear(r);
    kit_verify(w.k);
    world_close(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_damage),
                                       cmocka_unit_test(journal_is_append_only),
                                       cmocka_unit_test(rebuild_mends_projections),
                                       cmocka_unit_test(rebuild_refuses_a_broken_journal),
                                       cmocka_unit_test(account_rebuild),
                                       cmocka_unit_test(old_receipts_are_swept_by_their_key)};
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("postgres verify", tests, NULL, NULL);
}
