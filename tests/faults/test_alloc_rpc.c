/*
 * gRPC while the nth allocation fails: of the server's thread and the client's, for every n, once and from then on.
 * Each call ends once, with an answer or an error; afterwards the next one is answered, and nothing is left in flight.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <echo.pb-c.h>
#include <unistd.h>

#include "echo.h"
#include "faults/inject.h"
#include "rpc/client.h"

enum { PATIENCE_US = 30000000, DEADLINE_US = 500000, POINTS_MAX = 5000 };

static int64_t now(void)
{
    return clock_mono(clock_system());
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

/* ---- the service, without threads or memory of its own */

static struct metrics *metrics;

static void told(struct rpc_call *c)
{
    Echo__V1__Told t = ECHO__V1__TOLD__INIT;
    t.text = ((const Echo__V1__Ask *)c->request)->text;
    rpc_reply(c, &t.base);
}

static void later(struct rpc_call *c)
{
    rpc_suspend(c, told);
    rpc_resume(c);
}

#define ROW(name, handler)                                                                                             \
    {                                                                                                                  \
        "echo.v1.Echo", name, &echo__v1__ask__descriptor, &echo__v1__told__descriptor, handler, NULL                   \
    }
static const struct rpc_method methods[] = {ROW("Say", told), ROW("Later", later)};

static struct rpc_server *server_new(char why[256])
{
    return rpc_server_start(&(struct rpc_config){.host = "127.0.0.1",
                                                 .threads = 2,
                                                 .methods = methods,
                                                 .n_methods = 2,
                                                 .metrics = metrics,
                                                 .clock = clock_system()},
                            why);
}

static struct rpc_client *client_new(uint16_t port, char why[256])
{
    return rpc_client_new(
        &(struct rpc_client_config){.host = "127.0.0.1", .port = port, .connections = 1, .clock = clock_system()}, why);
}

/* ---- a call */

struct outcome {
    atomic_int ended;
    enum rpc_code code;
    bool same;
};

static void done(void *user, const struct rpc_result *r)
{
    struct outcome *o = user;
    o->code = r->code;
    o->same = r->answer && strcmp(((const Echo__V1__Told *)r->answer)->text, "text") == 0;
    atomic_fetch_add(&o->ended, 1);
}

static enum rpc_code call(struct rpc_client *c, const char *method, size_t blob_n)
{
    static uint8_t blob[200000];
    static struct outcome o; /* outlives a call that ends too late */
    Echo__V1__Ask q = ECHO__V1__ASK__INIT;
    q.text = (char *)(uintptr_t) "text";
    q.blob = (ProtobufCBinaryData){blob_n, blob};
    o = (struct outcome){0};
    rpc_client_call(c,
                    &(struct rpc_request){.service = "echo.v1.Echo",
                                          .method = method,
                                          .message = &q.base,
                                          .answer = &echo__v1__told__descriptor,
                                          .deadline_us = now() + DEADLINE_US},
                    done, &o);
    for (int64_t end = now() + PATIENCE_US; atomic_load(&o.ended) == 0;) {
        if (now() > end)
            fail_msg("a call to %s does not end", method);
        nap();
    }
    assert_int_equal(atomic_load(&o.ended), 1);
    assert_true(o.code != RPC_OK || o.same);
    return o.code;
}

/* The connection may be lost, and opened again after a while. */
static void must_answer(struct rpc_client *c)
{
    for (int64_t end = now() + PATIENCE_US; call(c, "Say", 0) != RPC_OK;) {
        if (now() > end) {
            inject_where(2);
            fail_msg("the next call is not answered");
        }
        nap();
    }
}

/* Every n from 0, until the call comes to its end before the nth allocation. */
static void sweep(const char *method, size_t blob_n, bool cold, bool rest)
{
    char why[256];
    struct rpc_server *s = server_new(why);
    assert_non_null(s);
    struct rpc_client *c = client_new(rpc_server_port(s), why);
    assert_non_null(c);
    must_answer(c);
    long failed = 1, n = 0;
    unsigned good = 0;
    for (; failed > 0 && n < POINTS_MAX; n++) {
        if (cold) {
            rpc_client_free(c);
            c = client_new(rpc_server_port(s), why);
            assert_non_null(c);
        }
        inject_arm(n, rest);
        enum rpc_code code = call(c, method, blob_n);
        failed = inject_disarm();
        good += code == RPC_OK;
        if (failed == 0)
            assert_int_equal(code, RPC_OK);
        must_answer(c);
    }
    print_message("%s, %zu bytes%s%s: %ld points, %u answered\n", method, blob_n, cold ? ", cold" : "",
                  rest ? ", all after it too" : "", n - 1, good);
    assert_true(n > 1 && n < POINTS_MAX);
    rpc_client_free(c);
    for (int64_t end = now() + PATIENCE_US; rpc_server_in_flight(s) > 0 && now() < end;)
        nap();
    assert_int_equal(rpc_server_in_flight(s), 0);
    rpc_server_stop(s, 5000);
}

static void test_calls(void **state)
{
    (void)state;
    for (int rest = 0; rest < 2; rest++) {
        sweep("Say", 0, false, rest);
        sweep("Later", 0, false, rest);
        sweep("Say", 150000, false, rest);
        sweep("Later", 0, true, rest);
    }
}

/* Starting either: it runs, or says why it does not, and nothing is left of it. */
static void test_starts(void **state)
{
    (void)state;
    bool up = false;
    inject_self(true);
    for (long n = 0; !up && n < POINTS_MAX; n++) {
        char why[256] = "";
        inject_arm(n, false);
        struct rpc_server *s = server_new(why);
        struct rpc_client *c = s ? client_new(rpc_server_port(s), why) : NULL;
        up = inject_disarm() == 0;
        assert_true(!up || (s && c));
        assert_true((s && c) || why[0]);
        rpc_client_free(c);
        if (s)
            rpc_server_stop(s, 1000);
    }
    inject_self(false);
    assert_true(up);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_calls), cmocka_unit_test(test_starts)};
    metrics = metrics_new();
    int failed = cmocka_run_group_tests_name("faults/rpc", tests, NULL, NULL);
    metrics_free(metrics);
    return failed;
}
