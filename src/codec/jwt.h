/*
 * jwt: HS256 tokens (RFC 7519, RFC 7515), nothing else. The header that is accepted is compared as bytes with the
 * one that is written, so no `alg` from outside is ever interpreted.
 */
#ifndef CODEC_JWT_H
#define CODEC_JWT_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum { JWT_MAX = 1024 };

struct jwt_claims {
    int64_t sub; /* user id, > 0; in the token as a decimal string */
    struct str role, iss, aud, jti, typ;
    int64_t iat, exp; /* seconds */
};

enum jwt_err { JWT_OK, JWT_MALFORMED, JWT_SIGNATURE, JWT_EXPIRED, JWT_ISSUER, JWT_AUDIENCE, JWT_TYPE, JWT_NOMEM };

/* Writes NUL-terminated text; length, or 0 if it does not fit. */
size_t jwt_sign(struct str secret, const struct jwt_claims *c, char out[JWT_MAX]);
/* On JWT_OK only *ret is set. A claim is JWT_MALFORMED when it is missing or of the wrong JSON type, a token from the
   future JWT_EXPIRED, an exhausted arena (it takes under 8 KiB) JWT_NOMEM. Checks signature first, then form, exp >
   now_s, iat <= now_s + 60, iss, aud, typ. Claims live in the arena. Accepts any well-formed payload with those claims;
   header must be exactly {"alg":"HS256","typ":"JWT"} in its canonical encoding. */
enum jwt_err jwt_verify(struct arena *a, struct str secret, struct str token, struct str iss, struct str aud,
                        struct str typ, int64_t now_s, struct jwt_claims *ret) MUSTCHECK;

#endif
