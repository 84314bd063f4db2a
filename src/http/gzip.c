/* gzip (RFC 1952) of answers by zlib. The compressor is kept per I/O thread: its 256 KiB are costly to set up. */
#include <stdlib.h>
#include <zlib.h>

#include "http/internal.h"

enum { LEVEL = 1, GZIP_WINDOW = 15 + 16, INFLATED_MAX = 64 << 20 };

/* A quality of 0, however written, means "not acceptable" (RFC 9110 12.4.2). */
static bool quality_zero(struct str params)
{
    while (params.n > 0) {
        const char *semicolon = memchr(params.p, ';', params.n);
        struct str one = {params.p, semicolon ? (size_t)(semicolon - params.p) : params.n};
        params = semicolon ? (struct str){semicolon + 1, params.n - one.n - 1} : STR_NONE;
        one = str_trim(one);
        if (one.n < 3 || (one.p[0] | 0x20) != 'q' || one.p[1] != '=')
            continue;
        for (size_t i = 2; i < one.n; i++) {
            if (one.p[i] != '0' && one.p[i] != '.')
                return false;
        }
        return true;
    }
    return false;
}

bool accepts_gzip(struct str accept)
{
    bool star = false;
    while (accept.n > 0) {
        const char *comma = memchr(accept.p, ',', accept.n);
        struct str one = {accept.p, comma ? (size_t)(comma - accept.p) : accept.n};
        accept = comma ? (struct str){comma + 1, accept.n - one.n - 1} : STR_NONE;
        const char *semicolon = memchr(one.p, ';', one.n);
        struct str params = STR_NONE;
        if (semicolon) {
            params = (struct str){semicolon + 1, (size_t)(one.p + one.n - semicolon - 1)};
            one.n = (size_t)(semicolon - one.p);
        }
        one = str_trim(one);
        if (str_eq_nocase(one, STR("gzip")) || str_eq_nocase(one, STR("x-gzip")))
            return !quality_zero(params);
        if (str_is(one, "*"))
            star = !quality_zero(params);
    }
    return star;
}

static z_stream *deflater(struct http_io *io)
{
    z_stream *z = io->deflater;
    if (z)
        return deflateReset(z) == Z_OK ? z : NULL;
    z = calloc(1, sizeof *z);
    if (z && deflateInit2(z, LEVEL, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(z);
        z = NULL;
    }
    io->deflater = z;
    return z;
}

void io_deflater_free(struct http_io *io)
{
    if (io->deflater)
        deflateEnd(io->deflater);
    free(io->deflater);
    io->deflater = NULL;
}

bool request_deflate(struct request *r, struct str body)
{
    buf_clear(&r->zip);
    z_stream *z = body.n < UINT32_MAX ? deflater(r->io) : NULL;
    if (!z || !buf_reserve(&r->zip, body.n))
        return false;
    z->next_in = (Bytef *)body.p;
    z->avail_in = (uInt)body.n;
    z->next_out = (Bytef *)r->zip.p;
    z->avail_out = (uInt)body.n;
    if (deflate(z, Z_FINISH) != Z_STREAM_END)
        return false;
    r->zip.n = z->total_out;
    return true;
}

static enum pf_err inflate_all(struct str gzipped, struct buf *out)
{
    z_stream z = {0};
    if (gzipped.n >= UINT32_MAX)
        return PFE_INTERNAL;
    if (inflateInit2(&z, GZIP_WINDOW) != Z_OK)
        return PFE_NOMEM;
    z.next_in = (Bytef *)gzipped.p;
    z.avail_in = (uInt)gzipped.n;
    int status = Z_OK;
    while (status == Z_OK && out->n < INFLATED_MAX && buf_reserve(out, 65536)) {
        z.next_out = (Bytef *)out->p + out->n;
        z.avail_out = 65536;
        status = inflate(&z, Z_NO_FLUSH);
        out->n += 65536 - z.avail_out;
    }
    inflateEnd(&z);
    if (status == Z_STREAM_END)
        return PFE_OK;
    return out->failed || status == Z_MEM_ERROR ? PFE_NOMEM : PFE_INTERNAL;
}

static enum pf_err plain_new(struct str gzipped, struct plain **ret)
{
    struct buf out;
    buf_init(&out, 0);
    enum pf_err e = inflate_all(gzipped, &out);
    struct plain *p = e == PFE_OK ? malloc(sizeof *p) : NULL;
    if (!p) {
        buf_free(&out);
        return e == PFE_OK ? PFE_NOMEM : e;
    }
    *p = (struct plain){.gzipped = gzipped.p};
    p->p = buf_take(&out, &p->n);
    *ret = p;
    return PFE_OK;
}

enum pf_err server_plain(struct http_server *s, struct str gzipped, struct str *ret)
{
    enum pf_err e = PFE_OK;
    pthread_mutex_lock(&s->plain_lock); /* held while it inflates: others that want it would do the same work */
    struct plain *p = s->plain;
    while (p && p->gzipped != gzipped.p)
        p = p->next;
    if (!p) {
        e = plain_new(gzipped, &p);
        if (e == PFE_OK) {
            p->next = s->plain;
            s->plain = p;
        }
    }
    if (e == PFE_OK)
        *ret = (struct str){p->p, p->n};
    pthread_mutex_unlock(&s->plain_lock);
    return e;
}

void server_plain_free(struct http_server *s)
{
    for (struct plain *p = s->plain, *next; p; p = next) {
        next = p->next;
        free(p->p);
        free(p);
    }
    s->plain = NULL;
}
