/* The ticketing part of the store contract, each case on each engine: what was decided is written whole or not at all,
 * and the store's own conditions refuse what should not have been decided. */
#include "contract/store_kit.h"

#include <stdio.h>
#include <stdlib.h>

#include "codec/uuid.h"
#include "store/postgres/postgres.h"
#include "support/pg_cluster.h"

enum { HOLD_US = 600 * 1000000 };

static void new_uuid(struct kit *k, uint8_t out[16])
{
    struct uuid id = uuid_v7(k->now);
    memcpy(out, id.b, 16);
}

static struct ticket_event new_event(struct kit *k, int64_t capacity, int64_t price)
{
    struct ticket_event e = {
        .capacity = capacity, .price = price, .currency = KIT_USD, .starts_us = k->now + 1, .created_us = k->now};
    struct store_tx *tx;
    new_uuid(k, e.uuid);
    assert_int_equal(store_tx_begin(k->s, &tx), PFE_OK);
    assert_int_equal(store_event_insert(tx, &e), PFE_OK);
    assert_int_equal(store_tx_commit(tx), PFE_OK);
    return e;
}

static struct ticket_event event_now(struct kit *k, int64_t id)
{
    struct ticket_event e;
    assert_int_equal(store_event_get(k->s, &(struct store_ref){.id = id}, &e), PFE_OK);
    return e;
}

static struct ticket_booking booking_now(struct kit *k, int64_t id)
{
    struct ticket_booking b;
    assert_int_equal(store_booking_get(k->s, &(struct store_ref){.id = id}, &b), PFE_OK);
    return b;
}

/* A group over one event, some of its bookings and one message; the test changes what it likes before commit_it. */
enum { MANY = 300 };
struct tickets {
    struct kit *k;
    int64_t event_id, booking_id[MANY];
    struct store_event_slot event;
    struct store_booking_slot booking[MANY];
    struct ticket_booking created[MANY];
    struct store_message out[MANY];
    struct store_outbox_ref gone[MANY];
    struct store_inbox_ref in[2];
    bool seen[2];
    struct store_group_ask ask;
    struct store_group g;
    struct store_commit c;
};

static struct tickets *begin(struct kit *k, int64_t event, const int64_t *bookings, size_t n,
                             const struct store_inbox_ref *in, size_t n_in)
{
    struct tickets *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->k = k;
    t->event_id = event;
    if (n)
        memcpy(t->booking_id, bookings, n * sizeof *bookings);
    if (n_in)
        memcpy(t->in, in, n_in * sizeof *in);
    t->ask = (struct store_group_ask){.events = &t->event_id,
                                      .n_events = 1,
                                      .bookings = t->booking_id,
                                      .n_bookings = n,
                                      .inbox = t->in,
                                      .n_inbox = n_in};
    t->g = (struct store_group){.events = &t->event, .bookings = t->booking, .seen = t->seen, .now_us = k->now};
    assert_int_equal(store_group_begin(k->s, &t->ask, &t->g), PFE_OK);
    t->c = (struct store_commit){.ts = k->now,
                                 .events = &t->event,
                                 .n_events = 1,
                                 .bookings = t->booking,
                                 .n_bookings = n,
                                 .created = t->created,
                                 .outbox = t->out,
                                 .inbox = t->in};
    return t;
}

static enum pf_err commit_it(struct tickets *t)
{
    enum pf_err e = store_group_commit(t->k->s, &t->c);
    free(t);
    return e;
}

static void add_booking(struct tickets *t, int64_t user, const char *guest, int64_t count)
{
    struct ticket_ask a = {.id = t->g.first_booking + (int64_t)t->c.n_created,
                           .user = user,
                           .guest = str_c(guest),
                           .count = count,
                           .now_us = t->k->now,
                           .hold_us = HOLD_US};
    new_uuid(t->k, a.uuid);
    assert_int_equal(ticket_hold(&t->event.e, &a, &t->created[t->c.n_created++]), PFE_OK);
    t->event.used = true;
}

/* As the outbox shows them; a number that is not in it with a uuid of nobody's. */
static void delivered(struct tickets *t, const int64_t *ids, size_t n)
{
    struct store_message m[16];
    unsigned all = 0;
    assert_true(n <= MANY);
    assert_int_equal(store_outbox_list(t->k->s, &t->k->arena, 0, 16, m, &all), PFE_OK);
    for (size_t i = 0; i < n; i++) {
        t->gone[i].id = ids[i];
        for (unsigned j = 0; j < all; j++)
            if (m[j].id == ids[i])
                memcpy(t->gone[i].uuid, m[j].uuid, sizeof m[j].uuid);
    }
    t->c.delivered = t->gone;
    t->c.n_delivered = n;
}

