/* payflow serve: everything, wired together; started and stopped in one place. */
#include "main/main.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/api.h"
#include "base/log.h"
#include "base/pool.h"
#include "cache/local/local.h"
#include "cache/redis/redis.h"
#include "codec/crypt.h"
#include "base/rand.h"
#include "http/http.h"
#include "main/ticketing.h"
#include "port/registry.h"
#include "rpc/rpc.h"
#include "worker/lease.h"
#include "worker/scheduler.h"

enum { WORK_QUEUE = 8192, HASH_QUEUE = 256 };
/* How long readiness fails before new connections are refused: a balancer's check gets to see it. */
enum { DRAIN_GRACE_MS = 500 };
/* Open files for all that is not a client: the store's connections, one a worker (at most 256) with the files that
 * SQLite opens in passing, epoll and event descriptors, logs. Out of these, commits would fail. */
enum { FILES_KEPT = 1024 };

struct server {
    struct metrics *metrics;
    struct store *store;
    struct cache *cache;
    struct pool *workers, *hashers;
    struct app *app;
    struct api *api;
    struct http_server *http, *gateway; /* the same on both; gateway may be NULL */
    struct rpc_server *rpc;             /* may be NULL */
    struct ticketing *ticketing;
    struct ticker *keeper, *scheduler;
    struct registry *registry; /* where this instance is registered; NULL: nowhere */
    _Atomic bool draining, fatal;
};

static bool is_draining(void *ctx)
{
    return ((struct server *)ctx)->draining;
}

static void on_fatal(void *ctx)
{
    struct server *s = ctx;
    s->fatal = true;
    kill(getpid(), SIGTERM);
}

/* Makes the file with a secret, whole from the first moment: others that start now, over the same directory, read it
   too. true: it is there, perhaps by one of them. */
static bool keep_secret(const char *path)
{
    char own[4300], text[65];
    uint8_t raw[32];
    rand_bytes(raw, sizeof raw);
    hex_encode(raw, sizeof raw, text);
    snprintf(own, sizeof own, "%s.%ld", path, (long)getpid());
    unlink(own);
    int fd = open(own, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    bool ok = write(fd, text, 64) == 64 && fsync(fd) == 0 && (link(own, path) == 0 || errno == EEXIST);
    close(fd);
    unlink(own);
    return ok;
}

bool main_jwt_secret(const struct conf *c, char *out, size_t cap, size_t *ret_n, char why[256])
{
    size_t n = strlen(c->jwt_secret);
    if (n) {
        memcpy(out, c->jwt_secret, n < cap ? n : cap);
        *ret_n = n < cap ? n : cap;
        return true;
    }
    /* dev: one of our own making, kept so that tokens outlive a restart; with a store elsewhere, in a directory of its
       own making too */
    char path[4200];
    if (c->postgres)
        mkdir(c->store_dir, 0700);
    snprintf(path, sizeof path, "%s/jwt.secret", c->store_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && keep_secret(path))
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        snprintf(why, 256, "cannot keep a token secret in DATA_DIR: set JWT_SECRET");
        return false;
    }
    ssize_t got = read(fd, out, cap);
    close(fd);
    if (got < CONF_JWT_SECRET_MIN) {
        snprintf(why, 256, "jwt.secret in DATA_DIR is damaged: remove it, or set JWT_SECRET");
        return false;
    }
    *ret_n = (size_t)got;
    return true;
}

static int fail(const char *why)
{
    log_flush();
    fprintf(stderr, "payflow: %s\n", why);
    return EXIT_FAILED;
}

/* Raises the limit of open files as far as it goes; how many connections each of so many addresses can have within it.
 */
