#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "store/postgres/internal.h"

enum { LATE_READS = 8 };
enum { OID_BOOL = 16, OID_BYTEA = 17, OID_INT8 = 20, OID_TEXT = 25 };
enum { OID_BYTEAS = 1001, OID_TEXTS = 1009, OID_INT8S = 1016 }; /* arrays of them (pg_type.dat) */

/* ---- errors ---- */

static bool state_is(const char *state, const char *const *any)
{
    for (; *any; any++)
        if (strncmp(state, *any, strlen(*any)) == 0)
            return true;
    return false;
}

enum pf_err pg_err(const char *state)
{
    static const char *const again[] = {"40001", "40P01", "55P03", NULL};
    if (!state)
        return PFE_UNAVAILABLE;
    if (strncmp(state, "23", 2) == 0)
        return PFE_WRONG_STATE;
    if (state_is(state, again))
        return PFE_BUSY;
    if (strcmp(state, "53100") == 0)
        return PFE_DISK_FULL;
    if (strcmp(state, "53200") == 0)
        return PFE_NOMEM;
    return PFE_UNAVAILABLE;
}

bool pg_state_breaks(const char *state)
{
    static const char *const breaks[] = {"57P01", "57P02", "57P03", "57P04", "57P05", "25P03",
                                         "25006", "08",    "26000", "0A000", NULL};
    return !*state || state_is(state, breaks);
}

const char *pg_q_constraint(const struct pg_q *q)
{
    const char *z = q->res ? PQresultErrorField(q->res, PG_DIAG_CONSTRAINT_NAME) : NULL;
    return z ? z : "";
}

/* The first line of a message. */
static void note_why(struct pg_conn *c, const char *message)
{
    size_t n = strcspn(message, "\n");
    snprintf(c->why, sizeof c->why, "%.*s", (int)(n < sizeof c->why ? n : sizeof c->why - 1), message);
}

/* ---- binding ---- */

static void fail(struct pg_q *q, enum pf_err e)
{
    if (q->err == PFE_OK)
        q->err = e;
}

void pg_q_begin(struct pg_q *q, struct pg_conn *c, const char *sql)
{
    q->c = c;
    q->sql = sql;
    q->res = NULL;
    q->err = c && c->pg && !c->broken ? PFE_OK : PFE_UNAVAILABLE;
    q->state[0] = 0;
    q->row = -1;
    q->rows = q->n = 0;
    q->pooled = q->sent = q->done = q->prepares = false;
    q->route = (struct pg_route){0};
    if (c)
        c->scratch_n = 0;
}

void pg_read_begin(struct pg_q *q, struct postgres_store *s, enum pg_from from, const char *sql)
{
    struct pg_route route = {0};
    struct pg_conn *c = from == PG_FROM_ANY ? pg_route_take(s, &route) : pg_take(s, PG_READ);
    pg_q_begin(q, c, sql);
    q->route = route;
    q->pooled = q->c != NULL;
}

static bool param(struct pg_q *q, Oid type, const void *p, size_t n)
{
    if (q->err)
        return false;
    if (q->n == PG_PARAMS_MAX || n > INT32_MAX) {
        fail(q, PFE_INTERNAL);
        return false;
    }
    q->params[q->n].type = type;
    q->params[q->n].in_scratch = false;
    q->params[q->n].p = p ? p : "";
    q->params[q->n].len = (int)n;
    q->n++;
    return true;
}

void pg_q_i64(struct pg_q *q, int64_t v)
{
    if (!param(q, OID_INT8, NULL, sizeof v))
        return;
    q->params[q->n - 1].be = (int64_t)htobe64((uint64_t)v);
    q->params[q->n - 1].p = NULL; /* the value itself: a query may be copied until it is sent */
}

void pg_q_bool(struct pg_q *q, bool v)
{
    param(q, OID_BOOL, v ? "\1" : "\0", 1);
}

void pg_q_str(struct pg_q *q, struct str v)
{
    param(q, OID_TEXT, v.p, v.n);
}

void pg_q_blob(struct pg_q *q, const void *p, size_t n)
{
    param(q, OID_BYTEA, p, n);
}

/* ---- arrays: ndim, has nulls, element type, {elements, lower bound}, {length, bytes} … (array_recv) ---- */

