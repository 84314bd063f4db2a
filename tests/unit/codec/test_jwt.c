#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "codec/crypt.h"
#include "codec/jwt.h"

enum { NOW = 1800000000 };

static const struct str SECRET = {"0123456789abcdef0123456789abcdef", 32};
static const char HS256[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
static const char GOOD[] = "{\"sub\":\"7\",\"role\":\"user\",\"iss\":\"payflow\",\"aud\":\"api\",\"iat\":1799999990,"
                           "\"exp\":1800000900,\"jti\":\"j1\",\"typ\":\"access\"}";

static struct arena arena;
static char block[16384];

static int set_up(void **state)
{
    (void)state;
    arena_init(&arena, block, sizeof block, 1 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_reset(&arena);
    return 0;
}

static enum jwt_err verify(struct str token, struct jwt_claims *ret)
{
    return jwt_verify(&arena, SECRET, token, STR("payflow"), STR("api"), STR("access"), NOW, ret);
}

/* A token of any header and payload, signed as HS256 would. */
static struct str forge(const char *head, const char *payload, char out[2 * JWT_MAX])
{
    uint8_t mac[SHA256_LEN];
    size_t n = b64url_encode(head, strlen(head), out);

    out[n++] = '.';
    n += b64url_encode(payload, strlen(payload), out + n);
    hmac_sha256(SECRET, (struct str){out, n}, mac);
    out[n++] = '.';
    n += b64url_encode(mac, sizeof mac, out + n);
    return (struct str){out, n};
}

static enum jwt_err verify_payload(const char *payload)
{
    char out[2 * JWT_MAX];
    struct jwt_claims c;

    return verify(forge(HS256, payload, out), &c);
}

static void signs_and_verifies(void **state)
{
    struct jwt_claims c = {.sub = INT64_MAX,
                           .role = STR("admin"),
                           .iss = STR("payflow"),
                           .aud = STR("api"),
                           .jti = STR("a\"\\b\xE2\x82\xAC"),
                           .typ = STR("access"),
                           .iat = NOW,
                           .exp = NOW + 900},
                      got;
    char out[JWT_MAX];
    size_t n = jwt_sign(SECRET, &c, out);

    (void)state;
    assert_int_equal(n, strlen(out));
    assert_memory_equal(out, "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.", 37);
    assert_int_equal(verify((struct str){out, n}, &got), JWT_OK);
    assert_true(got.sub == INT64_MAX && got.iat == NOW && got.exp == NOW + 900);
    assert_true(str_eq(got.role, c.role) && str_eq(got.iss, c.iss) && str_eq(got.aud, c.aud));
    assert_true(str_eq(got.jti, c.jti) && str_eq(got.typ, c.typ));
}

/* Signed with an independent implementation (Python's hmac, hashlib and base64). */
static void verifies_a_foreign_token(void **state)
{
    static const char token[] =
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI3Iiwicm9sZSI6InVzZXIiLCJpc3MiOiJwYXlmbG93I"
        "iwiYXVkIjoiYXBpIiwiaWF0IjoxNzk5OTk5OTkwLCJleHAiOjE4MDAwMDA5MDAsImp0aSI6ImoxIiwidHlwIjoiYWN"
        "jZXNzIn0.oZygutV82pW9Uc3FjAhyZKNxtYesOqhD851_WXVHm_k";
    struct jwt_claims c;

    (void)state;
    assert_int_equal(verify(str_c(token), &c), JWT_OK);
    assert_int_equal(c.sub, 7);
    assert_true(str_is(c.role, "user"));
}

static void does_not_sign_what_does_not_fit(void **state)
{
    char out[JWT_MAX], jti[JWT_MAX];
    bool fitted = false, refused = false;

    (void)state;
    memset(jti, 'x', sizeof jti);
    for (size_t n = 0; n < sizeof jti; n++) {
        struct jwt_claims c = {.sub = 1,
                               .role = STR("user"),
                               .iss = STR("payflow"),
                               .aud = STR("api"),
                               .jti = {jti, n},
                               .typ = STR("access"),
                               .iat = NOW,
                               .exp = NOW + 1},
                          got;
        size_t len = jwt_sign(SECRET, &c, out);
        if (len) {
            assert_false(refused);
            assert_true(len < JWT_MAX);
            assert_int_equal(verify((struct str){out, len}, &got), JWT_OK);
            assert_int_equal(got.jti.n, n);
            arena_reset(&arena);
            fitted = true;
        } else {
            refused = true;
        }
    }
    assert_true(fitted && refused);
}

static void refuses_other_algorithms(void **state)
{
    static const char *const heads[] = {
        "{\"alg\":\"none\",\"typ\":\"JWT\"}",
        "{\"alg\":\"None\",\"typ\":\"JWT\"}",
        "{\"alg\":\"nOnE\"}",
        "{\"alg\":\"RS256\",\"typ\":\"JWT\"}",
        "{\"alg\":\"HS512\",\"typ\":\"JWT\"}",
        "{\"alg\":\"hs256\",\"typ\":\"JWT\"}",
        "{\"typ\":\"JWT\",\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\", \"typ\":\"JWT\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"../../dev/null\"}",
        "{\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\",\"alg\":\"none\"}",
        "",
    };
    char out[2 * JWT_MAX];
    struct jwt_claims c;

    (void)state;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct str t = forge(heads[i], GOOD, out);
        assert_int_equal(verify(t, &c), JWT_MALFORMED);
        /* and without its signature */
        t.n -= 43;
        assert_int_equal(verify(t, &c), JWT_MALFORMED);
    }
}

static void refuses_bad_signatures(void **state)
{
    char out[2 * JWT_MAX];
    struct str t = forge(HS256, GOOD, out);
    struct jwt_claims c = {.sub = -1};

    (void)state;
    assert_int_equal(verify(t, &c), JWT_OK);
    c.sub = -1;
    assert_int_equal(verify((struct str){t.p, t.n - 43}, &c), JWT_SIGNATURE);
    assert_int_equal(verify((struct str){t.p, t.n - 44}, &c), JWT_MALFORMED);
    for (size_t n = 1; n < 43; n++)
        assert_int_equal(verify((struct str){t.p, t.n - n}, &c), JWT_SIGNATURE);
    out[t.n] = '=';
    assert_int_equal(verify((struct str){t.p, t.n + 1}, &c), JWT_SIGNATURE);
    out[t.n] = '.';
    assert_int_equal(verify((struct str){t.p, t.n + 1}, &c), JWT_SIGNATURE);

    struct str other = STR("another secret of 32 bytes, or so");
    assert_int_equal(jwt_verify(&arena, other, t, STR("payflow"), STR("api"), STR("access"), NOW, &c), JWT_SIGNATURE);
    assert_int_equal(c.sub, -1);
}

/* Each character changed, one after the other: nothing is ever taken. */
static void refuses_altered_tokens(void **state)
{
    char out[2 * JWT_MAX];
    struct str t = forge(HS256, GOOD, out);
    struct jwt_claims c;

    (void)state;
    for (size_t i = 0; i < t.n; i++) {
        char was = out[i];
        for (const char *p = "AQgw_.-="; *p; p++) {
            if (*p == was)
                continue;
            out[i] = *p;
            enum jwt_err e = verify(t, &c);
            assert_true(e == JWT_MALFORMED || e == JWT_SIGNATURE);
        }
        out[i] = was;
    }
    assert_int_equal(verify(t, &c), JWT_OK);
}

static void refuses_what_is_no_token(void **state)
{
    char out[2 * JWT_MAX], payload[JWT_MAX];
    struct jwt_claims c;

    (void)state;
    assert_int_equal(verify(STR_NONE, &c), JWT_MALFORMED);
    assert_int_equal(verify(STR("abc"), &c), JWT_MALFORMED);
    assert_int_equal(verify(STR(".."), &c), JWT_MALFORMED);
    assert_int_equal(verify(STR("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."), &c), JWT_MALFORMED);
    assert_int_equal(verify(STR("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.."), &c), JWT_SIGNATURE);
    snprintf(payload, sizeof payload, "%.*s,\"pad\":\"%0800d\"}", (int)strlen(GOOD) - 1, GOOD, 0);
    assert_int_equal(verify(forge(HS256, payload, out), &c), JWT_MALFORMED);
}

static void checks_the_time(void **state)
{
    static const struct {
        const char *iat, *exp;
        enum jwt_err e;
    } t[] = {
        {"1799999990", "1800000001", JWT_OK},
        {"1799999990", "1800000000", JWT_EXPIRED},
        {"1799999990", "1799999999", JWT_EXPIRED},
        {"1799999990", "0", JWT_EXPIRED},
        {"1799999990", "-1", JWT_EXPIRED},
        {"1800000060", "1800000900", JWT_OK},
        {"1800000061", "1800000900", JWT_EXPIRED},
        {"1799999990", "9223372036854775807", JWT_OK},
        {"1799999990", "9223372036854775808", JWT_MALFORMED},
        {"1799999990", "1.8e10", JWT_MALFORMED},
        {"1799999990", "1800000900.5", JWT_MALFORMED},
        {"1799999990", "\"1800000900\"", JWT_MALFORMED},
        {"1799999990", "null", JWT_MALFORMED},
        {"true", "1800000900", JWT_MALFORMED},
    };
    char payload[512];

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        snprintf(payload, sizeof payload,
                 "{\"sub\":\"7\",\"role\":\"user\",\"iss\":\"payflow\",\"aud\":\"api\",\"iat\":%s,\"exp\":%s,"
                 "\"jti\":\"j\",\"typ\":\"access\"}",
                 t[i].iat, t[i].exp);
        if (verify_payload(payload) != t[i].e)
            fail_msg("iat %s, exp %s", t[i].iat, t[i].exp);
    }
}

