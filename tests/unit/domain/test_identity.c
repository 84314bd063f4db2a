#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "domain/identity/identity.h"

typedef bool (*check_fn)(struct str s, struct problem *p);

static void accept(check_fn ok, struct str s)
{
    struct problem p = {0};

    if (!ok(s, &p))
        fail_msg("refused: %.*s", (int)s.n, s.p);
    assert_int_equal(p.code, PFE_OK);
    assert_int_equal(p.n_fields, 0);
}

static void refuse(check_fn ok, struct str s, const char *field, const char *type)
{
    struct problem p = {0};

    if (ok(s, &p))
        fail_msg("accepted: %.*s", (int)s.n, s.p);
    assert_int_equal(p.code, PFE_INVALID);
    assert_int_equal(p.n_fields, 1);
    assert_string_equal(p.fields[0].in, "body");
    assert_string_equal(p.fields[0].name, field);
    assert_string_equal(p.fields[0].type, type);
    assert_true(p.fields[0].msg[0] != '\0');
}

/* n times c, and then the tail */
static struct str repeat(char *out, char c, size_t n, const char *tail)
{
    memset(out, c, n);
    memcpy(out + n, tail, strlen(tail) + 1);
    return str_c(out);
}

static void roles(void **state)
{
    enum ident_role r = IDENT_USER;

    (void)state;
    assert_string_equal(ident_role_name(IDENT_USER), "user");
    assert_string_equal(ident_role_name(IDENT_ADMIN), "admin");
    assert_true(ident_role_parse(STR("admin"), &r));
    assert_int_equal(r, IDENT_ADMIN);
    assert_false(ident_role_parse(STR("root"), &r));
    assert_false(ident_role_parse(STR("Admin"), &r));
    assert_false(ident_role_parse(STR_NONE, &r));
    assert_int_equal(r, IDENT_ADMIN);
    assert_true(ident_role_parse(STR("user"), &r));
    assert_int_equal(r, IDENT_USER);
}

