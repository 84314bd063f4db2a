#include "http/stream.h"

#include <stdlib.h>
#include <string.h>

#include "http/internal.h"

struct http_stream {
    pthread_mutex_t lock;
    unsigned holders;
    struct MHD_Connection *conn; /* NULL: none yet, or gone */
    struct http_io *io;          /* its thread's */
    bool suspended;              /* conn is, because of this stream */
    bool other_waits;            /* for bytes, or for room */
    bool ended, broken;          /* by whoever puts or gives */
    bool answered, left;         /* the other thread has, is done */
    char *ring;
    size_t at, n;
    void (*wake)(void *ctx);
    void *ctx;
};

enum { ROOM_TO_GO_ON = HTTP_STREAM_BYTES / 2 };

struct http_stream *http_stream_new(void (*wake)(void *ctx), void *ctx)
{
    struct http_stream *s = calloc(1, sizeof *s);
    char *ring = s ? malloc(HTTP_STREAM_BYTES) : NULL;
    if (!ring) {
        free(s);
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    s->ring = ring;
    s->holders = 2;
    s->wake = wake;
    s->ctx = ctx;
    return s;
}

/* The lock is held, and given up. */
static void let_go(struct http_stream *s)
{
    bool last = --s->holders == 0;
    pthread_mutex_unlock(&s->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&s->lock);
    free(s->ring);
    free(s);
}

static void fill(struct http_stream *s, const char *p, size_t n)
{
    size_t to = (s->at + s->n) % HTTP_STREAM_BYTES, first = HTTP_STREAM_BYTES - to;
    if (first > n)
        first = n;
    memcpy(s->ring + to, p, first);
    memcpy(s->ring, p + first, n - first);
    s->n += n;
}

static size_t drain(struct http_stream *s, char *out, size_t cap)
{
    size_t n = s->n < cap ? s->n : cap, first = HTTP_STREAM_BYTES - s->at;
    if (first > n)
        first = n;
    memcpy(out, s->ring + s->at, first);
    memcpy(out + first, s->ring, n - first);
    s->at = (s->at + n) % HTTP_STREAM_BYTES;
    s->n -= n;
    return n;
}

static void go_on(struct http_stream *s)
{
    if (s->suspended && s->conn) {
        s->suspended = false;
        server_resume(s->io, s->conn);
    }
}

static void wait_here(struct http_stream *s)
{
    s->suspended = true;
    MHD_suspend_connection(s->conn);
}

static void wake_other(struct http_stream *s)
{
    if (s->other_waits && !s->left) {
        s->other_waits = false;
        s->wake(s->ctx);
    }
}

/* ---- the other thread */

void http_stream_leave(struct http_stream *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->left = true;
    if (!s->ended)
        s->broken = true;
    go_on(s);
    let_go(s);
}

enum http_stream_state http_stream_take(struct http_stream *s, char *out, size_t cap, size_t *ret_n)
{
    enum http_stream_state state = HTTP_STREAM_MORE;
    pthread_mutex_lock(&s->lock);
    *ret_n = drain(s, out, cap);
    if (*ret_n == 0) {
        state = s->broken ? HTTP_STREAM_BROKEN : s->ended ? HTTP_STREAM_ENDED : HTTP_STREAM_WAIT;
        s->other_waits = state == HTTP_STREAM_WAIT;
    }
    if (!s->ended && HTTP_STREAM_BYTES - s->n >= ROOM_TO_GO_ON)
        go_on(s);
    pthread_mutex_unlock(&s->lock);
    return state;
}

bool http_stream_answer(struct http_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool there = s->conn != NULL;
    s->answered = true;
    go_on(s);
    pthread_mutex_unlock(&s->lock);
    return there;
}

enum http_stream_state http_stream_give(struct http_stream *s, const char *p, size_t n)
{
    enum http_stream_state state = HTTP_STREAM_MORE;
    pthread_mutex_lock(&s->lock);
    if (s->broken) {
        state = HTTP_STREAM_BROKEN;
    } else if (HTTP_STREAM_BYTES - s->n < n) {
        state = HTTP_STREAM_WAIT;
        s->other_waits = true;
    } else {
        fill(s, p, n);
        go_on(s);
    }
    pthread_mutex_unlock(&s->lock);
    return state;
}

void http_stream_end(struct http_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->ended = true;
    go_on(s);
    pthread_mutex_unlock(&s->lock);
}

/* ---- the connection's thread */

void stream_attach(struct http_stream *s, const struct request *r)
{
    s->io = r->io;
    s->conn = r->conn; /* nobody else knows it yet, or nobody looks before the next call under the lock */
}

void stream_waker(struct http_stream *s, void (*wake)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&s->lock);
    s->wake = wake;
    s->ctx = ctx;
    pthread_mutex_unlock(&s->lock);
}

size_t stream_put(struct http_stream *s, const char *p, size_t n, bool *ret_answered)
{
    pthread_mutex_lock(&s->lock);
    *ret_answered = s->answered;
    size_t room = HTTP_STREAM_BYTES - s->n, take = n < room ? n : room;
    if (s->answered || s->left) {
        take = n; /* nobody will read it */
    } else {
        fill(s, p, take);
        if (take < n)
            wait_here(s);
        if (take > 0)
            wake_other(s);
    }
    pthread_mutex_unlock(&s->lock);
    return take;
}

bool stream_put_end(struct http_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->ended = true;
    bool answered = s->answered;
    if (!answered)
        wait_here(s);
    wake_other(s);
    pthread_mutex_unlock(&s->lock);
    return answered;
}

bool stream_close(struct http_stream *s)
{
    pthread_mutex_lock(&s->lock);
    const bool answered = s->answered;
    s->conn = NULL;
    if (!s->ended)
        s->broken = true;
    s->other_waits = true; /* it must hear of this even if it waits for something else */
    wake_other(s);
    let_go(s);
    return answered;
}

ssize_t stream_read(void *cls, uint64_t pos, char *out, size_t max)
{
    (void)pos;
    struct http_stream *s = cls;
    ssize_t got = 0;
    pthread_mutex_lock(&s->lock);
    if (s->n > 0) {
        got = (ssize_t)drain(s, out, max);
        if (HTTP_STREAM_BYTES - s->n >= ROOM_TO_GO_ON)
            wake_other(s);
    } else if (s->broken) {
        got = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (s->ended) {
        got = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        wait_here(s);
    }
    pthread_mutex_unlock(&s->lock);
    return got;
}
