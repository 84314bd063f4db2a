/* Banking: scheduled transactions. */
#include "api/banking/banking.h"

#include "codec/uuid.h"

/* Leaves the object open for further members. */
static void schedule_begin(struct api_call *c, struct jw *w, const struct store_schedule *d)
{
    uint8_t uuid[16];
    jw_obj(w);
    dto_uuid(w, "id", d->uuid);
    jw_kz(w, "type", dto_kind(d->kind, true));
    jw_kz(w, "status", sched_status_name(d->status));
    jw_kamount(w, "amount", d->amount, api_scale(d->currency));
    jw_kstr(w, "currency", api_code(d->currency));
    if (app_user_uuid(c->app, d->owner, true, uuid) == PFE_OK)
        dto_uuid(w, "user_id", uuid);
    if (d->to_user && app_user_uuid(c->app, d->to_user, true, uuid) == PFE_OK)
        dto_uuid(w, "to_user_id", uuid);
    jw_kstr(w, "description", d->description.p ? d->description : STR(""));
    jw_ktime(w, "scheduled_at", d->anchor_us);
    jw_kstr(w, "recurrence", d->recurrence.n ? d->recurrence : STR_NONE);
    d->end_us ? jw_ktime(w, "end_at", d->end_us) : jw_knull(w, "end_at");
    d->max_runs ? jw_kint(w, "max_runs", d->max_runs) : jw_knull(w, "max_runs");
    d->next_us ? jw_ktime(w, "next_run_at", d->next_us) : jw_knull(w, "next_run_at");
    d->last_us ? jw_ktime(w, "last_run_at", d->last_us) : jw_knull(w, "last_run_at");
    jw_kint(w, "runs", d->runs);
    jw_kstr(w, "last_error", d->last_error.n ? d->last_error : STR_NONE);
    jw_ktime(w, "created_at", d->created_us);
    jw_ktime(w, "updated_at", d->updated_us);
}

static void write_schedule(struct api_call *c, const struct store_schedule *d)
{
    struct jw w = api_out(c);
    schedule_begin(c, &w, d);
    jw_end_obj(&w);
}

static void render_created(void *ctx, const struct store_schedule *d, struct app_idem *idem)
{
    struct api_call *c = ctx;
    write_schedule(c, d);
    idem->status = c->r->out.failed ? 0 : 201;
    idem->body = buf_as_str(&c->r->out);
}

enum api_step banking_schedule_create(struct api_call *c)
{
    struct store_schedule in = {.to_user = c->body[1].set ? c->body[1].i : 0,
                                .currency = api_currency(c, &c->body[3]),
                                .description = c->body[8].s,
                                .recurrence = c->body[5].s,
                                .anchor_us = c->body[4].i,
                                .end_us = c->body[6].set ? c->body[6].i : 0,
                                .max_runs = c->body[7].set ? c->body[7].i : 0};
    ledger_kind_parse(c->body[0].s, &in.kind);
    if (in.kind == LEDGER_TRANSFER && !c->body[1].set) {
        problem_field(&c->p, "body", "to_user_id", "missing", "is required for a transfer");
        return API_DONE;
    }
    if (in.kind != LEDGER_TRANSFER)
        in.to_user = 0;
    if (!api_amount(&c->p, "body", "amount", c->body[2].s, in.currency, &in.amount))
        return API_DONE;
    struct store_schedule d;
    if (app_schedule_create(c->app, &c->caller, &in, &c->idem, render_created, c, &d, &c->p) != PFE_OK)
        return API_DONE;
    if (c->r->out.n == 0)
        write_schedule(c, &d);
    return api_ok(c, 201);
}

enum api_step banking_schedule_list(struct api_call *c)
{
    struct api_page page;
    if (!api_page(c, 0, &page))
        return API_DONE;
    struct store_schedule *d = arena_alloc(&c->r->arena, (page.limit + 1) * sizeof *d);
    unsigned n = 0;
    enum pf_err e =
        d ? app_schedule_page(c->app, &c->r->arena, c->caller.who.user, page.cursor, page.offset, page.limit + 1, d, &n)
          : PFE_NOMEM;
    if (e != PFE_OK)
        return api_fail(c, e, "");
    unsigned shown = n < page.limit ? n : page.limit;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_key(&w, "data");
    jw_arr(&w);
    for (unsigned i = 0; i < shown; i++) {
        schedule_begin(c, &w, &d[i]);
        jw_end_obj(&w);
    }
    api_page_end(&w, &page, n > page.limit ? d[shown - 1].id : 0);
    return api_ok(c, 200);
}

static const char *const outcomes[] = {
    [STORE_RUN_DONE] = "done", [STORE_RUN_REFUSED] = "refused", [STORE_RUN_SKIPPED] = "skipped"};

enum api_step banking_schedule_get(struct api_call *c)
{
    enum { RUNS = 50 };
    struct store_schedule d;
    struct store_run *runs = arena_alloc(&c->r->arena, RUNS * sizeof *runs);
    unsigned n = 0;
    enum pf_err e = runs ? app_schedule_get(c->app, &c->caller.who, &c->r->arena, c->r->params[0], &d) : PFE_NOMEM;
    if (e == PFE_OK)
        e = app_schedule_runs(c->app, &c->r->arena, d.id, RUNS, runs, &n);
    if (e != PFE_OK)
        return api_fail(c, e == PFE_INVALID ? PFE_NOT_FOUND : e, "there is no such schedule");
    struct jw w = api_out(c);
    schedule_begin(c, &w, &d);
    jw_key(&w, "history");
    jw_arr(&w);
    for (unsigned i = 0; i < n; i++) {
        jw_obj(&w);
        jw_ktime(&w, "due_at", runs[i].due_us);
        jw_kz(&w, "outcome", outcomes[runs[i].outcome]);
        if (runs[i].seq)
            jw_kint(&w, "transaction", runs[i].seq);
        jw_kstr(&w, "error", runs[i].error.n ? runs[i].error : STR_NONE);
        jw_ktime(&w, "at", runs[i].ts);
        jw_end_obj(&w);
    }
    jw_end_arr(&w);
    jw_end_obj(&w);
    return api_ok(c, 200);
}

enum api_step banking_schedule_cancel(struct api_call *c)
{
    struct store_schedule d;
    if (app_schedule_cancel(c->app, &c->caller, &c->r->arena, c->r->params[0], &d, &c->p) != PFE_OK) {
        if (c->p.code == PFE_INVALID)
            c->p.code = PFE_NOT_FOUND;
        return API_DONE;
    }
    write_schedule(c, &d);
    return api_ok(c, 200);
}
