/*
 * A PostgreSQL database as what an installation is carried to (store/move.h): one transaction from the first row to the
 * last check, so that at any moment there is either nothing in it or all of it, proven.
 */
#include "store/move.h"

#include <stdio.h>
#include <stdlib.h>

#include "store/postgres/journal.h"

enum { BLOCK = 256 << 10, COPY_HEADER = 19 };

struct postgres_target {
    struct store *store;
    struct pg_conn *c;
    struct sha256 *sha;
    const struct move_table *table; /* the one under way */
    struct buf out;                 /* rows not sent yet */
    struct move_digest digest;
    enum pf_err err;
    bool misfit; /* a row that no column takes */
};

/* Columns in the order of move_tables. */
static const char *const copies_in[MOVE_TABLES] = {
    [MOVE_JOURNAL] = "COPY journal (seq, ts, debit, credit, amount, debit_balance, credit_balance, debit_prev,"
                     " credit_prev, ref, actor, expires_us, kind, currency, uuid, description, origin)"
                     " FROM STDIN (FORMAT binary)",
    [MOVE_SEAL] = "COPY seal (last_seq, first_seq, ts, hash) FROM STDIN (FORMAT binary)",
    [MOVE_RESOLUTION] = "COPY resolution (seq, resolver) FROM STDIN (FORMAT binary)",
    [MOVE_OPEN_HOLD] = "COPY open_hold (seq, account, amount, expires_us) FROM STDIN (FORMAT binary)",
    [MOVE_ACCOUNT] = "COPY account (id, owner, created_us, balance, held, head, entries, moves, time_us, updated_us,"
                     " currency, flags) FROM STDIN (FORMAT binary)",
    [MOVE_MARK] = "COPY mark (account, n, seq, ts, balance, moves) FROM STDIN (FORMAT binary)",
    [MOVE_STAT] = "COPY stat (kind, currency, minute, count, volume) FROM STDIN (FORMAT binary)",
    [MOVE_IDEMPOTENCY] = "COPY idempotency (principal, key, request, status, seq, body) FROM STDIN (FORMAT binary)",
    [MOVE_USERS] = "COPY users (id, uuid, username, username_fold, email, email_fold, password_hash, role, status,"
                   " created_us, updated_us) FROM STDIN (FORMAT binary)",
    [MOVE_API_KEY] = "COPY api_key (id, user_id, hash, prefix, created_us, last_used_us, revoked_us)"
                     " FROM STDIN (FORMAT binary)",
    [MOVE_SESSION] = "COPY session (family, user_id, created_us, expires_us, revoked_us) FROM STDIN (FORMAT binary)",
    [MOVE_REFRESH] = "COPY refresh (hash, family, created_us, expires_us, used_us) FROM STDIN (FORMAT binary)",
    [MOVE_SCHEDULE] = "COPY schedule (id, uuid, owner, kind, to_user, amount, currency, description, recurrence,"
                      " anchor_us, next_us, end_us, last_us, max_runs, runs, refusals, status, last_error, created_us,"
                      " updated_us) FROM STDIN (FORMAT binary)",
    [MOVE_SCHEDULE_RUN] = "COPY schedule_run (schedule, due_us, outcome, seq, ts, error) FROM STDIN (FORMAT binary)",
    [MOVE_AUDIT] = "COPY audit (id, ts, actor, action, entity, entity_id, outcome, address, request_id, detail)"
                   " FROM STDIN (FORMAT binary)",
    [MOVE_EVENT] = "COPY event (id, uuid, organiser, capacity, held, sold, price, currency, status,"
                   " starts_us, created_us) FROM STDIN (FORMAT binary)",
    [MOVE_BOOKING] = "COPY booking (id, uuid, event, buyer, user_id, guest, tickets, amount, currency, state,"
                     " reason, version, hold_seq, paid_seq, expires_us, created_us, updated_us) FROM STDIN"
                     " (FORMAT binary)",
    [MOVE_OUTBOX] = "COPY outbox (id, uuid, type, key, payload, created_us) FROM STDIN (FORMAT binary)",
    [MOVE_INBOX] = "COPY inbox (message, consumer) FROM STDIN (FORMAT binary)",
    [MOVE_EVENT_DOCUMENT] = "COPY event_document (id, created_us, date_us, search, body) FROM STDIN"
                            " (FORMAT binary)",
};
static const char *const copies_out[MOVE_TABLES] = {
    [MOVE_JOURNAL] = "COPY journal (seq, ts, debit, credit, amount, debit_balance, credit_balance, debit_prev,"
                     " credit_prev, ref, actor, expires_us, kind, currency, uuid, description, origin)"
                     " TO STDOUT (FORMAT binary)",
    [MOVE_SEAL] = "COPY seal (last_seq, first_seq, ts, hash) TO STDOUT (FORMAT binary)",
    [MOVE_RESOLUTION] = "COPY resolution (seq, resolver) TO STDOUT (FORMAT binary)",
    [MOVE_OPEN_HOLD] = "COPY open_hold (seq, account, amount, expires_us) TO STDOUT (FORMAT binary)",
    [MOVE_ACCOUNT] = "COPY account (id, owner, created_us, balance, held, head, entries, moves, time_us, updated_us,"
                     " currency, flags) TO STDOUT (FORMAT binary)",
    [MOVE_MARK] = "COPY mark (account, n, seq, ts, balance, moves) TO STDOUT (FORMAT binary)",
    [MOVE_STAT] = "COPY stat (kind, currency, minute, count, volume) TO STDOUT (FORMAT binary)",
    [MOVE_IDEMPOTENCY] = "COPY idempotency (principal, key, request, status, seq, body) TO STDOUT (FORMAT binary)",
    [MOVE_USERS] = "COPY users (id, uuid, username, username_fold, email, email_fold, password_hash, role, status,"
                   " created_us, updated_us) TO STDOUT (FORMAT binary)",
    [MOVE_API_KEY] = "COPY api_key (id, user_id, hash, prefix, created_us, last_used_us, revoked_us)"
                     " TO STDOUT (FORMAT binary)",
    [MOVE_SESSION] = "COPY session (family, user_id, created_us, expires_us, revoked_us) TO STDOUT (FORMAT binary)",
    [MOVE_REFRESH] = "COPY refresh (hash, family, created_us, expires_us, used_us) TO STDOUT (FORMAT binary)",
    [MOVE_SCHEDULE] = "COPY schedule (id, uuid, owner, kind, to_user, amount, currency, description, recurrence,"
                      " anchor_us, next_us, end_us, last_us, max_runs, runs, refusals, status, last_error, created_us,"
                      " updated_us) TO STDOUT (FORMAT binary)",
    [MOVE_SCHEDULE_RUN] = "COPY schedule_run (schedule, due_us, outcome, seq, ts, error) TO STDOUT (FORMAT binary)",
    [MOVE_AUDIT] = "COPY audit (id, ts, actor, action, entity, entity_id, outcome, address, request_id, detail)"
                   " TO STDOUT (FORMAT binary)",
    [MOVE_EVENT] = "COPY event (id, uuid, organiser, capacity, held, sold, price, currency, status,"
                   " starts_us, created_us) TO STDOUT (FORMAT binary)",
    [MOVE_BOOKING] = "COPY booking (id, uuid, event, buyer, user_id, guest, tickets, amount, currency, state,"
                     " reason, version, hold_seq, paid_seq, expires_us, created_us, updated_us) TO STDOUT"
                     " (FORMAT binary)",
    [MOVE_OUTBOX] = "COPY outbox (id, uuid, type, key, payload, created_us) TO STDOUT (FORMAT binary)",
    [MOVE_INBOX] = "COPY inbox (message, consumer) TO STDOUT (FORMAT binary)",
    [MOVE_EVENT_DOCUMENT] = "COPY event_document (id, created_us, date_us, search, body) TO STDOUT"
                            " (FORMAT binary)",
};

