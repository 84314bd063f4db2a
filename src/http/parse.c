/*
 * From what MHD has parsed to a checked request. MHD 0.9.75 is lenient where that has led to request smuggling
 * elsewhere: it takes the first of several Content-Length headers, prefers Transfer-Encoding when both are there, cuts
 * values at NUL, accepts blanks before the colon, and appends a folded line to the header's *name*. All of that is
 * refused here; that lines follow each other in memory without gaps is how cuts and folds are noticed.
 */
#include "http/internal.h"

struct collect {
    struct request *r;
    const char *line; /* where the next header line must start; NULL: lost */
    bool bad_name, bad_value, broken;
};

static const struct {
    enum known_header id;
    struct str name;
} known_names[] = {
    {H_ACCEPT_ENCODING, {"accept-encoding", 15}},
    {H_AC_REQUEST_METHOD, {"access-control-request-method", 29}},
    {H_CONTENT_ENCODING, {"content-encoding", 16}},
    {H_CONTENT_LENGTH, {"content-length", 14}},
    {H_CONTENT_TYPE, {"content-type", 12}},
    {H_EXPECT, {"expect", 6}},
    {H_HOST, {"host", 4}},
    {H_IF_NONE_MATCH, {"if-none-match", 13}},
    {H_ORIGIN, {"origin", 6}},
    {H_REQUEST_ID, {"x-request-id", 12}},
    {H_TRACEPARENT, {"traceparent", 11}},
    {H_TRANSFER_ENCODING, {"transfer-encoding", 17}},
};

/* RFC 9110 5.6.2: the bytes of a token. */
static bool token_ok(struct str s)
{
    static const uint32_t set[8] = {0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff};
    uint32_t ok = s.n > 0;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        ok &= set[c >> 5] >> (c & 31);
    }
    return ok & 1;
}

/* Visible bytes, blanks, and well-formed UTF-8. */
static bool value_ok(struct str s)
{
    bool high = false;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
        high |= c >= 0x80;
    }
    return !high || str_utf8_ok(s);
}

/* The start of the line behind p, where MHD has overwritten CR LF with NULs; NULL: p is not at the end of a line. */
static const char *next_line(const char *p)
{
    return p && p[0] == '\0' && p[1] == '\0' ? p + 2 : NULL;
}

static enum MHD_Result collect_header(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_n,
                                      const char *value, size_t value_n)
{
    (void)kind;
    struct collect *c = cls;
    struct request *r = c->r;
    const char *gap = key + key_n + 1;
    while (gap < value && (*gap == ' ' || *gap == '\t'))
        gap++;
    c->broken |= gap != value || c->line != key;
    c->line = next_line(value + value_n);
    if (r->n_headers == HTTP_HEADERS_MAX) {
        r->n_headers++; /* too many; only counted */
        return MHD_NO;
    }
    struct str name = {key, key_n}, text = str_trim((struct str){value, value_n});
    c->bad_name |= !token_ok(name);
    c->bad_value |= !value_ok(text);
    r->headers[r->n_headers++] = (struct http_pair){name, text};
    for (size_t i = 0; i < sizeof known_names / sizeof known_names[0]; i++) {
        if (known_names[i].name.n == key_n && str_eq_nocase(known_names[i].name, name)) {
            if (r->known_n[known_names[i].id]++ == 0)
                r->known[known_names[i].id] = text;
            break;
        }
    }
    return MHD_YES;
}

static bool refuse(struct request *r, enum pf_err e, const char *detail)
{
    if (r->refusal == PFE_OK) {
        r->refusal = e;
        r->refusal_detail = detail;
    }
    return false;
}

