/* The configuration file: conf_load on hostile YAML refuses in one clean line, and what it takes keeps params.def. */
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "codec/json_in.h"
#include "conf/internal.h"
#include "fuzz.h"

enum { SECRET_LEN = 24 /* that much of a secret must not be seen; less may stand in a message by chance */ };

struct found {
    struct str file;
    char secrets[CONF_COUNT][SECRET_LEN]; /* how they begin */
    size_t n;
};

/* Else it is the value of another setting as well, which may be shown. */
static bool occurs_once(struct str file, struct str text)
{
    unsigned n = 0;

    for (size_t i = 0; i + text.n <= file.n; i++)
        n += str_eq((struct str){file.p + i, text.n}, text);
    return n == 1;
}

static enum pf_err note(void *ctx, const char *key, const char *value, unsigned long line, char why[CONF_WHY_MAX])
{
    struct found *f = ctx;
    enum conf_id id;

    (void)why;
    CHECK(line > 0);
    CHECK(conf_lookup(str_c(key), CONF_IN_YAML, &id) == CONF_SETTING && f->n < CONF_COUNT);
    if (conf_rows[id].secret && strlen(value) >= SECRET_LEN && occurs_once(f->file, (struct str){value, SECRET_LEN}))
        memcpy(f->secrets[f->n++], value, SECRET_LEN);
    return PFE_OK;
}

static void check_line(const char why[CONF_WHY_MAX])
{
    size_t n = strnlen(why, CONF_WHY_MAX);

    CHECK(n > 0 && n < CONF_WHY_MAX);
    for (size_t i = 0; i < n; i++)
        CHECK((unsigned char)why[i] >= 0x20 && why[i] != 0x7f);
}

static void sink(void *ctx, const char *p, size_t n)
{
    buf_put(ctx, p, n);
}

static void check_hidden(const struct found *f, const char *text, size_t n)
{
    for (size_t i = 0; i < f->n; i++)
        CHECK(!memmem(text, n, f->secrets[i], SECRET_LEN));
}

static void check_print(const struct conf *c, const struct found *f, bool json)
{
    struct arena arena;
    struct json *tree;
    struct buf out;

    buf_init(&out, 0);
    conf_print(c, json, sink, &out);
    CHECK(!out.failed && out.n);
    check_hidden(f, out.p, out.n);
    arena_init(&arena, NULL, 0, SIZE_MAX);
    if (json)
        CHECK(json_parse(&arena, buf_as_str(&out), &tree, NULL) == PFE_OK && tree->n >= CONF_COUNT);
    arena_reset(&arena);
    buf_free(&out);
}

static void check_taken(const struct conf *c, const struct found *f)
{
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        const struct conf_row *row = &conf_rows[id];
        struct str text = str_c(c->values[id].text);
        CHECK(text.p && c->values[id].origin && c->values[id].source <= CONF_FILE);
        if (row->type == CONF_STRING)
            CHECK(str_utf8_ok(text) && text.n >= (size_t)row->min && text.n <= (size_t)row->max);
        else
            CHECK(conf_number(c, (enum conf_id)id) >= row->min && conf_number(c, (enum conf_id)id) <= row->max);
    }
    CHECK((*c->tls_cert == '\0') == (*c->tls_key == '\0') && *c->store_dir && *c->listen_host);
    check_print(c, f, true);
    check_print(c, f, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct found found = {.file = {(const char *)data, n}};
    struct conf c, again;
    struct conf_change changes[CONF_COUNT];
    char why[CONF_WHY_MAX] = "", path[32];
    const char *const args[] = {"--config", path};
    struct conf_input in = {.args = args, .n_args = 2};
    enum pf_err parsed, e;
    int fd;

    /* JWT_SECRET_FILE would read any file of this machine */
    if (memmem(data, n, "_file", 5) || memmem(data, n, "_FILE", 5) || memchr(data, '\\', n))
        return 0;
    memset(&c, 0, sizeof c);
    parsed = conf_yaml("x", found.file, note, &found, &c, why);
    conf_tree_free(&c);
    CHECK(parsed == PFE_OK || parsed == PFE_INVALID);
    if (parsed != PFE_OK)
        check_line(why);

    fd = memfd_create("payflow.yaml", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, data, n) == (ssize_t)n && lseek(fd, 0, SEEK_SET) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    why[0] = '\0';
    e = conf_load(&in, &c, why);
    CHECK(e == PFE_OK || e == PFE_INVALID);
    CHECK(parsed == PFE_OK || e != PFE_OK);
    if (e == PFE_OK) {
        check_taken(&c, &found);
        CHECK(conf_load(&in, &again, why) == PFE_OK && conf_reload(&c, &again, changes) == 0);
        conf_free(&again);
        conf_free(&c);
    } else {
        check_line(why);
        check_hidden(&found, why, strlen(why));
    }
    close(fd);
    return 0;
}
