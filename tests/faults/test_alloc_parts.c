/*
 * The nth allocation fails where no request is: reading settings, start-up, shutdown, the commands that read a store,
 * and the scheduler's look, on both engines. Once, and from then on.
 *
 * A start fails with one of its exit codes or serves; either way the store holds what it held, and nothing leaks. What
 * reads says that it could not, never that the books are wrong. A due run happens once, when there is memory again.
 * Start-up and the commands allocate thousands of times, nearly all within SQLite: ALLOC_POINTS of those are drawn with
 * a printed seed (ALLOC_SEED), ALLOC_ALL=1 takes each.
 */
#include "unit/app/tickets.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/cli.h"
#include "conf/conf.h"
#include "faults/harness.h"
#include "faults/inject.h"

enum { POINTS = 40, ALL_POINTS = 1000000, LEAKS_EVERY = 20 };

static unsigned long seed;

static unsigned long random_next(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return seed >> 33;
}

/* For what runs on this thread. */
static void arm(long n, bool rest)
{
    inject_self(true);
    inject_arm(n, rest);
}

static long disarm(void)
{
    long hits = inject_disarm();
    inject_self(false);
    return hits;
}

/* Calls fn(ctx, n, rest) for points below all of them, which the call with -1 finds. */
static void sweep(const char *what, void (*fn)(void *ctx, long n, bool rest), void *ctx)
{
    const char *points = getenv("ALLOC_POINTS");
    long most = getenv("ALLOC_ALL") ? ALL_POINTS : points ? strtol(points, NULL, 10) : POINTS, runs = 0;
    fn(ctx, -1, false);
    fn(ctx, -1, false); /* the first one prepares statements and grows tables for all */
    long all = inject_seen();
    for (int rest = 0; rest < 2; rest++)
        for (long k = 0; k < (all < most ? all : most); k++) {
            fn(ctx, all <= most ? k : (long)(random_next() % (unsigned long)all), rest);
            if (++runs % LEAKS_EVERY == 0)
                leaks_check(what);
        }
    leaks_check(what);
    print_message("  %-24s %ld of %ld\n", what, all < most ? all : most, all);
}

/* ---- settings ---- */

static void load_settings(void *ctx, long n, bool rest)
{
    const char *const args[] = {ctx, "--log-level=warn"};
    static const char *const env[] = {"JWT_SECRET=0123456789abcdef0123456789abcdef", "PORT=1", NULL};
    const struct conf_input in = {args, 2, env};
    struct conf c;
    char why[CONF_WHY_MAX] = "";
    arm(n, rest);
    enum pf_err e = conf_load(&in, &c, why);
    long hits = disarm();
    if (e == PFE_OK) {
        assert_int_equal(c.port, 1);
        assert_int_equal(c.bcrypt_cost, 5);
        assert_string_equal(c.default_currency, "EUR");
        conf_free(&c);
        return;
    }
    if (hits == 0 || e != PFE_NOMEM || !strstr(why, "memory"))
        harness_fail("settings, allocation %ld: error %d, %s", n, (int)e, why);
}

static void settings(void **state)
{
    char path[512], flag[540];
    (void)state;
    snprintf(path, sizeof path, "%s/payflow.yaml", harness_dir());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("port: 99\nbcrypt_cost: 5\ndefault_currency: EUR\nallowed_origins: \"https://a,https://b\"\n", f);
    fclose(f);
    snprintf(flag, sizeof flag, "--config=%s", path);
    sweep("settings", load_settings, flag);
}

/* ---- start and stop ---- */

#define JOURNAL "SELECT ifnull(sum(seq * amount + debit_balance * 3 + credit_balance), 0) FROM journal"
#define RECORDS                                                                                                        \
    "SELECT (SELECT count(*) FROM user) * 1000000 + (SELECT count(*) FROM idempotency) * 1000 +"                       \
    " (SELECT count(*) FROM schema_migration) + (SELECT count(*) FROM seal) + (SELECT count(*) FROM account)"

struct place {
    char dir[512];
    int64_t journal, records;
    unsigned files;
    struct stat secret;
};

