#include "conf/internal.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>

enum pf_err conf_refuse(char why[CONF_WHY_MAX], const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, CONF_WHY_MAX, fmt, ap);
    va_end(ap);
    for (char *c = why; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return PFE_INVALID;
}

struct suffix {
    const char *name;
    int64_t factor;
};

static const struct suffix no_suffixes[] = {{"", 1}, {NULL, 0}};
static const struct suffix duration_suffixes[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {NULL, 0}};
static const struct suffix byte_suffixes[] = {{"", 1},
                                              {"KiB", (int64_t)1 << 10},
                                              {"MiB", (int64_t)1 << 20},
                                              {"GiB", (int64_t)1 << 30},
                                              {"TiB", (int64_t)1 << 40},
                                              {NULL, 0}};

static bool parse_number(const char *text, const struct suffix *s, int64_t *ret)
{
    size_t digits = strspn(text, "0123456789");
    int64_t v = 0;

    if (!str_to_i64((struct str){text, digits}, &v))
        return false;
    while (s->name && strcmp(s->name, text + digits) != 0)
        s++;
    return s->name && !__builtin_mul_overflow(v, s->factor, ret);
}

static bool parse_bool(const char *text, bool *ret)
{
    static const char *const words[] = {"false", "true", "0", "1", "no", "yes", "off", "on"};

    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret = i & 1;
            return true;
        }
    }
    return false;
}

static bool parse_choice(const char *text, const char *choices, int *ret)
{
    size_t len = strlen(text);
    int i = 0;

    for (const char *c = choices;; i++) {
        size_t n = strcspn(c, "|");
        if (n == len && memcmp(c, text, n) == 0) {
            *ret = i;
            return true;
        }
        if (c[n] == '\0')
            return false;
        c += n + 1;
    }
}

bool conf_parse_listen(struct str s, char host[64], bool *ret_loopback, int64_t *ret_port)
{
    struct str name = s, port = STR_NONE;
    const char *colon = memrchr(s.p, ':', s.n);
    const char *close = s.n && s.p[0] == '[' ? memchr(s.p, ']', s.n) : NULL;
    struct in_addr four;
    struct in6_addr six;

    if (close) {
        name = (struct str){s.p + 1, (size_t)(close - s.p) - 1};
        if (close + 1 < s.p + s.n) {
            if (close[1] != ':')
                return false;
            port = (struct str){close + 2, s.n - (size_t)(close + 2 - s.p)};
        }
    } else if (colon) {
        name = (struct str){s.p, (size_t)(colon - s.p)};
        port = (struct str){colon + 1, s.n - name.n - 1};
    }
    *ret_port = -1;
    if (port.p && (port.n == 0 || port.n > 5 || !str_to_i64(port, ret_port) || *ret_port < 0 || *ret_port > 65535))
        return false;
    if (!close && str_is(name, "localhost"))
        name = STR("127.0.0.1");
    if (!close && (name.n == 0 || str_is(name, "*")))
        name = STR("0.0.0.0");
    if (!str_copy(host, 64, name))
        return false;
    if (!close && inet_pton(AF_INET, host, &four) == 1) {
        *ret_loopback = ntohl(four.s_addr) >> 24 == 127;
        return true;
    }
    if (close && inet_pton(AF_INET6, host, &six) == 1) {
        *ret_loopback = IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
        return true;
    }
    return false;
}

/* scheme://host[:port], as a browser sends it. */
static bool origin_ok(struct str s)
{
    struct str rest;

    if (str_starts(s, STR("https://")))
        rest = (struct str){s.p + 8, s.n - 8};
    else if (str_starts(s, STR("http://")))
        rest = (struct str){s.p + 7, s.n - 7};
    else
        return str_is(s, "*");
    for (size_t i = 0; i < rest.n; i++)
        if (rest.p[i] <= ' ' || strchr("/?#@,\"\\", rest.p[i]))
            return false;
    return rest.n > 0;
}

static bool origins_ok(const char *text)
{
    if (*text == '\0')
        return true;
    for (const char *c = text;;) {
        size_t n = strcspn(c, ",");
        if (!origin_ok(str_trim((struct str){c, n})))
            return false;
        if (c[n] == '\0')
            return true;
        c += n + 1;
    }
}

static enum pf_err check_db_url(const char *text, char why[CONF_WHY_MAX])
{
    static const char scheme[] = "sqlite:";

    if (*text == '\0')
        return PFE_OK;
    if (strncmp(text, "postgres://", 11) == 0 || strncmp(text, "postgresql://", 13) == 0)
        return PFE_OK; /* the rest is libpq's to judge */
    if (strncmp(text, scheme, sizeof scheme - 1) != 0)
        return conf_refuse(why, "must be sqlite:PATH or postgres://USER@HOST/NAME");
    text += sizeof scheme - 1;
    if (*text == '\0' || strcmp(text, ":memory:") == 0)
        return conf_refuse(why, "must name a path after sqlite:, for the books must outlive the process");
    return PFE_OK;
}

