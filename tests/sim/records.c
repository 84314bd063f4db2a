/* Users and schedules: what is asked of them, and what the scheduler did. */
#include "sim.h"

#include <stdio.h>
#include <string.h>

#include "codec/uuid.h"
#include "worker/scheduler.h"

/* A failure of the disk explains it. */
static bool excused(const struct sim *s, enum pf_err e)
{
    return sim_failure(e) && (s->may_fail || s->plan.failed);
}

static struct caller caller_of(int64_t user, enum ident_role role)
{
    return (struct caller){.who = {.user = user, .role = role}, .address = STR("192.0.2.1"), .request_id = STR("sim")};
}

/* ---- users ---- */

bool records_begin(struct sim *s)
{
    for (int i = 1; i <= s->users && sim_ok(s); i++) {
        struct store_user u = {.role = IDENT_USER, .created_us = s->wall, .updated_us = s->wall, .password_hash = "x"};
        struct uuid id = uuid_v7(s->wall);
        struct store_tx *tx;
        memcpy(u.uuid, id.b, sizeof u.uuid);
        snprintf(u.username, sizeof u.username, "user%d", i);
        snprintf(u.email, sizeof u.email, "user%d@example.com", i);
        enum pf_err e = store_tx_begin(s->store, &tx);
        if (e == PFE_OK)
            e = store_user_insert(tx, &u);
        if (e != PFE_OK || store_tx_commit(tx) != PFE_OK || u.id != i)
            sim_wrong(s, "user %d cannot be made", i);
        s->m.user[i] = M_ACTIVE;
    }
    return sim_ok(s);
}

static void render_user(void *ctx, const struct store_user *u, struct app_idem *idem)
{
    (void)u;
    idem->status = 201;
    idem->body = str_c(((const struct registration *)ctx)->name);
}

void records_learn_user(struct sim *s, struct registration *r, int64_t id)
{
    if (r->user == id)
        return;
    if (id != s->users + 1)
        sim_wrong(s, "a new user is number %lld after %d", (long long)id, s->users);
    r->user = id;
    s->users++;
    s->m.user[s->users] = M_ACTIVE;
    s->c.users++;
}

/* As the HTTP layer does it: reserve the key, look for an earlier answer, only then act. */
static enum pf_err register_one(struct sim *s, struct registration *r, struct str name, bool *ret_replayed)
{
    char mail[64];
    struct caller who = caller_of(0, IDENT_USER);
    struct app_idem idem = {.principal = 0, .key = str_c(r->key), .request = {1}};
    struct store_user u = {0};
    struct problem p = {0};
    snprintf(mail, sizeof mail, "%s@example.com", r->name);
    struct app_registration in = {
        .username = name, .email = str_c(mail), .password = STR("password1"), .role = IDENT_USER};
    enum pf_err e = app_idem_begin(s->app, &idem);
    if (e == PFE_OK)
        e = app_idem_lookup(s->app, &s->arena, &idem);
    *ret_replayed = e == PFE_OK && idem.replayed;
    if (*ret_replayed && !(idem.body.n == strlen(r->name) && memcmp(idem.body.p, r->name, idem.body.n) == 0))
        sim_wrong(s, "%s: the replayed answer is not the first one", r->name);
    if (e == PFE_OK && !idem.replayed)
        e = app_register(s->app, &who, &in, &idem, render_user, r, &u, &p);
    app_idem_end(s->app, &idem);
    if (e == PFE_OK && !*ret_replayed && !s->crashed)
        records_learn_user(s, r, u.id);
    return e;
}

void records_register(struct sim *s, bool retry)
{
    struct registration *r = NULL;
    for (int i = 0; retry && i < s->n_reg; i++)
        if (s->reg[i].state == CMD_UNKNOWN || s->reg[i].state == CMD_FAILED)
            r = &s->reg[i];
    if (!r && (retry || s->n_reg == REGISTRATIONS_MAX || s->users + 2 >= M_USERS))
        return;
    bool taken = !r && sim_chance(s, 15) && s->m.user[1] != M_GONE, replayed;
    if (!r) {
        r = &s->reg[s->n_reg++];
        snprintf(r->name, sizeof r->name, "late%d", s->n_reg);
        snprintf(r->key, sizeof r->key, "r%d", s->n_reg);
    }
    bool known = r->user != 0;
    enum pf_err e = register_one(s, r, taken ? STR("USER1") : str_c(r->name), &replayed);
    if (s->crashed) {
        r->state = CMD_UNKNOWN;
        return;
    }
    sim_trace(s, "register %s: %s%s", r->name, sim_err(e), replayed ? ", replayed" : "");
    enum pf_err expect = taken ? PFE_DUP_USERNAME : PFE_OK;
    if (e != expect && !excused(s, e))
        sim_wrong(s, "register %s: %s, not %s", r->name, sim_err(e), sim_err(expect));
    if (e == PFE_OK && replayed != known)
        sim_wrong(s, "register %s: %s", r->name, replayed ? "replayed, and never done" : "done twice");
    r->state = e == PFE_INTERNAL ? CMD_UNKNOWN : excused(s, e) ? CMD_FAILED : CMD_ANSWERED;
}

