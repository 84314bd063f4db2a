/*
 * ticketing: events with stock, and bookings of their tickets, as pure functions. No I/O, no clock, no threads.
 *
 *     event + what is asked  --ticket_hold--> the event and a new booking, or a refusal
 *     event + booking + move --ticket_…-----> both after it, or a refusal
 *
 * A booking's life:
 *
 *            ┌────────────── PENDING ──────────────┐
 *     hold → │ HELD ──→ PAYING ──→ UNKNOWN         │ ──→ CONFIRMED
 *            │                                     │ ──→ CANCELLED   by its buyer, declined, or with its event
 *            └─────────────────────────────────────┘ ──→ EXPIRED ──→ CONFIRMED   paid late, and tickets are free
 *
 *   state      tickets    money (of events with a price)
 *   HELD       held       none
 *   PAYING     held       held on the buyer's account
 *   UNKNOWN    held       the same; whoever decides the payment gave no answer yet
 *   CONFIRMED  sold       captured by the organiser
 *   CANCELLED  returned   released, or never held
 *   EXPIRED    returned   released, or never held
 *
 * So 0 <= held, 0 <= sold and held + sold <= capacity always, and a confirmed booking is a paid one: who commits a move
 * commits its stock and its money with it.
 *
 * Times are wall microseconds of one clock, the store's. Whether a booking has expired is said by its state and not by
 * the clock: one that is overdue and still pending has its tickets, and can be confirmed.
 */
#ifndef DOMAIN_TICKETING_H
#define DOMAIN_TICKETING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "domain/money/money.h"

enum {
    TICKET_COUNT_MAX = 10000,       /* tickets of one booking */
    TICKET_GUEST_MAX = 64,          /* bytes of a guest's name */
    TICKET_CAPACITY_MAX = 10000000, /* tickets of one event */
    TICKET_MOCK_MAX = 5             /* tickets that the mock payment provider approves, at most */
};
/* Minor units of one ticket: TICKET_COUNT_MAX of them are a valid amount. */
static const int64_t TICKET_PRICE_MAX = INT64_MAX / TICKET_COUNT_MAX;

/* The origin of a booking's journal entries: this and the text of its UUID. */
#define TICKET_ORIGIN "booking:"

enum ticket_event_status { TICKET_EVENT_OPEN = 0, TICKET_EVENT_CANCELLED = 1 };

struct ticket_event {
    int64_t id; /* 1, 2, 3 … */
    uint8_t uuid[16];
    int64_t organiser;       /* user id who is paid; 0: nobody, the currency's external account */
    int64_t capacity;        /* 1..TICKET_CAPACITY_MAX */
    int64_t held, sold;      /* tickets of pending, and of confirmed bookings */
    int64_t price;           /* minor units of one ticket; 0: free. Never changes. */
    money_currency currency; /* of price; also when it is free */
    enum ticket_event_status status;
    int64_t starts_us; /* 0: not known */
    int64_t created_us;
};

enum ticket_state {
    TICKET_HELD = 0,
    TICKET_PAYING = 1,
    TICKET_UNKNOWN = 2,
    TICKET_CONFIRMED = 3,
    TICKET_CANCELLED = 4,
    TICKET_EXPIRED = 5,
    TICKET_STATES = 6
};

/* Why a booking was cancelled. */
enum ticket_reason { TICKET_NO_REASON = 0, TICKET_BY_USER = 1, TICKET_DECLINED = 2, TICKET_EVENT_GONE = 3 };

struct ticket_booking {
    int64_t id; /* 1, 2, 3 … */
    uint8_t uuid[16];
    int64_t event;
    uint8_t event_uuid[16];
    int64_t user;                     /* the buyer; 0: a guest */
    char guest[TICKET_GUEST_MAX + 1]; /* a guest's name; empty for users */
    int64_t count;                    /* tickets, 1..TICKET_COUNT_MAX */
    int64_t amount;                   /* minor units of all of them; 0: free */
    money_currency currency;
    enum ticket_state state;
    enum ticket_reason reason; /* CANCELLED */
    int64_t version;           /* 1 when made; each move adds 1 */
    int64_t hold_seq;          /* journal entry of the newest hold on the buyer's account; 0: none */
    int64_t paid_seq;          /* of its capture; 0: none */
    int64_t expires_us;        /* pending no longer than this */
    int64_t created_us, updated_us;
};