static void note(struct place *p)
{
    char path[600];
    sql_open(p->dir);
    p->journal = sql_int(JOURNAL);
    p->records = sql_int(RECORDS);
    sql_close();
    snprintf(path, sizeof path, "%s/jwt.secret", p->dir);
    assert_int_equal(stat(path, &p->secret), 0);
    p->files = files_open();
}

static void expect_same(const struct place *p, const char *what, long n)
{
    struct place now = *p;
    note(&now);
    if (now.journal != p->journal || now.records != p->records)
        harness_fail("%s, allocation %ld: the store holds something else", what, n);
    if (now.secret.st_ino != p->secret.st_ino || now.secret.st_size != p->secret.st_size)
        harness_fail("%s, allocation %ld: the token secret is another", what, n);
    if (now.files != p->files)
        harness_fail("%s, allocation %ld: %u files are open, not %u", what, n, now.files, p->files);
}

static void expect_store_good(const char *dir, const char *what, long n)
{
    struct store *s = NULL;
    struct store_verify v;
    char why[256];
    const struct sqlite_options o = {.dir = dir, .mode = SQLITE_INSPECT};
    enum pf_err e = store_sqlite_open(&o, &s, why);
    if (e == PFE_OK)
        e = store_verify(s, &v);
    if (e != PFE_OK || !v.ok)
        harness_fail("%s, allocation %ld: %s", what, n, e == PFE_OK ? v.what : why);
    store_close(s);
}

static void start_once(void *ctx, long n, bool rest)
{
    struct place *p = ctx;
    inject_arm(n, rest);
    int code = server_start(p->dir);
    long hits = inject_disarm();
    if (code == -1) {
        http_must(200, "GET /health/ready", "", NULL);
        int end = server_stop();
        if (end != 0)
            harness_fail("start, allocation %ld: it serves, then ends with %d", n, end);
    } else if (hits == 0 || (code != 1 && code != CONF_EXIT)) {
        harness_fail("start, allocation %ld: code %d after %ld failures", n, code, hits);
    }
    if (code != -1 && inject_in("libmicrohttpd"))
        p->files = files_open(); /* 0.9.75 leaves an eventfd behind when it has no memory for its table of nonces */
    expect_same(p, "start", n);
    if (n % 8 == 0)
        expect_store_good(p->dir, "start", n);
}

static void stop_once(void *ctx, long n, bool rest)
{
    struct place *p = ctx;
    if (server_start(p->dir) != -1)
        harness_fail("it does not start");
    http_must(201, "POST /api/transactions/deposit", "", "{\"user_id\":1,\"amount\":1}");
    inject_arm(n, rest);
    int code = server_stop();
    inject_disarm();
    if (code != 0 && code != 1)
        harness_fail("stop, allocation %ld: code %d", n, code);
    if (files_open() != p->files)
        harness_fail("stop, allocation %ld: files stay open", n);
    expect_store_good(p->dir, "stop", n);
    sql_open(p->dir);
    int64_t entries = sql_int("SELECT count(*) FROM journal");
    sql_close();
    if (p->records && entries != p->records + 1)
        harness_fail("stop, allocation %ld: what was acknowledged is lost", n);
    p->records = entries;
}

static void populate(struct place *p, const char *name)
{
    harness_path(p->dir, name);
    if (server_start(p->dir) != -1)
        harness_fail("it does not start");
    http_must(201, "POST /api/users", "",
              "{\"username\":\"ada\",\"email\":\"ada@example.com\",\"password\":\"password123\",\"role\":\"admin\"}");
    for (int i = 0; i < 100; i++)
        http_must(201, "POST /api/transactions/deposit", "", "{\"user_id\":1,\"amount\":1}");
    http_must(201, "POST /api/transactions/deposit", "Idempotency-Key: k\r\n",
              "{\"user_id\":1,\"amount\":1,\"currency\":\"EUR\"}");
    assert_int_equal(server_stop(), 0);
    note(p);
}

static void start_up(void **state)
{
    struct place p;
    (void)state;
    populate(&p, "start");
    sweep("start", start_once, &p);
}

static void shut_down(void **state)
{
    struct place p;
    (void)state;
    populate(&p, "stop");
    p.records = 0;
    sweep("stop", stop_once, &p);
}

