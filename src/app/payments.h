/*
 * payments: the payment worker. It hears of bookings over the bus and has each settled (BOOKING_SETTLE in
 * app/bookings.h): its payment is decided, and the booking confirmed with its money or cancelled with its tickets, in
 * one commit, which also keeps that the message was dealt with. Messages are handed to the ledger writer as they come,
 * so that it decides many in one group; nothing waits for another.
 *
 * What a message ends in: dealt with, a refusal too (BUS_DONE); the writer is full or the store not there, so that
 * nothing was done, or it is not known whether it was (BUS_AGAIN: the inbox makes a second time harmless); it is no
 * message of version 1 with a booking's UUID (BUS_DEAD).
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

/* Subscribes. NULL: out of memory, or the bus has no room. */
struct payments *payments_start(struct app *a, struct bus *b);
/* After the app's writer has ended and the bus is closed. NULL is allowed. */
void payments_free(struct payments *p);

#endif
