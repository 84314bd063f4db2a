/* Amounts: decimal_parse agrees with a second reading in 128 bits; decimal_format has its shape and reads back. */
#include "codec/decimal.h"
#include "fuzz.h"

enum { CHARS_MAX = 64, EXPONENT_ENOUGH = 1000 };

static const __int128 OVER = (__int128)1 << 100; /* a stand-in for all that is larger */

static __int128 times_ten(__int128 v)
{
    return v >= OVER ? OVER : v * 10;
}

/* One pass, a state a character; the mantissa in 128 bits. */
static enum decimal_err reading(struct str s, unsigned scale, int64_t *ret)
{
    enum { START, MINUS, ZERO, WHOLE, DOT, FRACTION, E, SIGN, EXPONENT } at = START;
    bool negative = false, below = false;
    __int128 v = 0;
    long decimals = 0, exponent = 0;

    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool digit = c >= '0' && c <= '9';
        if (at == START && c == '-')
            at = MINUS, negative = true;
        else if ((at == START || at == MINUS) && digit)
            at = c == '0' ? ZERO : WHOLE;
        else if ((at == ZERO || at == WHOLE) && c == '.')
            at = DOT;
        else if ((at == DOT || at == FRACTION) && digit)
            at = FRACTION, decimals++;
        else if ((at == ZERO || at == WHOLE || at == FRACTION) && (c == 'e' || c == 'E'))
            at = E;
        else if (at == E && (c == '+' || c == '-'))
            at = SIGN, below = c == '-';
        else if ((at == E || at == SIGN || at == EXPONENT) && digit)
            at = EXPONENT;
        else if (!(at == WHOLE && digit))
            return DECIMAL_SYNTAX;
        if (at == WHOLE || at == FRACTION)
            v = times_ten(v) + (c - '0');
        if (at == EXPONENT && exponent < EXPONENT_ENOUGH)
            exponent = exponent * 10 + (c - '0');
    }
    if (at != ZERO && at != WHOLE && at != FRACTION && at != EXPONENT)
        return DECIMAL_SYNTAX;
    if (s.n > CHARS_MAX)
        return DECIMAL_RANGE;
    if (v == 0)
        return DECIMAL_ZERO;
    if (negative)
        return DECIMAL_NEGATIVE;
    decimals -= below ? -exponent : exponent;
    if (decimals > (long)scale)
        return DECIMAL_SCALE;
    for (; decimals < (long)scale && v < OVER; decimals++)
        v = times_ten(v);
    if (v > INT64_MAX)
        return DECIMAL_RANGE;
    *ret = (int64_t)v;
    return DECIMAL_OK;
}

static void check_format(int64_t minor, unsigned scale)
{
    char out[DECIMAL_TEXT_MAX];
    size_t len = decimal_format(minor, scale, out), digits = 0;
    __int128 v = 0;
    int64_t back = 0;

    CHECK(len < sizeof out && strlen(out) == len);
    for (const char *p = out + (minor < 0); *p; p++) {
        if (*p == '.') {
            CHECK(scale && (size_t)(out + len - p) == scale + 1);
            continue;
        }
        CHECK(*p >= '0' && *p <= '9');
        v = v * 10 + (*p - '0');
        digits++;
    }
    CHECK((scale != 0) == (strchr(out, '.') != NULL));
    CHECK(digits > scale && (out[minor < 0] != '0' || digits == scale + 1));
    CHECK((out[0] == '-' ? -v : v) == minor);
    if (minor > 0)
        CHECK(decimal_parse((struct str){out, len}, scale, &back) == DECIMAL_OK && back == minor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str text = {(const char *)data, n};
    unsigned scale = (unsigned)(fuzz_take(&text, 1) % 5);
    int64_t minor = -7, expect = -7;
    enum decimal_err e = decimal_parse(text, scale, &minor);

    CHECK(e == reading(text, scale, &expect));
    CHECK(minor == expect && (e == DECIMAL_OK) == (minor > 0));
    CHECK(decimal_reason(e, scale)[0]);
    check_format(minor, scale);
    check_format((int64_t)fuzz_take(&text, 8), scale);
    return 0;
}
