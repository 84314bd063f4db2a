/* Schedules: keeping them, and running what is due. */
#include "app/schedules.h"
#include "app/internal.h"
#include "app/lease.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "codec/crypt.h"
#include "codec/uuid.h"

enum { DUE_BATCH = 64, RETRY_US = 1000000, SKIPS_RECORDED_MAX = 20000, HOLDS_BATCH = 256 };

static enum pf_err insert(struct app *a, struct store_tx *tx, const struct caller *c, struct app_idem *idem,
                          app_schedule_render render, void *ctx, struct store_schedule *d)
{
    enum pf_err e = store_schedule_insert(tx, d);
    if (e == PFE_OK)
        e = app_audit_add_id(a, tx, c, "schedule.create", "schedule", d->id, "ok");
    if (e == PFE_OK && idem->key.n) {
        render(ctx, d, idem);
        e = app_idem_store(tx, idem);
    }
    return e;
}

enum pf_err app_schedule_create(struct app *a, const struct caller *c, const struct store_schedule *in,
                                struct app_idem *idem, app_schedule_render render, void *ctx,
                                struct store_schedule *ret, struct problem *p)
{
    int64_t now = app_now(a);
    struct sched_rule rule;
    struct store_schedule d = *in;
    if (d.anchor_us <= now)
        return problem_field(p, "body", "scheduled_at", "range", "must be in the future");
    if (d.end_us && d.end_us < d.anchor_us)
        return problem_field(p, "body", "end_at", "range", "must not be before scheduled_at");
    enum pf_err e = sched_rule_parse(d.recurrence, d.anchor_us, &rule, p);
    if (e != PFE_OK)
        return e;
    d.next_us = sched_next(&rule, d.anchor_us - 1);
    if (!d.next_us || (d.end_us && d.next_us > d.end_us))
        return problem_field(p, "body", "recurrence", "range", "is never due");
    struct uuid id = uuid_v7(now);
    memcpy(d.uuid, id.b, sizeof d.uuid);
    d.owner = c->who.user;
    d.status = SCHED_PENDING;
    d.created_us = d.updated_us = now;
    if (d.kind == LEDGER_TRANSFER) {
        struct store_user to;
        e = store_user_get(a->d.store, d.to_user, &to);
        if (e == PFE_OK && to.status != STORE_USER_ACTIVE)
            e = PFE_NOT_FOUND;
        if (e == PFE_OK && d.to_user == d.owner)
            e = PFE_SAME_ACCOUNT;
        if (e != PFE_OK)
            return problem_set(p, e, "%s", e == PFE_NOT_FOUND ? "there is no such user" : "");
    }
    struct store_tx *tx;
    e = store_tx_begin(a->d.store, &tx);
    if (e == PFE_OK) {
        e = insert(a, tx, c, idem, render, ctx, &d);
        if (e == PFE_OK)
            e = store_tx_commit(tx);
        else
            store_tx_rollback(tx);
    }
    if (e != PFE_OK)
        return problem_set(p, e, "%s", "");
    *ret = d;
    return PFE_OK;
}

enum pf_err app_schedule_get(struct app *a, const struct principal *who, struct arena *arena, struct str ref,
                             struct store_schedule *ret)
{
    struct uuid id;
    int64_t n;
    struct store_schedule d;
    enum pf_err e = PFE_INVALID;
    if (str_to_i64(ref, &n))
        e = n > 0 ? store_schedule_get(a->d.store, arena, n, &d) : PFE_NOT_FOUND;
    else if (uuid_parse(ref, &id))
        e = store_schedule_by_uuid(a->d.store, arena, id.b, &d);
    if (e == PFE_OK && !app_may_act_for(who, d.owner))
        e = PFE_NOT_FOUND;
    if (e == PFE_OK)
        *ret = d;
    return e;
}

