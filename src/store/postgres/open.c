#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/rand.h"
#include "store/postgres/journal.h"
#include "store/postgres/records.h"
#include "store/postgres/schema.h"

enum {
    PARAMS_MAX = 60, /* libpq knows about 40 */
    OPEN_DEFAULT = 25,
    IDLE_DEFAULT = 5,
    OPEN_LEAST = 3, /* the writer's, one for a transaction, one for reads inside it */
    CONNECT_MS = 2000,
    PATIENCE_MS = 2500, /* with a host that may know of a newer primary */
    TIMEOUT_MS = 5000,
    START_PAUSE_US = 200000,
    COMMIT_ROUNDS = 4, /* the commit's own, and three to look it up: a promotion takes less */
    GROUP_TRIES = 3,
    READ_TRIES = 5 /* a connection that was lost before, two replicas that are gone, the primary, and once more */
};

/* ---- how to connect ---- */

static void wipe(char *z)
{
    if (z)
        explicit_bzero(z, strlen(z));
    free(z);
}

static enum pf_err set(struct postgres_store *s, const char *key, const char *value)
{
    size_t i = 0;
    if (!value || !*value)
        return PFE_OK;
    while (i < PARAMS_MAX && s->keys[i] && strcmp(s->keys[i], key) != 0)
        i++;
    if (i == PARAMS_MAX)
        return PFE_INTERNAL;
    char *k = s->keys[i] ? s->keys[i] : strdup(key), *v = strdup(value);
    wipe(s->values[i]);
    s->keys[i] = k;
    s->values[i] = v;
    return k && v ? PFE_OK : PFE_NOMEM;
}

static const char *get(const struct postgres_store *s, const char *key)
{
    for (size_t i = 0; s->keys[i]; i++)
        if (strcmp(s->keys[i], key) == 0)
            return s->values[i];
    return NULL;
}

static enum pf_err take_url(struct postgres_store *s, const char *url, char **ret_hosts, char **ret_ports,
                            char ret_why[PG_WHY])
{
    char *why = NULL;
    enum pf_err e = PFE_OK;
    PQconninfoOption *all = PQconninfoParse(url, &why);
    if (!all) {
        /* libpq's words quote the text, and the password may be in it */
        snprintf(ret_why, PG_WHY, "DB_URL is not a well-formed postgres:// URL");
        PQfreemem(why);
        return PFE_WRONG_STATE;
    }
    for (PQconninfoOption *o = all; o->keyword && e == PFE_OK; o++) {
        if (!o->val)
            continue;
        char **list = strcmp(o->keyword, "host") == 0 ? ret_hosts : strcmp(o->keyword, "port") == 0 ? ret_ports : NULL;
        if (!list)
            e = set(s, o->keyword, o->val);
        else if (!(*list = strdup(o->val)))
            e = PFE_NOMEM;
    }
    for (PQconninfoOption *o = all; o->keyword; o++)
        if (o->val)
            explicit_bzero(o->val, strlen(o->val));
    PQconninfoFree(all);
    return e;
}

/* "a,b" into at most PG_HOSTS_MAX strings. */
static enum pf_err split(const char *list, char *out[PG_HOSTS_MAX], unsigned *ret_n)
{
    *ret_n = 0;
    while (list && *list) {
        size_t n = strcspn(list, ",");
        struct str item = str_trim((struct str){list, n});
        if (*ret_n == PG_HOSTS_MAX || item.n == 0)
            return PFE_WRONG_STATE;
        if (!(out[*ret_n] = strndup(item.p, item.n)))
            return PFE_NOMEM;
        ++*ret_n;
        list += n + (list[n] == ',');
    }
    return PFE_OK;
}

