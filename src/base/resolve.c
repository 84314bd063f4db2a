#include "base/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LOOKUPS = 16 };

/* Held by the resolver and by its thread; the last one frees it. */
struct lookup {
    atomic_int refs;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    int code; /* getaddrinfo's */
    struct resolved found;
    char host[];
};

struct resolver {
    pthread_mutex_t lock;
    struct lookup *at[LOOKUPS];
};

struct resolver *resolver_new(void)
{
    struct resolver *r = calloc(1, sizeof *r);
    if (r)
        pthread_mutex_init(&r->lock, NULL);
    return r;
}

static void drop(struct lookup *l)
{
    if (!l || atomic_fetch_sub(&l->refs, 1) != 1)
        return;
    pthread_cond_destroy(&l->ended);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    for (unsigned i = 0; i < LOOKUPS; i++)
        drop(r->at[i]);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static bool add(struct resolved *to, const struct sockaddr *a, socklen_t n)
{
    return getnameinfo(a, n, to->address[to->n], RESOLVE_ADDRESS_MAX, NULL, 0, NI_NUMERICHOST) == 0 &&
           ++to->n < RESOLVE_ADDRESSES;
}

static void *run(void *ctx)
{
    struct lookup *l = ctx;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    struct resolved found = {.n = 0};
    int code = getaddrinfo(l->host, NULL, &hints, &list);
    for (const struct addrinfo *a = code == 0 ? list : NULL; a && add(&found, a->ai_addr, a->ai_addrlen);)
        a = a->ai_next;
    if (list)
        freeaddrinfo(list);
    pthread_mutex_lock(&l->lock);
    l->code = code;
    l->found = found;
    l->done = true;
    pthread_cond_broadcast(&l->ended);
    pthread_mutex_unlock(&l->lock);
    drop(l);
    return NULL;
}

static struct lookup *begin(const char *host)
{
    pthread_attr_t attr;
    pthread_t thread;
    size_t n = strlen(host) + 1;
    struct lookup *l = calloc(1, sizeof *l + n);
    if (!l)
        return NULL;
    memcpy(l->host, host, n);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->ended, NULL);
    atomic_store(&l->refs, 2);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attr, run, l) != 0) {
        atomic_store(&l->refs, 1);
        drop(l);
        l = NULL;
    }
    pthread_attr_destroy(&attr);
    return l;
}

/* The lookup of that name that is under way, or a new one; with a reference for the caller. */
static enum pf_err join(struct resolver *r, const char *host, struct lookup **ret)
{
    struct lookup **room = NULL, *l = NULL;
    enum pf_err e = PFE_OK;
    pthread_mutex_lock(&r->lock);
    for (unsigned i = 0; i < LOOKUPS; i++) {
        if (r->at[i]) {
            pthread_mutex_lock(&r->at[i]->lock);
            bool done = r->at[i]->done;
            pthread_mutex_unlock(&r->at[i]->lock);
            if (done) { /* its waiters hold it */
                drop(r->at[i]);
                r->at[i] = NULL;
            } else if (strcmp(r->at[i]->host, host) == 0) {
                l = r->at[i];
            }
        }
        if (!r->at[i] && !room)
            room = &r->at[i];
    }
    if (!l && !room)
        e = PFE_BUSY;
    else if (!l && !(l = *room = begin(host)))
        e = PFE_NOMEM;
    if (e == PFE_OK)
        atomic_fetch_add(&l->refs, 1);
    pthread_mutex_unlock(&r->lock);
    *ret = l;
    return e;
}

static bool is_address(const char *host)
{
    unsigned char b[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, b) == 1 || inet_pton(AF_INET6, host, b) == 1;
}

enum pf_err resolver_ask(struct resolver *r, const char *host, unsigned timeout_ms, struct resolved *ret,
                         char ret_why[RESOLVE_WHY_MAX])
{
    struct lookup *l;
    struct timespec until;
    if (is_address(host)) {
        *ret = (struct resolved){.n = 1};
        snprintf(ret->address[0], RESOLVE_ADDRESS_MAX, "%s", host);
        return PFE_OK;
    }
    enum pf_err e = join(r, host, &l);
    if (e != PFE_OK) {
        snprintf(ret_why, RESOLVE_WHY_MAX, "%s", e == PFE_BUSY ? "too many look-ups" : "out of memory or threads");
        return e;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    until.tv_sec += timeout_ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&l->lock);
    for (int rc = 0; !l->done && rc == 0;)
        rc = pthread_cond_clockwait(&l->ended, &l->lock, CLOCK_MONOTONIC, &until);
    if (!l->done) {
        e = PFE_TIMEOUT;
        snprintf(ret_why, RESOLVE_WHY_MAX, "no answer from the name servers within %u ms", timeout_ms);
    } else if (l->code != 0 || l->found.n == 0) {
        e = PFE_NOT_FOUND;
        snprintf(ret_why, RESOLVE_WHY_MAX, "%s", l->code ? gai_strerror(l->code) : "it has no address");
    } else {
        *ret = l->found;
    }
    pthread_mutex_unlock(&l->lock);
    drop(l);
    return e;
}
