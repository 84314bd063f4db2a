#include "app/payments.h"

#include <stdlib.h>

#include "app/bookings.h"
#include "app/internal.h"
#include "codec/json_in.h"
#include "codec/uuid.h"

const char *const payments_types[] = {"BookingCreated"};
const unsigned payments_types_n = sizeof payments_types / sizeof payments_types[0];

struct payments {
    struct app *a;
    struct bus_subscription sub;
    struct metric_counter *confirmed, *declined, *late, *again, *dead;
};

struct payment { /* one message at work */
    struct payments *of;
    struct bus_delivery *delivery;
    struct job job;
    struct booking b;
};

/* A refusal was noted as dealt with, but for these two. NOT_FOUND may come of a store that lags behind the one that
 * wrote the message: it is tried again, and dies in time. INVALID: the message has no id that can be noted. */
static enum bus_verdict verdict_of(const struct job *j)
{
    if (j->err == PFE_OK)
        return BUS_DONE;
    if (!j->refusal || j->err == PFE_NOT_FOUND)
        return BUS_AGAIN;
    return j->err == PFE_INVALID ? BUS_DEAD : BUS_DONE;
}

static void count(const struct payments *p, const struct booking *b, enum bus_verdict v)
{
    if (v == BUS_AGAIN)
        metric_inc(p->again, 1);
    else if (v == BUS_DEAD)
        metric_inc(p->dead, 1);
    else if (b->moved && b->b.state == TICKET_CONFIRMED)
        metric_inc(p->confirmed, 1);
    else if (b->moved)
        metric_inc(p->declined, 1);
    else
        metric_inc(p->late, 1);
}

static void settled(struct job *j)
{
    struct payment *m = j->ctx;
    enum bus_verdict v = verdict_of(j);
    count(m->of, &m->b, v);
    bus_settle(m->delivery, v);
    free(m);
}

static bool is_text(const struct json *v)
{
    return v && v->type == JSON_STRING;
}

/* The booking that a message is about. PFE_BAD_JSON: it is none of ours; PFE_NOMEM. */
static enum pf_err read_message(const struct bus_message *m, uint8_t booking[16])
{
    char first[4096];
    struct arena arena;
    struct json *root;
    struct uuid id;
    arena_init(&arena, first, sizeof first, 1 << 20);
    enum pf_err e = json_parse(&arena, m->payload, &root, NULL);
    if (e == PFE_OK) {
        const struct json *version = json_get(root, "version"), *text = json_get(root, "booking_id");
        bool good = version && version->type == JSON_NUMBER && str_is(version->s, "1") && is_text(text) &&
                    uuid_parse(text->s, &id);
        if (good)
            memcpy(booking, id.b, sizeof id.b);
        else
            e = PFE_BAD_JSON;
    }
    arena_reset(&arena);
    return e;
}

static void heard(void *ctx, struct bus_delivery *d, const struct bus_message *msg)
{
    struct payments *p = ctx;
    struct payment *m = calloc(1, sizeof *m);
    enum pf_err e = m ? read_message(msg, m->b.uuid) : PFE_NOMEM;
    if (e == PFE_OK) {
        m->of = p;
        m->delivery = d;
        m->b.op = BOOKING_SETTLE;
        m->b.consumer = STR(PAYMENTS_QUEUE);
        memcpy(m->b.message, msg->id, sizeof m->b.message);
        m->job = (struct job){.kind = JOB_BOOKINGS, .booking = &m->b, .n_bookings = 1, .done = settled, .ctx = m};
        e = app_submit(p->a, &m->job);
        if (e == PFE_OK)
            return; /* m may be gone already */
    }
    free(m);
    enum bus_verdict v = e == PFE_BAD_JSON ? BUS_DEAD : BUS_AGAIN;
    metric_inc(v == BUS_DEAD ? p->dead : p->again, 1);
    bus_settle(d, v);
}

struct payments *payments_start(struct app *a, struct bus *b)
{
    static const char name[] = "payflow_payments_total", help[] = "Payments of bookings, by outcome.";
    struct payments *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    struct metrics *m = a->d.metrics;
    p->a = a;
    p->confirmed = metric_counter(m, name, help, "outcome=\"confirmed\"");
    p->declined = metric_counter(m, name, help, "outcome=\"declined\"");
    p->late = metric_counter(m, name, help, "outcome=\"nothing_to_do\"");
    p->again = metric_counter(m, name, help, "outcome=\"again\"");
    p->dead = metric_counter(m, name, help, "outcome=\"dead\"");
    p->sub = (struct bus_subscription){.queue = PAYMENTS_QUEUE,
                                       .types = payments_types,
                                       .n_types = payments_types_n,
                                       .prefetch = BUS_BATCH_MAX,
                                       .fn = heard,
                                       .ctx = p};
    if (bus_subscribe(b, &p->sub) != PFE_OK) {
        free(p);
        return NULL;
    }
    return p;
}

void payments_free(struct payments *p)
{
    free(p);
}