/* A first start: there is no store yet. */
static void start_fresh(void *ctx, long n, bool rest)
{
    static int which;
    char name[32], dir[512];
    (void)ctx;
    snprintf(name, sizeof name, "fresh-%d", which++);
    harness_path(dir, name);
    inject_arm(n, rest);
    int code = server_start(dir);
    inject_disarm();
    if (code != -1 && code != 1 && code != CONF_EXIT)
        harness_fail("first start, allocation %ld: code %d", n, code);
    if (code == -1)
        assert_int_equal(server_stop(), 0);
    if (server_start(dir) != -1)
        harness_fail("after a first start without memory (allocation %ld) no other one succeeds", n);
    http_must(201, "POST /api/users", "",
              "{\"username\":\"ada\",\"email\":\"ada@example.com\",\"password\":\"password123\"}");
    assert_int_equal(server_stop(), 0);
}

static void first_start(void **state)
{
    (void)state;
    sweep("first start", start_fresh, NULL);
}

/* ---- what reads a store ---- */

static void read_store(void *ctx, long n, bool rest)
{
    struct place *p = ctx;
    struct store *s = NULL;
    struct store_verify v = {.ok = true};
    char why[256] = "";
    const struct sqlite_options o = {.dir = p->dir, .mode = SQLITE_INSPECT};
    arm(n, rest);
    enum pf_err e = store_sqlite_open(&o, &s, why);
    bool open = e == PFE_OK;
    if (open) {
        e = store_verify(s, &v);
        store_close(s);
    }
    long hits = disarm();
    if (e == PFE_OK ? !v.ok : hits == 0 || (e != PFE_NOMEM && e != PFE_UNAVAILABLE) || (!open && !why[0]))
        harness_fail("verify, allocation %ld: error %d, %s", n, (int)e, e == PFE_OK ? v.what : why);
    expect_same(p, "verify", n);
}

static void say(void *ctx, long n, bool rest)
{
    struct place *p = ctx;
    struct store *s = NULL;
    char why[256];
    const struct sqlite_options o = {.dir = p->dir, .mode = SQLITE_INSPECT};
    OK(store_sqlite_open(&o, &s, why));
    fflush(stdout);
    int out = dup(STDOUT_FILENO), none = open("/dev/null", O_WRONLY | O_CLOEXEC), code[3];
    dup2(none, STDOUT_FILENO);
    arm(n, rest);
    code[0] = cli_verify(s, true);
    code[1] = cli_replay(s, false);
    code[2] = cli_export(s, n % 2, 0);
    long hits = disarm();
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    close(out);
    close(none);
    for (int i = 0; i < 3; i++)
        if (code[i] != 0 && (code[i] != 1 || hits == 0))
            harness_fail("command %d, allocation %ld: code %d", i, n, code[i]);
    store_close(s);
}

static void rebuild_or_copy(void *ctx, long n, bool rest)
{
    struct place *p = ctx;
    char file[600], why[256] = "";
    int64_t entries = 0;
    snprintf(file, sizeof file, "%s/copy", harness_dir());
    arm(n, rest);
    enum pf_err e = store_sqlite_rebuild(p->dir, &entries, why), b = PFE_OK;
    if (e == PFE_OK)
        b = store_sqlite_backup(p->dir, file, why);
    long hits = disarm();
    if ((e != PFE_OK || b != PFE_OK) && (hits == 0 || !why[0]))
        harness_fail("rebuild or backup, allocation %ld: errors %d %d, %s", n, (int)e, (int)b, why);
    if (e == PFE_OK && b == PFE_OK) {
        char dir[512];
        snprintf(dir, sizeof dir, "%s/restored", harness_dir());
        OK(store_sqlite_restore(file, dir, true, &(struct store_verify){0}, why));
        snprintf(file, sizeof file, "%s/payflow.db", dir);
        assert_int_equal(unlink(file), 0);
        snprintf(file, sizeof file, "%s/copy", harness_dir());
    } else if (access(file, F_OK) == 0 && e == PFE_OK) {
        harness_fail("a backup that failed (allocation %ld) leaves a file", n);
    }
    (void)unlink(file);
    expect_same(p, "rebuild or backup", n);
    if (n % 8 == 0)
        expect_store_good(p->dir, "rebuild or backup", n);
}

