/* From JSON and query strings to values, by the fields of the route's row. */
#include "api/call.h"

#include "base/clock.h"
#include "codec/crypt.h"
#include "codec/decimal.h"
#include "domain/identity/identity.h"
#include "domain/money/money.h"

money_currency api_currency(const struct api_call *c, const struct api_value *v)
{
    return v->set ? (money_currency)v->i : app_default_currency(c->app);
}

bool api_amount(struct problem *p, const char *in, const char *name, struct str digits, money_currency currency,
                int64_t *ret)
{
    unsigned scale = api_scale(currency);
    enum decimal_err e = decimal_parse(digits, scale, ret);
    if (e == DECIMAL_OK)
        return true;
    static const char *const types[] = {[DECIMAL_SYNTAX] = "format",
                                        [DECIMAL_SCALE] = "decimals",
                                        [DECIMAL_ZERO] = "range",
                                        [DECIMAL_NEGATIVE] = "range",
                                        [DECIMAL_RANGE] = "range"};
    problem_field(p, in, name, types[e], "%s", decimal_reason(e, scale));
    return false;
}

static bool wrong(struct api_call *c, const char *in, const char *name, const char *type, const char *msg)
{
    problem_field(&c->p, in, name, type, "%s", msg);
    return false;
}

static bool one_of(const char *values, struct str s)
{
    while (*values) {
        const char *end = strchrnul(values, '|');
        if (str_eq(s, (struct str){values, (size_t)(end - values)}))
            return true;
        values = *end ? end + 1 : end;
    }
    return false;
}

static bool decode_user(struct api_call *c, struct str ref, const char *in, const char *name, struct api_value *ret,
                        bool *blocked)
{
    enum pf_err e = app_user_ref(c->app, ref, c->may_block, &ret->i);
    if (e == PFE_OK)
        return true;
    if (e == PFE_BUSY && !c->may_block) {
        *blocked = true;
        return true;
    }
    if (e == PFE_NOT_FOUND) { /* well-formed, of nobody: the caller's right is judged first, then it is a 404 */
        ret->i = INT64_MAX >> 10;
        return true;
    }
    return wrong(c, in, name, "format", "must be a user's number or UUID");
}

/* What a text says, wherever it came from. */
static bool decode_text(struct api_call *c, const struct api_field *f, struct str s, const char *in, const char *name,
                        struct api_value *ret, bool *blocked)
{
    const struct money_currency_info *ci;
    switch (f->type) {
    case F_TEXT:
    case F_BUYER:
        if (f->values && !one_of(f->values, s)) {
            problem_field(&c->p, in, name, "value", "must be one of %s", f->values);
            return false;
        }
        if (f->max && s.n > (size_t)f->max) {
            problem_field(&c->p, in, name, "length", "must be at most %lld bytes", (long long)f->max);
            return false;
        }
        if (s.n < (size_t)f->min)
            return wrong(c, in, name, "length", "must not be empty");
        ret->s = s;
        return true;
    case F_TIME:
        return time_parse(s, &ret->i) ||
               wrong(c, in, name, "format", "must be an RFC 3339 time such as 2026-01-31T09:00:00Z");
    case F_CURRENCY:
        ci = money_by_code(s);
        if (!ci)
            return wrong(c, in, name, "value", "must be an ISO 4217 currency code such as USD");
        ret->i = ci->num;
        return true;
    case F_USER:
        return decode_user(c, s, in, name, ret, blocked);
    case F_AMOUNT:
        ret->s = s;
        return true;
    case F_USERNAME:
        ret->s = s;
        return ident_username_ok(s, &c->p);
    case F_EMAIL:
        ret->s = s;
        return ident_email_ok(s, &c->p);
    case F_PASSWORD:
        ret->s = s;
        return ident_password_ok(s, app_password_min(c->app), &c->p);
    default:
        return wrong(c, in, name, "type", "has the wrong type");
    }
}

static bool decode_int(struct api_call *c, const struct api_field *f, struct str s, const char *in, const char *name,
                       struct api_value *ret)
{
    if (!str_to_i64(s, &ret->i))
        return wrong(c, in, name, "type", "must be an integer");
    if (f->max && (ret->i < f->min || ret->i > f->max)) {
        problem_field(&c->p, in, name, "range", "must be from %lld to %lld", (long long)f->min, (long long)f->max);
        return false;
    }
    return true;
}

