/* Groups and their backends. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "gateway/bookings.h"
#include "gateway/internal.h"

static const char *const names[GATEWAY_GROUPS] = {"api", "identity", "event", "booking"};

const char *gateway_group_name(enum gateway_group g)
{
    return g < GATEWAY_GROUPS ? names[g] : "";
}

bool gateway_group_parse(struct str s, enum gateway_group *ret)
{
    for (unsigned i = 0; i < GATEWAY_GROUPS; i++) {
        if (str_is(s, names[i])) {
            *ret = (enum gateway_group)i;
            return true;
        }
    }
    return false;
}

/* ---- the list; all of this holds gateway.lock */

static void say(const char *what, const struct backend *b)
{
    log_msg(LOG_INFO, what, LOG_S("group", gateway_group_name(b->group)), LOG_S("backend", b->name),
            LOG_S("url", b->url), LOG_I("weight", b->weight), LOG_I("max_connections", b->max_connections));
}

static bool add(struct gateway *g, struct backend *b)
{
    b->id =
        balancer_add(g->groups[b->group].balancer,
                     &(struct balancer_backend){
                         .name = str_c(b->name), .weight = b->weight, .max_connections = b->max_connections, .data = b},
                     gateway_now());
    b->leaving = false;
    return b->id != 0;
}

static void take_out(struct gateway *g, struct backend *b)
{
    (void)balancer_remove(g->groups[b->group].balancer, b->id, gateway_now());
    b->id = 0;
    b->leaving = false;
    b->quiet_us = gateway_now();
}

static struct backend *find(struct gateway *g, const struct gateway_backend *w, bool discovered)
{
    struct backend *known = NULL;
    for (struct backend *b = g->backends; b; b = b->next) {
        if (b->group != w->group || strcmp(b->name, w->name) != 0)
            continue;
        if (strcmp(b->url, w->url) == 0 && b->discovered == discovered)
            known = b;
        else if (b->id && b->discovered == discovered)
            take_out(g, b); /* it has moved: what it has ends there */
    }
    return known;
}

/* A booking service has a client while it is in. */
static bool reachable(struct gateway *g, struct backend *b)
{
    if (b->group != GATEWAY_BOOKING || b->rpc || bookings_connect(g, b))
        return true;
    log_msg(LOG_ERROR, "backend left out: gRPC needs a numeric address, memory and a thread", LOG_S("backend", b->name),
            LOG_S("url", b->url));
    return false;
}

static void want(struct gateway *g, const struct gateway_backend *w, bool discovered)
{
    struct backend *b = find(g, w, discovered);
    if (!b) {
        b = calloc(1, sizeof *b);
        if (!b || !str_copy(b->name, sizeof b->name, str_c(w->name)) ||
            !str_copy(b->url, sizeof b->url, str_c(w->url))) {
            free(b);
            log_msg(LOG_ERROR, "backend left out", LOG_S("backend", w->name));
            return;
        }
        b->group = w->group;
        b->discovered = discovered;
        if (!reachable(g, b)) {
            free(b);
            return;
        }
        status_backend_metrics(g, b);
        b->next = g->backends;
        g->backends = b;
    } else if (!reachable(g, b)) {
        return;
    }
    bool changed = b->weight != w->weight || b->max_connections != w->max_connections;
    b->weight = w->weight;
    b->max_connections = w->max_connections;
    b->wanted = true;
    if (!b->id) {
        say(add(g, b) ? "backend added" : "backend left out: its name is taken, or there are too many", b);
        return;
    }
    if (b->leaving)
        (void)balancer_drain(g->groups[b->group].balancer, b->id, false, gateway_now());
    b->leaving = false;
    if (changed && balancer_set(g->groups[b->group].balancer, b->id, b->weight, b->max_connections, gateway_now()))
        say("backend changed", b);
}

static void unwant(struct gateway *g, enum gateway_group first, enum gateway_group end, bool discovered)
{
    for (struct backend *b = g->backends; b; b = b->next) {
        if (b->group >= first && b->group < end && b->discovered == discovered)
            b->wanted = false;
    }
}

