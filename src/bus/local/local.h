/*
 * local: the bus inside the process. publish calls the subscribers in the publisher's thread, one message after the
 * other, and waits until they have settled: what is not settled by then, or ended in BUS_AGAIN, was not taken, and
 * comes again with the next publish of it. A message nobody subscribed to is taken.
 *
 * BUS_DEAD is taken, counted, and its id and type are logged as an error; there is no queue to keep it in.
 */
#ifndef BUS_LOCAL_H
#define BUS_LOCAL_H

#include "port/bus.h"

/* wait_us: how long publish waits for the subscribers, µs; 0: 5 s. NULL: out of memory. */
struct bus *bus_local_open(int64_t wait_us);

#endif
