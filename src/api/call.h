/*
 * call: one request on its way through the api room. Internal to src/api.
 *
 * A route's `run` gets a call whose credential, right, body and query have been checked and decoded. It fills in the
 * answer and returns API_DONE; or hands a job to the ledger and returns API_PENDING (api_ledger); or, when it may not
 * block and would have to, returns API_BLOCK before any effect: it is then run again on a worker.
 */
#ifndef API_CALL_H
#define API_CALL_H

#include "api/api.h"
#include "app/accounts.h"
#include "app/admin.h"
#include "app/bookings.h"
#include "app/identity.h"
#include "app/movement.h"
#include "app/schedules.h"
#include "base/cidr.h"
#include "codec/json_in.h"
#include "codec/json_out.h"

enum api_step { API_DONE, API_PENDING, API_BLOCK };
/* Where a route starts: on the I/O thread (and again on a worker if it would block there), on a worker, on a hasher. */
enum api_exec { EXEC_INLINE, EXEC_POOL, EXEC_HASH };
/* Does it honour Idempotency-Key, and who looks the key up: the dispatcher, or the ledger writer in its group? */
enum api_idem { NO_KEY, KEY_IN_APP, KEY_IN_LEDGER };

enum api_type {
    F_TEXT,
    F_INT,
    F_BOOL,
    F_AMOUNT,
    F_USER,
    F_TIME,
    F_CURRENCY,
    F_ARRAY,
    F_USERNAME,
    F_EMAIL,
    F_PASSWORD,
    F_BUYER
};

/* F_USERNAME, F_EMAIL and F_PASSWORD are judged by domain/identity. F_BUYER: a user's number, or text of 1..64 bytes.
 */
enum { API_FIELDS_MAX = 12 };

struct api_field {
    const char *name; /* NULL ends the list */
    enum api_type type;
    bool required;
    int64_t min, max;   /* F_INT: range when max != 0; F_TEXT: bytes, max 0: no limit of its own */
    const char *values; /* F_TEXT: allowed values, separated by '|' */
    const char *doc;
};

/* A decoded field. `set` is false when it is absent (or null). */
struct api_value {
    bool set;
    int64_t i;               /* INT, USER (id), TIME (µs), CURRENCY (number), BOOL; BUYER: is it a number? */
    struct str s;            /* TEXT; AMOUNT, BUYER: its digits or text */
    const struct json *json; /* ARRAY */
};

struct api_call;
struct web_file;

struct api_route {
    enum http_method method;
    const char *path;
    struct app_rule rule;
    /* Whom it is about: "query:user_id", "path:id", "body:user_id", "self" (the caller); NULL: nobody in particular;
       "handler": only the use case can know (a transaction's parties, a schedule's owner) and checks the right itself.
       For RIGHT_OWNER the dispatcher has checked the caller against it before `run`. */
    const char *subject;
    enum api_exec exec;
    enum api_idem idem;
    size_t body_max;
    const struct api_field *body, *query;
    enum api_step (*run)(struct api_call *c);
    const char *id, *tag, *summary, *result; /* for OpenAPI; result names a schema or is NULL */
    int ok;                                  /* status of success */
    bool banking;                            /* ids are UUIDs in its answers */
    int also;                                /* another status of success, with the same shape; 0: none */
    const char *media;                       /* of an answer that is not JSON; NULL: JSON */
    bool by_value; /* Idempotency-Key: two requests whose fields say the same are the same, however they are written */
};

/* Where a call comes from, and its answer goes to: HTTP (over_http.c), or gRPC (over_grpc.c), whose calls are requests
   to a route as well. */
struct api_transport {
    /* Of the request, whatever the case of the name. Absent: .p == NULL. The first of several. */
    struct str (*header)(const struct api_call *c, const char *name);
    unsigned (*header_count)(const struct api_call *c, const char *name);
    void (*set_header)(struct api_call *c, const char *name, struct str value);
    /* c->resumed runs on the I/O thread of the call once another thread has called resume, exactly once. */
    void (*suspend)(struct api_call *c);
    void (*resume)(struct api_call *c);
    /* With c->p, c->idem.replayed, c->file or r->out. The call is gone then. */
    void (*answer)(struct api_call *c);
    /* Does nobody wait for it any more? Then what has not begun does not begin. From any thread. */
    bool (*gone)(const struct api_call *c);
};

struct api_call {
    struct api *api;
    struct app *app;
    const struct api_transport *transport;
    void (*resumed)(struct api_call *c); /* see suspend */
    void *over;                          /* the transport's */
    struct http_req *r; /* the request; functions of http/ take it only if the transport is HTTP: routes that gRPC has
                           as well use its arena, params, path, body and out */
    const struct api_route *route;
    struct caller caller;
    bool may_block;
    bool trusted; /* app_confirm has said yes */
    struct cache_confirm question;
    bool suspended;
    bool counted; /* against RATE_LIMIT: once, though it may run again on a worker */
    bool guessed; /* its refused credential was counted */
    struct problem p;
    int status; /* of the answer, unless p.code is set */
    const char *content_type;
    struct api_value body[API_FIELDS_MAX], query[API_FIELDS_MAX];
    const struct json *json; /* the body, an object; NULL: there is none, or it is not parsed yet */
    int64_t subject;         /* whom it is about, once resolved */
    struct app_idem idem;
    struct pool_job pool_job;
    /* ledger */
    struct job job;
    struct movement one;
    void (*refused)(struct job *j);     /* says why, instead of the single movement's words; may be NULL */
    void (*render)(struct api_call *c); /* writes the answer to r->out after success */
    uint8_t from_uuid[16], to_uuid[16], ref_uuid[16]; /* Banking: looked up before the movement */
    int64_t ref_party;                                /* rollback: owner of the account that it debits */
    void *user;
    const struct web_file *file; /* the answer is this embedded file */
};

