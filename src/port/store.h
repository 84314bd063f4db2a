/*
 * store: what the application needs of a database. Three engines implement it: memory (the reference model, for tests),
 * sqlite and postgres; one contract suite (tests/contract) runs over each.
 *
 * Three ways in:
 *
 *  1. Groups: movements of money and of tickets. One thread, the ledger writer, decides many commands at once:
 *         store_group_begin   lock and load the accounts, events and bookings that the commands name, in one round
 *         … decide with domain/ledger and domain/ticketing on the slots …
 *         store_group_commit  append the entries, their seal, idempotency rows, marks, new accounts; bookings and their
 *                             moves, stock, messages: one durable commit, all of it or nothing
 *     or  store_group_abort   nothing happened
 *     Between begin and commit no other write happens in this store (sqlite), or to these rows (servers).
 *  2. Transactions: everything else (users, keys, sessions, schedules, events, audit). Any thread.
 *         store_tx_begin … record writes … store_tx_commit | store_tx_rollback
 *     Blocks while a group commits. The outcome is durable when commit returns PFE_OK.
 *  3. Reads: any thread, no transaction; each sees the newest committed state of this process.
 *
 * Errors (translated by the engine, once): PFE_NOT_FOUND; PFE_DUP_USERNAME, PFE_DUP_EMAIL; PFE_WRONG_STATE
 * (an entry is already resolved, a booking has moved on); PFE_SOLD_OUT (an event's stock would leave its bounds);
 * PFE_IN_FLIGHT (an idempotency key or message was used already); PFE_DISK_FULL (nothing was done, writes may come back
 * by themselves); PFE_UNAVAILABLE (nothing was done); PFE_INTERNAL from a commit: the outcome is unknown and the store
 * is dead (store_info.fatal): stop acknowledging and exit. PFE_NOMEM. Outputs are untouched unless PFE_OK.
 *
 * PFE_FENCED (store_tx_fence): another process has the lease under which this was to be written.
 *
 * Strings in results live in the arena that was passed in.
 */
#ifndef PORT_STORE_H
#define PORT_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "domain/identity/identity.h"
#include "domain/ledger/ledger.h"
#include "domain/schedule/schedule.h"
#include "domain/ticketing/ticketing.h"
#include "port/documents.h"
#include "port/breaker.h"

struct store;
struct store_tx;

/* ---- groups ---- */

struct store_key {
    int64_t account; /* > 0: by id, and the rest is ignored */
    int64_t owner;   /* user id; 0: the external account of the currency */
    money_currency currency;
};

enum store_slot_state {
    STORE_SLOT_FOUND,
    STORE_SLOT_NEW,       /* the owner exists and has no account in that currency yet: acc is ready to use, and is
                             created by the commit if `used` is set. External accounts are made so too. */
    STORE_SLOT_NO_OWNER,  /* no such user, or one being deleted */
    STORE_SLOT_NO_ACCOUNT /* by id: no such account */
};

struct store_slot {
    struct ledger_account acc;
    enum store_slot_state state;
    bool used; /* by the caller: acc differs from what was loaded, or is to be created */
};

struct store_idem_ref {
    int64_t principal;
    struct str key;
};

struct store_idem {
    int64_t principal;   /* user id; 0 anonymous; STORE_PRINCIPAL_* */
    struct str key;      /* 1..255 bytes */
    uint8_t request[32]; /* SHA-256 of method, path and body */
    int status;          /* HTTP status that was answered */
    struct str body;     /* the answer's bytes */
    int64_t seq;         /* first journal entry of the effect; 0: none */
};
enum { STORE_PRINCIPAL_SCHEDULER = -1 };

struct store_event_slot {
    struct ticket_event e;
    int64_t was_held, was_sold; /* as loaded: what is written is the difference */
    bool found;
    bool used; /* by the caller: the stock changed */
};

struct store_booking_slot {
    struct ticket_booking b;
    enum ticket_state was; /* as loaded: the write is refused unless the row still is so */
    int64_t was_version;
    bool found;
    bool used; /* by the caller: it moved; state, reason, version, hold_seq, paid_seq and updated_us are written */
};

/* A message that a consumer has dealt with. Kept in the commit of its effect, so that it has none a second time. */
struct store_inbox_ref {
    struct str consumer; /* 1..STORE_CONSUMER_MAX bytes of ASCII */
    uint8_t message[16]; /* UUIDv7 */
};
enum { STORE_CONSUMER_MAX = 32, STORE_MESSAGE_TYPE_MAX = 64, STORE_MESSAGE_MAX = 65536 };

/* A message to the outside, kept from the commit of what it tells until it was delivered. */
struct store_message {
    int64_t id; /* set by the store: 1, 2, 3 … in the order of commits, never used twice */
    uint8_t uuid[16];
    struct str type;    /* "BookingCreated" … */
    uint8_t key[16];    /* of what it is about: messages of one key are in order */
    struct str payload; /* JSON, at most STORE_MESSAGE_MAX bytes */
    int64_t created_us;
};
/* Which one. A replica that takes over and has missed the last ones gives their numbers out again: not another
   message's row may go for that. */
