/* The Banking surface: contract, section 3. Its paths answer under /api/v1 and, for the seed's collection, without it.
 */
#include "api/banking/banking.h"

static const struct api_field refresh[] = {
    {"refresh_token", F_TEXT, true, 1, 0, NULL, "The newest refresh token of the session."},
    {0},
};
static const struct api_field logout[] = {
    {"refresh_token", F_TEXT, false, 1, 0, NULL, "Ends this session; that of the access token if absent."},
    {0},
};
static const struct api_field pages[] = {API_PAGE_FIELDS, {0}};
static const struct api_field currency[] = {
    {"currency", F_CURRENCY, false, 0, 0, NULL, "ISO 4217 code; the default currency if absent."},
    {0},
};
static const struct api_field historical[] = {
    {"from", F_TIME, false, 0, 0, NULL, "Not before this time."},
    {"to", F_TIME, false, 0, 0, NULL, "Before this time."},
    {"currency", F_CURRENCY, false, 0, 0, NULL, "ISO 4217 code; the default currency if absent."},
    API_PAGE_FIELDS,
    {0},
};
static const struct api_field at_time[] = {
    {"timestamp", F_TIME, true, 0, 0, NULL, "RFC 3339; not in the future."},
    {"currency", F_CURRENCY, false, 0, 0, NULL, "ISO 4217 code; the default currency if absent."},
    {0},
};
static const struct api_field move[] = {API_MOVE_FIELDS, {0}};
static const struct api_field transfer[] = {
    {"to_user_id", F_USER, true, 0, 0, NULL, "Who is paid: UUID or number."},
    API_MOVE_FIELDS,
    {0},
};
static const struct api_field rollback[] = {
    {"reason", F_TEXT, false, 0, LEDGER_DESCRIPTION_MAX, NULL,
     "Becomes the description of the compensating transaction."},
    {0},
};
static const struct api_field history[] = {
    {"user_id", F_USER, false, 0, 0, NULL, "Another user's, for admins."},
    API_PAGE_FIELDS,
    API_FILTER_FIELDS,
    {0},
};
static const struct api_field schedule_new[] = {
    {"type", F_TEXT, true, 1, 16, "credit|debit|transfer|deposit|withdraw", "What moves."},
    {"to_user_id", F_USER, false, 0, 0, NULL, "Who is paid, for a transfer."},
    {"amount", F_AMOUNT, true, 0, 0, NULL, "More than 0, at most the currency's decimals."},
    {"currency", F_CURRENCY, false, 0, 0, NULL, "ISO 4217 code; the default currency if absent."},
    {"scheduled_at", F_TIME, true, 0, 0, NULL, "First due time; in the future."},
    {"recurrence", F_TEXT, false, 0, 128, NULL, "daily, weekly, monthly, or five cron fields in UTC; once if absent."},
    {"end_at", F_TIME, false, 0, 0, NULL, "No run after this time."},
    {"max_runs", F_INT, false, 1, 1000000000, NULL, "No more successful runs than this."},
    {"description", F_TEXT, false, 0, LEDGER_DESCRIPTION_MAX, NULL, "Free text, at most 500 bytes."},
    {0},
};
static const struct api_field audit[] = {
    {"actor", F_USER, false, 0, 0, NULL, "Who did it."},
    {"action", F_TEXT, false, 0, 64, NULL, "What was done, such as login; a trailing * matches a prefix."},
    {"entity", F_TEXT, false, 0, 64, NULL, "To what kind of thing, such as user."},
    {"from", F_TIME, false, 0, 0, NULL, "Not before this time."},
    {"to", F_TIME, false, 0, 0, NULL, "Before this time."},
    API_PAGE_FIELDS,
    {0},
};
static const struct api_field journal[] = {
    {"after_seq", F_INT, false, 0, INT64_MAX, NULL, "Entries after this number."},
    {"limit", F_INT, false, 1, 100, NULL, "How many, 1 to 100; 20 if absent."},
    {0},
};

static const struct api_field freeze[] = {
    {"currency", F_CURRENCY, false, 0, 0, NULL, "Which account; that in the default currency if absent."},
    {"reason", F_TEXT, false, 0, LEDGER_DESCRIPTION_MAX, NULL, "Becomes the entry's description."},
    {0},
};

#define USER                                                                                                           \
    {                                                                                                                  \
        RIGHT_USER, false                                                                                              \
    }
#define ADMIN                                                                                                          \
    {                                                                                                                  \
        RIGHT_ADMIN, false                                                                                             \
    }

