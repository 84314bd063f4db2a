/* Opening and closing, figures, services. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"
#include "codec/json_in.h"
#include "registry/consul/internal.h"

enum { MS_MAX = 3600000 };

int64_t consul_now(void)
{
    return clock_mono(clock_system());
}

bool consul_pause(struct consul *c, int64_t us, bool *hurry)
{
    int64_t end = consul_now() + us;
    struct timespec ts = {end / 1000000, end % 1000000 * 1000};
    pthread_mutex_lock(&c->lock);
    while (!atomic_load(&c->stop) && !(hurry && *hurry) && consul_now() < end)
        pthread_cond_timedwait(&c->wake, &c->lock, &ts);
    if (hurry)
        *hurry = false;
    pthread_mutex_unlock(&c->lock);
    return !atomic_load(&c->stop);
}

int64_t consul_backoff(const struct consul *c, unsigned nth)
{
    int64_t most = (int64_t)c->backoff_max_ms * 1000, us = (int64_t)c->backoff_ms * 1000;
    while (--nth > 0 && us < most)
        us *= 2;
    us = us < most ? us : most;
    return us - (int64_t)(rand_u64() % (uint64_t)(us / 2 + 1));
}

void consul_note(struct consul *c, struct party *p, bool ok, const char *why)
{
    const char *of = p->service ? p->service : "our own";
    bool was = atomic_exchange(&p->failing, !ok);
    if (ok) {
        atomic_store(&p->confirmed_us, consul_now());
        if (was)
            log_msg(LOG_INFO, "registry answers again", LOG_S("registry", "consul"), LOG_S("instances_of", of));
        return;
    }
    atomic_fetch_add(&c->errors, 1);
    if (!was)
        log_msg(LOG_WARN, "registry does not answer; what it said last holds", LOG_S("registry", "consul"),
                LOG_S("instances_of", of), LOG_S("why", why));
}

/* ---- services */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum pf_err each_service(struct str answer, registry_each *fn, void *ctx, char why[256])
{
    struct arena a;
    struct json *j = NULL;
    arena_init(&a, NULL, 0, TREE_MAX);
    enum pf_err e = json_parse(&a, answer, &j, NULL);
    if (e == PFE_OK && j->type != JSON_OBJECT)
        e = PFE_BAD_JSON;
    const char **names = e == PFE_OK ? arena_alloc(&a, j->n * sizeof *names + 1) : NULL;
    size_t n = 0;
    for (const struct json *m = names ? j->child : NULL; m; m = m->next) {
        names[n] = arena_strdup(&a, m->key).p;
        if (!names[n++])
            e = PFE_NOMEM;
    }
    if (e == PFE_OK && !names)
        e = PFE_NOMEM;
    if (e == PFE_OK) {
        qsort(names, n, sizeof *names, by_text);
        for (size_t i = 0; i < n; i++)
            fn(ctx, names[i]);
    } else {
        snprintf(why, 256, e == PFE_NOMEM ? "out of memory" : "the answer is no list of services");
    }
    arena_reset(&a);
    return e == PFE_OK || e == PFE_NOMEM ? e : PFE_UNAVAILABLE;
}

static enum pf_err consul_services(struct registry *r, registry_each *fn, void *ctx, char why[256])
{
    struct consul *c = consul_of(r);
    struct talker t = {0};
    char path[sizeof c->where.dc + 32];
    enum pf_err e = PFE_UNAVAILABLE;
    snprintf(path, sizeof path, "/v1/catalog/services?stale=1%s", c->where.dc);
    if (!consul_talker_init(&t)) {
        snprintf(why, 256, "out of memory");
        e = PFE_NOMEM;
    } else if (consul_talk(&t, &c->where, "GET", path, STR_NONE, c->call_ms, why) == 200) {
        e = each_service(buf_as_str(&t.body), fn, ctx, why);
    }
    consul_talker_fini(&t);
    return e;
}

/* ---- open, figures, close */

static void consul_figures(struct registry *r, struct registry_figures *ret)
{
    struct consul *c = consul_of(r);
    struct registry_figures f = {.engine = "consul",
                                 .reachable = !atomic_load(&c->own_party.failing),
                                 .changes = atomic_load(&c->changes),
                                 .errors = atomic_load(&c->errors)};
    int64_t oldest = INT64_MAX;
    unsigned n = atomic_load(&c->n_watches);
    for (unsigned i = 0; i < n; i++) {
        int64_t at = atomic_load(&c->watches[i]->party.confirmed_us);
        f.reachable = f.reachable && !atomic_load(&c->watches[i]->party.failing);
        oldest = at < oldest ? at : oldest;
    }
    f.age_us = n == 0 || oldest == 0 ? -1 : consul_now() - oldest;
    *ret = f;
}

static void consul_close(struct registry *r)
{
    struct consul *c = consul_of(r);
    unsigned n = atomic_load(&c->n_watches);
    pthread_mutex_lock(&c->lock);
    atomic_store(&c->stop, true);
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < n; i++)
        consul_talker_wake(&c->watches[i]->talker);
    if (c->own_running) {
        consul_talker_wake(&c->own_talker);
        pthread_join(c->own_thread, NULL);
    }
    consul_own_leave(c);
    for (unsigned i = 0; i < n; i++) {
        pthread_join(c->watches[i]->thread, NULL);
        consul_watch_free(c->watches[i]);
    }
    consul_talker_fini(&c->own_talker);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->own_lock);
    pthread_cond_destroy(&c->wake);
    consul_where_fini(&c->where);
    free(c);
    curl_global_cleanup();
}

static const struct registry_ops ops = {consul_own_add,  consul_own_remove, consul_watch_start,
                                        consul_services, consul_figures,    consul_close};

static bool option(unsigned given, unsigned otherwise, unsigned max, unsigned *ret)
{
    *ret = given ? given : otherwise;
    return *ret <= max;
}

static enum pf_err start(struct consul *c, const struct registry_consul_options *o, char why[256])
{
    if (!option(o->wait_s, 30, 600, &c->wait_s) || !option(o->call_ms, 3000, MS_MAX, &c->call_ms) ||
        !option(o->keep_ms, 5000, MS_MAX, &c->keep_ms) || !option(o->backoff_ms, 250, MS_MAX, &c->backoff_ms) ||
        !option(o->backoff_max_ms, 15000, MS_MAX, &c->backoff_max_ms) ||
        !option(o->doubt_ms, 20000, MS_MAX, &c->doubt_ms) || !option(o->leave_ms, 3000, MS_MAX, &c->leave_ms)) {
        snprintf(why, 256, "a time for Consul is out of range");
        return PFE_INVALID;
    }
    c->passing_only = o->passing_only;
    c->where.rest_ms = c->call_ms;
    if (!consul_talker_init(&c->own_talker)) {
        snprintf(why, 256, "out of memory");
        return PFE_NOMEM;
    }
    return consul_where_init(&c->where, o, why);
}

enum pf_err registry_consul_open(const struct registry_consul_options *o, struct registry **ret, char why[256])
{
    struct consul *c = calloc(1, sizeof *c);
    pthread_condattr_t a;
    if (!c || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(c);
        snprintf(why, 256, "out of memory");
        return PFE_NOMEM;
    }
    c->pub.ops = &ops;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->own_lock, NULL);
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&c->wake, &a);
    pthread_condattr_destroy(&a);
    enum pf_err e = start(c, o, why);
    if (e == PFE_OK)
        *ret = &c->pub;
    else
        consul_close(&c->pub);
    return e;
}
