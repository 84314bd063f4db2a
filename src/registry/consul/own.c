/* Our registrations, and the thread that keeps the agent in the know. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/rand.h"
#include "codec/json_in.h"
#include "codec/json_out.h"
#include "registry/consul/internal.h"

enum { CHECK_URL_MAX = 1024 };
static const int64_t second_us = 1000000, days_30_us = (int64_t)30 * 86400 * 1000000;

/* ---- what the agent is told */

static void put_time(struct jw *w, const char *key, int64_t us)
{
    char text[32];
    snprintf(text, sizeof text, "%lldms", (long long)(us / 1000));
    jw_kz(w, key, text);
}

static void put_check(struct jw *w, const struct registry_registration *what)
{
    jw_key(w, "Check");
    jw_obj(w);
    jw_kz(w, "Name", "HTTP");
    jw_kz(w, "HTTP", what->check_url);
    put_time(w, "Interval", what->check_interval_us);
    put_time(w, "Timeout", what->check_timeout_us);
    if (what->check_forget_us)
        put_time(w, "DeregisterCriticalServiceAfter", what->check_forget_us);
    jw_end_obj(w);
}

/* NULL: out of memory. */
static char *body_of(const struct registry_registration *what)
{
    struct buf b;
    struct jw w;
    buf_init(&b, 0);
    jw_init(&w, &b);
    jw_obj(&w);
    jw_kz(&w, "ID", what->id);
    jw_kz(&w, "Name", what->service);
    jw_kz(&w, "Address", what->address);
    jw_kint(&w, "Port", what->port);
    jw_key(&w, "Tags");
    jw_arr(&w);
    for (unsigned i = 0; i < what->n_tags; i++)
        jw_str(&w, str_c(what->tags[i]));
    jw_end_arr(&w);
    jw_key(&w, "Weights");
    jw_obj(&w);
    jw_kint(&w, "Passing", what->weight ? what->weight : 1);
    jw_kint(&w, "Warning", what->weight ? what->weight : 1);
    jw_end_obj(&w);
    if (!what->weight) {
        jw_key(&w, "Meta");
        jw_obj(&w);
        jw_kz(&w, "payflow_weight", "0");
        jw_end_obj(&w);
    }
    if (what->check_url)
        put_check(&w, what);
    jw_end_obj(&w);
    buf_putc(&b, '\0');
    size_t n;
    return buf_take(&b, &n);
}

static bool text_ok(const char *s, size_t cap)
{
    return s && *s && strlen(s) < cap && str_utf8_ok(str_c(s));
}

static bool registration_ok(const struct registry_registration *what)
{
    bool ok = text_ok(what->service, REGISTRY_NAME_MAX) && text_ok(what->id, REGISTRY_NAME_MAX) && what->address &&
              (!*what->address || text_ok(what->address, REGISTRY_ADDRESS_MAX)) && what->port &&
              what->weight <= WEIGHT_MAX && what->n_tags <= REGISTRY_TAGS_MAX;
    for (unsigned i = 0; ok && i < what->n_tags; i++)
        ok = text_ok(what->tags[i], TAG_MAX);
    if (!ok || !what->check_url)
        return ok;
    return text_ok(what->check_url, CHECK_URL_MAX) && what->check_interval_us >= second_us &&
           what->check_interval_us <= days_30_us && what->check_timeout_us >= 1000 &&
           what->check_timeout_us <= days_30_us && what->check_forget_us >= 0 && what->check_forget_us <= days_30_us;
}

/* ---- calls; own_lock is held */

/* A call that changes something is never broken off: the agent might do it after a later one. */
static long put(struct consul *c, const char *path, struct str body, int64_t timeout_ms, char why[WHY_MAX])
{
    c->own_talker.stop = NULL;
    return consul_talk(&c->own_talker, &c->where, "PUT", path, body, timeout_ms, why);
}

static bool tell(struct consul *c, struct own *o, long *ret_status, char why[WHY_MAX])
{
    *ret_status = put(c, "/v1/agent/service/register?replace-existing-checks=true", str_c(o->body), c->call_ms, why);
    o->told = *ret_status == 200;
    return o->told;
}

/* Gone, or it was not there. */
static bool take_out(struct consul *c, const struct own *o, int64_t timeout_ms, char why[WHY_MAX])
{
    char id[ESCAPED_MAX], path[ESCAPED_MAX + 64];
    consul_talk_escape(o->id, id);
    snprintf(path, sizeof path, "/v1/agent/service/deregister/%s", id);
    long status = put(c, path, STR(""), timeout_ms, why);
    return status == 200 || status == 404;
}

