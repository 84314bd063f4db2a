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
#include "resilience/balancer.h"
#include "resilience/breaker.h"
#include "resilience/retry.h"
#include "store/move.h"
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
    unsigned max_open, max_idle;     /* connections, the ledger writer's included (3..); 0: 25 and 5 */
    int64_t max_lifetime_s;          /* of a connection; 0: no end */
    unsigned connect_ms, timeout_ms; /* to connect to one host; for one round trip. 0: 2000 and 5000 */
    /* From a commit's sending until it is answered, or looked up after the connection was lost; then its outcome is
       unknown (PFE_INTERNAL), as with synchronous replicas that do not answer. 0: 4 timeouts. */
    unsigned commit_ms;
    /* For how long opening tries again to connect, where that may pass by itself (refused, no answer, no such host, not
       ready); on_retry (may be NULL) is told why and how long it waits. 0: once. Half of it, 2.5 s at most, is also how
       long a host that says nothing keeps another one from being taken for the primary. */
    unsigned start_ms;
    void (*on_retry)(void *ctx, const char *why, int64_t wait_us);
    void *ctx;
    const struct breaker_config *primary_breaker, *replica_breaker; /* NULL: the engine's own; on_transition is not */
    const struct retry_config *retry;                               /* of reads; NULL: the engine's own */
    enum balancer_algorithm algorithm;                              /* which replica reads */
    bool spare;                                                     /* they read only while the primary is away */
    const struct postgres_replica *replicas; /* further servers for reads; the rest is as for the primary */
    unsigned n_replicas;
    bool guard;                 /* fail at once while the primary does not answer; implied by replicas */
    unsigned check_ms;          /* between looks at the primary, and at the replicas unless told below; 0: 500 */
    struct store_checks checks; /* of replicas; 0: check_ms (at least 10 ms); 1 s, which is the most; 1 and 1 */
    struct metrics *metrics;    /* borrowed for the store's life; NULL: none */
};

/* On failure ret_why is one line fit for an operator, without secrets. PFE_WRONG_STATE: what somebody has to mend
   (host, password, database, TLS, encoding, version, a schema that is newer, older (INSPECT) or altered).
   PFE_UNAVAILABLE: may pass by itself. PFE_NOMEM. */
enum pf_err store_postgres_open(const struct postgres_options *o, struct store **ret, char ret_why[256]) MUSTCHECK;

/* The engine's own settings, to change some of. max_open: as in the options. */
struct breaker_config store_postgres_breaker(void);
struct retry_config store_postgres_retry(unsigned max_open);

struct postgres_migration {
    int version;
    const char *name;
    bool applied, intact; /* intact: the applied text has the checksum of the embedded one */
    int64_t applied_us;
};
/* PFE_WRONG_STATE: the database has one that is newer than all that this program knows. */
enum pf_err store_postgres_migrations(const struct postgres_options *o, struct postgres_migration *out, unsigned cap,
                                      unsigned *ret_n, char ret_why[256]) MUSTCHECK;
/* to < 0: all the way up. Runs under an advisory lock: of several at once, each step is done by one. Going down past a
   version that would drop what was recorded (journal, users, audit, events, their documents, messages) is refused
   (PFE_WRONG_STATE). */
enum pf_err store_postgres_migrate(const struct postgres_options *o, int to, char ret_why[256]) MUSTCHECK;
/* Overwrites the stored projections with what the journal says, in one transaction that holds the ledger. */
enum pf_err store_postgres_rebuild(const struct postgres_options *o, int64_t *ret_entries, char ret_why[256]) MUSTCHECK;

/* ---- carrying everything over from another engine (store/move.h) ---- */

/*
 * In order: open; for each table begin, rows, end; finish; then whatever asks what is there; commit; close. Without the
 * commit (also when the process is killed) nothing of it stays but an empty schema. One thread.
 */
struct postgres_target;
/* Connects, makes the schema if there is none, keeps others from writing, and sees that nothing is there.
   PFE_WRONG_STATE: as store_postgres_open, or it is not empty, or in use. */
enum pf_err store_postgres_target_open(const struct postgres_options *o, struct postgres_target **ret,
                                       char ret_why[256]) MUSTCHECK;
void store_postgres_target_close(struct postgres_target *t); /* NULL is allowed */
enum pf_err store_postgres_target_begin(struct postgres_target *t, enum move_table_id table,
                                        char ret_why[256]) MUSTCHECK;
/* A move_row_fn; the context is the target. Its errors are explained by target_end. */
enum pf_err store_postgres_target_row(void *target, const struct move_value *row);
/* Always after target_begin. all: every row was given; if not, nothing can be done after it but close. *ret: of what
   was given. PFE_WRONG_STATE, PFE_UNAVAILABLE: a row was refused. */
enum pf_err store_postgres_target_end(struct postgres_target *t, bool all, struct move_digest *ret,
                                      char ret_why[256]) MUSTCHECK;
enum pf_err store_postgres_target_finish(struct postgres_target *t, const struct move_ends *m,
                                         char ret_why[256]) MUSTCHECK;
/* Of the rows that are stored. */
enum pf_err store_postgres_target_digest(struct postgres_target *t, enum move_table_id table, struct move_digest *ret,
                                         char ret_why[256]) MUSTCHECK;
enum pf_err store_postgres_target_ends(struct postgres_target *t, struct move_ends *ret, char ret_why[256]) MUSTCHECK;
/* As store_verify and store_trial, of what will be committed. */
enum pf_err store_postgres_target_verify(struct postgres_target *t, struct store_verify *ret, struct store_trial *trial,
                                         unsigned cap, unsigned *ret_n, char ret_why[256]) MUSTCHECK;
/* PFE_INTERNAL: the answer was lost. */
enum pf_err store_postgres_target_commit(struct postgres_target *t, char ret_why[256]) MUSTCHECK;

#endif
