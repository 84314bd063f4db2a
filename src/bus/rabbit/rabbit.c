#include "bus/rabbit/internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

enum { LOST_US = 15000000 };

static enum pf_err subscribe(struct bus *b, const struct bus_subscription *s)
{
    struct rabbit *r = rabbit_of(b);
    struct rabbit_consumer *c = r->n_consumers < RABBIT_SUBSCRIPTIONS_MAX ? rabbit_consumer_start(r, s) : NULL;
    if (!c)
        return PFE_NOMEM;
    pthread_mutex_lock(&r->lock);
    r->consumers[r->n_consumers++] = c;
    pthread_mutex_unlock(&r->lock);
    return PFE_OK;
}

static void quiesce(struct bus *b)
{
    struct rabbit *r = rabbit_of(b);
    for (unsigned i = 0; i < r->n_consumers; i++)
        rabbit_consumer_quiesce(r->consumers[i]);
}

static void stats(struct bus *b, struct bus_stats *ret)
{
    struct rabbit *r = rabbit_of(b);
    pthread_mutex_lock(&r->lock);
    *ret = r->stats;
    /* Without subscribers, the first publish connects. Who publishes tries again at once; who has left off since, as
       another instance does it now, knows nothing of the broker any more. */
    bool lost = r->lost_us && clock_mono(clock_system()) - r->lost_us < LOST_US;
    ret->up = (r->links > 0 || r->n_consumers == 0) && !lost;
    pthread_mutex_unlock(&r->lock);
}

static void rabbit_close(struct bus *b)
{
    struct rabbit *r = rabbit_of(b);
    for (unsigned i = 0; i < r->n_consumers; i++)
        rabbit_consumer_stop(r->consumers[i]);
    rabbit_disconnect(r, r->out);
    pthread_mutex_destroy(&r->lock);
    free(r->cacert);
    free(r->url);
    free(r);
}

static const struct bus_ops ops = {.close = rabbit_close,
                                   .publish = rabbit_publish,
                                   .subscribe = subscribe,
                                   .settle = rabbit_settle,
                                   .quiesce = quiesce,
                                   .stats = stats};

enum pf_err bus_rabbit_open(const struct rabbit_options *o, struct bus **ret, char ret_why[256])
{
    struct rabbit *r = calloc(1, sizeof *r);
    if (!r || pthread_mutex_init(&r->lock, NULL) != 0) {
        free(r);
        snprintf(ret_why, RABBIT_WHY, "out of memory");
        return PFE_NOMEM;
    }
    r->base.ops = &ops;
    r->queues = o->queues;
    r->n_queues = o->n_queues;
    r->publish_ms = o->publish_ms ? o->publish_ms : 5000;
    r->again_ms = o->again_ms ? o->again_ms : 2000;
    r->heartbeat_s = o->heartbeat_s ? o->heartbeat_s : 10;
    r->connect_ms = o->connect_ms ? o->connect_ms : 3000;
    r->stats.engine = "rabbitmq";
    r->url = strdup(o->url);
    r->cacert = o->cacert && *o->cacert ? strdup(o->cacert) : NULL;
    enum pf_err e = PFE_OK;
    if (!r->url || (o->cacert && *o->cacert && !r->cacert)) {
        snprintf(ret_why, RABBIT_WHY, "out of memory");
        e = PFE_NOMEM;
    } else if (amqp_parse_url(r->url, &r->where) != AMQP_STATUS_OK) {
        snprintf(ret_why, RABBIT_WHY, "AMQP_URL is not amqp://USER:PASSWORD@HOST:PORT/VHOST");
        e = PFE_WRONG_STATE;
    }
    if (e != PFE_OK) {
        rabbit_close(&r->base);
        return e;
    }
    ret_why[0] = '\0';
    *ret = &r->base;
    return PFE_OK;
}