static enum pf_err refused(const struct postgres_target *t, enum pf_err e, char ret_why[PG_WHY])
{
    snprintf(ret_why, PG_WHY, "PostgreSQL: %.230s", t->c->why);
    return e;
}

/* ---- opening ---- */

static const char is_empty[] =
    "SELECT coalesce((SELECT head_seq = 0 AND accounts = 0 AND next_account = 1000 FROM ledger_head), false)"
    " AND coalesce((SELECT users = 0 AND api_key = 0 AND schedule = 0 AND audit = 0 AND event = 0 FROM record_ids), "
    "false)"
    " AND coalesce((SELECT booking = 1 AND outbox = 1 FROM ticket_ids), false)"
    " AND NOT EXISTS (SELECT FROM journal) AND NOT EXISTS (SELECT FROM seal) AND NOT EXISTS (SELECT FROM resolution)"
    " AND NOT EXISTS (SELECT FROM open_hold) AND NOT EXISTS (SELECT FROM account) AND NOT EXISTS (SELECT FROM mark)"
    " AND NOT EXISTS (SELECT FROM stat) AND NOT EXISTS (SELECT FROM idempotency) AND NOT EXISTS (SELECT FROM users)"
    " AND NOT EXISTS (SELECT FROM api_key) AND NOT EXISTS (SELECT FROM session) AND NOT EXISTS (SELECT FROM refresh)"
    " AND NOT EXISTS (SELECT FROM schedule) AND NOT EXISTS (SELECT FROM schedule_run)"
    " AND NOT EXISTS (SELECT FROM audit) AND NOT EXISTS (SELECT FROM event) AND NOT EXISTS (SELECT FROM booking)"
    " AND NOT EXISTS (SELECT FROM outbox) AND NOT EXISTS (SELECT FROM inbox)"
    " AND NOT EXISTS (SELECT FROM event_document)";

