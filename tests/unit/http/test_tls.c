/* TLS, with the openssl command as certificate maker and client; skipped where there is none. */
#include "fixture.h"

#include <fcntl.h>
#include <sys/wait.h>

static void handle(struct http_req *r)
{
    http_reply(r, 200, http_json, r->method == HTTP_POST ? r->body : STR("\"secure\""));
}

static const struct http_route routes[] = {{HTTP_GET, "/show", 0, NULL}, {HTTP_POST, "/echo", 1000, NULL}};

static char dir[] = "/tmp/test-http-tls-XXXXXX", cert[64], key[64], other_key[64];
static struct metrics *metrics;
static struct http_server *server;

/* The output of a shell command, which must not be larger than the buffer. */
static int run(const char *command, char out[16384])
{
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, 16383, f);
    out[n] = '\0';
    return pclose(f);
}

static struct http_server *start_tls(const char *cert_file, const char *key_file, char why[256])
{
    struct http_config c = {.host = "127.0.0.1",
                            .threads = 2,
                            .max_connections = 100,
                            .idle_timeout_s = 10,
                            .tls_cert = cert_file,
                            .tls_key = key_file,
                            .routes = routes,
                            .n_routes = 2,
                            .handler = handle,
                            .turn = TURN,
                            .metrics = metrics,
                            .clock = clock_system()};
    return http_server_start(&c, why);
}

static int start(void **state)
{
    (void)state;
    char command[600], out[16384], why[256];
    if (!mkdtemp(dir))
        return -1;
    snprintf(cert, sizeof cert, "%s/cert.pem", dir);
    snprintf(key, sizeof key, "%s/key.pem", dir);
    snprintf(other_key, sizeof other_key, "%s/other.pem", dir);
    metrics = metrics_new();
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s -out %s -days 2 "
             "-subj /CN=localhost 2>&1 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out %s 2>&1",
             key, cert, other_key);
    if (run(command, out) != 0)
        return 0;
    server = start_tls(cert, key, why);
    return server ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    if (server)
        http_server_stop(server, 1000);
    metrics_free(metrics);
    remove(cert);
    remove(key);
    remove(other_key);
    return rmdir(dir);
}

/* What s_client prints for a request; seclevel 0 lets the client itself offer old versions. */
static void client(const char *options, const char *request, char out[16384])
{
    char command[800];
    snprintf(
        command, sizeof command,
        "(printf '%s'; sleep 1) | timeout 5 openssl s_client -connect 127.0.0.1:%u -cipher ALL:@SECLEVEL=0 %s 2>&1",
        request, http_server_port(server), options);
    run(command, out);
}

#define CLOSE "Connection: close\\r\\n\\r\\n"
#define GET_CLOSE "GET /show HTTP/1.1\\r\\nHost: x\\r\\n" CLOSE

static void test_versions(void **state)
{
    (void)state;
    if (!server)
        skip();
    char out[16384];
    static const char *const fine[] = {"-tls1_2", "-tls1_3"}, *const old[] = {"-tls1", "-tls1_1"};
    for (int i = 0; i < 2; i++) {
        client(fine[i], GET_CLOSE, out);
        assert_non_null(strstr(out, "HTTP/1.1 200 OK"));
        assert_non_null(strstr(out, "Strict-Transport-Security: max-age=31536000"));
        assert_non_null(strstr(out, "\"secure\""));
        client(old[i], GET_CLOSE, out);
        assert_null(strstr(out, "HTTP/1.1 200 OK"));
        assert_non_null(strstr(out, "Cipher is (NONE)"));
    }
}

static void test_body_over_tls(void **state)
{
    (void)state;
    if (!server)
        skip();
    char out[16384];
#define POST "POST /echo HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\nContent-Length: "
    client("-tls1_3", POST "9\\r\\n" CLOSE "[1,2,3,4]", out);
    assert_non_null(strstr(out, "HTTP/1.1 200 OK"));
    assert_non_null(strstr(out, "[1,2,3,4]"));
    char request[4000] = POST "1001\\r\\n\\r\\n";
    size_t n = strlen(request);
    memset(request + n, '1', 1001);
    request[n + 1001] = '\0';
    char command[6000];
    snprintf(command, sizeof command, "(printf '%s'; sleep 1) | timeout 5 openssl s_client -connect 127.0.0.1:%u 2>&1",
             request, http_server_port(server));
    run(command, out);
    assert_non_null(strstr(out, "HTTP/1.1 413 "));
    assert_non_null(strstr(out, "/problems/body-too-large"));
}

static void test_plain_text_on_tls(void **state)
{
    (void)state;
    if (!server)
        skip();
    struct answer a;
    ask(http_server_port(server), "GET /show HTTP/1.1\r\n" HOST END, &a);
    assert_int_not_equal(a.status, 200);
    answer_free(&a);
}

static void test_bad_files(void **state)
{
    (void)state;
    if (!server)
        skip();
    char why[256], empty[64];
    assert_null(start_tls(cert, other_key, why));
    assert_non_null(strstr(why, "do not match"));
    assert_null(start_tls("/nonexistent/cert.pem", key, why));
    assert_non_null(strstr(why, "/nonexistent/cert.pem"));
    assert_null(start_tls(cert, "/nonexistent/key.pem", why));
    assert_non_null(strstr(why, "/nonexistent/key.pem"));
    assert_null(start_tls(key, cert, why));
    assert_true(strlen(why) > 20);
    snprintf(empty, sizeof empty, "%s/empty", dir);
    close(open(empty, O_CREAT | O_WRONLY, 0600));
    assert_null(start_tls(empty, key, why));
    assert_non_null(strstr(why, "empty"));
    remove(empty);
    assert_null(start_tls(cert, NULL, why));
    assert_non_null(strstr(why, "both"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_body_over_tls),
        cmocka_unit_test(test_plain_text_on_tls),
        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
