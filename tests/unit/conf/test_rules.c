/* The rules of each value, those across values, printing, help and reload; and every allocation failing once. */
#include "support.h"

static bool takes(const char *setting)
{
    return load_list(LIST(), LIST(setting)) == PFE_OK;
}

static void integers_stay_in_their_range(void **state)
{
    (void)state;
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        const struct conf_row *row = &conf_rows[id];
        char env[128];
        if (row->type != CONF_INT && row->type != CONF_DURATION && row->type != CONF_BYTES)
            continue;
        snprintf(env, sizeof env, "%s=%lld", row->name, (long long)row->min);
        assert_true(takes(env));
        assert_int_equal(conf_number(&conf, (enum conf_id)id), row->min);
        snprintf(env, sizeof env, "%s=%lld", row->name, (long long)row->max);
        assert_true(takes(env));
        assert_int_equal(conf_number(&conf, (enum conf_id)id), row->max);
        snprintf(env, sizeof env, "%s=%lld", row->name, (long long)row->min - 1);
        assert_false(takes(env));
        assert_non_null(strstr(why, row->name));
        snprintf(env, sizeof env, "%s=%lld", row->name, (long long)row->max + 1);
        assert_false(takes(env));
        snprintf(env, sizeof env, "%s=9223372036854775808", row->name);
        assert_false(takes(env));
    }
}

static void numbers_are_whole_and_plain(void **state)
{
    (void)state;
    assert_false(takes("PORT= 80"));
    assert_false(takes("PORT=80 "));
    assert_false(takes("PORT=+80"));
    assert_false(takes("PORT=0x50"));
    assert_false(takes("PORT=8e1"));
    assert_false(takes("PORT=80.0"));
    assert_false(takes("PORT=80s"));
}

static void times_and_sizes_have_units(void **state)
{
    (void)state;
    assert_true(takes("SHUTDOWN_TIMEOUT=1h"));
    assert_int_equal(conf.shutdown_timeout, 3600);
    assert_true(takes("SHUTDOWN_TIMEOUT=2m"));
    assert_int_equal(conf.shutdown_timeout, 120);
    assert_true(takes("IDLE_TIMEOUT=7s"));
    assert_int_equal(conf.idle_timeout, 7);
    assert_false(takes("SHUTDOWN_TIMEOUT=2h"));
    assert_non_null(strstr(why, "1 to 3600 s"));
    assert_false(takes("SHUTDOWN_TIMEOUT=500ms"));
    assert_false(takes("SHUTDOWN_TIMEOUT=s"));
    assert_false(takes("SHUTDOWN_TIMEOUT=2562047788015216h"));
    assert_true(takes("CACHE_BYTES=64KiB"));
    assert_int_equal(conf.cache_bytes, 65536);
    assert_true(takes("CACHE_BYTES=1TiB"));
    assert_int_equal(conf.cache_bytes, (int64_t)1 << 40);
    assert_false(takes("CACHE_BYTES=64MB"));
    assert_false(takes("CACHE_BYTES=8388608TiB"));
}

static void choices_and_bools_are_exact(void **state)
{
    (void)state;
    assert_true(takes("LOG_LEVEL=debug"));
    assert_int_equal(conf.log_level, LOG_DEBUG);
    assert_true(takes("LOG_LEVEL=warn"));
    assert_int_equal(conf.log_level, LOG_WARN);
    assert_true(takes("LOG_LEVEL=error"));
    assert_int_equal(conf.log_level, LOG_ERROR);
    assert_false(takes("LOG_LEVEL=warning"));
    assert_non_null(strstr(why, "debug|info|warn|error"));
    assert_true(takes("ENV=prod"));
    assert_int_equal(conf.env, CONF_ENV_PROD);
    assert_false(takes("ENV=production"));
    assert_false(takes("ENV=dev|staging"));
    assert_true(takes("ALLOW_OPEN_BIND=yes"));
    assert_true(conf.allow_open_bind);
    assert_true(takes("ALLOW_OPEN_BIND=1"));
    assert_true(conf.allow_open_bind);
    assert_true(takes("ALLOW_OPEN_BIND=off"));
    assert_false(conf.allow_open_bind);
    assert_false(takes("ALLOW_OPEN_BIND=TRUE"));
    assert_false(takes("ALLOW_OPEN_BIND=2"));
}

