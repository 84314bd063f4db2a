#include "domain/schedule/schedule.h"

static const char *const names[] = {
    [SCHED_PENDING] = "pending",     [SCHED_ACTIVE] = "active", [SCHED_COMPLETED] = "completed",
    [SCHED_CANCELLED] = "cancelled", [SCHED_FAILED] = "failed",
};

enum { COUNT = sizeof names / sizeof names[0] };

static const bool moves[COUNT][COUNT] = {
    [SCHED_PENDING] =
        {[SCHED_ACTIVE] = true, [SCHED_COMPLETED] = true, [SCHED_CANCELLED] = true, [SCHED_FAILED] = true},
    [SCHED_ACTIVE] = {[SCHED_COMPLETED] = true, [SCHED_CANCELLED] = true, [SCHED_FAILED] = true},
};

const char *sched_status_name(enum sched_status s)
{
    return (unsigned)s < COUNT ? names[s] : NULL;
}

bool sched_status_parse(struct str s, enum sched_status *ret)
{
    for (int i = 0; i < COUNT; i++)
        if (str_is(s, names[i])) {
            *ret = (enum sched_status)i;
            return true;
        }
    return false;
}

bool sched_may_move(enum sched_status from, enum sched_status to)
{
    return (unsigned)from < COUNT && (unsigned)to < COUNT && moves[from][to];
}
