/* The bus port on both engines: at least once, in every way that a message can go astray. RabbitMQ is Debian's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "bus/local/local.h"
#include "bus/rabbit/rabbit.h"
#include "codec/uuid.h"
#include "port/bus.h"
#include "support/rabbit_server.h"

enum { MESSAGES_MAX = 1000 };
static const char *const types[] = {"BookingCreated"};
static const struct rabbit_queue queues[] = {{"payment", types, 1}};

static struct daemon server;
static struct bus *bus;

/* A subscriber that does as it is told. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum bus_verdict plan[BUS_TRIES_MAX + 2]; /* by m->tries */
    bool hold;                                /* settles nothing by itself */
    struct bus_delivery *held[BUS_BATCH_MAX];
    unsigned n_held, most_held;
    unsigned seen[MESSAGES_MAX], tries[MESSAGES_MAX]; /* by number, which is in the payload */
    unsigned calls;
} sub = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void on_message(void *ctx, struct bus_delivery *d, const struct bus_message *m)
{
    unsigned n = 0;
    char text[64];
    assert_ptr_equal(ctx, &sub);
    assert_true(str_is(m->type, "BookingCreated"));
    assert_true(str_copy(text, sizeof text, m->payload) && sscanf(text, "{\"n\":%u}", &n) == 1 && n < MESSAGES_MAX);
    assert_int_equal(m->created_us, 1700000000000000 + (int64_t)n);
    assert_int_equal(m->key[15], n % 7);
    pthread_mutex_lock(&sub.lock);
    sub.seen[n]++;
    sub.tries[n] = m->tries;
    sub.calls++;
    bool hold = sub.hold;
    enum bus_verdict v = sub.plan[m->tries];
    if (hold) {
        assert_true(sub.n_held < BUS_BATCH_MAX);
        sub.held[sub.n_held++] = d;
        if (sub.n_held > sub.most_held)
            sub.most_held = sub.n_held;
    }
    pthread_cond_broadcast(&sub.changed);
    pthread_mutex_unlock(&sub.lock);
    if (!hold)
        bus_settle(d, v);
}

static struct bus_subscription subscription = {
    .queue = "payment", .types = types, .n_types = 1, .prefetch = 32, .fn = on_message, .ctx = &sub};

static struct bus_message message(unsigned n, char text[32])
{
    struct uuid u = uuid_v7(clock_wall(clock_system()));
    struct bus_message m = {.type = STR("BookingCreated"), .created_us = 1700000000000000 + (int64_t)n};
    memcpy(m.id, u.b, sizeof m.id);
    m.key[15] = (uint8_t)(n % 7);
    m.payload = (struct str){text, (size_t)snprintf(text, 32, "{\"n\":%u}", n)};
    return m;
}

/* Publishes numbers from..to-1; returns how many were taken. */
static unsigned publish(unsigned from, unsigned to)
{
    static char text[BUS_BATCH_MAX][32];
    struct bus_message m[BUS_BATCH_MAX];
    bool taken[BUS_BATCH_MAX];
    unsigned yes = 0;
    for (unsigned at = from; at < to;) {
        size_t n = 0;
        while (n < BUS_BATCH_MAX && at + n < to) {
            m[n] = message(at + (unsigned)n, text[n]);
            n++;
        }
        if (bus_publish(bus, m, n, taken) == PFE_OK)
            for (size_t i = 0; i < n; i++)
                yes += taken[i];
        at += (unsigned)n;
    }
    return yes;
}

static bool wait_for_calls(unsigned calls, unsigned seconds)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += seconds;
    pthread_mutex_lock(&sub.lock);
    while (sub.calls < calls && pthread_cond_clockwait(&sub.changed, &sub.lock, CLOCK_MONOTONIC, &end) == 0)
        ;
    bool ok = sub.calls >= calls;
    pthread_mutex_unlock(&sub.lock);
    return ok;
}

static unsigned seen(unsigned n)
{
    pthread_mutex_lock(&sub.lock);
    unsigned times = sub.seen[n];
    pthread_mutex_unlock(&sub.lock);
    return times;
}

/* Settles what is held. */
static unsigned let_go(enum bus_verdict v)
{
    pthread_mutex_lock(&sub.lock);
    unsigned n = sub.n_held;
    struct bus_delivery *held[BUS_BATCH_MAX];
    memcpy(held, sub.held, sizeof held);
    sub.n_held = 0;
    pthread_mutex_unlock(&sub.lock);
    for (unsigned i = 0; i < n; i++)
        bus_settle(held[i], v);
    return n;
}

