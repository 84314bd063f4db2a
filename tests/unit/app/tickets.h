/* What the tests of bookings share. */
#ifndef TESTS_APP_TICKETS_H
#define TESTS_APP_TICKETS_H

#include "fixture.h"

#include "app/bookings.h"

static inline struct ticket_event tix_event(struct fix *f, int64_t organiser, int64_t capacity, int64_t price)
{
    struct ticket_event in = {.capacity = capacity,
                              .price = price,
                              .currency = USD,
                              .starts_us = fix_wall(f) + 365 * DAY},
                        e = {0};
    struct caller c = fix_caller(organiser, organiser ? IDENT_USER : IDENT_ADMIN);
    struct problem p = {0};
    OK(app_event_create(f->app, &c, &in, NULL, NULL, NULL, &e, &p));
    return e;
}

static inline struct booking tix_hold_of(const struct ticket_event *e, int64_t user, const char *guest, int64_t count)
{
    struct booking b = {.op = BOOKING_HOLD, .user = user, .guest = str_c(guest), .count = count};
    memcpy(b.uuid, e->uuid, sizeof b.uuid);
    return b;
}

/* One that must go through. */
static inline struct ticket_booking tix_hold(struct fix *f, const struct ticket_event *e, int64_t user, int64_t count)
{
    struct booking b = tix_hold_of(e, user, user ? NULL : "guest", count);
    OK(app_booking_do(f->app, &b));
    return b.b;
}

static inline struct booking tix_op(enum booking_op op, const struct ticket_booking *k)
{
    struct booking b = {.op = op};
    memcpy(b.uuid, k->uuid, sizeof b.uuid);
    return b;
}

/* With the message that asks for it. */
static inline struct booking tix_message(enum booking_op op, const struct ticket_booking *k, const uint8_t message[16])
{
    struct booking b = tix_op(op, k);
    b.consumer = STR("payment");
    memcpy(b.message, message, sizeof b.message);
    return b;
}

static inline enum pf_err tix_do(struct fix *f, enum booking_op op, const struct ticket_booking *k)
{
    struct booking b = tix_op(op, k);
    return app_booking_do(f->app, &b);
}

static inline struct ticket_event tix_event_now(struct fix *f, const struct ticket_event *e)
{
    struct ticket_event now;
    OK(app_event_get(f->app, e->uuid, &now));
    return now;
}

static inline struct ticket_booking tix_now(struct fix *f, const struct ticket_booking *k)
{
    struct ticket_booking b;
    OK(store_booking_get(f->box.store, &(struct store_ref){.id = k->id}, &b));
    return b;
}

/* How many messages of that type there are about that booking (NULL: all). */
static inline unsigned tix_messages(struct fix *f, const struct ticket_booking *k, const char *type,
                                    struct str *payload)
{
    struct store_message m[64];
    unsigned found = 0, n = 0;
    int64_t after = 0;
    do {
        OK(app_outbox_next(f->app, &f->arena, after, 64, m, &n));
        for (unsigned i = 0; i < n; i++) {
            after = m[i].id;
            if (!str_is(m[i].type, type) || (k && memcmp(m[i].key, k->uuid, 16) != 0))
                continue;
            found++;
            if (payload)
                *payload = m[i].payload;
        }
    } while (n);
    return found;
}

#endif
