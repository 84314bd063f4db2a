/*
 * The ledger writer: one thread takes all jobs that wait, decides them in order on the accounts as loaded, and commits
 * them as one group. Nothing outside this file writes the journal. What a group needs is gathered in writer_gather.c.
 */
#include "app/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "codec/uuid.h"

enum { GROUP_MOVEMENTS_MAX = 16384, SHRINK_OVER = 4096, LINGER_US = 100 };

bool writer_grow(void **p, size_t *cap, size_t want, size_t size)
{
    if (want <= *cap)
        return true;
    size_t n = *cap ? *cap : 256;
    while (n < want)
        n *= 2;
    void *q = realloc(*p, n * size);
    if (!q)
        return false;
    *p = q;
    *cap = n;
    return true;
}

/* ---- deciding ---- */

static bool save(struct writer *w, unsigned slot)
{
    if (!writer_grow((void **)&w->undo, &w->cap_undo, w->n_undo + 1, sizeof *w->undo))
        return false;
    w->undo[w->n_undo++] = (struct undo){slot, w->slots[slot]};
    return true;
}

static bool resolved_here(const struct writer *w, int64_t seq)
{
    for (size_t i = 0; i < w->n_resolved; i++)
        if (w->resolved[i] == seq)
            return true;
    return false;
}

enum pf_err writer_decide(struct writer *w, int64_t actor, struct movement *m)
{
    int64_t seq = w->first_seq + (int64_t)w->n_entries, ts = w->ts;
    struct store_slot *d = &w->slots[m->debit_slot], *c = &w->slots[m->credit_slot];
    if (d->state == STORE_SLOT_NO_OWNER || c->state == STORE_SLOT_NO_OWNER || d->state == STORE_SLOT_NO_ACCOUNT ||
        c->state == STORE_SLOT_NO_ACCOUNT)
        return PFE_NOT_FOUND;
    struct ledger_command cmd = {
        .kind = m->kind,
        .amount = m->amount,
        .currency = m->currency,
        .seq = seq,
        .ts = ts,
        .actor = actor,
        .expires_us = m->expires_us,
        .description = m->description,
        .origin = m->origin,
        .ref = m->ref_entry,
        .ref_resolved = m->ref_entry && (m->ref_resolved || resolved_here(w, m->ref_entry->seq)),
    };
    struct uuid id = uuid_v7_seq(ts, seq);
    memcpy(cmd.uuid, id.b, sizeof cmd.uuid);
    enum pf_err e = ledger_decide(&d->acc, &c->acc, &cmd, &m->entry);
    if (e != PFE_OK)
        return e;
    if (!save(w, m->debit_slot) || !save(w, m->credit_slot) ||
        !writer_grow((void **)&w->entries, &w->cap_entries, w->n_entries + 1, sizeof *w->entries) ||
        !writer_grow((void **)&w->resolved, &w->cap_resolved, w->n_resolved + 1, sizeof *w->resolved))
        return PFE_NOMEM;
    if (m->ref_entry)
        w->resolved[w->n_resolved++] = m->ref_entry->seq;
    ledger_evolve(&d->acc, &m->entry, m->ref_entry);
    if (c != d)
        ledger_evolve(&c->acc, &m->entry, m->ref_entry);
    d->used = c->used = true;
    w->entries[w->n_entries++] = m->entry;
    return PFE_OK;
}

static void decide_open(struct writer *w, struct job *j, int64_t ts)
{
    unsigned slot;
    j->err = writer_slot_for(w, j->user, j->currency, &slot); /* gathered before: found, not made */
    if (j->err != PFE_OK)
        return;
    struct store_slot *s = &w->slots[slot];
    if (s->state == STORE_SLOT_NO_OWNER) {
        j->err = PFE_NOT_FOUND;
        return;
    }
    j->created = s->state == STORE_SLOT_NEW && !s->used;
    j->stood = !j->created;
    if (j->created) {
        s->acc.updated_us = ts;
        s->used = true;
    }
    j->account = s->acc;
}

