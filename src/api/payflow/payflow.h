/* payflow: handlers of the PayFlow surface; those named api_… serve the Banking surface too. Internal to src/api. */
#ifndef API_PAYFLOW_H
#define API_PAYFLOW_H

#include "api/call.h"

enum api_step api_register(struct api_call *c);
enum api_step payflow_login(struct api_call *c);
enum api_step payflow_key_replace(struct api_call *c);
enum api_step payflow_keys(struct api_call *c);
enum api_step payflow_key_revoke(struct api_call *c);
enum api_step payflow_users_query(struct api_call *c);
enum api_step api_user_page(struct api_call *c, unsigned at); /* page fields at c->query[at] */
enum api_step api_user_get(struct api_call *c);
enum api_step payflow_user_put(struct api_call *c);
enum api_step api_user_put_path(struct api_call *c);
enum api_step api_user_delete(struct api_call *c);

enum api_step payflow_balance_open(struct api_call *c);
enum api_step payflow_balance_get(struct api_call *c);
enum api_step payflow_balance_history(struct api_call *c);
enum api_step api_history(struct api_call *c, int64_t user, money_currency currency, const struct api_page *page,
                          int64_t from_us, int64_t to_us);
enum api_step payflow_balance_replay(struct api_call *c);
enum api_step payflow_balance_rebuild(struct api_call *c);

enum api_step payflow_deposit(struct api_call *c);
enum api_step payflow_withdraw(struct api_call *c);
enum api_step payflow_transfer(struct api_call *c);
enum api_step payflow_batch(struct api_call *c);
enum api_step payflow_stats(struct api_call *c);
enum api_step payflow_transactions(struct api_call *c);
enum api_step api_transaction_get(struct api_call *c);

/* Fields that both surfaces take (fields.c). */
extern const struct api_field api_user_new[], api_login[], api_user_put[];
#define API_MOVE_FIELDS                                                                                                \
    {"amount", F_AMOUNT, true, 0, 0, NULL, "More than 0, at most the currency's decimals."},                           \
        {"currency", F_CURRENCY, false, 0, 0, NULL, "ISO 4217 code; the default currency if absent."},                 \
    {                                                                                                                  \
        "description", F_TEXT, false, 0, LEDGER_DESCRIPTION_MAX, NULL, "Free text, at most 500 bytes."                 \
    }

/* Moves c->one (kind and users set): amount, currency and description from c->body[at], [at + 1], [at + 2]. */
enum api_step api_move(struct api_call *c, unsigned at);
/* A page of transactions by the query fields type, status, currency, from, to, min_amount, max_amount, counterparty at
 * c->query[at …]; user 0: everybody's. */
enum api_step api_transaction_page(struct api_call *c, int64_t user, const struct api_page *page, unsigned at);
#define API_FILTER_FIELDS                                                                                              \
    {"type",                                                                                                           \
     F_TEXT,                                                                                                           \
     false,                                                                                                            \
     1,                                                                                                                \
     16,                                                                                                               \
     "deposit|withdraw|credit|debit|transfer|rollback|hold|capture|release",                                           \
     "Kind of transaction."},                                                                                          \
        {"status", F_TEXT, false, 1, 16, "completed|rolled_back", "Status."},                                          \
        {"currency", F_CURRENCY, false, 0, 0, NULL, "Currency."},                                                      \
        {"from", F_TIME, false, 0, 0, NULL, "Not before this time."},                                                  \
        {"to", F_TIME, false, 0, 0, NULL, "Before this time."},                                                        \
        {"min_amount", F_AMOUNT, false, 0, 0, NULL, "At least this amount, in the given or default currency."},        \
        {"max_amount", F_AMOUNT, false, 0, 0, NULL, "At most this amount, in the given or default currency."},         \
    {                                                                                                                  \
        "counterparty", F_USER, false, 0, 0, NULL, "The user on the other side."                                       \
    }
enum { API_FILTERS = 8 };

enum api_step payflow_cache_stats(struct api_call *c);
enum api_step payflow_cache_keys(struct api_call *c);
enum api_step payflow_cache_warmup(struct api_call *c);
enum api_step payflow_cache_invalidate(struct api_call *c);
void api_cache_stats_write(struct api_call *c, struct jw *w); /* the object's members: hits, misses, … tiers */
void api_breakers_write(struct api_call *c, struct jw *w);    /* the object's members: one for each circuit breaker */

#endif