struct store_outbox_ref {
    int64_t id;
    uint8_t uuid[16];
};

/*
 * Leases: of all processes over a store, which one does a job. A lease has a name; its holder has it until ttl_us after
 * it was last taken or renewed, by the store's own clock (of a shared store: the server's), so that clocks of processes
 * need not agree. Each change of holder raises the token.
 *
 * A holder may be stopped for a minute and not know it, so what it writes carries a fence: the group or transaction
 * goes ahead only if the lease is still its holder's and has that token, and until it ends nobody else gets the lease.
 * A lease that ran out and that nobody took since still passes: nobody else has begun.
 *
 * An embedded store has one process: it keeps its leases in memory, and tokens begin anew when it is opened.
 */
enum { STORE_LEASE_NAME_MAX = 31, STORE_LEASE_HOLDER_MAX = 127, STORE_LEASES_MAX = 32 };

struct store_lease {
    char holder[STORE_LEASE_HOLDER_MAX + 1]; /* who has it, or had it last; empty: given back, or never taken */
    int64_t token;                           /* 0: never taken */
    int64_t left_us;                         /* until it runs out; <= 0: anybody may take it */
    bool mine;                               /* the caller was granted it */
};

struct store_fence {
    struct str name, holder; /* borrowed */
    int64_t token;
    bool ok; /* by the store */
};

/* What a group needs. Nothing in it repeats, and all of it stays valid until the group ends. */
struct store_group_ask {
    const struct store_key *keys;
    size_t n_keys; /* at most STORE_GROUP_KEYS_MAX, as are all of these */
    /* The keys that the same thread will ask store_idem_get for inside the group, so that a shared store can fetch them
       together with the accounts; the others do not look at them. */
    const struct store_idem_ref *idem;
    size_t n_idem;
    const int64_t *events; /* ids */
    size_t n_events;
    const int64_t *bookings; /* ids */
    size_t n_bookings;
    const struct store_inbox_ref *inbox;
    size_t n_inbox;
    /* Entries that the group is to resolve, by seq. A store that is not shared need not be asked: what was read before
       the group still is so. These may repeat. */
    const int64_t *refs;
    size_t n_refs;
    /* Under which parts of it are written. begin sets their ok: what stands under one that is not must be left out of
       the commit. Those that are hold until the group ends. These may repeat. */
    struct store_fence *fences;
    size_t n_fences;
};

/* Which it gets. The arrays are the caller's, with room for what was asked; element i answers element i. */
struct store_group {
    struct store_slot *slots;
    struct store_event_slot *events;
    struct store_booking_slot *bookings;
    bool *seen;           /* the consumer has dealt with that message */
    int64_t *resolved_by; /* the seq of the entry that resolves refs[i]; 0: none, or there is no such entry */
    int64_t first_seq;
    int64_t first_booking; /* id of the next booking to be made */
    /* In: the caller's wall clock. Out: the store's clock, by which bookings expire. An embedded store has no other
       than its process's and leaves it; of a shared one it is the server's. */
    int64_t now_us;
};

struct store_commit {
    int64_t ts;                         /* wall µs */
    const struct ledger_entry *entries; /* in order; seq = first_seq, first_seq + 1, … without gaps */
    size_t n_entries;
    const struct store_slot *slots; /* as given by begin, now after the entries; keys must not repeat an account */
    size_t n_slots;
    const struct store_idem *idem;
    size_t n_idem;
    const struct store_event_slot *events; /* as given by begin, now after the bookings */
    size_t n_events;
    const struct store_booking_slot *bookings;
    size_t n_bookings;
    const struct ticket_booking *created; /* id = first_booking, first_booking + 1, … */
    size_t n_created;
    const struct store_message *outbox; /* in order; ids are not looked at */
    size_t n_outbox;
    const struct store_inbox_ref *inbox;
    size_t n_inbox;
    const struct store_outbox_ref *delivered; /* to be deleted; those that are gone already are fine */
    size_t n_delivered;
};

/* ---- records ---- */

enum store_user_status { STORE_USER_ACTIVE = 0, STORE_USER_CLOSING = 1, STORE_USER_DELETED = 2 };

struct store_user {
    int64_t id; /* 1, 2, 3 … ; set by insert */
    uint8_t uuid[16];
    char username[IDENT_USERNAME_MAX + 1];
    char email[IDENT_EMAIL_MAX + 1];
    char password_hash[64];
    enum ident_role role;
    enum store_user_status status;
    int64_t created_us, updated_us;
};

struct store_apikey {
    int64_t id; /* set by insert */
    int64_t user;
    uint8_t hash[32];                             /* SHA-256 of the key's text */
    char prefix[12];                              /* its first characters, to recognise it by */
    int64_t created_us, last_used_us, revoked_us; /* 0: never */
};

struct store_session {
    uint8_t family[16]; /* UUIDv7 */
    int64_t user;
    int64_t created_us, expires_us, revoked_us;
};

