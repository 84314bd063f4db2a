/* Everything that can be read, against the model. */
#include "sim.h"

#include <stdio.h>
#include <string.h>

/* ---- the journal ---- */

static int64_t owner_of(struct sim *s, int64_t account)
{
    struct ledger_account a;
    if (store_account_by_id(s->store, account, &a) == PFE_OK)
        return a.owner;
    sim_wrong(s, "account %lld of an entry is not there", (long long)account);
    return -1;
}

/* The account's entry before this one. */
static int64_t previous(const struct sim *s, const struct m_entry *e, int64_t user)
{
    for (int64_t seq = e->seq - 1; seq > 0; seq--)
        if (model_names(&s->m.entry[seq - 1], user, e->currency))
            return seq;
    return 0;
}

void check_entry(struct sim *s, const struct m_entry *e, const struct ledger_entry *x)
{
    const char *what = model_differs(e, x, owner_of(s, x->debit), owner_of(s, x->credit));
    if (what)
        sim_wrong(s, "entry %lld (%s %.20s) has another %s", (long long)x->seq, ledger_kind_name(x->kind), e->text,
                  what);
    else if (x->debit_prev != previous(s, e, e->debit) || x->credit_prev != previous(s, e, e->credit))
        sim_wrong(s, "entry %lld is not chained to the ones before it", (long long)x->seq);
}

struct scan {
    struct sim *s;
    int64_t next, more;
};

static bool scan_one(void *ctx, const struct ledger_entry *x, int64_t resolved_by)
{
    struct scan *c = ctx;
    struct sim *s = c->s;
    (void)resolved_by;
    if (x->seq != c->next)
        sim_wrong(s, "entry %lld follows %lld", (long long)x->seq, (long long)c->next - 1);
    else if (x->seq > s->m.n)
        c->more++;
    else
        check_entry(s, &s->m.entry[x->seq - 1], x);
    c->next++;
    return sim_ok(s);
}

bool check_journal(struct sim *s, int from, int64_t *ret_more)
{
    struct scan c = {s, from + 1, 0};
    if (!sim_ok(s))
        return false;
    if (store_journal_scan(s->store, from, 0, scan_one, &c) != PFE_OK)
        sim_wrong(s, "the journal cannot be read");
    if (sim_ok(s) && c.next <= s->m.n)
        sim_wrong(s, "LOST: the journal ends at entry %lld, and %d were acknowledged", (long long)c.next - 1, s->m.n);
    *ret_more = c.more;
    return sim_ok(s);
}

/* ---- balances ---- */

void check_balance(struct sim *s, int64_t user, int currency)
{
    const struct m_account none = {0}, *a = user < M_USERS ? &s->m.account[user][currency] : &none;
    struct ledger_account x;
    enum pf_err e = app_balance(s->app, user, m_currency[currency], true, &x);
    s->c.reads++;
    if (e != (a->exists ? PFE_OK : PFE_NOT_FOUND))
        sim_wrong(s, "the balance of user %lld is %s", (long long)user, sim_err(e));
    else if (e == PFE_OK &&
             (x.balance != a->balance || x.held != a->held || ((x.flags & LEDGER_FROZEN) != 0) != a->frozen ||
              ((x.flags & LEDGER_CLOSED) != 0) != a->closed))
        sim_wrong(s, "user %lld has %lld (%lld held, flags %u), not %lld (%lld held)", (long long)user,
                  (long long)x.balance, (long long)x.held, x.flags, (long long)a->balance, (long long)a->held);
    if (user && a->exists && (a->held < 0 || a->balance < a->held))
        sim_wrong(s, "user %lld is below the limit", (long long)user);
}