static void strings_are_bounded_clean_text(void **state)
{
    char env[8192];

    (void)state;
    assert_false(takes("DATA_DIR=a\tb"));
    assert_false(takes("DATA_DIR=a\xff"));
    assert_true(takes("DATA_DIR=/srv/Gro\xc3\x9f"));
    memset(env, 'a', sizeof env);
    memcpy(env, "DATA_DIR=", 9);
    env[9 + 3000] = '\0';
    assert_true(takes(env));
    env[9 + 3000] = 'a';
    env[9 + 3001] = '\0';
    assert_false(takes(env));
    assert_false(takes("DEFAULT_CURRENCY=usd"));
    assert_false(takes("DEFAULT_CURRENCY=US"));
    assert_false(takes("DEFAULT_CURRENCY=USDT"));
    assert_true(takes("DEFAULT_CURRENCY=JPY"));
    assert_true(takes("ALLOWED_ORIGINS=https://a.example, http://localhost:3000"));
    assert_true(takes("ALLOWED_ORIGINS=*"));
    assert_false(takes("ALLOWED_ORIGINS=a.example"));
    assert_false(takes("ALLOWED_ORIGINS=https://a.example/"));
    assert_false(takes("ALLOWED_ORIGINS=https://"));
    assert_false(takes("ALLOWED_ORIGINS=https://a.example,,"));
    assert_false(takes("ALLOWED_ORIGINS=https://a b"));
    assert_false(takes("ALLOWED_ORIGINS=https://me@a"));
}

struct listen_case {
    const char *text, *host;
    int port; /* -1: none */
    bool loopback;
};

static void listen_addresses_are_read(void **state)
{
    static const struct listen_case good[] = {
        {"127.0.0.1", "127.0.0.1", -1, true},
        {"127.9.9.9:1", "127.9.9.9", 1, true},
        {"localhost:81", "127.0.0.1", 81, true},
        {"0.0.0.0:80", "0.0.0.0", 80, false},
        {"*:80", "0.0.0.0", 80, false},
        {":80", "0.0.0.0", 80, false},
        {"10.0.0.1", "10.0.0.1", -1, false},
        {"[::1]:80", "::1", 80, true},
        {"[::1]", "::1", -1, true},
        {"[::]:80", "::", 80, false},
        {"[2001:db8::1]:443", "2001:db8::1", 443, false},
        {"[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1", 80, true},
        {"[::ffff:10.0.0.1]", "::ffff:10.0.0.1", -1, false},
        {"127.0.0.1:0", "127.0.0.1", 0, true},
    };
    static const char *const bad[] = {"",
                                      "127.0.0.1:",
                                      "127.0.0.1:65536",
                                      "127.0.0.1:-1",
                                      "127.0.0.1:+1",
                                      "127.0.0.1:80a",
                                      "256.0.0.1",
                                      "example.com:80",
                                      "::1",
                                      "[::1",
                                      "[::1]80",
                                      "[127.0.0.1]:80",
                                      "[localhost]:80",
                                      "127.0.0.1:000080",
                                      "1.2.3",
                                      "[::g]:80"};
    char host[64];
    bool loopback;
    int64_t port;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        if (!conf_parse_listen(str_c(good[i].text), host, &loopback, &port))
            fail_msg("refused %s", good[i].text);
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
        assert_int_equal(loopback, good[i].loopback);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (*bad[i] && conf_parse_listen(str_c(bad[i]), host, &loopback, &port))
            fail_msg("took %s", bad[i]);
    expect_refused(load_list(LIST("--listen="), LIST()), "LISTEN must have 1 to 64 bytes");
    expect_refused(load_list(LIST("--listen=example.com"), LIST()), "LISTEN must be HOST");
}

