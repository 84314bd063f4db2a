/* Connections to one Redis: bounded in number, in time and in what they take in. */
#include "cache/redis/internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { ARGS_MAX = 2 * MESSAGE_KEYS + 8, READ_SLICE = 16384 };

/* KEYS: value, epoch. ARGV: a random name, an epoch to use if there is none of this server, the lease's ms.
   What stands there, or the lease that stands there now. */
static const char script_lease[] =
    "local e=redis.call('GET',KEYS[2])\n"
    "if not e or string.sub(e,1,16)~=string.sub(ARGV[2],1,16) then e=ARGV[2] redis.call('SET',KEYS[2],e) end\n"
    "local v=redis.call('GET',KEYS[1])\n"
    "if v and string.sub(v,2,33)==e then return v end\n"
    "v='L'..e..ARGV[1]\n"
    "redis.call('SET',KEYS[1],v,'PX',ARGV[3])\n"
    "return v\n";
/* KEYS: value. ARGV: lease, value, ms. */
static const char script_put[] = "if redis.call('GET',KEYS[1])~=ARGV[1] then return 0 end\n"
                                 "redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3])\n"
                                 "return 1\n";
/* KEYS: what may go. Counts values; leaves alone what is neither value nor lease. */
static const char script_drop[] = "local n=0\n"
                                  "for _,k in ipairs(KEYS) do\n"
                                  " local c=redis.call('TYPE',k).ok=='string' and redis.call('GETRANGE',k,0,0) or ''\n"
                                  " if c=='V' then n=n+1 end\n"
                                  " if c=='V' or c=='L' then redis.call('UNLINK',k) end\n"
                                  "end\n"
                                  "return n\n";
/* KEYS: counter. ARGV: cost, ms. */
static const char script_rate[] =
    "local c=tonumber(ARGV[1])\n"
    "local n\n"
    "if c>0 then n=redis.call('INCRBY',KEYS[1],c) else n=tonumber(redis.call('GET',KEYS[1]) "
    "or 0) end\n"
    "local t=redis.call('PTTL',KEYS[1])\n"
    "if t<0 and c>0 then redis.call('PEXPIRE',KEYS[1],ARGV[2]) t=tonumber(ARGV[2]) end\n"
    "return {n,t}\n";
/* KEYS: instances, epoch. ARGV: this one, ms of silence, ms until it is forgotten, the channel. How many are missing.
 */
static const char script_beat[] = "local t=redis.call('TIME')\n"
                                  "local now=t[1]*1000+math.floor(t[2]/1000)\n"
                                  "redis.call('ZADD',KEYS[1],now,ARGV[1])\n"
                                  "redis.call('ZREMRANGEBYSCORE',KEYS[1],'-inf',now-ARGV[3])\n"
                                  "local n=redis.call('ZCOUNT',KEYS[1],'-inf',now-ARGV[2])\n"
                                  "if n>0 then\n"
                                  " redis.call('DEL',KEYS[2])\n"
                                  " redis.call('PUBLISH',ARGV[4],'0000000000000000g*')\n"
                                  "end\n"
                                  "return n\n";
/* KEYS: lock. ARGV: its holder's name; somebody else may have it by now. */
static const char script_unlock[] = "if redis.call('GET',KEYS[1])~=ARGV[1] then return 0 end\n"
                                    "return redis.call('DEL',KEYS[1])\n";

const char *const script_text[SCRIPTS] = {
    [SCRIPT_LEASE] = script_lease, [SCRIPT_PUT] = script_put,   [SCRIPT_DROP] = script_drop,
    [SCRIPT_RATE] = script_rate,   [SCRIPT_BEAT] = script_beat, [SCRIPT_UNLOCK] = script_unlock,
};

static int64_t now_us(void)
{
    return clock_mono(clock_system());
}

static void on_transition(void *ctx, enum breaker_state from, enum breaker_state to, int64_t at_us)
{
    struct link *l = ctx;
    (void)from;
    (void)at_us;
    if (to == BREAKER_OPEN) /* under the breaker's lock: link_give does the rest */
        atomic_store_explicit(&l->up_hint, false, memory_order_release);
}

struct breaker_config cache_redis_breaker(void)
{
    struct breaker_config bc = breaker_defaults();
    bc.window = BREAKER_COUNT_BASED;
    bc.window_size = 20;
    bc.minimum_calls = 5;
    bc.failure_rate = 50;
    bc.slow_rate = 50;
    bc.slow_call_us = SLOW_US;
    bc.lease_us = 10 * 1000000;
    return bc;
}

