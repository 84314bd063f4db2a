/* Groups on a server shared with others: connections that break, writers that stop, two at once. */
#include "contract/store_kit.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "codec/uuid.h"
#include "store/postgres/postgres.h"
#include "support/pg_proxy.h"

/* Another store over the same tables, as another instance would have it. */
static struct kit *kit_beside(const struct kit *k, const char *url, unsigned timeout_ms)
{
    struct kit *b = calloc(1, sizeof *b);
    char why[256];
    assert_non_null(b);
    b->engine = KIT_MEMORY; /* kit_close_beside closes it */
    b->now = k->now;
    arena_init(&b->arena, NULL, 0, 1 << 24);
    struct postgres_options o = {.url = url ? url : pg_cluster_url(pg_cluster_shared()),
                                 .schema = pg_cluster_schema(pg_cluster_shared(), k->dir),
                                 .timeout_ms = timeout_ms};
    if (store_postgres_open(&o, &b->s, why) != PFE_OK)
        fail_msg("open: %s", why);
    return b;
}

static void kit_close_beside(struct kit *b)
{
    store_close(b->s);
    arena_reset(&b->arena);
    free(b);
}

static int64_t head(struct kit *k)
{
    struct store_info i;
    assert_int_equal(store_info(k->s, &i), PFE_OK);
    return i.head_seq;
}

