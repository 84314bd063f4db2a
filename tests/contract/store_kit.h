/*
 * What the tests of the store share: a fresh store of either engine, users, and groups decided by the ledger's own
 * rules, as the ledger writer does it. Everything fails the running test by itself.
 */
#ifndef TESTS_STORE_KIT_H
#define TESTS_STORE_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "port/store.h"
#include "store/sqlite/sqlite.h"

/* POSTGRES: in programs built with TEST_POSTGRES and tests/support/pg_cluster.c. */
enum kit_engine { KIT_MEMORY, KIT_SQLITE, KIT_POSTGRES, KIT_ENGINES };
enum { KIT_USD = 840, KIT_JPY = 392, KIT_KWD = 414, KIT_T0 = 1700000000 };
#define KIT_START ((int64_t)KIT_T0 * 1000000)

struct kit {
    enum kit_engine engine;
    struct store *s;
    char dir[64]; /* of a durable engine; removed by kit_close */
    int64_t now;  /* entry times, unless a movement says otherwise */
    int64_t flush_entries;
    struct arena arena;
};

struct kit *kit_open(enum kit_engine engine);
void kit_close(struct kit *k);
/* Closes and opens again; nothing happens to the memory engine. */
void kit_reopen(struct kit *k);

int64_t kit_user(struct kit *k, const char *name);

struct kit_move {
    enum ledger_kind kind;
    int64_t from, to; /* users; 0 external. FREEZE, UNFREEZE, CLOSE: from */
    int64_t amount;
    money_currency currency; /* 0: KIT_USD */
    int64_t ref;             /* for ROLLBACK, CAPTURE, RELEASE: from and to are not looked at */
    int64_t ts;              /* 0: kit.now */
    int64_t expires_us;
    const char *description;
    enum pf_err err; /* set: why it was refused */
    int64_t seq;     /* set: its entry; 0 when refused */
};

/* A group that asks for accounts and idempotency keys only. */
static inline enum pf_err kit_begin(struct store *s, const struct store_key *keys, size_t n,
                                    const struct store_idem_ref *idem, size_t n_idem, struct store_slot *slots,
                                    int64_t *ret_first_seq)
{
    struct store_group g = {.slots = slots};
    enum pf_err e =
        store_group_begin(s, &(struct store_group_ask){.keys = keys, .n_keys = n, .idem = idem, .n_idem = n_idem}, &g);
    if (e == PFE_OK)
        *ret_first_seq = g.first_seq;
    return e;
}

/* One group. Refused movements do not hinder the others. idem may be NULL. Returns what the commit returned. */
enum pf_err kit_group(struct kit *k, struct kit_move *m, size_t n, const struct store_idem *idem, size_t n_idem);
/* One movement in a group of its own, which must go through. Returns its seq. */
int64_t kit_post(struct kit *k, struct kit_move m);
int64_t kit_deposit(struct kit *k, int64_t user, int64_t amount);

int64_t kit_balance(struct kit *k, int64_t user);
int64_t kit_account(struct kit *k, int64_t user); /* id of the USD account */

/* Seqs of a listing, newest first. Returns how many, at most cap. */
unsigned kit_list(struct kit *k, const struct store_entry_query *q, int64_t *out, unsigned cap, int64_t *ret_cursor);
/* Verifies and fails the test with the reason if something is wrong. */
void kit_verify(struct kit *k);

/* Copies the database files of an open store as a crash would leave them. */
void kit_copy_dir(const char *from, const char *to);
void kit_remove_dir(const char *dir);

#endif
