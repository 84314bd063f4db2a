/* Requests that another thread answers, and the ends of a server. */
#include "fixture.h"

#include <pthread.h>
#include <stdatomic.h>

/* A thread that resumes what it is given, after a delay of its own, and not while it is held. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t thread;
    struct http_req *head;
    bool end;
    atomic_int delay_ms;
    atomic_bool hold;
} other = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static atomic_int waiting, answered, cleaned;

static void give(struct http_req *r)
{
    pthread_mutex_lock(&other.lock);
    *(struct http_req **)r->user = other.head;
    other.head = r;
    atomic_fetch_add(&waiting, 1);
    pthread_cond_signal(&other.more);
    pthread_mutex_unlock(&other.lock);
}

static void *resume_all(void *arg)
{
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&other.lock);
        while (!other.head && !other.end)
            pthread_cond_wait(&other.more, &other.lock);
        struct http_req *r = other.head;
        other.head = NULL;
        pthread_mutex_unlock(&other.lock);
        if (!r)
            return NULL;
        if (other.delay_ms)
            nap_ms(other.delay_ms);
        while (other.hold)
            nap_ms(1);
        while (r) {
            struct http_req *next = *(struct http_req **)r->user;
            atomic_fetch_sub(&waiting, 1);
            http_resume(r);
            r = next;
        }
    }
}

/* What a handler may attach to a request must be freed by `resumed`, so every suspended request has to reach it. */
struct extra {
    struct http_req *next; /* first: other's list */
    int rounds;
};

static void resumed(struct http_req *r)
{
    struct extra *x = r->user;
    if (--x->rounds > 0) {
        http_suspend(r, resumed);
        give(r);
        return;
    }
    free(x);
    atomic_fetch_add(&cleaned, 1);
    buf_str(&r->out, r->body);
    buf_str(&r->out, r->params[0]);
    atomic_fetch_add(&answered, 1);
    http_reply_out(r, 201, http_json);
}

static void handle(struct http_req *r)
{
    if (r->method == HTTP_GET) {
        http_reply(r, 200, http_json, STR("\"direct\""));
        return;
    }
    struct extra *x = calloc(1, sizeof *x);
    x->rounds = r->n_query ? 2 : 1;
    r->user = x;
    http_suspend(r, resumed);
    give(r);
}

static const struct http_route routes[] = {
    {HTTP_POST, "/work/{id}", 0, NULL},
    {HTTP_GET, "/direct", 0, NULL},
};

static struct metrics *metrics;
static struct http_server *server;
static uint16_t port;

static int start(void **state)
{
    (void)state;
    other.end = false;
    other.delay_ms = 0;
    other.hold = false;
    waiting = answered = cleaned = 0;
    metrics = metrics_new();
    server = serve(routes, 2, handle, metrics, "", 2);
    port = http_server_port(server);
    return pthread_create(&other.thread, NULL, resume_all, NULL);
}

static void end_other(void)
{
    pthread_mutex_lock(&other.lock);
    other.end = true;
    pthread_cond_signal(&other.more);
    pthread_mutex_unlock(&other.lock);
    pthread_join(other.thread, NULL);
}

static int stop(void **state)
{
    (void)state;
    other.hold = false;
    if (server)
        http_server_stop(server, 5000);
    server = NULL;
    end_other();
    metrics_free(metrics);
    return 0;
}

static void put_work(int fd, int id, const char *query)
{
    char text[200];
    snprintf(text, sizeof text,
             "POST /work/%d%s HTTP/1.1\r\n" HOST "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", id,
             query);
    put(fd, text);
}

static void wait_for(atomic_int *what, int n)
{
    for (int i = 0; i < 5000 && atomic_load(what) != n; i++)
        nap_ms(1);
    assert_int_equal(atomic_load(what), n);
}

