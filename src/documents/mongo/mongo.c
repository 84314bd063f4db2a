#include "documents/mongo/mongo.h"

#include <stdio.h>
#include <stdlib.h>

#include "codec/json_in.h"
#include "codec/uuid.h"
#include "documents/mongo/driver.h"

enum { CONNECTIONS_MAX = 16, TIMEOUT_MS = 3000, PARSE_MAX = 8 * DOCUMENT_BODY_MAX, WHY = 256 };

struct mongo {
    struct documents base;
    mongoc_client_pool_t *pool;
    mongoc_uri_t *uri;
    char database[64];
};

/* One call's client and collection. */
struct session {
    struct mongo *m;
    mongoc_client_t *client;
    mongoc_collection_t *events;
};

static bool session_open(struct documents *d, struct session *s)
{
    s->m = (struct mongo *)d;
    s->client = driver.mongoc_client_pool_pop(s->m->pool);
    s->events = s->client ? driver.mongoc_client_get_collection(s->client, s->m->database, "events") : NULL;
    return s->events != NULL;
}

static void session_close(struct session *s)
{
    if (s->events)
        driver.mongoc_collection_destroy(s->events);
    if (s->client)
        driver.mongoc_client_pool_push(s->m->pool, s->client);
}

/* The one translation. */
static enum pf_err translate(const bson_error_t *e)
{
    return e->domain == MONGOC_ERROR_SERVER && e->code == MONGOC_ERROR_DUPLICATE_KEY ? PFE_WRONG_STATE
                                                                                     : PFE_UNAVAILABLE;
}

/* ---- to BSON ---- */

static bool name_fits(struct str name)
{
    return name.n && name.p[0] != '$' && !memchr(name.p, '.', name.n);
}

static bool put_value(bson_t *to, struct str name, const struct json *j);

static bool put_children(bson_t *to, const struct json *j)
{
    uint32_t i = 0;
    for (const struct json *c = j->child; c; c = c->next) {
        char index[16];
        const char *text;
        struct str name = c->key;
        if (j->type == JSON_ARRAY) {
            size_t n = bson_uint32_to_string(i++, &text, index, sizeof index);
            name = (struct str){text, n};
        }
        if (j->type == JSON_ARRAY ? c->type == JSON_ARRAY : !name_fits(name))
            continue;
        if (!put_value(to, name, c))
            return false;
    }
    return true;
}

static bool put_value(bson_t *to, struct str name, const struct json *j)
{
    int n = (int)name.n;
    bson_t child;
    int64_t v;
    char z[72];
    switch (j->type) {
    case JSON_NULL:
        return bson_append_null(to, name.p, n);
    case JSON_FALSE:
    case JSON_TRUE:
        return bson_append_bool(to, name.p, n, j->type == JSON_TRUE);
    case JSON_NUMBER:
        if (str_to_i64(j->s, &v))
            return bson_append_int64(to, name.p, n, v);
        return str_copy(z, sizeof z, j->s) && bson_append_double(to, name.p, n, strtod(z, NULL));
    case JSON_STRING:
        return bson_append_utf8(to, name.p, n, j->s.p ? j->s.p : "", (int)j->s.n);
    case JSON_ARRAY:
        return bson_append_array_begin(to, name.p, n, &child) && put_children(&child, j) &&
               bson_append_array_end(to, &child);
    case JSON_OBJECT:
        return bson_append_document_begin(to, name.p, n, &child) && put_children(&child, j) &&
               bson_append_document_end(to, &child);
    }
    return false;
}

static bool put_str(bson_t *to, const char *name, struct str s)
{
    return bson_append_utf8(to, name, -1, s.p ? s.p : "", (int)s.n);
}

static void put_id(bson_t *to, const char *name, const uint8_t id[16])
{
    struct uuid u;
    char text[UUID_TEXT_LEN + 1];
    memcpy(u.b, id, sizeof u.b);
    uuid_format(&u, text);
    bson_append_utf8(to, name, -1, text, UUID_TEXT_LEN);
}

/* ---- operations ---- */

