#include <stdlib.h>

#include "codec/uuid.h"
#include "store/memory/records.h"
#include "store/ticketing.h"

/* Under memory_store.lock. Events are rows of REC_EVENT; a group changes their stock in place. */
struct memory_tickets {
    struct ticket_booking *bookings; /* id i + 1 */
    size_t n_bookings, cap_bookings;
    struct map_str by_uuid;       /* -> id */
    struct store_message *outbox; /* by id; a message's strings are one heap block at .type.p */
    size_t n_outbox, cap_outbox;
    int64_t next_outbox;
    struct map_str inbox; /* message and consumer -> itself */
};

struct memory_tickets *memory_tickets_new(void)
{
    struct memory_tickets *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->next_outbox = 1;
    map_str_init(&t->by_uuid);
    map_str_init(&t->inbox);
    return t;
}

void memory_tickets_free(struct memory_tickets *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_outbox; i++)
        free((char *)t->outbox[i].type.p);
    free(t->outbox);
    free(t->bookings);
    map_str_free(&t->by_uuid);
    map_str_free(&t->inbox);
    free(t);
}

static struct str uuid_key(const uint8_t uuid[16])
{
    return (struct str){(const char *)uuid, 16};
}

struct inbox_key {
    char b[16 + STORE_CONSUMER_MAX];
    struct str s;
};

static void inbox_key(const struct store_inbox_ref *r, struct inbox_key *k)
{
    size_t n = r->consumer.n < STORE_CONSUMER_MAX ? r->consumer.n : STORE_CONSUMER_MAX;
    memcpy(k->b, r->message, 16);
    if (n)
        memcpy(k->b + 16, r->consumer.p, n);
    k->s = (struct str){k->b, 16 + n};
}

static struct ticket_event *event_row(const struct memory_store *s, int64_t id)
{
    const struct rec_rows *rows = memory_rec_rows(s, REC_EVENT);
    return id >= 1 && (uint64_t)id <= rows->n ? rows->v[id - 1] : NULL;
}

static struct ticket_booking *booking_row(const struct memory_store *s, int64_t id)
{
    const struct memory_tickets *t = s->tickets;
    return id >= 1 && (uint64_t)id <= t->n_bookings ? &t->bookings[id - 1] : NULL;
}

/* ---- groups ---- */

enum pf_err memory_tickets_load(struct memory_store *s, const struct store_group_ask *ask, struct store_group *g)
{
    if (ask->n_events > STORE_GROUP_KEYS_MAX || ask->n_bookings > STORE_GROUP_KEYS_MAX ||
        ask->n_inbox > STORE_GROUP_KEYS_MAX)
        return PFE_INTERNAL;
    for (size_t i = 0; i < ask->n_events; i++) {
        const struct ticket_event *e = event_row(s, ask->events[i]);
        g->events[i] = (struct store_event_slot){.found = e != NULL};
        if (e)
            g->events[i] = (struct store_event_slot){.e = *e, .was_held = e->held, .was_sold = e->sold, .found = true};
    }
    for (size_t i = 0; i < ask->n_bookings; i++) {
        const struct ticket_booking *b = booking_row(s, ask->bookings[i]);
        g->bookings[i] = (struct store_booking_slot){.found = b != NULL};
        if (b)
            g->bookings[i] =
                (struct store_booking_slot){.b = *b, .was = b->state, .was_version = b->version, .found = true};
    }
    for (size_t i = 0; i < ask->n_inbox; i++) {
        struct inbox_key k;
        inbox_key(&ask->inbox[i], &k);
        g->seen[i] = map_str_get(&s->tickets->inbox, k.s) != NULL;
    }
    g->first_booking = (int64_t)s->tickets->n_bookings + 1;
    return PFE_OK;
}

static enum pf_err guard(const struct memory_store *s, const struct store_commit *c)
{
    for (size_t i = 0; i < c->n_events; i++) {
        const struct store_event_slot *x = &c->events[i];
        if (!x->used)
            continue;
        const struct ticket_event *row = event_row(s, x->e.id);
        int64_t held = row ? row->held + (x->e.held - x->was_held) : -1;
        int64_t sold = row ? row->sold + (x->e.sold - x->was_sold) : -1;
        if (held < 0 || sold < 0 || held + sold > row->capacity)
            return PFE_SOLD_OUT;
    }
    for (size_t i = 0; i < c->n_bookings; i++) {
        const struct store_booking_slot *x = &c->bookings[i];
        const struct ticket_booking *row = x->used ? booking_row(s, x->b.id) : NULL;
        if (x->used && (!row || row->state != x->was || row->version != x->was_version))
            return PFE_WRONG_STATE;
    }
    for (size_t i = 0; i < c->n_created; i++)
        if (c->created[i].id != (int64_t)(s->tickets->n_bookings + i) + 1)
            return PFE_INTERNAL;
    return PFE_OK;
}

