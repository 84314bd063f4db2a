/* PayFlow: looking into the cache and steering it. */
#include "api/payflow/payflow.h"

void api_cache_stats_write(struct api_call *c, struct jw *w)
{
    struct cache_stats s[4];
    unsigned n = cache_stats(app_cache(c->app), s, 4);
    uint64_t hits = 0, misses = 0, entries = 0, bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        hits += s[i].hits;
        entries += s[i].entries;
        bytes += s[i].bytes;
        misses = s[i].misses; /* those of the last tier are the misses of all */
    }
    jw_kuint(w, "hits", hits);
    jw_kuint(w, "misses", misses);
    jw_key(w, "ratio");
    jw_ratio(w, hits, hits + misses);
    jw_kuint(w, "entries", entries);
    jw_kuint(w, "bytes", bytes);
    jw_key(w, "tiers");
    jw_arr(w);
    for (unsigned i = 0; i < n; i++) {
        jw_obj(w);
        jw_kz(w, "tier", s[i].tier);
        jw_kbool(w, "up", s[i].up);
        jw_kuint(w, "hits", s[i].hits);
        jw_kuint(w, "misses", s[i].misses);
        jw_key(w, "ratio");
        jw_ratio(w, s[i].hits, s[i].hits + s[i].misses);
        jw_kuint(w, "entries", s[i].entries);
        jw_kuint(w, "bytes", s[i].bytes);
        jw_kuint(w, "max_entries", s[i].max_entries);
        jw_kuint(w, "max_bytes", s[i].max_bytes);
        jw_kuint(w, "puts", s[i].puts);
        jw_kuint(w, "evictions", s[i].evictions);
        jw_kuint(w, "expirations", s[i].expirations);
        jw_kuint(w, "invalidations", s[i].invalidations);
        jw_end_obj(w);
    }
    jw_end_arr(w);
}

enum api_step payflow_cache_stats(struct api_call *c)
{
    struct jw w = api_out(c);
    jw_obj(&w);
    api_cache_stats_write(c, &w);
    jw_end_obj(&w);
    return api_ok(c, 200);
}

struct key_list {
    struct jw w;
    uint64_t n;
};

static bool key_row(void *ctx, struct str key, int64_t ttl_us)
{
    struct key_list *l = ctx;
    jw_obj(&l->w);
    jw_kstr(&l->w, "key", key);
    jw_kint(&l->w, "ttl_seconds", (ttl_us + 999999) / 1000000);
    jw_end_obj(&l->w);
    l->n++;
    return true;
}

static bool name_row(void *ctx, struct str key, int64_t ttl_us)
{
    struct key_list *l = ctx;
    (void)ttl_us;
    jw_str(&l->w, key);
    return true;
}

enum api_step payflow_cache_keys(struct api_call *c)
{
    enum { KEYS_MAX = 10000 };
    struct str pattern = c->query[0].set ? c->query[0].s : STR("*");
    struct key_list l = {.w = api_out(c)};
    jw_obj(&l.w);
    jw_kstr(&l.w, "pattern", pattern);
    jw_key(&l.w, "keys");
    jw_arr(&l.w);
    enum pf_err e = cache_keys(app_cache(c->app), pattern, KEYS_MAX, name_row, &l);
    jw_end_arr(&l.w);
    jw_key(&l.w, "entries");
    jw_arr(&l.w);
    if (e == PFE_OK)
        e = cache_keys(app_cache(c->app), pattern, KEYS_MAX, key_row, &l);
    if (e != PFE_OK)
        return api_fail(c, e, "");
    jw_end_arr(&l.w);
    jw_kuint(&l.w, "count", l.n);
    jw_end_obj(&l.w);
    return api_ok(c, 200);
}

static enum api_step counted(struct api_call *c, const char *key, uint64_t n)
{
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_kuint(&w, key, n);
    jw_end_obj(&w);
    return api_ok(c, 200);
}

enum api_step payflow_cache_warmup(struct api_call *c)
{
    uint64_t n = 0;
    enum pf_err e = app_cache_warmup(c->app, &c->caller, c->body[1].set ? c->body[1].i : 0, &n);
    return e == PFE_OK ? counted(c, "warmed", n) : api_fail(c, e, e == PFE_NOT_FOUND ? "there is no such user" : "");
}

enum api_step payflow_cache_invalidate(struct api_call *c)
{
    uint64_t n = 0;
    if (c->body[0].set == c->body[1].set) {
        problem_field(&c->p, "body", "user_id", "missing", "exactly one of user_id and pattern is required");
        return API_DONE;
    }
    enum pf_err e = app_cache_invalidate(c->app, &c->caller, c->body[0].set ? c->body[0].i : 0, c->body[1].s, &n);
    return e == PFE_OK ? counted(c, "invalidated", n) : api_fail(c, e, "");
}
