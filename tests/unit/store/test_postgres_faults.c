/*
 * Connections of the postgres engine, on a real server: settings that are wrong are told in one line; a server that
 * dies, stops or cuts the line costs PFE_UNAVAILABLE within the deadline, never a lie, and works again by itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/postgres/internal.h"
#include "support/pg_cluster.h"

enum { CONNECT_MS = 1000, TIMEOUT_MS = 2000 };

static struct pg_cluster cluster;

static struct store_pool pool_of(struct store *s)
{
    struct store_cluster c;
    assert_true(store_cluster(s, &c));
    return c.pool;
}

static int64_t now_ms(void)
{
    return clock_mono(clock_system()) / 1000;
}

/* In the schema of the role's search_path, emptied before. */
static void fresh(void)
{
    assert_true(pg_cluster_sql(&cluster, "DROP SCHEMA public CASCADE"));
    assert_true(pg_cluster_sql(&cluster, "CREATE SCHEMA public AUTHORIZATION payflow"));
}

static struct postgres_options options(void)
{
    return (struct postgres_options){.url = pg_cluster_url(&cluster),
                                     .connect_ms = CONNECT_MS,
                                     .timeout_ms = TIMEOUT_MS,
                                     .commit_ms = 2 * TIMEOUT_MS};
}

static struct store *opened(const struct postgres_options *o)
{
    struct store *s = NULL;
    char why[256];
    enum pf_err e;
    for (int i = 0; (e = store_postgres_open(o, &s, why)) != PFE_OK && i < 5; i++) /* a busy server may answer late */
        usleep(100000);
    if (e)
        fail_msg("%s", why);
    return s;
}

