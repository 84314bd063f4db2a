/* Groups, second round trip: everything that the group changes, and COMMIT. */
#include <assert.h>
#include <stdlib.h>

#include "base/clock.h"
#include "codec/uuid.h"
#include "store/postgres/journal.h"
#include "store/ticketing.h"

static void group_end(struct pg_ledger *l)
{
    if (l->n_idem)
        (void)!pg_q_end(&l->idem_q);
    l->n_idem = 0;
    atomic_store(&l->thread, 0);
}

void pg_group_abort(struct store *st)
{
    struct postgres_store *s = pg_of(st);
    group_end(s->ledger);
    pg_abandon(&s->w);
}

static enum pf_err seal(struct pg_ledger *l, const struct store_commit *c, struct pg_witness *ret)
{
    uint8_t bytes[LEDGER_CANONICAL_MAX];
    sha256_begin(l->sha);
    sha256_add(l->sha, l->head.seal, sizeof l->head.seal);
    for (size_t i = 0; i < c->n_entries; i++) {
        size_t n = ledger_canonical(&c->entries[i], bytes, sizeof bytes);
        if (n > sizeof bytes)
            return PFE_INTERNAL;
        sha256_add(l->sha, bytes, n);
    }
    sha256_end(l->sha, ret->seal);
    ret->last_seq = c->entries[c->n_entries - 1].seq;
    return PFE_OK;
}

static enum pf_err witness(struct pg_ledger *l, const struct store_commit *c, struct pg_witness *ret)
{
    *ret = (struct pg_witness){0};
    if (c->n_entries)
        return seal(l, c, ret);
    struct uuid id = uuid_v7(c->ts);
    memcpy(ret->receipt, id.b, sizeof ret->receipt);
    return PFE_OK;
}

/* ---- the statements ---- */

enum { SENT_MAX = PG_PIPE_MAX /* the most is 21 */ };

struct round {
    struct pg_conn *c;
    struct pg_q q[SENT_MAX];
    unsigned n;
    unsigned stock, moves; /* where these are; SENT_MAX: not sent */
};

static struct pg_q *room(struct round *r)
{
    assert(r->n < SENT_MAX);
    return &r->q[r->n];
}

static struct pg_q *next(struct round *r)
{
    struct pg_q *q = room(r);
    r->n++;
    return q;
}

static void send_witness(struct round *r, const struct store_commit *c, const struct pg_witness *w)
{
    struct pg_q *q = next(r);
    if (w->last_seq) {
        pg_q_begin(q, r->c, "INSERT INTO seal (last_seq, first_seq, ts, hash) VALUES ($1, $2, $3, $4)");
        pg_q_i64(q, w->last_seq);
        pg_q_i64(q, c->entries[0].seq);
        pg_q_i64(q, c->ts);
        pg_q_blob(q, w->seal, sizeof w->seal);
    } else {
        pg_q_begin(q, r->c, "INSERT INTO receipt (ts, id) VALUES ($1, $2)");
        pg_q_i64(q, c->ts);
        pg_q_blob(q, w->receipt, sizeof w->receipt);
    }
    pg_q_send(q);
}

/* Slots used, of one state, as the book has them after the group. */
static size_t rows_of(struct pg_ledger *l, const struct store_commit *c, enum store_slot_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_slots; i++)
        if (c->slots[i].used && c->slots[i].state == state)
            l->rows[n++] = book_at(&l->book, book_find(&l->book, c->slots[i].acc.id));
    return n;
}

static size_t send_accounts(struct round *r, struct pg_ledger *l, const struct store_commit *c)
{
    size_t n = rows_of(l, c, STORE_SLOT_FOUND);
    if (n)
        pg_send_account_updates(next(r), r->c, l->rows, n);
    n = rows_of(l, c, STORE_SLOT_NEW);
    if (n)
        pg_send_account_inserts(next(r), r->c, l->rows, n, c->ts);
    if (l->book.group.n_marks)
        pg_send_marks(next(r), r->c, l->book.group.marks, l->book.group.n_marks);
    return n;
}

