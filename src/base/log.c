#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    LINE_CAP = 16 * 1024,
    LINE_TAIL = 16,             /* kept free for what ends a line, a cut one too */
    RING_CAP = 4 * 1024 * 1024, /* a power of two */
    WAKE_BYTES = 64 * 1024,     /* so much wakes the writer before its period is over */
    PIPE_CHUNK = 4096,          /* PIPE_BUF: after POLLOUT so much can be written without blocking */
    PERIOD_US = 20 * 1000,      /* longest time that a line waits */
    PATIENCE_US = 2 * 1000000,  /* how long flush and close bear with a reader that takes nothing */
    POLL_MS = 100
};

_Static_assert((RING_CAP & (RING_CAP - 1)) == 0, "ring offsets are masked");

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;    /* for the writer */
    pthread_cond_t drained; /* for log_flush: head has moved */
    char *ring;
    uint64_t head, tail; /* bytes ever written out, ever taken in */
    int64_t stop_by;     /* monotonic; when stopping, the time to give up */
    int fd;
    bool open, stop;
    bool mid_line;  /* the last byte written out was not a line's end */
    bool torn;      /* and what was to follow it is discarded: end the line before the next */
    bool hurry;     /* do not wait for the period */
    bool may_block; /* a pipe, socket or terminal */
    pthread_t writer;
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .drained = PTHREAD_COND_INITIALIZER};

static atomic_int least_level = LOG_INFO;
static atomic_uint_fast64_t n_dropped;

static int64_t now_mono(void)
{
    return clock_mono(clock_system());
}

/* Waits under the lock until signalled or until the monotonic time. false: the time has come. */
static bool wait_until(pthread_cond_t *c, int64_t until_us)
{
    struct timespec t = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};

    return pthread_cond_clockwait(c, &sink.lock, CLOCK_MONOTONIC, &t) != ETIMEDOUT;
}

/* Bytes written; 0: nothing can be written now; -1: it never will. */
static ssize_t put_some(const char *p, size_t n)
{
    ssize_t w;

    if (sink.may_block) {
        struct pollfd pfd = {.fd = sink.fd, .events = POLLOUT};
        if (poll(&pfd, 1, POLL_MS) <= 0)
            return 0;
        n = n < PIPE_CHUNK ? n : PIPE_CHUNK;
    }
    w = write(sink.fd, p, n);
    return w < 0 && (errno == EINTR || errno == EAGAIN) ? 0 : w;
}

static char ring_at(uint64_t offset)
{
    return sink.ring[offset & (RING_CAP - 1)];
}

/* Forgets what is older than target, the end of a line. */
static void discard_to(uint64_t target)
{
    uint_fast64_t lines = 0;

    sink.torn |= sink.mid_line;
    sink.mid_line = false;
    for (; sink.head < target; sink.head++)
        lines += ring_at(sink.head) == '\n';
    atomic_fetch_add(&n_dropped, lines);
}

/* Called and returns with the lock held, lets go of it while writing. */
static void drain_to(uint64_t target)
{
    while (sink.head < target) {
        size_t at = sink.head & (RING_CAP - 1);
        size_t n = target - sink.head < RING_CAP - at ? (size_t)(target - sink.head) : RING_CAP - at;
        ssize_t w;

        pthread_mutex_unlock(&sink.lock);
        w = sink.torn ? put_some("\n", 1) : put_some(sink.ring + at, n);
        pthread_mutex_lock(&sink.lock);
        if (w > 0 && sink.torn) {
            sink.torn = false;
        } else if (w > 0) {
            sink.head += (uint64_t)w;
            sink.mid_line = ring_at(sink.head - 1) != '\n';
        } else if (w < 0 || (sink.stop && now_mono() > sink.stop_by)) {
            discard_to(target);
        }
        pthread_cond_broadcast(&sink.drained);
    }
}

