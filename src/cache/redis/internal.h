/* internal: what the files of cache/redis share. */
#ifndef CACHE_REDIS_INTERNAL_H
#define CACHE_REDIS_INTERNAL_H

#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/resolve.h"
#include "cache/redis/redis.h"
#include "resilience/breaker.h"

enum {
    CONNECT_US = 200 * 1000,
    NAMES_MS = 1000, /* for the name's address; on a thread of the cache's own, which is to stop as soon */
    COMMAND_US = 100 * 1000,
    SLOW_US = 50 * 1000,
    TAKE_US = 50 * 1000,          /* how long a thread waits for a free connection */
    LOCAL_LIFETIME_US = 3000000,  /* of a copy of what other instances may change */
    ACCORD_LEASE_US = 1000000,    /* how long an agreement lasts */
    REPLY_BYTES_MAX = 4 << 20,    /* of what came and was not read yet */
    REPLY_ELEMENTS_MAX = 1 << 17, /* a SCAN slice is about its COUNT */
    RUN_LEN = 16,
    EPOCH_LEN = 2 * RUN_LEN, /* the server's run id, random hex */
    WHY_MAX = 160,
};

#define EPOCH_KEY "payflow:epoch"
#define INSTANCES_KEY "payflow:instances"

/* ---- connections: link.c ---- */

struct conn {
    redisContext *redis; /* the socket */
    redisReader *reader; /* instead of the context's own: bounded */
    redisReplyObjectFunctions fn;
    void *(*make_array)(const redisReadTask *, int); /* hiredis's own */
    struct buf out;
    char run[RUN_LEN + 1];
    uint64_t era;
    bool broken;
    struct breaker_permit permit;
    enum breaker_result verdict;
    struct conn *next; /* idle ones */
};

enum script { SCRIPT_LEASE, SCRIPT_PUT, SCRIPT_DROP, SCRIPT_RATE, SCRIPT_BEAT, SCRIPT_UNLOCK, SCRIPTS };
enum { SHA_LEN = 40 };

struct link {
    char *host, *user, *password;
    int port, db;
    unsigned pool_size, min_idle;
    struct breaker *breaker;
    struct resolver *names;

    pthread_mutex_t lock;
    pthread_cond_t given, wanted; /* a connection came back; the keeper has something to do */
    pthread_cond_t stopping;
    struct conn *idle;
    unsigned n_idle, n_open, n_waiting; /* n_open: idle and taken ones */
    uint64_t era;                       /* connections of an earlier one are closed, not given back */
    uint64_t missed;                    /* invalidations that could not be sent */
    bool up, stop, subscribed, rates_wait;
    char run[RUN_LEN + 1];     /* of the server in use */
    char sub_run[RUN_LEN + 1]; /* of the one that is subscribed to */
    char why[WHY_MAX];         /* it is down */
    _Atomic bool up_hint;
    char sha[SCRIPTS][SHA_LEN + 1]; /* written before it is up the first time, the same ever after */
};

bool link_init(struct link *l, const struct cache_redis_options *o);
void link_fini(struct link *l);
/* A new connection, with its database chosen: may wait for name resolution, so on the cache's own threads only. NULL
   and one line in why. */
struct conn *link_connect(const struct link *l, char why[WHY_MAX]);
void conn_close(struct conn *c); /* NULL is allowed */
/* Appends a command; hiredis's format, %b takes pointer and size_t. */
void conn_command(struct conn *c, const char *fmt, ...);
void conn_argv(struct conn *c, unsigned n, const char **argv, const size_t *lens);
/* Appends EVALSHA of a script with n_keys keys, then other arguments. */
void conn_script(struct link *l, struct conn *c, enum script s, unsigned n_keys, const struct str *args, unsigned n);
/* Sends what was appended and reads n replies, which are the caller's to free; on false the connection is broken and
   ret holds NULLs. Errors that say that this server cannot serve break it too. */
