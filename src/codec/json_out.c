#include "codec/json_out.h"

#include "base/clock.h"
#include "codec/decimal.h"

enum { DEPTH_MAX = 63 };

/* What stands after the backslash for each byte that is not written as it is; 'u': \u00XX. 'L' is the first byte of
   U+2028 and U+2029 (and of other characters, which pass): legal in JSON, but line ends in older JavaScript. */
static const char escapes[256] = {'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b',         't',           'n',         'u',
                                  'f', 'r', 'u', 'u', 'u', 'u', 'u', 'u', 'u',         'u',           'u',         'u',
                                  'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', ['"'] = '"', ['\\'] = '\\', [0xE2] = 'L'};

void jw_init(struct jw *w, struct buf *b)
{
    *w = (struct jw){.b = b};
}

/* The comma before a value or key, unless it is the first of its level or follows its key. */
static void separate(struct jw *w)
{
    uint64_t bit = (uint64_t)1 << w->depth;

    if (w->after_key) {
        w->after_key = false;
        return;
    }
    if (w->nonempty & bit)
        buf_putc(w->b, ',');
    w->nonempty |= bit;
}

static void open_level(struct jw *w, char c)
{
    separate(w);
    if (w->depth == DEPTH_MAX) {
        w->b->failed = true;
        return;
    }
    buf_putc(w->b, c);
    w->depth++;
    w->nonempty &= ~((uint64_t)1 << w->depth);
}

static void close_level(struct jw *w, char c)
{
    if (w->depth == 0) {
        w->b->failed = true;
        return;
    }
    w->depth--;
    buf_putc(w->b, c);
}

void jw_obj(struct jw *w)
{
    open_level(w, '{');
}

void jw_end_obj(struct jw *w)
{
    close_level(w, '}');
}

void jw_arr(struct jw *w)
{
    open_level(w, '[');
}

void jw_end_arr(struct jw *w)
{
    close_level(w, ']');
}

void jw_key(struct jw *w, const char *key)
{
    size_t n = strlen(key);
    char *p;

    separate(w);
    w->after_key = true;
    if (!buf_reserve(w->b, n + 3))
        return;
    p = w->b->p + w->b->n;
    p[0] = '"';
    memcpy(p + 1, key, n);
    memcpy(p + 1 + n, "\":", 2);
    w->b->n += n + 3;
}

/* Writes the escape for s.p[0], returns how many bytes of s it stands for. */
static size_t put_escape(struct buf *b, struct str s)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char c = (unsigned char)s.p[0];

    switch (escapes[c]) {
    case 'u':
        buf_put(b, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        return 1;
    case 'L':
        if (s.n >= 3 && s.p[1] == '\x80' && (s.p[2] == '\xA8' || s.p[2] == '\xA9')) {
            buf_put(b, s.p[2] == '\xA8' ? "\\u2028" : "\\u2029", 6);
            return 3;
        }
        buf_putc(b, s.p[0]);
        return 1;
    default:
        buf_put(b, (const char[]){'\\', escapes[c]}, 2);
        return 1;
    }
}

static void put_string(struct buf *b, struct str s)
{
    buf_putc(b, '"');
    while (s.n) {
        size_t n = 0;

        while (n < s.n && !escapes[(unsigned char)s.p[n]])
            n++;
        buf_put(b, s.p, n);
        if (n < s.n)
            n += put_escape(b, (struct str){s.p + n, s.n - n});
        s.p += n;
        s.n -= n;
    }
    buf_putc(b, '"');
}

void jw_key_str(struct jw *w, struct str key)
{
    separate(w);
    w->after_key = true;
    put_string(w->b, key);
    buf_putc(w->b, ':');
}

void jw_str(struct jw *w, struct str s)
{
    separate(w);
    if (s.p)
        put_string(w->b, s);
    else
        buf_put(w->b, "null", 4);
}

void jw_int(struct jw *w, int64_t v)
{
    separate(w);
    buf_i64(w->b, v);
}

void jw_uint(struct jw *w, uint64_t v)
{
    separate(w);
    buf_u64(w->b, v);
}

void jw_bool(struct jw *w, bool v)
{
    separate(w);
    buf_str(w->b, v ? STR("true") : STR("false"));
}

void jw_null(struct jw *w)
{
    separate(w);
    buf_put(w->b, "null", 4);
}

void jw_amount(struct jw *w, int64_t minor, unsigned scale)
{
    char text[DECIMAL_TEXT_MAX];
    size_t n = decimal_format(minor, scale, text);

    separate(w);
    buf_put(w->b, text, n);
}

void jw_ratio(struct jw *w, uint64_t num, uint64_t den)
{
    unsigned __int128 scaled = den ? ((unsigned __int128)num * 10000 + den / 2) / den : 0;
    unsigned rest = (unsigned)(scaled % 10000);
    char fraction[5] = {'.', (char)('0' + rest / 1000), (char)('0' + rest / 100 % 10), (char)('0' + rest / 10 % 10),
                        (char)('0' + rest % 10)};

    separate(w);
    buf_u64(w->b, (uint64_t)(scaled / 10000));
    buf_put(w->b, fraction, sizeof fraction);
}

void jw_time(struct jw *w, int64_t us)
{
    char text[TIME_RFC3339_MAX + 2] = "\"";
    size_t n = time_format(us, text + 1);

    text[n + 1] = '"';
    separate(w);
    buf_put(w->b, text, n + 2);
}

void jw_raw(struct jw *w, struct str json)
{
    separate(w);
    buf_str(w->b, json);
}

void jw_kstr(struct jw *w, const char *key, struct str s)
{
    jw_key(w, key);
    jw_str(w, s);
}

void jw_kz(struct jw *w, const char *key, const char *z)
{
    jw_key(w, key);
    jw_str(w, str_c(z));
}

void jw_kint(struct jw *w, const char *key, int64_t v)
{
    jw_key(w, key);
    jw_int(w, v);
}

void jw_kuint(struct jw *w, const char *key, uint64_t v)
{
    jw_key(w, key);
    jw_uint(w, v);
}

void jw_kbool(struct jw *w, const char *key, bool v)
{
    jw_key(w, key);
    jw_bool(w, v);
}

void jw_knull(struct jw *w, const char *key)
{
    jw_key(w, key);
    jw_null(w);
}

void jw_kamount(struct jw *w, const char *key, int64_t minor, unsigned scale)
{
    jw_key(w, key);
    jw_amount(w, minor, scale);
}

void jw_ktime(struct jw *w, const char *key, int64_t us)
{
    jw_key(w, key);
    jw_time(w, us);
}
