#include "codec/crypt.h"

#include "base/rand.h"

static const char b64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t b64url_encode(const void *p, size_t n, char *out)
{
    const uint8_t *in = p;
    char *o = out;
    size_t left;

    for (left = n; left >= 3; left -= 3, in += 3) {
        uint32_t v = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
        *o++ = b64url[v >> 18];
        *o++ = b64url[v >> 12 & 63];
        *o++ = b64url[v >> 6 & 63];
        *o++ = b64url[v & 63];
    }
    if (left) {
        uint32_t v = (uint32_t)in[0] << 16 | (left == 2 ? (uint32_t)in[1] << 8 : 0);
        *o++ = b64url[v >> 18];
        *o++ = b64url[v >> 12 & 63];
        if (left == 2)
            *o++ = b64url[v >> 6 & 63];
    }
    *o = '\0';
    return (size_t)(o - out);
}

static int b64url_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool b64url_decode(struct str s, void *out, size_t cap, size_t *ret_n)
{
    uint8_t *o = out;
    size_t n = s.n / 4 * 3 + (s.n % 4 ? s.n % 4 - 1 : 0);
    uint32_t bits = 0;
    unsigned have = 0;

    if (s.n % 4 == 1 || n > cap)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        int v = b64url_value(s.p[i]);
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            *o++ = (uint8_t)(bits >> have);
            bits &= (1u << have) - 1;
        }
    }
    if (bits)
        return false;
    *ret_n = n;
    return true;
}

void hex_encode(const void *p, size_t n, char *out)
{
    static const char hex[] = "0123456789abcdef";
    const uint8_t *in = p;

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = hex[in[i] >> 4];
        out[2 * i + 1] = hex[in[i] & 15];
    }
    out[2 * n] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool hex_decode(struct str s, void *out, size_t cap, size_t *ret_n)
{
    uint8_t *o = out;

    if (s.n % 2 || s.n / 2 > cap)
        return false;
    for (size_t i = 0; i < s.n; i += 2) {
        int hi = hex_value(s.p[i]), lo = hex_value(s.p[i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        *o++ = (uint8_t)(hi << 4 | lo);
    }
    *ret_n = s.n / 2;
    return true;
}

void base62_random32(char out[BASE62_32_LEN + 1])
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint32_t limb[8]; /* one number of 256 bits, most significant limb first */

    rand_bytes(limb, sizeof limb);
    for (size_t i = BASE62_32_LEN; i-- > 0;) {
        uint64_t rest = 0;
        for (size_t k = 0; k < 8; k++) {
            rest = rest << 32 | limb[k];
            limb[k] = (uint32_t)(rest / 62);
            rest %= 62;
        }
        out[i] = digits[rest];
    }
    out[BASE62_32_LEN] = '\0';
    explicit_bzero(limb, sizeof limb);
}
