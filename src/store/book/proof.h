/*
 * proof: a whole journal checked against the ledger's own rules. Every entry is decided again (ledger_decide) on the
 * accounts as the entries before it left them, and must come out the same; seals are hashed again; stored projections
 * must equal the fold at their own head. The first fault ends it. Memory: bounded by the accounts.
 *
 *     proof_new → proof_account for each stored row → for each entry by seq: proof_entry, then proof_seal if one ends
 *     there → proof_end → proof_free.   Stop feeding when proof_ok turns false.
 */
#ifndef STORE_PROOF_H
#define STORE_PROOF_H

#include "codec/crypt.h"
#include "store/book/book.h"

struct proof;

/* Look-ups in the same snapshot. PFE_NOT_FOUND when there is no such row; other errors end the proof unfinished. */
struct proof_source {
    void *ctx;
    enum pf_err (*entry)(void *ctx, int64_t seq, struct ledger_entry *ret); /* strings may be left out */
    enum pf_err (*resolver)(void *ctx, int64_t seq, int64_t *ret);
    enum pf_err (*mark)(void *ctx, int64_t account, int64_t n, struct book_mark *ret); /* NULL: keeps no marks */
};

/* NULL: out of memory. src is copied. */
struct proof *proof_new(const struct proof_source *src);
void proof_free(struct proof *p); /* NULL is allowed */
enum pf_err proof_account(struct proof *p, const struct book_account *stored) MUSTCHECK;
/* An entry at fault is a finding, not an error. */
enum pf_err proof_entry(struct proof *p, const struct ledger_entry *e) MUSTCHECK;
void proof_seal(struct proof *p, int64_t first_seq, int64_t last_seq, const uint8_t hash[SHA256_LEN]);
/* A finding of the caller's; only the first counts. seq 0: about no one entry. */
void proof_fault(struct proof *p, int64_t seq, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool proof_ok(const struct proof *p);

/* What engines find out about tickets, with the number of the event or booking. */
#define PROOF_STOCK "the stock of event %lld is not what its bookings make"
#define PROOF_BOOKING "the money of booking %lld is not where its state says"

struct proof_counts {
    int64_t resolutions, marks, open_holds; /* rows stored; marks -1: keeps none */
    int64_t payments;                       /* confirmed bookings that cost something */
};
/* What can be judged only after the last entry. */
void proof_end(struct proof *p, const struct proof_counts *stored, struct store_verify *ret);

#endif
