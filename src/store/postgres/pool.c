#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "store/postgres/internal.h"

/* Under the lock: what is left of the pool for such a use. open: only what is open already. */
static bool may_take(const struct postgres_store *s, enum pg_use use, bool open)
{
    bool room = s->idle || (!open && s->n_open < s->max_open - 1);
    return room && (use == PG_READ || s->n_tx < s->tx_max);
}

/* Waits until something may be taken, and takes it. *ret_c NULL: the place of one, not yet connected. */
static bool claim(struct postgres_store *s, enum pg_use use, bool open, struct pg_conn **ret_c)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += s->timeout_ms / 1000;
    until.tv_nsec += (long)(s->timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&s->lock);
    if (!may_take(s, use, open))
        s->stats.waits++;
    int rc = 0;
    while (!may_take(s, use, open) && rc == 0 && !pg_primary_down(s) && !(open && s->n_open == 0))
        rc = pthread_cond_clockwait(&s->freed, &s->lock, CLOCK_MONOTONIC, &until);
    bool ok = may_take(s, use, open);
    if (ok) {
        *ret_c = s->idle;
        if (s->idle) {
            s->idle = s->idle->next;
            s->n_idle--;
        } else {
            s->n_open++;
        }
        s->n_tx += use == PG_TX;
    } else {
        s->stats.timeouts++;
    }
    pthread_mutex_unlock(&s->lock);
    return ok;
}

static void give_place(struct postgres_store *s, bool tx)
{
    pthread_mutex_lock(&s->lock);
    s->n_open--;
    s->n_tx -= tx;
    /* a reader may be woken where only a transaction could go on, or the other way round */
    pthread_cond_broadcast(&s->freed);
    pthread_mutex_unlock(&s->lock);
}

static struct pg_conn *take(struct postgres_store *s, enum pg_use use, bool open, bool *ret_crowded)
{
    struct pg_conn *c = NULL;
    *ret_crowded = false;
    if (pg_primary_down(s) || !claim(s, use, open, &c))
        return NULL;
    bool fresh = !c;
    if (fresh)
        c = calloc(1, sizeof *c);
    if (c) {
        c->store = s;
        c->tx = use == PG_TX;
        if ((!fresh && !pg_outlived(c) && pg_alive(c)) || pg_connect(c, NULL) == PFE_OK)
            return c;
        *ret_crowded = c->crowded;
        pg_disconnect(c);
        free(c);
    }
    give_place(s, use == PG_TX);
    return NULL;
}

struct pg_conn *pg_take(struct postgres_store *s, enum pg_use use)
{
    bool crowded;
    struct pg_conn *c = take(s, use, false, &crowded);
    return c || !crowded ? c : take(s, use, true, &crowded); /* the server has no more for us: one must be given back */
}

void pg_give(struct pg_conn *c)
{
    if (!c)
        return;
    struct postgres_store *s = c->store;
    bool keep = c->pg && !c->broken && PQtransactionStatus(c->pg) == PQTRANS_IDLE && !pg_outlived(c);
    c->timeout_ms = s->timeout_ms;
    if (keep) {
        pthread_mutex_lock(&s->lock);
        keep = s->n_idle < s->max_idle;
        if (keep) {
            c->next = s->idle;
            s->idle = c;
            s->n_idle++;
            s->n_tx -= c->tx;
            pthread_cond_broadcast(&s->freed);
        }
        pthread_mutex_unlock(&s->lock);
    }
    if (keep)
        return;
    bool tx = c->tx;
    pg_disconnect(c);
    free(c);
    give_place(s, tx);
}

void pg_pool_read(struct postgres_store *s, struct store_pool *ret)
{
    pthread_mutex_lock(&s->lock);
    *ret = s->stats;
    ret->max_open = s->max_open;
    ret->open = s->n_open;
    ret->idle = s->n_idle;
    ret->in_use = s->n_open - s->n_idle;
    pthread_mutex_unlock(&s->lock);
}