static enum pf_err add_user(struct store *s, const char *name)
{
    static uint8_t next;
    struct store_user u = {.role = IDENT_USER, .uuid = {++next, 1}, .created_us = 1};
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(s, &tx);
    if (e)
        return e;
    snprintf(u.username, sizeof u.username, "%s", name);
    snprintf(u.email, sizeof u.email, "%s@example.org", name);
    strcpy(u.password_hash, "x");
    e = store_user_insert(tx, &u);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

static bool has_user(struct store *s, const char *name)
{
    struct store_user u;
    enum pf_err e = store_user_by_name(s, str_c(name), &u);
    assert_true(e == PFE_OK || e == PFE_NOT_FOUND);
    return e == PFE_OK;
}

/* Until it works, at most 10 s. */
static void comes_back(struct store *s, const char *name)
{
    int64_t end = now_ms() + 10000;
    enum pf_err e;
    bool unknown = false; /* whether a try before has done it */
    while ((e = add_user(s, name)) != PFE_OK && !(unknown && e == PFE_DUP_USERNAME) && now_ms() < end) {
        unknown |= e == PFE_INTERNAL;
        usleep(20000);
    }
    assert_true(e == PFE_OK || (unknown && e == PFE_DUP_USERNAME));
}

/* ---- settings ---- */

static void refused(const struct postgres_options *o, const char *says)
{
    struct store *s = NULL;
    char why[256] = "";
    int64_t t0 = now_ms();
    assert_int_equal(store_postgres_open(o, &s, why), PFE_WRONG_STATE);
    assert_in_range(now_ms() - t0, 0, 2 * CONNECT_MS + 200);
    assert_null(s);
    if (!strstr(why, says))
        fail_msg("\"%s\" does not say \"%s\"", why, says);
    assert_null(strchr(why, '\n'));
    assert_null(strstr(why, PG_CLUSTER_PASSWORD));
    assert_null(strstr(why, "hunter2"));
}

static void wrong_settings_are_told(void **state)
{
    (void)state;
    char port[16];
    snprintf(port, sizeof port, "%d", cluster.port);
    fresh();
    struct postgres_options o = {.hosts = "127.0.0.1",
                                 .ports = port,
                                 .user = "payflow",
                                 .password = PG_CLUSTER_PASSWORD,
                                 .dbname = "payflow",
                                 .connect_ms = CONNECT_MS,
                                 .timeout_ms = TIMEOUT_MS};
    store_close(opened(&o));

    struct postgres_options w = o;
    w.password = "hunter2";
    refused(&w, "failed: FATAL: password authentication failed for user \"payflow\"");
    w = o, w.user = "nobody";
    refused(&w, "password authentication failed");
    w = o, w.dbname = "elsewhere";
    refused(&w, "\"elsewhere\" does not exist");
    w = o, w.ports = "1";
    refused(&w, "Connection refused");
    w = o, w.hosts = "no-such-host.invalid";
    refused(&w, "no-such-host.invalid");
    w = o, w.hosts = "/no/such/directory";
    refused(&w, "No such file");
    w = o, w.hosts = "127.0.0.1,127.0.0.1", w.ports = "1,2,3";
    refused(&w, "one port for all or one for each");
    w = o, w.sslmode = "require";
    refused(&w, "does not support SSL");
    w = o, w.sslmode = "verify-full", w.sslrootcert = "/no/such/file";
    refused(&w, "does not support SSL");
    w = o, w.sslmode = "sometimes";
    refused(&w, "sslmode");
    w = o, w.schema = "nowhere";
    refused(&w, "search_path");
    w = (struct postgres_options){.url = "postgres://payflow:hunter2@[127.0.0.1/x", .connect_ms = CONNECT_MS};
    refused(&w, "not a well-formed postgres:// URL");
    w = (struct postgres_options){.url = "postgres://payflow:hunter2@127.0.0.1:1/x", .connect_ms = CONNECT_MS};
    refused(&w, "Connection refused");
}

/* What may pass by itself is no matter of settings. */
static void a_full_server_is_another_matter(void **state)
{
    (void)state;
    struct postgres_options o = options();
    struct store *s = NULL;
    char why[256];
    fresh();
    assert_true(pg_cluster_sql(&cluster, "ALTER ROLE payflow CONNECTION LIMIT 0"));
    assert_int_equal(store_postgres_open(&o, &s, why), PFE_UNAVAILABLE);
    assert_non_null(strstr(why, "too many connections"));
    assert_true(pg_cluster_sql(&cluster, "ALTER ROLE payflow CONNECTION LIMIT -1"));
    store_close(opened(&o));
}

static void *end_later(void *tx)
{
    usleep(300000);
    store_tx_rollback(tx);
    return NULL;
}

/* A store that is at work has no more connections then, and goes on with those that it has. */
static void a_server_that_fills_up_is_there_still(void **state)
{
    (void)state;
    struct postgres_options o = options();
    o.guard = true;
    fresh();
    struct store *s = opened(&o);
    struct store_tx *tx;
    struct store_info info;
    pthread_t t;
    assert_int_equal(add_user(s, "ann"), PFE_OK);
    assert_int_equal(store_tx_begin(s, &tx), PFE_OK);
    assert_true(pg_cluster_sql(&cluster, "ALTER ROLE payflow CONNECTION LIMIT 0"));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&t, NULL, end_later, tx), 0);
        assert_true(has_user(s, "ann")); /* once the other one is given back */
        pthread_join(t, NULL);
        assert_int_equal(store_tx_begin(s, &tx), PFE_OK);
        struct store_pool pool = pool_of(s);
        assert_true(pool.reachable && pool.failures > 0);
        assert_false(pg_primary_down((struct postgres_store *)s));
    }
    store_tx_rollback(tx);
    assert_int_equal(store_info(s, &info), PFE_OK);
    assert_true(info.writable);
    assert_int_equal(add_user(s, "bob"), PFE_OK);
    assert_true(pg_cluster_sql(&cluster, "ALTER ROLE payflow CONNECTION LIMIT -1"));
    store_close(s);
}

/* Another one of the hosts takes writes, and has never been a replica of the first. */
static void another_cluster_is_not_written_to(void **state)
{
    (void)state;
    struct pg_cluster a, b;
    char hosts[64] = "127.0.0.1,127.0.0.1", ports[32];
    pg_cluster_start(&a, PG_CLUSTER_TCP);
    pg_cluster_start(&b, PG_CLUSTER_TCP);
    struct postgres_options o = options(), other = options();
    other.url = pg_cluster_url(&b);
    store_close(opened(&other)); /* with the schema, too */
    snprintf(ports, sizeof ports, "%d,%d", a.port, b.port);
    o.url = NULL;
    o.hosts = hosts, o.ports = ports, o.user = "payflow", o.password = PG_CLUSTER_PASSWORD, o.dbname = "payflow";
    struct store *s = opened(&o);
    assert_int_equal(add_user(s, "ann"), PFE_OK);
    pg_cluster_kill(&a);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_not_equal(add_user(s, "bob"), PFE_OK);
        usleep(100000);
    }
    pg_cluster_up(&a);
    comes_back(s, "cat");
    assert_true(has_user(s, "ann"));
    store_close(s);
    pg_cluster_stop(&a);
    pg_cluster_stop(&b);
}

