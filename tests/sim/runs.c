/* Users and schedules after a restart, and what became of every due time. */
#include "sim.h"

#include <stdio.h>
#include <string.h>

/* ---- due times ---- */

static int64_t period_of(const struct schedule *d)
{
    return strcmp(d->recurrence, "daily") == 0 ? DAY : strcmp(d->recurrence, "weekly") == 0 ? 7 * DAY : 0;
}

/* The due time after t; 0: none. */
int64_t schedule_due_after(const struct schedule *d, int64_t t)
{
    int64_t n = 0, period = period_of(d);
    if (t < d->anchor)
        n = d->anchor;
    else if (period)
        n = d->anchor + ((t - d->anchor) / period + 1) * period;
    else if (d->recurrence[0]) /* "0 * * * *" and its half-hourly sister */
        n = (t / (d->recurrence[0] == '0' ? HOUR : HOUR / 2) + 1) * (d->recurrence[0] == '0' ? HOUR : HOUR / 2);
    return d->end && n > d->end ? 0 : n;
}

bool schedule_is_due(const struct schedule *d, int64_t t)
{
    return t > 0 && schedule_due_after(d, t - 1) == t;
}

/* ---- after a restart: what became of the unknown ---- */

static unsigned audits(struct sim *s, const char *action)
{
    static struct store_audit row[100];
    struct store_audit_query q = {.actor = -1, .action = str_c(action), .limit = 100};
    struct arena arena;
    unsigned n = 0;
    arena_init(&arena, NULL, 0, 1 << 20);
    if (app_audit_page(s->app, &arena, &q, row, &n) != PFE_OK)
        sim_wrong(s, "the audit log cannot be read");
    arena_reset(&arena);
    return n;
}

static bool key_kept(struct sim *s, int64_t principal, const char *key)
{
    struct store_idem i;
    return store_idem_get(s->store, &s->arena, principal, str_c(key), &i) == PFE_OK;
}

static void settle_user(struct sim *s, struct registration *r)
{
    struct store_user u;
    bool there = store_user_by_name(s->store, str_c(r->name), &u) == PFE_OK;
    if (r->user) /* it may have been deleted since */
        return;
    if (there != key_kept(s, 0, r->key))
        sim_wrong(s, "half a registration: %s is%s there, its key is%s", r->name, there ? "" : " not",
                  there ? " not" : "");
    if (there)
        records_learn_user(s, r, u.id);
    sim_trace(s, "%s %s", r->name, there ? "was registered" : "was not registered");
}

static void settle_schedule(struct sim *s, struct schedule *d)
{
    struct store_schedule row[SCHEDULES_MAX + 1];
    struct arena arena;
    unsigned n = 0;
    arena_init(&arena, NULL, 0, 1 << 20);
    if (store_schedule_list(s->store, &arena, d->owner, 0, 0, SCHEDULES_MAX + 1, row, &n) != PFE_OK)
        sim_wrong(s, "schedules cannot be read");
    for (unsigned i = 0; i < n; i++) {
        if (!str_is(row[i].description, d->text))
            continue;
        if (d->id && d->id != row[i].id)
            sim_wrong(s, "schedule %s is there twice", d->text);
        d->id = row[i].id;
        d->cancelled |= d->cancel_unknown && row[i].status == SCHED_CANCELLED;
    }
    d->cancel_unknown = false;
    if (d->state == CMD_UNKNOWN && (d->id != 0) != key_kept(s, d->owner, d->key))
        sim_wrong(s, "half a schedule: %s", d->text);
    arena_reset(&arena);
    sim_trace(s, "schedule %s %s", d->text, !d->id ? "was not made" : d->cancelled ? "is cancelled" : "is there");
}

void records_settle(struct sim *s)
{
    for (int i = 0; i < s->n_reg; i++)
        if (s->reg[i].state == CMD_UNKNOWN)
            settle_user(s, &s->reg[i]);
    for (int i = 0; i < s->n_sched; i++)
        if (s->sched[i].state == CMD_UNKNOWN || s->sched[i].cancel_unknown)
            settle_schedule(s, &s->sched[i]);
    if (s->deleting) {
        enum m_user before = s->m.user[s->deleting];
        s->m.user[s->deleting] = records_status(s, s->deleting);
        s->c.deleted += before != M_GONE && s->m.user[s->deleting] == M_GONE;
        sim_trace(s, "user %lld, being deleted, is %d", (long long)s->deleting, (int)s->m.user[s->deleting]);
    }
}

