/* Linked in place of the system's clocks (-Wl,--wrap): all of them jump by up to an hour either way at each reading,
 * and count their readings. The room takes its time as an argument, so a test that ends with any reading has failed. */
#include "clocks.h"

#include <sys/time.h>
#include <time.h>

unsigned clocks_read;
static uint64_t state;

int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_gettimeofday(struct timeval *t, void *zone);
time_t __wrap_time(time_t *t);

static int64_t jump(void)
{
    clocks_read++;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return 1000000 + (int64_t)(state >> 33) % 7200 - 3600;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    (void)id;
    *t = (struct timespec){.tv_sec = jump()};
    return 0;
}

int __wrap_gettimeofday(struct timeval *t, void *zone)
{
    (void)zone;
    *t = (struct timeval){.tv_sec = jump()};
    return 0;
}

time_t __wrap_time(time_t *t)
{
    const time_t now = jump();

    if (t)
        *t = now;
    return now;
}
