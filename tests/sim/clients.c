/* Commands to the ledger: what is asked, retried and replayed, and each answer against the model. */
#include "sim.h"

#include <stdio.h>
#include <string.h>

/* ---- what is asked ---- */

static int64_t some_user(struct sim *s)
{
    return sim_chance(s, 2) ? M_USERS - 1 : 1 + sim_pick(s, s->users); /* the last is nobody */
}

/* Most find an entry that fits; the others are refused, which is a case too. */
static int64_t some_entry(struct sim *s, enum ledger_kind kind)
{
    int64_t seq = s->m.n && sim_chance(s, 95) ? 1 + sim_pick(s, s->m.n) : M_ENTRIES + 1; /* the last is none */
    for (int i = 0; i < 12 && s->m.n; i++) {
        const struct m_entry *e = &s->m.entry[sim_pick(s, s->m.n)];
        bool fits = kind == LEDGER_ROLLBACK ? e->kind != LEDGER_HOLD : e->kind == LEDGER_HOLD;
        if (fits && (!e->resolved_by || sim_chance(s, 15)))
            return e->seq;
    }
    return seq;
}

static int64_t some_amount(struct sim *s)
{
    int x = sim_pick(s, 100);
    return x == 0 ? 0 : x == 1 ? INT64_MAX : 1 + sim_pick(s, x < 50 ? 300 : 6000);
}

static void some_move(struct sim *s, struct command *c, int part)
{
    static const struct {
        enum ledger_kind kind;
        int weight;
    } kinds[] = {{LEDGER_DEPOSIT, 26}, {LEDGER_TRANSFER, 30}, {LEDGER_WITHDRAW, 12},
                 {LEDGER_HOLD, 10},    {LEDGER_CAPTURE, 6},   {LEDGER_RELEASE, 4},
                 {LEDGER_ROLLBACK, 8}, {LEDGER_FREEZE, 2},    {LEDGER_UNFREEZE, 2}};
    struct m_move *v = &c->move[part];
    int x = s->m.n < 3 * s->users && sim_chance(s, 60) ? 0 : sim_pick(s, 100), k = 0; /* first some money */
    while (x >= kinds[k].weight)
        x -= kinds[k++].weight;
    *v = (struct m_move){.kind = kinds[k].kind, .currency = sim_pick(s, s->currencies), .amount = some_amount(s)};
    int64_t a = some_user(s), b = some_user(s);
    switch (v->kind) {
    case LEDGER_DEPOSIT:
        v->to = a;
        break;
    case LEDGER_HOLD:
        v->expires_us = sim_chance(s, 60) ? s->wall + (int64_t)sim_pick(s, 30000) * SECOND : 0;
        v->from = a;
        v->to = sim_chance(s, 15) ? 0 : b;
        break;
    case LEDGER_TRANSFER:
        v->from = a;
        v->to = b;
        break;
    case LEDGER_CAPTURE:
        v->amount = sim_chance(s, 50) ? 0 : v->amount;
        v->ref = some_entry(s, v->kind);
        break;
    case LEDGER_RELEASE:
    case LEDGER_ROLLBACK:
        v->ref = some_entry(s, v->kind);
        break;
    default:
        v->from = a;
    }
    for (int64_t u = 1; v->kind == LEDGER_UNFREEZE && u <= s->users; u++)
        v->from = s->m.account[u][v->currency].frozen ? u : v->from;
    int n = snprintf(v->text, sizeof v->text, "c%d.%d", c->id, part);
    int pad = s->long_texts ? sim_pick(s, 480) : 0;
    memset(v->text + n, 'x', (size_t)pad);
    v->text[n + pad] = '\0';
}

/* One whose answer a retry may ask for. */
static struct command *some_keyed(struct sim *s, bool answered)
{
    for (int i = 0; i < 8 && s->n_cmd; i++) {
        struct command *c = &s->cmd[sim_pick(s, s->n_cmd)];
        if (c->keyed && c->state != CMD_QUEUED && (!answered || c->state == CMD_ANSWERED))
            return c;
    }
    return NULL;
}