static void nap(int ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

/* Statements of somebody else's, on a connection of their own. */
static PGconn *outsider(const struct kit *k)
{
    char sql[64];
    PGconn *pg = PQconnectdb(pg_cluster_url(pg_cluster_shared()));
    snprintf(sql, sizeof sql, "SET search_path = \"%s\"", pg_cluster_schema(pg_cluster_shared(), k->dir));
    PQclear(PQexec(pg, sql));
    assert_int_equal(PQstatus(pg), CONNECTION_OK);
    return pg;
}

static bool run_sql(PGconn *pg, const char *sql)
{
    PGresult *r = PQexec(pg, sql);
    bool ok = PQresultStatus(r) == PGRES_COMMAND_OK || PQresultStatus(r) == PGRES_TUPLES_OK;
    PQclear(r);
    return ok;
}

static int64_t number(PGconn *pg, const char *sql)
{
    PGresult *r = PQexec(pg, sql);
    if (PQresultStatus(r) != PGRES_TUPLES_OK || PQntuples(r) != 1)
        fail_msg("%s: %s", sql, PQerrorMessage(pg));
    int64_t v = strtoll(PQgetvalue(r, 0, 0), NULL, 10);
    PQclear(r);
    return v;
}

/* ---- the connection is cut ---- */

/* What a group may consist of: entries; an answer alone; a new account alone. */
enum what { ENTRIES, ANSWER, ACCOUNT, WHATS };

static enum pf_err do_group(struct kit *k, enum what what, int64_t user, unsigned n)
{
    char key[32];
    snprintf(key, sizeof key, "cut-%u", n);
    struct store_idem idem = {.principal = user, .key = str_c(key), .status = 201, .body = STR("{}")};
    struct kit_move m = {.kind = LEDGER_DEPOSIT, .to = user, .amount = 1};
    if (what == ENTRIES)
        return kit_group(k, &m, 1, &idem, 1);
    if (what == ANSWER)
        return kit_group(k, NULL, 0, &idem, 1);
    struct store_key of = {.owner = user, .currency = KIT_JPY};
    struct store_slot slot;
    int64_t first;
    assert_int_equal(kit_begin(k->s, &of, 1, NULL, 0, &slot, &first), PFE_OK);
    assert_int_equal(slot.state, STORE_SLOT_NEW);
    slot.used = true;
    return store_group_commit(k->s, &(struct store_commit){.ts = k->now, .slots = &slot, .n_slots = 1});
}

/* Is the effect of that group there? Asked by another connection. */
static bool happened(struct kit *k, enum what what, int64_t user, unsigned n)
{
    char key[32];
    struct store_idem found;
    struct ledger_account a;
    snprintf(key, sizeof key, "cut-%u", n);
    enum pf_err e = what == ACCOUNT ? store_account_get(k->s, user, KIT_JPY, &a)
                                    : store_idem_get(k->s, &k->arena, user, str_c(key), &found);
    assert_true(e == PFE_OK || e == PFE_NOT_FOUND);
    return e == PFE_OK;
}

static void cut_at_every_message(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    struct pg_proxy *p = pg_proxy_start(pg_cluster_shared());
    struct kit *via = kit_beside(k, pg_proxy_url(p), 2000);
    unsigned done = 0, undone = 0, n = 0;
    char name[32];
    for (int what = 0; what < WHATS; what++)
        for (int cut = PG_PROXY_REQUEST; cut <= PG_PROXY_ANSWER; cut++) {
            bool tripped = true;
            for (int at = 0; tripped; at++, n++) {
                snprintf(name, sizeof name, "user%u", n);
                int64_t user = kit_user(k, name), before = head(k);
                if (what == ENTRIES)
                    kit_deposit(k, user, 5), before++;
                int64_t first; /* connected before the cut is armed */
                assert_int_equal(kit_begin(via->s, NULL, 0, NULL, 0, NULL, &first), PFE_OK);
                store_group_abort(via->s);
                pg_proxy_arm(p, (enum pg_proxy_cut)cut, at);
                enum pf_err e = do_group(via, (enum what)what, user, n);
                tripped = pg_proxy_tripped(p);
                pg_proxy_arm(p, PG_PROXY_NONE, 0);
                if (e != PFE_OK && e != PFE_UNAVAILABLE)
                    fail_msg("what %d cut %d at %d: error %d", what, cut, at, e);
                assert_int_equal(happened(k, (enum what)what, user, n), e == PFE_OK);
                assert_int_equal(head(k), before + (what == ENTRIES && e == PFE_OK));
                done += tripped && e == PFE_OK;
                undone += tripped && e != PFE_OK;
                assert_true(at < 200);
            }
        }
    kit_verify(k);
    print_message("  %u cuts: %u committed, %u not\n", done + undone, done, undone);
    assert_true(done > 10 && undone > 10);
    kit_close_beside(via);
    pg_proxy_stop(p);
    kit_close(k);
}

/* The backend is ended by an administrator, between the round trips and in the midst of the second. */
static void backend_ended(void **state)
{
    (void)state;
    enum { ROUNDS = 60 };
    struct kit *k = kit_open(KIT_POSTGRES);
    struct kit *b = kit_beside(k, NULL, 2000);
    PGconn *pg = outsider(k);
    int64_t a = kit_user(k, "ann"), at = kit_deposit(k, a, 1);
    unsigned done = 0;
    static const char end_all[] = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                                  " WHERE pid <> pg_backend_pid() AND application_name = 'payflow'"
                                  " AND state <> 'idle'";
    for (int i = 0; i < ROUNDS; i++) {
        struct store_key keys[] = {{.owner = 0, .currency = KIT_USD}, {.owner = a, .currency = KIT_USD}};
        struct store_slot s[2];
        struct ledger_entry e;
        int64_t first = 0;
        assert_int_equal(kit_begin(b->s, keys, 2, NULL, 0, s, &first), PFE_OK);
        assert_int_equal(first, at + 1);
        struct ledger_command cmd = {
            .kind = LEDGER_DEPOSIT, .amount = 1, .currency = KIT_USD, .seq = first, .ts = b->now};
        struct uuid id = uuid_v7_seq(cmd.ts, first);
        memcpy(cmd.uuid, id.b, sizeof cmd.uuid);
        assert_int_equal(ledger_decide(&s[0].acc, &s[1].acc, &cmd, &e), PFE_OK);
        for (int k2 = 0; k2 < 2; k2++) {
            ledger_evolve(&s[k2].acc, &e, NULL);
            s[k2].used = true;
        }
        if (i % 2)
            assert_true(number(pg, end_all) >= 1);
        enum pf_err err = store_group_commit(
            b->s, &(struct store_commit){.ts = b->now, .entries = &e, .n_entries = 1, .slots = s, .n_slots = 2});
        assert_int_equal(err, i % 2 ? PFE_UNAVAILABLE : PFE_OK);
        at += err == PFE_OK;
        done += err == PFE_OK;
        assert_int_equal(head(k), at);
    }
    assert_int_equal(done, ROUNDS / 2);
    kit_verify(k);
    PQfinish(pg);
    kit_close_beside(b);
    kit_close(k);
}

/* ---- somebody else is in the way ---- */

struct blocker {
    PGconn *pg;
    const char *sql;
    int wait_ms; /* after it, before rolling back */
};

static void *block(void *arg)
{
    struct blocker *b = arg;
    if (b->sql)
        (void)run_sql(b->pg, b->sql);
    nap(b->wait_ms);
    (void)run_sql(b->pg, "ROLLBACK");
    return NULL;
}

/* The group waits for a row of another transaction's longer than locks are waited for: it is tried again. */
static void lock_not_freed_in_time(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    struct kit *b = kit_beside(k, NULL, 1000); /* locks: 800 ms */
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 5);
    struct blocker x = {.pg = outsider(k), .wait_ms = 1200};
    char sql[256];
    snprintf(sql, sizeof sql,
             "INSERT INTO idempotency VALUES (%lld, 'cut-1', decode(repeat('00', 32), 'hex'), 1, 0, '')", (long long)a);
    assert_true(run_sql(x.pg, "BEGIN") && run_sql(x.pg, sql));
    pthread_t t;
    pthread_create(&t, NULL, block, &x);
    int64_t t0 = clock_mono(clock_system());
    enum pf_err e = do_group(b, ENTRIES, a, 1);
    assert_true(clock_mono(clock_system()) - t0 > 1000000);
    pthread_join(t, NULL);
    assert_int_equal(e, PFE_OK);
    assert_int_equal(kit_balance(k, a), 6);
    kit_verify(k);
    PQfinish(x.pg);
    kit_close_beside(b);
    kit_close(k);
}

