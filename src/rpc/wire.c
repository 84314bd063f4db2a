#include <string.h>

#include "rpc/types.h"
#include "rpc/wire.h"

const char *rpc_code_name(enum rpc_code code)
{
    static const char *const names[RPC_CODES] = {
        "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED"};
    return (unsigned)code < RPC_CODES ? names[code] : "UNKNOWN";
}

/* ---- messages */

enum frame_result frame_feed(struct frame_in *f, const uint8_t **p, size_t *n, size_t max)
{
    while (f->prefix_n < sizeof f->prefix) {
        if (*n == 0)
            return FRAME_MORE;
        f->prefix[f->prefix_n++] = **p;
        ++*p;
        --*n;
        if (f->prefix_n == 1 && f->prefix[0] != 0)
            return f->prefix[0] == 1 ? FRAME_COMPRESSED : FRAME_BAD_FLAG;
        if (f->prefix_n < sizeof f->prefix)
            continue;
        f->length =
            (uint32_t)f->prefix[1] << 24 | (uint32_t)f->prefix[2] << 16 | (uint32_t)f->prefix[3] << 8 | f->prefix[4];
        if (f->length > max)
            return FRAME_TOO_LARGE;
    }
    /* Memory for what has come, not for what was announced. */
    size_t take = f->length - f->body.n < *n ? f->length - f->body.n : *n;
    if (take > 0)
        buf_put(&f->body, *p, take);
    if (f->body.failed)
        return FRAME_NOMEM;
    *p += take;
    *n -= take;
    return f->body.n == f->length ? FRAME_READY : FRAME_MORE;
}

void frame_next(struct frame_in *f)
{
    buf_clear(&f->body);
    f->prefix_n = 0;
    f->length = 0;
}

bool frame_put(struct buf *out, const ProtobufCMessage *m, size_t n)
{
    if (!buf_reserve(out, n + 5))
        return false;
    uint8_t *p = (uint8_t *)out->p + out->n;
    p[0] = 0;
    p[1] = (uint8_t)(n >> 24);
    p[2] = (uint8_t)(n >> 16);
    p[3] = (uint8_t)(n >> 8);
    p[4] = (uint8_t)n;
    protobuf_c_message_pack(m, p + 5);
    out->n += n + 5;
    return true;
}

/* ---- protobuf */

enum wire_type { VARINT = 0, BITS64 = 1, BYTES = 2, GROUP = 3, GROUP_END = 4, BITS32 = 5 };

static bool varint(struct str *s, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70 && s->n > 0; shift += 7) {
        uint8_t b = (uint8_t)*s->p;
        s->p++;
        s->n--;
        if (shift < 64)
            v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            *ret = v;
            return true;
        }
    }
    return false;
}

static bool skip(struct str *s, size_t n)
{
    if (n > s->n)
        return false;
    s->p += n;
    s->n -= n;
    return true;
}

