/*
 * app: the use cases. Rights, transactions and idempotency live here; HTTP, SQL and JSON do not.
 *
 * One header per area (movement.h, identity.h, accounts.h, schedules.h, lease.h, admin.h); this one makes and ends the
 * whole and holds what all of them share: who is calling, and the rules of who may.
 *
 * Functions marked "blocking" read or write the store, or hash a password: worker threads only. The others are quick.
 * All are thread-safe.
 */
#ifndef APP_APP_H
#define APP_APP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "port/bus.h"
#include "port/cache.h"
#include "port/documents.h"
#include "port/store.h"
#include "resilience/fallback.h"
#include "telemetry/metrics.h"

struct app;

struct app_config {
    bool dev;                        /* ENV=dev: open routes answer an anonymous admin */
    bool trials;                     /* not ENV=prod: app/breakers.h has its services */
    int bcrypt_cost;                 /* 4..15 */
    unsigned password_min;           /* characters */
    struct str jwt_secret;           /* copied */
    money_currency currency;         /* DEFAULT_CURRENCY */
    int64_t rate_limit;              /* requests a minute per principal; 0: off */
    struct fallback_config fallback; /* all zero: fallback_defaults; its strings are copied. See lastgood.h */
    size_t queue_capacity;           /* movements that may wait for the writer */
    unsigned group_max;              /* jobs decided together, at most */
    int64_t booking_lock_us;         /* lifetime of an event's lock, see writer_turn.c; 0: off */
    int64_t booking_hold_us;         /* a booking holds its tickets for so long without payment; 0: ten minutes */
    unsigned jobs_elsewhere;         /* bits 1 << enum app_lease: other processes do them; their leases are not taken */
    /* For simulation: the ledger writer is no thread. app_step decides a group on the caller's, and so does whatever
       waits for one: nothing runs unless it is called, and all calls must come from one thread. */
    bool stepped;
};

struct app_deps {
    struct store *store; /* borrowed, all of them */
    struct cache *cache;
    const struct clock *clock;
    struct metrics *metrics;
    struct documents *documents; /* what events are about; NULL: there are none to be had (app/events.h) */
    struct bus *bus;             /* only its health is asked for; NULL: none */
    void (*on_fatal)(void *ctx); /* a commit's outcome is unknown: stop the process. Any thread. */
    void *fatal_ctx;
};

/* Starts the ledger writer. NULL: out of memory or threads. */
struct app *app_new(const struct app_config *c, const struct app_deps *d);
/* Finishes what waits in the writer, then stops it. */
void app_free(struct app *a);
void app_set_rate_limit(struct app *a, int64_t per_minute);
money_currency app_default_currency(const struct app *a);
unsigned app_password_min(const struct app *a); /* characters */
bool app_shared(const struct app *a);           /* its store is one that other processes use too: reads of it block */
struct store *app_store(struct app *a);
struct cache *app_cache(struct app *a);
struct metrics *app_metrics(struct app *a);
/* Between these two the calling thread's reads may be stale if the store has no better (store_stale); for what is only
   shown. Returns by how many microseconds they may be behind; 0: they are not. */
void app_stale_begin(struct app *a);
int64_t app_stale_end(struct app *a);
/* Is it worth asking app_confirm? false: what is kept in this process is either exact anyway (app_trust then says so),
   or of no use for now. Quick. */
bool app_confirms(struct app *a);
/* q->fn is called once it is known whether what this process keeps (cached values, remembered credentials) is as new as
   all that had been acknowledged when this was called: port/cache.h. */
void app_confirm(struct app *a, struct cache_confirm *q);
/* Until it is called with false, the calling thread acts for somebody about whom app_confirm has said yes. Without it,
   in a store that other processes use too, nothing is answered from the cache, and a remembered credential may be of a
   second ago. */
void app_trust(bool on);
const struct clock *app_clock(struct app *a);

/* ---- who is calling ---- */

enum app_credential { CRED_NONE, CRED_APIKEY, CRED_TOKEN };

