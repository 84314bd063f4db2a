#include "gateway/routes.h"

enum { SECOND = 1000000 };

/* Order matters: the first that fits. A password hash may have to wait for others; a batch of 16 MiB takes its time. */
const struct gateway_row gateway_rows[] = {
    /* prefix                   group             gRPC   deadline     retry breaker     fallback most */
    {"/api/auth", GATEWAY_IDENTITY, false, 15 * SECOND, true, "identity", false, 1024},
    {"/api/events", GATEWAY_EVENT, false, 10 * SECOND, true, "event", true, 4096},
    {"/api/bookings", GATEWAY_BOOKING, true, 10 * SECOND, true, "booking", false, 4096},
    {"/api/transactions/batch", GATEWAY_API, false, 60 * SECOND, true, "batch", false, 64},
    {"/api", GATEWAY_API, false, 30 * SECOND, true, "api", true, 8192},
    {"/docs", GATEWAY_API, false, 10 * SECOND, true, "pages", false, 1024},
    {"/openapi.json", GATEWAY_API, false, 10 * SECOND, true, "pages", false, 1024},
    {"/problems", GATEWAY_API, false, 10 * SECOND, true, "pages", false, 1024},
    {"/metrics/basic", GATEWAY_API, false, 10 * SECOND, true, "pages", false, 1024},
};
const size_t gateway_n_rows = sizeof gateway_rows / sizeof *gateway_rows;

static bool under(struct str path, struct str prefix)
{
    return str_starts(path, prefix) && (path.n == prefix.n || path.p[prefix.n] == '/');
}

const struct gateway_row *gateway_row_find(struct str path)
{
    for (size_t i = 0; i < gateway_n_rows; i++) {
        if (under(path, str_c(gateway_rows[i].prefix)))
            return &gateway_rows[i];
    }
    return NULL;
}

bool gateway_keyless(struct str path)
{
    static const struct str prefixes[] = {{"/api/auth/login", 15},     {"/api/login", 10},
                                          {"/api/users/api-key", 18},  {"/api/v1/auth/login", 18},
                                          {"/api/v1/auth/logout", 19}, {"/api/v1/auth/refresh", 20},
                                          {"/api/v1/test", 12}};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (under(path, prefixes[i]))
            return true;
    }
    /* an event is cancelled once, whatever the key */
    static const struct str events = {"/api/events/", 12}, cancel = {"/cancel", 7};
    return str_starts(path, events) && path.n > cancel.n &&
           str_eq((struct str){path.p + path.n - cancel.n, cancel.n}, cancel);
}