/* ---- checks ---- */

static void check_users(struct sim *s)
{
    for (int i = 1; i <= s->users; i++)
        if (records_status(s, i) != s->m.user[i])
            sim_wrong(s, "the status of user %d is not %d", i, (int)s->m.user[i]);
    for (int i = 1; i <= s->users; i++)
        for (int c = 0; c < M_CURRENCIES; c++)
            if (s->m.user[i] == M_GONE && s->m.account[i][c].exists && !s->m.account[i][c].closed)
                sim_wrong(s, "user %d is deleted and has an open account", i);
    struct store_user u;
    if (store_user_get(s->store, s->users + 1, &u) != PFE_NOT_FOUND)
        sim_wrong(s, "there is a user %d whom nobody registered", s->users + 1);
}

static void check_audit(struct sim *s)
{
    unsigned users = 0, schedules = 0, cancelled = 0, gone = 0;
    for (int i = 0; i < s->n_reg; i++)
        users += s->reg[i].user != 0;
    for (int i = 0; i < s->n_sched; i++) {
        schedules += s->sched[i].id != 0;
        cancelled += s->sched[i].cancelled;
    }
    for (int i = 1; i <= s->users; i++)
        gone += s->m.user[i] == M_GONE;
    const struct {
        const char *action;
        unsigned n;
    } rows[] = {
        {"user.create", users}, {"schedule.create", schedules}, {"schedule.cancel", cancelled}, {"user.delete", gone}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned n = audits(s, rows[i].action);
        if (n != rows[i].n)
            sim_wrong(s, "%u rows of %s in the audit log, not %u", n, rows[i].action, rows[i].n);
    }
}

static const struct due *due_in(const struct due *v, int n, int64_t at)
{
    for (int i = 0; i < n; i++)
        if (v[i].at == at)
            return &v[i];
    return NULL;
}

/* A refusal that could be: the model knows what may have caused it. */
static bool plausible(const struct sim *s, const struct schedule *d, struct str slug)
{
    int64_t from = d->kind == LEDGER_DEPOSIT ? 0 : d->owner;
    int64_t to = d->kind == LEDGER_DEPOSIT ? d->owner : d->kind == LEDGER_WITHDRAW ? 0 : d->to;
    const struct m_account *a = &s->m.account[from][d->currency], *b = &s->m.account[to][d->currency];
    if (str_is(slug, "insufficient-funds"))
        return from != 0;
    if (str_is(slug, "account-frozen"))
        return a->was_frozen || b->was_frozen;
    if (str_is(slug, "account-closed"))
        return a->closed || b->closed;
    if (str_is(slug, "not-found"))
        return (from && s->m.user[from] != M_ACTIVE) || (to && s->m.user[to] != M_ACTIVE);
    return str_is(slug, "balance-overflow");
}

static void check_run(struct sim *s, const struct schedule *d, const struct store_run *r)
{
    bool moved = false;
    for (int i = 0; i < d->n_moved; i++)
        moved |= d->moved[i] == r->due_us;
    const struct m_entry *e = r->seq >= 1 && r->seq <= s->m.n ? &s->m.entry[r->seq - 1] : NULL;
    char origin[LEDGER_ORIGIN_MAX + 1];
    snprintf(origin, sizeof origin, "schedule:%lld:%lld", (long long)d->id, (long long)r->due_us);
    if (!schedule_is_due(d, r->due_us))
        sim_wrong(s, "%s ran, and was never due", origin);
    if (moved != (r->outcome == STORE_RUN_DONE))
        sim_wrong(s, "%s: its run is %d, and there is%s an entry", origin, (int)r->outcome, moved ? "" : " not");
    if (r->outcome == STORE_RUN_DONE && (!e || strcmp(e->origin, origin) != 0))
        sim_wrong(s, "%s is noted with entry %lld, which is another's", origin, (long long)r->seq);
    if (r->outcome == STORE_RUN_REFUSED && !plausible(s, d, r->error))
        sim_wrong(s, "%s is refused for %.*s", origin, (int)r->error.n, r->error.p);
    const struct due *before = due_in(d->due, d->n_due, r->due_us);
    if (before && (before->outcome != r->outcome || before->seq != r->seq))
        sim_wrong(s, "%s was %d and is %d", origin, (int)before->outcome, (int)r->outcome);
}

