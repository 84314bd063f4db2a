/* PayFlow: batches of transfers. */
#include "api/payflow/payflow.h"

#include <stdio.h>

static const struct api_field item_fields[] = {
    {"sender_id", F_USER, true, 0, 0, NULL, "Who pays."},
    {"receiver_id", F_USER, true, 0, 0, NULL, "Who is paid."},
    {"amount", F_AMOUNT, true, 0, 0, NULL, "Amount."},
    {"currency", F_CURRENCY, false, 0, 0, NULL, "Currency."},
    {"description", F_TEXT, false, 0, LEDGER_DESCRIPTION_MAX, NULL, "Free text."},
};

struct batch {
    struct movement *m;       /* those that go to the ledger, in order */
    struct problem **refused; /* per item: why it does not, or NULL */
    size_t n, n_m;
};

/* One item into a movement; false with c->p saying why not. */
static bool read_item(struct api_call *c, const struct json *item, unsigned index, struct movement *m)
{
    struct api_value v[5];
    bool ok = true, blocked = false;
    char name[64];
    if (item->type != JSON_OBJECT) {
        snprintf(name, sizeof name, "transactions.%u", index);
        problem_field(&c->p, "body", name, "type", "must be an object");
        return false;
    }
    for (unsigned i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "transactions.%u.%s", index, item_fields[i].name);
        ok &= api_decode(c, &item_fields[i], json_get(item, item_fields[i].name), "body", name, &v[i], &blocked);
    }
    if (!ok)
        return false;
    *m = (struct movement){.kind = LEDGER_TRANSFER,
                           .from_user = v[0].i,
                           .to_user = v[1].i,
                           .currency = api_currency(c, &v[3]),
                           .description = v[4].s};
    snprintf(name, sizeof name, "transactions.%u.amount", index);
    return api_amount(&c->p, "body", name, v[2].s, m->currency, &m->amount) &&
           app_require_owner(&c->caller.who, m->from_user, &c->p) == PFE_OK;
}

static void render_item(struct api_call *c, struct jw *w, unsigned index, const struct movement *m,
                        const struct problem *p)
{
    jw_obj(w);
    jw_kint(w, "index", index);
    jw_kz(w, "status", p ? "failed" : "completed");
    if (p) {
        struct buf b;
        buf_init(&b, 0);
        http_problem_json(&b, p, c->r->path, c->r->request_id);
        jw_key(w, "error");
        jw_raw(w, buf_as_str(&b));
        w->b->failed |= b.failed;
        buf_free(&b);
    } else {
        jw_key(w, "transaction");
        dto_transaction(
            w, &(struct dto_tx){
                   .e = &m->entry, .debit_owner = m->from_user, .credit_owner = m->to_user, .viewer = m->from_user});
    }
    jw_end_obj(w);
}

static void render_batch(struct api_call *c)
{
    const struct batch *b = c->user;
    struct jw w = api_out(c);
    size_t done = 0, next = 0;
    for (size_t i = 0; i < b->n_m; i++)
        done += b->m[i].err == PFE_OK;
    jw_obj(&w);
    jw_kuint(&w, "count", b->n);
    jw_kuint(&w, "completed", done);
    jw_kuint(&w, "failed", b->n - done);
    jw_kbool(&w, "atomic", c->job.atomic);
    jw_key(&w, "results");
    jw_arr(&w);
    for (unsigned i = 0; i < b->n; i++) {
        struct problem p = {0};
        if (b->refused[i]) {
            render_item(c, &w, i, NULL, b->refused[i]);
            continue;
        }
        const struct movement *m = &b->m[next++];
        if (m->err != PFE_OK)
            app_movement_problem(m, &p);
        render_item(c, &w, i, m, m->err != PFE_OK ? &p : NULL);
    }
    jw_end_arr(&w);
    jw_end_obj(&w);
}

/* All or none: the refusal names the item. Called on the way back, when the ledger has refused. */
static void name_failed(struct job *j)
{
    struct api_call *c = j->ctx;
    struct problem p = {0};
    char name[64];
    app_movement_problem(&j->m[j->failed], &p);
    snprintf(name, sizeof name, "transactions.%zu", j->failed);
    problem_set(&c->p, err_info(j->err)->http == 422 ? j->err : PFE_BATCH_REFUSED, "item %zu: %s; nothing was done",
                j->failed, err_info(j->err)->title);
    problem_field(&c->p, "body", name, err_info(j->err)->slug, "%s", p.detail[0] ? p.detail : err_info(j->err)->title);
}

enum api_step payflow_batch(struct api_call *c)
{
    const struct json *items = c->body[0].json;
    struct arena *a = &c->r->arena;
    struct batch *b = arena_zalloc(a, sizeof *b);
    if (items->n == 0 || items->n > APP_BATCH_MAX) {
        problem_field(&c->p, "body", "transactions", "range", "must hold 1 to %d items", APP_BATCH_MAX);
        return API_DONE;
    }
    c->job.atomic = !c->body[1].set || c->body[1].i;
    if (b) {
        b->m = arena_zalloc(a, items->n * sizeof *b->m);
        b->refused = arena_zalloc(a, items->n * sizeof *b->refused);
    }
    if (!b || !b->m || !b->refused)
        return api_fail(c, PFE_NOMEM, "");
    unsigned i = 0;
    for (const struct json *item = items->child; item; item = item->next, i++) {
        if (read_item(c, item, i, &b->m[b->n_m])) {
            b->n_m++;
            continue;
        }
        if (c->job.atomic)
            return API_DONE;
        b->refused[i] = arena_alloc(a, sizeof *b->refused[i]);
        if (!b->refused[i])
            return api_fail(c, PFE_NOMEM, "");
        *b->refused[i] = c->p;
        c->p = (struct problem){0};
    }
    b->n = items->n;
    c->user = b;
    c->job.kind = JOB_MOVE;
    c->job.m = b->m;
    c->job.n = b->n_m;
    c->refused = name_failed;
    c->render = render_batch;
    return api_ledger(c);
}
