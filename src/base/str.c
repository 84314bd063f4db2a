#include "base/str.h"

#include <pthread.h>

#include "base/rand.h"

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool str_eq_nocase(struct str a, struct str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != lower(b.p[i]))
            return false;
    return true;
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s)
{
    while (s.n && is_space(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* The class that starts behind the '[' at p: does it hold c? *ret_end: behind its ']'. A '[' without one stands for
 * itself. */
static bool class_has(struct str pattern, size_t p, char c, size_t *ret_end)
{
    size_t at = p;
    bool negated = at < pattern.n && (pattern.p[at] == '!' || pattern.p[at] == '^'), found = false;

    at += negated;
    for (size_t first = at; at < pattern.n && (pattern.p[at] != ']' || at == first); at++) {
        if (at + 2 < pattern.n && pattern.p[at + 1] == '-' && pattern.p[at + 2] != ']') {
            found |= pattern.p[at] <= c && c <= pattern.p[at + 2];
            at += 2;
        } else {
            found |= pattern.p[at] == c;
        }
    }
    if (at >= pattern.n) {
        *ret_end = p;
        return c == '[';
    }
    *ret_end = at + 1;
    return found != negated;
}

/* Does the pattern's element at p take c? *ret_end: behind the element. */
static bool glob_takes(struct str pattern, size_t p, char c, size_t *ret_end)
{
    *ret_end = p + 1;
    switch (pattern.p[p]) {
    case '?':
        return true;
    case '[':
        return class_has(pattern, p + 1, c, ret_end);
    default:
        return pattern.p[p] == c;
    }
}

bool str_glob(struct str pattern, struct str text)
{
    size_t p = 0, t = 0, end;
    size_t star = SIZE_MAX, star_text = 0; /* where to resume: the last star, and the text it has swallowed */

    while (t < text.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            star_text = t;
        } else if (p < pattern.n && glob_takes(pattern, p, text.p[t], &end)) {
            p = end;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++star_text;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*')
        p++;
    return p == pattern.n;
}

bool str_to_u64(struct str s, uint64_t *ret)
{
    uint64_t v = 0;

    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned d = (unsigned char)s.p[i] - (unsigned)'0';
        if (d > 9 || __builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, d, &v))
            return false;
    }
    *ret = v;
    return true;
}

bool str_to_i64(struct str s, int64_t *ret)
{
    uint64_t v;
    bool neg = s.n && s.p[0] == '-';

    if (neg) {
        s.p++;
        s.n--;
    }
    if (!str_to_u64(s, &v) || v > (uint64_t)INT64_MAX + neg)
        return false;
    *ret = (int64_t)(neg ? 0 - v : v);
    return true;
}

size_t str_from_u64(uint64_t v, char out[STR_U64_MAX])
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    char tmp[STR_U64_MAX], *p = tmp + sizeof tmp;
    size_t n;

    while (v >= 100) {
        p -= 2;
        memcpy(p, pairs + v % 100 * 2, 2);
        v /= 100;
    }
    *--p = (char)('0' + v % 10);
    if (v >= 10)
        *--p = (char)('0' + v / 10);
    n = (size_t)(tmp + sizeof tmp - p);
    memcpy(out, p, n);
    return n;
}

size_t str_utf8_seq(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    unsigned char lo = 0x80, hi = 0xBF; /* what the second byte may be */
    size_t n;

    if (s.n == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return 0;
    n = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (s.n < n)
        return 0;
    if (p[0] == 0xE0)
        lo = 0xA0;
    else if (p[0] == 0xED)
        hi = 0x9F;
    else if (p[0] == 0xF0)
        lo = 0x90;
    else if (p[0] == 0xF4)
        hi = 0x8F;
    if (p[1] < lo || p[1] > hi)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return n;
}

bool str_utf8_ok(struct str s)
{
    while (s.n) {
        uint64_t w;
        size_t n;

        while (s.n >= sizeof w) {
            memcpy(&w, s.p, sizeof w);
            if (w & 0x8080808080808080u)
                break;
            s.p += sizeof w;
            s.n -= sizeof w;
        }
        if (s.n == 0)
            break;
        n = str_utf8_seq(s);
        if (n == 0)
            return false;
        s.p += n;
        s.n -= n;
    }
    return true;
}

bool str_copy(char *dst, size_t cap, struct str s)
{
    if (cap == 0)
        return false;
    dst[0] = '\0';
    if (s.n >= cap)
        return false;
    if (s.n)
        memcpy(dst, s.p, s.n);
    dst[s.n] = '\0';
    return true;
}

/* SipHash-2-4, https://www.aumasson.jp/siphash/siphash.pdf */

static uint64_t hash_key[2];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void hash_init(void)
{
    rand_bytes(hash_key, sizeof hash_key);
}

static inline uint64_t rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static inline __attribute__((always_inline)) void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

static inline __attribute__((always_inline)) void sip_word(uint64_t v[4], uint64_t m)
{
    v[3] ^= m;
    sip_round(v);
    sip_round(v);
    v[0] ^= m;
}

uint64_t str_hash(struct str s)
{
    uint64_t v[4], m;
    size_t i, tail = s.n & 7;

    pthread_once(&hash_once, hash_init);
    v[0] = hash_key[0] ^ 0x736f6d6570736575u;
    v[1] = hash_key[1] ^ 0x646f72616e646f6du;
    v[2] = hash_key[0] ^ 0x6c7967656e657261u;
    v[3] = hash_key[1] ^ 0x7465646279746573u;
    for (i = 0; i + 8 <= s.n; i += 8) {
        memcpy(&m, s.p + i, 8);
        sip_word(v, m);
    }
    m = (uint64_t)s.n << 56;
    for (size_t j = 0; j < tail; j++)
        m |= (uint64_t)(unsigned char)s.p[i + j] << (8 * j);
    sip_word(v, m);
    v[2] ^= 0xff;
    for (int r = 0; r < 4; r++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
