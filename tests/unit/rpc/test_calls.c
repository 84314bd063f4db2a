/* Server and client in one process: what callers and handlers see of each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>
#include <echo.pb-c.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

#include "echo.h"
#include "rpc/client.h"

enum { SECOND = 1000000, PATIENCE_MS = 30000 };

static int64_t now(void)
{
    return clock_mono(clock_system());
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* ---- one call and what came of it */

struct outcome {
    atomic_int ended; /* how often `done` ran */
    enum rpc_code code;
    bool not_sent, from_server, zero;
    char text[600], told[64], trailer[64], problem[64], retry[16];
    size_t blob_n;
    uint64_t ticket;
};

static void copy(char *to, size_t n, struct str s)
{
    if (s.p)
        str_copy(to, n, s);
}

static void done(void *user, const struct rpc_result *r)
{
    struct outcome *o = user;
    o->code = r->code;
    o->not_sent = r->not_sent;
    o->from_server = r->from_server;
    copy(o->text, sizeof o->text, r->text);
    copy(o->trailer, sizeof o->trailer, rpc_result_metadata(r, "x-echo"));
    copy(o->problem, sizeof o->problem, rpc_result_metadata(r, "problem-type"));
    copy(o->retry, sizeof o->retry, rpc_result_metadata(r, "retry-after"));
    if (r->answer) {
        const Echo__V1__Told *t = (const Echo__V1__Told *)r->answer;
        copy(o->told, sizeof o->told, str_c(t->text));
        o->blob_n = t->blob.len;
        o->zero = r->code == RPC_OK;
    }
    atomic_fetch_add(&o->ended, 1);
}

static void wait_for(struct outcome *o)
{
    for (int64_t end = now() + PATIENCE_MS * 1000; atomic_load(&o->ended) == 0 && now() < end;)
        nap();
    assert_int_equal(atomic_load(&o->ended), 1);
}

#define ASK(...) (&(Echo__V1__Ask){PROTOBUF_C_MESSAGE_INIT(&echo__v1__ask__descriptor), __VA_ARGS__})

static void begin(struct rpc_client *c, const char *method, const Echo__V1__Ask *q, int64_t deadline_us,
                  struct outcome *o)
{
    const struct rpc_entry metadata[] = {{"x-echo", STR("back")}};
    *o = (struct outcome){0};
    o->ticket = rpc_client_call(c,
                                &(struct rpc_request){.service = "echo.v1.Echo",
                                                      .method = method,
                                                      .message = &q->base,
                                                      .answer = &echo__v1__told__descriptor,
                                                      .metadata = metadata,
                                                      .n_metadata = 1,
                                                      .deadline_us = deadline_us},
                                done, o);
}

static void call(struct rpc_client *c, const char *method, const Echo__V1__Ask *q, int64_t deadline_us,
                 struct outcome *o)
{
    begin(c, method, q, deadline_us, o);
    wait_for(o);
}

static struct rpc_client *client_of(uint16_t port, unsigned connections, unsigned max_in_flight)
{
    char why[256];
    struct rpc_client *c = rpc_client_new(&(struct rpc_client_config){.host = "127.0.0.1",
                                                                      .port = port,
                                                                      .connections = connections,
                                                                      .max_in_flight = max_in_flight,
                                                                      .max_waiting = 100000,
                                                                      .clock = clock_system()},
                                          why);
    if (!c)
        fail_msg("%s", why);
    return c;
}

static struct echo e;
static struct rpc_client *c;