/* The connection is lost while the server is still at the group, waiting for a row: asked too early, it would say that
   there is no such group, and then commit it. */
static void cut_off_before_it_is_done(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    struct pg_proxy *p = pg_proxy_start(pg_cluster_shared());
    struct kit *via = kit_beside(k, pg_proxy_url(p), 3000);
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 5);
    assert_int_equal(do_group(via, ENTRIES, a, 0), PFE_OK);
    struct blocker x = {.pg = outsider(k), .wait_ms = 500}; /* the server looks for lost clients once a second */
    char sql[256];
    snprintf(sql, sizeof sql,
             "INSERT INTO idempotency VALUES (%lld, 'cut-1', decode(repeat('00', 32), 'hex'), 1, 0, '')", (long long)a);
    assert_true(run_sql(x.pg, "BEGIN") && run_sql(x.pg, sql));
    /* Both round trips, all known to the server by now: bind, describe, execute of 3 and of 7 statements, and a sync of
       each. It answers only when it is done with all. */
    pg_proxy_arm(p, PG_PROXY_REQUEST, 3 * 3 + 1 + 7 * 3 + 1);
    pthread_t t;
    pthread_create(&t, NULL, block, &x);
    enum pf_err e = do_group(via, ENTRIES, a, 1);
    pthread_join(t, NULL);
    assert_true(pg_proxy_tripped(p));
    assert_int_equal(e, PFE_OK);
    nap(100);
    assert_true(happened(k, ENTRIES, a, 1));
    assert_int_equal(kit_balance(k, a), 7);
    kit_verify(k);
    PQfinish(x.pg);
    kit_close_beside(via);
    pg_proxy_stop(p);
    kit_close(k);
}

/* Who is to get an account stays until it is there: somebody who closes the user waits, and then sees the account. */
static void owner_is_held(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    int64_t a = kit_user(k, "ann");
    PGconn *pg = outsider(k);
    char sql[128];
    snprintf(sql, sizeof sql, "UPDATE users SET status = 1 WHERE id = %lld", (long long)a);
    struct store_key key = {.owner = a, .currency = KIT_USD};
    struct store_slot s;
    int64_t first;
    assert_int_equal(kit_begin(k->s, &key, 1, NULL, 0, &s, &first), PFE_OK);
    assert_int_equal(s.state, STORE_SLOT_NEW);
    assert_true(run_sql(pg, "SET lock_timeout = 200"));
    assert_false(run_sql(pg, sql));
    s.used = true;
    assert_int_equal(store_group_commit(k->s, &(struct store_commit){.ts = k->now, .slots = &s, .n_slots = 1}), PFE_OK);
    assert_true(run_sql(pg, sql));
    kit_verify(k);
    PQfinish(pg);
    kit_close(k);
}