static void usernames(void **state)
{
    static const char *const good[] = {
        "a",        "Alice_01", "a.b@c+d-e", "-",     "Gökçe", "Ñandú",     "Ωμέγα", "Владимир",
        "田中さん", "김철수",   "محمد",      "हिन्दी", "José",  "e\xCC\x81", "𠮷野",  "ªº",
    };
    static const char *const bad[] = {
        "a b",
        "a\tb",
        "a\nb",
        "a/b",
        "a:b",
        "a\"b",
        "<a>",
        "a\x7F",
        "a\x01",
        "a\xC2\x85",     /* next line */
        "a\xC2\xA0",     /* no-break space */
        "a\xE2\x80\x8B", /* zero-width space */
        "a\xE2\x80\xAE", /* right-to-left override */
        "a\xE3\x80\x80", /* ideographic space */
        "\xEF\xBB\xBF"
        "a",                /* byte order mark */
        "\xE3\x85\xA4",     /* Hangul filler, drawn as nothing */
        "\xEE\x80\x80",     /* private use */
        "\xF0\x9F\x98\x80", /* emoji */
        "\xF3\xA0\x81\x81", /* tag letter, drawn as nothing */
        "\xEF\xBF\xBD",     /* replacement character */
        "a×b",
        "€uro",
        "a\xC3",
        "\xC0\xAF",
        "\xED\xA0\x80",
        "\xFF",
    };
    char long_name[80];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        accept(ident_username_ok, str_c(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse(ident_username_ok, str_c(bad[i]), "username", "format");
    refuse(ident_username_ok, STR("a\0b"), "username", "format");
    refuse(ident_username_ok, STR(""), "username", "missing");
    refuse(ident_username_ok, STR_NONE, "username", "missing");
    accept(ident_username_ok, repeat(long_name, 'x', 64, ""));
    refuse(ident_username_ok, repeat(long_name, 'x', 65, ""), "username", "range");
    refuse(ident_username_ok, repeat(long_name, 'x', 63, "é"), "username", "range");
}

static void emails(void **state)
{
    static const char *const good[] = {
        "a@b.c",       "alice@example.com", "first.last+tag@sub.example.co.uk",
        "a@localhost", "o'neil@x-y.org",    "1_2-3@123.com",
        "A@B",
    };
    static const char *const bad[] = {
        "a",        "a.b.c",   "@b.c",    "a@",      "a@@b.c",    "a@b@c",         ".a@b.c", "a.@b.c",
        "a..b@c.d", "a@.b",    "a@b.",    "a@b..c",  "a@-b.c",    "a@b-.c",        "a@b.-c", "a@b.c-",
        "a b@c.d",  "a@b c",   "a@b_c.d", "a@b.c\n", "\"a\"@b.c", "a@[127.0.0.1]", "é@b.c",  "a@é.c",
        "a,b@c.d",  "<a@b.c>",
    };
    char text[400];
    size_t n;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        accept(ident_email_ok, str_c(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse(ident_email_ok, str_c(bad[i]), "email", "format");
    refuse(ident_email_ok, STR("a\0@b.c"), "email", "format");
    refuse(ident_email_ok, STR_NONE, "email", "missing");
    accept(ident_email_ok, repeat(text, 'x', 64, "@b.c"));
    refuse(ident_email_ok, repeat(text, 'x', 65, "@b.c"), "email", "range");
    text[0] = 'a';
    text[1] = '@';
    accept(ident_email_ok, (struct str){text, repeat(text + 2, 'x', 63, ".c").n + 2});
    refuse(ident_email_ok, (struct str){text, repeat(text + 2, 'x', 64, ".c").n + 2}, "email", "format");
    for (n = 2; n < 254; n += 2)
        memcpy(text + n, "d.", 2);
    text[253] = 'e';
    accept(ident_email_ok, (struct str){text, 254});
    text[253] = '.';
    text[254] = 'e';
    refuse(ident_email_ok, (struct str){text, 255}, "email", "range");
}

static bool password8(struct str s, struct problem *p)
{
    return ident_password_ok(s, 8, p);
}

static void passwords(void **state)
{
    char text[100];

    (void)state;
    accept(password8, STR("12345678"));
    accept(password8, STR("ééééßßßß"));
    accept(password8, STR(" pass word "));
    refuse(password8, STR("1234567"), "password", "range");
    refuse(password8, STR("éééé"), "password", "range"); /* 8 bytes, 4 characters */
    refuse(password8, STR("1234567\0"), "password", "format");
    refuse(password8, STR("1234567\xFF"), "password", "format");
    refuse(password8, STR(""), "password", "missing");
    refuse(password8, STR_NONE, "password", "missing");
    accept(password8, repeat(text, 'p', 72, ""));
    refuse(password8, repeat(text, 'p', 73, ""), "password", "range");
}

static void all_fields_are_reported(void **state)
{
    struct problem p = {0};

    (void)state;
    assert_false(ident_username_ok(STR(""), &p));
    assert_false(ident_email_ok(STR("x"), &p));
    assert_false(ident_password_ok(STR("x"), 3, &p));
    assert_int_equal(p.n_fields, 3);
    assert_string_equal(p.fields[2].msg, "is shorter than 3 characters");
}

static void folding(void **state)
{
    char out[9] = "keep";

    (void)state;
    assert_true(ident_fold(STR("AbZ[`{É"), out, sizeof out));
    assert_string_equal(out, "abz[`{É");
    assert_false(ident_fold(STR("123456789"), out, sizeof out));
    assert_string_equal(out, "abz[`{É");
    assert_true(ident_fold(STR("12345678"), out, sizeof out));
    assert_string_equal(out, "12345678");
    assert_true(ident_fold(STR_NONE, out, 1));
    assert_string_equal(out, "");
    assert_false(ident_fold(STR_NONE, out, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roles),
        cmocka_unit_test(usernames),
        cmocka_unit_test(emails),
        cmocka_unit_test(passwords),
        cmocka_unit_test(all_fields_are_reported),
        cmocka_unit_test(folding),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
