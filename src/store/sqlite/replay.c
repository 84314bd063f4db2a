/* One account recomputed from the journal, and its projection put right. */
#include <stdlib.h>

#include "store/book/refold.h"
#include "store/sqlite/chain.h"

struct walk {
    struct chain c;
    struct sqlite_conn *conn;
};

static bool walk_from(void *ctx, int64_t seq, struct ledger_entry *ret)
{
    return chain_from(&((struct walk *)ctx)->c, seq, ret);
}

static bool walk_back(void *ctx, struct ledger_entry *ret)
{
    return chain_back(&((struct walk *)ctx)->c, ret);
}

static enum pf_err walk_held(void *ctx, const struct ledger_entry *e, int64_t *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, ((struct walk *)ctx)->conn, "SELECT amount FROM journal WHERE seq = ?1");
    sqlite_q_i64(&q, e->ref);
    if (sqlite_q_next(&q))
        *ret = sqlite_col_i64(&q, 0);
    return sqlite_q_end(&q);
}

static enum pf_err replay_chain(struct sqlite_conn *conn, const struct book_account *a, struct store_replay *ret)
{
    struct walk w = {.conn = conn};
    enum pf_err e = chain_begin(&w.c, conn, a);
    if (e)
        return e;
    struct store_replay r = {0};
    e = refold_replay(&(struct refold_walk){&w, walk_from, walk_back, walk_held}, a->a.id, a->a.head, &r);
    enum pf_err end = chain_end(&w.c);
    if (end == PFE_INTERNAL)
        r.intact = false;
    else if (e == PFE_OK)
        e = end;
    if (e == PFE_OK)
        *ret = r;
    return e;
}

enum pf_err sqlite_replay(struct store *st, int64_t account, struct store_replay *ret)
{
    struct sqlite_store *s = sqlite_of(st);
    struct book_account a;
    enum pf_err e = book_snapshot(&s->book, account, &a);
    return e ? e : replay_chain(sqlite_reader(s), &a, ret);
}

/* ---- rebuild ---- */

/* The newest entry that names the account, by looking through the journal: for when the chain cannot be trusted. */
static enum pf_err find_head(struct sqlite_conn *c, int64_t account, int64_t *ret)
{
    struct sqlite_q q;
    *ret = 0;
    sqlite_q_begin(&q, c, "SELECT seq FROM journal WHERE debit = ?1 OR credit = ?1 ORDER BY seq DESC LIMIT 1");
    sqlite_q_i64(&q, account);
    if (sqlite_q_next(&q))
        *ret = sqlite_col_i64(&q, 0);
    return sqlite_q_end(&q);
}

/* Second walk: the account's row and its marks, from what the first walk found. */
static enum pf_err gather(struct sqlite_conn *conn, const struct store_replay *r, struct book_account *a,
                          struct book_mark *marks)
{
    struct walk w = {.conn = conn};
    const struct book_account before = *a; /* the chain looks at it while a changes */
    enum pf_err e = chain_begin(&w.c, conn, &before);
    if (e)
        return e;
    refold_account(&(struct refold_walk){&w, walk_from, walk_back, walk_held}, r, a, marks);
    return chain_end(&w.c);
}

static enum pf_err write_projection(struct sqlite_store *s, const struct book_account *a, const struct book_mark *marks)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, &s->w, "DELETE FROM mark WHERE account = ?1");
    sqlite_q_i64(&q, a->a.id);
    enum pf_err e = sqlite_q_run(&q);
    for (int64_t i = 0; i < a->a.entries / BOOK_MARK_EVERY && e == PFE_OK; i++)
        e = sqlite_mark_insert(&s->w, &marks[i]);
    return e ? e : sqlite_account_write(&s->w, a);
}

static enum pf_err rebuild(struct sqlite_store *s, int64_t account, struct book_account *a, struct store_replay *ret)
{
    struct sqlite_conn *conn = sqlite_reader(s);
    enum pf_err e = book_snapshot(&s->book, account, a);
    if (e == PFE_OK)
        e = replay_chain(conn, a, ret);
    if (e)
        return e;
    bool agrees = ret->intact && ret->events == a->a.entries && ret->balance == a->a.balance && ret->held == a->a.held;
    if (!agrees) {
        e = find_head(conn, account, &a->a.head);
        if (e == PFE_OK)
            e = replay_chain(conn, a, ret);
        if (e || !ret->intact)
            return e;
    }
    struct book_mark *marks = malloc(((size_t)ret->events / BOOK_MARK_EVERY + 1) * sizeof *marks);
    if (!marks)
        return PFE_NOMEM;
    e = gather(conn, ret, a, marks);
    if (e == PFE_OK)
        e = write_projection(s, a, marks);
    free(marks);
    return e;
}

enum pf_err sqlite_account_rebuild(struct store *st, int64_t account, struct store_replay *ret)
{
    struct sqlite_store *s = sqlite_of(st);
    struct book_account a;
    struct store_replay r;
    enum pf_err e = sqlite_write_begin(s);
    if (e)
        return e;
    e = rebuild(s, account, &a, &r);
    if (e)
        return sqlite_write_failed(s, e);
    if (!r.intact) {
        sqlite_write_rollback(s);
        *ret = r;
        return PFE_OK;
    }
    e = sqlite_write_commit_locked(s);
    if (e == PFE_OK) {
        pthread_rwlock_wrlock(&s->book.lock);
        uint32_t i = book_find(&s->book, account);
        a.next = book_at(&s->book, i)->next;
        *book_at(&s->book, i) = a;
        pthread_rwlock_unlock(&s->book.lock);
        *ret = r;
    }
    pthread_mutex_unlock(&s->wlock);
    return e;
}
