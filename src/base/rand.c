#include "base/rand.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { POOL = 4096 };

static _Thread_local struct {
    unsigned char bytes[POOL];
    size_t left; /* unused bytes, at the end */
} pool;

static pthread_once_t forks_once = PTHREAD_ONCE_INIT;
static bool forks_watched;

/* In the child of a fork: its one thread must not draw what the parent's will. */
static void forget_pool(void)
{
    explicit_bzero(&pool, sizeof pool);
}

static void watch_forks(void)
{
    forks_watched = pthread_atfork(NULL, NULL, forget_pool) == 0;
}

static void from_kernel(unsigned char *p, size_t n)
{
    while (n) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            perror("getrandom");
            abort();
        }
        p += got;
        n -= (size_t)got;
    }
}

void rand_bytes(void *p, size_t n)
{
    unsigned char *from;

    pthread_once(&forks_once, watch_forks);
    if (n > POOL / 4 || !forks_watched) {
        from_kernel(p, n);
        return;
    }
    if (n == 0)
        return;
    if (n > pool.left) {
        from_kernel(pool.bytes, POOL);
        pool.left = POOL;
    }
    from = pool.bytes + POOL - pool.left;
    memcpy(p, from, n);
    explicit_bzero(from, n); /* what was handed out must not be found in memory later */
    pool.left -= n;
}

uint64_t rand_u64(void)
{
    uint64_t v;

    rand_bytes(&v, sizeof v);
    return v;
}
