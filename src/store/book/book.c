#include "store/book/book.h"

#include <stdlib.h>

/* Finalizer of splitmix64: ids are small and dense, the tables want all bits. */
static size_t book_hash(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (size_t)(x ^ (x >> 31));
}

static int64_t key_id(const struct book_account *a)
{
    return a->a.id;
}

static int64_t key_owner(const struct book_account *a)
{
    return a->a.owner;
}

/* The slot that holds the key, or the empty one where it belongs. */
static size_t index_slot(const struct book *b, const struct book_index *x, int64_t key,
                         int64_t (*key_of)(const struct book_account *))
{
    size_t i = book_hash((uint64_t)key) & (x->cap - 1);
    while (x->slots[i] && key_of(book_at(b, x->slots[i] - 1)) != key)
        i = (i + 1) & (x->cap - 1);
    return i;
}

static bool index_grow(const struct book *b, struct book_index *x, size_t n,
                       int64_t (*key_of)(const struct book_account *))
{
    if (n * 4 <= x->cap * 3)
        return true;
    struct book_index y = {.cap = x->cap};
    while (n * 4 > y.cap * 3)
        y.cap *= 2;
    y.slots = calloc(y.cap, sizeof *y.slots);
    if (!y.slots)
        return false;
    for (size_t i = 0; i < x->cap; i++)
        if (x->slots[i])
            y.slots[index_slot(b, &y, key_of(book_at(b, x->slots[i] - 1)), key_of)] = x->slots[i];
    free(x->slots);
    *x = y;
    return true;
}

enum pf_err book_init(struct book *b)
{
    enum { INDEX_MIN = 64 };
    *b = (struct book){.next_id = LEDGER_FIRST_USER_ACCOUNT};
    b->by_id = (struct book_index){calloc(INDEX_MIN, sizeof(uint32_t)), INDEX_MIN};
    b->by_owner = (struct book_index){calloc(INDEX_MIN, sizeof(uint32_t)), INDEX_MIN};
    b->by_kind = calloc((LEDGER_KIND_MAX + 1) * 1000, sizeof(struct book_series *));
    if (!b->by_id.slots || !b->by_owner.slots || !b->by_kind) {
        free(b->by_id.slots);
        free(b->by_owner.slots);
        free(b->by_kind);
        return PFE_NOMEM;
    }
    /* A steady stream of readers must not keep the ledger writer out. */
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&b->lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    return PFE_OK;
}

void book_free(struct book *b)
{
    for (size_t i = 0; i < b->n_chunks; i++)
        free(b->chunks[i]);
    free(b->chunks);
    free(b->by_id.slots);
    free(b->by_owner.slots);
    while (b->series) {
        struct book_series *s = b->series;
        b->series = s->next;
        free(s);
    }
    free(b->by_kind);
    free(b->dirty);
    free(b->epoch);
    free(b->group.table);
    free(b->group.sides);
    free(b->group.marks);
    pthread_rwlock_destroy(&b->lock);
}

void book_clear(struct book *b)
{
    memset(b->by_id.slots, 0, b->by_id.cap * sizeof *b->by_id.slots);
    memset(b->by_owner.slots, 0, b->by_owner.cap * sizeof *b->by_owner.slots);
    if (b->n)
        memset(b->dirty, 0, (b->n + 63) / 64 * sizeof *b->dirty);
    book_stat_reset(b);
    b->n = 0;
    b->next_id = LEDGER_FIRST_USER_ACCOUNT;
    b->head_seq = b->time_us = b->lag_us = 0;
    b->group.n = b->group.n_marks = 0;
}

uint32_t book_find(const struct book *b, int64_t id)
{
    uint32_t v = b->by_id.slots[index_slot(b, &b->by_id, id, key_id)];
    return v ? v - 1 : BOOK_NONE;
}