bool conn_exchange(struct conn *c, unsigned n, redisReply **ret);
/* The next reply; NULL: none in time, or broken. */
redisReply *conn_receive(struct conn *c, int64_t timeout_us);
bool conn_send(struct conn *c, int64_t timeout_us);
void replies_free(redisReply **r, unsigned n);

/* Into the pool, unless Redis is out of use or this is another server than the one in use: then it stays the caller's.
 */
bool link_add(struct link *l, struct conn *c);
void deadline_after(int64_t us, struct timespec *ret);
/* NULL: Redis is out of use, or all connections are for too long. */
struct conn *link_take(struct link *l);
void link_give(struct link *l, struct conn *c);
bool link_stopping(struct link *l);
/* Out of use until the keeper brings it back with a new epoch. */
void link_down(struct link *l, const char *why);
/* The same for an invalidation that Redis may not have seen. */
void link_missed(struct link *l, const char *why);
static inline bool link_up(struct link *l)
{
    return atomic_load_explicit(&l->up_hint, memory_order_acquire);
}

extern const char *const script_text[SCRIPTS];

/* ---- one store read for many misses: flight.c ---- */

enum { FLIGHTS = 1024, LEASE_LEN = 1 + EPOCH_LEN + RUN_LEN };

struct flight {
    uint64_t hash, serial; /* serial 0: free */
    uint64_t local_token;
    int64_t until_us; /* nobody waits for it any more */
    uint64_t alone;   /* serial of the last one here that brought nothing */
    char lease[LEASE_LEN];
    bool leased;
};

struct flights {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    uint64_t serial;
    struct flight at[FLIGHTS];
};

enum flight_join {
    FLIGHT_LEAD,  /* *ret_token: the caller's, to end */
    FLIGHT_AGAIN, /* another thread has ended its own: look again */
    FLIGHT_ALONE  /* do not wait */
};

#define FLIGHT_TOKEN (UINT64_C(1) << 63)

void flights_init(struct flights *f);
void flights_fini(struct flights *f);
enum flight_join flight_join(struct flights *f, uint64_t hash, int64_t deadline_us, uint64_t *ret_token);
/* lease NULL: none */
void flight_set(struct flights *f, uint64_t token, uint64_t local_token, const char *lease);
/* found: those who wait look again, else each goes its own way. Nothing if it was over. */
void flight_end(struct flights *f, uint64_t token, bool found);
/* A copy of a running one; false: it was over. */
bool flight_read(struct flights *f, uint64_t token, struct flight *ret);

/* ---- shared rate windows: rates.c ---- */

struct rates;
struct rates *rates_new(void);
void rates_free(struct rates *r);
/* Counts in the shared window as far as it is known here, and tightens ret (the local tier's verdict) by it. true:
   there is now something to send where there was nothing. */
bool rates_count(struct rates *r, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                 struct cache_rate *ret);
/* The same after asking Redis. */
void rates_count_exact(struct rates *r, struct link *l, struct str key, int64_t limit, int64_t window_us, int64_t cost,
                       struct cache_rate *ret);
/* Sends what waits, all of it in slices. */
void rates_send(struct rates *r, struct link *l);

/* ---- locks.c ---- */

enum cache_lock tiers_lock(struct cache *c, struct str key, int64_t ttl_us, char ret_holder[CACHE_LOCK_LEN + 1]);
void tiers_unlock(struct cache *c, struct str key, const char holder[CACHE_LOCK_LEN + 1]);

/* ---- the whole: redis.c, keeper.c, values.c ---- */

struct tier_counts {
    _Atomic uint64_t hits, misses, puts, invalidations, refused_puts;
};

/* What all instances agree on: accord.c. */
struct accord {
    bool (*say)(void *ctx, const char *process, const char *word, struct cache_words *ret);
    void (*end)(void *ctx, const char *process);
    void *ctx;
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t more, changed; /* the thread has something to do; a round is over */
    char word[RUN_LEN + 1];       /* of the round under way */
    char said[RUN_LEN + 1];       /* of the last good one */
    int64_t beat_us;              /* when that began; 0: none yet */
    int64_t deaf_us;              /* when it was known that "" had been said durably; 0: it has not */
    bool alone;                   /* nobody else could be told, as of the last good round */
    bool agreed, entering;        /* values are in use; are about to be */
    bool stop, wanted;
    unsigned n_waiting;
    unsigned n_mute;          /* of these: who needs us to be silent until then */
    _Atomic int64_t lease_us; /* 0: none */
};

