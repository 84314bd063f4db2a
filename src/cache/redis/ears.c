/*
 * The subscription: invalidations by other instances come in, and those who ask learn that all of them have.
 *
 * A PING on the subscribed connection is answered behind every message that the server had sent by then, so its answer
 * says: what was published before this PING has been heard. One is under way at a time; who asks meanwhile waits for
 * the next, so that any number of them costs one message to the server and back.
 */
#include "cache/redis/internal.h"

#include <sys/socket.h>

enum {
    PING_US = 250 * 1000,
    SILENT_US = 1500 * 1000, /* a subscription without even a pong */
    LISTEN_US = 50 * 1000,
};

static int64_t now_us(void)
{
    return clock_mono(clock_system());
}

void ears_init(struct ears *e)
{
    pthread_mutex_init(&e->lock, NULL);
}

void ears_fini(struct ears *e)
{
    pthread_mutex_destroy(&e->lock);
}

/* With the lock held, a connection there and no PING under way: those who have asked by now are answered with this one.
   What cannot be sent at once is not waited for: the silence that follows is noticed. */
static void ping(struct ears *e)
{
    static const char text[] = "*1\r\n$4\r\nPING\r\n";
    e->flying = e->asked;
    e->asked = NULL;
    e->pinged = true;
    e->pinged_us = now_us();
    (void)!send(e->conn->redis->fd, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void answer(struct cache_confirm *list, bool good)
{
    while (list) {
        struct cache_confirm *q = list;
        list = q->next; /* q is the caller's again with the call */
        q->fn(q, good);
    }
}

void tiers_confirm(struct cache *c, struct cache_confirm *q)
{
    struct tiers *t = (struct tiers *)c;
    struct ears *e = &t->ears;
    bool waits = false;
    if (accord_sound(t)) {
        pthread_mutex_lock(&e->lock);
        waits = e->conn != NULL;
        if (waits) {
            q->next = e->asked;
            e->asked = q;
            if (!e->pinged)
                ping(e);
        }
        pthread_mutex_unlock(&e->lock);
    }
    if (!waits)
        q->fn(q, false);
}

static void ponged(struct tiers *t)
{
    struct ears *e = &t->ears;
    pthread_mutex_lock(&e->lock);
    struct cache_confirm *done = e->flying;
    const int64_t heard = e->pinged_us;
    e->flying = NULL;
    e->pinged = false;
    if (e->asked)
        ping(e);
    pthread_mutex_unlock(&e->lock);
    /* looked at now, after all of them have asked */
    const int64_t lease = accord_lease(t);
    /* one who has not been able to tell since then waits from then on: not from when we were last heard */
    if (lease)
        atomic_store_explicit(&e->heard_us, heard < lease ? heard : lease, memory_order_release);
    answer(done, lease != 0);
}

/* Keeps the subscription going; false: it does not answer. */
static bool alive(struct ears *e)
{
    const int64_t now = now_us();
    bool ok = true;
    pthread_mutex_lock(&e->lock);
    if (!e->pinged && now - e->pinged_us >= PING_US)
        ping(e);
    else if (e->pinged)
        ok = now - e->pinged_us < (e->flying || e->asked ? COMMAND_US : SILENT_US);
    pthread_mutex_unlock(&e->lock);
    return ok;
}

static bool pong(const redisReply *r)
{
    return r->type == REDIS_REPLY_ARRAY && r->elements == 2 && r->element[0]->type == REDIS_REPLY_STRING &&
           strcmp(r->element[0]->str, "pong") == 0;
}

void ears_listen(struct tiers *t, struct conn *c, bool (*heard)(struct tiers *t, const redisReply *r))
{
    struct ears *e = &t->ears;
    bool ok = true;
    pthread_mutex_lock(&e->lock);
    e->conn = c;
    ping(e);
    pthread_mutex_unlock(&e->lock);
    while (ok && !link_stopping(&t->link)) {
        redisReply *r = conn_receive(c, LISTEN_US);
        if (r) {
            if (pong(r))
                ponged(t);
            else
                ok = heard(t, r);
            replies_free(&r, 1);
        } else {
            ok = !c->broken;
        }
        ok = ok && alive(e);
    }
    pthread_mutex_lock(&e->lock);
    struct cache_confirm *flying = e->flying, *asked = e->asked;
    e->conn = NULL;
    e->flying = e->asked = NULL;
    e->pinged = false;
    pthread_mutex_unlock(&e->lock);
    answer(flying, false);
    answer(asked, false);
}