static void checks_who_and_what_for(void **state)
{
    char out[2 * JWT_MAX];
    struct str t = forge(HS256, GOOD, out);
    struct jwt_claims c;

    (void)state;
    assert_int_equal(jwt_verify(&arena, SECRET, t, STR("other"), STR("api"), STR("access"), NOW, &c), JWT_ISSUER);
    assert_int_equal(jwt_verify(&arena, SECRET, t, STR("payflow"), STR("ap"), STR("access"), NOW, &c), JWT_AUDIENCE);
    assert_int_equal(jwt_verify(&arena, SECRET, t, STR("payflow"), STR("api"), STR("refresh"), NOW, &c), JWT_TYPE);
    assert_int_equal(jwt_verify(&arena, SECRET, t, STR("payflow"), STR("api"), STR("access"), NOW, &c), JWT_OK);
}

/* Properly signed, but each claim in turn missing or of another form. */
static void checks_the_form(void **state)
{
    static const char *const claims[] = {"\"sub\":\"7\"",   "\"role\":\"user\"",  "\"iss\":\"payflow\"",
                                         "\"aud\":\"api\"", "\"iat\":1799999990", "\"exp\":1800000900",
                                         "\"jti\":\"j1\"",  "\"typ\":\"access\""};
    static const char *const bad[] = {
        "\"sub\":7",
        "\"sub\":\"0\"",
        "\"sub\":\"-7\"",
        "\"sub\":\"7x\"",
        "\"sub\":\"\"",
        "\"sub\":null",
        "\"sub\":\"9223372036854775808\"",
        "\"sub\":[\"7\"]",
    };
    char payload[512];

    (void)state;
    for (size_t missing = 0; missing < 8; missing++) {
        strcpy(payload, "{\"more\":[1,{\"a\":2}]");
        for (size_t i = 0; i < 8; i++) {
            if (i == missing)
                continue;
            strcat(payload, ",");
            strcat(payload, claims[i]);
        }
        strcat(payload, "}");
        assert_int_equal(verify_payload(payload), JWT_MALFORMED);
        payload[strlen(payload) - 1] = '\0';
        strcat(payload, ",");
        strcat(payload, claims[missing]);
        strcat(payload, "}");
        assert_int_equal(verify_payload(payload), JWT_OK);
        strcat(payload, "x");
        assert_int_equal(verify_payload(payload), JWT_MALFORMED);
    }
    for (size_t b = 0; b < sizeof bad / sizeof *bad; b++) {
        snprintf(payload, sizeof payload, "{%s", bad[b]);
        for (size_t i = 1; i < 8; i++) {
            strcat(payload, ",");
            strcat(payload, claims[i]);
        }
        strcat(payload, "}");
        assert_int_equal(verify_payload(payload), JWT_MALFORMED);
    }
    assert_int_equal(verify_payload(""), JWT_MALFORMED);
    assert_int_equal(verify_payload("[]"), JWT_MALFORMED);
    assert_int_equal(verify_payload("null"), JWT_MALFORMED);
}

static void small_arenas_refuse(void **state)
{
    char out[2 * JWT_MAX];
    struct str t = forge(HS256, GOOD, out);
    bool done = false;

    (void)state;
    for (size_t limit = 0; !done; limit += 64) {
        struct arena a;
        struct jwt_claims c;
        arena_init(&a, NULL, 0, limit);
        enum jwt_err e = jwt_verify(&a, SECRET, t, STR("payflow"), STR("api"), STR("access"), NOW, &c);
        assert_true(e == JWT_OK || e == JWT_NOMEM);
        done = e == JWT_OK;
        arena_reset(&a);
        assert_true(limit < 8192);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(signs_and_verifies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(verifies_a_foreign_token, set_up, tear_down),
        cmocka_unit_test_setup_teardown(does_not_sign_what_does_not_fit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_other_algorithms, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_bad_signatures, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_altered_tokens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_what_is_no_token, set_up, tear_down),
        cmocka_unit_test_setup_teardown(checks_the_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(checks_who_and_what_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(checks_the_form, set_up, tear_down),
        cmocka_unit_test_setup_teardown(small_arenas_refuse, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
