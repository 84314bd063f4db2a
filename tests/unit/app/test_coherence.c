/* Two instances of the application over one store and one real Redis: what one has acknowledged, the other knows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "app/accounts.h"
#include "app/identity.h"
#include "app/internal.h"
#include "app/movement.h"
#include "cache/local/local.h"
#include "cache/redis/redis.h"
#include "redis_server.h"
#include "store/memory/memory.h"

#define OK(e) assert_int_equal((e), PFE_OK)
enum { USD = 840, ROUNDS = 2000 };

static struct redis_server server;
static struct store *store;
static struct store_ops ops; /* the memory engine's, as if other processes had it too */
static struct metrics *metrics;

static struct {
    pthread_mutex_t lock;
    struct {
        char process[STORE_WORD_MAX + 1], word[STORE_WORD_MAX + 1];
    } at[2];
    bool mute; /* nothing can be said */
} words = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct instance {
    struct cache *cache;
    struct app *app;
} a, b;

static bool say(void *ctx, const char *process, const char *word, struct cache_words *ret)
{
    (void)ctx;
    pthread_mutex_lock(&words.lock);
    const bool ok = !words.mute;
    const unsigned i = words.at[0].process[0] && strcmp(words.at[0].process, process) != 0;
    if (ok) {
        *ret = (struct cache_words){.fresh = !words.at[i].process[0]};
        snprintf(words.at[i].process, sizeof words.at[i].process, "%s", process);
        snprintf(words.at[i].word, sizeof words.at[i].word, "%s", word);
        if (words.at[!i].process[0]) {
            ret->apart = strcmp(words.at[!i].word, word) != 0;
            ret->speaking = words.at[!i].word[0] != '\0';
        }
    }
    pthread_mutex_unlock(&words.lock);
    return ok;
}

static void end(void *ctx, const char *process)
{
    (void)ctx;
    pthread_mutex_lock(&words.lock);
    for (unsigned i = 0; i < 2; i++)
        if (strcmp(words.at[i].process, process) == 0)
            memset(&words.at[i], 0, sizeof words.at[i]);
    pthread_mutex_unlock(&words.lock);
}

static int64_t now_us(void)
{
    return clock_mono(clock_system());
}

#define EVENTUALLY(cond, ms)                                                                                           \
    do {                                                                                                               \
        const int64_t until_ = now_us() + (ms)*INT64_C(1000);                                                          \
        while (!(cond) && now_us() < until_)                                                                           \
            usleep(2000);                                                                                              \
        assert_true(cond);                                                                                             \
    } while (0)

static struct instance instance_new(void)
{
    struct instance in;
    struct cache *local = cache_local_new(
        &(struct cache_local_options){.max_entries = 1000, .max_bytes = 1 << 20, .clock = clock_system()});
    in.cache = cache_redis_new(&(struct cache_redis_options){.host = server.socket,
                                                             .user = "",
                                                             .password = "",
                                                             .pool_size = 4,
                                                             .min_idle = 1,
                                                             .secret = "a secret of the tests",
                                                             .local = local,
                                                             .say = say,
                                                             .end = end});
    assert_non_null(in.cache);
    in.app =
        app_new(&(struct app_config){.dev = true,
                                     .bcrypt_cost = 4,
                                     .password_min = 8,
                                     .jwt_secret = STR("a secret of at least thirty-two bytes"),
                                     .currency = USD,
                                     .queue_capacity = 100,
                                     .group_max = 10},
                &(struct app_deps){.store = store, .cache = in.cache, .clock = clock_system(), .metrics = metrics});
    assert_non_null(in.app);
    return in;
}

static int setup(void **state)
{
    (void)state;
    words.mute = false;
    store = store_memory_open();
    ops = *store->ops;
    ops.shared = true;
    store->ops = &ops;
    metrics = metrics_new();
    a = instance_new();
    b = instance_new();
    EVENTUALLY(app_confirms(a.app) && app_confirms(b.app), 5000);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    app_free(a.app);
    app_free(b.app);
    cache_close(a.cache);
    cache_close(b.cache);
    store_close(store);
    metrics_free(metrics);
    return 0;
}

