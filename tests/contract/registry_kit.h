/* What the tests of the registry port share: a watcher that writes down what it hears, and the log. */
#ifndef REGISTRY_KIT_H
#define REGISTRY_KIT_H

#include <stdbool.h>
#include <stddef.h>

#include "port/registry.h"

enum { SEEN_TEXT = 1 << 16 };

/* One for each watch. Zeroed, then seen_init. */
struct seen;

struct seen *seen_new(void);
void seen_free(struct seen *s);
void seen_changed(void *ctx, const struct registry_list *list); /* ctx: struct seen */
/* The last list as text: "id address:port weight health tag,tag;" one behind the other; "-" if nothing was heard yet.
 * The calls so far. */
unsigned seen_text(struct seen *s, char out[SEEN_TEXT]);
/* Until the text is this one, at most so long; false and both texts on stderr if it does not come. */
bool seen_wait(struct seen *s, const char *text, unsigned seconds);
/* How often a list was heard in which nobody is. */
unsigned seen_empty(struct seen *s);
unsigned seen_calls(struct seen *s);

/* Until yes(ctx) is true, at most so long. */
bool wait_until(bool (*yes)(void *ctx), void *ctx, unsigned seconds);

/* The log goes into a file from now on. */
void kit_log_open(void);
/* How often a text stands in it. */
unsigned kit_log_count(const char *text);
void kit_log_close(void);

#endif