static bool scratch(struct pg_q *q, const void *p, size_t n)
{
    struct pg_conn *c = q->c;
    if (q->err)
        return false;
    if (c->scratch_n + n > c->scratch_cap) {
        size_t cap = c->scratch_cap ? c->scratch_cap : 4096;
        while (cap < c->scratch_n + n)
            cap *= 2;
        char *more = realloc(c->scratch, cap);
        if (!more) {
            fail(q, PFE_NOMEM);
            return false;
        }
        c->scratch = more;
        c->scratch_cap = cap;
    }
    if (n)
        memcpy(c->scratch + c->scratch_n, p, n);
    c->scratch_n += n;
    q->params[q->n - 1].len += (int)n;
    return true;
}

static void put_u32(struct pg_q *q, uint32_t v)
{
    uint32_t be = htobe32(v);
    scratch(q, &be, sizeof be);
}

static void array_begin(struct pg_q *q, Oid array, Oid element, size_t n)
{
    if (!param(q, array, NULL, 0))
        return;
    if (n > INT32_MAX / 32) {
        fail(q, PFE_INTERNAL);
        return;
    }
    q->params[q->n - 1].in_scratch = true;
    q->params[q->n - 1].at = q->c->scratch_n;
    put_u32(q, n ? 1 : 0);
    put_u32(q, 0);
    put_u32(q, element);
    if (n) {
        put_u32(q, (uint32_t)n);
        put_u32(q, 1);
    }
}

static void array_put(struct pg_q *q, const void *p, size_t n)
{
    /* the server takes 1 GiB in a message; so much is a defect of the caller's */
    if (q->err == PFE_OK && (size_t)q->params[q->n - 1].len + n > (1u << 29))
        fail(q, PFE_NOMEM);
    put_u32(q, (uint32_t)n);
    scratch(q, p, n);
}

void pg_q_i64s_begin(struct pg_q *q, size_t n)
{
    array_begin(q, OID_INT8S, OID_INT8, n);
}

void pg_q_i64s_put(struct pg_q *q, int64_t v)
{
    uint64_t be = htobe64((uint64_t)v);
    array_put(q, &be, sizeof be);
}

void pg_q_i64s(struct pg_q *q, const void *p, size_t stride, size_t n)
{
    pg_q_i64s_begin(q, n);
    for (size_t i = 0; i < n; i++) {
        int64_t v;
        memcpy(&v, (const char *)p + i * stride, sizeof v);
        pg_q_i64s_put(q, v);
    }
}

static void strs(struct pg_q *q, Oid array, Oid element, const void *p, size_t stride, size_t n)
{
    array_begin(q, array, element, n);
    for (size_t i = 0; i < n; i++) {
        struct str v;
        memcpy(&v, (const char *)p + i * stride, sizeof v);
        array_put(q, v.p, v.n);
    }
}

void pg_q_strs(struct pg_q *q, const void *p, size_t stride, size_t n)
{
    strs(q, OID_TEXTS, OID_TEXT, p, stride, n);
}

void pg_q_blobs(struct pg_q *q, const void *p, size_t stride, size_t n)
{
    strs(q, OID_BYTEAS, OID_BYTEA, p, stride, n);
}

void pg_q_blobs_fixed(struct pg_q *q, const void *p, size_t stride, size_t len, size_t n)
{
    array_begin(q, OID_BYTEAS, OID_BYTEA, n);
    for (size_t i = 0; i < n; i++)
        array_put(q, (const char *)p + i * stride, len);
}

/* ---- sending ---- */

/* Index of the statement in the connection's table; -1: no room. */
static int statement(struct pg_conn *c, const char *sql)
{
    size_t i = (size_t)(((uintptr_t)sql * UINT64_C(0x9e3779b97f4a7c15)) >> 40) & (PG_STMTS_MAX - 1);
    while (c->stmts[i].sql && c->stmts[i].sql != sql)
        i = (i + 1) & (PG_STMTS_MAX - 1);
    if (!c->stmts[i].sql) {
        if (c->n_stmts == PG_STMTS_MAX - 1)
            return -1;
        c->stmts[i].sql = sql;
        c->stmts[i].n = c->n_stmts++;
        c->stmts[i].ready = false;
    }
    return (int)i;
}

