#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "store/postgres/internal.h"

enum { BACKOFF_FIRST_US = 50000, BACKOFF_MAX_US = 1000000, VERSION_LEAST = 150000 };

static void silent(void *ctx, const PGresult *res)
{
    (void)ctx, (void)res;
}

void pg_disconnect(struct pg_conn *c)
{
    PQfinish(c->pg); /* never waits: the socket does not block */
    free(c->scratch);
    c->pg = NULL;
    c->scratch = NULL;
    c->scratch_n = c->scratch_cap = 0;
    c->broken = false;
    c->n_pipe = 0;
    c->unsent = PFE_OK;
    memset(c->stmts, 0, sizeof c->stmts);
    c->n_stmts = 0;
}

/* "connection to server at … failed: FATAL:  28P01: password …" and more lines: takes out the SQLSTATE, which libpq
   gives no other way here, and leaves one line. */
static void connect_why(struct pg_conn *c, char state[6])
{
    const char *m = c->pg ? PQerrorMessage(c->pg) : "out of memory";
    size_t n = strcspn(m, "\n");
    state[0] = 0;
    for (size_t i = 0; i + 9 < n; i++) {
        const char *p = m + i;
        if (memcmp(p, ":  ", 3) != 0 || p[8] != ':' || strspn(p + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5)
            continue;
        memcpy(state, p + 3, 5);
        state[5] = 0;
        snprintf(c->why, sizeof c->why, "%.*s: %.*s", (int)(i < 140 ? i : 140), m, (int)(n - i - 10), p + 10);
        return;
    }
    snprintf(c->why, sizeof c->why, "%.*s", (int)(n < sizeof c->why ? n : sizeof c->why - 1), m);
}

/* The server is there and may take us later. */
static bool passes(const char *state)
{
    return strcmp(state, "57P03") == 0 || strncmp(state, "53", 2) == 0;
}

static bool handshake(struct pg_conn *c, unsigned connect_ms, char state[6])
{
    int64_t deadline = clock_mono(clock_system()) + (int64_t)connect_ms * 1000;
    PostgresPollingStatusType want = PGRES_POLLING_WRITING;
    state[0] = 0;
    while (PQstatus(c->pg) != CONNECTION_BAD && want != PGRES_POLLING_FAILED && want != PGRES_POLLING_OK) {
        int64_t left = (deadline - clock_mono(clock_system()) + 999) / 1000;
        struct pollfd p = {.fd = PQsocket(c->pg), .events = (short)(want == PGRES_POLLING_READING ? POLLIN : POLLOUT)};
        int n = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (n == 0) {
            const char *port = PQport(c->pg);
            snprintf(c->why, sizeof c->why, "no answer from PostgreSQL at %.100s, port %.10s within %u ms",
                     PQhost(c->pg), port ? port : "", connect_ms);
            return false;
        }
        if (n > 0)
            want = PQconnectPoll(c->pg);
    }
    if (PQstatus(c->pg) == CONNECTION_OK && want == PGRES_POLLING_OK)
        return true;
    connect_why(c, state);
    return false;
}

/* What this program needs of a server and a database. */
static enum pf_err fitness(struct pg_conn *c)
{
    struct pg_q q;
    /* An answer of 2xx is durable, whatever is usual on that server; stronger settings stay. */
    pg_q_begin(&q, c,
               "SELECT current_setting('server_version_num')::int8, current_setting('server_encoding'),"
               " current_schema() IS NULL, CASE WHEN current_setting('synchronous_commit') = 'off' THEN"
               " set_config('synchronous_commit', 'on', false) END");
    bool row = pg_q_next(&q);
    int64_t version = row ? pg_col_i64(&q, 0) : 0;
    bool encoding = row && (str_is(pg_col_str(&q, 1), "UTF8") || str_is(pg_col_str(&q, 1), "SQL_ASCII"));
    bool homeless = row && pg_col_bool(&q, 2);
    enum pf_err e = pg_q_end(&q);
    if (e)
        return PFE_UNAVAILABLE;
    if (version < VERSION_LEAST)
        snprintf(c->why, sizeof c->why, "the server is PostgreSQL %lld; 15 is the oldest that will do",
                 (long long)version / 10000);
    else if (!encoding)
        snprintf(c->why, sizeof c->why, "the database's encoding must be UTF8");
    else if (homeless)
        snprintf(c->why, sizeof c->why, "the search_path names no schema that exists");
    else
        return PFE_OK;
    return PFE_WRONG_STATE;
}

enum pf_err pg_connect_to(struct pg_conn *c, const char *host, const char *port, bool any, unsigned connect_ms)
{
    struct postgres_store *s = c->store;
    const char *keys[66], *values[66];
    char state[6];
    size_t n = 0;
    for (; s->keys[n] && n < 60; n++) {
        keys[n] = s->keys[n];
        values[n] = s->values[n];
    }
    if (host) {
        keys[n] = "host";
        values[n++] = host;
        keys[n] = "port";
        values[n++] = port;
    }
    if (any) {
        keys[n] = "target_session_attrs";
        values[n++] = "any";
    }
    keys[n] = values[n] = NULL;
    c->pg = PQconnectStartParams(keys, values, 0);
    if (!c->pg) {
        snprintf(c->why, sizeof c->why, "out of memory");
        return PFE_NOMEM;
    }
    PQsetErrorVerbosity(c->pg, PQERRORS_VERBOSE); /* for the SQLSTATE */
    PQsetNoticeReceiver(c->pg, silent, NULL);
    c->timeout_ms = s->timeout_ms;
    if (!handshake(c, connect_ms, state)) {
        pg_disconnect(c);
        return passes(state) ? PFE_UNAVAILABLE : PFE_WRONG_STATE;
    }
    PQsetErrorVerbosity(c->pg, PQERRORS_DEFAULT);
    enum pf_err e = PQsetnonblocking(c->pg, 1) == 0 && PQenterPipelineMode(c->pg) ? fitness(c) : PFE_UNAVAILABLE;
    if (e)
        pg_disconnect(c);
    else
        c->born_us = c->idle_us = clock_mono(clock_system());
    return e;
}

enum pf_err pg_connect(struct pg_conn *c, enum pf_err *ret_why_err)
{
    struct postgres_store *s = c->store;
    enum pf_err e = PFE_UNAVAILABLE;
    pthread_mutex_lock(&s->lock);
    unsigned first = s->host, hosts = s->n_hosts ? s->n_hosts : 1, host = first;
    bool wait = clock_mono(clock_system()) < s->retry_us;
    pthread_mutex_unlock(&s->lock);
    if (wait) {
        snprintf(c->why, sizeof c->why, "PostgreSQL was not to be reached a moment ago");
        return PFE_UNAVAILABLE;
    }
    pg_disconnect(c);
    for (unsigned i = 0; i < hosts && e != PFE_OK; i++) {
        host = (first + i) % hosts;
        e = pg_connect_to(c, s->hosts[host], s->ports[host], false, c->connect_ms ? c->connect_ms : s->connect_ms);
    }
    pg_primary_report(s, e == PFE_OK);
    pthread_mutex_lock(&s->lock);
    s->stats.reachable = e == PFE_OK;
    if (e == PFE_OK) {
        s->host = host;
        s->retry_us = s->backoff_us = 0;
        s->stats.connects++;
    } else {
        s->backoff_us = s->backoff_us ? s->backoff_us * 2 : BACKOFF_FIRST_US;
        if (s->backoff_us > BACKOFF_MAX_US)
            s->backoff_us = BACKOFF_MAX_US;
        s->retry_us = clock_mono(clock_system()) + s->backoff_us;
        s->stats.failures++;
    }
    pthread_mutex_unlock(&s->lock);
    if (e && ret_why_err)
        *ret_why_err = e;
    return e ? PFE_UNAVAILABLE : PFE_OK;
}

bool pg_alive(struct pg_conn *c)
{
    if (!c->pg || c->broken || PQstatus(c->pg) != CONNECTION_OK)
        return false;
    /* Between queries the server only says that a setting changed, or goodbye. */
    struct pollfd p = {.fd = PQsocket(c->pg), .events = POLLIN};
    if (poll(&p, 1, 0) <= 0)
        return true;
    return PQconsumeInput(c->pg) && !PQisBusy(c->pg) && PQtransactionStatus(c->pg) == PQTRANS_IDLE &&
           poll(&p, 1, 0) <= 0;
}

struct pg_conn *pg_writer(struct postgres_store *s)
{
    struct pg_conn *c = &s->w;
    if (s->mode == POSTGRES_INSPECT)
        return NULL;
    bool old = s->max_lifetime_us && clock_mono(clock_system()) - c->born_us > s->max_lifetime_us;
    if (!old && pg_alive(c))
        return c;
    return pg_connect(c, NULL) == PFE_OK ? c : NULL;
}
