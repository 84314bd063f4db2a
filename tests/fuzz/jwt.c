/*
 * Tokens: jwt_verify takes what jwt_sign made and nothing else. The first byte of the input chooses what the rest is:
 *   0  a token from outside: never accepted, for the secret is not in any input
 *   1  claims, one a line: signed, verified, then altered everywhere
 *   2  a payload from outside with a right signature: accepted only if its claims say so
 */
#include "codec/crypt.h"
#include "codec/json_in.h"
#include "codec/jwt.h"
#include "fuzz.h"

static const struct str secret = {"fuzzing, fuzzing, only fuzzing....", 34};
static const int64_t NOW = 1800000000;
enum { ARENA_MAX = 8192 /* what jwt_verify promises to stay under */ };

static enum jwt_err verify(struct arena *a, struct str key, const char *token, size_t n, const struct jwt_claims *c,
                           struct jwt_claims *ret)
{
    char *exact = malloc(n);
    enum jwt_err e;

    CHECK(exact);
    memcpy(exact, token, n);
    arena_init(a, NULL, 0, ARENA_MAX);
    e = jwt_verify(a, key, (struct str){exact, n}, c->iss, c->aud, c->typ, NOW, ret);
    free(exact); /* the claims live in the arena, not in the token */
    return e;
}

static void refuse(struct str key, const char *token, size_t n, const struct jwt_claims *c)
{
    struct arena arena;
    struct jwt_claims got = {.sub = -7};

    CHECK(verify(&arena, key, token, n, c, &got) != JWT_OK && got.sub == -7);
    arena_reset(&arena);
}

static void check_claims(const struct jwt_claims *got, const struct jwt_claims *c)
{
    CHECK(got->sub == c->sub && got->iat == c->iat && got->exp == c->exp);
    CHECK(str_eq(got->role, c->role) && str_eq(got->iss, c->iss) && str_eq(got->aud, c->aud));
    CHECK(str_eq(got->jti, c->jti) && str_eq(got->typ, c->typ));
}

/* Every bit of a byte here and there (the input says where), every length but its own. */
static void check_altered(const char *token, size_t n, const struct jwt_claims *c, unsigned stride)
{
    char t[JWT_MAX + 1];

    memcpy(t, token, n);
    for (size_t i = stride % 7; i < n; i += 1 + stride % 31) {
        for (int bit = 0; bit < 8; bit++) {
            t[i] = (char)(token[i] ^ 1 << bit);
            refuse(secret, t, n, c);
        }
        t[i] = token[i];
        refuse(secret, t, i, c);
    }
    for (size_t i = 0; i < 43; i++) { /* the signature with its last byte as any character */
        t[n - 1] = (char)(i + '0');
        if (t[n - 1] != token[n - 1])
            refuse(secret, t, n, c);
    }
    t[n - 1] = token[n - 1];
    t[n] = 'A';
    refuse(secret, t, n + 1, c);
    refuse((struct str){secret.p, secret.n - 1}, token, n, c);
}

static bool text_ok(struct str s)
{
    return str_utf8_ok(s) && (s.n == 0 || !memchr(s.p, '\0', s.n));
}

static void check_signed(struct str in)
{
    unsigned stride = (unsigned)fuzz_take(&in, 1);
    struct jwt_claims c = {.sub = (int64_t)fuzz_take(&in, 8)}, got;
    char token[JWT_MAX];
    struct arena arena;
    enum jwt_err e;
    size_t n;

    c.iat = NOW + (int8_t)fuzz_take(&in, 1);
    c.exp = NOW + (int8_t)fuzz_take(&in, 1);
    c.role = fuzz_until(&in, '\n');
    c.iss = fuzz_until(&in, '\n');
    c.aud = fuzz_until(&in, '\n');
    c.jti = fuzz_until(&in, '\n');
    c.typ = in;
    n = jwt_sign(secret, &c, token);
    CHECK(n < JWT_MAX);
    if (n == 0) /* does not fit: each byte takes 6 at most in JSON, and base64 a third more */
        CHECK((c.role.n + c.iss.n + c.aud.n + c.jti.n + c.typ.n) * 6 > 400);
    if (n == 0)
        return;
    CHECK(token[n] == '\0' && strlen(token) == n);
    e = verify(&arena, secret, token, n, &c, &got);
    if (c.sub <= 0 || !text_ok(c.role) || !text_ok(c.iss) || !text_ok(c.aud) || !text_ok(c.jti) || !text_ok(c.typ))
        CHECK(e == JWT_MALFORMED);
    else
        CHECK(e == (c.exp <= NOW || c.iat > NOW + 60 ? JWT_EXPIRED : JWT_OK));
    if (e == JWT_OK) {
        check_claims(&got, &c);
        check_altered(token, n, &c, stride);
    }
    arena_reset(&arena);
}

static bool is_string(const struct json *obj, const char *key, struct str expect)
{
    const struct json *v = json_get(obj, key);

    return v && v->type == JSON_STRING && str_eq(v->s, expect);
}

static void check_payload(struct str payload)
{
    static const char header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    struct jwt_claims c = {.iss = STR("payflow"), .aud = STR("payflow"), .typ = STR("access")}, got;
    char token[2 * JWT_MAX];
    uint8_t mac[SHA256_LEN];
    struct arena arena, mine;
    struct json *obj;
    size_t n;

    if (payload.n > JWT_MAX)
        return;
    n = b64url_encode(header, sizeof header - 1, token);
    token[n++] = '.';
    n += b64url_encode(payload.p, payload.n, token + n);
    hmac_sha256(secret, (struct str){token, n}, mac);
    token[n++] = '.';
    n += b64url_encode(mac, sizeof mac, token + n);
    if (verify(&arena, secret, token, n, &c, &got) == JWT_OK) {
        arena_init(&mine, NULL, 0, SIZE_MAX);
        CHECK(n < JWT_MAX && json_parse(&mine, payload, &obj, NULL) == PFE_OK);
        CHECK(is_string(obj, "iss", c.iss) && is_string(obj, "aud", c.aud) && is_string(obj, "typ", c.typ));
        CHECK(is_string(obj, "role", got.role) && is_string(obj, "jti", got.jti));
        CHECK(got.sub > 0 && got.exp > NOW && got.iat <= NOW + 60);
        arena_reset(&mine);
    }
    arena_reset(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct jwt_claims outside = {.iss = {"payflow", 7}, .aud = {"payflow", 7}, .typ = {"access", 6}};
    struct str in = {(const char *)data, n};

    switch (fuzz_take(&in, 1) % 3) {
    case 0:
        refuse(secret, in.p, in.n, &outside);
        break;
    case 1:
        check_signed(in);
        break;
    default:
        check_payload(in);
        break;
    }
    return 0;
}
