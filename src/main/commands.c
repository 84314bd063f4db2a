/* The commands that are not `serve`. */
#include "main/main.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "cache/local/local.h"
#include "cli/cli.h"
#include "codec/json_out.h"
#include "store/sqlite/sqlite.h"

static int complain(enum pf_err e, const char *why)
{
    fprintf(stderr, "payflow: %s\n", why);
    return e == PFE_WRONG_STATE ? EXIT_CONF : EXIT_FAILED;
}

static struct store *open_store(const struct conf *c, bool inspect, int *ret_code)
{
    struct store *s = NULL;
    char why[256] = "";
    enum pf_err e = main_store_open(c, inspect, NULL, &s, why);
    if (e == PFE_OK)
        return s;
    *ret_code = complain(e, why);
    return NULL;
}

int run_verify(const struct conf *c, const struct options *o)
{
    int code;
    struct store *s = open_store(c, true, &code);
    if (!s)
        return code;
    code = cli_verify(s, o->json);
    store_close(s);
    return code;
}

int run_replay(const struct conf *c, const struct options *o)
{
    int code;
    char why[256];
    if (o->write) {
        int64_t n = 0;
        enum pf_err e = main_store_rebuild(c, &n, why);
        if (e != PFE_OK)
            return complain(e, why);
        fprintf(stderr, "projections rewritten from %lld entries\n", (long long)n);
    }
    struct store *s = open_store(c, true, &code);
    if (!s)
        return code;
    code = cli_replay(s, o->json);
    store_close(s);
    return code;
}

int run_journal_export(const struct conf *c, const struct options *o)
{
    int code;
    struct store *s = open_store(c, true, &code);
    if (!s)
        return code;
    code = cli_export(s, o->csv, o->after_seq);
    store_close(s);
    return code;
}

/* Of a file; a server has tools of its own. */
static bool embedded(const struct conf *c)
{
    if (c->postgres)
        fprintf(stderr, "payflow: backup and restore are for the embedded store; use pg_basebackup or pg_dump\n");
    return !c->postgres;
}

int run_backup(const struct conf *c, const struct options *o)
{
    char why[256];
    if (!embedded(c))
        return EXIT_USAGE;
    enum pf_err e = store_sqlite_backup(c->store_dir, o->words[0], why);
    if (e != PFE_OK)
        return complain(PFE_UNAVAILABLE, why);
    printf(o->json ? "{\"ok\":true}\n" : "backup written\n");
    return EXIT_OK;
}

int run_restore(const struct conf *c, const struct options *o)
{
    char why[256] = "";
    struct store_verify v = {0};
    if (!embedded(c))
        return EXIT_USAGE;
    enum pf_err e = store_sqlite_restore(o->words[0], c->store_dir, o->verify, &v, why);
    if (o->verify && (e == PFE_OK || v.what[0]))
        cli_print_verify(&v, o->json);
    if (e != PFE_OK)
        return complain(PFE_UNAVAILABLE, why);
    if (!o->json)
        puts("restored");
    else if (!o->verify)
        puts("{\"ok\":true}");
    return EXIT_OK;
}

static int migrate_status(const struct conf *c, bool json)
{
    struct main_migration m[MAIN_MIGRATIONS_MAX];
    unsigned n = 0;
    char why[256];
    enum pf_err e = main_store_migrations(c, m, &n, why);
    if (e != PFE_OK)
        return complain(e, why);
    struct buf b;
    struct jw w;
    bool intact = true;
    buf_init(&b, 0);
    jw_init(&w, &b);
    if (json)
        jw_arr(&w);
    for (unsigned i = 0; i < n; i++) {
        intact &= !m[i].applied || m[i].intact;
        if (!json) {
            buf_printf(&b, "%04d %-20s %s\n", m[i].version, m[i].name,
                       !m[i].applied ? "pending"
                       : m[i].intact ? "applied"
                                     : "applied, but ALTERED since");
            continue;
        }
        jw_obj(&w);
        jw_kint(&w, "version", m[i].version);
        jw_kz(&w, "name", m[i].name);
        jw_kbool(&w, "applied", m[i].applied);
        jw_kbool(&w, "intact", m[i].intact);
        m[i].applied ? jw_ktime(&w, "applied_at", m[i].applied_us) : jw_knull(&w, "applied_at");
        jw_end_obj(&w);
    }
    if (json) {
        jw_end_arr(&w);
        buf_putc(&b, '\n');
    }
    bool ok = cli_flush(&b);
    buf_free(&b);
    return ok && intact ? EXIT_OK : EXIT_FAILED;
}

