/* A script of 200 movements goes through the real ledger writer while the disk fails at any operation or loses power
   there. What was acknowledged is in the journal exactly once, what was refused is not, a group whose outcome is
   unknown is whole or absent, a retry with its key gives the first answer, and the books prove themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "app/movement.h"
#include "base/log.h"
#include "cache/local/local.h"
#include "codec/uuid.h"
#include "support/faulty_disk.h"
#include "store/sqlite/sqlite.h"

enum { MOVEMENTS = 200, TASKS_MAX = MOVEMENTS, GROUPS_MAX = 128, BATCH = 4, USERS = 6, LOG_MAX = 2 * MOVEMENTS };
enum { USD = 840, SEED_OF_SCRIPT = 20260101, LATE_USER_AT = 12, ROOM = 256 };

#define WRONG(...) return snprintf(why, ROOM, __VA_ARGS__), false

/* ---- the script ---- */

struct step { /* of one job */
    enum job_kind kind;
    struct movement m[BATCH];
    int ref[BATCH]; /* the step whose first entry m resolves; -1: none */
    size_t n;
    bool atomic, keyed;
};

static struct step script[TASKS_MAX];
static int n_steps, group_at[GROUPS_MAX + 1], n_groups; /* group g: steps group_at[g] .. group_at[g + 1] - 1 */

static unsigned pick(uint64_t *x, unsigned n)
{
    *x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((*x >> 33) % n);
}

static struct movement some_movement(uint64_t *x, int step, int *ret_ref)
{
    static const enum ledger_kind kinds[] = {LEDGER_DEPOSIT,  LEDGER_DEPOSIT,  LEDGER_TRANSFER, LEDGER_TRANSFER,
                                             LEDGER_TRANSFER, LEDGER_WITHDRAW, LEDGER_HOLD,     LEDGER_CAPTURE,
                                             LEDGER_RELEASE,  LEDGER_ROLLBACK};
    struct movement m = {.kind = kinds[step < USERS ? 0 : pick(x, sizeof kinds / sizeof *kinds)],
                         .amount = 1 + (int64_t)pick(x, 3000),
                         .currency = USD};
    int64_t a = 1 + (step < USERS ? step : (int64_t)pick(x, USERS)), b = 1 + (a + (int64_t)pick(x, USERS - 1)) % USERS;
    *ret_ref = -1;
    switch (m.kind) {
    case LEDGER_DEPOSIT:
        m.to_user = a;
        m.amount += 5000;
        break;
    case LEDGER_WITHDRAW:
        m.from_user = a;
        break;
    case LEDGER_TRANSFER:
    case LEDGER_HOLD:
        m.from_user = a;
        m.to_user = b;
        break;
    default: /* most find a fitting step; the others are refused, which is a case too */
        m.amount = 0;
        for (int i = 0; i < 20; i++) {
            *ret_ref = (int)pick(x, (unsigned)step);
            enum ledger_kind of = script[*ret_ref].m[0].kind;
            if (m.kind == LEDGER_ROLLBACK ? of == LEDGER_TRANSFER || of == LEDGER_DEPOSIT : of == LEDGER_HOLD)
                break;
        }
    }
    return m;
}

static void write_script(void)
{
    uint64_t x = SEED_OF_SCRIPT;
    for (int left = MOVEMENTS; left > 0; n_steps++) {
        struct step *s = &script[n_steps];
        bool batch = n_steps > USERS && pick(&x, 8) == 0;
        s->kind = JOB_MOVE;
        s->n = batch ? 2 + pick(&x, BATCH - 1) : 1;
        s->n = (int)s->n > left ? (size_t)left : s->n;
        s->atomic = !batch || pick(&x, 2);
        s->keyed = pick(&x, 3) == 0;
        for (size_t i = 0; i < s->n; i++)
            s->m[i] = some_movement(&x, n_steps, &s->ref[i]);
        left -= (int)s->n;
    }
    for (int at = 0; at < n_steps; n_groups++) {
        group_at[n_groups] = at;
        at += n_groups == 0 || n_groups == LATE_USER_AT ? 1 : 1 + (int)pick(&x, 7);
        if (at > n_steps)
            at = n_steps;
    }
    group_at[n_groups] = n_steps;
}