static void add_message(struct tickets *t, const char *type, const char *payload)
{
    struct store_message *m = &t->out[t->c.n_outbox++];
    *m = (struct store_message){.type = str_c(type), .payload = str_c(payload), .created_us = t->k->now};
    new_uuid(t->k, m->uuid);
    memcpy(m->key, t->event.e.uuid, 16);
}

static int64_t hold(struct kit *k, int64_t event, int64_t user, const char *guest, int64_t count)
{
    struct tickets *t = begin(k, event, NULL, 0, NULL, 0);
    add_booking(t, user, guest, count);
    int64_t id = t->created[0].id;
    assert_int_equal(commit_it(t), PFE_OK);
    return id;
}

static unsigned outbox(struct kit *k, int64_t after, struct store_message *out, unsigned cap)
{
    unsigned n = 99;
    assert_int_equal(store_outbox_list(k->s, &k->arena, after, cap, out, &n), PFE_OK);
    return n;
}

static void assert_faulty(struct kit *k, const char *about)
{
    struct store_verify v;
    assert_int_equal(store_verify(k->s, &v), PFE_OK);
    assert_false(v.ok);
    if (!strstr(v.what, about))
        fail_msg("verify says: %s", v.what);
}

/* ---- cases ---- */

static void events(struct kit *k)
{
    struct ticket_event a = new_event(k, 100, 0), b = new_event(k, 5, 1250), got[3];
    assert_int_equal(b.id, a.id + 1);
    struct store_ref refs[3] = {{.id = b.id}, {.id = 999}, {0}};
    memcpy(refs[2].uuid, a.uuid, 16);
    assert_int_equal(store_events_get(k->s, refs, 3, got), PFE_OK);
    assert_int_equal(got[0].id, b.id);
    assert_int_equal(got[0].capacity, 5);
    assert_int_equal(got[0].price, 1250);
    assert_int_equal(got[0].currency, KIT_USD);
    assert_int_equal(got[0].starts_us, k->now + 1);
    assert_int_equal(got[0].created_us, k->now);
    assert_memory_equal(got[0].uuid, b.uuid, 16);
    assert_int_equal(got[1].id, 0);
    assert_int_equal(got[2].id, a.id);
    assert_int_equal(store_event_get(k->s, &(struct store_ref){.id = 77}, got), PFE_NOT_FOUND);

    struct store_tx *tx;
    struct ticket_event again = a;
    assert_int_equal(store_tx_begin(k->s, &tx), PFE_OK);
    assert_int_equal(store_event_insert(tx, &again), PFE_WRONG_STATE);
    store_tx_rollback(tx);
    assert_int_equal(store_tx_begin(k->s, &tx), PFE_OK);
    new_uuid(k, again.uuid);
    assert_int_equal(store_event_insert(tx, &again), PFE_OK);
    store_tx_rollback(tx);
    assert_int_equal(store_event_get(k->s, &(struct store_ref){.id = again.id}, got), PFE_NOT_FOUND);

    assert_int_equal(store_tx_begin(k->s, &tx), PFE_OK);
    assert_int_equal(store_event_status(tx, b.id, TICKET_EVENT_CANCELLED), PFE_OK);
    assert_int_equal(store_tx_commit(tx), PFE_OK);
    assert_int_equal(event_now(k, b.id).status, TICKET_EVENT_CANCELLED);
    assert_int_equal(store_tx_begin(k->s, &tx), PFE_OK);
    assert_int_equal(store_event_status(tx, 4711, TICKET_EVENT_CANCELLED), PFE_NOT_FOUND);
    store_tx_rollback(tx);
    kit_reopen(k);
    assert_int_equal(event_now(k, a.id).capacity, 100);
    kit_verify(k);
}

