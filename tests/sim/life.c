/* The steps of a seed. */
#include "sim.h"

#include <errno.h>
#include <sqlite3.h>

#define START (INT64_C(1767225600) * SECOND) /* 2026-01-01T00:00:00Z */

static void configure(struct sim *s)
{
    static const unsigned groups[] = {1, 2, 3, 5, 16, 512};
    static const int flushes[] = {5, 20, 60, 1000};
    s->wall = START + (int64_t)sim_pick(s, 86400) * SECOND;
    s->mono = SECOND;
    s->clients = 1 + sim_pick(s, 8);
    s->users = 2 + sim_pick(s, 6);
    s->currencies = 1 + sim_pick(s, M_CURRENCIES);
    s->long_texts = sim_chance(s, 20);
    s->midway = sim_chance(s, 60);
    s->flush_entries = flushes[sim_pick(s, 4)];
    s->cfg = (struct app_config){.dev = true,
                                 .bcrypt_cost = 4,
                                 .password_min = 8,
                                 .jwt_secret = STR("a secret of at least thirty-two bytes"),
                                 .currency = m_currency[0],
                                 .queue_capacity = sim_chance(s, 30) ? (size_t)(4 + sim_pick(s, 16)) : 1000,
                                 .group_max = groups[sim_pick(s, 6)],
                                 .stepped = true};
    sim_trace(s, "seed %llu: %d at once, %d users, %d currencies, groups of %u, queue of %zu, flush every %lld",
              (unsigned long long)s->seed, s->clients, s->users, s->currencies, s->cfg.group_max, s->cfg.queue_capacity,
              (long long)s->flush_entries);
}

/* ---- time ---- */

static void jump(struct sim *s, int64_t us)
{
    s->wall += us;
    s->mono += us > 0 ? us : 0;
    s->c.jumps_back += us < 0;
}

static void pass_time(struct sim *s)
{
    int x = sim_pick(s, 200);
    if (x == 0 && s->wall < START + 20 * DAY)
        jump(s, (int64_t)sim_pick(s, 72) * HOUR);
    else if (x < 9)
        jump(s, (int64_t)sim_pick(s, 7200) * SECOND);
    else if (x < 12)
        jump(s, -(int64_t)sim_pick(s, 3600) * SECOND);
    else
        jump(s, sim_pick(s, x < 150 ? 2000 : 5000000));
}

/* ---- what goes wrong ---- */

/* The nth operation of a sort from now on. */
static void plan_fault(struct sim *s)
{
    static const struct {
        enum disk_op op;
        int rc, os, within;
        enum disk_kind only;
    } faults[] = {{DISK_WRITE, SQLITE_FULL, ENOSPC, 150, 0},        {DISK_WRITE, SQLITE_FULL, ENOSPC, 30, 0},
                  {DISK_WRITE, SQLITE_IOERR_WRITE, EIO, 250, 0},    {DISK_SYNC, SQLITE_IOERR_FSYNC, EIO, 40, 0},
                  {DISK_SYNC, SQLITE_IOERR_FSYNC, EIO, 2, DISK_DB}, /* of a checkpoint */
                  {DISK_TRUNCATE, SQLITE_IOERR_TRUNCATE, EIO, 3, 0}};
    int f = sim_pick(s, 6);
    s->plan.op = faults[f].op;
    s->plan.rc = faults[f].rc;
    s->plan.os = faults[f].os;
    s->plan.only = faults[f].only;
    s->plan.forever = faults[f].os == ENOSPC || sim_chance(s, 30);
    s->plan.at = s->plan.seen[s->plan.op] + 1 + sim_pick(s, faults[f].within);
    s->plan.failed = false;
}

static void plan_life(struct sim *s, bool calm)
{
    s->plan = (struct disk_plan){.dir = s->dirs[s->dir], .kinds = DISK_ANY, .watch = sim_on_disk, .watch_ctx = s};
    s->ops = s->syncs = s->answers = 0;
    s->crash_at = s->crash_at_sync = s->crash_at_answer = 0;
    s->loss = (enum disk_loss)sim_pick(s, DISK_LOSSES);
    s->may_fail = s->crashed = s->fatal = false;
    disk_set_plan(&s->plan);
    if (calm)
        return;
    if (sim_chance(s, 50))
        plan_fault(s);
    int x = sim_pick(s, 100);
    if (x < 40)
        s->crash_at = 1 + sim_pick(s, sim_chance(s, 30) ? 40 : 900);
    else if (x < 60) /* where what becomes of a commit is decided */
        s->crash_at_sync = 1 + sim_pick(s, 80);
    else if (x < 80)
        s->crash_at_answer = 1 + sim_pick(s, 60);
}

/* The disk is well from now on, for a while; what it did stays done. */
static void mend(struct sim *s)
{
    if (!s->plan.op || !s->plan.failed)
        return;
    s->c.faults++;
    s->may_fail = true;
    s->plan.op = 0;
    sim_trace(s, "the disk is well");
    if (sim_chance(s, 60))
        plan_fault(s);
}

/* ---- what is done ---- */

