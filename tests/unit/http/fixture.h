/* A server on a free port of the loopback interface, and a client that sees every byte. */
#ifndef TEST_HTTP_FIXTURE_H
#define TEST_HTTP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "codec/json_in.h"
#include "http/turn.h"

struct answer {
    int status; /* 0: the connection ended instead */
    char head[16384];
    char *body; /* malloc, NUL-terminated */
    size_t n;
};

#ifdef TURNS /* the same tests once more, with I/O threads that take turns */
static inline void take_turn(void *ctx, struct http_io *io)
{
    (void)ctx;
    struct pollfd clients = {.fd = http_io_fd(io), .events = POLLIN};
    int ms = http_io_wait_ms(io);
    poll(&clients, 1, ms < 0 || ms > 500 ? 500 : ms);
    http_io_run(io);
}
#define TURN take_turn
#else
#define TURN NULL
#endif

static inline struct http_server *serve(const struct http_route *routes, size_t n, void (*handler)(struct http_req *r),
                                        struct metrics *m, const char *origins, unsigned threads)
{
    char why[256];
    struct http_config c = {.host = "127.0.0.1",
                            .threads = threads,
                            .max_connections = 200,
                            .idle_timeout_s = 20,
                            .allowed_origins = origins,
                            .routes = routes,
                            .n_routes = n,
                            .handler = handler,
                            .turn = TURN,
                            .ctx = m,
                            .metrics = m,
                            .clock = clock_system()};
    struct http_server *s = http_server_start(&c, why);
    if (!s)
        fail_msg("%s", why);
    return s;
}

static inline int dial(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 10};
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

static inline void put_bytes(int fd, const void *p, size_t n)
{
    for (const char *at = p; n > 0;) {
        ssize_t did = send(fd, at, n, MSG_NOSIGNAL);
        if (did <= 0)
            return; /* the server has closed; the answer tells */
        at += did;
        n -= (size_t)did;
    }
}

static inline void put(int fd, const char *text)
{
    put_bytes(fd, text, strlen(text));
}

/* The value of a header in out, false if it is absent. */
static inline bool header(const struct answer *a, const char *name, char out[512])
{
    size_t n = strlen(name);
    for (const char *line = strstr(a->head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, n) == 0 && line[2 + n] == ':') {
            const char *value = line + 2 + n + 2, *end = strstr(value, "\r\n");
            snprintf(out, 512, "%.*s", (int)(end - value), value);
            return true;
        }
    }
    out[0] = '\0';
    return false;
}

/* Reads one answer. no_body: to a HEAD request. */
static inline void get_answer(int fd, struct answer *a, bool no_body)
{
    size_t n = 0;
    char text[512];
    *a = (struct answer){0};
    while (n + 1 < sizeof a->head && recv(fd, a->head + n, 1, 0) == 1) {
        n++;
        if (n >= 4 && memcmp(a->head + n - 4, "\r\n\r\n", 4) == 0)
            break;
    }
    if (n < 13)
        return;
    a->status = (int)strtol(a->head + 9, NULL, 10);
    if (a->status == 100) {
        return;
    }
    if (header(a, "Content-Length", text) && !no_body)
        a->n = strtoul(text, NULL, 10);
    a->body = calloc(1, a->n + 1);
    for (size_t have = 0; have < a->n;) {
        ssize_t got = recv(fd, a->body + have, a->n - have, 0);
        if (got <= 0) {
            a->status = 0;
            return;
        }
        have += (size_t)got;
    }
}

static inline void answer_free(struct answer *a)
{
    free(a->body);
    a->body = NULL;
}

static inline bool at_end(int fd)
{
    char c;
    ssize_t n = recv(fd, &c, 1, 0);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* One request on a connection of its own. */
static inline void ask_bytes(uint16_t port, const void *p, size_t n, struct answer *a)
{
    int fd = dial(port);
    assert_true(fd >= 0);
    put_bytes(fd, p, n);
    get_answer(fd, a, n > 4 && memcmp(p, "HEAD", 4) == 0);
    close(fd);
}

static inline void ask(uint16_t port, const char *request, struct answer *a)
{
    ask_bytes(port, request, strlen(request), a);
}

static inline void nap_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static inline void expect_header(const struct answer *a, const char *name, const char *value)
{
    char text[512];
    bool there = header(a, name, text);
    if (!value) {
        if (there)
            fail_msg("there is %s: %s", name, text);
        return;
    }
    if (!there)
        fail_msg("there is no %s in\n%s", name, a->head);
    assert_string_equal(text, value);
}

/* The status, and for a problem the slug of its type in well-formed JSON with all members. */
static inline void answers_bytes(uint16_t port, const void *request, size_t n, int status, const char *slug)
{
    struct answer a;
    ask_bytes(port, request, n, &a);
    if (a.status != status)
        fail_msg("%.60s: %d, not %d", (const char *)request, a.status, status);
    if (slug) {
        struct arena arena;
        struct json *j;
        char type[80], text[512];
        expect_header(&a, "Content-Type", "application/problem+json");
        arena_init(&arena, NULL, 0, 1 << 20);
        assert_int_equal(json_parse(&arena, (struct str){a.body, a.n}, &j, NULL), PFE_OK);
        snprintf(type, sizeof type, "/problems/%s", slug);
        if (!str_is(json_get(j, "type")->s, type))
            fail_msg("%.60s: %s", (const char *)request, a.body);
        snprintf(type, sizeof type, "%d", status);
        assert_true(str_is(json_get(j, "status")->s, type));
        assert_true(str_is(json_get(j, "code")->s, type));
        assert_true(str_eq(json_get(j, "error")->s, json_get(j, "title")->s));
        assert_true(json_get(j, "detail")->s.n > 0);
        assert_int_equal(json_get(j, "instance")->s.p[0], '/');
        assert_true(header(&a, "X-Request-Id", text));
        assert_true(str_is(json_get(j, "request_id")->s, text));
        arena_reset(&arena);
    }
    answer_free(&a);
}

static inline void answers(uint16_t port, const char *request, int status, const char *slug)
{
    answers_bytes(port, request, strlen(request), status, slug);
}

#define HOST "Host: x\r\n"
#define END "\r\n"

#endif
