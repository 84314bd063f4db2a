/*
 * str: a borrowed run of bytes, not necessarily NUL-terminated. Passed by value; owns nothing.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(lit) ((struct str){("" lit), sizeof(lit) - 1})
#define STR_NONE ((struct str){NULL, 0})

static inline struct str str_c(const char *z)
{
    return z ? (struct str){z, strlen(z)} : STR_NONE;
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool str_is(struct str a, const char *z)
{
    return str_eq(a, str_c(z));
}

/* ASCII only, locale-free. */
bool str_eq_nocase(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
struct str str_trim(struct str s);
/* Shell-style match of *, ? and [classes] with ranges and ! or ^; no escapes. Pattern times text at worst. */
bool str_glob(struct str pattern, struct str text);
/* Whole string must be decimal digits and fit; a leading '-' only in the signed form. */
bool str_to_u64(struct str s, uint64_t *ret);
bool str_to_i64(struct str s, int64_t *ret);
/* Decimal digits without a NUL; returns how many. */
enum { STR_U64_MAX = 20 };
size_t str_from_u64(uint64_t v, char out[STR_U64_MAX]);
/* Well-formed UTF-8 per RFC 3629 (no surrogates, no overlong forms). */
bool str_utf8_ok(struct str s);
/* Length (1..4) of the well-formed UTF-8 sequence that s begins with; 0 if there is none. */
size_t str_utf8_seq(struct str s);
/* Copies into dst (NUL-terminated); false, and dst empty, if it does not fit. */
bool str_copy(char *dst, size_t cap, struct str s);
/* 64-bit hash for tables, keyed per process against flooding (SipHash-2-4). */
uint64_t str_hash(struct str s);

#endif