static bool submit(struct pg_q *q)
{
    struct pg_conn *c = q->c;
    const char *values[PG_PARAMS_MAX];
    Oid types[PG_PARAMS_MAX];
    int lengths[PG_PARAMS_MAX], formats[PG_PARAMS_MAX];
    char name[16];
    int i = statement(c, q->sql);
    if (i < 0)
        return false;
    for (int k = 0; k < q->n; k++) {
        types[k] = q->params[k].type;
        values[k] = q->params[k].in_scratch ? c->scratch + q->params[k].at
                    : q->params[k].p        ? q->params[k].p
                                            : (const char *)&q->params[k].be;
        lengths[k] = q->params[k].len;
        formats[k] = 1;
    }
    snprintf(name, sizeof name, "s%u", c->stmts[i].n);
    if (!c->stmts[i].ready) {
        /* the same text may be in this round trip already: it is prepared once */
        bool underway = false;
        for (unsigned k = 0; k < c->n_pipe; k++)
            underway |= c->pipe[k]->sql == q->sql;
        q->prepares = !underway;
        if (q->prepares && !PQsendPrepare(c->pg, name, q->sql, q->n, types))
            return false;
    }
    return PQsendQueryPrepared(c->pg, name, q->n, values, lengths, formats, 1);
}

void pg_q_send(struct pg_q *q)
{
    struct pg_conn *c = q->c;
    if (q->sent || q->done)
        return;
    if (q->err == PFE_OK && (c->broken || c->unsent))
        q->err = c->unsent ? c->unsent : PFE_UNAVAILABLE;
    if (q->err == PFE_OK && c->n_pipe == PG_PIPE_MAX)
        q->err = PFE_INTERNAL;
    if (q->err == PFE_OK && !submit(q)) {
        note_why(c, PQerrorMessage(c->pg));
        q->err = PQstatus(c->pg) == CONNECTION_OK ? PFE_NOMEM : PFE_UNAVAILABLE;
        c->broken = true; /* half of it may be on its way */
    }
    if (q->err == PFE_OK) {
        c->pipe[c->n_pipe++] = q;
        q->sent = true;
        return;
    }
    q->done = true;
    if (c && !c->unsent)
        c->unsent = q->err;
}

/* ---- receiving ---- */

/* Meanwhile somebody else has found out that there will be no answer. */
static bool in_vain(const struct pg_conn *c)
{
    if (c->replica || c->probe)
        return false;
    return pg_primary_down(c->store) || (c->yields && pg_stalled(c->store));
}

/* Of what has arrived by the deadline some is read after it: it was this program that slept. */
static bool io(struct pg_conn *c, int64_t deadline, unsigned *more_reads)
{
    int more = PQflush(c->pg);
    int64_t left = (deadline - clock_mono(clock_system()) + 999) / 1000;
    struct pollfd p = {.fd = PQsocket(c->pg), .events = (short)(POLLIN | (more > 0 ? POLLOUT : 0))};
    if (more < 0)
        return false;
    int wait = left <= 0 ? 0 : left > PG_SLICE_MS ? PG_SLICE_MS : (int)left, n = p.fd < 0 ? -1 : poll(&p, 1, wait);
    if (p.fd < 0 || (left <= 0 && (n == 0 || (*more_reads)-- == 0))) {
        snprintf(c->why, sizeof c->why, "no answer from PostgreSQL within %u ms", c->timeout_ms);
        c->broken = c->late = true;
        return false;
    }
    if (n == 0 && in_vain(c)) {
        snprintf(c->why, sizeof c->why, "PostgreSQL does not answer");
        c->broken = c->late = c->given_up = true;
        return false;
    }
    if (n < 0 && errno != EINTR) {
        c->broken = true;
        return false;
    }
    if (n > 0 && p.revents & (POLLIN | POLLHUP | POLLERR) && !PQconsumeInput(c->pg))
        return PQstatus(c->pg) == CONNECTION_OK;
    return true;
}

/* The next result; NULL also when the connection is done for (c->broken). */
static PGresult *receive(struct pg_conn *c, int64_t deadline)
{
    unsigned more_reads = LATE_READS;
    while (!c->broken && PQisBusy(c->pg))
        if (!io(c, deadline, &more_reads))
            break; /* PQgetResult says what there is to say, without waiting */
    if (c->broken || (PQisBusy(c->pg) && PQstatus(c->pg) == CONNECTION_OK)) {
        c->broken = true;
        return NULL;
    }
    return PQgetResult(c->pg);
}