bool link_init(struct link *l, const struct cache_redis_options *o)
{
    struct breaker_config bc = o->breaker ? *o->breaker : cache_redis_breaker();
    bc.on_transition = on_transition;
    bc.ctx = l;
    *l = (struct link){.port = o->port, .db = o->db, .pool_size = o->pool_size, .min_idle = o->min_idle};
    pthread_condattr_t mono;
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->given, &mono);
    pthread_cond_init(&l->wanted, &mono);
    pthread_cond_init(&l->stopping, &mono);
    pthread_condattr_destroy(&mono);
    if (l->min_idle > l->pool_size)
        l->min_idle = l->pool_size;
    l->host = strdup(o->host);
    l->user = strdup(o->user);
    l->password = strdup(o->password);
    l->breaker = breaker_new(&bc, now_us());
    l->names = resolver_new();
    snprintf(l->why, sizeof l->why, "not connected yet");
    return l->host && l->user && l->password && l->breaker && l->names;
}

void link_fini(struct link *l)
{
    while (l->idle) {
        struct conn *c = l->idle;
        l->idle = c->next;
        conn_close(c);
    }
    breaker_free(l->breaker);
    resolver_free(l->names);
    free(l->host);
    free(l->user);
    if (l->password)
        explicit_bzero(l->password, strlen(l->password));
    free(l->password);
    pthread_cond_destroy(&l->given);
    pthread_cond_destroy(&l->wanted);
    pthread_cond_destroy(&l->stopping);
    pthread_mutex_destroy(&l->lock);
}

/* ---- one connection ---- */

/* An announced array is allocated before its elements come: no server of ours announces that many. */
static void *array_bounded(const redisReadTask *task, int elements)
{
    const struct conn *c = task->privdata;
    return elements > REPLY_ELEMENTS_MAX ? NULL : c->make_array(task, elements);
}

void conn_close(struct conn *c)
{
    if (!c)
        return;
    if (c->redis)
        redisFree(c->redis);
    if (c->reader)
        redisReaderFree(c->reader);
    if (c->out.p)
        explicit_bzero(c->out.p, c->out.cap); /* it may have held the password */
    buf_free(&c->out);
    free(c);
}

static struct conn *conn_new(redisContext *redis)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    buf_init(&c->out, 0);
    c->redis = redis;
    c->fn = *redis->reader->fn;
    c->make_array = c->fn.createArray;
    c->fn.createArray = array_bounded;
    c->reader = redisReaderCreateWithFunctions(&c->fn);
    if (c->reader)
        c->reader->privdata = c;
    return c;
}

static void append(struct conn *c, char *text, int n)
{
    if (n < 0) {
        c->broken = true;
        return;
    }
    buf_put(&c->out, text, (size_t)n);
    explicit_bzero(text, (size_t)n);
    redisFreeCommand(text);
}

void conn_command(struct conn *c, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = redisvFormatCommand(&text, fmt, ap);
    va_end(ap);
    append(c, text, n);
}

void conn_argv(struct conn *c, unsigned n, const char **argv, const size_t *lens)
{
    char *text = NULL;
    append(c, text, redisFormatCommandArgv(&text, (int)n, argv, lens));
}

void conn_script(struct link *l, struct conn *c, enum script s, unsigned n_keys, const struct str *args, unsigned n)
{
    const char *argv[ARGS_MAX];
    size_t lens[ARGS_MAX];
    char count[STR_U64_MAX];
    unsigned at = 0;
    argv[at] = "EVALSHA", lens[at++] = 7;
    argv[at] = l->sha[s], lens[at++] = SHA_LEN;
    argv[at] = count, lens[at++] = str_from_u64(n_keys, count);
    for (unsigned i = 0; i < n && at < ARGS_MAX; i++)
        argv[at] = args[i].p, lens[at++] = args[i].n;
    conn_argv(c, at, argv, lens);
}

static bool ready(const struct conn *c, short events, int64_t deadline_us)
{
    struct pollfd p = {c->redis->fd, events, 0};
    for (;;) {
        int64_t left = deadline_us - now_us();
        int n = poll(&p, 1, left > 0 ? (int)((left + 999) / 1000) : 0);
        if (n > 0)
            return true;
        if (n == 0 || errno != EINTR)
            return false;
    }
}

