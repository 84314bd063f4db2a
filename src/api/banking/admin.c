/* Banking: audit, journal, reconciliation; ping. */
#include "api/banking/banking.h"

enum api_step banking_ping(struct api_call *c)
{
    buf_puts(&c->r->out, "{\"message\":\"pong\"}");
    return api_ok(c, 200);
}

enum api_step banking_audit(struct api_call *c)
{
    struct api_page page;
    if (!api_page(c, 5, &page))
        return API_DONE;
    struct store_audit_query q = {.actor = c->query[0].set ? c->query[0].i : -1,
                                  .action = c->query[1].s,
                                  .entity = c->query[2].s,
                                  .from_us = c->query[3].i,
                                  .to_us = c->query[4].i,
                                  .before_id = page.cursor,
                                  .offset = page.offset,
                                  .limit = page.limit + 1};
    struct store_audit *a = arena_alloc(&c->r->arena, q.limit * sizeof *a);
    unsigned n = 0;
    enum pf_err e = a ? app_audit_page(c->app, &c->r->arena, &q, a, &n) : PFE_NOMEM;
    if (e != PFE_OK)
        return api_fail(c, e, "");
    unsigned shown = n < page.limit ? n : page.limit;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_key(&w, "data");
    jw_arr(&w);
    for (unsigned i = 0; i < shown; i++) {
        jw_obj(&w);
        jw_kint(&w, "id", a[i].id);
        jw_ktime(&w, "at", a[i].ts);
        a[i].actor ? jw_kint(&w, "actor", a[i].actor) : jw_knull(&w, "actor");
        jw_kstr(&w, "action", a[i].action);
        jw_kstr(&w, "entity", a[i].entity);
        jw_kstr(&w, "entity_id", a[i].entity_id);
        jw_kstr(&w, "outcome", a[i].outcome);
        jw_kstr(&w, "address", a[i].address);
        jw_kstr(&w, "request_id", a[i].request_id);
        jw_end_obj(&w);
    }
    api_page_end(&w, &page, n > page.limit ? a[shown - 1].id : 0);
    return api_ok(c, 200);
}

struct scan {
    struct jw w;
    int64_t last;
    unsigned n, limit;
    bool more;
};

static bool journal_row(void *ctx, const struct ledger_entry *e, int64_t resolved_by)
{
    struct scan *s = ctx;
    (void)resolved_by;
    if (s->n++ == s->limit) {
        s->more = true;
        return false;
    }
    struct jw *w = &s->w;
    unsigned scale = api_scale(e->currency);
    jw_obj(w);
    jw_kint(w, "seq", e->seq);
    dto_uuid(w, "id", e->uuid);
    dto_uuid(w, "uuid", e->uuid);
    jw_kz(w, "type", ledger_kind_name(e->kind));
    jw_kint(w, "debit", e->debit);
    jw_kint(w, "credit", e->credit);
    jw_kamount(w, "amount", e->amount, scale);
    jw_kstr(w, "currency", api_code(e->currency));
    jw_kamount(w, "debit_balance", e->debit_balance, scale);
    jw_kamount(w, "credit_balance", e->credit_balance, scale);
    jw_kint(w, "debit_prev", e->debit_prev);
    jw_kint(w, "credit_prev", e->credit_prev);
    e->ref ? jw_kint(w, "reference", e->ref) : jw_knull(w, "reference");
    jw_kint(w, "actor", e->actor);
    jw_kstr(w, "description", e->description.p ? e->description : STR(""));
    jw_kstr(w, "origin", e->origin.n ? e->origin : STR_NONE);
    jw_ktime(w, "created_at", e->ts);
    jw_end_obj(w);
    s->last = e->seq;
    return true;
}

