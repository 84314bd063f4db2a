#include "registry_kit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

struct seen {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned calls, empty;
    uint64_t generation;
    char text[SEEN_TEXT];
};

static int log_fd = -1;

struct seen *seen_new(void)
{
    struct seen *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    strcpy(s->text, "-");
    return s;
}

void seen_free(struct seen *s)
{
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
}

void seen_changed(void *ctx, const struct registry_list *list)
{
    static const char *const health[] = {"passing", "warning", "critical"};
    struct seen *s = ctx;
    size_t n = 0;
    pthread_mutex_lock(&s->lock);
    s->text[0] = '\0';
    for (size_t i = 0; i < list->n; i++) {
        const struct registry_instance *one = &list->instances[i];
        if (i && strcmp(list->instances[i - 1].id, one->id) >= 0)
            abort(); /* not in order */
        n += (size_t)snprintf(s->text + n, sizeof s->text - n, "%s %s:%u %u %s", one->id, one->address, one->port,
                              one->weight, health[one->health]);
        for (unsigned t = 0; t < one->n_tags; t++)
            n += (size_t)snprintf(s->text + n, sizeof s->text - n, "%c%s", t ? ',' : ' ', one->tags[t]);
        n += (size_t)snprintf(s->text + n, sizeof s->text - n, ";");
    }
    if (list->generation <= s->generation)
        abort();
    s->generation = list->generation;
    s->calls++;
    s->empty += list->n == 0;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

unsigned seen_text(struct seen *s, char out[SEEN_TEXT])
{
    pthread_mutex_lock(&s->lock);
    memcpy(out, s->text, SEEN_TEXT);
    unsigned calls = s->calls;
    pthread_mutex_unlock(&s->lock);
    return calls;
}

bool seen_wait(struct seen *s, const char *text, unsigned seconds)
{
    struct timespec end;
    int timed_out = 0;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += seconds;
    pthread_mutex_lock(&s->lock);
    while (strcmp(s->text, text) != 0 && !timed_out)
        timed_out = pthread_cond_clockwait(&s->changed, &s->lock, CLOCK_MONOTONIC, &end);
    bool ok = strcmp(s->text, text) == 0;
    if (!ok)
        fprintf(stderr, "wanted \"%s\"\nheard  \"%s\"\n", text, s->text);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

unsigned seen_empty(struct seen *s)
{
    pthread_mutex_lock(&s->lock);
    unsigned n = s->empty;
    pthread_mutex_unlock(&s->lock);
    return n;
}

unsigned seen_calls(struct seen *s)
{
    pthread_mutex_lock(&s->lock);
    unsigned n = s->calls;
    pthread_mutex_unlock(&s->lock);
    return n;
}

bool wait_until(bool (*yes)(void *ctx), void *ctx, unsigned seconds)
{
    for (unsigned i = 0; i < seconds * 100; i++) {
        if (yes(ctx))
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return yes(ctx);
}

void kit_log_open(void)
{
    log_fd = memfd_create("log", MFD_CLOEXEC);
    if (log_fd < 0 || !log_open(log_fd, LOG_DEBUG))
        abort();
}

unsigned kit_log_count(const char *text)
{
    unsigned n = 0;
    log_flush();
    off_t size = lseek(log_fd, 0, SEEK_END);
    char *all = calloc(1, (size_t)size + 1);
    if (!all || pread(log_fd, all, (size_t)size, 0) != size)
        abort();
    for (const char *p = all; (p = strstr(p, text)); p++)
        n++;
    free(all);
    return n;
}

void kit_log_close(void)
{
    log_close();
    close(log_fd);
}
