#include "resilience/balancer_internal.h"

#include <assert.h>
#include <stdlib.h>

static const int64_t LONGEST = (int64_t)30 * 86400 * 1000000; /* of any setting: sums of times stay far from overflow */
static const unsigned NIL = UINT32_MAX;

enum { SLOTS_LEAST = 64, SLOTS_MOST = 1 << 24 };

struct balancer_config balancer_defaults(void)
{
    return (struct balancer_config){
        .algorithm = BALANCER_ROUND_ROBIN,
        .check_interval_us = 10000000,
        .check_timeout_us = 5000000,
        .healthy_threshold = 2,
        .unhealthy_threshold = 3,
        .max_queue = 1024,
        .queue_timeout_us = 1000000,
        .eject_after = 5,
        .eject_us = 30000000,
        .eject_max_us = 300000000,
        .max_ejected = 50,
        .panic = 50,
    };
}

static bool between(int64_t v, int64_t least, int64_t most)
{
    return v >= least && v <= most;
}

const char *balancer_fault(const struct balancer_config *c)
{
    if (c->algorithm != BALANCER_ROUND_ROBIN && c->algorithm != BALANCER_LEAST_CONNECTIONS &&
        c->algorithm != BALANCER_RANDOM)
        return "algorithm must be round_robin, least_connections or random";
    if (!between(c->check_interval_us, 0, LONGEST))
        return "health_check.interval must be 0 to 30 days";
    if (!between(c->check_timeout_us, 1, LONGEST))
        return "health_check.timeout must be over 0, up to 30 days";
    if (!between(c->healthy_threshold, 1, 1000))
        return "health_check.healthy_threshold must be 1..1000";
    if (!between(c->unhealthy_threshold, 1, 1000))
        return "health_check.unhealthy_threshold must be 1..1000";
    if (c->max_queue > 1000000)
        return "max_queue must be 0..1000000";
    if (!between(c->queue_timeout_us, 1, LONGEST))
        return "queue_timeout must be over 0, up to 30 days";
    if (c->eject_after > 1000)
        return "ejection.consecutive_failures must be 0..1000";
    if (!between(c->eject_us, 1, LONGEST))
        return "ejection.base_time must be over 0, up to 30 days";
    if (!between(c->eject_max_us, c->eject_us, LONGEST))
        return "ejection.max_time must be base_time to 30 days";
    if (c->max_ejected > 100)
        return "ejection.max_percent must be 0..100";
    if (!between(c->slow_start_us, 0, LONGEST))
        return "slow_start must be 0 to 30 days";
    if (c->panic > 100)
        return "panic_threshold must be 0..100";
    if (!between(c->lease_us, 0, LONGEST))
        return "lease must be 0 to 30 days";
    return NULL;
}

struct balancer *balancer_new(const struct balancer_config *c, int64_t now_us)
{
    struct balancer *b;

    if (balancer_fault(c) || !(b = calloc(1, sizeof *b)))
        return NULL;
    if (pthread_mutex_init(&b->lock, NULL) != 0) {
        free(b);
        return NULL;
    }
    b->c = *c;
    b->now_us = now_us;
    b->next_us = INT64_MAX;
    b->free_slot = NIL;
    b->waiting = b->leased = (struct line){NIL, NIL, 0};
    return b;
}

