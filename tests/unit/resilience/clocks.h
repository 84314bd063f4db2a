/* clocks: see clocks.c. */
#ifndef TESTS_UNIT_RESILIENCE_CLOCKS_H
#define TESTS_UNIT_RESILIENCE_CLOCKS_H

#include <stdint.h>

extern unsigned clocks_read;

#endif
