/* The registry port on every engine: the static list, Consul's HTTP API as a scripted server speaks it, and a real
 * agent where there is one ($PAYFLOW_TEST_CONSUL). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "registry/consul/consul.h"
#include "registry/static/static.h"
#include "registry_kit.h"
#include "support/daemon.h"
#include "support/fake_consul.h"

enum engine { STATIC, SCRIPTED, REAL };

static enum engine engine;
static struct registry *registry;
static struct daemon agent;
static char why[256];

static const char *agent_program(void)
{
    const char *p = getenv("PAYFLOW_TEST_CONSUL");
    return p && *p ? p : NULL;
}

static void agent_up(void)
{
    char hcl[256];
    snprintf(hcl, sizeof hcl,
             "ports { http = %d server = %d serf_lan = %d serf_wan = %d dns = -1 grpc = -1 } "
             "performance { raft_multiplier = 1 }",
             agent.port, agent.port + 1, agent.port + 2, agent.port + 3);
    daemon_up(&agent, (const char *const[]){agent_program(), "agent", "-dev", "-bind=127.0.0.1", "-node=n1",
                                            "-log-level=warn", "-hcl", hcl, NULL});
}

static struct registry *open_at(int port)
{
    struct registry *r = NULL;
    char address[64];
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    assert_int_equal(registry_consul_open(&(struct registry_consul_options){.address = address,
                                                                            .token = "sesame-open",
                                                                            .passing_only = true,
                                                                            .keep_ms = 300,
                                                                            .call_ms = 2000,
                                                                            .backoff_ms = 50,
                                                                            .backoff_max_ms = 500},
                                          &r, why),
                     PFE_OK);
    return r;
}

static int setup(void **state)
{
    engine = *(const enum engine *)*state;
    if (engine == STATIC)
        return registry_static_open(NULL, 0, &registry, why) == PFE_OK ? 0 : -1;
    if (engine == SCRIPTED)
        fake_consul_start(NULL);
    registry = open_at(engine == SCRIPTED ? fake_consul_port() : agent.port);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    registry_close(registry);
    registry = NULL;
    if (engine == SCRIPTED)
        fake_consul_stop();
    return 0;
}

static struct registry_registration at_port(const char *service, const char *id, uint16_t port)
{
    return (struct registry_registration){
        .service = service, .id = id, .address = "127.0.0.1", .port = port, .weight = 5};
}

static bool put(const char *service, const char *id, uint16_t port)
{
    struct registry_registration what = at_port(service, id, port);
    for (unsigned i = 0; i < 100; i++) { /* a real agent that has just begun has no leader yet */
        enum pf_err e = registry_add(registry, &what, why);
        if (e != PFE_UNAVAILABLE)
            return e == PFE_OK;
    }
    return false;
}

/* ---- every engine */

static void what_is_added_is_seen(void **state)
{
    struct seen *web = seen_new(), *other = seen_new();
    (void)state;
    assert_int_equal(registry_watch(registry, "web", seen_changed, web), PFE_OK);
    assert_int_equal(registry_watch(registry, "other", seen_changed, other), PFE_OK);
    assert_true(seen_wait(web, "", 20) && seen_wait(other, "", 20)); /* known to be empty */
    assert_true(put("web", "web-2", 8002));
    assert_true(seen_wait(web, "web-2 127.0.0.1:8002 5 passing;", 10));
    assert_true(put("web", "web-1", 8001));
    assert_true(seen_wait(web, "web-1 127.0.0.1:8001 5 passing;web-2 127.0.0.1:8002 5 passing;", 10));
    assert_true(put("web", "web-2", 8003)); /* in the place of the one before */
    assert_true(seen_wait(web, "web-1 127.0.0.1:8001 5 passing;web-2 127.0.0.1:8003 5 passing;", 10));
    assert_int_equal(registry_remove(registry, "web", "web-1", why), PFE_OK);
    assert_true(seen_wait(web, "web-2 127.0.0.1:8003 5 passing;", 10));
    assert_int_equal(registry_remove(registry, "web", "web-1", why), PFE_NOT_FOUND);
    assert_int_equal(registry_remove(registry, "other", "web-2", why), PFE_NOT_FOUND);
    assert_true(put("other", "o", 9000));
    assert_true(seen_wait(other, "o 127.0.0.1:9000 5 passing;", 10));
    assert_int_equal(registry_remove(registry, "web", "web-2", why), PFE_OK);
    assert_true(seen_wait(web, "", 10));
    assert_int_equal(seen_calls(web), 6);
    assert_int_equal(seen_calls(other), 2); /* changes of others are none of its */
    registry_close(registry);
    registry = NULL;
    seen_free(web);
    seen_free(other);
}

