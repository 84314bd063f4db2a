#include "conf/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cidr.h"
#include "conf/internal.h"

enum { GATEWAY_PORT = 3000, GRPC_PORT = 50051 };
enum {
    SECRET_BYTES_MAX = 64 << 10,
    YAML_BYTES_MAX = 1 << 20,
    BCRYPT_COST_MIN_LIVE = 10, /* under ~50 ms a guess, a stolen table of hashes falls too fast */
};

/* The secret that the seeds print; everybody has it. */
static const char sample_secret[] = "your-super-secret-jwt-key-change-in-production";

static enum pf_err no_memory(char why[CONF_WHY_MAX])
{
    conf_refuse(why, "out of memory");
    return PFE_NOMEM;
}

static void wipe_free(char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    free(s);
}

enum pf_err conf_slurp(const char *path, size_t max, char **ret, size_t *ret_n, char why[CONF_WHY_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    char *p = malloc(max + 2);
    enum pf_err e = PFE_OK;
    size_t n = 0;
    ssize_t got = 0;

    if (fd < 0)
        e = conf_refuse(why, "cannot read %.160s: %s", path, strerror(errno));
    else if (!p)
        e = no_memory(why);
    while (e == PFE_OK && n <= max && (got = read(fd, p + n, max + 1 - n)) != 0) {
        if (got > 0)
            n += (size_t)got;
        else if (errno != EINTR)
            e = conf_refuse(why, "cannot read %.160s: %s", path, strerror(errno));
    }
    if (e == PFE_OK && n > max)
        e = conf_refuse(why, "%.160s is larger than %zu KiB", path, max >> 10);
    if (fd >= 0)
        close(fd);
    if (e != PFE_OK) {
        if (p)
            explicit_bzero(p, n);
        free(p);
        return e;
    }
    p[n] = '\0';
    *ret = p;
    *ret_n = n;
    return PFE_OK;
}

/* Checks a value and puts it in place of the one before; origin is copied. */
static enum pf_err set(struct conf *c, enum conf_id id, const char *text, enum conf_source source, const char *origin,
                       char why[CONF_WHY_MAX])
{
    struct conf_value *v = &c->values[id];
    const struct conf_row *row = &conf_rows[id];
    char reason[CONF_WHY_MAX];
    char *copy = strdup(text), *from = strdup(origin);
    enum pf_err e = PFE_NOMEM;

    if (!copy || !from)
        no_memory(why);
    else if ((e = conf_parse(c, id, copy, reason)) != PFE_OK) {
        if (row->secret)
            conf_refuse(why, "%s %.150s (from %.60s)", row->name, reason, origin);
        else
            conf_refuse(why, "%s %.130s, not \"%.40s\" (from %.50s)", row->name, reason, text, origin);
    }
    if (e != PFE_OK) {
        wipe_free(copy);
        free(from);
        return e;
    }
    wipe_free(v->text);
    free(v->origin);
    *v = (struct conf_value){.text = copy, .origin = from, .source = source};
    return PFE_OK;
}

static enum pf_err set_from_file(struct conf *c, enum conf_id id, const char *path, enum conf_source source,
                                 const char *origin, char why[CONF_WHY_MAX])
{
    char reason[CONF_WHY_MAX];
    char *text;
    size_t n;
    enum pf_err e = conf_slurp(path, SECRET_BYTES_MAX, &text, &n, reason);

    if (e != PFE_OK) {
        conf_refuse(why, "%s: %.200s", origin, reason);
        return e;
    }
    if (n && text[n - 1] == '\n')
        text[--n] = '\0';
    if (n && text[n - 1] == '\r')
        text[--n] = '\0';
    if (n == 0)
        e = conf_refuse(why, "%s: %.160s is empty", origin, path);
    else if (memchr(text, '\0', n))
        e = conf_refuse(why, "%s: %.160s contains a NUL byte", origin, path);
    else
        e = set(c, id, text, source, origin, why);
    explicit_bzero(text, n);
    free(text);
    return e;
}

/* ---- the YAML file ---- */

struct from_yaml {
    struct conf *conf;
    const char *path;
};

static enum pf_err take_yaml(void *ctx, const char *key, const char *value, unsigned long line, char why[CONF_WHY_MAX])
{
    const struct from_yaml *y = ctx;
    char origin[CONF_WHY_MAX];
    enum conf_id id;

    snprintf(origin, sizeof origin, "%.200s:%lu", y->path, line);
    if (conf_lookup(str_c(key), CONF_IN_YAML, &id) == CONF_SECRET_FILE)
        return set_from_file(y->conf, id, value, CONF_FILE, origin, why);
    return set(y->conf, id, value, CONF_FILE, origin, why);
}

static enum pf_err load_yaml(struct conf *c, const char *path, char why[CONF_WHY_MAX])
{
    struct from_yaml y = {c, path};
    char *text;
    size_t n;
    enum pf_err e = conf_slurp(path, YAML_BYTES_MAX, &text, &n, why);

    if (e != PFE_OK)
        return e;
    e = conf_yaml(path, (struct str){text, n}, take_yaml, &y, c, why);
    explicit_bzero(text, n);
    free(text);
    return e;
}

/* ---- the environment ---- */

/* The environment holds much that is not ours, but nobody else numbers replicas: one too many must not be lost. */
static bool stray_replica(const char *name, size_t n)
{
    static const char *const kinds[] = {"DB_READ_HOST_", "DB_READ_PORT_", "DB_READ_WEIGHT_"};
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (str_starts((struct str){name, n}, str_c(kinds[i])))
            return true;
    return false;
}

static enum pf_err load_env(struct conf *c, const char *const *env, char why[CONF_WHY_MAX])
{
    bool seen[CONF_COUNT] = {false};
    enum pf_err e = PFE_OK;

    for (; e == PFE_OK && env && *env; env++) {
        const char *eq = strchr(*env, '=');
        char origin[CONF_NAME_MAX + 8];
        enum conf_known known;
        enum conf_id id;
        if (!eq || eq[1] == '\0')
            continue;
        known = conf_lookup((struct str){*env, (size_t)(eq - *env)}, CONF_IN_ENV, &id);
        if (known == CONF_UNKNOWN && stray_replica(*env, (size_t)(eq - *env)))
            return conf_refuse(why, "%.*s is no setting: replicas are numbered from 1 to %d",
                               (int)(eq - *env < 64 ? eq - *env : 64), *env, CONF_REPLICAS);
        if (known != CONF_SETTING && known != CONF_SECRET_FILE)
            continue;
        if (seen[id])
            return conf_refuse(why, "%s is set twice in the environment; of it and its _FILE, set one",
                               conf_rows[id].name);
        seen[id] = true;
        snprintf(origin, sizeof origin, "env %.*s", (int)(eq - *env), *env);
        e = known == CONF_SETTING ? set(c, id, eq + 1, CONF_ENVIRONMENT, origin, why)
                                  : set_from_file(c, id, eq + 1, CONF_ENVIRONMENT, origin, why);
    }
    return e;
}

/* ---- the flags ---- */

struct flag {
    struct str name;   /* without dashes */
    const char *value; /* NULL: there is none */
    size_t width;
};

static enum pf_err next_flag(const struct conf_input *in, size_t i, struct flag *ret, char why[CONF_WHY_MAX])
{
    const char *arg = in->args[i];
    const char *eq = strchr(arg, '=');

    ret->width = conf_flag_width(arg);
    if (ret->width == 0)
        return strncmp(arg, "-", 1) == 0 ? conf_refuse(why, "unknown flag %.64s", arg)
                                         : conf_refuse(why, "unexpected argument \"%.64s\"", arg);
    ret->name = (struct str){arg + 2, eq ? (size_t)(eq - arg) - 2 : strlen(arg + 2)};
    ret->value = eq ? eq + 1 : ret->width == 2 && i + 1 < in->n_args ? in->args[i + 1] : NULL;
    if (ret->width == 2 && !ret->value)
        return conf_refuse(why, "flag %.64s needs a value", arg);
    if (ret->width == 1 && !ret->value)
        ret->value = "true";
    return PFE_OK;
}

static enum pf_err load_flags(struct conf *c, const struct conf_input *in, char why[CONF_WHY_MAX])
{
    enum pf_err e = PFE_OK;
    struct flag f;

    for (size_t i = 0; e == PFE_OK && i < in->n_args; i += f.width) {
        char origin[CONF_NAME_MAX + 8];
        enum conf_id id;
        if ((e = next_flag(in, i, &f, why)) != PFE_OK)
            return e;
        snprintf(origin, sizeof origin, "--%.*s", (int)f.name.n, f.name.p);
        if (str_is(f.name, "config"))
            continue;
        switch (conf_lookup(f.name, CONF_IN_FLAG, &id)) {
        case CONF_SETTING:
            e = set(c, id, f.value, CONF_FLAG, origin, why);
            break;
        case CONF_SECRET_FILE:
            e = set_from_file(c, id, f.value, CONF_FLAG, origin, why);
            break;
        case CONF_MAP:
        case CONF_RESERVED:
        case CONF_UNKNOWN:
            e = conf_refuse(why, "%s is not supported by this build yet", origin);
            break;
        }
    }
    return e;
}

/* The last --config, for the file is read before the flags are; NULL if there is none. */
static enum pf_err find_config(const struct conf_input *in, const char **ret, char why[CONF_WHY_MAX])
{
    struct flag f;

    *ret = NULL;
    for (size_t i = 0; i < in->n_args; i += f.width) {
        enum pf_err e = next_flag(in, i, &f, why);
        if (e != PFE_OK)
            return e;
        if (str_is(f.name, "config"))
            *ret = f.value;
    }
    return PFE_OK;
}

/* ---- what depends on several ---- */

static enum pf_err derive_listen(struct conf *c, char why[CONF_WHY_MAX])
{
    int64_t port;

    if (!conf_parse_listen(str_c(c->listen), c->listen_host, &c->loopback, &port))
        return conf_refuse(why, "LISTEN is malformed");
    if (port < 0 || c->values[CONF_PORT].source > c->values[CONF_LISTEN].source)
        port = c->port;
    c->listen_port = (uint16_t)port;
    return PFE_OK;
}

/* An address beside LISTEN: "off" leaves host empty. */
static enum pf_err derive_other(const char *name, const char *value, uint16_t otherwise, char host[64],
                                uint16_t *ret_port, bool *ret_loopback, char why[CONF_WHY_MAX])
{
    int64_t port;

    if (strcmp(value, "off") == 0)
        return PFE_OK;
    if (!conf_parse_listen(str_c(value), host, ret_loopback, &port))
        return conf_refuse(why, "%s is malformed", name);
    *ret_port = (uint16_t)(port < 0 ? otherwise : port);
    return PFE_OK;
}

bool conf_listen_has_port(const struct conf *c)
{
    char host[64];
    bool loopback;
    int64_t port;
    return conf_parse_listen(str_c(c->listen), host, &loopback, &port) && port >= 0;
}

/* sqlite:DIR, sqlite:DIR/payflow.db, a server or nothing. The store keeps more than one file, so the name in DIR is its
 * own. */
static enum pf_err derive_store(struct conf *c, char why[CONF_WHY_MAX])
{
    static const char file[] = "payflow.db";
    bool sqlite = strncmp(c->db_url, "sqlite:", 7) == 0;
    const char *path = sqlite ? c->db_url + 7 : c->data_dir;
    const char *slash = strrchr(path, '/');
    const char *last = slash ? slash + 1 : path;
    size_t n = strlen(path);

    if (sqlite && strcmp(last, file) == 0)
        n -= sizeof file - 1;
    else if (sqlite && (str_glob(STR("*.db"), str_c(last)) || str_glob(STR("*.sqlite*"), str_c(last))))
        return conf_refuse(why, "DB_URL must name a directory, or the file %s in one (from %.100s)", file,
                           c->values[CONF_DB_URL].origin);
    while (n > 1 && path[n - 1] == '/')
        n--;
    c->store_path = n ? strndup(path, n) : strdup(".");
    if (!c->store_path)
        return no_memory(why);
    c->store_dir = c->store_path;
    c->postgres = !sqlite && (c->db_url[0] || c->db_host[0]);
    if (sqlite && c->db_host[0])
        return conf_refuse(why, "DB_URL names an SQLite store (from %.100s), DB_HOST a PostgreSQL server (from %.60s)",
                           c->values[CONF_DB_URL].origin, c->values[CONF_DB_HOST].origin);
    return PFE_OK;
}

static enum pf_err check_together(const struct conf *c, char why[CONF_WHY_MAX])
{
    if ((*c->tls_cert == '\0') != (*c->tls_key == '\0'))
        return conf_refuse(why, "%s is set without %s; HTTPS needs both", *c->tls_cert ? "TLS_CERT" : "TLS_KEY",
                           *c->tls_cert ? "TLS_KEY" : "TLS_CERT");
    struct cidr_list proxies;
    struct str bad;
    if (!cidr_list_parse(str_c(c->trusted_proxies), &proxies, &bad))
        return conf_refuse(why,
                           "TRUSTED_PROXIES: \"%.*s\" is neither an address nor a network like 10.0.0.0/8, or there "
                           "are more than %d (from %.60s)",
                           (int)(bad.n < 50 ? bad.n : 50), bad.p ? bad.p : "", CIDR_LIST_MAX,
                           c->values[CONF_TRUSTED_PROXIES].origin);
    if (c->env != CONF_ENV_DEV && c->bcrypt_cost < BCRYPT_COST_MIN_LIVE)
        return conf_refuse(why, "BCRYPT_COST must be at least %d unless ENV=dev (from %.100s)", BCRYPT_COST_MIN_LIVE,
                           c->values[CONF_BCRYPT_COST].origin);
    return PFE_OK;
}

enum pf_err conf_check_serve(const struct conf *c, char why[CONF_WHY_MAX])
{
    size_t n = strlen(c->jwt_secret);

    for (unsigned i = 0; i < CONF_REPLICAS && !c->postgres; i++)
        if (c->db_read[i].host[0])
            return conf_refuse(why, "DB_READ_HOST_%u (from %.60s) is a replica of PostgreSQL, and the store is SQLite",
                               i + 1, c->values[CONF_DB_READ_HOST_1 + 3 * i].origin);
    if (c->env == CONF_ENV_DEV) {
        const struct {
            const char *name, *value;
            bool open;
        } bound[] = {{"LISTEN", c->listen, !c->loopback},
                     {"GATEWAY_LISTEN", c->gateway_listen, c->gateway_host[0] && !c->gateway_loopback},
                     {"GRPC_LISTEN", c->grpc_listen, c->grpc_host[0] && !c->grpc_loopback}};
        for (size_t i = 0; i < sizeof bound / sizeof *bound; i++)
            if (bound[i].open && !c->allow_open_bind)
                return conf_refuse(why,
                                   "%s %.64s: ENV=dev answers without credentials, so it binds to loopback only; "
                                   "set ENV=prod, or ALLOW_OPEN_BIND=true if you mean it",
                                   bound[i].name, bound[i].value);
        return PFE_OK;
    }
    if (n == 0)
        return conf_refuse(why, "JWT_SECRET is missing: ENV=%s needs one of at least %d bytes (or JWT_SECRET_FILE)",
                           c->values[CONF_ENV].text, CONF_JWT_SECRET_MIN);
    if (strcmp(c->jwt_secret, sample_secret) == 0)
        return conf_refuse(why, "JWT_SECRET is the published sample (from %.100s); make your own: openssl rand -hex 32",
                           c->values[CONF_JWT_SECRET].origin);
    if (n < CONF_JWT_SECRET_MIN)
        return conf_refuse(why, "JWT_SECRET must have at least %d bytes when ENV=%s (from %.100s)", CONF_JWT_SECRET_MIN,
                           c->values[CONF_ENV].text, c->values[CONF_JWT_SECRET].origin);
    return PFE_OK;
}

static enum pf_err load(struct conf *c, const struct conf_input *in, char why[CONF_WHY_MAX])
{
    const char *file;
    enum pf_err e = find_config(in, &file, why);

    for (unsigned id = 0; e == PFE_OK && id < CONF_COUNT; id++)
        e = set(c, (enum conf_id)id, conf_rows[id].def, CONF_DEFAULT, "default", why);
    if (e == PFE_OK && file)
        e = load_yaml(c, file, why);
    if (e == PFE_OK)
        e = load_env(c, in->env, why);
    if (e == PFE_OK)
        e = load_flags(c, in, why);
    if (e == PFE_OK)
        e = derive_listen(c, why);
    if (e == PFE_OK)
        e = derive_other("GATEWAY_LISTEN", c->gateway_listen, GATEWAY_PORT, c->gateway_host, &c->gateway_port,
                         &c->gateway_loopback, why);
    if (e == PFE_OK)
        e = derive_other("GRPC_LISTEN", c->grpc_listen, GRPC_PORT, c->grpc_host, &c->grpc_port, &c->grpc_loopback, why);
    if (e == PFE_OK)
        e = derive_store(c, why);
    if (e == PFE_OK)
        e = conf_derive_redis(c, why);
    return e == PFE_OK ? check_together(c, why) : e;
}

enum pf_err conf_load(const struct conf_input *in, struct conf *ret, char why[CONF_WHY_MAX])
{
    enum pf_err e;

    memset(ret, 0, sizeof *ret);
    e = load(ret, in, why);
    if (e != PFE_OK)
        conf_free(ret);
    return e;
}

void conf_free(struct conf *c)
{
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        wipe_free(c->values[id].text);
        free(c->values[id].origin);
    }
    conf_tree_free(c);
    free(c->store_path);
    free(c->redis.host);
    free(c->redis.user);
    wipe_free(c->redis.password);
    memset(c, 0, sizeof *c);
}

size_t conf_reload(struct conf *c, struct conf *fresh, struct conf_change ret[CONF_COUNT])
{
    size_t n = 0;

    for (unsigned id = 0; id < CONF_COUNT; id++) {
        const struct conf_row *row = &conf_rows[id];
        bool same = row->type == CONF_STRING ? strcmp(c->values[id].text, fresh->values[id].text) == 0
                                             : conf_number(c, (enum conf_id)id) == conf_number(fresh, (enum conf_id)id);
        struct conf_value old = c->values[id];
        char ignored[CONF_WHY_MAX];
        if (same)
            continue;
        /* fresh's text has passed the same checks */
        if (row->reload && conf_parse(c, (enum conf_id)id, fresh->values[id].text, ignored) == PFE_OK) {
            c->values[id] = fresh->values[id];
            fresh->values[id] = old;
        }
        ret[n++] = (struct conf_change){.id = (enum conf_id)id, .applied = row->reload};
    }
    return n;
}
