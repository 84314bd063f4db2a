/* The Consul engine against a scripted server: its index rules, faults, lists that one would not expect, and our own
 * registrations. What all engines share, and a real agent, is tests/contract/test_registry.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "contract/registry_kit.h"
#include "registry/consul/consul.h"
#include "support/fake_consul.h"

#define ONE(id, port)                                                                                                  \
    "{\"Node\":{\"Node\":\"n1\",\"Address\":\"10.0.0.1\"},\"Service\":{\"ID\":\"" id                                   \
    "\",\"Service\":\"web\",\"Address\":\"10.0.0.2\",\"Port\":" #port ",\"Tags\":[],\"Weights\":{\"Passing\":3,"       \
    "\"Warning\":1}},\"Checks\":[{\"Status\":\"passing\"}]}"
#define HEARD(id, port) id " 10.0.0.2:" #port " 3 passing;"

static struct registry *registry;
static struct seen *seen;
static char why[256];

static struct registry_consul_options options(void)
{
    static char address[64];
    snprintf(address, sizeof address, "http://127.0.0.1:%d/", fake_consul_port());
    return (struct registry_consul_options){.address = address,
                                            .token = "sesame-open",
                                            .keep_ms = 100,
                                            .call_ms = 500,
                                            .backoff_ms = 20,
                                            .backoff_max_ms = 200,
                                            .doubt_ms = 1500,
                                            .leave_ms = 500};
}

static struct registry *open_with(struct registry_consul_options o)
{
    struct registry *r = NULL;
    assert_int_equal(registry_consul_open(&o, &r, why), PFE_OK);
    return r;
}

static int setup(void **state)
{
    (void)state;
    fake_consul_start(NULL);
    seen = seen_new();
    registry = open_with(options());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    registry_close(registry);
    fake_consul_stop();
    seen_free(seen);
    return 0;
}

static void watch(void)
{
    assert_int_equal(registry_watch(registry, "web", seen_changed, seen), PFE_OK);
}

struct request {
    const char *begin, *holds;
    unsigned count; /* more than so many */
};

static bool was_asked(void *ctx)
{
    const struct request *r = ctx;
    char text[65536];
    fake_consul_last(r->begin, text, sizeof text);
    return fake_consul_count(r->begin) > r->count && strstr(text, r->holds);
}

/* Until the last request that begins so, behind `count` others, holds a text. */
static bool asked(const char *begin, unsigned count, const char *holds)
{
    struct request r = {begin, holds, count};
    return wait_until(was_asked, &r, 15);
}

static bool is_reachable(void *ctx)
{
    struct registry_figures f;
    registry_figures(registry, &f);
    return f.reachable == *(bool *)ctx;
}

static bool reachable(bool yes)
{
    return wait_until(is_reachable, &yes, 15);
}

#define QUERY "GET /v1/health/"

/* ---- indexes */

static void a_query_waits_behind_the_last_index(void **state)
{
    (void)state;
    fake_consul_list(7, "[" ONE("a", 1) "]");
    watch();
    assert_true(seen_wait(seen, HEARD("a", 1), 10));
    assert_true(asked(QUERY, 1, "/web?index=7&wait=30s "));
    assert_true(asked(QUERY, 0, "\r\nX-Consul-Token: sesame-open\r\n"));
    fake_consul_list(9, "[" ONE("b", 2) "," ONE("a", 1) "]");
    assert_true(seen_wait(seen, HEARD("a", 1) HEARD("b", 2), 10));
    assert_true(asked(QUERY, 2, "index=9&"));
    fake_consul_list(12, "[]"); /* said, without anything to doubt */
    assert_true(seen_wait(seen, "", 10));
}

static void an_index_that_goes_back_begins_anew(void **state)
{
    (void)state;
    fake_consul_list(50, "[" ONE("a", 1) "]");
    watch();
    assert_true(asked(QUERY, 1, "index=50&"));
    fake_consul_list(20, "[" ONE("b", 1) "]");
    assert_true(seen_wait(seen, HEARD("b", 1), 10));
    assert_true(asked(QUERY, 2, "index=20&")); /* after one with 0 */
    assert_int_equal(fake_consul_count("GET /v1/health/service/web?index=0&"), 2);
    assert_int_equal(seen_calls(seen), 2);
}