static void all_that_is_said_comes_through(void **state)
{
    static const char *const tags[] = {"v1", "tür \"3\""};
    struct seen *s = seen_new();
    struct registry_registration what = at_port("Ünicode / service?", "i \"1\"", 65535);
    (void)state;
    what.address = "::1";
    what.weight = 0;
    what.tags = tags;
    what.n_tags = 2;
    assert_true(put("web", "x", 1));
    assert_int_equal(registry_add(registry, &what, why), PFE_OK);
    assert_int_equal(registry_watch(registry, what.service, seen_changed, s), PFE_OK);
    assert_true(seen_wait(s, "i \"1\" ::1:65535 0 passing v1,tür \"3\";", 10));
    what.weight = 1000;
    what.n_tags = 1;
    assert_int_equal(registry_add(registry, &what, why), PFE_OK);
    assert_true(seen_wait(s, "i \"1\" ::1:65535 1000 passing v1;", 10));
    assert_int_equal(registry_remove(registry, what.service, what.id, why), PFE_OK);
    assert_true(seen_wait(s, "", 10));
    registry_close(registry);
    registry = NULL;
    seen_free(s);
}

static void what_is_out_of_range_is_refused(void **state)
{
    static const char *const tags[17] = {"a", "a", "a", "a", "a", "a", "a", "a", "a",
                                         "a", "a", "a", "a", "a", "a", "a", "a"};
    static const char *const empty_id = "";
    char name[65], address[257];
    memset(name, 'n', 64);
    memset(address, '1', 256);
    name[64] = address[256] = '\0';
    const struct registry_registration good = at_port("web", "w", 1);
    struct registry_registration bad[8] = {good, good, good, good, good, good, good, good};
    (void)state;
    bad[0].service = name;
    bad[1].id = name;
    bad[2].address = address;
    bad[3].port = 0;
    bad[4].weight = 1001;
    bad[5].id = empty_id;
    bad[6].tags = tags;
    bad[6].n_tags = 17;
    bad[7].service = "";
    for (unsigned i = 0; i < 8; i++) {
        why[0] = '\0';
        assert_int_equal(registry_add(registry, &bad[i], why), PFE_INVALID);
        assert_true(why[0] != '\0');
    }
    assert_int_equal(registry_remove(registry, "web", "w", why), PFE_NOT_FOUND);
    name[63] = address[255] = '\0';
    struct registry_registration longest = good;
    longest.service = longest.id = name;
    longest.address = address;
    longest.tags = tags;
    longest.n_tags = 16;
    assert_int_equal(registry_add(registry, &longest, why), PFE_OK);
    assert_int_equal(registry_remove(registry, name, name, why), PFE_OK);
}

static void note_service(void *ctx, const char *service)
{
    char *all = ctx;
    if (strcmp(service, "consul") != 0) /* the real one registers itself */
        snprintf(all + strlen(all), 256 - strlen(all), "%s,", service);
}

static bool services_are(void *ctx)
{
    char all[256] = "";
    return registry_services(registry, note_service, all, why) == PFE_OK && strcmp(all, ctx) == 0;
}

