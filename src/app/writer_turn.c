/* Several instances over one store that sell the same event take turns: whoever is at it holds a lock in the shared
 * cache while its group is decided and committed. That keeps groups from queueing at the database for one another, and
 * nothing more: the lock may run out in the midst of a commit, or be gone with the cache, and what guards the stock is
 * the store's condition. So a group waits for its turn a little, and then goes on without. */
#include "app/writer.h"

#include <time.h>

#include "base/rand.h"
#include "codec/uuid.h"

enum { TURN_WAIT_US = 50000, TURN_PAUSE_US = 1000 };

void writer_turn_init(struct writer *w, struct metrics *m)
{
    static const char name[] = "payflow_booking_turns_total",
                      help[] = "Groups with bookings, by whether they had an event's lock.";
    if (w->a->cfg.booking_lock_us <= 0)
        return;
    w->turn.mine = metric_counter(m, name, help, "lock=\"taken\"");
    w->turn.late = metric_counter(m, name, help, "lock=\"waited_for\"");
    w->turn.none = metric_counter(m, name, help, "lock=\"none\"");
}

/* The first booking that is to be made. */
static const struct booking *first_hold(const struct job *list)
{
    for (const struct job *j = list; j; j = j->next)
        for (size_t i = 0; j->live && i < j->n_bookings; i++)
            if (j->booking[i].op == BOOKING_HOLD && j->booking[i].err == PFE_OK)
                return &j->booking[i];
    return NULL;
}

static void pause_a_little(void)
{
    int64_t us = TURN_PAUSE_US / 2 + (int64_t)(rand_u64() % TURN_PAUSE_US);
    struct timespec t = {.tv_nsec = us * 1000};
    (void)nanosleep(&t, NULL);
}

void writer_turn_take(struct writer *w, const struct job *list)
{
    struct writer_turn *t = &w->turn;
    const struct booking *b = w->a->cfg.booking_lock_us > 0 ? first_hold(list) : NULL;
    t->held = false;
    if (!b)
        return;
    struct uuid id;
    memcpy(id.b, b->uuid, sizeof id.b);
    memcpy(t->key, WRITER_TURN_KEY, sizeof WRITER_TURN_KEY - 1);
    uuid_format(&id, t->key + sizeof WRITER_TURN_KEY - 1);
    const struct clock *real = clock_system();
    int64_t until = clock_mono(real) + TURN_WAIT_US;
    enum cache_lock l;
    while ((l = cache_lock(w->a->d.cache, str_c(t->key), w->a->cfg.booking_lock_us, t->holder)) == CACHE_LOCK_TAKEN &&
           clock_mono(real) < until)
        pause_a_little();
    t->held = l == CACHE_LOCK_MINE;
    metric_inc(t->held ? t->mine : l == CACHE_LOCK_TAKEN ? t->late : t->none, 1);
}

void writer_turn_give(struct writer *w)
{
    if (w->turn.held)
        cache_unlock(w->a->d.cache, str_c(w->turn.key), w->turn.holder);
    w->turn.held = false;
}
