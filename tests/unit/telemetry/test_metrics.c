#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <pthread.h>

#include "telemetry/metrics.h"

static char *render(struct metrics *m)
{
    struct buf b = {0};
    metrics_render(m, &b);
    buf_putc(&b, '\0');
    assert_false(b.failed);
    size_t n;
    return buf_take(&b, &n);
}

static void test_counter_and_gauge(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    struct metric_counter *c = metric_counter(m, "b_total", "Things.", "kind=\"x\"");
    metric_inc(c, 2);
    metric_inc(c, 40);
    assert_int_equal(metric_counter_value(c), 42);
    assert_ptr_equal(c, metric_counter(m, "b_total", "Things.", "kind=\"x\""));
    assert_ptr_not_equal(c, metric_counter(m, "b_total", "Things.", "kind=\"a\""));
    struct metric_gauge *g = metric_gauge(m, "a_now", "Line one\nback\\slash.", "");
    metric_set(g, 7);
    metric_add(g, -9);
    assert_int_equal(metric_gauge_value(g), -2);
    char *text = render(m);
    assert_string_equal(text, "# HELP a_now Line one\\nback\\\\slash.\n# TYPE a_now gauge\na_now -2\n"
                              "# HELP b_total Things.\n# TYPE b_total counter\n"
                              "b_total{kind=\"a\"} 0\nb_total{kind=\"x\"} 42\n");
    free(text);
    metrics_free(m);
}

static void test_histogram(void **state)
{
    (void)state;
    static const int64_t bounds[] = {50, 1000, 2500000};
    struct metrics *m = metrics_new();
    struct metric_histogram *h = metric_histogram(m, "t_seconds", "Time.", "r=\"/\"", bounds, 3, 1000000);
    assert_int_equal(metric_histogram_quantile(h, 500), 0);
    metric_observe(h, 50); /* a bound belongs to its bucket */
    metric_observe(h, 51);
    metric_observe(h, 1000);
    metric_observe(h, 3000000);
    assert_int_equal(metric_histogram_count(h), 4);
    assert_int_equal(metric_histogram_sum(h), 3001101);
    assert_int_equal(metric_histogram_quantile(h, 250), 50);
    assert_int_equal(metric_histogram_quantile(h, 251), 1000);
    assert_int_equal(metric_histogram_quantile(h, 750), 1000);
    assert_int_equal(metric_histogram_quantile(h, 999), 2500000);
    char *text = render(m);
    assert_string_equal(text, "# HELP t_seconds Time.\n# TYPE t_seconds histogram\n"
                              "t_seconds_bucket{r=\"/\",le=\"0.00005\"} 1\n"
                              "t_seconds_bucket{r=\"/\",le=\"0.001\"} 3\n"
                              "t_seconds_bucket{r=\"/\",le=\"2.5\"} 3\n"
                              "t_seconds_bucket{r=\"/\",le=\"+Inf\"} 4\n"
                              "t_seconds_sum{r=\"/\"} 3.001101\n"
                              "t_seconds_count{r=\"/\"} 4\n");
    free(text);
    metrics_free(m);
}

static void test_bounds_ascend(void **state)
{
    (void)state;
    assert_int_equal(metric_bounds_us[0], 50);
    assert_int_equal(metric_bounds_us[metric_bounds_us_n - 1], 10000000);
    assert_int_equal(metric_bounds_pow2[0], 1);
    assert_int_equal(metric_bounds_pow2[metric_bounds_pow2_n - 1], 65536);
    for (unsigned i = 1; i < metric_bounds_us_n; i++)
        assert_true(metric_bounds_us[i - 1] < metric_bounds_us[i]);
    for (unsigned i = 1; i < metric_bounds_pow2_n; i++)
        assert_int_equal(metric_bounds_pow2[i], 2 * metric_bounds_pow2[i - 1]);
}

static int64_t from_ctx(void *ctx)
{
    return *(int64_t *)ctx;
}

static void test_functions(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    int64_t a = 1500000, b = -250;
    metric_gauge_fn(m, "f_seconds", "F.", "", from_ctx, &a, 1000000);
    metric_gauge_fn(m, "g_ratio", "G.", "", from_ctx, &b, 1000);
    metric_counter_fn(m, "h_total", "H.", "x=\"1\"", from_ctx, &a, 1);
    char *text = render(m);
    assert_non_null(strstr(text, "\nf_seconds 1.5\n"));
    assert_non_null(strstr(text, "\ng_ratio -0.25\n"));
    assert_non_null(strstr(text, "# TYPE h_total counter\nh_total{x=\"1\"} 1500000\n"));
    free(text);
    metric_gauge_fn(m, "f_seconds", "F.", "", from_ctx, &b, 1000000);
    text = render(m);
    assert_non_null(strstr(text, "\nf_seconds -0.00025\n"));
    assert_null(strstr(text, "1.5"));
    free(text);
    metrics_free(m);
}

