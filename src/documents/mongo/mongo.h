/*
 * mongo: the documents port on a MongoDB server (or one that speaks its protocol), by libmongoc.
 *
 * Collection "events" of the database that the URL names ("payflow" if it names none). A document there:
 *
 *   _id      the id as UUID text, so that newer ones sort after older ones
 *   created  µs; date: µs; search: what queries' text is looked for in
 *   body     the JSON text as it was given: what get and list answer
 *   doc      the same as BSON, for queries and for people: integers that fit are int64, other numbers double. Members
 *            whose names MongoDB cannot hold or address (empty, with a '.' or a '$' at the start), and arrays inside
 *            arrays, are in body only.
 *
 * Writes ask for a majority and the server's journal. Connections are pooled by libmongoc, at most 16.
 */
#ifndef DOCUMENTS_MONGO_H
#define DOCUMENTS_MONGO_H

#include "port/documents.h"

struct mongo_options {
    const char *url;     /* mongodb://… or mongodb+srv://…, borrowed for the call; its password is never logged */
    unsigned timeout_ms; /* to find a server, and for an answer; 0: 3000 */
};

/* Asks the server once, and makes the collection's index. On failure ret_why is one line without secrets.
   PFE_WRONG_STATE: the URL or the password; PFE_UNAVAILABLE: no answer; PFE_NOMEM. */
enum pf_err documents_mongo_open(const struct mongo_options *o, struct documents **ret, char ret_why[256]) MUSTCHECK;

#endif
