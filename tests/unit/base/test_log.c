#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

enum { THREADS = 4, LINES = 3000 };

static int temp_file(void)
{
    FILE *f = tmpfile();
    int fd = f ? dup(fileno(f)) : -1;

    if (f)
        fclose(f);
    return fd;
}

/* Everything in the file, NUL-terminated; the caller frees it. */
static char *contents(int fd)
{
    off_t n = lseek(fd, 0, SEEK_END);
    char *p = calloc(1, (size_t)n + 1);

    assert_non_null(p);
    assert_int_equal(pread(fd, p, (size_t)n, 0), n);
    return p;
}

/* "ts" differs from run to run: checks its form and returns what follows it. */
static const char *after_time(const char *line)
{
    int64_t us;

    assert_memory_equal(line, "{\"ts\":\"", 7);
    assert_true(time_parse((struct str){line + 7, 27}, &us));
    int64_t age = clock_wall(clock_system()) - us;
    assert_true(age >= 0 && age < 60000000);
    return line + 7 + 27;
}

static void writes_fields_and_escapes(void **state)
{
    int fd = temp_file();

    (void)state;
    assert_true(log_open(fd, LOG_DEBUG));
    assert_false(log_open(fd, LOG_DEBUG));
    log_msg(LOG_INFO, "plain");
    log_msg(LOG_WARN, "say \"hi\"\n\\", LOG_S("host", "a\x01z"), LOG_I("min", INT64_MIN), LOG_I("lag_ms", 0),
            LOG_S("none", NULL), LOG_STR("part", ((struct str){"abcdef", 3})), LOG_S("euro", "\xE2\x82\xAC"),
            LOG_S("bad", "x\xFF\xE2\x82y"));
    log_msg(LOG_DEBUG, "");
    log_close();

    char *all = contents(fd), *save = NULL;
    assert_string_equal(after_time(strtok_r(all, "\n", &save)), "\",\"level\":\"info\",\"msg\":\"plain\"}");
    assert_string_equal(after_time(strtok_r(NULL, "\n", &save)),
                        "\",\"level\":\"warn\",\"msg\":\"say \\\"hi\\\"\\u000a\\\\\",\"host\":\"a\\u0001z\","
                        "\"min\":-9223372036854775808,\"lag_ms\":0,\"none\":null,\"part\":\"abc\","
                        "\"euro\":\"\xE2\x82\xAC\",\"bad\":\"x\\ufffd\\ufffd\\ufffdy\"}");
    assert_string_equal(after_time(strtok_r(NULL, "\n", &save)), "\",\"level\":\"debug\",\"msg\":\"\"}");
    assert_null(strtok_r(NULL, "\n", &save));
    free(all);
    close(fd);
}

static void heeds_the_level(void **state)
{
    int fd = temp_file();
    enum log_level l = LOG_DEBUG;

    (void)state;
    assert_true(log_open(fd, LOG_WARN));
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_WARN));
    log_msg(LOG_INFO, "unheard");
    log_set_level(LOG_DEBUG);
    log_msg(LOG_DEBUG, "heard");
    log_close();
    char *all = contents(fd);
    assert_null(strstr(all, "unheard"));
    assert_non_null(strstr(all, "heard"));
    free(all);
    close(fd);

    assert_true(log_level_parse(STR("error"), &l) && l == LOG_ERROR);
    assert_true(log_level_parse(STR("debug"), &l) && l == LOG_DEBUG);
    assert_false(log_level_parse(STR("ERROR"), &l));
    assert_false(log_level_parse(STR(""), &l));
    assert_int_equal(l, LOG_DEBUG);
}

/* Waits until the file has bytes; how long that took. */
static int64_t time_to_first_byte(int fd)
{
    const struct clock *c = clock_system();
    int64_t start = clock_mono(c);

    while (lseek(fd, 0, SEEK_END) == 0 && clock_mono(c) - start < 5000000)
        usleep(200);
    return clock_mono(c) - start;
}

static void writes_by_itself(void **state)
{
    int fd = temp_file();

    (void)state;
    assert_true(log_open(fd, LOG_INFO));
    log_msg(LOG_INFO, "waits for the period");
    assert_true(time_to_first_byte(fd) < 2000000);
    log_msg(LOG_INFO, "flushed");
    log_flush();
    char *all = contents(fd);
    assert_non_null(strstr(all, "flushed"));
    free(all);
    log_flush();
    log_close();
    log_close();
    log_flush();
    close(fd);
}