struct depositor {
    struct kit *k;
    int64_t user;
    enum pf_err err;
};

static void *deposit(void *arg)
{
    struct depositor *d = arg;
    struct kit_move m = {.kind = LEDGER_DEPOSIT, .to = d->user, .amount = 100};
    d->err = kit_group(d->k, &m, 1, NULL, 0);
    return NULL;
}

/* For a lock, in this cluster, which is nobody else's; at most 10 s. */
static void until_somebody_waits(PGconn *pg)
{
    int tries = 1000;
    while (!run_sql(pg, "SELECT 1 / count(*) FROM pg_locks WHERE NOT granted") && --tries) /* an error: by 0 */
        nap(10);
    assert_true(tries);
}

/* The same, and another writer comes first when the group has to let go: what it was decided on is no more. */
static void overtaken_between_tries(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    struct kit *b = kit_beside(k, NULL, 1500); /* locks: 1.2 s, long before the depositor gives up */
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 5);
    PGconn *other = outsider(k), *watcher = outsider(k);
    struct depositor d = {.k = k, .user = a};
    char sql[256];
    snprintf(sql, sizeof sql,
             "INSERT INTO idempotency VALUES (%lld, 'cut-1', decode(repeat('00', 32), 'hex'), 1, 0, '')", (long long)a);
    assert_true(run_sql(other, "BEGIN") && run_sql(other, sql));

    struct store_key keys[] = {{.owner = 0, .currency = KIT_USD}, {.owner = a, .currency = KIT_USD}};
    struct store_slot s[2];
    int64_t first;
    assert_int_equal(kit_begin(b->s, keys, 2, NULL, 0, s, &first), PFE_OK);
    pthread_t u;
    pthread_create(&u, NULL, deposit, &d);
    until_somebody_waits(watcher); /* for the head's lock, which is the depositor's as soon as the group lets go */
    struct store_idem idem = {.principal = a, .key = STR("cut-1"), .status = 201, .body = STR("{}")};
    enum pf_err e = store_group_commit(
        b->s, &(struct store_commit){.ts = b->now, .slots = s, .n_slots = 2, .idem = &idem, .n_idem = 1});
    pthread_join(u, NULL);
    assert_true(run_sql(other, "ROLLBACK")); /* not before: the row is never to be had */
    assert_int_equal(e, PFE_BUSY);
    assert_int_equal(d.err, PFE_OK);
    struct store_idem got;
    assert_int_equal(store_idem_get(k->s, &k->arena, a, STR("cut-1"), &got), PFE_NOT_FOUND);
    assert_int_equal(kit_balance(k, a), 105);
    kit_verify(k);
    PQfinish(other);
    PQfinish(watcher);
    kit_close_beside(b);
    kit_close(k);
}

/* The group holds the user's row and wants the key, the other has the key and wants the row. The server ends the group:
   it waits last, and so its wait is looked at while the circle is closed. */
