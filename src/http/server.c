/*
 * The life of the server and of its requests.
 *
 *   uri_seen ─▶ NEW ─▶ READING ─▶ RUNNING ─▶ REPLIED ─▶ completed
 *                │        │        │   ▲ ▲
 *                │        ▼        ▼   │ │ http_resume
 *                └────▶ LINGER   SUSPENDED
 *
 * MHD calls the access handler once with the headers, once for each piece of body, and once at the end; an answer is
 * queued in that last call, because one queued before it closes the connection.
 *
 * What MHD 0.9.75 refuses before it calls us, with a page of HTML and without our headers: a Content-Length that is no
 * number (400, or 413), a header line without a colon (400), a version other than 1.x (505), what does not fit into
 * CONNECTION_BYTES (431 or 414), a malformed chunk (400). A request line without a target just ends the connection.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/listen.h"
#include "base/log.h"
#include "http/internal.h"
#include "http/proxies.h"

enum {
    THREADS_MAX = 64,
    /* Room to see a request of nearly three times the limit of 16 KiB and refuse it in our own words, beside MHD's
     * records (72 bytes a header, from the same memory). Not more, for MHD zeroes all of it for each request: about
     * 1 µs for every 32 KiB. */
    CONNECTION_BYTES = 49152,
    ARENA_BYTES = 8 << 20,
    CONNECTION_SPARE = 64 /* above max_connections, which the accept policy keeps; MHD would let them wait */
};

