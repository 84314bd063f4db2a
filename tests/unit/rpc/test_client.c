/* The client against servers that do not behave, played from a script; and TLS between the two of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>
#include <echo.pb-c.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "echo.h"
#include "rpc/client.h"

enum { PATIENCE_MS = 30000, LIMIT_US = 5000000, QUICK_US = 1500000, CONNECT_MS = 1000 };

static int64_t now(void)
{
    return clock_mono(clock_system());
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* ---- the script's server: one connection, the frames that are given, then as it says */

enum { CLOSES, STAYS };

struct script {
    const char *bytes;
    size_t n;
    int then;
    bool early; /* sent before the request has come */
};

struct played {
    pthread_t thread;
    int listener;
    uint16_t port;
    struct script script;
    atomic_bool stop;
};

/* Until the client's DATA frame has come: its payload is behind the text of the metadata. */
static void wait_for_request(int fd)
{
    char in[8192];
    size_t n = 0;
    while (n < sizeof in) {
        ssize_t got = recv(fd, in + n, sizeof in - n, 0);
        if (got <= 0)
            return;
        n += (size_t)got;
        if (memmem(in, n, "MARK", 4))
            return;
    }
}

static void *play(void *arg)
{
    static const char settings[] = "\0\0\0\4\0\0\0\0\0";
    struct played *p = arg;
    int fd = accept(p->listener, NULL, NULL);
    if (fd < 0)
        return NULL;
    if (!p->script.early) {
        send(fd, settings, sizeof settings - 1, MSG_NOSIGNAL);
        wait_for_request(fd);
    }
    send(fd, p->script.bytes, p->script.n, MSG_NOSIGNAL);
    char drop[1024];
    if (p->script.then == STAYS)
        while (!atomic_load(&p->stop) && recv(fd, drop, sizeof drop, 0) > 0)
            ;
    close(fd);
    return NULL;
}

static void play_start(struct played *p, struct script script)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    *p = (struct played){.script = script, .listener = socket(AF_INET, SOCK_STREAM, 0)};
    assert_int_equal(bind(p->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(p->listener, 5), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&a, &n), 0);
    p->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&p->thread, NULL, play, p), 0);
}

static void play_stop(struct played *p)
{
    atomic_store(&p->stop, true);
    shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->listener);
}

/* ---- one call */

struct outcome {
    atomic_int ended;
    enum rpc_code code;
    bool not_sent, from_server;
    char text[200], told[64];
};

static void done(void *user, const struct rpc_result *r)
{
    struct outcome *o = user;
    o->code = r->code;
    o->not_sent = r->not_sent;
    o->from_server = r->from_server;
    str_copy(o->text, sizeof o->text, r->text);
    if (r->answer)
        str_copy(o->told, sizeof o->told, str_c(((const Echo__V1__Told *)r->answer)->text));
    atomic_fetch_add(&o->ended, 1);
}

static void call_within(struct rpc_client *c, int64_t limit_us, struct outcome *o)
{
    Echo__V1__Ask q = ECHO__V1__ASK__INIT;
    q.text = (char *)(uintptr_t) "MARK";
    *o = (struct outcome){0};
    rpc_client_call(c,
                    &(struct rpc_request){.service = "echo.v1.Echo",
                                          .method = "Say",
                                          .message = &q.base,
                                          .answer = &echo__v1__told__descriptor,
                                          .deadline_us = now() + limit_us},
                    done, o);
    for (int64_t end = now() + PATIENCE_MS * 1000; atomic_load(&o->ended) == 0 && now() < end;)
        nap();
    assert_int_equal(atomic_load(&o->ended), 1);
}

static void call(struct rpc_client *c, struct outcome *o)
{
    call_within(c, LIMIT_US, o);
}

static struct rpc_client *client_of(struct rpc_client_config config)
{
    char why[256];
    config.host = "127.0.0.1";
    config.connections = 1;
    config.connect_ms = CONNECT_MS;
    config.clock = clock_system();
    struct rpc_client *c = rpc_client_new(&config, why);
    if (!c)
        fail_msg("%s", why);
    return c;
}