static struct command *new_command(struct sim *s)
{
    if (s->n_cmd == COMMANDS_MAX)
        return NULL;
    const struct command *other = sim_chance(s, 5) ? some_keyed(s, false) : NULL;
    struct command *c = &s->cmd[s->n_cmd];
    *c = (struct command){.sim = s, .id = s->n_cmd, .kind = sim_chance(s, 4) ? JOB_OPEN : JOB_MOVE};
    s->n_cmd++;
    bool batch = sim_chance(s, 18);
    c->n = c->kind == JOB_OPEN ? 0 : batch ? 1 + sim_pick(s, BATCH) : 1;
    c->atomic = !batch || sim_chance(s, 50);
    c->user = some_user(s);
    c->currency = sim_pick(s, s->currencies);
    for (int i = 0; i < c->n; i++)
        some_move(s, c, i);
    c->keyed = other || sim_chance(s, 50);
    c->principal = other ? other->principal : 1 + sim_pick(s, s->users);
    snprintf(c->key, sizeof c->key, "k%d", c->id);
    if (other) /* the same key with another body */
        memcpy(c->key, other->key, sizeof c->key);
    memcpy(c->request, &c->id, sizeof c->id);
    s->c.commands++;
    s->c.batches += batch;
    return c;
}

/* ---- asking ---- */

static void render(struct job *j)
{
    struct command *c = (struct command *)j;
    int n = snprintf(c->body, sizeof c->body, "c%d %d", c->id, j->created);
    for (size_t i = 0; i < j->n && n < (int)sizeof c->body; i++)
        n += snprintf(c->body + n, sizeof c->body - (size_t)n, " %d:%lld:%lld", (int)j->m[i].err,
                      (long long)(j->m[i].err == PFE_OK ? j->m[i].entry.seq : 0),
                      (long long)(j->m[i].err == PFE_OK ? j->m[i].entry.debit_balance : 0));
    j->idem.status = 201;
    j->idem.body = str_c(c->body);
}

static void done(struct job *j);

static void make_job(struct command *c)
{
    c->job = (struct job){.kind = c->kind,
                          .actor = c->principal,
                          .m = c->mv,
                          .n = (size_t)c->n,
                          .atomic = c->atomic,
                          .user = c->user,
                          .currency = m_currency[c->currency],
                          .arena = &c->sim->arena,
                          .render = render,
                          .done = done};
    for (int i = 0; i < c->n; i++) {
        const struct m_move *v = &c->move[i];
        c->mv[i] = (struct movement){.kind = v->kind,
                                     .from_user = v->from,
                                     .to_user = v->to,
                                     .amount = v->amount,
                                     .currency = m_currency[v->currency],
                                     .ref = v->ref,
                                     .expires_us = v->expires_us,
                                     .description = str_c(v->text)};
    }
    if (!c->keyed)
        return;
    c->job.idem = (struct app_idem){.principal = c->principal, .key = str_c(c->key)};
    memcpy(c->job.idem.request, c->request, sizeof c->request);
}

static bool key_in_queue(const struct sim *s, const struct command *c)
{
    for (int i = 0; i < s->n_queue && c->keyed; i++)
        if (s->queue[i]->keyed && s->queue[i]->principal == c->principal && strcmp(s->queue[i]->key, c->key) == 0)
            return true;
    return false;
}

static size_t waiting(const struct sim *s)
{
    size_t n = 0;
    for (int i = s->taken; i < s->n_queue; i++)
        n += s->queue[i]->n ? (size_t)s->queue[i]->n : 1;
    return n;
}

static void send(struct sim *s, struct command *c)
{
    make_job(c);
    enum pf_err e = app_idem_begin(s->app, &c->job.idem), expect = key_in_queue(s, c) ? PFE_IN_FLIGHT : PFE_OK;
    if (e != expect)
        sim_wrong(s, "c%d: its key is %s, not %s", c->id, sim_err(e), sim_err(expect));
    if (e != PFE_OK) {
        s->c.in_flight++;
        sim_trace(s, "c%d %s: %s", c->id, c->key, sim_err(e));
        c->state = c->state == CMD_IDLE ? CMD_FAILED : c->state;
        return;
    }
    size_t before = waiting(s), cost = c->n ? (size_t)c->n : 1;
    e = app_submit(s->app, &c->job);
    expect = s->fatal ? PFE_UNAVAILABLE : before && before + cost > s->cfg.queue_capacity ? PFE_BUSY : PFE_OK;
    if (e != expect)
        sim_wrong(s, "c%d: taking it is %s, not %s", c->id, sim_err(e), sim_err(expect));
    s->c.busy += e == PFE_BUSY;
    s->c.retried += c->sends > 0;
    sim_trace(s, "c%d %s%s %s of %d%s user %lld: %s", c->id, c->keyed ? c->key : "-", c->sends ? " again" : "",
              c->kind == JOB_OPEN ? "open" : ledger_kind_name(c->move[0].kind), c->n, c->atomic ? "" : " each alone",
              (long long)c->principal, sim_err(e));
    if (e != PFE_OK) {
        app_idem_end(s->app, &c->job.idem);
        c->state = c->state == CMD_IDLE ? CMD_FAILED : c->state;
        return;
    }
    c->sends++;
    c->state = CMD_QUEUED;
    s->queue[s->n_queue++] = c;
}