struct question {
    struct cache_confirm q;
    _Atomic int said; /* 0: nothing yet */
};

static void said(struct cache_confirm *q, bool good)
{
    ((struct question *)q)->said = good ? 1 : -1;
}

/* Then this thread acts for somebody who asked just now. */
static bool confirm(struct app *app)
{
    struct question q = {.q.fn = said};
    app_confirm(app, &q.q);
    EVENTUALLY(q.said, 10000);
    app_trust(q.said > 0);
    return q.said > 0;
}

/* Once Redis is heard in time. */
static void confirmed(struct app *app)
{
    bool good = false;
    for (unsigned i = 0; i < 500 && !(good = confirm(app)); i++)
        usleep(10000);
    assert_true(good);
}

static unsigned unsure; /* how often Redis was late, so that the store was asked */

static const struct caller nobody = {.address = {"127.0.0.1", 9}, .request_id = {"r", 1}};

static struct store_user enrol(const char *name)
{
    char email[64];
    struct store_user u = {0};
    struct problem p = {0};
    struct app_idem none = {0};
    snprintf(email, sizeof email, "%s@example.com", name);
    struct app_registration in = {str_c(name), str_c(email), STR("correct horse"), IDENT_USER};
    OK(app_register(a.app, &nobody, &in, &none, NULL, NULL, &u, &p));
    return u;
}

static void change(struct app *app, int64_t user, const char *email)
{
    struct store_user u;
    struct problem p = {0};
    OK(app_user_change(app, &nobody, user, &(struct app_user_change){.email = str_c(email)}, &u, &p));
}

static void deposit(struct app *app, int64_t user, int64_t amount)
{
    struct movement m = {.kind = LEDGER_DEPOSIT, .to_user = user, .amount = amount, .currency = USD};
    struct job j = {.kind = JOB_MOVE, .m = &m, .n = 1, .atomic = true};
    OK(app_submit_wait(app, &j));
}

static int64_t balance(struct app *app, int64_t user)
{
    struct ledger_account acc = {0};
    unsure += !confirm(app);
    OK(app_balance(app, user, USD, true, &acc));
    app_trust(false);
    return acc.balance;
}

static void what_one_acknowledged_the_other_knows(void **state)
{
    (void)state;
    struct cache_stats st;
    struct store_user ann = enrol("ann"), u;
    unsure = 0;
    for (int i = 1; i <= ROUNDS; i++) {
        char email[64];
        struct app *writes = i % 2 ? a.app : b.app;
        deposit(writes, ann.id, 1);
        assert_int_equal(balance(b.app, ann.id), i);
        assert_int_equal(balance(a.app, ann.id), i);
        assert_int_equal(balance(a.app, ann.id), i); /* from the copy that was kept */
        snprintf(email, sizeof email, "ann%d@example.com", i);
        change(writes, ann.id, email);
        for (unsigned k = 0; k < 3; k++) {
            unsure += !confirm(k ? a.app : b.app);
            OK(app_user(k ? a.app : b.app, ann.id, true, &u));
            app_trust(false);
            assert_string_equal(u.email, email);
        }
    }
    cache_stats(a.cache, &st, 1);
    assert_true(st.hits >= ROUNDS);
    assert_true(unsure < ROUNDS);
}

static void nothing_is_answered_from_a_cache_unasked(void **state)
{
    (void)state;
    struct store_user ann = enrol("ann"), u;
    struct ledger_account acc;
    deposit(a.app, ann.id, 5);
    enum pf_err e = PFE_BUSY;
    for (unsigned i = 0; i < 100 && e == PFE_BUSY; i++) {
        assert_int_equal(balance(b.app, ann.id), 5);
        confirmed(b.app);
        e = app_balance(b.app, ann.id, USD, false, &acc); /* it is there */
        app_trust(false);
    }
    OK(e);
    assert_int_equal(app_balance(b.app, ann.id, USD, false, &acc), PFE_BUSY);
    assert_int_equal(app_user(b.app, ann.id, false, &u), PFE_BUSY);
}