static bool grow(void **v, size_t *cap, size_t want, size_t size)
{
    if (want <= *cap)
        return true;
    size_t n = *cap ? *cap : 64;
    while (n < want)
        n *= 2;
    void *p = realloc(*v, n * size);
    if (!p)
        return false;
    *v = p;
    *cap = n;
    return true;
}

static bool copy_message(struct store_message *to, const struct store_message *from, int64_t id)
{
    char *text = malloc(from->type.n + from->payload.n + 1);
    if (!text)
        return false;
    if (from->type.n)
        memcpy(text, from->type.p, from->type.n);
    if (from->payload.n)
        memcpy(text + from->type.n, from->payload.p, from->payload.n);
    *to = *from;
    to->id = id;
    to->type.p = text;
    to->payload.p = text + from->type.n;
    return true;
}

struct progress { /* how far a commit got, so that it can be taken back */
    size_t created, outbox, inbox;
};

static enum pf_err append(struct memory_store *s, const struct store_commit *c, struct progress *p)
{
    struct memory_tickets *t = s->tickets;
    if (!grow((void **)&t->bookings, &t->cap_bookings, t->n_bookings + c->n_created, sizeof *t->bookings) ||
        !grow((void **)&t->outbox, &t->cap_outbox, t->n_outbox + c->n_outbox, sizeof *t->outbox))
        return PFE_NOMEM;
    for (; p->created < c->n_created; p->created++) {
        const struct ticket_booking *b = &c->created[p->created];
        if (map_str_get(&t->by_uuid, uuid_key(b->uuid)))
            return PFE_WRONG_STATE;
        if (!map_str_put(&t->by_uuid, uuid_key(b->uuid), (void *)(uintptr_t)b->id))
            return PFE_NOMEM;
    }
    for (; p->outbox < c->n_outbox; p->outbox++)
        if (!copy_message(&t->outbox[t->n_outbox + p->outbox], &c->outbox[p->outbox],
                          t->next_outbox + (int64_t)p->outbox))
            return PFE_NOMEM;
    for (; p->inbox < c->n_inbox; p->inbox++) {
        struct inbox_key k;
        inbox_key(&c->inbox[p->inbox], &k);
        if (map_str_get(&t->inbox, k.s))
            return PFE_IN_FLIGHT;
        if (!map_str_put(&t->inbox, k.s, t))
            return PFE_NOMEM;
    }
    return PFE_OK;
}

static void take_back(struct memory_store *s, const struct store_commit *c, const struct progress *p)
{
    struct memory_tickets *t = s->tickets;
    for (size_t i = 0; i < p->created; i++)
        map_str_del(&t->by_uuid, uuid_key(c->created[i].uuid));
    for (size_t i = 0; i < p->outbox; i++)
        free((char *)t->outbox[t->n_outbox + i].type.p);
    for (size_t i = 0; i < p->inbox; i++) {
        struct inbox_key k;
        inbox_key(&c->inbox[i], &k);
        map_str_del(&t->inbox, k.s);
    }
}

static void drop_message(struct memory_tickets *t, const struct store_outbox_ref *m)
{
    size_t k = 0;
    while (k < t->n_outbox && t->outbox[k].id != m->id)
        k++;
    if (k == t->n_outbox || memcmp(t->outbox[k].uuid, m->uuid, sizeof m->uuid) != 0)
        return;
    free((char *)t->outbox[k].type.p);
    memmove(&t->outbox[k], &t->outbox[k + 1], (t->n_outbox - k - 1) * sizeof *t->outbox);
    t->n_outbox--;
}

enum pf_err memory_tickets_commit(struct memory_store *s, const struct store_commit *c)
{
    struct memory_tickets *t = s->tickets;
    struct progress p = {0};
    enum pf_err e = guard(s, c);
    if (e == PFE_OK)
        e = append(s, c, &p);
    if (e) {
        take_back(s, c, &p);
        return e;
    }
    for (size_t i = 0; i < c->n_events; i++) {
        const struct store_event_slot *x = &c->events[i];
        struct ticket_event *row = x->used ? event_row(s, x->e.id) : NULL;
        if (row) {
            row->held += x->e.held - x->was_held;
            row->sold += x->e.sold - x->was_sold;
        }
    }
    for (size_t i = 0; i < c->n_bookings; i++)
        if (c->bookings[i].used)
            *booking_row(s, c->bookings[i].b.id) = c->bookings[i].b;
    if (c->n_created)
        memcpy(t->bookings + t->n_bookings, c->created, c->n_created * sizeof *c->created);
    t->n_bookings += c->n_created;
    t->n_outbox += c->n_outbox;
    t->next_outbox += (int64_t)c->n_outbox;
    for (size_t i = 0; i < c->n_delivered; i++)
        drop_message(t, &c->delivered[i]);
    return PFE_OK;
}

