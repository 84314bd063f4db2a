#include "domain/ticketing/ticketing.h"

/* Where a booking's tickets are counted. */
enum stock { RETURNED, HELD, SOLD };

static const struct state_info {
    const char *name;
    enum stock stock;
    unsigned to; /* bit per state that it may move to */
} states[TICKET_STATES] = {
#define TO(s) (1u << (TICKET_##s))
    [TICKET_HELD] = {"PENDING", HELD, TO(PAYING) | TO(CONFIRMED) | TO(CANCELLED) | TO(EXPIRED)},
    [TICKET_PAYING] = {"PENDING", HELD, TO(UNKNOWN) | TO(CONFIRMED) | TO(CANCELLED) | TO(EXPIRED)},
    [TICKET_UNKNOWN] = {"PENDING", HELD, TO(CONFIRMED) | TO(CANCELLED) | TO(EXPIRED)},
    [TICKET_CONFIRMED] = {"CONFIRMED", SOLD, 0},
    [TICKET_CANCELLED] = {"CANCELLED", RETURNED, 0},
    [TICKET_EXPIRED] = {"EXPIRED", RETURNED, TO(CONFIRMED)},
#undef TO
};

const char *ticket_status_name(enum ticket_state s)
{
    return (unsigned)s < TICKET_STATES ? states[s].name : "";
}

const char *ticket_reason_name(enum ticket_reason r)
{
    switch (r) {
    case TICKET_NO_REASON:
        return "";
    case TICKET_BY_USER:
        return "by_user";
    case TICKET_DECLINED:
        return "declined";
    case TICKET_EVENT_GONE:
        return "event_cancelled";
    }
    return "";
}

bool ticket_may_move(enum ticket_state from, enum ticket_state to)
{
    return (unsigned)from < TICKET_STATES && (unsigned)to < TICKET_STATES && (states[from].to >> to & 1);
}

enum pf_err ticket_event_check(const struct ticket_event *e, int64_t now_us, struct problem *p)
{
    enum pf_err err = PFE_OK;
    if (e->capacity < 1 || e->capacity > TICKET_CAPACITY_MAX)
        err = problem_field(p, "body", "total_tickets", "range", "must be from 1 to %d", TICKET_CAPACITY_MAX);
    if (e->price < 0 || e->price > TICKET_PRICE_MAX)
        err = problem_field(p, "body", "price", "range", "must not be negative, nor of so many digits");
    if (!money_by_num(e->currency))
        err = problem_field(p, "body", "currency", "enum", "must be an ISO 4217 currency code");
    if (e->starts_us < 0 || (e->starts_us != 0 && e->starts_us <= now_us))
        err = problem_field(p, "body", "date", "range", "must be in the future");
    if (err == PFE_OK && (e->held != 0 || e->sold != 0 || e->organiser < 0 || e->status != TICKET_EVENT_OPEN))
        err = PFE_INVALID;
    return err;
}

static bool over(const struct ticket_event *e, int64_t now_us)
{
    return e->starts_us != 0 && now_us >= e->starts_us;
}

static bool asks_well(const struct ticket_ask *a)
{
    bool guest = a->user == 0 && a->guest.n >= 1 && a->guest.n <= TICKET_GUEST_MAX && str_utf8_ok(a->guest) &&
                 !memchr(a->guest.p, '\0', a->guest.n);
    bool user = a->user > 0 && a->guest.n == 0;
    return a->count >= 1 && a->count <= TICKET_COUNT_MAX && (guest || user) && a->hold_us > 0;
}

enum pf_err ticket_hold(struct ticket_event *e, const struct ticket_ask *ask, struct ticket_booking *ret_b)
{
    if (!asks_well(ask))
        return PFE_INVALID;
    if (e->status != TICKET_EVENT_OPEN)
        return PFE_EVENT_CANCELLED;
    if (over(e, ask->now_us))
        return PFE_EVENT_OVER;
    if (e->price > 0 && ask->user == 0)
        return PFE_GUEST_CANNOT_PAY;
    if (e->price > 0 && ask->user == e->organiser)
        return PFE_SAME_ACCOUNT;
    if (ask->count > ticket_free(e))
        return PFE_SOLD_OUT;