static void an_index_of_nothing_is_one(void **state)
{
    (void)state;
    fake_consul_list(0, "[" ONE("a", 1) "]");
    watch();
    assert_true(asked(QUERY, 1, "index=1&"));
    fake_consul_list(UINT64_MAX, "[" ONE("b", 1) "]"); /* none at all */
    assert_true(seen_wait(seen, HEARD("b", 1), 10));
    assert_true(asked(QUERY, 3, "index=1&"));
}

static void what_repeats_is_not_told_again_and_not_hurried(void **state)
{
    (void)state;
    fake_consul_hasty(true);
    fake_consul_list(7, "[" ONE("a", 1) "]");
    int64_t begin = clock_mono(clock_system());
    watch();
    assert_true(asked(QUERY, 6, "index=7&"));
    int64_t took = clock_mono(clock_system()) - begin; /* 0.2 + 0.4 + 0.8 + 1 + 1 s at least */
    assert_true(took >= 3000000);
    assert_int_equal(seen_calls(seen), 1);
    fake_consul_list(8, "[" ONE("a", 2) "]"); /* and yet it is heard soon */
    assert_true(seen_wait(seen, HEARD("a", 2), 5));
    assert_int_equal(seen_calls(seen), 2);
}

/* ---- faults */

static void a_fault_leaves_the_list(void **state)
{
    static char name[32];
    (void)state;
    registry_close(registry);
    struct registry_consul_options o = options();
    o.wait_s = 1; /* silence is found out 5 s behind it */
    registry = open_with(o);
    fake_consul_list(7, "[" ONE("a", 1) "," ONE("b", 2) "]");
    watch();
    assert_true(seen_wait(seen, HEARD("a", 1) HEARD("b", 2), 10));
    for (unsigned i = FAKE_WELL + 1; i < FAKE_FAULTS; i++) {
        unsigned down = kit_log_count("registry does not answer"), up = kit_log_count("registry answers again");
        snprintf(name, sizeof name, "fault %u", i);
        fake_consul_fault((enum fake_fault)i);
        if (!reachable(false))
            fail_msg("%s was not seen", name);
        unsigned n = fake_consul_count(QUERY);
        assert_true(asked(QUERY, n + 1, "index=0&")); /* it goes on asking, anew */
        assert_int_equal(kit_log_count("registry does not answer"), down + 1);
        assert_int_equal(seen_calls(seen), 1);
        fake_consul_fault(FAKE_WELL);
        if (!reachable(true))
            fail_msg("%s was not got over", name);
        assert_int_equal(kit_log_count("registry answers again"), up + 1);
        assert_int_equal(kit_log_count("registry does not answer"), down + 1);
    }
    struct registry_figures f;
    registry_figures(registry, &f);
    assert_true(f.errors >= 2 * (FAKE_FAULTS - 1));
    assert_int_equal(f.changes, 1);
    assert_true(f.age_us >= 0 && f.age_us < 60000000);
    fake_consul_list(30, "[" ONE("c", 3) "]");
    assert_true(seen_wait(seen, HEARD("c", 3), 10));
    assert_int_equal(seen_calls(seen), 2);
}

static void an_answer_that_stops_coming_is_given_up(void **state)
{
    (void)state;
    fake_consul_list(7, "[" ONE("a", 1) "," ONE("b", 2) "]");
    watch();
    assert_true(asked(QUERY, 1, "index=7&wait=30s")); /* patient, but not with half an answer */
    fake_consul_fault(FAKE_STALL);
    assert_true(reachable(false));
    assert_int_equal(seen_calls(seen), 1);
}

