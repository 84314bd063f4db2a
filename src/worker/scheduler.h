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

#endif
