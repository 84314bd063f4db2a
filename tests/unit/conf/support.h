/* What the conf tests share: one-call loading from literal flags, environment and a YAML text in a scratch directory.
 */
#ifndef TEST_CONF_SUPPORT_H
#define TEST_CONF_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/internal.h"

#define LIST(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define SECRET32 "0123456789abcdef0123456789abcdef"

static char scratch[64], why[CONF_WHY_MAX];
static struct conf conf;

/* A file in the scratch directory; the name is static until the next call with the same i (0..3). */
static inline const char *file_of(unsigned i, const void *p, size_t n)
{
    static char names[4][80];
    FILE *f;

    snprintf(names[i], sizeof names[i], "%s/f%u.yaml", scratch, i);
    f = fopen(names[i], "we");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return names[i];
}

static inline const char *file_text(unsigned i, const char *text)
{
    return file_of(i, text, strlen(text));
}

static inline enum pf_err load_list(const char *const *args, const char *const *env)
{
    struct conf_input in = {.args = args, .env = env};

    while (args[in.n_args])
        in.n_args++;
    conf_free(&conf);
    memset(why, 0, sizeof why);
    return conf_load(&in, &conf, why);
}

static inline enum pf_err load_yaml_text(const char *text)
{
    return load_list(LIST("--config", file_text(0, text)), LIST());
}

static inline void expect_ok(enum pf_err e)
{
    if (e != PFE_OK)
        fail_msg("refused: %s", why);
}

/* Refused, in one line that has `part` in it, with nothing left to free. */
static inline void expect_refused(enum pf_err e, const char *part)
{
    assert_int_equal(e, PFE_INVALID);
    assert_true(strlen(why) > 0);
    assert_null(strchr(why, '\n'));
    if (!strstr(why, part))
        fail_msg("\"%s\" is not in: %s", part, why);
    assert_null(conf.values[0].text);
}

static inline int scratch_make(void **state)
{
    (void)state;
    strcpy(scratch, "/tmp/conf-test-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static inline int scratch_drop(void **state)
{
    char name[80];

    (void)state;
    conf_free(&conf);
    for (unsigned i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s/f%u.yaml", scratch, i);
        unlink(name);
    }
    return rmdir(scratch);
}

#endif
