/* What answers are made of: problems, CORS, compression, embedded files. */
#include "fixture.h"

#include <zlib.h>

enum { PAGE_BYTES = 3000 };
static char page[PAGE_BYTES], page_gz[PAGE_BYTES];
static size_t page_gz_n;

static void large(struct http_req *r)
{
    buf_putc(&r->out, '"');
    for (int i = 0; i < 5000; i++)
        buf_putc(&r->out, (char)('a' + i % 7));
    buf_putc(&r->out, '"');
    http_reply_out(r, 200, http_json);
}

static void html(struct http_req *r)
{
    http_set_header(r, "content-security-policy", STR("default-src 'self'"));
    http_reply_static(r, 200, "text/html; charset=utf-8", "gzip", "\"v1\"", (struct str){page_gz, page_gz_n});
}

static void plain(struct http_req *r)
{
    http_reply_static(r, 200, "text/plain", NULL, "\"p1\"", STR("plain"));
}

static void invalid(struct http_req *r)
{
    struct problem p = {0};
    problem_field(&p, "body", "transactions.3.amount", "range", "must be \"positive\"");
    problem_field(&p, "query", "limit", "type", "not a number");
    http_reply_problem(r, &p);
}

static void refuse(struct http_req *r, enum pf_err e, int retry)
{
    struct problem p = {.retry_after_s = retry};
    problem_set(&p, e, "%s", "");
    http_reply_problem(r, &p);
}

static void limited(struct http_req *r)
{
    refuse(r, PFE_RATE_LIMITED, 17);
}

static void busy(struct http_req *r)
{
    refuse(r, PFE_BUSY, 0);
}

static void secret(struct http_req *r)
{
    refuse(r, PFE_UNAUTHENTICATED, 0);
}

static void silent(struct http_req *r)
{
    (void)r;
}

static void broken_out(struct http_req *r)
{
    buf_puts(&r->out, "half");
    r->out.failed = true;
    http_reply_out(r, 200, http_json);
}

