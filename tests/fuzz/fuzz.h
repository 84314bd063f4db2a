/*
 * fuzz: what the targets share. A target is one file that defines LLVMFuzzerTestOneInput; it is linked with libFuzzer
 * (./dev fuzz) and with replay.c (./dev test unit). It gets the input in a block of exactly its size, so that
 * AddressSanitizer sees a byte read too many, and must answer the same input the same way.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);                                         \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Takes up to n bytes off the input's front as a number; an input that ends early gives zero bits. */
static inline uint64_t fuzz_take(struct str *in, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n && in->n; i++, in->p++, in->n--)
        v |= (uint64_t)(uint8_t)*in->p << (8 * i);
    return v;
}

/* Takes what stands before the next sep (or all) off the input; the sep goes too. */
static inline struct str fuzz_until(struct str *in, char sep)
{
    const char *at = in->n ? memchr(in->p, sep, in->n) : NULL;
    struct str head = {in->p, at ? (size_t)(at - in->p) : in->n};
    size_t used = head.n + (at != NULL);

    in->p += used;
    in->n -= used;
    return head;
}

#endif
