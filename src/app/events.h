/*
 * events: what is sold. An event is a document, kept byte for byte as it was given (port/documents.h), and a row of
 * stock under the same UUID (app/bookings.h). The document is written first, the stock makes the event: what a crash
 * leaves in between is a document that nobody ever sees. Blocking, all of it.
 */
#ifndef APP_EVENTS_H
#define APP_EVENTS_H

#include "app/app.h"
#include "app/bookings.h"
#include "codec/json_in.h"

enum {
    EVENT_TEXT_MAX = 500,       /* bytes of a title, and of a location */
    EVENTS_PAGE_MAX = 100,      /* events that a list gives at once */
    EVENTS_PAGE_BYTES = 2 << 20 /* of documents; then a page ends early */
};

/* With ENV=dev an event is sold for so long after its date, so that examples with dates of last summer go on working:
   starts_us of its stock is so much later than the date in its document. */
static const int64_t EVENT_DEV_US = INT64_C(366) * 86400 * 1000000;

struct event_new {
    struct str body;         /* the document; at most DOCUMENT_BODY_MAX bytes */
    const struct json *json; /* the same, parsed: an object */
    struct str title, location;
    struct ticket_event stock; /* capacity, price, currency, starts_us; the rest is not looked at */
};
/* The organiser is the caller. render as in app_event_create. PFE_INVALID: a field, or a number anywhere in the
   document that has more than 64 characters or an exponent of more than 3 digits. Audited. */
enum pf_err app_event_publish(struct app *a, const struct caller *c, const struct event_new *in, struct app_idem *idem,
                              app_event_render render, void *ctx, struct ticket_event *ret,
                              struct problem *p) MUSTCHECK;

struct app_event {
    struct ticket_event stock;
    struct str body; /* the document, in the arena */
};
/* PFE_NOT_FOUND. */
enum pf_err app_event_show(struct app *a, struct arena *arena, const uint8_t uuid[16], struct app_event *ret) MUSTCHECK;

struct event_query {
    const uint8_t *before;  /* 16 bytes: the cursor of the page before; NULL: from the newest */
    int64_t from_us, to_us; /* from <= date < to; 0: open */
    bool upcoming;          /* not before now either */
    struct str text;        /* in the title or the location, whatever the case; empty: any */
    const struct documents_field *fields;
    unsigned n_fields; /* at most DOCUMENTS_FIELDS_MAX */
    int64_t offset;
    unsigned limit; /* 1..EVENTS_PAGE_MAX */
};
struct event_page {
    struct app_event *events;
    unsigned n;
    bool more;          /* there may be more behind it: */
    uint8_t cursor[16]; /* go on before this; set when n > 0 or more */
};
/* Newest first. Documents without stock are left out, so that a page may be short though there is more. */
enum pf_err app_events_page(struct app *a, struct arena *arena, const struct event_query *q,
                            struct event_page *ret) MUSTCHECK;

/* Letters to lower case, such that neither case nor the Turkish dot makes a difference: ASCII, Latin-1, Latin
   Extended-A, Greek, Cyrillic; all four kinds of i are one. out has room for s.n bytes; returns how many there are. s
   is UTF-8. */
size_t app_event_fold(struct str s, char *out);

#endif
