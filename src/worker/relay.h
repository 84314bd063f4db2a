/*
 * relay: the thread that takes messages from the store's outbox to the bus (port/bus.h), in the order of their commits,
 * and deletes what was taken. Of all instances over a store the one that has the lease of the job works (app/lease.h);
 * a message may all the same be published more than once, for whoever deletes it may be stopped before.
 *
 * It is woken by this process's own commits, and looks by itself for what others wrote. What the bus does not take
 * stays in the outbox and is tried again, after 0.1 s at first and after 5 s at most. Once an hour it has the inbox
 * forget the messages that are older than RELAY_INBOX_DAYS: by then none of them comes any more.
 */
#ifndef WORKER_RELAY_H
#define WORKER_RELAY_H

#include <stdint.h>

#include "app/app.h"
#include "port/bus.h"

enum { RELAY_INBOX_DAYS = 30 };

struct relay;

struct relay *relay_start(struct app *a, struct bus *b); /* NULL: no memory or no thread */
/* Ends the thread after the batch that it is at: quickly when the bus is quiet (bus_quiesce). Before the bus and the
   lease keeper end. NULL is allowed, and twice. */
void relay_stop(struct relay *r);
/* After the last scrape of the metrics. */
void relay_free(struct relay *r);

#endif