void writer_undo(struct writer *w, size_t entries, size_t resolved)
{
    while (w->n_undo) {
        const struct undo *u = &w->undo[--w->n_undo];
        w->slots[u->slot] = u->before;
    }
    w->n_entries = entries;
    w->n_resolved = resolved;
}

static void decide_job(struct writer *w, struct job *j)
{
    size_t entries = w->n_entries, resolved = w->n_resolved;
    w->n_undo = 0;
    if (j->kind == JOB_OPEN) {
        decide_open(w, j, w->ts);
        return;
    }
    if (j->kind == JOB_BOOKINGS) {
        writer_tickets_decide(w, j);
        return;
    }
    if (j->kind == JOB_DELIVERED) {
        j->err = writer_tickets_delivered(w, j);
        return;
    }
    for (size_t i = 0; i < j->n; i++) {
        struct movement *m = &j->m[i];
        if (m->err == PFE_OK)
            m->err = writer_decide(w, j->actor, m);
        if (m->err == PFE_OK)
            continue;
        w->refused++;
        if (!j->atomic && m->err != PFE_NOMEM)
            continue;
        writer_undo(w, entries, resolved);
        j->err = m->err;
        j->failed = i;
        j->refusal = m->err != PFE_NOMEM;
        return;
    }
    j->created = j->kind == JOB_CLOSE && w->n_entries > entries;
}

/* ---- after the commit ---- */

/* A group that failed for a client's own doing, or for what somebody else changed under it, failed for one of its jobs:
   that is not what the others are to be told, nor what a due run is to be skipped for. */
static enum pf_err failure(enum pf_err failed)
{
    return err_info(failed)->http < 500 ? PFE_UNAVAILABLE : failed;
}

/* Done before, as its key, a message's row or the thing itself says inside the group: what a shared store shows may yet
 * be lost until a commit of this group's own has been answered. */
static bool found_in_group(const struct writer *w, const struct job *j)
{
    return (j->idem.replayed || j->stood) && j->err == PFE_OK && store_shared(w->a->d.store);
}

static void finish_all(struct writer *w, struct job *list, enum pf_err failed)
{
    while (list) {
        struct job *j = list;
        list = j->next;
        if (failed != PFE_OK && found_in_group(w, j)) {
            j->err = PFE_INTERNAL; /* it may well stand: not "nothing was done" */
            j->idem.replayed = false;
        }
        /* refusals too: they were decided on what earlier jobs of the group did, and that did not happen */
        if (failed != PFE_OK && j->live && (j->err == PFE_OK || j->refusal)) {
            j->err = failure(failed);
            j->refusal = false;
        }
        for (size_t i = 0; i < j->n_bookings && j->err != PFE_OK && !j->refusal; i++)
            j->booking[i].err = j->err;
        j->done(j);
    }
}

static void rebuild(struct writer *w, struct job *j)
{
    char key[CACHE_KEY_MAX];
    j->live = false;
    j->err = store_account_get(w->a->d.store, j->user, j->currency, &j->account);
    if (j->err == PFE_OK) {
        j->stored_balance = j->account.balance;
        j->err = store_account_rebuild(w->a->d.store, j->account.id, &j->replay);
    }
    if (j->err == PFE_OK)
        j->err = store_account_get(w->a->d.store, j->user, j->currency, &j->account);
    const struct str k = app_key_balance(key, j->user, j->currency);
    if (!cache_del_many(w->a->d.cache, &k, 1) && j->err == PFE_OK)
        j->err = PFE_INTERNAL;
}

static int64_t first_seq(const struct job *j)
{
    for (size_t i = 0; i < j->n; i++)
        if (j->m[i].err == PFE_OK)
            return j->m[i].entry.seq;
    return 0;
}