/* ---- what must be in the journal ---- */

struct line {
    size_t n;
    uint8_t b[LEDGER_CANONICAL_MAX];
};

struct lines {
    int n;
    struct line l[LOG_MAX];
};

static void add_line(struct lines *l, const struct ledger_entry *e)
{
    assert_true(l->n < LOG_MAX);
    l->l[l->n].n = ledger_canonical(e, l->l[l->n].b, sizeof l->l[l->n].b);
    l->n++;
}

/* ---- one life of a process ---- */

struct task {
    struct job j; /* first: a job is its task */
    struct movement m[BATCH];
    char key[16], body[160];
    struct run *run;
    bool asked, over;
};

enum fate { NOT_ASKED, ASKED, DONE, REFUSED, UNKNOWN };

struct run {
    char dir[64];
    struct store *store;
    struct app *app;
    struct arena arena;
    struct task task[TASKS_MAX];
    int group;           /* under way, or the next */
    struct lines sure;   /* acknowledged, in order */
    enum fate late_user; /* with its audit row and the answer to its key */
    int fatal;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool waiting; /* for the groups to come to a stop */
};

static _Atomic int64_t now = INT64_C(1767225600000000);

static int64_t tick(void *ctx)
{
    (void)ctx;
    return now++;
}

static const struct clock the_clock = {tick, tick, NULL};
static struct cache *cache;
static struct metrics *metrics;

/* Each run frees megabytes, which would keep the sanitizer busy with fresh pages. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=8";
}

static void noted(void *ctx)
{
    ((struct run *)ctx)->fatal++;
}

static bool open_run(struct run *r, char *why)
{
    enum { FLUSH = 40 }; /* several write-behinds in a script */
    char text[256];
    struct sqlite_options o = {.dir = r->dir, .flush_entries = FLUSH};
    if (store_sqlite_open(&o, &r->store, text) != PFE_OK)
        WRONG("does not open: %.200s", text);
    r->app = app_new(&(struct app_config){.dev = true,
                                          .bcrypt_cost = 4,
                                          .password_min = 8,
                                          .jwt_secret = STR("a secret of at least thirty-two bytes"),
                                          .currency = USD,
                                          .queue_capacity = 1000,
                                          .group_max = 512},
                     &(struct app_deps){.store = r->store,
                                        .cache = cache,
                                        .clock = &the_clock,
                                        .metrics = metrics,
                                        .on_fatal = noted,
                                        .fatal_ctx = r});
    assert_non_null(r->app);
    return true;
}

static void close_run(struct run *r)
{
    app_free(r->app);
    store_close(r->store);
    r->app = NULL;
    r->store = NULL;
    arena_reset(&r->arena);
}

static struct run *new_run(void)
{
    struct run *r = calloc(1, sizeof *r);
    assert_non_null(r);
    strcpy(r->dir, "/tmp/payflow-faults-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    arena_init(&r->arena, NULL, 0, 1 << 24);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->moved, NULL);
    return r;
}

static void free_run(struct run *r)
{
    static const char *const names[] = {"payflow.db", "lock"};
    char path[96];
    disk_forget(r->dir);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", r->dir, names[i]);
        unlink(path);
    }
    rmdir(r->dir);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->moved);
    free(r);
}

/* ---- the ledger writer drives the script: the end of one group submits the next ---- */

static void render(struct job *j)
{
    struct task *t = (struct task *)j;
    int n = 0;
    for (size_t i = 0; i < j->n && n < (int)sizeof t->body; i++)
        n += snprintf(t->body + n, sizeof t->body - (size_t)n, "%d:%lld:%lld ", j->m[i].err,
                      (long long)j->m[i].entry.seq, (long long)j->m[i].entry.debit_balance);
    j->idem.status = 201;
    j->idem.body = str_c(t->body);
}

static void task_done(struct job *j);