static void own_free(struct own *o)
{
    if (o)
        free(o->body);
    free(o);
}

static void drop(struct consul *c, unsigned at)
{
    own_free(c->own[at]);
    c->own[at] = NULL;
}

static bool says(const struct json *j, const char *key, const char *z)
{
    const struct json *v = json_get(j, key);
    return v && v->type == JSON_STRING && str_is(v->s, z);
}

/* Whether what the agent has is what it was told. */
static bool as_told(const struct own *o, struct str answer)
{
    struct arena a;
    struct json *j = NULL;
    uint64_t port = 0;
    arena_init(&a, NULL, 0, TREE_MAX);
    bool ok =
        json_parse(&a, answer, &j, NULL) == PFE_OK && says(j, "Service", o->service) && says(j, "Address", o->address);
    const struct json *p = ok ? json_get(j, "Port") : NULL;
    ok = p && p->type == JSON_NUMBER && str_to_u64(p->s, &port) && port == o->port;
    arena_reset(&a);
    return ok;
}

/* False: it could not be done; one line in why. */
static bool tend(struct consul *c, unsigned at, char why[WHY_MAX])
{
    struct own *o = c->own[at];
    char id[ESCAPED_MAX], path[ESCAPED_MAX + 32];
    long status;
    if (o->leaving) {
        if (!take_out(c, o, c->call_ms, why))
            return false;
        drop(c, at);
        return true;
    }
    if (!o->told)
        return tell(c, o, &status, why);
    consul_talk_escape(o->id, id);
    snprintf(path, sizeof path, "/v1/agent/service/%s", id);
    c->own_talker.stop = &c->stop;
    status = consul_talk(&c->own_talker, &c->where, "GET", path, STR_NONE, c->call_ms, why);
    if (status == 200 && as_told(o, buf_as_str(&c->own_talker.body)))
        return true;
    if (status != 200 && status != 404)
        return false;
    if (!tell(c, o, &status, why))
        return false;
    log_msg(LOG_INFO, "registered again", LOG_S("service", o->service), LOG_S("id", o->id));
    return true;
}

/* ---- the thread */

static bool tend_all(struct consul *c, bool *ret_any, char why[WHY_MAX])
{
    bool ok = true;
    *ret_any = false;
    for (unsigned i = 0; ok && i < REGISTRY_CONSUL_OWN_MAX && !atomic_load(&c->stop); i++) {
        pthread_mutex_lock(&c->own_lock);
        if (c->own[i]) {
            *ret_any = true;
            ok = tend(c, i, why);
        }
        pthread_mutex_unlock(&c->own_lock);
    }
    return ok;
}

static int64_t about(int64_t us)
{
    return us - us / 10 + (int64_t)(rand_u64() % (uint64_t)(us / 5 + 1));
}

static void *own_main(void *arg)
{
    struct consul *c = arg;
    unsigned failures = 0;
    int64_t wait = about((int64_t)c->keep_ms * 1000);
    while (consul_pause(c, wait, failures ? NULL : &c->hurry)) {
        char why[WHY_MAX] = "";
        bool any, ok = tend_all(c, &any, why);
        if (atomic_load(&c->stop))
            break;
        if (any)
            consul_note(c, &c->own_party, ok, why);
        failures = ok ? 0 : failures + 1;
        wait = ok ? about((int64_t)c->keep_ms * 1000) : consul_backoff(c, failures);
        if (!ok && wait > (int64_t)c->keep_ms * 1000)
            wait = about((int64_t)c->keep_ms * 1000);
    }
    return NULL;
}

/* own_lock is held. */
static bool run(struct consul *c)
{
    if (!c->own_running)
        c->own_running = pthread_create(&c->own_thread, NULL, own_main, c) == 0;
    return c->own_running;
}

