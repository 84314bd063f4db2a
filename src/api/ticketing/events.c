/* Ticketing: events. */
#include "api/ticketing/ticketing.h"

#include "codec/crypt.h"
#include "codec/decimal.h"
#include "codec/uuid.h"

bool ticketing_id(struct api_call *c, uint8_t ret[16], const char *words)
{
    struct uuid id;
    if (!uuid_parse(c->r->params[0], &id)) {
        api_fail(c, PFE_NOT_FOUND, words);
        return false;
    }
    memcpy(ret, id.b, sizeof id.b);
    return true;
}

/* ---- an event's shape: its own members as they were given, and ours ---- */

/* Where the JSON value at p ends. The text has been through the parser, so that it needs no checks. */
static const char *value_end(const char *p, const char *end)
{
    unsigned depth = 0;
    bool quoted = false;
    for (; p < end; p++) {
        if (quoted && *p == '\\')
            p++;
        else if (*p == '"')
            quoted = !quoted;
        else if (!quoted && (*p == '{' || *p == '['))
            depth++;
        else if (!quoted && depth && (*p == '}' || *p == ']'))
            depth--;
        else if (!quoted && !depth && (*p == ',' || *p == '}'))
            break;
    }
    return p;
}

static const char *string_end(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        if (*p == '\\')
            p++;
    return p < end ? p + 1 : end;
}

static const char *skip(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p;
}

/* Is it one that we say? */
static bool ours(struct str name, bool priced)
{
    static const char *const names[] = {"id",         "organiser_id", "available_tickets", "status",
                                        "created_at", "price",        "currency"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0] - (priced ? 0 : 2); i++)
        if (str_is(name, names[i]))
            return true;
    return false;
}

/* A member's name, of the text with its quotes and perhaps with escapes. false: out of memory. */
static bool name_of(struct arena *arena, struct str quoted, struct str *ret)
{
    struct json *text;
    *ret = (struct str){quoted.p + 1, quoted.n - 2};
    if (!ret->n || !memchr(ret->p, '\\', ret->n))
        return true;
    if (json_parse(arena, quoted, &text, NULL) != PFE_OK)
        return false;
    *ret = text->s;
    return true;
}

static void write_own(struct jw *w, struct arena *arena, struct str body, bool priced)
{
    const char *end = body.p + body.n, *p = skip(body.p, end) + 1; /* behind the { */
    while ((p = skip(p, end)) < end && *p == '"') {
        const char *name_end = string_end(p, end);
        const char *value = skip(skip(name_end, end) + 1, end);
        const char *after = value_end(value, end);
        struct arena_mark mark = arena_mark(arena);
        struct str name;
        if (!name_of(arena, (struct str){p, (size_t)(name_end - p)}, &name)) {
            w->b->failed = true;
            return;
        }
        if (!ours(name, priced)) {
            jw_key_str(w, name);
            jw_raw(w, str_trim((struct str){value, (size_t)(after - value)}));
        }
        arena_rewind(arena, mark);
        p = after < end && *after == ',' ? after + 1 : end;
    }
}

static void write_event(struct jw *w, struct arena *arena, const struct ticket_event *e, struct str body)
{
    jw_obj(w);
    dto_uuid(w, "id", e->uuid);
    write_own(w, arena, body, e->price > 0);
    if (e->price > 0) {
        jw_kamount(w, "price", e->price, api_scale(e->currency));
        jw_kstr(w, "currency", api_code(e->currency));
    }
    jw_kint(w, "available_tickets", e->status == TICKET_EVENT_OPEN ? ticket_free(e) : 0);
    jw_kz(w, "status", e->status == TICKET_EVENT_OPEN ? "OPEN" : "CANCELLED");
    if (e->organiser)
        jw_kint(w, "organiser_id", e->organiser);
    else
        jw_knull(w, "organiser_id");
    jw_ktime(w, "created_at", e->created_us);
    jw_end_obj(w);
}

/* ---- making, showing, cancelling one ---- */

static void render_created(void *ctx, const struct ticket_event *e, struct app_idem *idem)
{
    struct api_call *c = ctx;
    struct jw w = api_out(c);
    write_event(&w, &c->r->arena, e, c->r->body);
    idem->status = c->r->out.failed ? 0 : 201;
    idem->body = buf_as_str(&c->r->out);
}

enum api_step ticketing_event_create(struct api_call *c)
{
    const struct api_value *v = c->body;
    struct event_new in = {.body = c->r->body,
                           .json = c->json,
                           .title = v[0].s,
                           .location = v[1].s,
                           .stock = {.starts_us = v[2].i, .capacity = v[3].i, .currency = api_currency(c, &v[5])}};
    struct ticket_event e;
    int64_t price;
    if (v[4].set && decimal_parse(v[4].s, api_scale(in.stock.currency), &price) != DECIMAL_ZERO &&
        !api_amount(&c->p, "body", "price", v[4].s, in.stock.currency, &in.stock.price))
        return API_DONE;
    if (app_event_publish(c->app, &c->caller, &in, &c->idem, render_created, c, &e, &c->p) != PFE_OK)
        return API_DONE;
    if (c->r->out.n == 0)
        render_created(c, &e, &(struct app_idem){0});
    return api_ok(c, 201);
}

