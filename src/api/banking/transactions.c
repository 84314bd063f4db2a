/* Banking: movements on the caller's own account, rollback, history. */
#include "api/banking/banking.h"

#include "codec/uuid.h"

enum api_step banking_credit(struct api_call *c)
{
    c->one.kind = LEDGER_DEPOSIT;
    c->one.to_user = c->caller.who.user;
    return api_move(c, 0);
}

enum api_step banking_debit(struct api_call *c)
{
    c->one.kind = LEDGER_WITHDRAW;
    c->one.from_user = c->caller.who.user;
    return api_move(c, 0);
}

enum api_step banking_transfer(struct api_call *c)
{
    c->one.kind = LEDGER_TRANSFER;
    c->one.from_user = c->caller.who.user;
    c->one.to_user = c->body[0].i;
    return api_move(c, 1);
}

static void render_rollback(struct api_call *c)
{
    const struct app_tx *original = c->user;
    struct jw w = api_out(c);
    dto_transaction(&w, &(struct dto_tx){.e = &c->one.entry,
                                         .debit_owner = original->credit_owner,
                                         .credit_owner = original->debit_owner,
                                         .viewer = c->caller.who.user,
                                         .banking = true,
                                         .from_uuid = c->from_uuid,
                                         .to_uuid = c->to_uuid,
                                         .ref_uuid = original->e.uuid});
}

enum api_step banking_rollback(struct api_call *c)
{
    static const char none[] = "there is no such transaction";
    struct app_tx *t = arena_alloc(&c->r->arena, sizeof *t);
    struct uuid id;
    int64_t seq = 0;
    if (!t)
        return api_fail(c, PFE_NOMEM, "");
    enum pf_err e = PFE_NOT_FOUND;
    if (str_to_i64(c->r->params[0], &seq))
        e = seq > 0 ? PFE_OK : PFE_NOT_FOUND;
    else if (uuid_parse(c->r->params[0], &id))
        e = app_transaction_seq(c->app, &c->r->arena, id.b, &seq);
    if (e == PFE_OK)
        e = app_transaction(c->app, &c->caller.who, &c->r->arena, seq, true, t);
    if (e != PFE_OK)
        return api_fail(c, e, none);
    if (app_rollback_check(c->app, &c->caller.who, seq, &c->p) != PFE_OK)
        return API_DONE;
    e = PFE_OK;
    if (t->credit_owner)
        e = app_user_uuid(c->app, t->credit_owner, true, c->from_uuid);
    if (e == PFE_OK && t->debit_owner)
        e = app_user_uuid(c->app, t->debit_owner, true, c->to_uuid);
    if (e != PFE_OK)
        return api_fail(c, e, "");
    c->user = t;
    c->one = (struct movement){.kind = LEDGER_ROLLBACK, .ref = seq, .description = c->body[0].s};
    c->job.kind = JOB_MOVE;
    c->job.m = &c->one;
    c->job.n = 1;
    c->job.atomic = true;
    c->render = render_rollback;
    return api_ledger(c);
}

enum api_step banking_history(struct api_call *c)
{
    struct api_page page;
    int64_t user = c->query[0].set ? c->query[0].i : c->caller.who.user;
    if (app_require_owner(&c->caller.who, user, &c->p) != PFE_OK || !api_page(c, 1, &page))
        return API_DONE;
    return api_transaction_page(c, user, &page, 4);
}