static void the_port_of_listen_counts_unless_port_is_set_stronger(void **state)
{
    (void)state;
    expect_ok(load_list(LIST("--listen=127.0.0.1:7"), LIST("PORT=8")));
    assert_int_equal(conf.listen_port, 7);
    expect_ok(load_list(LIST("--port=8"), LIST("LISTEN=127.0.0.1:7")));
    assert_int_equal(conf.listen_port, 8);
    expect_ok(load_list(LIST("--port=8", "--listen=127.0.0.1:7"), LIST()));
    assert_int_equal(conf.listen_port, 7);
    expect_ok(load_list(LIST("--listen=127.0.0.1"), LIST("PORT=8")));
    assert_int_equal(conf.listen_port, 8);
    expect_ok(load_list(LIST("--port=0"), LIST()));
    assert_int_equal(conf.listen_port, 0);
}

static void the_store_is_a_directory(void **state)
{
    (void)state;
    assert_true(takes("DB_URL=sqlite:/srv/books/payflow.db"));
    assert_string_equal(conf.store_dir, "/srv/books");
    assert_true(takes("DB_URL=sqlite:/srv/books/"));
    assert_string_equal(conf.store_dir, "/srv/books");
    assert_true(takes("DB_URL=sqlite:/payflow.db"));
    assert_string_equal(conf.store_dir, "/");
    assert_true(takes("DB_URL=sqlite:payflow.db"));
    assert_string_equal(conf.store_dir, ".");
    assert_true(takes("DB_URL=sqlite:./x"));
    assert_string_equal(conf.store_dir, "./x");
    assert_true(takes("DATA_DIR=/srv/payflow.db"));
    assert_string_equal(conf.store_dir, "/srv/payflow.db");
    expect_refused(load_list(LIST(), LIST("DB_URL=sqlite:/srv/other.db")), "the file payflow.db in one");
    expect_refused(load_list(LIST(), LIST("DB_URL=sqlite:x.sqlite3")), "DB_URL must name a directory");
    expect_refused(load_list(LIST(), LIST("DB_URL=sqlite:")), "DB_URL must name a path");
    expect_refused(load_list(LIST(), LIST("DB_URL=sqlite::memory:")), "outlive");
    expect_refused(load_list(LIST(), LIST("DB_URL=/srv/x")), "DB_URL must be sqlite:PATH");
}

static void a_server_is_named_by_url_or_host(void **state)
{
    (void)state;
    assert_true(takes("DATA_DIR=/srv/x"));
    assert_false(conf.postgres);
    assert_true(takes("DB_URL=postgres://u:p@h/db"));
    assert_true(conf.postgres);
    assert_string_equal(conf.store_dir, "./data");
    assert_true(takes("DB_URL=postgresql://h/db"));
    assert_true(conf.postgres);
    expect_ok(load_list(LIST(), LIST("DB_HOST=a,b", "DB_PORT=5432,5433", "DB_USER=u", "DB_PASSWORD=p", "DB_NAME=n")));
    assert_true(conf.postgres);
    assert_string_equal(conf.db_password, "p");
    assert_int_equal(conf.db_max_open_conns, 25);
    /* other settings of a server alone name none */
    expect_ok(load_list(LIST(), LIST("DB_PORT=5432", "DB_USER=u")));
    assert_false(conf.postgres);
    expect_refused(load_list(LIST(), LIST("DB_URL=sqlite:x", "DB_HOST=h")), "DB_URL names an SQLite store");
    expect_ok(load_list(LIST(), LIST("DB_READ_HOST_2=h")));
    assert_int_equal(conf_check_serve(&conf, why), PFE_INVALID);
    assert_non_null(strstr(why, "DB_READ_HOST_2 (from env DB_READ_HOST_2) is a replica"));
    expect_refused(load_list(LIST(), LIST("DB_READ_PORT_1=0")), "DB_READ_PORT_1 must be");
    expect_refused(load_list(LIST(), LIST("DB_READ_WEIGHT_8=1001")), "DB_READ_WEIGHT_8 must be");
    expect_refused(load_list(LIST(), LIST("DB_HOST=h", "DB_READ_HOST_9=r")), "DB_READ_HOST_9 is no setting: replicas");
    expect_refused(load_list(LIST(), LIST("DB_READ_PORT_0=1")), "DB_READ_PORT_0 is no setting");
    expect_refused(load_list(LIST(), LIST("DB_READ_WEIGHT_01=1")), "DB_READ_WEIGHT_01 is no setting");
    expect_ok(load_list(LIST(), LIST("DB_READ_ELSEWHERE=1", "DB_READ_HOST_9=")));
    expect_ok(load_list(LIST(), LIST("DB_HOST=h", "DB_READ_HOST_2=r", "DB_READ_WEIGHT_2=7")));
    expect_ok(conf_check_serve(&conf, why));
    assert_string_equal(conf.db_read[0].host, "");
    assert_string_equal(conf.db_read[1].host, "r");
    assert_int_equal(conf.db_read[1].port, 5432);
    assert_int_equal(conf.db_read[1].weight, 7);
    expect_refused(load_list(LIST(), LIST("DB_HOST=h", "DB_PORT=0")), "DB_PORT must be port numbers");
    expect_refused(load_list(LIST(), LIST("DB_HOST=h", "DB_PORT=5432,")), "DB_PORT must be port numbers");
    expect_refused(load_list(LIST(), LIST("DB_HOST=h", "DB_PORT=5432x")), "DB_PORT must be port numbers");
    expect_refused(load_list(LIST(), LIST("DB_SSLMODE=maybe")), "DB_SSLMODE must be disable");
    expect_refused(load_list(LIST(), LIST("DB_MAX_OPEN_CONNS=2")), "DB_MAX_OPEN_CONNS must be");
}

