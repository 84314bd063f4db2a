/* One call over HTTP. */
#include <stdio.h>
#include <stdlib.h>

#include "registry/consul/internal.h"

enum { CONNECT_MS = 2000, POLL_MS = 1000 };

/* ---- where */

static bool host_port_ok(struct str s)
{
    struct str host = s, port = STR_NONE;
    uint64_t v;
    for (size_t i = s.n; i > 0; i--) {
        if (s.p[i - 1] == ':') {
            host.n = i - 1;
            port = (struct str){s.p + i, s.n - i};
            break;
        }
    }
    if (!str_to_u64(port, &v) || v < 1 || v > 65535 || host.n == 0 || host.n > 255)
        return false;
    bool v6 = host.p[0] == '[';
    if (v6 && (host.n < 4 || host.p[host.n - 1] != ']'))
        return false;
    for (size_t i = v6; i < host.n - v6; i++) {
        char c = host.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              strchr(v6 ? ":." : ".-_", c)))
            return false;
    }
    return true;
}

static bool header_ok(const char *s)
{
    for (; *s; s++)
        if (*s <= 0x20 || *s > 0x7e)
            return false;
    return true;
}

static char *join(const char *a, struct str b)
{
    char *z = NULL;
    return asprintf(&z, "%s%.*s", a, (int)b.n, b.p) < 0 ? NULL : z;
}

static bool add_header(struct where *w, const char *line)
{
    struct curl_slist *more = curl_slist_append(w->headers, line);
    if (more)
        w->headers = more;
    return more != NULL;
}

static bool add_token(struct where *w, const char *token)
{
    char *line = join("X-Consul-Token: ", str_c(token));
    bool ok = line && add_header(w, line);
    if (line)
        explicit_bzero(line, strlen(line));
    free(line);
    return ok;
}

static enum pf_err refuse(char why[WHY_MAX], const char *what)
{
    snprintf(why, WHY_MAX, "%s", what);
    return PFE_INVALID;
}

enum pf_err consul_where_init(struct where *w, const struct registry_consul_options *o, char why[WHY_MAX])
{
    struct str a = str_c(o->address), unix_ = STR("unix://"), http = STR("http://"), https = STR("https://");
    const char *scheme = "http://", *token = o->token ? o->token : "", *dc = o->datacenter ? o->datacenter : "";
    bool local = str_starts(a, unix_);
    char escaped[ESCAPED_MAX];
    struct str rest = a;
    if (local) {
        rest = (struct str){a.p + unix_.n, a.n - unix_.n};
    } else if (str_starts(a, https)) {
        scheme = "https://";
        rest = (struct str){a.p + https.n, a.n - https.n};
    } else if (str_starts(a, http)) {
        rest = (struct str){a.p + http.n, a.n - http.n};
    }
    while (!local && rest.n && rest.p[rest.n - 1] == '/')
        rest.n--;
    if (local ? rest.n < 2 || rest.n > 107 || rest.p[0] != '/' : !host_port_ok(rest))
        return refuse(why, "the address of Consul must be [http://|https://]HOST:PORT or unix:///PATH");
    if (!header_ok(token) || strlen(token) > 4096)
        return refuse(why, "the token for Consul must be printable ASCII without spaces, at most 4096 bytes");
    if (strlen(dc) >= REGISTRY_NAME_MAX)
        return refuse(why, "the name of Consul's datacenter is longer than 63 bytes");
    consul_talk_escape(dc, escaped);
    snprintf(w->dc, sizeof w->dc, "%s%s", *dc ? "&dc=" : "", escaped);
    w->base = local ? strdup("http://localhost") : join(scheme, rest);
    w->socket = local ? join("", rest) : NULL;
    w->ca_file = o->ca_file && *o->ca_file ? strdup(o->ca_file) : NULL;
    if (w->base && (!local || w->socket) && (w->ca_file || !o->ca_file || !*o->ca_file) &&
        add_header(w, "Content-Type: application/json") && (!*token || add_token(w, token)))
        return PFE_OK;
    snprintf(why, WHY_MAX, "out of memory");
    return PFE_NOMEM;
}

void consul_where_fini(struct where *w)
{
    for (struct curl_slist *h = w->headers; h; h = h->next)
        explicit_bzero(h->data, strlen(h->data)); /* one holds the token */
    curl_slist_free_all(w->headers);
    free(w->base);
    free(w->socket);
    free(w->ca_file);
}

