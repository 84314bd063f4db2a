#include "app/lastgood.h"

#include <stdio.h>

#include "app/internal.h"

enum { WHO_MAX = 48 };

/* Who may see what depends on the role too. */
static struct str name_of(const struct principal *who, char out[WHO_MAX])
{
    int n = snprintf(out, WHO_MAX, "%lld/%d", (long long)who->user, (int)who->role);
    return (struct str){out, (size_t)n};
}

void app_lastgood_keep(struct app *a, const struct principal *who, struct str request, struct str answer)
{
    char name[WHO_MAX];
    if (a->lastgood && answer.n <= APP_LASTGOOD_MAX)
        fallback_keep(a->lastgood, FALLBACK_READ, name_of(who, name), request, answer, clock_mono(a->d.clock));
}

bool app_lastgood_get(struct app *a, const struct principal *who, struct str request, struct buf *ret,
                      int64_t *ret_age_us)
{
    char name[WHO_MAX];
    if (!a->lastgood)
        return false;
    enum fallback_source from =
        fallback_get(a->lastgood, FALLBACK_READ, name_of(who, name), request, clock_mono(a->d.clock), ret, ret_age_us);
    if (from == FALLBACK_DEFAULT)
        *ret_age_us = -1;
    return from != FALLBACK_NONE;
}

bool app_lastgood_read(struct app *a, struct fallback_figures *ret)
{
    if (!a->lastgood)
        return false;
    fallback_read(a->lastgood, ret);
    return true;
}
