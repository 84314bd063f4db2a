/* Events, bookings, outbox and inbox. */
#include "store/sqlite/journal.h"
#include "store/sqlite/records.h"
#include "store/ticketing.h"

#define EVENT_COLUMNS                                                                                                  \
    "e.id, e.uuid, e.organiser, e.capacity, e.held, e.sold, e.price, e.currency, e.status, e.starts_us, e.created_us"
#define BOOKING_COLUMNS                                                                                                \
    "b.id, b.uuid, b.event, e.uuid, b.user_id, b.guest, b.tickets, b.amount, b.currency, b.state, b.reason,"           \
    " b.version, b.hold_seq, b.paid_seq, b.expires_us, b.created_us, b.updated_us"
#define BOOKINGS "booking b JOIN event e ON e.id = b.event"

static void event_read(const struct sqlite_q *q, struct ticket_event *ret)
{
    *ret = (struct ticket_event){.id = sqlite_col_i64(q, 0),
                                 .organiser = sqlite_col_i64(q, 2),
                                 .capacity = sqlite_col_i64(q, 3),
                                 .held = sqlite_col_i64(q, 4),
                                 .sold = sqlite_col_i64(q, 5),
                                 .price = sqlite_col_i64(q, 6),
                                 .currency = (money_currency)sqlite_col_i64(q, 7),
                                 .status = (enum ticket_event_status)sqlite_col_i64(q, 8),
                                 .starts_us = sqlite_col_i64(q, 9),
                                 .created_us = sqlite_col_i64(q, 10)};
    sqlite_col_blob(q, 1, ret->uuid, sizeof ret->uuid);
}

static void booking_read(const struct sqlite_q *q, struct ticket_booking *ret)
{
    *ret = (struct ticket_booking){.id = sqlite_col_i64(q, 0),
                                   .event = sqlite_col_i64(q, 2),
                                   .user = sqlite_col_i64(q, 4),
                                   .count = sqlite_col_i64(q, 6),
                                   .amount = sqlite_col_i64(q, 7),
                                   .currency = (money_currency)sqlite_col_i64(q, 8),
                                   .state = (enum ticket_state)sqlite_col_i64(q, 9),
                                   .reason = (enum ticket_reason)sqlite_col_i64(q, 10),
                                   .version = sqlite_col_i64(q, 11),
                                   .hold_seq = sqlite_col_i64(q, 12),
                                   .paid_seq = sqlite_col_i64(q, 13),
                                   .expires_us = sqlite_col_i64(q, 14),
                                   .created_us = sqlite_col_i64(q, 15),
                                   .updated_us = sqlite_col_i64(q, 16)};
    sqlite_col_blob(q, 1, ret->uuid, sizeof ret->uuid);
    sqlite_col_blob(q, 3, ret->event_uuid, sizeof ret->event_uuid);
    (void)str_copy(ret->guest, sizeof ret->guest, sqlite_col_str(q, 5));
}

static enum pf_err event_find(struct sqlite_conn *c, const struct store_ref *r, struct ticket_event *ret)
{
    struct sqlite_q q;
    if (r->id > 0) {
        sqlite_q_begin(&q, c, "SELECT " EVENT_COLUMNS " FROM event e WHERE e.id = ?1");
        sqlite_q_i64(&q, r->id);
    } else {
        sqlite_q_begin(&q, c, "SELECT " EVENT_COLUMNS " FROM event e WHERE e.uuid = ?1");
        sqlite_q_blob(&q, r->uuid, sizeof r->uuid);
    }
    *ret = (struct ticket_event){0};
    if (sqlite_q_next(&q))
        event_read(&q, ret);
    return sqlite_q_end(&q);
}

