/*
 * consul: a registry behind Consul's HTTP API (an agent's; 1.7 or newer).
 *
 *   add        PUT /v1/agent/service/register; a thread of its own looks on and registers again what the agent has
 *              forgotten or got changed, and goes on trying what could not be said
 *   remove     PUT /v1/agent/service/deregister; registry_close does it for all that is left
 *   watch      GET /v1/health/service/NAME as a blocking query, on a thread of its own for each watch
 *   services   GET /v1/catalog/services
 *
 * A watch's rules. The next query waits for a change behind the index that came last; an index that goes back, and any
 * failure, makes the next one ask anew from 0; a missing index or 0 counts as 1. Lists are compared, not indexes. A
 * failure (no connection, a status other than 200, half an answer, one that is no such list, one that stays away, one
 * over a limit below) leaves the list as it is and is tried again after a pause that doubles, less a random part.
 * Answers that come at once and say nothing new are asked for once a second at last. Behind a failure or an index that
 * went back, a list in which nobody serves is believed only if it stays so for doubt_ms: an agent that has lost its
 * state knows nobody until all have registered again and their checks have run.
 *
 * Health is the worst of an instance's checks and its node's. The weight is Consul's for passing or warning, at most
 * 1000. Consul knows no weight of 0: it goes as 1 and the Meta value payflow_weight "0". Consul's ids are an agent's
 * own: an id that comes from several nodes is given as ID@NODE. To the agent an instance is its id alone, so of two
 * instances of ours with the same id, of different services, the second is PFE_INVALID.
 *
 * Limits: an answer 4 MiB (and 16 MiB as a tree), its head 64 KiB; 256 instances of a service, by order of ids; 16 tags
 * of 63 bytes of an instance, further ones are dropped; 64 registrations. An instance without port, or with an id or an
 * address that is too long or holds other than such texts do, is left out; a line in the log says so.
 *
 * Failing and answering again are logged once each, for every watch and for our registrations. The token goes out in a
 * header, over TLS if the address is https, and into no log. There are no redirects and no proxies.
 *
 * Writing to a connection over TLS that the agent has closed raises SIGPIPE: the program must ignore it.
 */
#ifndef REGISTRY_CONSUL_H
#define REGISTRY_CONSUL_H

#include "port/registry.h"

enum { REGISTRY_CONSUL_INSTANCES_MAX = 256, REGISTRY_CONSUL_OWN_MAX = 64 };

/* Borrowed for the call. */
struct registry_consul_options {
    const char *address;    /* "[http://|https://]HOST:PORT" or "unix:///PATH" */
    const char *token;      /* of Consul's ACLs; NULL or "": none */
    const char *ca_file;    /* PEM certificates to trust under https; NULL or "": the system's */
    const char *datacenter; /* that watches and services ask for; NULL or "": the agent's own */
    bool passing_only;      /* watches hear of instances all of whose checks pass; false: of all, with their health */
    unsigned wait_s;        /* of a blocking query, 1..600; 0: 30 */
    /* milliseconds; 0: the default */
    unsigned call_ms;                    /* for any other call, and for an answer that has begun: 3000 */
    unsigned keep_ms;                    /* between looks at our registrations: 5000 */
    unsigned backoff_ms, backoff_max_ms; /* first and longest pause after failures: 250, 15000 */
    unsigned doubt_ms;                   /* 20000 */
    unsigned leave_ms;                   /* that registry_close spends on taking our instances out: 3000 */
};

/* Asks nothing of the agent. PFE_INVALID: an option is out of range; PFE_NOMEM; one line in why, without the token.
 * registry_close of it takes at most call_ms + leave_ms. */
enum pf_err registry_consul_open(const struct registry_consul_options *o, struct registry **ret,
                                 char why[256]) MUSTCHECK;

#endif
