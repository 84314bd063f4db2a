/*
 * stream: the bytes of a body that is passed on while it arrives, between a client's connection and one other thread.
 * Bounded: who is too fast waits for the other. The connection waits suspended; the other thread is told by `wake` when
 * it may go on.
 *
 *   up     a request's body: the connection puts, the other thread takes
 *   down   an answer's body: the other thread gives, the connection reads
 *
 * A stream has two holders, the connection and the other thread; each lets go of it once, in any order. `wake` is
 * called on any thread with the stream's lock held: be brief, and do not call the stream.
 */
#ifndef HTTP_STREAM_H
#define HTTP_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HTTP_STREAM_BYTES = 128 << 10 }; /* what a stream holds at most */

struct http_stream;
struct http_req;

enum http_stream_state {
    HTTP_STREAM_MORE,  /* some bytes */
    HTTP_STREAM_WAIT,  /* none now; `wake` comes */
    HTTP_STREAM_ENDED, /* all of it has been taken */
    HTTP_STREAM_BROKEN /* the client is gone, or its body is malformed */
};

/* One for an answer. NULL: out of memory. */
struct http_stream *http_stream_new(void (*wake)(void *ctx), void *ctx);
/* The other thread's reference; tells the connection that nothing more comes of it (give up, unless _end has been
 * called, or the request is answered). From here on wake is not called. NULL is allowed. */
void http_stream_leave(struct http_stream *s);

/* up */
enum http_stream_state http_stream_take(struct http_stream *s, char *out, size_t cap, size_t *ret_n);
/* All that is still to come is not wanted: the answer is there. The request's `resumed` runs as soon as it can, on the
 * connection's thread. False: the client is gone, and the request with it. Once. */
bool http_stream_answer(struct http_stream *s);

/* down */
/* All or nothing, n <= HTTP_STREAM_BYTES: HTTP_STREAM_MORE, _WAIT or _BROKEN. */
enum http_stream_state http_stream_give(struct http_stream *s, const char *p, size_t n);
/* The body is whole. Without it http_stream_leave cuts the answer off, so that the client sees that it is not. */
void http_stream_end(struct http_stream *s);

#endif
