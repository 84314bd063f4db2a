/*
 * The maps of the YAML file: discovery, breakers, retries, fallbacks, load balancing, with the names that such
 * documents give them. A map is kept as its leaves, "load_balancer.backends.0.name" and so on; every leaf must fit a
 * row of the table below.
 */
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

#include "conf/internal.h"

enum { LEAVES_MAX = 4096, DEPTH_MAX = 8, PATH_MAX_BYTES = 256 };

enum kind { TEXT, NUMBER, THOUSANDTHS, FLAG, TIME, CHOICE };

static const int64_t days_30 = (int64_t)30 * 24 * 3600 * 1000000;

/* A '*' stands for any key, a '#' for a place in a list. TIME is in µs; written as 10s, 500ms, 5m, or as a plain number
 * of milliseconds. THOUSANDTHS are written with decimals. Ranges are those of docs/resilience.md. */
static const struct tree_row {
    const char *pattern;
    enum kind kind;
    int64_t min, max;
    const char *choices;
} rows[] = {
    {"consul_config.datacenter", TEXT, 1, 64, NULL},
    {"consul_config.server", FLAG, 0, 1, NULL},
    {"consul_config.bootstrap_expect", NUMBER, 0, 1000, NULL},
    {"consul_config.retry_join.#", TEXT, 1, 255, NULL},
    {"consul_config.services.*.name", TEXT, 1, 63, NULL},
    {"consul_config.services.*.id", TEXT, 1, 63, NULL},
    {"consul_config.services.*.address", TEXT, 1, 255, NULL},
    {"consul_config.services.*.port", NUMBER, 1, 65535, NULL},
    {"consul_config.services.*.weight", NUMBER, 0, 1000, NULL},
    {"consul_config.services.*.tags.#", TEXT, 1, 63, NULL},
    {"consul_config.services.*.checks.#.name", TEXT, 0, 255, NULL},
    {"consul_config.services.*.checks.#.http", TEXT, 1, 255, NULL},
    {"consul_config.services.*.checks.#.interval", TIME, 1000000, 0, NULL},
    {"consul_config.services.*.checks.#.timeout", TIME, 1000, 0, NULL},
    {"consul_config.services.*.checks.#.deregister_critical_service_after", TIME, 0, 0, NULL},
#define BREAKER(key) "resilience4j.circuitbreaker.instances.*." key
    {BREAKER("slidingWindowType"), CHOICE, 0, 0, "COUNT_BASED|TIME_BASED"},
    {BREAKER("slidingWindowSize"), NUMBER, 1, 100000, NULL},
    {BREAKER("minimumNumberOfCalls"), NUMBER, 1, 1000000, NULL},
    {BREAKER("failureRateThreshold"), NUMBER, 1, 100, NULL},
    {BREAKER("slowCallRateThreshold"), NUMBER, 1, 100, NULL},
    {BREAKER("slowCallDurationThreshold"), TIME, 0, 0, NULL},
    {BREAKER("waitDurationInOpenState"), TIME, 0, 0, NULL},
    {BREAKER("permittedNumberOfCallsInHalfOpenState"), NUMBER, 1, 1000, NULL},
    {BREAKER("permitLease"), TIME, 1, 0, NULL},
#undef BREAKER
    {"retry.maxAttempts", NUMBER, 1, 100, NULL},
    {"retry.backoffPeriod", TIME, 0, 0, NULL},
    {"retry.backoffMultiplier", THOUSANDTHS, 1000, 100000, NULL},
    {"retry.maxBackoffPeriod", TIME, 0, 0, NULL},
    {"retry.jitter", NUMBER, 0, 100, NULL},
    {"retry.deadline", TIME, 1, 0, NULL},
    {"retry.budgetPercent", NUMBER, 0, 100, NULL},
    {"retry.budgetLeast", NUMBER, 0, 1000000, NULL},
    {"fallback.defaultResponse", TEXT, 0, 65536, NULL},
    {"fallback.cacheTimeout", TIME, 0, 0, NULL},
    {"fallback.shouldCache", FLAG, 0, 1, NULL},
    {"fallback.maxEntries", NUMBER, 1, 1000000, NULL},
    {"fallback.maxBytes", NUMBER, 1, (int64_t)1 << 40, NULL},
    {"load_balancer.algorithm", CHOICE, 0, 0, "round_robin|least_connections|random"},
    {"load_balancer.health_check.path", TEXT, 1, 255, NULL},
    {"load_balancer.health_check.interval", TIME, 0, 0, NULL},
    {"load_balancer.health_check.timeout", TIME, 1, 0, NULL},
    {"load_balancer.health_check.healthy_threshold", NUMBER, 1, 1000, NULL},
    {"load_balancer.health_check.unhealthy_threshold", NUMBER, 1, 1000, NULL},
    {"load_balancer.sticky_sessions.enabled", FLAG, 0, 1, NULL},
    {"load_balancer.sticky_sessions.cookie_name", TEXT, 1, 63, NULL},
    {"load_balancer.max_queue", NUMBER, 0, 1000000, NULL},
    {"load_balancer.queue_timeout", TIME, 1, 0, NULL},
    {"load_balancer.ejection.consecutive_failures", NUMBER, 0, 1000, NULL},
    {"load_balancer.ejection.base_time", TIME, 1, 0, NULL},
    {"load_balancer.ejection.max_time", TIME, 1, 0, NULL},
    {"load_balancer.ejection.max_percent", NUMBER, 0, 100, NULL},
    {"load_balancer.slow_start", TIME, 0, 0, NULL},
    {"load_balancer.panic_threshold", NUMBER, 0, 100, NULL},
    {"load_balancer.lease", TIME, 0, 0, NULL},
    {"load_balancer.services.*", TEXT, 1, 63, NULL},
    {"load_balancer.backends.#.name", TEXT, 1, 63, NULL},
    {"load_balancer.backends.#.url", TEXT, 1, 255, NULL},
    {"load_balancer.backends.#.group", CHOICE, 0, 0, "api|identity|event|booking"},
    {"load_balancer.backends.#.weight", NUMBER, 0, 1000, NULL},
    {"load_balancer.backends.#.max_connections", NUMBER, 0, 1000000, NULL},
};