static void tls_is_as_asked(void **state)
{
    (void)state;
    struct pg_cluster c;
    char ca[128], wrong[128];
    pg_cluster_start(&c, PG_CLUSTER_TCP | PG_CLUSTER_TLS);
    snprintf(ca, sizeof ca, "%s/data/server.crt", c.dir);
    snprintf(wrong, sizeof wrong, "%s/data/PG_VERSION", c.dir);
    struct postgres_options o = options();
    o.url = pg_cluster_url(&c);
    o.sslmode = "require";
    store_close(opened(&o));
    o.sslmode = "verify-ca", o.sslrootcert = ca;
    struct store *s = opened(&o);
    assert_int_equal(add_user(s, "ann"), PFE_OK);
    assert_true(has_user(s, "ann"));
    store_close(s);
    o.sslrootcert = wrong;
    refused(&o, "PG_VERSION");
    o.sslrootcert = "/no/such/file";
    refused(&o, "/no/such/file");
    o.sslmode = "verify-full", o.sslrootcert = ca; /* made out to another name than 127.0.0.1 */
    refused(&o, "does not match host name");
    pg_cluster_stop(&c);
}

static void schemas_of_other_programs_are_refused(void **state)
{
    (void)state;
    struct postgres_options o = options(), look = o;
    char why[256];
    struct postgres_migration m[8];
    unsigned n;
    look.mode = POSTGRES_INSPECT;
    fresh();
    refused(&look, "migrate first");
    assert_int_equal(store_postgres_migrations(&o, m, 8, &n, why), PFE_OK);
    assert_true(n >= 2 && !m[0].applied && !m[1].applied);
    assert_int_equal(store_postgres_migrate(&o, 1, why), PFE_OK);
    refused(&look, "the database is at migration 1");
    assert_int_equal(store_postgres_migrate(&o, -1, why), PFE_OK);
    store_close(opened(&look));
    assert_int_equal(store_postgres_migrations(&o, m, 8, &n, why), PFE_OK);
    assert_true(m[n - 1].applied && m[n - 1].intact);

    struct store *s = opened(&o);
    assert_int_equal(add_user(s, "ann"), PFE_OK);
    store_close(s);
    assert_int_equal(store_postgres_migrate(&o, 1, why), PFE_WRONG_STATE);
    assert_non_null(strstr(why, "there are users"));
    assert_int_equal(store_postgres_migrate(&o, 99, why), PFE_WRONG_STATE);

    assert_true(pg_cluster_sql(&cluster, "UPDATE schema_migration SET checksum = '\\x00' WHERE version = 1"));
    refused(&o, "is not the one of this program");
    fresh();
    store_close(opened(&o));
    assert_true(pg_cluster_sql(&cluster, "INSERT INTO schema_migration VALUES (900, 'x', '\\x00', 0)"));
    refused(&o, "it is newer");
    refused(&look, "it is newer");
    assert_true(pg_cluster_sql(&cluster, "DELETE FROM schema_migration WHERE version = 900"));
    assert_int_equal(store_postgres_migrate(&o, 0, why), PFE_OK);
    store_close(opened(&o));

    assert_true(pg_cluster_sql(&cluster, "DROP SCHEMA public CASCADE"));
    assert_true(pg_cluster_sql(&cluster, "CREATE SCHEMA public"));
    assert_true(pg_cluster_sql(&cluster, "GRANT USAGE ON SCHEMA public TO payflow"));
    refused(&o, "permission denied");
}

static void *open_one(void *ctx)
{
    struct postgres_options o = options();
    o.timeout_ms = o.connect_ms = 10000; /* they wait for each other */
    char why[256];
    struct store *s = NULL;
    if (store_postgres_open(&o, &s, why) != PFE_OK)
        fprintf(stderr, "%s\n", why);
    atomic_fetch_add((atomic_int *)ctx, s != NULL);
    store_close(s);
    return NULL;
}

static void many_may_migrate_at_once(void **state)
{
    (void)state;
    pthread_t t[6];
    atomic_int good = 0;
    fresh();
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&t[i], NULL, open_one, &good), 0);
    for (int i = 0; i < 6; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(good, 6);
}

