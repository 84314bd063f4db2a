#include "conf/internal.h"

/* The field of a row must have the type that its TYPE reads into. */
#define FIELD_STRING(f) _Generic(((struct conf *)0)->f, const char * : 1)
#define FIELD_INT(f) _Generic(((struct conf *)0)->f, int64_t : 1)
#define FIELD_DURATION(f) FIELD_INT(f)
#define FIELD_BYTES(f) FIELD_INT(f)
#define FIELD_BOOL(f) _Generic(((struct conf *)0)->f, bool : 1)
#define FIELD_ENUM(f) (sizeof(((struct conf *)0)->f) == sizeof(int))
#define X(name, field, type, ...) _Static_assert(FIELD_##type(field), #name);
#include "conf/params.def"

enum { START = false, RELOAD = true };

const struct conf_row conf_rows[CONF_COUNT] = {
#define X(name, field, type, def, min, max, unit, reload, secret, help)                                                \
    {#name, CONF_##type, offsetof(struct conf, field), def, min, max, unit, reload, secret, help},
#include "conf/params.def"
};

static const char *const reserved_names[] = {
#define R(name) #name,
#include "conf/params.def"
};

static const char *const map_keys[] = {
#define K(key) #key,
#include "conf/params.def"
};

const char *conf_name(enum conf_id id)
{
    return conf_rows[id].name;
}

/* The spelling of a flag or key as the name in the environment; false: it is none, whatever the table says. */
static bool canonical(struct str s, enum conf_spelling how, char out[CONF_NAME_MAX])
{
    if (s.n == 0 || s.n >= CONF_NAME_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (how != CONF_IN_ENV) {
            if (c >= 'A' && c <= 'Z')
                return false;
            if (c >= 'a' && c <= 'z')
                c = (char)(c - 'a' + 'A');
            else if (how == CONF_IN_FLAG && c == '_')
                return false;
            else if (how == CONF_IN_FLAG && c == '-')
                c = '_';
        }
        out[i] = c;
    }
    out[s.n] = '\0';
    return true;
}

/* '*' matches anything; it stands at the end only. */
static bool reserved_match(const char *pattern, const char *name)
{
    size_t n = strlen(pattern) - 1;

    if (pattern[n] != '*')
        return strcmp(pattern, name) == 0;
    return strncmp(pattern, name, n) == 0 && name[n] != '\0';
}

enum conf_known conf_lookup(struct str name, enum conf_spelling how, enum conf_id *ret_id)
{
    static const char twin[] = "_FILE";
    char z[CONF_NAME_MAX];

    if (how == CONF_IN_FLAG && str_is(name, "data")) {
        *ret_id = CONF_DATA_DIR;
        return CONF_SETTING;
    }
    if (!canonical(name, how, z))
        return CONF_UNKNOWN;
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        const struct conf_row *row = &conf_rows[id];
        size_t n = strlen(row->name);
        if (strncmp(z, row->name, n) != 0)
            continue;
        if (z[n] == '\0' || (row->secret && strcmp(z + n, twin) == 0)) {
            *ret_id = (enum conf_id)id;
            return z[n] == '\0' ? CONF_SETTING : CONF_SECRET_FILE;
        }
    }
    for (size_t i = 0; i < sizeof reserved_names / sizeof *reserved_names; i++)
        if (reserved_match(reserved_names[i], z))
            return CONF_RESERVED;
    for (size_t i = 0; how == CONF_IN_YAML && i < sizeof map_keys / sizeof *map_keys; i++)
        if (str_is(name, map_keys[i]))
            return CONF_MAP;
    return CONF_UNKNOWN;
}

size_t conf_flag_width(const char *arg)
{
    const char *eq = strchr(arg, '=');
    struct str name;
    enum conf_id id;

    if (strncmp(arg, "--", 2) != 0)
        return 0;
    name = (struct str){arg + 2, eq ? (size_t)(eq - arg) - 2 : strlen(arg + 2)};
    switch (str_is(name, "config") ? CONF_SECRET_FILE : conf_lookup(name, CONF_IN_FLAG, &id)) {
    case CONF_SETTING:
        return eq || conf_rows[id].type == CONF_BOOL ? 1 : 2;
    case CONF_SECRET_FILE:
    case CONF_RESERVED:
    case CONF_MAP:
        return eq ? 1 : 2;
    case CONF_UNKNOWN:
        break;
    }
    return 0;
}

void conf_ignored(const struct conf_input *in, void (*fn)(void *ctx, const char *name, size_t n), void *ctx)
{
    for (const char *const *e = in->env; e && *e; e++) {
        const char *eq = strchr(*e, '=');
        enum conf_id id;
        if (eq && eq[1] && conf_lookup((struct str){*e, (size_t)(eq - *e)}, CONF_IN_ENV, &id) == CONF_RESERVED)
            fn(ctx, *e, (size_t)(eq - *e));
    }
}