/* clang-format off */
const struct api_route api_banking_routes[] = {
    {HTTP_POST, "/api/v1/auth/register", {RIGHT_PUBLIC, false}, NULL, EXEC_HASH, KEY_IN_APP, 0, api_user_new, NULL, api_register,
     "register", "Auth", "Register a user", "BankingUser", 201, true},
    {HTTP_POST, "/api/v1/auth/login", {RIGHT_PUBLIC, false, true}, NULL, EXEC_HASH, NO_KEY, 0, api_login, NULL, banking_login,
     "authLogin", "Auth", "Log in: an access token and a refresh token", "Tokens", 200, true},
    {HTTP_POST, "/api/v1/auth/refresh", {RIGHT_PUBLIC, false, true}, NULL, EXEC_POOL, NO_KEY, 0, refresh, NULL, banking_refresh,
     "authRefresh", "Auth", "Use a refresh token, once", "Tokens", 200, true},
    {HTTP_POST, "/api/v1/auth/logout", USER, NULL, EXEC_POOL, NO_KEY, 0, logout, NULL, banking_logout,
     "authLogout", "Auth", "End a session", "Message", 200, true},

    {HTTP_GET, "/api/v1/users", ADMIN, NULL, EXEC_POOL, NO_KEY, 0, NULL, pages, banking_users,
     "listUsers", "Users", "All users", "BankingUserList", 200, true},
    {HTTP_GET, "/api/v1/users/{id}", ADMIN, "path:id", EXEC_INLINE, NO_KEY, 0, NULL, NULL, api_user_get,
     "bankingGetUser", "Users", "One user", "BankingUser", 200, true},
    {HTTP_PUT, "/api/v1/users/{id}", ADMIN, "path:id", EXEC_HASH, NO_KEY, 0, api_user_put, NULL, api_user_put_path,
     "bankingUpdateUser", "Users", "Change a user", "BankingUser", 200, true},
    {HTTP_DELETE, "/api/v1/users/{id}", ADMIN, "path:id", EXEC_POOL, NO_KEY, 0, NULL, NULL, api_user_delete,
     "bankingDeleteUser", "Users", "Delete a user whose accounts are empty", "Deleted", 200, true},

    {HTTP_GET, "/api/v1/balances/current", USER, NULL, EXEC_INLINE, NO_KEY, 0, NULL, currency, banking_balance_current,
     "currentBalance", "Balances", "The caller's balance", "CurrentBalance", 200, true},
    {HTTP_GET, "/api/v1/balances/historical", USER, NULL, EXEC_POOL, NO_KEY, 0, NULL, historical, banking_balance_historical,
     "historicalBalances", "Balances", "Entries with the balance after each", "HistoryList", 200, true},
    {HTTP_GET, "/api/v1/balances/at-time", USER, NULL, EXEC_POOL, NO_KEY, 0, NULL, at_time, banking_balance_at,
     "balanceAtTime", "Balances", "The balance as it stood then", "BalanceAt", 200, true},

    {HTTP_POST, "/api/v1/transactions/credit", USER, NULL, EXEC_INLINE, KEY_IN_LEDGER, 0, move, NULL, banking_credit,
     "credit", "Transactions", "Credit the caller's account", "BankingTransaction", 201, true},
    {HTTP_POST, "/api/v1/transactions/debit", USER, NULL, EXEC_INLINE, KEY_IN_LEDGER, 0, move, NULL, banking_debit,
     "debit", "Transactions", "Debit the caller's account", "BankingTransaction", 201, true},
    {HTTP_POST, "/api/v1/transactions/transfer", USER, NULL, EXEC_INLINE, KEY_IN_LEDGER, 0, transfer, NULL, banking_transfer,
     "bankingTransfer", "Transactions", "Transfer from the caller's account", "BankingTransaction", 201, true},
    {HTTP_POST, "/api/v1/transactions/{id}/rollback", {RIGHT_OWNER, false}, "handler", EXEC_POOL, KEY_IN_LEDGER, 0, rollback, NULL, banking_rollback,
     "rollback", "Transactions", "Compensate a transaction", "BankingTransaction", 201, true},
    {HTTP_GET, "/api/v1/transactions/history", {RIGHT_OWNER, false}, "handler", EXEC_POOL, NO_KEY, 0, NULL, history, banking_history,
     "transactionHistory", "Transactions", "The caller's transactions, newest first", "BankingTransactionList", 200, true},
    {HTTP_GET, "/api/v1/transactions/{id}", {RIGHT_OWNER, false}, "handler", EXEC_POOL, NO_KEY, 0, NULL, NULL, api_transaction_get,
     "bankingGetTransaction", "Transactions", "One transaction, for its parties and admins", "BankingTransaction", 200, true},

    {HTTP_POST, "/api/v1/scheduled-transactions", USER, NULL, EXEC_POOL, KEY_IN_APP, 0, schedule_new, NULL, banking_schedule_create,
     "createSchedule", "Scheduled transactions", "Schedule a transaction", "Schedule", 201, true},
    {HTTP_GET, "/api/v1/scheduled-transactions", USER, NULL, EXEC_POOL, NO_KEY, 0, NULL, pages, banking_schedule_list,
     "listSchedules", "Scheduled transactions", "The caller's schedules, newest first", "ScheduleList", 200, true},
    {HTTP_GET, "/api/v1/scheduled-transactions/{id}", {RIGHT_OWNER, false}, "handler", EXEC_POOL, NO_KEY, 0, NULL, NULL, banking_schedule_get,
     "getSchedule", "Scheduled transactions", "One schedule with its runs", "Schedule", 200, true},
    {HTTP_DELETE, "/api/v1/scheduled-transactions/{id}", {RIGHT_OWNER, false}, "handler", EXEC_POOL, NO_KEY, 0, NULL, NULL, banking_schedule_cancel,
     "cancelSchedule", "Scheduled transactions", "Cancel a schedule", "Schedule", 200, true},

    {HTTP_GET, "/api/v1/ping", {RIGHT_PUBLIC, false, true}, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, banking_ping,
     "ping", "Platform", "Answers pong", "Message", 200, true},
    {HTTP_GET, "/api/v1/metrics/circuit-breakers", {RIGHT_PUBLIC, false, true}, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, banking_breakers,
     "circuitBreakers", "Platform", "The circuit breakers of this instance", "CircuitBreakers", 200, true},
    {HTTP_GET, "/api/v1/test/circuit-breaker/success", {RIGHT_PUBLIC, false, true}, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, banking_trial_success,
     "tryBreakerSuccess", "Platform", "Call the test service that succeeds", "Trial", 200, true},
    {HTTP_POST, "/api/v1/test/circuit-breaker/success", {RIGHT_PUBLIC, false, true}, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, banking_trial_success,
     "postBreakerSuccess", "Platform", "Call the test service that succeeds", "Trial", 200, true},
    {HTTP_GET, "/api/v1/test/circuit-breaker/failure", {RIGHT_PUBLIC, false, true}, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, banking_trial_failure,
     "tryBreakerFailure", "Platform", "Call the test service that fails", "Trial", 200, true},
    {HTTP_POST, "/api/v1/test/circuit-breaker/failure", {RIGHT_PUBLIC, false, true}, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, banking_trial_failure,
     "postBreakerFailure", "Platform", "Call the test service that fails", "Trial", 200, true},
    {HTTP_GET, "/api/v1/test/circuit-breaker/timeout", {RIGHT_PUBLIC, false, true}, NULL, EXEC_POOL, NO_KEY, 0, NULL, NULL, banking_trial_timeout,
     "tryBreakerTimeout", "Platform", "Call the test service that never answers", "Trial", 200, true},
    {HTTP_POST, "/api/v1/test/circuit-breaker/timeout", {RIGHT_PUBLIC, false, true}, NULL, EXEC_POOL, NO_KEY, 0, NULL, NULL, banking_trial_timeout,
     "postBreakerTimeout", "Platform", "Call the test service that never answers", "Trial", 200, true},
    {HTTP_GET, "/api/v1/admin/audit", ADMIN, NULL, EXEC_POOL, NO_KEY, 0, NULL, audit, banking_audit,
     "auditLog", "Administration", "Who did what, when, from where", "AuditList", 200, true},
    {HTTP_GET, "/api/v1/admin/journal", ADMIN, NULL, EXEC_POOL, NO_KEY, 0, NULL, journal, banking_journal,
     "journal", "Administration", "The event log itself", "JournalList", 200, true},
    {HTTP_GET, "/api/v1/admin/reconciliation", ADMIN, NULL, EXEC_POOL, NO_KEY, 0, NULL, NULL, banking_reconciliation,
     "reconciliation", "Administration", "Trial balance; journal against projections", "Reconciliation", 200, true},
    {HTTP_POST, "/api/v1/admin/users/{id}/freeze", ADMIN, "path:id", EXEC_INLINE, KEY_IN_LEDGER, 0, freeze, NULL, banking_freeze,
     "freezeAccount", "Administration", "Let nothing move into or out of an account", "Freeze", 201, true},
    {HTTP_POST, "/api/v1/admin/users/{id}/unfreeze", ADMIN, "path:id", EXEC_INLINE, KEY_IN_LEDGER, 0, freeze, NULL, banking_unfreeze,
     "unfreezeAccount", "Administration", "Lift a freeze", "Freeze", 201, true},
};
/* clang-format on */
const size_t api_banking_routes_n = sizeof api_banking_routes / sizeof api_banking_routes[0];
