/* From request to route and back: credential, right, limits, decoding, idempotency, the thread it runs on, the answer.
 */
#include "api/call.h"
#include "api/platform/platform.h"
#include "app/lastgood.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "codec/crypt.h"

enum api_step api_fail(struct api_call *c, enum pf_err e, const char *detail)
{
    problem_set(&c->p, e, "%s", detail);
    return API_DONE;
}

enum api_step api_ok(struct api_call *c, int status)
{
    c->status = status;
    return API_DONE;
}

struct jw api_out(struct api_call *c)
{
    struct jw w;
    jw_init(&w, &c->r->out);
    return w;
}

bool api_failed(struct api_call *c, enum pf_err e, const char *detail, enum api_step *ret)
{
    if (e == PFE_OK)
        return false;
    if (e == PFE_BUSY && !c->may_block) {
        *ret = API_BLOCK;
        return true;
    }
    if (c->p.code == PFE_OK)
        problem_set(&c->p, e, "%s", detail);
    *ret = API_DONE;
    return true;
}

static void suspend(struct api_call *c, void (*then)(struct api_call *c))
{
    c->resumed = then;
    c->transport->suspend(c);
}

static void send_answer(struct api_call *c)
{
    app_idem_end(c->app, &c->idem);
    /* perhaps done, but there is no memory to say so: not a 503, which says that it was not */
    if (c->p.code == PFE_OK && c->r->out.failed && c->r->method != HTTP_GET)
        api_fail(c, PFE_INTERNAL, "the request was carried out; its answer could not be written");
    c->transport->answer(c);
}

/* ---- idempotency ---- */

/* Path and query: what distinguishes …?user_id=1 from …?user_id=2. */
static void put_target(struct buf *b, const struct http_req *r)
{
    buf_str(b, r->path);
    for (unsigned i = 0; i < r->n_query; i++) {
        buf_putc(b, i ? '&' : '?');
        buf_str(b, r->query[i].name);
        buf_putc(b, '=');
        buf_str(b, r->query[i].value);
    }
}

static void put_value(struct buf *b, const struct json *v)
{
    buf_printf(b, "%d:%zu:", (int)v->type, v->s.n);
    buf_str(b, v->s);
    for (const struct json *m = v->child; m; m = m->next) {
        buf_printf(b, "(%zu:", m->key.n);
        buf_str(b, m->key);
        put_value(b, m);
        buf_putc(b, ')');
    }
}

/* What a body says to this row: its fields in their order, null being as good as none. */
static void put_fields(struct buf *b, const struct api_call *c)
{
    for (const struct api_field *f = c->route->body; f->name; f++) {
        const struct json *v = json_get(c->json, f->name);
        if (!v || v->type == JSON_NULL)
            continue;
        buf_printf(b, "%s=", f->name);
        put_value(b, v);
        buf_putc(b, '\n');
    }
}

static bool read_key(struct api_call *c)
{
    struct str v = c->transport->header(c, "Idempotency-Key");
    if (!v.p || c->route->idem == NO_KEY)
        return true;
    if (c->transport->header_count(c, "Idempotency-Key") > 1) {
        api_fail(c, PFE_BAD_HEADER, "Idempotency-Key must be sent once");
        return false;
    }
    if (!http_idempotency_key(v, &c->p, &c->idem.key))
        return false;
    c->idem.principal = c->caller.who.user;
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, http_method_name(c->r->method));
    buf_putc(&b, '\n');
    if (c->route->by_value) {
        buf_str(&b, c->r->path);
        buf_putc(&b, '\n');
        put_fields(&b, c);
    } else {
        put_target(&b, c->r);
        buf_putc(&b, '\n');
        buf_str(&b, c->r->body);
    }
    bool ok = !b.failed;
    if (ok)
        sha256_of(buf_as_str(&b), c->idem.request);
    else
        api_fail(c, PFE_NOMEM, "");
    buf_free(&b);
    return ok;
}

