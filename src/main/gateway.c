/* payflow serve --role gateway: the gateway, wired together from the settings. */
#include "gateway/gateway.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "main/main.h"
#include "registry/static/static.h"

enum { BACKENDS_MAX = 1024, BREAKERS_MAX = 64, SERVICES_MAX = 256, DRAIN_GRACE_MS = 500, LAST_ANSWERS_MS = 1000 };

/* What the settings say, with the memory behind it. */
struct plan {
    struct gateway_config c;
    struct gateway_backend backends[BACKENDS_MAX];
    char names[BACKENDS_MAX][CONF_TREE_NAME], urls[BACKENDS_MAX][300];
    struct gateway_breaker breakers[BREAKERS_MAX];
    char breaker_names[BREAKERS_MAX][CONF_TREE_NAME];
    struct registry_static_entry services[SERVICES_MAX];
    char service_names[SERVICES_MAX][CONF_TREE_NAME];
    const char *tags[SERVICES_MAX][REGISTRY_TAGS_MAX];
    size_t n_services;
};

struct running {
    struct metrics *metrics;
    struct registry *registry;
    struct registry *list; /* the same, if it is the settings' own */
    struct registry *own;  /* where this instance is registered; NULL: nowhere */
    struct gateway *gateway;
    struct http_server *http;
    atomic_bool draining;
};

/* Where the other roles listen when nothing is said. */
static const char *const default_urls[GATEWAY_GROUPS] = {
    [GATEWAY_API] = "http://127.0.0.1:8080",
    [GATEWAY_IDENTITY] = "http://127.0.0.1:8081",
    [GATEWAY_EVENT] = "http://127.0.0.1:8082",
    [GATEWAY_BOOKING] = "http://127.0.0.1:50051",
};

static bool is_draining(void *ctx)
{
    return atomic_load(&((struct running *)ctx)->draining);
}

/* ---- settings */

static const char *text(const struct conf *c, const char *prefix, const char *name, const char *key)
{
    char path[256];
    snprintf(path, sizeof path, "%s.%s.%s", prefix, name, key);
    return conf_tree(c, path);
}

static int64_t number(const struct conf *c, const char *prefix, const char *name, const char *key, int64_t otherwise)
{
    char path[256];
    snprintf(path, sizeof path, "%s.%s.%s", prefix, name, key);
    return conf_tree_number(c, path, otherwise);
}

static void plan_breakers(struct plan *p, const struct conf *c)
{
    static const char prefix[] = "resilience4j.circuitbreaker.instances";
    size_t pos = 0;
    for (; p->c.n_breakers < BREAKERS_MAX && conf_tree_child(c, prefix, &pos, p->breaker_names[p->c.n_breakers]);
         p->c.n_breakers++) {
        const char *name = p->breaker_names[p->c.n_breakers];
        struct breaker_config b = main_breaker(c, name, breaker_defaults());
        p->breakers[p->c.n_breakers] = (struct gateway_breaker){name, b};
    }
    p->c.breakers = p->breakers;
}

static void plan_fallback(struct plan *p, const struct conf *c)
{
    char ignored[CONF_TREE_NAME];
    size_t pos = 0;
    p->c.fallback = conf_tree_child(c, "fallback", &pos, ignored); /* old answers only where somebody asked for them */
    p->c.fallback_config = main_fallback(c);
}

