/*
 * redis_server: a Redis of a test program's own, on a Unix socket in a directory of its own.
 *
 *     struct redis_server s;
 *     redis_server_start(&s, NULL);    ends the program with a message when that fails
 *     … connect to s.socket …
 *     redis_server_stop(&s);           should the program end otherwise, the server ends with it
 */
#ifndef TESTS_REDIS_SERVER_H
#define TESTS_REDIS_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

struct redis_server {
    char dir[48], socket[64];
    const char *password; /* borrowed; NULL: none */
    pid_t pid;            /* 0: not running */
};

void redis_server_start(struct redis_server *s, const char *password);
/* Ends the server and removes the directory. */
void redis_server_stop(struct redis_server *s);
/* kill -9; redis_server_up starts it again, from what SAVE left on disk. */
void redis_server_kill(struct redis_server *s);
void redis_server_up(struct redis_server *s);
void redis_server_freeze(struct redis_server *s, bool on);
/* One command in hiredis's format; its answer as text (integers in decimal, "" for nil) in static memory. An error ends
   the program. */
const char *redis_server_do(const struct redis_server *s, const char *fmt, ...);

#endif
