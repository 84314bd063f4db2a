/*
 * health: a registry of named checks and what they last said. Pure: the caller runs the checks; the registry says which
 * are due, takes what they report, and judges.
 *
 *     n = health_due(h, now, runs, cap);                     these begin now
 *     health_report(h, &runs[i], HEALTH_UP, "{…}", now);     when one has an answer
 *
 * A check that has never answered is UNKNOWN. One that does not answer within its timeout is DOWN from that moment on
 * (no answer is a failed check), with the details {"error":"no answer in N ms"}; what it reports later is dropped. A
 * result that nobody has renewed for three intervals and a timeout is UNKNOWN: the checks themselves have stopped.
 *
 * Overall: DOWN if a critical check is DOWN, else UNKNOWN if any check is, else UP. A check that is not critical and
 * DOWN does not change that; health_read counts them, for a caller who says DEGRADED.
 *
 * Times are microseconds of a monotonic clock, >= 0; the wall time of a result is the wall time now less its age.
 * Thread-safe: a mutex inside.
 */
#ifndef RESILIENCE_HEALTH_H
#define RESILIENCE_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

enum health_status { HEALTH_UP, HEALTH_DOWN, HEALTH_UNKNOWN };

enum { HEALTH_CHECKS_MAX = 64, HEALTH_NAME_MAX = 64, HEALTH_DETAILS_MAX = 512 }; /* both texts with their NUL */

struct health_check {
    struct str name; /* 1..63 bytes, unique */
    bool critical;
    int64_t interval_us; /* 1..30 days: from one start to the next */
    int64_t timeout_us;  /* 1..30 days */
};

/* A run of a check, as health_due hands it out. Plain value. */
struct health_run {
    unsigned check;  /* what health_add returned */
    uint64_t serial; /* of this run */
};

struct health_result {
    char name[HEALTH_NAME_MAX];
    bool critical, running;
    enum health_status status;
    char details[HEALTH_DETAILS_MAX]; /* JSON text; "{}" if there is nothing to say */
    int64_t at_us;                    /* when it was reported, or ran out of time; -1: never */
    int64_t age_us;                   /* since then; -1: never */
};

struct health_overall {
    enum health_status status;
    unsigned checks, up, down, unknown; /* down: critical or not */
    unsigned down_critical;
};

struct health;

struct health *health_new(void);                      /* NULL: out of memory */
void health_free(struct health *h);                   /* NULL is allowed */
const char *health_status_name(enum health_status s); /* "UP", "DOWN", "UNKNOWN" */

/* Due at once. Returns its id, 0..HEALTH_CHECKS_MAX-1; -1: something out of range, the name is taken, or no room. */
int health_add(struct health *h, const struct health_check *c);
/* Runs under way are dropped when they report. The id may be given out again. */
void health_remove(struct health *h, unsigned check);

/* The checks that are due, at most cap, the longest overdue first. They count as running from now until they report or
 * their time is out; a running check is not due. */
size_t health_due(struct health *h, int64_t now_us, struct health_run *ret, size_t cap);
/* The earliest time at which something is due or runs out; INT64_MAX: never. */
int64_t health_next_us(struct health *h, int64_t now_us);
/* details: JSON text, copied; empty means {}, and what is longer than HEALTH_DETAILS_MAX - 1 is replaced by a note that
 * says so. false: dropped, the run is over. */
bool health_report(struct health *h, const struct health_run *run, enum health_status status, struct str details,
                   int64_t now_us);

/* false: there is no such check. To list all: every id below HEALTH_CHECKS_MAX. */
bool health_result(struct health *h, unsigned check, int64_t now_us, struct health_result *ret);
void health_read(struct health *h, int64_t now_us, struct health_overall *ret);

#endif