/* Who waits to know that all was heard: ears.c. */
struct ears {
    pthread_mutex_t lock;
    struct conn *conn;                    /* the subscription; NULL: none */
    struct cache_confirm *asked, *flying; /* before and behind the PING under way */
    bool pinged;
    int64_t pinged_us;
    _Atomic int64_t heard_us;
};

struct tiers {
    struct cache cache;
    struct accord accord;
    struct ears ears;
    struct cache *local;
    struct link link;
    struct flights flights;
    struct rates *rates;
    struct tier_counts counts;
    _Atomic uint64_t entries, bytes, max_bytes, evictions, expirations; /* as the server said last */
    uint8_t secret[32];
    char id[RUN_LEN + 1]; /* this instance */
    char channel[48];
    pthread_t keeper, subscriber;
    pthread_mutex_t watch_lock;
    void (*watch)(void *ctx, struct str pattern);
    void *watch_ctx;
};

/* Before any thread of the tiers is there. */
void accord_init(struct tiers *t, const struct cache_redis_options *o);
/* Once the link is there. false: no thread; accord_stop is allowed all the same. */
bool accord_start(struct tiers *t);
void accord_stop(struct tiers *t);
void accord_fini(struct tiers *t);
/* Can nobody have acknowledged a change that was not told here? */
bool accord_sound(struct tiers *t);
/* The beginning of the last round in which all agreed, for as long as that counts; 0: it does not. */
int64_t accord_lease(struct tiers *t);
/* What others tell is not heard any more. */
void accord_deaf(struct tiers *t);
/* The state of the link has changed: say so now. */
void accord_hurry(struct tiers *t);
/* Waits until it does not matter to others whether they heard: a change was told through the server `run` (""; it could
   not be told). At most 2.5 s and three calls of `say`, whatever Redis does meanwhile. false: that did not come about
   within 5 s, for the store does not answer. */
bool accord_settle(struct tiers *t, const char *run);

void ears_init(struct ears *e);
void ears_fini(struct ears *e);
/* Listens until the subscription is lost or the link stops; heard is called for each message and says whether to go on.
 */
void ears_listen(struct tiers *t, struct conn *c, bool (*heard)(struct tiers *t, const redisReply *r));
void tiers_confirm(struct cache *c, struct cache_confirm *q);

/* Makes void what is in Redis, at the other instances and here. */
bool keeper_void(struct tiers *t);
/* The two threads. false: none runs. */
bool keeper_start(struct tiers *t);
void keeper_stop(struct tiers *t);

/* A random name: RUN_LEN hex digits and a NUL. */
void random_name(char out[RUN_LEN + 1]);

enum { VALUE_HEAD = 1 + EPOCH_LEN + 16 };
/* 'V', epoch, MAC, bytes. */
bool value_pack(const struct tiers *t, struct str key, const char *epoch, struct str value, struct buf *ret);
/* Borrowed from text. false: no value of this epoch and key, made with our secret. */
bool value_unpack(const struct tiers *t, struct str key, const char *epoch, struct str text, struct str *ret);

enum pf_err tiers_keys(struct cache *c, struct str pattern, uint64_t limit,
                       bool (*fn)(void *ctx, struct str key, int64_t ttl_us), void *ctx);
/* Removes from Redis alone; false: some may be left. */
bool tiers_redis_del_glob(struct tiers *t, struct str pattern, uint64_t *ret_n);

/* Messages: origin (RUN_LEN), kind ('k': keys, each with a length byte; 'g': a pattern). */
enum { MESSAGE_KEYS = 256 };

#endif
