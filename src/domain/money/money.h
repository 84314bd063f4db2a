/*
 * money: ISO 4217 currencies. An amount is an int64 of minor units beside a currency; nothing here does arithmetic
 * on floats, and nothing converts between currencies.
 */
#ifndef DOMAIN_MONEY_H
#define DOMAIN_MONEY_H

#include <stdint.h>

#include "base/str.h"

/* The ISO 4217 numeric code (1..999) names a currency inside; 0 is none. */
typedef uint16_t money_currency;

struct money_currency_info {
    char code[4];       /* "USD" */
    money_currency num; /* 840 */
    uint8_t scale;      /* decimals: 0..4 */
};

/* Active ISO 4217 list one currencies with a minor unit (currencies.def: no metals, no fund codes but CLF). NULL: not
   one of them. Codes are exact, upper case. Static and constant: any thread. */
const struct money_currency_info *money_by_code(struct str code);
const struct money_currency_info *money_by_num(money_currency num);
/* All of them, in order of code. */
const struct money_currency_info *money_list(unsigned *ret_n);

#endif