static enum pf_err booking_find(struct sqlite_conn *c, const struct store_ref *r, struct ticket_booking *ret)
{
    struct sqlite_q q;
    if (r->id > 0) {
        sqlite_q_begin(&q, c, "SELECT " BOOKING_COLUMNS " FROM " BOOKINGS " WHERE b.id = ?1");
        sqlite_q_i64(&q, r->id);
    } else {
        sqlite_q_begin(&q, c, "SELECT " BOOKING_COLUMNS " FROM " BOOKINGS " WHERE b.uuid = ?1");
        sqlite_q_blob(&q, r->uuid, sizeof r->uuid);
    }
    *ret = (struct ticket_booking){0};
    if (sqlite_q_next(&q))
        booking_read(&q, ret);
    return sqlite_q_end(&q);
}

/* ---- groups ---- */

static enum pf_err load_seen(struct sqlite_conn *w, const struct store_inbox_ref *r, bool *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w, "SELECT 1 FROM inbox WHERE message = ?1 AND consumer = ?2");
    sqlite_q_blob(&q, r->message, sizeof r->message);
    sqlite_q_str(&q, r->consumer);
    *ret = sqlite_q_next(&q);
    return sqlite_q_end(&q);
}

enum pf_err sqlite_tickets_load(struct sqlite_store *s, const struct store_group_ask *ask, struct store_group *g)
{
    enum pf_err e = PFE_OK;
    if (ask->n_events > STORE_GROUP_KEYS_MAX || ask->n_bookings > STORE_GROUP_KEYS_MAX ||
        ask->n_inbox > STORE_GROUP_KEYS_MAX)
        return PFE_INTERNAL;
    for (size_t i = 0; i < ask->n_events && e == PFE_OK; i++) {
        struct store_event_slot *x = &g->events[i];
        *x = (struct store_event_slot){0};
        e = event_find(&s->w, &(struct store_ref){.id = ask->events[i]}, &x->e);
        x->was_held = x->e.held;
        x->was_sold = x->e.sold;
        x->found = x->e.id != 0;
    }
    for (size_t i = 0; i < ask->n_bookings && e == PFE_OK; i++) {
        struct store_booking_slot *x = &g->bookings[i];
        *x = (struct store_booking_slot){0};
        e = booking_find(&s->w, &(struct store_ref){.id = ask->bookings[i]}, &x->b);
        x->was = x->b.state;
        x->was_version = x->b.version;
        x->found = x->b.id != 0;
    }
    for (size_t i = 0; i < ask->n_inbox && e == PFE_OK; i++)
        e = load_seen(&s->w, &ask->inbox[i], &g->seen[i]);
    g->first_booking = 0;
    if (e || ask->n_events == 0)
        return e;
    struct sqlite_q q;
    sqlite_q_begin(&q, &s->w, "SELECT booking FROM ticket_ids");
    if (sqlite_q_next(&q))
        g->first_booking = sqlite_col_i64(&q, 0);
    return sqlite_q_end(&q);
}

/* Runs a write that a condition of its own may keep from happening. */
static enum pf_err guarded(struct sqlite_q *q, enum pf_err none)
{
    enum pf_err e = sqlite_q_run(q);
    return e == PFE_OK && sqlite3_changes64(q->c->db) == 0 ? none : e;
}

static enum pf_err write_stock(struct sqlite_conn *w, const struct store_event_slot *x)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w,
                   "UPDATE event SET held = held + ?1, sold = sold + ?2 WHERE id = ?3 AND held + ?1 >= 0"
                   " AND sold + ?2 >= 0 AND held + ?1 + sold + ?2 <= capacity");
    sqlite_q_i64(&q, x->e.held - x->was_held);
    sqlite_q_i64(&q, x->e.sold - x->was_sold);
    sqlite_q_i64(&q, x->e.id);
    enum pf_err e = guarded(&q, PFE_SOLD_OUT);
    return e == PFE_WRONG_STATE ? PFE_SOLD_OUT : e; /* the table's own constraint */
}

