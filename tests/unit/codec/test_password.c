#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "codec/crypt.h"

/* From crypt_blowfish's own test vectors. */
static void known_vectors(void **state)
{
    static const struct {
        const char *password, *hash;
    } t[] = {
        {"U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
        {"U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"},
        {"U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"},
        {"", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"},
        {"\xff\xff\xa3", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"},
        {"U*U", "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        assert_int_equal(password_check(str_c(t[i].password), t[i].hash), PFE_OK);
        assert_int_equal(password_check(STR("U*V"), t[i].hash), PFE_BAD_CREDENTIALS);
    }
}

static void hashes_and_checks(void **state)
{
    char a[PASSWORD_HASH_MAX], b[PASSWORD_HASH_MAX];

    (void)state;
    assert_int_equal(password_hash(STR("secret"), 4, a), PFE_OK);
    assert_int_equal(password_hash(STR("secret"), 4, b), PFE_OK);
    assert_int_equal(strlen(a), 60);
    assert_memory_equal(a, "$2b$04$", 7);
    assert_string_not_equal(a, b);
    assert_int_equal(password_check(STR("secret"), a), PFE_OK);
    assert_int_equal(password_check(STR("secret"), b), PFE_OK);
    assert_int_equal(password_check(STR("secreT"), a), PFE_BAD_CREDENTIALS);
    assert_int_equal(password_check(STR("secret "), a), PFE_BAD_CREDENTIALS);
    assert_int_equal(password_check(STR(""), a), PFE_BAD_CREDENTIALS);
    /* the length counts, not a NUL behind it */
    assert_int_equal(password_check((struct str){"secretary", 6}, a), PFE_OK);
}

static void refuses_bad_passwords(void **state)
{
    char text[73], hash[PASSWORD_HASH_MAX] = "untouched";

    (void)state;
    memset(text, 'x', sizeof text);
    assert_int_equal(password_hash((struct str){text, 73}, 4, hash), PFE_INVALID);
    assert_int_equal(password_hash(STR("a\0b"), 4, hash), PFE_INVALID);
    assert_int_equal(password_hash(STR("abc"), 3, hash), PFE_INVALID);
    assert_int_equal(password_hash(STR("abc"), 16, hash), PFE_INVALID);
    assert_string_equal(hash, "untouched");
    assert_int_equal(password_hash((struct str){text, 72}, 4, hash), PFE_OK);
    assert_int_equal(password_check((struct str){text, 72}, hash), PFE_OK);
    /* bcrypt itself would ignore the 73rd byte */
    assert_int_equal(password_check((struct str){text, 73}, hash), PFE_BAD_CREDENTIALS);
    text[71] = 'y';
    assert_int_equal(password_check((struct str){text, 72}, hash), PFE_BAD_CREDENTIALS);
    assert_int_equal(password_check(STR("x\0b"), hash), PFE_BAD_CREDENTIALS);
}

static void malformed_hashes_are_false(void **state)
{
    static const char *const bad[] = {
        "",
        "*0",
        "U*U",
        "$2b$05$CCCCCCCCCCCCCCCCCCCCC.",
        "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe",
        "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeWW",
        "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2$005$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$6$005$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2b$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2b$0x$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2b$05$!!!!!!!!!!!!!!!!!!!!!.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(password_check(STR("U*U"), bad[i]), PFE_BAD_CREDENTIALS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_vectors),
        cmocka_unit_test(hashes_and_checks),
        cmocka_unit_test(refuses_bad_passwords),
        cmocka_unit_test(malformed_hashes_are_false),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
