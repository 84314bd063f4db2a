/*
 * Every rule but cron numbers its due times 0, 1, 2 … from the anchor, so that "the next after" and "how many between"
 * are arithmetic. Cron is searched month by month over a bit set of the month's due days.
 */
#include "domain/schedule/schedule.h"

#include "base/clock.h"

static const int64_t US_PER_DAY = 86400000000;
static const int64_t LAST_US = 253402300799999999; /* 9999-12-31T23:59:59.999999Z; nothing is due later */

enum { COUNT_MAX = 100000, CRON_YEARS = 8 };

/* ---- by number ---- */

static int64_t months_of(const struct civil *c)
{
    return (int64_t)c->year * 12 + c->month - 1;
}

static int64_t monthly_due(const struct sched_rule *r, int64_t k)
{
    struct civil c;
    int64_t month;
    int days;

    civil_from_us(r->anchor_us, &c);
    month = months_of(&c) + k;
    c.year = (int)(month / 12);
    c.month = (int)(month % 12) + 1;
    days = civil_days_in_month(c.year, c.month);
    if (c.day > days)
        c.day = days;
    return civil_to_us(&c);
}

/* k >= 0 and the time it names at most a few months past LAST_US */
static int64_t due_at(const struct sched_rule *r, int64_t k)
{
    switch (r->recur) {
    case SCHED_DAILY:
        return r->anchor_us + k * US_PER_DAY;
    case SCHED_WEEKLY:
        return r->anchor_us + k * 7 * US_PER_DAY;
    case SCHED_MONTHLY:
        return monthly_due(r, k);
    default:
        return k == 0 ? r->anchor_us : 0;
    }
}

/* The number of the latest due time at or before t; -1: none. */
static int64_t number_at(const struct sched_rule *r, int64_t t)
{
    struct civil from, to;
    int64_t k;

    if (t < r->anchor_us)
        return -1;
    switch (r->recur) {
    case SCHED_DAILY:
        return (t - r->anchor_us) / US_PER_DAY;
    case SCHED_WEEKLY:
        return (t - r->anchor_us) / (7 * US_PER_DAY);
    case SCHED_MONTHLY:
        civil_from_us(r->anchor_us, &from);
        civil_from_us(t, &to);
        k = months_of(&to) - months_of(&from);
        return monthly_due(r, k) > t ? k - 1 : k;
    default:
        return 0;
    }
}

/* ---- cron ---- */

struct month {
    int year, month;
    uint32_t days; /* due days, bits 1..31 */
};

/* A day and minute within a month; the minute that a time falls in. */
struct minute {
    int day, hour, min;
};

static uint32_t below(int bit)
{
    return (UINT32_C(1) << bit) - 1;
}

static int lowest(uint64_t set)
{
    return __builtin_ctzll(set);
}

static int highest(uint64_t set)
{
    return 63 - __builtin_clzll(set);
}

static uint64_t minutes_below(const struct sched_rule *r, int min)
{
    return r->minute & ((UINT64_C(1) << min) - 1);
}

static struct month month_of(const struct sched_rule *r, int year, int month)
{
    struct month m = {.year = year, .month = month};
    struct civil first = {.year = year, .month = month, .day = 1};
    uint64_t weeks = 0;
    uint32_t by_wday;

    if (!(r->month >> month & 1))
        return m;
    civil_from_us(civil_to_us(&first), &first);
    for (int i = 0; i < 6; i++)
        weeks |= (uint64_t)r->wday << (7 * i);
    by_wday = (uint32_t)(weeks >> first.wday << 1);
    m.days = r->mday_star || r->wday_star ? r->mday & by_wday : r->mday | by_wday;
    m.days &= (uint32_t)((UINT64_C(2) << civil_days_in_month(year, month)) - 2);
    return m;
}

static int64_t time_of(const struct month *m, struct minute at)
{
    struct civil c = {.year = m->year, .month = m->month, .day = at.day, .hour = at.hour, .min = at.min};

    return civil_to_us(&c);
}

/* The first due minute of the month after `after`. */
static bool month_next(const struct sched_rule *r, const struct month *m, struct minute after, struct minute *ret)
{
    uint32_t later;

    if (m->days >> after.day & 1) {
        uint64_t minutes = r->hour >> after.hour & 1 ? r->minute & ~minutes_below(r, after.min + 1) : 0;

        if (minutes) {
            *ret = (struct minute){after.day, after.hour, lowest(minutes)};
            return true;
        }
        later = r->hour & ~below(after.hour + 1);
        if (later) {
            *ret = (struct minute){after.day, lowest(later), lowest(r->minute)};
            return true;
        }
    }
    later = (uint32_t)(m->days & ~((UINT64_C(2) << after.day) - 1));
    if (!later)
        return false;
    *ret = (struct minute){lowest(later), lowest(r->hour), lowest(r->minute)};
    return true;
}

