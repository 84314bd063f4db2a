/*
 * One attempt over HTTP/1.1, with libcurl.
 *
 * libcurl sends a request again by itself when a kept connection turns out to be closed. It tells us of each request
 * before it is sent (CURLOPT_PREREQFUNCTION), so a second one is refused unless the request is safe.
 */
#include <errno.h>
#include <stdlib.h>

#include "gateway/headers.h"
#include "gateway/internal.h"

/* ---- what libcurl tells */

static int on_request(void *ctx, char *to, char *from, int to_port, int from_port)
{
    (void)to;
    (void)from;
    (void)to_port;
    (void)from_port;
    struct exchange *x = ctx;
    if (x->requests++ > 0 && (!x->safe || x->consumed))
        return CURL_PREREQFUNC_ABORT;
    return CURL_PREREQFUNC_OK;
}

static size_t garbage(struct exchange *x)
{
    x->garbage = true;
    return 0;
}

static bool status_line(struct exchange *x, struct str line)
{
    /* "HTTP/1.1 200 …": libcurl has read it too, more leniently */
    if (line.n < 12 || memcmp(line.p, "HTTP/1.", 7) != 0 || line.p[8] != ' ')
        return false;
    int status = 0;
    for (int i = 9; i < 12; i++) {
        if (line.p[i] < '0' || line.p[i] > '9')
            return false;
        status = status * 10 + line.p[i] - '0';
    }
    if ((line.n > 12 && line.p[12] != ' ') || status < 100 || status > 599)
        return false;
    transfer_reset(x);
    x->status = status;
    x->in_head = true;
    return true;
}

static bool head_over(struct exchange *x)
{
    x->in_head = false;
    if (x->status == 101 || (x->chunked && x->length >= 0)) /* we ask for no upgrade; and a length is said in one way */
        return false;
    if (x->status < 200)
        return true;
    x->head_done = true;
    x->head_us = gateway_now();
    return true;
}

static bool take_length(struct exchange *x, struct str value)
{
    uint64_t n;
    if (!str_to_u64(value, &n) || n > INT64_MAX || (x->length >= 0 && x->length != (int64_t)n))
        return false;
    x->length = (int64_t)n;
    return true;
}

static size_t on_header(char *p, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    struct str line = {p, size * count};
    const size_t all = line.n;
    while (line.n > 0 && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
        line.n--;
    if (x->head_done)
        return all; /* trailers of a chunked body: they are for this connection */
    if (!x->in_head)
        return status_line(x, line) ? all : garbage(x);
    if (line.n == 0)
        return head_over(x) ? all : garbage(x);
    const char *colon = memchr(line.p, ':', line.n);
    struct str name = {line.p, colon ? (size_t)(colon - line.p) : 0};
    if (!header_name_ok(name)) /* a folded line begins with a blank */
        return garbage(x);
    struct str value = str_trim((struct str){colon + 1, line.n - name.n - 1});
    if (!header_value_ok(value) || x->n_head == HEAD_PAIRS_MAX || x->head.n + line.n > HEAD_BYTES_MAX)
        return garbage(x);
    if (str_eq_nocase(name, STR("content-length")) && !take_length(x, value))
        return garbage(x);
    if (str_eq_nocase(name, STR("transfer-encoding"))) {
        if (x->chunked || !str_eq_nocase(value, STR("chunked")))
            return garbage(x);
        x->chunked = true;
    }
    if (str_eq_nocase(name, STR("retry-after"))) {
        uint64_t s;
        x->retry_after_us = str_to_u64(value, &s) && s < 86400 ? (int64_t)s * 1000000 : 0;
    }
    buf_str(&x->head, name);
    buf_putc(&x->head, '\0');
    buf_str(&x->head, value);
    buf_putc(&x->head, '\0');
    x->n_head++;
    return x->head.failed ? 0 : all;
}

static size_t on_body(char *p, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    size_t n = size * count;
    x->moved_us = gateway_now();
    if (!x->head_done)
        return garbage(x);
    if (!x->streaming) {
        if (x->length <= WHOLE_MAX && x->body_in.n + n <= WHOLE_MAX) {
            buf_put(&x->body_in, p, n);
            x->body_seen += n;
            return x->body_in.failed ? 0 : n;
        }
        if (!exchange_stream(x))
            return 0;
    }
    switch (http_stream_give(x->down, p, n)) {
    case HTTP_STREAM_MORE:
        x->body_seen += n;
        x->full_us = 0;
        return n;
    case HTTP_STREAM_WAIT:
        x->paused_down = true;
        if (!x->full_us)
            x->full_us = x->moved_us;
        return CURL_WRITEFUNC_PAUSE;
    default:
        return 0; /* the client is gone */
    }
}

static size_t on_upload(char *out, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    size_t n = 0;
    switch (http_stream_take(x->up, out, size * count, &n)) {
    case HTTP_STREAM_MORE:
        x->consumed = true;
        x->moved_us = gateway_now();
        return n;
    case HTTP_STREAM_WAIT:
        x->paused_up = true;
        return CURL_READFUNC_PAUSE;
    case HTTP_STREAM_ENDED:
        x->up_ended = true;
        x->moved_us = gateway_now();
        return 0;
    default:
        x->end = END_CANCELLED;
        return CURL_READFUNC_ABORT;
    }
}

/* ---- what it is told */

void transfer_prepare(CURL *easy)
{
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* the loop does not wait for a name server that is silent */
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*"); /* or it would look into the environment each time */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)IDLE_CONN_S);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(CONNECT_US / 1000));
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_upload);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 16384L);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 65536L);
}