static void a_server_that_goes_and_comes_keeps_the_list(void **state)
{
    (void)state;
    fake_consul_list(7, "[" ONE("a", 1) "]");
    watch();
    assert_true(seen_wait(seen, HEARD("a", 1), 10));
    registry_close(registry);
    registry = NULL;
    fake_consul_stop();
    struct registry_consul_options o = options();
    o.address = "127.0.0.1:1"; /* nobody */
    registry = open_with(o);
    struct seen *never = seen_new();
    assert_int_equal(registry_watch(registry, "web", seen_changed, never), PFE_OK);
    assert_true(reachable(false));
    struct registry_figures f;
    registry_figures(registry, &f);
    assert_int_equal(f.age_us, -1);
    assert_int_equal(seen_calls(never), 0); /* what is not known is not told */
    registry_close(registry);
    registry = NULL;
    seen_free(never);
    fake_consul_start(NULL);
}

static void an_empty_list_behind_a_fault_is_doubted(void **state)
{
    static const char critical[] = "[{\"Node\":{},\"Service\":{\"ID\":\"a\",\"Address\":\"h\",\"Port\":1},\"Checks\":[{"
                                   "\"Status\":\"critical\"}]}]";
    (void)state;
    fake_consul_list(7, "[" ONE("a", 1) "]");
    watch();
    assert_true(seen_wait(seen, HEARD("a", 1), 10));
    fake_consul_fault(FAKE_ERROR);
    assert_true(reachable(false));
    fake_consul_list(8, "[]");
    unsigned n = fake_consul_count(QUERY);
    fake_consul_fault(FAKE_WELL);
    assert_true(asked(QUERY, n + 1, "wait=1s")); /* it looks again soon */
    fake_consul_list(9, "[" ONE("b", 1) "]");
    assert_true(seen_wait(seen, HEARD("b", 1), 10));
    assert_int_equal(seen_empty(seen), 0);

    fake_consul_list(3, critical); /* back, and nobody serves */
    assert_true(asked(QUERY, n + 2, "wait=1s"));
    assert_int_equal(seen_calls(seen), 2);
    fake_consul_list(4, "[" ONE("b", 1) "]");
    assert_true(asked(QUERY, n + 3, "index=4&wait=30s"));
    assert_int_equal(seen_calls(seen), 2);

    fake_consul_list(2, "[]"); /* back, and it stays so */
    assert_true(seen_wait(seen, "", 15));
    assert_int_equal(seen_calls(seen), 3);
}

static void closing_waits_for_nobody(void **state)
{
    (void)state;
    struct registry_registration what = {.service = "web", .id = "w", .address = "10.0.0.2", .port = 1, .weight = 1};
    assert_int_equal(registry_add(registry, &what, why), PFE_OK);
    fake_consul_list(7, "[" ONE("a", 1) "]");
    watch();
    assert_true(asked(QUERY, 1, "index=7&")); /* waits for half a minute */
    int64_t begin = clock_mono(clock_system());
    fake_consul_fault(FAKE_SILENT);
    registry_close(registry);
    registry = NULL;
    assert_true(clock_mono(clock_system()) - begin < 10000000);
    assert_true(kit_log_count("stay registered") >= 1);
    fake_consul_fault(FAKE_WELL);
}

/* ---- lists */

static void instances_are_read_as_they_are(void **state)
{
    (void)state;
    fake_consul_list(
        7, "["
           "{\"Node\":{\"Node\":\"n1\",\"Address\":\"10.0.0.1\"},\"Service\":{\"ID\":\"of-node\",\"Address\":\"\","
           "\"Port\":"
           "80},\"Checks\":[]},"
           "{\"Node\":{},\"Service\":{\"ID\":\"warns\",\"Address\":\"h.example\",\"Port\":1,\"Tags\":[\"t\",7,\"u\"],"
           "\"Weights\":{\"Passing\":9,\"Warning\":2}},\"Checks\":[{\"Status\":\"passing\"},{\"Status\":\"warning\"}]},"
           "{\"Node\":{},\"Service\":{\"ID\":\"fails\",\"Address\":\"fe80::1\",\"Port\":1,\"Tags\":null,\"Weights\":{"
           "\"Passing\":65535}},\"Checks\":[{\"Status\":\"critical\"},{\"Status\":\"warning\"}]},"
           "{\"Node\":{},\"Service\":{\"ID\":\"odd\",\"Address\":\"h\",\"Port\":1,\"Weights\":{\"Passing\":65535}},"
           "\"Checks\":[{\"Status\":\"what?\"}]},"
           "{\"Node\":{},\"Service\":{\"ID\":\"heavy\",\"Address\":\"h\",\"Port\":1,\"Weights\":{\"Passing\":65535}},"
           "\"Checks\":[]},"
           "{\"Node\":{\"Node\":\"n2\"},\"Service\":{\"ID\":\"twin\",\"Address\":\"h2\",\"Port\":2},\"Checks\":[]},"
           "{\"Node\":{\"Node\":\"n1\"},\"Service\":{\"ID\":\"twin\",\"Address\":\"h1\",\"Port\":1},\"Checks\":[]}"
           "]");
    watch();
    assert_true(seen_wait(seen,
                          "fails fe80::1:1 1 critical;heavy h:1 1000 passing;odd h:1 1 critical;of-node 10.0.0.1:80 1 "
                          "passing;twin@n1 h1:1 1 passing;twin@n2 h2:2 1 passing;warns h.example:1 2 warning t,u;",
                          10));
    assert_int_equal(kit_log_count("are left out"), 0);
}