static void bookings(struct kit *k)
{
    int64_t ann = kit_user(k, "ann");
    struct ticket_event e = new_event(k, 1000, 0);
    struct tickets *t = begin(k, e.id, NULL, 0, NULL, 0);
    assert_true(t->event.found);
    assert_int_equal(t->g.first_booking, 1);
    for (int i = 0; i < MANY; i++)
        add_booking(t, i % 3 ? 0 : ann, i % 3 ? (i % 3 == 1 ? "kerem_user" : "zo\xc3\xab") : NULL, 1 + i % 2);
    struct ticket_booking want = t->created[7];
    assert_int_equal(commit_it(t), PFE_OK);
    kit_reopen(k);
    assert_int_equal(event_now(k, e.id).held, MANY + MANY / 2);
    assert_int_equal(event_now(k, e.id).sold, 0);

    struct store_ref ref = {0};
    struct ticket_booking b, list[20];
    memcpy(ref.uuid, want.uuid, 16);
    assert_int_equal(store_booking_get(k->s, &ref, &b), PFE_OK);
    assert_int_equal(b.id, 8);
    assert_memory_equal(b.event_uuid, e.uuid, 16);
    assert_string_equal(b.guest, "kerem_user");
    assert_int_equal(b.user, 0);
    assert_int_equal(b.count, 2);
    assert_int_equal(b.version, 1);
    assert_int_equal(b.state, TICKET_HELD);
    assert_int_equal(b.expires_us, want.expires_us);
    assert_int_equal(store_booking_get(k->s, &(struct store_ref){.id = MANY + 1}, &b), PFE_NOT_FOUND);
    struct store_ref some[3] = {{.id = 300}, ref, {.uuid = {1}}};
    assert_int_equal(store_bookings_get(k->s, some, 3, list), PFE_OK);
    assert_int_equal(list[0].id, 300);
    assert_int_equal(list[1].id, 8);
    assert_int_equal(list[2].id, 0);

    /* newest first, a page after the other */
    int64_t before = 0, seen = 0, last = INT64_MAX;
    for (;;) {
        unsigned n = 99;
        struct store_booking_query q = {.user = ann, .before_id = before, .limit = 20};
        assert_int_equal(store_booking_list(k->s, &q, list, &n), PFE_OK);
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(list[i].user, ann);
            assert_true(list[i].id < last);
            last = list[i].id;
        }
        seen += n;
        if (n < 20)
            break;
        before = last;
    }
    assert_int_equal(seen, 100);
    unsigned n = 99;
    struct store_booking_query q = {.guest = STR("zo\xc3\xab"), .limit = 2, .offset = 1};
    assert_int_equal(store_booking_list(k->s, &q, list, &n), PFE_OK);
    assert_int_equal(n, 2);
    assert_int_equal(list[0].id, 297);
    assert_int_equal(list[1].id, 294);
    q.guest = STR("zoe");
    assert_int_equal(store_booking_list(k->s, &q, list, &n), PFE_OK);
    assert_int_equal(n, 0);
    kit_verify(k);
}

/* The newest first of all that there are, however an engine divides them: page after page, and at an offset. */
static void lists_of_many(struct kit *k)
{
    enum { GROUPS = 30, EACH = 97 /* every so many is the rare guest's */ };
    struct ticket_event e = new_event(k, MANY * GROUPS, 0);
    int64_t rare[MANY * GROUPS / EACH + 1], last = 0;
    unsigned n_rare = 0, n = 0;
    for (int g = 0; g < GROUPS; g++) {
        struct tickets *t = begin(k, e.id, NULL, 0, NULL, 0);
        for (int i = 0; i < MANY; i++) {
            last = t->g.first_booking + i;
            if (last % EACH == 0)
                rare[n_rare++] = last;
            add_booking(t, 0, last % EACH ? "often" : "rare", 1);
        }
        assert_int_equal(commit_it(t), PFE_OK);
    }
    assert_int_equal(last, MANY * GROUPS);
    struct ticket_booking list[100];
    struct store_booking_query q = {.guest = STR("rare"), .limit = 10};
    for (unsigned at = 0; at < n_rare; at += n) {
        assert_int_equal(store_booking_list(k->s, &q, list, &n), PFE_OK);
        assert_int_equal(n, n_rare - at < q.limit ? n_rare - at : q.limit);
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(list[i].id, rare[n_rare - 1 - at - i]);
        q.before_id = list[n - 1].id;
    }
    for (unsigned offset = 0; offset <= n_rare; offset += 31) {
        q = (struct store_booking_query){.guest = STR("rare"), .limit = 100, .offset = offset};
        assert_int_equal(store_booking_list(k->s, &q, list, &n), PFE_OK);
        assert_int_equal(n, n_rare - offset < q.limit ? n_rare - offset : q.limit);
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(list[i].id, rare[n_rare - 1 - offset - i]);
    }
    q = (struct store_booking_query){.guest = STR("often"), .limit = 3, .offset = 5000, .before_id = 8001};
    assert_int_equal(store_booking_list(k->s, &q, list, &n), PFE_OK);
    assert_int_equal(n, 3);
    int64_t want = 8001;
    for (int passed = 0; passed <= 5000;)
        passed += --want % EACH != 0;
    assert_int_equal(list[0].id, want);
    q = (struct store_booking_query){.guest = STR("nobody"), .limit = 3};
    assert_int_equal(store_booking_list(k->s, &q, list, &n), PFE_OK);
    assert_int_equal(n, 0);
}