enum pf_err app_schedule_cancel(struct app *a, const struct caller *c, struct arena *arena, struct str ref,
                                struct store_schedule *ret, struct problem *p)
{
    struct store_schedule d;
    struct store_tx *tx;
    pthread_mutex_lock(&a->schedule_lock);
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK) {
        pthread_mutex_unlock(&a->schedule_lock);
        return problem_set(p, e, "%s", "");
    }
    e = app_schedule_get(a, &c->who, arena, ref, &d);
    if (e == PFE_OK && !sched_may_move(d.status, SCHED_CANCELLED))
        e = PFE_WRONG_STATE;
    if (e == PFE_OK) {
        d.status = SCHED_CANCELLED;
        d.next_us = 0;
        d.updated_us = app_now(a);
        e = store_schedule_update(tx, &d);
    }
    if (e == PFE_OK)
        e = app_audit_add_id(a, tx, c, "schedule.cancel", "schedule", d.id, "ok");
    if (e == PFE_OK)
        e = store_tx_commit(tx);
    else
        store_tx_rollback(tx);
    pthread_mutex_unlock(&a->schedule_lock);
    if (e == PFE_WRONG_STATE)
        return problem_set(p, e, "the schedule is %s", sched_status_name(d.status));
    if (e == PFE_NOT_FOUND)
        return problem_set(p, e, "there is no such schedule");
    if (e != PFE_OK)
        return problem_set(p, e, "%s", "");
    *ret = d;
    return PFE_OK;
}

enum pf_err app_schedule_page(struct app *a, struct arena *arena, int64_t owner, int64_t before_id, int64_t offset,
                              unsigned limit, struct store_schedule *out, unsigned *ret_n)
{
    return store_schedule_list(a->d.store, arena, owner, before_id, offset, limit, out, ret_n);
}

enum pf_err app_schedule_runs(struct app *a, struct arena *arena, int64_t schedule, unsigned limit,
                              struct store_run *out, unsigned *ret_n)
{
    return store_run_list(a->d.store, arena, schedule, limit, out, ret_n);
}

/* ---- running ---- */

static void render_run(struct job *j)
{
    j->idem.status = 201;
    j->idem.body = STR("{}");
}

enum { RUN_KEY_MAX = 64 };

static struct str run_key(char out[RUN_KEY_MAX], const struct store_schedule *d)
{
    int n = snprintf(out, RUN_KEY_MAX, "schedule:%lld:%lld", (long long)d->id, (long long)d->next_us);
    return (struct str){out, (size_t)n};
}

/* The movement of the time in next_us. Its idempotency key makes it happen once, whoever tries how often. */
static enum pf_err move(struct app *a, const struct store_fence *f, struct arena *arena, const struct store_schedule *d,
                        int64_t *ret_seq)
{
    char key[RUN_KEY_MAX];
    struct str k = run_key(key, d);
    struct movement m = {.kind = d->kind,
                         .from_user = d->kind == LEDGER_DEPOSIT ? 0 : d->owner,
                         .to_user = d->kind == LEDGER_DEPOSIT ? d->owner : d->to_user,
                         .amount = d->amount,
                         .currency = d->currency,
                         .description = d->description,
                         .origin = k};
    if (d->kind == LEDGER_WITHDRAW)
        m.to_user = 0;
    struct job j = {.kind = JOB_MOVE,
                    .actor = d->owner,
                    .m = &m,
                    .n = 1,
                    .atomic = true,
                    .arena = arena,
                    .fence = f,
                    .render = render_run,
                    .idem = {.principal = STORE_PRINCIPAL_SCHEDULER, .key = k}};
    sha256_of(k, j.idem.request);
    enum pf_err e = app_submit_wait(a, &j);
    if (e == PFE_OK && j.idem.replayed) { /* done before a crash, not yet noted */
        struct store_idem was;
        e = store_idem_get(a->d.store, arena, STORE_PRINCIPAL_SCHEDULER, k, &was);
        if (e == PFE_OK)
            *ret_seq = was.seq;
    } else if (e == PFE_OK) {
        *ret_seq = m.entry.seq;
    }
    return e;
}

/* Refused by the ledger for good, as opposed to not tried. */
static bool is_refusal(enum pf_err e)
{
    int http = err_info(e)->http;
    return e != PFE_OK && http >= 400 && http < 500;
}

