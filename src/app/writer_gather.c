/* The ledger writer, before a group begins: which accounts, answers and entries does it need? And what others changed.
 */
#include "app/writer.h"

/* A slot's key is owner << 10 | currency: a number beyond this is nobody's, and must not wrap round to somebody's. */
static const int64_t OWNER_MAX = INT64_MAX >> 10;

enum pf_err writer_slot_for(struct writer *w, int64_t owner, money_currency currency, unsigned *ret)
{
    uint64_t k = (uint64_t)owner << 10 | currency;
    uint64_t v;
    if (owner < 0 || owner > OWNER_MAX)
        return PFE_NOT_FOUND;
    if (map_u64_get(&w->slot_of, k, &v)) {
        *ret = (unsigned)v;
        return PFE_OK;
    }
    if (w->n_keys == STORE_GROUP_KEYS_MAX)
        return PFE_BUSY;
    size_t cap = w->cap_keys;
    if (!writer_grow((void **)&w->keys, &cap, w->n_keys + 1, sizeof *w->keys))
        return PFE_NOMEM;
    if (cap != w->cap_keys) {
        size_t slot_cap = w->cap_keys;
        if (!writer_grow((void **)&w->slots, &slot_cap, cap, sizeof *w->slots))
            return PFE_NOMEM;
        w->cap_keys = cap;
    }
    if (!map_u64_put(&w->slot_of, k, w->n_keys))
        return PFE_NOMEM;
    w->keys[w->n_keys] = (struct store_key){.owner = owner, .currency = currency};
    *ret = (unsigned)w->n_keys++;
    return PFE_OK;
}

/* What was answered under the job's key before, if anything was; then there is nothing more to do for it. */
static void replay(struct writer *w, struct job *j)
{
    if (j->idem.key.n)
        j->err = app_idem_lookup(w->a, j->arena, &j->idem);
    j->live = j->err == PFE_OK && !j->idem.replayed;
}

static enum pf_err slot_for_account(struct writer *w, int64_t account, unsigned *ret)
{
    struct ledger_account acc;
    enum pf_err e = store_account_by_id(w->a->d.store, account, &acc);
    return e != PFE_OK ? e : writer_slot_for(w, acc.owner, acc.currency, ret);
}

/* Another process may resolve it before the group begins: ask again inside, for all of the group at once. */
static enum pf_err ask_ref(struct writer *w, struct movement *m)
{
    if (w->n_refs == STORE_GROUP_KEYS_MAX)
        return PFE_BUSY;
    if (!writer_grow((void **)&w->refs, &w->cap_refs, w->n_refs + 1, sizeof *w->refs) ||
        !writer_grow((void **)&w->resolved_by, &w->cap_resolved_by, w->n_refs + 1, sizeof *w->resolved_by))
        return PFE_NOMEM;
    m->ref_at = w->n_refs;
    w->refs[w->n_refs++] = m->ref;
    return PFE_OK;
}

static enum pf_err gather_ref(struct writer *w, struct movement *m)
{
    struct ledger_entry *ref = arena_alloc(&w->arena, sizeof *ref);
    if (!ref)
        return PFE_NOMEM;
    int64_t by;
    enum pf_err e = store_entry_get(w->a->d.store, &w->arena, m->ref, ref, &by);
    if (e != PFE_OK)
        return e;
    if (str_starts(ref->origin, STR(TICKET_ORIGIN))) /* a booking's money moves with its booking */
        return PFE_WRONG_STATE;
    m->ref_entry = ref;
    m->ref_resolved = by != 0;
    m->currency = ref->currency;
    if (m->amount == 0)
        m->amount = ref->amount;
    int64_t debit, credit;
    e = ledger_sides(&(struct ledger_command){.kind = m->kind, .ref = ref}, &debit, &credit);
    if (e == PFE_OK)
        e = slot_for_account(w, debit, &m->debit_slot);
    if (e == PFE_OK)
        e = slot_for_account(w, credit, &m->credit_slot);
    if (e == PFE_OK && store_shared(w->a->d.store))
        e = ask_ref(w, m);
    return e;
}

static enum pf_err gather_movement(struct writer *w, struct movement *m)
{
    int64_t debit = m->from_user, credit = m->to_user;
    switch (m->kind) {
    case LEDGER_ROLLBACK:
    case LEDGER_CAPTURE:
    case LEDGER_RELEASE:
        return gather_ref(w, m);
    case LEDGER_DEPOSIT:
        debit = 0;
        break;
    case LEDGER_WITHDRAW:
        credit = 0;
        break;
    case LEDGER_TRANSFER:
    case LEDGER_HOLD:
        if (debit == credit)
            return PFE_SAME_ACCOUNT;
        break;
    case LEDGER_FREEZE:
    case LEDGER_UNFREEZE:
    case LEDGER_CLOSE:
        credit = debit;
        break;
    }
    enum pf_err e = writer_slot_for(w, debit, m->currency, &m->debit_slot);
    return e == PFE_OK ? writer_slot_for(w, credit, m->currency, &m->credit_slot) : e;
}

