/*
 * A gRPC connection: what a client may send, through the server's own loop over a socket pair, one step at a time. The
 * first byte says how the rest is meant: bytes from the very start; frames behind a good beginning; or the message of a
 * call to Say, cut into DATA frames. Nothing may be left of a connection when it is over, what comes back is made of
 * whole frames, and a message is answered by the status that a second, simpler reading gives it.
 */
#include <echo.pb-c.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "rpc/internal.h"

enum { INPUT_MAX = 64 << 10, OUTPUT_MAX = 8 << 20, FRAME_MAX = 16384, STEPS = 2000 };

enum mode { RAW, FRAMES, MESSAGE };

static const char beginning[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";

static int64_t clock_us = 1000000;

static int64_t read_clock(void *ctx)
{
    (void)ctx;
    return clock_us;
}

static const struct clock test_clock = {read_clock, read_clock, NULL};

/* ---- the service: answers at once, or by the mailbox */

static void say(struct rpc_call *c)
{
    const Echo__V1__Ask *q = (const Echo__V1__Ask *)c->request;
    Echo__V1__Told t = ECHO__V1__TOLD__INIT;
    CHECK(str_utf8_ok(str_c(q->text)));
    t.text = q->text;
    t.blob = q->blob;
    rpc_reply(c, &t.base);
}

static void later(struct rpc_call *c)
{
    rpc_suspend(c, say);
    rpc_resume(c);
}

#define ROW(name, handler)                                                                                             \
    {                                                                                                                  \
        "echo.v1.Echo", name, &echo__v1__ask__descriptor, &echo__v1__told__descriptor, handler, NULL                   \
    }
static const struct rpc_method methods[] = {ROW("Say", say), ROW("Later", later)};

static struct rpc_server *start(void)
{
    char why[256];
    struct rpc_server *s = rpc_server_start(&(struct rpc_config){.host = "127.0.0.1",
                                                                 .threads = 1,
                                                                 .methods = methods,
                                                                 .n_methods = 2,
                                                                 .metrics = metrics_new(),
                                                                 .clock = &test_clock},
                                            why);
    CHECK(s);
    loop_stop(&s->io[0].loop); /* from here on this thread steps */
    return s;
}

/* ---- the client's side */

struct output {
    char *p;
    size_t n;
};

static void take(int fd, struct output *o)
{
    ssize_t n;
    while (o->n < OUTPUT_MAX && (n = recv(fd, o->p + o->n, OUTPUT_MAX - o->n, MSG_DONTWAIT)) > 0)
        o->n += (size_t)n;
}

/* Sends all, stepping; then steps until nothing moves. */
static void converse(struct rpc_server *s, int fd, struct str in, struct output *o)
{
    size_t before = 0;
    for (int quiet = 0, steps = 0; quiet < 3 && steps < STEPS; steps++) {
        ssize_t n = in.n ? send(fd, in.p, in.n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        in = n > 0 ? (struct str){in.p + n, in.n - (size_t)n} : n < 0 && errno != EAGAIN ? STR_NONE : in;
        clock_us += 100;
        loop_step(&s->io[0].loop, 0);
        take(fd, o);
        quiet = in.n || o->n > before ? 0 : quiet + 1;
        before = o->n;
    }
}

static void check_frames(const struct output *o)
{
    size_t at = 0;
    while (at + 9 <= o->n) {
        const uint8_t *p = (const uint8_t *)o->p + at;
        size_t n = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
        CHECK(n <= FRAME_MAX && p[3] <= NGHTTP2_CONTINUATION);
        at += 9 + n;
    }
    CHECK(at == o->n || o->n == OUTPUT_MAX);
}

/* The number behind grpc-status on stream 1; -1: there is none. */
static int status_of(const struct output *o)
{
    nghttp2_hd_inflater *h;
    int status = -1;
    CHECK(nghttp2_hd_inflate_new(&h) == 0);
    for (size_t at = 0; at + 9 <= o->n;) {
        const uint8_t *p = (const uint8_t *)o->p + at, *block = p + 9;
        size_t n = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2], left = n;
        at += 9 + n;
        while (p[3] == NGHTTP2_HEADERS && at <= o->n) {
            nghttp2_nv nv;
            int flags = 0;
            ssize_t used = nghttp2_hd_inflate_hd2(h, &nv, &flags, block, left, 1);
            CHECK(used >= 0);
            block += used;
            left -= (size_t)used;
            if ((flags & NGHTTP2_HD_INFLATE_EMIT) && nv.namelen == 11 && memcmp(nv.name, "grpc-status", 11) == 0)
                status = atoi((const char *)nv.value);
            if (flags & NGHTTP2_HD_INFLATE_FINAL) {
                nghttp2_hd_inflate_end_headers(h);
                break;
            }
        }
    }
    nghttp2_hd_inflate_del(h);
    return status;
}

/* ---- a call around a message */

static void put_frame(struct buf *b, uint8_t type, uint8_t flags, struct str payload)
{
    const char head[9] = {
        (char)(payload.n >> 16), (char)(payload.n >> 8), (char)payload.n, (char)type, (char)flags, 0, 0, 0, 1};
    buf_put(b, head, sizeof head);
    buf_str(b, payload);
}

static nghttp2_nv field(const char *name, const char *value)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value)};
}

