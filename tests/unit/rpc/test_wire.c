/* The bytes of gRPC, without a connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>
#include <echo.pb-c.h>

#include "base/rand.h"
#include "rpc/loop.h"
#include "rpc/wire.h"

static void expect_timeout(const char *text, int64_t us)
{
    int64_t got = -1;
    assert_true(wire_timeout(str_c(text), &got));
    assert_int_equal(got, us);
}

static void test_timeouts(void **state)
{
    (void)state;
    expect_timeout("1H", 3600000000);
    expect_timeout("2M", 120000000);
    expect_timeout("3S", 3000000);
    expect_timeout("4m", 4000);
    expect_timeout("5u", 5);
    expect_timeout("6n", 1); /* rounded up: 0 would be over at once */
    expect_timeout("0m", 0);
    expect_timeout("99999999H", 359999996400000000);
    static const char *const bad[] = {"", "1", "S", "-1S", "1.5S", "1s", "123456789S", " 1S", "1S ", "1SS", "+1S"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t us;
        assert_false(wire_timeout(str_c(bad[i]), &us));
    }
    static const int64_t values[] = {0, 1, 999, 99999999, 100000000, 123456789012, 359999996400000000};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char out[WIRE_TIMEOUT_MAX];
        int64_t back;
        assert_true(wire_timeout((struct str){out, wire_timeout_put(values[i], out)}, &back));
        assert_true(back >= values[i] && back <= values[i] + values[i] / 1000); /* up, and by little */
    }
}

static void expect_escape(struct str s, const char *escaped)
{
    struct buf b;
    buf_init(&b, 0);
    wire_escape(&b, s);
    assert_int_equal(b.n, strlen(escaped));
    assert_memory_equal(b.p, escaped, b.n);
    assert_int_equal(wire_unescape(b.p, b.n), s.n);
    assert_memory_equal(b.p, s.p, s.n);
    buf_free(&b);
}

static void test_text(void **state)
{
    (void)state;
    expect_escape(STR("plain ~ text"), "plain ~ text");
    expect_escape(STR("100%\r\n"), "100%25%0D%0A");
    expect_escape(STR("gr\xc3\xbc\xc3\x9f"), "gr%C3%BC%C3%9F");
    char odd[] = "%4 %zz %";
    assert_int_equal(wire_unescape(odd, 8), 8);
    assert_string_equal(odd, "%4 %zz %");
    assert_int_equal(wire_cut(STR("ab\xc3\xbc"), 3).n, 2);
    assert_int_equal(wire_cut(STR("ab\xc3\xbc"), 4).n, 4);
    assert_int_equal(wire_cut(STR("abcdef"), 3).n, 3);
}

static void test_ids(void **state)
{
    (void)state;
    assert_true(wire_traceparent_ok(STR("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")));
    assert_false(wire_traceparent_ok(STR("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0")));
    assert_false(wire_traceparent_ok(STR("00-00000000000000000000000000000000-00f067aa0ba902b7-01")));
    assert_false(wire_traceparent_ok(STR("00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")));
    assert_true(wire_request_id_ok(STR("a-B_9.x")));
    assert_false(wire_request_id_ok(STR("")));
    assert_false(wire_request_id_ok(STR("a b")));
    assert_false(wire_request_id_ok(STR("0123456789012345678901234567890123456789012345678901234567890123x")));
}

/* Every way to cut the bytes gives the same messages. */
static void test_frames(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0, 0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'd'};
    for (size_t step = 1; step <= sizeof bytes; step++) {
        struct frame_in f = {0};
        char seen[16] = "";
        size_t n_seen = 0;
        for (size_t at = 0; at < sizeof bytes; at += step) {
            const uint8_t *p = bytes + at;
            size_t n = sizeof bytes - at < step ? sizeof bytes - at : step;
            do {
                enum frame_result r = frame_feed(&f, &p, &n, 3);
                assert_true(r == FRAME_READY || r == FRAME_MORE);
                if (r == FRAME_READY) {
                    memcpy(seen + n_seen, f.body.p ? f.body.p : "", f.body.n);
                    n_seen += f.body.n;
                    seen[n_seen++] = '|';
                    frame_next(&f);
                }
            } while (n > 0);
        }
        assert_memory_equal(seen, "abc||d|", 7);
        assert_false(frame_partial(&f));
        buf_free(&f.body);
    }
    static const struct {
        uint8_t bytes[5];
        enum frame_result expect;
    } bad[] = {{{1, 0, 0, 0, 1}, FRAME_COMPRESSED},
               {{2, 0, 0, 0, 1}, FRAME_BAD_FLAG},
               {{0, 0, 0, 0, 4}, FRAME_TOO_LARGE},
               {{0, 0xff, 0xff, 0xff, 0xff}, FRAME_TOO_LARGE}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct frame_in f = {0};
        const uint8_t *p = bad[i].bytes;
        size_t n = 5;
        assert_int_equal(frame_feed(&f, &p, &n, 3), bad[i].expect);
        assert_int_equal(f.body.cap, 0); /* nothing is set aside for what is only announced */
    }
}