/* The answers to keep: of all that succeeded, whether or not they changed anything. */
static enum pf_err render_answers(struct writer *w, struct job *list)
{
    for (struct job *j = list; j; j = j->next) {
        if (!j->live || j->err != PFE_OK || !j->idem.key.n)
            continue;
        j->render(j);
        if (j->idem.status == 0) /* half an answer must not be kept */
            return PFE_NOMEM;
        if (!writer_grow((void **)&w->idem, &w->cap_idem, w->n_idem + 1, sizeof *w->idem))
            return PFE_NOMEM;
        struct store_idem *i = &w->idem[w->n_idem++];
        *i = (struct store_idem){.principal = j->idem.principal,
                                 .key = j->idem.key,
                                 .status = j->idem.status,
                                 .body = j->idem.body,
                                 .seq = first_seq(j)};
        memcpy(i->request, j->idem.request, sizeof i->request);
    }
    return PFE_OK;
}

static enum pf_err commit(struct writer *w)
{
    struct store_commit c = {.ts = w->ts,
                             .entries = w->entries,
                             .n_entries = w->n_entries,
                             .slots = w->slots,
                             .n_slots = w->n_keys,
                             .idem = w->idem,
                             .n_idem = w->n_idem};
    (void)writer_tickets_commit(w, &c);
    int64_t t0 = clock_mono(w->a->d.clock);
    enum pf_err e = store_group_commit(w->a->d.store, &c);
    int64_t dt = clock_mono(w->a->d.clock) - t0;
    w->last_commit_us = dt;
    metric_observe(w->h_commit, dt);
    metric_observe(w->h_batch, (int64_t)w->n_entries);
    return e;
}

static bool has_work(struct writer *w)
{
    struct store_commit c;
    if (w->n_entries || w->n_idem || writer_tickets_commit(w, &c))
        return true;
    for (size_t i = 0; i < w->n_keys; i++)
        if (w->slots[i].used)
            return true;
    return false;
}

static void refuse_all(struct job *list)
{
    while (list) {
        struct job *j = list;
        list = j->next;
        j->err = PFE_UNAVAILABLE;
        j->done(j);
    }
}

static void process(struct writer *w, struct job *list)
{
    struct app *a = w->a;
    if (w->dead) { /* submitted just before it died */
        refuse_all(list);
        return;
    }
    w->n_keys = w->n_entries = w->n_idem = w->n_asked = w->n_fences = w->n_refs = w->n_resolved = 0;
    w->replayed = false;
    if (w->slot_of.cap > SHRINK_OVER)
        map_u64_free(&w->slot_of);
    else
        map_u64_clear(&w->slot_of);
    arena_reset(&w->arena);
    writer_tickets_begin(w, list);
    uint64_t n = 0;
    bool live = false, replays = false;
    for (struct job *j = list; j; j = j->next, n++) {
        if (j->kind == JOB_REBUILD)
            rebuild(w, j);
        else
            writer_gather(w, j);
        live |= j->live;
    }
    w->jobs += n;
    w->groups++;
    enum pf_err e = PFE_OK;
    if (live) { /* perhaps with no accounts at all: a movement that names none is to be refused too */
        writer_turn_take(w, list);
        w->ts = app_now(a);
        struct store_group_ask ask = {.keys = w->keys,
                                      .n_keys = w->n_keys,
                                      .idem = w->asked,
                                      .n_idem = w->n_asked,
                                      .refs = w->refs,
                                      .n_refs = w->n_refs,
                                      .fences = w->fences,
                                      .n_fences = w->n_fences};
        struct store_group g = {.slots = w->slots, .resolved_by = w->resolved_by, .now_us = w->ts};
        writer_tickets_ask(w, &ask, &g);
        e = store_group_begin(a->d.store, &ask, &g);
        w->first_seq = g.first_seq;
        w->t->first_booking = g.first_booking;
        w->t->now_us = g.now_us;
        if (e == PFE_OK) {
            for (struct job *j = list; j; j = j->next) {
                if (j->live)
                    writer_fence_off(w, j);
                if (j->live && store_shared(a->d.store))
                    writer_look_again(w, j);
                if (j->live)
                    decide_job(w, j);
            }
            e = render_answers(w, list);
            for (struct job *j = list; j; j = j->next)
                replays |= found_in_group(w, j);
            if (e == PFE_OK && (replays || has_work(w)))
                e = commit(w); /* ends the group whatever it returns */
            else
                store_group_abort(a->d.store);
        }
        writer_turn_give(w);
    }
    if (e == PFE_OK) {
        w->total_entries += w->n_entries;
        writer_count_entries(w);
        writer_tickets_count(w);
    } else if (e == PFE_DISK_FULL && !w->full) {
        log_msg(LOG_ERROR, "the store has no room: writes are refused until there is some");
    } else if (e == PFE_INTERNAL && store_shared(a->d.store)) { /* the next group sees what became of it */
        log_msg(LOG_ERROR, "a commit failed with an unknown outcome", LOG_I("entries", w->n_entries));
    } else if (e == PFE_INTERNAL) {
        w->dead = true;
        log_msg(LOG_ERROR, "a commit failed with an unknown outcome; stopping", LOG_I("entries", w->n_entries));
    }
    if (w->full && e == PFE_OK && w->n_entries)
        log_msg(LOG_WARN, "the store has room again");
    if (e == PFE_DISK_FULL || w->n_entries)
        w->full = e == PFE_DISK_FULL;
    /* also when the outcome is unknown, for it may be done */
    if ((e == PFE_OK || (e == PFE_INTERNAL && !w->dead)) && !writer_forget_cached(w) && e == PFE_OK) {
        log_msg(LOG_ERROR, "other instances cannot be told of a commit, nor that they cannot",
                LOG_I("entries", w->n_entries));
        e = PFE_INTERNAL;
    }
    finish_all(w, list, e);
    if (w->dead && a->d.on_fatal)
        a->d.on_fatal(a->d.fatal_ctx);
}