static void unfit_instances_are_left_out(void **state)
{
    (void)state;
#define BAD(id, address, port)                                                                                         \
    "{\"Node\":{},\"Service\":{\"ID\":\"" id "\",\"Address\":\"" address "\",\"Port\":" port "},\"Checks\":[]},"
    fake_consul_list(7, "[" BAD("no-port", "h", "0") BAD("port", "h", "65536") BAD("path", "h/evil?", "1")
                            BAD("user", "u@h", "1") BAD("", "h", "1") BAD("a\\nb", "h", "1") BAD("nowhere", "", "1")
                                BAD("0123456789012345678901234567890123456789012345678901234567890123", "h", "1")
                                    ONE("a", 1) "]");
    watch();
    assert_true(seen_wait(seen, HEARD("a", 1), 10));
    assert_int_equal(kit_log_count("are left out"), 1);
    fake_consul_list(8, "[" BAD("port", "h", "0") ONE("b", 1) "]"); /* still some: said before */
    assert_true(seen_wait(seen, HEARD("b", 1), 10));
    assert_int_equal(kit_log_count("are left out"), 1);
}

static void the_first_256_are_taken(void **state)
{
    char *json = malloc(300 * 200), heard[SEEN_TEXT];
    size_t n = 0, lines = 0;
    (void)state;
    for (unsigned i = 0; i < 300; i++)
        n += (size_t)snprintf(
            json + n, 300 * 200 - n,
            "%s{\"Node\":{},\"Service\":{\"ID\":\"i%03u\",\"Address\":\"h\",\"Port\":1},\"Checks\":[]}", i ? "," : "[",
            299 - i);
    snprintf(json + n, 300 * 200 - n, "]");
    fake_consul_list(7, json);
    free(json);
    watch();
    assert_true(asked(QUERY, 1, "index=7&"));
    seen_text(seen, heard);
    for (const char *p = heard; (p = strchr(p, ';')); p++)
        lines++;
    assert_int_equal(lines, 256);
    assert_int_equal(strncmp(heard, "i000 h:1", 8), 0);
    assert_non_null(strstr(heard, "i255 h:1"));
    assert_null(strstr(heard, "i256"));
}

static void what_is_asked_for_can_be_chosen(void **state)
{
    (void)state;
    registry_close(registry);
    struct registry_consul_options o = options();
    o.passing_only = true;
    o.datacenter = "dc 1";
    o.wait_s = 3;
    registry = open_with(o);
    watch();
    assert_true(asked(QUERY, 1, "index=10&wait=3s&passing=1&dc=dc%201 "));
}

/* ---- our own */

static struct registry_registration mine(void)
{
    static const char *const tags[] = {"v1"};
    return (struct registry_registration){.service = "web",
                                          .id = "w",
                                          .address = "10.0.0.2",
                                          .port = 80,
                                          .weight = 7,
                                          .tags = tags,
                                          .n_tags = 1,
                                          .check_url = "http://10.0.0.2:80/health",
                                          .check_interval_us = 10000000,
                                          .check_timeout_us = 1500000,
                                          .check_forget_us = 60000000};
}