static bool begin_idempotent(struct api_call *c)
{
    if (!read_key(c))
        return false;
    enum pf_err e = app_idem_begin(c->app, &c->idem);
    if (e != PFE_OK) {
        c->p.retry_after_s = 1;
        api_fail(c, e, "");
        return false;
    }
    if (c->idem.key.n && c->route->idem == KEY_IN_APP) {
        e = app_idem_lookup(c->app, &c->r->arena, &c->idem);
        if (e != PFE_OK)
            api_fail(c, e, "");
        return e == PFE_OK && !c->idem.replayed;
    }
    return true;
}

/* ---- whom it is about ---- */

static enum api_step find_subject(struct api_call *c, bool *found)
{
    const char *s = c->route->subject;
    *found = false;
    if (!s || strcmp(s, "handler") == 0) {
        *found = true;
        return API_DONE;
    }
    if (strcmp(s, "self") == 0) {
        c->subject = c->caller.who.user;
    } else if (strcmp(s, "path:id") == 0) {
        enum api_step step;
        enum pf_err e = app_user_ref(c->app, c->r->params[0], c->may_block, &c->subject);
        if (api_failed(c, e == PFE_INVALID ? PFE_NOT_FOUND : e, "there is no such user", &step))
            return step;
    } else {
        bool in_body = strncmp(s, "body:", 5) == 0;
        const struct api_field *f = in_body ? c->route->body : c->route->query;
        const struct api_value *v = in_body ? c->body : c->query;
        unsigned i = 0;
        while (strcmp(f[i].name, s + (in_body ? 5 : 6)) != 0)
            i++;
        c->subject = v[i].set ? v[i].i : c->caller.who.user;
        if (!c->subject) {
            problem_field(&c->p, in_body ? "body" : "query", f[i].name, "missing", "is required");
            return API_DONE;
        }
    }
    *found = c->route->rule.right != RIGHT_OWNER || app_require_owner(&c->caller.who, c->subject, &c->p) == PFE_OK;
    return API_DONE;
}

/* ---- limits ---- */

static bool within(struct api_call *c, const struct app_limit *l)
{
    if (!l->limited)
        return true;
    char text[96];
    int n = snprintf(text, sizeof text, "\"default\";r=%lld;t=%lld", (long long)l->remaining, (long long)l->reset_s);
    c->transport->set_header(c, "RateLimit", (struct str){text, (size_t)n});
    n = snprintf(text, sizeof text, "\"default\";q=%lld;w=60", (long long)l->limit);
    c->transport->set_header(c, "RateLimit-Policy", (struct str){text, (size_t)n});
    if (l->allowed)
        return true;
    metric_inc(c->api->rate_limited, 1);
    c->p.retry_after_s = (int)(l->reset_s > 0 ? l->reset_s : 1);
    problem_set(&c->p, PFE_RATE_LIMITED, "%lld requests a minute are allowed", (long long)l->limit);
    return false;
}

static bool within_rate(struct api_call *c)
{
    struct app_limit l;
    /* probes, metrics and documentation are not what the limit is for; what anybody may read of the store is */
    if (c->counted ||
        (c->route->rule.right == RIGHT_PUBLIC && c->r->method == HTTP_GET && c->route->exec == EXEC_INLINE))
        return true;
    c->counted = true;
    app_rate_check(c->app, &c->caller, &l);
    return within(c, &l);
}

/* What was read while the primary is not there may be behind by that much; -1: it was never read. */
static void mark_stale(struct api_call *c, int64_t us)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%lld", (long long)(us + 999999) / 1000000);
    if (us >= 0)
        c->transport->set_header(c, "Age", (struct str){text, (size_t)n});
    c->transport->set_header(c, "X-PayFlow-Stale", STR("true"));
}

/* All that an answer depends on, but for who asks. */
static bool describe(struct api_call *c, struct buf *ret)
{
    buf_init(ret, 0);
    put_target(ret, c->r);
    return !ret->failed;
}

