#include "store/sqlite/names.h"

#include <stdlib.h>

enum { PROBES = 4, WORDS = NAMES_BITS / 64 };

void names_init(struct names *n)
{
    n->bits = calloc(WORDS, sizeof *n->bits); /* pages that no name falls into are never touched */
}

void names_free(struct names *n)
{
    free(n->bits);
    n->bits = NULL;
}

/* The k-th of a name's bits: two halves of one keyed hash make them all. */
static uint32_t probe(uint64_t hash, uint32_t k)
{
    return ((uint32_t)hash + k * ((uint32_t)(hash >> 32) | 1)) & (NAMES_BITS - 1);
}

void names_add(struct names *n, struct str folded)
{
    uint64_t hash = str_hash(folded);
    for (uint32_t k = 0; n->bits && k < PROBES; k++) {
        uint32_t bit = probe(hash, k);
        atomic_fetch_or(&n->bits[bit / 64], UINT64_C(1) << bit % 64);
    }
}

bool names_lack(const struct names *n, struct str folded)
{
    uint64_t hash = str_hash(folded);
    for (uint32_t k = 0; n->bits && k < PROBES; k++) {
        uint32_t bit = probe(hash, k);
        if (!(atomic_load(&n->bits[bit / 64]) & UINT64_C(1) << bit % 64))
            return true;
    }
    return false;
}
