#include "conf/internal.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

static const char mask[] = "********";

struct out {
    conf_sink *sink;
    void *ctx;
};

static void put(const struct out *o, const char *z)
{
    o->sink(o->ctx, z, strlen(z));
}

static void put_padded(const struct out *o, const char *z, size_t width)
{
    static const char spaces[] = "                                                                ";
    size_t n = strlen(z);

    put(o, z);
    o->sink(o->ctx, spaces, n < width ? width - n : 1);
}

/* JSON text of a string that is UTF-8. */
static void put_json(const struct out *o, const char *z)
{
    put(o, "\"");
    while (*z) {
        size_t plain = 0;
        char esc[8];
        while ((unsigned char)z[plain] >= 0x20 && z[plain] != '"' && z[plain] != '\\')
            plain++;
        o->sink(o->ctx, z, plain);
        z += plain;
        if (!*z)
            break;
        if (*z == '"' || *z == '\\')
            snprintf(esc, sizeof esc, "\\%c", *z);
        else
            snprintf(esc, sizeof esc, "\\u%04x", (unsigned)(unsigned char)*z);
        put(o, esc);
        z++;
    }
    put(o, "\"");
}

static const char *shown(const struct conf *c, enum conf_id id)
{
    const char *text = c->values[id].text;

    return conf_rows[id].secret && *text ? mask : text;
}

static void put_json_value(const struct out *o, const struct conf *c, enum conf_id id)
{
    char number[24];

    switch (conf_rows[id].type) {
    case CONF_STRING:
    case CONF_ENUM:
        put_json(o, shown(c, id));
        return;
    case CONF_BOOL:
        put(o, conf_number(c, id) ? "true" : "false");
        return;
    case CONF_INT:
    case CONF_DURATION:
    case CONF_BYTES:
        snprintf(number, sizeof number, "%lld", (long long)conf_number(c, id));
        put(o, number);
        return;
    }
}

static void print_json(const struct out *o, const struct conf *c)
{
    put(o, "{");
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        put(o, id ? ",\n \"" : "\n \"");
        put(o, conf_rows[id].name);
        put(o, "\":{\"value\":");
        put_json_value(o, c, (enum conf_id)id);
        put(o, ",\"origin\":");
        put_json(o, c->values[id].origin);
        put(o, "}");
    }
    for (size_t i = 0; i < c->n_tree; i++) {
        put(o, ",\n ");
        put_json(o, c->tree[i].path);
        put(o, ":{\"value\":");
        put_json(o, c->tree[i].value);
        put(o, ",\"origin\":");
        put_json(o, c->tree[i].origin);
        put(o, "}");
    }
    put(o, "\n}\n");
}

void conf_print(const struct conf *c, bool json, conf_sink *sink, void *ctx)
{
    struct out o = {sink, ctx};
    size_t widest = 0;

    if (json) {
        print_json(&o, c);
        return;
    }
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        size_t n = strlen(shown(c, (enum conf_id)id));
        if (n > widest && n < 40)
            widest = n;
    }
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        put_padded(&o, conf_rows[id].name, 21);
        put_padded(&o, shown(c, (enum conf_id)id), widest + 2);
        put(&o, c->values[id].origin);
        put(&o, "\n");
    }
    for (size_t i = 0; i < c->n_tree; i++) {
        put_padded(&o, c->tree[i].path, 21);
        put_padded(&o, c->tree[i].value, widest + 2);
        put(&o, c->tree[i].origin);
        put(&o, "\n");
    }
}

static const char *help_operand(const struct conf_row *row)
{
    switch (row->type) {
    case CONF_STRING:
    case CONF_ENUM:
        return row->unit;
    case CONF_BOOL:
        return "[=true|false]";
    case CONF_DURATION:
        return "TIME";
    case CONF_BYTES:
        return "SIZE";
    case CONF_INT:
        break;
    }
    return "N";
}

void conf_help(conf_sink *sink, void *ctx)
{
    struct out o = {sink, ctx};

    put(&o, "  --config FILE\n      YAML file of settings: the names below in lower case, and the maps "
            "consul_config,\n      resilience4j, retry, fallback and load_balancer\n");
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        const struct conf_row *row = &conf_rows[id];
        char flag[CONF_NAME_MAX];
        size_t n = 0;
        for (; row->name[n]; n++)
            flag[n] = row->name[n] == '_' ? '-' : (char)tolower((unsigned char)row->name[n]);
        flag[n] = '\0';
        put(&o, "  --");
        put(&o, id == CONF_DATA_DIR ? "data" : flag);
        put(&o, row->type == CONF_BOOL ? "" : " ");
        put(&o, help_operand(row));
        put(&o, "  (");
        put(&o, row->name);
        put(&o, row->secret ? ", or a file that holds it: " : "");
        put(&o, row->secret ? row->name : "");
        put(&o, row->secret ? "_FILE" : "");
        if (*row->def) {
            put(&o, "; default ");
            put(&o, row->def);
        }
        put(&o, ")\n      ");
        put(&o, row->help);
        put(&o, row->reload ? ". SIGHUP reloads it\n" : "\n");
    }
}
