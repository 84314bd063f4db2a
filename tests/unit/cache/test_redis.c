/* Local tier and Redis as one cache, and two of those as two instances: what they show each other. */
#include "redis_fixture.h"

#include <stdlib.h>

#include "base/buf.h"

static struct redis_server server;
static struct cache *a, *b;

static _Atomic bool arrived;

static void on_arrival(void *ctx, struct str pattern)
{
    (void)ctx;
    if (str_is(pattern, "user:arrival"))
        arrived = true;
}

static int start(void **state)
{
    (void)state;
    redis_server_do(&server, "FLUSHALL");
    a = tiers_up(&server);
    b = tiers_up(&server);
    /* b's arrival makes a's values void: a has heard of that when it hears what b says next */
    arrived = false;
    cache_watch(a, on_arrival, NULL);
    cache_del(b, STR("user:arrival"));
    EVENTUALLY(arrived, 5000);
    cache_watch(a, NULL, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    cache_close(a);
    cache_close(b);
    return 0;
}

static void what_one_fills_the_other_finds(void **state)
{
    (void)state;
    fill_all(a, STR("user:1"), STR("ada"));
    assert_true(has_value(a, STR("user:1"), STR("ada")));
    assert_false(has(b, STR("user:1"))); /* its local tier has not seen it */
    assert_true(fetches(b, STR("user:1"), STR("ada")));
    assert_true(has_value(b, STR("user:1"), STR("ada")));
    assert_int_equal(tier_of(b, 1).hits, 1);
    assert_int_equal(tier_of(a, 1).puts, 1);

    fill_all(a, STR("user:2"), STR(""));
    assert_true(fetches(b, STR("user:2"), STR("")));
    char big[5000], out[5000];
    size_t n;
    uint64_t token = 0;
    memset(big, 'x', sizeof big);
    fill_all(a, STR("user:3"), (struct str){big, sizeof big});
    assert_false(cache_fetch(b, STR("user:3"), out, 4999, &n, &token)); /* longer than there is room for */
    cache_forgo(b, token);
    assert_true(cache_fetch(b, STR("user:3"), out, 5000, &n, &token));
    assert_memory_equal(out, big, n);

    const long ms = atol(redis_server_do(&server, "PTTL user:1"));
    assert_in_range(ms, 1790000, 1800000);
}

static void a_local_copy_is_short_lived(void **state)
{
    (void)state;
    fill_all(a, STR("user:1"), STR("ada"));
    assert_true(fetches(b, STR("user:1"), STR("ada")));
    usleep(3050000);
    assert_false(has(a, STR("user:1")));
    assert_false(has(b, STR("user:1")));
    assert_true(fetches(a, STR("user:1"), STR("ada")));
    /* a quick look fills the local tier alone, and no longer */
    fill(a, STR("user:5"), STR("eve"), LONG);
    assert_true(has(a, STR("user:5")));
    assert_string_equal(redis_server_do(&server, "EXISTS user:5"), "0");
    usleep(3050000);
    assert_false(has(a, STR("user:5")));
}

static void an_invalidation_reaches_the_other(void **state)
{
    (void)state;
    fill_all(a, STR("user:1"), STR("ada"));
    fill_all(a, STR("user:2"), STR("bob"));
    assert_true(fetches(b, STR("user:1"), STR("ada")));
    assert_true(fetches(b, STR("user:2"), STR("bob")));
    assert_true(cache_del(a, STR("user:1")));
    assert_false(has(a, STR("user:1")));
    EVENTUALLY(!has(b, STR("user:1")), 2500); /* well before its copy would expire */
    assert_true(has(b, STR("user:2")));
    cache_forgo(b, miss(b, STR("user:1")));
    assert_false(cache_del(a, STR("user:1"))); /* what stands there now is a lease */

    struct key k[600];
    struct str many[600];
    for (unsigned i = 0; i < 600; i++)
        many[i] = key_of(&k[i], "transaction:%u", i);
    for (unsigned i = 0; i < 600; i += 50)
        fill_all(b, many[i], STR("t"));
    cache_del_many(a, many, 600);
    for (unsigned i = 0; i < 600; i += 50) {
        EVENTUALLY(!has(b, many[i]), 2500);
        cache_forgo(a, miss(a, many[i]));
    }
}

static void no_fill_is_older_than_an_invalidation(void **state)
{
    (void)state;
    /* by the other, between miss and put */
    uint64_t token = miss(b, STR("user:1"));
    cache_del(a, STR("user:1"));
    cache_put(b, STR("user:1"), STR("old"), LONG, token);
    assert_false(has(b, STR("user:1")));
    assert_false(fetches(a, STR("user:1"), STR("old")));
    /* by pattern */
    token = miss(b, STR("balance:7:USD"));
    cache_del_glob(a, STR("balance:7:*"));
    cache_put(b, STR("balance:7:USD"), STR("old"), LONG, token);
    assert_false(has(b, STR("balance:7:USD")));
    assert_false(fetches(a, STR("balance:7:USD"), STR("old")));
    /* a lease that is newer than the invalidation may fill; the older one still may not */
    const uint64_t before = miss(a, STR("user:2"));
    cache_del(b, STR("user:2"));
    fill_all(b, STR("user:2"), STR("new"));
    cache_put(a, STR("user:2"), STR("old"), LONG, before);
    assert_false(has_value(a, STR("user:2"), STR("old")));
    assert_true(fetches(a, STR("user:2"), STR("new")));
    /* what Redis lost refuses */
    token = miss(a, STR("user:3"));
    redis_server_do(&server, "FLUSHALL");
    cache_put(a, STR("user:3"), STR("old"), LONG, token);
    assert_false(fetches(b, STR("user:3"), STR("old")));
    /* a token fills its own key, once */
    token = miss(a, STR("user:4"));
    cache_put(a, STR("user:9"), STR("no"), LONG, token);
    assert_false(fetches(a, STR("user:9"), STR("no")));
    cache_put(a, STR("user:4"), STR("no"), LONG, token);
    assert_false(fetches(a, STR("user:4"), STR("no")));
    assert_true(tier_of(a, 1).refused_puts >= 3);
}

static bool gather(void *ctx, struct str key, int64_t ttl_us)
{
    struct buf *out = ctx;
    assert_in_range(ttl_us, 1, LONG);
    buf_str(out, key);
    buf_putc(out, ' ');
    return true;
}

static void patterns_and_listings(void **state)
{
    (void)state;
    struct buf seen;
    for (unsigned i = 0; i < 3000; i++)
        if (i % 100 == 0)
            fill_all(a, KEY("balance:%u:USD", i), STR("v"));
    fill_all(b, STR("user:[x]"), STR("v"));
    fill(b, STR("user:local"), STR("v"), LONG);
    cache_forgo(a, miss(a, STR("user:leased")));
    redis_server_do(&server, "SET user:foreign hello");
    redis_server_do(&server, "LPUSH user:list hello");
    struct cache_rate r;
    cache_rate_exact(a, STR("user:1"), 10, 60 * SECOND, 1, &r);

    buf_init(&seen, 0);
    assert_int_equal(cache_keys(b, STR("*"), 1000, gather, &seen), PFE_OK);
    buf_putc(&seen, '\0');
    assert_int_equal(seen.n - 1, strlen(seen.p));
    unsigned n = 0;
    for (const char *at = seen.p; (at = strchr(at, ' ')); at++)
        n++;
    assert_int_equal(n, 32); /* 30 balances, the two users */
    assert_non_null(strstr(seen.p, "user:[x] "));
    assert_non_null(strstr(seen.p, "user:local "));
    buf_clear(&seen);
    assert_int_equal(cache_keys(b, STR("*"), 5, gather, &seen), PFE_OK);
    buf_putc(&seen, '\0');
    n = 0;
    for (const char *at = seen.p; (at = strchr(at, ' ')); at++)
        n++;
    assert_int_equal(n, 5);
    buf_free(&seen);

    assert_int_equal(cache_del_glob(b, STR("balance:[1]*")), 11); /* 100, and 1000 to 1900 */
    cache_forgo(b, miss(b, STR("balance:100:USD")));
    EVENTUALLY(!has(a, STR("balance:1900:USD")), 2500);
    assert_true(fetches(a, STR("balance:200:USD"), STR("v")));
    assert_true(cache_del_glob(a, STR("*")) >= 20);
    assert_string_equal(redis_server_do(&server, "GET user:foreign"), "hello");
    assert_string_equal(redis_server_do(&server, "GET rate:user:1"), "1");
    cache_forgo(a, miss(a, STR("user:[x]")));
}

static void forged_and_damaged_values_are_misses(void **state)
{
    (void)state;
    fill_all(a, STR("user:1"), STR("ada"));
    fill_all(a, STR("user:2"), STR("bob"));
    char stolen[300];
    snprintf(stolen, sizeof stolen, "%s", redis_server_do(&server, "GET user:1"));
    /* the string helper cuts at a NUL of the MAC, so whole values are moved by Redis itself */
    redis_server_do(&server, "EVAL %s 2 user:1 user:3", "return redis.call('SET',KEYS[2],redis.call('GET',KEYS[1]))");
    assert_false(fetches(b, STR("user:3"), STR("ada"))); /* another key's */
    redis_server_do(&server, "SETRANGE user:2 51 %s", "e");
    assert_false(fetches(b, STR("user:2"), STR("bob")));
    assert_false(fetches(b, STR("user:2"), STR("beb")));
    const char *lengths = "for i=0,100 do redis.call('SET','user:'..(1000+i),string.sub('V'..redis.call('GET',KEYS[1])"
                          "..string.rep('x',100),1,i)) end return 1";
    redis_server_do(&server, "EVAL %s 1 payflow:epoch", lengths);
    for (unsigned i = 0; i <= 100; i++) {
        char out[256];
        size_t n;
        uint64_t token = 0;
        assert_false(cache_fetch(b, KEY("user:%u", 1000 + i), out, sizeof out, &n, &token));
        cache_forgo(b, token);
    }
    assert_true(up(b));
}

/* ---- single flight ---- */

enum { CROWD = 6 };

static struct {
    _Atomic unsigned reads, found;
    bool exists;
    pthread_barrier_t ready;
} store;

static void *reader(void *ctx)
{
    (void)ctx;
    char out[16];
    size_t n;
    uint64_t token = 0;
    pthread_barrier_wait(&store.ready);
    if (!cache_fetch(a, STR("user:9"), out, sizeof out, &n, &token)) {
        atomic_fetch_add(&store.reads, 1);
        usleep(10000);
        if (store.exists)
            cache_put(a, STR("user:9"), STR("read"), LONG, token);
        else
            cache_forgo(a, token);
    }
    atomic_fetch_add(&store.found, 1);
    return NULL;
}

static unsigned crowd(bool exists)
{
    pthread_t t[CROWD];
    store.reads = store.found = 0;
    store.exists = exists;
    pthread_barrier_init(&store.ready, NULL, CROWD);
    for (int i = 0; i < CROWD; i++)
        assert_int_equal(pthread_create(&t[i], NULL, reader, NULL), 0);
    for (int i = 0; i < CROWD; i++)
        pthread_join(t[i], NULL);
    pthread_barrier_destroy(&store.ready);
    assert_int_equal(store.found, CROWD);
    return store.reads;
}

static void one_store_read_for_many_misses(void **state)
{
    (void)state;
    unsigned reads = CROWD;
    for (unsigned i = 0; i < 5 && reads > 1; i++) { /* more if the one was late */
        cache_del(a, STR("user:9"));
        reads = crowd(true);
    }
    assert_int_equal(reads, 1);
    assert_true(has_value(a, STR("user:9"), STR("read")));
    cache_del(a, STR("user:9"));
    /* nobody waits for what does not exist longer than for one read */
    int64_t least = INT64_MAX, t0;
    for (unsigned i = 0; i < 20 && least > 95000; i++) {
        t0 = real_us();
        assert_in_range(crowd(false), 2, CROWD);
        least = real_us() - t0;
    }
    assert_in_range(least, 0, 95000);
    /* nor for a reader that is stuck */
    const uint64_t stuck = miss(a, STR("user:9"));
    t0 = real_us();
    const uint64_t own = miss(a, STR("user:9"));
    assert_in_range(real_us() - t0, 90000, 3000000);
    cache_put(a, STR("user:9"), STR("own"), LONG, own);
    assert_true(has_value(a, STR("user:9"), STR("own")));
    cache_forgo(a, stuck);
}

/* ---- rates ---- */

static bool counts(struct cache *c, bool exact, struct str key, int64_t limit, int64_t cost, int64_t *ret_remaining)
{
    struct cache_rate r;
    (exact ? cache_rate_exact : cache_rate)(c, key, limit, 60 * SECOND, cost, &r);
    assert_in_range(r.reset_us, 0, 60 * SECOND);
    if (ret_remaining)
        *ret_remaining = r.remaining;
    return r.allowed;
}

static void exact_limits_hold_over_instances(void **state)
{
    (void)state;
    unsigned allowed = 0;
    int64_t left = -1;
    for (unsigned i = 0; i < 20; i++) {
        allowed += counts(i % 3 ? a : b, true, STR("login:x"), 5, 1, &left);
        assert_int_equal(left, i < 5 ? 4 - i : 0);
    }
    assert_int_equal(allowed, 5);
    assert_false(counts(b, true, STR("login:x"), 5, 0, NULL));
    assert_true(counts(b, true, STR("login:y"), 5, 0, &left)); /* looking starts nothing */
    assert_int_equal(left, 5);
    assert_string_equal(redis_server_do(&server, "EXISTS rate:login:y"), "0");
    /* once over the limit nothing is asked of Redis any more */
    assert_in_range(atoi(redis_server_do(&server, "GET rate:login:x")), 5, 7);
    assert_in_range(atol(redis_server_do(&server, "PTTL rate:login:x")), 50000, 60000);
}

static void quick_limits_are_shared_soon(void **state)
{
    (void)state;
    int64_t left = -1;
    for (unsigned i = 0; i < 60; i++)
        assert_true(counts(a, false, STR("rate:user:1"), 100, 1, NULL));
    usleep(100000);
    assert_true(counts(b, false, STR("rate:user:1"), 100, 1, NULL)); /* asks for what it does not know yet */
    EVENTUALLY((counts(b, false, STR("rate:user:1"), 100, 0, &left), left == 39), 2500);
    unsigned allowed = 0;
    for (unsigned i = 0; i < 100; i++) {
        allowed += counts(b, false, STR("rate:user:1"), 100, 1, NULL);
        usleep(1000);
    }
    assert_int_equal(allowed, 39);
    EVENTUALLY((counts(a, false, STR("rate:user:1"), 100, 0, &left), left <= 40), 2500);
    /* a flood costs a round trip a batch, and none beyond the limit */
    for (unsigned i = 0; i < 5000; i++)
        (void)counts(a, false, STR("rate:addr:x"), 100, 1, NULL);
    usleep(100000);
    assert_in_range(atoi(redis_server_do(&server, "GET rate:rate:addr:x")), 1, 5000);
    bool asked = true;
    for (unsigned k = 0; k < 5 && asked; k++) { /* at first perhaps for the batch before */
        redis_server_do(&server, "CONFIG RESETSTAT");
        for (unsigned i = 0; i < 5000; i++)
            assert_false(counts(a, false, STR("rate:addr:x"), 100, 1, NULL));
        usleep(100000);
        asked = strstr(redis_server_do(&server, "INFO commandstats"), "cmdstat_incrby");
    }
    assert_false(asked);
}

static void a_window_ends_for_all(void **state)
{
    (void)state;
    struct cache_rate r;
    for (unsigned i = 0; i < 4; i++)
        cache_rate_exact(i % 2 ? a : b, STR("w"), 3, SECOND / 2, 1, &r);
    assert_false(r.allowed);
    assert_in_range(r.reset_us, 1, SECOND / 2);
    usleep(550000);
    for (unsigned i = 0; i < 3; i++) {
        cache_rate_exact(i % 2 ? a : b, STR("w"), 3, SECOND / 2, 1, &r);
        assert_true(r.allowed);
        assert_int_equal(r.remaining, 2 - i);
    }
}

/* ---- others ---- */

static _Atomic unsigned told;

static void tell(void *ctx, struct str pattern)
{
    (void)ctx;
    if (str_is(pattern, "user:77"))
        atomic_fetch_add(&told, 1);
    if (str_is(pattern, "user:7*"))
        atomic_fetch_add(&told, 100);
}

static void a_watcher_hears_of_the_others(void **state)
{
    (void)state;
    cache_watch(b, tell, NULL);
    cache_del(b, STR("user:77"));
    cache_del(a, STR("user:77"));
    EVENTUALLY(atomic_load(&told) == 1, 1000);
    cache_del_glob(a, STR("user:7*"));
    EVENTUALLY(atomic_load(&told) == 101, 1000);
    cache_watch(b, NULL, NULL);
    cache_del(a, STR("user:77"));
    usleep(50000);
    assert_int_equal(atomic_load(&told), 101);
}

static void a_missing_instance_makes_values_void(void **state)
{
    (void)state;
    fill_all(a, STR("user:1"), STR("ada"));
    assert_true(fetches(b, STR("user:1"), STR("ada")));
    redis_server_do(&server, "EVAL %s 0",
                    "return redis.call('ZADD','payflow:instances',redis.call('TIME')[1]*1000-5000,'ghost')");
    EVENTUALLY(!fetches(b, STR("user:1"), STR("ada")), 2500);
    redis_server_do(&server, "ZREM payflow:instances ghost");
    usleep(50000);
    cache_del(a, STR("user:2"));
    fill_all(a, STR("user:2"), STR("bob"));
    usleep(1500000);
    assert_true(fetches(b, STR("user:2"), STR("bob"))); /* nobody is missing now */
    redis_server_do(&server, "EVAL %s 0",
                    "return redis.call('ZADD','payflow:instances',redis.call('TIME')[1]*1000-700000,'ghost')");
    EVENTUALLY(atoi(redis_server_do(&server, "ZCARD payflow:instances")) == 2, 2500); /* forgotten */
}

static enum cache_lock lock(struct cache *c, int64_t ttl_us, char holder[CACHE_LOCK_LEN + 1])
{
    return cache_lock(c, STR("lock:event:1"), ttl_us, holder);
}

static void a_lock_is_its_holders(void **state)
{
    (void)state;
    char one[CACHE_LOCK_LEN + 1], two[CACHE_LOCK_LEN + 1];
    assert_int_equal(lock(a, LONG, one), CACHE_LOCK_MINE);
    assert_string_equal(redis_server_do(&server, "GET lock:event:1"), one);
    const int ms = atoi(redis_server_do(&server, "PTTL lock:event:1"));
    assert_true(ms > 0 && ms <= LONG / 1000);
    assert_int_equal(lock(b, LONG, two), CACHE_LOCK_TAKEN);
    assert_int_equal(lock(a, LONG, two), CACHE_LOCK_TAKEN);
    cache_unlock(b, STR("lock:event:1"), two); /* who does not have it cannot give it back */
    assert_int_equal(lock(b, LONG, two), CACHE_LOCK_TAKEN);
    cache_del_glob(b, STR("*"));
    assert_int_equal(lock(b, LONG, two), CACHE_LOCK_TAKEN);
    cache_unlock(a, STR("lock:event:1"), one);
    assert_int_equal(lock(b, LONG, two), CACHE_LOCK_MINE);
    cache_unlock(b, STR("lock:event:1"), two);
}

static void a_lock_that_ran_out_is_another_ones(void **state)
{
    (void)state;
    char one[CACHE_LOCK_LEN + 1], two[CACHE_LOCK_LEN + 1];
    bool got = false;
    assert_int_equal(lock(a, 2000, one), CACHE_LOCK_MINE);
    EVENTUALLY(got || (got = lock(b, LONG, two) == CACHE_LOCK_MINE), 5000);
    cache_unlock(a, STR("lock:event:1"), one); /* too late: it is not a's any more */
    assert_string_equal(redis_server_do(&server, "GET lock:event:1"), two);
    cache_unlock(b, STR("lock:event:1"), two);
    assert_string_equal(redis_server_do(&server, "GET lock:event:1"), "");
    /* without Redis, and without a tier that is shared, there are none */
    redis_server_kill(&server);
    EVENTUALLY(lock(a, LONG, one) == CACHE_LOCK_NONE, 5000);
    redis_server_up(&server);
    struct cache *local = cache_local_new(
        &(struct cache_local_options){.max_entries = 16, .max_bytes = 1 << 16, .clock = clock_system()});
    assert_int_equal(lock(local, LONG, one), CACHE_LOCK_NONE);
    cache_unlock(local, STR("lock:event:1"), one);
    cache_close(local);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, end)
    const struct CMUnitTest tests[] = {
        T(a_lock_is_its_holders),
        T(what_one_fills_the_other_finds),
        T(a_local_copy_is_short_lived),
        T(an_invalidation_reaches_the_other),
        T(no_fill_is_older_than_an_invalidation),
        T(patterns_and_listings),
        T(forged_and_damaged_values_are_misses),
        T(one_store_read_for_many_misses),
        T(exact_limits_hold_over_instances),
        T(quick_limits_are_shared_soon),
        T(a_window_ends_for_all),
        T(a_watcher_hears_of_the_others),
        T(a_missing_instance_makes_values_void),
        T(a_lock_that_ran_out_is_another_ones),
    };
    redis_server_start(&server, NULL);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    redis_server_stop(&server);
    return failed;
}
