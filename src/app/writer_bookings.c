/* The ledger writer's bookings: gathered, decided and told of in the groups of writer.c. */
#include "app/messages.h"
#include "app/writer.h"

#include <stdlib.h>

#include "codec/json_out.h"
#include "codec/uuid.h"

struct writer_tickets *writer_tickets_new(struct metrics *m)
{
    struct writer_tickets *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    map_str_init(&t->id_of);
    map_u64_init(&t->facts_of);
    map_u64_init(&t->event_slot_of);
    map_u64_init(&t->booking_slot_of);
    map_u64_init(&t->inbox_slot_of);
    buf_init(&t->json, STORE_MESSAGE_MAX);
    static const char *const labels[TICKET_STATES] = {
        [TICKET_HELD] = "to=\"held\"",           [TICKET_PAYING] = "to=\"paying\"",
        [TICKET_UNKNOWN] = "to=\"unknown\"",     [TICKET_CONFIRMED] = "to=\"confirmed\"",
        [TICKET_CANCELLED] = "to=\"cancelled\"", [TICKET_EXPIRED] = "to=\"expired\"",
    };
    for (int s = 0; s < TICKET_STATES; s++)
        t->by_state[s] =
            metric_counter(m, "payflow_bookings_total", "Bookings made and moved, by where to.", labels[s]);
    return t;
}

void writer_tickets_free(struct writer_tickets *t)
{
    if (!t)
        return;
    map_str_free(&t->id_of);
    map_u64_free(&t->facts_of);
    map_u64_free(&t->event_slot_of);
    map_u64_free(&t->booking_slot_of);
    map_u64_free(&t->inbox_slot_of);
    free(t->events);
    free(t->bookings);
    free(t->event_slots);
    free(t->booking_slots);
    free(t->asked);
    free(t->seen);
    free(t->created);
    free(t->outbox);
    free(t->inbox);
    free(t->delivered);
    free(t->refs);
    free(t->found_bookings);
    free(t->found_events);
    buf_free(&t->json);
    free(t);
}

#define GROW(v, cap, want) writer_grow((void **)&(v), &(cap), (want), sizeof *(v))

/* ---- looking up what never changes, before the group: whose accounts are needed? ---- */

static const struct event_facts *facts_by_id(const struct writer_tickets *t, int64_t id)
{
    uint64_t at;
    return map_u64_get(&t->facts_of, (uint64_t)id, &at) ? &t->facts[at] : NULL;
}

static const struct event_facts *facts_by_uuid(const struct writer_tickets *t, const uint8_t uuid[16])
{
    void *id = map_str_get(&t->id_of, (struct str){(const char *)uuid, 16});
    return id ? facts_by_id(t, (int64_t)(uintptr_t)id) : NULL;
}

static enum pf_err learn(struct writer_tickets *t, const struct ticket_event *e)
{
    if (facts_by_id(t, e->id))
        return PFE_OK;
    if (t->n_facts == EVENT_FACTS_MAX)
        return PFE_BUSY;
    t->facts[t->n_facts] = (struct event_facts){e->id, e->organiser, e->price > 0, e->currency};
    if (!map_str_put(&t->id_of, (struct str){(const char *)e->uuid, 16}, (void *)(uintptr_t)e->id) ||
        !map_u64_put(&t->facts_of, (uint64_t)e->id, t->n_facts))
        return PFE_NOMEM;
    t->n_facts++;
    return PFE_OK;
}

static enum pf_err learn_all(struct writer *w, size_t n)
{
    struct writer_tickets *t = w->t;
    if (n == 0)
        return PFE_OK;
    if (!GROW(t->found_events, t->cap_found_events, n))
        return PFE_NOMEM;
    enum pf_err e = store_events_get(w->a->d.store, t->refs, n, t->found_events);
    for (size_t i = 0; i < n && e == PFE_OK; i++)
        if (t->found_events[i].id)
            e = learn(t, &t->found_events[i]);
    return e;
}

