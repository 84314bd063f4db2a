#include "http/turn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "http/internal.h"

/* MHD makes an answer in one round and sends it in the next. In the third it looks for another request, which may have
 * come by the next turn. */
enum { ROUNDS = 2 };

unsigned http_io_index(const struct http_io *io)
{
    return (unsigned)(io - io->server->io);
}

int http_io_fd(const struct http_io *io)
{
    return MHD_get_daemon_info(io->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

int http_io_wait_ms(const struct http_io *io)
{
    MHD_UNSIGNED_LONG_LONG ms;
    if (io->resumed)
        return 0;
    if (MHD_get_timeout(io->daemon, &ms) != MHD_YES)
        return -1;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

void http_io_run(struct http_io *io)
{
    for (int i = 0; i < ROUNDS; i++) {
        io->resumed = false;
        (void)MHD_run(io->daemon);
        if (http_io_wait_ms(io) != 0)
            return;
    }
}

static void *take_turns(void *arg)
{
    struct http_io *io = arg;
    struct http_server *s = io->server;
    pthread_setname_np(pthread_self(), "http");
    server_take_place(io);
    while (!atomic_load_explicit(&s->halted, memory_order_relaxed))
        s->turn(s->ctx, io);
    return NULL;
}

static bool start(struct http_io *io, const struct http_config *c, const char *cert, const char *key)
{
    io->listen_fd = fcntl(io->server->listen_fd, F_DUPFD_CLOEXEC, 0);
    if (io->listen_fd < 0)
        return false;
    io->daemon = server_daemon(io->server, c, cert, key, io->listen_fd, true);
    if (!io->daemon) {
        close(io->listen_fd);
        return false;
    }
    errno = watch_pulse_daemon(io, io->daemon) ? pthread_create(&io->thread, NULL, take_turns, io) : errno;
    io->started = errno == 0;
    return io->started;
}

static void end(struct http_server *s)
{
    atomic_store(&s->halted, true);
    for (unsigned i = 0; i < s->n_io; i++) {
        if (s->io[i].started) {
            (void)eventfd_write(s->io[i].pulse, 1); /* ends its wait */
            pthread_join(s->io[i].thread, NULL);
        }
        while (atomic_load(&s->io[i].wakers) > 0)
            sched_yield();
        if (s->io[i].daemon)
            MHD_stop_daemon(s->io[i].daemon);
    }
}

bool turn_start(struct http_server *s, const struct http_config *c, const char *cert, const char *key)
{
    for (unsigned i = 0; i < s->n_io; i++) {
        if (start(&s->io[i], c, cert, key))
            continue;
        int e = errno;
        end(s);
        errno = e;
        return false;
    }
    return true;
}

void turn_stop(struct http_server *s)
{
    end(s);
    close(s->listen_fd);
}