static void due(struct kit *k)
{
    struct ticket_event e = new_event(k, 100, 0);
    int64_t t0 = k->now, ids[10], id[4];
    unsigned n = 99;
    for (int i = 0; i < 4; i++) {
        k->now = t0 - (i == 2 ? 3 : i) * 1000000; /* the third first */
        if (i == 2)
            k->now = t0 - 9 * 1000000;
        id[i] = hold(k, e.id, 0, "g", 1);
    }
    k->now = t0;
    /* a server judges by its own clock, for which all of this is long past */
    int64_t later = t0 + HOLD_US;
    assert_int_equal(store_bookings_due(k->s, later, 10, ids, &n), PFE_OK);
    assert_int_equal(n, 4);
    assert_int_equal(ids[0], id[2]);
    assert_int_equal(ids[1], id[3]);
    assert_int_equal(ids[2], id[1]);
    assert_int_equal(ids[3], id[0]);
    assert_int_equal(store_bookings_due(k->s, later, 2, ids, &n), PFE_OK);
    assert_int_equal(n, 2);
    if (k->engine != KIT_POSTGRES) {
        assert_int_equal(store_bookings_due(k->s, later - 1, 10, ids, &n), PFE_OK);
        assert_int_equal(n, 3);
    }
    struct tickets *t = begin(k, e.id, id, 3, NULL, 0);
    assert_int_equal(ticket_expire(&t->event.e, &t->booking[2].b, later), PFE_OK);
    assert_int_equal(ticket_cancel(&t->event.e, &t->booking[1].b, TICKET_BY_USER, later), PFE_OK);
    t->event.used = t->booking[2].used = t->booking[1].used = true;
    assert_int_equal(commit_it(t), PFE_OK);
    assert_int_equal(store_bookings_due(k->s, later, 10, ids, &n), PFE_OK);
    assert_int_equal(n, 2);
    assert_int_equal(booking_now(k, id[2]).state, TICKET_EXPIRED);
    assert_int_equal(booking_now(k, id[1]).reason, TICKET_BY_USER);
    assert_int_equal(booking_now(k, id[1]).version, 2);
    assert_int_equal(booking_now(k, id[1]).updated_us, later);
    assert_int_equal(event_now(k, e.id).held, 2);
    kit_verify(k);
}

/* What is in the store besides stock and bookings that a group may have left there. */
static void assert_nothing_else(struct kit *k, int64_t head)
{
    struct store_message m[4];
    struct store_info i;
    struct store_idem row;
    assert_int_equal(store_info(k->s, &i), PFE_OK);
    assert_int_equal(i.head_seq, head);
    assert_int_equal(outbox(k, 0, m, 4), 0);
    assert_int_equal(store_idem_get(k->s, &k->arena, 7, STR("key"), &row), PFE_NOT_FOUND);
}

static const struct store_idem an_answer = {.principal = 7, .key = {"key", 3}, .status = 201, .body = {"{}", 2}};

