/* The ledger's part of the store contract, each case on each engine. */
#include "contract/store_kit.h"

#include <stdio.h>
#include <stdlib.h>

static struct store_entry_query query(struct kit *k, int64_t user)
{
    return (struct store_entry_query){.account = kit_account(k, user), .limit = 100, .counterparty = -1};
}

static void assert_list(struct kit *k, const struct store_entry_query *q, const int64_t *want, unsigned n,
                        int64_t cursor)
{
    int64_t got[200], at;
    assert_int_equal(kit_list(k, q, got, 200, &at), n);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(got[i], want[i]);
    assert_int_equal(at, cursor);
}
#define LIST(...) (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)

/* ---- groups ---- */

static void movements(struct kit *k)
{
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob");
    struct kit_move m[] = {
        {.kind = LEDGER_DEPOSIT, .to = a, .amount = 1000, .description = "salary"},
        {.kind = LEDGER_TRANSFER, .from = a, .to = b, .amount = 300},
        {.kind = LEDGER_WITHDRAW, .from = b, .amount = 100},
        {.kind = LEDGER_WITHDRAW, .from = b, .amount = 201},
        {.kind = LEDGER_DEPOSIT, .to = a, .amount = 5, .currency = KIT_JPY},
    };
    assert_int_equal(kit_group(k, m, 5, NULL, 0), PFE_OK);
    assert_int_equal(m[3].err, PFE_INSUFFICIENT_FUNDS);
    assert_int_equal(m[4].seq, 4);
    assert_int_equal(kit_balance(k, a), 700);
    assert_int_equal(kit_balance(k, b), 200);
    assert_int_equal(kit_balance(k, 0), -900);

    struct ledger_account acc[8];
    unsigned n;
    assert_int_equal(store_account_list(k->s, a, acc, 8, &n), PFE_OK);
    assert_int_equal(n, 2);
    assert_true(acc[0].id >= LEDGER_FIRST_USER_ACCOUNT && acc[0].id < acc[1].id);
    assert_int_equal(acc[0].currency, KIT_USD);
    assert_int_equal(acc[0].entries, 2);
    assert_int_equal(acc[0].head, 2);
    assert_int_equal(acc[0].updated_us, k->now);
    assert_int_equal(acc[1].currency, KIT_JPY);
    assert_int_equal(store_account_list(k->s, a, acc, 1, &n), PFE_OK);
    assert_int_equal(n, 1);
    assert_int_equal(store_account_list(k->s, 0, acc, 8, &n), PFE_OK);
    assert_int_equal(n, 2);
    assert_int_equal(acc[0].id, KIT_JPY);
    assert_int_equal(acc[1].id, KIT_USD);
    assert_int_equal(store_account_list(k->s, b + 100, acc, 8, &n), PFE_OK);
    assert_int_equal(n, 0);
    assert_int_equal(store_account_get(k->s, b, KIT_JPY, acc), PFE_NOT_FOUND);
    assert_int_equal(store_account_by_id(k->s, 99999, acc), PFE_NOT_FOUND);

    struct ledger_entry e;
    int64_t by = -1;
    assert_int_equal(store_entry_get(k->s, &k->arena, 1, &e, &by), PFE_OK);
    assert_true(str_is(e.description, "salary"));
    assert_int_equal(e.kind, LEDGER_DEPOSIT);
    assert_int_equal(e.debit, KIT_USD);
    assert_int_equal(e.amount, 1000);
    assert_int_equal(e.debit_balance, -1000);
    assert_int_equal(e.credit_balance, 1000);
    assert_int_equal(by, 0);
    assert_int_equal(store_entry_get(k->s, &k->arena, 5, &e, &by), PFE_NOT_FOUND);
    assert_int_equal(store_entry_get(k->s, &k->arena, 0, &e, &by), PFE_NOT_FOUND);
    struct arena tiny;
    arena_init(&tiny, NULL, 0, 2);
    assert_int_equal(store_entry_get(k->s, &tiny, 1, &e, &by), PFE_NOMEM);
    arena_reset(&tiny);

    struct store_info i;
    assert_int_equal(store_info(k->s, &i), PFE_OK);
    assert_int_equal(i.head_seq, 4);
    assert_int_equal(i.accounts, 5);
    assert_true(i.writable);
    assert_false(i.fatal);
    kit_verify(k);
}

