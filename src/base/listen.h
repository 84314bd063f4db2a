/* listen: a listening TCP socket, for every transport. */
#ifndef BASE_LISTEN_H
#define BASE_LISTEN_H

#include <stdint.h>

/* Non-blocking, close-on-exec, with SO_REUSEADDR; "::" takes IPv4 as well. host: a name or an address, the first of its
   addresses that will do. port 0: one of the kernel's choice; *ret_port is the one taken. -1: why is one line. */
int listen_open(const char *host, uint16_t port, uint16_t *ret_port, char why[256]);

#endif
