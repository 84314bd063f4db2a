#include "resilience/balancer_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MEMBERS_LEAST = 8 };

static bool is_in(const struct member *m)
{
    return !m->down && !m->ejected && !m->draining;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When time alone will change something. */
static void plan(struct balancer *b)
{
    b->next_us = INT64_MAX;
    for (unsigned i = 0; i < b->n_members; i++) {
        const struct member *m = b->members[i];
        if (m->ejected)
            b->next_us = least(b->next_us, m->out_until_us);
        if (m->slow_from_us >= 0)
            b->next_us = least(b->next_us, m->slow_from_us + b->c.slow_start_us);
        if (m->check)
            b->next_us = least(b->next_us, m->check_started_us + b->c.check_timeout_us);
    }
}

/* The set of those that take requests may have changed: a new cycle begins, and who waits may be served. */
static void rearrange(struct balancer *b)
{
    unsigned counted = 0;

    b->n_in = b->n_ejected = 0;
    for (unsigned i = 0; i < b->n_members; i++) {
        struct member *m = b->members[i];
        const bool in = is_in(m);
        if (in != m->in)
            m->slow_from_us = in && b->c.slow_start_us ? b->now_us : -1;
        m->in = in;
        m->current = 0;
        b->n_in += in;
        b->n_ejected += m->ejected;
        counted += !m->draining;
    }
    b->panic = b->n_in * 100 < b->c.panic * counted;
    plan(b);
    serve_queue(b);
}

struct member *member_by_id(struct balancer *b, uint64_t id)
{
    for (unsigned i = 0; i < b->n_members; i++)
        if (b->members[i]->id == id)
            return b->members[i];
    return NULL;
}

/* ---- who is there ---- */

/* FNV-1a, then the finalizer of SplitMix64: the same in every process, unlike str_hash. */
static void cookie_of(struct str name, uint64_t salt, char out[BALANCER_COOKIE_MAX])
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < name.n; i++)
        h = (h ^ (unsigned char)name.p[i]) * 0x100000001b3u;
    h += salt;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    snprintf(out, BALANCER_COOKIE_MAX, "%016" PRIx64, h ^ h >> 31);
}

static bool room_for_member(struct balancer *b)
{
    const unsigned cap = b->cap_members ? b->cap_members * 2 : MEMBERS_LEAST;
    struct member **bigger;

    if (b->n_members < b->cap_members)
        return true;
    if (b->n_members == BALANCER_BACKENDS_MAX)
        return false;
    bigger = realloc(b->members, cap * sizeof(struct member *));
    if (!bigger)
        return false;
    b->members = bigger;
    b->cap_members = cap;
    return true;
}

static bool name_taken(const struct balancer *b, struct str name)
{
    for (unsigned i = 0; i < b->n_members; i++)
        if (str_is(name, b->members[i]->name))
            return true;
    return false;
}

static struct member *member_new(const struct balancer *b, const struct balancer_backend *backend)
{
    struct member *m = calloc(1, sizeof *m);

    if (!m)
        return NULL;
    memcpy(m->name, backend->name.p, backend->name.n);
    cookie_of(backend->name, b->c.sticky_salt, m->cookie);
    m->data = backend->data;
    m->weight = backend->weight;
    m->max_connections = backend->max_connections;
    m->slow_from_us = m->back_us = -1;
    m->check_due_us = b->now_us;
    return m;
}

uint64_t balancer_add(struct balancer *b, const struct balancer_backend *backend, int64_t now_us)
{
    struct member *m = NULL;
    uint64_t id = 0;

    if (backend->name.n < 1 || backend->name.n >= BALANCER_NAME_MAX || backend->weight > 1000)
        return 0;
    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    if (!name_taken(b, backend->name) && room_for_member(b))
        m = member_new(b, backend);
    if (m) {
        m->id = id = ++b->serial;
        b->members[b->n_members++] = m;
        rearrange(b);
    }
    pthread_mutex_unlock(&b->lock);
    return id;
}

static void remove_at(struct balancer *b, unsigned i)
{
    struct member *m = b->members[i];

    b->n_members--;
    memmove(&b->members[i], &b->members[i + 1], (b->n_members - i) * sizeof(struct member *));
    forget_member(b, m);
    free(m);
    rearrange(b);
}

bool balancer_remove(struct balancer *b, uint64_t id, int64_t now_us)
{
    unsigned i = 0;
    bool found;

    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    while (i < b->n_members && b->members[i]->id != id)
        i++;
    found = i < b->n_members;
    if (found)
        remove_at(b, i);
    pthread_mutex_unlock(&b->lock);
    return found;
}

bool balancer_drain(struct balancer *b, uint64_t id, bool on, int64_t now_us)
{
    struct member *m;

    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    m = member_by_id(b, id);
    if (m && m->draining != on) {
        m->draining = on;
        rearrange(b);
    }
    pthread_mutex_unlock(&b->lock);
    return m;
}

bool balancer_set(struct balancer *b, uint64_t id, unsigned weight, unsigned max_connections, int64_t now_us)
{
    struct member *m;

    if (weight > 1000)
        return false;
    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    m = member_by_id(b, id);
    if (m) {
        m->weight = weight;
        m->max_connections = max_connections;
        rearrange(b);
    }
    pthread_mutex_unlock(&b->lock);
    return m;
}

/* ---- who is in ---- */

/* What was said before counts no more: it was about another state of the backend. */
static void new_epoch(struct member *m)
{
    m->epoch++;
    m->failed = 0;
}

/* At most max_ejected percent, but always one. */
static bool may_eject(const struct balancer *b)
{
    return b->n_ejected == 0 || (b->n_ejected + 1) * 100 <= b->c.max_ejected * b->n_members;
}