static void an_inspector_writes_nothing(void **state)
{
    (void)state;
    struct postgres_options o = options();
    fresh();
    store_close(opened(&o));
    o.mode = POSTGRES_INSPECT;
    struct store *s = opened(&o);
    struct store_tx *tx;
    struct store_key key = {.owner = 0, .currency = 840};
    struct store_slot slot;
    struct store_group g = {.slots = &slot};
    assert_int_equal(store_tx_begin(s, &tx), PFE_UNAVAILABLE);
    assert_int_equal(store_group_begin(s, &(struct store_group_ask){.keys = &key, .n_keys = 1}, &g), PFE_UNAVAILABLE);
    assert_false(has_user(s, "ann"));
    store_close(s);
}

/* ---- a server that goes away ---- */

static void begun(struct store *s, struct store_tx **ret, const char *name)
{
    static uint8_t next;
    struct store_user u = {.role = IDENT_USER, .uuid = {77, ++next}, .created_us = 1};
    snprintf(u.username, sizeof u.username, "%s", name);
    snprintf(u.email, sizeof u.email, "%s", name);
    assert_int_equal(store_tx_begin(s, ret), PFE_OK);
    assert_int_equal(store_user_insert(*ret, &u), PFE_OK);
}

static void a_killed_server(void **state)
{
    (void)state;
    struct postgres_options o = options();
    fresh();
    struct store *s = opened(&o);
    assert_int_equal(add_user(s, "before"), PFE_OK);
    struct store_tx *tx;
    begun(s, &tx, "amid");
    pg_cluster_kill(&cluster);
    struct store_user u = {.role = IDENT_USER, .uuid = {78}};
    strcpy(u.username, "more");
    assert_int_equal(store_user_insert(tx, &u), PFE_UNAVAILABLE);
    assert_int_equal(store_tx_commit(tx), PFE_UNAVAILABLE);
    for (int i = 0; i < 20; i++) {
        int64_t t0 = now_ms();
        assert_int_equal(add_user(s, "down"), PFE_UNAVAILABLE);
        assert_int_equal(store_user_get(s, 1, &u), PFE_UNAVAILABLE);
        assert_in_range(now_ms() - t0, 0, 200); /* refused at once, or known to be down */
    }
    struct store_pool p;
    p = pool_of(s);
    assert_false(p.reachable);
    assert_int_equal(p.in_use, 0);
    pg_cluster_up(&cluster);
    comes_back(s, "after");
    assert_true(has_user(s, "before") && has_user(s, "after"));
    assert_false(has_user(s, "amid") || has_user(s, "down") || has_user(s, "more"));
    p = pool_of(s);
    assert_true(p.reachable);
    store_close(s);
}

/* An idle connection whose server died is found out before it is used: the first call after the restart works. */
static void a_restart_between_calls_is_not_noticed(void **state)
{
    (void)state;
    struct postgres_options o = options();
    fresh();
    struct store *s = opened(&o);
    assert_int_equal(add_user(s, "before"), PFE_OK);
    pg_cluster_kill(&cluster);
    pg_cluster_up(&cluster);
    assert_int_equal(add_user(s, "after"), PFE_OK);
    assert_true(has_user(s, "before"));
    store_close(s);
}

static void a_stopped_server(void **state)
{
    (void)state;
    struct postgres_options o = options();
    fresh();
    struct store *s = opened(&o);
    assert_int_equal(add_user(s, "before"), PFE_OK);
    struct store_tx *tx;
    struct store_user u;
    begun(s, &tx, "amid");
    pg_cluster_freeze(&cluster, true);
    int64_t t0 = now_ms();
    assert_int_equal(store_user_get(s, 1, &u), PFE_UNAVAILABLE);
    assert_in_range(now_ms() - t0, 0, TIMEOUT_MS + CONNECT_MS + 300);
    t0 = now_ms();
    /* sent, and no answer: nobody can tell */
    assert_int_equal(store_tx_commit(tx), PFE_INTERNAL);
    assert_in_range(now_ms() - t0, TIMEOUT_MS, 2 * TIMEOUT_MS + 2 * CONNECT_MS + 300);
    t0 = now_ms();
    assert_int_equal(add_user(s, "down"), PFE_UNAVAILABLE);
    assert_in_range(now_ms() - t0, 0, TIMEOUT_MS + CONNECT_MS + 300);
    t0 = now_ms();
    assert_int_equal(add_user(s, "down"), PFE_UNAVAILABLE); /* known to be away for a moment: at once */
    assert_in_range(now_ms() - t0, 0, CONNECT_MS / 4);
    struct store *other = NULL;
    char why[256];
    t0 = now_ms();
    assert_int_not_equal(store_postgres_open(&o, &other, why), PFE_OK);
    assert_in_range(now_ms() - t0, CONNECT_MS / 2, CONNECT_MS + 300);
    assert_non_null(strstr(why, "no answer"));
    pg_cluster_freeze(&cluster, false);
    comes_back(s, "after");
    assert_true(has_user(s, "before") && has_user(s, "after"));
    assert_false(has_user(s, "down"));
    store_close(s);
}