struct store_refresh {
    uint8_t hash[32]; /* SHA-256 of the token's text */
    uint8_t family[16];
    int64_t created_us, expires_us, used_us;
};

struct store_schedule {
    int64_t id; /* set by insert */
    uint8_t uuid[16];
    int64_t owner;
    enum ledger_kind kind; /* DEPOSIT, WITHDRAW or TRANSFER */
    int64_t to_user;       /* TRANSFER */
    int64_t amount;
    money_currency currency;
    struct str description;
    struct str recurrence;                       /* as given; empty: once */
    int64_t anchor_us, next_us, end_us, last_us; /* next_us 0: no further run; end_us 0: no end */
    int64_t max_runs;                            /* 0: no limit */
    int64_t runs, refusals;                      /* refusals in a row */
    enum sched_status status;
    struct str last_error; /* empty: none */
    int64_t created_us, updated_us;
};

enum store_run_outcome { STORE_RUN_DONE = 0, STORE_RUN_REFUSED = 1, STORE_RUN_SKIPPED = 2 };
struct store_run {
    int64_t schedule, due_us; /* primary key */
    enum store_run_outcome outcome;
    int64_t seq; /* its journal entry; 0: none */
    int64_t ts;
    struct str error;
};

struct store_audit {
    int64_t id; /* set by append */
    int64_t ts;
    int64_t actor;     /* user id; 0 anonymous */
    struct str action; /* "login", "login.refused", "user.update" … */
    struct str entity; /* "user", "api_key", "cache" … */
    struct str entity_id;
    struct str outcome; /* "ok" or the error's slug */
    struct str address; /* of the client */
    struct str request_id;
    struct str detail; /* small JSON object or empty; never secrets */
};

struct store_audit_query {
    int64_t actor;             /* -1: any */
    struct str action, entity; /* empty: any; a trailing '*' in action matches a prefix */
    int64_t from_us, to_us;    /* 0: open; [from, to) */
    int64_t before_id;         /* 0: from the newest */
    int64_t offset;
    unsigned limit;
};

/* ---- reads of the journal ---- */

enum store_entry_status { STORE_STATUS_ANY = 0, STORE_STATUS_OPEN, STORE_STATUS_RESOLVED };

struct store_entry_query {
    int64_t account;                /* walk this account's chain; 0: the whole journal */
    int64_t before_seq;             /* only seq < before_seq; 0: from the newest */
    int64_t offset;                 /* matching entries to skip */
    unsigned limit;                 /* 1.. */
    unsigned kinds;                 /* bit per ledger_kind; 0: every kind that moves money */
    money_currency currency;        /* 0: any */
    int64_t from_us, to_us;         /* 0: open; from <= ts < to */
    int64_t min_amount, max_amount; /* 0: open, inclusive */
    int64_t counterparty;           /* owner of the account on the other side; -1: any; 0: external */
    enum store_entry_status status; /* OPEN: no later entry resolves it */
};
enum { STORE_SCAN_MAX = 100000 }; /* entries that one query looks at; then it stops and gives a cursor */

/* resolved_by: 0, or the seq of the entry that resolves this one. false stops the scan. Strings live for the call only.
 */
typedef bool (*store_entry_fn)(void *ctx, const struct ledger_entry *e, int64_t resolved_by);

struct store_replay {
    int64_t events;        /* entries of the account */
    int64_t balance, held; /* recomputed from amounts, not from stored balances */
    int64_t head;
    bool intact; /* the chain led from head to the first entry, each naming the account and agreeing in balance */
};

struct store_stat {
    enum ledger_kind kind;
    money_currency currency;
    int64_t count;
    int64_t volume; /* minor units; saturates at INT64_MAX */
};
enum store_window { STORE_WINDOW_ALL, STORE_WINDOW_DAY, STORE_WINDOW_HOUR };

struct store_trial { /* one currency of the trial balance */
    money_currency currency;
    int64_t accounts;
    int64_t user_balance; /* sum over user accounts (saturating) */
    int64_t external;     /* balance of the external account */
    int64_t sum;          /* of all: 0 */
};

struct store_verify {
    int64_t entries, seals, accounts, resolutions;
    int64_t bad_seq; /* first entry at fault; 0: none, or it is not an entry */
    bool ok;
    char what[160]; /* the first difference in words; empty when ok */
};

struct store_info {
    const char *engine;    /* "memory", "sqlite" */
    int schema;            /* newest migration applied */
    int64_t head_seq;      /* newest committed entry */
    int64_t projected_seq; /* the stored account rows reflect at least this */
    int64_t accounts;
    int64_t db_bytes, wal_bytes;
    int64_t replayed; /* entries replayed at start */
    bool writable;    /* the last write did not fail for want of room, and there is some */
    bool fatal;       /* a commit's outcome is unknown: exit */
};

/* Names an event or a booking. */
struct store_ref {
    int64_t id; /* > 0: by id, and the rest is ignored */
    uint8_t uuid[16];
};

struct store_booking_query {
    int64_t user;      /* > 0: of this user */
    struct str guest;  /* else: of this guest */
    int64_t before_id; /* 0: from the newest */
    int64_t offset;
    unsigned limit;
};