/* Past the time in next_us. */
static void advance(const struct sched_rule *rule, struct store_schedule *d, bool done)
{
    d->last_us = d->next_us;
    d->next_us = sched_next(rule, d->last_us);
    if (done) {
        d->runs++;
        d->refusals = 0;
        d->last_error = STR("");
    } else {
        d->refusals++;
    }
    if (d->end_us && d->next_us > d->end_us)
        d->next_us = 0;
    if (d->max_runs && d->runs >= d->max_runs)
        d->next_us = 0;
    enum sched_status to = SCHED_ACTIVE;
    if (d->refusals >= SCHED_REFUSALS_MAX || (!d->next_us && !done))
        to = SCHED_FAILED;
    else if (!d->next_us)
        to = SCHED_COMPLETED;
    if (to == SCHED_FAILED)
        d->next_us = 0;
    if (to != d->status && sched_may_move(d->status, to))
        d->status = to;
}

static enum pf_err record_skipped(struct store_tx *tx, const struct sched_rule *rule, const struct store_schedule *d,
                                  int64_t until, int64_t now)
{
    enum pf_err e = PFE_OK;
    int64_t at = d->next_us;
    for (unsigned n = 0; at && at < until && n < SKIPS_RECORDED_MAX && e == PFE_OK; n++) {
        struct store_run r = {.schedule = d->id,
                              .due_us = at,
                              .outcome = STORE_RUN_SKIPPED,
                              .ts = now,
                              .error = STR("missed while the service was down")};
        e = store_run_insert(tx, &r);
        if (e == PFE_WRONG_STATE) /* it was done, and stays so */
            e = PFE_OK;
        at = sched_next(rule, at);
    }
    return e;
}

/* As it is now, inside a transaction; *ret_same: next_us still waits for the run of d. Another instance may have
   cancelled it since d was read, and that stays so. */
static enum pf_err reread(struct app *a, struct arena *arena, const struct store_schedule *d,
                          struct store_schedule *ret, bool *ret_same)
{
    enum pf_err e = store_schedule_get(a->d.store, arena, d->id, ret);
    *ret_same = e == PFE_OK && ret->next_us == d->next_us;
    return e;
}

/*
 * Of several missed times the latest is made up and the others are noted as skipped. In a commit of its own, before the
 * movement: so the time in next_us is the only one that can have been moved and not noted, however long ago the crash.
 */