enum api_step banking_journal(struct api_call *c)
{
    int64_t after = c->query[0].set ? c->query[0].i : 0;
    struct scan s = {.w = api_out(c), .limit = c->query[1].set ? (unsigned)c->query[1].i : 20};
    jw_obj(&s.w);
    jw_key(&s.w, "data");
    jw_arr(&s.w);
    enum pf_err e = app_journal_page(c->app, after, s.limit + 1, journal_row, &s);
    if (e != PFE_OK)
        return api_fail(c, e, "");
    jw_end_arr(&s.w);
    jw_kint(&s.w, "limit", s.limit);
    jw_kint(&s.w, "after_seq", after);
    jw_kbool(&s.w, "has_more", s.more);
    s.more ? jw_kint(&s.w, "next_after_seq", s.last) : jw_knull(&s.w, "next_after_seq");
    jw_end_obj(&s.w);
    return api_ok(c, 200);
}

enum api_step banking_reconciliation(struct api_call *c)
{
    struct app_reconciliation *r = arena_zalloc(&c->r->arena, sizeof *r);
    enum pf_err e = r ? app_reconcile(c->app, &c->caller, r) : PFE_NOMEM;
    if (e != PFE_OK)
        return api_fail(c, e, e == PFE_BUSY ? "a reconciliation is running" : "");
    bool balanced = true;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_key(&w, "trial_balance");
    jw_arr(&w);
    for (unsigned i = 0; i < r->n_trial; i++) {
        const struct store_trial *t = &r->trial[i];
        unsigned scale = api_scale(t->currency);
        balanced &= t->sum == 0;
        jw_obj(&w);
        jw_kstr(&w, "currency", api_code(t->currency));
        jw_kint(&w, "accounts", t->accounts);
        jw_kamount(&w, "user_balance", t->user_balance, scale);
        jw_kamount(&w, "external_balance", t->external, scale);
        jw_kamount(&w, "sum", t->sum, scale);
        jw_kbool(&w, "balanced", t->sum == 0);
        jw_end_obj(&w);
    }
    jw_end_arr(&w);
    jw_kbool(&w, "consistent", r->verify.ok && balanced);
    jw_key(&w, "journal");
    jw_obj(&w);
    jw_kint(&w, "entries", r->verify.entries);
    jw_kint(&w, "seals", r->verify.seals);
    jw_kint(&w, "accounts", r->verify.accounts);
    jw_kbool(&w, "matches_projection", r->verify.ok);
    jw_end_obj(&w);
    if (r->verify.ok) {
        jw_knull(&w, "first_difference");
    } else {
        jw_key(&w, "first_difference");
        jw_obj(&w);
        jw_kint(&w, "seq", r->verify.bad_seq);
        jw_kz(&w, "what", r->verify.what);
        jw_end_obj(&w);
    }
    jw_ktime(&w, "checked_at", clock_wall(app_clock(c->app)));
    jw_end_obj(&w);
    return api_ok(c, 200);
}

/* Freezing is a journal entry like any other: who, when, and why stand in its row. */
static void render_freeze(struct api_call *c)
{
    const struct ledger_entry *e = &c->one.entry;
    struct jw w = api_out(c);
    jw_obj(&w);
    dto_uuid(&w, "id", e->uuid);
    jw_kz(&w, "type", ledger_kind_name(e->kind));
    dto_uuid(&w, "user_id", c->from_uuid);
    jw_kstr(&w, "currency", api_code(e->currency));
    jw_kstr(&w, "description", e->description.p ? e->description : STR(""));
    jw_ktime(&w, "created_at", e->ts);
    jw_end_obj(&w);
}

static enum api_step set_frozen(struct api_call *c, enum ledger_kind kind)
{
    enum api_step step;
    if (api_failed(c, app_user_uuid(c->app, c->subject, c->may_block, c->from_uuid), "there is no such user", &step))
        return step;
    c->one = (struct movement){
        .kind = kind, .from_user = c->subject, .currency = api_currency(c, &c->body[0]), .description = c->body[1].s};
    c->job.kind = JOB_MOVE;
    c->job.m = &c->one;
    c->job.n = 1;
    c->job.atomic = true;
    c->render = render_freeze;
    return api_ledger(c);
}

enum api_step banking_freeze(struct api_call *c)
{
    return set_frozen(c, LEDGER_FREEZE);
}

enum api_step banking_unfreeze(struct api_call *c)
{
    return set_frozen(c, LEDGER_UNFREEZE);
}
