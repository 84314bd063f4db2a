#include "conf/internal.h"

#include <yaml.h>

struct reader {
    const char *path;
    yaml_parser_t parser;
    bool seen[CONF_COUNT];
    conf_each *each;
    void *ctx;
    struct conf *conf;
    char *why;
};

static unsigned long line_of(const yaml_event_t *ev)
{
    return (unsigned long)ev->start_mark.line + 1;
}

/* The next event, to be deleted by the caller unless this fails. */
static enum pf_err next(struct reader *r, yaml_event_t *ev)
{
    const yaml_parser_t *p = &r->parser;

    if (yaml_parser_parse(&r->parser, ev))
        return PFE_OK;
    if (p->error == YAML_MEMORY_ERROR) {
        conf_refuse(r->why, "out of memory");
        return PFE_NOMEM;
    }
    if (p->error == YAML_READER_ERROR)
        return conf_refuse(r->why, "%s: byte %lu: %s", r->path, (unsigned long)p->problem_offset, p->problem);
    return conf_refuse(r->why, "%s:%lu: %s", r->path, (unsigned long)p->problem_mark.line + 1,
                       p->problem ? p->problem : "not YAML");
}

/* An unquoted nothing, as in "port:". */
static bool is_null(const yaml_event_t *ev)
{
    struct str s = {(const char *)ev->data.scalar.value, ev->data.scalar.length};

    return ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && (s.n == 0 || str_is(s, "~") || str_is(s, "null"));
}

static bool is_map(const yaml_event_t *key)
{
    struct str s = {(const char *)key->data.scalar.value, key->data.scalar.length};
    enum conf_id ignored;

    return conf_lookup(s, CONF_IN_YAML, &ignored) == CONF_MAP;
}

static enum pf_err check_key(struct reader *r, const yaml_event_t *ev)
{
    struct str key = {(const char *)ev->data.scalar.value, ev->data.scalar.length};
    enum conf_id id;

    switch (conf_lookup(key, CONF_IN_YAML, &id)) {
    case CONF_UNKNOWN:
        return conf_refuse(r->why, "%s:%lu: unknown key \"%.64s\"", r->path, line_of(ev), key.p);
    case CONF_RESERVED:
        return conf_refuse(r->why, "%s:%lu: %.64s is not supported by this build yet", r->path, line_of(ev), key.p);
    case CONF_MAP:
        break;
    case CONF_SETTING:
    case CONF_SECRET_FILE:
        if (r->seen[id])
            return conf_refuse(r->why, "%s:%lu: %s is set twice", r->path, line_of(ev), conf_rows[id].name);
        r->seen[id] = true;
        break;
    }
    return PFE_OK;
}

static enum pf_err read_value(struct reader *r, const char *key)
{
    yaml_event_t ev;
    enum pf_err e = next(r, &ev);

    if (e != PFE_OK)
        return e;
    if (ev.type != YAML_SCALAR_EVENT)
        e = conf_refuse(r->why, "%s:%lu: %s must be a single value", r->path, line_of(&ev), key);
    else if (is_null(&ev))
        e = conf_refuse(r->why, "%s:%lu: %s has no value", r->path, line_of(&ev), key);
    else if (memchr(ev.data.scalar.value, '\0', ev.data.scalar.length))
        e = conf_refuse(r->why, "%s:%lu: %s contains a NUL byte", r->path, line_of(&ev), key);
    else
        e = r->each(r->ctx, key, (const char *)ev.data.scalar.value, line_of(&ev), r->why);
    if (ev.type == YAML_SCALAR_EVENT)
        explicit_bzero(ev.data.scalar.value, ev.data.scalar.length);
    yaml_event_delete(&ev);
    return e;
}

/* The pairs of the top-level map, up to its end. */
static enum pf_err read_map(struct reader *r)
{
    enum pf_err e = PFE_OK;
    bool end = false;

    while (e == PFE_OK && !end) {
        yaml_event_t ev;
        if ((e = next(r, &ev)) != PFE_OK)
            return e;
        end = ev.type == YAML_MAPPING_END_EVENT;
        if (!end && ev.type != YAML_SCALAR_EVENT)
            e = conf_refuse(r->why, "%s:%lu: a key must be a plain name", r->path, line_of(&ev));
        else if (!end && (e = check_key(r, &ev)) == PFE_OK)
            e = is_map(&ev) ? conf_tree_read(r->conf, r->path, (const char *)ev.data.scalar.value, &r->parser, r->why)
                            : read_value(r, (const char *)ev.data.scalar.value);
        yaml_event_delete(&ev);
    }
    return e;
}

static enum pf_err read_stream(struct reader *r)
{
    unsigned documents = 0;

    for (;;) {
        yaml_event_t ev;
        yaml_event_type_t type;
        enum pf_err e = next(r, &ev);
        if (e != PFE_OK)
            return e;
        type = ev.type;
        if (type == YAML_DOCUMENT_START_EVENT && ++documents > 1)
            e = conf_refuse(r->why, "%s:%lu: a second document", r->path, line_of(&ev));
        else if (type == YAML_MAPPING_START_EVENT)
            e = read_map(r);
        else if (type == YAML_SEQUENCE_START_EVENT || type == YAML_ALIAS_EVENT ||
                 (type == YAML_SCALAR_EVENT && !is_null(&ev)))
            e = conf_refuse(r->why, "%s:%lu: must be lines of \"key: value\"", r->path, line_of(&ev));
        yaml_event_delete(&ev);
        if (e != PFE_OK || type == YAML_STREAM_END_EVENT)
            return e;
    }
}

enum pf_err conf_yaml(const char *path, struct str text, conf_each *each, void *ctx, struct conf *c,
                      char why[CONF_WHY_MAX])
{
    struct reader r = {.path = path, .each = each, .ctx = ctx, .conf = c, .why = why};
    enum pf_err e;

    if (!yaml_parser_initialize(&r.parser)) {
        conf_refuse(why, "out of memory");
        return PFE_NOMEM;
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text.p, text.n);
    e = read_stream(&r);
    yaml_parser_delete(&r.parser);
    return e;
}