static void send_idem(struct round *r, const struct store_commit *c)
{
    const struct store_idem *i = c->idem;
    struct pg_q *q = next(r);
    pg_q_begin(q, r->c,
               "INSERT INTO idempotency (principal, key, request, status, seq, body)"
               " SELECT * FROM unnest($1::int8[], $2::bytea[], $3::bytea[], $4::int8[], $5::int8[], $6::bytea[])");
    pg_q_i64s(q, &i->principal, sizeof *i, c->n_idem);
    pg_q_blobs(q, &i->key, sizeof *i, c->n_idem);
    pg_q_blobs_fixed(q, i->request, sizeof *i, sizeof i->request, c->n_idem);
    pg_q_i64s_begin(q, c->n_idem);
    for (size_t k = 0; k < c->n_idem; k++)
        pg_q_i64s_put(q, i[k].status);
    pg_q_i64s(q, &i->seq, sizeof *i, c->n_idem);
    pg_q_blobs(q, &i->body, sizeof *i, c->n_idem);
    pg_q_send(q);
}

static void send_tickets(struct round *r, const struct pg_ledger *l, const struct store_commit *c)
{
    r->stock = r->moves = SENT_MAX;
    if (pg_send_stock(room(r), r->c, c->events, c->n_events))
        r->stock = r->n++;
    if (pg_send_booking_moves(room(r), r->c, c->bookings, c->n_bookings))
        r->moves = r->n++;
    if (c->n_outbox)
        pg_send_outbox(next(r), r->c, c->outbox, c->n_outbox);
    if (c->n_inbox)
        pg_send_inbox(next(r), r->c, c->inbox, c->n_inbox);
    if (c->n_delivered)
        pg_send_delivered(next(r), r->c, c->delivered, c->n_delivered);
    if (c->n_created || c->n_outbox)
        pg_send_ticket_ids(next(r), r->c, c);
    if (c->n_created)
        pg_send_bookings(next(r), r->c, c->created, l->guests, c->n_created);
}

static void send_head(struct round *r, const struct pg_ledger *l, const struct pg_witness *w, size_t n_new)
{
    struct pg_q *q = next(r);
    pg_q_begin(q, r->c,
               "UPDATE ledger_head SET head_seq = $1, seal = $2, next_account = $3, accounts = $4, time_us = $5,"
               " lag_us = $6");
    pg_q_i64(q, l->book.head_seq);
    pg_q_blob(q, w->last_seq ? w->seal : l->head.seal, sizeof w->seal);
    pg_q_i64(q, l->book.next_id);
    pg_q_i64(q, l->head.accounts + (int64_t)n_new);
    pg_q_i64(q, l->book.time_us);
    pg_q_i64(q, l->book.lag_us);
    pg_q_send(q);
}

/* What no question reaches any more. Statistics once an hour: they are few. Receipts more often and not too many at a
   time, for all writers wait meanwhile. */
static void send_sweep(struct round *r, struct pg_ledger *l, int64_t ts)
{
    const int64_t second = 1000000, minute = 60 * second, hour = 60 * minute;
    if (ts / hour != l->swept_hour) {
        struct pg_q *q = next(r);
        pg_q_begin(q, r->c, "DELETE FROM stat WHERE minute BETWEEN 1 AND $1");
        pg_q_i64(q, ts / minute - BOOK_MINUTES);
        pg_q_send(q);
        l->swept_hour = ts / hour;
    }
    if (ts / (10 * second) != l->swept_receipts) {
        uint8_t floor[16];
        struct pg_q *q = next(r);
        ticket_uuid_floor(ts - BOOK_MINUTES * minute, floor);
        pg_q_begin(q, r->c, PG_RECEIPTS_SWEEP);
        pg_q_blob(q, floor, sizeof floor);
        pg_q_send(q);
        l->swept_receipts = ts / (10 * second);
    }
}

