/*
 * What the files of this engine share.
 *
 * consul.c     open, close, figures, services
 * talk.c       one call over HTTP
 * decode.c     an answer of /v1/health/service as a list
 * watch.c      a watch's thread
 * own.c        our registrations and their thread
 */
#ifndef REGISTRY_CONSUL_INTERNAL_H
#define REGISTRY_CONSUL_INTERNAL_H

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "base/buf.h"
#include "registry/consul/consul.h"

enum {
    ANSWER_MAX = 4 << 20,
    ANSWER_HEAD_MAX = 64 << 10,
    TREE_MAX = 16 << 20,
    TAG_MAX = 64,
    WEIGHT_MAX = 1000,
    ESCAPED_MAX = 3 * REGISTRY_NAME_MAX,
    WHY_MAX = 256
};

/* ---- talk.c */

struct where {           /* does not change */
    char *base;          /* "http://HOST:PORT" */
    char *socket;        /* NULL: TCP */
    char *ca_file;       /* NULL: the system's */
    char dc[3 * 64 + 4]; /* "&dc=…", or "" */
    struct curl_slist *headers;
    unsigned rest_ms; /* for an answer that has begun */
};

/* Belongs to one thread at a time, but for consul_talker_wake. */
struct talker {
    CURL *easy;
    CURLM *multi;
    struct buf body;  /* of the last answer */
    size_t head;      /* bytes of its head */
    int64_t begun_us; /* its first byte came, if head > 0 */
    uint64_t index;   /* its X-Consul-Index; at least 1 */
    bool too_large;
    const atomic_bool *stop; /* ends a call; NULL: nothing does */
};

enum pf_err consul_where_init(struct where *w, const struct registry_consul_options *o, char why[WHY_MAX]);
void consul_where_fini(struct where *w);
bool consul_talker_init(struct talker *t);
void consul_talker_fini(struct talker *t); /* safe on a zeroed one */
/* Makes a call look at *stop at once. Any thread. */
void consul_talker_wake(struct talker *t);
/* The status; the body is in t->body until the next call. 0: there was no whole answer in time; one line in why. */
long consul_talk(struct talker *t, const struct where *w, const char *method, const char *path, struct str body,
                 int64_t timeout_ms, char why[WHY_MAX]);
/* For a path or a query. */
void consul_talk_escape(const char *s, char out[ESCAPED_MAX]);

/* ---- decode.c */

struct instances {
    struct arena arena;
    struct registry_instance *all; /* in order of their ids */
    size_t n;
    unsigned left_out; /* unfit, or too many */
};

/* What an answer says; on failure nothing is to be freed. */
enum pf_err consul_instances_read(struct str json, struct instances *ret, char why[WHY_MAX]);
void consul_instances_free(struct instances *i); /* safe on a zeroed one */
bool consul_instances_same(const struct instances *a, const struct instances *b);
/* Whether any of them may be asked. */
bool consul_instances_serve(const struct instances *i);

/* ---- consul.c */

/* One of those who talk to the agent, and how it goes. */
struct party {
    const char *service; /* for the log; NULL: our registrations */
    atomic_bool failing;
    atomic_int_fast64_t confirmed_us; /* monotonic; 0: never */
};

struct watch {
    struct consul *c;
    char service[REGISTRY_NAME_MAX];
    registry_changed *fn;
    void *ctx;
    struct talker talker;
    struct party party;
    pthread_t thread;

    /* its thread's */
    struct instances now;
    bool known;
    uint64_t generation;
};

struct own {
    char service[REGISTRY_NAME_MAX], id[REGISTRY_NAME_MAX], address[REGISTRY_ADDRESS_MAX];
    uint16_t port;
    char *body; /* of the call that registers it */
    bool told;  /* the agent has taken it */
    bool leaving;
};

struct consul {
    struct registry pub;
    struct where where;
    bool passing_only;
    unsigned wait_s, call_ms, keep_ms, backoff_ms, backoff_max_ms, doubt_ms, leave_ms;

    atomic_bool stop;
    atomic_uint_fast64_t changes, errors;
    pthread_mutex_t lock; /* of pauses, and of the list of watches */
    pthread_cond_t wake;  /* on the monotonic clock */
    struct watch *watches[REGISTRY_WATCHES_MAX];
    atomic_uint n_watches;

    pthread_mutex_t own_lock; /* over all below; held through a call to the agent, so that calls do not overtake */
    struct own *own[REGISTRY_CONSUL_OWN_MAX];
    struct talker own_talker;
    struct party own_party;
    bool own_running;
    pthread_t own_thread;
    bool hurry; /* under lock: something could not be said */
};

static inline struct consul *consul_of(struct registry *r)
{
    return (struct consul *)r;
}

int64_t consul_now(void); /* µs, monotonic */
/* Waits; false: the registry is being closed. hurry: ends the wait when it becomes true, and is put back; or NULL. */
bool consul_pause(struct consul *c, int64_t us, bool *hurry);
/* The pause behind the nth failure in a row, from 1. µs */
int64_t consul_backoff(const struct consul *c, unsigned nth);
/* Notes how a call went, and logs what is new. why is for !ok. */
void consul_note(struct consul *c, struct party *p, bool ok, const char *why);

/* ---- watch.c */

enum pf_err consul_watch_start(struct registry *r, const char *service, registry_changed *fn, void *ctx);
void consul_watch_free(struct watch *w); /* after its thread's end */

/* ---- own.c */

enum pf_err consul_own_add(struct registry *r, const struct registry_registration *what, char why[WHY_MAX]);
enum pf_err consul_own_remove(struct registry *r, const char *service, const char *id, char why[WHY_MAX]);
/* After the thread's end: takes all out, and frees. */
void consul_own_leave(struct consul *c);

#endif
