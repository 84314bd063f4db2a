/* `payflow copy`: an embedded installation over to PostgreSQL. */
#include "main/main.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "codec/decimal.h"
#include "codec/json_out.h"
#include "domain/money/money.h"
#include "store/copy.h"

/* ---- what is said ---- */

static void print_json(const struct store_copy *k)
{
    char seal[2 * SHA256_LEN + 1];
    struct buf b;
    struct jw w;
    buf_init(&b, 0);
    jw_init(&w, &b);
    jw_obj(&w);
    jw_kbool(&w, "ok", !k->difference[0]);
    if (k->difference[0])
        jw_kz(&w, "what", k->difference);
    hex_encode(k->given.ends.seal, SHA256_LEN, seal);
    jw_kint(&w, "head_seq", k->given.ends.head_seq);
    jw_kz(&w, "seal", seal);
    jw_kint(&w, "rows", k->rows);
    jw_key(&w, "tables");
    jw_obj(&w);
    for (unsigned t = 0; t < MOVE_TABLES; t++)
        jw_kint(&w, move_tables[t].name, k->given.tables[t].rows);
    jw_end_obj(&w);
    jw_key(&w, "verify");
    jw_obj(&w);
    jw_kbool(&w, "ok", k->found.proof.ok);
    jw_kint(&w, "entries", k->found.proof.entries);
    jw_kint(&w, "seals", k->found.proof.seals);
    jw_kint(&w, "accounts", k->found.proof.accounts);
    jw_kint(&w, "resolutions", k->found.proof.resolutions);
    jw_end_obj(&w);
    jw_key(&w, "trial_balance");
    jw_arr(&w);
    for (unsigned i = 0; i < k->found.n_trial; i++) {
        const struct store_trial *t = &k->found.trial[i];
        const struct money_currency_info *ci = money_by_num(t->currency);
        jw_obj(&w);
        jw_kz(&w, "currency", ci ? ci->code : "");
        jw_kint(&w, "accounts", t->accounts);
        jw_kamount(&w, "user_balance", t->user_balance, ci ? ci->scale : 0);
        jw_kamount(&w, "external_balance", t->external, ci ? ci->scale : 0);
        jw_kamount(&w, "sum", t->sum, ci ? ci->scale : 0);
        jw_end_obj(&w);
    }
    jw_end_arr(&w);
    jw_kint(&w, "copy_us", k->copy_us);
    jw_kint(&w, "verify_us", k->verify_us);
    jw_end_obj(&w);
    buf_putc(&b, '\n');
    cli_flush(&b);
    buf_free(&b);
}

static void print_text(const struct store_copy *k)
{
    char seal[2 * SHA256_LEN + 1];
    for (unsigned t = 0; t < MOVE_TABLES; t++)
        printf("%-14s %12lld rows\n", move_tables[t].name, (long long)k->given.tables[t].rows);
    for (unsigned i = 0; i < k->found.n_trial; i++) {
        const struct store_trial *t = &k->found.trial[i];
        const struct money_currency_info *ci = money_by_num(t->currency);
        char user[DECIMAL_TEXT_MAX], ext[DECIMAL_TEXT_MAX], sum[DECIMAL_TEXT_MAX];
        decimal_format(t->user_balance, ci ? ci->scale : 0, user);
        decimal_format(t->external, ci ? ci->scale : 0, ext);
        decimal_format(t->sum, ci ? ci->scale : 0, sum);
        printf("%s: users %s, external %s, sum %s\n", ci ? ci->code : "?", user, ext, sum);
    }
    if (k->difference[0]) {
        printf("DIFFERENCE: %s\nnothing was kept\n", k->difference);
        return;
    }
    hex_encode(k->given.ends.seal, SHA256_LEN, seal);
    printf("entry %lld, seal %s\n", (long long)k->given.ends.head_seq, seal);
    printf("ok: %lld rows copied in %lld.%03lld s, compared and verified in %lld.%03lld s\n", (long long)k->rows,
           (long long)(k->copy_us / 1000000), (long long)(k->copy_us / 1000 % 1000),
           (long long)(k->verify_us / 1000000), (long long)(k->verify_us / 1000 % 1000));
}

/* ---- the command line ---- */

/* text as DB_URL would take it, in c; false: it does not. */
static bool as_db_url(const char *text, struct conf *c)
{
    const char *const args[] = {"--db-url", text};
    const struct conf_input in = {args, 2, NULL};
    char unused[CONF_WHY_MAX]; /* names a setting that was not given, and may quote a password */
    return conf_load(&in, c, unused) == PFE_OK;
}

/* NULL: malformed. The caller frees. */
static char *source_dir(const char *from)
{
    struct conf c;
    char *url = NULL, *dir = NULL;
    if (strncmp(from, "sqlite:", 7) == 0)
        from += 7;
    if (from[0] && !strstr(from, "://") && asprintf(&url, "sqlite:%s", from) >= 0 && as_db_url(url, &c)) {
        dir = strdup(c.store_dir);
        conf_free(&c);
    }
    free(url);
    return dir;
}

static bool is_postgres_url(const char *to)
{
    struct conf c;
    if (!as_db_url(to, &c))
        return false;
    bool is = c.postgres;
    conf_free(&c);
    return is;
}

int run_copy(const struct conf *c, const struct options *o)
{
    char why[256];
    if (o->to ? !is_postgres_url(o->to) : !c->postgres) {
        fprintf(stderr, "payflow: copy goes to PostgreSQL: --to postgres://…, or DB_URL or DB_HOST\n");
        return EXIT_USAGE;
    }
    char *dir = o->from ? source_dir(o->from) : strdup(c->store_dir);
    if (!dir) {
        fprintf(stderr, "payflow: copy comes from an embedded store: --from sqlite:DIR\n");
        return EXIT_USAGE;
    }
    struct store_copy *k = calloc(1, sizeof *k);
    snprintf(why, sizeof why, "out of memory");
    enum pf_err e = k ? main_store_copy(c, dir, o->to, k, why) : PFE_NOMEM;
    free(dir);
    if (e) {
        fprintf(stderr, "payflow: copy: %s\n", why);
        free(k);
        return e == PFE_WRONG_STATE || e == PFE_NOT_FOUND ? EXIT_CONF : EXIT_FAILED;
    }
    bool differs = k->difference[0];
    if (o->json)
        print_json(k);
    else
        print_text(k);
    free(k);
    return differs ? EXIT_FAILED : EXIT_OK;
}
