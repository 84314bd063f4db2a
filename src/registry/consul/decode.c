/* An answer of /v1/health/service as a list. */
#include <stdio.h>
#include <stdlib.h>

#include "codec/json_in.h"
#include "registry/consul/internal.h"

static bool is(const struct json *j, enum json_type type)
{
    return j && j->type == type;
}

static struct str text(const struct json *obj, const char *key)
{
    const struct json *j = json_get(obj, key);
    return is(j, JSON_STRING) ? j->s : STR_NONE;
}

static bool number(const struct json *obj, const char *key, uint64_t *ret)
{
    const struct json *j = json_get(obj, key);
    return is(j, JSON_NUMBER) && str_to_u64(j->s, ret);
}

/* Goes into logs and metrics. */
static bool id_ok(struct str s)
{
    bool ok = s.n > 0 && s.n < REGISTRY_NAME_MAX;
    for (size_t i = 0; ok && i < s.n; i++)
        ok = (unsigned char)s.p[i] >= 0x20 && s.p[i] != 0x7f;
    return ok;
}

/* Goes into URLs. */
static bool address_ok(struct str s)
{
    bool ok = s.n > 0 && s.n < REGISTRY_ADDRESS_MAX;
    for (size_t i = 0; ok && i < s.n; i++) {
        char c = s.p[i];
        ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._:", c);
    }
    return ok;
}

static enum registry_health worst(const struct json *checks)
{
    enum registry_health h = REGISTRY_PASSING;
    for (const struct json *c = checks->child; c; c = c->next) {
        struct str s = text(c, "Status");
        enum registry_health one = str_is(s, "passing")   ? REGISTRY_PASSING
                                   : str_is(s, "warning") ? REGISTRY_WARNING
                                                          : REGISTRY_CRITICAL;
        h = one > h ? one : h;
    }
    return h;
}

static unsigned weight(const struct json *service, enum registry_health health)
{
    uint64_t v = 1;
    if (str_is(text(json_get(service, "Meta"), "payflow_weight"), "0"))
        return 0;
    (void)number(json_get(service, "Weights"), health == REGISTRY_PASSING ? "Passing" : "Warning", &v);
    return v > WEIGHT_MAX ? WEIGHT_MAX : (unsigned)v;
}

/* NULL: out of memory. */
static const char *const *tags(struct arena *a, const struct json *list, unsigned *ret_n)
{
    const char **out = arena_alloc(a, REGISTRY_TAGS_MAX * sizeof *out);
    *ret_n = 0;
    for (const struct json *t = is(list, JSON_ARRAY) ? list->child : NULL; out && t && *ret_n < REGISTRY_TAGS_MAX;
         t = t->next) {
        if (t->type != JSON_STRING || t->s.n >= TAG_MAX)
            continue;
        out[*ret_n] = arena_strdup(a, t->s).p;
        if (!out[(*ret_n)++])
            return NULL;
    }
    return out;
}

struct found {
    struct registry_instance instance;
    struct str node;
};

static int by_id_and_node(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    int d = strcmp(x->instance.id, y->instance.id);
    if (d)
        return d;
    d = memcmp(x->node.p, y->node.p, x->node.n < y->node.n ? x->node.n : y->node.n);
    return d ? d : (x->node.n > y->node.n) - (x->node.n < y->node.n);
}

static int by_id(const void *a, const void *b)
{
    const struct registry_instance *x = a, *y = b;
    return strcmp(x->id, y->id);
}

/* PFE_BAD_JSON: it is none; PFE_INVALID: it is one, but unfit. */
static enum pf_err read_one(struct arena *a, const struct json *j, struct found *ret)
{
    const struct json *node = json_get(j, "Node"), *service = json_get(j, "Service"), *checks = json_get(j, "Checks");
    struct str id = text(service, "ID"), address = text(service, "Address");
    uint64_t port = 0;
    if (!is(node, JSON_OBJECT) || !is(service, JSON_OBJECT) || !is(checks, JSON_ARRAY) || !id.p ||
        !number(service, "Port", &port))
        return PFE_BAD_JSON;
    if (address.n == 0)
        address = text(node, "Address");
    if (!id_ok(id) || !address_ok(address) || port < 1 || port > 65535)
        return PFE_INVALID;
    struct registry_instance i = {.port = (uint16_t)port, .health = worst(checks)};
    i.weight = weight(service, i.health);
    i.id = arena_strdup(a, id).p;
    i.address = arena_strdup(a, address).p;
    i.tags = tags(a, json_get(service, "Tags"), &i.n_tags);
    ret->instance = i;
    ret->node = text(node, "Node");
    if (!ret->node.p)
        ret->node = STR("");
    return i.id && i.address && i.tags ? PFE_OK : PFE_NOMEM;
}

