/*
 * Gathers a request's body in its arena, and says no when it is too long.
 *
 * MHD 0.9.75 takes no answer while a body arrives, only before it or behind it, and an answer before it closes the
 * connection with bytes unread, so that the client may see a reset in place of the answer. So a 413 is written to the
 * socket as bytes, at a moment when nothing else is being sent there, and the body is read off for a while. With TLS,
 * where the bytes would have to pass through MHD's session, the answer waits for the end of the body.
 */
#include <sys/socket.h>

#include "http/internal.h"

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

static bool body_room(struct request *r, size_t need)
{
    if (need <= r->body_cap)
        return true;
    size_t cap = r->body_cap ? r->body_cap * 2 : r->chunked ? 4096 : (size_t)r->content_length;
    if (cap < need)
        cap = need;
    if (cap > r->body_max)
        cap = r->body_max;
    char *p = arena_alloc(&r->pub.arena, cap + 1);
    if (!p)
        return false;
    if (r->pub.body.n)
        memcpy(p, r->pub.body.p, r->pub.body.n);
    r->pub.body.p = p;
    r->body_cap = cap;
    return true;
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
    if (!body_room(r, r->body_seen)) {
        r->refusal = PFE_NOMEM;
        r->refusal_detail = NULL;
        return true;
    }
    char *at = (char *)r->pub.body.p + r->pub.body.n;
    memcpy(at, p, n);
    at[n] = '\0';
    r->pub.body.n += n;
    return true;
}
