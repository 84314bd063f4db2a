/* The two threads behind the tiers: one brings Redis into use and keeps it there, one listens for invalidations. */
#include "cache/redis/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/rand.h"

enum {
    BEAT_US = 1000000,
    SILENCE_MS = 3000,          /* an instance that has not beaten for this long is missing */
    FORGET_MS = 10 * 60 * 1000, /* and after this no longer waited for: no value lives much longer */
    BATCH_US = 10 * 1000,       /* how long counted requests wait to be sent */
    BACKOFF_LEAST_US = 100 * 1000,
    BACKOFF_MOST_US = 1000 * 1000,
    STEADY_US = 10 * 1000000, /* in use for this long: the next failure is a new one */
    VOID_TRIES = 100,
};

static int64_t now_us(void)
{
    return clock_mono(clock_system());
}

/* Doubles from try to try; a fifth is left to chance, so that instances do not come all at once. */
static int64_t backoff(unsigned tries)
{
    int64_t us = BACKOFF_LEAST_US;
    while (tries-- > 0 && us < BACKOFF_MOST_US)
        us *= 2;
    if (us > BACKOFF_MOST_US)
        us = BACKOFF_MOST_US;
    return us - (int64_t)(rand_u64() % (uint64_t)(us / 5));
}

static void tell_watch(struct tiers *t, struct str pattern)
{
    pthread_mutex_lock(&t->watch_lock);
    if (t->watch)
        t->watch(t->watch_ctx, pattern);
    pthread_mutex_unlock(&t->watch_lock);
}

static void forget_all(struct tiers *t)
{
    cache_del_glob(t->local, STR("*"));
    tell_watch(t, STR("*"));
}

/* ---- into use ---- */

static bool load_scripts(struct link *l, struct conn *c)
{
    redisReply *r[SCRIPTS];
    for (unsigned i = 0; i < SCRIPTS; i++)
        conn_command(c, "SCRIPT LOAD %s", script_text[i]);
    if (!conn_exchange(c, SCRIPTS, r))
        return false;
    bool ok = true;
    for (unsigned i = 0; i < SCRIPTS; i++)
        ok = ok && r[i]->type == REDIS_REPLY_STRING && r[i]->len == SHA_LEN &&
             (l->sha[i][0] == '\0' || memcmp(l->sha[i], r[i]->str, SHA_LEN) == 0);
    for (unsigned i = 0; ok && i < SCRIPTS; i++)
        if (l->sha[i][0] == '\0')
            memcpy(l->sha[i], r[i]->str, SHA_LEN);
    replies_free(r, SCRIPTS);
    return ok;
}

/* Makes void what is there, and what others hold of it. */
static bool void_all(struct tiers *t, struct conn *c)
{
    redisReply *r[2];
    conn_command(c, "DEL " EPOCH_KEY);
    conn_command(c, "PUBLISH %s %sg*", t->channel, t->id);
    if (!conn_exchange(c, 2, r))
        return false;
    const bool ok = r[0]->type == REDIS_REPLY_INTEGER && r[1]->type == REDIS_REPLY_INTEGER;
    replies_free(r, 2);
    return ok;
}

bool keeper_void(struct tiers *t)
{
    struct conn *c = link_take(&t->link);
    if (!c)
        return false;
    const bool ok = void_all(t, c);
    link_give(&t->link, c);
    if (ok)
        forget_all(t);
    return ok;
}

/* Invalidations go on meanwhile, and are missed: so again, until one round saw none. */
static bool into_use(struct tiers *t, struct conn *c, char why[WHY_MAX])
{
    struct link *l = &t->link;
    for (unsigned i = 0; i < VOID_TRIES; i++) {
        pthread_mutex_lock(&l->lock);
        const uint64_t missed = l->missed;
        const bool heard = l->subscribed && memcmp(l->sub_run, c->run, RUN_LEN) == 0;
        if (!heard)
            snprintf(why, WHY_MAX, l->sub_run[0] ? "not subscribed to this server" : "%s", l->why);
        pthread_mutex_unlock(&l->lock);
        if (!heard)
            return false;
        if (!void_all(t, c)) {
            snprintf(why, WHY_MAX, "DEL or PUBLISH refused or not answered");
            return false;
        }
        pthread_mutex_lock(&l->lock);
        const bool done = l->subscribed && missed == l->missed;
        if (done) {
            memcpy(l->run, c->run, RUN_LEN);
            breaker_force(l->breaker, BREAKER_CLOSED, now_us());
            l->up = true;
            atomic_store_explicit(&l->up_hint, true, memory_order_release);
        }
        pthread_mutex_unlock(&l->lock);
        if (done)
            return true;
    }
    snprintf(why, WHY_MAX, "invalidations overtake each other");
    return false;
}

