#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/buf.h"

static void appends(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    buf_put(&b, NULL, 0);
    buf_put(&b, "ab", 2);
    buf_putc(&b, 'c');
    buf_puts(&b, "de");
    buf_str(&b, STR("f"));
    buf_str(&b, STR_NONE);
    buf_u64(&b, UINT64_MAX);
    buf_putc(&b, ' ');
    buf_i64(&b, INT64_MIN);
    buf_putc(&b, ' ');
    buf_i64(&b, 0);
    buf_printf(&b, " %s-%d", "x", 7);
    assert_true(str_is(buf_as_str(&b), "abcdef18446744073709551615 -9223372036854775808 0 x-7"));
    assert_false(b.failed);
    buf_free(&b);
    buf_free(&b);
    assert_null(b.p);
}

static void grows(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    for (int i = 0; i < 100000; i++)
        buf_putc(&b, (char)('a' + i % 26));
    assert_int_equal(b.n, 100000);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(b.p[i], 'a' + i % 26);
    const char *p = b.p;
    buf_clear(&b);
    assert_int_equal(b.n, 0);
    buf_puts(&b, "again");
    assert_ptr_equal(b.p, p);
    buf_free(&b);
}

static void prints_more_than_its_scratch(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    buf_printf(&b, "<%0300d>", 7);
    assert_int_equal(b.n, 302);
    assert_int_equal(b.p[0], '<');
    assert_int_equal(b.p[300], '7');
    assert_int_equal(b.p[301], '>');
    buf_free(&b);
}

static void error_sticks(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 8);
    buf_puts(&b, "12345678");
    assert_false(b.failed);
    buf_putc(&b, '9');
    assert_true(b.failed);
    assert_false(buf_reserve(&b, 0));
    buf_clear(&b);
    buf_puts(&b, "1234");
    buf_puts(&b, "56789");
    assert_true(b.failed);
    buf_putc(&b, '5');
    assert_true(str_is(buf_as_str(&b), "1234"));
    size_t n = 99;
    assert_null(buf_take(&b, &n));
    assert_int_equal(n, 99);
    assert_false(b.failed);
    assert_null(b.p);

    buf_puts(&b, "1234567");
    buf_u64(&b, 7);
    assert_false(b.failed);
    buf_i64(&b, -7);
    assert_true(b.failed);
    buf_free(&b);

    buf_init(&b, 0);
    assert_false(buf_reserve(&b, SIZE_MAX - 1));
    assert_true(b.failed);
    buf_free(&b);
}

static void gives_away(void **state)
{
    struct buf b;
    size_t n = 0;
    char *p;

    (void)state;
    buf_init(&b, 100);
    buf_puts(&b, "abc");
    p = buf_take(&b, &n);
    assert_int_equal(n, 3);
    assert_memory_equal(p, "abc", 3);
    assert_int_equal(b.limit, 100);
    assert_int_equal(b.n, 0);
    free(p);
    p = buf_take(&b, &n);
    assert_non_null(p);
    assert_int_equal(n, 0);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends),      cmocka_unit_test(grows),      cmocka_unit_test(prints_more_than_its_scratch),
        cmocka_unit_test(error_sticks), cmocka_unit_test(gives_away),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
