#include "contract/store_kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "codec/uuid.h"
#include "store/memory/memory.h"
#ifdef TEST_POSTGRES
#include "store/postgres/postgres.h"
#include "support/pg_cluster.h"
#endif

static void open_store(struct kit *k)
{
    if (k->engine == KIT_MEMORY) {
        k->s = store_memory_open();
        assert_non_null(k->s);
        return;
    }
    char why[256];
#ifdef TEST_POSTGRES
    if (k->engine == KIT_POSTGRES) {
        const struct pg_cluster *c = pg_cluster_shared();
        struct postgres_options po = {.url = pg_cluster_url(c), .schema = pg_cluster_schema(c, k->dir)};
        if (store_postgres_open(&po, &k->s, why) != PFE_OK)
            fail_msg("open: %s", why);
        return;
    }
#endif
    struct sqlite_options o = {.dir = k->dir, .mode = SQLITE_SERVE, .flush_entries = k->flush_entries};
    if (store_sqlite_open(&o, &k->s, why) != PFE_OK)
        fail_msg("open %s: %s", k->dir, why);
}

struct kit *kit_open(enum kit_engine engine)
{
    struct kit *k = calloc(1, sizeof *k);
    assert_non_null(k);
    k->engine = engine;
    k->now = KIT_START;
    k->flush_entries = 100; /* small, so that every test crosses several epochs */
    strcpy(k->dir, "/tmp/payflow-store-XXXXXX");
    if (engine != KIT_MEMORY)
        assert_non_null(mkdtemp(k->dir));
    arena_init(&k->arena, NULL, 0, 1 << 24);
    open_store(k);
    return k;
}

void kit_close(struct kit *k)
{
    store_close(k->s);
    arena_reset(&k->arena);
    if (k->engine != KIT_MEMORY)
        kit_remove_dir(k->dir);
    free(k);
}

void kit_reopen(struct kit *k)
{
    if (k->engine == KIT_MEMORY)
        return;
    store_close(k->s);
    open_store(k);
}

