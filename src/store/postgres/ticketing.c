/* Events, bookings, outbox and inbox. */
#include <stdlib.h>

#include "store/postgres/journal.h"
#include "store/postgres/records.h"
#include "store/ticketing.h"

#define EVENT_COLUMNS                                                                                                  \
    "e.id, e.uuid, e.organiser, e.capacity, e.held, e.sold, e.price, e.currency, e.status, e.starts_us, e.created_us"
#define BOOKING_COLUMNS                                                                                                \
    "b.id, b.uuid, b.event, e.uuid, b.user_id, b.guest, b.tickets, b.amount, b.currency, b.state, b.reason,"           \
    " b.version, b.hold_seq, b.paid_seq, b.expires_us, b.created_us, b.updated_us"
#define BOOKINGS "booking b JOIN event e ON e.id = b.event"
/* After all columns of a row: which of the rows asked for it is, from 1. */
enum { EVENT_AT = 11, BOOKING_AT = 17 };

static void event_read(const struct pg_q *q, struct ticket_event *ret)
{
    *ret = (struct ticket_event){.id = pg_col_i64(q, 0),
                                 .organiser = pg_col_i64(q, 2),
                                 .capacity = pg_col_i64(q, 3),
                                 .held = pg_col_i64(q, 4),
                                 .sold = pg_col_i64(q, 5),
                                 .price = pg_col_i64(q, 6),
                                 .currency = (money_currency)pg_col_i64(q, 7),
                                 .status = (enum ticket_event_status)pg_col_i64(q, 8),
                                 .starts_us = pg_col_i64(q, 9),
                                 .created_us = pg_col_i64(q, 10)};
    pg_col_blob(q, 1, ret->uuid, sizeof ret->uuid);
}

static void booking_read(const struct pg_q *q, struct ticket_booking *ret)
{
    *ret = (struct ticket_booking){.id = pg_col_i64(q, 0),
                                   .event = pg_col_i64(q, 2),
                                   .user = pg_col_i64(q, 4),
                                   .count = pg_col_i64(q, 6),
                                   .amount = pg_col_i64(q, 7),
                                   .currency = (money_currency)pg_col_i64(q, 8),
                                   .state = (enum ticket_state)pg_col_i64(q, 9),
                                   .reason = (enum ticket_reason)pg_col_i64(q, 10),
                                   .version = pg_col_i64(q, 11),
                                   .hold_seq = pg_col_i64(q, 12),
                                   .paid_seq = pg_col_i64(q, 13),
                                   .expires_us = pg_col_i64(q, 14),
                                   .created_us = pg_col_i64(q, 15),
                                   .updated_us = pg_col_i64(q, 16)};
    pg_col_blob(q, 1, ret->uuid, sizeof ret->uuid);
    pg_col_blob(q, 3, ret->event_uuid, sizeof ret->event_uuid);
    (void)str_copy(ret->guest, sizeof ret->guest, pg_col_str(q, 5));
}

/* ---- groups: loading ---- */

/* The server's clock is the store's. */
#define STORE_NOW "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

void pg_tickets_send(struct pg_tickets *t, struct pg_conn *c, const struct store_group_ask *ask)
{
    t->events = t->bookings = t->inbox = t->ids = false;
    if (ask->n_events) {
        pg_q_begin(&t->q[0], c,
                   "SELECT " EVENT_COLUMNS ", k.at FROM unnest($1::int8[]) WITH ORDINALITY k(id, at)"
                   " JOIN event e ON e.id = k.id ORDER BY e.id FOR UPDATE OF e");
        pg_q_i64s(&t->q[0], ask->events, sizeof *ask->events, ask->n_events);
        pg_q_send(&t->q[0]);
        pg_q_begin(&t->q[3], c, "SELECT booking, " STORE_NOW " FROM ticket_ids");
        pg_q_send(&t->q[3]);
        t->events = t->ids = true;
    }
    if (ask->n_bookings) {
        pg_q_begin(&t->q[1], c,
                   "SELECT " BOOKING_COLUMNS ", k.at FROM unnest($1::int8[]) WITH ORDINALITY k(id, at)"
                   " JOIN booking b ON b.id = k.id JOIN event e ON e.id = b.event ORDER BY b.id FOR UPDATE OF b");
        pg_q_i64s(&t->q[1], ask->bookings, sizeof *ask->bookings, ask->n_bookings);
        pg_q_send(&t->q[1]);
        t->bookings = true;
    }
    if (ask->n_inbox) {
        pg_q_begin(&t->q[2], c,
                   "SELECT k.at FROM unnest($1::bytea[], $2::text[]) WITH ORDINALITY k(message, consumer, at)"
                   " JOIN inbox i ON i.message = k.message AND i.consumer = k.consumer");
        pg_q_blobs_fixed(&t->q[2], ask->inbox->message, sizeof *ask->inbox, sizeof ask->inbox->message, ask->n_inbox);
        pg_q_strs(&t->q[2], &ask->inbox->consumer, sizeof *ask->inbox, ask->n_inbox);
        pg_q_send(&t->q[2]);
        t->inbox = true;
    }
}