static enum pf_err write_move(struct sqlite_conn *w, const struct store_booking_slot *x)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w,
                   "UPDATE booking SET state = ?1, reason = ?2, version = ?3, hold_seq = ?4, paid_seq = ?5,"
                   " updated_us = ?6 WHERE id = ?7 AND state = ?8 AND version = ?9");
    sqlite_q_i64(&q, x->b.state);
    sqlite_q_i64(&q, x->b.reason);
    sqlite_q_i64(&q, x->b.version);
    sqlite_q_i64(&q, x->b.hold_seq);
    sqlite_q_i64(&q, x->b.paid_seq);
    sqlite_q_i64(&q, x->b.updated_us);
    sqlite_q_i64(&q, x->b.id);
    sqlite_q_i64(&q, x->was);
    sqlite_q_i64(&q, x->was_version);
    return guarded(&q, PFE_WRONG_STATE);
}

static enum pf_err write_booking(struct sqlite_conn *w, const struct ticket_booking *b)
{
    struct sqlite_q q;
    struct str guest = str_c(b->guest);
    sqlite_q_begin(&q, w,
                   "INSERT INTO booking (id, uuid, event, buyer, user_id, guest, tickets, amount, currency, state,"
                   " reason, version, hold_seq, paid_seq, expires_us, created_us, updated_us) VALUES"
                   " (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)");
    sqlite_q_i64(&q, b->id);
    sqlite_q_blob(&q, b->uuid, sizeof b->uuid);
    sqlite_q_i64(&q, b->event);
    sqlite_q_i64(&q, ticket_buyer(b->user, guest));
    sqlite_q_i64(&q, b->user);
    sqlite_q_str(&q, guest);
    sqlite_q_i64(&q, b->count);
    sqlite_q_i64(&q, b->amount);
    sqlite_q_i64(&q, b->currency);
    sqlite_q_i64(&q, b->state);
    sqlite_q_i64(&q, b->reason);
    sqlite_q_i64(&q, b->version);
    sqlite_q_i64(&q, b->hold_seq);
    sqlite_q_i64(&q, b->paid_seq);
    sqlite_q_i64(&q, b->expires_us);
    sqlite_q_i64(&q, b->created_us);
    sqlite_q_i64(&q, b->updated_us);
    return sqlite_q_run(&q);
}

static enum pf_err write_message(struct sqlite_conn *w, const struct store_message *m, int64_t id)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w,
                   "INSERT INTO outbox (id, uuid, type, key, payload, created_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
    sqlite_q_i64(&q, id);
    sqlite_q_blob(&q, m->uuid, sizeof m->uuid);
    sqlite_q_str(&q, m->type);
    sqlite_q_blob(&q, m->key, sizeof m->key);
    sqlite_q_str(&q, m->payload);
    sqlite_q_i64(&q, m->created_us);
    return sqlite_q_run(&q);
}

static enum pf_err write_inbox(struct sqlite_conn *w, const struct store_inbox_ref *r)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, w, "INSERT INTO inbox (message, consumer) VALUES (?1, ?2)");
    sqlite_q_blob(&q, r->message, sizeof r->message);
    sqlite_q_str(&q, r->consumer);
    enum pf_err e = sqlite_q_run(&q);
    return e == PFE_WRONG_STATE ? PFE_IN_FLIGHT : e;
}

/* By number alone, as none is ever given out twice here. Those that follow one another go in one statement: most of
   what is delivered at once was written at once. */
static enum pf_err write_delivered(struct sqlite_conn *w, const struct store_outbox_ref *m, size_t n)
{
    enum pf_err e = PFE_OK;
    for (size_t i = 0, run; i < n && e == PFE_OK; i += run) {
        struct sqlite_q q;
        for (run = 1; i + run < n && m[i + run].id == m[i].id + (int64_t)run;)
            run++;
        sqlite_q_begin(&q, w, "DELETE FROM outbox WHERE id BETWEEN ?1 AND ?2");
        sqlite_q_i64(&q, m[i].id);
        sqlite_q_i64(&q, m[i + run - 1].id);
        e = sqlite_q_run(&q);
    }
    return e;
}

