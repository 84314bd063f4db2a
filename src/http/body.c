/*
 * Gathers a request's body in its arena, and says no when it is too long.
 *
 * MHD 0.9.75 takes no answer while a body arrives, only before it or behind it, and an answer before it closes the
 * connection with bytes unread, so that the client may see a reset in place of the answer. So a 413 is written to the
 * socket as bytes, at a moment when nothing else is being sent there, and the body is read off for a while. With TLS,
 * where the bytes would have to pass through MHD's session, the answer waits for the end of the body.
 *
 * What is counted against HTTP_BODIES_MAX is what has arrived, not what was announced: a length costs a client nothing.
 */
#include <sys/socket.h>

#include "http/internal.h"

static const char no_room[] = "The long bodies of other requests take all the memory that there is for them.";
static const char too_long[] = "The body is longer than this resource takes.";

void request_too_large(struct request *r)
{
    r->refusal = PFE_TOO_LARGE;
    r->refusal_detail = too_long;
    r->close = true;
    if (r->server->tls)
        return;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    r->phase = PHASE_LINGER;
    request_arrived(r); /* nobody needs to wait for the rest */
    if (!info || !reply_as_bytes(r, PFE_TOO_LARGE, too_long, info->connect_fd)) {
        r->failed = true;
        return;
    }
    shutdown(info->connect_fd, SHUT_WR); /* the client sees the end at once; we go on reading */
}

/* Counts what the body takes beyond HTTP_BODY_SMALL. False: there is no room. */
static bool book(struct request *r, size_t n)
{
    struct http_server *s = r->server;
    size_t bytes = r->body_seen > HTTP_BODY_SMALL ? n : 0;
    if (bytes == 0)
        return true;
    r->body_booked += bytes;
    return atomic_fetch_add_explicit(&s->bodies, bytes, memory_order_relaxed) + bytes <= s->bodies_max;
}

void request_body_drop(struct request *r)
{
    if (r->body_booked)
        atomic_fetch_sub_explicit(&r->server->bodies, r->body_booked, memory_order_relaxed);
    r->body_booked = 0;
}

static enum pf_err body_room(struct request *r, size_t need)
{
    if (need <= r->body_cap)
        return PFE_OK;
    size_t cap = r->body_cap ? r->body_cap * 2 : r->chunked ? 4096 : (size_t)r->content_length;
    if (cap < need)
        cap = need;
    if (cap > r->body_max)
        cap = r->body_max;
    if (!r->body_cap)
        r->body_mark = arena_mark(&r->pub.arena);
    char *p = arena_alloc(&r->pub.arena, cap + 1);
    if (!p)
        return PFE_NOMEM;
    if (r->pub.body.n)
        memcpy(p, r->pub.body.p, r->pub.body.n);
    size_t left_behind = r->body_cap; /* the arena keeps it */
    r->pub.body.p = p;
    r->body_cap = cap;
    return book(r, left_behind) ? PFE_OK : PFE_BUSY;
}

bool request_body(struct request *r, const char *p, size_t n)
{
    r->body_seen += n;
    watch_body(r);
    if (r->phase == PHASE_LINGER || r->refusal == PFE_TOO_LARGE)
        return !r->failed && r->body_seen - n <= r->body_max + LINGER_BYTES;
    if (r->body_seen > r->body_max) {
        request_too_large(r);
        return !r->failed;
    }
    if (r->refusal != PFE_OK)
        return true;
    if (!request_is_json(r)) {
        r->refusal = PFE_MEDIA_TYPE;
        r->refusal_detail = NULL;
        return true;
    }
    r->refusal = book(r, n) ? body_room(r, r->body_seen) : PFE_BUSY;
    if (r->refusal != PFE_OK) {
        r->refusal_detail = r->refusal == PFE_BUSY ? no_room : NULL;
        r->pub.body = STR_NONE;
        if (r->body_cap)
            arena_rewind(&r->pub.arena, r->body_mark);
        request_body_drop(r);
        return true;
    }
    char *at = (char *)r->pub.body.p + r->pub.body.n;
    memcpy(at, p, n);
    at[n] = '\0';
    r->pub.body.n += n;
    return true;
}
