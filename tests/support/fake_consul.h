/*
 * fake_consul: as much of Consul's HTTP API as a registry uses, on a free port of 127.0.0.1, in this process; it does
 * what a real agent rarely does: goes back in its index, repeats, stalls, errs. Thread-safe but for start and stop.
 */
#ifndef TESTS_FAKE_CONSUL_H
#define TESTS_FAKE_CONSUL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fake_fault {
    FAKE_WELL,
    FAKE_ERROR,     /* 500 */
    FAKE_FORBIDDEN, /* 403 */
    FAKE_REDIRECT,  /* 302, to where all would be well */
    FAKE_GARBAGE,   /* 200, and a list that breaks off in the middle of its JSON */
    FAKE_OTHER,     /* 200, and JSON of another kind */
    FAKE_EMPTY,     /* 200, and no body */
    FAKE_HALF,      /* half of what Content-Length says, then the end */
    FAKE_CHUNKS,    /* half of a chunked body, then the end */
    FAKE_STALL,     /* half of it, then nothing */
    FAKE_SILENT,    /* nothing at all */
    FAKE_CUT,       /* the end, at once */
    FAKE_NOISE,     /* not HTTP */
    FAKE_HUGE,      /* 200, and a list of 5 MiB */
    FAKE_HEAD,      /* 200, and headers without end */
    FAKE_FAULTS
};

void fake_consul_start(const char *unix_path); /* NULL: on the port alone */
void fake_consul_stop(void);
int fake_consul_port(void);

/* How everything is answered from now on, queries that wait included. */
void fake_consul_fault(enum fake_fault f);
/* The list for whatever service, with its index; queries that wait are answered. NULL: what is registered. An index of
 * 0 is sent as such; UINT64_MAX: none is. */
void fake_consul_list(uint64_t index, const char *json);
/* Queries are answered at once, whatever index they have. */
void fake_consul_hasty(bool on);
/* Forgets what is registered; the index begins anew. */
void fake_consul_forget(void);
/* /alive says 200 or 503. */
void fake_consul_alive(bool on);

/* Requests whose line begins like this ("GET /v1/health/"), so far. */
unsigned fake_consul_count(const char *begin);
/* The last one of those, whole, with its head and body; "" if there was none. */
void fake_consul_last(const char *begin, char *out, size_t cap);
bool fake_consul_has(const char *id);

#endif
