#include "store/sqlite/schema.h"

#include <stdio.h>

#include "base/clock.h"

static void checksum(const struct sqlite_migration_text *m, uint8_t out[SHA256_LEN])
{
    sha256_of(str_c(m->up), out);
}

static enum pf_err has_table(struct sqlite_conn *c, bool *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_migration'");
    bool found = sqlite_q_next(&q);
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret = found;
    return e;
}

static enum pf_err newer(int64_t version, char ret_why[SQLITE_WHY])
{
    snprintf(ret_why, SQLITE_WHY, "the database has migration %lld, this program knows %u: it is newer",
             (long long)version, sqlite_migration_texts_n);
    return PFE_WRONG_STATE;
}

enum pf_err schema_list(struct sqlite_conn *c, struct sqlite_migration *out, unsigned cap, unsigned *ret_n,
                        char ret_why[SQLITE_WHY])
{
    unsigned n = sqlite_migration_texts_n < cap ? sqlite_migration_texts_n : cap;
    for (unsigned i = 0; i < n; i++)
        out[i] = (struct sqlite_migration){.version = sqlite_migration_texts[i].version,
                                           .name = sqlite_migration_texts[i].name};
    *ret_n = n;
    bool there;
    enum pf_err e = has_table(c, &there);
    enum pf_err bad = PFE_OK;
    if (e || !there)
        return e;
    struct sqlite_q q;
    sqlite_q_begin(&q, c, "SELECT version, checksum, applied_us FROM schema_migration ORDER BY version");
    while (sqlite_q_next(&q)) {
        int64_t v = sqlite_col_i64(&q, 0);
        if (v > sqlite_migration_texts_n)
            bad = newer(v, ret_why);
        if (v < 1 || v > n)
            continue;
        uint8_t applied[SHA256_LEN], embedded[SHA256_LEN];
        sqlite_col_blob(&q, 1, applied, sizeof applied);
        checksum(&sqlite_migration_texts[v - 1], embedded);
        out[v - 1].applied = true;
        out[v - 1].intact = memcmp(applied, embedded, sizeof applied) == 0;
        out[v - 1].applied_us = sqlite_col_i64(&q, 2);
    }
    e = sqlite_q_end(&q);
    return e ? e : bad;
}

enum pf_err schema_check(struct sqlite_conn *c, int *ret_version, char ret_why[SQLITE_WHY])
{
    bool there;
    enum pf_err e = has_table(c, &there);
    int version = 0;
    if (e == PFE_OK && there) {
        struct sqlite_q q;
        sqlite_q_begin(&q, c, "SELECT version, checksum FROM schema_migration ORDER BY version");
        while (e == PFE_OK && sqlite_q_next(&q)) {
            int64_t v = sqlite_col_i64(&q, 0);
            uint8_t applied[SHA256_LEN], embedded[SHA256_LEN];
            sqlite_col_blob(&q, 1, applied, sizeof applied);
            if (v == version + 1 && v <= sqlite_migration_texts_n) {
                checksum(&sqlite_migration_texts[v - 1], embedded);
                version++;
                if (memcmp(applied, embedded, sizeof applied) == 0)
                    continue;
            }
            e = PFE_WRONG_STATE;
            if (v > sqlite_migration_texts_n)
                (void)newer(v, ret_why);
            else
                snprintf(ret_why, SQLITE_WHY, "migration %lld in the database is not the one of this program",
                         (long long)v);
        }
        enum pf_err end = sqlite_q_end(&q);
        if (e == PFE_OK)
            e = end;
    }
    if (e == PFE_OK)
        *ret_version = version;
    else if (e != PFE_WRONG_STATE)
        snprintf(ret_why, SQLITE_WHY, "cannot read the database: %s", sqlite3_errmsg(c->db));
    return e;
}

static enum pf_err record(struct sqlite_conn *c, const struct sqlite_migration_text *m, bool up)
{
    struct sqlite_q q;
    uint8_t sum[SHA256_LEN];
    checksum(m, sum);
    if (up) {
        sqlite_q_begin(&q, c,
                       "INSERT INTO schema_migration (version, name, checksum, applied_us) VALUES (?1, ?2, ?3, ?4)");
        sqlite_q_i64(&q, m->version);
        sqlite_q_str(&q, str_c(m->name));
        sqlite_q_blob(&q, sum, sizeof sum);
        sqlite_q_i64(&q, clock_wall(clock_system()));
    } else {
        sqlite_q_begin(&q, c, "DELETE FROM schema_migration WHERE version = ?1");
        sqlite_q_i64(&q, m->version);
    }
    return sqlite_q_run(&q);
}

