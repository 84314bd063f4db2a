/* What follows the ledger writer's commit: caches are told, and the entries counted. */
#include "app/writer.h"

#include <stdio.h>

/* In one call, for a shared cache that cannot be told makes each of them wait; in slices if there is no room for it. */
bool writer_forget_cached(struct writer *w)
{
    enum { SLICE = 128 };
    char few_text[SLICE][CACHE_KEY_MAX], (*text)[CACHE_KEY_MAX] = few_text;
    struct str few[SLICE], *keys = few;
    size_t cap = SLICE, n = 0;
    bool told = true;
    if (w->n_keys + w->n_resolved > SLICE && cache_shared(w->a->d.cache)) {
        const size_t all = w->n_keys + w->n_resolved;
        char(*all_text)[CACHE_KEY_MAX] = arena_alloc(&w->arena, all * sizeof *all_text);
        struct str *all_keys = arena_alloc(&w->arena, all * sizeof *all_keys);
        if (all_text && all_keys) {
            text = all_text;
            keys = all_keys;
            cap = all;
        }
    }
    for (size_t i = 0; i < w->n_keys + w->n_resolved; i++) {
        if (i >= w->n_keys)
            keys[n] = app_key_transaction(text[n], w->resolved[i - w->n_keys]);
        else if ((w->slots[i].used || w->replayed) && w->slots[i].acc.owner)
            keys[n] = app_key_balance(text[n], w->slots[i].acc.owner, w->slots[i].acc.currency);
        else
            continue;
        if (++n == cap) {
            told &= cache_del_many(w->a->d.cache, keys, n);
            n = 0;
        }
    }
    if (n)
        told &= cache_del_many(w->a->d.cache, keys, n);
    return told;
}

void writer_count_entries(struct writer *w)
{
    for (size_t i = 0; i < w->n_entries; i++) {
        const struct ledger_entry *e = &w->entries[i];
        struct metric_counter **n = &w->by_kind[e->kind][e->currency], **v = &w->volume[e->kind][e->currency];
        if (!*n) {
            const struct money_currency_info *ci = money_by_num(e->currency);
            char labels[64];
            snprintf(labels, sizeof labels, "type=\"%s\",currency=\"%s\"", ledger_kind_name(e->kind),
                     ci ? ci->code : "?");
            *n = metric_counter(w->a->d.metrics, "payflow_transactions_total", "Journal entries committed.", labels);
            *v = metric_counter(w->a->d.metrics, "payflow_transaction_minor_units_total",
                                "Amounts of committed entries, in minor units of the currency.", labels);
        }
        metric_inc(*n, 1);
        metric_inc(*v, (uint64_t)e->amount);
    }
}
