#include "codec/uuid.h"

#include <assert.h>

#include "base/rand.h"

static const uint64_t SEQ_LIMIT = (uint64_t)1 << 46;

static void put_be64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, sizeof v);
}

static struct uuid make(int64_t wall_us, uint64_t rand_a, uint64_t low62)
{
    struct uuid u;
    uint64_t ms = (uint64_t)(wall_us / 1000);

    put_be64(u.b, ms << 16 | 0x7000 | (rand_a & 0xfff));
    put_be64(u.b + 8, (uint64_t)1 << 63 | low62);
    return u;
}

struct uuid uuid_v7(int64_t wall_us)
{
    uint64_t r[2];

    rand_bytes(r, sizeof r);
    return make(wall_us, r[0], r[1] >> 2);
}

struct uuid uuid_v7_seq(int64_t wall_us, int64_t seq)
{
    uint64_t r = rand_u64();

    assert(seq >= 0 && (uint64_t)seq < SEQ_LIMIT);
    return make(wall_us, r, (r >> 12 & 0xffff) << 46 | (uint64_t)seq);
}

int64_t uuid_seq(const struct uuid *u)
{
    uint64_t low;

    memcpy(&low, u->b + 8, sizeof low);
    return (int64_t)(__builtin_bswap64(low) & (SEQ_LIMIT - 1));
}

static bool dash_before(size_t byte)
{
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

void uuid_format(const struct uuid *u, char out[UUID_TEXT_LEN + 1])
{
    static const char hex[] = "0123456789abcdef";
    char *p = out;

    for (size_t i = 0; i < sizeof u->b; i++) {
        if (dash_before(i))
            *p++ = '-';
        *p++ = hex[u->b[i] >> 4];
        *p++ = hex[u->b[i] & 15];
    }
    *p = '\0';
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(struct str s, struct uuid *ret)
{
    struct uuid u;
    const char *p = s.p;

    if (s.n != UUID_TEXT_LEN)
        return false;
    for (size_t i = 0; i < sizeof u.b; i++) {
        int hi, lo;
        if (dash_before(i) && *p++ != '-')
            return false;
        hi = nibble(*p++);
        lo = nibble(*p++);
        if (hi < 0 || lo < 0)
            return false;
        u.b[i] = (uint8_t)(hi << 4 | lo);
    }
    *ret = u;
    return true;
}
