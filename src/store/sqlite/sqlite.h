/*
 * sqlite: the store port on an embedded SQLite database, DIR/payflow.db.
 *
 * One connection writes and checkpoints (SQLite before 3.51.3 can corrupt a WAL that two connections write or
 * checkpoint at once); each reading thread has its own read-only connection. Accounts live in memory (store/book) and
 * are written behind the journal: start-up loads them and replays the tail. WAL, synchronous=FULL, small inline
 * checkpoints.
 */
#ifndef STORE_SQLITE_H
#define STORE_SQLITE_H

#include "port/store.h"
#include "store/move.h"
#include "telemetry/metrics.h"

enum sqlite_mode {
    SQLITE_SERVE,  /* locks DIR against a second process (DIR/lock), creates what is missing, migrates up */
    SQLITE_INSPECT /* reads only, no lock, no migration; may run beside a server. Every write returns PFE_UNAVAILABLE.
                    */
};

struct sqlite_options {
    const char *dir; /* borrowed for the call */
    enum sqlite_mode mode;
    /* entries between write-behinds of accounts; 0: the default, 65536. Bounds the replay at start. */
    int64_t flush_entries;
    struct metrics *metrics; /* borrowed for the store's life; NULL: none */
};

/* On failure *ret_why (256 bytes) is one line fit for an operator. PFE_WRONG_STATE: locked by another process, or a
   schema that is newer, older (INSPECT) or altered; PFE_NOT_FOUND: nothing there (INSPECT); PFE_UNAVAILABLE,
   PFE_DISK_FULL. */
enum pf_err store_sqlite_open(const struct sqlite_options *o, struct store **ret, char ret_why[256]) MUSTCHECK;

/* Migrations, embedded in the binary. */
struct sqlite_migration {
    int version;
    const char *name;
    bool applied, intact; /* intact: the applied text has the checksum of the embedded one */
    int64_t applied_us;
};
/* PFE_WRONG_STATE: the database has one that is newer than all that this program knows. */
enum pf_err store_sqlite_migrations(const char *dir, struct sqlite_migration *out, unsigned cap, unsigned *ret_n,
                                    char ret_why[256]) MUSTCHECK;
/* to < 0: all the way up. Going down past a version that would drop what was recorded (journal, users, audit, events,
   their documents, messages) is refused (PFE_WRONG_STATE). */
enum pf_err store_sqlite_migrate(const char *dir, int to, char ret_why[256]) MUSTCHECK;

/* Online copy into a new file (it must not exist), consistent, fsynced. Runs beside a server. */
enum pf_err store_sqlite_backup(const char *dir, const char *file, char ret_why[256]) MUSTCHECK;
/* Copies a backup file into an empty or new directory, fsynced; verify: prove the copy first (as store_verify) and
   put nothing in place when it fails. */
enum pf_err store_sqlite_restore(const char *file, const char *dir, bool verify, struct store_verify *ret,
                                 char ret_why[256]) MUSTCHECK;
/* Overwrites the stored projections (accounts, marks, resolutions, statistics) with what the journal says. Offline:
 * takes the lock. */
enum pf_err store_sqlite_rebuild(const char *dir, int64_t *ret_entries, char ret_why[256]) MUSTCHECK;

/* ---- carrying everything to another engine (store/move.h) ---- */

struct sqlite_source;
/* Takes DIR's lock, so that no server runs meanwhile, and proves the books as store_verify does; from then on one
   snapshot is read, by the calling thread only. Nothing of the database is changed. PFE_WRONG_STATE: in use, or at
   another migration. PFE_UNAVAILABLE: among others, it does not verify (*ret_verify says where). */
enum pf_err store_sqlite_source_open(const char *dir, struct sqlite_source **ret, struct store_verify *ret_verify,
                                     char ret_why[256]) MUSTCHECK;
void store_sqlite_source_close(struct sqlite_source *f); /* NULL is allowed */
enum pf_err store_sqlite_source_ends(struct sqlite_source *f, struct move_ends *ret, char ret_why[256]) MUSTCHECK;
enum pf_err store_sqlite_source_trial(struct sqlite_source *f, struct store_trial *out, unsigned cap,
                                      unsigned *ret_n) MUSTCHECK;
/* Calls fn for each row. ret_why is set unless the error is fn's own. */
enum pf_err store_sqlite_source_rows(struct sqlite_source *f, enum move_table_id table, move_row_fn fn, void *ctx,
                                     char ret_why[256]) MUSTCHECK;

#endif