bool api_decode(struct api_call *c, const struct api_field *f, const struct json *v, const char *in, const char *name,
                struct api_value *ret, bool *blocked)
{
    static const char *const expected[] = {[F_TEXT] = "must be a string",
                                           [F_INT] = "must be an integer",
                                           [F_BOOL] = "must be true or false",
                                           [F_AMOUNT] = "must be a number or a string",
                                           [F_USER] = "must be a user's number or UUID",
                                           [F_TIME] = "must be an RFC 3339 time such as 2026-01-31T09:00:00Z",
                                           [F_CURRENCY] = "must be an ISO 4217 currency code such as USD",
                                           [F_ARRAY] = "must be an array",
                                           [F_USERNAME] = "must be a string",
                                           [F_EMAIL] = "must be a string",
                                           [F_PASSWORD] = "must be a string",
                                           [F_BUYER] = "must be a user's number, UUID or name, or a guest's name"};
    *ret = (struct api_value){0};
    if (!v || v->type == JSON_NULL)
        return !f->required || wrong(c, in, name, "missing", "is required");
    ret->set = true;
    if (v->type == JSON_STRING && f->type != F_INT && f->type != F_BOOL && f->type != F_ARRAY)
        return decode_text(c, f, v->s, in, name, ret, blocked);
    if (v->type == JSON_NUMBER && f->type == F_INT)
        return decode_int(c, f, v->s, in, name, ret);
    if (v->type == JSON_NUMBER && f->type == F_AMOUNT) {
        ret->s = v->s;
        return true;
    }
    if (v->type == JSON_NUMBER && f->type == F_USER)
        return decode_user(c, v->s, in, name, ret, blocked);
    if (v->type == JSON_NUMBER && f->type == F_BUYER && str_to_i64(v->s, &ret->i) && ret->i > 0) {
        *ret = (struct api_value){.set = true, .i = true, .s = v->s};
        return true;
    }
    if ((v->type == JSON_TRUE || v->type == JSON_FALSE) && f->type == F_BOOL) {
        ret->i = v->type == JSON_TRUE;
        return true;
    }
    if (v->type == JSON_ARRAY && f->type == F_ARRAY) {
        ret->json = v;
        return true;
    }
    return wrong(c, in, name, "type", expected[f->type]);
}

static bool decode_query(struct api_call *c, const struct api_field *f, struct api_value *ret, bool *blocked)
{
    struct str s = http_query(c->r, f->name);
    *ret = (struct api_value){0};
    if (!s.p || (s.n == 0 && !f->required))
        return !f->required || wrong(c, "query", f->name, "missing", "is required");
    ret->set = true;
    if (f->type == F_INT)
        return decode_int(c, f, s, "query", f->name, ret);
    return decode_text(c, f, s, "query", f->name, ret, blocked);
}

enum api_step api_decode_all(struct api_call *c)
{
    bool blocked = false, ok = true;
    if (c->route->body) {
        if (c->r->body.n && !c->json) {
            struct json *body;
            enum pf_err e = json_parse(&c->r->arena, c->r->body, &body, &c->p);
            if (e != PFE_OK)
                return c->p.code == PFE_OK ? api_fail(c, e, "") : API_DONE;
            if (body->type != JSON_OBJECT) {
                problem_field(&c->p, "body", "", "type", "must be a JSON object");
                return API_DONE;
            }
            c->json = body;
        }
        for (unsigned i = 0; c->route->body[i].name; i++) {
            const struct api_field *f = &c->route->body[i];
            ok &= api_decode(c, f, json_get(c->json, f->name), "body", f->name, &c->body[i], &blocked);
        }
    }
    if (c->route->query)
        for (unsigned i = 0; c->route->query[i].name; i++)
            ok &= decode_query(c, &c->route->query[i], &c->query[i], &blocked);
    return ok && blocked ? API_BLOCK : API_DONE;
}

/* ---- pages ---- */

bool api_page(struct api_call *c, unsigned at, struct api_page *ret)
{
    const struct api_value *v = &c->query[at];
    *ret = (struct api_page){.limit = v[0].set ? (unsigned)v[0].i : 20, .offset = v[1].set ? v[1].i : 0};
    if (!v[2].set)
        return true;
    char text[48];
    size_t n;
    if (b64url_decode(v[2].s, text, sizeof text, &n) && n > 2 && text[0] == 'c' && text[1] == ':' &&
        str_to_i64((struct str){text + 2, n - 2}, &ret->cursor) && ret->cursor > 0)
        return true;
    return wrong(c, "query", "cursor", "format", "must be a next_cursor of an earlier page");
}

void api_page_end(struct jw *w, const struct api_page *p, int64_t next)
{
    jw_end_arr(w);
    jw_kint(w, "limit", p->limit);
    jw_kint(w, "offset", p->offset);
    jw_kbool(w, "has_more", next != 0);
    if (next) {
        char plain[2 + STR_U64_MAX] = "c:", text[64];
        b64url_encode(plain, 2 + str_from_u64((uint64_t)next, plain + 2), text);
        jw_kz(w, "next_cursor", text);
    } else {
        jw_knull(w, "next_cursor");
    }
    jw_end_obj(w);
}
