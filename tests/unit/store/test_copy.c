/* An embedded store carried over to PostgreSQL answers there what it answered before: also what no API asks for yet. */
#include "store/copy.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "contract/store_kit.h"
#include "support/pg_cluster.h"

enum { USERS = 5, GROUPS = 60, GROUP = 20, LISTED_MAX = 64 };

struct pair {
    struct kit *k;          /* the embedded store */
    struct store *embedded; /* opened again for reading */
    struct store *shared;
    struct postgres_options to;
    int64_t users[USERS], head, groups;
};

static struct kit_move random_move(struct pair *p)
{
    static const enum ledger_kind kinds[] = {LEDGER_DEPOSIT, LEDGER_DEPOSIT,  LEDGER_WITHDRAW, LEDGER_TRANSFER,
                                             LEDGER_HOLD,    LEDGER_HOLD,     LEDGER_TRANSFER, LEDGER_CAPTURE,
                                             LEDGER_RELEASE, LEDGER_ROLLBACK, LEDGER_FREEZE,   LEDGER_UNFREEZE,
                                             LEDGER_UNFREEZE};
    static const money_currency currencies[] = {KIT_USD, KIT_USD, KIT_JPY, KIT_KWD};
    struct kit_move m = {.kind = kinds[random() % (long)(sizeof kinds / sizeof *kinds)],
                         .from = p->users[random() % USERS],
                         .to = p->users[random() % USERS],
                         .amount = 1 + random() % 900,
                         .currency = currencies[random() % 4],
                         .ref = 1 + random() % (p->head + 2),
                         .description = random() % 2 ? "\\N\t\n' \xf0\x9f\x92\xb6" : NULL,
                         .ts = p->k->now + random() % 90 - 30};
    if (m.kind == LEDGER_DEPOSIT)
        m.from = 0;
    if (m.kind == LEDGER_WITHDRAW)
        m.to = 0;
    if (m.kind == LEDGER_HOLD && random() % 3)
        m.expires_us = m.ts + random() % 5000;
    return m;
}

static int setup(void **state)
{
    struct pair *p = calloc(1, sizeof *p);
    const char *seed = getenv("COPY_SEED");
    unsigned s = seed ? (unsigned)strtoul(seed, NULL, 10) : (unsigned)time(NULL);
    print_message("seed %u: COPY_SEED=%u repeats it\n", s, s);
    srandom(s);
    p->k = kit_open(KIT_SQLITE);
    p->k->flush_entries = 100;
    kit_reopen(p->k);
    for (int i = 0; i < USERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "user%d", i);
        p->users[i] = kit_user(p->k, name);
        p->head = kit_deposit(p->k, p->users[i], 100000);
    }
    for (int g = 0; g < GROUPS; g++) {
        struct kit_move m[GROUP];
        char key[16];
        snprintf(key, sizeof key, "key %d", g);
        struct store_idem idem = {
            .principal = p->users[g % USERS], .key = str_c(key), .status = 201, .body = STR("{}")};
        for (int i = 0; i < GROUP; i++)
            m[i] = random_move(p);
        bool done = kit_group(p->k, m, GROUP, &idem, 1) == PFE_OK; /* not one that resolves an entry twice */
        p->groups += done;
        for (int i = 0; i < GROUP; i++)
            p->head = done && m[i].seq ? m[i].seq : p->head;
        p->k->now += random() % 200;
    }
    store_close(p->k->s);
    p->k->s = NULL;
    p->to = (struct postgres_options){.url = pg_cluster_url(pg_cluster_shared()),
                                      .schema = pg_cluster_schema(pg_cluster_shared(), p->k->dir)};
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;
    store_close(p->embedded);
    store_close(p->shared);
    kit_close(p->k);
    free(p);
    return 0;
}

struct journal {
    uint8_t hash[SHA256_LEN];
    int64_t n;
};

