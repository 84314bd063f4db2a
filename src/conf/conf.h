/*
 * conf: the settings, and where each of them came from.
 *
 * A value comes from the strongest place that has it: flags, then the environment, then the YAML file (--config), then
 * the default. Every setting is one row of params.def. A NAME_FILE twin of a secret (JWT_SECRET_FILE) reads it from a
 * file instead: 64 KiB at most, one newline at the end is stripped. An environment variable that is set but empty
 * counts as not set.
 *
 * What is wrong is said in one line (never with a secret in it); the caller prints it and exits with CONF_EXIT. Nothing
 * here keeps state of its own; a struct conf belongs to one thread at a time, or to many that only read.
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

enum { CONF_EXIT = 78 };
enum { CONF_WHY_MAX = 256 };
enum { CONF_JWT_SECRET_MIN = 32 }; /* bytes, unless ENV=dev */

enum conf_env { CONF_ENV_DEV, CONF_ENV_STAGING, CONF_ENV_PROD };

enum conf_id {
#define X(name, ...) CONF_##name,
#include "conf/params.def"
    CONF_COUNT
};

/* Strongest last, so that they compare. */
enum conf_source { CONF_DEFAULT, CONF_FILE, CONF_ENVIRONMENT, CONF_FLAG };

struct conf_value {
    char *text;   /* as written */
    char *origin; /* "default", "--port", "env PORT", "payflow.yaml:3" */
    enum conf_source source;
};

enum { CONF_REPLICAS = 8 };

struct conf_leaf {
    char *path; /* "load_balancer.backends.0.name" */
    char *value;
    char *origin; /* "payflow.yaml:3" */
};
enum { CONF_TREE_NAME = 64 };

/* Strings are never NULL and owned by the struct. Ranges are those of params.def. */
struct conf {
    int64_t port;
    const char *listen, *gateway_listen, *grpc_listen;
    enum conf_env env;
    bool allow_open_bind;
    const char *data_dir;
    const char *db_url;
    const char *db_host, *db_port, *db_user, *db_password, *db_name, *db_sslmode, *db_sslrootcert;
    int64_t db_max_open_conns, db_max_idle_conns;
    int64_t db_conn_max_lifetime;                  /* seconds */
    int64_t db_connect_timeout, db_commit_timeout; /* seconds */
    bool lb_enabled;
    struct {
        const char *host; /* "": there is none of that number */
        int64_t port, weight;
    } db_read[CONF_REPLICAS]; /* DB_READ_…_1 comes first */
    const char *redis_url, *redis_host, *redis_username, *redis_password;
    int64_t redis_port, redis_db, redis_pool_size, redis_min_idle_conns;
    bool redis_cluster;
    const char *amqp_url, *mongo_url;                                 /* "": none */
    const char *consul_http_addr, *consul_http_token, *consul_cacert; /* "": none */
    const char *default_currency; /* three capital letters; whether ISO knows them is the caller's to check */
    const char *jwt_secret;       /* "" only when ENV=dev, once conf_check_serve has passed */
    int64_t bcrypt_cost;
    int64_t rate_limit; /* requests a minute per principal, 0: off */
    const char *allowed_origins;
    const char *trusted_proxies; /* checked, see base/cidr.h */
    enum log_level log_level;
    const char *tls_cert, *tls_key; /* both or neither "" */
    int lb_algorithm;               /* in the order of its row, as the balancer's own */
    const char *lb_health_check_path;
    int64_t lb_health_check_interval;       /* seconds */
    int64_t shutdown_timeout, idle_timeout; /* seconds */
    int64_t max_connections;
    int64_t http_threads, worker_threads, hash_threads;
    int64_t cache_entries, cache_bytes;
    int64_t queue_capacity, group_max, flush_entries;
    int64_t booking_hold; /* seconds */
    int64_t booking_lock; /* milliseconds */