static void slots(struct kit *k)
{
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 10);
    int64_t account = kit_account(k, a);
    struct store_key keys[] = {
        {.owner = a, .currency = KIT_USD}, {.owner = a, .currency = KIT_JPY}, {.owner = a + 7, .currency = KIT_USD},
        {.owner = 0, .currency = KIT_JPY}, {.account = account + 100},        {.owner = a, .currency = 1},
        {.owner = 0, .currency = KIT_USD},
    };
    struct store_slot s[7];
    int64_t first;
    assert_int_equal(kit_begin(k->s, keys, 7, NULL, 0, s, &first), PFE_OK);
    assert_int_equal(first, 2);
    assert_int_equal(s[0].state, STORE_SLOT_FOUND);
    assert_int_equal(s[0].acc.id, account);
    assert_int_equal(s[0].acc.balance, 10);
    assert_false(s[0].used);
    assert_int_equal(s[1].state, STORE_SLOT_NEW);
    assert_int_equal(s[1].acc.owner, a);
    assert_int_equal(s[1].acc.currency, KIT_JPY);
    assert_true(s[1].acc.id > account);
    assert_int_equal(s[2].state, STORE_SLOT_NO_OWNER);
    assert_int_equal(s[3].state, STORE_SLOT_NEW);
    assert_int_equal(s[3].acc.id, KIT_JPY);
    assert_int_equal(s[3].acc.owner, 0);
    assert_int_equal(s[4].state, STORE_SLOT_NO_ACCOUNT);
    assert_int_equal(s[5].state, STORE_SLOT_NO_ACCOUNT);
    assert_int_equal(s[6].state, STORE_SLOT_FOUND);
    store_group_abort(k->s);

    struct store_key by_id = {.account = account};
    assert_int_equal(kit_begin(k->s, &by_id, 1, NULL, 0, s, &first), PFE_OK);
    assert_int_equal(s[0].state, STORE_SLOT_FOUND);
    assert_int_equal(s[0].acc.owner, a);
    store_group_abort(k->s);
}

static void users_on_the_way_out_open_nothing(struct kit *k)
{
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 10);
    struct store_user u;
    struct store_tx *tx;
    assert_int_equal(store_user_get(k->s, a, &u), PFE_OK);
    u.status = STORE_USER_CLOSING;
    assert_int_equal(store_tx_begin(k->s, &tx), PFE_OK);
    assert_int_equal(store_user_update(tx, &u), PFE_OK);
    assert_int_equal(store_tx_commit(tx), PFE_OK);
    struct kit_move m[] = {{.kind = LEDGER_DEPOSIT, .to = a, .amount = 1, .currency = KIT_JPY},
                           {.kind = LEDGER_WITHDRAW, .from = a, .amount = 10}};
    assert_int_equal(kit_group(k, m, 2, NULL, 0), PFE_OK);
    assert_int_equal(m[0].err, PFE_NOT_FOUND);
    assert_int_equal(m[1].err, PFE_OK);
}

static void open_account(struct kit *k, int64_t user, bool use)
{
    struct store_key key = {.owner = user, .currency = KIT_USD};
    struct store_slot s;
    int64_t first;
    assert_int_equal(kit_begin(k->s, &key, 1, NULL, 0, &s, &first), PFE_OK);
    assert_int_equal(s.state, STORE_SLOT_NEW);
    s.used = use;
    assert_int_equal(store_group_commit(k->s, &(struct store_commit){.ts = k->now, .slots = &s, .n_slots = 1}), PFE_OK);
}

static void accounts_without_entries(struct kit *k)
{
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob");
    struct ledger_account acc;
    open_account(k, a, false);
    assert_int_equal(store_account_get(k->s, a, KIT_USD, &acc), PFE_NOT_FOUND);
    open_account(k, a, true);
    open_account(k, b, true);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(store_account_get(k->s, a, KIT_USD, &acc), PFE_OK);
        assert_int_equal(acc.balance, 0);
        assert_int_equal(acc.head, 0);
        assert_int_equal(acc.updated_us, k->now);
        assert_int_not_equal(kit_account(k, a), kit_account(k, b));
        kit_verify(k);
        kit_reopen(k);
    }
    int64_t at = -1, got[1], cursor = -1;
    assert_int_equal(store_balance_at(k->s, acc.id, INT64_MAX, &at), PFE_OK);
    assert_int_equal(at, 0);
    struct store_entry_query q = query(k, a);
    assert_int_equal(kit_list(k, &q, got, 1, &cursor), 0);
    assert_int_equal(cursor, 0);
    struct store_replay r;
    assert_int_equal(store_replay(k->s, acc.id, &r), PFE_OK);
    assert_true(r.intact);
    assert_int_equal(r.events, 0);
    kit_deposit(k, a, 3);
    assert_int_equal(kit_balance(k, a), 3);
    kit_verify(k);
}

