#include "codec/crypt.h"

#include <crypt.h>
#include <stdlib.h>

#include "base/rand.h"

enum { SALT_BYTES = 16, BCRYPT_TEXT_LEN = 60, COST_MIN = 4, COST_MAX = 15 };

static bool acceptable(struct str password)
{
    return password.n <= PASSWORD_BYTES_MAX && (password.n == 0 || !memchr(password.p, '\0', password.n));
}

/* setting: a salt, or a hash to compare with. PFE_INTERNAL: libxcrypt refused it. */
static enum pf_err run(struct str password, const char *setting, char out[BCRYPT_TEXT_LEN + 1])
{
    char phrase[PASSWORD_BYTES_MAX + 1];
    struct crypt_data *data = calloc(1, sizeof *data); /* 32 KiB, too much for small stacks */
    const char *hash;
    enum pf_err e = PFE_INTERNAL;

    if (!data)
        return PFE_NOMEM;
    str_copy(phrase, sizeof phrase, password);
    hash = crypt_r(phrase, setting, data);
    if (hash && strlen(hash) == BCRYPT_TEXT_LEN) {
        memcpy(out, hash, BCRYPT_TEXT_LEN + 1);
        e = PFE_OK;
    }
    explicit_bzero(phrase, sizeof phrase);
    explicit_bzero(data, sizeof *data);
    free(data);
    return e;
}

enum pf_err password_hash(struct str password, int cost, char out[PASSWORD_HASH_MAX])
{
    char salt[CRYPT_GENSALT_OUTPUT_SIZE], random[SALT_BYTES];

    if (!acceptable(password) || cost < COST_MIN || cost > COST_MAX)
        return PFE_INVALID;
    rand_bytes(random, sizeof random);
    if (!crypt_gensalt_rn("$2b$", (unsigned long)cost, random, sizeof random, salt, sizeof salt))
        return PFE_INTERNAL;
    return run(password, salt, out);
}

/* $2a$, $2b$ or $2y$, and a cost that ends this century. */
static bool is_bcrypt(const char *hash)
{
    int cost;

    if (strlen(hash) != BCRYPT_TEXT_LEN || strncmp(hash, "$2", 2) != 0 || !strchr("aby", hash[2]) || hash[3] != '$' ||
        hash[6] != '$' || hash[4] < '0' || hash[4] > '9' || hash[5] < '0' || hash[5] > '9')
        return false;
    cost = (hash[4] - '0') * 10 + (hash[5] - '0');
    return cost >= COST_MIN && cost <= COST_MAX;
}

enum pf_err password_check(struct str password, const char *hash)
{
    char again[BCRYPT_TEXT_LEN + 1];
    enum pf_err e;

    if (!acceptable(password) || !is_bcrypt(hash))
        return PFE_BAD_CREDENTIALS;
    e = run(password, hash, again);
    if (e == PFE_NOMEM)
        return e;
    return e == PFE_OK && crypt_equal(again, hash, BCRYPT_TEXT_LEN) ? PFE_OK : PFE_BAD_CREDENTIALS;
}
