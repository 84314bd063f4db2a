/* headers: which headers are passed on, and how. Pure. */
#ifndef GATEWAY_HEADERS_H
#define GATEWAY_HEADERS_H

#include "base/arena.h"
#include "base/str.h"
#include "http/http.h"

/* Headers of one connection only (RFC 9110 7.6.1), and those that say how long a body is. */
bool header_is_hop(struct str name);
/* Whether the list of tokens holds this one. */
bool header_lists(struct str list, struct str token);
/* RFC 9110 5.6.2 and 5.5: a token; no control bytes but tab. */
bool header_name_ok(struct str name);
bool header_value_ok(struct str value);
/* The value of a cookie in all Cookie headers; .p == NULL: there is none. */
struct str header_cookie(const struct http_pair *headers, unsigned n, struct str name);

/* RFC 3986 6.2.2.2 and 5.2.4: escapes of letters, digits and -._~ decoded, dot segments resolved; all other bytes stay
 * as they are, escaped slashes too. In the arena, NUL-terminated. False: it leads above the root; .p == NULL in *ret:
 * out of memory. */
bool path_normalise(struct arena *a, struct str path, struct str *ret);

#endif