enum api_step ticketing_event_get(struct api_call *c)
{
    static const char none[] = "there is no such event";
    uint8_t id[16];
    struct app_event e;
    enum api_step step;
    if (!ticketing_id(c, id, none))
        return API_DONE;
    if (api_failed(c, app_event_show(c->app, &c->r->arena, id, &e), none, &step))
        return step;
    struct jw w = api_out(c);
    write_event(&w, &c->r->arena, &e.stock, e.body);
    return api_ok(c, 200);
}

enum api_step ticketing_event_cancel(struct api_call *c)
{
    uint8_t id[16];
    struct ticket_event stock;
    if (!ticketing_id(c, id, "there is no such event"))
        return API_DONE;
    if (app_event_cancel(c->app, &c->caller, id, &stock, &c->p) != PFE_OK)
        return API_DONE;
    return ticketing_event_get(c);
}

/* ---- the list ---- */

static bool bad(struct api_call *c, const char *name, const char *type, const char *words)
{
    problem_field(&c->p, "query", name, type, "%s", words);
    return false;
}

static bool known(struct str name)
{
    for (const struct api_field *f = ticketing_events_query; f->name; f++)
        if (str_is(name, f->name))
            return true;
    return false;
}

/* The parameters that are not ours ask for members of the documents. */
static bool read_fields(struct api_call *c, struct documents_field out[DOCUMENTS_FIELDS_MAX], unsigned *ret_n)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    for (unsigned i = 0; i < c->r->n_query; i++) {
        struct str name = c->r->query[i].name, text = c->r->query[i].value;
        char shown[DOCUMENTS_FIELD_NAME_MAX + 1], shortest[24];
        if (known(name))
            continue;
        bool ok = str_copy(shown, sizeof shown, name) && name.n > 0 && strspn(shown, letters) == name.n;
        if (!ok)
            return bad(c, "", "name", "names of members have 1 to 64 letters, digits, _ and -");
        if (ours(name, true))
            return bad(c, shown, "name", "is the server's own member: events are not looked for by it");
        if (text.n > DOCUMENTS_FIELD_TEXT_MAX)
            return bad(c, shown, "length", "must be at most 256 bytes");
        if (*ret_n == DOCUMENTS_FIELDS_MAX)
            return bad(c, shown, "number", "at most 4 members can be asked for");
        struct documents_field *f = &out[(*ret_n)++];
        *f = (struct documents_field){.name = name, .text = text};
        if (str_to_i64(text, &f->number)) {
            decimal_format(f->number, 0, shortest);
            f->is_number = str_is(text, shortest);
        }
    }
    return true;
}

static bool read_cursor(struct api_call *c, uint8_t id[16])
{
    char raw[48];
    size_t n;
    if (!b64url_decode(c->query[EV_CURSOR].s, raw, sizeof raw, &n) || n != 18 || memcmp(raw, "e:", 2) != 0)
        return bad(c, "cursor", "format", "must be a next_cursor of an earlier page");
    memcpy(id, raw + 2, 16);
    return true;
}

static bool read_page(struct api_call *c, struct event_query *q, int64_t *ret_page)
{
    const struct api_value *v = c->query;
    unsigned ways = (v[EV_PAGE].set ? 1u : 0) + (v[EV_OFFSET].set ? 1 : 0) + (v[EV_CURSOR].set ? 1 : 0);
    q->limit = v[EV_LIMIT].set ? (unsigned)v[EV_LIMIT].i : 20;
    if (ways > 1)
        return bad(c, "page", "value", "of page, offset and cursor, give one");
    q->offset = v[EV_PAGE].set ? (v[EV_PAGE].i - 1) * q->limit : v[EV_OFFSET].set ? v[EV_OFFSET].i : 0;
    *ret_page = v[EV_PAGE].set ? v[EV_PAGE].i : q->offset / q->limit + 1;
    return true;
}

enum api_step ticketing_event_list(struct api_call *c)
{
    struct documents_field fields[DOCUMENTS_FIELDS_MAX];
    const struct api_value *v = c->query;
    struct event_query q = {.from_us = v[EV_FROM].i, .to_us = v[EV_TO].i, .text = v[EV_TEXT].s, .fields = fields};
    struct event_page page;
    uint8_t before[16];
    int64_t number;
    enum api_step step;
    q.upcoming = v[EV_UPCOMING].set && str_is(v[EV_UPCOMING].s, "true");
    if (!read_page(c, &q, &number) || !read_fields(c, fields, &q.n_fields))
        return API_DONE;
    if (v[EV_CURSOR].set) {
        if (!read_cursor(c, before))
            return API_DONE;
        q.before = before;
    }
    if (api_failed(c, app_events_page(c->app, &c->r->arena, &q, &page), "", &step))
        return step;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_key(&w, "data");
    jw_arr(&w);
    for (unsigned i = 0; i < page.n; i++)
        write_event(&w, &c->r->arena, &page.events[i].stock, page.events[i].body);
    jw_end_arr(&w);
    jw_kint(&w, "page", number);
    jw_kint(&w, "limit", q.limit);
    jw_kint(&w, "offset", q.offset);
    jw_kbool(&w, "has_more", page.more);
    if (page.more) {
        char plain[18] = "e:", text[64];
        memcpy(plain + 2, page.cursor, 16);
        b64url_encode(plain, sizeof plain, text);
        jw_kz(&w, "next_cursor", text);
    } else {
        jw_knull(&w, "next_cursor");
    }
    jw_end_obj(&w);
    return api_ok(c, 200);
}
