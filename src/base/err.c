#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/str.h"

static const struct err_info infos[PFE_COUNT] = {
#define X(sym, slug, http, grpc, title, text) [sym] = {slug, http, grpc, title, text},
#include "base/errors.def"
#undef X
};

const struct err_info *err_info(enum pf_err e)
{
    return &infos[(unsigned)e > PFE_OK && (unsigned)e < PFE_COUNT ? e : PFE_INTERNAL];
}

enum pf_err err_by_slug(const char *slug, size_t len)
{
    for (int e = PFE_OK + 1; e < PFE_COUNT; e++)
        if (str_eq((struct str){slug, len}, str_c(infos[e].slug)))
            return (enum pf_err)e;
    return PFE_OK;
}

/* Text that was cut may end within a character; answers must stay UTF-8. */
static void drop_partial_char(char *z)
{
    size_t n = strlen(z), i = n;

    while (i && n - i < 3 && ((unsigned char)z[i - 1] & 0xC0) == 0x80)
        i--;
    if (i && (unsigned char)z[i - 1] >= 0xC0 && str_utf8_seq((struct str){z + i - 1, n - i + 1}) == 0)
        z[i - 1] = '\0';
}

static void __attribute__((format(printf, 3, 0))) put_text(char *out, size_t cap, const char *fmt, va_list ap)
{
    int n = vsnprintf(out, cap, fmt, ap);

    if (n < 0)
        out[0] = '\0';
    else if ((size_t)n >= cap)
        drop_partial_char(out);
}

static void put_word(char *out, size_t cap, const char *word)
{
    size_t n = strnlen(word, cap - 1);

    memcpy(out, word, n);
    out[n] = '\0';
    if (word[n])
        drop_partial_char(out);
}

enum pf_err problem_set(struct problem *p, enum pf_err code, const char *fmt, ...)
{
    va_list ap;

    p->code = code;
    va_start(ap, fmt);
    put_text(p->detail, sizeof p->detail, fmt, ap);
    va_end(ap);
    return code;
}

enum pf_err problem_field(struct problem *p, const char *in, const char *name, const char *type, const char *fmt, ...)
{
    va_list ap;
    struct problem_field *f;

    if (p->code == PFE_OK)
        p->code = PFE_INVALID;
    if (p->n_fields >= PROBLEM_FIELDS_MAX)
        return p->code;
    f = &p->fields[p->n_fields++];
    put_word(f->in, sizeof f->in, in);
    put_word(f->name, sizeof f->name, name);
    put_word(f->type, sizeof f->type, type);
    va_start(ap, fmt);
    put_text(f->msg, sizeof f->msg, fmt, ap);
    va_end(ap);
    return p->code;
}