/* How long the body is must be said in one way. */
static bool framing_ok(struct request *r, const struct collect *c)
{
    if (c->broken)
        return refuse(r, PFE_BAD_HEADER, "A header line is folded, holds a NUL byte, or does not end in CR LF.");
    if (c->bad_name)
        return refuse(r, PFE_BAD_HEADER, "A header name holds a byte that it may not.");
    unsigned lengths = r->known_n[H_CONTENT_LENGTH], codings = r->known_n[H_TRANSFER_ENCODING];
    if (lengths + codings > 1)
        return refuse(r, PFE_BAD_REQUEST, "The length of the body is given more than once.");
    if (codings && !str_eq_nocase(r->known[H_TRANSFER_ENCODING], STR("chunked")))
        return refuse(r, PFE_BAD_REQUEST, "The only Transfer-Encoding is chunked.");
    if (lengths && !str_to_u64(r->known[H_CONTENT_LENGTH], &r->content_length))
        return refuse(r, PFE_BAD_REQUEST, "Content-Length is not a number.");
    r->chunked = codings > 0;
    /* MHD lets a bare CR or LF end a chunk's line, where a server in front may read on: whatever that one takes for the
     * next request must not be one here. */
    r->close |= r->chunked;
    return true;
}

static bool headers_ok(struct request *r, const struct collect *c, const char *version)
{
    if (c->bad_value)
        return refuse(r, PFE_BAD_HEADER, "A header value holds control bytes or is not UTF-8.");
    if (r->known_n[H_HOST] > 1)
        return refuse(r, PFE_BAD_REQUEST, "There is more than one Host header.");
    if (r->known_n[H_HOST] == 0 && strcmp(version, "HTTP/1.0") != 0)
        return refuse(r, PFE_BAD_REQUEST, "There is no Host header.");
    return true;
}

static void read_method(struct request *r, const char *method)
{
    r->verb = VERB_ROUTE;
    for (int m = 0; m < HTTP_METHODS; m++) {
        if (strcmp(method, http_method_name((enum http_method)m)) == 0) {
            r->pub.method = (enum http_method)m;
            return;
        }
    }
    if (strcmp(method, "HEAD") == 0)
        r->verb = VERB_HEAD;
    else
        r->verb = strcmp(method, "OPTIONS") == 0 ? VERB_OPTIONS : VERB_OTHER;
}

/* Cuts the target into path and query: "/a?b", "http://host/a?b", or "*" for OPTIONS. */
static bool split_target(struct request *r, struct str *ret_query)
{
    struct str t = {r->target, r->target_n};
    *ret_query = STR_NONE;
    for (size_t i = 0; i < t.n; i++) {
        uint8_t c = (uint8_t)t.p[i];
        if (c <= 0x20 || c == 0x7f || c == '#')
            return refuse(r, PFE_BAD_REQUEST, "The request target holds a byte that must be escaped.");
    }
    if (t.n > 7 && (str_eq_nocase((struct str){t.p, 7}, STR("http://")) ||
                    (t.n > 8 && str_eq_nocase((struct str){t.p, 8}, STR("https://"))))) {
        const char *host = (const char *)memchr(t.p, '/', t.n) + 2, *end = t.p + t.n;
        const char *path = host;
        while (path < end && *path != '/' && *path != '?')
            path++;
        if (path == host)
            return refuse(r, PFE_BAD_REQUEST, "The request target names no host.");
        t = path == end || *path == '?' ? STR("/") : (struct str){path, (size_t)(end - path)};
        if (path < end && *path == '?')
            *ret_query = (struct str){path + 1, (size_t)(end - path - 1)};
    }
    const char *mark = memchr(t.p, '?', t.n);
    if (mark) {
        *ret_query = (struct str){mark + 1, (size_t)(t.p + t.n - mark - 1)};
        t.n = (size_t)(mark - t.p);
    }
    if (t.n == 0 || (t.p[0] != '/' && !(r->verb == VERB_OPTIONS && str_is(t, "*"))))
        return refuse(r, PFE_BAD_REQUEST, "The request target is not a path.");
    r->pub.path = t;
    r->pub.target = (struct str){t.p, ret_query->p ? (size_t)(ret_query->p + ret_query->n - t.p) : t.n};
    return true;
}

