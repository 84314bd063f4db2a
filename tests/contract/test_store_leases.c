/* The store port's leases: taken, renewed, contended for, run out, given back; and the fences of groups and
   transactions, which what a former holder writes does not get past. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "contract/records.h"

enum { LONG_US = 600000000, SHORT_US = 60000 };
#define JOB STR("job")
#define ANN STR("host-a:1:aaaa")
#define BOB STR("host-b:2:bbbb")

static struct store_lease take(struct str name, struct str who, int64_t ttl_us)
{
    struct store_lease l = {.token = -1};
    assert_ok(store_lease_take(box.store, name, who, ttl_us, &l));
    return l;
}

/* Asks until it is granted; the time is not measured. */
static struct store_lease take_in_time(struct str name, struct str who, int64_t ttl_us)
{
    for (int i = 0; i < 1000; i++) {
        struct store_lease l = take(name, who, ttl_us);
        if (l.mine)
            return l;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    fail_msg("the lease never ran out");
    return (struct store_lease){0};
}

static struct store_fence fence_of(struct str name, struct str who, int64_t token)
{
    return (struct store_fence){.name = name, .holder = who, .token = token};
}

static void taken_renewed_and_contended_for(void **state)
{
    (void)state;
    struct store_lease l = take(JOB, ANN, LONG_US);
    assert_true(l.mine);
    assert_int_equal(l.token, 1);
    assert_string_equal(l.holder, "host-a:1:aaaa");
    assert_true(l.left_us > LONG_US - 60000000 && l.left_us <= LONG_US);
    for (int i = 0; i < 3; i++) {
        l = take(JOB, BOB, LONG_US);
        assert_false(l.mine);
        assert_int_equal(l.token, 1);
        assert_string_equal(l.holder, "host-a:1:aaaa");
        assert_true(l.left_us > 0 && l.left_us <= LONG_US);
    }
    l = take(JOB, ANN, 2 * LONG_US); /* renewed, and the token stays */
    assert_true(l.mine);
    assert_int_equal(l.token, 1);
    assert_true(l.left_us > LONG_US);

    l = take(STR("other"), BOB, LONG_US); /* each name by itself */
    assert_true(l.mine);
    assert_int_equal(l.token, 1);
}

static void runs_out(void **state)
{
    (void)state;
    assert_true(take(JOB, ANN, SHORT_US).mine);
    struct store_lease l = take_in_time(JOB, BOB, LONG_US);
    assert_int_equal(l.token, 2);
    assert_false(take(JOB, ANN, LONG_US).mine);

    /* one that ran out and was not taken by another goes on with its token */
    assert_int_equal(take(STR("lone"), ANN, 1).token, 1);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    l = take(STR("lone"), ANN, LONG_US);
    assert_true(l.mine);
    assert_int_equal(l.token, 1);
}

static void given_back(void **state)
{
    (void)state;
    assert_int_equal(store_lease_drop(box.store, JOB, ANN), PFE_NOT_FOUND);
    assert_int_equal(take(JOB, ANN, LONG_US).token, 1);
    assert_int_equal(store_lease_drop(box.store, JOB, BOB), PFE_NOT_FOUND);
    assert_false(take(JOB, BOB, LONG_US).mine);
    assert_ok(store_lease_drop(box.store, JOB, ANN));
    assert_int_equal(store_lease_drop(box.store, JOB, ANN), PFE_NOT_FOUND);
    struct store_lease l = take(JOB, BOB, LONG_US);
    assert_true(l.mine);
    assert_int_equal(l.token, 2);
    assert_ok(store_lease_drop(box.store, JOB, BOB));
    l = take(JOB, BOB, LONG_US); /* its own former token is void, too */
    assert_int_equal(l.token, 3);
}

static void long_names(void **state)
{
    (void)state;
    char name[STORE_LEASE_NAME_MAX], holder[STORE_LEASE_HOLDER_MAX];
    memset(name, 'n', sizeof name);
    memset(holder, 'h', sizeof holder);
    struct str n = {name, sizeof name}, h = {holder, sizeof holder};
    assert_true(take(n, h, LONG_US).mine);
    struct store_lease l = take(n, (struct str){holder, sizeof holder - 1}, LONG_US);
    assert_false(l.mine);
    assert_true(str_eq(str_c(l.holder), h));
    assert_ok(store_lease_drop(box.store, n, h));
}

/* ---- fences ---- */

static enum pf_err begin(struct store_fence *f, size_t n)
{
    static struct store_group_ask ask;
    ask = (struct store_group_ask){.fences = f, .n_fences = n};
    return store_group_begin(box.store, &ask, &(struct store_group){0});
}

/* A group whose effect is an answer, if the fence lets it through. */
static enum pf_err group(struct store_fence *f, size_t n, const char *key)
{
    struct store_idem i = {.principal = 1, .key = str_c(key), .status = 201, .body = STR("{}")};
    assert_ok(begin(f, n));
    for (size_t k = 0; k < n; k++)
        if (!f[k].ok) {
            store_group_abort(box.store);
            return PFE_FENCED;
        }
    return store_group_commit(box.store, &(struct store_commit){.ts = 1, .idem = &i, .n_idem = 1});
}

static enum pf_err tx(const struct store_fence *f, const char *key)
{
    struct store_idem i = {.principal = 1, .key = str_c(key), .status = 201, .body = STR("{}")};
    struct store_tx *tx = tx_begin();
    enum pf_err e = store_tx_fence(tx, f);
    if (e == PFE_OK)
        e = store_idem_put(tx, &i);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

static void assert_done(const char *key, bool done)
{
    struct store_idem i;
    assert_int_equal(store_idem_get(box.store, &arena, 1, str_c(key), &i), done ? PFE_OK : PFE_NOT_FOUND);
}

static void fences(void **state)
{
    (void)state;
    struct store_fence none = fence_of(JOB, ANN, 0);
    assert_int_equal(tx(&none, "early"), PFE_FENCED); /* there is no such lease */
    assert_int_equal(group(&none, 1, "early"), PFE_FENCED);
    assert_done("early", false);

    struct store_fence ann = fence_of(JOB, ANN, take(JOB, ANN, SHORT_US).token);
    assert_ok(tx(&ann, "a1"));
    assert_ok(group(&ann, 1, "a2"));
    assert_done("a1", true);
    assert_done("a2", true);
    nanosleep(&(struct timespec){.tv_nsec = SHORT_US * 2000L}, NULL);
    assert_ok(tx(&ann, "a3")); /* run out, but nobody else has begun */

    struct store_fence bob = fence_of(JOB, BOB, take_in_time(JOB, BOB, LONG_US).token);
    assert_int_equal(tx(&ann, "old1"), PFE_FENCED);
    assert_int_equal(group(&ann, 1, "old2"), PFE_FENCED);
    assert_done("old1", false);
    assert_done("old2", false);
    assert_ok(tx(&bob, "b1"));
    assert_ok(group(&bob, 1, "b2"));
    assert_done("b1", true);
    assert_done("b2", true);

    struct store_fence wrong[] = {fence_of(JOB, BOB, bob.token + 1), fence_of(JOB, BOB, bob.token - 1),
                                  fence_of(JOB, ANN, bob.token), fence_of(STR("jo"), BOB, bob.token)};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        assert_int_equal(tx(&wrong[i], "wrong"), PFE_FENCED);
        assert_int_equal(group(&wrong[i], 1, "wrong"), PFE_FENCED);
    }
    assert_done("wrong", false);
    assert_ok(store_lease_drop(box.store, JOB, BOB));
    assert_int_equal(tx(&bob, "late"), PFE_FENCED);
    assert_int_equal(group(&bob, 1, "late"), PFE_FENCED);
    take(JOB, BOB, LONG_US);
    assert_int_equal(tx(&bob, "late"), PFE_FENCED); /* the same holder, another time */
    assert_int_equal(group(&bob, 1, "late"), PFE_FENCED);
    assert_done("late", false);
}

/* A group has jobs of several kinds: each fence is judged by itself. */
static void several_fences_in_a_group(void **state)
{
    (void)state;
    struct store_fence f[] = {fence_of(STR("one"), ANN, take(STR("one"), ANN, LONG_US).token),
                              fence_of(STR("two"), ANN, take(STR("two"), BOB, LONG_US).token),
                              fence_of(STR("one"), ANN, 1)};
    struct store_idem i = {.principal = 1, .key = STR("k"), .status = 201, .body = STR("{}")};
    assert_ok(begin(f, 3));
    assert_true(f[0].ok && !f[1].ok && f[2].ok);
    assert_ok(store_group_commit(box.store, &(struct store_commit){.ts = 1, .idem = &i, .n_idem = 1}));
    assert_done("k", true);
}

struct successor {
    atomic_bool took;
    int64_t token;
};

static void *succeed(void *arg)
{
    struct successor *x = arg;
    struct store_lease l = {0};
    for (int i = 0; i < 1000 && !l.mine; i++) {
        if (store_lease_take(box.store, JOB, BOB, LONG_US, &l) != PFE_OK)
            l.mine = false;
        if (!l.mine)
            nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    x->token = l.token;
    x->took = l.mine;
    return NULL;
}

/* The lease runs out while something is under way beneath it: the successor gets it when that has ended, and sees it.
 */
static void nobody_comes_in_between(void **state)
{
    (void)state;
    for (int as_group = 0; as_group < 2; as_group++) {
        const char *key = as_group ? "group" : "tx";
        struct store_idem i = {.principal = 1, .key = str_c(key), .status = 201, .body = STR("{}")};
        struct store_lease l = take_in_time(JOB, ANN, SHORT_US);
        struct store_fence f = fence_of(JOB, ANN, l.token);
        struct successor x = {0};
        struct store_tx *tx = NULL;
        if (as_group) {
            assert_ok(begin(&f, 1));
            assert_true(f.ok);
        } else {
            tx = tx_begin();
            assert_ok(store_tx_fence(tx, &f));
        }
        pthread_t t;
        pthread_create(&t, NULL, succeed, &x);
        nanosleep(&(struct timespec){.tv_nsec = SHORT_US * 5000L}, NULL);
        assert_false(x.took);
        if (as_group) {
            assert_ok(store_group_commit(box.store, &(struct store_commit){.ts = 1, .idem = &i, .n_idem = 1}));
        } else {
            assert_ok(store_idem_put(tx, &i));
            assert_ok(store_tx_commit(tx));
        }
        pthread_join(t, NULL);
        assert_true(x.took);
        assert_int_equal(x.token, l.token + 1);
        assert_done(key, true);
        assert_ok(store_lease_drop(box.store, JOB, BOB));
    }
}

/* What is rolled back or aborted holds nothing. */
static void ends_with_what_was_under_way(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct store_fence f = fence_of(JOB, ANN, take_in_time(JOB, ANN, 1).token);
        if (i == 0) {
            struct store_tx *tx = tx_begin();
            assert_ok(store_tx_fence(tx, &f));
            store_tx_rollback(tx);
        } else {
            assert_ok(begin(&f, 1));
            assert_true(f.ok);
            store_group_abort(box.store);
        }
        take_in_time(JOB, BOB, 1);
    }
}

/* Many at once for one lease: never two at a time, each turn with a greater token. */
enum { RACERS = 6, TURNS = 12 };
struct race {
    pthread_mutex_t lock;
    int64_t newest;
    unsigned turns, overlaps;
    atomic_int holders;
};
struct racer {
    struct race *race;
    char name[8];
};

static void *compete(void *arg)
{
    struct racer *r = arg;
    struct race *x = r->race;
    for (unsigned won = 0; won < TURNS;) {
        struct store_lease l;
        if (store_lease_take(box.store, STR("race"), str_c(r->name), LONG_US, &l) != PFE_OK || !l.mine)
            continue;
        bool alone = atomic_fetch_add(&x->holders, 1) == 0;
        pthread_mutex_lock(&x->lock);
        x->overlaps += !alone || l.token <= x->newest;
        x->newest = l.token;
        x->turns++;
        pthread_mutex_unlock(&x->lock);
        atomic_fetch_sub(&x->holders, 1);
        won += store_lease_drop(box.store, STR("race"), str_c(r->name)) == PFE_OK;
    }
    return NULL;
}

static void one_at_a_time(void **state)
{
    (void)state;
    struct race x = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct racer r[RACERS];
    pthread_t t[RACERS];
    for (int i = 0; i < RACERS; i++) {
        r[i].race = &x;
        snprintf(r[i].name, sizeof r[i].name, "r%d", i);
        pthread_create(&t[i], NULL, compete, &r[i]);
    }
    for (int i = 0; i < RACERS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(x.overlaps, 0);
    assert_int_equal(x.turns, RACERS * TURNS);
    assert_int_equal(x.newest, RACERS * TURNS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(taken_renewed_and_contended_for),
        CASE(runs_out),
        CASE(given_back),
        CASE(long_names),
        CASE(fences),
        CASE(several_fences_in_a_group),
        CASE(nobody_comes_in_between),
        CASE(ends_with_what_was_under_way),
        CASE(one_at_a_time),
    };
    return records_run(tests, COUNT(tests));
}