static void reading(void **state)
{
    struct place p;
    (void)state;
    populate(&p, "read");
    sweep("verify", read_store, &p);
    sweep("commands", say, &p);
    sweep("rebuild, backup", rebuild_or_copy, &p);
}

/* ---- the scheduler's look, and the ledger without HTTP ---- */

struct due {
    struct fix *f;
    int64_t ada, bob;
    struct caller c;
};

static void no_answer(void *ctx, const struct store_schedule *d, struct app_idem *idem)
{
    (void)ctx, (void)d, (void)idem;
}

static void look(void *ctx, long n, bool rest)
{
    struct due *d = ctx;
    struct fix *f = d->f;
    struct store_schedule made;
    struct problem p = {0};
    struct app_idem none = {0};
    const struct store_schedule in = {.kind = LEDGER_TRANSFER,
                                      .to_user = d->bob,
                                      .amount = 1,
                                      .currency = USD,
                                      .description = STR("due"),
                                      .recurrence = STR(""),
                                      .anchor_us = fix_wall(f) + SECOND};
    OK(app_schedule_create(f->app, &d->c, &in, &none, no_answer, NULL, &made, &p));
    struct movement hold = {.kind = LEDGER_HOLD,
                            .from_user = d->ada,
                            .to_user = d->bob,
                            .amount = 5,
                            .currency = USD,
                            .expires_us = fix_wall(f) + SECOND};
    OK(fix_move(f, &hold));
    int64_t ada = fix_balance(f, d->ada), bob = fix_balance(f, d->bob);
    fix_advance(f, 2 * SECOND);
    arm(n, rest);
    (void)app_schedules_run_due(f->app);
    while (app_holds_release_due(f->app) > 0)
        continue;
    disarm();
    for (int i = 0; i < 5; i++) { /* looks again later, with memory */
        fix_advance(f, 2 * SECOND);
        (void)app_schedules_run_due(f->app);
        while (app_holds_release_due(f->app) > 0)
            continue;
    }
    if (fix_balance(f, d->ada) != ada - 1 || fix_balance(f, d->bob) != bob + 1)
        harness_fail("schedule, allocation %ld: it ran %lld times", n, (long long)(fix_balance(f, d->bob) - bob));
    struct ledger_account a = fix_account(f, d->ada, USD);
    if (a.held != 0)
        harness_fail("hold, allocation %ld: %lld stay held", n, (long long)a.held);
    if (n % 8 == 0)
        fix_verify(f);
    if (f->fatal)
        harness_fail("schedule, allocation %ld: the writer has died", n);
    arena_reset(&f->arena);
}

/* A group of movements with the memory running out inside it: each done or not, as its answer says. */
static void group(void *ctx, long n, bool rest)
{
    struct due *d = ctx;
    struct fix *f = d->f;
    enum { JOBS = 4 };
    struct movement m[JOBS], batch[2] = {fix_transfer(d->ada, d->bob, 2), fix_transfer(d->bob, d->ada, 1)};
    struct job j[JOBS + 1];
    int64_t bob = fix_balance(f, d->bob), expect = bob;
    for (int i = 0; i < JOBS; i++) {
        m[i] = fix_transfer(d->ada, d->bob, 10);
        j[i] = MOVE(&m[i]);
    }
    j[JOBS] = (struct job){.kind = JOB_MOVE, .m = batch, .n = 2, .atomic = true};
    fix_shut(f);
    for (int i = 0; i <= JOBS; i++)
        OK(fix_submit(f, &j[i]));
    arm(n, rest);
    fix_open(f);
    fix_wait(f, JOBS + 2);
    disarm();
    for (int i = 0; i < JOBS; i++) {
        if (j[i].err != PFE_OK && j[i].err != PFE_NOMEM && j[i].err != PFE_UNAVAILABLE)
            harness_fail("group, allocation %ld: error %d", n, (int)j[i].err);
        expect += j[i].err == PFE_OK ? 10 : 0;
    }
    expect += j[JOBS].err == PFE_OK ? 1 : 0;
    if (fix_balance(f, d->bob) != expect)
        harness_fail("group, allocation %ld: %lld, not %lld", n, (long long)(fix_balance(f, d->bob) - bob),
                     (long long)(expect - bob));
    if (f->fatal)
        harness_fail("group, allocation %ld: the writer has died", n);
    fix_post(f, fix_deposit_of(d->ada, 1));
    if (n % 8 == 0)
        fix_verify(f);
    arena_reset(&f->arena);
}

