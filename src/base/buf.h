/*
 * buf: a growing byte buffer on the heap with a sticky error: append freely, check `failed` once at the end.
 * Not thread-safe.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct buf {
    char *p;
    size_t n, cap;
    size_t limit; /* 0: none; else appends beyond it fail */
    bool failed;  /* out of memory or over the limit; p/n keep what had been written */
};

void buf_init(struct buf *b, size_t limit);
void buf_free(struct buf *b); /* safe on a zeroed or freed buffer */
/* Empties, keeps the memory, clears failed. */
void buf_clear(struct buf *b);
/* Room for n more bytes; false (and failed) if there is none. */
bool buf_reserve(struct buf *b, size_t n);
void buf_put(struct buf *b, const void *p, size_t n);
void buf_putc(struct buf *b, char c);
void buf_puts(struct buf *b, const char *z);
void buf_str(struct buf *b, struct str s);
void buf_u64(struct buf *b, uint64_t v); /* decimal */
void buf_i64(struct buf *b, int64_t v);  /* decimal */
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Gives the bytes away (caller frees with free()), the buffer becomes empty. NULL if failed. */
char *buf_take(struct buf *b, size_t *ret_n);
static inline struct str buf_as_str(const struct buf *b)
{
    return (struct str){b->p, b->n};
}

#endif