static void expect_redis(const char *host, int port, const char *user, const char *password, int db)
{
    assert_true(conf.redis.used);
    assert_string_equal(conf.redis.host, host);
    assert_int_equal(conf.redis.port, port);
    assert_string_equal(conf.redis.user, user);
    assert_string_equal(conf.redis.password, password);
    assert_int_equal(conf.redis.db, db);
}

static void redis_is_named_by_url_or_host(void **state)
{
    static const char *const wrong[] = {
        "x",          "http://h",       "redis://",       "redis://h:0",     "redis://h:65536",
        "redis://h:", "redis://u@h",    "redis://h/x",    "redis://h/65536", "redis://[::1",
        "unix:",      "unix:relative",  "redis://:%zz@h", "redis://:%0@h",   "redis://:%00@h",
        "redis://:%", "redis://:p@h:x", "redis://[::1]6", "redis://:%1f@h",  "redis://:%4@h"};

    (void)state;
    assert_true(takes("PORT=1"));
    assert_false(conf.redis.used);
    assert_true(takes("REDIS_PORT=1"));
    assert_false(conf.redis.used);
    assert_true(takes("REDIS_URL=redis://h"));
    expect_redis("h", 6379, "", "", 0);
    assert_true(takes("REDIS_URL=redis://u:p%40%3a%2F@h.example:7/3"));
    expect_redis("h.example", 7, "u", "p@:/", 3);
    assert_true(takes("REDIS_URL=redis://:p:@w@[::1]:7/"));
    expect_redis("::1", 7, "", "p:@w", 0);
    assert_true(takes("REDIS_URL=unix:/run/redis.sock"));
    expect_redis("/run/redis.sock", 6379, "", "", 0);
    expect_ok(load_list(LIST(), LIST("REDIS_URL=redis://u:p@h:7/3", "REDIS_HOST=g", "REDIS_PORT=8",
                                     "REDIS_USERNAME=v%41", "REDIS_PASSWORD=q%41", "REDIS_DB=0")));
    expect_redis("g", 8, "v%41", "q%41", 0);
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[64];
        snprintf(text, sizeof text, "REDIS_URL=%s", wrong[i]);
        expect_refused(load_list(LIST(), LIST(text)), "REDIS_URL");
    }
    expect_refused(load_list(LIST(), LIST("REDIS_URL=rediss://h")), "TLS");
    expect_refused(load_list(LIST(), LIST("REDIS_CLUSTER=true")), "Redis Cluster is not supported");
    expect_refused(load_list(LIST(), LIST("REDIS_POOL_SIZE=0")), "REDIS_POOL_SIZE");
}

