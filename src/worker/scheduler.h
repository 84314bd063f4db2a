/*
 * scheduler: the thread that runs due schedules and releases expired holds. One owner, started and stopped by main.
 */
#ifndef WORKER_SCHEDULER_H
#define WORKER_SCHEDULER_H

#include "app/app.h"

struct scheduler;

struct scheduler *scheduler_start(struct app *a); /* NULL: no memory or no thread */
/* Finishes the run that it is at, then ends. NULL is allowed. */
void scheduler_stop(struct scheduler *s);
/* What the thread does each time that it looks: runs what is due. Returns how long to wait until the next look, µs. */
int64_t scheduler_step(struct app *a);

#endif
