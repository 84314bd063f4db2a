#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "codec/uuid.h"

enum { UUIDS = 2000 };

static const int64_t WALL = 0x017F22E279B0 * (int64_t)1000 + 999; /* RFC 9562, appendix A.6 */

static uint64_t be(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static void lays_out_version_7(void **state)
{
    struct uuid all[UUIDS];
    uint64_t a_or = 0, a_and = ~(uint64_t)0, b_or = 0, b_and = ~(uint64_t)0;

    (void)state;
    for (size_t i = 0; i < UUIDS; i++) {
        all[i] = uuid_v7(WALL);
        assert_true(be(all[i].b, 6) == 0x017F22E279B0);
        assert_int_equal(all[i].b[6] >> 4, 7);
        assert_int_equal(all[i].b[8] >> 6, 2);
        a_or |= be(all[i].b + 6, 2);
        a_and &= be(all[i].b + 6, 2);
        b_or |= be(all[i].b + 8, 8);
        b_and &= be(all[i].b + 8, 8);
        for (size_t k = 0; k < i; k++)
            assert_false(uuid_eq(&all[i], &all[k]));
    }
    /* every other bit takes both values */
    assert_true((a_or & 0xfff) == 0xfff && (a_and & 0xfff) == 0);
    assert_true(b_or == 0xBFFFFFFFFFFFFFFFu && b_and == (uint64_t)1 << 63);
}

static void carries_the_sequence_number(void **state)
{
    static const int64_t seqs[] = {0, 1, 255, 1234567890123, ((int64_t)1 << 46) - 1};

    (void)state;
    for (size_t i = 0; i < sizeof seqs / sizeof *seqs; i++) {
        uint64_t all_or = 0, all_and = ~(uint64_t)0, a_or = 0, a_and = ~(uint64_t)0, xor_or = 0;
        for (int k = 0; k < 500; k++) {
            struct uuid u = uuid_v7_seq(WALL, seqs[i]);
            assert_true(uuid_seq(&u) == seqs[i]);
            assert_true(be(u.b, 6) == 0x017F22E279B0);
            assert_int_equal(u.b[6] >> 4, 7);
            assert_int_equal(u.b[8] >> 6, 2);
            all_or |= be(u.b + 8, 8) >> 46;
            all_and &= be(u.b + 8, 8) >> 46;
            a_or |= be(u.b + 6, 2);
            a_and &= be(u.b + 6, 2);
            xor_or |= be(u.b + 6, 2) ^ be(u.b + 8, 8) >> 46;
        }
        assert_true((xor_or & 0xfff) == 0xfff);
        /* the 28 bits that keep it from being guessed */
        assert_true((all_or & 0xffff) == 0xffff && (all_and & 0xffff) == 0);
        assert_true((a_or & 0xfff) == 0xfff && (a_and & 0xfff) == 0);
    }
}

static void formats_and_parses(void **state)
{
    char out[UUID_TEXT_LEN + 1];
    struct uuid u, v;

    (void)state;
    assert_true(uuid_parse(STR("017F22E2-79B0-7CC3-98C4-DC0C0C07398F"), &u));
    assert_true(be(u.b, 8) == 0x017F22E279B07CC3u && be(u.b + 8, 8) == 0x98C4DC0C0C07398Fu);
    uuid_format(&u, out);
    assert_string_equal(out, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    assert_true(uuid_parse((struct str){out, UUID_TEXT_LEN}, &v));
    assert_true(uuid_eq(&u, &v));
    assert_true(uuid_parse(STR("00000000-0000-0000-0000-000000000000"), &v));
    assert_false(uuid_eq(&u, &v));
    for (int i = 0; i < 100; i++) {
        u = uuid_v7(WALL + i * (int64_t)1000);
        uuid_format(&u, out);
        assert_true(uuid_parse((struct str){out, UUID_TEXT_LEN}, &v));
        assert_true(uuid_eq(&u, &v));
    }
}

static void refuses_other_forms(void **state)
{
    static const char good[] = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
    static const char bad[] = "gG-/:@`\x80 \x10";
    struct uuid u;

    (void)state;
    memset(&u, 0xEE, sizeof u);
    for (size_t i = 0; i < UUID_TEXT_LEN; i++) {
        for (const char *c = bad; *c; c++) {
            char text[UUID_TEXT_LEN];
            memcpy(text, good, UUID_TEXT_LEN);
            if (text[i] == *c)
                continue;
            text[i] = *c;
            assert_false(uuid_parse((struct str){text, UUID_TEXT_LEN}, &u));
        }
        assert_false(uuid_parse((struct str){good, i}, &u));
    }
    assert_false(uuid_parse(STR_NONE, &u));
    assert_false(uuid_parse(STR("017f22e279b07cc398c4dc0c0c07398f"), &u));
    assert_false(uuid_parse(STR("{17f22e2-79b0-7cc3-98c4-dc0c0c07398}"), &u));
    assert_false(uuid_parse(STR("017f22e2-79b0-7cc3-98c4-dc0c0c07398f0"), &u));
    assert_false(uuid_parse(STR("017f22e27-9b0-7cc3-98c4-dc0c0c07398f"), &u));
    assert_int_equal(u.b[0], 0xEE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lays_out_version_7),
        cmocka_unit_test(carries_the_sequence_number),
        cmocka_unit_test(formats_and_parses),
        cmocka_unit_test(refuses_other_forms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
