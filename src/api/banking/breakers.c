/* Banking: the circuit breakers, and the services to try one out. */
#include "api/banking/banking.h"
#include "app/breakers.h"

#include <stdio.h>

/* The seed's names. A breaker that is switched off lets all pass, one that is forced open lets none. */
static const char *state_name(enum breaker_state s)
{
    return s == BREAKER_DISABLED ? "closed" : s == BREAKER_FORCED_OPEN ? "open" : breaker_state_name(s);
}

void api_breakers_write(struct api_call *c, struct jw *w)
{
    char name[APP_BREAKER_NAME_MAX];
    struct breaker_figures f;
    for (unsigned i = 0; app_breaker_read(c->app, i, name, &f); i++) {
        jw_key(w, name);
        jw_obj(w);
        jw_kz(w, "state", state_name(f.state));
        jw_kuint(w, "total_requests", f.total_permitted + f.total_rejected);
        jw_kuint(w, "total_failures", f.total_failures);
        jw_kuint(w, "total_successes", f.total_successes);
        jw_kuint(w, "current_failures", f.consecutive_failures);
        jw_kuint(w, "total_rejected", f.total_rejected);
        jw_end_obj(w);
    }
}

enum api_step banking_breakers(struct api_call *c)
{
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_key(&w, "circuit_breakers");
    jw_obj(&w);
    api_breakers_write(c, &w);
    jw_end_obj(&w);
    jw_end_obj(&w);
    return api_ok(c, 200);
}

/* A problem with the words of the seed as its title and error. */
static enum api_step failed(struct api_call *c, enum pf_err e, const char *error, const char *service)
{
    const struct err_info *info = err_info(e);
    char type[64];
    snprintf(type, sizeof type, "/problems/%s", info->slug);
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kz(&w, "type", type);
    jw_kz(&w, "title", error);
    jw_kint(&w, "status", info->http);
    jw_kz(&w, "detail", service ? info->text : error);
    jw_kstr(&w, "instance", c->r->path);
    jw_kstr(&w, "request_id", c->r->request_id);
    jw_kz(&w, "error", error);
    jw_kint(&w, "code", info->http);
    if (service)
        jw_kz(&w, "service", service);
    jw_end_obj(&w);
    c->content_type = "application/problem+json";
    return api_ok(c, info->http);
}

/* Whole seconds until the breaker lets a call through, at least one. */
static void retry_after(struct api_call *c, enum app_trial t)
{
    char name[APP_BREAKER_NAME_MAX];
    struct breaker_figures f;
    char text[24];
    if (!app_breaker_read(c->app, t, name, &f))
        return;
    int64_t s = (f.retry_in_us + 999999) / 1000000;
    int n = snprintf(text, sizeof text, "%lld", (long long)(s > 0 ? s : 1));
    http_set_header(c->r, "Retry-After", (struct str){text, (size_t)n});
}

static enum api_step trial(struct api_call *c, enum app_trial t)
{
    enum pf_err e = app_trial_call(c->app, t);
    switch (e) {
    case PFE_OK:
        buf_puts(&c->r->out, "{\"message\":\"Circuit breaker test - success\",\"status\":\"ok\"}");
        return api_ok(c, 200);
    case PFE_INTERNAL:
        return failed(c, e, "Circuit breaker test - simulated failure", NULL);
    case PFE_TIMEOUT:
        return failed(c, e, "Circuit breaker test - simulated timeout", NULL);
    case PFE_BREAKER_OPEN:
        retry_after(c, t);
        return failed(c, e, "Service temporarily unavailable", app_trial_name(t));
    default:
        return api_fail(c, e, "");
    }
}

enum api_step banking_trial_success(struct api_call *c)
{
    return trial(c, TRIAL_SUCCESS);
}

enum api_step banking_trial_failure(struct api_call *c)
{
    return trial(c, TRIAL_FAILURE);
}

enum api_step banking_trial_timeout(struct api_call *c)
{
    return trial(c, TRIAL_TIMEOUT);
}
