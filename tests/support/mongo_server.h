/*
 * mongo_server: a server that speaks MongoDB's protocol, of a test program's own.
 *
 * $PAYFLOW_TEST_FERRETDB names the program, ferretdb or mongod; without it the PATH is searched for either. Debian 12
 * has none (`./dev interop` builds FerretDB, which keeps its data in SQLite files): tests are then skipped.
 */
#ifndef TESTS_MONGO_SERVER_H
#define TESTS_MONGO_SERVER_H

#include "support/daemon.h"

/* false: there is no such program. End it with daemon_free. */
bool mongo_server_start(struct daemon *d);
/* After daemon_kill: again, on the same data and port. */
void mongo_server_up(struct daemon *d);

#endif