/* ---- what must come of it ---- */

struct outcome {
    enum pf_err err, each[BATCH];
    int failed, n; /* n: entries posted */
    bool replayed, created;
};

/* Runs the command on the model. */
static void run_on_model(struct sim *s, const struct command *c, int64_t ts, struct outcome *o)
{
    *o = (struct outcome){0};
    const struct m_key *k = c->keyed ? model_key(&s->m, c->principal, c->key) : NULL;
    if (k) {
        o->replayed = memcmp(k->request, c->request, sizeof k->request) == 0;
        o->err = o->replayed ? PFE_OK : PFE_KEY_REUSED;
        return;
    }
    if (c->kind == JOB_OPEN) {
        o->err = model_open(&s->m, c->user, c->currency, &o->created);
        return;
    }
    struct m_mark before;
    model_mark(&s->m, &before);
    for (int i = 0; i < c->n; i++) {
        o->each[i] = model_judge(&s->m, &c->move[i], ts);
        if (o->each[i] == PFE_OK && !model_post(&s->m, &c->move[i], "", ts))
            sim_wrong(s, "the model is full");
        if (o->each[i] != PFE_OK && c->atomic) {
            model_undo(&s->m, &before);
            o->err = o->each[i];
            o->failed = i;
            return;
        }
    }
    o->n = s->m.n - before.n;
}

static void judge_movements(struct sim *s, const struct command *c, const struct outcome *o, int from)
{
    const struct job *j = &c->job;
    int at = from;
    for (int i = 0; i < c->n; i++) {
        const struct movement *v = &j->m[i];
        if (v->err != o->each[i]) {
            sim_wrong(s, "c%d.%d: answered %s, not %s", c->id, i, sim_err(v->err), sim_err(o->each[i]));
            return;
        }
        s->c.refused += v->err != PFE_OK;
        if (v->err == PFE_OK)
            check_entry(s, &s->m.entry[at++], &v->entry);
    }
}

static void judge(struct sim *s, struct command *c)
{
    const struct job *j = &c->job;
    struct outcome o;
    int from = s->m.n;
    int64_t more;
    run_on_model(s, c, s->wall, &o);
    if (j->err != o.err || j->idem.replayed != o.replayed) {
        sim_wrong(s, "c%d: answered %s%s, not %s%s", c->id, sim_err(j->err), j->idem.replayed ? " (replayed)" : "",
                  sim_err(o.err), o.replayed ? " (replayed)" : "");
        return;
    }
    if (o.err != PFE_OK) {
        if (j->failed != (size_t)o.failed)
            sim_wrong(s, "c%d: refused for movement %zu, not %d", c->id, j->failed, o.failed);
        s->c.reused += o.err == PFE_KEY_REUSED;
        s->c.refused += o.err != PFE_KEY_REUSED;
        return;
    }
    if (o.replayed) {
        const char *first = model_key(&s->m, c->principal, c->key)->body;
        if (strlen(first) != j->idem.body.n || memcmp(first, j->idem.body.p, j->idem.body.n) != 0)
            sim_wrong(s, "c%d: the replayed answer is not the first one", c->id);
        s->c.replays++;
        return;
    }
    if (c->kind == JOB_OPEN && j->created != o.created)
        sim_wrong(s, "c%d: the account is %s", c->id, o.created ? "new" : "not new");
    judge_movements(s, c, &o, from);
    if (c->keyed)
        model_keep(&s->m, c->principal, c->key, c->request, c->body);
    s->c.acked++;
    s->c.entries += o.n;
    check_journal(s, from, &more); /* what is acknowledged can be read */
}