/* Whatever the length, a line is at most 16 KiB, ends as JSON does, and is not cut within a character or escape. */
static void cuts_long_lines(void **state)
{
    static char text[20000];
    static const char *const fill[] = {"x", "\"", "\x01", "\xE2\x82\xAC", "\xFF"};

    (void)state;
    for (size_t k = 0; k < 5; k++) {
        for (size_t lead = 0; lead < 7; lead++) {
            int fd = temp_file();
            memset(text, 'a', lead);
            size_t n = lead, step = strlen(fill[k]);
            for (; n + step < sizeof text; n += step)
                memcpy(text + n, fill[k], step);
            assert_true(log_open(fd, LOG_INFO));
            log_msg(LOG_INFO, "long", LOG_STR("a", ((struct str){text, n})), LOG_I("never", 1));
            log_close();
            char *all = contents(fd);
            size_t len = strlen(all);
            assert_in_range(len, 16300, 16384);
            assert_string_equal(all + len - 14, "\",\"cut\":true}\n");
            assert_true(str_utf8_ok(str_c(all)));
            assert_null(strstr(all, "never"));
            const char *p = strstr(all, "\"a\":\"") + 5 + lead, *end = all + len - 14;
            size_t unit = k == 0 ? 1 : k == 1 ? 2 : k == 3 ? 3 : 6;
            assert_int_equal((end - p) % (ptrdiff_t)unit, 0);
            free(all);
            close(fd);
        }
    }
}

/* Many fields, with the edge of the line at every place within a field. */
static void cuts_between_fields(void **state)
{
    static char text[16384];

    (void)state;
    for (size_t n = 16200; n < 16384; n++) {
        int fd = temp_file();
        memset(text, 'a', n);
        assert_true(log_open(fd, LOG_INFO));
        log_msg(LOG_INFO, "m", LOG_STR("a", ((struct str){text, n})), LOG_I("number", -1234567), LOG_S("z", NULL),
                LOG_S("s", "str"), LOG_I("last", 1));
        log_close();
        char *all = contents(fd);
        size_t len = strlen(all);
        assert_true(len <= 16384);
        const char *tail = strchr(strstr(all, "aaa"), '"') + 1;
        static const char *const whole[] = {"",
                                            ",\"number\":-1234567",
                                            ",\"number\":-1234567,\"z\":null",
                                            ",\"number\":-1234567,\"z\":null,\"s\":\"",
                                            ",\"number\":-1234567,\"z\":null,\"s\":\"s",
                                            ",\"number\":-1234567,\"z\":null,\"s\":\"st",
                                            ",\"number\":-1234567,\"z\":null,\"s\":\"str"};
        bool known = strcmp(tail, ",\"number\":-1234567,\"z\":null,\"s\":\"str\",\"last\":1}\n") == 0;
        for (size_t i = 0; i < sizeof whole / sizeof *whole && !known; i++) {
            char want[128];
            snprintf(want, sizeof want, "%s%s,\"cut\":true}\n", whole[i], i > 2 ? "\"" : "");
            known = strcmp(tail, want) == 0;
        }
        if (!known)
            fail_msg("at %zu the line ends in %s", n, tail);
        free(all);
        close(fd);
    }
}

static void *shout(void *arg)
{
    for (int i = 0; i < LINES; i++)
        log_msg(i % 500 ? LOG_INFO : LOG_ERROR, "shout", LOG_I("thread", *(int *)arg), LOG_I("i", i));
    return NULL;
}