/* Frames of HTTP/2; header fields without compression. */
#define FRAME(n, type, flags, stream) "\0\0" n type flags "\0\0\0" stream
#define OK_HEAD FRAME("\1", "\1", "\4", "\1") "\x88"
#define STATUS_FIELD(n, value) "\0\x0bgrpc-status" n value
#define TRAILER(value) FRAME("\x0f", "\1", "\5", "\1") STATUS_FIELD("\1", value)
#define MESSAGE FRAME("\x09", "\0", "\0", "\1") "\0\0\0\0\4\x0a\2hi"
#define RESET(error) FRAME("\4", "\3", "\0", "\1") "\0\0\0" error
#define SCRIPT(lit, after)                                                                                             \
    {                                                                                                                  \
        "" lit, sizeof(lit) - 1, after, false                                                                          \
    }
#define EARLY(lit, after)                                                                                              \
    {                                                                                                                  \
        "" lit, sizeof(lit) - 1, after, true                                                                           \
    }

static const struct {
    const char *what;
    struct script script;
    enum rpc_code code;
    bool not_sent, from_server;
} cases[] = {
    {"as it should be", SCRIPT(OK_HEAD MESSAGE TRAILER("0"), STAYS), RPC_OK, false, true},
    {"a status only", SCRIPT(FRAME("\x10", "\1", "\5", "\1") "\x88" STATUS_FIELD("\1", "9"), STAYS),
     RPC_FAILED_PRECONDITION, false, true},
    {"a status of none of gRPC's numbers", SCRIPT(OK_HEAD TRAILER("x"), STAYS), RPC_UNKNOWN, false, true},
    {"OK without a message", SCRIPT(OK_HEAD TRAILER("0"), STAYS), RPC_INTERNAL, false, true},
    {"OK with two messages", SCRIPT(OK_HEAD MESSAGE MESSAGE TRAILER("0"), STAYS), RPC_INTERNAL, false, false},
    {"OK with half a message", SCRIPT(OK_HEAD FRAME("\6", "\0", "\0", "\1") "\0\0\0\0\4\x0a" TRAILER("0"), STAYS),
     RPC_INTERNAL, false, true},
    {"OK with garbage", SCRIPT(OK_HEAD FRAME("\x7", "\0", "\0", "\1") "\0\0\0\0\2\x0a\x05" TRAILER("0"), STAYS),
     RPC_INTERNAL, false, true},
    {"a message that is compressed", SCRIPT(OK_HEAD FRAME("\5", "\0", "\0", "\1") "\1\0\0\0\4", STAYS), RPC_INTERNAL,
     false, false},
    {"a message that is too large", SCRIPT(OK_HEAD FRAME("\5", "\0", "\0", "\1") "\0\xff\xff\xff\xff", STAYS),
     RPC_RESOURCE_EXHAUSTED, false, false},
    {"no status", SCRIPT(OK_HEAD MESSAGE FRAME("\0", "\0", "\1", "\1"), STAYS), RPC_INTERNAL, false, false},
    {"HTTP 503",
     SCRIPT(FRAME("\5", "\1", "\5", "\1") "\x08\3"
                                          "503",
            STAYS),
     RPC_UNAVAILABLE, false, false},
    {"HTTP 404", SCRIPT(FRAME("\1", "\1", "\5", "\1") "\x8d", STAYS), RPC_UNIMPLEMENTED, false, false},
    {"stream refused", SCRIPT(RESET("\7"), STAYS), RPC_UNAVAILABLE, true, false},
    {"stream cancelled", SCRIPT(RESET("\x8"), STAYS), RPC_CANCELLED, false, false},
    {"told to be calm", SCRIPT(RESET("\xb"), STAYS), RPC_RESOURCE_EXHAUSTED, false, false},
    {"stream broken", SCRIPT(RESET("\2"), STAYS), RPC_INTERNAL, false, false},
    {"GOAWAY before the call", SCRIPT(FRAME("\x8", "\7", "\0", "\0") "\0\0\0\0\0\0\0\0", STAYS), RPC_UNAVAILABLE, true,
     false},
    {"GOAWAY after it, and the answer",
     SCRIPT(FRAME("\x8", "\7", "\0", "\0") "\0\0\0\1\0\0\0\0" OK_HEAD MESSAGE TRAILER("0"), STAYS), RPC_OK, false,
     true},
    {"closes instead of answering", SCRIPT("", CLOSES), RPC_UNAVAILABLE, false, false},
    {"closes half-way", SCRIPT(OK_HEAD, CLOSES), RPC_UNAVAILABLE, false, false},
    {"says nothing", SCRIPT("", STAYS), RPC_DEADLINE_EXCEEDED, false, false},
    {"stops half-way", SCRIPT(OK_HEAD MESSAGE, STAYS), RPC_DEADLINE_EXCEEDED, false, false},
    {"garbage instead of an answer", SCRIPT("garbage that is no frame of HTTP/2 at all, nor will it be", STAYS),
     RPC_UNAVAILABLE, false, false},
    {"speaks HTTP/1", EARLY("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", CLOSES), RPC_UNAVAILABLE, true,
     false},
    {"accepts and closes", EARLY("", CLOSES), RPC_UNAVAILABLE, true, false},
    {"accepts and says nothing", EARLY("", STAYS), RPC_UNAVAILABLE, true, false},
};

