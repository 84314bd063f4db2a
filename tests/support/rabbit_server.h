/* rabbit_server: Debian's RabbitMQ, a node of a test program's own (tests/support/rabbit-server). */
#ifndef TESTS_RABBIT_SERVER_H
#define TESTS_RABBIT_SERVER_H

#include "support/daemon.h"

void rabbit_server_start(struct daemon *d);
/* After daemon_kill: again, with the same data and port. */
void rabbit_server_up(struct daemon *d);
void rabbit_server_stop(struct daemon *d);
/* "amqp://guest:guest@127.0.0.1:PORT/", in static memory. */
const char *rabbit_server_url(const struct daemon *d);

#endif