struct store_words;

enum store_stale { STORE_STALE_ALLOW, STORE_STALE_LOOK, STORE_STALE_END };

/* Of a shared store: its connections, its primary's circuit breaker, its replicas. */
enum { STORE_REPLICAS_MAX = 8 };
struct store_pool {
    unsigned max_open, open, in_use, idle;
    int64_t waits, timeouts; /* callers that had to wait for a connection; and in vain */
    int64_t connects, failures;
    bool reachable; /* the last attempt to connect went well */
};
struct store_replica {
    char name[64];     /* host:port */
    const char *state; /* "up", "down", "ejected" */
    unsigned weight, active, open;
    int64_t lag_us; /* all that was acknowledged that long ago is there; -1: not known */
    uint64_t picks, served, failed;
    uint64_t behind; /* reads that the primary answered because this one had not come so far */
    struct port_breaker breaker;
};
struct store_checks { /* of replicas, whether they are there */
    int64_t interval_us, timeout_us;
    unsigned healthy_threshold, unhealthy_threshold; /* checks in a row, until it is in, or out */
};
struct store_cluster {
    struct store_pool pool;
    struct port_breaker primary;
    bool stalled;           /* commits wait for synchronous replicas that do not answer: writes fail at once */
    uint64_t retries;       /* of reads whose connection was lost */
    uint64_t group_retries; /* of groups that met a deadlock, or waited too long for a lock */
    uint64_t indexes, asks; /* reads that took a position of the primary's, and queries for it */
    uint64_t primary_reads; /* reads that a replica might have answered */
    uint64_t stale_reads;
    const char *algorithm; /* that shares reads out: "round_robin" …; "spare": they read only without the primary */
    struct store_checks checks;
    unsigned n;
    struct store_replica replicas[STORE_REPLICAS_MAX];
};

struct store_ops {
    void (*close)(struct store *s);
    enum pf_err (*info)(struct store *s, struct store_info *ret);

    bool shared;                                                 /* see store_shared */
    bool (*cluster)(struct store *s, struct store_cluster *ret); /* NULL: it is none */
    int64_t (*stale)(struct store *s, enum store_stale step);    /* NULL: always 0 */
    /* NULL, both: nobody shares it */
    enum pf_err (*word_say)(struct store *s, const char *process, const char *word, struct store_words *ret);
    void (*word_end)(struct store *s, const char *process);
    struct documents *(*documents)(struct store *s); /* NULL: it keeps none */
    enum pf_err (*lease_take)(struct store *s, struct str name, struct str holder, int64_t ttl_us,
                              struct store_lease *ret);
    enum pf_err (*lease_drop)(struct store *s, struct str name, struct str holder);
    enum pf_err (*group_begin)(struct store *s, const struct store_group_ask *ask, struct store_group *g);
    enum pf_err (*group_commit)(struct store *s, const struct store_commit *c);
    void (*group_abort)(struct store *s);
    enum pf_err (*flush)(struct store *s);
    enum pf_err (*account_rebuild)(struct store *s, int64_t account, struct store_replay *ret);

    enum pf_err (*tx_begin)(struct store *s, struct store_tx **ret);
    enum pf_err (*tx_commit)(struct store_tx *tx);
    void (*tx_rollback)(struct store_tx *tx);
    enum pf_err (*tx_fence)(struct store_tx *tx, const struct store_fence *f);

    enum pf_err (*user_insert)(struct store_tx *tx, struct store_user *u);
    enum pf_err (*user_update)(struct store_tx *tx, const struct store_user *u);
    enum pf_err (*apikey_insert)(struct store_tx *tx, struct store_apikey *k);
    enum pf_err (*apikey_revoke)(struct store_tx *tx, int64_t user, int64_t id, int64_t now_us, int64_t *ret_n);
    enum pf_err (*apikey_touch)(struct store_tx *tx, int64_t id, int64_t now_us);
    enum pf_err (*session_insert)(struct store_tx *tx, const struct store_session *f);
    enum pf_err (*session_revoke)(struct store_tx *tx, int64_t user, const uint8_t family[16], int64_t now_us);
    enum pf_err (*refresh_insert)(struct store_tx *tx, const struct store_refresh *r);
    enum pf_err (*refresh_use)(struct store_tx *tx, const uint8_t hash[32], int64_t now_us);
    enum pf_err (*schedule_insert)(struct store_tx *tx, struct store_schedule *d);
    enum pf_err (*schedule_update)(struct store_tx *tx, const struct store_schedule *d);
    enum pf_err (*run_insert)(struct store_tx *tx, const struct store_run *r);
    enum pf_err (*audit_append)(struct store_tx *tx, struct store_audit *a);
    enum pf_err (*idem_put)(struct store_tx *tx, const struct store_idem *i);
    enum pf_err (*event_insert)(struct store_tx *tx, struct ticket_event *e);
    enum pf_err (*event_status)(struct store_tx *tx, int64_t id, enum ticket_event_status status);
    enum pf_err (*inbox_purge)(struct store_tx *tx, int64_t before_us, int64_t *ret_n);