static enum pf_err apply(struct sqlite_conn *c, const struct sqlite_migration_text *m, bool up,
                         char ret_why[SQLITE_WHY])
{
    enum pf_err e = sqlite_exec(c, sqlite_begin_write);
    if (e == PFE_OK)
        e = sqlite_err(c->db, sqlite3_exec(c->db, up ? m->up : m->down, NULL, NULL, NULL));
    if (e == PFE_OK)
        e = record(c, m, up);
    if (e == PFE_OK)
        e = sqlite_exec(c, sqlite_commit);
    if (e) {
        snprintf(ret_why, SQLITE_WHY, "migration %d_%s %s: %s", m->version, m->name, up ? "up" : "down",
                 sqlite3_errmsg(c->db));
        sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL); /* or its end does */
    }
    return e;
}

static enum pf_err any_row(struct sqlite_conn *c, const char *sql, bool *ret)
{
    struct sqlite_q q;
    sqlite_q_begin(&q, c, sql);
    bool any = sqlite_q_next(&q);
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret = any;
    return e;
}

/*
 * Going down drops tables. What was recorded in them may not be lost; and user numbers, which accounts refer to, would
 * be given out anew. PFE_WRONG_STATE if there is any of it.
 */
static enum pf_err may_go_down(struct sqlite_conn *c, int version, int to, char ret_why[SQLITE_WHY])
{
    static const struct {
        int made_by; /* the migration whose down would drop the table */
        const char *what, *sql;
    } kept[] = {{1, "the journal has entries", "SELECT 1 FROM journal LIMIT 1"},
                {2, "there are users", "SELECT 1 FROM user LIMIT 1"},
                {2, "the audit log has rows", "SELECT 1 FROM audit LIMIT 1"},
                {3, "there are events", "SELECT 1 FROM event LIMIT 1"},
                {3, "there are messages to deliver", "SELECT 1 FROM outbox LIMIT 1"},
                {3, "there are notes of messages dealt with", "SELECT 1 FROM inbox LIMIT 1"},
                {4, "there are event documents", "SELECT 1 FROM event_document LIMIT 1"}};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        bool any = false;
        if (version < kept[i].made_by || to >= kept[i].made_by)
            continue;
        enum pf_err e = any_row(c, kept[i].sql, &any);
        if (e) {
            snprintf(ret_why, SQLITE_WHY, "cannot read the database: %s", sqlite3_errmsg(c->db));
            return e;
        }
        if (any) {
            snprintf(ret_why, SQLITE_WHY, "%s: going below version %d would drop them", kept[i].what, kept[i].made_by);
            return PFE_WRONG_STATE;
        }
    }
    return PFE_OK;
}

enum pf_err schema_migrate(struct sqlite_conn *c, int to, char ret_why[SQLITE_WHY])
{
    int version;
    enum pf_err e = schema_check(c, &version, ret_why);
    if (to < 0)
        to = (int)sqlite_migration_texts_n;
    if (e == PFE_OK && to > (int)sqlite_migration_texts_n) {
        snprintf(ret_why, SQLITE_WHY, "there is no migration %d", to);
        return PFE_WRONG_STATE;
    }
    if (e == PFE_OK && version == 0 && to > 0) {
        e = sqlite_exec(c,
                        "CREATE TABLE IF NOT EXISTS schema_migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL,"
                        " checksum BLOB NOT NULL, applied_us INTEGER NOT NULL) STRICT");
        if (e)
            snprintf(ret_why, SQLITE_WHY, "cannot write the database: %s", sqlite3_errmsg(c->db));
    }
    if (e == PFE_OK)
        e = may_go_down(c, version, to, ret_why);
    for (; e == PFE_OK && version < to; version++)
        e = apply(c, &sqlite_migration_texts[version], true, ret_why);
    for (; e == PFE_OK && version > to; version--)
        e = apply(c, &sqlite_migration_texts[version - 1], false, ret_why);
    return e;
}