static void find_route(struct request *r)
{
    struct router_match m;
    if (!router_find(r->server->router, &r->pub.arena, r->pub.path, &m)) {
        if (m.bad)
            refuse(r, PFE_BAD_REQUEST, "The path holds a bad percent escape, NUL, or is not UTF-8.");
        else
            refuse(r, PFE_NOT_FOUND, "There is nothing at this path.");
        return;
    }
    r->routes = m.routes;
    if (r->verb == VERB_OPTIONS)
        return;
    const struct http_route *route = r->verb == VERB_OTHER ? NULL : m.routes[r->pub.method];
    if (!route) {
        refuse(r, PFE_METHOD, "The Allow header lists the methods that this path takes.");
        return;
    }
    r->pub.route = route;
    r->pub.pattern = str_c(route->pattern);
    memcpy(r->pub.params, m.params, sizeof r->pub.params);
    if (route->body_max)
        r->body_max = route->body_max;
    if (route->relayed)
        r->body_max = SIZE_MAX;
    if (r->body_max > HTTP_BODY_DEFAULT && !route->relayed)
        r->pub.arena.limit = 64u << 20;
}

static bool parse_query(struct request *r, struct str q)
{
    if (q.n == 0)
        return true;
    size_t most = 1;
    for (size_t i = 0; i < q.n; i++)
        most += q.p[i] == '&';
    if (most > HTTP_QUERY_MAX)
        return refuse(r, PFE_BAD_QUERY, "There are too many query parameters.");
    struct http_pair *pairs = arena_alloc(&r->pub.arena, most * sizeof *pairs);
    if (!pairs)
        return refuse(r, PFE_NOMEM, NULL);
    unsigned n = 0;
    for (const char *p = q.p, *end = q.p + q.n; p < end;) {
        const char *amp = memchr(p, '&', (size_t)(end - p));
        const char *stop = amp ? amp : end;
        const char *eq = memchr(p, '=', (size_t)(stop - p));
        struct str name = {p, (size_t)((eq ? eq : stop) - p)};
        struct str value = eq ? (struct str){eq + 1, (size_t)(stop - eq - 1)} : STR("");
        p = stop + 1;
        if (!eq && name.n == 0)
            continue;
        if (name.n == 0)
            return refuse(r, PFE_BAD_QUERY, "A query parameter has no name.");
        struct http_pair *pair = &pairs[n];
        if (!url_decode(&r->pub.arena, name, true, &pair->name) ||
            !url_decode(&r->pub.arena, value, true, &pair->value))
            return refuse(r, PFE_BAD_QUERY, "The query holds a bad percent escape, NUL, or is not UTF-8.");
        for (unsigned i = 0; i < n; i++) {
            if (str_eq(pairs[i].name, pair->name))
                return refuse(r, PFE_BAD_QUERY, "A query parameter occurs twice.");
        }
        n++;
    }
    r->pub.query = pairs;
    r->pub.n_query = n;
    return true;
}

enum pf_err http_check_query(struct http_req *pub, const char **ret_detail)
{
    struct request *r = (struct request *)pub;
    if (pub->target.n <= pub->path.n + 1)
        return PFE_OK;
    parse_query(r, (struct str){pub->target.p + pub->path.n + 1, pub->target.n - pub->path.n - 1});
    enum pf_err e = r->refusal;
    *ret_detail = r->refusal_detail;
    r->refusal = PFE_OK;
    return e;
}

