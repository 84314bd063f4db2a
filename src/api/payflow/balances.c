/* PayFlow: balances. */
#include "api/payflow/payflow.h"

static const char no_account[] = "the user has no account in this currency";

static void render_account(struct api_call *c)
{
    struct jw w = api_out(c);
    if (!c->job.created)
        c->status = 200;
    dto_balance(&w, &c->job.account, NULL);
}

enum api_step payflow_balance_open(struct api_call *c)
{
    c->job.kind = JOB_OPEN;
    c->job.user = c->subject;
    c->job.currency = api_currency(c, &c->query[1]);
    c->render = render_account;
    return api_ledger(c);
}

enum api_step payflow_balance_get(struct api_call *c)
{
    struct ledger_account acc;
    enum api_step step;
    enum pf_err e = app_balance(c->app, c->subject, api_currency(c, &c->query[1]), c->may_block, &acc);
    if (api_failed(c, e, no_account, &step))
        return step;
    struct jw w = api_out(c);
    dto_balance(&w, &acc, NULL);
    return api_ok(c, 200);
}

/* An account's history: each entry with its sign and the balance after it. */
struct history {
    struct api_call *c;
    struct jw w;
    int64_t user;
};

static bool history_row(void *ctx, const struct app_tx *t)
{
    struct history *h = ctx;
    bool out = t->debit_owner == h->user;
    unsigned scale = api_scale(t->e.currency);
    struct jw *w = &h->w;
    jw_obj(w);
    if (h->c->route->banking)
        dto_uuid(w, "transaction_id", t->e.uuid);
    else
        jw_kint(w, "transaction_id", t->e.seq);
    dto_uuid(w, "transaction_uuid", t->e.uuid);
    jw_kz(w, "type", dto_kind(t->e.kind, h->c->route->banking));
    jw_kamount(w, "amount", out ? -t->e.amount : t->e.amount, scale);
    jw_kamount(w, "balance", out ? t->e.debit_balance : t->e.credit_balance, scale);
    jw_kstr(w, "currency", api_code(t->e.currency));
    jw_kstr(w, "description", t->e.description.p ? t->e.description : STR(""));
    jw_ktime(w, "created_at", t->e.ts);
    jw_end_obj(w);
    return true;
}

enum api_step api_history(struct api_call *c, int64_t user, money_currency currency, const struct api_page *page,
                          int64_t from_us, int64_t to_us)
{
    struct ledger_account acc;
    enum pf_err e = app_balance(c->app, user, currency, true, &acc);
    if (e != PFE_OK && !(e == PFE_NOT_FOUND && c->route->banking))
        return api_fail(c, e, no_account);
    struct history h = {.c = c, .w = api_out(c), .user = user};
    int64_t next = 0;
    jw_obj(&h.w);
    jw_key(&h.w, "data");
    jw_arr(&h.w);
    if (e == PFE_OK) {
        struct store_entry_query q = {.account = acc.id,
                                      .before_seq = page->cursor,
                                      .offset = page->offset,
                                      .limit = page->limit,
                                      .from_us = from_us,
                                      .to_us = to_us,
                                      .counterparty = -1};
        e = app_transactions(c->app, &q, 0, history_row, &h, &next);
        if (e != PFE_OK)
            return api_fail(c, e, "");
    }
    api_page_end(&h.w, page, next);
    return api_ok(c, 200);
}

enum api_step payflow_balance_history(struct api_call *c)
{
    struct api_page page;
    if (!api_page(c, 2, &page))
        return API_DONE;
    return api_history(c, c->subject, api_currency(c, &c->query[1]), &page, 0, 0);
}

static void render_replay(struct api_call *c, const struct ledger_account *acc, const struct store_replay *rp,
                          int64_t stored, bool rebuilt)
{
    unsigned scale = api_scale(acc->currency);
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kint(&w, "user_id", acc->owner);
    jw_kstr(&w, "currency", api_code(acc->currency));
    jw_kint(&w, "events_replayed", rp->events);
    jw_kamount(&w, "balance", rp->balance, scale);
    jw_kamount(&w, "stored_balance", stored, scale);
    jw_kbool(&w, "consistent", rp->intact && rp->balance == stored);
    if (rebuilt)
        jw_kbool(&w, "rebuilt", rp->intact);
    jw_end_obj(&w);
}

enum api_step payflow_balance_replay(struct api_call *c)
{
    struct ledger_account acc;
    struct store_replay rp;
    enum pf_err e = app_replay(c->app, c->subject, api_currency(c, &c->query[1]), &acc, &rp);
    if (e != PFE_OK)
        return api_fail(c, e, no_account);
    render_replay(c, &acc, &rp, acc.balance, false);
    return api_ok(c, 200);
}

enum api_step payflow_balance_rebuild(struct api_call *c)
{
    struct job *j = &c->job;
    enum pf_err e = app_rebuild(c->app, &c->caller, c->subject, api_currency(c, &c->query[1]), j);
    if (e != PFE_OK)
        return api_fail(c, e, e == PFE_NOT_FOUND ? no_account : "");
    render_replay(c, &j->account, &j->replay, j->stored_balance, true);
    return api_ok(c, 200);
}
