#include "support/pg_cluster.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char default_bin[] = "/usr/lib/postgresql/15/bin"; /* Debian's postgresql-15; PG_BINDIR overrides */

static void die(const struct pg_cluster *c, const char *what)
{
    char path[128], line[512];
    fprintf(stderr, "pg_cluster: %s\n", what);
    snprintf(path, sizeof path, "%s/log", c->dir);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        fputs(line, stderr);
    if (f)
        fclose(f);
    exit(99);
}

/* In a child: become user postgres when root, as the server refuses root; words to dir/log; then the program. */
static void become(const struct pg_cluster *c, const char *const argv[])
{
    char path[256];
    const char *bin = getenv("PG_BINDIR");
    struct passwd *pw = getuid() == 0 ? getpwnam("postgres") : NULL;
    snprintf(path, sizeof path, "%s/log", c->dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd >= 0) {
        dup2(fd, 1);
        dup2(fd, 2);
    }
    for (int i = 3; i < 256; i++)
        close(i);
    if (getuid() == 0 && (!pw || setgid(pw->pw_gid) != 0 || setuid(pw->pw_uid) != 0))
        _exit(97);
    if (chdir(c->dir) != 0)
        _exit(97);
    if (strchr(argv[0], '/'))
        snprintf(path, sizeof path, "%s", argv[0]);
    else
        snprintf(path, sizeof path, "%s/%s", bin ? bin : default_bin, argv[0]);
    execv(path, (char *const *)(uintptr_t)argv);
    _exit(98);
}

static bool ran(const struct pg_cluster *c, const char *const argv[])
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        become(c, argv);
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* ---- processes ---- */

static pid_t parent_of(pid_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = 0;
    const char *p = strrchr(text, ')');
    int parent = 0;
    return p && sscanf(p + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

static void signal_all(pid_t postmaster, int sig)
{
    kill(postmaster, sig); /* first: it makes no more */
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && (e = readdir(d));) {
        pid_t pid = atoi(e->d_name);
        if (pid > 0 && parent_of(pid) == postmaster)
            kill(pid, sig);
    }
    if (d)
        closedir(d);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static pid_t pid_in_file(const struct pg_cluster *c)
{
    char path[128];
    int pid = 0;
    snprintf(path, sizeof path, "%s/data/postmaster.pid", c->dir);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%d", &pid) != 1)
        pid = 0;
    if (f)
        fclose(f);
    return pid;
}

static bool gone(pid_t pid)
{
    char state = 'X', path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
        state = 'X';
    if (f)
        fclose(f);
    return state == 'X' || state == 'Z';
}

/* SIGQUIT first: the server then takes its shared memory away. */
static void end(pid_t postmaster)
{
    signal_all(postmaster, SIGCONT);
    kill(postmaster, SIGQUIT);
    for (int i = 0; i < 200 && !gone(postmaster); i++)
        usleep(10000);
    if (!gone(postmaster))
        signal_all(postmaster, SIGKILL);
}

/* Outlives the test program by a moment, however that ends. */
static void keep(const struct pg_cluster *c, int fd)
{
    char byte;
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    while (read(fd, &byte, 1) > 0)
        ;
    pid_t pid = pid_in_file(c);
    if (pid > 1)
        end(pid);
    nftw(c->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    _exit(0);
}

static void start_keeper(struct pg_cluster *c, int *ret_fd)
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC) != 0)
        die(c, "no pipe");
    c->keeper = fork();
    if (c->keeper == 0) {
        close(fd[1]);
        setsid();
        keep(c, fd[0]);
    }
    close(fd[0]);
    *ret_fd = fd[1];
}

/* ---- the server ---- */

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&a, n) != 0 || getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        a.sin_port = 0;
    close(fd);
    return ntohs(a.sin_port);
}

