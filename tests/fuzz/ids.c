/* Ids: UUIDs, user references ("17" or a UUID), cursors of pages, base64url and hexadecimal. */
#include "api/call.h"
#include "codec/crypt.h"
#include "codec/uuid.h"
#include "fuzz.h"

enum { TEXT_MAX = 4096 };

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool uuid_looks(struct str s)
{
    if (s.n != UUID_TEXT_LEN)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (i == 8 || i == 13 || i == 18 || i == 23 ? s.p[i] != '-' : !is_hex(s.p[i]))
            return false;
    return true;
}

static bool check_uuid(struct str s)
{
    struct uuid u, again;
    char text[UUID_TEXT_LEN + 1];
    bool ok = uuid_parse(s, &u);

    CHECK(ok == uuid_looks(s));
    if (ok) {
        uuid_format(&u, text);
        CHECK(strlen(text) == UUID_TEXT_LEN && str_eq_nocase(str_c(text), s));
        for (const char *p = text; *p; p++)
            CHECK(*p < 'A' || *p > 'F');
        CHECK(uuid_parse(str_c(text), &again) && uuid_eq(&u, &again));
        CHECK(uuid_seq(&u) >= 0 && uuid_seq(&u) < INT64_C(1) << 46);
    }
    return ok;
}

/* -?[0-9]+ within int64 */
static bool number(struct str s, int64_t *ret)
{
    bool negative = s.n && s.p[0] == '-';
    __int128 v = 0;

    if (s.n == negative)
        return false;
    for (size_t i = negative; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        if (v <= UINT64_MAX)
            v = v * 10 + (s.p[i] - '0');
    }
    v = negative ? -v : v;
    *ret = (int64_t)v;
    return v >= INT64_MIN && v <= INT64_MAX;
}

/* Without leave to block it never looks at the app: a UUID is PFE_BUSY. */
static void check_user_ref(struct str s, bool is_uuid)
{
    int64_t id = -7, v;
    enum pf_err e = app_user_ref(NULL, s, false, &id);

    if (number(s, &v))
        CHECK(v > 0 ? e == PFE_OK && id == v : e == PFE_NOT_FOUND);
    else
        CHECK(e == (is_uuid ? PFE_BUSY : PFE_INVALID));
    CHECK(e == PFE_OK || id == -7);
}

static bool read_cursor(struct str s, struct api_page *ret)
{
    static struct api_call call; /* too large for the stack */

    call.p = (struct problem){0};
    call.query[2] = (struct api_value){.set = true, .s = s};
    bool ok = api_page(&call, 0, ret);
    CHECK(ok ? ret->cursor > 0 && call.p.n_fields == 0 : call.p.code == PFE_INVALID && call.p.n_fields == 1);
    return ok;
}

/* The next_cursor of a page that ends before this. */
static void check_cursor_written(int64_t next, struct str expect)
{
    struct api_page page = {.limit = 20}, again;
    struct arena arena;
    struct json *tree;
    const struct json *cursor;
    struct buf out;
    struct jw w;

    buf_init(&out, 0);
    jw_init(&w, &out);
    jw_obj(&w);
    jw_key(&w, "data");
    jw_arr(&w);
    api_page_end(&w, &page, next);
    CHECK(!out.failed);
    arena_init(&arena, NULL, 0, SIZE_MAX);
    CHECK(json_parse(&arena, buf_as_str(&out), &tree, NULL) == PFE_OK);
    cursor = json_get(tree, "next_cursor");
    CHECK(cursor && cursor->type == JSON_STRING);
    CHECK(read_cursor(cursor->s, &again) && again.cursor == next);
    /* a cursor may be written in more ways than ours only by leading zeros */
    CHECK(expect.n == 0 || expect.n > cursor->s.n || str_eq(expect, cursor->s));
    arena_reset(&arena);
    buf_free(&out);
}

static void check_encodings(struct str s)
{
    char text[TEXT_MAX * 2 + 1];
    uint8_t *bytes = malloc(s.n); /* exactly as large as the longest answer that fits */
    size_t n = 0, len;

    CHECK(bytes);
    len = b64url_encode(s.p, s.n, text);
    CHECK(len == (s.n * 4 + 2) / 3 && text[len] == '\0');
    CHECK(b64url_decode((struct str){text, len}, bytes, s.n, &n) && n == s.n && memcmp(bytes, s.p, n) == 0);
    CHECK(s.n == 0 || !b64url_decode((struct str){text, len}, bytes, s.n - 1, &n));
    if (b64url_decode(s, bytes, s.n, &n)) {
        len = b64url_encode(bytes, n, text);
        CHECK(str_eq((struct str){text, len}, s));
    }
    hex_encode(s.p, s.n, text);
    CHECK(hex_decode(str_c(text), bytes, s.n, &n) && n == s.n && memcmp(bytes, s.p, n) == 0);
    if (hex_decode(s, bytes, s.n, &n)) {
        hex_encode(bytes, n, text);
        CHECK(str_eq_nocase(str_c(text), s));
    }
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str s = {(const char *)data, n};
    struct api_page page;
    int64_t next;

    if (n > TEXT_MAX)
        return 0;
    check_user_ref(s, check_uuid(s));
    check_encodings(s);
    if (read_cursor(s, &page))
        check_cursor_written(page.cursor, s);
    next = (int64_t)(fuzz_take(&s, 8) & INT64_MAX);
    if (next)
        check_cursor_written(next, STR_NONE);
    return 0;
}
