#include "app/lease.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "app/internal.h"
#include "base/log.h"
#include "base/rand.h"

#define LOAN STR("deletions")
enum {
    SOON_US = 50000, /* a lease is asked for again so long after it has run out, and not more often */
    POLL_NS = 10000000
};

static const char *const job_names[APP_LEASES] = {
    [APP_LEASE_SCHEDULES] = "schedules", [APP_LEASE_HOLDS] = "holds", [APP_LEASE_RELAY] = "relay"};

struct lease {
    struct leases *all;
    int64_t next_us; /* monotonic: when to ask the store again; the keeper's */
    /* under the lock */
    struct store_lease seen;
    int64_t until_us; /* monotonic: no work after */
    bool held;        /* as it was told last */
};

struct leases {
    struct app *a;
    pthread_mutex_t keeper; /* who asks the store */
    pthread_mutex_t lock;   /* quick */
    bool dropped;
    char holder[STORE_LEASE_HOLDER_MAX + 1];
    struct lease v[APP_LEASES];
};

/* host:pid:random, so that no two processes ever share it. */
static void name_holder(char out[STORE_LEASE_HOLDER_MAX + 1])
{
    char host[HOST_NAME_MAX + 1] = "";
    (void)!gethostname(host, sizeof host - 1);
    for (char *p = host; *p; p++)
        if (*p <= ' ' || *p > '~')
            *p = '?';
    snprintf(out, STORE_LEASE_HOLDER_MAX + 1, "%s:%ld:%016llx", host, (long)getpid(), (unsigned long long)rand_u64());
}

static int64_t gauge_held(void *ctx)
{
    const struct lease *l = ctx;
    struct app_lease_state s;
    app_lease_state(l->all->a, (enum app_lease)(l - l->all->v), &s);
    return s.held;
}

struct leases *leases_new(struct app *a)
{
    struct leases *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->a = a;
    pthread_mutex_init(&x->keeper, NULL);
    pthread_mutex_init(&x->lock, NULL);
    name_holder(x->holder);
    for (unsigned i = 0; i < APP_LEASES; i++) {
        char labels[64];
        snprintf(labels, sizeof labels, "job=\"%s\"", job_names[i]);
        x->v[i].all = x;
        metric_gauge_fn(a->d.metrics, "payflow_lease_held", "1: this instance does the job; 0: another one does.",
                        labels, gauge_held, &x->v[i], 1);
    }
    return x;
}

