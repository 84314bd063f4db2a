/* daemon: a server program that a test runs for itself, in a directory of its own, on a free port of 127.0.0.1. */
#ifndef TESTS_DAEMON_H
#define TESTS_DAEMON_H

#include <stdbool.h>
#include <sys/types.h>

struct daemon {
    char dir[64]; /* holds log, what the program says */
    int port;
    pid_t pid; /* 0: not running */
};

/* Makes the directory and finds `ports` free ports in a row, of which the first is d->port. Ends the program if not. */
void daemon_init(struct daemon *d, int ports);
/* Starts the program, which dies with the test, and waits until the port answers. Ends the test, with the log, if not.
 */
void daemon_up(struct daemon *d, const char *const argv[]);
void daemon_signal(const struct daemon *d, int sig);
/* SIGKILL, and waits. Also when it is not running. */
void daemon_kill(struct daemon *d);
/* The same, and removes the directory. */
void daemon_free(struct daemon *d);

#endif