/* One look-up for all bookings, and one for all events that are not known yet. */
static enum pf_err look_up(struct writer *w, struct job *list, size_t commands)
{
    struct writer_tickets *t = w->t;
    if (t->n_facts > EVENT_FACTS_MAX / 2) {
        t->n_facts = 0;
        map_str_free(&t->id_of);
        map_u64_clear(&t->facts_of);
    }
    if (!GROW(t->refs, t->cap_refs, commands) || !GROW(t->found_bookings, t->cap_found_bookings, commands))
        return PFE_NOMEM;
    size_t n = 0;
    for (struct job *j = list; j; j = j->next)
        for (size_t i = 0; i < j->n_bookings; i++) {
            struct booking *b = &j->booking[i];
            if (b->op == BOOKING_HOLD)
                continue;
            t->refs[n] = (struct store_ref){.id = b->id};
            memcpy(t->refs[n++].uuid, b->uuid, sizeof b->uuid);
        }
    enum pf_err e = n ? store_bookings_get(w->a->d.store, t->refs, n, t->found_bookings) : PFE_OK;
    if (e)
        return e;
    size_t at = 0, events = 0;
    for (struct job *j = list; j; j = j->next)
        for (size_t i = 0; i < j->n_bookings; i++) {
            struct booking *b = &j->booking[i];
            if (b->op != BOOKING_HOLD) {
                b->b = t->found_bookings[at++];
                if (b->b.id && !facts_by_id(t, b->b.event))
                    t->refs[events++] = (struct store_ref){.id = b->b.event};
            } else if (!facts_by_uuid(t, b->uuid)) {
                t->refs[events] = (struct store_ref){0};
                memcpy(t->refs[events++].uuid, b->uuid, sizeof b->uuid);
            }
        }
    return learn_all(w, events);
}

/* Clearing takes as long as the table is large: one large group must not slow all that follow. */
static void forget(struct map_u64 *m)
{
    enum { SHRINK_OVER = 4096 };
    if (m->cap > SHRINK_OVER)
        map_u64_free(m);
    else
        map_u64_clear(m);
}

void writer_tickets_begin(struct writer *w, struct job *list)
{
    struct writer_tickets *t = w->t;
    size_t commands = 0;
    t->n_events = t->n_bookings = t->n_asked = t->n_created = t->n_outbox = t->n_inbox = t->n_delivered = 0;
    forget(&t->event_slot_of);
    forget(&t->booking_slot_of);
    forget(&t->inbox_slot_of);
    for (struct job *j = list; j; j = j->next)
        commands += j->n_bookings;
    t->unknown = commands ? look_up(w, list, commands) : PFE_OK;
}

/* ---- gathering ---- */

static enum pf_err event_slot(struct writer_tickets *t, int64_t id, unsigned *ret)
{
    uint64_t v;
    if (map_u64_get(&t->event_slot_of, (uint64_t)id, &v)) {
        *ret = (unsigned)v;
        return PFE_OK;
    }
    size_t cap = t->cap_events;
    if (!GROW(t->event_slots, cap, t->n_events + 1) || !GROW(t->events, t->cap_events, t->n_events + 1) ||
        !map_u64_put(&t->event_slot_of, (uint64_t)id, t->n_events))
        return PFE_NOMEM;
    t->events[t->n_events] = id;
    *ret = (unsigned)t->n_events++;
    return PFE_OK;
}

/* b as it was looked up. In a store of this process's own that is how it still is when the group begins, for nobody
   else moves bookings: the store is not asked again. */
static enum pf_err booking_slot(struct writer_tickets *t, const struct ticket_booking *b, unsigned *ret)
{
    uint64_t v;
    if (map_u64_get(&t->booking_slot_of, (uint64_t)b->id, &v)) {
        *ret = (unsigned)v;
        return PFE_OK;
    }
    size_t cap = t->cap_bookings;
    if (!GROW(t->booking_slots, cap, t->n_bookings + 1) || !GROW(t->bookings, t->cap_bookings, t->n_bookings + 1) ||
        !map_u64_put(&t->booking_slot_of, (uint64_t)b->id, t->n_bookings))
        return PFE_NOMEM;
    t->bookings[t->n_bookings] = b->id;
    t->booking_slots[t->n_bookings] =
        (struct store_booking_slot){.b = *b, .was = b->state, .was_version = b->version, .found = true};
    *ret = (unsigned)t->n_bookings++;
    return PFE_OK;
}