static void text_file(const struct pg_cluster *c, const char *name, const char *mode, const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", c->dir, name);
    FILE *f = fopen(path, mode);
    if (!f || fputs(text, f) < 0 || fclose(f) != 0)
        die(c, "cannot write a file of the cluster");
}

static const char *admin(const struct pg_cluster *c, const char *db)
{
    static char text[256];
    snprintf(text, sizeof text, "host=%s port=%d user=postgres dbname=%s connect_timeout=10", c->dir, c->port, db);
    return text;
}

void pg_cluster_up(struct pg_cluster *c)
{
    c->postmaster = fork();
    if (c->postmaster == 0) {
        prctl(PR_SET_PDEATHSIG, 0);
        setsid();
        become(c, (const char *const[]){"postgres", "-D", "data", NULL});
    }
    for (int i = 0; i < 1000; i++) {
        if (PQping(admin(c, "postgres")) == PQPING_OK)
            return;
        if (waitpid(c->postmaster, NULL, WNOHANG) == c->postmaster)
            die(c, "the server does not start");
        usleep(20000);
    }
    die(c, "the server does not answer");
}

static void silent(void *ctx, const char *message)
{
    (void)ctx, (void)message;
}

static bool query(const struct pg_cluster *c, const char *db, const char *sql)
{
    PGconn *pg = PQconnectdb(admin(c, db));
    PQsetNoticeProcessor(pg, silent, NULL);
    PGresult *r = PQexec(pg, sql);
    ExecStatusType st = PQresultStatus(r);
    if (st != PGRES_COMMAND_OK && st != PGRES_TUPLES_OK)
        fprintf(stderr, "pg_cluster: %s\n", PQerrorMessage(pg));
    PQclear(r);
    PQfinish(pg);
    return st == PGRES_COMMAND_OK || st == PGRES_TUPLES_OK;
}

bool pg_cluster_sql(const struct pg_cluster *c, const char *sql)
{
    return query(c, "payflow", sql);
}

bool pg_cluster_followed(const struct pg_cluster *c)
{
    return pg_cluster_sql(c,
                          "DO $$ DECLARE at pg_lsn := pg_current_wal_flush_lsn(); BEGIN"
                          " FOR i IN 1..2000 LOOP"
                          "  IF EXISTS (SELECT FROM pg_stat_get_wal_senders() w WHERE w.replay_lsn >= at) THEN RETURN;"
                          "  END IF; PERFORM pg_sleep(0.01);"
                          " END LOOP; RAISE EXCEPTION 'no replica follows'; END $$");
}

static void begin(struct pg_cluster *c)
{
    static int keepers[16], n_keepers; /* their ends close with the program */
    *c = (struct pg_cluster){.dir = "/tmp/payflow-pg-XXXXXX"};
    if (!mkdtemp(c->dir) || chmod(c->dir, 0777) != 0)
        die(c, "cannot make a directory");
    if (n_keepers == 16)
        die(c, "too many clusters");
    start_keeper(c, &keepers[n_keepers++]);
}

static void on_socket(struct pg_cluster *c)
{
    snprintf(c->host, sizeof c->host, "%s", c->dir);
    snprintf(c->url, sizeof c->url, "postgres://payflow@/payflow?host=%s&port=%d", c->host, c->port);
}

void pg_cluster_replica(struct pg_cluster *c, const struct pg_cluster *of)
{
    char text[128], port[16];
    begin(c);
    c->port = 5432;
    snprintf(port, sizeof port, "%d", of->port);
    if (!ran(c, (const char *const[]){"pg_basebackup", "-h", of->dir, "-p", port, "-U", "postgres", "-D", "data", "-X",
                                      "stream", "-c", "fast", "-R", "-N", NULL}))
        die(c, "pg_basebackup failed");
    snprintf(text, sizeof text, "\nunix_socket_directories = '%s'\nport = %d\nlisten_addresses = ''\n", c->dir,
             c->port);
    text_file(c, "data/postgresql.conf", "ae", text);
    on_socket(c);
    pg_cluster_up(c);
}