static enum pf_err take_hosts(struct postgres_store *s, const char *hosts, const char *ports, char ret_why[PG_WHY])
{
    unsigned n_ports;
    enum pf_err e = split(hosts, s->hosts, &s->n_hosts);
    if (e == PFE_OK)
        e = split(ports, s->ports, &n_ports);
    if (e == PFE_OK && n_ports > 1 && n_ports != s->n_hosts)
        e = PFE_WRONG_STATE;
    if (e == PFE_WRONG_STATE)
        snprintf(ret_why, PG_WHY,
                 "the hosts are up to %d names, parted by commas, with one port for all or one for each", PG_HOSTS_MAX);
    if (e == PFE_OK && n_ports == 1 && s->n_hosts == 0)
        e = set(s, "port", s->ports[0]);
    for (unsigned i = n_ports; e == PFE_OK && n_ports == 1 && i < s->n_hosts; i++)
        if (!(s->ports[i] = strdup(s->ports[0])))
            e = PFE_NOMEM;
    return e;
}

/* Settings of the session, as a server takes them with the connection: backslashes hide blanks. Who does not answer is
   cut off before the others give up waiting, and the server gives up before we do. */
static enum pf_err take_session(struct postgres_store *s, const char *schema)
{
    const char *given = get(s, "options");
    char *text = NULL, path[256] = "";
    size_t n = 0;
    for (const char *p = schema ? schema : ""; *p && n + 3 < sizeof path; p++) {
        if (strchr(" \\\"", *p))
            path[n++] = *p == '"' ? '"' : '\\';
        path[n++] = *p;
    }
    path[n] = 0;
    unsigned t = s->timeout_ms;
    if (asprintf(&text,
                 "%s -c statement_timeout=%u -c lock_timeout=%u -c idle_in_transaction_session_timeout=%u"
                 " -c client_connection_check_interval=1000 -c jit=off"
                 /* "committed alone" is a warning, which a role's own settings may have silenced (conn.c) */
                 " -c client_min_messages=warning"
                 /* plans are kept, some from when the tables were empty: none of them may read a table through */
                 " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off"
                 " -c enable_mergejoin=off%s%s%s%s",
                 given ? given : "", t / 10 * 9, t / 10 * 8, t / 10 * 6,
                 s->mode == POSTGRES_INSPECT ? " -c default_transaction_read_only=on" : "",
                 n ? " -c search_path=\"" : "", path, n ? "\"" : "") < 0)
        return PFE_NOMEM;
    enum pf_err e = set(s, "options", text);
    free(text);
    return e;
}

static enum pf_err configure(struct postgres_store *s, const struct postgres_options *o, char ret_why[PG_WHY])
{
    const struct {
        const char *key, *value;
    } fixed[] = {{"user", o->user},
                 {"password", o->password},
                 {"dbname", o->dbname},
                 {"sslmode", o->sslmode},
                 {"sslrootcert", o->sslrootcert},
                 {"client_encoding", "UTF8"},
                 {"fallback_application_name", "payflow"},
                 {"target_session_attrs", s->mode == POSTGRES_INSPECT ? "any" : "read-write"},
                 {"keepalives", "1"},
                 {"keepalives_idle", "5"},
                 {"keepalives_interval", "2"},
                 {"keepalives_count", "3"},
                 {"tcp_user_timeout", "8000"}};
    char *hosts = NULL, *ports = NULL;
    enum pf_err e = PFE_OK;
    if (o->url && *o->url)
        e = take_url(s, o->url, &hosts, &ports, ret_why);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed && e == PFE_OK; i++)
        e = set(s, fixed[i].key, fixed[i].value);
    if (e == PFE_OK)
        e = take_hosts(s, o->hosts && *o->hosts ? o->hosts : hosts, o->ports && *o->ports ? o->ports : ports, ret_why);
    if (e == PFE_OK)
        e = take_session(s, o->schema);
    free(hosts);
    free(ports);
    return e;
}

/* ---- opening and closing ---- */

