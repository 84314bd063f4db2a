/* Groups, first round trip: the head is locked, then read what the group needs. */
#include <stdlib.h>

#include "base/clock.h"
#include "domain/money/money.h"
#include "store/postgres/journal.h"

static bool grow(void **v, size_t *cap, size_t want, size_t size)
{
    if (want <= *cap)
        return true;
    void *p = realloc(*v, want * size);
    if (!p)
        return false;
    *v = p;
    *cap = want;
    return true;
}

enum pf_err pg_ledger_init(struct postgres_store *s, char ret_why[PG_WHY])
{
    snprintf(ret_why, PG_WHY, "out of memory");
    struct pg_ledger *l = calloc(1, sizeof *l);
    if (!l)
        return PFE_NOMEM;
    if (book_init(&l->book) != PFE_OK) {
        free(l);
        return PFE_NOMEM;
    }
    s->ledger = l;
    l->sha = sha256_new();
    if (!l->sha)
        return PFE_NOMEM;
    ret_why[0] = '\0';
    return PFE_OK;
}

void pg_ledger_free(struct postgres_store *s)
{
    struct pg_ledger *l = s->ledger;
    if (!l)
        return;
    if (l->n_idem)
        (void)!pg_q_end(&l->idem_q);
    book_free(&l->book);
    sha256_free(l->sha);
    free(l->loaded);
    free(l->owners);
    free(l->idem_row);
    free(l->rows);
    free(l->guests);
    free(l->stats.v);
    free(l);
    s->ledger = NULL;
}

/* ---- reading ---- */

static void send_head(struct pg_q *q, struct pg_conn *c)
{
    pg_q_begin(q, c, "SELECT head_seq, seal, next_account, accounts, time_us, lag_us FROM ledger_head FOR UPDATE");
    pg_q_send(q);
}

static enum pf_err read_head(struct pg_q *q, struct pg_head *ret)
{
    if (!pg_q_next(q))
        return q->err ? q->err : PFE_UNAVAILABLE;
    *ret = (struct pg_head){.seq = pg_col_i64(q, 0),
                            .next_account = pg_col_i64(q, 2),
                            .accounts = pg_col_i64(q, 3),
                            .time_us = pg_col_i64(q, 4),
                            .lag_us = pg_col_i64(q, 5)};
    pg_col_blob(q, 1, ret->seal, sizeof ret->seal);
    return PFE_OK;
}

/* Two statements, for keys come by owner and currency or by id. */
static unsigned send_accounts(struct pg_q q[2], struct pg_conn *c, const struct store_key *keys, size_t n)
{
    unsigned k = 0;
    size_t ids = 0;
    for (size_t i = 0; i < n; i++)
        ids += keys[i].account > 0;
    if (ids < n) {
        pg_q_begin(&q[k], c,
                   "SELECT " PG_ACCOUNT_COLUMNS " FROM unnest($1::int8[], $2::int8[]) k(owner, currency)"
                   " JOIN account a ON a.owner = k.owner AND a.currency = k.currency::int2");
        pg_q_i64s_begin(&q[k], n - ids);
        for (size_t i = 0; i < n; i++)
            if (keys[i].account <= 0)
                pg_q_i64s_put(&q[k], keys[i].owner);
        pg_q_i64s_begin(&q[k], n - ids);
        for (size_t i = 0; i < n; i++)
            if (keys[i].account <= 0)
                pg_q_i64s_put(&q[k], keys[i].currency);
        pg_q_send(&q[k++]);
    }
    if (ids) {
        pg_q_begin(&q[k], c,
                   "SELECT " PG_ACCOUNT_COLUMNS " FROM unnest($1::int8[]) k(id) JOIN account a ON a.id = k.id");
        pg_q_i64s_begin(&q[k], ids);
        for (size_t i = 0; i < n; i++)
            if (keys[i].account > 0)
                pg_q_i64s_put(&q[k], keys[i].account);
        pg_q_send(&q[k++]);
    }
    return k;
}

static enum pf_err read_accounts(struct pg_q *q, struct book *b)
{
    enum pf_err e = q->err ? q->err : book_reserve(b, (size_t)q->rows);
    while (e == PFE_OK && pg_q_next(q)) {
        struct book_account a;
        pg_account_read(q, &a);
        if (book_find(b, a.a.id) == BOOK_NONE)
            book_add(b, &a);
    }
    return e;
}

static void send_idem(struct pg_q *q, struct pg_conn *c, const struct store_idem_ref *idem, size_t n)
{
    pg_q_begin(q, c,
               "SELECT k.at, i.request, i.status, i.seq, i.body"
               " FROM unnest($1::int8[], $2::bytea[]) WITH ORDINALITY k(principal, key, at)"
               " JOIN idempotency i ON i.principal = k.principal AND i.key = k.key");
    pg_q_i64s(q, &idem->principal, sizeof *idem, n);
    pg_q_blobs(q, &idem->key, sizeof *idem, n);
    pg_q_send(q);
}