static bool place(const struct pg_q *q, int column, size_t n, size_t *ret)
{
    int64_t at = pg_col_i64(q, column);
    *ret = (size_t)at - 1;
    return at >= 1 && (size_t)at <= n;
}

enum pf_err pg_tickets_read(struct pg_tickets *t, const struct store_group_ask *ask, struct store_group *g)
{
    enum pf_err e = PFE_OK, end;
    size_t at;
    for (size_t i = 0; i < ask->n_events; i++)
        g->events[i] = (struct store_event_slot){0};
    for (size_t i = 0; i < ask->n_bookings; i++)
        g->bookings[i] = (struct store_booking_slot){0};
    for (size_t i = 0; i < ask->n_inbox; i++)
        g->seen[i] = false;
    while (t->events && pg_q_next(&t->q[0])) {
        if (!place(&t->q[0], EVENT_AT, ask->n_events, &at))
            continue;
        struct store_event_slot *x = &g->events[at];
        event_read(&t->q[0], &x->e);
        x->was_held = x->e.held;
        x->was_sold = x->e.sold;
        x->found = true;
    }
    while (t->bookings && pg_q_next(&t->q[1])) {
        if (!place(&t->q[1], BOOKING_AT, ask->n_bookings, &at))
            continue;
        struct store_booking_slot *x = &g->bookings[at];
        booking_read(&t->q[1], &x->b);
        x->was = x->b.state;
        x->was_version = x->b.version;
        x->found = true;
    }
    while (t->inbox && pg_q_next(&t->q[2]))
        if (place(&t->q[2], 0, ask->n_inbox, &at))
            g->seen[at] = true;
    g->first_booking = 0;
    if (t->ids && pg_q_next(&t->q[3])) {
        g->first_booking = pg_col_i64(&t->q[3], 0);
        g->now_us = pg_col_i64(&t->q[3], 1);
    }
    const bool sent[] = {t->events, t->bookings, t->inbox, t->ids};
    for (size_t i = 0; i < sizeof sent / sizeof *sent; i++)
        if (sent[i] && (end = pg_q_end(&t->q[i])) && e == PFE_OK)
            e = end;
    return e;
}

bool pg_tickets_same(const struct store_commit *c, const struct store_group *g)
{
    for (size_t i = 0; i < c->n_events; i++)
        if (g->events[i].found != c->events[i].found || g->events[i].was_held != c->events[i].was_held ||
            g->events[i].was_sold != c->events[i].was_sold || g->events[i].e.status != c->events[i].e.status)
            return false;
    for (size_t i = 0; i < c->n_bookings; i++)
        if (g->bookings[i].found != c->bookings[i].found || g->bookings[i].was_version != c->bookings[i].was_version)
            return false;
    return c->n_created == 0 || c->created[0].id == g->first_booking;
}

/* ---- groups: writing ---- */

/* One parameter: a value of each row that was used. */
#define BIND_USED(q, rows, n, used_n, value)                                                                           \
    do {                                                                                                               \
        pg_q_i64s_begin((q), (used_n));                                                                                \
        for (size_t at_ = 0; at_ < (n); at_++)                                                                         \
            if ((rows)[at_].used)                                                                                      \
                pg_q_i64s_put((q), (int64_t)(rows)[at_].value);                                                        \
    } while (0)

/* A condition that keeps a row from being changed is no error to the server: that the rows changed are as many as they
   should be is divided by. */