static void abort_leaves_nothing(struct kit *k)
{
    int64_t a = kit_user(k, "ann");
    struct store_key keys[] = {{.owner = 0, .currency = KIT_USD}, {.owner = a, .currency = KIT_USD}};
    struct store_slot s[2];
    int64_t first;
    assert_int_equal(kit_begin(k->s, keys, 2, NULL, 0, s, &first), PFE_OK);
    s[0].used = s[1].used = true;
    store_group_abort(k->s);
    struct ledger_account acc;
    struct store_info i;
    assert_int_equal(store_account_get(k->s, a, KIT_USD, &acc), PFE_NOT_FOUND);
    assert_int_equal(store_info(k->s, &i), PFE_OK);
    assert_int_equal(i.head_seq, 0);
    assert_int_equal(i.accounts, 0);
    assert_int_equal(kit_deposit(k, a, 1), 1);
    kit_verify(k);
}

static void idempotency_rows(struct kit *k)
{
    int64_t a = kit_user(k, "ann");
    struct store_idem i = {.principal = a, .key = STR("k1"), .status = 201, .body = STR("{\"ok\":1}"), .seq = 1}, got;
    memset(i.request, 7, sizeof i.request);
    struct kit_move m = {.kind = LEDGER_DEPOSIT, .to = a, .amount = 10};
    assert_int_equal(kit_group(k, &m, 1, &i, 1), PFE_OK);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(store_idem_get(k->s, &k->arena, a, STR("k1"), &got), PFE_OK);
        assert_int_equal(got.status, 201);
        assert_int_equal(got.seq, 1);
        assert_true(str_eq(got.body, i.body));
        assert_memory_equal(got.request, i.request, 32);
        assert_int_equal(store_idem_get(k->s, &k->arena, a, STR("k2"), &got), PFE_NOT_FOUND);
        assert_int_equal(store_idem_get(k->s, &k->arena, a + 1, STR("k1"), &got), PFE_NOT_FOUND);
        kit_reopen(k);
    }

    /* the same key again fails the whole group */
    struct store_idem two[] = {{.principal = a, .key = STR("k3"), .status = 201}, i};
    assert_int_equal(kit_group(k, &m, 1, two, 2), PFE_IN_FLIGHT);
    assert_int_equal(kit_balance(k, a), 10);
    assert_int_equal(store_idem_get(k->s, &k->arena, a, STR("k3"), &got), PFE_NOT_FOUND);
    /* a key may stand alone, and another principal may use it */
    i.principal = STORE_PRINCIPAL_SCHEDULER;
    i.body = STR_NONE;
    assert_int_equal(kit_group(k, NULL, 0, &i, 1), PFE_OK);
    assert_int_equal(store_idem_get(k->s, &k->arena, STORE_PRINCIPAL_SCHEDULER, STR("k1"), &got), PFE_OK);
    assert_int_equal(got.body.n, 0);
    assert_int_equal(kit_deposit(k, a, 1), 2);
    kit_verify(k);
}

static void resolutions(struct kit *k)
{
    int64_t a = kit_user(k, "ann"), by;
    int64_t d = kit_deposit(k, a, 100);
    int64_t r = kit_post(k, (struct kit_move){.kind = LEDGER_ROLLBACK, .ref = d});
    struct ledger_entry e;
    assert_int_equal(store_entry_get(k->s, &k->arena, d, &e, &by), PFE_OK);
    assert_int_equal(by, r);
    assert_int_equal(store_entry_get(k->s, &k->arena, r, &e, &by), PFE_OK);
    assert_int_equal(e.ref, d);
    assert_int_equal(by, 0);

    /* Two in one group, which this kit's rules do not see: the store does. */
    kit_deposit(k, a, 500);
    d = kit_deposit(k, a, 100);
    struct kit_move twice[] = {{.kind = LEDGER_ROLLBACK, .ref = d}, {.kind = LEDGER_ROLLBACK, .ref = d}};
    assert_int_equal(kit_group(k, twice, 2, NULL, 0), PFE_WRONG_STATE);
    assert_int_equal(kit_balance(k, a), 600);
    assert_int_equal(store_entry_get(k->s, &k->arena, d, &e, &by), PFE_OK);
    assert_int_equal(by, 0);
    struct kit_move once = {.kind = LEDGER_ROLLBACK, .ref = d};
    assert_int_equal(kit_group(k, &once, 1, NULL, 0), PFE_OK);
    assert_int_equal(once.seq, d + 1);

    /* a group asks for all that it is to resolve: what stands, what is gone, what never was, one of them twice */
    int64_t refs[] = {d, d - 1, 1, d, 0, d + 100}, got[] = {-1, -1, -1, -1, -1, -1};
    struct store_group_ask ask = {.refs = refs, .n_refs = 6};
    struct store_group g = {.resolved_by = got, .now_us = k->now};
    assert_int_equal(store_group_begin(k->s, &ask, &g), PFE_OK);
    store_group_abort(k->s);
    int64_t want[] = {once.seq, 0, r, once.seq, 0, 0};
    for (int i = 0; i < 6; i++)
        assert_int_equal(got[i], want[i]);
    kit_verify(k);
}