static uint32_t find_first(const struct book *b, int64_t owner)
{
    uint32_t v = b->by_owner.slots[index_slot(b, &b->by_owner, owner, key_owner)];
    return v ? v - 1 : BOOK_NONE;
}

uint32_t book_find_owner(const struct book *b, int64_t owner, money_currency currency)
{
    if (owner == 0)
        return book_find(b, currency);
    uint32_t i = find_first(b, owner);
    while (i != BOOK_NONE && book_at(b, i)->a.currency != currency)
        i = book_at(b, i)->next;
    return i;
}

static bool chunks_grow(struct book *b, size_t n)
{
    size_t want = (n + BOOK_CHUNK - 1) / BOOK_CHUNK;
    if (want <= b->n_chunks)
        return true;
    size_t words = want * BOOK_CHUNK / 64, had = b->n_chunks * BOOK_CHUNK / 64;
    struct book_account **chunks = realloc(b->chunks, want * sizeof *chunks);
    if (chunks)
        b->chunks = chunks;
    uint64_t *dirty = realloc(b->dirty, words * sizeof *dirty);
    if (dirty)
        b->dirty = dirty;
    uint64_t *epoch = realloc(b->epoch, words * sizeof *epoch);
    if (epoch)
        b->epoch = epoch;
    if (!chunks || !dirty || !epoch)
        return false;
    memset(b->dirty + had, 0, (words - had) * sizeof *dirty);
    memset(b->epoch + had, 0, (words - had) * sizeof *epoch);
    for (; b->n_chunks < want; b->n_chunks++) {
        b->chunks[b->n_chunks] = malloc(BOOK_CHUNK * sizeof(struct book_account));
        if (!b->chunks[b->n_chunks])
            return false;
    }
    return true;
}

enum pf_err book_reserve(struct book *b, size_t n)
{
    n += b->n;
    if (n <= b->n_chunks * BOOK_CHUNK && n * 4 <= b->by_id.cap * 3 && n * 4 <= b->by_owner.cap * 3)
        return PFE_OK;
    if (n >= BOOK_NONE - 1)
        return PFE_NOMEM;
    pthread_rwlock_wrlock(&b->lock);
    bool ok = chunks_grow(b, n) && index_grow(b, &b->by_id, n, key_id) && index_grow(b, &b->by_owner, n, key_owner);
    pthread_rwlock_unlock(&b->lock);
    return ok ? PFE_OK : PFE_NOMEM;
}

uint32_t book_add(struct book *b, const struct book_account *a)
{
    uint32_t i = (uint32_t)b->n;
    *book_at(b, i) = *a;
    b->by_id.slots[index_slot(b, &b->by_id, a->a.id, key_id)] = i + 1;

    size_t at = index_slot(b, &b->by_owner, a->a.owner, key_owner);
    uint32_t first = b->by_owner.slots[at] ? b->by_owner.slots[at] - 1 : BOOK_NONE;
    if (first == BOOK_NONE || book_at(b, first)->a.id > a->a.id) {
        book_at(b, i)->next = first;
        b->by_owner.slots[at] = i + 1;
    } else {
        struct book_account *p = book_at(b, first);
        while (p->next != BOOK_NONE && book_at(b, p->next)->a.id < a->a.id)
            p = book_at(b, p->next);
        book_at(b, i)->next = p->next;
        p->next = i;
    }
    if (a->a.id >= b->next_id)
        b->next_id = a->a.id + 1;
    b->n++;
    return i;
}

enum pf_err book_get(struct book *b, int64_t owner, money_currency currency, struct ledger_account *ret)
{
    pthread_rwlock_rdlock(&b->lock);
    uint32_t i = book_find_owner(b, owner, currency);
    if (i != BOOK_NONE)
        *ret = book_at(b, i)->a;
    pthread_rwlock_unlock(&b->lock);
    return i == BOOK_NONE ? PFE_NOT_FOUND : PFE_OK;
}

