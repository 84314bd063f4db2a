/* Inside the rabbit engine: connections (link.c), the publisher (publish.c), the subscribers' threads (consume.c). */
#ifndef BUS_RABBIT_INTERNAL_H
#define BUS_RABBIT_INTERNAL_H

#include <amqp.h>
#include <pthread.h>
#include <stdatomic.h>

#include "bus/rabbit/rabbit.h"

enum { RABBIT_SUBSCRIPTIONS_MAX = 8, RABBIT_WHY = 256, RABBIT_NAME_MAX = 64, RABBIT_CHANNEL = 1, RABBIT_GRAVES = 2 };

#define RABBIT_EXCHANGE "payflow"
#define RABBIT_AGAIN "payflow.again"

struct rabbit_consumer;

struct rabbit {
    struct bus base;
    char *url;                         /* amqp_parse_url's, which cut it up: */
    struct amqp_connection_info where; /* points into it */
    char *cacert;                      /* NULL: the system's */
    const struct rabbit_queue *queues;
    unsigned n_queues;
    unsigned publish_ms, again_ms, heartbeat_s, connect_ms;

    amqp_connection_state_t out; /* the publisher's; NULL: not connected */
    uint64_t out_tag;            /* delivery tag of the last publish on it */

    pthread_mutex_t lock; /* over what follows */
    struct bus_stats stats;
    struct rabbit_consumer *consumers[RABBIT_SUBSCRIPTIONS_MAX];
    unsigned n_consumers;
    unsigned links;  /* connected now */
    int64_t lost_us; /* when a publish last found no way there; 0: the last one did */
};

static inline struct rabbit *rabbit_of(struct bus *b)
{
    return (struct rabbit *)b;
}

/* Connects and declares everything; channel RABBIT_CHANNEL is open. NULL: no; why is one line without secrets. */
amqp_connection_state_t rabbit_connect(struct rabbit *r, unsigned heartbeat_s, char why[RABBIT_WHY]);
/* NULL is allowed. */
void rabbit_disconnect(struct rabbit *r, amqp_connection_state_t c);
/* The reply to the last call, in words; true: it went well. */
bool rabbit_ok(amqp_rpc_reply_t reply, const char *what, char why[RABBIT_WHY]);
static inline amqp_bytes_t rabbit_bytes(struct str s)
{
    return (amqp_bytes_t){.len = s.n, .bytes = (void *)(uintptr_t)s.p};
}
static inline struct str rabbit_str(amqp_bytes_t b)
{
    return (struct str){b.bytes, b.len};
}
/* "payflow.QUEUE" and suffix. */
void rabbit_name(char out[RABBIT_NAME_MAX], const char *queue, const char *suffix);

/* A persistent, mandatory message; the confirm is the caller's affair. */
bool rabbit_send(amqp_connection_state_t c, amqp_channel_t channel, const char *exchange, struct str to,
                 const struct bus_message *m, char why[RABBIT_WHY]);
enum pf_err rabbit_publish(struct bus *b, const struct bus_message *m, size_t n, bool *ret_taken);

/* A thread that subscribes; NULL: no memory or no thread. */
struct rabbit_consumer *rabbit_consumer_start(struct rabbit *r, const struct bus_subscription *s);
void rabbit_consumer_quiesce(struct rabbit_consumer *c);
/* Ends the thread and frees; nothing is unsettled. */
void rabbit_consumer_stop(struct rabbit_consumer *c);
void rabbit_settle(struct bus_delivery *d, enum bus_verdict v);

#endif
