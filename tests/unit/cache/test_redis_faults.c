/* Redis dies, hangs, refuses, talks nonsense: the cache goes on, quickly, and never gives back what was invalidated
 * meanwhile. */
#include "redis_fixture.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/rand.h"

/* Of one call while Redis fails: a command's deadline, and room for a busy machine. */
#define PATIENCE_US 400000

static int64_t slowest_us;

#define QUICKLY(statement)                                                                                             \
    do {                                                                                                               \
        const int64_t t0_ = real_us();                                                                                 \
        statement;                                                                                                     \
        const int64_t dt_ = real_us() - t0_;                                                                           \
        slowest_us = dt_ > slowest_us ? dt_ : slowest_us;                                                              \
        assert_in_range(dt_, 0, PATIENCE_US);                                                                          \
    } while (0)

/* Every kind of call, while Redis is of no use. */
static void carries_on(struct cache *c, unsigned round)
{
    const struct str k = KEY("user:%u", 5000 + round), value = KEY("v%u", round);
    struct cache_rate r = {0};
    char out[16];
    size_t n;
    uint64_t token = 0;
    QUICKLY(assert_false(cache_fetch(c, k, out, sizeof out, &n, &token)));
    QUICKLY(cache_put(c, k, value, LONG, token));
    assert_true(has_value(c, k, value)); /* the first tier */
    QUICKLY(cache_del(c, k));
    assert_false(has(c, k));
    QUICKLY(cache_del_many(c, (struct str[]){k, STR("balance:1:USD")}, 2));
    QUICKLY(cache_rate(c, STR("rate:faults"), 1000000, 60 * SECOND, 1, &r));
    assert_true(r.allowed);
    static unsigned logins;
    const struct str login = KEY("login:%u", logins++);
    for (unsigned i = 0; i < 6; i++) { /* limits of this instance's own */
        QUICKLY(cache_rate_exact(c, login, 5, 60 * SECOND, 1, &r));
        assert_int_equal(r.allowed, i < 5);
    }
    QUICKLY(cache_del_glob(c, STR("user:5*")));
    assert_int_equal(cache_keys(c, STR("none*"), 10, NULL, NULL), PFE_OK);
}

static void killed_and_restarted(void **state)
{
    (void)state;
    struct redis_server s;
    redis_server_start(&s, NULL);
    struct cache *a = tiers_up(&s), *b = tiers_up(&s);
    usleep(50000);
    for (unsigned round = 0; round < 3; round++) {
        SHARE(a, b, STR("user:1"), STR("old"));
        redis_server_do(&s, "SAVE");
        if (round == 1) /* between the snapshot and the crash: confirmed, and lost */
            cache_del(a, STR("user:1"));
        redis_server_kill(&s);
        QUICKLY(cache_del(a, STR("user:1")));
        assert_false(has(a, STR("user:1")));
        carries_on(a, round);
        EVENTUALLY(!up(a) && !up(b), 2000);
        redis_server_up(&s);
        EVENTUALLY(up(a) && up(b), 10000);
        assert_string_equal(redis_server_do(&s, "EXISTS user:1"), "1"); /* it did come back */
        usleep(1050000);                                                /* local copies are gone */
        assert_false(fetches(a, STR("user:1"), STR("old")));
        assert_false(fetches(b, STR("user:1"), STR("old")));
        cache_del_glob(a, STR("*"));
    }
    cache_close(a);
    cache_close(b);
    redis_server_stop(&s);
}

static void frozen_and_thawed(void **state)
{
    (void)state;
    struct redis_server s;
    redis_server_start(&s, NULL);
    struct cache *a = tiers_up(&s), *b = tiers_up(&s);
    usleep(50000);
    for (unsigned round = 0; round < 2; round++) {
        SHARE(a, b, STR("user:1"), STR("old"));
        const uint64_t token = miss(b, STR("user:2"));
        redis_server_freeze(&s, true);
        QUICKLY(cache_del(a, STR("user:1")));
        carries_on(a, round);
        carries_on(b, round);
        EVENTUALLY(!up(a) && !up(b), 4000);
        const int64_t t0 = real_us();
        for (unsigned i = 0; i < 100; i++)
            carries_on(a, 10 + i);
        assert_in_range(real_us() - t0, 0, PATIENCE_US); /* nobody asks any more */
        cache_del(a, STR("user:2"));
        redis_server_freeze(&s, false);
        EVENTUALLY(up(a) && up(b), 10000);
        cache_put(b, STR("user:2"), STR("old"), LONG, token); /* a's word for it never left */
        usleep(1050000);
        assert_false(fetches(b, STR("user:2"), STR("old")));
        assert_false(fetches(b, STR("user:1"), STR("old")));
        SHARE(a, b, STR("user:3"), STR("new"));
        cache_del_glob(a, STR("*"));
    }
    cache_close(a);
    cache_close(b);
    redis_server_stop(&s);
}

