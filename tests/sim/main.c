/* Which seeds, how often, and what must have been seen. TAP on stdout; the way to repeat a failure too. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "store/sqlite/sqlite.h"

enum { CHUNK = 50, TWICE_EVERY = 10, COVERED_FROM = 100 };

/* Each seed frees megabytes, which would keep the sanitizer busy with fresh pages. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=8";
}

static struct options {
    uint64_t from;
    long count;
    bool verbose, hashes, without_syncs;
    const char *self;
} opt = {.from = 1, .count = 200};

static char dirs[3][104]; /* two for lives in turn, one with a fresh database */
static struct coverage seen;

/* ---- one seed ---- */

static bool run_seed(uint64_t seed, bool verbose, uint64_t *ret_trace)
{
    struct sim *s = calloc(1, sizeof *s);
    if (!s || !model_init(&s->m) || !(s->cmd = calloc(COMMANDS_MAX, sizeof *s->cmd)) ||
        !(s->sched = calloc(SCHEDULES_MAX, sizeof *s->sched)))
        abort();
    s->seed = seed;
    s->rng = seed * UINT64_C(0xd1342543de82ef95);
    s->rng_lib = ~s->rng;
    s->trace = UINT64_C(0xcbf29ce484222325);
    s->verbose = verbose;
    s->dirs[0] = dirs[0];
    s->dirs[1] = dirs[1];
    arena_init(&s->arena, NULL, 0, 64 << 20);
    sim_now = s;
    disk_seed(seed);
    disk_forget(dirs[0]);
    disk_forget(dirs[1]);
    if (seed % 8) /* else the first start makes the database, crashes and all */
        disk_crash(dirs[2], dirs[0], DISK_DROP);
    sim_run(s);
    sim_now = NULL;
    bool ok = sim_ok(s);
    if (!ok && !verbose && !opt.hashes && !opt.without_syncs) {
        printf("# seed %llu: %s\n# its last steps:\n", (unsigned long long)seed, s->why);
        for (long i = s->lines > TAIL ? s->lines - TAIL : 0; i < s->lines; i++)
            printf("#   %s\n", s->tail[i % TAIL]);
        printf("# again: ./dev sim 1 --from %llu --verbose\n", (unsigned long long)seed);
    }
    const long *add = (const long *)&s->c;
    long *sum = (long *)&seen;
    for (size_t i = 0; i < sizeof seen / sizeof *sum; i++)
        sum[i] += add[i];
    *ret_trace = s->trace;
    model_free(&s->m);
    free(s->cmd);
    free(s->sched);
    free(s);
    return ok;
}

/* ---- many ---- */

static int cases, failures;

static void report(bool ok, const char *what)
{
    cases++;
    failures += !ok;
    printf("%sok %d - %s\n", ok ? "" : "not ", cases, what);
    fflush(stdout);
}

static uint64_t *run_all(void)
{
    uint64_t *trace = calloc((size_t)opt.count, sizeof *trace);
    char what[80];
    if (!trace)
        abort();
    for (long i = 0; i < opt.count; i += CHUNK) {
        long n = opt.count - i < CHUNK ? opt.count - i : CHUNK, good = 0;
        for (long k = i; k < i + n; k++)
            good += run_seed(opt.from + (uint64_t)k, false, &trace[k]);
        snprintf(what, sizeof what, "seeds %llu to %llu", (unsigned long long)opt.from + (unsigned long long)i,
                 (unsigned long long)opt.from + (unsigned long long)(i + n - 1));
        report(good == n, what);
    }
    return trace;
}

/* Again in this process, after other seeds; and in a process of their own. */
static void run_twice(const uint64_t *trace)
{
    bool same = true;
    for (long i = 0; i < opt.count; i += TWICE_EVERY) {
        uint64_t again;
        run_seed(opt.from + (uint64_t)i, false, &again);
        same &= again == trace[i];
        if (again != trace[i])
            printf("# seed %llu has another trace the second time\n", (unsigned long long)opt.from + (unsigned long)i);
    }
    report(same, "the same trace a second time");
}

static void run_fresh(const uint64_t *trace)
{
    enum { FRESH = 8 };
    bool same = true;
    for (long i = 0; i < opt.count && i < FRESH; i++) {
        char command[600];
        unsigned long long hash = 0;
        uint64_t seed = opt.from + (uint64_t)(opt.count - 1 - i);
        snprintf(command, sizeof command, "'%s' 1 --from %llu --hashes", opt.self, (unsigned long long)seed);
        FILE *f = popen(command, "r");
        bool read = f && fscanf(f, "%llx", &hash) == 1;
        if (f)
            pclose(f);
        same &= read && hash == trace[opt.count - 1 - i];
        if (!read || hash != trace[opt.count - 1 - i])
            printf("# seed %llu has another trace in a process of its own\n", (unsigned long long)seed);
    }
    report(same, "the same trace in another process");
}