/* ---- records ---- */

enum pf_err memory_event_insert(struct store_tx *tx, struct ticket_event *e)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_EVENT);
    if (!rows)
        return PFE_NOMEM;
    for (size_t i = 0; i < rows->n; i++)
        if (memcmp(((const struct ticket_event *)rows->v[i])->uuid, e->uuid, sizeof e->uuid) == 0)
            return PFE_WRONG_STATE;
    struct ticket_event row = *e;
    row.id = (int64_t)rows->n + 1;
    enum pf_err err = memory_rec_add(tx, REC_EVENT, &row);
    if (err == PFE_OK)
        e->id = row.id;
    return err;
}

enum pf_err memory_event_status(struct store_tx *tx, int64_t id, enum ticket_event_status status)
{
    const struct rec_rows *rows = memory_rec_open(tx, REC_EVENT);
    const struct ticket_event *old = rows ? memory_rec_by_id(rows, id) : NULL;
    if (!old)
        return rows ? PFE_NOT_FOUND : PFE_NOMEM;
    struct ticket_event row = *old;
    row.status = status;
    return memory_rec_replace(tx, REC_EVENT, (size_t)id - 1, &row);
}

enum pf_err memory_inbox_purge(struct store_tx *tx, int64_t before_us, int64_t *ret_n)
{
    uint8_t floor[16];
    ticket_uuid_floor(before_us, floor);
    if (!memory_rec_open(tx, REC_FORGET))
        return PFE_NOMEM;
    enum pf_err e = memory_rec_add(tx, REC_FORGET, &before_us);
    if (e || !ret_n)
        return e;
    size_t pos = 0;
    struct str key;
    void *v;
    *ret_n = 0;
    while (map_str_next(&memory_of(tx->store)->tickets->inbox, &pos, &key, &v))
        *ret_n += memcmp(key.p, floor, sizeof floor) < 0;
    return PFE_OK;
}

static bool forget_one(struct memory_tickets *t, const uint8_t floor[16])
{
    size_t pos = 0;
    struct str key;
    void *v;
    while (map_str_next(&t->inbox, &pos, &key, &v))
        if (memcmp(key.p, floor, 16) < 0) {
            map_str_del(&t->inbox, key);
            return true;
        }
    return false;
}

void memory_tickets_publish(struct memory_store *s, const struct rec_rows *forget)
{
    struct memory_tickets *t = s->tickets;
    for (size_t i = 0; i < forget->n; i++) {
        uint8_t floor[16];
        ticket_uuid_floor(*(const int64_t *)forget->v[i], floor);
        while (forget_one(t, floor))
            continue;
    }
}

/* ---- reads ---- */

enum pf_err memory_events_get(struct store *st, const struct store_ref *refs, size_t n, struct ticket_event *out)
{
    struct memory_store *s = memory_of(st);
    const struct rec_rows *rows = memory_rec_read(st, REC_EVENT);
    for (size_t i = 0; i < n; i++) {
        const struct ticket_event *row = refs[i].id > 0 ? event_row(s, refs[i].id) : NULL;
        for (size_t k = 0; refs[i].id <= 0 && !row && k < rows->n; k++)
            if (memcmp(((const struct ticket_event *)rows->v[k])->uuid, refs[i].uuid, 16) == 0)
                row = rows->v[k];
        out[i] = row ? *row : (struct ticket_event){0};
    }
    memory_rec_read_end(st);
    return PFE_OK;
}

enum pf_err memory_bookings_get(struct store *st, const struct store_ref *refs, size_t n, struct ticket_booking *out)
{
    struct memory_store *s = memory_of(st);
    pthread_rwlock_rdlock(&s->lock);
    for (size_t i = 0; i < n; i++) {
        int64_t id =
            refs[i].id > 0 ? refs[i].id : (int64_t)(uintptr_t)map_str_get(&s->tickets->by_uuid, uuid_key(refs[i].uuid));
        const struct ticket_booking *row = booking_row(s, id);
        out[i] = row ? *row : (struct ticket_booking){0};
    }
    pthread_rwlock_unlock(&s->lock);
    return PFE_OK;
}

enum pf_err memory_booking_list(struct store *st, const struct store_booking_query *q, struct ticket_booking *out,
                                unsigned *ret_n)
{
    struct memory_store *s = memory_of(st);
    struct memory_tickets *t = s->tickets;
    int64_t skip = q->offset;
    unsigned n = 0;
    pthread_rwlock_rdlock(&s->lock);
    for (size_t i = t->n_bookings; i > 0 && n < q->limit; i--) {
        const struct ticket_booking *b = &t->bookings[i - 1];
        bool mine = q->user > 0 ? b->user == q->user : b->user == 0 && str_is(q->guest, b->guest);
        if (mine && (q->before_id == 0 || b->id < q->before_id) && skip-- <= 0)
            out[n++] = *b;
    }
    pthread_rwlock_unlock(&s->lock);
    *ret_n = n;
    return PFE_OK;
}

