/* Random cron rules against a reference that looks at every minute, with the C library's calendar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <cmocka.h>

#include "domain/schedule/schedule.h"
#include "prng.h"

enum { RULES = 300, MINUTES = 100 * 24 * 60 };
static const int64_t MINUTE = 60000000;

/* One field: text for the parser, and what it means as a table. */
static bool random_field(struct prng *r, int min, int max, char *out, size_t cap, bool in[64])
{
    int lo = min + (int)prng_below(r, (unsigned)(max - min + 1));
    int hi = lo + (int)prng_below(r, (unsigned)(max - lo + 1));
    int step = 1 + (int)prng_below(r, 10 < max ? 10u : (unsigned)max);
    int one = min + (int)prng_below(r, (unsigned)(max - min + 1));
    bool star = false;

    memset(in, 0, 64);
    switch (prng_below(r, 5)) {
    case 0:
        snprintf(out, cap, "*");
        star = true;
        lo = min;
        hi = max;
        step = 1;
        break;
    case 1:
        snprintf(out, cap, "*/%d", step);
        star = true;
        lo = min;
        hi = max;
        break;
    case 2:
        snprintf(out, cap, "%d", lo);
        hi = lo;
        break;
    case 3:
        snprintf(out, cap, "%d-%d/%d", lo, hi, step);
        break;
    default:
        snprintf(out, cap, "%d,%d-%d", one, lo, hi);
        in[one] = true;
        step = 1;
        break;
    }
    for (int v = lo; v <= hi; v += step)
        in[v] = true;
    return star;
}

static int64_t capped(int64_t n)
{
    return n < 100000 ? n : 100000;
}

struct reference {
    bool in[5][64], mday_star, wday_star;
};

static bool is_due(const struct reference *f, int64_t us)
{
    time_t s = us / 1000000;
    struct tm t;
    bool mday, wday;

    gmtime_r(&s, &t);
    mday = f->in[2][t.tm_mday];
    wday = f->in[4][t.tm_wday];
    return us % MINUTE == 0 && f->in[0][t.tm_min] && f->in[1][t.tm_hour] && f->in[3][t.tm_mon + 1] &&
           (f->mday_star || f->wday_star ? mday && wday : mday || wday);
}

static void same_as_minute_by_minute(struct prng *r)
{
    struct reference f;
    struct sched_rule rule;
    struct problem p = {0};
    char text[5][32], all[200];
    /* any moment from 2000 to 2063, so leap years are within */
    int64_t anchor = 946684800000000 + (int64_t)(prng_next(r) % 2000000000000000u);
    int64_t first = anchor - anchor % MINUTE + MINUTE, last = first + MINUTES * MINUTE;
    int64_t next, count = 0, total, latest = 0;

    random_field(r, 0, 59, text[0], sizeof text[0], f.in[0]);
    random_field(r, 0, 23, text[1], sizeof text[1], f.in[1]);
    f.mday_star = random_field(r, 1, 31, text[2], sizeof text[2], f.in[2]);
    random_field(r, 1, 12, text[3], sizeof text[3], f.in[3]);
    f.wday_star = random_field(r, 0, 6, text[4], sizeof text[4], f.in[4]);
    snprintf(all, sizeof all, "%s %s %s %s %s", text[0], text[1], text[2], text[3], text[4]);
    if (sched_rule_parse(str_c(all), anchor, &rule, &p) != PFE_OK) {
        assert_string_equal(p.fields[0].msg, "is never due within eight years");
        for (int64_t t = first; t < last; t += MINUTE)
            assert_false(is_due(&f, t));
        return;
    }
    assert_int_equal(sched_next(&rule, anchor - 1), anchor);
    next = sched_next(&rule, anchor);
    assert_true(is_due(&f, next));
    for (int64_t t = first; t < last; t += MINUTE) {
        if (!is_due(&f, t))
            continue;
        if (next != t)
            fail_msg("%s: due at %" PRId64 ", not %" PRId64, all, t, next);
        count++;
        if (latest && count % 16 == 0) {
            assert_int_equal(sched_latest(&rule, anchor, t - 1, &total), latest);
            assert_int_equal(total, capped(count - 1));
            assert_int_equal(sched_latest(&rule, latest, t, &total), t);
            assert_int_equal(total, 1);
        }
        latest = t;
        next = sched_next(&rule, t);
    }
    assert_true(next >= last || next == 0);
    assert_int_equal(sched_latest(&rule, anchor, last - 1, &total), latest);
    assert_int_equal(total, capped(count));
    assert_int_equal(sched_latest(&rule, anchor - 1, last - 1, &total), latest ? latest : anchor);
    assert_int_equal(total, capped(count + 1));
}

static void random_cron_rules(void **state)
{
    struct prng r = prng_seeded("random_cron_rules");

    (void)state;
    for (int i = 0; i < RULES; i++)
        same_as_minute_by_minute(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_cron_rules)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
