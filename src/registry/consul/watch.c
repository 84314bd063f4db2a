/* A watch's thread. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "registry/consul/internal.h"

/* µs. An answer that took LONG_US did wait for a change, as it should. */
enum { GAP_MIN_US = 100000, GAP_MAX_US = 1000000, LONG_US = 1000000 };
enum { MARGIN_MS = 5000 };

/* What a watch remembers between its queries. */
struct round {
    uint64_t index;  /* to wait behind; 0: ask anew */
    uint64_t newest; /* the last one that came; 0: none */
    unsigned failures;
    int64_t gap_us;
    int64_t doubt_end_us; /* 0: no doubt */
    bool warned;          /* that instances are left out */
};

/* Consul adds up to a sixteenth to the time that a query waits. */
static int64_t patience_ms(unsigned wait_s)
{
    int64_t ms = (int64_t)wait_s * 1000;
    return ms + ms / 16 + MARGIN_MS;
}

static bool ask(struct watch *w, const struct round *r, struct instances *ret, char why[WHY_MAX])
{
    struct consul *c = w->c;
    char name[ESCAPED_MAX], path[2 * ESCAPED_MAX + 128];
    unsigned wait_s = r->doubt_end_us ? 1 : c->wait_s;
    consul_talk_escape(w->service, name);
    snprintf(path, sizeof path, "/v1/health/service/%s?index=%llu&wait=%us%s%s", name, (unsigned long long)r->index,
             wait_s, c->passing_only ? "&passing=1" : "", c->where.dc);
    int64_t patience = r->index ? patience_ms(wait_s) : (int64_t)c->call_ms;
    return consul_talk(&w->talker, &c->where, "GET", path, STR_NONE, patience, why) == 200 &&
           consul_instances_read(buf_as_str(&w->talker.body), ret, why) == PFE_OK;
}

/* Takes fresh. */
static void tell(struct watch *w, struct instances *fresh)
{
    consul_instances_free(&w->now);
    w->now = *fresh;
    w->known = true;
    w->generation++;
    atomic_fetch_add(&w->c->changes, 1);
    w->fn(w->ctx, &(struct registry_list){w->generation, w->now.all, w->now.n});
}

static void warn(const struct watch *w, struct round *r, unsigned left_out)
{
    if (left_out && !r->warned)
        log_msg(LOG_WARN, "instances of the registry are left out: unfit, or too many", LOG_S("service", w->service),
                LOG_I("instances", left_out));
    r->warned = left_out > 0;
}

/* Nobody serves any more, right behind a failure or a loss of state: true while that is not to be believed. */
static bool doubted(const struct watch *w, struct round *r, const struct instances *fresh)
{
    if (!r->doubt_end_us)
        return false;
    if (consul_now() < r->doubt_end_us && w->known && consul_instances_serve(&w->now) && !consul_instances_serve(fresh))
        return true;
    r->doubt_end_us = 0;
    return false;
}

/* A list came. Takes fresh; returns the time of the next query's beginning. */
static int64_t took(struct watch *w, struct round *r, struct instances *fresh, int64_t begin)
{
    uint64_t index = w->talker.index;
    int64_t now = consul_now();
    bool back = index < r->newest;
    if ((back || r->failures) && !r->doubt_end_us)
        r->doubt_end_us = now + (int64_t)w->c->doubt_ms * 1000;
    r->failures = 0;
    r->newest = index;
    r->index = back ? 0 : index;
    warn(w, r, fresh->left_out);
    bool doubt = doubted(w, r, fresh), changed = !doubt && (!w->known || !consul_instances_same(&w->now, fresh));
    if (changed)
        tell(w, fresh);
    else
        consul_instances_free(fresh);
    if (doubt)
        r->gap_us = GAP_MAX_US;
    else if (changed || now - begin >= LONG_US)
        r->gap_us = GAP_MIN_US;
    else
        r->gap_us = r->gap_us * 2 < GAP_MAX_US ? r->gap_us * 2 : GAP_MAX_US;
    return begin + r->gap_us;
}

static void *watch_main(void *arg)
{
    struct watch *w = arg;
    struct round r = {.gap_us = GAP_MIN_US};
    char why[WHY_MAX] = "";
    int64_t next = 0;
    while (consul_pause(w->c, next - consul_now(), NULL)) {
        struct instances fresh = {0};
        int64_t begin = consul_now();
        bool ok = ask(w, &r, &fresh, why);
        if (!ok && atomic_load(&w->c->stop))
            break;
        consul_note(w->c, &w->party, ok, why);
        if (ok) {
            next = took(w, &r, &fresh, begin);
        } else {
            r.index = 0;
            r.failures++;
            next = consul_now() + consul_backoff(w->c, r.failures);
        }
    }
    return NULL;
}

enum pf_err consul_watch_start(struct registry *reg, const char *service, registry_changed *fn, void *ctx)
{
    struct consul *c = consul_of(reg);
    struct watch *w = calloc(1, sizeof *w);
    enum pf_err e = PFE_NOMEM;
    if (!w || !consul_talker_init(&w->talker)) {
        consul_watch_free(w);
        return e;
    }
    w->c = c;
    w->fn = fn;
    w->ctx = ctx;
    w->talker.stop = &c->stop;
    w->party.service = w->service;
    pthread_mutex_lock(&c->lock);
    unsigned n = atomic_load(&c->n_watches);
    if (n == REGISTRY_WATCHES_MAX || !str_copy(w->service, sizeof w->service, str_c(service)) || !w->service[0])
        e = PFE_BUSY;
    else if (pthread_create(&w->thread, NULL, watch_main, w) == 0)
        e = PFE_OK;
    if (e == PFE_OK) {
        c->watches[n] = w;
        atomic_store(&c->n_watches, n + 1);
    }
    pthread_mutex_unlock(&c->lock);
    if (e != PFE_OK)
        consul_watch_free(w);
    return e;
}

void consul_watch_free(struct watch *w)
{
    if (!w)
        return;
    consul_talker_fini(&w->talker);
    consul_instances_free(&w->now);
    free(w);
}
