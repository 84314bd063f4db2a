/*
 * lease: the leases of an embedded store (port/store.h says what they are). One process has the store, so they are kept
 * in memory and run out by its monotonic clock. A lease under which a group or transaction is under way is pinned: it
 * stays where it is until that ends.
 *
 * Thread-safe, but for the functions of groups: those belong to the groups' thread.
 */
#ifndef STORE_BOOK_LEASE_H
#define STORE_BOOK_LEASE_H

#include <pthread.h>

#include "port/store.h"

struct lease_row {
    char name[STORE_LEASE_NAME_MAX + 1];
    char holder[STORE_LEASE_HOLDER_MAX + 1];
    int64_t token, until_us;
    unsigned pins;
};

struct lease_book {
    pthread_mutex_t lock;
    struct lease_row rows[STORE_LEASES_MAX];
    unsigned n;
    struct store_fence *fences; /* of the group under way; the groups' thread's */
    size_t n_fences;
};

void lease_book_init(struct lease_book *b);
void lease_book_fini(struct lease_book *b);

/* As store_lease_take and store_lease_drop. PFE_BUSY: there are STORE_LEASES_MAX others. */
enum pf_err lease_book_take(struct lease_book *b, struct str name, struct str holder, int64_t ttl_us,
                            struct store_lease *ret) MUSTCHECK;
enum pf_err lease_book_drop(struct lease_book *b, struct str name, struct str holder) MUSTCHECK;

/* As store_tx_fence. *pin: NULL before; for lease_book_unpin when the transaction has ended. */
enum pf_err lease_book_pin(struct lease_book *b, const struct store_fence *f, struct lease_row **pin) MUSTCHECK;
void lease_book_unpin(struct lease_book *b, struct lease_row *pin); /* NULL is allowed */

/* The fences of a group that has begun, borrowed until it has ended: sets their ok. */
void lease_book_group_begin(struct lease_book *b, struct store_fence *fences, size_t n);
void lease_book_group_end(struct lease_book *b);

#endif
