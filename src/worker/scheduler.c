#include "worker/scheduler.h"

#include "app/bookings.h"
#include "app/identity.h"
#include "app/schedules.h"

/* Looks at least this often: new schedules need no wake-up call, and wall-clock jumps are noticed. */
enum { LOOK_US = 200000 };

int64_t scheduler_step(struct app *a)
{
    int64_t next = app_schedules_run_due(a);
    while (app_holds_release_due(a) > 0)
        continue;
    while (app_bookings_expire_due(a) > 0)
        continue;
    app_users_close_due(a);
    int64_t us = LOOK_US;
    if (next) {
        int64_t until = next - clock_wall(app_clock(a));
        if (until < us)
            us = until > 1000 ? until : 1000;
    }
    return us;
}

static int64_t step(void *app)
{
    return scheduler_step(app);
}

struct ticker *scheduler_start(struct app *a)
{
    return ticker_start("scheduler", step, a);
}
