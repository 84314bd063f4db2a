/*
 * wire: the bytes of gRPC: messages behind their five-byte prefix, percent-encoded text, time-outs, and a reading of
 * protobuf that says whether protobuf-c may be trusted with it. Pure.
 */
#ifndef RPC_WIRE_H
#define RPC_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"

/* One message at a time, from pieces. All-zero is empty, but for body: buf_init. */
struct frame_in {
    uint8_t prefix[5];
    unsigned prefix_n;
    uint32_t length; /* of the message, once the prefix is there */
    struct buf body;
};

enum frame_result { FRAME_MORE, FRAME_READY, FRAME_COMPRESSED, FRAME_BAD_FLAG, FRAME_TOO_LARGE, FRAME_NOMEM };

/* Takes bytes off *p up to the end of one message. FRAME_READY: it is in f->body; frame_next before the following. */
enum frame_result frame_feed(struct frame_in *f, const uint8_t **p, size_t *n, size_t max);
void frame_next(struct frame_in *f);
static inline bool frame_partial(const struct frame_in *f)
{
    return f->prefix_n > 0;
}

/* Appends prefix and message; n: protobuf_c_message_get_packed_size of it, below 4 GiB. False: no memory. */
bool frame_put(struct buf *out, const ProtobufCMessage *m, size_t n);

enum wire_result { WIRE_OK, WIRE_MALFORMED, WIRE_TEXT, WIRE_DEEP };

enum { WIRE_DEPTH_MAX = 32 };

/* Whether bytes are a message of this type: well-formed (unknown fields too), strings without NUL and in UTF-8, at most
 * WIRE_DEPTH_MAX messages inside each other. */
enum wire_result wire_check(const ProtobufCMessageDescriptor *d, struct str bytes);
/* NULL: it is none, or the arena is exhausted. After wire_check. */
ProtobufCMessage *wire_unpack(const ProtobufCMessageDescriptor *d, struct str bytes, struct arena *a);

/* grpc-timeout: 1 to 8 digits and H, M, S, m, u or n; rounded up to µs. */
bool wire_timeout(struct str s, int64_t *ret_us);
/* Writes one, rounded up; us >= 0. */
enum { WIRE_TIMEOUT_MAX = 10 };
size_t wire_timeout_put(int64_t us, char out[WIRE_TIMEOUT_MAX]);

/* grpc-message: bytes outside 0x20..0x7e and '%' become %XX. */
void wire_escape(struct buf *out, struct str s);
/* The other way, in place of p; a '%' that begins no pair stays. Returns the length. */
size_t wire_unescape(char *p, size_t n);
/* The longest beginning of s of at most max bytes that cuts no UTF-8 sequence. */
struct str wire_cut(struct str s, size_t max);

/* W3C trace context, version 00. */
bool wire_traceparent_ok(struct str s);
/* 1..64 letters, digits, '.', '_', '-'. */
bool wire_request_id_ok(struct str s);

#endif