/* The numbers of what is created: read and moved on in one go. */
static enum pf_err take_ids(struct sqlite_conn *w, const struct store_commit *c, int64_t *ret_outbox)
{
    struct sqlite_q q;
    int64_t booking = 0, outbox = 0;
    sqlite_q_begin(&q, w,
                   "UPDATE ticket_ids SET booking = booking + ?1, outbox = outbox + ?2 RETURNING booking, outbox");
    sqlite_q_i64(&q, (int64_t)c->n_created);
    sqlite_q_i64(&q, (int64_t)c->n_outbox);
    if (sqlite_q_next(&q)) {
        booking = sqlite_col_i64(&q, 0);
        outbox = sqlite_col_i64(&q, 1);
    }
    enum pf_err e = sqlite_q_run(&q);
    if (e == PFE_OK && c->n_created && c->created[0].id != booking - (int64_t)c->n_created)
        e = PFE_INTERNAL;
    *ret_outbox = outbox - (int64_t)c->n_outbox;
    return e;
}

enum pf_err sqlite_tickets_write(struct sqlite_store *s, const struct store_commit *c)
{
    int64_t outbox = 0;
    enum pf_err e = c->n_created || c->n_outbox ? take_ids(&s->w, c, &outbox) : PFE_OK;
    for (size_t i = 0; i < c->n_events && e == PFE_OK; i++)
        if (c->events[i].used)
            e = write_stock(&s->w, &c->events[i]);
    for (size_t i = 0; i < c->n_bookings && e == PFE_OK; i++)
        if (c->bookings[i].used)
            e = write_move(&s->w, &c->bookings[i]);
    for (size_t i = 0; i < c->n_created && e == PFE_OK; i++)
        e = c->created[i].id == c->created[0].id + (int64_t)i ? write_booking(&s->w, &c->created[i]) : PFE_INTERNAL;
    for (size_t i = 0; i < c->n_outbox && e == PFE_OK; i++)
        e = write_message(&s->w, &c->outbox[i], outbox + (int64_t)i);
    for (size_t i = 0; i < c->n_inbox && e == PFE_OK; i++)
        e = write_inbox(&s->w, &c->inbox[i]);
    return e ? e : write_delivered(&s->w, c->delivered, c->n_delivered);
}

/* ---- records ---- */

enum pf_err sqlite_event_insert(struct store_tx *tx, struct ticket_event *e)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx),
                   "INSERT INTO event (uuid, organiser, capacity, held, sold, price, currency, status, starts_us,"
                   " created_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
    sqlite_q_blob(&q, e->uuid, sizeof e->uuid);
    sqlite_q_i64(&q, e->organiser);
    sqlite_q_i64(&q, e->capacity);
    sqlite_q_i64(&q, e->held);
    sqlite_q_i64(&q, e->sold);
    sqlite_q_i64(&q, e->price);
    sqlite_q_i64(&q, e->currency);
    sqlite_q_i64(&q, e->status);
    sqlite_q_i64(&q, e->starts_us);
    sqlite_q_i64(&q, e->created_us);
    return sqlite_rec_inserted(&q, &e->id);
}

enum pf_err sqlite_event_status(struct store_tx *tx, int64_t id, enum ticket_event_status status)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx), "UPDATE event SET status = ?1 WHERE id = ?2");
    sqlite_q_i64(&q, status);
    sqlite_q_i64(&q, id);
    return sqlite_rec_hit(&q, PFE_NOT_FOUND);
}

