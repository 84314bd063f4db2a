/*
 * Recurrence: what sched_rule_parse takes, sched_next walks in order, forever forward, only to times that the rule
 * names and past none of them; sched_latest says the same of a span. Input: anchor, after and the span's length as
 * eight bytes each, then the text.
 */
#include "base/clock.h"
#include "domain/schedule/schedule.h"
#include "fuzz.h"

static const int64_t LAST_US = 253402300799999999, MINUTE_US = 60000000, YEAR_US = INT64_C(366) * 86400000000;
enum { STEPS = 40, SEARCHED_MINUTES = 300, CRON_YEARS = 8 };

static bool cron_names(const struct sched_rule *r, int64_t us)
{
    struct civil c;
    bool mday, wday;

    civil_from_us(us, &c);
    mday = r->mday >> c.day & 1;
    wday = r->wday >> c.wday & 1;
    return (r->minute >> c.min & 1) && (r->hour >> c.hour & 1) && (r->month >> c.month & 1) &&
           (r->mday_star || r->wday_star ? mday && wday : mday || wday);
}

static bool same_clock(const struct civil *a, const struct civil *b)
{
    return a->hour == b->hour && a->min == b->min && a->sec == b->sec && a->usec == b->usec;
}

/* Is t, which follows from, the very next due time? */
static void check_step(const struct sched_rule *r, int64_t from, int64_t t)
{
    struct civil anchor, prev, due;

    civil_from_us(r->anchor_us, &anchor);
    civil_from_us(from, &prev);
    civil_from_us(t, &due);
    switch (r->recur) {
    case SCHED_ONCE:
        CHECK(t == r->anchor_us);
        break;
    case SCHED_DAILY:
        CHECK(t - from <= INT64_C(86400000000) && same_clock(&due, &anchor));
        break;
    case SCHED_WEEKLY:
        CHECK(t - from <= 7 * INT64_C(86400000000) && same_clock(&due, &anchor) && due.wday == anchor.wday);
        break;
    case SCHED_MONTHLY:
        CHECK(same_clock(&due, &anchor));
        CHECK(due.day == anchor.day || (due.day < anchor.day && due.day == civil_days_in_month(due.year, due.month)));
        CHECK(due.year * 12 + due.month - (prev.year * 12 + prev.month) <= 1);
        break;
    case SCHED_CRON:
        CHECK(t % MINUTE_US == 0 && cron_names(r, t));
        for (int64_t m = (from / MINUTE_US + 1) * MINUTE_US, n = 0; m < t && n < SEARCHED_MINUTES; m += MINUTE_US, n++)
            CHECK(!cron_names(r, m));
        break;
    }
}

static void check_walk(const struct sched_rule *r, int64_t after)
{
    int64_t t = sched_next(r, after);

    if (after < r->anchor_us)
        CHECK(t == r->anchor_us);
    else if (t)
        check_step(r, after, t);
    for (int i = 0; t && i < STEPS; i++) {
        int64_t next = sched_next(r, t);
        CHECK(t >= r->anchor_us && t > after && t <= LAST_US);
        CHECK(sched_next(r, t - 1) == t);
        CHECK(next == 0 || next > t);
        if (next)
            check_step(r, t, next);
        t = next;
    }
}

static void check_span(const struct sched_rule *r, int64_t after, int64_t until)
{
    int64_t count = -1, latest = sched_latest(r, after, until, &count), t = after, last = 0, n = 0, next;

    CHECK(latest == sched_latest(r, after, until, NULL));
    CHECK((latest == 0) == (count == 0) && count >= 0 && count <= 100000);
    if (latest) {
        CHECK(latest > after && latest <= until && latest >= r->anchor_us);
        CHECK(sched_next(r, latest - 1) == latest);
        next = sched_next(r, latest);
        CHECK(next == 0 || next > until);
    }
    while (n <= STEPS && (t = sched_next(r, t)) != 0 && t <= until) {
        last = t;
        n++;
    }
    /* sched_next looks no further than eight years, sched_latest to the end of the span */
    if (n <= STEPS && (t || until - (last ? last : after) < CRON_YEARS * YEAR_US - YEAR_US))
        CHECK(count == n && latest == last);
    else
        CHECK(count >= n);
}

static void put_list(char *out, size_t cap, uint64_t set)
{
    size_t n = strlen(out);

    for (int i = 0; i < 64; i++)
        if (set >> i & 1)
            n += (size_t)snprintf(out + n, cap - n, "%d,", i);
    out[n - 1] = ' ';
}

/* The sets written out as lists are read as the same sets. */
static void check_lists(const struct sched_rule *r)
{
    char text[1024] = "";
    struct sched_rule again;
    struct problem p = {0};

    put_list(text, sizeof text, r->minute);
    put_list(text, sizeof text, r->hour);
    put_list(text, sizeof text, r->mday);
    put_list(text, sizeof text, r->month);
    put_list(text, sizeof text, r->wday);
    CHECK(sched_rule_parse(str_c(text), r->anchor_us, &again, &p) == PFE_OK);
    CHECK(again.minute == r->minute && again.hour == r->hour && again.mday == r->mday && again.month == r->month &&
          again.wday == r->wday);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str in = {(const char *)data, n};
    int64_t anchor = (int64_t)(fuzz_take(&in, 8) % (uint64_t)LAST_US) + 1;
    int64_t after = (int64_t)fuzz_take(&in, 8), span = (int64_t)(fuzz_take(&in, 8) & INT64_MAX), until;
    struct sched_rule r = {.anchor_us = -7};
    struct problem p = {0};
    enum pf_err e = sched_rule_parse(in, anchor, &r, &p);

    if (e != PFE_OK) {
        CHECK(e == PFE_INVALID && p.code == e && p.n_fields == 1 && strcmp(p.fields[0].name, "recurrence") == 0);
        CHECK(r.anchor_us == -7);
        return 0;
    }
    CHECK(r.anchor_us == anchor && p.n_fields == 0);
    if (r.recur == SCHED_CRON) {
        CHECK(r.minute && r.minute >> 60 == 0 && r.hour && r.hour >> 24 == 0 && r.mday > 1 && !(r.mday & 1));
        CHECK(r.month > 1 && !(r.month & 1) && r.month >> 13 == 0 && r.wday && r.wday >> 7 == 0);
        check_lists(&r);
    } else {
        CHECK(in.n == 0 || str_is(in, "daily") || str_is(in, "weekly") || str_is(in, "monthly"));
    }
    check_walk(&r, after);
    check_walk(&r, anchor);
    if (__builtin_add_overflow(after, span, &until))
        until = INT64_MAX;
    check_span(&r, after, until);
    check_span(&r, anchor - 1, anchor + span % YEAR_US);
    return 0;
}
