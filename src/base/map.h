/*
 * map: hash tables from 64-bit integers or byte strings to pointers or integers.
 * Open addressing, power-of-two capacity, at most 3/4 full. Not thread-safe.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/* u64 -> u64. Any key but UINT64_MAX. */
struct map_u64 {
    uint64_t *keys, *vals;
    size_t n, cap;
};

void map_u64_init(struct map_u64 *m);
void map_u64_free(struct map_u64 *m);
void map_u64_clear(struct map_u64 *m); /* keeps capacity */
bool map_u64_get(const struct map_u64 *m, uint64_t k, uint64_t *ret);
/* Inserts or replaces. false: out of memory, unchanged. */
bool map_u64_put(struct map_u64 *m, uint64_t k, uint64_t v);
bool map_u64_del(struct map_u64 *m, uint64_t k);
/* Iteration: start with *pos = 0; false at the end. No changes meanwhile. */
bool map_u64_next(const struct map_u64 *m, size_t *pos, uint64_t *k, uint64_t *v);

/* bytes -> void *. Keys are copied; values are borrowed. */
struct map_str_slot;
struct map_str {
    struct map_str_slot *slots;
    size_t n, cap;
};

void map_str_init(struct map_str *m);
void map_str_free(struct map_str *m); /* frees the keys, not the values */
void *map_str_get(const struct map_str *m, struct str k);
bool map_str_put(struct map_str *m, struct str k, void *v); /* v != NULL */
void *map_str_del(struct map_str *m, struct str k);         /* the old value or NULL */
bool map_str_next(const struct map_str *m, size_t *pos, struct str *k, void **v);

#endif