static void eject(struct balancer *b, struct member *m)
{
    int64_t out_us;

    if (m->back_us >= 0 && b->now_us - m->back_us > b->c.eject_max_us)
        m->times = 0;
    m->times++;
    out_us = m->times <= b->c.eject_max_us / b->c.eject_us ? m->times * b->c.eject_us : b->c.eject_max_us;
    m->ejected = true;
    m->out_until_us = b->now_us + out_us;
    m->ejections++;
    new_epoch(m);
    rearrange(b);
}

void member_result(struct balancer *b, struct member *m, uint64_t epoch, enum balancer_result r)
{
    m->successes += r == BALANCER_SUCCESS;
    m->failures += r == BALANCER_FAILURE;
    m->ignored += r == BALANCER_IGNORED;
    if (r == BALANCER_IGNORED)
        return;
    if (epoch != m->epoch) {
        m->stale++;
        return;
    }
    m->failed = r == BALANCER_FAILURE ? m->failed + 1 : 0;
    /* one that is out already (a lease of the panic) is not put out for longer */
    if (b->c.eject_after && m->failed >= b->c.eject_after && !m->down && !m->ejected && may_eject(b))
        eject(b, m);
}

/* Whether that changed who is in. */
static bool check_settle(struct balancer *b, struct member *m, bool ok, int64_t at_us)
{
    const bool was = m->down;

    m->check = 0;
    m->check_due_us = m->check_started_us + b->c.check_interval_us;
    if (m->check_due_us < at_us)
        m->check_due_us = at_us;
    m->good = ok ? m->good + 1 : 0;
    m->bad = ok ? 0 : m->bad + 1;
    if (m->down ? m->good >= b->c.healthy_threshold : m->bad >= b->c.unhealthy_threshold)
        m->down = !m->down;
    if (m->down != was)
        new_epoch(m);
    return m->down != was;
}

void members_advance(struct balancer *b)
{
    bool changed = false;

    for (unsigned i = 0; i < b->n_members; i++) {
        struct member *m = b->members[i];
        if (m->ejected && m->out_until_us <= b->now_us) {
            m->ejected = false;
            m->back_us = b->now_us;
            new_epoch(m);
            changed = true;
        }
        if (m->slow_from_us >= 0 && b->now_us - m->slow_from_us >= b->c.slow_start_us) {
            m->slow_from_us = -1;
            changed = true;
        }
        if (m->check && b->now_us - m->check_started_us >= b->c.check_timeout_us)
            changed |= check_settle(b, m, false, b->now_us);
    }
    if (changed)
        rearrange(b);
    else
        plan(b);
}

static struct member *longest_overdue(struct balancer *b)
{
    struct member *first = NULL;

    for (unsigned i = 0; i < b->n_members; i++) {
        struct member *m = b->members[i];
        if (!m->check && m->check_due_us <= b->now_us && (!first || m->check_due_us < first->check_due_us))
            first = m;
    }
    return first;
}

size_t balancer_checks_due(struct balancer *b, int64_t now_us, struct balancer_check *ret, size_t cap)
{
    size_t n = 0;
    struct member *m;

    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    while (n < cap && b->c.check_interval_us && (m = longest_overdue(b))) {
        m->check = ++b->serial;
        m->check_started_us = b->now_us;
        ret[n++] = (struct balancer_check){m->id, m->check, m->data};
    }
    if (n)
        plan(b);
    pthread_mutex_unlock(&b->lock);
    return n;
}

bool balancer_checked(struct balancer *b, const struct balancer_check *check, bool ok, int64_t now_us)
{
    struct member *m;
    bool taken;

    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    m = member_by_id(b, check->backend);
    taken = m && check->serial && m->check == check->serial;
    if (taken) {
        if (check_settle(b, m, ok, b->now_us))
            rearrange(b);
        else
            plan(b);
    }
    pthread_mutex_unlock(&b->lock);
    return taken;
}

/* ---- figures ---- */

const char *balancer_state_name(enum balancer_state s)
{
    static const char *const names[] = {"up", "slow-start", "down", "ejected", "draining"};

    return names[s];
}

static enum balancer_state state_of(const struct member *m)
{
    if (m->draining)
        return BALANCER_DRAINING;
    if (m->down)
        return BALANCER_DOWN;
    if (m->ejected)
        return BALANCER_EJECTED;
    return m->slow_from_us >= 0 ? BALANCER_SLOW_START : BALANCER_UP;
}

static void member_figures(const struct member *m, struct balancer_backend_figures *ret)
{
    *ret = (struct balancer_backend_figures){
        .id = m->id,
        .state = state_of(m),
        .weight = m->weight,
        .max_connections = m->max_connections,
        .active = m->active,
        .queued = m->queued,
        .failures_in_a_row = m->failed,
        .picks = m->picks,
        .successes = m->successes,
        .failures = m->failures,
        .ignored = m->ignored,
        .stale = m->stale,
        .lost = m->lost,
        .ejections = m->ejections,
    };
    memcpy(ret->name, m->name, sizeof ret->name);
}

void balancer_read(struct balancer *b, int64_t now_us, struct balancer_figures *ret,
                   struct balancer_backend_figures *list, size_t cap)
{
    pthread_mutex_lock(&b->lock);
    advance(b, now_us);
    *ret = b->n;
    ret->backends = b->n_members;
    ret->in = b->n_in;
    ret->panic = b->panic;
    ret->active = b->leased.n;
    ret->queued = b->waiting.n;
    for (size_t i = 0; i < cap && i < b->n_members; i++)
        member_figures(b->members[i], &list[i]);
    pthread_mutex_unlock(&b->lock);
}
