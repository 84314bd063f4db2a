/*
 * Read replicas and the state of the primary: which server a read goes to, and what becomes of it when that fails.
 *
 * No read returns less than what any instance had acknowledged when it began. A read that may go to a replica first
 * takes a read index: the primary's flushed position, asked for after the read arrived. What was acknowledged before
 * that is in the log up to there. One query serves all reads that wait when it is sent, so its cost does not grow with
 * their number. The replica is asked how far it has replayed in the same round trip as the read, by a statement before
 * it: the read's snapshot is taken after that answer. If the replica is short of the index, what it returned is dropped
 * and the primary answers. A position that was heard of earlier is not relied upon: a standby that was restarted may
 * have fallen back.
 * Positions compare within one history only. A replica counts if its control file names the primary's cluster and
 * timeline; after a promotion that takes until the replica has written a restart point on the new timeline, meanwhile
 * the primary reads. A server that is not in recovery is nobody's replica.
 *
 * The balancer says whose turn it is; a thread looks at the primary each check_ms, and at the replicas as often as
 * `checks` says. One that fails a read is left out at once, one that fails as many checks in a row as the threshold
 * then, and both come back by themselves; one that says that it is none of this primary's reads nothing more. One that
 * lags rests for 5 ms, and up to 640 ms while it goes on doing so. With none left the primary reads.
 *
 * Each replica has a breaker as well, over the reads that it was given.
 *
 * Degraded: a breaker around the primary counts its round trips (not the server's refusals). While it is open, whatever
 * needs the primary fails at once, and reads that may be stale go to the replica that had replayed most at the last
 * check. Their age is the time since that replica is known to have had all that was acknowledged then.
 */
#ifndef STORE_POSTGRES_REPLICAS_H
#define STORE_POSTGRES_REPLICAS_H

#include "resilience/balancer.h"
#include "resilience/breaker.h"
#include "store/postgres/internal.h"

enum {
    PG_CHECK_MS = 500,         /* from one check to the next, unless told */
    PG_CHECK_LEAST_US = 10000, /* of a replica, whatever is asked for */
    PG_SOON_MS = 100,          /* the same when something is amiss */
    PG_GUARD_MS = 1000,        /* of a check, of a read index and of connecting to a replica, at most */
    PG_REPLICA_MS = 1000,      /* of a read on a replica, at most: others have to answer within the rest */
    PG_SAMPLES = 256,          /* of the primary's position, one per check: tell lags up to two minutes */
    PG_REST_LEAST_US = 5000,   /* longer than a commit takes to arrive at a replica near by */
    PG_REST_MOST_US = 640000,  /* about a check */
    PG_OPEN_MS = 500           /* from the primary's failure to the next attempt */
};

struct pg_replica {
    struct postgres_store *store;
    uint64_t id; /* the balancer's */
    char *host, *port;
    unsigned weight;
    struct breaker *breaker;
    struct pg_conn check; /* the checking thread's */
    struct pg_conn *idle; /* this and the next two under the guard's lock */
    unsigned n_idle, n_open;
    _Atomic int64_t replay, timeline; /* at the last check */
    _Atomic int64_t fresh_us;         /* all that was acknowledged then is here; 0: nothing is known */
    _Atomic int64_t rest_us, rest_until_us;
    atomic_bool up;      /* answered as a replica of this primary's, and not too few checks since */
    unsigned unanswered; /* in a row; the checking thread's */
    _Atomic uint64_t served, behind, failed;
};

struct pg_position {
    int64_t lsn, timeline, system;
    bool ok;
};

struct pg_guard {
    struct postgres_store *store;
    unsigned check_ms;          /* from one look at the primary to the next */
    struct store_checks checks; /* of the replicas */
    enum balancer_algorithm algorithm;
    bool spare; /* the replicas read only while the primary is away */
    struct breaker *breaker;
    atomic_bool down; /* the breaker is not closed */
    struct balancer *balancer;
    struct pg_replica replicas[PG_REPLICAS_MAX];
    unsigned n_replicas;

    pthread_mutex_t lock; /* over all up to the gap, and the replicas' idle connections */
    pthread_cond_t changed;
    bool asking;             /* a leader is at the primary */
    uint64_t forming, asked; /* the batch that the next query answers; the last one answered */
    struct pg_position last; /* its answer */
    struct {
        int64_t lsn, timeline, at_us;
    } samples[PG_SAMPLES];
    unsigned n_samples;
    bool stop;

    struct pg_conn index; /* the leader's */
    pthread_t thread;
    bool running;
    _Atomic int64_t timeline, system; /* the newest heard of from a primary */
    _Atomic uint64_t indexes, asks, stale, primary_reads;
};

#endif