bool conn_send(struct conn *c, int64_t timeout_us)
{
    const int64_t deadline = now_us() + timeout_us;
    size_t at = 0;
    if (c->out.failed)
        c->broken = true;
    while (!c->broken && at < c->out.n) {
        ssize_t n = send(c->redis->fd, c->out.p + at, c->out.n - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            at += (size_t)n;
        else if (n < 0 && errno != EINTR && (errno != EAGAIN || !ready(c, POLLOUT, deadline)))
            c->broken = true;
    }
    buf_clear(&c->out);
    return !c->broken;
}

redisReply *conn_receive(struct conn *c, int64_t timeout_us)
{
    const int64_t deadline = now_us() + timeout_us;
    char slice[READ_SLICE];
    while (!c->broken) {
        void *reply = NULL;
        if (redisReaderGetReply(c->reader, &reply) != REDIS_OK) {
            c->broken = true;
            break;
        }
        if (reply)
            return reply;
        ssize_t n = recv(c->redis->fd, slice, sizeof slice, MSG_DONTWAIT);
        if (n > 0 && c->reader->len + (size_t)n <= REPLY_BYTES_MAX)
            c->broken = redisReaderFeed(c->reader, slice, (size_t)n) != REDIS_OK;
        else if (n < 0 && errno == EAGAIN) {
            if (!ready(c, POLLIN, deadline))
                return NULL;
        } else if (n >= 0 || errno != EINTR)
            c->broken = true;
        if (now_us() > deadline) /* it drips */
            return NULL;
    }
    return NULL;
}

void replies_free(redisReply **r, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (r[i])
            freeReplyObject(r[i]);
        r[i] = NULL;
    }
}

/* Errors about one command say nothing about the server; all others say that it cannot serve: READONLY, NOAUTH,
 * LOADING, MISCONF, MASTERDOWN, BUSY and whatever comes to be. */
