/*
 * engines: the engines of the store port that the contract suite runs over, each opened in a place of its own.
 *
 *     struct engine_box box;
 *     engine_open(&engine_list[i], &box);   box.store is open and empty
 *     engine_reopen(&box);                  durable engines only: closed and opened again, same data
 *     engine_close(&box);                   the place is removed
 *
 * PostgreSQL is among them in programs built with TEST_POSTGRES and tests/support/pg_cluster.c: one server for the
 * program, a schema for each box.
 */
#ifndef TESTS_CONTRACT_ENGINES_H
#define TESTS_CONTRACT_ENGINES_H

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "port/store.h"
#include "store/memory/memory.h"
#include "store/sqlite/sqlite.h"
#ifdef TEST_POSTGRES
#include "store/postgres/postgres.h"
#include "support/pg_cluster.h"
#endif

struct engine {
    const char *name;
    bool durable;
    struct store *(*open)(const char *dir); /* NULL: failed */
};

struct engine_box {
    const struct engine *engine;
    struct store *store;
    char dir[64];
};

static inline struct store *engine_open_memory(const char *dir)
{
    (void)dir;
    return store_memory_open();
}

static inline struct store *engine_open_sqlite(const char *dir)
{
    struct store *s = NULL;
    char why[256] = "";
    if (store_sqlite_open(&(struct sqlite_options){.dir = dir, .mode = SQLITE_SERVE}, &s, why) != PFE_OK)
        fprintf(stderr, "store_sqlite_open: %s\n", why);
    return s;
}

#ifdef TEST_POSTGRES
static inline struct store *engine_open_postgres(const char *dir)
{
    struct store *s = NULL;
    char why[256] = "";
    const struct pg_cluster *c = pg_cluster_shared();
    const char *schema = pg_cluster_schema(c, dir);
    if (store_postgres_open(&(struct postgres_options){.url = pg_cluster_url(c), .schema = schema}, &s, why) != PFE_OK)
        fprintf(stderr, "store_postgres_open: %s\n", why);
    return s;
}
#endif

static const struct engine engine_list[] = {
    {"memory", false, engine_open_memory},
    {"sqlite", true, engine_open_sqlite},
#ifdef TEST_POSTGRES
    {"postgres", true, engine_open_postgres},
#endif
};
enum { ENGINE_COUNT = sizeof engine_list / sizeof engine_list[0] };

static inline bool engine_open(const struct engine *e, struct engine_box *ret)
{
    *ret = (struct engine_box){.engine = e, .dir = "/tmp/payflow-contract-XXXXXX"};
    if (!mkdtemp(ret->dir))
        return false;
    ret->store = e->open(ret->dir);
    return ret->store != NULL;
}

static inline bool engine_reopen(struct engine_box *b)
{
    store_close(b->store);
    b->store = b->engine->open(b->dir);
    return b->store != NULL;
}

static inline int engine_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static inline void engine_close(struct engine_box *b)
{
    store_close(b->store);
    b->store = NULL;
    nftw(b->dir, engine_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