static enum pf_err begin(struct postgres_target *t, char ret_why[PG_WHY])
{
    static const char *const first[] = {
        pg_begin, "SET LOCAL statement_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0",
        /* servers that run on the empty database may read it, and write to it only when this has ended */
        "LOCK TABLE ledger_head, record_ids, journal, seal, resolution, open_hold, account, mark, stat, idempotency,"
        " receipt, users, api_key, session, refresh, schedule, schedule_run, audit, event, booking, outbox, inbox,"
        " ticket_ids, event_document IN EXCLUSIVE MODE"};
    struct pg_q q;
    enum pf_err e = PFE_OK;
    t->c->timeout_ms = PG_LONG_MS;
    for (size_t i = 0; i < sizeof first / sizeof *first && e == PFE_OK; i++)
        e = pg_exec(t->c, first[i]);
    if (e == PFE_BUSY) {
        snprintf(ret_why, PG_WHY, "somebody else is writing to the PostgreSQL database");
        return PFE_WRONG_STATE;
    }
    if (e)
        return refused(t, e, ret_why);
    pg_q_begin(&q, t->c, is_empty);
    bool empty = pg_q_next(&q) && pg_col_bool(&q, 0);
    e = pg_q_end(&q);
    if (e)
        return refused(t, e, ret_why);
    if (!empty) {
        snprintf(ret_why, PG_WHY, "the PostgreSQL database is not empty: there are records of this program in it");
        return PFE_WRONG_STATE;
    }
    return PFE_OK;
}

enum pf_err store_postgres_target_open(const struct postgres_options *o, struct postgres_target **ret,
                                       char ret_why[PG_WHY])
{
    struct postgres_options serve = *o;
    serve.mode = POSTGRES_SERVE;
    serve.guard = false;
    serve.n_replicas = 0;
    struct postgres_target *t = calloc(1, sizeof *t);
    if (!t || !(t->sha = sha256_new())) {
        free(t);
        snprintf(ret_why, PG_WHY, "out of memory");
        return PFE_NOMEM;
    }
    buf_init(&t->out, 0);
    enum pf_err e = store_postgres_open(&serve, &t->store, ret_why);
    if (e == PFE_OK && !(t->c = pg_writer(pg_of(t->store)))) {
        snprintf(ret_why, PG_WHY, "PostgreSQL: the connection was lost");
        e = PFE_UNAVAILABLE;
    }
    if (e == PFE_OK)
        e = begin(t, ret_why);
    if (e)
        store_postgres_target_close(t);
    else
        *ret = t;
    return e;
}

void store_postgres_target_close(struct postgres_target *t)
{
    if (!t)
        return;
    pg_abandon(t->c);
    store_close(t->store);
    sha256_free(t->sha);
    buf_free(&t->out);
    free(t);
}

/* ---- rows ---- */

