#include "registry/static/static.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

enum { ENTRIES_MAX = 4096, WEIGHT_MAX = 1000, TAG_MAX = 64 };

struct entry {
    char service[REGISTRY_NAME_MAX], id[REGISTRY_NAME_MAX], address[REGISTRY_ADDRESS_MAX];
    uint16_t port;
    unsigned weight;
    enum registry_health health;
    bool added; /* by registry_add */
    char tags[REGISTRY_TAGS_MAX][TAG_MAX];
    const char *tag[REGISTRY_TAGS_MAX];
    unsigned n_tags;
};

struct watch {
    char service[REGISTRY_NAME_MAX];
    registry_changed *fn;
    void *ctx;
};

struct list {
    struct entry *all; /* by service, then id */
    size_t n;
};

struct fixed {
    struct registry pub;
    pthread_mutex_t lock; /* also held while watchers are told, so that each hears of one thing at a time */
    struct list list;
    struct watch watches[REGISTRY_WATCHES_MAX];
    unsigned n_watches;
    uint64_t generation;
};

static struct fixed *of(struct registry *r)
{
    return (struct fixed *)r;
}

static int order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int d = strcmp(x->service, y->service);
    return d ? d : strcmp(x->id, y->id);
}

static enum pf_err entry_fill(struct entry *e, const char *service, const struct registry_instance *i, char why[256])
{
    memset(e, 0, sizeof *e);
    bool ok = service && i->id && i->address && i->port > 0 && i->weight <= WEIGHT_MAX &&
              i->n_tags <= REGISTRY_TAGS_MAX && service[0] && i->id[0] && i->address[0] &&
              str_copy(e->service, sizeof e->service, str_c(service)) && str_copy(e->id, sizeof e->id, str_c(i->id)) &&
              str_copy(e->address, sizeof e->address, str_c(i->address));
    for (unsigned t = 0; ok && t < i->n_tags; t++)
        ok = str_copy(e->tags[t], TAG_MAX, str_c(i->tags[t]));
    if (!ok) {
        snprintf(why, 256, "instance %.60s of service %.60s is out of range", i->id ? i->id : "",
                 service ? service : "");
        return PFE_INVALID;
    }
    e->port = i->port;
    e->weight = i->weight;
    e->health = i->health;
    e->n_tags = i->n_tags;
    return PFE_OK;
}

/* A new list of `keep` entries of the present one, to which the caller adds up to `more`. */
static struct entry *list_room(size_t n, char why[256])
{
    struct entry *all = n <= ENTRIES_MAX ? calloc(n + 1, sizeof *all) : NULL;
    if (!all)
        snprintf(why, 256, n <= ENTRIES_MAX ? "out of memory" : "there are more than %d instances", ENTRIES_MAX);
    return all;
}

static enum pf_err list_check(struct entry *all, size_t n, char why[256])
{
    qsort(all, n, sizeof *all, order);
    size_t run = 1;
    for (size_t i = 1; i < n; i++) {
        if (order(&all[i - 1], &all[i]) == 0) {
            snprintf(why, 256, "instance %.60s of service %.60s occurs twice", all[i].id, all[i].service);
            return PFE_INVALID;
        }
        run = strcmp(all[i - 1].service, all[i].service) == 0 ? run + 1 : 1;
        if (run > REGISTRY_LIST_MAX) {
            snprintf(why, 256, "service %.60s has more than %d instances", all[i].service, REGISTRY_LIST_MAX);
            return PFE_INVALID;
        }
    }
    return PFE_OK;
}

static size_t service_first(const struct list *l, const char *service, size_t *ret_n)
{
    size_t first = 0;
    while (first < l->n && strcmp(l->all[first].service, service) != 0)
        first++;
    size_t end = first;
    while (end < l->n && strcmp(l->all[end].service, service) == 0)
        end++;
    *ret_n = end - first;
    return first;
}

static bool same(const struct list *a, const struct list *b, const char *service)
{
    size_t n, m, i = service_first(a, service, &n), k = service_first(b, service, &m);
    if (n != m)
        return false;
    for (size_t x = 0; x < n; x++) {
        const struct entry *p = &a->all[i + x], *q = &b->all[k + x];
        if (order(p, q) != 0 || strcmp(p->address, q->address) != 0 || p->port != q->port || p->weight != q->weight ||
            p->health != q->health || p->n_tags != q->n_tags || memcmp(p->tags, q->tags, sizeof p->tags) != 0)
            return false;
    }
    return true;
}

/* The lock is held. Out of memory: the watcher keeps what it has. */
static void tell(struct fixed *f, const struct watch *w)
{
    size_t n, first = service_first(&f->list, w->service, &n);
    struct registry_instance *out = calloc(n + 1, sizeof *out);
    if (!out)
        return;
    for (size_t i = 0; i < n; i++) {
        struct entry *e = &f->list.all[first + i];
        for (unsigned t = 0; t < e->n_tags; t++)
            e->tag[t] = e->tags[t];
        out[i] = (struct registry_instance){.id = e->id,
                                            .address = e->address,
                                            .port = e->port,
                                            .weight = e->weight,
                                            .health = e->health,
                                            .tags = e->tag,
                                            .n_tags = e->n_tags};
    }
    w->fn(w->ctx, &(struct registry_list){f->generation, out, n});
    free(out);
}

/* Takes `all`. The lock is held. */
static void list_put(struct fixed *f, struct entry *all, size_t n)
{
    struct list old = f->list;
    f->list = (struct list){all, n};
    f->generation++;
    for (unsigned i = 0; i < f->n_watches; i++) {
        if (!same(&old, &f->list, f->watches[i].service))
            tell(f, &f->watches[i]);
    }
    free(old.all);
}

