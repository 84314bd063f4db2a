/*
 * What instances agree on through the store that they share: whether a change can be told through Redis (redis.h argues
 * why this suffices). Each says every BEAT_US whether it can, and through which server; a thread of its own does.
 *
 * lease: the beginning of the last round in which all said the same as we. For LEASE_US from then on nobody can have
 *        acknowledged a change that he did not tell us, for who cannot tell says so first and then waits longer than
 * that. deaf:  when it was durable that we cannot tell.
 */
#include "cache/redis/internal.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"

enum {
    BEAT_US = 250 * 1000,
    HASTE_US = 20 * 1000,   /* between beats while somebody waits for them */
    MARGIN_US = 200 * 1000, /* clocks of two machines do not run quite alike */
    TELL_US = 5 * 1000000,
};

static int64_t now_us(void)
{
    return clock_mono(clock_system());
}

/* The server that is in use and listened to; "" if there is none. */
static void in_use(struct tiers *t, char out[RUN_LEN + 1])
{
    struct link *l = &t->link;
    pthread_mutex_lock(&l->lock);
    if (l->up && l->subscribed && memcmp(l->run, l->sub_run, RUN_LEN) == 0)
        memcpy(out, l->run, RUN_LEN + 1);
    else
        out[0] = '\0';
    pthread_mutex_unlock(&l->lock);
}

int64_t accord_lease(struct tiers *t)
{
    const int64_t now = now_us();
    if (!t->accord.say)
        return now;
    const int64_t lease = atomic_load_explicit(&t->accord.lease_us, memory_order_acquire);
    return lease && now - lease < ACCORD_LEASE_US ? lease : 0;
}

bool accord_sound(struct tiers *t)
{
    return accord_lease(t) != 0;
}

/* With the lock held. Values are of no use until all agree again. */
static void part(struct accord *a)
{
    a->agreed = false;
    atomic_store_explicit(&a->lease_us, 0, memory_order_release);
}

/* One round: what we say, durably, and what the others say. */
static void round_trip(struct tiers *t)
{
    struct accord *a = &t->accord;
    struct cache_words w;
    char word[RUN_LEN + 1];
    pthread_mutex_lock(&a->lock);
    in_use(t, word);
    if (a->n_mute)
        word[0] = '\0';
    if (strcmp(a->word, word) != 0)
        part(a); /* before we say it: it is what the others will rely on */
    memcpy(a->word, word, sizeof word);
    const bool lapsed = now_us() - a->beat_us >= ACCORD_LEASE_US;
    pthread_mutex_unlock(&a->lock);

    const int64_t begun = now_us();
    const bool ok = a->say(a->ctx, t->id, word, &w);

    pthread_mutex_lock(&a->lock);
    if (ok) {
        const bool same = a->beat_us && !w.fresh && strcmp(a->said, word) == 0;
        memcpy(a->said, word, sizeof word);
        a->beat_us = begun;
        a->alone = w.speaking == 0;
        if (word[0])
            a->deaf_us = 0;
        else if (!same)
            a->deaf_us = now_us();
        if (!word[0] || w.apart > 0 || !same || lapsed)
            part(a);
        else if (!a->agreed)
            a->entering = true;
        else
            atomic_store_explicit(&a->lease_us, begun, memory_order_release);
    }
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    if (!ok || !a->entering)
        return;
    /* All agree: what was kept while they did not may be too old. */
    a->entering = false;
    if (!keeper_void(t))
        return;
    pthread_mutex_lock(&a->lock);
    in_use(t, word);
    if (strcmp(a->word, word) == 0) {
        a->agreed = true;
        atomic_store_explicit(&a->lease_us, begun, memory_order_release);
    }
    pthread_mutex_unlock(&a->lock);
}