static bool serves(const redisReply *r)
{
    static const char *const harmless[] = {"OOM ", "WRONGTYPE "};
    if (r->type != REDIS_REPLY_ERROR)
        return true;
    for (unsigned i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (strncmp(r->str, harmless[i], strlen(harmless[i])) == 0)
            return true;
    return strstr(r->str, "OOM command not allowed") != NULL; /* as a script reports it */
}

bool conn_exchange(struct conn *c, unsigned n, redisReply **ret)
{
    const int64_t deadline = now_us() + COMMAND_US;
    memset(ret, 0, n * sizeof *ret);
    bool ok = conn_send(c, COMMAND_US);
    for (unsigned i = 0; ok && i < n; i++) {
        ret[i] = conn_receive(c, deadline - now_us());
        ok = ret[i] && serves(ret[i]);
    }
    if (!ok) {
        replies_free(ret, n);
        c->broken = true;
        c->verdict = BREAKER_FAILURE;
    }
    return ok;
}

static void refused(char why[WHY_MAX], const char *what, const redisReply *r)
{
    if (r)
        snprintf(why, WHY_MAX, "%s: %.100s", what, r->type == REDIS_REPLY_ERROR ? r->str : "unexpected answer");
    else
        snprintf(why, WHY_MAX, "%s: no answer", what);
}

/* One command on a connection that is being made; true: the answer is neither an error nor missing. */
static bool ask(struct conn *c, const char *what, int type, redisReply **ret, char why[WHY_MAX])
{
    *ret = conn_send(c, COMMAND_US) ? conn_receive(c, COMMAND_US) : NULL;
    if (*ret && (*ret)->type == type)
        return true;
    refused(why, what, *ret);
    replies_free(ret, 1);
    return false;
}

static bool ask_ok(struct conn *c, const char *what, char why[WHY_MAX])
{
    redisReply *r;
    if (!ask(c, what, REDIS_REPLY_STATUS, &r, why))
        return false;
    replies_free(&r, 1);
    return true;
}

static bool introduce(const struct link *l, struct conn *c, char why[WHY_MAX])
{
    redisReply *r;
    if (*l->user)
        conn_command(c, "AUTH %s %s", l->user, l->password);
    else if (*l->password)
        conn_command(c, "AUTH %s", l->password);
    if (c->out.n && !ask_ok(c, "AUTH", why))
        return false;
    conn_command(c, "SELECT %d", l->db);
    if (!ask_ok(c, "SELECT", why))
        return false;
    conn_command(c, "INFO server");
    if (!ask(c, "INFO", REDIS_REPLY_STRING, &r, why))
        return false;
    const char *run = strstr(r->str, "run_id:");
    bool ok = run && strspn(run + 7, "0123456789abcdef") >= RUN_LEN;
    if (ok)
        memcpy(c->run, run + 7, RUN_LEN);
    else
        snprintf(why, WHY_MAX, "INFO: no run_id");
    replies_free(&r, 1);
    return ok;
}

struct conn *link_connect(const struct link *l, char why[WHY_MAX])
{
    const struct timeval tv = {0, CONNECT_US};
    redisContext *redis = NULL;
    struct resolved at = {.n = 0};
    char names[RESOLVE_WHY_MAX];
    if (l->host[0] == '/') {
        redis = redisConnectUnixWithTimeout(l->host, tv);
    } else if (resolver_ask(l->names, l->host, NAMES_MS, &at, names) != PFE_OK) {
        snprintf(why, WHY_MAX, "look up: %.100s", names);
        return NULL;
    }
    for (unsigned i = 0; i < at.n && (!redis || redis->err); i++) {
        if (redis)
            redisFree(redis);
        redis = redisConnectWithTimeout(at.address[i], l->port, tv);
    }
    snprintf(why, WHY_MAX, "out of memory");
    if (!redis)
        return NULL;
    if (redis->err) {
        snprintf(why, WHY_MAX, "connect: %.100s", redis->errstr);
        redisFree(redis);
        return NULL;
    }
    struct conn *c = conn_new(redis);
    if (!c) {
        redisFree(redis);
        return NULL;
    }
    if (!c->reader || !introduce(l, c, why)) {
        conn_close(c);
        return NULL;
    }
    return c;
}

/* ---- the pool ---- */

void deadline_after(int64_t us, struct timespec *ret)
{
    int64_t at = now_us() + us;
    *ret = (struct timespec){at / 1000000, at % 1000000 * 1000};
}

/* With the lock held. */
static void drop_idle(struct link *l, struct conn **dead)
{
    while (l->idle) {
        struct conn *c = l->idle;
        l->idle = c->next;
        c->next = *dead;
        *dead = c;
        l->n_open--;
    }
    l->n_idle = 0;
}

static void close_all(struct conn *dead)
{
    while (dead) {
        struct conn *next = dead->next;
        conn_close(dead);
        dead = next;
    }
}

static void down_locked(struct link *l, const char *why, struct conn **dead)
{
    if (l->up)
        snprintf(l->why, sizeof l->why, "%s", why);
    l->up = false;
    atomic_store_explicit(&l->up_hint, false, memory_order_release);
    l->era++;
    drop_idle(l, dead);
    pthread_cond_broadcast(&l->given);
    pthread_cond_signal(&l->wanted);
}

bool link_stopping(struct link *l)
{
    pthread_mutex_lock(&l->lock);
    const bool stop = l->stop;
    pthread_mutex_unlock(&l->lock);
    return stop;
}

void link_down(struct link *l, const char *why)
{
    struct conn *dead = NULL;
    pthread_mutex_lock(&l->lock);
    if (l->up)
        down_locked(l, why, &dead);
    pthread_mutex_unlock(&l->lock);
    close_all(dead);
}

void link_missed(struct link *l, const char *why)
{
    struct conn *dead = NULL;
    pthread_mutex_lock(&l->lock);
    l->missed++;
    if (l->up)
        down_locked(l, why, &dead);
    pthread_mutex_unlock(&l->lock);
    close_all(dead);
}

struct conn *link_take(struct link *l)
{
    struct conn *c = NULL;
    struct timespec until;
    if (!link_up(l))
        return NULL;
    deadline_after(TAKE_US, &until);
    pthread_mutex_lock(&l->lock);
    while (l->up && !l->idle) {
        l->n_waiting++;
        if (l->n_open < l->pool_size)
            pthread_cond_signal(&l->wanted);
        int e = pthread_cond_timedwait(&l->given, &l->lock, &until);
        l->n_waiting--;
        if (e == ETIMEDOUT)
            break;
    }
    if (l->up && l->idle) {
        c = l->idle;
        l->idle = c->next;
        l->n_idle--;
    }
    pthread_mutex_unlock(&l->lock);
    if (!c)
        return NULL;
    c->verdict = BREAKER_SUCCESS;
    if (breaker_try(l->breaker, now_us(), &c->permit))
        return c;
    c->verdict = BREAKER_IGNORED;
    link_give(l, c);
    return NULL;
}

bool link_add(struct link *l, struct conn *c)
{
    pthread_mutex_lock(&l->lock);
    const bool ok = l->up && memcmp(c->run, l->run, RUN_LEN) == 0;
    if (ok) {
        c->era = l->era;
        c->next = l->idle;
        l->idle = c;
        l->n_idle++;
        l->n_open++;
        pthread_cond_signal(&l->given);
    }
    pthread_mutex_unlock(&l->lock);
    return ok;
}

void link_give(struct link *l, struct conn *c)
{
    bool kept = false;
    enum breaker_state s = breaker_done(l->breaker, &c->permit, c->verdict, now_us());
    pthread_mutex_lock(&l->lock);
    if (c->broken || c->era != l->era) {
        l->n_open--;
        pthread_cond_signal(&l->wanted);
    } else {
        kept = true;
        c->next = l->idle;
        l->idle = c;
        l->n_idle++;
        pthread_cond_signal(&l->given);
    }
    pthread_mutex_unlock(&l->lock);
    if (!kept)
        conn_close(c);
    if (s == BREAKER_OPEN)
        link_down(l, "too many calls failed or were slow");
}
