#include "support/fake_consul.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "codec/json_in.h"
#include "codec/json_out.h"

enum { REQUEST_MAX = 65536, OWN_MAX = 128, LOG_MAX = 4096, CONNS_MAX = 512 };

struct service {
    char *id, *name;
    char *body; /* as registered */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int fd[2], port;
    pthread_t accepter[2];
    bool stop, hasty, alive;
    enum fake_fault fault;
    uint64_t index, turn; /* turn: grows with everything that queries are not to sleep through */
    char *list;           /* NULL: what is registered */
    struct service own[OWN_MAX];
    char *log[LOG_MAX];
    unsigned n_log;
    int conns[CONNS_MAX]; /* descriptors; 0: free */
    unsigned n_conns;
} f = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void die(const char *what)
{
    perror(what);
    abort();
}

static char *text(const struct json *j, const char *key)
{
    const struct json *v = json_get(j, key);
    char *z = v && v->type == JSON_STRING ? strndup(v->s.p, v->s.n) : strdup("");
    return z ? z : (die("strndup"), NULL);
}

/* ---- what is registered; the lock is held */

static void forget(struct service *s)
{
    free(s->id);
    free(s->name);
    free(s->body);
    *s = (struct service){0};
}

static struct service *find(const char *id)
{
    for (unsigned i = 0; i < OWN_MAX; i++)
        if (f.own[i].id && strcmp(f.own[i].id, id) == 0)
            return &f.own[i];
    return NULL;
}

static struct service *room(void)
{
    for (unsigned i = 0; i < OWN_MAX; i++)
        if (!f.own[i].id)
            return &f.own[i];
    die("too many services");
    return NULL;
}

static void touch(void)
{
    f.index++;
    f.turn++;
    pthread_cond_broadcast(&f.changed);
}

static int put_service(const char *body)
{
    struct arena a;
    struct json *j = NULL;
    arena_init(&a, NULL, 0, 1 << 20);
    if (json_parse(&a, str_c(body), &j, NULL) != PFE_OK)
        return 400;
    struct service fresh = {text(j, "ID"), text(j, "Name"), strdup(body)}, *s = find(fresh.id);
    arena_reset(&a);
    if (strcmp(fresh.name, "unwelcome") == 0) {
        forget(&fresh);
        return 400;
    }
    if (s)
        forget(s);
    else
        s = room();
    *s = fresh;
    touch();
    return 200;
}

static void put_member(struct jw *w, const struct json *j, const char *from, const char *to)
{
    const struct json *v = json_get(j, from);
    jw_key(w, to);
    if (v && v->type == JSON_NUMBER)
        jw_raw(w, v->s);
    else
        jw_str(w, v && v->type == JSON_STRING ? v->s : STR(""));
}

static void put_fields(struct jw *w, const struct json *j)
{
    put_member(w, j, "ID", "ID");
    put_member(w, j, "Name", "Service");
    put_member(w, j, "Address", "Address");
    put_member(w, j, "Port", "Port");
    const struct json *tags = json_get(j, "Tags"), *weights = json_get(j, "Weights"), *meta = json_get(j, "Meta");
    jw_key(w, "Tags");
    jw_arr(w);
    for (const struct json *t = tags ? tags->child : NULL; t; t = t->next)
        jw_str(w, t->s);
    jw_end_arr(w);
    jw_key(w, "Weights");
    jw_obj(w);
    put_member(w, weights, "Passing", "Passing");
    put_member(w, weights, "Warning", "Warning");
    jw_end_obj(w);
    jw_key(w, "Meta");
    jw_obj(w);
    if (meta)
        put_member(w, meta, "payflow_weight", "payflow_weight");
    jw_end_obj(w);
}

static void put_one(struct jw *w, const struct service *s, bool health)
{
    struct arena a;
    struct json *j = NULL;
    arena_init(&a, NULL, 0, 1 << 20);
    if (json_parse(&a, str_c(s->body), &j, NULL) != PFE_OK)
        die("json");
    jw_obj(w);
    if (health) {
        jw_key(w, "Node");
        jw_obj(w);
        jw_kz(w, "Node", "n1");
        jw_kz(w, "Address", "10.0.0.1");
        jw_end_obj(w);
        jw_key(w, "Service");
        jw_obj(w);
    }
    put_fields(w, j);
    jw_end_obj(w);
    if (health) {
        jw_key(w, "Checks");
        jw_raw(w, STR("[{\"CheckID\":\"serfHealth\",\"Status\":\"passing\"}]"));
        jw_end_obj(w);
    }
    arena_reset(&a);
}

