/*
 * payments: the payment worker. It hears of bookings over the bus and has each settled (BOOKING_SETTLE in
 * app/bookings.h): its payment is decided, and the booking confirmed with its money or cancelled with its tickets, in
 * one commit, which also keeps that the message was dealt with. Messages are handed to the ledger writer as they come,
 * so that it decides many in one group; nothing waits for another.
 *
 * What a message ends in: dealt with, a refusal too (BUS_DONE); it is no message of version 1 with a booking's UUID
 * (BUS_DEAD); the store does not know the booking, or the worker stops (BUS_AGAIN). While the store takes nothing, or
 * it is not known whether it did, messages wait here and are tried again: the inbox makes a second time harmless.
 */
#ifndef APP_PAYMENTS_H
#define APP_PAYMENTS_H

#include "app/app.h"
#include "port/bus.h"

#define PAYMENTS_QUEUE "payment"
/* The types that it hears: for rabbit_options. */
extern const char *const payments_types[];
extern const unsigned payments_types_n;

struct payments;

/* Subscribes. NULL: out of memory or threads, or the bus has no room. */
struct payments *payments_start(struct app *a, struct bus *b);
/* Gives back what waits. When the bus is quiet (bus_quiesce), before the app's writer ends. NULL is allowed, and twice.
 */
void payments_stop(struct payments *p);
/* After the app's writer has ended and the bus is closed. NULL is allowed. */
void payments_free(struct payments *p);

#endif