    /* worked out from LISTEN with PORT, and from DB_URL with DATA_DIR */
    char listen_host[64]; /* numeric, without brackets */
    uint16_t listen_port; /* 0: any free one */
    bool loopback;
    char gateway_host[64]; /* as listen_host; "": GATEWAY_LISTEN=off */
    uint16_t gateway_port; /* 0: any free one */
    bool gateway_loopback;
    char grpc_host[64]; /* the same of GRPC_LISTEN */
    uint16_t grpc_port;
    bool grpc_loopback;
    bool postgres;         /* the store is PostgreSQL: by DB_URL, or DB_HOST without it */
    const char *store_dir; /* the directory of payflow.db; with PostgreSQL, DATA_DIR */

    /* the Redis that REDIS_URL and the others name; "" for what is not given */
    struct {
        bool used;
        char *host, *user, *password;
        int port, db;
    } redis;

    /* the maps of the YAML file, in its order, see conf_tree */
    struct conf_leaf *tree;
    size_t n_tree;

    struct conf_value values[CONF_COUNT];
    char *store_path; /* what store_dir points to */
};

struct conf_input {
    const char *const *args; /* setting flags only, as conf_flag_width finds them; may be NULL if n_args is 0 */
    size_t n_args;
    const char *const *env; /* "NAME=value" …, NULL at the end, as environ; may be NULL */
};

/*
 * How many arguments a settings flag takes up, itself included: 1 for --name=value and for a bool's bare --name, 2 for
 * --name value, 0 if arg is no flag of a setting. Reserved names count too, so that conf_load refuses them. For
 * commands that have flags of their own beside the settings.
 */
size_t conf_flag_width(const char *arg);

/*
 * Settings of parts that this build lacks, found set (and not empty) in the environment, where they are ignored: calls
 * fn with each name. For a server to say at start.
 */
void conf_ignored(const struct conf_input *in, void (*fn)(void *ctx, const char *name, size_t n), void *ctx);

/*
 * Reads all sources and checks every value, and those that depend on each other whatever the command is. ret need not
 * be initialized; on success the caller owns it and calls conf_free. On failure PFE_INVALID (or PFE_NOMEM), one line in
 * why, and ret is empty, so that conf_free is allowed but not needed.
 */
enum pf_err conf_load(const struct conf_input *in, struct conf *ret, char why[CONF_WHY_MAX]) MUSTCHECK;
/* What holds for a server only: the token secret, and what it may bind to. PFE_INVALID and one line in why. */
enum pf_err conf_check_serve(const struct conf *c, char why[CONF_WHY_MAX]) MUSTCHECK;
/* Wipes the secrets and frees all. Safe on a zeroed struct, and twice. */
void conf_free(struct conf *c);

/*
 * The maps consul_config, resilience4j, retry, fallback and load_balancer of the YAML file, by path. Every value has
 * passed its check (src/conf/tree.c lists them). conf_tree: its text, or NULL if it is not given. conf_tree_number: a
 * number, a flag (0, 1), a choice (by its place), or a time in µs. conf_tree_child: the names below a path one after
 * the other, *pos begins at 0; false: no more.
 */
const char *conf_tree(const struct conf *c, const char *path);
int64_t conf_tree_number(const struct conf *c, const char *path, int64_t otherwise);
bool conf_tree_child(const struct conf *c, const char *prefix, size_t *pos, char name[CONF_TREE_NAME]);

struct conf_change {
    enum conf_id id;
    bool applied; /* false: a restart is needed, the running value stays */
};
/*
 * For SIGHUP: finds what differs in `fresh` (loaded from the same input), and moves the reloadable ones of it into c.
 * Returns how many entries of ret are filled. `fresh` stays the caller's to free. Cannot fail.
 */
size_t conf_reload(struct conf *c, struct conf *fresh, struct conf_change ret[CONF_COUNT]);

/* Whether LISTEN names a port. */
bool conf_listen_has_port(const struct conf *c);

const char *conf_name(enum conf_id id); /* "PORT" */

/* Takes a piece of output; n bytes at p, borrowed for the call. */
typedef void conf_sink(void *ctx, const char *p, size_t n);
/* Each setting with its value and origin, secrets masked (an empty one shows as empty). Text: "NAME value origin" in
   columns, a line each. JSON: {"PORT":{"value":8080,"origin":"default"},…} and a newline. */
void conf_print(const struct conf *c, bool json, conf_sink *sink, void *ctx);
/* The settings' part of --help: two lines each. */
void conf_help(conf_sink *sink, void *ctx);

#endif