static void put_list(struct buf *b, const char *service)
{
    struct jw w;
    jw_init(&w, b);
    jw_arr(&w);
    for (unsigned i = 0; i < OWN_MAX; i++)
        if (f.own[i].id && strcmp(f.own[i].name, service) == 0)
            put_one(&w, &f.own[i], true);
    jw_end_arr(&w);
}

static void put_services(struct buf *b)
{
    buf_puts(b, "{\"consul\":[]");
    for (unsigned i = 0; i < OWN_MAX; i++) {
        bool again = !f.own[i].id;
        for (unsigned k = 0; k < i && !again; k++)
            again = f.own[k].id && strcmp(f.own[k].name, f.own[i].name) == 0;
        if (!again)
            buf_printf(b, ",\"%s\":[]", f.own[i].name);
    }
    buf_puts(b, "}");
}

/* ---- answers */

static void send_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
        if (w <= 0)
            return;
        p += w;
        n -= (size_t)w;
    }
}

/* Until the fault changes, or the client goes. The lock is held. */
static void hang(int fd)
{
    uint64_t turn = f.turn;
    while (!f.stop && f.turn == turn) {
        struct pollfd p = {.fd = fd, .events = POLLRDHUP};
        pthread_mutex_unlock(&f.lock);
        bool gone = poll(&p, 1, 10) > 0;
        pthread_mutex_lock(&f.lock);
        if (gone)
            return;
    }
}

static void put_head(struct buf *out, int status, uint64_t index, size_t length)
{
    buf_printf(out, "HTTP/1.1 %d Text\r\nContent-Type: application/json\r\n", status);
    if (index != UINT64_MAX)
        buf_printf(out, "X-Consul-Index: %llu\r\n", (unsigned long long)index);
    if (length != SIZE_MAX)
        buf_printf(out, "Content-Length: %zu\r\n", length);
}

static void put_fault(struct buf *out, enum fake_fault fault, const struct buf *body, uint64_t index)
{
    size_t half = body->n / 2;
    switch (fault) {
    case FAKE_ERROR:
        buf_puts(out, "HTTP/1.1 500 E\r\nX-Consul-Index: 99\r\nContent-Length: 2\r\n\r\n[]");
        break;
    case FAKE_FORBIDDEN:
        buf_puts(out, "HTTP/1.1 403 E\r\nContent-Length: 2\r\n\r\n[]");
        break;
    case FAKE_REDIRECT:
        buf_printf(out, "HTTP/1.1 302 E\r\nLocation: http://127.0.0.1:%d/well\r\nContent-Length: 2\r\n\r\n[]", f.port);
        break;
    case FAKE_GARBAGE:
        put_head(out, 200, index, half);
        buf_printf(out, "\r\n%.*s", (int)half, body->p);
        break;
    case FAKE_OTHER:
        buf_puts(out, "HTTP/1.1 200 E\r\nX-Consul-Index: 99\r\nContent-Length: 17\r\n\r\n[{\"Service\":null}]");
        break;
    case FAKE_EMPTY:
        put_head(out, 200, index, 0);
        buf_puts(out, "\r\n");
        break;
    case FAKE_HALF:
    case FAKE_STALL:
        put_head(out, 200, index, body->n);
        buf_printf(out, "\r\n%.*s", (int)half, body->p);
        break;
    case FAKE_CHUNKS:
        put_head(out, 200, index, SIZE_MAX);
        buf_puts(out, "Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n");
        break;
    case FAKE_NOISE:
        buf_puts(out, "\x16\x03\x01 what?\r\n[]");
        break;
    case FAKE_HUGE:
        put_head(out, 200, index, (5 << 20) + 2);
        buf_puts(out, "\r\n[");
        for (unsigned i = 0; i < (5 << 20) / 64; i++)
            buf_printf(out, "%64s", "");
        buf_puts(out, "]");
        break;
    case FAKE_HEAD:
        buf_puts(out, "HTTP/1.1 200 E\r\n");
        for (unsigned i = 0; i < 2000; i++)
            buf_printf(out, "X-%u: %060u\r\n", i, i);
        buf_puts(out, "Content-Length: 2\r\n\r\n[]");
        break;
    default:
        break;
    }
}

/* false: the connection is to end. The lock is held, but for the time of writing. */
static bool answer(int fd, int status, const struct buf *body, uint64_t index)
{
    enum fake_fault fault = f.fault;
    struct buf out = {0};
    if (fault == FAKE_WELL) {
        put_head(&out, status, index, body->n);
        buf_puts(&out, "\r\n");
        buf_put(&out, body->p, body->n);
    } else {
        put_fault(&out, fault, body, index);
    }
    pthread_mutex_unlock(&f.lock);
    send_all(fd, out.p, out.n);
    pthread_mutex_lock(&f.lock);
    buf_free(&out);
    if (fault == FAKE_STALL || fault == FAKE_SILENT)
        hang(fd);
    return fault == FAKE_WELL || fault == FAKE_ERROR || fault == FAKE_FORBIDDEN || fault == FAKE_EMPTY;
}

