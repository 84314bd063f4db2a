/* Clock, randomness, trace; the process under test starts and ends. */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cache/local/local.h"
#include "store/sqlite/sqlite.h"

struct sim *sim_now;

/* ---- what the program would ask the machine for, replaced at link time (meson.build: --wrap) ---- */

const struct clock *__wrap_clock_system(void);
void __wrap_rand_bytes(void *p, size_t n);
uint64_t __wrap_rand_u64(void);

static int64_t wall_of(void *ctx)
{
    (void)ctx;
    return sim_now ? sim_now->wall : 0;
}

static int64_t mono_of(void *ctx)
{
    (void)ctx;
    return sim_now ? sim_now->mono : 0;
}

const struct clock *__wrap_clock_system(void)
{
    static const struct clock c = {wall_of, mono_of, NULL};
    return &c;
}

static uint64_t next(uint64_t *x) /* splitmix64, https://prng.di.unimi.it/splitmix64.c */
{
    uint64_t z = *x += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t __wrap_rand_u64(void)
{
    static uint64_t before_any = 1; /* the key of the process's hash tables: one and the same for all seeds */
    return next(sim_now ? &sim_now->rng_lib : &before_any);
}

void __wrap_rand_bytes(void *p, size_t n)
{
    uint8_t *to = p;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = __wrap_rand_u64();
        memcpy(to + i, &v, n - i < 8 ? n - i : 8);
    }
}

uint64_t sim_rnd(struct sim *s)
{
    return next(&s->rng);
}

/* ---- trace ---- */

void sim_trace(struct sim *s, const char *fmt, ...)
{
    char *line = s->tail[s->lines % TAIL];
    va_list ap;
    va_start(ap, fmt);
    int at = snprintf(line, LINE, "%lld.%06lld ", (long long)(s->wall / SECOND), (long long)(s->wall % SECOND));
    vsnprintf(line + at, (size_t)(LINE - at), fmt, ap);
    va_end(ap);
    s->lines++;
    for (const char *p = line; *p; p++) /* FNV-1a */
        s->trace = (s->trace ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
    s->trace = (s->trace ^ '\n') * UINT64_C(0x100000001b3);
    if (s->verbose)
        printf("%s\n", line);
}

void sim_wrong(struct sim *s, const char *fmt, ...)
{
    if (!sim_ok(s))
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->why, sizeof s->why, fmt, ap);
    va_end(ap);
    sim_trace(s, "WRONG: %.200s", s->why);
}

const char *sim_err(enum pf_err e)
{
    return e == PFE_OK ? "ok" : err_info(e)->slug;
}

bool sim_failure(enum pf_err e)
{
    return e == PFE_DISK_FULL || e == PFE_UNAVAILABLE || e == PFE_INTERNAL;
}

/* ---- the process ---- */

static void on_fatal(void *ctx)
{
    struct sim *s = ctx;
    s->fatal = true;
    if (!s->crashed) {
        s->c.fatal++;
        sim_trace(s, "the process gives up");
    }
}

void sim_die(struct sim *s)
{
    static const char *const words[] = {"killed", "power lost: what was not synced is gone",
                                        "power lost: some of what was not synced is there",
                                        "power lost: the last write is torn"};
    int group = s->taken ? s->taken : (int)s->cfg.group_max;
    for (int i = 0; i < group && i < s->n_queue && s->n_maybe <= i; i++)
        s->maybe[s->n_maybe++] = s->queue[i];
    disk_crash(s->dirs[s->dir], s->dirs[!s->dir], s->loss);
    s->crashed = true;
    s->plan.op = 0; /* what happens to the ghost does not matter */
    s->c.kills += s->loss == DISK_KEEP;
    s->c.power += s->loss != DISK_KEEP;
    sim_trace(s, "CRASH after %ld operations of the disk, %s", s->ops, words[s->loss]);
}

void sim_on_disk(void *ctx, enum disk_op op, long nth)
{
    struct sim *s = ctx;
    (void)nth;
    if (s->crashed)
        return;
    s->may_fail |= s->plan.failed;
    s->ops++;
    s->syncs += op == DISK_SYNC;
    if (s->ops == s->crash_at || (op == DISK_SYNC && s->syncs == s->crash_at_sync))
        sim_die(s);
    else
        clients_midway(s);
}

bool sim_open(struct sim *s)
{
    char why[256] = "";
    s->clock = *__wrap_clock_system();
    struct sqlite_options o = {.dir = s->dirs[s->dir], .flush_entries = s->flush_entries};
    enum pf_err e = store_sqlite_open(&o, &s->store, why);
    if (e != PFE_OK) {
        s->store = NULL;
        s->may_fail |= s->plan.failed;
        if (!s->crashed)
            sim_trace(s, "does not start: %s", sim_err(e));
        if (!s->may_fail && !s->crashed)
            sim_wrong(s, "the store does not open: %s", why);
        return false;
    }
    s->cache = cache_local_new(
        &(struct cache_local_options){.max_entries = 64, .max_bytes = 1 << 18, .max_counters = 64, .clock = &s->clock});
    s->metrics = metrics_new();
    s->app = !s->cache || !s->metrics ? NULL
                                      : app_new(&s->cfg, &(struct app_deps){.store = s->store,
                                                                            .cache = s->cache,
                                                                            .clock = &s->clock,
                                                                            .metrics = s->metrics,
                                                                            .on_fatal = on_fatal,
                                                                            .fatal_ctx = s});
    if (!s->app)
        sim_wrong(s, "out of memory");
    return s->app && !s->crashed;
}

void sim_close(struct sim *s)
{
    app_free(s->app);
    store_close(s->store);
    cache_close(s->cache);
    metrics_free(s->metrics);
    s->app = NULL;
    s->store = NULL;
    s->cache = NULL;
    s->metrics = NULL;
    arena_reset(&s->arena);
}
