#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>

enum { ALIGN = 16, CHUNK_MIN = 4096, CHUNK_MAX = 1 << 20 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t size; /* bytes after the header */
};

_Static_assert(sizeof(struct arena_chunk) % ALIGN == 0, "what follows a chunk's header must be aligned");

static char *chunk_data(struct arena_chunk *c)
{
    return (char *)(c + 1);
}

/* Points cur/end at the newest memory that the arena has. */
static void use_newest(struct arena *a)
{
    if (a->head) {
        a->cur = chunk_data(a->head);
        a->end = a->cur + a->head->size;
    } else if (a->first) {
        size_t skip = (0 - (uintptr_t)a->first) & (ALIGN - 1);
        a->cur = (char *)a->first + (skip < a->first_n ? skip : a->first_n);
        a->end = (char *)a->first + a->first_n;
    } else {
        a->cur = a->end = NULL;
    }
}

void arena_init(struct arena *a, void *first, size_t first_n, size_t limit)
{
    *a = (struct arena){.limit = limit, .first = first, .first_n = first_n};
    use_newest(a);
}

static void free_down_to(struct arena *a, const struct arena_chunk *keep)
{
    while (a->head != keep) {
        struct arena_chunk *next = a->head->next;
        free(a->head);
        a->head = next;
    }
}

void arena_reset(struct arena *a)
{
    free_down_to(a, NULL);
    a->used = 0;
    use_newest(a);
}

static bool push_chunk(struct arena *a, size_t size)
{
    struct arena_chunk *c = malloc(sizeof *c + size);

    if (!c)
        return false;
    c->next = a->head;
    c->size = size;
    a->head = c;
    return true;
}

#ifdef ARENA_MALLOC

static void *take(struct arena *a, size_t n, size_t rounded)
{
    (void)rounded;
    return push_chunk(a, n) ? chunk_data(a->head) : NULL;
}

#else

static void *take(struct arena *a, size_t n, size_t rounded)
{
    char *p;

    (void)n;
    if (rounded > (size_t)(a->end - a->cur)) {
        size_t size = a->head ? a->head->size * 2 : CHUNK_MIN;
        if (size > CHUNK_MAX)
            size = CHUNK_MAX;
        if (size < rounded)
            size = rounded;
        if (!push_chunk(a, size))
            return NULL;
        use_newest(a);
    }
    p = a->cur;
    a->cur += rounded;
    return p;
}

#endif

void *arena_alloc(struct arena *a, size_t n)
{
    size_t rounded;
    void *p;

    if (n > SIZE_MAX / 2)
        return NULL;
    /* an empty allocation takes room too, so that every pointer is distinct and within its chunk */
    rounded = n ? (n + ALIGN - 1) & ~(size_t)(ALIGN - 1) : ALIGN;
    if (rounded > a->limit - a->used)
        return NULL;
    p = take(a, n, rounded);
    if (p)
        a->used += rounded;
    return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
    void *p = arena_alloc(a, n);

    if (p)
        memset(p, 0, n);
    return p;
}

struct str arena_strdup(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.n + 1);

    if (!p)
        return STR_NONE;
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return (struct str){p, s.n};
}

struct arena_mark arena_mark(const struct arena *a)
{
    return (struct arena_mark){a->head, a->cur, a->used};
}

void arena_rewind(struct arena *a, struct arena_mark m)
{
    free_down_to(a, m.head);
    use_newest(a);
    a->cur = m.cur;
    a->used = m.used;
}
