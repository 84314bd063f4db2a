/* JSON bodies: json_parse agrees with a second reader of RFC 8259, keeps what it promises of its tree, and what
 * json_out writes of the tree is read as the same tree. */
#include "codec/json_in.h"
#include "codec/json_out.h"
#include "fuzz.h"

/* ---- a second reader, by recursive descent: is the text JSON by the rules of json_in.h, but for duplicate keys? ----
 */

struct reader {
    const char *p, *end;
};

static bool value_ok(struct reader *r, unsigned depth);

static void blanks(struct reader *r)
{
    while (r->p < r->end && strchr(" \t\r\n", *r->p) && *r->p)
        r->p++;
}

static bool eat(struct reader *r, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0)
        return false;
    r->p += n;
    return true;
}

static bool digits_ok(struct reader *r)
{
    const char *from = r->p;

    while (r->p < r->end && *r->p >= '0' && *r->p <= '9')
        r->p++;
    return r->p > from;
}

static bool number_ok(struct reader *r)
{
    eat(r, "-");
    if (!eat(r, "0") && !digits_ok(r))
        return false;
    if (eat(r, ".") && !digits_ok(r))
        return false;
    if (eat(r, "e") || eat(r, "E")) {
        if (!eat(r, "+"))
            eat(r, "-");
        return digits_ok(r);
    }
    return true;
}

static bool unit_ok(struct reader *r, unsigned *ret)
{
    char text[5] = {0}, *stop;

    if (r->end - r->p < 4)
        return false;
    memcpy(text, r->p, 4);
    if (strspn(text, "0123456789abcdefABCDEF") != 4)
        return false;
    r->p += 4;
    *ret = (unsigned)strtoul(text, &stop, 16);
    return true;
}

static bool escape_ok(struct reader *r)
{
    unsigned high, low;

    if (r->p == r->end || *r->p == '\0')
        return false;
    if (strchr("\"\\/bfnrt", *r->p)) {
        r->p++;
        return true;
    }
    if (!eat(r, "u") || !unit_ok(r, &high) || high == 0)
        return false;
    if (high < 0xD800 || high > 0xDFFF)
        return true;
    return high < 0xDC00 && eat(r, "\\u") && unit_ok(r, &low) && low >= 0xDC00 && low <= 0xDFFF;
}

static bool string_ok(struct reader *r)
{
    if (!eat(r, "\""))
        return false;
    while (r->p < r->end) {
        unsigned char c = (unsigned char)*r->p++;
        if (c == '"')
            return true;
        if (c < 0x20 || (c == '\\' && !escape_ok(r)))
            return false;
    }
    return false;
}

static bool members_ok(struct reader *r, bool object, unsigned depth)
{
    const char *close = object ? "}" : "]";

    if (depth == JSON_DEPTH_MAX)
        return false;
    blanks(r);
    if (eat(r, close))
        return true;
    do {
        blanks(r);
        if (object) {
            if (!string_ok(r))
                return false;
            blanks(r);
            if (!eat(r, ":"))
                return false;
        }
        if (!value_ok(r, depth + 1))
            return false;
    } while (eat(r, ","));
    return eat(r, close);
}

/* With the blanks around it. */
static bool value_ok(struct reader *r, unsigned depth)
{
    bool ok;

    blanks(r);
    if (r->p == r->end)
        return false;
    if (eat(r, "{"))
        ok = members_ok(r, true, depth);
    else if (eat(r, "["))
        ok = members_ok(r, false, depth);
    else if (*r->p == '"')
        ok = string_ok(r);
    else if (*r->p == '-' || (*r->p >= '0' && *r->p <= '9'))
        ok = number_ok(r);
    else
        ok = eat(r, "null") || eat(r, "true") || eat(r, "false");
    blanks(r);
    return ok;
}

static bool text_ok(struct str s)
{
    struct reader r = {s.p, s.p + s.n};

    return str_utf8_ok(s) && value_ok(&r, 0) && r.p == r.end;
}

/* ---- the tree ---- */

enum { COMPARED_KEYS = 64 /* with each of the members behind; more would make big objects slow */ };

