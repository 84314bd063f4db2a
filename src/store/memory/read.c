#include <stdlib.h>

#include "store/book/proof.h"
#include "store/memory/internal.h"

enum pf_err memory_account_get(struct store *s, int64_t owner, money_currency currency, struct ledger_account *ret)
{
    return book_get(&memory_of(s)->book, owner, currency, ret);
}

enum pf_err memory_account_by_id(struct store *s, int64_t id, struct ledger_account *ret)
{
    return book_by_id(&memory_of(s)->book, id, ret);
}

enum pf_err memory_account_list(struct store *s, int64_t owner, struct ledger_account *out, unsigned cap,
                                unsigned *ret_n)
{
    book_list(&memory_of(s)->book, owner, out, cap, ret_n);
    return PFE_OK;
}

enum pf_err memory_stats(struct store *s, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                         unsigned *ret_n)
{
    book_stats(&memory_of(s)->book, w, now_us, out, cap, ret_n);
    return PFE_OK;
}

enum pf_err memory_trial(struct store *s, struct store_trial *out, unsigned cap, unsigned *ret_n)
{
    book_trial(&memory_of(s)->book, out, cap, ret_n);
    return PFE_OK;
}

static int64_t resolver_of(const struct memory_store *s, int64_t seq)
{
    uint64_t by;
    return map_u64_get(&s->resolved, (uint64_t)seq, &by) ? (int64_t)by : 0;
}

void memory_resolved(struct memory_store *s, const int64_t *seq, size_t n, int64_t *ret)
{
    pthread_rwlock_rdlock(&s->lock);
    for (size_t i = 0; i < n; i++)
        ret[i] = resolver_of(s, seq[i]);
    pthread_rwlock_unlock(&s->lock);
}

enum pf_err memory_entry_get(struct store *st, struct arena *a, int64_t seq, struct ledger_entry *ret,
                             int64_t *ret_resolved_by)
{
    struct memory_store *s = memory_of(st);
    enum pf_err err = PFE_NOT_FOUND;
    pthread_rwlock_rdlock(&s->lock);
    if (seq >= 1 && (size_t)seq <= s->n_journal) {
        struct ledger_entry e = s->journal[seq - 1];
        e.description = arena_strdup(a, e.description);
        e.origin = arena_strdup(a, e.origin);
        err = e.description.p && e.origin.p ? PFE_OK : PFE_NOMEM;
        if (err == PFE_OK) {
            *ret = e;
            *ret_resolved_by = resolver_of(s, seq);
        }
    }
    pthread_rwlock_unlock(&s->lock);
    return err;
}

enum pf_err memory_entry_list(struct store *st, const struct store_entry_query *q, store_entry_fn fn, void *ctx,
                              int64_t *ret_cursor)
{
    struct memory_store *s = memory_of(st);
    struct book_listing l;
    struct ledger_account a;
    if (q->account && book_by_id(&s->book, q->account, &a) != PFE_OK)
        return PFE_NOT_FOUND;
    pthread_rwlock_rdlock(&s->lock);
    book_listing_init(&l, q, &s->book);
    size_t n = s->n_journal;
    if (q->before_seq && q->before_seq <= (int64_t)n)
        n = q->before_seq > 0 ? (size_t)q->before_seq - 1 : 0;
    bool on = true;
    for (; on && n > 0; n--) {
        const struct ledger_entry *e = &s->journal[n - 1];
        if (q->account && e->debit != q->account && e->credit != q->account)
            continue;
        enum book_offer offer = book_listing_offer(&l, e, resolver_of(s, e->seq));
        on = offer == BOOK_SKIP || (offer == BOOK_GIVE && fn(ctx, e, resolver_of(s, e->seq)));
    }
    pthread_rwlock_unlock(&s->lock);
    *ret_cursor = on ? 0 : l.cursor;
    return PFE_OK;
}

enum pf_err memory_journal_scan(struct store *st, int64_t after_seq, int64_t limit, store_entry_fn fn, void *ctx)
{
    struct memory_store *s = memory_of(st);
    pthread_rwlock_rdlock(&s->lock);
    for (size_t i = after_seq > 0 ? (size_t)after_seq : 0; i < s->n_journal; i++)
        if (!fn(ctx, &s->journal[i], 0) || --limit == 0)
            break;
    pthread_rwlock_unlock(&s->lock);
    return PFE_OK;
}

enum pf_err memory_balance_at(struct store *st, int64_t account, int64_t at_us, int64_t *ret_balance)
{
    struct memory_store *s = memory_of(st);
    struct ledger_account a;
    enum pf_err err = book_by_id(&s->book, account, &a);
    if (err)
        return err;
    int64_t balance = 0;
    pthread_rwlock_rdlock(&s->lock);
    for (size_t i = 0; i < s->n_journal; i++) {
        const struct ledger_entry *e = &s->journal[i];
        if (e->debit != account && e->credit != account)
            continue;
        /* Time never runs backwards: what follows is later, whatever its stamp. */
        if (e->ts > at_us)
            break;
        balance = e->debit == account ? e->debit_balance : e->credit_balance;
    }
    pthread_rwlock_unlock(&s->lock);
    *ret_balance = balance;
    return PFE_OK;
}

