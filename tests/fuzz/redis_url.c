/* REDIS_URL: what is refused is refused in one clean line without the password; what is taken can be written down again
 * and reads the same. */
#include "base/buf.h"
#include "conf/conf.h"
#include "fuzz.h"

static void encode(struct buf *b, const char *text)
{
    for (const char *c = text; *c; c++)
        buf_printf(b, "%%%02X", (unsigned)(unsigned char)*c);
}

static enum pf_err load(const char *env, struct conf *ret, char why[CONF_WHY_MAX])
{
    const char *list[] = {env, NULL};
    return conf_load(&(struct conf_input){.env = list}, ret, why);
}

static void check_again(const struct conf *c)
{
    char why[CONF_WHY_MAX];
    struct conf again;
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, "REDIS_URL=redis://");
    encode(&b, c->redis.user);
    buf_putc(&b, ':');
    encode(&b, c->redis.password);
    buf_putc(&b, '@');
    buf_printf(&b, strchr(c->redis.host, ':') ? "[%s]" : "%s", c->redis.host);
    buf_printf(&b, ":%d/%d", c->redis.port, c->redis.db);
    buf_putc(&b, '\0');
    CHECK(!b.failed);
    if (load(b.p, &again, why) == PFE_OK) { /* a password near the bound is too long when it is written so */
        CHECK(strcmp(again.redis.host, c->redis.host) == 0);
        CHECK(strcmp(again.redis.user, c->redis.user) == 0);
        CHECK(strcmp(again.redis.password, c->redis.password) == 0);
        CHECK(again.redis.port == c->redis.port && again.redis.db == c->redis.db);
        conf_free(&again);
    } else {
        CHECK(b.n > 255);
    }
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char name[] = "REDIS_URL=";
    char why[CONF_WHY_MAX] = "";
    struct conf c;
    char *env = malloc(sizeof name + n);
    CHECK(env);
    memcpy(env, name, sizeof name - 1);
    memcpy(env + sizeof name - 1, data, n);
    env[sizeof name - 1 + n] = '\0';
    const size_t shown = strlen(env) - (sizeof name - 1);
    if (load(env, &c, why) != PFE_OK) {
        CHECK(why[0] && strnlen(why, sizeof why) < sizeof why);
        CHECK(shown < 16 || !strstr(why, env + sizeof name - 1));
    } else {
        CHECK(c.redis.used == (shown > 0));
        CHECK(!c.redis.used || (c.redis.host[0] && c.redis.port >= 1 && c.redis.port <= 65535));
        CHECK(c.redis.db >= 0 && c.redis.db <= 65535);
        for (const char *p = c.redis.password; *p; p++)
            CHECK((unsigned char)*p >= 0x20);
        if (c.redis.used && c.redis.host[0] != '/') /* a socket's port and database come from elsewhere */
            check_again(&c);
        conf_free(&c);
    }
    free(env);
    return 0;
}