static void tls_needs_both_files(void **state)
{
    (void)state;
    expect_refused(load_list(LIST("--tls-cert=c.pem"), LIST()), "TLS_CERT is set without TLS_KEY");
    expect_refused(load_list(LIST("--tls-key=k.pem"), LIST()), "TLS_KEY is set without TLS_CERT");
    expect_ok(load_list(LIST("--tls-key=k.pem"), LIST("TLS_CERT=c.pem")));
    assert_string_equal(conf.tls_cert, "c.pem");
    assert_string_equal(conf.tls_key, "k.pem");
}

static void trusted_proxies_are_addresses_and_networks(void **state)
{
    (void)state;
    expect_ok(load_list(LIST(), LIST("TRUSTED_PROXIES=127.0.0.1, 10.0.0.0/8 ,::1,2001:db8::/32")));
    expect_refused(load_list(LIST(), LIST("TRUSTED_PROXIES=nginx")), "TRUSTED_PROXIES: \"nginx\" is neither");
    expect_refused(load_list(LIST("--trusted-proxies=::1,10.0.0.1/8"), LIST()), "\"10.0.0.1/8\" is neither");
}

static void weak_hashes_are_for_dev_only(void **state)
{
    (void)state;
    assert_true(takes("BCRYPT_COST=4"));
    expect_refused(load_list(LIST(), LIST("BCRYPT_COST=9", "ENV=prod")), "BCRYPT_COST must be at least 10");
    expect_refused(load_list(LIST(), LIST("BCRYPT_COST=4", "ENV=staging")), "(from env BCRYPT_COST)");
    expect_ok(load_list(LIST(), LIST("BCRYPT_COST=10", "ENV=prod")));
}

static void serving_live_needs_a_real_secret(void **state)
{
    (void)state;
    expect_ok(load_list(LIST(), LIST("ENV=prod")));
    assert_int_equal(conf_check_serve(&conf, why), PFE_INVALID);
    assert_non_null(strstr(why, "JWT_SECRET is missing: ENV=prod"));
    expect_ok(load_list(LIST(), LIST("ENV=staging", "JWT_SECRET=0123456789abcdef0123456789abcde")));
    assert_int_equal(conf_check_serve(&conf, why), PFE_INVALID);
    assert_non_null(strstr(why, "at least 32 bytes when ENV=staging"));
    assert_null(strstr(why, "abcdef"));
    expect_ok(load_list(LIST(), LIST("ENV=prod", "JWT_SECRET=your-super-secret-jwt-key-change-in-production")));
    assert_int_equal(conf_check_serve(&conf, why), PFE_INVALID);
    assert_non_null(strstr(why, "published sample"));
    expect_ok(load_list(LIST(), LIST("ENV=prod", "JWT_SECRET=" SECRET32, "LISTEN=*")));
    assert_int_equal(conf_check_serve(&conf, why), PFE_OK);
    expect_ok(load_list(LIST(), LIST("JWT_SECRET=short")));
    assert_int_equal(conf_check_serve(&conf, why), PFE_OK);
    expect_ok(load_list(LIST(), LIST("JWT_SECRET=your-super-secret-jwt-key-change-in-production")));
    assert_int_equal(conf_check_serve(&conf, why), PFE_OK);
}

static void dev_binds_to_loopback_unless_told(void **state)
{
    static const char *const open[] = {"--listen=*", "--listen=0.0.0.0:80", "--listen=[::]:80", "--listen=10.1.2.3"};

    (void)state;
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
        expect_ok(load_list(LIST(open[i]), LIST()));
        assert_int_equal(conf_check_serve(&conf, why), PFE_INVALID);
        assert_non_null(strstr(why, "ALLOW_OPEN_BIND=true"));
        expect_ok(load_list(LIST(open[i]), LIST("ALLOW_OPEN_BIND=true")));
        assert_int_equal(conf_check_serve(&conf, why), PFE_OK);
    }
    expect_ok(load_list(LIST("--listen=[::1]:80"), LIST()));
    assert_int_equal(conf_check_serve(&conf, why), PFE_OK);
}

