/*
 * movement: commands to the ledger, and the one thread that decides them.
 *
 * A job is what one request asks for: one movement or a batch of them, or to open, close or rebuild accounts.
 * app_submit queues it (never blocks) and `done` is called on the writer thread when its fate is known: committed and
 * durable, refused, or failed. While one group commits, the next gathers; there is no timer. Design:
 * docs/architecture.md.
 */
#ifndef APP_MOVEMENT_H
#define APP_MOVEMENT_H

#include "app/app.h"
#include "domain/ledger/ledger.h"

struct movement {
    /* what is asked */
    enum ledger_kind kind;
    int64_t from_user, to_user; /* owners: TRANSFER, HOLD both; DEPOSIT to; WITHDRAW, FREEZE, UNFREEZE from. Else 0. */
    int64_t amount;             /* minor units */
    money_currency currency;
    int64_t ref; /* ROLLBACK, CAPTURE, RELEASE: the entry's seq */
    int64_t expires_us;
    struct str description, origin; /* borrowed until done */
    /* what came of it */
    enum pf_err err;
    struct ledger_entry entry; /* on PFE_OK */
    /* the writer's */
    unsigned debit_slot, credit_slot;
    const struct ledger_entry *ref_entry;
    size_t ref_at; /* among what a group of a shared store asks for */
    bool ref_resolved;
};

/* JOB_DELIVERED is never refused for want of room: the relay that brings it has one at a time. */
enum job_kind { JOB_MOVE, JOB_OPEN, JOB_CLOSE, JOB_REBUILD, JOB_BOOKINGS, JOB_DELIVERED };

struct booking; /* bookings.h */

struct job {
    /* what is asked */
    enum job_kind kind;
    int64_t actor;      /* user id for the entries */
    struct movement *m; /* JOB_MOVE; JOB_CLOSE makes its own */
    size_t n;
    bool atomic;             /* all or none */
    struct booking *booking; /* JOB_BOOKINGS */
    size_t n_bookings;
    const struct store_outbox_ref *delivered; /* JOB_DELIVERED: messages of the outbox */
    size_t n_delivered;
    int64_t user;            /* OPEN, CLOSE (all of the user's accounts), REBUILD */
    money_currency currency; /* OPEN, REBUILD */
    struct app_idem idem;    /* reserved by the caller; ended by the caller after done */
    struct arena *arena;     /* for a replayed answer */
    /* MOVE, BOOKINGS, CLOSE: what it is done under (app/lease.h), borrowed until done; NULL: nothing. PFE_FENCED: not
     * done. */
    const struct store_fence *fence;
    /* Called on the writer thread before the commit, only when idem.key is set and something is to be committed: fills
       idem.status and idem.body; status 0: no memory for it, and the group does not happen. */
    void (*render)(struct job *j);
    /* Called on the writer thread; the job is the caller's again. Must be quick. */
    void (*done)(struct job *j);
    /* NULL, or asked on the writer thread before the group begins: does nobody wait for it any more? Then it is not
       done, and err is PFE_TIMEOUT. */
    bool (*gone)(const struct job *j);
    void *ctx;
    /* what came of it */
    enum pf_err err; /* of the whole: PFE_OK with atomic false may hold refused movements; a refused
                        booking that is the job's only one is refused here too */
    bool refusal;    /* err is the word on movement `failed` or on the booking, not a failure of the whole */
    size_t failed;   /* atomic: index of the movement that was refused */
    bool created;    /* OPEN: now; CLOSE: something was closed */
    struct ledger_account account; /* OPEN, REBUILD: after it */
    struct store_replay replay;    /* REBUILD */
    int64_t stored_balance;        /* REBUILD: what it was before */
    /* the writer's */
    struct job *next;
    int64_t queued_us;
    size_t fence_at;
    bool live;
    bool stood; /* for something that it asks for there was nothing left to do */
};

/* PFE_BUSY (queue full), PFE_DRAINING, PFE_UNAVAILABLE (store dead): nothing was done and `done` is not called. */
enum pf_err app_submit(struct app *a, struct job *j) MUSTCHECK;
/* app_submit and wait. Blocking. Uses done and ctx itself. Returns j->err. */
enum pf_err app_submit_wait(struct app *a, struct job *j) MUSTCHECK;
/* app_config.stepped: decides and commits the next group, as the writer's thread would. false: no job waits. */
bool app_step(struct app *a);

/* What a refusal is called, with the accounts and amounts it may tell. */
void app_movement_problem(const struct movement *m, struct problem *p);

/*
 * May the caller roll this entry back? By an admin, or by the owner of the account that the rollback debits;
 * PFE_NOT_FOUND to others who are not a party. Blocking.
 */
enum pf_err app_rollback_check(struct app *a, const struct principal *who, int64_t seq, struct problem *p) MUSTCHECK;

enum { APP_BATCH_MAX = 10000 };

struct app_writer_stats {
    size_t queued; /* movements waiting */
    size_t capacity;
    uint64_t groups, jobs, entries, refused;
    int64_t last_commit_us; /* duration */
    bool dead;
};
void app_writer_stats(struct app *a, struct app_writer_stats *ret);

#endif
