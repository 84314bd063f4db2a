/* Where values come from, which place wins, and what of it is refused: flags, environment, YAML, files of secrets. */
#include "support.h"

static void nothing_set_gives_the_defaults(void **state)
{
    (void)state;
    expect_ok(load_list(LIST(), LIST()));
    assert_int_equal(conf.port, 8080);
    assert_string_equal(conf.listen_host, "127.0.0.1");
    assert_int_equal(conf.listen_port, 8080);
    assert_true(conf.loopback);
    assert_int_equal(conf.env, CONF_ENV_DEV);
    assert_false(conf.allow_open_bind);
    assert_string_equal(conf.data_dir, "./data");
    assert_string_equal(conf.store_dir, "./data");
    assert_string_equal(conf.db_url, "");
    assert_string_equal(conf.default_currency, "USD");
    assert_string_equal(conf.jwt_secret, "");
    assert_int_equal(conf.bcrypt_cost, 12);
    assert_int_equal(conf.rate_limit, 0);
    assert_string_equal(conf.allowed_origins, "*");
    assert_int_equal(conf.log_level, LOG_INFO);
    assert_string_equal(conf.tls_cert, "");
    assert_string_equal(conf.tls_key, "");
    assert_int_equal(conf.shutdown_timeout, 30);
    assert_int_equal(conf.idle_timeout, 60);
    assert_int_equal(conf.max_connections, 10000);
    assert_int_equal(conf.http_threads, 2);
    assert_int_equal(conf.worker_threads, 4);
    assert_int_equal(conf.hash_threads, 2);
    assert_int_equal(conf.cache_entries, 100000);
    assert_int_equal(conf.cache_bytes, 64 << 20);
    assert_int_equal(conf.queue_capacity, 65536);
    assert_int_equal(conf.group_max, 1024);
    assert_int_equal(conf.flush_entries, 65536);
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        assert_int_equal(conf.values[id].source, CONF_DEFAULT);
        assert_string_equal(conf.values[id].origin, "default");
    }
    assert_int_equal(conf_check_serve(&conf, why), PFE_OK);
}

static void a_null_environment_is_an_empty_one(void **state)
{
    struct conf_input in = {0};

    (void)state;
    conf_free(&conf);
    expect_ok(conf_load(&in, &conf, why));
    assert_int_equal(conf.port, 8080);
}

static void flags_beat_environment_beats_file_beats_default(void **state)
{
    const char *yaml = file_text(0, "port: 1001\nrate_limit: 1002\nbcrypt_cost: 11\n");

    (void)state;
    expect_ok(load_list(LIST("--config", yaml, "--port", "3001"), LIST("PORT=2001", "RATE_LIMIT=2002")));
    assert_int_equal(conf.port, 3001);
    assert_int_equal(conf.rate_limit, 2002);
    assert_int_equal(conf.bcrypt_cost, 11);
    assert_int_equal(conf.http_threads, 2);
    assert_string_equal(conf.values[CONF_PORT].origin, "--port");
    assert_string_equal(conf.values[CONF_RATE_LIMIT].origin, "env RATE_LIMIT");
    assert_non_null(strstr(conf.values[CONF_BCRYPT_COST].origin, "f0.yaml:3"));
    assert_int_equal(conf.values[CONF_PORT].source, CONF_FLAG);
    assert_int_equal(conf.values[CONF_RATE_LIMIT].source, CONF_ENVIRONMENT);
    assert_int_equal(conf.values[CONF_BCRYPT_COST].source, CONF_FILE);
    assert_int_equal(conf.values[CONF_HTTP_THREADS].source, CONF_DEFAULT);
}

static void every_setting_is_reachable_in_all_three_spellings(void **state)
{
    (void)state;
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        const struct conf_row *row = &conf_rows[id];
        const char *value = *row->def                    ? row->def
                            : id == CONF_DB_PORT         ? "5432"
                            : id == CONF_DB_SSLMODE      ? "require"
                            : id == CONF_REDIS_URL       ? "redis://h"
                            : id == CONF_TRUSTED_PROXIES ? "10.0.0.0/8"
                                                         : "sqlite:/x";
        char env[8192], flag[8192], yaml[8192];
        char *args[2] = {flag, NULL};
        if (id == CONF_TLS_CERT || id == CONF_TLS_KEY)
            continue; /* one alone is refused: tested with the rules */
        snprintf(env, sizeof env, "%s=%s", row->name, value);
        snprintf(flag, sizeof flag, "--%s=%s", row->name, value);
        snprintf(yaml, sizeof yaml, "%s: \"%s\"\n", row->name, value);
        for (char *c = flag; *c != '='; c++)
            *c = *c == '_' ? '-' : (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
        for (char *c = yaml; *c != ':'; c++)
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
        expect_ok(load_list(LIST(), LIST(env)));
        assert_int_equal(conf.values[id].source, CONF_ENVIRONMENT);
        expect_ok(load_list((const char *const *)args, LIST()));
        assert_int_equal(conf.values[id].source, CONF_FLAG);
        expect_ok(load_yaml_text(yaml));
        assert_int_equal(conf.values[id].source, CONF_FILE);
        assert_string_equal(conf.values[id].text, value);
    }
}

