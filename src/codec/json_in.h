/*
 * json_in: JSON text to a tree in an arena, on yajl's callbacks.
 *
 * Strict (RFC 8259): UTF-8 is checked, and so are duplicate keys, trailing bytes, nesting over JSON_DEPTH_MAX,
 * lone surrogates in \u escapes: all PFE_BAD_JSON. Numbers keep their digits as written and never pass
 * through a double. Strings are decoded; one that holds U+0000 is PFE_BAD_JSON.
 * The tree borrows nothing from the input once parsed (all is copied into the arena). It takes about 3 KiB (yajl's
 * own), the length of the text and 64 bytes a value; objects of more than 16 members up to 32 bytes a member more while
 * they are checked. Strings are not NUL-terminated. What a failed parse took is given back.
 */
#ifndef CODEC_JSON_IN_H
#define CODEC_JSON_IN_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum { JSON_DEPTH_MAX = 32 };

enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    unsigned n;         /* members or elements */
    struct str s;       /* STRING: decoded bytes; NUMBER: digits as written */
    struct str key;     /* the member's name, when inside an object */
    struct json *child; /* first member or element, in order */
    struct json *next;  /* sibling */
};

/* *ret is set on PFE_OK only. PFE_BAD_JSON fills p's detail with the byte offset and the reason; PFE_NOMEM when
   the arena is exhausted. p may be NULL. */
enum pf_err json_parse(struct arena *a, struct str text, struct json **ret, struct problem *p) MUSTCHECK;
/* The member, or NULL; also NULL when obj is NULL or not an object. */
struct json *json_get(const struct json *obj, const char *key);

#endif
