#include "port/documents.h"

void documents_close(struct documents *d)
{
    if (d && d->ops->close)
        d->ops->close(d);
}

const char *documents_engine(const struct documents *d)
{
    return d->ops->engine;
}

enum pf_err documents_insert(struct documents *d, const struct document *doc)
{
    return d->ops->insert(d, doc);
}

enum pf_err documents_remove(struct documents *d, const uint8_t id[16])
{
    return d->ops->remove(d, id);
}

enum pf_err documents_get(struct documents *d, struct arena *a, const uint8_t id[16], struct document *ret)
{
    return d->ops->get(d, a, id, ret);
}

enum pf_err documents_list(struct documents *d, struct arena *a, const struct documents_query *q, struct document *out,
                           unsigned *ret_n)
{
    return d->ops->list(d, a, q, out, ret_n);
}

enum pf_err documents_probe(struct documents *d)
{
    return d->ops->probe(d);
}
