#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/err.h"
#include "base/str.h"

static void every_code_has_its_row(void **state)
{
    (void)state;
    for (int e = PFE_OK + 1; e < PFE_COUNT; e++) {
        const struct err_info *i = err_info((enum pf_err)e);
        assert_true(i->http >= 400 && i->http <= 599);
        assert_true(i->grpc >= 1 && i->grpc <= 16);
        assert_true(strlen(i->title) > 0 && strlen(i->text) > 0);
        assert_int_equal(err_by_slug(i->slug, strlen(i->slug)), e);
        assert_true(strspn(i->slug, "abcdefghijklmnopqrstuvwxyz-") == strlen(i->slug));
    }
    assert_int_equal(err_info(PFE_INSUFFICIENT_FUNDS)->http, 422);
    assert_string_equal(err_info(PFE_INSUFFICIENT_FUNDS)->slug, "insufficient-funds");
}

static void unknown_codes_are_internal(void **state)
{
    (void)state;
    assert_ptr_equal(err_info(PFE_OK), err_info(PFE_INTERNAL));
    assert_ptr_equal(err_info(PFE_COUNT), err_info(PFE_INTERNAL));
    assert_ptr_equal(err_info((enum pf_err)9999), err_info(PFE_INTERNAL));
    assert_int_equal(err_by_slug("no-such", 7), PFE_OK);
    assert_int_equal(err_by_slug("", 0), PFE_OK);
    assert_int_equal(err_by_slug("busyx", 4), PFE_BUSY);
    assert_int_equal(err_by_slug("busyx", 5), PFE_OK);
}

static void sets_and_truncates(void **state)
{
    struct problem p = {0};
    char text[400];

    (void)state;
    assert_int_equal(problem_set(&p, PFE_NOT_FOUND, "no user %d", 7), PFE_NOT_FOUND);
    assert_int_equal(p.code, PFE_NOT_FOUND);
    assert_string_equal(p.detail, "no user 7");
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    problem_set(&p, PFE_INVALID, "%s", text);
    assert_int_equal(strlen(p.detail), sizeof p.detail - 1);
}

/* Wherever the cut falls, the rest is UTF-8. */
static void truncates_between_characters(void **state)
{
    static const char *const chars[] = {"\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};

    (void)state;
    for (size_t c = 0; c < 3; c++) {
        for (size_t lead = 0; lead < 4; lead++) {
            struct problem p = {0};
            char text[400] = "xxx";
            text[lead] = '\0';
            while (strlen(text) < 300)
                strcat(text, chars[c]);
            problem_set(&p, PFE_INVALID, "%s", text);
            assert_true(str_utf8_ok(str_c(p.detail)));
            assert_true(strlen(p.detail) > sizeof p.detail - 1 - strlen(chars[c]));
            problem_field(&p, text, text, text, "%s", text);
            assert_true(str_utf8_ok(str_c(p.fields[0].in)));
            assert_true(str_utf8_ok(str_c(p.fields[0].name)));
            assert_true(str_utf8_ok(str_c(p.fields[0].type)));
            assert_true(str_utf8_ok(str_c(p.fields[0].msg)));
        }
    }
}

static void collects_fields(void **state)
{
    struct problem p = {0};

    (void)state;
    assert_int_equal(problem_field(&p, "body", "amount", "missing", "is %s", "required"), PFE_INVALID);
    assert_int_equal(p.n_fields, 1);
    assert_string_equal(p.fields[0].in, "body");
    assert_string_equal(p.fields[0].name, "amount");
    assert_string_equal(p.fields[0].type, "missing");
    assert_string_equal(p.fields[0].msg, "is required");
    p.code = PFE_BAD_QUERY;
    assert_int_equal(problem_field(&p, "query", "limit", "range", "is too large"), PFE_BAD_QUERY);
    for (int i = 0; i < 2 * PROBLEM_FIELDS_MAX; i++)
        problem_field(&p, "body", "more", "range", "is more");
    assert_int_equal(p.n_fields, PROBLEM_FIELDS_MAX);
    problem_set(&p, PFE_INVALID, "fields");
    assert_int_equal(p.n_fields, PROBLEM_FIELDS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_row), cmocka_unit_test(unknown_codes_are_internal),
        cmocka_unit_test(sets_and_truncates),     cmocka_unit_test(truncates_between_characters),
        cmocka_unit_test(collects_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