static void drain_unwanted(struct gateway *g, enum gateway_group first, enum gateway_group end, bool discovered)
{
    for (struct backend *b = g->backends; b; b = b->next) {
        if (b->group < first || b->group >= end || b->discovered != discovered || b->wanted || !b->id || b->leaving)
            continue;
        say("backend drains", b);
        b->leaving = balancer_drain(g->groups[b->group].balancer, b->id, true, gateway_now());
    }
}

void backends_apply(struct gateway *g, const struct gateway_config *c)
{
    pthread_mutex_lock(&g->lock);
    unwant(g, 0, GATEWAY_GROUPS, false);
    for (size_t i = 0; i < c->n_backends; i++)
        want(g, &c->backends[i], false);
    drain_unwanted(g, 0, GATEWAY_GROUPS, false);
    pthread_mutex_unlock(&g->lock);
}

/* ---- discovery */

static void on_list(void *ctx, const struct registry_list *list)
{
    struct group *group = ctx;
    struct gateway *g = group->g;
    pthread_mutex_lock(&g->lock);
    group->generation = list->generation;
    unwant(g, group->id, group->id + 1, true);
    for (size_t i = 0; i < list->n; i++) {
        const struct registry_instance *one = &list->instances[i];
        char url[URL_MAX];
        int n = snprintf(url, sizeof url, strchr(one->address, ':') ? "http://[%s]:%u" : "http://%s:%u", one->address,
                         one->port);
        if (one->health == REGISTRY_CRITICAL || n >= (int)sizeof url)
            continue;
        want(g,
             &(struct gateway_backend){.name = one->id,
                                       .url = url,
                                       .group = group->id,
                                       .weight = one->weight,
                                       .max_connections = GATEWAY_CONNECTIONS_USUAL},
             true);
    }
    drain_unwanted(g, group->id, group->id + 1, true);
    pthread_mutex_unlock(&g->lock);
}

/* ---- start */

void backends_wake(void *ctx, void *waiter)
{
    (void)ctx;
    gateway_loop_post(waiter, POST_WAKE);
}

bool backends_init(struct gateway *g, const struct gateway_config *c, char why[256])
{
    for (unsigned i = 0; i < GATEWAY_GROUPS; i++) {
        struct balancer_config bc = c->balancer[i];
        bc.wake = backends_wake;
        bc.ctx = g;
        bc.sticky_salt = i;
        const char *fault = balancer_fault(&bc);
        g->groups[i] =
            (struct group){.id = (enum gateway_group)i, .g = g, .service = c->service[i], .sticky = bc.sticky};
        g->groups[i].balancer = fault ? NULL : balancer_new(&bc, gateway_now());
        if (!g->groups[i].balancer) {
            snprintf(why, 256, "load_balancer: %s", fault ? fault : "out of memory");
            return false;
        }
        g->check_timeout_us[i] = bc.check_timeout_us;
    }
    backends_apply(g, c);
    for (unsigned i = 0; i < GATEWAY_GROUPS && g->registry; i++) {
        if (c->service[i] && registry_watch(g->registry, c->service[i], on_list, &g->groups[i]) != PFE_OK) {
            snprintf(why, 256, "the registry takes no more watches");
            return false;
        }
    }
    return true;
}

void backends_free(struct gateway *g)
{
    for (struct backend *b = g->backends, *next; b; b = next) {
        next = b->next;
        bookings_disconnect(b); /* its checks end here, and tell the balancer */
        free(b);
    }
    for (unsigned i = 0; i < GATEWAY_GROUPS; i++)
        balancer_free(g->groups[i].balancer);
}

/* ---- checks */

static size_t swallow(char *p, size_t size, size_t n, void *ctx)
{
    (void)p;
    (void)ctx;
    return size * n;
}

