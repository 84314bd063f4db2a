#include "codec/decimal.h"

#include <stdbool.h>

enum {
    CHARS_MAX = 64,
    EXPONENT_CAP = 10000 /* beyond it every exponent is alike: no 64 characters bring the value back into range */
};

struct number {
    const char *whole, *fraction; /* digits */
    size_t n_whole, n_fraction;
    int exponent;
    bool negative;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static size_t digits(const char *p, const char *end)
{
    const char *start = p;

    while (p < end && is_digit(*p))
        p++;
    return (size_t)(p - start);
}

static bool scan_exponent(const char *p, const char *end, int *ret)
{
    bool neg = false;
    int v = 0;

    if (p < end && (*p == '+' || *p == '-'))
        neg = *p++ == '-';
    if (p == end)
        return false;
    for (; p < end; p++) {
        if (!is_digit(*p))
            return false;
        if (v < EXPONENT_CAP)
            v = v * 10 + (*p - '0');
    }
    *ret = neg ? -v : v;
    return true;
}

static bool scan(struct str s, struct number *n)
{
    const char *p = s.p, *end = s.p + s.n;

    *n = (struct number){0};
    if (p < end && *p == '-') {
        n->negative = true;
        p++;
    }
    n->whole = p;
    n->n_whole = digits(p, end);
    if (n->n_whole == 0 || (n->n_whole > 1 && *p == '0'))
        return false;
    p += n->n_whole;
    if (p < end && *p == '.') {
        n->fraction = ++p;
        n->n_fraction = digits(p, end);
        if (n->n_fraction == 0)
            return false;
        p += n->n_fraction;
    }
    if (p < end && (*p == 'e' || *p == 'E'))
        return scan_exponent(p + 1, end, &n->exponent);
    return p == end;
}

static bool all_zero(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != '0')
            return false;
    return true;
}

/* *v = *v * 10^n and the digits at p; false when it leaves int64. */
static bool append(int64_t *v, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (__builtin_mul_overflow(*v, 10, v) || __builtin_add_overflow(*v, p[i] - '0', v))
            return false;
    return true;
}

enum decimal_err decimal_parse(struct str s, unsigned scale, int64_t *ret_minor)
{
    struct number n;
    int64_t v = 0;
    int decimals;

    if (s.n == 0 || !scan(s, &n))
        return DECIMAL_SYNTAX;
    if (s.n > CHARS_MAX)
        return DECIMAL_RANGE;
    if (all_zero(n.whole, n.n_whole) && all_zero(n.fraction, n.n_fraction))
        return DECIMAL_ZERO;
    if (n.negative)
        return DECIMAL_NEGATIVE;
    decimals = (int)n.n_fraction - n.exponent;
    if (decimals > (int)scale)
        return DECIMAL_SCALE;
    if (!append(&v, n.whole, n.n_whole) || !append(&v, n.fraction, n.n_fraction))
        return DECIMAL_RANGE;
    for (int i = decimals; i < (int)scale; i++)
        if (__builtin_mul_overflow(v, 10, &v))
            return DECIMAL_RANGE;
    *ret_minor = v;
    return DECIMAL_OK;
}

const char *decimal_reason(enum decimal_err e, unsigned scale)
{
    static const char *const too_fine[] = {"must be a whole number", "must have at most 1 decimal",
                                           "must have at most 2 decimals", "must have at most 3 decimals",
                                           "must have at most 4 decimals"};

    switch (e) {
    case DECIMAL_OK:
        return "is valid";
    case DECIMAL_SYNTAX:
        return "must be a decimal number";
    case DECIMAL_SCALE:
        return scale < sizeof too_fine / sizeof *too_fine ? too_fine[scale] : "has too many decimals";
    case DECIMAL_ZERO:
    case DECIMAL_NEGATIVE:
        return "must be greater than 0";
    case DECIMAL_RANGE:
        return "is too large";
    }
    return "is not valid";
}

size_t decimal_format(int64_t minor, unsigned scale, char out[DECIMAL_TEXT_MAX])
{
    char text[STR_U64_MAX], *p = out;
    size_t n = str_from_u64(minor < 0 ? 0 - (uint64_t)minor : (uint64_t)minor, text);
    size_t whole = n > scale ? n - scale : 0;

    if (minor < 0)
        *p++ = '-';
    if (whole == 0)
        *p++ = '0';
    memcpy(p, text, whole);
    p += whole;
    if (scale) {
        *p++ = '.';
        for (size_t i = n; i < scale; i++)
            *p++ = '0';
        memcpy(p, text + whole, n - whole);
        p += n - whole;
    }
    *p = '\0';
    return (size_t)(p - out);
}