static void send_all(struct round *r, struct pg_ledger *l, const struct store_commit *c, const struct pg_witness *w)
{
    r->n = 0;
    if (c->n_entries) {
        const struct ledger_entry *e = c->entries;
        pg_send_entries(next(r), r->c, e, c->n_entries);
        r->n += pg_send_resolutions(room(r), r->c, e, c->n_entries);
        r->n += pg_send_holds(room(r), r->c, e, c->n_entries);
        r->n += pg_send_holds_ended(room(r), r->c, e, c->n_entries);
        pg_send_stats(next(r), r->c, &l->stats);
    }
    send_witness(r, c, w);
    size_t n_new = send_accounts(r, l, c);
    if (c->n_idem)
        send_idem(r, c);
    send_tickets(r, l, c);
    send_head(r, l, w, n_new);
    send_sweep(r, l, c->ts);
    struct pg_q *q = next(r);
    pg_q_begin(q, r->c, pg_commit_sql);
    pg_q_send(q);
}

/* A constraint that says no. Under the head's lock only what is outside of it can be in the way. */
static enum pf_err refused(const char *constraint)
{
    if (strcmp(constraint, "resolution_pkey") == 0)
        return PFE_WRONG_STATE;
    if (strcmp(constraint, "idempotency_pkey") == 0 || strcmp(constraint, "inbox_pkey") == 0)
        return PFE_IN_FLIGHT;
    if (strcmp(constraint, "event_stock") == 0)
        return PFE_SOLD_OUT;
    return PFE_UNAVAILABLE;
}

/* PFE_INTERNAL: the outcome is unknown. */
static enum pf_err send_round(struct postgres_store *s, const struct store_commit *c, const struct pg_witness *w,
                              int64_t deadline_us)
{
    struct round *r = malloc(sizeof *r);
    if (!r)
        return PFE_NOMEM;
    r->c = &s->w;
    int64_t t0 = clock_mono(clock_system());
    unsigned usual = r->c->timeout_ms;
    int64_t left = (deadline_us - t0) / 1000;
    send_all(r, s->ledger, c, w);
    r->c->timeout_ms = left < 1 ? 1 : left < usual ? (unsigned)left : usual;
    enum pf_err e = pg_sync(r->c);
    r->c->timeout_ms = usual;
    if (s->h_commit)
        metric_observe(s->h_commit, clock_mono(clock_system()) - t0);
    for (unsigned i = 0; i + 1 < r->n; i++) {
        if (e && strcmp(r->q[i].state, PG_GUARD) == 0 && (i == r->stock || i == r->moves))
            e = i == r->stock ? PFE_SOLD_OUT : PFE_WRONG_STATE;
        if (e == PFE_WRONG_STATE && *pg_q_constraint(&r->q[i]))
            e = refused(pg_q_constraint(&r->q[i]));
        (void)!pg_q_end(&r->q[i]);
    }
    enum pf_err end = pg_committed(&r->q[r->n - 1]);
    free(r);
    return end == PFE_OK || end == PFE_INTERNAL ? end : e ? e : end;
}

/* ---- committing ---- */

static enum pf_err note_guests(struct pg_ledger *l, const struct store_commit *c)
{
    if (c->n_created > l->cap_guests) {
        struct str *guests = realloc(l->guests, c->n_created * sizeof *guests);
        if (!guests)
            return PFE_NOMEM;
        l->guests = guests;
        l->cap_guests = c->n_created;
    }
    for (size_t i = 0; i < c->n_created; i++)
        l->guests[i] = str_c(c->created[i].guest);
    return PFE_OK;
}

