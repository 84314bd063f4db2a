/*
 * bus: messages from one service to another, each at least once.
 *
 * Who has something to tell writes it into the store's outbox, in the commit of what it tells (port/store.h). A relay
 * publishes from there, and forgets what was taken. Who is told keeps the ids of what it has dealt with in the commit
 * of its effect (the inbox): a message may come any number of times, late, and after younger ones.
 *
 * Two engines: local delivers to subscribers in the process, where `taken` means dealt with, so that what a crash loses
 * still stands in the outbox; rabbit hands over to RabbitMQ, where `taken` means that the broker has confirmed it
 * on disk. One contract suite runs over both (tests/contract/test_bus.c).
 *
 * Errors: PFE_UNAVAILABLE; PFE_NOMEM. Both engines connect, and connect again, by themselves.
 */
#ifndef PORT_BUS_H
#define PORT_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum {
    BUS_BATCH_MAX = 512,     /* messages published at once */
    BUS_TYPE_MAX = 64,       /* bytes of [A-Za-z0-9.] */
    BUS_PAYLOAD_MAX = 65536, /* bytes */
    BUS_TYPES_MAX = 8,       /* of one subscription */
    BUS_TRIES_MAX = 10       /* deliveries of one message to one queue; then it is dead */
};

struct bus;
struct bus_delivery; /* one message at one subscriber */

struct bus_message {
    uint8_t id[16];     /* UUIDv7; the same each time that it comes */
    struct str type;    /* "BookingCreated" … */
    uint8_t key[16];    /* of what it is about */
    struct str payload; /* JSON */
    int64_t created_us;
    unsigned tries; /* deliveries before this one that ended in BUS_AGAIN, as far as is known; not for publishing */
};

enum bus_verdict {
    BUS_DONE,  /* dealt with */
    BUS_AGAIN, /* not now: deliver it again after a while */
    BUS_DEAD   /* it makes no sense, and never will: put it aside for a person to look at */
};

/* Called by the bus's threads, perhaps many at once. m and its strings are valid until the delivery is settled: once,
   by any thread, in or after this call. Must not block for long. */
typedef void (*bus_fn)(void *ctx, struct bus_delivery *d, const struct bus_message *m);

struct bus_subscription {
    const char *queue; /* a literal, 1..32 bytes of [a-z]: subscribers of one queue share its messages */
    const char *const *types;
    unsigned n_types;  /* 1..BUS_TYPES_MAX */
    unsigned prefetch; /* deliveries not settled at once, 1..BUS_BATCH_MAX */
    bus_fn fn;
    void *ctx;
};

struct bus_stats {
    const char *engine;                 /* "local", "rabbitmq" */
    bool up;                            /* connected; who has only published, or not yet: no publish failed last */
    uint64_t published, taken, refused; /* refused: not taken, the caller tries again */
    uint64_t delivered, done, again, dead;
    uint64_t connects;
    uint64_t unsettled; /* deliveries at work now */
};

struct bus_ops {
    void (*close)(struct bus *b);
    enum pf_err (*publish)(struct bus *b, const struct bus_message *m, size_t n, bool *ret_taken);
    enum pf_err (*subscribe)(struct bus *b, const struct bus_subscription *s);
    void (*settle)(struct bus_delivery *d, enum bus_verdict v);
    void (*quiesce)(struct bus *b);
    void (*stats)(struct bus *b, struct bus_stats *ret);
};

/* Engines embed these as the first member of theirs. */
struct bus {
    const struct bus_ops *ops;
};
struct bus_delivery {
    struct bus *bus;
};

/* Publishes in order and waits until each was taken or cannot be, some seconds at most. ret_taken[i] answers m[i]; what
   was not taken may have been delivered nevertheless. n <= BUS_BATCH_MAX. One thread at a time. An error: none was
   taken. */
enum pf_err bus_publish(struct bus *b, const struct bus_message *m, size_t n, bool *ret_taken) MUSTCHECK;
/* Deliveries begin at once, or when there is a connection. What s points to lives as long as the bus. */
enum pf_err bus_subscribe(struct bus *b, const struct bus_subscription *s) MUSTCHECK;
void bus_settle(struct bus_delivery *d, enum bus_verdict v);
/* No delivery begins after it returns; those at work may still be settled. Before the subscribers' own end. */
void bus_quiesce(struct bus *b);
void bus_stats(struct bus *b, struct bus_stats *ret);
/* Nothing may be unsettled, nobody in another call. NULL is allowed. */
void bus_close(struct bus *b);

#endif
