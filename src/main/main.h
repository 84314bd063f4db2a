/* main: where everything is wired together. Commands, their options, and what they open. */
#ifndef MAIN_MAIN_H
#define MAIN_MAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "resilience/balancer.h"
#include "resilience/breaker.h"
#include "resilience/fallback.h"
#include "resilience/retry.h"
#include "conf/conf.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_CONF = CONF_EXIT };

enum role {
    ROLE_ALL = 1,
    ROLE_API = 2,
    ROLE_GATEWAY = 4,
    ROLE_IDENTITY = 8,
    ROLE_EVENT = 16,
    ROLE_BOOKING = 32,
    ROLE_PAYMENT = 64
};

/* What a command line says beside the settings. */
struct options {
    const char *words[4]; /* command, subcommand, operands; for the command itself its operands alone */
    unsigned n_words;
    bool json, csv, help, verify, write, api_key;
    unsigned roles; /* bits of enum role; 0: none was given */
    const char *username, *email, *password_file, *from, *to;
    int64_t after_seq, entries, group;
};

int run_serve(const struct conf *c, const struct conf_input *in, unsigned roles); /* any but ROLE_GATEWAY; not none */
int run_gateway(const struct conf *c, const struct conf_input *in);               /* serve --role gateway */
int run_migrate(const struct conf *c, const struct options *o);
int run_verify(const struct conf *c, const struct options *o);
int run_replay(const struct conf *c, const struct options *o);
int run_journal_export(const struct conf *c, const struct options *o);
int run_backup(const struct conf *c, const struct options *o);
int run_restore(const struct conf *c, const struct options *o);
int run_copy(const struct conf *c, const struct options *o);
int run_create_admin(const struct conf *c, const struct options *o);
int run_config_print(const struct conf *c, const struct options *o);
int run_discovery(const struct conf *c, const struct options *o);
int run_bench(const struct conf *c, const struct options *o);

/* Adds the role of this name. false: there is none. */
bool main_role_add(const char *name, unsigned *roles);
/* An address beside LISTEN is served on: never; if a setting names it; by default too, unless it is taken; or else
   serve does not start. */
enum listen_duty { LISTEN_NEVER, LISTEN_IF_SET, LISTEN_UNLESS_TAKEN, LISTEN_NEEDED };
/* What serve does in these roles together (roles.c). */
struct duties {
    uint16_t port;                  /* of HTTP, if no setting names one */
    enum listen_duty gateway, grpc; /* GATEWAY_LISTEN, GRPC_LISTEN */
    unsigned surfaces, jobs;        /* bits of enum api_surface, and 1 << enum app_lease */
    bool documents, payments;
};
void main_duties(const struct conf *c, unsigned roles, struct duties *ret);

/* The secret that signs tokens: the configured one, or in dev one kept in DIR/jwt.secret (made on first use, mode
   0600). false and one line in why; the result holds at most cap bytes. */
bool main_jwt_secret(const struct conf *c, char *out, size_t cap, size_t *ret_n, char why[256]);

/* What the settings say of these (conf/parts.h), over what the part has of its own; instance: of params.def, or the
   name of a backend of load_balancer (resilience.c). */
struct breaker_config main_breaker(const struct conf *c, const char *instance, struct breaker_config own);
struct retry_config main_retry(const struct conf *c, struct retry_config own);
struct fallback_config main_fallback(const struct conf *c); /* its strings are c's */
enum balancer_algorithm main_algorithm(const struct conf *c);
/* Whether they go together. false: one line in why. */
bool main_resilience_fits(const struct conf *c, char why[256]);

struct registry;
/* The registry server that CONSUL_HTTP_ADDR, which is set, names; asks it nothing (discovery.c). */
enum pf_err main_registry_open(const struct conf *c, struct registry **ret, char why[256]) MUSTCHECK;
/* Registers the services of consul_config whose port this is: what listens there, at this numeric address, is theirs.
   What cannot be said now is said later. r: NULL does nothing. */
void main_registry_announce(const struct conf *c, struct registry *r, const char *host, uint16_t port);

struct metrics;
struct pool;
struct bus;
struct cache;
struct store;
struct store_copy;

/* The store that the settings name (store.c). Errors are the engines' own: PFE_WRONG_STATE is for somebody to mend. */
enum pf_err main_store_open(const struct conf *c, bool inspect, struct metrics *m, struct store **ret,
                            char why[256]) MUSTCHECK;
enum pf_err main_store_rebuild(const struct conf *c, int64_t *ret_entries, char why[256]) MUSTCHECK;
enum pf_err main_store_migrate(const struct conf *c, int to, char why[256]) MUSTCHECK;
/* store_copy (store/copy.h) to the PostgreSQL of the settings, or to the one of url (may be NULL), of which then only
   the password and how TLS is used come from the settings, if they say so. */
enum pf_err main_store_copy(const struct conf *c, const char *dir, const char *url, struct store_copy *ret,
                            char why[256]) MUSTCHECK;
enum { MAIN_MIGRATIONS_MAX = 64 };
struct main_migration { /* as sqlite_migration and postgres_migration */
    int version;
    const char *name;
    bool applied, intact;
    int64_t applied_us;
};
enum pf_err main_store_migrations(const struct conf *c, struct main_migration out[MAIN_MIGRATIONS_MAX], unsigned *ret_n,
                                  char why[256]) MUSTCHECK;

/* Series that ask the part when they are scraped; it must outlive the registry's last scrape. */
void main_pool_gauges(struct metrics *m, struct pool *p);
void main_cache_gauges(struct metrics *m, struct cache *c);
void main_store_gauges(struct metrics *m, struct store *s);
void main_bus_gauges(struct metrics *m, struct bus *b);
void main_log_gauges(struct metrics *m);

const char *main_version(void);
const char *main_build(void); /* the version, and the commit it was made from */
void main_print_version(bool json);

#endif
