#include "worker/lease.h"

#include "app/lease.h"

static int64_t step(void *app)
{
    return app_leases_step(app);
}

struct ticker *lease_keeper_start(struct app *a)
{
    return ticker_start("leases", step, a);
}

void lease_keeper_stop(struct ticker *k, struct app *a)
{
    if (!k)
        return;
    ticker_stop(k);
    app_leases_drop(a);
}