static void deadlock(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    struct kit *b = kit_beside(k, NULL, 5000);
    int64_t a = kit_user(k, "ann");
    struct blocker x = {.pg = outsider(k), .wait_ms = 0};
    char insert[256], update[256];
    snprintf(insert, sizeof insert,
             "INSERT INTO idempotency VALUES (%lld, 'cut-1', decode(repeat('00', 32), 'hex'), 1, 0, '')", (long long)a);
    snprintf(update, sizeof update, "UPDATE users SET updated_us = updated_us + 1 WHERE id = %lld", (long long)a);
    assert_true(run_sql(x.pg, "BEGIN") && run_sql(x.pg, insert));

    /* a new account: the group holds its owner */
    struct store_key key = {.owner = a, .currency = KIT_USD};
    struct store_slot s;
    int64_t first;
    assert_int_equal(kit_begin(b->s, &key, 1, NULL, 0, &s, &first), PFE_OK);
    assert_int_equal(s.state, STORE_SLOT_NEW);
    s.used = true;
    x.sql = update;
    pthread_t t;
    pthread_create(&t, NULL, block, &x);
    nap(1300); /* it waits, and was looked at (deadlock_timeout 1 s) before there was a circle */
    struct store_idem idem = {.principal = a, .key = STR("cut-1"), .status = 201, .body = STR("{}")};
    enum pf_err e = store_group_commit(
        b->s, &(struct store_commit){.ts = b->now, .slots = &s, .n_slots = 1, .idem = &idem, .n_idem = 1});
    pthread_join(t, NULL);
    assert_int_equal(e, PFE_OK);
    struct store_idem got;
    struct ledger_account acc;
    assert_int_equal(store_idem_get(k->s, &k->arena, a, STR("cut-1"), &got), PFE_OK);
    assert_int_equal(store_account_get(k->s, a, KIT_USD, &acc), PFE_OK);
    kit_verify(k);
    PQfinish(x.pg);
    kit_close_beside(b);
    kit_close(k);
}

/* ---- a writer stops ---- */

/* The child takes the lock and stops; woken, it finds that its group is gone. */
static void stopped_with_the_lock(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 5);
    (void)pg_cluster_schema(pg_cluster_shared(), k->dir);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct kit *b = kit_beside(k, NULL, 1000);
        struct store_key keys[] = {{.owner = 0, .currency = KIT_USD}, {.owner = a, .currency = KIT_USD}};
        struct store_slot s[2];
        int64_t first;
        struct store_idem idem = {.principal = a, .key = STR("late"), .status = 201, .body = STR("{}")};
        if (kit_begin(b->s, keys, 2, NULL, 0, s, &first) != PFE_OK)
            _exit(1);
        raise(SIGSTOP);
        enum pf_err e = store_group_commit(
            b->s, &(struct store_commit){.ts = b->now, .slots = s, .n_slots = 2, .idem = &idem, .n_idem = 1});
        _exit(e == PFE_UNAVAILABLE ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status));
    int64_t t0 = clock_mono(clock_system());
    kit_deposit(k, a, 1);
    int64_t took = clock_mono(clock_system()) - t0;
    print_message("  freed after %lld ms\n", (long long)took / 1000);
    assert_true(took < 3000000);
    kill(child, SIGCONT);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    kit_verify(k);
    kit_close(k);
}

static void *commit_group(void *arg)
{
    struct depositor *d = arg;
    d->err = do_group(d->k, ENTRIES, d->user, 1);
    return NULL;
}

/* The same in the midst of sending, where the server itself would wait for ever. */
static void stopped_while_sending(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    struct pg_proxy *p = pg_proxy_start(pg_cluster_shared());
    struct kit *via = kit_beside(k, pg_proxy_url(p), 60000), *b = kit_beside(k, NULL, 1000);
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 5);
    assert_int_equal(do_group(via, ENTRIES, a, 0), PFE_OK);
    struct depositor d = {.k = via, .user = a};
    pthread_t t;
    /* begin … sync of the first round trip are 10 messages (bind, describe, execute for each of 3, sync) */
    pg_proxy_arm(p, PG_PROXY_STALL, 14);
    pthread_create(&t, NULL, commit_group, &d);
    for (int i = 0; i < 500 && !pg_proxy_tripped(p); i++)
        nap(10);
    assert_true(pg_proxy_tripped(p));
    int64_t t0 = clock_mono(clock_system());
    struct kit_move m = {.kind = LEDGER_DEPOSIT, .to = a, .amount = 1};
    assert_int_equal(kit_group(b, &m, 1, NULL, 0), PFE_OK);
    print_message("  freed after %lld ms\n", (long long)(clock_mono(clock_system()) - t0) / 1000);
    pg_proxy_release(p);
    pthread_join(t, NULL);
    assert_int_equal(d.err, PFE_UNAVAILABLE);
    assert_int_equal(kit_balance(k, a), 7);
    kit_verify(k);
    kit_close_beside(via);
    kit_close_beside(b);
    pg_proxy_stop(p);
    kit_close(k);
}