static void services_are_listed(void **state)
{
    char both[] = "api,web,", one[] = "api,", none[] = "";
    (void)state;
    assert_true(wait_until(services_are, none, 10));
    assert_true(put("web", "w1", 1) && put("web", "w2", 2) && put("api", "a", 3));
    assert_true(wait_until(services_are, both, 10)); /* the real catalogue hears of it a moment later */
    assert_int_equal(registry_remove(registry, "web", "w1", why), PFE_OK);
    assert_int_equal(registry_remove(registry, "web", "w2", why), PFE_OK);
    assert_true(wait_until(services_are, one, 10));
}

static void there_are_so_many_watches(void **state)
{
    struct seen *s[REGISTRY_WATCHES_MAX];
    struct registry_figures f;
    (void)state;
    assert_true(put("web", "w", 1));
    for (unsigned i = 0; i < REGISTRY_WATCHES_MAX; i++) {
        s[i] = seen_new();
        assert_int_equal(registry_watch(registry, "web", seen_changed, s[i]), PFE_OK);
    }
    assert_int_equal(registry_watch(registry, "web", seen_changed, s[0]), PFE_BUSY);
    for (unsigned i = 0; i < REGISTRY_WATCHES_MAX; i++)
        assert_true(seen_wait(s[i], "w 127.0.0.1:1 5 passing;", 20));
    registry_figures(registry, &f);
    assert_true(f.reachable);
    assert_string_equal(f.engine, engine == STATIC ? "static" : "consul");
    registry_close(registry); /* with all of them waiting */
    registry = NULL;
    for (unsigned i = 0; i < REGISTRY_WATCHES_MAX; i++)
        seen_free(s[i]);
}

/* ---- what only a registry server can do */

static void closing_takes_ours_out(void **state)
{
    struct registry *mine = registry;
    struct seen *s = seen_new();
    (void)state;
    assert_true(put("web", "w1", 1) && put("web", "w2", 2));
    registry = open_at(engine == SCRIPTED ? fake_consul_port() : agent.port); /* another program */
    assert_int_equal(registry_watch(registry, "web", seen_changed, s), PFE_OK);
    assert_true(seen_wait(s, "w1 127.0.0.1:1 5 passing;w2 127.0.0.1:2 5 passing;", 10));
    registry_close(mine);
    assert_true(seen_wait(s, "", 10));
    registry_close(registry);
    registry = NULL;
    seen_free(s);
}

static void an_id_belongs_to_one_service(void **state)
{
    struct registry_registration again = at_port("api", "x", 2);
    (void)state;
    assert_true(put("web", "x", 1));
    assert_int_equal(registry_add(registry, &again, why), PFE_INVALID);
    assert_non_null(strstr(why, "web"));
    assert_int_equal(registry_remove(registry, "web", "x", why), PFE_OK);
    assert_int_equal(registry_add(registry, &again, why), PFE_OK);
}

/* ---- a real agent */

static struct registry_registration checked(char url[64])
{
    struct registry_registration what = at_port("web", "w", (uint16_t)fake_consul_port());
    snprintf(url, 64, "http://127.0.0.1:%d/alive", fake_consul_port());
    what.check_url = url;
    what.check_interval_us = 1000000;
    what.check_timeout_us = 1000000;
    what.check_forget_us = 60000000;
    return what;
}

static void who_fails_the_check_is_left_out(void **state)
{
    struct seen *s = seen_new();
    char url[64], there[64];
    (void)state;
    fake_consul_start(NULL); /* serves /alive */
    struct registry_registration what = checked(url);
    snprintf(there, sizeof there, "w 127.0.0.1:%u 5 passing;", what.port);
    assert_int_equal(registry_watch(registry, "web", seen_changed, s), PFE_OK);
    assert_int_equal(registry_add(registry, &what, why), PFE_OK);
    assert_true(seen_wait(s, there, 10));
    fake_consul_alive(false);
    assert_true(seen_wait(s, "", 10));
    fake_consul_alive(true);
    assert_true(seen_wait(s, there, 10));
    fake_consul_stop(); /* the service dies */
    assert_true(seen_wait(s, "", 10));
    registry_close(registry);
    registry = NULL;
    seen_free(s);
}

static bool is_reachable(void *ctx)
{
    struct registry_figures f;
    registry_figures(registry, &f);
    return f.reachable == *(bool *)ctx;
}