static void failed(struct pg_q *q, PGresult *res)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    snprintf(q->state, sizeof q->state, "%s", state ? state : "");
    q->err = pg_err(q->state);
    note_why(q->c, PQresultErrorMessage(res));
    if (pg_state_breaks(q->state))
        q->c->broken = true;
}

/* All results of one message up to the NULL that ends them; keeps the last. */
static void collect(struct pg_q *q, int64_t deadline)
{
    struct pg_conn *c = q->c;
    PGresult *r;
    while (!c->broken && (r = receive(c, deadline)) != NULL) {
        ExecStatusType st = PQresultStatus(r);
        PQclear(q->res);
        q->res = r;
        if (st == PGRES_TUPLES_OK)
            q->rows = PQntuples(r);
        else if (st == PGRES_PIPELINE_ABORTED)
            fail(q, PFE_UNAVAILABLE);
        else if (st != PGRES_COMMAND_OK && q->err == PFE_OK)
            failed(q, r);
    }
}

static void settle(struct pg_q *q, int64_t deadline)
{
    struct pg_conn *c = q->c;
    if (q->prepares) {
        collect(q, deadline);
        if (q->err == PFE_OK && !c->broken) {
            int i = statement(c, q->sql);
            c->stmts[i].ready = true;
        }
        if (q->err) { /* keep its error; what follows says only that the round trip was aborted */
            struct pg_q rest = {.c = c};
            collect(&rest, deadline);
            PQclear(rest.res);
            return;
        }
    }
    collect(q, deadline);
    if (!q->res)
        c->broken = true;
}

enum pf_err pg_sync(struct pg_conn *c)
{
    enum pf_err first = c->unsent;
    const char *state = "";
    int64_t deadline = clock_mono(clock_system()) + (int64_t)c->timeout_ms * 1000;
    c->alone = false;
    if (c->unsent) {
        /* What went before may not take effect without the rest: the server undoes what no Sync follows. */
        c->broken |= c->n_pipe > 0;
        c->unsent = PFE_OK;
    } else if (c->n_pipe && !c->broken && !PQpipelineSync(c->pg)) {
        note_why(c, PQerrorMessage(c->pg));
        c->broken = true;
    }
    for (unsigned i = 0; i < c->n_pipe; i++) {
        struct pg_q *q = c->pipe[i];
        bool lost = c->broken;
        if (!lost)
            settle(q, deadline);
        if (q->err == PFE_OK && (c->broken || first)) {
            /* no answer to it, or not run */
            q->err = first ? first : PFE_UNAVAILABLE;
            snprintf(q->state, sizeof q->state, "%s", c->broken ? "" : state);
        } else if (q->err && first && !lost) {
            q->err = first;
            snprintf(q->state, sizeof q->state, "%s", state);
        }
        if (q->err && !first) {
            first = q->err;
            state = q->state;
        }
        q->done = true;
    }
    PGresult *r = c->n_pipe && !c->broken ? receive(c, deadline) : NULL;
    if (c->n_pipe && PQresultStatus(r) != PGRES_PIPELINE_SYNC)
        c->broken = true;
    PQclear(r);
    /* a commit that is late may wait for a replica; if it is the primary that is gone, others find out */
    bool excused = c->given_up || (c->late && c->n_pipe && c->pipe[c->n_pipe - 1]->sql == pg_commit_sql);
    if (c->n_pipe && !c->replica && !excused)
        pg_primary_report(c->store, !c->broken);
    c->n_pipe = 0;
    return first;
}

/* ---- results ---- */

static void release(struct pg_q *q)
{
    if (q->pooled)
        pg_route_give(q);
    if (q->pooled)
        q->c = NULL;
    q->pooled = false;
}

static void run(struct pg_q *q)
{
    if (q->done)
        return;
    if (q->pooled && !q->sent && q->c && q->err == PFE_OK) {
        pg_route_run(q);
        q->done = true;
        release(q);
        return;
    }
    pg_q_send(q);
    if (q->c && pg_sync(q->c) != PFE_OK && q->err == PFE_OK)
        q->err = PFE_UNAVAILABLE; /* something else of the round trip */
    q->done = true;
    release(q);
}