static enum pf_err inbox_slot(struct writer_tickets *t, const struct booking *b, unsigned *ret)
{
    if (b->consumer.n > STORE_CONSUMER_MAX || b->message[6] >> 4 != 7)
        return PFE_INVALID;
    uint64_t k, v;
    memcpy(&k, b->message + 8, sizeof k); /* random */
    k = (k ^ str_hash(b->consumer)) >> 1;
    if (map_u64_get(&t->inbox_slot_of, k, &v)) {
        const struct store_inbox_ref *r = &t->asked[v];
        if (memcmp(r->message, b->message, sizeof r->message) != 0 || !str_eq(r->consumer, b->consumer))
            return PFE_BUSY;
        *ret = (unsigned)v;
        return PFE_OK;
    }
    size_t cap = t->cap_asked;
    if (!GROW(t->seen, cap, t->n_asked + 1) || !GROW(t->asked, t->cap_asked, t->n_asked + 1) ||
        !map_u64_put(&t->inbox_slot_of, k, t->n_asked))
        return PFE_NOMEM;
    t->asked[t->n_asked] = (struct store_inbox_ref){.consumer = b->consumer};
    memcpy(t->asked[t->n_asked].message, b->message, sizeof b->message);
    *ret = (unsigned)t->n_asked++;
    return PFE_OK;
}

enum pf_err writer_tickets_gather(struct writer *w, struct booking *b)
{
    struct writer_tickets *t = w->t;
    if (t->unknown)
        return t->unknown == PFE_NOMEM || t->unknown == PFE_BUSY ? t->unknown : PFE_UNAVAILABLE;
    bool hold = b->op == BOOKING_HOLD;
    const struct event_facts *f = hold ? facts_by_uuid(t, b->uuid) : b->b.id ? facts_by_id(t, b->b.event) : NULL;
    if (!f)
        return PFE_NOT_FOUND;
    enum pf_err e = event_slot(t, f->id, &b->event_slot);
    if (e || hold)
        return e;
    e = booking_slot(t, &b->b, &b->booking_slot);
    if (e == PFE_OK && b->b.amount > 0)
        e = writer_slot_for(w, b->b.user, f->currency, &b->payer_slot);
    if (e == PFE_OK && b->b.amount > 0)
        e = writer_slot_for(w, f->organiser, f->currency, &b->payee_slot);
    return e == PFE_OK && b->consumer.n ? inbox_slot(t, b, &b->inbox_slot) : e;
}

void writer_tickets_ask(struct writer *w, struct store_group_ask *ask, struct store_group *g)
{
    struct writer_tickets *t = w->t;
    ask->events = t->events;
    ask->n_events = t->n_events;
    ask->bookings = t->bookings;
    ask->n_bookings = store_shared(w->a->d.store) ? t->n_bookings : 0;
    ask->inbox = t->asked;
    ask->n_inbox = t->n_asked;
    g->events = t->event_slots;
    g->bookings = t->booking_slots;
    g->seen = t->seen;
}

/* ---- deciding ---- */

struct deciding { /* one command, on copies: they are taken over when all of it went well */
    struct writer *w;
    struct booking *b;
    int64_t actor;
    struct ticket_event e;
    struct ticket_booking k;
    struct str origin;
};

static enum pf_err money(struct deciding *d, enum ledger_kind kind)
{
    struct writer *w = d->w;
    struct ledger_entry hold = {.seq = d->k.hold_seq,
                                .kind = LEDGER_HOLD,
                                .debit = w->slots[d->b->payer_slot].acc.id,
                                .credit = w->slots[d->b->payee_slot].acc.id,
                                .amount = d->k.amount,
                                .currency = d->k.currency};
    struct movement m = {.kind = kind,
                         .amount = d->k.amount,
                         .currency = d->k.currency,
                         .origin = d->origin,
                         .debit_slot = d->b->payer_slot,
                         .credit_slot = d->b->payee_slot,
                         .ref_entry = kind == LEDGER_HOLD ? NULL : &hold};
    enum pf_err e = writer_decide(w, d->actor, &m);
    if (e == PFE_NOT_FOUND) /* an account's owner is gone */
        e = PFE_INSUFFICIENT_FUNDS;
    if (e == PFE_OK && kind == LEDGER_HOLD)
        d->k.hold_seq = m.entry.seq;
    if (e == PFE_OK && kind == LEDGER_CAPTURE)
        d->k.paid_seq = m.entry.seq;
    return e;
}

