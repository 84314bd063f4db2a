/*
 * turn: I/O threads that have something to do beside their clients, such as speaking to other servers, so that a
 * request stays on one thread all its way.
 *
 * With http_config.turn each I/O thread calls it again and again until the server stops. A turn
 *   - waits, with whatever else it waits for, until http_io_fd is readable, but no longer than http_io_wait_ms;
 *   - calls http_io_run then (http_io_wait_ms is 0 once the turn itself has resumed a request);
 *   - does its own, without blocking, and returns within a second.
 * The handler and `resumed` are called in http_io_run. Requests may be resumed on any thread, as always; on their own
 * one it costs no wake-up.
 *
 * All of these are for the thread of `io`, during a turn.
 */
#ifndef HTTP_TURN_H
#define HTTP_TURN_H

#include "http/http.h"

/* 0 .. http_config.threads - 1 */
unsigned http_io_index(const struct http_io *io);
/* For poll or epoll, level-triggered; the same in every turn. Not to be read. */
int http_io_fd(const struct http_io *io);
/* Until http_io_run is to be called even if nothing is readable; 0: now; -1: there is no such time. */
int http_io_wait_ms(const struct http_io *io);
void http_io_run(struct http_io *io);

#endif
