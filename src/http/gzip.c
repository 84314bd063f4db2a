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

static z_stream *deflater(struct io *io)
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

void io_deflater_free(struct io *io)
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

bool request_inflate(struct request *r, struct str gzipped)
{
    buf_clear(&r->zip);
    z_stream z = {0};
    if (gzipped.n >= UINT32_MAX || inflateInit2(&z, GZIP_WINDOW) != Z_OK)
        return false;
    z.next_in = (Bytef *)gzipped.p;
    z.avail_in = (uInt)gzipped.n;
    int status = Z_OK;
    while (status == Z_OK && r->zip.n < INFLATED_MAX && buf_reserve(&r->zip, 65536)) {
        z.next_out = (Bytef *)r->zip.p + r->zip.n;
        z.avail_out = 65536;
        status = inflate(&z, Z_NO_FLUSH);
        r->zip.n += 65536 - z.avail_out;
    }
    inflateEnd(&z);
    return status == Z_STREAM_END;
}