static bool is_refusal(enum pf_err e)
{
    int http = err_info(e)->http;
    return e != PFE_OK && http >= 400 && http < 500;
}

static enum pf_err cancel(struct deciding *d, enum ticket_reason why)
{
    bool holds = ticket_holds_money(&d->k);
    enum pf_err e = ticket_cancel(&d->e, &d->k, why, d->w->t->now_us);
    return e == PFE_OK && holds ? money(d, LEDGER_RELEASE) : e;
}

/* A step that needs money; step(d) moves and pays. What the ledger refuses costs a pending booking its tickets. */
static enum pf_err try_to(struct deciding *d, enum pf_err (*step)(struct deciding *d))
{
    const struct deciding before = *d;
    size_t entries = d->w->n_entries, resolved = d->w->n_resolved;
    d->w->n_undo = 0;
    enum pf_err e = step(d);
    if (e == PFE_OK)
        return e;
    writer_undo(d->w, entries, resolved);
    *d = before;
    if (!ticket_pending(d->k.state) || !is_refusal(e) || e == PFE_WRONG_STATE)
        return e;
    return cancel(d, e == PFE_EVENT_CANCELLED ? TICKET_EVENT_GONE : TICKET_DECLINED);
}

static enum pf_err step_confirm(struct deciding *d)
{
    bool holds = ticket_holds_money(&d->k);
    enum pf_err e = ticket_confirm(&d->e, &d->k, d->w->t->now_us);
    if (e == PFE_OK && d->k.amount > 0 && !holds)
        e = money(d, LEDGER_HOLD);
    if (e == PFE_OK && d->k.amount > 0)
        e = money(d, LEDGER_CAPTURE);
    return e;
}

static enum pf_err step_pay(struct deciding *d)
{
    enum pf_err e = ticket_pay(&d->e, &d->k, d->w->t->now_us);
    return e == PFE_OK && d->k.amount > 0 ? money(d, LEDGER_HOLD) : e;
}

static enum pf_err act(struct deciding *d)
{
    enum ticket_state s = d->k.state;
    int64_t now = d->w->t->now_us;
    switch (d->b->op) {
    case BOOKING_HOLD:
        break;
    case BOOKING_PAY:
        if (s == TICKET_PAYING || s == TICKET_UNKNOWN || s == TICKET_CONFIRMED)
            return PFE_OK;
        return try_to(d, step_pay);
    case BOOKING_DOUBT:
        return s == TICKET_UNKNOWN || s == TICKET_CONFIRMED ? PFE_OK : ticket_doubt(&d->e, &d->k, now);
    case BOOKING_SETTLE:
        if (ticket_pending(s) && d->k.amount == 0 && !ticket_mock_approves(&d->k))
            return cancel(d, TICKET_DECLINED);
        if (s == TICKET_EXPIRED && d->k.amount == 0 && !ticket_mock_approves(&d->k))
            return PFE_OK;
        /* fallthrough */
    case BOOKING_CONFIRM:
        return s == TICKET_CONFIRMED ? PFE_OK : try_to(d, step_confirm);
    case BOOKING_DECLINE:
        return s == TICKET_CANCELLED || s == TICKET_EXPIRED ? PFE_OK : cancel(d, TICKET_DECLINED);
    case BOOKING_CANCEL:
        return s == TICKET_CANCELLED ? PFE_OK : cancel(d, TICKET_BY_USER);
    case BOOKING_EXPIRE: {
        bool holds = ticket_holds_money(&d->k);
        enum pf_err e = ticket_expire(&d->e, &d->k, now);
        return e == PFE_OK && holds ? money(d, LEDGER_RELEASE) : e;
    }
    }
    return PFE_INTERNAL;
}

/* ---- telling ---- */

static void put_uuid(struct jw *j, const char *key, const uint8_t uuid[16])
{
    char text[UUID_TEXT_LEN + 1];
    struct uuid u;
    memcpy(u.b, uuid, sizeof u.b);
    uuid_format(&u, text);
    jw_kz(j, key, text);
}

static const char *message_type(enum ticket_state s)
{
    return s == TICKET_HELD ? "BookingCreated" : s == TICKET_CONFIRMED ? "BookingConfirmed" : "BookingCancelled";
}

