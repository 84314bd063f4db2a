/*
 * sim: the real app and store rooms in a world in which everything that happens follows from one number.
 *
 * A seed gives the configuration, what the clients ask, when, what the disk does wrong and where the process dies. One
 * thread does everything: the ledger writer and the scheduler are stepped (app_step, scheduler_step), the clock is a
 * variable (clock_system is replaced at link time), randomness comes from the seed (rand_bytes, rand_u64, SQLite's own)
 * and SQLite's files are in memory (support/faulty_disk). So a seed gives the same trace whenever and wherever it runs.
 *
 *   main.c       which seeds; the same trace twice; what must have been seen; the command line
 *   life.c       the steps of a seed: lives of a process, faults, crashes, restarts, jumps of the clock
 *   world.c      clock, randomness, trace, starting and ending the process under test
 *   clients.c    commands to the ledger: what is asked, retried, replayed; each answer against the model
 *   records.c    users and schedules: what is asked of them; entries of the scheduler
 *   runs.c       users and schedules after a restart; what became of every due time
 *   checks.c     the journal, balances, histories, keys and runs against the model; store_verify
 *   model.c      the books as they must be, independent of src/
 *
 * A crash copies what survives on the disk at any of its operations (support/faulty_disk's losses). The process that
 * was under way goes on as a ghost to the end of the call that it is in; nobody hears its answers. The next life starts
 * on the copy.
 *
 * What an answer says is held against the model at once, and the model against a reader of the store at once; a
 * command without an answer (crash, unknown outcome) is in the journal after the restart with its whole group, or not
 * at all.
 */
#ifndef SIM_H
#define SIM_H

#include "app/accounts.h"
#include "app/admin.h"
#include "app/identity.h"
#include "app/movement.h"
#include "app/schedules.h"
#include "model.h"
#include "support/faulty_disk.h"

enum {
    COMMANDS_MAX = 500,
    BATCH = 4,
    SCHEDULES_MAX = 10,
    DUES_MAX = 1200,
    REGISTRATIONS_MAX = 6,
    TAIL = 60, /* lines of trace that a failure shows */
    LINE = 240
};
#define SECOND INT64_C(1000000)
#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)

struct sim;

enum command_state {
    CMD_IDLE,
    CMD_QUEUED,
    CMD_ANSWERED, /* for good */
    CMD_FAILED,   /* surely nothing happened */
    CMD_UNKNOWN   /* no answer, or one that says so */
};

struct command {
    struct job job; /* first */
    struct movement mv[BATCH];
    struct sim *sim;
    int id;
    enum job_kind kind; /* JOB_MOVE, JOB_OPEN */
    struct m_move move[BATCH];
    int n;
    bool atomic;
    int64_t user; /* JOB_OPEN */
    int currency;
    bool keyed;
    int64_t principal;
    char key[24], body[M_BODY];
    uint8_t request[32];
    enum command_state state;
    int sends;
};

struct registration {
    char name[24], key[24];
    enum command_state state;
    int64_t user;
};

struct schedule {
    int64_t id; /* 0: not known to exist */
    enum command_state state;
    bool cancelled, cancel_unknown;
    int64_t owner, to, amount;
    enum ledger_kind kind;
    int currency;
    char text[24], key[24];
    const char *recurrence;
    int64_t anchor, end, max_runs;
    /* runs as last read */
    struct due {
        int64_t at, seq;
        enum store_run_outcome outcome;
    } due[DUES_MAX];
    int n_due;
    int64_t moved[DUES_MAX]; /* due times that the journal has */
    int n_moved;
};

/* What was seen: a simulation in which nothing happens proves nothing. */
struct coverage {
    long steps, commands, acked, refused, replays, reused, in_flight, busy, groups, entries, batches, retried;
    long lives, kills, power, faults, unknown, came, not_came, full, fatal, clean, open_failed;
    long runs, run_refusals, skips, expired, schedules, cancels, users, deleted, reads, checks, jumps_back, rebuilds;
    long midway; /* commands and reads while a group commits */
};