static void holds(struct kit *k)
{
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob"), due[8];
    unsigned n;
    kit_deposit(k, a, 1000);
    kit_deposit(k, b, 1);
    int64_t h[4];
    for (int i = 0; i < 4; i++)
        h[i] = kit_post(k, (struct kit_move){.kind = LEDGER_HOLD,
                                             .from = a,
                                             .to = b,
                                             .amount = 100,
                                             .expires_us = i == 3 ? 0 : k->now + 300 - 100 * i});
    struct ledger_account acc;
    assert_int_equal(store_account_get(k->s, a, KIT_USD, &acc), PFE_OK);
    assert_int_equal(acc.held, 400);
    assert_int_equal(acc.balance, 1000);
    kit_reopen(k);

    assert_int_equal(store_holds_due(k->s, k->now, 8, due, &n), PFE_OK);
    assert_int_equal(n, 0);
    assert_int_equal(store_holds_due(k->s, k->now + 200, 8, due, &n), PFE_OK);
    assert_int_equal(n, 2);
    assert_int_equal(due[0], h[1]);
    assert_int_equal(due[1], h[2]);
    assert_int_equal(store_holds_due(k->s, INT64_MAX, 8, due, &n), PFE_OK);
    assert_int_equal(n, 3);
    assert_int_equal(store_holds_due(k->s, INT64_MAX, 1, due, &n), PFE_OK);
    assert_int_equal(n, 1);
    assert_int_equal(due[0], h[0]);

    kit_post(k, (struct kit_move){.kind = LEDGER_CAPTURE, .ref = h[0], .amount = 60});
    kit_post(k, (struct kit_move){.kind = LEDGER_RELEASE, .ref = h[1]});
    assert_int_equal(store_holds_due(k->s, INT64_MAX, 8, due, &n), PFE_OK);
    assert_int_equal(n, 1);
    assert_int_equal(due[0], h[2]);
    kit_reopen(k);
    assert_int_equal(store_account_get(k->s, a, KIT_USD, &acc), PFE_OK);
    assert_int_equal(acc.held, 200);
    assert_int_equal(acc.balance, 940);
    assert_int_equal(kit_balance(k, b), 61);
    struct store_replay r;
    assert_int_equal(store_replay(k->s, acc.id, &r), PFE_OK);
    assert_true(r.intact);
    assert_int_equal(r.balance, 940);
    assert_int_equal(r.held, 200);
    assert_int_equal(r.events, 7);
    assert_int_equal(r.head, acc.head);
    kit_verify(k);
}

static void freezing(struct kit *k)
{
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 10);
    kit_post(k, (struct kit_move){.kind = LEDGER_FREEZE, .from = a});
    kit_reopen(k);
    struct kit_move m = {.kind = LEDGER_WITHDRAW, .from = a, .amount = 10};
    assert_int_equal(kit_group(k, &m, 1, NULL, 0), PFE_OK);
    assert_int_equal(m.err, PFE_ACCOUNT_FROZEN);
    kit_post(k, (struct kit_move){.kind = LEDGER_UNFREEZE, .from = a});
    kit_post(k, (struct kit_move){.kind = LEDGER_WITHDRAW, .from = a, .amount = 10});
    kit_post(k, (struct kit_move){.kind = LEDGER_CLOSE, .from = a});
    kit_reopen(k);
    struct ledger_account acc;
    assert_int_equal(store_account_get(k->s, a, KIT_USD, &acc), PFE_OK);
    assert_int_equal(acc.flags, LEDGER_CLOSED);
    assert_int_equal(acc.entries, 5);
    kit_verify(k);
}