static void test_scripts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct played p;
        struct outcome o;
        play_start(&p, cases[i].script);
        struct rpc_client *c = client_of((struct rpc_client_config){.port = p.port});
        call_within(c, cases[i].code == RPC_DEADLINE_EXCEEDED ? QUICK_US : LIMIT_US, &o);
        if (o.code != cases[i].code || o.not_sent != cases[i].not_sent || o.from_server != cases[i].from_server)
            fail_msg("%s: %s (%s)%s%s", cases[i].what, rpc_code_name(o.code), o.text, o.not_sent ? ", not sent" : "",
                     o.from_server ? ", from the server" : "");
        if (o.code == RPC_OK)
            assert_string_equal(o.told, "hi");
        rpc_client_free(c);
        play_stop(&p);
    }
}

/* A server that has gone without a word is noticed long before the deadline. */
static void test_keep_alive(void **state)
{
    struct played p;
    struct outcome o;
    (void)state;
    play_start(&p, (struct script)SCRIPT(OK_HEAD, STAYS));
    struct rpc_client *c = client_of((struct rpc_client_config){.port = p.port, .keepalive_s = 1, .keepalive_ms = 200});
    int64_t began = now();
    call_within(c, 25000000, &o);
    assert_int_equal(o.code, RPC_UNAVAILABLE);
    assert_false(o.not_sent);
    assert_true(now() - began < 20000000);
    rpc_client_free(c);
    play_stop(&p);
}

/* ---- TLS */

static char dir[] = "/tmp/test-rpc-XXXXXX";

/* False: there is no openssl to make it. */
static bool certificate(const char *name, char cert[64], char key[64])
{
    char command[600];
    snprintf(cert, 64, "%s/%s.pem", dir, name);
    snprintf(key, 64, "%s/%s.key", dir, name);
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s -out %s -days 2 "
             "-subj /CN=%s -addext subjectAltName=DNS:%s 2>/dev/null",
             key, cert, name, name);
    return system(command) == 0;
}

static void test_tls(void **state)
{
    char cert[64], key[64], other_cert[64], other_key[64], why[256];
    struct echo e;
    struct outcome o;
    (void)state;
    assert_non_null(mkdtemp(dir));
    if (!certificate("booking.example", cert, key) || !certificate("other.example", other_cert, other_key))
        skip();
    echo_start(&e, &(struct rpc_config){.threads = 1, .tls_cert = cert, .tls_key = key});
    const struct {
        const char *authority, *ca;
        bool tls;
        enum rpc_code code;
    } attempts[] = {
        {"booking.example", cert, true, RPC_OK},
        {"booking.example:50051", cert, true, RPC_OK},
        {"other.example", cert, true, RPC_UNAVAILABLE}, /* the certificate is another's */
        {NULL, cert, true, RPC_UNAVAILABLE},            /* and has no address in it */
        {"booking.example", other_cert, true, RPC_UNAVAILABLE},
        {"booking.example", NULL, true, RPC_UNAVAILABLE}, /* the machine knows it not */
        {"booking.example", NULL, false, RPC_UNAVAILABLE},
    };
    for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
        struct rpc_client *c = client_of((struct rpc_client_config){.port = rpc_server_port(e.server),
                                                                    .authority = attempts[i].authority,
                                                                    .tls = attempts[i].tls,
                                                                    .tls_ca = attempts[i].ca});
        call(c, &o);
        assert_int_equal(o.code, attempts[i].code);
        if (o.code != RPC_OK)
            assert_true(o.not_sent);
        rpc_client_free(c);
    }
    assert_null(rpc_client_new(
        &(struct rpc_client_config){.host = "127.0.0.1", .tls = true, .tls_ca = "/nowhere", .clock = clock_system()},
        why));
    assert_non_null(strstr(why, "/nowhere"));
    echo_stop(&e, 1000);
    char command[80];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scripts), cmocka_unit_test(test_keep_alive),
                                       cmocka_unit_test(test_tls)};
    return cmocka_run_group_tests_name("rpc/client", tests, NULL, NULL);
}
