/* What a backend is asked: the request as it came, less what was for this connection, plus where it came from. */
#include <stdlib.h>

#include "gateway/headers.h"
#include "gateway/internal.h"

/*
 * libcurl looks through its list of headers a dozen times for each request, and passes on what stands in it as it is.
 * So only those that it looks for have a place of their own there; all others are one piece, with their line ends.
 */
struct build {
    struct exchange *x;
    struct curl_slist **end;
    char *rest; /* the piece; there is room for all that is put */
    bool failed;
};

/* libcurl reads this list and nothing else of it, so it may lie in an arena. */
static void node(struct build *b, char *text)
{
    struct curl_slist *n = arena_alloc(&b->x->arena, sizeof *n);
    if (!n || !text) {
        b->failed = true;
        return;
    }
    *n = (struct curl_slist){.data = text};
    *b->end = n;
    b->end = &n->next;
}

/* As a line of its own. */
static void line(struct build *b, struct str name, struct str value)
{
    char *text = arena_alloc(&b->x->arena, name.n + value.n + 3);
    if (text) {
        memcpy(text, name.p, name.n);
        /* libcurl takes "Name:" as a wish to leave a header out, and "Name;" as one without a value */
        memcpy(text + name.n, value.n ? ": " : ";", value.n ? 3 : 2);
        if (value.n) {
            memcpy(text + name.n + 2, value.p, value.n);
            text[name.n + 2 + value.n] = '\0';
        }
    }
    node(b, text);
}

static void bytes(struct build *b, struct str s)
{
    memcpy(b->rest, s.p, s.n);
    b->rest += s.n;
}

static void put(struct build *b, struct str name, struct str value)
{
    bytes(b, name);
    bytes(b, STR(": "));
    if (value.n)
        bytes(b, value);
    bytes(b, STR("\r\n"));
}

/* All values that came with the request, and one more. */
static void append(struct build *b, const struct http_pair *h, unsigned n, struct str name, struct str more)
{
    bytes(b, name);
    bytes(b, STR(": "));
    for (unsigned i = 0; i < n; i++) {
        if (h[i].name.n != name.n || !str_eq_nocase(h[i].name, name) || h[i].value.n == 0)
            continue;
        bytes(b, h[i].value);
        bytes(b, STR(", "));
    }
    bytes(b, more);
    bytes(b, STR("\r\n"));
}

enum kind { KIND_PASS, KIND_DROP, KIND_CONNECTION };

/* Without Host there is no request; without Idempotency-Key it is another one, and more than once: these two stay
 * whatever Connection says. */
static bool stays(struct str name)
{
    return str_eq_nocase(name, STR("host")) || str_eq_nocase(name, STR("idempotency-key"));
}

/* Headers that are not simply passed on. */
static enum kind kind_of(struct str name)
{
    static const struct str ours[] = {{"expect", 6},
                                      {"x-request-id", 12},
                                      {"traceparent", 11},
                                      {"x-forwarded-for", 15},
                                      {"x-forwarded-proto", 17},
                                      {"x-forwarded-host", 16},
                                      {"via", 3}};
    if (header_is_hop(name))
        return name.n == 10 && (name.p[0] | 0x20) == 'c' ? KIND_CONNECTION : KIND_DROP;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        if (ours[i].n == name.n && str_eq_nocase(ours[i], name))
            return KIND_DROP;
    }
    return KIND_PASS;
}

static bool named(const struct http_req *r, const struct http_pair *h, unsigned n, struct str name)
{
    (void)r;
    for (unsigned i = 0; i < n; i++) {
        if (h[i].name.n == 10 && str_eq_nocase(h[i].name, STR("connection")) && header_lists(h[i].value, name))
            return true;
    }
    return false;
}

/* Those that libcurl would add by itself, or needs to know. */
static const struct str known[] = {{"Host", 4}, {"Expect", 6}, {"Accept", 6}, {"Content-Type", 12}, {"User-Agent", 10}};
enum { KNOWN = sizeof known / sizeof *known };

static unsigned which(struct str name)
{
    unsigned i = 0;
    while (i < KNOWN && (known[i].n != name.n || !str_eq_nocase(known[i], name)))
        i++;
    return i;
}

