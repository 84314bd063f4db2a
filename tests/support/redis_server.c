#include "redis_server.h"

#include <errno.h>
#include <ftw.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "redis_server: %s: %s\n", what, strerror(errno));
    exit(99);
}

static redisContext *client(const struct redis_server *s)
{
    const struct timeval tv = {5, 0};
    redisContext *c = redisConnectUnixWithTimeout(s->socket, tv);
    if (!c || c->err) {
        if (c)
            redisFree(c);
        return NULL;
    }
    redisSetTimeout(c, tv);
    if (s->password) {
        redisReply *r = redisCommand(c, "AUTH %s", s->password);
        if (!r || r->type == REDIS_REPLY_ERROR)
            die("AUTH");
        freeReplyObject(r);
    }
    return c;
}

static bool answers(const struct redis_server *s)
{
    redisContext *c = client(s);
    redisReply *r = c ? redisCommand(c, "PING") : NULL;
    const bool ok = r && r->type == REDIS_REPLY_STATUS; /* not while it loads */
    if (r)
        freeReplyObject(r);
    if (c)
        redisFree(c);
    return ok;
}

void redis_server_up(struct redis_server *s)
{
    const pid_t self = getpid();
    s->pid = fork();
    if (s->pid < 0)
        die("fork");
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != self)
            _exit(0);
        if (!freopen("/dev/null", "w", stdout))
            _exit(98);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", s->socket, "--dir", s->dir, "--save", "",
               "--appendonly", "no", s->password ? "--requirepass" : NULL, s->password, NULL);
        _exit(97);
    }
    for (int i = 0; i < 500 && !answers(s); i++)
        usleep(20000);
    if (!answers(s))
        die("redis-server does not answer");
}

void redis_server_start(struct redis_server *s, const char *password)
{
    *s = (struct redis_server){.dir = "/tmp/payflow-redis-XXXXXX", .password = password};
    if (!mkdtemp(s->dir))
        die("mkdtemp");
    snprintf(s->socket, sizeof s->socket, "%s/s", s->dir);
    redis_server_up(s);
}

void redis_server_kill(struct redis_server *s)
{
    if (!s->pid)
        return;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
    unlink(s->socket);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

void redis_server_stop(struct redis_server *s)
{
    redis_server_kill(s);
    nftw(s->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

void redis_server_freeze(struct redis_server *s, bool on)
{
    kill(s->pid, on ? SIGSTOP : SIGCONT);
}

const char *redis_server_do(const struct redis_server *s, const char *fmt, ...)
{
    static char text[65536];
    redisContext *c = client(s);
    if (!c)
        die("no connection");
    va_list ap;
    va_start(ap, fmt);
    redisReply *r = redisvCommand(c, fmt, ap);
    va_end(ap);
    if (!r)
        die("no answer");
    if (r->type == REDIS_REPLY_INTEGER)
        snprintf(text, sizeof text, "%lld", r->integer);
    else
        snprintf(text, sizeof text, "%s", r->str ? r->str : "");
    if (r->type == REDIS_REPLY_ERROR) {
        fprintf(stderr, "redis_server: %s: %s\n", fmt, text);
        exit(99);
    }
    freeReplyObject(r);
    redisFree(c);
    return text;
}