/* A read that the store has answered is kept for the time when it cannot: neither its primary nor a replica. */
static void keep_or_find(struct api_call *c)
{
    struct buf request;
    int64_t age_us;
    if (c->route->rule.right == RIGHT_PUBLIC || c->file || c->content_type)
        return;
    bool ok = c->p.code == PFE_OK && c->status == 200 && !c->r->out.failed;
    if (!ok && c->p.code != PFE_UNAVAILABLE)
        return;
    if (!describe(c, &request)) {
        buf_free(&request);
        return;
    }
    if (ok) {
        app_lastgood_keep(c->app, &c->caller.who, buf_as_str(&request), buf_as_str(&c->r->out));
    } else {
        buf_clear(&c->r->out);
        if (app_lastgood_get(c->app, &c->caller.who, buf_as_str(&request), &c->r->out, &age_us) && !c->r->out.failed) {
            c->p = (struct problem){0};
            c->status = 200;
            mark_stale(c, age_us);
        }
    }
    buf_free(&request);
}

static const char given_up[] = "the call was given up before it began: nothing was done";

static enum api_step decode_and_run(struct api_call *c)
{
    enum api_step step = api_decode_all(c);
    if (step != API_DONE || c->p.code != PFE_OK)
        return step;
    bool found;
    step = find_subject(c, &found);
    if (step != API_DONE || !found)
        return step;
    if (c->route->idem != NO_KEY && !begin_idempotent(c))
        return API_DONE;
    if (c->transport->gone(c))
        return api_fail(c, PFE_TIMEOUT, given_up);
    step = c->route->run(c);
    if (step == API_BLOCK) /* it will begin again on a worker */
        app_idem_end(c->app, &c->idem);
    return step;
}

/* A refused credential counts against the address that it came from. With that used up, only callers who are remembered
   get in from there: the store is not asked about guesses without end. */
static enum app_auth authenticate(struct api_call *c, struct str key, struct str auth)
{
    struct app_limit l;
    enum app_auth is = app_authenticate(c->app, key, auth, false, &c->caller.who, &c->p);
    if (is == APP_AUTH_WOULD_BLOCK && c->may_block) {
        app_rate_guess(c->app, &c->caller, false, &l);
        if (!l.allowed) {
            if (!c->route->rule.any)
                (void)within(c, &l);
            return APP_AUTH_REFUSED;
        }
        is = app_authenticate(c->app, key, auth, true, &c->caller.who, &c->p);
    }
    if (is == APP_AUTH_REFUSED && c->p.code == PFE_BAD_CREDENTIALS && !c->guessed) {
        c->guessed = true;
        app_rate_guess(c->app, &c->caller, true, &l);
    }
    return is;
}

static enum api_step check_and_run(struct api_call *c)
{
    const struct api_transport *t = c->transport;
    struct str key = t->header(c, "X-API-Key"), auth = t->header(c, "Authorization");
    if (t->header_count(c, "X-API-Key") > 1 || t->header_count(c, "Authorization") > 1)
        return api_fail(c, PFE_BAD_HEADER, "a credential must be sent once");
    switch (authenticate(c, key, auth)) {
    case APP_AUTH_WOULD_BLOCK:
        return API_BLOCK;
    case APP_AUTH_REFUSED:
        if (!c->route->rule.any)
            return API_DONE;
        /* who logs in or refreshes may still send the token that has expired */
        c->p = (struct problem){0};
        c->caller.who = (struct principal){0};
        break;
    case APP_AUTH_OK:
        break;
    }
    c->r->log_principal = c->caller.who.user;
    if (!within_rate(c))
        return API_DONE;
    if (app_admit(c->app, &c->route->rule, &c->caller.who, &c->p) != PFE_OK)
        return API_DONE;
    return decode_and_run(c);
}

/* What is only shown may be stale, when there is no better: on a worker, for an I/O thread knows of nothing better. */
static enum api_step show(struct api_call *c)
{
    struct app *a = c->app; /* c may be gone afterwards */
    app_stale_begin(a);
    enum api_step step = check_and_run(c);
    int64_t us = app_stale_end(a);
    if (step == API_DONE && us && c->p.code == PFE_OK)
        mark_stale(c, us);
    else if (step == API_DONE)
        keep_or_find(c);
    return step;
}

