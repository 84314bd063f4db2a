/*
 * fallback: what to answer when a call has failed: its last good value up to cache_timeout_us old, then the default
 * answer, then nothing (the caller gives the original error).
 *
 * Values are kept by principal and request, compared byte for byte: nobody is answered with what another was given. The
 * request must hold all that the answer depends on (method, path, query). Bounded in entries and bytes; the least
 * recently used gives way. A movement of money is never answered from here: FALLBACK_MONEY keeps and finds nothing.
 *
 * Times are microseconds of a monotonic clock. Thread-safe: a mutex inside, held for a copy of the value.
 */
#ifndef RESILIENCE_FALLBACK_H
#define RESILIENCE_FALLBACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

enum fallback_use { FALLBACK_READ, FALLBACK_MONEY };

enum fallback_source {
    FALLBACK_NONE,    /* the original error */
    FALLBACK_STALE,   /* the last good value: to be marked as stale, with its age */
    FALLBACK_DEFAULT, /* the default answer */
};

struct fallback_config {
    bool should_cache;           /* false: keeps nothing */
    int64_t cache_timeout_us;    /* 0..30 days: the oldest that is still given */
    struct str default_response; /* copied; .p == NULL: none */
    unsigned max_entries;        /* 1..1000000 */
    size_t max_bytes;            /* 1..2^40: values, keys, and FALLBACK_OVERHEAD each */
};

enum { FALLBACK_OVERHEAD = 128 };

struct fallback_figures {
    unsigned entries;
    size_t bytes;
    uint64_t kept, evicted, refused; /* refused: larger than the bound, no memory, or a movement of money */
    uint64_t stale, defaults, none;  /* answers */
};

struct fallback;

/* Keeps values, 10 min, no default answer, 10,000 entries, 16 MiB. */
struct fallback_config fallback_defaults(void);
/* NULL if all is in range, else one line that names the setting at fault; static. */
const char *fallback_fault(const struct fallback_config *c);
/* NULL: out of memory, or fallback_fault has something to say. */
struct fallback *fallback_new(const struct fallback_config *c);
void fallback_free(struct fallback *f); /* NULL is allowed */

/* After a call that went well. false: not kept (see `refused`, or should_cache is off); an older value of the key is
 * gone then, unless it was a movement of money. */
bool fallback_keep(struct fallback *f, enum fallback_use use, struct str principal, struct str request,
                   struct str value, int64_t now_us);
/* After a call that failed: appends the answer to `ret`, which may fail by its own rules (ret->failed). *ret_age_us is
 * how old a stale one is, 0 for others. */
enum fallback_source fallback_get(struct fallback *f, enum fallback_use use, struct str principal, struct str request,
                                  int64_t now_us, struct buf *ret, int64_t *ret_age_us);
/* The value is known to be gone, or no longer the principal's to see. */
void fallback_forget(struct fallback *f, struct str principal, struct str request);
void fallback_read(struct fallback *f, struct fallback_figures *ret);

#endif
