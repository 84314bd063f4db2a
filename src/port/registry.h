/*
 * registry: who serves what, and where. The port; engines are registry/static (a list that does not change by itself)
 * and others behind a server.
 *
 *   add, remove   say that an instance of ours is there, or is going
 *   watch         hear of a service's instances: once at the start if they are known, then whenever they change
 *   services      what services there are
 *
 * An error never empties a list: while the registry cannot be asked, what it said last goes on to hold. A list that is
 * empty was said to be empty.
 *
 * All functions are thread-safe. A watcher's function is called on a thread of the registry's (or inside `watch`), one
 * call at a time for each watch; it must be brief and must not call the registry. The list is borrowed for the call.
 */
#ifndef PORT_REGISTRY_H
#define PORT_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    REGISTRY_NAME_MAX = 64,     /* bytes of a service's name or an instance's id, with the NUL */
    REGISTRY_ADDRESS_MAX = 256, /* of an address, with the NUL */
    REGISTRY_TAGS_MAX = 16,     /* of an instance */
    REGISTRY_LIST_MAX = 1024,   /* instances of a service */
    REGISTRY_WATCHES_MAX = 64
};

enum registry_health { REGISTRY_PASSING, REGISTRY_WARNING, REGISTRY_CRITICAL };

struct registry_instance {
    const char *id;      /* unique within the service */
    const char *address; /* a numeric address or a host name */
    uint16_t port;
    unsigned weight; /* 0..1000 */
    enum registry_health health;
    const char *const *tags;
    unsigned n_tags;
};

struct registry_list {
    uint64_t generation;                       /* grows with every change, from 1 */
    const struct registry_instance *instances; /* in order of their ids */
    size_t n;
};

typedef void registry_changed(void *ctx, const struct registry_list *list);

typedef void registry_each(void *ctx, const char *service);

/* What an instance of ours says of itself; copied. Give ids that no other service's instances have: a registry server
 * may know an instance by nothing else. */
struct registry_registration {
    const char *service, *id;
    const char *address; /* "": that of the registry's agent beside us, if it has such */
    uint16_t port;
    unsigned weight;
    const char *const *tags;
    unsigned n_tags;
    const char *check_url; /* an HTTP address that answers 2xx while the instance serves; NULL: none */
    int64_t check_interval_us, check_timeout_us; /* 1 s and 1 ms to 30 days */
    int64_t check_forget_us; /* an instance that has failed for so long is taken out by the registry; 0: never */
};

struct registry_figures {
    const char *engine; /* "static", "consul" */
    bool reachable;
    uint64_t changes, errors;
    int64_t age_us; /* since the lists were last confirmed; -1: never */
};

struct registry;

struct registry_ops {
    enum pf_err (*add)(struct registry *r, const struct registry_registration *what, char why[256]);
    enum pf_err (*remove)(struct registry *r, const char *service, const char *id, char why[256]);
    enum pf_err (*watch)(struct registry *r, const char *service, registry_changed *fn, void *ctx);
    enum pf_err (*services)(struct registry *r, registry_each *fn, void *ctx, char why[256]);
    void (*figures)(struct registry *r, struct registry_figures *ret);
    void (*close)(struct registry *r);
};

struct registry { /* an engine's own begins with it */
    const struct registry_ops *ops;
};

/* Registers, or replaces what was registered under this service and id. PFE_UNAVAILABLE: the registry cannot be asked
 * now; the engine goes on trying by itself. PFE_INVALID and PFE_NOMEM: it does not. One line in why. */
static inline enum pf_err registry_add(struct registry *r, const struct registry_registration *what, char why[256])
{
    return r->ops->add(r, what, why);
}

/* PFE_NOT_FOUND: there is none. */
static inline enum pf_err registry_remove(struct registry *r, const char *service, const char *id, char why[256])
{
    return r->ops->remove(r, service, id, why);
}

/* The watch lasts until registry_close. service is copied. PFE_BUSY: too many watches, or its name is too long;
 * PFE_NOMEM. */
static inline enum pf_err registry_watch(struct registry *r, const char *service, registry_changed *fn, void *ctx)
{
    return r->ops->watch(r, service, fn, ctx);
}

/* Calls fn with the name of each service that has instances, in order, on this thread; it must not call the registry.
 * PFE_UNAVAILABLE, PFE_NOMEM: with none; one line in why. */
static inline enum pf_err registry_services(struct registry *r, registry_each *fn, void *ctx, char why[256])
{
    return r->ops->services(r, fn, ctx, why);
}

static inline void registry_figures(struct registry *r, struct registry_figures *ret)
{
    r->ops->figures(r, ret);
}

/* No function of a watch runs when it returns. Instances of ours that are still registered are taken out. NULL is
 * allowed. */
static inline void registry_close(struct registry *r)
{
    if (r)
        r->ops->close(r);
}

#endif
