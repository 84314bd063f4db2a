/* Migrations of the sqlite engine, its directory and its lock. */
#include "contract/store_kit.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char why[256];

static char *fresh_dir(char out[64])
{
    strcpy(out, "/tmp/payflow-store-XXXXXX");
    assert_non_null(mkdtemp(out));
    return out;
}

static enum pf_err open_at(const char *dir, enum sqlite_mode mode, struct store **ret)
{
    return store_sqlite_open(&(struct sqlite_options){.dir = dir, .mode = mode}, ret, why);
}

static void raw(const char *dir, const char *sql)
{
    char path[128], *msg = NULL;
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/payflow.db", dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &msg) != SQLITE_OK)
        fail_msg("%s: %s", sql, msg);
    sqlite3_close(db);
}

static int tables(const char *dir)
{
    char path[128];
    sqlite3 *db;
    sqlite3_stmt *st;
    snprintf(path, sizeof path, "%s/payflow.db", dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(
            db, "SELECT count(*) FROM sqlite_schema WHERE tbl_name <> 'schema_migration' AND name NOT LIKE 'sqlite_%'",
            -1, &st, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    int n = sqlite3_column_int(st, 0);
    sqlite3_finalize(st);
    sqlite3_close(db);
    return n;
}

static void up_and_down(void **state)
{
    (void)state;
    struct sqlite_migration m[16];
    unsigned n, all;
    char dir[64];
    fresh_dir(dir);
    assert_int_equal(store_sqlite_migrations(dir, m, 16, &n, why), PFE_NOT_FOUND);
    assert_int_equal(store_sqlite_migrate(dir, 0, why), PFE_OK);
    assert_int_equal(store_sqlite_migrations(dir, m, 16, &all, why), PFE_OK);
    assert_true(all >= 2);
    for (unsigned i = 0; i < all; i++)
        assert_false(m[i].applied);
    assert_string_equal(m[0].name, "ledger");

    assert_int_equal(store_sqlite_migrate(dir, 1, why), PFE_OK);
    assert_int_equal(store_sqlite_migrations(dir, m, 16, &n, why), PFE_OK);
    assert_true(m[0].applied && m[0].intact && m[0].applied_us > 0);
    assert_false(m[1].applied);
    assert_int_equal(store_sqlite_migrate(dir, -1, why), PFE_OK);
    assert_int_equal(store_sqlite_migrate(dir, -1, why), PFE_OK); /* nothing left to do */
    assert_true(tables(dir) > 10);
    assert_int_equal(store_sqlite_migrate(dir, (int)all + 1, why), PFE_WRONG_STATE);
    assert_int_equal(store_sqlite_migrate(dir, 0, why), PFE_OK);
    assert_int_equal(tables(dir), 0);
    assert_int_equal(store_sqlite_migrate(dir, -1, why), PFE_OK);

    struct store *s;
    struct store_info i;
    assert_int_equal(open_at(dir, SQLITE_SERVE, &s), PFE_OK);
    assert_int_equal(store_info(s, &i), PFE_OK);
    assert_int_equal(i.schema, all);
    assert_int_equal(store_sqlite_migrate(dir, 0, why), PFE_WRONG_STATE); /* in use */
    store_close(s);
    kit_remove_dir(dir);
}

static void entries_are_never_dropped(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_SQLITE);
    kit_deposit(k, kit_user(k, "ann"), 1);
    store_close(k->s);
    assert_int_equal(store_sqlite_migrate(k->dir, 0, why), PFE_WRONG_STATE);
    assert_int_equal(open_at(k->dir, SQLITE_SERVE, &k->s), PFE_OK);
    kit_verify(k);
    kit_close(k);
}

static void an_altered_or_newer_schema_is_refused(void **state)
{
    (void)state;
    static const char *const changes[] = {"UPDATE schema_migration SET checksum = zeroblob(32) WHERE version = 1",
                                          "INSERT INTO schema_migration VALUES (900, 'later', zeroblob(32), 1)",
                                          "DELETE FROM schema_migration WHERE version = 1"};
    for (int i = 0; i < 3; i++) {
        char dir[64];
        struct store *s;
        struct sqlite_migration m[16];
        unsigned n;
        fresh_dir(dir);
        assert_int_equal(store_sqlite_migrate(dir, -1, why), PFE_OK);
        raw(dir, changes[i]);
        assert_int_equal(open_at(dir, SQLITE_SERVE, &s), PFE_WRONG_STATE);
        assert_true(strlen(why) > 10);
        assert_int_equal(open_at(dir, SQLITE_INSPECT, &s), PFE_WRONG_STATE);
        assert_int_equal(store_sqlite_migrate(dir, -1, why), PFE_WRONG_STATE);
        why[0] = 0;
        assert_int_equal(store_sqlite_migrations(dir, m, 16, &n, why), i == 1 ? PFE_WRONG_STATE : PFE_OK);
        assert_int_equal(strstr(why, "newer") != NULL, i == 1);
        if (i == 0)
            assert_true(m[0].applied && !m[0].intact);
        kit_remove_dir(dir);
    }
}

static void an_older_schema_is_migrated_by_serve_only(void **state)
{
    (void)state;
    char dir[64];
    struct store *s;
    fresh_dir(dir);
    assert_int_equal(store_sqlite_migrate(dir, 1, why), PFE_OK);
    assert_int_equal(open_at(dir, SQLITE_INSPECT, &s), PFE_WRONG_STATE);
    assert_int_equal(open_at(dir, SQLITE_SERVE, &s), PFE_OK);
    store_close(s);
    assert_int_equal(open_at(dir, SQLITE_INSPECT, &s), PFE_OK);
    store_close(s);
    kit_remove_dir(dir);
}

static void the_directory(void **state)
{
    (void)state;
    char parent[64], dir[80], path[128];
    struct store *s;
    struct stat st;
    fresh_dir(parent);
    snprintf(dir, sizeof dir, "%s/data", parent);
    assert_int_equal(open_at(dir, SQLITE_INSPECT, &s), PFE_NOT_FOUND);
    assert_int_equal(stat(dir, &st), -1);
    assert_int_equal(open_at(dir, SQLITE_SERVE, &s), PFE_OK);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    snprintf(path, sizeof path, "%s/payflow.db", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    struct store *second;
    assert_int_equal(open_at(dir, SQLITE_SERVE, &second), PFE_WRONG_STATE);
    assert_non_null(strstr(why, "in use"));
    pid_t child = fork();
    if (child == 0)
        _exit(open_at(dir, SQLITE_SERVE, &second) == PFE_WRONG_STATE ? 0 : 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(open_at(dir, SQLITE_INSPECT, &second), PFE_OK);
    store_close(second);
    store_close(s);
    assert_int_equal(open_at(dir, SQLITE_SERVE, &s), PFE_OK);
    store_close(s);
    kit_remove_dir(dir);

    snprintf(dir, sizeof dir, "%s/no/such", parent);
    assert_int_equal(open_at(dir, SQLITE_SERVE, &s), PFE_UNAVAILABLE);
    assert_non_null(strstr(why, "/no/such"));
    snprintf(dir, sizeof dir, "%s/file", parent);
    FILE *f = fopen(dir, "wb");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(open_at(dir, SQLITE_SERVE, &s), PFE_UNAVAILABLE);
    unlink(dir);
    rmdir(parent);
}

static void a_file_that_is_no_database(void **state)
{
    (void)state;
    char dir[64], path[128];
    struct store *s;
    fresh_dir(dir);
    snprintf(path, sizeof path, "%s/payflow.db", dir);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < 500; i++)
        fputs("this is no database ", f);
    fclose(f);
    assert_int_equal(open_at(dir, SQLITE_SERVE, &s), PFE_UNAVAILABLE);
    assert_int_not_equal(open_at(dir, SQLITE_INSPECT, &s), PFE_OK);
    kit_remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(up_and_down),
        cmocka_unit_test(entries_are_never_dropped),
        cmocka_unit_test(an_altered_or_newer_schema_is_refused),
        cmocka_unit_test(an_older_schema_is_migrated_by_serve_only),
        cmocka_unit_test(the_directory),
        cmocka_unit_test(a_file_that_is_no_database),
    };
    return cmocka_run_group_tests_name("sqlite schema", tests, NULL, NULL);
}
