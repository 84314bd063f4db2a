#include "store/book/proof.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "codec/uuid.h"

enum { UNMET = 0, MET = 1 };

struct proof {
    struct proof_source src;
    struct book book;            /* the fold */
    struct book_account *stored; /* by index of the book; .next: MET once the fold passed its head */
    size_t cap;
    int64_t last, sealed;
    uint8_t seal[SHA256_LEN];
    struct sha256 *sha; /* over the entries since the last seal */
    int64_t marks, open_holds;
    int64_t payments; /* of bookings */
    struct store_verify found;
};

struct proof *proof_new(const struct proof_source *src)
{
    struct proof *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->src = *src;
    p->found.ok = true;
    p->sha = sha256_new();
    if (!p->sha || book_init(&p->book) != PFE_OK) {
        sha256_free(p->sha);
        free(p);
        return NULL;
    }
    sha256_begin(p->sha);
    sha256_add(p->sha, p->seal, sizeof p->seal);
    return p;
}

void proof_free(struct proof *p)
{
    if (!p)
        return;
    book_free(&p->book);
    sha256_free(p->sha);
    free(p->stored);
    free(p);
}

bool proof_ok(const struct proof *p)
{
    return p->found.ok;
}

void proof_fault(struct proof *p, int64_t seq, const char *fmt, ...)
{
    if (!p->found.ok)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->found.what, sizeof p->found.what, fmt, ap);
    va_end(ap);
    p->found.bad_seq = seq;
    p->found.ok = false;
}

static bool same_projection(const struct book_account *a, const struct book_account *b)
{
    return a->a.balance == b->a.balance && a->a.held == b->a.held && a->a.head == b->a.head &&
           a->a.entries == b->a.entries && a->a.flags == b->a.flags && a->moves == b->moves &&
           a->time_us == b->time_us && (a->a.head == 0 || a->a.updated_us == b->a.updated_us);
}

static void judge_stored(struct proof *p, uint32_t i, int64_t seq)
{
    const struct book_account *now = book_at(&p->book, i);
    struct book_account *stored = &p->stored[i];
    if (now->a.head != stored->a.head)
        return;
    stored->next = MET;
    if (!same_projection(now, stored))
        proof_fault(
            p, seq, "the stored row of account %lld differs from its entries up to %lld (balance %lld, not %lld)",
            (long long)now->a.id, (long long)now->a.head, (long long)stored->a.balance, (long long)now->a.balance);
}

enum pf_err proof_account(struct proof *p, const struct book_account *stored)
{
    if (book_find(&p->book, stored->a.id) != BOOK_NONE) {
        proof_fault(p, 0, "account %lld is stored twice", (long long)stored->a.id);
        return PFE_OK;
    }
    if (p->book.n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 256;
        struct book_account *v = realloc(p->stored, cap * sizeof *v);
        if (!v)
            return PFE_NOMEM;
        p->stored = v;
        p->cap = cap;
    }
    enum pf_err e = book_reserve(&p->book, 1);
    if (e)
        return e;
    struct book_account fresh = {.a = {.id = stored->a.id, .owner = stored->a.owner, .currency = stored->a.currency}};
    uint32_t i = book_add(&p->book, &fresh);
    p->stored[i] = *stored;
    p->stored[i].next = UNMET;
    p->found.accounts++;
    if (stored->a.currency >= 1000 || (stored->a.id < LEDGER_FIRST_USER_ACCOUNT) != (stored->a.owner == 0))
        proof_fault(p, 0, "account %lld has an owner or a currency that it cannot have", (long long)stored->a.id);
    judge_stored(p, i, 0);
    return PFE_OK;
}