static void store_free(struct postgres_store *s)
{
    pg_guard_stop(s);
    pg_ledger_free(s);
    pg_disconnect(&s->w);
    while (s->idle) {
        struct pg_conn *c = s->idle;
        s->idle = c->next;
        pg_disconnect(c);
        free(c);
    }
    for (size_t i = 0; s->keys && s->values && i < PARAMS_MAX; i++) {
        free(s->keys[i]);
        wipe(s->values[i]);
    }
    resolver_free(s->names);
    for (unsigned i = 0; i < PG_HOSTS_MAX; i++) {
        free(s->hosts[i]);
        free(s->ports[i]);
    }
    free(s->keys);
    free(s->values);
    pthread_cond_destroy(&s->freed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void close_store(struct store *s)
{
    store_free(pg_of(s));
}

/* A read that is tried again goes to another server, or to one that has just let a connection go: the budget's least is
   all that can be under way. */
struct retry_config store_postgres_retry(unsigned max_open)
{
    return (struct retry_config){.max_attempts = READ_TRIES,
                                 .multiplier = 2,
                                 .deadline_us = TIMEOUT_MS * 1000,
                                 .budget_percent = 20,
                                 .budget_least = max_open};
}

/* Of a group there is one at a time, and it waits for its lock on the server. */
static bool set_retries(struct postgres_store *s, const struct postgres_options *o, char ret_why[PG_WHY])
{
    struct retry_config reads = store_postgres_retry(s->max_open), groups = reads;
    reads.deadline_us = (int64_t)s->timeout_ms * 1000;
    groups.max_attempts = GROUP_TRIES;
    groups.deadline_us = 2 * reads.deadline_us;
    if (retry_init(&s->reads, o->retry ? o->retry : &reads) && retry_init(&s->groups, &groups))
        return true;
    snprintf(ret_why, PG_WHY, "retry: %s", o->retry ? retry_fault(o->retry) : "out of range");
    return false;
}

/* A store that knows how to connect and has not done so. */
static enum pf_err prepare(const struct postgres_options *o, struct postgres_store **ret, char ret_why[PG_WHY])
{
    snprintf(ret_why, PG_WHY, "out of memory");
    struct postgres_store *s = calloc(1, sizeof *s);
    if (!s)
        return PFE_NOMEM;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->freed, NULL);
    s->mode = o->mode;
    s->w.store = s;
    s->connect_ms = o->connect_ms ? o->connect_ms : CONNECT_MS;
    s->patience_us = (o->start_ms / 2 < PATIENCE_MS ? o->start_ms / 2 : PATIENCE_MS) * INT64_C(1000);
    s->timeout_ms = o->timeout_ms ? o->timeout_ms : TIMEOUT_MS;
    s->commit_ms = o->commit_ms ? o->commit_ms : COMMIT_ROUNDS * s->timeout_ms;
    s->max_open = o->max_open ? o->max_open : OPEN_DEFAULT;
    if (s->max_open < OPEN_LEAST)
        s->max_open = OPEN_LEAST;
    s->max_idle = o->max_idle ? o->max_idle : IDLE_DEFAULT;
    s->tx_max = (s->max_open - 1) / 2;
    s->max_lifetime_us = o->max_lifetime_s * 1000000;
    if (!set_retries(s, o, ret_why)) {
        store_free(s);
        return PFE_WRONG_STATE;
    }
    s->keys = calloc(PARAMS_MAX + 1, sizeof *s->keys);
    s->values = calloc(PARAMS_MAX + 1, sizeof *s->values);
    if (o->metrics)
        s->h_commit = metric_histogram(o->metrics, "payflow_db_commit_duration_seconds",
                                       "Duration of a group's round trip that ends in COMMIT.", "", metric_bounds_us,
                                       metric_bounds_us_n, 1000000);
    s->names = resolver_new();
    enum pf_err e = s->keys && s->values && s->names ? configure(s, o, ret_why) : PFE_NOMEM;
    if (e) {
        store_free(s);
        return e;
    }
    *ret = s;
    return PFE_OK;
}

/* The first connection. Tries again for a while if that may help. */
static enum pf_err connect(struct postgres_store *s, const struct postgres_options *o, char ret_why[PG_WHY])
{
    const struct retry_config config = {.max_attempts = 100,
                                        .backoff_us = START_PAUSE_US,
                                        .multiplier = 1.5,
                                        .max_backoff_us = 4 * START_PAUSE_US,
                                        .jitter = 50,
                                        .deadline_us = o->start_ms ? (int64_t)o->start_ms * 1000 : 1,
                                        .budget_least = 1};
    struct retry retry;
    struct retry_call call;
    struct retry_verdict v;
    enum pf_err class;
    if (!retry_init(&retry, &config))
        return PFE_INTERNAL;
    retry_begin(&retry, &call, true, clock_mono(clock_system()));
    do {
        class = PFE_UNAVAILABLE;
        if (pg_connect(&s->w, &class) == PFE_OK)
            class = PFE_OK;
        else
            snprintf(ret_why, PG_WHY, "PostgreSQL: %.240s", s->w.why);
        s->retry_us = s->backoff_us = 0; /* nobody else is there yet */
        v = retry_next(&call,
                       class == PFE_OK ? RETRY_SUCCESS
                       : s->w.passes   ? RETRY_FAILURE
                                       : RETRY_PERMANENT,
                       0, rand_u64(), clock_mono(clock_system()));
        if (v.again && o->on_retry)
            o->on_retry(o->ctx, ret_why, v.wait_us);
        if (v.again)
            nanosleep(&(struct timespec){v.wait_us / 1000000, v.wait_us % 1000000 * 1000}, NULL);
    } while (v.again);
    retry_end(&call);
    return class;
}

static enum pf_err ready_schema(struct postgres_store *s, char ret_why[PG_WHY])
{
    if (s->mode == POSTGRES_SERVE) {
        s->schema = (int)postgres_migration_texts_n;
        return pg_schema_migrate(&s->w, -1, ret_why);
    }
    enum pf_err e = pg_schema_check(&s->w, &s->schema, ret_why);
    if (e == PFE_OK && s->schema < (int)postgres_migration_texts_n) {
        snprintf(ret_why, PG_WHY, "the database is at migration %d, this program needs %u: migrate first", s->schema,
                 postgres_migration_texts_n);
        e = PFE_WRONG_STATE;
    }
    return e;
}

static const struct store_ops pg_ops = {
    .close = close_store,
    .info = pg_info,
    .shared = true,
    .cluster = pg_cluster_read,
    .stale = pg_stale,
    .word_say = pg_word_say,
    .word_end = pg_word_end,
    .documents = pg_documents,

    .lease_take = pg_lease_take,
    .lease_drop = pg_lease_drop,
    .group_begin = pg_group_begin,
    .group_commit = pg_group_commit,
    .group_abort = pg_group_abort,
    .flush = pg_flush,
    .account_rebuild = pg_account_rebuild,

    .tx_begin = pg_rec_tx_begin,
    .tx_commit = pg_rec_tx_commit,
    .tx_rollback = pg_rec_tx_rollback,
    .tx_fence = pg_rec_tx_fence,

    .user_insert = pg_rec_user_insert,
    .user_update = pg_rec_user_update,
    .apikey_insert = pg_rec_apikey_insert,
    .apikey_revoke = pg_rec_apikey_revoke,
    .apikey_touch = pg_rec_apikey_touch,
    .session_insert = pg_rec_session_insert,
    .session_revoke = pg_rec_session_revoke,
    .refresh_insert = pg_rec_refresh_insert,
    .refresh_use = pg_rec_refresh_use,
    .schedule_insert = pg_rec_schedule_insert,
    .schedule_update = pg_rec_schedule_update,
    .run_insert = pg_rec_run_insert,
    .audit_append = pg_rec_audit_append,
    .idem_put = pg_rec_idem_put,
    .event_insert = pg_event_insert,
    .event_status = pg_event_status,
    .inbox_purge = pg_inbox_purge,

    .user_get = pg_rec_user_get,
    .user_by_uuid = pg_rec_user_by_uuid,
    .user_by_name = pg_rec_user_by_name,
    .user_by_email = pg_rec_user_by_email,
    .user_list = pg_rec_user_list,
    .admin_count = pg_rec_admin_count,
    .users_closing = pg_rec_users_closing,
    .apikey_by_hash = pg_rec_apikey_by_hash,
    .apikey_list = pg_rec_apikey_list,
    .session_get = pg_rec_session_get,
    .refresh_get = pg_rec_refresh_get,
    .schedule_get = pg_rec_schedule_get,
    .schedule_by_uuid = pg_rec_schedule_by_uuid,
    .schedule_list = pg_rec_schedule_list,
    .schedule_due = pg_rec_schedule_due,
    .run_list = pg_rec_run_list,
    .audit_list = pg_rec_audit_list,
    .idem_get = pg_rec_idem_get,
    .events_get = pg_events_get,
    .bookings_get = pg_bookings_get,
    .booking_list = pg_booking_list,
    .bookings_due = pg_bookings_due,
    .outbox_list = pg_outbox_list,

    .account_get = pg_account_get,
    .account_by_id = pg_account_by_id,
    .account_list = pg_account_list,
    .entry_get = pg_entry_get,
    .entry_list = pg_entry_list,
    .journal_scan = pg_journal_scan,
    .balance_at = pg_balance_at,
    .holds_due = pg_holds_due,
    .replay = pg_replay,
    .stats = pg_stats,
    .trial = pg_trial,
    .verify = pg_verify,
};

enum pf_err store_postgres_open(const struct postgres_options *o, struct store **ret, char ret_why[PG_WHY])
{
    struct postgres_store *s;
    enum pf_err e = prepare(o, &s, ret_why);
    if (e)
        return e;
    s->base.ops = &pg_ops;
    e = connect(s, o, ret_why);
    if (e == PFE_OK)
        e = ready_schema(s, ret_why);
    if (e == PFE_OK)
        e = pg_ledger_init(s, ret_why);
    if (e == PFE_OK)
        e = pg_guard_start(s, o, ret_why);
    if (e) {
        store_free(s);
        return e;
    }
    ret_why[0] = '\0';
    *ret = &s->base;
    return PFE_OK;
}

enum pf_err store_postgres_migrations(const struct postgres_options *o, struct postgres_migration *out, unsigned cap,
                                      unsigned *ret_n, char ret_why[PG_WHY])
{
    struct postgres_store *s;
    struct postgres_options look = *o;
    look.mode = POSTGRES_INSPECT;
    enum pf_err e = prepare(&look, &s, ret_why);
    if (e)
        return e;
    e = connect(s, o, ret_why);
    if (e == PFE_OK) {
        e = pg_schema_list(&s->w, out, cap, ret_n, ret_why);
        if (e && e != PFE_WRONG_STATE)
            snprintf(ret_why, PG_WHY, "cannot read the database: %.200s", s->w.why);
    }
    store_free(s);
    return e;
}

enum pf_err store_postgres_migrate(const struct postgres_options *o, int to, char ret_why[PG_WHY])
{
    struct postgres_store *s;
    struct postgres_options serve = *o;
    serve.mode = POSTGRES_SERVE;
    enum pf_err e = prepare(&serve, &s, ret_why);
    if (e)
        return e;
    e = connect(s, o, ret_why);
    if (e == PFE_OK)
        e = pg_schema_migrate(&s->w, to, ret_why);
    store_free(s);
    return e;
}

enum pf_err store_postgres_rebuild(const struct postgres_options *o, int64_t *ret_entries, char ret_why[PG_WHY])
{
    struct store *st;
    struct postgres_options serve = *o;
    serve.mode = POSTGRES_SERVE;
    enum pf_err e = store_postgres_open(&serve, &st, ret_why);
    if (e)
        return e;
    e = pg_ledger_rebuild(pg_of(st), ret_entries, ret_why);
    store_close(st);
    return e;
}