static int start(void **state)
{
    (void)state;
    echo_start(&e, &(struct rpc_config){.threads = 2, .send_max = 1 << 20, .receive_max = 2 << 20});
    c = client_of(rpc_server_port(e.server), 2, 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    rpc_client_free(c);
    echo_stop(&e, 5000);
    return 0;
}

/* ---- tests */

static void test_answers(void **state)
{
    struct outcome o;
    (void)state;
    call(c, "Say", ASK(.text = (char *)(uintptr_t) "hello"), 0, &o);
    assert_int_equal(o.code, RPC_OK);
    assert_string_equal(o.told, "hello");
    assert_string_equal(o.trailer, "back");
    assert_true(o.from_server);
    call(c, "Later", ASK(.text = (char *)(uintptr_t) "later", .delay_ms = 5), 0, &o);
    assert_int_equal(o.code, RPC_OK);
    assert_string_equal(o.told, "later");
}

static void test_refusals(void **state)
{
    struct outcome o;
    (void)state;
    call(c, "Fail", ASK(.code = RPC_ABORTED, .text = (char *)(uintptr_t) "gr\xc3\xbc\xc3\x9f 5%\n"), 0, &o);
    assert_int_equal(o.code, RPC_ABORTED);
    assert_string_equal(o.text, "gr\xc3\xbc\xc3\x9f 5%\n");
    assert_true(o.from_server && !o.not_sent);
    call(c, "Fail", ASK(.code = 100 + PFE_BUSY, .text = (char *)(uintptr_t) "full"), 0, &o);
    assert_int_equal(o.code, RPC_UNAVAILABLE);
    assert_string_equal(o.text, "full");
    assert_string_equal(o.problem, "/problems/busy");
    assert_string_equal(o.retry, "1");
    assert_false(o.not_sent); /* the server has seen it */
    call(c, "Fail", ASK(.code = 100 + PFE_NOT_FOUND), 0, &o);
    assert_int_equal(o.code, RPC_NOT_FOUND);
    assert_string_equal(o.text, err_info(PFE_NOT_FOUND)->text);
    assert_string_equal(o.retry, "");
    call(c, "Nope", ASK(.code = 0), 0, &o);
    assert_int_equal(o.code, RPC_UNIMPLEMENTED);
    call(c, "Mute", ASK(.code = 0), 0, &o);
    assert_int_equal(o.code, RPC_INTERNAL);
    char long_text[2001];
    memset(long_text, 'x', 2000);
    long_text[2000] = '\0';
    call(c, "Fail", ASK(.code = RPC_ABORTED, .text = long_text), 0, &o);
    assert_int_equal(strlen(o.text), RPC_MESSAGE_TEXT_MAX);
}

static void test_sizes(void **state)
{
    struct outcome o;
    uint8_t *blob = calloc(1, 3 << 20);
    (void)state;
    assert_non_null(blob);
    call(c, "Say", ASK(.blob = {.data = blob, .len = 1000000}), 0, &o);
    assert_int_equal(o.code, RPC_OK);
    assert_int_equal(o.blob_n, 1000000);
    call(c, "Say", ASK(.blob = {.data = blob, .len = 2200000}), 0, &o);
    assert_int_equal(o.code, RPC_RESOURCE_EXHAUSTED); /* larger than the server takes */
    assert_true(o.from_server);
    call(c, "Say", ASK(.blob = {.data = blob, .len = 1500000}), 0, &o);
    assert_int_equal(o.code, RPC_RESOURCE_EXHAUSTED); /* it takes it, but does not send it */
    assert_true(o.from_server);
    call(c, "Say", ASK(.text = (char *)(uintptr_t) "still there"), 0, &o);
    assert_int_equal(o.code, RPC_OK);
    free(blob);
}

static uint64_t cancelled(void)
{
    return atomic_load(&e.cancelled);
}

static void expect_cancelled(uint64_t n)
{
    for (int64_t end = now() + PATIENCE_MS * 1000; cancelled() < n && now() < end;)
        nap();
    assert_int_equal(cancelled(), n);
}

static void test_deadline(void **state)
{
    struct outcome o;
    uint64_t before = cancelled();
    (void)state;
    int64_t began = now();
    call(c, "Later", ASK(.delay_ms = 20000), began + SECOND / 5, &o);
    assert_int_equal(o.code, RPC_DEADLINE_EXCEEDED);
    assert_true(now() - began >= SECOND / 5);
    expect_cancelled(before + 1); /* the handler knows, long before its 20 s */
    call(c, "Say", ASK(.code = 0), now() - 1, &o);
    assert_int_equal(o.code, RPC_DEADLINE_EXCEEDED);
    assert_true(o.not_sent);
}

static void test_cancel(void **state)
{
    struct outcome o;
    uint64_t before = cancelled();
    (void)state;
    begin(c, "Later", ASK(.delay_ms = 20000), 0, &o);
    while (rpc_server_in_flight(e.server) == 0)
        nap();
    rpc_client_cancel(c, o.ticket);
    rpc_client_cancel(c, o.ticket);
    wait_for(&o);
    assert_int_equal(o.code, RPC_CANCELLED);
    assert_false(o.from_server);
    expect_cancelled(before + 1);
    rpc_client_cancel(c, o.ticket); /* over: nothing happens */
    begin(c, "Say", ASK(.code = 0), 0, &o);
    rpc_client_cancel(c, o.ticket); /* either wins, `done` runs once */
    wait_for(&o);
    nap();
    assert_int_equal(atomic_load(&o.ended), 1);
}

/* More than both connections take at a time; some wait, none is lost or answered twice. */
static void test_many(void **state)
{
    enum { MANY = 4000 };
    struct outcome *o = calloc(MANY, sizeof *o);
    (void)state;
    assert_non_null(o);
    for (int i = 0; i < MANY; i++)
        begin(c, i % 3 ? "Say" : "Later", ASK(.text = (char *)(uintptr_t) "many", .delay_ms = (unsigned)i % 4), 0,
              &o[i]);
    for (int i = 0; i < MANY; i++) {
        wait_for(&o[i]);
        assert_int_equal(o[i].code, RPC_OK);
        assert_string_equal(o[i].told, "many");
    }
    assert_int_equal(rpc_client_in_flight(c), 0);
    free(o);
}

static void test_connection_refused(void **state)
{
    struct outcome o;
    (void)state;
    /* a port on which surely nobody listens: bound, and not listening */
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    struct rpc_client *lost = client_of(ntohs(a.sin_port), 1, 0);
    for (int i = 0; i < 3; i++) { /* the later ones without an attempt */
        call(lost, "Say", ASK(.code = 0), 0, &o);
        assert_int_equal(o.code, RPC_UNAVAILABLE);
        assert_true(o.not_sent);
    }
    close(fd);
    rpc_client_free(lost);
}

/* The server is stopped under load: what it has begun it answers, the rest fails in a way that may be repeated, and a
 * new server on the same port is found again. */
static void test_drain(void **state)
{
    enum { CALLS = 200 };
    static struct outcome o[CALLS];
    struct echo other;
    (void)state;
    echo_start(&other, &(struct rpc_config){.threads = 2});
    uint16_t port = rpc_server_port(other.server);
    struct rpc_client *to = client_of(port, 2, 50);
    for (int i = 0; i < CALLS; i++)
        begin(to, "Later", ASK(.delay_ms = 20), 0, &o[i]);
    while (rpc_server_in_flight(other.server) < 50)
        nap();
    echo_stop(&other, 10000);
    unsigned good = 0;
    for (int i = 0; i < CALLS; i++) {
        wait_for(&o[i]);
        if (o[i].code == RPC_OK) {
            good++;
        } else {
            assert_int_equal(o[i].code, RPC_UNAVAILABLE);
            assert_true(o[i].not_sent);
        }
    }
    assert_true(good >= 50);
    echo_start(&other, &(struct rpc_config){.threads = 1, .port = port});
    for (int64_t end = now() + PATIENCE_MS * 1000; now() < end;) {
        call(to, "Say", ASK(.code = 0), 0, &o[0]);
        if (o[0].code == RPC_OK)
            break;
        nap();
    }
    assert_int_equal(o[0].code, RPC_OK);
    rpc_client_free(to);
    echo_stop(&other, 5000);
}

/* A stop that does not wait: handlers are told, and none is left behind. */
static void test_stop_at_once(void **state)
{
    enum { CALLS = 30 };
    static struct outcome o[CALLS];
    struct echo other;
    (void)state;
    echo_start(&other, &(struct rpc_config){.threads = 1});
    struct rpc_client *to = client_of(rpc_server_port(other.server), 1, 0);
    for (int i = 0; i < CALLS; i++)
        begin(to, "Later", ASK(.delay_ms = 25000), 0, &o[i]);
    while (rpc_server_in_flight(other.server) < CALLS)
        nap();
    int64_t began = now();
    echo_stop(&other, 0);
    assert_true(now() - began < 20 * SECOND);
    for (int i = 0; i < CALLS; i++) {
        wait_for(&o[i]);
        assert_int_equal(o[i].code, RPC_UNAVAILABLE);
        assert_false(o[i].not_sent); /* who knows what they did */
    }
    rpc_client_free(to);
}

/* The client is freed with calls open. */
static void test_free_client(void **state)
{
    enum { CALLS = 300 };
    static struct outcome o[CALLS];
    struct rpc_client *to = client_of(rpc_server_port(e.server), 2, 20);
    (void)state;
    for (int i = 0; i < CALLS; i++)
        begin(to, "Later", ASK(.delay_ms = 3000), 0, &o[i]);
    rpc_client_free(to);
    for (int i = 0; i < CALLS; i++) {
        assert_int_equal(atomic_load(&o[i].ended), 1);
        assert_int_equal(o[i].code, RPC_CANCELLED);
    }
}

/* Calls beyond what the server handles at a time are refused so that they may be sent again. */
static void test_max_calls(void **state)
{
    enum { CALLS = 40 };
    static struct outcome o[CALLS];
    struct echo other;
    (void)state;
    echo_start(&other, &(struct rpc_config){.threads = 1, .max_calls = 10});
    struct rpc_client *to = client_of(rpc_server_port(other.server), 1, 0);
    unsigned good = 0;
    for (int i = 0; i < CALLS; i++)
        begin(to, "Later", ASK(.delay_ms = 300), 0, &o[i]);
    for (int i = 0; i < CALLS; i++) {
        wait_for(&o[i]);
        good += o[i].code == RPC_OK;
        if (o[i].code != RPC_OK) {
            assert_int_equal(o[i].code, RPC_UNAVAILABLE);
            assert_true(o[i].not_sent);
        }
    }
    assert_true(good >= 10 && good < CALLS);
    rpc_client_free(to);
    echo_stop(&other, 5000);
}

/* Requests that together take more memory than the server gives a connection. */
static void test_memory(void **state)
{
    enum { CALLS = 20, BYTES = 1 << 20 };
    static struct outcome o[CALLS];
    struct echo other;
    uint8_t *blob = calloc(1, BYTES);
    unsigned good = 0, full = 0;
    (void)state;
    assert_non_null(blob);
    echo_start(&other, &(struct rpc_config){.threads = 1, .connection_memory = 6 << 20});
    struct rpc_client *to = client_of(rpc_server_port(other.server), 1, 0);
    for (int i = 0; i < CALLS; i++)
        begin(to, "Later", ASK(.delay_ms = 2000, .blob = {.data = blob, .len = BYTES}), 0, &o[i]);
    for (int i = 0; i < CALLS; i++) {
        wait_for(&o[i]);
        good += o[i].code == RPC_OK;
        /* refused before it was taken, or no room for its answer */
        full += o[i].code == RPC_RESOURCE_EXHAUSTED || o[i].code == RPC_INTERNAL;
    }
    assert_int_equal(good + full, CALLS);
    print_message("%u of %u fitted\n", good, good + full);
    assert_true(good >= 1 && full >= 1);
    call(to, "Say", ASK(.blob = {.data = blob, .len = BYTES}), 0, &o[0]);
    assert_int_equal(o[0].code, RPC_OK); /* what was freed is counted back */
    rpc_client_free(to);
    echo_stop(&other, 5000);
    free(blob);
}

static void expect_no_start(struct rpc_config config, const char *text)
{
    char why[256];
    struct rpc_server *s;
    config.metrics = e.metrics;
    config.clock = clock_system();
    config.host = config.host ? config.host : "127.0.0.1";
    s = rpc_server_start(&config, why);
    assert_null(s);
    assert_non_null(strstr(why, text));
}

static void test_bad_config(void **state)
{
    static const struct rpc_method twice[] = {{"a.A", "B", NULL, NULL, NULL, NULL},
                                              {"a.A", "B", NULL, NULL, NULL, NULL}};
    char why[256];
    (void)state;
    expect_no_start((struct rpc_config){.tls_cert = "x"}, "both");
    expect_no_start((struct rpc_config){.tls_cert = "/nowhere", .tls_key = "/nowhere"}, "/nowhere");
    expect_no_start((struct rpc_config){.threads = 65}, "1 to 64");
    expect_no_start((struct rpc_config){.methods = twice, .n_methods = 2}, "twice");
    expect_no_start((struct rpc_config){.port = rpc_server_port(e.server)}, "in use");
    expect_no_start((struct rpc_config){.host = "not an address"}, "listen");
    assert_null(rpc_client_new(&(struct rpc_client_config){.host = "localhost", .clock = clock_system()}, why));
    assert_non_null(strstr(why, "numeric"));
    assert_false(rpc_health_set(e.server, "no.such.Service", true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_connection_refused),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_stop_at_once),
        cmocka_unit_test(test_free_client),
        cmocka_unit_test(test_max_calls),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_bad_config),
    };
    return cmocka_run_group_tests_name("rpc/calls", tests, start, stop);
}