/* Another instance stops inside a transaction: its lock is taken from it. */
static void a_stopped_holder_is_cut_off(void **state)
{
    (void)state;
    struct postgres_options o = options();
    fresh();
    struct store *a = opened(&o), *b = opened(&o);
    struct store_tx *tx;
    begun(a, &tx, "asleep");
    int64_t t0 = now_ms();
    assert_int_equal(add_user(b, "awake"), PFE_OK);
    assert_in_range(now_ms() - t0, 0, TIMEOUT_MS);
    assert_int_equal(store_tx_commit(tx), PFE_UNAVAILABLE);
    assert_false(has_user(b, "asleep"));
    assert_int_equal(add_user(a, "again"), PFE_OK);
    store_close(a);
    store_close(b);
}

/* The server then answers COMMIT too, with a rollback. */
static void a_failed_statement_fails_the_commit(void **state)
{
    (void)state;
    struct postgres_options o = options();
    fresh();
    struct store *s = opened(&o);
    struct store_apikey k = {.user = 1, .prefix = "pf_1"}, again = k;
    struct store_tx *tx;
    begun(s, &tx, "ann");
    assert_int_equal(store_apikey_insert(tx, &k), PFE_OK);
    assert_int_equal(store_apikey_insert(tx, &again), PFE_WRONG_STATE);
    assert_int_equal(store_apikey_touch(tx, k.id, 1), PFE_UNAVAILABLE);
    assert_int_equal(store_tx_commit(tx), PFE_UNAVAILABLE);
    assert_false(has_user(s, "ann"));
    assert_int_equal(add_user(s, "ann"), PFE_OK);
    store_close(s);
}

/* ---- several hosts ---- */