struct walk {
    struct conf *c;
    const char *file;
    yaml_parser_t *parser;
    char path[PATH_MAX_BYTES];
    char *why;
};

static bool all_digits(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return s.n > 0;
}

static struct str part(const char **at)
{
    size_t n = strcspn(*at, ".");
    struct str s = {*at, n};
    *at += n + ((*at)[n] == '.');
    return s;
}

static bool fits(const char *pattern, const char *path)
{
    while (*pattern && *path) {
        struct str p = part(&pattern), s = part(&path);
        if (!(str_is(p, "*") || (str_is(p, "#") && all_digits(s)) || str_eq(p, s)))
            return false;
    }
    return *pattern == *path;
}

static const struct tree_row *row_of(const char *path)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (fits(rows[i].pattern, path))
            return &rows[i];
    return NULL;
}

static bool read_time(const char *text, int64_t *ret)
{
    static const struct {
        const char *suffix;
        int64_t us;
    } units[] = {{"", 1000}, {"ms", 1000}, {"s", 1000000}, {"m", 60000000}, {"h", 3600000000}};
    size_t digits = strspn(text, "0123456789");
    int64_t v = 0;
    if (!str_to_i64((struct str){text, digits}, &v))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(text + digits, units[i].suffix) == 0)
            return !__builtin_mul_overflow(v, units[i].us, ret);
    return false;
}

/* "1.5" is 1500. */
static bool read_thousandths(const char *text, int64_t *ret)
{
    size_t whole = strcspn(text, "."), n = strlen(text), decimals = n > whole ? n - whole - 1 : 0;
    int64_t fraction = 0;
    if (!all_digits((struct str){text, whole}) || !str_to_i64((struct str){text, whole}, ret) || decimals > 3)
        return false;
    if (n > whole && (!all_digits((struct str){text + whole + 1, decimals}) ||
                      !str_to_i64((struct str){text + whole + 1, decimals}, &fraction)))
        return false;
    for (; decimals < 3; decimals++)
        fraction *= 10;
    return !__builtin_mul_overflow(*ret, 1000, ret) && !__builtin_add_overflow(*ret, fraction, ret);
}

static bool read_choice(const char *text, const char *choices, int64_t *ret)
{
    *ret = 0;
    for (const char *c = choices; *c; (*ret)++) {
        size_t n = strcspn(c, "|");
        if (strlen(text) == n && memcmp(c, text, n) == 0)
            return true;
        c += n + (c[n] == '|');
    }
    return false;
}