struct principal {
    int64_t user;         /* 0: anonymous */
    enum ident_role role; /* IDENT_ADMIN for the anonymous admin of an open route in dev */
    enum app_credential by;
    int64_t key_id;     /* CRED_APIKEY */
    uint8_t family[16]; /* CRED_TOKEN: its session */
};

/* The circumstances of a call, for the audit log. Borrowed strings. */
struct caller {
    struct principal who;
    struct str address;
    struct str request_id;
};

enum app_right {
    RIGHT_NONE,   /* no row may have this: a route without a right does not build */
    RIGHT_PUBLIC, /* anybody */
    RIGHT_USER,   /* any credential */
    RIGHT_OWNER,  /* the user it is about, or an admin */
    RIGHT_ADMIN
};

struct app_rule {
    enum app_right right;
    bool open; /* in dev also without a credential, as an anonymous admin */
    bool any;  /* RIGHT_PUBLIC: who asks makes no difference, and a bad credential is none */
};

enum app_auth { APP_AUTH_OK, APP_AUTH_REFUSED, APP_AUTH_WOULD_BLOCK };

/*
 * Who sent these credentials (either may be empty)? No credential is APP_AUTH_OK with an all-zero principal. Checks
 * every one that is sent. may_block false: answers from memory or says APP_AUTH_WOULD_BLOCK. On APP_AUTH_REFUSED p says
 * why.
 */
enum app_auth app_authenticate(struct app *a, struct str api_key, struct str authorization, bool may_block,
                               struct principal *ret, struct problem *p);
/* The same by their form alone, for a route with this rule, before its body is there: PFE_OK, or the refusal that such
   a request comes to in any case (*ret_why: a literal). Does not block. */
enum pf_err app_presents(const struct app *a, const struct app_rule *rule, struct str api_key, struct str authorization,
                         const char **ret_why) MUSTCHECK;
/* The rule of a route against a caller, before what it is about is known. Turns an anonymous caller of an open route in
   dev into the anonymous admin. */
enum pf_err app_admit(const struct app *a, const struct app_rule *rule, struct principal *who,
                      struct problem *p) MUSTCHECK;
/* RIGHT_OWNER, once it is known whom it is about: the owner or an admin, else PFE_FORBIDDEN. */
enum pf_err app_require_owner(const struct principal *who, int64_t owner, struct problem *p) MUSTCHECK;
static inline bool app_may_act_for(const struct principal *who, int64_t owner)
{
    return who->role == IDENT_ADMIN || (who->user != 0 && who->user == owner);
}

/* ---- limits ---- */

struct app_limit {
    bool limited; /* is there a limit at all? */
    bool allowed;
    int64_t limit, remaining, reset_s;
};
/* Counts a request of this principal (or address, when anonymous) against RATE_LIMIT. */
void app_rate_check(struct app *a, const struct caller *c, struct app_limit *ret);
/* As many credentials of one address may be refused in a minute; what was sent without one does not count here. count:
   one was; else allowed if one more would be. */
void app_rate_guess(struct app *a, const struct caller *c, bool count, struct app_limit *ret);

/* ---- idempotency ---- */

/*
 * One use of an Idempotency-Key. app_idem_begin reserves the key in this process; app_idem_end gives it up again. The
 * effect's commit stores the answer that `render` has put into status and body.
 */
struct app_idem {
    int64_t principal;
    struct str key; /* .n == 0: the request has none, and all of this does nothing */
    uint8_t request[32];
    int status;      /* filled in by render (0: it had no memory), or from the store on a replay */
    struct str body; /* borrowed until the commit; on a replay in the arena of the lookup */
    bool replayed;
    bool reserved;
};
/* PFE_IN_FLIGHT if a request with this key runs now. */
enum pf_err app_idem_begin(struct app *a, struct app_idem *i) MUSTCHECK;
/* Blocking. Finds an earlier answer: PFE_OK with replayed set or not; PFE_KEY_REUSED when it was for another request.
 */
enum pf_err app_idem_lookup(struct app *a, struct arena *arena, struct app_idem *i) MUSTCHECK;
void app_idem_end(struct app *a, struct app_idem *i);

#endif