struct sim {
    uint64_t seed, rng, rng_lib;
    bool verbose;
    /* clock */
    int64_t wall, mono;
    struct clock clock;
    /* trace */
    uint64_t trace;
    long lines;
    char tail[TAIL][LINE];
    char why[400]; /* what is wrong; empty: nothing yet */
    /* the process under test */
    const char *dirs[2];
    int dir;
    struct store *store;
    struct app *app;
    struct cache *cache;
    struct metrics *metrics;
    struct arena arena;
    struct app_config cfg;
    int64_t flush_entries;
    bool fatal;
    /* what goes wrong */
    struct disk_plan plan;
    bool may_fail;                                 /* a fault of the disk has struck in this life */
    long ops, syncs, answers;                      /* in this life */
    long crash_at, crash_at_sync, crash_at_answer; /* 0: not */
    enum disk_loss loss;
    bool committed; /* the group whose fate is unknown to the clients was about to be acknowledged */
    bool crashed;   /* the rest of this life is a ghost's */
    bool inside;    /* app_step is under way: the disk may call back */
    /* clients */
    int clients; /* requests under way at once, at most */
    int users, currencies;
    bool long_texts, midway;
    struct command *cmd;
    int n_cmd;
    struct command *queue[COMMANDS_MAX];
    int n_queue, taken;                  /* taken: of the queue, by the group under way */
    bool group_failed, group_decided;    /* an answer of the group under way says so */
    struct command *maybe[COMMANDS_MAX]; /* the group whose fate is unknown, in order */
    int n_maybe;
    struct registration reg[REGISTRATIONS_MAX];
    int n_reg;
    struct schedule *sched;
    int n_sched;
    int64_t deleting; /* user */
    struct model m;
    struct coverage c;
};

/* ---- world.c ---- */
extern struct sim *sim_now; /* the one that runs: for the clock and randomness of the process */
uint64_t sim_rnd(struct sim *s);
/* 0 .. n - 1 */
static inline int sim_pick(struct sim *s, int n)
{
    return (int)(sim_rnd(s) % (uint64_t)n);
}
static inline bool sim_chance(struct sim *s, int percent)
{
    return sim_pick(s, 100) < percent;
}
void sim_trace(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The first one counts; the simulation ends at the next step. */
void sim_wrong(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline bool sim_ok(const struct sim *s)
{
    return s->why[0] == '\0';
}
const char *sim_err(enum pf_err e);
/* "Nothing was done", for want of something: not the ledger's word. */
bool sim_failure(enum pf_err e);
/* Starts the process on what is on the disk. false: it does not start (the disk fails), or it crashed in doing so. */
bool sim_open(struct sim *s);
void sim_close(struct sim *s);
/* The process is killed or loses power here. */
void sim_die(struct sim *s);
/* The disk calls it at each operation. */
void sim_on_disk(void *ctx, enum disk_op op, long nth);

/* ---- clients.c ---- */
void clients_act(struct sim *s);
/* One that is not known to have been answered is sent again; false: there is none. */
bool clients_retry(struct sim *s);
void clients_step(struct sim *s);
/* While a group commits: another command comes in, or a read. */
void clients_midway(struct sim *s);
/* At the start of a life: was the group whose fate was unknown committed? */
void clients_settle(struct sim *s);
/* At the end of a life: nobody waits any more. */
void clients_forget(struct sim *s);

/* ---- records.c, runs.c ---- */
bool records_begin(struct sim *s); /* the first users */
void records_register(struct sim *s, bool retry);
void records_delete(struct sim *s);
void records_schedule(struct sim *s, bool retry);
void records_cancel(struct sim *s);
void records_run(struct sim *s);    /* the scheduler looks */
void records_settle(struct sim *s); /* at the start of a life: what became of what had no answer */
void records_check(struct sim *s);
/* Entries that nobody asked for at this moment: of schedules, expired holds, users being deleted. */
void records_take(struct sim *s);

enum m_user records_status(struct sim *s, int64_t user);
void records_learn_user(struct sim *s, struct registration *r, int64_t id);
/* The due time after t; 0: none. */
int64_t schedule_due_after(const struct schedule *d, int64_t t);
bool schedule_is_due(const struct schedule *d, int64_t t);

/* ---- checks.c ---- */
/* The journal from after `from` on, as far as the model goes. *ret_more: entries beyond it. */
bool check_journal(struct sim *s, int from, int64_t *ret_more);
void check_entry(struct sim *s, const struct m_entry *e, const struct ledger_entry *x);
void check_balance(struct sim *s, int64_t user, int currency);
void check_sums(struct sim *s);
void check_read(struct sim *s); /* any one */
void check_all(struct sim *s);

/* ---- life.c ---- */
void sim_run(struct sim *s);

#endif