static void never_tears_a_line(void **state)
{
    int fd = temp_file(), ids[THREADS], next[THREADS] = {0}, lines = 0;
    pthread_t t[THREADS];
    uint64_t before = log_dropped();

    (void)state;
    assert_true(log_open(fd, LOG_INFO));
    for (int i = 0; i < THREADS; i++) {
        ids[i] = i;
        assert_int_equal(pthread_create(&t[i], NULL, shout, &ids[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    log_close();
    char *all = contents(fd), *save = NULL;
    for (char *l = strtok_r(all, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        int thread, i, end = 0;
        const char *p = strstr(after_time(l), "\"thread\":");
        assert_non_null(p);
        assert_int_equal(sscanf(p, "\"thread\":%d,\"i\":%d}%n", &thread, &i, &end), 2);
        assert_int_equal(p[end], '\0');
        assert_int_equal(i, next[thread]++);
        lines++;
    }
    assert_int_equal(lines, THREADS * LINES);
    assert_true(log_dropped() == before);
    free(all);
    close(fd);
}

/* A reader that takes nothing: the callers go on, the surplus is counted, and closing does not hang. */
static void survives_a_stalled_reader(void **state)
{
    int p[2];
    char text[1024];
    uint64_t before = log_dropped();
    const struct clock *c = clock_system();

    (void)state;
    memset(text, 'x', sizeof text);
    assert_int_equal(pipe(p), 0);
    assert_true(log_open(p[1], LOG_INFO));
    int64_t start = clock_mono(c);
    for (int i = 0; i < 8000; i++)
        log_msg(LOG_INFO, "stalled", LOG_STR("text", ((struct str){text, sizeof text})));
    uint64_t dropped = log_dropped() - before;
    assert_in_range(dropped, 3000, 5000);
    log_close();
    assert_true(clock_mono(c) - start < 30000000);
    /* a pipe holds 64 KiB: all else is counted */
    assert_in_range(log_dropped() - before, 7900, 8000);
    close(p[0]);
    close(p[1]);
}

static void survives_a_bad_descriptor(void **state)
{
    uint64_t before = log_dropped();
    int fd = open("/dev/null", O_RDONLY);

    (void)state;
    assert_true(log_open(fd, LOG_INFO));
    for (int i = 0; i < 10; i++)
        log_msg(LOG_INFO, "lost");
    log_close();
    assert_int_equal(log_dropped() - before, 10);
    close(fd);
}

/* The reader of a pipe has gone: an error like any other, no SIGPIPE. */
static void survives_a_reader_that_left(void **state)
{
    uint64_t before = log_dropped();
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    close(p[0]);
    assert_true(log_open(p[1], LOG_INFO));
    log_msg(LOG_ERROR, "unheard");
    log_close();
    assert_int_equal(log_dropped() - before, 1);
    close(p[1]);
}

/* The disk is full in the middle of a line and has room again later: only that line is lost. */
static void ends_a_torn_line(void **state)
{
    struct rlimit old, small;
    uint64_t before = log_dropped();
    int fd = temp_file();

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = 100, .rlim_max = old.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bool opened = log_open(fd, LOG_INFO);
    log_msg(LOG_INFO, "first");
    log_msg(LOG_INFO, "second");
    log_flush();
    setrlimit(RLIMIT_FSIZE, &old);
    log_msg(LOG_INFO, "third");
    log_close();
    signal(SIGXFSZ, handler);

    assert_true(opened);
    assert_int_equal(log_dropped() - before, 1);
    char *all = contents(fd), *save = NULL;
    assert_string_equal(after_time(strtok_r(all, "\n", &save)), "\",\"level\":\"info\",\"msg\":\"first\"}");
    assert_int_equal(strlen(strtok_r(NULL, "\n", &save)), 100 - strlen(all) - 1);
    assert_string_equal(after_time(strtok_r(NULL, "\n", &save)), "\",\"level\":\"info\",\"msg\":\"third\"}");
    assert_null(strtok_r(NULL, "\n", &save));
    free(all);
    close(fd);
}

/* Outside open and close, lines go to standard error. */
static void falls_back_to_stderr(void **state)
{
    int fd = temp_file(), saved = dup(STDERR_FILENO);

    (void)state;
    fflush(stderr);
    dup2(fd, STDERR_FILENO);
    log_set_level(LOG_INFO);
    log_msg(LOG_INFO, "before", LOG_I("n", 1));
    dup2(saved, STDERR_FILENO);
    close(saved);
    char *all = contents(fd);
    assert_string_equal(after_time(all), "\",\"level\":\"info\",\"msg\":\"before\",\"n\":1}\n");
    free(all);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(falls_back_to_stderr),      cmocka_unit_test(writes_fields_and_escapes),
        cmocka_unit_test(heeds_the_level),           cmocka_unit_test(writes_by_itself),
        cmocka_unit_test(cuts_long_lines),           cmocka_unit_test(cuts_between_fields),
        cmocka_unit_test(never_tears_a_line),        cmocka_unit_test(survives_a_stalled_reader),
        cmocka_unit_test(survives_a_bad_descriptor), cmocka_unit_test(survives_a_reader_that_left),
        cmocka_unit_test(ends_a_torn_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
