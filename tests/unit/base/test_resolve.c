/* Looking up names within a deadline, with a C library that hangs when it is told to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <netdb.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/resolve.h"

static atomic_bool silent; /* the name servers */
static atomic_int asked;   /* look-ups under way */

int __real_getaddrinfo(const char *, const char *, const struct addrinfo *, struct addrinfo **);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret);

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
    atomic_fetch_add(&asked, 1);
    while (silent)
        usleep(1000);
    int code = __real_getaddrinfo(host, port, hints, ret);
    atomic_fetch_sub(&asked, 1);
    return code;
}

static int64_t now_ms(void)
{
    return clock_mono(clock_system()) / 1000;
}

static void names_and_addresses(void **state)
{
    (void)state;
    struct resolver *r = resolver_new();
    struct resolved x;
    char why[RESOLVE_WHY_MAX];
    assert_int_equal(resolver_ask(r, "192.0.2.7", 1, &x, why), PFE_OK);
    assert_int_equal(x.n, 1);
    assert_string_equal(x.address[0], "192.0.2.7");
    assert_int_equal(resolver_ask(r, "2001:db8::1", 1, &x, why), PFE_OK);
    assert_string_equal(x.address[0], "2001:db8::1");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(resolver_ask(r, "localhost", 5000, &x, why), PFE_OK);
        bool loopback = false;
        for (unsigned k = 0; k < x.n; k++)
            loopback |= strcmp(x.address[k], "127.0.0.1") == 0 || strcmp(x.address[k], "::1") == 0;
        assert_true(loopback);
    }
    assert_int_equal(resolver_ask(r, "two words", 5000, &x, why), PFE_NOT_FOUND);
    assert_true(strlen(why) > 0);
    resolver_free(r);
    resolver_free(NULL);
}

/* Nobody waits for a look-up that hangs: not who asked, nor who ends the resolver. */
static void a_deadline_holds(void **state)
{
    (void)state;
    struct resolver *r = resolver_new();
    struct resolved x;
    char why[RESOLVE_WHY_MAX], name[] = "host-a";
    silent = true;
    int64_t t0 = now_ms();
    for (int i = 0; i < 5; i++)
        assert_int_equal(resolver_ask(r, "localhost", 50, &x, why), PFE_TIMEOUT);
    assert_in_range(now_ms() - t0, 5 * 49, 2000);
    assert_int_equal(asked, 1); /* one thread, however often it was asked for */
    for (int i = 1; i < 16; i++) {
        name[5] = (char)('a' + i);
        assert_int_equal(resolver_ask(r, name, 1, &x, why), PFE_TIMEOUT);
    }
    assert_int_equal(resolver_ask(r, "one-more", 1, &x, why), PFE_BUSY);
    assert_int_equal(resolver_ask(r, "192.0.2.7", 1, &x, why), PFE_OK);
    t0 = now_ms();
    resolver_free(r);
    assert_in_range(now_ms() - t0, 0, 1000);
    silent = false;
    for (int64_t end = now_ms() + 20000; asked && now_ms() < end;)
        usleep(1000);
    assert_int_equal(asked, 0);
    usleep(20000); /* their threads free what they have: a leak would show */
}

/* The answer that comes late is the next one's. */
static void it_goes_on_when_they_answer_again(void **state)
{
    (void)state;
    struct resolver *r = resolver_new();
    struct resolved x;
    char why[RESOLVE_WHY_MAX];
    silent = true;
    assert_int_equal(resolver_ask(r, "localhost", 20, &x, why), PFE_TIMEOUT);
    silent = false;
    assert_int_equal(resolver_ask(r, "localhost", 5000, &x, why), PFE_OK);
    resolver_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_addresses),
        cmocka_unit_test(a_deadline_holds),
        cmocka_unit_test(it_goes_on_when_they_answer_again),
    };
    return cmocka_run_group_tests_name("base/resolve", tests, NULL, NULL);
}