static enum api_step run_call(struct api_call *c)
{
    app_trust(c->trusted);
    enum api_step step = c->may_block && c->route->method == HTTP_GET ? show(c) : check_and_run(c);
    app_trust(false);
    if (step != API_DONE || c->p.code != PFE_FORBIDDEN || !c->caller.who.user)
        return step;
    if (!c->may_block) { /* who tried what they may not is written down: on a worker */
        app_idem_end(c->app, &c->idem);
        c->p = (struct problem){0};
        return API_BLOCK;
    }
    app_audit_refusal(c->app, &c->caller, c->route->id, c->route->tag, c->r->path);
    return step;
}

/* ---- threads ---- */

static void resumed(struct api_call *c)
{
    c->suspended = false;
    if (c->render) { /* back from the ledger */
        if (c->job.err != PFE_OK && c->p.code == PFE_OK)
            problem_set(&c->p, c->job.err, "%s", "");
        if (c->p.code == PFE_OK && !c->idem.replayed && c->r->out.n == 0)
            c->render(c);
    }
    send_answer(c);
}

static void run_on_worker(struct pool_job *job)
{
    struct api_call *c = (struct api_call *)((char *)job - offsetof(struct api_call, pool_job));
    c->may_block = true;
    if (run_call(c) == API_DONE)
        c->transport->resume(c);
}

static void to_worker(struct api_call *c)
{
    struct pool *pool = c->route->exec == EXEC_HASH ? c->api->cfg.hashers : c->api->cfg.workers;
    suspend(c, resumed);
    c->suspended = true;
    c->pool_job.run = run_on_worker;
    if (!pool_submit(pool, &c->pool_job)) {
        api_fail(c, PFE_BUSY, "too many requests are waiting");
        c->transport->resume(c);
    }
}

static void start(struct api_call *c)
{
    if (c->route->exec != EXEC_INLINE) {
        to_worker(c);
        return;
    }
    switch (run_call(c)) {
    case API_DONE:
        send_answer(c);
        break;
    case API_BLOCK:
        to_worker(c);
        break;
    case API_PENDING:
        break;
    }
}

/* On a thread of the cache's. */
static void on_confirm(struct cache_confirm *q, bool good)
{
    struct api_call *c = (struct api_call *)((char *)q - offsetof(struct api_call, question));
    c->trusted = good;
    c->transport->resume(c);
}

void api_begin(struct api_call *c)
{
    if (c->route->method == HTTP_GET && c->route->rule.right != RIGHT_PUBLIC && app_confirms(c->app)) {
        suspend(c, start);
        c->question.fn = on_confirm;
        app_confirm(c->app, &c->question);
        return;
    }
    start(c);
}

/* ---- the ledger ---- */

static void ledger_render(struct job *j)
{
    struct api_call *c = j->ctx;
    c->render(c);
    j->idem.status = c->r->out.failed ? 0 : c->status;
    j->idem.body = buf_as_str(&c->r->out);
}

static void ledger_done(struct job *j)
{
    struct api_call *c = j->ctx;
    c->idem = j->idem; /* reserved, replayed, and the earlier answer */
    if (j->err == PFE_KEY_REUSED)
        problem_set(&c->p, j->err, "this key came with another method, path or body");
    else if (j->err != PFE_OK && j->refusal)
        c->refused ? c->refused(j) : app_movement_problem(&j->m[0], &c->p);
    else if (j->err != PFE_OK)
        problem_set(&c->p, j->err, "%s", j->err == PFE_TIMEOUT ? given_up : "");
    c->transport->resume(c);
}

/* On the writer's thread, before the group begins. */
static bool job_gone(const struct job *j)
{
    const struct api_call *c = j->ctx;
    return c->transport->gone(c);
}

