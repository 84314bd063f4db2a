#include "support/daemon.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const struct daemon *d, const char *what)
{
    char path[96], line[512];
    fprintf(stderr, "daemon: %s\n", what);
    snprintf(path, sizeof path, "%s/log", d->dir);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        fputs(line, stderr);
    if (f)
        fclose(f);
    exit(99);
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static bool answers(int port)
{
    struct sockaddr_in a = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool yes = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return yes;
}

/* Outside the range that the kernel gives to others. */
static bool is_free(int port)
{
    struct sockaddr_in a = loopback(port);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool yes = bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return yes;
}

void daemon_init(struct daemon *d, int ports)
{
    *d = (struct daemon){.dir = "/tmp/payflow-daemon-XXXXXX"};
    if (!mkdtemp(d->dir))
        die(d, "no directory");
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    unsigned at = (unsigned)t.tv_nsec ^ (unsigned)getpid() * 7919u;
    for (int i = 0; i < 500; i++, at += 97) {
        int port = 12000 + (int)(at % 18000), n = 0;
        while (n < ports && is_free(port + n))
            n++;
        if (n == ports) {
            d->port = port;
            return;
        }
    }
    die(d, "no free ports");
}

static void become(const struct daemon *d, const char *const argv[])
{
    char log[96];
    snprintf(log, sizeof log, "%s/log", d->dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || chdir(d->dir) != 0)
        _exit(97);
    for (int i = 3; i < 256; i++)
        close(i);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(98);
}

void daemon_up(struct daemon *d, const char *const argv[])
{
    d->pid = fork();
    if (d->pid == 0)
        become(d, argv);
    for (int i = 0; i < 9000; i++) {
        if (answers(d->port))
            return;
        if (waitpid(d->pid, NULL, WNOHANG) != 0)
            die(d, "it ended");
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    die(d, "it does not answer");
}

void daemon_signal(const struct daemon *d, int sig)
{
    if (d->pid)
        kill(d->pid, sig);
}

void daemon_kill(struct daemon *d)
{
    if (d->pid) {
        kill(d->pid, SIGKILL);
        while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        d->pid = 0;
    }
}

static int drop(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void daemon_free(struct daemon *d)
{
    daemon_kill(d);
    nftw(d->dir, drop, 16, FTW_DEPTH | FTW_PHYS);
}
