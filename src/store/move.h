/*
 * move: an installation carried from one engine to another, table by table.
 *
 * One engine gives rows, another takes them; what a table's columns are is said once, in move_tables, and each engine
 * has statements whose columns come in that order. A row is compared as the bytes that PostgreSQL's binary COPY has for
 * it, so that what was read can be held against what was stored: a digest of a table does not depend on the order of
 * its rows.
 *
 * Pure but for the caller's memory; a struct belongs to one thread at a time.
 */
#ifndef STORE_MOVE_H
#define STORE_MOVE_H

#include "base/buf.h"
#include "base/err.h"
#include "codec/crypt.h"

/* Not here: what an engine keeps for itself (migrations, heads and counters, see move_ends; indexes), and what the
   processes of an installation say about themselves (leases, words), which is of no use to others. */
enum move_table_id {
    MOVE_JOURNAL,
    MOVE_SEAL,
    MOVE_RESOLUTION,
    MOVE_OPEN_HOLD,
    MOVE_ACCOUNT,
    MOVE_MARK,
    MOVE_STAT,
    MOVE_IDEMPOTENCY,
    MOVE_USERS,
    MOVE_API_KEY,
    MOVE_SESSION,
    MOVE_REFRESH,
    MOVE_SCHEDULE,
    MOVE_SCHEDULE_RUN,
    MOVE_AUDIT,
    MOVE_EVENT,
    MOVE_BOOKING,
    MOVE_OUTBOX,
    MOVE_INBOX,
    MOVE_EVENT_DOCUMENT,
    MOVE_TABLES
};

enum { MOVE_COLUMNS_MAX = 20 };

struct move_table {
    const char *name;
    /* a letter per column: i 64-bit number, s 16-bit number, t text, b bytes */
    const char *columns;
};
extern const struct move_table move_tables[MOVE_TABLES];

struct move_value { /* of a column: i for numbers, s (borrowed) for the others */
    int64_t i;
    struct str s;
};

/* Takes a row: one value per column. What it returns, if not PFE_OK, ends the reading. */
typedef enum pf_err (*move_row_fn)(void *ctx, const struct move_value *row);

/* What is not in a table: the end of the journal, and the newest numbers given out. */
struct move_ends {
    int64_t head_seq;
    uint8_t seal[SHA256_LEN]; /* the newest one's hash; zeros: there is none */
    int64_t next_account, accounts;
    int64_t time_us, lag_us; /* newest entry time seen; how far one ever lay behind it */
    int64_t user_id, api_key_id, schedule_id, audit_id, event_id;
    int64_t next_booking, next_outbox;
};

struct move_digest {
    int64_t rows;
    uint64_t sums[4]; /* of the rows' hashes, modulo 2^64 */
};

/* Appends the row as binary COPY has it. false, and nothing appended: a number does not fit into its column. */
bool move_row_put(struct buf *b, const struct move_table *t, const struct move_value *row) MUSTCHECK;
/* One row, as move_row_put made it. */
void move_digest_add(struct move_digest *d, struct sha256 *h, const void *row, size_t n);
bool move_digest_equal(const struct move_digest *a, const struct move_digest *b);

#endif
