/*
 * The nth allocation fails on behalf of a request, for every n: once, and from then on until its connection is gone.
 *
 * The server is the real one, all of it, on a loopback port. Warm: it has answered the same request before. Cold: it
 * has just started, no statement is prepared, nothing cached, every table at its first size. Where a request allocates
 * more often than WARM_POINTS or COLD_POINTS, points are drawn with a seed that is printed (ALLOC_SEED repeats it);
 * ALLOC_POINTS=n draws so many, ALLOC_ALL=1 takes each. ALLOC_ONLY=text: only requests with that in their name.
 *
 * After each failure: the answer is the right one, a problem of 503 or 500, or a closed connection where there was
 * nothing to answer with. A 2xx has its whole effect, a 503 none, anything else one of both; asked again with the same
 * Idempotency-Key it has happened exactly once. The balances in memory are those of the journal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "faults/harness.h"
#include "faults/inject.h"

enum {
    WARM_POINTS = 30,
    COLD_POINTS = 10,
    ALL_POINTS = 1000000,
    BODY_MAX = HTTP_TEXT_MAX,
    SET_UP = 3 /* what libmicrohttpd allocates for a connection */,
    PROOF_EVERY = 30
};

enum who { NOBODY, ROOT, ADA, ADA_TOKEN, OWN_TOKEN };

struct spec {
    const char *name;
    enum who who;
    const char *line, *body; /* @u: a number of this request's own; @x: what `before` has found */
    int status;
    const char *effect; /* a figure of the database that success raises */
    int by;
    bool keyed;           /* with an Idempotency-Key */
    bool alike;           /* the same answer every time */
    const char *headers;  /* further ones */
    void (*before)(void); /* each time, undisturbed */
};

static char root_key[128], ada_key[128], ada_token[1024], ada_refresh[1024], own_token[1024], found[2048];
static unsigned long unique = 1000, seed;
static char large[BODY_MAX];

#define ENTRIES "SELECT ifnull(max(seq), 0) FROM journal"
#define USERS "SELECT count(*) FROM user"
#define USERS_LIVE "SELECT count(*) FROM user WHERE status = 0"
#define KEYS "SELECT count(*) FROM api_key"
#define TOKENS "SELECT count(*) FROM refresh"
#define SCHEDULES "SELECT count(*) FROM schedule"
#define CANCELLED "SELECT count(*) FROM schedule WHERE status = 3"
#define REVOKED "SELECT count(*) FROM session WHERE revoked_us > 0"
#define ACCOUNTS "SELECT count(*) FROM account"
#define EVENTS "SELECT count(*) FROM event"
#define BOOKINGS "SELECT count(*) FROM booking"

static void expand(const char *from, char *to, size_t cap)
{
    size_t n = 0;
    for (; *from && n + 1 < cap; from++) {
        if (from[0] == '@' && from[1] == 'u')
            n += (size_t)snprintf(to + n, cap - n, "%lu", unique), from++;
        else if (from[0] == '@' && from[1] == 'x')
            n += (size_t)snprintf(to + n, cap - n, "%s", found), from++;
        else
            to[n++] = *from;
    }
    to[n < cap ? n : cap - 1] = '\0';
}

static const char *credential(enum who who)
{
    static char line[1200];
    line[0] = '\0';
    if (who == ROOT || who == ADA)
        snprintf(line, sizeof line, "X-API-Key: %s\r\n", who == ROOT ? root_key : ada_key);
    else if (who != NOBODY)
        snprintf(line, sizeof line, "Authorization: Bearer %s\r\n", who == ADA_TOKEN ? ada_token : own_token);
    return line;
}

static void take(const struct reply *r, const char *name, char *out, size_t cap)
{
    if (!json_member(r->body, name, out, cap))
        harness_fail("no %s in %.*s", name, (int)r->body.n, r->body.p);
}

/* ---- what a request needs to be there ---- */

static void make_user(const char *name)
{
    char body[256];
    snprintf(body, sizeof body, "{\"username\":\"%s\",\"email\":\"%s@example.com\",\"password\":\"password123\"}", name,
             name);
    struct reply r = http_must(201, "POST /api/users", "", body);
    take(&r, "id", found, sizeof found);
}

static void before_user(void)
{
    char name[32];
    snprintf(name, sizeof name, "x%lu", unique);
    make_user(name);
}

