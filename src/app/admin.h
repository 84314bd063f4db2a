/*
 * admin: audit, statistics, cache management, health. Blocking unless said.
 */
#ifndef APP_ADMIN_H
#define APP_ADMIN_H

#include "app/app.h"
#include "resilience/health.h"

/* Appends one audit row in a commit of its own. outcome: "ok" or an error's slug. */
void app_audit(struct app *a, const struct caller *c, const char *action, const char *entity, struct str entity_id,
               const char *outcome);

/* A call that was forbidden: at most APP_REFUSALS_AUDITED a minute and user are written, so that they are no flood of
 * writes. */
enum { APP_REFUSALS_AUDITED = 30 };
void app_audit_refusal(struct app *a, const struct caller *c, const char *action, const char *entity, struct str path);

/* Loads users into the cache: one (user > 0), or the newest up to 1,000. *ret_n: how many entries were put. */
enum pf_err app_cache_warmup(struct app *a, const struct caller *c, int64_t user, uint64_t *ret_n) MUSTCHECK;
/* All keys of a user, or those that match a pattern. */
enum pf_err app_cache_invalidate(struct app *a, const struct caller *c, int64_t user, struct str pattern,
                                 uint64_t *ret_n) MUSTCHECK;

struct job;
/* Overwrites an account's projection with what the journal says; j: what JOB_REBUILD answers. PFE_NOT_FOUND. */
enum pf_err app_rebuild(struct app *a, const struct caller *c, int64_t user, money_currency currency,
                        struct job *j) MUSTCHECK;

/* Counts and volumes by kind and currency. */
enum pf_err app_stats(struct app *a, enum store_window w, struct store_stat *out, unsigned cap,
                      unsigned *ret_n) MUSTCHECK;
/* Newest first. */
enum pf_err app_audit_page(struct app *a, struct arena *arena, const struct store_audit_query *q,
                           struct store_audit *out, unsigned *ret_n) MUSTCHECK;
/* Oldest first. */
enum pf_err app_journal_page(struct app *a, int64_t after_seq, unsigned limit, store_entry_fn fn, void *ctx) MUSTCHECK;
struct app_reconciliation {
    struct store_trial trial[200];
    unsigned n_trial;
    struct store_verify verify;
};
/* Verifies everything: takes time in proportion to the journal; one at a time (PFE_BUSY). */
enum pf_err app_reconcile(struct app *a, const struct caller *c, struct app_reconciliation *ret) MUSTCHECK;

/*
 * Health: checks in a registry (resilience/health.h). They run when somebody asks, each once at a time: who comes while
 * one runs waits for its answer. One without an answer in 10 s is DOWN until it has one.
 */
enum app_health_state { APP_UP, APP_DEGRADED, APP_DOWN };
const char *app_health_name(enum app_health_state s);
enum app_check {
    APP_CHECK_DATABASE,
    APP_CHECK_WRITER,
    APP_CHECK_CACHE,
    APP_CHECK_DOCUMENTS,
    APP_CHECK_BUS,
    APP_CHECKS
};
struct app_part {
    enum app_health_state state;
    int64_t at_us;                    /* wall: when it was found so */
    char details[HEALTH_DETAILS_MAX]; /* JSON object, "{}" if there is nothing to say */
};
struct app_health {
    enum app_health_state state; /* DOWN if the database or the writer is; DEGRADED if any part is not UP */
    struct app_part parts[APP_CHECKS];
    const char *documents_engine; /* "" when there are none: then that part is not to be looked at */
    struct bus_stats messages;    /* engine NULL when there is no bus: the same */
    struct store_info store;
    int64_t journal_lag; /* entries not yet written behind */
};
/* Does it ask somebody over the network, and so block? Quick. */
bool app_health_blocks(struct app *a);
/* Asks a shared store; of documents with a server of their own it says what was last seen (documents/guard). Without
 * its primary the database is DEGRADED while a replica answers reads. */
void app_health(struct app *a, struct app_health *ret);
/* Of a shared store; false: it is an embedded one. Quick. */
bool app_cluster(struct app *a, struct store_cluster *ret);

#endif
