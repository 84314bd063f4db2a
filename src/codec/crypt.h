/*
 * crypt: hashes and comparisons on OpenSSL's libcrypto, encodings; passwords on libxcrypt. Thread-safe.
 */
#ifndef CODEC_CRYPT_H
#define CODEC_CRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { SHA256_LEN = 32 };

/* Incremental SHA-256; one context per thread of use. NULL: out of memory. */
struct sha256;
struct sha256 *sha256_new(void);
void sha256_free(struct sha256 *h);
void sha256_begin(struct sha256 *h);
void sha256_add(struct sha256 *h, const void *p, size_t n);
void sha256_end(struct sha256 *h, uint8_t out[SHA256_LEN]);
void sha256_of(struct str s, uint8_t out[SHA256_LEN]);
void hmac_sha256(struct str key, struct str msg, uint8_t out[SHA256_LEN]);
/* Time depends on n only. */
bool crypt_equal(const void *a, const void *b, size_t n);

/* base64url without padding (RFC 4648 §5). Encode: returns length, out needs (n*4+2)/3+1, NUL-terminated. */
size_t b64url_encode(const void *p, size_t n, char *out);
/* Canonical form only (no padding, no stray bits). false: malformed or too long for cap. */
bool b64url_decode(struct str s, void *out, size_t cap, size_t *ret_n);
void hex_encode(const void *p, size_t n, char *out); /* lower case, 2n+1 bytes with NUL */
bool hex_decode(struct str s, void *out, size_t cap, size_t *ret_n);
/* Text of n random bytes in base62, most significant digit first, zero-padded to a fixed length. 32 bytes -> 43
 * characters. */
enum { BASE62_32_LEN = 43 };
void base62_random32(char out[BASE62_32_LEN + 1]);

enum { PASSWORD_HASH_MAX = 64, PASSWORD_BYTES_MAX = 72 };
/* bcrypt $2b$, cost 4..15. Slow by design (about 0.2 s at 12): worker threads only.
   PFE_INVALID: over 72 bytes or with a NUL, or a cost out of range. PFE_NOMEM. */
enum pf_err password_hash(struct str password, int cost, char out[PASSWORD_HASH_MAX]) MUSTCHECK;
/* Constant-time in the hash. PFE_BAD_CREDENTIALS: not this one, or a malformed hash ($2a$, $2b$ or $2y$, cost 4..15).
   PFE_NOMEM. */
enum pf_err password_check(struct str password, const char *hash) MUSTCHECK;

#endif