/* ---- the server goes down ---- */

static void restart(void)
{
    struct pg_cluster *c = pg_cluster_shared(); /* it would start another while this one is down */
    pg_cluster_kill(c);
    pg_cluster_up(c);
}

static void server_restarted(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    struct kit *b = kit_beside(k, NULL, 2000);
    int64_t a = kit_user(k, "ann");
    kit_deposit(k, a, 5);
    int64_t at = head(k);

    struct store_key key = {.owner = a, .currency = KIT_USD};
    struct store_slot s;
    int64_t first;
    struct store_idem idem = {.principal = a, .key = STR("k"), .status = 201, .body = STR("{}")}, got;
    assert_int_equal(kit_begin(b->s, &key, 1, NULL, 0, &s, &first), PFE_OK);
    restart();
    assert_int_equal(
        store_group_commit(b->s,
                           &(struct store_commit){.ts = b->now, .slots = &s, .n_slots = 1, .idem = &idem, .n_idem = 1}),
        PFE_UNAVAILABLE);
    nap(200);
    assert_int_equal(store_idem_get(k->s, &k->arena, a, STR("k"), &got), PFE_NOT_FOUND);
    assert_int_equal(head(k), at);
    assert_int_equal(do_group(b, ENTRIES, a, 1), PFE_OK);
    kit_verify(k);
    kit_close_beside(b);
    kit_close(k);
}

struct stream {
    struct kit *k;
    int64_t user;
    atomic_bool stop;
    int64_t acked, refused, unknown;
};

static void *deposits(void *arg)
{
    struct stream *s = arg;
    while (!atomic_load(&s->stop)) {
        struct store_key keys[] = {{.owner = 0, .currency = KIT_USD}, {.owner = s->user, .currency = KIT_USD}};
        struct store_slot slots[2];
        struct ledger_entry e;
        int64_t first;
        if (kit_begin(s->k->s, keys, 2, NULL, 0, slots, &first) != PFE_OK) {
            s->refused++;
            nap(5);
            continue;
        }
        struct ledger_command cmd = {
            .kind = LEDGER_DEPOSIT, .amount = 1, .currency = KIT_USD, .seq = first, .ts = s->k->now};
        struct uuid id = uuid_v7_seq(cmd.ts, first);
        memcpy(cmd.uuid, id.b, sizeof cmd.uuid);
        if (ledger_decide(&slots[0].acc, &slots[1].acc, &cmd, &e) != PFE_OK)
            abort();
        for (int i = 0; i < 2; i++) {
            ledger_evolve(&slots[i].acc, &e, NULL);
            slots[i].used = true;
        }
        enum pf_err err = store_group_commit(
            s->k->s,
            &(struct store_commit){.ts = s->k->now, .entries = &e, .n_entries = 1, .slots = slots, .n_slots = 2});
        s->acked += err == PFE_OK;
        s->refused += err != PFE_OK && err != PFE_INTERNAL;
        s->unknown += err == PFE_INTERNAL;
    }
    return NULL;
}

/* Killed while commits are on their way: every group that was acknowledged is there, and no other. */
static void server_killed_under_load(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    struct stream s = {.k = kit_beside(k, NULL, 3000), .user = kit_user(k, "ann")};
    kit_deposit(k, s.user, 1);
    pthread_t t;
    pthread_create(&t, NULL, deposits, &s);
    for (int i = 0; i < 3; i++) {
        nap(150 + 37 * i);
        restart();
    }
    nap(1500); /* the back-off of the connection is at most 1 s */
    atomic_store(&s.stop, true);
    pthread_join(t, NULL);
    print_message("  %lld acknowledged, %lld refused\n", (long long)s.acked, (long long)s.refused);
    assert_int_equal(s.unknown, 0);
    assert_true(s.acked > 10);
    struct kit *after = kit_beside(k, NULL, 0);
    assert_int_equal(kit_balance(after, s.user), 1 + s.acked);
    kit_verify(after);
    kit_close_beside(after);
    kit_close_beside(s.k);
    kit_close(k);
}

/* ---- two instances ---- */

