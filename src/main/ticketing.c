/* Ticketing, wired together: documents of events, messages, and the payment worker. */
#include "main/ticketing.h"

#include <stdlib.h>

#include "app/lease.h"
#include "app/payments.h"
#include "base/log.h"
#include "bus/local/local.h"
#include "bus/rabbit/rabbit.h"
#include "documents/guard/guard.h"
#include "documents/mongo/mongo.h"
#include "port/store.h"
#include "worker/relay.h"
#include "worker/ticker.h"

struct ticketing {
    struct documents *documents;
    bool guarded; /* they have a server of their own, behind documents/guard */
    struct ticker *look;
    struct bus *bus;
    bool pays, relays;
    struct payments *payments;
    struct relay *relay;
};

static enum pf_err open_documents(struct ticketing *t, const struct conf *c, struct store *s, char why[256])
{
    if (!c->mongo_url[0]) {
        t->documents = store_documents(s);
        return t->documents ? PFE_OK : PFE_NOMEM;
    }
    struct mongo_options o = {.url = c->mongo_url};
    struct documents *mongo;
    enum pf_err e = documents_mongo_open(&o, &mongo, why);
    if (e != PFE_OK)
        return e;
    t->documents = documents_guard_new(mongo, clock_system());
    t->guarded = t->documents != NULL;
    if (t->guarded)
        return PFE_OK;
    documents_close(mongo);
    return PFE_NOMEM;
}

static enum pf_err open_bus(struct ticketing *t, const struct conf *c, char why[256])
{
    if (!c->amqp_url[0]) {
        t->bus = bus_local_open(0);
        return t->bus ? PFE_OK : PFE_NOMEM;
    }
    static struct rabbit_queue queue = {.name = PAYMENTS_QUEUE, .types = payments_types};
    queue.n_types = payments_types_n;
    struct rabbit_options o = {.url = c->amqp_url, .queues = &queue, .n_queues = 1};
    return bus_rabbit_open(&o, &t->bus, why);
}

enum pf_err main_ticketing_open(const struct conf *c, const struct duties *d, struct store *s, struct metrics *m,
                                struct ticketing **ret, char why[256])
{
    struct ticketing *t = calloc(1, sizeof *t);
    if (!t)
        return PFE_NOMEM;
    *ret = t;
    t->pays = d->payments;
    t->relays = d->jobs & 1u << APP_LEASE_RELAY;
    enum pf_err e = d->documents ? open_documents(t, c, s, why) : PFE_OK;
    if (e == PFE_OK && (t->pays || t->relays))
        e = open_bus(t, c, why);
    if (e == PFE_OK && t->bus)
        main_bus_gauges(m, t->bus);
    return e;
}

struct documents *main_ticketing_documents(const struct ticketing *t)
{
    return t->documents;
}

struct bus *main_ticketing_bus(const struct ticketing *t)
{
    return t->bus;
}

bool main_ticketing_start(struct ticketing *t, struct app *a)
{
    t->look = t->guarded ? ticker_start("documents", documents_guard_look, t->documents) : NULL;
    if (t->guarded && !t->look)
        return false;
    t->payments = t->pays ? payments_start(a, t->bus) : NULL;
    if (t->pays && !t->payments)
        return false;
    t->relay = t->relays ? relay_start(a, t->bus) : NULL;
    return t->relay || !t->relays;
}

void main_ticketing_stop(struct ticketing *t)
{
    if (!t)
        return;
    if (t->bus)
        bus_quiesce(t->bus);
    payments_stop(t->payments);
    relay_stop(t->relay); /* its publish has nothing left to wait for */
    ticker_stop(t->look);
    t->look = NULL;
}

void main_ticketing_close(struct ticketing *t)
{
    if (!t)
        return;
    relay_free(t->relay);
    bus_close(t->bus);
    payments_free(t->payments);
    documents_close(t->documents);
    free(t);
}