/* Each due time up to the next one to come has one row; refused runs in a row end the schedule. */
static void check_dues(struct sim *s, const struct schedule *d, const struct store_schedule *row)
{
    int done = 0, in_a_row = 0, i = 0;
    int64_t at = schedule_due_after(d, 0);
    for (; i < d->n_due; i++, at = schedule_due_after(d, at)) {
        const struct due *x = &d->due[d->n_due - 1 - i]; /* the latest is first */
        if (x->at != at) {
            sim_wrong(s, "%s: the time %lld is due and has no run", d->text, (long long)at);
            return;
        }
        done += x->outcome == STORE_RUN_DONE;
        in_a_row = x->outcome == STORE_RUN_DONE ? 0 : in_a_row + (x->outcome == STORE_RUN_REFUSED);
    }
    bool open = row->status == SCHED_PENDING || row->status == SCHED_ACTIVE;
    if (open != (row->next_us != 0) || (open && row->next_us != at))
        sim_wrong(s, "%s: is to run at %lld, not %lld", d->text, (long long)row->next_us, (long long)at);
    if (row->runs != done || (d->max_runs && done > d->max_runs))
        sim_wrong(s, "%s: %lld runs are counted, %d were done, at most %lld", d->text, (long long)row->runs, done,
                  (long long)d->max_runs);
    if (in_a_row > SCHED_REFUSALS_MAX || (open && in_a_row == SCHED_REFUSALS_MAX))
        sim_wrong(s, "%s: goes on after %d refusals", d->text, in_a_row);
    bool over = !at || (d->max_runs && done == d->max_runs);
    if ((row->status == SCHED_COMPLETED && !over) ||
        (row->status == SCHED_FAILED && !(in_a_row && (over || in_a_row == SCHED_REFUSALS_MAX))))
        sim_wrong(s, "%s: is %s and should not be", d->text, sched_status_name(row->status));
    if (d->cancelled != (row->status == SCHED_CANCELLED))
        sim_wrong(s, "%s: is %s%s", d->text, sched_status_name(row->status), d->cancelled ? ", and was cancelled" : "");
}

static void check_moved(struct sim *s, const struct schedule *d, const struct store_schedule *row)
{
    for (int i = 0; i < d->n_moved; i++) {
        bool noted = due_in(d->due, d->n_due, d->moved[i]) != NULL;
        if (!noted && row->next_us != d->moved[i] && row->status != SCHED_CANCELLED)
            sim_wrong(s, "%s: ran at %lld, and that is nowhere noted", d->text, (long long)d->moved[i]);
    }
}

static void check_schedule(struct sim *s, struct schedule *d)
{
    static struct store_run run[DUES_MAX];
    struct store_schedule row;
    struct arena arena;
    unsigned n = 0;
    arena_init(&arena, NULL, 0, 1 << 22);
    if (store_schedule_get(s->store, &arena, d->id, &row) != PFE_OK ||
        store_run_list(s->store, &arena, d->id, DUES_MAX, run, &n) != PFE_OK) {
        sim_wrong(s, "%s cannot be read", d->text);
    } else {
        if (row.owner != d->owner || row.kind != d->kind || row.to_user != d->to || row.amount != d->amount ||
            !str_is(row.description, d->text) || row.anchor_us != d->anchor)
            sim_wrong(s, "%s is not what was asked for", d->text);
        if ((int)n < d->n_due)
            sim_wrong(s, "%s: %d runs were noted, %u are", d->text, d->n_due, n);
        for (unsigned i = 0; i < n; i++)
            check_run(s, d, &run[i]);
        for (unsigned i = 0; i < n; i++) {
            d->due[i] = (struct due){run[i].due_us, run[i].seq, run[i].outcome};
            s->c.skips += (int)i < (int)n - d->n_due && run[i].outcome == STORE_RUN_SKIPPED;
            s->c.run_refusals += (int)i < (int)n - d->n_due && run[i].outcome == STORE_RUN_REFUSED;
        }
        d->n_due = (int)n;
        if (n < DUES_MAX)
            check_dues(s, d, &row);
        check_moved(s, d, &row);
    }
    arena_reset(&arena);
}

void records_check(struct sim *s)
{
    for (int i = 0; i < s->n_sched && sim_ok(s); i++)
        if (s->sched[i].id)
            check_schedule(s, &s->sched[i]);
    check_users(s);
    check_audit(s);
}