static void the_host_that_answers_is_found(void **state)
{
    (void)state;
    char ports[32];
    struct postgres_options o = options();
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int deaf =
        socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* takes connections and says nothing, as a stopped one */
    assert_int_equal(bind(deaf, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(deaf, 8), 0);
    assert_int_equal(getsockname(deaf, (struct sockaddr *)&a, &n), 0);
    fresh();
    snprintf(ports, sizeof ports, "1,%d,%d", ntohs(a.sin_port), cluster.port);
    o.hosts = "127.0.0.1,127.0.0.1,127.0.0.1";
    o.ports = ports;
    int64_t t0 = now_ms();
    struct store *s = opened(&o);
    assert_in_range(now_ms() - t0, CONNECT_MS / 2, 10 * CONNECT_MS);
    t0 = now_ms(); /* it is remembered */
    assert_int_equal(add_user(s, "ann"), PFE_OK);
    assert_in_range(now_ms() - t0, 0, CONNECT_MS / 2);
    store_close(s);
    /* one that takes no writes is not the one */
    assert_true(pg_cluster_sql(&cluster, "ALTER ROLE payflow SET default_transaction_read_only = on"));
    refused(&o, "read-only");
    assert_true(pg_cluster_sql(&cluster, "ALTER ROLE payflow RESET default_transaction_read_only"));
    close(deaf);
}

/* ---- a line that is cut ---- */

struct proxy {
    pthread_t thread;
    int listener, port;
    atomic_int cut; /* 1: at the next bytes from the client, before they pass; 2: pass them, drop the answer */
    atomic_bool stop;
};

static bool pass(int from, int to)
{
    char b[65536];
    ssize_t n = read(from, b, sizeof b);
    for (ssize_t at = 0, w; n > 0 && at < n; at += w)
        if ((w = write(to, b + at, (size_t)(n - at))) <= 0)
            return false;
    return n > 0;
}

static void *proxy_run(void *ctx)
{
    enum { PAIRS = 16 };
    struct proxy *p = ctx;
    int fd[2 * PAIRS];
    for (int i = 0; i < 2 * PAIRS; i++)
        fd[i] = -1;
    while (!p->stop) {
        struct pollfd f[2 * PAIRS + 1];
        for (int i = 0; i < 2 * PAIRS; i++)
            f[i] = (struct pollfd){fd[i], POLLIN, 0};
        f[2 * PAIRS] = (struct pollfd){p->listener, POLLIN, 0};
        poll(f, 2 * PAIRS + 1, 50);
        for (int i = 0; i < 2 * PAIRS; i++) {
            if (fd[i] < 0 || !f[i].revents)
                continue;
            bool drop = p->cut == (i % 2 == 0 ? 1 : 2);
            if (!drop && pass(fd[i], fd[i ^ 1]))
                continue;
            if (drop)
                p->cut = 0;
            close(fd[i]);
            close(fd[i ^ 1]);
            fd[i] = fd[i ^ 1] = -1;
            f[i ^ 1].revents = 0;
        }
        for (int i = 0; f[2 * PAIRS].revents && i < PAIRS; i++) {
            if (fd[2 * i] >= 0)
                continue;
            struct sockaddr_in a = {.sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                    .sin_port = htons((uint16_t)cluster.port)};
            fd[2 * i] = accept(p->listener, NULL, NULL);
            fd[2 * i + 1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (connect(fd[2 * i + 1], (struct sockaddr *)&a, sizeof a) != 0)
                fprintf(stderr, "proxy: no server\n");
            break;
        }
    }
    for (int i = 0; i < 2 * PAIRS; i++)
        if (fd[i] >= 0)
            close(fd[i]);
    close(p->listener);
    return NULL;
}

static void proxy_start(struct proxy *p)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    *p = (struct proxy){.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    assert_int_equal(bind(p->listener, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(p->listener, 8), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&a, &n), 0);
    p->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&p->thread, NULL, proxy_run, p), 0);
}

static void a_lost_answer_to_commit_is_looked_up(void **state)
{
    (void)state;
    struct proxy p;
    char port[16];
    struct postgres_options o = options();
    fresh();
    proxy_start(&p);
    snprintf(port, sizeof port, "%d", p.port);
    o.ports = port;
    struct store *s = opened(&o);
    struct store_tx *tx;
    begun(s, &tx, "done");
    p.cut = 2;
    assert_int_equal(store_tx_commit(tx), PFE_OK);
    assert_true(has_user(s, "done"));
    begun(s, &tx, "undone");
    p.cut = 1;
    assert_int_equal(store_tx_commit(tx), PFE_UNAVAILABLE);
    assert_false(has_user(s, "undone"));
    comes_back(s, "after");
    store_close(s);
    p.stop = true;
    pthread_join(p.thread, NULL);
}

/* ---- queries ---- */

static const char insert_x[] = "INSERT INTO x (a) VALUES ($1)";

static int64_t count_x(struct pg_conn *c)
{
    struct pg_q q;
    pg_q_begin(&q, c, "SELECT count(*) FROM x");
    assert_true(pg_q_next(&q));
    int64_t n = pg_col_i64(&q, 0);
    assert_false(pg_q_next(&q));
    assert_int_equal(pg_q_end(&q), PFE_OK);
    return n;
}

static void send_x(struct pg_q *q, struct pg_conn *c, int64_t v)
{
    pg_q_begin(q, c, insert_x);
    pg_q_i64(q, v);
    pg_q_send(q);
}

