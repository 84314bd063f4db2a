#include <stdlib.h>

#include "store/memory/internal.h"

enum { KEY_MAX = 8 + 255 };

static struct str idem_key(int64_t principal, struct str key, char out[KEY_MAX])
{
    size_t n = key.n < KEY_MAX - 8 ? key.n : KEY_MAX - 8;
    memcpy(out, &principal, 8);
    memcpy(out + 8, key.p, n);
    return (struct str){out, n + 8};
}

enum pf_err memory_idem_insert(struct memory_store *s, const struct store_idem *i)
{
    char text[KEY_MAX];
    struct str key = idem_key(i->principal, i->key, text);
    if (map_str_get(&s->idem, key))
        return PFE_IN_FLIGHT;
    struct store_idem *row = malloc(sizeof *row + i->key.n + i->body.n);
    if (!row)
        return PFE_NOMEM;
    char *strings = (char *)(row + 1);
    *row = *i;
    row->key.p = memcpy(strings, i->key.p, i->key.n);
    row->body.p = strings + i->key.n;
    if (i->body.n)
        memcpy(strings + i->key.n, i->body.p, i->body.n);
    if (map_str_put(&s->idem, key, row))
        return PFE_OK;
    free(row);
    return PFE_NOMEM;
}

void memory_idem_remove(struct memory_store *s, int64_t principal, struct str key)
{
    char text[KEY_MAX];
    free(map_str_del(&s->idem, idem_key(principal, key, text)));
}

const struct store_idem *memory_idem_find(const struct memory_store *s, int64_t principal, struct str key)
{
    char text[KEY_MAX];
    return map_str_get(&s->idem, idem_key(principal, key, text));
}