bool http_idempotency_key(struct str v, struct problem *p, struct str *ret)
{
    v = str_trim(v);
    if (v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"')
        v = (struct str){v.p + 1, v.n - 2};
    bool ok = v.n > 0 && v.n <= 255;
    for (size_t i = 0; ok && i < v.n; i++)
        ok = v.p[i] >= 0x20 && v.p[i] < 0x7f;
    if (ok)
        *ret = v;
    else
        problem_set(p, PFE_BAD_HEADER, "Idempotency-Key must be 1 to 255 printable ASCII characters");
    return ok;
}

bool http_is_json(struct str type, struct str coding)
{
    if (type.n == 0 || (coding.n > 0 && !str_eq_nocase(coding, STR("identity"))))
        return false;
    const char *semicolon = memchr(type.p, ';', type.n);
    if (semicolon)
        type.n = (size_t)(semicolon - type.p);
    type = str_trim(type);
    if (str_eq_nocase(type, STR("application/json")))
        return true;
    return type.n > 5 && memchr(type.p, '/', type.n) &&
           str_eq_nocase((struct str){type.p + type.n - 5, 5}, STR("+json"));
}

bool request_is_json(const struct request *r)
{
    if (r->pub.route && r->pub.route->relayed)
        return true; /* of whatever type: its own server judges it */
    return r->known_n[H_CONTENT_TYPE] == 1 && http_is_json(r->known[H_CONTENT_TYPE], r->known[H_CONTENT_ENCODING]);
}

bool request_parse(struct request *r, const char *method, const char *version)
{
    struct collect c = {.r = r, .line = next_line(version + strlen(version))};
    MHD_get_connection_values_n(r->conn, MHD_HEADER_KIND, collect_header, &c);
    const union MHD_ConnectionInfo *size = MHD_get_connection_info(r->conn, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    bool too_many = r->n_headers > HTTP_HEADERS_MAX;
    if (too_many)
        r->n_headers = HTTP_HEADERS_MAX;
    else /* behind the last line there is nothing but the empty one */
        c.broken |= !size || next_line(c.line) != method + size->header_size;
    r->raw = (struct str){method, size ? size->header_size : 0};
    request_make_id(r);
    request_make_trace(r);
    read_method(r, method);
    r->pub.path = STR("/");
    bool cut = r->target + r->target_n + 1 != version; /* MHD sees the target end at a NUL byte that was sent */
    struct str query = STR_NONE;
    if (!framing_ok(r, &c))
        return false;
    if (too_many || size->header_size > HTTP_HEADER_BYTES_MAX) {
        refuse(r, PFE_HEADERS_TOO_LARGE, "The limit is 16 KiB, and 100 headers.");
        return !too_many; /* of those behind the limit none has been checked */
    }
    if (!headers_ok(r, &c, version))
        return true;
    if (cut) {
        refuse(r, PFE_BAD_REQUEST, "The request line is malformed.");
        return true;
    }
    if (!split_target(r, &query))
        return true;
    if (str_is(r->pub.path, "*"))
        return true;
    find_route(r);
    r->pub.head = r->verb == VERB_HEAD;
    if (r->refusal == PFE_OK && r->verb != VERB_OPTIONS && !r->pub.route->relayed)
        parse_query(r, query);
    return true;
}

static void rebase(struct str *s, struct str from, const char *to)
{
    if (!s->p || s->p < from.p || s->p > from.p + from.n)
        return;
    *s = to ? (struct str){to + (s->p - from.p), s->n} : STR("");
}

void request_detach(struct request *r)
{
    const char *to = arena_strdup(&r->pub.arena, r->raw).p;
    struct http_pair *query = (struct http_pair *)r->pub.query; /* made here, in the arena */
    rebase(&r->pub.path, r->raw, to);
    rebase(&r->pub.target, r->raw, to);
    for (unsigned i = 0; i < HTTP_PARAMS_MAX; i++)
        rebase(&r->pub.params[i], r->raw, to);
    for (unsigned i = 0; i < r->pub.n_query; i++) {
        rebase(&query[i].name, r->raw, to);
        rebase(&query[i].value, r->raw, to);
    }
    for (unsigned i = 0; i < r->n_headers; i++) {
        rebase(&r->headers[i].name, r->raw, to);
        rebase(&r->headers[i].value, r->raw, to);
    }
    for (unsigned i = 0; i < H_KNOWN; i++)
        rebase(&r->known[i], r->raw, to);
}