/* Bookings: made, paid and ended in one group. Each answer is true; tickets, money and messages stay together. */
static void book(void *ctx, long n, bool rest)
{
    struct due *d = ctx;
    struct fix *f = d->f;
    enum { JOBS = 4 };
    static const enum booking_op ops[JOBS] = {BOOKING_HOLD, BOOKING_SETTLE, BOOKING_CANCEL, BOOKING_PAY};
    struct ticket_event e = tix_event(f, d->bob, 100, 3);
    struct booking b[JOBS];
    struct job j[JOBS];
    struct ticket_booking k[JOBS];
    for (int i = 0; i < JOBS; i++) {
        k[i] = tix_hold(f, &e, d->ada, 2);
        b[i] = ops[i] == BOOKING_HOLD ? tix_hold_of(&e, d->ada, NULL, 5) : tix_op(ops[i], &k[i]);
        if (ops[i] == BOOKING_SETTLE) {
            struct uuid u = uuid_v7(fix_wall(f));
            b[i] = tix_message(ops[i], &k[i], u.b);
        }
        j[i] = (struct job){.kind = JOB_BOOKINGS, .booking = &b[i], .n_bookings = 1};
    }
    fix_shut(f);
    for (int i = 0; i < JOBS; i++)
        OK(fix_submit(f, &j[i]));
    arm(n, rest);
    fix_open(f);
    fix_wait(f, JOBS + 1);
    disarm();
    for (int i = 0; i < JOBS; i++) {
        if (b[i].err != j[i].err || (b[i].err != PFE_OK && b[i].err != PFE_NOMEM && b[i].err != PFE_UNAVAILABLE))
            harness_fail("booking, allocation %ld: error %d", n, (int)j[i].err);
        bool done = i == 0 ? b[i].err == PFE_OK : tix_now(f, &k[i]).state != TICKET_HELD;
        if (done != (b[i].err == PFE_OK))
            harness_fail("booking, allocation %ld: command %d is answered %d", n, i, (int)b[i].err);
    }
    int64_t held = 2 + (b[0].err == PFE_OK ? 5 : 0) + (b[1].err == PFE_OK ? 0 : 2) + (b[2].err == PFE_OK ? 0 : 2) + 2;
    struct ticket_event now = tix_event_now(f, &e);
    if (now.held != held || now.sold != (b[1].err == PFE_OK ? 2 : 0))
        harness_fail("booking, allocation %ld: %lld held, %lld sold", n, (long long)now.held, (long long)now.sold);
    if (f->fatal)
        harness_fail("booking, allocation %ld: the writer has died", n);
    fix_verify(f);
    arena_reset(&f->arena);
}

static void ledger(void **state)
{
    struct due d = {.f = *state};
    d.ada = fix_user(d.f, "ada");
    d.bob = fix_user(d.f, "bob");
    d.c = fix_caller(d.ada, IDENT_USER);
    fix_post(d.f, fix_deposit_of(d.ada, 100000000));
    fix_post(d.f, fix_deposit_of(d.bob, 100));
    sweep("scheduler", look, &d);
    sweep("groups", group, &d);
    sweep("bookings", book, &d);
    fix_verify(d.f);
    if (d.f->box.engine->durable) {
        int64_t bob = fix_balance(d.f, d.bob);
        fix_restart(d.f);
        assert_int_equal(fix_balance(d.f, d.bob), bob);
        fix_verify(d.f);
    }
}

int main(int argc, char **argv)
{
    harness_init();
    const char *given = getenv("ALLOC_SEED");
    seed = given ? strtoul(given, NULL, 10) : (unsigned long)time(NULL);
    print_message("ALLOC_SEED=%lu\n", seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings),  cmocka_unit_test(start_up), cmocka_unit_test(first_start),
        cmocka_unit_test(shut_down), cmocka_unit_test(reading),  ON_BOTH(ledger),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