/* A group happens as a whole or not at all, and what it refused was decided on what it did. */
static void judge_group(struct sim *s, const struct job *j)
{
    s->group_failed |= sim_failure(j->err);
    s->group_decided |= j->kind == JOB_MOVE && !sim_failure(j->err) && j->err != PFE_KEY_REUSED && !j->idem.replayed;
    if (s->group_failed && s->group_decided && !s->crashed)
        sim_wrong(s, "a group failed, and some of its commands have the ledger's answer");
    if (s->taken == 0)
        s->group_failed = s->group_decided = false;
}

static void done(struct job *j)
{
    struct command *c = (struct command *)j;
    struct sim *s = c->sim;
    app_idem_end(s->app, &j->idem);
    if (s->n_queue == 0 || s->queue[0] != c)
        sim_wrong(s, "c%d is answered out of turn", c->id);
    if (s->taken == 0) /* the first of a group that the scheduler, a deletion or the shutdown had decided */
        s->taken = s->n_queue < (int)s->cfg.group_max ? s->n_queue : (int)s->cfg.group_max;
    if (!s->crashed && !sim_failure(j->err) && ++s->answers == s->crash_at_answer) {
        sim_trace(s, "c%d: the answer is not sent any more", c->id);
        s->committed = j->err == PFE_OK && !j->idem.replayed;
        sim_die(s);
    }
    memmove(s->queue, s->queue + 1, (size_t)--s->n_queue * sizeof *s->queue);
    s->taken--;
    judge_group(s, j);
    if (s->crashed) { /* nobody hears a ghost */
        c->state = CMD_UNKNOWN;
        return;
    }
    sim_trace(s, "c%d: %s%s", c->id, sim_err(j->err), j->idem.replayed ? ", replayed" : "");
    if (!sim_failure(j->err)) {
        c->state = CMD_ANSWERED;
        judge(s, c);
        return;
    }
    s->c.full += j->err == PFE_DISK_FULL;
    c->state = j->err == PFE_INTERNAL ? CMD_UNKNOWN : CMD_FAILED;
    if (!s->may_fail && !s->plan.failed)
        sim_wrong(s, "c%d: %s, and the disk is well", c->id, sim_err(j->err));
    if (j->err == PFE_INTERNAL)
        s->maybe[s->n_maybe++] = c;
    else if (sim_chance(s, 5)) /* before anything is written over what was left behind */
        sim_die(s);
}

/* ---- what the clients do ---- */

static void send_some(struct sim *s)
{
    struct command *c = NULL;
    if (s->n_queue >= s->clients)
        return;
    if (sim_chance(s, 8))
        c = some_keyed(s, true);
    else if (sim_chance(s, 4) && s->n_queue) {
        struct command *q = s->queue[sim_pick(s, s->n_queue)];
        if (q->keyed) { /* the same request while the first is still under way */
            struct app_idem twin = {.principal = q->principal, .key = str_c(q->key)};
            enum pf_err e = app_idem_begin(s->app, &twin);
            s->c.in_flight++;
            if (e != PFE_IN_FLIGHT)
                sim_wrong(s, "c%d: a second request with its key is %s", q->id, sim_err(e));
            return;
        }
    }
    c = c ? c : new_command(s);
    if (c)
        send(s, c);
}

void clients_act(struct sim *s)
{
    int n = 1 + sim_pick(s, s->clients);
    for (int i = 0; i < n && sim_ok(s); i++)
        send_some(s);
}

bool clients_retry(struct sim *s)
{
    for (int i = 0; i < s->n_cmd; i++) {
        struct command *c = &s->cmd[i];
        bool again = c->state == CMD_UNKNOWN && c->keyed;
        again |= c->state == CMD_FAILED && sim_chance(s, 30); /* surely not done: a key is not needed */
        if (!again || key_in_queue(s, c))
            continue;
        int queued = s->n_queue;
        send(s, c);
        if (s->n_queue > queued)
            return true;
    }
    return false;
}

void clients_midway(struct sim *s)
{
    if (!s->midway || !s->inside || !sim_chance(s, 6))
        return;
    s->c.midway++;
    if (sim_chance(s, 50))
        check_balance(s, some_user(s), sim_pick(s, s->currencies)); /* what comes of the group is not yet so */
    else
        send_some(s);
}

