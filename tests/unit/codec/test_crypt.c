#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "codec/crypt.h"

static void assert_hex(const uint8_t digest[SHA256_LEN], const char *want)
{
    char text[2 * SHA256_LEN + 1];

    hex_encode(digest, SHA256_LEN, text);
    assert_string_equal(text, want);
}

/* FIPS 180-2, appendix B */
static void sha256_vectors(void **state)
{
    uint8_t d[SHA256_LEN];
    struct sha256 *h = sha256_new();
    char a[1000];

    (void)state;
    sha256_of(STR("abc"), d);
    assert_hex(d, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_of(STR_NONE, d);
    assert_hex(d, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_of(STR("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), d);
    assert_hex(d, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");

    assert_non_null(h);
    memset(a, 'a', sizeof a);
    for (int round = 0; round < 2; round++) {
        sha256_begin(h);
        for (int i = 0; i < 1000; i++)
            sha256_add(h, a, sizeof a);
        sha256_end(h, d);
        assert_hex(d, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
    sha256_free(h);
    sha256_free(NULL);
}

static void sha256_in_pieces(void **state)
{
    uint8_t whole[SHA256_LEN], pieces[SHA256_LEN];
    struct sha256 *h = sha256_new();
    char text[200];

    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)i;
    for (size_t n = 0; n <= sizeof text; n += 7) {
        for (size_t cut = 0; cut <= n; cut += 5) {
            sha256_of((struct str){text, n}, whole);
            sha256_begin(h);
            sha256_add(h, text, cut);
            sha256_add(h, text + cut, n - cut);
            sha256_end(h, pieces);
            assert_memory_equal(whole, pieces, SHA256_LEN);
        }
    }
    sha256_free(h);
}

/* RFC 4231, test cases 1 to 4, 6 and 7 */
static void hmac_vectors(void **state)
{
    uint8_t d[SHA256_LEN];
    char key[131], msg[50];

    (void)state;
    memset(key, 0x0b, 20);
    hmac_sha256((struct str){key, 20}, STR("Hi There"), d);
    assert_hex(d, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    hmac_sha256(STR("Jefe"), STR("what do ya want for nothing?"), d);
    assert_hex(d, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key);
    memset(msg, 0xdd, sizeof msg);
    hmac_sha256((struct str){key, 20}, (struct str){msg, 50}, d);
    assert_hex(d, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
    hmac_sha256((struct str){key, 131}, STR("Test Using Larger Than Block-Size Key - Hash Key First"), d);
    assert_hex(d, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    hmac_sha256((struct str){key, 131},
                STR("This is a test using a larger than block-size key and a larger than block-size data. The key "
                    "needs to be hashed before being used by the HMAC algorithm."),
                d);
    assert_hex(d, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
    for (int i = 0; i < 25; i++)
        key[i] = (char)(i + 1);
    memset(msg, 0xcd, sizeof msg);
    hmac_sha256((struct str){key, 25}, (struct str){msg, 50}, d);
    assert_hex(d, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");
    hmac_sha256(STR_NONE, STR_NONE, d);
    assert_hex(d, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void compares(void **state)
{
    (void)state;
    assert_true(crypt_equal("abc", "abc", 3));
    assert_false(crypt_equal("abc", "abd", 3));
    assert_false(crypt_equal("xbc", "abc", 3));
    assert_true(crypt_equal("a", "b", 0));
}

/* RFC 4648, section 10, without padding, and the two characters that differ from plain base64 */
static void base64url(void **state)
{
    static const struct {
        const char *bytes, *text;
    } t[] = {{"", ""},           {"f", "Zg"},          {"fo", "Zm8"},          {"foo", "Zm9v"},
             {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}, {"\xfb\xff\xbf", "-_-_"}};
    char out[64];
    size_t n = 99;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        size_t len = strlen(t[i].bytes);
        assert_int_equal(b64url_encode(t[i].bytes, len, out), strlen(t[i].text));
        assert_string_equal(out, t[i].text);
        assert_true(b64url_decode(str_c(t[i].text), out, len, &n));
        assert_int_equal(n, len);
        assert_memory_equal(out, t[i].bytes, len);
        if (len)
            assert_false(b64url_decode(str_c(t[i].text), out, len - 1, &n));
    }
}

static void base64url_refuses(void **state)
{
    static const char *const bad[] = {"A",
                                      "AAAAA",
                                      "Zg==",
                                      "Zg=",
                                      "Zh",
                                      "Zm9",
                                      "Zm9vYh",
                                      "+AAA",
                                      "/AAA",
                                      "A AA",
                                      "AA\nA",
                                      "\xC3\xA9"
                                      "AA"};
    char out[64];
    size_t n = 99;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (b64url_decode(str_c(bad[i]), out, sizeof out, &n))
            fail_msg("taken: %s", bad[i]);
    assert_int_equal(n, 99);
    assert_false(b64url_decode(STR("AA\0A"), out, sizeof out, &n));
}

static void base64url_round_trip(void **state)
{
    uint8_t in[256], back[256];
    char text[400];

    (void)state;
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 167);
    for (size_t n = 0; n <= sizeof in; n++) {
        size_t len = b64url_encode(in, n, text), got;
        assert_int_equal(len, (n * 4 + 2) / 3);
        assert_true(b64url_decode((struct str){text, len}, back, sizeof back, &got));
        assert_int_equal(got, n);
        assert_memory_equal(back, in, n);
    }
}

static void hexadecimal(void **state)
{
    uint8_t bytes[4];
    char text[9];
    size_t n = 99;

    (void)state;
    hex_encode("\x00\x7f\x80\xff", 4, text);
    assert_string_equal(text, "007f80ff");
    assert_true(hex_decode(STR("007F80fF"), bytes, sizeof bytes, &n));
    assert_int_equal(n, 4);
    assert_memory_equal(bytes, "\x00\x7f\x80\xff", 4);
    assert_true(hex_decode(STR(""), bytes, 0, &n));
    assert_int_equal(n, 0);
    assert_false(hex_decode(STR("0"), bytes, sizeof bytes, &n));
    assert_false(hex_decode(STR("0g"), bytes, sizeof bytes, &n));
    assert_false(hex_decode(STR("g0"), bytes, sizeof bytes, &n));
    assert_false(hex_decode(STR("0:"), bytes, sizeof bytes, &n));
    assert_false(hex_decode(STR("0011223344"), bytes, sizeof bytes, &n));
}

static void base62(void **state)
{
    char all[200][BASE62_32_LEN + 1];
    bool last_differs = false;

    (void)state;
    for (size_t i = 0; i < 200; i++) {
        base62_random32(all[i]);
        assert_int_equal(strlen(all[i]), BASE62_32_LEN);
        for (const char *p = all[i]; *p; p++)
            assert_true((*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z'));
        /* 2^256 / 62^42 is 61 and a bit: the first digit is the only one that is not even */
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(all[i], all[k]);
        last_differs |= all[i][BASE62_32_LEN - 1] != all[0][BASE62_32_LEN - 1];
    }
    assert_true(last_differs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_vectors), cmocka_unit_test(sha256_in_pieces),
        cmocka_unit_test(hmac_vectors),   cmocka_unit_test(compares),
        cmocka_unit_test(base64url),      cmocka_unit_test(base64url_refuses),
        cmocka_unit_test(hexadecimal),    cmocka_unit_test(base64url_round_trip),
        cmocka_unit_test(base62),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
