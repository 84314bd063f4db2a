#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const money_currency m_currency[M_CURRENCIES] = {840, 978, 392};

bool model_init(struct model *m)
{
    *m = (struct model){.entry = calloc(M_ENTRIES, sizeof *m->entry), .key = calloc(M_KEYS, sizeof *m->key)};
    return m->entry && m->key;
}

void model_free(struct model *m)
{
    free(m->entry);
    free(m->key);
    *m = (struct model){0};
}

int model_currency(money_currency c)
{
    for (int i = 0; i < M_CURRENCIES; i++)
        if (m_currency[i] == c)
            return i;
    return -1;
}

static const struct m_entry *entry_of(const struct model *m, int64_t seq)
{
    return seq >= 1 && seq <= m->n ? &m->entry[seq - 1] : NULL;
}

static bool resolves(enum ledger_kind k)
{
    return k == LEDGER_ROLLBACK || k == LEDGER_CAPTURE || k == LEDGER_RELEASE;
}

static bool is_state(enum ledger_kind k)
{
    return k == LEDGER_FREEZE || k == LEDGER_UNFREEZE || k == LEDGER_CLOSE;
}

static bool moves(enum ledger_kind k)
{
    return !is_state(k) && k != LEDGER_HOLD && k != LEDGER_RELEASE;
}

/* Which users it debits and credits, in which currency, how much. */
struct sides {
    int64_t debit, credit, amount;
    int currency;
};

static struct sides sides_of(const struct model *m, const struct m_move *v)
{
    const struct m_entry *r = resolves(v->kind) ? entry_of(m, v->ref) : NULL;
    switch (v->kind) {
    case LEDGER_ROLLBACK:
        return (struct sides){r->credit, r->debit, r->amount, r->currency};
    case LEDGER_RELEASE:
        return (struct sides){r->debit, r->credit, r->amount, r->currency};
    case LEDGER_CAPTURE:
        return (struct sides){r->debit, r->credit, v->amount ? v->amount : r->amount, r->currency};
    case LEDGER_DEPOSIT:
        return (struct sides){0, v->to, v->amount, v->currency};
    case LEDGER_WITHDRAW:
        return (struct sides){v->from, 0, v->amount, v->currency};
    case LEDGER_TRANSFER:
    case LEDGER_HOLD:
        return (struct sides){v->from, v->to, v->amount, v->currency};
    case LEDGER_FREEZE:
    case LEDGER_UNFREEZE:
    case LEDGER_CLOSE:
        break;
    }
    return (struct sides){v->from, v->from, 0, v->currency};
}

static bool may_have_account(const struct model *m, int64_t user, int currency)
{
    if (user < 0 || user >= M_USERS)
        return false;
    return user == 0 || m->account[user][currency].exists || m->user[user] == M_ACTIVE;
}

static enum pf_err judge_ref(const struct model *m, const struct m_move *v, int64_t ts)
{
    const struct m_entry *r = entry_of(m, v->ref);
    if (!r)
        return PFE_NOT_FOUND;
    if (v->kind == LEDGER_ROLLBACK) {
        if (!moves(r->kind) || r->kind == LEDGER_ROLLBACK)
            return PFE_WRONG_STATE;
        return r->resolved_by ? PFE_ALREADY_ROLLED_BACK : PFE_OK;
    }
    if (r->kind != LEDGER_HOLD || r->resolved_by)
        return PFE_WRONG_STATE;
    if (v->kind == LEDGER_CAPTURE && ((r->expires_us && ts >= r->expires_us) || v->amount > r->amount))
        return PFE_WRONG_STATE;
    return PFE_OK;
}

static enum pf_err judge_state(const struct m_account *a, const struct m_move *v)
{
    if (a->closed)
        return PFE_WRONG_STATE;
    if (v->kind == LEDGER_CLOSE)
        return a->balance || a->held ? PFE_HOLDS_MONEY : PFE_OK;
    return a->frozen == (v->kind == LEDGER_UNFREEZE) ? PFE_OK : PFE_WRONG_STATE;
}

enum pf_err model_judge(const struct model *m, const struct m_move *v, int64_t ts)
{
    if ((v->kind == LEDGER_TRANSFER || v->kind == LEDGER_HOLD) && v->from == v->to)
        return PFE_SAME_ACCOUNT;
    if (resolves(v->kind)) {
        enum pf_err e = judge_ref(m, v, ts);
        if (e != PFE_OK)
            return e;
    }
    struct sides s = sides_of(m, v);
    if (!may_have_account(m, s.debit, s.currency) || !may_have_account(m, s.credit, s.currency))
        return PFE_NOT_FOUND;
    const struct m_account *d = &m->account[s.debit][s.currency], *c = &m->account[s.credit][s.currency];
    if (is_state(v->kind))
        return judge_state(d, v);
    if (s.amount <= 0)
        return PFE_INVALID;
    if (v->kind == LEDGER_RELEASE)
        return PFE_OK;
    if (d->closed || c->closed)
        return PFE_ACCOUNT_CLOSED;
    if (d->frozen || c->frozen)
        return PFE_ACCOUNT_FROZEN;
    if (v->kind != LEDGER_CAPTURE && s.debit != 0 && d->balance - d->held < s.amount)
        return PFE_INSUFFICIENT_FUNDS;
    if (v->kind == LEDGER_HOLD)
        return PFE_OK;
    int64_t less, more;
    if (__builtin_sub_overflow(d->balance, s.amount, &less) || less == INT64_MIN ||
        __builtin_add_overflow(c->balance, s.amount, &more))
        return PFE_OVERFLOW;
    return PFE_OK;
}