static unsigned connections_within(int64_t wanted, unsigned addresses)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return (unsigned)wanted;
    rlim_t before = files.rlim_cur;
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0)
        files.rlim_cur = before;
    rlim_t room = files.rlim_cur > 2 * FILES_KEPT ? files.rlim_cur - FILES_KEPT : files.rlim_cur / 2;
    room /= addresses;
    if (files.rlim_cur == RLIM_INFINITY || (rlim_t)wanted <= room)
        return (unsigned)wanted;
    log_msg(LOG_WARN, "MAX_CONNECTIONS is more than the limit of open files allows (ulimit -Hn)",
            LOG_I("max_connections", wanted), LOG_I("open_files", (int64_t)files.rlim_cur),
            LOG_I("connections", (int64_t)room));
    return (unsigned)room;
}

static bool say_word(void *ctx, const char *process, const char *word, struct cache_words *ret)
{
    struct store_words w;
    if (store_word_say(ctx, process, word, &w) != PFE_OK)
        return false;
    *ret = (struct cache_words){.apart = w.apart, .speaking = w.speaking, .fresh = w.fresh};
    return true;
}

static void end_word(void *ctx, const char *process)
{
    store_word_end(ctx, process);
}

/* The shared tier behind the local one, which it takes over. Values of another build may be laid out differently, so it
 * is part of what they are signed with. */
static struct cache *cache_tiers(const struct conf *c, struct str secret, struct cache *local, struct store *store)
{
    struct cache_redis_options o = {.host = c->redis.host,
                                    .port = c->redis.port,
                                    .user = c->redis.user,
                                    .password = c->redis.password,
                                    .db = c->redis.db,
                                    .pool_size = (unsigned)c->redis_pool_size,
                                    .min_idle = (unsigned)c->redis_min_idle_conns,
                                    .local = local,
                                    .say = store_shared(store) ? say_word : NULL,
                                    .end = end_word,
                                    .ctx = store};
    struct breaker_config breaker = main_breaker(c, "redis", cache_redis_breaker());
    o.breaker = &breaker;
    hmac_sha256(secret, str_c(main_build()), o.secret);
    struct cache *both = cache_redis_new(&o);
    explicit_bzero(o.secret, sizeof o.secret);
    return both;
}

/* The second address. false: it was asked for, and is not to be had; why says so. */
static bool start_gateway(struct server *s, const struct conf *c, struct http_config hc, enum listen_duty duty,
                          char why[256])
{
    bool asked = c->values[CONF_GATEWAY_LISTEN].source != CONF_DEFAULT || duty == LISTEN_NEEDED;
    if (!c->gateway_host[0] || duty == LISTEN_NEVER || (!asked && duty == LISTEN_IF_SET))
        return true;
    hc.host = c->gateway_host;
    hc.port = c->gateway_port;
    s->gateway = http_server_start(&hc, why);
    if (s->gateway)
        log_msg(LOG_INFO, "listening", LOG_S("host", c->gateway_host), LOG_I("port", http_server_port(s->gateway)),
                LOG_S("scheme", hc.tls_cert ? "https" : "http"), LOG_S("setting", "GATEWAY_LISTEN"));
    else if (!asked)
        log_msg(LOG_WARN, "serving without the gateway's address; GATEWAY_LISTEN names another, or off",
                LOG_S("why", why));
    return s->gateway || !asked;
}

/* The address for gRPC, in the same way. */
static bool start_rpc(struct server *s, const struct conf *c, const struct http_config *hc, enum listen_duty duty,
                      char why[256])
{
    bool asked = c->values[CONF_GRPC_LISTEN].source != CONF_DEFAULT || duty == LISTEN_NEEDED;
    struct rpc_config rc = {.host = c->grpc_host,
                            .port = c->grpc_port,
                            .threads = hc->threads,
                            .max_connections = hc->max_connections,
                            .tls_cert = hc->tls_cert,
                            .tls_key = hc->tls_key,
                            .ctx = s->api,
                            .metrics = s->metrics,
                            .clock = clock_system(),
                            .access_log = true};
    if (!c->grpc_host[0] || duty == LISTEN_NEVER || (!asked && duty == LISTEN_IF_SET))
        return true;
    api_rpc_methods(&rc);
    s->rpc = rpc_server_start(&rc, why);
    if (s->rpc)
        log_msg(LOG_INFO, "listening", LOG_S("host", c->grpc_host), LOG_I("port", rpc_server_port(s->rpc)),
                LOG_S("scheme", rc.tls_cert ? "grpcs" : "grpc"), LOG_S("setting", "GRPC_LISTEN"));
    else if (!asked)
        log_msg(LOG_WARN, "serving without the address for gRPC; GRPC_LISTEN names another, or off", LOG_S("why", why));
    return s->rpc || !asked;
}