static const char tls_priorities[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE";

const char *http_method_name(enum http_method m)
{
    static const char *const names[HTTP_METHODS] = {"GET", "POST", "PUT", "DELETE", "PATCH"};
    return m < HTTP_METHODS ? names[m] : "";
}

/* ---- I/O threads and request objects */

static _Thread_local struct http_io *mine;

void server_take_place(struct http_io *io)
{
    mine = io;
}

void server_resume(struct http_io *io, struct MHD_Connection *conn)
{
    if (!io->daemon || io == mine) {
        if (io->daemon)
            io->resumed = true;
        MHD_resume_connection(conn);
        return;
    }
    /* MHD has nothing to wake a thread with that is not its own. The stop waits for us. */
    atomic_fetch_add(&io->wakers, 1);
    MHD_resume_connection(conn);
    io->resumed = true; /* the pulse may be seen before MHD looks at who is resumed */
    (void)eventfd_write(atomic_load(&io->pulse), 1);
    atomic_fetch_sub(&io->wakers, 1);
}

/* MHD starts the I/O threads and has no callback for that; a thread takes its place at the first callback. */
static struct http_io *io_of(struct http_server *s)
{
    if (!mine || mine->server != s) {
        unsigned i = atomic_fetch_add(&s->next_io, 1);
        if (i >= s->n_io) {
            log_msg(LOG_ERROR, "http: MHD has started more threads than were asked for");
            abort();
        }
        mine = &s->io[i];
    }
    return mine;
}

static struct request *request_new(struct http_server *s)
{
    struct http_io *io = io_of(s);
    struct request *r = io->idle;
    if (r) {
        io->idle = r->next;
        io->n_idle--;
    } else if (posix_memalign((void **)&r, 64, sizeof *r) == 0) {
        buf_init(&r->pub.out, 0);
        buf_init(&r->zip, 0);
    } else {
        return NULL;
    }
    /* The two large blocks are not zeroed: nothing reads them before it writes them. */
    struct buf out = r->pub.out, zip = r->zip;
    memset(r, 0, offsetof(struct request, headers));
    memset(&r->n_headers, 0, offsetof(struct request, set) - offsetof(struct request, n_headers));
    r->n_set = 0;
    r->pub.out = out;
    r->zip = zip;
    r->pub.ctx = s->ctx;
    r->io = io;
    r->server = s;
    r->body_max = HTTP_BODY_DEFAULT;
    arena_init(&r->pub.arena, r->inline_block, sizeof r->inline_block, ARENA_BYTES);
    return r;
}

static void request_destroy(struct request *r)
{
    request_body_drop(r);
    arena_reset(&r->pub.arena);
    buf_free(&r->pub.out);
    buf_free(&r->zip);
    free(r);
}

static void request_keep(struct request *r)
{
    struct http_io *io = r->io;
    if (io->n_idle >= KEEP_REQUESTS) {
        request_destroy(r);
        return;
    }
    request_body_drop(r);
    arena_reset(&r->pub.arena);
    if (r->pub.out.cap > KEEP_BUF_BYTES)
        buf_free(&r->pub.out);
    if (r->zip.cap > 0)
        buf_free(&r->zip);
    buf_clear(&r->pub.out);
    r->next = io->idle;
    io->idle = r;
    io->n_idle++;
}

/* ---- handling */

void request_run(struct request *r, void (*fn)(struct http_req *r))
{
    r->phase = PHASE_RUNNING;
    fn(&r->pub);
}

/* The thread that stops the server reads `arriving` before `handling`: what leaves the one is in the other by then. */
void request_arrived(struct request *r)
{
    if (r->arriving)
        count_add(&r->io->arriving, -1);
    r->arriving = false;
}

/* The whole request is there. */
void request_dispatch(struct request *r)
{
    struct http_server *s = r->server;
    watch_pause(r->client);
    if (r->refusal != PFE_OK) {
        reply_refusal(r, r->refusal, r->refusal_detail);
        return;
    }
    if (r->verb == VERB_OPTIONS) {
        reply_options(r);
        return;
    }
    /* Either stop sees this count, or this thread sees that it is too late. */
    r->counted = true;
    count_add(&r->io->in_flight, 1);
    atomic_store(&r->io->handling, atomic_load_explicit(&r->io->handling, memory_order_relaxed) + 1);
    request_arrived(r);
    metric_add(s->g_in_flight, 1);
    r->phase = PHASE_RUNNING;
    if (r->late || atomic_load(&s->cutting)) {
        r->close = true;
        reply_refusal(r, PFE_DRAINING, NULL);
        return;
    }
    request_run(r, s->handler);
}

/* After the handler or `resumed` returned. The phase is this thread's to read, whoever has the rest of r now. */
static enum MHD_Result after_run(struct request *r)
{
    if (r->phase == PHASE_RUNNING)
        reply_refusal(r, PFE_INTERNAL, NULL);
    return (r->phase == PHASE_REPLIED || r->phase == PHASE_LINGER) && r->failed ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_headers(struct request *r, const char *method, const char *version)
{
    const struct http_server *s = r->server;
    /* Either stop waits for this request, or this thread sees that stop has begun. */
    r->arriving = true;
    atomic_store(&r->io->arriving, atomic_load_explicit(&r->io->arriving, memory_order_relaxed) + 1);
    r->late = atomic_load(&r->server->stopping);
    r->pub.start_us = clock_mono(r->server->clock);
    if (r->client) {
        memcpy(r->pub.peer, r->client->peer, sizeof r->pub.peer);
        watch_expect(r->server, r->client, 1);
        r->body_deadline = atomic_load_explicit(&r->client->deadline, memory_order_relaxed);
    }
    if (r->query_mark) {
        r->query_mark[0] = '?'; /* where MHD has cut the target */
        r->query_mark[1] = r->query_first;
    }
    r->phase = PHASE_READING;
    bool parsed = request_parse(r, method, version), https = false;
    if (s->proxies.n)
        proxies_resolve(&s->proxies, r->headers, r->n_headers, r->pub.peer, &https);
    r->pub.https = s->tls || https;
    if (!parsed) {
        r->close = true;
        reply_refusal(r, r->refusal, r->refusal_detail);
        return r->failed ? MHD_NO : MHD_YES;
    }
    bool waits = r->known_n[H_EXPECT] > 0; /* the client holds its body back: no need to read it off */
    if (r->content_length > r->body_max && (r->refusal == PFE_OK || !waits)) {
        if (!waits) {
            request_too_large(r);
            return r->failed ? MHD_NO : MHD_YES;
        }
        r->refusal = PFE_TOO_LARGE;
        r->refusal_detail = NULL;
    }
    if (r->refusal == PFE_OK && r->content_length > 0 && !request_is_json(r)) {
        r->refusal = PFE_MEDIA_TYPE;
        r->refusal_detail = NULL;
    }
    if (r->refusal == PFE_OK && r->pub.route && s->early && (r->content_length > 0 || r->chunked)) {
        r->refusal_detail = NULL;
        r->refusal = s->early(&r->pub, &r->refusal_detail);
    }
    if (waits && r->refusal != PFE_OK) {
        r->close = true;
        reply_refusal(r, r->refusal, r->refusal_detail);
        return r->failed ? MHD_NO : MHD_YES;
    }
    return MHD_YES;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *conn, const char *url, const char *method,
                                 const char *version, const char *data, size_t *n, void **context)
{
    (void)cls;
    (void)url;
    (void)conn;
    struct request *r = *context;
    if (!r)
        return MHD_NO;
    switch (r->phase) {
    case PHASE_NEW:
        return on_headers(r, method, version);
    case PHASE_READING:
    case PHASE_LINGER:
        if (*n > 0 && r->phase == PHASE_READING && (r->pub.up || relay_streams(r)))
            return relay_body(r, data, n) ? MHD_YES : MHD_NO;
        if (*n > 0) {
            size_t got = *n;
            *n = 0;
            return request_body(r, data, got) ? MHD_YES : MHD_NO;
        }
        if (r->phase == PHASE_LINGER)
            return MHD_NO;
        if (r->pub.up)
            relay_body_end(r);
        else
            request_dispatch(r);
        return after_run(r);
    case PHASE_SUSPENDED:
        request_run(r, r->resumed);
        return after_run(r);
    case PHASE_RUNNING:
    case PHASE_REPLIED:
        break;
    }
    *n = 0;
    return MHD_YES;
}

/* Set when http_suspend has let go of a request whose client is gone: whoever resumes it may have freed it already. */
static _Thread_local bool let_go;

void http_suspend(struct http_req *pub, void (*resumed)(struct http_req *r))
{
    struct request *r = (struct request *)pub;
    r->resumed = resumed;
    r->phase = PHASE_SUSPENDED;
    if (!r->gone) {
        MHD_suspend_connection(r->conn);
        return;
    }
    if (!r->orphan) {
        atomic_fetch_add(&r->server->orphans, 1);
        request_detach(r);
    }
    r->orphan = true;
    let_go = true;
}

/* True: r is still ours. */
static bool run_gone(struct request *r)
{
    let_go = false;
    request_run(r, r->resumed);
    return !let_go;
}

void http_resume(struct http_req *pub)
{
    struct request *r = (struct request *)pub;
    if (!r->orphan) {
        server_resume(r->io, r->conn);
        return;
    }
    struct http_server *s = r->server;
    if (run_gone(r)) {
        request_destroy(r);
        atomic_fetch_sub(&s->orphans, 1);
    }
}

/* ---- callbacks of MHD */

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *conn)
{
    struct request *r = uri ? request_new(cls) : NULL;
    if (!r)
        return NULL;
    r->conn = conn;
    r->client = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    watch_expect(r->server, r->client, 1); /* for the headers */
    r->target = (char *)uri;
    r->target_n = strlen(uri);
    /* MHD would turn every parameter into a record in the connection's memory, and answer by itself when that is used
     * up. We read the query ourselves, so hide it: the bytes are the connection's read buffer, hence writable. */
    r->query_mark = memchr(r->target, '?', r->target_n);
    if (r->query_mark) {
        r->query_first = r->query_mark[1];
        r->query_mark[1] = '\0';
    }
    return r;
}

static size_t on_unescape(void *cls, struct MHD_Connection *conn, char *text)
{
    (void)cls;
    (void)conn;
    return strlen(text); /* escapes are decoded by segment and checked, in router.c */
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **context, enum MHD_RequestTerminationCode why)
{
    (void)conn;
    (void)why;
    struct http_server *s = cls;
    struct request *r = *context;
    *context = NULL;
    if (!r)
        return;
    watch_expect(s, r->client,
                 2); /* MHD sees to it that it is not quiet for more than one; the other is for a request line */
    request_arrived(r);
    struct http_io *io = r->io;
    bool counted = r->counted, ours = true;
    if (relay_close(r))
        r->phase = PHASE_SUSPENDED;
    else if (r->uploading)
        r->phase = PHASE_RUNNING;      /* what it was handled for goes on without it */
    if (r->phase == PHASE_SUSPENDED) { /* resumed, but the client had gone before `resumed` could run */
        r->gone = true;
        ours = run_gone(r);
    }
    if (counted) {
        if (!ours || r->phase == PHASE_RUNNING)
            count_add(&io->handling, -1);
        count_add(&io->in_flight, -1);
        metric_add(s->g_in_flight, -1);
    }
    if (ours)
        request_keep(r);
}

static void format_peer(char out[46], const struct sockaddr *a)
{
    out[0] = '\0';
    if (a && a->sa_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)a)->sin_addr, out, 46);
    } else if (a && a->sa_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)a)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(v6))
            inet_ntop(AF_INET, v6->s6_addr + 12, out, 46);
        else
            inet_ntop(AF_INET6, v6, out, 46);
    }
}