static void one_round_trip_is_all_or_nothing(void **state)
{
    (void)state;
    struct postgres_options o = options();
    struct pg_q a, b, d;
    fresh();
    struct store *s = opened(&o);
    assert_true(pg_cluster_sql(&cluster, "CREATE TABLE x (a bigint PRIMARY KEY CHECK (a > 0))"));
    assert_true(pg_cluster_sql(&cluster, "GRANT ALL ON x TO payflow"));
    struct pg_conn *c = pg_take(pg_of(s), PG_READ);
    assert_non_null(c);
    send_x(&a, c, 1); /* the same text twice: prepared once */
    send_x(&b, c, INT64_MAX);
    assert_int_equal(pg_sync(c), PFE_OK);
    assert_int_equal(pg_q_end(&a), PFE_OK);
    assert_int_equal(pg_q_end(&b), PFE_OK);
    assert_int_equal(count_x(c), 2);

    /* the second fails: the first is undone, the third ends in the second's error */
    send_x(&a, c, 2);
    send_x(&b, c, 1);
    send_x(&d, c, 3);
    assert_int_equal(pg_sync(c), PFE_WRONG_STATE);
    assert_string_equal(pg_q_constraint(&b), "x_pkey");
    assert_int_equal(pg_q_end(&a), PFE_OK);
    assert_int_equal(pg_q_end(&b), PFE_WRONG_STATE);
    assert_int_equal(pg_q_end(&d), PFE_WRONG_STATE);
    assert_int_equal(count_x(c), 2);

    /* one that cannot be sent: what went before it does not take effect either */
    send_x(&a, c, 2);
    pg_q_begin(&b, c, "SELECT 1");
    for (int i = 0; i <= PG_PARAMS_MAX; i++)
        pg_q_i64(&b, i);
    pg_q_send(&b);
    send_x(&d, c, 3);
    int64_t t0 = now_ms();
    assert_int_equal(pg_sync(c), PFE_INTERNAL);
    assert_in_range(now_ms() - t0, 0, TIMEOUT_MS * 3 / 4); /* nobody is waited for */
    assert_int_not_equal(pg_q_end(&a), PFE_OK);
    assert_int_equal(pg_q_end(&b), PFE_INTERNAL);
    assert_int_not_equal(pg_q_end(&d), PFE_OK);
    pg_give(c);
    c = pg_take(pg_of(s), PG_READ);
    assert_int_equal(count_x(c), 2);
    /* alone, it harms nothing */
    pg_q_begin(&b, c, "SELECT 1");
    for (int i = 0; i <= PG_PARAMS_MAX; i++)
        pg_q_i64(&b, i);
    assert_int_equal(pg_q_run(&b), PFE_INTERNAL);
    assert_int_equal(count_x(c), 2);
    /* begun, and given up */
    pg_q_begin(&b, c, "SELECT 1");
    assert_int_equal(pg_q_end(&b), PFE_OK);
    pg_give(c);
    store_close(s);
}

static void values_pass_unchanged(void **state)
{
    (void)state;
    struct postgres_options o = options();
    const int64_t n[] = {INT64_MIN, -1, 0, 1, INT64_MAX};
    const struct str t[] = {STR(""), STR("'"), STR("\\x00"), STR("{1,\"2\",NULL}"), STR("\xc3\xa9")};
    const struct str b[] = {STR(""), STR("\0"), STR("\xff\0\xfe"), STR("abc"), STR("\\x41")};
    const uint8_t fixed[5][2] = {{0, 0}, {0, 1}, {255, 0}, {'a', 'b'}, {1, 2}};
    struct pg_q q;
    fresh();
    struct store *s = opened(&o);
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY,
                  "SELECT u.n, u.t, u.b, u.f, $5, $6::bytea, $7::int2, NULL::int8 FROM"
                  " unnest($1, $2, $3, $4) WITH ORDINALITY u(n, t, b, f, i) ORDER BY i");
    pg_q_i64s(&q, n, sizeof *n, 5);
    pg_q_strs(&q, t, sizeof *t, 5);
    pg_q_blobs(&q, b, sizeof *b, 5);
    pg_q_blobs_fixed(&q, fixed, sizeof *fixed, 2, 5);
    pg_q_bool(&q, true);
    pg_q_blob(&q, NULL, 0);
    pg_q_i64(&q, -7);
    for (int i = 0; i < 5; i++) {
        uint8_t f[2];
        assert_true(pg_q_next(&q));
        assert_int_equal(pg_col_i64(&q, 0), n[i]);
        assert_true(str_eq(pg_col_str(&q, 1), t[i]));
        assert_true(str_eq(pg_col_str(&q, 2), b[i]));
        pg_col_blob(&q, 3, f, 2);
        assert_memory_equal(f, fixed[i], 2);
        assert_true(pg_col_bool(&q, 4));
        assert_int_equal(pg_col_str(&q, 5).n, 0);
        assert_int_equal(pg_col_i64(&q, 6), -7);
        assert_true(pg_col_null(&q, 7) && pg_col_i64(&q, 7) == 0);
    }
    assert_false(pg_q_next(&q));
    assert_int_equal(pg_q_end(&q), PFE_OK);
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY, "SELECT count(*) FROM unnest($1, $2)");
    pg_q_i64s(&q, n, sizeof *n, 0);
    pg_q_strs(&q, t, sizeof *t, 0);
    assert_true(pg_q_next(&q) && pg_col_i64(&q, 0) == 0);
    assert_int_equal(pg_q_end(&q), PFE_OK);
    pg_read_begin(&q, pg_of(s), PG_FROM_PRIMARY, "SELECT nonsense");
    assert_false(pg_q_next(&q));
    assert_string_equal(q.state, "42703");
    assert_int_equal(pg_q_end(&q), PFE_UNAVAILABLE);
    store_close(s);
}