    enum pf_err (*user_get)(struct store *s, int64_t id, struct store_user *ret);
    enum pf_err (*user_by_uuid)(struct store *s, const uint8_t uuid[16], struct store_user *ret);
    enum pf_err (*user_by_name)(struct store *s, struct str username, struct store_user *ret);
    bool (*user_name_free)(struct store *s, struct str username); /* NULL: it cannot tell */
    enum pf_err (*user_by_email)(struct store *s, struct str email, struct store_user *ret);
    enum pf_err (*user_list)(struct store *s, int64_t before_id, int64_t offset, unsigned limit, struct store_user *out,
                             unsigned *ret_n);
    enum pf_err (*admin_count)(struct store *s, int64_t *ret);
    enum pf_err (*users_closing)(struct store *s, int64_t before_us, unsigned limit, int64_t *out, unsigned *ret_n);
    enum pf_err (*apikey_by_hash)(struct store *s, const uint8_t hash[32], struct store_apikey *ret);
    enum pf_err (*apikey_list)(struct store *s, int64_t user, int64_t before_id, unsigned limit,
                               struct store_apikey *out, unsigned *ret_n);
    enum pf_err (*session_get)(struct store *s, const uint8_t family[16], struct store_session *ret);
    enum pf_err (*refresh_get)(struct store *s, const uint8_t hash[32], struct store_refresh *ret);
    enum pf_err (*schedule_get)(struct store *s, struct arena *a, int64_t id, struct store_schedule *ret);
    enum pf_err (*schedule_by_uuid)(struct store *s, struct arena *a, const uint8_t uuid[16],
                                    struct store_schedule *ret);
    enum pf_err (*schedule_list)(struct store *s, struct arena *a, int64_t owner, int64_t before_id, int64_t offset,
                                 unsigned limit, struct store_schedule *out, unsigned *ret_n);
    enum pf_err (*schedule_due)(struct store *s, struct arena *a, int64_t now_us, unsigned limit,
                                struct store_schedule *out, unsigned *ret_n, int64_t *ret_next_us);
    enum pf_err (*run_list)(struct store *s, struct arena *a, int64_t schedule, unsigned limit, struct store_run *out,
                            unsigned *ret_n);
    enum pf_err (*audit_list)(struct store *s, struct arena *a, const struct store_audit_query *q,
                              struct store_audit *out, unsigned *ret_n);
    enum pf_err (*idem_get)(struct store *s, struct arena *a, int64_t principal, struct str key,
                            struct store_idem *ret);
    enum pf_err (*events_get)(struct store *s, const struct store_ref *refs, size_t n, struct ticket_event *out);
    enum pf_err (*bookings_get)(struct store *s, const struct store_ref *refs, size_t n, struct ticket_booking *out);
    enum pf_err (*booking_list)(struct store *s, const struct store_booking_query *q, struct ticket_booking *out,
                                unsigned *ret_n);
    enum pf_err (*bookings_due)(struct store *s, int64_t now_us, unsigned limit, int64_t *out_ids, unsigned *ret_n);
    enum pf_err (*outbox_list)(struct store *s, struct arena *a, int64_t after_id, unsigned limit,
                               struct store_message *out, unsigned *ret_n);

    enum pf_err (*account_get)(struct store *s, int64_t owner, money_currency currency, struct ledger_account *ret);
    enum pf_err (*account_by_id)(struct store *s, int64_t id, struct ledger_account *ret);
    enum pf_err (*account_list)(struct store *s, int64_t owner, struct ledger_account *out, unsigned cap,
                                unsigned *ret_n);
    enum pf_err (*entry_get)(struct store *s, struct arena *a, int64_t seq, struct ledger_entry *ret,
                             int64_t *ret_resolved_by);
    enum pf_err (*entry_list)(struct store *s, const struct store_entry_query *q, store_entry_fn fn, void *ctx,
                              int64_t *ret_cursor);
    enum pf_err (*journal_scan)(struct store *s, int64_t after_seq, int64_t limit, store_entry_fn fn, void *ctx);
    enum pf_err (*balance_at)(struct store *s, int64_t account, int64_t at_us, int64_t *ret_balance);
    enum pf_err (*holds_due)(struct store *s, int64_t now_us, unsigned limit, int64_t *out_seq, unsigned *ret_n);
    enum pf_err (*replay)(struct store *s, int64_t account, struct store_replay *ret);
    enum pf_err (*stats)(struct store *s, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                         unsigned *ret_n);
    enum pf_err (*trial)(struct store *s, struct store_trial *out, unsigned cap, unsigned *ret_n);
    enum pf_err (*verify)(struct store *s, struct store_verify *ret);
};

/* Engines embed these as the first member of theirs. */
struct store {
    const struct store_ops *ops;
};
struct store_tx {
    struct store *store;
};

/* Closes and frees; flushes what is written behind. No other call may be running. NULL is allowed. */
void store_close(struct store *s);
enum pf_err store_info(struct store *s, struct store_info *ret);