#define REGISTER "PUT /v1/agent/service/register"

static bool there(void *ctx)
{
    return fake_consul_has(ctx);
}

static bool not_there(void *ctx)
{
    return !fake_consul_has(ctx);
}

static void an_instance_is_registered_as_it_is(void **state)
{
    struct registry_registration what = mine();
    (void)state;
    assert_int_equal(registry_add(registry, &what, why), PFE_OK);
    assert_true(asked(REGISTER, 0,
                      "\r\n\r\n{\"ID\":\"w\",\"Name\":\"web\",\"Address\":\"10.0.0.2\",\"Port\":80,\"Tags\":[\"v1\"],"
                      "\"Weights\":{\"Passing\":7,\"Warning\":7},\"Check\":{\"Name\":\"HTTP\",\"HTTP\":"
                      "\"http://10.0.0.2:80/health\",\"Interval\":\"10000ms\",\"Timeout\":\"1500ms\","
                      "\"DeregisterCriticalServiceAfter\":\"60000ms\"}}"));
    assert_true(asked(REGISTER, 0, "\r\nX-Consul-Token: sesame-open\r\n"));
    assert_true(asked("GET /v1/agent/service/w ", 2, "")); /* looked after */
    assert_int_equal(fake_consul_count(REGISTER), 1);
    what.check_interval_us = 1000; /* Consul would make a second of it */
    assert_int_equal(registry_add(registry, &what, why), PFE_INVALID);
    what = mine();
    what.service = "unwelcome";
    what.id = "u";
    assert_int_equal(registry_add(registry, &what, why), PFE_INVALID); /* by the agent */
    assert_int_equal(registry_remove(registry, "unwelcome", "u", why), PFE_NOT_FOUND);
}

static void what_the_agent_forgets_is_registered_again(void **state)
{
    struct registry_registration what = mine(), other = mine();
    char w[] = "w", v[] = "v";
    (void)state;
    other.id = "v";
    assert_int_equal(registry_add(registry, &what, why), PFE_OK);
    assert_int_equal(registry_add(registry, &other, why), PFE_OK);
    fake_consul_forget();
    assert_true(wait_until(there, w, 10) && wait_until(there, v, 10));
    unsigned n = fake_consul_count(REGISTER);
    assert_true(asked("GET /v1/agent/service/w ", fake_consul_count("GET /v1/agent/service/w ") + 1, ""));
    assert_int_equal(fake_consul_count(REGISTER), n);
    assert_int_equal(n, 4);
    assert_int_equal(registry_remove(registry, "web", "w", why), PFE_OK);
    fake_consul_forget();
    assert_true(wait_until(there, v, 10));
    assert_false(fake_consul_has("w")); /* no longer ours */
}

static void what_could_not_be_said_is_said_later(void **state)
{
    struct registry_registration what = mine();
    char w[] = "w";
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        fake_consul_fault(i ? FAKE_CUT : FAKE_FORBIDDEN);
        assert_int_equal(registry_add(registry, &what, why), PFE_UNAVAILABLE);
        assert_null(strstr(why, "sesame"));
        assert_false(fake_consul_has("w"));
        assert_true(reachable(false));
        fake_consul_fault(FAKE_WELL);
        assert_true(wait_until(there, w, 10));
        assert_true(reachable(true));
        fake_consul_fault(i ? FAKE_CUT : FAKE_ERROR);
        assert_int_equal(registry_remove(registry, "web", "w", why), PFE_UNAVAILABLE);
        assert_int_equal(registry_remove(registry, "web", "w", why), PFE_NOT_FOUND);
        fake_consul_fault(FAKE_WELL);
        assert_true(wait_until(not_there, w, 10));
    }
    fake_consul_fault(FAKE_ERROR);
    assert_int_equal(registry_add(registry, &what, why), PFE_UNAVAILABLE);
    assert_int_equal(registry_remove(registry, "web", "w", why), PFE_UNAVAILABLE);
    assert_int_equal(registry_add(registry, &what, why), PFE_UNAVAILABLE); /* the last word */
    fake_consul_fault(FAKE_WELL);
    assert_true(wait_until(there, w, 10));
}