bool pg_send_stock(struct pg_q *q, struct pg_conn *c, const struct store_event_slot *e, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        used += e[i].used;
    if (used == 0)
        return false;
    pg_q_begin(q, c,
               "WITH u AS (UPDATE event e SET held = e.held + k.held, sold = e.sold + k.sold"
               " FROM unnest($1::int8[], $2::int8[], $3::int8[]) k(id, held, sold) WHERE e.id = k.id"
               " AND e.held + k.held >= 0 AND e.sold + k.sold >= 0"
               " AND e.held + k.held + e.sold + k.sold <= e.capacity RETURNING 1)"
               " SELECT 1 / (count(*) = $4)::int FROM u");
    BIND_USED(q, e, n, used, e.id);
    BIND_USED(q, e, n, used, e.held - e[at_].was_held);
    BIND_USED(q, e, n, used, e.sold - e[at_].was_sold);
    pg_q_i64(q, (int64_t)used);
    pg_q_send(q);
    return true;
}

bool pg_send_booking_moves(struct pg_q *q, struct pg_conn *c, const struct store_booking_slot *b, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        used += b[i].used;
    if (used == 0)
        return false;
    pg_q_begin(q, c,
               "WITH u AS (UPDATE booking b SET state = k.state, reason = k.reason, version = k.version,"
               " hold_seq = k.hold_seq, paid_seq = k.paid_seq, updated_us = k.updated_us"
               " FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[],"
               " $8::int8[], $9::int8[])"
               " k(id, was, was_version, state, reason, version, hold_seq, paid_seq, updated_us)"
               " WHERE b.id = k.id AND b.state = k.was AND b.version = k.was_version RETURNING 1)"
               " SELECT 1 / (count(*) = $10)::int FROM u");
    BIND_USED(q, b, n, used, b.id);
    BIND_USED(q, b, n, used, was);
    BIND_USED(q, b, n, used, was_version);
    BIND_USED(q, b, n, used, b.state);
    BIND_USED(q, b, n, used, b.reason);
    BIND_USED(q, b, n, used, b.version);
    BIND_USED(q, b, n, used, b.hold_seq);
    BIND_USED(q, b, n, used, b.paid_seq);
    BIND_USED(q, b, n, used, b.updated_us);
    pg_q_i64(q, (int64_t)used);
    pg_q_send(q);
    return true;
}

#define BIND_ALL(q, rows, n, value)                                                                                    \
    do {                                                                                                               \
        pg_q_i64s_begin((q), (n));                                                                                     \
        for (size_t at_ = 0; at_ < (n); at_++)                                                                         \
            pg_q_i64s_put((q), (int64_t)(value));                                                                      \
    } while (0)

void pg_send_bookings(struct pg_q *q, struct pg_conn *c, const struct ticket_booking *b, const struct str *guests,
                      size_t n)
{
    pg_q_begin(q, c,
               "INSERT INTO booking (id, uuid, event, buyer, user_id, guest, tickets, amount, currency, state, reason,"
               " version, hold_seq, paid_seq, expires_us, created_us, updated_us)"
               " SELECT * FROM unnest($1::int8[], $2::bytea[], $3::int8[], $4::int8[], $5::int8[], $6::text[],"
               " $7::int8[], $8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::int8[],"
               " $15::int8[], $16::int8[], $17::int8[])");
    BIND_ALL(q, b, n, b[at_].id);
    pg_q_blobs_fixed(q, b->uuid, sizeof *b, sizeof b->uuid, n);
    BIND_ALL(q, b, n, b[at_].event);
    BIND_ALL(q, b, n, ticket_buyer(b[at_].user, guests[at_]));
    BIND_ALL(q, b, n, b[at_].user);
    pg_q_strs(q, guests, sizeof *guests, n);
    BIND_ALL(q, b, n, b[at_].count);
    BIND_ALL(q, b, n, b[at_].amount);
    BIND_ALL(q, b, n, b[at_].currency);
    BIND_ALL(q, b, n, b[at_].state);
    BIND_ALL(q, b, n, b[at_].reason);
    BIND_ALL(q, b, n, b[at_].version);
    BIND_ALL(q, b, n, b[at_].hold_seq);
    BIND_ALL(q, b, n, b[at_].paid_seq);
    BIND_ALL(q, b, n, b[at_].expires_us);
    BIND_ALL(q, b, n, b[at_].created_us);
    BIND_ALL(q, b, n, b[at_].updated_us);
    pg_q_send(q);
}

