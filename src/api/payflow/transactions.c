/* PayFlow: movements one at a time, and reading them. */
#include "api/payflow/payflow.h"

#include "codec/uuid.h"

static void render_one(struct api_call *c)
{
    const struct movement *m = &c->one;
    struct jw w = api_out(c);
    dto_transaction(&w, &(struct dto_tx){.e = &m->entry,
                                         .debit_owner = m->from_user,
                                         .credit_owner = m->to_user,
                                         .viewer = c->subject ? c->subject : c->caller.who.user,
                                         .banking = c->route->banking,
                                         .from_uuid = c->from_uuid,
                                         .to_uuid = c->to_uuid});
}

enum api_step api_move(struct api_call *c, unsigned at)
{
    struct movement *m = &c->one;
    enum api_step step;
    m->currency = api_currency(c, &c->body[at + 1]);
    m->description = c->body[at + 2].s;
    if (!api_amount(&c->p, "body", "amount", c->body[at].s, m->currency, &m->amount))
        return API_DONE;
    if (c->route->banking) { /* its answers name users by UUID: looked up before, for afterwards nothing may fail */
        if (m->from_user && api_failed(c, app_user_uuid(c->app, m->from_user, c->may_block, c->from_uuid),
                                       "there is no such user", &step))
            return step;
        if (m->to_user &&
            api_failed(c, app_user_uuid(c->app, m->to_user, c->may_block, c->to_uuid), "there is no such user", &step))
            return step;
    }
    c->job.kind = JOB_MOVE;
    c->job.m = m;
    c->job.n = 1;
    c->job.atomic = true;
    c->render = render_one;
    return api_ledger(c);
}

enum api_step payflow_deposit(struct api_call *c)
{
    c->one.kind = LEDGER_DEPOSIT;
    c->one.to_user = c->subject;
    return api_move(c, 1);
}

enum api_step payflow_withdraw(struct api_call *c)
{
    c->one.kind = LEDGER_WITHDRAW;
    c->one.from_user = c->subject;
    return api_move(c, 1);
}

enum api_step payflow_transfer(struct api_call *c)
{
    c->one.kind = LEDGER_TRANSFER;
    c->one.from_user = c->subject;
    c->one.to_user = c->body[1].i;
    return api_move(c, 2);
}

/* A transaction's number from the path: the number itself, or its UUID (which needs a read). */
static enum pf_err seq_of(struct api_call *c, struct str ref, int64_t *ret)
{
    struct uuid id;
    if (str_to_i64(ref, ret))
        return *ret > 0 ? PFE_OK : PFE_NOT_FOUND;
    if (!uuid_parse(ref, &id))
        return PFE_NOT_FOUND;
    return c->may_block ? app_transaction_seq(c->app, &c->r->arena, id.b, ret) : PFE_BUSY;
}

enum api_step api_transaction_get(struct api_call *c)
{
    static const char none[] = "there is no such transaction";
    enum api_step step;
    struct app_tx t;
    int64_t seq = 0;
    if (api_failed(c, seq_of(c, c->r->params[0], &seq), none, &step))
        return step;
    if (api_failed(c, app_transaction(c->app, &c->caller.who, &c->r->arena, seq, c->may_block, &t), none, &step))
        return step;
    struct jw w = api_out(c);
    dto_transaction_of(c, &w, &t);
    return api_ok(c, 200);
}

struct listing {
    struct api_call *c;
    struct jw w;
};

static bool list_row(void *ctx, const struct app_tx *t)
{
    struct listing *l = ctx;
    dto_transaction_of(l->c, &l->w, t);
    return true;
}

/* The query's filters; false: a problem was set. */
static bool read_filters(struct api_call *c, const struct api_value *v, struct store_entry_query *q)
{
    enum ledger_kind kind;
    if (v[0].set && ledger_kind_parse(v[0].s, &kind))
        q->kinds = 1u << kind;
    if (v[1].set)
        q->status = str_is(v[1].s, "completed") ? STORE_STATUS_OPEN : STORE_STATUS_RESOLVED;
    if (v[2].set)
        q->currency = (money_currency)v[2].i;
    money_currency currency = api_currency(c, &v[2]);
    q->from_us = v[3].set ? v[3].i : 0;
    q->to_us = v[4].set ? v[4].i : 0;
    bool ok = !v[5].set || api_amount(&c->p, "query", "min_amount", v[5].s, currency, &q->min_amount);
    ok &= !v[6].set || api_amount(&c->p, "query", "max_amount", v[6].s, currency, &q->max_amount);
    if (v[5].set || v[6].set)
        q->currency = currency;
    q->counterparty = v[7].set ? v[7].i : -1;
    return ok;
}

