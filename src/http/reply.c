/* Answers: bodies, problems, embedded files; and handing them to MHD. */
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "codec/json_out.h"
#include "http/internal.h"

const char http_json[] = "application/json";
static const char problem_json[] = "application/problem+json";

static struct request *of(struct http_req *r)
{
    return (struct request *)r;
}

void http_set_header(struct http_req *pub, const char *name, struct str value)
{
    struct request *r = of(pub);
    struct str n = arena_strdup(&pub->arena, str_c(name)), v = arena_strdup(&pub->arena, str_trim(value));
    if (r->n_set == HEADERS_SET_MAX || !n.p || !v.p || v.n == 0)
        return;
    for (size_t i = 0; i < v.n; i++) {
        uint8_t c = (uint8_t)v.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return; /* a line end here would be a header of the client's making */
    }
    r->set[r->n_set++] = (struct set_header){n.p, v.p};
}

/* body stays until the request is released, which MHD reports before it drops the answer but after its last use of the
 * bytes: so nothing is copied. */
static bool queue(struct request *r, const struct answer *a)
{
    struct MHD_Response *m = a->relay ? relay_response(r, a)
                                      : MHD_create_response_from_buffer(a->body.n, (void *)(a->body.n ? a->body.p : ""),
                                                                        MHD_RESPMEM_PERSISTENT);
    if (!m)
        return false;
    bool ok = true;
    for (unsigned i = 0; a->relay && i < a->relay->n_headers; i++)
        ok &= MHD_add_response_header(m, a->relay->headers[i].name.p, a->relay->headers[i].value.p) == MHD_YES;
    for (unsigned i = 0; i < a->n_headers; i++)
        ok &= MHD_add_response_header(m, a->headers[i].name, a->headers[i].value) == MHD_YES;
    ok = ok && MHD_queue_response(r->conn, (unsigned)a->status, m) == MHD_YES;
    MHD_destroy_response(m);
    return ok;
}

/* Without queueing: the whole answer into the socket, or not. */
static bool send_as_bytes(struct request *r, struct answer *a, int fd)
{
    struct buf head = {0};
    char date[40];
    time_t now = (time_t)(clock_wall(r->server->clock) / 1000000);
    struct tm tm;
    r->close = true;
    answer_headers(r, a);
    gmtime_r(&now, &tm);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm); /* the program stays in the C locale */
    buf_printf(&head, "HTTP/1.1 %d %s\r\nDate: %s\r\n", a->status, MHD_get_reason_phrase_for((unsigned)a->status),
               date);
    if (a->status != 204 && a->status != 304)
        buf_printf(&head, "Content-Length: %zu\r\n", a->body.n);
    for (unsigned i = 0; i < a->n_headers; i++)
        buf_printf(&head, "%s: %s\r\n", a->headers[i].name, a->headers[i].value);
    for (unsigned i = 0; a->relay && i < a->relay->n_headers; i++)
        buf_printf(&head, "%s: %s\r\n", a->relay->headers[i].name.p, a->relay->headers[i].value.p);
    buf_puts(&head, "\r\n");
    struct iovec parts[2] = {{head.p, head.n}, {(void *)a->body.p, r->verb == VERB_HEAD ? 0 : a->body.n}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t all = (ssize_t)(parts[0].iov_len + parts[1].iov_len);
    bool ok = !head.failed && sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == all;
    buf_free(&head);
    return ok;
}

/* While the body still arrives, MHD takes no answer: see body.c. */
static void finish_early(struct request *r, struct answer *a)
{
    r->uploading = false;
    r->failed = r->server->tls || !r->client || (a->relay && a->relay->down) || !send_as_bytes(r, a, r->client->fd);
    if (r->failed)
        return;
    shutdown(r->client->fd, SHUT_WR);
    r->body_max = r->body_seen;
    r->phase = PHASE_LINGER;
}

