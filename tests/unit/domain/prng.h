/* prng: SplitMix64 (https://prng.di.unimi.it/splitmix64.c), seeded from TEST_SEED or anew; the seed is printed. */
#ifndef TESTS_UNIT_DOMAIN_PRNG_H
#define TESTS_UNIT_DOMAIN_PRNG_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rand.h"

struct prng {
    uint64_t state;
};

static inline struct prng prng_seeded(const char *what)
{
    const char *given = getenv("TEST_SEED");
    struct prng r = {given ? strtoull(given, NULL, 10) : rand_u64()};

    printf("%s: TEST_SEED=%" PRIu64 "\n", what, r.state);
    return r;
}

static inline uint64_t prng_next(struct prng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 .. n-1 */
static inline unsigned prng_below(struct prng *r, unsigned n)
{
    return (unsigned)(prng_next(r) % n);
}

#endif