static void show(struct http_req *r)
{
    http_reply(r, 200, "text/plain", STR("shown"));
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
    {HTTP_GET, "/show", 0, ROW(show)},         {HTTP_GET, "/items/{id}", 0, ROW(show)},
    {HTTP_PUT, "/items/{id}", 0, ROW(show)},   {HTTP_DELETE, "/items/{id}", 0, ROW(show)},
    {HTTP_GET, "/large", 0, ROW(large)},       {HTTP_GET, "/html", 0, ROW(html)},
    {HTTP_GET, "/plain", 0, ROW(plain)},       {HTTP_GET, "/invalid", 0, ROW(invalid)},
    {HTTP_GET, "/limited", 0, ROW(limited)},   {HTTP_GET, "/busy", 0, ROW(busy)},
    {HTTP_GET, "/secret", 0, ROW(secret)},     {HTTP_GET, "/silent", 0, ROW(silent)},
    {HTTP_GET, "/broken", 0, ROW(broken_out)},
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
    for (size_t i = 0; i < sizeof page; i++)
        page[i] = "<p>hello</p>"[i % 12];
    z_stream z = {
        .next_in = (Bytef *)page, .avail_in = sizeof page, .next_out = (Bytef *)page_gz, .avail_out = sizeof page_gz};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    page_gz_n = z.total_out;
    deflateEnd(&z);
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

static void test_problems(void **state)
{
    (void)state;
    struct answer a;
    expect("GET /invalid HTTP/1.1\r\n" HOST END, 422, "validation-failed");
    ask(port, "GET /invalid?x=1 HTTP/1.1\r\n" HOST "X-Request-Id: r1\r\n\r\n", &a);
    assert_non_null(strstr(a.body, "\"instance\":\"/invalid\",\"request_id\":\"r1\",\"error\":\"Validation failed\","
                                   "\"code\":422,\"errors\":[{\"loc\":[\"body\",\"transactions\",3,\"amount\"],"
                                   "\"msg\":\"must be \\\"positive\\\"\",\"type\":\"range\"},"
                                   "{\"loc\":[\"query\",\"limit\"],\"msg\":\"not a number\",\"type\":\"type\"}]}"));
    answer_free(&a);
    ask(port, "GET /limited HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 429);
    expect_header(&a, "Retry-After", "17");
    assert_null(strstr(a.body, "\"errors\""));
    answer_free(&a);
    ask(port, "GET /busy HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 503);
    expect_header(&a, "Retry-After", "1");
    answer_free(&a);
    ask(port, "GET /secret HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 401);
    expect_header(&a, "WWW-Authenticate", "Bearer realm=\"payflow\", ApiKey realm=\"payflow\"");
    answer_free(&a);
    expect("GET /silent HTTP/1.1\r\n" HOST END, 500, "internal-error");
    expect("GET /broken HTTP/1.1\r\n" HOST END, 503, "out-of-memory");
    ask(port, "GET /a\xff\"b HTTP/1.1\r\n" HOST END, &a);
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body, "\"instance\":\"/a%FF\\\"b\""));
    answer_free(&a);

    struct buf out = {0};
    struct problem p = {.code = PFE_INSUFFICIENT_FUNDS};
    http_problem_json(&out, &p, STR(""), STR(""));
    assert_int_equal(out.p[0], '{');
    buf_putc(&out, '\0');
    assert_null(strstr(out.p, "instance"));
    assert_null(strstr(out.p, "request_id"));
    assert_non_null(strstr(out.p, "\"status\":422"));
    buf_free(&out);
}

static void test_cors(void **state)
{
    (void)state;
    struct answer a;
    ask(port, "GET /show HTTP/1.1\r\n" HOST "Origin: https://b.example\r\n\r\n", &a);
    expect_header(&a, "Access-Control-Allow-Origin", "https://b.example");
    expect_header(&a, "Vary", "Origin");
    answer_free(&a);
    ask(port, "GET /show HTTP/1.1\r\n" HOST "Origin: https://evil.example\r\n\r\n", &a);
    assert_int_equal(a.status, 200);
    expect_header(&a, "Access-Control-Allow-Origin", NULL);
    expect_header(&a, "Vary", "Origin");
    answer_free(&a);
    ask(port,
        "OPTIONS /items/1 HTTP/1.1\r\n" HOST "Origin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
        &a);
    assert_int_equal(a.status, 204);
    expect_header(&a, "Access-Control-Allow-Origin", "https://a.example");
    expect_header(&a, "Access-Control-Allow-Methods", "GET, HEAD, PUT, DELETE, OPTIONS");
    expect_header(&a, "Access-Control-Max-Age", "600");
    expect_header(&a, "Allow", "GET, HEAD, PUT, DELETE, OPTIONS");
    answer_free(&a);
    ask(port, "GET /none HTTP/1.1\r\n" HOST "Origin: https://a.example\r\n\r\n", &a);
    assert_int_equal(a.status, 404);
    expect_header(&a, "Access-Control-Allow-Origin", "https://a.example");
    answer_free(&a);

    struct http_server *open = serve(routes, 1, handle, metrics, " * ", 1);
    ask(http_server_port(open), "GET /show HTTP/1.1\r\n" HOST "Origin: https://evil.example\r\n\r\n", &a);
    expect_header(&a, "Access-Control-Allow-Origin", "*");
    expect_header(&a, "Vary", NULL);
    answer_free(&a);
    http_server_stop(open, 1000);
}

/* The body, inflated. */
static char *inflated(const struct answer *a, size_t *ret_n)
{
    char *out = calloc(1, 65536);
    z_stream z = {.next_in = (Bytef *)a->body, .avail_in = (uInt)a->n, .next_out = (Bytef *)out, .avail_out = 65535};
    assert_int_equal(inflateInit2(&z, 31), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    *ret_n = z.total_out;
    inflateEnd(&z);
    return out;
}

static void test_gzip(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        bool zipped;
    } cases[] = {
        {"Accept-Encoding: gzip\r\n", true},
        {"Accept-Encoding: deflate, GZIP;q=0.5\r\n", true},
        {"Accept-Encoding: *\r\n", true},
        {"Accept-Encoding: gzip;q=0\r\n", false},
        {"Accept-Encoding: gzip; q=0.000, *\r\n", false},
        {"Accept-Encoding: *;q=0\r\n", false},
        {"Accept-Encoding: br\r\n", false},
        {"Accept-Encoding:\r\n", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct answer a;
        char request[200];
        snprintf(request, sizeof request, "GET /large HTTP/1.1\r\n" HOST "%s\r\n", cases[i].accept);
        ask(port, request, &a);
        assert_int_equal(a.status, 200);
        expect_header(&a, "Vary", "Origin, Accept-Encoding");
        expect_header(&a, "Content-Encoding", cases[i].zipped ? "gzip" : NULL);
        if (cases[i].zipped) {
            size_t n;
            assert_true(a.n < 1000);
            char *text = inflated(&a, &n);
            assert_int_equal(n, 5002);
            assert_memory_equal(text, "\"abcdefgabc", 11);
            free(text);
        } else {
            assert_int_equal(a.n, 5002);
        }
        answer_free(&a);
    }
    struct answer a;
    ask(port, "GET /invalid HTTP/1.1\r\n" HOST "Accept-Encoding: gzip\r\n\r\n", &a);
    expect_header(&a, "Content-Encoding", NULL); /* short */
    expect_header(&a, "Vary", "Origin");
    answer_free(&a);
}

static void test_static(void **state)
{
    (void)state;
    struct answer a;
    size_t n;
    ask(port, "GET /html HTTP/1.1\r\n" HOST "Accept-Encoding: gzip\r\n\r\n", &a);
    assert_int_equal(a.status, 200);
    expect_header(&a, "Content-Encoding", "gzip");
    expect_header(&a, "Content-Type", "text/html; charset=utf-8");
    expect_header(&a, "Content-Security-Policy", "default-src 'self'");
    expect_header(&a, "Cache-Control", "public, max-age=3600");
    expect_header(&a, "ETag", "W/\"v1\"");
    expect_header(&a, "Vary", "Origin, Accept-Encoding");
    char *text = inflated(&a, &n);
    assert_int_equal(n, PAGE_BYTES);
    assert_memory_equal(text, page, PAGE_BYTES);
    free(text);
    answer_free(&a);
    ask(port, "GET /html HTTP/1.1\r\n" HOST END, &a);
    expect_header(&a, "Content-Encoding", NULL);
    assert_int_equal(a.n, PAGE_BYTES);
    assert_memory_equal(a.body, page, PAGE_BYTES);
    answer_free(&a);
    static const char *const same[] = {"W/\"v1\"", "\"v1\"", "\"x\", W/\"v1\"", "*"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        char request[200];
        snprintf(request, sizeof request, "GET /html HTTP/1.1\r\n" HOST "If-None-Match: %s\r\n\r\n", same[i]);
        ask(port, request, &a);
        assert_int_equal(a.status, 304);
        expect_header(&a, "ETag", "W/\"v1\"");
        expect_header(&a, "Cache-Control", "public, max-age=3600");
        expect_header(&a, "Content-Type", NULL);
        answer_free(&a);
    }
    expect("GET /html HTTP/1.1\r\n" HOST "If-None-Match: \"v2\"\r\n\r\n", 200, NULL);
    ask(port, "HEAD /html HTTP/1.1\r\n" HOST END, &a);
    expect_header(&a, "Content-Length", "3000");
    answer_free(&a);
    ask(port, "GET /plain HTTP/1.1\r\n" HOST "Accept-Encoding: gzip\r\n\r\n", &a);
    assert_string_equal(a.body, "plain");
    expect_header(&a, "ETag", "\"p1\"");
    answer_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_problems),
        cmocka_unit_test(test_cors),
        cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_static),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
