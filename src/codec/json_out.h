/*
 * json_out: writes JSON into a buf. Commas are its business; errors stick in the buf. Strings must be UTF-8
 * (checked input is); control characters, quotes, backslashes and U+2028/9 are escaped.
 *
 *     struct jw w; jw_init(&w, &buf);
 *     jw_obj(&w); jw_kstr(&w, "name", s); jw_kint(&w, "id", 7); jw_end_obj(&w);
 */
#ifndef CODEC_JSON_OUT_H
#define CODEC_JSON_OUT_H

#include "base/buf.h"
#include "base/str.h"

struct jw {
    struct buf *b;
    unsigned depth;    /* at most 63 */
    uint64_t nonempty; /* bit per level: something was written there */
    bool after_key;
};

void jw_init(struct jw *w, struct buf *b);
void jw_obj(struct jw *w);
void jw_end_obj(struct jw *w);
void jw_arr(struct jw *w);
void jw_end_arr(struct jw *w);
void jw_key(struct jw *w, const char *key);    /* key is ASCII without escapes */
void jw_key_str(struct jw *w, struct str key); /* any key */
void jw_str(struct jw *w, struct str s);       /* .p == NULL writes null */
void jw_int(struct jw *w, int64_t v);
void jw_uint(struct jw *w, uint64_t v);
void jw_bool(struct jw *w, bool v);
void jw_null(struct jw *w);
/* minor units with exactly `scale` decimals, as a number: (10050, 2) -> 100.50, (-5, 2) -> -0.05 */
void jw_amount(struct jw *w, int64_t minor, unsigned scale);
/* A ratio num/den as a number with four decimals (0 when den is 0). */
void jw_ratio(struct jw *w, uint64_t num, uint64_t den);
void jw_time(struct jw *w, int64_t us);     /* RFC 3339 string */
void jw_raw(struct jw *w, struct str json); /* already JSON */

void jw_kstr(struct jw *w, const char *key, struct str s);
void jw_kz(struct jw *w, const char *key, const char *z);
void jw_kint(struct jw *w, const char *key, int64_t v);
void jw_kuint(struct jw *w, const char *key, uint64_t v);
void jw_kbool(struct jw *w, const char *key, bool v);
void jw_knull(struct jw *w, const char *key);
void jw_kamount(struct jw *w, const char *key, int64_t minor, unsigned scale);
void jw_ktime(struct jw *w, const char *key, int64_t us);

#endif