bool pg_q_next(struct pg_q *q)
{
    run(q);
    if (q->err || q->row + 1 >= q->rows)
        return false;
    q->row++;
    return true;
}

enum pf_err pg_q_end(struct pg_q *q)
{
    release(q);
    PQclear(q->res);
    q->res = NULL;
    q->done = true;
    q->rows = 0;
    return q->err;
}

enum pf_err pg_q_run(struct pg_q *q)
{
    run(q);
    return pg_q_end(q);
}

enum pf_err pg_q_hits(struct pg_q *q, int64_t *ret)
{
    run(q);
    if (q->err == PFE_OK)
        *ret = strtoll(PQcmdTuples(q->res), NULL, 10);
    return pg_q_end(q);
}

int64_t pg_col_i64(const struct pg_q *q, int i)
{
    const char *p = PQgetvalue(q->res, q->row, i);
    uint64_t v8;
    uint32_t v4;
    uint16_t v2;
    switch (PQgetlength(q->res, q->row, i)) {
    case 8:
        memcpy(&v8, p, sizeof v8);
        return (int64_t)be64toh(v8);
    case 4:
        memcpy(&v4, p, sizeof v4);
        return (int32_t)be32toh(v4);
    case 2:
        memcpy(&v2, p, sizeof v2);
        return (int16_t)be16toh(v2);
    default:
        return 0;
    }
}

bool pg_col_bool(const struct pg_q *q, int i)
{
    return PQgetlength(q->res, q->row, i) == 1 && *PQgetvalue(q->res, q->row, i) != 0;
}

bool pg_col_null(const struct pg_q *q, int i)
{
    return PQgetisnull(q->res, q->row, i);
}

struct str pg_col_str(const struct pg_q *q, int i)
{
    return (struct str){PQgetvalue(q->res, q->row, i), (size_t)PQgetlength(q->res, q->row, i)};
}

bool pg_col_dup(struct pg_q *q, int i, struct arena *a, struct str *ret)
{
    struct str s = arena_strdup(a, pg_col_str(q, i));
    if (!s.p) {
        fail(q, PFE_NOMEM);
        return false;
    }
    *ret = s;
    return true;
}

void pg_col_blob(const struct pg_q *q, int i, void *out, size_t n)
{
    if ((size_t)PQgetlength(q->res, q->row, i) == n)
        memcpy(out, PQgetvalue(q->res, q->row, i), n);
    else
        memset(out, 0, n);
}

/* ---- transactions ---- */

const char pg_begin[] = "BEGIN", pg_begin_snapshot[] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
           pg_commit_sql[] = "COMMIT", pg_rollback[] = "ROLLBACK";

enum pf_err pg_exec(struct pg_conn *c, const char *sql)
{
    struct pg_q q;
    pg_q_begin(&q, c, sql);
    return pg_q_run(&q);
}

enum pf_err pg_committed(struct pg_q *q)
{
    run(q);
    enum pf_err e = q->err;
    if (e == PFE_OK && strcmp(PQcmdStatus(q->res), "COMMIT") != 0)
        e = PFE_UNAVAILABLE;
    else if (e && q->sent && pg_state_breaks(q->state))
        e = PFE_INTERNAL;
    if (e == PFE_OK && q->c->alone)
        e = PFE_INTERNAL;
    (void)!pg_q_end(q);
    return e;
}

enum pf_err pg_commit(struct pg_conn *c)
{
    struct pg_q q;
    pg_q_begin(&q, c, pg_commit_sql);
    return pg_committed(&q);
}

enum pf_err pg_commit_by(struct pg_conn *c, int64_t deadline_us)
{
    int64_t left = (deadline_us - clock_mono(clock_system())) / 1000;
    unsigned usual = c->timeout_ms;
    c->timeout_ms = left < 1 ? 1 : left < usual ? (unsigned)left : usual;
    enum pf_err e = pg_commit(c);
    c->timeout_ms = usual;
    return e;
}

