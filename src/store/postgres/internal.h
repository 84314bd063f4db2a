/*
 * Inside the postgres engine: the store, its connections, queries and the one translation of the server's errors.
 *
 * Connections. A connection belongs to one thread at a time. `w` is the ledger writer's: pg_writer() gives it
 * connected, or NULL. All others are the pool's: pg_take … pg_give.
 *
 * Queries. Statements are static strings, prepared once per connection and found again by the address of their text.
 * Parameters ($1, $2 … in order, no casts needed) and columns are binary: int8, text, bytea and arrays of these; cast
 * other types in the statement (count(*) is int8; a sum is numeric: sum(x)::bigint; booleans: col_bool). Errors stick:
 * bind, step, and look at what pg_q_end or pg_q_run returns.
 *
 *     struct pg_q q;
 *     pg_q_begin(&q, conn, "SELECT a, b FROM t WHERE id = $1");     conn may be NULL: PFE_UNAVAILABLE
 *     pg_q_i64(&q, id);
 *     if (pg_q_next(&q))
 *         out = pg_col_i64(&q, 0), found = true;
 *     enum pf_err e = pg_q_end(&q);      PFE_OK although there was no row
 *
 * pg_read_begin instead takes a connection from the pool, which goes back as soon as the rows are here, so that a
 * callback given the rows may query again. All rows of a query are in memory at once: bound them (LIMIT, a cursor).
 *
 * Several queries in one round trip: bind and pg_q_send each, then pg_sync, then read the results. They run in order;
 * the first that fails keeps those after it from running, and every one of these ends in its error. Without BEGIN they
 * are one transaction of their own.
 *
 *     pg_q_begin(&a, c, …); pg_q_i64(&a, …); pg_q_send(&a);
 *     pg_q_begin(&b, c, …); pg_q_send(&b);
 *     enum pf_err e = pg_sync(c);        the first error of all
 *     while (pg_q_next(&a)) …
 *     pg_q_end(&a), pg_q_end(&b);        always, they free the rows
 *
 * What is bound is borrowed until pg_q_send (or the step that sends); bind and send one query after the other. Queries
 * sent are referred to by the connection until pg_sync: keep them where they are.
 *
 * A round trip that outlives its deadline (conn.timeout_ms), or a lost connection, leaves the connection `broken`: all
 * further queries on it end in PFE_UNAVAILABLE, until pg_give or pg_writer replaces it. Whether the server did what was
 * sent is then unknown; with pg_commit that is told apart (PFE_INTERNAL).
 */
#ifndef STORE_POSTGRES_INTERNAL_H
#define STORE_POSTGRES_INTERNAL_H

#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/resolve.h"
#include "codec/crypt.h"
#include "port/store.h"
#include "resilience/balancer.h"
#include "resilience/breaker.h"
#include "resilience/retry.h"
#include "store/postgres/postgres.h"

enum {
    PG_STMTS_MAX = 256, /* slots per connection, a power of two; the engine has about 100 statements */
    PG_PARAMS_MAX = 32, /* of one statement; the most is 19 */
    PG_PIPE_MAX = 32,   /* queries in one round trip */
    PG_HOSTS_MAX = 8,
    PG_REPLICAS_MAX = STORE_REPLICAS_MAX,
    PG_WHY = 256,         /* size of every ret_why */
    PG_SLICE_MS = 100,    /* between looks at whether to wait on makes sense */
    PG_IDLE_TX_MS = 3000, /* the server cuts off who holds a transaction and does nothing */
    PG_LOCK_MS = 4000     /* longer than that, so that waiting for such a one goes well */
};

struct pg_q;
struct pg_guard;   /* replicas.h */
struct pg_replica; /* replicas.h */