/* Other processes write to this store too, and every call may wait for the network. What was read before a group began
   may have changed by then: look again inside it. */
bool store_shared(const struct store *s);
/* false: it is an embedded one, or was opened for a command only. Quick; any thread. */
bool store_cluster(struct store *s, struct store_cluster *ret);

/* Reads of the calling thread may from ALLOW to END be stale, if there is no better answer (a shared store's primary is
   not there): they are then shown, decide nothing, and go into no cache. LOOK and END return how far the worst of them
   may be behind, in microseconds; 0: none is. Outside of that such a read is PFE_UNAVAILABLE. */
int64_t store_stale(struct store *s, enum store_stale step);

/* One process's word on its cache, to the others that share the store (port/cache.h): which server it hears of changes
   through and tells them by, as 16 bytes of text; "" when it can do neither. The word is durable before this returns,
   and lasts for STORE_WORD_US after the last time it was said. */
struct store_words {
    unsigned others;   /* processes with a word */
    unsigned apart;    /* of these, those whose word is not ours */
    unsigned speaking; /* those whose word is not "" */
    bool fresh;        /* we had no word that still counted */
};
enum { STORE_WORD_MAX = 16, STORE_WORD_US = 30 * 1000000 };
/* Also with a store that is not shared: then nobody else is there. Blocking. */
enum pf_err store_word_say(struct store *s, const char *process, const char *word, struct store_words *ret) MUSTCHECK;
/* No more of this process. */
void store_word_end(struct store *s, const char *process);

/* The documents in the same database, the store's own until it closes; NULL: the engine keeps none. Once a store. */
struct documents *store_documents(struct store *s);

/* Takes a lease that is free or has run out, or renews the caller's own; else nothing changes. PFE_OK: *ret says who
   has it now. name and holder: 1..STORE_LEASE_NAME_MAX, STORE_LEASE_HOLDER_MAX bytes of ASCII; no two processes share a
   holder. ttl_us > 0. While a fenced group or transaction of the holder's is under way, another's take waits for its
   end, or is not granted. PFE_BUSY, PFE_UNAVAILABLE: perhaps taken, for all that is known; ask again. Any thread. */
enum pf_err store_lease_take(struct store *s, struct str name, struct str holder, int64_t ttl_us,
                             struct store_lease *ret) MUSTCHECK;
/* Gives the lease back, so that another may take it at once; its token is void from now on. PFE_NOT_FOUND: it was not
   the holder's. */
enum pf_err store_lease_drop(struct store *s, struct str name, struct str holder) MUSTCHECK;

/* Groups: one thread at a time. g->slots[i] answers ask->keys[i], and so on. */
enum { STORE_GROUP_KEYS_MAX = 65536 };
enum pf_err store_group_begin(struct store *s, const struct store_group_ask *ask, struct store_group *g) MUSTCHECK;
/* Ends the group whatever it returns. An empty commit (nothing to add or delete, no slot used) is allowed and writes
   nothing; of a shared store it makes what the group was shown safe to acknowledge: until then it may be on this server
   only. The store guards what was decided with conditions of its own, and then does nothing at all: PFE_WRONG_STATE (an
   entry was resolved before, a booking is no longer in the state that it was loaded in), PFE_SOLD_OUT (held + sold of
   an event would exceed its capacity, or one of them fall below 0), PFE_IN_FLIGHT (idempotency, inbox). */
enum pf_err store_group_commit(struct store *s, const struct store_commit *c) MUSTCHECK;
void store_group_abort(struct store *s);
/* Writes behind what is not yet written of the projections (accounts, statistics). Between groups, same thread. */
enum pf_err store_flush(struct store *s) MUSTCHECK;

/* Overwrites one account's projection (balance, held, head, entries, marks) with what the journal says, durably.
   Between groups, same thread. *ret: what was found; when it is not intact the journal is at fault and nothing is
   written. */
enum pf_err store_account_rebuild(struct store *s, int64_t account, struct store_replay *ret) MUSTCHECK;

enum pf_err store_tx_begin(struct store *s, struct store_tx **ret) MUSTCHECK;
enum pf_err store_tx_commit(struct store_tx *tx) MUSTCHECK; /* frees tx in every case */
void store_tx_rollback(struct store_tx *tx);                /* frees tx; NULL is allowed */
/* PFE_FENCED: the lease has moved on, and nothing may be committed. PFE_OK: it stays with the holder until the
   transaction ends. At most once in a transaction; f->ok is not looked at. */
enum pf_err store_tx_fence(struct store_tx *tx, const struct store_fence *f) MUSTCHECK;

/* Usernames and emails are unique among users that are not deleted, compared by ident_fold. */
enum pf_err store_user_insert(struct store_tx *tx, struct store_user *u) MUSTCHECK;
/* Overwrites all but id, uuid and created_us. Deleting frees the username and the email for others. */
enum pf_err store_user_update(struct store_tx *tx, const struct store_user *u) MUSTCHECK;
enum pf_err store_apikey_insert(struct store_tx *tx, struct store_apikey *k) MUSTCHECK;
/* id 0: all of the user's keys. *ret_n (may be NULL): how many were live until now. */
enum pf_err store_apikey_revoke(struct store_tx *tx, int64_t user, int64_t id, int64_t now_us,
                                int64_t *ret_n) MUSTCHECK;
