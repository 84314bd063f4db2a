/* Health: the checks, and what they make of the whole. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/accounts.h"
#include "app/admin.h"
#include "app/internal.h"
#include "base/clock.h"

enum {
    WHENEVER_US = 1,           /* a check is due again at once: it runs when somebody asks */
    ANSWER_US = 10 * 1000000,  /* longer than any call of a store that is answered at all */
    LOOK_NS = 10 * 1000 * 1000 /* who waits for another's run looks so often whether its time is out */
};

/* What one run found. */
struct found {
    enum app_health_state state;
    const char *why; /* it is not UP; NULL: that says it all */
    struct store_info store;
    struct bus_stats messages;
};

struct checks {
    struct health *registry;
    unsigned id[APP_CHECKS];
    bool used[APP_CHECKS];
    pthread_mutex_t lock; /* over what follows; held for moments only */
    pthread_cond_t ended;
    struct found last[APP_CHECKS];
};

const char *app_health_name(enum app_health_state s)
{
    static const char *const names[] = {"UP", "DEGRADED", "DOWN"};
    return names[s];
}

/* ---- the checks ---- */

static bool reads_go_on(struct app *a)
{
    struct store_cluster c;
    if (!store_cluster(a->d.store, &c))
        return false;
    for (unsigned i = 0; i < c.n; i++)
        if (strcmp(c.replicas[i].state, "up") == 0)
            return true;
    return false;
}

static void turn(struct found *f, enum app_health_state state, const char *why)
{
    f->state = state;
    f->why = why;
}

static void look_at_database(struct app *a, struct found *f)
{
    struct app_writer_stats w;
    struct store_cluster cluster;
    app_writer_stats(a, &w);
    bool told = store_info(a->d.store, &f->store) == PFE_OK;
    if (w.dead)
        turn(f, APP_DOWN, "a commit failed with an unknown outcome");
    else if ((!told || f->store.fatal) && reads_go_on(a))
        turn(f, APP_DEGRADED, "the primary does not answer, replicas do");
    else if (!told || f->store.fatal)
        turn(f, APP_DOWN, "it does not answer");
    else if (!f->store.writable)
        turn(f, APP_DEGRADED, "it takes no writes");
    else if (store_cluster(a->d.store, &cluster) && cluster.stalled)
        turn(f, APP_DEGRADED, "commits wait for replicas that do not answer");
}

static void look_at_writer(struct app *a, struct found *f)
{
    struct app_writer_stats w;
    app_writer_stats(a, &w);
    if (w.dead)
        turn(f, APP_DOWN, "it has stopped");
    else if (w.queued >= w.capacity)
        turn(f, APP_DEGRADED, "its queue is full");
}

static void look_at_cache(struct app *a, struct found *f)
{
    struct cache_stats tiers[4];
    unsigned n = cache_stats(a->d.cache, tiers, 4);
    for (unsigned i = 0; i < n; i++)
        if (!tiers[i].up)
            turn(f, APP_DEGRADED, "a tier is out of use");
}

/* Documents in the store's own database are as well as that is. */
static void look_at_documents(struct app *a, struct found *f)
{
    if (strcmp(documents_engine(a->d.documents), "mongodb") != 0)
        look_at_database(a, f);
    else if (documents_probe(a->d.documents) != PFE_OK)
        turn(f, APP_DOWN, "their server does not answer");
}

static void look_at_bus(struct app *a, struct found *f)
{
    bus_stats(a->d.bus, &f->messages);
    if (!f->messages.up)
        turn(f, APP_DOWN, "it is not connected");
}

static const struct {
    const char *name;
    bool critical;
    void (*look)(struct app *a, struct found *f);
} list[APP_CHECKS] = {
    [APP_CHECK_DATABASE] = {"database", true, look_at_database},
    [APP_CHECK_WRITER] = {"ledger_writer", true, look_at_writer},
    [APP_CHECK_CACHE] = {"cache", false, look_at_cache},
    [APP_CHECK_DOCUMENTS] = {"documents", false, look_at_documents},
    [APP_CHECK_BUS] = {"bus", false, look_at_bus},
};

/* ---- asking ---- */

