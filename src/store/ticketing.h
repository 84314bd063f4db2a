/* What the engines share about bookings. */
#ifndef STORE_TICKETING_H
#define STORE_TICKETING_H

#include "codec/crypt.h"
#include "port/store.h"

/* What bookings are listed by: one number, so that one index serves users and guests. A user's id, or something below 0
   that is made of a guest's name: compare the name too. */
static inline int64_t ticket_buyer(int64_t user, struct str guest)
{
    uint8_t sum[SHA256_LEN];
    int64_t h;
    if (user > 0)
        return user;
    sha256_of(guest, sum);
    memcpy(&h, sum, sizeof h);
    return -1 - (h & INT64_MAX);
}

/* The smallest UUIDv7 of that time: messages are forgotten by the time in theirs. */
static inline void ticket_uuid_floor(int64_t wall_us, uint8_t out[16])
{
    uint64_t ms = (uint64_t)(wall_us > 0 ? wall_us / 1000 : 0);
    memset(out, 0, 16);
    for (int i = 0; i < 6; i++)
        out[i] = (uint8_t)(ms >> (8 * (5 - i)));
}

#endif
