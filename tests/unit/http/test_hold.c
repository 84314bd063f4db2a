/* What clients can make a server hold: bodies that do not end, bodies without a credential, answers nobody takes. */
#include "fixture.h"

#include <stdatomic.h>

enum { BODIES = 256 << 10, LARGE = 48 << 10 };
#define HEAD "Host: x\r\nContent-Type: application/json\r\n"

static atomic_uint handled;

static void count(struct http_req *r)
{
    atomic_fetch_add(&handled, 1);
    buf_printf(&r->out, "%zu", r->body.n);
    http_reply_out(r, 200, http_json);
}

static void large(struct http_req *r)
{
    for (int i = 0; i < LARGE; i++)
        buf_putc(&r->out, 'x');
    http_reply_out(r, 200, "text/plain");
}

static const struct http_route routes[] = {{HTTP_POST, "/batch", HTTP_BODY_BATCH, count, false},
                                           {HTTP_POST, "/secret", HTTP_BODY_BATCH, NULL, false},
                                           {HTTP_GET, "/large", 0, large, false}};

static void handle(struct http_req *r)
{
    if (r->route->data)
        ((void (*)(struct http_req *))r->route->data)(r);
    else
        count(r);
}

static enum pf_err early(const struct http_req *r, const char **ret_detail)
{
    if (r->route->data || http_header(r, "X-API-Key").p)
        return PFE_OK;
    *ret_detail = "no credential";
    return PFE_UNAUTHENTICATED;
}

static struct metrics *metrics;
static struct http_server *server;
static uint16_t port;

static int start_with(unsigned idle_s)
{
    char why[256];
    struct http_config c = {.host = "127.0.0.1",
                            .threads = 1,
                            .max_connections = 50,
                            .idle_timeout_s = idle_s,
                            .bodies_max = BODIES,
                            .allowed_origins = "",
                            .routes = routes,
                            .n_routes = sizeof routes / sizeof routes[0],
                            .handler = handle,
                            .turn = TURN,
                            .early = early,
                            .metrics = metrics = metrics_new(),
                            .clock = clock_system()};
    server = http_server_start(&c, why);
    if (!server)
        fail_msg("%s", why);
    port = http_server_port(server);
    return 0;
}

static int start_patient(void **state)
{
    (void)state;
    return start_with(60);
}

static int start_short(void **state)
{
    (void)state;
    return start_with(4);
}

static int stop(void **state)
{
    (void)state;
    http_server_stop(server, 1000);
    metrics_free(metrics);
    return 0;
}

/* Announces so much, sends so much of it. */
static int begin(const char *path, size_t length, size_t n, const char *more)
{
    char head[256], *body = malloc(n + 1);
    int fd = dial(port);
    assert_true(fd >= 0);
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\n" HEAD "%sContent-Length: %zu\r\n\r\n", path, more, length);
    memset(body, '1', n);
    put(fd, head);
    put_bytes(fd, body, n);
    free(body);
    return fd;
}

static int whole(size_t n, const char *more)
{
    struct answer a;
    char text[512];
    int fd = begin("/batch", n, n, more);
    get_answer(fd, &a, false);
    if (a.status == 503) {
        assert_true(header(&a, "Retry-After", text));
        assert_non_null(strstr(a.body, "/problems/busy"));
    }
    answer_free(&a);
    close(fd);
    return a.status;
}

static void wait_for(size_t n, int status)
{
    int got = 0;
    for (int i = 0; i < 500 && (got = whole(n, "")) != status; i++)
        nap_ms(20);
    assert_int_equal(got, status);
}

/* Two that never end take the room of the long ones, and it is there again when they are gone. */
static void long_bodies_have_a_bound_together(void **state)
{
    (void)state;
    int a = -1, b = -1, status = 200;
    assert_int_equal(whole(200 << 10, ""), 200);
    /* again when it was quicker than one of them, which was then refused in its place */
    for (int i = 0; status == 200 && i < 50; i++) {
        close(a);
        close(b);
        a = begin("/batch", 1 << 20, 200 << 10, "");
        b = begin("/batch", 1 << 20, 150 << 10, "");
        nap_ms(10 * i);
        status = whole(200 << 10, "");
    }
    assert_int_equal(status, 503);
    assert_int_equal(whole(1000, ""), 200); /* a short one is not crowded out */
    assert_int_equal(whole(60 << 10, ""), 200);
    close(a);
    close(b);
    wait_for(200 << 10, 200);
}

/* Announcing costs nothing, so it must take nothing from others. */
static void an_announced_length_takes_no_room(void **state)
{
    (void)state;
    int held[20];
    for (unsigned i = 0; i < 20; i++)
        held[i] = begin("/batch", HTTP_BODY_BATCH, 10, "");
    nap_ms(50);
    assert_int_equal(whole(200 << 10, ""), 200);
    for (unsigned i = 0; i < 20; i++)
        close(held[i]);
}

static void a_body_without_a_credential_is_not_kept(void **state)
{
    (void)state;
    struct answer a;
    unsigned before = atomic_load(&handled);
    /* longer than there is room for, and yet it is the credential that it is refused for */
    int fd = begin("/secret", 2 * BODIES, 2 * BODIES, "");
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 401);
    assert_non_null(strstr(a.body, "no credential"));
    answer_free(&a);
    close(fd);
    fd = begin("/secret", 1000, 0, "Expect: 100-continue\r\n"); /* nor asked for */
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 401);
    answer_free(&a);
    close(fd);
    assert_int_equal(atomic_load(&handled), before);
    fd = begin("/secret", 1000, 1000, "X-API-Key: k\r\n");
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    close(fd);
}

/* The socket that listens hands its buffer size on to those that it accepts. */
static void small_send_buffers(void)
{
    for (int fd = 3; fd < 100; fd++) {
        struct sockaddr_in at = {0};
        socklen_t n = sizeof at, m = sizeof(int);
        int listens = 0, bytes = 4096;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &m) == 0 && listens &&
            getsockname(fd, (struct sockaddr *)&at, &n) == 0 && ntohs(at.sin_port) == port)
            setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
}

/* 2 KiB a second: never quiet for as long as idle_timeout_s, and yet below the least rate. */
static void an_answer_that_is_not_taken_is_cut(void **state)
{
    (void)state;
    small_send_buffers();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), bytes = 2048;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    put(fd, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    size_t got = 0;
    for (int i = 0; i < 600; i++) {
        char text[1024];
        ssize_t n = recv(fd, text, sizeof text, 0);
        if (n <= 0)
            break;
        got += (size_t)n;
        nap_ms(500);
    }
    if (got >= LARGE)
        fail_msg("the whole answer was taken, %zu bytes", got);
    close(fd);
    struct answer whole_one;
    fd = dial(port);
    put(fd, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    get_answer(fd, &whole_one, false);
    assert_int_equal(whole_one.n, LARGE);
    answer_free(&whole_one);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(long_bodies_have_a_bound_together, start_patient, stop),
        cmocka_unit_test_setup_teardown(an_announced_length_takes_no_room, start_patient, stop),
        cmocka_unit_test_setup_teardown(a_body_without_a_credential_is_not_kept, start_patient, stop),
        cmocka_unit_test_setup_teardown(an_answer_that_is_not_taken_is_cut, start_short, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
