/* Who reads the store for a key that many threads miss at once. */
#include "cache/redis/internal.h"

#include <errno.h>

enum {
    SLOT_BITS = 10, /* FLIGHTS */
    /* A flight that nobody ends (its reader is stuck in the store) is given up by new-comers after this. */
    FLIGHT_US = 5 * 1000000,
};
_Static_assert(FLIGHTS == 1 << SLOT_BITS, "a token holds slot and serial");

void flights_init(struct flights *f)
{
    pthread_condattr_t mono;
    memset(f, 0, sizeof *f);
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&f->ended, &mono);
    pthread_condattr_destroy(&mono);
}

void flights_fini(struct flights *f)
{
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->ended);
}

static uint64_t token_of(const struct flights *f, const struct flight *at)
{
    return FLIGHT_TOKEN | at->serial << SLOT_BITS | (uint64_t)(at - f->at);
}

static struct flight *find(struct flights *f, uint64_t token)
{
    struct flight *at = &f->at[token & (FLIGHTS - 1)];
    return at->serial && token_of(f, at) == token ? at : NULL;
}

/* Direct-mapped: two keys that share a slot do not share a flight; the second goes alone. */
enum flight_join flight_join(struct flights *f, uint64_t hash, int64_t deadline_us, uint64_t *ret_token)
{
    struct flight *at = &f->at[hash & (FLIGHTS - 1)];
    enum flight_join j;
    pthread_mutex_lock(&f->lock);
    int64_t now = clock_mono(clock_system());
    if (!at->serial || at->until_us <= now) {
        f->serial = (f->serial + 1) & ((UINT64_C(1) << (63 - SLOT_BITS)) - 1);
        f->serial += f->serial == 0;
        *at = (struct flight){.hash = hash, .serial = f->serial, .until_us = now + FLIGHT_US};
        *ret_token = token_of(f, at);
        j = FLIGHT_LEAD;
    } else if (at->hash != hash) {
        j = FLIGHT_ALONE;
    } else {
        const uint64_t serial = at->serial;
        const struct timespec until = {deadline_us / 1000000, deadline_us % 1000000 * 1000};
        int e = 0;
        while (at->serial == serial && e == 0)
            e = pthread_cond_timedwait(&f->ended, &f->lock, &until);
        /* whatever stands in the slot now, `alone` is about the last that ended there */
        j = at->serial == serial || at->alone == serial ? FLIGHT_ALONE : FLIGHT_AGAIN;
    }
    pthread_mutex_unlock(&f->lock);
    return j;
}

void flight_set(struct flights *f, uint64_t token, uint64_t local_token, const char *lease)
{
    pthread_mutex_lock(&f->lock);
    struct flight *at = find(f, token);
    if (at) {
        at->local_token = local_token;
        at->leased = lease != NULL;
        if (lease)
            memcpy(at->lease, lease, LEASE_LEN);
    }
    pthread_mutex_unlock(&f->lock);
}

bool flight_read(struct flights *f, uint64_t token, struct flight *ret)
{
    pthread_mutex_lock(&f->lock);
    const struct flight *at = find(f, token);
    if (at)
        *ret = *at;
    pthread_mutex_unlock(&f->lock);
    return at != NULL;
}

void flight_end(struct flights *f, uint64_t token, bool found)
{
    pthread_mutex_lock(&f->lock);
    struct flight *at = find(f, token);
    if (at) {
        *at = (struct flight){.alone = found ? 0 : at->serial};
        pthread_cond_broadcast(&f->ended);
    }
    pthread_mutex_unlock(&f->lock);
}