enum pf_err memory_holds_due(struct store *st, int64_t now_us, unsigned limit, int64_t *out_seq, unsigned *ret_n)
{
    struct memory_store *s = memory_of(st);
    unsigned n = 0;
    pthread_rwlock_rdlock(&s->lock);
    for (size_t i = 0; i < s->n_journal && n < limit; i++) {
        const struct ledger_entry *e = &s->journal[i];
        if (e->kind == LEDGER_HOLD && e->expires_us > 0 && e->expires_us <= now_us && !resolver_of(s, e->seq))
            out_seq[n++] = e->seq;
    }
    pthread_rwlock_unlock(&s->lock);
    *ret_n = n;
    return PFE_OK;
}

void memory_fold(const struct memory_store *s, struct book_account *a, struct store_replay *ret)
{
    a->a = (struct ledger_account){
        .id = a->a.id, .owner = a->a.owner, .currency = a->a.currency, .updated_us = a->a.updated_us};
    a->moves = a->time_us = 0;
    *ret = (struct store_replay){.intact = true};
    for (size_t i = 0; i < s->n_journal; i++) {
        const struct ledger_entry *e = &s->journal[i];
        if (e->debit != a->a.id && e->credit != a->a.id)
            continue;
        bool debit = e->debit == a->a.id;
        ret->intact &= (debit ? e->debit_prev : e->credit_prev) == a->a.head;
        ledger_evolve(&a->a, e, e->ref ? &s->journal[e->ref - 1] : NULL);
        ret->intact &= (debit ? e->debit_balance : e->credit_balance) == a->a.balance;
        a->moves += ledger_kind_moves(e->kind);
        a->time_us = e->ts > a->time_us ? e->ts : a->time_us;
    }
    ret->events = a->a.entries;
    ret->balance = a->a.balance;
    ret->held = a->a.held;
    ret->head = a->a.head;
}

enum pf_err memory_replay(struct store *st, int64_t account, struct store_replay *ret)
{
    struct memory_store *s = memory_of(st);
    struct book_account a;
    enum pf_err e = book_snapshot(&s->book, account, &a);
    if (e)
        return e;
    pthread_rwlock_rdlock(&s->lock);
    memory_fold(s, &a, ret);
    pthread_rwlock_unlock(&s->lock);
    return PFE_OK;
}

/* ---- verify ---- */

static enum pf_err find_entry(void *ctx, int64_t seq, struct ledger_entry *ret)
{
    const struct memory_store *s = ctx;
    if (seq < 1 || (size_t)seq > s->n_journal)
        return PFE_NOT_FOUND;
    *ret = s->journal[seq - 1];
    return PFE_OK;
}

static enum pf_err find_resolver(void *ctx, int64_t seq, int64_t *ret)
{
    *ret = resolver_of(ctx, seq);
    return *ret ? PFE_OK : PFE_NOT_FOUND;
}

static enum pf_err prove(struct memory_store *s, struct proof *p, struct store_verify *ret)
{
    enum pf_err e = PFE_OK;
    struct proof_counts n = {.resolutions = (int64_t)s->resolved.n, .marks = -1};
    pthread_rwlock_rdlock(&s->book.lock);
    for (size_t i = 0; i < s->book.n && e == PFE_OK; i++)
        e = proof_account(p, book_at(&s->book, i));
    pthread_rwlock_unlock(&s->book.lock);
    const struct memory_seal *seal = s->seals;
    for (size_t i = 0; i < s->n_journal && e == PFE_OK && proof_ok(p); i++) {
        const struct ledger_entry *x = &s->journal[i];
        e = proof_entry(p, x);
        if (e == PFE_OK && proof_ok(p) && seal->last_seq == x->seq) {
            proof_seal(p, seal->first_seq, seal->last_seq, seal->hash);
            seal++;
        }
        if (x->kind == LEDGER_HOLD && !resolver_of(s, x->seq))
            n.open_holds++;
    }
    if (e == PFE_OK) {
        memory_tickets_judge(s, p, &n.payments);
        proof_end(p, &n, ret);
    }
    return e;
}

enum pf_err memory_verify(struct store *st, struct store_verify *ret)
{
    struct memory_store *s = memory_of(st);
    struct proof *p = proof_new(&(struct proof_source){s, find_entry, find_resolver, NULL});
    if (!p)
        return PFE_NOMEM;
    pthread_rwlock_rdlock(&s->lock);
    enum pf_err e = prove(s, p, ret);
    pthread_rwlock_unlock(&s->lock);
    proof_free(p);
    return e;
}