enum pf_err store_postgres_target_begin(struct postgres_target *t, enum move_table_id table, char ret_why[PG_WHY])
{
    static const char header[COPY_HEADER] = "PGCOPY\n\377\r\n"; /* its NUL, no flags, no extension */
    t->table = &move_tables[table];
    t->digest = (struct move_digest){0};
    t->err = PFE_OK;
    t->misfit = false;
    buf_clear(&t->out);
    enum pf_err e = pg_copy_begin(t->c, copies_in[table]);
    if (e)
        return refused(t, e, ret_why);
    buf_put(&t->out, header, sizeof header);
    return PFE_OK;
}

static enum pf_err send_out(struct postgres_target *t)
{
    enum pf_err e = t->out.failed ? PFE_NOMEM : pg_copy_put(t->c, t->out.p, t->out.n);
    buf_clear(&t->out);
    return e;
}

enum pf_err store_postgres_target_row(void *target, const struct move_value *row)
{
    struct postgres_target *t = target;
    size_t at = t->out.n;
    if (!move_row_put(&t->out, t->table, row)) {
        t->misfit = true;
        return t->err = PFE_WRONG_STATE;
    }
    if (!t->out.failed)
        move_digest_add(&t->digest, t->sha, t->out.p + at, t->out.n - at);
    if (t->out.failed || t->out.n >= BLOCK)
        t->err = send_out(t);
    return t->err;
}

enum pf_err store_postgres_target_end(struct postgres_target *t, bool all, struct move_digest *ret,
                                      char ret_why[PG_WHY])
{
    if (all && t->err == PFE_OK) {
        buf_put(&t->out, "\377\377", 2);
        t->err = send_out(t);
    }
    bool good = all && t->err == PFE_OK;
    enum pf_err end = pg_copy_end(t->c, good);
    if (good && end == PFE_OK) {
        *ret = t->digest;
        return PFE_OK;
    }
    if (t->misfit)
        snprintf(ret_why, PG_WHY, "row %lld of %s has a number that is out of range", (long long)t->digest.rows + 1,
                 t->table->name);
    else if (t->err == PFE_NOMEM)
        snprintf(ret_why, PG_WHY, "out of memory");
    else if (t->err || good) /* else the words are those of who read the rows */
        snprintf(ret_why, PG_WHY, "PostgreSQL, table %s: %.200s", t->table->name, t->c->why);
    return t->err ? t->err : good ? end : PFE_OK;
}

enum pf_err store_postgres_target_finish(struct postgres_target *t, const struct move_ends *m, char ret_why[PG_WHY])
{
    struct pg_q head, ids, tickets;
    pg_q_begin(&head, t->c,
               "UPDATE ledger_head SET head_seq = $1, seal = $2, next_account = $3, accounts = $4, time_us = $5,"
               " lag_us = $6");
    pg_q_i64(&head, m->head_seq);
    pg_q_blob(&head, m->seal, sizeof m->seal);
    pg_q_i64(&head, m->next_account);
    pg_q_i64(&head, m->accounts);
    pg_q_i64(&head, m->time_us);
    pg_q_i64(&head, m->lag_us);
    pg_q_send(&head);
    pg_q_begin(&ids, t->c, "UPDATE record_ids SET users = $1, api_key = $2, schedule = $3, audit = $4, event = $5");
    pg_q_i64(&ids, m->user_id);
    pg_q_i64(&ids, m->api_key_id);
    pg_q_i64(&ids, m->schedule_id);
    pg_q_i64(&ids, m->audit_id);
    pg_q_i64(&ids, m->event_id);
    pg_q_send(&ids);
    pg_q_begin(&tickets, t->c, "UPDATE ticket_ids SET booking = $1, outbox = $2");
    pg_q_i64(&tickets, m->next_booking);
    pg_q_i64(&tickets, m->next_outbox);
    pg_q_send(&tickets);
    enum pf_err e = pg_sync(t->c);
    (void)!pg_q_end(&head);
    (void)!pg_q_end(&ids);
    (void)!pg_q_end(&tickets);
    return e ? refused(t, e, ret_why) : PFE_OK;
}

/* ---- what is there ---- */

