#include "resilience/balancer_internal.h"

/* Weights are scaled, so that a slow start has steps even for a weight of 1. */
enum { SCALE = 256, SLOW_LEAST = 10 };

int64_t member_weight(const struct balancer *b, const struct member *m)
{
    const int64_t full = (int64_t)m->weight * SCALE;
    int64_t now;

    if (m->slow_from_us < 0)
        return full;
    /* at most 1000 · SCALE · 30 days in µs: fits */
    now = full * (b->now_us - m->slow_from_us) / b->c.slow_start_us;
    return now > full / SLOW_LEAST ? now : full / SLOW_LEAST;
}

bool member_reachable(const struct balancer *b, const struct member *m)
{
    return (!m->down && !m->ejected) || b->panic;
}

bool member_may(const struct balancer *b, const struct member *m)
{
    return m->weight && !m->draining && member_reachable(b, m);
}

bool member_has_room(const struct member *m)
{
    return m->max_connections == 0 || m->active < m->max_connections;
}

static bool candidate(const struct balancer *b, const struct member *m)
{
    return member_may(b, m) && member_has_room(m);
}

/* Whether x is less loaded than y, had each the request. */
static bool less_loaded(const struct balancer *b, const struct member *x, const struct member *y)
{
    return ((int64_t)x->active + x->queued + 1) * member_weight(b, y) <
           ((int64_t)y->active + y->queued + 1) * member_weight(b, x);
}

/* Each candidate gains its weight, the richest takes the request and pays for all. With `equal`, only those candidates
 * play that are as little loaded as it. */
static struct member *round_robin(struct balancer *b, const struct member *equal)
{
    struct member *best = NULL;
    int64_t total = 0;

    for (unsigned i = 0; i < b->n_members; i++) {
        struct member *m = b->members[i];
        if (!candidate(b, m) || (equal && less_loaded(b, equal, m)))
            continue;
        const int64_t weight = member_weight(b, m);
        m->current += weight;
        total += weight;
        if (!best || m->current > best->current)
            best = m;
    }
    if (best)
        best->current -= total;
    return best;
}

static struct member *least_connections(struct balancer *b)
{
    struct member *least = NULL;

    for (unsigned i = 0; i < b->n_members; i++) {
        struct member *m = b->members[i];
        if (candidate(b, m) && (!least || less_loaded(b, m, least)))
            least = m;
    }
    return least ? round_robin(b, least) : NULL;
}

/* One by weight of the candidates but `other`, by 32 random bits. */
static struct member *draw(struct balancer *b, const struct member *other, uint32_t random)
{
    struct member *drawn = NULL;
    uint64_t total = 0, at;

    for (unsigned i = 0; i < b->n_members; i++)
        if (b->members[i] != other && candidate(b, b->members[i]))
            total += (uint64_t)member_weight(b, b->members[i]);
    at = total * random >> 32; /* 1024 · 1000 · SCALE is under 2^32 */
    for (unsigned i = 0; i < b->n_members; i++) {
        struct member *m = b->members[i];
        if (m == other || !candidate(b, m))
            continue;
        drawn = m;
        if (at < (uint64_t)member_weight(b, m))
            break;
        at -= (uint64_t)member_weight(b, m);
    }
    return drawn;
}

static struct member *two_draws(struct balancer *b, uint64_t random)
{
    struct member *one = draw(b, NULL, (uint32_t)random);
    struct member *two = one ? draw(b, one, (uint32_t)(random >> 32)) : NULL;

    return two && less_loaded(b, two, one) ? two : one;
}

struct member *choose(struct balancer *b, uint64_t random)
{
    switch (b->c.algorithm) {
    case BALANCER_LEAST_CONNECTIONS:
        return least_connections(b);
    case BALANCER_RANDOM:
        return two_draws(b, random);
    default:
        return round_robin(b, NULL);
    }
}