static void login(const char *name, char *access, char *refresh)
{
    char body[256];
    snprintf(body, sizeof body, "{\"username\":\"%s\",\"password\":\"password123\"}", name);
    struct reply r = http_must(200, "POST /api/v1/auth/login", "", body);
    take(&r, "access_token", access, 1024);
    take(&r, "refresh_token", refresh, 1024);
}

static void before_session(void)
{
    char name[32];
    before_user();
    snprintf(name, sizeof name, "x%lu", unique);
    login(name, own_token, found);
}

static void before_rollback(void)
{
    struct reply r = http_must(201, "POST /api/transactions/deposit", "", "{\"user_id\":2,\"amount\":1}");
    take(&r, "id", found, sizeof found);
}

static void before_cancel(void)
{
    struct reply r = http_must(201, "POST /api/v1/scheduled-transactions", credential(ADA_TOKEN),
                               "{\"type\":\"credit\",\"amount\":1,\"scheduled_at\":\"2199-01-01T00:00:00Z\"}");
    take(&r, "id", found, sizeof found);
}

#define EVENT                                                                                                          \
    "{\"title\":\"A concert "                                                                                          \
    "@u\",\"location\":\"here\",\"date\":\"2099-01-01\",\"total_tickets\":100,\"m\\u0065mber\":[1.50]}"

static void before_event(void)
{
    struct reply r = http_must(
        201, "POST /api/events", "",
        "{\"title\":\"t\",\"location\":\"l\",\"date\":\"2099-01-01\",\"total_tickets\":100,\"m\\u0065mber\":[1.50]}");
    take(&r, "id", found, sizeof found);
}

static void before_booking(void)
{
    char body[sizeof found + 80];
    before_event();
    snprintf(body, sizeof body, "{\"user_id\":\"guest\",\"event_id\":\"%s\",\"ticket_count\":1}", found);
    struct reply r = http_must(201, "POST /api/bookings", "", body);
    take(&r, "booking_id", found, sizeof found);
}

/* A batch of one good and one refused, or of two, is what comes with the table below; this one makes the answer long.
 */
static void before_uncached(void)
{
    http_must(200, "POST /api/cache/invalidate", "", "{\"pattern\":\"*\"}");
}

#define WORDS_50 "lorem ipsum dolor sit amet consectetur adipiscing "
/* longer than what buffers begin with */
#define TRANSFER                                                                                                       \
    "{\"from_user_id\":2,\"to_user_id\":3,\"amount\":0.01,\"description\":\"d@u " WORDS_50 WORDS_50 WORDS_50 WORDS_50  \
        WORDS_50 WORDS_50 "\"}"
#define REGISTER "{\"username\":\"u@u\",\"email\":\"u@u@example.com\",\"password\":\"password123\"}"
#define BATCH_OK                                                                                                       \
    "{\"transactions\":[{\"sender_id\":2,\"receiver_id\":3,\"amount\":0.02},"                                          \
    "{\"sender_id\":3,\"receiver_id\":2,\"amount\":0.01},{\"sender_id\":2,\"receiver_id\":3,\"amount\":0.01}]}"
#define BATCH_SOME                                                                                                     \
    "{\"atomic\":false,\"transactions\":[{\"sender_id\":2,\"receiver_id\":3,\"amount\":0.02},"                         \
    "{\"sender_id\":3,\"receiver_id\":2,\"amount\":999999999},{\"sender_id\":3,\"receiver_id\":2,\"amount\":0.01}]}"
#define SCHEDULE                                                                                                       \
    "{\"type\":\"transfer\",\"to_user_id\":3,\"amount\":1,\"scheduled_at\":\"2199-01-01T00:00:00Z\","                  \
    "\"recurrence\":\"monthly\"}"

