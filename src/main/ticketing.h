/*
 * What ticketing needs besides the store and the app. Order: open before app_new, which takes the documents and the
 * bus; start when the lease keeper runs; stop before that ends; close when the app's writer has ended, so that nothing
 * is unsettled, and before the store closes.
 */
#ifndef MAIN_TICKETING_H
#define MAIN_TICKETING_H

#include "app/app.h"
#include "main/main.h"

struct ticketing;

/* What the duties need of it. *ret is to be closed whatever comes of it, unless it stays NULL. On failure one line in
   why (perhaps untouched when out of memory). PFE_WRONG_STATE: a setting; the others as the engines say. */
enum pf_err main_ticketing_open(const struct conf *c, const struct duties *d, struct store *s, struct metrics *m,
                                struct ticketing **ret, char why[256]) MUSTCHECK;
struct documents *main_ticketing_documents(const struct ticketing *t);   /* NULL: none is needed */
struct bus *main_ticketing_bus(const struct ticketing *t);               /* the same */
bool main_ticketing_start(struct ticketing *t, struct app *a) MUSTCHECK; /* false: no memory or threads */
void main_ticketing_stop(struct ticketing *t);                           /* NULL is allowed, and twice */
void main_ticketing_close(struct ticketing *t);                          /* NULL is allowed */

#endif
