#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/resolve.h"
#include "store/postgres/internal.h"

enum {
    BACKOFF_FIRST_US = 50000,
    BACKOFF_MAX_US = 1000000,
    VERSION_LEAST = 150000,
    WITNESS_MS = 500,          /* to connect to one that may know of a newer primary, at most */
    SILENCE_OVER_US = 10000000 /* what was not said so long ago does not count any more */
};

/* Of all that a server remarks this alone matters: after pg_cancel_backend COMMIT is answered although no replica has
   it. That warning has no code of its own; our sessions see no other of this class with a COMMIT. */
static void remarked(void *ctx, const PGresult *res)
{
    struct pg_conn *c = ctx;
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    c->alone |= severity && state && strcmp(severity, "WARNING") == 0 && strcmp(state, "01000") == 0;
}

void pg_disconnect(struct pg_conn *c)
{
    PQfinish(c->pg); /* never waits: the socket does not block */
    free(c->scratch);
    c->pg = NULL;
    c->scratch = NULL;
    c->scratch_n = c->scratch_cap = 0;
    c->broken = c->late = c->given_up = c->yields = c->alone = false;
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
    for (const char *next; (next = strstr(m + 1, "connection to server")) != NULL;)
        m = next; /* of several addresses, the last */
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

static bool failed_with(const struct pg_conn *c, const int *codes, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any |= strstr(c->why, strerrordesc_np(codes[i])) != NULL;
    return any;
}

/* Neither an answer nor a refusal: it may be busy, or out of reach. */
static bool was_silent(const struct pg_conn *c)
{
    static const int codes[] = {ETIMEDOUT, EHOSTUNREACH, ENETUNREACH};
    return strstr(c->why, "no answer") || failed_with(c, codes, sizeof codes / sizeof *codes);
}

/* Of a failure in the making of a connection: can it be over in a moment? What the server itself refuses is not. */
static bool may_pass(const struct pg_conn *c, const char *state)
{
    static const int codes[] = {ECONNREFUSED, ECONNRESET, EHOSTDOWN, ENOENT};
    static const char *const words[] = {"closed the connection", "session is read-only", "hot standby"};
    bool any = passes(state) || was_silent(c) || failed_with(c, codes, sizeof codes / sizeof *codes);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        any |= strstr(c->why, words[i]) != NULL;
    return any;
}

static bool handshake(struct pg_conn *c, unsigned connect_ms, char state[6])
{
    int64_t deadline = clock_mono(clock_system()) + (int64_t)connect_ms * 1000;
    PostgresPollingStatusType want = PGRES_POLLING_WRITING;
    state[0] = 0;
    while (PQstatus(c->pg) != CONNECTION_BAD && want != PGRES_POLLING_FAILED && want != PGRES_POLLING_OK) {
        int64_t left = (deadline - clock_mono(clock_system()) + 999) / 1000;
        struct pollfd p = {.fd = PQsocket(c->pg), .events = (short)(want == PGRES_POLLING_READING ? POLLIN : POLLOUT)};
        int n = left > 0 ? poll(&p, 1, left > PG_SLICE_MS ? PG_SLICE_MS : (int)left) : 0;
        bool in_vain = !c->replica && !c->probe && pg_primary_down(c->store);
        if (n == 0 && left > PG_SLICE_MS && !in_vain)
            continue;
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
    pg_q_begin(
        &q, c,
        "SELECT current_setting('server_version_num')::int8, current_setting('server_encoding'),"
        " current_schema() IS NULL, CASE WHEN current_setting('synchronous_commit') = 'off' THEN"
        " set_config('synchronous_commit', 'on', false) END, (SELECT system_identifier FROM pg_control_system()),"
        " CASE WHEN pg_is_in_recovery() THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),"
        " (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::int8"
        " ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int8 END,"
        " (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8");
    bool row = pg_q_next(&q);
    int64_t version = row ? pg_col_i64(&q, 0) : 0;
    bool encoding = row && (str_is(pg_col_str(&q, 1), "UTF8") || str_is(pg_col_str(&q, 1), "SQL_ASCII"));
    bool homeless = row && pg_col_bool(&q, 2);
    c->system = row ? pg_col_i64(&q, 4) : 0;
    c->timeline = row ? pg_col_i64(&q, 5) : 0;
    c->started = row ? pg_col_i64(&q, 6) : 0;
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

/* libpq would look the name up by itself, and wait for that without end. Its lists then name the host once for each
   address; NULL: nothing to look up. */
struct addresses {
    char hosts[RESOLVE_ADDRESSES * 256], numbers[RESOLVE_ADDRESSES * RESOLVE_ADDRESS_MAX];
};

static enum pf_err look_up(struct pg_conn *c, const char *host, unsigned connect_ms, struct addresses *ret)
{
    struct resolved r;
    char why[RESOLVE_WHY_MAX];
    size_t h = 0, a = 0;
    enum pf_err e = resolver_ask(c->store->names, host, connect_ms, &r, why);
    if (e) {
        snprintf(c->why, sizeof c->why, "could not translate host name \"%.100s\" to address: %.90s", host, why);
        return e;
    }
    for (unsigned i = 0; i < r.n; i++) {
        h += (size_t)snprintf(ret->hosts + h, sizeof ret->hosts - h, "%s%s", i ? "," : "", host);
        a += (size_t)snprintf(ret->numbers + a, sizeof ret->numbers - a, "%s%s", i ? "," : "", r.address[i]);
    }
    return PFE_OK;
}

enum pf_err pg_connect_to(struct pg_conn *c, const char *host, const char *port, bool any, unsigned connect_ms)
{
    struct postgres_store *s = c->store;
    const char *keys[66], *values[66];
    struct addresses found;
    char state[6];
    size_t n = 0;
    int64_t t0 = clock_mono(clock_system());
    c->passes = c->crowded = false;
    if (host && *host != '/' && *host != '@' && strlen(host) < 255) {
        enum pf_err e = look_up(c, host, connect_ms, &found);
        c->passes = e != PFE_OK;
        if (e)
            return e == PFE_NOMEM ? e : PFE_WRONG_STATE;
        unsigned spent = (unsigned)((clock_mono(clock_system()) - t0) / 1000);
        connect_ms = spent < connect_ms ? connect_ms - spent : 1;
        keys[n] = "hostaddr";
        values[n++] = found.numbers;
        host = found.hosts;
    }
    size_t first = n;
    for (; s->keys[n - first] && n < 61; n++) {
        keys[n] = s->keys[n - first];
        values[n] = s->values[n - first];
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
    PQsetNoticeReceiver(c->pg, remarked, c);
    c->timeout_ms = s->timeout_ms;
    if (!handshake(c, connect_ms, state)) {
        c->passes = may_pass(c, state);
        c->crowded = strncmp(state, "53", 2) == 0;
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

/* The timeline that another host of the same cluster is on; 0: not to be had. */
static int64_t timeline_of(struct postgres_store *s, const struct pg_conn *c, unsigned host, bool *silent)
{
    int64_t timeline = 0;
    struct pg_conn *other = calloc(1, sizeof *other);
    if (!other)
        return 0;
    other->store = s;
    other->probe = true;
    unsigned ms = s->connect_ms < WITNESS_MS ? s->connect_ms : WITNESS_MS;
    if (pg_connect_to(other, s->hosts[host], s->ports[host], true, ms) == PFE_OK && other->system == c->system)
        timeline = other->timeline;
    else if (was_silent(other))
        *silent = true;
    pg_disconnect(other);
    free(other);
    return timeline;
}

/* Under the lock: whether to ask again before this one is believed to be the primary. A host that says nothing may be
   the newer one, slow as its users have just come to it; but without it for good there must be a way on. */
static bool not_yet(struct postgres_store *s, bool silent)
{
    int64_t now = clock_mono(clock_system());
    if (!silent) {
        s->silent_us = 0;
        return false;
    }
    if (!s->silent_us || now - s->silent_last_us > SILENCE_OVER_US)
        s->silent_us = now;
    s->silent_last_us = now;
    return now - s->silent_us < s->patience_us;
}

/* Is it another cluster's, or was it the primary only until another one was promoted? A server cannot tell the latter
   by itself. Whoever has been connected to a newer one knows; whenever this one, or what was connected to before, may
   have been away since the other hosts were asked, they are asked again. */
static bool was_primary(struct postgres_store *s, struct pg_conn *c, unsigned host)
{
    if (s->mode == POSTGRES_INSPECT)
        return false; /* any server will do */
    pthread_mutex_lock(&s->lock);
    int64_t newest = s->timeline;
    uint64_t doubts = s->doubts;
    bool foreign = s->system && s->system != c->system;
    bool sure = s->sure.host == host && s->sure.started == c->started && s->sure.doubts == doubts;
    pthread_mutex_unlock(&s->lock);
    if (foreign) {
        pg_disconnect(c);
        c->passes = true;
        snprintf(c->why, sizeof c->why, "PostgreSQL at %.100s, port %.10s is another cluster than the one so far",
                 s->hosts[host] ? s->hosts[host] : "", s->ports[host] ? s->ports[host] : "5432");
        return true;
    }
    bool silent = false, wait = false;
    if (c->timeline > newest || (c->timeline == newest && !sure)) {
        newest = c->timeline;
        for (unsigned i = 0; i < s->n_hosts; i++) {
            int64_t t = i != host ? timeline_of(s, c, i, &silent) : 0;
            newest = t > newest ? t : newest;
        }
        pthread_mutex_lock(&s->lock);
        s->timeline = newest > s->timeline ? newest : s->timeline;
        newest = s->timeline;
        wait = c->timeline >= newest && not_yet(s, silent);
        if (c->timeline >= newest && !wait) {
            s->sure.host = host;
            s->sure.started = c->started;
            s->sure.doubts = doubts;
        }
        pthread_mutex_unlock(&s->lock);
    }
    if (c->timeline >= newest && !wait)
        return false;
    int64_t timeline = c->timeline;
    pg_disconnect(c);
    c->passes = true; /* the newer one may be on its way */
    if (wait) {
        snprintf(c->why, sizeof c->why,
                 "PostgreSQL at %.100s, port %.10s takes writes, but another host does not say whether it is still the "
                 "primary",
                 s->hosts[host] ? s->hosts[host] : "", s->ports[host] ? s->ports[host] : "5432");
        return true;
    }
    snprintf(c->why, sizeof c->why,
             "PostgreSQL at %.100s, port %.10s takes writes on timeline %lld, but another host is on %lld: it was the "
             "primary once",
             s->hosts[host] ? s->hosts[host] : "", s->ports[host] ? s->ports[host] : "5432", (long long)timeline,
             (long long)newest);
    return true;
}

enum pf_err pg_connect(struct pg_conn *c, enum pf_err *ret_why_err)
{
    struct postgres_store *s = c->store;
    enum pf_err e = PFE_UNAVAILABLE;
    pthread_mutex_lock(&s->lock);
    unsigned first = s->host, hosts = s->n_hosts ? s->n_hosts : 1, host = first;
    bool wait = clock_mono(clock_system()) < s->retry_us, crowded = s->crowded;
    pthread_mutex_unlock(&s->lock);
    if (wait) {
        snprintf(c->why, sizeof c->why, "PostgreSQL was not to be reached a moment ago");
        c->crowded = crowded;
        return PFE_UNAVAILABLE;
    }
    crowded = false;
    pg_disconnect(c);
    for (unsigned i = 0; i < hosts && e != PFE_OK; i++) {
        host = (first + i) % hosts;
        e = pg_connect_to(c, s->hosts[host], s->ports[host], false, c->connect_ms ? c->connect_ms : s->connect_ms);
        if (e == PFE_OK && was_primary(s, c, host))
            e = PFE_UNAVAILABLE;
        crowded |= i == 0 && c->crowded;
        pthread_mutex_lock(&s->lock);
        s->doubts += e != PFE_OK && !(i == 0 && c->crowded);
        pthread_mutex_unlock(&s->lock);
    }
    crowded = crowded && e != PFE_OK; /* the primary is there, and answers those who are connected */
    c->crowded = crowded;
    if (!crowded)
        pg_primary_report(s, e == PFE_OK);
    pthread_mutex_lock(&s->lock);
    s->crowded = crowded;
    if (!crowded)
        s->stats.reachable = e == PFE_OK;
    if (e == PFE_OK) {
        s->host = host;
        s->system = c->system;
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

bool pg_outlived(struct pg_conn *c)
{
    struct postgres_store *s = c->store;
    pthread_mutex_lock(&s->lock);
    bool past = c->timeline < s->timeline; /* it hung, perhaps, while another one was promoted */
    pthread_mutex_unlock(&s->lock);
    return past || (s->max_lifetime_us && clock_mono(clock_system()) - c->born_us > s->max_lifetime_us);
}

struct pg_conn *pg_writer(struct postgres_store *s)
{
    struct pg_conn *c = &s->w;
    if (s->mode == POSTGRES_INSPECT)
        return NULL;
    if (!pg_outlived(c) && pg_alive(c))
        return c;
    return pg_connect(c, NULL) == PFE_OK ? c : NULL;
}
