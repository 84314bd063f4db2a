/*
 * harness: `payflow serve` as main/ wires it, in a thread of the test, and a client that allocates nothing.
 *
 * What the server logs goes to a file; when the process fails, its end is printed.
 */
#ifndef TESTS_FAULTS_HARNESS_H
#define TESTS_FAULTS_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>

#include "base/str.h"

enum { HTTP_TEXT_MAX = 4 << 20 };

struct reply {
    int status; /* 0: the connection ended, or never came to be */
    bool whole; /* the body is as long as its header says */
    struct str head, body;
};

/* Before all else, in the only thread there is: goes on in a child process, the parent of which prints and removes what
   is left. */
void harness_init(void);
/* A fresh directory. */
const char *harness_dir(void);
/* A child of the directory for data. */
void harness_path(char out[512], const char *name);
/* Fails the test, and says which allocation it was. */
_Noreturn void harness_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Serves the store in that directory. -1: it runs; else the code it ended with. */
int server_start(const char *dir);
/* SIGINT, and its code. */
int server_stop(void);
bool server_runs(void);

/* One request on a connection of its own: "POST /path", header lines each with its end, body (or NULL). The reply
   stays until the next one. */
struct reply http_ask(const char *line, const char *headers, const char *body);
/* The same, and must answer so. */
struct reply http_must(int status, const char *line, const char *headers, const char *body);
bool http_header_of(const struct reply *r, const char *name, char out[256]);
/* A member of the body by its name, as it is written there, without quotes. */
bool json_member(struct str body, const char *name, char *out, size_t cap);
/* Is the text one JSON value? */
bool json_whole(struct str text);

/* Asks the database file beside the server. */
void sql_open(const char *dir);
void sql_close(void);
int64_t sql_int(const char *sql);

/* No leaks up to here, as far as the build can tell. */
void leaks_check(const char *what);
/* Open file descriptors of the process. */
unsigned files_open(void);

#endif
