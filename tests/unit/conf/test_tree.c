/* The maps of the file: consul_config, resilience4j, retry, fallback, load_balancer. */
#include "support.h"

#define INSTANCE "resilience4j.circuitbreaker.instances.database."

static void every_kind_of_value_is_read(void **state)
{
    (void)state;
    expect_ok(load_yaml_text("resilience4j:\n"
                             "  circuitbreaker:\n"
                             "    instances:\n"
                             "      database:\n"
                             "        slidingWindowType: TIME_BASED\n"
                             "        slidingWindowSize: 100\n"
                             "        failureRateThreshold: 50\n"
                             "        slowCallDurationThreshold: 250ms\n"
                             "        waitDurationInOpenState: 60000\n"
                             "      redis: {slidingWindowSize: 5}\n"
                             "retry: {maxAttempts: 4, backoffPeriod: 100, maxBackoffPeriod: 2s, deadline: 1m}\n"
                             "fallback: {shouldCache: false, cacheTimeout: 1h, defaultResponse: '{\"data\":[]}'}\n"
                             "load_balancer:\n"
                             "  algorithm: least_connections\n"
                             "  backends:\n"
                             "    - {name: a, url: 'http://a:1', weight: 0}\n"
                             "    - {name: b, url: 'http://b:1'}\n"));
    assert_int_equal(conf_tree_number(&conf, INSTANCE "slidingWindowType", 0), 1);
    assert_int_equal(conf_tree_number(&conf, INSTANCE "slidingWindowSize", 1), 100);
    assert_int_equal(conf_tree_number(&conf, INSTANCE "failureRateThreshold", 1), 50);
    assert_int_equal(conf_tree_number(&conf, INSTANCE "slowCallDurationThreshold", 1), 250000);
    assert_int_equal(conf_tree_number(&conf, INSTANCE "waitDurationInOpenState", 1), 60000000);
    assert_int_equal(conf_tree_number(&conf, INSTANCE "minimumNumberOfCalls", 7), 7); /* not given */
    assert_int_equal(conf_tree_number(&conf, "retry.maxAttempts", 1), 4);
    assert_int_equal(conf_tree_number(&conf, "retry.backoffPeriod", 1), 100000);
    assert_int_equal(conf_tree_number(&conf, "retry.maxBackoffPeriod", 1), 2000000);
    assert_int_equal(conf_tree_number(&conf, "retry.deadline", 1), 60000000);
    assert_int_equal(conf_tree_number(&conf, "fallback.shouldCache", 1), 0);
    assert_int_equal(conf_tree_number(&conf, "fallback.cacheTimeout", 1), INT64_C(3600000000));
    assert_string_equal(conf_tree(&conf, "fallback.defaultResponse"), "{\"data\":[]}");
    assert_int_equal(conf_tree_number(&conf, "load_balancer.algorithm", 0), 1);
    assert_int_equal(conf_tree_number(&conf, "load_balancer.backends.0.weight", 1), 0);
    assert_string_equal(conf_tree(&conf, "load_balancer.backends.1.url"), "http://b:1");
    assert_null(conf_tree(&conf, "load_balancer.backends.2.url"));
    char name[CONF_TREE_NAME];
    size_t pos = 0;
    assert_true(conf_tree_child(&conf, "resilience4j.circuitbreaker.instances", &pos, name));
    assert_string_equal(name, "database");
    assert_true(conf_tree_child(&conf, "resilience4j.circuitbreaker.instances", &pos, name));
    assert_string_equal(name, "redis");
    assert_false(conf_tree_child(&conf, "resilience4j.circuitbreaker.instances", &pos, name));
}

static void what_is_wrong_is_refused_in_one_line(void **state)
{
    static const char *const wrong[][2] = {
        {"retry: 3", "must be a map"},
        {"retry:", "must be a map"},
        {"retry: [1]", "must be a map"},
        {"retry: {maxAttempt: 3}", "unknown key \"retry.maxAttempt\""},
        {"retry: {maxAttempts: }", "must be a whole number"},
        {"retry: {maxAttempts: 0}", "must be a whole number from 1 to 100"},
        {"retry: {maxAttempts: 101}", "must be a whole number from 1 to 100"},
        {"retry: {maxAttempts: 1e2}", "must be a whole number"},
        {"retry: {maxAttempts: 3, maxAttempts: 3}", "set twice"},
        {"retry: {backoffPeriod: 1 s}", "must be a time"},
        {"retry: {backoffPeriod: 9999999h}", "must be a time"},
        {"consul_config: {services: {a: {checks: [{interval: 999ms}]}}}", "must be a time of at least 1000 ms"},
        {"retry: {? [a] : 1}", "a plain name"},
        {"retry: {a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}}", "f0.yaml:1"},
        {"fallback: {shouldCache: perhaps}", "true or false"},
        {"resilience4j: {instances: {database: {slidingWindowSize: 1}}}", "unknown key"},
        {"resilience4j: {circuitbreaker: {instances: {database: {failureRateThreshold: 101}}}}", "from 1 to 100"},
        {"resilience4j: {circuitbreaker: {instances: {database: {slidingWindowType: both}}}}", "one of"},
        {"load_balancer: {algorithm: best}", "one of round_robin|least_connections|random"},
        {"load_balancer: {backends: {name: a}}", "unknown key"},
        {"retry: &x {jitter: 1}\nfallback: *x", "must be a map"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        expect_refused(load_yaml_text(wrong[i][0]), wrong[i][1]);
}

static void collect(void *ctx, const char *p, size_t n)
{
    char *all = ctx;
    size_t at = strlen(all);
    assert_true(at + n < 65536);
    memcpy(all + at, p, n);
    all[at + n] = '\0';
}

static void print_shows_them(void **state)
{
    static char text[65536];
    (void)state;
    expect_ok(load_yaml_text("port: 1\nretry:\n  maxAttempts: 3\n"));
    text[0] = '\0';
    conf_print(&conf, false, collect, text);
    assert_non_null(strstr(text, "\nretry.maxAttempts    3 "));
    assert_non_null(strstr(text, "f0.yaml:3\n"));
    text[0] = '\0';
    conf_print(&conf, true, collect, text);
    assert_non_null(strstr(text, "\"retry.maxAttempts\":{\"value\":\"3\",\"origin\":"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_value_is_read),
        cmocka_unit_test(what_is_wrong_is_refused_in_one_line),
        cmocka_unit_test(print_shows_them),
    };
    return cmocka_run_group_tests_name("conf/tree", tests, scratch_make, scratch_drop);
}
