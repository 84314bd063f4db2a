/* memory: the store port in plain memory. The reference model for tests; durable in name only. */
#ifndef STORE_MEMORY_H
#define STORE_MEMORY_H

#include "port/store.h"

struct store *store_memory_open(void); /* NULL: out of memory */

#endif