static void send_refs(struct pg_q *q, struct pg_conn *c, const int64_t *refs, size_t n)
{
    pg_q_begin(q, c,
               "SELECT k.at, r.resolver FROM unnest($1::int8[]) WITH ORDINALITY k(seq, at)"
               " JOIN resolution r ON r.seq = k.seq");
    pg_q_i64s(q, refs, sizeof *refs, n);
    pg_q_send(q);
}

static enum pf_err read_refs(struct pg_q *q, int64_t *ret, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ret[i] = 0;
    while (pg_q_next(q)) {
        int64_t at = pg_col_i64(q, 0);
        if (at >= 1 && (size_t)at <= n)
            ret[at - 1] = pg_col_i64(q, 1);
    }
    return pg_q_end(q);
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Whoever is to get an account has to be there, and to stay until the commit. */
static enum pf_err load_owners(struct pg_ledger *l, struct pg_conn *c, const struct store_key *keys, size_t n)
{
    struct pg_q q;
    size_t missing = 0;
    l->n_owners = 0;
    if (!grow((void **)&l->owners, &l->cap_owners, n, sizeof *l->owners))
        return PFE_NOMEM;
    for (size_t i = 0; i < n; i++)
        if (keys[i].account <= 0 && keys[i].owner > 0 && money_by_num(keys[i].currency) &&
            book_find_owner(&l->book, keys[i].owner, keys[i].currency) == BOOK_NONE)
            l->owners[missing++] = keys[i].owner;
    if (missing == 0)
        return PFE_OK;
    pg_q_begin(&q, c, "SELECT id FROM users WHERE id = ANY ($1) AND status = 0 ORDER BY id FOR SHARE");
    pg_q_i64s(&q, l->owners, sizeof *l->owners, missing);
    while (pg_q_next(&q))
        l->owners[l->n_owners++] = pg_col_i64(&q, 0);
    qsort(l->owners, l->n_owners, sizeof *l->owners, by_number);
    return pg_q_end(&q);
}

static enum pf_err owner_ok(void *ctx, int64_t user, bool *ret_ok)
{
    const struct pg_ledger *l = ctx;
    *ret_ok = l->n_owners && bsearch(&user, l->owners, l->n_owners, sizeof *l->owners, by_number);
    return PFE_OK;
}

static enum pf_err load(struct pg_ledger *l, struct pg_conn *c, const struct store_group_ask *ask,
                        struct store_group *g)
{
    struct pg_q begin, head, fences, refs, accounts[2];
    struct pg_tickets tickets;
    const struct store_key *keys = ask->keys;
    size_t n = ask->n_keys;
    pg_q_begin(&begin, c, pg_begin);
    pg_q_send(&begin);
    send_head(&head, c);
    if (ask->n_fences)
        pg_fences_send(&fences, c, ask->fences, ask->n_fences);
    unsigned k = send_accounts(accounts, c, keys, n);
    pg_tickets_send(&tickets, c, ask);
    if (ask->n_refs)
        send_refs(&refs, c, ask->refs, ask->n_refs);
    if (l->n_idem)
        send_idem(&l->idem_q, c, l->idem, l->n_idem);
    enum pf_err e = pg_sync(c);
    book_clear(&l->book);
    if (e == PFE_OK)
        e = read_head(&head, &l->head);
    if (ask->n_fences) {
        if (e == PFE_OK)
            e = pg_fences_read(&fences, ask->fences, ask->n_fences, l->fenced);
        (void)!pg_q_end(&fences);
    }
    for (unsigned i = 0; i < k; i++) {
        if (e == PFE_OK)
            e = read_accounts(&accounts[i], &l->book);
        (void)!pg_q_end(&accounts[i]);
    }
    enum pf_err read = pg_tickets_read(&tickets, ask, g);
    if (e == PFE_OK)
        e = read;
    read = ask->n_refs ? read_refs(&refs, g->resolved_by, ask->n_refs) : PFE_OK;
    if (e == PFE_OK)
        e = read;
    (void)!pg_q_end(&begin);
    (void)!pg_q_end(&head);
    if (e == PFE_OK)
        e = load_owners(l, c, keys, n);
    l->book.next_id = l->head.next_account;
    l->book.head_seq = l->head.seq;
    l->book.time_us = l->head.time_us;
    l->book.lag_us = l->head.lag_us;
    return e ? e : book_group_begin(&l->book, keys, n, g->slots, owner_ok, l);
}

/* Which of the keys that were named has which row. */
static enum pf_err note_idem(struct pg_ledger *l)
{
    if (!grow((void **)&l->idem_row, &l->cap_idem, l->n_idem, sizeof *l->idem_row))
        return PFE_NOMEM;
    memset(l->idem_row, 0, l->n_idem * sizeof *l->idem_row);
    for (uint32_t row = 1; pg_q_next(&l->idem_q); row++) {
        int64_t at = pg_col_i64(&l->idem_q, 0);
        if (at >= 1 && (size_t)at <= l->n_idem)
            l->idem_row[at - 1] = row;
    }
    return l->idem_q.err;
}

bool pg_again(struct retry_call *call, enum pf_err e)
{
    enum retry_outcome o = e == PFE_BUSY || e == PFE_UNAVAILABLE ? RETRY_FAILURE : RETRY_PERMANENT;
    /* the wait is for the lock, in the next attempt */
    return e != PFE_OK && retry_next(call, o, 0, 0, clock_mono(clock_system())).again;
}

enum pf_err pg_group_load(struct postgres_store *s, const struct store_group_ask *ask, struct store_group *g)
{
    struct pg_ledger *l = s->ledger;
    struct retry_call call;
    enum pf_err e = PFE_UNAVAILABLE;
    retry_begin(&s->groups, &call, true, clock_mono(clock_system()));
    do {
        struct pg_conn *c = pg_primary_down(s) || pg_stalled(s) ? NULL : pg_writer(s);
        if (!c) {
            e = PFE_UNAVAILABLE;
            break;
        }
        c->yields = true;
        e = load(l, c, ask, g);
        c->yields = false;
        if (e == PFE_OK && l->n_idem)
            e = note_idem(l);
        if (e == PFE_OK && c->broken) /* right after the last answer */
            e = PFE_UNAVAILABLE;
        if (e == PFE_OK)
            break;
        if (l->n_idem)
            (void)!pg_q_end(&l->idem_q);
        bool lost = c->broken; /* an old connection, perhaps: nothing was done on it yet */
        pg_abandon(c);
        if (e == PFE_BUSY)
            pg_head_free(c);
        else if (!lost || c->late)
            break;
    } while (pg_again(&call, e));
    retry_end(&call);
    return e;
}

/* ---- the group's thread ---- */

struct pg_conn *pg_group_conn(struct postgres_store *s)
{
    return s->ledger && atomic_load(&s->ledger->thread) == pthread_self() ? &s->w : NULL;
}

bool pg_group_idem(struct postgres_store *s, struct arena *a, int64_t principal, struct str key, struct store_idem *ret,
                   enum pf_err *ret_e)
{
    struct pg_ledger *l = s->ledger;
    if (!pg_group_conn(s))
        return false;
    size_t left = l->n_idem; /* asked for in the order in which they were named, as a rule */
    while (left && (l->idem[l->idem_at].principal != principal || !str_eq(l->idem[l->idem_at].key, key))) {
        l->idem_at = (l->idem_at + 1) % l->n_idem;
        left--;
    }
    if (!left)
        return false;
    uint32_t row = l->idem_row[l->idem_at];
    l->idem_at = (l->idem_at + 1) % l->n_idem;
    *ret_e = PFE_NOT_FOUND;
    if (!row)
        return true;
    struct pg_q *q = &l->idem_q;
    q->row = (int)row - 1;
    struct store_idem i = {
        .principal = principal, .status = (int)pg_col_i64(q, 2), .seq = pg_col_i64(q, 3), .key = arena_strdup(a, key)};
    pg_col_blob(q, 1, i.request, sizeof i.request);
    i.body = arena_strdup(a, pg_col_str(q, 4));
    *ret_e = i.key.p && i.body.p ? PFE_OK : PFE_NOMEM;
    if (*ret_e == PFE_OK)
        *ret = i;
    return true;
}

enum pf_err pg_group_begin(struct store *st, const struct store_group_ask *ask, struct store_group *g)
{
    struct postgres_store *s = pg_of(st);
    struct pg_ledger *l = s->ledger;
    if (ask->n_keys > STORE_GROUP_KEYS_MAX || ask->n_events > STORE_GROUP_KEYS_MAX ||
        ask->n_bookings > STORE_GROUP_KEYS_MAX || ask->n_inbox > STORE_GROUP_KEYS_MAX ||
        ask->n_refs > STORE_GROUP_KEYS_MAX)
        return PFE_INTERNAL;
    if (!grow((void **)&l->loaded, &l->cap_loaded, ask->n_keys, sizeof *l->loaded))
        return PFE_NOMEM;
    l->idem = ask->idem;
    l->n_idem = ask->n_idem;
    l->idem_at = 0;
    l->fenced = false;
    enum pf_err e = pg_group_load(s, ask, g);
    if (e) {
        l->n_idem = 0;
        return e;
    }
    /* Kept for a second try of the commit. */
    if (ask->n_keys)
        memcpy(l->loaded, g->slots, ask->n_keys * sizeof *l->loaded);
    l->ask = *ask;
    l->fenced = true;
    atomic_store(&l->thread, pthread_self());
    g->first_seq = l->head.seq + 1;
    return PFE_OK;
}