void balancer_free(struct balancer *b)
{
    if (!b)
        return;
    for (unsigned i = 0; i < b->n_members; i++)
        free(b->members[i]);
    free(b->members);
    free(b->slots);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

/* ---- slots ---- */

static void line_in(struct balancer *b, struct line *l, unsigned i)
{
    b->slots[i].prev = l->last;
    b->slots[i].next = NIL;
    if (l->last == NIL)
        l->first = i;
    else
        b->slots[l->last].next = i;
    l->last = i;
    l->n++;
}

static void line_out(struct balancer *b, struct line *l, unsigned i)
{
    const struct slot *s = &b->slots[i];

    if (s->prev == NIL)
        l->first = s->next;
    else
        b->slots[s->prev].next = s->next;
    if (s->next == NIL)
        l->last = s->prev;
    else
        b->slots[s->next].prev = s->prev;
    l->n--;
}

static bool slots_grow(struct balancer *b)
{
    const unsigned n = b->n_slots ? b->n_slots * 2 : SLOTS_LEAST;
    struct slot *bigger = n > SLOTS_MOST ? NULL : realloc(b->slots, n * sizeof *bigger);

    if (!bigger)
        return false;
    b->slots = bigger;
    for (unsigned i = n; i-- > b->n_slots;) {
        b->slots[i] = (struct slot){.next = b->free_slot};
        b->free_slot = i;
    }
    b->n_slots = n;
    return true;
}

/* A slot of its own serial, in no line yet; NIL: out of memory. */
static unsigned slot_take(struct balancer *b)
{
    const unsigned i = b->free_slot == NIL && !slots_grow(b) ? NIL : b->free_slot;

    if (i == NIL)
        return NIL;
    b->free_slot = b->slots[i].next;
    b->slots[i] = (struct slot){.serial = ++b->serial, .since_us = b->now_us};
    return i;
}

static void slot_give(struct balancer *b, unsigned i)
{
    b->slots[i] = (struct slot){.next = b->free_slot};
    b->free_slot = i;
}

/* ---- leases and the queue ---- */

static void lease_begin(struct balancer *b, unsigned i, struct member *m)
{
    struct slot *s = &b->slots[i];

    s->state = SLOT_LEASED;
    s->member = m;
    s->epoch = m->epoch;
    s->since_us = b->now_us;
    line_in(b, &b->leased, i);
    m->active++;
    m->picks++;
    b->n.picks++;
}

static void lease_end(struct balancer *b, unsigned i)
{
    line_out(b, &b->leased, i);
    if (b->slots[i].member)
        b->slots[i].member->active--;
    slot_give(b, i);
}

static void queue_in(struct balancer *b, unsigned i, struct member *only, uint64_t random, void *waiter)
{
    struct slot *s = &b->slots[i];

    s->state = SLOT_WAITING;
    s->member = only;
    s->random = random;
    s->waiter = waiter;
    if (only)
        only->queued++;
    line_in(b, &b->waiting, i);
}

static void queue_out(struct balancer *b, unsigned i)
{
    line_out(b, &b->waiting, i);
    if (b->slots[i].member)
        b->slots[i].member->queued--;
}

static void wake(struct balancer *b, void *waiter)
{
    if (b->c.wake)
        b->c.wake(b->c.ctx, waiter);
}

static void queue_over(struct balancer *b, unsigned i)
{
    void *waiter = b->slots[i].waiter;

    queue_out(b, i);
    slot_give(b, i);
    b->n.timed_out++;
    wake(b, waiter);
}

/* Whether some backend takes requests, if perhaps not now. */
static bool any_may(const struct balancer *b)
{
    for (unsigned i = 0; i < b->n_members; i++)
        if (member_may(b, b->members[i]))
            return true;
    return false;
}

/* The backend that a waiting request can have now; NULL: none yet. any_full: another asked for any, in vain. */
static struct member *place_for(struct balancer *b, const struct slot *s, bool any_full)
{
    if (s->member)
        return member_has_room(s->member) ? s->member : NULL;
    return any_full ? NULL : choose(b, s->random);
}

void serve_queue(struct balancer *b)
{
    bool may, any_full = false;

    if (b->waiting.n == 0)
        return;
    may = any_may(b);
    for (unsigned i = b->waiting.first, next; i != NIL; i = next) {
        struct slot *s = &b->slots[i];
        struct member *m;
        next = s->next;
        if (s->member && !member_reachable(b, s->member)) { /* it falls over to whatever there is */
            s->member->queued--;
            s->member = NULL;
        }
        if (!s->member && !may) {
            queue_over(b, i);
            continue;
        }
        m = place_for(b, s, any_full);
        if (m) {
            queue_out(b, i);
            lease_begin(b, i, m);
            b->n.waited++;
            wake(b, s->waiter);
        } else if (!s->member) {
            any_full = true;
        }
    }
}

void forget_member(struct balancer *b, struct member *m)
{
    for (unsigned i = 0; i < b->n_slots; i++)
        if (b->slots[i].member == m)
            b->slots[i].member = NULL;
}

/* ---- time ---- */

static int64_t line_due(const struct balancer *b, const struct line *l, int64_t after_us)
{
    return l->first == NIL || after_us == 0 ? INT64_MAX : b->slots[l->first].since_us + after_us;
}

static void take_back(struct balancer *b, unsigned i)
{
    b->n.lost++;
    if (b->slots[i].member)
        b->slots[i].member->lost++;
    lease_end(b, i);
    serve_queue(b);
}

/* Brings the balancer to `now_us`. What time alone changes happens at its own moment and in that order, however late
 * somebody looks. */
void advance(struct balancer *b, int64_t now_us)
{
    for (;;) {
        const int64_t lease = line_due(b, &b->leased, b->c.lease_us);
        const int64_t wait = line_due(b, &b->waiting, b->c.queue_timeout_us);
        const int64_t rest = lease < wait ? lease : wait, first = b->next_us < rest ? b->next_us : rest;
        if (first > now_us)
            break;
        if (first > b->now_us)
            b->now_us = first;
        if (b->next_us == first)
            members_advance(b);
        else if (lease == first)
            take_back(b, b->leased.first);
        else
            queue_over(b, b->waiting.first);
    }
    if (now_us > b->now_us)
        b->now_us = now_us;
}

/* ---- requests ---- */

static struct member *stuck_to(struct balancer *b, struct str cookie)
{
    if (!b->c.sticky || cookie.n != BALANCER_COOKIE_MAX - 1)
        return NULL;
    for (unsigned i = 0; i < b->n_members; i++)
        if (str_is(cookie, b->members[i]->cookie))
            return member_reachable(b, b->members[i]) ? b->members[i] : NULL;
    return NULL;
}

static void lease_fill(const struct balancer *b, unsigned i, struct balancer_lease *ret)
{
    const struct slot *s = &b->slots[i];

    *ret = (struct balancer_lease){.serial = s->serial, .slot = i};
    if (s->state == SLOT_LEASED && s->member) {
        ret->backend = s->member->id;
        ret->data = s->member->data;
        memcpy(ret->cookie, s->member->cookie, sizeof ret->cookie);
    }
}

static enum balancer_answer pick(struct balancer *b, struct str cookie, void *waiter, uint64_t random,
                                 struct balancer_lease *ret)
{
    struct member *only = stuck_to(b, cookie), *m = only;
    const bool room_to_wait = b->waiting.n < b->c.max_queue;
    unsigned i;

    /* one that sticks waits for its backend if it may, else it takes what there is */
    if (only && !member_has_room(only)) {
        m = room_to_wait ? NULL : choose(b, random);
    } else if (!only) {
        if (!any_may(b))
            return BALANCER_NONE;
        m = choose(b, random);
    }
    if ((!m && !room_to_wait) || (i = slot_take(b)) == NIL)
        return BALANCER_FULL;
    if (m)
        lease_begin(b, i, m);
    else
        queue_in(b, i, only, random, waiter);
    lease_fill(b, i, ret);
    return m ? BALANCER_PICKED : BALANCER_QUEUED;
}

enum balancer_answer balancer_pick(struct balancer *b, struct str cookie, void *waiter, uint64_t random, int64_t now_us,
                                   struct balancer_lease *ret)
{
    enum balancer_answer a;

    *ret = (struct balancer_lease){0};
    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    a = pick(b, cookie, waiter, random, ret);
    b->n.full += a == BALANCER_FULL;
    b->n.none += a == BALANCER_NONE;
    pthread_mutex_unlock(&b->lock);
    return a;
}

/* The slot of a lease that is still its; NIL: taken back, or none. */
static unsigned slot_of(const struct balancer *b, const struct balancer_lease *lease)
{
    const bool its = lease->serial && lease->slot < b->n_slots && b->slots[lease->slot].serial == lease->serial;

    return its ? lease->slot : NIL;
}

enum balancer_answer balancer_poll(struct balancer *b, struct balancer_lease *lease, int64_t now_us)
{
    enum balancer_answer a = BALANCER_OVER;
    unsigned i;

    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    i = slot_of(b, lease);
    if (i == NIL) {
        *lease = (struct balancer_lease){0};
    } else {
        a = b->slots[i].state == SLOT_LEASED ? BALANCER_PICKED : BALANCER_QUEUED;
        lease_fill(b, i, lease);
    }
    pthread_mutex_unlock(&b->lock);
    return a;
}

static void release(struct balancer *b, unsigned i, enum balancer_result r)
{
    struct member *m = b->slots[i].member;
    const uint64_t epoch = b->slots[i].epoch;

    if (b->slots[i].state == SLOT_WAITING) {
        queue_out(b, i);
        slot_give(b, i);
        b->n.given_up++;
        return;
    }
    lease_end(b, i);
    if (m)
        member_result(b, m, epoch, r);
    serve_queue(b);
}

void balancer_release(struct balancer *b, struct balancer_lease *lease, enum balancer_result r, int64_t now_us)
{
    unsigned i;

    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    i = slot_of(b, lease);
    if (i != NIL)
        release(b, i, r);
    pthread_mutex_unlock(&b->lock);
    *lease = (struct balancer_lease){0};
}
