/*
 * cidr: lists of addresses and networks: "10.0.0.0/8, 192.0.2.1, ::1, 2001:db8::/32". IPv4 and IPv6; an IPv4 address
 * that came mapped into IPv6 (::ffff:192.0.2.1) counts as the IPv4 one. Pure; any thread.
 */
#ifndef BASE_CIDR_H
#define BASE_CIDR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum { CIDR_LIST_MAX = 64, CIDR_ADDRESS_MAX = 46 /* its text, with a NUL */ };

struct cidr_address {
    uint8_t b[16]; /* IPv4: the last four bytes, behind 0…0 ff ff */
};

struct cidr {
    struct cidr_address net; /* bits behind the prefix are 0 */
    unsigned bits;           /* 0..128, of the mapped form */
};

struct cidr_list {
    unsigned n;
    struct cidr at[CIDR_LIST_MAX];
};

/* Numbers only: no names, no zones, no port. */
bool cidr_address_parse(struct str s, struct cidr_address *ret);
/* The usual text: IPv4 without the mapping, IPv6 as inet_ntop writes it. */
void cidr_address_format(const struct cidr_address *a, char out[CIDR_ADDRESS_MAX]);
/* Commas between, blanks around; empty: an empty list. False: malformed, a bit set behind the prefix (10.0.0.1/8 is
   more likely a mistake than meant), or more than CIDR_LIST_MAX; *ret is undefined then, and *ret_bad (borrowed from s)
   is the entry at fault. */
bool cidr_list_parse(struct str s, struct cidr_list *ret, struct str *ret_bad);
bool cidr_list_has(const struct cidr_list *l, const struct cidr_address *a);

#endif
