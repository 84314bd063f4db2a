/*
 * lease: of all instances over a store, which one does a background job.
 *
 * Each job that works by itself and writes what is shared has a row here (a name in lease.c); later ones add theirs.
 * One thread of the instance keeps all leases (worker/lease.h): it takes what is free, renews what it has well before
 * it runs out, and gives it all back when the instance stops. The job itself asks before each piece of work, and hands
 * on the fence with whatever it writes:
 *
 *     struct store_fence f;
 *     if (!app_lease_fence(a, APP_LEASE_HOLDS, &f))
 *         return;                                  another instance does it
 *     struct job j = {…, .fence = &f};             movements: PFE_FENCED if the lease has moved on by then
 *     … store_tx_begin, store_tx_fence(tx, &f), … records: the same
 *
 * Two guards, then. By its own monotonic clock an instance stops a second before the lease can run out, counted from
 * before the renewal was sent, so that a slow or lost answer errs on the safe side. And where clocks are of no use (a
 * process that was stopped in the middle of its work), the store refuses what carries an old token, in the commit.
 *
 * Of an instance that dies, the jobs are taken over when its leases have run out: APP_LEASE_TTL_US after it last
 * renewed them, and at most APP_LEASE_LOOK_US. Of one that stops in good order, after APP_LEASE_LOOK_US at most.
 *
 * An embedded store has one process, and grants at once: there the fence is asked for in passing.
 *
 * What a request asks for, in several steps that must not mix with those of another instance's, borrows a lease for as
 * long as it takes (app_lease_borrow), and hands on the fence in the same way.
 */
#ifndef APP_LEASE_H
#define APP_LEASE_H

#include "app/app.h"

enum app_lease {
    APP_LEASE_SCHEDULES, /* due schedules */
    APP_LEASE_HOLDS,     /* expired holds of money and of tickets */
    APP_LEASE_RELAY,     /* messages from the outbox to the bus */
    APP_LEASES
};

enum {
    APP_LEASE_TTL_US = 6000000,
    APP_LEASE_RENEW_US = 2000000,  /* two renewals may fail */
    APP_LEASE_MARGIN_US = 1000000, /* before its end the holder stops working */
    APP_LEASE_LOOK_US = 500000     /* how often the others look whether it is free */
};

/* May the job work now? Then *ret is what its writes carry; its strings live as long as the app. Quick; any thread. */
bool app_lease_fence(struct app *a, enum app_lease l, struct store_fence *ret);

struct app_lease_state {
    const char *job;
    char holder[STORE_LEASE_HOLDER_MAX + 1]; /* as last heard; empty: nobody */
    int64_t token;                           /* 0: not heard of yet */
    bool held;                               /* by this instance */
};
/* Quick; any thread. */
void app_lease_state(struct app *a, enum app_lease l, struct app_lease_state *ret);

enum {
    APP_LEASE_LOAN_US = 2000000, /* a borrowed lease is free so long after its holder has died */
    APP_LEASE_WAIT_US = 3000000  /* who wants one waits at most so long */
};
/* For deletions of users. PFE_OK: this instance has it until app_lease_return, and *ret is what its writes carry, as
   above. PFE_BUSY: another instance still has it. PFE_UNAVAILABLE. Only of a shared store, in which it blocks for
   APP_LEASE_WAIT_US at most and what a call of the store takes; one thread at a time. */
enum pf_err app_lease_borrow(struct app *a, struct store_fence *ret) MUSTCHECK;
void app_lease_return(struct app *a, const struct store_fence *f);

/* Takes or renews what is due. Returns how long until there is something to do again, µs. Blocking; one thread. */
int64_t app_leases_step(struct app *a);
/* Gives all of them back and takes none any more: the jobs must have ended. Blocking; that thread. */
void app_leases_drop(struct app *a);

#endif
