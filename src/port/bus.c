#include "port/bus.h"

enum pf_err bus_publish(struct bus *b, const struct bus_message *m, size_t n, bool *ret_taken)
{
    return b->ops->publish(b, m, n, ret_taken);
}

enum pf_err bus_subscribe(struct bus *b, const struct bus_subscription *s)
{
    return b->ops->subscribe(b, s);
}

void bus_settle(struct bus_delivery *d, enum bus_verdict v)
{
    d->bus->ops->settle(d, v);
}

void bus_quiesce(struct bus *b)
{
    b->ops->quiesce(b);
}

void bus_stats(struct bus *b, struct bus_stats *ret)
{
    b->ops->stats(b, ret);
}

void bus_close(struct bus *b)
{
    if (b)
        b->ops->close(b);
}
