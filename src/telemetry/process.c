/* Figures of this process from /proc/self (Linux), under the names that Prometheus clients use. */
#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "telemetry/metrics.h"

/* Reads a small file whole; the length, 0 on failure. */
static size_t slurp(const char *path, char *out, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, out, cap - 1);
    close(fd);
    size_t len = n > 0 ? (size_t)n : 0;
    out[len] = '\0';
    return len;
}

/* Field no. `field` (from 3 on) of /proc/self/stat; the name in field 2 may hold spaces, so counting starts behind it.
 */
static int64_t stat_field(int field)
{
    char text[1024];
    slurp("/proc/self/stat", text, sizeof text);
    const char *at = strrchr(text, ')');
    for (int i = 3; at && i <= field; i++)
        at = strchr(at + 1, ' ');
    return at ? strtoll(at, NULL, 10) : 0;
}

static int64_t resident_bytes(void *ctx)
{
    (void)ctx;
    char text[128], *end;
    if (!slurp("/proc/self/statm", text, sizeof text))
        return 0;
    strtoll(text, &end, 10);
    return strtoll(end, NULL, 10) * sysconf(_SC_PAGESIZE);
}

static int64_t cpu_us(void *ctx)
{
    (void)ctx;
    struct timespec t;
    return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0 ? t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000 : 0;
}

static int64_t open_fds(void *ctx)
{
    (void)ctx;
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        return 0;
    int64_t n = 0;
    for (const struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n - 1; /* without the one that reads the folder */
}

static int64_t threads(void *ctx)
{
    (void)ctx;
    return stat_field(20);
}

/* Wall time of the start in µs, from now, the uptime, and the start in ticks since boot. */
static int64_t start_us(void)
{
    struct timespec wall, boot;
    if (clock_gettime(CLOCK_REALTIME, &wall) != 0 || clock_gettime(CLOCK_BOOTTIME, &boot) != 0)
        return 0;
    int64_t booted = (wall.tv_sec - boot.tv_sec) * INT64_C(1000000) + (wall.tv_nsec - boot.tv_nsec) / 1000;
    return booted + stat_field(22) * (1000000 / sysconf(_SC_CLK_TCK));
}

static int64_t start_time(void *ctx)
{
    (void)ctx;
    static atomic_int_fast64_t at; /* fixed at the first look, lest it drift with the wall clock */
    int_fast64_t none = 0;
    if (atomic_load(&at) == 0)
        atomic_compare_exchange_strong(&at, &none, start_us());
    return atomic_load(&at);
}

void metrics_add_process(struct metrics *m)
{
    metric_gauge_fn(m, "process_resident_memory_bytes", "Resident memory size in bytes.", "", resident_bytes, NULL, 1);
    metric_counter_fn(m, "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "", cpu_us,
                      NULL, 1000000);
    metric_gauge_fn(m, "process_open_fds", "Number of open file descriptors.", "", open_fds, NULL, 1);
    metric_gauge_fn(m, "process_threads", "Number of threads.", "", threads, NULL, 1);
    metric_gauge_fn(m, "process_start_time_seconds", "Start time of the process since the Unix epoch in seconds.", "",
                    start_time, NULL, 1000000);
}