static void on_connection(void *cls, struct MHD_Connection *conn, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http_server *s = cls;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*context) {
            watch_remove(s, *context);
            free(*context);
            *context = NULL;
        }
        atomic_fetch_sub(&s->connections, 1);
        metric_add(s->g_connections, -1);
        return;
    }
    watch_pulse(io_of(s), conn);
    struct connection *c = calloc(1, sizeof *c);
    if (c) {
        format_peer(c->peer, MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
        watch_add(s, c, MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
    }
    *context = c;
    atomic_fetch_add(&s->connections, 1);
    metric_add(s->g_connections, 1);
}

static enum MHD_Result on_accept(void *cls, const struct sockaddr *addr, socklen_t n)
{
    (void)addr;
    (void)n;
    struct http_server *s = cls;
    return atomic_load(&s->connections) < s->max_connections && !atomic_load(&s->draining) ? MHD_YES : MHD_NO;
}

/* ---- start and stop */

/* While the server starts, what MHD says first on the starting thread is why it does not; all else is about single
 * connections. */
static void __attribute__((format(printf, 2, 0))) on_mhd_log(void *cls, const char *fmt, va_list args)
{
    struct http_server *s = cls;
    char text[160];
    vsnprintf(text, sizeof text, fmt, args);
    text[strcspn(text, "\n")] = '\0';
    if (!pthread_equal(pthread_self(), s->starter))
        log_msg(LOG_DEBUG, "http: libmicrohttpd", LOG_S("detail", text));
    else if (!s->mhd_says[0])
        memcpy(s->mhd_says, text, sizeof text);
}

static void server_free(struct http_server *s)
{
    for (unsigned i = 0; i < s->n_io; i++) {
        for (struct request *r = s->io[i].idle, *next; r; r = next) {
            next = r->next;
            request_destroy(r);
        }
        io_deflater_free(&s->io[i]);
        if (s->io[i].pulse >= 0)
            close(s->io[i].pulse);
    }
    server_plain_free(s);
    pthread_mutex_destroy(&s->plain_lock);
    router_free(s->router);
    free(s->durations);
    free(s->origins);
    free(s);
}

static struct http_server *server_new(const struct http_config *c, char why[256])
{
    struct http_server *s = NULL;
    size_t size = sizeof *s + c->threads * sizeof s->io[0];
    if (posix_memalign((void **)&s, 64, size) != 0) {
        snprintf(why, 256, "out of memory");
        return NULL;
    }
    memset(s, 0, size);
    s->n_io = c->threads;
    s->routes = c->routes;
    s->n_routes = c->n_routes;
    s->handler = c->handler;
    s->early = c->early;
    s->bodies_max = c->bodies_max ? c->bodies_max : HTTP_BODIES_MAX;
    pthread_mutex_init(&s->plain_lock, NULL);
    s->ctx = c->ctx;
    s->turn = c->turn;
    s->metrics = c->metrics;
    s->clock = c->clock;
    s->access_log = c->access_log;
    s->max_connections = c->max_connections;
    s->tls = c->tls_cert != NULL;
    s->starter = pthread_self();
    for (unsigned i = 0; i < s->n_io; i++) {
        s->io[i].server = s;
        s->io[i].pulse = -1;
        io_seed(&s->io[i]);
    }
    struct str bad;
    if (!cidr_list_parse(str_c(c->trusted_proxies), &s->proxies, &bad)) {
        snprintf(why, 256, "\"%.*s\" is no address or network of a proxy", (int)(bad.n < 60 ? bad.n : 60), bad.p);
        server_free(s);
        return NULL;
    }
    struct str origins = str_trim(str_c(c->allowed_origins));
    s->any_origin = str_is(origins, "*");
    if (origins.n > 0)
        s->origins = strndup(origins.p, origins.n);
    s->durations = calloc((c->n_routes + UNMATCHED_ROWS) * 500, sizeof *s->durations);
    if (!s->durations || (origins.n > 0 && !s->origins)) {
        snprintf(why, 256, "out of memory");
        server_free(s);
        return NULL;
    }
    s->router = router_new(c->routes, c->n_routes, why);
    if (!s->router) {
        server_free(s);
        return NULL;
    }
    s->g_in_flight = metric_gauge(s->metrics, "payflow_http_in_flight", "Requests being handled.", "");
    s->all = metric_histogram(s->metrics, "payflow_http_latency_seconds",
                              "Time from a request's headers to its answer, all routes together.", "", metric_bounds_us,
                              metric_bounds_us_n, 1000000);
    s->g_connections = metric_gauge(s->metrics, "payflow_http_connections", "Open client connections.", "");
    return s;
}

struct MHD_Daemon *server_daemon(struct http_server *s, const struct http_config *c, const char *cert, const char *key,
                                 int listen_fd, bool driven)
{
    struct MHD_OptionItem options[8];
    unsigned n = 0, flags = (driven ? MHD_USE_EPOLL : MHD_USE_EPOLL_INTERNAL_THREAD) | MHD_ALLOW_SUSPEND_RESUME |
                            MHD_USE_ITC | MHD_USE_ERROR_LOG;
    unsigned connections = s->max_connections + CONNECTION_SPARE;
    if (!driven && s->n_io > 1) {
        options[n++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)s->n_io, NULL};
        connections *= s->n_io; /* MHD gives each thread its share */
    }
    if (s->tls) {
        flags |= MHD_USE_TLS;
        options[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)tls_priorities};
        options[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)cert};
        options[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)key};
    }
    options[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    return MHD_start_daemon(flags, 0, on_accept, s, on_access, s, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, s,
                            MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_CONNECTION_LIMIT, connections,
                            MHD_OPTION_CONNECTION_TIMEOUT, c->idle_timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                            (size_t)CONNECTION_BYTES, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
                            MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_URI_LOG_CALLBACK, on_uri, s,
                            MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, s, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
}

static bool threads_start(struct http_server *s, const struct http_config *c, const char *cert, const char *key)
{
    if (s->turn)
        return turn_start(s, c, cert, key);
    s->daemon = server_daemon(s, c, cert, key, s->listen_fd, false);
    return s->daemon != NULL;
}

static bool config_ok(const struct http_config *c, char why[256])
{
    if (c->threads < 1 || c->threads > THREADS_MAX)
        snprintf(why, 256, "the number of I/O threads must be 1 to %d", THREADS_MAX);
    else if (c->max_connections < 1 || c->max_connections > 1000000)
        snprintf(why, 256, "the number of connections must be 1 to 1000000");
    else if (!c->tls_cert != !c->tls_key)
        snprintf(why, 256, "TLS needs both a certificate and a key");
    else if (c->tls_cert && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        snprintf(why, 256, "this libmicrohttpd is built without TLS");
    else
        return true;
    return false;
}

struct http_server *http_server_start(const struct http_config *c, char why[256])
{
    why[0] = '\0';
    if (!config_ok(c, why))
        return NULL;
    char *cert = c->tls_cert ? pem_read(c->tls_cert, why) : NULL;
    char *key = cert ? pem_read(c->tls_key, why) : NULL;
    struct http_server *s = why[0] ? NULL : server_new(c, why);
    if (s) {
        s->listen_fd = listen_open(c->host, c->port, &s->port, why);
        bool watching = s->listen_fd >= 0 && watch_start(s, c->idle_timeout_s);
        bool started = watching && threads_start(s, c, cert, key);
        if (watching && !started) {
            int e = errno;
            watch_end(s);
            watch_free(s);
            errno = e;
        }
        if (s->listen_fd >= 0 && !started) {
            snprintf(why, 256, "cannot start the HTTP server on %s port %u: %s", c->host, s->port,
                     s->mhd_says[0] ? s->mhd_says : strerror(errno));
            close(s->listen_fd);
        }
        if (!started) {
            server_free(s);
            s = NULL;
        }
    }
    if (key)
        explicit_bzero(key, strlen(key));
    free(key);
    free(cert);
    return s;
}

uint16_t http_server_port(const struct http_server *s)
{
    return s->port;
}

unsigned http_server_connections(const struct http_server *s)
{
    return atomic_load(&s->connections);
}

uint64_t http_server_requests(const struct http_server *s)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < s->n_io; i++)
        n += atomic_load(&s->io[i].requests);
    return n;
}