static void an_agent_that_hangs_keeps_the_list(void **state)
{
    struct seen *s = seen_new();
    bool yes = true, no = false;
    (void)state;
    assert_true(put("web", "w", 1));
    assert_int_equal(registry_watch(registry, "web", seen_changed, s), PFE_OK);
    assert_true(seen_wait(s, "w 127.0.0.1:1 5 passing;", 10));
    assert_true(wait_until(is_reachable, &yes, 10));
    daemon_signal(&agent, SIGSTOP);
    assert_true(wait_until(is_reachable, &no, 20));
    assert_true(seen_wait(s, "w 127.0.0.1:1 5 passing;", 0));
    daemon_signal(&agent, SIGCONT);
    assert_true(wait_until(is_reachable, &yes, 20));
    assert_true(put("web", "x", 2));
    assert_true(seen_wait(s, "w 127.0.0.1:1 5 passing;x 127.0.0.1:2 5 passing;", 30));
    assert_int_equal(seen_empty(s), 0);
    registry_close(registry);
    registry = NULL;
    seen_free(s);
}

static void an_agent_that_has_lost_all_is_told_again(void **state)
{
    struct seen *s = seen_new();
    (void)state;
    assert_true(put("web", "w", 1) && put("web", "v", 3));
    assert_int_equal(registry_watch(registry, "web", seen_changed, s), PFE_OK);
    assert_true(seen_wait(s, "v 127.0.0.1:3 5 passing;w 127.0.0.1:1 5 passing;", 10));
    daemon_kill(&agent);
    agent_up(); /* a dev agent keeps nothing */
    assert_true(put("web", "x", 2));
    assert_true(seen_wait(s, "v 127.0.0.1:3 5 passing;w 127.0.0.1:1 5 passing;x 127.0.0.1:2 5 passing;", 40));
    assert_int_equal(seen_empty(s), 0);
    registry_close(registry);
    registry = NULL;
    seen_free(s);
}

static void there_is_no_consul(void **state)
{
    (void)state;
    print_message("PAYFLOW_TEST_CONSUL names no consul (./dev interop builds one)\n");
    skip();
}

int main(void)
{
    static enum engine engines[] = {STATIC, SCRIPTED, REAL};
    int failed = 0;
    kit_log_open();
#define ON(f, e) cmocka_unit_test_prestate_setup_teardown(f, setup, teardown, &engines[e])
#define ALL(e)                                                                                                         \
    ON(what_is_added_is_seen, e), ON(all_that_is_said_comes_through, e), ON(what_is_out_of_range_is_refused, e),       \
        ON(services_are_listed, e), ON(there_are_so_many_watches, e)
    const struct CMUnitTest fixed[] = {ALL(STATIC)};
    const struct CMUnitTest scripted[] = {ALL(SCRIPTED), ON(closing_takes_ours_out, SCRIPTED),
                                          ON(an_id_belongs_to_one_service, SCRIPTED)};
    const struct CMUnitTest real[] = {ALL(REAL),
                                      ON(closing_takes_ours_out, REAL),
                                      ON(an_id_belongs_to_one_service, REAL),
                                      ON(who_fails_the_check_is_left_out, REAL),
                                      ON(an_agent_that_hangs_keeps_the_list, REAL),
                                      ON(an_agent_that_has_lost_all_is_told_again, REAL)};
    const struct CMUnitTest none[] = {cmocka_unit_test(there_is_no_consul)};
    failed += cmocka_run_group_tests_name("static", fixed, NULL, NULL);
    failed += cmocka_run_group_tests_name("scripted", scripted, NULL, NULL);
    if (agent_program()) {
        daemon_init(&agent, 4);
        agent_up();
        failed += cmocka_run_group_tests_name("consul", real, NULL, NULL);
        daemon_free(&agent);
    } else {
        failed += cmocka_run_group_tests_name("consul", none, NULL, NULL);
    }
    failed += kit_log_count("sesame") != 0;
    kit_log_close();
    return failed;
}
