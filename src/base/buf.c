#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { CAP_MIN = 256 };

void buf_init(struct buf *b, size_t limit)
{
    *b = (struct buf){.limit = limit};
}

void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf){.limit = b->limit};
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    b->failed = false;
}

static bool grow(struct buf *b, size_t n)
{
    size_t need, cap = b->cap ? b->cap : CAP_MIN;
    char *p;

    if (__builtin_add_overflow(b->n, n, &need) || need > SIZE_MAX / 2)
        return false;
    while (cap < need)
        cap *= 2;
    p = realloc(b->p, cap);
    if (!p)
        return false;
    b->p = p;
    b->cap = cap;
    return true;
}

bool buf_reserve(struct buf *b, size_t n)
{
    if (b->failed)
        return false;
    if ((b->limit && n > b->limit - b->n) || (n > b->cap - b->n && !grow(b, n)))
        b->failed = true;
    return !b->failed;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    if (n == 0 || !buf_reserve(b, n))
        return;
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void buf_putc(struct buf *b, char c)
{
    if (buf_reserve(b, 1))
        b->p[b->n++] = c;
}

void buf_puts(struct buf *b, const char *z)
{
    buf_put(b, z, strlen(z));
}

void buf_str(struct buf *b, struct str s)
{
    buf_put(b, s.p, s.n);
}

void buf_u64(struct buf *b, uint64_t v)
{
    char text[STR_U64_MAX];

    buf_put(b, text, str_from_u64(v, text));
}

void buf_i64(struct buf *b, int64_t v)
{
    if (v < 0)
        buf_putc(b, '-');
    buf_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    char tmp[256];
    int n;

    if (b->failed)
        return;
    va_start(ap, fmt);
    n = vsnprintf(tmp, sizeof tmp, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
    } else if ((size_t)n < sizeof tmp) {
        buf_put(b, tmp, (size_t)n);
    } else {
        char *p = malloc((size_t)n + 1);
        if (!p) {
            b->failed = true;
            return;
        }
        va_start(ap, fmt);
        vsnprintf(p, (size_t)n + 1, fmt, ap);
        va_end(ap);
        buf_put(b, p, (size_t)n);
        free(p);
    }
}

char *buf_take(struct buf *b, size_t *ret_n)
{
    char *p;

    if (!b->failed && !b->p && !grow(b, 1))
        b->failed = true;
    if (b->failed) {
        buf_free(b);
        return NULL;
    }
    p = b->p;
    *ret_n = b->n;
    *b = (struct buf){.limit = b->limit};
    return p;
}