static enum app_auth ask(struct app *app, const char *key, bool may_block)
{
    struct principal who;
    struct problem p = {0};
    return app_authenticate(app, str_c(key), STR_NONE, may_block, &who, &p);
}

static void a_credential_ends_in_both(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        char name[32], key[APP_APIKEY_LEN + 1];
        struct store_apikey k;
        unsigned n;
        snprintf(name, sizeof name, "user%u", i);
        struct store_user u = enrol(name);
        OK(app_apikey_issue(a.app, &nobody, u.id, key));
        key[APP_APIKEY_LEN] = '\0';
        assert_int_equal(ask(b.app, key, true), APP_AUTH_OK);
        assert_int_equal(ask(b.app, key, false), APP_AUTH_OK); /* remembered */
        OK(app_apikeys(a.app, u.id, 0, 1, &k, &n));
        OK(app_apikey_revoke(a.app, &nobody, u.id, k.id));
        confirmed(b.app);
        assert_int_equal(ask(b.app, key, false), APP_AUTH_WOULD_BLOCK);
        assert_int_equal(ask(b.app, key, true), APP_AUTH_REFUSED);
        app_trust(false);
    }
    /* by a pattern, too: all of them are forgotten */
    char key[APP_APIKEY_LEN + 1];
    struct store_user u = enrol("zoe");
    OK(app_apikey_issue(a.app, &nobody, u.id, key));
    key[APP_APIKEY_LEN] = '\0';
    assert_int_equal(ask(b.app, key, true), APP_AUTH_OK);
    cache_del_glob(a.cache, STR("user:*"));
    confirmed(b.app);
    assert_int_equal(ask(b.app, key, false), APP_AUTH_WOULD_BLOCK);
    app_trust(false);
}

/* Redis hangs, and is back with what it was sent before and had not read. */
static void nobody_believes_a_cache_while_redis_hangs(void **state)
{
    (void)state;
    struct store_user ann = enrol("ann");
    struct ledger_account acc;
    char key[APP_APIKEY_LEN + 1];
    OK(app_apikey_issue(a.app, &nobody, ann.id, key));
    key[APP_APIKEY_LEN] = '\0';
    deposit(a.app, ann.id, 1);
    assert_int_equal(balance(b.app, ann.id), 1);
    assert_int_equal(ask(b.app, key, true), APP_AUTH_OK);
    redis_server_freeze(&server, true);
    deposit(a.app, ann.id, 1); /* comes back when b cannot show the 1 any more */
    assert_false(confirm(b.app));
    OK(app_balance(b.app, ann.id, USD, true, &acc));
    assert_int_equal(acc.balance, 2);
    const int64_t quick = now_us();
    for (unsigned i = 0; i < 100; i++)
        deposit(a.app, ann.id, 1);
    assert_true(now_us() - quick < 5 * 1000000);
    assert_int_equal(ask(b.app, key, true), APP_AUTH_OK);
    usleep(AUTH_ALONE_US + 100000);
    assert_int_equal(ask(b.app, key, false), APP_AUTH_WOULD_BLOCK); /* nobody says that it is still so */
    redis_server_freeze(&server, false);
    EVENTUALLY(app_confirms(a.app) && app_confirms(b.app), 5000);
    assert_int_equal(balance(b.app, ann.id), 102);
    assert_int_equal(balance(a.app, ann.id), 102);
}

struct flaps {
    pthread_t thread;
    _Atomic bool stop;
};

/* Gone for longer than a command's deadline, there for long enough to be found, and so on. */
static void *flap(void *ctx)
{
    struct flaps *f = ctx;
    while (!f->stop) {
        redis_server_freeze(&server, true);
        usleep(250000);
        redis_server_freeze(&server, false);
        usleep(450000);
    }
    return NULL;
}

