/* Migrations of the postgres engine: texts (generated from migrations/postgres at build time) and the runner. */
#ifndef STORE_POSTGRES_SCHEMA_H
#define STORE_POSTGRES_SCHEMA_H

#include "store/postgres/internal.h"

struct postgres_migration_text {
    int version; /* 1, 2, 3 … without gaps */
    const char *name;
    const char *up, *down;
};
extern const struct postgres_migration_text postgres_migration_texts[];
extern const unsigned postgres_migration_texts_n;

/* What the database has, against what the binary has. *ret_version: newest applied, 0: none. PFE_WRONG_STATE and a
   reason when it is newer than the binary, has a gap or an altered migration. */
enum pf_err pg_schema_check(struct pg_conn *c, int *ret_version, char ret_why[PG_WHY]) MUSTCHECK;
/* Up or down to a version (< 0: newest), all steps in one transaction, of which there is one at a time in a schema.
   PFE_WRONG_STATE: also when going down would drop journal entries. */
enum pf_err pg_schema_migrate(struct pg_conn *c, int to, char ret_why[PG_WHY]) MUSTCHECK;
/* Applied and embedded migrations side by side. PFE_WRONG_STATE and a reason when the database's are newer; the
 * database may lack the table. */
enum pf_err pg_schema_list(struct pg_conn *c, struct postgres_migration *out, unsigned cap, unsigned *ret_n,
                           char ret_why[PG_WHY]) MUSTCHECK;

#endif
