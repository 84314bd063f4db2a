/*
 * inject: the nth allocation of the process fails.
 *
 * inject.c defines malloc and its kin in the program itself, so that the dynamic linker gives them to every library as
 * well: SQLite, libmicrohttpd, yajl, libyaml, zlib, OpenSSL, the C library's own strdup and fopen. Behind them stand
 * the sanitizer's allocator, or glibc's in a build without one. Only what is allocated while armed counts, by any
 * thread that is not exempt. Threads named "log" and "scheduler" are, because they work for nobody in particular.
 */
#ifndef TESTS_FAULTS_INJECT_H
#define TESTS_FAULTS_INJECT_H

#include <stdbool.h>

/* From now on allocations are numbered from 0, and number n fails; with `rest` all after it too. n < 0: none. */
void inject_arm(long n, bool rest);
/* Returns how many failed since inject_arm. */
long inject_disarm(void);
/* How many there were between inject_arm and inject_disarm. */
long inject_seen(void);
/* Whether the calling thread's allocations count. Those of the main thread do not to begin with. */
void inject_self(bool counts);
/* Writes to fd how the first failure came to be asked for, callers by file and offset. */
void inject_where(int fd);
/* Did a library make the first call that failed? name: part of its file name. */
bool inject_in(const char *name);

#endif