static void set_body(struct exchange *x)
{
    CURL *e = x->easy;
    const char *name = x->head_only ? NULL : http_method_name(x->method);
    /* libcurl's own methods first, for each takes back what the others have set */
    if (x->up) {
        curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)x->up_length);
        curl_easy_setopt(e, CURLOPT_READDATA, x);
    } else if (x->head_only) {
        curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    } else if (x->body.n > 0 || (x->method != HTTP_GET && x->method != HTTP_DELETE)) {
        curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(e, CURLOPT_POST, 1L);
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, x->body.n ? x->body.p : "");
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)x->body.n);
        if (x->method == HTTP_POST)
            name = NULL;
    } else {
        curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
        if (x->method == HTTP_GET)
            name = NULL;
    }
    curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, name);
}

bool transfer_start(struct exchange *x)
{
    struct backend *b = x->backend;
    x->easy = gateway_loop_easy(x->loop);
    if (!x->easy)
        return false;
    transfer_reset(x);
    x->attempt_us = x->moved_us = gateway_now();
    set_body(x);
    CURL *e = x->easy;
    CURLcode c = curl_easy_setopt(e, CURLOPT_URL, b->url);
    if (c == CURLE_OK)
        c = curl_easy_setopt(e, CURLOPT_REQUEST_TARGET, x->target.p);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, x->sent);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(e, CURLOPT_PREREQDATA, x);
    curl_easy_setopt(e, CURLOPT_PRIVATE, x);
    if (c == CURLE_OK && curl_multi_add_handle(x->loop->multi, e) == CURLM_OK)
        return true;
    gateway_loop_easy_back(x->loop, e);
    x->easy = NULL;
    return false;
}

void transfer_reset(struct exchange *x)
{
    buf_clear(&x->head);
    buf_clear(&x->body_in);
    x->n_head = 0;
    x->status = 0;
    x->length = -1;
    x->retry_after_us = 0;
    x->body_seen = 0;
    x->in_head = x->head_done = x->garbage = x->chunked = false;
}

enum exchange_end transfer_end(const struct exchange *x, CURLcode code)
{
    if (x->garbage)
        return END_GARBAGE;
    switch (code) {
    case CURLE_OK:
        return x->head_done ? END_ANSWER : END_GARBAGE;
    case CURLE_UNSUPPORTED_PROTOCOL: /* not HTTP/1 */
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_HTTP2:
        return END_GARBAGE;
    case CURLE_OUT_OF_MEMORY:
        return END_NOMEM;
    default:
        break;
    }
    /* a body in chunks that are none */
    if (code == CURLE_RECV_ERROR && x->head_done && x->chunked)
        return END_GARBAGE;
    /* No connection is no proof: it may be the second, made when a kept one was closed behind the request. */
    return x->requests == 0 ? END_NOT_SENT : END_LOST;
}