static void rebuild(struct sim *s)
{
    struct caller admin = {.who = {.role = IDENT_ADMIN}, .address = STR("192.0.2.1"), .request_id = STR("sim")};
    int64_t user = 1 + sim_pick(s, s->users);
    int currency = sim_pick(s, s->currencies);
    struct job j;
    bool crowded = s->n_queue && s->cfg.queue_capacity < 1000, was = s->m.account[user][currency].exists;
    enum pf_err e = app_rebuild(s->app, &admin, user, m_currency[currency], &j);
    if (s->crashed)
        return;
    /* those of its own group come after it */
    enum pf_err expect = was || (s->m.account[user][currency].exists && e == PFE_OK) ? PFE_OK : PFE_NOT_FOUND;
    sim_trace(s, "rebuild user %lld: %s", (long long)user, sim_err(e));
    s->c.rebuilds++;
    if (e != expect && !(crowded && e == PFE_BUSY) && !(sim_failure(e) && (s->may_fail || s->plan.failed)))
        sim_wrong(s, "rebuild user %lld: %s, not %s", (long long)user, sim_err(e), sim_err(expect));
    if (e == PFE_OK && !j.replay.intact)
        sim_wrong(s, "rebuild user %lld: not intact", (long long)user);
}

static void act(struct sim *s)
{
    int x = sim_pick(s, 200);
    s->c.steps++;
    pass_time(s);
    if (x < 70)
        clients_act(s);
    else if (x < 144)
        clients_step(s);
    else if (x < 160)
        clients_retry(s);
    else if (x < 172)
        records_run(s);
    else if (x < 178)
        records_schedule(s, sim_chance(s, 40));
    else if (x < 180)
        records_cancel(s);
    else if (x < 183)
        records_register(s, sim_chance(s, 60));
    else if (x < 184)
        records_delete(s);
    else if (x < 185)
        rebuild(s);
    else if (x < 192)
        mend(s);
    else
        check_read(s);
}

/* ---- lives ---- */

static void end_life(struct sim *s, bool orderly)
{
    if (!s->crashed && s->app && !orderly && sim_chance(s, s->plan.failed ? 65 : 40))
        sim_die(s);
    bool was_open = s->app != NULL;
    int queued = s->n_queue;
    if (was_open && !s->crashed)
        sim_trace(s, "shuts down; %d wait", s->n_queue);
    sim_close(s);
    clients_forget(s);
    s->c.clean += was_open && !s->crashed && queued > 0;
    s->c.faults += s->plan.op && s->plan.failed;
    if (!s->crashed && !orderly && sim_chance(s, 40))
        sim_die(s);
    if (s->crashed)
        s->dir = !s->dir;
}

static void begin_life(struct sim *s, bool calm, bool first)
{
    for (int tries = 0; sim_ok(s); tries++) {
        plan_life(s, calm || tries > 3);
        s->c.lives++;
        if (sim_open(s))
            break;
        s->c.open_failed++;
        end_life(s, true);
    }
    if (!sim_ok(s))
        return;
    sim_trace(s, "life %ld begins with %d entries", s->c.lives, s->m.n);
    if (first) {
        disk_set_plan(NULL);
        records_begin(s);
        disk_set_plan(&s->plan);
    }
    records_settle(s);
    clients_settle(s);
    s->deleting = 0;
    check_all(s);
}

/* Nobody is left without an answer. */
static void answer_all(struct sim *s)
{
    for (int i = 0; i < COMMANDS_MAX && sim_ok(s) && (clients_retry(s) || s->n_queue); i++)
        while (s->n_queue && sim_ok(s))
            clients_step(s);
    for (int i = 0; i < 2 * SCHEDULES_MAX && sim_ok(s); i++) {
        records_register(s, true);
        records_schedule(s, true);
    }
    for (int i = 0; i < s->n_cmd; i++)
        if (s->cmd[i].keyed && s->cmd[i].state == CMD_UNKNOWN)
            sim_wrong(s, "c%d never got an answer", s->cmd[i].id);
    if (sim_ok(s))
        records_run(s);
}

void sim_run(struct sim *s)
{
    configure(s);
    int lives = 1 + sim_pick(s, 5);
    bool long_life = sim_chance(s, 15);
    for (int life = 0; life < lives && sim_ok(s); life++) {
        begin_life(s, false, life == 0);
        int steps = 10 + sim_pick(s, long_life ? 500 : 120);
        for (int i = 0; i < steps && sim_ok(s) && !s->crashed && !s->fatal; i++)
            if (s->plan.failed && sim_chance(s, 8)) /* what the fault left behind is not always written over */
                break;
            else
                act(s);
        if (sim_ok(s))
            end_life(s, false);
        pass_time(s);
    }
    for (int again = 0; again < 2 && sim_ok(s); again++) {
        begin_life(s, true, false);
        if (again == 0 && sim_ok(s))
            answer_all(s);
        check_all(s);
        if (sim_ok(s))
            end_life(s, true);
    }
    if (s->app || s->store)
        sim_close(s);
    disk_set_plan(NULL);
}