static void plan_balancer(struct plan *p, const struct conf *c)
{
    struct balancer_config b = balancer_defaults();
    const char *cookie = conf_tree(c, "load_balancer.sticky_sessions.cookie_name");
    const char *path = conf_tree(c, "load_balancer.health_check.path");
    b.algorithm = main_algorithm(c);
    bool set = c->values[CONF_LB_HEALTH_CHECK_INTERVAL].source != CONF_DEFAULT;
    b.check_interval_us = set ? c->lb_health_check_interval * 1000000
                              : conf_tree_number(c, "load_balancer.health_check.interval", b.check_interval_us);
    b.check_timeout_us = conf_tree_number(c, "load_balancer.health_check.timeout", b.check_timeout_us);
    b.healthy_threshold =
        (unsigned)conf_tree_number(c, "load_balancer.health_check.healthy_threshold", b.healthy_threshold);
    b.unhealthy_threshold =
        (unsigned)conf_tree_number(c, "load_balancer.health_check.unhealthy_threshold", b.unhealthy_threshold);
    b.sticky = conf_tree_number(c, "load_balancer.sticky_sessions.enabled", 0);
    b.max_queue = (unsigned)conf_tree_number(c, "load_balancer.max_queue", b.max_queue);
    b.queue_timeout_us = conf_tree_number(c, "load_balancer.queue_timeout", b.queue_timeout_us);
    b.eject_after = (unsigned)conf_tree_number(c, "load_balancer.ejection.consecutive_failures", b.eject_after);
    b.eject_us = conf_tree_number(c, "load_balancer.ejection.base_time", b.eject_us);
    b.eject_max_us = conf_tree_number(c, "load_balancer.ejection.max_time", b.eject_max_us);
    if (b.eject_max_us < b.eject_us)
        b.eject_max_us = b.eject_us;
    b.max_ejected = (unsigned)conf_tree_number(c, "load_balancer.ejection.max_percent", b.max_ejected);
    b.slow_start_us = conf_tree_number(c, "load_balancer.slow_start", b.slow_start_us);
    b.panic = (unsigned)conf_tree_number(c, "load_balancer.panic_threshold", b.panic);
    b.lease_us = conf_tree_number(c, "load_balancer.lease", b.lease_us);
    for (unsigned i = 0; i < GATEWAY_GROUPS; i++) {
        p->c.balancer[i] = b;
        p->c.service[i] = text(c, "load_balancer", "services", gateway_group_name((enum gateway_group)i));
    }
    p->c.balancer[GATEWAY_BOOKING].sticky = false; /* gRPC has no cookies */
    p->c.cookie_name = cookie ? cookie : "SERVERID";
    p->c.health_path =
        c->values[CONF_LB_HEALTH_CHECK_PATH].source == CONF_DEFAULT && path ? path : c->lb_health_check_path;
}

/* The services of consul_config are the embedded list: one instance each, unless a registry server knows more. */
static void plan_services(struct plan *p, const struct conf *c)
{
    static const char prefix[] = "consul_config.services";
    size_t pos = 0;
    for (; p->n_services < SERVICES_MAX && conf_tree_child(c, prefix, &pos, p->service_names[p->n_services]);
         p->n_services++) {
        const char *key = p->service_names[p->n_services], *name = text(c, prefix, key, "name"),
                   *id = text(c, prefix, key, "id"), *address = text(c, prefix, key, "address");
        struct registry_static_entry *e = &p->services[p->n_services];
        e->service = name ? name : key;
        e->instance = (struct registry_instance){.id = id ? id : e->service,
                                                 .address = address ? address : "127.0.0.1",
                                                 .port = (uint16_t)number(c, prefix, key, "port", 0),
                                                 .weight = (unsigned)number(c, prefix, key, "weight", 1),
                                                 .tags = p->tags[p->n_services]};
        for (unsigned t = 0; t < REGISTRY_TAGS_MAX; t++) {
            char path[256];
            snprintf(path, sizeof path, "%s.%s.tags.%u", prefix, key, t);
            const char *tag = conf_tree(c, path);
            if (!tag)
                break;
            p->tags[p->n_services][e->instance.n_tags++] = tag;
        }
    }
}

/* A backend without url is an instance of a service in the list: the one with its name as id, or, for NAME-n, the nth
 * of service NAME (of which the list may have fewer: then they are counted round). */
static const struct registry_instance *instance_named(const struct plan *p, const char *name)
{
    const struct registry_instance *found[SERVICES_MAX];
    size_t n_found = 0;
    for (size_t i = 0; i < p->n_services; i++) {
        if (strcmp(p->services[i].instance.id, name) == 0)
            return &p->services[i].instance;
    }
    const char *dash = strrchr(name, '-');
    uint64_t nth = 0;
    if (!dash || !str_to_u64(str_c(dash + 1), &nth) || nth == 0)
        return NULL;
    for (size_t i = 0; i < p->n_services; i++) {
        if (str_eq(str_c(p->services[i].service), (struct str){name, (size_t)(dash - name)}))
            found[n_found++] = &p->services[i].instance;
    }
    return n_found ? found[(nth - 1) % n_found] : NULL;
}