static void no_oversell(struct kit *k)
{
    struct ticket_event e = new_event(k, 10, 0);
    int64_t first = hold(k, e.id, 0, "a", 8);
    static const struct {
        int64_t held, sold;
    } wrong[] = {{3, 0}, {0, 3}, {2, 1}, {-9, 0}, {0, -1}, {-8, 11}, {11, 0}, {INT32_MAX, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct tickets *t = begin(k, e.id, &first, 1, NULL, 0);
        t->event.e.capacity = 1000; /* whatever the caller believed */
        add_booking(t, 0, "b", 1);
        add_message(t, "BookingCreated", "{}");
        t->event.e.held = t->event.was_held + wrong[i].held;
        t->event.e.sold = t->event.was_sold + wrong[i].sold;
        t->c.idem = &an_answer;
        t->c.n_idem = 1;
        assert_int_equal(commit_it(t), PFE_SOLD_OUT);
        assert_int_equal(event_now(k, e.id).held, 8);
        assert_int_equal(event_now(k, e.id).sold, 0);
        struct ticket_booking b;
        assert_int_equal(store_booking_get(k->s, &(struct store_ref){.id = first + 1}, &b), PFE_NOT_FOUND);
        assert_nothing_else(k, 0);
    }
    /* an event that is not there has no stock */
    struct tickets *t = begin(k, 4711, NULL, 0, NULL, 0);
    assert_false(t->event.found);
    t->event.e.id = 4711;
    t->event.used = true;
    assert_int_equal(commit_it(t), PFE_SOLD_OUT);
    /* and to the brim it goes */
    hold(k, e.id, 0, "b", 2);
    assert_int_equal(event_now(k, e.id).held, 10);
    kit_verify(k);
}

static void guarded_moves(struct kit *k)
{
    struct ticket_event e = new_event(k, 10, 0);
    int64_t id[2] = {hold(k, e.id, 0, "a", 4), hold(k, e.id, 0, "b", 1)};
    for (int i = 0; i < 3; i++) {
        struct tickets *t = begin(k, e.id, id, 2, NULL, 0);
        assert_true(t->booking[0].found && t->booking[1].found);
        assert_int_equal(ticket_confirm(&t->event.e, &t->booking[0].b, k->now), PFE_OK);
        assert_int_equal(ticket_confirm(&t->event.e, &t->booking[1].b, k->now), PFE_OK);
        t->event.used = t->booking[0].used = t->booking[1].used = true;
        add_message(t, "BookingConfirmed", "{}");
        if (i == 0)
            t->booking[1].was = TICKET_EXPIRED;
        else if (i == 1)
            t->booking[1].was_version = 7;
        else
            t->booking[1].b.id = 4711;
        assert_int_equal(commit_it(t), PFE_WRONG_STATE);
        assert_int_equal(booking_now(k, id[0]).state, TICKET_HELD);
        assert_int_equal(booking_now(k, id[1]).state, TICKET_HELD);
        assert_int_equal(event_now(k, e.id).held, 5);
        assert_nothing_else(k, 0);
    }
    struct tickets *t = begin(k, e.id, id, 1, NULL, 0);
    assert_int_equal(ticket_confirm(&t->event.e, &t->booking[0].b, k->now), PFE_OK);
    t->event.used = t->booking[0].used = true;
    assert_int_equal(commit_it(t), PFE_OK);
    kit_reopen(k);
    assert_int_equal(booking_now(k, id[0]).state, TICKET_CONFIRMED);
    assert_int_equal(event_now(k, e.id).held, 1);
    assert_int_equal(event_now(k, e.id).sold, 4);
    kit_verify(k);
}

static void messages_out(struct kit *k)
{
    struct ticket_event e = new_event(k, 100, 0);
    struct store_message m[8];
    struct tickets *t = begin(k, e.id, NULL, 0, NULL, 0);
    add_message(t, "BookingCreated", "{\"n\":1}");
    add_message(t, "BookingConfirmed", "{\"n\":2}");
    struct store_message first = t->out[0];
    assert_int_equal(commit_it(t), PFE_OK);
    t = begin(k, e.id, NULL, 0, NULL, 0);
    add_message(t, "BookingCancelled", "lost");
    store_group_abort(k->s);
    free(t);
    kit_reopen(k);
    assert_int_equal(outbox(k, 0, m, 8), 2);
    assert_int_equal(m[0].id, 1);
    assert_int_equal(m[1].id, 2);
    assert_true(str_is(m[0].type, "BookingCreated"));
    assert_true(str_is(m[1].payload, "{\"n\":2}"));
    assert_memory_equal(m[0].uuid, first.uuid, 16);
    assert_memory_equal(m[0].key, e.uuid, 16);
    assert_int_equal(m[0].created_us, k->now);
    assert_int_equal(outbox(k, 1, m, 8), 1);
    assert_int_equal(m[0].id, 2);
    assert_int_equal(outbox(k, 0, m, 1), 1);
    assert_int_equal(m[0].id, 1);

    /* delivered: not in a group that fails (the message was dealt with) */
    struct store_inbox_ref in = {.consumer = STR("payment")};
    new_uuid(k, in.message);
    t = begin(k, e.id, NULL, 0, &in, 1);
    t->c.n_inbox = 1;
    assert_int_equal(commit_it(t), PFE_OK);
    t = begin(k, e.id, NULL, 0, &in, 1);
    t->c.n_inbox = 1;
    delivered(t, (const int64_t[]){1, 2}, 2);
    assert_int_equal(commit_it(t), PFE_IN_FLIGHT);
    assert_int_equal(outbox(k, 0, m, 8), 2);
    t = begin(k, e.id, NULL, 0, NULL, 0);
    for (int i = 0; i < 5; i++)
        add_message(t, "BookingCreated", "{}");
    assert_int_equal(commit_it(t), PFE_OK);
    t = begin(k, e.id, NULL, 0, NULL, 0);
    add_message(t, "BookingCreated", "{}"); /* no number comes twice: it is the 8th */
    delivered(t, (const int64_t[]){5, 6, 2, 1, 3, k->engine == KIT_SQLITE ? 17 : 8}, 6); /* an 8th of another uuid */
    assert_int_equal(commit_it(t), PFE_OK);
    kit_reopen(k);
    assert_int_equal(outbox(k, 0, m, 8), 3);
    assert_int_equal(m[0].id, 4);
    assert_int_equal(m[1].id, 7);
    assert_int_equal(m[2].id, 8);
    t = begin(k, 0, NULL, 0, NULL, 0);
    delivered(t, (const int64_t[]){4, 7, 8}, 3); /* with nothing else */
    assert_int_equal(commit_it(t), PFE_OK);
    assert_int_equal(outbox(k, 0, m, 8), 0);
    t = begin(k, e.id, NULL, 0, NULL, 0);
    add_message(t, "BookingCreated", "{}");
    assert_int_equal(commit_it(t), PFE_OK);
    assert_int_equal(outbox(k, 0, m, 8), 1);
    assert_int_equal(m[0].id, 9);
    struct arena tiny;
    unsigned n = 0;
    arena_init(&tiny, NULL, 0, 2);
    assert_int_equal(store_outbox_list(k->s, &tiny, 0, 8, m, &n), PFE_NOMEM);
    arena_reset(&tiny);
}

static void messages_in(struct kit *k)
{
    struct ticket_event e = new_event(k, 100, 0);
    int64_t id = hold(k, e.id, 0, "a", 1), forgotten = -1;
    struct store_inbox_ref in[2] = {{.consumer = STR("payment")}, {.consumer = STR("mail")}};
    new_uuid(k, in[0].message);
    memcpy(in[1].message, in[0].message, 16);
    struct tickets *t = begin(k, e.id, &id, 1, in, 2);
    assert_false(t->seen[0] || t->seen[1]);
    assert_int_equal(ticket_confirm(&t->event.e, &t->booking[0].b, k->now), PFE_OK);
    t->event.used = t->booking[0].used = true;
    t->c.n_inbox = 1;
    assert_int_equal(commit_it(t), PFE_OK);
    kit_reopen(k);

    /* the same again, by one who did not look */
    int64_t other = hold(k, e.id, 0, "b", 1);
    t = begin(k, e.id, &other, 1, in, 2);
    assert_true(t->seen[0]);
    assert_false(t->seen[1]);
    assert_int_equal(ticket_confirm(&t->event.e, &t->booking[0].b, k->now), PFE_OK);
    t->event.used = t->booking[0].used = true;
    t->c.n_inbox = 2;
    assert_int_equal(commit_it(t), PFE_IN_FLIGHT);
    assert_int_equal(booking_now(k, other).state, TICKET_HELD);
    assert_int_equal(event_now(k, e.id).sold, 1);
    t = begin(k, e.id, NULL, 0, in, 2);
    assert_false(t->seen[1]);
    store_group_abort(k->s);
    free(t);

    struct store_tx *tx;
    assert_int_equal(store_tx_begin(k->s, &tx), PFE_OK);
    assert_int_equal(store_inbox_purge(tx, k->now - 1000000, &forgotten), PFE_OK);
    assert_int_equal(forgotten, 0);
    assert_int_equal(store_inbox_purge(tx, k->now + 1000000, NULL), PFE_OK);
    store_tx_rollback(tx);
    assert_int_equal(store_tx_begin(k->s, &tx), PFE_OK);
    assert_int_equal(store_inbox_purge(tx, k->now + 1000000, &forgotten), PFE_OK);
    assert_int_equal(forgotten, 1);
    assert_int_equal(store_tx_commit(tx), PFE_OK);
    t = begin(k, e.id, NULL, 0, in, 1);
    assert_false(t->seen[0]);
    store_group_abort(k->s);
    free(t);
}

static void abort_is_nothing(struct kit *k)
{
    struct ticket_event e = new_event(k, 10, 0);
    struct tickets *t = begin(k, e.id, NULL, 0, NULL, 0);
    add_booking(t, 0, "a", 3);
    add_message(t, "BookingCreated", "{}");
    store_group_abort(k->s);
    free(t);
    kit_reopen(k);
    struct ticket_booking b;
    assert_int_equal(store_booking_get(k->s, &(struct store_ref){.id = 1}, &b), PFE_NOT_FOUND);
    assert_int_equal(event_now(k, e.id).held, 0);
    assert_int_equal(hold(k, e.id, 0, "b", 1), 1);
    t = begin(k, e.id, NULL, 0, NULL, 0); /* and so is an empty commit */
    assert_int_equal(commit_it(t), PFE_OK);
}

/* Stock, booking and money in one commit; and verify, on what no decision would have written. */
static void money_goes_along(struct kit *k)
{
    int64_t ann = kit_user(k, "ann");
    kit_deposit(k, ann, 10000);
    struct ticket_event e = new_event(k, 10, 1000);
    int64_t id = hold(k, e.id, ann, NULL, 2);
    assert_int_equal(booking_now(k, id).amount, 2000);
    kit_verify(k);

    struct store_key keys[2] = {{.owner = ann, .currency = KIT_USD}, {.owner = 0, .currency = KIT_USD}};
    struct store_slot slots[2];
    struct store_event_slot ev;
    struct store_booking_slot bk;
    struct ledger_entry entry[2];
    struct store_group_ask ask = {
        .keys = keys, .n_keys = 2, .events = &e.id, .n_events = 1, .bookings = &id, .n_bookings = 1};
    struct store_group g = {.slots = slots, .events = &ev, .bookings = &bk, .now_us = k->now};
    assert_int_equal(store_group_begin(k->s, &ask, &g), PFE_OK);
    char origin[sizeof TICKET_ORIGIN + UUID_TEXT_LEN] = TICKET_ORIGIN;
    struct uuid bu;
    memcpy(bu.b, bk.b.uuid, 16);
    uuid_format(&bu, origin + sizeof TICKET_ORIGIN - 1);
    for (int i = 0; i < 2; i++) {
        struct ledger_command cmd = {.kind = i ? LEDGER_CAPTURE : LEDGER_HOLD,
                                     .amount = 2000,
                                     .currency = KIT_USD,
                                     .seq = g.first_seq + i,
                                     .ts = k->now,
                                     .origin = str_c(origin),
                                     .ref = i ? &entry[0] : NULL};
        struct uuid u = uuid_v7_seq(cmd.ts, cmd.seq);
        memcpy(cmd.uuid, u.b, 16);
        assert_int_equal(ledger_decide(&slots[0].acc, &slots[1].acc, &cmd, &entry[i]), PFE_OK);
        ledger_evolve(&slots[0].acc, &entry[i], cmd.ref);
        ledger_evolve(&slots[1].acc, &entry[i], cmd.ref);
    }
    slots[0].used = slots[1].used = ev.used = bk.used = true;
    assert_int_equal(ticket_confirm(&ev.e, &bk.b, k->now), PFE_OK);
    bk.b.hold_seq = g.first_seq;
    bk.b.paid_seq = g.first_seq + 1;
    struct store_commit c = {.ts = k->now,
                             .entries = entry,
                             .n_entries = 2,
                             .slots = slots,
                             .n_slots = 2,
                             .events = &ev,
                             .n_events = 1,
                             .bookings = &bk,
                             .n_bookings = 1};
    assert_int_equal(store_group_commit(k->s, &c), PFE_OK);
    assert_int_equal(kit_balance(k, ann), 8000);
    assert_int_equal(booking_now(k, id).paid_seq, g.first_seq + 1);
    kit_reopen(k);
    kit_verify(k);

    /* confirmed, and nobody paid */
    int64_t unpaid = hold(k, e.id, ann, NULL, 1);
    struct tickets *t = begin(k, e.id, &unpaid, 1, NULL, 0);
    assert_int_equal(ticket_confirm(&t->event.e, &t->booking[0].b, k->now), PFE_OK);
    t->event.used = t->booking[0].used = true;
    t->booking[0].b.hold_seq = g.first_seq; /* with the payment of another */
    t->booking[0].b.paid_seq = g.first_seq + 1;
    assert_int_equal(commit_it(t), PFE_OK);
    assert_faulty(k, "booking 2");
}

static void verify_sees_stock(struct kit *k)
{
    struct ticket_event e = new_event(k, 10, 0);
    hold(k, e.id, 0, "a", 2);
    kit_verify(k);
    struct tickets *t = begin(k, e.id, NULL, 0, NULL, 0);
    t->event.e.sold++; /* of no booking's */
    t->event.used = true;
    assert_int_equal(commit_it(t), PFE_OK);
    assert_faulty(k, "stock of event 1");
}

static void verify_sees_money(struct kit *k)
{
    int64_t ann = kit_user(k, "ann");
    struct ticket_event e = new_event(k, 10, 1000);
    int64_t id = hold(k, e.id, ann, NULL, 2);
    kit_verify(k);
    struct tickets *t = begin(k, e.id, &id, 1, NULL, 0);
    assert_int_equal(ticket_pay(&t->event.e, &t->booking[0].b, k->now), PFE_OK);
    t->booking[0].used = true; /* paying, and nothing is held */
    assert_int_equal(commit_it(t), PFE_OK);
    assert_faulty(k, "booking 1");
}

static void refuses_to_go_down(struct kit *k, int to, const char *what)
{
    char why[256] = "";
    store_close(k->s);
    k->s = NULL;
    if (k->engine == KIT_SQLITE) {
        assert_int_equal(store_sqlite_migrate(k->dir, to, why), PFE_WRONG_STATE);
    } else {
        struct postgres_options o = {.url = pg_cluster_url(pg_cluster_shared()),
                                     .schema = pg_cluster_schema(pg_cluster_shared(), k->dir)};
        assert_int_equal(store_postgres_migrate(&o, to, why), PFE_WRONG_STATE);
    }
    if (!strstr(why, what))
        fail_msg("\"%s\" is not in: %s", what, why);
    kit_reopen(k);
}

/* Going back to a schema that has no events does not throw away those that there are, nor what goes with them. */
static void kept(struct kit *k)
{
    if (k->engine == KIT_MEMORY)
        return;
    struct document d = {.created_us = k->now, .date_us = k->now, .body = STR("{}")}, got;
    new_uuid(k, d.id);
    assert_int_equal(documents_insert(store_documents(k->s), &d), PFE_OK);
    refuses_to_go_down(k, 3, "there are event documents");
    assert_int_equal(documents_get(store_documents(k->s), &k->arena, d.id, &got), PFE_OK);

    struct tickets *t = begin(k, 0, NULL, 0, NULL, 0);
    add_message(t, "BookingCreated", "{}");
    assert_int_equal(commit_it(t), PFE_OK);
    refuses_to_go_down(k, 2, "there are messages to deliver");
    struct store_message m;
    assert_int_equal(outbox(k, 0, &m, 1), 1);
    t = begin(k, 0, NULL, 0, NULL, 0);
    delivered(t, &m.id, 1);
    assert_int_equal(commit_it(t), PFE_OK);

    struct store_inbox_ref in = {.consumer = STR("payment")};
    new_uuid(k, in.message);
    t = begin(k, 0, NULL, 0, &in, 1);
    t->c.n_inbox = 1;
    assert_int_equal(commit_it(t), PFE_OK);
    refuses_to_go_down(k, 2, "there are notes of messages dealt with");

    struct ticket_event e = new_event(k, 10, 0);
    refuses_to_go_down(k, 2, "there are events");
    assert_int_equal(event_now(k, e.id).capacity, 10);
}

static const struct {
    const char *name;
    void (*run)(struct kit *k);
} cases[] = {
    {"kept", kept},
    {"events", events},
    {"bookings", bookings},
    {"lists of many", lists_of_many},
    {"due", due},
    {"no oversell", no_oversell},
    {"guarded moves", guarded_moves},
    {"messages out", messages_out},
    {"messages in", messages_in},
    {"abort is nothing", abort_is_nothing},
    {"money goes along", money_goes_along},
    {"verify sees stock", verify_sees_stock},
    {"verify sees money", verify_sees_money},
};
enum { CASES = sizeof cases / sizeof *cases };

struct run {
    enum kit_engine engine;
    size_t at;
};

static void run_case(void **state)
{
    const struct run *r = *state;
    struct kit *k = kit_open(r->engine);
    cases[r->at].run(k);
    kit_close(k);
}

int main(void)
{
    static const char *const engines[KIT_ENGINES] = {"memory", "sqlite", "postgres"};
    static struct run runs[KIT_ENGINES * CASES];
    static char names[KIT_ENGINES * CASES][64];
    struct CMUnitTest tests[KIT_ENGINES * CASES];
    for (size_t i = 0; i < KIT_ENGINES * CASES; i++) {
        runs[i] = (struct run){(enum kit_engine)(i / CASES), i % CASES};
        snprintf(names[i], sizeof names[i], "%s: %s", engines[i / CASES], cases[i % CASES].name);
        tests[i] = (struct CMUnitTest){names[i], run_case, NULL, NULL, &runs[i]};
    }
    return cmocka_run_group_tests_name("store_ticketing", tests, NULL, NULL);
}