static void make_task(struct run *r, int i, struct task *t)
{
    const struct step *s = &script[i];
    *t = (struct task){.run = r, .asked = true};
    for (size_t k = 0; k < s->n; k++) {
        t->m[k] = s->m[k];
        t->m[k].err = PFE_UNAVAILABLE; /* until it is decided */
        if (s->ref[k] >= 0)
            t->m[k].ref = r->task[s->ref[k]].m[0].entry.seq;
    }
    t->j = (struct job){.kind = s->kind,
                        .actor = 1,
                        .m = t->m,
                        .n = s->n,
                        .atomic = s->atomic,
                        .arena = &r->arena,
                        .render = render,
                        .done = task_done};
    if (s->keyed) {
        snprintf(t->key, sizeof t->key, "key-%d", i);
        t->j.idem = (struct app_idem){.principal = 1, .key = str_c(t->key), .request = {(uint8_t)i, 7}};
    }
}

static void stop(struct run *r)
{
    pthread_mutex_lock(&r->lock);
    r->waiting = false;
    pthread_cond_signal(&r->moved);
    pthread_mutex_unlock(&r->lock);
}

static void submit_group(struct run *r)
{
    int first = group_at[r->group], end = group_at[r->group + 1]; /* the group may be over before this returns */
    for (int i = first; i < end; i++) {
        make_task(r, i, &r->task[i]);
        assert_int_equal(app_idem_begin(r->app, &r->task[i].j.idem), PFE_OK);
        if (app_submit(r->app, &r->task[i].j) != PFE_OK) {
            r->task[i].asked = false;
            stop(r);
            return;
        }
    }
}

static void note_entries(struct lines *l, const struct task *t)
{
    for (size_t i = 0; i < t->j.n && t->j.err == PFE_OK && !t->j.idem.replayed; i++)
        if (t->m[i].err == PFE_OK)
            add_line(l, &t->m[i].entry);
}

static void task_done(struct job *j)
{
    struct task *t = (struct task *)j;
    struct run *r = t->run;
    note_entries(&r->sure, t);
    app_idem_end(r->app, &j->idem);
    t->over = j->err != PFE_INTERNAL;
    if (t != &r->task[group_at[r->group + 1] - 1])
        return;
    bool unknown = j->err == PFE_INTERNAL || j->err == PFE_UNAVAILABLE;
    r->group += !unknown;
    if (unknown || r->group == n_groups || r->group == LATE_USER_AT)
        stop(r);
    else
        submit_group(r);
}