static int start(struct server *s, const struct conf *c, const struct duties *d)
{
    char why[256] = "out of memory or threads";
    if (c->consul_http_addr[0] && main_registry_open(c, &s->registry, why) != PFE_OK) {
        fail(why);
        return EXIT_CONF;
    }
    s->metrics = metrics_new();
    if (!s->metrics)
        return fail(why);
    enum pf_err e = main_store_open(c, false, s->metrics, &s->store, why);
    if (e != PFE_OK) {
        fail(why);
        return e == PFE_WRONG_STATE ? EXIT_CONF : EXIT_FAILED;
    }
    e = main_ticketing_open(c, d, s->store, s->metrics, &s->ticketing, why);
    if (e != PFE_OK) {
        fail(why);
        return e == PFE_WRONG_STATE ? EXIT_CONF : EXIT_FAILED;
    }
    char secret[4096];
    size_t secret_n;
    if (!main_jwt_secret(c, secret, sizeof secret, &secret_n, why))
        return fail(why);
    const struct money_currency_info *currency = money_by_code(str_c(c->default_currency));
    struct cache_local_options co = {
        .max_entries = (uint64_t)c->cache_entries, .max_bytes = (uint64_t)c->cache_bytes, .clock = clock_system()};
    s->cache = cache_local_new(&co);
    if (s->cache && c->redis.used) {
        struct cache *both = cache_tiers(c, (struct str){secret, secret_n}, s->cache, s->store);
        if (!both)
            return fail(why);
        s->cache = both;
    }
    s->workers = pool_new("workers", (unsigned)c->worker_threads, WORK_QUEUE);
    s->hashers = pool_new("hashers", (unsigned)c->hash_threads, HASH_QUEUE);
    if (!s->cache || !s->workers || !s->hashers)
        return fail(why);
    metrics_add_process(s->metrics);
    main_pool_gauges(s->metrics, s->workers);
    main_pool_gauges(s->metrics, s->hashers);
    main_cache_gauges(s->metrics, s->cache);
    main_store_gauges(s->metrics, s->store);
    main_log_gauges(s->metrics);
    struct app_config ac = {.dev = c->env == CONF_ENV_DEV,
                            .trials = c->env != CONF_ENV_PROD,
                            .bcrypt_cost = (int)c->bcrypt_cost,
                            .password_min = c->env == CONF_ENV_DEV ? 3 : 8,
                            .jwt_secret = {secret, secret_n},
                            .currency = currency->num,
                            .rate_limit = c->rate_limit,
                            .fallback = main_fallback(c),
                            .queue_capacity = (size_t)c->queue_capacity,
                            .group_max = (unsigned)c->group_max,
                            .booking_lock_us = c->booking_lock * 1000,
                            .booking_hold_us = c->booking_hold * 1000000,
                            .jobs_elsewhere = ~d->jobs};
    struct app_deps ad = {.store = s->store,
                          .cache = s->cache,
                          .clock = clock_system(),
                          .metrics = s->metrics,
                          .documents = main_ticketing_documents(s->ticketing),
                          .bus = main_ticketing_bus(s->ticketing),
                          .on_fatal = on_fatal,
                          .fatal_ctx = s};
    s->app = app_new(&ac, &ad);
    explicit_bzero(secret, sizeof secret);
    if (!s->app)
        return fail(why);
    struct api_config apc = {.app = s->app,
                             .workers = s->workers,
                             .hashers = s->hashers,
                             .metrics = s->metrics,
                             .version = main_version(),
                             .surfaces = d->surfaces,
                             .trusted_proxies = c->trusted_proxies,
                             .draining = is_draining,
                             .ctx = s};
    s->api = api_new(&apc);
    if (!s->api)
        return fail(why);
    bool port_set = c->values[CONF_PORT].source != CONF_DEFAULT || conf_listen_has_port(c);
    unsigned addresses = 1u + (c->gateway_host[0] ? 1u : 0) + (c->grpc_host[0] ? 1u : 0);
    struct http_config hc = {.host = c->listen_host,
                             .port = port_set ? c->listen_port : d->port,
                             .threads = (unsigned)c->http_threads,
                             .max_connections = connections_within(c->max_connections, addresses),
                             .idle_timeout_s = (unsigned)c->idle_timeout,
                             .tls_cert = c->tls_cert[0] ? c->tls_cert : NULL,
                             .tls_key = c->tls_key[0] ? c->tls_key : NULL,
                             .allowed_origins = c->allowed_origins,
                             .trusted_proxies = c->trusted_proxies,
                             .handler = api_handle,
                             .early = api_early,
                             .ctx = s->api,
                             .metrics = s->metrics,
                             .clock = clock_system(),
                             .access_log = true};
    hc.routes = api_routes(s->api, &hc.n_routes);
    if (!start_gateway(s, c, hc, d->gateway, why))
        return fail(why);
    if (!start_rpc(s, c, &hc, d->grpc, why)) {
        fail(why);
        return EXIT_CONF;
    }
    s->http = http_server_start(&hc, why);
    if (!s->http)
        return fail(why);
    s->keeper = lease_keeper_start(s->app);
    s->scheduler = scheduler_start(s->app); /* does what it has the leases for */
    if (!s->keeper || !s->scheduler || !main_ticketing_start(s->ticketing, s->app))
        return fail("out of memory or threads");
    log_msg(LOG_INFO, "listening", LOG_S("host", c->listen_host), LOG_I("port", http_server_port(s->http)),
            LOG_S("scheme", hc.tls_cert ? "https" : "http"), LOG_S("version", main_version()));
    main_registry_announce(c, s->registry, c->listen_host, http_server_port(s->http));
    if (s->gateway)
        main_registry_announce(c, s->registry, c->gateway_host, http_server_port(s->gateway));
    if (s->rpc)
        main_registry_announce(c, s->registry, c->grpc_host, rpc_server_port(s->rpc));
    return EXIT_OK;
}

