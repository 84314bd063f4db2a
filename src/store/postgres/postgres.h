/*
 * postgres: the store port on a PostgreSQL server (15 or newer), shared by any number of processes.
 *
 * Nothing is kept in memory but connections: one writes groups (the ledger writer's), a pool serves records and reads.
 * Several hosts may be given; the store follows the one that accepts writes. No call waits longer than the timeouts
 * below: what cannot be done is PFE_UNAVAILABLE, and works again by itself when the server is back.
 */
#ifndef STORE_POSTGRES_H
#define STORE_POSTGRES_H

#include "port/store.h"
#include "telemetry/metrics.h"

enum postgres_mode {
    POSTGRES_SERVE,  /* reads and writes, migrates up */
    POSTGRES_INSPECT /* reads only, no migration; a replica will do. Every write returns PFE_UNAVAILABLE */
};

struct postgres_replica {
    const char *host, *port; /* one each; port NULL or "": 5432 */
    unsigned weight;         /* its share of the reads; 0: 1 */
};

/* Strings are borrowed for the call; NULL or "": libpq's default. */
struct postgres_options {
    const char *url;           /* postgres://…; the fields of it give way to those below */
    const char *hosts, *ports; /* "a,b": in order of preference; one port does for all */
    const char *user, *password, *dbname;
    const char *sslmode, *sslrootcert; /* as libpq */
    const char *schema;                /* where the tables are; NULL: first of the role's search_path */
    enum postgres_mode mode;
    unsigned max_open, max_idle;             /* connections, the ledger writer's included (3..); 0: 25 and 5 */
    int64_t max_lifetime_s;                  /* of a connection; 0: no end */
    unsigned connect_ms, timeout_ms;         /* to connect to one host; for one round trip. 0: 2000 and 5000 */
    const struct postgres_replica *replicas; /* further servers for reads; the rest is as for the primary */
    unsigned n_replicas;
    bool guard;              /* fail at once while the primary does not answer; implied by replicas */
    unsigned check_ms;       /* between looks at primary and replicas; 0: 500 */
    struct metrics *metrics; /* borrowed for the store's life; NULL: none */
};

/* On failure ret_why is one line fit for an operator, without secrets. PFE_WRONG_STATE: what somebody has to mend
   (host, password, database, TLS, encoding, version, a schema that is newer, older (INSPECT) or altered).
   PFE_UNAVAILABLE: may pass by itself. PFE_NOMEM. */
enum pf_err store_postgres_open(const struct postgres_options *o, struct store **ret, char ret_why[256]) MUSTCHECK;

struct postgres_migration {
    int version;
    const char *name;
    bool applied, intact; /* intact: the applied text has the checksum of the embedded one */
    int64_t applied_us;
};
enum pf_err store_postgres_migrations(const struct postgres_options *o, struct postgres_migration *out, unsigned cap,
                                      unsigned *ret_n, char ret_why[256]) MUSTCHECK;
/* to < 0: all the way up. Runs under an advisory lock: of several at once, each step is done by one. Going down past a
   version that would drop journal entries, users or audit rows is refused (PFE_WRONG_STATE). */
enum pf_err store_postgres_migrate(const struct postgres_options *o, int to, char ret_why[256]) MUSTCHECK;
/* Overwrites the stored projections with what the journal says, in one transaction that holds the ledger. */
enum pf_err store_postgres_rebuild(const struct postgres_options *o, int64_t *ret_entries, char ret_why[256]) MUSTCHECK;

#endif
