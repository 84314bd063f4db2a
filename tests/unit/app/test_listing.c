/* Lists of transactions against a plain filter over all of them. */
#include "fixture.h"

#include "base/rand.h"

enum { USERS = 5, ENTRIES = 400, PAGE_MAX = 100 };

struct row {
    struct ledger_entry e;
    int64_t resolved_by, debit_owner, credit_owner;
};

static struct row all[ENTRIES + 1]; /* by seq */
static size_t n_all;
static uint64_t seed;

static unsigned below(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(seed >> 33) % n;
}

static void note(struct fix *f, const struct movement *m)
{
    struct row *r = &all[m->entry.seq];
    struct ledger_account d, c;
    *r = (struct row){.e = m->entry};
    OK(store_account_by_id(f->box.store, m->entry.debit, &d));
    OK(store_account_by_id(f->box.store, m->entry.credit, &c));
    r->debit_owner = d.owner;
    r->credit_owner = c.owner;
    if (m->entry.ref)
        all[m->entry.ref].resolved_by = m->entry.seq;
    n_all = (size_t)m->entry.seq;
}

static void fill(struct fix *f, int64_t user[USERS])
{
    static const money_currency currencies[] = {USD, EUR, JPY};
    char name[16];
    n_all = 0;
    for (int i = 0; i < USERS; i++) {
        snprintf(name, sizeof name, "u%d", i);
        user[i] = fix_user(f, name);
    }
    while (n_all < ENTRIES) {
        struct movement m = fix_deposit_of(user[below(USERS)], 1 + below(500));
        unsigned what = below(10);
        if (what > 8 && n_all > 10) {
            m = fix_resolve(LEDGER_ROLLBACK, 1 + below((unsigned)n_all));
        } else {
            if (what > 3)
                m = fix_transfer(m.to_user, user[below(USERS)], m.amount);
            else if (what > 2)
                m = fix_withdrawal(m.to_user, m.amount);
            m.currency = currencies[below(below(2) ? 3 : 1)];
        }
        if (fix_move(f, &m) == PFE_OK)
            note(f, &m);
        fix_advance(f, below(3) * SECOND);
    }
}

static bool matches(const struct row *r, const struct store_entry_query *q, int64_t owner)
{
    int64_t other = owner == r->debit_owner ? r->credit_owner : r->debit_owner;
    if (owner && r->debit_owner != owner && r->credit_owner != owner)
        return false;
    return (!q->before_seq || r->e.seq < q->before_seq) && (!q->kinds || (q->kinds & 1u << r->e.kind)) &&
           (!q->currency || q->currency == r->e.currency) && (!q->from_us || r->e.ts >= q->from_us) &&
           (!q->to_us || r->e.ts < q->to_us) && (!q->min_amount || r->e.amount >= q->min_amount) &&
           (!q->max_amount || r->e.amount <= q->max_amount) &&
           (!owner || q->counterparty == -1 || q->counterparty == other) &&
           (q->status == STORE_STATUS_ANY || (q->status == STORE_STATUS_RESOLVED) == (r->resolved_by != 0));
}

struct page {
    int64_t seq[PAGE_MAX];
    unsigned n;
};

static bool take(void *ctx, const struct app_tx *t)
{
    struct page *p = ctx;
    const struct row *r = &all[t->e.seq];
    assert_true(p->n < PAGE_MAX);
    assert_int_equal(t->debit_owner, r->debit_owner);
    assert_int_equal(t->credit_owner, r->credit_owner);
    assert_int_equal(t->resolved_by, r->resolved_by);
    assert_int_equal(t->e.amount, r->e.amount);
    p->seq[p->n++] = t->e.seq;
    return true;
}

static void one_page(struct fix *f, const struct store_entry_query *q, int64_t owner, struct page *ret, int64_t *cursor)
{
    ret->n = 0;
    OK(app_transactions(f->app, q, owner, take, ret, cursor));
}