static bool bring_up(struct tiers *t, char why[WHY_MAX])
{
    struct conn *c = link_connect(&t->link, why);
    if (!c)
        return false;
    bool ok = load_scripts(&t->link, c);
    if (!ok)
        snprintf(why, WHY_MAX, "SCRIPT LOAD refused or not answered");
    ok = ok && into_use(t, c, why);
    if (!ok || !link_add(&t->link, c))
        conn_close(c);
    return ok;
}

static void grow(struct link *l)
{
    char why[WHY_MAX];
    for (;;) {
        pthread_mutex_lock(&l->lock);
        const bool more = l->up && !l->stop && l->n_open < l->pool_size &&
                          (l->n_open < l->min_idle || (l->n_waiting > 0 && !l->idle));
        pthread_mutex_unlock(&l->lock);
        if (!more)
            return;
        struct conn *c = link_connect(l, why);
        if (!c) {
            link_down(l, why);
            return;
        }
        if (!link_add(l, c)) {
            conn_close(c);
            link_down(l, "another server answers");
            return;
        }
    }
}

/* ---- in use ---- */

static uint64_t info_number(const char *info, const char *name)
{
    const char *at = strstr(info, name);
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static void beat(struct tiers *t)
{
    struct link *l = &t->link;
    struct conn *c = link_take(l);
    redisReply *r[3];
    if (!c)
        return;
    char silence[STR_U64_MAX], forget[STR_U64_MAX];
    const struct str args[] = {STR(INSTANCES_KEY),
                               STR(EPOCH_KEY),
                               {t->id, RUN_LEN},
                               {silence, str_from_u64(SILENCE_MS, silence)},
                               {forget, str_from_u64(FORGET_MS, forget)},
                               str_c(t->channel)};
    conn_script(l, c, SCRIPT_BEAT, 2, args, 6);
    conn_command(c, "DBSIZE");
    conn_command(c, "INFO");
    const bool ok = conn_exchange(c, 3, r);
    if (ok && r[1]->type == REDIS_REPLY_INTEGER && r[2]->type == REDIS_REPLY_STRING) {
        t->entries = (uint64_t)r[1]->integer;
        t->bytes = info_number(r[2]->str, "\nused_memory:");
        t->max_bytes = info_number(r[2]->str, "\nmaxmemory:");
        t->evictions = info_number(r[2]->str, "\nevicted_keys:");
        t->expirations = info_number(r[2]->str, "\nexpired_keys:");
    }
    replies_free(r, 3);
    link_give(l, c);
    if (!ok)
        link_down(l, "no heartbeat");
}

static void say_goodbye(struct tiers *t)
{
    redisReply *r;
    struct conn *c = link_take(&t->link);
    if (!c)
        return;
    conn_command(c, "ZREM " INSTANCES_KEY " %s", t->id);
    (void)conn_exchange(c, 1, &r);
    replies_free(&r, 1);
    link_give(&t->link, c);
}

/* Waits until there is something to do or the time has come. *ret_up: in what state the keeper left it, and now is. */
static bool keeper_wait(struct link *l, int64_t until_us, bool *ret_up, bool *ret_rates)
{
    const struct timespec until = {until_us / 1000000, until_us % 1000000 * 1000};
    pthread_mutex_lock(&l->lock);
    while (!l->stop && l->up == *ret_up && !l->rates_wait &&
           !(l->up && l->n_open < l->pool_size && (l->n_open < l->min_idle || (l->n_waiting > 0 && !l->idle))))
        if (pthread_cond_timedwait(&l->wanted, &l->lock, &until) == ETIMEDOUT)
            break;
    *ret_up = l->up;
    *ret_rates = l->rates_wait;
    const bool stop = l->stop;
    pthread_mutex_unlock(&l->lock);
    return !stop;
}

static void send_rates(struct tiers *t)
{
    struct link *l = &t->link;
    const struct timespec batch = {0, BATCH_US * 1000L};
    nanosleep(&batch, NULL);
    pthread_mutex_lock(&l->lock);
    l->rates_wait = false;
    pthread_mutex_unlock(&l->lock);
    rates_send(t->rates, l);
}

static void *keep(void *ctx)
{
    struct tiers *t = ctx;
    struct link *l = &t->link;
    int64_t next_beat = now_us(), next_try = now_us(), since = now_us();
    unsigned tries = 0;
    bool up = false, said_down = false, was_up = false, rates = false;
    char why[WHY_MAX] = "";
    for (;;) {
        if (!up && was_up) {
            pthread_mutex_lock(&l->lock);
            memcpy(why, l->why, sizeof why);
            pthread_mutex_unlock(&l->lock);
            log_msg(LOG_WARN, "Redis is out of use", LOG_S("why", why));
            said_down = true;
            if (now_us() - since > STEADY_US)
                tries = 0;
            next_try = now_us() + backoff(tries++);
        }
        was_up = up;
        if (!keeper_wait(l, up ? next_beat : next_try, &up, &rates))
            break;
        if (rates)
            send_rates(t);
        if (up) {
            grow(l);
            if (now_us() >= next_beat) {
                beat(t);
                next_beat = now_us() + BEAT_US;
            }
        } else if (!was_up && now_us() >= next_try) {
            if (bring_up(t, why)) {
                up = true;
                accord_hurry(t);
                log_msg(LOG_INFO, "Redis is in use", LOG_S("host", l->host), LOG_I("port", l->port));
                next_beat = since = now_us();
            } else {
                if (!said_down && tries == 3) /* the subscription is a moment behind at first */
                    log_msg(LOG_WARN, "Redis cannot be used; going on without it", LOG_S("why", why));
                next_try = now_us() + backoff(tries++);
            }
        }
    }
    if (up)
        rates_send(t->rates, l);
    say_goodbye(t);
    return NULL;
}

/* ---- listening ---- */

static void invalidated(struct tiers *t, struct str keys)
{
    while (keys.n > 0) {
        const size_t n = (unsigned char)keys.p[0];
        if (n + 1 > keys.n) {
            forget_all(t);
            return;
        }
        const struct str key = {keys.p + 1, n};
        cache_del(t->local, key);
        tell_watch(t, key);
        keys = (struct str){keys.p + 1 + n, keys.n - 1 - n};
    }
}

/* false: this is no server of ours. */
static bool heard(struct tiers *t, const redisReply *r)
{
    if (r->type != REDIS_REPLY_ARRAY || r->elements < 2 || r->element[0]->type != REDIS_REPLY_STRING)
        return false;
    if (strcmp(r->element[0]->str, "message") != 0)
        return strcmp(r->element[0]->str, "subscribe") == 0;
    if (r->elements != 3 || r->element[2]->type != REDIS_REPLY_STRING)
        return false;
    const struct str m = {r->element[2]->str, r->element[2]->len};
    if (m.n > RUN_LEN && memcmp(m.p, t->id, RUN_LEN) == 0)
        return true;
    const struct str rest = m.n > RUN_LEN ? (struct str){m.p + RUN_LEN + 1, m.n - RUN_LEN - 1} : STR_NONE;
    switch (m.n > RUN_LEN ? m.p[RUN_LEN] : '\0') {
    case 'k':
        invalidated(t, rest);
        break;
    case 'g':
        cache_del_glob(t->local, rest);
        tell_watch(t, rest);
        break;
    default: /* a later version's: whatever it means, this is safe */
        forget_all(t);
    }
    return true;
}

static void subscribed(struct link *l, const char *run)
{
    pthread_mutex_lock(&l->lock);
    l->subscribed = run != NULL;
    if (run)
        memcpy(l->sub_run, run, RUN_LEN);
    pthread_cond_signal(&l->wanted);
    pthread_mutex_unlock(&l->lock);
}

static void listen_on(struct tiers *t, struct conn *c)
{

    bool ok = true;
    conn_command(c, "SUBSCRIBE %s", t->channel);
    redisReply *first = conn_send(c, COMMAND_US) ? conn_receive(c, COMMAND_US) : NULL;
    ok = first && heard(t, first);
    replies_free(&first, 1);
    if (!ok)
        return;
    forget_all(t); /* what was said before was not heard */
    subscribed(&t->link, c->run);
    ears_listen(t, c, heard);
    accord_deaf(t);
    subscribed(&t->link, NULL);
    link_down(&t->link, "the subscription is lost");
    accord_hurry(t);
}

static void *subscribe(void *ctx)
{
    struct tiers *t = ctx;
    struct link *l = &t->link;
    for (unsigned tries = 0; !link_stopping(l); tries++) {
        char why[WHY_MAX];
        struct timespec until;
        struct conn *c = link_connect(l, why);
        const int64_t since = now_us();
        if (c)
            listen_on(t, c);
        conn_close(c);
        if (now_us() - since > BACKOFF_MOST_US)
            tries = 0;
        deadline_after(backoff(tries), &until);
        pthread_mutex_lock(&l->lock);
        if (!c)
            memcpy(l->why, why, sizeof why);
        if (!l->stop)
            pthread_cond_timedwait(&l->stopping, &l->lock, &until);
        pthread_mutex_unlock(&l->lock);
    }
    return NULL;
}

/* ---- the threads ---- */

static void set_stop(struct link *l)
{
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->wanted);
    pthread_cond_broadcast(&l->stopping);
    pthread_mutex_unlock(&l->lock);
}

bool keeper_start(struct tiers *t)
{
    if (pthread_create(&t->subscriber, NULL, subscribe, t) != 0)
        return false;
    if (pthread_create(&t->keeper, NULL, keep, t) == 0)
        return true;
    set_stop(&t->link);
    pthread_join(t->subscriber, NULL);
    return false;
}

void keeper_stop(struct tiers *t)
{
    set_stop(&t->link);
    pthread_join(t->keeper, NULL);
    pthread_join(t->subscriber, NULL);
}
