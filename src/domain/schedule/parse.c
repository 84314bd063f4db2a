/* Cron fields as in POSIX crontab(1) with the extensions of cron(5): steps, names, 7 for Sunday. */
#include "domain/schedule/schedule.h"

enum { FIELDS = 5, NAME_LEN = 3 };

static const struct field {
    const char *label;
    unsigned min, max;
    const char *names; /* three letters each, the first stands for min */
} fields[FIELDS] = {
    {"minute", 0, 59, ""},
    {"hour", 0, 23, ""},
    {"day of month", 1, 31, ""},
    {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
    {"day of week", 0, 7, "sunmontuewedthufrisat"},
};
enum { WDAY = 4 };

static enum pf_err refuse(struct problem *p, const struct field *f, const char *why)
{
    return problem_field(p, "body", "recurrence", "format", "%s field: %s", f->label, why);
}

static enum pf_err refuse_value(struct problem *p, const struct field *f)
{
    return problem_field(p, "body", "recurrence", "range", "%s field: values are %u to %u%s", f->label, f->min, f->max,
                         *f->names ? " or three-letter names" : "");
}

/* Takes what stands before the next sep (or all) off s; *ret_more: was there a sep? */
static struct str take_until(struct str *s, char sep, bool *ret_more)
{
    const char *at = s->n ? memchr(s->p, sep, s->n) : NULL;
    struct str head = {s->p, at ? (size_t)(at - s->p) : s->n};
    size_t used = head.n + (at != NULL);

    *ret_more = at != NULL;
    s->n -= used;
    if (s->n)
        s->p += used;
    return head;
}

static bool parse_number(struct str s, unsigned max, unsigned *ret)
{
    uint64_t v;

    if (!str_to_u64(s, &v) || v > max)
        return false;
    *ret = (unsigned)v;
    return true;
}

static bool parse_value(const struct field *f, struct str s, unsigned *ret)
{
    if (s.n == NAME_LEN)
        for (const char *name = f->names; *name; name += NAME_LEN)
            if (str_eq_nocase(s, (struct str){name, NAME_LEN})) {
                *ret = f->min + (unsigned)(name - f->names) / NAME_LEN;
                return true;
            }
    return parse_number(s, f->max, ret) && *ret >= f->min;
}

/* One of a list: "*", "5", "1-5", each of the first and last with "/step". */
static enum pf_err parse_item(const struct field *f, struct str item, uint64_t *set, struct problem *p)
{
    bool stepped, ranged = false;
    struct str span = take_until(&item, '/', &stepped);
    struct str step_text = item;
    unsigned lo = f->min, hi = f->max, step = 1;

    if (span.n == 0)
        return refuse(p, f, "a value is missing");
    if (str_is(span, "*")) {
        ranged = true;
        if (f == &fields[WDAY])
            hi = 6; /* or a step would count Sunday twice */
    } else {
        struct str lo_text = take_until(&span, '-', &ranged);

        if (!parse_value(f, lo_text, &lo))
            return refuse_value(p, f);
        hi = lo;
        if (ranged && !parse_value(f, span, &hi))
            return refuse_value(p, f);
        if (f == &fields[WDAY] && hi == 0 && lo > 0)
            hi = 7; /* fri-sun */
        if (lo > hi)
            return refuse(p, f, "a range runs backwards");
    }
    if (stepped) {
        if (!ranged)
            return refuse(p, f, "a step needs * or a range before it");
        if (!parse_number(step_text, f->max, &step) || step == 0)
            return problem_field(p, "body", "recurrence", "range", "%s field: steps are 1 to %u", f->label, f->max);
    }
    for (unsigned v = lo; v <= hi; v += step)
        *set |= UINT64_C(1) << v;
    return PFE_OK;
}

static enum pf_err parse_field(const struct field *f, struct str text, uint64_t *ret_set, struct problem *p)
{
    bool more = true;

    *ret_set = 0;
    while (more) {
        enum pf_err e = parse_item(f, take_until(&text, ',', &more), ret_set, p);

        if (e != PFE_OK)
            return e;
    }
    return PFE_OK;
}

/* Splits at blanks; returns how many fields there are, of which at most FIELDS are in out. */
static unsigned split(struct str s, struct str out[FIELDS])
{
    unsigned n = 0;

    for (size_t i = 0; i < s.n;) {
        size_t from = i;

        while (i < s.n && s.p[i] != ' ' && s.p[i] != '\t')
            i++;
        if (i > from) {
            if (n < FIELDS)
                out[n] = (struct str){s.p + from, i - from};
            n++;
        } else {
            i++;
        }
    }
    return n;
}

static enum pf_err parse_cron(struct str s, struct sched_rule *r, struct problem *p)
{
    struct str text[FIELDS];
    uint64_t set[FIELDS];

    if (split(s, text) != FIELDS)
        return problem_field(p, "body", "recurrence", "format", "is not daily, weekly, monthly or five cron fields");
    for (unsigned i = 0; i < FIELDS; i++) {
        enum pf_err e = parse_field(&fields[i], text[i], &set[i], p);

        if (e != PFE_OK)
            return e;
    }
    r->recur = SCHED_CRON;
    r->minute = set[0];
    r->hour = (uint32_t)set[1];
    r->mday = (uint32_t)set[2];
    r->month = (uint32_t)set[3];
    r->wday = (uint8_t)((set[WDAY] & 0x7F) | (set[WDAY] >> 7 & 1));
    r->mday_star = text[2].p[0] == '*';
    r->wday_star = text[WDAY].p[0] == '*';
    if (sched_next(r, r->anchor_us) == 0)
        return problem_field(p, "body", "recurrence", "range", "is never due within eight years");
    return PFE_OK;
}

enum pf_err sched_rule_parse(struct str recurrence, int64_t anchor_us, struct sched_rule *ret, struct problem *p)
{
    struct sched_rule r = {.recur = SCHED_ONCE, .anchor_us = anchor_us};

    if (str_is(recurrence, "daily")) {
        r.recur = SCHED_DAILY;
    } else if (str_is(recurrence, "weekly")) {
        r.recur = SCHED_WEEKLY;
    } else if (str_is(recurrence, "monthly")) {
        r.recur = SCHED_MONTHLY;
    } else if (recurrence.n) {
        enum pf_err e = parse_cron(recurrence, &r, p);

        if (e != PFE_OK)
            return e;
    }
    *ret = r;
    return PFE_OK;
}
