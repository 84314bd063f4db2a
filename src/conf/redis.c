/* REDIS_URL, and the settings that go before it. */
#include "conf/internal.h"

#include <stdlib.h>

struct url {
    struct str host, port, user, password, db;
};

/* Splits s at the last or first c; false, and *ret_left all of it, if there is none. */
static bool split(struct str s, char at, bool last, struct str *ret_left, struct str *ret_right)
{
    const char *p = s.n == 0 ? NULL : last ? memrchr(s.p, at, s.n) : memchr(s.p, at, s.n);
    *ret_left = s;
    *ret_right = STR_NONE;
    if (!p)
        return false;
    *ret_left = (struct str){s.p, (size_t)(p - s.p)};
    *ret_right = (struct str){p + 1, s.n - ret_left->n - 1};
    return true;
}

static bool number_ok(struct str s, uint64_t min, uint64_t max)
{
    uint64_t v;
    return str_to_u64(s, &v) && v >= min && v <= max;
}

/* redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]; the path of a socket after unix: */
static bool url_parse(struct str s, struct url *ret)
{
    struct str who = STR_NONE, where, rest;
    *ret = (struct url){0};
    if (str_starts(s, STR("unix:"))) {
        ret->host = (struct str){s.p + 5, s.n - 5};
        if (str_starts(ret->host, STR("//")))
            ret->host = (struct str){ret->host.p + 2, ret->host.n - 2};
        return ret->host.n > 1 && ret->host.p[0] == '/';
    }
    if (!str_starts(s, STR("redis://")))
        return false;
    s = (struct str){s.p + 8, s.n - 8};
    if (split(s, '@', true, &who, &rest)) {
        s = rest;
        if (!split(who, ':', false, &ret->user, &ret->password))
            return false;
    }
    if (split(s, '/', false, &where, &ret->db) && ret->db.n && !number_ok(ret->db, 0, 65535))
        return false;
    if (where.n && where.p[0] == '[') { /* IPv6 */
        if (!split((struct str){where.p + 1, where.n - 1}, ']', false, &ret->host, &rest) ||
            (rest.n && rest.p[0] != ':'))
            return false;
        ret->port = rest.n ? (struct str){rest.p + 1, rest.n - 1} : STR_NONE;
    } else {
        split(where, ':', false, &ret->host, &ret->port);
    }
    return ret->host.n > 0 && ret->host.n <= 255 && (!ret->port.p || number_ok(ret->port, 1, 65535));
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* A copy with %40 and its kin resolved. PFE_INVALID: malformed, or a NUL or control character comes out. */
static enum pf_err decode(struct str s, char **ret)
{
    char *out = malloc(s.n + 1);
    size_t n = 0;
    if (!out)
        return PFE_NOMEM;
    for (size_t i = 0; i < s.n; i++) {
        int c = (unsigned char)s.p[i];
        if (c == '%') {
            const int high = i + 2 < s.n ? hex(s.p[i + 1]) : -1, low = i + 2 < s.n ? hex(s.p[i + 2]) : -1;
            c = high >= 0 && low >= 0 ? high * 16 + low : 0;
            i += 2;
        }
        if (c < 0x20) {
            explicit_bzero(out, n);
            free(out);
            return PFE_INVALID;
        }
        out[n++] = (char)c;
    }
    out[n] = '\0';
    *ret = out;
    return PFE_OK;
}

static enum pf_err copy(struct str s, char **ret)
{
    *ret = s.n ? strndup(s.p, s.n) : strdup("");
    return *ret ? PFE_OK : PFE_NOMEM;
}

static bool given(const struct conf *c, enum conf_id id)
{
    return c->values[id].source != CONF_DEFAULT;
}

static int number(const struct conf *c, enum conf_id id, struct str in_url)
{
    uint64_t v;
    return given(c, id) || !str_to_u64(in_url, &v) ? (int)conf_number(c, id) : (int)v;
}

enum pf_err conf_derive_redis(struct conf *c, char why[CONF_WHY_MAX])
{
    struct url u = {0};
    if (c->redis_cluster)
        return conf_refuse(why, "REDIS_CLUSTER: Redis Cluster is not supported; name one server (from %.100s)",
                           c->values[CONF_REDIS_CLUSTER].origin);
    if (str_starts(str_c(c->redis_url), STR("rediss://")))
        return conf_refuse(why, "REDIS_URL asks for TLS, which is not supported towards Redis (from %.100s)",
                           c->values[CONF_REDIS_URL].origin);
    if (c->redis_url[0] && !url_parse(str_c(c->redis_url), &u))
        return conf_refuse(why,
                           "REDIS_URL must be redis://[[USER]:PASSWORD@]HOST[:PORT][/DB] or unix:PATH (from %.100s)",
                           c->values[CONF_REDIS_URL].origin);
    if (c->redis_host[0])
        u.host = str_c(c->redis_host);
    c->redis.used = u.host.n > 0;
    c->redis.port = number(c, CONF_REDIS_PORT, u.port);
    c->redis.db = number(c, CONF_REDIS_DB, u.db);
    enum pf_err e = copy(u.host, &c->redis.host);
    if (e == PFE_OK)
        e = c->redis_username[0] ? copy(str_c(c->redis_username), &c->redis.user) : decode(u.user, &c->redis.user);
    if (e == PFE_OK)
        e = c->redis_password[0] ? copy(str_c(c->redis_password), &c->redis.password)
                                 : decode(u.password, &c->redis.password);
    if (e == PFE_NOMEM)
        conf_refuse(why, "out of memory");
    else if (e != PFE_OK)
        conf_refuse(why, "REDIS_URL: a %% must be followed by two hex digits of a character (from %.100s)",
                    c->values[CONF_REDIS_URL].origin);
    return e;
}