static enum wire_result check(const ProtobufCMessageDescriptor *d, struct str s, unsigned depth)
{
    if (depth >= WIRE_DEPTH_MAX)
        return WIRE_DEEP;
    while (s.n > 0) {
        uint64_t tag, v;
        /* Field numbers take 29 bits; protobuf-c reads tags of at most five bytes. */
        if (!varint(&s, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
            return WIRE_MALFORMED;
        switch (tag & 7) {
        case VARINT:
            if (!varint(&s, &v))
                return WIRE_MALFORMED;
            break;
        case BITS64:
            if (!skip(&s, 8))
                return WIRE_MALFORMED;
            break;
        case BITS32:
            if (!skip(&s, 4))
                return WIRE_MALFORMED;
            break;
        case BYTES: {
            if (!varint(&s, &v) || v > s.n)
                return WIRE_MALFORMED;
            struct str inner = {s.p, (size_t)v};
            skip(&s, inner.n);
            const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(d, (unsigned)(tag >> 3));
            if (f && f->type == PROTOBUF_C_TYPE_STRING && (!str_utf8_ok(inner) || memchr(inner.p, '\0', inner.n)))
                return WIRE_TEXT;
            enum wire_result r = WIRE_OK;
            if (f && f->type == PROTOBUF_C_TYPE_MESSAGE)
                r = check(f->descriptor, inner, depth + 1);
            if (r != WIRE_OK)
                return r;
            break;
        }
        default: /* groups are no part of proto3, and protobuf-c knows none */
            return WIRE_MALFORMED;
        }
    }
    return WIRE_OK;
}

enum wire_result wire_check(const ProtobufCMessageDescriptor *d, struct str bytes)
{
    return check(d, bytes, 0);
}

static void *from_arena(void *a, size_t n)
{
    return arena_alloc(a, n);
}

static void to_arena(void *a, void *p)
{
    (void)a;
    (void)p;
}

ProtobufCMessage *wire_unpack(const ProtobufCMessageDescriptor *d, struct str bytes, struct arena *a)
{
    ProtobufCAllocator allocator = {from_arena, to_arena, a};
    return protobuf_c_message_unpack(d, &allocator, bytes.n, (const uint8_t *)(bytes.p ? bytes.p : ""));
}

/* ---- time-outs */

static const struct {
    char unit;
    int64_t ns;
} units[] = {{'n', 1}, {'u', 1000}, {'m', 1000000}, {'S', 1000000000}, {'M', 60000000000}, {'H', 3600000000000}};

bool wire_timeout(struct str s, int64_t *ret_us)
{
    uint64_t v;
    if (s.n < 2 || s.n > 9 || !str_to_u64((struct str){s.p, s.n - 1}, &v))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (units[i].unit == s.p[s.n - 1]) {
            *ret_us = units[i].ns < 1000 ? (int64_t)(v + 999) / 1000 : (int64_t)v * (units[i].ns / 1000);
            return true;
        }
    return false;
}

size_t wire_timeout_put(int64_t us, char out[WIRE_TIMEOUT_MAX])
{
    static const struct {
        char unit;
        int64_t us;
    } up[] = {{'u', 1}, {'m', 1000}, {'S', 1000000}, {'M', 60000000}, {'H', 3600000000}};
    char digits[STR_U64_MAX];
    size_t i = 0;
    while (i < 4 && (us + up[i].us - 1) / up[i].us > 99999999)
        i++;
    int64_t v = (us + up[i].us - 1) / up[i].us;
    size_t n = str_from_u64(v > 99999999 ? 99999999 : (uint64_t)v, digits);
    memcpy(out, digits, n);
    out[n] = up[i].unit;
    return n + 1;
}

/* ---- text */

void wire_escape(struct buf *out, struct str s)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (c >= 0x20 && c <= 0x7e && c != '%') {
            buf_putc(out, (char)c);
        } else {
            buf_putc(out, '%');
            buf_putc(out, hex[c >> 4]);
            buf_putc(out, hex[c & 15]);
        }
    }
}

static int nibble(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

size_t wire_unescape(char *p, size_t n)
{
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '%' && i + 2 < n && nibble(p[i + 1]) >= 0 && nibble(p[i + 2]) >= 0) {
            p[out++] = (char)(nibble(p[i + 1]) << 4 | nibble(p[i + 2]));
            i += 2;
        } else {
            p[out++] = p[i];
        }
    }
    return out;
}

struct str wire_cut(struct str s, size_t max)
{
    if (s.n <= max)
        return s;
    while (max > 0 && ((uint8_t)s.p[max] & 0xc0) == 0x80)
        max--;
    return (struct str){s.p, max};
}

/* ---- ids */

static bool hex_run(const char *p, size_t n, bool *ret_zero)
{
    *ret_zero = true;
    for (size_t i = 0; i < n; i++) {
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f')))
            return false;
        *ret_zero = *ret_zero && p[i] == '0';
    }
    return true;
}

bool wire_traceparent_ok(struct str s)
{
    bool trace, parent, flags;
    return s.n == 55 && memcmp(s.p, "00-", 3) == 0 && s.p[35] == '-' && s.p[52] == '-' &&
           hex_run(s.p + 3, 32, &trace) && hex_run(s.p + 36, 16, &parent) && hex_run(s.p + 53, 2, &flags) && !trace &&
           !parent;
}

bool wire_request_id_ok(struct str s)
{
    if (s.n < 1 || s.n > 64)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i], l = (char)(c | 0x20);
        if (!((l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}