static void *write_out(void *arg)
{
    sigset_t pipe_gone;

    (void)arg;
    /* a reader that is gone is an error of write, not the end of the server */
    sigemptyset(&pipe_gone);
    sigaddset(&pipe_gone, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_gone, NULL);
    pthread_setname_np(pthread_self(), "log");
    pthread_mutex_lock(&sink.lock);
    for (;;) {
        int64_t until;

        while (sink.head == sink.tail && !sink.stop)
            pthread_cond_wait(&sink.work, &sink.lock);
        if (sink.head == sink.tail)
            break;
        until = now_mono() + PERIOD_US;
        while (!sink.hurry && !sink.stop && sink.tail - sink.head < WAKE_BYTES && wait_until(&sink.work, until))
            continue;
        sink.hurry = false;
        drain_to(sink.tail);
    }
    pthread_mutex_unlock(&sink.lock);
    return NULL;
}

bool log_open(int fd, enum log_level least)
{
    struct stat st;
    bool ok;

    pthread_mutex_lock(&sink.lock);
    ok = !sink.open && (sink.ring = malloc(RING_CAP)) != NULL;
    if (ok) {
        sink.fd = fd;
        sink.may_block = fstat(fd, &st) != 0 || !S_ISREG(st.st_mode);
        sink.head = sink.tail = 0;
        sink.stop = sink.hurry = sink.mid_line = sink.torn = false;
        sink.open = ok = pthread_create(&sink.writer, NULL, write_out, NULL) == 0;
        if (!ok) {
            free(sink.ring);
            sink.ring = NULL;
        }
    }
    pthread_mutex_unlock(&sink.lock);
    if (ok)
        log_set_level(least);
    return ok;
}

void log_set_level(enum log_level least)
{
    atomic_store_explicit(&least_level, (int)least, memory_order_relaxed);
}

bool log_enabled(enum log_level l)
{
    return (int)l >= atomic_load_explicit(&least_level, memory_order_relaxed);
}

void log_flush(void)
{
    uint64_t target, seen;
    int64_t until = now_mono() + PATIENCE_US;

    pthread_mutex_lock(&sink.lock);
    target = sink.tail;
    seen = sink.head;
    if (sink.head < target) {
        sink.hurry = true;
        pthread_cond_signal(&sink.work);
    }
    while (sink.open && sink.head < target) {
        if (!wait_until(&sink.drained, until))
            break;
        if (sink.head != seen) {
            seen = sink.head;
            until = now_mono() + PATIENCE_US;
        }
    }
    pthread_mutex_unlock(&sink.lock);
}

void log_close(void)
{
    pthread_mutex_lock(&sink.lock);
    if (!sink.open || sink.stop) {
        pthread_mutex_unlock(&sink.lock);
        return;
    }
    sink.stop = true;
    sink.stop_by = now_mono() + PATIENCE_US;
    pthread_cond_signal(&sink.work);
    pthread_mutex_unlock(&sink.lock);
    pthread_join(sink.writer, NULL);

    pthread_mutex_lock(&sink.lock);
    sink.open = false;
    free(sink.ring);
    sink.ring = NULL;
    pthread_cond_broadcast(&sink.drained);
    pthread_mutex_unlock(&sink.lock);
}

uint64_t log_dropped(void)
{
    return atomic_load(&n_dropped);
}

static const char *const level_names[] = {"debug", "info", "warn", "error"};

bool log_level_parse(struct str s, enum log_level *ret)
{
    for (int l = LOG_DEBUG; l <= LOG_ERROR; l++) {
        if (str_is(s, level_names[l])) {
            *ret = (enum log_level)l;
            return true;
        }
    }
    return false;
}

static void put_to_stderr(const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(STDERR_FILENO, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0) {
            atomic_fetch_add(&n_dropped, 1);
            return;
        }
        p += w;
        n -= (size_t)w;
    }
}

static void hand_over(const char *p, size_t n, bool urgent)
{
    uint64_t waiting;
    size_t at, part;

    pthread_mutex_lock(&sink.lock);
    waiting = sink.tail - sink.head;
    if (!sink.open || sink.stop) {
        put_to_stderr(p, n);
    } else if (n > RING_CAP - waiting) {
        atomic_fetch_add(&n_dropped, 1);
    } else {
        at = sink.tail & (RING_CAP - 1);
        part = n < RING_CAP - at ? n : RING_CAP - at;
        memcpy(sink.ring + at, p, part);
        memcpy(sink.ring, p + part, n - part);
        sink.tail += n;
        sink.hurry |= urgent;
        if (waiting == 0 || urgent || (waiting < WAKE_BYTES && waiting + n >= WAKE_BYTES))
            pthread_cond_signal(&sink.work);
    }
    pthread_mutex_unlock(&sink.lock);
}

