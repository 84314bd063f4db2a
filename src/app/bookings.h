/*
 * bookings: events' stock, and what happens to bookings of their tickets. Commands on bookings are decided by the
 * ledger writer (movement.h), together with movements of money: a booking's move, its stock, its money and its message
 * are one commit. So no booking is confirmed and unpaid, and none is paid and unconfirmed.
 *
 * A job of kind JOB_BOOKINGS holds one command or several, each of which stands alone. Every command may come twice,
 * late, or before what it follows:
 *
 *   op       from                     to                      otherwise
 *   HOLD     -                        HELD                    refused as ticket_hold says
 *   PAY      HELD                     PAYING, money held      PAYING, UNKNOWN, CONFIRMED: nothing more to do
 *   DOUBT    PAYING                   UNKNOWN                 UNKNOWN, CONFIRMED: the same
 *   CONFIRM  pending                  CONFIRMED, money taken  CONFIRMED: the same
 *            EXPIRED                  CONFIRMED, if tickets are free and the money is there; else nothing is taken
 *   SETTLE   the payment provider's decision and then CONFIRM or DECLINE, in one commit: the ledger provider's for what
 *            costs something (is the money there?), else the mock provider's (ticket_mock_approves)
 *   DECLINE  pending                  CANCELLED, declined     CANCELLED, EXPIRED: nothing more to do
 *   CANCEL   pending                  CANCELLED, by its user  CANCELLED: nothing more to do
 *   EXPIRE   pending and due          EXPIRED
 *
 * All that is not in the table is PFE_WRONG_STATE. A pending booking whose money is not to be had (the ledger refuses)
 * is declined, and one of a cancelled event is cancelled with it: that is PFE_OK, and b.state says so.
 */
#ifndef APP_BOOKINGS_H
#define APP_BOOKINGS_H

#include "app/app.h"
#include "app/movement.h"
#include "domain/ticketing/ticketing.h"

enum booking_op {
    BOOKING_HOLD,
    BOOKING_PAY,
    BOOKING_DOUBT,
    BOOKING_CONFIRM,
    BOOKING_SETTLE,
    BOOKING_DECLINE,
    BOOKING_CANCEL,
    BOOKING_EXPIRE
};

struct booking { /* a command; all-zero but for what is asked */
    /* what is asked */
    enum booking_op op;
    int64_t id;       /* the booking's, > 0; or 0, and */
    uint8_t uuid[16]; /* HOLD: the event's, else the booking's */
    int64_t user;     /* HOLD: the buyer; 0: a guest */
    struct str guest; /* HOLD: 1..TICKET_GUEST_MAX bytes; borrowed until done */
    int64_t count;    /* HOLD: 1..TICKET_COUNT_MAX */
    /* The message that asks for it, if one does (consumer.n > 0, at most STORE_CONSUMER_MAX; message a UUIDv7). It is
       noted in the commit of what it does, a refusal (4xx but for PFE_NOT_FOUND) too, and does nothing when it comes
       again. Whatever else err is, nothing was noted: deliver it once more. */
    struct str consumer; /* borrowed until done */
    uint8_t message[16];
    /* what came of it */
    enum pf_err err;
    bool duplicate;          /* PFE_OK, and the message was dealt with before */
    bool moved;              /* this command changed the booking */
    struct ticket_booking b; /* after it, also of a refusal if there is such a booking; id 0: there is none */
    struct ticket_event e;   /* the same */
    /* the writer's */
    unsigned event_slot, booking_slot, payer_slot, payee_slot, inbox_slot;
};

/* What a refusal is called. */
void app_booking_problem(const struct booking *b, struct problem *p);

/* ---- events ---- */

/* An event's stock: capacity, price, currency, starts_us of *in; its organiser is the caller, its uuid the one given,
   or a new one if that is all zero. render puts the answer to keep into idem, as for schedules. Blocking. Audited. */
typedef void (*app_event_render)(void *ctx, const struct ticket_event *e, struct app_idem *idem);
enum pf_err app_event_create(struct app *a, const struct caller *c, const struct ticket_event *in,
                             struct app_idem *idem, app_event_render render, void *ctx, struct ticket_event *ret,
                             struct problem *p) MUSTCHECK;
/* Takes it off sale: pending bookings are cancelled when their payment or expiry comes, confirmed ones stand. By its
   organiser or an admin. PFE_WRONG_STATE when it is already. Blocking. Audited. */
enum pf_err app_event_cancel(struct app *a, const struct caller *c, const uint8_t uuid[16], struct ticket_event *ret,
                             struct problem *p) MUSTCHECK;
/* Anybody's to read. Blocking. */
enum pf_err app_event_get(struct app *a, const uint8_t uuid[16], struct ticket_event *ret) MUSTCHECK;
/* Stock of many: out[i].id is 0 when there is no such event. Blocking. */
enum pf_err app_events_get(struct app *a, const struct store_ref *refs, size_t n, struct ticket_event *out) MUSTCHECK;

/* ---- bookings ---- */

/* May the caller book for this user (0: a guest)? For a user: that user or an admin, else PFE_FORBIDDEN. Quick. */
enum pf_err app_booking_may_hold(const struct principal *who, int64_t user, struct problem *p) MUSTCHECK;
/* A booking of a user is its user's and the admins'; to others it does not exist. One of a guest belongs to whoever
   knows its UUID. Blocking. PFE_NOT_FOUND. */
enum pf_err app_booking_get(struct app *a, const struct principal *who, const uint8_t uuid[16],
                            struct ticket_booking *ret) MUSTCHECK;
/* Newest first. A user's: by that user or an admin; a guest's: by an admin. PFE_FORBIDDEN. Blocking. */
enum pf_err app_booking_list(struct app *a, const struct principal *who, const struct store_booking_query *q,
                             struct ticket_booking *out, unsigned *ret_n) MUSTCHECK;
/* app_booking_get; *ret is the command that cancels what may be seen. Blocking. */
enum pf_err app_booking_may_cancel(struct app *a, const struct principal *who, const uint8_t uuid[16],
                                   struct booking *ret) MUSTCHECK;
/* One command, and waits. Blocking. Returns b->err. */
enum pf_err app_booking_do(struct app *a, struct booking *b) MUSTCHECK;

/* For the scheduler: expires what is due, by the store's clock. Returns how many; 0 also when another instance does it.
 * Blocking. */
unsigned app_bookings_expire_due(struct app *a);

/* ---- messages ---- */

/* Not delivered yet, oldest first, with id > after_id. Strings in the arena. Blocking. */
enum pf_err app_outbox_next(struct app *a, struct arena *arena, int64_t after_id, unsigned limit,
                            struct store_message *out, unsigned *ret_n) MUSTCHECK;
/* They are deleted, all in the commit of one of the ledger's groups. An error: perhaps not. Needs no lease, for whoever
 * still has them publishes them again. One caller at a time. Blocking. */
enum pf_err app_outbox_delivered(struct app *a, const struct store_outbox_ref *m, size_t n) MUSTCHECK;
/* Forgets messages that consumers dealt with and that were made before then: none of them may come any more. Blocking.
 */
enum pf_err app_inbox_purge(struct app *a, int64_t before_us, int64_t *ret_n) MUSTCHECK;

#endif
