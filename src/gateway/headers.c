#include "gateway/headers.h"

bool header_is_hop(struct str name)
{
    static const struct str names[] = {
        {"connection", 10},
        {"keep-alive", 10},
        {"proxy-connection", 16},
        {"proxy-authenticate", 18},
        {"proxy-authorization", 19},
        {"te", 2},
        {"trailer", 7},
        {"transfer-encoding", 17},
        {"upgrade", 7},
        {"http2-settings", 14},
        {"content-length", 14},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].n == name.n && str_eq_nocase(names[i], name))
            return true;
    }
    return false;
}

bool header_lists(struct str list, struct str token)
{
    while (list.n > 0) {
        const char *comma = memchr(list.p, ',', list.n);
        struct str one = {list.p, comma ? (size_t)(comma - list.p) : list.n};
        list = comma ? (struct str){comma + 1, list.n - one.n - 1} : STR_NONE;
        if (str_eq_nocase(str_trim(one), token))
            return true;
    }
    return false;
}

bool header_name_ok(struct str s)
{
    static const uint32_t set[8] = {0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff}; /* as in http/parse.c */
    uint32_t ok = s.n > 0;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        ok &= set[c >> 5] >> (c & 31);
    }
    return ok & 1;
}

bool header_value_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

struct str header_cookie(const struct http_pair *headers, unsigned n, struct str name)
{
    for (unsigned i = 0; i < n; i++) {
        if (headers[i].name.n != 6 || !str_eq_nocase(headers[i].name, STR("cookie")))
            continue;
        for (struct str rest = headers[i].value; rest.n > 0;) {
            const char *end = memchr(rest.p, ';', rest.n);
            struct str one = {rest.p, end ? (size_t)(end - rest.p) : rest.n};
            rest = end ? (struct str){end + 1, rest.n - one.n - 1} : STR_NONE;
            one = str_trim(one);
            if (one.n > name.n && one.p[name.n] == '=' && memcmp(one.p, name.p, name.n) == 0)
                return (struct str){one.p + name.n + 1, one.n - name.n - 1};
        }
    }
    return STR_NONE;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool unreserved(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == '~';
}

/* The last segment of out[0..n), which begins with '/', if it is a dot segment: 1 or 2 dots; else 0. */
static unsigned dots(const char *out, size_t n)
{
    if (n >= 2 && out[n - 1] == '.' && out[n - 2] == '/')
        return 1;
    return n >= 3 && out[n - 1] == '.' && out[n - 2] == '.' && out[n - 3] == '/' ? 2 : 0;
}

bool path_normalise(struct arena *a, struct str path, struct str *ret)
{
    char *out = arena_alloc(a, path.n + 2);
    *ret = STR_NONE;
    if (!out)
        return true;
    size_t n = 0;
    for (size_t i = 0; i <= path.n; i++) {
        char c = i < path.n ? path.p[i] : '/'; /* one more, to end the last segment */
        if (c == '%' && i + 2 < path.n) {
            int high = hex_value(path.p[i + 1]), low = hex_value(path.p[i + 2]);
            if (high >= 0 && low >= 0 && unreserved(high * 16 + low)) {
                c = (char)(high * 16 + low);
                i += 2;
            }
        }
        unsigned up = c == '/' ? dots(out, n) : 0;
        if (up) {
            n -= up; /* "/." and "/.." leave their slash, which is that of the next segment */
            if (up == 2) {
                if (n == 1)
                    return false;
                for (n--; n > 0 && out[n - 1] != '/';)
                    n--;
            }
            continue;
        }
        if (i < path.n)
            out[n++] = c;
    }
    out[n] = '\0';
    *ret = (struct str){out, n};
    return true;
}