/* All entries of the present list but those that `drop` says, and behind them the new ones. The lock is held. */
static enum pf_err change(struct fixed *f, bool (*drop)(const struct entry *e, const struct entry *with),
                          const struct entry *with, const struct registry_static_entry *entries, size_t n,
                          char why[256])
{
    struct entry *all = list_room(f->list.n + n + 1, why);
    size_t used = 0;
    enum pf_err e = all ? PFE_OK : PFE_NOMEM;
    for (size_t i = 0; e == PFE_OK && i < f->list.n; i++) {
        if (!drop(&f->list.all[i], with))
            all[used++] = f->list.all[i];
    }
    for (size_t i = 0; e == PFE_OK && i < n; i++)
        e = entry_fill(&all[used++], entries[i].service, &entries[i].instance, why);
    if (e == PFE_OK && with && with->port)
        all[used++] = *with;
    if (e == PFE_OK)
        e = list_check(all, used, why);
    if (e == PFE_OK)
        list_put(f, all, used);
    else
        free(all);
    return e;
}

static bool of_settings(const struct entry *e, const struct entry *with)
{
    (void)with;
    return !e->added;
}

static bool same_instance(const struct entry *e, const struct entry *with)
{
    return order(e, with) == 0;
}

static enum pf_err fixed_add(struct registry *r, const struct registry_registration *what, char why[256])
{
    struct fixed *f = of(r);
    struct registry_instance i = {.id = what->id,
                                  .address = what->address,
                                  .port = what->port,
                                  .weight = what->weight,
                                  .tags = what->tags,
                                  .n_tags = what->n_tags};
    struct entry fresh;
    enum pf_err e = entry_fill(&fresh, what->service, &i, why);
    if (e != PFE_OK)
        return e;
    fresh.added = true;
    pthread_mutex_lock(&f->lock);
    e = change(f, same_instance, &fresh, NULL, 0, why);
    pthread_mutex_unlock(&f->lock);
    return e;
}

static enum pf_err fixed_remove(struct registry *r, const char *service, const char *id, char why[256])
{
    struct fixed *f = of(r);
    struct entry gone = {.port = 0}; /* no port: it is not put back */
    enum pf_err e = PFE_NOT_FOUND;
    if (!str_copy(gone.service, sizeof gone.service, str_c(service)) || !str_copy(gone.id, sizeof gone.id, str_c(id)))
        return e;
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->list.n && e == PFE_NOT_FOUND; i++) {
        if (order(&f->list.all[i], &gone) == 0)
            e = PFE_OK;
    }
    if (e == PFE_OK)
        e = change(f, same_instance, &gone, NULL, 0, why);
    else
        snprintf(why, 256, "there is no such instance");
    pthread_mutex_unlock(&f->lock);
    return e;
}

static enum pf_err fixed_watch(struct registry *r, const char *service, registry_changed *fn, void *ctx)
{
    struct fixed *f = of(r);
    enum pf_err e = PFE_BUSY;
    pthread_mutex_lock(&f->lock);
    struct watch *w = &f->watches[f->n_watches];
    if (f->n_watches < REGISTRY_WATCHES_MAX && str_copy(w->service, sizeof w->service, str_c(service))) {
        w->fn = fn;
        w->ctx = ctx;
        f->n_watches++;
        tell(f, w);
        e = PFE_OK;
    }
    pthread_mutex_unlock(&f->lock);
    return e;
}

static enum pf_err fixed_services(struct registry *r, registry_each *fn, void *ctx, char why[256])
{
    struct fixed *f = of(r);
    (void)why;
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->list.n; i++) {
        if (i == 0 || strcmp(f->list.all[i - 1].service, f->list.all[i].service) != 0)
            fn(ctx, f->list.all[i].service);
    }
    pthread_mutex_unlock(&f->lock);
    return PFE_OK;
}

static void fixed_figures(struct registry *r, struct registry_figures *ret)
{
    struct fixed *f = of(r);
    pthread_mutex_lock(&f->lock);
    *ret = (struct registry_figures){.engine = "static", .reachable = true, .changes = f->generation};
    pthread_mutex_unlock(&f->lock);
}

static void fixed_close(struct registry *r)
{
    struct fixed *f = of(r);
    pthread_mutex_destroy(&f->lock);
    free(f->list.all);
    free(f);
}

static const struct registry_ops ops = {fixed_add,      fixed_remove,  fixed_watch,
                                        fixed_services, fixed_figures, fixed_close};

enum pf_err registry_static_open(const struct registry_static_entry *entries, size_t n, struct registry **ret,
                                 char why[256])
{
    struct fixed *f = calloc(1, sizeof *f);
    if (!f) {
        snprintf(why, 256, "out of memory");
        return PFE_NOMEM;
    }
    f->pub.ops = &ops;
    pthread_mutex_init(&f->lock, NULL);
    enum pf_err e = registry_static_replace(&f->pub, entries, n, why);
    if (e != PFE_OK)
        fixed_close(&f->pub);
    else
        *ret = &f->pub;
    return e;
}

enum pf_err registry_static_replace(struct registry *r, const struct registry_static_entry *entries, size_t n,
                                    char why[256])
{
    struct fixed *f = of(r);
    pthread_mutex_lock(&f->lock);
    enum pf_err e = change(f, of_settings, NULL, entries, n, why);
    pthread_mutex_unlock(&f->lock);
    return e;
}
