/* The documents port in the store's own database file: SQLite's JSON functions look into the text. */
#include "store/sqlite/records.h"

static struct sqlite_store *store_of(struct documents *d)
{
    return ((struct sqlite_documents *)d)->store;
}

static enum pf_err document_insert(struct documents *d, const struct document *doc)
{
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(&store_of(d)->base, &tx);
    if (e != PFE_OK)
        return e;
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx),
                   "INSERT INTO event_document (id, created_us, date_us, search, body) VALUES (?1, ?2, ?3, ?4, ?5)");
    sqlite_q_blob(&q, doc->id, sizeof doc->id);
    sqlite_q_i64(&q, doc->created_us);
    sqlite_q_i64(&q, doc->date_us);
    sqlite_q_str(&q, doc->search);
    sqlite_q_str(&q, doc->body);
    e = sqlite_rec_run(&q);
    if (q.rc == SQLITE_CONSTRAINT_CHECK) /* bodies are JSON: json_valid says no when it has no memory to look */
        e = PFE_NOMEM;
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
    struct sqlite_q q;
    sqlite_q_begin(&q, sqlite_rec_conn(tx), "DELETE FROM event_document WHERE id = ?1");
    sqlite_q_blob(&q, id, 16);
    e = sqlite_rec_run(&q);
    if (e == PFE_OK)
        return store_tx_commit(tx);
    store_tx_rollback(tx);
    return e;
}

static bool document_read(struct sqlite_q *q, struct arena *a, struct document *ret)
{
    sqlite_col_blob(q, 0, ret->id, sizeof ret->id);
    ret->created_us = sqlite_col_i64(q, 1);
    ret->date_us = sqlite_col_i64(q, 2);
    return sqlite_col_dup(q, 3, a, &ret->search) && sqlite_col_dup(q, 4, a, &ret->body);
}

static enum pf_err document_get(struct documents *d, struct arena *a, const uint8_t id[16], struct document *ret)
{
    struct sqlite_q q;
    struct document doc;
    sqlite_q_begin(&q, sqlite_reader(store_of(d)),
                   "SELECT id, created_us, date_us, search, body FROM event_document WHERE id = ?1");
    sqlite_q_blob(&q, id, 16);
    bool found = sqlite_q_next(&q) && document_read(&q, a, &doc);
    enum pf_err e = sqlite_rec_one(&q, found);
    if (e == PFE_OK)
        *ret = doc;
    return e;
}

#define MEMBER(name, text, is_number, number)                                                                          \
    " AND (" name " = '' OR EXISTS (SELECT 1 FROM json_each(d.body) j WHERE j.key = " name                             \
    " AND ((j.type = 'text' AND j.value = " text ") OR (" is_number " AND j.type = 'integer' AND j.value = " number    \
    ") OR (j.type IN ('true', 'false') AND j.type = " text "))))"

static enum pf_err document_list(struct documents *d, struct arena *a, const struct documents_query *query,
                                 struct document *out, unsigned *ret_n)
{
    static const struct documents_field none = {.name = STR(""), .text = STR("")};
    static const uint8_t newest[17] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct sqlite_q q;
    unsigned n = 0;
    sqlite_q_begin(&q, sqlite_reader(store_of(d)),
                   "SELECT id, created_us, date_us, search, body FROM event_document d WHERE id < ?1 AND date_us >= ?2"
                   " AND date_us < ?3 AND (?4 = '' OR instr(search, ?4) > 0)" MEMBER("?7", "?8", "?9", "?10")
                       MEMBER("?11", "?12", "?13", "?14") MEMBER("?15", "?16", "?17", "?18")
                           MEMBER("?19", "?20", "?21", "?22") " ORDER BY id DESC LIMIT ?5 OFFSET ?6");
    if (query->before)
        sqlite_q_blob(&q, query->before, 16);
    else
        sqlite_q_blob(&q, newest, sizeof newest);
    sqlite_q_i64(&q, query->from_us ? query->from_us : INT64_MIN);
    sqlite_q_i64(&q, query->to_us ? query->to_us : INT64_MAX);
    sqlite_q_str(&q, query->text);
    sqlite_q_i64(&q, query->limit);
    sqlite_q_i64(&q, query->offset);
    for (unsigned i = 0; i < DOCUMENTS_FIELDS_MAX; i++) {
        const struct documents_field *f = i < query->n_fields ? &query->fields[i] : &none;
        sqlite_q_str(&q, f->name);
        sqlite_q_str(&q, f->text);
        sqlite_q_i64(&q, f->is_number);
        sqlite_q_i64(&q, f->number);
    }
    while (sqlite_q_next(&q) && document_read(&q, a, &out[n]))
        n++;
    enum pf_err e = sqlite_q_end(&q);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

static enum pf_err document_probe(struct documents *d)
{
    struct store_info info;
    enum pf_err e = store_info(&store_of(d)->base, &info);
    return e == PFE_OK && info.fatal ? PFE_UNAVAILABLE : e;
}

static const struct documents_ops ops = {.engine = "sqlite",
                                         .insert = document_insert,
                                         .remove = document_remove,
                                         .get = document_get,
                                         .list = document_list,
                                         .probe = document_probe};

struct documents *sqlite_documents(struct store *s)
{
    struct sqlite_store *st = sqlite_of(s);
    st->documents = (struct sqlite_documents){.base.ops = &ops, .store = st};
    return &st->documents.base;
}
