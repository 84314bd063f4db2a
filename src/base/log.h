/*
 * log: one JSON object a line on a file descriptor, written by one background thread.
 *
 * Callers format into a buffer of their thread's and hand whole lines over; a line is never torn, but by an error of
 * write: its half then stands alone on its line. When the reader of the log stalls, lines beyond the buffer (4 MiB)
 * are dropped and counted, the server goes on. A line waits at most about 20 ms, an error line not at all. Lines are
 * at most 16 KiB: a longer one is cut to valid JSON that ends in "cut":true; bytes that are not UTF-8 become U+FFFD.
 * Thread-safe.
 * The sink is the program's one mutable global besides main/.
 *
 *     log_msg(LOG_WARN, "replica left out", LOG_S("host", host), LOG_I("lag_ms", lag));
 *
 * Fields: {"ts":"…Z","level":"info","msg":"…",…}. Never pass secrets.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
    const char *key; /* NULL ends the list */
    enum { LOG_FIELD_STR, LOG_FIELD_INT } type;
    struct str s;
    int64_t i;
};

#define LOG_S(k, v) ((struct log_field){(k), LOG_FIELD_STR, str_c(v), 0})
#define LOG_STR(k, v) ((struct log_field){(k), LOG_FIELD_STR, (v), 0})
#define LOG_I(k, v) ((struct log_field){(k), LOG_FIELD_INT, STR_NONE, (int64_t)(v)})
#define LOG_END ((struct log_field){NULL, LOG_FIELD_INT, STR_NONE, 0})

/* Starts the writer thread; false if it is open already, or without memory or a thread. fd is borrowed. Before
   log_open and after log_close lines are written directly to stderr. */
bool log_open(int fd, enum log_level least);
void log_set_level(enum log_level least);
bool log_enabled(enum log_level l);
/* Writes out all that waits; gives up when the log's reader takes nothing for 2 s. */
void log_flush(void);
/* The same, then stops the writer; what the reader did not take is counted as dropped. fd stays open. */
void log_close(void);
uint64_t log_dropped(void);
bool log_level_parse(struct str s, enum log_level *ret); /* debug, info, warn, error */

void log_write(enum log_level l, const char *msg, const struct log_field *fields);
#define log_msg(level, msg, ...)                                                                                       \
    do {                                                                                                               \
        if (log_enabled(level))                                                                                        \
            log_write((level), (msg), (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ) LOG_END});                 \
    } while (0)

#endif