/* Waits as a blocking query does, but one behind an index that is to come. The lock is held. */
static void block(const char *line)
{
    unsigned long long index = 0;
    unsigned wait = 0;
    const char *at = strstr(line, "index=");
    if (!at || sscanf(at, "index=%llu&wait=%u", &index, &wait) != 2 || !index || f.hasty || f.fault != FAKE_WELL)
        return;
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += wait;
    uint64_t turn = f.turn;
    while (!f.stop && f.turn == turn && f.index == index)
        if (pthread_cond_clockwait(&f.changed, &f.lock, CLOCK_MONOTONIC, &end) != 0)
            return;
}

static const char *behind(const char *line, const char *begin)
{
    size_t n = strlen(begin);
    return strncmp(line, begin, n) == 0 ? line + n : NULL;
}

/* The name that a path goes on with, its %XX resolved. */
static void name_of(const char *at, char out[256])
{
    size_t n = 0;
    for (; *at && *at != '?' && *at != ' ' && n < 255; at++) {
        unsigned c = (unsigned char)*at;
        if (c == '%' && sscanf(at + 1, "%2x", &c) == 1)
            at += 2;
        out[n++] = (char)c;
    }
    out[n] = '\0';
}

/* The lock is held. */
static bool serve(int fd, const char *request, const char *body)
{
    struct buf out = {0};
    int status = 200;
    char name[256] = "";
    const char *at;
    uint64_t index = UINT64_MAX;
    if ((at = behind(request, "GET /v1/health/service/"))) {
        name_of(at, name);
        block(request);
        index = f.index;
        if (f.list)
            buf_puts(&out, f.list);
        else
            put_list(&out, name);
    } else if (f.fault == FAKE_WELL && behind(request, "PUT /v1/agent/service/register")) {
        status = put_service(body);
    } else if (f.fault == FAKE_WELL && (at = behind(request, "PUT /v1/agent/service/deregister/"))) {
        name_of(at, name);
        struct service *s = find(name);
        status = s ? 200 : 404;
        if (s) {
            forget(s);
            touch();
        }
    } else if ((at = behind(request, "GET /v1/agent/service/"))) {
        name_of(at, name);
        struct service *s = find(name);
        struct jw w;
        jw_init(&w, &out);
        status = s ? 200 : 404;
        if (s)
            put_one(&w, s, false);
    } else if (behind(request, "GET /v1/catalog/services")) {
        put_services(&out);
    } else if (behind(request, "GET /alive ")) {
        status = f.alive ? 200 : 503;
    }
    bool keep = answer(fd, status, &out, index);
    buf_free(&out);
    return keep;
}

/* ---- connections */

/* Reads one request; the body, NUL-terminated, is where it returns. NULL: the end. */
static char *receive(int fd, char buffer[REQUEST_MAX])
{
    size_t n = 0;
    for (;;) {
        buffer[n] = '\0';
        char *end = strstr(buffer, "\r\n\r\n");
        if (end) {
            char *length = strcasestr(buffer, "\r\ncontent-length:");
            size_t want = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
            if ((size_t)(end + 4 - buffer) + want <= n)
                return end + 4;
        }
        ssize_t r = n + 1 < REQUEST_MAX ? recv(fd, buffer + n, REQUEST_MAX - 1 - n, 0) : 0;
        if (r <= 0)
            return NULL;
        n += (size_t)r;
    }
}

static void *connection(void *arg)
{
    int fd = *(int *)arg;
    char *buffer = malloc(REQUEST_MAX), *body;
    bool keep = true;
    while (keep && buffer && (body = receive(fd, buffer))) {
        pthread_mutex_lock(&f.lock);
        if (f.n_log < LOG_MAX && !behind(buffer, "GET /alive"))
            f.log[f.n_log++] = strdup(buffer);
        keep = !f.stop && serve(fd, buffer, body);
        pthread_cond_broadcast(&f.changed);
        pthread_mutex_unlock(&f.lock);
    }
    free(buffer);
    pthread_mutex_lock(&f.lock);
    for (unsigned i = 0; i < CONNS_MAX; i++)
        if (f.conns[i] == fd)
            f.conns[i] = 0;
    close(fd);
    f.n_conns--;
    pthread_cond_broadcast(&f.changed);
    pthread_mutex_unlock(&f.lock);
    free(arg);
    return NULL;
}

