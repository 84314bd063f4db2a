#include "http/router.h"

#include <stdio.h>
#include <stdlib.h>

enum { SEGMENTS_MAX = 32 }; /* more than any pattern has; longer paths can only match "{rest...}" */

struct node {
    struct str segment;        /* literal text; of the pattern */
    struct node *child, *next; /* literal children, siblings */
    struct node *param, *rest; /* "{id}", "{rest...}" below this node */
    const struct http_route *routes[HTTP_METHODS];
    bool ends; /* some route ends here */
};

struct slot {
    struct str path;
    const struct node *node;
};

struct router {
    struct node root;
    struct slot *slots; /* static paths; a power of two, at most half full */
    size_t cap;
};

static uint64_t path_hash(struct str s)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ s.n;
    for (; s.n >= 8; s.p += 8, s.n -= 8) {
        uint64_t w;
        memcpy(&w, s.p, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.p[i]) * 0x100000001b3u;
    return h ^ (h >> 29);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool url_decode(struct arena *a, struct str s, bool plus, struct str *ret)
{
    size_t i = 0;
    while (i < s.n && s.p[i] > 0 && s.p[i] != '%' && !(plus && s.p[i] == '+'))
        i++;
    if (i == s.n) {
        *ret = s;
        return true;
    }
    char *out = arena_alloc(a, s.n + 1);
    if (!out)
        return false;
    memcpy(out, s.p, i);
    size_t n = i;
    while (i < s.n) {
        char c = s.p[i++];
        if (c == '%') {
            int hi = i + 1 < s.n ? hex_value(s.p[i]) : -1, lo = hi >= 0 ? hex_value(s.p[i + 1]) : -1;
            if (lo < 0)
                return false;
            c = (char)(hi * 16 + lo);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c == '\0')
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    *ret = (struct str){out, n};
    return str_utf8_ok(*ret);
}

/* Cuts the next segment off *rest, which is empty or starts with '/'. False: there is none. */
static bool next_segment(struct str *rest, struct str *ret)
{
    if (rest->n == 0)
        return false;
    const char *p = rest->p + 1, *end = rest->p + rest->n;
    const char *slash = memchr(p, '/', (size_t)(end - p));
    const char *stop = slash ? slash : end;
    *ret = (struct str){p, (size_t)(stop - p)};
    *rest = (struct str){stop, (size_t)(end - stop)};
    return true;
}

static struct node *literal_child(const struct node *n, struct str segment)
{
    struct node *c = n->child;
    while (c && !str_eq(c->segment, segment))
        c = c->next;
    return c;
}

static struct node *node_below(struct node *n, struct str segment, bool param, bool rest)
{
    struct node *have = rest ? n->rest : param ? n->param : literal_child(n, segment);
    if (have)
        return have;
    struct node *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->segment = segment;
    if (rest) {
        n->rest = c;
    } else if (param) {
        n->param = c;
    } else {
        c->next = n->child;
        n->child = c;
    }
    return c;
}

/* NULL on success, else what is wrong. *ret_static: no parameter in it. */
static const char *add(struct router *r, const struct http_route *route, struct node **ret, bool *ret_static)
{
    struct str rest = str_c(route->pattern), segment;
    struct node *n = &r->root;
    unsigned params = 0;
    bool tail = false;
    if (rest.n == 0 || rest.p[0] != '/' || route->method >= HTTP_METHODS)
        return "is malformed";
    if (rest.n == 1)
        rest.n = 0; /* "/" is the root itself */
    while (next_segment(&rest, &segment)) {
        bool brace = segment.n > 2 && segment.p[0] == '{' && segment.p[segment.n - 1] == '}';
        if (tail || (segment.n == 0 && rest.n > 0) || (!brace && memchr(segment.p, '{', segment.n)))
            return "is malformed";
        tail = brace && segment.n > 5 && memcmp(segment.p + segment.n - 4, "...}", 4) == 0;
        if (brace && ++params > HTTP_PARAMS_MAX)
            return "has too many parameters";
        n = node_below(n, segment, brace && !tail, tail);
        if (!n)
            return "does not fit into memory";
    }
    if (n->routes[route->method])
        return "occurs twice";
    n->routes[route->method] = route;
    n->ends = true;
    *ret = n;
    *ret_static = params == 0;
    return NULL;
}

static struct slot *slot_for(const struct router *r, struct str path)
{
    size_t i = path_hash(path) & (r->cap - 1);
    while (r->slots[i].node && !str_eq(r->slots[i].path, path))
        i = (i + 1) & (r->cap - 1);
    return &r->slots[i];
}

struct router *router_new(const struct http_route *routes, size_t n, char why[256])
{
    struct router *r = calloc(1, sizeof *r);
    if (r) {
        r->cap = 16;
        while (r->cap < 2 * n)
            r->cap *= 2;
        r->slots = calloc(r->cap, sizeof *r->slots);
    }
    if (!r || !r->slots) {
        free(r);
        snprintf(why, 256, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        struct node *node = NULL;
        bool is_static = false;
        const char *wrong = add(r, &routes[i], &node, &is_static);
        if (wrong) {
            snprintf(why, 256, "route %s %s", routes[i].pattern, wrong);
            router_free(r);
            return NULL;
        }
        if (is_static)
            *slot_for(r, str_c(routes[i].pattern)) = (struct slot){str_c(routes[i].pattern), node};
    }
    return r;
}

static void node_free(struct node *n)
{
    while (n) {
        struct node *next = n->next;
        node_free(n->child);
        node_free(n->param);
        node_free(n->rest);
        free(n);
        n = next;
    }
}

void router_free(struct router *r)
{
    if (!r)
        return;
    node_free(r->root.child);
    node_free(r->root.param);
    node_free(r->root.rest);
    free(r->slots);
    free(r);
}

struct walk {
    struct str seg[SEGMENTS_MAX];  /* decoded */
    struct str tail[SEGMENTS_MAX]; /* the raw path from that segment on */
    unsigned n;
    struct str *params;
    unsigned n_params; /* of the hit */
    bool rest;         /* the hit's last parameter is a raw tail */
};

/* Depth is bounded by the patterns' length. */
static const struct node *walk(struct walk *w, const struct node *n, unsigned at, unsigned n_params)
{
    if (at == w->n) {
        w->n_params = n_params;
        return n->ends ? n : NULL;
    }
    const struct node *c = literal_child(n, w->seg[at]), *hit = NULL;
    if (c)
        hit = walk(w, c, at + 1, n_params);
    if (!hit && n->param && w->seg[at].n > 0) {
        w->params[n_params] = w->seg[at];
        hit = walk(w, n->param, at + 1, n_params + 1);
    }
    if (!hit && n->rest && w->tail[at].n > 0) {
        w->params[n_params] = w->tail[at];
        w->n_params = n_params + 1;
        w->rest = true;
        hit = n->rest;
    }
    return hit;
}

bool router_find(const struct router *r, struct arena *a, struct str path, struct router_match *ret)
{
    *ret = (struct router_match){0};
    const struct slot *s = slot_for(r, path);
    if (s->node) {
        ret->routes = s->node->routes;
        return true;
    }
    struct walk w = {.params = ret->params};
    struct str rest = path.n == 1 ? STR_NONE : path, raw;
    while (next_segment(&rest, &raw)) {
        struct str decoded;
        if (!url_decode(a, raw, false, &decoded)) {
            ret->bad = true;
            return false;
        }
        if (w.n < SEGMENTS_MAX) {
            w.seg[w.n] = decoded;
            w.tail[w.n++] = (struct str){raw.p, (size_t)(path.p + path.n - raw.p)};
        } else {
            w.seg[SEGMENTS_MAX - 1] = STR(""); /* too deep for a literal or "{id}" to match to the end */
        }
    }
    const struct node *hit = walk(&w, &r->root, 0, 0);
    for (unsigned i = hit ? w.n_params : 0; i < HTTP_PARAMS_MAX; i++)
        ret->params[i] = STR_NONE; /* left by branches that led nowhere */
    if (!hit)
        return false;
    if (w.rest) {
        struct str *last = &ret->params[w.n_params - 1];
        if (!url_decode(a, *last, false, last)) {
            ret->bad = true;
            return false;
        }
    }
    ret->routes = hit->routes;
    return true;
}
