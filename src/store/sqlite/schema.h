/* Migrations of the sqlite engine: texts (generated from migrations/sqlite at build time) and the runner. */
#ifndef STORE_SQLITE_SCHEMA_H
#define STORE_SQLITE_SCHEMA_H

#include "store/sqlite/internal.h"

struct sqlite_migration_text {
    int version; /* 1, 2, 3 … without gaps */
    const char *name;
    const char *up, *down;
};
extern const struct sqlite_migration_text sqlite_migration_texts[];
extern const unsigned sqlite_migration_texts_n;

enum { SQLITE_WHY = 256 }; /* size of every ret_why */

/* What the database has, against what the binary has. *ret_version: newest applied, 0: none. PFE_WRONG_STATE and a
   reason when it is newer than the binary, has a gap or an altered migration. */
enum pf_err schema_check(struct sqlite_conn *c, int *ret_version, char ret_why[SQLITE_WHY]) MUSTCHECK;
/* Up or down to a version (< 0: newest), each step in its own transaction. PFE_WRONG_STATE: also when going down would
   drop journal entries. */
enum pf_err schema_migrate(struct sqlite_conn *c, int to, char ret_why[SQLITE_WHY]) MUSTCHECK;
/* Applied and embedded migrations side by side. PFE_WRONG_STATE and a reason when the database's are newer; c->db may
 * lack the table. */
enum pf_err schema_list(struct sqlite_conn *c, struct sqlite_migration *out, unsigned cap, unsigned *ret_n,
                        char ret_why[SQLITE_WHY]) MUSTCHECK;

#endif