/* The entry that the rules make of the same command. */
static void judge_rules(struct proof *p, const struct ledger_entry *e, const struct ledger_account *debit,
                        const struct ledger_account *credit, const struct ledger_entry *ref)
{
    long long seq = e->seq;
    struct ledger_command cmd = {.kind = e->kind,
                                 .amount = e->amount,
                                 .currency = e->currency,
                                 .seq = e->seq,
                                 .ts = e->ts,
                                 .actor = e->actor,
                                 .expires_us = e->expires_us,
                                 .description = e->description,
                                 .origin = e->origin,
                                 .ref = ref};
    struct ledger_entry again;
    struct uuid id;
    memcpy(cmd.uuid, e->uuid, sizeof cmd.uuid);
    memcpy(id.b, e->uuid, sizeof id.b);
    if (uuid_seq(&id) != e->seq) {
        proof_fault(p, e->seq, "entry %lld: its UUID carries %lld", seq, (long long)uuid_seq(&id));
        return;
    }
    if (e->debit_prev != debit->head || e->credit_prev != credit->head) {
        proof_fault(p, e->seq, "entry %lld: the chain of account %lld is broken", seq,
                    (long long)(e->debit_prev != debit->head ? e->debit : e->credit));
        return;
    }
    enum pf_err err = ledger_decide(debit, credit, &cmd, &again);
    if (err) {
        proof_fault(p, e->seq, "entry %lld: the ledger's rules refuse it (%s)", seq, err_info(err)->slug);
        return;
    }
    uint8_t a[LEDGER_CANONICAL_MAX], b[LEDGER_CANONICAL_MAX];
    size_t n = ledger_canonical(e, a, sizeof a), m = ledger_canonical(&again, b, sizeof b);
    if (e->debit_balance != again.debit_balance || e->credit_balance != again.credit_balance)
        proof_fault(p, e->seq, "entry %lld: its balances do not follow from the entries before it", seq);
    else if (n > sizeof a || n != m || memcmp(a, b, n) != 0)
        proof_fault(p, e->seq, "entry %lld: a field does not follow from the ledger's rules", seq);
}

static enum pf_err judge_ref(struct proof *p, const struct ledger_entry *e, struct ledger_entry *ret_ref)
{
    int64_t by;
    enum pf_err err = e->ref < e->seq ? p->src.entry(p->src.ctx, e->ref, ret_ref) : PFE_NOT_FOUND;
    if (err == PFE_OK)
        err = p->src.resolver(p->src.ctx, e->ref, &by);
    if (err == PFE_OK && by == e->seq) {
        p->found.resolutions++;
        return PFE_OK;
    }
    if (err != PFE_OK && err != PFE_NOT_FOUND)
        return err;
    proof_fault(p, e->seq, "entry %lld: entry %lld, which it resolves, is missing or resolved by another",
                (long long)e->seq, (long long)e->ref);
    return PFE_OK;
}

static enum pf_err judge_mark(struct proof *p, const struct book_mark *due)
{
    struct book_mark m;
    enum pf_err e = p->src.mark(p->src.ctx, due->account, due->n, &m);
    if (e && e != PFE_NOT_FOUND)
        return e;
    if (e || m.seq != due->seq || m.ts != due->ts || m.balance != due->balance || m.moves != due->moves)
        proof_fault(p, due->seq, "the mark of account %lld at its entry number %lld is missing or wrong",
                    (long long)due->account, (long long)due->n);
    p->marks++;
    return PFE_OK;
}

static enum pf_err fold(struct proof *p, const struct ledger_entry *e, int64_t held)
{
    struct book_mark due[2];
    unsigned n;
    enum pf_err err = book_replay(&p->book, e, held, due, &n);
    for (unsigned i = 0; i < n && p->src.mark && err == PFE_OK; i++)
        err = judge_mark(p, &due[i]);
    if (e->kind == LEDGER_HOLD)
        p->open_holds++;
    if (e->kind == LEDGER_CAPTURE || e->kind == LEDGER_RELEASE)
        p->open_holds--;
    if (e->kind == LEDGER_CAPTURE && str_starts(e->origin, STR(TICKET_ORIGIN)))
        p->payments++;
    return err;
}

