#include "cli/cli.h"

#include <stdio.h>

#include "base/buf.h"
#include "base/clock.h"
#include "codec/decimal.h"
#include "codec/json_out.h"
#include "codec/uuid.h"

enum { FLUSH_BYTES = 1 << 16 };

struct export
{
    struct store *store;
    struct buf b;
    bool csv, failed;
};

static void csv_text(struct buf *b, struct str s)
{
    bool quote = false;
    for (size_t i = 0; i < s.n; i++)
        quote |= s.p[i] == '"' || s.p[i] == ',' || s.p[i] == '\n' || s.p[i] == '\r';
    if (!quote) {
        buf_str(b, s);
        return;
    }
    buf_putc(b, '"');
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"')
            buf_putc(b, '"');
        buf_putc(b, s.p[i]);
    }
    buf_putc(b, '"');
}

/* 0, nobody or nothing, is an empty field. */
static void csv_id(struct buf *b, int64_t id)
{
    buf_putc(b, ',');
    if (id)
        buf_i64(b, id);
}

static int64_t owner_of(struct store *s, int64_t account)
{
    struct ledger_account a;
    return store_account_by_id(s, account, &a) == PFE_OK ? a.owner : 0;
}

static bool row(void *ctx, const struct ledger_entry *e, int64_t resolved_by)
{
    struct export *x = ctx;
    (void)resolved_by;
    const struct money_currency_info *ci = money_by_num(e->currency);
    unsigned scale = ci ? ci->scale : 0;
    struct uuid id;
    char uuid[UUID_TEXT_LEN + 1], amount[DECIMAL_TEXT_MAX], at[TIME_RFC3339_MAX];
    memcpy(id.b, e->uuid, sizeof id.b);
    uuid_format(&id, uuid);
    int64_t from = owner_of(x->store, e->debit), to = owner_of(x->store, e->credit);
    if (x->csv) {
        decimal_format(e->amount, scale, amount);
        time_format(e->ts, at);
        buf_printf(&x->b, "%lld,%lld,%s,%s,%lld,%lld,%s,%s,", (long long)e->seq, (long long)e->seq, uuid,
                   ledger_kind_name(e->kind), (long long)e->debit, (long long)e->credit, amount, ci ? ci->code : "");
        csv_text(&x->b, e->description);
        buf_printf(&x->b, ",%s", at);
        csv_id(&x->b, from);
        csv_id(&x->b, to);
        csv_id(&x->b, e->ref);
        buf_puts(&x->b, "\r\n");
    } else {
        struct jw w;
        jw_init(&w, &x->b);
        jw_obj(&w);
        jw_kint(&w, "seq", e->seq);
        jw_kint(&w, "id", e->seq);
        jw_kz(&w, "uuid", uuid);
        jw_kz(&w, "type", ledger_kind_name(e->kind));
        jw_kint(&w, "debit", e->debit);
        jw_kint(&w, "credit", e->credit);
        jw_kamount(&w, "amount", e->amount, scale);
        jw_kz(&w, "currency", ci ? ci->code : "");
        jw_kstr(&w, "description", e->description.p ? e->description : STR(""));
        jw_ktime(&w, "created_at", e->ts);
        from ? jw_kint(&w, "from_user_id", from) : jw_knull(&w, "from_user_id");
        to ? jw_kint(&w, "to_user_id", to) : jw_knull(&w, "to_user_id");
        e->ref ? jw_kint(&w, "reference", e->ref) : jw_knull(&w, "reference");
        jw_end_obj(&w);
        buf_putc(&x->b, '\n');
    }
    if (x->b.n >= FLUSH_BYTES || x->b.failed)
        x->failed = !cli_flush(&x->b);
    return !x->failed;
}

int cli_export(struct store *s, bool csv, int64_t after_seq)
{
    struct export x = {.store = s, .csv = csv};
    buf_init(&x.b, 0);
    if (csv)
        buf_puts(&x.b, "seq,id,uuid,type,debit,credit,amount,currency,description,created_at,from_user_id,to_user_id,"
                       "reference\r\n");
    enum pf_err e = store_journal_scan(s, after_seq, 0, row, &x);
    if (e == PFE_OK && !x.failed)
        x.failed = !cli_flush(&x.b);
    buf_free(&x.b);
    if (e != PFE_OK)
        fprintf(stderr, "payflow: journal export: %s\n", err_info(e)->title);
    else if (x.failed)
        fprintf(stderr, "payflow: journal export: cannot write to standard output\n");
    return e == PFE_OK && !x.failed ? 0 : 1;
}