/* Every page by cursor, and one by offset, as the plain filter has them. */
static void compare(struct fix *f, struct store_entry_query q, int64_t owner)
{
    int64_t want[ENTRIES], cursor = 0;
    unsigned n = 0, got = 0;
    struct page p;
    for (size_t s = n_all; s > 0; s--)
        if (matches(&all[s], &q, owner))
            want[n++] = (int64_t)s;
    struct store_entry_query at = q;
    do {
        one_page(f, &at, owner, &p, &cursor);
        assert_true(p.n == q.limit || got + p.n == n);
        for (unsigned i = 0; i < p.n; i++)
            assert_int_equal(p.seq[i], want[got + i]);
        got += p.n;
        at.before_seq = cursor;
    } while (cursor);
    assert_int_equal(got, n);

    at = q;
    at.offset = below(n + 5);
    one_page(f, &at, owner, &p, &cursor);
    unsigned left = at.offset < n ? n - (unsigned)at.offset : 0;
    assert_int_equal(p.n, left < q.limit ? left : q.limit);
    for (unsigned i = 0; i < p.n; i++)
        assert_int_equal(p.seq[i], want[at.offset + i]);
}

static struct store_entry_query any_query(const int64_t user[USERS])
{
    struct store_entry_query q = {.limit = 1 + below(25), .counterparty = -1};
    if (below(3) == 0)
        q.kinds = 1u << (1 + below(4)) | 1u << (1 + below(4));
    if (below(3) == 0)
        q.currency = below(2) ? USD : EUR;
    if (below(4) == 0)
        q.from_us = all[1 + below((unsigned)n_all)].e.ts;
    if (below(4) == 0)
        q.to_us = all[1 + below((unsigned)n_all)].e.ts;
    if (below(4) == 0)
        q.min_amount = below(300);
    if (below(4) == 0)
        q.max_amount = 1 + below(500);
    if (below(4) == 0)
        q.counterparty = below(3) ? user[below(USERS)] : 0;
    if (below(4) == 0)
        q.status = below(2) ? STORE_STATUS_OPEN : STORE_STATUS_RESOLVED;
    return q;
}

static void lists_are_what_a_filter_gives(void **state)
{
    struct fix *f = *state;
    int64_t user[USERS];
    seed = rand_u64();
    print_message("seed %llu\n", (unsigned long long)seed);
    fill(f, user);
    for (int i = 0; i < 300; i++) {
        struct store_entry_query q = any_query(user);
        int64_t owner = below(4) ? user[below(USERS)] : 0;
        if (!owner)
            q.counterparty = -1;
        compare(f, q, owner);
    }
    fix_verify(f);
}

static void a_new_entry_does_not_shift_a_cursor(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), cursor = 0;
    struct store_entry_query q = {.limit = 2, .counterparty = -1};
    struct page p;
    n_all = 0;
    for (int i = 0; i < 6; i++) {
        struct movement m = fix_deposit_of(ann, 1);
        m.currency = i % 2 ? USD : EUR;
        OK(fix_move(f, &m));
        note(f, &m);
    }
    one_page(f, &q, ann, &p, &cursor);
    assert_int_equal(p.seq[1], 5);
    struct movement late = fix_deposit_of(ann, 1);
    OK(fix_move(f, &late));
    note(f, &late);
    q.before_seq = cursor;
    one_page(f, &q, ann, &p, &cursor);
    assert_int_equal(p.seq[0], 4);
    assert_int_equal(p.seq[1], 3);
}

static void the_edges(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob"), cursor = 7;
    struct store_entry_query q = {.limit = 10, .counterparty = -1};
    struct page p;
    one_page(f, &q, bob, &p, &cursor); /* no account at all */
    assert_int_equal(p.n, 0);
    assert_int_equal(cursor, 0);
    n_all = 0;
    struct movement m = fix_deposit_of(ann, 1);
    OK(fix_move(f, &m));
    note(f, &m);
    q.offset = APP_MERGE_MAX + 1;
    one_page(f, &q, ann, &p, &cursor); /* one account: nothing to merge */
    m.currency = EUR;
    OK(fix_move(f, &m));
    note(f, &m);
    assert_int_equal(app_transactions(f->app, &q, ann, take, &p, &cursor), PFE_INVALID);
    q.currency = EUR;
    q.offset = 0;
    one_page(f, &q, ann, &p, &cursor);
    assert_int_equal(p.n, 1);
    q.currency = JPY;
    one_page(f, &q, ann, &p, &cursor);
    assert_int_equal(p.n, 0);
    assert_int_equal(cursor, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(lists_are_what_a_filter_gives),
        ON_MEMORY(a_new_entry_does_not_shift_a_cursor),
        ON_MEMORY(the_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