void check_sums(struct sim *s)
{
    struct store_trial t[M_CURRENCIES + 1];
    unsigned n = 0;
    if (!sim_ok(s))
        return;
    if (store_trial(s->store, t, M_CURRENCIES + 1, &n) != PFE_OK)
        sim_wrong(s, "no trial balance");
    for (unsigned i = 0; i < n; i++) {
        int c = model_currency(t[i].currency);
        int64_t users = 0;
        for (int u = 1; u < M_USERS && c >= 0; u++)
            users += s->m.account[u][c].balance;
        if (t[i].sum != 0 || c < 0 || t[i].user_balance != users || t[i].external != s->m.account[0][c].balance)
            sim_wrong(s, "currency %u: users have %lld, the outside %lld, the sum is %lld", t[i].currency,
                      (long long)t[i].user_balance, (long long)t[i].external, (long long)t[i].sum);
    }
}

/* ---- reads ---- */

static void check_at_time(struct sim *s, int64_t user, int currency)
{
    struct problem p = {0};
    int64_t at = s->wall - (int64_t)(sim_rnd(s) % (uint64_t)(sim_chance(s, 50) ? HOUR : 10 * DAY)), got = 0;
    if (s->m.n && sim_chance(s, 60)) /* at an entry's own time, or just before */
        at = s->m.entry[sim_pick(s, s->m.n)].ts - sim_pick(s, 2);
    if (at > s->wall)
        at = s->wall;
    enum pf_err e = app_balance_at(s->app, user, m_currency[currency], at, &got, &p);
    int64_t expect = model_balance_at(&s->m, user, currency, at);
    if (e != PFE_OK || got != expect)
        sim_wrong(s, "user %lld had %lld at %lld (%s), not %lld", (long long)user, (long long)got, (long long)at,
                  sim_err(e), (long long)expect);
}

static void check_replay(struct sim *s, int64_t user, int currency)
{
    const struct m_account *a = &s->m.account[user][currency];
    struct ledger_account stored;
    struct store_replay r;
    int64_t events = 0;
    for (int i = 0; i < s->m.n; i++)
        events += model_names(&s->m.entry[i], user, currency);
    enum pf_err e = app_replay(s->app, user, m_currency[currency], &stored, &r);
    if (e != (a->exists ? PFE_OK : PFE_NOT_FOUND))
        sim_wrong(s, "the replay of user %lld is %s", (long long)user, sim_err(e));
    else if (e == PFE_OK && (!r.intact || r.balance != a->balance || r.held != a->held || r.events != events ||
                             stored.balance != a->balance))
        sim_wrong(s, "user %lld replays to %lld (%lld held) from %lld entries", (long long)user, (long long)r.balance,
                  (long long)r.held, (long long)r.events);
}

struct page {
    struct sim *s;
    int64_t user, before;
    unsigned n;
};

static bool shown(const struct m_entry *e, int64_t user)
{
    return ledger_kind_moves(e->kind) && (e->debit == user || e->credit == user);
}

static bool take_listed(void *ctx, const struct app_tx *t)
{
    struct page *p = ctx;
    struct sim *s = p->s;
    int64_t seq = p->before - 1;
    while (seq > 0 && !shown(&s->m.entry[seq - 1], p->user))
        seq--;
    if (seq < 1 || t->e.seq != seq || t->resolved_by != s->m.entry[seq - 1].resolved_by)
        sim_wrong(s, "the history of user %lld has entry %lld, not %lld", (long long)p->user, (long long)t->e.seq,
                  (long long)seq);
    else
        check_entry(s, &s->m.entry[seq - 1], &t->e);
    p->before = seq;
    p->n++;
    return sim_ok(s);
}

static void check_history(struct sim *s, int64_t user)
{
    struct page p = {.s = s, .user = user, .before = s->m.n + 1};
    struct store_entry_query q = {.limit = 1 + (unsigned)sim_pick(s, 12), .counterparty = -1};
    int64_t cursor = 0;
    do {
        p.n = 0;
        enum pf_err e = app_transactions(s->app, &q, user, take_listed, &p, &cursor);
        if (e != PFE_OK)
            sim_wrong(s, "the history of user %lld is %s", (long long)user, sim_err(e));
        q.before_seq = cursor;
    } while (cursor && p.n && sim_ok(s));
    for (int64_t seq = p.before - 1; seq > 0 && sim_ok(s); seq--)
        if (shown(&s->m.entry[seq - 1], user))
            sim_wrong(s, "the history of user %lld lacks entry %lld", (long long)user, (long long)seq);
}