enum pf_err sqlite_inbox_purge(struct store_tx *tx, int64_t before_us, int64_t *ret_n)
{
    struct sqlite_q q;
    uint8_t floor[16];
    ticket_uuid_floor(before_us, floor);
    sqlite_q_begin(&q, sqlite_rec_conn(tx), "DELETE FROM inbox WHERE message < ?1");
    sqlite_q_blob(&q, floor, sizeof floor);
    enum pf_err e = sqlite_rec_run(&q);
    if (e == PFE_OK && ret_n)
        *ret_n = sqlite3_changes64(q.c->db);
    return e;
}

/* ---- reads ---- */

/* Several look-ups share a transaction, for to begin and to end one takes as long as a look-up. */
static enum pf_err reads_begin(struct sqlite_conn *c, size_t n)
{
    return n > 1 ? sqlite_exec(c, sqlite_begin) : PFE_OK;
}

static enum pf_err reads_end(struct sqlite_conn *c, size_t n, enum pf_err e)
{
    enum pf_err end = n > 1 ? sqlite_exec(c, sqlite_commit) : PFE_OK;
    return e ? e : end;
}

enum pf_err sqlite_events_get(struct store *s, const struct store_ref *refs, size_t n, struct ticket_event *out)
{
    struct sqlite_conn *c = sqlite_reader(sqlite_of(s));
    enum pf_err e = reads_begin(c, n);
    if (e)
        return e;
    for (size_t i = 0; i < n && e == PFE_OK; i++)
        e = event_find(c, &refs[i], &out[i]);
    return reads_end(c, n, e);
}

enum pf_err sqlite_bookings_get(struct store *s, const struct store_ref *refs, size_t n, struct ticket_booking *out)
{
    struct sqlite_conn *c = sqlite_reader(sqlite_of(s));
    enum pf_err e = reads_begin(c, n);
    if (e)
        return e;
    for (size_t i = 0; i < n && e == PFE_OK; i++)
        e = booking_find(c, &refs[i], &out[i]);
    return reads_end(c, n, e);
}

/* Adds a buyer's bookings of one block, the newest first. *skip: how many of them are not wanted. */
static enum pf_err list_block(struct sqlite_conn *c, int64_t block, const struct store_booking_query *b, int64_t *skip,
                              struct ticket_booking *out, unsigned *n)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c,
                   "SELECT " BOOKING_COLUMNS " FROM " BOOKINGS
                   " WHERE b.id >> 12 = ?1 AND b.buyer = ?2 AND b.guest = ?3"
                   " AND b.id < ?4 ORDER BY b.id DESC LIMIT ?5");
    sqlite_q_i64(&q, block);
    sqlite_q_i64(&q, ticket_buyer(b->user, b->guest));
    sqlite_q_str(&q, b->user > 0 ? STR("") : b->guest);
    sqlite_q_i64(&q, sqlite_rec_before(b->before_id));
    sqlite_q_i64(&q, *skip + b->limit - *n);
    while (sqlite_q_next(&q)) {
        if (*skip > 0)
            --*skip;
        else
            booking_read(&q, &out[(*n)++]);
    }
    return sqlite_q_end(&q);
}

