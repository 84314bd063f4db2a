/* Banking: the caller's own balances. */
#include "api/banking/banking.h"

static enum api_step own_uuid(struct api_call *c)
{
    enum api_step step;
    if (api_failed(c, app_user_uuid(c->app, c->caller.who.user, c->may_block, c->from_uuid), "", &step))
        return step;
    return API_PENDING; /* go on */
}

enum api_step banking_balance_current(struct api_call *c)
{
    int64_t user = c->caller.who.user;
    money_currency currency = api_currency(c, &c->query[0]);
    struct ledger_account acc;
    enum api_step step = own_uuid(c);
    if (step != API_PENDING)
        return step;
    enum pf_err e = app_balance(c->app, user, currency, c->may_block, &acc);
    if (e == PFE_NOT_FOUND) /* nothing moved yet: the account is as good as empty */
        acc = (struct ledger_account){.owner = user, .currency = currency, .updated_us = clock_wall(app_clock(c->app))};
    else if (api_failed(c, e, "", &step))
        return step;
    struct jw w = api_out(c);
    if (c->query[0].set) {
        dto_balance(&w, &acc, c->from_uuid);
        return api_ok(c, 200);
    }
    struct ledger_account all[APP_ACCOUNTS_MAX];
    unsigned n = 0;
    if (api_failed(c, app_balances(c->app, user, c->may_block, all, &n), "", &step))
        return step;
    dto_balance_begin(&w, &acc, c->from_uuid);
    jw_key(&w, "balances");
    jw_arr(&w);
    for (unsigned i = 0; i < n; i++)
        dto_balance(&w, &all[i], c->from_uuid);
    jw_end_arr(&w);
    jw_end_obj(&w);
    return api_ok(c, 200);
}

enum api_step banking_balance_historical(struct api_call *c)
{
    struct api_page page;
    if (!api_page(c, 3, &page))
        return API_DONE;
    return api_history(c, c->caller.who.user, api_currency(c, &c->query[2]), &page, c->query[0].i, c->query[1].i);
}

enum api_step banking_balance_at(struct api_call *c)
{
    money_currency currency = api_currency(c, &c->query[1]);
    int64_t balance = 0;
    if (own_uuid(c) != API_PENDING ||
        app_balance_at(c->app, c->caller.who.user, currency, c->query[0].i, &balance, &c->p) != PFE_OK)
        return API_DONE;
    struct jw w = api_out(c);
    jw_obj(&w);
    dto_uuid(&w, "user_id", c->from_uuid);
    jw_ktime(&w, "timestamp", c->query[0].i);
    jw_kamount(&w, "balance", balance, api_scale(currency));
    jw_kstr(&w, "currency", api_code(currency));
    jw_end_obj(&w);
    return api_ok(c, 200);
}
