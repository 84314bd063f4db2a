#include "codec/json_in.h"

#include <setjmp.h>
#include <stdint.h>
#include <yajl/yajl_parse.h>

/*
 * yajl checks neither the results of its allocations nor surrogates, and accepts some UTF-8 that is none. So:
 * - all memory, yajl's too, is the arena's, and an exhausted arena leaves yajl by longjmp: it owns nothing else;
 * - UTF-8, \u escapes and what yajl takes for blanks are checked before yajl sees the text;
 * - a line end is fed to it after its end: one is refused in a string, so that a string opened behind the value is
 *   noticed (yajl itself would accept `1"x`).
 * yajl reads a copy in the arena, so that strings and numbers without escapes can stay where they are.
 */

enum { LINEAR_KEYS = 16 /* up to here comparing with each is faster than hashing */ };

struct level {
    struct json *node, *last;
};

struct parser {
    struct arena *arena;
    struct str text; /* the copy */
    struct json *root;
    struct str key; /* of the next value */
    unsigned depth; /* open objects and arrays */
    struct level levels[JSON_DEPTH_MAX];
    const char *reason; /* ours for stopping; NULL: yajl's */
    size_t offset;      /* of the error */
    jmp_buf nomem;
};

static void *take(struct parser *p, size_t n)
{
    void *m = arena_alloc(p->arena, n);

    if (!m)
        longjmp(p->nomem, 1);
    return m;
}

/* yajl's allocator. A block is preceded by its size, for realloc. */

union header {
    size_t n;
    max_align_t align;
};

static void *yajl_take(void *ctx, size_t n)
{
    union header *h = take(ctx, sizeof *h + n);

    h->n = n;
    return h + 1;
}

static void *yajl_retake(void *ctx, void *old, size_t n)
{
    void *m = yajl_take(ctx, n);

    if (old) {
        size_t had = ((union header *)old - 1)->n;
        memcpy(m, old, had < n ? had : n);
    }
    return m;
}

static void yajl_drop(void *ctx, void *p)
{
    (void)ctx;
    (void)p;
}

static int stop(struct parser *p, const char *reason)
{
    p->reason = reason;
    return 0;
}

/* Bytes that outlive yajl: those of the text stay, decoded ones are copied. */
static struct str keep(struct parser *p, const void *bytes, size_t n)
{
    struct str s = {bytes, n};
    char *m;

    if ((uintptr_t)bytes >= (uintptr_t)p->text.p && (uintptr_t)bytes < (uintptr_t)p->text.p + p->text.n)
        return s;
    m = take(p, n ? n : 1);
    if (n)
        memcpy(m, bytes, n);
    return (struct str){m, n};
}

static struct json *add(struct parser *p, enum json_type type, struct str s)
{
    struct json *v = take(p, sizeof *v);

    *v = (struct json){.type = type, .s = s, .key = p->key};
    p->key = STR_NONE;
    if (p->depth == 0) {
        p->root = v;
    } else {
        struct level *l = &p->levels[p->depth - 1];
        if (l->last)
            l->last->next = v;
        else
            l->node->child = v;
        l->last = v;
        l->node->n++;
    }
    return v;
}

static int on_null(void *ctx)
{
    add(ctx, JSON_NULL, STR_NONE);
    return 1;
}

static int on_boolean(void *ctx, int v)
{
    add(ctx, v ? JSON_TRUE : JSON_FALSE, STR_NONE);
    return 1;
}

static int on_number(void *ctx, const char *digits, size_t n)
{
    add(ctx, JSON_NUMBER, keep(ctx, digits, n));
    return 1;
}

static int on_string(void *ctx, const unsigned char *bytes, size_t n)
{
    add(ctx, JSON_STRING, keep(ctx, bytes, n));
    return 1;
}

static int open_level(struct parser *p, enum json_type type)
{
    struct json *v;

    if (p->depth == JSON_DEPTH_MAX)
        return stop(p, "nested over 32 levels");
    v = add(p, type, STR_NONE);
    p->levels[p->depth++] = (struct level){v, NULL};
    return 1;
}

static int on_start_map(void *ctx)
{
    return open_level(ctx, JSON_OBJECT);
}

static int on_start_array(void *ctx)
{
    return open_level(ctx, JSON_ARRAY);
}

static const struct json *find(const struct json *obj, struct str key)
{
    const struct json *m = obj->child;

    while (m && !str_eq(m->key, key))
        m = m->next;
    return m;
}

static int on_map_key(void *ctx, const unsigned char *bytes, size_t n)
{
    struct parser *p = ctx;
    const struct json *obj = p->levels[p->depth - 1].node;

    p->key = keep(p, bytes, n);
    return obj->n < LINEAR_KEYS && find(obj, p->key) ? stop(p, "duplicate key") : 1;
}

/* For objects with many members: puts all keys into a table that lives only here. */
static bool keys_differ(struct parser *p, const struct json *obj)
{
    struct arena_mark mark = arena_mark(p->arena);
    size_t cap = 1;
    const struct json **table;
    bool differ = true;

    while (cap < (size_t)obj->n * 2)
        cap *= 2;
    table = take(p, cap * sizeof *table);
    memset(table, 0, cap * sizeof *table);
    for (const struct json *m = obj->child; m && differ; m = m->next) {
        size_t i = str_hash(m->key) & (cap - 1);
        while (table[i] && !str_eq(table[i]->key, m->key))
            i = (i + 1) & (cap - 1);
        differ = !table[i];
        table[i] = m;
    }
    arena_rewind(p->arena, mark);
    return differ;
}

