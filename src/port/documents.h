/*
 * documents: what the application needs of a store of documents. An event of the ticketing surface is one: a JSON
 * object that is kept as it was given, unknown members included. Its tickets are not here but in the store
 * (port/store.h), under the same id; where the two disagree the store is right.
 *
 * Engines: SQLite's JSON functions and PostgreSQL's JSONB, inside those stores' databases (store_documents), so that
 * their backups hold both; MongoDB (documents/mongo); memory, the reference model (documents/memory). One contract
 * suite runs over each (tests/contract/test_documents.c).
 *
 * Any thread. Every call may wait for a disk or the network. A call returns what it did durably.
 *
 * Errors: PFE_NOT_FOUND; PFE_WRONG_STATE (insert: the id is taken); PFE_DISK_FULL, PFE_UNAVAILABLE (nothing was done,
 * or for insert and remove the outcome is unknown; both may be repeated); PFE_NOMEM. Outputs are untouched unless
 * PFE_OK.
 */
#ifndef PORT_DOCUMENTS_H
#define PORT_DOCUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum {
    DOCUMENT_BODY_MAX = 262144, /* bytes */
    DOCUMENT_SEARCH_MAX = 4096, /* bytes */
    DOCUMENTS_PAGE_MAX = 101,   /* documents a list gives at once */
    DOCUMENTS_FIELDS_MAX = 4,   /* members that a query asks for */
    DOCUMENTS_FIELD_NAME_MAX = 64,
    DOCUMENTS_FIELD_TEXT_MAX = 256
};

struct documents;

struct document {
    uint8_t id[16]; /* UUIDv7: newer ones are greater */
    int64_t created_us;
    int64_t date_us; /* what queries' from and to are held against */
    struct str
        search; /* what a query's text is looked for in; the caller folds both alike. 0..DOCUMENT_SEARCH_MAX bytes */
    /* A JSON object in UTF-8, 2..DOCUMENT_BODY_MAX bytes, without U+0000, duplicate names, lone surrogates, more than
       32 levels, or numbers of more than 64 characters or an exponent beyond 3 digits. It comes back byte for byte. */
    struct str body;
};

/* A member of the outermost object: a string equal to text, an integer equal to it, or true or false. Whether 1e1 is
   the integer 10 is the engine's affair. */
struct documents_field {
    struct str name; /* 1..DOCUMENTS_FIELD_NAME_MAX of [A-Za-z0-9_-] */
    struct str text; /* 0..DOCUMENTS_FIELD_TEXT_MAX bytes of UTF-8 without NUL */
    bool is_number;  /* text is also an integer in its shortest form: */
    int64_t number;
};

/* Newest first. */
struct documents_query {
    const uint8_t *before;  /* 16 bytes: only ids below; NULL: from the newest */
    int64_t from_us, to_us; /* from <= date < to; 0: open */
    struct str text;        /* in `search`, byte for byte; empty: any */
    const struct documents_field *fields;
    unsigned n_fields; /* all must match */
    int64_t offset;    /* matching documents to skip */
    unsigned limit;    /* 1..DOCUMENTS_PAGE_MAX */
};

struct documents_ops {
    const char *engine; /* "memory", "sqlite", "postgres", "mongodb" */
    void (*close)(struct documents *d);
    enum pf_err (*insert)(struct documents *d, const struct document *doc);
    enum pf_err (*remove)(struct documents *d, const uint8_t id[16]);
    enum pf_err (*get)(struct documents *d, struct arena *a, const uint8_t id[16], struct document *ret);
    enum pf_err (*list)(struct documents *d, struct arena *a, const struct documents_query *q, struct document *out,
                        unsigned *ret_n);
    enum pf_err (*probe)(struct documents *d);
};

/* Engines embed these as the first member of theirs. */
struct documents {
    const struct documents_ops *ops;
};

/* Those of a store belong to the store: nothing happens. NULL is allowed. No other call may be running. */
void documents_close(struct documents *d);
const char *documents_engine(const struct documents *d);
enum pf_err documents_insert(struct documents *d, const struct document *doc) MUSTCHECK;
/* PFE_OK also when it was not there. */
enum pf_err documents_remove(struct documents *d, const uint8_t id[16]) MUSTCHECK;
enum pf_err documents_get(struct documents *d, struct arena *a, const uint8_t id[16], struct document *ret) MUSTCHECK;
/* out has room for q->limit. */
enum pf_err documents_list(struct documents *d, struct arena *a, const struct documents_query *q, struct document *out,
                           unsigned *ret_n) MUSTCHECK;
/* Does it answer? For the health check. Behind documents/guard it does not wait: what was last seen. */
enum pf_err documents_probe(struct documents *d) MUSTCHECK;

#endif
