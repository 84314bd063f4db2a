/* The PayFlow surface: contract, section 2. */
#include "api/payflow/payflow.h"

static const char uuid_or_number[] = "A user: number or UUID.";

static const struct api_field pages[] = {API_PAGE_FIELDS, {0}};
static const struct api_field nothing[] = {{0}};
static const struct api_field user_query[] = {
    {"id", F_USER, false, 0, 0, NULL, "A user: number or UUID. Without it: the list, for admins."},
    API_PAGE_FIELDS,
    {0},
};
static const struct api_field user_id_required[] = {
    {"id", F_USER, true, 0, 0, NULL, uuid_or_number},
    {0},
};
static const struct api_field user_put[] = {
    {"id", F_USER, true, 0, 0, NULL, uuid_or_number},
    {"username", F_USERNAME, false, 1, 64, NULL, "New username."},
    {"email", F_EMAIL, false, 1, 254, NULL, "New email address."},
    {"role", F_TEXT, false, 1, 8, "user|admin", "New role; by an admin."},
    {"password", F_PASSWORD, false, 1, 72, NULL, "New password."},
    {0},
};
static const struct api_field account[] = {
    {"user_id", F_USER, false, 0, 0, NULL, "A user: number or UUID. The caller if absent."},
    {"currency", F_CURRENCY, false, 0, 0, NULL, "ISO 4217 code; the default currency if absent."},
    {0},
};
static const struct api_field account_page[] = {
    {"user_id", F_USER, false, 0, 0, NULL, "A user: number or UUID. The caller if absent."},
    {"currency", F_CURRENCY, false, 0, 0, NULL, "ISO 4217 code; the default currency if absent."},
    API_PAGE_FIELDS,
    {0},
};
static const struct api_field move[] = {
    {"user_id", F_USER, true, 0, 0, NULL, uuid_or_number},
    API_MOVE_FIELDS,
    {0},
};
static const struct api_field transfer[] = {
    {"from_user_id", F_USER, true, 0, 0, NULL, "Who pays: number or UUID."},
    {"to_user_id", F_USER, true, 0, 0, NULL, "Who is paid: number or UUID."},
    API_MOVE_FIELDS,
    {0},
};
static const struct api_field batch[] = {
    {"transactions", F_ARRAY, true, 0, 0, NULL,
     "1 to 10,000 items: sender_id, receiver_id, amount, currency?, description?."},
    {"atomic", F_BOOL, false, 0, 0, NULL, "true (default): all or none."},
    {0},
};
static const struct api_field transaction_query[] = {
    {"user_id", F_USER, false, 0, 0, NULL, "Whose; the caller's if absent (an admin: everybody's)."},
    API_PAGE_FIELDS,
    API_FILTER_FIELDS,
    {0},
};
static const struct api_field key_pattern[] = {
    {"pattern", F_TEXT, false, 0, 128, NULL, "Glob such as user:*."},
    {0},
};
static const struct api_field warmup[] = {
    {"type", F_TEXT, false, 1, 16, "user|all", "What to warm."},
    {"user_id", F_USER, false, 0, 0, NULL, "One user; all (up to 1,000) if absent."},
    {0},
};
static const struct api_field invalidate[] = {
    {"user_id", F_USER, false, 0, 0, NULL, "All keys of this user."},
    {"pattern", F_TEXT, false, 1, 128, NULL, "Glob such as user:*."},
    {0},
};

#define OPEN_OWNER                                                                                                     \
    {                                                                                                                  \
        RIGHT_OWNER, true                                                                                              \
    }
#define OPEN_ADMIN                                                                                                     \
    {                                                                                                                  \
        RIGHT_ADMIN, true                                                                                              \
    }