static size_t cost_of(const struct job *j)
{
    size_t n = j->kind == JOB_BOOKINGS ? j->n_bookings : j->n;
    return n ? n : 1;
}

/* The jobs of the next group; NULL: none wait. Locked. */
static struct job *take_group(struct writer *w)
{
    struct job *list = w->first, *last = NULL, *j = list;
    int64_t now = clock_mono(w->a->d.clock);
    size_t jobs = 0, movements = 0;
    while (j && jobs < w->a->cfg.group_max) {
        size_t cost = cost_of(j);
        if (jobs && movements + cost > GROUP_MOVEMENTS_MAX)
            break;
        movements += cost;
        jobs++;
        metric_observe(w->h_wait, now - j->queued_us);
        last = j;
        j = j->next;
    }
    if (!last)
        return NULL;
    w->first = j;
    if (!j)
        w->last = NULL;
    last->next = NULL;
    w->queued -= movements;
    w->alone = jobs == 1;
    return list;
}

/* A lone client's next command comes sooner after its answer than a thread can be put to sleep and woken: look out for
 * it a little before going to sleep. Not when commands come in groups, for then those who bring them need the CPU. */
static void linger(struct writer *w)
{
    const struct clock *real = clock_system();
    int64_t until = clock_mono(real) + LINGER_US;
    while (!atomic_load_explicit(&w->queued, memory_order_relaxed) && clock_mono(real) < until)
        continue;
}

/* One group. wait: until there is one or the writer is to stop. false: there was none. */
static bool step(struct writer *w, bool wait)
{
    pthread_mutex_lock(&w->lock);
    while (wait && !w->first && !w->stop)
        pthread_cond_wait(&w->more, &w->lock);
    struct job *list = take_group(w);
    pthread_mutex_unlock(&w->lock);
    if (list)
        process(w, list);
    return list != NULL;
}

static void work(struct writer *w)
{
    while (step(w, true)) {
        if (w->alone && w->lingers)
            linger(w);
    }
}

static void *run(void *arg)
{
    pthread_setname_np(pthread_self(), "ledger-writer");
    work(arg);
    return NULL;
}

static int64_t gauge_queued(void *ctx)
{
    struct app_writer_stats s;
    app_writer_stats(ctx, &s);
    return (int64_t)s.queued;
}

