/* Leases over PostgreSQL: two stores, as two instances have them, one of which has wrong clocks; and what is written
   under a lease while they take it from one another. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "contract/records.h"
#include "store/postgres/postgres.h"

enum { LONG_US = 600000000, SHORT_US = 200000 };
#define JOB STR("job")

/* ---- a clock that is wrong for some threads (linked with --wrap=clock_gettime) ---- */

static _Thread_local int64_t skew_s;

int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = __real_clock_gettime(id, t);
    if (id == CLOCK_REALTIME)
        t->tv_sec += skew_s;
    return rc;
}

static struct store *beside(void)
{
    struct store *s = NULL;
    char why[256] = "";
    struct postgres_options o = {.url = pg_cluster_url(pg_cluster_shared()),
                                 .schema = pg_cluster_schema(pg_cluster_shared(), box.dir)};
    if (store_postgres_open(&o, &s, why) != PFE_OK)
        fail_msg("open: %s", why);
    return s;
}

static struct store_lease take(struct store *s, struct str who, int64_t ttl_us)
{
    struct store_lease l = {.token = -1};
    assert_ok(store_lease_take(s, JOB, who, ttl_us, &l));
    return l;
}

static void wrong_clocks_make_no_difference(void **state)
{
    (void)state;
    struct store *b = beside();
    static const int64_t skews[] = {-7200, -1, 0, 1, 7200, 400 * 86400};
    assert_int_equal(take(box.store, STR("ann"), LONG_US).token, 1);
    for (size_t i = 0; i < COUNT(skews); i++) {
        skew_s = skews[i];
        struct store_lease l = take(b, STR("bob"), LONG_US);
        assert_false(l.mine);
        assert_true(l.left_us > LONG_US - 60000000 && l.left_us <= LONG_US);
    }
    int64_t token = 1;
    for (size_t i = 0; i < COUNT(skews); i++) { /* and what it takes itself lasts as long as anybody's */
        skew_s = 0;
        assert_ok(store_lease_drop(i % 2 ? b : box.store, JOB, i % 2 ? STR("bob") : STR("ann")));
        skew_s = skews[i];
        struct store_lease l = take(i % 2 ? box.store : b, i % 2 ? STR("ann") : STR("bob"), LONG_US);
        assert_true(l.mine);
        assert_int_equal(l.token, ++token);
        skew_s = 0;
        l = take(i % 2 ? b : box.store, i % 2 ? STR("bob") : STR("ann"), LONG_US);
        assert_false(l.mine);
        assert_true(l.left_us > LONG_US - 60000000 && l.left_us <= LONG_US);
    }
    store_close(b);
}

/*
 * Instances that take a short lease from one another, without minding how long they have had it, while they write under
 * it in groups and in transactions. Each write notes its token: in the order in which they were done tokens never fall.
 * Two threads a store: what it writes, and what takes the lease.
 */
enum { INSTANCES = 3, TURNS = 10 };
static atomic_llong newest_token;
struct instance {
    struct store *s;
    long pause_ms; /* between two takes: of each instance its own, so that they meet in all ways */
    char name[8];
    int64_t skew;
    atomic_llong token; /* of the lease, as last heard; 0: not its own */
    atomic_bool end;
    unsigned done, refused;
};

static void *contend(void *arg)
{
    struct instance *x = arg;
    skew_s = x->skew;
    while (!x->end) {
        struct store_lease l;
        if (store_lease_take(x->s, JOB, str_c(x->name), SHORT_US, &l) == PFE_OK && l.mine) {
            x->token = l.token; /* too late renewed: another takes it while this one goes on with its token */
            newest_token = l.token;
        }
        nanosleep(&(struct timespec){.tv_nsec = x->pause_ms * 1000000}, NULL);
    }
    return NULL;
}

/* The principal of an answer is the token that it was written under; its key tells them apart. */
static enum pf_err write_one(struct instance *x, unsigned n, const struct store_fence *fence, bool as_group)
{
    char key[32];
    snprintf(key, sizeof key, "%s-%u", x->name, n);
    struct store_idem i = {.principal = fence->token, .key = str_c(key), .status = 201, .body = str_c(x->name)};
    struct store_audit a = {.ts = 1, .actor = fence->token, .action = STR("write"), .entity = str_c(x->name)};
    struct store_fence f = *fence;
    struct store_tx *tx;
    enum pf_err e;
    if (as_group) {
        struct store_group_ask ask = {.fences = &f, .n_fences = 1};
        e = store_group_begin(x->s, &ask, &(struct store_group){0});
        if (e != PFE_OK)
            return e;
        if (!f.ok) {
            store_group_abort(x->s);
            return PFE_FENCED;
        }
        return store_group_commit(x->s, &(struct store_commit){.ts = 1, .idem = &i, .n_idem = 1});
    }
    e = store_tx_begin(x->s, &tx);
    if (e != PFE_OK)
        return e;
    e = store_tx_fence(tx, &f);
    if (e == PFE_OK)
        e = store_audit_append(tx, &a);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

static void *work(void *arg)
{
    struct instance *x = arg;
    skew_s = x->skew;
    for (unsigned n = 0; newest_token < TURNS; n++) {
        struct store_fence f = {.name = JOB, .holder = str_c(x->name), .token = x->token};
        if (!f.token) {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
            continue;
        }
        enum pf_err e = write_one(x, n, &f, n % 2);
        x->done += e == PFE_OK;
        x->refused += e == PFE_FENCED;
        if (e == PFE_FENCED)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return NULL;
}

static void what_is_written_follows_the_lease(void **state)
{
    (void)state;
    struct instance x[INSTANCES] = {0};
    pthread_t takers[INSTANCES], workers[INSTANCES];
    for (unsigned i = 0; i < INSTANCES; i++) {
        x[i].s = beside();
        x[i].skew = (int64_t)i * 3600 - 3600;
        x[i].pause_ms = 210 + 70 * (long)i;
        snprintf(x[i].name, sizeof x[i].name, "i%u", i);
        pthread_create(&takers[i], NULL, contend, &x[i]);
        pthread_create(&workers[i], NULL, work, &x[i]);
    }
    unsigned done = 0, refused = 0;
    for (unsigned i = 0; i < INSTANCES; i++) {
        pthread_join(workers[i], NULL);
        done += x[i].done;
        refused += x[i].refused;
    }
    for (unsigned i = 0; i < INSTANCES; i++) {
        x[i].end = true;
        pthread_join(takers[i], NULL);
        store_close(x[i].s);
    }
    print_message("  %u written, %u refused\n", done, refused);
    assert_true(done > 50 && refused > 10);

    /* audit rows are numbered in the order of their commits */
    struct store_audit rows[64];
    struct store_audit_query q = {.actor = -1, .limit = 64};
    int64_t newest = INT64_MAX;
    unsigned n, all = 0;
    do {
        arena_reset(&arena);
        assert_ok(store_audit_list(box.store, &arena, &q, rows, &n));
        for (unsigned i = 0; i < n; i++) { /* newest first */
            assert_true(rows[i].actor <= newest);
            newest = rows[i].actor;
            q.before_id = rows[i].id;
        }
        all += n;
    } while (n);
    assert_true(all > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {CASE(wrong_clocks_make_no_difference), CASE(what_is_written_follows_the_lease)};
    records_engine = &engine_list[ENGINE_COUNT - 1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
