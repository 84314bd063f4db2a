/*
 * proxies: whose request it is when it came through a proxy. For http, and for other transports that are
 * told in the same way.
 *
 * Only what a trusted peer says counts. Each proxy appends the address that it was asked from, so the entries of
 * X-Forwarded-For are believed from the right, as long as those who appended them are trusted: the right-most entry
 * that is not a trusted proxy's is the client. If all are, it is the left-most. An entry on the way there that is no
 * address, or more than PROXIES_HOPS_MAX of them, and nothing of it is believed: the peer's own address stands. What
 * stands to the left of the client's entry was written by the client, and is not looked at.
 */
#ifndef HTTP_PROXIES_H
#define HTTP_PROXIES_H

#include "base/cidr.h"
#include "http/http.h"

enum { PROXIES_HOPS_MAX = 16 };

/* peer: the address text that the connection came from, replaced by the client's where a trusted peer names another.
   *ret_https: a trusted peer says that the client spoke HTTPS to it (X-Forwarded-Proto, its last entry).
   headers: of the request, in the order in which they came. */
void proxies_resolve(const struct cidr_list *trusted, const struct http_pair *headers, unsigned n,
                     char peer[CIDR_ADDRESS_MAX], bool *ret_https);

#endif
