#include "echo.h"

#include <booking/v1/booking_files.h>
#include <echo.pb-c.h>
#include <echo_files.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/pool.h"

typedef Echo__V1__Ask Ask;
typedef Echo__V1__Told Told;

enum { THREADS = 16, WAITING = 20000 };

static const Ask *asked(const struct rpc_call *c)
{
    return (const Ask *)c->request;
}

static void tell(struct rpc_call *c)
{
    struct echo *e = c->ctx;
    const Ask *q = asked(c);
    Told t = ECHO__V1__TOLD__INIT;
    struct str back = rpc_metadata(c, "x-echo"), key = rpc_metadata(c, "authorization");
    t.text = q->text;
    t.blob = q->blob;
    t.peer = c->peer;
    t.request_id = (char *)(uintptr_t)arena_strdup(&c->arena, c->request_id).p;
    t.traceparent = (char *)(uintptr_t)arena_strdup(&c->arena, c->traceparent).p;
    t.authority = (char *)(uintptr_t)arena_strdup(&c->arena, c->authority).p;
    t.left_ms = (c->deadline_us - clock_mono(clock_system())) / 1000;
    t.cancelled = atomic_load(&e->cancelled);
    if (q->answer_bytes) {
        t.blob.len = q->answer_bytes;
        t.blob.data = arena_zalloc(&c->arena, q->answer_bytes);
        if (!t.blob.data) {
            rpc_reply_status(c, RPC_RESOURCE_EXHAUSTED, STR("so much does not fit"));
            return;
        }
    }
    if (back.p)
        rpc_set_trailer(c, "x-echo", back);
    if (key.p)
        rpc_set_trailer(c, "x-authorized", STR("yes"));
    rpc_reply(c, &t.base);
}

struct job {
    struct pool_job job; /* first */
    struct rpc_call *call;
    unsigned delay_ms;
    bool stubborn; /* looks not whether anybody still waits */
};

static void work(struct pool_job *j)
{
    struct job *job = (struct job *)j;
    for (unsigned ms = 0; ms < job->delay_ms && (job->stubborn || !rpc_call_cancelled(job->call)); ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    rpc_resume(job->call);
}

static void resumed(struct rpc_call *c)
{
    struct echo *e = c->ctx;
    free(c->user);
    if (rpc_call_cancelled(c))
        atomic_fetch_add(&e->cancelled, 1);
    tell(c);
}

static void later(struct rpc_call *c)
{
    struct echo *e = c->ctx;
    struct job *job = malloc(sizeof *job);
    if (!job)
        abort();
    *job = (struct job){{.run = work}, c, asked(c)->delay_ms, asked(c)->code == 1};
    c->user = job;
    rpc_suspend(c, resumed);
    if (!pool_submit(e->pool, &job->job))
        rpc_resume(c);
}

static void refuse(struct rpc_call *c)
{
    const Ask *q = asked(c);
    if (q->code >= 100) { /* one of the program's own errors */
        struct problem p = {.code = (enum pf_err)(q->code - 100)};
        snprintf(p.detail, sizeof p.detail, "%s", q->text);
        rpc_reply_problem(c, &p);
        return;
    }
    rpc_set_trailer(c, "x-why", STR("asked for"));
    rpc_set_trailer(c, "x-evil", STR("a\r\nb"));
    rpc_set_trailer(c, "X-Upper", STR("no"));
    rpc_set_trailer(c, "grpc-status", STR("0"));
    rpc_reply_status(c, (enum rpc_code)q->code, str_c(q->text));
}

static void health(struct rpc_call *c)
{
    if (rpc_health_set(c->server, asked(c)->text, asked(c)->code))
        tell(c);
    else
        rpc_reply_status(c, RPC_NOT_FOUND, STR_NONE);
}

static void counters(struct rpc_call *c)
{
    struct echo *e = c->ctx;
    Told t = ECHO__V1__TOLD__INIT;
    struct buf b;
    buf_init(&b, 0);
    metrics_render(e->metrics, &b);
    buf_putc(&b, '\0');
    t.text = b.p;
    rpc_reply(c, &t.base);
    buf_free(&b);
}

static void mute(struct rpc_call *c)
{
    (void)c;
}

#define ROW(name, handler)                                                                                             \
    {                                                                                                                  \
        "echo.v1.Echo", name, &echo__v1__ask__descriptor, &echo__v1__told__descriptor, handler, NULL                   \
    }
const struct rpc_method echo_methods[] = {ROW("Say", tell),      ROW("Later", later),       ROW("Fail", refuse),
                                          ROW("Health", health), ROW("Counters", counters), ROW("Mute", mute)};
const size_t echo_methods_n = sizeof echo_methods / sizeof echo_methods[0];

void echo_start(struct echo *e, struct rpc_config *c)
{
    static const struct rpc_files *const files[] = {&echo_files, &booking_files};
    char why[256];
    *e = (struct echo){.metrics = metrics_new(), .pool = pool_new("echo", THREADS, WAITING)};
    c->host = c->host ? c->host : "127.0.0.1";
    c->methods = echo_methods;
    c->n_methods = echo_methods_n;
    c->files = files;
    c->n_files = 2;
    c->ctx = e;
    c->metrics = e->metrics;
    c->clock = clock_system();
    e->server = e->metrics && e->pool ? rpc_server_start(c, why) : NULL;
    if (!e->server) {
        fprintf(stderr, "echo: %s\n", why);
        exit(1);
    }
}

void echo_stop(struct echo *e, unsigned wait_ms)
{
    rpc_server_stop(e->server, wait_ms);
    pool_free(e->pool);
    metrics_free(e->metrics);
}