/* A name, an IPv4 address, or an IPv6 address in brackets. */
static bool host_ok(struct str h)
{
    char text[INET6_ADDRSTRLEN];
    unsigned char address[sizeof(struct in6_addr)];
    if (h.n > 2 && h.p[0] == '[')
        return h.p[h.n - 1] == ']' && str_copy(text, sizeof text, (struct str){h.p + 1, h.n - 2}) &&
               inet_pton(AF_INET6, text, address) == 1;
    for (size_t i = 0; i < h.n; i++) {
        char c = h.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr(".-_", c)))
            return false;
    }
    return h.n > 0;
}

/* http://HOST:PORT, nothing behind it but a slash. */
static bool url_ok(const char *url, char out[300])
{
    struct str s = str_c(url), http = STR("http://");
    while (s.n > http.n && s.p[s.n - 1] == '/')
        s.n--;
    if (!str_starts(s, http))
        return false;
    const char *at = s.p + http.n, *end = s.p + s.n, *colon = memrchr(at, ':', (size_t)(end - at));
    uint64_t port;
    return colon && host_ok((struct str){at, (size_t)(colon - at)}) &&
           str_to_u64((struct str){colon + 1, (size_t)(end - colon - 1)}, &port) && port >= 1 && port <= 65535 &&
           str_copy(out, 300, s);
}

/* Of a url that is in order. */
static bool is_numeric(const char *url)
{
    unsigned char address[sizeof(struct in6_addr)];
    char host[300];
    const char *at = url + sizeof "http://" - 1;
    bool v6 = *at == '[';
    at += v6;
    return str_copy(host, sizeof host, (struct str){at, strcspn(at, v6 ? "]" : ":")}) &&
           inet_pton(v6 ? AF_INET6 : AF_INET, host, address) == 1;
}

static bool plan_backend(struct plan *p, const struct conf *c, const char *place, char why[256])
{
    static const char prefix[] = "load_balancer.backends";
    size_t at = p->c.n_backends;
    const char *name = text(c, prefix, place, "name"), *url = text(c, prefix, place, "url");
    int64_t group = number(c, prefix, place, "group", GATEWAY_API);
    if (at == BACKENDS_MAX || !name) {
        snprintf(why, 256, "load_balancer: backend %s %s", place,
                 name ? "is one too many; there may be 1024" : "has no name");
        return false;
    }
    const struct registry_instance *i = url ? NULL : instance_named(p, name);
    if (url ? !url_ok(url, p->urls[at]) : !i) {
        snprintf(why, 256,
                 url ? "load_balancer: the url of backend %.60s must be http://HOST:PORT"
                     : "load_balancer: backend %.60s has no url, and no service of consul_config fits its name",
                 name);
        return false;
    }
    if (i)
        snprintf(p->urls[at], sizeof p->urls[at], strchr(i->address, ':') ? "http://[%s]:%u" : "http://%s:%u",
                 i->address, i->port);
    if (group == GATEWAY_BOOKING && !is_numeric(p->urls[at])) {
        snprintf(why, 256,
                 "load_balancer: the url of backend %.60s must have a numeric address, as gRPC is spoken there", name);
        return false;
    }
    for (size_t k = 0; k < at; k++) {
        if (p->backends[k].group == (enum gateway_group)group && strcmp(p->backends[k].name, name) == 0) {
            snprintf(why, 256, "load_balancer: backend %.60s occurs twice", name);
            return false;
        }
    }
    p->backends[at] = (struct gateway_backend){
        .name = name,
        .url = p->urls[at],
        .group = (enum gateway_group)group,
        .weight = (unsigned)number(c, prefix, place, "weight", 100),
        .max_connections = (unsigned)number(c, prefix, place, "max_connections", GATEWAY_CONNECTIONS_USUAL)};
    p->c.n_backends++;
    return true;
}

