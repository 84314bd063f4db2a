#include "base/pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { THREAD_NAME_MAX = 16 };

struct pool {
    const char *name;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct pool_job *first, **last; /* FIFO */
    size_t depth, capacity;
    unsigned busy, threads;
    bool stop;
    uint64_t done, refused, wait_us, run_us;
    pthread_t tids[];
};

static void *worker(void *arg)
{
    struct pool *p = arg;
    const struct clock *clock = clock_system();
    char name[THREAD_NAME_MAX] = {0};

    strncpy(name, p->name, sizeof name - 1);
    pthread_setname_np(pthread_self(), name);
    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct pool_job *job;
        int64_t started;

        while (!p->first && !p->stop)
            pthread_cond_wait(&p->work, &p->lock);
        job = p->first;
        if (!job)
            break;
        p->first = job->next;
        if (!p->first)
            p->last = &p->first;
        p->depth--;
        p->busy++;
        started = clock_mono(clock);
        p->wait_us += (uint64_t)(started - job->queued_us);
        pthread_mutex_unlock(&p->lock);

        job->run(job);

        pthread_mutex_lock(&p->lock);
        p->busy--;
        p->done++;
        p->run_us += (uint64_t)(clock_mono(clock) - started);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct pool *pool_new(const char *name, unsigned threads, size_t capacity)
{
    struct pool *p = calloc(1, sizeof *p + threads * sizeof *p->tids);

    if (!p)
        return NULL;
    p->name = name;
    p->capacity = capacity;
    p->last = &p->first;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    while (p->threads < threads && pthread_create(&p->tids[p->threads], NULL, worker, p) == 0)
        p->threads++;
    if (p->threads < threads || threads == 0) {
        pool_free(p);
        return NULL;
    }
    return p;
}

bool pool_submit(struct pool *p, struct pool_job *job)
{
    bool accepted;

    pthread_mutex_lock(&p->lock);
    accepted = !p->stop && p->depth < p->capacity;
    if (accepted) {
        job->next = NULL;
        job->queued_us = clock_mono(clock_system());
        *p->last = job;
        p->last = &job->next;
        p->depth++;
        pthread_cond_signal(&p->work);
    } else {
        p->refused++;
    }
    pthread_mutex_unlock(&p->lock);
    return accepted;
}

void pool_stats(struct pool *p, struct pool_stats *ret)
{
    pthread_mutex_lock(&p->lock);
    *ret = (struct pool_stats){
        .name = p->name,
        .threads = p->threads,
        .busy = p->busy,
        .depth = p->depth,
        .capacity = p->capacity,
        .done = p->done,
        .refused = p->refused,
        .wait_us_total = p->wait_us,
        .run_us_total = p->run_us,
    };
    pthread_mutex_unlock(&p->lock);
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(p->tids[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