/* An id of several nodes becomes ID@NODE. found is in order. */
static enum pf_err tell_apart(struct instances *out, const struct found *found, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *id = found[i].instance.id;
        bool twice = (i > 0 && strcmp(id, found[i - 1].instance.id) == 0) ||
                     (i + 1 < n && strcmp(id, found[i + 1].instance.id) == 0);
        out->all[i] = found[i].instance;
        if (!twice)
            continue;
        char *own = arena_alloc(&out->arena, REGISTRY_NAME_MAX);
        if (!own)
            return PFE_NOMEM;
        snprintf(own, REGISTRY_NAME_MAX, "%s@%.*s", id, (int)found[i].node.n, found[i].node.p);
        out->all[i].id = own;
    }
    qsort(out->all, n, sizeof *out->all, by_id);
    for (size_t i = 0; i < n; i++) {
        if (out->n && strcmp(out->all[out->n - 1].id, out->all[i].id) == 0)
            out->left_out++; /* node and id again, or too long a name of a node */
        else if (out->n == REGISTRY_CONSUL_INSTANCES_MAX)
            out->left_out++;
        else
            out->all[out->n++] = out->all[i];
    }
    return PFE_OK;
}

static enum pf_err read_all(struct arena *scratch, const struct json *list, struct instances *out)
{
    struct found *found = arena_alloc(scratch, list->n * sizeof *found + 1);
    size_t n = 0;
    if (!found)
        return PFE_NOMEM;
    for (const struct json *j = list->child; j; j = j->next) {
        enum pf_err e = read_one(&out->arena, j, &found[n]);
        if (e == PFE_INVALID)
            out->left_out++;
        else if (e != PFE_OK)
            return e;
        else
            n++;
    }
    qsort(found, n, sizeof *found, by_id_and_node);
    out->all = arena_alloc(&out->arena, n * sizeof *out->all + 1);
    return out->all ? tell_apart(out, found, n) : PFE_NOMEM;
}

enum pf_err consul_instances_read(struct str json, struct instances *ret, char why[WHY_MAX])
{
    struct instances out = {0};
    struct arena scratch;
    struct json *list = NULL;
    arena_init(&scratch, NULL, 0, TREE_MAX);
    arena_init(&out.arena, NULL, 0, TREE_MAX);
    enum pf_err e = json_parse(&scratch, json, &list, NULL);
    if (e == PFE_OK)
        e = is(list, JSON_ARRAY) ? read_all(&scratch, list, &out) : PFE_BAD_JSON;
    arena_reset(&scratch);
    if (e == PFE_OK)
        *ret = out;
    else
        arena_reset(&out.arena);
    if (e != PFE_OK)
        snprintf(why, WHY_MAX,
                 e == PFE_NOMEM ? "the answer needs too much memory" : "the answer is no list of instances");
    return e;
}

void consul_instances_free(struct instances *i)
{
    arena_reset(&i->arena);
}

bool consul_instances_same(const struct instances *a, const struct instances *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct registry_instance *p = &a->all[i], *q = &b->all[i];
        if (strcmp(p->id, q->id) != 0 || strcmp(p->address, q->address) != 0 || p->port != q->port ||
            p->weight != q->weight || p->health != q->health || p->n_tags != q->n_tags)
            return false;
        for (unsigned t = 0; t < p->n_tags; t++)
            if (strcmp(p->tags[t], q->tags[t]) != 0)
                return false;
    }
    return true;
}

bool consul_instances_serve(const struct instances *i)
{
    for (size_t k = 0; k < i->n; k++)
        if (i->all[k].health != REGISTRY_CRITICAL)
            return true;
    return false;
}