static enum pf_err mongo_insert(struct documents *d, const struct document *doc)
{
    struct session s;
    struct arena a;
    struct json *j;
    bson_t b = BSON_INITIALIZER, child;
    bson_error_t error;
    arena_init(&a, NULL, 0, PARSE_MAX);
    enum pf_err e = session_open(d, &s) ? json_parse(&a, doc->body, &j, NULL) : PFE_NOMEM;
    if (e == PFE_OK) {
        put_id(&b, "_id", doc->id);
        bool ok = bson_append_int64(&b, "created", -1, doc->created_us) &&
                  bson_append_int64(&b, "date", -1, doc->date_us) && put_str(&b, "search", doc->search) &&
                  put_str(&b, "body", doc->body) && bson_append_document_begin(&b, "doc", -1, &child) &&
                  put_children(&child, j) && bson_append_document_end(&b, &child);
        if (!ok)
            e = PFE_NOMEM;
        else if (!driver.mongoc_collection_insert_one(s.events, &b, NULL, NULL, &error))
            e = translate(&error);
    }
    bson_destroy(&b);
    arena_reset(&a);
    session_close(&s);
    return e;
}

static enum pf_err mongo_remove(struct documents *d, const uint8_t id[16])
{
    struct session s;
    bson_t b = BSON_INITIALIZER;
    bson_error_t error;
    enum pf_err e = PFE_NOMEM;
    put_id(&b, "_id", id);
    if (session_open(d, &s))
        e = driver.mongoc_collection_delete_one(s.events, &b, NULL, NULL, &error) ? PFE_OK : translate(&error);
    bson_destroy(&b);
    session_close(&s);
    return e;
}

static bool get_i64(const bson_t *b, const char *name, int64_t *ret)
{
    bson_iter_t i;
    if (!bson_iter_init_find(&i, b, name) || !BSON_ITER_HOLDS_NUMBER(&i))
        return false;
    *ret = bson_iter_as_int64(&i);
    return true;
}

static bool get_str(const bson_t *b, const char *name, struct str *ret)
{
    bson_iter_t i;
    uint32_t n;
    if (!bson_iter_init_find(&i, b, name) || !BSON_ITER_HOLDS_UTF8(&i))
        return false;
    const char *p = bson_iter_utf8(&i, &n);
    *ret = (struct str){p, n};
    return true;
}

/* Somebody else's document, put there by hand, perhaps: PFE_NOT_FOUND. */
static enum pf_err read_document(const bson_t *b, struct arena *a, struct document *ret)
{
    struct str id, search, body;
    struct uuid u;
    struct document d;
    if (!get_str(b, "_id", &id) || !uuid_parse(id, &u) || !get_i64(b, "created", &d.created_us) ||
        !get_i64(b, "date", &d.date_us) || !get_str(b, "search", &search) || !get_str(b, "body", &body))
        return PFE_NOT_FOUND;
    memcpy(d.id, u.b, sizeof d.id);
    d.search = arena_strdup(a, search);
    d.body = arena_strdup(a, body);
    if (!d.search.p || !d.body.p)
        return PFE_NOMEM;
    *ret = d;
    return PFE_OK;
}

/* Calls for documents that filter gives; ends in PFE_OK after the last, or after `limit` of ours. */
static enum pf_err find(struct documents *d, const bson_t *filter, const bson_t *opts, struct arena *a, unsigned limit,
                        struct document *out, unsigned *ret_n)
{
    struct session s;
    const bson_t *b;
    bson_error_t error;
    unsigned n = 0;
    enum pf_err e = PFE_NOMEM;
    if (session_open(d, &s)) {
        mongoc_cursor_t *c = driver.mongoc_collection_find_with_opts(s.events, filter, opts, NULL);
        e = PFE_OK;
        while (e == PFE_OK && n < limit && driver.mongoc_cursor_next(c, &b)) {
            e = read_document(b, a, &out[n]);
            n += e == PFE_OK;
            if (e == PFE_NOT_FOUND)
                e = PFE_OK;
        }
        if (e == PFE_OK && driver.mongoc_cursor_error(c, &error))
            e = translate(&error);
        driver.mongoc_cursor_destroy(c);
    }
    session_close(&s);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}

static enum pf_err mongo_get(struct documents *d, struct arena *a, const uint8_t id[16], struct document *ret)
{
    bson_t filter = BSON_INITIALIZER;
    unsigned n;
    put_id(&filter, "_id", id);
    enum pf_err e = find(d, &filter, NULL, a, 1, ret, &n);
    bson_destroy(&filter);
    return e == PFE_OK && n == 0 ? PFE_NOT_FOUND : e;
}

