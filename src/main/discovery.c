/* Discovery: the registry server that the settings name, and what an instance says of itself there. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "codec/json_out.h"
#include "main/main.h"
#include "registry/consul/consul.h"

static const char services[] = "consul_config.services";
enum { LEAVE_MS = 1000, LOOK_S = 5 };

enum pf_err main_registry_open(const struct conf *c, struct registry **ret, char why[256])
{
    return registry_consul_open(
        &(struct registry_consul_options){.address = c->consul_http_addr,
                                          .token = c->consul_http_token,
                                          .ca_file = c->consul_cacert,
                                          .datacenter = conf_tree(c, "consul_config.datacenter"),
                                          .leave_ms = LEAVE_MS},
        ret, why);
}

/* ---- an instance of ours */

static const char *text(const struct conf *c, const char *service, const char *key)
{
    char path[256];
    snprintf(path, sizeof path, "%s.%s.%s", services, service, key);
    return conf_tree(c, path);
}

static int64_t number(const struct conf *c, const char *service, const char *key, int64_t otherwise)
{
    char path[256];
    snprintf(path, sizeof path, "%s.%s.%s", services, service, key);
    return conf_tree_number(c, path, otherwise);
}

/* Where others find what listens here; "" (all addresses): only the agent beside it knows. */
static const char *address_of(const struct conf *c, const char *service, const char *host)
{
    const char *said = text(c, service, "address");
    return said ? said : strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 ? "" : host;
}

static void announce(const struct conf *c, struct registry *r, const char *service, const char *host, uint16_t port)
{
    const char *tags[REGISTRY_TAGS_MAX], *name = text(c, service, "name"), *id = text(c, service, "id");
    char why[256] = "", key[32];
    struct registry_registration what = {
        .service = name ? name : service,
        .id = id     ? id
              : name ? name
                     : service,
        .address = address_of(c, service, host),
        .port = port,
        .weight = (unsigned)number(c, service, "weight", 1),
        .tags = tags,
        .check_url = text(c, service, "checks.0.http"),
        .check_interval_us = number(c, service, "checks.0.interval", 10000000),
        .check_timeout_us = number(c, service, "checks.0.timeout", 5000000),
        .check_forget_us = number(c, service, "checks.0.deregister_critical_service_after", 600000000)};
    for (const char *tag; what.n_tags < REGISTRY_TAGS_MAX; what.n_tags++) {
        snprintf(key, sizeof key, "tags.%u", what.n_tags);
        if (!(tag = text(c, service, key)))
            break;
        tags[what.n_tags] = tag;
    }
    enum pf_err e = registry_add(r, &what, why);
    if (e == PFE_OK)
        log_msg(LOG_INFO, "registered", LOG_S("service", what.service), LOG_S("id", what.id),
                LOG_S("address", what.address), LOG_I("port", port));
    else
        log_msg(LOG_WARN, e == PFE_UNAVAILABLE ? "not registered yet" : "not registered",
                LOG_S("service", what.service), LOG_S("id", what.id), LOG_S("why", why));
}

void main_registry_announce(const struct conf *c, struct registry *r, const char *host, uint16_t port)
{
    char service[CONF_TREE_NAME];
    size_t pos = 0;
    while (r && conf_tree_child(c, services, &pos, service))
        if (number(c, service, "port", 0) == port)
            announce(c, r, service, host, port);
}

/* ---- payflow discovery */

struct look {
    pthread_mutex_t lock;
    pthread_cond_t came;
    struct buf out;
    struct jw w; /* into out */
    bool json, known;
};

static void put_service(void *ctx, const char *service)
{
    struct look *l = ctx;
    if (l->json)
        jw_str(&l->w, str_c(service));
    else
        buf_printf(&l->out, "%s\n", service);
}

static void put_instance(struct look *l, const struct registry_instance *i)
{
    struct jw *w = &l->w;
    static const char *const health[] = {"passing", "warning", "critical"};
    if (!l->json) {
        buf_printf(&l->out, "%s %s:%u weight=%u %s", i->id, i->address, i->port, i->weight, health[i->health]);
        for (unsigned t = 0; t < i->n_tags; t++)
            buf_printf(&l->out, " %s", i->tags[t]);
        buf_putc(&l->out, '\n');
        return;
    }
    jw_obj(w);
    jw_kz(w, "id", i->id);
    jw_kz(w, "address", i->address);
    jw_kint(w, "port", i->port);
    jw_kint(w, "weight", i->weight);
    jw_kz(w, "health", health[i->health]);
    jw_key(w, "tags");
    jw_arr(w);
    for (unsigned t = 0; t < i->n_tags; t++)
        jw_str(w, str_c(i->tags[t]));
    jw_end_arr(w);
    jw_end_obj(w);
}

static void on_list(void *ctx, const struct registry_list *list)
{
    struct look *l = ctx;
    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < list->n && !l->known; i++) /* the first list is the answer */
        put_instance(l, &list->instances[i]);
    l->known = true;
    pthread_cond_broadcast(&l->came);
    pthread_mutex_unlock(&l->lock);
}

static enum pf_err look_at(struct registry *r, const char *service, struct look *l, char why[256])
{
    struct timespec end;
    int timed_out = 0;
    snprintf(why, 256, "Consul does not answer");
    enum pf_err e = registry_watch(r, service, on_list, l);
    if (e != PFE_OK)
        return e;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += LOOK_S;
    pthread_mutex_lock(&l->lock);
    while (!l->known && !timed_out)
        timed_out = pthread_cond_clockwait(&l->came, &l->lock, CLOCK_MONOTONIC, &end);
    pthread_mutex_unlock(&l->lock);
    return l->known ? PFE_OK : PFE_UNAVAILABLE;
}

int run_discovery(const struct conf *c, const struct options *o)
{
    char why[256] = "CONSUL_HTTP_ADDR is not set";
    struct registry *r = NULL;
    struct look l = {.lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER, .json = o->json};
    if (!c->consul_http_addr[0] || main_registry_open(c, &r, why) != PFE_OK) {
        fprintf(stderr, "payflow: %s\n", why);
        return EXIT_CONF;
    }
    log_set_level(LOG_ERROR); /* what fails is said below */
    buf_init(&l.out, 0);
    jw_init(&l.w, &l.out);
    if (o->json)
        jw_arr(&l.w);
    enum pf_err e = o->n_words ? look_at(r, o->words[0], &l, why) : registry_services(r, put_service, &l, why);
    registry_close(r);
    if (o->json) {
        jw_end_arr(&l.w);
        buf_putc(&l.out, '\n');
    }
    if (e == PFE_OK && !l.out.failed)
        fwrite(l.out.p, 1, l.out.n, stdout);
    else
        fprintf(stderr, "payflow: %s\n", why);
    buf_free(&l.out);
    return e == PFE_OK ? EXIT_OK : EXIT_FAILED;
}