static void *accepter(void *arg)
{
    int listener = *(int *)arg;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), *own = malloc(sizeof *own);
        pthread_t t;
        pthread_mutex_lock(&f.lock);
        bool over = f.stop || fd < 0;
        unsigned at = 0;
        while (at < CONNS_MAX && f.conns[at])
            at++;
        if (!over && own && at < CONNS_MAX) {
            *own = fd;
            f.conns[at] = fd;
            f.n_conns++;
            if (pthread_create(&t, NULL, connection, own) != 0)
                die("thread");
            pthread_detach(t);
        } else {
            free(own);
            if (fd >= 0)
                close(fd);
        }
        pthread_mutex_unlock(&f.lock);
        if (over)
            return NULL;
    }
}

static void listen_on(unsigned i, struct sockaddr *a, socklen_t n)
{
    f.fd[i] = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (f.fd[i] < 0 || bind(f.fd[i], a, n) != 0 || listen(f.fd[i], 64) != 0 || getsockname(f.fd[i], a, &n) != 0 ||
        pthread_create(&f.accepter[i], NULL, accepter, &f.fd[i]) != 0)
        die("listen");
}

void fake_consul_start(const char *unix_path)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    f.stop = f.hasty = false;
    f.alive = true;
    f.fault = FAKE_WELL;
    f.index = 10;
    f.fd[1] = -1;
    listen_on(0, (struct sockaddr *)&a, sizeof a);
    f.port = ntohs(a.sin_port);
    if (unix_path) {
        snprintf(u.sun_path, sizeof u.sun_path, "%s", unix_path);
        listen_on(1, (struct sockaddr *)&u, sizeof u);
    }
}

void fake_consul_stop(void)
{
    pthread_mutex_lock(&f.lock);
    f.stop = true;
    for (unsigned i = 0; i < CONNS_MAX; i++)
        if (f.conns[i])
            shutdown(f.conns[i], SHUT_RDWR);
    pthread_cond_broadcast(&f.changed);
    while (f.n_conns)
        pthread_cond_wait(&f.changed, &f.lock);
    pthread_mutex_unlock(&f.lock);
    for (unsigned i = 0; i < 2 && f.fd[i] >= 0; i++) {
        shutdown(f.fd[i], SHUT_RDWR);
        pthread_join(f.accepter[i], NULL);
        close(f.fd[i]);
    }
    for (unsigned i = 0; i < OWN_MAX; i++)
        forget(&f.own[i]);
    for (unsigned i = 0; i < f.n_log; i++)
        free(f.log[i]);
    f.n_log = 0;
    free(f.list);
    f.list = NULL;
}

/* ---- for tests */

int fake_consul_port(void)
{
    return f.port;
}

static void turn_and_unlock(void)
{
    f.turn++;
    pthread_cond_broadcast(&f.changed);
    pthread_mutex_unlock(&f.lock);
}

void fake_consul_fault(enum fake_fault fault)
{
    pthread_mutex_lock(&f.lock);
    f.fault = fault;
    turn_and_unlock();
}

void fake_consul_list(uint64_t index, const char *json)
{
    pthread_mutex_lock(&f.lock);
    free(f.list);
    f.list = json ? strdup(json) : NULL;
    f.index = index;
    turn_and_unlock();
}

void fake_consul_hasty(bool on)
{
    pthread_mutex_lock(&f.lock);
    f.hasty = on;
    turn_and_unlock();
}

void fake_consul_alive(bool on)
{
    pthread_mutex_lock(&f.lock);
    f.alive = on;
    turn_and_unlock();
}

void fake_consul_forget(void)
{
    pthread_mutex_lock(&f.lock);
    for (unsigned i = 0; i < OWN_MAX; i++)
        forget(&f.own[i]);
    f.index = 1;
    turn_and_unlock();
}

unsigned fake_consul_count(const char *begin)
{
    unsigned n = 0;
    pthread_mutex_lock(&f.lock);
    for (unsigned i = 0; i < f.n_log; i++)
        n += behind(f.log[i], begin) != NULL;
    pthread_mutex_unlock(&f.lock);
    return n;
}

void fake_consul_last(const char *begin, char *out, size_t cap)
{
    out[0] = '\0';
    pthread_mutex_lock(&f.lock);
    for (unsigned i = f.n_log; i-- > 0;) {
        if (behind(f.log[i], begin)) {
            snprintf(out, cap, "%s", f.log[i]);
            break;
        }
    }
    pthread_mutex_unlock(&f.lock);
}

bool fake_consul_has(const char *id)
{
    pthread_mutex_lock(&f.lock);
    bool yes = find(id) != NULL;
    pthread_mutex_unlock(&f.lock);
    return yes;
}
