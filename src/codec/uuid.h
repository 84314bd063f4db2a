/*
 * uuid: RFC 9562 UUIDs. Ours are version 7: 48 bits of Unix milliseconds, the rest random — except that those of
 * transactions carry their journal sequence number, so that a UUID finds its row without an index:
 *
 *   bits   0..47  unix milliseconds
 *         48..51  version 7
 *         52..63  random
 *         64..65  variant 10
 *         66..81  random (16 bits)
 *         82..127 sequence number (46 bits: 7.0e13 entries)
 *
 * The random bits keep a UUID from being guessed from its number: a reader compares all 16 bytes with the row's.
 */
#ifndef CODEC_UUID_H
#define CODEC_UUID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

struct uuid {
    uint8_t b[16];
};

enum { UUID_TEXT_LEN = 36 };

struct uuid uuid_v7(int64_t wall_us);
struct uuid uuid_v7_seq(int64_t wall_us, int64_t seq); /* 0 <= seq < 2^46 */
int64_t uuid_seq(const struct uuid *u);
void uuid_format(const struct uuid *u, char out[UUID_TEXT_LEN + 1]);
/* 8-4-4-4-12 hex, either case; any version. */
bool uuid_parse(struct str s, struct uuid *ret);
static inline bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->b, b->b, 16) == 0;
}

#endif