static void flags_take_values_both_ways_and_the_last_wins(void **state)
{
    (void)state;
    expect_ok(load_list(LIST("--port=1", "--data", "/d/", "--port", "2", "--allow-open-bind"), LIST()));
    assert_int_equal(conf.port, 2);
    assert_string_equal(conf.data_dir, "/d/");
    assert_string_equal(conf.store_dir, "/d");
    assert_true(conf.allow_open_bind);
    expect_ok(load_list(LIST("--allow-open-bind=false", "--data-dir=/e", "--allowed-origins="), LIST()));
    assert_false(conf.allow_open_bind);
    assert_string_equal(conf.data_dir, "/e");
    assert_string_equal(conf.allowed_origins, "");
}

static void flags_that_are_wrong_are_refused(void **state)
{
    (void)state;
    expect_refused(load_list(LIST("--prot", "1"), LIST()), "unknown flag --prot");
    expect_refused(load_list(LIST("--"), LIST()), "unknown flag --");
    expect_refused(load_list(LIST("-p"), LIST()), "unknown flag -p");
    expect_refused(load_list(LIST("--PORT=1"), LIST()), "unknown flag");
    expect_refused(load_list(LIST("--data_dir=x"), LIST()), "unknown flag");
    expect_refused(load_list(LIST("--=1"), LIST()), "unknown flag");
    expect_refused(load_list(LIST("--data-dir-file=x"), LIST()), "unknown flag");
    expect_refused(load_list(LIST("--port"), LIST()), "--port needs a value");
    expect_refused(load_list(LIST("--config"), LIST()), "--config needs a value");
    expect_refused(load_list(LIST("8080"), LIST()), "unexpected argument \"8080\"");
    expect_refused(load_list(LIST("--allow-open-bind", "true"), LIST()), "unexpected argument \"true\"");
    expect_refused(load_list(LIST("--a\nb"), LIST()), "--a?b");
}

static void the_width_of_a_flag_is_known_before_loading(void **state)
{
    (void)state;
    assert_int_equal(conf_flag_width("--port"), 2);
    assert_int_equal(conf_flag_width("--port=1"), 1);
    assert_int_equal(conf_flag_width("--data"), 2);
    assert_int_equal(conf_flag_width("--config"), 2);
    assert_int_equal(conf_flag_width("--config=x"), 1);
    assert_int_equal(conf_flag_width("--allow-open-bind"), 1);
    assert_int_equal(conf_flag_width("--jwt-secret-file"), 2);
    assert_int_equal(conf_flag_width("--redis-url"), 2);
    assert_int_equal(conf_flag_width("--role"), 0);
    assert_int_equal(conf_flag_width("-o"), 0);
    assert_int_equal(conf_flag_width("port"), 0);
    assert_int_equal(conf_flag_width(""), 0);
    assert_int_equal(conf_flag_width("--"), 0);
}

static void an_empty_variable_counts_as_not_set(void **state)
{
    (void)state;
    expect_ok(load_list(LIST(), LIST("PORT=", "JWT_SECRET=", "ENV=", "NOEQUALS", "PATH=/bin", "port=9")));
    assert_int_equal(conf.port, 8080);
    assert_int_equal(conf.values[CONF_PORT].source, CONF_DEFAULT);
}

static void a_bad_variable_is_named_with_its_origin(void **state)
{
    (void)state;
    expect_refused(load_list(LIST(), LIST("PORT=http")), "PORT must be a whole number from 0 to 65535, not \"http\"");
    expect_refused(load_list(LIST(), LIST("PORT=70000")), "(from env PORT)");
    expect_refused(load_list(LIST("--port=70000"), LIST()), "(from --port)");
    expect_refused(load_yaml_text("env: dev\nport: -1\n"), "f0.yaml:2)");
    expect_refused(load_list(LIST(), LIST("PORT=1", "PORT=2")), "PORT is set twice");
}