static bool add_entry(void *ctx, const struct ledger_entry *e, int64_t resolved_by)
{
    struct journal *j = ctx;
    uint8_t bytes[SHA256_LEN + LEDGER_CANONICAL_MAX + sizeof resolved_by];
    memcpy(bytes, j->hash, SHA256_LEN);
    size_t n = SHA256_LEN + ledger_canonical(e, bytes + SHA256_LEN, LEDGER_CANONICAL_MAX);
    memcpy(bytes + n, &resolved_by, sizeof resolved_by);
    sha256_of((struct str){(char *)bytes, n + sizeof resolved_by}, j->hash);
    j->n++;
    return true;
}

static void same_journal(struct pair *p)
{
    struct journal a = {.n = 0}, b = {.n = 0};
    assert_int_equal(store_journal_scan(p->embedded, 0, INT64_MAX, add_entry, &a), PFE_OK);
    assert_int_equal(store_journal_scan(p->shared, 0, INT64_MAX, add_entry, &b), PFE_OK);
    assert_int_equal(a.n, p->head);
    assert_int_equal(b.n, p->head);
    assert_memory_equal(a.hash, b.hash, SHA256_LEN);
}

static void same_accounts(struct pair *p)
{
    struct ledger_account a[8], b[8];
    unsigned n, m;
    for (int i = -1; i < USERS; i++) {
        int64_t owner = i < 0 ? 0 : p->users[i];
        assert_int_equal(store_account_list(p->embedded, owner, a, 8, &n), PFE_OK);
        assert_int_equal(store_account_list(p->shared, owner, b, 8, &m), PFE_OK);
        assert_int_equal(n, m);
        for (unsigned k = 0; k < n; k++) {
            assert_memory_equal(&a[k], &b[k], sizeof a[k]);
            for (int64_t at = KIT_START; at < p->k->now + 300; at += 997) {
                int64_t x, y;
                assert_int_equal(store_balance_at(p->embedded, a[k].id, at, &x), PFE_OK);
                assert_int_equal(store_balance_at(p->shared, a[k].id, at, &y), PFE_OK);
                assert_int_equal(x, y);
            }
        }
    }
}

static void same_holds(struct pair *p)
{
    int64_t a[LISTED_MAX], b[LISTED_MAX];
    unsigned n, m;
    assert_int_equal(store_holds_due(p->embedded, p->k->now + 10000, LISTED_MAX, a, &n), PFE_OK);
    assert_int_equal(store_holds_due(p->shared, p->k->now + 10000, LISTED_MAX, b, &m), PFE_OK);
    assert_true(n > 0);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n * sizeof *a);
}

static void same_figures(struct pair *p)
{
    struct store_stat a[LISTED_MAX], b[LISTED_MAX];
    unsigned n, m;
    for (int w = 0; w < 2; w++) {
        enum store_window window = w ? STORE_WINDOW_HOUR : STORE_WINDOW_ALL;
        assert_int_equal(store_stats(p->embedded, window, p->k->now, a, LISTED_MAX, &n), PFE_OK);
        assert_int_equal(store_stats(p->shared, window, p->k->now, b, LISTED_MAX, &m), PFE_OK);
        assert_true(n > 3);
        assert_int_equal(n, m);
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(a[i].kind, b[i].kind);
            assert_int_equal(a[i].currency, b[i].currency);
            assert_int_equal(a[i].count, b[i].count);
            assert_int_equal(a[i].volume, b[i].volume);
        }
    }
}

