/* What a client sees of each rule, byte by byte. */
#include "fixture.h"

static void echo(struct http_req *r)
{
    buf_str(&r->out, r->body);
    http_reply_out(r, 200, http_json);
}

static void list_query(struct http_req *r)
{
    for (unsigned i = 0; i < r->n_query; i++) {
        buf_putc(&r->out, '[');
        buf_str(&r->out, r->query[i].name);
        buf_putc(&r->out, '|');
        buf_str(&r->out, r->query[i].value);
        buf_putc(&r->out, ']');
    }
    http_reply_out(r, 200, "text/plain");
}

static void show(struct http_req *r)
{
    buf_printf(&r->out, "method=%s path=%.*s param=%.*s peer=%s host=%.*s missing=%d q=%d", http_method_name(r->method),
               (int)r->path.n, r->path.p, (int)r->params[0].n, r->params[0].p ? r->params[0].p : "", r->peer,
               (int)http_header(r, "hOSt").n, http_header(r, "hOSt").p, http_header(r, "X-None").p == NULL,
               http_query(r, "none").p == NULL);
    http_reply_out(r, 200, "text/plain");
}

static void headers(struct http_req *r)
{
    http_set_header(r, "Location", STR("/users/7"));
    http_set_header(r, "Cache-Control", STR("private"));
    http_set_header(r, "X-Evil", STR("a\r\nSet-Cookie: b"));
    http_reply(r, 201, http_json, STR("{}"));
}

static void nothing(struct http_req *r)
{
    http_reply(r, 204, http_json, STR("ignored"));
}

struct row {
    void (*fn)(struct http_req *r);
};
#define ROW(f)                                                                                                         \
    &(const struct row)                                                                                                \
    {                                                                                                                  \
        f                                                                                                              \
    }

static const struct http_route routes[] = {
    {HTTP_GET, "/show", 0, ROW(show)},
    {HTTP_GET, "/items/{id}", 0, ROW(show)},
    {HTTP_PUT, "/items/{id}", 0, ROW(show)},
    {HTTP_DELETE, "/items/{id}", 0, ROW(show)},
    {HTTP_POST, "/echo", 1000, ROW(echo)},
    {HTTP_POST, "/default", 0, ROW(echo)},
    {HTTP_POST, "/batch", HTTP_BODY_BATCH, ROW(echo)},
    {HTTP_GET, "/query", 0, ROW(list_query)},
    {HTTP_GET, "/headers", 0, ROW(headers)},
    {HTTP_GET, "/nothing", 0, ROW(nothing)},
};

static void handle(struct http_req *r)
{
    ((const struct row *)r->route->data)->fn(r);
}

static struct metrics *metrics;
static struct http_server *server;
static uint16_t port;

static int start(void **state)
{
    (void)state;
    metrics = metrics_new();
    server =
        serve(routes, sizeof routes / sizeof routes[0], handle, metrics, "https://a.example, https://b.example", 2);
    port = http_server_port(server);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_server_stop(server, 1000);
    metrics_free(metrics);
    return 0;
}

#define expect(request, status, slug) answers(port, request, status, slug)
#define expect_bytes(request, n, status, slug) answers_bytes(port, request, n, status, slug)

static void expect_body(const char *request, int status, const char *body)
{
    struct answer a;
    ask(port, request, &a);
    assert_int_equal(a.status, status);
    assert_string_equal(a.body, body);
    answer_free(&a);
}

static void test_request_fields(void **state)
{
    (void)state;
    expect_body("GET /show HTTP/1.1\r\n" HOST END, 200,
                "method=GET path=/show param= peer=127.0.0.1 host=x missing=1 q=1");
    expect_body("DELETE /items/a%2Fb?x=1 HTTP/1.1\r\n" HOST END, 200,
                "method=DELETE path=/items/a%2Fb param=a/b peer=127.0.0.1 host=x missing=1 q=1");
    expect_body("GET http://some.host/items/1?q HTTP/1.1\r\n" HOST END, 200,
                "method=GET path=/items/1 param=1 peer=127.0.0.1 host=x missing=1 q=1");
    expect_body("GET /show HTTP/1.0\r\nhost:  y  \r\n\r\n", 200,
                "method=GET path=/show param= peer=127.0.0.1 host=y missing=1 q=1");
}

