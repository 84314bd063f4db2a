/* Locks that instances share: SET NX PX with a name of the holder's own, and a release that looks at the name. */
#include "cache/redis/internal.h"

#include <string.h>

_Static_assert((int)CACHE_LOCK_LEN == (int)RUN_LEN, "random_name makes it");

enum cache_lock tiers_lock(struct cache *c, struct str key, int64_t ttl_us, char ret_holder[CACHE_LOCK_LEN + 1])
{
    struct tiers *t = (struct tiers *)c;
    char ms[STR_U64_MAX + 1];
    redisReply *r;
    enum cache_lock l = CACHE_LOCK_NONE;
    struct conn *k = key.n <= CACHE_KEY_MAX ? link_take(&t->link) : NULL;
    if (!k)
        return CACHE_LOCK_NONE;
    random_name(ret_holder);
    ms[str_from_u64((uint64_t)(ttl_us + 999) / 1000, ms)] = '\0';
    conn_command(k, "SET %b %s NX PX %s", key.p, key.n, ret_holder, ms);
    if (conn_exchange(k, 1, &r)) {
        if (r->type == REDIS_REPLY_STATUS)
            l = CACHE_LOCK_MINE;
        else if (r->type == REDIS_REPLY_NIL)
            l = CACHE_LOCK_TAKEN;
        replies_free(&r, 1);
    }
    link_give(&t->link, k);
    return l;
}

void tiers_unlock(struct cache *c, struct str key, const char holder[CACHE_LOCK_LEN + 1])
{
    struct tiers *t = (struct tiers *)c;
    redisReply *r;
    struct conn *k = link_take(&t->link);
    if (!k)
        return;
    const struct str args[] = {key, {holder, CACHE_LOCK_LEN}};
    conn_script(&t->link, k, SCRIPT_UNLOCK, 1, args, 2);
    if (conn_exchange(k, 1, &r))
        replies_free(&r, 1);
    link_give(&t->link, k);
}