static void put_call(struct buf *b, struct str message, size_t piece)
{
    const nghttp2_nv nv[] = {field(":method", "POST"), field(":scheme", "http"), field(":path", "/echo.v1.Echo/Say"),
                             field(":authority", "x"), field("content-type", "application/grpc")};
    const char prefix[5] = {0, (char)(message.n >> 24), (char)(message.n >> 16), (char)(message.n >> 8),
                            (char)message.n};
    uint8_t block[256];
    nghttp2_hd_deflater *h;
    CHECK(nghttp2_hd_deflate_new(&h, 4096) == 0);
    ssize_t n = nghttp2_hd_deflate_hd(h, block, sizeof block, nv, sizeof nv / sizeof nv[0]);
    nghttp2_hd_deflate_del(h);
    CHECK(n > 0);
    put_frame(b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, (struct str){(const char *)block, (size_t)n});
    put_frame(b, NGHTTP2_DATA, 0, (struct str){prefix, sizeof prefix});
    while (message.n > 0) {
        size_t k = message.n < piece ? message.n : piece;
        put_frame(b, NGHTTP2_DATA, 0, (struct str){message.p, k});
        message = (struct str){message.p + k, message.n - k};
    }
    put_frame(b, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, STR(""));
}

/* What protobuf-c says of the bytes, with its strings looked at afterwards. Not for NULs in strings, which it hides. */
static bool text_ok(const Echo__V1__Ask *q)
{
    if (!str_utf8_ok(str_c(q->text)))
        return false;
    for (size_t i = 0; i < q->n_words; i++)
        if (!str_utf8_ok(str_c(q->words[i])))
            return false;
    return !q->inner || text_ok(q->inner);
}

static void check_status(int status, struct str message)
{
    Echo__V1__Ask *q = echo__v1__ask__unpack(NULL, message.n, (const uint8_t *)message.p);
    CHECK(status == RPC_OK || status == RPC_INTERNAL || status == RPC_INVALID_ARGUMENT);
    if (status == RPC_OK)
        CHECK(q && text_ok(q));
    if (!q)
        CHECK(status != RPC_OK);
    if (q)
        echo__v1__ask__free_unpacked(q, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct rpc_server *s;
    static struct output o;
    static const char peer[46] = "fuzz";
    struct str in = {(const char *)data, n};
    struct buf b;
    int fd[2];
    if (n == 0 || n > INPUT_MAX)
        return 0;
    if (!s) {
        s = start();
        o.p = malloc(OUTPUT_MAX);
    }
    CHECK(o.p && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
    o.n = 0;
    enum mode mode = (enum mode)(fuzz_take(&in, 1) % 3);
    size_t piece =
        mode == MESSAGE ? 1 + fuzz_take(&in, 1) * 50 : 0; /* so that there are not too many empty-handed frames */
    buf_init(&b, 0);
    if (mode != RAW)
        buf_put(&b, beginning, sizeof beginning - 1);
    if (mode == MESSAGE)
        put_call(&b, in, piece < in.n / 500 ? in.n / 500 : piece);
    else
        buf_str(&b, in);
    CHECK(!b.failed);
    atomic_fetch_add(&s->connections, 1);
    atomic_fetch_add(&s->io[0].n_conns, 1);
    conn_accept(s, &s->io[0], fd[0], peer);
    converse(s, fd[1], buf_as_str(&b), &o);
    check_frames(&o);
    if (mode == MESSAGE)
        check_status(status_of(&o), in);
    close(fd[1]);
    for (int i = 0; i < STEPS && atomic_load(&s->connections) > 0; i++) {
        clock_us += 1000;
        loop_step(&s->io[0].loop, 0);
    }
    CHECK(atomic_load(&s->connections) == 0 && atomic_load(&s->calls) == 0 && atomic_load(&s->memory) == 0);
    CHECK(!s->io[0].watchers && !s->io[0].loop.timers);
    buf_free(&b);
    return 0;
}