/* Adds the message of a booking as it now is. Nothing has been taken over yet: PFE_NOMEM does no harm. */
static enum pf_err tell(struct writer *w, const struct ticket_booking *b)
{
    struct writer_tickets *t = w->t;
    struct jw j;
    const struct money_currency_info *ci = money_by_num(b->currency);
    struct uuid id = uuid_v7(t->now_us);
    struct store_message m = {.type = str_c(message_type(b->state)), .created_us = t->now_us};
    if (!GROW(t->outbox, t->cap_outbox, t->n_outbox + 1))
        return PFE_NOMEM;
    memcpy(m.uuid, id.b, sizeof m.uuid);
    memcpy(m.key, b->uuid, sizeof m.key);
    buf_clear(&t->json);
    jw_init(&j, &t->json);
    jw_obj(&j);
    jw_kint(&j, "version", 1);
    put_uuid(&j, "message_id", m.uuid);
    jw_kstr(&j, "type", m.type);
    jw_ktime(&j, "occurred_at", t->now_us);
    put_uuid(&j, "booking_id", b->uuid);
    put_uuid(&j, "event_id", b->event_uuid);
    if (b->user)
        jw_kint(&j, "user_id", b->user);
    else
        jw_kz(&j, "guest", b->guest);
    jw_kint(&j, "ticket_count", b->count);
    jw_kamount(&j, "amount", b->amount, ci ? ci->scale : 0);
    jw_kz(&j, "currency", ci ? ci->code : "");
    jw_kz(&j, "status", ticket_status_name(b->state));
    if (b->state == TICKET_HELD)
        jw_ktime(&j, "expires_at", b->expires_us);
    if (b->state == TICKET_CANCELLED || b->state == TICKET_EXPIRED)
        jw_kz(&j, "reason", b->state == TICKET_EXPIRED ? "expired" : ticket_reason_name(b->reason));
    jw_end_obj(&j);
    m.payload = t->json.failed ? STR_NONE : arena_strdup(&w->arena, buf_as_str(&t->json));
    if (!m.payload.p)
        return PFE_NOMEM;
    t->outbox[t->n_outbox] = m;
    return PFE_OK;
}

/* ---- one command ---- */

static enum pf_err decide_hold(struct writer *w, struct booking *b)
{
    struct writer_tickets *t = w->t;
    struct store_event_slot *slot = &t->event_slots[b->event_slot];
    struct ticket_event e = slot->e;
    struct uuid id = uuid_v7(t->now_us);
    struct ticket_ask ask = {.id = t->first_booking + (int64_t)t->n_created,
                             .user = b->user,
                             .guest = b->guest,
                             .count = b->count,
                             .now_us = t->now_us,
                             .hold_us = w->a->cfg.booking_hold_us};
    b->e = e;
    memcpy(ask.uuid, id.b, sizeof ask.uuid);
    if (!GROW(t->created, t->cap_created, t->n_created + 1))
        return PFE_NOMEM;
    struct ticket_booking *made = &t->created[t->n_created];
    enum pf_err err = ticket_hold(&e, &ask, made);
    if (err == PFE_OK)
        err = tell(w, made);
    if (err)
        return err;
    t->n_created++;
    t->n_outbox++;
    slot->e = b->e = e;
    slot->used = true;
    b->b = *made;
    b->moved = true;
    return PFE_OK;
}

static enum pf_err make_origin(struct writer *w, const uint8_t uuid[16], struct str *ret)
{
    enum { PREFIX = sizeof TICKET_ORIGIN - 1 };
    struct uuid u;
    char *p = arena_alloc(&w->arena, PREFIX + UUID_TEXT_LEN + 1);
    if (!p)
        return PFE_NOMEM;
    memcpy(u.b, uuid, sizeof u.b);
    memcpy(p, TICKET_ORIGIN, PREFIX);
    uuid_format(&u, p + PREFIX);
    *ret = (struct str){p, PREFIX + UUID_TEXT_LEN};
    return PFE_OK;
}

