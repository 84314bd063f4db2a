/*
 * balancer_internal: what the balancer's files share. Private to resilience. Everything here needs the mutex.
 *
 * balancer.c          requests: leases, the queue, time
 * balancer_members.c  backends: which are there, which are in, checks and ejection
 * balancer_choose.c   the algorithms
 */
#ifndef RESILIENCE_BALANCER_INTERNAL_H
#define RESILIENCE_BALANCER_INTERNAL_H

#include <pthread.h>

#include "resilience/balancer.h"

struct member {
    uint64_t id;
    char name[BALANCER_NAME_MAX], cookie[BALANCER_COOKIE_MAX];
    void *data;
    unsigned weight, max_connections;
    unsigned active, queued;
    bool down, ejected, draining;
    bool in;              /* as rearrange last saw it */
    uint64_t epoch;       /* changes whenever it goes down, up, out or back in; leases of another epoch say nothing */
    int64_t current;      /* smooth round robin */
    int64_t slow_from_us; /* -1: at full weight */
    /* active checks */
    int64_t check_due_us, check_started_us;
    uint64_t check;     /* serial of the one running; 0: none */
    unsigned good, bad; /* in a row */
    /* ejection */
    unsigned failed;               /* requests in a row */
    unsigned times;                /* ejected in succession */
    int64_t out_until_us, back_us; /* back_us: when it last came back; -1: never */
    uint64_t picks, successes, failures, ignored, stale, lost, ejections;
};

enum slot_state { SLOT_FREE, SLOT_WAITING, SLOT_LEASED };

struct slot {
    uint64_t serial;
    enum slot_state state;
    unsigned prev, next;   /* of its list; a free one uses next */
    struct member *member; /* leased: NULL if it was removed. Waiting: the one it must have, or NULL for any */
    uint64_t epoch;
    int64_t since_us;
    uint64_t random;
    void *waiter;
};

/* Slots in order of since_us. */
struct line {
    unsigned first, last, n;
};

struct balancer {
    pthread_mutex_t lock;
    struct balancer_config c;
    int64_t now_us;  /* the latest seen */
    int64_t next_us; /* when time alone changes a member; INT64_MAX: never */
    uint64_t serial; /* of members, slots and checks */
    struct member **members;
    unsigned n_members, cap_members, n_in, n_ejected;
    bool panic;
    struct slot *slots;
    unsigned n_slots, free_slot; /* free_slot: head of the list of free ones */
    struct line waiting, leased;
    struct balancer_figures n;
};

/* choose: */
int64_t member_weight(const struct balancer *b, const struct member *m); /* 256 times weight, less in a slow start */
bool member_may(const struct balancer *b, const struct member *m);       /* takes requests, if it has room */
bool member_reachable(const struct balancer *b, const struct member *m); /* takes those that stick to it */
bool member_has_room(const struct member *m);
struct member *choose(struct balancer *b, uint64_t random); /* NULL: all are full, or none is there */

/* members: */
struct member *member_by_id(struct balancer *b, uint64_t id);
/* A request has been answered by m. */
void member_result(struct balancer *b, struct member *m, uint64_t epoch, enum balancer_result r);
/* What is due at now_us by the clock alone. */
void members_advance(struct balancer *b);

/* balancer: */
void advance(struct balancer *b, int64_t now_us);
/* To be called after anything that changes who may take a request. */
void serve_queue(struct balancer *b);
/* m is going: its leases lose it, and who waits for it waits for any. */
void forget_member(struct balancer *b, struct member *m);

#endif
