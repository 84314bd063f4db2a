/*
 * memory: the documents port in the process's memory; the reference model that the engines are held against, and what
 * tests of the application use.
 */
#ifndef DOCUMENTS_MEMORY_H
#define DOCUMENTS_MEMORY_H

#include "port/documents.h"

/* NULL: out of memory. */
struct documents *documents_memory_open(void);

#endif