/* The last due minute of the month at or before `until`. */
static bool month_last(const struct sched_rule *r, const struct month *m, struct minute until, struct minute *ret)
{
    uint32_t earlier;

    if (m->days >> until.day & 1) {
        uint64_t minutes = r->hour >> until.hour & 1 ? minutes_below(r, until.min + 1) : 0;

        if (minutes) {
            *ret = (struct minute){until.day, until.hour, highest(minutes)};
            return true;
        }
        earlier = r->hour & below(until.hour);
        if (earlier) {
            *ret = (struct minute){until.day, highest(earlier), highest(r->minute)};
            return true;
        }
    }
    earlier = m->days & below(until.day);
    if (!earlier)
        return false;
    *ret = (struct minute){highest(earlier), highest(r->hour), highest(r->minute)};
    return true;
}

/* How many minutes of the month are due up to and including `until`. */
static int64_t month_count(const struct sched_rule *r, const struct month *m, struct minute until)
{
    int per_hour = __builtin_popcountll(r->minute), per_day = __builtin_popcount(r->hour) * per_hour;
    int64_t n = (int64_t)__builtin_popcount(m->days & below(until.day)) * per_day;

    if (m->days >> until.day & 1) {
        n += (int64_t)__builtin_popcount(r->hour & below(until.hour)) * per_hour;
        if (r->hour >> until.hour & 1)
            n += __builtin_popcountll(minutes_below(r, until.min + 1));
    }
    return n;
}

static const struct minute before_month = {.day = 0}, month_end = {.day = 31, .hour = 23, .min = 59};

static int64_t cron_next(const struct sched_rule *r, int64_t after_us)
{
    struct civil c;
    struct minute at, found;
    int64_t month, last;

    civil_from_us(after_us, &c);
    at = (struct minute){c.day, c.hour, c.min};
    month = months_of(&c);
    last = month + CRON_YEARS * 12;
    for (; month <= last; month++, at = before_month) {
        struct month m = month_of(r, (int)(month / 12), (int)(month % 12) + 1);

        if (m.days && month_next(r, &m, at, &found))
            return time_of(&m, found);
    }
    return 0;
}

static int64_t cron_last(const struct sched_rule *r, int64_t after_us, int64_t until_us)
{
    struct civil from, to;
    struct minute at, found;
    int64_t first;

    civil_from_us(after_us, &from);
    civil_from_us(until_us, &to);
    at = (struct minute){to.day, to.hour, to.min};
    first = months_of(&from);
    for (int64_t month = months_of(&to); month >= first; month--, at = month_end) {
        struct month m = month_of(r, (int)(month / 12), (int)(month % 12) + 1);

        if (m.days && month_last(r, &m, at, &found)) {
            int64_t t = time_of(&m, found);

            return t > after_us ? t : 0;
        }
    }
    return 0;
}

static int64_t cron_count(const struct sched_rule *r, int64_t after_us, int64_t until_us)
{
    struct civil from, to;
    struct month m;
    int64_t last, n;

    civil_from_us(after_us, &from);
    civil_from_us(until_us, &to);
    m = month_of(r, from.year, from.month);
    n = -month_count(r, &m, (struct minute){from.day, from.hour, from.min});
    last = months_of(&to);
    for (int64_t month = months_of(&from); month < last && n < COUNT_MAX; month++) {
        n += month_count(r, &m, month_end);
        m = month_of(r, (int)((month + 1) / 12), (int)((month + 1) % 12) + 1);
    }
    return n < COUNT_MAX ? n + month_count(r, &m, (struct minute){to.day, to.hour, to.min}) : n;
}

/* ---- both ---- */

int64_t sched_next(const struct sched_rule *r, int64_t after_us)
{
    int64_t t;

    if (after_us < r->anchor_us)
        return r->anchor_us;
    if (after_us >= LAST_US)
        return 0;
    t = r->recur == SCHED_CRON ? cron_next(r, after_us) : due_at(r, number_at(r, after_us) + 1);
    return t <= LAST_US ? t : 0;
}

int64_t sched_latest(const struct sched_rule *r, int64_t after_us, int64_t until_us, int64_t *ret_count)
{
    int64_t latest = 0, n = 0;

    if (until_us > LAST_US)
        until_us = LAST_US;
    if (after_us < until_us && until_us >= r->anchor_us) {
        if (r->recur == SCHED_CRON) {
            int64_t from = after_us < r->anchor_us ? r->anchor_us : after_us;

            n = cron_count(r, from, until_us);
            latest = cron_last(r, from, until_us);
            if (after_us < r->anchor_us) {
                n++;
                if (latest == 0)
                    latest = r->anchor_us;
            }
        } else {
            int64_t k = number_at(r, until_us);

            n = k - number_at(r, after_us);
            latest = n > 0 ? due_at(r, k) : 0;
        }
    }
    if (ret_count)
        *ret_count = n < COUNT_MAX ? n : COUNT_MAX;
    return latest;
}
