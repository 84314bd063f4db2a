/*
 * pg_proxy: stands between a store and its PostgreSQL server and breaks off at a chosen message of the protocol.
 *
 *     struct pg_proxy *p = pg_proxy_start(&cluster);      connect with pg_proxy_url
 *     pg_proxy_arm(p, PG_PROXY_REQUEST, 3);               the server gets 3 more messages, then both lose the other
 *     …
 *     if (pg_proxy_tripped(p)) …                          and disarms: what connects afterwards goes through
 *     pg_proxy_stop(p);
 */
#ifndef TESTS_PG_PROXY_H
#define TESTS_PG_PROXY_H

#include "support/pg_cluster.h"

struct pg_proxy;

enum pg_proxy_cut {
    PG_PROXY_NONE,
    PG_PROXY_REQUEST, /* after n messages to the server */
    PG_PROXY_ANSWER,  /* after n messages from the server; it gets all */
    PG_PROXY_STALL /* after n messages to the server and part of the next: nothing moves any more, nothing is closed */
};

struct pg_proxy *pg_proxy_start(const struct pg_cluster *c);
void pg_proxy_stop(struct pg_proxy *p);
const char *pg_proxy_url(const struct pg_proxy *p);
void pg_proxy_arm(struct pg_proxy *p, enum pg_proxy_cut cut, int n);
bool pg_proxy_tripped(struct pg_proxy *p);
/* What has stalled is closed. */
void pg_proxy_release(struct pg_proxy *p);

#endif