    int64_t amount;
    if (__builtin_mul_overflow(e->price, ask->count, &amount))
        return PFE_INVALID;
    struct ticket_booking b = {
        .id = ask->id,
        .event = e->id,
        .user = ask->user,
        .count = ask->count,
        .amount = amount,
        .currency = e->currency,
        .state = TICKET_HELD,
        .version = 1,
        .expires_us = ask->now_us + ask->hold_us,
        .created_us = ask->now_us,
        .updated_us = ask->now_us,
    };
    memcpy(b.uuid, ask->uuid, sizeof b.uuid);
    memcpy(b.event_uuid, e->uuid, sizeof b.event_uuid);
    if (ask->guest.n)
        memcpy(b.guest, ask->guest.p, ask->guest.n);
    e->held += ask->count;
    *ret_b = b;
    return PFE_OK;
}

/* The one place where a booking changes its state, and its event's stock with it. */
static enum pf_err move(struct ticket_event *e, struct ticket_booking *b, enum ticket_state to, int64_t now_us)
{
    if (b->event != e->id)
        return PFE_INTERNAL;
    if (!ticket_may_move(b->state, to))
        return PFE_WRONG_STATE;
    enum stock was = states[b->state].stock, is = states[to].stock;
    if (was == RETURNED && is != RETURNED && b->count > ticket_free(e))
        return PFE_SOLD_OUT;
    int64_t held = e->held, sold = e->sold;
    held += (is == HELD ? b->count : 0) - (was == HELD ? b->count : 0);
    sold += (is == SOLD ? b->count : 0) - (was == SOLD ? b->count : 0);
    if (held < 0 || sold < 0) /* the booking is not in the event's counters */
        return PFE_INTERNAL;
    e->held = held;
    e->sold = sold;
    b->state = to;
    b->version++;
    b->updated_us = now_us;
    return PFE_OK;
}

static enum pf_err check_move(const struct ticket_event *e, const struct ticket_booking *b, enum ticket_state to)
{
    if (!ticket_may_move(b->state, to))
        return PFE_WRONG_STATE;
    return e->status == TICKET_EVENT_OPEN ? PFE_OK : PFE_EVENT_CANCELLED;
}

enum pf_err ticket_pay(struct ticket_event *e, struct ticket_booking *b, int64_t now_us)
{
    enum pf_err err = check_move(e, b, TICKET_PAYING);
    return err == PFE_OK ? move(e, b, TICKET_PAYING, now_us) : err;
}

enum pf_err ticket_doubt(struct ticket_event *e, struct ticket_booking *b, int64_t now_us)
{
    return move(e, b, TICKET_UNKNOWN, now_us);
}

enum pf_err ticket_confirm(struct ticket_event *e, struct ticket_booking *b, int64_t now_us)
{
    enum pf_err err = check_move(e, b, TICKET_CONFIRMED);
    if (err == PFE_OK && b->state == TICKET_EXPIRED && over(e, now_us))
        err = PFE_EVENT_OVER;
    return err == PFE_OK ? move(e, b, TICKET_CONFIRMED, now_us) : err;
}

enum pf_err ticket_cancel(struct ticket_event *e, struct ticket_booking *b, enum ticket_reason why, int64_t now_us)
{
    enum pf_err err = move(e, b, TICKET_CANCELLED, now_us);
    if (err == PFE_OK)
        b->reason = why;
    return err;
}

enum pf_err ticket_expire(struct ticket_event *e, struct ticket_booking *b, int64_t now_us)
{
    if (now_us < b->expires_us)
        return PFE_WRONG_STATE;
    return move(e, b, TICKET_EXPIRED, now_us);
}