void pg_send_outbox(struct pg_q *q, struct pg_conn *c, const struct store_message *m, size_t n)
{
    pg_q_begin(q, c,
               "INSERT INTO outbox (id, uuid, type, key, payload, created_us)"
               " SELECT t.outbox + k.at - 1, k.uuid, k.type, k.key, k.payload, k.created_us FROM ticket_ids t,"
               " unnest($1::bytea[], $2::text[], $3::bytea[], $4::text[], $5::int8[])"
               " WITH ORDINALITY k(uuid, type, key, payload, created_us, at)");
    pg_q_blobs_fixed(q, m->uuid, sizeof *m, sizeof m->uuid, n);
    pg_q_strs(q, &m->type, sizeof *m, n);
    pg_q_blobs_fixed(q, m->key, sizeof *m, sizeof m->key, n);
    pg_q_strs(q, &m->payload, sizeof *m, n);
    pg_q_i64s(q, &m->created_us, sizeof *m, n);
    pg_q_send(q);
}

void pg_send_inbox(struct pg_q *q, struct pg_conn *c, const struct store_inbox_ref *r, size_t n)
{
    pg_q_begin(q, c, "INSERT INTO inbox (message, consumer) SELECT * FROM unnest($1::bytea[], $2::text[])");
    pg_q_blobs_fixed(q, r->message, sizeof *r, sizeof r->message, n);
    pg_q_strs(q, &r->consumer, sizeof *r, n);
    pg_q_send(q);
}

void pg_send_delivered(struct pg_q *q, struct pg_conn *c, const struct store_outbox_ref *m, size_t n)
{
    pg_q_begin(q, c,
               "DELETE FROM outbox o USING unnest($1::int8[], $2::bytea[]) k(id, uuid)"
               " WHERE o.id = k.id AND o.uuid = k.uuid");
    pg_q_i64s(q, &m->id, sizeof *m, n);
    pg_q_blobs_fixed(q, m->uuid, sizeof *m, sizeof m->uuid, n);
    pg_q_send(q);
}

void pg_send_ticket_ids(struct pg_q *q, struct pg_conn *c, const struct store_commit *k)
{
    pg_q_begin(q, c, "UPDATE ticket_ids SET booking = booking + $1, outbox = outbox + $2");
    pg_q_i64(q, (int64_t)k->n_created);
    pg_q_i64(q, (int64_t)k->n_outbox);
    pg_q_send(q);
}

/* ---- records ---- */

enum pf_err pg_event_insert(struct store_tx *tx, struct ticket_event *e)
{
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx),
               "WITH next AS (UPDATE record_ids SET event = event + 1 RETURNING event AS id)"
               " INSERT INTO event (id, uuid, organiser, capacity, held, sold, price, currency, status, starts_us,"
               " created_us) SELECT id, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM next RETURNING id");
    pg_q_blob(&q, e->uuid, sizeof e->uuid);
    pg_q_i64(&q, e->organiser);
    pg_q_i64(&q, e->capacity);
    pg_q_i64(&q, e->held);
    pg_q_i64(&q, e->sold);
    pg_q_i64(&q, e->price);
    pg_q_i64(&q, e->currency);
    pg_q_i64(&q, e->status);
    pg_q_i64(&q, e->starts_us);
    pg_q_i64(&q, e->created_us);
    return pg_rec_inserted(&q, &e->id);
}

enum pf_err pg_event_status(struct store_tx *tx, int64_t id, enum ticket_event_status status)
{
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx), "UPDATE event SET status = $1 WHERE id = $2");
    pg_q_i64(&q, status);
    pg_q_i64(&q, id);
    return pg_rec_hit(&q, PFE_NOT_FOUND);
}

enum pf_err pg_inbox_purge(struct store_tx *tx, int64_t before_us, int64_t *ret_n)
{
    struct pg_q q;
    uint8_t floor[16];
    int64_t n = 0;
    ticket_uuid_floor(before_us, floor);
    pg_q_begin(&q, pg_rec_conn(tx), "DELETE FROM inbox WHERE message < $1");
    pg_q_blob(&q, floor, sizeof floor);
    enum pf_err e = pg_rec_hits(&q, &n);
    if (e == PFE_OK && ret_n)
        *ret_n = n;
    return e;
}

/* ---- reads ---- */

/* Where the refs of one sort are among all of them, and what they say. */
static size_t bind_refs(struct pg_q *q, const struct store_ref *refs, size_t n, bool by_id)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += (refs[i].id > 0) == by_id;
    pg_q_i64s_begin(q, k);
    for (size_t i = 0; i < n; i++)
        if ((refs[i].id > 0) == by_id)
            pg_q_i64s_put(q, (int64_t)i + 1);
    return k;
}

