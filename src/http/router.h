/*
 * router: from method and path to a route. Built once, read-only afterwards, thread-safe.
 *
 * A path without parameters or escapes is one look-up in a hash table; any other walks a tree of segments, where a
 * literal segment goes before "{id}", and that before "{rest...}". The most specific path decides, whatever the method:
 * GET /users/key is 405 when /users/key takes only POST, though GET /users/{id} exists.
 */
#ifndef HTTP_ROUTER_H
#define HTTP_ROUTER_H

#include "http/http.h"

struct router;

struct router_match {
    const struct http_route *const *routes; /* by method; HTTP_METHODS entries, NULL where there is none */
    struct str params[HTTP_PARAMS_MAX];
    bool bad; /* a percent escape, UTF-8 or NUL error; no route then */
};

/* NULL, and one line in why, when a pattern is malformed or occurs twice for a method, or there is no memory. */
struct router *router_new(const struct http_route *routes, size_t n, char why[256]);
void router_free(struct router *r);
/* False: no such path, or bad is set. Decoded params live in the arena or in path. */
bool router_find(const struct router *r, struct arena *a, struct str path, struct router_match *ret);
/* Decodes percent escapes, and '+' as a space if plus; the result is valid UTF-8 without NUL, in the arena or in s
 * itself. False: it is not, or no memory. */
bool url_decode(struct arena *a, struct str s, bool plus, struct str *ret);

#endif