/* ---- history ---- */

static void history_filters(struct kit *k)
{
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob"), c = kit_user(k, "cid");
    int64_t t = k->now;
    /* 1 */ kit_post(k, (struct kit_move){.kind = LEDGER_DEPOSIT, .to = a, .amount = 1000, .ts = t + 10});
    /* 2 */ kit_post(k, (struct kit_move){.kind = LEDGER_TRANSFER, .from = a, .to = b, .amount = 100, .ts = t + 20});
    /* 3 */ kit_post(k, (struct kit_move){.kind = LEDGER_HOLD, .from = a, .to = c, .amount = 50, .ts = t + 30});
    /* 4 */ kit_post(k, (struct kit_move){.kind = LEDGER_TRANSFER, .from = b, .to = a, .amount = 30, .ts = t + 40});
    /* 5 */ kit_post(k, (struct kit_move){.kind = LEDGER_CAPTURE, .ref = 3, .amount = 40, .ts = t + 50});
    /* 6 */ kit_post(k, (struct kit_move){.kind = LEDGER_WITHDRAW, .from = a, .amount = 5, .ts = t + 45});
    /* 7 */ kit_post(k, (struct kit_move){.kind = LEDGER_DEPOSIT, .to = b, .amount = 7, .ts = t + 60});
    /* 8 */ kit_post(k, (struct kit_move){.kind = LEDGER_DEPOSIT, .to = b, .amount = 9, .currency = KIT_JPY});

    for (int round = 0; round < 2; round++, kit_reopen(k)) {
        struct store_entry_query q = query(k, a);
        assert_list(k, &q, LIST(6, 5, 4, 2, 1), 0);
        q.kinds = 1u << LEDGER_HOLD | 1u << LEDGER_CAPTURE;
        assert_list(k, &q, LIST(5, 3), 0);
        q = query(k, a);
        q.counterparty = b;
        assert_list(k, &q, LIST(4, 2), 0);
        q.counterparty = 0;
        assert_list(k, &q, LIST(6, 1), 0);
        q = query(k, a);
        q.min_amount = 30;
        q.max_amount = 100;
        assert_list(k, &q, LIST(5, 4, 2), 0);
        q = query(k, a);
        q.from_us = t + 20;
        q.to_us = t + 50;
        assert_list(k, &q, LIST(6, 4, 2), 0);
        q.to_us = t + 45;
        assert_list(k, &q, LIST(4, 2), 0);
        q = query(k, a);
        q.currency = KIT_JPY;
        assert_list(k, &q, NULL, 0, 0);

        q = query(k, a);
        q.limit = 2;
        assert_list(k, &q, LIST(6, 5), 5);
        q.before_seq = 5;
        assert_list(k, &q, LIST(4, 2), 2);
        q.before_seq = 2;
        assert_list(k, &q, LIST(1), 0);
        q.before_seq = 1;
        assert_list(k, &q, NULL, 0, 0);
        q.before_seq = 3;
        assert_list(k, &q, LIST(2, 1), 0);
        q.before_seq = 1000;
        assert_list(k, &q, LIST(6, 5), 5);
        q.before_seq = 0;
        q.offset = 3;
        assert_list(k, &q, LIST(2, 1), 0);
        q.offset = 5;
        assert_list(k, &q, NULL, 0, 0);

        q = (struct store_entry_query){.limit = 100, .counterparty = -1};
        assert_list(k, &q, LIST(8, 7, 6, 5, 4, 2, 1), 0);
        q.currency = KIT_JPY;
        assert_list(k, &q, LIST(8), 0);
        q.currency = 0;
        q.counterparty = c;
        assert_list(k, &q, LIST(5), 0);
        q.counterparty = -1;
        q.to_us = t + 41;
        assert_list(k, &q, LIST(8, 4, 2, 1), 0);
        q.from_us = t + 15;
        assert_list(k, &q, LIST(4, 2), 0);
        q = (struct store_entry_query){.limit = 3, .counterparty = -1, .before_seq = 7, .offset = 1};
        assert_list(k, &q, LIST(5, 4, 2), 2);
    }
    struct store_entry_query q = {.account = 123456, .limit = 1, .counterparty = -1};
    int64_t cursor = -7;
    assert_int_equal(store_entry_list(k->s, &q, NULL, NULL, &cursor), PFE_NOT_FOUND);
    assert_int_equal(cursor, -7);
}

