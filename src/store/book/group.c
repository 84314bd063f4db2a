#include <stdlib.h>

#include "domain/money/money.h"
#include "store/book/book.h"

/* ---- account id -> slot, for the group under way ---- */

static size_t table_at(const struct book_group *g, int64_t id)
{
    size_t i = (size_t)(((uint64_t)id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (g->table_n - 1);
    while (g->table[i] && g->sides[g->table[i] - 1].id != id)
        i = (i + 1) & (g->table_n - 1);
    return i;
}

static struct book_side *side_of(const struct book_group *g, int64_t id)
{
    if (g->n == 0)
        return NULL;
    uint32_t v = g->table[table_at(g, id)];
    return v ? &g->sides[v - 1] : NULL;
}

static bool group_room(struct book_group *g, size_t n)
{
    if (n > g->cap) {
        struct book_side *sides = realloc(g->sides, n * sizeof *sides);
        if (!sides)
            return false;
        g->sides = sides;
        g->cap = n;
    }
    size_t cap = 64;
    while (cap < n * 2)
        cap *= 2;
    if (cap > g->table_cap) {
        uint32_t *table = malloc(cap * sizeof *table);
        if (!table)
            return false;
        free(g->table);
        g->table = table;
        g->table_cap = cap;
    }
    g->table_n = cap;
    memset(g->table, 0, cap * sizeof *g->table);
    return true;
}

static enum pf_err load_slot(struct book *b, const struct store_key *k, struct store_slot *slot, int64_t *next_id,
                             book_owner_fn owner_ok, void *ctx)
{
    *slot = (struct store_slot){.state = STORE_SLOT_FOUND};
    uint32_t i = k->account > 0 ? book_find(b, k->account) : book_find_owner(b, k->owner, k->currency);
    if (i != BOOK_NONE) {
        slot->acc = book_at(b, i)->a;
        return PFE_OK;
    }
    if (k->account > 0) {
        slot->state = STORE_SLOT_NO_ACCOUNT;
        return PFE_OK;
    }
    slot->acc.owner = k->owner;
    slot->acc.currency = k->currency;
    if (!money_by_num(k->currency)) {
        slot->state = STORE_SLOT_NO_ACCOUNT;
        return PFE_OK;
    }
    slot->state = STORE_SLOT_NEW;
    if (k->owner == 0) {
        slot->acc.id = k->currency;
        return PFE_OK;
    }
    bool ok;
    enum pf_err e = owner_ok(ctx, k->owner, &ok);
    if (e)
        return e;
    if (ok)
        slot->acc.id = (*next_id)++;
    else
        slot->state = STORE_SLOT_NO_OWNER;
    return PFE_OK;
}

enum pf_err book_group_begin(struct book *b, const struct store_key *keys, size_t n, struct store_slot *slots,
                             book_owner_fn owner_ok, void *ctx)
{
    struct book_group *g = &b->group;
    int64_t next_id = b->next_id;
    g->n = 0;
    g->n_marks = 0;
    if (n > STORE_GROUP_KEYS_MAX)
        return PFE_INTERNAL;
    if (!group_room(g, n))
        return PFE_NOMEM;
    for (size_t i = 0; i < n; i++) {
        enum pf_err e = load_slot(b, &keys[i], &slots[i], &next_id, owner_ok, ctx);
        if (e)
            return e;
    }
    g->n = n;
    return PFE_OK;
}

/* ---- following the entries ---- */

static bool add_mark(struct book_group *g, const struct book_side *s, int64_t balance)
{
    if (g->n_marks == g->marks_cap) {
        size_t cap = g->marks_cap ? g->marks_cap * 2 : 64;
        struct book_mark *marks = realloc(g->marks, cap * sizeof *marks);
        if (!marks)
            return false;
        g->marks = marks;
        g->marks_cap = cap;
    }
    g->marks[g->n_marks++] = (struct book_mark){
        .account = s->id, .n = s->entries, .seq = s->head, .ts = s->time_us, .balance = balance, .moves = s->moves};
    return true;
}

static enum pf_err follow(struct book_group *g, const struct ledger_entry *e, int64_t account, int64_t prev,
                          int64_t balance)
{
    struct book_side *s = side_of(g, account);
    if (!s || s->head != prev)
        return PFE_INTERNAL;
    s->head = e->seq;
    s->balance = balance;
    s->entries++;
    s->moves += ledger_kind_moves(e->kind);
    if (e->ts > s->time_us)
        s->time_us = e->ts;
    if (s->entries % BOOK_MARK_EVERY == 0 && !add_mark(g, s, balance))
        return PFE_NOMEM;
    return PFE_OK;
}

/* The sides as they stand in the book, found by account id. */
static enum pf_err group_index(struct book *b, const struct store_commit *c)
{
    struct book_group *g = &b->group;
    size_t n_new = 0;
    for (size_t i = 0; i < g->n; i++) {
        const struct store_slot *slot = &c->slots[i];
        struct book_side *s = &g->sides[i];
        *s = (struct book_side){.id = slot->acc.id};
        if (slot->state > STORE_SLOT_NEW)
            continue;
        if (slot->state == STORE_SLOT_FOUND) {
            uint32_t at = book_find(b, s->id);
            if (at == BOOK_NONE)
                return PFE_INTERNAL;
            const struct book_account *a = book_at(b, at);
            *s = (struct book_side){a->a.id, a->a.head, a->a.balance, a->a.entries, a->moves, a->time_us};
        } else if (slot->used) {
            n_new++;
        }
        size_t at = table_at(g, s->id);
        if (g->table[at])
            return PFE_INTERNAL;
        g->table[at] = (uint32_t)i + 1;
    }
    return book_reserve(b, n_new);
}

bool book_group_empty(const struct store_commit *c)
{
    bool any = c->n_entries || c->n_idem || c->n_created || c->n_outbox || c->n_inbox || c->n_delivered;
    for (size_t i = 0; i < c->n_slots && !any; i++)
        any = c->slots[i].used && c->slots[i].state == STORE_SLOT_NEW;
    for (size_t i = 0; i < c->n_events && !any; i++)
        any = c->events[i].used;
    for (size_t i = 0; i < c->n_bookings && !any; i++)
        any = c->bookings[i].used;
    return !any;
}

enum pf_err book_group_check(struct book *b, const struct store_commit *c)
{
    struct book_group *g = &b->group;
    if (c->n_slots == 0 && c->n_entries == 0) {
        g->n = 0;
        return PFE_OK;
    }
    if (c->n_slots != g->n)
        return PFE_INTERNAL;
    enum pf_err err = group_index(b, c);
    for (size_t i = 0; i < c->n_entries && !err; i++) {
        const struct ledger_entry *e = &c->entries[i];
        if (e->seq != b->head_seq + 1 + (int64_t)i)
            return PFE_INTERNAL;
        err = book_stat_reserve(b, e->kind, e->currency);
        if (!err)
            err = follow(g, e, e->debit, e->debit_prev, e->debit_balance);
        if (!err && e->credit != e->debit)
            err = follow(g, e, e->credit, e->credit_prev, e->credit_balance);
    }
    for (size_t i = 0; i < g->n && !err; i++) {
        const struct store_slot *slot = &c->slots[i];
        const struct book_side *s = &g->sides[i];
        bool agrees = slot->acc.head == s->head && slot->acc.balance == s->balance && slot->acc.entries == s->entries;
        if (slot->used ? !agrees : s->head > b->head_seq)
            err = PFE_INTERNAL;
    }
    return err;
}

void book_group_apply(struct book *b, const struct store_commit *c)
{
    const struct book_group *g = &b->group;
    pthread_rwlock_wrlock(&b->lock);
    for (size_t i = 0; i < g->n; i++) {
        const struct store_slot *slot = &c->slots[i];
        if (!slot->used || slot->state > STORE_SLOT_NEW)
            continue;
        struct book_account a = {.a = slot->acc, .moves = g->sides[i].moves, .time_us = g->sides[i].time_us};
        if (slot->state == STORE_SLOT_NEW) {
            if (a.a.head == 0)
                a.a.updated_us = c->ts;
            book_add(b, &a);
        } else {
            uint32_t at = book_find(b, slot->acc.id);
            a.next = book_at(b, at)->next;
            *book_at(b, at) = a;
            book_touch(b, at);
        }
    }
    for (size_t i = 0; i < c->n_entries; i++) {
        const struct ledger_entry *e = &c->entries[i];
        book_stat_add(b, e);
        if (e->ts > b->time_us)
            b->time_us = e->ts;
        else if (b->time_us - e->ts > b->lag_us)
            b->lag_us = b->time_us - e->ts;
    }
    b->head_seq += (int64_t)c->n_entries;
    pthread_rwlock_unlock(&b->lock);
}