struct pg_conn {
    PGconn *pg; /* NULL: not connected */
    struct postgres_store *store;
    struct pg_replica *replica; /* NULL: to the primary */
    int64_t timeline, system;   /* the server's, when it was connected to: its history, its cluster */
    int64_t started;            /* and since when it runs */
    struct pg_conn *next;       /* in the pool's idle list */
    bool broken;
    bool late;           /* it is broken for want of an answer in time, and not lost */
    bool given_up;       /* and that because somebody else had found out that none would come */
    bool probe;          /* asks whether the primary is there: not given up while that one is held to be down */
    bool yields;         /* given up also when commits are stalled: waits for a lock that one of them holds */
    bool passes;         /* why it could not be connected may be over in a moment */
    bool crowded;        /* it could not be connected because the server has as many as it takes */
    bool alone;          /* the server has said that it waits no longer for a replica to have the commit */
    bool tx;             /* counts as a transaction's in the pool */
    unsigned timeout_ms; /* of one round trip; may be changed while the connection is held */
    unsigned connect_ms; /* to connect to one host; 0: the store's */
    int64_t born_us, idle_us;
    struct {
        const char *sql;
        unsigned n; /* its name is this number */
        bool ready; /* the server has it */
    } stmts[PG_STMTS_MAX];
    unsigned n_stmts;
    struct pg_q *pipe[PG_PIPE_MAX]; /* sent, results not read yet */
    unsigned n_pipe;
    enum pf_err unsent; /* why something of the round trip could not be sent: the connection is broken then */
    char *scratch;      /* arrays of the query that is being bound */
    size_t scratch_n, scratch_cap;
    char why[PG_WHY]; /* the last error in words, one line */
};

/* Where a read may be answered (replicas.h). */
enum pg_from {
    PG_FROM_PRIMARY, /* something is decided on it */
    PG_FROM_ANY      /* a replica will do that has all that was acknowledged before; without the primary, and if the
                        caller allows it (store_stale), one that may not have it */
};

/* How such a read is under way. */
struct pg_route {
    bool any; /* and it may go elsewhere when that fails */
    bool stale, waited;
    struct balancer_lease lease;
    struct breaker_permit permit; /* of the replica's breaker */
    int64_t index;                /* what the replica must have replayed */
    int64_t fresh_us;
    unsigned tried; /* replicas that a stale read tried: a bit each */
};

struct pg_q {
    struct pg_conn *c;
    const char *sql;
    PGresult *res; /* the rows, or the error */
    enum pf_err err;
    char state[6]; /* SQLSTATE of the error; "" none */
    int row, rows;
    int n;                   /* parameters bound */
    bool pooled, sent, done; /* sent: on its way to the server; done: res and err stand */
    bool prepares;           /* a Parse goes before it */
    struct pg_route route;
    struct {
        Oid type;
        bool in_scratch;
        int64_t be; /* an int8, as it is sent */
        const char *p;
        size_t at; /* in scratch */
        int len;
    } params[PG_PARAMS_MAX];
};

struct pg_ledger; /* ledger part: what it keeps between calls */

struct pg_documents {
    struct documents base;
    struct postgres_store *store;
};

struct postgres_store {
    struct store base;
    struct pg_documents documents;
    enum postgres_mode mode;
    int schema;

    /* how to connect; fixed after open */
    char **keys, **values; /* libpq's, but for host and port; ends in NULL */
    char *hosts[PG_HOSTS_MAX], *ports[PG_HOSTS_MAX];
    unsigned n_hosts;
    struct resolver *names;
    unsigned connect_ms, timeout_ms, commit_ms, max_open, max_idle;
    int64_t max_lifetime_us;

    pthread_mutex_t lock; /* over all up to the gap */
    pthread_cond_t freed;
    struct pg_conn *idle;
    unsigned n_idle, n_open, n_tx; /* open: lent out or idle, without w */
    unsigned tx_max;               /* the rest is for reads: who has a transaction may read */
    unsigned host;                 /* the one that was good last */
    int64_t timeline;              /* the newest heard of: a server of an older one was the primary once */
    uint64_t doubts;               /* attempts to connect that failed: another one may be the primary since */
    struct {
        unsigned host;
        int64_t started;
        uint64_t doubts;
    } sure; /* when the other hosts last had nothing against this one, of that start: as of then it is the primary */
    /* Since when one of them has said nothing when it was asked, and when it last did so; and how long that is not
       taken for consent. */
    int64_t silent_us, silent_last_us, patience_us;
    int64_t system;   /* the cluster of the first connection; no other is written to. 0: not known yet */
    bool crowded;     /* the last attempt failed because the server has as many connections as it takes */
    int64_t retry_us; /* no attempt to connect before */
    int64_t backoff_us;
    struct store_pool stats;