static void test_label(void **state)
{
    (void)state;
    struct buf b = {0};
    metric_label(&b, STR("a\\b\"c\nd\xc3\xa9"));
    assert_int_equal(b.n, strlen("a\\\\b\\\"c\\nd\xc3\xa9"));
    assert_memory_equal(b.p, "a\\\\b\\\"c\\nd\xc3\xa9", b.n);
    buf_free(&b);
}

static void test_wrong_kind_is_not_shown(void **state)
{
    (void)state;
    static const int64_t bounds[] = {1};
    struct metrics *m = metrics_new();
    metric_inc(metric_counter(m, "x_total", "X.", ""), 1);
    metric_set(metric_gauge(m, "x_total", "X.", ""), 99);
    metric_observe(metric_histogram(m, "x_total", "X.", "", bounds, 1, 1), 99);
    char *text = render(m);
    assert_string_equal(text, "# HELP x_total X.\n# TYPE x_total counter\nx_total 1\n");
    free(text);
    metrics_free(m);
}

static void test_series_max(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    char label[32];
    for (int i = 0; i < METRICS_SERIES_MAX; i++) {
        snprintf(label, sizeof label, "i=\"%05d\"", i);
        metric_inc(metric_counter(m, "many_total", "Many.", label), 1);
    }
    struct metric_counter *a = metric_counter(m, "many_total", "Many.", "i=\"x\"");
    struct metric_counter *b = metric_counter(m, "other_total", "Other.", "");
    assert_ptr_equal(a, b);
    metric_inc(a, 5);
    static const int64_t bounds[] = {1, 2};
    struct metric_histogram *h = metric_histogram(m, "h", "H.", "", bounds, 2, 1);
    metric_observe(h, 1);
    assert_int_equal(metric_histogram_quantile(h, 500), 0);
    /* those that exist are still found */
    assert_int_equal(metric_counter_value(metric_counter(m, "many_total", "Many.", "i=\"08191\"")), 1);
    char *text = render(m);
    assert_non_null(strstr(text, "many_total{i=\"08191\"} 1\n"));
    assert_null(strstr(text, "i=\"x\""));
    assert_null(strstr(text, "other_total"));
    free(text);
    metrics_free(m);
}

struct hammer {
    struct metrics *m;
    struct metric_histogram *h;
};

static void *hammer(void *arg)
{
    static const int64_t bounds[] = {10, 100};
    struct hammer *x = arg;
    for (int i = 0; i < 20000; i++) {
        metric_observe(x->h, i % 200);
        metric_inc(metric_counter(x->m, "c_total", "C.", i % 2 ? "o=\"1\"" : "o=\"0\""), 1);
        if (i % 5000 == 0) {
            metric_histogram(x->m, "h2", "H.", "", bounds, 2, 1);
            free(render(x->m));
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    static const int64_t bounds[] = {10, 100};
    struct hammer x = {.m = metrics_new()};
    x.h = metric_histogram(x.m, "h", "H.", "", bounds, 2, 1);
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, hammer, &x), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(metric_histogram_count(x.h), 80000);
    assert_int_equal(metric_histogram_sum(x.h), 4 * 100 * (199 * 200 / 2));
    assert_int_equal(metric_counter_value(metric_counter(x.m, "c_total", "C.", "o=\"1\"")), 40000);
    metrics_free(x.m);
}

static double value_of(const char *text, const char *line)
{
    const char *at = strstr(text, line);
    assert_non_null(at);
    return strtod(at + strlen(line), NULL);
}

static void test_process(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    metrics_add_process(m);
    metrics_add_process(m);
    char *text = render(m);
    assert_true(value_of(text, "\nprocess_resident_memory_bytes ") > 100000);
    assert_true(value_of(text, "\nprocess_cpu_seconds_total ") > 0);
    assert_true(value_of(text, "\nprocess_open_fds ") >= 3);
    assert_true(value_of(text, "\nprocess_threads ") >= 1);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double started = value_of(text, "\nprocess_start_time_seconds ");
    assert_true(started <= (double)now.tv_sec + 1 && started > (double)now.tv_sec - 3600);
    const char *first = strstr(text, "# TYPE process_open_fds");
    assert_non_null(first);
    assert_null(strstr(first + 1, "# TYPE process_open_fds"));
    free(text);
    metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counter_and_gauge),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_bounds_ascend),
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_label),
        cmocka_unit_test(test_wrong_kind_is_not_shown),
        cmocka_unit_test(test_series_max),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
