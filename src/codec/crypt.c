/* OpenSSL 3 deprecates its SHA256_* calls in favour of EVP. They stay here on purpose: their state lies on the stack,
 * so that a hash cannot fail for want of memory (EVP contexts live on the heap), and they are a third faster on the
 * short inputs that this program hashes. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "codec/crypt.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdlib.h>

enum { BLOCK = 64 };

struct sha256 {
    SHA256_CTX ctx;
};

struct sha256 *sha256_new(void)
{
    return malloc(sizeof(struct sha256));
}

void sha256_free(struct sha256 *h)
{
    free(h);
}

void sha256_begin(struct sha256 *h)
{
    SHA256_Init(&h->ctx);
}

void sha256_add(struct sha256 *h, const void *p, size_t n)
{
    SHA256_Update(&h->ctx, p, n);
}

void sha256_end(struct sha256 *h, uint8_t out[SHA256_LEN])
{
    SHA256_Final(out, &h->ctx);
}

static void digest2(const void *a, size_t a_n, const void *b, size_t b_n, uint8_t out[SHA256_LEN])
{
    SHA256_CTX ctx;

    SHA256_Init(&ctx);
    SHA256_Update(&ctx, a, a_n);
    SHA256_Update(&ctx, b, b_n);
    SHA256_Final(out, &ctx);
}

void sha256_of(struct str s, uint8_t out[SHA256_LEN])
{
    digest2(s.p, s.n, NULL, 0, out);
}

/* RFC 2104 */
void hmac_sha256(struct str key, struct str msg, uint8_t out[SHA256_LEN])
{
    uint8_t pad[BLOCK] = {0}, inner[SHA256_LEN];

    if (key.n > BLOCK)
        sha256_of(key, pad);
    else if (key.n)
        memcpy(pad, key.p, key.n);
    for (size_t i = 0; i < BLOCK; i++)
        pad[i] ^= 0x36;
    digest2(pad, BLOCK, msg.p, msg.n, inner);
    for (size_t i = 0; i < BLOCK; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    digest2(pad, BLOCK, inner, sizeof inner, out);
    explicit_bzero(pad, sizeof pad);
}

bool crypt_equal(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}