    atomic_bool stalled; /* commits wait for replicas that are not there (guard's last look) */
    struct retry reads;  /* of reads whose connection was lost */
    struct retry groups; /* of groups that met a deadlock, or a lock that was not freed in time */

    struct pg_guard *guard; /* NULL: nobody looks after the primary, and there are no replicas */

    struct pg_conn w;                  /* the ledger writer's; used by that thread only */
    struct pg_ledger *ledger;          /* set by pg_ledger_init */
    atomic_bool full;                  /* the last write failed for want of room */
    atomic_bool fatal;                 /* never set: outcomes are looked up */
    struct metric_histogram *h_commit; /* NULL: not measured */
};

static inline struct postgres_store *pg_of(struct store *s)
{
    return (struct postgres_store *)s;
}

/* ---- errors (query.c) ---- */

/* The one translation, of an SQLSTATE ("" or NULL: none, the connection failed):
   23505 and other constraints: PFE_WRONG_STATE (look at pg_q_constraint before). 40001, 40P01, 55P03 (serialization,
   deadlock, lock_timeout): PFE_BUSY, nothing done, try the whole transaction again. 53100: PFE_DISK_FULL. 53200:
   PFE_NOMEM. Anything else: PFE_UNAVAILABLE. */
enum pf_err pg_err(const char *state);
/* Is a connection that gave this error of further use? 57P01–57P03, 25P03, 25006 (it became a replica), 08xxx, 26000,
   0A000 (the schema changed under a prepared statement): no. */
bool pg_state_breaks(const char *state);
/* Name of the constraint that a failed query violated; "" none. Until pg_q_end. */
const char *pg_q_constraint(const struct pg_q *q);

/* ---- queries (query.c) ---- */

/* c may be NULL: the query then ends in PFE_UNAVAILABLE. */
void pg_q_begin(struct pg_q *q, struct pg_conn *c, const char *sql);
/* On a connection of the pool's own choice. It is sent by the step that reads, not by pg_q_send. */
void pg_read_begin(struct pg_q *q, struct postgres_store *s, enum pg_from from, const char *sql);

/* Bind the next parameter. */
void pg_q_i64(struct pg_q *q, int64_t v);
void pg_q_bool(struct pg_q *q, bool v);
void pg_q_str(struct pg_q *q, struct str v); /* valid UTF-8 without NUL */
void pg_q_blob(struct pg_q *q, const void *p, size_t n);
/* Arrays, for unnest and = ANY: of n values that get() gives; p[i] is at p + i * stride. */
void pg_q_i64s(struct pg_q *q, const void *p, size_t stride, size_t n);  /* int64_t */
void pg_q_strs(struct pg_q *q, const void *p, size_t stride, size_t n);  /* struct str */
void pg_q_blobs(struct pg_q *q, const void *p, size_t stride, size_t n); /* struct str: any bytes */
/* The same of n blobs of equal length, such as uint8_t[16] inside structs. */
void pg_q_blobs_fixed(struct pg_q *q, const void *p, size_t stride, size_t len, size_t n);
/* Value by value, for what has no int64_t in its structs: begin, put n values, end. */
void pg_q_i64s_begin(struct pg_q *q, size_t n);
void pg_q_i64s_put(struct pg_q *q, int64_t v);

/* Puts the query into the round trip that pg_sync makes. */
void pg_q_send(struct pg_q *q);
/* One round trip of all that was sent. The first error, or PFE_OK. */
enum pf_err pg_sync(struct pg_conn *c) MUSTCHECK;

/* The next row; the first call sends and waits if that was not done. */
bool pg_q_next(struct pg_q *q);
/* Frees the rows. May be called on a query that was begun and never sent. */
enum pf_err pg_q_end(struct pg_q *q);
/* For statements without rows: runs and ends. */
enum pf_err pg_q_run(struct pg_q *q);
/* Runs (if not done) and ends; *ret: rows that an INSERT, UPDATE or DELETE hit. */
enum pf_err pg_q_hits(struct pg_q *q, int64_t *ret);

