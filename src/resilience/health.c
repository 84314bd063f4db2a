#include "resilience/health.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* A result outlives two missed runs; the third says that nobody runs the check any more. */
enum { FRESH_INTERVALS = 3 };

static const int64_t LONGEST = (int64_t)30 * 86400 * 1000000; /* of any setting: sums of times stay far from overflow */

struct check {
    bool used, critical;
    char name[HEALTH_NAME_MAX];
    int64_t interval_us, timeout_us;
    int64_t due_us;
    uint64_t run; /* 0: not running */
    int64_t started_us;
    enum health_status status;
    int64_t at_us; /* -1: never */
    char details[HEALTH_DETAILS_MAX];
};

struct health {
    pthread_mutex_t lock;
    int64_t now_us; /* the latest seen */
    uint64_t serial;
    struct check checks[HEALTH_CHECKS_MAX];
};

const char *health_status_name(enum health_status s)
{
    static const char *const names[] = {"UP", "DOWN", "UNKNOWN"};

    return names[s];
}

struct health *health_new(void)
{
    struct health *h = calloc(1, sizeof *h);

    if (h && pthread_mutex_init(&h->lock, NULL) != 0) {
        free(h);
        return NULL;
    }
    return h;
}

void health_free(struct health *h)
{
    if (!h)
        return;
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static bool in_range(const struct health_check *c)
{
    return c->name.n >= 1 && c->name.n < HEALTH_NAME_MAX && c->interval_us >= 1 && c->interval_us <= LONGEST &&
           c->timeout_us >= 1 && c->timeout_us <= LONGEST;
}

/* Where a check of that name may go; -1: nowhere. */
static int place_for(const struct health *h, struct str name)
{
    int place = -1;

    for (int i = HEALTH_CHECKS_MAX - 1; i >= 0; i--) {
        if (!h->checks[i].used)
            place = i;
        else if (str_is(name, h->checks[i].name))
            return -1;
    }
    return place;
}

int health_add(struct health *h, const struct health_check *c)
{
    int i;

    if (!in_range(c))
        return -1;
    pthread_mutex_lock(&h->lock);
    i = place_for(h, c->name);
    if (i >= 0) {
        struct check *k = &h->checks[i];
        *k = (struct check){.used = true,
                            .critical = c->critical,
                            .interval_us = c->interval_us,
                            .timeout_us = c->timeout_us,
                            .due_us = INT64_MIN,
                            .status = HEALTH_UNKNOWN,
                            .at_us = -1,
                            .details = "{}"};
        memcpy(k->name, c->name.p, c->name.n);
    }
    pthread_mutex_unlock(&h->lock);
    return i;
}

void health_remove(struct health *h, unsigned check)
{
    if (check >= HEALTH_CHECKS_MAX)
        return;
    pthread_mutex_lock(&h->lock);
    h->checks[check].used = false;
    pthread_mutex_unlock(&h->lock);
}

static void settle(struct check *k, enum health_status status, int64_t at_us)
{
    k->run = 0;
    k->status = status;
    k->at_us = at_us;
    /* the next run begins an interval after this one began, or now if this one took longer */
    k->due_us = k->started_us + k->interval_us;
    if (k->due_us < at_us)
        k->due_us = at_us;
}

/* Runs whose time is out end at that moment, however late somebody looks. */
static void advance(struct health *h, int64_t now_us)
{
    if (now_us > h->now_us)
        h->now_us = now_us;
    for (struct check *k = h->checks; k < h->checks + HEALTH_CHECKS_MAX; k++) {
        if (!k->used || !k->run || h->now_us - k->started_us < k->timeout_us)
            continue;
        settle(k, HEALTH_DOWN, k->started_us + k->timeout_us);
        snprintf(k->details, sizeof k->details, "{\"error\":\"no answer in %" PRId64 " ms\"}", k->timeout_us / 1000);
    }
}

static struct check *longest_overdue(struct health *h)
{
    struct check *first = NULL;

    for (struct check *k = h->checks; k < h->checks + HEALTH_CHECKS_MAX; k++)
        if (k->used && !k->run && k->due_us <= h->now_us && (!first || k->due_us < first->due_us))
            first = k;
    return first;
}

size_t health_due(struct health *h, int64_t now_us, struct health_run *ret, size_t cap)
{
    size_t n = 0;
    struct check *k;

    pthread_mutex_lock(&h->lock);
    advance(h, now_us);
    while (n < cap && (k = longest_overdue(h))) {
        k->run = ++h->serial;
        k->started_us = h->now_us;
        ret[n++] = (struct health_run){(unsigned)(k - h->checks), k->run};
    }
    pthread_mutex_unlock(&h->lock);
    return n;
}

int64_t health_next_us(struct health *h, int64_t now_us)
{
    int64_t next = INT64_MAX;

    pthread_mutex_lock(&h->lock);
    advance(h, now_us);
    for (const struct check *k = h->checks; k < h->checks + HEALTH_CHECKS_MAX; k++) {
        const int64_t at = k->run ? k->started_us + k->timeout_us : k->due_us;
        if (k->used && at < next)
            next = at;
    }
    if (next < h->now_us)
        next = h->now_us;
    pthread_mutex_unlock(&h->lock);
    return next;
}

bool health_report(struct health *h, const struct health_run *run, enum health_status status, struct str details,
                   int64_t now_us)
{
    struct check *k;
    bool ok;

    if (run->check >= HEALTH_CHECKS_MAX)
        return false;
    k = &h->checks[run->check];
    pthread_mutex_lock(&h->lock);
    advance(h, now_us);
    ok = k->used && run->serial && k->run == run->serial;
    if (ok) {
        settle(k, status, h->now_us);
        if (!str_copy(k->details, sizeof k->details, details.n ? details : STR("{}")))
            str_copy(k->details, sizeof k->details, STR("{\"note\":\"details left out: too long\"}"));
    }
    pthread_mutex_unlock(&h->lock);
    return ok;
}

static enum health_status status_of(const struct health *h, const struct check *k)
{
    const bool renewed = h->now_us - k->at_us <= FRESH_INTERVALS * k->interval_us + k->timeout_us;

    return k->at_us >= 0 && renewed ? k->status : HEALTH_UNKNOWN;
}

bool health_result(struct health *h, unsigned check, int64_t now_us, struct health_result *ret)
{
    const struct check *k;
    bool used;

    if (check >= HEALTH_CHECKS_MAX)
        return false;
    k = &h->checks[check];
    pthread_mutex_lock(&h->lock);
    advance(h, now_us);
    used = k->used;
    if (used) {
        *ret = (struct health_result){.critical = k->critical,
                                      .running = k->run != 0,
                                      .status = status_of(h, k),
                                      .at_us = k->at_us,
                                      .age_us = k->at_us < 0 ? -1 : h->now_us - k->at_us};
        memcpy(ret->name, k->name, sizeof ret->name);
        memcpy(ret->details, k->details, sizeof ret->details);
    }
    pthread_mutex_unlock(&h->lock);
    return used;
}

void health_read(struct health *h, int64_t now_us, struct health_overall *ret)
{
    struct health_overall o = {0};

    pthread_mutex_lock(&h->lock);
    advance(h, now_us);
    for (const struct check *k = h->checks; k < h->checks + HEALTH_CHECKS_MAX; k++) {
        if (!k->used)
            continue;
        const enum health_status s = status_of(h, k);
        o.checks++;
        o.up += s == HEALTH_UP;
        o.down += s == HEALTH_DOWN;
        o.unknown += s == HEALTH_UNKNOWN;
        o.down_critical += s == HEALTH_DOWN && k->critical;
    }
    pthread_mutex_unlock(&h->lock);
    o.status = o.down_critical ? HEALTH_DOWN : o.unknown ? HEALTH_UNKNOWN : HEALTH_UP;
    *ret = o;
}