struct stop_at {
    int64_t seq, resolved_by;
};

static bool stop_at(void *ctx, const struct ledger_entry *e, int64_t resolved_by)
{
    struct stop_at *s = ctx;
    if (e->seq != s->seq)
        return true;
    s->resolved_by = resolved_by;
    return false;
}

static void history_tells_what_resolved(struct kit *k)
{
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 10);
    kit_deposit(k, a, 10);
    kit_post(k, (struct kit_move){.kind = LEDGER_ROLLBACK, .ref = 2});
    struct stop_at s = {.seq = 2};
    struct store_entry_query q = query(k, a);
    int64_t cursor;
    assert_int_equal(store_entry_list(k->s, &q, stop_at, &s, &cursor), PFE_OK);
    assert_int_equal(s.resolved_by, 3);
    assert_int_equal(cursor, 2);
}

static void long_history(struct kit *k)
{
    enum { N = 1000 };
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob"), got[N + 1], cursor;
    kit_deposit(k, a, 1000000);
    struct kit_move m[50];
    for (int i = 0; i < N / 50; i++) {
        for (int j = 0; j < 50; j++)
            m[j] = j % 5 == 4 ? (struct kit_move){.kind = LEDGER_HOLD, .from = a, .to = b, .amount = 1}
                              : (struct kit_move){.kind = LEDGER_TRANSFER, .from = a, .to = b, .amount = 1};
        k->now += 1000;
        assert_int_equal(kit_group(k, m, 50, NULL, 0), PFE_OK);
    }
    struct store_entry_query q = query(k, a);
    q.limit = N + 1;
    unsigned all = kit_list(k, &q, got, N + 1, &cursor);
    assert_int_equal(all, N / 5 * 4 + 1);
    for (unsigned offset = 0; offset <= all; offset += 7) {
        q.limit = 3;
        q.offset = offset;
        unsigned n = all - offset < 3 ? all - offset : 3;
        assert_list(k, &q, got + offset, n, offset + n < all ? got[offset + 2] : 0);
        q.offset = 0;
        q.before_seq = offset < all ? got[offset] : 1;
        n = offset >= all || all - offset - 1 < 3 ? (offset >= all ? 0 : all - offset - 1) : 3;
        assert_list(k, &q, got + offset + 1, n, offset + 1 + n < all ? got[offset + 3] : 0);
        q.before_seq = 0;
    }
    q.limit = 1;
    for (int i = 0; i < N / 50; i++) {
        q.to_us = KIT_START + 1000 * (i + 1) + 1;
        q.from_us = i % 2 ? KIT_START : 0;
        int64_t newest, balance;
        assert_int_equal(kit_list(k, &q, &newest, 1, &cursor), 1);
        assert_int_equal(newest, 1 + (i + 1) * 50 - 1); /* the last of each group is a hold */
        assert_int_equal(store_balance_at(k->s, q.account, q.to_us, &balance), PFE_OK);
        assert_int_equal(balance, 1000000 - 40 * (i + 1));
    }
    kit_verify(k);
}

/* ---- other reads ---- */

static void balance_at(struct kit *k)
{
    int64_t a = kit_user(k, "ann"), v;
    int64_t t = k->now;
    const int64_t at[] = {10, 20, 15, 30, 30, 29, 40}; /* the clock goes back twice */
    for (int i = 0; i < 7; i++)
        kit_post(k, (struct kit_move){.kind = LEDGER_DEPOSIT, .to = a, .amount = 1, .ts = t + at[i]});
    static const struct {
        int64_t at, balance;
    } want[] = {{9, 0}, {10, 1}, {15, 1}, {19, 1}, {20, 3}, {29, 3}, {30, 6}, {39, 6}, {40, 7}, {1000, 7}};
    for (int round = 0; round < 2; round++, kit_reopen(k))
        for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
            assert_int_equal(store_balance_at(k->s, kit_account(k, a), t + want[i].at, &v), PFE_OK);
            assert_int_equal(v, want[i].balance);
        }
    assert_int_equal(store_balance_at(k->s, KIT_USD, t + 20, &v), PFE_OK);
    assert_int_equal(v, -3);
    assert_int_equal(store_balance_at(k->s, 4711, t, &v), PFE_NOT_FOUND);
}

