#include "documents/memory/memory.h"

#include <pthread.h>
#include <stdlib.h>

#include "codec/json_in.h"

enum { PARSE_MAX = 8 * DOCUMENT_BODY_MAX };

struct row {
    struct document d; /* its strings follow */
    char text[];
};

struct memory {
    struct documents base;
    pthread_mutex_t lock;
    struct row **rows; /* by id, rising */
    size_t n, cap;
};

static struct memory *memory_of(struct documents *d)
{
    return (struct memory *)d;
}

/* Where the id is, or would go. */
static size_t place(const struct memory *m, const uint8_t id[16], bool *ret_found)
{
    size_t lo = 0, hi = m->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (memcmp(m->rows[mid]->d.id, id, 16) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *ret_found = lo < m->n && memcmp(m->rows[lo]->d.id, id, 16) == 0;
    return lo;
}

static void memory_close(struct documents *d)
{
    struct memory *m = memory_of(d);
    for (size_t i = 0; i < m->n; i++)
        free(m->rows[i]);
    free(m->rows);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static enum pf_err memory_insert(struct documents *d, const struct document *doc)
{
    struct memory *m = memory_of(d);
    struct row *r = malloc(sizeof *r + doc->search.n + doc->body.n);
    enum pf_err e = r ? PFE_OK : PFE_NOMEM;
    bool found = false;
    pthread_mutex_lock(&m->lock);
    size_t at = place(m, doc->id, &found);
    if (e == PFE_OK && found)
        e = PFE_WRONG_STATE;
    if (e == PFE_OK && m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 16;
        struct row **rows = realloc(m->rows, cap * sizeof *rows);
        if (rows) {
            m->rows = rows;
            m->cap = cap;
        } else {
            e = PFE_NOMEM;
        }
    }
    if (e == PFE_OK) {
        r->d = *doc;
        memcpy(r->text, doc->search.p ? doc->search.p : "", doc->search.n);
        memcpy(r->text + doc->search.n, doc->body.p, doc->body.n);
        r->d.search.p = r->text;
        r->d.body.p = r->text + doc->search.n;
        memmove(&m->rows[at + 1], &m->rows[at], (m->n - at) * sizeof(struct row *));
        m->rows[at] = r;
        m->n++;
    }
    pthread_mutex_unlock(&m->lock);
    if (e != PFE_OK)
        free(r);
    return e;
}

static enum pf_err memory_remove(struct documents *d, const uint8_t id[16])
{
    struct memory *m = memory_of(d);
    bool found;
    pthread_mutex_lock(&m->lock);
    size_t at = place(m, id, &found);
    if (found) {
        free(m->rows[at]);
        m->n--;
        memmove(&m->rows[at], &m->rows[at + 1], (m->n - at) * sizeof(struct row *));
    }
    pthread_mutex_unlock(&m->lock);
    return PFE_OK;
}

static enum pf_err copy(const struct document *from, struct arena *a, struct document *ret)
{
    struct document d = *from;
    d.search = arena_strdup(a, from->search);
    d.body = arena_strdup(a, from->body);
    if (!d.search.p || !d.body.p)
        return PFE_NOMEM;
    *ret = d;
    return PFE_OK;
}

static enum pf_err memory_get(struct documents *d, struct arena *a, const uint8_t id[16], struct document *ret)
{
    struct memory *m = memory_of(d);
    bool found;
    pthread_mutex_lock(&m->lock);
    size_t at = place(m, id, &found);
    enum pf_err e = found ? copy(&m->rows[at]->d, a, ret) : PFE_NOT_FOUND;
    pthread_mutex_unlock(&m->lock);
    return e;
}

static bool field_matches(const struct json *doc, const struct documents_field *f)
{
    for (const struct json *j = doc->child; j; j = j->next) {
        if (!str_eq(j->key, f->name))
            continue;
        switch (j->type) {
        case JSON_STRING:
            return str_eq(j->s, f->text);
        case JSON_NUMBER:
            return f->is_number && str_eq(j->s, f->text);
        case JSON_TRUE:
            return str_is(f->text, "true");
        case JSON_FALSE:
            return str_is(f->text, "false");
        case JSON_NULL:
        case JSON_ARRAY:
        case JSON_OBJECT:
            return false;
        }
    }
    return false;
}

static bool in_text(struct str all, struct str part)
{
    return part.n == 0 || (all.n && memmem(all.p, all.n, part.p, part.n));
}

static enum pf_err matches(const struct document *d, const struct documents_query *q, bool *ret)
{
    *ret = (!q->before || memcmp(d->id, q->before, 16) < 0) && (!q->from_us || d->date_us >= q->from_us) &&
           (!q->to_us || d->date_us < q->to_us) && in_text(d->search, q->text);
    if (!*ret || !q->n_fields)
        return PFE_OK;
    struct arena a;
    struct json *doc;
    arena_init(&a, NULL, 0, PARSE_MAX);
    enum pf_err e = json_parse(&a, d->body, &doc, NULL);
    for (unsigned i = 0; e == PFE_OK && i < q->n_fields; i++)
        *ret = *ret && field_matches(doc, &q->fields[i]);
    arena_reset(&a);
    return e;
}

static enum pf_err memory_list(struct documents *d, struct arena *a, const struct documents_query *q,
                               struct document *out, unsigned *ret_n)
{
    struct memory *m = memory_of(d);
    int64_t skip = q->offset;
    enum pf_err e = PFE_OK;
    unsigned n = 0;
    pthread_mutex_lock(&m->lock);
    for (size_t i = m->n; i-- > 0 && n < q->limit && e == PFE_OK;) {
        bool yes;
        e = matches(&m->rows[i]->d, q, &yes);
        if (e == PFE_OK && yes && skip-- <= 0)
            e = copy(&m->rows[i]->d, a, &out[n++]);
    }
    pthread_mutex_unlock(&m->lock);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

static enum pf_err memory_probe(struct documents *d)
{
    (void)d;
    return PFE_OK;
}

static const struct documents_ops ops = {.engine = "memory",
                                         .close = memory_close,
                                         .insert = memory_insert,
                                         .remove = memory_remove,
                                         .get = memory_get,
                                         .list = memory_list,
                                         .probe = memory_probe};

struct documents *documents_memory_open(void)
{
    struct memory *m = calloc(1, sizeof *m);
    if (!m || pthread_mutex_init(&m->lock, NULL) != 0) {
        free(m);
        return NULL;
    }
    m->base.ops = &ops;
    return &m->base;
}
