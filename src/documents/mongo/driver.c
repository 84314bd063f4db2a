#include "documents/mongo/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number of the interface that the headers describe. */
#define LIBRARY "libmongoc-1.0.so.0"

struct driver driver;
static char problem[200]; /* empty: loaded */

static const struct {
    const char *name;
    size_t at;
} functions[] = {
#define DRIVER_NAME(f) {#f, offsetof(struct driver, f)},
    DRIVER_FUNCTIONS(DRIVER_NAME)
#undef DRIVER_NAME
};

static void silent(mongoc_log_level_t level, const char *domain, const char *message, void *ctx)
{
    (void)level, (void)domain, (void)message, (void)ctx;
}

/* The library cannot be begun again once it was ended. */
static void end(void)
{
    driver.mongoc_cleanup();
}

static void load(void)
{
    setenv("MONGOC_DISABLE_SHM", "1", 1);
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(problem, sizeof problem, "MongoDB's library cannot be loaded: %s", dlerror());
        return;
    }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *f = dlsym(library, functions[i].name);
        if (!f) {
            snprintf(problem, sizeof problem, "%s lacks %s", LIBRARY, functions[i].name);
            return;
        }
        memcpy((char *)&driver + functions[i].at, &f, sizeof f);
    }
    driver.mongoc_init();
    driver.mongoc_log_set_handler(silent, NULL);
    atexit(end);
}

bool driver_load(char *ret_why, unsigned long cap)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    if (problem[0])
        snprintf(ret_why, cap, "%s", problem);
    return !problem[0];
}