struct m_entry *model_post(struct model *m, const struct m_move *v, const char *origin, int64_t ts)
{
    if (m->n == M_ENTRIES)
        return NULL;
    struct sides s = sides_of(m, v);
    struct m_account *d = &m->account[s.debit][s.currency], *c = &m->account[s.credit][s.currency];
    struct m_entry *e = &m->entry[m->n++];
    d->exists = c->exists = true;
    if (moves(v->kind)) {
        d->balance -= s.amount;
        c->balance += s.amount;
    }
    if (v->kind == LEDGER_HOLD)
        d->held += s.amount;
    if (v->kind == LEDGER_CAPTURE || v->kind == LEDGER_RELEASE)
        d->held -= m->entry[v->ref - 1].amount;
    if (resolves(v->kind))
        m->entry[v->ref - 1].resolved_by = m->n;
    if (v->kind == LEDGER_FREEZE || v->kind == LEDGER_UNFREEZE)
        d->frozen = v->kind == LEDGER_FREEZE;
    d->was_frozen |= d->frozen;
    d->closed |= v->kind == LEDGER_CLOSE;
    *e = (struct m_entry){.seq = m->n,
                          .ts = ts,
                          .kind = v->kind,
                          .debit = s.debit,
                          .credit = s.credit,
                          .amount = s.amount,
                          .currency = s.currency,
                          .debit_balance = d->balance,
                          .credit_balance = c->balance,
                          .ref = resolves(v->kind) ? v->ref : 0,
                          .expires_us = v->kind == LEDGER_HOLD ? v->expires_us : 0};
    snprintf(e->text, sizeof e->text, "%s", v->text);
    snprintf(e->origin, sizeof e->origin, "%s", origin);
    return e;
}

void model_mark(const struct model *m, struct m_mark *ret)
{
    memcpy(ret->account, m->account, sizeof ret->account);
    ret->n = m->n;
}

void model_undo(struct model *m, const struct m_mark *to)
{
    while (m->n > to->n) {
        const struct m_entry *e = &m->entry[--m->n];
        if (e->ref)
            m->entry[e->ref - 1].resolved_by = 0;
    }
    memcpy(m->account, to->account, sizeof m->account);
}

enum pf_err model_open(struct model *m, int64_t user, int currency, bool *ret_created)
{
    if (user <= 0 || !may_have_account(m, user, currency))
        return PFE_NOT_FOUND;
    *ret_created = !m->account[user][currency].exists;
    m->account[user][currency].exists = true;
    return PFE_OK;
}

const struct m_key *model_key(const struct model *m, int64_t principal, const char *key)
{
    for (int i = 0; i < m->n_keys; i++)
        if (m->key[i].principal == principal && strcmp(m->key[i].key, key) == 0)
            return &m->key[i];
    return NULL;
}

void model_keep(struct model *m, int64_t principal, const char *key, const uint8_t request[32], const char *body)
{
    if (m->n_keys == M_KEYS)
        return;
    struct m_key *k = &m->key[m->n_keys++];
    *k = (struct m_key){.principal = principal};
    snprintf(k->key, sizeof k->key, "%s", key);
    memcpy(k->request, request, sizeof k->request);
    snprintf(k->body, sizeof k->body, "%s", body);
}

bool model_names(const struct m_entry *e, int64_t user, int currency)
{
    return e->currency == currency && (e->debit == user || e->credit == user);
}

static bool same_text(const char *a, struct str b)
{
    return str_is(b, a);
}

const char *model_differs(const struct m_entry *e, const struct ledger_entry *x, int64_t debit_owner,
                          int64_t credit_owner)
{
    return e->seq != x->seq                         ? "number"
           : e->ts != x->ts                         ? "time"
           : (uint8_t)e->kind != x->kind            ? "kind"
           : e->amount != x->amount                 ? "amount"
           : m_currency[e->currency] != x->currency ? "currency"
           : e->debit != debit_owner                ? "debited party"
           : e->credit != credit_owner              ? "credited party"
           : e->debit_balance != x->debit_balance   ? "balance of the debited"
           : e->credit_balance != x->credit_balance ? "balance of the credited"
           : e->ref != x->ref                       ? "reference"
           : e->expires_us != x->expires_us         ? "expiry"
           : !same_text(e->text, x->description)    ? "description"
           : !same_text(e->origin, x->origin)       ? "origin"
                                                    : NULL;
}

int64_t model_balance_at(const struct model *m, int64_t user, int currency, int64_t t)
{
    int64_t balance = 0, latest = INT64_MIN;
    for (int i = 0; i < m->n; i++) {
        const struct m_entry *e = &m->entry[i];
        if (!model_names(e, user, currency))
            continue;
        latest = e->ts > latest ? e->ts : latest;
        if (latest > t)
            break;
        balance = e->credit == user ? e->credit_balance : e->debit_balance;
    }
    return balance;
}
