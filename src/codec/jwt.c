#include "codec/jwt.h"

#include "base/buf.h"
#include "codec/crypt.h"
#include "codec/json_in.h"
#include "codec/json_out.h"

/* {"alg":"HS256","typ":"JWT"} */
static const char header[] = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.";

enum {
    HEADER_LEN = sizeof header - 1, /* with its dot */
    SIGNATURE_LEN = 43,             /* 32 bytes in base64url */
    PAYLOAD_MAX = (JWT_MAX - 1 - HEADER_LEN - 1 - SIGNATURE_LEN) / 4 * 3,
    SKEW_S = 60 /* how far another instance's clock may be ahead */
};

static void write_claims(struct buf *b, const struct jwt_claims *c)
{
    struct jw w;
    char sub[STR_U64_MAX];

    jw_init(&w, b);
    jw_obj(&w);
    jw_kstr(&w, "sub", (struct str){sub, str_from_u64((uint64_t)c->sub, sub)});
    jw_kstr(&w, "role", c->role);
    jw_kstr(&w, "iss", c->iss);
    jw_kstr(&w, "aud", c->aud);
    jw_kint(&w, "iat", c->iat);
    jw_kint(&w, "exp", c->exp);
    jw_kstr(&w, "jti", c->jti);
    jw_kstr(&w, "typ", c->typ);
    jw_end_obj(&w);
}

size_t jwt_sign(struct str secret, const struct jwt_claims *c, char out[JWT_MAX])
{
    uint8_t mac[SHA256_LEN];
    struct buf b;
    size_t n = 0;

    buf_init(&b, PAYLOAD_MAX);
    write_claims(&b, c);
    if (!b.failed) {
        memcpy(out, header, HEADER_LEN);
        n = HEADER_LEN + b64url_encode(b.p, b.n, out + HEADER_LEN);
        hmac_sha256(secret, (struct str){out, n}, mac);
        out[n++] = '.';
        n += b64url_encode(mac, sizeof mac, out + n);
    }
    buf_free(&b);
    return n;
}

static bool get_str(const struct json *obj, const char *key, struct str *ret)
{
    const struct json *v = json_get(obj, key);

    if (!v || v->type != JSON_STRING)
        return false;
    *ret = v->s;
    return true;
}

static bool get_int(const struct json *obj, const char *key, int64_t *ret)
{
    const struct json *v = json_get(obj, key);

    return v && v->type == JSON_NUMBER && str_to_i64(v->s, ret);
}

static enum jwt_err read_claims(struct arena *a, struct str encoded, struct jwt_claims *ret)
{
    char *text = arena_alloc(a, PAYLOAD_MAX);
    struct str sub;
    struct json *obj;
    enum pf_err e;
    size_t n;
    bool ok;

    if (!text)
        return JWT_NOMEM;
    if (!b64url_decode(encoded, text, PAYLOAD_MAX, &n))
        return JWT_MALFORMED;
    e = json_parse(a, (struct str){text, n}, &obj, NULL);
    if (e != PFE_OK)
        return e == PFE_NOMEM ? JWT_NOMEM : JWT_MALFORMED;
    ok = get_str(obj, "sub", &sub) && str_to_i64(sub, &ret->sub) && ret->sub > 0 && get_str(obj, "role", &ret->role) &&
         get_str(obj, "iss", &ret->iss) && get_str(obj, "aud", &ret->aud) && get_str(obj, "jti", &ret->jti) &&
         get_str(obj, "typ", &ret->typ) && get_int(obj, "iat", &ret->iat) && get_int(obj, "exp", &ret->exp);
    return ok ? JWT_OK : JWT_MALFORMED;
}

enum jwt_err jwt_verify(struct arena *a, struct str secret, struct str token, struct str iss, struct str aud,
                        struct str typ, int64_t now_s, struct jwt_claims *ret)
{
    uint8_t mac[SHA256_LEN], sent[SHA256_LEN];
    struct jwt_claims c;
    struct str signature;
    enum jwt_err e;
    const char *dot;
    size_t n;

    if (token.n >= JWT_MAX || !str_starts(token, (struct str){header, HEADER_LEN}))
        return JWT_MALFORMED;
    dot = memchr(token.p + HEADER_LEN, '.', token.n - HEADER_LEN);
    if (!dot)
        return JWT_MALFORMED;
    signature = (struct str){dot + 1, (size_t)(token.p + token.n - dot - 1)};
    if (signature.n != SIGNATURE_LEN || !b64url_decode(signature, sent, sizeof sent, &n))
        return JWT_SIGNATURE;
    hmac_sha256(secret, (struct str){token.p, (size_t)(dot - token.p)}, mac);
    if (!crypt_equal(mac, sent, sizeof mac))
        return JWT_SIGNATURE;
    e = read_claims(a, (struct str){token.p + HEADER_LEN, (size_t)(dot - token.p) - HEADER_LEN}, &c);
    if (e != JWT_OK)
        return e;
    if (c.exp <= now_s || c.iat > now_s + SKEW_S)
        return JWT_EXPIRED;
    if (!str_eq(c.iss, iss))
        return JWT_ISSUER;
    if (!str_eq(c.aud, aud))
        return JWT_AUDIENCE;
    if (!str_eq(c.typ, typ))
        return JWT_TYPE;
    *ret = c;
    return JWT_OK;
}