struct ticket_ask { /* a booking to be made */
    int64_t id;     /* what it will carry */
    uint8_t uuid[16];
    int64_t user;     /* 0: a guest */
    struct str guest; /* 1..TICKET_GUEST_MAX bytes of UTF-8 without NUL; empty for users */
    int64_t count;
    int64_t now_us, hold_us; /* expires hold_us after now_us */
};

static inline int64_t ticket_free(const struct ticket_event *e)
{
    return e->capacity - e->held - e->sold;
}

static inline bool ticket_pending(enum ticket_state s)
{
    return s <= TICKET_UNKNOWN;
}

/* Is money of its buyer held for it (if it costs any)? */
static inline bool ticket_holds_money(const struct ticket_booking *b)
{
    return (b->state == TICKET_PAYING || b->state == TICKET_UNKNOWN) && b->amount > 0;
}

/* "PENDING", "CONFIRMED", "CANCELLED", "EXPIRED": what the outside is told. */
const char *ticket_status_name(enum ticket_state s);
/* "by_user", "declined", "event_cancelled"; "" for none. */
const char *ticket_reason_name(enum ticket_reason r);
/* The picture above. */
bool ticket_may_move(enum ticket_state from, enum ticket_state to);

/* What an event must be to be made. PFE_INVALID, and p names the fields: capacity, price, currency, starts_us (must be
   later than now_us, or 0), counters and status 0. */
enum pf_err ticket_event_check(const struct ticket_event *e, int64_t now_us, struct problem *p) MUSTCHECK;

/*
 * All of these change *e and *b on PFE_OK only, and both together. b is e's booking, or PFE_INTERNAL.
 *
 * Refusals of ticket_hold, the first that holds: PFE_INVALID (count, or neither or both of user and guest),
 * PFE_EVENT_CANCELLED, PFE_EVENT_OVER (now_us >= starts_us), PFE_GUEST_CANNOT_PAY (a price, and no account that pays
 * it), PFE_SAME_ACCOUNT (a price, and the organiser is the buyer), PFE_SOLD_OUT (fewer than count are free).
 */
enum pf_err ticket_hold(struct ticket_event *e, const struct ticket_ask *ask, struct ticket_booking *ret_b) MUSTCHECK;
/* HELD → PAYING; the caller holds b->amount. PFE_EVENT_CANCELLED, PFE_WRONG_STATE. */
enum pf_err ticket_pay(struct ticket_event *e, struct ticket_booking *b, int64_t now_us) MUSTCHECK;
/* PAYING → UNKNOWN. PFE_WRONG_STATE. */
enum pf_err ticket_doubt(struct ticket_event *e, struct ticket_booking *b, int64_t now_us) MUSTCHECK;
/* → CONFIRMED; the caller captures. An expired booking takes free tickets again: PFE_SOLD_OUT, PFE_EVENT_OVER.
   PFE_EVENT_CANCELLED, PFE_WRONG_STATE. */
enum pf_err ticket_confirm(struct ticket_event *e, struct ticket_booking *b, int64_t now_us) MUSTCHECK;
/* → CANCELLED; the caller releases what ticket_holds_money said before. PFE_WRONG_STATE. */
enum pf_err ticket_cancel(struct ticket_event *e, struct ticket_booking *b, enum ticket_reason why,
                          int64_t now_us) MUSTCHECK;
/* → EXPIRED; the caller releases, as above. PFE_WRONG_STATE: not pending, or its time has not come. */
enum pf_err ticket_expire(struct ticket_event *e, struct ticket_booking *b, int64_t now_us) MUSTCHECK;

/* The mock payment provider: approves up to TICKET_MOCK_MAX tickets. */
static inline bool ticket_mock_approves(const struct ticket_booking *b)
{
    return b->count <= TICKET_MOCK_MAX;
}

#endif
