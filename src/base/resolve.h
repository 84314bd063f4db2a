/*
 * resolve: host names to addresses, within a deadline. The C library's own way waits as long as the name servers are
 * silent, ten seconds and more; here a thread waits in the caller's place. It is left behind when the deadline passes,
 * and by resolver_free: nothing waits for it, and it frees what it has. There is one a name at most, whoever asks.
 *
 * Thread-safe, but for resolver_free.
 */
#ifndef BASE_RESOLVE_H
#define BASE_RESOLVE_H

#include "base/err.h"

enum { RESOLVE_ADDRESSES = 4, RESOLVE_ADDRESS_MAX = 64, RESOLVE_WHY_MAX = 96 };

struct resolved {
    char address[RESOLVE_ADDRESSES][RESOLVE_ADDRESS_MAX]; /* numeric, in the order of preference */
    unsigned n;
};

struct resolver;

struct resolver *resolver_new(void);    /* NULL: out of memory */
void resolver_free(struct resolver *r); /* NULL is allowed */
/* An address stands for itself. PFE_NOT_FOUND: there is no such name; PFE_TIMEOUT: no answer within timeout_ms;
   PFE_BUSY: 16 other names are being looked up; PFE_NOMEM: no memory or no thread. Then ret_why is a few words. */
enum pf_err resolver_ask(struct resolver *r, const char *host, unsigned timeout_ms, struct resolved *ret,
                         char ret_why[RESOLVE_WHY_MAX]) MUSTCHECK;

#endif
