/* internal: what the files of conf share. Include only from src/conf and its tests. */
#ifndef CONF_INTERNAL_H
#define CONF_INTERNAL_H

#include "base/str.h"
#include "conf/conf.h"

enum conf_type { CONF_STRING, CONF_INT, CONF_BOOL, CONF_DURATION, CONF_BYTES, CONF_ENUM };

struct conf_row {
    const char *name; /* "DATA_DIR" */
    enum conf_type type;
    size_t offset; /* of the field in struct conf */
    const char *def;
    int64_t min, max;
    const char *unit;
    bool reload, secret;
    const char *help;
};

extern const struct conf_row conf_rows[CONF_COUNT];

enum { CONF_NAME_MAX = 64 };
/* A name in one of its spellings. */
enum conf_spelling { CONF_IN_ENV, CONF_IN_YAML, CONF_IN_FLAG };

enum conf_known {
    CONF_UNKNOWN,
    CONF_SETTING,
    CONF_SECRET_FILE, /* the NAME_FILE twin of a secret */
    CONF_MAP,         /* in YAML: a map, read by conf_tree_read */
    CONF_RESERVED
};
/* What a name means; *ret_id is set for the first two kinds. Flags come without their dashes. */
enum conf_known conf_lookup(struct str name, enum conf_spelling how, enum conf_id *ret_id);

/* Reads text into the field of a row; PFE_INVALID and the reason ("must be …") in why, without the value if secret. */
enum pf_err conf_parse(struct conf *c, enum conf_id id, const char *text, char why[CONF_WHY_MAX]) MUSTCHECK;
/* The number behind a row of any type but CONF_STRING. */
int64_t conf_number(const struct conf *c, enum conf_id id);
/* "host:port" and its kin. False: malformed. *ret_port is -1 if there is none. */
bool conf_parse_listen(struct str s, char host[64], bool *ret_loopback, int64_t *ret_port);

/* What REDIS_URL and its kin add up to, into c->redis. */
enum pf_err conf_derive_redis(struct conf *c, char why[CONF_WHY_MAX]) MUSTCHECK;

/* The map behind a key that conf_lookup knows as CONF_MAP, from a yaml_parser_t that stands before it. */
enum pf_err conf_tree_read(struct conf *c, const char *file, const char *key, void *parser,
                           char why[CONF_WHY_MAX]) MUSTCHECK;
void conf_tree_free(struct conf *c);

/* Called for each setting of the file in order; value borrowed. Anything but PFE_OK stops the reading. */
typedef enum pf_err conf_each(void *ctx, const char *key, const char *value, unsigned long line,
                              char why[CONF_WHY_MAX]);
/* path: for messages; text: the whole file. Top-level scalars go to `each`, the maps that are known into c; duplicate
   keys, other lists and maps, aliases and second documents are refused. */
enum pf_err conf_yaml(const char *path, struct str text, conf_each *each, void *ctx, struct conf *c,
                      char why[CONF_WHY_MAX]) MUSTCHECK;

/* The whole of a file of at most max bytes, NUL-terminated, for the caller to wipe and free. */
enum pf_err conf_slurp(const char *path, size_t max, char **ret, size_t *ret_n, char why[CONF_WHY_MAX]) MUSTCHECK;

/* printf into why, cut to fit, control characters made visible. Returns PFE_INVALID. */
enum pf_err conf_refuse(char why[CONF_WHY_MAX], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
