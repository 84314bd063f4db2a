/*
 * pg_cluster: a PostgreSQL server of a test program's own, in a directory of its own.
 *
 *     struct pg_cluster c;
 *     pg_cluster_start(&c, 0);         initdb and start; ends the program with a message when that fails
 *     … connect with pg_cluster_url …
 *     pg_cluster_stop(&c);             a helper process does it should the program end otherwise
 *
 * It listens on a Unix socket in its directory, so that any number of programs may run at once; on TCP (127.0.0.1, a
 * free port) with PG_CLUSTER_TCP. Runs as user postgres when the test is root, as initdb insists.
 */
#ifndef TESTS_PG_CLUSTER_H
#define TESTS_PG_CLUSTER_H

#include <stdbool.h>
#include <sys/types.h>

struct pg_cluster {
    char dir[64]; /* holds data/ and the socket */
    char host[64];
    char url[256];
    int port;
    pid_t postmaster; /* 0: not running */
    pid_t keeper;
};

enum {
    PG_CLUSTER_FSYNC = 1, /* commits reach the disk: for tests of crashes of the machine only */
    PG_CLUSTER_TCP = 2,   /* listens on TCP instead of a socket; passwords are asked for (scram) */
    PG_CLUSTER_TLS = 4    /* with TCP: a certificate of its own making */
};

/* Role payflow, no superuser, owns database payflow. */
#define PG_CLUSTER_PASSWORD "sesame"

void pg_cluster_start(struct pg_cluster *c, unsigned flags);
/* A streaming replica of a running one, on a socket, from a copy that is made now. The calls below are for it too. */
void pg_cluster_replica(struct pg_cluster *c, const struct pg_cluster *of);
/* Ends the server and removes the directory. */
void pg_cluster_stop(struct pg_cluster *c);
/* As after a crash of it; pg_cluster_up starts it again. */
void pg_cluster_kill(struct pg_cluster *c);
void pg_cluster_up(struct pg_cluster *c);
/* SIGSTOP or SIGCONT to the server with all its processes. */
void pg_cluster_freeze(struct pg_cluster *c, bool on);
/* "postgres://payflow:sesame@…/payflow" */
static inline const char *pg_cluster_url(const struct pg_cluster *c)
{
    return c->url;
}
/* One for the whole program, started by the first call (one thread). */
struct pg_cluster *pg_cluster_shared(void);
/* An own schema for a test's store, made if it is not there; the name, from `of`'s last six bytes, in static memory. */
const char *pg_cluster_schema(const struct pg_cluster *c, const char *of);
/* Until a replica of it has replayed what is committed now: its replicas are asynchronous. */
bool pg_cluster_followed(const struct pg_cluster *c);
/* Runs one statement as the superuser in database payflow; false: it failed, and stderr says why. */
bool pg_cluster_sql(const struct pg_cluster *c, const char *sql);

#endif