static bool plan_backends(struct plan *p, const struct conf *c, char why[256])
{
    char place[CONF_TREE_NAME];
    size_t pos = 0;
    enum gateway_group ignored;
    while (conf_tree_child(c, "load_balancer.services", &pos, place)) {
        if (gateway_group_parse(str_c(place), &ignored))
            continue;
        snprintf(why, 256, "load_balancer.services: there is no group %.60s; there are api, identity, event, booking",
                 place);
        return false;
    }
    pos = 0;
    while (conf_tree_child(c, "load_balancer.backends", &pos, place)) {
        if (!plan_backend(p, c, place, why))
            return false;
    }
    for (unsigned g = 0; g < GATEWAY_GROUPS; g++) {
        bool any = p->c.service[g] != NULL;
        for (size_t i = 0; i < p->c.n_backends; i++)
            any |= p->backends[i].group == (enum gateway_group)g;
        if (!any && p->c.n_backends < BACKENDS_MAX)
            p->backends[p->c.n_backends++] = (struct gateway_backend){.name = gateway_group_name((enum gateway_group)g),
                                                                      .url = default_urls[g],
                                                                      .group = (enum gateway_group)g,
                                                                      .weight = 100,
                                                                      .max_connections = GATEWAY_CONNECTIONS_USUAL};
    }
    p->c.backends = p->backends;
    return true;
}

/* NULL and one line in why. The plan borrows from c. */
static struct plan *plan_new(const struct conf *c, char why[256])
{
    struct plan *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(why, 256, "out of memory");
        return NULL;
    }
    plan_breakers(p, c);
    p->c.retry = main_retry(c, retry_defaults());
    plan_fallback(p, c);
    plan_services(p, c);
    plan_balancer(p, c);
    p->c.threads = (unsigned)c->http_threads;
    p->c.version = main_version();
    p->c.name = "payflow";
    if (plan_backends(p, c, why))
        return p;
    free(p);
    return NULL;
}

/* ---- start and end */

static unsigned connections_within(int64_t wanted)
{
    enum { KEPT = 2048 }; /* to backends, and all else */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return (unsigned)wanted;
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    rlim_t room = files.rlim_cur > 2 * KEPT ? files.rlim_cur - KEPT : files.rlim_cur / 2;
    if (files.rlim_cur == RLIM_INFINITY || (rlim_t)wanted <= room)
        return (unsigned)wanted;
    log_msg(LOG_WARN, "MAX_CONNECTIONS is more than the limit of open files allows (ulimit -Hn)",
            LOG_I("max_connections", wanted), LOG_I("connections", (int64_t)room));
    return (unsigned)room;
}

static int fail(const char *why, int code)
{
    log_msg(LOG_ERROR, "cannot start", LOG_S("why", why));
    log_flush();
    fprintf(stderr, "payflow: %s\n", why);
    return code;
}

static int start(struct running *s, struct plan *p, const struct conf *c)
{
    char why[256] = "out of memory";
    s->metrics = metrics_new();
    if (!s->metrics)
        return fail(why, EXIT_FAILED);
    metrics_add_process(s->metrics);
    main_log_gauges(s->metrics);
    enum pf_err e = c->consul_http_addr[0] ? main_registry_open(c, &s->registry, why)
                                           : registry_static_open(p->services, p->n_services, &s->registry, why);
    if (e != PFE_OK)
        return fail(why, EXIT_CONF);
    s->list = c->consul_http_addr[0] ? NULL : s->registry;
    if (!s->list && main_registry_open(c, &s->own, why) != PFE_OK)
        return fail(why, EXIT_CONF);
    p->c.registry = s->registry;
    p->c.metrics = s->metrics;
    p->c.draining = is_draining;
    p->c.ctx = s;
    s->gateway = gateway_new(&p->c, why);
    if (!s->gateway)
        return fail(why, EXIT_CONF);
    /* 3000, unless a port was asked for in one of the two ways */
    uint16_t port = c->values[CONF_PORT].source == CONF_DEFAULT && !conf_listen_has_port(c) ? 3000 : c->listen_port;
    struct http_config hc = {.host = c->listen_host,
                             .port = port,
                             .threads = (unsigned)c->http_threads,
                             .max_connections = connections_within(c->max_connections),
                             .idle_timeout_s = (unsigned)c->idle_timeout,
                             .tls_cert = c->tls_cert[0] ? c->tls_cert : NULL,
                             .tls_key = c->tls_key[0] ? c->tls_key : NULL,
                             .allowed_origins = c->allowed_origins,
                             .trusted_proxies = c->trusted_proxies,
                             .handler = gateway_handle,
                             .turn = gateway_turn,
                             .ctx = s->gateway,
                             .metrics = s->metrics,
                             .clock = clock_system(),
                             .access_log = true};
    hc.routes = gateway_routes(s->gateway, &hc.n_routes);
    s->http = http_server_start(&hc, why);
    if (!s->http)
        return fail(why, EXIT_FAILED);
    log_msg(LOG_INFO, "listening", LOG_S("role", "gateway"), LOG_S("host", c->listen_host),
            LOG_I("port", http_server_port(s->http)), LOG_S("scheme", hc.tls_cert ? "https" : "http"),
            LOG_S("version", main_version()));
    main_registry_announce(c, s->own, c->listen_host, http_server_port(s->http));
    return EXIT_OK;
}