enum pf_err proof_entry(struct proof *p, const struct ledger_entry *e)
{
    if (e->seq != p->last + 1) {
        proof_fault(p, p->last + 1, "entry %lld is missing", (long long)(p->last + 1));
        return PFE_OK;
    }
    uint32_t d = book_find(&p->book, e->debit), c = book_find(&p->book, e->credit);
    if (d == BOOK_NONE || c == BOOK_NONE) {
        proof_fault(p, e->seq, "entry %lld names an account that does not exist", (long long)e->seq);
        return PFE_OK;
    }
    struct ledger_entry ref = {0};
    enum pf_err err = e->ref ? judge_ref(p, e, &ref) : PFE_OK;
    if (err || !p->found.ok)
        return err;
    judge_rules(p, e, &book_at(&p->book, d)->a, &book_at(&p->book, c)->a, e->ref ? &ref : NULL);
    if (!p->found.ok)
        return PFE_OK;
    uint8_t bytes[LEDGER_CANONICAL_MAX];
    sha256_add(p->sha, bytes, ledger_canonical(e, bytes, sizeof bytes));
    err = fold(p, e, ref.amount);
    p->last = e->seq;
    p->found.entries++;
    judge_stored(p, d, e->seq);
    judge_stored(p, c, e->seq);
    return err;
}

void proof_seal(struct proof *p, int64_t first_seq, int64_t last_seq, const uint8_t hash[SHA256_LEN])
{
    if (first_seq != p->sealed + 1 || last_seq != p->last) {
        proof_fault(p, p->sealed + 1, "the seal of entries %lld to %lld does not follow the one before",
                    (long long)first_seq, (long long)last_seq);
        return;
    }
    sha256_end(p->sha, p->seal);
    if (memcmp(p->seal, hash, SHA256_LEN) != 0)
        proof_fault(p, first_seq, "the seal of entries %lld to %lld does not match them: one was altered",
                    (long long)first_seq, (long long)last_seq);
    p->sealed = last_seq;
    p->found.seals++;
    sha256_begin(p->sha);
    sha256_add(p->sha, p->seal, sizeof p->seal);
}

static void judge_sums(struct proof *p)
{
    __int128 sum[1000] = {0};
    for (uint32_t i = 0; i < p->book.n; i++) {
        const struct book_account *now = book_at(&p->book, i);
        sum[now->a.currency] += now->a.balance;
        if (p->stored[i].next != MET)
            proof_fault(p, 0, "the head in the stored row of account %lld is none of its entries",
                        (long long)now->a.id);
    }
    for (unsigned c = 0; c < 1000; c++)
        if (sum[c] != 0)
            proof_fault(p, 0, "the accounts of currency %03u do not sum to 0", c);
}

void proof_end(struct proof *p, const struct proof_counts *stored, struct store_verify *ret)
{
    if (p->sealed != p->last)
        proof_fault(p, p->sealed + 1, "entries from %lld on are not sealed", (long long)(p->sealed + 1));
    judge_sums(p);
    if (stored->resolutions != p->found.resolutions)
        proof_fault(p, 0, "%lld resolutions are stored, the journal has %lld", (long long)stored->resolutions,
                    (long long)p->found.resolutions);
    if (stored->open_holds != p->open_holds)
        proof_fault(p, 0, "%lld open holds are stored, the journal has %lld", (long long)stored->open_holds,
                    (long long)p->open_holds);
    if (stored->payments != p->payments)
        proof_fault(p, 0, "%lld bookings are confirmed and paid, the journal has the payments of %lld",
                    (long long)stored->payments, (long long)p->payments);
    if (stored->marks >= 0 && stored->marks != p->marks)
        proof_fault(p, 0, "%lld marks are stored, the journal makes %lld", (long long)stored->marks,
                    (long long)p->marks);
    *ret = p->found;
}