struct text {
    char p[32768];
    size_t n;
};

static void collect(void *ctx, const char *p, size_t n)
{
    struct text *t = ctx;

    assert_true(t->n + n < sizeof t->p);
    memcpy(t->p + t->n, p, n);
    t->n += n;
    t->p[t->n] = '\0';
}

static void printing_shows_origins_and_masks_secrets(void **state)
{
    static struct text t;
    unsigned lines = 0;

    (void)state;
    expect_ok(load_list(LIST("--port=81", "--data=a\"b\\c"), LIST("JWT_SECRET=" SECRET32, "ENV=prod")));
    t.n = 0;
    conf_print(&conf, false, collect, &t);
    for (const char *c = t.p; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, CONF_COUNT);
    assert_null(strstr(t.p, SECRET32));
    assert_non_null(strstr(t.p, "\nJWT_SECRET           ******** "));
    assert_int_equal(strncmp(t.p, "PORT                 81 ", 24), 0);
    assert_non_null(strstr(t.p, " --port\n"));
    assert_non_null(strstr(t.p, " env ENV\n"));
    assert_non_null(strstr(t.p, " default\n"));

    t.n = 0;
    conf_print(&conf, true, collect, &t);
    assert_null(strstr(t.p, SECRET32));
    assert_non_null(strstr(t.p, "\"PORT\":{\"value\":81,\"origin\":\"--port\"}"));
    assert_non_null(strstr(t.p, "\"JWT_SECRET\":{\"value\":\"********\",\"origin\":\"env JWT_SECRET\"}"));
    assert_non_null(strstr(t.p, "\"DB_URL\":{\"value\":\"\",\"origin\":\"default\"}"));
    assert_non_null(strstr(t.p, "\"DATA_DIR\":{\"value\":\"a\\\"b\\\\c\""));
    assert_non_null(strstr(t.p, "\"ALLOW_OPEN_BIND\":{\"value\":false,"));
    assert_non_null(strstr(t.p, "\"CACHE_BYTES\":{\"value\":67108864,"));
    assert_non_null(strstr(t.p, "\"ENV\":{\"value\":\"prod\","));
    assert_int_equal(t.p[0], '{');
    assert_string_equal(t.p + t.n - 3, "\n}\n");
}

static void help_names_every_setting(void **state)
{
    static struct text t;

    (void)state;
    t.n = 0;
    conf_help(collect, &t);
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        assert_non_null(strstr(t.p, conf_rows[id].name));
        assert_non_null(strstr(t.p, conf_rows[id].help));
        assert_string_equal(conf_name((enum conf_id)id), conf_rows[id].name);
    }
    assert_non_null(strstr(t.p, "--config FILE"));
    assert_non_null(strstr(t.p, "--data DIR  (DATA_DIR; default ./data)"));
    assert_non_null(strstr(t.p, "--tls-cert FILE"));
    assert_non_null(strstr(t.p, "JWT_SECRET_FILE"));
}

static void reload_takes_what_may_change_and_names_the_rest(void **state)
{
    struct conf_input in = {.args = LIST("--config", file_text(0, "rate_limit: 5\nlog_level: info\nport: 81\n")),
                            .n_args = 2};
    struct conf_change changes[CONF_COUNT];
    struct conf fresh;

    (void)state;
    conf_free(&conf);
    expect_ok(conf_load(&in, &conf, why));
    file_text(0, "rate_limit: 6\nlog_level: debug\nport: 82\nallowed_origins: ''\ncache_bytes: 65536KiB\n");
    expect_ok(conf_load(&in, &fresh, why));
    assert_int_equal(conf_reload(&conf, &fresh, changes), 4);
    conf_free(&fresh);
    assert_int_equal(changes[0].id, CONF_PORT);
    assert_false(changes[0].applied);
    assert_int_equal(changes[1].id, CONF_RATE_LIMIT);
    assert_true(changes[1].applied);
    assert_int_equal(changes[2].id, CONF_ALLOWED_ORIGINS);
    assert_false(changes[2].applied);
    assert_int_equal(changes[3].id, CONF_LOG_LEVEL);
    assert_true(changes[3].applied);
    assert_int_equal(conf.rate_limit, 6);
    assert_string_equal(conf.values[CONF_RATE_LIMIT].text, "6");
    assert_int_equal(conf.log_level, LOG_DEBUG);
    assert_int_equal(conf.port, 81);
    assert_string_equal(conf.values[CONF_PORT].text, "81");
    assert_string_equal(conf.allowed_origins, "*");
    expect_ok(conf_load(&in, &fresh, why));
    assert_int_equal(conf_reload(&conf, &fresh, changes), 2);
    conf_free(&fresh);
}

