#include "domain/ledger/ledger.h"

static uint8_t *put_int(uint8_t *out, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        out[i] = (uint8_t)(v >> (8 * i));
    return out + bytes;
}

static uint8_t *put_i64(uint8_t *out, int64_t v)
{
    return put_int(out, (uint64_t)v, 8);
}

static uint8_t *put_str(uint8_t *out, struct str s)
{
    out = put_int(out, s.n, 4);
    if (s.n)
        memcpy(out, s.p, s.n);
    return out + s.n;
}

size_t ledger_canonical(const struct ledger_entry *e, uint8_t *out, size_t cap)
{
    enum { FIXED = LEDGER_CANONICAL_MAX - LEDGER_DESCRIPTION_MAX - LEDGER_ORIGIN_MAX };
    size_t n = FIXED + e->description.n + e->origin.n;

    if (n > cap)
        return n;
    out = put_i64(out, e->seq);
    out = put_i64(out, e->ts);
    *out++ = e->kind;
    memcpy(out, e->uuid, sizeof e->uuid);
    out += sizeof e->uuid;
    out = put_i64(out, e->debit);
    out = put_i64(out, e->credit);
    out = put_i64(out, e->amount);
    out = put_int(out, e->currency, 2);
    out = put_i64(out, e->debit_balance);
    out = put_i64(out, e->credit_balance);
    out = put_i64(out, e->debit_prev);
    out = put_i64(out, e->credit_prev);
    out = put_i64(out, e->ref);
    out = put_i64(out, e->actor);
    out = put_i64(out, e->expires_us);
    out = put_str(out, e->description);
    put_str(out, e->origin);
    return n;
}