static void put_bounds(bson_t *to, const char *name, int64_t from, int64_t before)
{
    bson_t range;
    bson_append_document_begin(to, name, -1, &range);
    if (from)
        bson_append_int64(&range, "$gte", -1, from);
    if (before)
        bson_append_int64(&range, "$lt", -1, before);
    bson_append_document_end(to, &range);
}

/* The text itself as a regular expression: all but letters, digits and what lies beyond ASCII is escaped. */
static bool put_text(bson_t *to, struct str text)
{
    char *re = malloc(2 * text.n + 1);
    size_t n = 0;
    if (!re)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        bool plain =
            c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c <= ' ';
        if (!plain)
            re[n++] = '\\';
        re[n++] = (char)c;
    }
    re[n] = '\0';
    bool ok = bson_append_regex(to, "search", -1, re, "");
    free(re);
    return ok;
}

/* Arrays are left out, for MongoDB would look into them. */
static void put_field(bson_t *to, const struct documents_field *f)
{
    char name[DOCUMENTS_FIELD_NAME_MAX + 8];
    bson_t cond, list, except;
    snprintf(name, sizeof name, "doc.%.*s", (int)f->name.n, f->name.p);
    bson_append_document_begin(to, name, -1, &cond);
    bson_append_array_begin(&cond, "$in", -1, &list);
    put_str(&list, "0", f->text);
    if (f->is_number)
        bson_append_int64(&list, "1", -1, f->number);
    else if (str_is(f->text, "true") || str_is(f->text, "false"))
        bson_append_bool(&list, "1", -1, str_is(f->text, "true"));
    bson_append_array_end(&cond, &list);
    bson_append_document_begin(&cond, "$not", -1, &except);
    put_str(&except, "$type", STR("array"));
    bson_append_document_end(&cond, &except);
    bson_append_document_end(to, &cond);
}

static enum pf_err mongo_list(struct documents *d, struct arena *a, const struct documents_query *q,
                              struct document *out, unsigned *ret_n)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER, child;
    enum pf_err e = PFE_OK;
    if (q->before) {
        bson_append_document_begin(&filter, "_id", -1, &child);
        put_id(&child, "$lt", q->before);
        bson_append_document_end(&filter, &child);
    }
    if (q->from_us || q->to_us)
        put_bounds(&filter, "date", q->from_us, q->to_us);
    if (q->text.n && !put_text(&filter, q->text))
        e = PFE_NOMEM;
    if (q->n_fields) { /* one after the other, since the same may be asked twice */
        bson_append_array_begin(&filter, "$and", -1, &child);
        for (unsigned i = 0; i < q->n_fields; i++) {
            static const char *const index[DOCUMENTS_FIELDS_MAX] = {"0", "1", "2", "3"};
            bson_t one;
            bson_append_document_begin(&child, index[i], -1, &one);
            put_field(&one, &q->fields[i]);
            bson_append_document_end(&child, &one);
        }
        bson_append_array_end(&filter, &child);
    }
    bson_append_document_begin(&opts, "sort", -1, &child);
    bson_append_int32(&child, "_id", -1, -1);
    bson_append_document_end(&opts, &child);
    bson_append_int64(&opts, "skip", -1, q->offset);
    bson_append_int64(&opts, "limit", -1, q->limit);
    if (e == PFE_OK)
        e = find(d, &filter, &opts, a, q->limit, out, ret_n);
    bson_destroy(&filter);
    bson_destroy(&opts);
    return e;
}

static bool ping(struct mongo *m, bson_error_t *error)
{
    mongoc_client_t *client = driver.mongoc_client_pool_pop(m->pool);
    bson_t command = BSON_INITIALIZER;
    bson_append_int32(&command, "ping", -1, 1);
    bool ok = client && driver.mongoc_client_command_simple(client, m->database, &command, NULL, NULL, error);
    bson_destroy(&command);
    if (client)
        driver.mongoc_client_pool_push(m->pool, client);
    return ok;
}