static void freeing_twice_is_harmless(void **state)
{
    (void)state;
    expect_ok(load_list(LIST(), LIST("JWT_SECRET=" SECRET32)));
    conf_free(&conf);
    conf_free(&conf);
    assert_null(conf.values[CONF_JWT_SECRET].text);
}

/* The linker sends this program's own calls here (see meson.build); libyaml's stay as they are. */
static long allocations_left = -1;

static bool may_allocate(void)
{
    return allocations_left < 0 || allocations_left-- > 0;
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
char *__real_strdup(const char *s);
char *__wrap_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
char *__wrap_strndup(const char *s, size_t n);

void *__wrap_malloc(size_t n)
{
    return may_allocate() ? __real_malloc(n) : NULL;
}

char *__wrap_strdup(const char *s)
{
    return may_allocate() ? __real_strdup(s) : NULL;
}

char *__wrap_strndup(const char *s, size_t n)
{
    return may_allocate() ? __real_strndup(s, n) : NULL;
}

static void every_allocation_may_fail(void **state)
{
    char env[128];
    struct conf_input in = {.args = LIST("--port=81", "--config", file_text(0, "log_level: warn\n")), .n_args = 3};
    const char *list[2] = {env, NULL};
    enum pf_err e = PFE_NOMEM;
    long n;

    (void)state;
    snprintf(env, sizeof env, "JWT_SECRET_FILE=%s", file_text(1, SECRET32));
    in.env = list;
    for (n = 0; e == PFE_NOMEM && n < 1000; n++) {
        conf_free(&conf);
        allocations_left = n;
        e = conf_load(&in, &conf, why);
        allocations_left = -1;
        if (e != PFE_OK)
            assert_non_null(strstr(why, "out of memory"));
    }
    assert_int_equal(e, PFE_OK);
    assert_true(n > 2 * CONF_COUNT);
    assert_string_equal(conf.jwt_secret, SECRET32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_stay_in_their_range),
        cmocka_unit_test(numbers_are_whole_and_plain),
        cmocka_unit_test(times_and_sizes_have_units),
        cmocka_unit_test(choices_and_bools_are_exact),
        cmocka_unit_test(strings_are_bounded_clean_text),
        cmocka_unit_test(listen_addresses_are_read),
        cmocka_unit_test(the_port_of_listen_counts_unless_port_is_set_stronger),
        cmocka_unit_test(the_store_is_a_directory),
        cmocka_unit_test(a_server_is_named_by_url_or_host),
        cmocka_unit_test(redis_is_named_by_url_or_host),
        cmocka_unit_test(tls_needs_both_files),
        cmocka_unit_test(trusted_proxies_are_addresses_and_networks),
        cmocka_unit_test(weak_hashes_are_for_dev_only),
        cmocka_unit_test(serving_live_needs_a_real_secret),
        cmocka_unit_test(dev_binds_to_loopback_unless_told),
        cmocka_unit_test(printing_shows_origins_and_masks_secrets),
        cmocka_unit_test(help_names_every_setting),
        cmocka_unit_test(reload_takes_what_may_change_and_names_the_rest),
        cmocka_unit_test(freeing_twice_is_harmless),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("conf/rules", tests, scratch_make, scratch_drop);
}
