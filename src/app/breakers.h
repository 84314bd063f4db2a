/*
 * breakers: the circuit breakers of the process, and three services that exist to try one out: one always succeeds, one
 * always fails, one never answers in time. Any thread.
 */
#ifndef APP_BREAKERS_H
#define APP_BREAKERS_H

#include "app/app.h"
#include "resilience/breaker.h"

enum app_trial { TRIAL_SUCCESS, TRIAL_FAILURE, TRIAL_TIMEOUT, TRIALS };

/* The service's name, also its breaker's. */
const char *app_trial_name(enum app_trial t);
/* PFE_OK: it answered. PFE_INTERNAL: it failed. PFE_TIMEOUT: it did not answer (waits APP_TRIAL_US for it: blocking).
 * PFE_BREAKER_OPEN: it was not asked, or this call's failure has opened the breaker. PFE_NOT_FOUND: ENV=prod has none.
 * Two failures in a row open a breaker; ten seconds later one call is let through. */
enum { APP_TRIAL_US = 100000 };
enum pf_err app_trial_call(struct app *a, enum app_trial t) MUSTCHECK;

/* Of the i-th breaker: those services', then a shared store's ("database", "replica-1" …) and a shared cache's
   ("redis"); false: there are no more. */
enum { APP_BREAKER_NAME_MAX = 64 };
bool app_breaker_read(struct app *a, unsigned i, char ret_name[APP_BREAKER_NAME_MAX], struct breaker_figures *ret);

#endif