static void answers_are_the_same(void **state)
{
    struct pair *p = *state;
    struct sqlite_options from = {.dir = p->k->dir, .mode = SQLITE_INSPECT};
    struct store_copy *c = calloc(1, sizeof *c);
    struct store_verify v;
    struct store_idem idem;
    char why[256];
    enum pf_err e = store_copy(p->k->dir, &p->to, c, why);
    if (e || c->difference[0])
        fail_msg("%s%s", why, c->difference);
    assert_int_equal(c->given.ends.head_seq, p->head);
    assert_true(c->found.tables[MOVE_OPEN_HOLD].rows > 0);
    assert_true(c->found.tables[MOVE_RESOLUTION].rows > 0);
    assert_true(c->found.tables[MOVE_MARK].rows > 0);
    assert_int_equal(c->found.tables[MOVE_IDEMPOTENCY].rows, p->groups);
    assert_true(p->groups > GROUPS / 4);
    free(c);

    assert_int_equal(store_sqlite_open(&from, &p->embedded, why), PFE_OK);
    assert_int_equal(store_postgres_open(&p->to, &p->shared, why), PFE_OK);
    assert_int_equal(store_verify(p->shared, &v), PFE_OK);
    if (!v.ok)
        fail_msg("%s", v.what);
    same_journal(p);
    same_accounts(p);
    same_holds(p);
    same_figures(p);
    for (int g = 0; g < GROUPS; g++) {
        char key[16];
        snprintf(key, sizeof key, "key %d", g);
        enum pf_err there = store_idem_get(p->embedded, &p->k->arena, p->users[g % USERS], str_c(key), &idem);
        assert_int_equal(store_idem_get(p->shared, &p->k->arena, p->users[g % USERS], str_c(key), &idem), there);
    }

    /* and the books go on from there, with the same rules */
    store_close(p->embedded);
    p->embedded = NULL;
    struct kit shared = *p->k;
    shared.engine = KIT_POSTGRES;
    shared.s = p->shared;
    int64_t user = kit_user(&shared, "new here");
    assert_int_equal(user, p->users[USERS - 1] + 1);
    assert_int_equal(kit_deposit(&shared, user, 5), p->head + 1);
    assert_int_equal(store_verify(p->shared, &v), PFE_OK);
    assert_true(v.ok);
}

/* A killed copy leaves what a closed one does: nothing. */
static void nothing_before_the_commit(void **state)
{
    struct pair *p = *state;
    struct sqlite_source *f;
    struct postgres_target *t;
    struct store_verify v;
    struct store_info info;
    char why[256];
    assert_int_equal(store_sqlite_source_open(p->k->dir, &f, &v, why), PFE_OK);
    assert_int_equal(store_postgres_target_open(&p->to, &t, why), PFE_OK);
    for (unsigned i = 0; i < MOVE_TABLES; i++) {
        enum move_table_id id = (enum move_table_id)i;
        struct move_digest d;
        assert_int_equal(store_postgres_target_begin(t, id, why), PFE_OK);
        assert_int_equal(store_sqlite_source_rows(f, id, store_postgres_target_row, t, why), PFE_OK);
        assert_int_equal(store_postgres_target_end(t, true, &d, why), PFE_OK);
    }
    /* the embedded store is locked, and whoever wants to write to the database waits */
    assert_int_equal(store_sqlite_source_open(p->k->dir, &f, &v, why), PFE_WRONG_STATE);
    store_postgres_target_close(t);
    store_sqlite_source_close(f);
    assert_int_equal(store_postgres_open(&p->to, &p->shared, why), PFE_OK);
    assert_int_equal(store_info(p->shared, &info), PFE_OK);
    assert_int_equal(info.head_seq, 0);
    assert_int_equal(info.accounts, 0);
}

static void one_at_a_time(void **state)
{
    struct pair *p = *state;
    struct postgres_target *t, *second;
    struct postgres_options hurried = p->to;
    char why[256];
    hurried.timeout_ms = 500;
    assert_int_equal(store_postgres_target_open(&p->to, &t, why), PFE_OK);
    assert_int_equal(store_postgres_target_open(&hurried, &second, why), PFE_WRONG_STATE);
    assert_string_equal(why, "somebody else is writing to the PostgreSQL database");
    store_postgres_target_close(t);
    assert_int_equal(store_postgres_target_open(&hurried, &second, why), PFE_OK);
    store_postgres_target_close(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_are_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_before_the_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(one_at_a_time, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
