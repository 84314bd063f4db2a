/*
 * schedule: when a recurring movement is due, and its life as a table of states. Pure; time is an argument (µs, UTC).
 */
#ifndef DOMAIN_SCHEDULE_H
#define DOMAIN_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/*
 *   pending ──first run──▶ active ──last run──▶ completed
 *      │  └──one-time run─────────────────────▶ completed
 *      ├──cancel──▶ cancelled ◀──cancel── active
 *      └──refused (five in a row)──▶ failed ◀── active
 */
enum sched_status { SCHED_PENDING, SCHED_ACTIVE, SCHED_COMPLETED, SCHED_CANCELLED, SCHED_FAILED };
const char *sched_status_name(enum sched_status s);
bool sched_status_parse(struct str s, enum sched_status *ret);
/* Is the move in the table above? */
bool sched_may_move(enum sched_status from, enum sched_status to);

enum sched_recur { SCHED_ONCE, SCHED_DAILY, SCHED_WEEKLY, SCHED_MONTHLY, SCHED_CRON };

struct sched_rule {
    enum sched_recur recur;
    int64_t anchor_us; /* the first due time; gives time of day, weekday or day of month */
    /* SCHED_CRON: bit sets */
    uint64_t minute;            /* 0..59 */
    uint32_t hour, mday, month; /* 0..23, 1..31, 1..12 */
    uint8_t wday;               /* 0..6, 0 = Sunday (7 is taken as 0) */
    bool mday_star, wday_star;  /* as in cron(5): when both are restricted, either matches */
};

/*
 * recurrence: "" (once), "daily", "weekly", "monthly" or five cron fields: lists, ranges, steps, month and weekday
 * names. PFE_INVALID with p's fields set (field "recurrence") when it is none of these, or never due (30 February).
 */
enum pf_err sched_rule_parse(struct str recurrence, int64_t anchor_us, struct sched_rule *ret,
                             struct problem *p) MUSTCHECK;

/*
 * The first due time strictly after after_us (or the anchor itself if after_us < anchor). 0: none (one-time and past;
 * cron with nothing within 8 years). Monthly on a day that a month lacks is its last day; the anchor's day is kept.
 * Cron: the anchor is due whether or not it fits the fields; every later due time is at second 0. Nothing is due after
 * the year 9999.
 */
int64_t sched_next(const struct sched_rule *r, int64_t after_us);
/* The latest due time in (after_us, until_us]; 0: none. *ret_count (if not NULL): how many there are, capped at 100000.
 */
int64_t sched_latest(const struct sched_rule *r, int64_t after_us, int64_t until_us, int64_t *ret_count);

enum { SCHED_REFUSALS_MAX = 5 };

#endif