static int on_end_map(void *ctx)
{
    struct parser *p = ctx;
    const struct json *obj = p->levels[--p->depth].node;

    return obj->n > LINEAR_KEYS && !keys_differ(p, obj) ? stop(p, "duplicate key in the object that ends here") : 1;
}

static int on_end_array(void *ctx)
{
    struct parser *p = ctx;

    p->depth--;
    return 1;
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_start_map,
    .yajl_map_key = on_map_key,
    .yajl_end_map = on_end_map,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end_array,
};

static bool utf8_ok(struct parser *p)
{
    struct str s = p->text;
    size_t n;

    if (str_utf8_ok(s))
        return true;
    while ((n = str_utf8_seq(s)) != 0) {
        s.p += n;
        s.n -= n;
    }
    p->offset = (size_t)(s.p - p->text.p);
    p->reason = "not UTF-8";
    return false;
}

/* The value of four hexadecimal digits, or -1. */
static int hex4(const char *p, const char *end)
{
    int v = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* Checks what yajl does not: NUL and lone surrogates. Escapes that are malformed are left for yajl to report. */
static bool escapes_ok(struct parser *p)
{
    const char *at = p->text.p, *end = p->text.p + p->text.n;

    while (at < end && (at = memchr(at, '\\', (size_t)(end - at))) != NULL) {
        int unit, low;

        if (end - at < 2 || at[1] != 'u' || (unit = hex4(at + 2, end)) < 0) {
            at += 2;
            continue;
        }
        if (unit == 0) {
            p->reason = "U+0000 in a string";
        } else if ((unit & 0xFC00) == 0xD800) {
            low = end - at >= 12 && at[6] == '\\' && at[7] == 'u' ? hex4(at + 8, end) : -1;
            if (low < 0 || (low & 0xFC00) != 0xDC00)
                p->reason = "lone surrogate";
            else
                at += 6;
        } else if ((unit & 0xFC00) == 0xDC00) {
            p->reason = "lone surrogate";
        }
        if (p->reason) {
            p->offset = (size_t)(at - p->text.p);
            return false;
        }
        at += 6;
    }
    return true;
}

/* yajl takes \v and \f between tokens for blanks; in strings it refuses them itself. */
static bool blanks_ok(struct parser *p)
{
    const char *at = p->text.n ? memchr(p->text.p, '\v', p->text.n) : NULL;

    if (!at && p->text.n)
        at = memchr(p->text.p, '\f', p->text.n);
    if (!at)
        return true;
    p->offset = (size_t)(at - p->text.p);
    p->reason = "unescaped control character";
    return false;
}

/* yajl's words without its line end. */
static const char *yajl_reason(yajl_handle h)
{
    char *z = (char *)yajl_get_error(h, 0, NULL, 0);

    z[strcspn(z, "\n")] = '\0';
    return z;
}

static enum pf_err run(struct parser *p, struct str text)
{
    yajl_alloc_funcs memory = {yajl_take, yajl_retake, yajl_drop, p};
    yajl_handle h;

    if (setjmp(p->nomem))
        return PFE_NOMEM;
    p->text.p = take(p, text.n ? text.n : 1);
    p->text.n = text.n;
    if (text.n)
        memcpy((char *)p->text.p, text.p, text.n);
    if (!utf8_ok(p) || !escapes_ok(p) || !blanks_ok(p))
        return PFE_BAD_JSON;

    h = yajl_alloc(&callbacks, &memory, p);
    yajl_config(h, yajl_dont_validate_strings, 1);
    if (yajl_parse(h, (const unsigned char *)p->text.p, text.n) != yajl_status_ok)
        p->offset = yajl_get_bytes_consumed(h);
    else if (yajl_complete_parse(h) != yajl_status_ok ||
             yajl_parse(h, (const unsigned char *)"\n", 1) != yajl_status_ok)
        p->offset = text.n;
    else
        return PFE_OK;
    if (!p->reason)
        p->reason = yajl_reason(h);
    return PFE_BAD_JSON;
}

enum pf_err json_parse(struct arena *a, struct str text, struct json **ret, struct problem *p)
{
    struct parser parser;
    struct arena_mark mark = arena_mark(a);
    enum pf_err e;

    parser.arena = a;
    parser.root = NULL;
    parser.key = STR_NONE;
    parser.depth = 0;
    parser.reason = NULL;
    parser.offset = 0;
    e = run(&parser, text);
    if (e == PFE_OK) {
        *ret = parser.root;
        return PFE_OK;
    }
    if (p && e == PFE_BAD_JSON)
        problem_set(p, e, "malformed JSON at byte %zu: %s", parser.offset, parser.reason);
    else if (p)
        problem_set(p, e, "the body needs more memory than a request may have");
    arena_rewind(a, mark);
    return e;
}

struct json *json_get(const struct json *obj, const char *key)
{
    return obj && obj->type == JSON_OBJECT ? (struct json *)find(obj, str_c(key)) : NULL;
}