static void journal_scan(struct kit *k)
{
    int64_t a = kit_user(k, "ann");
    for (int i = 0; i < 5; i++)
        kit_deposit(k, a, 1);
    kit_post(k, (struct kit_move){.kind = LEDGER_FREEZE, .from = a});
    struct stop_at s = {.seq = -1, .resolved_by = -1};
    assert_int_equal(store_journal_scan(k->s, 0, 0, stop_at, &s), PFE_OK);
    s.seq = 6;
    assert_int_equal(store_journal_scan(k->s, 0, 5, stop_at, &s), PFE_OK);
    assert_int_equal(s.resolved_by, -1);
    assert_int_equal(store_journal_scan(k->s, 5, 0, stop_at, &s), PFE_OK);
    assert_int_equal(s.resolved_by, 0);
    s = (struct stop_at){.seq = 3, .resolved_by = -1};
    assert_int_equal(store_journal_scan(k->s, 3, 0, stop_at, &s), PFE_OK);
    assert_int_equal(s.resolved_by, -1);
}

static void statistics(struct kit *k)
{
    int64_t a = kit_user(k, "ann"), minute = 60 * 1000000;
    int64_t now = KIT_START / minute * minute + minute / 2;
    const int64_t ago[] = {30 * 60, 23 * 60, 59, 0};
    for (int i = 0; i < 4; i++)
        kit_post(k, (struct kit_move){.kind = LEDGER_DEPOSIT, .to = a, .amount = 10 << i, .ts = now - ago[i] * minute});
    kit_post(k, (struct kit_move){.kind = LEDGER_WITHDRAW, .from = a, .amount = 3, .ts = now});
    kit_post(k, (struct kit_move){.kind = LEDGER_DEPOSIT, .to = a, .amount = 8, .currency = KIT_JPY, .ts = now});
    for (int round = 0; round < 3; round++, kit_reopen(k)) {
        struct store_stat s[8];
        unsigned n;
        assert_int_equal(store_stats(k->s, STORE_WINDOW_ALL, now, s, 8, &n), PFE_OK);
        assert_int_equal(n, 3);
        assert_int_equal(s[0].currency, KIT_JPY);
        assert_int_equal(s[1].kind, LEDGER_DEPOSIT);
        assert_int_equal(s[1].count, 4);
        assert_int_equal(s[1].volume, 150);
        assert_int_equal(s[2].kind, LEDGER_WITHDRAW);
        assert_int_equal(s[2].volume, 3);
        assert_int_equal(store_stats(k->s, STORE_WINDOW_DAY, now, s, 8, &n), PFE_OK);
        assert_int_equal(s[1].count, 3);
        assert_int_equal(s[1].volume, 140);
        assert_int_equal(store_stats(k->s, STORE_WINDOW_HOUR, now, s, 8, &n), PFE_OK);
        assert_int_equal(s[1].count, 2);
        assert_int_equal(s[1].volume, 120);
        assert_int_equal(store_stats(k->s, STORE_WINDOW_HOUR, now + 61 * minute, s, 8, &n), PFE_OK);
        assert_int_equal(n, 0);
        assert_int_equal(store_stats(k->s, STORE_WINDOW_ALL, now, s, 1, &n), PFE_OK);
        assert_int_equal(n, 1);
        if (round == 0)
            assert_int_equal(store_flush(k->s), PFE_OK);
    }
}

static void trial_balance(struct kit *k)
{
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob");
    kit_deposit(k, a, 100);
    kit_deposit(k, b, 50);
    kit_post(k, (struct kit_move){.kind = LEDGER_DEPOSIT, .to = a, .amount = 7, .currency = KIT_JPY});
    struct store_trial t[4];
    unsigned n;
    assert_int_equal(store_trial(k->s, t, 4, &n), PFE_OK);
    assert_int_equal(n, 2);
    assert_int_equal(t[0].currency, KIT_JPY);
    assert_int_equal(t[1].currency, KIT_USD);
    assert_int_equal(t[1].accounts, 3);
    assert_int_equal(t[1].user_balance, 150);
    assert_int_equal(t[1].external, -150);
    assert_int_equal(t[1].sum, 0);
    assert_int_equal(store_trial(k->s, t, 1, &n), PFE_OK);
    assert_int_equal(n, 1);
}

