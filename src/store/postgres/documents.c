/* The documents port in the store's own database: the text as it was given, and JSONB made of it to look into. */
#include "store/postgres/records.h"

static struct postgres_store *store_of(struct documents *d)
{
    return ((struct pg_documents *)d)->store;
}

static enum pf_err document_insert(struct documents *d, const struct document *doc)
{
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(&store_of(d)->base, &tx);
    if (e != PFE_OK)
        return e;
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx),
               "INSERT INTO event_document (id, created_us, date_us, search, body) VALUES ($1, $2, $3, $4, $5)");
    pg_q_blob(&q, doc->id, sizeof doc->id);
    pg_q_i64(&q, doc->created_us);
    pg_q_i64(&q, doc->date_us);
    pg_q_str(&q, doc->search);
    pg_q_str(&q, doc->body);
    e = pg_rec_run(&q);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

static enum pf_err document_remove(struct documents *d, const uint8_t id[16])
{
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(&store_of(d)->base, &tx);
    if (e != PFE_OK)
        return e;
    struct pg_q q;
    pg_q_begin(&q, pg_rec_conn(tx), "DELETE FROM event_document WHERE id = $1");
    pg_q_blob(&q, id, 16);
    e = pg_rec_run(&q);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

static bool document_read(struct pg_q *q, struct arena *a, struct document *ret)
{
    pg_col_blob(q, 0, ret->id, sizeof ret->id);
    ret->created_us = pg_col_i64(q, 1);
    ret->date_us = pg_col_i64(q, 2);
    return pg_col_dup(q, 3, a, &ret->search) && pg_col_dup(q, 4, a, &ret->body);
}

static enum pf_err document_get(struct documents *d, struct arena *a, const uint8_t id[16], struct document *ret)
{
    struct pg_q q;
    struct document doc;
    pg_read_begin(&q, store_of(d), PG_FROM_ANY,
                  "SELECT id, created_us, date_us, search, body FROM event_document WHERE id = $1");
    pg_q_blob(&q, id, 16);
    bool found = pg_q_next(&q) && document_read(&q, a, &doc);
    enum pf_err e = pg_rec_one(&q, found);
    if (e == PFE_OK)
        *ret = doc;
    return e;
}

#define MEMBER(name, text, is_number)                                                                                  \
    " AND (" name " = '' OR (CASE jsonb_typeof(doc -> " name ") WHEN 'number' THEN " is_number                         \
    " <> 0 WHEN 'string' THEN true WHEN 'boolean' THEN true ELSE false END AND doc ->> " name " = " text "))"

static enum pf_err document_list(struct documents *d, struct arena *a, const struct documents_query *query,
                                 struct document *out, unsigned *ret_n)
{
    static const struct documents_field none = {.name = STR(""), .text = STR("")};
    static const uint8_t newest[17] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct pg_q q;
    unsigned n = 0;
    pg_read_begin(&q, store_of(d), PG_FROM_ANY,
                  "SELECT id, created_us, date_us, search, body FROM event_document WHERE id < $1 AND date_us >= $2"
                  " AND date_us < $3 AND ($4 = '' OR strpos(search, $4) > 0)" MEMBER("$7", "$8", "$9")
                      MEMBER("$10", "$11", "$12") MEMBER("$13", "$14", "$15")
                          MEMBER("$16", "$17", "$18") " ORDER BY id DESC LIMIT $5 OFFSET $6");
    if (query->before)
        pg_q_blob(&q, query->before, 16);
    else
        pg_q_blob(&q, newest, sizeof newest);
    pg_q_i64(&q, query->from_us ? query->from_us : INT64_MIN);
    pg_q_i64(&q, query->to_us ? query->to_us : INT64_MAX);
    pg_q_str(&q, query->text);
    pg_q_i64(&q, query->limit);
    pg_q_i64(&q, query->offset);
    for (unsigned i = 0; i < DOCUMENTS_FIELDS_MAX; i++) {
        const struct documents_field *f = i < query->n_fields ? &query->fields[i] : &none;
        pg_q_str(&q, f->name);
        pg_q_str(&q, f->text);
        pg_q_i64(&q, f->is_number);
    }
    while (pg_q_next(&q) && document_read(&q, a, &out[n]))
        n++;
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

static enum pf_err document_probe(struct documents *d)
{
    return pg_primary_down(store_of(d)) ? PFE_UNAVAILABLE : PFE_OK;
}

static const struct documents_ops ops = {.engine = "postgres",
                                         .insert = document_insert,
                                         .remove = document_remove,
                                         .get = document_get,
                                         .list = document_list,
                                         .probe = document_probe};

struct documents *pg_documents(struct store *s)
{
    struct postgres_store *st = pg_of(s);
    st->documents = (struct pg_documents){.base.ops = &ops, .store = st};
    return &st->documents.base;
}
