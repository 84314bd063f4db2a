/*
 * messages: from the store's outbox to the bus.
 *
 * The ledger writer puts a message into the outbox in the commit of what it tells (app/bookings.h); a relay
 * (worker/relay.h) takes it from there to the bus. Here the one wakes the other.
 */
#ifndef APP_MESSAGES_H
#define APP_MESSAGES_H

#include "app/app.h"

/* Returns once this process has committed messages since the last call, app_messages_wake was called since, or us have
   passed (monotonic). One thread at a time. */
void app_messages_wait(struct app *a, int64_t us);
/* Any thread; quick. */
void app_messages_wake(struct app *a);

#endif
