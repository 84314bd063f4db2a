#include "faults/inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#ifdef __SANITIZE_ADDRESS__
#define REAL(f) __interceptor_##f
int __interceptor_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *arg), void *arg);
#define real_pthread_create __interceptor_pthread_create
#else
#define REAL(f) __libc_##f

static int real_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *arg), void *arg)
{
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    return next(ret, attr, run, arg);
}
#endif

/* They may run before the sanitizer's own start. */
#define EARLY __attribute__((no_sanitize("address", "undefined")))

void *REAL(malloc)(size_t n);
void *REAL(calloc)(size_t n, size_t size);
void *REAL(realloc)(void *p, size_t n);
void *REAL(memalign)(size_t align, size_t n);

void *malloc(size_t n);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t n);
void *reallocarray(void *p, size_t n, size_t size);
void *memalign(size_t align, size_t n);
void *aligned_alloc(size_t align, size_t n);
int posix_memalign(void **ret, size_t align, size_t n);

enum { WAY_MAX = 24 };

static atomic_bool armed, rest_too;
static atomic_long seen, fail_at, failed;
static void *_Atomic first_failure;
static void *way[WAY_MAX]; /* callers at the first failure */
static int way_n;

/* EXEMPT to begin with: what a sanitizer allocates while it sets up a thread is not the program's. */
enum { EXEMPT, UNKNOWN, COUNTS };
static _Thread_local int mine;

static EARLY bool thread_counts(void)
{
    if (mine == UNKNOWN) {
        char name[17] = "";
        prctl(PR_GET_NAME, name);
        bool apart = strcmp(name, "log") == 0 || strcmp(name, "scheduler") == 0;
        mine = apart ? EXEMPT : COUNTS;
    }
    return mine == COUNTS;
}

static EARLY bool fails(void *caller)
{
    if (!atomic_load_explicit(&armed, memory_order_relaxed) || !thread_counts())
        return false;
    long at = atomic_fetch_add(&seen, 1), n = fail_at;
    if (n < 0 || at < n || (at > n && !rest_too))
        return false;
    if (atomic_fetch_add(&failed, 1) == 0) {
        first_failure = caller;
        mine = EXEMPT; /* the unwinder's own */
        way_n = backtrace(way, WAY_MAX);
        mine = COUNTS;
    }
    errno = ENOMEM;
    return true;
}

#define FAILS() fails(__builtin_return_address(0))

EARLY void *malloc(size_t n)
{
    return FAILS() ? NULL : REAL(malloc)(n);
}

EARLY void *calloc(size_t n, size_t size)
{
    return FAILS() ? NULL : REAL(calloc)(n, size);
}

EARLY void *realloc(void *p, size_t n)
{
    return FAILS() ? NULL : REAL(realloc)(p, n);
}

EARLY void *reallocarray(void *p, size_t n, size_t size)
{
    size_t all;
    if (__builtin_mul_overflow(n, size, &all) || FAILS())
        return NULL;
    return REAL(realloc)(p, all);
}

EARLY void *memalign(size_t align, size_t n)
{
    return FAILS() ? NULL : REAL(memalign)(align, n);
}

EARLY void *aligned_alloc(size_t align, size_t n)
{
    return FAILS() ? NULL : REAL(memalign)(align, n);
}

EARLY int posix_memalign(void **ret, size_t align, size_t n)
{
    void *p = FAILS() ? NULL : REAL(memalign)(align, n);
    if (!p)
        return ENOMEM;
    *ret = p;
    return 0;
}

/* The sanitizer's would not come by here. */
EARLY char *(strndup)(const char *s, size_t max)
{
    size_t n = strnlen(s, max);
    char *p = FAILS() ? NULL : REAL(malloc)(n + 1);
    if (p) {
        memcpy(p, s, n);
        p[n] = '\0';
    }
    return p;
}

EARLY char *(strdup)(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = FAILS() ? NULL : REAL(malloc)(n);
    return p ? memcpy(p, s, n) : NULL;
}

struct start {
    void *(*run)(void *arg);
    void *arg;
};

static void *begin(void *p)
{
    struct start s = *(struct start *)p;
    free(p);
    mine = UNKNOWN;
    return s.run(s.arg);
}

/* A thread that cannot be had is one of the allocations. */
int pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *arg), void *arg)
{
    struct start *s = FAILS() ? NULL : REAL(malloc)(sizeof *s);
    if (!s)
        return EAGAIN;
    *s = (struct start){run, arg};
    int e = real_pthread_create(ret, attr, begin, s);
    if (e)
        free(s);
    return e;
}

void inject_arm(long n, bool rest)
{
    fail_at = n;
    rest_too = rest;
    seen = failed = 0;
    first_failure = NULL;
    armed = true;
}

long inject_disarm(void)
{
    armed = false;
    return failed;
}

long inject_seen(void)
{
    return seen;
}

void inject_self(bool counts)
{
    mine = counts ? COUNTS : EXEMPT;
}

void inject_where(int fd)
{
    if (!first_failure)
        return;
    dprintf(fd, "the allocation that failed was asked for at (addr2line -e FILE OFFSET):\n");
    for (int i = 1; i < way_n; i++) {
        Dl_info in;
        if (dladdr(way[i], &in))
            dprintf(fd, "  %s 0x%zx %s\n", in.dli_fname, (size_t)((char *)way[i] - (char *)in.dli_fbase) - 1,
                    in.dli_sname ? in.dli_sname : "");
    }
}

bool inject_in(const char *name)
{
    Dl_info in;
    void *at = first_failure;
    return at && dladdr(at, &in) && strstr(in.dli_fname, name);
}
