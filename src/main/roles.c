/* --role: which part of the platform a process is. */
#include <string.h>

#include "api/api.h"
#include "app/lease.h"
#include "main/main.h"

enum { SCHEDULES = 1 << APP_LEASE_SCHEDULES, HOLDS = 1 << APP_LEASE_HOLDS, RELAY = 1 << APP_LEASE_RELAY };

/* The order is that in which a process of several roles takes the port of one. */
static const struct {
    const char *name;
    enum role role;
    struct duties duties;
} roles_known[] = {
    {"all", ROLE_ALL, {8080, LISTEN_UNLESS_TAKEN, LISTEN_UNLESS_TAKEN, API_ALL, SCHEDULES | HOLDS | RELAY, true, true}},
    {"api", ROLE_API, {8080, LISTEN_IF_SET, LISTEN_IF_SET, API_ALL, SCHEDULES | HOLDS | RELAY, true, true}},
    {"gateway", ROLE_GATEWAY, {0}},
    {"identity", ROLE_IDENTITY, {8081, LISTEN_NEVER, LISTEN_NEVER, API_IDENTITY, 0, false, false}},
    {"event", ROLE_EVENT, {8082, LISTEN_NEVER, LISTEN_NEVER, API_EVENT, 0, true, false}},
    {"booking", ROLE_BOOKING, {8083, LISTEN_NEVER, LISTEN_NEEDED, API_BOOKING, HOLDS | RELAY, false, false}},
    {"payment", ROLE_PAYMENT, {8084, LISTEN_NEVER, LISTEN_NEVER, API_NONE, RELAY, false, true}},
};
enum { ROLES = sizeof roles_known / sizeof *roles_known };

bool main_role_add(const char *name, unsigned *roles)
{
    for (unsigned i = 0; i < ROLES; i++)
        if (strcmp(roles_known[i].name, name) == 0) {
            *roles |= roles_known[i].role;
            return true;
        }
    return false;
}

void main_duties(const struct conf *c, unsigned roles, struct duties *ret)
{
    struct duties d = {0};
    bool everything = false;
    for (unsigned i = 0; i < ROLES; i++) {
        const struct duties *of = &roles_known[i].duties;
        if (!(roles & roles_known[i].role))
            continue;
        if (!d.port)
            d.port = of->port;
        if (of->gateway > d.gateway)
            d.gateway = of->gateway;
        if (of->grpc > d.grpc)
            d.grpc = of->grpc;
        everything |= of->surfaces == API_ALL;
        d.surfaces |= of->surfaces;
        d.jobs |= of->jobs;
        d.documents |= of->documents;
        d.payments |= of->payments;
    }
    if (everything)
        d.surfaces = API_ALL;
    /* a bus within the process leads to those who pay in the process: without them the outbox is left to others */
    if (!c->amqp_url[0] && !d.payments)
        d.jobs &= ~(unsigned)RELAY;
    *ret = d;
}