static void *keep(void *ctx)
{
    struct tiers *t = ctx;
    struct accord *a = &t->accord;
    bool sound = true, said = true;
    int64_t since = now_us();
    pthread_mutex_lock(&a->lock);
    while (!a->stop) {
        pthread_mutex_unlock(&a->lock);
        round_trip(t);
        if (sound != accord_sound(t)) {
            sound = !sound;
            since = now_us();
            said = false;
        }
        if (!said && (sound || now_us() - since > ACCORD_LEASE_US)) { /* not for what passes at once, as at the start */
            log_msg(sound ? LOG_INFO : LOG_WARN,
                    sound ? "cached values are in use"
                          : "cached values are not in use: an "
                            "instance cannot be told of changes, or the store does not answer");
            said = true;
        }
        pthread_mutex_lock(&a->lock);
        /* agreement takes two rounds: no need to idle between them */
        const bool haste = a->n_waiting > 0 || (!a->agreed && a->said[0] && link_up(&t->link));
        struct timespec until;
        deadline_after(haste ? HASTE_US : BEAT_US, &until);
        while (!a->stop && !a->wanted)
            if (pthread_cond_timedwait(&a->more, &a->lock, &until) == ETIMEDOUT)
                break;
        a->wanted = false;
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

void accord_deaf(struct tiers *t)
{
    pthread_mutex_lock(&t->accord.lock);
    part(&t->accord);
    pthread_mutex_unlock(&t->accord.lock);
}

void accord_hurry(struct tiers *t)
{
    struct accord *a = &t->accord;
    if (!a->say)
        return;
    pthread_mutex_lock(&a->lock);
    a->wanted = true;
    pthread_cond_signal(&a->more);
    pthread_mutex_unlock(&a->lock);
}

/* With the lock held. Does everybody who may use cached values hear through `run`, or does nobody use them any more? */
static bool settled(const struct accord *a, const char *run)
{
    const int64_t now = now_us();
    if (strcmp(a->said, a->word) != 0 || now - a->beat_us >= ACCORD_LEASE_US)
        return false;
    if (run[0] && strcmp(a->said, run) == 0)
        return true;
    return !a->said[0] && a->deaf_us &&
           ((a->alone && a->beat_us > a->deaf_us) || now - a->deaf_us > ACCORD_LEASE_US + MARGIN_US);
}

bool accord_settle(struct tiers *t, const char *run)
{
    struct accord *a = &t->accord;
    struct timespec until;
    bool done, late = false, mute = false;
    if (!a->say)
        return true;
    deadline_after(TELL_US, &until);
    pthread_mutex_lock(&a->lock);
    done = settled(a, run);
    if (!done) {
        a->n_waiting++;
        a->wanted = true;
        pthread_cond_signal(&a->more);
        while (!(done = settled(a, run)) && !late && !a->stop) {
            /* Only silence helps, of a certain length, and a server that comes and goes would have it begin anew each
               time: so we stay silent until it is over, whoever is to be heard meanwhile. */
            if (!mute && (!run[0] || (a->word[0] && strcmp(a->word, run) != 0))) {
                mute = true;
                a->n_mute++;
            }
            late = pthread_cond_timedwait(&a->changed, &a->lock, &until) == ETIMEDOUT;
        }
        a->n_waiting--;
        a->n_mute -= mute;
    }
    pthread_mutex_unlock(&a->lock);
    return done;
}

void accord_init(struct tiers *t, const struct cache_redis_options *o)
{
    struct accord *a = &t->accord;
    pthread_condattr_t mono;
    a->say = o->say;
    a->end = o->end;
    a->ctx = o->ctx;
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->more, &mono);
    pthread_cond_init(&a->changed, &mono);
    pthread_condattr_destroy(&mono);
}

bool accord_start(struct tiers *t)
{
    struct accord *a = &t->accord;
    a->running = a->say && pthread_create(&a->thread, NULL, keep, t) == 0;
    return !a->say || a->running;
}

void accord_stop(struct tiers *t)
{
    struct accord *a = &t->accord;
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_broadcast(&a->more);
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    if (!a->running)
        return;
    pthread_join(a->thread, NULL);
    a->running = false;
    a->end(a->ctx, t->id);
}

void accord_fini(struct tiers *t)
{
    pthread_mutex_destroy(&t->accord.lock);
    pthread_cond_destroy(&t->accord.more);
    pthread_cond_destroy(&t->accord.changed);
}
