/*
 * rabbit: the bus over RabbitMQ (AMQP 0-9-1, librabbitmq).
 *
 * Names on the broker, all durable. Every connection declares all of them, so that no message is published before the
 * queue is there that waits for it:
 *
 *   payflow            topic exchange; the routing key is a message's type. Whoever wants to listen binds a queue to it
 *   payflow.QUEUE      a subscription's queue, bound to its types; what it rejects goes, by the exchange payflow.again,
 *   payflow.QUEUE.again    here, and after rabbit_options.again_ms back: delayed retries
 *   payflow.QUEUE.dead     what ended in BUS_DEAD or came BUS_TRIES_MAX times
 *
 * Messages are persistent and published as mandatory; `taken` is the broker's confirm, and not given for one of these
 * queues' types that was returned as unroutable: somebody has deleted the queue, and the next connection makes it
 * again. A message of another type is for nobody in particular, and being returned is no harm. A confirm that does not
 * come within publish_ms costs the connection. message_id is the
 * message's id, type its type, timestamp the seconds of created_us, headers x-key and x-created-us the rest.
 *
 * A connection is one thread's own: the publisher's is the thread's that calls bus_publish, and each subscription has a
 * thread with a connection. Acknowledgements are manual; at most prefetch deliveries are out. Those whose connection is
 * lost come again by the next; settling them then does nothing.
 */
#ifndef BUS_RABBIT_H
#define BUS_RABBIT_H

#include "port/bus.h"

/* A queue and what it is bound to, whoever subscribes. Lives as long as the bus. */
struct rabbit_queue {
    const char *name; /* as in bus_subscription */
    const char *const *types;
    unsigned n_types;
};

struct rabbit_options {
    const char *url;    /* amqp[s]://USER:PASSWORD@HOST:PORT/VHOST; borrowed for the call, never logged */
    const char *cacert; /* PEM file that amqps:// trusts; NULL or "": the system's */
    const struct rabbit_queue *queues;
    unsigned n_queues;
    unsigned publish_ms;  /* 0: 5000 */
    unsigned again_ms;    /* 0: 2000 */
    unsigned heartbeat_s; /* 0: 10 */
    unsigned connect_ms;  /* 0: 3000 */
};

/* Looks at the URL only: connecting is done, and done again, when there is need. PFE_WRONG_STATE: the URL; ret_why is
   one line without secrets. PFE_NOMEM. */
enum pf_err bus_rabbit_open(const struct rabbit_options *o, struct bus **ret, char ret_why[256]) MUSTCHECK;

#endif
