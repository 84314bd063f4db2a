#include "app/events.h"

#include "app/internal.h"
#include "base/log.h"
#include "codec/uuid.h"

enum { CHUNK = 16, NUMBER_MAX = 64, EXPONENT_MAX = 3 };

/* ---- folding ---- */

static uint32_t lower(uint32_t c)
{
    if (c == 0x130 || c == 0x131)
        return 'i';
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 0x20 : c;
    if (c >= 0xc0 && c <= 0xde)
        return c == 0xd7 ? c : c + 0x20;
    if ((c >= 0x100 && c <= 0x137) || (c >= 0x14a && c <= 0x177))
        return c | 1;
    if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e))
        return c % 2 ? c + 1 : c;
    if (c == 0x178)
        return 0xff;
    if (c >= 0x391 && c <= 0x3a9)
        return c == 0x3a2 ? c : c + 0x20;
    if (c >= 0x400 && c <= 0x40f)
        return c + 0x50;
    return c >= 0x410 && c <= 0x42f ? c + 0x20 : c;
}

size_t app_event_fold(struct str s, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        unsigned char b = (unsigned char)s.p[i];
        if (b >= 0xc0 && b < 0xe0 && i + 1 < s.n) { /* what is written in two bytes stays so, or becomes an i */
            uint32_t c = lower((uint32_t)(b & 0x1f) << 6 | ((unsigned char)s.p[i + 1] & 0x3f));
            if (c >= 0x80)
                out[n++] = (char)(0xc0 | c >> 6);
            out[n++] = (char)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
            i += 2;
        } else {
            out[n++] = (char)(b < 0x80 ? lower(b) : b);
            i++;
        }
    }
    return n;
}

/* ---- making one ---- */

static bool number_ok(struct str s)
{
    size_t e = 0;
    while (e < s.n && s.p[e] != 'e' && s.p[e] != 'E')
        e++;
    size_t digits = e < s.n ? s.n - e - 1 : 0;
    if (digits && (s.p[e + 1] == '+' || s.p[e + 1] == '-'))
        digits--;
    return s.n <= NUMBER_MAX && digits <= EXPONENT_MAX;
}

/* top: the outermost member that it is in. */
static bool numbers_ok(const struct json *v, struct str top, struct problem *p)
{
    if (v->type == JSON_NUMBER && !number_ok(v->s)) {
        char name[sizeof p->fields[0].name];
        if (!str_copy(name, sizeof name, top))
            name[0] = '\0';
        problem_field(p, "body", name, "range", "numbers must have at most %d characters, and exponents %d digits",
                      NUMBER_MAX, EXPONENT_MAX);
        return false;
    }
    for (const struct json *k = v->child; k; k = k->next)
        if (!numbers_ok(k, top.p ? top : k->key, p))
            return false;
    return true;
}

static void check(const struct event_new *in, int64_t now, struct problem *p)
{
    if (in->title.n < 1 || in->title.n > EVENT_TEXT_MAX)
        problem_field(p, "body", "title", "length", "must have 1 to %d bytes", EVENT_TEXT_MAX);
    if (in->location.n < 1 || in->location.n > EVENT_TEXT_MAX)
        problem_field(p, "body", "location", "length", "must have 1 to %d bytes", EVENT_TEXT_MAX);
    if (in->body.n > DOCUMENT_BODY_MAX)
        problem_field(p, "body", "", "length", "must have at most %d bytes", DOCUMENT_BODY_MAX);
    if (!in->stock.starts_us)
        problem_field(p, "body", "date", "missing", "is required");
    (void)numbers_ok(in->json, STR_NONE, p);
    enum pf_err e = ticket_event_check(&in->stock, now, p);
    if (e != PFE_OK && p->code == PFE_OK)
        problem_set(p, e, "%s", "");
}

