/*
 * rand: unpredictable bytes from the kernel (getrandom), buffered per thread (not across fork). Thread-safe. Cannot
 * fail: it aborts if the kernel has no randomness to give, which happens only before the machine has booted.
 */
#ifndef BASE_RAND_H
#define BASE_RAND_H

#include <stddef.h>
#include <stdint.h>

void rand_bytes(void *p, size_t n);
uint64_t rand_u64(void);

#endif