void reply_finish(struct request *r, struct answer *a)
{
    if (r->phase == PHASE_REPLIED)
        return;
    bool was_handled = r->phase == PHASE_RUNNING;
    bool streams = a->relay && a->relay->down && a->relay->length > 0;
    observe(r, a->status, r->verb == VERB_HEAD ? 0 : streams ? (size_t)a->relay->length : a->body.n);
    r->phase = PHASE_REPLIED;
    if (r->orphan)
        return;
    if (r->uploading) {
        finish_early(r, a);
    } else if (!r->gone) {
        answer_headers(r, a);
        if (!(a->relay && a->relay->down))
            watch_answer(r, a->body.n);
        r->failed = !queue(r, a);
        /* MHD allocates each header; one piece may be had when some of those were not */
        if (r->failed && r->client && !r->server->tls)
            (void)send_as_bytes(r, a, r->client->fd);
    } else if (r->client && !r->server->tls && !(a->relay && a->relay->down)) {
        /* What MHD takes for the client's end may be the end of its sending only (RFC 9112 9.6), and it may have moved
         * money: the socket is still open. */
        (void)send_as_bytes(r, a, r->client->fd);
    }
    atomic_store_explicit(&r->io->requests, atomic_load_explicit(&r->io->requests, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    if (was_handled)
        count_add(&r->io->handling, -1);
}

static bool is_json_type(const char *type)
{
    return type == http_json || type == problem_json || (type && strstr(type, "json"));
}

static bool sets(const struct request *r, const char *name)
{
    for (unsigned i = 0; i < r->n_set; i++) {
        if (str_eq_nocase(str_c(r->set[i].name), str_c(name)))
            return true;
    }
    return false;
}

static void finish_body(struct request *r, int status, const char *content_type, struct str body)
{
    struct answer a = {.status = status, .content_type = content_type, .body = body};
    if (status == 204 || status == 304) {
        a.content_type = NULL;
        a.body = STR_NONE;
    } else if (body.n > GZIP_LEAST && is_json_type(content_type) && !r->orphan && !sets(r, "content-encoding")) {
        a.vary_encoding = true;
        if (accepts_gzip(r->known[H_ACCEPT_ENCODING]) && request_deflate(r, body)) {
            a.content_encoding = "gzip";
            a.body = buf_as_str(&r->zip);
        }
    }
    reply_finish(r, &a);
}

void http_reply(struct http_req *r, int status, const char *content_type, struct str body)
{
    buf_clear(&r->out);
    buf_str(&r->out, body);
    http_reply_out(r, status, content_type);
}

void http_reply_out(struct http_req *r, int status, const char *content_type)
{
    if (r->out.failed)
        reply_refusal(of(r), PFE_NOMEM, NULL);
    else
        finish_body(of(r), status, content_type, buf_as_str(&r->out));
}

/* RFC 9110 13.1.2, weak comparison: the same opaque part somewhere in the list. */
static bool etag_matches(struct str list, const char *etag)
{
    struct str want = str_c(etag);
    while (list.n > 0) {
        const char *comma = memchr(list.p, ',', list.n);
        struct str one = {list.p, comma ? (size_t)(comma - list.p) : list.n};
        list = comma ? (struct str){comma + 1, list.n - one.n - 1} : STR_NONE;
        one = str_trim(one);
        if (str_is(one, "*"))
            return true;
        if (one.n > 2 && memcmp(one.p, "W/", 2) == 0)
            one = (struct str){one.p + 2, one.n - 2};
        if (str_eq(one, want))
            return true;
    }
    return false;
}

void http_reply_static(struct http_req *pub, int status, const char *content_type, const char *encoding,
                       const char *etag, struct str bytes)
{
    struct request *r = of(pub);
    char weak[80];
    struct answer a = {.status = status,
                       .content_type = content_type,
                       .etag = etag,
                       .cache_control = "public, max-age=3600",
                       .vary_encoding = encoding != NULL,
                       .body = bytes};
    /* The file has two representations then, plain and compressed, so its tag can only be a weak one. */
    if (etag && encoding && (size_t)snprintf(weak, sizeof weak, "W/%s", etag) < sizeof weak)
        a.etag = weak;
    if (etag && status == 200 && etag_matches(r->known[H_IF_NONE_MATCH], etag)) {
        a.status = 304;
        a.content_type = NULL;
        a.body = STR_NONE;
    } else if (encoding && accepts_gzip(r->known[H_ACCEPT_ENCODING])) {
        a.content_encoding = encoding;
    } else if (encoding) {
        enum pf_err e = server_plain(r->server, bytes, &a.body);
        if (e != PFE_OK) {
            reply_refusal(r, e, NULL);
            return;
        }
    }
    reply_finish(r, &a);
}

/* "transactions.3.amount" is three parts of which the second is an index. */
static void put_loc(struct jw *w, const char *in, const char *name)
{
    jw_arr(w);
    jw_str(w, str_c(in));
    for (struct str rest = str_c(name); rest.n > 0;) {
        const char *dot = memchr(rest.p, '.', rest.n);
        struct str part = {rest.p, dot ? (size_t)(dot - rest.p) : rest.n};
        rest = dot ? (struct str){dot + 1, rest.n - part.n - 1} : STR_NONE;
        uint64_t index;
        if (part.n > 0 && str_to_u64(part, &index))
            jw_uint(w, index);
        else
            jw_str(w, part);
    }
    jw_end_arr(w);
}

/* The path as a URI reference: bytes that may not stand in one are escaped, so that the JSON is UTF-8 in any case. */
static struct str instance_of(struct request *r)
{
    struct str path = r->pub.path;
    size_t odd = 0;
    for (size_t i = 0; i < path.n; i++)
        odd += (uint8_t)path.p[i] <= 0x20 || (uint8_t)path.p[i] >= 0x7f;
    if (odd == 0)
        return path;
    char *out = arena_alloc(&r->pub.arena, path.n + 2 * odd + 1);
    if (!out)
        return STR_NONE;
    size_t n = 0;
    for (size_t i = 0; i < path.n; i++) {
        uint8_t c = (uint8_t)path.p[i];
        if (c <= 0x20 || c >= 0x7f) {
            out[n++] = '%';
            out[n++] = "0123456789ABCDEF"[c >> 4];
            c = (uint8_t) "0123456789ABCDEF"[c & 15];
        }
        out[n++] = (char)c;
    }
    return (struct str){out, n};
}

static void put_problem(struct buf *out, enum pf_err e, const char *detail, const struct problem_field *fields,
                        int n_fields, struct str instance, struct str request_id)
{
    const struct err_info *info = err_info(e);
    char type[64];
    snprintf(type, sizeof type, "/problems/%s", info->slug);
    struct jw w;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kz(&w, "type", type);
    jw_kz(&w, "title", info->title);
    jw_kint(&w, "status", info->http);
    jw_kz(&w, "detail", detail && detail[0] ? detail : info->text);
    if (instance.n)
        jw_kstr(&w, "instance", instance);
    if (request_id.n)
        jw_kstr(&w, "request_id", request_id);
    jw_kz(&w, "error", info->title);
    jw_kint(&w, "code", info->http);
    if (n_fields > 0) {
        jw_key(&w, "errors");
        jw_arr(&w);
        for (int i = 0; i < n_fields && i < PROBLEM_FIELDS_MAX; i++) {
            jw_obj(&w);
            jw_key(&w, "loc");
            put_loc(&w, fields[i].in, fields[i].name);
            jw_kz(&w, "msg", fields[i].msg);
            jw_kz(&w, "type", fields[i].type);
            jw_end_obj(&w);
        }
        jw_end_arr(&w);
    }
    jw_end_obj(&w);
}

void http_problem_json(struct buf *out, const struct problem *p, struct str instance, struct str request_id)
{
    put_problem(out, p->code, p->detail, p->fields, p->n_fields, instance, request_id);
}

static void set_problem_headers(struct request *r, enum pf_err e, int retry_after_s)
{
    int status = err_info(e)->http;
    if (status == 401)
        http_set_header(&r->pub, "WWW-Authenticate",
                        e == PFE_BAD_CREDENTIALS
                            ? STR("Bearer realm=\"payflow\", error=\"invalid_token\", ApiKey realm=\"payflow\"")
                            : STR("Bearer realm=\"payflow\", ApiKey realm=\"payflow\""));
    if (status == 405 && !sets(r, "allow"))
        http_set_header(&r->pub, "Allow", str_c(answer_allow(r)));
    if (status == 429 || status == 503 || retry_after_s > 0) {
        int n = snprintf(r->retry_text, sizeof r->retry_text, "%d", retry_after_s > 0 ? retry_after_s : 1);
        http_set_header(&r->pub, "Retry-After", (struct str){r->retry_text, (size_t)n});
    }
}

static void send_problem(struct request *r, enum pf_err e, const char *detail, const struct problem_field *fields,
                         int n_fields, int retry_after_s)
{
    static const char refused[] = "{\"type\":\"/problems/out-of-memory\",\"title\":\"Out of memory\",\"status\":503,"
                                  "\"error\":\"Out of memory\",\"code\":503}";
    static const char unknown[] = "{\"type\":\"/problems/internal-error\",\"title\":\"Internal error\",\"status\":500,"
                                  "\"error\":\"Internal error\",\"code\":500}";
    int status = err_info(e)->http;
    set_problem_headers(r, e, retry_after_s);
    buf_clear(&r->pub.out);
    put_problem(&r->pub.out, e, detail, fields, n_fields, instance_of(r), r->pub.request_id);
    if (!r->pub.out.failed)
        finish_body(r, status, problem_json, buf_as_str(&r->pub.out));
    else if (status == 500) /* a write's outcome is unknown: a 503 would say that nothing was done */
        finish_body(r, 500, problem_json, str_c(unknown));
    else
        finish_body(r, 503, problem_json, str_c(refused));
}

void http_reply_problem(struct http_req *r, const struct problem *p)
{
    enum pf_err e = p->code == PFE_OK ? PFE_INTERNAL : p->code;
    send_problem(of(r), e, p->detail, p->fields, p->n_fields, p->retry_after_s);
}

void reply_refusal(struct request *r, enum pf_err e, const char *detail)
{
    send_problem(r, e, detail, NULL, 0, 0);
}

void reply_options(struct request *r)
{
    struct answer a = {.status = 204};
    http_set_header(&r->pub, "Allow",
                    r->routes ? str_c(answer_allow(r)) : STR("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"));
    reply_finish(r, &a);
}

bool reply_as_bytes(struct request *r, enum pf_err e, const char *detail, int fd)
{
    const struct err_info *info = err_info(e);
    struct buf body = {0};
    put_problem(&body, e, detail, NULL, 0, instance_of(r), r->pub.request_id);
    struct answer a = {.status = info->http, .content_type = problem_json, .body = buf_as_str(&body)};
    bool ok = !body.failed && send_as_bytes(r, &a, fd);
    if (ok)
        observe(r, info->http, body.n);
    buf_free(&body);
    return ok;
}