static enum pf_err bind_values(struct pg_q *q, const struct store_ref *refs, size_t n, bool by_id, size_t k)
{
    if (by_id) {
        pg_q_i64s_begin(q, k);
        for (size_t i = 0; i < n; i++)
            if (refs[i].id > 0)
                pg_q_i64s_put(q, refs[i].id);
        return PFE_OK;
    }
    struct str *uuids = malloc(k * sizeof *uuids);
    if (!uuids)
        return PFE_NOMEM;
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        if (refs[i].id <= 0)
            uuids[at++] = (struct str){(const char *)refs[i].uuid, sizeof refs[i].uuid};
    pg_q_blobs(q, uuids, sizeof *uuids, k); /* copied */
    free(uuids);
    return PFE_OK;
}

static bool any_ref(const struct store_ref *refs, size_t n, bool by_id)
{
    for (size_t i = 0; i < n; i++)
        if ((refs[i].id > 0) == by_id)
            return true;
    return false;
}

static enum pf_err read_refs(struct store *st, const char *sql, const struct store_ref *refs, size_t n, bool by_id,
                             void (*row)(const struct pg_q *q, size_t n, void *out), void *out)
{
    struct pg_q q;
    if (!any_ref(refs, n, by_id))
        return PFE_OK;
    pg_read_begin(&q, pg_of(st), PG_FROM_ANY, sql);
    size_t k = bind_refs(&q, refs, n, by_id);
    enum pf_err e = bind_values(&q, refs, n, by_id, k);
    while (e == PFE_OK && pg_q_next(&q))
        row(&q, n, out);
    enum pf_err end = pg_q_end(&q);
    return e ? e : end;
}

static void event_row(const struct pg_q *q, size_t n, void *out)
{
    size_t at;
    if (place(q, EVENT_AT, n, &at))
        event_read(q, (struct ticket_event *)out + at);
}

static void booking_row(const struct pg_q *q, size_t n, void *out)
{
    size_t at;
    if (place(q, BOOKING_AT, n, &at))
        booking_read(q, (struct ticket_booking *)out + at);
}

enum pf_err pg_events_get(struct store *st, const struct store_ref *refs, size_t n, struct ticket_event *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (struct ticket_event){0};
    enum pf_err e = read_refs(st,
                              "SELECT " EVENT_COLUMNS ", k.at FROM unnest($1::int8[], $2::int8[]) k(at, id)"
                              " JOIN event e ON e.id = k.id",
                              refs, n, true, event_row, out);
    if (e)
        return e;
    return read_refs(st,
                     "SELECT " EVENT_COLUMNS ", k.at FROM unnest($1::int8[], $2::bytea[]) k(at, uuid)"
                     " JOIN event e ON e.uuid = k.uuid",
                     refs, n, false, event_row, out);
}

enum pf_err pg_bookings_get(struct store *st, const struct store_ref *refs, size_t n, struct ticket_booking *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (struct ticket_booking){0};
    enum pf_err e = read_refs(st,
                              "SELECT " BOOKING_COLUMNS ", k.at FROM unnest($1::int8[], $2::int8[]) k(at, id)"
                              " JOIN booking b ON b.id = k.id JOIN event e ON e.id = b.event",
                              refs, n, true, booking_row, out);
    if (e)
        return e;
    return read_refs(st,
                     "SELECT " BOOKING_COLUMNS ", k.at FROM unnest($1::int8[], $2::bytea[]) k(at, uuid)"
                     " JOIN booking b ON b.uuid = k.uuid JOIN event e ON e.id = b.event",
                     refs, n, false, booking_row, out);
}