int64_t pg_col_i64(const struct pg_q *q, int i); /* int8, int4, int2, oid; NULL: 0 */
bool pg_col_bool(const struct pg_q *q, int i);
bool pg_col_null(const struct pg_q *q, int i);
/* Valid until pg_q_end. */
struct str pg_col_str(const struct pg_q *q, int i);
/* false, and q's error set to PFE_NOMEM, when the arena is exhausted. */
bool pg_col_dup(struct pg_q *q, int i, struct arena *a, struct str *ret);
/* Copies exactly n bytes; a value of another length reads as zeros. */
void pg_col_blob(const struct pg_q *q, int i, void *out, size_t n);

/* A statement without parameters and rows: one round trip. */
enum pf_err pg_exec(struct pg_conn *c, const char *sql) MUSTCHECK;
/* What begins and ends transactions: statements are found by these addresses. READ COMMITTED; one snapshot for long
 * reads. */
extern const char pg_begin[], pg_begin_snapshot[], pg_commit_sql[], pg_rollback[];
/* Ends the transaction. The server may also answer COMMIT with a rollback: PFE_UNAVAILABLE (nothing done), as for a
   transaction in which a statement failed. PFE_INTERNAL: the connection was lost before the answer, the outcome is
   unknown. Has nothing else in its round trip: a group that sends COMMIT with its last statements calls pg_committed.
 */
enum pf_err pg_commit(struct pg_conn *c) MUSTCHECK;
/* After pg_sync of a round trip that ended in q, a query of pg_commit_sql: what pg_commit would have said. Ends q. */
enum pf_err pg_committed(struct pg_q *q) MUSTCHECK;
/* pg_commit within a deadline, which is for this alone. PFE_INTERNAL also when it has passed: the server commits all
   the same once it can. */
enum pf_err pg_commit_by(struct pg_conn *c, int64_t deadline_us) MUSTCHECK;
/* Rolls back, or leaves the connection broken. */
void pg_abandon(struct pg_conn *c);

/* COPY … FROM STDIN or TO STDOUT, on its own between round trips: begin, then put or get, then end. After a failed
   begin there is no end. What put was given the server may refuse as late as at the end. */
enum pf_err pg_copy_begin(struct pg_conn *c, const char *sql) MUSTCHECK;
enum pf_err pg_copy_put(struct pg_conn *c, const void *p, size_t n) MUSTCHECK;
/* The next piece, which the caller frees with PQfreemem; false: there is no more, or pg_copy_end has an error. */
bool pg_copy_get(struct pg_conn *c, char **ret, size_t *ret_n);
/* good false: what was put is to count for nothing, and the transaction has failed. */
enum pf_err pg_copy_end(struct pg_conn *c, bool good) MUSTCHECK;

/* ---- connections (conn.c) ---- */

/* Connects to the host that accepts writes (INSPECT: any), and of several that would to the one of the newest timeline:
   others were the primary before a promotion. Tries each host for connect_ms; soon after a failure it fails at once
   (back-off). On failure c is closed, and c->why says why. why_err (may be NULL): as store_postgres_open.
 */
enum pf_err pg_connect(struct pg_conn *c, enum pf_err *ret_why_err) MUSTCHECK;
/* Connects to one host. any: also to one that accepts no writes. PFE_UNAVAILABLE: may pass by itself. */
enum pf_err pg_connect_to(struct pg_conn *c, const char *host, const char *port, bool any,
                          unsigned connect_ms) MUSTCHECK;
/* Also on a zeroed or half-open connection. */
void pg_disconnect(struct pg_conn *c);
/* Text of many statements, such as a migration; not inside a round trip. */
enum pf_err pg_script(struct pg_conn *c, const char *text) MUSTCHECK;
/* Is it connected, and has the server not hung up? */
bool pg_alive(struct pg_conn *c);
/* Of one to the primary: it is older than a connection may get, or its server was the primary before a promotion that
   is known of by now. It is to be replaced before it is used again. */
bool pg_outlived(struct pg_conn *c);
/* The ledger writer's connection, connected anew if need be; NULL: not now. */
struct pg_conn *pg_writer(struct postgres_store *s);

/* ---- the pool (pool.c) ---- */

