#include "store/book/lease.h"

#include "base/clock.h"

void lease_book_init(struct lease_book *b)
{
    pthread_mutex_init(&b->lock, NULL);
}

void lease_book_fini(struct lease_book *b)
{
    pthread_mutex_destroy(&b->lock);
}

static struct lease_row *find(struct lease_book *b, struct str name)
{
    for (unsigned i = 0; i < b->n; i++)
        if (str_eq(str_c(b->rows[i].name), name))
            return &b->rows[i];
    return NULL;
}

static struct lease_row *find_or_make(struct lease_book *b, struct str name)
{
    struct lease_row *r = find(b, name);
    if (r || b->n == STORE_LEASES_MAX)
        return r;
    r = &b->rows[b->n++];
    *r = (struct lease_row){0};
    str_copy(r->name, sizeof r->name, name);
    return r;
}

enum pf_err lease_book_take(struct lease_book *b, struct str name, struct str holder, int64_t ttl_us,
                            struct store_lease *ret)
{
    pthread_mutex_lock(&b->lock);
    int64_t now = clock_mono(clock_system());
    struct lease_row *r = find_or_make(b, name);
    if (r) {
        bool own = str_eq(str_c(r->holder), holder), mine = own || (r->until_us <= now && !r->pins);
        if (mine) {
            r->token += !own;
            r->until_us = now + ttl_us;
            str_copy(r->holder, sizeof r->holder, holder);
        }
        *ret = (struct store_lease){.token = r->token, .left_us = r->until_us - now, .mine = mine};
        str_copy(ret->holder, sizeof ret->holder, str_c(r->holder));
    }
    pthread_mutex_unlock(&b->lock);
    return r ? PFE_OK : PFE_BUSY;
}

enum pf_err lease_book_drop(struct lease_book *b, struct str name, struct str holder)
{
    pthread_mutex_lock(&b->lock);
    struct lease_row *r = find(b, name);
    bool own = r && str_eq(str_c(r->holder), holder);
    if (own) {
        r->holder[0] = '\0';
        r->until_us = 0;
    }
    pthread_mutex_unlock(&b->lock);
    return own ? PFE_OK : PFE_NOT_FOUND;
}

enum pf_err lease_book_pin(struct lease_book *b, const struct store_fence *f, struct lease_row **pin)
{
    pthread_mutex_lock(&b->lock);
    struct lease_row *r = find(b, f->name);
    bool ok = r && r->token == f->token && str_eq(str_c(r->holder), f->holder);
    if (ok) {
        r->pins++;
        *pin = r;
    }
    pthread_mutex_unlock(&b->lock);
    return ok ? PFE_OK : PFE_FENCED;
}

void lease_book_unpin(struct lease_book *b, struct lease_row *pin)
{
    if (!pin)
        return;
    pthread_mutex_lock(&b->lock);
    pin->pins--;
    pthread_mutex_unlock(&b->lock);
}

void lease_book_group_begin(struct lease_book *b, struct store_fence *fences, size_t n)
{
    b->fences = fences;
    b->n_fences = n;
    for (size_t i = 0; i < n; i++) {
        struct lease_row *pin = NULL;
        fences[i].ok = lease_book_pin(b, &fences[i], &pin) == PFE_OK;
    }
}

void lease_book_group_end(struct lease_book *b)
{
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < b->n_fences; i++)
        if (b->fences[i].ok)
            find(b, b->fences[i].name)->pins--;
    b->n_fences = 0;
    pthread_mutex_unlock(&b->lock);
}