enum pf_err store_apikey_touch(struct store_tx *tx, int64_t id, int64_t now_us) MUSTCHECK;
enum pf_err store_session_insert(struct store_tx *tx, const struct store_session *f) MUSTCHECK;
/* family NULL: all of the user's. user 0 with a family: whoever's it is. Revoking twice is fine. */
enum pf_err store_session_revoke(struct store_tx *tx, int64_t user, const uint8_t family[16], int64_t now_us) MUSTCHECK;
enum pf_err store_refresh_insert(struct store_tx *tx, const struct store_refresh *r) MUSTCHECK;
/* Marks a token used, once: PFE_WRONG_STATE if it is used already, PFE_NOT_FOUND if unknown. */
enum pf_err store_refresh_use(struct store_tx *tx, const uint8_t hash[32], int64_t now_us) MUSTCHECK;
enum pf_err store_schedule_insert(struct store_tx *tx, struct store_schedule *d) MUSTCHECK;
/* Overwrites next_us, last_us, runs, refusals, status, last_error, updated_us. */
enum pf_err store_schedule_update(struct store_tx *tx, const struct store_schedule *d) MUSTCHECK;
/* PFE_WRONG_STATE if there is a run of that schedule and due time with outcome DONE; REFUSED and SKIPPED are
 * overwritten. */
enum pf_err store_run_insert(struct store_tx *tx, const struct store_run *r) MUSTCHECK;
enum pf_err store_audit_append(struct store_tx *tx, struct store_audit *a) MUSTCHECK;
/* PFE_IN_FLIGHT if the principal has used the key already (read it again: it is another's result). */
enum pf_err store_idem_put(struct store_tx *tx, const struct store_idem *i) MUSTCHECK;
/* PFE_WRONG_STATE: there is an event with this uuid. */
enum pf_err store_event_insert(struct store_tx *tx, struct ticket_event *e) MUSTCHECK;
enum pf_err store_event_status(struct store_tx *tx, int64_t id, enum ticket_event_status status) MUSTCHECK;
/* Forgets the messages made (by the time in their UUIDv7) before before_us. *ret_n (may be NULL): how many. */
enum pf_err store_inbox_purge(struct store_tx *tx, int64_t before_us, int64_t *ret_n) MUSTCHECK;

/* Deleted users are found by id and uuid, not by name or email. */
enum pf_err store_user_get(struct store *s, int64_t id, struct store_user *ret) MUSTCHECK;
enum pf_err store_user_by_uuid(struct store *s, const uint8_t uuid[16], struct store_user *ret) MUSTCHECK;
enum pf_err store_user_by_name(struct store *s, struct str username, struct store_user *ret) MUSTCHECK;
/* Without blocking. true: store_user_by_name finds nobody, surely; false: look there, this engine cannot tell. */
bool store_user_name_free(struct store *s, struct str username);
enum pf_err store_user_by_email(struct store *s, struct str email, struct store_user *ret) MUSTCHECK;
/* Newest first, without deleted ones; before_id 0: from the newest. out has room for limit. */
enum pf_err store_user_list(struct store *s, int64_t before_id, int64_t offset, unsigned limit, struct store_user *out,
                            unsigned *ret_n) MUSTCHECK;
enum pf_err store_admin_count(struct store *s, int64_t *ret) MUSTCHECK; /* active admins */
/* Ids of the users that are CLOSING since before before_us (updated_us), lowest first. Looks at all users. out has room
   for limit. */
enum pf_err store_users_closing(struct store *s, int64_t before_us, unsigned limit, int64_t *out,
                                unsigned *ret_n) MUSTCHECK;
enum pf_err store_apikey_by_hash(struct store *s, const uint8_t hash[32], struct store_apikey *ret) MUSTCHECK;
/* The user's keys that are not revoked, newest first; before_id 0: from the newest. Hashes are left zero. */
enum pf_err store_apikey_list(struct store *s, int64_t user, int64_t before_id, unsigned limit,
                              struct store_apikey *out, unsigned *ret_n) MUSTCHECK;
enum pf_err store_session_get(struct store *s, const uint8_t family[16], struct store_session *ret) MUSTCHECK;
enum pf_err store_refresh_get(struct store *s, const uint8_t hash[32], struct store_refresh *ret) MUSTCHECK;
enum pf_err store_schedule_get(struct store *s, struct arena *a, int64_t id, struct store_schedule *ret) MUSTCHECK;
enum pf_err store_schedule_by_uuid(struct store *s, struct arena *a, const uint8_t uuid[16],
                                   struct store_schedule *ret) MUSTCHECK;
/* owner 0: everybody's. Newest first. */
enum pf_err store_schedule_list(struct store *s, struct arena *a, int64_t owner, int64_t before_id, int64_t offset,
                                unsigned limit, struct store_schedule *out, unsigned *ret_n) MUSTCHECK;