/* cmocka cannot fail a test from another thread. */
#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                                         \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { PEERS = 2, PEOPLE = 8 };

struct peer {
    struct kit *k;
    const int64_t *users;
    unsigned seed;
    int groups;
    int64_t entries;
    int64_t last; /* newest entry acknowledged */
    pthread_barrier_t *gate;
    int won;
};

static unsigned below(struct peer *p, unsigned n)
{
    return (unsigned)rand_r(&p->seed) % n;
}

/* Random groups, refs to what either has written. */
static void *trade(void *arg)
{
    struct peer *p = arg;
    static const enum ledger_kind kinds[] = {LEDGER_DEPOSIT,  LEDGER_DEPOSIT,  LEDGER_TRANSFER,
                                             LEDGER_TRANSFER, LEDGER_WITHDRAW, LEDGER_HOLD,
                                             LEDGER_CAPTURE,  LEDGER_RELEASE,  LEDGER_ROLLBACK};
    for (int g = 0; g < p->groups; g++) {
        struct kit_move m[12];
        size_t n = 1 + below(p, 12);
        for (size_t i = 0; i < n; i++) {
            m[i] = (struct kit_move){.kind = kinds[below(p, sizeof kinds / sizeof *kinds)],
                                     .from = p->users[below(p, PEOPLE)],
                                     .to = p->users[below(p, PEOPLE)],
                                     .amount = 1 + below(p, 50),
                                     .currency = below(p, 3) ? KIT_USD : KIT_JPY,
                                     .ref = 1 + (int64_t)below(p, (unsigned)p->last + 20),
                                     .ts = p->k->now + below(p, 1000)};
            if (m[i].kind == LEDGER_DEPOSIT)
                m[i].from = 0;
            if (m[i].kind == LEDGER_WITHDRAW)
                m[i].to = 0;
        }
        enum pf_err e = kit_group(p->k, m, n, NULL, 0);
        /* resolved by the other since it was looked up, or twice in this group: nothing was done */
        CHECK(e == PFE_OK || e == PFE_WRONG_STATE);
        for (size_t i = 0; i < n && e == PFE_OK; i++)
            if (m[i].seq) {
                CHECK(m[i].seq > p->last);
                p->last = m[i].seq;
                p->entries++;
            }
    }
    return NULL;
}