enum pf_err memory_bookings_due(struct store *st, int64_t now_us, unsigned limit, int64_t *out_ids, unsigned *ret_n)
{
    struct memory_store *s = memory_of(st);
    struct memory_tickets *t = s->tickets;
    unsigned n = 0;
    pthread_rwlock_rdlock(&s->lock);
    for (;;) { /* earliest first: the next one after the last found */
        const struct ticket_booking *next = NULL, *last = n ? &t->bookings[out_ids[n - 1] - 1] : NULL;
        for (size_t i = 0; i < t->n_bookings && n < limit; i++) {
            const struct ticket_booking *b = &t->bookings[i];
            bool after =
                !last || b->expires_us > last->expires_us || (b->expires_us == last->expires_us && b->id > last->id);
            if (ticket_pending(b->state) && b->expires_us <= now_us && after &&
                (!next || b->expires_us < next->expires_us))
                next = b;
        }
        if (!next)
            break;
        out_ids[n++] = next->id;
    }
    pthread_rwlock_unlock(&s->lock);
    *ret_n = n;
    return PFE_OK;
}

enum pf_err memory_outbox_list(struct store *st, struct arena *a, int64_t after_id, unsigned limit,
                               struct store_message *out, unsigned *ret_n)
{
    struct memory_store *s = memory_of(st);
    struct memory_tickets *t = s->tickets;
    enum pf_err e = PFE_OK;
    unsigned n = 0;
    pthread_rwlock_rdlock(&s->lock);
    for (size_t i = 0; i < t->n_outbox && n < limit && e == PFE_OK; i++) {
        if (t->outbox[i].id <= after_id)
            continue;
        struct store_message *m = &out[n++];
        *m = t->outbox[i];
        m->type = arena_strdup(a, m->type);
        m->payload = arena_strdup(a, m->payload);
        e = m->type.p && m->payload.p ? PFE_OK : PFE_NOMEM;
    }
    pthread_rwlock_unlock(&s->lock);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

/* ---- verify ---- */

static const struct ledger_entry *entry_of(const struct memory_store *s, int64_t seq)
{
    return seq >= 1 && (size_t)seq <= s->n_journal ? &s->journal[seq - 1] : NULL;
}

static bool open_hold(const struct memory_store *s, int64_t seq)
{
    uint64_t by;
    const struct ledger_entry *e = entry_of(s, seq);
    return e && e->kind == LEDGER_HOLD && !map_u64_get(&s->resolved, (uint64_t)seq, &by);
}

static bool paid(const struct memory_store *s, const struct ticket_booking *b)
{
    char origin[sizeof TICKET_ORIGIN + UUID_TEXT_LEN] = TICKET_ORIGIN;
    const struct ledger_entry *e = entry_of(s, b->paid_seq);
    struct uuid id;
    memcpy(id.b, b->uuid, sizeof id.b);
    uuid_format(&id, origin + sizeof TICKET_ORIGIN - 1);
    return e && e->kind == LEDGER_CAPTURE && e->amount == b->amount && e->ref == b->hold_seq &&
           str_is(e->origin, origin);
}

void memory_tickets_judge(const struct memory_store *s, struct proof *p, int64_t *ret_paid)
{
    const struct memory_tickets *t = s->tickets;
    const struct rec_rows *events = memory_rec_rows(s, REC_EVENT);
    for (size_t i = 0; i < events->n; i++) {
        const struct ticket_event *e = events->v[i];
        int64_t held = 0, sold = 0;
        for (size_t k = 0; k < t->n_bookings; k++) {
            const struct ticket_booking *b = &t->bookings[k];
            held += b->event == e->id && ticket_pending(b->state) ? b->count : 0;
            sold += b->event == e->id && b->state == TICKET_CONFIRMED ? b->count : 0;
        }
        if (held != e->held || sold != e->sold || held + sold > e->capacity)
            proof_fault(p, 0, PROOF_STOCK, (long long)e->id);
    }
    for (size_t k = 0; k < t->n_bookings; k++) {
        const struct ticket_booking *b = &t->bookings[k];
        bool costs = b->state == TICKET_CONFIRMED && b->amount > 0;
        *ret_paid += costs;
        if (!event_row(s, b->event) || (costs && !paid(s, b)) ||
            ticket_holds_money(b) != (b->hold_seq && open_hold(s, b->hold_seq)))
            proof_fault(p, 0, PROOF_BOOKING, (long long)b->id);
    }
}