enum api_step api_ledger(struct api_call *c)
{
    struct job *j = &c->job;
    j->actor = c->caller.who.user;
    j->idem = c->idem;
    j->arena = &c->r->arena;
    j->render = ledger_render;
    j->done = ledger_done;
    j->gone = job_gone;
    j->ctx = c;
    if (!c->status)
        c->status = c->route->ok;
    bool was_suspended = c->suspended;
    if (!was_suspended) {
        suspend(c, resumed);
        c->suspended = true;
    }
    enum pf_err e = app_submit(c->app, j);
    if (e == PFE_OK)
        return API_PENDING; /* c may be gone already */
    api_fail(c, e, "");
    if (was_suspended)
        return API_DONE; /* the worker resumes it */
    c->transport->resume(c);
    return API_PENDING;
}

/* ---- tables ---- */

static bool serves(const struct api *a, const char *path)
{
    static const struct {
        const char *prefix;
        unsigned of;
    } parts[] = {{"/health", ~0u},
                 {"/metrics", ~0u},
                 {"/api/auth/", API_IDENTITY},
                 {"/api/events", API_EVENT},
                 {"/api/bookings", API_BOOKING}};
    for (size_t i = 0; a->cfg.surfaces != API_ALL && i < sizeof parts / sizeof *parts; i++)
        if ((parts[i].of & a->cfg.surfaces) && strncmp(path, parts[i].prefix, strlen(parts[i].prefix)) == 0)
            return true;
    return a->cfg.surfaces == API_ALL;
}

static void add_rows(struct api *a, const struct api_route *rows, size_t n, bool banking)
{
    static const char prefix[] = "/api/v1";
    for (size_t i = 0; i < n; i++) {
        if (!serves(a, rows[i].path))
            continue;
        a->rows[a->n_rows++] = &rows[i];
        a->http[a->n_http++] = (struct http_route){rows[i].method, rows[i].path, rows[i].body_max, &rows[i]};
        /* the Banking seed's collection sets base_url without /api/v1: its requests must work as written */
        if (banking && strncmp(rows[i].path, prefix, sizeof prefix - 1) == 0 &&
            strcmp(rows[i].path, "/api/v1/metrics/basic") != 0)
            a->http[a->n_http++] =
                (struct http_route){rows[i].method, rows[i].path + sizeof prefix - 1, rows[i].body_max, &rows[i]};
    }
}

struct api *api_new(const struct api_config *c)
{
    struct api *a = calloc(1, sizeof *a);
    struct buf doc;
    struct str bad;
    if (!a)
        return NULL;
    buf_init(&doc, 0);
    a->cfg = *c;
    size_t n = api_payflow_routes_n + 2 * api_banking_routes_n + api_ticketing_routes_n + api_platform_routes_n;
    a->http = calloc(n, sizeof *a->http);
    a->rows = calloc(n, sizeof *a->rows);
    if (!a->http || !a->rows || !cidr_list_parse(str_c(c->trusted_proxies), &a->proxies, &bad))
        goto fail;
    add_rows(a, api_payflow_routes, api_payflow_routes_n, false);
    add_rows(a, api_banking_routes, api_banking_routes_n, true);
    add_rows(a, api_ticketing_routes, api_ticketing_routes_n, false);
    add_rows(a, api_platform_routes, api_platform_routes_n, false);
    for (size_t i = 0; i < a->n_rows; i++) {
        const struct app_rule *rule = &a->rows[i]->rule;
        if (rule->right == RIGHT_NONE || (rule->right == RIGHT_OWNER && !a->rows[i]->subject))
            goto fail; /* nobody said who may: nothing is served */
    }
    a->rate_limited = metric_counter(c->metrics, "payflow_rate_limited_total", "Requests refused by RATE_LIMIT.", "");

    if (api_openapi_render(a, &doc) != PFE_OK)
        goto fail;
    a->openapi.p = buf_take(&doc, &a->openapi.n);
    if (!a->openapi.p)
        goto fail;
    return a;
fail:
    buf_free(&doc);
    api_free(a);
    return NULL;
}

void api_free(struct api *a)
{
    if (!a)
        return;
    free((void *)(uintptr_t)a->openapi.p);
    free(a->rows);
    free(a->http);
    free(a);
}

const struct http_route *api_routes(const struct api *a, size_t *ret_n)
{
    *ret_n = a->n_http;
    return a->http;
}