static void emptied_full_and_read_only(void **state)
{
    (void)state;
    struct redis_server s;
    redis_server_start(&s, NULL);
    struct cache *a = tiers_up(&s), *b = tiers_up(&s);
    usleep(50000);
    fill_all(a, STR("user:1"), STR("ada"));
    redis_server_do(&s, "FLUSHALL");
    cache_forgo(b, miss(b, STR("user:1")));
    SHARE(b, a, STR("user:2"), STR("bob"));

    redis_server_do(&s, "CONFIG SET maxmemory 1");
    usleep(1050000);
    for (unsigned i = 0; i < 3; i++) {
        fill_all(a, KEY("user:%u", 100 + i), STR("x"));
        assert_true(has(a, KEY("user:%u", 100 + i)));
    }
    cache_del(a, STR("user:2")); /* needs no memory */
    usleep(1050000);
    assert_false(fetches(b, STR("user:2"), STR("bob")));
    redis_server_do(&s, "CONFIG SET maxmemory 0");
    EVENTUALLY(up(a) && up(b), 10000);
    EVENTUALLY(
        (cache_del(a, STR("user:4")), fill_all(a, STR("user:4"), STR("eve")), fetches(b, STR("user:4"), STR("eve"))),
        5000);

    redis_server_do(&s, "REPLICAOF 127.0.0.1 1");
    cache_del(a, STR("user:4"));
    EVENTUALLY(!up(a) && !up(b), 3000);
    carries_on(a, 1);
    redis_server_do(&s, "REPLICAOF NO ONE");
    EVENTUALLY(up(a) && up(b), 10000);
    assert_false(fetches(b, STR("user:4"), STR("eve")));

    redis_server_do(&s, "SCRIPT FLUSH");
    for (unsigned i = 0; i < 20; i++)
        fill_all(a, KEY("user:%u", 200 + i), STR("x"));
    EVENTUALLY(up(a), 10000);
    EVENTUALLY(
        (cache_del(a, STR("user:5")), fill_all(a, STR("user:5"), STR("fay")), fetches(b, STR("user:5"), STR("fay"))),
        5000);

    redis_server_do(&s, "CLIENT KILL TYPE pubsub");
    EVENTUALLY(up(a) && up(b), 10000);
    redis_server_do(&s, "CLIENT KILL TYPE normal");
    carries_on(a, 2);
    EVENTUALLY(up(a) && up(b), 10000);
    cache_close(a);
    cache_close(b);
    redis_server_stop(&s);
}

/* One connection breaks under one invalidation: too little for the breaker, enough to make all void. */
static void a_single_lost_invalidation(void **state)
{
    (void)state;
    struct redis_server s;
    redis_server_start(&s, NULL);
    struct cache *a = tiers_up(&s), *b = tiers_up(&s);
    usleep(50000);
    for (unsigned round = 0; round < 3; round++) {
        SHARE(a, b, STR("user:1"), STR("old"));
        redis_server_do(&s, "CLIENT KILL TYPE normal");
        if (round == 0)
            cache_del(a, STR("user:1"));
        else if (round == 1)
            cache_del_many(a, (struct str[]){STR("user:2"), STR("user:1")}, 2);
        else
            cache_del_glob(a, STR("user:*"));
        EVENTUALLY(up(a) && up(b), 10000);
        usleep(1050000);
        assert_false(fetches(b, STR("user:1"), STR("old")));
        assert_false(fetches(a, STR("user:1"), STR("old")));
    }
    cache_close(a);
    cache_close(b);
    redis_server_stop(&s);
}

static void passwords(void **state)
{
    (void)state;
    struct redis_server s;
    redis_server_start(&s, "open sesame");
    struct cache *a = tiers_with(s.socket, 0, "close sesame"), *b = tiers_with(s.socket, 0, "");
    struct cache *c = tiers_up(&s);
    usleep(500000);
    assert_false(up(a));
    assert_false(up(b));
    carries_on(a, 1);
    carries_on(b, 1);
    carries_on(c, 1);
    assert_true(up(c));
    cache_close(a);
    cache_close(b);
    cache_close(c);
    redis_server_stop(&s);
}