enum api_step api_transaction_page(struct api_call *c, int64_t user, const struct api_page *page, unsigned at)
{
    struct store_entry_query q = {.before_seq = page->cursor, .offset = page->offset, .limit = page->limit};
    if (!read_filters(c, &c->query[at], &q))
        return API_DONE;
    struct listing l = {.c = c, .w = api_out(c)};
    int64_t next = 0;
    enum pf_err e = PFE_OK;
    jw_obj(&l.w);
    jw_key(&l.w, "data");
    jw_arr(&l.w);
    c->subject = user;
    e = app_transactions(c->app, &q, user, list_row, &l, &next);
    if (e == PFE_INVALID) {
        problem_field(&c->p, "query", "offset", "range", "must be at most %d here; use cursor instead", APP_MERGE_MAX);
        return API_DONE;
    }
    if (e != PFE_OK)
        return api_fail(c, e, "");
    api_page_end(&l.w, page, next);
    return api_ok(c, 200);
}

enum api_step payflow_transactions(struct api_call *c)
{
    struct api_page page;
    int64_t user = c->query[0].set ? c->query[0].i : c->caller.who.user;
    if (!c->query[0].set && c->caller.who.role == IDENT_ADMIN)
        user = 0; /* everybody's */
    else if (app_require_owner(&c->caller.who, user, &c->p) != PFE_OK)
        return API_DONE;
    if (!api_page(c, 1, &page))
        return API_DONE;
    return api_transaction_page(c, user, &page, 4);
}

/* ---- statistics ---- */

/* Per currency: what was rolled back (as often as there are rollbacks), and the rest. */
static void write_statuses(struct jw *w, const struct store_stat *s, unsigned n)
{
    jw_key(w, "by_status");
    jw_arr(w);
    for (unsigned i = 0; i < n; i++) {
        bool seen = false;
        for (unsigned k = 0; k < i; k++)
            seen |= s[k].currency == s[i].currency;
        if (seen)
            continue;
        struct store_stat all = {0}, back = {0};
        for (unsigned k = i; k < n; k++) {
            struct store_stat *sum = s[k].kind == LEDGER_ROLLBACK ? &back : &all;
            if (s[k].currency != s[i].currency)
                continue;
            sum->count += s[k].count;
            if (__builtin_add_overflow(sum->volume, s[k].volume, &sum->volume))
                sum->volume = INT64_MAX;
        }
        for (unsigned k = 0; k < 2; k++) {
            const struct store_stat *sum = k ? &back : &all;
            jw_obj(w);
            jw_kz(w, "status", k ? "rolled_back" : "completed");
            jw_kstr(w, "currency", api_code(s[i].currency));
            jw_kint(w, "count", sum->count);
            jw_kamount(w, "volume", sum->volume, api_scale(s[i].currency));
            jw_end_obj(w);
        }
    }
    jw_end_arr(w);
}

static void write_window(struct jw *w, const char *key, const struct store_stat *s, unsigned n)
{
    int64_t total = 0;
    for (unsigned i = 0; i < n; i++)
        total += s[i].count;
    jw_key(w, key);
    jw_obj(w);
    jw_kint(w, "count", total);
    jw_key(w, "by_type");
    jw_arr(w);
    for (unsigned i = 0; i < n; i++) {
        jw_obj(w);
        jw_kz(w, "type", ledger_kind_name(s[i].kind));
        jw_kstr(w, "currency", api_code(s[i].currency));
        jw_kint(w, "count", s[i].count);
        jw_kamount(w, "volume", s[i].volume, api_scale(s[i].currency));
        jw_end_obj(w);
    }
    jw_end_arr(w);
    write_statuses(w, s, n);
    jw_end_obj(w);
}

enum api_step payflow_stats(struct api_call *c)
{
    enum { CAP = 512 };
    struct store_stat *s = arena_alloc(&c->r->arena, CAP * sizeof *s);
    static const char *const keys[] = {"all_time", "last_day", "last_hour"};
    int64_t count = 0, rolled_back = 0;
    struct jw w = api_out(c);
    if (!s)
        return api_fail(c, PFE_NOMEM, "");
    jw_obj(&w);
    for (enum store_window win = STORE_WINDOW_ALL; win <= STORE_WINDOW_HOUR; win++) {
        unsigned n = 0;
        enum pf_err e = app_stats(c->app, win, s, CAP, &n);
        if (e != PFE_OK)
            return api_fail(c, e, "");
        for (unsigned i = 0; win == STORE_WINDOW_ALL && i < n; i++) {
            count += s[i].count;
            if (s[i].kind == LEDGER_ROLLBACK)
                rolled_back += s[i].count;
        }
        write_window(&w, keys[win], s, n);
    }
    jw_kint(&w, "total", count);
    jw_key(&w, "by_status");
    jw_obj(&w);
    jw_kint(&w, "completed", count - rolled_back);
    jw_kint(&w, "rolled_back", rolled_back);
    jw_end_obj(&w);
    jw_end_obj(&w);
    return api_ok(c, 200);
}