void consul_talk_escape(const char *s, char out[ESCAPED_MAX])
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    for (; *s && n + 4 <= ESCAPED_MAX; s++) {
        char c = *s;
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-_.~", c)) {
            out[n++] = c;
            continue;
        }
        out[n++] = '%';
        out[n++] = hex[(unsigned char)c >> 4];
        out[n++] = hex[c & 15];
    }
    out[n] = '\0';
}

/* ---- talker */

bool consul_talker_init(struct talker *t)
{
    buf_init(&t->body, ANSWER_MAX);
    t->easy = curl_easy_init();
    t->multi = curl_multi_init();
    return t->easy && t->multi;
}

void consul_talker_fini(struct talker *t)
{
    curl_easy_cleanup(t->easy);
    if (t->multi)
        curl_multi_cleanup(t->multi);
    buf_free(&t->body);
}

void consul_talker_wake(struct talker *t)
{
    (void)curl_multi_wakeup(t->multi);
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
    struct talker *t = ctx;
    buf_put(&t->body, p, size * n);
    t->too_large |= t->body.failed;
    return t->body.failed ? 0 : size * n;
}

static size_t on_head(char *p, size_t size, size_t n, void *ctx)
{
    static const struct str name = STR("x-consul-index:");
    struct talker *t = ctx;
    struct str line = {p, size * n};
    uint64_t v;
    if (t->head == 0)
        t->begun_us = consul_now();
    t->head += line.n;
    t->too_large |= t->head > ANSWER_HEAD_MAX;
    if (line.n > name.n && str_eq_nocase((struct str){line.p, name.n}, name) &&
        str_to_u64(str_trim((struct str){line.p + name.n, line.n - name.n}), &v) && v > 0)
        t->index = v;
    return t->too_large ? 0 : line.n;
}

static bool prepare(struct talker *t, const struct where *w, const char *method, const char *path, struct str body,
                    int64_t timeout_ms)
{
    CURL *e = t->easy;
    char *url = join(w->base, str_c(path));
    curl_easy_reset(e);
    bool ok = url && curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method) == CURLE_OK;
    free(url);
    if (ok && body.p) {
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.n);
        ok = curl_easy_setopt(e, CURLOPT_COPYPOSTFIELDS, body.p) == CURLE_OK;
    }
    if (ok && w->socket)
        ok = curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, w->socket) == CURLE_OK;
    if (ok && w->ca_file)
        ok = curl_easy_setopt(e, CURLOPT_CAINFO, w->ca_file) == CURLE_OK;
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, w->headers);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* a name server that is silent holds nobody up */
    curl_easy_setopt(e, CURLOPT_USERAGENT, "payflow");
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_head);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    return ok;
}

/* Whether an answer that has begun has stopped coming. A query may wait long for its answer's beginning, not for its
 * end. */
static bool stalled(const struct talker *t, int64_t rest_ms)
{
    return t->head && consul_now() - t->begun_us > rest_ms * 1000;
}

static CURLcode run(struct talker *t, int64_t rest_ms)
{
    CURLcode result = CURLE_FAILED_INIT;
    int running = 1, left;
    if (curl_multi_add_handle(t->multi, t->easy) != CURLM_OK)
        return result;
    while (running && !stalled(t, rest_ms) && !(t->stop && atomic_load(t->stop)) &&
           curl_multi_perform(t->multi, &running) == CURLM_OK) {
        if (running)
            (void)curl_multi_poll(t->multi, NULL, 0, POLL_MS, NULL);
    }
    const CURLMsg *m = curl_multi_info_read(t->multi, &left);
    if (!running && m && m->msg == CURLMSG_DONE)
        result = m->data.result;
    else if (t->stop && atomic_load(t->stop))
        result = CURLE_ABORTED_BY_CALLBACK;
    else if (stalled(t, rest_ms))
        result = CURLE_OPERATION_TIMEDOUT;
    curl_multi_remove_handle(t->multi, t->easy);
    return result;
}

long consul_talk(struct talker *t, const struct where *w, const char *method, const char *path, struct str body,
                 int64_t timeout_ms, char why[WHY_MAX])
{
    long status = 0;
    buf_clear(&t->body);
    t->head = 0;
    t->index = 1;
    t->too_large = false;
    CURLcode code = prepare(t, w, method, path, body, timeout_ms) ? run(t, w->rest_ms) : CURLE_OUT_OF_MEMORY;
    if (code == CURLE_OK)
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200)
        snprintf(why, WHY_MAX, "%s", t->too_large ? "the answer is too large" : curl_easy_strerror(code));
    else if (status != 200)
        snprintf(why, WHY_MAX, "HTTP %ld", status);
    return status < 200 ? 0 : status;
}
