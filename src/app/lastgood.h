/*
 * lastgood: the last good answers of reads, for the case that a shared store has none: neither its primary nor a
 * replica. Kept by principal and request, up to fallback.cacheTimeout; after that the default answer, if there is one,
 * and else the original error. Nothing that moves money is kept or found. Any thread.
 */
#ifndef APP_LASTGOOD_H
#define APP_LASTGOOD_H

#include "app/app.h"
#include "base/buf.h"

enum { APP_LASTGOOD_MAX = 65536 }; /* bytes of an answer; larger ones are not kept */

/* request: all that the answer depends on, besides the principal. Nothing for an embedded store, which has no part that
   could be away. */
void app_lastgood_keep(struct app *a, const struct principal *who, struct str request, struct str answer);
/* Appends to ret. false: there is none. *ret_age_us: how old it is; -1: it is the default answer. */
bool app_lastgood_get(struct app *a, const struct principal *who, struct str request, struct buf *ret,
                      int64_t *ret_age_us);
/* false: an embedded store. */
bool app_lastgood_read(struct app *a, struct fallback_figures *ret);

#endif