static enum pf_err decide_move(struct writer *w, int64_t actor, struct booking *b)
{
    struct writer_tickets *t = w->t;
    struct store_event_slot *es = &t->event_slots[b->event_slot];
    struct store_booking_slot *bs = &t->booking_slots[b->booking_slot];
    size_t entries = w->n_entries, resolved = w->n_resolved;
    struct deciding d = {.w = w, .b = b, .actor = actor, .e = es->e, .k = bs->b};
    b->b = bs->b;
    b->e = es->e;
    w->n_undo = 0;
    enum pf_err err = d.k.amount > 0 ? make_origin(w, d.k.uuid, &d.origin) : PFE_OK;
    if (err == PFE_OK)
        err = act(&d);
    bool moved = err == PFE_OK && d.k.version != bs->b.version;
    bool told = moved && (!ticket_pending(d.k.state));
    if (told)
        err = tell(w, &d.k);
    if (err) {
        writer_undo(w, entries, resolved);
        return err;
    }
    if (!moved)
        return PFE_OK;
    es->used |= d.e.held != es->e.held || d.e.sold != es->e.sold;
    bs->used = true;
    es->e = b->e = d.e;
    bs->b = b->b = d.k;
    b->moved = true;
    t->n_outbox += told;
    return PFE_OK;
}

static enum pf_err decide_one(struct writer *w, int64_t actor, struct booking *b)
{
    struct writer_tickets *t = w->t;
    if (!t->event_slots[b->event_slot].found)
        return PFE_NOT_FOUND;
    if (b->op == BOOKING_HOLD)
        return decide_hold(w, b);
    if (!t->booking_slots[b->booking_slot].found)
        return PFE_NOT_FOUND;
    if (b->consumer.n && t->seen[b->inbox_slot]) {
        b->duplicate = true;
        b->b = t->booking_slots[b->booking_slot].b;
        b->e = t->event_slots[b->event_slot].e;
        return PFE_OK;
    }
    if (b->consumer.n && !GROW(t->inbox, t->cap_inbox, t->n_inbox + 1))
        return PFE_NOMEM;
    enum pf_err e = decide_move(w, actor, b);
    if (b->consumer.n && (e == PFE_OK || is_refusal(e))) {
        t->seen[b->inbox_slot] = true;
        t->inbox[t->n_inbox++] = t->asked[b->inbox_slot];
    }
    return e;
}

void writer_tickets_decide(struct writer *w, struct job *j)
{
    for (size_t i = 0; i < j->n_bookings; i++) {
        struct booking *b = &j->booking[i];
        if (b->err == PFE_OK)
            b->err = decide_one(w, j->actor, b);
        j->stood |= b->err == PFE_OK && !b->moved;
        w->refused += is_refusal(b->err);
    }
    if (j->n_bookings == 1) {
        j->err = j->booking->err;
        j->refusal = is_refusal(j->err);
    }
}

enum pf_err writer_tickets_delivered(struct writer *w, const struct job *j)
{
    struct writer_tickets *t = w->t;
    if (!GROW(t->delivered, t->cap_delivered, t->n_delivered + j->n_delivered))
        return PFE_NOMEM;
    memcpy(t->delivered + t->n_delivered, j->delivered, j->n_delivered * sizeof *j->delivered);
    t->n_delivered += j->n_delivered;
    return PFE_OK;
}

/* ---- committing ---- */

bool writer_tickets_commit(struct writer *w, struct store_commit *c)
{
    const struct writer_tickets *t = w->t;
    bool any = t->n_created || t->n_outbox || t->n_inbox || t->n_delivered;
    c->events = t->event_slots;
    c->n_events = t->n_events;
    c->bookings = t->booking_slots;
    c->n_bookings = t->n_bookings;
    c->created = t->created;
    c->n_created = t->n_created;
    c->outbox = t->outbox;
    c->n_outbox = t->n_outbox;
    c->inbox = t->inbox;
    c->n_inbox = t->n_inbox;
    c->delivered = t->delivered;
    c->n_delivered = t->n_delivered;
    for (size_t i = 0; i < t->n_bookings && !any; i++) /* stock changes with bookings only */
        any = t->booking_slots[i].used;
    return any;
}

void writer_tickets_count(struct writer *w)
{
    const struct writer_tickets *t = w->t;
    if (t->n_outbox)
        app_messages_wake(w->a);
    if (t->n_created)
        metric_inc(t->by_state[TICKET_HELD], t->n_created);
    for (size_t i = 0; i < t->n_bookings; i++)
        if (t->booking_slots[i].used)
            metric_inc(t->by_state[t->booking_slots[i].b.state], 1);
}