enum pf_err book_snapshot(struct book *b, int64_t id, struct book_account *ret)
{
    pthread_rwlock_rdlock(&b->lock);
    uint32_t i = book_find(b, id);
    if (i != BOOK_NONE)
        *ret = *book_at(b, i);
    pthread_rwlock_unlock(&b->lock);
    return i == BOOK_NONE ? PFE_NOT_FOUND : PFE_OK;
}

enum pf_err book_by_id(struct book *b, int64_t id, struct ledger_account *ret)
{
    struct book_account a;
    enum pf_err e = book_snapshot(b, id, &a);
    if (e == PFE_OK)
        *ret = a.a;
    return e;
}

void book_list(struct book *b, int64_t owner, struct ledger_account *out, unsigned cap, unsigned *ret_n)
{
    unsigned n = 0;
    pthread_rwlock_rdlock(&b->lock);
    for (uint32_t i = find_first(b, owner); i != BOOK_NONE && n < cap; i = book_at(b, i)->next)
        out[n++] = book_at(b, i)->a;
    pthread_rwlock_unlock(&b->lock);
    *ret_n = n;
}

int64_t book_owner(struct book *b, int64_t id)
{
    pthread_rwlock_rdlock(&b->lock);
    uint32_t i = book_find(b, id);
    int64_t owner = i == BOOK_NONE ? -1 : book_at(b, i)->a.owner;
    pthread_rwlock_unlock(&b->lock);
    return owner;
}

static int64_t saturate(__int128 v)
{
    return v > INT64_MAX ? INT64_MAX : v < INT64_MIN ? INT64_MIN : (int64_t)v;
}

void book_trial(struct book *b, struct store_trial *out, unsigned cap, unsigned *ret_n)
{
    unsigned n = 0;
    __int128 users[1000] = {0};
    int64_t accounts[1000] = {0};
    pthread_rwlock_rdlock(&b->lock);
    for (size_t i = 0; i < b->n; i++) {
        const struct ledger_account *a = &book_at(b, i)->a;
        accounts[a->currency]++;
        if (!ledger_is_external(a))
            users[a->currency] += a->balance;
    }
    for (money_currency c = 1; c < 1000 && n < cap; c++) {
        if (accounts[c] == 0)
            continue;
        uint32_t i = book_find(b, c);
        int64_t external = i == BOOK_NONE ? 0 : book_at(b, i)->a.balance;
        out[n++] = (struct store_trial){.currency = c,
                                        .accounts = accounts[c],
                                        .user_balance = saturate(users[c]),
                                        .external = external,
                                        .sum = saturate(users[c] + external)};
    }
    pthread_rwlock_unlock(&b->lock);
    *ret_n = n;
}

int64_t book_head(struct book *b)
{
    pthread_rwlock_rdlock(&b->lock);
    int64_t v = b->head_seq;
    pthread_rwlock_unlock(&b->lock);
    return v;
}

int64_t book_lag(struct book *b)
{
    pthread_rwlock_rdlock(&b->lock);
    int64_t v = b->lag_us;
    pthread_rwlock_unlock(&b->lock);
    return v;
}

void book_epoch_begin(struct book *b)
{
    uint64_t *t = b->epoch;
    b->epoch = b->dirty;
    b->dirty = t;
    b->epoch_at = 0;
}

uint32_t book_epoch_next(const struct book *b, size_t *at)
{
    for (size_t i = *at; i < b->n; i = (i / 64 + 1) * 64) {
        uint64_t word = b->epoch[i / 64] >> (i % 64);
        if (word) {
            i += (size_t)__builtin_ctzll(word);
            *at = i + 1;
            return (uint32_t)i;
        }
    }
    *at = b->n;
    return BOOK_NONE;
}

void book_epoch_end(struct book *b)
{
    if (b->n_chunks)
        memset(b->epoch, 0, b->n_chunks * BOOK_CHUNK / 64 * sizeof *b->epoch);
}
