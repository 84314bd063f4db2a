#include "store/move.h"

#include <string.h>

const struct move_table move_tables[MOVE_TABLES] = {
    [MOVE_JOURNAL] = {"journal", "iiiiiiiiiiiissbtt"},
    [MOVE_SEAL] = {"seal", "iiib"},
    [MOVE_RESOLUTION] = {"resolution", "ii"},
    [MOVE_OPEN_HOLD] = {"open_hold", "iiii"},
    [MOVE_ACCOUNT] = {"account", "iiiiiiiiiiss"},
    [MOVE_MARK] = {"mark", "iiiiii"},
    [MOVE_STAT] = {"stat", "ssiii"},
    [MOVE_IDEMPOTENCY] = {"idempotency", "ibbiib"},
    [MOVE_USERS] = {"users", "ibtttttiiii"},
    [MOVE_API_KEY] = {"api_key", "iibtiii"},
    [MOVE_SESSION] = {"session", "biiii"},
    [MOVE_REFRESH] = {"refresh", "bbiii"},
    [MOVE_SCHEDULE] = {"schedule", "ibiiiiittiiiiiiiitii"},
    [MOVE_SCHEDULE_RUN] = {"schedule_run", "iiiiit"},
    [MOVE_AUDIT] = {"audit", "iiittttttt"},
    [MOVE_EVENT] = {"event", "ibiiiiiiiii"},
    [MOVE_BOOKING] = {"booking", "ibiiitiiiiiiiiiii"},
    [MOVE_OUTBOX] = {"outbox", "ibtbti"},
    [MOVE_INBOX] = {"inbox", "bt"},
    [MOVE_EVENT_DOCUMENT] = {"event_document", "biitt"},
};

/* The lowest n bytes of v, highest first. */
static void put_int(struct buf *b, uint64_t v, unsigned n)
{
    uint8_t be[8];
    for (unsigned i = 0; i < n; i++)
        be[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
    buf_put(b, be, n);
}

bool move_row_put(struct buf *b, const struct move_table *t, const struct move_value *row)
{
    size_t n = strlen(t->columns);
    for (size_t i = 0; i < n; i++)
        if (t->columns[i] == 's' && (row[i].i < INT16_MIN || row[i].i > INT16_MAX))
            return false;
    put_int(b, n, 2);
    for (size_t i = 0; i < n; i++) {
        unsigned width = t->columns[i] == 'i' ? 8 : t->columns[i] == 's' ? 2 : 0;
        put_int(b, width ? width : row[i].s.n, 4);
        if (width)
            put_int(b, (uint64_t)row[i].i, width);
        else if (row[i].s.n)
            buf_put(b, row[i].s.p, row[i].s.n);
    }
    return true;
}

void move_digest_add(struct move_digest *d, struct sha256 *h, const void *row, size_t n)
{
    uint8_t hash[SHA256_LEN];
    uint64_t part[4];
    sha256_begin(h);
    sha256_add(h, row, n);
    sha256_end(h, hash);
    memcpy(part, hash, sizeof part);
    for (unsigned i = 0; i < 4; i++)
        d->sums[i] += part[i];
    d->rows++;
}

bool move_digest_equal(const struct move_digest *a, const struct move_digest *b)
{
    return a->rows == b->rows && memcmp(a->sums, b->sums, sizeof a->sums) == 0;
}
