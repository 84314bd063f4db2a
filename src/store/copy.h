/*
 * copy: an embedded store carried over to PostgreSQL, compared and proven.
 *
 * The embedded store is locked and proven first, and not changed. All else is one transaction of the database: rows go
 * in by COPY, are read back and compared table by table, the books are proven there as well, and only then is it
 * committed. Whatever happens before (also kill -9) leaves the database empty, with or without its schema. Memory grows
 * with the number of accounts, as that of the embedded store does, not with the journal.
 */
#ifndef STORE_COPY_H
#define STORE_COPY_H

#include "store/postgres/postgres.h"
#include "store/sqlite/sqlite.h"

enum { STORE_COPY_CURRENCIES = 200 };

struct store_copy_side {
    struct move_digest tables[MOVE_TABLES];
    struct move_ends ends;
    struct store_verify proof;
    struct store_trial trial[STORE_COPY_CURRENCIES];
    unsigned n_trial;
};

struct store_copy {
    struct store_copy_side given, found; /* of the embedded store; of PostgreSQL */
    int64_t rows, copy_us, verify_us;
    char difference[256]; /* between the two, in words; "": none. With one, nothing was kept */
};

/* *ret is all set with PFE_OK, whether or not there is a difference. Otherwise ret_why is one line fit for an operator,
   without secrets, and nothing was kept. PFE_WRONG_STATE: what somebody has to mend (the embedded store is in use or at
   another migration; the database is not empty, in use, or not to be had: see store_postgres_open). PFE_NOT_FOUND:
   there is no embedded store. PFE_INTERNAL: the answer to COMMIT was lost. PFE_UNAVAILABLE: all else; also when the
   embedded store does not verify. */
enum pf_err store_copy(const char *dir, const struct postgres_options *to, struct store_copy *ret,
                       char ret_why[256]) MUSTCHECK;

#endif
