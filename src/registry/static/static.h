/* static: a registry that knows what it is told, from the settings or by registry_add; in memory, no server behind it.
 */
#ifndef REGISTRY_STATIC_H
#define REGISTRY_STATIC_H

#include "port/registry.h"

struct registry_static_entry { /* borrowed for the call */
    const char *service;
    struct registry_instance instance;
};

/* PFE_INVALID: an entry is out of range, or occurs twice; one line in why. */
enum pf_err registry_static_open(const struct registry_static_entry *entries, size_t n, struct registry **ret,
                                 char why[256]) MUSTCHECK;
/* The settings have changed: these take the place of all entries of the settings; what registry_add has brought stays.
 * Watchers hear of what changed. On failure nothing has. */
enum pf_err registry_static_replace(struct registry *r, const struct registry_static_entry *entries, size_t n,
                                    char why[256]) MUSTCHECK;

#endif