/* Pending or active with 0 < next_us <= now_us, earliest first. *ret_next_us: the earliest next_us after now_us, 0:
 * none. */
enum pf_err store_schedule_due(struct store *s, struct arena *a, int64_t now_us, unsigned limit,
                               struct store_schedule *out, unsigned *ret_n, int64_t *ret_next_us) MUSTCHECK;
enum pf_err store_run_list(struct store *s, struct arena *a, int64_t schedule, unsigned limit, struct store_run *out,
                           unsigned *ret_n) MUSTCHECK; /* latest due first */
enum pf_err store_audit_list(struct store *s, struct arena *a, const struct store_audit_query *q,
                             struct store_audit *out, unsigned *ret_n) MUSTCHECK; /* newest first */
/* Also inside a group or transaction of the same thread (sees committed rows only). */
enum pf_err store_idem_get(struct store *s, struct arena *a, int64_t principal, struct str key,
                           struct store_idem *ret) MUSTCHECK;

/* Events and bookings: out[i] answers refs[i]; its id is 0 when there is none. n <= STORE_GROUP_KEYS_MAX. */
enum pf_err store_events_get(struct store *s, const struct store_ref *refs, size_t n,
                             struct ticket_event *out) MUSTCHECK;
enum pf_err store_bookings_get(struct store *s, const struct store_ref *refs, size_t n,
                               struct ticket_booking *out) MUSTCHECK;
/* One of them; PFE_NOT_FOUND. */
enum pf_err store_event_get(struct store *s, const struct store_ref *ref, struct ticket_event *ret) MUSTCHECK;
enum pf_err store_booking_get(struct store *s, const struct store_ref *ref, struct ticket_booking *ret) MUSTCHECK;
/* Newest first; a cursor is the last one's id. */
enum pf_err store_booking_list(struct store *s, const struct store_booking_query *q, struct ticket_booking *out,
                               unsigned *ret_n) MUSTCHECK;
/* Pending bookings with expires_us <= now by the store's clock, earliest first. now_us: the caller's wall clock, which
   is that of an embedded store. */
enum pf_err store_bookings_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_ids,
                               unsigned *ret_n) MUSTCHECK;
/* Messages not delivered yet with id > after_id, oldest first. Those of earlier ids are not committed later, unless a
   replica took over that had missed some: it gives their numbers out again. */
enum pf_err store_outbox_list(struct store *s, struct arena *a, int64_t after_id, unsigned limit,
                              struct store_message *out, unsigned *ret_n) MUSTCHECK;

/* Accounts: memory-speed in the embedded engines, callable from I/O threads. */
enum pf_err store_account_get(struct store *s, int64_t owner, money_currency currency,
                              struct ledger_account *ret) MUSTCHECK;
enum pf_err store_account_by_id(struct store *s, int64_t id, struct ledger_account *ret) MUSTCHECK;
/* Ordered by id. *ret_n <= cap. */
enum pf_err store_account_list(struct store *s, int64_t owner, struct ledger_account *out, unsigned cap,
                               unsigned *ret_n) MUSTCHECK;
enum pf_err store_entry_get(struct store *s, struct arena *a, int64_t seq, struct ledger_entry *ret,
                            int64_t *ret_resolved_by) MUSTCHECK;
/* Newest first. *ret_cursor: before_seq for the next page, 0 when there is nothing more. */
enum pf_err store_entry_list(struct store *s, const struct store_entry_query *q, store_entry_fn fn, void *ctx,
                             int64_t *ret_cursor) MUSTCHECK;
/* Oldest first, every kind. limit 0: all. resolved_by is passed as 0. */
enum pf_err store_journal_scan(struct store *s, int64_t after_seq, int64_t limit, store_entry_fn fn,
                               void *ctx) MUSTCHECK;
/* The balance after the last entry with ts <= at_us; 0 before the first. Time is made monotonic by the engine: the
   entry is found by seq among marks whose ts is the running maximum. O(log n). */
enum pf_err store_balance_at(struct store *s, int64_t account, int64_t at_us, int64_t *ret_balance) MUSTCHECK;
/* Open holds with 0 < expires_us <= now_us, by seq. */
enum pf_err store_holds_due(struct store *s, int64_t now_us, unsigned limit, int64_t *out_seq,
                            unsigned *ret_n) MUSTCHECK;
/* Recomputes an account from the journal; writes nothing. */
enum pf_err store_replay(struct store *s, int64_t account, struct store_replay *ret) MUSTCHECK;
enum pf_err store_stats(struct store *s, enum store_window w, int64_t now_us, struct store_stat *out, unsigned cap,
                        unsigned *ret_n) MUSTCHECK;
enum pf_err store_trial(struct store *s, struct store_trial *out, unsigned cap, unsigned *ret_n) MUSTCHECK;
/* Everything: seals, chains, balances, resolutions, marks, stored account rows, trial balance. Long; a read. */
enum pf_err store_verify(struct store *s, struct store_verify *ret) MUSTCHECK;

#endif