static const char *const names[] = {
    "steps",     "commands", "acked",   "refused", "replays",     "reused", "in_flight",    "busy",     "groups",
    "entries",   "batches",  "retried", "lives",   "kills",       "power",  "faults",       "unknown",  "came",
    "not_came",  "full",     "fatal",   "clean",   "open_failed", "runs",   "run_refusals", "skips",    "expired",
    "schedules", "cancels",  "users",   "deleted", "reads",       "checks", "jumps_back",   "rebuilds", "midway"};
_Static_assert(sizeof names / sizeof *names == sizeof seen / sizeof(long), "a name for each");

/* A simulation in which something never happens says nothing about it. */
static void report_coverage(void)
{
    const long *v = (const long *)&seen;
    bool all = true;
    printf("#");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        printf(" %s %ld", names[i], v[i]);
        all &= v[i] > 0;
    }
    printf("\n");
    if (opt.count >= COVERED_FROM)
        report(all, "everything happened");
}

/* The positive control: on a disk that ignores syncs, losses must be found. */
static void run_without_syncs(void)
{
    long found = 0;
    char what[80];
    disk_sync_off(true);
    for (long i = 0; i < opt.count; i++) {
        uint64_t trace;
        found += !run_seed(opt.from + (uint64_t)i, false, &trace);
    }
    disk_sync_off(false);
    snprintf(what, sizeof what, "without syncs %ld of %ld seeds go wrong", found, opt.count);
    report(found * 5 > opt.count, what);
}

/* ---- the process ---- */

static bool make_dirs(void)
{
    const char *tmp = getenv("TMPDIR");
    for (int i = 0; i < 3; i++) {
        snprintf(dirs[i], sizeof dirs[i], "%.80s/payflow-sim-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (!mkdtemp(dirs[i]))
            return false;
    }
    struct store *s;
    char why[256];
    if (store_sqlite_open(&(struct sqlite_options){.dir = dirs[2]}, &s, why) != PFE_OK)
        return false;
    store_close(s);
    return true;
}

static void remove_dirs(void)
{
    static const char *const files[] = {"payflow.db", "lock"};
    char path[512];
    for (int i = 0; i < 3; i++) {
        disk_forget(dirs[i]);
        for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
            snprintf(path, sizeof path, "%s/%s", dirs[i], files[k]);
            unlink(path);
        }
        rmdir(dirs[i]);
    }
}

static bool parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *end = argv[i];
        if (strcmp(argv[i], "--verbose") == 0)
            opt.verbose = true;
        else if (strcmp(argv[i], "--hashes") == 0)
            opt.hashes = true;
        else if (strcmp(argv[i], "--without-syncs") == 0)
            opt.without_syncs = true;
        else if (strcmp(argv[i], "--from") == 0 && i + 1 < argc)
            opt.from = strtoull(argv[++i], &end, 10);
        else
            opt.count = strtol(argv[i], &end, 10);
        if (end != argv[i] && *end)
            return false;
    }
    return opt.count > 0;
}

int main(int argc, char **argv)
{
    static char self[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    opt.self = n > 0 ? self : argv[0];
    if (!parse(argc, argv)) {
        fprintf(stderr, "sim [SEEDS] [--from SEED] [--verbose] [--hashes] [--without-syncs]\n");
        return 2;
    }
    log_set_level((enum log_level)(LOG_ERROR + 1)); /* failures are what it is about */
    (void)str_hash(STR("its key is drawn before any seed"));
    if (disk_install() != 0)
        return 2;
    disk_seed(0);
    if (!make_dirs()) {
        fprintf(stderr, "sim: cannot make a database\n");
        return 2;
    }
    if (opt.verbose || opt.hashes) {
        for (long i = 0; i < opt.count; i++) {
            uint64_t trace;
            failures += !run_seed(opt.from + (uint64_t)i, opt.verbose, &trace);
            printf("%016llx\n", (unsigned long long)trace);
        }
    } else if (opt.without_syncs) {
        run_without_syncs();
        printf("1..%d\n", cases);
    } else {
        uint64_t *trace = run_all();
        report_coverage();
        run_twice(trace);
        run_fresh(trace);
        printf("1..%d\n", cases);
        free(trace);
    }
    remove_dirs();
    return failures != 0;
}
