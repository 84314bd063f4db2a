/* grpc.health.v1.Health: https://github.com/grpc/grpc/blob/master/doc/health-checking.md */
#include <grpc/health/v1/health.pb-c.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/internal.h"

typedef Grpc__Health__V1__HealthCheckRequest Request;
typedef Grpc__Health__V1__HealthCheckResponse Response;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus Status;

#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

static size_t place_of(const struct rpc_server *s, struct str service)
{
    size_t i = 0;
    while (i < s->health.n && !str_is(service, s->health.names[i]))
        i++;
    return i;
}

static Status status_of(struct rpc_server *s, struct str service)
{
    size_t i = place_of(s, service);
    if (i == s->health.n)
        return SERVICE_UNKNOWN;
    pthread_mutex_lock(&s->health.lock);
    bool serving = s->health.serving[i] && !atomic_load(&s->draining);
    pthread_mutex_unlock(&s->health.lock);
    return serving ? SERVING : NOT_SERVING;
}

static struct rpc_server *server_of(struct call *c)
{
    return c->io->server;
}

static void check(struct rpc_call *pub)
{
    const Request *q = (const Request *)pub->request;
    Response r = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    r.status = status_of(server_of((struct call *)pub), str_c(q->service));
    if (r.status == SERVICE_UNKNOWN)
        rpc_reply_status(pub, RPC_NOT_FOUND, STR("there is no such service"));
    else
        rpc_reply(pub, &r.base);
}

/* ---- Watch: the status now, and again whenever it changes */

static void tell(struct call *c)
{
    Status now = status_of(server_of(c), c->watched);
    Response r = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    if ((int)now == c->watch_state)
        return;
    c->watch_state = (int)now;
    r.status = now;
    answer_push(c, &r.base);
}

static void watch(struct call *c, const ProtobufCMessage *m)
{
    const Request *q = (const Request *)m;
    size_t i = place_of(server_of(c), str_c(q->service));
    if (c->started) {
        answer_finish(c, RPC_UNIMPLEMENTED, STR("the method takes one message only"));
        return;
    }
    /* The services do not change, so an unknown one need not be remembered by its name. */
    c->watched = i < server_of(c)->health.n ? str_c(server_of(c)->health.names[i]) : STR("?");
    c->watch_state = -1;
    c->started = true;
    c->watch_next = c->io->watchers;
    if (c->watch_next)
        c->watch_next->watch_prev = c;
    c->io->watchers = c;
    tell(c);
}

static void half_closed(struct call *c)
{
    if (!c->started)
        answer_finish(c, RPC_UNIMPLEMENTED, STR("the method takes one message, and there was none"));
}

static void over(struct call *c)
{
    if (c->watch_prev)
        c->watch_prev->watch_next = c->watch_next;
    else
        c->io->watchers = c->watch_next;
    if (c->watch_next)
        c->watch_next->watch_prev = c->watch_prev;
}

void health_tell(struct io *io)
{
    for (struct call *c = io->watchers; c; c = c->watch_next)
        if (!c->answered)
            tell(c);
}

void health_task(struct task *t)
{
    struct io *io = (struct io *)((char *)t - offsetof(struct io, health));
    atomic_store(&io->health_posted, false);
    health_tell(io);
}

static void wake(struct rpc_server *s)
{
    for (unsigned i = 0; i < s->n_io; i++)
        if (!atomic_exchange(&s->io[i].health_posted, true))
            loop_post(&s->io[i].loop, &s->io[i].health);
}

bool rpc_health_set(struct rpc_server *s, const char *service, bool serving)
{
    size_t i = place_of(s, str_c(service));
    if (i == s->health.n)
        return false;
    pthread_mutex_lock(&s->health.lock);
    bool changed = s->health.serving[i] != serving;
    s->health.serving[i] = serving;
    pthread_mutex_unlock(&s->health.lock);
    if (changed)
        wake(s);
    return true;
}

bool health_init(struct rpc_server *s)
{
    s->health.names = calloc(s->n_routes + 1, sizeof *s->health.names);
    s->health.serving = calloc(s->n_routes + 1, sizeof *s->health.serving);
    if (!s->health.names || !s->health.serving)
        return false;
    s->health.names[s->health.n++] = "";
    for (size_t i = 0; i < s->n_routes; i++)
        if (place_of(s, str_c(s->routes[i].row->service)) == s->health.n)
            s->health.names[s->health.n++] = s->routes[i].row->service;
    for (size_t i = 0; i < s->health.n; i++)
        s->health.serving[i] = true;
    return true;
}

void health_fini(struct rpc_server *s)
{
    free(s->health.names);
    free(s->health.serving);
    pthread_mutex_destroy(&s->health.lock);
}

void health_routes(struct route routes[HEALTH_ROUTES])
{
    static const struct rpc_method rows[HEALTH_ROUTES] = {
        {"grpc.health.v1.Health", "Check", &grpc__health__v1__health_check_request__descriptor,
         &grpc__health__v1__health_check_response__descriptor, check, NULL},
        {"grpc.health.v1.Health", "Watch", &grpc__health__v1__health_check_request__descriptor,
         &grpc__health__v1__health_check_response__descriptor, NULL, NULL},
    };
    for (unsigned i = 0; i < HEALTH_ROUTES; i++)
        routes[i].row = &rows[i];
    routes[1].message = watch;
    routes[1].half_closed = half_closed;
    routes[1].over = over;
}