enum pg_use { PG_READ, PG_TX };
/* Waits for a connection up to timeout_ms; NULL: none. The caller gives it back. */
struct pg_conn *pg_take(struct postgres_store *s, enum pg_use use);
void pg_give(struct pg_conn *c); /* NULL is allowed */
void pg_pool_read(struct postgres_store *s, struct store_pool *ret);

/* ---- commits and synchronous replicas (stall.c) ---- */

/* A commit that a synchronous replica has to confirm holds its locks until one does. If it is cut off meanwhile (an
   administrator, a restart), the server shows it although no replica has it, and a promotion would lose it. So nothing
   that was found is acknowledged before a commit of one's own, begun after it was seen, has been answered: replicas
   receive in order. */

/* Commits wait for replicas that are not there: what would join them fails at once. */
bool pg_stalled(const struct postgres_store *s);
/* By when a commit that begins now has to be answered. */
int64_t pg_commit_deadline(const struct postgres_store *s);
/* Makes such a commit. PFE_UNAVAILABLE: it was not begun; PFE_INTERNAL: it has no answer. */
enum pf_err pg_assure(struct postgres_store *s, int64_t deadline_us) MUSTCHECK;
/* Looks whether commits are stalled; c is a connection to the primary. false: no answer. */
bool pg_stall_look(struct pg_conn *c);

/* Of the table of ops (lease.c). */
enum pf_err pg_lease_take(struct store *st, struct str name, struct str holder, int64_t ttl_us,
                          struct store_lease *ret);
enum pf_err pg_lease_drop(struct store *st, struct str name, struct str holder);
/* Locks the leases of these fences that are as they say, in a query that is part of c's round trip. */
void pg_fences_send(struct pg_q *q, struct pg_conn *c, const struct store_fence *fences, size_t n);
/* Its answer: into their ok; or, again: PFE_UNAVAILABLE unless those that were ok still are. */
enum pf_err pg_fences_read(struct pg_q *q, struct store_fence *fences, size_t n, bool again);

/* Of the table of ops (replicas_stats.c). */
bool pg_cluster_read(struct store *st, struct store_cluster *ret);

/* ---- the primary and its replicas (replicas.c, route.c) ---- */

/* Starts the thread; the store is connected. Replicas need not be there yet. */
enum pf_err pg_guard_start(struct postgres_store *s, const struct postgres_options *o, char ret_why[PG_WHY]) MUSTCHECK;
void pg_guard_stop(struct postgres_store *s); /* also when it was not started */
/* The primary does not answer: what needs it fails at once. */
bool pg_primary_down(const struct postgres_store *s);
/* How an attempt to use the primary went. */
void pg_primary_report(struct postgres_store *s, bool ok);
/* Is the calling thread in a group or transaction? It then reads from the primary only. */
bool pg_in_write(struct postgres_store *s);

/* For what a write relies on as well: PG_FROM_ANY only while the calling thread's reads are just shown (store_stale).
 */
enum pg_from pg_from_shown(void);
/* A connection for a PG_FROM_ANY read, and how it was come by; NULL: none. */
struct pg_conn *pg_route_take(struct postgres_store *s, struct pg_route *ret);
/* Runs q where it was routed to, and elsewhere if that fails. */
void pg_route_run(struct pg_q *q);
/* Gives q's connection back to where it came from. */
void pg_route_give(struct pg_q *q);
int64_t pg_stale(struct store *s, enum store_stale step);

/* ---- words (words.c): of the table of ops ---- */

enum pf_err pg_word_say(struct store *s, const char *process, const char *word, struct store_words *ret) MUSTCHECK;
void pg_word_end(struct store *s, const char *process);

/* ---- the ledger part provides (journal.h has its operations) ---- */

/* After the schema is known good. */
enum pf_err pg_ledger_init(struct postgres_store *s, char ret_why[PG_WHY]) MUSTCHECK;
void pg_ledger_free(struct postgres_store *s); /* also before init */
/* true: the caller is the thread of the group under way and the key was named to group_begin; *ret_e is then the answer
   of store_idem_get. */
bool pg_group_idem(struct postgres_store *s, struct arena *a, int64_t principal, struct str key, struct store_idem *ret,
                   enum pf_err *ret_e);

#endif