/* Nobody is to be sent here any more. */
static void leave(struct running *s)
{
    registry_close(s->own);
    s->own = NULL;
}

static void stop(struct running *s, unsigned wait_ms)
{
    leave(s);
    if (s->http)
        http_server_drain(s->http);
    if (s->gateway)
        gateway_drain(s->gateway, wait_ms);
    if (s->http)
        http_server_stop(s->http, LAST_ANSWERS_MS);
    registry_close(s->registry);
    gateway_free(s->gateway);
    metrics_free(s->metrics);
}

static void reload(struct running *s, const struct conf_input *in)
{
    struct conf fresh;
    char why[CONF_WHY_MAX];
    if (conf_load(in, &fresh, why) != PFE_OK) {
        log_msg(LOG_ERROR, "settings not reloaded", LOG_S("why", why));
        return;
    }
    struct plan *p = plan_new(&fresh, why);
    if (!p || (s->list && registry_static_replace(s->list, p->services, p->n_services, why) != PFE_OK)) {
        log_msg(LOG_ERROR, "settings not reloaded", LOG_S("why", why));
    } else {
        gateway_reload(s->gateway, &p->c);
        log_set_level(fresh.log_level);
        log_msg(LOG_INFO, "settings reloaded", LOG_I("backends", p->c.n_backends));
    }
    free(p);
    conf_free(&fresh);
}

static void wait_for_end(struct running *s, const struct conf_input *in, const sigset_t *signals)
{
    for (;;) {
        int sig = 0;
        sigwait(signals, &sig);
        if (sig == SIGHUP) {
            reload(s, in);
            continue;
        }
        atomic_store(&s->draining, true);
        log_msg(LOG_INFO, "draining", LOG_I("signal", sig));
        leave(s);
        if (sig == SIGTERM) { /* a second signal ends the wait */
            struct timespec grace = {0, DRAIN_GRACE_MS * 1000000L};
            sigtimedwait(signals, NULL, &grace);
        }
        return;
    }
}

int run_gateway(const struct conf *c, const struct conf_input *in)
{
    char why[256];
    if (c->env == CONF_ENV_DEV && !c->loopback && !c->allow_open_bind) {
        fprintf(stderr,
                "payflow: LISTEN %.64s: ENV=dev binds to loopback only; set ENV=prod, or ALLOW_OPEN_BIND=true\n",
                c->listen);
        return EXIT_CONF;
    }
    struct plan *p = main_resilience_fits(c, why) ? plan_new(c, why) : NULL;
    if (!p) {
        fprintf(stderr, "payflow: %s\n", why);
        return EXIT_CONF;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread: they inherit it */
    struct running s = {0};
    log_open(STDERR_FILENO, c->log_level);
    int code = start(&s, p, c);
    if (code == EXIT_OK)
        wait_for_end(&s, in, &signals);
    atomic_store(&s.draining, true);
    stop(&s, (unsigned)c->shutdown_timeout * 1000);
    log_msg(LOG_INFO, "stopped");
    log_close();
    free(p);
    return code;
}
