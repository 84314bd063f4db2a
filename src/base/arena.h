/*
 * arena: bounded bump allocation for one request; everything is freed at once.
 *
 * Not thread-safe; one owner at a time. Allocations are 16-byte aligned and zeroed only by arena_zalloc.
 * With -DARENA_MALLOC every allocation is its own malloc, so that AddressSanitizer sees overruns.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

#include "base/str.h"

struct arena_chunk;

struct arena {
    struct arena_chunk *head; /* newest first */
    char *cur, *end;
    size_t used;    /* bytes handed out */
    size_t limit;   /* most bytes it may hand out */
    void *first;    /* caller's first block, never freed by the arena; NULL if none */
    size_t first_n; /* its size */
};

struct arena_mark {
    struct arena_chunk *head;
    char *cur;
    size_t used;
};

/* first/first_n: an optional block to use before the heap (borrowed); limit in bytes. Cannot fail. */
void arena_init(struct arena *a, void *first, size_t first_n, size_t limit);
/* Frees all chunks; the arena is as after arena_init. Safe to call twice. */
void arena_reset(struct arena *a);
/* NULL when the limit or the heap is exhausted; the arena stays usable. n == 0 gives a valid pointer. */
void *arena_alloc(struct arena *a, size_t n);
void *arena_zalloc(struct arena *a, size_t n);
/* NUL-terminated copy; .p == NULL on failure. */
struct str arena_strdup(struct arena *a, struct str s);
struct arena_mark arena_mark(const struct arena *a);
/* Frees what was allocated since the mark. */
void arena_rewind(struct arena *a, struct arena_mark m);

#endif