/* First of all, so that nobody is sent here any more, and another instance goes on with them while this one drains. */
static void stop_jobs(struct server *s)
{
    registry_close(s->registry);
    s->registry = NULL;
    ticker_stop(s->scheduler);
    main_ticketing_stop(s->ticketing);
    lease_keeper_stop(s->keeper, s->app);
    s->scheduler = s->keeper = NULL;
}

/* Of the time until then, ms. */
static unsigned left_ms(int64_t until_us)
{
    int64_t left = (until_us - clock_mono(clock_system())) / 1000;
    return left > 0 ? (unsigned)left : 0;
}

static void stop(struct server *s, unsigned wait_ms)
{
    stop_jobs(s);
    if (s->gateway)
        http_server_drain(s->gateway);
    if (s->http)
        http_server_drain(s->http);
    if (s->rpc)
        rpc_server_drain(s->rpc);
    int64_t until = clock_mono(clock_system()) + (int64_t)wait_ms * 1000;
    if (s->gateway)
        http_server_stop(s->gateway, wait_ms);
    if (s->rpc)
        rpc_server_stop(s->rpc, left_ms(until));
    if (s->http)
        http_server_stop(s->http, left_ms(until));
    pool_free(s->workers);
    pool_free(s->hashers);
    app_free(s->app);
    api_free(s->api);
    cache_close(s->cache);
    main_ticketing_close(s->ticketing);
    store_close(s->store);
    metrics_free(s->metrics);
}

