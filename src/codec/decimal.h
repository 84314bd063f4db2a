/*
 * decimal: amounts from their digits and back, integers all the way.
 *
 * Grammar: that of a JSON number, -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?, ASCII digits only, the same for
 * amounts sent as strings. Decimals are counted as written after applying the exponent: "100.500" has three and
 * is refused for USD; "1.5e1" has none.
 */
#ifndef CODEC_DECIMAL_H
#define CODEC_DECIMAL_H

#include <stdint.h>

#include "base/str.h"

enum decimal_err {
    DECIMAL_OK = 0,
    DECIMAL_SYNTAX,   /* not a number by the grammar */
    DECIMAL_SCALE,    /* more decimals than the scale */
    DECIMAL_ZERO,     /* 0, -0, 0.00, 0e9 */
    DECIMAL_NEGATIVE, /* below 0 */
    DECIMAL_RANGE     /* over INT64_MAX minor units, or over 64 characters */
};

/* scale: decimals of the currency, 0..4. *ret_minor > 0, untouched on error. */
enum decimal_err decimal_parse(struct str s, unsigned scale, int64_t *ret_minor);
/* English, fixed: "must have at most 2 decimals" needs the scale. */
const char *decimal_reason(enum decimal_err e, unsigned scale);
enum { DECIMAL_TEXT_MAX = 24 };
/* Writes NUL; returns the length. Any int64, INT64_MIN included. */
size_t decimal_format(int64_t minor, unsigned scale, char out[DECIMAL_TEXT_MAX]);

#endif
