/*
 * scheduler: the thread that runs due schedules, releases expired holds and ends deletions that stopped: of all
 * instances over a store the one that has the lease of the job (app/lease.h); the others look on. One owner, started by
 * main and ended with ticker_stop.
 */
#ifndef WORKER_SCHEDULER_H
#define WORKER_SCHEDULER_H

#include "app/app.h"
#include "worker/ticker.h"

struct ticker *scheduler_start(struct app *a); /* NULL: no memory or no thread */
/* What the thread does each time that it looks: runs what is due. Returns how long to wait until the next look, µs. */
int64_t scheduler_step(struct app *a);

#endif
