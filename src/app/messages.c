#include "app/messages.h"

#include <time.h>

#include "app/internal.h"

void app_messages_wait(struct app *a, int64_t us)
{
    int64_t until = clock_mono(clock_system()) + us;
    struct timespec t = {.tv_sec = until / 1000000, .tv_nsec = until % 1000000 * 1000};
    pthread_mutex_lock(&a->message_lock);
    while (!a->messages && pthread_cond_clockwait(&a->message_more, &a->message_lock, CLOCK_MONOTONIC, &t) == 0)
        continue;
    a->messages = false;
    pthread_mutex_unlock(&a->message_lock);
}

void app_messages_wake(struct app *a)
{
    pthread_mutex_lock(&a->message_lock);
    bool was = a->messages;
    a->messages = true;
    pthread_mutex_unlock(&a->message_lock);
    if (!was)
        pthread_cond_signal(&a->message_more);
}