void pg_cluster_start(struct pg_cluster *c, unsigned flags)
{
    char text[1024];
    begin(c);
    c->port = flags & PG_CLUSTER_TCP ? free_port() : 5432;
    if (!ran(c, (const char *const[]){"initdb", "-D", "data", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-A",
                                      "trust", "-N", NULL}))
        die(c, "initdb failed (is postgresql-15 installed?)");
    if (flags & PG_CLUSTER_TLS &&
        !ran(c, (const char *const[]){"/usr/bin/openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj",
                                      "/CN=localhost", "-days", "2", "-keyout", "data/server.key", "-out",
                                      "data/server.crt", NULL}))
        die(c, "openssl failed");
    snprintf(text, sizeof text,
             "\nunix_socket_directories = '%s'\nport = %d\nlisten_addresses = '%s'\nfsync = %s\n"
             "dynamic_shared_memory_type = mmap\n" /* nothing that a kill -9 leaves behind */
             "full_page_writes = %s\nssl = %s\nshared_buffers = 32MB\nmax_connections = 120\n"
             "max_wal_size = 256MB\nlogging_collector = off\nlog_min_messages = warning\n",
             c->dir, c->port, flags & PG_CLUSTER_TCP ? "127.0.0.1" : "", flags & PG_CLUSTER_FSYNC ? "on" : "off",
             flags & PG_CLUSTER_FSYNC ? "on" : "off", flags & PG_CLUSTER_TLS ? "on" : "off");
    text_file(c, "data/postgresql.conf", "ae", text);
    text_file(c, "data/pg_hba.conf", "we",
              "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n");
    snprintf(c->host, sizeof c->host, "%s", flags & PG_CLUSTER_TCP ? "127.0.0.1" : c->dir);
    if (flags & PG_CLUSTER_TCP)
        snprintf(c->url, sizeof c->url, "postgres://payflow:%s@%s:%d/payflow", PG_CLUSTER_PASSWORD, c->host, c->port);
    else
        snprintf(c->url, sizeof c->url, "postgres://payflow@/payflow?host=%s&port=%d", c->host, c->port);
    pg_cluster_up(c);
    if (!query(c, "postgres", "CREATE ROLE payflow LOGIN PASSWORD '" PG_CLUSTER_PASSWORD "'") ||
        !query(c, "postgres", "CREATE DATABASE payflow OWNER payflow"))
        die(c, "cannot create the database");
}

void pg_cluster_stop(struct pg_cluster *c)
{
    if (!c->postmaster)
        return;
    kill(c->keeper, SIGKILL);
    waitpid(c->keeper, NULL, 0);
    end(c->postmaster);
    waitpid(c->postmaster, NULL, 0);
    c->postmaster = 0;
    nftw(c->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void pg_cluster_kill(struct pg_cluster *c)
{
    if (!c->postmaster)
        return;
    signal_all(c->postmaster, SIGKILL);
    waitpid(c->postmaster, NULL, 0);
    c->postmaster = 0;
}

void pg_cluster_freeze(struct pg_cluster *c, bool on)
{
    signal_all(c->postmaster, on ? SIGSTOP : SIGCONT);
}

struct pg_cluster *pg_cluster_shared(void)
{
    static struct pg_cluster c;
    if (!c.postmaster)
        pg_cluster_start(&c, 0);
    return &c;
}

const char *pg_cluster_schema(const struct pg_cluster *c, const char *of)
{
    static char name[16];
    char sql[128];
    size_t n = strlen(of);
    snprintf(name, sizeof name, "t_%s", of + (n > 6 ? n - 6 : 0));
    snprintf(sql, sizeof sql, "CREATE SCHEMA IF NOT EXISTS \"%s\" AUTHORIZATION payflow", name);
    if (!pg_cluster_sql(c, sql))
        die(c, "cannot create a schema");
    return name;
}
