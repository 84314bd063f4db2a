#include "http/proxies.h"

/* Takes the last comma-separated entry off s. */
static struct str last_entry(struct str *s)
{
    const char *comma = s->n ? memrchr(s->p, ',', s->n) : NULL;
    struct str one = *s;
    if (comma)
        one = (struct str){comma + 1, s->n - (size_t)(comma + 1 - s->p)};
    s->n = comma ? (size_t)(comma - s->p) : 0;
    return str_trim(one);
}

/* An address; with a port, as some proxies append it: 192.0.2.1:80, [2001:db8::1], [2001:db8::1]:80. */
static bool entry_parse(struct str s, struct cidr_address *ret)
{
    uint64_t port;
    struct str rest = STR_NONE;
    if (s.n && s.p[0] == '[') {
        const char *end = memchr(s.p, ']', s.n);
        if (!end)
            return false;
        rest = (struct str){end + 1, s.n - (size_t)(end + 1 - s.p)};
        s = (struct str){s.p + 1, (size_t)(end - s.p) - 1};
        if (!memchr(s.p, ':', s.n))
            return false;
    } else {
        const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
        if (colon && memrchr(s.p, ':', s.n) == colon) {
            rest = (struct str){colon, s.n - (size_t)(colon - s.p)};
            s.n = (size_t)(colon - s.p);
        }
    }
    if (rest.n && (rest.p[0] != ':' || !str_to_u64((struct str){rest.p + 1, rest.n - 1}, &port) || port > 65535))
        return false;
    return cidr_address_parse(s, ret);
}

/* False: nothing of it can be believed. */
static bool client_of(const struct cidr_list *trusted, const struct http_pair *headers, unsigned n,
                      struct cidr_address *ret)
{
    unsigned hops = 0;
    for (unsigned i = n; i-- > 0;) { /* lines of one name are one list, in their order */
        struct str list = headers[i].value;
        if (!str_eq_nocase(headers[i].name, STR("X-Forwarded-For")))
            continue;
        do {
            if (++hops > PROXIES_HOPS_MAX || !entry_parse(last_entry(&list), ret))
                return false;
            if (!cidr_list_has(trusted, ret))
                return true;
        } while (list.n > 0);
    }
    return hops > 0;
}

void proxies_resolve(const struct cidr_list *trusted, const struct http_pair *headers, unsigned n,
                     char peer[CIDR_ADDRESS_MAX], bool *ret_https)
{
    struct cidr_address a;
    *ret_https = false;
    if (trusted->n == 0 || !cidr_address_parse(str_c(peer), &a) || !cidr_list_has(trusted, &a))
        return;
    for (unsigned i = 0; i < n; i++)
        if (str_eq_nocase(headers[i].name, STR("X-Forwarded-Proto"))) {
            struct str list = headers[i].value;
            *ret_https = str_eq_nocase(last_entry(&list), STR("https"));
        }
    if (client_of(trusted, headers, n, &a))
        cidr_address_format(&a, peer);
}