struct api {
    struct api_config cfg;
    struct http_route *http;
    size_t n_http;
    const struct api_route **rows; /* one a route, aliases left out */
    size_t n_rows;
    struct str openapi; /* rendered once */
    struct metric_counter *rate_limited;
    struct cidr_list proxies; /* trusted, for gRPC; http/ has its own */
};

/* A call on its way: transport, over, r, route and caller are set. On the I/O thread. */
void api_begin(struct api_call *c);

/* Ends the call with a problem; returns API_DONE. */
enum api_step api_fail(struct api_call *c, enum pf_err e, const char *detail);
/* Ends it with `status` and what is in r->out. */
enum api_step api_ok(struct api_call *c, int status);
/* A JSON writer on r->out. */
struct jw api_out(struct api_call *c);
/* e into the call: PFE_OK false; PFE_BUSY while the call may not block: *ret = API_BLOCK; else a problem, *ret =
 * API_DONE. */
bool api_failed(struct api_call *c, enum pf_err e, const char *detail, enum api_step *ret);

/* The currency of a decoded field, or the default one. */
money_currency api_currency(const struct api_call *c, const struct api_value *v);
/* An amount's digits in minor units; false after adding a field error. in/name say where it stood. */
bool api_amount(struct problem *p, const char *in, const char *name, struct str digits, money_currency currency,
                int64_t *ret);
/* One JSON value by its field's rule. false: a field error was added; *blocked: a UUID must be looked up on a worker.
 */
bool api_decode(struct api_call *c, const struct api_field *f, const struct json *v, const char *in, const char *name,
                struct api_value *ret, bool *blocked);
/* Checks and decodes the body (an object, or nothing) and the query against the route's fields. */
enum api_step api_decode_all(struct api_call *c);

/* Hands call->job to the ledger. Before: job.kind and its inputs. After success c->render writes the answer (status
   route->ok or c->status). */
enum api_step api_ledger(struct api_call *c);

/* ---- lists ---- */

struct api_page {
    unsigned limit;
    int64_t offset, cursor; /* cursor 0: none */
};
/* From the query fields limit, offset, cursor at c->query[at], [at + 1], [at + 2]. false: a field error was added. */
bool api_page(struct api_call *c, unsigned at, struct api_page *ret);
#define API_PAGE_FIELDS                                                                                                \
    {"limit", F_INT, false, 1, 100, NULL, "How many, 1 to 100; 20 if absent."},                                        \
        {"offset", F_INT, false, 0, 1000000000000, NULL, "How many to skip."},                                         \
    {                                                                                                                  \
        "cursor", F_TEXT, false, 0, 64, NULL, "next_cursor of the page before; instead of offset."                     \
    }
/* Ends {"data":[… with the page's fields. next: cursor of the next page, 0: none. */
void api_page_end(struct jw *w, const struct api_page *p, int64_t next);

/* ---- shapes ---- */

unsigned api_scale(money_currency currency);
struct str api_code(money_currency currency);
void dto_uuid(struct jw *w, const char *key, const uint8_t uuid[16]);
void dto_user(struct jw *w, const struct store_user *u, bool banking);
/* Leaves the object open for further members; dto_balance ends it. user_uuid: Banking; NULL writes the number. */
void dto_balance_begin(struct jw *w, const struct ledger_account *acc, const uint8_t *user_uuid);
void dto_balance(struct jw *w, const struct ledger_account *acc, const uint8_t *user_uuid);
const char *dto_kind(enum ledger_kind k, bool banking);

/* A transaction as one caller sees it. */
struct dto_tx {
    const struct ledger_entry *e;
    int64_t debit_owner, credit_owner;
    int64_t resolved_by;
    int64_t viewer; /* whose balance_after is shown; 0: the account that the movement is about */
    bool banking;
    const uint8_t *from_uuid, *to_uuid, *ref_uuid; /* banking: NULL writes null */
};
void dto_transaction(struct jw *w, const struct dto_tx *t);
/* Looks up what a Banking answer needs and writes it. Blocking. */
void dto_transaction_of(struct api_call *c, struct jw *w, const struct app_tx *t);

/* Whose, in Banking: the caller, or user_id by an admin. */
extern const struct api_route api_payflow_routes[], api_banking_routes[], api_ticketing_routes[], api_platform_routes[];
extern const size_t api_payflow_routes_n, api_banking_routes_n, api_ticketing_routes_n, api_platform_routes_n;

enum pf_err api_openapi_render(struct api *a, struct buf *out);

#endif
