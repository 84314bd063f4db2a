/*
 * Request heads: request_parse with its router and query strings, without a connection. The input is a head as it is
 * sent, with LF at the end of lines; it is laid out here as MHD leaves it, and MHD's two functions that request_parse
 * asks for it are defined below in MHD's stead.
 */
#include "fuzz.h"
#include "http/internal.h"

enum { HEAD_MAX = 24 << 10, LINES_MAX = HTTP_HEADERS_MAX + 20 };

static const struct http_route routes[] = {
    {HTTP_GET, "/", 0, NULL},
    {HTTP_GET, "/users", 0, NULL},
    {HTTP_POST, "/users", 0, NULL},
    {HTTP_GET, "/users/{id}", 0, NULL},
    {HTTP_POST, "/users/key", HTTP_BODY_BATCH, NULL},
    {HTTP_GET, "/users/{id}/friends/{friend}", 0, NULL},
    {HTTP_GET, "/users/key/friends/{friend}/since", 0, NULL},
    {HTTP_GET, "/files/{path...}", 0, NULL},
    {HTTP_GET, "/files/index", 0, NULL},
    {HTTP_GET, "/files/{name}/meta", 0, NULL},
};

struct MHD_Connection {
    struct str name[LINES_MAX], value[LINES_MAX];
    unsigned n;
    union MHD_ConnectionInfo size;
};

int MHD_get_connection_values_n(struct MHD_Connection *c, enum MHD_ValueKind kind, MHD_KeyValueIteratorN each,
                                void *cls)
{
    for (unsigned i = 0; i < c->n; i++)
        if (each(cls, kind, c->name[i].p, c->name[i].n, c->value[i].p, c->value[i].n) != MHD_YES)
            return (int)i + 1;
    return (int)c->n;
}

