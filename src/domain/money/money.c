#include "domain/money/money.h"

#include <assert.h>

static const struct money_currency_info list[] = {
#define X(code, num, scale) {#code, num, scale},
#include "domain/money/currencies.def"
#undef X
};

enum { COUNT = sizeof list / sizeof list[0] };
static_assert(COUNT < UINT8_MAX, "a place in the list fits by_num");

enum place {
    PLACE_NONE,
#define X(code, num, scale) PLACE_##code,
#include "domain/money/currencies.def"
#undef X
};

/* ISO number to place in the list, counted from 1; 0: none */
static const uint8_t by_num[1000] = {
#define X(code, num, scale) [num] = PLACE_##code,
#include "domain/money/currencies.def"
#undef X
};

const struct money_currency_info *money_by_code(struct str code)
{
    unsigned lo = 0, hi = COUNT;

    if (code.n != 3)
        return NULL;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        int order = memcmp(code.p, list[mid].code, 3);

        if (order == 0)
            return &list[mid];
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

const struct money_currency_info *money_by_num(money_currency num)
{
    unsigned place = num < sizeof by_num ? by_num[num] : PLACE_NONE;

    return place == PLACE_NONE ? NULL : &list[place - 1];
}

const struct money_currency_info *money_list(unsigned *ret_n)
{
    *ret_n = COUNT;
    return list;
}