static enum wire_result check(const char *p, size_t n)
{
    return wire_check(&echo__v1__ask__descriptor, (struct str){p, n});
}
#define CHECKED(lit) check("" lit, sizeof(lit) - 1)

static void test_messages(void **state)
{
    (void)state;
    assert_int_equal(CHECKED(""), WIRE_OK);
    assert_int_equal(CHECKED("\x0a\x02hi\x18\x05"), WIRE_OK);
    assert_int_equal(CHECKED("\x0a\x02h\0"), WIRE_TEXT); /* protobuf-c would read "h" */
    assert_int_equal(CHECKED("\x0a\x02h\xff"), WIRE_TEXT);
    assert_int_equal(CHECKED("\x12\x02h\xff"), WIRE_OK);            /* bytes may be anything */
    assert_int_equal(CHECKED("\x3a\x01\xff"), WIRE_TEXT);           /* in a list */
    assert_int_equal(CHECKED("\x32\x03\x0a\x01\xff"), WIRE_TEXT);   /* and inside */
    assert_int_equal(CHECKED("\xfa\x3f\x03\xff\xff\xff"), WIRE_OK); /* unknown field 1023 */
    assert_int_equal(CHECKED("\x0a\x05hi"), WIRE_MALFORMED);
    assert_int_equal(CHECKED("\x0a"), WIRE_MALFORMED);
    assert_int_equal(CHECKED("\x00\x01"), WIRE_MALFORMED); /* field 0 */
    assert_int_equal(CHECKED("\x0b\x0c"), WIRE_MALFORMED); /* groups */
    assert_int_equal(CHECKED("\x0f"), WIRE_MALFORMED);     /* wire type 7 */
    assert_int_equal(CHECKED("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), WIRE_MALFORMED);
    assert_int_equal(CHECKED("\x0d\x01\x02\x03"), WIRE_MALFORMED);
    char deep[2 * WIRE_DEPTH_MAX];
    for (size_t depth = 1; depth <= WIRE_DEPTH_MAX; depth++) { /* so many messages inside the first */
        memmove(deep + 2, deep, 2 * depth - 2);
        deep[0] = 0x32;
        deep[1] = (char)(2 * depth - 2);
        assert_int_equal(check(deep, 2 * depth), depth < WIRE_DEPTH_MAX ? WIRE_OK : WIRE_DEEP);
    }
    struct arena a;
    arena_init(&a, NULL, 0, 4096);
    Echo__V1__Ask *q = (Echo__V1__Ask *)wire_unpack(&echo__v1__ask__descriptor, STR("\x0a\x02hi\x18\x05"), &a);
    assert_non_null(q);
    assert_string_equal(q->text, "hi");
    assert_int_equal(q->delay_ms, 5);
    arena_reset(&a);
    arena_init(&a, NULL, 0, 16);
    assert_null(wire_unpack(&echo__v1__ask__descriptor, STR("\x0a\x02hi"), &a));
    arena_reset(&a);
}

/* ---- timers, against a plain array */

enum { TIMERS = 500 };

static struct fired {
    struct timer timer;
    int fired;
} timers[TIMERS];
static int64_t last_at;

static void fire(struct timer *t)
{
    struct fired *f = (struct fired *)t;
    assert_true(t->at >= last_at); /* in order */
    last_at = t->at;
    f->fired++;
}

static void test_timers(void **state)
{
    struct loop l;
    uint64_t seed = rand_u64(), r = seed;
    int64_t at[TIMERS] = {0};
    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    assert_true(loop_init(&l, clock_system()));
    for (int i = 0; i < TIMERS; i++)
        timers[i].timer.fire = fire;
    for (int i = 0; i < 20000; i++) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        unsigned k = (unsigned)(r >> 40) % TIMERS;
        if (r >> 62) {
            at[k] = 1 + (int64_t)((r >> 33) % 1000);
            loop_timer_set(&l, &timers[k].timer, at[k]);
        } else {
            at[k] = 0;
            loop_timer_clear(&l, &timers[k].timer);
        }
    }
    loop_step(&l, 0); /* all are in the past */
    for (int i = 0; i < TIMERS; i++)
        assert_int_equal(timers[i].fired, at[i] != 0);
    assert_null(l.timers);
    loop_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timeouts), cmocka_unit_test(test_text),     cmocka_unit_test(test_ids),
        cmocka_unit_test(test_frames),   cmocka_unit_test(test_messages), cmocka_unit_test(test_timers),
    };
    return cmocka_run_group_tests_name("rpc/wire", tests, NULL, NULL);
}
