#include "app/internal.h"

#include <stdlib.h>
#include <stdio.h>

#include "base/buf.h"
#include "codec/crypt.h"
#include "domain/money/money.h"

struct app *app_new(const struct app_config *c, const struct app_deps *d)
{
    struct app *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->cfg = *c;
    if (a->cfg.booking_hold_us <= 0)
        a->cfg.booking_hold_us = BOOKING_HOLD_US;
    a->d = *d;
    a->rate_limit = c->rate_limit;
    for (unsigned i = 0; i < AUTH_LOCKS; i++)
        pthread_mutex_init(&a->auth_lock[i], NULL);
    pthread_mutex_init(&a->delete_lock, NULL);
    pthread_mutex_init(&a->schedule_lock, NULL);
    pthread_mutex_init(&a->message_lock, NULL);
    pthread_cond_init(&a->message_more, NULL);
    a->secret = malloc(c->jwt_secret.n + 1);
    a->auth = calloc(AUTH_SLOTS, sizeof *a->auth);
    a->inflight = inflight_new();
    a->leases = leases_new(a);
    if (!a->secret || !a->auth || !a->inflight || !a->leases || !breakers_init(a) || !checks_init(a))
        goto fail;
    if (store_shared(d->store)) {
        struct fallback_config own = fallback_defaults();
        a->lastgood = fallback_new(c->fallback.max_entries ? &c->fallback : &own);
        if (!a->lastgood)
            goto fail;
    }
    /* a well-formed hash that no password has: it takes as long to check as a real one, and no time to make */
    snprintf(a->dummy_hash, sizeof a->dummy_hash, "$2b$%02d$%s", c->bcrypt_cost,
             "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu");
    memcpy(a->secret, c->jwt_secret.p, c->jwt_secret.n);
    a->cfg.jwt_secret = (struct str){a->secret, c->jwt_secret.n};
    a->logins_ok = metric_counter(d->metrics, "payflow_logins_total", "Logins by outcome.", "outcome=\"ok\"");
    a->logins_refused = metric_counter(d->metrics, "payflow_logins_total", "Logins by outcome.", "outcome=\"refused\"");
    a->logins_limited =
        metric_counter(d->metrics, "payflow_logins_limited_total", "Logins refused by the login limit.", "");
    a->registrations = metric_counter(d->metrics, "payflow_registrations_total", "Users registered.", "");
    a->writer = writer_new(a);
    if (!a->writer)
        goto fail;
    cache_watch(d->cache, app_invalidated, a);
    return a;
fail:
    app_free(a);
    return NULL;
}

void app_free(struct app *a)
{
    if (!a)
        return;
    cache_watch(a->d.cache, NULL, NULL);
    writer_free(a->writer);
    inflight_free(a->inflight);
    leases_free(a->leases);
    breakers_free(a);
    checks_free(a);
    fallback_free(a->lastgood);
    for (unsigned i = 0; i < AUTH_LOCKS; i++)
        pthread_mutex_destroy(&a->auth_lock[i]);
    pthread_mutex_destroy(&a->delete_lock);
    pthread_mutex_destroy(&a->schedule_lock);
    pthread_mutex_destroy(&a->message_lock);
    pthread_cond_destroy(&a->message_more);
    free(a->auth);
    if (a->secret)
        explicit_bzero(a->secret, a->cfg.jwt_secret.n);
    free(a->secret);
    free(a);
}

void app_set_rate_limit(struct app *a, int64_t per_minute)
{
    atomic_store_explicit(&a->rate_limit, per_minute, memory_order_relaxed);
}

money_currency app_default_currency(const struct app *a)
{
    return a->cfg.currency;
}

unsigned app_password_min(const struct app *a)
{
    return a->cfg.password_min;
}

bool app_shared(const struct app *a)
{
    return store_shared(a->d.store);
}

struct store *app_store(struct app *a)
{
    return a->d.store;
}

struct cache *app_cache(struct app *a)
{
    return a->d.cache;
}

struct metrics *app_metrics(struct app *a)
{
    return a->d.metrics;
}

_Thread_local bool app_trusting;
_Thread_local struct app_stale app_stale;

void app_stale_begin(struct app *a)
{
    app_stale = (struct app_stale){.allowed = true};
    store_stale(a->d.store, STORE_STALE_ALLOW);
}

int64_t app_stale_end(struct app *a)
{
    const int64_t read = store_stale(a->d.store, STORE_STALE_END), kept = app_stale.us;
    app_stale = (struct app_stale){0};
    return read > kept ? read : kept;
}

bool app_confirms(struct app *a)
{
    return store_shared(a->d.store) && cache_shared(a->d.cache) && cache_sound(a->d.cache);
}

void app_confirm(struct app *a, struct cache_confirm *q)
{
    cache_confirm(a->d.cache, q);
}

void app_trust(bool on)
{
    app_trusting = on;
}

const struct clock *app_clock(struct app *a)
{
    return a->d.clock;
}

static char *put_u64(char *p, uint64_t v)
{
    char tmp[20];
    unsigned n = 0;
    do {
        tmp[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    while (n)
        *p++ = tmp[--n];
    return p;
}

static struct str key_of(char *out, struct str prefix, int64_t id)
{
    memcpy(out, prefix.p, prefix.n);
    char *p = put_u64(out + prefix.n, (uint64_t)id);
    return (struct str){out, (size_t)(p - out)};
}

struct str app_key_user(char *out, int64_t user)
{
    return key_of(out, STR("user:"), user);
}

struct str app_key_transaction(char *out, int64_t seq)
{
    return key_of(out, STR("transaction:"), seq);
}

struct str app_key_balance(char *out, int64_t user, money_currency currency)
{
    struct str k = key_of(out, STR("balance:"), user);
    const struct money_currency_info *ci = money_by_num(currency);
    out[k.n++] = ':';
    memcpy(out + k.n, ci ? ci->code : "???", 3);
    k.n += 3;
    return k;
}

static struct str key_of_address(char *out, struct str prefix, struct str address)
{
    size_t n = address.n < 64 ? address.n : 64;
    memcpy(out, prefix.p, prefix.n);
    memcpy(out + prefix.n, address.p, n);
    return (struct str){out, prefix.n + n};
}

static void rate(struct app *a, struct str key, int64_t cost, struct app_limit *ret)
{
    int64_t limit = atomic_load_explicit(&a->rate_limit, memory_order_relaxed);
    *ret = (struct app_limit){.limited = limit > 0, .allowed = true, .limit = limit};
    if (limit <= 0)
        return;
    struct cache_rate r;
    cache_rate(a->d.cache, key, limit, 60 * 1000000LL, cost, &r);
    ret->allowed = r.allowed;
    ret->remaining = r.remaining > 0 ? r.remaining : 0;
    ret->reset_s = (r.reset_us + 999999) / 1000000;
}

void app_rate_check(struct app *a, const struct caller *c, struct app_limit *ret)
{
    char key[CACHE_KEY_MAX];
    rate(a,
         c->who.user ? key_of(key, STR("rate:user:"), c->who.user) : key_of_address(key, STR("rate:addr:"), c->address),
         1, ret);
}

void app_rate_guess(struct app *a, const struct caller *c, bool count, struct app_limit *ret)
{
    char key[CACHE_KEY_MAX];
    rate(a, key_of_address(key, STR("rate:guess:"), c->address), count ? 1 : 0, ret);
}
