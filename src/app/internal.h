/* internal: what the app's files share and nobody else sees. */
#ifndef APP_INTERNAL_H
#define APP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "app/app.h"
#include "app/breakers.h"
#include "app/movement.h"

/* Principals by the hash of their key or by their session: in sets of AUTH_WAYS, bounded, filled on use. Believed for
   AUTH_TTL_US at most, and for AUTH_SHOWN_US where stale answers are given because nobody can be asked. */
enum {
    AUTH_SLOTS = 8192,
    AUTH_WAYS = 2,
    AUTH_LOCKS = 64,
    AUTH_GENERATIONS = 1024,
    AUTH_TTL_US = 60 * 1000000,
    AUTH_SHOWN_US = 600 * 1000000
};
struct auth_slot {
    uint8_t key[32];
    struct principal who;
    uint32_t generation;
    int64_t asked_us; /* when the store was; monotonic; 0: empty */
};
/* For how long a remembered principal is believed where nobody says what other processes changed. */
enum { AUTH_ALONE_US = 1000000 };

/* iss and aud of every token */
#define APP_TOKEN_ISSUER STR("payflow")
#define APP_TOKEN_AUDIENCE STR("payflow")

enum { BOOKING_HOLD_US = 600 * 1000000 };

struct checks;
struct inflight;
struct leases;
struct writer;

struct app {
    struct app_config cfg;
    char *secret;
    char dummy_hash[64]; /* for logins of unknown names; same cost as real ones */
    _Atomic int64_t rate_limit;
    _Atomic bool reconciling;
    struct app_deps d;
    struct writer *writer;
    struct inflight *inflight;
    struct leases *leases;
    pthread_mutex_t delete_lock;  /* users, one at a time */
    int64_t closing_next_us;      /* monotonic; the scheduler's */
    pthread_mutex_t message_lock; /* over */
    pthread_cond_t message_more;
    bool messages;                 /* some were committed that the relay has not been told of */
    pthread_mutex_t schedule_lock; /* a due run, or a cancellation: a schedule that was cancelled does not run after */

    struct auth_slot *auth;
    pthread_mutex_t auth_lock[AUTH_LOCKS];
    /* bumped when anything about a user's rights changes: makes its slots stale */
    _Atomic uint32_t auth_generation[AUTH_GENERATIONS];

    struct breaker *trial[TRIALS]; /* NULL: none */
    struct checks *checks;
    struct fallback *lastgood; /* NULL: an embedded store */

    struct metric_counter *logins_ok, *logins_refused, *logins_limited, *registrations;
};

static inline int64_t app_now(const struct app *a)
{
    return clock_wall(a->d.clock);
}

/* Makes every remembered principal of the user stale, and its cached record too, here and in all other instances. After
   the commit that changed it, whose outcome e is: PFE_INTERNAL if they cannot be told. Blocking. */
enum pf_err app_user_touched(struct app *a, int64_t user, enum pf_err e) MUSTCHECK;

/* Adds an audit row to a transaction. */
enum pf_err app_audit_add(struct app *a, struct store_tx *tx, const struct caller *c, const char *action,
                          const char *entity, struct str entity_id, const char *outcome);
enum pf_err app_audit_add_id(struct app *a, struct store_tx *tx, const struct caller *c, const char *action,
                             const char *entity, int64_t entity_id, const char *outcome);

/* Between app_stale_begin and app_stale_end on this thread; us: how old the worst is of what this process kept itself.
 */
struct app_stale {
    bool allowed;
    int64_t us;
};
extern _Thread_local struct app_stale app_stale;

/* May what is kept here be believed by the calling thread, though other processes use the same store? Set by app_trust.
 */
extern _Thread_local bool app_trusting;
static inline bool app_trusts(const struct app *a)
{
    return app_trusting || !store_shared(a->d.store);
}

/* cache_put, but for what was read from a replica that may be behind. */
static inline void app_cache_fill(struct app *a, struct str key, struct str value, int64_t ttl_us, uint64_t token)
{
    if (!app_trusts(a))
        return;
    if (store_stale(a->d.store, STORE_STALE_LOOK))
        cache_forgo(a->d.cache, token);
    else
        cache_put(a->d.cache, key, value, ttl_us, token);
}

/* The contract's cache keys. out holds CACHE_KEY_MAX bytes. */
struct str app_key_user(char *out, int64_t user);
struct str app_key_balance(char *out, int64_t user, money_currency currency);
struct str app_key_transaction(char *out, int64_t seq);
enum {
    TTL_USER_US = 30 * 60 * 1000000LL,
    TTL_BALANCE_US = 10 * 60 * 1000000LL,
    TTL_TRANSACTION_US = 15 * 60 * 1000000LL
};

/* Looks into the cache, into all its tiers when the caller may wait for them. On a miss, *ret_token is for the
 * cache_put or cache_forgo that follows. */
static inline bool app_cached(struct app *a, struct str key, bool may_block, void *out, size_t cap, size_t *ret_n,
                              uint64_t *ret_token)
{
    *ret_token = 0;
    if (!app_trusts(a))
        return false;
    return (may_block ? cache_fetch : cache_get)(a->d.cache, key, out, cap, ret_n, ret_token);
}
/* For cache_watch: what another instance changed about a user makes its remembered principals stale here too. */
void app_invalidated(void *app, struct str pattern);

struct app_tx;
/* Fills in the owners of an entry's accounts. */
enum pf_err app_tx_owners(struct app *a, struct app_tx *t);

/* Stores the answer that a render has put into i, in the transaction of its effect. PFE_NOMEM if it had no memory for
 * it. */
enum pf_err app_idem_store(struct store_tx *tx, const struct app_idem *i) MUSTCHECK;

struct inflight *inflight_new(void);
void inflight_free(struct inflight *f);

struct leases *leases_new(struct app *a);
void leases_free(struct leases *x); /* NULL is allowed */

struct writer *writer_new(struct app *a);
void writer_free(struct writer *w);

/* breakers.c; false: out of memory, and breakers_free is still due. */
bool breakers_init(struct app *a);
void breakers_free(struct app *a);
/* health.c; the same. */
bool checks_init(struct app *a);
void checks_free(struct app *a);

#endif