int run_migrate(const struct conf *c, const struct options *o)
{
    char why[256];
    struct main_migration m[MAIN_MIGRATIONS_MAX];
    unsigned n = 0;
    bool down = strcmp(o->words[0], "down") == 0;
    if (strcmp(o->words[0], "status") == 0)
        return migrate_status(c, o->json);
    if (!down && strcmp(o->words[0], "up") != 0) {
        fprintf(stderr, "payflow: migrate takes up, down or status\n");
        return EXIT_USAGE;
    }
    enum pf_err e = down || c->postgres ? main_store_migrations(c, m, &n, why) : PFE_OK;
    if (e != PFE_OK)
        return complain(e, why);
    int to = down ? 0 : -1;
    for (unsigned i = 0; down && i < n; i++) /* the newest applied one goes: down to the one before it */
        if (m[i].applied && i)
            to = m[i - 1].version;
    e = main_store_migrate(c, to, why);
    if (e != PFE_OK) /* what stands in the way of going down is what was recorded, not a setting */
        return complain(down ? PFE_UNAVAILABLE : e, why);
    return migrate_status(c, o->json);
}

/* The first line of a file or of standard input; false: none, or too long. */
static bool read_password(const char *file, char *out, size_t cap)
{
    FILE *f = file ? fopen(file, "re") : stdin;
    if (!f)
        return false;
    if (!file && isatty(STDIN_FILENO))
        fprintf(stderr, "Password: ");
    bool ok = fgets(out, (int)cap, f) != NULL;
    if (file)
        fclose(f);
    size_t n = ok ? strcspn(out, "\r\n") : 0;
    if (ok && !out[n] && n + 1 == cap)
        ok = false;
    out[n] = 0;
    return ok && n > 0;
}

int run_create_admin(const struct conf *c, const struct options *o)
{
    char password[256], secret[4096], why[256];
    size_t secret_n;
    int code;
    if (!o->username || !o->email) {
        fprintf(stderr, "payflow: user create-admin needs --username and --email\n");
        return EXIT_USAGE;
    }
    if (!read_password(o->password_file, password, sizeof password)) {
        fprintf(stderr, "payflow: no password: give --password-file, or a line on standard input\n");
        return EXIT_USAGE;
    }
    struct store *s = open_store(c, false, &code);
    if (!s)
        return code;
    code = EXIT_FAILED;
    struct cache_local_options co = {.max_entries = 1024, .max_bytes = 1 << 20, .clock = clock_system()};
    struct metrics *m = metrics_new();
    struct cache *cache = cache_local_new(&co);
    const struct money_currency_info *ci = money_by_code(str_c(c->default_currency));
    struct app *a = NULL;
    if (m && cache && ci && main_jwt_secret(c, secret, sizeof secret, &secret_n, why)) {
        struct app_config ac = {.dev = c->env == CONF_ENV_DEV,
                                .trials = c->env != CONF_ENV_PROD,
                                .bcrypt_cost = (int)c->bcrypt_cost,
                                .password_min = c->env == CONF_ENV_DEV ? 3 : 8,
                                .jwt_secret = {secret, secret_n},
                                .currency = ci->num,
                                .queue_capacity = 64,
                                .group_max = 64};
        struct app_deps ad = {.store = s, .cache = cache, .clock = clock_system(), .metrics = m};
        a = app_new(&ac, &ad);
    }
    if (a) {
        struct cli_admin in = {str_c(o->username), str_c(o->email), str_c(password), o->api_key, o->json};
        code = cli_create_admin(a, &in);
    } else {
        fprintf(stderr, "payflow: cannot start\n");
    }
    explicit_bzero(password, sizeof password);
    explicit_bzero(secret, sizeof secret);
    app_free(a);
    cache_close(cache);
    store_close(s);
    metrics_free(m);
    return code;
}

static void to_stdout(void *ctx, const char *p, size_t n)
{
    (void)ctx;
    fwrite(p, 1, n, stdout);
}

int run_config_print(const struct conf *c, const struct options *o)
{
    conf_print(c, o->json, to_stdout, NULL);
    return EXIT_OK;
}
