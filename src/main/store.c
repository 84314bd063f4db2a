/* Which engine the settings name, and opening it. */
#include "main/main.h"

#include <stdio.h>

#include "base/log.h"
#include "store/copy.h"
#include "store/postgres/postgres.h"
#include "store/sqlite/sqlite.h"

static struct postgres_options postgres_options(const struct conf *c)
{
    return (struct postgres_options){.url = c->db_url,
                                     .hosts = c->db_host,
                                     .ports = c->db_port,
                                     .user = c->db_user,
                                     .password = c->db_password,
                                     .dbname = c->db_name,
                                     .sslmode = c->db_sslmode,
                                     .sslrootcert = c->db_sslrootcert,
                                     .max_open = (unsigned)c->db_max_open_conns,
                                     .max_idle = (unsigned)c->db_max_idle_conns,
                                     .max_lifetime_s = c->db_conn_max_lifetime};
}

/* Of read replicas, as far as it is given: the engine's own are quicker than a gateway's. */
static struct store_checks replica_checks(const struct conf *c)
{
    bool set = c->values[CONF_LB_HEALTH_CHECK_INTERVAL].source != CONF_DEFAULT;
    return (struct store_checks){
        .interval_us =
            set ? c->lb_health_check_interval * 1000000 : conf_tree_number(c, "load_balancer.health_check.interval", 0),
        .timeout_us = conf_tree_number(c, "load_balancer.health_check.timeout", 0),
        .healthy_threshold = (unsigned)conf_tree_number(c, "load_balancer.health_check.healthy_threshold", 0),
        .unhealthy_threshold = (unsigned)conf_tree_number(c, "load_balancer.health_check.unhealthy_threshold", 0)};
}

static void say_retry(void *ctx, const char *why, int64_t wait_us)
{
    (void)ctx;
    log_msg(LOG_WARN, "the database is not to be reached; trying again", LOG_S("why", why),
            LOG_I("wait_ms", wait_us / 1000));
}

enum pf_err main_store_open(const struct conf *c, bool inspect, struct metrics *m, struct store **ret, char why[256])
{
    if (c->postgres) {
        struct postgres_options o = postgres_options(c);
        o.mode = inspect ? POSTGRES_INSPECT : POSTGRES_SERVE;
        o.metrics = m;
        o.guard = true;
        o.start_ms = inspect ? 0 : (unsigned)c->db_connect_timeout * 1000;
        o.commit_ms = (unsigned)c->db_commit_timeout * 1000;
        o.on_retry = say_retry;
        o.algorithm = main_algorithm(c);
        o.spare = !c->lb_enabled;
        o.checks = replica_checks(c);
        struct breaker_config primary = main_breaker(c, "database", store_postgres_breaker());
        struct breaker_config replica = main_breaker(c, "replica", store_postgres_breaker());
        struct retry_config retry = main_retry(c, store_postgres_retry(o.max_open));
        o.primary_breaker = &primary;
        o.replica_breaker = &replica;
        o.retry = &retry;
        struct postgres_replica replicas[CONF_REPLICAS];
        char ports[CONF_REPLICAS][8];
        o.replicas = replicas;
        for (unsigned i = 0; i < CONF_REPLICAS; i++) {
            if (!c->db_read[i].host[0])
                continue;
            snprintf(ports[i], sizeof ports[i], "%u", (unsigned)c->db_read[i].port & 0xffff);
            replicas[o.n_replicas++] =
                (struct postgres_replica){c->db_read[i].host, ports[i], (unsigned)c->db_read[i].weight};
        }
        return store_postgres_open(&o, ret, why);
    }
    struct sqlite_options o = {.dir = c->store_dir,
                               .mode = inspect ? SQLITE_INSPECT : SQLITE_SERVE,
                               .flush_entries = c->flush_entries,
                               .metrics = m};
    return store_sqlite_open(&o, ret, why);
}

enum pf_err main_store_copy(const struct conf *c, const char *dir, const char *url, struct store_copy *ret,
                            char why[256])
{
    struct postgres_options o = postgres_options(c);
    if (url)
        o = (struct postgres_options){
            .url = url, .password = c->db_password, .sslmode = c->db_sslmode, .sslrootcert = c->db_sslrootcert};
    return store_copy(dir, &o, ret, why);
}

enum pf_err main_store_rebuild(const struct conf *c, int64_t *ret_entries, char why[256])
{
    struct postgres_options o = postgres_options(c);
    return c->postgres ? store_postgres_rebuild(&o, ret_entries, why)
                       : store_sqlite_rebuild(c->store_dir, ret_entries, why);
}

enum pf_err main_store_migrate(const struct conf *c, int to, char why[256])
{
    struct postgres_options o = postgres_options(c);
    return c->postgres ? store_postgres_migrate(&o, to, why) : store_sqlite_migrate(c->store_dir, to, why);
}

enum pf_err main_store_migrations(const struct conf *c, struct main_migration out[MAIN_MIGRATIONS_MAX], unsigned *ret_n,
                                  char why[256])
{
    enum pf_err e;
    if (c->postgres) {
        struct postgres_options o = postgres_options(c);
        struct postgres_migration m[MAIN_MIGRATIONS_MAX];
        e = store_postgres_migrations(&o, m, MAIN_MIGRATIONS_MAX, ret_n, why);
        for (unsigned i = 0; e == PFE_OK && i < *ret_n; i++)
            out[i] = (struct main_migration){m[i].version, m[i].name, m[i].applied, m[i].intact, m[i].applied_us};
    } else {
        struct sqlite_migration m[MAIN_MIGRATIONS_MAX];
        e = store_sqlite_migrations(c->store_dir, m, MAIN_MIGRATIONS_MAX, ret_n, why);
        for (unsigned i = 0; e == PFE_OK && i < *ret_n; i++)
            out[i] = (struct main_migration){m[i].version, m[i].name, m[i].applied, m[i].intact, m[i].applied_us};
    }
    return e;
}
