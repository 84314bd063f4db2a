/* Between replicas.c, which knows the servers, route.c, which sends reads to them, and replicas_stats.c. */
#ifndef STORE_POSTGRES_ROUTE_H
#define STORE_POSTGRES_ROUTE_H

#include "store/postgres/replicas.h"

/* The primary's position, from after the call began; !ok: the primary does not say. */
struct pg_position pg_read_index(struct pg_guard *g);
/* A connection to it, of that timeline or a later one. NULL: *ret_failed, or all that are allowed are lent out. */
struct pg_conn *pg_replica_take(struct pg_replica *r, int64_t timeline, bool *ret_failed);
void pg_replica_give(struct pg_conn *c);

/* Series of the guard's, which must outlive the registry's last scrape (replicas_stats.c). */
void pg_guard_gauges(struct pg_guard *g, struct metrics *m);

#endif
