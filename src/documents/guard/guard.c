#include "documents/guard/guard.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "resilience/breaker.h"

struct guard {
    struct documents base;
    struct documents_ops ops; /* with the name of the engine behind it */
    struct documents *inner;
    const struct clock *clock;
    struct breaker *breaker;
    atomic_int seen; /* enum pf_err of the last look */
};

static struct guard *of(struct documents *d)
{
    return (struct guard *)d;
}

static bool enter(struct guard *g, struct breaker_permit *ret)
{
    return breaker_try(g->breaker, clock_mono(g->clock), ret);
}

static enum pf_err leave(struct guard *g, struct breaker_permit *p, enum pf_err e)
{
    enum breaker_result r = e == PFE_UNAVAILABLE ? BREAKER_FAILURE : e == PFE_NOMEM ? BREAKER_IGNORED : BREAKER_SUCCESS;
    breaker_done(g->breaker, p, r, clock_mono(g->clock));
    return e;
}

static enum pf_err guard_insert(struct documents *d, const struct document *doc)
{
    struct guard *g = of(d);
    struct breaker_permit p;
    return enter(g, &p) ? leave(g, &p, documents_insert(g->inner, doc)) : PFE_UNAVAILABLE;
}

static enum pf_err guard_remove(struct documents *d, const uint8_t id[16])
{
    struct guard *g = of(d);
    struct breaker_permit p;
    return enter(g, &p) ? leave(g, &p, documents_remove(g->inner, id)) : PFE_UNAVAILABLE;
}

static enum pf_err guard_get(struct documents *d, struct arena *a, const uint8_t id[16], struct document *ret)
{
    struct guard *g = of(d);
    struct breaker_permit p;
    return enter(g, &p) ? leave(g, &p, documents_get(g->inner, a, id, ret)) : PFE_UNAVAILABLE;
}

static enum pf_err guard_list(struct documents *d, struct arena *a, const struct documents_query *q,
                              struct document *out, unsigned *ret_n)
{
    struct guard *g = of(d);
    struct breaker_permit p;
    return enter(g, &p) ? leave(g, &p, documents_list(g->inner, a, q, out, ret_n)) : PFE_UNAVAILABLE;
}

static enum pf_err guard_probe(struct documents *d)
{
    return (enum pf_err)atomic_load_explicit(&of(d)->seen, memory_order_relaxed);
}

static void guard_close(struct documents *d)
{
    struct guard *g = of(d);
    documents_close(g->inner);
    breaker_free(g->breaker);
    free(g);
}

int64_t documents_guard_look(void *ctx)
{
    struct guard *g = ctx;
    struct breaker_permit p;
    const bool counts = enter(g, &p); /* asked in any case: health is to hear of it */
    enum pf_err e = documents_probe(g->inner);
    if (counts)
        (void)leave(g, &p, e);
    atomic_store_explicit(&g->seen, (int)e, memory_order_relaxed);
    return DOCUMENTS_GUARD_LOOK_US;
}

struct documents *documents_guard_new(struct documents *inner, const struct clock *clock)
{
    struct breaker_config c = breaker_defaults();
    c.window_size = 10;
    c.minimum_calls = 4;
    c.wait_open_us = 5 * 1000000;
    c.half_open_calls = 1;
    struct guard *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->breaker = breaker_new(&c, clock_mono(clock));
    if (!g->breaker) {
        free(g);
        return NULL;
    }
    g->ops = (struct documents_ops){.engine = documents_engine(inner),
                                    .close = guard_close,
                                    .insert = guard_insert,
                                    .remove = guard_remove,
                                    .get = guard_get,
                                    .list = guard_list,
                                    .probe = guard_probe};
    g->base.ops = &g->ops;
    g->inner = inner;
    g->clock = clock;
    atomic_init(&g->seen, PFE_OK);
    return &g->base;
}