static unsigned held(void)
{
    pthread_mutex_lock(&sub.lock);
    unsigned n = sub.n_held;
    pthread_mutex_unlock(&sub.lock);
    return n;
}

static struct bus_stats stats(void)
{
    struct bus_stats s;
    bus_stats(bus, &s);
    return s;
}

static bool settled_down(unsigned seconds)
{
    for (unsigned i = 0; i < seconds * 100 && stats().unsettled; i++)
        usleep(10000);
    return stats().unsettled == 0;
}

/* ---- both ---- */

static void each_message_comes(void **state)
{
    (void)state;
    assert_int_equal(publish(0, 600), 600);
    assert_true(wait_for_calls(600, 20));
    for (unsigned i = 0; i < 600; i++)
        assert_int_equal(sub.seen[i], 1);
    assert_true(settled_down(10));
    assert_int_equal(stats().done, 600);
    assert_int_equal(stats().taken, 600);
}

static void what_nobody_waits_for_is_taken(void **state)
{
    (void)state;
    char text[32];
    struct bus_message m = message(1, text);
    bool taken = false;
    m.type = STR("BookingConfirmed");
    assert_int_equal(bus_publish(bus, &m, 1, &taken), PFE_OK);
    assert_true(taken);
    assert_int_equal(publish(2, 3), 1);
    assert_true(wait_for_calls(1, 20));
    assert_int_equal(sub.seen[1], 0);
    assert_int_equal(sub.seen[2], 1);
}

static void what_never_works_is_put_aside(void **state)
{
    (void)state;
    sub.plan[0] = BUS_DEAD;
    assert_int_equal(publish(5, 6), 1);
    assert_true(wait_for_calls(1, 20));
    assert_true(settled_down(10));
    assert_int_equal(stats().dead, 1);
    usleep(300000);
    assert_int_equal(sub.calls, 1);
}

static void *settle_later(void *unused)
{
    (void)unused;
    for (unsigned n = 0; n < 96;) {
        unsigned want = 96 - n < subscription.prefetch ? 96 - n : subscription.prefetch;
        for (unsigned i = 0; i < 500 && held() < want; i++)
            usleep(10000);
        usleep(20000); /* for more, which would be too many */
        n += let_go(BUS_DONE);
    }
    return NULL;
}

static void no_more_than_the_prefetch_is_out(void **state)
{
    (void)state;
    pthread_t t;
    sub.hold = true;
    assert_int_equal(pthread_create(&t, NULL, settle_later, NULL), 0);
    assert_int_equal(publish(0, 96), 96);
    pthread_join(t, NULL);
    assert_true(wait_for_calls(96, 20));
    assert_true(settled_down(10));
    assert_int_equal(sub.most_held, subscription.prefetch);
    for (unsigned i = 0; i < 96; i++)
        assert_int_equal(sub.seen[i], 1);
}

static void nothing_comes_after_quiesce(void **state)
{
    (void)state;
    assert_int_equal(publish(0, 1), 1);
    assert_true(wait_for_calls(1, 20));
    bus_quiesce(bus);
    unsigned before = sub.calls;
    publish(1, 3);
    usleep(300000);
    assert_int_equal(sub.calls, before);
}

/* ---- local ---- */

static void taken_means_dealt_with(void **state)
{
    (void)state;
    sub.plan[0] = sub.plan[1] = BUS_AGAIN;
    char text[32];
    struct bus_message m = message(3, text);
    bool taken = true;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(bus_publish(bus, &m, 1, &taken), PFE_OK);
        assert_int_equal(taken, i == 2);
        assert_int_equal(sub.tries[3], i);
    }
    sub.hold = true;
    assert_int_equal(publish(4, 5), 0); /* nobody settles in time */
    assert_int_equal(let_go(BUS_DONE), 1);
    assert_int_equal(stats().unsettled, 0);
}

static void after_many_tries_it_is_dead(void **state)
{
    (void)state;
    char text[32];
    struct bus_message m = message(3, text);
    bool taken = false;
    for (unsigned i = 0; i < BUS_TRIES_MAX; i++)
        sub.plan[i] = BUS_AGAIN;
    for (unsigned i = 0; i < BUS_TRIES_MAX; i++) {
        assert_false(taken);
        assert_int_equal(bus_publish(bus, &m, 1, &taken), PFE_OK);
    }
    assert_true(taken);
    assert_int_equal(stats().dead, 1);
}