/* Who needs the others to be silent is not kept waiting by a server that comes and goes. Of a big group, too. */
static void a_write_waits_once_while_redis_comes_and_goes(void **state)
{
    enum { WRITES_US = 4000000, LIMIT_US = 4000000 /* 3 s, and what a busy machine adds */, BATCH = 600 };
    (void)state;
    static struct movement m[BATCH];
    struct store_user ann = enrol("ann");
    struct flaps f = {0};
    int64_t slowest = 0, sum = 0;
    deposit(a.app, ann.id, 1);
    for (unsigned i = 0; i < BATCH; i++) {
        struct store_user u;
        char name[32];
        snprintf(name, sizeof name, "user%u", i);
        u = enrol(name);
        m[i] = (struct movement){.kind = LEDGER_DEPOSIT, .to_user = u.id, .amount = 1, .currency = USD};
    }
    assert_int_equal(pthread_create(&f.thread, NULL, flap, &f), 0);
    const int64_t begun = now_us();
    enum pf_err e = PFE_OK;
    for (unsigned i = 0; e == PFE_OK && now_us() - begun < WRITES_US; i++) {
        struct movement one = {.kind = LEDGER_DEPOSIT, .to_user = ann.id, .amount = 1, .currency = USD};
        struct job j = {.kind = JOB_MOVE, .m = &one, .n = 1, .atomic = true};
        if (i % 2)
            j = (struct job){.kind = JOB_MOVE, .m = m, .n = BATCH, .atomic = true};
        const int64_t t0 = now_us();
        e = app_submit_wait(a.app, &j);
        const int64_t dt = now_us() - t0;
        slowest = dt > slowest ? dt : slowest;
        sum += i % 2 == 0;
    }
    f.stop = true;
    pthread_join(f.thread, NULL);
    print_message("the slowest write took %.2f s\n", (double)slowest / 1e6);
    OK(e);
    assert_in_range(slowest, 0, LIMIT_US);
    EVENTUALLY(app_confirms(a.app) && app_confirms(b.app), 5000);
    assert_int_equal(balance(b.app, ann.id), 1 + sum);
}

/* The store does not answer what the instances say to each other: nobody may rely on the others, and a change that
   Redis was not told of is not acknowledged as done. */
static void what_nobody_can_be_told_is_not_acknowledged(void **state)
{
    (void)state;
    struct store_user ann = enrol("ann");
    deposit(a.app, ann.id, 1);
    assert_int_equal(balance(b.app, ann.id), 1);
    pthread_mutex_lock(&words.lock);
    words.mute = true;
    pthread_mutex_unlock(&words.lock);
    EVENTUALLY(!app_confirms(a.app) && !app_confirms(b.app), 3000);
    assert_false(confirm(b.app));
    struct movement m = {.kind = LEDGER_DEPOSIT, .to_user = ann.id, .amount = 1, .currency = USD};
    struct job j = {.kind = JOB_MOVE, .m = &m, .n = 1, .atomic = true};
    assert_int_equal(app_submit_wait(a.app, &j), PFE_INTERNAL); /* not: nothing was done */
    pthread_mutex_lock(&words.lock);
    words.mute = false;
    pthread_mutex_unlock(&words.lock);
    EVENTUALLY(app_confirms(a.app) && app_confirms(b.app), 5000);
    assert_int_equal(balance(b.app, ann.id), 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_one_acknowledged_the_other_knows),
        T(nothing_is_answered_from_a_cache_unasked),
        T(a_credential_ends_in_both),
        T(nobody_believes_a_cache_while_redis_hangs),
        T(a_write_waits_once_while_redis_comes_and_goes),
        T(what_nobody_can_be_told_is_not_acknowledged),
    };
    redis_server_start(&server, NULL);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    redis_server_stop(&server);
    return failed;
}
