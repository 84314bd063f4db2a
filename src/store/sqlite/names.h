/*
 * names: a filter of all usernames in their folded form: tells at once, and without the disk, that nobody has a name. A
 * name once added stays in it, though its user may have taken another: then it only says "perhaps". A million names
 * leave two in a hundred others at "perhaps".
 *
 * Thread-safe. names_add before the commit that makes the name somebody's.
 */
#ifndef STORE_SQLITE_NAMES_H
#define STORE_SQLITE_NAMES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum { NAMES_BITS = 1 << 23 };

struct names {
    _Atomic uint64_t *bits; /* NAMES_BITS of them; NULL: there is no memory, and everything is "perhaps" */
};

void names_init(struct names *n);
void names_free(struct names *n);
void names_add(struct names *n, struct str folded);
bool names_lack(const struct names *n, struct str folded); /* true: it was never added */

#endif