static bool check_start(struct loop *l, struct check *slot, const struct backend *b, int64_t timeout_us)
{
    char url[URL_MAX + 256];
    slot->easy = curl_easy_init();
    if (!slot->easy)
        return false;
    CURL *e = slot->easy;
    gateway_loop_watch_sockets(l, e);
    snprintf(url, sizeof url, "%s%s", b->url, l->g->health_path);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, swallow);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)(timeout_us / 1000) + 1);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "payflow-gateway-check");
    curl_easy_setopt(e, CURLOPT_PRIVATE, NULL);
    if (curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK && curl_multi_add_handle(l->multi, e) == CURLM_OK)
        return true;
    curl_easy_cleanup(e);
    slot->easy = NULL;
    return false;
}

static struct check *free_check(struct loop *l)
{
    for (unsigned i = 0; i < CHECKS_AT_ONCE; i++) {
        if (!l->checks[i].easy)
            return &l->checks[i];
    }
    return NULL;
}

static bool idle(struct gateway *g, const struct backend *b, int64_t now)
{
    struct balancer_figures all;
    struct balancer_backend_figures *list = calloc(BALANCER_BACKENDS_MAX, sizeof *list);
    bool found = false, busy = false;
    if (!list)
        return false;
    balancer_read(g->groups[b->group].balancer, now, &all, list, BALANCER_BACKENDS_MAX);
    for (unsigned i = 0; i < all.backends && !found; i++) {
        found = list[i].id == b->id;
        busy = found && (list[i].active || list[i].queued);
    }
    free(list);
    return !busy;
}

/* A client has a thread and connections, so it goes when its backend has. A call is begun in the step that picks its
 * backend, and hurried only while it lasts: long before it has been quiet for QUIET_US nobody has it any more. */
static void disconnect(struct backend *b, int64_t now)
{
    if (bookings_under_way(b))
        b->quiet_us = now;
    if (now - b->quiet_us < QUIET_US)
        return;
    bookings_disconnect(b);
}

/* Those that drain go when they have nothing left. */
static void leave(struct gateway *g, int64_t now)
{
    pthread_mutex_lock(&g->lock);
    for (struct backend *b = g->backends; b; b = b->next) {
        if (b->leaving && idle(g, b, now)) {
            say("backend removed", b);
            take_out(g, b);
        }
        if (!b->id && b->rpc)
            disconnect(b, now);
    }
    pthread_mutex_unlock(&g->lock);
}

void backends_tick(struct loop *l, int64_t now)
{
    struct gateway *g = l->g;
    for (unsigned i = 0; i < GATEWAY_GROUPS; i++) {
        struct balancer_check due[8];
        size_t n = balancer_checks_due(g->groups[i].balancer, now, due, 8);
        for (size_t k = 0; k < n; k++) {
            if (i == GATEWAY_BOOKING) {
                bookings_check(due[k].data, g->groups[i].balancer, &due[k], g->check_timeout_us[i]);
                continue;
            }
            struct check *slot = free_check(l);
            if (!slot || !check_start(l, slot, due[k].data, g->check_timeout_us[i]))
                continue; /* it will count as unanswered */
            slot->check = due[k];
            slot->group = &g->groups[i];
        }
    }
    leave(g, now);
}

void backends_checked(struct loop *l, CURL *easy, CURLcode code)
{
    for (unsigned i = 0; i < CHECKS_AT_ONCE; i++) {
        struct check *slot = &l->checks[i];
        long status = 0;
        if (slot->easy != easy)
            continue;
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        bool ok = code == CURLE_OK && status >= 200 && status < 300;
        (void)balancer_checked(slot->group->balancer, &slot->check, ok, gateway_now());
        curl_multi_remove_handle(l->multi, easy);
        curl_easy_cleanup(easy);
        slot->easy = NULL;
        return;
    }
}

void backends_stop(struct loop *l)
{
    for (unsigned i = 0; i < CHECKS_AT_ONCE; i++) {
        if (!l->checks[i].easy)
            continue;
        curl_multi_remove_handle(l->multi, l->checks[i].easy);
        curl_easy_cleanup(l->checks[i].easy);
    }
}