static void rebuilding(struct kit *k)
{
    int64_t a = kit_user(k, "ann"), b = kit_user(k, "bob");
    kit_deposit(k, a, 1000);
    for (int i = 0; i < 150; i++) {
        k->now += 5;
        kit_post(k, (struct kit_move){.kind = LEDGER_TRANSFER, .from = a, .to = b, .amount = 2});
    }
    kit_post(k, (struct kit_move){.kind = LEDGER_FREEZE, .from = a});
    struct ledger_account before, after;
    assert_int_equal(store_account_get(k->s, a, KIT_USD, &before), PFE_OK);
    struct store_replay r;
    assert_int_equal(store_account_rebuild(k->s, before.id, &r), PFE_OK);
    assert_true(r.intact);
    assert_int_equal(r.events, 152);
    assert_int_equal(r.balance, 700);
    for (int round = 0; round < 2; round++, kit_reopen(k)) {
        assert_int_equal(store_account_get(k->s, a, KIT_USD, &after), PFE_OK);
        assert_memory_equal(&before, &after, sizeof before);
        kit_verify(k);
    }
    assert_int_equal(store_account_rebuild(k->s, 4711, &r), PFE_NOT_FOUND);
    assert_int_equal(store_replay(k->s, 4711, &r), PFE_NOT_FOUND);
}

static void verify_counts(struct kit *k)
{
    int64_t a = kit_user(k, "ann");
    struct kit_move m[] = {{.kind = LEDGER_DEPOSIT, .to = a, .amount = 1},
                           {.kind = LEDGER_DEPOSIT, .to = a, .amount = 2}};
    assert_int_equal(kit_group(k, m, 2, NULL, 0), PFE_OK);
    kit_post(k, (struct kit_move){.kind = LEDGER_ROLLBACK, .ref = 1});
    struct store_verify v;
    assert_int_equal(store_verify(k->s, &v), PFE_OK);
    assert_true(v.ok);
    assert_int_equal(v.entries, 3);
    assert_int_equal(v.seals, 2);
    assert_int_equal(v.accounts, 2);
    assert_int_equal(v.resolutions, 1);
    assert_int_equal(v.bad_seq, 0);
    assert_string_equal(v.what, "");
}

static void empty_store(struct kit *k)
{
    struct store_verify v;
    struct store_stat s[1];
    struct store_trial t[1];
    unsigned n = 9;
    assert_int_equal(store_verify(k->s, &v), PFE_OK);
    assert_true(v.ok);
    assert_int_equal(store_stats(k->s, STORE_WINDOW_ALL, 0, s, 1, &n), PFE_OK);
    assert_int_equal(n, 0);
    assert_int_equal(store_trial(k->s, t, 1, &n), PFE_OK);
    assert_int_equal(n, 0);
    assert_int_equal(kit_group(k, NULL, 0, NULL, 0), PFE_OK);
    assert_int_equal(store_flush(k->s), PFE_OK);
}

/* ---- the suite over both engines ---- */

static const struct {
    const char *name;
    void (*run)(struct kit *k);
} cases[] = {
    {"movements", movements},
    {"slots", slots},
    {"users on the way out open nothing", users_on_the_way_out_open_nothing},
    {"accounts without entries", accounts_without_entries},
    {"abort leaves nothing", abort_leaves_nothing},
    {"idempotency rows", idempotency_rows},
    {"resolutions", resolutions},
    {"holds", holds},
    {"freezing", freezing},
    {"history filters", history_filters},
    {"history tells what resolved", history_tells_what_resolved},
    {"long history", long_history},
    {"balance at", balance_at},
    {"journal scan", journal_scan},
    {"statistics", statistics},
    {"trial balance", trial_balance},
    {"rebuilding", rebuilding},
    {"verify counts", verify_counts},
    {"empty store", empty_store},
};
enum { CASES = sizeof cases / sizeof *cases };

struct run {
    enum kit_engine engine;
    size_t at;
};

static void run_case(void **state)
{
    const struct run *r = *state;
    struct kit *k = kit_open(r->engine);
    cases[r->at].run(k);
    kit_close(k);
}

int main(void)
{
    static const char *const engines[KIT_ENGINES] = {"memory", "sqlite", "postgres"};
    static struct run runs[KIT_ENGINES * CASES];
    static char names[KIT_ENGINES * CASES][64];
    struct CMUnitTest tests[KIT_ENGINES * CASES];
    for (size_t i = 0; i < KIT_ENGINES * CASES; i++) {
        runs[i] = (struct run){(enum kit_engine)(i / CASES), i % CASES};
        snprintf(names[i], sizeof names[i], "%s: %s", engines[i / CASES], cases[i % CASES].name);
        tests[i] = (struct CMUnitTest){names[i], run_case, NULL, NULL, &runs[i]};
    }
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