static bool has_money(const struct sim *s, int64_t user)
{
    for (int c = 0; c < M_CURRENCIES; c++)
        if (s->m.account[user][c].balance || s->m.account[user][c].held)
            return true;
    return false;
}

enum m_user records_status(struct sim *s, int64_t user)
{
    struct store_user u;
    enum pf_err e = store_user_get(s->store, user, &u);
    if (e != PFE_OK) {
        sim_wrong(s, "user %lld cannot be read: %s", (long long)user, sim_err(e));
        return M_NOBODY;
    }
    return u.status == STORE_USER_ACTIVE ? M_ACTIVE : u.status == STORE_USER_CLOSING ? M_CLOSING : M_GONE;
}

void records_delete(struct sim *s)
{
    int64_t user = 1 + sim_pick(s, s->users);
    for (int i = 0; i < 6 && has_money(s, user); i++)
        user = 1 + sim_pick(s, s->users);
    struct caller who = caller_of(0, IDENT_ADMIN);
    struct problem p = {0};
    enum m_user before = s->m.user[user];
    size_t cost = 1;
    for (int i = 0; i < s->n_queue; i++)
        cost += s->queue[i]->n ? (size_t)s->queue[i]->n : 1;
    bool busy = s->n_queue && cost > s->cfg.queue_capacity;
    s->deleting = user;
    if (before == M_ACTIVE)
        s->m.user[user] = M_CLOSING;
    enum pf_err e = app_user_delete(s->app, &who, user, &p);
    if (s->crashed)
        return;
    records_take(s);
    enum m_user after = records_status(s, user);
    sim_trace(s, "delete user %lld: %s", (long long)user, sim_err(e));
    enum pf_err expect = before == M_GONE     ? PFE_NOT_FOUND
                         : busy               ? PFE_BUSY
                         : has_money(s, user) ? PFE_HOLDS_MONEY
                                              : PFE_OK;
    if (e != expect && !excused(s, e))
        sim_wrong(s, "delete user %lld: %s, not %s", (long long)user, sim_err(e), sim_err(expect));
    bool fits = e == PFE_OK          ? after == M_GONE
                : e == PFE_NOT_FOUND ? after == before
                : !sim_failure(e)    ? after == M_ACTIVE
                                     : after != M_GONE || e == PFE_INTERNAL;
    if (!fits)
        sim_wrong(s, "delete user %lld: %s, and its status is %d", (long long)user, sim_err(e), (int)after);
    s->m.user[user] = after;
    s->c.deleted += e == PFE_OK;
    if (e != PFE_INTERNAL)
        s->deleting = 0;
}

/* ---- schedules: asking ---- */

static void render_schedule(void *ctx, const struct store_schedule *d, struct app_idem *idem)
{
    (void)d;
    idem->status = 201;
    idem->body = str_c(((const struct schedule *)ctx)->text);
}

static enum pf_err create_one(struct sim *s, struct schedule *d, bool *ret_replayed)
{
    struct caller who = caller_of(d->owner, IDENT_USER);
    struct store_schedule in = {.kind = d->kind,
                                .to_user = d->to,
                                .amount = d->amount,
                                .currency = m_currency[d->currency],
                                .description = str_c(d->text),
                                .recurrence = str_c(d->recurrence),
                                .anchor_us = d->anchor,
                                .end_us = d->end,
                                .max_runs = d->max_runs},
                          out = {0};
    struct app_idem idem = {.principal = d->owner, .key = str_c(d->key), .request = {2}};
    struct problem p = {0};
    enum pf_err e = app_idem_begin(s->app, &idem);
    if (e == PFE_OK)
        e = app_idem_lookup(s->app, &s->arena, &idem);
    *ret_replayed = e == PFE_OK && idem.replayed;
    if (e == PFE_OK && !idem.replayed)
        e = app_schedule_create(s->app, &who, &in, &idem, render_schedule, d, &out, &p);
    app_idem_end(s->app, &idem);
    if (e == PFE_OK && !*ret_replayed && !s->crashed)
        d->id = out.id;
    return e;
}