/* The first group after a stop has one job only, so it cannot be taken apart. */
static void go_on(struct run *r)
{
    r->waiting = true;
    submit_group(r);
    pthread_mutex_lock(&r->lock);
    while (r->waiting)
        pthread_cond_wait(&r->moved, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

/* A user, its audit row and the answer to its key, in one transaction. */
static enum pf_err insert_user(struct store *s, const char *name)
{
    struct store_user u = {.role = IDENT_USER, .created_us = now, .updated_us = now, .password_hash = "x"};
    struct uuid id = uuid_v7(now);
    struct store_audit a = {.ts = now, .action = str_c(name), .entity = STR("user"), .outcome = STR("ok")};
    struct store_idem i = {.principal = 0, .key = str_c(name), .status = 201, .body = str_c(name)};
    struct store_tx *tx;
    memcpy(u.uuid, id.b, sizeof u.uuid);
    snprintf(u.username, sizeof u.username, "%s", name);
    snprintf(u.email, sizeof u.email, "%s@example.com", name);
    enum pf_err e = store_tx_begin(s, &tx);
    if (e != PFE_OK)
        return e;
    e = store_user_insert(tx, &u);
    if (e == PFE_OK)
        e = store_audit_append(tx, &a);
    if (e == PFE_OK)
        e = store_idem_put(tx, &i);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

static void play(struct run *r)
{
    go_on(r);
    if (r->group == LATE_USER_AT) {
        r->late_user = ASKED;
        enum pf_err e = insert_user(r->store, "late");
        r->late_user = e == PFE_OK ? DONE : e == PFE_INTERNAL ? UNKNOWN : REFUSED;
        go_on(r);
    }
}

/* ---- the checks ---- */

/* What the job would add if the group's commit happened. */
static void perhaps_task(const struct task *t, struct lines *ret)
{
    bool refused = false;
    for (size_t k = 0; k < t->j.n; k++)
        refused |= t->m[k].err != PFE_OK;
    if (!t->asked || t->over || !t->j.live || (refused && t->j.atomic))
        return;
    for (size_t k = 0; k < t->j.n; k++)
        if (t->m[k].err == PFE_OK && t->m[k].entry.seq) /* 0: it was never decided */
            add_line(ret, &t->m[k].entry);
}

static void perhaps(const struct run *r, struct lines *ret)
{
    ret->n = 0;
    if (r->group < n_groups)
        for (int i = group_at[r->group]; i < group_at[r->group + 1]; i++)
            perhaps_task(&r->task[i], ret);
}

static bool take_line(void *ctx, const struct ledger_entry *e, int64_t resolved_by)
{
    (void)resolved_by;
    add_line(ctx, e);
    return true;
}

static bool same_lines(const struct line *a, const struct line *b, int n)
{
    for (int i = 0; i < n; i++)
        if (a[i].n != b[i].n || memcmp(a[i].b, b[i].b, a[i].n) != 0)
            return false;
    return true;
}

/* The journal is `sure`, then all of `maybe` or nothing. */
static bool check_journal(struct store *s, const struct lines *sure, const struct lines *maybe, bool *ret_came,
                          char *why)
{
    static struct lines have;
    struct store_verify v;
    struct store_trial t[8];
    unsigned n;
    have.n = 0;
    *ret_came = false;
    if (store_journal_scan(s, 0, 0, take_line, &have) != PFE_OK)
        WRONG("the journal cannot be read");
    if (have.n < sure->n)
        WRONG("lost: %d entries were acknowledged, %d are there", sure->n, have.n);
    if (!same_lines(have.l, sure->l, sure->n))
        WRONG("the journal differs from what was acknowledged");
    *ret_came = maybe && have.n > sure->n;
    if (have.n > sure->n &&
        (!maybe || have.n != sure->n + maybe->n || !same_lines(have.l + sure->n, maybe->l, maybe->n)))
        WRONG("%d entries that nobody is owed, or half a group of %d", have.n - sure->n, maybe ? maybe->n : 0);
    if (store_verify(s, &v) != PFE_OK || !v.ok)
        WRONG("verify: %.160s", v.what);
    if (store_trial(s, t, 8, &n) != PFE_OK)
        WRONG("no trial balance");
    for (unsigned i = 0; i < n; i++)
        if (t[i].sum != 0)
            WRONG("the sum of currency %u is %lld", t[i].currency, (long long)t[i].sum);
    return true;
}

static bool check_user(struct run *r, enum fate fate, char *why)
{
    struct store_user u;
    struct store_idem i;
    struct store_audit a[4];
    unsigned n = 0;
    bool row = store_user_by_name(r->store, STR("late"), &u) == PFE_OK;
    bool key = store_idem_get(r->store, &r->arena, 0, STR("late"), &i) == PFE_OK;
    struct store_audit_query q = {.actor = -1, .action = STR("late"), .limit = 4};
    if (store_audit_list(r->store, &r->arena, &q, a, &n) != PFE_OK || n > 1 || row != key || row != (n == 1))
        WRONG("half a user: row %d, key %d, %u audit rows", row, key, n);
    if (fate == DONE && !row)
        WRONG("lost: a user was acknowledged");
    if ((fate == REFUSED || fate == NOT_ASKED) && row)
        WRONG("a refused user is there");
    return true;
}

/* Every keyed request that was sent is sent again; replays: only those that were answered. came: the group under way at
   the end was committed. */
static bool check_retries(struct run *after, const struct run *before, bool came, bool replays, char *why)
{
    for (int i = 0; i < n_steps; i++) {
        const struct task *old = &before->task[i];
        if (!script[i].keyed || !old->asked)
            continue;
        bool open = !old->over, kept = open ? came && old->body[0] : old->j.err == PFE_OK;
        if (!kept && (replays || !open))
            continue; /* it was refused; whether it would be today is not of interest */
        struct task *t = &after->task[i];
        make_task(after, i, t);
        for (size_t k = 0; k < t->j.n; k++)
            t->m[k].ref = old->m[k].ref;
        enum pf_err e = app_submit_wait(after->app, &t->j);
        if (kept && (e != PFE_OK || !t->j.idem.replayed || !str_is(t->j.idem.body, old->body)))
            WRONG("step %d is not answered as the first time (error %d, replayed %d)", i, e, t->j.idem.replayed);
        if (!kept && t->j.idem.replayed)
            WRONG("step %d did not happen and is replayed", i);
        note_entries(&after->sure, t);
    }
    return true;
}

static bool one_more(struct run *r, char *why)
{
    struct task last = {.j = {.kind = JOB_MOVE, .n = 1, .atomic = true, .arena = &r->arena}};
    last.m[0] = (struct movement){.kind = LEDGER_DEPOSIT, .to_user = 1, .amount = 1, .currency = USD};
    last.j.m = last.m;
    if (app_submit_wait(r->app, &last.j) != PFE_OK)
        WRONG("no movement goes through any more");
    note_entries(&r->sure, &last);
    return true;
}

static struct run *second, *third; /* the lives after */

static bool check_third(char *why)
{
    bool came;
    disk_crash(second->dir, third->dir, DISK_DROP);
    if (!open_run(third, why))
        return false;
    bool ok = check_journal(third->store, &second->sure, NULL, &came, why);
    close_run(third);
    return ok;
}

/* What follows the loss: the process starts on what is left, goes on, and, if again, loses its power too. */
static bool check_after(struct run *r, enum disk_loss loss, bool again, char *why)
{
    static struct lines maybe;
    bool came;
    perhaps(r, &maybe);
    disk_crash(r->dir, second->dir, loss);
    if (!open_run(second, why))
        return false;
    second->fatal = 0;
    bool ok = check_journal(second->store, &r->sure, &maybe, &came, why) && check_user(second, r->late_user, why);
    second->sure.n = r->sure.n + (came ? maybe.n : 0);
    memcpy(second->sure.l, r->sure.l, (size_t)r->sure.n * sizeof *r->sure.l);
    memcpy(second->sure.l + r->sure.n, maybe.l, (size_t)(second->sure.n - r->sure.n) * sizeof *maybe.l);
    /* What a replay answers must be durable too, although nothing has been committed since. */
    ok = ok && (!again || check_retries(second, r, came, true, why));
    ok = ok && (!again || check_third(why));
    ok = ok && check_retries(second, r, came, false, why) && one_more(second, why);
    ok = ok && check_journal(second->store, &second->sure, NULL, &came, why);
    close_run(second);
    return ok;
}

/* ---- the runs ---- */

static char template_dir[64] = "/tmp/payflow-faults-XXXXXX";
static bool everything;
static int quiet;

/* A run on a disk with a database and its users on it; nothing goes wrong yet. */
static struct run *fresh_run(void)
{
    char why[ROOM];
    struct run *r = new_run();
    disk_crash(template_dir, r->dir, DISK_DROP);
    if (!open_run(r, why))
        fail_msg("%s", why);
    return r;
}

static int prepare(void **state)
{
    (void)state;
    char why[ROOM], name[16];
    struct store *s;
    quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (quiet < 0 || !log_open(quiet, LOG_ERROR)) /* each unknown outcome is an error to log */
        return -1;
    everything = getenv("FAULTS_ALL") != NULL;
    write_script();
    cache =
        cache_local_new(&(struct cache_local_options){.max_entries = 1000, .max_bytes = 1 << 20, .clock = &the_clock});
    metrics = metrics_new();
    second = new_run();
    third = new_run();
    if (disk_install() != 0 || !mkdtemp(template_dir) || !cache || !metrics)
        return -1;
    if (store_sqlite_open(&(struct sqlite_options){.dir = template_dir}, &s, why) != PFE_OK)
        return -1;
    for (int i = 1; i <= USERS; i++) {
        snprintf(name, sizeof name, "user%d", i);
        if (insert_user(s, name) != PFE_OK)
            return -1;
    }
    store_close(s);
    return 0;
}

static int clean_up(void **state)
{
    (void)state;
    struct run *t = new_run();
    rmdir(t->dir);
    strcpy(t->dir, template_dir);
    free_run(t);
    free_run(second);
    free_run(third);
    cache_close(cache);
    metrics_free(metrics);
    log_close();
    close(quiet);
    return 0;
}

struct fault {
    const char *name;
    enum disk_op op;
    int rc, os;
};

static const struct fault faults[] = {
    {"write: EIO", DISK_WRITE, SQLITE_IOERR_WRITE, EIO},
    {"write: no room", DISK_WRITE, SQLITE_FULL, ENOSPC},
    {"write: over quota", DISK_WRITE, SQLITE_IOERR_WRITE, EDQUOT},
    {"sync: EIO", DISK_SYNC, SQLITE_IOERR_FSYNC, EIO},
    {"sync: no room", DISK_SYNC, SQLITE_IOERR_FSYNC, ENOSPC},
    {"truncate: EIO", DISK_TRUNCATE, SQLITE_IOERR_TRUNCATE, EIO},
};

/* While the disk fails and after it is mended: reads go on, and writes come back unless an outcome is unknown. */
static bool check_living(struct run *r, char *why)
{
    static struct lines maybe;
    bool came, unknown = r->fatal || r->late_user == UNKNOWN;
    struct store_info i;
    perhaps(r, &maybe);
    disk_set_plan(NULL);
    if (store_info(r->store, &i) != PFE_OK || (unknown && !i.fatal))
        WRONG("an unknown outcome, and the store lives");
    if (!check_journal(r->store, &r->sure, &maybe, &came, why))
        return false;
    if (i.fatal)
        return true;
    return one_more(r, why);
}

/* One run in which the nth operation fails. *ret_met: there was an nth. */
static bool run_fault(const struct fault *f, long n, bool forever, bool *ret_met, char *why)
{
    struct run *r = fresh_run();
    struct disk_plan plan = {
        .dir = r->dir, .op = f->op, .kinds = DISK_ANY, .at = n, .forever = forever, .rc = f->rc, .os = f->os};
    bool ok = true;
    disk_seed((uint64_t)n);
    disk_set_plan(&plan);
    play(r);
    if (!plan.failed) { /* nothing yet: then in closing */
        app_free(r->app);
        store_close(r->store);
        r->app = NULL;
        r->store = NULL;
    } else {
        ok = check_living(r, why);
    }
    disk_set_plan(NULL);
    *ret_met = plan.failed;
    bool sync = f->op == DISK_SYNC;
    ok = ok && check_after(r, DISK_KEEP, sync || everything, why);
    ok = ok && (!sync || check_after(r, DISK_DROP, false, why));
    close_run(r);
    ok = ok && (!sync || check_after(r, DISK_KEEP, true, why));
    free_run(r);
    return ok;
}

static void fail_everywhere(bool forever)
{
    char why[ROOM] = "";
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        const struct fault *f = &faults[i];
        bool met = true;
        long n = 0;
        clock_t begin = clock();
        while (met && (f->os != EDQUOT || everything))
            if (!run_fault(f, ++n, forever, &met, why))
                fail_msg("%s at %ld%s: %s", f->name, n, forever ? " and on" : "", why);
        if (n == 0)
            continue;
        print_message("%s%s: %ld places, %ld ms\n", f->name, forever ? ", and on" : "", n - 1,
                      (long)((clock() - begin) / (CLOCKS_PER_SEC / 1000)));
        assert_true(n > (f->op == DISK_WRITE ? 400 : f->op == DISK_SYNC ? 30 : 1));
    }
}

static void every_operation_failing_once(void **state)
{
    (void)state;
    fail_everywhere(false);
}

static void every_operation_failing_from_then_on(void **state)
{
    (void)state;
    fail_everywhere(true);
}

/* ---- the power fails ---- */

struct cut {
    struct run *r;
    unsigned every;      /* of the cuts, each one in so many */
    long n, cuts, wrong; /* seen; made; found wrong */
    long lost;           /* of these, acknowledged and gone */
    long syncs;
    char first[ROOM];
};

static void cut_here(void *ctx, enum disk_op op, long nth)
{
    struct cut *c = ctx;
    (void)nth;
    for (int loss = DISK_KEEP; loss < DISK_LOSSES; loss++) {
        char why[ROOM] = "";
        if (c->n++ % c->every)
            continue;
        c->cuts++;
        disk_seed((uint64_t)c->n);
        if (check_after(c->r, (enum disk_loss)loss, loss == DISK_KEEP || everything, why))
            continue;
        if (!c->wrong++)
            snprintf(c->first, sizeof c->first, "loss %d at %s %ld: %.200s", loss, op == DISK_SYNC ? "sync" : "write",
                     c->n, why);
        c->lost += strncmp(why, "lost", 4) == 0;
    }
}

static void cut_run(struct cut *c)
{
    struct run *r = c->r = fresh_run();
    struct disk_plan plan = {.dir = r->dir, .kinds = DISK_ANY, .watch = cut_here, .watch_ctx = c};
    disk_set_plan(&plan);
    play(r);
    assert_int_equal(r->group, n_groups);
    assert_int_equal(r->late_user, DONE);
    close_run(r);
    disk_set_plan(NULL);
    c->syncs = plan.seen[DISK_SYNC];
    free_run(r);
}

static void every_loss_of_power(void **state)
{
    (void)state;
    struct cut c = {.every = 1};
    cut_run(&c);
    print_message("%ld losses of power\n", c.cuts);
    if (c.wrong)
        fail_msg("%ld wrong, %ld of them lost; first: %s", c.wrong, c.lost, c.first);
    assert_true(c.cuts > 1500 && c.syncs > 30);
}

/* The positive control: the same check, with synchronous=OFF, must say that acknowledged entries are gone. */
static void without_syncs_the_check_finds_losses(void **state)
{
    (void)state;
    struct cut c = {.every = 25};
    disk_sync_off(true);
    cut_run(&c);
    disk_sync_off(false);
    assert_int_equal(c.syncs, 0);
    print_message("without syncs: %ld losses of power, %ld wrong, %ld lose what was acknowledged\n", c.cuts, c.wrong,
                  c.lost);
    assert_true(c.lost > c.cuts / 8);
}

static void nothing_fails(void **state)
{
    (void)state;
    char why[ROOM] = "";
    struct run *r = fresh_run();
    int done = 0, refused = 0;
    play(r);
    assert_int_equal(r->group, n_groups);
    for (int i = 0; i < n_steps; i++) {
        done += r->task[i].j.err == PFE_OK;
        refused += r->task[i].j.err != PFE_OK;
        assert_true(r->task[i].over);
    }
    print_message("%d movements in %d jobs and %d groups; %d done, %d refused, %d entries\n", MOVEMENTS, n_steps,
                  n_groups, done, refused, r->sure.n);
    assert_true(done > 80 && refused > 5 && r->sure.n > 120);
    close_run(r);
    if (!check_after(r, DISK_DROP, true, why))
        fail_msg("%s", why);
    free_run(r);
}

/* One argument, so that parts run side by side: once, forever or power. */
int main(int argc, char **argv)
{
    const struct CMUnitTest once[] = {cmocka_unit_test(nothing_fails), cmocka_unit_test(every_operation_failing_once)};
    const struct CMUnitTest forever[] = {cmocka_unit_test(every_operation_failing_from_then_on)};
    const struct CMUnitTest power[] = {cmocka_unit_test(every_loss_of_power),
                                       cmocka_unit_test(without_syncs_the_check_finds_losses)};
    if (argc == 2 && strcmp(argv[1], "once") == 0)
        return cmocka_run_group_tests_name("ledger: the disk fails once", once, prepare, clean_up);
    if (argc == 2 && strcmp(argv[1], "forever") == 0)
        return cmocka_run_group_tests_name("ledger: the disk fails for good", forever, prepare, clean_up);
    return cmocka_run_group_tests_name("ledger: the power fails", power, prepare, clean_up);
}