static void headers(struct build *b, const struct http_req *r)
{
    const struct http_pair *h;
    const unsigned n = http_headers(r, &h);
    const struct str via = str_c(b->x->g->via), peer = str_c(r->peer), host = http_header(r, "host");
    const bool connection = http_header_count(r, "connection") > 0;
    bool seen[KNOWN + 1] = {false};
    size_t room =
        via.n + peer.n + host.n + r->request_id.n + r->traceparent.n + 128; /* with names, of which these have 103 */
    for (unsigned i = 0; i < n; i++)
        room += h[i].name.n + h[i].value.n + 4;
    char *rest = arena_alloc(&b->x->arena, room);
    if (!rest) {
        b->failed = true;
        return;
    }
    b->rest = rest;
    append(b, h, n, STR("Via"), via);
    for (unsigned i = 0; i < n; i++) {
        const struct str name = h[i].name;
        if (kind_of(name) != KIND_PASS || (connection && !stays(name) && named(r, h, n, name)))
            continue;
        const unsigned k = which(name);
        seen[k] = true;
        if (k < KNOWN)
            line(b, name, h[i].value);
        else
            put(b, name, h[i].value);
    }
    append(b, h, n, STR("X-Forwarded-For"), peer);
    put(b, STR("X-Forwarded-Proto"), r->https ? STR("https") : STR("http"));
    if (host.n)
        append(b, h, n, STR("X-Forwarded-Host"), host);
    put(b, STR("X-Request-Id"), r->request_id);
    if (r->traceparent.n)
        put(b, STR("traceparent"), r->traceparent);
    b->rest[-2] = '\0'; /* libcurl ends its lines itself */
    node(b, rest);
    static char none[KNOWN][16] = {"", "Expect:", "Accept:", "Content-Type:", "User-Agent:"};
    for (unsigned k = 1; k < KNOWN; k++) { /* but Host, without which there is no request */
        if (!seen[k])
            node(b, none[k]);
    }
}

static struct str join(struct arena *a, const struct str *parts, unsigned n)
{
    size_t len = 0;
    for (unsigned i = 0; i < n; i++)
        len += parts[i].n + 1;
    char *text = arena_alloc(a, len + 1), *p = text;
    if (!text)
        return STR_NONE;
    for (unsigned i = 0; i < n; i++) {
        if (parts[i].n)
            memcpy(p, parts[i].p, parts[i].n);
        p += parts[i].n;
        *p++ = '\n'; /* in none of them */
    }
    *p = '\0';
    return (struct str){text, (size_t)(p - text)};
}

/* What an old answer depends on, and who may see it. */
static void fallback_key(struct exchange *x, const struct http_req *r)
{
    const struct str key[] = {x->target, http_header(r, "host"), http_header(r, "accept"),
                              http_header(r, "accept-encoding"), http_header(r, "accept-language")};
    const struct str who[] = {http_header(r, "authorization"), http_header(r, "x-api-key"), http_header(r, "cookie")};
    x->principal = join(&x->arena, who, 3);
    if (x->principal.p && http_header_count(r, "range") == 0)
        x->key = join(&x->arena, key, 5);
}

static bool target(struct exchange *x, const struct http_req *r, struct str path)
{
    struct str query = {r->target.p + r->path.n, r->target.n - r->path.n};
    char *t = arena_alloc(&x->arena, path.n + query.n + 1);
    if (!t)
        return false;
    memcpy(t, path.p, path.n);
    if (query.n)
        memcpy(t + path.n, query.p, query.n);
    t[path.n + query.n] = '\0';
    x->target = (struct str){t, path.n + query.n};
    return true;
}

struct exchange *request_exchange(struct gateway *g, struct http_req *r, const struct gateway_row *row, struct str path)
{
    struct exchange *x = NULL;
    if (posix_memalign((void **)&x, 16, sizeof *x) != 0)
        return NULL;
    memset(x, 0, offsetof(struct exchange, block));
    arena_init(&x->arena, x->block, sizeof x->block, EXCHANGE_ARENA);
    x->g = g;
    x->loop = gateway_loop_mine();
    x->row = row;
    x->r = r;
    x->method = r->method;
    x->head_only = r->head;
    x->safe = (r->method != HTTP_POST && r->method != HTTP_PATCH) ||
              (!gateway_keyless(path) && http_header(r, "idempotency-key").n > 0);
    x->body = r->body;
    x->up_length = r->body_length;
    x->stale_us = -1;
    atomic_init(&x->holders, 2);
    const struct http_pair *h;
    unsigned n = http_headers(r, &h);
    if (g->groups[row->group].sticky)
        (void)str_copy(x->cookie, sizeof x->cookie, header_cookie(h, n, str_c(g->cookie_name)));
    struct build b = {.x = x, .end = &x->sent};
    b.failed = !target(x, r, path);
    headers(&b, r);
    if (g->fallback && row->fallback && r->method == HTTP_GET && !r->head)
        fallback_key(x, r);
    if (b.failed) {
        arena_reset(&x->arena);
        free(x);
        return NULL;
    }
    return x;
}
