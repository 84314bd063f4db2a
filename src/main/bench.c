/* payflow bench: the ledger alone, from app_submit to the durable commit. */
#include "main/main.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/identity.h"
#include "app/movement.h"
#include "base/clock.h"
#include "base/rand.h"
#include "cache/local/local.h"
#include "store/sqlite/sqlite.h"

enum { USERS = 1000, FUNDS = 1000000000 };

struct run {
    struct app *app;
    pthread_mutex_t lock;
    pthread_cond_t free_slot;
    struct job **idle;
    int64_t n_idle, refused;
};

static void finished(struct job *j)
{
    struct run *r = j->ctx;
    pthread_mutex_lock(&r->lock);
    r->refused += j->err != PFE_OK;
    r->idle[r->n_idle++] = j;
    pthread_cond_signal(&r->free_slot);
    pthread_mutex_unlock(&r->lock);
}

static bool make_users(struct store *s)
{
    struct store_tx *tx;
    if (store_tx_begin(s, &tx) != PFE_OK)
        return false;
    for (int i = 0; i < USERS; i++) {
        struct store_user u = {.role = IDENT_USER};
        rand_bytes(u.uuid, sizeof u.uuid);
        snprintf(u.username, sizeof u.username, "user%d", i);
        snprintf(u.email, sizeof u.email, "user%d@example.com", i);
        if (store_user_insert(tx, &u) != PFE_OK) {
            store_tx_rollback(tx);
            return false;
        }
    }
    return store_tx_commit(tx) == PFE_OK;
}

static bool fund(struct app *a)
{
    struct movement *m = calloc(USERS, sizeof *m);
    if (!m)
        return false;
    for (int i = 0; i < USERS; i++)
        m[i] = (struct movement){.kind = LEDGER_DEPOSIT, .to_user = i + 1, .amount = FUNDS, .currency = 840};
    struct job j = {.kind = JOB_MOVE, .m = m, .n = USERS, .atomic = true};
    bool ok = app_submit_wait(a, &j) == PFE_OK;
    free(m);
    return ok;
}

/* Keeps `group` jobs in the air until `entries` have gone through. */
static bool drive(struct run *r, int64_t entries, int64_t group)
{
    struct job *jobs = calloc((size_t)group, sizeof *jobs);
    struct movement *m = calloc((size_t)group, sizeof *m);
    r->idle = calloc((size_t)group, sizeof *r->idle);
    bool ok = jobs && m && r->idle;
    for (int64_t i = 0; ok && i < group; i++) {
        jobs[i] = (struct job){.kind = JOB_MOVE, .m = &m[i], .n = 1, .atomic = true, .done = finished, .ctx = r};
        r->idle[r->n_idle++] = &jobs[i];
    }
    for (int64_t i = 0; ok && i < entries; i++) {
        pthread_mutex_lock(&r->lock);
        while (r->n_idle == 0)
            pthread_cond_wait(&r->free_slot, &r->lock);
        struct job *j = r->idle[--r->n_idle];
        pthread_mutex_unlock(&r->lock);
        uint64_t x = rand_u64();
        int64_t from = (int64_t)(x % USERS), to = (int64_t)((x >> 32) % (USERS - 1));
        *j->m = (struct movement){.kind = LEDGER_TRANSFER,
                                  .from_user = from + 1,
                                  .to_user = (to >= from ? to + 1 : to) + 1,
                                  .amount = 1,
                                  .currency = 840};
        ok = app_submit(r->app, j) == PFE_OK;
    }
    pthread_mutex_lock(&r->lock);
    while (ok && r->n_idle < group)
        pthread_cond_wait(&r->free_slot, &r->lock);
    pthread_mutex_unlock(&r->lock);
    free(jobs);
    free(m);
    free(r->idle);
    return ok && r->refused == 0;
}

static void remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(dir);
}

int run_bench(const struct conf *c, const struct options *o)
{
    char dir[4200], why[256];
    mkdir(c->store_dir, 0700);
    snprintf(dir, sizeof dir, "%s/bench.XXXXXX", c->store_dir);
    if (!mkdtemp(dir)) {
        fprintf(stderr, "payflow: cannot make a directory under DATA_DIR\n");
        return EXIT_FAILED;
    }
    struct store *s = NULL;
    struct sqlite_options so = {.dir = dir, .mode = SQLITE_SERVE, .flush_entries = c->flush_entries};
    struct cache_local_options co = {.max_entries = 100000, .max_bytes = 64 << 20, .clock = clock_system()};
    struct metrics *m = metrics_new();
    struct cache *cache = cache_local_new(&co);
    struct run r = {.lock = PTHREAD_MUTEX_INITIALIZER, .free_slot = PTHREAD_COND_INITIALIZER};
    bool ok = m && cache && store_sqlite_open(&so, &s, why) == PFE_OK;
    if (ok) {
        struct app_config ac = {.bcrypt_cost = 4,
                                .jwt_secret = STR("not used by the bench"),
                                .currency = 840,
                                .queue_capacity = (size_t)c->queue_capacity,
                                .group_max = (unsigned)c->group_max};
        struct app_deps ad = {.store = s, .cache = cache, .clock = clock_system(), .metrics = m};
        r.app = app_new(&ac, &ad);
        ok = r.app && make_users(s) && fund(r.app);
    }
    int64_t t0 = clock_mono(clock_system());
    ok = ok && drive(&r, o->entries, o->group);
    int64_t us = clock_mono(clock_system()) - t0;
    struct app_writer_stats st = {0};
    if (ok)
        app_writer_stats(r.app, &st);
    app_free(r.app);
    cache_close(cache);
    store_close(s);
    metrics_free(m);
    remove_dir(dir);
    if (!ok) {
        fprintf(stderr, "payflow: the bench failed\n");
        return EXIT_FAILED;
    }
    int64_t rate = us ? o->entries * 1000000 / us : 0, groups = (int64_t)st.groups;
    if (o->json)
        printf("{\"entries\":%lld,\"group\":%lld,\"duration_us\":%lld,\"entries_per_second\":%lld,\"commits\":%lld}\n",
               (long long)o->entries, (long long)o->group, (long long)us, (long long)rate, (long long)groups);
    else
        printf("%lld durable transfers, %lld at once: %lld a second, %lld commits\n", (long long)o->entries,
               (long long)o->group, (long long)rate, (long long)groups);
    return EXIT_OK;
}