static enum pf_err gather_close(struct writer *w, struct job *j)
{
    enum { CAP = 200 };
    struct ledger_account *acc = arena_alloc(&w->arena, CAP * sizeof *acc);
    unsigned n = 0;
    if (!acc)
        return PFE_NOMEM;
    enum pf_err e = store_account_list(w->a->d.store, j->user, acc, CAP, &n);
    if (e != PFE_OK)
        return e;
    j->m = arena_zalloc(&w->arena, (n + 1) * sizeof *j->m);
    if (!j->m)
        return PFE_NOMEM;
    j->n = 0;
    j->atomic = true;
    for (unsigned i = 0; i < n && e == PFE_OK; i++) {
        if (acc[i].flags & LEDGER_CLOSED)
            continue;
        struct movement *m = &j->m[j->n++];
        *m = (struct movement){.kind = LEDGER_CLOSE, .from_user = j->user, .currency = acc[i].currency};
        e = gather_movement(w, m);
    }
    return e;
}

/* Not a refusal of this one: nothing of the job can be decided. */
static bool ends_job(enum pf_err e)
{
    return e == PFE_NOMEM || e == PFE_BUSY || e == PFE_UNAVAILABLE;
}

void writer_gather(struct writer *w, struct job *j)
{
    j->err = j->gone && j->gone(j) ? PFE_TIMEOUT : PFE_OK;
    j->live = j->stood = false;
    if (j->err != PFE_OK)
        return;
    if (!store_shared(w->a->d.store)) {
        replay(w, j);
        if (!j->live)
            return;
        j->live = false;
    } else if (j->idem.key.n) { /* another process may be at work under this key: ask inside the group */
        if (!writer_grow((void **)&w->asked, &w->cap_asked, w->n_asked + 1, sizeof *w->asked)) {
            j->err = PFE_NOMEM;
            return;
        }
        w->asked[w->n_asked++] = (struct store_idem_ref){j->idem.principal, j->idem.key};
    }
    if (j->fence) {
        if (!writer_grow((void **)&w->fences, &w->cap_fences, w->n_fences + 1, sizeof *w->fences)) {
            j->err = PFE_NOMEM;
            return;
        }
        j->fence_at = w->n_fences;
        w->fences[w->n_fences++] = *j->fence;
    }
    switch (j->kind) {
    case JOB_OPEN: {
        unsigned slot;
        j->err = writer_slot_for(w, j->user, j->currency, &slot);
        break;
    }
    case JOB_CLOSE:
        j->err = gather_close(w, j);
        break;
    case JOB_MOVE:
        for (size_t i = 0; i < j->n; i++) {
            struct movement *m = &j->m[i];
            m->err = gather_movement(w, m);
            if (ends_job(m->err)) {
                j->err = m->err;
                return;
            }
        }
        break;
    case JOB_BOOKINGS:
        for (size_t i = 0; i < j->n_bookings; i++) {
            struct booking *b = &j->booking[i];
            b->err = writer_tickets_gather(w, b);
            if (ends_job(b->err)) {
                j->err = b->err;
                return;
            }
        }
        break;
    case JOB_DELIVERED:
    case JOB_REBUILD:
        break;
    }
    j->live = j->err == PFE_OK;
}

void writer_look_again(struct writer *w, struct job *j)
{
    replay(w, j);
    if (j->err == PFE_OK && !j->live) { /* whoever did it may not have come to tell the caches: writer_forget_cached */
        w->replayed = true;
        for (size_t i = 0; i < j->n; i++) {
            if (!writer_grow((void **)&w->resolved, &w->cap_resolved, w->n_resolved + 1, sizeof *w->resolved)) {
                j->err = PFE_NOMEM;
                return;
            }
            if (j->m[i].ref)
                w->resolved[w->n_resolved++] = j->m[i].ref;
        }
    }
    for (size_t i = 0; j->live && i < j->n; i++) {
        struct movement *m = &j->m[i];
        if (m->err == PFE_OK && m->ref_entry)
            m->ref_resolved = w->resolved_by[m->ref_at] != 0;
    }
}

void writer_fence_off(const struct writer *w, struct job *j)
{
    if (!j->fence || w->fences[j->fence_at].ok)
        return;
    j->err = PFE_FENCED;
    j->live = false;
}