static void check_string(struct str s)
{
    CHECK(str_utf8_ok(s));
    CHECK(s.n == 0 || !memchr(s.p, '\0', s.n));
}

static void check_tree(const struct json *v, const struct json *parent, unsigned depth)
{
    unsigned n = 0;

    CHECK(depth <= JSON_DEPTH_MAX + 1);
    CHECK(v->key.p == NULL || (parent && parent->type == JSON_OBJECT));
    check_string(v->key);
    if (v->type == JSON_STRING)
        check_string(v->s);
    if (v->type == JSON_NUMBER) {
        struct reader r = {v->s.p, v->s.p + v->s.n};
        CHECK(number_ok(&r) && r.p == r.end);
    }
    CHECK(v->type == JSON_ARRAY || v->type == JSON_OBJECT || !v->child);
    for (const struct json *c = v->child; c; c = c->next, n++) {
        check_tree(c, v, depth + 1);
        if (v->type == JSON_OBJECT && n < COMPARED_KEYS)
            for (const struct json *d = c->next; d; d = d->next)
                CHECK(!str_eq(c->key, d->key));
    }
    CHECK(n == v->n);
}

static void write_tree(struct jw *w, const struct json *v)
{
    switch (v->type) {
    case JSON_NULL:
        jw_null(w);
        break;
    case JSON_FALSE:
    case JSON_TRUE:
        jw_bool(w, v->type == JSON_TRUE);
        break;
    case JSON_NUMBER:
        jw_raw(w, v->s);
        break;
    case JSON_STRING:
        jw_str(w, v->s);
        break;
    case JSON_ARRAY:
        jw_arr(w);
        for (const struct json *c = v->child; c; c = c->next)
            write_tree(w, c);
        jw_end_arr(w);
        break;
    case JSON_OBJECT:
        jw_obj(w);
        for (const struct json *c = v->child; c; c = c->next) {
            jw_key_str(w, c->key);
            write_tree(w, c);
        }
        jw_end_obj(w);
        break;
    }
}

static void check_equal(const struct json *a, const struct json *b)
{
    CHECK(a->type == b->type && a->n == b->n);
    CHECK(str_eq(a->s, b->s) && str_eq(a->key, b->key));
    for (a = a->child, b = b->child; a && b; a = a->next, b = b->next)
        check_equal(a, b);
    CHECK(!a && !b);
}

static void check_rewritten(const struct json *tree)
{
    struct arena arena;
    struct buf out;
    struct jw w;
    struct json *again;

    buf_init(&out, 0);
    jw_init(&w, &out);
    write_tree(&w, tree);
    CHECK(!out.failed);
    arena_init(&arena, NULL, 0, SIZE_MAX);
    CHECK(json_parse(&arena, buf_as_str(&out), &again, NULL) == PFE_OK);
    check_equal(tree, again);
    arena_reset(&arena);
    buf_free(&out);
}

/* Whatever memory there is, the answer is the same or PFE_NOMEM, and a refusal gives all of it back. */
static void check_bounded(struct str text, enum pf_err expect, size_t limit)
{
    struct arena arena;
    struct json *tree;
    enum pf_err e;

    arena_init(&arena, NULL, 0, limit);
    e = json_parse(&arena, text, &tree, NULL);
    CHECK(e == expect || e == PFE_NOMEM);
    CHECK(e == PFE_OK || arena.used == 0);
    arena_reset(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str text = {(const char *)data, n};
    struct arena arena;
    struct problem p = {0};
    struct json *tree = NULL;
    enum pf_err e;

    arena_init(&arena, NULL, 0, SIZE_MAX);
    e = json_parse(&arena, text, &tree, &p);
    if (e == PFE_OK) {
        CHECK(text_ok(text));
        check_tree(tree, NULL, 1);
        check_rewritten(tree);
        check_bounded(text, e, n % 7 * arena.used / 7);
    } else {
        CHECK(e == PFE_BAD_JSON && p.code == e && p.detail[0] && !tree);
        CHECK(!text_ok(text) || strstr(p.detail, "duplicate key"));
        CHECK(arena.used == 0);
        check_bounded(text, e, 2000 + n);
    }
    arena_reset(&arena);
    return 0;
}