static enum pf_err catch_up(struct app *a, const struct store_fence *f, struct arena *arena,
                            const struct sched_rule *rule, struct store_schedule *d, int64_t now)
{
    int64_t until = d->end_us && d->end_us < now ? d->end_us : now;
    int64_t latest = sched_latest(rule, d->next_us, until, NULL);
    if (!latest)
        return PFE_OK;
    char key[RUN_KEY_MAX];
    struct store_idem made;
    enum pf_err e = store_idem_get(a->d.store, arena, STORE_PRINCIPAL_SCHEDULER, run_key(key, d), &made);
    if (e != PFE_NOT_FOUND) /* PFE_OK: moved, and first to be noted */
        return e;
    struct store_tx *tx;
    struct store_schedule current;
    bool same;
    e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return e;
    e = store_tx_fence(tx, f);
    if (e == PFE_OK)
        e = reread(a, arena, d, &current, &same);
    if (e == PFE_OK && !same)
        e = PFE_WRONG_STATE;
    if (e == PFE_OK)
        e = record_skipped(tx, rule, d, latest, now);
    d->next_us = latest;
    d->updated_us = now;
    if (e == PFE_OK)
        e = store_schedule_update(tx, d);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

/* What became of the run of next_us. A schedule that was cancelled meanwhile stays so, and has this run behind it. */
static enum pf_err record(struct app *a, const struct store_fence *f, struct arena *arena,
                          const struct sched_rule *rule, const struct store_schedule *d, enum pf_err outcome,
                          int64_t seq, int64_t now)
{
    const char *slug = outcome == PFE_OK ? "" : err_info(outcome)->slug;
    struct store_run r = {.schedule = d->id,
                          .due_us = d->next_us,
                          .outcome = outcome == PFE_OK ? STORE_RUN_DONE : STORE_RUN_REFUSED,
                          .seq = seq,
                          .ts = now,
                          .error = str_c(slug)};
    struct store_tx *tx;
    struct store_schedule current;
    bool same = false;
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return e;
    e = store_tx_fence(tx, f);
    if (e == PFE_OK)
        e = reread(a, arena, d, &current, &same);
    if (e == PFE_OK)
        e = store_run_insert(tx, &r);
    if (same) {
        current.last_error = str_c(slug);
        advance(rule, &current, outcome == PFE_OK);
    } else if (e == PFE_OK && outcome == PFE_OK) {
        current.last_us = d->next_us;
        current.runs++;
    }
    current.updated_us = now;
    if (e == PFE_OK)
        e = store_schedule_update(tx, &current);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

/* false: not now; try again. */
static bool run_one(struct app *a, struct arena *arena, int64_t id)
{
    struct store_schedule d;
    struct store_fence f;
    struct problem ignored = {0};
    int64_t now = app_now(a), seq = 0;
    if (!app_lease_fence(a, APP_LEASE_SCHEDULES, &f))
        return false;
    if (store_schedule_get(a->d.store, arena, id, &d) != PFE_OK)
        return false;
    if (!d.next_us || d.next_us > now) /* cancelled since it was listed */
        return true;
    int64_t due = d.next_us;
    struct sched_rule rule = {.recur = SCHED_ONCE, .anchor_us = d.anchor_us};
    enum pf_err e = sched_rule_parse(d.recurrence, d.anchor_us, &rule, &ignored);
    if (e == PFE_OK) {
        if (catch_up(a, &f, arena, &rule, &d, now) != PFE_OK)
            return false;
        due = d.next_us;
        e = move(a, &f, arena, &d, &seq);
    }
    if (e != PFE_OK && !is_refusal(e))
        return false;
    if (record(a, &f, arena, &rule, &d, e, seq, now) != PFE_OK)
        return false;
    log_msg(LOG_INFO, "schedule ran", LOG_I("schedule", d.id), LOG_I("due_us", due), LOG_I("seq", seq),
            LOG_S("outcome", e == PFE_OK ? "done" : err_info(e)->slug));
    return true;
}

int64_t app_schedules_run_due(struct app *a)
{
    struct store_fence f;
    struct arena arena;
    int64_t next = 0;
    if (!app_lease_fence(a, APP_LEASE_SCHEDULES, &f))
        return 0;
    struct store_schedule *due = calloc(DUE_BATCH, sizeof *due);
    if (!due)
        return app_now(a) + RETRY_US;
    arena_init(&arena, NULL, 0, 4 << 20);
    for (;;) {
        unsigned n = 0;
        arena_reset(&arena);
        bool ok = store_schedule_due(a->d.store, &arena, app_now(a), DUE_BATCH, due, &n, &next) == PFE_OK;
        for (unsigned i = 0; i < n && ok; i++) {
            pthread_mutex_lock(&a->schedule_lock);
            ok = run_one(a, &arena, due[i].id);
            pthread_mutex_unlock(&a->schedule_lock);
        }
        if (!ok) {
            next = app_now(a) + RETRY_US;
            break;
        }
        if (n == 0)
            break;
    }
    arena_reset(&arena);
    free(due);
    return next;
}

unsigned app_holds_release_due(struct app *a)
{
    int64_t seq[HOLDS_BATCH];
    unsigned n = 0, released = 0;
    struct store_fence f;
    if (!app_lease_fence(a, APP_LEASE_HOLDS, &f))
        return 0;
    if (store_holds_due(a->d.store, app_now(a), HOLDS_BATCH, seq, &n) != PFE_OK || n == 0)
        return 0;
    struct movement *m = calloc(n, sizeof *m);
    if (!m)
        return 0;
    for (unsigned i = 0; i < n; i++)
        m[i] = (struct movement){.kind = LEDGER_RELEASE, .ref = seq[i], .origin = STR("expired")};
    struct job j = {.kind = JOB_MOVE, .m = m, .n = n, .fence = &f};
    if (app_submit_wait(a, &j) == PFE_OK)
        for (unsigned i = 0; i < n; i++)
            released += m[i].err == PFE_OK;
    free(m);
    return released;
}
