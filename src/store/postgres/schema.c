#include "store/postgres/schema.h"

#include <stdio.h>

#include "base/clock.h"

enum { MIGRATE_MS = 30 * 60 * 1000 }; /* an index on a large table takes its time */

static const char has_table[] = "SELECT to_regclass('schema_migration') IS NOT NULL",
                  applied_list[] = "SELECT version, checksum, applied_us FROM schema_migration ORDER BY version";

static void checksum(const struct postgres_migration_text *m, uint8_t out[SHA256_LEN])
{
    sha256_of(str_c(m->up), out);
}

static enum pf_err one_bool(struct pg_conn *c, const char *sql, bool *ret)
{
    struct pg_q q;
    pg_q_begin(&q, c, sql);
    bool v = pg_q_next(&q) && pg_col_bool(&q, 0);
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret = v;
    return e;
}

static enum pf_err newer(int64_t version, char ret_why[PG_WHY])
{
    snprintf(ret_why, PG_WHY, "the database has migration %lld, this program knows %u: it is newer", (long long)version,
             postgres_migration_texts_n);
    return PFE_WRONG_STATE;
}

enum pf_err pg_schema_list(struct pg_conn *c, struct postgres_migration *out, unsigned cap, unsigned *ret_n,
                           char ret_why[PG_WHY])
{
    unsigned n = postgres_migration_texts_n < cap ? postgres_migration_texts_n : cap;
    for (unsigned i = 0; i < n; i++)
        out[i] = (struct postgres_migration){.version = postgres_migration_texts[i].version,
                                             .name = postgres_migration_texts[i].name};
    *ret_n = n;
    bool there = false;
    enum pf_err e = one_bool(c, has_table, &there);
    enum pf_err bad = PFE_OK;
    if (e || !there)
        return e;
    struct pg_q q;
    pg_q_begin(&q, c, applied_list);
    while (pg_q_next(&q)) {
        int64_t v = pg_col_i64(&q, 0);
        if (v > postgres_migration_texts_n)
            bad = newer(v, ret_why);
        if (v < 1 || v > n)
            continue;
        uint8_t applied[SHA256_LEN], embedded[SHA256_LEN];
        pg_col_blob(&q, 1, applied, sizeof applied);
        checksum(&postgres_migration_texts[v - 1], embedded);
        out[v - 1].applied = true;
        out[v - 1].intact = memcmp(applied, embedded, sizeof applied) == 0;
        out[v - 1].applied_us = pg_col_i64(&q, 2);
    }
    e = pg_q_end(&q);
    return e ? e : bad;
}

static bool same(const struct pg_q *q, int64_t version)
{
    uint8_t applied[SHA256_LEN], embedded[SHA256_LEN];
    pg_col_blob(q, 1, applied, sizeof applied);
    checksum(&postgres_migration_texts[version - 1], embedded);
    return memcmp(applied, embedded, sizeof applied) == 0;
}

enum pf_err pg_schema_check(struct pg_conn *c, int *ret_version, char ret_why[PG_WHY])
{
    struct pg_q q;
    bool there = false;
    int version = 0;
    enum pf_err bad = PFE_OK, e = one_bool(c, has_table, &there);
    if (e == PFE_OK && there) {
        pg_q_begin(&q, c, applied_list);
        while (bad == PFE_OK && pg_q_next(&q)) {
            int64_t v = pg_col_i64(&q, 0);
            if (v == version + 1 && v <= postgres_migration_texts_n && same(&q, v)) {
                version++;
                continue;
            }
            bad = PFE_WRONG_STATE;
            if (v > postgres_migration_texts_n)
                (void)newer(v, ret_why);
            else
                snprintf(ret_why, PG_WHY, "migration %lld in the database is not the one of this program",
                         (long long)v);
        }
        e = pg_q_end(&q);
    }
    if (e) {
        snprintf(ret_why, PG_WHY, "cannot read the database: %.200s", c->why);
        return e;
    }
    if (bad == PFE_OK)
        *ret_version = version;
    return bad;
}

static enum pf_err record(struct pg_conn *c, const struct postgres_migration_text *m, bool up)
{
    struct pg_q q;
    uint8_t sum[SHA256_LEN];
    checksum(m, sum);
    if (up) {
        pg_q_begin(&q, c, "INSERT INTO schema_migration (version, name, checksum, applied_us) VALUES ($1, $2, $3, $4)");
        pg_q_i64(&q, m->version);
        pg_q_str(&q, str_c(m->name));
        pg_q_blob(&q, sum, sizeof sum);
        pg_q_i64(&q, clock_wall(clock_system()));
    } else {
        pg_q_begin(&q, c, "DELETE FROM schema_migration WHERE version = $1");
        pg_q_i64(&q, m->version);
    }
    return pg_q_run(&q);
}