/* clang-format off */
const struct api_route api_payflow_routes[] = {
    {HTTP_POST, "/api/users", {RIGHT_PUBLIC, false}, NULL, EXEC_HASH, KEY_IN_APP, 0, api_user_new, NULL, api_register,
     "createUser", "Users", "Register a user", "User", 201, false},
    {HTTP_POST, "/api/login", {RIGHT_PUBLIC, false, true}, NULL, EXEC_HASH, NO_KEY, 0, api_login, NULL, payflow_login,
     "login", "Users", "Log in and get a fresh API key", "Login", 200, false},
    {HTTP_POST, "/api/users/api-key", {RIGHT_USER, false}, NULL, EXEC_POOL, NO_KEY, 0, NULL, NULL, payflow_key_replace,
     "replaceApiKey", "Users", "Replace the API key that was sent", "ApiKey", 200, false},
    {HTTP_GET, "/api/users", {RIGHT_OWNER, false}, "handler", EXEC_POOL, NO_KEY, 0, NULL, user_query, payflow_users_query,
     "getUsers", "Users", "One user by id, or the list for admins", "UserOrList", 200, false},
    {HTTP_GET, "/api/users/{id}", {RIGHT_OWNER, false}, "path:id", EXEC_INLINE, NO_KEY, 0, NULL, NULL, api_user_get,
     "getUser", "Users", "One user", "User", 200, false},
    {HTTP_PUT, "/api/users", {RIGHT_OWNER, false}, "body:id", EXEC_HASH, NO_KEY, 0, user_put, NULL, payflow_user_put,
     "updateUser", "Users", "Change a user", "User", 200, false},
    {HTTP_PUT, "/api/users/{id}", {RIGHT_OWNER, false}, "path:id", EXEC_HASH, NO_KEY, 0, api_user_put, NULL, api_user_put_path,
     "updateUserById", "Users", "Change a user", "User", 200, false},
    {HTTP_DELETE, "/api/users", {RIGHT_OWNER, false}, "query:id", EXEC_POOL, NO_KEY, 0, NULL, user_id_required, api_user_delete,
     "deleteUser", "Users", "Delete a user whose accounts are empty", "Deleted", 200, false},
    {HTTP_DELETE, "/api/users/{id}", {RIGHT_OWNER, false}, "path:id", EXEC_POOL, NO_KEY, 0, NULL, NULL, api_user_delete,
     "deleteUserById", "Users", "Delete a user whose accounts are empty", "Deleted", 200, false},

    {HTTP_GET, "/api/users/{id}/api-keys", {RIGHT_OWNER, false}, "path:id", EXEC_POOL, NO_KEY, 0, NULL, pages, payflow_keys,
     "listApiKeys", "Users", "A user's live API keys, by prefix", "ApiKeyList", 200, false},
    {HTTP_DELETE, "/api/users/{id}/api-keys/{key_id}", {RIGHT_OWNER, false}, "path:id", EXEC_POOL, NO_KEY, 0, NULL, NULL, payflow_key_revoke,
     "revokeApiKey", "Users", "Revoke an API key", "Deleted", 200, false},

    {HTTP_POST, "/api/balances/initialize", OPEN_OWNER, "query:user_id", EXEC_INLINE, KEY_IN_LEDGER, 0, nothing, account, payflow_balance_open,
     "initializeBalance", "Balances", "Open an account", "Balance", 201, false, 200, NULL},
    {HTTP_GET, "/api/balances", OPEN_OWNER, "query:user_id", EXEC_INLINE, NO_KEY, 0, NULL, account, payflow_balance_get,
     "getBalance", "Balances", "Balance, held and available", "Balance", 200, false},
    {HTTP_GET, "/api/balances/history", {RIGHT_OWNER, false}, "query:user_id", EXEC_POOL, NO_KEY, 0, NULL, account_page, payflow_balance_history,
     "getBalanceHistory", "Balances", "Entries with the balance after each", "HistoryList", 200, false},
    {HTTP_POST, "/api/balances/replay", OPEN_OWNER, "query:user_id", EXEC_POOL, NO_KEY, 0, nothing, account, payflow_balance_replay,
     "replayBalance", "Balances", "Recompute from the journal, write nothing", "Replay", 200, false},
    {HTTP_POST, "/api/balances/rebuild", OPEN_OWNER, "query:user_id", EXEC_POOL, NO_KEY, 0, nothing, account, payflow_balance_rebuild,
     "rebuildBalance", "Balances", "Overwrite the projection with what the journal says", "Replay", 200, false},

    {HTTP_POST, "/api/transactions/deposit", OPEN_OWNER, "body:user_id", EXEC_INLINE, KEY_IN_LEDGER, 0, move, NULL, payflow_deposit,
     "deposit", "Transactions", "Deposit money", "Transaction", 201, false},
    {HTTP_POST, "/api/transactions/withdraw", OPEN_OWNER, "body:user_id", EXEC_INLINE, KEY_IN_LEDGER, 0, move, NULL, payflow_withdraw,
     "withdraw", "Transactions", "Withdraw money", "Transaction", 201, false},
    {HTTP_POST, "/api/transactions/transfer", {RIGHT_OWNER, false}, "body:from_user_id", EXEC_INLINE, KEY_IN_LEDGER, 0, transfer, NULL, payflow_transfer,
     "transfer", "Transactions", "Transfer money between users", "Transaction", 201, false},
    {HTTP_POST, "/api/transactions/batch", {RIGHT_OWNER, false}, "handler", EXEC_POOL, KEY_IN_LEDGER, HTTP_BODY_BATCH, batch, NULL, payflow_batch,
     "batch", "Transactions", "Many transfers at once", "BatchResult", 201, false},
    {HTTP_GET, "/api/transactions", {RIGHT_OWNER, false}, "handler", EXEC_POOL, NO_KEY, 0, NULL, transaction_query, payflow_transactions,
     "listTransactions", "Transactions", "Transactions, newest first", "TransactionList", 200, false},
    {HTTP_GET, "/api/transactions/stats", {RIGHT_ADMIN, false}, NULL, EXEC_POOL, NO_KEY, 0, NULL, NULL, payflow_stats,
     "transactionStats", "Transactions", "Counts and volumes", "Stats", 200, false},
    {HTTP_GET, "/api/transactions/{id}", {RIGHT_OWNER, false}, "handler", EXEC_INLINE, NO_KEY, 0, NULL, NULL, api_transaction_get,
     "getTransaction", "Transactions", "One transaction, for its parties and admins", "Transaction", 200, false},

    {HTTP_GET, "/api/cache/stats", OPEN_ADMIN, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, payflow_cache_stats,
     "cacheStats", "Cache", "Hits, misses, entries and bytes by tier", "CacheStats", 200, false},
    {HTTP_GET, "/api/cache/keys", OPEN_ADMIN, NULL, EXEC_POOL, NO_KEY, 0, NULL, key_pattern, payflow_cache_keys,
     "cacheKeys", "Cache", "Keys that match a glob", "CacheKeys", 200, false},
    {HTTP_POST, "/api/cache/warmup", OPEN_ADMIN, NULL, EXEC_POOL, NO_KEY, 0, warmup, NULL, payflow_cache_warmup,
     "cacheWarmup", "Cache", "Load users and balances into the cache", "Warmed", 200, false},
    {HTTP_POST, "/api/cache/invalidate", OPEN_ADMIN, NULL, EXEC_POOL, NO_KEY, 0, invalidate, NULL, payflow_cache_invalidate,
     "cacheInvalidate", "Cache", "Drop a user's keys, or those that match a glob", "Invalidated", 200, false},
};
/* clang-format on */
const size_t api_payflow_routes_n = sizeof api_payflow_routes / sizeof api_payflow_routes[0];