static void test_answers(void **state)
{
    (void)state;
    struct answer a;
    int fd = dial(port);
    for (int i = 0; i < 5; i++) {
        put_work(fd, i, i % 2 ? "?twice=1" : "");
        get_answer(fd, &a, false);
        assert_int_equal(a.status, 201);
        assert_int_equal(a.body[2] - '0', i);
        answer_free(&a);
    }
    close(fd);
    assert_int_equal(answered, 5);
}

static void test_pipelined(void **state)
{
    (void)state;
    struct answer a;
    int fd = dial(port);
    other.delay_ms = 5;
    for (int i = 0; i < 9; i++)
        put_work(fd, i, "");
    for (int i = 0; i < 9; i++) {
        get_answer(fd, &a, false);
        assert_int_equal(a.status, 201);
        assert_int_equal(a.body[2] - '0', i);
        answer_free(&a);
    }
    close(fd);
}

/* Other clients are served while requests are suspended. */
static void test_others_go_on(void **state)
{
    (void)state;
    struct answer a;
    int slow[8];
    other.hold = true;
    for (int i = 0; i < 8; i++) {
        slow[i] = dial(port);
        put_work(slow[i], i, "");
    }
    wait_for(&waiting, 8);
    ask(port, "GET /direct HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    assert_int_equal(answered, 0);
    other.hold = false;
    for (int i = 0; i < 8; i++) {
        get_answer(slow[i], &a, false);
        assert_int_equal(a.status, 201);
        answer_free(&a);
        close(slow[i]);
    }
}

/* The client leaves while its request is with the other thread: the request stays until it is resumed, `resumed` runs,
 * and the same once more when it suspends again. */
static void test_client_gone(void **state)
{
    (void)state;
    static const char *const queries[] = {"", "?twice=1"};
    for (int how = 0; how < 4; how++) {
        cleaned = answered = 0;
        other.delay_ms = 100;
        other.hold = true;
        for (int i = 0; i < 6; i++) {
            int fd = dial(port);
            put_work(fd, i, queries[how % 2]);
            if (how >= 2) { /* with a reset instead of an orderly end */
                struct linger reset = {.l_onoff = 1};
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            }
            wait_for(&waiting, i + 1);
            close(fd);
        }
        other.hold = false;
        wait_for(&cleaned, 6);
        wait_for(&waiting, 0);
        assert_int_equal(answered, 6);
    }
    struct answer a;
    other.delay_ms = 0;
    ask(port, "GET /direct HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    for (int i = 0; i < 1000 && http_server_connections(server) > 0; i++)
        nap_ms(1);
    assert_int_equal(http_server_connections(server), 0);
    assert_int_equal(metric_gauge_value(metric_gauge(metrics, "payflow_http_in_flight", "", "")), 0);
}

enum { CLIENTS = 32, EACH = 1000 };

static void *client(void *arg)
{
    int me = *(int *)arg, fd = -1;
    intptr_t bad = 0;
    for (int i = 0; i < EACH; i++) {
        struct answer a;
        char want[32];
        if (fd < 0)
            fd = dial(port);
        int id = me * 100000 + i;
        put_work(fd, id, i % 3 ? "" : "?twice=1");
        if (i % 50 == 49) { /* leave without waiting */
            close(fd);
            fd = -1;
            continue;
        }
        get_answer(fd, &a, false);
        snprintf(want, sizeof want, "{}%d", id);
        bad += a.status != 201 || strcmp(a.body, want) != 0;
        answer_free(&a);
    }
    close(fd);
    return (void *)bad;
}

static void test_many(void **state)
{
    (void)state;
    pthread_t t[CLIENTS];
    int id[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        id[i] = i;
        assert_int_equal(pthread_create(&t[i], NULL, client, &id[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    wait_for(&waiting, 0);
    assert_true(answered >= CLIENTS * (EACH - EACH / 50));
    assert_int_equal(answered, cleaned);
}

static void test_drain(void **state)
{
    (void)state;
    struct answer a;
    char text[512];
    int fd = dial(port), idle = dial(port);
    put(fd, "GET /direct HTTP/1.1\r\n" HOST END);
    get_answer(fd, &a, false);
    assert_false(header(&a, "Connection", text));
    answer_free(&a);
    http_server_drain(server);
    http_server_drain(server);
    assert_int_equal(dial(port), -1); /* refused: nobody listens any more */
    put(fd, "GET /direct HTTP/1.1\r\n" HOST END);
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 200);
    assert_true(header(&a, "Connection", text));
    assert_string_equal(text, "close");
    assert_true(at_end(fd));
    answer_free(&a);
    close(fd);
    put_work(idle, 1, "");
    get_answer(idle, &a, false);
    assert_int_equal(a.status, 201);
    answer_free(&a);
    close(idle);
}

static void *stopper(void *arg)
{
    http_server_stop(server, *(unsigned *)arg);
    return NULL;
}

/* Stop waits for what is suspended, even beyond its time; new requests on open connections are turned away. */
static void stop_while_suspended(unsigned wait_ms)
{
    struct answer a;
    pthread_t t;
    int fd[5], idle[4], late = 0, probe;
    for (int i = 0; i < 4; i++) {
        idle[i] = dial(port);
        put(idle[i], "GET /direct HTTP/1.1\r\n" HOST END);
        get_answer(idle[i], &a, false);
        answer_free(&a);
    }
    other.hold = true;
    for (int i = 0; i < 5; i++) {
        fd[i] = dial(port);
        put_work(fd[i], i, "");
    }
    wait_for(&waiting, 5);
    assert_int_equal(pthread_create(&t, NULL, stopper, &wait_ms), 0);
    for (int i = 0; i < 5000 && (probe = dial(port)) >= 0; i++) {
        close(probe);
        nap_ms(1);
    }
    for (;; late++) { /* what comes between drain and stop is the last of its connection, and served */
        put(idle[late], "GET /direct HTTP/1.1\r\n" HOST END);
        get_answer(idle[late], &a, false);
        if (a.status != 200 || late == 3)
            break;
        answer_free(&a);
        nap_ms(10);
    }
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "/problems/draining"));
    answer_free(&a);
    if (wait_ms < 1000)
        nap_ms((int)wait_ms + 300);
    other.hold = false;
    for (int i = 0; wait_ms > 1000 && i < 5; i++) {
        get_answer(fd[i], &a, false);
        assert_int_equal(a.status, 201);
        answer_free(&a);
    }
    pthread_join(t, NULL);
    server = NULL;
    assert_int_equal(cleaned, 5);
    for (int i = 0; i < 5; i++)
        close(fd[i]);
    for (int i = 0; i < 4; i++)
        close(idle[i]);
}

static void test_stop_waits(void **state)
{
    (void)state;
    stop_while_suspended(5000);
}

static void test_stop_runs_late(void **state)
{
    (void)state;
    stop_while_suspended(200);
}

static atomic_bool hammering;

static void *hammer(void *arg)
{
    (void)arg;
    while (hammering) {
        struct answer a;
        int fd = dial(port);
        if (fd < 0)
            break;
        for (int i = 0; i < 3; i++) {
            put_work(fd, i, "");
            get_answer(fd, &a, false);
            answer_free(&a);
            if (a.status == 0)
                break;
        }
        close(fd);
    }
    return NULL;
}

static void test_stop_under_load(void **state)
{
    (void)state;
    pthread_t t[8];
    hammering = true;
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&t[i], NULL, hammer, NULL), 0);
    nap_ms(200);
    http_server_stop(server, 50);
    server = NULL;
    hammering = false;
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(answered, cleaned);
    assert_int_equal(waiting, 0);
    assert_true(answered > 0);
}

/* A thread that waits for its clients must hear of the other thread's resuming, not find it by chance (the pulse of
 * http/watch.c, ten times a second, would be such a chance: 15 s and more here). */
static void test_not_late(void **state)
{
    (void)state;
    enum { ROUNDS = 300 };
    struct answer a;
    int fd = dial(port);
    time_t begin = time(NULL);
    for (int i = 0; i < ROUNDS; i++) {
        put_work(fd, i, "");
        get_answer(fd, &a, false);
        assert_int_equal(a.status, 201);
        answer_free(&a);
    }
    assert_true(time(NULL) - begin < 8);
    close(fd);
}

static void test_connection_limit(void **state)
{
    (void)state;
    char why[256];
    struct http_config c = {.host = "127.0.0.1",
                            .threads = 2,
                            .max_connections = 3,
                            .idle_timeout_s = 1,
                            .routes = routes,
                            .n_routes = 2,
                            .handler = handle,
                            .turn = TURN,
                            .metrics = metrics,
                            .clock = clock_system()};
    struct http_server *s = http_server_start(&c, why);
    assert_non_null(s);
    struct answer a;
    int fd[4];
    for (int i = 0; i < 3; i++) {
        fd[i] = dial(http_server_port(s));
        put(fd[i], "GET /direct HTTP/1.1\r\n" HOST END);
        get_answer(fd[i], &a, false);
        assert_int_equal(a.status, 200);
        answer_free(&a);
    }
    assert_int_equal(http_server_connections(s), 3);
    fd[3] = dial(http_server_port(s));
    assert_true(at_end(fd[3]));
    assert_true(at_end(fd[0])); /* the idle timeout */
    for (int i = 0; i < 4; i++)
        close(fd[i]);
    http_server_stop(s, 1000);
}

static void test_start_failures(void **state)
{
    (void)state;
    char why[256];
    struct http_config c = {.host = "127.0.0.1",
                            .port = port,
                            .threads = 1,
                            .max_connections = 3,
                            .routes = routes,
                            .n_routes = 2,
                            .handler = handle,
                            .turn = TURN,
                            .metrics = metrics,
                            .clock = clock_system()};
    assert_null(http_server_start(&c, why));
    assert_non_null(strstr(why, "in use"));
    c.port = 0;
    c.host = "256.1.1.1";
    assert_null(http_server_start(&c, why));
    assert_non_null(strstr(why, "256.1.1.1"));
    c.host = "127.0.0.1";
    c.threads = 65;
    assert_null(http_server_start(&c, why));
    c.threads = 1;
    c.tls_cert = "x";
    assert_null(http_server_start(&c, why));
    c.tls_cert = NULL;
    static const struct http_route twice[] = {{HTTP_GET, "/a", 0, NULL}, {HTTP_GET, "/a", 0, NULL}};
    c.routes = twice;
    assert_null(http_server_start(&c, why));
    assert_string_equal(why, "route /a occurs twice");
    c.routes = routes;
    c.host = "::1";
    struct http_server *s = http_server_start(&c, why);
    if (!s) /* a machine without IPv6 */
        return;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 to = {
        .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback, .sin6_port = htons(http_server_port(s))};
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    struct answer a;
    put(fd, "GET /direct HTTP/1.1\r\n" HOST END);
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    close(fd);
    http_server_stop(s, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers, start, stop),
        cmocka_unit_test_setup_teardown(test_pipelined, start, stop),
        cmocka_unit_test_setup_teardown(test_others_go_on, start, stop),
        cmocka_unit_test_setup_teardown(test_client_gone, start, stop),
        cmocka_unit_test_setup_teardown(test_many, start, stop),
        cmocka_unit_test_setup_teardown(test_drain, start, stop),
        cmocka_unit_test_setup_teardown(test_stop_waits, start, stop),
        cmocka_unit_test_setup_teardown(test_stop_runs_late, start, stop),
        cmocka_unit_test_setup_teardown(test_stop_under_load, start, stop),
        cmocka_unit_test_setup_teardown(test_not_late, start, stop),
        cmocka_unit_test_setup_teardown(test_connection_limit, start, stop),
        cmocka_unit_test_setup_teardown(test_start_failures, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