void pg_abandon(struct pg_conn *c)
{
    if (!c || !c->pg || c->broken)
        return;
    if (PQtransactionStatus(c->pg) != PQTRANS_IDLE && pg_exec(c, pg_rollback) != PFE_OK)
        c->broken = true;
}

enum pf_err pg_script(struct pg_conn *c, const char *text)
{
    struct pg_q q = {.c = c};
    int64_t deadline = clock_mono(clock_system()) + (int64_t)c->timeout_ms * 1000;
    if (!c->pg || c->broken)
        return PFE_UNAVAILABLE;
    if (PQexitPipelineMode(c->pg) && PQsendQuery(c->pg, text))
        collect(&q, deadline);
    else
        c->broken = true;
    PQclear(q.res);
    if (!c->broken && !PQenterPipelineMode(c->pg))
        c->broken = true;
    return q.err ? q.err : c->broken ? PFE_UNAVAILABLE : PFE_OK;
}

/* ---- COPY ---- */

/* Whatever the server has still to say, and back to where round trips are possible. */
static enum pf_err copy_leave(struct pg_conn *c)
{
    struct pg_q q = {.c = c};
    collect(&q, clock_mono(clock_system()) + (int64_t)c->timeout_ms * 1000);
    PQclear(q.res);
    if (!c->broken && !PQenterPipelineMode(c->pg))
        c->broken = true;
    return q.err ? q.err : c->broken ? PFE_UNAVAILABLE : PFE_OK;
}

enum pf_err pg_copy_begin(struct pg_conn *c, const char *sql)
{
    if (!c->pg || c->broken)
        return PFE_UNAVAILABLE;
    if (!PQexitPipelineMode(c->pg) || !PQsendQuery(c->pg, sql)) {
        note_why(c, PQerrorMessage(c->pg));
        c->broken = true;
        return PFE_UNAVAILABLE;
    }
    PGresult *r = receive(c, clock_mono(clock_system()) + (int64_t)c->timeout_ms * 1000);
    ExecStatusType st = PQresultStatus(r);
    struct pg_q q = {.c = c};
    if (r && st != PGRES_COPY_IN && st != PGRES_COPY_OUT)
        failed(&q, r);
    PQclear(r);
    if (r && q.err == PFE_OK)
        return PFE_OK;
    enum pf_err e = copy_leave(c);
    return q.err ? q.err : e ? e : PFE_UNAVAILABLE;
}

enum pf_err pg_copy_put(struct pg_conn *c, const void *p, size_t n)
{
    int64_t deadline = clock_mono(clock_system()) + (int64_t)c->timeout_ms * 1000;
    unsigned more_reads = LATE_READS;
    int more = 1;
    if (c->broken || PQputCopyData(c->pg, p, (int)n) != 1)
        return PFE_UNAVAILABLE;
    /* Each block goes out before the next is taken: libpq would keep any number of them. */
    while ((more = PQflush(c->pg)) > 0 && PQstatus(c->pg) == CONNECTION_OK)
        if (!io(c, deadline, &more_reads))
            break;
    if (more == 0 && PQconsumeInput(c->pg))
        return PFE_OK;
    if (!c->broken)
        note_why(c, PQerrorMessage(c->pg));
    c->broken = true;
    return PFE_UNAVAILABLE;
}

bool pg_copy_get(struct pg_conn *c, char **ret, size_t *ret_n)
{
    int64_t deadline = clock_mono(clock_system()) + (int64_t)c->timeout_ms * 1000;
    unsigned more_reads = LATE_READS;
    int n = 0;
    while (!c->broken && (n = PQgetCopyData(c->pg, ret, 1)) == 0)
        if (!io(c, deadline, &more_reads))
            c->broken = true;
    *ret_n = n > 0 ? (size_t)n : 0;
    return n > 0;
}

enum pf_err pg_copy_end(struct pg_conn *c, bool good)
{
    int64_t deadline = clock_mono(clock_system()) + (int64_t)c->timeout_ms * 1000;
    unsigned more_reads = LATE_READS;
    if (c->broken)
        return PFE_UNAVAILABLE;
    /* After COPY TO there is nothing to end, which it says by failing. */
    if (PQputCopyEnd(c->pg, good ? NULL : "given up") == 1)
        while (PQflush(c->pg) > 0 && io(c, deadline, &more_reads))
            ;
    return copy_leave(c);
}