/* MHD_quiesce_daemon takes the listening socket out of each thread's epoll set from here, and aborts the process when
 * a thread has just done so by itself. Putting something that never becomes readable in the socket's place closes the
 * socket, whereupon the kernel takes it out of the sets. */
void http_server_drain(struct http_server *s)
{
    if (atomic_exchange(&s->draining, true))
        return;
    int never = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (never < 0)
        return; /* on_accept still turns everybody away */
    dup3(never, s->listen_fd, O_CLOEXEC);
    for (unsigned i = 0; s->turn && i < s->n_io; i++)
        dup3(never, s->io[i].listen_fd, O_CLOEXEC);
    close(never);
}

enum count { ARRIVING, HANDLING, IN_FLIGHT };

static int64_t sum(const struct http_server *s, enum count which)
{
    int64_t n = which == ARRIVING ? 0 : atomic_load(&s->orphans);
    for (unsigned i = 0; i < s->n_io; i++) {
        const struct http_io *io = &s->io[i];
        n += atomic_load(which == ARRIVING ? &io->arriving : which == HANDLING ? &io->handling : &io->in_flight);
    }
    return n;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void http_server_stop(struct http_server *s, unsigned wait_ms)
{
    http_server_drain(s);
    atomic_store(&s->stopping, true);
    int64_t deadline = clock_mono(clock_system()) + (int64_t)wait_ms * 1000;
    while ((sum(s, ARRIVING) > 0 || sum(s, IN_FLIGHT) > 0) && clock_mono(clock_system()) < deadline)
        nap();
    atomic_store(&s->cutting, true); /* from here on no handler is entered */
    if (sum(s, HANDLING) > 0)
        log_msg(LOG_WARN, "http: requests are still being handled; waiting for them",
                LOG_I("requests", sum(s, HANDLING)));
    /* MHD aborts the process when it stops with a suspended connection. What still waits for its client does not for
     * long: the watch cuts it. */
    while (sum(s, HANDLING) > 0)
        nap();
    watch_end(s);
    if (s->turn)
        turn_stop(s);
    else
        MHD_stop_daemon(s->daemon);
    watch_free(s);
    server_free(s);
}

/* ---- reading the request */

struct str http_header(const struct http_req *pub, const char *name)
{
    const struct request *r = (const struct request *)pub;
    struct str want = str_c(name);
    for (unsigned i = 0; i < r->n_headers; i++) {
        if (r->headers[i].name.n == want.n && str_eq_nocase(r->headers[i].name, want))
            return r->headers[i].value;
    }
    return STR_NONE;
}

unsigned http_header_count(const struct http_req *pub, const char *name)
{
    const struct request *r = (const struct request *)pub;
    struct str want = str_c(name);
    unsigned n = 0;
    for (unsigned i = 0; i < r->n_headers; i++)
        n += str_eq_nocase(r->headers[i].name, want);
    return n;
}

struct str http_query(const struct http_req *r, const char *name)
{
    for (unsigned i = 0; i < r->n_query; i++) {
        if (str_is(r->query[i].name, name))
            return r->query[i].value;
    }
    return STR_NONE;
}