static void two_at_once(void **state)
{
    (void)state;
    const char *given = getenv("PAYFLOW_TEST_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)(time(NULL) / 86400);
    print_message("  seed %u\n", seed);
    struct kit *k = kit_open(KIT_POSTGRES);
    int64_t users[PEOPLE];
    char name[16];
    for (int i = 0; i < PEOPLE; i++) {
        snprintf(name, sizeof name, "user%d", i);
        users[i] = kit_user(k, name);
    }
    struct peer p[PEERS];
    pthread_t t[PEERS];
    for (unsigned i = 0; i < PEERS; i++) {
        p[i] = (struct peer){.k = kit_beside(k, NULL, 0), .users = users, .seed = seed * PEERS + i, .groups = 250};
        pthread_create(&t[i], NULL, trade, &p[i]);
    }
    /* verification looks on while they work */
    for (int i = 0; i < 5; i++) {
        kit_verify(k);
        nap(30);
    }
    int64_t entries = 0;
    for (int i = 0; i < PEERS; i++) {
        pthread_join(t[i], NULL);
        entries += p[i].entries;
        kit_close_beside(p[i].k);
    }
    assert_int_equal(head(k), entries); /* without gaps, and none that nobody was told of */
    assert_true(p[0].entries > 100 && p[1].entries > 100);
    kit_verify(k);
    struct store_trial v[4];
    unsigned n;
    assert_int_equal(store_trial(k->s, v, 4, &n), PFE_OK);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(v[i].sum, 0);
    PGconn *pg = outsider(k);
    assert_int_equal(number(pg, "SELECT count(*) FROM journal"), entries);
    assert_int_equal(number(pg, "SELECT max(seq) FROM journal"), entries);
    PQfinish(pg);
    kit_close(k);
}

static void *race_for_keys(void *arg)
{
    struct peer *p = arg;
    struct arena a;
    arena_init(&a, NULL, 0, 1 << 20);
    for (int g = 0; g < p->groups; g++) {
        char text[16];
        snprintf(text, sizeof text, "key-%d", g);
        struct store_idem_ref ref[] = {{p->users[0], STR("another")}, {p->users[0], str_c(text)}};
        struct store_key keys[] = {{.owner = 0, .currency = KIT_USD}, {.owner = p->users[0], .currency = KIT_USD}};
        struct store_slot s[2];
        struct ledger_entry e;
        struct store_idem found;
        int64_t first;
        pthread_barrier_wait(p->gate);
        CHECK(kit_begin(p->k->s, keys, 2, ref, 2, s, &first) == PFE_OK);
        enum pf_err err = store_idem_get(p->k->s, &a, p->users[0], str_c(text), &found);
        if (err == PFE_OK) { /* the other was first: its answer */
            CHECK(str_is(found.body, "{\"won\":true}"));
            CHECK(found.seq == first - 1);
            CHECK(found.status == 201);
            CHECK(found.request[31] == 7);
            store_group_abort(p->k->s);
            continue;
        }
        CHECK(err == PFE_NOT_FOUND);
        struct ledger_command cmd = {
            .kind = LEDGER_DEPOSIT, .amount = 1, .currency = KIT_USD, .seq = first, .ts = p->k->now};
        struct uuid id = uuid_v7_seq(cmd.ts, first);
        memcpy(cmd.uuid, id.b, sizeof cmd.uuid);
        CHECK(ledger_decide(&s[0].acc, &s[1].acc, &cmd, &e) == PFE_OK);
        for (int i = 0; i < 2; i++) {
            ledger_evolve(&s[i].acc, &e, NULL);
            s[i].used = true;
        }
        struct store_idem idem = {
            .principal = p->users[0], .key = str_c(text), .status = 201, .body = STR("{\"won\":true}"), .seq = first};
        memset(idem.request, 7, sizeof idem.request);
        struct store_commit c = {
            .ts = p->k->now, .entries = &e, .n_entries = 1, .slots = s, .n_slots = 2, .idem = &idem, .n_idem = 1};
        CHECK(store_group_commit(p->k->s, &c) == PFE_OK);
        p->won++;
    }
    arena_reset(&a);
    return NULL;
}

static void one_key_on_both(void **state)
{
    (void)state;
    enum { KEYS = 200 };
    struct kit *k = kit_open(KIT_POSTGRES);
    int64_t user = kit_user(k, "ann");
    pthread_barrier_t gate;
    pthread_barrier_init(&gate, NULL, PEERS);
    struct peer p[PEERS];
    pthread_t t[PEERS];
    for (int i = 0; i < PEERS; i++) {
        p[i] = (struct peer){.k = kit_beside(k, NULL, 0), .users = &user, .groups = KEYS, .gate = &gate};
        pthread_create(&t[i], NULL, race_for_keys, &p[i]);
    }
    for (int i = 0; i < PEERS; i++) {
        pthread_join(t[i], NULL);
        kit_close_beside(p[i].k);
    }
    print_message("  %d and %d came first\n", p[0].won, p[1].won);
    assert_int_equal(p[0].won + p[1].won, KEYS);
    assert_int_equal(kit_balance(k, user), KEYS);
    kit_verify(k);
    pthread_barrier_destroy(&gate);
    kit_close(k);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cut_at_every_message),
                                       cmocka_unit_test(backend_ended),
                                       cmocka_unit_test(lock_not_freed_in_time),
                                       cmocka_unit_test(cut_off_before_it_is_done),
                                       cmocka_unit_test(owner_is_held),
                                       cmocka_unit_test(overtaken_between_tries),
                                       cmocka_unit_test(deadlock),
                                       cmocka_unit_test(stopped_with_the_lock),
                                       cmocka_unit_test(stopped_while_sending),
                                       cmocka_unit_test(two_at_once),
                                       cmocka_unit_test(one_key_on_both),
                                       cmocka_unit_test(server_restarted),
                                       cmocka_unit_test(server_killed_under_load)};
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("postgres groups", tests, NULL, NULL);
}
