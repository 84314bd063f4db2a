/*
 * GoTicketra's way of booking, made again without its language, its gateway and its gRPC: a lock in Redis around a
 * check and an INSERT in PostgreSQL.
 *
 *     seed_booking CONNINFO REDIS_PORT CALLERS SECONDS PAUSE_US
 *
 * Each caller is a thread with connections of its own and books one ticket after the other: SET lock:event:1 NX PX
 * 5000; is there a ticket; INSERT and the new stock, in one statement and one durable commit; DEL. Who does not get the
 * lock is refused and tries again after a random pause of up to PAUSE_US. Prints one line of JSON.
 */
#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALLERS_MAX = 1024, STACK = 256 << 10 };

struct caller {
    pthread_t thread;
    unsigned seed;
    unsigned long bookings, refused;
    unsigned *took_us; /* of each booking, its refusals included */
    size_t cap;
};

static const char *conninfo;
static int redis_port;
static unsigned pause_us;
static double end_s;
static pthread_barrier_t ready;
static _Atomic bool sold_out;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "seed_booking: %s: %s\n", what, why);
    exit(1);
}

static redisContext *redis_open(void)
{
    redisContext *r = redisConnect("127.0.0.1", redis_port);
    if (!r || r->err)
        fail("Redis", r ? r->errstr : "no memory");
    return r;
}

static PGconn *pg_open(void)
{
    PGconn *p = PQconnectdb(conninfo);
    if (PQstatus(p) != CONNECTION_OK)
        fail("PostgreSQL", PQerrorMessage(p));
    PQclear(PQprepare(p, "check", "SELECT available FROM hot_event WHERE id = 1", 0, NULL));
    PQclear(
        PQprepare(p, "book",
                  "WITH e AS (UPDATE hot_event SET available = available - 1 WHERE id = 1 RETURNING id)"
                  " INSERT INTO hot_booking (user_id, event_id, tickets, status) SELECT $1, id, 1, 'PENDING' FROM e",
                  1, NULL));
    return p;
}

/* true: the lock is this caller's. */
static bool lock(redisContext *r)
{
    redisReply *a = redisCommand(r, "SET lock:event:1 1 NX PX 5000");
    if (!a || a->type == REDIS_REPLY_ERROR)
        fail("SET", a ? a->str : r->errstr);
    bool mine = a->type == REDIS_REPLY_STATUS;
    freeReplyObject(a);
    return mine;
}

static void unlock(redisContext *r)
{
    redisReply *a = redisCommand(r, "DEL lock:event:1");
    if (!a || a->type == REDIS_REPLY_ERROR)
        fail("DEL", a ? a->str : r->errstr);
    freeReplyObject(a);
}

static bool book(PGconn *p, const char *user)
{
    PGresult *a = PQexecPrepared(p, "check", 0, NULL, NULL, NULL, 0);
    if (PQresultStatus(a) != PGRES_TUPLES_OK || PQntuples(a) != 1)
        fail("SELECT", PQerrorMessage(p));
    bool left = atoll(PQgetvalue(a, 0, 0)) >= 1;
    PQclear(a);
    if (!left)
        return false;
    a = PQexecPrepared(p, "book", 1, &user, NULL, NULL, 0);
    if (PQresultStatus(a) != PGRES_COMMAND_OK || strcmp(PQcmdTuples(a), "1") != 0)
        fail("INSERT", PQerrorMessage(p));
    PQclear(a);
    return true;
}

static void note(struct caller *c, double took)
{
    if (c->bookings == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 1024;
        c->took_us = realloc(c->took_us, c->cap * sizeof *c->took_us);
        if (!c->took_us)
            fail("realloc", "no memory");
    }
    c->took_us[c->bookings++] = (unsigned)(took * 1e6);
}

static void *call(void *arg)
{
    struct caller *c = arg;
    redisContext *r = redis_open();
    PGconn *p = pg_open();
    char user[32];
    snprintf(user, sizeof user, "guest-%u", c->seed);
    pthread_barrier_wait(&ready); /* all are connected */
    pthread_barrier_wait(&ready); /* end_s is set */
    while (now_s() < end_s && !sold_out) {
        double begin = now_s();
        bool mine = lock(r);
        while (!mine && now_s() < end_s) {
            c->refused++;
            if (pause_us) {
                long us = (long)((unsigned)rand_r(&c->seed) % pause_us);
                nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
            }
            mine = lock(r);
        }
        if (!mine)
            break;
        bool booked = book(p, user);
        unlock(r);
        if (booked)
            note(c, now_s() - begin);
        else
            sold_out = true;
    }
    PQfinish(p);
    redisFree(r);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static struct caller callers[CALLERS_MAX];
    unsigned n = argc == 6 ? (unsigned)atoi(argv[3]) : 0;
    unsigned long bookings = 0, refused = 0;
    if (n < 1 || n > CALLERS_MAX)
        fail("usage", "seed_booking CONNINFO REDIS_PORT CALLERS SECONDS PAUSE_US");
    conninfo = argv[1];
    redis_port = atoi(argv[2]);
    pause_us = (unsigned)atoi(argv[5]);
    pthread_barrier_init(&ready, NULL, n + 1);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK);
    for (unsigned i = 0; i < n; i++) {
        callers[i].seed = i + 1;
        if (pthread_create(&callers[i].thread, &small, call, &callers[i]) != 0)
            fail("pthread_create", "no thread");
    }
    pthread_barrier_wait(&ready);
    double begin = now_s();
    end_s = begin + atof(argv[4]);
    pthread_barrier_wait(&ready);
    for (unsigned i = 0; i < n; i++)
        pthread_join(callers[i].thread, NULL);
    double seconds = now_s() - begin;
    for (unsigned i = 0; i < n; i++) {
        bookings += callers[i].bookings;
        refused += callers[i].refused;
    }
    unsigned *all = calloc(bookings + 1, sizeof *all);
    if (!all)
        fail("calloc", "no memory");
    size_t at = 0;
    for (unsigned i = 0; i < n; i++) {
        if (callers[i].bookings)
            memcpy(all + at, callers[i].took_us, callers[i].bookings * sizeof *all);
        at += callers[i].bookings;
        free(callers[i].took_us);
    }
    qsort(all, bookings, sizeof *all, ascending);
    printf("{\"bookings\":%lu,\"refused\":%lu,\"rate\":%.1f,\"p50\":%.3f,\"p99\":%.3f}\n", bookings, refused,
           (double)bookings / seconds, all[bookings / 2] / 1e3, all[bookings * 99 / 100] / 1e3);
    free(all);
    return sold_out;
}
