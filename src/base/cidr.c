#include "base/cidr.h"

#include <arpa/inet.h>
#include <string.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

static bool is_v4(const struct cidr_address *a)
{
    return memcmp(a->b, mapped, sizeof mapped) == 0;
}

bool cidr_address_parse(struct str s, struct cidr_address *ret)
{
    char text[CIDR_ADDRESS_MAX];
    struct cidr_address a;
    if (!str_copy(text, sizeof text, s) || strlen(text) != s.n)
        return false;
    memcpy(a.b, mapped, sizeof mapped);
    if (inet_pton(AF_INET, text, a.b + sizeof mapped) != 1 && inet_pton(AF_INET6, text, a.b) != 1)
        return false;
    *ret = a;
    return true;
}

void cidr_address_format(const struct cidr_address *a, char out[CIDR_ADDRESS_MAX])
{
    if (is_v4(a))
        inet_ntop(AF_INET, a->b + sizeof mapped, out, CIDR_ADDRESS_MAX);
    else
        inet_ntop(AF_INET6, a->b, out, CIDR_ADDRESS_MAX);
}

/* The byte i of a mask of so many bits. */
static uint8_t mask(unsigned bits, unsigned i)
{
    return (uint8_t)(bits >= 8 * (i + 1) ? 0xffu : bits <= 8 * i ? 0 : 0xff00u >> (bits - 8 * i));
}

static bool within(const struct cidr *c, const struct cidr_address *a)
{
    for (unsigned i = 0; i < sizeof a->b; i++)
        if ((a->b[i] & mask(c->bits, i)) != c->net.b[i])
            return false;
    return true;
}

static bool cidr_parse(struct str s, struct cidr *ret)
{
    const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
    const struct str address = {s.p, slash ? (size_t)(slash - s.p) : s.n};
    uint64_t bits;
    if (!cidr_address_parse(address, &ret->net))
        return false;
    /* as written, for ::ffff:10.0.0.0/104 is a prefix of the IPv6 form */
    const unsigned max = memchr(address.p, ':', address.n) ? 128 : 32;
    bits = max;
    if (slash && (!str_to_u64((struct str){slash + 1, s.n - address.n - 1}, &bits) || bits > max))
        return false;
    ret->bits = (unsigned)bits + (128 - max);
    return within(ret, &ret->net); /* nothing behind the prefix */
}

bool cidr_list_parse(struct str s, struct cidr_list *ret, struct str *ret_bad)
{
    ret->n = 0;
    *ret_bad = s = str_trim(s);
    while (s.n > 0) {
        const char *comma = memchr(s.p, ',', s.n);
        const struct str one = str_trim((struct str){s.p, comma ? (size_t)(comma - s.p) : s.n});
        *ret_bad = one;
        if (ret->n == CIDR_LIST_MAX || !cidr_parse(one, &ret->at[ret->n]))
            return false;
        ret->n++;
        if (!comma)
            break;
        s = str_trim((struct str){comma + 1, s.n - (size_t)(comma + 1 - s.p)});
        *ret_bad = s;
        if (s.n == 0) /* a comma, and nothing behind it */
            return false;
    }
    return true;
}

bool cidr_list_has(const struct cidr_list *l, const struct cidr_address *a)
{
    for (unsigned i = 0; i < l->n; i++)
        if (within(&l->at[i], a))
            return true;
    return false;
}