/* Nothing is in the journal but what the model has. */
static void check_head(struct sim *s)
{
    int64_t more = 0;
    if (check_journal(s, s->m.n, &more) && more)
        sim_wrong(s, "%lld entries that nobody is owed", (long long)more);
}

void clients_step(struct sim *s)
{
    int group = s->n_queue < (int)s->cfg.group_max ? s->n_queue : (int)s->cfg.group_max;
    s->taken = group;
    s->inside = true;
    bool any = app_step(s->app);
    s->inside = false;
    s->taken = 0;
    if (s->crashed)
        return;
    if (any != (group > 0))
        sim_wrong(s, "a group of %d was %s", group, any ? "taken" : "left");
    s->c.groups += any;
    if (!s->fatal)
        check_head(s);
    check_sums(s);
}

/* ---- after a restart ---- */

struct head {
    int64_t ts;
};

static bool take_ts(void *ctx, const struct ledger_entry *e, int64_t resolved_by)
{
    (void)resolved_by;
    ((struct head *)ctx)->ts = e->ts;
    return false;
}

/* Effects that are no entries: the answer to a key, an account that was opened. */
static int others_wanted(const struct command *c, const struct outcome *o)
{
    return (c->keyed && o->err == PFE_OK && !o->replayed) + o->created;
}

static bool kept(struct sim *s, const struct command *c)
{
    struct store_idem i;
    enum pf_err e = store_idem_get(s->store, &s->arena, c->principal, str_c(c->key), &i);
    if (e != PFE_OK)
        return false;
    if (memcmp(i.request, c->request, sizeof i.request) != 0 || i.body.n != strlen(c->body) ||
        memcmp(i.body.p, c->body, i.body.n) != 0)
        sim_wrong(s, "c%d: another answer is kept for its key", c->id);
    return true;
}

static int others_there(struct sim *s, const struct command *c, const struct outcome *o)
{
    struct ledger_account a;
    int n = c->keyed && o->err == PFE_OK && !o->replayed && kept(s, c);
    return n + (o->created && store_account_get(s->store, c->user, m_currency[c->currency], &a) == PFE_OK);
}

void clients_settle(struct sim *s)
{
    struct head h = {.ts = s->wall};
    struct m_mark before;
    struct outcome o[COMMANDS_MAX];
    int64_t more = 0;
    int there = 0, wanted = 0, entries;
    if (!check_journal(s, 0, &more))
        return;
    if (store_journal_scan(s->store, s->m.n, 1, take_ts, &h) != PFE_OK)
        sim_wrong(s, "the journal cannot be read");
    model_mark(&s->m, &before);
    for (int i = 0; i < s->n_maybe; i++) {
        const struct command *c = s->maybe[i];
        run_on_model(s, c, h.ts, &o[i]);
        wanted += others_wanted(c, &o[i]);
        there += others_there(s, c, &o[i]);
    }
    entries = s->m.n - before.n;
    if (s->committed && entries > more)
        sim_wrong(s, "LOST: a group that was committed; %d entries, of which %lld are there", entries, (long long)more);
    s->committed = false;
    bool came = entries ? more > 0 : more > 0 || (wanted && there == wanted);
    if (there != (came ? wanted : 0))
        sim_wrong(s, "half a group: %d of its %d keys and accounts, %lld entries", there, wanted, (long long)more);
    if (came && entries > more)
        sim_wrong(s, "half a group: %lld of its %d entries", (long long)more, entries);
    s->c.unknown += s->n_maybe > 0;
    s->c.came += s->n_maybe && came;
    s->c.not_came += s->n_maybe && !came;
    if (s->n_maybe)
        sim_trace(s, "the group under way %s", came ? "was committed" : "was not committed");
    if (came)
        check_journal(s, before.n, &more);
    else
        model_undo(&s->m, &before);
    for (int i = 0; i < s->n_maybe && came; i++)
        if (s->maybe[i]->keyed && o[i].err == PFE_OK && !o[i].replayed)
            model_keep(&s->m, s->maybe[i]->principal, s->maybe[i]->key, s->maybe[i]->request, s->maybe[i]->body);
    s->n_maybe = 0;
    records_take(s);
    check_head(s);
}

void clients_forget(struct sim *s)
{
    s->taken = 0;
    if (s->n_queue)
        sim_wrong(s, "%d commands were never answered", s->n_queue);
}