void leases_free(struct leases *x)
{
    if (!x)
        return;
    pthread_mutex_destroy(&x->keeper);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

/* ---- keeping them ---- */

static void tell(const struct lease *l, bool held, const struct store_lease *now, enum pf_err e)
{
    const char *job = job_names[l - l->all->v];
    if (held)
        log_msg(LOG_INFO, "lease taken", LOG_S("job", job), LOG_I("token", now->token));
    else if (e == PFE_OK)
        log_msg(LOG_WARN, "lease lost", LOG_S("job", job), LOG_S("holder", now->holder), LOG_I("token", now->token));
    else
        log_msg(LOG_WARN, "lease lost: it could not be renewed", LOG_S("job", job), LOG_S("why", err_info(e)->slug));
}

static void ask(struct leases *x, struct lease *l)
{
    struct app *a = x->a;
    struct store_lease got = {0};
    int64_t sent = clock_mono(a->d.clock);
    enum pf_err e = store_lease_take(a->d.store, str_c(job_names[l - x->v]), str_c(x->holder), APP_LEASE_TTL_US, &got);
    int64_t now = clock_mono(a->d.clock), wait = APP_LEASE_LOOK_US;
    pthread_mutex_lock(&x->lock);
    int64_t token = l->seen.token;
    bool was = l->held;
    if (e == PFE_OK) {
        l->seen = got;
        l->until_us = got.mine ? sent + APP_LEASE_TTL_US - APP_LEASE_MARGIN_US : 0;
    }
    l->held = l->until_us > now;
    bool held = l->held, changed = held != was || (held && got.mine && token != got.token);
    pthread_mutex_unlock(&x->lock);
    if (e == PFE_OK && got.mine)
        wait = APP_LEASE_RENEW_US - (now - sent);
    else if (e == PFE_OK && got.left_us < wait)
        wait = got.left_us;
    l->next_us = now + (wait > SOON_US ? wait : SOON_US);
    if (changed)
        tell(l, held, &got, e);
}

/* Is the job done here, when it is this instance's turn? */
static bool ours(const struct leases *x, unsigned i)
{
    return !(x->a->cfg.jobs_elsewhere & 1u << i);
}

static void step(struct leases *x, struct lease *l)
{
    if (ours(x, (unsigned)(l - x->v)) && !x->dropped && clock_mono(x->a->d.clock) >= l->next_us)
        ask(x, l);
}

int64_t app_leases_step(struct app *a)
{
    struct leases *x = a->leases;
    int64_t wait = APP_LEASE_RENEW_US;
    pthread_mutex_lock(&x->keeper);
    for (unsigned i = 0; i < APP_LEASES; i++)
        step(x, &x->v[i]);
    int64_t now = clock_mono(a->d.clock);
    for (unsigned i = 0; i < APP_LEASES; i++)
        if (ours(x, i) && x->v[i].next_us - now < wait)
            wait = x->v[i].next_us - now;
    pthread_mutex_unlock(&x->keeper);
    return wait > 0 ? wait : 0;
}

void app_leases_drop(struct app *a)
{
    struct leases *x = a->leases;
    pthread_mutex_lock(&x->keeper);
    pthread_mutex_lock(&x->lock);
    x->dropped = true;
    for (unsigned i = 0; i < APP_LEASES; i++)
        x->v[i].until_us = 0;
    pthread_mutex_unlock(&x->lock);
    for (unsigned i = 0; i < APP_LEASES; i++) {
        if (!ours(x, i))
            continue;
        /* also one that is not known to be held: the answer to the last renewal may have been lost */
        enum pf_err e = store_lease_drop(a->d.store, str_c(job_names[i]), str_c(x->holder));
        if (x->v[i].held)
            log_msg(e == PFE_OK ? LOG_INFO : LOG_WARN, e == PFE_OK ? "lease given back" : "lease not given back",
                    LOG_S("job", job_names[i]), LOG_I("token", x->v[i].seen.token));
        x->v[i].held = false;
    }
    pthread_mutex_unlock(&x->keeper);
}

/* ---- asking ---- */

bool app_lease_fence(struct app *a, enum app_lease which, struct store_fence *ret)
{
    struct leases *x = a->leases;
    struct lease *l = &x->v[which];
    if (!store_shared(a->d.store)) {
        pthread_mutex_lock(&x->keeper);
        step(x, l);
        pthread_mutex_unlock(&x->keeper);
    }
    pthread_mutex_lock(&x->lock);
    bool held = l->until_us > clock_mono(a->d.clock);
    if (held)
        *ret =
            (struct store_fence){.name = str_c(job_names[which]), .holder = str_c(x->holder), .token = l->seen.token};
    pthread_mutex_unlock(&x->lock);
    return held;
}

enum pf_err app_lease_borrow(struct app *a, struct store_fence *ret)
{
    const struct str holder = str_c(a->leases->holder);
    const struct clock *real = clock_system();
    int64_t until = clock_mono(real) + APP_LEASE_WAIT_US;
    for (;;) {
        struct store_lease got;
        enum pf_err e = store_lease_take(a->d.store, LOAN, holder, APP_LEASE_LOAN_US, &got);
        if (e == PFE_OK && got.mine) {
            *ret = (struct store_fence){.name = LOAN, .holder = holder, .token = got.token};
            return PFE_OK;
        }
        if (e != PFE_OK && e != PFE_BUSY)
            return e;
        if (clock_mono(real) >= until)
            return PFE_BUSY;
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
}

void app_lease_return(struct app *a, const struct store_fence *f)
{
    (void)!store_lease_drop(a->d.store, f->name, f->holder); /* if not now, it runs out */
}

void app_lease_state(struct app *a, enum app_lease which, struct app_lease_state *ret)
{
    struct leases *x = a->leases;
    struct lease *l = &x->v[which];
    *ret = (struct app_lease_state){.job = job_names[which]};
    pthread_mutex_lock(&x->lock);
    ret->token = l->seen.token;
    ret->held = l->until_us > clock_mono(a->d.clock);
    str_copy(ret->holder, sizeof ret->holder, str_c(l->seen.holder));
    pthread_mutex_unlock(&x->lock);
}