static void so_many_are_ours(void **state)
{
    struct registry_registration what = mine();
    char id[16];
    (void)state;
    what.id = id;
    for (unsigned i = 0; i < REGISTRY_CONSUL_OWN_MAX; i++) {
        snprintf(id, sizeof id, "w%u", i);
        assert_int_equal(registry_add(registry, &what, why), PFE_OK);
    }
    snprintf(id, sizeof id, "more");
    assert_int_equal(registry_add(registry, &what, why), PFE_INVALID);
    registry_close(registry);
    registry = NULL;
    assert_false(fake_consul_has("w0") || fake_consul_has("w63"));
}

/* ---- options */

static void by_a_socket_of_the_file_system(void **state)
{
    char dir[] = "/tmp/payflow-registry-XXXXXX", path[64], address[80];
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/sock", dir);
    snprintf(address, sizeof address, "unix://%s", path);
    fake_consul_start(path);
    seen = seen_new();
    struct registry_consul_options o = options();
    o.address = address;
    registry = open_with(o);
    fake_consul_list(7, "[" ONE("a", 1) "]");
    watch();
    assert_true(seen_wait(seen, HEARD("a", 1), 10));
    teardown(NULL);
    unlink(path);
    rmdir(dir);
}

static void bad_options_are_told(void **state)
{
    static const char *const bad[] = {NULL,
                                      "",
                                      "consul",
                                      "consul:",
                                      ":8500",
                                      "consul:0",
                                      "consul:65536",
                                      "ftp://consul:8500",
                                      "http://consul",
                                      "http://consul:8500/path",
                                      "http://u:sesame@consul:8500",
                                      "http://con sul:8500",
                                      "http://[::1:8500",
                                      "http://[]:8500",
                                      "unix://",
                                      "unix://relative"};
    static const char *const good[] = {"consul:8500", "http://127.0.0.1:8500", "https://consul.example:8501/",
                                       "http://[::1]:8500", "unix:///run/consul.sock"};
    struct registry *r = NULL;
    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(registry_consul_open(&(struct registry_consul_options){.address = bad[i]}, &r, why),
                         PFE_INVALID);
        assert_null(strstr(why, "sesame"));
    }
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(registry_consul_open(&(struct registry_consul_options){.address = good[i]}, &r, why), PFE_OK);
        registry_close(r);
    }
    struct registry_consul_options o = {.address = good[0], .token = "sesame\r\nX-Evil: 1"};
    assert_int_equal(registry_consul_open(&o, &r, why), PFE_INVALID);
    assert_null(strstr(why, "sesame"));
    o = (struct registry_consul_options){.address = good[0], .wait_s = 601};
    assert_int_equal(registry_consul_open(&o, &r, why), PFE_INVALID);
}

int main(void)
{
#define ON(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ON(instances_are_read_as_they_are),
        ON(unfit_instances_are_left_out),
        ON(the_first_256_are_taken),
        ON(a_query_waits_behind_the_last_index),
        ON(an_index_that_goes_back_begins_anew),
        ON(an_index_of_nothing_is_one),
        ON(what_repeats_is_not_told_again_and_not_hurried),
        ON(a_fault_leaves_the_list),
        ON(an_answer_that_stops_coming_is_given_up),
        ON(a_server_that_goes_and_comes_keeps_the_list),
        ON(an_empty_list_behind_a_fault_is_doubted),
        ON(closing_waits_for_nobody),
        ON(what_is_asked_for_can_be_chosen),
        ON(an_instance_is_registered_as_it_is),
        ON(what_the_agent_forgets_is_registered_again),
        ON(what_could_not_be_said_is_said_later),
        ON(so_many_are_ours),
        cmocka_unit_test(by_a_socket_of_the_file_system),
        cmocka_unit_test(bad_options_are_told),
    };
    kit_log_open();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    failed += kit_log_count("sesame") != 0;
    kit_log_close();
    return failed;
}