void kit_remove_dir(const char *dir)
{
    static const char *const files[] = {"payflow.db", "payflow.db-wal", "payflow.db-shm", "payflow.db.restore", "lock"};
    char path[256];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

static void copy_file(const char *from, const char *to)
{
    static char block[1 << 16];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    for (size_t n; (n = fread(block, 1, sizeof block, in)) > 0;)
        assert_int_equal(fwrite(block, 1, n, out), n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

void kit_copy_dir(const char *from, const char *to)
{
    static const char *const files[] = {"payflow.db", "payflow.db-wal"};
    char a[256], b[256];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(a, sizeof a, "%s/%s", from, files[i]);
        snprintf(b, sizeof b, "%s/%s", to, files[i]);
        if (access(a, F_OK) == 0)
            copy_file(a, b);
    }
}

int64_t kit_user(struct kit *k, const char *name)
{
    struct store_user u = {.role = IDENT_USER, .created_us = k->now, .updated_us = k->now};
    struct uuid id = uuid_v7(k->now);
    memcpy(u.uuid, id.b, sizeof u.uuid);
    snprintf(u.username, sizeof u.username, "%s", name);
    snprintf(u.email, sizeof u.email, "%s@example.com", name);
    strcpy(u.password_hash, "x");
    struct store_tx *tx;
    assert_int_equal(store_tx_begin(k->s, &tx), PFE_OK);
    assert_int_equal(store_user_insert(tx, &u), PFE_OK);
    assert_int_equal(store_tx_commit(tx), PFE_OK);
    return u.id;
}

/* ---- groups ---- */

static bool resolves(enum ledger_kind kind)
{
    return kind == LEDGER_ROLLBACK || kind == LEDGER_CAPTURE || kind == LEDGER_RELEASE;
}

static size_t key_slot(struct store_key *keys, size_t *n, struct store_key want)
{
    size_t i = 0;
    while (i < *n &&
           (keys[i].account != want.account || keys[i].owner != want.owner || keys[i].currency != want.currency))
        i++;
    if (i == *n)
        keys[(*n)++] = want;
    return i;
}

/* By owner and currency, so that a movement and the resolution of another meet in one slot. */
static struct store_key key_of_account(struct kit *k, int64_t account)
{
    struct ledger_account a;
    assert_int_equal(store_account_by_id(k->s, account, &a), PFE_OK);
    return (struct store_key){.owner = a.owner, .currency = a.currency};
}

struct sides {
    size_t debit, credit;
    struct ledger_entry ref;
    int64_t resolved_by;
};

static void gather(struct kit *k, struct kit_move *m, struct sides *s, struct store_key *keys, size_t *n_keys)
{
    m->err = PFE_OK;
    m->seq = 0;
    if (!m->currency)
        m->currency = KIT_USD;
    if (resolves(m->kind)) {
        int64_t debit, credit;
        m->err = store_entry_get(k->s, &k->arena, m->ref, &s->ref, &s->resolved_by);
        if (m->err == PFE_OK)
            m->err = ledger_sides(&(struct ledger_command){.kind = m->kind, .ref = &s->ref}, &debit, &credit);
        if (m->err)
            return;
        m->currency = s->ref.currency;
        s->debit = key_slot(keys, n_keys, key_of_account(k, debit));
        s->credit = key_slot(keys, n_keys, key_of_account(k, credit));
        return;
    }
    bool state = m->kind >= LEDGER_FREEZE;
    int64_t to = state ? m->from : m->to;
    s->debit = key_slot(keys, n_keys, (struct store_key){.owner = m->from, .currency = m->currency});
    s->credit = key_slot(keys, n_keys, (struct store_key){.owner = to, .currency = m->currency});
}

static void decide(struct kit *k, struct kit_move *m, struct sides *s, struct store_slot *slots, int64_t seq,
                   struct ledger_entry *ret)
{
    struct store_slot *d = &slots[s->debit], *c = &slots[s->credit];
    if (d->state > STORE_SLOT_NEW || c->state > STORE_SLOT_NEW) {
        m->err = PFE_NOT_FOUND;
        return;
    }
    struct ledger_command cmd = {.kind = m->kind,
                                 .amount = m->amount ? m->amount : s->ref.amount,
                                 .currency = m->currency,
                                 .seq = seq,
                                 .ts = m->ts ? m->ts : k->now,
                                 .actor = m->from,
                                 .expires_us = m->expires_us,
                                 .description = str_c(m->description),
                                 .ref = resolves(m->kind) ? &s->ref : NULL,
                                 .ref_resolved = s->resolved_by != 0};
    struct uuid id = uuid_v7_seq(cmd.ts, seq);
    memcpy(cmd.uuid, id.b, sizeof cmd.uuid);
    m->err = ledger_decide(&d->acc, &c->acc, &cmd, ret);
    if (m->err)
        return;
    m->seq = seq;
    ledger_evolve(&d->acc, ret, cmd.ref);
    if (c != d)
        ledger_evolve(&c->acc, ret, cmd.ref);
    d->used = c->used = true;
}

enum pf_err kit_group(struct kit *k, struct kit_move *m, size_t n, const struct store_idem *idem, size_t n_idem)
{
    struct store_key *keys = calloc(2 * n + 1, sizeof *keys);
    struct store_slot *slots = calloc(2 * n + 1, sizeof *slots);
    struct sides *sides = calloc(n + 1, sizeof *sides);
    struct ledger_entry *entries = calloc(n + 1, sizeof *entries);
    assert_true(keys && slots && sides && entries);
    size_t n_keys = 0, n_entries = 0;
    int64_t first = 0;
    for (size_t i = 0; i < n; i++)
        gather(k, &m[i], &sides[i], keys, &n_keys);
    assert_int_equal(kit_begin(k->s, keys, n_keys, NULL, 0, slots, &first), PFE_OK);
    for (size_t i = 0; i < n; i++) {
        if (m[i].err == PFE_OK)
            decide(k, &m[i], &sides[i], slots, first + (int64_t)n_entries, &entries[n_entries]);
        n_entries += m[i].err == PFE_OK;
    }
    enum pf_err e = store_group_commit(k->s, &(struct store_commit){.ts = k->now,
                                                                    .entries = entries,
                                                                    .n_entries = n_entries,
                                                                    .slots = slots,
                                                                    .n_slots = n_keys,
                                                                    .idem = idem,
                                                                    .n_idem = n_idem});
    free(keys);
    free(slots);
    free(sides);
    free(entries);
    return e;
}

int64_t kit_post(struct kit *k, struct kit_move m)
{
    assert_int_equal(kit_group(k, &m, 1, NULL, 0), PFE_OK);
    assert_int_equal(m.err, PFE_OK);
    return m.seq;
}

int64_t kit_deposit(struct kit *k, int64_t user, int64_t amount)
{
    return kit_post(k, (struct kit_move){.kind = LEDGER_DEPOSIT, .to = user, .amount = amount});
}

/* ---- looking ---- */

int64_t kit_balance(struct kit *k, int64_t user)
{
    struct ledger_account a;
    assert_int_equal(store_account_get(k->s, user, KIT_USD, &a), PFE_OK);
    return a.balance;
}

int64_t kit_account(struct kit *k, int64_t user)
{
    struct ledger_account a;
    assert_int_equal(store_account_get(k->s, user, KIT_USD, &a), PFE_OK);
    return a.id;
}

struct seqs {
    int64_t *out;
    unsigned n, cap;
};

static bool note_seq(void *ctx, const struct ledger_entry *e, int64_t resolved_by)
{
    (void)resolved_by;
    struct seqs *s = ctx;
    assert_true(s->n < s->cap);
    s->out[s->n++] = e->seq;
    return true;
}

unsigned kit_list(struct kit *k, const struct store_entry_query *q, int64_t *out, unsigned cap, int64_t *ret_cursor)
{
    struct seqs s = {out, 0, cap};
    assert_int_equal(store_entry_list(k->s, q, note_seq, &s, ret_cursor), PFE_OK);
    return s.n;
}

void kit_verify(struct kit *k)
{
    struct store_verify v;
    assert_int_equal(store_verify(k->s, &v), PFE_OK);
    if (!v.ok)
        fail_msg("verify: %s (entry %lld)", v.what, (long long)v.bad_seq);
}