static struct schedule *new_schedule(struct sim *s)
{
    static const char *const recurrences[] = {"", "daily", "weekly", "0 * * * *", "*/30 * * * *"};
    static const enum ledger_kind kinds[] = {LEDGER_DEPOSIT, LEDGER_WITHDRAW, LEDGER_TRANSFER, LEDGER_TRANSFER};
    int64_t owner = 1 + sim_pick(s, s->users);
    if (s->n_sched == SCHEDULES_MAX || s->m.user[owner] != M_ACTIVE)
        return NULL;
    struct schedule *d = &s->sched[s->n_sched];
    memset(d, 0, sizeof *d);
    d->kind = kinds[sim_pick(s, 4)];
    d->owner = owner;
    d->to = d->kind == LEDGER_TRANSFER ? 1 + sim_pick(s, s->users) : 0;
    d->amount = 1 + sim_pick(s, 900);
    d->currency = sim_pick(s, s->currencies);
    d->recurrence = recurrences[sim_pick(s, 5)];
    d->anchor = s->wall + (int64_t)(1 + sim_pick(s, 7200)) * SECOND;
    d->end = sim_chance(s, 30) ? d->anchor + (int64_t)sim_pick(s, 100) * HOUR : 0;
    d->max_runs = sim_chance(s, 30) ? 1 + sim_pick(s, 4) : 0;
    snprintf(d->text, sizeof d->text, "s%d", s->n_sched);
    snprintf(d->key, sizeof d->key, "s%d", s->n_sched++);
    return d;
}

void records_schedule(struct sim *s, bool retry)
{
    struct schedule *d = NULL;
    for (int i = 0; retry && i < s->n_sched; i++)
        if (s->sched[i].state == CMD_UNKNOWN || s->sched[i].state == CMD_FAILED)
            d = &s->sched[i];
    if (!d && !retry)
        d = new_schedule(s);
    if (!d)
        return;
    bool known = d->id != 0, replayed;
    enum pf_err e = create_one(s, d, &replayed);
    if (s->crashed) {
        d->state = CMD_UNKNOWN;
        return;
    }
    sim_trace(s, "schedule %s %s '%s' from %lld: %s%s", d->text, ledger_kind_name(d->kind), d->recurrence,
              (long long)d->anchor, sim_err(e), replayed ? ", replayed" : "");
    enum pf_err expect = known                                                        ? PFE_OK
                         : d->anchor <= s->wall                                       ? PFE_INVALID
                         : d->kind == LEDGER_TRANSFER && s->m.user[d->to] != M_ACTIVE ? PFE_NOT_FOUND
                         : d->kind == LEDGER_TRANSFER && d->to == d->owner            ? PFE_SAME_ACCOUNT
                                                                                      : PFE_OK;
    if ((e != expect && !excused(s, e)) || replayed != (known && e == PFE_OK))
        sim_wrong(s, "schedule %s: %s%s, not %s", d->text, sim_err(e), replayed ? ", replayed" : "", sim_err(expect));
    d->state = e == PFE_INTERNAL ? CMD_UNKNOWN : excused(s, e) ? CMD_FAILED : CMD_ANSWERED;
    s->c.schedules += e == PFE_OK && !replayed;
}

void records_cancel(struct sim *s)
{
    if (s->n_sched == 0)
        return;
    struct schedule *d = &s->sched[sim_pick(s, s->n_sched)];
    struct caller who = caller_of(d->owner, IDENT_USER);
    struct store_schedule was, out;
    struct problem p = {0};
    char ref[24];
    if (!d->id || store_schedule_get(s->store, &s->arena, d->id, &was) != PFE_OK)
        return;
    snprintf(ref, sizeof ref, "%lld", (long long)d->id);
    d->cancel_unknown = true;
    enum pf_err e = app_schedule_cancel(s->app, &who, &s->arena, str_c(ref), &out, &p);
    if (s->crashed)
        return;
    sim_trace(s, "cancel %s: %s", d->text, sim_err(e));
    enum pf_err expect = was.status == SCHED_PENDING || was.status == SCHED_ACTIVE ? PFE_OK : PFE_WRONG_STATE;
    if (e != expect && !excused(s, e))
        sim_wrong(s, "cancel %s: %s, not %s", d->text, sim_err(e), sim_err(expect));
    d->cancelled |= e == PFE_OK;
    d->cancel_unknown = e == PFE_INTERNAL;
    s->c.cancels += e == PFE_OK;
}

/* ---- entries of the scheduler and of deletions ---- */

static struct schedule *schedule_of(struct sim *s, int64_t id)
{
    for (int i = 0; i < s->n_sched; i++)
        if (id && s->sched[i].id == id)
            return &s->sched[i];
    return NULL;
}