static void reload(struct server *s, struct conf *running, const struct conf_input *in)
{
    struct conf fresh;
    char why[CONF_WHY_MAX];
    struct conf_change changes[CONF_COUNT];
    if (conf_load(in, &fresh, why) != PFE_OK) {
        log_msg(LOG_ERROR, "settings not reloaded", LOG_S("why", why));
        return;
    }
    size_t n = conf_reload(running, &fresh, changes);
    for (size_t i = 0; i < n; i++)
        log_msg(changes[i].applied ? LOG_INFO : LOG_WARN,
                changes[i].applied ? "setting reloaded" : "setting needs a restart",
                LOG_S("setting", conf_name(changes[i].id)));
    conf_free(&fresh);
    log_set_level(running->log_level);
    app_set_rate_limit(s->app, running->rate_limit);
}

static void say_ignored(void *ctx, const char *name, size_t n)
{
    (void)ctx;
    log_msg(LOG_WARN, "this setting is not supported by this build and has no effect",
            LOG_STR("setting", ((struct str){name, n})));
}

/* Who asks for one of the services sees it as soon as who asks for readiness. */
static void say_not_serving(struct rpc_server *s)
{
    struct rpc_config c = {0};
    api_rpc_methods(&c);
    rpc_health_set(s, "", false);
    for (size_t i = 0; i < c.n_methods; i++)
        rpc_health_set(s, c.methods[i].service, false);
}

static void wait_for_end(struct server *s, struct conf *c, const struct conf_input *in, const sigset_t *signals)
{
    for (;;) {
        int sig = 0;
        sigwait(signals, &sig);
        if (sig == SIGHUP) {
            reload(s, c, in);
            continue;
        }
        s->draining = true;
        if (s->rpc)
            say_not_serving(s->rpc);
        log_msg(LOG_INFO, s->fatal ? "stopping after a fatal error" : "draining", LOG_I("signal", sig));
        stop_jobs(s);
        if (sig == SIGTERM && !s->fatal) { /* a second signal ends the wait */
            struct timespec grace = {0, DRAIN_GRACE_MS * 1000000L};
            sigtimedwait(signals, NULL, &grace);
        }
        return;
    }
}

int run_serve(const struct conf *c, const struct conf_input *in, unsigned roles)
{
    struct duties duties;
    char why[CONF_WHY_MAX];
    if (conf_check_serve(c, why) != PFE_OK || !money_by_code(str_c(c->default_currency))) {
        fprintf(stderr, "payflow: %s\n",
                conf_check_serve(c, why) != PFE_OK ? why : "DEFAULT_CURRENCY is not an ISO 4217 code");
        return EXIT_CONF;
    }
    if (!main_resilience_fits(c, why)) {
        fprintf(stderr, "payflow: %s\n", why);
        return EXIT_CONF;
    }
    struct conf running;
    if (conf_load(in, &running, why) != PFE_OK) {
        fprintf(stderr, "payflow: %s\n", why);
        return EXIT_CONF;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread: they inherit it */

    struct server s = {0};
    log_open(STDERR_FILENO, c->log_level);
    conf_ignored(in, say_ignored, NULL);
    main_duties(c, roles, &duties);
    int code = start(&s, c, &duties);
    if (code == EXIT_OK) {
        wait_for_end(&s, &running, in, &signals);
        if (s.fatal)
            code = EXIT_FAILED;
    }
    s.draining = true;
    stop(&s, (unsigned)c->shutdown_timeout * 1000);
    log_msg(LOG_INFO, "stopped");
    log_close();
    conf_free(&running);
    return code;
}