static void hurry(struct consul *c)
{
    pthread_mutex_lock(&c->lock);
    c->hurry = true;
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

/* ---- the port */

/* The place of this id, or a free one. own_lock is held. REGISTRY_CONSUL_OWN_MAX: there is none. */
static unsigned place_of(const struct consul *c, const char *id)
{
    unsigned free_at = REGISTRY_CONSUL_OWN_MAX;
    for (unsigned i = 0; i < REGISTRY_CONSUL_OWN_MAX; i++) {
        if (c->own[i] && strcmp(c->own[i]->id, id) == 0)
            return i;
        if (!c->own[i] && free_at == REGISTRY_CONSUL_OWN_MAX)
            free_at = i;
    }
    return free_at;
}

static struct own *own_new(const struct registry_registration *what)
{
    struct own *o = calloc(1, sizeof *o);
    if (!o)
        return NULL;
    (void)str_copy(o->service, sizeof o->service, str_c(what->service)); /* they fit, see registration_ok */
    (void)str_copy(o->id, sizeof o->id, str_c(what->id));
    (void)str_copy(o->address, sizeof o->address, str_c(what->address));
    o->port = what->port;
    o->body = body_of(what);
    if (o->body)
        return o;
    own_free(o);
    return NULL;
}

/* Takes o. own_lock is held. */
static enum pf_err add(struct consul *c, struct own *o, char why[WHY_MAX])
{
    unsigned at = place_of(c, o->id);
    struct own *was = at < REGISTRY_CONSUL_OWN_MAX ? c->own[at] : NULL;
    if (at == REGISTRY_CONSUL_OWN_MAX || (was && !was->leaving && strcmp(was->service, o->service) != 0)) {
        if (was)
            snprintf(why, WHY_MAX, "instance %.60s is one of service %.60s; Consul knows instances by their ids alone",
                     o->id, was->service);
        else
            snprintf(why, WHY_MAX, "more than %d instances of our own", REGISTRY_CONSUL_OWN_MAX);
        own_free(o);
        return PFE_INVALID;
    }
    if (!run(c)) {
        snprintf(why, WHY_MAX, "no thread for our registrations");
        own_free(o);
        return PFE_NOMEM;
    }
    own_free(was);
    c->own[at] = o;
    long status;
    bool ok = tell(c, o, &status, why);
    if (status == 400) { /* however often: Consul does not take it */
        snprintf(why, WHY_MAX, "Consul refuses instance %.60s of service %.60s", o->id, o->service);
        drop(c, at);
        return PFE_INVALID;
    }
    consul_note(c, &c->own_party, ok, why);
    return ok ? PFE_OK : PFE_UNAVAILABLE;
}

enum pf_err consul_own_add(struct registry *r, const struct registry_registration *what, char why[WHY_MAX])
{
    struct consul *c = consul_of(r);
    if (!registration_ok(what)) {
        snprintf(why, WHY_MAX, "instance %.60s of service %.60s is out of range", what->id ? what->id : "",
                 what->service ? what->service : "");
        return PFE_INVALID;
    }
    struct own *o = own_new(what);
    if (!o) {
        snprintf(why, WHY_MAX, "out of memory");
        return PFE_NOMEM;
    }
    pthread_mutex_lock(&c->own_lock);
    enum pf_err e = add(c, o, why);
    pthread_mutex_unlock(&c->own_lock);
    if (e == PFE_UNAVAILABLE)
        hurry(c);
    return e;
}

enum pf_err consul_own_remove(struct registry *r, const char *service, const char *id, char why[WHY_MAX])
{
    struct consul *c = consul_of(r);
    enum pf_err e = PFE_NOT_FOUND;
    pthread_mutex_lock(&c->own_lock);
    unsigned at = place_of(c, id);
    struct own *o = at < REGISTRY_CONSUL_OWN_MAX ? c->own[at] : NULL;
    if (!o || o->leaving || strcmp(o->service, service) != 0) {
        snprintf(why, WHY_MAX, "there is no such instance");
    } else if (take_out(c, o, c->call_ms, why)) {
        drop(c, at);
        e = PFE_OK;
    } else {
        o->leaving = true;
        e = PFE_UNAVAILABLE;
    }
    if (e != PFE_NOT_FOUND)
        consul_note(c, &c->own_party, e == PFE_OK, why);
    pthread_mutex_unlock(&c->own_lock);
    if (e == PFE_UNAVAILABLE)
        hurry(c);
    return e;
}

void consul_own_leave(struct consul *c)
{
    int64_t end = consul_now() + (int64_t)c->leave_ms * 1000;
    unsigned left = 0;
    char why[WHY_MAX] = "no time is left";
    for (unsigned i = 0; i < REGISTRY_CONSUL_OWN_MAX; i++) {
        struct own *o = c->own[i];
        int64_t rest_ms = (end - consul_now()) / 1000;
        if (!o)
            continue;
        if (rest_ms > (int64_t)c->call_ms)
            rest_ms = c->call_ms;
        if (rest_ms <= 0 || !take_out(c, o, rest_ms, why))
            left++;
        drop(c, i);
    }
    if (left)
        log_msg(LOG_WARN, "instances of ours stay registered", LOG_I("instances", left), LOG_S("why", why));
}