/* ---- RabbitMQ ---- */

static void again_means_after_a_while(void **state)
{
    (void)state;
    sub.plan[0] = sub.plan[1] = BUS_AGAIN;
    assert_int_equal(publish(0, 3), 3);
    assert_true(wait_for_calls(9, 20));
    assert_true(settled_down(10));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(sub.seen[i], 3);
        assert_int_equal(sub.tries[i], 2);
    }
    assert_int_equal(stats().again, 6);
    assert_int_equal(stats().done, 3);
}

static amqp_connection_state_t outsider(void)
{
    amqp_connection_state_t c = amqp_new_connection();
    amqp_socket_t *s = amqp_tcp_socket_new(c);
    assert_int_equal(amqp_socket_open(s, "127.0.0.1", server.port), AMQP_STATUS_OK);
    assert_int_equal(amqp_login(c, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest").reply_type,
                     AMQP_RESPONSE_NORMAL);
    return c;
}

/* What the test before left in the queues. */
static void purge(void)
{
    amqp_connection_state_t c = outsider();
    for (amqp_channel_t i = 1; i <= 2; i++) { /* a queue that is not there ends its channel */
        amqp_channel_open(c, i);
        amqp_queue_purge(c, i, amqp_cstring_bytes(i == 1 ? "payflow.payment" : "payflow.payment.again"));
    }
    amqp_destroy_connection(c);
}

/* The messages in the queue that waits for ours; -1: there is none. */
static int length(bool then_delete)
{
    amqp_connection_state_t c = outsider();
    amqp_bytes_t name = amqp_cstring_bytes("payflow.payment");
    amqp_channel_open(c, 1);
    amqp_queue_declare_ok_t *q = amqp_queue_declare(c, 1, name, 1, 1, 0, 0, amqp_empty_table);
    int n = q ? (int)q->message_count : -1;
    if (q && then_delete)
        assert_non_null(amqp_queue_delete(c, 1, name, 0, 0));
    amqp_destroy_connection(c);
    return n;
}

static bool open_rabbit(void)
{
    purge();
    char why[256];
    struct rabbit_options o = {.url = rabbit_server_url(&server),
                               .queues = queues,
                               .n_queues = 1,
                               .publish_ms = 2000,
                               .again_ms = 100,
                               .heartbeat_s = 2};
    return bus_rabbit_open(&o, &bus, why) == PFE_OK;
}

static void a_queue_that_is_deleted_is_made_again(void **state)
{
    (void)state;
    assert_int_equal(publish(0, 1), 1);
    assert_true(wait_for_calls(1, 20));
    assert_true(settled_down(10));
    assert_int_not_equal(length(true), -1);
    assert_int_equal(publish(1, 4), 3);
    assert_true(wait_for_calls(4, 20));
    assert_int_equal(seen(1) + seen(2) + seen(3), 3);
}

static void without_subscribers_too(void **state)
{
    (void)state;
    assert_true(open_rabbit());
    assert_int_equal(publish(0, 1), 1);
    assert_int_equal(length(true), 1);
    assert_int_equal(publish(1, 3), 2);
    assert_int_equal(stats().connects, 2);
    for (unsigned i = 0; i < 500 && length(false) != 2; i++)
        usleep(10000);
    assert_int_equal(length(true), 2);
    bus_close(bus);
}

static void a_broker_that_dies_loses_nothing(void **state)
{
    (void)state;
    sub.hold = true;
    assert_int_equal(publish(0, 20), 20);
    assert_true(wait_for_calls(20, 20));
    daemon_kill(&server);
    assert_int_equal(publish(20, 21), 0);
    rabbit_server_up(&server);
    assert_int_equal(let_go(BUS_DONE), 20); /* of a connection that is no more: they come again */
    pthread_mutex_lock(&sub.lock);
    sub.hold = false;
    pthread_mutex_unlock(&sub.lock);
    unsigned taken = 0;
    for (unsigned i = 0; i < 40 && !taken; i++) {
        taken = publish(21, 22);
        if (!taken)
            usleep(500000);
    }
    assert_int_equal(taken, 1);
    assert_true(wait_for_calls(41, 40));
    assert_true(settled_down(10));
    for (unsigned i = 0; i < 20; i++)
        assert_true(sub.seen[i] >= 2);
    assert_true(sub.seen[21] >= 1);
}

static void a_broker_that_hangs_holds_nobody_up(void **state)
{
    (void)state;
    assert_int_equal(publish(0, 1), 1);
    assert_true(wait_for_calls(1, 20));
    daemon_signal(&server, SIGSTOP);
    int64_t begin = clock_mono(clock_system());
    assert_int_equal(publish(1, 10), 0);
    int64_t took = clock_mono(clock_system()) - begin;
    daemon_signal(&server, SIGCONT);
    assert_true(took < 20000000);
    unsigned taken = 0;
    for (unsigned i = 0; i < 40 && !taken; i++) {
        taken = publish(30, 31);
        if (!taken)
            usleep(250000);
    }
    assert_int_equal(taken, 1);
    for (unsigned i = 0; i < 300 && !seen(30); i++)
        usleep(100000);
    assert_true(seen(30) >= 1);
    assert_true(settled_down(20));
}

static void bad_urls_are_told(void **state)
{
    (void)state;
    struct bus *b;
    char why[256];
    assert_int_equal(bus_rabbit_open(&(struct rabbit_options){.url = "http://x:sesame@y"}, &b, why), PFE_WRONG_STATE);
    assert_non_null(strstr(why, "AMQP_URL"));
    assert_null(strstr(why, "sesame"));
}

static void nobody_there_is_unavailable(void **state)
{
    (void)state;
    struct bus *b;
    char why[256], text[32];
    struct bus_message m = message(0, text);
    bool taken = true;
    assert_int_equal(bus_rabbit_open(&(struct rabbit_options){.url = "amqp://guest:guest@127.0.0.1:1/"}, &b, why),
                     PFE_OK);
    struct bus_stats s;
    bus_stats(b, &s);
    assert_true(s.up); /* nobody has asked for it yet */
    assert_int_equal(bus_publish(b, &m, 1, &taken), PFE_UNAVAILABLE);
    assert_false(taken);
    bus_stats(b, &s);
    assert_false(s.up);
    bus_close(b);
}

/* ---- each engine ---- */

static int open_bus(void **state)
{
    pthread_mutex_lock(&sub.lock);
    memset(sub.plan, 0, sizeof sub.plan);
    memset(sub.seen, 0, sizeof sub.seen);
    sub.hold = false;
    sub.n_held = sub.most_held = sub.calls = 0;
    pthread_mutex_unlock(&sub.lock);
    if (*state)
        return open_rabbit() && bus_subscribe(bus, &subscription) == PFE_OK ? 0 : -1;
    bus = bus_local_open(300000);
    return bus && bus_subscribe(bus, &subscription) == PFE_OK ? 0 : -1;
}

static int close_bus(void **state)
{
    (void)state;
    bus_quiesce(bus);
    let_go(BUS_DONE);
    bus_close(bus);
    return 0;
}

int main(void)
{
    int failed = 0;
#define ON(f, engine) cmocka_unit_test_prestate_setup_teardown(f, open_bus, close_bus, engine)
#define BOTH(engine)                                                                                                   \
    ON(each_message_comes, engine), ON(what_nobody_waits_for_is_taken, engine),                                        \
        ON(what_never_works_is_put_aside, engine), ON(no_more_than_the_prefetch_is_out, engine),                       \
        ON(nothing_comes_after_quiesce, engine)
    const struct CMUnitTest local[] = {BOTH(NULL), ON(taken_means_dealt_with, NULL),
                                       ON(after_many_tries_it_is_dead, NULL)};
    failed += cmocka_run_group_tests_name("local", local, NULL, NULL);

    rabbit_server_start(&server);
    const struct CMUnitTest rabbit[] = {BOTH(&server),
                                        ON(again_means_after_a_while, &server),
                                        ON(a_queue_that_is_deleted_is_made_again, &server),
                                        cmocka_unit_test(without_subscribers_too),
                                        ON(a_broker_that_hangs_holds_nobody_up, &server),
                                        ON(a_broker_that_dies_loses_nothing, &server),
                                        cmocka_unit_test(nobody_there_is_unavailable),
                                        cmocka_unit_test(bad_urls_are_told)};
    failed += cmocka_run_group_tests_name("rabbitmq", rabbit, NULL, NULL);
    rabbit_server_stop(&server);
    return failed;
}
