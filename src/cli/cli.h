/*
 * cli: what the commands print. Each takes what main has opened for it and returns an exit code: 0, or 1 for failure.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>

#include "app/app.h"

/* Journal against projections, trial balance, seals. 1 on any difference. */
int cli_verify(struct store *s, bool json);
/* Folds the whole journal and compares; 1 on any difference. */
int cli_replay(struct store *s, bool json);
/* One entry a line on standard output. */
int cli_export(struct store *s, bool csv, int64_t after_seq);
/* What store_verify found, as text or JSON. */
void cli_print_verify(const struct store_verify *v, bool json);

struct cli_admin {
    struct str username, email, password;
    bool api_key; /* also make an API key and print it */
    bool json;
};
int cli_create_admin(struct app *a, const struct cli_admin *in);

/* Writes all of b to standard output and empties it; false when that fails. */
bool cli_flush(struct buf *b);

#endif
