#include "faults/harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif

#include "codec/json_in.h"
#include "conf/conf.h"
#include "faults/inject.h"
#include "main/main.h"

enum { ANSWER_SECONDS = 20, LOG_SHOWN = 6000 };

static char dir[64], log_path[96];
static int report_fd = STDERR_FILENO;
static char text[HTTP_TEXT_MAX];

/* ---- process ---- */

static void show_log(void)
{
    static char tail[LOG_SHOWN];
    int fd = open(log_path, O_RDONLY | O_CLOEXEC);
    off_t size = lseek(fd, 0, SEEK_END);
    ssize_t n = pread(fd, tail, sizeof tail, size > LOG_SHOWN ? size - LOG_SHOWN : 0);
    close(fd);
    if (n > 0)
        dprintf(report_fd, "---- the end of what the server logged\n%.*s\n----\n", (int)n, tail);
}

#ifdef __SANITIZE_ADDRESS__
static void say_where(void)
{
    inject_where(report_fd);
}
#endif

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* A process of its own looks on: it can say what there is to say however the tests end. */
static void look_on(void)
{
    int status = 0;
    pid_t tests = fork();
    if (tests == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        return;
    }
    while (tests < 0 || (waitpid(tests, &status, 0) < 0 && errno == EINTR))
        if (tests < 0)
            abort();
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        show_log();
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

void harness_init(void)
{
    sigset_t set;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set); /* before any thread is made: run_serve waits for them */
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    snprintf(dir, sizeof dir, "/tmp/payflow-alloc-XXXXXX");
    if (!mkdtemp(dir))
        abort();
    snprintf(log_path, sizeof log_path, "%s/log", dir);
    look_on();
    report_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
    int fd = open(log_path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    dup2(fd, STDERR_FILENO);
    close(fd);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_report_fd((void *)(intptr_t)report_fd);
    __sanitizer_set_death_callback(say_where);
#endif
    /* what SQLite takes from its lookaside memory would not be seen as allocations */
    sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);
}

const char *harness_dir(void)
{
    return dir;
}

void harness_path(char out[512], const char *name)
{
    snprintf(out, 512, "%s/%s", dir, name);
    mkdir(out, 0700);
}

void harness_fail(const char *fmt, ...)
{
    va_list args;
    inject_disarm();
    va_start(args, fmt);
    vdprintf(report_fd, fmt, args);
    va_end(args);
    dprintf(report_fd, "\n");
    inject_where(report_fd);
    abort();
}

unsigned files_open(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;
    while (d && readdir(d))
        n++;
    closedir(d);
    return n;
}

void leaks_check(const char *what)
{
#ifdef __SANITIZE_ADDRESS__
    if (__lsan_do_recoverable_leak_check())
        harness_fail("%s: leaks", what);
#else
    (void)what;
#endif
}

/* ---- the server ---- */

static pthread_t server;
static bool running;
static atomic_bool waiting, ended;
static atomic_int code;
static uint16_t port;
static const char *serve_dir;

int __real_sigwait(const sigset_t *set, int *sig);
int __wrap_sigwait(const sigset_t *set, int *sig);

/* The server does this once it serves. */
int __wrap_sigwait(const sigset_t *set, int *sig)
{
    waiting = true;
    return __real_sigwait(set, sig);
}

static void *serve(void *arg)
{
    (void)arg;
    static const char *const env[] = {"BCRYPT_COST=4",
                                      "HTTP_THREADS=1",
                                      "WORKER_THREADS=1",
                                      "HASH_THREADS=1",
                                      "LISTEN=127.0.0.1:0",
                                      "MAX_CONNECTIONS=100",
                                      "FLUSH_ENTRIES=64",
                                      "LOG_LEVEL=info",
                                      "GATEWAY_LISTEN=off",
                                      "GRPC_LISTEN=off",
                                      NULL};
    char data[600];
    snprintf(data, sizeof data, "--data-dir=%s", serve_dir);
    const char *args[] = {data};
    const struct conf_input in = {args, 1, env};
    struct conf c;
    char why[CONF_WHY_MAX];
    code = EXIT_CONF;
    if (conf_load(&in, &c, why) == PFE_OK) {
        code = run_serve(&c, &in, ROLE_ALL);
        conf_free(&c);
    }
    ended = true;
    return NULL;
}

static uint16_t listening(void)
{
    for (int fd = 0; fd < 256; fd++) {
        struct sockaddr_in a;
        socklen_t n = sizeof a, k = sizeof(int);
        int yes = 0;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &k) == 0 && yes &&
            getsockname(fd, (struct sockaddr *)&a, &n) == 0 && a.sin_family == AF_INET)
            return ntohs(a.sin_port);
    }
    return 0;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