static enum pf_err apply(struct pg_conn *c, const struct postgres_migration_text *m, bool up, char ret_why[PG_WHY])
{
    enum pf_err e = pg_script(c, up ? m->up : m->down);
    if (e == PFE_OK)
        e = record(c, m, up);
    if (e)
        snprintf(ret_why, PG_WHY, "migration %d_%s %s: %.180s", m->version, m->name, up ? "up" : "down", c->why);
    return e;
}

/*
 * Going down drops tables. What was recorded in them may not be lost; and user numbers, which accounts refer to, would
 * be given out anew. PFE_WRONG_STATE if there is any of it. Nobody else adds any until this transaction ends.
 */
static enum pf_err may_go_down(struct pg_conn *c, int version, int to, char ret_why[PG_WHY])
{
    static const struct {
        int made_by; /* the migration whose down would drop the table */
        const char *what, *lock, *any;
    } kept[] = {
        {1, "the journal has entries", "LOCK TABLE journal", "SELECT EXISTS (SELECT 1 FROM journal)"},
        {2, "there are users", "LOCK TABLE users", "SELECT EXISTS (SELECT 1 FROM users)"},
        {2, "the audit log has rows", "LOCK TABLE audit", "SELECT EXISTS (SELECT 1 FROM audit)"},
        {3, "there are events", "LOCK TABLE event", "SELECT EXISTS (SELECT 1 FROM event)"},
        {3, "there are messages to deliver", "LOCK TABLE outbox", "SELECT EXISTS (SELECT 1 FROM outbox)"},
        {3, "there are notes of messages dealt with", "LOCK TABLE inbox", "SELECT EXISTS (SELECT 1 FROM inbox)"},
        {4, "there are event documents", "LOCK TABLE event_document", "SELECT EXISTS (SELECT 1 FROM event_document)"}};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        bool any = false;
        if (version < kept[i].made_by || to >= kept[i].made_by)
            continue;
        enum pf_err e = pg_exec(c, kept[i].lock);
        if (e == PFE_OK)
            e = one_bool(c, kept[i].any, &any);
        if (e) {
            snprintf(ret_why, PG_WHY, "cannot read the database: %.200s", c->why);
            return e;
        }
        if (any) {
            snprintf(ret_why, PG_WHY, "%s: going below version %d would drop them", kept[i].what, kept[i].made_by);
            return PFE_WRONG_STATE;
        }
    }
    return PFE_OK;
}

/* The lock's number: any that no other program takes; with the schema's, as schemas of one database are apart. */
static const char *const prelude[] = {
    pg_begin, "SET LOCAL statement_timeout = 0", "SET LOCAL lock_timeout = '60s'",
    "SELECT pg_advisory_xact_lock(x'50617946'::int, hashtext(current_schema()))",
    "CREATE TABLE IF NOT EXISTS schema_migration (version bigint PRIMARY KEY, name text NOT NULL,"
    " checksum bytea NOT NULL, applied_us bigint NOT NULL)"};

enum pf_err pg_schema_migrate(struct pg_conn *c, int to, char ret_why[PG_WHY])
{
    int version;
    enum pf_err e = pg_schema_check(c, &version, ret_why);
    if (to < 0)
        to = (int)postgres_migration_texts_n;
    if (e == PFE_OK && to > (int)postgres_migration_texts_n) {
        snprintf(ret_why, PG_WHY, "there is no migration %d", to);
        return PFE_WRONG_STATE;
    }
    if (e || version == to)
        return e;

    c->timeout_ms = MIGRATE_MS;
    for (size_t i = 0; i < sizeof prelude / sizeof *prelude && e == PFE_OK; i++)
        e = pg_exec(c, prelude[i]);
    if (e)
        snprintf(ret_why, PG_WHY, "cannot migrate the database: %.200s", c->why);
    if (e == PFE_OK) /* somebody else may have done it meanwhile */
        e = pg_schema_check(c, &version, ret_why);
    if (e == PFE_OK)
        e = may_go_down(c, version, to, ret_why);
    for (; e == PFE_OK && version < to; version++)
        e = apply(c, &postgres_migration_texts[version], true, ret_why);
    for (; e == PFE_OK && version > to; version--)
        e = apply(c, &postgres_migration_texts[version - 1], false, ret_why);
    if (e == PFE_OK) {
        e = pg_commit(c);
        if (e)
            snprintf(ret_why, PG_WHY, "cannot migrate the database: %.200s", c->why);
    }
    /* Refused, such as for want of rights: somebody has to mend it. */
    if (e == PFE_UNAVAILABLE && !c->broken)
        e = PFE_WRONG_STATE;
    pg_abandon(c);
    c->timeout_ms = c->store->timeout_ms;
    return e;
}