struct writer *writer_new(struct app *a)
{
    struct writer *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->a = a;
    a->writer = w;
    w->lingers = !a->cfg.stepped && sysconf(_SC_NPROCESSORS_ONLN) > 1;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    map_u64_init(&w->slot_of);
    arena_init(&w->arena, NULL, 0, 256 << 20);
    struct metrics *m = a->d.metrics;
    w->t = writer_tickets_new(m);
    writer_turn_init(w, m);
    w->h_batch = metric_histogram(m, "payflow_commit_entries", "Journal entries a group commit.", "",
                                  metric_bounds_pow2, metric_bounds_pow2_n, 1);
    w->h_commit =
        metric_histogram(m, "payflow_commit_duration_seconds", "Duration of a group commit, its fsync included.", "",
                         metric_bounds_us, metric_bounds_us_n, 1000000);
    w->h_wait = metric_histogram(m, "payflow_queue_wait_seconds", "Time a command waits for the ledger writer.", "",
                                 metric_bounds_us, metric_bounds_us_n, 1000000);
    metric_gauge_fn(m, "payflow_queue_depth", "Movements waiting for the ledger writer.", "", gauge_queued, a, 1);
    if (!w->t || (!a->cfg.stepped && pthread_create(&w->thread, NULL, run, w) != 0)) {
        a->writer = NULL;
        writer_tickets_free(w->t);
        free(w);
        return NULL;
    }
    return w;
}

void writer_free(struct writer *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
    if (w->a->cfg.stepped)
        work(w); /* what waits; then it stops */
    else
        pthread_join(w->thread, NULL);
    arena_reset(&w->arena);
    map_u64_free(&w->slot_of);
    free(w->keys);
    free(w->slots);
    free(w->entries);
    free(w->idem);
    free(w->asked);
    free(w->fences);
    free(w->undo);
    free(w->refs);
    free(w->resolved_by);
    free(w->resolved);
    writer_tickets_free(w->t);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

enum pf_err app_submit(struct app *a, struct job *j)
{
    struct writer *w = a->writer;
    size_t cost = cost_of(j);
    if (w->dead)
        return PFE_UNAVAILABLE;
    j->next = NULL;
    j->queued_us = clock_mono(a->d.clock);
    pthread_mutex_lock(&w->lock);
    enum pf_err e = PFE_OK;
    if (w->stop) {
        e = PFE_DRAINING;
    } else if (w->queued && w->queued + cost > a->cfg.queue_capacity && j->kind != JOB_DELIVERED) {
        e = PFE_BUSY;
    } else {
        bool idle = !w->first;
        if (w->last)
            w->last->next = j;
        else
            w->first = j;
        w->last = j;
        w->queued += cost;
        if (idle)
            pthread_cond_signal(&w->more);
    }
    pthread_mutex_unlock(&w->lock);
    return e;
}

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool ready;
};

static void wake(struct job *j)
{
    struct waiter *wt = j->ctx;
    pthread_mutex_lock(&wt->lock);
    wt->ready = true;
    pthread_cond_signal(&wt->done);
    pthread_mutex_unlock(&wt->lock);
}

enum pf_err app_submit_wait(struct app *a, struct job *j)
{
    struct waiter wt = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    j->ctx = &wt;
    j->done = wake;
    enum pf_err e = app_submit(a, j);
    if (e != PFE_OK)
        return j->err = e;
    while (a->cfg.stepped && !wt.ready)
        (void)step(a->writer, false);
    pthread_mutex_lock(&wt.lock);
    while (!wt.ready)
        pthread_cond_wait(&wt.done, &wt.lock);
    pthread_mutex_unlock(&wt.lock);
    return j->err;
}

bool app_step(struct app *a)
{
    return step(a->writer, false);
}

void app_writer_stats(struct app *a, struct app_writer_stats *ret)
{
    struct writer *w = a->writer;
    pthread_mutex_lock(&w->lock);
    ret->queued = w->queued;
    pthread_mutex_unlock(&w->lock);
    ret->capacity = a->cfg.queue_capacity;
    ret->groups = w->groups;
    ret->jobs = w->jobs;
    ret->entries = w->total_entries;
    ret->refused = w->refused;
    ret->last_commit_us = w->last_commit_us;
    ret->dead = w->dead;
}
