/*
 * guard: a documents port before another whose server may hang (documents/mongo). A call there can take seconds to
 * fail, on a worker that serves the money surface too; so a circuit breaker (resilience/breaker.h) stands before it:
 * window of 10 calls, judged from 4, open at half of them for 5 s, then one call decides. Only PFE_UNAVAILABLE counts
 * as a failure. While it is open every call is PFE_UNAVAILABLE at once, and nothing was done.
 *
 * documents_probe does not ask the server: it is what the last documents_guard_look found, whatever that waited for.
 */
#ifndef DOCUMENTS_GUARD_H
#define DOCUMENTS_GUARD_H

#include "base/clock.h"
#include "port/documents.h"

/* How often to look, µs. */
enum { DOCUMENTS_GUARD_LOOK_US = 2000000 };

/* Takes inner, which answered just now: documents_close closes both. clock is borrowed. NULL: out of memory, and inner
   is still the caller's. */
struct documents *documents_guard_new(struct documents *inner, const struct clock *clock);
/* Asks the server and keeps what it says; may take as long as a call does. A success closes a breaker whose time has
   come, so nobody's request has to try. One thread. Returns how long to wait before the next. ctx: what
   documents_guard_new returned; the form is that of a ticker's step. */
int64_t documents_guard_look(void *ctx);

#endif