/* The value of a leaf as a number; PFE_INVALID and "must be …". */
static enum pf_err read_leaf(const struct tree_row *row, const char *text, int64_t *ret, char why[CONF_WHY_MAX])
{
    int64_t max = row->kind == TIME && row->max == 0 ? days_30 : row->max;
    switch (row->kind) {
    case TEXT:
        *ret = (int64_t)strlen(text);
        if (!str_utf8_ok(str_c(text)) || *ret < row->min || *ret > max)
            return conf_refuse(why, "must be text of %lld to %lld bytes", (long long)row->min, (long long)max);
        return PFE_OK;
    case FLAG:
        if (!read_choice(text, "false|true|no|yes|off|on", ret))
            return conf_refuse(why, "must be true or false");
        *ret &= 1;
        return PFE_OK;
    case CHOICE:
        return read_choice(text, row->choices, ret) ? PFE_OK : conf_refuse(why, "must be one of %s", row->choices);
    case NUMBER:
        if (!str_to_i64(str_c(text), ret) || *ret < row->min || *ret > max)
            return conf_refuse(why, "must be a whole number from %lld to %lld", (long long)row->min, (long long)max);
        return PFE_OK;
    case THOUSANDTHS:
        if (!read_thousandths(text, ret) || *ret < row->min || *ret > max)
            return conf_refuse(why, "must be a number from %lld to %lld with at most three decimals",
                               (long long)row->min / 1000, (long long)max / 1000);
        return PFE_OK;
    case TIME:
        if (read_time(text, ret) && *ret < row->min && row->min > 1)
            return conf_refuse(why, "must be a time of at least %lld ms", (long long)row->min / 1000);
        if (!read_time(text, ret) || *ret < row->min || *ret > max)
            return conf_refuse(why,
                               "must be a time like 500ms, 10s or 5m, or a number of milliseconds, at most 30 days");
        return PFE_OK;
    }
    return PFE_INTERNAL;
}

static enum pf_err no_memory(const struct walk *w)
{
    conf_refuse(w->why, "out of memory");
    return PFE_NOMEM;
}

static enum pf_err add_leaf(struct walk *w, const char *value, unsigned long line)
{
    const struct tree_row *row = row_of(w->path);
    char reason[CONF_WHY_MAX];
    int64_t ignored;
    if (!row)
        return conf_refuse(w->why, "%.100s:%lu: unknown key \"%.100s\"", w->file, line, w->path);
    if (read_leaf(row, value, &ignored, reason) != PFE_OK)
        return conf_refuse(w->why, "%.60s:%lu: %.80s %.90s", w->file, line, w->path, reason);
    if (conf_tree(w->c, w->path))
        return conf_refuse(w->why, "%.100s:%lu: %.100s is set twice", w->file, line, w->path);
    if (w->c->n_tree == LEAVES_MAX)
        return conf_refuse(w->why, "%.100s:%lu: there are more than %d values", w->file, line, LEAVES_MAX);
    if (w->c->n_tree % 64 == 0) {
        struct conf_leaf *more = realloc(w->c->tree, (w->c->n_tree + 64) * sizeof *more);
        if (!more)
            return no_memory(w);
        w->c->tree = more;
    }
    struct conf_leaf leaf = {.path = strdup(w->path), .value = strdup(value)};
    if (asprintf(&leaf.origin, "%s:%lu", w->file, line) < 0)
        leaf.origin = NULL;
    if (!leaf.path || !leaf.value || !leaf.origin) {
        free(leaf.path);
        free(leaf.value);
        free(leaf.origin);
        return no_memory(w);
    }
    w->c->tree[w->c->n_tree++] = leaf;
    return PFE_OK;
}

static enum pf_err next(struct walk *w, yaml_event_t *ev)
{
    if (yaml_parser_parse(w->parser, ev))
        return PFE_OK;
    return conf_refuse(w->why, "%.100s:%lu: %s", w->file, (unsigned long)w->parser->problem_mark.line + 1,
                       w->parser->problem ? w->parser->problem : "not YAML");
}

static enum pf_err go_down(struct walk *w, struct str name, unsigned long line)
{
    size_t n = strlen(w->path);
    if (name.n == 0 || n + name.n + 2 > sizeof w->path || memchr(name.p, '.', name.n) || memchr(name.p, '\0', name.n))
        return conf_refuse(w->why, "%.100s:%lu: bad key", w->file, line);
    w->path[n] = '.';
    memcpy(w->path + n + 1, name.p, name.n);
    w->path[n + 1 + name.n] = '\0';
    return PFE_OK;
}

