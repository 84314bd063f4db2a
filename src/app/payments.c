#include "app/payments.h"

#include <pthread.h>
#include <stdlib.h>

#include "app/bookings.h"
#include "app/internal.h"
#include "codec/json_in.h"
#include "codec/uuid.h"

const char *const payments_types[] = {"BookingCreated"};
const unsigned payments_types_n = sizeof payments_types / sizeof payments_types[0];

enum { RETRY_US = 250000 };

struct payment;

struct payments {
    struct app *a;
    struct bus_subscription sub;
    pthread_t thread;
    pthread_mutex_t lock; /* over */
    pthread_cond_t change;
    struct payment *waiting; /* for the store to take them */
    bool stopping, running;
    struct metric_counter *confirmed, *declined, *late, *retried, *again, *dead;
};

struct payment { /* one message at work */
    struct payments *of;
    struct payment *next;
    struct bus_delivery *delivery;
    uint8_t booking[16], message[16];
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

/* The store did not take it, or nobody knows. Deliveries are counted and end, and a store may be away for longer than
 * they last: so it waits here, not on the bus. false: the worker stops. */
static bool keep(struct payment *m)
{
    struct payments *p = m->of;
    pthread_mutex_lock(&p->lock);
    bool kept = !p->stopping;
    if (kept) {
        m->next = p->waiting;
        p->waiting = m;
        pthread_cond_signal(&p->change);
    }
    pthread_mutex_unlock(&p->lock);
    if (kept)
        metric_inc(p->retried, 1);
    return kept;
}

static void settle(struct payment *m, enum bus_verdict v)
{
    count(m->of, &m->b, v);
    bus_settle(m->delivery, v);
    free(m);
}

static void settled(struct job *j)
{
    struct payment *m = j->ctx;
    enum bus_verdict v = verdict_of(j);
    if (v == BUS_AGAIN && !j->refusal && keep(m))
        return;
    settle(m, v);
}

/* m is the writer's, or kept, or settled afterwards. */
static void submit(struct payment *m)
{
    struct booking fresh = {.op = BOOKING_SETTLE, .consumer = STR(PAYMENTS_QUEUE)};
    memcpy(fresh.uuid, m->booking, sizeof fresh.uuid);
    memcpy(fresh.message, m->message, sizeof fresh.message);
    m->b = fresh;
    m->job = (struct job){.kind = JOB_BOOKINGS, .booking = &m->b, .n_bookings = 1, .done = settled, .ctx = m};
    if (app_submit(m->of->a, &m->job) != PFE_OK && !keep(m))
        settle(m, BUS_AGAIN);
}

static struct payment *take_waiting(struct payments *p)
{
    struct payment *list = p->waiting;
    p->waiting = NULL;
    return list;
}

static void *retry(void *arg)
{
    struct payments *p = arg;
    pthread_setname_np(pthread_self(), "payments");
    pthread_mutex_lock(&p->lock);
    while (!p->stopping) {
        if (!p->waiting) {
            pthread_cond_wait(&p->change, &p->lock);
            continue;
        }
        int64_t at = clock_mono(clock_system()) + RETRY_US;
        struct timespec t = {.tv_sec = at / 1000000, .tv_nsec = at % 1000000 * 1000};
        while (!p->stopping && pthread_cond_clockwait(&p->change, &p->lock, CLOCK_MONOTONIC, &t) == 0)
            continue;
        struct payment *list = p->stopping ? NULL : take_waiting(p);
        pthread_mutex_unlock(&p->lock);
        for (struct payment *m = list, *next; m; m = next) {
            next = m->next;
            submit(m);
        }
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
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
    enum pf_err e = m ? read_message(msg, m->booking) : PFE_NOMEM;
    if (e == PFE_OK) {
        m->of = p;
        m->delivery = d;
        memcpy(m->message, msg->id, sizeof m->message);
        submit(m);
        return;
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
    p->retried = metric_counter(m, name, help, "outcome=\"retried\"");
    p->again = metric_counter(m, name, help, "outcome=\"again\"");
    p->dead = metric_counter(m, name, help, "outcome=\"dead\"");
    p->sub = (struct bus_subscription){.queue = PAYMENTS_QUEUE,
                                       .types = payments_types,
                                       .n_types = payments_types_n,
                                       .prefetch = BUS_BATCH_MAX,
                                       .fn = heard,
                                       .ctx = p};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->change, NULL);
    p->running = pthread_create(&p->thread, NULL, retry, p) == 0;
    if (!p->running || bus_subscribe(b, &p->sub) != PFE_OK) {
        payments_stop(p);
        payments_free(p);
        return NULL;
    }
    return p;
}

void payments_stop(struct payments *p)
{
    if (!p || !p->running)
        return;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_signal(&p->change);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    p->running = false;
    for (struct payment *m = take_waiting(p), *next; m; m = next) {
        next = m->next;
        settle(m, BUS_AGAIN);
    }
}

void payments_free(struct payments *p)
{
    if (!p)
        return;
    pthread_cond_destroy(&p->change);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
