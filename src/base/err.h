/*
 * err: the program's one error vocabulary.
 *
 * Every failure that can reach a caller is one row of errors.def: a code with its HTTP and gRPC status,
 * title and documentation page. Functions return enum pf_err (PFE_OK is 0) and, where a caller needs
 * more than the code, fill a struct problem. Layers translate what lies below them into these codes
 * once, at their own border; library code returns, it does not log.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stddef.h>

#define MUSTCHECK __attribute__((warn_unused_result))

enum pf_err {
    PFE_OK = 0,
#define X(sym, slug, http, grpc, title, text) sym,
#include "base/errors.def"
#undef X
    PFE_COUNT
};

struct err_info {
    const char *slug;  /* stable; "/problems/<slug>" is the problem type */
    int http;          /* HTTP status */
    int grpc;          /* gRPC status code */
    const char *title; /* short, fixed English */
    const char *text;  /* the page behind the type */
};

/* Never NULL; an unknown code answers as PFE_INTERNAL. */
const struct err_info *err_info(enum pf_err e);
/* The code for a slug, PFE_OK when there is none. */
enum pf_err err_by_slug(const char *slug, size_t len);

enum { PROBLEM_FIELDS_MAX = 8 };

struct problem_field {
    char in[8];    /* "body", "query", "path", "header" */
    char name[64]; /* "amount", or "transactions.3.amount"; dots separate the loc's parts */
    char msg[96];
    char type[32]; /* machine-readable: "missing", "type", "range", "format", "decimals" … */
};

/* One refusal, with what its answer needs. All-zero is "no problem". Plain value: copy freely. */
struct problem {
    enum pf_err code;
    int retry_after_s; /* 0: no Retry-After */
    int n_fields;
    char detail[192]; /* may be empty; never SQL, paths or secrets */
    struct problem_field fields[PROBLEM_FIELDS_MAX];
};

/* Sets code and detail (printf-style, truncated), keeps the fields. Returns code, for `return problem_set(…)`. */
enum pf_err problem_set(struct problem *p, enum pf_err code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Adds a field error and makes the code PFE_INVALID if none was set; past PROBLEM_FIELDS_MAX it is dropped. */
enum pf_err problem_field(struct problem *p, const char *in, const char *name, const char *type, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

#endif