static int64_t now_us(void)
{
    return clock_mono(clock_system()); /* a time limit, and nothing else, hangs on it */
}

static void run(struct app *a, const struct health_run *r)
{
    struct checks *c = a->checks;
    struct found f = {0};
    char details[HEALTH_DETAILS_MAX] = "";
    enum app_check k = 0;
    while (!c->used[k] || c->id[k] != r->check)
        k++;
    list[k].look(a, &f);
    if (f.why)
        snprintf(details, sizeof details, "{\"reason\":\"%s\"}", f.why);
    pthread_mutex_lock(&c->lock);
    /* of the registry's three states none is between; what it lacks is kept here, for a run that was not too late */
    if (health_report(c->registry, r, f.state == APP_DOWN ? HEALTH_DOWN : HEALTH_UP, str_c(details), now_us()))
        c->last[k] = f;
    pthread_cond_broadcast(&c->ended);
    pthread_mutex_unlock(&c->lock);
}

/* With the lock held. false: one is under way, and has no answer of since then. */
static bool read_parts(struct app *a, int64_t since_us, struct app_health *ret)
{
    const struct checks *c = a->checks;
    int64_t now = now_us(), wall = app_now(a);
    for (unsigned k = 0; k < APP_CHECKS; k++) {
        struct app_part *p = &ret->parts[k];
        struct health_result r;
        p->state = APP_DOWN;
        if (!c->used[k] || !health_result(c->registry, c->id[k], now, &r))
            continue;
        if (r.running && r.at_us < since_us)
            return false;
        p->state = r.status == HEALTH_UP ? c->last[k].state : r.status == HEALTH_DOWN ? APP_DOWN : APP_DEGRADED;
        p->at_us = wall - (r.age_us > 0 ? r.age_us : 0);
        memcpy(p->details, r.details, sizeof p->details);
    }
    return true;
}

void app_health(struct app *a, struct app_health *ret)
{
    struct checks *c = a->checks;
    struct health_run runs[APP_CHECKS];
    struct health_overall all;
    *ret = (struct app_health){.documents_engine = a->d.documents ? documents_engine(a->d.documents) : ""};
    int64_t asked_us = now_us();
    size_t n = health_due(c->registry, asked_us, runs, APP_CHECKS);
    for (size_t i = 0; i < n; i++)
        run(a, &runs[i]);
    pthread_mutex_lock(&c->lock);
    while (!read_parts(a, asked_us, ret)) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += LOOK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_clockwait(&c->ended, &c->lock, CLOCK_MONOTONIC, &until);
    }
    ret->store = c->last[APP_CHECK_DATABASE].store;
    ret->messages = c->last[APP_CHECK_BUS].messages;
    pthread_mutex_unlock(&c->lock);
    ret->journal_lag = ret->store.head_seq - ret->store.projected_seq;
    health_read(c->registry, now_us(), &all);
    ret->state = all.status == HEALTH_DOWN ? APP_DOWN : APP_UP;
    for (unsigned k = 0; k < APP_CHECKS; k++)
        if (c->used[k] && ret->parts[k].state != APP_UP && ret->state == APP_UP)
            ret->state = APP_DEGRADED;
}

bool app_health_blocks(struct app *a)
{
    return app_shared(a);
}

/* ---- the registry ---- */

bool checks_init(struct app *a)
{
    struct checks *c = a->checks = calloc(1, sizeof *c);
    if (!c)
        return false;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->ended, NULL);
    c->registry = health_new();
    for (unsigned k = 0; c->registry && k < APP_CHECKS; k++) {
        if ((k == APP_CHECK_DOCUMENTS && !a->d.documents) || (k == APP_CHECK_BUS && !a->d.bus))
            continue;
        int id = health_add(c->registry, &(struct health_check){.name = str_c(list[k].name),
                                                                .critical = list[k].critical,
                                                                .interval_us = WHENEVER_US,
                                                                .timeout_us = ANSWER_US});
        c->used[k] = id >= 0;
        c->id[k] = id >= 0 ? (unsigned)id : 0;
    }
    return c->registry != NULL;
}

void checks_free(struct app *a)
{
    struct checks *c = a->checks;
    if (!c)
        return;
    health_free(c->registry);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->ended);
    free(c);
}