static void reserved_names_are_silent_in_the_environment_and_refused_elsewhere(void **state)
{
    static const char *const names[] = {"OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char env[64], flag[64], yaml[64];
        char *args[2] = {flag, NULL};
        snprintf(env, sizeof env, "%s=x", names[i]);
        snprintf(flag, sizeof flag, "--%s=x", names[i]);
        snprintf(yaml, sizeof yaml, "%s: x\n", names[i]);
        for (char *c = flag; *c != '='; c++)
            *c = *c == '_' ? '-' : (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
        for (char *c = yaml; *c != ':'; c++)
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
        expect_ok(load_list(LIST(), LIST(env)));
        expect_refused(load_list((const char *const *)args, LIST()), "not supported by this build yet");
        expect_refused(load_yaml_text(yaml), "not supported by this build yet");
    }
    expect_refused(load_yaml_text("db_read_host_: x\n"), "unknown key");
    expect_refused(load_yaml_text("db_read_host_9: x\n"), "unknown key");
    expect_refused(load_yaml_text("otel_: x\n"), "unknown key");
    expect_refused(load_list(LIST("--load-balancer=x"), LIST()), "unknown flag");
}

static void yaml_files_are_read(void **state)
{
    (void)state;
    expect_ok(load_yaml_text("# comment\n---\nport: 9000\nenv: \"staging\"\nallowed_origins: ''\n"
                             "shutdown_timeout: 5m\ncache_bytes: 1GiB\nlisten: '[::1]:7000'\n"));
    assert_int_equal(conf.port, 9000);
    assert_int_equal(conf.env, CONF_ENV_STAGING);
    assert_string_equal(conf.allowed_origins, "");
    assert_int_equal(conf.shutdown_timeout, 300);
    assert_int_equal(conf.cache_bytes, 1 << 30);
    assert_string_equal(conf.listen_host, "::1");
    assert_int_equal(conf.listen_port, 7000);
    expect_ok(load_yaml_text(""));
    expect_ok(load_yaml_text("# nothing but a comment\n"));
    expect_ok(load_yaml_text("{}\n"));
    expect_ok(load_yaml_text("---\n...\n"));
    expect_ok(load_yaml_text("{port: 1, rate_limit: 2}"));
    assert_int_equal(conf.rate_limit, 2);
}

static void yaml_that_is_wrong_is_refused_with_its_line(void **state)
{
    (void)state;
    expect_refused(load_yaml_text("port: 1\nprot: 2\n"), "f0.yaml:2: unknown key \"prot\"");
    expect_refused(load_yaml_text("PORT: 1\n"), "unknown key \"PORT\"");
    expect_refused(load_yaml_text("data: x\n"), "unknown key \"data\"");
    expect_refused(load_yaml_text("config: x\n"), "unknown key \"config\"");
    expect_refused(load_yaml_text("\"\": x\n"), "unknown key");
    expect_refused(load_yaml_text("port: 1\nport: 1\n"), "f0.yaml:2: PORT is set twice");
    expect_refused(load_yaml_text("port:\n"), "port has no value");
    expect_refused(load_yaml_text("port: ~\n"), "port has no value");
    expect_refused(load_yaml_text("port: null\n"), "port has no value");
    expect_refused(load_yaml_text("port: [1]\n"), "port must be a single value");
    expect_refused(load_yaml_text("port: {a: 1}\n"), "port must be a single value");
    expect_refused(load_yaml_text("port: &a 1\nrate_limit: *a\n"), "rate_limit must be a single value");
    expect_refused(load_yaml_text("[port]\n"), "key: value");
    expect_refused(load_yaml_text("port\n"), "key: value");
    expect_refused(load_yaml_text("? [a]\n: 1\n"), "a key must be a plain name");
    expect_refused(load_yaml_text("port: 1\n---\nport: 2\n"), "f0.yaml:2: a second document");
    expect_refused(load_yaml_text("port: 1\n\"open\n"), "f0.yaml:");
    expect_refused(load_yaml_text("data_dir: \"a\\0b\"\n"), "NUL");
    expect_refused(load_yaml_text("\xff\xfe\xfd"), "f0.yaml");
    expect_refused(load_list(LIST("--config", "/nonexistent/x.yaml"), LIST()), "cannot read /nonexistent/x.yaml");
    expect_refused(load_list(LIST("--config", "/tmp"), LIST()), "cannot read /tmp");
}

static void yaml_files_are_bounded(void **state)
{
    size_t n = (1 << 20) + 1;
    char *big = malloc(n);

    (void)state;
    assert_non_null(big);
    memset(big, '#', n);
    expect_ok(load_list(LIST("--config", file_of(0, big, n - 1)), LIST()));
    expect_refused(load_list(LIST("--config", file_of(0, big, n)), LIST()), "larger than 1024 KiB");
    free(big);
}

static void secrets_come_from_files(void **state)
{
    char env[128], yaml[128], flag[128];
    char *args[2] = {flag, NULL};

    (void)state;
    snprintf(env, sizeof env, "JWT_SECRET_FILE=%s", file_text(1, SECRET32 "\n"));
    expect_ok(load_list(LIST(), LIST(env)));
    assert_string_equal(conf.jwt_secret, SECRET32);
    assert_string_equal(conf.values[CONF_JWT_SECRET].origin, "env JWT_SECRET_FILE");
    file_text(1, " two lines stay\n\n");
    expect_refused(load_list(LIST(), LIST(env)), "control characters");
    file_text(1, " spaces stay \r\n");
    expect_ok(load_list(LIST(), LIST(env)));
    assert_string_equal(conf.jwt_secret, " spaces stay ");

    snprintf(yaml, sizeof yaml, "jwt_secret_file: %s\n", file_text(1, SECRET32));
    expect_ok(load_yaml_text(yaml));
    assert_string_equal(conf.jwt_secret, SECRET32);
    snprintf(flag, sizeof flag, "--db-url-file=%s", file_text(2, "sqlite:/srv/books\n"));
    expect_ok(load_list((const char *const *)args, LIST(env)));
    assert_string_equal(conf.jwt_secret, SECRET32);
    assert_string_equal(conf.store_dir, "/srv/books");
}

static void files_of_secrets_that_are_wrong_are_refused(void **state)
{
    static char big[(64 << 10) + 1];
    char env[128];

    (void)state;
    snprintf(env, sizeof env, "JWT_SECRET_FILE=%s", file_text(1, ""));
    expect_refused(load_list(LIST(), LIST(env)), "is empty");
    file_text(1, "\n");
    expect_refused(load_list(LIST(), LIST(env)), "is empty");
    file_of(1, "a\0b", 3);
    expect_refused(load_list(LIST(), LIST(env)), "NUL");
    memset(big, 's', sizeof big);
    file_of(1, big, sizeof big);
    expect_refused(load_list(LIST(), LIST(env)), "larger than 64 KiB");
    file_of(1, big, sizeof big - 1);
    expect_refused(load_list(LIST(), LIST(env)), "JWT_SECRET must have 0 to 4096 bytes");
    file_text(1, SECRET32);
    expect_refused(load_list(LIST(), LIST(env, "JWT_SECRET=x")), "JWT_SECRET is set twice");
    expect_refused(load_list(LIST(), LIST("JWT_SECRET_FILE=/nonexistent/s")), "cannot read /nonexistent/s");
    expect_refused(load_yaml_text("jwt_secret: a\njwt_secret_file: b\n"), "JWT_SECRET is set twice");
}

static void no_message_shows_a_secret(void **state)
{
    (void)state;
    expect_refused(load_list(LIST(), LIST("DB_URL=mysql://root:hunter2@h/db")), "DB_URL must be sqlite:PATH");
    assert_null(strstr(why, "hunter2"));
    expect_refused(load_list(LIST("--jwt-secret=hunter2\x01"), LIST()), "JWT_SECRET must not contain control");
    assert_null(strstr(why, "hunter2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_set_gives_the_defaults),
        cmocka_unit_test(a_null_environment_is_an_empty_one),
        cmocka_unit_test(flags_beat_environment_beats_file_beats_default),
        cmocka_unit_test(every_setting_is_reachable_in_all_three_spellings),
        cmocka_unit_test(flags_take_values_both_ways_and_the_last_wins),
        cmocka_unit_test(flags_that_are_wrong_are_refused),
        cmocka_unit_test(the_width_of_a_flag_is_known_before_loading),
        cmocka_unit_test(an_empty_variable_counts_as_not_set),
        cmocka_unit_test(a_bad_variable_is_named_with_its_origin),
        cmocka_unit_test(reserved_names_are_silent_in_the_environment_and_refused_elsewhere),
        cmocka_unit_test(yaml_files_are_read),
        cmocka_unit_test(yaml_that_is_wrong_is_refused_with_its_line),
        cmocka_unit_test(yaml_files_are_bounded),
        cmocka_unit_test(secrets_come_from_files),
        cmocka_unit_test(files_of_secrets_that_are_wrong_are_refused),
        cmocka_unit_test(no_message_shows_a_secret),
    };
    return cmocka_run_group_tests_name("conf/sources", tests, scratch_make, scratch_drop);
}