struct line {
    char *p;
    size_t n;
    bool cut; /* full: nothing more goes in but its end */
};

static void put(struct line *l, const char *p, size_t n)
{
    if (l->cut || l->n + n > LINE_CAP - LINE_TAIL) {
        l->cut = true;
        return;
    }
    memcpy(l->p + l->n, p, n);
    l->n += n;
}

/* How many bytes at s need no escape. */
static size_t plain_run(struct str s)
{
    size_t i = 0;

    while (i < s.n && (unsigned char)s.p[i] >= ' ' && (unsigned char)s.p[i] < 0x80 && s.p[i] != '"' && s.p[i] != '\\')
        i++;
    return i;
}

/* One character that is not plain, or the stand-in for a byte that is none. Returns the bytes used. */
static size_t put_special(struct line *l, struct str s)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char c = (unsigned char)s.p[0];
    size_t n;

    if (c == '"' || c == '\\') {
        put(l, (const char[]){'\\', (char)c}, 2);
        return 1;
    }
    if (c < ' ') {
        put(l, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        return 1;
    }
    n = str_utf8_seq(s);
    if (n == 0)
        put(l, "\\ufffd", 6);
    else
        put(l, s.p, n);
    return n ? n : 1;
}

/* A string may be cut anywhere between two characters; its closing quote always fits into the line's tail. */
static void put_string(struct line *l, struct str s)
{
    put(l, "\"", 1);
    if (l->cut)
        return;
    while (s.n && !l->cut) {
        size_t n = plain_run(s), room = LINE_CAP - LINE_TAIL - l->n;

        if (n > room) {
            put(l, s.p, room);
            l->cut = true;
        } else if (n) {
            put(l, s.p, n);
        } else {
            n = put_special(l, s);
        }
        s.p += n;
        s.n -= n;
    }
    l->p[l->n++] = '"';
}

static void put_int(struct line *l, int64_t v)
{
    char text[STR_U64_MAX + 1] = "-";
    bool neg = v < 0;

    put(l, text, neg + str_from_u64(neg ? 0 - (uint64_t)v : (uint64_t)v, text + neg));
}

static void put_field(struct line *l, const struct log_field *f)
{
    size_t start = l->n, value;

    put(l, ",", 1);
    put_string(l, str_c(f->key));
    put(l, ":", 1);
    value = l->n;
    if (!l->cut) {
        if (f->type == LOG_FIELD_INT)
            put_int(l, f->i);
        else if (f->s.p)
            put_string(l, f->s);
        else
            put(l, "null", 4);
    }
    /* a name without its value, or half a number, is no JSON; half a string is */
    if (l->cut && (l->n == value || f->type == LOG_FIELD_INT))
        l->n = start;
}

static void put_time(struct line *l)
{
    static _Thread_local int64_t second = -1;
    static _Thread_local char text[TIME_RFC3339_MAX];
    int64_t us = clock_wall(clock_system());

    if (us / 1000000 != second) {
        time_format(us, text);
        second = us / 1000000;
    }
    us %= 1000000;
    for (char *p = text + 25; p >= text + 20; p--) {
        *p = (char)('0' + us % 10);
        us /= 10;
    }
    put(l, text, sizeof text - 1);
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields)
{
    static _Thread_local char text[LINE_CAP];
    struct line l = {.p = text};

    put(&l, "{\"ts\":\"", 7);
    put_time(&l);
    put(&l, "\",\"level\":\"", 11);
    put(&l, level_names[level], strlen(level_names[level]));
    put(&l, "\",\"msg\":", 8);
    put_string(&l, str_c(msg));
    for (; fields->key && !l.cut; fields++)
        put_field(&l, fields);
    if (l.cut) {
        memcpy(l.p + l.n, ",\"cut\":true", 11);
        l.n += 11;
    }
    memcpy(l.p + l.n, "}\n", 2);
    l.n += 2;
    hand_over(l.p, l.n, level >= LOG_ERROR);
}