enum pf_err pg_booking_list(struct store *st, const struct store_booking_query *b, struct ticket_booking *out,
                            unsigned *ret_n)
{
    struct pg_q q;
    unsigned n = 0;
    pg_read_begin(&q, pg_of(st), PG_FROM_ANY,
                  "SELECT " BOOKING_COLUMNS " FROM " BOOKINGS " WHERE b.buyer = $1 AND b.guest = $2 AND b.id < $3"
                  " ORDER BY b.id DESC LIMIT $4 OFFSET $5");
    pg_q_i64(&q, ticket_buyer(b->user, b->guest));
    pg_q_str(&q, b->user > 0 ? STR("") : b->guest);
    pg_q_i64(&q, pg_rec_before(b->before_id));
    pg_q_i64(&q, b->limit);
    pg_q_i64(&q, b->offset);
    while (n < b->limit && pg_q_next(&q))
        booking_read(&q, &out[n++]);
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err pg_bookings_due(struct store *st, int64_t now_us, unsigned limit, int64_t *out_ids, unsigned *ret_n)
{
    struct pg_q q;
    unsigned n = 0;
    (void)now_us;
    pg_read_begin(&q, pg_of(st), PG_FROM_PRIMARY,
                  "SELECT id FROM booking WHERE state <= 2 AND expires_us <= " STORE_NOW
                  " ORDER BY expires_us, id LIMIT $1");
    pg_q_i64(&q, limit);
    while (n < limit && pg_q_next(&q))
        out_ids[n++] = pg_col_i64(&q, 0);
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err pg_outbox_list(struct store *st, struct arena *a, int64_t after_id, unsigned limit,
                           struct store_message *out, unsigned *ret_n)
{
    struct pg_q q;
    unsigned n = 0;
    pg_read_begin(&q, pg_of(st), PG_FROM_PRIMARY,
                  "SELECT id, uuid, type, key, payload, created_us FROM outbox WHERE id > $1 ORDER BY id LIMIT $2");
    pg_q_i64(&q, after_id);
    pg_q_i64(&q, limit);
    while (n < limit && pg_q_next(&q)) {
        struct store_message *m = &out[n];
        *m = (struct store_message){.id = pg_col_i64(&q, 0), .created_us = pg_col_i64(&q, 5)};
        pg_col_blob(&q, 1, m->uuid, sizeof m->uuid);
        pg_col_blob(&q, 3, m->key, sizeof m->key);
        if (!pg_col_dup(&q, 2, a, &m->type) || !pg_col_dup(&q, 4, a, &m->payload))
            break;
        n++;
    }
    enum pf_err e = pg_q_end(&q);
    /* What no replica has may not have happened after a promotion, and who is told of it cannot be told otherwise. */
    if (e == PFE_OK && n && pg_assure(pg_of(st), pg_commit_deadline(pg_of(st))) != PFE_OK)
        e = PFE_UNAVAILABLE;
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- verify ---- */

enum pf_err pg_tickets_judge(struct pg_conn *c, struct pg_tickets_found *ret)
{
    struct pg_q q;
    pg_q_begin(&q, c,
               "SELECT e.id FROM event e LEFT JOIN (SELECT event,"
               " sum(CASE WHEN state <= 2 THEN tickets ELSE 0 END) AS held,"
               " sum(CASE WHEN state = 3 THEN tickets ELSE 0 END) AS sold FROM booking GROUP BY event) b"
               " ON b.event = e.id WHERE e.held <> coalesce(b.held, 0) OR e.sold <> coalesce(b.sold, 0)"
               " OR e.held + e.sold > e.capacity ORDER BY e.id LIMIT 1");
    ret->bad_event = pg_q_next(&q) ? pg_col_i64(&q, 0) : 0;
    enum pf_err e = pg_q_end(&q);
    if (e)
        return e;
    pg_q_begin(&q, c,
               "SELECT b.id FROM booking b LEFT JOIN event e ON e.id = b.event"
               " LEFT JOIN open_hold h ON h.seq = b.hold_seq LEFT JOIN journal j ON j.seq = b.paid_seq"
               " WHERE e.id IS NULL OR (b.state IN (1, 2) AND b.amount > 0) <> (h.seq IS NOT NULL)"
               " OR (b.state = 3 AND b.amount > 0 AND (j.kind IS DISTINCT FROM 6 OR j.amount <> b.amount"
               " OR j.ref <> b.hold_seq OR left(j.origin, 8) <> '" TICKET_ORIGIN "'"
               " OR replace(substr(j.origin, 9), '-', '') <> encode(b.uuid, 'hex'))) ORDER BY b.id LIMIT 1");
    ret->bad_booking = pg_q_next(&q) ? pg_col_i64(&q, 0) : 0;
    e = pg_q_end(&q);
    if (e)
        return e;
    pg_q_begin(&q, c, "SELECT count(*) FROM booking WHERE state = 3 AND amount > 0");
    ret->paid = pg_q_next(&q) ? pg_col_i64(&q, 0) : 0;
    return pg_q_end(&q);
}