/* The node that begins with ev, which is not deleted here. */
static enum pf_err node(struct walk *w, const yaml_event_t *ev, unsigned depth)
{
    unsigned long line = (unsigned long)ev->start_mark.line + 1;
    size_t here = strlen(w->path), index = 0;
    enum pf_err e = PFE_OK;
    if (ev->type == YAML_SCALAR_EVENT) {
        if (memchr(ev->data.scalar.value, '\0', ev->data.scalar.length))
            return conf_refuse(w->why, "%.100s:%lu: NUL byte", w->file, line);
        return add_leaf(w, (const char *)ev->data.scalar.value, line);
    }
    bool map = ev->type == YAML_MAPPING_START_EVENT;
    if ((!map && ev->type != YAML_SEQUENCE_START_EVENT) || depth == DEPTH_MAX)
        return conf_refuse(w->why, "%.100s:%lu: %.60s: neither a value, a list nor a map", w->file, line, w->path);
    while (e == PFE_OK) {
        yaml_event_t key, value;
        char place[24];
        if ((e = next(w, &key)) != PFE_OK)
            return e;
        if (key.type == YAML_MAPPING_END_EVENT || key.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&key);
            return PFE_OK;
        }
        if (!map) {
            snprintf(place, sizeof place, "%zu", index++);
            e = go_down(w, str_c(place), line);
            if (e == PFE_OK)
                e = node(w, &key, depth + 1);
        } else if (key.type != YAML_SCALAR_EVENT) {
            e = conf_refuse(w->why, "%.100s:%lu: a key must be a plain name", w->file, line);
        } else {
            e = go_down(w, (struct str){(const char *)key.data.scalar.value, key.data.scalar.length}, line);
            if (e == PFE_OK && (e = next(w, &value)) == PFE_OK) {
                e = node(w, &value, depth + 1);
                yaml_event_delete(&value);
            }
        }
        yaml_event_delete(&key);
        w->path[here] = '\0';
    }
    return e;
}

enum pf_err conf_tree_read(struct conf *c, const char *file, const char *key, void *parser, char why[CONF_WHY_MAX])
{
    struct walk w = {.c = c, .file = file, .parser = parser, .why = why};
    yaml_event_t ev;
    snprintf(w.path, sizeof w.path, "%s", key);
    enum pf_err e = next(&w, &ev);
    if (e != PFE_OK)
        return e;
    if (ev.type == YAML_MAPPING_START_EVENT)
        e = node(&w, &ev, 0);
    else
        e = conf_refuse(why, "%.100s:%lu: %.64s must be a map", file, (unsigned long)ev.start_mark.line + 1, key);
    yaml_event_delete(&ev);
    return e;
}

void conf_tree_free(struct conf *c)
{
    for (size_t i = 0; i < c->n_tree; i++) {
        free(c->tree[i].path);
        free(c->tree[i].value);
        free(c->tree[i].origin);
    }
    free(c->tree);
    c->tree = NULL;
    c->n_tree = 0;
}

const char *conf_tree(const struct conf *c, const char *path)
{
    for (size_t i = 0; i < c->n_tree; i++)
        if (strcmp(c->tree[i].path, path) == 0)
            return c->tree[i].value;
    return NULL;
}

int64_t conf_tree_number(const struct conf *c, const char *path, int64_t otherwise)
{
    const char *text = conf_tree(c, path);
    const struct tree_row *row = row_of(path);
    char ignored[CONF_WHY_MAX];
    int64_t v = otherwise;
    if (!text || !row || read_leaf(row, text, &v, ignored) != PFE_OK)
        return otherwise;
    return v;
}

bool conf_tree_child(const struct conf *c, const char *prefix, size_t *pos, char name[CONF_TREE_NAME])
{
    size_t n = strlen(prefix);
    for (; *pos < c->n_tree; (*pos)++) {
        const char *path = c->tree[*pos].path;
        if (strncmp(path, prefix, n) != 0 || path[n] != '.')
            continue;
        const char *rest = path + n + 1;
        struct str one = part(&rest);
        size_t before = *pos;
        if (!str_copy(name, CONF_TREE_NAME, one))
            continue;
        /* leaves of one child follow each other */
        while (*pos < c->n_tree && strncmp(c->tree[*pos].path, prefix, n) == 0 && c->tree[*pos].path[n] == '.' &&
               strncmp(c->tree[*pos].path + n + 1, one.p, one.n) == 0 &&
               (c->tree[*pos].path[n + 1 + one.n] == '.' || c->tree[*pos].path[n + 1 + one.n] == '\0'))
            (*pos)++;
        return *pos > before;
    }
    return false;
}
