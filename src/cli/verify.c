#include "cli/cli.h"

#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "codec/decimal.h"
#include "codec/json_out.h"

bool cli_flush(struct buf *b)
{
    size_t at = 0;
    while (!b->failed && at < b->n) {
        ssize_t n = write(STDOUT_FILENO, b->p + at, b->n - at);
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    bool ok = !b->failed;
    buf_clear(b);
    return ok;
}

static void print_json(const struct store_verify *v, const struct store_trial *t, unsigned n, int64_t us)
{
    struct buf b;
    struct jw w;
    buf_init(&b, 0);
    jw_init(&w, &b);
    jw_obj(&w);
    jw_kbool(&w, "ok", v->ok);
    jw_kint(&w, "entries", v->entries);
    jw_kint(&w, "seals", v->seals);
    jw_kint(&w, "accounts", v->accounts);
    jw_kint(&w, "resolutions", v->resolutions);
    if (!v->ok) {
        jw_kint(&w, "bad_seq", v->bad_seq);
        jw_kz(&w, "what", v->what);
    }
    if (us)
        jw_kint(&w, "duration_us", us);
    if (t) {
        jw_key(&w, "trial_balance");
        jw_arr(&w);
        for (unsigned i = 0; i < n; i++) {
            const struct money_currency_info *ci = money_by_num(t[i].currency);
            jw_obj(&w);
            jw_kz(&w, "currency", ci ? ci->code : "");
            jw_kint(&w, "accounts", t[i].accounts);
            jw_kamount(&w, "user_balance", t[i].user_balance, ci ? ci->scale : 0);
            jw_kamount(&w, "external_balance", t[i].external, ci ? ci->scale : 0);
            jw_kamount(&w, "sum", t[i].sum, ci ? ci->scale : 0);
            jw_end_obj(&w);
        }
        jw_end_arr(&w);
    }
    jw_end_obj(&w);
    buf_putc(&b, '\n');
    cli_flush(&b);
    buf_free(&b);
}

void cli_print_verify(const struct store_verify *v, bool json)
{
    if (json) {
        print_json(v, NULL, 0, 0);
        return;
    }
    printf("%s: %lld entries, %lld seals, %lld accounts\n", v->ok ? "ok" : "DIFFERENCE", (long long)v->entries,
           (long long)v->seals, (long long)v->accounts);
    if (!v->ok && v->bad_seq)
        printf("first difference at entry %lld: %s\n", (long long)v->bad_seq, v->what);
    else if (!v->ok)
        printf("first difference: %s\n", v->what);
}

int cli_verify(struct store *s, bool json)
{
    enum { CURRENCIES = 200 };
    struct store_verify v;
    struct store_trial t[CURRENCIES];
    unsigned n = 0;
    enum pf_err e = store_verify(s, &v);
    if (e == PFE_OK)
        e = store_trial(s, t, CURRENCIES, &n);
    if (e != PFE_OK) {
        fprintf(stderr, "payflow: verify: %s\n", err_info(e)->title);
        return 1;
    }
    bool balanced = true;
    for (unsigned i = 0; i < n; i++)
        balanced &= t[i].sum == 0;
    if (json) {
        print_json(&v, t, n, 0);
        return v.ok && balanced ? 0 : 1;
    }
    cli_print_verify(&v, false);
    for (unsigned i = 0; i < n; i++) {
        const struct money_currency_info *ci = money_by_num(t[i].currency);
        char user[DECIMAL_TEXT_MAX], ext[DECIMAL_TEXT_MAX], sum[DECIMAL_TEXT_MAX];
        decimal_format(t[i].user_balance, ci ? ci->scale : 0, user);
        decimal_format(t[i].external, ci ? ci->scale : 0, ext);
        decimal_format(t[i].sum, ci ? ci->scale : 0, sum);
        printf("%s: users %s, external %s, sum %s\n", ci ? ci->code : "?", user, ext, sum);
    }
    return v.ok && balanced ? 0 : 1;
}

int cli_replay(struct store *s, bool json)
{
    struct store_verify v;
    int64_t t0 = clock_mono(clock_system());
    enum pf_err e = store_verify(s, &v);
    int64_t us = clock_mono(clock_system()) - t0;
    if (e != PFE_OK) {
        fprintf(stderr, "payflow: replay: %s\n", err_info(e)->title);
        return 1;
    }
    if (json) {
        print_json(&v, NULL, 0, us > 0 ? us : 1);
    } else {
        cli_print_verify(&v, false);
        printf("replayed %lld entries in %lld.%03lld s\n", (long long)v.entries, (long long)(us / 1000000),
               (long long)(us / 1000 % 1000));
    }
    return v.ok ? 0 : 1;
}