static void check_transaction(struct sim *s, int64_t seq)
{
    struct principal admin = {.role = IDENT_ADMIN};
    struct app_tx t;
    enum pf_err e = app_transaction(s->app, &admin, &s->arena, seq, true, &t);
    if (e != (seq <= s->m.n ? PFE_OK : PFE_NOT_FOUND)) {
        sim_wrong(s, "entry %lld is %s", (long long)seq, sim_err(e));
        return;
    }
    if (e != PFE_OK)
        return;
    const struct m_entry *x = &s->m.entry[seq - 1];
    check_entry(s, x, &t.e);
    if (t.resolved_by != x->resolved_by || t.debit_owner != x->debit || t.credit_owner != x->credit)
        sim_wrong(s, "entry %lld is resolved by %lld, not %lld", (long long)seq, (long long)t.resolved_by,
                  (long long)x->resolved_by);
}

void check_read(struct sim *s)
{
    int64_t user = 1 + sim_pick(s, s->users);
    int currency = sim_pick(s, s->currencies);
    s->c.reads++;
    switch (sim_pick(s, 6)) {
    case 0:
        check_at_time(s, user, currency);
        break;
    case 1:
        check_replay(s, user, currency);
        break;
    case 2:
        check_history(s, user);
        break;
    case 3:
        check_transaction(s, 1 + sim_pick(s, s->m.n + 1));
        break;
    default:
        check_balance(s, user, currency);
    }
}

/* ---- everything ---- */

static void check_stats(struct sim *s)
{
    struct store_stat t[LEDGER_KIND_MAX * M_CURRENCIES];
    unsigned n = 0;
    int64_t counted = 0, moved = 0;
    if (app_stats(s->app, STORE_WINDOW_ALL, t, sizeof t / sizeof *t, &n) != PFE_OK)
        sim_wrong(s, "no statistics");
    for (unsigned i = 0; i < n; i++) {
        int64_t count = 0;
        for (int k = 0; k < s->m.n; k++)
            count += s->m.entry[k].kind == t[i].kind && m_currency[s->m.entry[k].currency] == t[i].currency;
        if (t[i].count != count)
            sim_wrong(s, "%lld entries of %s %u are counted, not %lld", (long long)t[i].count,
                      ledger_kind_name(t[i].kind), t[i].currency, (long long)count);
        counted += ledger_kind_moves(t[i].kind) ? count : 0;
    }
    for (int k = 0; k < s->m.n; k++)
        moved += ledger_kind_moves(s->m.entry[k].kind);
    if (counted != moved)
        sim_wrong(s, "%lld movements are counted, not %lld", (long long)counted, (long long)moved);
}

static void check_keys(struct sim *s)
{
    struct arena arena;
    arena_init(&arena, NULL, 0, 1 << 22);
    for (int i = 0; i < s->m.n_keys; i++) {
        const struct m_key *k = &s->m.key[i];
        struct store_idem x;
        enum pf_err e = store_idem_get(s->store, &arena, k->principal, str_c(k->key), &x);
        if (e != PFE_OK || memcmp(x.request, k->request, sizeof x.request) != 0 || !str_is(x.body, k->body))
            sim_wrong(s, "the answer to key %s of user %lld is %s", k->key, (long long)k->principal,
                      e == PFE_OK ? "another" : sim_err(e));
    }
    arena_reset(&arena);
}

void check_all(struct sim *s)
{
    struct store_verify v;
    int64_t more = 0;
    s->c.checks++;
    if (!check_journal(s, 0, &more))
        return;
    if (more)
        sim_wrong(s, "%lld entries that nobody is owed", (long long)more);
    for (int64_t u = 1; u < M_USERS; u++)
        for (int c = 0; c < M_CURRENCIES; c++)
            check_balance(s, u, c);
    check_sums(s);
    check_stats(s);
    check_keys(s);
    records_check(s);
    if (store_verify(s->store, &v) != PFE_OK || !v.ok)
        sim_wrong(s, "verify: %s (entry %lld)", v.what, (long long)v.bad_seq);
}