/* ---- the pool ---- */

static void *read_much(void *ctx)
{
    struct store *s = ctx;
    struct store_user u;
    int64_t bad = 0;
    for (int i = 0; i < 50; i++)
        bad += store_user_get(s, 1, &u) != PFE_OK;
    return (void *)(intptr_t)bad;
}

static void *write_one(void *ctx)
{
    return (void *)(intptr_t)add_user(ctx, "cid");
}

static void the_pool_is_bounded(void **state)
{
    (void)state;
    struct postgres_options o = options();
    struct store_pool p;
    pthread_t t[8], waiting;
    o.max_open = 3;
    o.max_idle = 1;
    fresh();
    struct store *s = opened(&o);
    assert_int_equal(add_user(s, "ann"), PFE_OK);
    struct store_tx *tx;
    begun(s, &tx, "bob"); /* reads go on beside the only transaction that there may be, and one that waits for it */
    assert_int_equal(pthread_create(&waiting, NULL, write_one, s), 0);
    usleep(50000);
    int64_t t0 = now_ms();
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&t[i], NULL, read_much, s), 0);
    for (int i = 0; i < 8; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        assert_int_equal((intptr_t)bad, 0);
    }
    assert_in_range(now_ms() - t0, 0, TIMEOUT_MS * 3 / 4);
    p = pool_of(s);
    assert_int_equal(p.max_open, 3);
    assert_int_equal(p.in_use, 1);
    assert_true(p.open <= 2 && p.idle <= 1 && p.waits > 0 && p.timeouts == 0);
    store_tx_rollback(tx);
    void *wrote;
    pthread_join(waiting, &wrote);
    assert_int_equal((intptr_t)wrote, PFE_OK);
    store_close(s);

    o.max_open = 10;
    o.max_idle = 2;
    s = opened(&o);
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&t[i], NULL, read_much, s), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
    p = pool_of(s);
    assert_true(p.connects > 3);
    assert_true(p.open == 2 && p.idle == 2);
    store_close(s);

    o.max_lifetime_s = 1;
    s = opened(&o);
    p = pool_of(s);
    int64_t before = p.connects;
    assert_true(has_user(s, "ann"));
    usleep(1100000);
    assert_true(has_user(s, "ann"));
    p = pool_of(s);
    assert_int_equal(p.connects - before, 2);
    store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_settings_are_told),
        cmocka_unit_test(a_full_server_is_another_matter),
        cmocka_unit_test(a_server_that_fills_up_is_there_still),
        cmocka_unit_test(another_cluster_is_not_written_to),
        cmocka_unit_test(tls_is_as_asked),
        cmocka_unit_test(schemas_of_other_programs_are_refused),
        cmocka_unit_test(many_may_migrate_at_once),
        cmocka_unit_test(an_inspector_writes_nothing),
        cmocka_unit_test(a_killed_server),
        cmocka_unit_test(a_restart_between_calls_is_not_noticed),
        cmocka_unit_test(a_stopped_server),
        cmocka_unit_test(a_stopped_holder_is_cut_off),
        cmocka_unit_test(a_failed_statement_fails_the_commit),
        cmocka_unit_test(the_host_that_answers_is_found),
        cmocka_unit_test(a_lost_answer_to_commit_is_looked_up),
        cmocka_unit_test(one_round_trip_is_all_or_nothing),
        cmocka_unit_test(values_pass_unchanged),
        cmocka_unit_test(the_pool_is_bounded),
    };
    pg_cluster_start(&cluster, PG_CLUSTER_TCP);
    int failed = cmocka_run_group_tests_name("postgres connections", tests, NULL, NULL);
    pg_cluster_stop(&cluster);
    return failed;
}
