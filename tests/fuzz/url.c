/* Percent escapes and UTF-8: url_decode agrees with a second decoder, character by character. */
#include "fuzz.h"
#include "http/router.h"

/* RFC 3629, by value: reads the bits, then asks whether this length was needed for them. */
static bool utf8_ok(const uint8_t *p, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

    for (size_t i = 0; i < n;) {
        unsigned len = p[i] < 0x80 ? 1 : p[i] >> 5 == 6 ? 2 : p[i] >> 4 == 14 ? 3 : p[i] >> 3 == 30 ? 4 : 0;
        uint32_t v = len == 1 ? p[i] : p[i] & (0x7fu >> len);
        if (len == 0 || n - i < len)
            return false;
        for (unsigned k = 1; k < len; k++) {
            if (p[i + k] >> 6 != 2)
                return false;
            v = v << 6 | (p[i + k] & 0x3f);
        }
        if (v < least[len] || v > 0x10FFFF || (v >= 0xD800 && v <= 0xDFFF))
            return false;
        i += len;
    }
    return true;
}

/* out: s.n bytes. */
static bool decode(struct str s, bool plus, uint8_t *out, size_t *ret_n)
{
    static const char hex[] = "0123456789abcdef0123456789ABCDEF";
    size_t n = 0;

    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (c == '%') {
            const char *hi = s.n - i > 2 ? memchr(hex, s.p[i + 1], 32) : NULL;
            const char *lo = s.n - i > 2 ? memchr(hex, s.p[i + 2], 32) : NULL;
            if (!hi || !lo)
                return false;
            c = (uint8_t)((hi - hex) % 16 * 16 + (lo - hex) % 16);
            i += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        if (c == 0)
            return false;
        out[n++] = c;
    }
    *ret_n = n;
    return utf8_ok(out, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str in = {(const char *)data, n}, got = STR("untouched"), rest;
    bool plus = fuzz_take(&in, 1) & 1, ok;
    uint8_t *expect = malloc(in.n);
    struct arena arena;
    size_t expect_n = 0, steps = 0;

    CHECK(expect);
    CHECK(str_utf8_ok(in) == utf8_ok((const uint8_t *)in.p, in.n));
    for (rest = in; (steps = str_utf8_seq(rest)) != 0; rest.p += steps, rest.n -= steps)
        CHECK(steps <= rest.n && utf8_ok((const uint8_t *)rest.p, steps));
    CHECK((rest.n == 0) == str_utf8_ok(in));

    arena_init(&arena, NULL, 0, SIZE_MAX);
    ok = url_decode(&arena, in, plus, &got);
    CHECK(ok == decode(in, plus, expect, &expect_n));
    CHECK(!ok || str_eq(got, (struct str){(const char *)expect, expect_n}));
    arena_reset(&arena);
    /* no memory is a refusal, unless nothing has to be decoded */
    arena_init(&arena, NULL, 0, 0);
    CHECK(!url_decode(&arena, in, plus, &got) || (ok && got.p == in.p && got.n == in.n));
    arena_reset(&arena);
    free(expect);
    return 0;
}
