/* The order of things, and the comparison. */
#include "store/copy.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

enum { WHY = 256 };

static enum pf_err copy_rows(struct sqlite_source *from, struct postgres_target *to, struct store_copy *k,
                             char why[WHY])
{
    struct store_copy_side *g = &k->given;
    enum pf_err e = store_sqlite_source_ends(from, &g->ends, why);
    if (e == PFE_OK)
        e = store_sqlite_source_trial(from, g->trial, STORE_COPY_CURRENCIES, &g->n_trial);
    for (unsigned t = 0; t < MOVE_TABLES && e == PFE_OK; t++) {
        enum move_table_id id = (enum move_table_id)t;
        e = store_postgres_target_begin(to, id, why);
        if (e)
            break;
        e = store_sqlite_source_rows(from, id, store_postgres_target_row, to, why);
        enum pf_err end = store_postgres_target_end(to, e == PFE_OK, &g->tables[t], why);
        e = e ? e : end;
        k->rows += g->tables[t].rows;
    }
    return e == PFE_OK ? store_postgres_target_finish(to, &g->ends, why) : e;
}

static enum pf_err look(struct postgres_target *to, struct store_copy_side *f, char why[WHY])
{
    enum pf_err e = PFE_OK;
    for (unsigned t = 0; t < MOVE_TABLES && e == PFE_OK; t++)
        e = store_postgres_target_digest(to, (enum move_table_id)t, &f->tables[t], why);
    if (e == PFE_OK)
        e = store_postgres_target_ends(to, &f->ends, why);
    if (e == PFE_OK)
        e = store_postgres_target_verify(to, &f->proof, f->trial, STORE_COPY_CURRENCIES, &f->n_trial, why);
    return e;
}

static bool same_ends(const struct move_ends *a, const struct move_ends *b)
{
    return a->head_seq == b->head_seq && memcmp(a->seal, b->seal, sizeof a->seal) == 0 &&
           a->next_account == b->next_account && a->accounts == b->accounts && a->time_us == b->time_us &&
           a->lag_us == b->lag_us && a->user_id == b->user_id && a->api_key_id == b->api_key_id &&
           a->schedule_id == b->schedule_id && a->audit_id == b->audit_id && a->event_id == b->event_id &&
           a->next_booking == b->next_booking && a->next_outbox == b->next_outbox;
}

static bool same_trial(const struct store_copy_side *a, const struct store_copy_side *b)
{
    bool same = a->n_trial == b->n_trial;
    for (unsigned i = 0; same && i < a->n_trial; i++) {
        const struct store_trial *x = &a->trial[i], *y = &b->trial[i];
        same = x->currency == y->currency && x->accounts == y->accounts && x->user_balance == y->user_balance &&
               x->external == y->external && x->sum == 0 && y->sum == 0;
    }
    return same;
}

static void compare(struct store_copy *k)
{
    const struct store_copy_side *a = &k->given, *b = &k->found;
    char *what = k->difference;
    size_t cap = sizeof k->difference;
    for (unsigned t = 0; t < MOVE_TABLES && !what[0]; t++)
        if (!move_digest_equal(&a->tables[t], &b->tables[t]))
            snprintf(what, cap, "table %s: %lld rows were copied, %lld are there%s", move_tables[t].name,
                     (long long)a->tables[t].rows, (long long)b->tables[t].rows,
                     a->tables[t].rows == b->tables[t].rows ? ", and they differ" : "");
    if (!what[0] && !same_ends(&a->ends, &b->ends))
        snprintf(what, cap, "the ledger's head, its seal or the newest numbers differ");
    if (!what[0] && !b->proof.ok)
        snprintf(what, cap, "what is in PostgreSQL does not verify: %s", b->proof.what);
    if (!what[0] && (a->proof.entries != b->proof.entries || a->proof.seals != b->proof.seals ||
                     a->proof.accounts != b->proof.accounts || a->proof.resolutions != b->proof.resolutions))
        snprintf(what, cap, "the proofs differ: %lld and %lld entries, %lld and %lld accounts",
                 (long long)a->proof.entries, (long long)b->proof.entries, (long long)a->proof.accounts,
                 (long long)b->proof.accounts);
    if (!what[0] && !same_trial(a, b))
        snprintf(what, cap, "the trial balances differ");
}

enum pf_err store_copy(const char *dir, const struct postgres_options *to, struct store_copy *ret, char ret_why[WHY])
{
    const struct clock *clock = clock_system();
    struct sqlite_source *f = NULL;
    struct postgres_target *t = NULL;
    *ret = (struct store_copy){0};
    ret_why[0] = '\0';
    enum pf_err e = store_sqlite_source_open(dir, &f, &ret->given.proof, ret_why);
    if (e == PFE_OK)
        e = store_postgres_target_open(to, &t, ret_why);
    int64_t begun = clock_mono(clock), copied = begun;
    if (e == PFE_OK) {
        e = copy_rows(f, t, ret, ret_why);
        copied = clock_mono(clock);
    }
    if (e == PFE_OK)
        e = look(t, &ret->found, ret_why);
    if (e == PFE_OK)
        compare(ret);
    if (e == PFE_OK && !ret->difference[0])
        e = store_postgres_target_commit(t, ret_why);
    ret->copy_us = copied - begun;
    ret->verify_us = clock_mono(clock) - copied;
    store_postgres_target_close(t);
    store_sqlite_source_close(f);
    if (e && !ret_why[0])
        snprintf(ret_why, WHY, "%s", err_info(e)->title);
    return e;
}