static void test_common_headers(void **state)
{
    (void)state;
    struct answer a;
    char id[512];
    ask(port, "GET /show HTTP/1.1\r\n" HOST END, &a);
    expect_header(&a, "X-Content-Type-Options", "nosniff");
    expect_header(&a, "X-Frame-Options", "DENY");
    expect_header(&a, "Referrer-Policy", "no-referrer");
    expect_header(&a, "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
    expect_header(&a, "Cache-Control", "no-store");
    expect_header(&a, "Strict-Transport-Security", NULL);
    expect_header(&a, "Connection", NULL);
    expect_header(&a, "traceparent", NULL);
    assert_true(header(&a, "Date", id));
    assert_true(header(&a, "X-Request-Id", id));
    assert_int_equal(strlen(id), 32);
    answer_free(&a);
    ask(port, "GET /headers HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 201);
    expect_header(&a, "Location", "/users/7");
    expect_header(&a, "Cache-Control", "private");
    expect_header(&a, "X-Frame-Options", "DENY");
    expect_header(&a, "X-Evil", NULL);
    expect_header(&a, "Set-Cookie", NULL);
    answer_free(&a);
}

static void expect_id(const char *sent, bool taken)
{
    struct answer a;
    char request[400], got[512];
    snprintf(request, sizeof request, "GET /show HTTP/1.1\r\n" HOST "X-Request-Id: %s\r\n\r\n", sent);
    ask(port, request, &a);
    assert_true(header(&a, "X-Request-Id", got));
    assert_int_equal(strcmp(got, sent) == 0, taken);
    answer_free(&a);
}

static void test_request_id(void **state)
{
    (void)state;
    char longest[66];
    memset(longest, 'a', 65);
    longest[65] = '\0';
    expect_id("abc-DEF_0.9", true);
    expect_id(longest + 1, true);
    expect_id(longest, false);
    expect_id("a b", false);
    expect_id("a/b", false);
    expect_id("<script>", false);
    expect_id("\xc3\xa9", false);
    expect("GET /none HTTP/1.1\r\n" HOST "X-Request-Id: mine\r\n\r\n", 404, "not-found");
}

static void test_traceparent(void **state)
{
    (void)state;
#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define PARENT "b7ad6b7169203331"
    static const struct {
        const char *sent, *flags;
    } cases[] = {
        {"00-" TRACE "-" PARENT "-01", "01"},
        {"00-" TRACE "-" PARENT "-00", "00"},
        {"00-" TRACE "-" PARENT "-ff", "01"},
        {"cc-" TRACE "-" PARENT "-01-what-comes", "01"},
        {"cc-" TRACE "-" PARENT "-01", "01"},
        {"00-" TRACE "-" PARENT "-01-more", NULL},
        {"cc-" TRACE "-" PARENT "-01x", NULL},
        {"ff-" TRACE "-" PARENT "-01", NULL},
        {"00-0AF7651916CD43DD8448EB211C80319C-" PARENT "-01", NULL},
        {"00-00000000000000000000000000000000-" PARENT "-01", NULL},
        {"00-" TRACE "-0000000000000000-01", NULL},
        {"00-" TRACE "-" PARENT "-1", NULL},
        {"00-" TRACE "-" PARENT, NULL},
        {"garbage", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct answer a;
        char request[300], got[512];
        snprintf(request, sizeof request, "GET /show HTTP/1.1\r\n" HOST "traceparent: %s\r\n\r\n", cases[i].sent);
        ask(port, request, &a);
        assert_int_equal(a.status, 200);
        assert_int_equal(header(&a, "traceparent", got), cases[i].flags != NULL);
        if (cases[i].flags) {
            assert_int_equal(strlen(got), 55);
            assert_memory_equal(got, "00-" TRACE "-", 36);
            assert_memory_not_equal(got + 36, PARENT, 16);
            assert_string_equal(got + 53, cases[i].flags);
        }
        answer_free(&a);
    }
}

static void test_routing(void **state)
{
    (void)state;
    struct answer a;
    expect("GET /none HTTP/1.1\r\n" HOST END, 404, "not-found");
    expect("GET /show/ HTTP/1.1\r\n" HOST END, 404, "not-found");
    expect("POST /none HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc", 404, "not-found");
    static const char *const methods[] = {"POST", "TRACE", "CONNECT", "PROPFIND", "get", "PATCH"};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        char request[100];
        snprintf(request, sizeof request, "%s /items/1 HTTP/1.1\r\n" HOST END, methods[i]);
        expect(request, 405, "method-not-allowed");
        ask(port, request, &a);
        expect_header(&a, "Allow", "GET, HEAD, PUT, DELETE, OPTIONS");
        answer_free(&a);
    }
    ask(port, "OPTIONS /echo HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 204);
    expect_header(&a, "Allow", "POST, OPTIONS");
    expect_header(&a, "Content-Type", NULL);
    answer_free(&a);
    ask(port, "OPTIONS * HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 204);
    answer_free(&a);
    expect("OPTIONS /none HTTP/1.1\r\n" HOST END, 404, "not-found");
    ask(port, "HEAD /show HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 200);
    expect_header(&a, "Content-Length", "64");
    answer_free(&a);
    expect("HEAD /echo HTTP/1.1\r\n" HOST END, 405, NULL);
    ask(port, "GET /nothing HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 204);
    expect_header(&a, "Content-Type", NULL);
    expect_header(&a, "Content-Length", NULL);
    answer_free(&a);
}

static void test_query(void **state)
{
    (void)state;
    char many[1024] = "GET /query?a0=1", request[1200];
    expect_body("GET /query?b=2&a=1+2%2B%26&c&&d=x=y HTTP/1.1\r\n" HOST END, 200, "[b|2][a|1 2+&][c|][d|x=y]");
    expect_body("GET /query? HTTP/1.1\r\n" HOST END, 200, "");
    expect_body("GET /query HTTP/1.1\r\n" HOST END, 200, "");
    expect_body("GET /query?n=%C3%A9 HTTP/1.1\r\n" HOST END, 200, "[n|\xc3\xa9]");
    expect("GET /query?a=1&a=2 HTTP/1.1\r\n" HOST END, 400, "malformed-query");
    expect("GET /query?a=1&%61=2 HTTP/1.1\r\n" HOST END, 400, "malformed-query");
    expect("GET /query?a=%zz HTTP/1.1\r\n" HOST END, 400, "malformed-query");
    expect("GET /query?a=%4 HTTP/1.1\r\n" HOST END, 400, "malformed-query");
    expect("GET /query?a=%00 HTTP/1.1\r\n" HOST END, 400, "malformed-query");
    expect("GET /query?a=%ff HTTP/1.1\r\n" HOST END, 400, "malformed-query");
    expect("GET /query?=1 HTTP/1.1\r\n" HOST END, 400, "malformed-query");
    expect("GET /none?a=%zz HTTP/1.1\r\n" HOST END, 404, "not-found");
    for (int i = 1; i < HTTP_QUERY_MAX; i++)
        sprintf(many + strlen(many), "&a%d=%d", i, i);
    snprintf(request, sizeof request, "%s HTTP/1.1\r\n" HOST END, many);
    expect(request, 200, NULL);
    snprintf(request, sizeof request, "%s&z=1 HTTP/1.1\r\n" HOST END, many);
    expect(request, 400, "malformed-query");
    /* as many as the line may hold: our answer, not that of a library that has run out of memory */
    char *flood = calloc(1, 16384);
    strcpy(flood, "GET /query?");
    for (size_t n = strlen(flood); n < 15000; n += 2)
        memcpy(flood + n, "a&", 2);
    strcat(flood, " HTTP/1.1\r\n" HOST END);
    expect(flood, 400, "malformed-query");
    free(flood);
}

static void test_malformed_target(void **state)
{
    (void)state;
    expect("GET /items/%zz HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    expect("GET /items/%ff HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    expect("GET /items/%00 HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    expect("GET /items/\xff HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    expect("GET /items/a\tb HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    expect("GET /items/a b HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    expect("GET /show#there HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    expect("GET show HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    expect("GET * HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    expect("GET http:///show HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    expect("GET ?a=1 HTTP/1.1\r\n" HOST END, 400, "malformed-request");
    static const char nul[] = "GET /show\0/x HTTP/1.1\r\n" HOST END,
                      nul_query[] = "GET /query?a\0b=1 HTTP/1.1\r\n" HOST END;
    expect_bytes(nul, sizeof nul - 1, 400, "malformed-request");
    expect_bytes(nul_query, sizeof nul_query - 1, 400, "malformed-request");
}

static void test_malformed_headers(void **state)
{
    (void)state;
    expect("GET /show HTTP/1.1\r\n\r\n", 400, "malformed-request");
    expect("GET /show HTTP/1.1\r\n" HOST HOST END, 400, "malformed-request");
    expect("GET /show HTTP/1.0\r\n\r\n", 200, NULL);
    expect("GET /show HTTP/1.1\r\n" HOST "X-A: \xff\r\n\r\n", 400, "malformed-header");
    expect("GET /show HTTP/1.1\r\n" HOST "X-A: a\x01z\r\n\r\n", 400, "malformed-header");
    expect("GET /show HTTP/1.1\r\n" HOST "X-A: a\x7fz\r\n\r\n", 400, "malformed-header");
    expect("GET /show HTTP/1.1\r\n" HOST "X-A: a\rb\r\n\r\n", 400, "malformed-header");
    expect("GET /show HTTP/1.1\r\n" HOST "X-A: a\tb \xc3\xa9\r\nX-B:\r\n\r\n", 200, NULL);
    expect("GET /show HTTP/1.1\r\n" HOST "X-A : a\r\n\r\n", 400, "malformed-header");
    expect("GET /show HTTP/1.1\r\n" HOST "X(A): a\r\n\r\n", 400, "malformed-header");
    expect("GET /show HTTP/1.1\r\n" HOST ": a\r\n\r\n", 400, "malformed-header");
    expect("GET /show HTTP/1.1\r\n" HOST "X-A: a\r\n folded\r\n\r\n", 400, "malformed-header");
    expect("GET /show HTTP/1.1\r\nX-A: a\r\n\tfolded\r\n" HOST END, 400, "malformed-header");
    expect("GET /show HTTP/1.1\nHost: x\n\n", 400, "malformed-header");
    static const char nul[] = "GET /show HTTP/1.1\r\n" HOST "X-A: a\0b\r\nX-B: c\r\n\r\n",
                      nul_last[] = "GET /show HTTP/1.1\r\n" HOST "X-A: a\0\0\r\n\r\n",
                      nul_name[] = "GET /show HTTP/1.1\r\n" HOST "X-\0A: a\r\n\r\n";
    expect_bytes(nul, sizeof nul - 1, 400, "malformed-header");
    expect_bytes(nul_last, sizeof nul_last - 1, 400, "malformed-header");
    struct answer a;
    ask_bytes(port, nul_name, sizeof nul_name - 1, &a); /* libmicrohttpd's own 400 */
    assert_int_equal(a.status, 400);
    answer_free(&a);
}

static void test_framing(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char request[300];
        struct answer a;
        snprintf(request, sizeof request, "POST /echo HTTP/1.1\r\n" HOST "Content-Type: application/json\r\n%s",
                 bad[i]);
        expect(request, 400, "malformed-request");
        int fd = dial(port);
        put(fd, request);
        get_answer(fd, &a, false);
        expect_header(&a, "Connection", "close");
        assert_true(at_end(fd)); /* what follows is never read as a request */
        answer_free(&a);
        close(fd);
    }
    struct answer a;
    ask(port, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: x\r\n\r\n", &a); /* libmicrohttpd's own */
    assert_int_equal(a.status, 400);
    answer_free(&a);
}

static void test_header_limits(void **state)
{
    (void)state;
    static char request[60000];
    strcpy(request, "GET /show HTTP/1.1\r\n" HOST);
    for (int i = 1; i < HTTP_HEADERS_MAX; i++)
        sprintf(request + strlen(request), "X-%d: %d\r\n", i, i);
    size_t n = strlen(request);
    strcpy(request + n, END);
    expect(request, 200, NULL);
    strcpy(request + n, "X-Last: 1\r\n" END);
    expect(request, 431, "headers-too-large");

    static const int sizes[] = {16384, 16385, 20000, 46000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t total = (size_t)sizes[i];
        strcpy(request, "GET /show HTTP/1.1\r\n" HOST "X-Long: ");
        n = strlen(request);
        memset(request + n, 'v', total - n - 4);
        strcpy(request + total - 4, "\r\n\r\n");
        assert_int_equal(strlen(request), total);
        if (total <= HTTP_HEADER_BYTES_MAX)
            expect(request, 200, NULL);
        else
            expect(request, 431, "headers-too-large");
    }
    strcpy(request, "GET /");
    memset(request + 5, 'p', 17000);
    strcpy(request + 17005, " HTTP/1.1\r\n" HOST END);
    expect(request, 431, "headers-too-large");
}

static void test_body(void **state)
{
    (void)state;
#define JSON "Content-Type: application/json\r\n"
    expect_body("POST /echo HTTP/1.1\r\n" HOST JSON "Content-Length: 7\r\n\r\n{\"a\":1}", 200, "{\"a\":1}");
    expect_body("POST /echo HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n"
                "3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\nTrailer: t\r\n\r\n",
                200, "{\"a\":1}");
    expect_body("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", 200, "");
    expect_body("POST /echo HTTP/1.1\r\n" HOST END, 200, "");
    expect_body("POST /echo HTTP/1.1\r\n" HOST "Content-Type: text/plain\r\n"
                "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                200, "");
    static const struct {
        const char *type;
        bool json;
    } types[] = {
        {"Content-Type: application/JSON; charset=utf-8\r\n", true},
        {"Content-Type: application/merge-patch+json\r\n", true},
        {"Content-Type: application/json ;q\r\nContent-Encoding: identity\r\n", true},
        {"", false},
        {"Content-Type:\r\n", false},
        {"Content-Type: text/plain\r\n", false},
        {"Content-Type: application/jsonx\r\n", false},
        {"Content-Type: +json\r\n", false},
        {"Content-Type: application/x-www-form-urlencoded\r\n", false},
        {JSON JSON, false},
        {JSON "Content-Encoding: gzip\r\n", false},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char request[300];
        for (int chunked = 0; chunked < 2; chunked++) {
            snprintf(request, sizeof request, "POST /echo HTTP/1.1\r\n" HOST "%s%s", types[i].type,
                     chunked ? "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
                             : "Content-Length: 2\r\n\r\n{}");
            if (types[i].json)
                expect_body(request, 200, "{}");
            else
                expect(request, 415, "unsupported-media-type");
        }
    }
}

/* A POST of n bytes; how: 0 Content-Length, 1 chunked. *ret_closed: the server ended the connection. */
static void post(const char *path, size_t n, bool chunked, struct answer *a, bool *ret_closed)
{
    char head[300];
    char *body = malloc(n + 1);
    memset(body, '1', n);
    int fd = dial(port);
    assert_true(fd >= 0);
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\n" HOST JSON "%s: ", path,
             chunked ? "Transfer-Encoding" : "Content-Length");
    put(fd, head);
    snprintf(head, sizeof head, chunked ? "chunked\r\n\r\n%zx\r\n" : "%zu\r\n\r\n", n);
    put(fd, head);
    put_bytes(fd, body, n);
    if (chunked)
        put(fd, "\r\n0\r\n\r\n");
    get_answer(fd, a, false);
    if (ret_closed)
        *ret_closed = at_end(fd);
    close(fd);
    free(body);
}

static void test_body_limits(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t n;
        int status;
    } cases[] = {
        {"/echo", 1000, 200},
        {"/echo", 1001, 413},
        {"/echo", 500000, 413},
        {"/default", HTTP_BODY_DEFAULT, 200},
        {"/default", HTTP_BODY_DEFAULT + 1, 413},
        {"/batch", 3 << 20, 200},
        {"/batch", HTTP_BODY_BATCH, 200},
        {"/none", HTTP_BODY_DEFAULT + 1, 413},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int chunked = 0; chunked < 2; chunked++) {
            struct answer a;
            bool closed = false;
            post(cases[i].path, cases[i].n, chunked, &a, cases[i].status == 413 ? &closed : NULL);
            if (a.status != cases[i].status)
                fail_msg("%s %zu %d: %d", cases[i].path, cases[i].n, chunked, a.status);
            if (a.status == 413) {
                expect_header(&a, "Connection", "close");
                expect_header(&a, "Content-Type", "application/problem+json");
                expect_header(&a, "X-Frame-Options", "DENY");
                assert_non_null(strstr(a.body, "\"type\":\"/problems/body-too-large\""));
                assert_true(closed);
            } else {
                assert_int_equal(a.n, cases[i].n);
            }
            answer_free(&a);
        }
    }
}

/* The answer comes while the client is still sending, and an endless body is cut off. */
static void test_body_without_end(void **state)
{
    (void)state;
    struct answer a;
    char chunk[4096];
    int fd = dial(port);
    put(fd, "POST /echo HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n3e9\r\n");
    memset(chunk, '1', sizeof chunk);
    put_bytes(fd, chunk, 1001);
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 413);
    answer_free(&a);
    put(fd, "\r\n");
    size_t sent = 0;
    for (bool open = true; open && sent < 64u << 20; sent += 4096)
        open = send(fd, "1000\r\n", 6, MSG_NOSIGNAL) == 6 && send(fd, chunk, 4096, MSG_NOSIGNAL) == 4096 &&
               send(fd, "\r\n", 2, MSG_NOSIGNAL) == 2;
    assert_true(sent < 64u << 20);
    close(fd);
    fd = dial(port);
    put(fd, "POST /echo HTTP/1.1\r\n" HOST JSON "Content-Length: 99999999999\r\n\r\n");
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 413);
    assert_true(at_end(fd));
    answer_free(&a);
    close(fd);
}

static void test_expect(void **state)
{
    (void)state;
    struct answer a;
#define EXPECT "Expect: 100-continue\r\n"
    int fd = dial(port);
    put(fd, "POST /echo HTTP/1.1\r\n" HOST JSON EXPECT "Content-Length: 2\r\n\r\n");
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 100);
    put(fd, "{}");
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "{}");
    answer_free(&a);
    close(fd);
    static const struct {
        const char *head;
        int status;
    } refused[] = {
        {"POST /echo HTTP/1.1\r\n" HOST JSON EXPECT "Content-Length: 1001\r\n\r\n", 413},
        {"POST /none HTTP/1.1\r\n" HOST JSON EXPECT "Content-Length: 2\r\n\r\n", 404},
        {"POST /echo HTTP/1.1\r\n" HOST EXPECT "Content-Length: 2\r\n\r\n", 415},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        expect(refused[i].head, refused[i].status,
               refused[i].status == 413   ? "body-too-large"
               : refused[i].status == 404 ? "not-found"
                                          : "unsupported-media-type");
}

static void test_keep_alive(void **state)
{
    (void)state;
    struct answer a;
    int fd = dial(port);
    for (int i = 0; i < 3; i++) {
        put(fd, "GET /show HTTP/1.1\r\n" HOST END);
        get_answer(fd, &a, false);
        assert_int_equal(a.status, 200);
        answer_free(&a);
        put(fd,
            "POST /none HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nabcde"); /* read off, not taken for a request */
        get_answer(fd, &a, false);
        assert_int_equal(a.status, 404);
        answer_free(&a);
        put(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nabcde");
        get_answer(fd, &a, false);
        assert_int_equal(a.status, 415);
        answer_free(&a);
    }
    put(fd, "GET /show HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    assert_true(at_end(fd));
    close(fd);
}

static void test_pipelining(void **state)
{
    (void)state;
    struct answer a;
    char text[8192] = "", want[80];
    int fd = dial(port);
    for (int i = 0; i < 40; i++)
        sprintf(text + strlen(text), "POST /echo HTTP/1.1\r\n" HOST JSON "Content-Length: 2\r\n\r\n%02d", i);
    put(fd, text);
    for (int i = 0; i < 40; i++) {
        get_answer(fd, &a, false);
        assert_int_equal(a.status, 200);
        snprintf(want, sizeof want, "%02d", i);
        assert_string_equal(a.body, want);
        answer_free(&a);
    }
    close(fd);
}

static void test_slow_client(void **state)
{
    (void)state;
    static const char text[] = "POST /echo?q=1 HTTP/1.1\r\n" HOST JSON "Content-Length: 7\r\n\r\n{\"a\":1}";
    struct answer a;
    int fd = dial(port);
    for (const char *p = text; *p; p++) {
        put_bytes(fd, p, 1);
        nap_ms(1);
    }
    get_answer(fd, &a, false);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "{\"a\":1}");
    answer_free(&a);
    close(fd);
    fd = dial(port); /* gone in the middle of the body: nothing is left behind (ASan tells) */
    put_bytes(fd, text, sizeof text - 4);
    nap_ms(20);
    close(fd);
    fd = dial(port);
    put_bytes(fd, text, 20);
    close(fd);
}

static void test_metrics(void **state)
{
    (void)state;
    uint64_t before = http_server_requests(server);
    expect("GET /items/77 HTTP/1.1\r\n" HOST END, 200, NULL);
    expect("GET /none HTTP/1.1\r\n" HOST END, 404, NULL);
    assert_int_equal(http_server_requests(server), before + 2);
    struct buf b = {0};
    metrics_render(metrics, &b);
    buf_putc(&b, '\0');
    assert_non_null(strstr(b.p, "payflow_http_request_duration_seconds_count{method=\"GET\",route=\"/items/{id}\","
                                "status=\"200\"} "));
    assert_non_null(strstr(b.p, "_count{method=\"GET\",route=\"none\",status=\"404\"} "));
    assert_null(strstr(b.p, "/items/77"));
    assert_non_null(strstr(b.p, "\npayflow_http_in_flight "));
    assert_non_null(strstr(b.p, "\npayflow_http_connections "));
    buf_free(&b);
}

static void test_garbage(void **state)
{
    (void)state;
    static const char *const garbage[] = {"\r\n\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00",
                                          "GET / HTTP/9.9\r\n\r\n", " / HTTP/1.1\r\n\r\n"};
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        int fd = dial(port);
        put(fd, garbage[i]);
        close(fd);
    }
    expect("GET /show HTTP/1.1\r\n" HOST END, 200, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_fields),
        cmocka_unit_test(test_common_headers),
        cmocka_unit_test(test_request_id),
        cmocka_unit_test(test_traceparent),
        cmocka_unit_test(test_routing),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_malformed_target),
        cmocka_unit_test(test_malformed_headers),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_header_limits),
        cmocka_unit_test(test_body),
        cmocka_unit_test(test_body_limits),
        cmocka_unit_test(test_body_without_end),
        cmocka_unit_test(test_expect),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_pipelining),
        cmocka_unit_test(test_slow_client),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_garbage),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
