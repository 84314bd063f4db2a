#include "worker/scheduler.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "app/schedules.h"

/* Looks at least this often: new schedules need no wake-up call, and wall-clock jumps are noticed. */
enum { LOOK_US = 200000 };

struct scheduler {
    struct app *app;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
};

static void wait_us(struct scheduler *s, int64_t us)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += us / 1000000;
    t.tv_nsec += us % 1000000 * 1000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    pthread_mutex_lock(&s->lock);
    while (!s->stop && pthread_cond_timedwait(&s->wake, &s->lock, &t) == 0)
        continue;
    pthread_mutex_unlock(&s->lock);
}

static bool stopping(struct scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    bool stop = s->stop;
    pthread_mutex_unlock(&s->lock);
    return stop;
}

int64_t scheduler_step(struct app *a)
{
    int64_t next = app_schedules_run_due(a);
    while (app_holds_release_due(a) > 0)
        continue;
    int64_t us = LOOK_US;
    if (next) {
        int64_t until = next - clock_wall(app_clock(a));
        if (until < us)
            us = until > 1000 ? until : 1000;
    }
    return us;
}

static void *run(void *arg)
{
    struct scheduler *s = arg;
    pthread_setname_np(pthread_self(), "scheduler");
    while (!stopping(s))
        wait_us(s, scheduler_step(s->app));
    return NULL;
}

struct scheduler *scheduler_start(struct app *a)
{
    struct scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->app = a;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&s->thread, NULL, run, s) != 0) {
        pthread_cond_destroy(&s->wake);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return NULL;
    }
    return s;
}

void scheduler_stop(struct scheduler *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