enum pf_err sqlite_booking_list(struct store *s, const struct store_booking_query *b, struct ticket_booking *out,
                                unsigned *ret_n)
{
    struct sqlite_conn *c = sqlite_reader(sqlite_of(s));
    struct sqlite_q q;
    unsigned n = 0;
    int64_t newest = 0, skip = b->offset;
    enum pf_err e = sqlite_exec(c, sqlite_begin);
    if (e)
        return e;
    sqlite_q_begin(&q, c, "SELECT id FROM booking WHERE id < ?1 ORDER BY id DESC LIMIT 1");
    sqlite_q_i64(&q, sqlite_rec_before(b->before_id));
    if (sqlite_q_next(&q))
        newest = sqlite_col_i64(&q, 0);
    e = sqlite_q_end(&q);
    for (int64_t block = newest >> 12; e == PFE_OK && block >= 0 && n < b->limit; block--)
        e = list_block(c, block, b, &skip, out, &n);
    e = reads_end(c, 2, e);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err sqlite_bookings_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_ids, unsigned *ret_n)
{
    struct sqlite_q q;
    unsigned n = 0;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT id FROM booking WHERE state <= 2 AND expires_us <= ?1 ORDER BY expires_us, id LIMIT ?2");
    sqlite_q_i64(&q, now_us);
    sqlite_q_i64(&q, limit);
    while (sqlite_q_next(&q))
        out_ids[n++] = sqlite_col_i64(&q, 0);
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

enum pf_err sqlite_outbox_list(struct store *s, struct arena *a, int64_t after_id, unsigned limit,
                               struct store_message *out, unsigned *ret_n)
{
    struct sqlite_q q;
    unsigned n = 0;
    sqlite_q_begin(&q, sqlite_reader(sqlite_of(s)),
                   "SELECT id, uuid, type, key, payload, created_us FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?2");
    sqlite_q_i64(&q, after_id);
    sqlite_q_i64(&q, limit);
    while (sqlite_q_next(&q)) {
        struct store_message *m = &out[n];
        *m = (struct store_message){.id = sqlite_col_i64(&q, 0), .created_us = sqlite_col_i64(&q, 5)};
        sqlite_col_blob(&q, 1, m->uuid, sizeof m->uuid);
        sqlite_col_blob(&q, 3, m->key, sizeof m->key);
        if (!sqlite_col_dup(&q, 2, a, &m->type) || !sqlite_col_dup(&q, 4, a, &m->payload))
            break;
        n++;
    }
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- verify ---- */

enum pf_err sqlite_tickets_judge(struct proof *p, struct sqlite_conn *c, int64_t *ret_paid)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c,
                   "SELECT e.id FROM event e LEFT JOIN (SELECT event, sum(iif(state <= 2, tickets, 0)) AS held,"
                   " sum(iif(state = 3, tickets, 0)) AS sold FROM booking GROUP BY event) b ON b.event = e.id"
                   " WHERE e.held <> ifnull(b.held, 0) OR e.sold <> ifnull(b.sold, 0) OR e.held + e.sold > e.capacity"
                   " ORDER BY e.id LIMIT 1");
    if (sqlite_q_next(&q))
        proof_fault(p, 0, PROOF_STOCK, (long long)sqlite_col_i64(&q, 0));
    enum pf_err e = sqlite_q_end(&q);
    if (e)
        return e;
    sqlite_q_begin(
        &q, c,
        "SELECT b.id FROM booking b LEFT JOIN event e ON e.id = b.event LEFT JOIN open_hold h ON h.seq = b.hold_seq"
        " LEFT JOIN journal j ON j.seq = b.paid_seq WHERE e.id IS NULL"
        " OR (b.state IN (1, 2) AND b.amount > 0) <> (h.seq IS NOT NULL)"
        " OR (b.state = 3 AND b.amount > 0 AND NOT (j.kind IS 6 AND j.amount IS b.amount AND j.ref IS b.hold_seq"
        " AND j.origin IS '" TICKET_ORIGIN "' || lower(printf('%s-%s-%s-%s-%s', hex(substr(b.uuid, 1, 4)),"
        " hex(substr(b.uuid, 5, 2)), hex(substr(b.uuid, 7, 2)), hex(substr(b.uuid, 9, 2)),"
        " hex(substr(b.uuid, 11)))))) ORDER BY b.id LIMIT 1");
    if (sqlite_q_next(&q))
        proof_fault(p, 0, PROOF_BOOKING, (long long)sqlite_col_i64(&q, 0));
    e = sqlite_q_end(&q);
    if (e)
        return e;
    sqlite_q_begin(&q, c, "SELECT count(*) FROM booking WHERE state = 3 AND amount > 0");
    if (sqlite_q_next(&q))
        *ret_paid = sqlite_col_i64(&q, 0);
    return sqlite_q_end(&q);
}