/* "5432" or "5432,5433": ports of a list of hosts; empty: not given. */
static bool ports_ok(const char *text)
{
    while (*text) {
        size_t n = strcspn(text, ",");
        uint64_t port;
        if (!str_to_u64((struct str){text, n}, &port) || port < 1 || port > 65535 || (text[n] && !text[n + 1]))
            return false;
        text += n + (text[n] == ',');
    }
    return true;
}

static bool one_of(const char *text, const char *const *any)
{
    while (*any && strcmp(text, *any) != 0)
        any++;
    return *any != NULL;
}

/* What a string must be beyond its length. */
static enum pf_err check_string(enum conf_id id, const char *text, char why[CONF_WHY_MAX])
{
    static const char *const sslmodes[] = {"",        "disable",   "allow",       "prefer",
                                           "require", "verify-ca", "verify-full", NULL};
    char host[64];
    bool loopback;
    int64_t port;

    switch (id) {
    case CONF_LISTEN:
        if (!conf_parse_listen(str_c(text), host, &loopback, &port))
            return conf_refuse(why, "must be HOST or HOST:PORT with a numeric address, [IPv6], localhost or *");
        return PFE_OK;
    case CONF_GATEWAY_LISTEN:
    case CONF_GRPC_LISTEN:
        if (strcmp(text, "off") != 0 && !conf_parse_listen(str_c(text), host, &loopback, &port))
            return conf_refuse(why, "must be off, or HOST or HOST:PORT with a numeric address, [IPv6], localhost or *");
        return PFE_OK;
    case CONF_DEFAULT_CURRENCY:
        if (strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 3)
            return conf_refuse(why, "must be a currency code of three capital letters");
        return PFE_OK;
    case CONF_ALLOWED_ORIGINS:
        if (!origins_ok(text))
            return conf_refuse(why, "must be * or a list of http(s)://HOST[:PORT] parted by commas");
        return PFE_OK;
    case CONF_DB_URL:
        return check_db_url(text, why);
    case CONF_DB_PORT:
        if (!ports_ok(text))
            return conf_refuse(why, "must be port numbers from 1 to 65535, parted by commas");
        return PFE_OK;
    case CONF_DB_SSLMODE:
        if (!one_of(text, sslmodes))
            return conf_refuse(why, "must be disable, allow, prefer, require, verify-ca or verify-full");
        return PFE_OK;
    default:
        return PFE_OK;
    }
}

static enum pf_err parse_string(const struct conf_row *row, enum conf_id id, const char *text, char why[CONF_WHY_MAX])
{
    size_t n = strlen(text);

    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return conf_refuse(why, "must not contain control characters");
    if (!str_utf8_ok((struct str){text, n}))
        return conf_refuse(why, "must be UTF-8");
    if (n < (size_t)row->min || n > (size_t)row->max)
        return conf_refuse(why, "must have %lld to %lld bytes", (long long)row->min, (long long)row->max);
    return check_string(id, text, why);
}

enum pf_err conf_parse(struct conf *c, enum conf_id id, const char *text, char why[CONF_WHY_MAX])
{
    const struct conf_row *row = &conf_rows[id];
    void *field = (char *)c + row->offset;
    enum pf_err e;
    int64_t v;
    bool b;
    int choice;

    switch (row->type) {
    case CONF_STRING:
        if ((e = parse_string(row, id, text, why)) == PFE_OK)
            *(const char **)field = text;
        return e;
    case CONF_BOOL:
        if (!parse_bool(text, &b))
            return conf_refuse(why, "must be true or false");
        *(bool *)field = b;
        return PFE_OK;
    case CONF_ENUM:
        if (!parse_choice(text, row->unit, &choice))
            return conf_refuse(why, "must be one of %s", row->unit);
        memcpy(field, &choice, sizeof choice);
        return PFE_OK;
    case CONF_INT:
        if (!parse_number(text, no_suffixes, &v))
            return conf_refuse(why, "must be a whole number from %lld to %lld", (long long)row->min,
                               (long long)row->max);
        break;
    case CONF_DURATION:
        if (!parse_number(text, duration_suffixes, &v))
            return conf_refuse(why, "must be a time like 30s, 5m or 1h");
        break;
    case CONF_BYTES:
        if (!parse_number(text, byte_suffixes, &v))
            return conf_refuse(why, "must be a size like 65536, 64KiB, 64MiB or 1GiB");
        break;
    }
    if (v < row->min || v > row->max)
        return conf_refuse(why, "must be from %lld to %lld%s%s", (long long)row->min, (long long)row->max,
                           *row->unit ? " " : "", row->unit);
    *(int64_t *)field = v;
    return PFE_OK;
}

int64_t conf_number(const struct conf *c, enum conf_id id)
{
    const void *field = (const char *)c + conf_rows[id].offset;
    int choice;

    switch (conf_rows[id].type) {
    case CONF_BOOL:
        return *(const bool *)field;
    case CONF_ENUM:
        memcpy(&choice, field, sizeof choice);
        return choice;
    case CONF_INT:
    case CONF_DURATION:
    case CONF_BYTES:
        return *(const int64_t *)field;
    case CONF_STRING:
        break;
    }
    return 0;
}
