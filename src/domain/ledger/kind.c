#include "domain/ledger/ledger.h"

static const char *const names[LEDGER_KIND_MAX + 1] = {
    [LEDGER_DEPOSIT] = "deposit",   [LEDGER_WITHDRAW] = "withdraw", [LEDGER_TRANSFER] = "transfer",
    [LEDGER_ROLLBACK] = "rollback", [LEDGER_HOLD] = "hold",         [LEDGER_CAPTURE] = "capture",
    [LEDGER_RELEASE] = "release",   [LEDGER_FREEZE] = "freeze",     [LEDGER_UNFREEZE] = "unfreeze",
    [LEDGER_CLOSE] = "close",
};

const char *ledger_kind_name(enum ledger_kind k)
{
    return (unsigned)k <= LEDGER_KIND_MAX ? names[k] : NULL;
}

bool ledger_kind_parse(struct str s, enum ledger_kind *ret)
{
    enum ledger_kind k = LEDGER_DEPOSIT;

    if (str_is(s, "credit"))
        k = LEDGER_DEPOSIT;
    else if (str_is(s, "debit"))
        k = LEDGER_WITHDRAW;
    else
        while (!str_is(s, names[k]))
            if (k++ == LEDGER_KIND_MAX)
                return false;
    *ret = k;
    return true;
}