static bool take_run(struct sim *s, const struct ledger_entry *x, const char *origin, struct m_move *v)
{
    long long id, at;
    struct schedule *d = sscanf(origin, "schedule:%lld:%lld", &id, &at) == 2 ? schedule_of(s, id) : NULL;
    if (!d || d->cancelled || !schedule_is_due(d, at) || at > x->ts || d->n_moved == DUES_MAX) {
        sim_wrong(s, "entry %lld is of %s, which %s", (long long)x->seq, origin,
                  !d             ? "is no schedule"
                  : d->cancelled ? "was cancelled"
                                 : "is not due");
        return false;
    }
    for (int i = 0; i < d->n_moved; i++)
        if (d->moved[i] == at)
            sim_wrong(s, "entry %lld: %s ran twice", (long long)x->seq, origin);
    d->moved[d->n_moved++] = at;
    *v = (struct m_move){.kind = d->kind, .to = d->to, .from = d->owner, .amount = d->amount, .currency = d->currency};
    if (d->kind == LEDGER_DEPOSIT) {
        v->from = 0;
        v->to = d->owner;
    }
    snprintf(v->text, sizeof v->text, "%s", d->text);
    s->c.runs++;
    return true;
}

static bool take_other(struct sim *s, const struct ledger_entry *x, const char *origin, struct m_move *v)
{
    if (strcmp(origin, "expired") == 0 && x->kind == LEDGER_RELEASE && x->ref > 0 && x->ref <= s->m.n) {
        const struct m_entry *hold = &s->m.entry[x->ref - 1];
        if (!hold->expires_us || hold->expires_us > x->ts)
            sim_wrong(s, "hold %lld is released before its time", (long long)x->ref);
        *v = (struct m_move){.kind = LEDGER_RELEASE, .ref = x->ref};
        s->c.expired++;
        return true;
    }
    if (x->kind == LEDGER_CLOSE && s->deleting) {
        *v = (struct m_move){.kind = LEDGER_CLOSE, .from = s->deleting, .currency = model_currency(x->currency)};
        return v->currency >= 0;
    }
    sim_wrong(s, "entry %lld (%s, '%.40s') is owed to nobody", (long long)x->seq, ledger_kind_name(x->kind), origin);
    return false;
}

static bool take(void *ctx, const struct ledger_entry *x, int64_t resolved_by)
{
    struct sim *s = ctx;
    struct m_move v;
    char origin[LEDGER_ORIGIN_MAX + 1];
    (void)resolved_by;
    str_copy(origin, sizeof origin, x->origin);
    bool run = strncmp(origin, "schedule:", 9) == 0;
    if (!(run ? take_run(s, x, origin, &v) : take_other(s, x, origin, &v)))
        return false;
    enum pf_err e = model_judge(&s->m, &v, x->ts);
    const struct m_entry *mine = e == PFE_OK ? model_post(&s->m, &v, origin, x->ts) : NULL;
    if (mine)
        check_entry(s, mine, x);
    else
        sim_wrong(s, "entry %lld (%s) should have been refused: %s", (long long)x->seq, origin, sim_err(e));
    sim_trace(s, "entry %lld: %s %s", (long long)x->seq, ledger_kind_name(x->kind), origin);
    return sim_ok(s);
}

void records_take(struct sim *s)
{
    if (sim_ok(s) && store_journal_scan(s->store, s->m.n, 0, take, s) != PFE_OK)
        sim_wrong(s, "the journal cannot be read");
}

void records_run(struct sim *s)
{
    struct store_schedule due[4];
    struct arena arena;
    unsigned n = 0, holds = 0;
    int64_t next, seq[4];
    bool calm = s->n_queue == 0 && !s->plan.op;
    scheduler_step(s->app);
    if (s->crashed)
        return;
    records_take(s);
    for (int i = 1; i <= s->users; i++) /* it finishes, or takes back, deletions that were broken off */
        if (s->m.user[i] == M_CLOSING)
            s->m.user[i] = records_status(s, i);
    calm = calm && !s->fatal && !s->plan.failed;
    arena_init(&arena, NULL, 0, 1 << 20);
    if (store_schedule_due(s->store, &arena, s->wall, 4, due, &n, &next) != PFE_OK ||
        store_holds_due(s->store, s->wall, 4, seq, &holds) != PFE_OK)
        sim_wrong(s, "what is due cannot be read");
    else if (calm && n + holds)
        sim_wrong(s, "%u schedules and %u holds are still due after the scheduler looked", n, holds);
    arena_reset(&arena);
    sim_trace(s, "the scheduler looked; %d entries", s->m.n);
    if (sim_chance(s, 30) || calm)
        records_check(s);
}
