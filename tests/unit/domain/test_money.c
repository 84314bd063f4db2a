#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "domain/money/money.h"

static void known_currencies(void **state)
{
    static const struct money_currency_info known[] = {
        {"USD", 840, 2}, {"EUR", 978, 2}, {"JPY", 392, 0}, {"KWD", 414, 3}, {"BHD", 48, 3},  {"ALL", 8, 2},
        {"CLF", 990, 4}, {"UYW", 927, 4}, {"AED", 784, 2}, {"ZWG", 924, 2}, {"XCG", 532, 2}, {"SLE", 925, 2},
        {"VED", 926, 2}, {"ISK", 352, 0}, {"UGX", 800, 0}, {"MGA", 969, 2}, {"TND", 788, 3}, {"XAD", 396, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const struct money_currency_info *ci = money_by_code(str_c(known[i].code));

        assert_non_null(ci);
        assert_string_equal(ci->code, known[i].code);
        assert_int_equal(ci->num, known[i].num);
        assert_int_equal(ci->scale, known[i].scale);
        assert_ptr_equal(money_by_num(known[i].num), ci);
    }
}

static void unknown_codes(void **state)
{
    static const char *const codes[] = {
        "",    "U",   "US",  "USDX", "usd", "Usd", "AAA", "ZZZ", "XAU", "XXX", "XTS",
        "XDR", "USN", "CHE", "BGN",  "ANG", "HRK", "SLL", "ZWL", "CUC", "UYI",
    };

    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        assert_null(money_by_code(str_c(codes[i])));
    assert_null(money_by_code(STR_NONE));
    assert_null(money_by_code(STR("US\0")));
    assert_null(money_by_num(0));
    assert_null(money_by_num(1));
    assert_null(money_by_num(999));
    assert_null(money_by_num(1000));
    assert_null(money_by_num(UINT16_MAX));
}

static void list_is_sorted_and_found(void **state)
{
    unsigned n, zero = 0, three = 0, four = 0, by_num = 0;
    const struct money_currency_info *list = money_list(&n);

    (void)state;
    assert_int_equal(n, 158);
    for (unsigned i = 0; i < n; i++) {
        if (i)
            assert_true(strcmp(list[i - 1].code, list[i].code) < 0);
        assert_in_range(list[i].num, 1, 999);
        assert_ptr_equal(money_by_code(str_c(list[i].code)), &list[i]);
        assert_ptr_equal(money_by_num(list[i].num), &list[i]);
        zero += list[i].scale == 0;
        three += list[i].scale == 3;
        four += list[i].scale == 4;
    }
    assert_int_equal(zero, 16);
    assert_int_equal(three, 7);
    assert_int_equal(four, 2);
    for (unsigned num = 0; num <= UINT16_MAX; num++)
        by_num += money_by_num((money_currency)num) != NULL;
    assert_int_equal(by_num, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_currencies),
        cmocka_unit_test(unknown_codes),
        cmocka_unit_test(list_is_sorted_and_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
