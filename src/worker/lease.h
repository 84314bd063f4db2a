/* lease: the thread that keeps the instance's leases (app/lease.h). One owner, started and stopped by main. */
#ifndef WORKER_LEASE_H
#define WORKER_LEASE_H

#include "app/app.h"
#include "worker/ticker.h"

struct ticker *lease_keeper_start(struct app *a); /* NULL: no memory or no thread */
/* Ends the thread and gives the leases back; the jobs under them must have ended. k may be NULL: then nothing. */
void lease_keeper_stop(struct ticker *k, struct app *a);

#endif