const union MHD_ConnectionInfo *MHD_get_connection_info(struct MHD_Connection *c, enum MHD_ConnectionInfoType what, ...)
{
    CHECK(what == MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return &c->size;
}

struct head {
    char *bytes;
    struct MHD_Connection conn;
    struct http_io io;
    struct http_server *server;
    struct request r;
};

static char *put(char *at, struct str s)
{
    memcpy(at, s.p, s.n);
    return at + s.n;
}

/* Cuts at the NUL where MHD's own string functions end. */
static struct str to_nul(struct str s)
{
    return (struct str){s.p, strnlen(s.p, s.n)};
}

/* A line end is two NULs, as are the blanks of the request line one each. NULL: no request line. */
static struct head *lay_out(struct str in, struct router *router)
{
    struct str line = fuzz_until(&in, '\n'), method = fuzz_until(&line, ' '), target = fuzz_until(&line, ' ');
    struct head *h = calloc(1, sizeof *h);
    char *at, *version;

    CHECK(h);
    h->server = calloc(1, sizeof *h->server);
    h->bytes = calloc(1, method.n + target.n + line.n + 5 * in.n + 16);
    CHECK(h->server && h->bytes);
    h->server->router = router;
    at = put(h->bytes, to_nul(method)) + 1;
    h->r.target = at;
    at = put(at, target) + 1;
    h->r.target_n = strlen(h->r.target);
    version = at;
    at = put(at, to_nul(line)) + 2;
    while (in.n && h->conn.n < LINES_MAX) {
        struct str value = fuzz_until(&in, '\n'), name = fuzz_until(&value, ':');
        unsigned i = h->conn.n++;
        while (value.n && (*value.p == ' ' || *value.p == '\t'))
            value = (struct str){value.p + 1, value.n - 1};
        h->conn.name[i] = (struct str){at, strnlen(name.p, name.n)};
        at = put(at, name) + 1;
        *at++ = ' ';
        h->conn.value[i] = (struct str){at, strnlen(value.p, value.n)};
        at = put(at, value) + 2;
    }
    h->conn.size.header_size = (size_t)(at + 2 - h->bytes);
    h->r.conn = &h->conn;
    h->r.io = &h->io;
    h->r.server = h->server;
    h->r.body_max = HTTP_BODY_DEFAULT;
    arena_init(&h->r.pub.arena, h->r.inline_block, INLINE_BYTES, 8u << 20);
    if (!request_parse(&h->r, h->bytes, version))
        CHECK(h->r.refusal != PFE_OK);
    return h;
}

static void head_free(struct head *h)
{
    arena_reset(&h->r.pub.arena);
    free(h->server);
    free(h->bytes);
    free(h);
}

static void check_text(struct str s)
{
    CHECK(str_utf8_ok(s) && (s.n == 0 || !memchr(s.p, '\0', s.n)));
}

static void check_accepted(const struct request *r)
{
    const struct http_req *q = &r->pub;

    CHECK(r->known_n[H_CONTENT_LENGTH] + r->known_n[H_TRANSFER_ENCODING] <= 1 && r->known_n[H_HOST] <= 1);
    CHECK(!r->chunked || r->content_length == 0);
    CHECK(r->n_headers <= HTTP_HEADERS_MAX);
    for (unsigned i = 0; i < r->n_headers; i++)
        check_text(r->headers[i].value);
    for (unsigned i = 0; i < HTTP_PARAMS_MAX; i++)
        check_text(q->params[i]);
    CHECK(q->n_query <= HTTP_QUERY_MAX);
    for (unsigned i = 0; i < q->n_query; i++) {
        CHECK(q->query[i].name.n > 0);
        check_text(q->query[i].name);
        check_text(q->query[i].value);
        for (unsigned k = 0; k < i; k++)
            CHECK(!str_eq(q->query[k].name, q->query[i].name));
    }
}

static void put_escaped(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        buf_printf(b, "%%%02x", (uint8_t)s.p[i]);
}

/* The request that was understood, written with every byte escaped, is understood the same. */
static void check_escaped(const struct request *r, struct router *router)
{
    const char *pattern = r->pub.route->pattern;
    unsigned param = 0;
    struct buf b;
    struct head *h;

    buf_init(&b, 0);
    buf_printf(&b, "%s ", http_method_name(r->pub.route->method));
    while (*pattern) {
        if (*pattern == '{') {
            put_escaped(&b, r->pub.params[param++]);
            pattern = strchr(pattern, '}') + 1;
        } else {
            buf_putc(&b, *pattern++);
        }
    }
    for (unsigned i = 0; i < r->pub.n_query; i++) {
        buf_putc(&b, i ? '&' : '?');
        put_escaped(&b, r->pub.query[i].name);
        buf_putc(&b, '=');
        put_escaped(&b, r->pub.query[i].value);
    }
    buf_puts(&b, " HTTP/1.1\nHost: x\n");
    CHECK(!b.failed);
    if (b.n < HTTP_HEADER_BYTES_MAX - 100) {
        h = lay_out(buf_as_str(&b), router);
        CHECK(h->r.refusal == PFE_OK && h->r.pub.route == r->pub.route && h->r.pub.n_query == r->pub.n_query);
        for (unsigned i = 0; i < HTTP_PARAMS_MAX; i++)
            CHECK(str_eq(h->r.pub.params[i], r->pub.params[i]));
        for (unsigned i = 0; i < r->pub.n_query; i++)
            CHECK(str_eq(h->r.pub.query[i].name, r->pub.query[i].name) &&
                  str_eq(h->r.pub.query[i].value, r->pub.query[i].value));
        head_free(h);
    }
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct router *router;
    char why[256];
    struct head *h;

    if (n > HEAD_MAX)
        return 0;
    if (!router)
        router = router_new(routes, sizeof routes / sizeof *routes, why);
    CHECK(router);
    h = lay_out((struct str){(const char *)data, n}, router);
    if (h->r.refusal == PFE_OK) {
        check_accepted(&h->r);
        if (h->r.pub.route && h->r.verb != VERB_OPTIONS)
            check_escaped(&h->r, router);
        /* as for a request that waits while MHD reuses its memory */
        request_detach(&h->r);
        memset(h->bytes, 0xff, h->conn.size.header_size);
        check_accepted(&h->r);
        request_is_json(&h->r);
    }
    head_free(h);
    return 0;
}