static enum pf_err commit(struct postgres_store *s, const struct store_commit *c, int64_t deadline_us,
                          struct pg_witness *ret_w)
{
    struct pg_ledger *l = s->ledger;
    enum pf_err e = book_group_check(&l->book, c);
    if (e == PFE_OK)
        e = witness(l, c, ret_w);
    if (e)
        return e;
    book_group_apply(&l->book, c);
    e = pg_stats_gather(&l->stats, &l->book);
    if (e == PFE_OK && c->n_slots > l->cap_rows) {
        const struct book_account **rows = realloc(l->rows, c->n_slots * sizeof *rows);
        if (!rows)
            return PFE_NOMEM;
        l->rows = rows;
        l->cap_rows = c->n_slots;
    }
    if (e == PFE_OK)
        e = note_guests(l, c);
    if (e)
        return e;
    e = send_round(s, c, ret_w, deadline_us);
    return e == PFE_INTERNAL ? pg_settle(s, ret_w, deadline_us) : e;
}

static bool same_slot(const struct store_slot *a, const struct store_slot *b)
{
    return a->state == b->state && a->acc.id == b->acc.id && a->acc.owner == b->acc.owner &&
           a->acc.currency == b->acc.currency && a->acc.flags == b->acc.flags && a->acc.balance == b->acc.balance &&
           a->acc.held == b->acc.held && a->acc.head == b->acc.head && a->acc.entries == b->acc.entries;
}

/* Locks and loads anew. PFE_BUSY: what the group was decided on has changed. */
static enum pf_err again(struct postgres_store *s, const struct store_commit *c, int64_t seq)
{
    struct pg_ledger *l = s->ledger;
    const struct store_group_ask *ask = &l->ask;
    struct store_group g = {.slots = calloc(ask->n_keys + 1, sizeof *g.slots),
                            .events = calloc(ask->n_events + 1, sizeof *g.events),
                            .bookings = calloc(ask->n_bookings + 1, sizeof *g.bookings),
                            .seen = calloc(ask->n_inbox + 1, sizeof *g.seen),
                            .resolved_by = calloc(ask->n_refs + 1, sizeof *g.resolved_by)};
    enum pf_err e = g.slots && g.events && g.bookings && g.seen && g.resolved_by ? PFE_OK : PFE_NOMEM;
    size_t n_idem = l->n_idem;
    l->n_idem = 0; /* what was answered from them stands: a key used since is refused by its constraint */
    if (e == PFE_OK)
        e = pg_group_load(s, ask, &g);
    l->n_idem = n_idem;
    if (e == PFE_OK && (l->head.seq != seq || !pg_tickets_same(c, &g)))
        e = PFE_BUSY;
    for (size_t i = 0; i < ask->n_keys && e == PFE_OK; i++)
        if (!same_slot(&g.slots[i], &l->loaded[i]))
            e = PFE_BUSY;
    free(g.slots);
    free(g.events);
    free(g.bookings);
    free(g.seen);
    free(g.resolved_by);
    return e;
}

enum pf_err pg_group_commit(struct store *st, const struct store_commit *c)
{
    struct postgres_store *s = pg_of(st);
    struct pg_ledger *l = s->ledger;
    struct pg_witness w;
    int64_t deadline = pg_commit_deadline(s);
    if (book_group_empty(c)) {
        /* what earlier groups did is acknowledged again, after a commit of this one's only (stall.c): it has locked the
           head, so there is something to wait for */
        enum pf_err e = pg_commit_by(&s->w, deadline);
        pg_group_abort(st);
        return e;
    }
    int64_t seq = l->head.seq;
    struct retry_call call;
    retry_begin(&s->groups, &call, true, clock_mono(clock_system()));
    enum pf_err e = commit(s, c, deadline, &w);
    while (e == PFE_BUSY && pg_again(&call, e)) {
        pg_abandon(&s->w);
        e = again(s, c, seq);
        if (e)
            break;
        e = commit(s, c, deadline, &w);
    }
    retry_end(&call);
    group_end(l);
    pg_abandon(&s->w);
    atomic_store(&s->full, e == PFE_DISK_FULL);
    return e;
}

enum pf_err pg_flush(struct store *s)
{
    (void)s; /* nothing is written behind */
    return PFE_OK;
}