static const struct spec specs[] = {
    {"create user", NOBODY, "POST /api/users", REGISTER, 201, USERS, 1, true},
    {"create user, no key", NOBODY, "POST /api/users", REGISTER, 201, USERS, 1},
    {"register", NOBODY, "POST /api/v1/auth/register", REGISTER, 201, USERS, 1, true},
    {"change user", ROOT, "PUT /api/users/@x", "{\"email\":\"y@u@example.com\"}", 200,
     "SELECT count(*) FROM user WHERE email LIKE 'y%'", 1, .before = before_user},
    {"change password", ROOT, "PUT /api/users/@x", "{\"password\":\"password456\"}", 200, .before = before_user},
    {"delete user", ROOT, "DELETE /api/users/@x", NULL, 200, USERS_LIVE, -1, .before = before_user},
    {"login", NOBODY, "POST /api/login", "{\"username\":\"x@u\",\"password\":\"password123\"}", 200, KEYS, 1,
     .before = before_user},
    {"login for tokens", NOBODY, "POST /api/v1/auth/login",
     "{\"email\":\"x@u@example.com\",\"password\":\"password123\"}", 200, TOKENS, 1, .before = before_user},
    {"refused login", NOBODY, "POST /api/login", "{\"username\":\"x@u\",\"password\":\"wrong\"}", 401,
     .before = before_user},
    {"refresh", NOBODY, "POST /api/v1/auth/refresh", "{\"refresh_token\":\"@x\"}", 200, TOKENS, 1,
     .before = before_session},
    {"logout", OWN_TOKEN, "POST /api/v1/auth/logout", "{\"refresh_token\":\"@x\"}", 200, REVOKED, 1,
     .before = before_session},
    {"deposit", NOBODY, "POST /api/transactions/deposit", "{\"user_id\":2,\"amount\":\"1.00\"}", 201, ENTRIES, 1, true},
    {"deposit, new account", NOBODY, "POST /api/transactions/deposit", "{\"user_id\":@x,\"amount\":1}", 201, ACCOUNTS,
     1, true, .before = before_user},
    {"deposit, no key", NOBODY, "POST /api/transactions/deposit", "{\"user_id\":2,\"amount\":1}", 201, ENTRIES, 1},
    {"withdraw", NOBODY, "POST /api/transactions/withdraw", "{\"user_id\":2,\"amount\":0.01}", 201, ENTRIES, 1, true},
    {"transfer", ADA, "POST /api/transactions/transfer", TRANSFER, 201, ENTRIES, 1, true},
    {"transfer by token", ADA_TOKEN, "POST /api/v1/transactions/transfer", "{\"to_user_id\":3,\"amount\":0.01}", 201,
     ENTRIES, 1, true},
    {"refused transfer", ADA, "POST /api/transactions/transfer",
     "{\"from_user_id\":2,\"to_user_id\":3,\"amount\":99999999}", 422},
    {"forbidden transfer", ADA, "POST /api/transactions/transfer", "{\"from_user_id\":3,\"to_user_id\":2,\"amount\":1}",
     403},
    {"batch", ROOT, "POST /api/transactions/batch", BATCH_OK, 201, ENTRIES, 3, true},
    {"batch, each alone", ROOT, "POST /api/transactions/batch", BATCH_SOME, 201, ENTRIES, 2, true},
    {"rollback", ROOT, "POST /api/v1/transactions/@x/rollback", "{\"reason\":\"r\"}", 201, ENTRIES, 1, true,
     .before = before_rollback},
    {"credit", ADA_TOKEN, "POST /api/v1/transactions/credit", "{\"amount\":1}", 201, ENTRIES, 1, true},
    {"debit", ADA_TOKEN, "POST /api/v1/transactions/debit", "{\"amount\":0.01}", 201, ENTRIES, 1, true},
    {"initialize", NOBODY, "POST /api/balances/initialize?user_id=@x", NULL, 201, ACCOUNTS, 1, true,
     .before = before_user},
    {"freeze", ROOT, "POST /api/v1/admin/users/@x/freeze", "{}", 201, .before = before_user},
    {"schedule", ADA_TOKEN, "POST /api/v1/scheduled-transactions", SCHEDULE, 201, SCHEDULES, 1, true},
    {"cancel schedule", ADA_TOKEN, "DELETE /api/v1/scheduled-transactions/@x", NULL, 200, CANCELLED, 1,
     .before = before_cancel},
    {"schedules", ADA_TOKEN, "GET /api/v1/scheduled-transactions?limit=100", NULL, 200, .alike = true},
    {"replace key", ROOT, "POST /api/users/api-key", "{}", 200, KEYS, 1},
    {"keys", ROOT, "GET /api/users/1/api-keys?limit=5", NULL, 200},
    {"user", ROOT, "GET /api/users/2", NULL, 200, .alike = true, .before = before_uncached},
    {"users", ROOT, "GET /api/users?limit=100", NULL, 200, .alike = true},
    {"balance", ROOT, "GET /api/balances?user_id=2", NULL, 200, .alike = true, .before = before_uncached},
    {"balance, cached", ROOT, "GET /api/balances?user_id=2", NULL, 200, .alike = true},
    {"balances", ADA_TOKEN, "GET /api/v1/balances/current", NULL, 200, .alike = true},
    {"history", ROOT, "GET /api/balances/history?user_id=2&limit=50&offset=3", NULL, 200, .alike = true},
    {"history by time", ADA_TOKEN, "GET /api/v1/balances/historical?from=2020-01-01T00:00:00Z&limit=50", NULL, 200,
     .alike = true},
    {"balance at a time", ADA_TOKEN, "GET /api/v1/balances/at-time?timestamp=2024-01-01T00:00:00Z", NULL, 200,
     .alike = true},
    {"replay", NOBODY, "POST /api/balances/replay?user_id=2", NULL, 200, .alike = true},
    {"rebuild", NOBODY, "POST /api/balances/rebuild?user_id=2", NULL, 200, .alike = true},
    {"transaction", ROOT, "GET /api/transactions/1", NULL, 200, .alike = true, .before = before_uncached},
    {"transactions", ROOT, "GET /api/transactions?user_id=2&limit=30&type=transfer", NULL, 200, .alike = true},
    {"transactions, a page on", ADA_TOKEN,
     "GET /api/v1/transactions/history?limit=20&type=transfer&min_amount=0.01&currency=USD&counterparty=3", NULL, 200,
     .alike = true},
    {"statistics", ROOT, "GET /api/transactions/stats", NULL, 200},
    {"audit", ROOT, "GET /api/v1/admin/audit?limit=100&action=user.*", NULL, 200, .alike = true},
    {"journal", ROOT, "GET /api/v1/admin/journal?after_seq=0&limit=100", NULL, 200, .alike = true},
    {"reconciliation", ROOT, "GET /api/v1/admin/reconciliation", NULL, 200},
    {"cache", NOBODY, "GET /api/cache/stats", NULL, 200},
    {"cache keys", NOBODY, "GET /api/cache/keys?pattern=*", NULL, 200},
    {"warm up", NOBODY, "POST /api/cache/warmup", "{}", 200, .before = before_uncached},
    {"warm up one", NOBODY, "POST /api/cache/warmup", "{\"type\":\"user\",\"user_id\":2}", 200,
     .before = before_uncached},
    {"invalidate", NOBODY, "POST /api/cache/invalidate", "{\"user_id\":2}", 200},
    {"metrics", NOBODY, "GET /metrics", NULL, 200},
    {"basic metrics", NOBODY, "GET /metrics/basic", NULL, 200},
    {"health", NOBODY, "GET /health", NULL, 200},
    {"ready", NOBODY, "GET /health/ready", NULL, 200},
    {"healthz", NOBODY, "GET /healthz", NULL, 200},
    {"ping", NOBODY, "GET /api/v1/ping", NULL, 200, .alike = true},
    {"openapi", NOBODY, "GET /openapi.json", NULL, 200, .alike = true},
    {"openapi, gzip", NOBODY, "GET /openapi.json", NULL, 200, .headers = "Accept-Encoding: gzip\r\n"},
    {"journal, gzip", ROOT, "GET /api/v1/admin/journal?limit=100", NULL, 200, .headers = "Accept-Encoding: gzip\r\n"},
    {"docs", NOBODY, "GET /docs", NULL, 200, .alike = true},
    {"docs, script", NOBODY, "GET /docs/swagger-ui-bundle.js", NULL, 200, .alike = true},
    {"register by email", NOBODY, "POST /api/auth/register",
     "{\"email\":\"v@u@example.com\",\"password\":\"password123\"}", 201, USERS, 1, true},
    {"create event", NOBODY, "POST /api/events", EVENT, 201, EVENTS, 1, true},
    {"event", NOBODY, "GET /api/events/@x", NULL, 200, .before = before_event},
    {"events", NOBODY, "GET /api/events?page=1&limit=5&q=CONCERT&from=2098-01-01", NULL, 200, .alike = true},
    {"book", NOBODY, "POST /api/bookings", "{\"user_id\":2,\"event_id\":\"@x\",\"ticket_count\":1}", 201, BOOKINGS, 1,
     true, .before = before_event},
    {"book for a guest", NOBODY, "POST /api/bookings", "{\"user_id\":\"g@u\",\"event_id\":\"@x\",\"ticket_count\":7}",
     201, BOOKINGS, 1, .before = before_event},
    {"booking", NOBODY, "GET /api/bookings/@x", NULL, 200, .before = before_booking},
    {"bookings", ADA, "GET /api/bookings?limit=5", NULL, 200},
    {"no JSON", NOBODY, "POST /api/transactions/deposit", "{\"user_id\":2,", 400},
    {"not JSON we take", NOBODY, "POST /api/transactions/deposit", "{\"user_id\":\"?\",\"amount\":true}", 422},
    {"nowhere", NOBODY, "GET /nowhere", NULL, 404},
    {"wrong method", NOBODY, "DELETE /api/login", NULL, 405},
    {"options", NOBODY, "OPTIONS /api/users", NULL, 204,
     .headers = "Origin: https://x\r\nAccess-Control-Request-Method: POST\r\n"},
    {"no credential", NOBODY, "GET /api/users/2", NULL, 401},
    {"bad key", NOBODY, "GET /api/users/2", NULL, 401, .headers = "X-API-Key: pf_wrong\r\n"},
    {"traced", NOBODY, "GET /api/v1/ping", NULL, 200,
     .headers = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nOrigin: https://x\r\n"},
};
enum { SPECS = sizeof specs / sizeof specs[0] };

/* ---- the state that all requests find ---- */

static void populate(const char *dir)
{
    if (server_start(dir) != -1)
        harness_fail("the server does not start");
    http_must(201, "POST /api/users", "",
              "{\"username\":\"root\",\"email\":\"root@example.com\",\"password\":\"password123\",\"role\":\"admin\"}");
    make_user("ada");
    make_user("bob");
    struct reply r = http_must(200, "POST /api/login", "", "{\"username\":\"root\",\"password\":\"password123\"}");
    take(&r, "api_key", root_key, sizeof root_key);
    r = http_must(200, "POST /api/login", "", "{\"username\":\"ada\",\"password\":\"password123\"}");
    take(&r, "api_key", ada_key, sizeof ada_key);
    login("ada", ada_token, ada_refresh);
    for (int id = 2; id <= 3; id++) {
        snprintf(large, sizeof large, "{\"user_id\":%d,\"amount\":100000}", id);
        http_must(201, "POST /api/transactions/deposit", "", large);
    }
    size_t n = (size_t)snprintf(large, sizeof large, "{\"transactions\":[");
    for (int i = 0; i < 150; i++)
        n += (size_t)snprintf(large + n, sizeof large - n, "%s{\"sender_id\":2,\"receiver_id\":3,\"amount\":1}",
                              i ? "," : "");
    snprintf(large + n, sizeof large - n, "]}");
    http_must(201, "POST /api/transactions/batch", credential(ROOT), large);
    before_cancel();
}

static void begin(const char *dir)
{
    if (server_start(dir) != -1)
        harness_fail("the server does not start again");
    sql_open(dir);
}

static void end(const char *what)
{
    sql_close();
    int code = server_stop();
    if (code != 0)
        harness_fail("%s: the server ends with %d", what, code);
}

/* ---- what must hold ---- */

static int64_t minor(const char *amount)
{
    int64_t v = 0;
    for (; *amount; amount++)
        if (*amount != '.')
            v = v * 10 + (*amount - '0');
    return v;
}

static void expect_balance(int user)
{
    char line[80], sql[320], text[64];
    snprintf(line, sizeof line, "GET /api/balances?user_id=%d", user);
    struct reply r = http_must(200, line, credential(ROOT), NULL);
    take(&r, "balance", text, sizeof text);
    snprintf(sql, sizeof sql,
             "SELECT CASE WHEN debit = a.id THEN debit_balance ELSE credit_balance END FROM journal, account a"
             " WHERE a.owner = %d AND a.currency = 840 AND (debit = a.id OR credit = a.id) ORDER BY seq DESC LIMIT 1",
             user);
    if (minor(text) != sql_int(sql))
        harness_fail("user %d has %s in memory, %lld in the journal", user, text, (long long)sql_int(sql));
}

/* What `payflow verify` proves, by the server itself: its memory too. */
static void expect_proof(const char *what)
{
    struct reply r = http_must(200, "GET /api/v1/admin/reconciliation", credential(ROOT), NULL);
    char consistent[16] = "";
    if (!json_member(r.body, "consistent", consistent, sizeof consistent) || strcmp(consistent, "true") != 0)
        harness_fail("%s: %.*s", what, (int)r.body.n, r.body.p);
    for (int user = 2; user <= 3; user++) {
        char line[80];
        snprintf(line, sizeof line, "POST /api/balances/replay?user_id=%d", user);
        r = http_must(200, line, "", NULL);
        if (!json_member(r.body, "consistent", consistent, sizeof consistent) || strcmp(consistent, "true") != 0)
            harness_fail("%s: %.*s", what, (int)r.body.n, r.body.p);
    }
}

/* Nothing is left of earlier requests: this one alone is there. */
static void expect_quiet(const char *what)
{
    static const char *const gauges[] = {"\npayflow_http_connections 1\n",
                                         "\npayflow_http_in_flight 1\n",
                                         "\npayflow_queue_depth 0\n",
                                         "\npayflow_pool_busy{pool=\"hashers\"} 0\n",
                                         "\npayflow_pool_busy{pool=\"workers\"} 0\n",
                                         "\npayflow_pool_queue_depth{pool=\"hashers\"} 0\n",
                                         "\npayflow_pool_queue_depth{pool=\"workers\"} 0\n",
                                         "\npayflow_store_writable 1\n"};
    for (int tries = 0;; tries++) {
        struct reply r = http_must(200, "GET /metrics", "", NULL);
        const char *missing = NULL;
        for (size_t i = 0; i < sizeof gauges / sizeof gauges[0] && !missing; i++)
            if (!strstr(r.body.p, gauges[i]))
                missing = gauges[i];
        if (!missing)
            return;
        if (tries == 100) {
            const char *line = memmem(missing, strlen(missing), "payflow", 7);
            harness_fail("%s: there is no %s in the metrics", what, line);
        }
        usleep(5000);
    }
}

/* And the ledger has nothing at hand: it answers in order, and this changes nothing. */
static void expect_idle(const char *what)
{
    expect_quiet(what);
    http_must(200, "POST /api/balances/initialize?user_id=2", "", NULL);
}

static bool is_problem(const struct reply *r)
{
    char type[256], status[16];
    return http_header_of(r, "Content-Type", type) && strcmp(type, "application/problem+json") == 0 &&
           json_whole(r->body) && json_member(r->body, "status", status, sizeof status) &&
           strtol(status, NULL, 10) == r->status;
}

/* A body that must be whole, and is worth looking at. */
static bool is_whole(const struct reply *r)
{
    char type[256], coding[256];
    if (!r->whole && r->status != 204)
        return false;
    if (http_header_of(r, "Content-Encoding", coding))
        return r->body.n > 18 && (uint8_t)r->body.p[0] == 0x1f && (uint8_t)r->body.p[1] == 0x8b;
    return !http_header_of(r, "Content-Type", type) || !strstr(type, "json") || json_whole(r->body);
}

struct request {
    char line[2300], headers[2600], body[4096];
    const char *body_or_none;
};

static void fill(const struct spec *s, struct request *q)
{
    unique++;
    found[0] = '\0';
    if (s->before)
        s->before();
    expand(s->line, q->line, sizeof q->line);
    int n = snprintf(q->headers, sizeof q->headers, "%s%s", credential(s->who), s->headers ? s->headers : "");
    if (s->keyed)
        snprintf(q->headers + n, sizeof q->headers - (size_t)n, "Idempotency-Key: key-%lu\r\n", unique);
    if (s->body)
        expand(s->body, q->body, sizeof q->body);
    q->body_or_none = s->body ? q->body : NULL;
}

static struct reply ask(const struct request *q)
{
    return http_ask(q->line, q->headers, q->body_or_none);
}

static char first_body[BODY_MAX];

struct tally {
    long right, refused, closed, once_closed;
    bool strict; /* all that the server keeps for requests is there */
};

/* Once, with failures from allocation n on. Returns how many there were. */
/* What bookings set off goes on behind their answers, and its allocations would be counted in. */
static void expect_settled(void)
{
    for (int tries = 0;
         sql_int("SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM booking WHERE state <= 2)"); tries++) {
        if (tries == 1000)
            harness_fail("bookings are not decided, or their messages not delivered");
        usleep(5000);
    }
}

static long disturb(const struct spec *s, long n, bool rest, const char *want_body, size_t want_n, struct tally *t)
{
    struct request q;
    fill(s, &q);
    if (strstr(s->name, "book"))
        expect_settled();
    int64_t before = s->effect ? sql_int(s->effect) : 0;
    inject_arm(n, rest);
    struct reply r = ask(&q);
    long hits = inject_disarm();
#define WRONG(...)                                                                                                     \
    do {                                                                                                               \
        dprintf(STDERR_FILENO, "%s: allocation %ld fails%s: status %d\n%.*s\n%.*s\n", s->name, n,                      \
                rest ? ", and all after it" : "", r.status, (int)r.head.n, r.head.p,                                   \
                r.body.n < 2000 ? (int)r.body.n : 2000, r.body.p);                                                     \
        harness_fail(__VA_ARGS__);                                                                                     \
    } while (0)
    if (!server_runs())
        WRONG("the server has ended");
    bool right = r.status == s->status;
    if (right && !is_whole(&r))
        WRONG("half an answer");
    if (right && s->alike && want_body && (r.body.n != want_n || memcmp(r.body.p, want_body, want_n) != 0)) {
        size_t at = 0;
        while (at < r.body.n && at < want_n && r.body.p[at] == want_body[at])
            at++;
        at = at < 80 ? 0 : at - 80;
        WRONG("another answer than without the failure: %.200s\nin place of: %.200s", r.body.p + at, want_body + at);
    }
    if (!right && r.status != 0 && ((r.status != 503 && r.status != 500) || !r.whole || !is_problem(&r)))
        WRONG("neither the right answer nor a problem of 503 or 500");
    if (!right && hits == 0)
        WRONG("nothing has failed");
    t->right += right;
    t->refused += !right && r.status;
    t->closed += !r.status;
    t->once_closed += !r.status && !rest;
    if (t->strict && !r.status && !rest && !inject_in("libmicrohttpd"))
        WRONG("no answer, although only one allocation of our own has failed");
    if (r.status == 0)
        expect_idle(s->name); /* whatever runs on for a client that is gone */
    if (!s->effect) {
        if (!s->keyed)
            return hits;
    }
    size_t kept = r.body.n < sizeof first_body ? r.body.n : 0;
    int status = r.status;
    if (kept)
        memcpy(first_body, r.body.p, kept);
    int64_t now = s->effect ? sql_int(s->effect) : 0;
    if (now != before && now != before + s->by)
        WRONG("half of it was done: %lld of %d", (long long)(now - before), s->by);
    bool done = now != before;
    if (right && !done)
        WRONG("answered, but not done");
    if (status == 503 && done)
        WRONG("done, but 503 says that nothing was done");
    if (!s->keyed)
        return hits;
    for (int tries = 0; tries < 200; tries++) {
        r = ask(&q);
        if (r.status != 409) /* a request whose client has gone is carried out all the same */
            break;
        usleep(2000);
    }
    char replayed[256];
    bool again = http_header_of(&r, "Idempotency-Replayed", replayed);
    if (r.status != s->status || !r.whole)
        WRONG("asked again, it is refused");
    if (done && !again)
        WRONG("asked again, it is not the first answer");
    if (right && (r.body.n != kept || memcmp(r.body.p, first_body, kept) != 0))
        WRONG("asked again, the answer is another than the first: %.*s", (int)kept, first_body);
    if (sql_int(s->effect) != before + s->by)
        WRONG("asked again, it is done %lld times", (long long)((sql_int(s->effect) - before) / s->by));
    return hits;
}

static void expect_after(const struct spec *s)
{
    if (s->effect && strcmp(s->effect, ENTRIES) == 0) {
        expect_balance(2);
        expect_balance(3);
    } else {
        http_must(200, "GET /health/live", "", NULL);
    }
    /* the key that the request has replaced, if it has */
    if (strcmp(s->name, "replace key") == 0) {
        struct reply r = http_must(200, "POST /api/login", "", "{\"username\":\"root\",\"password\":\"password123\"}");
        take(&r, "api_key", root_key, sizeof root_key);
    }
}

static void undisturbed(const struct spec *s)
{
    struct request q;
    fill(s, &q);
    struct reply r = ask(&q);
    if (r.status != s->status || !is_whole(&r))
        harness_fail("%s: %d without any failure\n%s%.*s", s->name, r.status, q.line, (int)r.body.n, r.body.p);
    expect_after(s);
}

static bool chosen(const char *name)
{
    const char *only = getenv("ALLOC_ONLY");
    return !only || strstr(name, only);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static unsigned long random_next(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return seed >> 33;
}

static long points_most(long otherwise)
{
    const char *points = getenv("ALLOC_POINTS");
    return getenv("ALLOC_ALL") ? ALL_POINTS : points ? strtol(points, NULL, 10) : otherwise;
}

/* The kth of `most` points below `all`, more than there may be: the first ones, then drawn ones. */
static long point(long k, long most, long all)
{
    return k < most / 2 ? k : most / 2 + (long)(random_next() % (unsigned long)(all - most / 2));
}

/* ---- warm ---- */

static void warm(const struct spec *s)
{
    static char plain[BODY_MAX];
    struct tally t = {.strict = true};
    double t0 = now_s();
    long points[2] = {0};
    undisturbed(s);
    undisturbed(s);
    for (int rest = 0; rest < 2; rest++) {
        size_t plain_n = 0;
        if (s->alike) {
            struct request q;
            fill(s, &q);
            struct reply r = ask(&q);
            plain_n = r.body.n;
            memcpy(plain, r.body.p, plain_n);
            plain[plain_n] = '\0';
        }
        (void)disturb(s, -1, false, NULL, 0, &t);
        expect_after(s);
        long all = inject_seen(), most = points_most(WARM_POINTS);
        for (long k = 0; k < most; k++) {
            long n = all <= most ? k : point(k, most, all);
            long hits = disturb(s, n, rest, s->alike ? plain : NULL, plain_n, &t);
            expect_after(s);
            points[rest] += hits > 0;
            if (hits == 0 && all <= most) /* behind the last one */
                break;
            if (k % PROOF_EVERY == PROOF_EVERY - 1)
                expect_proof(s->name);
        }
    }
    undisturbed(s);
    expect_quiet(s->name);
    expect_proof(s->name);
    leaks_check(s->name);
    print_message("  %-26s %4ld once, %4ld from then on: %4ld right, %4ld refused, %3ld closed (%ld by one) %6.2f s\n",
                  s->name, points[0], points[1], t.right, t.refused, t.closed, t.once_closed, now_s() - t0);
    /* one lost allocation leaves enough to answer, but for a connection that could not be set up */
    if (t.once_closed > SET_UP)
        harness_fail("%s: no answer although only one allocation failed", s->name);
}

static void every_request_warm(void **state)
{
    char dir[512];
    (void)state;
    harness_path(dir, "warm");
    populate(dir);
    sql_open(dir);
    for (int i = 0; i < SPECS; i++)
        if (chosen(specs[i].name))
            warm(&specs[i]);
    end("after all requests");
    leaks_check("after the end");
}

/* ---- cold ---- */

static void cold_once(const char *dir, const struct spec *s, long n, bool rest, struct tally *t)
{
    begin(dir);
    disturb(s, n, rest, NULL, 0, t);
    expect_after(s);
    undisturbed(s);
    end(s->name);
}

static void every_request_cold(void **state)
{
    char dir[512];
    (void)state;
    harness_path(dir, "cold");
    populate(dir);
    if (server_stop() != 0)
        harness_fail("the server does not stop");
    long runs = 0;
    double t0 = now_s();
    struct tally t = {0};
    static const char *const those[] = {"create user",       "login for tokens", "refresh",  "transfer",
                                        "batch, each alone", "rollback",         "schedule", "deposit, new account"};
    for (int i = 0; i < SPECS; i++) {
        const struct spec *s = &specs[i];
        bool in = false;
        for (size_t k = 0; k < sizeof those / sizeof those[0]; k++)
            in |= strcmp(those[k], s->name) == 0;
        if (!chosen(s->name) || !in)
            continue;
        begin(dir);
        struct tally none = {0};
        disturb(s, -1, false, NULL, 0, &none);
        long all = inject_seen(), most = points_most(COLD_POINTS), count = all < most ? all : most;
        end(s->name);
        for (int rest = 0; rest < 2; rest++)
            for (long k = 0; k < count; k++, runs++)
                cold_once(dir, s, all <= most ? k : (long)(random_next() % (unsigned long)all), rest, &t);
        leaks_check(s->name);
        print_message("  %-26s %ld of %ld\n", s->name, count, all);
    }
    begin(dir);
    expect_proof("cold");
    end("cold");
    print_message("  %ld starts: %ld right, %ld refused, %ld closed, %.2f s\n", runs, t.right, t.refused, t.closed,
                  now_s() - t0);
}

int main(int argc, char **argv)
{
    harness_init();
    const char *given = getenv("ALLOC_SEED");
    seed = given ? strtoul(given, NULL, 10) : (unsigned long)time(NULL);
    print_message("ALLOC_SEED=%lu\n", seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_warm),
        cmocka_unit_test(every_request_cold),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
