/*
 * clock: time as an argument. Wall time orders nothing and times nothing; it only stamps. Timeouts and
 * durations use the monotonic clock. Both are int64 microseconds; wall time since 1970-01-01T00:00:00Z.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct clock {
    int64_t (*wall_us)(void *ctx);
    int64_t (*mono_us)(void *ctx);
    void *ctx;
};

/* The machine's clocks; static, thread-safe. */
const struct clock *clock_system(void);
static inline int64_t clock_wall(const struct clock *c)
{
    return c->wall_us(c->ctx);
}
static inline int64_t clock_mono(const struct clock *c)
{
    return c->mono_us(c->ctx);
}

/* The proleptic Gregorian calendar in UTC. month 1..12, day 1..31, wday 0 = Sunday. */
struct civil {
    int year, month, day, hour, min, sec, usec, wday;
};

void civil_from_us(int64_t us, struct civil *ret);
/* Fields must be in range (usec too); wday is ignored. */
int64_t civil_to_us(const struct civil *c);
int civil_days_in_month(int year, int month);

enum { TIME_RFC3339_MAX = 28 }; /* "2026-11-21T06:15:26.123456Z" and NUL */
/* Always UTC, 'Z', six decimals. Writes NUL; returns the length, 27. Times outside years 0..9999 are clamped to them.
 */
size_t time_format(int64_t us, char out[TIME_RFC3339_MAX]);
/* RFC 3339 with 'Z' or an offset, 0..9 decimals (cut to µs), years 0..9999. A leap second, 23:59:60 UTC,
   is the first of the next day.
   A bare date "2026-11-21" is midnight UTC. A '+' turned into a space by a query string is taken as '+'. */
bool time_parse(struct str s, int64_t *ret_us);

#endif