static enum pf_err mongo_probe(struct documents *d)
{
    bson_error_t error;
    return ping((struct mongo *)d, &error) ? PFE_OK : PFE_UNAVAILABLE;
}

static void mongo_close(struct documents *d)
{
    struct mongo *m = (struct mongo *)d;
    if (m->pool)
        driver.mongoc_client_pool_destroy(m->pool);
    if (m->uri)
        driver.mongoc_uri_destroy(m->uri);
    free(m);
}

static const struct documents_ops ops = {.engine = "mongodb",
                                         .close = mongo_close,
                                         .insert = mongo_insert,
                                         .remove = mongo_remove,
                                         .get = mongo_get,
                                         .list = mongo_list,
                                         .probe = mongo_probe};

/* What the URL does not say itself. */
static bool settle_uri(struct mongo *m, unsigned timeout_ms)
{
    mongoc_write_concern_t *w = driver.mongoc_write_concern_new();
    int32_t t = (int32_t)timeout_ms;
    driver.mongoc_write_concern_set_w(w, MONGOC_WRITE_CONCERN_W_MAJORITY);
    driver.mongoc_write_concern_set_journal(w, true);
    driver.mongoc_uri_set_write_concern(m->uri, w);
    driver.mongoc_write_concern_destroy(w);
    return driver.mongoc_uri_set_option_as_int32(m->uri, MONGOC_URI_SERVERSELECTIONTIMEOUTMS, t) &&
           driver.mongoc_uri_set_option_as_int32(m->uri, MONGOC_URI_CONNECTTIMEOUTMS, t) &&
           driver.mongoc_uri_set_option_as_int32(m->uri, MONGOC_URI_SOCKETTIMEOUTMS, t) &&
           driver.mongoc_uri_set_option_as_int32(m->uri, MONGOC_URI_MAXPOOLSIZE, CONNECTIONS_MAX) &&
           driver.mongoc_uri_set_option_as_int32(m->uri, MONGOC_URI_WAITQUEUETIMEOUTMS, t) &&
           driver.mongoc_uri_set_option_as_bool(m->uri, MONGOC_URI_RETRYREADS,
                                                false) && /* a second wait of the same length */
           driver.mongoc_uri_set_appname(m->uri, "payflow");
}

enum pf_err documents_mongo_open(const struct mongo_options *o, struct documents **ret, char ret_why[256])
{
    bson_error_t error = {0};
    struct mongo *m = calloc(1, sizeof *m);
    if (!m) {
        snprintf(ret_why, WHY, "out of memory");
        return PFE_NOMEM;
    }
    if (!driver_load(ret_why, WHY)) {
        free(m);
        return PFE_WRONG_STATE;
    }
    m->base.ops = &ops;
    m->uri = driver.mongoc_uri_new_with_error(o->url, &error);
    const char *name = m->uri ? driver.mongoc_uri_get_database(m->uri) : NULL;
    enum pf_err e = PFE_WRONG_STATE;
    if (!m->uri)
        snprintf(ret_why, WHY, "MONGO_URL is not a URL that MongoDB knows: mongodb://USER:PASSWORD@HOST/DATABASE");
    else if (!str_copy(m->database, sizeof m->database, name ? str_c(name) : STR("payflow")))
        snprintf(ret_why, WHY, "MONGO_URL names a database of more than 63 bytes");
    else if (!settle_uri(m, o->timeout_ms ? o->timeout_ms : TIMEOUT_MS))
        snprintf(ret_why, WHY, "MONGO_URL holds options that go against ours");
    else
        e = PFE_OK;
    if (e == PFE_OK) {
        m->pool = driver.mongoc_client_pool_new_with_error(m->uri, &error);
        if (m->pool && driver.mongoc_client_pool_set_error_api(m->pool, MONGOC_ERROR_API_VERSION_2) &&
            ping(m, &error)) {
            *ret = &m->base;
            ret_why[0] = '\0';
            return PFE_OK;
        }
        e = error.domain == MONGOC_ERROR_CLIENT && error.code == MONGOC_ERROR_CLIENT_AUTHENTICATE ? PFE_WRONG_STATE
                                                                                                  : PFE_UNAVAILABLE;
        snprintf(ret_why, WHY, "MongoDB: %.200s", error.message);
    }
    mongo_close(&m->base);
    return e;
}