static void nobody_there(void **state)
{
    (void)state;
    struct cache *a = tiers_with("/nonexistent/socket", 0, ""), *b = tiers_with("127.0.0.1", 1, ""),
                 *c = tiers_with("no-such-host.invalid", 6379, "");
    for (unsigned i = 0; i < 20; i++) {
        carries_on(a, i);
        carries_on(b, i);
        carries_on(c, i);
    }
    assert_false(up(a) || up(b) || up(c));
    cache_close(a);
    cache_close(b);
    cache_close(c);
}

/* ---- a server that talks nonsense ---- */

enum nonsense { CLOSES, SILENT, RANDOM, NO_END, HUGE_BULK, HUGE_ARRAY, DEEP, DRIP, OK_THEN_RANDOM, WRONG_TYPES, KINDS };

struct fake {
    int fd, port;
    pthread_t thread;
    enum nonsense kind;
    _Atomic bool stop;
    _Atomic unsigned served;
};

static bool say(int fd, const void *p, size_t n)
{
    return send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
}

static void talk(struct fake *f, int fd)
{
    static const char info[] = "+OK\r\n$49\r\nrun_id:0123456789abcdef0123456789abcdef01234567\r\n\r\n";
    char noise[4096];
    switch (f->kind) {
    case CLOSES:
    case KINDS:
        return;
    case SILENT:
        usleep(300000);
        return;
    case RANDOM:
        rand_bytes(noise, sizeof noise);
        (void)say(fd, noise, sizeof noise);
        break;
    case NO_END:
        memset(noise, '+', sizeof noise);
        for (unsigned i = 0; i < 20000 && !f->stop && say(fd, noise, sizeof noise); i++)
            usleep(10);
        return;
    case HUGE_BULK:
        (void)say(fd, "$2147483647\r\n", 13);
        memset(noise, 'x', sizeof noise);
        for (unsigned i = 0; i < 20000 && !f->stop && say(fd, noise, sizeof noise); i++)
            usleep(10);
        return;
    case HUGE_ARRAY:
        (void)say(fd, "*2147483646\r\n", 13);
        break;
    case DEEP:
        for (unsigned i = 0; i < 100; i++)
            (void)say(fd, "*1\r\n", 4);
        break;
    case DRIP:
        for (unsigned i = 0; i < 20 && !f->stop && say(fd, "+", 1); i++)
            usleep(50000);
        return;
    case OK_THEN_RANDOM: /* as far as an introduction goes */
        (void)say(fd, info, sizeof info - 1);
        rand_bytes(noise, sizeof noise);
        (void)say(fd, noise, sizeof noise);
        break;
    case WRONG_TYPES:
        (void)say(fd, info, sizeof info - 1);
        for (unsigned i = 0; i < 20; i++)
            (void)say(fd, "*-1\r\n:5\r\n$-1\r\n*0\r\n", 19);
        break;
    }
    usleep(150000);
}

static void *serve(void *ctx)
{
    struct fake *f = ctx;
    while (!f->stop) {
        struct pollfd p = {f->fd, POLLIN, 0};
        if (poll(&p, 1, 20) <= 0)
            continue;
        const int fd = accept(f->fd, NULL, NULL);
        if (fd < 0)
            continue;
        f->served++;
        talk(f, fd);
        close(fd);
    }
    return NULL;
}

static void nonsense(void **state)
{
    (void)state;
    for (enum nonsense k = CLOSES; k < KINDS; k++) {
        struct fake f = {.kind = k};
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t n = sizeof at;
        f.fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(bind(f.fd, (struct sockaddr *)&at, sizeof at), 0);
        assert_int_equal(listen(f.fd, 16), 0);
        assert_int_equal(getsockname(f.fd, (struct sockaddr *)&at, &n), 0);
        assert_int_equal(pthread_create(&f.thread, NULL, serve, &f), 0);
        struct cache *c = tiers_with("127.0.0.1", ntohs(at.sin_port), "");
        for (unsigned i = 0; i < 20; i++) {
            carries_on(c, i);
            usleep(20000);
        }
        assert_false(up(c));
        EVENTUALLY(f.served > 1, 3000);
        QUICKLY(cache_close(c));
        f.stop = true;
        pthread_join(f.thread, NULL);
        close(f.fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_and_restarted),
        cmocka_unit_test(frozen_and_thawed),
        cmocka_unit_test(emptied_full_and_read_only),
        cmocka_unit_test(a_single_lost_invalidation),
        cmocka_unit_test(passwords),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(nonsense),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("# slowest call: %lld ms\n", (long long)slowest_us / 1000);
    return failed;
}
