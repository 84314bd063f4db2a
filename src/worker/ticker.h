/* ticker: a thread that does one thing again and again, and sleeps in between until it is due or told to end. */
#ifndef WORKER_TICKER_H
#define WORKER_TICKER_H

#include <stdint.h>

struct ticker;

/* name: a literal of at most 15 bytes. step returns how long to wait before it is called again, µs (monotonic).
   NULL: no memory or no thread. */
struct ticker *ticker_start(const char *name, int64_t (*step)(void *ctx), void *ctx);
/* Waits for the step that it is at to return, then ends. NULL is allowed. */
void ticker_stop(struct ticker *l);

#endif