int server_start(const char *where)
{
    serve_dir = where;
    waiting = ended = false;
    if (pthread_create(&server, NULL, serve, NULL) != 0)
        abort();
    while (!waiting && !ended)
        nap();
    if (ended) {
        pthread_join(server, NULL);
        return code;
    }
    running = true;
    port = listening();
    return -1;
}

bool server_runs(void)
{
    return running && !ended;
}

int server_stop(void)
{
    if (!ended)
        kill(getpid(), SIGINT);
    pthread_join(server, NULL);
    running = false;
    return code;
}

/* ---- the client ---- */

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = ANSWER_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool put(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t did = send(fd, p, n, MSG_NOSIGNAL);
        if (did <= 0)
            return false;
        p += did;
        n -= (size_t)did;
    }
    return true;
}

bool http_header_of(const struct reply *r, const char *name, char out[256])
{
    size_t n = strlen(name);
    out[0] = '\0';
    for (const char *p = r->head.p; p < r->head.p + r->head.n;) {
        const char *end = memchr(p, '\n', (size_t)(r->head.p + r->head.n - p));
        if (!end)
            break;
        if ((size_t)(end - p) > n + 2 && strncasecmp(p, name, n) == 0 && p[n] == ':') {
            snprintf(out, 256, "%.*s", (int)(end - 1 - (p + n + 2)), p + n + 2);
            return true;
        }
        p = end + 1;
    }
    return false;
}

static struct reply parse(size_t n)
{
    struct reply r = {0};
    const char *end = n > 12 ? memmem(text, n, "\r\n\r\n", 4) : NULL;
    char length[256];
    if (!end)
        return r;
    r.head = (struct str){text, (size_t)(end - text) + 2};
    r.body = (struct str){end + 4, n - r.head.n - 2};
    r.status = (int)strtol(text + 9, NULL, 10);
    r.whole = http_header_of(&r, "Content-Length", length) && strtoul(length, NULL, 10) == r.body.n;
    return r;
}

struct reply http_ask(const char *line, const char *headers, const char *body)
{
    static char head[8192];
    int fd = dial();
    if (fd < 0)
        return (struct reply){0};
    size_t body_n = body ? strlen(body) : 0;
    int n = snprintf(head, sizeof head, "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s", line, headers);
    if (body)
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                      body_n);
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    if (put(fd, head, (size_t)n) && body_n) /* an answer may come before all is sent */
        put(fd, body, body_n);
    size_t have = 0;
    ssize_t got = 0;
    while (have < sizeof text - 1 && (got = recv(fd, text + have, sizeof text - 1 - have, 0)) > 0)
        have += (size_t)got;
    bool hangs = got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    close(fd);
    text[have] = '\0';
    if (hangs)
        harness_fail("%s: no answer within %d s", line, ANSWER_SECONDS);
    return parse(have);
}

struct reply http_must(int status, const char *line, const char *headers, const char *body)
{
    struct reply r = http_ask(line, headers, body);
    if (r.status != status || !r.whole)
        harness_fail("%s: %d, not %d (%s)\n%s\n%s", line, r.status, status, r.whole ? "whole" : "cut", body ? body : "",
                     text);
    return r;
}

bool json_member(struct str body, const char *name, char *out, size_t cap)
{
    char want[80];
    int n = snprintf(want, sizeof want, "\"%s\":", name);
    const char *p = body.n ? memmem(body.p, body.n, want, (size_t)n) : NULL;
    if (!p)
        return false;
    p += n;
    size_t len = *p == '"' ? strcspn(++p, "\"") : strcspn(p, ",}]");
    snprintf(out, cap, "%.*s", (int)len, p);
    return true;
}

bool json_whole(struct str s)
{
    struct arena a;
    struct json *j;
    arena_init(&a, NULL, 0, 64 << 20);
    bool ok = json_parse(&a, s, &j, NULL) == PFE_OK;
    arena_reset(&a);
    return ok;
}

/* ---- the database beside it ---- */

static sqlite3 *db;

void sql_open(const char *where)
{
    char path[600];
    snprintf(path, sizeof path, "%s/payflow.db", where);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
        harness_fail("%s: %s", path, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 5000);
}

void sql_close(void)
{
    sqlite3_close(db);
    db = NULL;
}

int64_t sql_int(const char *sql)
{
    sqlite3_stmt *st;
    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK || sqlite3_step(st) != SQLITE_ROW)
        harness_fail("%s: %s", sql, sqlite3_errmsg(db));
    int64_t v = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return v;
}