enum pf_err app_event_publish(struct app *a, const struct caller *c, const struct event_new *in, struct app_idem *idem,
                              app_event_render render, void *ctx, struct ticket_event *ret, struct problem *p)
{
    char search[2 * EVENT_TEXT_MAX + 1];
    int64_t now = app_now(a);
    struct ticket_event stock = {.capacity = in->stock.capacity,
                                 .price = in->stock.price,
                                 .currency = in->stock.currency,
                                 .starts_us = in->stock.starts_us};
    if (a->cfg.dev && stock.starts_us)
        stock.starts_us += EVENT_DEV_US;
    struct event_new all = *in;
    all.stock = stock;
    check(&all, now, p);
    if (p->code != PFE_OK)
        return p->code;
    if (!a->d.documents)
        return problem_set(p, PFE_UNAVAILABLE, "there is no store of events");
    struct uuid id = uuid_v7(now);
    memcpy(stock.uuid, id.b, sizeof stock.uuid);
    size_t n = app_event_fold(in->title, search);
    search[n++] = '\n';
    n += app_event_fold(in->location, search + n);
    struct document doc = {.created_us = now, .date_us = in->stock.starts_us, .search = {search, n}, .body = in->body};
    memcpy(doc.id, id.b, sizeof doc.id);
    enum pf_err e = documents_insert(a->d.documents, &doc);
    if (e != PFE_OK)
        return problem_set(p, e, "%s", "");
    e = app_event_create(a, c, &stock, idem, render, ctx, ret, p);
    /* not where the outcome is unknown: there may be stock that needs it */
    if (e != PFE_OK && e != PFE_INTERNAL && documents_remove(a->d.documents, doc.id) != PFE_OK)
        log_msg(LOG_WARN, "a document without stock is left behind", LOG_S("why", err_info(e)->slug));
    return e;
}

/* ---- reading ---- */

enum pf_err app_event_show(struct app *a, struct arena *arena, const uint8_t uuid[16], struct app_event *ret)
{
    struct app_event e;
    struct document doc;
    if (!a->d.documents)
        return PFE_UNAVAILABLE;
    enum pf_err err = app_event_get(a, uuid, &e.stock);
    if (err == PFE_OK)
        err = documents_get(a->d.documents, arena, uuid, &doc);
    if (err != PFE_OK)
        return err;
    e.body = doc.body;
    *ret = e;
    return PFE_OK;
}

/* Documents in slices, for large ones must not fill the memory. n of them, of which the last may be one too many. */
static enum pf_err gather(struct app *a, struct arena *arena, struct documents_query *q, unsigned limit,
                          struct document *out, unsigned *ret_n, bool *ret_more)
{
    size_t bytes = 0;
    unsigned n = 0;
    *ret_more = false;
    while (n <= limit) {
        unsigned got = 0;
        q->limit = limit + 1 - n < CHUNK ? limit + 1 - n : CHUNK;
        enum pf_err e = documents_list(a->d.documents, arena, q, out + n, &got);
        if (e != PFE_OK)
            return e;
        for (unsigned i = 0; i < got; i++)
            bytes += out[n + i].body.n;
        n += got;
        if (got < q->limit)
            break;
        if (n <= limit && bytes > EVENTS_PAGE_BYTES) {
            *ret_more = true;
            break;
        }
        q->before = out[n - 1].id;
        q->offset = 0;
    }
    *ret_more |= n > limit;
    *ret_n = n < limit ? n : limit;
    return PFE_OK;
}

static enum pf_err with_stock(struct app *a, struct arena *arena, const struct document *docs, unsigned n,
                              struct event_page *ret)
{
    struct store_ref *refs = arena_zalloc(arena, n * sizeof *refs);
    struct ticket_event *stock = arena_alloc(arena, n * sizeof *stock);
    ret->events = arena_alloc(arena, n * sizeof *ret->events);
    if (!refs || !stock || !ret->events)
        return PFE_NOMEM;
    for (unsigned i = 0; i < n; i++)
        memcpy(refs[i].uuid, docs[i].id, sizeof refs[i].uuid);
    enum pf_err e = n ? app_events_get(a, refs, n, stock) : PFE_OK;
    for (unsigned i = 0; e == PFE_OK && i < n; i++)
        if (stock[i].id)
            ret->events[ret->n++] = (struct app_event){stock[i], docs[i].body};
    return e;
}

enum pf_err app_events_page(struct app *a, struct arena *arena, const struct event_query *in, struct event_page *ret)
{
    struct document *docs = arena_alloc(arena, (in->limit + 1) * sizeof *docs);
    char *text = arena_alloc(arena, in->text.n);
    struct event_page page = {0};
    struct documents_query q = {.before = in->before,
                                .from_us = in->from_us,
                                .to_us = in->to_us,
                                .fields = in->fields,
                                .n_fields = in->n_fields,
                                .offset = in->offset};
    unsigned n = 0;
    if (!docs || !text)
        return PFE_NOMEM;
    if (!a->d.documents)
        return PFE_UNAVAILABLE;
    q.text = (struct str){text, app_event_fold(in->text, text)};
    if (in->upcoming && q.from_us < app_now(a))
        q.from_us = app_now(a);
    enum pf_err e = gather(a, arena, &q, in->limit, docs, &n, &page.more);
    if (e == PFE_OK)
        e = with_stock(a, arena, docs, n, &page);
    if (e != PFE_OK)
        return e;
    if (n)
        memcpy(page.cursor, docs[n - 1].id, sizeof page.cursor);
    *ret = page;
    return PFE_OK;
}