/* The rows of a piece of the stream. false: it is not one. */
static bool take_rows(struct postgres_target *t, const uint8_t *p, size_t n, struct move_digest *d)
{
    while (n > 0) {
        size_t at = 2, fields;
        if (n < 2)
            return false;
        fields = (size_t)p[0] << 8 | p[1];
        if (fields == 0xffff) /* the end */
            return n == 2;
        for (; fields > 0; fields--) {
            if (n - at < 4)
                return false;
            size_t len = (size_t)p[at] << 24 | (size_t)p[at + 1] << 16 | (size_t)p[at + 2] << 8 | p[at + 3];
            at += 4;
            if (n - at < len)
                return false;
            at += len;
        }
        move_digest_add(d, t->sha, p, at);
        p += at;
        n -= at;
    }
    return true;
}

enum pf_err store_postgres_target_digest(struct postgres_target *t, enum move_table_id table, struct move_digest *ret,
                                         char ret_why[PG_WHY])
{
    struct move_digest d = {0};
    bool first = true, sound = true;
    enum pf_err e = pg_copy_begin(t->c, copies_out[table]);
    if (e)
        return refused(t, e, ret_why);
    char *p;
    size_t n;
    while (pg_copy_get(t->c, &p, &n)) {
        size_t skip = first ? COPY_HEADER : 0; /* the server sends whole rows, the header with the first of them */
        sound = sound && n >= skip && take_rows(t, (uint8_t *)p + skip, n - skip, &d);
        first = false;
        PQfreemem(p);
    }
    e = pg_copy_end(t->c, true);
    if (e)
        return refused(t, e, ret_why);
    if (!sound) {
        snprintf(ret_why, PG_WHY, "PostgreSQL sends table %s in a form that is not known", move_tables[table].name);
        return PFE_UNAVAILABLE;
    }
    *ret = d;
    return PFE_OK;
}

enum pf_err store_postgres_target_ends(struct postgres_target *t, struct move_ends *ret, char ret_why[PG_WHY])
{
    struct move_ends m = {0};
    struct pg_q q;
    pg_q_begin(&q, t->c,
               "SELECT h.head_seq, h.seal, h.next_account, h.accounts, h.time_us, h.lag_us, i.users, i.api_key,"
               " i.schedule, i.audit, i.event, k.booking, k.outbox FROM ledger_head h, record_ids i, ticket_ids k");
    if (pg_q_next(&q)) {
        m = (struct move_ends){.head_seq = pg_col_i64(&q, 0),
                               .next_account = pg_col_i64(&q, 2),
                               .accounts = pg_col_i64(&q, 3),
                               .time_us = pg_col_i64(&q, 4),
                               .lag_us = pg_col_i64(&q, 5),
                               .user_id = pg_col_i64(&q, 6),
                               .api_key_id = pg_col_i64(&q, 7),
                               .schedule_id = pg_col_i64(&q, 8),
                               .audit_id = pg_col_i64(&q, 9),
                               .event_id = pg_col_i64(&q, 10),
                               .next_booking = pg_col_i64(&q, 11),
                               .next_outbox = pg_col_i64(&q, 12)};
        pg_col_blob(&q, 1, m.seal, sizeof m.seal);
    }
    enum pf_err e = pg_q_end(&q);
    if (e)
        return refused(t, e, ret_why);
    *ret = m;
    return PFE_OK;
}

enum pf_err store_postgres_target_verify(struct postgres_target *t, struct store_verify *ret, struct store_trial *trial,
                                         unsigned cap, unsigned *ret_n, char ret_why[PG_WHY])
{
    enum pf_err e = pg_prove(t->c, true, ret);
    if (e == PFE_OK)
        e = pg_trial_on(pg_of(t->store), t->c, trial, cap, ret_n);
    return e ? refused(t, e, ret_why) : PFE_OK;
}

enum pf_err store_postgres_target_commit(struct postgres_target *t, char ret_why[PG_WHY])
{
    enum pf_err e = pg_commit(t->c);
    if (e == PFE_INTERNAL)
        snprintf(ret_why, PG_WHY,
                 "the connection was lost before PostgreSQL confirmed the copy: run it again; if it then says that the"
                 " database is not empty, all is there");
    else if (e)
        return refused(t, e, ret_why);
    return e;
}
